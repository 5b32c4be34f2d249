//! Tokenizers: text to token ids and back, from GGUF metadata or a `tokenizer.json`, and chat templates.
//!
//! In: a file; text or ids. Out: ids or bytes, the same as the model was trained with. Must not: guess: a pre-tokenizer or
//! a model of a tokenizer that is not known is an error.
//!
//! Ids are those of llama.cpp for GGUF and of `tokenizers` for `tokenizer.json`.

use std::path::{Path, PathBuf};

use ergometer_files::{Links, counted};

mod bpe;
mod fragments;
mod json;
mod merge;
mod pieces;
mod template;
mod vocabulary;
mod words;

pub(crate) use template::MAX_BYTES as MAX_TEMPLATE;
pub use template::{ChatMessage, ChatTemplate};
pub(crate) use vocabulary::ends_among;
pub use vocabulary::{TokenKind, Vocabulary};

use self::{
    bpe::BytePairs,
    fragments::{Fragment, Splitter},
    json::JsonTokenizer,
    vocabulary::Additions,
};
use crate::{
    error::{LanguageError, shown},
    gguf::Gguf,
};

/// What is done to a text beside splitting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The tokens that begin and end a text are added where the model wants them.
    pub additions: bool,
    /// Texts of control tokens (`<|im_end|>`) become these tokens; else they are text like any other.
    pub special: bool,
}

/// How text is split, by where it comes from.
enum Method {
    Bpe(Box<BytePairs>),
    Pieces,
}

enum Source {
    Gguf { method: Method, vocabulary: Box<Vocabulary>, splitter: Splitter },
    Json(Box<JsonTokenizer>),
}

/// A model's tokenizer.
pub struct TextTokenizer {
    source: Source,
    path: PathBuf,
}

impl TextTokenizer {
    /// The tokenizer in a GGUF file's metadata.
    ///
    /// # Errors
    /// The metadata have none, or one that is not known or does not fit together.
    pub fn of_gguf(gguf: &Gguf) -> Result<Self, LanguageError> {
        let model = gguf.needed_text("tokenizer.ggml.model")?;
        let (method, vocabulary) = match model {
            "gpt2" | "gemma4" => {
                let (pairs, vocabulary) = BytePairs::of(gguf, model)?;
                (Method::Bpe(Box::new(pairs)), vocabulary)
            }
            "llama" => (Method::Pieces, Vocabulary::of(gguf, Additions { begin: true, space: true })?),
            other => {
                let message = format!("metadata `tokenizer.ggml.model` is `{}`, which is not read", shown(other));
                return Err(gguf.fail(message).hint("`gpt2` (byte pairs) and `llama` (SentencePiece) are read"));
            }
        };
        let splitter = Splitter::new(&vocabulary, gguf.text("general.name")?.unwrap_or_default());
        let vocabulary = Box::new(vocabulary);
        Ok(Self { source: Source::Gguf { method, vocabulary, splitter }, path: gguf.path().to_owned() })
    }

    /// A Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    /// It cannot be read, or is no tokenizer.
    pub fn of_json(path: &Path) -> Result<Self, LanguageError> {
        let bytes = ergometer_files::read(path, json::MAX_BYTES, Links::Followed);
        let bytes = bytes.map_err(|e| LanguageError::io(path, &e))?;
        Ok(Self { source: Source::Json(Box::new(JsonTokenizer::new(&bytes, path)?)), path: path.to_owned() })
    }

    /// Token ids of a text.
    ///
    /// # Errors
    /// The text has a byte that the vocabulary has no token for.
    pub fn encode(&self, text: &str, how: Encoding) -> Result<Vec<u32>, LanguageError> {
        let (method, vocabulary, splitter) = match &self.source {
            Source::Json(json) => return json.encode(text, how.additions, how.special, &self.path),
            Source::Gguf { method, vocabulary, splitter } => (method, vocabulary, splitter),
        };
        let mut ids = Vec::new();
        ids.extend(vocabulary.begin.filter(|_| how.additions && vocabulary.adds_begin));
        // a space goes before the text and after each special token
        let mut space = vocabulary.adds_space;
        for fragment in splitter.split(text, how.special) {
            match (fragment, method) {
                (Fragment::Token(id), _) => {
                    ids.push(id);
                    space = vocabulary.adds_space;
                }
                (Fragment::Text(text), Method::Bpe(pairs)) => pairs.encode(text, vocabulary, &mut ids),
                (Fragment::Text(text), Method::Pieces) => {
                    pieces::encode(text, space, vocabulary, &mut ids).map_err(|byte| {
                        let message = format!("the vocabulary has no token for the byte {byte:#04x} of the text");
                        LanguageError::new(&self.path, message).hint("leave the character out, or use another model")
                    })?;
                    space = false;
                }
            }
        }
        ids.extend(vocabulary.end.filter(|_| how.additions && vocabulary.adds_end));
        Ok(ids)
    }

    /// The bytes of tokens; a character may be split over tokens, so that they need not be UTF-8 (of a `tokenizer.json` what is cut is
    /// U+FFFD: the library gives text). `special` also gives the texts of control tokens.
    ///
    /// # Errors
    /// An id is beyond the vocabulary.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<Vec<u8>, LanguageError> {
        if let Some((at, id)) = ids.iter().enumerate().find(|(_, id)| !self.knows(**id)) {
            let n = counted(self.len(), "token");
            let message = format!("token {id} at place {at} is none of the {n} of the vocabulary");
            return Err(LanguageError::new(&self.path, message)
                .hint("the ids are of another model's tokenizer, or the model has rows that are no tokens"));
        }
        let (method, vocabulary) = match &self.source {
            Source::Json(json) => return json.decode(ids, special, &self.path),
            Source::Gguf { method, vocabulary, .. } => (method, vocabulary),
        };
        let mut bytes = Vec::new();
        let hidden = |id: &u32| matches!(vocabulary.kind(*id), TokenKind::Control | TokenKind::Unknown);
        for id in ids.iter().filter(|id| special || !hidden(id)) {
            match method {
                Method::Bpe(pairs) => pairs.bytes(*id, vocabulary, &mut bytes),
                Method::Pieces => pieces::bytes(*id, vocabulary, &mut bytes),
            }
        }
        let began = ids.first() == vocabulary.begin.as_ref();
        if vocabulary.adds_space && !began && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        Ok(bytes)
    }

    /// Tokens of the vocabulary.
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Gguf { vocabulary, .. } => vocabulary.len(),
            Source::Json(json) => json.len(),
        }
    }

    /// Tokens of the vocabulary that it was trained with: without those that were added later.
    pub(crate) fn trained(&self) -> usize {
        match &self.source {
            Source::Gguf { vocabulary, .. } => vocabulary.len(),
            Source::Json(json) => json.trained(),
        }
    }

    /// Whether an id is a token. Numbers of a vocabulary may have gaps.
    fn knows(&self, id: u32) -> bool {
        match &self.source {
            Source::Gguf { vocabulary, .. } => (id as usize) < vocabulary.len(),
            Source::Json(json) => json.text(id).is_some(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token of a text, special ones too.
    pub fn id(&self, text: &str) -> Option<u32> {
        match &self.source {
            Source::Gguf { vocabulary, .. } => vocabulary.id(text),
            Source::Json(json) => json.id(text),
        }
    }

    /// A token's text as the file has it.
    pub fn text(&self, id: u32) -> Option<String> {
        match &self.source {
            Source::Gguf { vocabulary, .. } => vocabulary.text(id).map(str::to_owned),
            Source::Json(json) => json.text(id),
        }
    }

    /// The vocabulary of a GGUF file; `None` of a `tokenizer.json`.
    pub fn vocabulary(&self) -> Option<&Vocabulary> {
        match &self.source {
            Source::Gguf { vocabulary, .. } => Some(vocabulary),
            Source::Json(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
