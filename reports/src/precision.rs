//! The one closed table of precisions: name, bytes, what outputs may be off by, what arithmetic and which other
//! precision a case is held to.
//!
//! In: names. Out: [`Precision`]s. Must not: know which backend computes in it, or how.
//!
//! It is here because plans, parity checks, ceilings, comparisons and plots all read it, and this crate is the lowest
//! that all of them see. Suites are told the names that they may use.

/// A number format that a case computes in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Precision {
    /// As suites and keys spell it.
    pub name: &'static str,
    /// Of an element of weights and values, for the cost model.
    pub bytes: f64,
    /// How far its outputs may be from the reference.
    pub tolerance: Tolerance,
    /// It is full precision, which is held to no other; reduced ones are held to it.
    pub full: bool,
    /// The arithmetic that it could reach at best.
    pub held_to: HeldTo,
    /// Suites may ask other programs for it; they may ask a backend for whatever it computes in.
    pub asked: bool,
}

/// A named limit of an error over the largest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// As verdicts spell it.
    pub name: &'static str,
    /// The limit.
    pub limit: f64,
}

/// Which measured ceilings of arithmetic hold for a precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldTo {
    /// That of the case's instruction set in f32, if it has a loop of its own, else the best in f32.
    InstructionSet,
    /// The best of those whose names begin so.
    Best(&'static [&'static str]),
    /// None is measured.
    Nothing,
}

const STRICT: Tolerance = Tolerance { name: "f32-strict", limit: 1e-4 };
const REDUCED: Tolerance = Tolerance { name: "reduced", limit: 0.03 };
// a symmetric byte has 127 steps to a row's largest value: half a per cent of noise in every product, which a recursive
// net adds up over its calls
const INT8: Tolerance = Tolerance { name: "int8", limit: 0.05 };

// activations are quantised by block of 32, weights are those of the file: 0.05 of the largest logit after 30 layers is met, at a divergence of the next
// token of 0.005 nats
const STORED: Tolerance = Tolerance { name: "stored", limit: 0.1 };

/// Every precision that is known, in the order in which plots show them. Reduced ones may be faster by FMA in f32 than
/// by anything of their own.
pub const PRECISIONS: [Precision; 6] = [
    Precision { name: "f32", bytes: 4.0, tolerance: STRICT, full: true, held_to: HeldTo::InstructionSet, asked: true },
    Precision {
        name: "bf16",
        bytes: 2.0,
        tolerance: REDUCED,
        full: false,
        held_to: HeldTo::Best(&["bf16.", "f32."]),
        asked: true,
    },
    Precision { name: "f16", bytes: 2.0, tolerance: REDUCED, full: false, held_to: HeldTo::Nothing, asked: true },
    Precision {
        name: "int8",
        bytes: 1.0,
        tolerance: INT8,
        full: false,
        held_to: HeldTo::Best(&["int8.", "f32."]),
        asked: true,
    },
    // of language models: weights in the blocks of their file, activations in bytes; what an element takes is the file's to say
    Precision {
        name: "stored",
        bytes: 1.0,
        tolerance: STORED,
        full: false,
        held_to: HeldTo::Best(&["int8.", "f32."]),
        asked: true,
    },
    Precision { name: "f64", bytes: 8.0, tolerance: STRICT, full: true, held_to: HeldTo::Nothing, asked: false },
];

/// What holds for an unknown name; a run folder may have any.
const UNKNOWN: Precision =
    Precision { name: "unknown", bytes: 4.0, tolerance: REDUCED, full: false, held_to: HeldTo::Nothing, asked: false };

impl Precision {
    /// The precision of this name. One that is not in the table is taken for a reduced one of four bytes, which no
    /// ceiling is measured for.
    pub fn of(name: &str) -> Self {
        PRECISIONS.into_iter().find(|p| p.name == name).unwrap_or(UNKNOWN)
    }

    /// Its place in the table; an unknown one comes last.
    pub fn place(name: &str) -> usize {
        PRECISIONS.iter().position(|p| p.name == name).unwrap_or(PRECISIONS.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reduced_is_held_to_more() {
        for precision in PRECISIONS {
            assert_eq!(Precision::of(precision.name), precision);
            assert_eq!(precision.full, precision.tolerance == STRICT, "{}", precision.name);
            assert_eq!(precision.full, precision.bytes >= 4.0, "{}", precision.name);
        }
        let other = Precision::of("f8");
        assert!(!other.full && other.held_to == HeldTo::Nothing && other.tolerance == REDUCED);
        assert!(PRECISIONS.iter().all(|p| Precision::place(p.name) < Precision::place("f8")));
    }
}
