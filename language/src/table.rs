//! Tensors as they lie in files: type, shape, place. GGUF and safetensors both give this table.
//!
//! In: open files and entries that were checked against their sizes. Out: bytes of a tensor or of some of its rows, and
//! f32. Must not: hold weights; who asks brings or takes the buffer.
//!
//! Data are read by position, not mapped: a mapped file that somebody cuts off ends the process, a read gives an error.
//! Whoever repacks weights at load reads a piece, packs it and reads the next, so that they are in memory once.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    blocks::BlockType,
    error::{LanguageError, shown},
};

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// How its elements are stored.
    pub kind: BlockType,
    /// Outermost axis first, so rows are `shape[..n - 1]` and a row has `shape[n - 1]` elements that lie together. (GGUF
    /// writes the axes the other way round.)
    pub shape: Vec<usize>,
    /// Which of the files.
    pub file: usize,
    /// Its first byte in that file.
    pub begin: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl TableEntry {
    /// Elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements of a row.
    pub fn row_elements(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows: all axes but the last.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.bytes as usize / self.rows().max(1)
    }
}

/// Open files and the tensors in them.
#[derive(Debug)]
pub struct TensorTable {
    files: Vec<(PathBuf, File)>,
    entries: BTreeMap<String, TableEntry>,
}

impl TensorTable {
    pub(crate) fn new(files: Vec<(PathBuf, File)>, entries: BTreeMap<String, TableEntry>) -> Self {
        Self { files, entries }
    }

    /// By the name in the file.
    pub fn entries(&self) -> &BTreeMap<String, TableEntry> {
        &self.entries
    }

    /// The first file, which errors about the whole table name.
    pub fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |f| &f.0)
    }

    /// The file of a tensor.
    pub fn path_of(&self, name: &str) -> &Path {
        self.entries.get(name).and_then(|e| self.files.get(e.file)).map_or(self.path(), |f| &f.0)
    }

    /// A tensor's entry.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn entry(&self, name: &str) -> Result<&TableEntry, LanguageError> {
        let absent = || LanguageError::new(self.path(), format!("tensor `{}` is missing", shown(name)));
        self.entries.get(name).ok_or_else(absent)
    }

    /// Appends the bytes of these rows as they are stored.
    ///
    /// # Errors
    /// There is no such tensor; it has no such rows; the file cannot be read.
    pub fn read_rows(&self, name: &str, rows: Range<usize>, bytes: &mut Vec<u8>) -> Result<(), LanguageError> {
        let entry = self.entry(name)?;
        if rows.start > rows.end || rows.end > entry.rows() {
            let message = format!("tensor `{}` has {} rows, not rows {rows:?}", shown(name), entry.rows());
            return Err(LanguageError::new(self.path_of(name), message));
        }
        let before = bytes.len();
        bytes.resize(before + rows.len() * entry.row_bytes(), 0);
        let at = entry.begin + (rows.start * entry.row_bytes()) as u64;
        let (path, file) = &self.files[entry.file];
        read_exact(file, &mut bytes[before..], at).map_err(|e| LanguageError::io(path, &e))
    }

    /// These rows as f32, `rows.len() * row_elements()` of them.
    ///
    /// # Errors
    /// As [`TensorTable::read_rows`].
    pub fn dequantise_rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, LanguageError> {
        let entry = self.entry(name)?;
        let (mut bytes, mut values) = (Vec::new(), Vec::with_capacity(rows.len() * entry.row_elements()));
        // a piece of rows at a time, so that stored bytes are not held beside all values
        let step = ((1 << 20) / entry.row_bytes().max(1)).max(1);
        for first in rows.clone().step_by(step) {
            bytes.clear();
            let piece = first..rows.end.min(first + step);
            self.read_rows(name, piece.clone(), &mut bytes)?;
            let before = values.len();
            values.resize(before + piece.len() * entry.row_elements(), 0.0);
            entry.kind.dequantise(&bytes, &mut values[before..]);
        }
        Ok(values)
    }

    /// A tensor as f32.
    ///
    /// # Errors
    /// As [`TensorTable::read_rows`].
    pub fn dequantise(&self, name: &str) -> Result<Vec<f32>, LanguageError> {
        self.dequantise_rows(name, 0..self.entry(name)?.rows())
    }
}

/// Fills a buffer from a place of a file.
pub(crate) fn read_exact(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(buffer, at).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(e.kind(), "it became shorter while it was read"),
        _ => e,
    })
}
