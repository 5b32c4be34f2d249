//! How right the answer of a language model is.
//!
//! In: a label and an answer. Out: a score and sums. Must not: know a tokenizer: what a model wrote is text here, and likelihoods are those of
//! whole choices or of the tokens of a window.
//!
//! Answers of choices are the sums of the log-probabilities of each, then the same over the bytes of each.

use crate::answer::Answer;
use crate::score::{AnswerScore, Score, ScoreSum};
use ergometer_files::distance;

/// How a written answer is compared with the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// Equal, blanks around left out.
    Exact,
    /// The right one stands in it.
    Contains,
    /// The last number in it is the right one's.
    Number,
    /// Equal, and how far it is from that in characters and words.
    Edit,
}

impl TextMatch {
    /// What suites write.
    pub const NAMES: [&'static str; 4] = ["exact", "contains", "number", "edit"];

    /// By its name.
    pub fn of(name: &str) -> Option<Self> {
        let all = [Self::Exact, Self::Contains, Self::Number, Self::Edit];
        all.into_iter().zip(Self::NAMES).find(|(_, n)| *n == name).map(|(how, _)| how)
    }
}

/// How text is scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextScorer {
    /// Compared so.
    pub how: TextMatch,
    /// Texts at which an answer ends, wherever its model stopped; a blank beginning of the answer is passed over first.
    pub stop: Vec<String>,
}

/// How a task of language scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LanguageScorer {
    /// Log-probabilities of tokens.
    Perplexity,
    /// Log-probabilities of choices.
    Choices,
    /// Text.
    Text(TextScorer),
}

/// The last number in a text; commas between digits are left out.
pub fn number(text: &str) -> Option<f64> {
    let part = |c: char| c.is_ascii_digit() || c == '.' || c == ',' || c == '-';
    let words = text.split(|c: char| !part(c)).rev();
    words
        .filter_map(|w| w.trim_end_matches(['.', ',', '-']).replace(',', "").parse().ok())
        .find(|v: &f64| v.is_finite())
}

fn sum(metric: &str, part: u32, numerator: f64, denominator: f64) -> ScoreSum {
    ScoreSum { metric: metric.into(), part, numerator, denominator }
}

fn whole(exact: bool) -> Score {
    Score { exact, right: exact.into(), cells: 1 }
}

impl LanguageScorer {
    /// Why an answer cannot be scored, in words that follow "the answer to example 3".
    ///
    /// # Errors
    /// See above.
    pub fn fits(&self, label: &Answer, answer: &Answer) -> Result<(), String> {
        match (self, label, answer) {
            (Self::Text(_), _, Answer::Text(_)) => Ok(()),
            (Self::Perplexity | Self::Choices, _, Answer::Likelihoods(all)) => {
                match all.iter().find(|v| v.is_nan() || **v > 1e-6) {
                    Some(v) => Err(format!("has the log-probability {v}, and none is above 0")),
                    None if all.is_empty() || all.iter().any(|v| v.is_infinite()) => {
                        Err("holds what is no number".into())
                    }
                    None => Ok(()),
                }
            }
            _ => Err(format!("is of kind {}, which this task does not ask for", answer.kind().name())),
        }
    }

    /// Scores an answer that [fits](Self::fits).
    pub fn score(&self, label: &Answer, answer: &Answer) -> AnswerScore {
        match (self, label, answer) {
            (Self::Perplexity, _, Answer::Likelihoods(all)) => surprise(all),
            (Self::Choices, Answer::Class(right), Answer::Likelihoods(all)) => choice(*right, all),
            (Self::Text(scorer), Answer::Text(wanted), Answer::Text(given)) => scorer.score(wanted, given),
            _ => AnswerScore { score: whole(false), sums: Vec::new() },
        }
    }
}

/// Part 0: nats over tokens; part 1: their squares over tokens, for the standard error. No window is right or wrong.
fn surprise(all: &[f64]) -> AnswerScore {
    let n = all.len() as f64;
    let (nats, squares) = all.iter().fold((0.0, 0.0), |(a, b), v| (a - v, b + v * v));
    let of = |metric: &str| [sum(metric, 0, nats, n), sum(metric, 1, squares, n)];
    let sums = [of("nll"), of("perplexity")].concat();
    AnswerScore { score: whole(false), sums }
}

fn choice(right: u32, all: &[f64]) -> AnswerScore {
    let (sums, over_bytes) = all.split_at(all.len() / 2);
    // of equal ones the first, so that a constant model is not right by luck
    let first = |values: &[f64]| {
        let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        values.iter().position(|v| *v == best).is_some_and(|i| i == right as usize)
    };
    let (plain, normalised) = (first(sums), first(over_bytes));
    let one = |metric: &str, right: bool| sum(metric, 0, f64::from(u8::from(right)), 1.0);
    let sums = vec![one("choice_accuracy", plain), one("choice_accuracy_normalised", normalised)];
    AnswerScore { score: whole(plain), sums }
}

impl TextScorer {
    /// What of a written text is its answer.
    pub fn answer<'a>(&self, given: &'a str) -> &'a str {
        let given = given.trim_start();
        let end = self.stop.iter().filter_map(|s| given.find(s.as_str())).min().unwrap_or(given.len());
        given[..end].trim()
    }

    fn score(&self, wanted: &str, given: &str) -> AnswerScore {
        let (wanted, given) = (wanted.trim(), self.answer(given));
        let mut sums = Vec::new();
        let right = match self.how {
            TextMatch::Exact => wanted == given,
            TextMatch::Contains => given.contains(wanted),
            TextMatch::Number => number(wanted).is_some_and(|w| number(given) == Some(w)),
            TextMatch::Edit => {
                let characters = |text: &str| text.chars().collect::<Vec<char>>();
                let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
                let (a, b) = (characters(wanted), characters(given));
                let (v, w) = (words(wanted), words(given));
                sums.push(sum("cer", 0, distance(&a, &b) as f64, a.len() as f64));
                sums.push(sum("wer", 0, distance(&v, &w) as f64, v.len() as f64));
                wanted == given
            }
        };
        AnswerScore { score: whole(right), sums }
    }
}
