//! Engines that generate text: sequences of tokens with caches of unlike length, fed some tokens at a time.
//!
//! In: a causal model, tokens for some of its sequences. Out: logits of the next token of each, or of every token fed. Must not: know text,
//! choose a token, or time anything.
//!
//! A sequence lies in a slot from its first token until the slot is cleared; then another may begin there. Feeding a prompt (prefill) and
//! feeding one token (decode) are the same call: a feed may be of any length, and feeds of one call may be of unlike length. What a sequence
//! computes does not depend on what other slots hold, nor on how its tokens were split into calls, up to the rounding of the precision.

use super::{BackendError, Facts};

/// Tokens for one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed<'a> {
    /// Where the sequence lies.
    pub slot: usize,
    /// What follows in it, at least one.
    pub tokens: &'a [u32],
}

/// Which logits a call is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedLogits {
    /// Those of the last token of each feed, in the order of the feeds: `[feeds, vocabulary]`.
    Last,
    /// Those of every token, feed by feed: `[tokens, vocabulary]`.
    All,
}

/// A language model loaded by a backend, with room for some sequences of at most so many tokens.
pub trait LanguageEngine {
    /// What it is.
    fn facts(&self) -> Facts;
    /// Number of slots.
    fn slots(&self) -> usize;
    /// Most tokens of a sequence.
    fn context(&self) -> usize;
    /// Number of tokens that it knows.
    fn vocabulary(&self) -> usize;
    /// Tokens in the cache of a slot.
    fn past(&self, slot: usize) -> usize;
    /// Empties a slot.
    fn clear(&mut self, slot: usize);
    /// Feeds tokens, each slot at most once. [`check`] has let them pass.
    ///
    /// # Errors
    /// The engine failed; the slots' contents are then nobody's to rely on.
    fn feed(&mut self, feeds: &[Feed], wanted: WantedLogits) -> Result<(), BackendError>;
    /// What the last call gave.
    fn logits(&self) -> &[f32];
    /// Bytes in which its caches keep a number of keys or values; `None`: it cannot say.
    fn number_bytes(&self) -> Option<f64> {
        None
    }
    /// Writes the cache of a slot into another, that a reply may begin again after the same prompt.
    ///
    /// # Errors
    /// The engine cannot.
    fn copy(&mut self, from: usize, to: usize) -> Result<(), BackendError>;
    /// From now on every token meets so many experts of each mixture, or as many as the model says (`None`). False: the engine cannot, or there
    /// are not so many.
    fn activate_experts(&mut self, active: Option<usize>) -> bool {
        active.is_none()
    }
}

/// Logarithm of the sum of the exponentials of logits: what the logarithm of a token's probability is its logit less.
pub fn log_sum(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    largest + logits.iter().map(|&v| (f64::from(v) - largest).exp()).sum::<f64>().ln()
}

/// Whether feeds can be fed.
///
/// # Errors
/// A slot that is not there or is fed twice, no token, one beyond the vocabulary, a sequence longer than the context.
pub fn check(engine: &dyn LanguageEngine, feeds: &[Feed]) -> Result<(), BackendError> {
    let refuse = |message: String| Err(BackendError::Failed(message));
    for (i, feed) in feeds.iter().enumerate() {
        let slot = feed.slot;
        if slot >= engine.slots() {
            return refuse(format!("there is no slot {slot}: the engine has {}", engine.slots()));
        }
        if feeds[..i].iter().any(|f| f.slot == slot) {
            return refuse(format!("slot {slot} is fed twice in one call"));
        }
        if feed.tokens.is_empty() {
            return refuse(format!("slot {slot} is fed no token\nhint: a prompt has at least one"));
        }
        let known = engine.vocabulary();
        if let Some(token) = feed.tokens.iter().find(|&&t| t as usize >= known) {
            return refuse(format!(
                "token {token} is beyond the vocabulary, which has {known}\nhint: the tokenizer is of another model"
            ));
        }
        let (length, most) = (engine.past(slot).saturating_add(feed.tokens.len()), engine.context());
        if length > most {
            return refuse(format!(
                "a sequence of {length} tokens is longer than the context of {most}\nhint: shorten the prompt or what is generated"
            ));
        }
    }
    Ok(())
}
