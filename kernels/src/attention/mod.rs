//! Attention over packed query, key and value rows, with rotary embedding and softmax. In: `qkv` rows. Out: one row of all heads per token.

mod scalar;
mod vector;

use std::ops::Range;

use crate::block::{Block, Rows, scratch};
use crate::ctx::{Ctx, streamed};
use crate::isa::Isa;
use crate::vector::dispatch;
use crate::vector::product::packed_len;

/// The heads in a packed row: all query heads, all key heads, all value heads, each `head_dim` long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Heads {
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads; query head h reads number `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Values in a head.
    pub head_dim: usize,
}

impl Heads {
    /// Length of a packed row.
    pub fn row(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mask {
    /// Only keys at or before the query.
    pub causal: bool,
    /// Only keys less than this far from the query, itself included.
    pub window: Option<usize>,
}

impl Mask {
    /// The keys of `0..t` that query `i` sees.
    fn keys(&self, i: usize, t: usize) -> Range<usize> {
        let reach = self.window.unwrap_or(t);
        let end = if self.causal { i + 1 } else { t }.min(i.saturating_add(reach));
        let start = (i + 1).saturating_sub(reach);
        start.min(end)..end
    }

    fn hides_nothing(&self, t: usize) -> bool {
        !self.causal && self.window.is_none_or(|window| window >= t)
    }
}

dispatch! {
    fn softmax(x: &mut [f32], scale: f32) { scalar::softmax_row | vector::softmax_row }
}
dispatch! {
    fn rotate(x: &mut [f32], cos: &[f32], sin: &[f32]) { scalar::rotate | vector::rotate }
}
dispatch! {
    fn head(q: Rows<'_>, k: Rows<'_>, v: Rows<'_>, mask: Mask, scale: f32, out: Block<'_>, memory: &mut [f32]) { scalar::head | vector::head }
}

/// `x = softmax(scale · x)` over each row of `d` values, in place.
///
/// # Panics
/// If a length does not fit.
pub fn softmax_rows(ctx: &Ctx, x: &mut [f32], scale: Option<f32>, d: usize) {
    assert!(d > 0 && x.len().is_multiple_of(d), "softmax_rows: not whole rows of {d}");
    let chunk = d * ctx.chunk(x.len() / d, x.len());
    ctx.pool().chunks(x, chunk, |_, rows| {
        for row in rows.chunks_exact_mut(d) {
            softmax(ctx.proof(), row, scale.unwrap_or(1.0));
        }
    });
}

/// Rotates every query and key head in place: `x · cos + rotate_half(x) · sin`, with `rotate_half([a, b]) = [-b, a]`. `qkv: [batch, t, heads.row()]`;
/// `cos`, `sin`: `[t, head_dim]`, both halves of a row alike.
///
/// # Panics
/// If a length does not fit or `head_dim` is odd.
pub fn rope(ctx: &Ctx, qkv: &mut [f32], t: usize, heads: Heads, cos: &[f32], sin: &[f32]) {
    let (row, dim) = (heads.row(), heads.head_dim);
    assert!(t * row > 0 && qkv.len().is_multiple_of(t * row), "rope: qkv is not [batch, {t}, {row}]");
    assert!(dim.is_multiple_of(2), "rope: head_dim {dim} is odd");
    assert!(cos.len() == t * dim && sin.len() == t * dim, "rope: tables are not [{t}, {dim}]");
    let turned = (heads.heads + heads.kv_heads) * dim;
    let chunk = row * ctx.chunk(qkv.len() / row, qkv.len());
    ctx.pool().chunks(qkv, chunk, |index, rows| {
        for (i, row_values) in rows.chunks_exact_mut(row).enumerate() {
            let at = (index * (chunk / row) + i) % t * dim;
            for head in row_values[..turned].chunks_exact_mut(dim) {
                rotate(ctx.proof(), head, &cos[at..at + dim], &sin[at..at + dim]);
            }
        }
    });
}

/// FLOPs that [`attention`] executes in its two products on one example of `t` tokens: two for every multiply-add. Vectors score all keys,
/// hidden ones too, in whole panels, and sum values in whole panels; the twin does neither.
pub fn attention_flops(ctx: &Ctx, t: usize, heads: Heads, mask: Mask) -> f64 {
    let (dim, panel) = (heads.head_dim, ctx.proof().tile().1);
    let seen: usize = (0..t).map(|i| mask.keys(i, t).len()).sum();
    let scores = match ctx.isa() {
        Isa::Scalar => seen as f64 * dim as f64,
        _ => t as f64 * packed_len(dim, t, panel) as f64,
    };
    let sums = seen as f64 * dim.next_multiple_of(panel) as f64;
    2.0 * heads.heads as f64 * (scores + sums)
}

/// `out[i] = Σ_j softmax_j(scale · q[i]·k[j]) v[j]` for each example and head, over the keys that `mask` lets query i see (none: zeros).
/// `qkv: [batch, t, heads.row()]`, `out: [batch, t, heads·head_dim]`. Packs into scratch memory that each thread keeps.
///
/// # Panics
/// If a length does not fit, or `heads` is not a multiple of `kv_heads`.
pub fn attention(ctx: &Ctx, qkv: &[f32], t: usize, heads: Heads, mask: Mask, scale: f32, out: &mut [f32]) {
    let (row, dim) = (heads.row(), heads.head_dim);
    assert!(t * row > 0 && qkv.len().is_multiple_of(t * row), "attention: qkv is not [batch, {t}, {row}]");
    assert!(
        heads.kv_heads > 0 && heads.heads.is_multiple_of(heads.kv_heads),
        "attention: {} query heads for {} key heads",
        heads.heads,
        heads.kv_heads
    );
    let width = heads.heads * dim;
    assert_eq!(out.len(), qkv.len() / row * width, "attention: output is not [batch, {t}, {width}]");
    let group = heads.heads / heads.kv_heads;
    let (high, panel) = ctx.proof().tile();
    let memory = packed_len(dim, t, panel) + packed_len(t, dim, panel) + high * t;
    let threads = ctx.parts(streamed(2 * t * out.len()));
    ctx.cells(out, width, (t, dim), threads, |(first, col), block| {
        let rows = Rows::new(qkv, row).from(first);
        let shared = col / dim / group.max(1) * dim;
        let (q, k) = (rows.columns(col), rows.columns(width + shared));
        let v = rows.columns(width + heads.kv_heads * dim + shared);
        scratch(memory, |memory| head(ctx.proof(), q, k, v, mask, scale, block, memory));
    });
}
