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
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|e| fail(e.to_string()))?;
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

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    pub(super) fn text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}
