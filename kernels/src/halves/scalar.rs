//! The scalar reference of products with weights in f16: the chains of the definition.

use super::PackedHalves;
use crate::matrix::MatMut;

/// `out[i, j] = Σ x[i] · w[first + j]`, over the even k plus over the odd.
pub(super) fn product(x: &[f32], w: &PackedHalves, first: usize, mut out: MatMut<'_>) {
    for i in 0..out.rows() {
        let x = &x[i * w.k..(i + 1) * w.k];
        for (j, out) in out.row(i).iter_mut().enumerate() {
            let mut sums = [0.0f32; 2];
            for (d, x) in x.iter().enumerate() {
                sums[d % 2] = x.mul_add(w.weight(first + j, d), sums[d % 2]);
            }
            *out = sums[0] + sums[1];
        }
    }
}
