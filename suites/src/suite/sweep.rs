//! Sweeps: one block that stands for several, and words for lists of numbers.
//!
//! In: the keys of a block with a table `sweep`, the word of a list. Out: a block for each combination of the swept values, the numbers.
//! Must not: know what a swept key means.

use toml::Value;

use crate::error::SuiteError;
use crate::toml_table::{Keys, listed};

/// Most blocks that one block may stand for, and all of a suite.
const MAX_BLOCKS: usize = 1000;
const MAX_ALL: usize = 10_000;
/// Most bytes of their values.
const MAX_BYTES: usize = 16 << 20;

/// The blocks that a block stands for: itself where it has no `sweep`; else one for each combination of the values in
/// `sweep = { KEY = [VALUE, ...], "options.KEY" = [...] }`, each named after its values: `NAME-KEY-VALUE`.
///
/// # Errors
/// `sweep` is no table of lists, a key is in the block too, more than [`MAX_BLOCKS`] blocks or [`MAX_BYTES`] of them, more than
/// [`MAX_ALL`] with the `count` of earlier ones.
pub(super) fn blocks(keys: Keys, name: &str, count: &mut usize) -> Result<Vec<Keys>, SuiteError> {
    let Some(sweep) = keys.get("sweep", "a table of lists: `sweep = { size = [4, 6] }`", |v| v.as_table().cloned())?
    else {
        return Ok(vec![keys]);
    };
    let origin = keys.origin("sweep");
    let wrong = |message: String| SuiteError::new(message).at(keys.place("sweep"));
    let mut all = vec![(name.to_owned(), keys.clone())];
    for (key, values) in &sweep {
        let path: Vec<&str> = key.split('.').collect();
        if path.contains(&"") || matches!(path[0], "name" | "kind" | "sweep") {
            return Err(
                wrong(format!("cannot sweep `{key}`")).hint("name a key of this block other than name and kind")
            );
        }
        if keys.has_path(&path) {
            return Err(wrong(format!("`{key}` is in this block too"))
                .hint("write it in one place: with its one value, or in `sweep` with several"));
        }
        let values = listed(values);
        if values.is_empty() {
            return Err(wrong("comes to no block".into()).hint("give each swept key a list of one or more values"));
        }
        let blocks = all.len().saturating_mul(values.len());
        if blocks > MAX_BLOCKS {
            return Err(wrong(format!("comes to more than {MAX_BLOCKS} blocks")).hint("shorten its lists"));
        }
        if blocks.saturating_mul(keys.bytes()) > MAX_BYTES {
            return Err(wrong(format!("comes to {blocks} copies of a block of {} bytes", keys.bytes()))
                .hint("shorten its lists, or the texts of the block"));
        }
        let last = path[path.len() - 1];
        let mut next = Vec::with_capacity(all.len() * values.len());
        for (name, block) in &all {
            for value in values {
                let mut block = block.clone();
                block.set(&path, value.clone(), origin)?;
                next.push((format!("{name}-{last}-{}", word(value)), block));
            }
        }
        all = next;
    }
    *count += all.len();
    if *count > MAX_ALL {
        return Err(wrong(format!("comes to more than {MAX_ALL} blocks with the sweeps before it"))
            .hint("shorten their lists, or split the suite"));
    }
    let named = all.into_iter().map(|(name, mut block)| {
        block.remove("sweep");
        block.set(&["name"], Value::String(name), origin)?;
        Ok(block)
    });
    named.collect()
}

/// A value as part of a name.
fn word(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    text.chars().map(plain).collect::<String>().trim_matches('-').to_owned()
}

/// Numbers of threads in a word: `all` (as many as there are processors), or `A..B` with a number or `all` on either
/// side: A, then the powers of two between, then B.
pub(super) fn threads(word: &str, processors: u32, most: u32) -> Option<Vec<u64>> {
    let number = |text: &str| match text {
        "all" => Some(processors),
        _ => text.parse().ok().filter(|n| (1..=most).contains(n)),
    };
    let Some((from, to)) = word.split_once("..") else {
        return (word == "all").then(|| vec![processors.into()]);
    };
    let (from, to) = (number(from)?, number(to)?);
    if from > to {
        return None;
    }
    let between = (0..32).map(|i| 1u32 << i).filter(|n| (from + 1..to).contains(n));
    let mut all: Vec<u64> = std::iter::once(from).chain(between).chain([to]).map(u64::from).collect();
    all.dedup();
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_numbers_of_threads() {
        let of = |word: &str| threads(word, 6, 1024);
        assert_eq!(of("all"), Some(vec![6]));
        assert_eq!(of("1..all"), Some(vec![1, 2, 4, 6]));
        assert_eq!(of("2..8"), Some(vec![2, 4, 8]));
        assert_eq!(of("3..3"), Some(vec![3]));
        assert_eq!(threads("1..all", 1, 1024), Some(vec![1]));
        for word in ["", "some", "..", "0..4", "4..2", "8..all", "1..2000", "1..x", "-1..2"] {
            assert_eq!(of(word), None, "{word}");
        }
    }

    #[test]
    fn values_become_parts_of_names() {
        for (value, wanted) in [
            (Value::Integer(4), "4"),
            (Value::Boolean(true), "true"),
            (Value::Float(0.5), "0.5"),
            (Value::String("a b/c".into()), "a-b-c"),
            (Value::Array(vec![Value::Integer(4), Value::Integer(6)]), "4--6"),
        ] {
            assert_eq!(word(&value), wanted);
        }
    }
}
