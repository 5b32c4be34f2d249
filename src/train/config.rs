//! What a training file says.
//!
//! In: TOML text. Out: a checked [`TrainConfig`]. Must not: build a model or make a puzzle.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// A checked training file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// What the net is for: first paragraph of its card.
    pub about: String,
    /// Folder of the trained model, relative to the file.
    pub out: PathBuf,
    /// Optimiser steps.
    pub steps: u64,
    /// Rows of a step.
    pub batch: usize,
    /// Seeds weights and data.
    #[serde(default)]
    pub seed: u64,
    /// Compute threads.
    #[serde(default = "one")]
    pub threads: usize,
    /// Steps between evaluations.
    pub eval_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Share of held-out puzzles that must be exactly right in the end (at the depth rule of the card), or the command fails.
    pub require_accuracy: Option<f64>,
    /// Fields of the model's `config.json`.
    pub model: toml::Table,
    /// Puzzles.
    pub task: TaskConfig,
    /// Learning rate and its kin.
    pub optimiser: OptimiserConfig,
    /// What is minimised.
    #[serde(default)]
    pub loss: LossConfig,
}

/// `[task]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// `sudoku`
    pub kind: String,
    /// Side of the board: 4, 6 or 9.
    pub size: usize,
    /// Fewest and most clues; minimal puzzles without it.
    pub clues: Option<(usize, usize)>,
    /// Puzzles of the train side to draw from, each drawn as a random symmetric copy.
    pub puzzles: usize,
    /// Held-out puzzles.
    pub eval_examples: usize,
    /// Seed of the held-out puzzles.
    #[serde(default)]
    pub eval_seed: u64,
}

/// `[optimiser]`: AdamW.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimiserConfig {
    /// Learning rate after warm-up.
    pub lr: f64,
    /// Steps of linear warm-up.
    #[serde(default)]
    pub warmup: u64,
    /// Share of the learning rate that a cosine falls to at the last step; 1 keeps it.
    #[serde(default = "whole")]
    pub final_share: f64,
    /// Decay of the running means of gradient and squared gradient.
    #[serde(default = "betas")]
    pub betas: (f64, f64),
    /// Decoupled weight decay, of matrices that are no embeddings.
    #[serde(default)]
    pub weight_decay: f64,
    /// The gradient is scaled down to at most this length.
    pub clip: Option<f64>,
    /// Decay of the moving average of the weights, which is what is evaluated and saved.
    #[serde(default = "ema")]
    pub ema: f64,
}

/// `[loss]`
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// Of the cells.
    pub cells: CellLoss,
    /// Weight of the halting head's loss.
    pub halting: f64,
    /// Probability that a row has to go on for a random number of steps whatever its halting head says.
    pub exploration: f64,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self { cells: CellLoss::Stablemax, halting: 0.5, exploration: 0.1 }
    }
}

/// Cross entropy by which probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellLoss {
    /// s(v) / Σ s, s(v) = v + 1 above 0 and 1 / (1 − v) below (Prieto et al., arXiv 2501.04697), as the released TRM.
    Stablemax,
    /// The usual one.
    Softmax,
}

fn one() -> usize {
    1
}
fn whole() -> f64 {
    1.0
}
fn betas() -> (f64, f64) {
    (0.9, 0.95)
}
fn ema() -> f64 {
    0.999
}

impl TrainConfig {
    /// Reads and checks a training file; gives its text too.
    pub fn load(path: &Path) -> anyhow::Result<(TrainConfig, String)> {
        let bytes = crate::models::read_capped(path, 1 << 20).context("hint: give the path of a training file")?;
        let text = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text", path.display()))?;
        let mut config: TrainConfig = toml::from_str(&text).with_context(|| path.display().to_string())?;
        config.check().with_context(|| path.display().to_string())?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.out = folder.join(&config.out);
        Ok((config, text))
    }

    fn check(&self) -> anyhow::Result<()> {
        let within = |name: &str, value: f64, from: f64, to: f64| {
            ensure!((from..=to).contains(&value), "`{name}` is {value}; it must lie between {from} and {to}");
            Ok(())
        };
        within("steps", self.steps as f64, 1.0, 1e9)?;
        within("batch", self.batch as f64, 1.0, 65_536.0)?;
        within("threads", self.threads as f64, 1.0, 1024.0)?;
        within("eval_every", self.eval_every as f64, 1.0, 1e9)?;
        within("checkpoint_every", self.checkpoint_every as f64, 1.0, 1e9)?;
        within("task.puzzles", self.task.puzzles as f64, 1.0, 1e6)?;
        within("task.eval_examples", self.task.eval_examples as f64, 1.0, 1e6)?;
        let o = &self.optimiser;
        within("optimiser.lr", o.lr, 0.0, 10.0)?;
        within("optimiser.final_share", o.final_share, 0.0, 1.0)?;
        within("optimiser.weight_decay", o.weight_decay, 0.0, 100.0)?;
        within("optimiser.betas", o.betas.0, 0.0, 0.999_999)?;
        within("optimiser.betas", o.betas.1, 0.0, 0.999_999)?;
        within("optimiser.ema", o.ema, 0.0, 0.999_999)?;
        within("optimiser.clip", o.clip.unwrap_or(1.0), 1e-9, 1e9)?;
        within("loss.halting", self.loss.halting, 0.0, 100.0)?;
        within("loss.exploration", self.loss.exploration, 0.0, 1.0)?;
        within("require_accuracy", self.require_accuracy.unwrap_or(0.0), 0.0, 1.0)?;
        if self.task.kind != "sudoku" {
            bail!("`task.kind` is `{}`\nhint: nets are trained on `sudoku`", self.task.kind);
        }
        Ok(())
    }

    /// The learning rate of a step, counting from 0.
    pub fn lr(&self, step: u64) -> f64 {
        let o = &self.optimiser;
        if step < o.warmup {
            return o.lr * (step + 1) as f64 / o.warmup as f64;
        }
        let progress = (step - o.warmup) as f64 / (self.steps - o.warmup.min(self.steps)).max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos());
        o.lr * (o.final_share + (1.0 - o.final_share) * cosine)
    }
}
