//! Accuracy on held-out puzzles, at full depth and under halting, from one run.
//!
//! In: weights, examples. Out: an [`Evaluation`]. Must not: train, or score by itself: the task scores.

use std::collections::BTreeMap;

use anyhow::Context;
use ergometer_reports::stats::{Estimate, proportion::share};
use ergometer_suites::task::Example;

use crate::backends::session::{Rule, Session, argmax};
use crate::backends::{Backend, Options, candle::Candle};
use crate::graph::Halting;
use crate::models::Model;

const ROWS: usize = 128;

/// Accuracy under one depth rule.
#[derive(Clone, Debug)]
pub struct Accuracy {
    /// Share of puzzles whose every cell is right.
    pub exact: Estimate,
    /// Share of right cells.
    pub cells: f64,
    /// Mean supervision steps.
    pub steps: f64,
}

/// Accuracy of a net.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// After all steps.
    pub full: Accuracy,
    /// At the first step where the halting head says so; equal to `full` for nets without one.
    pub halting: Accuracy,
}

#[derive(Default)]
struct Tally {
    clusters: BTreeMap<u64, (u64, u64)>,
    right: u64,
    cells: u64,
    steps: u64,
}

impl Tally {
    fn add(&mut self, task: &str, example: &Example, answer: &[u32], steps: u32) -> anyhow::Result<()> {
        let task = ergometer_suites::task(task).with_context(|| format!("no task `{task}`"))?;
        let score = (task.score)(example, answer);
        let cluster = self.clusters.entry(example.cluster).or_default();
        cluster.0 += u64::from(score.exact);
        cluster.1 += 1;
        self.right += u64::from(score.right);
        self.cells += u64::from(score.cells);
        self.steps += u64::from(steps);
        Ok(())
    }

    fn accuracy(self) -> anyhow::Result<Accuracy> {
        let clusters: Vec<(u64, u64)> = self.clusters.into_values().collect();
        let alone = clusters.iter().all(|c| c.1 == 1);
        let exact = share(&clusters, alone).context("no held-out puzzle")?;
        let n = exact.n as f64;
        Ok(Accuracy { exact, cells: self.right as f64 / self.cells as f64, steps: self.steps as f64 / n })
    }
}

/// Runs the net on all examples.
pub fn evaluate(model: &Model, task: &str, examples: &[Example], threads: usize) -> anyhow::Result<Evaluation> {
    let graph = &model.graph;
    let mut session = Session::new(Candle.load(model, &Options::f32(threads, ROWS))?, graph, ROWS);
    let (mut full, mut halting) = (Tally::default(), Tally::default());
    let tokens = graph.outputs[0].ty.features;
    for part in examples.chunks(ROWS) {
        let slots: Vec<usize> = (0..part.len()).collect();
        session.retain(&[])?;
        let inputs: Vec<u32> = part.iter().flat_map(|e| e.tokens.iter().copied()).collect();
        let ids: Vec<u32> = part.iter().map(|e| e.puzzle_id).collect();
        let both = [inputs.as_slice(), ids.as_slice()];
        session.admit(&slots, &both[..graph.inputs.len()])?;
        let mut halted = vec![graph.halting == Halting::Never; part.len()];
        for step in 1..=graph.max_steps {
            session.advance(1, Rule::Fixed)?;
            let last = step == graph.max_steps;
            for (slot, example) in part.iter().enumerate() {
                let stops = !halted[slot] && (last || session.output(1, slot)[0] > 0.0);
                if !stops && !last {
                    continue;
                }
                let answer: Vec<u32> = session.output(0, slot).chunks_exact(tokens).map(argmax).collect();
                if stops {
                    halted[slot] = true;
                    halting.add(task, example, &answer, step)?;
                }
                if last {
                    full.add(task, example, &answer, step)?;
                    if graph.halting == Halting::Never {
                        halting.add(task, example, &answer, step)?;
                    }
                }
            }
        }
    }
    Ok(Evaluation { full: full.accuracy()?, halting: halting.accuracy()? })
}
