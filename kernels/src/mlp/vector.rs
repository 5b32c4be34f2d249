//! The vector bodies of the gated MLPs, over the shared product.

use crate::block::{Block, Rows, floats, floats_mut, halves_mut, words};
use crate::format::Format;
use crate::linear::pack::{PackedLinear, PackedTokens, Panels};
use crate::norm;
use crate::vector::operand::{Columns, Source, encode_row, pack_panels, value};
use crate::vector::tile::{Bf16, F32, HIGH, Int8, Number, PANEL, SUMS, Tiles, WIDE};
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
    for p in 0..pairs {
        let b = up.pair(p);
        let (gates, rest) = (p * WIDE, p * WIDE + PANEL);
        for first in (0..rows).step_by(2 * high) {
            let of = [high.min(rows - first), high.min(rows.saturating_sub(first + high))];
            let second = if of[1] > 0 { &a[(first + high) * a_stride..] } else { &[] };
            tiles.pair([&a[first * a_stride..], second], a_stride, of, b, up.groups, floats_mut(sums));
            let sums = floats(sums);
            for (t, of) in of.into_iter().enumerate() {
                for r in 0..of {
                    let i = first + t * high + r;
                    let scale = if F::FORMAT == Format::Int8 { scales[i] } else { 1.0 };
                    let at = (t * HIGH + r) * WIDE;
                    for v in (0..PANEL).step_by(S::LANES) {
                        let (g, u) = (&sums[at + v..][..S::LANES], &sums[at + PANEL + v..][..S::LANES]);
                        let g = value::<S, F>(s, g, scale, &up.scales[gates + v..], &up.offsets[gates + v..]);
                        let u = value::<S, F>(s, u, scale, &up.scales[rest + v..], &up.offsets[rest + v..]);
                        let column = p * PANEL + v;
                        match F::FORMAT {
                            Format::F32 => {
                                let h = s.mul(math::silu(s, g), u);
                                s.store(&mut floats_mut(hidden)[i * stride + column..][..S::LANES], h);
                            }
                            Format::Bf16 => {
                                let h = s.mul(math::silu_rough(s, g), u);
                                s.store_bf16(&mut halves_mut(hidden)[i * stride * 2 + column..][..S::LANES], h);
                            }
                            Format::Int8 => {
                                let h = s.mul(math::silu_rough(s, g), u);
                                s.store(&mut unrounded[i * wide + column..][..S::LANES], h);
                            }
                        }
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
        for first in (0..inner).step_by(high) {
            let rows = high.min(inner - first);
            tiles.pair(
                [up.row(first), up.row(inner + first)],
                up.groups,
                [rows; 2],
                [b0, b1],
                up.groups,
                floats_mut(sums),
            );
            for v in (0..WIDE).step_by(S::LANES) {
                let (scales, offsets) = (&columns.scales[v..], &columns.offsets[v..]);
                // panel, word, column
                let place = v / PANEL * PANEL * down.groups + v % PANEL;
                for r in (0..rows).step_by(if F::FORMAT == Format::Bf16 { 2 } else { 1 }) {
                    let mut h = [s.splat(0.0); 2];
                    for (e, h) in h.iter_mut().enumerate().take(if F::FORMAT == Format::Bf16 { 2 } else { 1 }) {
                        if r + e < rows {
                            let (i, at) = (first + r + e, (r + e) * WIDE + v);
                            let g = &floats(sums)[at..at + S::LANES];
                            let u = &floats(sums)[HIGH * WIDE + at..][..S::LANES];
                            let g = value::<S, F>(s, g, up.scale(i), scales, offsets);
                            let u = value::<S, F>(s, u, up.scale(inner + i), scales, offsets);
                            let gate = if F::FORMAT == Format::F32 { math::silu(s, g) } else { math::silu_rough(s, g) };
                            *h = s.mul(gate, u);
                        }
                    }
                    let i = first + r;
                    match F::FORMAT {
                        Format::F32 => s.store(&mut floats_mut(hidden)[place + i * PANEL..][..S::LANES], h[0]),
                        Format::Bf16 => {
                            let pair = s.pair_bf16(h[0], h[1]);
                            s.store(&mut floats_mut(hidden)[place + i / 2 * PANEL..][..S::LANES], pair);
                        }
                        Format::Int8 => s.store(&mut floats_mut(unrounded)[i * WIDE + v..][..S::LANES], h[0]),
                    }
                }
            }
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
        for first in (0..t).step_by(2 * high) {
            let rows = [high.min(t - first), high.min(t.saturating_sub(first + high))];
            let second = if rows[1] > 0 { down.row(first + high) } else { &[] };
            tiles.pair([down.row(first), second], down.groups, rows, [b0, b1], down.groups, floats_mut(sums));
            for (half, rows) in rows.into_iter().enumerate() {
                for r in 0..rows {
                    let i = first + half * high + r;
                    let scale = down.scale(i);
                    let to = &mut out.row(i)[column..];
                    for v in (0..WIDE.min(to.len())).step_by(S::LANES) {
                        let at = (half * HIGH + r) * WIDE + v;
                        let sums = &floats(sums)[at..at + S::LANES];
                        let mut y = value::<S, F>(s, sums, scale, &columns.scales[v..], &columns.offsets[v..]);
                        if norm.is_some() {
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
    }
    if let Some(eps) = norm {
        norm::vector::rms_columns(s, None, eps, out);
    }
}
