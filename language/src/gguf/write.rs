//! Writing GGUF files: small ones for tests, and what is made of a model (a mixture of a dense net, say).
//!
//! In: metadata, tensors with their bytes. Out: a file of version 3. Must not: hold more of the data than one tensor.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use super::{ALIGNMENT, GgufArray, GgufValue};
use crate::blocks::BlockType;

/// A tensor to be written.
pub struct GgufTensor<'a> {
    /// Name in the file.
    pub name: String,
    /// How its elements are stored.
    pub kind: BlockType,
    /// Outermost axis first.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// A tensor whose bytes come later.
#[derive(Clone, Debug)]
pub struct GgufTensorHead {
    /// Name in the file.
    pub name: String,
    /// How its elements are stored.
    pub kind: BlockType,
    /// Outermost axis first.
    pub shape: Vec<usize>,
}

impl GgufTensorHead {
    /// Its bytes.
    ///
    /// # Errors
    /// Its rows are no whole blocks.
    fn bytes(&self) -> io::Result<u64> {
        let whole = self.shape.last().is_some_and(|n| n.is_multiple_of(self.kind.block_elements()));
        let bytes = self.kind.bytes_of(self.shape.iter().product::<usize>() as u64).filter(|_| whole);
        let message = || {
            let block = self.kind.block_elements();
            format!("tensor `{}`: rows in blocks of {block} are not those of its shape {:?}", self.name, self.shape)
        };
        bytes.ok_or_else(|| invalid(message()))
    }
}

/// Counts what goes through.
struct Counted<'a, W> {
    into: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.into.write(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

/// Writes a file. Integers become 32 bits wide where they fit and 64 where not, floats 32 bits; these are the types that
/// readers expect of known keys.
///
/// # Errors
/// What the writer gives; a tensor whose bytes are not those of its shape, or that is there twice; an impossible alignment.
pub fn write(into: &mut impl Write, metadata: &[(String, GgufValue)], tensors: &[GgufTensor<'_>]) -> io::Result<()> {
    let head = |t: &GgufTensor<'_>| GgufTensorHead { name: t.name.clone(), kind: t.kind, shape: t.shape.clone() };
    let heads: Vec<GgufTensorHead> = tensors.iter().map(head).collect();
    // before anything is written
    for (tensor, head) in tensors.iter().zip(&heads) {
        of_its_shape(&tensor.name, tensor.bytes.len() as u64, head.bytes()?)?;
    }
    write_with(into, metadata, &heads, |i, into| into.write_all(tensors[i].bytes))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn of_its_shape(name: &str, bytes: u64, due: u64) -> io::Result<()> {
    match bytes == due {
        true => Ok(()),
        false => Err(invalid(format!("tensor `{name}`: {bytes} bytes are not those of its shape"))),
    }
}

/// [`write()`] of tensors that are not held: `data` writes the bytes of the one with this number.
///
/// # Errors
/// As [`write()`], and what `data` gives.
pub fn write_with<W: Write>(
    into: &mut W,
    metadata: &[(String, GgufValue)],
    tensors: &[GgufTensorHead],
    mut data: impl FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let alignment = match metadata.iter().find(|(key, _)| key == "general.alignment") {
        None => ALIGNMENT,
        Some((_, GgufValue::Unsigned(n))) if n.is_power_of_two() && (8..=1 << 20).contains(n) => *n,
        Some(_) => return Err(invalid("`general.alignment` is no power of two from 8 to 1048576".into())),
    };
    let mut names = BTreeSet::new();
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut head, key);
        self::value(&mut head, value);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        if !names.insert(&tensor.name) {
            return Err(invalid(format!("tensor `{}` is there twice", tensor.name)));
        }
        text(&mut head, &tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|n| head.extend((*n as u64).to_le_bytes()));
        head.extend(tensor.kind.number().to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset = (offset + tensor.bytes()?).next_multiple_of(alignment);
    }
    head.resize(head.len().next_multiple_of(alignment as usize), 0);
    into.write_all(&head)?;
    for (i, tensor) in tensors.iter().enumerate() {
        let (due, mut counted) = (tensor.bytes()?, Counted { into: &mut *into, bytes: 0 });
        data(i, &mut counted)?;
        of_its_shape(&tensor.name, counted.bytes, due)?;
        let padding = due.next_multiple_of(alignment) - due;
        into.write_all(&vec![0; padding as usize])?;
    }
    Ok(())
}

fn text(head: &mut Vec<u8>, text: &str) {
    head.extend((text.len() as u64).to_le_bytes());
    head.extend(text.as_bytes());
}

fn value(head: &mut Vec<u8>, value: &GgufValue) {
    let mut begin = |kind: u32| head.extend(kind.to_le_bytes());
    match value {
        GgufValue::Unsigned(n) => match u32::try_from(*n) {
            Ok(n) => {
                begin(4);
                head.extend(n.to_le_bytes());
            }
            Err(_) => {
                begin(10);
                head.extend(n.to_le_bytes());
            }
        },
        GgufValue::Signed(n) => match i32::try_from(*n) {
            Ok(n) => {
                begin(5);
                head.extend(n.to_le_bytes());
            }
            Err(_) => {
                begin(11);
                head.extend(n.to_le_bytes());
            }
        },
        GgufValue::Float(x) => {
            begin(6);
            head.extend((*x as f32).to_le_bytes());
        }
        GgufValue::Bool(b) => {
            begin(7);
            head.push(u8::from(*b));
        }
        GgufValue::Text(t) => {
            begin(8);
            text(head, t);
        }
        GgufValue::Array(values) => {
            begin(9);
            array(head, values);
        }
    }
}

fn array(head: &mut Vec<u8>, values: &GgufArray) {
    let mut begin = |kind: u32| {
        head.extend(kind.to_le_bytes());
        head.extend((values.len() as u64).to_le_bytes());
    };
    match values {
        GgufArray::Unsigned(v) if v.iter().all(|n| u32::try_from(*n).is_ok()) => {
            begin(4);
            v.iter().for_each(|n| head.extend((*n as u32).to_le_bytes()));
        }
        GgufArray::Unsigned(v) => {
            begin(10);
            v.iter().for_each(|n| head.extend(n.to_le_bytes()));
        }
        GgufArray::Signed(v) if v.iter().all(|n| i32::try_from(*n).is_ok()) => {
            begin(5);
            v.iter().for_each(|n| head.extend((*n as i32).to_le_bytes()));
        }
        GgufArray::Signed(v) => {
            begin(11);
            v.iter().for_each(|n| head.extend(n.to_le_bytes()));
        }
        GgufArray::Float(v) => {
            begin(6);
            v.iter().for_each(|x| head.extend((*x as f32).to_le_bytes()));
        }
        GgufArray::Bool(v) => {
            begin(7);
            head.extend(v.iter().map(|b| u8::from(*b)));
        }
        GgufArray::Text(v) => {
            begin(8);
            v.iter().for_each(|t| text(head, t));
        }
        GgufArray::Nested(v) => {
            begin(9);
            v.iter().for_each(|inner| array(head, inner));
        }
    }
}
