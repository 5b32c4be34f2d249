//! `ergometer train`: makes a reference model from a training file, with its accuracy as it learns.
//!
//! In: a training file. Out: a model folder with weights, log, recipe and card; while it runs, a checkpoint there. Must not: touch a
//! held-out example in training, or lose more than the steps since the last checkpoint when killed.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use ergometer_files::counted;
use ergometer_suites::task::{ExampleSet, Task};
use rand_chacha::ChaCha8Rng;

use crate::backends::{Backend, Options, Routing, candle::Candle};
use crate::console;
use crate::files::write_atomically;
use crate::graph::cost::Workload;
use crate::models::interface::PortRole;
use crate::models::{Model, ModelError};
use card::{Figures, LOG_HEADER, Means, percent};
use checkpoint::TrainingState;
use config::TrainConfig;
use evaluate::Evaluation;
use net::Trainer;
use optimiser::Optimiser;

mod card;
mod checkpoint;
pub mod config;
mod data;
mod evaluate;
mod loss;
mod net;
mod optimiser;

/// Flags of the command.
#[derive(Clone, Debug, Default)]
pub struct TrainOptions {
    /// Go on from the checkpoint in the model folder.
    pub resume: bool,
    /// `cpu` or nothing.
    pub device: Option<String>,
    /// Instead of the folder that the file names.
    pub out: Option<PathBuf>,
}

/// The net was trained but falls short of `require_accuracy`: exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{reached:.4} of what is held out is right, the file asks for {required}\nhint: train for more steps; the model and its log are in {}", folder.display())]
pub struct TooInaccurate {
    /// Reached at the end.
    pub reached: f64,
    /// Asked for.
    pub required: f64,
    /// Where the model is.
    pub folder: PathBuf,
}

/// Least load entropy of a mixture of experts, over its maximum: below, the router has left experts unused.
pub const LEAST_ENTROPY: f64 = 0.8;

/// Name of the checkpoint in the model's folder.
pub const CHECKPOINT: &str = "checkpoint.safetensors";

/// A router has collapsed: exit code 1.
#[derive(Debug, thiserror::Error)]
#[error(
    "the router of mixture {layer} spreads its tokens at {entropy:.3} of the greatest entropy, {LEAST_ENTROPY} is the least: load {load:?}\nhint: raise `loss.balance`, or train with a lower `optimiser.lr`; the model and its log are in {}", folder.display()
)]
pub struct Collapsed {
    /// From 1, in the order of the graph.
    pub layer: usize,
    /// Load entropy over its maximum.
    pub entropy: f64,
    /// Tokens by expert.
    pub load: Vec<u64>,
    /// Where the model is.
    pub folder: PathBuf,
}

/// Refuses a net one of whose routers has collapsed on what is held out.
fn check_routing(routing: &[Routing], folder: &Path) -> Result<(), Collapsed> {
    for (i, r) in routing.iter().enumerate() {
        if let Some(entropy) = r.entropy().filter(|e| *e < LEAST_ENTROPY) {
            return Err(Collapsed { layer: i + 1, entropy, load: r.load.clone(), folder: folder.into() });
        }
    }
    Ok(())
}

/// Environment variables that this process lacks for the `threads` of a training file: the pools of candle and rayon read them once, at
/// the start, so a command starts itself again with them. Empty if all is well.
pub fn missing_environment(config_path: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
    let (config, _) = TrainConfig::load(config_path)?;
    let wanted = Candle.environment(&Options::f32(config.threads, 1)).into_iter();
    // candle's own pool may be told otherwise: it spins, which does no good on a machine that others use
    let lacks = |(name, value): &(&str, String)| match std::env::var(name) {
        Ok(set) => *name == "RAYON_NUM_THREADS" && set != *value,
        Err(_) => true,
    };
    Ok(wanted.filter(lacks).collect())
}

/// Trains a model. Errors: [`TooInaccurate`], [`Collapsed`], bad files, a loss that is no number any more.
pub fn run(config_path: &Path, options: &TrainOptions) -> anyhow::Result<()> {
    if let Some(device) = options.device.as_deref().filter(|d| *d != "cpu") {
        bail!("no training on `{device}` in this build\nhint: leave `--device` out, or give `--device cpu`");
    }
    let (mut config, text) = TrainConfig::load(config_path)?;
    config.trained_here(config_path)?;
    if let Some(out) = &options.out {
        config.out.clone_from(out);
    }
    // the pool is built once per process; if it is there already it stays as it is
    let _ = rayon::ThreadPoolBuilder::new().num_threads(config.threads).build_global();
    crate::backends::candle::keep_memory(2048);
    let mut job = Job::new(config, text, options.resume).with_context(|| config_path.display().to_string())?;
    let (reached, routing) = job.train()?;
    check_routing(&routing, &job.config.out)?;
    if let Some(required) = job.config.require_accuracy.filter(|r| reached < *r) {
        return Err(TooInaccurate { reached, required, folder: job.config.out.clone() }.into());
    }
    Ok(())
}

struct Job {
    config: TrainConfig,
    text: String,
    model_config: serde_json::Value,
    model: Model,
    trainer: Trainer,
    optimiser: Optimiser,
    task: &'static Task,
    held_out: ExampleSet,
    flops_per_step: f64,
    /// Seconds before this process.
    seconds_before: f64,
    step_seconds: f64,
    log: String,
    started: Instant,
}

impl Job {
    fn new(config: TrainConfig, text: String, resume: bool) -> anyhow::Result<Self> {
        let left = config.out.join(CHECKPOINT);
        // hours of work, which the first checkpoint of a new training would replace
        ensure!(
            resume || left.symlink_metadata().is_err(),
            "{} is of a training that was ended\nhint: `--resume` goes on with it; remove it, or name another folder with `--out`, to begin anew",
            left.display()
        );
        let mut model_config = serde_json::to_value(&config.model).context("[model]")?;
        let model =
            Model::random(&model_config, config.seed).map_err(|e| ModelError { file: "[model]".into(), ..e })?;
        let held_out = data::held_out(&config.task, &config.folder)?;
        crate::compatibility::check(&config.task.kind, &held_out, "[model]", &model.interface, None)?;
        // a table of puzzle embeddings means something with its numbering alone, so the net says which it was trained with
        if let Some(numbering) =
            held_out.numbering.as_ref().filter(|_| model.interface.input(PortRole::PuzzleId).is_some())
        {
            model_config[crate::models::NUMBERING] = numbering.clone().into();
        }
        let source = data::ExampleStream::new(&config.task, config.seed, &model.interface)?;
        let graph = model.graph()?;
        let trainer = Trainer::new(&config, graph, source)?;
        let task = data::kind(&config.task)?;
        let optimiser = Optimiser::new(&graph.params, (*model.params).clone());
        let flops_per_step = net::flops_per_row(graph) * config.batch as f64;
        std::fs::create_dir_all(&config.out).with_context(|| {
            format!("cannot make the folder {}\nhint: name another one with `--out`", config.out.display())
        })?;
        let mut job = Self {
            config,
            text,
            model_config,
            model,
            trainer,
            optimiser,
            task,
            held_out,
            flops_per_step,
            seconds_before: 0.0,
            step_seconds: 0.0,
            log: LOG_HEADER.into(),
            started: Instant::now(),
        };
        if resume {
            job.resume()?;
        }
        console::detail(|| {
            let (c, held_out) = (&job.config, counted(job.held_out.examples.len(), "held-out example"));
            let threads = counted(c.threads, "thread");
            let (from, steps) = (job.optimiser.steps, c.steps);
            format!("train {} of {} rows, {threads}, from step {from} of {steps}; {held_out}", c.task.kind, c.batch)
        });
        Ok(job)
    }

    fn checkpoint_path(&self) -> PathBuf {
        self.config.out.join(CHECKPOINT)
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        let path = self.checkpoint_path();
        let interface = &self.model.interface;
        let (inputs, labels) = (interface.tokens()?.below().unwrap_or(0), interface.logits()?.features);
        let limits = checkpoint::Limits {
            steps: self.config.steps,
            rows: (inputs, labels, data::puzzle_ids(interface)),
            depth: interface.max_steps,
        };
        let progress = checkpoint::load(&path, limits, &mut self.optimiser, &mut self.trainer.batch)?;
        let before: TrainConfig = toml::from_str(&progress.config).with_context(|| {
            format!(
                "{}: the training file that it was made by cannot be read\nhint: remove it, and leave `--resume` out, to start from the beginning",
                path.display()
            )
        })?;
        // steps, evaluations and threads may change, what is learned from what may not
        let (a, b) = (&before, &self.config);
        let same = a.model == b.model && a.task == b.task && a.batch == b.batch && a.seed == b.seed && a.loss == b.loss;
        ensure!(
            same,
            "{}: it was made by a training file with another model, task, batch, seed or loss\nhint: name another folder with `--out`; or remove it, and leave `--resume` out",
            path.display()
        );
        let position: u128 = progress.rng_position.parse().context("the checkpoint's place in the random numbers")?;
        set_position(&mut self.trainer.rng, position);
        self.trainer.source.skip_to(progress.drawn);
        (self.seconds_before, self.step_seconds) = (progress.seconds, progress.step_seconds);
        self.log = progress.log;
        Ok(())
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    fn figures(&self) -> Figures {
        let step = self.optimiser.steps;
        Figures {
            step,
            seconds: self.seconds(),
            step_seconds: self.step_seconds,
            flops: step as f64 * self.flops_per_step,
        }
    }

    /// Trains to the end; gives the accuracy that `require_accuracy` is about, under halting, and how experts were chosen.
    fn train(&mut self) -> anyhow::Result<(f64, Vec<Routing>)> {
        let bar = if std::io::stderr().is_terminal() {
            let style = "{bar:30} {pos}/{len} {elapsed}, {eta} left  {msg}";
            indicatif::ProgressBar::new(self.config.steps).with_style(indicatif::ProgressStyle::with_template(style)?)
        } else {
            indicatif::ProgressBar::hidden()
        };
        bar.set_position(self.optimiser.steps);
        let mut means = Means::default();
        let mut last = None;
        while self.optimiser.steps < self.config.steps {
            let start = Instant::now();
            let lr = self.config.lr(self.optimiser.steps);
            let optimiser = &self.optimiser;
            let (seen, gradients) = self.trainer.step(&optimiser.weights, |i| optimiser.trains(i))?;
            let length = self.optimiser.step(&self.config.optimiser, lr, &gradients);
            self.step_seconds += start.elapsed().as_secs_f64();
            means.steps += 1;
            for (sum, v) in means.sums.iter_mut().zip([seen.cells, seen.halting, seen.exact, length]) {
                *sum += v;
            }
            let step = self.optimiser.steps;
            bar.set_position(step);
            let ends = step == self.config.steps;
            if ends || step.is_multiple_of(self.config.eval_every) {
                let evaluation = self.evaluate()?;
                self.log += &card::log_row(&self.figures(), lr, &means, &evaluation);
                let line = self.summary(&means, &evaluation);
                bar.set_message(line.clone());
                if bar.is_hidden() {
                    console::info(&line);
                }
                means = Means::default();
                self.write_model(&evaluation)?;
                last = Some(evaluation);
            }
            if !ends && step.is_multiple_of(self.config.checkpoint_every) {
                self.save_checkpoint()?;
            }
        }
        bar.finish();
        let evaluation = match last {
            Some(evaluation) => evaluation,
            None => self.evaluate()?,
        };
        self.write_model(&evaluation)?;
        // the model is complete: what was needed to go on is not needed any more
        match std::fs::remove_file(self.checkpoint_path()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).context("the checkpoint"),
            _ => {}
        }
        Ok((evaluation.halting.official().value, evaluation.routing))
    }

    fn evaluate(&self) -> anyhow::Result<Evaluation> {
        let model = Model { params: self.optimiser.average.clone().into(), ..self.model.clone() };
        evaluate::evaluate(&model, self.task, &self.held_out, self.config.threads)
    }

    fn summary(&self, means: &Means, e: &Evaluation) -> String {
        let figures = self.figures();
        let decided = e.halting.decided.as_ref().map(|d| format!(", questions {}", percent(d))).unwrap_or_default();
        format!(
            "step {}: loss {:.4}, held out exact {} cells {:.1} %, halting {:.1} % in {:.1} steps{decided}, {:.0} s, {:.1} GFLOP/s",
            figures.step,
            means.sums[0] / means.steps.max(1) as f64,
            percent(&e.full.exact),
            100.0 * e.full.cells,
            100.0 * e.halting.exact.value,
            e.halting.steps,
            figures.seconds,
            figures.gflop_per_s()
        )
    }

    fn save_checkpoint(&self) -> anyhow::Result<()> {
        let progress = TrainingState {
            step: self.optimiser.steps,
            rng_position: self.trainer.rng.get_word_pos().to_string(),
            drawn: self.trainer.source.drawn(),
            seconds: self.seconds(),
            step_seconds: self.step_seconds,
            log: self.log.clone(),
            config: self.text.clone(),
        };
        checkpoint::save(&self.checkpoint_path(), &progress, &self.optimiser, &self.trainer.batch)
    }

    fn write_model(&self, evaluation: &Evaluation) -> anyhow::Result<()> {
        let (out, graph) = (&self.config.out, self.model.graph()?);
        let mut config = self.model_config.clone();
        config[crate::models::WEIGHTS] = format!("moving average, {} steps", self.optimiser.steps).into();
        Model::save(out, &config, graph, &self.optimiser.average)?;
        write_atomically(&out.join("log.csv"), self.log.as_bytes())?;
        write_atomically(&out.join("train.toml"), self.text.as_bytes())?;
        let name = out.file_name().map_or("model".into(), |n| n.to_string_lossy());
        let cost = graph.cost(&Workload::one());
        let text = card::card(&name, &self.config, &self.held_out, &cost, graph.max_steps, &self.figures(), evaluation);
        write_atomically(&out.join("README.md"), text.as_bytes())
    }
}

fn set_position(rng: &mut ChaCha8Rng, position: u128) {
    rng.set_word_pos(position);
}

#[cfg(test)]
mod tests;
