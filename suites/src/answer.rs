//! What an example is answered with: tokens, a class, text, numbers, or likelihoods.
//!
//! In: what a model gave, or a line of a file. Out: [`Answer`]s, and their text for files. Must not: score one; tasks
//! do.
//!
//! Inside a process answers are values of this type. They are text in files alone ([`Answer::parse`], `Display`), and
//! which kind a text is the task says ([`Task::answers`](crate::Task::answers)).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::SuiteError;

/// Kinds of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerKind {
    /// One token a cell.
    #[default]
    Tokens,
    /// One of some classes.
    Class,
    /// Text.
    Text,
    /// Numbers, judged within a tolerance.
    Numbers,
    /// Logarithms of the probabilities of some choices.
    Likelihoods,
}

impl AnswerKind {
    /// The word used in files and errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Class => "class",
            Self::Text => "text",
            Self::Numbers => "numbers",
            Self::Likelihoods => "likelihoods",
        }
    }
}

/// An answer to one example.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// See [`AnswerKind::Tokens`].
    Tokens(Vec<u32>),
    /// See [`AnswerKind::Class`].
    Class(u32),
    /// See [`AnswerKind::Text`].
    Text(String),
    /// See [`AnswerKind::Numbers`].
    Numbers(Vec<f64>),
    /// See [`AnswerKind::Likelihoods`].
    Likelihoods(Vec<f64>),
}

impl Default for Answer {
    fn default() -> Self {
        Self::Tokens(Vec::new())
    }
}

impl From<Vec<u32>> for Answer {
    fn from(tokens: Vec<u32>) -> Self {
        Self::Tokens(tokens)
    }
}

/// Share of the largest magnitude by which numbers of one model may differ between batches.
const ROUNDING: f64 = 1e-3;

impl Answer {
    /// Its kind.
    pub fn kind(&self) -> AnswerKind {
        match self {
            Self::Tokens(_) => AnswerKind::Tokens,
            Self::Class(_) => AnswerKind::Class,
            Self::Text(_) => AnswerKind::Text,
            Self::Numbers(_) => AnswerKind::Numbers,
            Self::Likelihoods(_) => AnswerKind::Likelihoods,
        }
    }

    /// Its tokens, one a cell; none of any other kind.
    pub fn tokens(&self) -> &[u32] {
        match self {
            Self::Tokens(tokens) => tokens,
            _ => &[],
        }
    }

    /// Whether two answers of one model to one example are the same: equal, and of numbers within a thousandth of the
    /// largest, since rounding depends on the batch.
    pub fn agrees(&self, other: &Answer) -> bool {
        let near = |a: &[f64], b: &[f64]| {
            let largest = a.iter().chain(b).fold(0.0, |m: f64, v| m.max(v.abs()));
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= ROUNDING * largest)
        };
        match (self, other) {
            (Self::Numbers(a), Self::Numbers(b)) | (Self::Likelihoods(a), Self::Likelihoods(b)) => near(a, b),
            // a file does not tell one token from a class
            (Self::Class(class), Self::Tokens(tokens)) | (Self::Tokens(tokens), Self::Class(class)) => {
                tokens[..] == [*class]
            }
            _ => self == other,
        }
    }

    /// An answer of this kind from its text in a file.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(kind: AnswerKind, text: &str) -> Result<Self, SuiteError> {
        let words = || text.split_ascii_whitespace();
        let numbers = || words().map(str::parse).collect::<Result<Vec<f64>, _>>().ok();
        let answer = match kind {
            AnswerKind::Tokens => words().map(str::parse).collect::<Result<_, _>>().ok().map(Self::Tokens),
            AnswerKind::Class => text.trim().parse().ok().map(Self::Class),
            AnswerKind::Text => Some(Self::Text(text.into())),
            AnswerKind::Numbers => numbers().map(Self::Numbers),
            AnswerKind::Likelihoods => numbers().map(Self::Likelihoods),
        };
        answer.ok_or_else(|| {
            let shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
            SuiteError::new(format!("`{shown}` is no answer of kind {}", kind.name()))
                .hint("the file is damaged, or of another task: start a new run")
        })
    }
}

/// As files have it: tokens and numbers separated by blanks.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn separated<T: fmt::Display>(f: &mut fmt::Formatter<'_>, values: &[T]) -> fmt::Result {
            for (i, value) in values.iter().enumerate() {
                let blank = if i > 0 { " " } else { "" };
                write!(f, "{blank}{value}")?;
            }
            Ok(())
        }
        match self {
            Self::Tokens(tokens) => separated(f, tokens),
            Self::Class(class) => write!(f, "{class}"),
            Self::Text(text) => f.write_str(text),
            Self::Numbers(numbers) | Self::Likelihoods(numbers) => separated(f, numbers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_back_from_its_text() {
        for (answer, text) in [
            (Answer::Tokens(vec![3, 0, 70_000]), "3 0 70000"),
            (Answer::Tokens(Vec::new()), ""),
            (Answer::Class(7), "7"),
            (Answer::Text("a \"b\", c\n".into()), "a \"b\", c\n"),
            (Answer::Numbers(vec![0.1, -2.0, 1e-300]), format!("0.1 -2 {}", 1e-300).as_str()),
            (Answer::Likelihoods(vec![-0.5]), "-0.5"),
        ] {
            assert_eq!(answer.to_string(), text);
            assert_eq!(Answer::parse(answer.kind(), text).unwrap(), answer);
        }
    }

    #[test]
    fn what_is_no_answer_of_its_kind_is_refused() {
        for (kind, text) in [
            (AnswerKind::Tokens, "1 x"),
            (AnswerKind::Tokens, "-1"),
            (AnswerKind::Class, ""),
            (AnswerKind::Class, "1 2"),
            (AnswerKind::Numbers, "1,5"),
            (AnswerKind::Likelihoods, "none"),
        ] {
            let said = Answer::parse(kind, text).unwrap_err().to_string();
            assert!(said.contains(kind.name()) && said.contains("hint: "), "{said}");
        }
    }

    #[test]
    fn numbers_agree_up_to_rounding_and_the_rest_exactly() {
        let numbers = |v: &[f64]| Answer::Numbers(v.to_vec());
        assert!(numbers(&[100.0, 0.0]).agrees(&numbers(&[100.05, 0.05])));
        assert!(!numbers(&[100.0, 0.0]).agrees(&numbers(&[100.0, 0.2])));
        assert!(!numbers(&[1.0]).agrees(&numbers(&[1.0, 1.0])));
        assert!(!numbers(&[f64::NAN]).agrees(&numbers(&[f64::NAN])), "what is no number agrees with nothing");
        assert!(!numbers(&[1.0]).agrees(&Answer::Likelihoods(vec![1.0])));
        assert!(Answer::Class(1).agrees(&Answer::Class(1)) && !Answer::Class(1).agrees(&Answer::Class(2)));
        assert_eq!(Answer::Class(1).tokens(), &[] as &[u32]);
    }
}
