//! Gated MLPs as one operator each: both products, the gate between them, residual and norm. In: activations and packed weights. Out: activations, written once;
//! what lies between stays in scratch memory of a thread, near its core.
//!
//! Along the features a thread takes some rows through the whole MLP; along the tokens it takes some features of an example.

mod scalar;
mod vector;

use crate::block::{Block, Rows, scratch};
use crate::ctx::{Ctx, streamed};
use crate::format::Format;
use crate::isa::Isa;
use crate::linear::pack::{PackedLinear, PackedTokens, Panels};
use crate::linear::padded_rows;
use crate::vector::dispatch;
use crate::vector::product::tiled;
use crate::vector::tile::WIDE;

dispatch! {
    fn features(format: Format, x: Option<Rows<'_>>, up: Panels<'_>, down: Panels<'_>, norm: Option<f32>, out: Block<'_>, memory: &mut [u32]) {
        scalar::features | vector::features
    }
}
dispatch! {
    fn tokens(x: Option<Rows<'_>>, up: &PackedTokens, down: &PackedTokens, norm: Option<f32>, out: Block<'_>, memory: &mut [u32]) {
        scalar::tokens | vector::tokens
    }
}

/// `y = x + W_down · (silu(g) · u)` with `[g, u] = W_up · x` along the features, and `out = rms(y)`, if there is a `norm` (its epsilon); without a norm
/// `out = y - x`. `x`, `out`: `[m, d]`; without an `x` it is what `out` holds. `up` is packed as gated: `[2·inner, d]`; `down`: `[d, inner]`.
///
/// # Panics
/// If a length does not fit, or weights are packed for another instruction set or in different formats.
pub fn gated_mlp(
    ctx: &Ctx,
    x: Option<&[f32]>,
    up: &PackedLinear,
    down: &PackedLinear,
    norm: Option<f32>,
    out: &mut [f32],
) {
    let (d, inner) = (up.k, up.n / 2);
    check(ctx, up, down, d);
    assert!(out.len().is_multiple_of(d), "gated_mlp: output is not [m, {d}]");
    assert!(x.is_none_or(|x| x.len() == out.len()), "gated_mlp: input differs in length");
    let threads = ctx.parts(streamed(out.len() * 3 * inner));
    let high = (out.len() / d).div_ceil(threads);
    ctx.cells(out, d, (high, d), threads, |(row, _), block| {
        rows_of(ctx, x.map(|x| Rows::new(x, d).from(row)), up, down, norm, block);
    });
}

/// The weights are those of a gated MLP of `d` features here.
pub(crate) fn check(ctx: &Ctx, up: &PackedLinear, down: &PackedLinear, d: usize) {
    let inner = up.n / 2;
    assert!(up.gated && !down.gated, "gated_mlp: the first weight is packed as gated, the second is not");
    assert!(up.isa == ctx.isa() && down.isa == ctx.isa(), "gated_mlp: weights were packed for another instruction set");
    assert!(up.format == down.format, "gated_mlp: weights of two formats");
    assert!(
        d > 0 && up.k == d && (down.n, down.k) == (d, inner),
        "gated_mlp: the weights are not [2·{inner}, {d}] and back"
    );
}

/// [`gated_mlp`] of a block of whole rows, on this thread.
pub(crate) fn rows_of(
    ctx: &Ctx,
    x: Option<Rows<'_>>,
    up: &PackedLinear,
    down: &PackedLinear,
    norm: Option<f32>,
    block: Block<'_>,
) {
    let words = if ctx.isa() == Isa::Scalar { 0 } else { vector::features_memory(up, down, block.rows()) };
    scratch(words, |memory| features(ctx.proof(), up.format, x, up.view(), down.view(), norm, block, memory));
}

/// Operations that [`gated_mlp`] executes on `m` rows, in its products.
pub fn gated_mlp_operations(ctx: &Ctx, m: usize, up: &PackedLinear, down: &PackedLinear) -> f64 {
    let threads = ctx.parts(streamed(m * up.k * 3 * (up.n / 2)));
    let high = m.div_ceil(threads).max(1);
    let cells = (0..m).step_by(high).map(|first| high.min(m - first));
    let chunks = cells.flat_map(|rows| {
        let most = vector::chunk(up.groups, down.groups, rows).max(1);
        (0..rows).step_by(most).map(move |first| most.min(rows - first))
    });
    chunks.map(|rows| padded_rows(ctx, up.format, rows)).map(|rows| up.operations(rows) + down.operations(rows)).sum()
}

/// [`gated_mlp`] along the tokens: each feature of an example is a vector of `t` tokens. `x`, `out`: `[batch, t, d]`; `up: [2·inner, t]`, gates first;
/// `down: [t, inner]`. The norm is over the tokens.
///
/// # Panics
/// As [`gated_mlp`].
pub fn token_mlp(
    ctx: &Ctx,
    x: Option<&[f32]>,
    up: &PackedTokens,
    down: &PackedTokens,
    norm: Option<f32>,
    d: usize,
    out: &mut [f32],
) {
    let (t, inner) = (up.t, up.n / 2);
    assert!(up.isa == ctx.isa() && down.isa == ctx.isa(), "token_mlp: weights were packed for another instruction set");
    assert!(up.format == down.format, "token_mlp: weights of two formats");
    assert!(up.gated && !down.gated, "token_mlp: the first weight is packed as gated, the second is not");
    assert!(up.n == 2 * inner && (down.n, down.t) == (t, inner), "token_mlp: the second weight is not [{t}, {inner}]");
    assert!(t * d > 0 && out.len().is_multiple_of(t * d), "token_mlp: output is not [batch, {t}, {d}]");
    assert!(x.is_none_or(|x| x.len() == out.len()), "token_mlp: input differs in length");
    let threads = ctx.parts(streamed(out.len() * 3 * inner));
    let wide = token_columns(out.len() / (t * d), d, threads);
    ctx.cells(out, d, (t, wide), threads, |(row, col), block| {
        let x = x.map(|x| Rows::new(x, d).from(row).columns(col));
        let words = vector::tokens_memory(up, down);
        scratch(if ctx.isa() == Isa::Scalar { 0 } else { words }, |memory| {
            tokens(ctx.proof(), x, up, down, norm, block, memory);
        });
    });
}

/// Columns of a cell: whole pairs of panels, as few cells as leave every thread its share.
fn token_columns(batch: usize, d: usize, threads: usize) -> usize {
    let parts = threads.div_ceil(batch.max(1));
    d.div_ceil(parts).next_multiple_of(WIDE)
}

/// Operations that [`token_mlp`] executes on `batch` examples of `d` features, in its products.
pub fn token_mlp_operations(ctx: &Ctx, batch: usize, up: &PackedTokens, down: &PackedTokens, d: usize) -> f64 {
    let (format, per) = (up.format, up.format.per_word());
    if ctx.isa() == Isa::Scalar {
        return 2.0 * (batch * d) as f64 * (up.n * up.t + down.n * down.t) as f64;
    }
    // cells begin at whole pairs of panels, so cutting adds none; gates and the rest are tiles of their own
    let columns = (batch * d.next_multiple_of(WIDE)) as f64;
    let padded = |n: usize, high: usize| if tiled(ctx.isa(), format) { n.next_multiple_of(high) } else { n };
    let up_words = 2 * padded(up.n / 2, up.layout.high) * up.layout.groups;
    let down_words = padded(down.n, down.layout.high) * down.layout.groups;
    2.0 * columns * ((up_words + down_words) * per) as f64
}
