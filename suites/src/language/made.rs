//! Questions that are generated: sums, and things to do with words. Difficulty is the number of digits or letters.
//!
//! In: parameters and a seed. Out: examples with exact answers. Must not: give two examples of one set the same question.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::scorer::TextMatch;
use super::{MAX_TEXT_EXAMPLES, WRITTEN, example, set, tokens, written};
use crate::answer::{Answer, AnswerKind};
use crate::error::SuiteError;
use crate::task::{ExampleSet, distinct};
use crate::toml_table::{Keys, unknown};

/// Most digits of a number: what a product of two still holds.
const MAX_DIGITS: u64 = 15;
/// Most letters of a word.
const MAX_LETTERS: u64 = 64;
/// Most examples that are shown before a question.
const MAX_SHOTS: u64 = 64;

/// One question, as it is asked plainly and in a conversation.
struct Question {
    plain: String,
    asked: String,
    answer: String,
    difficulty: u32,
}

/// What both tasks share: how many, from which seed, with how many shown first.
struct QuestionsAsked {
    keys: Keys,
    examples: usize,
    shots: usize,
    random: ChaCha8Rng,
}

impl QuestionsAsked {
    fn new(table: &toml::Table, own: &[&str]) -> Result<Self, SuiteError> {
        let known: Vec<&str> =
            own.iter().copied().chain(["examples", "seed", "shots", "operations"]).chain(WRITTEN).collect();
        let keys = Keys::of_table(table).only(&known)?;
        let seed = keys.integer("seed", 0..=i64::MAX as u64)?.unwrap_or(0);
        let examples = keys.integer("examples", 1..=MAX_TEXT_EXAMPLES)?.unwrap_or(100) as usize;
        let shots = keys.integer("shots", 0..=MAX_SHOTS)?.unwrap_or(4) as usize;
        Ok(Self { examples, shots, random: ChaCha8Rng::seed_from_u64(seed), keys })
    }

    fn operations(&self, known: &[&'static str], otherwise: &[&'static str]) -> Result<Vec<&'static str>, SuiteError> {
        let Some(asked) = self.keys.strings("operations")? else { return Ok(otherwise.to_vec()) };
        let each = asked.iter().map(|name| {
            let found = known.iter().copied().find(|k| k == name);
            found.ok_or_else(|| unknown("operation", name, known.iter().copied()).at(self.keys.place("operations")))
        });
        each.collect()
    }

    /// The set: the first questions are those that are shown, and none of them is asked.
    fn set(
        mut self,
        how: TextMatch,
        wider: &str,
        make: impl Fn(&mut ChaCha8Rng) -> Question,
    ) -> Result<ExampleSet, SuiteError> {
        let (random, keys) = (&mut self.random, &self.keys);
        let mut all = distinct(
            self.examples + self.shots,
            "questions",
            wider,
            |q: &Question| q.plain.clone(),
            || Ok(make(random)),
        )?;
        let asked = all.split_off(self.shots);
        let (language, scorer) = written(keys, how, &["\n"])?;
        let shown: String = match language.chat {
            true => String::new(),
            false => all.iter().map(|q| format!("{} {}\n", q.plain, q.answer)).collect(),
        };
        let most = tokens(keys, "output_tokens", 1, if language.chat { 64 } else { 24 })?;
        let one = |q: Question| {
            let prompt = if language.chat { q.asked } else { format!("{shown}{}", q.plain) };
            let mut one = example(prompt, Answer::Text(q.answer), most);
            one.difficulty = q.difficulty;
            one
        };
        let examples = asked.into_iter().map(one).collect();
        Ok(set(examples, false, language, scorer, AnswerKind::Text))
    }
}

pub(super) fn arithmetic(table: &toml::Table, _: &Path) -> Result<ExampleSet, SuiteError> {
    let asked = QuestionsAsked::new(table, &["digits"])?;
    let digits = asked.keys.integers("digits", 1..=MAX_DIGITS)?.unwrap_or_else(|| vec![1, 2, 3]);
    let operations = asked.operations(&["+", "-", "*"], &["+", "-"])?;
    asked.set(TextMatch::Number, "more `digits` or `operations`", move |random| {
        let n = digits[random.random_range(0..digits.len())];
        let number = |random: &mut ChaCha8Rng| {
            let least = if n == 1 { 0 } else { 10i128.pow(n as u32 - 1) };
            random.random_range(least..10i128.pow(n as u32))
        };
        let (a, b) = (number(random), number(random));
        let operation = operations[random.random_range(0..operations.len())];
        let answer = match operation {
            "+" => a + b,
            "-" => a - b,
            _ => a * b,
        };
        let plain = format!("{a} {operation} {b} =");
        let asked = format!("What is {a} {operation} {b}? Answer with the number alone.");
        Question { plain, asked, answer: answer.to_string(), difficulty: n as u32 }
    })
}

pub(super) fn strings(table: &toml::Table, _: &Path) -> Result<ExampleSet, SuiteError> {
    let asked = QuestionsAsked::new(table, &["letters"])?;
    let letters = asked.keys.integers("letters", 1..=MAX_LETTERS)?.unwrap_or_else(|| vec![3, 5, 8]);
    let operations = asked.operations(&["copy", "reverse", "sort"], &["copy", "reverse"])?;
    asked.set(TextMatch::Exact, "more `letters` or `operations`", move |random| {
        let n = letters[random.random_range(0..letters.len())];
        let word: Vec<char> = (0..n).map(|_| char::from(b'a' + random.random_range(0..26u8))).collect();
        let operation = operations[random.random_range(0..operations.len())];
        let mut made = word.clone();
        match operation {
            "reverse" => made.reverse(),
            "sort" => made.sort_unstable(),
            _ => {}
        }
        // letters apart, so that a tokenizer cannot hide them
        let apart = |word: &[char]| word.iter().map(char::to_string).collect::<Vec<_>>().join(" ");
        let (word, answer) = (apart(&word), apart(&made));
        let plain = format!("{operation}: {word} ->");
        let asked = format!("{operation} these letters and answer with the letters alone: {word}");
        Question { plain, asked, answer, difficulty: n as u32 }
    })
}
