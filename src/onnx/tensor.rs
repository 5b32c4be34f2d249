//! One tensor of ONNX's own test data: `input_0.pb`, `output_0.pb`.
//!
//! In: a file. Out: an [`Array`] and its name. Must not: believe a size that the file does not have.

use std::io::{Read, Seek};

use ergometer_suites::{Array, ElementKind};

use super::wire::{Content, Wire, WireFault};

/// Largest file.
const MAX_BYTES: u64 = 1 << 30;

/// Reads it.
///
/// # Errors
/// Bytes that are no tensor, or one of a type that models are not given.
pub fn read(from: impl Read + Seek) -> Result<(String, Array), String> {
    let told = |fault: WireFault| match fault {
        WireFault::Short { at, what } => format!("is cut off: at byte {at} there should be {what}"),
        WireFault::Malformed { at, what } => format!("is no tensor: at byte {at} there is {what}"),
        WireFault::Unreadable(why) => format!("cannot be read: {why}"),
    };
    let mut wire = Wire::new(from).map_err(told)?;
    let end = wire.length();
    if end > MAX_BYTES {
        return Err(format!("has {end} bytes, at most {MAX_BYTES} are read"));
    }
    let (mut name, mut element, mut shape) = (String::new(), 0, Vec::new());
    let (mut raw, mut wholes, mut floats) = (Vec::new(), Vec::new(), Vec::<u8>::new());
    let most = usize::try_from(end).unwrap_or(usize::MAX);
    while let Some((number, content)) = wire.field(end).map_err(told)? {
        match (number, content) {
            (1, content) => wire.numbers(content, &mut shape, 64).map_err(told)?,
            (2, Content::Number(n)) => element = n,
            // packed floats lie as raw ones do
            (4, Content::Until(end)) => floats = wire.bytes(end, MAX_BYTES).map_err(told)?,
            (4, Content::Four(bytes)) => floats.extend(bytes),
            (5 | 7, content) => wire.numbers(content, &mut wholes, most).map_err(told)?,
            (8, Content::Until(end)) => name = wire.text(end, 1 << 16).map_err(told)?,
            (9, Content::Until(end)) => raw = wire.bytes(end, MAX_BYTES).map_err(told)?,
            (_, Content::Until(end)) => wire.skip(end).map_err(told)?,
            _ => {}
        }
    }
    let kind = match element {
        1 => ElementKind::F32,
        2 => ElementKind::U8,
        6 => ElementKind::I32,
        7 => ElementKind::I64,
        9 => ElementKind::Bool,
        10 => ElementKind::F16,
        other => return Err(format!("holds {}, which cannot be given", super::header::element_name(other))),
    };
    let narrow = |n: i64| n.to_le_bytes()[..kind.bytes()].to_vec();
    let bytes = match (raw.is_empty(), kind) {
        (false, _) => raw,
        (true, ElementKind::F32) => floats,
        (true, _) => wholes.into_iter().flat_map(narrow).collect(),
    };
    let shape: Option<Vec<usize>> = shape.iter().map(|&n| usize::try_from(n).ok()).collect();
    let elements = shape.as_ref().and_then(|s| s.iter().try_fold(kind.bytes(), |n, &d| n.checked_mul(d)));
    match (shape, elements) {
        (Some(shape), Some(needed)) if needed == bytes.len() => Ok((name, Array { kind, shape, bytes: bytes.into() })),
        (shape, _) => Err(format!("has {} bytes of elements for the shape {shape:?}", bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use prost::Message;

    use super::*;
    use crate::onnx::small::floats;

    #[test]
    fn a_tensor_is_read_and_a_lie_is_told() {
        let tensor = floats("x", &[1, 2], &[1.5, -2.0]);
        let (name, array) = read(Cursor::new(tensor.encode_to_vec())).unwrap();
        assert_eq!((name.as_str(), &array.shape[..], array.kind), ("x", &[1, 2][..], ElementKind::F32));
        assert_eq!(array.bytes[..4], 1.5f32.to_le_bytes());
        let lies = floats("x", &[1_000_000_000, 2], &[1.5, -2.0]);
        assert!(read(Cursor::new(lies.encode_to_vec())).unwrap_err().contains("has 8 bytes of elements"));
        let bytes = tensor.encode_to_vec();
        assert!(read(Cursor::new(&bytes[..bytes.len() - 3])).unwrap_err().contains("is cut off"));
        assert!(read(Cursor::new(b"nothing")).is_err());
        let packed = [&[0x08, 2, 0x10, 7, 0x3a, 2, 5, 6][..]].concat();
        let (_, array) = read(Cursor::new(packed)).unwrap();
        assert_eq!(array.bytes[..8], 5i64.to_le_bytes());
    }
}
