//! Element-wise operators: embedding, addition, scaling and copying. In and Out: f32, row-major; an embedding takes
//! indices and a table. Must not: know a layer.

mod scalar;
mod vector;

use crate::context::Context;
use crate::vector::dispatch;

dispatch! {
    pub(crate) fn add_slice(x: &mut [f32], y: &[f32]) { scalar::add | vector::add }
}
dispatch! {
    fn sum_slice(x: &[f32], y: &[f32], out: &mut [f32]) { scalar::sum | vector::sum }
}
dispatch! {
    fn scaled_slice(x: &[f32], factor: f32, out: &mut [f32]) { scalar::scaled | vector::scaled }
}
dispatch! {
    fn scale_slice(x: &mut [f32], factor: f32) { scalar::scale | vector::scale }
}

/// `out[i] = factor · table[ids[i]]`: `table: [rows, d]`, `out: [ids, d]`.
///
/// # Panics
/// If a length does not fit or an id is not a row of the table: check untrusted ids before.
pub fn embed(ctx: &Context, ids: &[u32], table: &[f32], factor: f32, d: usize, out: &mut [f32]) {
    assert!(d > 0 && table.len().is_multiple_of(d), "embed: table is not whole rows of {d}");
    assert_eq!(out.len(), ids.len() * d, "embed: output is not [{}, {d}]", ids.len());
    let rows = table.len() / d;
    for id in ids {
        assert!((*id as usize) < rows, "embed: id {id} in a table of {rows} rows");
    }
    let chunk = d * ctx.chunk(ids.len(), out.len());
    ctx.pool().chunks(out, chunk, |index, out| {
        let ids = &ids[index * (chunk / d)..];
        for (id, out) in ids.iter().zip(out.chunks_exact_mut(d)) {
            let at = *id as usize * d;
            scaled_slice(ctx.proof(), &table[at..at + d], factor, out);
        }
    });
}

/// `out = x + y`, any shape.
///
/// # Panics
/// If the lengths differ.
pub fn add(ctx: &Context, x: &[f32], y: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len() && y.len() == out.len(), "add: lengths differ");
    let chunk = ctx.chunk(out.len(), out.len());
    ctx.pool().chunks(out, chunk, |index, out| {
        let at = index * chunk..index * chunk + out.len();
        sum_slice(ctx.proof(), &x[at.clone()], &y[at], out);
    });
}

/// `x += y`, any shape.
///
/// # Panics
/// If the lengths differ.
pub fn add_in_place(ctx: &Context, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "add_in_place: lengths differ");
    let chunk = ctx.chunk(x.len(), x.len());
    ctx.pool().chunks(x, chunk, |index, x| {
        add_slice(ctx.proof(), x, &y[index * chunk..index * chunk + x.len()]);
    });
}

/// `x[i] += block` for every `block.len()` values of `x`: a bias `[d]` on each row, or positions `[t, d]` on each
/// example.
///
/// # Panics
/// If `x` is not whole blocks.
pub fn add_rows(ctx: &Context, x: &mut [f32], block: &[f32]) {
    let len = block.len();
    assert!(x.is_empty() || (len > 0 && x.len().is_multiple_of(len)), "add_rows: not whole blocks of {len}");
    let chunk = len * ctx.chunk(x.len().checked_div(len).unwrap_or(0), x.len());
    ctx.pool().chunks(x, chunk, |_, blocks| {
        for x in blocks.chunks_exact_mut(len) {
            add_slice(ctx.proof(), x, block);
        }
    });
}

/// `x *= factor`, any shape.
pub fn scale(ctx: &Context, x: &mut [f32], factor: f32) {
    let chunk = ctx.chunk(x.len(), x.len());
    ctx.pool().chunks(x, chunk, |_, x| scale_slice(ctx.proof(), x, factor));
}

/// `out = x`, any shape.
///
/// # Panics
/// If the lengths differ.
pub fn copy(ctx: &Context, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "copy: lengths differ");
    let chunk = ctx.chunk(out.len(), out.len());
    ctx.pool().chunks(out, chunk, |index, out| out.copy_from_slice(&x[index * chunk..index * chunk + out.len()]));
}

/// Copies `rows` runs of `width` values, `from_stride` apart in `from` and `to_stride` apart in `to`: slices and
/// concatenates along any axis. Offsets are the caller's: pass `&from[offset..]`. On the calling thread.
///
/// # Panics
/// If the runs overlap or leave their slice.
pub fn copy_rows(from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize, width: usize, rows: usize) {
    assert!(width <= from_stride && width <= to_stride || rows <= 1, "copy_rows: runs of {width} overlap");
    for i in 0..rows {
        to[i * to_stride..][..width].copy_from_slice(&from[i * from_stride..][..width]);
    }
}
