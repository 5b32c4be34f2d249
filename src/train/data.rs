//! Examples to train on and examples held out, of any task that can be trained on.
//!
//! In: a task's configuration. Out: a [`ExampleStream`] of training examples, the held-out [`ExampleSet`]. Must not: know a task; that no held-out
//! example is trained on is the task's word ([`Training`]).

use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use ergometer_suites::task::{Example, ExampleSet, Task, Training};

use super::config::TaskConfig;
use crate::models::interface::{Interface, PortRole};

/// The kind of task.
pub fn kind(task: &TaskConfig) -> anyhow::Result<&'static Task> {
    ergometer_suites::task(&task.kind).with_context(|| format!("no task `{}`", task.kind))
}

/// Held-out examples: what a suite with the same parameters gets.
pub fn held_out(task: &TaskConfig, folder: &Path) -> anyhow::Result<ExampleSet> {
    let mut parameters = task.parameters.clone();
    parameters.insert("split".into(), "test".into());
    parameters.insert("examples".into(), task.eval_examples.into());
    parameters.insert("seed".into(), task.eval_seed.into());
    (kind(task)?.examples)(&parameters, folder).map_err(|e| anyhow!("[task]: {e}"))
}

/// Puzzle identifiers that a net tells apart.
pub fn puzzle_ids(interface: &Interface) -> usize {
    interface.input(PortRole::PuzzleId).and_then(|port| port.below()).unwrap_or(1)
}

/// The stream of training examples, counted so that a resumed run finds its place again.
pub struct ExampleStream {
    training: Box<dyn Training>,
    drawn: u64,
    /// Of a row: cells of input and answer, tokens that may occur in them, puzzle ids.
    cells: (usize, usize),
    tokens: (usize, usize),
    ids: usize,
}

impl ExampleStream {
    /// Always the same for the same configuration and seed; `interface` says what rows the net can take.
    pub fn new(task: &TaskConfig, seed: u64, interface: &Interface) -> anyhow::Result<Self> {
        let make = kind(task)?.training.with_context(|| format!("task `{}` has no training examples", task.kind))?;
        let mut parameters = task.parameters.clone();
        if let Some(puzzles) = task.puzzles {
            parameters.insert("puzzles".into(), puzzles.into());
        }
        let training = make(&parameters, seed).map_err(|e| anyhow!("[task]: {e}"))?;
        let (input, logits) = (interface.tokens()?, interface.logits()?);
        Ok(Self {
            training,
            drawn: 0,
            cells: (input.row()?.most(), logits.row()?.most() / logits.features.max(1)),
            tokens: (input.below().unwrap_or(0), logits.features),
            ids: puzzle_ids(interface),
        })
    }

    /// Examples drawn so far.
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Goes on as if so many examples had been drawn.
    pub fn skip_to(&mut self, drawn: u64) {
        while self.drawn < drawn {
            self.training.next_example();
            self.drawn += 1;
        }
    }

    /// The next example. Errors: one that the net cannot take.
    pub fn draw(&mut self) -> anyhow::Result<Example> {
        let example = self.training.next_example();
        self.drawn += 1;
        let below = |tokens: &[u32], most: usize| tokens.iter().all(|&t| (t as usize) < most);
        ensure!(
            (example.tokens.len(), example.answer.tokens().len()) == self.cells
                && below(&example.tokens, self.tokens.0)
                && below(example.answer.tokens(), self.tokens.1)
                && (example.puzzle_id as usize) < self.ids,
            "training example {} ({} cells, puzzle id {}) does not fit the model: {} cells, {} tokens, {} puzzle ids\n\
             hint: set `seq_len`, `vocab_size` and `num_puzzle_identifiers` to what the task needs",
            self.drawn,
            example.tokens.len(),
            example.puzzle_id,
            self.cells.0,
            self.tokens.0.min(self.tokens.1),
            self.ids
        );
        Ok(example)
    }
}
