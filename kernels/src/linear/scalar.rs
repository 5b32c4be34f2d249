//! The plain twin of the linear layer: loops as the formula reads. Unpacked weights, one sum per output.

use super::pack::Panels;
use crate::block::{Block, Rows, floats};
use crate::format::{Format, quantise, round_bf16};
use crate::norm;

/// `out[i][j] = Σ_k x[i][k] w[j][k] (+ bias[j])`, `w` in rows of k values; with a norm `out[i] = rms(out[i] + ...)`.
pub(super) fn linear(
    format: Format,
    x: Rows<'_>,
    w: Panels<'_>,
    bias: Option<&[f32]>,
    eps: Option<f32>,
    mut out: Block<'_>,
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

/// The first `n` outputs of one row.
pub(crate) fn row(format: Format, x: &[f32], w: Panels<'_>, n: usize) -> Vec<f32> {
    let weights = floats(w.data);
    let of = |j: usize| &weights[j * w.k..(j + 1) * w.k];
    match format {
        Format::F32 => (0..n).map(|j| x.iter().zip(of(j)).map(|(x, w)| x * w).sum()).collect(),
        Format::Bf16 => {
            let x: Vec<f32> = x.iter().map(|x| round_bf16(*x)).collect();
            (0..n).map(|j| x.iter().zip(of(j)).map(|(x, w)| x * w).sum()).collect()
        }
        Format::Int8 => {
            let (q, scale) = quantise(x);
            let sum = |j: usize| q.iter().zip(of(j)).map(|(q, w)| q * *w as i32).sum::<i32>() as f32;
            (0..n).map(|j| sum(j) * (scale * w.scales[j])).collect()
        }
    }
}
