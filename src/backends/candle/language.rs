//! Candle as an engine that generates: the step of a decoder's graph over tensors, with caches that grow.
//!
//! In: a [`LanguageModel`], its weights as f32. Out: a [`LanguageEngine`]. Must not: lower an operator that `lower.rs` lowers.
//!
//! The tokens of all feeds of a call are rows of one batch; attention and learned positions alone look at each feed's own sequence. A cache is
//! a tensor of keys (as they are compared) and one of values for each layer and slot, made anew with each call's tokens at its end,
//! as candle's own models do it.

use candle_core::{D, DType, Device, Result, Tensor};

use super::super::language::{Feed, LanguageEngine, WantedLogits, check};
use super::super::{BackendError, Facts};
use super::lower::Lowering;
use super::ops::{FusedRmsNorm, Softmax};
use super::{failed, keep_memory};
use crate::graph::{Attention, Node, Op, Rope, op};
use crate::models::language::LanguageModel;

/// Keys and values of a layer, `[kv_heads, tokens, head_dim]` each; none before the first token.
type Cache = Option<(Tensor, Tensor)>;

/// See the module.
pub(super) struct CandleLanguage {
    lowering: Lowering,
    params: Vec<Tensor>,
    context: usize,
    /// Of each slot: of each layer.
    slots: Vec<Vec<Cache>>,
    past: Vec<usize>,
    logits: Vec<f32>,
    weight_bytes: u64,
    /// Experts that a token meets, where there are some.
    used: Option<usize>,
}

impl CandleLanguage {
    /// Room for so many sequences.
    ///
    /// # Errors
    /// The weights cannot be read.
    pub(super) fn load(model: &LanguageModel, slots: usize) -> std::result::Result<Self, BackendError> {
        keep_memory(256);
        let mut params = Vec::with_capacity(model.graph.params.len());
        for param in &model.graph.params {
            let values = model.param(&param.name).map_err(|e| BackendError::Failed(e.to_string()))?;
            params.push(Tensor::from_vec(values, param.shape.as_slice(), &Device::Cpu).map_err(failed)?);
        }
        let weight_bytes = params.iter().map(|p| 4 * p.elem_count() as u64).sum();
        let layers = model.graph.states.len();
        Ok(Self {
            lowering: Lowering::without_tables(&model.graph),
            params,
            context: model.context,
            slots: vec![vec![None; layers]; slots],
            past: vec![0; slots],
            logits: Vec::new(),
            weight_bytes,
            used: model.graph.active_experts(),
        })
    }

    /// The logits of a call; caches have its tokens.
    fn run(&mut self, feeds: &[Feed], wanted: WantedLogits) -> Result<Tensor> {
        let step = &self.lowering.graph().step;
        let ids: Vec<u32> = feeds.iter().flat_map(|f| f.tokens.iter().copied()).collect();
        let n = ids.len();
        // caches are arguments of the region, and lie in the slots
        let layers = self.lowering.graph().states.len();
        let mut values: Vec<Option<Tensor>> = vec![None; layers];
        values.push(Some(Tensor::from_vec(ids, (1, n), &Device::Cpu)?));
        let absent = || candle_core::Error::Msg("a value is a cache".into());
        for (i, node) in step.nodes.iter().enumerate() {
            let first = node.inputs[0].0;
            let mut x = values[first].clone().ok_or_else(absent)?;
            let made = match &node.op {
                Op::Attend(a) if a.cache => {
                    let layer = node.inputs[1].0;
                    let made = attend(&self.params, a, &x, feeds, &mut self.slots, &self.past, layer)?;
                    values.push(Some(made));
                    // the cache that is given back
                    None
                }
                Op::AddPositions(op::AddPositions { table, cache: true }) => {
                    Some(add_positions(&self.params[table.0], &x, feeds, &self.past)?)
                }
                op => {
                    // the head: of last tokens alone, if no others are asked for
                    if i + 1 == step.nodes.len() && wanted == WantedLogits::Last {
                        x = x.index_select(&last_rows(feeds)?, 1)?;
                    }
                    let rest = node.inputs[1..].iter().map(|v| values[v.0].clone().ok_or_else(absent));
                    let inputs = std::iter::once(Ok(x)).chain(rest).collect::<Result<Vec<_>>>()?;
                    Some(self.lowering.apply(op, &self.params, inputs)?)
                }
            };
            values.push(made);
            // so that memory is used again while it is warm
            for v in node.inputs.iter().filter(|v| !used_after(&step.nodes[i + 1..], **v)) {
                values[v.0] = None;
            }
        }
        let logits = step.results.last().and_then(|v| values[v.0].clone());
        for feed in feeds {
            self.past[feed.slot] += feed.tokens.len();
        }
        logits.ok_or_else(absent)
    }
}

fn used_after(nodes: &[Node], value: crate::graph::ValueId) -> bool {
    // what is left is the head's results
    nodes.iter().any(|node| node.inputs.contains(&value))
}

/// Rows of the last token of each feed.
fn last_rows(feeds: &[Feed]) -> Result<Tensor> {
    let mut end = 0;
    let rows = feeds.iter().map(|feed| {
        end += feed.tokens.len() as u32;
        end - 1
    });
    Tensor::from_vec(rows.collect::<Vec<u32>>(), feeds.len(), &Device::Cpu)
}

/// Rows of a table by the position of each token.
fn add_positions(table: &Tensor, x: &Tensor, feeds: &[Feed], past: &[usize]) -> Result<Tensor> {
    let rows = feeds.iter().map(|feed| table.narrow(0, past[feed.slot], feed.tokens.len()));
    x + Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)?.unsqueeze(0)?
}

/// Attention of every feed over its own cache, which has the call's tokens afterwards. `x: [1, tokens, heads of q, k and v]`.
fn attend(
    params: &[Tensor],
    a: &Attention,
    x: &Tensor,
    feeds: &[Feed],
    slots: &mut [Vec<Cache>],
    past: &[usize],
    layer: usize,
) -> Result<Tensor> {
    let mut first = 0;
    let mut all = Vec::with_capacity(feeds.len());
    for feed in feeds {
        let n = feed.tokens.len();
        // [heads, tokens, head_dim]
        let heads = x.narrow(1, first, n)?.reshape((n, a.heads + 2 * a.kv_heads, a.head_dim))?;
        let heads = heads.transpose(0, 1)?.contiguous()?;
        let position = past[feed.slot];
        // those of q are those of k
        let turns = a.rope.as_ref().map(|rope| turns(rope, a.head_dim, n, position)).transpose()?;
        let compared = |from: usize, heads_of: usize, gain: Option<usize>| -> Result<Tensor> {
            let mut v = heads.narrow(0, from, heads_of)?.contiguous()?;
            if let (Some(gain), Some(norms)) = (gain, a.head_norms) {
                let norm = FusedRmsNorm { eps: norms.eps, over_tokens: false };
                v = v.apply_op1(norm)?.broadcast_mul(&params[gain])?;
            }
            a.rope.as_ref().zip(turns.as_ref()).map_or(Ok(v.clone()), |(rope, turns)| turned(rope, &v, turns))
        };
        let q = compared(0, a.heads, a.head_norms.map(|norms| norms.q.0))?;
        let k = compared(a.heads, a.kv_heads, a.head_norms.map(|norms| norms.k.0))?;
        let v = heads.narrow(0, a.heads + a.kv_heads, a.kv_heads)?.contiguous()?;
        let cache = &mut slots[feed.slot][layer];
        let (k, v) = match cache.take() {
            Some((keys, values)) => (Tensor::cat(&[&keys, &k], 1)?, Tensor::cat(&[&values, &v], 1)?),
            None => (k, v),
        };
        let made = mixed(a, &q, &k, &v, position)?;
        *cache = Some((k, v));
        all.push(made.transpose(0, 1)?.reshape((n, a.heads * a.head_dim))?);
        first += n;
    }
    Tensor::cat(&all, 0)?.unsqueeze(0)
}

/// softmax(q·k) · v, `[heads, tokens, head_dim]`; the heads of a group share their keys.
fn mixed(a: &Attention, q: &Tensor, k: &Tensor, v: &Tensor, past: usize) -> Result<Tensor> {
    let (heads, n, d) = q.dims3()?;
    let (group, known) = (heads / a.kv_heads, k.dim(1)?);
    let q = q.affine(f64::from(a.scale), 0.0)?.reshape((a.kv_heads, group * n, d))?;
    let mut scores = q.matmul(&k.t()?)?;
    if let Some(cap) = a.soft_cap.map(f64::from) {
        scores = scores.affine(1.0 / cap, 0.0)?.tanh()?.affine(cap, 0.0)?;
    }
    let hidden = |i: usize| {
        let (position, key) = (past + i / known, i % known);
        (a.causal && key > position) || a.window.is_some_and(|w| position.abs_diff(key) >= w)
    };
    if (0..n * known).any(hidden) {
        let mask: Vec<f32> = (0..n * known).map(|i| if hidden(i) { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (1, 1, n, known), &Device::Cpu)?;
        let each = scores.reshape((a.kv_heads, group, n, known))?;
        scores = each.broadcast_add(&mask)?.reshape((a.kv_heads, group * n, known))?;
    }
    scores.apply_op1(Softmax)?.matmul(v)?.reshape((heads, n, d))
}

/// Sines and cosines of `n` positions from `past` on, `[1, n, pairs]`.
fn turns(rope: &Rope, head_dim: usize, n: usize, past: usize) -> Result<(Tensor, Tensor)> {
    let frequencies = rope.frequencies(head_dim);
    let pairs = frequencies.len();
    let table = |of: fn(f64) -> f64| {
        let angle = |i: usize| (past + i / pairs) as f64 * frequencies[i % pairs];
        let values = (0..n * pairs).map(|i| (f64::from(rope.magnitude) * of(angle(i))) as f32);
        Tensor::from_vec(values.collect::<Vec<f32>>(), (1, n, pairs), &Device::Cpu)
    };
    Ok((table(f64::sin)?, table(f64::cos)?))
}

/// Heads `[heads, tokens, head_dim]` turned to their positions.
fn turned(rope: &Rope, v: &Tensor, (sin, cos): &(Tensor, Tensor)) -> Result<Tensor> {
    let (heads, n, d) = v.dims3()?;
    let pairs = cos.dim(D::Minus1)?;
    let part = v.narrow(D::Minus1, 0, 2 * pairs)?;
    let (one, other) = match rope.interleaved {
        false => (part.narrow(D::Minus1, 0, pairs)?, part.narrow(D::Minus1, pairs, pairs)?),
        true => {
            let both = part.reshape((heads, n, pairs, 2))?;
            (both.narrow(D::Minus1, 0, 1)?.squeeze(D::Minus1)?, both.narrow(D::Minus1, 1, 1)?.squeeze(D::Minus1)?)
        }
    };
    let turned_one = (one.broadcast_mul(cos)? - other.broadcast_mul(sin)?)?;
    let turned_other = (other.broadcast_mul(cos)? + one.broadcast_mul(sin)?)?;
    let joined = match rope.interleaved {
        false => Tensor::cat(&[&turned_one, &turned_other], D::Minus1)?,
        true => Tensor::stack(&[&turned_one, &turned_other], D::Minus1)?.reshape((heads, n, 2 * pairs))?,
    };
    match 2 * pairs == d {
        true => joined.contiguous(),
        false => Tensor::cat(&[&joined, &v.narrow(D::Minus1, 2 * pairs, d - 2 * pairs)?], D::Minus1),
    }
}

impl LanguageEngine for CandleLanguage {
    fn facts(&self) -> Facts {
        let bytes = |t: &Tensor| t.elem_count() * DType::F32.size_in_bytes();
        let held = self.slots.iter().flatten().flatten().map(|(k, v)| bytes(k) + bytes(v)).sum::<usize>();
        Facts { weight_bytes: self.weight_bytes, state_bytes: held as u64 }
    }

    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn context(&self) -> usize {
        self.context
    }

    fn vocabulary(&self) -> usize {
        self.lowering.graph().outputs.first().map_or(0, |o| o.ty.features)
    }

    fn past(&self, slot: usize) -> usize {
        self.past[slot]
    }

    fn clear(&mut self, slot: usize) {
        self.slots[slot].fill(None);
        self.past[slot] = 0;
    }

    fn feed(&mut self, feeds: &[Feed], wanted: WantedLogits) -> std::result::Result<(), BackendError> {
        check(self, feeds)?;
        let logits = self.run(feeds, wanted).and_then(|logits| logits.flatten_all()?.to_vec1());
        self.logits = logits.map_err(failed)?;
        Ok(())
    }

    fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn number_bytes(&self) -> Option<f64> {
        Some(DType::F32.size_in_bytes() as f64)
    }

    fn copy(&mut self, from: usize, to: usize) -> std::result::Result<(), BackendError> {
        // tensors are never written to: both may hold the same
        self.slots[to] = self.slots[from].clone();
        self.past[to] = self.past[from];
        Ok(())
    }

    fn activate_experts(&mut self, active: Option<usize>) -> bool {
        active.or(self.used).is_none_or(|n| self.lowering.graph_mut().activate_experts(n))
    }
}
