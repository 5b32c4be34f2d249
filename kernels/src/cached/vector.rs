//! The vector bodies of attention over a cache. Scores and sums of values are products of up to six rows with two
//! vectors (of keys, or of places in the head) in registers.

use std::ops::Range;

use super::cache::{KvCache, PANEL};
use super::{CachedScores, CachedTile, TILE};
use crate::matrix::floats_mut;
use crate::pool::SendPtr;
use crate::vector::integers::Integers;
use crate::vector::math;

/// As the scalar reference; sums of values are divided by the sum of the weights last.
#[inline(always)]
pub(super) fn attend<S: Integers>(
    s: S,
    tile: CachedTile,
    cache: &KvCache,
    q: &[f32],
    out: &SendPtr<f32>,
    memory: &mut [u32],
) {
    macro_rules! of {
        ($($rows:literal)*) => {
            match (tile.len(), cache.is_bf16()) {
                $(($rows, false) => rows::<S, false, $rows>(s, tile, cache, q, out, memory),
                ($rows, true) => rows::<S, true, $rows>(s, tile, cache, q, out, memory),)*
                _ => unreachable!("a tile has 1 to {TILE} rows"),
            }
        };
    }
    of!(1 2 3 4 5 6);
}

#[inline(always)]
fn rows<S: Integers, const BF16: bool, const ROWS: usize>(
    s: S,
    tile: CachedTile,
    cache: &KvCache,
    q: &[f32],
    out: &SendPtr<f32>,
    memory: &mut [u32],
) {
    let (dim, padded) = (cache.head_dim(), cache.padded());
    let (mut at, mut seen) = ([0; ROWS], [(0, 0); ROWS]);
    let (mut hull, mut common) = (0..0, 0..usize::MAX);
    for r in 0..ROWS {
        at[r] = tile.at(cache, r) * dim;
        assert!(at[r] + dim <= q.len(), "queries are missing");
        let keys = tile.keys(r);
        // positions ascend with the rows
        hull = if r == 0 { keys.clone() } else { hull.start..keys.end };
        common = keys.start..keys.end.min(common.end);
        seen[r] = (keys.start, keys.end);
    }
    assert!(hull.end <= cache.len(), "keys are missing");
    common.end = common.end.max(common.start);
    // whole panels
    let first = hull.start / PANEL * PANEL;
    let width = hull.end.next_multiple_of(PANEL) - first;
    let (weights, sums) = floats_mut(memory).split_at_mut(ROWS * width);
    let sums = &mut sums[..ROWS * padded];
    // SAFETY: panels of the hull are in the cache, and queries in `q`, as checked.
    unsafe { products::<S, BF16, ROWS>(s, cache, tile.kv_head, q, at, first, width, weights) };
    let mut totals = [0.0; ROWS];
    for r in 0..ROWS {
        let (from, to) = (seen[r].0 - first, seen[r].1 - first);
        totals[r] = softmax(s, tile.scores, &mut weights[r * width..(r + 1) * width], from, to);
    }
    sums.fill(0.0);
    let mut add = |r: usize, keys: Range<usize>| {
        if !keys.is_empty() {
            let (weights, sums) = (&weights[r * width..], &mut sums[r * padded..(r + 1) * padded]);
            // SAFETY: these keys are in the hull.
            unsafe { values::<S, BF16, 1>(s, cache, tile.kv_head, weights, width, first, keys, sums) };
        }
    };
    // a row's own keys before and after those that all rows see, in order
    for (r, seen) in seen.iter().enumerate() {
        add(r, seen.0..seen.1.min(common.start));
    }
    if !common.is_empty() {
        // SAFETY: these keys are in the hull.
        unsafe { values::<S, BF16, ROWS>(s, cache, tile.kv_head, weights, width, first, common.clone(), sums) };
    }
    let mut add = |r: usize, keys: Range<usize>| {
        if !keys.is_empty() {
            let (weights, sums) = (&weights[r * width..], &mut sums[r * padded..(r + 1) * padded]);
            // SAFETY: these keys are in the hull.
            unsafe { values::<S, BF16, 1>(s, cache, tile.kv_head, weights, width, first, keys, sums) };
        }
    };
    for (r, seen) in seen.iter().enumerate() {
        add(r, seen.0.max(common.end)..seen.1);
    }
    for r in 0..ROWS {
        // SAFETY: `out` is as long as `q`, and no other thread has this row.
        let out = unsafe { std::slice::from_raw_parts_mut(out.get().add(at[r]), dim) };
        let total = s.splat(totals[r]);
        for d in (0..dim).step_by(S::LANES) {
            let sum = s.load(&sums[r * padded + d..]);
            // no key at all: zeros
            s.store(&mut out[d..], if seen[r].0 == seen[r].1 { s.splat(0.0) } else { s.div(sum, total) });
        }
    }
}

/// Numbers from `at` on as a vector.
///
/// # Safety
/// They can be read.
#[inline(always)]
unsafe fn load<S: Integers, const BF16: bool>(s: S, words: *const u32, at: usize) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { if BF16 { s.load_bf16(words.cast::<u16>().add(at)) } else { s.load_ptr(words.cast::<f32>().add(at)) } }
}

/// `weights[r][j - first] = q[r] · k[j]` for `width` keys from `first` on, both multiples of `PANEL`; each sum in the
/// order of places.
///
/// # Safety
/// The cache has memory for these keys, and `q` whole heads at `at`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn products<S: Integers, const BF16: bool, const ROWS: usize>(
    s: S,
    cache: &KvCache,
    head: usize,
    q: &[f32],
    at: [usize; ROWS],
    first: usize,
    width: usize,
    weights: &mut [f32],
) {
    assert!(weights.len() == ROWS * width, "no room for the scores");
    let (dim, keys) = (cache.head_dim(), cache.keys.as_ptr());
    for j in (0..width).step_by(2 * S::LANES) {
        // the last vector twice where their number is odd
        let places = [j, (j + S::LANES).min(width - S::LANES)];
        let from = places.map(|j| cache.key(head, first + j));
        let mut sums = [[s.splat(0.0); 2]; ROWS];
        for d in 0..dim {
            // SAFETY: the caller's promise; a vector of keys does not leave its panel.
            unsafe {
                let k = [load::<S, BF16>(s, keys, from[0] + d * PANEL), load::<S, BF16>(s, keys, from[1] + d * PANEL)];
                for r in 0..ROWS {
                    let x = s.splat(*q.get_unchecked(at[r] + d));
                    sums[r][0] = s.fma(x, k[0], sums[r][0]);
                    sums[r][1] = s.fma(x, k[1], sums[r][1]);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            s.store(&mut weights[r * width + places[0]..], sums[0]);
            s.store(&mut weights[r * width + places[1]..], sums[1]);
        }
    }
}

/// Scores of the keys `from..to` as exponentials of their distance to the largest, and their sum; zeros beside them in
/// their panels. Vectors begin at multiples of `PANEL` keys, so the order hangs on the keys alone.
#[inline(always)]
fn softmax<S: Integers>(s: S, scores: CachedScores, weights: &mut [f32], from: usize, to: usize) -> f32 {
    let lowest = f32::NEG_INFINITY;
    let (start, end) = (from / PANEL * PANEL, to.next_multiple_of(PANEL));
    let scale = s.splat(scores.scale);
    let mut most = s.splat(lowest);
    for j in (start..end).step_by(S::LANES) {
        let mut score = s.mul(s.load(&weights[j..]), scale);
        if let Some(cap) = scores.soft_cap {
            // tanh y = 1 - 2 / (e^2y + 1)
            let e = math::exp(s, s.mul(score, s.splat(2.0 / cap)));
            let tanh = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
            score = s.mul(s.splat(cap), tanh);
        }
        s.store(&mut weights[j..], score);
        if j < from {
            weights[j..from.min(j + S::LANES)].fill(lowest);
        }
        if j + S::LANES > to {
            weights[to.max(j)..j + S::LANES].fill(lowest);
        }
        most = s.max(most, s.load(&weights[j..]));
    }
    let most = s.splat(s.reduce_max(most));
    let mut sum = s.splat(0.0);
    for j in (start..end).step_by(S::LANES) {
        let e = math::exp_or_zero(s, s.sub(s.load(&weights[j..]), most));
        s.store(&mut weights[j..], e);
        sum = s.add(sum, e);
    }
    s.reduce_sum(sum)
}

/// `sums[r] += Σ_j weights[r][j - first] v[j]` over `keys`, in order.
///
/// # Safety
/// The cache has these keys.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn values<S: Integers, const BF16: bool, const ROWS: usize>(
    s: S,
    cache: &KvCache,
    head: usize,
    weights: &[f32],
    width: usize,
    first: usize,
    keys: Range<usize>,
    sums: &mut [f32],
) {
    let (padded, from) = (cache.padded(), cache.value(head, 0));
    assert!(keys.start >= first && keys.end <= first + width && sums.len() == ROWS * padded, "no such weights");
    assert!(weights.len() >= ROWS * width, "weights are missing");
    let words = cache.values.as_ptr();
    for d in (0..padded).step_by(2 * S::LANES) {
        // the last vector twice where their number is odd
        let places = [d, (d + S::LANES).min(padded - S::LANES)];
        let mut acc = [[s.splat(0.0); 2]; ROWS];
        for (r, acc) in acc.iter_mut().enumerate() {
            *acc = places.map(|d| s.load(&sums[r * padded + d..]));
        }
        for j in keys.start..keys.end {
            // SAFETY: the caller's promise, and weights as checked above.
            unsafe {
                let row = from + j * padded;
                let v = [load::<S, BF16>(s, words, row + places[0]), load::<S, BF16>(s, words, row + places[1])];
                for r in 0..ROWS {
                    let weight = s.splat(*weights.get_unchecked(r * width + j - first));
                    acc[r][0] = s.fma(weight, v[0], acc[r][0]);
                    acc[r][1] = s.fma(weight, v[1], acc[r][1]);
                }
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            s.store(&mut sums[r * padded + places[0]..], acc[0]);
            s.store(&mut sums[r * padded + places[1]..], acc[1]);
        }
    }
}
