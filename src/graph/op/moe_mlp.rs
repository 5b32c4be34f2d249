//! Routed experts.

use super::super::interpreter::Interpreter;
use super::super::product::softmax;
use super::super::tensor::Tensor;
use super::super::{Graph, Op, ParamId, ValueType};
use super::{Activation, Costing, Operator, Shapes, gated_mlp, one};

/// A gated MLP per expert; each token goes to the `top_k` experts that the router scores highest, weighted by the softmax over the chosen
/// ones (Mixtral's rule, arXiv 2401.04088, section 2.1).
#[derive(Clone, Debug, PartialEq)]
pub struct MoeMlp {
    /// `[experts, n]`
    pub router: ParamId,
    /// `[experts, 2·inner, n]`
    pub gate_up: ParamId,
    /// `[experts, n, inner]`
    pub down: ParamId,
    /// On the gate.
    pub act: Activation,
    /// Experts per token.
    pub top_k: usize,
}

impl Graph {
    /// Experts that a token of a step meets in each mixture, where there are some: they have the same number.
    pub fn active_experts(&self) -> Option<usize> {
        self.mixtures().first().map(|(_, top_k)| *top_k)
    }

    /// Lets it meet so many; false, and nothing is changed: there is no mixture, or one that has not so many.
    pub fn activate_experts(&mut self, top_k: usize) -> bool {
        let Self { step, params, .. } = self;
        let mixtures = step.nodes.iter_mut().filter_map(|node| match &mut node.op {
            Op::MoeMlp(mixture) => Some(mixture),
            _ => None,
        });
        let mut mixtures: Vec<&mut MoeMlp> = mixtures.collect();
        let there = |m: &&mut MoeMlp| (1..=params[m.router.0].shape[0]).contains(&top_k);
        if mixtures.is_empty() || !mixtures.iter().all(there) {
            return false;
        }
        mixtures.iter_mut().for_each(|m| m.top_k = top_k);
        true
    }
}

impl MoeMlp {
    /// Share of the experts that a token goes to.
    fn share(&self, shapes: &Shapes) -> f64 {
        self.top_k as f64 / shapes.0[self.router.0].shape[0] as f64
    }
}

impl Operator for MoeMlp {
    fn name(&self) -> &'static str {
        "moe_mlp"
    }

    fn results(&self, shapes: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        let (experts, n) = (shapes.axes(self.router, 2)?[0], x[0].features);
        let inner = shapes.axes(self.down, 3)?[2];
        shapes.expect(self.router, &[experts, n])?;
        shapes.expect(self.gate_up, &[experts, 2 * inner, n])?;
        shapes.expect(self.down, &[experts, n, inner])?;
        if self.top_k == 0 || self.top_k > experts {
            return Err(format!("top {} of {experts} experts", self.top_k));
        }
        Ok(x.to_vec())
    }

    fn params(&self) -> Vec<ParamId> {
        vec![self.router, self.gate_up, self.down]
    }

    fn active_share(&self, param: ParamId, shapes: &Shapes) -> f64 {
        if param == self.gate_up || param == self.down { self.share(shapes) } else { 1.0 }
    }

    fn flops(&self, at: &Costing) -> f64 {
        let elements = |p| at.shapes.elements(p);
        let experts = self.share(&at.shapes) * (elements(self.gate_up) + elements(self.down));
        2.0 * at.tokens * (elements(self.router) + experts)
    }

    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        let x = x[0];
        let scores = run.linear(&x.data, self.router, None);
        let (gate_up, down) = (run.param(self.gate_up), run.param(self.down));
        let experts = run.shape(self.router)[0];
        let (g, d) = (gate_up.len() / experts, down.len() / experts);
        // by token the weight of each expert, 0 for those that it does not go to
        let weights: Vec<Vec<f64>> = scores.chunks_exact(experts).map(|s| routed(s, self.top_k)).collect();
        let mut sum = vec![0.0; x.data.len()];
        for e in 0..experts {
            let sent: Vec<usize> = (0..weights.len()).filter(|&t| weights[t][e] != 0.0).collect();
            let rows: Vec<f64> = sent.iter().flat_map(|&t| &x.data[t * x.features..][..x.features]).copied().collect();
            let (gate_up, down) = (&gate_up[e * g..][..g], &down[e * d..][..d]);
            let y = gated_mlp::gated(&rows, x.features, gate_up, down, self.act, run.threads());
            for (&t, y) in sent.iter().zip(y.chunks_exact(x.features)) {
                let sum = &mut sum[t * x.features..][..x.features];
                sum.iter_mut().zip(y).for_each(|(s, y)| *s += weights[t][e] * y);
            }
        }
        one(sum, batch, results)
    }
}

/// The weight of every expert for one token: softmax over the `top_k` best scores, of equal ones the first; 0 for the others.
fn routed(scores: &[f64], top_k: usize) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(top_k);
    let chosen = softmax(&order.iter().map(|&e| scores[e]).collect::<Vec<f64>>());
    let mut weights = vec![0.0; scores.len()];
    order.iter().zip(chosen).for_each(|(&e, w)| weights[e] = w);
    weights
}
