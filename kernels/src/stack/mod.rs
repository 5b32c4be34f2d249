//! All layers of a decoder for a few new tokens, one of each sequence, in one run of the threads. In: rows of f32, layers whose
//! weights lie in blocks, caches. Out: the keys and values in the caches, and the products of a head. Must not: know a model or a file.
//!
//! It computes what [`rms_norm`](crate::rms_norm), [`blocks_joined`](crate::blocks_joined), [`cached_append`](crate::cached_append),
//! [`cached_attention`](crate::cached_attention), [`gated`](crate::gated) and [`add_in_place`](crate::add_in_place) do one after
//! another, with the same bits. With a few rows these are short, and what lies between the products leaves the memory idle. So
//! here every thread stays at work over all layers, and waits five times a layer for the others: after queries, keys and values, after
//! attention, and after each of the three other products. Norms, and the rounding of their rows to int8, every thread does for
//! itself: that takes less time than to fetch them from another. A thread attends with whole key heads, so that nobody waits
//! between a new key and its use; it rounds what it attended, and what gates made of the columns that it multiplied. At the end of
//! each product it asks for the beginning of the next one's weights.

mod member;
#[cfg(test)]
mod tests;

use std::time::Instant;

use self::member::StackStep;
use crate::activation::ActivationKind;
use crate::blocks::activations::RECORD;
use crate::blocks::format::BLOCK;
use crate::blocks::pack::PackedBlocks;
use crate::blocks::{PER_VALUE, pack};
use crate::cached::{CachedScores, HeadGains, HeadTurns, KvCache, TokenPlace};
use crate::context::Context;
use crate::isa::{Isa, Proof};
use crate::matrix::{SharedWords, shared_scratch};
use crate::norm::{layer_row, rms_row};
use crate::pool::SendPtr;
use crate::team::TeamBarrier;

/// A norm along the features of a row.
#[derive(Clone, Copy)]
pub struct RowNorm<'a> {
    /// Factor of each feature.
    pub gain: &'a [f32],
    /// Added to each feature: then the mean is subtracted first, and the norm is by the variance; else by the mean square.
    pub bias: Option<&'a [f32]>,
    /// Added to variance or mean square.
    pub eps: f32,
}

impl RowNorm<'_> {
    fn apply(&self, proof: Proof, row: &mut [f32]) {
        match self.bias {
            Some(_) => layer_row(proof, row, Some(self.gain), self.bias, self.eps),
            None => rms_row(proof, row, None, Some(self.gain), self.eps),
        }
    }

    fn fits(&self, width: usize) -> bool {
        self.gain.len() == width && self.bias.is_none_or(|b| b.len() == width)
    }
}

/// A layer: `x += after(out(attention(norm(x))))`, then `x += after(down(act(gate(norm(x))) ⊙ up(norm(x))))`. Weights of unlike
/// formats lie one after another.
#[derive(Clone, Copy)]
pub struct StackLayer<'a> {
    /// The norm before attention.
    pub attention_norm: RowNorm<'a>,
    /// Queries, keys, values: `[(heads + 2 · kv_heads) · head_dim, width]`.
    pub qkv: &'a [PackedBlocks],
    /// Norms of heads.
    pub head_gains: Option<HeadGains<'a>>,
    /// How queries and keys of the new tokens turn.
    pub turns: Option<HeadTurns<'a>>,
    /// Scores of attention.
    pub scores: CachedScores,
    /// `[width, heads · head_dim]`
    pub output: &'a [PackedBlocks],
    /// The norm after it, if any.
    pub output_norm: Option<RowNorm<'a>>,
    /// The norm before the gated product.
    pub mlp_norm: RowNorm<'a>,
    /// What gates are activated by.
    pub kind: ActivationKind,
    /// Gates, then values: one weight `[2 · inner, width]`, or two `[inner, width]`.
    pub gate_up: &'a [PackedBlocks],
    /// `[width, inner]`
    pub down: &'a [PackedBlocks],
    /// The norm after it, if any.
    pub down_norm: Option<RowNorm<'a>>,
}

/// What follows the last layer: `logits = head(norm(x))`.
#[derive(Clone, Copy)]
pub struct StackHead<'a> {
    /// The norm before.
    pub norm: RowNorm<'a>,
    /// `[outputs, width]`
    pub head: &'a [PackedBlocks],
}

impl StackLayer<'_> {
    /// Whether [`layers_step`] can compute the layer over these heads, on this instruction set: rows, heads and what gates give are
    /// whole blocks of 32, and there are vectors.
    pub fn fits(&self, ctx: &Context, kv_heads: usize, head_dim: usize) -> bool {
        let (Some(qkv), Some(output)) = (self.qkv.first(), self.output.first()) else { return false };
        let (Some(gate), Some(down)) = (self.gate_up.first(), self.down.first()) else { return false };
        let (width, queries, inner) = (qkv.k, output.k, down.k);
        let gates = match self.gate_up {
            [both] => both.n == 2 * inner,
            [gate, up] => gate.n == inner && up.n == inner,
            _ => false,
        };
        ctx.isa() != Isa::Scalar
            && gates
            && gate.k == width
            && outputs(self.qkv) == queries + 2 * kv_heads * head_dim
            && outputs(self.output) == width
            && outputs(self.down) == width
            && kv_heads > 0
            && queries.is_multiple_of(kv_heads * head_dim)
            && [width, head_dim, inner].iter().all(|n| n.is_multiple_of(BLOCK) && *n > 0)
    }

    /// Multiply-adds of a row with the weights.
    fn multiply_adds(&self) -> usize {
        [self.qkv, self.output, self.gate_up, self.down].into_iter().flatten().map(|w| w.n * w.k).sum()
    }
}

fn outputs(weights: &[PackedBlocks]) -> usize {
    weights.iter().map(|w| w.n).sum()
}

/// One token of each of some sequences through all layers. `x: [rows, width]`, a row for each sequence; `caches`: of each layer one
/// for each row; to each a token is added. `logits: [rows, outputs of the head]`. False where threads waited long for others that had no
/// processor: then the operators one after another, whose threads do what others have not begun, take less time.
///
/// # Panics
/// If a length does not fit, a layer does not [fit](StackLayer::fits), caches differ in their heads, or one would hold more than it
/// may.
pub fn layers_step(
    ctx: &Context,
    layers: &[StackLayer<'_>],
    caches: Vec<Vec<&mut KvCache>>,
    head: &StackHead<'_>,
    x: &[f32],
    logits: &mut [f32],
) -> bool {
    let begun = Instant::now();
    let width = head.head.first().map_or(0, |w| w.k);
    assert!(width > 0 && head.norm.fits(width), "layers_step: a head without rows, or a norm of another width");
    let rows = x.len() / width;
    assert_eq!(x.len(), rows * width, "layers_step: input is not whole rows of {width}");
    assert_eq!(logits.len(), rows * outputs(head.head), "layers_step: logits do not fit");
    assert_eq!(caches.len(), layers.len(), "layers_step: caches of as many layers as there are");
    if rows == 0 {
        return true;
    }
    let first = caches.first().and_then(|layer| layer.first());
    let (kv_heads, head_dim) = first.map_or((1, BLOCK), |cache| (cache.kv_heads(), cache.head_dim()));
    layers.iter().for_each(|layer| check(ctx, layer, (kv_heads, head_dim), (rows, width)));
    let all = layers.iter().flat_map(|l| [l.qkv, l.output, l.gate_up, l.down]).chain([head.head]).flatten();
    all.for_each(|w| assert_eq!(w.isa, ctx.isa(), "layers_step: weight was packed for another instruction set"));

    let caches: Vec<Vec<Held>> = caches
        .into_iter()
        .map(|layer| {
            assert_eq!(layer.len(), rows, "layers_step: a cache for each row");
            layer.into_iter().map(|cache| Held::new(cache, (kv_heads, head_dim))).collect()
        })
        .collect();
    let queries = layers.iter().map(|l| l.output[0].k).max().unwrap_or(0);
    let inner = layers.iter().map(|l| l.down[0].k).max().unwrap_or(0);
    let joined = queries + 2 * kv_heads * head_dim;
    // one product of the middle size decides how many threads are worth it
    let work = layers.iter().map(|l| l.multiply_adds() / 4).max().unwrap_or(0);
    let threads = ctx.parts(rows * work.max(head.head.iter().map(|w| w.n * w.k).sum::<usize>() / 16) / PER_VALUE);
    let barrier = TeamBarrier::new(threads);
    let records = |k: usize| rows * (k / BLOCK) * RECORD;
    let lengths = [rows * joined, rows * width, records(queries), records(inner)].map(|n| n.next_multiple_of(LINE));
    let logits = SendPtr(logits.as_mut_ptr());
    shared_scratch(lengths.iter().sum(), |memory| {
        // SAFETY: members write words that no other uses before they have met at the barrier.
        let shared = unsafe { SharedWords::new(memory) };
        let [joined, sums, attended, made] = starts(lengths);
        let work = StackStep {
            proof: ctx.proof(),
            isa: ctx.isa(),
            layers,
            caches: &caches,
            head,
            x,
            logits,
            rows,
            width,
            heads: (kv_heads, head_dim),
            shared,
            joined,
            sums,
            attended,
            made,
        };
        ctx.pool().team(threads, &|i, n| work.run(&barrier.member(i, n), i, n));
    });
    barrier.late() < begun.elapsed() / 8
}

/// Words that are whole lines of a cache, so that no two parts share one.
const LINE: usize = 32;

fn starts(lengths: [usize; 4]) -> [usize; 4] {
    let mut begin = 0;
    lengths.map(|n| {
        begin += n;
        begin - n
    })
}

fn check(ctx: &Context, layer: &StackLayer<'_>, (kv_heads, head_dim): (usize, usize), (rows, width): (usize, usize)) {
    assert!(layer.fits(ctx, kv_heads, head_dim), "layers_step: a layer does not fit");
    assert!(layer.qkv[0].k == width, "layers_step: layers differ in width");
    for (weights, k) in
        [(layer.qkv, width), (layer.output, layer.output[0].k), (layer.gate_up, width), (layer.down, layer.down[0].k)]
    {
        assert!(weights.iter().all(|w| w.k == k), "layers_step: weights of one input differ in k");
    }
    let norms = [Some(layer.attention_norm), layer.output_norm, Some(layer.mlp_norm), layer.down_norm];
    assert!(norms.iter().flatten().all(|norm| norm.fits(width)), "layers_step: norms are not of {width} features");
    if let Some(turns) = layer.turns {
        let wanted = rows * turns.pairs;
        assert!(2 * turns.pairs <= head_dim, "layers_step: {} pairs in heads of {head_dim}", turns.pairs);
        assert!(turns.cos.len() == wanted && turns.sin.len() == wanted, "layers_step: turns are not [{rows}, pairs]");
    }
    if let Some(gains) = layer.head_gains {
        assert!(gains.q.len() == head_dim && gains.k.len() == head_dim, "layers_step: gains are not [{head_dim}]");
    }
    debug_assert!(pack::ROWS.is_multiple_of(BLOCK / 2), "a block of columns is whole panels");
}

/// A cache to which a token is added, whose key and value are written later.
struct Held<'a> {
    cache: &'a KvCache,
    place: TokenPlace,
    /// Tokens before.
    past: usize,
}

impl<'a> Held<'a> {
    fn new(cache: &'a mut KvCache, heads: (usize, usize)) -> Held<'a> {
        assert_eq!((cache.kv_heads(), cache.head_dim()), heads, "layers_step: caches differ in heads");
        let past = cache.len();
        cache.reserve(1);
        let place = TokenPlace::new(cache, past);
        cache.grow(1);
        Held { cache, place, past }
    }
}
