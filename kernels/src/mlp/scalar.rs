//! The scalar reference of the gated MLPs: both products, the gate, the residual, the norm, as the formulas read.

use std::ops::Range;

use crate::activation::scalar::swiglu;
use crate::linear::pack::{PackedTokens, Panels};
use crate::linear::scalar::{product, row};
use crate::matrix::{MatMut, MatRef, SharedWords, floats, floats_mut};
use crate::norm;
use crate::number_format::NumberFormat;
use crate::vector::operand::RowSource;

/// `silu(g) · u` with `[g, u] = W_up · x`, of `rows` rows of x, for the pairs `part` of panels of `up` (here: all).
/// `down`: the number of hidden values, and of words of a row of A of the second product. Writes rows of A for that
/// product; of int8 f32, padded to whole panels.
#[allow(clippy::too_many_arguments)]
pub(super) fn hidden(
    format: NumberFormat,
    x: RowSource<'_, '_>,
    rows: usize,
    up: Panels<'_>,
    _part: Range<usize>,
    (inner, _): (usize, usize),
    hidden: SharedWords<'_>,
    _memory: &mut [u32],
) {
    for i in 0..rows {
        let both = row(format, &x.row(i)[..up.k], up, 2 * inner);
        // SAFETY: the scalar reference runs on one thread.
        let hidden = unsafe { hidden.words(i * inner, inner) };
        swiglu(&both[..inner], &both[inner..], floats_mut(hidden));
    }
}

/// `out = W_down · hidden` for the columns of `out`, which are rows of the weight here; with `add` plus `x` or, without
/// an `x`, plus what `out` holds; then with a norm.
#[allow(clippy::too_many_arguments)]
pub(super) fn outputs(
    format: NumberFormat,
    hidden: &[u32],
    down: Panels<'_>,
    x: Option<MatRef<'_>>,
    add: bool,
    eps: Option<f32>,
    mut out: MatMut<'_>,
    _memory: &mut [u32],
) {
    let cols = out.cols();
    for i in 0..out.rows() {
        let mut y = row(format, &floats(hidden)[i * down.k..][..down.k], down, cols);
        if add {
            let x = x.map_or_else(|| out.row_ref(i), |x| &x.row(i)[..cols]);
            y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
        }
        if let Some(eps) = eps {
            norm::scalar::rms_row(&mut y, None, None, eps);
        }
        out.row(i).copy_from_slice(&y);
    }
}

/// See [`token_mlp`](super::token_mlp): the same on columns.
pub(super) fn tokens(
    x: Option<MatRef<'_>>,
    up: &PackedTokens,
    down: &PackedTokens,
    eps: Option<f32>,
    mut out: MatMut<'_>,
    _memory: &mut [u32],
) {
    let (t, inner) = (up.t, down.t);
    for j in 0..out.cols() {
        let x: Vec<f32> = (0..t).map(|i| x.map_or_else(|| out.row_ref(i)[j], |x| x.row(i)[j])).collect();
        let both = column(up, &x);
        let mut hidden = vec![0.0; inner];
        swiglu(&both[..inner], &both[inner..], &mut hidden);
        let mut y = vec![0.0; t];
        finish(&x, &column(down, &hidden), eps, &mut y);
        (0..t).for_each(|i| out.row(i)[j] = y[i]);
    }
}

/// `W · x`.
fn column(w: &PackedTokens, x: &[f32]) -> Vec<f32> {
    product(w.format, x, floats(&w.data), &w.scales, w.n)
}

fn finish(x: &[f32], y: &[f32], eps: Option<f32>, out: &mut [f32]) {
    out.copy_from_slice(y);
    if let Some(eps) = eps {
        norm::scalar::rms_row(out, Some(x), None, eps);
    }
}
