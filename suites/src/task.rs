//! What a task is: examples with known answers, and a scorer.
//!
//! In: parameters from a suite file. Out: [`Example`]s and [`Score`]s. Must not: know a model, a backend or a report.
//! Adding a task: one file with a `pub const TASK: Task`, and its line in [`TASKS`](crate::TASKS).

use std::path::Path;

use crate::error::SuiteError;

/// One input with its known answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Tokens that the model sees, one a cell.
    pub tokens: Vec<u32>,
    /// Row of the model's table of puzzle embeddings.
    pub puzzle_id: u32,
    /// The right answer, one token a cell.
    pub answer: Vec<u32>,
    /// Examples of one cluster are not independent (same solution class, same ARC task, ...).
    pub cluster: u64,
    /// Difficulty in the task's own unit (Sudoku: guesses).
    pub difficulty: u32,
}

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

/// The examples of one task as a suite asked for them.
#[derive(Clone, Debug)]
pub struct ExampleSet {
    /// The examples, in order.
    pub examples: Vec<Example>,
    /// Number of distinct tokens, counting from 0; a model of this task has at least this vocabulary.
    pub vocabulary: u32,
    /// Things that a reader of the score must know (e.g. that 4x4 is a smoke test).
    pub notes: Vec<String>,
}

/// A kind of task: one line in [`TASKS`](crate::TASKS).
pub struct Task {
    /// Name that suites use as `kind`.
    pub name: &'static str,
    /// One sentence for `ergometer list tasks`.
    pub about: &'static str,
    /// Checks a suite's parameters and makes the examples, always the same for the same parameters. `folder` is where relative paths
    /// in the parameters start.
    pub examples: fn(parameters: &toml::Table, folder: &Path) -> Result<ExampleSet, SuiteError>,
    /// Scores one answer.
    pub score: fn(example: &Example, answer: &[u32]) -> Score,
}
