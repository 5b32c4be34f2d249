//! The vocabulary in GGUF metadata: texts, kinds and scores of tokens, the special ones, and what is added to a text.
//!
//! In: metadata. Out: a checked vocabulary. Must not: know how a text is split.

use std::collections::HashMap;

use ergometer_files::counted;

use crate::{
    error::{LanguageError, shown},
    gguf::{Gguf, GgufArray},
};

/// What a token is for; numbers as in `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A piece of text (1).
    Normal,
    /// What stands for anything unknown (2).
    Unknown,
    /// For the model alone, such as the end of a text (3).
    Control,
    /// A text that is split off before all else (4).
    UserDefined,
    /// Never used (5, and every other number).
    Unused,
    /// One byte, `<0xNN>` (6).
    Byte,
}

/// Texts that end a text or a turn in published models. Some files call them user-defined or normal; they are control
/// tokens, as in llama.cpp.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Texts around what is to be filled in, of published models of code; control tokens likewise.
const FILLED_IN: [&str; 26] = [
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|fim_pad|>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<fim-pad>",
];

/// Numbers of the tokens that end a text or a turn by their texts.
pub(crate) fn ends_among(tokens: &[String]) -> Vec<u32> {
    // Gemma 4 has `</s>` as a tag of HTML
    let tag = tokens.iter().any(|t| t == "<|tool_response>");
    let ends = |text: &&str| ENDS.contains(text) && !(tag && *text == "</s>");
    let numbers = tokens.iter().zip(0u32..).filter(|(text, _)| ends(&text.as_str()));
    numbers.map(|(_, id)| id).collect()
}

/// Tokens by number and text.
#[derive(Debug)]
pub struct Vocabulary {
    texts: Vec<String>,
    kinds: Vec<TokenKind>,
    scores: Vec<f32>,
    ids: HashMap<String, u32>,
    /// Begins a text.
    pub begin: Option<u32>,
    /// Ends a text.
    pub end: Option<u32>,
    /// Stands for what has no token.
    pub unknown: Option<u32>,
    /// Ends a turn of a conversation, where the file names one.
    pub end_of_turn: Option<u32>,
    /// Whether [`Vocabulary::begin`] is put before each text.
    pub adds_begin: bool,
    /// Whether [`Vocabulary::end`] is put after each text.
    pub adds_end: bool,
    /// Whether a text gets a space before it.
    pub adds_space: bool,
}

/// What is added to a text where the file does not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Additions {
    pub begin: bool,
    pub space: bool,
}

impl Vocabulary {
    /// Reads it out of a file's metadata.
    ///
    /// # Errors
    /// A list is missing, of another kind, or of another length than the tokens; a token is there twice; a special
    /// token is beyond the vocabulary.
    pub(super) fn of(gguf: &Gguf, otherwise: Additions) -> Result<Self, LanguageError> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let texts = gguf.needed_texts(&key("tokens"))?.to_vec();
        if texts.is_empty() {
            return Err(gguf.fail("metadata `tokenizer.ggml.tokens` is empty"));
        }
        let mut ids = HashMap::with_capacity(texts.len());
        for (id, text) in texts.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
            if let Some(first) = ids.insert(text.clone(), id as u32) {
                let text = shown(text);
                let message = format!("metadata `tokenizer.ggml.tokens`: tokens {first} and {id} are both `{text}`");
                return Err(gguf.fail(message));
            }
        }
        let kinds = match gguf.array(&key("token_type"))? {
            None => vec![TokenKind::Normal; texts.len()],
            Some(GgufArray::Signed(kinds)) => kinds.iter().map(|k| kind(*k)).collect(),
            Some(GgufArray::Unsigned(kinds)) => kinds.iter().map(|k| kind(i64::try_from(*k).unwrap_or(0))).collect(),
            Some(_) => return Err(gguf.fail("metadata `tokenizer.ggml.token_type` is no array of integers")),
        };
        let mut kinds = kinds;
        // Gemma 4 has `</s>` as a tag of HTML
        let tag = ids.contains_key("<|tool_response>");
        let ends = ENDS.iter().filter(|t| !(tag && **t == "</s>"));
        for id in ends.clone().chain(&FILLED_IN).filter_map(|t| ids.get(*t)) {
            if let Some(kind) = kinds.get_mut(*id as usize) {
                *kind = TokenKind::Control;
            }
        }
        let scores = match gguf.array(&key("scores"))? {
            None => vec![0.0; texts.len()],
            // -0.0 and 0.0 are equal scores
            Some(GgufArray::Float(scores)) => scores.iter().map(|s| *s as f32 + 0.0).collect(),
            Some(_) => return Err(gguf.fail("metadata `tokenizer.ggml.scores` is no array of floats")),
        };
        for (n, name) in [(kinds.len(), "token_type"), (scores.len(), "scores")] {
            if n != texts.len() {
                let tokens = counted(texts.len(), "token");
                return Err(gguf.fail(format!("metadata `tokenizer.ggml.{name}` has {n} elements for {tokens}")));
            }
        }
        if let Some(i) = scores.iter().position(|s| s.is_nan()) {
            return Err(gguf.fail(format!("metadata `tokenizer.ggml.scores`: score {i} is no number")));
        }
        let special = |name: &str| -> Result<Option<u32>, LanguageError> {
            match gguf.unsigned(&key(name))? {
                Some(id) if id < texts.len() as u64 => Ok(Some(id as u32)),
                Some(id) => Err(gguf.fail(format!(
                    "metadata `tokenizer.ggml.{name}` is {id}, beyond the {}",
                    counted(texts.len(), "token")
                ))),
                None => Ok(None),
            }
        };
        let begin = special("bos_token_id")?;
        let end = special("eos_token_id")?;
        let adds = |name: &str, otherwise: bool| Ok(gguf.boolean(&key(name))?.unwrap_or(otherwise));
        let (adds_begin, adds_end) = (adds("add_bos_token", otherwise.begin)?, adds("add_eos_token", false)?);
        for (adds, token, name) in [(adds_begin, begin, "bos"), (adds_end, end, "eos")] {
            if adds && token.is_none() {
                let message = format!("texts get a token that `tokenizer.ggml.{name}_token_id` does not name");
                return Err(gguf.fail(message));
            }
        }
        Ok(Self {
            begin,
            end,
            unknown: special("unknown_token_id")?,
            end_of_turn: special("eot_token_id")?,
            adds_begin,
            adds_end,
            adds_space: adds("add_space_prefix", otherwise.space)?,
            texts,
            kinds,
            scores,
            ids,
        })
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none; never, once read.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The token of a text.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// A token's text as the file has it.
    pub fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize).map(String::as_str)
    }

    /// What a token is for.
    pub fn kind(&self, id: u32) -> TokenKind {
        self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Unused)
    }

    pub(super) fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY)
    }

    /// The token of a byte, `<0xNN>`.
    pub(super) fn byte(&self, byte: u8) -> Option<u32> {
        self.id(&format!("<0x{byte:02X}>"))
    }

    /// Tokens that are split off a text before all else, with their texts.
    pub(super) fn split_off(&self) -> impl Iterator<Item = (u32, &str, TokenKind)> {
        let kinds = [TokenKind::Control, TokenKind::UserDefined, TokenKind::Unknown];
        let all = self.texts.iter().enumerate().map(|(id, text)| (id as u32, text.as_str(), self.kinds[id]));
        all.filter(move |(_, text, kind)| !text.is_empty() && kinds.contains(kind))
    }

    /// The byte that a token stands for, where it is `<0xNN>`.
    pub(super) fn byte_of(&self, id: u32) -> Option<u8> {
        let hexadecimal = self.text(id)?.strip_prefix("<0x")?.strip_suffix('>')?;
        u8::from_str_radix(hexadecimal, 16).ok()
    }
}

fn kind(number: i64) -> TokenKind {
    match number {
        1 => TokenKind::Normal,
        2 => TokenKind::Unknown,
        3 => TokenKind::Control,
        4 => TokenKind::UserDefined,
        6 => TokenKind::Byte,
        _ => TokenKind::Unused,
    }
}
