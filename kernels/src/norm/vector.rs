//! The vector bodies of the normalisations. A row's sum has `CHAINS` chains of vectors, then one fixed reduction; a
//! column's sum is one chain.

use crate::matrix::{MatMut, MatRef};
use crate::vector::Simd;

/// Independent sums, to hide the latency of addition.
const CHAINS: usize = 4;

/// As the scalar reference.
#[inline(always)]
pub(crate) fn rms_row<S: Simd>(s: S, x: &mut [f32], residual: Option<&[f32]>, gain: Option<&[f32]>, eps: f32) {
    if let Some(residual) = residual {
        for (x, r) in x.chunks_mut(S::LANES).zip(residual.chunks(S::LANES)) {
            s.store(x, s.add(s.load(x), s.load(r)));
        }
    }
    let mean = sum_squares(s, x, 0.0) / x.len() as f32;
    let scale = s.splat(1.0 / (mean + eps).sqrt());
    match gain {
        Some(gain) => {
            for (x, g) in x.chunks_mut(S::LANES).zip(gain.chunks(S::LANES)) {
                s.store(x, s.mul(s.mul(s.load(x), scale), s.load(g)));
            }
        }
        None => {
            for x in x.chunks_mut(S::LANES) {
                s.store(x, s.mul(s.load(x), scale));
            }
        }
    }
}

/// As the scalar reference, `CHAINS` vectors of columns at a time.
#[inline(always)]
pub(crate) fn rms_columns<S: Simd>(s: S, residual: Option<MatRef<'_>>, eps: f32, mut x: MatMut<'_>) {
    let (rows, cols) = (x.rows(), x.cols());
    for first in (0..cols).step_by(CHAINS * S::LANES) {
        let end = cols.min(first + CHAINS * S::LANES);
        let mut sums = [s.splat(0.0); CHAINS];
        for i in 0..rows {
            let row = x.row(i)[first..end].chunks_mut(S::LANES);
            for (c, (x, sum)) in row.zip(&mut sums).enumerate() {
                let mut v = s.load(x);
                if let Some(residual) = residual {
                    let r = &residual.row(i)[first + c * S::LANES..end];
                    v = s.add(v, s.load(r));
                    s.store(x, v);
                }
                *sum = s.fma(v, v, *sum);
            }
        }
        for sum in &mut sums {
            let mean = s.div(*sum, s.splat(rows as f32));
            *sum = s.div(s.splat(1.0), s.sqrt(s.add(mean, s.splat(eps))));
        }
        for i in 0..rows {
            for (x, scale) in x.row(i)[first..end].chunks_mut(S::LANES).zip(&sums) {
                s.store(x, s.mul(s.load(x), *scale));
            }
        }
    }
}

/// As the scalar reference.
#[inline(always)]
pub(super) fn layer_row<S: Simd>(s: S, x: &mut [f32], gain: Option<&[f32]>, bias: Option<&[f32]>, eps: f32) {
    let n = x.len() as f32;
    let mean = sum(s, x) / n;
    let scale = s.splat(1.0 / (sum_squares(s, x, mean) / n + eps).sqrt());
    let mean = s.splat(mean);
    for (i, x) in x.chunks_mut(S::LANES).enumerate() {
        let mut v = s.mul(s.sub(s.load(x), mean), scale);
        if let Some(gain) = gain {
            v = s.mul(v, s.load(&gain[i * S::LANES..]));
        }
        if let Some(bias) = bias {
            v = s.add(v, s.load(&bias[i * S::LANES..]));
        }
        s.store(x, v);
    }
}

/// `Σ x`.
#[inline(always)]
fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut sums = [s.splat(0.0); CHAINS];
    for x in x.chunks(CHAINS * S::LANES) {
        for (x, sum) in x.chunks(S::LANES).zip(&mut sums) {
            *sum = s.add(*sum, s.load(x));
        }
    }
    combine(s, sums)
}

/// `Σ (x - mean)²`.
#[inline(always)]
fn sum_squares<S: Simd>(s: S, x: &[f32], mean: f32) -> f32 {
    let mut sums = [s.splat(0.0); CHAINS];
    for x in x.chunks(CHAINS * S::LANES) {
        for (x, sum) in x.chunks(S::LANES).zip(&mut sums) {
            // lanes beyond the end hold the mean and so add nothing
            let v = s.sub(s.load_or(x, mean), s.splat(mean));
            *sum = s.fma(v, v, *sum);
        }
    }
    combine(s, sums)
}

#[inline(always)]
fn combine<S: Simd>(s: S, [a, b, c, d]: [S::V; CHAINS]) -> f32 {
    s.reduce_sum(s.add(s.add(a, b), s.add(c, d)))
}
