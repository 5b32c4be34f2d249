//! The transformer block that TRM, HRM and our one-shot control share.
//!
//! In: sizes, a prefix for names. Out: nodes on a [`RegionBuilder`]. Must not: know which family calls it.
//!
//! Post-norm, no gains, no biases (TRM released code, layers.py): `h ← rms(h + mix(h)); h ← rms(h + swiglu(h))`, where mix is attention
//! or a SwiGLU along the tokens whose norm also runs along the tokens. With experts, the second sublayer is a mixture of SwiGLUs.

use super::{ModelError, Params, axis};
use crate::graph::{
    Activation, Attention, Axis, GraphError, Op, ParamId, RegionBuilder, Role, Rope, Start, ValueId, op,
};

/// Sizes of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockSize {
    pub tokens: usize,
    pub hidden: usize,
    pub heads: usize,
    pub expansion: f64,
    /// Mix along tokens by an MLP instead of attention.
    pub mlp_t: bool,
    pub rope: Option<f32>,
    pub eps: f32,
    /// Experts instead of one MLP along the features.
    pub experts: Option<ExpertSizes>,
}

/// Sizes of a mixture of experts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpertSizes {
    pub count: usize,
    pub top_k: usize,
    pub inner: usize,
}

impl BlockSize {
    /// Refuses sizes that no net can have.
    pub fn check(&self) -> Result<(), ModelError> {
        axis("hidden_size", self.hidden)?;
        axis("seq_len", self.tokens)?;
        axis("num_heads", self.heads)?;
        let fail = |m: String| Err(super::config_error(m));
        if !(self.expansion.is_finite() && self.expansion > 0.0 && self.expansion <= 1024.0) {
            return fail(format!("`expansion` is {}; it must lie between 0 and 1024", self.expansion));
        }
        if !self.mlp_t && !self.hidden.is_multiple_of(self.heads) {
            return fail(format!("`hidden_size` {} is not a multiple of `num_heads` {}", self.hidden, self.heads));
        }
        if !(self.eps.is_finite() && self.eps > 0.0) {
            return fail(format!("`rms_norm_eps` is {}; it must be above 0", self.eps));
        }
        if let Some(ExpertSizes { count, top_k, inner }) = self.experts {
            axis("expert_inner", inner)?;
            if !(2..=4096).contains(&count) {
                return fail(format!("`num_experts` is {count}; it must lie between 2 and 4096"));
            }
            if !(1..=count).contains(&top_k) {
                return fail(format!(
                    "`experts_per_token` is {top_k}; it must lie between 1 and `num_experts`, {count}"
                ));
            }
        }
        if self.rope.is_some_and(|b| !(b.is_finite() && b > 1.0)) {
            return fail("`rope_theta` must be above 1".into());
        }
        Ok(())
    }

    /// Inner width of the SwiGLU on `n` features: 256 · ceil(round(expansion · n · 2/3) / 256).
    pub fn inner(&self, n: usize) -> usize {
        ((self.expansion * n as f64 * 2.0 / 3.0).round() as usize).div_ceil(256) * 256
    }
}

/// Parameters of one block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mix {
    Attention { qkv: ParamId, out: ParamId },
    Tokens { gate_up: ParamId, down: ParamId },
}

/// One block, declared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    size: BlockSize,
    mix: Mix,
    feed: Feed,
}

/// Parameters of the sublayer along the features.
#[derive(Clone, Copy, Debug)]
enum Feed {
    Mlp { gate_up: ParamId, down: ParamId },
    ExpertSizes { router: ParamId, gate_up: ParamId, down: ParamId, top_k: usize },
}

impl Block {
    /// Declares a block's parameters under `prefix`, e.g. `L_level.layers.0`.
    pub fn declare(params: &mut Params, prefix: &str, size: BlockSize) -> Result<Self, ModelError> {
        let d = size.hidden;
        let feed = match size.experts {
            None => {
                let (gate_up, down) = swiglu(params, prefix, "mlp", d, size.inner(d))?;
                Feed::Mlp { gate_up, down }
            }
            Some(ExpertSizes { count, top_k, inner }) => {
                // as wide as the dense layer's: by the number of values that one product sums
                let start = |n: usize| Start::Normal(1.0 / (n as f32).sqrt());
                let mut tensor = |name: &str, shape: &[usize], n| {
                    params.add(format!("{prefix}.moe.{name}"), shape, Role::Weight, start(n))
                };
                Feed::ExpertSizes {
                    router: tensor("router.weight", &[count, d], d)?,
                    gate_up: tensor("gate_up_proj.weight", &[count, 2 * inner, d], d)?,
                    down: tensor("down_proj.weight", &[count, d, inner], inner)?,
                    top_k,
                }
            }
        };
        let mix = if size.mlp_t {
            let (gate_up, down) = swiglu(params, prefix, "mlp_t", size.tokens, size.inner(size.tokens))?;
            Mix::Tokens { gate_up, down }
        } else {
            Mix::Attention {
                qkv: params.weight(format!("{prefix}.self_attn.qkv_proj.weight"), 3 * d, d)?,
                out: params.weight(format!("{prefix}.self_attn.o_proj.weight"), d, d)?,
            }
        };
        Ok(Self { size, mix, feed })
    }

    /// Applies the block.
    pub fn apply(&self, r: &mut RegionBuilder, h: ValueId) -> Result<ValueId, GraphError> {
        let (mixed, over) = match self.mix {
            Mix::Tokens { gate_up, down } => {
                (r.op(op::GatedMlp { gate_up, down, act: Activation::Silu, over: Axis::Tokens }, &[h])?, Axis::Tokens)
            }
            Mix::Attention { qkv, out } => {
                let head_dim = self.size.hidden / self.size.heads;
                let projected = r.op(op::Linear { weight: qkv, bias: None }, &[h])?;
                let attention = Attention {
                    heads: self.size.heads,
                    kv_heads: self.size.heads,
                    head_dim,
                    scale: 1.0 / (head_dim as f32).sqrt(),
                    causal: false,
                    window: None,
                    rope: self.size.rope.map(Rope::plain),
                    head_norms: None,
                    soft_cap: None,
                    cache: false,
                };
                let attended = r.op(attention, &[projected])?;
                (r.op(op::Linear { weight: out, bias: None }, &[attended])?, Axis::Features)
            }
        };
        let h = self.add_norm(r, h, mixed, over)?;
        let act = Activation::Silu;
        let feed = match self.feed {
            Feed::Mlp { gate_up, down } => Op::GatedMlp(op::GatedMlp { gate_up, down, act, over: Axis::Features }),
            Feed::ExpertSizes { router, gate_up, down, top_k } => {
                Op::MoeMlp(op::MoeMlp { router, gate_up, down, act, top_k })
            }
        };
        let y = r.op(feed, &[h])?;
        self.add_norm(r, h, y, Axis::Features)
    }

    fn add_norm(&self, r: &mut RegionBuilder, h: ValueId, y: ValueId, over: Axis) -> Result<ValueId, GraphError> {
        let sum = r.op(op::Add, &[h, y])?;
        r.op(op::RmsNorm { gain: None, eps: self.size.eps, over }, &[sum])
    }
}

/// Weights of a SwiGLU on `n` features.
fn swiglu(
    params: &mut Params,
    prefix: &str,
    name: &str,
    n: usize,
    inner: usize,
) -> Result<(ParamId, ParamId), ModelError> {
    Ok((
        params.weight(format!("{prefix}.{name}.gate_up_proj.weight"), 2 * inner, n)?,
        params.weight(format!("{prefix}.{name}.down_proj.weight"), n, inner)?,
    ))
}
