//! GGUF files, versions 2 and 3, little-endian: metadata and the table of tensors.
//!
//! In: a file. Out: its metadata by key, and where its tensors lie. Must not: believe a count, a length, an offset or a
//! type before it was held against the file's size, or read a tensor.
//!
//! A file is: `GGUF`, version, number of tensors, number of keys; keys with values; names, shapes, types and offsets of
//! tensors; padding; data. Offsets count from the data's first byte and are multiples of `general.alignment`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ergometer_files::{Links, counted};

mod cursor;
mod value;
mod write;

pub use value::{GgufArray, GgufValue};
pub use write::{GgufTensor, GgufTensorHead, write, write_with};

use crate::{
    blocks::BlockType,
    error::{LanguageError, shown},
    table::{TableEntry, TensorTable},
};
use cursor::Cursor;

/// Most keys and tensors: published files have some hundred and some thousand.
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 17;
/// Longest key and tensor's name, bytes.
const MAX_KEY: u64 = 1 << 10;
const MAX_NAME: u64 = 1 << 8;
/// Most axes of a tensor.
const MAX_AXES: u32 = 4;
/// Alignment of data where no key says otherwise.
const ALIGNMENT: u64 = 32;
/// Largest file that is opened, bytes.
const MAX_FILE: u64 = 1 << 42;

/// An open file whose head was checked.
#[derive(Debug)]
pub struct Gguf {
    /// 2 or 3.
    pub version: u32,
    /// Multiple of which offsets are, bytes.
    pub alignment: u64,
    metadata: BTreeMap<String, GgufValue>,
    tensors: TensorTable,
    path: PathBuf,
}

/// A tensor as the table has it, before its place was checked.
struct Listed {
    name: String,
    kind: BlockType,
    shape: Vec<usize>,
    offset: u64,
    bytes: u64,
}

impl Gguf {
    /// Opens a file and checks its head.
    ///
    /// # Errors
    /// It cannot be read, is no GGUF file, or says of itself what cannot be.
    pub fn open(path: &Path) -> Result<Self, LanguageError> {
        let file = ergometer_files::open(path, MAX_FILE, Links::Followed).map_err(|e| LanguageError::io(path, &e))?;
        let size = file.metadata().map_err(|e| LanguageError::io(path, &e))?.len();
        let mut cursor = Cursor::new(&file, path, size);
        let (version, tensors, keys) = head(&mut cursor)?;
        let metadata = metadata(&mut cursor, keys)?;
        let alignment = alignment(&metadata, path)?;
        let listed = listed(&mut cursor, tensors)?;
        let end = cursor.at();
        let entries = placed(listed, end, alignment, size, path)?;
        let tensors = TensorTable::new(vec![(path.to_owned(), file)], entries);
        Ok(Self { version, alignment, metadata, tensors, path: path.to_owned() })
    }

    /// Path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every key with its value.
    pub fn metadata(&self) -> &BTreeMap<String, GgufValue> {
        &self.metadata
    }

    /// Where its tensors lie.
    pub fn tensors(&self) -> &TensorTable {
        &self.tensors
    }

    /// Gives up the metadata and keeps the tensors.
    pub fn into_tensors(self) -> TensorTable {
        self.tensors
    }

    /// An error about this file.
    pub(crate) fn fail(&self, message: impl Into<String>) -> LanguageError {
        LanguageError::new(&self.path, message)
    }

    fn wrong(&self, key: &str, value: &GgufValue, wanted: &str) -> LanguageError {
        self.fail(format!("metadata `{}` is {}, not {wanted}", shown(key), value.kind()))
            .hint("convert the model again with a current converter")
    }

    fn missing(&self, key: &str) -> LanguageError {
        self.fail(format!("metadata `{}` is missing", shown(key)))
            .hint("convert the model again with a current converter: this key is needed")
    }

    /// A number that is no negative one, if the key is there.
    ///
    /// # Errors
    /// It is something else.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, LanguageError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Unsigned(n)) => Ok(Some(*n)),
            Some(GgufValue::Signed(n)) if *n >= 0 => Ok(Some(*n as u64)),
            Some(other) => Err(self.wrong(key, other, "a count")),
        }
    }

    /// A number, if the key is there.
    ///
    /// # Errors
    /// It is something else, or not finite.
    pub fn float(&self, key: &str) -> Result<Option<f64>, LanguageError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Float(x)) if x.is_finite() => Ok(Some(*x)),
            Some(GgufValue::Unsigned(n)) => Ok(Some(*n as f64)),
            Some(GgufValue::Signed(n)) => Ok(Some(*n as f64)),
            Some(other) => Err(self.wrong(key, other, "a finite number")),
        }
    }

    /// A boolean, if the key is there.
    ///
    /// # Errors
    /// It is something else.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, LanguageError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(self.wrong(key, other, "a boolean")),
        }
    }

    /// A text, if the key is there.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, LanguageError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, other, "a text")),
        }
    }

    /// An array, if the key is there.
    ///
    /// # Errors
    /// It is something else.
    pub fn array(&self, key: &str) -> Result<Option<&GgufArray>, LanguageError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Array(array)) => Ok(Some(array)),
            Some(other) => Err(self.wrong(key, other, "an array")),
        }
    }

    /// [`Gguf::unsigned`] of a key that must be there.
    ///
    /// # Errors
    /// It is missing, or something else.
    pub fn needed_unsigned(&self, key: &str) -> Result<u64, LanguageError> {
        self.unsigned(key)?.ok_or_else(|| self.missing(key))
    }

    /// [`Gguf::float`] of a key that must be there.
    ///
    /// # Errors
    /// It is missing, or something else.
    pub fn needed_float(&self, key: &str) -> Result<f64, LanguageError> {
        self.float(key)?.ok_or_else(|| self.missing(key))
    }

    /// [`Gguf::text`] of a key that must be there.
    ///
    /// # Errors
    /// It is missing, or something else.
    pub fn needed_text(&self, key: &str) -> Result<&str, LanguageError> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    /// An array of texts that must be there.
    ///
    /// # Errors
    /// It is missing, or something else.
    pub fn needed_texts(&self, key: &str) -> Result<&[String], LanguageError> {
        match self.metadata.get(key) {
            None => Err(self.missing(key)),
            Some(GgufValue::Array(GgufArray::Text(texts))) => Ok(texts),
            Some(other) => Err(self.wrong(key, other, "an array of texts")),
        }
    }
}

/// Version, tensors and keys.
fn head(cursor: &mut Cursor<'_>) -> Result<(u32, u64, u64), LanguageError> {
    let magic: [u8; 4] = cursor.array("the magic number")?;
    if magic != *b"GGUF" {
        return Err(cursor
            .fail(format!("no GGUF file: it begins with `{}`, not `GGUF`", magic.escape_ascii()))
            .hint("name a file that ends in `.gguf`, or a folder with config.json and safetensors files"));
    }
    let version = cursor.u32("the version")?;
    if !(2..=3).contains(&version) {
        let hint = "convert the model again with a current converter: versions 2 and 3 are read, little-endian";
        let big_endian = (1..=3).contains(&version.swap_bytes());
        let what = if big_endian { "a big-endian file".into() } else { format!("version {version}") };
        return Err(cursor.fail(format!("{what} is not read")).hint(hint));
    }
    let tensors = cursor.u64("the number of tensors")?;
    let keys = cursor.u64("the number of keys")?;
    // a key: length, type, one byte; a tensor: length, number of axes, an axis, type, offset
    for (n, least, most, what) in [(keys, 13, MAX_KEYS, "key"), (tensors, 32, MAX_TENSORS, "tensor")] {
        if n > most || n.checked_mul(least).is_none_or(|bytes| bytes > cursor.left()) {
            let left = cursor.left();
            return Err(cursor.fail(format!(
                "the head claims {}: {most} are the most, and {left} bytes are left for them",
                counted(n, what)
            )));
        }
    }
    Ok((version, tensors, keys))
}

fn metadata(cursor: &mut Cursor<'_>, keys: u64) -> Result<BTreeMap<String, GgufValue>, LanguageError> {
    let mut metadata = BTreeMap::new();
    let mut elements = value::MAX_ELEMENTS;
    for i in 0..keys {
        let key = cursor.text(MAX_KEY, &format!("key {i} of the metadata"))?;
        let value = value::value(cursor, &format!("metadata `{}`", shown(&key)), &mut elements)?;
        if metadata.contains_key(&key) {
            return Err(cursor.fail(format!("metadata `{}` is there twice", shown(&key))));
        }
        metadata.insert(key, value);
    }
    Ok(metadata)
}

fn alignment(metadata: &BTreeMap<String, GgufValue>, path: &Path) -> Result<u64, LanguageError> {
    match metadata.get("general.alignment") {
        None => Ok(ALIGNMENT),
        Some(GgufValue::Unsigned(n)) if n.is_power_of_two() && (8..=1 << 20).contains(n) => Ok(*n),
        Some(other) => {
            let shown = match other {
                GgufValue::Unsigned(n) => n.to_string(),
                other => other.kind().into(),
            };
            let message = format!("metadata `general.alignment` is {shown}, not a power of two from 8 to 1048576");
            Err(LanguageError::new(path, message))
        }
    }
}

fn listed(cursor: &mut Cursor<'_>, tensors: u64) -> Result<Vec<Listed>, LanguageError> {
    let mut found = Vec::new();
    for i in 0..tensors {
        let name = cursor.text(MAX_NAME, &format!("the name of tensor {i} of {tensors}"))?;
        let what = format!("tensor `{}`", shown(&name));
        let axes = cursor.u32(&what)?;
        if !(1..=MAX_AXES).contains(&axes) {
            return Err(cursor.fail(format!("{what} has {axes} axes; 1 to {MAX_AXES} are read")));
        }
        let mut shape = Vec::new();
        let mut elements = 1u64;
        for _ in 0..axes {
            let length = cursor.u64(&what)?;
            elements = elements.saturating_mul(length);
            shape.push(length);
        }
        let kind = cursor.u32(&what)?;
        let kind = BlockType::of_number(kind).map_err(|known| {
            let hint = "quantise the model to one of F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K";
            match known {
                Some(name) => cursor.fail(format!("{what} is of type {name}, which is not read")).hint(hint),
                None => cursor.fail(format!("{what} is of unknown type {kind}")).hint(hint),
            }
        })?;
        let offset = cursor.u64(&what)?;
        if elements == 0 || !shape[0].is_multiple_of(kind.block_elements() as u64) {
            let (block, kind) = (kind.block_elements(), kind.name());
            return Err(cursor.fail(format!(
                "{what} of {kind} has rows of {} elements; they come in blocks of {block}, and no axis is 0",
                shape[0]
            )));
        }
        let bytes = kind.bytes_of(elements).filter(|b| *b < MAX_FILE && elements < MAX_FILE);
        let bytes =
            bytes.ok_or_else(|| cursor.fail(format!("{what} has shape {shape:?}, more than any file holds")))?;
        // innermost axis first in the file
        let shape = shape.into_iter().rev().map(|length| length as usize).collect();
        found.push(Listed { name, kind, shape, offset, bytes });
    }
    Ok(found)
}

/// The table with places in the file, each inside it, none over another.
fn placed(
    mut listed: Vec<Listed>,
    end: u64,
    alignment: u64,
    size: u64,
    path: &Path,
) -> Result<BTreeMap<String, TableEntry>, LanguageError> {
    let fail = |message: String| LanguageError::new(path, message);
    let data = end.next_multiple_of(alignment);
    listed.sort_by_key(|t| t.offset);
    let mut entries = BTreeMap::new();
    let mut free = 0;
    let mut before = String::new();
    for Listed { name, kind, shape, offset, bytes } in listed {
        let what = format!("tensor `{}`", shown(&name));
        if offset % alignment != 0 {
            return Err(fail(format!("{what} has offset {offset}, not a multiple of {alignment}")));
        }
        if offset < free {
            return Err(fail(format!("{what} at offset {offset} overlaps {before}, which ends at {free}")));
        }
        let last = offset.checked_add(bytes).and_then(|e| e.checked_add(data)).filter(|e| *e <= size);
        if last.is_none() {
            return Err(fail(format!(
                "{what} has {bytes} bytes at offset {offset} of the data, which begin at byte {data}; the file has {size}"
            )));
        }
        (free, before) = (offset + bytes, what.clone());
        let entry = TableEntry { kind, shape, file: 0, begin: data + offset, bytes };
        if entries.insert(name, entry).is_some() {
            return Err(fail(format!("{what} is there twice")));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;
