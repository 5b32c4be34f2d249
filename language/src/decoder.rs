//! A decoder as it lies on disk: what it is, its tokenizer, and its tensors by the names of the net.
//!
//! In: a GGUF file or a Hugging Face folder. Out: a [`Decoder`]; rows of its tensors, as stored or as f32. Must not: hold
//! weights, or know how they are used.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{
    config::{self, DecoderConfig},
    error::{LanguageError, shown},
    folder::ModelFolder,
    gguf::Gguf,
    names::{NamedBy, NetTensor, TensorPart, named},
    table::TensorTable,
    tokenizer::{ChatTemplate, TextTokenizer},
};

/// An open model.
pub struct Decoder {
    /// What it is.
    pub config: DecoderConfig,
    /// How text becomes tokens; `None` where a folder has no `tokenizer.json`, or a file no tokenizer.
    pub tokenizer: Option<TextTokenizer>,
    /// How a conversation becomes text, where the file says it.
    pub template: Option<ChatTemplate>,
    tensors: BTreeMap<String, NetTensor>,
    table: TensorTable,
    path: PathBuf,
}

impl Decoder {
    /// Opens a GGUF file, or a folder with `config.json` and safetensors files.
    ///
    /// # Errors
    /// A file is missing, damaged, or says what is not known; config, tensors and tokenizer do not belong together.
    pub fn open(path: &Path) -> Result<Self, LanguageError> {
        let (config, by, table, tokenizer, template) = if path.is_dir() {
            let ModelFolder { config, tensors, tokenizer, template } = ModelFolder::open(path)?;
            (config, NamedBy::Folder, tensors, tokenizer, template)
        } else {
            let gguf = Gguf::open(path)?;
            if let Some(count @ 2..) = gguf.unsigned("split.count")? {
                let number = gguf.unsigned("split.no")?.unwrap_or(0).saturating_add(1);
                let hint = "join the parts to one file: llama-gguf-split --merge FIRST_PART OUT";
                return Err(gguf.fail(format!("it is part {number} of {count} of a model")).hint(hint));
            }
            let config = config::of_gguf(&gguf)?;
            let tokenizer = match gguf.metadata().contains_key("tokenizer.ggml.model") {
                true => Some(TextTokenizer::of_gguf(&gguf)?),
                false => None,
            };
            if let Some(tokenizer) = &tokenizer
                && tokenizer.len() > config.vocabulary
            {
                let (tokens, rows) = (tokenizer.len(), config.vocabulary);
                return Err(gguf.fail(format!("the tokenizer has {tokens} tokens, the embedding {rows} rows")));
            }
            let template = template(&gguf, tokenizer.as_ref())?;
            (config, NamedBy::Gguf, gguf.into_tensors(), tokenizer, template)
        };
        let tensors = named(&config, by, &table)?;
        Ok(Self { config, tokenizer, template, tensors, table, path: path.to_owned() })
    }

    /// Path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tensors by the names of [`crate::names`].
    pub fn tensors(&self) -> &BTreeMap<String, NetTensor> {
        &self.tensors
    }

    /// Bytes of all tensors as they are stored, a tied head counted once.
    pub fn stored_bytes(&self) -> u64 {
        let bytes = self.tensors.values().map(|t| t.kind.bytes_of(t.shape.iter().product::<usize>() as u64));
        bytes.map(Option::unwrap_or_default).sum()
    }

    /// Elements of all tensors, a tied head counted once.
    pub fn parameters(&self) -> u64 {
        self.tensors.values().map(|t| t.shape.iter().product::<usize>() as u64).sum()
    }

    fn tensor(&self, name: &str) -> Result<&NetTensor, LanguageError> {
        let absent = || LanguageError::new(&self.path, format!("the net has no tensor `{}`", shown(name)));
        self.tensors.get(name).ok_or_else(absent)
    }

    /// Rows of a tensor (of its first axes; a vector is one row of one element each) as they are stored, in blocks of
    /// [`NetTensor::kind`].
    ///
    /// # Errors
    /// There is no such tensor or row; it is stored transposed; the file cannot be read.
    pub fn stored_rows(&self, name: &str, rows: Range<usize>, bytes: &mut Vec<u8>) -> Result<(), LanguageError> {
        let tensor = self.tensor(name)?;
        for (part, rows) in self.parts(name, tensor, rows)? {
            let vector = tensor.shape.len() == 1;
            if part.transposed || (vector && rows != (0..tensor.shape[0])) {
                let message = format!("`{}` does not lie in rows", shown(name));
                return Err(LanguageError::new(&self.path, message).hint("read it as f32"));
            }
            self.table.read_rows(&part.stored, if vector { 0..1 } else { rows }, bytes)?;
        }
        Ok(())
    }

    /// Rows of a tensor as f32.
    ///
    /// # Errors
    /// There is no such tensor or row; the file cannot be read.
    pub fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, LanguageError> {
        let tensor = self.tensor(name)?;
        let mut values = Vec::new();
        for (part, rows) in self.parts(name, tensor, rows.clone())? {
            if part.transposed {
                // stored [in, out]: a row of ours is a column
                let whole = self.table.dequantise(&part.stored)?;
                let out = self.table.entry(&part.stored)?.row_elements();
                rows.for_each(|row| values.extend(whole.iter().skip(row).step_by(out)));
            } else if tensor.shape.len() == 1 {
                values.extend_from_slice(&self.table.dequantise(&part.stored)?[rows]);
            } else {
                values.extend(self.table.dequantise_rows(&part.stored, rows)?);
            }
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            let message = format!("element {at} of rows {rows:?} of `{}` is {}", shown(name), values[at]);
            return Err(LanguageError::new(&self.path, message).hint("the weights are damaged: fetch the file again"));
        }
        Ok(values)
    }

    /// A tensor as f32, outermost axis first.
    ///
    /// # Errors
    /// There is no such tensor; the file cannot be read.
    pub fn dequantise(&self, name: &str) -> Result<Vec<f32>, LanguageError> {
        self.rows(name, 0..self.tensor(name)?.rows())
    }

    /// The parts that some rows lie in, with the rows of each.
    fn parts<'t>(
        &self,
        name: &str,
        tensor: &'t NetTensor,
        rows: Range<usize>,
    ) -> Result<Vec<(&'t TensorPart, Range<usize>)>, LanguageError> {
        let total = tensor.rows();
        if rows.start > rows.end || rows.end > total {
            let message = format!("`{}` has {total} rows, not rows {rows:?}", shown(name));
            return Err(LanguageError::new(&self.path, message));
        }
        let (mut first, mut parts) = (0, Vec::new());
        for part in &tensor.parts {
            let last = first + part.rows.len();
            let (from, to) = (rows.start.max(first), rows.end.min(last));
            if from < to {
                parts.push((part, part.rows.start + from - first..part.rows.start + to - first));
            }
            first = last;
        }
        Ok(parts)
    }
}

fn template(gguf: &Gguf, tokenizer: Option<&TextTokenizer>) -> Result<Option<ChatTemplate>, LanguageError> {
    let Some(source) = gguf.text("tokenizer.chat_template")? else { return Ok(None) };
    let vocabulary = tokenizer.and_then(TextTokenizer::vocabulary);
    let text = |id: Option<u32>| vocabulary.and_then(|v| v.text(id?)).unwrap_or_default();
    let (begin, end) = (text(vocabulary.and_then(|v| v.begin)), text(vocabulary.and_then(|v| v.end)));
    Ok(Some(ChatTemplate::new(source, begin, end, gguf.path())))
}

#[cfg(test)]
mod tests;
