//! The header of NumPy's `.npy`: written, and read from files that anybody may have made.
//!
//! In: the first bytes of a file. Out: type and axes of what follows. Must not: evaluate the header as the Python that it
//! looks like, or believe a length beyond what headers have.

use std::io::{self, Read};

use super::elements::Stored;

/// Longest header that is read.
const MAX_HEADER: usize = 64 << 10;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpyHeader {
    /// Type of the numbers.
    pub stored: Stored,
    /// Elements along each axis, the slowest first.
    pub shape: Vec<usize>,
    /// Bytes of the header itself.
    pub bytes: u64,
}

/// Version 1.0 of `.npy`: magic, length, a Python dictionary, spaces to a multiple of 64. `kind` is NumPy's `descr`,
/// `axes` a Python tuple.
///
/// # Errors
/// More axes than a header of this version holds.
pub fn header(kind: &str, axes: &str) -> io::Result<Vec<u8>> {
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {axes}, }}");
    let padded = (text.len() + 11).next_multiple_of(64) - 11;
    text.extend(std::iter::repeat_n(' ', padded - text.len()));
    text.push('\n');
    let length = u16::try_from(text.len()).map_err(io::Error::other)?;
    Ok([b"\x93NUMPY\x01\x00", &length.to_le_bytes()[..], text.as_bytes()].concat())
}

/// Reads a header; what follows in `from` are the numbers.
///
/// # Errors
/// Why it is none, in words.
pub fn read_header(from: &mut impl Read) -> Result<NpyHeader, String> {
    let cut = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => "it ends within its header".to_owned(),
        _ => format!("cannot be read: {e}"),
    };
    let mut begin = [0; 10];
    from.read_exact(&mut begin).map_err(cut)?;
    if !begin.starts_with(b"\x93NUMPY") {
        return Err("it does not begin as an array of NumPy does".into());
    }
    let (length, before) = match begin[6] {
        1 => (usize::from(u16::from_le_bytes([begin[8], begin[9]])), 10),
        2 | 3 => {
            let mut more = [0; 2];
            from.read_exact(&mut more).map_err(cut)?;
            (u32::from_le_bytes([begin[8], begin[9], more[0], more[1]]) as usize, 12)
        }
        version => return Err(format!("its version is {version}, and 1 to 3 are read")),
    };
    if length > MAX_HEADER {
        return Err(format!("it claims a header of {length} bytes, {MAX_HEADER} are the most"));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text).map_err(cut)?;
    let text = std::str::from_utf8(&text).map_err(|_| "its header is no text".to_owned())?;
    let (stored, shape) = dictionary(text)?;
    Ok(NpyHeader { stored, shape, bytes: (before + length) as u64 })
}

/// Type and axes out of `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn dictionary(text: &str) -> Result<(Stored, Vec<usize>), String> {
    let value = |key: &str| {
        let at = [format!("'{key}'"), format!("\"{key}\"")].iter().find_map(|k| Some(text.find(k)? + k.len()))?;
        Some(text[at..].trim_start().strip_prefix(':')?.trim_start())
    };
    let missing = |key: &str| format!("its header has no `{key}`");
    let descr = value("descr").ok_or_else(|| missing("descr"))?;
    let quote = descr.chars().next().filter(|c| ['\'', '"'].contains(c));
    let descr = quote.and_then(|q| descr[1..].split_once(q)).map(|(descr, _)| descr);
    let descr = descr.ok_or("its elements are records of several fields: save one array for each field")?;
    let shown: String = descr.chars().take(20).flat_map(char::escape_debug).collect();
    let stored = Stored::of_numpy(descr).map_err(|why| format!("its type `{shown}` {why}"))?;
    let shape = value("shape").and_then(|v| v.strip_prefix('(')?.split_once(')')).map(|(inside, _)| inside);
    let shape = shape.ok_or_else(|| missing("shape"))?;
    let axis = |axis: &str| axis.trim().trim_end_matches('L').parse::<usize>().ok();
    let axes = shape.split(',').filter(|a| !a.trim().is_empty()).map(axis).collect::<Option<Vec<usize>>>();
    let axes = axes.ok_or("its `shape` is no tuple of whole numbers")?;
    let fortran = value("fortran_order").ok_or_else(|| missing("fortran_order"))?;
    if fortran.starts_with("True") && axes.len() > 1 {
        return Err("it lies in column order: save `numpy.ascontiguousarray(a)`".into());
    }
    Ok((stored, axes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::ElementKind;

    #[test]
    fn a_header_is_read_back() {
        for (kind, axes, shape) in
            [("<f4", "(3, 4)", &[3, 4][..]), ("|u1", "(7,)", &[7]), ("<i8", "()", &[]), ("|b1", "(0, 2)", &[0, 2])]
        {
            let bytes = header(kind, axes).unwrap();
            let read = read_header(&mut &bytes[..]).unwrap();
            assert_eq!((read.shape.as_slice(), read.bytes), (shape, bytes.len() as u64));
            assert_eq!(read.stored, Stored::of_numpy(kind).unwrap());
            assert_eq!(read.bytes % 64, 0);
        }
        // version 2, as long headers have, and Python 2's numbers
        let text = "{'shape': (2L, 3L), \"descr\": \"<f8\", 'fortran_order': False}";
        let bytes = [b"\x93NUMPY\x02\x00", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        let read = read_header(&mut &bytes[..]).unwrap();
        assert_eq!((read.stored, read.shape), (Stored::Own(ElementKind::F64), vec![2, 3]));
    }

    #[test]
    fn what_is_no_header_says_why() {
        let with =
            |text: &str| [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat();
        for (bytes, word) in [
            (b"PK\x03\x04aaaaaaaaa".to_vec(), "does not begin"),
            (b"\x93NUM".to_vec(), "ends within"),
            (b"\x93NUMPY\x09\x00\x00\x00".to_vec(), "version"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "claims a header"),
            (b"\x93NUMPY\x01\x00\xff\x00{".to_vec(), "ends within"),
            (with("{'descr': '<f4', 'shape': (1,)}"), "fortran_order"),
            (with("{'fortran_order': False, 'shape': (1,)}"), "descr"),
            (with("{'descr': '<f4', 'fortran_order': False}"), "shape"),
            (with("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}"), "several fields"),
            (with("{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}"), "big-endian"),
            (with("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"), "objects"),
            (with("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "whole numbers"),
            (with("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}"), "whole numbers"),
            (with("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2)}"), "column order"),
        ] {
            let said = read_header(&mut &bytes[..]).unwrap_err();
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}
