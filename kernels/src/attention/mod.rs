//! Attention over packed query, key and value rows, with rotary embedding and softmax. In: `qkv` rows. Out: one row of
//! all heads per token. Must not: keep keys or values from one call to the next.

mod projected;
mod scalar;
mod vector;

pub use projected::{PackedHeads, projected_attention, projected_attention_operations};

use std::ops::Range;

use crate::context::{Context, streamed};
use crate::isa::Isa;
use crate::linear::tile_rows;
use crate::matrix::{MatMut, MatRef, scratch};
use crate::number_format::NumberFormat;
use crate::vector::dispatch;
use crate::vector::product::tiled;
use crate::vector::tile::NR;

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
    /// With a window: the first so many tokens see all keys and are seen by all queries, as the global tokens of
    /// Longformer (arXiv 2004.05150) and BigBird (arXiv 2007.14062); where causal, at or before the query.
    pub globals: usize,
}

impl Mask {
    /// The keys of `0..t` that query `i` sees: globals, then the rest; either may be empty, and they do not overlap.
    fn keys(self, i: usize, t: usize) -> [Range<usize>; 2] {
        let reach = if i < self.globals { t } else { self.window.unwrap_or(t) };
        let end = if self.causal { i + 1 } else { t }.min(i.saturating_add(reach));
        let start = (i + 1).saturating_sub(reach).min(end);
        let globals = if self.window.is_some() { self.globals.min(start) } else { 0 };
        [0..globals, start..end]
    }

    /// Number of keys that query `i` sees.
    fn count(self, i: usize, t: usize) -> usize {
        self.keys(i, t).iter().map(Range::len).sum()
    }

    /// The range from the first to the last key that queries `first..end` see.
    fn hull(self, first: usize, end: usize, t: usize) -> Range<usize> {
        let seen = (first..end).flat_map(|i| self.keys(i, t)).filter(|keys| !keys.is_empty());
        seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
    }

    fn hides_nothing(self, t: usize) -> bool {
        !self.causal && self.window.is_none_or(|window| window >= t)
    }
}

dispatch! {
    fn head(format: NumberFormat, q: MatRef<'_>, k: MatRef<'_>, v: MatRef<'_>, rope: Option<RopeTables<'_>>, mask: Mask, scale: f32, out: MatMut<'_>, memory: &mut [u32]) {
        scalar::head | vector::head
    }
}

/// Rotary embedding of queries and keys: `x · cos + rotate_half(x) · sin`, with `rotate_half([a, b]) = [-b, a]` (Su et
/// al., arXiv 2104.09864).
#[derive(Clone, Copy)]
pub struct RopeTables<'a> {
    /// Cosines of the angles of each position: `[t, head_dim]`, both halves of a row equal.
    pub cos: &'a [f32],
    /// Their sines, in the same shape.
    pub sin: &'a [f32],
}

/// Operations that [`attention`] executes in its two products on one example of `t` tokens: two for every multiply-add,
/// padding of tiles and panels included. A pair of tiles of queries is multiplied with every key between the first and
/// the last that one of them sees.
pub fn attention_operations(ctx: &Context, format: NumberFormat, t: usize, heads: Heads, mask: Mask) -> f64 {
    let (dim, format) = (heads.head_dim, product_format(format));
    if ctx.isa() == Isa::Scalar {
        return 4.0 * heads.heads as f64 * (0..t).map(|i| mask.count(i, t) * dim).sum::<usize>() as f64;
    }
    let plan = vector::HeadPlan::new(ctx.isa(), tile_rows(ctx.isa(), format), format, t, dim);
    let padded = tiled(ctx.isa(), format);
    let mut sum = 0;
    let mut first = 0;
    for pair in 0..t.div_ceil(2 * plan.mr()) {
        let end = plan.pair_end(pair);
        let rows = if padded { (end - first).div_ceil(plan.mr()) * plan.mr() } else { end - first };
        let hull = mask.hull(first, end, t);
        let (panels, words) = (plan.panels(&hull), plan.words(&hull));
        sum += rows * format.per_word() * NR * (panels.len() * plan.keys.groups + words.len() * dim.div_ceil(NR));
        first = end;
    }
    2.0 * (heads.heads * sum) as f64
}

/// Attention multiplies bf16 where linear layers multiply int8: both operands are activations, which would have to be
/// quantised in each call, and rows of a head are short.
fn product_format(format: NumberFormat) -> NumberFormat {
    if format == NumberFormat::Int8 { NumberFormat::Bf16 } else { format }
}

/// Words of scratch memory for a head.
fn memory(ctx: &Context, format: NumberFormat, t: usize, dim: usize) -> usize {
    match ctx.isa() {
        Isa::Scalar => t,
        isa => vector::HeadPlan::new(isa, tile_rows(isa, format), format, t, dim).memory(),
    }
}

/// Query heads that share a key head.
fn group(whose: &str, Heads { heads, kv_heads, .. }: Heads) -> usize {
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{whose}: {heads} query heads for {kv_heads} key heads");
    heads / kv_heads
}

fn check_rope(whose: &str, rope: Option<RopeTables<'_>>, t: usize, dim: usize) {
    if let Some(rope) = rope {
        assert!(dim.is_multiple_of(2), "{whose}: head_dim {dim} is odd and cannot be rotated");
        assert!(rope.cos.len() == t * dim && rope.sin.len() == t * dim, "{whose}: tables are not [{t}, {dim}]");
    }
}

/// `out[i] = Σ_j softmax_j(scale · q[i]·k[j]) v[j]` for each example and head, over the keys that `mask` lets query i
/// see (none: zeros), after rotary embedding of queries and keys where there is a `rope`. `qkv: [batch, t,
/// heads.row()]`, `out: [batch, t, heads·head_dim]`. Both products multiply in `format` (int8: bf16). Packs into
/// scratch memory that each thread keeps.
///
/// # Panics
/// If a length does not fit, or `heads` is not a multiple of `kv_heads`.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    ctx: &Context,
    format: NumberFormat,
    qkv: &[f32],
    t: usize,
    heads: Heads,
    rope: Option<RopeTables<'_>>,
    mask: Mask,
    scale: f32,
    out: &mut [f32],
) {
    let (row, dim, format) = (heads.row(), heads.head_dim, product_format(format));
    assert!(t * row > 0 && qkv.len().is_multiple_of(t * row), "attention: qkv is not [batch, {t}, {row}]");
    let group = group("attention", heads);
    check_rope("attention", rope, t, dim);
    let width = heads.heads * dim;
    assert_eq!(out.len(), qkv.len() / row * width, "attention: output is not [batch, {t}, {width}]");
    let memory = memory(ctx, format, t, dim);
    let threads = ctx.parts(streamed(2 * t * out.len()));
    ctx.cells(out, width, (t, dim), threads, |(first, col), block| {
        let rows = MatRef::new(qkv, row).from(first);
        let shared = col / dim / group.max(1) * dim;
        let (q, k) = (rows.columns(col), rows.columns(width + shared));
        let v = rows.columns(width + heads.kv_heads * dim + shared);
        scratch(memory, |memory| head(ctx.proof(), format, q, k, v, rope, mask, scale, block, memory));
    });
}
