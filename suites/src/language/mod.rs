//! Tasks of language: prompts with what should follow, as text.
//!
//! In: a suite's parameters and the text and JSONL files that they name. Out: examples of text ([`TextExample`]), and how a model's tokenizer makes
//! prompts of them ([`LanguageSet`]). Must not: know a tokenizer; which ids a prompt is depends on the model, and whoever plans a case asks its
//! tokenizer.
//!
//! `jsonl` reads lines, `lengths` says how long prompts and outputs are, `made` generates questions, `scorer` says how right an answer is.

pub mod example;
pub mod jsonl;
mod lengths;
mod made;
pub mod scorer;

use std::path::Path;
use std::sync::Arc;

pub use self::example::{LanguageSet, PromptSource, TextExample};
use self::scorer::{LanguageScorer, TextMatch, TextScorer};
use crate::answer::{Answer, AnswerKind};
use crate::arrays::scorer::Scorer;
use crate::error::SuiteError;
use crate::locate::data_file;
use crate::task::{Example, ExampleSet, Score, Task};
use crate::text;
use crate::toml_table::{Keys, unknown};

/// Most bytes of a text.
pub const MAX_TEXT_BYTES: u64 = 64 << 20;
/// Most examples of a set.
pub const MAX_TEXT_EXAMPLES: u64 = 100_000;
/// Most tokens of a prompt or an output.
pub const MAX_TOKENS: u64 = 1 << 20;

const fn task(
    name: &'static str,
    about: &'static str,
    examples: fn(&toml::Table, &Path) -> Result<ExampleSet, SuiteError>,
    answers: AnswerKind,
) -> Task {
    Task {
        name,
        about,
        examples,
        answers,
        // the set's scorer does
        score: |_, _| Score { exact: false, right: 0, cells: 1 },
        valid: None,
        decide: None,
        training: None,
        dataset: Some(|_, _, _| {
            let error = SuiteError::new("the examples of a task of language are text, which no file of tokens holds");
            Err(error.hint("name a task of puzzles"))
        }),
        readable: None,
        quick: None,
    }
}

/// How well a text is predicted.
pub const PERPLEXITY: Task = task(
    "perplexity",
    "language: how well a text is predicted, in windows of which the second half is scored",
    perplexity,
    AnswerKind::Likelihoods,
);
/// Multiple choice.
pub const CHOICES: Task = task(
    "choices",
    "language: multiple choice by likelihood, from a JSONL file of prompt, choices and answer",
    choices,
    AnswerKind::Likelihoods,
);
/// Own prompts with answers.
pub const COMPLETIONS: Task = task(
    "completions",
    "language: what a model writes, scored against the answers of a JSONL file",
    completions,
    AnswerKind::Text,
);
/// Generated sums.
pub const ARITHMETIC: Task = task(
    "arithmetic",
    "language: generated sums, differences and products of numbers with so many digits, exact score",
    made::arithmetic,
    AnswerKind::Text,
);
/// Generated questions about words.
pub const STRINGS: Task = task(
    "strings",
    "language: words to be copied, reversed or sorted, generated, exact score",
    made::strings,
    AnswerKind::Text,
);
/// Prompts for timing alone.
pub const PROMPTS: Task = task(
    "prompts",
    "language: prompts and outputs of given lengths, out of a text, a trace, or drawn: throughput, not scored",
    prompts,
    AnswerKind::Text,
);

/// An example of text with its right answer.
pub(crate) fn example(prompt: String, answer: Answer, output_tokens: u32) -> Example {
    let text = TextExample { prompt, output_tokens, ..TextExample::default() };
    Example { text: Some(text), answer, ..Example::default() }
}

/// A set of language with this scorer; each example is a cluster of its own unless it says otherwise.
pub(crate) fn set(
    mut examples: Vec<Example>,
    own_clusters: bool,
    language: LanguageSet,
    scorer: Scorer,
    answers: AnswerKind,
) -> ExampleSet {
    if !own_clusters {
        examples.iter_mut().zip(0..).for_each(|(example, i)| example.cluster = i);
    }
    ExampleSet {
        examples,
        puzzle_ids: 1,
        language: Some(language),
        answers: Some(answers),
        scorer: Some(scorer),
        ..ExampleSet::default()
    }
}

/// An error about a file that a suite names, with a remedy where there is none.
pub(crate) fn from_suite(mut e: SuiteError) -> SuiteError {
    e.hint.get_or_insert_with(|| "relative paths start at the folder of the suite file".into());
    e
}

/// The text of the file that a key names, and what the file is called.
fn text_of(keys: &Keys, key: &str, folder: &Path) -> Result<Arc<str>, SuiteError> {
    let name = keys.need(key, keys.string(key)?)?;
    let path = data_file(folder, &name).map_err(|e| e.at(keys.place(key)))?;
    let text = text::read_text(&path, MAX_TEXT_BYTES).map_err(from_suite)?;
    if text.trim().is_empty() {
        return Err(SuiteError::new("holds no text").in_file(path).at(keys.place(key)).hint("name another file"));
    }
    Ok(text.into())
}

fn tokens(keys: &Keys, key: &str, least: u64, otherwise: u64) -> Result<u32, SuiteError> {
    Ok(keys.integer(key, least..=MAX_TOKENS)?.unwrap_or(otherwise) as u32)
}

fn perplexity(table: &toml::Table, folder: &Path) -> Result<ExampleSet, SuiteError> {
    let keys = Keys::of_table(table).only(&["text", "window", "windows", "output_tokens", "seed"])?;
    let window = tokens(&keys, "window", 4, 512)?;
    let windows = keys.integer("windows", 1..=MAX_TEXT_EXAMPLES)?.unwrap_or(8);
    let text = text_of(&keys, "text", folder)?;
    let output_tokens = tokens(&keys, "output_tokens", 1, 64)?;
    let one = || example(String::new(), Answer::Likelihoods(Vec::new()), output_tokens);
    let language = LanguageSet { prompts: PromptSource::Windows(text, window), chat: false, ignore_end: true };
    let scorer = Scorer::Language(LanguageScorer::Perplexity);
    let mut set = set((0..windows).map(|_| one()).collect(), false, language, scorer, AnswerKind::Likelihoods);
    set.notes.push(format!(
        "{windows} windows of {window} tokens; the second half of each is scored, as llama-perplexity does."
    ));
    Ok(set)
}

fn choices(table: &toml::Table, folder: &Path) -> Result<ExampleSet, SuiteError> {
    let keys = Keys::of_table(table).only(&["file", "examples", "chat", "output_tokens", "seed"])?;
    let output_tokens = tokens(&keys, "output_tokens", 1, 32)?;
    let lines = jsonl::lines(&keys, folder, &["prompt", "choices", "answer", "cluster", "difficulty"])?;
    let mut examples = Vec::with_capacity(lines.len());
    for line in &lines {
        let all = line.texts("choices")?;
        if all.len() < 2 || all.iter().any(String::is_empty) {
            return Err(line.wrong("choices", "needs two texts or more, none of them empty"));
        }
        let right = line.number("answer")?.filter(|n| (*n as usize) < all.len());
        let right = right.ok_or_else(|| line.wrong("answer", "is the index of the right choice, from 0"))?;
        let mut one = example(line.text("prompt")?, Answer::Class(right as u32), output_tokens);
        one.text.get_or_insert_default().continuations = all;
        examples.push(line.marked(one)?);
    }
    let chat = keys.boolean("chat")?.unwrap_or(false);
    let language = LanguageSet { prompts: PromptSource::Examples, chat, ignore_end: true };
    let scorer = Scorer::Language(LanguageScorer::Choices);
    Ok(set(examples, jsonl::have_clusters(&lines), language, scorer, AnswerKind::Likelihoods))
}

/// Keys of every task whose answers are text.
const WRITTEN: [&str; 4] = ["chat", "output_tokens", "stop", "ignore_end"];

/// How written answers are asked for and scored.
pub(crate) fn written(keys: &Keys, how: TextMatch, stop: &[&str]) -> Result<(LanguageSet, Scorer), SuiteError> {
    let chat = keys.boolean("chat")?.unwrap_or(false);
    let ignore_end = keys.boolean("ignore_end")?.unwrap_or(false);
    // a chat ends by itself
    let own: Vec<String> = if chat { Vec::new() } else { stop.iter().map(|s| (*s).to_owned()).collect() };
    let stop = keys.strings("stop")?.unwrap_or(own);
    let language = LanguageSet { prompts: PromptSource::Examples, chat, ignore_end };
    Ok((language, Scorer::Language(LanguageScorer::Text(TextScorer { how, stop }))))
}

fn completions(table: &toml::Table, folder: &Path) -> Result<ExampleSet, SuiteError> {
    let own = ["file", "examples", "scorer", "seed"];
    let known: Vec<&str> = own.into_iter().chain(WRITTEN).collect();
    let keys = Keys::of_table(table).only(&known)?;
    let how = match keys.string("scorer")?.as_deref() {
        None => TextMatch::Exact,
        Some(name) => TextMatch::of(name)
            .ok_or_else(|| unknown("scorer", name, TextMatch::NAMES.into_iter()).at(keys.place("scorer")))?,
    };
    let most = tokens(&keys, "output_tokens", 1, 64)?;
    let lines = jsonl::lines(&keys, folder, &["prompt", "answer", "max_tokens", "cluster", "difficulty"])?;
    let mut examples = Vec::with_capacity(lines.len());
    for line in &lines {
        let own = line.number("max_tokens")?;
        if own.is_some_and(|n| n == 0 || n > MAX_TOKENS) {
            return Err(line.wrong("max_tokens", &format!("is a whole number from 1 to {MAX_TOKENS}")));
        }
        let answer = line.text_or_number("answer")?;
        if how == TextMatch::Number && scorer::number(&answer).is_none() {
            return Err(line.wrong("answer", "holds no number, and the scorer is `number`"));
        }
        let output_tokens = own.map_or(most, |n| n as u32);
        examples.push(line.marked(example(line.text("prompt")?, Answer::Text(answer), output_tokens))?);
    }
    let (language, scorer) = written(&keys, how, &[])?;
    Ok(set(examples, jsonl::have_clusters(&lines), language, scorer, AnswerKind::Text))
}

fn prompts(table: &toml::Table, folder: &Path) -> Result<ExampleSet, SuiteError> {
    let known =
        ["text", "trace", "random", "prompt_tokens", "output_tokens", "context", "examples", "ignore_end", "seed"];
    let keys = Keys::of_table(table).only(&known)?;
    let seed = keys.integer("seed", 0..=i64::MAX as u64)?.unwrap_or(0);
    let random = keys.boolean("random")?.unwrap_or(false);
    let count = keys.integer("examples", 1..=MAX_TEXT_EXAMPLES)?;
    let texts = match keys.has("trace") {
        true => lengths::of_trace(&keys, folder, count)?,
        false => lengths::drawn(&keys, count, seed)?,
    };
    let own = texts.iter().all(|t| !t.prompt.is_empty());
    if let Some(key) = ["text", "random"].into_iter().find(|key| own && keys.has(key)) {
        return Err(SuiteError::new("says where prompts come from, and the trace has them itself")
            .at(keys.place(key))
            .hint("leave it out, or write `prompt_tokens` into the lines of the trace"));
    }
    if !own && random == keys.has("text") {
        return Err(SuiteError::new("says where prompts come from, and `random = true` is the other way")
            .at(keys.place("text"))
            .hint("write `text = \"FILE\"`, whose stretches are prompts, or `random = true`"));
    }
    let prompts = match () {
        () if own => PromptSource::Examples,
        () if random => PromptSource::Random(seed),
        () => PromptSource::Stretches(text_of(&keys, "text", folder)?),
    };
    let one = |text| Example { text: Some(text), answer: Answer::Text(String::new()), ..Example::default() };
    let ignore_end = keys.boolean("ignore_end")?.unwrap_or(true);
    let language = LanguageSet { prompts, chat: false, ignore_end };
    let mut set = set(texts.into_iter().map(one).collect(), false, language, Scorer::Nothing, AnswerKind::Text);
    if random {
        set.notes.push("Prompts are random tokens: time, memory and energy mean something, and no word does.".into());
    }
    Ok(set)
}

#[cfg(test)]
mod tests;
