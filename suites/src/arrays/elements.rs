//! Numbers as files hold them, turned into elements of an [`Array`].
//!
//! In: bytes of a known type, or a text. Out: elements of the kind that is asked for, or what is wrong with one. Must
//! not: change a value silently: whole numbers stay exact or are refused, and what is no number is refused.

use half::{bf16, f16};

use crate::array::{Array, ElementKind};

/// Most rows of a file.
pub const MAX_ROWS: usize = 50_000_000;
/// Most bytes of the chosen rows of one source.
pub const MAX_BYTES: usize = 2 << 30;

/// The type of the numbers in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A kind that arrays have too.
    Own(ElementKind),
    /// 16 bits, the upper half of a 32-bit floating-point number.
    Bf16,
    /// Signed, 16 bits.
    I16,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
}

/// Names of the types, NumPy's letters for them, and safetensors' names.
const NAMES: [(Stored, &str, &str, &str); 13] = [
    (Stored::Own(ElementKind::F32), "f32", "f4", "F32"),
    (Stored::Own(ElementKind::F16), "f16", "f2", "F16"),
    (Stored::Own(ElementKind::F64), "f64", "f8", "F64"),
    (Stored::Own(ElementKind::I64), "i64", "i8", "I64"),
    (Stored::Own(ElementKind::I32), "i32", "i4", "I32"),
    (Stored::Own(ElementKind::U8), "u8", "u1", "U8"),
    (Stored::Own(ElementKind::Bool), "bool", "b1", "BOOL"),
    (Stored::Bf16, "bf16", "", "BF16"),
    (Stored::I16, "i16", "i2", "I16"),
    (Stored::I8, "i8", "i1", "I8"),
    (Stored::U16, "u16", "u2", "U16"),
    (Stored::U32, "u32", "u4", "U32"),
    (Stored::U64, "u64", "u8", "U64"),
];

impl Stored {
    /// The type that safetensors calls so.
    pub fn of_safetensors(name: &str) -> Option<Self> {
        NAMES.iter().find(|n| n.3 == name).map(|n| n.0)
    }

    /// The type of a `descr` of NumPy; `Err`: why it is none that is read.
    pub fn of_numpy(descr: &str) -> Result<Self, String> {
        let (order, letters) = descr.split_at_checked(1).unwrap_or_default();
        let known = NAMES.iter().find(|n| !n.2.is_empty() && n.2 == letters);
        match (order, known) {
            ("<" | "|" | "=", Some(known)) => Ok(known.0),
            (">", Some(known)) if known.0.bytes() == 1 => Ok(known.0),
            (">", Some(_)) => Err("is big-endian: write it as `a.astype(a.dtype.newbyteorder('<'))`".into()),
            _ if letters.starts_with(['U', 'S', 'O']) => {
                Err("holds texts or objects: save numbers, and texts as CSV or JSONL".into())
            }
            _ => Err("is no type that is read here: save it as f32, i64, i32, u8 or bool".into()),
        }
    }

    /// Its name in errors.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|n| n.0 == self).map_or("?", |n| n.1)
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Own(kind) => kind.bytes(),
            Self::I8 => 1,
            Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::U32 => 4,
            Self::U64 => 8,
        }
    }

    /// The kind that its numbers are given to a model as, where nothing is asked for.
    pub fn natural(self) -> ElementKind {
        match self {
            Self::Own(ElementKind::F64) | Self::Bf16 => ElementKind::F32,
            Self::Own(kind) => kind,
            Self::I16 | Self::I8 | Self::U16 => ElementKind::I32,
            Self::U32 | Self::U64 => ElementKind::I64,
        }
    }

    /// One number of so many bytes.
    fn number(self, b: &[u8]) -> Result<Number, String> {
        let eight = || -> [u8; 8] { std::array::from_fn(|i| b[i]) };
        let four = || [b[0], b[1], b[2], b[3]];
        let two = || [b[0], b[1]];
        Ok(match self {
            Self::Own(ElementKind::F32) => Number::Real(f32::from_le_bytes(four()).into()),
            Self::Own(ElementKind::F16) => Number::Real(f16::from_le_bytes(two()).into()),
            Self::Own(ElementKind::F64) => Number::Real(f64::from_le_bytes(eight())),
            Self::Own(ElementKind::I64) => Number::Whole(i64::from_le_bytes(eight())),
            Self::Own(ElementKind::I32) => Number::Whole(i32::from_le_bytes(four()).into()),
            Self::Own(ElementKind::U8) => Number::Whole(b[0].into()),
            Self::Own(ElementKind::Bool) if b[0] > 1 => return Err(format!("is {}, neither 0 nor 1", b[0])),
            Self::Own(ElementKind::Bool) => Number::Whole(b[0].into()),
            Self::Bf16 => Number::Real(bf16::from_le_bytes(two()).into()),
            Self::I16 => Number::Whole(i16::from_le_bytes(two()).into()),
            Self::I8 => Number::Whole(i64::from(b[0] as i8)),
            Self::U16 => Number::Whole(u16::from_le_bytes(two()).into()),
            Self::U32 => Number::Whole(u32::from_le_bytes(four()).into()),
            Self::U64 => {
                let n = u64::from_le_bytes(eight());
                Number::Whole(i64::try_from(n).map_err(|_| format!("is {n}, more than 64 signed bits hold"))?)
            }
        })
    }
}

/// A number of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole one.
    Whole(i64),
    /// Any other.
    Real(f64),
}

impl Number {
    /// The number that a text is.
    ///
    /// # Errors
    /// What it is instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(whole) = text.parse() {
            return Ok(Self::Whole(whole));
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Self::Real(number)),
            Ok(_) => Err("is no finite number".into()),
            Err(_) if text.is_empty() => Err("is empty, where a number is due".into()),
            Err(_) => Err(format!(
                "is `{}`, no number",
                text.chars().take(40).flat_map(char::escape_debug).collect::<String>()
            )),
        }
    }

    /// Appends it as an element of this kind.
    ///
    /// # Errors
    /// Why it cannot be one.
    pub fn put(self, kind: ElementKind, out: &mut Vec<u8>) -> Result<(), String> {
        if let Self::Real(v) = self
            && !v.is_finite()
        {
            return Err(if v.is_nan() { "is NaN".into() } else { "is infinite".into() });
        }
        match kind {
            ElementKind::F32 | ElementKind::F16 | ElementKind::F64 => self.put_real(kind, out),
            _ => self.put_whole(kind, out),
        }
    }

    fn put_real(self, kind: ElementKind, out: &mut Vec<u8>) -> Result<(), String> {
        let exact = match self {
            Self::Whole(n) => Some(n),
            Self::Real(_) => None,
        };
        let value = match self {
            Self::Whole(n) => n as f64,
            Self::Real(v) => v,
        };
        let given = match kind {
            ElementKind::F32 => f64::from(value as f32),
            ElementKind::F16 => f16::from_f64(value).to_f64(),
            _ => value,
        };
        if !given.is_finite() {
            return Err(format!("is {value:e}, beyond {kind}"));
        }
        if exact.is_some_and(|n| given as i64 != n || n.unsigned_abs() > 1 << 53) {
            return Err(format!("is {value}, which {kind} does not hold exactly"));
        }
        match kind {
            ElementKind::F32 => out.extend((value as f32).to_le_bytes()),
            ElementKind::F16 => out.extend(f16::from_f64(value).to_le_bytes()),
            _ => out.extend(value.to_le_bytes()),
        }
        Ok(())
    }

    fn put_whole(self, kind: ElementKind, out: &mut Vec<u8>) -> Result<(), String> {
        let n = match self {
            Self::Whole(n) => n,
            Self::Real(v) if v.fract() == 0.0 && v.abs() <= (1u64 << 53) as f64 => v as i64,
            Self::Real(v) => return Err(format!("is {v}, no whole number, and {kind} holds whole ones")),
        };
        let beyond = || format!("is {n}, beyond {kind}");
        match kind {
            ElementKind::I32 => out.extend(i32::try_from(n).map_err(|_| beyond())?.to_le_bytes()),
            ElementKind::U8 => out.push(u8::try_from(n).map_err(|_| beyond())?),
            ElementKind::Bool if !(0..=1).contains(&n) => return Err(beyond()),
            ElementKind::Bool => out.push(n as u8),
            _ => out.extend(n.to_le_bytes()),
        }
        Ok(())
    }
}

/// Elements of the kind that is asked for, of bytes that hold whole numbers of this type.
///
/// # Errors
/// The place of the first element that is none, from 0, and why.
pub fn convert(stored: Stored, bytes: Vec<u8>, kind: ElementKind) -> Result<Vec<u8>, (usize, String)> {
    if stored == Stored::Own(kind) {
        let fault = match kind {
            ElementKind::F32 => bytes.chunks_exact(4).position(|b| b[3] & 0x7f == 0x7f && b[2] & 0x80 != 0),
            ElementKind::F16 => bytes.chunks_exact(2).position(|b| b[1] & 0x7c == 0x7c),
            ElementKind::F64 => bytes.chunks_exact(8).position(|b| b[7] & 0x7f == 0x7f && b[6] & 0xf0 == 0xf0),
            ElementKind::Bool => bytes.iter().position(|b| *b > 1),
            _ => None,
        };
        let Some(at) = fault else { return Ok(bytes) };
        let size = kind.bytes();
        let number = stored.number(&bytes[at * size..(at + 1) * size]);
        let why = number.and_then(|n| n.put(kind, &mut Vec::new())).err().unwrap_or_else(|| "is no number".into());
        return Err((at, why));
    }
    let mut out = Vec::with_capacity(bytes.len() / stored.bytes() * kind.bytes());
    for (at, element) in bytes.chunks_exact(stored.bytes()).enumerate() {
        stored.number(element).and_then(|n| n.put(kind, &mut out)).map_err(|why| (at, why))?;
    }
    Ok(out)
}

/// The elements of an array as numbers; whole ones beyond 2^53 are rounded.
pub fn numbers(array: &Array) -> Vec<f64> {
    let stored = Stored::Own(array.kind);
    let number = |b: &[u8]| match stored.number(b) {
        Ok(Number::Whole(n)) => n as f64,
        Ok(Number::Real(v)) => v,
        Err(_) => f64::NAN,
    };
    array.bytes.chunks_exact(array.kind.bytes()).map(number).collect()
}

/// The elements of an array of whole numbers.
pub fn wholes(array: &Array) -> Vec<i64> {
    let stored = Stored::Own(array.kind);
    let whole = |b: &[u8]| match stored.number(b) {
        Ok(Number::Whole(n)) => n,
        Ok(Number::Real(v)) => v as i64,
        Err(_) => i64::MIN,
    };
    array.bytes.chunks_exact(array.kind.bytes()).map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(number: Number, kind: ElementKind) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        number.put(kind, &mut out).map(|()| out)
    }

    #[test]
    fn types_have_their_names_in_both_formats() {
        for (stored, name, numpy, tensors) in NAMES {
            assert_eq!(Stored::of_safetensors(tensors), Some(stored));
            assert_eq!(stored.name(), name);
            if !numpy.is_empty() {
                assert_eq!(Stored::of_numpy(&format!("<{numpy}")), Ok(stored));
                assert_eq!(Stored::of_numpy(&format!(">{numpy}")).is_ok(), stored.bytes() == 1);
            }
            assert!(stored.number(&[0; 8]).is_ok());
        }
        for descr in ["", "<", "<U5", "|O", "<c8", "<M8[ns]", "ü", "<f3"] {
            assert!(Stored::of_numpy(descr).is_err(), "{descr}");
        }
    }

    #[test]
    fn whole_numbers_stay_exact_or_are_refused() {
        assert_eq!(put(Number::Whole(1 << 24), ElementKind::F32).unwrap(), ((1 << 24) as f32).to_le_bytes());
        for (number, kind, word) in [
            (Number::Whole((1 << 24) + 1), ElementKind::F32, "exactly"),
            (Number::Whole(4097), ElementKind::F16, "exactly"),
            (Number::Whole((1 << 53) + 1), ElementKind::F64, "exactly"),
            (Number::Whole(256), ElementKind::U8, "beyond u8"),
            (Number::Whole(-1), ElementKind::U8, "beyond u8"),
            (Number::Whole(1 << 40), ElementKind::I32, "beyond i32"),
            (Number::Whole(2), ElementKind::Bool, "beyond bool"),
            (Number::Real(0.5), ElementKind::I64, "no whole number"),
            (Number::Real(1e300), ElementKind::F32, "beyond f32"),
            (Number::Real(f64::NAN), ElementKind::F32, "NaN"),
            (Number::Real(f64::INFINITY), ElementKind::F64, "infinite"),
        ] {
            let said = put(number, kind).unwrap_err();
            assert!(said.contains(word), "{said}");
        }
        assert_eq!(put(Number::Real(3.0), ElementKind::I32).unwrap(), 3i32.to_le_bytes());
        assert_eq!(Number::parse(" 7"), Ok(Number::Whole(7)));
        assert_eq!(Number::parse("-0.5"), Ok(Number::Real(-0.5)));
        for bad in ["", "nan", "1e999", "x"] {
            assert!(Number::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_number_is_found_in_every_type() {
        let bytes = |v: &[f32]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let own = Stored::Own(ElementKind::F32);
        assert_eq!(convert(own, bytes(&[1.0, f32::MAX]), ElementKind::F32), Ok(bytes(&[1.0, f32::MAX])));
        assert_eq!(convert(own, bytes(&[1.0, f32::NAN]), ElementKind::F32), Err((1, "is NaN".into())));
        assert_eq!(convert(own, bytes(&[f32::NEG_INFINITY]), ElementKind::F16), Err((0, "is infinite".into())));
        let halves: Vec<u8> = [f16::ONE, f16::INFINITY].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(convert(Stored::Own(ElementKind::F16), halves, ElementKind::F16), Err((1, "is infinite".into())));
        let doubles: Vec<u8> = [0.1f64, f64::NAN].iter().flat_map(|v| v.to_le_bytes()).collect();
        for kind in [ElementKind::F64, ElementKind::F32] {
            assert_eq!(convert(Stored::Own(ElementKind::F64), doubles.clone(), kind), Err((1, "is NaN".into())));
        }
        assert_eq!(convert(Stored::Own(ElementKind::Bool), vec![1, 2], ElementKind::Bool).unwrap_err().0, 1);
        let brain: Vec<u8> = bf16::from_f32(1.5).to_le_bytes().into();
        assert_eq!(convert(Stored::Bf16, brain, ElementKind::F32), Ok(bytes(&[1.5])));
        assert_eq!(convert(Stored::U64, u64::MAX.to_le_bytes().into(), ElementKind::I64).unwrap_err().0, 0);
    }
}
