//! The vector bodies of the gated MLPs, over the shared product.

use crate::block::{Block, Rows, floats, floats_mut, halves_mut, words};
use crate::format::Format;
use crate::linear::pack::{PackedLinear, PackedTokens, Panels};
use crate::norm;
use crate::vector::ahead::Ahead;
use crate::vector::operand::{Columns, Source, encode_row, pack_panels, row, value};
use crate::vector::tile::{APART, Bf16, F32, HIGH, Int8, Number, PAIR, PANEL, SUMS, Tiles, WIDE};
use crate::vector::{Simd, math};

/// Words that a chunk of rows and their hidden values may hold: 768 KiB, a part of the second-level cache.
const CHUNK: usize = 192 << 10;

/// Rows that pass through a whole MLP together.
pub(super) fn chunk(groups: usize, hidden: usize, rows: usize) -> usize {
    rows.min((CHUNK / (groups + hidden).max(1)).max(2 * HIGH))
}

/// Words of a hidden row: the columns of its panels, and what pads it for tiles.
#[inline(always)]
fn hidden_words(down: Panels<'_>, format: Format) -> usize {
    down.groups.max(down.k.next_multiple_of(PANEL) / format.per_word())
}

/// Words of scratch memory: sums, rows of A, hidden rows, a scale for each, and of int8 hidden values before they are rounded.
pub(super) fn features_memory(up: &PackedLinear, down: &PackedLinear, rows: usize) -> usize {
    let rows = chunk(up.groups, down.groups, rows).next_multiple_of(HIGH);
    let unrounded = if up.format == Format::Int8 { down.k.next_multiple_of(PANEL) } else { 0 };
    SUMS + rows * (up.groups + hidden_words(down.view(), up.format) + 1 + unrounded)
}

/// As the twin.
#[inline(always)]
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
    let m = out.rows();
    let most = chunk(up.groups, down.groups, m);
    let (sums, memory) = memory.split_at_mut(SUMS);
    let padded = most.next_multiple_of(HIGH);
    let (a, memory) = memory.split_at_mut(padded * up.groups);
    let (wide, stride) = (down.k.next_multiple_of(PANEL), hidden_words(down, F::FORMAT));
    let (hidden, memory) = memory.split_at_mut(padded * stride);
    let (scales, unrounded) = memory.split_at_mut(padded);
    let (scales, unrounded) = (floats_mut(scales), floats_mut(unrounded));
    for first in (0..m).step_by(most.max(1)) {
        let rows = most.min(m - first);
        let mut out = out.part(first, first + rows);
        let x = x.map(|x| x.from(first));
        // A: the rows as they are, or rounded
        {
            let from = x.map_or(Source::Own(&out), Source::Rows);
            let own = F::FORMAT == Format::F32;
            if !own {
                for i in 0..rows {
                    scales[i] = encode_row::<S, F>(s, &from.row(i)[..up.k], &mut a[i * up.groups..(i + 1) * up.groups]);
                }
            }
            let (a, a_stride): (&[u32], usize) = match x {
                _ if !own => (a, up.groups),
                Some(x) => (words(x.row(0)), x.stride()),
                None => (words(out.whole()), up.k),
            };
            gate::<S, F>(s, a, a_stride, scales, up, rows, stride, hidden, unrounded, sums);
        }
        if F::FORMAT == Format::Int8 {
            for i in 0..rows {
                let row = &unrounded[i * wide..][..down.k];
                scales[i] = encode_row::<S, F>(s, row, &mut hidden[i * stride..(i + 1) * stride]);
            }
        }
        let keep = norm.is_some();
        if let (true, Some(x)) = (keep, x) {
            for i in 0..rows {
                let d = up.k;
                out.row(i).copy_from_slice(&x.row(i)[..d]);
            }
        }
        crate::linear::vector::product::<S, F>(s, hidden, stride, scales, down, None, keep, &mut out, sums);
        if let Some(eps) = norm {
            for i in 0..rows {
                norm::vector::rms_row(s, out.row(i), None, None, eps);
            }
        }
    }
}

/// Hidden rows of a chunk: `silu(gate) · up`, a panel of gates and its panel of the rest at a time.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn gate<S: Simd, F: Number>(
    s: S,
    a: &[u32],
    a_stride: usize,
    scales: &[f32],
    up: Panels<'_>,
    rows: usize,
    stride: usize,
    hidden: &mut [u32],
    unrounded: &mut [f32],
    sums: &mut [u32],
) {
    let tiles = Tiles::<S, F>::new(s, rows, 1);
    let high = tiles.rows();
    let pairs = up.scales.len() / WIDE;
    let wide = pairs * PANEL;
    if F::FORMAT == Format::Bf16 {
        // what pads a row for tiles must not be NaN
        for row in hidden.chunks_exact_mut(stride.max(1)).take(rows) {
            row[wide / 2..].fill(0);
        }
    }
    let (mut now, mut before) = floats_mut(sums).split_at_mut(PAIR);
    let mut waiting = None;
    for p in 0..pairs {
        let b = up.pair(p);
        let mut ahead = Ahead::new(up.after(p), rows);
        for first in (0..rows).step_by(2 * high) {
            let of = [high.min(rows - first), high.min(rows.saturating_sub(first + high))];
            let second = if of[1] > 0 { &a[(first + high) * a_stride..] } else { &[] };
            tiles.pair([&a[first * a_stride..], second], a_stride, of, b, up.groups, now, APART);
            if let Some((p, first, of)) = waiting.replace((p, first, of)) {
                let first = [first, first + high];
                silu::<S, F>(s, before, p, first, of, scales, up, stride, hidden, wide, unrounded, &mut ahead);
            }
            std::mem::swap(&mut now, &mut before);
        }
    }
    if let Some((p, first, of)) = waiting {
        let (first, ahead) = ([first, first + high], &mut Ahead::new(&[], 1));
        silu::<S, F>(s, before, p, first, of, scales, up, stride, hidden, wide, unrounded, ahead);
    }
}

/// Hidden values of a pair's sums: gates in the first panel.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn silu<S: Simd, F: Number>(
    s: S,
    sums: &[f32],
    p: usize,
    first: [usize; 2],
    rows: [usize; 2],
    scales: &[f32],
    up: Panels<'_>,
    stride: usize,
    hidden: &mut [u32],
    wide: usize,
    unrounded: &mut [f32],
    ahead: &mut Ahead<'_>,
) {
    let of: &[f32; WIDE] = up.scales[p * WIDE..].first_chunk().expect("a scale for each column");
    let offsets: &[f32; WIDE] = up.offsets[p * WIDE..].first_chunk().expect("an offset for each column");
    for t in 0..2 {
        for r in 0..rows[t] {
            let (i, sums) = (first[t] + r, row(sums, t, r));
            ahead.turn(s);
            match F::FORMAT {
                Format::F32 => {
                    let to = &mut floats_mut(hidden)[i * stride + p * PANEL..][..PANEL];
                    for v in (0..PANEL).step_by(S::LANES) {
                        let (g, u) = (s.load(&sums[v..]), s.load(&sums[PANEL + v..]));
                        s.store(&mut to[v..], s.mul(math::silu(s, g), u));
                    }
                }
                Format::Bf16 => {
                    let to = &mut halves_mut(hidden)[i * stride * 2 + p * PANEL..][..PANEL];
                    for v in (0..PANEL).step_by(S::LANES) {
                        let (g, u) = (s.load(&sums[v..]), s.load(&sums[PANEL + v..]));
                        s.store_bf16(&mut to[v..], s.mul(math::silu_rough(s, g), u));
                    }
                }
                Format::Int8 => {
                    let to = &mut unrounded[i * wide + p * PANEL..][..PANEL];
                    for v in (0..PANEL).step_by(S::LANES) {
                        let u = PANEL + v;
                        let g = value::<S, F>(s, &sums[v..], scales[i], &of[v..], &offsets[v..]);
                        let u = value::<S, F>(s, &sums[u..], scales[i], &of[u..], &offsets[u..]);
                        s.store(&mut to[v..], s.mul(math::silu_rough(s, g), u));
                    }
                }
            }
        }
    }
}

/// Words of scratch memory: sums, a pair of panels of tokens, one of hidden values, and of int8 hidden values before they are rounded.
pub(super) fn tokens_memory(up: &PackedTokens, down: &PackedTokens) -> usize {
    let unrounded = if up.format == Format::Int8 { (down.t + 4) * WIDE } else { 0 };
    SUMS + WIDE * (up.groups + down.groups) + unrounded
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
    let (sums, memory) = memory.split_at_mut(SUMS);
    let (panels, memory) = memory.split_at_mut(WIDE * up.groups);
    let (hidden, unrounded) = memory.split_at_mut(WIDE * down.groups);
    let mut columns = Columns::new();
    for column in (0..out.cols()).step_by(WIDE) {
        {
            let from = x.map_or(Source::Own(&out), Source::Rows);
            pack_panels::<S, F>(s, from, column, t, up.groups, panels, &mut columns);
        }
        let (b0, b1) = panels.split_at(PANEL * up.groups);
        let tiles = Tiles::<S, F>::new(s, inner, per);
        let high = tiles.rows();
        let (mut now, mut before) = floats_mut(sums).split_at_mut(PAIR);
        let mut waiting = None;
        for first in (0..inner).step_by(high) {
            let rows = high.min(inner - first);
            let a = [up.row(first), up.row(inner + first)];
            tiles.pair(a, up.groups, [rows; 2], [b0, b1], up.groups, now, APART);
            if let Some((first, rows)) = waiting.replace((first, rows)) {
                silu_tokens::<S, F>(s, before, first, rows, inner, up, &columns, down.groups, hidden, unrounded);
            }
            std::mem::swap(&mut now, &mut before);
        }
        if let Some((first, rows)) = waiting {
            silu_tokens::<S, F>(s, before, first, rows, inner, up, &columns, down.groups, hidden, unrounded);
        }
        drop(tiles);
        if F::FORMAT == Format::Int8 {
            let from = Source::Rows(Rows::new(floats(unrounded), WIDE));
            pack_panels::<S, F>(s, from, 0, inner, down.groups, hidden, &mut columns);
        } else if F::FORMAT == Format::Bf16 {
            // what pads the tokens for tiles must not be NaN
            for panel in hidden.chunks_exact_mut((PANEL * down.groups).max(1)) {
                panel[inner.div_ceil(per) * PANEL..].fill(0);
            }
        }
        let (b0, b1) = hidden.split_at(PANEL * down.groups);
        let tiles = Tiles::<S, F>::new(s, t, 1);
        let high = tiles.rows();
        let (mut now, mut before) = floats_mut(sums).split_at_mut(PAIR);
        let mut waiting = None;
        for first in (0..t).step_by(2 * high) {
            let rows = [high.min(t - first), high.min(t.saturating_sub(first + high))];
            let second = if rows[1] > 0 { down.row(first + high) } else { &[] };
            tiles.pair([down.row(first), second], down.groups, rows, [b0, b1], down.groups, now, APART);
            if let Some((first, rows)) = waiting.replace((first, rows)) {
                let first = [first, first + high];
                finish_tokens::<S, F>(s, before, first, rows, down, &columns, norm.is_some(), x, column, &mut out);
            }
            std::mem::swap(&mut now, &mut before);
        }
        if let Some((first, rows)) = waiting {
            let first = [first, first + high];
            finish_tokens::<S, F>(s, before, first, rows, down, &columns, norm.is_some(), x, column, &mut out);
        }
    }
    if let Some(eps) = norm {
        norm::vector::rms_columns(s, None, eps, out);
    }
}

/// Hidden values of a pair's sums, gates in the first tile: rows are hidden tokens, and become words of B.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn silu_tokens<S: Simd, F: Number>(
    s: S,
    sums: &[f32],
    first: usize,
    rows: usize,
    inner: usize,
    up: &PackedTokens,
    columns: &Columns,
    groups: usize,
    hidden: &mut [u32],
    unrounded: &mut [u32],
) {
    let (hidden, unrounded) = (floats_mut(hidden), floats_mut(unrounded));
    let (left, right) = hidden.split_at_mut(groups * PANEL);
    match F::FORMAT {
        Format::F32 => {
            for r in 0..rows {
                let (gates, rest, word) = (row(sums, 0, r), row(sums, 1, r), (first + r) * PANEL);
                let (left, right) = (&mut left[word..][..PANEL], &mut right[word..][..PANEL]);
                for v in (0..WIDE).step_by(S::LANES) {
                    let h = s.mul(math::silu(s, s.load(&gates[v..])), s.load(&rest[v..]));
                    let to = if v < PANEL { &mut left[v..] } else { &mut right[v - PANEL..] };
                    s.store(to, h);
                }
            }
        }
        Format::Bf16 => {
            for r in (0..rows).step_by(2) {
                // the last of an odd number of rows has no partner: its sums are read, and zero takes their place
                let last = r + 1 == rows;
                let (g0, u0, g1, u1) = (row(sums, 0, r), row(sums, 1, r), row(sums, 0, r + 1), row(sums, 1, r + 1));
                let word = (first + r) / 2 * PANEL;
                let (left, right) = (&mut left[word..][..PANEL], &mut right[word..][..PANEL]);
                for v in (0..WIDE).step_by(S::LANES) {
                    let low = s.mul(math::silu_rough(s, s.load(&g0[v..])), s.load(&u0[v..]));
                    let high = s.mul(math::silu_rough(s, s.load(&g1[v..])), s.load(&u1[v..]));
                    let high = if last { s.splat(0.0) } else { high };
                    let to = if v < PANEL { &mut left[v..] } else { &mut right[v - PANEL..] };
                    s.store(to, s.pair_bf16(low, high));
                }
            }
        }
        Format::Int8 => {
            for r in 0..rows {
                let (gates, rest, i) = (row(sums, 0, r), row(sums, 1, r), first + r);
                let to = &mut unrounded[i * WIDE..][..WIDE];
                for v in (0..WIDE).step_by(S::LANES) {
                    let (scales, offsets) = (&columns.scales[v..], &columns.offsets[v..]);
                    let g = value::<S, F>(s, &gates[v..], up.scale(i), scales, offsets);
                    let u = value::<S, F>(s, &rest[v..], up.scale(inner + i), scales, offsets);
                    s.store(&mut to[v..], s.mul(math::silu_rough(s, g), u));
                }
            }
        }
    }
}

/// The outputs of a pair's sums: with a norm to come, on top of x.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn finish_tokens<S: Simd, F: Number>(
    s: S,
    sums: &[f32],
    first: [usize; 2],
    rows: [usize; 2],
    down: &PackedTokens,
    columns: &Columns,
    add: bool,
    x: Option<Rows<'_>>,
    column: usize,
    out: &mut Block<'_>,
) {
    for t in 0..2 {
        for r in 0..rows[t] {
            let (i, sums) = (first[t] + r, row(sums, t, r));
            let to = &mut out.row(i)[column..];
            for v in (0..WIDE.min(to.len())).step_by(S::LANES) {
                let (scales, offsets) = (&columns.scales[v..], &columns.offsets[v..]);
                let mut y = value::<S, F>(s, &sums[v..], down.scale(i), scales, offsets);
                if add {
                    let before = match x {
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
