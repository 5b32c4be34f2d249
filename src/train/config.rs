//! What a training file says.
//!
//! In: TOML text. Out: a checked [`TrainConfig`]. Must not: build a model or make an example.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use ergometer_suites::error::did_you_mean;
use serde::Deserialize;

/// A checked training file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// What the net is for: first paragraph of its card.
    pub about: String,
    /// Folder of the trained model, relative to the file.
    pub out: PathBuf,
    /// Where relative paths of the task start: the file's folder.
    #[serde(skip)]
    pub folder: PathBuf,
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
    /// Share that must be right in the end under halting, or the command fails: of the held-out questions where the task decides them
    /// from several rows, else of the held-out examples.
    pub require_accuracy: Option<f64>,
    /// Fields of the model's `config.json`.
    pub model: toml::Table,
    /// What is learned.
    pub task: TaskConfig,
    /// Learning rate and its kin.
    pub optimiser: OptimiserConfig,
    /// What is minimised.
    #[serde(default)]
    pub loss: LossConfig,
    /// What the trainer for a GPU alone knows (`ci/train/`): such a file is read here, and not trained.
    pub torch: Option<toml::Table>,
}

/// `[task]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TaskConfig {
    /// Kind of task, as in a suite.
    pub kind: String,
    /// Held-out examples.
    pub eval_examples: u32,
    /// Seed of the held-out examples.
    #[serde(default)]
    pub eval_seed: u32,
    /// Size of the pool that training examples are drawn from, for tasks that have one.
    pub puzzles: Option<u32>,
    /// Everything else: the task's own parameters, as in a suite.
    #[serde(flatten)]
    pub parameters: toml::Table,
}

/// `[optimiser]`: AdamW.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimiserConfig {
    /// Learning rate after warm-up.
    pub lr: f64,
    /// That of the table of puzzle embeddings, which sees each row far less often; the same without it.
    pub puzzle_lr: Option<f64>,
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
#[serde(default)]
pub struct LossConfig {
    /// Of the cells.
    pub cells: CellLoss,
    /// Weight of the halting head's loss.
    pub halting: f64,
    /// Probability that a row has to go on for a random number of steps whatever its halting head says.
    pub exploration: f64,
    /// Weight of the load-balancing loss of mixtures of experts; without effect on nets that have none.
    pub balance: f64,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self { cells: CellLoss::Stablemax, halting: 0.5, exploration: 0.1, balance: 0.01 }
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

/// What a file that is no training file could be instead.
fn meant(text: &str) -> &'static str {
    match text.parse::<toml::Table>() {
        Ok(table) if table.contains_key("cases") => "it is a suite: `ergometer run` takes it",
        Ok(table) if table.contains_key("package") => "it is a manifest of cargo; name a training file",
        Ok(_) => "the keys of a training file are those of the files in suites/train/",
        Err(_) => "it must be TOML; the shipped training files are in suites/train/",
    }
}

impl TrainConfig {
    /// Reads and checks a training file; gives its text too.
    pub fn load(path: &Path) -> anyhow::Result<(TrainConfig, String)> {
        let text = ergometer_suites::text::read_text(path, 1 << 20).map_err(|e| match e.hint {
            Some(_) => e,
            None => e.hint("name a training file (TOML); those of the shipped nets are in suites/train/"),
        })?;
        let mut config: TrainConfig = toml::from_str(&text).map_err(|e| {
            let line = e.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let place = line.map_or_else(String::new, |line| format!("line {line}: "));
            anyhow!(
                "{}: {place}{}\nhint: {}",
                path.display(),
                e.message().chars().take(400).collect::<String>().trim_end().replace('\n', ", "),
                meant(&text)
            )
        })?;
        config.check().with_context(|| format!("{}\nhint: {}", path.display(), meant("")))?;
        config.folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        config.out = config.folder.join(&config.out);
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
        within("task.eval_examples", f64::from(self.task.eval_examples), 1.0, 1e6)?;
        let o = &self.optimiser;
        within("optimiser.lr", o.lr, 0.0, 10.0)?;
        within("optimiser.puzzle_lr", o.puzzle_lr.unwrap_or(0.0), 0.0, 10.0)?;
        within("optimiser.final_share", o.final_share, 0.0, 1.0)?;
        within("optimiser.weight_decay", o.weight_decay, 0.0, 100.0)?;
        within("optimiser.betas", o.betas.0, 0.0, 0.999_999)?;
        within("optimiser.betas", o.betas.1, 0.0, 0.999_999)?;
        within("optimiser.ema", o.ema, 0.0, 0.999_999)?;
        within("optimiser.clip", o.clip.unwrap_or(1.0), 1e-9, 1e9)?;
        within("loss.halting", self.loss.halting, 0.0, 100.0)?;
        within("loss.exploration", self.loss.exploration, 0.0, 1.0)?;
        within("require_accuracy", self.require_accuracy.unwrap_or(0.0), 0.0, 1.0)?;
        let trainable = || ergometer_suites::TASKS.iter().filter(|t| t.training.is_some()).map(|t| t.name);
        if !trainable().any(|name| name == self.task.kind) {
            let (meant, known) =
                (did_you_mean(&self.task.kind, trainable()), trainable().collect::<Vec<_>>().join(", "));
            bail!("`task.kind` is `{}`{meant}\nhint: nets are trained on {known}", self.task.kind);
        }
        for (key, instead) in [("examples", "eval_examples"), ("seed", "eval_seed"), ("split", "nothing")] {
            ensure!(
                !self.task.parameters.contains_key(key),
                "`task.{key}` is the trainer's to choose: it holds out the side `test`\nhint: write `{instead}`"
            );
        }
        Ok(())
    }

    /// Refuses a file whose recipe is another trainer's: what came out would be another net under its name.
    pub fn trained_here(&self, path: &Path) -> anyhow::Result<()> {
        ensure!(
            self.torch.is_none(),
            "{}: it has a table `[torch]`: its recipe is for the trainer on a GPU\n\
             hint: `python3 ci/train/train.py {} --data TRAIN --eval TEST --seconds N --out FOLDER`, or take the table out",
            path.display(),
            path.display()
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_training_file_is_read_and_those_for_a_gpu_are_not_trained() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/train");
        let (mut here, mut elsewhere) = (0, 0);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "toml") {
                continue;
            }
            let (config, _) = TrainConfig::load(&path).unwrap();
            crate::models::build_graph(&serde_json::to_value(&config.model).unwrap()).unwrap();
            match config.trained_here(&path) {
                Ok(()) => here += 1,
                Err(e) => {
                    assert!(e.to_string().contains("ci/train/train.py"), "{e}");
                    elsewhere += 1;
                }
            }
        }
        assert!(here >= 8 && elsewhere >= 5, "{here}, {elsewhere}");
    }
}
