//! Weights in the layouts that products read, packed once. In: row-major f32 weights, a number format, an instruction
//! set. Out: panels of 16 columns (weights on the right of a product) or padded rows (on the left), with the scales of
//! int8. The scalar reference keeps plain values.
//!
//! Packed weights lie in large pages where the system gives them.

use crate::context::Context;
use crate::isa::Isa;
use crate::linear::tile_rows;
use crate::matrix::{Aligned, floats_mut};
use crate::number_format::{NumberFormat, quantise, round_bf16};
use crate::vector::product::tiled;
use crate::vector::tile::{LINE, NR, PANEL, TileLayout, even};

/// Words that hold `k` numbers, whole lines where the instruction set's tiles need them.
pub(crate) fn groups(isa: Isa, format: NumberFormat, k: usize) -> usize {
    let words = k.div_ceil(format.per_word());
    if tiled(isa, format) { words.next_multiple_of(LINE) } else { words }
}

/// Panics where sums of int8 products over `k` could leave 32 bits.
fn check_sums(format: NumberFormat, k: usize) {
    assert!(
        format != NumberFormat::Int8 || k <= 1 << 16,
        "int8 products over {k} numbers: their sums may leave 32 bits"
    );
}

/// A linear layer's weight, `[n, k]`, laid out for one instruction set and number format.
pub struct PackedLinear {
    pub(crate) isa: Isa,
    pub(crate) format: NumberFormat,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Panels of the first and of the second half of the rows alternate.
    pub(crate) gated: bool,
    pub(crate) groups: usize,
    /// Panel, word of k, column; of the scalar reference `[n, k]` as f32.
    pub(crate) data: Aligned,
    /// Int8: the scale of each column of the panels.
    pub(crate) scales: Vec<f32>,
    /// Int8: what A's offset of 128 adds to each column's sums, as the bits of i32.
    pub(crate) offsets: Vec<f32>,
}

impl PackedLinear {
    /// Packs the row-major weight `w: [n, k]` for the context's instruction set.
    ///
    /// # Panics
    /// If `w` is not `n * k` long.
    pub fn pack(ctx: &Context, format: NumberFormat, w: &[f32], n: usize, k: usize) -> PackedLinear {
        assert_eq!(w.len(), n * k, "PackedLinear::pack: weight is not [{n}, {k}]");
        PackedLinear::arrange(ctx, format, w, n, k, false)
    }

    /// Packs `w: [2·inner, k]`, gates in the first half of the rows, for [`gated_mlp`](crate::gated_mlp).
    ///
    /// # Panics
    /// If `w` is not `2 * inner * k` long.
    pub fn pack_gated(ctx: &Context, format: NumberFormat, w: &[f32], inner: usize, k: usize) -> PackedLinear {
        assert_eq!(w.len(), 2 * inner * k, "PackedLinear::pack_gated: weight is not [2·{inner}, {k}]");
        PackedLinear::arrange(ctx, format, w, 2 * inner, k, true)
    }

    fn arrange(ctx: &Context, format: NumberFormat, w: &[f32], n: usize, k: usize, gated: bool) -> PackedLinear {
        check_sums(format, k);
        let isa = ctx.isa();
        if isa == Isa::Scalar {
            let (data, scales) = plain(format, w, n, k);
            return PackedLinear { isa, format, n, k, gated, groups: k, data, scales, offsets: Vec::new() };
        }
        // whole panels of columns, so that one product's panels can be another's words of k
        let (per, groups, half) = (format.per_word(), groups(isa, format, k.next_multiple_of(PANEL)), n / 2);
        let layout = TileLayout { lines: tiled(isa, format), groups, mr: 1 };
        let panels = if gated { 2 * half.div_ceil(PANEL) } else { n.div_ceil(NR) * 2 };
        let mut data = Aligned::weights(panels * groups * PANEL);
        let (mut scales, mut offsets) = (vec![0.0; panels * PANEL], vec![0.0; panels * PANEL]);
        for j in 0..n {
            let (panel, lane) = match (gated, j < half) {
                (false, _) => (j / PANEL, j % PANEL),
                (true, true) => (j / PANEL * 2, j % PANEL),
                (true, false) => ((j - half) / PANEL * 2 + 1, (j - half) % PANEL),
            };
            let (row, scale, sum) = encode(format, &w[j * k..(j + 1) * k]);
            scales[panel * PANEL + lane] = scale;
            offsets[panel * PANEL + lane] = f32::from_bits((128 * sum) as u32);
            for (i, bits) in row.into_iter().enumerate() {
                data[layout.b(panel, i / per) + lane] |= bits << (32 / per * (i % per));
            }
        }
        PackedLinear { isa, format, n, k, gated, groups, data, scales, offsets }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Row `j`, `[k]`, in the number format, as f32.
    fn row(&self, j: usize) -> impl Iterator<Item = f32> + '_ {
        let (per, scalar) = (self.format.per_word(), self.isa == Isa::Scalar);
        let layout = TileLayout { lines: tiled(self.isa, self.format), groups: self.groups, mr: 1 };
        (0..self.k).map(move |i| {
            if scalar {
                return f32::from_bits(self.data[j * self.k + i]) * self.scales[j];
            }
            let word = self.data[layout.b(j / PANEL, i / per) + j % PANEL] >> (32 / per * (i % per));
            match self.format {
                NumberFormat::F32 => f32::from_bits(word),
                NumberFormat::Bf16 => f32::from_bits(word << 16),
                NumberFormat::Int8 => f32::from(word as i8) * self.scales[j],
            }
        })
    }

    /// Operations that a product with `rows` rows (padding included) executes: two for every multiply-add, padding of
    /// columns and of k included.
    pub fn operations(&self, rows: usize) -> f64 {
        2.0 * rows as f64
            * self.data.len() as f64
            * if self.isa == Isa::Scalar { 1.0 } else { self.format.per_word() as f64 }
    }

    /// Bytes of memory held, padding included.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data) + size_of_val(&*self.scales) + size_of_val(&*self.offsets)
    }

    pub(crate) fn view(&self) -> Panels<'_> {
        let pairs = self.scales.len() / NR;
        Panels { data: &self.data, k: self.k, groups: self.groups, pairs, scales: &self.scales, offsets: &self.offsets }
    }
}

/// `out[i] = factor · w[ids[i]]`: rows of a table that products read too, as f32, rounded as its number format does; `out:
/// [ids, k]`.
///
/// # Panics
/// If `out` does not fit, the table was packed as gated, or an id is not a row of it: check untrusted ids before.
pub fn linear_rows(ctx: &Context, table: &PackedLinear, ids: &[u32], factor: f32, out: &mut [f32]) {
    let (n, k) = (table.n, table.k);
    assert!(!table.gated, "linear_rows: table was packed as gated");
    assert_eq!(out.len(), ids.len() * k, "linear_rows: output is not [{}, {k}]", ids.len());
    for id in ids {
        assert!((*id as usize) < n, "linear_rows: id {id} in a table of {n} rows");
    }
    if k == 0 {
        return;
    }
    // a value costs about as much as streaming over four
    let rows = ctx.chunk(ids.len(), 4 * out.len());
    ctx.pool().chunks(out, rows * k, |index, out| {
        for (id, out) in ids[index * rows..].iter().zip(out.chunks_exact_mut(k)) {
            out.iter_mut().zip(table.row(*id as usize)).for_each(|(out, w)| *out = factor * w);
        }
    });
}

/// A packed weight on the right of a product, or some of its panels.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) data: &'a [u32],
    pub(crate) k: usize,
    pub(crate) groups: usize,
    /// Pairs of panels.
    pub(crate) pairs: usize,
    pub(crate) scales: &'a [f32],
    pub(crate) offsets: &'a [f32],
}

impl<'a> Panels<'a> {
    /// The panels from column `first` on, a multiple of `NR`; the scalar reference's rows from `first` on.
    pub(crate) fn from(self, first: usize, scalar: bool) -> Panels<'a> {
        if scalar {
            return Panels {
                data: &self.data[first * self.k..],
                scales: &self.scales[first.min(self.scales.len())..],
                ..self
            };
        }
        let (data, scales, offsets) =
            (&self.data[first * self.groups..], &self.scales[first..], &self.offsets[first..]);
        Panels { data, scales, offsets, pairs: self.pairs - first / NR, ..self }
    }
}

/// A token-mixing weight, `[n, t]`, on the left of its products.
pub struct PackedTokens {
    pub(crate) isa: Isa,
    pub(crate) format: NumberFormat,
    pub(crate) n: usize,
    pub(crate) t: usize,
    /// Tiles of the first and of the second half of the rows alternate.
    pub(crate) gated: bool,
    pub(crate) layout: TileLayout,
    /// Rows in tiles; of the scalar reference `[n, t]` as f32.
    pub(crate) data: Aligned,
    /// Int8: the scale of each row.
    pub(crate) scales: Vec<f32>,
}

impl PackedTokens {
    /// Packs the row-major weight `w: [n, t]` for the context's instruction set.
    ///
    /// # Panics
    /// If `w` is not `n * t` long.
    pub fn pack(ctx: &Context, format: NumberFormat, w: &[f32], n: usize, t: usize) -> PackedTokens {
        assert_eq!(w.len(), n * t, "PackedTokens::pack: weight is not [{n}, {t}]");
        PackedTokens::arrange(ctx, format, w, n, t, false)
    }

    /// Packs `w: [2·inner, t]`, gates in the first half of the rows, for [`token_mlp`](crate::token_mlp).
    ///
    /// # Panics
    /// If `w` is not `2 * inner * t` long.
    pub fn pack_gated(ctx: &Context, format: NumberFormat, w: &[f32], inner: usize, t: usize) -> PackedTokens {
        assert_eq!(w.len(), 2 * inner * t, "PackedTokens::pack_gated: weight is not [2·{inner}, {t}]");
        PackedTokens::arrange(ctx, format, w, 2 * inner, t, true)
    }

    fn arrange(ctx: &Context, format: NumberFormat, w: &[f32], n: usize, t: usize, gated: bool) -> PackedTokens {
        check_sums(format, t);
        let (isa, half, per) = (ctx.isa(), n / 2, format.per_word());
        let most = tile_rows(isa, format);
        // hidden rows become words of the next product's k, so tiles hold whole words
        let mr = if gated { even(half, most, per) } else { even(n, most, 1) };
        let layout = TileLayout { lines: tiled(isa, format), groups: groups(isa, format, t), mr };
        if isa == Isa::Scalar {
            let (data, scales) = plain(format, w, n, t);
            return PackedTokens { isa, format, n, t, gated, layout, data, scales };
        }
        let rows = if gated { 2 * half.next_multiple_of(mr) } else { n };
        let mut data = Aligned::weights(layout.a_words(rows));
        let mut scales = vec![0.0; n];
        for i in 0..n {
            let (row, scale, _) = encode(format, &w[i * t..(i + 1) * t]);
            scales[i] = scale;
            let place = match gated {
                true => (i % half / mr * 2 + i / half) * mr + i % half % mr,
                false => i,
            };
            for (e, bits) in row.into_iter().enumerate() {
                // on the left int8 is unsigned
                let bits = if format == NumberFormat::Int8 { bits ^ 0x80 } else { bits };
                data[layout.a(place, e / per)] |= bits << (32 / per * (e % per));
            }
        }
        PackedTokens { isa, format, n, t, gated, layout, data, scales }
    }

    /// Bytes of memory held, padding included.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data) + size_of_val(&*self.scales)
    }

    /// Scale of row `i`.
    #[inline(always)]
    pub(crate) fn scale(&self, i: usize) -> f32 {
        if self.format == NumberFormat::Int8 { self.scales[i] } else { 1.0 }
    }
}

/// A row's numbers as bits, its scale, and the sum of its integers.
fn encode(format: NumberFormat, row: &[f32]) -> (Vec<u32>, f32, i32) {
    match format {
        NumberFormat::F32 => (row.iter().map(|x| x.to_bits()).collect(), 1.0, 0),
        NumberFormat::Bf16 => (row.iter().map(|x| round_bf16(*x).to_bits() >> 16).collect(), 1.0, 0),
        NumberFormat::Int8 => {
            let (q, scale) = quantise(row);
            (q.iter().map(|q| *q as u32 & 0xff).collect(), scale, q.iter().sum())
        }
    }
}

/// What the scalar reference multiplies with: rounded values, or int8's integers as f32 with a scale for each row.
fn plain(format: NumberFormat, w: &[f32], n: usize, k: usize) -> (Aligned, Vec<f32>) {
    let mut data = Aligned::weights(n * k);
    let mut scales = vec![1.0; n];
    let values = floats_mut(&mut data);
    values.copy_from_slice(w);
    match format {
        NumberFormat::F32 => {}
        NumberFormat::Bf16 => values.iter_mut().for_each(|x| *x = round_bf16(*x)),
        NumberFormat::Int8 => {
            for (row, scale) in values.chunks_exact_mut(k.max(1)).zip(&mut scales) {
                let (q, s) = quantise(row);
                *scale = s;
                row.iter_mut().zip(q).for_each(|(x, q)| *x = q as f32);
            }
        }
    }
    (data, scales)
}
