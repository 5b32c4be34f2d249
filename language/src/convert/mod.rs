//! GGUF files made of GGUF files: other types, experts instead of a dense MLP.
//!
//! In: an open file, what is wanted. Out: a new file, with metadata that say what it is made of. Must not: hold more than a
//! piece of a tensor, or pass a copy for an original.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use ergometer_files::counted;

use crate::{
    BlockType,
    error::LanguageError,
    gguf::{Gguf, GgufTensorHead, GgufValue, write_with},
    table::TableEntry,
};

mod moefy;
mod requantise;

pub use moefy::{GivenRouters, Moefication, Router, moefy};
pub use requantise::{Requantisation, requantise};

/// Bytes of a tensor that are held at once, about.
const PIECE: usize = 4 << 20;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Bytes of the file.
    pub bytes: u64,
    /// Tensors by type.
    pub kinds: BTreeMap<&'static str, usize>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// How far it is: tensors that are written, and all.
pub type ConversionProgress<'a> = &'a mut dyn FnMut(usize, usize);

/// The tensors of a file in the order of their data.
fn in_order(gguf: &Gguf) -> Vec<(&str, &TableEntry)> {
    let mut all: Vec<_> = gguf.tensors().entries().iter().map(|(name, entry)| (name.as_str(), entry)).collect();
    all.sort_by_key(|(_, entry)| entry.begin);
    all
}

/// Types with the number of their tensors, in words.
fn kinds_in_words<'a>(kinds: impl Iterator<Item = BlockType> + 'a) -> String {
    let counts = count(kinds);
    counts.iter().map(|(kind, n)| format!("{kind} ({})", counted(*n as u64, "tensor"))).collect::<Vec<_>>().join(", ")
}

fn count(kinds: impl Iterator<Item = BlockType>) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    kinds.for_each(|kind| *counts.entry(kind.name()).or_insert(0) += 1);
    counts
}

/// A file's metadata with some keys set anew. What it is of comes first, which readers like.
fn metadata_with(gguf: &Gguf, set: Vec<(String, GgufValue)>) -> Vec<(String, GgufValue)> {
    let mut all = gguf.metadata().clone();
    // data are aligned as this crate writes them
    all.remove("general.alignment");
    all.extend(set);
    let first = "general.architecture";
    let architecture = all.remove(first).map(|value| (first.to_owned(), value));
    architecture.into_iter().chain(all).collect()
}

/// The name of a file for metadata: no path of a machine.
fn name_of(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Writes a new file in one step; `data` writes the bytes of the tensor with this number.
fn write_file(
    out: &Path,
    metadata: &[(String, GgufValue)],
    heads: &[GgufTensorHead],
    progress: ConversionProgress<'_>,
    mut data: impl FnMut(usize, &mut dyn Write) -> Result<(), PieceError>,
) -> Result<Converted, LanguageError> {
    // what is wrong with the source goes round the errors of writing
    let source = RefCell::new(None);
    let write = |file: &mut File| -> io::Result<()> {
        let mut into = BufWriter::with_capacity(1 << 20, file);
        write_with(&mut into, metadata, heads, |i, into| {
            data(i, into).map_err(|e| match e {
                PieceError::Write(e) => e,
                PieceError::Read(e) => {
                    *source.borrow_mut() = Some(e);
                    io::Error::other("the source cannot be read")
                }
            })?;
            progress(i + 1, heads.len());
            Ok(())
        })?;
        into.flush()
    };
    let written = ergometer_files::replace_with(out, write);
    if let Some(error) = source.into_inner() {
        return Err(error);
    }
    let fail = |e: &io::Error| {
        let hint = ergometer_files::remedy(e).unwrap_or("is there space, and may you write there?");
        LanguageError::new(out, format!("cannot be written: {e}")).hint(hint)
    };
    written.map_err(|e| fail(&e))?;
    let bytes = out.metadata().map_err(|e| fail(&e))?.len();
    Ok(Converted { bytes, kinds: count(heads.iter().map(|h| h.kind)), notes: Vec::new() })
}

/// Why a piece was not carried over.
enum PieceError {
    Read(LanguageError),
    Write(io::Error),
}

impl From<LanguageError> for PieceError {
    fn from(e: LanguageError) -> Self {
        Self::Read(e)
    }
}

impl From<io::Error> for PieceError {
    fn from(e: io::Error) -> Self {
        Self::Write(e)
    }
}

/// Rows of a tensor in pieces of about [`PIECE`] bytes each, of `row_bytes` a row.
fn pieces(rows: usize, row_bytes: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let step = (PIECE / row_bytes.max(1)).max(1);
    (0..rows).step_by(step).map(move |first| first..rows.min(first + step))
}

/// Copies a tensor as it is stored.
fn copy(gguf: &Gguf, name: &str, entry: &TableEntry, into: &mut dyn Write) -> Result<(), PieceError> {
    let mut bytes = Vec::new();
    for rows in pieces(entry.rows(), entry.row_bytes()) {
        bytes.clear();
        gguf.tensors().read_rows(name, rows, &mut bytes)?;
        into.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
