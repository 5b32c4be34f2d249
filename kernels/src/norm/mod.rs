//! Normalisations over the features or over the tokens. In: activations, optional residual, gain and bias. Out:
//! normalised activations. Must not: know a layer.

pub(crate) mod scalar;
pub(crate) mod vector;

use crate::context::Context;
use crate::matrix::{MatMut, MatRef};
use crate::vector::dispatch;

dispatch! {
    pub(crate) fn rms_row(x: &mut [f32], residual: Option<&[f32]>, gain: Option<&[f32]>, eps: f32) { scalar::rms_row | vector::rms_row }
}
dispatch! {
    fn rms_columns(residual: Option<MatRef<'_>>, eps: f32, x: MatMut<'_>) { scalar::rms_columns | vector::rms_columns }
}
dispatch! {
    pub(crate) fn layer_row(x: &mut [f32], gain: Option<&[f32]>, bias: Option<&[f32]>, eps: f32) { scalar::layer_row | vector::layer_row }
}

/// `out = rms(x + residual) · gain` over the last axis, `d` long, with `rms(v) = v / sqrt(mean(v²) + eps)`. `x`,
/// `residual`, `out`: `[rows, d]`; `gain`: `[d]`.
///
/// # Panics
/// If a length does not fit.
pub fn rms_norm(
    ctx: &Context,
    x: &[f32],
    residual: Option<&[f32]>,
    gain: Option<&[f32]>,
    eps: f32,
    d: usize,
    out: &mut [f32],
) {
    assert_eq!(x.len(), out.len(), "rms_norm: input and output differ in length");
    rms(ctx, Some(x), residual, gain, eps, d, out);
}

/// [`rms_norm`] with `x` as its own output.
///
/// # Panics
/// If a length does not fit.
pub fn rms_norm_in_place(
    ctx: &Context,
    x: &mut [f32],
    residual: Option<&[f32]>,
    gain: Option<&[f32]>,
    eps: f32,
    d: usize,
) {
    rms(ctx, None, residual, gain, eps, d, x);
}

/// Where `x` is not `out`, each row is copied first, and is in the cache when it is normalised.
fn rms(
    ctx: &Context,
    x: Option<&[f32]>,
    residual: Option<&[f32]>,
    gain: Option<&[f32]>,
    eps: f32,
    d: usize,
    out: &mut [f32],
) {
    assert!(d > 0 && out.len().is_multiple_of(d), "rms_norm: not whole rows of {d}");
    assert!(residual.is_none_or(|r| r.len() == out.len()), "rms_norm: residual differs in length");
    assert!(gain.is_none_or(|g| g.len() == d), "rms_norm: gain is not [{d}]");
    let chunk = d * ctx.chunk(out.len() / d, out.len());
    ctx.pool().chunks(out, chunk, |index, rows| {
        for (i, row) in rows.chunks_exact_mut(d).enumerate() {
            let at = index * chunk + i * d;
            if let Some(x) = x {
                row.copy_from_slice(&x[at..at + d]);
            }
            rms_row(ctx.proof(), row, residual.map(|r| &r[at..at + d]), gain, eps);
        }
    });
}

/// `x = rms(x + residual)` over the tokens: each of `d` features of each example by itself. `x`, `residual`: `[batch,
/// t, d]`.
///
/// # Panics
/// If a length does not fit.
pub fn rms_norm_tokens(ctx: &Context, x: &mut [f32], residual: Option<&[f32]>, eps: f32, t: usize, d: usize) {
    assert!(t * d > 0 && x.len().is_multiple_of(t * d), "rms_norm_tokens: not [batch, {t}, {d}]");
    assert!(residual.is_none_or(|r| r.len() == x.len()), "rms_norm_tokens: residual differs in length");
    // whole examples where there are enough, else runs of features that are whole cache lines
    let threads = ctx.parts(x.len());
    let parts = threads.div_ceil((x.len() / (t * d)).max(1));
    let columns = d.div_ceil(parts).next_multiple_of(16);
    ctx.cells(x, d, (t, columns), threads, |(row, col), block| {
        let residual = residual.map(|r| MatRef::new(r, d).from(row).columns(col));
        rms_columns(ctx.proof(), residual, eps, block);
    });
}

/// `x = (x - mean) / sqrt(variance + eps) · gain + bias` over the last axis, in place. `x`: `[rows, d]`; `gain`,
/// `bias`: `[d]`.
///
/// # Panics
/// If a length does not fit.
pub fn layer_norm(ctx: &Context, x: &mut [f32], gain: Option<&[f32]>, bias: Option<&[f32]>, eps: f32, d: usize) {
    assert!(d > 0 && x.len().is_multiple_of(d), "layer_norm: not whole rows of {d}");
    assert!(gain.is_none_or(|g| g.len() == d), "layer_norm: gain is not [{d}]");
    assert!(bias.is_none_or(|b| b.len() == d), "layer_norm: bias is not [{d}]");
    let chunk = d * ctx.chunk(x.len() / d, x.len());
    ctx.pool().chunks(x, chunk, |_, rows| {
        for row in rows.chunks_exact_mut(d) {
            layer_row(ctx.proof(), row, gain, bias, eps);
        }
    });
}
