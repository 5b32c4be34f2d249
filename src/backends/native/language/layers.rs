//! A decoder's weights as native holds them, and the products with them.
//!
//! In: a [`LanguageModel`]'s tensors. Out: packed layers. Must not: keep a tensor twice.

use ergometer_kernels::{self as kernels, Context, NumberFormat, PackedBlocks, RowNorm};
use ergometer_language::config::{DecoderExperts, ParallelLayers};

use super::super::super::BackendError;
use super::super::lower::activation as kernel_activation;
use super::matrix::{Matrix, WeightsAs};
use crate::graph::Activation;
use crate::models::language::{LanguageModel, StoredRows};

/// What weights are read from, and how they are packed.
pub(super) struct WeightReader<'a> {
    pub ctx: &'a Context,
    pub model: &'a LanguageModel,
    pub weights: WeightsAs,
}

/// x·Wᵀ + b
pub(super) struct HeldLinear {
    pub matrix: Matrix,
    pub bias: Option<Vec<f32>>,
}

impl HeldLinear {
    pub fn outputs(&self) -> usize {
        self.matrix.outputs()
    }

    /// The blocks that it is, if it is nothing else.
    pub fn blocks(&self) -> Option<&[PackedBlocks]> {
        match (&self.matrix, &self.bias) {
            (Matrix::Blocks(all), None) => Some(all),
            _ => None,
        }
    }

    pub fn apply(&self, ctx: &Context, x: &[f32], out: &mut [f32]) {
        self.matrix.product(ctx, x, out);
        if let Some(bias) = &self.bias {
            kernels::add_rows(ctx, out, bias);
        }
    }

    fn bytes(&self) -> usize {
        self.matrix.bytes() + self.bias.as_ref().map_or(0, |b| 4 * b.len())
    }
}

/// A norm along the features.
pub(super) struct Norm {
    gain: Vec<f32>,
    /// Of a layer norm.
    bias: Option<Vec<f32>>,
    eps: f32,
}

impl Norm {
    /// `out = norm(x)`, as long as `x`.
    pub fn apply(&self, ctx: &Context, x: &[f32], out: &mut Vec<f32>) {
        out.resize(x.len(), 0.0);
        if let Some(bias) = &self.bias {
            out.copy_from_slice(x);
            kernels::layer_norm(ctx, out, Some(&self.gain), Some(bias), self.eps, self.gain.len());
        } else {
            kernels::rms_norm(ctx, x, None, Some(&self.gain), self.eps, self.gain.len(), out);
        }
    }

    /// `x = norm(x)`
    pub fn in_place(&self, ctx: &Context, x: &mut [f32]) {
        match &self.bias {
            Some(bias) => kernels::layer_norm(ctx, x, Some(&self.gain), Some(bias), self.eps, self.gain.len()),
            None => kernels::rms_norm_in_place(ctx, x, None, Some(&self.gain), self.eps, self.gain.len()),
        }
    }

    /// For a step through all layers.
    pub fn of_rows(&self) -> RowNorm<'_> {
        RowNorm { gain: &self.gain, bias: self.bias.as_deref(), eps: self.eps }
    }

    pub fn bytes(&self) -> usize {
        4 * (self.gain.len() + self.bias.as_ref().map_or(0, Vec::len))
    }
}

/// Gains of the norms of queries and of keys, head by head.
pub(super) struct Gains {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub eps: f32,
}

/// The second half of a layer.
pub(super) enum HeldMlp {
    Gated { gate_up: HeldLinear, down: HeldLinear },
    Plain { up: HeldLinear, down: HeldLinear },
    Experts(Experts),
}

/// Gated experts of which each token goes to some.
pub(super) struct Experts {
    router: HeldLinear,
    /// `gate_up` and `down` of each.
    experts: Vec<(HeldLinear, HeldLinear)>,
    chosen: usize,
}

impl Experts {
    /// Every token meets so many from now on; false: there are not so many.
    pub fn activate(&mut self, chosen: usize) -> bool {
        let there = (1..=self.experts.len()).contains(&chosen);
        if there {
            self.chosen = chosen;
        }
        there
    }

    /// `out = Σ weight · expert(x)` over the chosen ones; those that no token goes to are not computed.
    pub fn apply(&self, ctx: &Context, act: Activation, x: &[f32], inner: &mut Vec<f32>, out: &mut Vec<f32>) {
        let hidden = self.router.matrix.inputs();
        let rows = x.len() / hidden;
        let mut scores = vec![0.0; rows * self.experts.len()];
        self.router.apply(ctx, x, &mut scores);
        out.clear();
        out.resize(rows * hidden, 0.0);
        let routes: Vec<Vec<(usize, f32)>> =
            scores.chunks_exact(self.experts.len()).map(|s| routed(s, self.chosen)).collect();
        if let [route] = routes.as_slice()
            && self.one(ctx, act, x, route, inner, out)
        {
            return;
        }
        let (mut sent, mut answers) = (Vec::new(), Vec::new());
        for (e, (gate_up, down)) in self.experts.iter().enumerate() {
            let to: Vec<(usize, f32)> = (0..rows)
                .filter_map(|row| routes[row].iter().find(|(expert, _)| *expert == e).map(|(_, w)| (row, *w)))
                .collect();
            if to.is_empty() {
                continue;
            }
            sent.clear();
            to.iter().for_each(|(row, _)| sent.extend_from_slice(&x[row * hidden..][..hidden]));
            answers.resize(to.len() * hidden, 0.0);
            super::gated(ctx, act, gate_up, down, &sent, inner, &mut answers);
            for ((row, weight), answer) in to.iter().zip(answers.chunks_exact(hidden)) {
                let out = &mut out[row * hidden..][..hidden];
                out.iter_mut().zip(answer).for_each(|(o, a)| *o += weight * a);
            }
        }
    }
}

impl Experts {
    /// One token, whose experts read the same input: their gates and values are one product, with one wait for the other threads. False where
    /// weights do not lie in blocks.
    fn one(
        &self,
        ctx: &Context,
        act: Activation,
        x: &[f32],
        route: &[(usize, f32)],
        inner: &mut Vec<f32>,
        out: &mut [f32],
    ) -> bool {
        let mut joined: Vec<&PackedBlocks> = Vec::new();
        for (e, _) in route {
            let Matrix::Blocks(blocks) = &self.experts[*e].0.matrix else { return false };
            joined.extend(blocks);
        }
        let Some((first, down)) = route.first().map(|(e, _)| &self.experts[*e]) else { return false };
        let (wide, half, n) = (first.outputs(), down.matrix.inputs(), down.outputs());
        inner.resize(route.len() * (wide + half) + n, 0.0);
        let (both, rest) = inner.split_at_mut(route.len() * wide);
        let (made, answer) = rest.split_at_mut(route.len() * half);
        kernels::blocks_joined(ctx, x, &joined, both);
        kernels::gated(ctx, kernel_activation(act), both, half, made);
        for ((e, weight), made) in route.iter().zip(made.chunks_exact(half)) {
            self.experts[*e].1.apply(ctx, made, answer);
            out.iter_mut().zip(&*answer).for_each(|(o, a)| *o += weight * a);
        }
        true
    }
}

/// The best experts for one token, of equal scores the first, with a softmax over theirs; in the order of their numbers, which is
/// the order in which they are added.
fn routed(scores: &[f32], chosen: usize) -> Vec<(usize, f32)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(chosen);
    let top = scores[order[0]];
    let sum: f32 = order.iter().map(|&e| (scores[e] - top).exp()).sum();
    let mut all: Vec<(usize, f32)> = order.iter().map(|&e| (e, (scores[e] - top).exp() / sum)).collect();
    all.sort_by_key(|(e, _)| *e);
    all
}

/// A layer's weights.
pub(super) struct Layer {
    pub attention_norm: Norm,
    pub qkv: HeldLinear,
    pub head_norms: Option<Gains>,
    pub output: HeldLinear,
    pub attention_post_norm: Option<Norm>,
    /// None where both halves read one norm.
    pub mlp_norm: Option<Norm>,
    pub mlp: HeldMlp,
    pub mlp_post_norm: Option<Norm>,
}

impl Layer {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let mlp = match &self.mlp {
            HeldMlp::Gated { gate_up: a, down: b } | HeldMlp::Plain { up: a, down: b } => a.bytes() + b.bytes(),
            HeldMlp::Experts(e) => {
                e.router.bytes() + e.experts.iter().map(|(a, b)| a.bytes() + b.bytes()).sum::<usize>()
            }
        };
        let norms = [self.mlp_norm.as_ref(), self.attention_post_norm.as_ref(), self.mlp_post_norm.as_ref()];
        let norms = self.attention_norm.bytes() + norms.into_iter().flatten().map(Norm::bytes).sum::<usize>();
        let gains = self.head_norms.as_ref().map_or(0, |g| 4 * (g.q.len() + g.k.len()));
        self.qkv.bytes() + self.output.bytes() + mlp + norms + gains
    }
}

impl WeightReader<'_> {
    /// A vector or table as f32.
    pub fn plain(&self, name: &str) -> Result<Vec<f32>, BackendError> {
        self.model.param(name).map_err(|e| BackendError::Failed(e.to_string()))
    }

    /// A matrix for products.
    pub fn matrix(&self, name: &str) -> Result<Matrix, BackendError> {
        let rows: StoredRows = self.model.stored(name).into_iter().flatten().collect();
        self.read(name, &rows)
    }

    fn read(&self, name: &str, rows: &StoredRows) -> Result<Matrix, BackendError> {
        let inputs = self.model.shape(name).and_then(|s| s.last()).copied().unwrap_or_default();
        Matrix::read(self.ctx, self.model, self.weights, rows, inputs)
    }

    fn linear(&self, name: &str) -> Result<HeldLinear, BackendError> {
        let bias = format!("{name}.bias");
        let bias = match self.model.shape(&bias) {
            Some(_) => Some(self.plain(&bias)?),
            None => None,
        };
        Ok(HeldLinear { matrix: self.matrix(&format!("{name}.weight"))?, bias })
    }

    /// A norm.
    pub fn norm(&self, name: &str) -> Result<Norm, BackendError> {
        let of = self.model.config().norm;
        let bias = if of.centred { Some(self.plain(&format!("{name}.bias"))?) } else { None };
        Ok(Norm { gain: self.plain(&format!("{name}.weight"))?, bias, eps: of.epsilon })
    }

    /// Experts, each of some rows of the tensors of all.
    fn experts(&self, at: &str, of: DecoderExperts) -> Result<Experts, BackendError> {
        let all = |name: &str| -> Result<Vec<HeldLinear>, BackendError> {
            let name = format!("{at}.experts.{name}.weight");
            let each = self.model.stored(&name);
            each.iter().map(|rows| Ok(HeldLinear { matrix: self.read(&name, rows)?, bias: None })).collect()
        };
        let experts = all("gate_up")?.into_iter().zip(all("down")?).collect();
        // what goes where decides everything after it: never rounded
        let router = self.plain(&format!("{at}.router.weight"))?;
        let router = Matrix::plain(self.ctx, NumberFormat::F32, &router, of.count, router.len() / of.count);
        Ok(Experts { router: HeldLinear { matrix: router, bias: None }, experts, chosen: of.used })
    }

    fn mlp(&self, at: &str) -> Result<HeldMlp, BackendError> {
        let of = &self.model.config().mlp;
        let down = || self.linear(&format!("{at}.down"));
        Ok(match of.experts {
            Some(experts) => HeldMlp::Experts(self.experts(at, experts)?),
            None if of.gated => HeldMlp::Gated { gate_up: self.linear(&format!("{at}.gate_up"))?, down: down()? },
            None => HeldMlp::Plain { up: self.linear(&format!("{at}.up"))?, down: down()? },
        })
    }

    /// A whole layer.
    pub fn layer(&self, i: usize) -> Result<Layer, BackendError> {
        let (at, config) = (format!("layers.{i}"), self.model.config());
        let norm = |name: &str, is: bool| match is {
            true => self.norm(&format!("{at}.{name}")).map(Some),
            false => Ok(None),
        };
        let head_norms = match config.attention.query_key_norm {
            true => Some(Gains {
                q: self.plain(&format!("{at}.q_norm.weight"))?,
                k: self.plain(&format!("{at}.k_norm.weight"))?,
                eps: config.norm.epsilon,
            }),
            false => None,
        };
        Ok(Layer {
            attention_norm: self.norm(&format!("{at}.attention_norm"))?,
            qkv: self.linear(&format!("{at}.qkv"))?,
            head_norms,
            output: self.linear(&format!("{at}.attention_output"))?,
            attention_post_norm: norm("attention_post_norm", config.post_norms)?,
            mlp_norm: norm("mlp_norm", config.parallel != ParallelLayers::OneNorm)?,
            mlp: self.mlp(&at)?,
            mlp_post_norm: norm("mlp_post_norm", config.post_norms)?,
        })
    }
}
