//! What a task is: examples with known answers, and a scorer.
//!
//! In: parameters from a suite file. Out: [`Example`]s and [`Score`]s. Must not: know a model, a backend or a report.
//! Adding a task: one file with a `pub const TASK: Task`, and its line in [`TASKS`](crate::TASKS).

use std::path::Path;

use crate::error::SuiteError;

/// The token of padding, in every task. A cell whose right answer is padding asks for nothing: it is no part of a training loss.
pub const PAD: u32 = 0;

/// One input with its known answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// The question that this example helps to answer: examples of one question are answered row by row and decided together (the
    /// augmented copies of all test inputs of one ARC task). Only read where the task has a [`Task::decide`].
    pub question: u64,
    /// Which output of the question it asks for, from 0 (ARC: the test input).
    pub part: u32,
    /// How the example was made from the question, in the task's own code (ARC: dihedral copy and permutation of colours); 0: as it is.
    pub variant: u32,
}

/// A row's answer, as a task sees it that decides questions from several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer<'a> {
    /// Index into the examples.
    pub example: usize,
    /// One token a cell.
    pub tokens: &'a [u32],
    /// Halting logit, if the model has one.
    pub halt_logit: Option<f64>,
}

/// One attempt at one output of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which output, from 0.
    pub part: u32,
    /// From 1.
    pub number: u32,
    /// Where it comes from, e.g. `vote 1 of 3: 5 of 8 rows`.
    pub source: String,
    /// The whole output is right.
    pub right: bool,
}

/// What came of one question under the task's official rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// [`Example::question`].
    pub question: u64,
    /// Its name, e.g. an ARC task's.
    pub name: String,
    /// Questions of one cluster are not independent.
    pub cluster: u64,
    /// Examples (rows) that were answered for it: what it cost.
    pub rows: u32,
    /// Every output right in one of the allowed attempts.
    pub right: bool,
    /// Outputs right in one of the allowed attempts.
    pub parts_right: u32,
    /// Outputs asked for.
    pub parts: u32,
    /// All attempts, by output and number.
    pub attempts: Vec<Attempt>,
}

/// What a rule that needs no model gets right: a score means little without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// E.g. `copy the input`.
    pub name: String,
    /// Questions (examples, where the task decides row by row) that it gets right.
    pub right: u64,
    /// Of so many.
    pub of: u64,
}

/// An endless, seeded source of training examples, none of them on the held-out side.
///
/// The same source gives the same examples in the same order; a training run that is resumed draws again what it had drawn.
pub trait Training: Send {
    /// The next example.
    fn next_example(&mut self) -> Example;
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
    /// Rows that a model's table of puzzle embeddings needs; 1 where there is one kind of puzzle.
    pub puzzle_ids: u32,
    /// Which puzzle has which id, as a name that no other numbering has; `None` where there is one kind of puzzle. A net with a table of
    /// puzzle embeddings knows only the numbering that it was trained with.
    pub numbering: Option<String>,
    /// Names of the questions, by [`Example::question`]; empty where the task decides row by row.
    pub questions: Vec<String>,
    /// What trivial rules score on these examples.
    pub baselines: Vec<Baseline>,
    /// Things that a reader of the score must know (e.g. that 4x4 is a smoke test).
    pub notes: Vec<String>,
}

/// See [`Task::decide`].
pub type Decide = fn(set: &ExampleSet, answers: &[Answer]) -> Vec<Decision>;
/// See [`Task::training`].
pub type MakeTraining = fn(parameters: &toml::Table, seed: u64) -> Result<Box<dyn Training>, SuiteError>;

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
    /// Decides questions from the answers of their examples by the task's official rule, in the order of the questions; `None`: every
    /// example is a question of its own and [`score`](Self::score) decides.
    pub decide: Option<Decide>,
    /// Training examples for these parameters (a suite's, `split` and `examples` left out) and this seed; `None`: not trainable here.
    pub training: Option<MakeTraining>,
}
