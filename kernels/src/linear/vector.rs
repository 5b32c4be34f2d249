//! The vector body of the linear layer, over the shared product.

use super::pack::Panels;
use crate::block::{Block, Rows, floats_mut, words};
use crate::format::Format;
use crate::norm;
use crate::vector::Simd;
use crate::vector::ahead::Ahead;
use crate::vector::operand::{encode_row, row, value};
use crate::vector::tile::{APART, Bf16, F32, HIGH, Int8, Number, PAIR, SUMS, Tiles, WIDE};

/// Words of A that a chunk of rows may hold while every panel passes by: 384 KiB, a part of the second-level cache.
const CHUNK: usize = 96 << 10;

/// Rows of a chunk.
pub(crate) fn chunk(rows: usize, groups: usize) -> usize {
    rows.min((CHUNK / groups.max(1)).max(2 * HIGH))
}

/// As the twin.
#[inline(always)]
pub(super) fn linear<S: Simd>(
    s: S,
    format: Format,
    x: Rows<'_>,
    w: Panels<'_>,
    bias: Option<&[f32]>,
    norm: Option<f32>,
    out: Block<'_>,
    memory: &mut [u32],
) {
    match format {
        Format::F32 => typed::<S, F32>(s, x, w, bias, norm, out, memory),
        Format::Bf16 => typed::<S, Bf16>(s, x, w, bias, norm, out, memory),
        Format::Int8 => typed::<S, Int8>(s, x, w, bias, norm, out, memory),
    }
}

#[inline(always)]
fn typed<S: Simd, F: Number>(
    s: S,
    x: Rows<'_>,
    w: Panels<'_>,
    bias: Option<&[f32]>,
    norm: Option<f32>,
    mut out: Block<'_>,
    memory: &mut [u32],
) {
    let m = out.rows();
    let (sums, memory) = memory.split_at_mut(SUMS);
    let most = chunk(m, w.groups);
    for first in (0..m).step_by(most.max(1)) {
        let rows = most.min(m - first);
        let mut out = out.part(first, first + rows);
        let x = x.from(first);
        if F::FORMAT == Format::F32 {
            product::<S, F>(s, words(x.row(0)), x.stride(), &[], w, bias, norm.is_some(), &mut out, sums);
        } else {
            let (a, scales) = memory.split_at_mut(rows.next_multiple_of(HIGH) * w.groups);
            let scales = floats_mut(scales);
            for i in 0..rows {
                scales[i] = encode_row::<S, F>(s, &x.row(i)[..w.k], &mut a[i * w.groups..(i + 1) * w.groups]);
            }
            product::<S, F>(s, a, w.groups, scales, w, bias, norm.is_some(), &mut out, sums);
        }
        if let Some(eps) = norm {
            for i in 0..rows {
                norm::vector::rms_row(s, out.row(i), None, None, eps);
            }
        }
    }
}

/// `out (+)= A · B (+ bias)` for a chunk of rows, a pair of panels at a time, so that the panels stay near while the rows pass by. The sums of one pair of tiles are
/// read while those of the next are made.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn product<S: Simd, F: Number>(
    s: S,
    a: &[u32],
    stride: usize,
    scales: &[f32],
    w: Panels<'_>,
    bias: Option<&[f32]>,
    add: bool,
    out: &mut Block<'_>,
    sums: &mut [u32],
) {
    let (m, n) = (out.rows(), out.cols());
    let tiles = Tiles::<S, F>::new(s, m, 1);
    let high = tiles.rows();
    let (mut now, mut before) = floats_mut(sums).split_at_mut(PAIR);
    let mut waiting = None;
    for (p, column) in (0..n).step_by(WIDE).enumerate() {
        let b = w.pair(p);
        let mut ahead = Ahead::new(w.after(p), m);
        for first in (0..m).step_by(2 * high) {
            let rows = [high.min(m - first), high.min(m.saturating_sub(first + high))];
            let second = if rows[1] > 0 { &a[(first + high) * stride..] } else { &[] };
            tiles.pair([&a[first * stride..], second], stride, rows, b, w.groups, now, APART);
            if let Some((column, first, rows)) = waiting.replace((column, first, rows)) {
                finish::<S, F>(s, before, column, [first, first + high], rows, scales, w, bias, add, out, &mut ahead);
            }
            std::mem::swap(&mut now, &mut before);
        }
    }
    if let Some((column, first, rows)) = waiting {
        let ahead = &mut Ahead::new(&[], 1);
        finish::<S, F>(s, before, column, [first, first + high], rows, scales, w, bias, add, out, ahead);
    }
}

/// The outputs of a pair's sums.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn finish<S: Simd, F: Number>(
    s: S,
    sums: &[f32],
    column: usize,
    first: [usize; 2],
    rows: [usize; 2],
    scales: &[f32],
    w: Panels<'_>,
    bias: Option<&[f32]>,
    add: bool,
    out: &mut Block<'_>,
    ahead: &mut Ahead<'_>,
) {
    for t in 0..2 {
        for r in 0..rows[t] {
            let i = first[t] + r;
            let scale = if F::FORMAT == Format::Int8 { scales[i] } else { 1.0 };
            let sums = row(sums, t, r);
            let to = &mut out.row(i)[column..];
            ahead.turn(s);
            if let (Some(to), None) = (to.first_chunk_mut::<WIDE>(), bias) {
                for v in (0..WIDE).step_by(S::LANES) {
                    let mut y = of_weights::<S, F>(s, sums, v, scale, w, column);
                    if add {
                        y = s.add(s.load(&to[v..]), y);
                    }
                    s.store(&mut to[v..], y);
                }
                continue;
            }
            for v in (0..WIDE.min(to.len())).step_by(S::LANES) {
                let mut y = of_weights::<S, F>(s, sums, v, scale, w, column);
                if let Some(bias) = bias {
                    y = s.add(y, s.load(&bias[column + v..]));
                }
                if add {
                    y = s.add(s.load(&to[v..]), y);
                }
                s.store(&mut to[v..], y);
            }
        }
    }
}

#[inline(always)]
fn of_weights<S: Simd, F: Number>(
    s: S,
    sums: &[f32; WIDE],
    v: usize,
    scale: f32,
    w: Panels<'_>,
    column: usize,
) -> S::V {
    match F::FORMAT {
        Format::Int8 => value::<S, F>(s, &sums[v..], scale, &w.scales[column + v..], &w.offsets[column + v..]),
        _ => s.load(&sums[v..]),
    }
}
