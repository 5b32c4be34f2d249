//! What a language model is asked: text, and how a tokenizer makes prompts of it.
//!
//! In: nothing. Out: the types. Must not: know a task, a tokenizer or a model.

use std::sync::Arc;
use std::time::Duration;

/// What a language model is asked in one example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextExample {
    /// The prompt; empty where it is cut out of a text or drawn.
    pub prompt: String,
    /// What may follow, each scored by its likelihood; empty where the model is to write.
    pub continuations: Vec<String>,
    /// Tokens of the prompt, where it is cut or drawn; of any other, 0: all of it.
    pub prompt_tokens: u32,
    /// Most tokens to generate; of examples that are scored by likelihood, what timed iterations generate.
    pub output_tokens: u32,
    /// When the request comes, from the begin of a trace; of one that is there, none.
    pub arrival: Option<Duration>,
}

/// How prompts are made of a set's examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptSource {
    /// Each example has its own.
    Examples,
    /// Example i is the i-th window of so many tokens of a text; the second half of each is scored.
    Windows(Arc<str>, u32),
    /// The examples' prompts are cut out of a text, one after the other.
    Stretches(Arc<str>),
    /// Ids drawn from a seed.
    Random(u64),
}

/// What a set of language is beside its examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageSet {
    /// Where prompts come from.
    pub prompts: PromptSource,
    /// A prompt is a user's message, which the model's chat template renders.
    pub chat: bool,
    /// Timed iterations generate on past the tokens that end a text, so that all have one length.
    pub ignore_end: bool,
}
