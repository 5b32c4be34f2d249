//! What a graph costs: parameters, FLOPs, bytes, as functions of batch, length and depth.
//!
//! In: a [`Graph`] and a [`Workload`]. Out: [`Cost`]. Must not: know a backend; what a backend really executes (padding, all experts)
//! is its own to report.
//!
//! FLOPs are those of contractions, two per multiply-add: matrix products, attention scores and their weighted sums. Norms, softmax,
//! activations and additions are left out, as in published counts (they are under 1 % at the sizes of interest, and how many
//! operations an exponential is has no answer).

use std::collections::BTreeSet;

use super::op::{Costing, Shapes};
use super::{Graph, Kind, Node, ParamId, Region, Role, ValueType};

/// How much is asked of the graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// Rows.
    pub batch: usize,
    /// Tokens of this call's input, for graphs whose length is open.
    pub length: usize,
    /// Tokens already in the caches (language models).
    pub past: usize,
    /// Steps.
    pub steps: u32,
    /// Bytes per weight element.
    pub weight_bytes: f64,
    /// Bytes per activation and state element.
    pub value_bytes: f64,
}

impl Workload {
    /// One row, one step, four bytes an element.
    pub fn one() -> Self {
        Self { batch: 1, length: 0, past: 0, steps: 1, weight_bytes: 4.0, value_bytes: 4.0 }
    }
}

/// The costs of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Parameters, puzzle table and buffers left out.
    pub params_total: u64,
    /// Parameters that take part in one token's way through the net.
    pub params_active: u64,
    /// FLOPs of admission, all rows.
    pub flops_admit: f64,
    /// FLOPs of all steps, all rows.
    pub flops_steps: f64,
    /// Bytes that the steps move if every operator reads its inputs and weights and writes its results once (no fusion, no cache).
    pub bytes_steps: f64,
    /// Bytes of the weights that a step uses, each counted once however often the step comes back to it; all experts of a mixture.
    pub step_weight_bytes: f64,
    /// Bytes that the operators of one step read as inputs and write as results, all rows, weights left out.
    pub step_value_bytes: f64,
    /// Bytes of all weights.
    pub weight_bytes: f64,
    /// Bytes of resident states and residents, all rows.
    pub state_bytes: f64,
}

impl Graph {
    /// Costs of a workload.
    pub fn cost(&self, w: &Workload) -> Cost {
        let mut cost = Cost::default();
        for (i, p) in self.params.iter().enumerate().filter(|(_, p)| p.role == Role::Weight) {
            let n = p.elements() as u64;
            cost.params_total += n;
            cost.params_active += (n as f64 * self.active_share(ParamId(i))).round() as u64;
        }
        let stored: usize = self.params.iter().map(|p| p.elements()).sum();
        cost.weight_bytes = stored as f64 * w.weight_bytes;
        let batch = w.batch as f64;
        let steps = f64::from(w.steps);
        cost.flops_admit = batch * region_flops(self, &self.admit, w);
        cost.flops_steps = batch * steps * region_flops(self, &self.step, w);
        cost.bytes_steps = steps * region_bytes(self, &self.step, w, w.weight_bytes);
        let mut used = BTreeSet::new();
        weights_of(&self.step, &mut used);
        let elements: usize = used.iter().map(|p| self.params[p.0].elements()).sum();
        cost.step_weight_bytes = elements as f64 * w.weight_bytes;
        cost.step_value_bytes = region_bytes(self, &self.step, w, 0.0);
        let residents = self.admit.results.iter().map(|&r| self.admit.ty(r)).filter(|t| t.kind == Kind::Float);
        let elements: usize = self.states.iter().map(|s| s.ty).chain(residents).map(|t| t.elements_at(w.length)).sum();
        cost.state_bytes = batch * elements as f64 * w.value_bytes;
        cost
    }

    /// Share of a parameter that one token uses: below 1 only for experts.
    fn active_share(&self, param: ParamId) -> f64 {
        fn look(region: &Region, param: ParamId, graph: &Graph) -> f64 {
            let share = |node: &Node| match node.op.operator().body() {
                Some((body, _)) => look(body, param, graph),
                None => node.op.operator().active_share(param, &Shapes(&graph.params)),
            };
            region.nodes.iter().map(share).fold(1.0, f64::min)
        }
        look(&self.step, param, self).min(look(&self.admit, param, self))
    }
}

/// FLOPs of one pass over one row.
fn region_flops(graph: &Graph, region: &Region, w: &Workload) -> f64 {
    let flops = |node: &Node| {
        if let Some((body, times)) = node.op.operator().body() {
            return times as f64 * region_flops(graph, body, w);
        }
        let x = region.ty(node.inputs[0]);
        let (tokens, past) = (x.tokens_at(w.length) as f64, w.past as f64);
        node.op.operator().flops(&Costing { shapes: Shapes(&graph.params), x, tokens, past })
    };
    region.nodes.iter().map(flops).sum()
}

/// Parameters that a region computes with.
fn weights_of(region: &Region, used: &mut BTreeSet<ParamId>) {
    for node in &region.nodes {
        match node.op.operator().body() {
            Some((body, _)) => weights_of(body, used),
            None => used.extend(node.op.operator().whole_params()),
        }
    }
}

/// Bytes of one pass over all rows, weights read once per use at so many bytes an element.
fn region_bytes(graph: &Graph, region: &Region, w: &Workload, weight_bytes: f64) -> f64 {
    let value = |t: ValueType| w.batch as f64 * t.elements_at(w.length) as f64 * w.value_bytes;
    let bytes = |node: &Node| {
        if let Some((body, times)) = node.op.operator().body() {
            return times as f64 * region_bytes(graph, body, w, weight_bytes);
        }
        let weights: usize = node.op.operator().whole_params().iter().map(|p| graph.params[p.0].elements()).sum();
        let read: f64 = node.inputs.iter().map(|&v| value(region.ty(v))).sum();
        weights as f64 * weight_bytes + read + value(region.ty(node.first))
    };
    region.nodes.iter().map(bytes).sum()
}
