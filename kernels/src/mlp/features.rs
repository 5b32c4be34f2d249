//! The vector bodies of the gated MLP along the features, over the shared product: rows to hidden rows, and hidden rows
//! to outputs. In: rows, and some of the panels of a weight. Out: the columns that these make. Must not: know which
//! thread takes which rows or columns.

use std::marker::PhantomData;
use std::ops::Range;

use crate::isa::Isa;
use crate::linear::pack::{PackedLinear, Panels};
use crate::linear::tile_rows;
use crate::linear::vector::{LinearEpilogue, even_chunk, layout, sums_words};
use crate::matrix::{MatMut, MatRef, SharedWords, floats, floats_mut, halves_mut, words};
use crate::norm;
use crate::number_format::NumberFormat;
use crate::vector::operand::{RowSource, encode_row, row, value};
use crate::vector::product::{Epilogue, Pairs, TilePair, product, slabbed, sums_len};
use crate::vector::tile::{Bf16, Element, F32, Int8, NR, PANEL, TileLayout, even};
use crate::vector::{Simd, math};

/// Words in a chunk of rows and their hidden values, a part of the second-level cache: 768 KiB, and twice that with
/// AMX, whose processors have caches of 2 MiB and wait longest for weights from beyond them, and where products keep
/// only slabs of the rows near.
fn near(isa: Isa, format: NumberFormat) -> usize {
    if slabbed(isa, format) { 384 << 10 } else { 192 << 10 }
}

/// Rows that go through a whole MLP together: the chunks as even as possible.
pub(super) fn chunk(up: &PackedLinear, down: &PackedLinear, rows: usize) -> usize {
    even_chunk(rows, near(up.isa, up.format) / (up.groups + down.groups).max(1))
}

/// Words that the hidden values of `rows` rows take: rows of A for the second product or, of int8, f32, since a row's
/// scale needs its largest value first.
pub(super) fn hidden_words(up: &PackedLinear, down: &PackedLinear, rows: usize) -> usize {
    match (up.isa, up.format) {
        (Isa::Scalar, _) => rows * down.k,
        (_, NumberFormat::Int8) => rows * down.k.next_multiple_of(PANEL),
        (isa, format) => rows.next_multiple_of(even(rows, tile_rows(isa, format), 1)) * down.groups,
    }
}

/// Words of scratch memory for either product of `rows` rows: sums, and rows of A with their scales.
pub(super) fn memory(up: &PackedLinear, down: &PackedLinear, rows: usize) -> usize {
    let (isa, format) = (up.isa, up.format);
    if isa == Isa::Scalar {
        return 0;
    }
    let mr = even(rows, tile_rows(isa, format), 1);
    let sums = |groups: usize| sums_len(isa, format, rows.div_ceil(2 * mr), groups);
    let below = if format == NumberFormat::Int8 { down.groups } else { 0 };
    sums(up.groups).max(sums(down.groups)) + rows.next_multiple_of(mr) * (up.groups.max(below) + 1)
}

/// As the scalar reference.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn hidden<S: Simd>(
    s: S,
    format: NumberFormat,
    x: RowSource<'_, '_>,
    rows: usize,
    up: Panels<'_>,
    part: Range<usize>,
    down: (usize, usize),
    hidden: SharedWords<'_>,
    memory: &mut [u32],
) {
    match format {
        NumberFormat::F32 => hidden_of::<S, F32>(s, x, rows, up, part, down, hidden, memory),
        NumberFormat::Bf16 => hidden_of::<S, Bf16>(s, x, rows, up, part, down, hidden, memory),
        NumberFormat::Int8 => hidden_of::<S, Int8>(s, x, rows, up, part, down, hidden, memory),
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn hidden_of<S: Simd, F: Element>(
    s: S,
    x: RowSource<'_, '_>,
    rows: usize,
    up: Panels<'_>,
    part: Range<usize>,
    (inner, below): (usize, usize),
    hidden: SharedWords<'_>,
    memory: &mut [u32],
) {
    let (above, below) = (layout::<S, F>(s, rows, up.groups), layout::<S, F>(s, rows, below));
    let (sums, memory) = memory.split_at_mut(sums_words::<S, F>(s, rows, above));
    let (a, scales) = memory.split_at_mut(above.a_words(rows));
    let scales = floats_mut(scales);
    // A: the rows as they are, or rounded
    let direct = if F::FORMAT == NumberFormat::F32 && up.k == up.groups { x.whole(up.k) } else { None };
    if direct.is_none() {
        for i in 0..rows {
            scales[i] = encode_row::<S, F>(s, &x.row(i)[..up.k], above, i, a);
        }
    }
    let a: &[u32] = direct.map_or(a, words);
    let stride = inner.next_multiple_of(PANEL);
    let last = part.end == up.pairs;
    let mut epilogue = Gated::<F> { up, scales, below, hidden, stride, format: PhantomData };
    product::<S, F, _>(s, above, a, Pairs::Rows(rows), up.data, part, 0..up.groups, floats_mut(sums), &mut epilogue);
    if last {
        pad::<F>(hidden, below, rows, inner);
    }
}

/// Writes zeros after each row's end: these words are multiplied with zeros of B, but must not be NaN. For the thread
/// that made the last columns.
#[inline(always)]
fn pad<F: Element>(hidden: SharedWords<'_>, below: TileLayout, rows: usize, inner: usize) {
    let per = F::FORMAT.per_word();
    if F::FORMAT == NumberFormat::Int8 || inner == below.groups * per {
        return;
    }
    for i in 0..rows {
        if F::FORMAT == NumberFormat::Bf16 && inner % 2 == 1 {
            // SAFETY: this thread alone writes the last column and the words after it.
            let last = unsafe { hidden.words(below.a(i, inner / 2), 1) };
            last[0] &= 0xffff;
        }
        for g in inner.div_ceil(per)..below.groups {
            // SAFETY: as above.
            let beyond = unsafe { hidden.words(below.a(i, g), 1) };
            beyond[0] = 0;
        }
    }
}

/// As the scalar reference.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn outputs<S: Simd>(
    s: S,
    format: NumberFormat,
    hidden: &[u32],
    down: Panels<'_>,
    x: Option<MatRef<'_>>,
    add: bool,
    norm: Option<f32>,
    out: MatMut<'_>,
    memory: &mut [u32],
) {
    match format {
        NumberFormat::F32 => outputs_of::<S, F32>(s, hidden, down, x, add, norm, out, memory),
        NumberFormat::Bf16 => outputs_of::<S, Bf16>(s, hidden, down, x, add, norm, out, memory),
        NumberFormat::Int8 => outputs_of::<S, Int8>(s, hidden, down, x, add, norm, out, memory),
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn outputs_of<S: Simd, F: Element>(
    s: S,
    hidden: &[u32],
    down: Panels<'_>,
    x: Option<MatRef<'_>>,
    add: bool,
    norm: Option<f32>,
    mut out: MatMut<'_>,
    memory: &mut [u32],
) {
    let (rows, cols) = (out.rows(), out.cols());
    let below = layout::<S, F>(s, rows, down.groups);
    let (sums, memory) = memory.split_at_mut(sums_words::<S, F>(s, rows, below));
    let mut scales: &[f32] = &[];
    let mut a = hidden;
    if F::FORMAT == NumberFormat::Int8 {
        let (to, memory) = memory.split_at_mut(below.a_words(rows));
        let (stride, hidden) = (down.k.next_multiple_of(PANEL), floats(hidden));
        let of = floats_mut(memory);
        for i in 0..rows {
            of[i] = encode_row::<S, F>(s, &hidden[i * stride..][..down.k], below, i, to);
        }
        (a, scales) = (to, of);
    }
    if let (true, Some(x)) = (add, x) {
        for i in 0..rows {
            out.row(i).copy_from_slice(&x.row(i)[..cols]);
        }
    }
    let mut epilogue = LinearEpilogue::<F>::new(down, scales, None, add, &mut out);
    let (panels, k) = (0..cols.div_ceil(NR), 0..down.groups);
    product::<S, F, _>(s, below, a, Pairs::Rows(rows), down.data, panels, k, floats_mut(sums), &mut epilogue);
    if let Some(eps) = norm {
        for i in 0..rows {
            norm::vector::rms_row(s, out.row(i), None, None, eps);
        }
    }
}

/// Makes hidden rows of sums: `silu(gate) · up`, gates in the first panel of a pair.
struct Gated<'a, F: Element> {
    up: Panels<'a>,
    scales: &'a [f32],
    below: TileLayout,
    /// no other thread touches the columns of the panels that this one takes
    hidden: SharedWords<'a>,
    stride: usize,
    format: PhantomData<F>,
}

impl<S: Simd, F: Element> Epilogue<S> for Gated<'_, F> {
    #[inline(always)]
    fn apply(&mut self, s: S, p: usize, tiles: TilePair, sums: [&[f32]; 2]) {
        let of: &[f32; NR] = self.up.scales[p * NR..].first_chunk().expect("a scale for each column");
        let offsets: &[f32; NR] = self.up.offsets[p * NR..].first_chunk().expect("an offset for each column");
        for (t, sums) in sums.into_iter().enumerate() {
            for r in 0..tiles.rows[t] {
                let (i, sums) = (tiles.first[t] + r, row(sums, r));
                match F::FORMAT {
                    NumberFormat::F32 => {
                        // SAFETY: a column of the panels that this thread takes, which no other touches, as
                        // `SharedWords::new` was promised.
                        let to = floats_mut(unsafe { self.hidden.words(self.below.a(i, p * PANEL), PANEL) });
                        for v in (0..PANEL).step_by(S::LANES) {
                            let (g, u) = (s.load(&sums[v..]), s.load(&sums[PANEL + v..]));
                            s.store(&mut to[v..], s.mul(math::silu(s, g), u));
                        }
                    }
                    NumberFormat::Bf16 => {
                        // SAFETY: as above.
                        let to = halves_mut(unsafe { self.hidden.words(self.below.a(i, p * PANEL / 2), PANEL / 2) });
                        for v in (0..PANEL).step_by(S::LANES) {
                            let (g, u) = (s.load(&sums[v..]), s.load(&sums[PANEL + v..]));
                            s.store_bf16(&mut to[v..], s.mul(math::silu_rough(s, g), u));
                        }
                    }
                    NumberFormat::Int8 => {
                        // SAFETY: as above.
                        let to = floats_mut(unsafe { self.hidden.words(i * self.stride + p * PANEL, PANEL) });
                        let scale = self.scales[i];
                        for v in (0..PANEL).step_by(S::LANES) {
                            let u = PANEL + v;
                            let g = value::<S, F>(s, &sums[v..], scale, &of[v..], &offsets[v..]);
                            let u = value::<S, F>(s, &sums[u..], scale, &of[u..], &offsets[u..]);
                            s.store(&mut to[v..], s.mul(math::silu_rough(s, g), u));
                        }
                    }
                }
            }
        }
    }
}
