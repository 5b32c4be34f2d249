//! How long prompts and outputs are: fixed, drawn evenly between two bounds, or as a trace has them.
//!
//! In: the keys `prompt_tokens`, `output_tokens` and `trace`. Out: a pair for each example. Must not: know a tokenizer.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use toml::Value;

use super::{MAX_TOKENS, jsonl};
use crate::error::SuiteError;
use crate::toml_table::Keys;

/// Tokens of the prompt and of the output, of each example.
pub struct Lengths(pub Vec<(u32, u32)>);

impl Lengths {
    /// Of a JSONL file with `prompt_tokens` and `output_tokens` in each line.
    pub(crate) fn of_trace(keys: &Keys, folder: &Path, examples: Option<u64>) -> Result<Self, SuiteError> {
        for key in ["prompt_tokens", "output_tokens"] {
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
        let lines = jsonl::lines(&Keys::of_table(&table), folder, &["prompt_tokens", "output_tokens"])?;
        let pair = |line: &jsonl::JsonLine| {
            let one = |key: &str| {
                let n = line.number(key)?.filter(|n| (1..=MAX_TOKENS).contains(n));
                n.map(|n| n as u32).ok_or_else(|| line.wrong(key, &format!("is a whole number from 1 to {MAX_TOKENS}")))
            };
            Ok((one("prompt_tokens")?, one("output_tokens")?))
        };
        Ok(Self(lines.iter().map(pair).collect::<Result<_, SuiteError>>()?))
    }

    /// A number for all examples, or one drawn for each, evenly from `[LEAST, MOST]`.
    pub(crate) fn drawn(keys: &Keys, examples: u64, seed: u64) -> Result<Self, SuiteError> {
        let (prompt, output) = (range(keys, "prompt_tokens", 512)?, range(keys, "output_tokens", 128)?);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut one = |(least, most): (u32, u32)| if least == most { least } else { random.random_range(least..=most) };
        Ok(Self((0..examples).map(|_| (one(prompt), one(output))).collect()))
    }
}

fn range(keys: &Keys, key: &str, otherwise: u32) -> Result<(u32, u32), SuiteError> {
    let wanted = format!("a whole number from 1 to {MAX_TOKENS}, or `[LEAST, MOST]`");
    let whole = |v: &Value| v.as_integer().filter(|n| (1..=MAX_TOKENS as i64).contains(n)).map(|n| n as u32);
    let found = keys.get(key, &wanted, |v| match v.as_array().map(Vec::as_slice) {
        None => whole(v).map(|n| (n, n)),
        Some([least, most]) => Some((whole(least)?, whole(most)?)).filter(|(least, most)| least <= most),
        Some(_) => None,
    })?;
    Ok(found.unwrap_or((otherwise, otherwise)))
}
