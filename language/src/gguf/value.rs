//! Values of GGUF's metadata.
//!
//! In: a cursor at a value. Out: the value, numbers widened. Must not: hold more elements than [`MAX_ELEMENTS`], or go
//! deeper than [`MAX_DEPTH`].

use super::cursor::Cursor;
use crate::error::LanguageError;

/// Longest text, bytes; templates have some 20,000.
const MAX_TEXT: u64 = 8 << 20;
/// Most elements of all arrays together; the largest vocabularies have a million tokens and merges.
pub(super) const MAX_ELEMENTS: u64 = 8 << 20;
/// Deepest array of arrays.
const MAX_DEPTH: usize = 4;

/// A value; what its type in the file was stays visible as far as it matters.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// Unsigned, of 8 to 64 bits.
    Unsigned(u64),
    /// Signed, of 8 to 64 bits.
    Signed(i64),
    /// Of 32 or 64 bits.
    Float(f64),
    /// One byte, 0 or 1.
    Bool(bool),
    /// UTF-8.
    Text(String),
    /// Elements of one type.
    Array(GgufArray),
}

/// Elements of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufArray {
    /// Unsigned, of 8 to 64 bits.
    Unsigned(Vec<u64>),
    /// Signed, of 8 to 64 bits.
    Signed(Vec<i64>),
    /// Of 32 or 64 bits.
    Float(Vec<f64>),
    /// One byte each, 0 or 1.
    Bool(Vec<bool>),
    /// UTF-8.
    Text(Vec<String>),
    /// Arrays of arrays.
    Nested(Vec<GgufArray>),
}

impl GgufArray {
    /// Elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Unsigned(v) => v.len(),
            Self::Signed(v) => v.len(),
            Self::Float(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::Text(v) => v.len(),
            Self::Nested(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl GgufValue {
    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unsigned(_) | Self::Signed(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Text(_) => "a text",
            Self::Array(GgufArray::Unsigned(_) | GgufArray::Signed(_)) => "an array of integers",
            Self::Array(GgufArray::Float(_)) => "an array of floats",
            Self::Array(GgufArray::Bool(_)) => "an array of booleans",
            Self::Array(GgufArray::Text(_)) => "an array of texts",
            Self::Array(GgufArray::Nested(_)) => "an array of arrays",
        }
    }
}

/// Number of the type of arrays.
const ARRAY: u32 = 9;
/// Number of the type of texts.
const TEXT: u32 = 8;

/// Least bytes of a value of a type; `None` for an unknown one.
fn least_bytes(kind: u32) -> Option<u64> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        TEXT | 10..=12 => 8,
        // a type and a count
        ARRAY => 12,
        _ => return None,
    })
}

/// A value's type and the value. `elements` are those that arrays may still have.
pub(super) fn value(cursor: &mut Cursor<'_>, what: &str, elements: &mut u64) -> Result<GgufValue, LanguageError> {
    let kind = cursor.u32(what)?;
    match kind {
        ARRAY => Ok(GgufValue::Array(array(cursor, what, elements, 1)?)),
        _ => scalar(cursor, kind, what),
    }
}

fn scalar(cursor: &mut Cursor<'_>, kind: u32, what: &str) -> Result<GgufValue, LanguageError> {
    use GgufValue::{Bool, Float, Signed, Text, Unsigned};
    Ok(match kind {
        0 => Unsigned(cursor.array::<1>(what)?[0].into()),
        1 => Signed(i8::from_le_bytes(cursor.array(what)?).into()),
        2 => Unsigned(u16::from_le_bytes(cursor.array(what)?).into()),
        3 => Signed(i16::from_le_bytes(cursor.array(what)?).into()),
        4 => Unsigned(cursor.u32(what)?.into()),
        5 => Signed(i32::from_le_bytes(cursor.array(what)?).into()),
        6 => Float(f32::from_le_bytes(cursor.array(what)?).into()),
        7 => match cursor.array::<1>(what)?[0] {
            0 => Bool(false),
            1 => Bool(true),
            other => return Err(cursor.fail(format!("{what}: a boolean is 0 or 1, this is {other}"))),
        },
        TEXT => Text(cursor.text(MAX_TEXT, what)?),
        10 => Unsigned(cursor.u64(what)?),
        11 => Signed(i64::from_le_bytes(cursor.array(what)?)),
        12 => Float(f64::from_le_bytes(cursor.array(what)?)),
        other => return Err(unknown(cursor, other, what)),
    })
}

fn unknown(cursor: &Cursor<'_>, kind: u32, what: &str) -> LanguageError {
    cursor.fail(format!("{what}: unknown type of value {kind}; types are 0 to 12"))
}

fn array(cursor: &mut Cursor<'_>, what: &str, elements: &mut u64, depth: usize) -> Result<GgufArray, LanguageError> {
    let kind = cursor.u32(what)?;
    let n = cursor.u64(what)?;
    let least = least_bytes(kind).ok_or_else(|| unknown(cursor, kind, what))?;
    if n.checked_mul(least).is_none_or(|bytes| bytes > cursor.left()) {
        let left = cursor.left();
        return Err(cursor.fail(format!("{what}: an array of {n} elements does not fit in the {left} bytes left")));
    }
    if n > *elements {
        return Err(cursor.fail(format!("{what}: an array of {n} elements; {MAX_ELEMENTS} are the most in all")));
    }
    *elements -= n;
    if kind == ARRAY {
        if depth == MAX_DEPTH {
            return Err(cursor.fail(format!("{what}: arrays of arrays go deeper than {MAX_DEPTH}")));
        }
        let inner = (0..n).map(|_| array(cursor, what, elements, depth + 1));
        return Ok(GgufArray::Nested(inner.collect::<Result<_, _>>()?));
    }
    let mut values = match kind {
        0 | 2 | 4 | 10 => GgufArray::Unsigned(Vec::new()),
        1 | 3 | 5 | 11 => GgufArray::Signed(Vec::new()),
        6 | 12 => GgufArray::Float(Vec::new()),
        7 => GgufArray::Bool(Vec::new()),
        _ => GgufArray::Text(Vec::new()),
    };
    for i in 0..n {
        let value = scalar(cursor, kind, what).map_err(|e| {
            let message = format!("{}, at element {i}", e.message);
            LanguageError { message, ..e }
        })?;
        match (&mut values, value) {
            (GgufArray::Unsigned(v), GgufValue::Unsigned(x)) => v.push(x),
            (GgufArray::Signed(v), GgufValue::Signed(x)) => v.push(x),
            (GgufArray::Float(v), GgufValue::Float(x)) => v.push(x),
            (GgufArray::Bool(v), GgufValue::Bool(x)) => v.push(x),
            (GgufArray::Text(v), GgufValue::Text(x)) => v.push(x),
            _ => return Err(unknown(cursor, kind, what)),
        }
    }
    Ok(values)
}
