//! SentencePiece with scores, as Llama 2, Phi-3 and Gemma have it, from GGUF's tokens.
//!
//! In: a vocabulary; a text without special tokens. Out: token ids; bytes of a token. Must not: split off special tokens.
//!
//! Spaces are written as U+2581. Neighbours whose text is a token merge, the one of the highest score first; what is no
//! token in the end is written by its bytes' tokens.

use std::cmp::Reverse;

use super::{
    bpe::SPACE,
    merge::merged,
    vocabulary::{TokenKind, Vocabulary},
};

/// A score in the order of numbers.
#[derive(PartialEq)]
struct Score(f32);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Appends the tokens of a text, `Err` with the first byte that has none.
pub(super) fn encode(text: &str, space: bool, vocabulary: &Vocabulary, ids: &mut Vec<u32>) -> Result<(), u8> {
    let mut escaped = if space { SPACE.to_owned() } else { String::new() };
    escaped.push_str(&text.replace(' ', SPACE));
    let order =
        |left: &str, right: &str| vocabulary.id(&[left, right].concat()).map(|id| Reverse(Score(vocabulary.score(id))));
    for range in merged(&escaped, order) {
        let piece = &escaped[range];
        match vocabulary.id(piece) {
            Some(id) => ids.push(id),
            None => {
                for byte in piece.bytes() {
                    let alone = || vocabulary.id(std::str::from_utf8(&[byte]).ok()?);
                    ids.push(vocabulary.byte(byte).or_else(alone).or(vocabulary.unknown).ok_or(byte)?);
                }
            }
        }
    }
    Ok(())
}

/// Appends the bytes that a token stands for.
pub(super) fn bytes(id: u32, vocabulary: &Vocabulary, bytes: &mut Vec<u8>) {
    let text = vocabulary.text(id).unwrap_or_default();
    match vocabulary.kind(id) {
        TokenKind::Normal => bytes.extend(text.replace(SPACE, " ").bytes()),
        TokenKind::Byte => bytes.extend(vocabulary.byte_of(id)),
        TokenKind::Unused => {}
        TokenKind::Unknown | TokenKind::Control | TokenKind::UserDefined => bytes.extend(text.bytes()),
    }
}
