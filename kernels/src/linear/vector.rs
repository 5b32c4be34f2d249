//! The vector body of the linear layer, over the shared product.

use super::pack::Panels;
use crate::matrix::{MatMut, MatRef, floats_mut, words};
use crate::norm;
use crate::number_format::NumberFormat;
use crate::vector::operand::{encode_row, row, value};
use crate::vector::product::{Epilogue, Pairs, TilePair, product, sums_len};
use crate::vector::tile::{Bf16, Element, F32, Int8, NR, TileLayout, even};
use crate::vector::{Simd, isa_of};

/// Words of A in a chunk of rows, which is multiplied with every panel in turn: 512 KiB, a part of the second-level
/// cache.
const CHUNK: usize = 128 << 10;
/// Most rows of a chunk: the sums of all its tiles are in use at once.
const MOST: usize = 208;

/// Rows of a chunk.
pub(crate) fn chunk(rows: usize, groups: usize) -> usize {
    even_chunk(rows, CHUNK / groups.max(1))
}

/// Rows of a chunk when `fit` of them fit into the cache: the chunks as even as possible.
pub(crate) fn even_chunk(rows: usize, fit: usize) -> usize {
    even(rows, fit.clamp(32, MOST), 1)
}

/// As the scalar reference.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn linear<S: Simd>(
    s: S,
    format: NumberFormat,
    x: MatRef<'_>,
    w: Panels<'_>,
    bias: Option<&[f32]>,
    norm: Option<f32>,
    out: MatMut<'_>,
    memory: &mut [u32],
) {
    match format {
        NumberFormat::F32 => typed::<S, F32>(s, x, w, bias, norm, out, memory),
        NumberFormat::Bf16 => typed::<S, Bf16>(s, x, w, bias, norm, out, memory),
        NumberFormat::Int8 => typed::<S, Int8>(s, x, w, bias, norm, out, memory),
    }
}

#[inline(always)]
fn typed<S: Simd, F: Element>(
    s: S,
    x: MatRef<'_>,
    w: Panels<'_>,
    bias: Option<&[f32]>,
    norm: Option<f32>,
    mut out: MatMut<'_>,
    memory: &mut [u32],
) {
    let (m, n) = (out.rows(), out.cols());
    let most = chunk(m, w.groups);
    // f32 rows without padding are used as A in place
    let direct = F::FORMAT == NumberFormat::F32 && x.stride() == w.groups;
    for first in (0..m).step_by(most.max(1)) {
        let rows = most.min(m - first);
        let layout = layout::<S, F>(s, rows, w.groups);
        let (sums, memory) = memory.split_at_mut(sums_words::<S, F>(s, rows, layout));
        let (a, scales) = memory.split_at_mut(if direct { 0 } else { layout.a_words(rows) });
        let scales = floats_mut(scales);
        let x = x.from(first);
        if !direct {
            for i in 0..rows {
                scales[i] = encode_row::<S, F>(s, &x.row(i)[..w.k], layout, i, a);
            }
        }
        let a: &[u32] = if direct { words(x.row(0)) } else { a };
        let mut out = out.part(first, first + rows);
        let mut epilogue = LinearEpilogue::<F>::new(w, scales, bias, norm.is_some(), &mut out);
        let panels = 0..n.div_ceil(NR);
        product::<S, F, _>(
            s,
            layout,
            a,
            Pairs::Rows(rows),
            w.data,
            panels,
            0..w.groups,
            floats_mut(sums),
            &mut epilogue,
        );
        if let Some(eps) = norm {
            for i in 0..rows {
                norm::vector::rms_row(s, out.row(i), None, None, eps);
            }
        }
    }
}

/// How `rows` rows of A lie.
#[inline(always)]
pub(crate) fn layout<S: Simd, F: Element>(s: S, rows: usize, groups: usize) -> TileLayout {
    TileLayout { lines: s.line_words::<F>() > 1, groups, mr: even(rows, s.tile_rows::<F>(), 1) }
}

/// Words for the sums of `rows` rows.
#[inline(always)]
pub(crate) fn sums_words<S: Simd, F: Element>(s: S, rows: usize, layout: TileLayout) -> usize {
    sums_len(isa_of::<S, F>(s), F::FORMAT, Pairs::Rows(rows).count(layout.mr), layout.groups)
}

/// The epilogue of a linear layer, which makes rows of an output of sums: `out (+)= A · B (+ bias)`.
pub(crate) struct LinearEpilogue<'a, 'b, F: Element> {
    w: Panels<'a>,
    scales: &'a [f32],
    bias: Option<&'a [f32]>,
    add: bool,
    out: &'a mut MatMut<'b>,
    format: std::marker::PhantomData<F>,
}

impl<'a, 'b, F: Element> LinearEpilogue<'a, 'b, F> {
    #[inline(always)]
    pub(crate) fn new(
        w: Panels<'a>,
        scales: &'a [f32],
        bias: Option<&'a [f32]>,
        add: bool,
        out: &'a mut MatMut<'b>,
    ) -> Self {
        LinearEpilogue { w, scales, bias, add, out, format: std::marker::PhantomData }
    }
}

impl<S: Simd, F: Element> Epilogue<S> for LinearEpilogue<'_, '_, F> {
    #[inline(always)]
    fn apply(&mut self, s: S, p: usize, tiles: TilePair, sums: [&[f32]; 2]) {
        let column = p * NR;
        let of: &[f32; NR] = self.w.scales[column..].first_chunk().expect("a scale for each column");
        let offsets: &[f32; NR] = self.w.offsets[column..].first_chunk().expect("an offset for each column");
        for (t, sums) in sums.into_iter().enumerate() {
            for r in 0..tiles.rows[t] {
                let i = tiles.first[t] + r;
                let scale = if F::FORMAT == NumberFormat::Int8 { self.scales[i] } else { 1.0 };
                let (sums, to) = (row(sums, r), &mut self.out.row(i)[column..]);
                for v in (0..NR).step_by(S::LANES) {
                    if v >= to.len() {
                        break;
                    }
                    let mut y = value::<S, F>(s, &sums[v..], scale, &of[v..], &offsets[v..]);
                    if let Some(bias) = self.bias {
                        y = s.add(y, s.load(&bias[column + v..]));
                    }
                    if self.add {
                        y = s.add(s.load(&to[v..]), y);
                    }
                    s.store(&mut to[v..], y);
                }
            }
        }
    }
}
