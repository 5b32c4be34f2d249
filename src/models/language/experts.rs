//! Routers for a dense net whose gated MLPs are cut into experts, fitted to what the slices put out on some text.
//!
//! In: a dense [`LanguageModel`], sequences of tokens. Out: a [`FittedRouter`] a layer. Must not: change a weight of the slices, or call itself
//! training: nothing is descended, each layer is solved once.
//!
//! An expert matters for a token by the length of what it puts out. The router is the ridge regression of the logarithm of that length (over the
//! mean of the token's experts) on the MLP's input; its strength is chosen on a quarter of the tokens that it has not seen. Then the
//! router's temperature and a factor for each expert are those with the least squares between the mixture and the dense MLP, outputs far longer than the median's weighed down. Layers are
//! solved in order, each on what the mixture of those before it puts out, so that a later layer is fitted to the inputs that it will meet.

use super::LanguageModel;
use crate::graph::interpreter::Interpreter;
use crate::graph::op::{GatedMlp, gated};
use crate::graph::tensor::Tensor;
use crate::graph::{Op, Region};
use crate::models::ModelError;
use solve::{Gram, factors, mixture_error};

mod solve;

/// The router of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct FittedRouter {
    /// `[experts, width]`
    pub router: Vec<f32>,
    /// What each expert's output is multiplied with, beyond its weight of the chosen experts.
    pub factors: Vec<f32>,
    /// Square of the difference from the dense MLP over that MLP's, over the tokens that strength and temperature were chosen by (which the factors
    /// were fitted on too), long outputs weighed down.
    pub lost: f64,
}

/// How a net is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertSplit {
    /// Experts of a layer.
    pub experts: usize,
    /// Experts that a token meets.
    pub active: usize,
}

/// Most experts of a layer.
const MAX_EXPERTS: usize = 256;
/// Strengths of the ridge, of the mean square of the inputs.
const STRENGTHS: [f64; 4] = [1e-2, 1e-1, 1.0, 10.0];
/// What the scores are multiplied with, one of these.
const TEMPERATURES: [f64; 6] = [0.0625, 0.125, 0.25, 0.5, 1.0, 2.0];

/// Fits the routers of a net on sequences of one length; `tell` is told each, how many are done, and of how many.
///
/// # Errors
/// The weights cannot be read; the net has no gated MLPs of a width that `split` divides; there are too few tokens.
pub fn fit_routers(
    model: &LanguageModel,
    texts: &[Vec<u32>],
    split: ExpertSplit,
    threads: usize,
    tell: &mut dyn FnMut(&FittedRouter, usize, usize),
) -> Result<Vec<FittedRouter>, ModelError> {
    let (config, layers) = (model.config(), model.config().layers.len());
    let fail = |message: String| ModelError::new(&model.path, message);
    if !(2..=MAX_EXPERTS).contains(&split.experts) || !(1..=split.experts).contains(&split.active) {
        let message = format!("{} of {} experts active", split.active, split.experts);
        return Err(fail(message).hint(format!("2 to {MAX_EXPERTS} experts are possible, and 1 to all of them active")));
    }
    if config.mlp.experts.is_some() || !config.mlp.gated || !config.mlp.inner.is_multiple_of(split.experts) {
        let message = format!("no gated MLP of {} that {} experts share evenly", config.mlp.inner, split.experts);
        return Err(fail(message).hint("name a dense net of the architecture `llama`"));
    }
    let (length, tokens) = (texts.first().map_or(0, Vec::len), texts.iter().map(Vec::len).sum::<usize>());
    if tokens < 4 * config.width || texts.iter().any(|t| t.len() != length) {
        let message = format!("{tokens} tokens are too few to fit routers of {} inputs", config.width);
        return Err(fail(message)
            .hint(format!("give {} tokens or more: a longer text, or a larger --tokens", 4 * config.width)));
    }
    let params = model.params()?;
    let interpreter = Interpreter::new(&model.graph, &params).on_threads(threads);
    let caches = model.graph.states.iter().map(|s| Tensor { data: Vec::new(), tokens: 0, features: s.ty.features });
    let ids = texts.iter().flatten().map(|&t| f64::from(t)).collect();
    let args = caches.chain([Tensor { data: ids, tokens: length, features: 1 }]).collect();
    let mut fitted = Vec::new();
    let mut instead = |op: &Op, inputs: &[&Tensor]| {
        let Op::GatedMlp(mlp) = op else { return None };
        let outputs = slices(&params, mlp, inputs[0], split.experts, threads);
        let (router, y) = fit(&inputs[0].data, inputs[0].features, &outputs, split.active);
        tell(&router, fitted.len() + 1, layers);
        fitted.push(router);
        Some(vec![Tensor { data: y, ..*inputs[0] }])
    };
    interpreter.run_with(&body(&model.graph.step), args, texts.len(), &mut instead);
    Ok(fitted)
}

/// A region up to its last gated MLP, without results.
fn body(region: &Region) -> Region {
    let last = region.nodes.iter().rposition(|n| matches!(n.op, Op::GatedMlp(_))).map_or(0, |i| i + 1);
    Region { nodes: region.nodes[..last].to_vec(), results: Vec::new(), ..region.clone() }
}

/// What each slice of an MLP puts out, `[tokens, width]`.
fn slices(params: &[Vec<f32>], mlp: &GatedMlp, x: &Tensor, experts: usize, threads: usize) -> Vec<Vec<f64>> {
    let (gate_up, down) = (&params[mlp.gate_up.0], &params[mlp.down.0]);
    let (width, inner) = (x.features, down.len() / x.features);
    let each = inner / experts;
    let (gate, up) = gate_up.split_at(inner * width);
    let of = |e: usize| {
        let rows = e * each * width..(e + 1) * each * width;
        let both = [&gate[rows.clone()], &up[rows]].concat();
        let columns: Vec<f32> = down.chunks_exact(inner).flat_map(|row| &row[e * each..][..each]).copied().collect();
        gated(&x.data, width, &both, &columns, mlp.act, threads)
    };
    (0..experts).map(of).collect()
}

/// The router of a layer with inputs `[tokens, width]`, and what the mixture puts out.
fn fit(x: &[f64], width: usize, outputs: &[Vec<f64>], active: usize) -> (FittedRouter, Vec<f64>) {
    let (experts, tokens) = (outputs.len(), x.len() / width);
    let wanted = lengths(outputs, width);
    // every fourth token is held out, so that each text has its share in both
    let held: Vec<bool> = (0..tokens).map(|t| t % 4 == 3).collect();
    let mut seen = Gram::new(width, experts);
    let mut rest = Gram::new(width, experts);
    for t in 0..tokens {
        let gram = if held[t] { &mut rest } else { &mut seen };
        gram.add(&x[t * width..][..width], &wanted[t * experts..][..experts]);
    }
    let scores = |router: &[f64]| -> Vec<f64> {
        let row = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        x.chunks_exact(width).flat_map(|x| router.chunks_exact(width).map(move |w| row(x, w))).collect()
    };
    let all: Vec<usize> = (0..tokens).collect();
    let unseen: Vec<usize> = (0..tokens).filter(|&t| held[t]).collect();
    let (ones, weights) = (vec![1.0; experts], solve::weights(outputs, width));
    let candidates = STRENGTHS.iter().map(|&strength| {
        let scored = scores(&seen.ridge(strength));
        // equal weights, so that only the choice is judged
        let lost = mixture_error(&scored, 0.0, &ones, outputs, active, &weights, &unseen);
        (strength, scored, lost)
    });
    let (strength, unseen_scores, _) = candidates.min_by(|a, b| a.2.total_cmp(&b.2)).unwrap_or((1.0, Vec::new(), 1.0));
    seen.join(&rest);
    let router = seen.ridge(strength);
    let scored = scores(&router);
    let best = TEMPERATURES.iter().map(|&temperature| {
        let factors = factors(&scored, temperature, outputs, active, &weights, &all);
        let lost = mixture_error(&unseen_scores, temperature, &factors, outputs, active, &weights, &unseen);
        (temperature, factors, lost)
    });
    let (temperature, factors, lost) = best.min_by(|a, b| a.2.total_cmp(&b.2)).unwrap_or((1.0, ones, 1.0));
    let y = solve::mixture(&scored, temperature, &factors, outputs, active, width);
    let router = router.iter().map(|w| (w * temperature) as f32).collect();
    (FittedRouter { router, factors: factors.iter().map(|f| *f as f32).collect(), lost }, y)
}

/// The logarithm of each expert's output's length over the mean of the token's, `[tokens, experts]`.
fn lengths(outputs: &[Vec<f64>], width: usize) -> Vec<f64> {
    let (experts, tokens) = (outputs.len(), outputs[0].len() / width);
    let mut all = Vec::with_capacity(tokens * experts);
    for t in 0..tokens {
        let square = |y: &Vec<f64>| y[t * width..][..width].iter().map(|v| v * v).sum::<f64>();
        let logs: Vec<f64> = outputs.iter().map(|y| 0.5 * square(y).max(1e-300).ln()).collect();
        let mean = logs.iter().sum::<f64>() / experts as f64;
        all.extend(logs.iter().map(|l| l - mean));
    }
    all
}

#[cfg(test)]
mod tests;
