//! Linear layers along the features. In: activations, and weights that were packed once. Out: activations. Must not:
//! change a weight.

pub(crate) mod pack;
pub(crate) mod scalar;
pub(crate) mod vector;

use self::pack::{PackedLinear, Panels};
use crate::context::{Context, streamed};
use crate::isa::Isa;
use crate::matrix::{MatMut, MatRef, scratch};
use crate::number_format::NumberFormat;
use crate::vector::dispatch;
use crate::vector::product::{sums_len, tiled};
use crate::vector::tile::{AVX2_ROWS, NR, even};

dispatch! {
    pub(crate) fn linear_block(format: NumberFormat, x: MatRef<'_>, w: Panels<'_>, bias: Option<&[f32]>, norm: Option<f32>, out: MatMut<'_>, memory: &mut [u32]) {
        scalar::linear | vector::linear
    }
}

/// Words of scratch memory that a product of `rows` rows needs: the sums, and a chunk of rows of A with their scales.
pub(crate) fn memory(ctx: &Context, w: &PackedLinear, rows: usize) -> usize {
    if ctx.isa() == Isa::Scalar {
        return 0;
    }
    let rows = vector::chunk(rows, w.groups);
    let mr = even(rows, tile_rows(ctx.isa(), w.format), 1);
    let sums = sums_len(ctx.isa(), w.format, rows.div_ceil(2 * mr), w.groups);
    sums + rows.next_multiple_of(mr) * (w.groups + 1)
}

/// Most rows of a tile.
pub(crate) fn tile_rows(isa: Isa, format: NumberFormat) -> usize {
    match (isa, format) {
        (Isa::Scalar, _) => 4,
        (Isa::Avx2, NumberFormat::F32) => AVX2_ROWS,
        (Isa::Avx2, _) => 4,
        (Isa::Amx, NumberFormat::Bf16 | NumberFormat::Int8) => 16,
        _ => 12,
    }
}

/// Rows that a thread's product of `rows` rows executes, padding of tiles included.
pub(crate) fn padded_rows(ctx: &Context, format: NumberFormat, rows: usize) -> usize {
    if !tiled(ctx.isa(), format) {
        return rows;
    }
    rows.next_multiple_of(even(rows, tile_rows(ctx.isa(), format), 1))
}

/// How [`linear`] splits its output: rows and columns of a cell.
fn cell(ctx: &Context, m: usize, w: &PackedLinear) -> (usize, usize) {
    let (mr, nr) = (tile_rows(ctx.isa(), w.format), if ctx.isa() == Isa::Scalar { 1 } else { NR });
    let (tiles, panels) = (m.div_ceil(mr), w.n.div_ceil(nr));
    let parts = ctx.parts(streamed(m * w.n * w.k));
    if columns_are_cheaper(ctx, w.format, parts, m, w.data.len(), panels, |rows| vector::chunk(rows, w.groups)) {
        return (m, panels.div_ceil(parts) * nr);
    }
    if m / parts >= mr {
        // the operators before and after split by rows too, so rows stay in their core's caches
        return (m.div_ceil(parts), w.n);
    }
    // else by whichever gives the threads the more even shares; if equal by columns, since each thread then reads its
    // own weights
    let largest = |units: usize| units.div_ceil(parts) as f64 / units.max(1) as f64;
    if largest(panels) <= largest(tiles) { (m, panels.div_ceil(parts) * nr) } else { (m.div_ceil(parts), w.n) }
}

/// Whether a product of `m` rows with weights of so many words and pairs of panels takes less time where each thread
/// takes some columns than where it takes some rows. Cut by rows, each thread reads all weights, once for every `chunk`
/// of its rows. The estimate is rough, so columns must be cheaper by more than a tenth.
pub(crate) fn columns_are_cheaper(
    ctx: &Context,
    format: NumberFormat,
    threads: usize,
    m: usize,
    words: usize,
    panels: usize,
    chunk: impl Fn(usize) -> usize,
) -> bool {
    /// Words of weights that stay in a second-level cache from one use to the next: 512 KiB.
    const NEAR: usize = 128 << 10;
    /// Words of weights that stay in a core's share of a third-level cache: 4 MiB.
    const FAR: usize = 1 << 20;
    if ctx.isa() == Isa::Scalar || threads == 1 {
        return false;
    }
    #[cfg(test)]
    if ctx.columns() {
        return true;
    }
    // the costs of fetching a word and of two more hand-overs of a microsecond, in units of a product of a row and a
    // word: a core with tiles makes some 200 of these in a cycle, and fetches a word from the third-level cache in 0.6
    // cycles; one with vectors makes 16, and fetches one in 0.25, or from memory in 1.5. Where a processor with AVX2 alone
    // is shared, so is its third level, and long weights come from memory
    let (fetch, hand_overs) = match (tiled(ctx.isa(), format), ctx.isa(), format) {
        (true, ..) => (128.0, 1.2e6),
        (false, Isa::Avx2, NumberFormat::F32) if words > FAR => (24.0, 1e5),
        _ => (4.0, 1e5),
    };
    let fetch = if words > NEAR { fetch } else { 0.0 };
    let cost = |rows: usize| padded_rows(ctx, format, rows) as f64 + fetch * rows.div_ceil(chunk(rows).max(1)) as f64;
    let share = panels.div_ceil(threads) as f64 / panels.max(1) as f64;
    1.1 * (share * cost(m) + hand_overs / words.max(1) as f64) < cost(m.div_ceil(threads))
}

/// Operations that [`linear`] executes on `m` rows: two for every multiply-add, padding of tiles and panels included.
pub fn linear_operations(ctx: &Context, m: usize, w: &PackedLinear) -> f64 {
    operations(ctx, m, cell(ctx, m, w).0, w)
}

/// Operations on `m` rows that are cut into cells of `cell` rows; cutting columns adds none.
pub(crate) fn operations(ctx: &Context, m: usize, cell: usize, w: &PackedLinear) -> f64 {
    let cells = (0..m).step_by(cell.max(1)).map(|first| cell.min(m - first));
    cells.flat_map(|rows| chunks(rows, w)).map(|rows| w.operations(padded_rows(ctx, w.format, rows))).sum()
}

/// The chunks of rows that a thread works on at a time.
fn chunks(rows: usize, w: &PackedLinear) -> impl Iterator<Item = usize> {
    let most = vector::chunk(rows, w.groups).max(1);
    (0..rows).step_by(most).map(move |first| most.min(rows - first))
}

/// `out[m, n] = x[m, k] · W[n, k]ᵀ (+ bias[n])`; m follows from the length of `out`.
///
/// # Panics
/// If a length does not fit, or `w` was packed for another instruction set or as gated.
pub fn linear(ctx: &Context, x: &[f32], w: &PackedLinear, bias: Option<&[f32]>, out: &mut [f32]) {
    let (n, k) = (w.n, w.k);
    check(ctx, x, w, out);
    assert!(bias.is_none_or(|bias| bias.len() == n), "linear: bias is not [{n}]");
    let m = out.len().checked_div(n).unwrap_or(0);
    let cell = cell(ctx, m, w);
    let threads = ctx.parts(streamed(m * n * k));
    let scalar = ctx.isa() == Isa::Scalar;
    ctx.cells(out, n, cell, threads, |(row, col), block| {
        let (bias, panels) = (bias.map(|bias| &bias[col..]), w.view().from(col, scalar));
        scratch(memory(ctx, w, block.rows()), |memory| {
            linear_block(ctx.proof(), w.format, MatRef::new(x, k).from(row), panels, bias, None, block, memory);
        });
    });
}

/// `out = rms(out + x[m, k] · W[n, k]ᵀ)` over the features, `rms(v) = v / sqrt(mean(v²) + eps)`: a sublayer's last
/// product, its residual and its norm. `out: [m, n]`.
///
/// # Panics
/// As [`linear`].
pub fn linear_norm(ctx: &Context, x: &[f32], w: &PackedLinear, eps: f32, out: &mut [f32]) {
    check(ctx, x, w, out);
    let (n, k) = (w.n, w.k);
    let m = out.len().checked_div(n).unwrap_or(0);
    let threads = ctx.parts(streamed(m * n * k));
    // a norm needs whole rows
    ctx.cells(out, n, (m.div_ceil(threads), n), threads, |(row, _), block| {
        scratch(memory(ctx, w, block.rows()), |memory| {
            linear_block(ctx.proof(), w.format, MatRef::new(x, k).from(row), w.view(), None, Some(eps), block, memory);
        });
    });
}

/// Operations that [`linear_norm`] executes on `m` rows.
pub fn linear_norm_operations(ctx: &Context, m: usize, w: &PackedLinear) -> f64 {
    let threads = ctx.parts(streamed(m * w.n * w.k));
    operations(ctx, m, m.div_ceil(threads), w)
}

fn check(ctx: &Context, x: &[f32], w: &PackedLinear, out: &[f32]) {
    let (n, k) = (w.n, w.k);
    assert_eq!(w.isa, ctx.isa(), "linear: weight was packed for another instruction set");
    assert!(!w.gated, "linear: weight was packed as gated");
    let m = out.len().checked_div(n).unwrap_or(0);
    assert_eq!(out.len(), m * n, "linear: output is not [m, {n}]");
    assert!(n == 0 || x.len() == m * k, "linear: input is not [{m}, {k}]");
}
