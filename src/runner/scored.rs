//! A scored answer as the runner holds it: a value while the case runs, text in a file.
//!
//! In: an answer with its score. Out: a row of `predictions.csv`. Must not: score anything.

use ergometer_reports::case::{ExampleSum, Prediction};
use ergometer_suites::Answer;
use ergometer_suites::task::ScoreSum;

/// A scored answer, as long as the case runs; a file has it as a [`Prediction`].
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredAnswer {
    /// See [`Prediction`], for all but the answer.
    pub example: u64,
    /// Cluster of the example.
    pub cluster: u64,
    /// Steps after which it was given.
    pub depth: u32,
    /// It is the answer of record.
    pub last: bool,
    /// Halting logit, if there is one.
    pub halt_logit: Option<f64>,
    /// The answer itself, where it is kept.
    pub answer: Option<Answer>,
    /// All of it is right.
    pub exact: bool,
    /// Right cells.
    pub right: u32,
    /// Cells that count.
    pub cells: u32,
    /// It keeps the task's rules; `None` where the task has no such measure.
    pub valid: Option<bool>,
    /// What its scorer summed of it.
    pub sums: Vec<ScoreSum>,
    /// How hard the example is.
    pub difficulty: Option<u32>,
}

impl ScoredAnswer {
    /// What its scorer summed, as a file has it: of answers of record alone.
    pub fn take_sums(&mut self) -> Vec<ExampleSum> {
        let sums = std::mem::take(&mut self.sums);
        let (example, cluster) = (self.example, self.cluster);
        let row = |s: ScoreSum| {
            let ScoreSum { metric, part, numerator, denominator } = s;
            ExampleSum { example, cluster, metric, part, numerator, denominator }
        };
        if self.last { sums.into_iter().map(row).collect() } else { Vec::new() }
    }

    /// As a file has it.
    pub fn prediction(&self) -> Prediction {
        Prediction {
            example: self.example,
            cluster: self.cluster,
            depth: self.depth,
            last: self.last,
            halt_logit: self.halt_logit,
            answer: self.answer.as_ref().map(Answer::to_string).unwrap_or_default(),
            exact: self.exact,
            right: self.right,
            cells: self.cells,
            valid: self.valid,
            difficulty: self.difficulty,
        }
    }
}
