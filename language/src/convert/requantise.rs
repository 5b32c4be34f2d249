//! Weights in other types: dequantised and encoded again.
//!
//! In: a file, the type of its matrices. Out: a file that says of itself what it was made of. Must not: search for better
//! scales, or touch vectors and routers: those stay as they are.
//!
//! A 4-bit file that is encoded in 8 bits has the accuracy of the 4-bit file: what was lost does not come back.

use std::path::Path;

use super::{
    ConversionProgress, Converted, PieceError, copy, in_order, kinds_in_words, metadata_with, name_of, pieces,
    write_file,
};
use crate::{
    BlockType,
    error::{LanguageError, shown},
    gguf::{Gguf, GgufTensorHead, GgufValue},
    table::TableEntry,
};

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requantisation {
    /// Type of the matrices.
    pub to: BlockType,
    /// Type of the embedding and of the head; `None`: that of the others, but of eight bits at least, as llama.cpp's.
    pub embedding: Option<BlockType>,
}

impl Requantisation {
    fn embedding(self) -> BlockType {
        let narrow = self.to.bits_per_element() < BlockType::Q8_0.bits_per_element();
        self.embedding.unwrap_or(if narrow { BlockType::Q8_0 } else { self.to })
    }

    /// The type that a tensor is to have; `None`: it stays as it is.
    fn of(self, name: &str, entry: &TableEntry) -> Option<BlockType> {
        let matrix = entry.shape.len() > 1 && entry.rows() > 1;
        let kept = name.contains("ffn_gate_inp") || name.starts_with("position_embd");
        let table = name == "token_embd.weight" || name == "output.weight";
        (matrix && !kept).then(|| if table { self.embedding() } else { self.to })
    }
}

/// Number of `general.file_type` for files that are mostly of a type.
fn file_type(kind: BlockType) -> u64 {
    match kind {
        BlockType::F32 => 0,
        BlockType::F16 => 1,
        BlockType::Q4_0 => 2,
        BlockType::Q4_1 => 3,
        BlockType::Q8_0 => 7,
        BlockType::Q5_0 => 8,
        BlockType::Q5_1 => 9,
        BlockType::Q2K => 10,
        BlockType::Q3K => 12,
        BlockType::Q4K => 15,
        BlockType::Q5K => 17,
        BlockType::Q6K => 18,
        BlockType::Bf16 => 32,
    }
}

/// Writes a file with the matrices of another in other types.
///
/// # Errors
/// A type that is not written; a number that is not finite; what cannot be read or written.
pub fn requantise(
    gguf: &Gguf,
    wanted: Requantisation,
    out: &Path,
    progress: ConversionProgress<'_>,
) -> Result<Converted, LanguageError> {
    for kind in [wanted.to, wanted.embedding()] {
        if !kind.is_encoded() {
            let message = format!("{} is read and not written", kind.name());
            return Err(gguf.fail(message).hint(format!("types that are written: {}", encoded_names())));
        }
    }
    let tensors = in_order(gguf);
    let mut left = 0;
    let mut head = |name: &str, entry: &TableEntry| {
        let mut kind = wanted.of(name, entry).unwrap_or(entry.kind);
        if !entry.row_elements().is_multiple_of(kind.block_elements()) {
            (left, kind) = (left + 1, entry.kind);
        }
        GgufTensorHead { name: name.into(), kind, shape: entry.shape.clone() }
    };
    let heads: Vec<GgufTensorHead> = tensors.iter().map(|(name, entry)| head(name, entry)).collect();
    let text = |key: &str, text: String| (key.to_owned(), GgufValue::Text(text));
    let metadata = metadata_with(
        gguf,
        vec![
            ("general.file_type".into(), GgufValue::Unsigned(file_type(wanted.to))),
            ("general.quantization_version".into(), GgufValue::Unsigned(2)),
            text("ergometer.requantised.from", kinds_in_words(tensors.iter().map(|(_, e)| e.kind))),
            text("ergometer.requantised.to", kinds_in_words(heads.iter().map(|h| h.kind))),
            text("ergometer.requantised.file", name_of(gguf.path())),
        ],
    );
    let mut converted = write_file(out, &metadata, &heads, progress, |i, into| {
        let (name, entry) = tensors[i];
        if heads[i].kind == entry.kind {
            return copy(gguf, name, entry, into);
        }
        let mut bytes = Vec::new();
        for rows in pieces(entry.rows(), 4 * entry.row_elements()) {
            let values = gguf.tensors().dequantise_rows(name, rows.clone())?;
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                let row = rows.start + at / entry.row_elements();
                let message = format!("tensor `{}`, row {row}: {} is no finite number", shown(name), values[at]);
                return Err(PieceError::Read(gguf.fail(message)));
            }
            bytes.clear();
            heads[i].kind.encode(&values, &mut bytes);
            into.write_all(&bytes)?;
        }
        Ok(())
    })?;
    if left > 0 {
        let message =
            format!("{left} tensors stay in their types: their rows are no whole blocks of {}", wanted.to.name());
        converted.notes.push(message);
    }
    Ok(converted)
}

/// Names of the types that are written.
pub(super) fn encoded_names() -> String {
    let all: Vec<&str> = BlockType::all().filter(|k| k.is_encoded()).map(BlockType::name).collect();
    all.join(", ")
}
