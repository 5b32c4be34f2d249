//! The vector bodies of softmax, rotary embedding and attention; both products of attention are the shared matrix product over packed keys and values.

use super::Mask;
use crate::block::{Block, Rows};
use crate::vector::product::{Panels, multiply, pack_columns, pack_rows, packed_len, width};
use crate::vector::{Simd, math};

/// As the twin.
#[inline(always)]
pub(super) fn softmax_row<S: Simd>(s: S, x: &mut [f32], scale: f32) {
    let lowest = f32::NEG_INFINITY;
    let mut max = s.splat(lowest);
    for x in x.chunks_mut(S::LANES) {
        s.store(x, s.mul(s.load(x), s.splat(scale)));
        max = s.max(max, s.load_or(x, lowest));
    }
    let max = s.splat(s.reduce_max(max));
    let mut sum = s.splat(0.0);
    for x in x.chunks_mut(S::LANES) {
        // lanes beyond the end hold e^-inf = 0
        let e = math::exp(s, s.sub(s.load_or(x, lowest), max));
        s.store(x, e);
        sum = s.add(sum, e);
    }
    let sum = s.splat(s.reduce_sum(sum));
    for x in x.chunks_mut(S::LANES) {
        s.store(x, s.div(s.load(x), sum));
    }
}

/// As the twin.
#[inline(always)]
pub(super) fn rotate<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = x.len() / 2;
    let (first, second) = x.split_at_mut(half);
    for (i, (x1, x2)) in first.chunks_mut(S::LANES).zip(second.chunks_mut(S::LANES)).enumerate() {
        let at = i * S::LANES;
        let (a, b) = (s.load(x1), s.load(x2));
        let (cos1, sin1) = (s.load(&cos[at..half]), s.load(&sin[at..half]));
        let (cos2, sin2) = (s.load(&cos[half + at..]), s.load(&sin[half + at..]));
        s.store(x1, s.sub(s.mul(a, cos1), s.mul(b, sin1)));
        s.store(x2, s.add(s.mul(b, cos2), s.mul(a, sin2)));
    }
}

/// As the twin. The scores of a tile of queries against all keys are made at once; the values are then summed over the keys seen alone, so that
/// nothing hidden, not even NaN, reaches an output. `memory` holds the packed keys, the packed values and a tile's scores.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn head<S: Simd>(
    s: S,
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    mask: Mask,
    scale: f32,
    mut out: Block<'_>,
    memory: &mut [f32],
) {
    let (t, dim, width) = (out.rows(), out.cols(), width::<S>());
    let (keys, rest) = memory.split_at_mut(packed_len(dim, t, width));
    let (values, scores) = rest.split_at_mut(packed_len(t, dim, width));
    pack_columns(k, dim, t, width, keys);
    pack_rows(v, t, dim, width, values);
    let (keys, values) = (Panels { data: keys, height: dim }, Panels { data: values, height: t });
    for first in (0..t).step_by(S::TILE_ROWS) {
        let end = t.min(first + S::TILE_ROWS);
        multiply(s, q.from(first), keys, 0..dim, None, Block::new(scores, end - first, t, t));
        for (i, scores) in (first..end).zip(scores.chunks_exact_mut(t)) {
            softmax_row(s, &mut scores[mask.keys(i, t)], scale);
        }
        if mask.hides_nothing(t) {
            multiply(s, Rows::new(scores, t), values, 0..t, None, out.part(first, end));
        } else {
            for i in first..end {
                let seen = mask.keys(i, t);
                let weights = Rows::new(scores, t).from(i - first).columns(seen.start);
                multiply(s, weights, values, seen, None, out.part(i, i + 1));
            }
        }
    }
}
