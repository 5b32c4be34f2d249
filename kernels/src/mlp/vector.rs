//! The vector bodies of the gated MLPs, over the shared product.

use crate::block::{Block, Rows, floats_mut, halves_mut, words};
use crate::format::Format;
use crate::linear::pack::{PackedLinear, PackedTokens, Panels};
use crate::linear::tile_rows;
use crate::linear::vector::{Outputs, even_chunk, layout, sums_words};
use crate::norm;
use crate::vector::operand::{Columns, Source, encode_row, pack_panels, row, value};
use crate::vector::product::{After, Pairs, product, sums_len};
use crate::vector::tile::{Bf16, F32, Int8, Layout, Number, PANEL, WIDE, even};
use crate::vector::{Simd, math};

/// Words that a chunk of rows and their hidden values may hold: 768 KiB, a part of the second-level cache.
const CHUNK: usize = 192 << 10;

/// Rows that pass through a whole MLP together: as even as can be.
pub(super) fn chunk(groups: usize, hidden: usize, rows: usize) -> usize {
    even_chunk(rows, CHUNK / (groups + hidden).max(1))
}

/// Words of scratch memory: sums, rows of A, hidden rows, a scale for each, and of int8 hidden values before they are rounded.
pub(super) fn features_memory(up: &PackedLinear, down: &PackedLinear, rows: usize) -> usize {
    let rows = chunk(up.groups, down.groups, rows);
    let high = even(rows, tile_rows(up.isa, up.format), 1);
    let count = rows.div_ceil(2 * high);
    let sums = sums_len(up.isa, up.format, count, up.groups).max(sums_len(up.isa, up.format, count, down.groups));
    let unrounded = if up.format == Format::Int8 { down.k.next_multiple_of(PANEL) } else { 0 };
    sums + rows.next_multiple_of(high) * (up.groups + down.groups + 1 + unrounded)
}

/// As the twin.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn features<S: Simd>(
    s: S,
    format: Format,
    x: Option<Rows<'_>>,
    up: Panels<'_>,
    down: Panels<'_>,
    norm: Option<f32>,
    out: Block<'_>,
    memory: &mut [u32],
) {
    match format {
        Format::F32 => rows_of::<S, F32>(s, x, up, down, norm, out, memory),
        Format::Bf16 => rows_of::<S, Bf16>(s, x, up, down, norm, out, memory),
        Format::Int8 => rows_of::<S, Int8>(s, x, up, down, norm, out, memory),
    }
}

#[inline(always)]
fn rows_of<S: Simd, F: Number>(
    s: S,
    x: Option<Rows<'_>>,
    up: Panels<'_>,
    down: Panels<'_>,
    norm: Option<f32>,
    mut out: Block<'_>,
    memory: &mut [u32],
) {
    let (m, d) = (out.rows(), up.k);
    let most = chunk(up.groups, down.groups, m);
    for first in (0..m).step_by(most.max(1)) {
        let rows = most.min(m - first);
        let (above, below) = (layout::<S, F>(s, rows, up.groups), layout::<S, F>(s, rows, down.groups));
        let sums = sums_words::<S, F>(s, rows, above).max(sums_words::<S, F>(s, rows, below));
        let (sums, memory) = memory.split_at_mut(sums);
        let (a, memory) = memory.split_at_mut(above.a_words(rows));
        let (hidden, memory) = memory.split_at_mut(below.a_words(rows));
        let (scales, unrounded) = memory.split_at_mut(rows.next_multiple_of(above.high));
        let (sums, scales, unrounded) = (floats_mut(sums), floats_mut(scales), floats_mut(unrounded));
        let mut out = out.part(first, first + rows);
        let x = x.map(|x| x.from(first));
        // A: the rows as they are, or rounded
        {
            let direct = F::FORMAT == Format::F32 && d == up.groups && x.is_none_or(|x| x.stride() == d);
            if !direct {
                let from = x.map_or(Source::Own(&out), Source::Rows);
                for i in 0..rows {
                    scales[i] = encode_row::<S, F>(s, &from.row(i)[..d], above, i, a);
                }
            }
            let a: &[u32] = match x {
                _ if !direct => a,
                Some(x) => words(x.row(0)),
                None => words(out.whole()),
            };
            let (wide, scales) = (down.k.next_multiple_of(PANEL), &*scales);
            let mut after = Gated::<F> { up, scales, below, hidden, wide, unrounded, format: std::marker::PhantomData };
            let (panels, k) = (0..up.pairs, 0..up.groups);
            product::<S, F, _>(s, above, a, Pairs::Rows(rows), up.data, panels, k, sums, &mut after);
        }
        pad_hidden::<F>(hidden, below, rows, down.k);
        if F::FORMAT == Format::Int8 {
            let wide = down.k.next_multiple_of(PANEL);
            for i in 0..rows {
                scales[i] = encode_row::<S, F>(s, &unrounded[i * wide..][..down.k], below, i, hidden);
            }
        }
        if let (true, Some(x)) = (norm.is_some(), x) {
            for i in 0..rows {
                out.row(i).copy_from_slice(&x.row(i)[..d]);
            }
        }
        let mut after = Outputs::<F>::new(down, scales, None, norm.is_some(), below.high, &mut out);
        let (panels, k) = (0..d.div_ceil(WIDE), 0..down.groups);
        product::<S, F, _>(s, below, hidden, Pairs::Rows(rows), down.data, panels, k, sums, &mut after);
        if let Some(eps) = norm {
            for i in 0..rows {
                norm::vector::rms_row(s, out.row(i), None, None, eps);
            }
        }
    }
}

/// Zeros after each row's end: what stands there meets zeros of B, but must not be NaN.
#[inline(always)]
fn pad_hidden<F: Number>(hidden: &mut [u32], below: Layout, rows: usize, inner: usize) {
    let per = F::FORMAT.per_word();
    if F::FORMAT == Format::Int8 || inner == below.groups * per {
        return;
    }
    for i in 0..rows {
        if F::FORMAT == Format::Bf16 && inner % 2 == 1 {
            hidden[below.a(i, inner / 2)] &= 0xffff;
        }
        (inner.div_ceil(per)..below.groups).for_each(|g| hidden[below.a(i, g)] = 0);
    }
}

/// Hidden rows of sums: `silu(gate) · up`, gates in the first panel of a pair.
struct Gated<'a, F: Number> {
    up: Panels<'a>,
    scales: &'a [f32],
    below: Layout,
    hidden: &'a mut [u32],
    wide: usize,
    unrounded: &'a mut [f32],
    format: std::marker::PhantomData<F>,
}

impl<S: Simd, F: Number> After<S> for Gated<'_, F> {
    #[inline(always)]
    fn take(&mut self, s: S, p: usize, j: usize, rows: [usize; 2], sums: &[f32]) {
        let of: &[f32; WIDE] = self.up.scales[p * WIDE..].first_chunk().expect("a scale for each column");
        let offsets: &[f32; WIDE] = self.up.offsets[p * WIDE..].first_chunk().expect("an offset for each column");
        for (t, rows) in rows.into_iter().enumerate() {
            for r in 0..rows {
                let (i, sums) = ((2 * j + t) * self.below.high + r, row(sums, t, r));
                match F::FORMAT {
                    Format::F32 => {
                        let at = self.below.a(i, p * PANEL);
                        let to = &mut floats_mut(self.hidden)[at..at + PANEL];
                        for v in (0..PANEL).step_by(S::LANES) {
                            let (g, u) = (s.load(&sums[v..]), s.load(&sums[PANEL + v..]));
                            s.store(&mut to[v..], s.mul(math::silu(s, g), u));
                        }
                    }
                    Format::Bf16 => {
                        let at = self.below.a(i, p * PANEL / 2) * 2;
                        let to = &mut halves_mut(self.hidden)[at..at + PANEL];
                        for v in (0..PANEL).step_by(S::LANES) {
                            let (g, u) = (s.load(&sums[v..]), s.load(&sums[PANEL + v..]));
                            s.store_bf16(&mut to[v..], s.mul(math::silu_rough(s, g), u));
                        }
                    }
                    Format::Int8 => {
                        let to = &mut self.unrounded[i * self.wide + p * PANEL..][..PANEL];
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

/// Pairs of panels of tokens that pass by together: rows of weights are then read half as often.
const TOGETHER: usize = 2;

/// Words of scratch memory: sums, panels of tokens, panels of hidden values, and of int8 hidden values before they are rounded.
pub(super) fn tokens_memory(up: &PackedTokens, down: &PackedTokens) -> usize {
    let (isa, format) = (up.isa, up.format);
    let counts = (up.n / 2).div_ceil(up.layout.high).max(1);
    let above = sums_len(isa, format, counts, up.layout.groups);
    let below = sums_len(isa, format, down.n.div_ceil(2 * down.layout.high), down.layout.groups);
    let unrounded = if format == Format::Int8 { down.t * WIDE } else { 0 };
    above.max(below) + TOGETHER * (WIDE * (up.layout.groups + down.layout.groups) + unrounded)
}

/// As the twin.
#[inline(always)]
pub(super) fn tokens<S: Simd>(
    s: S,
    x: Option<Rows<'_>>,
    up: &PackedTokens,
    down: &PackedTokens,
    norm: Option<f32>,
    out: Block<'_>,
    memory: &mut [u32],
) {
    match up.format {
        Format::F32 => columns_of::<S, F32>(s, x, up, down, norm, out, memory),
        Format::Bf16 => columns_of::<S, Bf16>(s, x, up, down, norm, out, memory),
        Format::Int8 => columns_of::<S, Int8>(s, x, up, down, norm, out, memory),
    }
}

#[inline(always)]
fn columns_of<S: Simd, F: Number>(
    s: S,
    x: Option<Rows<'_>>,
    up: &PackedTokens,
    down: &PackedTokens,
    norm: Option<f32>,
    mut out: Block<'_>,
    memory: &mut [u32],
) {
    let (t, inner, per) = (up.t, down.t, F::FORMAT.per_word());
    let (above, below) = (up.layout, down.layout);
    let (panels, memory) = memory.split_at_mut(above.b_words(TOGETHER));
    let (hidden, memory) = memory.split_at_mut(below.b_words(TOGETHER));
    let unrounded = if F::FORMAT == Format::Int8 { TOGETHER * inner * WIDE } else { 0 };
    let (unrounded, sums) = memory.split_at_mut(unrounded);
    let (unrounded, sums) = (floats_mut(unrounded), floats_mut(sums));
    let mut columns = [Columns::new(); TOGETHER];
    for column in (0..out.cols()).step_by(TOGETHER * WIDE) {
        let pairs = (out.cols() - column).div_ceil(WIDE).min(TOGETHER);
        for (p, columns) in columns.iter_mut().enumerate().take(pairs) {
            let from = x.map_or(Source::Own(&out), Source::Rows);
            pack_panels::<S, F>(s, from, column + p * WIDE, t, above, p, panels, columns);
        }
        if F::FORMAT == Format::Bf16 {
            // what pads the hidden tokens for tiles must not be NaN
            for (p, g) in (0..2 * pairs).flat_map(|p| (inner.div_ceil(per)..below.groups).map(move |g| (p, g))) {
                hidden[below.b(p, g)..][..PANEL].fill(0);
            }
        }
        let mut after = GatedTokens::<F> {
            up,
            columns: &columns,
            below,
            hidden,
            unrounded,
            inner,
            format: std::marker::PhantomData,
        };
        let (halves, k) = (Pairs::Halves(inner), 0..above.groups);
        product::<S, F, _>(s, above, &up.data, halves, panels, 0..pairs, k, sums, &mut after);
        if F::FORMAT == Format::Int8 {
            for (p, columns) in columns.iter_mut().enumerate().take(pairs) {
                let from = Source::Rows(Rows::new(&unrounded[p * inner * WIDE..], WIDE));
                pack_panels::<S, F>(s, from, 0, inner, below, p, hidden, columns);
            }
        }
        let mut after = TokenOutputs::<F> {
            down,
            columns: &columns,
            add: norm.is_some(),
            x,
            column,
            out: &mut out,
            format: std::marker::PhantomData,
        };
        let (rows, k) = (Pairs::Rows(t), 0..below.groups);
        product::<S, F, _>(s, below, &down.data, rows, hidden, 0..pairs, k, sums, &mut after);
    }
    if let Some(eps) = norm {
        norm::vector::rms_columns(s, None, eps, out);
    }
}

/// Hidden values of sums, gates in the first tile of a pair: rows are hidden tokens, and become words of B.
struct GatedTokens<'a, F: Number> {
    up: &'a PackedTokens,
    columns: &'a [Columns; TOGETHER],
    below: Layout,
    hidden: &'a mut [u32],
    unrounded: &'a mut [f32],
    inner: usize,
    format: std::marker::PhantomData<F>,
}

impl<S: Simd, F: Number> After<S> for GatedTokens<'_, F> {
    #[inline(always)]
    fn take(&mut self, s: S, p: usize, j: usize, rows: [usize; 2], sums: &[f32]) {
        let (first, rows) = (j * self.up.layout.high, rows[0]);
        let step = if F::FORMAT == Format::Bf16 { 2 } else { 1 };
        for r in (0..rows).step_by(step) {
            let (i, gates, rest) = (first + r, row(sums, 0, r), row(sums, 1, r));
            match F::FORMAT {
                Format::F32 | Format::Bf16 => {
                    let word = i / step;
                    let at = [self.below.b(2 * p, word), self.below.b(2 * p + 1, word)];
                    // the last of an odd number of rows has no partner
                    let (g1, u1) = if r + 1 < rows { (row(sums, 0, r + 1), row(sums, 1, r + 1)) } else { (NONE, NONE) };
                    let hidden = floats_mut(self.hidden);
                    for v in (0..WIDE).step_by(S::LANES) {
                        let to = &mut hidden[at[v / PANEL] + v % PANEL..][..S::LANES];
                        let (g, u) = (s.load(&gates[v..]), s.load(&rest[v..]));
                        if F::FORMAT == Format::F32 {
                            s.store(to, s.mul(math::silu(s, g), u));
                        } else {
                            let low = s.mul(math::silu_rough(s, g), u);
                            let high = s.mul(math::silu_rough(s, s.load(&g1[v..])), s.load(&u1[v..]));
                            s.store(to, s.pair_bf16(low, high));
                        }
                    }
                }
                Format::Int8 => {
                    let to = &mut self.unrounded[(p * self.inner + i) * WIDE..][..WIDE];
                    let (gate, up) = (self.up.scale(i), self.up.scale(self.inner + i));
                    let columns = &self.columns[p];
                    for v in (0..WIDE).step_by(S::LANES) {
                        let (scales, offsets) = (&columns.scales[v..], &columns.offsets[v..]);
                        let g = value::<S, F>(s, &gates[v..], gate, scales, offsets);
                        let u = value::<S, F>(s, &rest[v..], up, scales, offsets);
                        s.store(&mut to[v..], s.mul(math::silu_rough(s, g), u));
                    }
                }
            }
        }
    }
}

/// A row of zeros.
const NONE: &[f32; WIDE] = &[0.0; WIDE];

/// The outputs of sums: with a norm to come, on top of x.
struct TokenOutputs<'a, 'b, F: Number> {
    down: &'a PackedTokens,
    columns: &'a [Columns; TOGETHER],
    add: bool,
    x: Option<Rows<'a>>,
    column: usize,
    out: &'a mut Block<'b>,
    format: std::marker::PhantomData<F>,
}

impl<S: Simd, F: Number> After<S> for TokenOutputs<'_, '_, F> {
    #[inline(always)]
    fn take(&mut self, s: S, p: usize, j: usize, rows: [usize; 2], sums: &[f32]) {
        let (column, columns) = (self.column + p * WIDE, &self.columns[p]);
        for (t, rows) in rows.into_iter().enumerate() {
            for r in 0..rows {
                let (i, sums) = ((2 * j + t) * self.down.layout.high + r, row(sums, t, r));
                let scale = self.down.scale(i);
                let to = &mut self.out.row(i)[column..];
                for v in (0..WIDE).step_by(S::LANES) {
                    if v >= to.len() {
                        break;
                    }
                    let mut y = value::<S, F>(s, &sums[v..], scale, &columns.scales[v..], &columns.offsets[v..]);
                    if self.add {
                        let before = match self.x {
                            Some(x) => s.load(&x.row(i)[column + v..]),
                            None => s.load(&to[v..]),
                        };
                        y = s.add(before, y);
                    }
                    s.store(&mut to[v..], y);
                }
            }
        }
    }
}
