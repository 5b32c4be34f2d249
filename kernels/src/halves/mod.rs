//! Linear layers whose weights stay in f16, as a file has them. In: activations in f32, and weights that were packed once. Out:
//! activations in f32. Must not: round a weight or an activation.
//!
//! Weights lie in panels of 16 rows, for each k those of all rows side by side. An output is the sum of two chains of fused
//! multiply-adds, over the even and over the odd k: so every instruction set, the scalar reference included, gives the same bits.

mod scalar;
#[cfg(test)]
mod tests;
mod vector;

use crate::blocks::format::half;
use crate::context::Context;
use crate::matrix::{Aligned, MatMut, halves_mut};
use crate::pool::SendPtr;
use crate::vector::dispatch;

/// Rows of a panel.
const ROWS: usize = 16;

/// Multiply-adds that cost as much as streaming over one value of f32: each reads two bytes.
const PER_VALUE: usize = 2;

/// A weight, `[n, k]`, in f16.
pub struct PackedHalves {
    n: usize,
    k: usize,
    /// Panel, k, row: two f16 a word.
    data: Aligned,
}

dispatch! {
    fn product(x: &[f32], w: &PackedHalves, first: usize, out: MatMut<'_>) { scalar::product | vector::product }
}

impl PackedHalves {
    /// Packs the rows `rows: [n, k]`, f16 of the lowest byte first.
    ///
    /// # Panics
    /// If they are not as many.
    pub fn pack(ctx: &Context, rows: &[u8], n: usize, k: usize) -> PackedHalves {
        assert_eq!(rows.len(), 2 * n * k, "PackedHalves::pack: not [{n}, {k}]");
        let mut packed = PackedHalves::zeros(n, k);
        packed.write(ctx, 0, rows);
        packed
    }

    /// A weight of zeros, whose rows [`PackedHalves::write`] brings piece by piece.
    pub fn zeros(n: usize, k: usize) -> PackedHalves {
        PackedHalves { n, k, data: Aligned::weights(n.div_ceil(ROWS) * k * ROWS / 2) }
    }

    /// Writes `rows` from row `first` on, a multiple of 16.
    ///
    /// # Panics
    /// If `rows` are not whole rows, more than there are, or begin elsewhere.
    pub fn write(&mut self, ctx: &Context, first: usize, rows: &[u8]) {
        let (n, k) = (self.n, self.k);
        if k == 0 {
            return;
        }
        let count = rows.len() / (2 * k);
        assert!(
            rows.len().is_multiple_of(2 * k) && first.is_multiple_of(ROWS) && first + count <= n,
            "PackedHalves::write: {} bytes from row {first} on are no rows of [{n}, {k}]",
            rows.len()
        );
        let words = k * ROWS / 2;
        let panels = &mut self.data[first / ROWS * words..][..count.div_ceil(ROWS) * words];
        ctx.pool().chunks(panels, words, |p, panel| {
            let panel = halves_mut(panel);
            for (lane, row) in rows[p * ROWS * 2 * k..].chunks_exact(2 * k).take(ROWS).enumerate() {
                for (i, bits) in row.chunks_exact(2).enumerate() {
                    panel[i * ROWS + lane] = u16::from_le_bytes([bits[0], bits[1]]);
                }
            }
        });
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of memory held, padding included: what a product with one row reads.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data)
    }

    /// Weight `i` of row `j`.
    fn weight(&self, j: usize, i: usize) -> f32 {
        let at = j / ROWS * self.k * ROWS + i * ROWS + j % ROWS;
        half((self.data[at / 2] >> (16 * (at % 2))) as u16)
    }
}

/// `out[m, n] = x[m, k] · W[n, k]ᵀ`; m follows from the length of `out`.
///
/// # Panics
/// If a length does not fit.
pub fn halves_linear(ctx: &Context, x: &[f32], w: &PackedHalves, out: &mut [f32]) {
    let (n, k) = (w.n, w.k);
    let m = out.len().checked_div(n).unwrap_or(0);
    assert_eq!(out.len(), m * n, "halves_linear: output is not [m, {n}]");
    assert!(m == 0 || x.len() == m * k, "halves_linear: input is not [{m}, {k}]");
    if k == 0 || m == 0 {
        return out.fill(0.0);
    }
    let (threads, panels) = (ctx.parts(m * n * k / PER_VALUE), n.div_ceil(ROWS));
    let start = SendPtr(out.as_mut_ptr());
    ctx.pool().run_on(threads, threads, &|i| {
        let (first, end) = (panels * i / threads * ROWS, (panels * (i + 1) / threads * ROWS).min(n));
        if first < end {
            // SAFETY: columns within `out`, which is borrowed until `run_on` returns; the threads' do not overlap.
            let block = unsafe { MatMut::from_raw(start.get().add(first), m, end - first, n) };
            product(ctx.proof(), x, w, first, block);
        }
    });
}

/// `out[i] = factor · w[ids[i]]`: rows of a table in f16 as f32; `out: [ids, k]`.
///
/// # Panics
/// If `out` does not fit or an id is not a row of the table: check untrusted ids before.
pub fn halves_rows(ctx: &Context, table: &PackedHalves, ids: &[u32], factor: f32, out: &mut [f32]) {
    let (n, k) = (table.n, table.k);
    assert_eq!(out.len(), ids.len() * k, "halves_rows: output is not [{}, {k}]", ids.len());
    for id in ids {
        assert!((*id as usize) < n, "halves_rows: id {id} in a table of {n} rows");
    }
    if k == 0 {
        return;
    }
    let rows = ctx.chunk(ids.len(), out.len());
    ctx.pool().chunks(out, rows * k, |index, out| {
        for (id, out) in ids[index * rows..].iter().zip(out.chunks_exact_mut(k)) {
            out.iter_mut().enumerate().for_each(|(i, out)| *out = factor * table.weight(*id as usize, i));
        }
    });
}
