//! Requests at work in an engine that generates: prompts read, tokens chosen, and when each was there.
//!
//! In: an engine, prompts, how much each is to be answered with. Out: the tokens and times of each request. Must not: know a scenario, a tokenizer
//! or text.
//!
//! Decoding is greedy. What a scenario adds is when requests begin: [`LiveRequests::begin`] reads prompts, [`LiveRequests::advance`] decodes one token
//! of each live request. A step allocates a list of as many feeds as are live, and nothing else.

use std::time::Instant;

use crate::backends::BackendError;
use crate::backends::language::{Feed, LanguageEngine, WantedLogits};

/// What requests ask, by example.
#[derive(Clone, Copy, Debug)]
pub struct LanguageAsk<'a> {
    /// Prompts.
    pub inputs: &'a [Vec<u32>],
    /// Most tokens to write.
    pub output: &'a [u32],
    /// Tokens that end what is written.
    pub end: &'a [u32],
    /// Write on past them.
    pub ignore_end: bool,
}

/// A request with what has come of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServedRequest {
    /// Index of its example.
    pub example: usize,
    /// Where its sequence lies.
    pub slot: usize,
    /// Seconds from the iteration's start at which it was due.
    pub arrived: f64,
    /// At which its prompt began to be read.
    pub begun: f64,
    /// At which each token was chosen.
    pub times: Vec<f64>,
    /// The tokens; they may begin with one that was chosen before the clock started, and has no time.
    pub tokens: Vec<u32>,
}

impl ServedRequest {
    /// One with room for what it may come to, so that nothing is allocated while it is served.
    pub fn new(asked: &LanguageAsk, example: usize, arrived: f64) -> Self {
        let most = asked.output[example] as usize;
        let (times, tokens) = (Vec::with_capacity(most), Vec::with_capacity(most.max(1)));
        Self { example, slot: 0, arrived, begun: 0.0, times, tokens }
    }

    /// The same with its prompt read and its first token chosen, and nothing after that.
    pub fn again(&self) -> Self {
        let (mut times, mut tokens) = (self.times.clone(), self.tokens.clone());
        times.clear();
        tokens.truncate(1);
        tokens.reserve(self.tokens.capacity());
        times.reserve(self.tokens.capacity());
        Self { times, tokens, begun: 0.0, ..*self }
    }

    /// Whether its last token is all that is wanted.
    pub fn is_done(&self, asked: &LanguageAsk) -> bool {
        let full = self.tokens.len() >= asked.output[self.example].max(1) as usize;
        full || (!asked.ignore_end && self.tokens.last().is_some_and(|t| asked.end.contains(t)))
    }
}

/// The requests of an iteration, and the engine that serves them.
pub struct LiveRequests<'a> {
    /// The engine.
    pub engine: &'a mut dyn LanguageEngine,
    /// What is asked.
    pub asked: LanguageAsk<'a>,
    /// All of the iteration's, in the order in which they came.
    pub all: &'a mut Vec<ServedRequest>,
    /// When the iteration began.
    pub began: Instant,
}

impl LiveRequests<'_> {
    /// Seconds since the iteration began.
    pub fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Reads the prompts of requests (by their places in `all`, in slots that are empty), all in one call, and chooses the first token of each.
    ///
    /// # Errors
    /// The engine's.
    pub fn begin(&mut self, places: std::ops::Range<usize>) -> Result<(), BackendError> {
        let begun = self.now();
        let inputs = self.asked.inputs;
        let mut feeds = Vec::with_capacity(places.len());
        for request in &mut self.all[places.clone()] {
            request.begun = begun;
            feeds.push(Feed { slot: request.slot, tokens: &inputs[request.example] });
        }
        self.engine.feed(&feeds, WantedLogits::Last)?;
        choose(&*self.engine, self.all[places].iter_mut(), self.began);
        Ok(())
    }

    /// Decodes a token of each request of `places` that has begun and is not done; gives how many there were.
    ///
    /// # Errors
    /// The engine's.
    pub fn advance(&mut self, places: std::ops::Range<usize>) -> Result<usize, BackendError> {
        let asked = self.asked;
        let live = |request: &ServedRequest| !request.tokens.is_empty() && !request.is_done(&asked);
        let requests = &mut self.all[places];
        let feeds =
            requests.iter().filter(|r| live(r)).map(|r| Feed { slot: r.slot, tokens: &r.tokens[r.tokens.len() - 1..] });
        let feeds: Vec<Feed> = feeds.collect();
        let n = feeds.len();
        if n > 0 {
            self.engine.feed(&feeds, WantedLogits::Last)?;
            choose(&*self.engine, requests.iter_mut().filter(|r| live(r)), self.began);
        }
        Ok(n)
    }
}

/// Chooses a token for each request by the engine's logits, which are in their order.
fn choose<'r>(engine: &dyn LanguageEngine, requests: impl Iterator<Item = &'r mut ServedRequest>, began: Instant) {
    for (request, logits) in requests.zip(engine.logits().chunks_exact(engine.vocabulary())) {
        request.tokens.push(highest(logits));
        request.times.push(began.elapsed().as_secs_f64());
    }
}

/// Lanes of [`highest`].
const LANES: usize = 16;

/// The place of the largest value, of equal ones the first. Two passes, the first of them over lanes, so that it costs little beside the product
/// that made so many values.
pub fn highest(values: &[f32]) -> u32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = if *v > *lane { *v } else { *lane };
        }
    }
    let largest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, v| if *v > m { *v } else { m });
    values.iter().position(|v| *v == largest).unwrap_or(0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::session::argmax;

    #[test]
    fn the_highest_is_the_first_of_equal_ones() {
        let mut state = 9u64;
        for n in [1, 5, 16, 17, 100, 1000] {
            let mut values: Vec<f32> = (0..n)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 58) as f32 - 20.0
                })
                .collect();
            assert_eq!(highest(&values), argmax(&values), "{n}");
            values[0] = f32::NAN;
            assert!(n == 1 || highest(&values) > 0);
        }
    }
}
