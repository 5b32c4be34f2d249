//! The log and the card of a trained model.
//!
//! In: configuration, evaluation, figures of the run. Out: text. Must not: know how training works.

use ergometer_reports::stats::Estimate;
use ergometer_suites::task::ExampleSet;

use super::LEAST_ENTROPY;
use super::config::TrainConfig;
use super::evaluate::{Accuracy, Evaluation};
use crate::backends::Routing;
use crate::graph::cost::Cost;

/// First line of the log.
pub const LOG_HEADER: &str = "step,seconds,flops,learning_rate,loss_cells,loss_halting,train_exact,gradient_norm,\
exact_full,cells_full,exact_halting,cells_halting,steps_halting,n,gflop_per_s,questions_full,questions_halting\n";

/// Means since the last row of the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Means {
    /// Steps summed up.
    pub steps: u64,
    /// Sums of: loss of cells, loss of the halting head, rows right, length of the gradient.
    pub sums: [f64; 4],
}

/// Figures of a run so far.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Optimiser steps.
    pub step: u64,
    /// Seconds, evaluations included.
    pub seconds: f64,
    /// Seconds in optimiser steps.
    pub step_seconds: f64,
    /// FLOPs of the optimiser steps.
    pub flops: f64,
}

impl Figures {
    /// Rate of the optimiser steps.
    pub fn gflop_per_s(&self) -> f64 {
        self.flops / self.step_seconds.max(1e-9) / 1e9
    }
}

/// One row of the log.
pub fn log_row(figures: &Figures, lr: f64, means: &Means, e: &Evaluation) -> String {
    let mean = means.sums.map(|s| s / means.steps.max(1) as f64);
    // empty where the task decides row by row
    let questions = |a: &Accuracy| a.decided.as_ref().map(|d| format!("{:.4}", d.value)).unwrap_or_default();
    format!(
        "{},{:.1},{:.4e},{:.3e},{:.5},{:.5},{:.4},{:.4},{:.4},{:.5},{:.4},{:.5},{:.2},{},{:.2},{},{}\n",
        figures.step,
        figures.seconds,
        figures.flops,
        lr,
        mean[0],
        mean[1],
        mean[2],
        mean[3],
        e.full.exact.value,
        e.full.cells,
        e.halting.exact.value,
        e.halting.cells,
        e.halting.steps,
        e.full.exact.n,
        figures.gflop_per_s(),
        questions(&e.full),
        questions(&e.halting)
    )
}

/// `97.4 % [95.6, 98.5]`
pub fn percent(e: &Estimate) -> String {
    let value = format!("{:.1} %", 100.0 * e.value);
    match &e.interval {
        Ok((low, high)) => format!("{value} [{:.1}, {:.1}]", 100.0 * low, 100.0 * high),
        Err(why) => format!("{value} (no interval: {why})"),
    }
}

/// How experts were chosen on what is held out, a line a mixture.
fn routing(e: &Evaluation) -> String {
    let line = |(i, r): (usize, &Routing)| {
        let sum = r.load.iter().sum::<u64>().max(1) as f64;
        let load: Vec<String> = r.load.iter().map(|&n| format!("{:.1}", 100.0 * n as f64 / sum)).collect();
        let entropy = r.entropy().map_or("–".into(), |v| format!("{v:.3}"));
        format!("| {} | {} | {entropy} |\n", i + 1, load.join(", "))
    };
    if e.routing.is_empty() {
        return String::new();
    }
    let lines: String = e.routing.iter().enumerate().map(line).collect();
    format!(
        "\n## Experts\n\n| mixture | load of each expert, % of the choices | load entropy over its maximum |\n|---|---|---|\n{lines}\n\
        Under {LEAST_ENTROPY} in any mixture the training counts as failed.\n"
    )
}

/// The card: `README.md` of the model folder. `held_out` is what the evaluation is of.
pub fn card(
    name: &str,
    config: &TrainConfig,
    held_out: &ExampleSet,
    cost: &Cost,
    steps: u32,
    figures: &Figures,
    e: &Evaluation,
) -> String {
    let recursive = steps > 1;
    let task = &config.task;
    let decided = e.full.decided.as_ref();
    let row = |rule: &str, a: &Accuracy| {
        let questions = a.decided.as_ref().map(|d| format!(" {} |", percent(d))).unwrap_or_default();
        format!("| {rule} |{questions} {} | {:.2} % | {:.2} |\n", percent(&a.exact), 100.0 * a.cells, a.steps)
    };
    let mut table = match decided {
        Some(_) => "| depth | questions by the official rule, 95 % interval | rows exact, 95 % interval | cells | mean steps |\n|---|---|---|---|---|\n",
        None => "| depth | exact, 95 % interval | cells | mean steps |\n|---|---|---|---|\n",
    }
    .to_owned();
    if recursive {
        table += &row(&format!("all {steps} supervision steps"), &e.full);
        table += &row(&format!("halting, at most {steps}"), &e.halting);
    } else {
        table += &row("one pass", &e.full);
    }
    let parameters: Vec<String> = task.parameters.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let of = if parameters.is_empty() { String::new() } else { format!(" ({})", parameters.join(", ")) };
    let questions = decided.map(|d| format!(" for {} questions", d.n)).unwrap_or_default();
    let baselines: Vec<String> = held_out
        .baselines
        .iter()
        .map(|b| format!("{} {:.1} %", b.name, 100.0 * b.right as f64 / b.of.max(1) as f64))
        .collect();
    let baselines =
        if baselines.is_empty() { String::new() } else { format!("\nWithout a model: {}.\n", baselines.join(", ")) };
    let pool = task.puzzles.map(|n| format!(" drawn from a pool of {n} puzzles")).unwrap_or_default();
    let finished = if figures.step < config.steps {
        format!(" of {} planned: training was not finished, and more of it may help", config.steps)
    } else {
        String::new()
    };
    let warning: String = held_out.notes.iter().map(|note| format!("{} ", note.trim())).collect();
    format!(
        "# {name}\n\n{about}\n\n\
        {params} parameters, {gflop:.4} GFLOP a {unit}. Written by `ergometer train`; `train.toml` is the recipe, `log.csv` its course.\n\n\
        ## Accuracy\n\n\
        {n} held-out examples{questions} of task `{kind}`{of}, test side of its split, seed {seed}: none of them was trained on.\n\
        Evaluated on candle in f32, with the moving average of the weights, which is what the file holds.\n\n\
        {table}\n\
        {method}.\n{baselines}{routing}\n\
        ## Training\n\n\
        {done} optimiser steps{finished}, batch {batch}, examples of the train side{pool}, AdamW at {lr:e}, weight decay {wd}.\n\
        {flops:.3e} FLOPs (forward, and twice the differentiated part for backward) in {minutes:.1} minutes on a CPU with {threads} \
        thread{s}, {rate:.1} GFLOP/s.\n\n\
        ## What it is not\n\n\
        {warning}The net is small and shortly trained: it is here to be measured, not to set a record, and it says nothing about how well \
        its architecture can do.\n",
        about = config.about.trim(),
        params = cost.params_total,
        gflop = cost.flops_steps / 1e9,
        unit = if recursive { "supervision step" } else { "row" },
        n = e.full.exact.n,
        kind = task.kind,
        seed = task.eval_seed,
        method = e.full.official().method,
        routing = routing(e),
        done = figures.step,
        batch = config.batch,
        lr = config.optimiser.lr,
        wd = config.optimiser.weight_decay,
        flops = figures.flops,
        minutes = figures.seconds / 60.0,
        threads = config.threads,
        s = if config.threads == 1 { "" } else { "s" },
        rate = figures.gflop_per_s(),
    )
}
