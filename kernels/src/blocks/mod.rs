//! Linear layers whose weights stay in the quantised blocks of GGUF. In: activations in f32, and weights that were
//! packed once out of the file's bytes. Out: activations in f32. Must not: read a file, or change a weight.
//!
//! Activations are quantised to int8 by blocks of 32, once a call. The products of a block are summed up as exact
//! integers, and the blocks of an output one after another by fused multiply-adds: `sum = fma(integers, x's scale ·
//! w's scale, sum)`, then, where the format has offsets, `sum = fma(x's scale · Σ x's integers, offset, sum)`; where halves of a
//! block have their own, first half before second. So every instruction set, the scalar reference included, gives the same bits.
//!
//! A product with few rows is bound by reading the weights: each thread reads whole panels of its own, one after
//! another, and asks for them ahead. One with many rows takes a dozen at a time, which share the unpacked weights.

pub(crate) mod activations;
pub(crate) mod format;
pub(crate) mod pack;
mod scalar;
#[cfg(test)]
pub(crate) mod tests;
mod vector;

use std::borrow::Borrow;

use self::activations::{RECORD, TILE};
use self::format::BLOCK;
use self::pack::{PackedBlocks, ROWS};
use crate::context::Context;
use crate::isa::{Isa, Proof};
use crate::matrix::{MatMut, shared_scratch};
use crate::pool::SendPtr;
use crate::vector::dispatch;

dispatch! {
    pub(crate) fn product(records: &[u32], w: &PackedBlocks, first: usize, then: *const u8, out: MatMut<'_>) {
        scalar::product | vector::product
    }
}
dispatch! {
    pub(crate) fn quantise(isa: Isa, x: &[f32], k: usize, records: &mut [u32]) {
        activations::scalar | activations::vector
    }
}

/// Multiply-adds with blocks that cost as much as streaming over one value of f32: with one row each reads about two
/// thirds of a byte of weights, and hands the other threads a few hundred values.
pub(crate) const PER_VALUE: usize = 3;

/// `out[m, n] = x[m, k] · W[n, k]ᵀ`; m follows from the length of `out`.
///
/// # Panics
/// As [`blocks_joined`].
pub fn blocks_linear(ctx: &Context, x: &[f32], w: &PackedBlocks, out: &mut [f32]) {
    blocks_joined(ctx, x, &[w], out);
}

/// Products of the same `x: [m, k]` with several weights `[n, k]`, which may be of unlike formats, side by side in `out:
/// [m, Σ n]`: at the cost of quantising `x`, and of waiting for the other threads, once. Each has the bits of
/// [`blocks_linear`].
///
/// # Panics
/// If a length does not fit, or a weight was packed for another instruction set.
pub fn blocks_joined(ctx: &Context, x: &[f32], weights: &[&PackedBlocks], out: &mut [f32]) {
    let Some(k) = weights.first().map(|w| w.k) else { return };
    let wide: usize = weights.iter().map(|w| w.n).sum();
    let m = out.len().checked_div(wide).unwrap_or(0);
    for w in weights {
        assert_eq!(w.isa, ctx.isa(), "blocks_linear: weight was packed for another instruction set");
        assert_eq!(w.k, k, "blocks_linear: weights of one input differ in k");
    }
    assert_eq!(out.len(), m * wide, "blocks_linear: output is not [{m}, {wide}]");
    assert!(m == 0 || x.len() == m * k, "blocks_linear: input is not [{m}, {k}]");
    if k == 0 || m == 0 {
        return out.fill(0.0);
    }
    let threads = ctx.parts(m * wide * k / PER_VALUE);
    let start = SendPtr(out.as_mut_ptr());
    shared_scratch(m * (k / BLOCK) * RECORD, |records| {
        // whole tiles, but for the last
        let tiles = ctx.chunk(m.div_ceil(TILE), m * k) * TILE;
        ctx.pool().chunks(records, tiles * (k / BLOCK) * RECORD, |i, records| {
            let rows = i * tiles..m.min((i + 1) * tiles);
            quantise(ctx.proof(), ctx.isa(), &x[rows.start * k..rows.end * k], k, records);
        });
        let records = &*records;
        ctx.pool().run_on(threads, threads, &|i| {
            // SAFETY: `out` is borrowed until this function returns, and the threads' columns do not overlap.
            unsafe { share(ctx.proof(), records, weights, (i, threads), std::ptr::null(), start.get(), m) };
        });
    });
}

/// The columns of thread `i` of `n`: of all panels, one weight's after another's. Each weight of which it has some, their
/// beginning and end, and where the first of them is in the output.
fn columns<W: Borrow<PackedBlocks>>(
    weights: &[W],
    (i, n): (usize, usize),
) -> impl Iterator<Item = (&PackedBlocks, usize, usize, usize)> {
    let unit = |w: &PackedBlocks| if w.isa == Isa::Scalar { 1 } else { ROWS };
    let panels: usize = weights.iter().map(Borrow::borrow).map(|w| w.n.div_ceil(unit(w))).sum();
    let (begin, end) = (panels * i / n, panels * (i + 1) / n);
    let (mut before, mut column) = (0, 0);
    weights.iter().map(Borrow::borrow).filter_map(move |w| {
        let own = w.n.div_ceil(unit(w));
        let first = begin.clamp(before, before + own) - before;
        let last = end.clamp(before, before + own) - before;
        let (first, last, at) = (first * unit(w), (last * unit(w)).min(w.n), column);
        before += own;
        column += w.n;
        (first < last).then_some((w, first, last, at + first))
    })
}

/// Where the weights begin that thread `i` of `n` reads in a product with these; null if it has none.
pub(crate) fn share_begin<W: Borrow<PackedBlocks>>(weights: &[W], member: (usize, usize)) -> *const u8 {
    columns(weights, member).next().map_or(std::ptr::null(), |(w, first, ..)| w.address(first))
}

/// The products of thread `i` of `n` with `m` rows of records. The thread then reads what begins at `then`, or something unknown
/// if that is null.
///
/// # Safety
/// `out` is `[m, Σ n]`, and nobody else touches this thread's columns meanwhile.
pub(crate) unsafe fn share<W: Borrow<PackedBlocks>>(
    proof: Proof,
    records: &[u32],
    weights: &[W],
    member: (usize, usize),
    then: *const u8,
    out: *mut f32,
    m: usize,
) {
    let wide: usize = weights.iter().map(|w| w.borrow().n).sum();
    let mut before: Option<(&PackedBlocks, usize, usize, usize)> = None;
    let each = |(w, first, last, at): (&PackedBlocks, usize, usize, usize), then: *const u8| {
        // SAFETY: the caller's promise.
        let block = unsafe { MatMut::from_raw(out.add(at), m, last - first, wide) };
        product(proof, records, w, first, then, block);
    };
    for next in columns(weights, member) {
        if let Some(before) = before.replace(next) {
            each(before, next.0.address(next.1));
        }
    }
    if let Some(last) = before {
        each(last, then);
    }
}

/// Operations on integers that a product of [`blocks_linear`] with `m` rows executes: two for every multiply-add, padding
/// of panels included.
pub fn blocks_linear_operations(m: usize, w: &PackedBlocks) -> f64 {
    2.0 * m as f64 * w.padded() as f64 * w.k as f64
}

/// `out[i] = factor · w[ids[i]]`: rows of a table in blocks as f32, each weight as the format defines it; `out: [ids, k]`.
///
/// # Panics
/// If `out` does not fit or an id is not a row of the table: check untrusted ids before.
pub fn embed_rows(ctx: &Context, table: &PackedBlocks, ids: &[u32], factor: f32, out: &mut [f32]) {
    let (n, k) = (table.n, table.k);
    assert_eq!(table.isa, ctx.isa(), "embed_rows: table was packed for another instruction set");
    assert_eq!(out.len(), ids.len() * k, "embed_rows: output is not [{}, {k}]", ids.len());
    for id in ids {
        assert!((*id as usize) < n, "embed_rows: id {id} in a table of {n} rows");
    }
    if k == 0 {
        return;
    }
    // a weight costs about as much as streaming over four values
    let rows = ctx.chunk(ids.len(), 4 * out.len());
    ctx.pool().chunks(out, rows * k, |index, out| {
        for (id, out) in ids[index * rows..].iter().zip(out.chunks_exact_mut(k)) {
            for (b, out) in out.chunks_exact_mut(BLOCK).enumerate() {
                let weights = table.block(*id as usize, b).weights(table.format);
                out.iter_mut().zip(weights).for_each(|(out, weight)| *out = factor * weight);
            }
        }
    });
}
