//! Task `arc`: ARC's public tasks, or tasks of our own procedural rules, as the released TRM sees them, under ARC's official rule.
//!
//! In: a suite's parameters. Out: examples in TRM's tokens, one a test input and variant; scores, decisions, baselines, training examples.
//! Must not: show a test output to anything but the scorer; put a test output into training.

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
pub use variant::Variant;

use crate::task::{Example, Score, Task};

/// See the module.
pub const TASK: Task = Task {
    name: "arc",
    about: "ARC tasks from JSON, or own procedural rules on small grids; votes of augmented copies, two attempts, every output right",
    examples: set::examples,
    score,
    decide: Some(vote::decide),
    training: Some(training::training),
    dataset: Some(training::dataset),
    readable: None,
};

/// Cells count where the right answer is no padding, the edge included, as in TRM's loss. The whole is right if the grid that the answer
/// stands for is: what is written outside of it does not matter, so that this agrees with [`Task::decide`]. An answer of a wrong length
/// has no right cell.
fn score(example: &Example, answer: &[u32]) -> Score {
    let wanted = || example.answer.iter().filter(|t| **t != tokens::PAD);
    let cells = wanted().count() as u32;
    if answer.len() != example.answer.len() {
        return Score { exact: false, right: 0, cells };
    }
    let right = example.answer.iter().zip(answer).filter(|(a, b)| **a != tokens::PAD && a == b).count() as u32;
    let grid = tokens::decode(&example.answer);
    Score { exact: grid.is_some() && grid == tokens::decode(answer), right, cells }
}

#[cfg(test)]
mod tests;
