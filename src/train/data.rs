//! Puzzles to train on and puzzles held out.
//!
//! In: a task's configuration, a random number generator. Out: examples. Must not: let a held-out puzzle, or a symmetric copy of one,
//! into training: both come from their sides of the split.

use anyhow::{Context, anyhow};
use ergometer_suites::sudoku::{Generator, Options, Puzzle, Side, Size, augment, tokens};
use ergometer_suites::task::Example;
use rand_chacha::ChaCha8Rng;

use super::config::TaskConfig;

/// Puzzles of the train side.
pub struct Pool {
    puzzles: Vec<Puzzle>,
}

impl Pool {
    /// Makes the pool; always the same for the same configuration and seed.
    pub fn new(task: &TaskConfig, seed: u64) -> anyhow::Result<Self> {
        let size = size(task)?;
        let options = Options { clues: task.clues, side: Some(Side::Train), ..Options::default() };
        let mut generator = Generator::new(size, seed, options).map_err(|e| anyhow!("[task]: {e}"))?;
        let puzzles = (0..task.puzzles).map(|_| generator.next_puzzle()).collect::<Result<Vec<_>, _>>();
        Ok(Self { puzzles: puzzles.map_err(|e| anyhow!("[task]: {e}"))? })
    }

    /// A random symmetric copy of a random puzzle: tokens and answer.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> (Vec<u32>, Vec<u32>) {
        use rand::RngExt;
        let puzzle = augment(&self.puzzles[rng.random_range(0..self.puzzles.len())], rng);
        debug_assert_eq!(Side::of(&puzzle), Side::Train, "symmetric copies stay on their side");
        (tokens(&puzzle.clues), tokens(&puzzle.solution))
    }
}

/// Held-out examples: what a suite with the same parameters gets.
pub fn held_out(task: &TaskConfig) -> anyhow::Result<Vec<Example>> {
    let kind = ergometer_suites::task(&task.kind).with_context(|| format!("no task `{}`", task.kind))?;
    let mut parameters = toml::Table::new();
    parameters.insert("size".into(), (task.size as i64).into());
    parameters.insert("split".into(), "test".into());
    parameters.insert("examples".into(), (task.eval_examples as i64).into());
    parameters.insert("seed".into(), (task.eval_seed as i64).into());
    match task.clues {
        Some((low, high)) => parameters.insert("clues".into(), toml::Value::from(vec![low as i64, high as i64])),
        None => parameters.insert("minimal".into(), true.into()),
    };
    let set = (kind.examples)(&parameters, std::path::Path::new("")).map_err(|e| anyhow!("[task]: {e}"))?;
    Ok(set.examples)
}

fn size(task: &TaskConfig) -> anyhow::Result<Size> {
    Size::from_side(task.size).with_context(|| format!("`task.size` is {}\nhint: 4, 6 or 9", task.size))
}
