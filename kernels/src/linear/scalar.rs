//! The plain twin of the linear operators: loops as the formula reads. Unpacked weights, one sum per output.

use crate::block::{Block, Rows};

/// `out[i][j] = Σ_k x[i][k] w[j][k] (+ bias[j])`, `w` in rows of k values.
pub(super) fn linear(x: Rows<'_>, w: &[f32], k: usize, bias: Option<&[f32]>, mut out: Block<'_>) {
    for i in 0..out.rows() {
        for (j, out) in out.row(i).iter_mut().enumerate() {
            let products = x.row(i)[..k].iter().zip(&w[j * k..]).map(|(x, w)| x * w);
            *out = products.sum::<f32>() + bias.map_or(0.0, |bias| bias[j]);
        }
    }
}

/// `out[i][j] = Σ_t w[i][t] x[t][j]`.
pub(super) fn tokens(w: Rows<'_>, x: Rows<'_>, t: usize, mut out: Block<'_>, _memory: &mut [f32]) {
    for i in 0..out.rows() {
        let row = out.row(i);
        row.fill(0.0);
        for (k, w) in w.row(i)[..t].iter().enumerate() {
            for (out, x) in row.iter_mut().zip(x.row(k)) {
                *out += w * x;
            }
        }
    }
}
