//! The scalar reference of softmax, rotary embedding and attention: loops as the formula reads.

use super::{Mask, RopeTables};
use crate::matrix::{MatMut, MatRef, floats_mut};
use crate::number_format::{NumberFormat, round_bf16};

/// `x = softmax(scale · x)` over one row.
pub(super) fn softmax_row(x: &mut [f32], scale: f32) {
    x.iter_mut().for_each(|x| *x *= scale);
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum = x.iter().sum::<f32>();
    x.iter_mut().for_each(|x| *x /= sum);
}

/// `x = x · cos + rotate_half(x) · sin` for one head, with `rotate_half([a, b]) = [-b, a]`.
fn rotate(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = x.len() / 2;
    for i in 0..half {
        let (a, b) = (x[i], x[half + i]);
        x[i] = a * cos[i] - b * sin[i];
        x[half + i] = b * cos[half + i] + a * sin[half + i];
    }
}

/// One head: `out[i] = Σ_j softmax_j(scale · q[i]·k[j]) v[j]` over the keys that query i sees; `memory` has room for a
/// weight per key. In bf16 queries, keys and values are rounded, and weights before they are summed up with values (the
/// vector bodies round exponentials, and divide by their sum last).
#[allow(clippy::too_many_arguments)]
pub(super) fn head(
    format: NumberFormat,
    q: MatRef<'_>,
    k: MatRef<'_>,
    v: MatRef<'_>,
    rope: Option<RopeTables<'_>>,
    mask: Mask,
    scale: f32,
    mut out: MatMut<'_>,
    memory: &mut [u32],
) {
    let (t, dim, weights) = (out.rows(), out.cols(), floats_mut(memory));
    let round = |x: f32| if format == NumberFormat::F32 { x } else { round_bf16(x) };
    let rotated = |x: MatRef<'_>, i: usize| {
        let mut x = x.row(i)[..dim].to_vec();
        if let Some(RopeTables { cos, sin }) = rope {
            rotate(&mut x, &cos[i * dim..(i + 1) * dim], &sin[i * dim..(i + 1) * dim]);
        }
        x.iter_mut().for_each(|x| *x = round(*x));
        x
    };
    let rotated_keys: Vec<Vec<f32>> = (0..t).map(|j| rotated(k, j)).collect();
    for i in 0..t {
        let query = rotated(q, i);
        let keys: Vec<usize> = mask.keys(i, t).into_iter().flatten().collect();
        let weights = &mut weights[..keys.len()];
        for (&j, weight) in keys.iter().zip(weights.iter_mut()) {
            *weight = query.iter().zip(&rotated_keys[j]).map(|(q, k)| q * k).sum();
        }
        softmax_row(weights, scale);
        let out = out.row(i);
        out.fill(0.0);
        for (&j, weight) in keys.iter().zip(weights) {
            out.iter_mut().zip(v.row(j)).for_each(|(out, v)| *out += round(*weight) * round(*v));
        }
    }
}
