//! The prompts of a task of language as one model's tokens, and what that model writes as text again.
//!
//! In: a task's examples, a model with its tokenizer. Out: a [`Tokenised`] task: prompts, continuations, and what each example may come to. Must not:
//! leave a prompt to a worker's own tokenizer, or shorten one without a word.
//!
//! Every engine is given the same ids. Continuations are the tokens that follow the prompt's where both are one text; where the tokenizer joins the last
//! word of the prompt with the first of the continuation, the continuation is read by itself.

use std::sync::Arc;

use anyhow::{Context, bail};
use ergometer_files::counted;
use ergometer_language::{ChatMessage, Encoding, TextTokenizer};
use ergometer_suites::Answer;
use ergometer_suites::language::{LanguageSet, PromptSource, TextExample};
use ergometer_suites::task::ExampleSet;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::models::language::LanguageModel;
use crate::protocol::LanguageJob;

/// A task of language in one model's tokens.
#[derive(Clone, Debug)]
pub struct Tokenised {
    /// Prompts, by example.
    pub inputs: Vec<Vec<u32>>,
    /// What workers are told beside them.
    pub job: LanguageJob,
    /// Bytes of each continuation, by example.
    bytes: Vec<Vec<usize>>,
    model: Arc<LanguageModel>,
}

const PLAIN: Encoding = Encoding { additions: false, special: false };
const BEGUN: Encoding = Encoding { additions: true, special: false };
/// A template writes what begins a text by itself.
const RENDERED: Encoding = Encoding { additions: false, special: true };

/// A prompt, its continuations, and the bytes of each.
type Parts = (Vec<u32>, Vec<Vec<u32>>, Vec<usize>);

impl Tokenised {
    /// The task in the model's tokens. `task` and `name` are what the user calls them.
    ///
    /// # Errors
    /// The model has no tokenizer or template, or one that does not fit; a prompt is empty or too long; a text is too short for what is cut out of it;
    /// random tokens for a mixture of experts.
    pub fn new(task: &str, set: &ExampleSet, name: &str, model: &Arc<LanguageModel>) -> anyhow::Result<Self> {
        let Some(language) = &set.language else { bail!("task `{task}` is none of language") };
        let texts: Vec<&TextExample> = set.examples.iter().filter_map(|e| e.text.as_ref()).collect();
        if texts.len() != set.examples.len() {
            bail!("task `{task}` has examples without text");
        }
        let place = || format!("task `{task}` for model `{name}`");
        let parts = parts(language, &texts, model).with_context(place)?;
        let config = model.config();
        let mut all = Self {
            inputs: Vec::new(),
            job: LanguageJob {
                context: 0,
                output: texts.iter().map(|t| t.output_tokens).collect(),
                rest: Vec::new(),
                end: config.ends.clone(),
                ignore_end: language.ignore_end,
                arrivals: texts.iter().filter_map(|t| Some(t.arrival?.as_secs_f64())).collect(),
            },
            bytes: Vec::new(),
            model: model.clone(),
        };
        let scored = parts.iter().any(|p| !p.1.is_empty());
        for (i, ((prompt, rest, bytes), text)) in parts.into_iter().zip(texts).enumerate() {
            let longest = rest.iter().map(Vec::len).max().unwrap_or(0).max(text.output_tokens as usize);
            let (tokens, most) = (prompt.len() + longest, config.context);
            if prompt.is_empty() {
                bail!(
                    "{}: example {i} has an empty prompt\nhint: a model goes on from at least one token: give it some text",
                    place()
                );
            }
            if tokens > most {
                bail!(
                    "{}: example {i} has a prompt of {} and {longest} after it, {tokens} in all; the model was made for {most}\n\
                     hint: shorten the prompt, ask for fewer `output_tokens`, or use a model with a longer context",
                    place(),
                    counted(prompt.len(), "token")
                );
            }
            let known = config.vocabulary;
            if let Some(id) = prompt.iter().chain(rest.iter().flatten()).find(|id| **id as usize >= known) {
                bail!(
                    "{}: the tokenizer gives token {id} in example {i}, and the model knows {known}\n\
                     hint: the tokenizer is of another model: fetch the model's folder again",
                    place()
                );
            }
            all.job.context = all.job.context.max(tokens);
            all.inputs.push(prompt);
            all.bytes.push(bytes);
            if scored {
                all.job.rest.push(rest);
            }
        }
        Ok(all)
    }

    /// Tokens of each prompt.
    pub fn prompts(&self) -> Vec<u64> {
        self.inputs.iter().map(|input| input.len() as u64).collect()
    }

    /// Numbers in the keys and values of the longest sequence; windows of local layers are not taken off.
    pub fn cached_numbers(&self) -> f64 {
        self.model.cache_bytes(self.job.context, 1.0)
    }

    /// Whether an example is answered with likelihoods.
    fn scores(&self, example: usize) -> bool {
        self.job.rest.get(example).is_some_and(|rest| !rest.is_empty())
    }

    /// Most tokens of an answer.
    pub fn most_output(&self) -> u32 {
        self.job.output.iter().copied().max().unwrap_or(1).max(1)
    }

    /// Tokens as text; without a tokenizer, their numbers. What is no UTF-8 has a mark in its place.
    pub fn text(&self, tokens: &[u32]) -> Result<String, String> {
        match &self.model.decoder().tokenizer {
            Some(tokenizer) => {
                // rows of the head that are no tokens
                let known: Vec<u32> = tokens.iter().copied().filter(|t| (*t as usize) < tokenizer.len()).collect();
                let bytes = tokenizer.decode(&known, false).map_err(|e| e.to_string())?;
                // no file keeps a NUL
                Ok(String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}"))
            }
            None => Ok(Answer::Tokens(tokens.to_vec()).to_string()),
        }
    }

    /// Why these cannot be what an engine wrote for an example.
    ///
    /// # Errors
    /// In words that follow "the answer to example 3".
    pub fn check_written(&self, example: usize, tokens: &[u32]) -> Result<(), String> {
        let (most, known) = (self.job.output[example].max(1) as usize, self.model.config().vocabulary);
        if tokens.is_empty() || tokens.len() > most {
            return Err(format!("has {} tokens, 1 to {most} are due", tokens.len()));
        }
        match tokens.iter().find(|t| **t as usize >= known) {
            Some(token) => Err(format!("has the token {token}, and there are {known}")),
            None => Ok(()),
        }
    }

    /// What a worker gave as an answer, as the task scores it: text, log-probabilities of the tokens of one continuation, or of whole choices (their
    /// sums, then the same over the bytes of each).
    ///
    /// # Errors
    /// It cannot be an answer to this example, in words that follow "the answer to example 3".
    pub fn answer(&self, example: usize, given: Answer) -> Result<Answer, String> {
        match given {
            Answer::Tokens(tokens) if !self.scores(example) => {
                self.check_written(example, &tokens)?;
                self.text(&tokens).map(Answer::Text)
            }
            Answer::Likelihoods(all) if self.scores(example) => {
                let rest = &self.job.rest[example];
                let due: usize = rest.iter().map(Vec::len).sum();
                if all.len() != due || all.iter().any(|v| v.is_nan()) {
                    return Err(format!("has {} log-probabilities, {due} numbers are due", all.len()));
                }
                if rest.len() == 1 {
                    return Ok(Answer::Likelihoods(all));
                }
                let mut from = all.iter();
                let sums: Vec<f64> = rest.iter().map(|r| from.by_ref().take(r.len()).sum()).collect();
                let over = sums.iter().zip(&self.bytes[example]).map(|(sum, n)| sum / (*n).max(1) as f64);
                Ok(Answer::Likelihoods(sums.iter().copied().chain(over).collect()))
            }
            other => Err(format!("is of kind {}, which this example does not ask for", other.kind().name())),
        }
    }
}

fn parts(language: &LanguageSet, texts: &[&TextExample], model: &LanguageModel) -> anyhow::Result<Vec<Parts>> {
    let tokenizer = model.decoder().tokenizer.as_ref();
    if let PromptSource::Random(seed) = language.prompts {
        return random(seed, texts, model, tokenizer);
    }
    let tokenizer = tokenizer.context(
        "the model has no tokenizer\nhint: put its tokenizer.json beside its config.json; `random = true` of the task `prompts` needs none",
    )?;
    match &language.prompts {
        PromptSource::Examples => {
            let each = texts.iter().enumerate();
            each.map(|(i, t)| own(language.chat, t, model, tokenizer).with_context(|| format!("example {i}"))).collect()
        }
        PromptSource::Windows(text, window) => windows(text, *window as usize, texts.len(), tokenizer),
        PromptSource::Stretches(text) => stretches(text, texts, tokenizer),
        PromptSource::Random(_) => bail!("handled above"),
    }
}

/// A prompt of its own.
fn own(chat: bool, text: &TextExample, model: &LanguageModel, tokenizer: &TextTokenizer) -> anyhow::Result<Parts> {
    if text.prompt.is_empty() {
        return Ok(Parts::default());
    }
    let (prompt, how) = match chat {
        false => (text.prompt.clone(), BEGUN),
        true => {
            let template = model.decoder().template.as_ref().context(
                "the model has no chat template, and the task asks for one\nhint: leave out `chat`, or use a model that was trained to chat",
            )?;
            let message = ChatMessage { role: "user".into(), content: text.prompt.clone() };
            (template.render(&[message], true)?, RENDERED)
        }
    };
    let ids = tokenizer.encode(&prompt, how)?;
    let (mut rest, mut bytes) = (Vec::new(), Vec::new());
    for continuation in &text.continuations {
        let whole = tokenizer.encode(&format!("{prompt}{continuation}"), how)?;
        let follows = match whole.strip_prefix(&ids[..]) {
            Some(follows) if !follows.is_empty() => follows.to_vec(),
            _ => tokenizer.encode(continuation, PLAIN)?,
        };
        if follows.is_empty() {
            bail!("the choice {continuation:?} has no token\nhint: give it some text");
        }
        rest.push(follows);
        bytes.push(continuation.len());
    }
    Ok((ids, rest, bytes))
}

/// The token that begins a text, where the model wants one.
fn begin(tokenizer: &TextTokenizer) -> anyhow::Result<Option<u32>> {
    Ok(tokenizer.encode("", BEGUN)?.first().copied())
}

/// Windows of a text as llama-perplexity makes them: the first token of each is the one that begins a text, where the model has one; the tokens after
/// the middle one are scored.
fn windows(text: &str, window: usize, count: usize, tokenizer: &TextTokenizer) -> anyhow::Result<Vec<Parts>> {
    let begin = begin(tokenizer)?;
    let tokens = tokenizer.encode(text, BEGUN)?;
    let there = tokens.len() / window;
    if there < count {
        bail!(
            "{count} windows of {window} tokens are asked for, and the text has {} with this model's tokenizer: {there} windows\n\
             hint: ask for at most {there} `windows`, or for a smaller `window`",
            counted(tokens.len(), "token")
        );
    }
    let part = |window: &[u32]| {
        let (mut prompt, rest) = (window.to_vec(), window[window.len() / 2 + 1..].to_vec());
        prompt.truncate(window.len() / 2 + 1);
        if let Some(begin) = begin {
            prompt[0] = begin;
        }
        (prompt, vec![rest], vec![0])
    };
    Ok(tokens.chunks_exact(window).take(count).map(part).collect())
}

/// Stretches of a text one after the other, from the start again at its end.
fn stretches(text: &str, texts: &[&TextExample], tokenizer: &TextTokenizer) -> anyhow::Result<Vec<Parts>> {
    let begin = begin(tokenizer)?;
    let tokens = tokenizer.encode(text, PLAIN)?;
    let (mut from, mut all) = (0, Vec::new());
    for wanted in texts {
        let needed = (wanted.prompt_tokens as usize).saturating_sub(usize::from(begin.is_some())).max(1);
        if needed > tokens.len() {
            bail!(
                "a prompt of {} is asked for, and the text has {}\nhint: ask for fewer `prompt_tokens`, or name a longer text",
                counted(wanted.prompt_tokens as usize, "token"),
                tokens.len()
            );
        }
        if from + needed > tokens.len() {
            from = 0;
        }
        let own = tokens[from..from + needed].iter().copied();
        all.push((begin.into_iter().chain(own).collect(), Vec::new(), Vec::new()));
        from += needed;
    }
    Ok(all)
}

fn random(
    seed: u64,
    texts: &[&TextExample],
    model: &LanguageModel,
    tokenizer: Option<&TextTokenizer>,
) -> anyhow::Result<Vec<Parts>> {
    if model.config().mlp.experts.is_some() {
        bail!(
            "random tokens for a mixture of experts: routers would send them where no text goes, and its time would say nothing\n\
             hint: use prompts out of a text: `text = \"FILE\"`"
        );
    }
    let below = tokenizer.map_or(usize::MAX, TextTokenizer::len).min(model.config().vocabulary) as u32;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let each = texts.iter().map(|t| {
        let ids = (0..t.prompt_tokens.max(1)).map(|_| random.random_range(0..below)).collect();
        (ids, Vec::new(), Vec::new())
    });
    Ok(each.collect())
}
