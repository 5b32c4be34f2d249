//! Splitting special tokens off a text: the longest first, each wherever it stands.
//!
//! In: the tokens that are split off, a text. Out: tokens and the texts between them, in order. Must not: split what is
//! between.
//!
//! A longer token is found before a shorter one that would overlap it, whichever begins first: so llama.cpp does it, and
//! `aho_corasick` and `tokenizers` (leftmost first) do not.

use aho_corasick::AhoCorasick;

use super::vocabulary::{TokenKind, Vocabulary};

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

#[derive(Debug)]
struct Special {
    id: u32,
    text: String,
    /// It is split off a plain text too.
    plain: bool,
    /// White space after it is dropped.
    swallows: bool,
}

/// Tokens that are split off.
#[derive(Debug)]
pub(super) struct Splitter {
    /// Longest first.
    tokens: Vec<Special>,
    /// Finds which of them occur at all.
    finder: Option<AhoCorasick>,
}

impl Splitter {
    /// `name` is the model's: of Phi-3 alone GGUF files do not say that its special tokens swallow white space.
    pub(super) fn new(vocabulary: &Vocabulary, name: &str) -> Self {
        let name = name.to_lowercase();
        let phi3 = name.contains("phi-3") || name.contains("phi3");
        let special = |(id, text, kind): (u32, &str, TokenKind)| Special {
            id,
            text: text.into(),
            plain: kind == TokenKind::UserDefined,
            swallows: phi3 && !["<unk>", "<s>", "<|endoftext|>"].contains(&text),
        };
        let mut tokens: Vec<Special> = vocabulary.split_off().map(special).collect();
        tokens.sort_by_key(|t| (usize::MAX - t.text.len(), t.id));
        // an automaton too large to be built is gone without: every token is searched for then
        let finder = AhoCorasick::new(tokens.iter().map(|t| &t.text)).ok();
        Self { tokens, finder }
    }

    /// Splits a text; control tokens are text where `special` is off.
    pub(super) fn split<'t>(&self, text: &'t str, special: bool) -> Vec<Fragment<'t>> {
        let mut occurs = vec![self.finder.is_none(); self.tokens.len()];
        if let Some(finder) = &self.finder {
            finder.find_overlapping_iter(text).for_each(|m| occurs[m.pattern().as_usize()] = true);
        }
        let mut fragments = if text.is_empty() { Vec::new() } else { vec![Fragment::Text(text)] };
        let wanted = self.tokens.iter().zip(&occurs).filter(|(t, occurs)| **occurs && (special || t.plain));
        for (token, _) in wanted {
            let mut split = Vec::with_capacity(fragments.len());
            for fragment in fragments {
                match fragment {
                    Fragment::Token(_) => split.push(fragment),
                    Fragment::Text(text) => {
                        for (i, mut between) in text.split(token.text.as_str()).enumerate() {
                            if i > 0 {
                                split.push(Fragment::Token(token.id));
                                if token.swallows {
                                    between = between.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
                                }
                            }
                            if !between.is_empty() {
                                split.push(Fragment::Text(between));
                            }
                        }
                    }
                }
            }
            fragments = split;
        }
        fragments
    }
}
