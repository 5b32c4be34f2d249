//! Linear layers along the features and along the tokens. In: activations and weights packed once. Out: activations. Weights never change here.

mod scalar;
mod vector;

use crate::block::{Aligned, Block, Rows, scratch};
use crate::ctx::{Ctx, streamed};
use crate::isa::Isa;
use crate::vector::dispatch;
use crate::vector::product::{pack_columns, packed_len};

/// A linear layer's weight, `[n, k]`, laid out for one instruction set.
pub struct PackedLinear {
    isa: Isa,
    n: usize,
    k: usize,
    data: Aligned,
}

impl PackedLinear {
    /// Packs the row-major weight `w: [n, k]` for the context's instruction set.
    ///
    /// # Panics
    /// If `w` is not `n * k` long.
    pub fn pack(ctx: &Ctx, w: &[f32], n: usize, k: usize) -> PackedLinear {
        assert_eq!(w.len(), n * k, "PackedLinear::pack: weight is not [{n}, {k}]");
        let width = ctx.proof().tile().1;
        let mut data = Aligned::zeros(packed_len(k, n, width));
        pack_columns(Rows::new(w, k), k, n, width, &mut data);
        PackedLinear { isa: ctx.isa(), n, k, data }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// FLOPs that [`linear`] executes on `m` rows: two for every multiply-add of its tiles, which compute whole panels of columns.
    pub fn flops(&self, m: usize) -> f64 {
        2.0 * m as f64 * self.data.len() as f64
    }

    /// Memory held, padding included.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data)
    }
}

/// A token-mixing weight, `[n, t]`.
pub struct PackedTokens {
    n: usize,
    t: usize,
    data: Aligned,
}

impl PackedTokens {
    /// Packs the row-major weight `w: [n, t]`; the layout is the same for every instruction set.
    ///
    /// # Panics
    /// If `w` is not `n * t` long.
    pub fn pack(w: &[f32], n: usize, t: usize) -> PackedTokens {
        assert_eq!(w.len(), n * t, "PackedTokens::pack: weight is not [{n}, {t}]");
        let mut data = Aligned::zeros(n * t);
        data.copy_from_slice(w);
        PackedTokens { n, t, data }
    }

    /// Output tokens.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input tokens.
    pub fn t(&self) -> usize {
        self.t
    }

    /// FLOPs that [`linear_tokens`] executes on `batch` examples of `d` features: two for every multiply-add, whole panels of features.
    pub fn flops(&self, ctx: &Ctx, batch: usize, d: usize) -> f64 {
        // cells begin at whole panels, so cutting adds none
        2.0 * (batch * self.n) as f64 * packed_len(self.t, d, ctx.proof().tile().1) as f64
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data)
    }
}

dispatch! {
    fn linear_block(x: Rows<'_>, w: &[f32], k: usize, bias: Option<&[f32]>, out: Block<'_>) { scalar::linear | vector::linear }
}
dispatch! {
    fn tokens_block(w: Rows<'_>, x: Rows<'_>, t: usize, out: Block<'_>, memory: &mut [f32]) { scalar::tokens | vector::tokens }
}

/// `out[m, n] = x[m, k] · W[n, k]ᵀ (+ bias[n])`; m is what `out` and `x` have room for.
///
/// # Panics
/// If a length does not fit, or `w` was packed for another instruction set.
pub fn linear(ctx: &Ctx, x: &[f32], w: &PackedLinear, bias: Option<&[f32]>, out: &mut [f32]) {
    let (n, k) = (w.n, w.k);
    assert_eq!(w.isa, ctx.isa(), "linear: weight was packed for another instruction set");
    let m = out.len().checked_div(n).unwrap_or(0);
    assert_eq!(out.len(), m * n, "linear: output is not [m, {n}]");
    assert!(n == 0 || x.len() == m * k, "linear: input is not [{m}, {k}]");
    assert!(bias.is_none_or(|bias| bias.len() == n), "linear: bias is not [{n}]");
    let (high, wide) = ctx.proof().tile();
    let (tiles, panels) = (m.div_ceil(high), n.div_ceil(wide));
    let parts = ctx.parts(streamed(m * n * k));
    // split where the threads' shares come out most even, by columns when in doubt: then each thread reads its own weights
    let largest = |units: usize| units.div_ceil(parts) as f64 / units.max(1) as f64;
    let cell = if largest(panels) <= largest(tiles) {
        (m, panels.div_ceil(parts) * wide)
    } else {
        (tiles.div_ceil(parts) * high, n)
    };
    ctx.cells(out, n, cell, parts, |(row, col), block| {
        let bias = bias.map(|bias| &bias[col..]);
        linear_block(ctx.proof(), Rows::new(x, k).from(row), &w.data[col * k..], k, bias, block);
    });
}

/// `out[b][n, d] = W[n, t] · x[b][t, d]` for each of `batch` examples: mixes the tokens of `x: [batch, t, d]` into `out: [batch, n, d]`.
///
/// # Panics
/// If a length does not fit.
pub fn linear_tokens(ctx: &Ctx, x: &[f32], w: &PackedTokens, d: usize, out: &mut [f32]) {
    let (n, t) = (w.n, w.t);
    let batch = out.len().checked_div(n * d).unwrap_or(0);
    assert_eq!(out.len(), batch * n * d, "linear_tokens: output is not [batch, {n}, {d}]");
    assert!(n * d == 0 || x.len() == batch * t * d, "linear_tokens: input is not [{batch}, {t}, {d}]");
    // each cell packs its own columns; two panels' worth keeps them in the first-level cache and the threads even
    let width = ctx.proof().tile().1;
    let wide = if width == 1 { d } else { 2 * width };
    let threads = ctx.parts(streamed(batch * n * t * d));
    ctx.cells(out, d, (n, wide), threads, |(row, col), block| {
        let x = &x[row / n.max(1) * t * d..];
        let x = Rows::new(x, d).columns(col);
        scratch(packed_len(t, block.cols(), width), |memory| {
            tokens_block(ctx.proof(), Rows::new(&w.data, t), x, t, block, memory);
        });
    });
}
