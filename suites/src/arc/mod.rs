//! Task `arc`: ARC's public tasks, or tasks of our own procedural rules, as the released TRM sees them, under ARC's
//! official rule.
//!
//! In: a suite's parameters. Out: examples in TRM's tokens, one a test input and variant; scores, decisions, baselines,
//! training examples. Must not: show a test output to anything but the scorer; put a test output into training.

mod baseline;
pub mod grid;
pub mod json;
mod parameters;
pub mod rules;
mod set;
pub mod tokens;
mod training;
mod variant;
mod vote;

pub use baseline::{distance, lookup};
pub use grid::Grid;
pub use json::{ArcTask, Collection, Pair, Subset};
pub use variant::TaskVariant;

use crate::answer::{Answer, AnswerKind};
use crate::task::{Example, Quick, QuickSet, Score, Task};

/// See the module.
pub const TASK: Task = Task {
    name: "arc",
    about: "ARC tasks from JSON, or own procedural rules on small grids; votes of augmented copies, two attempts, every output right",
    examples: set::examples,
    answers: AnswerKind::Tokens,
    score,
    valid: None,
    decide: Some(vote::decide),
    training: Some(training::training),
    dataset: Some(training::dataset),
    readable: None,
    quick: Some(Quick { about: "tasks of own rules", sets: QUICK }),
};

const QUICK: &[QuickSet] = &[QuickSet {
    name: "arc-rules",
    short: None,
    fits: |cells, tokens| canvas(cells, tokens).is_some(),
    parameters: |cells, tokens| {
        // a model that takes no such canvas is told so of the smallest that the rules are usual on
        let side = canvas(cells, tokens).unwrap_or(6);
        format!("rules = \"all\"\nmax_side = {side}\nside = {side}\ntasks = 64\nseed = 1")
    },
    count: "tasks",
}];

/// Side of the square canvas of ARC's tokens that a row is, where rules fit onto it.
fn canvas(cells: usize, tokens: usize) -> Option<usize> {
    let side = cells.isqrt();
    (side * side == cells && (5..=10).contains(&side) && tokens == tokens::VOCABULARY as usize).then_some(side)
}

/// Cells count where the right answer is no padding, the edge included, as in TRM's loss. The whole is right if the
/// grid that the answer stands for is: what is written outside of it does not matter, so that this agrees with
/// [`Task::decide`]. An answer of a wrong length has no right cell.
fn score(example: &Example, answer: &Answer) -> Score {
    let (wanted, answer) = (example.answer.tokens(), answer.tokens());
    let cells = wanted.iter().filter(|t| **t != tokens::PAD).count() as u32;
    if answer.len() != wanted.len() {
        return Score { exact: false, right: 0, cells };
    }
    let right = wanted.iter().zip(answer).filter(|(a, b)| **a != tokens::PAD && a == b).count() as u32;
    let grid = tokens::decode(wanted);
    Score { exact: grid.is_some() && grid == tokens::decode(answer), right, cells }
}

#[cfg(test)]
mod tests;
