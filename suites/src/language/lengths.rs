//! How long prompts and outputs are, and when they come: fixed, drawn from a distribution, or as a trace has them.
//!
//! In: the keys `prompt_tokens`, `output_tokens`, `context` and `trace`. Out: a [`TextExample`] each. Must not: know a tokenizer.

use std::path::Path;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use toml::Value;

use super::{MAX_TOKENS, TextExample, jsonl};
use crate::error::SuiteError;
use crate::toml_table::Keys;

/// Keys of a line of a trace.
const OF_LINE: [&str; 4] = ["arrival", "prompt", "prompt_tokens", "output_tokens"];

/// The examples of a JSONL file with `output_tokens`, `prompt` or `prompt_tokens`, and where they come by themselves `arrival` (seconds) in each line.
///
/// # Errors
/// A line that is broken or lacks one, arrivals that go back, or which some lines have and others do not; so with prompts.
pub(super) fn of_trace(keys: &Keys, folder: &Path, examples: Option<u64>) -> Result<Vec<TextExample>, SuiteError> {
    for key in ["prompt_tokens", "output_tokens", "context"] {
        if keys.has(key) {
            return Err(SuiteError::new("is in each line of the trace")
                .at(keys.place(key))
                .hint("leave it out, or leave out `trace`"));
        }
    }
    let name = keys.need("trace", keys.string("trace")?)?;
    let count = examples.map(|n| ("examples".to_owned(), Value::Integer(n as i64)));
    let file = [("file".to_owned(), Value::String(name))];
    let table: toml::Table = file.into_iter().chain(count).collect();
    let lines = jsonl::lines(&Keys::of_table(&table), folder, &OF_LINE)?;
    let mut all: Vec<TextExample> = Vec::with_capacity(lines.len());
    for line in &lines {
        let one = of_line(line)?;
        if let Some(before) = all.last() {
            if before.arrival.is_some() != one.arrival.is_some() {
                return Err(line.wrong("arrival", "is in some lines and not in others"));
            }
            if before.arrival > one.arrival {
                return Err(line.wrong("arrival", "is before that of the line above"));
            }
            if before.prompt.is_empty() != one.prompt.is_empty() {
                return Err(line.wrong("prompt", "is in some lines, and others have `prompt_tokens`"));
            }
        }
        all.push(one);
    }
    Ok(all)
}

fn of_line(line: &jsonl::JsonLine) -> Result<TextExample, SuiteError> {
    let one = |key: &str| {
        let n = line.number(key)?.filter(|n| (1..=MAX_TOKENS).contains(n));
        n.map(|n| n as u32).ok_or_else(|| line.wrong(key, &format!("is a whole number from 1 to {MAX_TOKENS}")))
    };
    let (prompt, prompt_tokens) = match line.has("prompt") {
        true if line.has("prompt_tokens") => {
            return Err(line.wrong("prompt_tokens", "is beside `prompt`: write one of them"));
        }
        true => (line.text("prompt")?, 0),
        false => (String::new(), one("prompt_tokens")?),
    };
    if line.has("prompt") && prompt.is_empty() {
        return Err(line.wrong("prompt", "is empty"));
    }
    let arrival = line.seconds("arrival")?.map(Duration::from_secs_f64);
    Ok(TextExample { prompt, prompt_tokens, output_tokens: one("output_tokens")?, arrival, ..TextExample::default() })
}

/// Examples whose lengths are a number, drawn from a distribution, or of prompts those of the list `context` in turn.
///
/// # Errors
/// A key that says nothing of the kind, or both ways of saying how long prompts are.
pub(super) fn drawn(keys: &Keys, examples: Option<u64>, seed: u64) -> Result<Vec<TextExample>, SuiteError> {
    let turns = keys.integers("context", 1..=MAX_TOKENS)?.unwrap_or_default();
    if !turns.is_empty() && keys.has("prompt_tokens") {
        return Err(SuiteError::new("says how long prompts are, and so does `prompt_tokens`")
            .at(keys.place("context"))
            .hint("leave out one of them"));
    }
    let (prompt, output) = (Lengths::of(keys, "prompt_tokens", 512)?, Lengths::of(keys, "output_tokens", 128)?);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let count = examples.unwrap_or(8.max(turns.len() as u64));
    let each = (0..count as usize).map(|i| {
        let prompt_tokens = match turns.len() {
            0 => prompt.draw(&mut random),
            n => turns[i % n] as u32,
        };
        let output_tokens = output.draw(&mut random);
        TextExample { prompt_tokens, output_tokens, ..TextExample::default() }
    });
    Ok(each.collect())
}

/// A distribution of lengths.
#[derive(Clone, Copy, Debug)]
enum Lengths {
    /// Evenly from one to the other, both included.
    Between(u32, u32),
    /// Lognormal with this mean and standard deviation, rounded, at least 1 and at most the last.
    Lognormal(f64, f64, u32),
}

impl Lengths {
    fn of(keys: &Keys, key: &str, otherwise: u32) -> Result<Self, SuiteError> {
        let wanted = format!(
            "a whole number from 1 to {MAX_TOKENS}, `[LEAST, MOST]`, or `{{ mean = 200, sd = 100, most = 1000 }}` (lognormal)"
        );
        let whole = |v: &Value| v.as_integer().filter(|n| (1..=MAX_TOKENS as i64).contains(n)).map(|n| n as u32);
        let positive = |v: &Value| {
            v.as_float().or(v.as_integer().map(|n| n as f64)).filter(|x| *x > 0.0 && *x <= MAX_TOKENS as f64)
        };
        let found = keys.get(key, &wanted, |v| match v {
            Value::Array(all) => match all.as_slice() {
                [least, most] => {
                    Some((whole(least)?, whole(most)?)).filter(|(a, b)| a <= b).map(|(a, b)| Self::Between(a, b))
                }
                _ => None,
            },
            Value::Table(table) if table.len() == 3 => Some(Self::Lognormal(
                positive(table.get("mean")?)?,
                positive(table.get("sd")?)?,
                whole(table.get("most")?)?,
            )),
            _ => whole(v).map(|n| Self::Between(n, n)),
        })?;
        Ok(found.unwrap_or(Self::Between(otherwise, otherwise)))
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> u32 {
        match *self {
            Self::Between(least, most) if least == most => least,
            Self::Between(least, most) => random.random_range(least..=most),
            Self::Lognormal(mean, sd, most) => {
                let variance = (sd / mean).powi(2).ln_1p();
                // Box and Muller
                let (a, b): (f64, f64) = (random.random(), random.random());
                let normal = (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos();
                let length = (mean.ln() - variance / 2.0 + variance.sqrt() * normal).exp().round();
                length.clamp(1.0, f64::from(most)) as u32
            }
        }
    }
}
