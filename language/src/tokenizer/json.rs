//! A Hugging Face `tokenizer.json`, by the crate `tokenizers`.
//!
//! In: the file's bytes. Out: token ids of a text and the text of token ids. Must not: know the folder around it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::OnceLock,
};

use tokenizers::Tokenizer;

use crate::error::LanguageError;

/// Largest file that is read, bytes; that of Gemma 3 has 33 MB.
pub(super) const MAX_BYTES: u64 = 96 << 20;

/// What is looked at before the library reads the file.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Head {
    model: HeadModel,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct HeadModel {
    dropout: Option<f64>,
}

pub(super) struct JsonTokenizer {
    inner: Tokenizer,
    /// The same, with control tokens as text; made when it is asked for.
    plain: OnceLock<Box<Tokenizer>>,
}

const HINT: &str = "fetch tokenizer.json again; it is written by `save_pretrained` of a fast tokenizer";

/// Calls the library, which panics where a file that it took does not hold together.
fn guarded<T>(call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err("its parts do not fit together".into()))
}

impl JsonTokenizer {
    pub(super) fn new(bytes: &[u8], path: &Path) -> Result<Self, LanguageError> {
        let fail = |e: String| LanguageError::new(path, format!("no tokenizer that can be read: {e}")).hint(HINT);
        // the library panics on some bytes that are no JSON
        let head: Head = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
        if head.model.dropout.is_some_and(|share| share != 0.0) {
            let message =
                "its byte pairs drop merges at random (`model.dropout`), so that a text has no one list of tokens";
            let hint = "set `dropout` to null in tokenizer.json: it is for training";
            return Err(LanguageError::new(path, message).hint(hint));
        }
        let mut inner = guarded(|| Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())).map_err(fail)?;
        // lengths are the caller's affair
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| LanguageError::new(path, format!("{e}")).hint(HINT))?;
        Ok(Self { inner, plain: OnceLock::new() })
    }

    pub(super) fn encode(
        &self,
        text: &str,
        additions: bool,
        special: bool,
        path: &Path,
    ) -> Result<Vec<u32>, LanguageError> {
        let tokenizer = if special {
            &self.inner
        } else {
            self.plain.get_or_init(|| {
                let mut plain = Box::new(self.inner.clone());
                plain.set_encode_special_tokens(true);
                plain
            })
        };
        let encoding = guarded(|| tokenizer.encode(text, additions).map_err(|e| e.to_string()))
            .map_err(|e| LanguageError::new(path, format!("a text cannot be encoded: {e}")).hint(HINT))?;
        Ok(encoding.get_ids().to_vec())
    }

    pub(super) fn decode(&self, ids: &[u32], special: bool, path: &Path) -> Result<Vec<u8>, LanguageError> {
        let text = guarded(|| self.inner.decode(ids, !special).map_err(|e| e.to_string()));
        let text = text.map_err(|e| LanguageError::new(path, format!("tokens cannot be decoded: {e}")).hint(HINT))?;
        Ok(text.into_bytes())
    }

    pub(super) fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Tokens without those that were added.
    pub(super) fn trained(&self) -> usize {
        self.inner.get_vocab_size(false)
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    pub(super) fn text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}
