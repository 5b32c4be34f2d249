//! Vectors files of language models: tokens of some sequences, and the logits after each of them.
//!
//! In: a safetensors file with `input_ids` i32 `[B,T]` and `logits` f32 `[B,T,V]`, or what a model gave. Out: [`LanguageVectors`], and such a file. Must not:
//! allocate by a size that a header claims.

use std::path::Path;

use anyhow::{Context, bail};
use ergometer_files::Links;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Most bytes of such a file.
const MAX_BYTES: u64 = 1 << 30;

/// Recorded sequences of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LanguageVectors {
    /// Tokens, sequence by sequence.
    pub rows: Vec<Vec<u32>>,
    /// Logits of each token of each sequence, `[rows, tokens, vocabulary]`; empty in a file of questions alone.
    pub logits: Vec<f32>,
}

impl LanguageVectors {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is no such file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = ergometer_files::read(path, MAX_BYTES, Links::Followed)
            .with_context(|| format!("{}: cannot be read", path.display()))?;
        Self::of_bytes(&bytes).with_context(|| {
            format!("{} is no vectors file of a language model\nhint: it has `input_ids` i32 [B,T] and `logits` f32 [B,T,V]", path.display())
        })
    }

    /// The same of a file's bytes.
    ///
    /// # Errors
    /// They are none of such a file.
    pub fn of_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        let file = SafeTensors::deserialize(bytes)?;
        let ids = file.tensor("input_ids")?;
        let (Dtype::I32, [rows, tokens]) = (ids.dtype(), ids.shape()) else {
            bail!("`input_ids` is {:?} {:?}", ids.dtype(), ids.shape())
        };
        if *rows == 0 || *tokens == 0 {
            bail!("`input_ids` is empty");
        }
        let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let all: Vec<u32> = ids.data().chunks_exact(4).map(word).collect();
        if let Some(id) = all.iter().find(|id| **id > i32::MAX as u32) {
            bail!("`input_ids` holds {}, which is no token", *id as i32);
        }
        let logits = match file.tensor("logits") {
            Ok(tensor)
                if tensor.dtype() != Dtype::F32
                    || tensor.shape().len() != 3
                    || tensor.shape()[..2] != [*rows, *tokens] =>
            {
                bail!("`logits` is {:?} {:?}", tensor.dtype(), tensor.shape())
            }
            Ok(tensor) => tensor.data().chunks_exact(4).map(|b| f32::from_bits(word(b))).collect(),
            Err(_) => Vec::new(),
        };
        Ok(Self { rows: all.chunks_exact(*tokens).map(<[u32]>::to_vec).collect(), logits })
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// Sequences of unlike length.
    pub fn write(&self) -> anyhow::Result<Vec<u8>> {
        let tokens = self.rows.first().map_or(0, Vec::len);
        if tokens == 0 || self.rows.iter().any(|row| row.len() != tokens) {
            bail!("sequences of unlike length, or none");
        }
        let shape = vec![self.rows.len(), tokens];
        let ids: Vec<u8> = self.rows.iter().flatten().flat_map(|id| id.to_le_bytes()).collect();
        let logits: Vec<u8> = self.logits.iter().flat_map(|v| v.to_le_bytes()).collect();
        let vocabulary = self.logits.len() / (shape[0] * tokens);
        let mut views = vec![("input_ids", TensorView::new(Dtype::I32, shape.clone(), &ids)?)];
        if vocabulary > 0 {
            views.push(("logits", TensorView::new(Dtype::F32, [&shape[..], &[vocabulary]].concat(), &logits)?));
        }
        Ok(safetensors::serialize(views, None)?)
    }

    /// Without the logits.
    pub fn questions(&self) -> Self {
        Self { rows: self.rows.clone(), logits: Vec::new() }
    }

    /// Values of a row's logits.
    pub fn row(&self, row: usize) -> &[f32] {
        let n = self.logits.len() / self.rows.len().max(1);
        &self.logits[row * n..(row + 1) * n]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let all = LanguageVectors { rows: vec![vec![1, 2], vec![3, 0]], logits: (0..12).map(|v| v as f32).collect() };
        assert_eq!(LanguageVectors::of_bytes(&all.write().unwrap()).unwrap(), all);
        assert_eq!(all.row(1), [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        let questions = LanguageVectors::of_bytes(&all.questions().write().unwrap()).unwrap();
        assert_eq!((questions.rows, questions.logits.len()), (all.rows, 0));
        assert!(LanguageVectors::of_bytes(b"no file").is_err());
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama/vectors.safetensors");
        assert!(!LanguageVectors::read(&golden).unwrap().logits.is_empty());
    }
}
