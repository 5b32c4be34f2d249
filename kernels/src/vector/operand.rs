//! Packing of the operands of products, and what comes out of them. In: f32 rows and columns. Out: rows of A and panels
//! of B in a number format, with the scales of int8; sums as f32. Must not: know an operator.

use super::Simd;
use super::tile::{Element, LINE, NR, PANEL, TileLayout};
use crate::matrix::{MatMut, MatRef, bytes_mut, floats_mut, halves_mut};
use crate::number_format::{NumberFormat, scale_of};

/// Where an operator reads rows: an input, or its own output.
#[derive(Clone, Copy)]
pub(crate) enum RowSource<'a, 'b> {
    Rows(MatRef<'a>),
    /// The first columns of each row, as many as given.
    Cut(MatRef<'a>, usize),
    Own(&'a MatMut<'b>),
}

impl<'a> RowSource<'a, '_> {
    /// Row `i`, at least as long as its reader needs.
    #[inline(always)]
    pub(crate) fn row(self, i: usize) -> &'a [f32] {
        match self {
            RowSource::Rows(rows) => rows.row(i),
            RowSource::Cut(rows, columns) => &rows.row(i)[..columns],
            RowSource::Own(block) => block.row_ref(i),
        }
    }

    /// All rows in one slice, where they are `d` long and without gaps.
    #[inline(always)]
    pub(crate) fn whole(self, d: usize) -> Option<&'a [f32]> {
        match self {
            RowSource::Rows(rows) => (rows.stride() == d).then(|| rows.row(0)),
            RowSource::Own(block) if block.cols() == d => Some(block.whole()),
            _ => None,
        }
    }
}

/// Writes row `i` of A, zeros after its end, and gives its scale (1 where the format has none).
#[inline(always)]
pub(crate) fn encode_row<S: Simd, F: Element>(s: S, x: &[f32], layout: TileLayout, i: usize, a: &mut [u32]) -> f32 {
    let (mut scale, mut inverse) = (1.0, s.splat(0.0));
    if F::FORMAT == NumberFormat::Int8 {
        let mut most = s.splat(0.0);
        for x in x.chunks(S::LANES) {
            most = s.max_magnitude(most, s.load(x));
        }
        let (of_row, by) = scale_of(s.reduce_magnitude(most));
        (scale, inverse) = (of_row, s.splat(by));
    }
    let numbers = LINE * F::FORMAT.per_word();
    for (line, first) in (0..layout.groups).step_by(LINE).enumerate() {
        let words = LINE.min(layout.groups - first);
        let to = &mut a[layout.a(i, first)..][..words];
        let x = &x[(line * numbers).min(x.len())..((line + 1) * numbers).min(x.len())];
        match F::FORMAT {
            NumberFormat::F32 => {
                let to = floats_mut(to);
                for (v, x) in x.chunks(S::LANES).enumerate() {
                    s.store(&mut to[v * S::LANES..], s.load(x));
                }
                let done = x.len().next_multiple_of(S::LANES).min(to.len());
                to[done..].fill(0.0);
            }
            NumberFormat::Bf16 => {
                let halves = halves_mut(to);
                for (v, x) in x.chunks(S::LANES).enumerate() {
                    s.store_bf16(&mut halves[v * S::LANES..], s.load(x));
                }
                let done = x.len().next_multiple_of(S::LANES).min(halves.len());
                halves[done..].fill(0);
            }
            // what stands after the end is multiplied with zeros of B
            NumberFormat::Int8 => {
                let bytes = bytes_mut(to);
                for (v, x) in x.chunks(S::LANES).enumerate() {
                    s.store_u8(&mut bytes[v * S::LANES..], s.mul(s.load(x), inverse));
                }
            }
        }
    }
    scale
}

/// Scales and offsets of `NR` columns of int8 sums; unused by other formats.
#[derive(Clone, Copy)]
pub(crate) struct ColumnScales {
    pub(crate) scales: [f32; NR],
    /// bits of i32
    pub(crate) offsets: [f32; NR],
}

impl ColumnScales {
    pub(crate) fn new() -> ColumnScales {
        ColumnScales { scales: [0.0; NR], offsets: [0.0; NR] }
    }
}

/// Packs `k` rows of up to `NR` columns, from `column` on, as pair `p` of the panels; what is beyond a row's end or
/// beyond `k` is zero.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn pack_panels<S: Simd, F: Element>(
    s: S,
    x: RowSource<'_, '_>,
    column: usize,
    k: usize,
    layout: TileLayout,
    p: usize,
    panels: &mut [u32],
    columns: &mut ColumnScales,
) {
    let per = F::FORMAT.per_word();
    let panels = floats_mut(panels);
    let mut inverses = [0.0f32; NR];
    if F::FORMAT == NumberFormat::Int8 {
        for v in (0..NR).step_by(S::LANES) {
            let mut most = s.splat(0.0);
            for i in 0..k {
                most = s.max_magnitude(most, s.load(from(x.row(i), column + v)));
            }
            s.store(&mut inverses[v..], most);
        }
        for c in 0..NR {
            (columns.scales[c], inverses[c]) = scale_of(inverses[c]);
        }
    }
    let mut totals = [0.0f32; NR];
    for g in 0..layout.groups {
        let mut rows: [&[f32]; 4] = [&[]; 4];
        for (e, row) in rows.iter_mut().enumerate().take(per) {
            if g * per + e < k {
                *row = from(x.row(g * per + e), column);
            }
        }
        for v in (0..NR).step_by(S::LANES) {
            let word = match F::FORMAT {
                NumberFormat::F32 => s.load(from(rows[0], v)),
                NumberFormat::Bf16 => s.pair_bf16(s.load(from(rows[0], v)), s.load(from(rows[1], v))),
                NumberFormat::Int8 => {
                    let inverse = s.load(&inverses[v..]);
                    let mut values = [s.splat(0.0); 4];
                    let mut sum = s.load(&totals[v..]);
                    for (value, row) in values.iter_mut().zip(rows) {
                        *value = s.round(s.mul(s.load(from(row, v)), inverse));
                        sum = s.add(sum, *value);
                    }
                    s.store(&mut totals[v..], sum);
                    s.quad_i8(values)
                }
            };
            let at = layout.b(2 * p + v / PANEL, g) + v % PANEL;
            s.store(&mut panels[at..at + S::LANES], word);
        }
    }
    if F::FORMAT == NumberFormat::Int8 {
        for (offset, total) in columns.offsets.iter_mut().zip(totals) {
            // sums of integers far below 2^24, so exact; NaN counts as 0, and the scale of its column is NaN
            *offset = f32::from_bits((total as i32 * 128) as u32);
        }
    }
}

/// A row from a column on; nothing beyond its end.
#[inline(always)]
fn from(row: &[f32], column: usize) -> &[f32] {
    &row[column.min(row.len())..]
}

/// A row of a tile's sums.
#[inline(always)]
pub(crate) fn row(sums: &[f32], row: usize) -> &[f32; NR] {
    sums[row * NR..].first_chunk().expect("sums of a whole tile")
}

/// A vector of sums as f32: `scales` and `offsets` of its columns, `scale` of its row, which only int8 has.
#[inline(always)]
pub(crate) fn value<S: Simd, F: Element>(s: S, sums: &[f32], scale: f32, scales: &[f32], offsets: &[f32]) -> S::V {
    let sum = s.load(sums);
    if F::FORMAT == NumberFormat::Int8 {
        let scale = s.mul(s.splat(scale), s.load(scales));
        s.mul(s.i32_to_f32(s.sub_i32(sum, s.load(offsets))), scale)
    } else {
        sum
    }
}
