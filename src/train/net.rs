//! One optimiser step: a batch of examples, one supervision step of the net, its loss, its gradients.
//!
//! In: a [`ExampleStream`], the optimiser's weights. Out: gradients and what the step saw. Must not: move weights or write files.
//!
//! Deep supervision as the released TRM does it: every row keeps its states from step to step (detached); a row that halted is given a
//! fresh example and fresh states before the next step. A net without states gets fresh examples every step.

use anyhow::ensure;
use candle_core::{Device, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::config::{LossConfig, TrainConfig};
use super::data::ExampleStream;
use super::loss::losses;
use crate::backends::Routing;
use crate::backends::candle::{
    initial_states,
    lower::{Lowering, MixtureRun},
};
use crate::graph::cost::Workload;
use crate::graph::{Graph, Halting, Op, Region, op};
use crate::models::interface::{Feeds, Interface, Reads};

/// The rows in training.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `[rows, cells]`
    pub inputs: Vec<u32>,
    /// `[rows, cells]`
    pub labels: Vec<u32>,
    /// `[rows]`
    pub puzzle_ids: Vec<u32>,
    /// `states[i]`: `[rows, tokens, features]` of the graph's `i`-th state.
    pub states: Vec<Vec<f32>>,
    /// Supervision steps that each row has had; 0: a fresh example is due.
    pub steps: Vec<u32>,
}

/// What a step saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepLoss {
    /// Loss of the cells.
    pub cells: f64,
    /// Loss of the halting head.
    pub halting: f64,
    /// Share of rows that are wholly right.
    pub exact: f64,
}

/// A net in training.
pub struct Trainer {
    lowering: Lowering,
    feeds: Feeds,
    reads: Reads,
    loss: LossConfig,
    rows: usize,
    /// Where examples come from.
    pub source: ExampleStream,
    /// Everything random after the start but the examples.
    pub rng: ChaCha8Rng,
    /// The rows.
    pub batch: Batch,
}

impl Trainer {
    /// Errors: a graph that cannot be trained here.
    pub fn new(config: &TrainConfig, graph: &Graph, source: ExampleStream) -> anyhow::Result<Self> {
        ensure!(
            graph.halting != Halting::OverContinue,
            "an HRM's continue head needs a target from the next step, which is not made here\nhint: train a `trm` or an `encoder`"
        );
        let interface = Interface::of_graph(graph);
        let (feeds, reads) = (interface.feeds()?, interface.reads()?);
        let (cells, logits) = (interface.tokens()?.row()?.most(), interface.logits()?.row()?.most());
        let lowering = Lowering::new(graph).map_err(|what| anyhow::anyhow!("{what} is not lowered to candle"))?;
        let rows = config.batch;
        let batch = Batch {
            inputs: vec![0; rows * cells],
            labels: vec![0; rows * (logits / reads.vocabulary)],
            puzzle_ids: vec![0; rows],
            states: graph.states.iter().map(|s| vec![0.0; rows * s.ty.elements()]).collect(),
            steps: vec![0; rows],
        };
        let rng = ChaCha8Rng::seed_from_u64(config.seed ^ 0x6861_6c74);
        Ok(Self { lowering, feeds, reads, loss: config.loss, rows, source, rng, batch })
    }

    /// Gives halted rows a fresh example and fresh states.
    fn refill(&mut self, params: &[Tensor]) -> anyhow::Result<()> {
        let fresh = initial_states(&self.lowering, params, 1)?;
        let fresh = fresh.iter().map(|t| t.flatten_all()?.to_vec1::<f32>()).collect::<candle_core::Result<Vec<_>>>()?;
        let (cells, labels) = (self.batch.inputs.len() / self.rows, self.batch.labels.len() / self.rows);
        for row in 0..self.rows {
            if self.batch.steps[row] > 0 {
                continue;
            }
            let example = self.source.draw()?;
            self.batch.inputs[row * cells..(row + 1) * cells].copy_from_slice(&example.tokens);
            self.batch.labels[row * labels..(row + 1) * labels].copy_from_slice(example.answer.tokens());
            self.batch.puzzle_ids[row] = example.puzzle_id;
            for (state, fresh) in self.batch.states.iter_mut().zip(&fresh) {
                state[row * fresh.len()..(row + 1) * fresh.len()].copy_from_slice(fresh);
            }
        }
        Ok(())
    }

    /// One supervision step of the batch; the gradient of parameter `i` is empty where it has none.
    pub fn step(
        &mut self,
        weights: &[Vec<f32>],
        trains: impl Fn(usize) -> bool,
    ) -> anyhow::Result<(StepLoss, Vec<Vec<f32>>)> {
        let graph = self.lowering.graph();
        let params = graph.params.iter().zip(weights).enumerate().map(|(i, (p, values))| {
            let shape = p.shape.as_slice();
            if trains(i) {
                Ok(Var::from_slice(values, shape, &Device::Cpu)?.into_inner())
            } else {
                Tensor::from_slice(values, shape, &Device::Cpu)
            }
        });
        let params = params.collect::<candle_core::Result<Vec<Tensor>>>()?;
        self.refill(&params)?;
        let graph = self.lowering.graph();
        let inputs = self.feeds.with(&self.batch.inputs, &self.batch.puzzle_ids);
        let tensor = |values: &&[u32]| Tensor::from_slice(values, (self.rows, values.len() / self.rows), &Device::Cpu);
        let inputs = inputs.iter().map(tensor).collect::<candle_core::Result<Vec<Tensor>>>()?;
        let residents = self.lowering.run(&graph.admit, &params, inputs)?;
        let mut args = Vec::new();
        for (state, values) in graph.states.iter().zip(&self.batch.states) {
            let shape = (self.rows, state.ty.tokens_at(0), state.ty.features);
            args.push(Tensor::from_slice(values, shape, &Device::Cpu)?);
        }
        args.extend(residents);
        self.lowering.watch(self.loss.balance > 0.0);
        let mut states = self.lowering.run(&graph.step, &params, args)?;
        let outputs = states.split_off(graph.states.len());
        let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        let halting = self.reads.halting.map(|i| &outputs[i]);
        let logits = flat(&outputs[self.reads.logits])?;
        let q = halting.map(flat).transpose()?.unwrap_or_default();
        let outcome = losses(&self.loss, self.batch.labels.len() / self.rows, &logits, &q, &self.batch.labels);
        ensure!(
            outcome.cells.is_finite() && outcome.halting.is_finite(),
            "the loss is not a number any more\nhint: lower `optimiser.lr`, or set `optimiser.clip`"
        );

        // a scalar whose gradient by the outputs is the one that the losses gave
        let times = |t: &Tensor, g: Vec<f32>| (t * Tensor::from_vec(g, t.shape(), &Device::Cpu)?)?.sum_all();
        let mut scalar = times(&outputs[self.reads.logits], outcome.by_logits)?;
        if let Some(q) = halting {
            scalar = (scalar + times(q, outcome.by_q)?)?;
        }
        for mixture in self.lowering.seen() {
            scalar = (scalar + balance(&mixture)?.affine(self.loss.balance, 0.0)?)?;
        }
        let grads = scalar.backward()?;
        let gradient = |p: &Tensor| grads.get(p).map(flat).transpose().map(Option::unwrap_or_default);
        let gradients = params.iter().map(gradient).collect::<candle_core::Result<Vec<_>>>()?;

        for (kept, new) in self.batch.states.iter_mut().zip(&states) {
            *kept = flat(new)?;
        }
        let exact = outcome.exact.iter().filter(|e| **e).count() as f64 / self.rows as f64;
        self.halt(&q);
        Ok((StepLoss { cells: outcome.cells, halting: outcome.halting, exact }, gradients))
    }

    /// Counts the step; halted rows go back to 0.
    fn halt(&mut self, q: &[f32]) {
        let most = self.lowering.graph().max_steps;
        for row in 0..self.rows {
            let steps = self.batch.steps[row] + 1;
            let explores = most > 1 && self.rng.random::<f64>() < self.loss.exploration;
            let least = if explores { self.rng.random_range(2..=most) } else { 0 };
            let says_halt = q.get(row * 2).is_some_and(|&q| q > 0.0) && steps >= least;
            self.batch.steps[row] = if steps >= most || says_halt { 0 } else { steps };
        }
    }
}

/// The load-balancing loss of the Switch Transformer (Fedus et al., arXiv 2101.03961, equation 4): experts · Σ f·P over the experts, with f
/// the share of choices that fell on one (not differentiated) and P the router's mean probability for it. 1 where all are alike.
fn balance(mixture: &MixtureRun) -> candle_core::Result<Tensor> {
    let (tokens, experts) = mixture.scores.dims2()?;
    let mut routing = Routing::new(experts);
    routing.count(&mixture.values, mixture.top_k);
    let choices = (tokens * mixture.top_k) as f32;
    let shares: Vec<f32> = routing.load.iter().map(|&n| n as f32 / choices).collect();
    let shares = Tensor::from_vec(shares, (1, experts), &Device::Cpu)?;
    let scores = &mixture.scores;
    let weights = scores.broadcast_sub(&scores.max_keepdim(1)?.detach())?.exp()?;
    let probabilities = weights.broadcast_div(&weights.sum_keepdim(1)?)?;
    probabilities.broadcast_mul(&shares)?.sum_all()?.affine(experts as f64 / tokens as f64, 0.0)
}

/// FLOPs of one row of an optimiser step: forward, and twice the part that is differentiated for backward.
pub fn flops_per_row(graph: &Graph) -> f64 {
    fn last_only(region: &Region) -> Region {
        let mut region = region.clone();
        for node in &mut region.nodes {
            if let Op::Repeat(op::Repeat { times, body, last_gradient_only, .. }) = &mut node.op {
                **body = last_only(body);
                if *last_gradient_only {
                    *times = 1;
                }
            }
        }
        region
    }
    let forward = graph.cost(&Workload::one()).flops_steps;
    let differentiated = Graph { step: last_only(&graph.step), ..graph.clone() };
    forward + 2.0 * differentiated.cost(&Workload::one()).flops_steps
}
