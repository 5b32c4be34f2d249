//! Which instruction set the kernels run on. In: what the CPU has and what the user asked for. Out: an [`Isa`] and,
//! from it, the [`Proof`] of presence that every kernel entry needs. Proofs are made here alone, so safe code cannot
//! reach an absent instruction.

#[cfg(target_arch = "x86_64")]
mod token;

use std::fmt;
use std::str::FromStr;

#[cfg(target_arch = "x86_64")]
pub(crate) use token::{Avx2, Avx512, BASE, DOT, TILES};

/// An instruction set with its own kernels, from portable to widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust: the scalar reference that every other path is tested against, and the path of other architectures.
    Scalar,
    /// AVX2, FMA and F16C, 8 lanes of f32.
    Avx2,
    /// AVX-512 F, BW, VL and DQ, 16 lanes of f32.
    Avx512,
    /// The same with AVX512-BF16 and AVX512-VNNI: dot products of bf16 and int8.
    Avx512Bf16,
    /// The same with the tile products of AMX for bf16 and int8; f32 is as in [`Isa::Avx512`].
    Amx,
}

impl Isa {
    /// Every instruction set that has kernels, present here or not, narrowest first.
    pub const ALL: [Isa; 5] = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The widest instruction set that this CPU and its operating system offer.
    pub fn detect() -> Isa {
        *Isa::available().last().unwrap_or(&Isa::Scalar)
    }

    /// Every instruction set that can run here, narrowest first; `Scalar` always can.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| Proof::of(*isa).is_some()).collect()
    }

    /// The named instruction set, or without a name the widest one.
    ///
    /// # Errors
    /// An unknown name, or one that this CPU lacks; the text lists the available names.
    pub fn choose(wanted: Option<&str>) -> Result<Isa, String> {
        let Some(name) = wanted else { return Ok(Isa::detect()) };
        let isa: Isa = name.parse()?;
        match Proof::of(isa) {
            Some(_) => Ok(isa),
            None => Err(format!("instruction set `{isa}` is not available on this CPU\nhint: use one of {}", names())),
        }
    }

    /// [`Isa::choose`] by the environment variable `ERGOMETER_ISA`; unset or empty means the widest.
    ///
    /// # Errors
    /// As [`Isa::choose`], naming the variable.
    pub fn from_env() -> Result<Isa, String> {
        let wanted = std::env::var_os("ERGOMETER_ISA").map(|value| value.to_string_lossy().into_owned());
        Isa::choose(wanted.as_deref().filter(|name| !name.is_empty()))
            .map_err(|error| format!("ERGOMETER_ISA: {error}"))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
        })
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(name: &str) -> Result<Isa, String> {
        let found = Isa::ALL.into_iter().find(|isa| isa.to_string() == name);
        found.ok_or_else(|| format!("unknown instruction set `{name}`\nhint: use one of {}", names()))
    }
}

/// The available names, for error texts.
fn names() -> String {
    Isa::available().iter().map(Isa::to_string).collect::<Vec<_>>().join(", ")
}

/// An instruction set known to be present: the vector variants hold a token that only detection makes.
#[derive(Clone, Copy)]
pub(crate) enum Proof {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<BASE>),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512<DOT>),
    #[cfg(target_arch = "x86_64")]
    Amx(Avx512<TILES>),
}

impl Proof {
    /// The proof for `isa`, if this CPU has it.
    pub(crate) fn of(isa: Isa) -> Option<Proof> {
        match isa {
            Isa::Scalar => Some(Proof::Scalar),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::new().map(Proof::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::new().map(Proof::Avx512),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Avx512::new().map(Proof::Avx512Bf16),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Avx512::new().map(Proof::Amx),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }

    pub(crate) fn isa(self) -> Isa {
        match self {
            Proof::Scalar => Isa::Scalar,
            #[cfg(target_arch = "x86_64")]
            Proof::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Proof::Avx512(_) => Isa::Avx512,
            #[cfg(target_arch = "x86_64")]
            Proof::Avx512Bf16(_) => Isa::Avx512Bf16,
            #[cfg(target_arch = "x86_64")]
            Proof::Amx(_) => Isa::Amx,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
        assert_eq!(Isa::choose(Some("scalar")), Ok(Isa::Scalar));
        assert_eq!(Isa::choose(None), Ok(Isa::detect()));
    }

    #[test]
    fn unknown_or_absent_names_the_available_ones() {
        let error = Isa::choose(Some("avx3")).unwrap_err();
        assert!(error.contains("`avx3`") && error.contains("hint: use one of scalar"), "{error}");
        for isa in Isa::ALL {
            let present = Isa::available().contains(&isa);
            assert_eq!(Isa::choose(Some(&isa.to_string())).is_ok(), present, "{isa}");
        }
    }
}
