//! Byte-pair encoding as GPT-2 and its successors have it, from GGUF's tokens and merges.
//!
//! In: a vocabulary, merges, a word rule; a text without special tokens. Out: token ids; bytes of a token. Must not: split
//! off special tokens.
//!
//! A byte of the text is written as one of 256 printable characters; tokens and merges are spelled in these.

use std::collections::HashMap;

use regex::Regex;

use super::{
    merge::merged,
    vocabulary::{Additions, TokenKind, Vocabulary},
    words::{WordRule, words},
};
use crate::{
    error::{LanguageError, shown},
    gguf::Gguf,
};

/// What spaces are written as where bytes are not.
pub(super) const SPACE: &str = "\u{2581}";
/// Words whose tokens are remembered while one text is encoded.
const REMEMBERED: usize = 1 << 16;

pub(super) struct BytePairs {
    rule: &'static WordRule,
    patterns: Vec<Regex>,
    /// `left right` as the file has them, with their rank.
    ranks: HashMap<String, u32>,
    characters: [char; 256],
    /// Of a character its byte.
    bytes: HashMap<char, u8>,
}

/// GPT-2's character of a byte: printable ones stand for themselves, the others for 256 and up.
fn character(byte: u8) -> char {
    let kept = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let code = if kept(byte) { u32::from(byte) } else { 256 + (0..byte).filter(|b| !kept(*b)).count() as u32 };
    char::from_u32(code).unwrap_or('\u{fffd}')
}

/// All 256.
fn characters() -> [char; 256] {
    std::array::from_fn(|b| character(b as u8))
}

impl BytePairs {
    /// Reads merges and the rule's name; gives the vocabulary too, as the rule says what is added to texts.
    pub(super) fn of(gguf: &Gguf, model: &str) -> Result<(Self, Vocabulary), LanguageError> {
        let name = if model == "gemma4" { "gemma4" } else { gguf.text("tokenizer.ggml.pre")?.unwrap_or("default") };
        let rule = WordRule::of(name).ok_or_else(|| {
            let message = format!("metadata `tokenizer.ggml.pre`: pre-tokenizer `{}` is not known", shown(name));
            gguf.fail(message).hint(format!("known are: {}", WordRule::names()))
        })?;
        let vocabulary = Vocabulary::of(gguf, Additions { begin: rule.adds_begin, space: false })?;
        let patterns = rule.patterns().map_err(|e| gguf.fail(format!("pre-tokenizer `{name}`: {e}")))?;
        let mut ranks = HashMap::new();
        for (rank, merge) in gguf.needed_texts("tokenizer.ggml.merges")?.iter().enumerate() {
            // the first character may be a space itself
            if !merge.char_indices().skip(1).any(|(_, c)| c == ' ') {
                let message = format!("metadata `tokenizer.ggml.merges`: merge {rank} is `{}`, no pair", shown(merge));
                return Err(gguf.fail(message));
            }
            ranks.entry(merge.clone()).or_insert(rank as u32);
        }
        let characters = characters();
        let bytes = characters.iter().zip(0..=255).map(|(c, b)| (*c, b)).collect();
        Ok((Self { rule, patterns, ranks, characters, bytes }, vocabulary))
    }

    pub(super) fn encode(&self, text: &str, vocabulary: &Vocabulary, ids: &mut Vec<u32>) {
        let escaped;
        let text = if self.rule.bytes {
            text
        } else {
            escaped = text.replace(' ', SPACE);
            &escaped
        };
        let mut known: HashMap<&str, (usize, usize)> = HashMap::new();
        for word in words(text, &self.patterns) {
            if let Some((first, last)) = known.get(word) {
                ids.extend_from_within(first..last);
                continue;
            }
            let before = ids.len();
            if self.rule.bytes {
                let spelled: String = word.bytes().map(|b| self.characters[usize::from(b)]).collect();
                self.word(&spelled, vocabulary, ids);
            } else {
                self.word(word, vocabulary, ids);
            }
            if known.len() < REMEMBERED {
                known.insert(word, (before, ids.len()));
            }
        }
    }

    fn word(&self, word: &str, vocabulary: &Vocabulary, ids: &mut Vec<u32>) {
        let newlines = !self.rule.bytes && word.bytes().all(|b| b == b'\n');
        if (self.rule.whole_words || newlines)
            && let Some(id) = vocabulary.id(word)
        {
            return ids.push(id);
        }
        let order = |left: &str, right: &str| self.ranks.get(&format!("{left} {right}")).copied();
        for range in merged(word, order) {
            let piece = &word[range];
            match vocabulary.id(piece) {
                Some(id) => ids.push(id),
                // a piece that is no token: its bytes where there are tokens for them, and nothing where not, as in
                // llama.cpp
                None if self.rule.bytes => {
                    let ascii = piece.chars().filter(char::is_ascii);
                    ids.extend(ascii.filter_map(|c| vocabulary.id(c.encode_utf8(&mut [0; 4]))));
                }
                None => ids.extend(piece.bytes().filter_map(|b| vocabulary.byte(b))),
            }
        }
    }

    /// The bytes that a token stands for.
    pub(super) fn bytes(&self, id: u32, vocabulary: &Vocabulary, bytes: &mut Vec<u8>) {
        let text = vocabulary.text(id).unwrap_or_default();
        match vocabulary.kind(id) {
            TokenKind::Normal if self.rule.bytes => {
                for c in text.chars() {
                    match self.bytes.get(&c) {
                        Some(byte) => bytes.push(*byte),
                        None => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
                    }
                }
            }
            TokenKind::Normal => bytes.extend(text.replace(SPACE, " ").bytes()),
            TokenKind::Byte => bytes.extend(vocabulary.byte_of(id)),
            TokenKind::Unused => {}
            TokenKind::Unknown | TokenKind::Control | TokenKind::UserDefined => bytes.extend(text.bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        let mut all = characters().to_vec();
        assert_eq!((all[usize::from(b' ')], all[usize::from(b'\n')], all[usize::from(b'a')]), ('Ġ', 'Ċ', 'a'));
        assert_eq!(all[0xad], '\u{143}');
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 256);
    }
}
