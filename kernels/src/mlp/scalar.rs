//! The plain twin of the gated MLPs: both products, the gate, the residual, the norm, as the formulas read.

use crate::activation::scalar::swiglu;
use crate::block::{Block, Rows, floats};
use crate::format::Format;
use crate::linear::pack::{PackedTokens, Panels};
use crate::linear::scalar::{product, row};
use crate::norm;

/// See [`gated_mlp`](super::gated_mlp).
pub(super) fn features(
    format: Format,
    x: Option<Rows<'_>>,
    up: Panels<'_>,
    down: Panels<'_>,
    eps: Option<f32>,
    mut out: Block<'_>,
    _memory: &mut [u32],
) {
    for i in 0..out.rows() {
        let x = x.map_or_else(|| out.row_ref(i).to_vec(), |x| x.row(i)[..up.k].to_vec());
        let both = row(format, &x, up, 2 * down.k);
        let mut hidden = vec![0.0; down.k];
        swiglu(&both[..down.k], &both[down.k..], &mut hidden);
        let y = row(format, &hidden, down, up.k);
        finish(&x, &y, eps, out.row(i));
    }
}

/// See [`token_mlp`](super::token_mlp): the same on columns.
pub(super) fn tokens(
    x: Option<Rows<'_>>,
    up: &PackedTokens,
    down: &PackedTokens,
    eps: Option<f32>,
    mut out: Block<'_>,
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
