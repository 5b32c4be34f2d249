//! Gated MLPs as one operator each: both products, the gate between them, residual and norm. In: activations and packed
//! weights. Out: activations, written once. Hidden values stay in scratch memory of a thread, in its core's caches.
//!
//! Along the features a thread takes some rows through the whole MLP or, where fetching the weights would take most of
//! its time, some columns of each product. Along the tokens it takes some features of an example.
//!
//! Columns are chosen where fetching all weights would take each thread's time (tiles and few rows, or on AVX2 long
//! weights; `columns_are_cheaper` in `linear`).

mod features;
mod scalar;
mod tokens;

use std::ops::Range;

use crate::context::{Context, streamed};
use crate::isa::Isa;
use crate::linear::pack::{PackedLinear, PackedTokens, Panels};
use crate::linear::{columns_are_cheaper, padded_rows};
use crate::matrix::{MatMut, MatRef, SharedWords, scratch, shared_scratch};
use crate::norm;
use crate::number_format::NumberFormat;
use crate::vector::dispatch;
use crate::vector::operand::RowSource;
use crate::vector::product::tiled;
use crate::vector::tile::NR;

dispatch! {
    fn hidden(format: NumberFormat, x: RowSource<'_, '_>, rows: usize, up: Panels<'_>, part: Range<usize>, down: (usize, usize), hidden: SharedWords<'_>, memory: &mut [u32]) {
        scalar::hidden | features::hidden
    }
}
dispatch! {
    fn outputs(format: NumberFormat, hidden: &[u32], down: Panels<'_>, x: Option<MatRef<'_>>, add: bool, norm: Option<f32>, out: MatMut<'_>, memory: &mut [u32]) {
        scalar::outputs | features::outputs
    }
}
dispatch! {
    fn tokens(x: Option<MatRef<'_>>, up: &PackedTokens, down: &PackedTokens, norm: Option<f32>, out: MatMut<'_>, memory: &mut [u32]) {
        scalar::tokens | tokens::tokens
    }
}

/// `y = x + W_down · (silu(g) · u)` with `[g, u] = W_up · x` along the features, and `out = rms(y)`, if there is a
/// `norm` (its epsilon); without a norm `out = y - x`. `x`, `out`: `[m, d]`; without an `x`, `out` holds it. `up` is
/// packed as gated: `[2·inner, d]`; `down`: `[d, inner]`.
///
/// # Panics
/// If a length does not fit, or weights are packed for another instruction set or in different formats.
pub fn gated_mlp(
    ctx: &Context,
    x: Option<&[f32]>,
    up: &PackedLinear,
    down: &PackedLinear,
    norm: Option<f32>,
    out: &mut [f32],
) {
    let d = up.k;
    check(ctx, up, down, d);
    assert!(out.len().is_multiple_of(d), "gated_mlp: output is not [m, {d}]");
    assert!(x.is_none_or(|x| x.len() == out.len()), "gated_mlp: input differs in length");
    let m = out.len() / d;
    match split(ctx, m, up, down) {
        Split::Rows(threads) => ctx.cells(out, d, (m.div_ceil(threads), d), threads, |(row, _), block| {
            rows_of(ctx, x.map(|x| MatRef::new(x, d).from(row)), up, down, norm, block);
        }),
        Split::Columns(threads) => columns_of(ctx, threads, x, up, down, norm, out),
    }
}

/// What each of a number of threads takes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Split {
    /// Some rows, through the whole MLP.
    Rows(usize),
    /// All rows, and some columns of each product: each thread reads its own part of the weights, and waits for the
    /// others between the products.
    Columns(usize),
}

fn split(ctx: &Context, m: usize, up: &PackedLinear, down: &PackedLinear) -> Split {
    let threads = ctx.parts(streamed(3 * m * up.k * down.k));
    let words = up.data.len() + down.data.len();
    // the output has the fewest panels
    let panels = down.n.div_ceil(NR);
    let chunk = |rows| features::chunk(up, down, rows);
    if columns_are_cheaper(ctx, up.format, threads, m, words, panels, chunk) {
        Split::Columns(threads)
    } else {
        Split::Rows(threads)
    }
}

/// Panics unless the weights are those of a gated MLP of `d` features, packed for this context.
pub(crate) fn check(ctx: &Context, up: &PackedLinear, down: &PackedLinear, d: usize) {
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
    ctx: &Context,
    x: Option<MatRef<'_>>,
    up: &PackedLinear,
    down: &PackedLinear,
    norm: Option<f32>,
    mut block: MatMut<'_>,
) {
    let most = features::chunk(up, down, block.rows());
    let of_hidden = features::hidden_words(up, down, most);
    scratch(of_hidden + features::memory(up, down, most), |memory| {
        let (words, memory) = memory.split_at_mut(of_hidden);
        for first in (0..block.rows()).step_by(most.max(1)) {
            let rows = most.min(block.rows() - first);
            let (x, out) = (x.map(|x| x.from(first)), block.part(first, first + rows));
            let (proof, format, all) = (ctx.proof(), up.format, 0..up.view().pairs);
            let source = x.map_or(RowSource::Own(&out), RowSource::Rows);
            // SAFETY: this thread alone writes it.
            let shared = unsafe { SharedWords::new(words) };
            hidden(proof, format, source, rows, up.view(), all, (down.k, down.groups), shared, memory);
            outputs(proof, format, words, down.view(), x, norm.is_some(), norm, out, memory);
        }
    });
}

/// [`gated_mlp`] with each thread's share of the columns of both products.
fn columns_of(
    ctx: &Context,
    threads: usize,
    x: Option<&[f32]>,
    up: &PackedLinear,
    down: &PackedLinear,
    norm: Option<f32>,
    out: &mut [f32],
) {
    let (d, proof, format) = (up.k, ctx.proof(), up.format);
    let m = out.len() / d;
    let most = features::chunk(up, down, m).max(1);
    let memory = features::memory(up, down, most);
    // hidden columns that fill whole cache lines
    let pairs = up.view().pairs;
    let share = pairs.div_ceil(threads).next_multiple_of(2);
    let columns = d.div_ceil(NR).div_ceil(threads) * NR;
    shared_scratch(features::hidden_words(up, down, most), |words| {
        for first in (0..m).step_by(most) {
            let rows = most.min(m - first);
            let source = MatRef::new(&x.unwrap_or(out)[first * d..], d);
            // SAFETY: the parts of the panels below do not overlap, so the columns that they make do not either, and
            // `hidden` touches no others; they are read after the run.
            let shared = unsafe { SharedWords::new(words) };
            ctx.pool().run_on(threads, pairs.div_ceil(share), &|i| {
                let part = i * share..pairs.min((i + 1) * share);
                scratch(memory, |memory| {
                    let (source, down) = (RowSource::Rows(source), (down.k, down.groups));
                    hidden(proof, format, source, rows, up.view(), part, down, shared, memory);
                });
            });
            let x = x.map(|x| MatRef::new(x, d).from(first));
            let out = &mut out[first * d..(first + rows) * d];
            ctx.cells(out, d, (rows, columns), threads, |(_, col), block| {
                let (panels, x) = (down.view().from(col, ctx.isa() == Isa::Scalar), x.map(|x| x.columns(col)));
                scratch(memory, |memory| {
                    outputs(proof, format, words, panels, x, norm.is_some(), None, block, memory);
                });
            });
        }
    });
    if let Some(eps) = norm {
        ctx.cells(out, d, (m.div_ceil(threads), d), threads, |_, mut block| {
            (0..block.rows()).for_each(|i| norm::rms_row(proof, block.row(i), None, None, eps));
        });
    }
}

/// Operations that [`gated_mlp`] executes on `m` rows, in its products.
pub fn gated_mlp_operations(ctx: &Context, m: usize, up: &PackedLinear, down: &PackedLinear) -> f64 {
    let cell = match split(ctx, m, up, down) {
        Split::Rows(threads) => m.div_ceil(threads).max(1),
        // cutting columns adds no padding
        Split::Columns(_) => m.max(1),
    };
    let cells = (0..m).step_by(cell).map(|first| cell.min(m - first));
    let chunks = cells.flat_map(|rows| {
        let most = features::chunk(up, down, rows).max(1);
        (0..rows).step_by(most).map(move |first| most.min(rows - first))
    });
    chunks.map(|rows| padded_rows(ctx, up.format, rows)).map(|rows| up.operations(rows) + down.operations(rows)).sum()
}

/// [`gated_mlp`] along the tokens: each feature of an example is a vector of `t` tokens. `x`, `out`: `[batch, t, d]`;
/// `up: [2·inner, t]`, gates first; `down: [t, inner]`. The norm is over the tokens.
///
/// # Panics
/// As [`gated_mlp`].
pub fn token_mlp(
    ctx: &Context,
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
    let columns = token_columns(out.len() / (t * d), d, threads);
    ctx.cells(out, d, (t, columns), threads, |(row, col), block| {
        let x = x.map(|x| MatRef::new(x, d).from(row).columns(col));
        let words = tokens::memory(up, down);
        scratch(if ctx.isa() == Isa::Scalar { 0 } else { words }, |memory| {
            tokens(ctx.proof(), x, up, down, norm, block, memory);
        });
    });
}

/// Columns of a cell: whole pairs of panels, in as few cells as give every thread a share.
fn token_columns(batch: usize, d: usize, threads: usize) -> usize {
    let parts = threads.div_ceil(batch.max(1));
    d.div_ceil(parts).next_multiple_of(NR)
}

/// Operations that [`token_mlp`] executes on `batch` examples of `d` features, in its products.
pub fn token_mlp_operations(ctx: &Context, batch: usize, up: &PackedTokens, down: &PackedTokens, d: usize) -> f64 {
    let (format, per) = (up.format, up.format.per_word());
    if ctx.isa() == Isa::Scalar {
        return 2.0 * (batch * d) as f64 * (up.n * up.t + down.n * down.t) as f64;
    }
    // cells begin at whole pairs of panels, so cutting adds no padding; gates and the rest are in tiles of their own
    let columns = (batch * d.next_multiple_of(NR)) as f64;
    let padded = |n: usize, mr: usize| if tiled(ctx.isa(), format) { n.next_multiple_of(mr) } else { n };
    let up_words = 2 * padded(up.n / 2, up.layout.mr) * up.layout.groups;
    let down_words = padded(down.n, down.layout.mr) * down.layout.groups;
    2.0 * columns * ((up_words + down_words) * per) as f64
}
