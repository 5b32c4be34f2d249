//! Text from a language model, a token at a time: choosing tokens, and their bytes as text that is whole.
//!
//! In: an engine, token ids of a prompt, a tokenizer. Out: tokens with the times at which they were there; pieces of valid
//! UTF-8. Must not: print, or meter energy.

use std::ops::ControlFlow;

use ergometer_language::{LanguageError, TextTokenizer};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::backends::BackendError;
use crate::backends::language::{Feed, LanguageEngine, WantedLogits};
use crate::clock::monotonic_ns;

/// How the next token is chosen.
pub enum Choice {
    /// The highest logit, of equal ones the lowest id.
    Greedy,
    /// By chance, with probabilities of softmax(logits / temperature).
    Sampled {
        /// Above 0.
        temperature: f32,
        /// Seeded.
        random: Box<ChaCha12Rng>,
    },
}

impl Choice {
    /// Greedy at 0.
    pub fn new(temperature: f32, seed: u64) -> Self {
        match temperature > 0.0 {
            true => Self::Sampled { temperature, random: Box::new(ChaCha12Rng::seed_from_u64(seed)) },
            false => Self::Greedy,
        }
    }

    /// The id of the next token; `None`: no logit is a number.
    pub fn next(&mut self, logits: &[f32]) -> Option<u32> {
        let highest =
            (0..logits.len()).filter(|&i| !logits[i].is_nan()).reduce(|a, b| match logits[b] > logits[a] {
                true => b,
                false => a,
            })?;
        let Self::Sampled { temperature, random } = self else { return Some(highest as u32) };
        let weight = |logit: f32| match logit.is_nan() {
            true => 0.0,
            false => (f64::from(logit - logits[highest]) / f64::from(*temperature)).exp(),
        };
        let sum: f64 = logits.iter().map(|&l| weight(l)).sum();
        let mut left = random.random::<f64>() * sum;
        let found = logits.iter().position(|&l| {
            left -= weight(l);
            left < 0.0
        });
        Some(found.unwrap_or(highest) as u32)
    }
}

/// Tokens as text: a character that is split over tokens comes whole, with the last of them.
pub struct TextStream<'a> {
    tokenizer: &'a TextTokenizer,
    /// The tokens before, which decide whether a space goes between.
    before: Vec<u32>,
    /// Tokens whose text is not out.
    pending: Vec<u32>,
}

/// Tokens of the prompt that are looked back at.
const LOOK_BACK: usize = 4;
/// A character has four bytes at most, and a token at least one; what is longer will never be whole.
const MOST_PENDING: usize = 8;

impl<'a> TextStream<'a> {
    /// After a prompt.
    pub fn new(tokenizer: &'a TextTokenizer, prompt: &[u32]) -> Self {
        let before = prompt[prompt.len().saturating_sub(LOOK_BACK)..].to_vec();
        Self { tokenizer, before, pending: Vec::new() }
    }

    /// The text that a further token completes; perhaps none. Control tokens have none.
    ///
    /// # Errors
    /// The token is none of the tokenizer.
    pub fn push(&mut self, id: u32) -> Result<String, LanguageError> {
        self.pending.push(id);
        let bytes = self.pending_bytes()?;
        let whole = match std::str::from_utf8(&bytes) {
            // what a `tokenizer.json` gives for a part of a character
            Ok(text) => !text.ends_with('\u{fffd}'),
            Err(e) => e.error_len().is_some(),
        };
        if !whole && self.pending.len() < MOST_PENDING {
            return Ok(String::new());
        }
        self.before = std::mem::take(&mut self.pending);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What is left at the end, with a sign for each part of a character.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    pub fn finish(mut self) -> Result<String, LanguageError> {
        let bytes = self.pending_bytes()?;
        self.pending.clear();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes that pending tokens add to those before.
    fn pending_bytes(&self) -> Result<Vec<u8>, LanguageError> {
        let before = self.tokenizer.decode(&self.before, false)?;
        let both = self.tokenizer.decode(&[&self.before[..], &self.pending].concat(), false)?;
        let same = before.iter().zip(&both).take_while(|(a, b)| a == b).count();
        Ok(both[same..].to_vec())
    }
}

/// Tokens and when they were there, on the monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct Generated {
    /// Their ids; a token that ends the text is the last.
    pub ids: Vec<u32>,
    /// When the prompt began to be fed, ns.
    pub begun_ns: u64,
    /// When the logits after the prompt were in memory, ns.
    pub prefilled_ns: u64,
    /// When each token was chosen, ns.
    pub chosen_ns: Vec<u64>,
    /// The last token ends the text.
    pub ended: bool,
}

impl Generated {
    /// Seconds until the logits after the prompt were there.
    pub fn prefill_seconds(&self) -> f64 {
        self.prefilled_ns.saturating_sub(self.begun_ns) as f64 / 1e9
    }

    /// Seconds from the start to the first token.
    pub fn first_token_seconds(&self) -> Option<f64> {
        Some(self.chosen_ns.first()?.saturating_sub(self.begun_ns) as f64 / 1e9)
    }

    /// Tokens after the first, and the seconds that they took; `None`: there is none.
    pub fn decode(&self) -> Option<(usize, f64)> {
        let (first, last) = (self.chosen_ns.first()?, self.chosen_ns.last()?);
        (self.chosen_ns.len() > 1).then(|| (self.chosen_ns.len() - 1, last.saturating_sub(*first) as f64 / 1e9))
    }
}

/// Why a text was not generated to its end.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The engine failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// What takes the tokens could not.
    #[error(transparent)]
    Text(#[from] LanguageError),
    /// There is nothing to choose.
    #[error(
        "the logits after token {0} are no numbers\nhint: the model's weights are damaged, or the precision is too low for them"
    )]
    NoNumbers(usize),
}

/// Feeds a prompt into slot 0 and generates at most `most` tokens; `each` sees every token once it is chosen and may end it.
///
/// # Errors
/// See [`GenerationError`].
pub fn generate(
    engine: &mut dyn LanguageEngine,
    prompt: &[u32],
    ends: &[u32],
    most: usize,
    choice: &mut Choice,
    mut each: impl FnMut(u32) -> Result<ControlFlow<()>, LanguageError>,
) -> Result<Generated, GenerationError> {
    let mut made = Generated { begun_ns: monotonic_ns(), ..Generated::default() };
    engine.feed(&[Feed { slot: 0, tokens: prompt }], WantedLogits::Last)?;
    made.prefilled_ns = monotonic_ns();
    while made.ids.len() < most {
        let none = GenerationError::NoNumbers(prompt.len() + made.ids.len());
        let id = choice.next(engine.logits()).ok_or(none)?;
        made.chosen_ns.push(monotonic_ns());
        made.ids.push(id);
        made.ended = ends.contains(&id);
        if each(id)?.is_break() || made.ended || made.ids.len() == most {
            break;
        }
        engine.feed(&[Feed { slot: 0, tokens: &[id] }], WantedLogits::Last)?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ergometer_language::{Encoding, Gguf};

    use super::*;

    fn tokenizer(name: &str) -> TextTokenizer {
        let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/golden/language", name].iter().collect();
        TextTokenizer::of_gguf(&Gguf::open(&path).unwrap()).unwrap()
    }

    #[test]
    fn pieces_are_whole_characters_and_together_the_text() {
        let (prompt, text) = (
            "Hello",
            ", y'all! How are you \u{1f601} ?\u{6211}\u{60f3}\u{5728}apple\u{5de5}\u{4f5c}1314151\u{5929}\u{ff5e}",
        );
        let how = Encoding { additions: true, special: false };
        let mut split = 0;
        for name in ["tokens-smollm2.gguf", "tokens-phi3.gguf", "tokens-qwen2.gguf", "tokens-gpt2.gguf"] {
            let tokenizer = tokenizer(name);
            let all = tokenizer.encode(&format!("{prompt}{text}"), how).unwrap();
            let prompt = tokenizer.encode(prompt, how).unwrap();
            assert_eq!(all[..prompt.len()], prompt, "{name}");
            let mut stream = TextStream::new(&tokenizer, &prompt);
            let mut pieces = Vec::new();
            for id in &all[prompt.len()..] {
                pieces.push(stream.push(*id).unwrap());
            }
            split += pieces.iter().filter(|p| p.is_empty()).count();
            assert!(pieces.iter().all(|p| !p.contains('\u{fffd}')), "{name}: {pieces:?}");
            assert_eq!(pieces.concat() + &stream.finish().unwrap(), text, "{name}");
        }
        assert!(split > 10, "characters were split over tokens {split} times");
    }

    #[test]
    fn half_a_character_at_the_end_is_a_sign() {
        let tokenizer = tokenizer("tokens-smollm2.gguf");
        let ids = tokenizer.encode("\u{1f601}", Encoding { additions: false, special: false }).unwrap();
        assert!(ids.len() > 1);
        let mut stream = TextStream::new(&tokenizer, &[]);
        assert_eq!(stream.push(ids[0]).unwrap(), "");
        assert_eq!(stream.finish().unwrap(), "\u{fffd}");
        // bytes that no further ones make a character come at once
        let mut stream = TextStream::new(&tokenizer, &[]);
        let last = *ids.last().unwrap();
        assert!(stream.push(last).unwrap().contains('\u{fffd}'));
    }

    #[test]
    fn the_highest_logit_is_chosen_and_chance_follows_its_seed() {
        let mut greedy = Choice::new(0.0, 1);
        assert_eq!(greedy.next(&[0.0, 2.0, f32::NAN, 2.0]), Some(1));
        assert_eq!(greedy.next(&[f32::NAN]), None);
        let draw = |seed: u64| {
            let mut choice = Choice::new(1.0, seed);
            (0..2000).map(|_| choice.next(&[1.0, f32::NAN, 0.0, f32::NEG_INFINITY]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let share = draw(7).iter().filter(|id| **id == 0).count() as f64 / 2000.0;
        // e / (e + 1) is 0.731
        assert!((share - 0.731).abs() < 0.05, "{share}");
        assert!(draw(7).iter().all(|id| [0, 2].contains(id)));
    }
}
