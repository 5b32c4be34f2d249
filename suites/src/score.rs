//! How right one answer is, and the sums that metrics are made of.
//!
//! In: nothing. Out: [`Score`], [`AnswerScore`]. Must not: know a task.

use crate::answer::Answer;

/// How right one answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// The whole answer is right.
    pub exact: bool,
    /// Right cells.
    pub right: u32,
    /// Cells that count.
    pub cells: u32,
}

impl Score {
    /// The score of an answer in tokens of which every one counts. One of a wrong length has no right cell.
    pub(crate) fn of_cells(right: &Answer, answer: &Answer) -> Score {
        let (wanted, answer) = (right.tokens(), answer.tokens());
        let cells = wanted.len() as u32;
        if answer.len() != wanted.len() {
            return Score { exact: false, right: 0, cells };
        }
        let right = wanted.iter().zip(answer).filter(|(a, b)| a == b).count() as u32;
        Score { exact: right == cells, right, cells }
    }
}

/// One pair of sums of one example.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreSum {
    /// Name of the metric.
    pub metric: String,
    /// Which part of it, e.g. a class; the metric is the mean over its parts.
    pub part: u32,
    /// See the metric.
    pub numerator: f64,
    /// See the metric.
    pub denominator: f64,
}

/// A score with its sums.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerScore {
    /// How right the answer is.
    pub score: Score,
    /// What metrics are made of, beside that.
    pub sums: Vec<ScoreSum>,
}
