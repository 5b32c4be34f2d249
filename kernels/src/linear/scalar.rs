//! The scalar reference of the linear layer: loops as the formula reads. Unpacked weights, one sum per output.

use std::ops::AddAssign;

use super::pack::Panels;
use crate::matrix::{MatMut, MatRef, floats};
use crate::norm;
use crate::number_format::{NumberFormat, quantise, round_bf16};

/// `out[i][j] = Σ_k x[i][k] w[j][k] (+ bias[j])`, `w` in rows of k values; with a norm `out[i] = rms(out[i] + ...)`.
pub(super) fn linear(
    format: NumberFormat,
    x: MatRef<'_>,
    w: Panels<'_>,
    bias: Option<&[f32]>,
    eps: Option<f32>,
    mut out: MatMut<'_>,
    _memory: &mut [u32],
) {
    for i in 0..out.rows() {
        let sums = row(format, &x.row(i)[..w.k], w, out.cols());
        let out = out.row(i);
        for (j, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
            let before = if eps.is_some() { *out } else { 0.0 };
            *out = before + sum + bias.map_or(0.0, |bias| bias[j]);
        }
        if let Some(eps) = eps {
            norm::scalar::rms_row(out, None, None, eps);
        }
    }
}

/// The first `n` outputs of one row, of weights in rows of k values.
pub(crate) fn row(format: NumberFormat, x: &[f32], w: Panels<'_>, n: usize) -> Vec<f32> {
    product(format, x, floats(w.data), w.scales, n)
}

/// `y[j] = Σ_k x[k] w[j][k]` for `n` rows of weights; int8 sums integers, and multiplies the sums by `scales[j]` and
/// the scale of `x`.
pub(crate) fn product(format: NumberFormat, x: &[f32], weights: &[f32], scales: &[f32], n: usize) -> Vec<f32> {
    let weights = &weights[..n * x.len()];
    match format {
        NumberFormat::F32 => sums(x, weights, n, |x, w| x * w),
        NumberFormat::Bf16 => sums(&x.iter().map(|x| round_bf16(*x)).collect::<Vec<f32>>(), weights, n, |x, w| x * w),
        NumberFormat::Int8 => {
            let (q, scale) = quantise(x);
            let sums = sums(&q, weights, n, |q, w| q * w as i32);
            sums.iter().zip(scales).map(|(sum, of_row)| *sum as f32 * (scale * of_row)).collect()
        }
    }
}

/// For each of `n` rows of weights the sum of its products with `x`, in ascending order. Eight rows are summed side by
/// side: each addition waits for the one before it in its row, so eight rows take no longer than one.
fn sums<T: Copy + Default + AddAssign>(x: &[T], weights: &[f32], n: usize, times: impl Fn(T, f32) -> T) -> Vec<T> {
    const ROWS: usize = 8;
    let mut sums = vec![T::default(); n];
    let k = x.len().max(1);
    for (sums, weights) in sums.chunks_mut(ROWS).zip(weights.chunks(ROWS * k)) {
        let mut side = [T::default(); ROWS];
        let last = sums.len() - 1;
        let rows: [&[f32]; ROWS] = std::array::from_fn(|j| &weights[j.min(last) * k..][..k]);
        for (i, x) in x.iter().enumerate() {
            for (sum, row) in side.iter_mut().zip(rows) {
                *sum += times(*x, row[i]);
            }
        }
        sums.copy_from_slice(&side[..sums.len()]);
    }
    sums
}
