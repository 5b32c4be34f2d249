//! The scalar reference of the normalisations: loops as the formula reads.

use crate::matrix::{MatMut, MatRef};

/// `x = rms(x + residual) · gain` with `rms(v) = v / sqrt(mean(v²) + eps)`, over one row.
pub(crate) fn rms_row(x: &mut [f32], residual: Option<&[f32]>, gain: Option<&[f32]>, eps: f32) {
    if let Some(residual) = residual {
        x.iter_mut().zip(residual).for_each(|(x, r)| *x += r);
    }
    let mean = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    x.iter_mut().for_each(|x| *x *= scale);
    if let Some(gain) = gain {
        x.iter_mut().zip(gain).for_each(|(x, g)| *x *= g);
    }
}

/// The same down each column, without gain.
pub(crate) fn rms_columns(residual: Option<MatRef<'_>>, eps: f32, mut x: MatMut<'_>) {
    for j in 0..x.cols() {
        let mut sum = 0.0;
        for i in 0..x.rows() {
            let x = &mut x.row(i)[j];
            *x += residual.map_or(0.0, |residual| residual.row(i)[j]);
            sum += *x * *x;
        }
        let scale = 1.0 / (sum / x.rows() as f32 + eps).sqrt();
        for i in 0..x.rows() {
            x.row(i)[j] *= scale;
        }
    }
}

/// `x = (x - mean) / sqrt(variance + eps) · gain + bias` over one row; the variance is the mean square of the
/// differences.
pub(super) fn layer_row(x: &mut [f32], gain: Option<&[f32]>, bias: Option<&[f32]>, eps: f32) {
    let n = x.len() as f32;
    let mean = x.iter().sum::<f32>() / n;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n;
    let scale = 1.0 / (variance + eps).sqrt();
    for (j, x) in x.iter_mut().enumerate() {
        *x = (*x - mean) * scale * gain.map_or(1.0, |gain| gain[j]) + bias.map_or(0.0, |bias| bias[j]);
    }
}
