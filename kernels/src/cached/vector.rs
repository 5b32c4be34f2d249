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
    let stream = Stream::new::<BF16>(&tile, cache, first, width);
    // SAFETY: panels of the hull are in the cache, and queries in `q`, as checked.
    unsafe { products::<S, BF16, ROWS>(s, cache, tile.kv_head, q, at, first, width, stream, weights) };
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
            unsafe { values::<S, BF16, 1>(s, cache, tile.kv_head, weights, width, first, keys, stream, sums) };
        }
    };
    // a row's own keys before and after those that all rows see, in order
    for (r, seen) in seen.iter().enumerate() {
        add(r, seen.0..seen.1.min(common.start));
    }
    if !common.is_empty() {
        // SAFETY: these keys are in the hull.
        unsafe { values::<S, BF16, ROWS>(s, cache, tile.kv_head, weights, width, first, common.clone(), stream, sums) };
    }
    let mut add = |r: usize, keys: Range<usize>| {
        if !keys.is_empty() {
            let (weights, sums) = (&weights[r * width..], &mut sums[r * padded..(r + 1) * padded]);
            // SAFETY: these keys are in the hull.
            unsafe { values::<S, BF16, 1>(s, cache, tile.kv_head, weights, width, first, keys, stream, sums) };
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

/// Vectors of keys, or of places in the head, that are multiplied at a time: where rows are few, as many as keep the
/// multipliers busy.
const fn vectors(rows: usize, lanes: usize) -> usize {
    if rows <= FEW && lanes == PANEL { 4 } else { 2 }
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
    stream: Stream,
    weights: &mut [f32],
) {
    assert!(weights.len() == ROWS * width, "no room for the scores");
    let (dim, keys) = (cache.head_dim(), cache.keys.start());
    let (many, bytes) = (vectors(ROWS, S::LANES), if BF16 { 2 } else { 4 });
    for j in (0..width).step_by(many * S::LANES) {
        // the last vector again where there are no more
        let mut places = [j; 4];
        let mut from = [0; 4];
        for v in 0..many {
            places[v] = (j + v * S::LANES).min(width - S::LANES);
            from[v] = cache.key(head, first + places[v]);
        }
        let mut sums = [[s.splat(0.0); 4]; ROWS];
        for d in 0..dim {
            if ROWS <= FEW {
                // as many bytes as this round reads
                let at = (j * dim + d * many * S::LANES) * bytes;
                for line in 0..(many * S::LANES * bytes).div_ceil(LINE) {
                    s.prefetch_near(stream.after_keys(at + line * LINE));
                }
            }
            // SAFETY: the caller's promise; a vector of keys does not leave its panel.
            unsafe {
                let mut k = [s.splat(0.0); 4];
                for v in 0..many {
                    k[v] = load::<S, BF16>(s, keys, from[v] + d * PANEL);
                }
                for r in 0..ROWS {
                    let x = s.splat(*q.get_unchecked(at[r] + d));
                    for v in 0..many {
                        sums[r][v] = s.fma(x, k[v], sums[r][v]);
                    }
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for v in 0..many {
                s.store(&mut weights[r * width + places[v]..], sums[v]);
            }
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
    stream: Stream,
    sums: &mut [f32],
) {
    let (padded, from) = (cache.padded(), cache.value(head, 0));
    assert!(keys.start >= first && keys.end <= first + width && sums.len() == ROWS * padded, "no such weights");
    assert!(weights.len() >= ROWS * width, "weights are missing");
    let words = cache.values.start();
    let (many, bytes) = (vectors(ROWS, S::LANES), if BF16 { 2 } else { 4 });
    // in blocks, so that what a round leaves of a block's rows is still near in the next
    let mut start = keys.start;
    while start < keys.end {
        let end = keys.end.min(start + KEYS);
        for d in (0..padded).step_by(many * S::LANES) {
            // the last vector again where there are no more
            let mut places = [d; 4];
            for v in 0..many {
                places[v] = (d + v * S::LANES).min(padded - S::LANES);
            }
            let mut acc = [[s.splat(0.0); 4]; ROWS];
            for r in 0..ROWS {
                for v in 0..many {
                    acc[r][v] = s.load(&sums[r * padded + places[v]..]);
                }
            }
            for j in start..end {
                if ROWS <= FEW {
                    // as many bytes as this round reads
                    let at = ((start - first) * padded + d * (end - start) + (j - start) * many * S::LANES) * bytes;
                    for line in 0..(many * S::LANES * bytes).div_ceil(LINE) {
                        s.prefetch_near(stream.after_values(at + line * LINE));
                    }
                }
                // SAFETY: the caller's promise, and weights as checked above.
                unsafe {
                    let row = from + j * padded;
                    let mut value = [s.splat(0.0); 4];
                    for v in 0..many {
                        value[v] = load::<S, BF16>(s, words, row + places[v]);
                    }
                    for r in 0..ROWS {
                        let weight = s.splat(*weights.get_unchecked(r * width + j - first));
                        for v in 0..many {
                            acc[r][v] = s.fma(weight, value[v], acc[r][v]);
                        }
                    }
                }
            }
            for (r, acc) in acc.into_iter().enumerate() {
                for v in 0..many {
                    s.store(&mut sums[r * padded + places[v]..], acc[v]);
                }
            }
        }
        start = end;
    }
}

/// Most rows that are bound by reading keys and values: then those to come are asked for.
const FEW: usize = 4;
/// Keys whose values are added up at a time.
const KEYS: usize = 64;
/// Bytes of a line of a cache.
const LINE: usize = 64;
/// Bytes ahead of those in use that are asked for.
const AHEAD: usize = 16 << 10;

/// The keys and values of a head as the stretches of memory that they are, read one after another.
#[derive(Clone, Copy)]
struct Stream {
    /// Where keys, values, and what is read then begin.
    begins: [*const u8; 3],
    /// Bytes of keys and of values.
    bytes: [usize; 2],
}

impl Stream {
    /// Of `width` keys from `first` on; then come those of the thread's next head.
    #[inline(always)]
    fn new<const BF16: bool>(tile: &CachedTile, cache: &KvCache, first: usize, width: usize) -> Stream {
        let size = if BF16 { 2 } else { 4 };
        let at = |words: *const u32, number: usize| words.cast::<u8>().wrapping_add(number * size);
        let keys = |head: usize| at(cache.keys.start(), cache.key(head, first));
        Stream {
            begins: [
                keys(tile.kv_head),
                at(cache.values.start(), cache.value(tile.kv_head, first)),
                keys(tile.next_head.min(cache.kv_heads() - 1)),
            ],
            bytes: [width * cache.head_dim() * size, width * cache.padded() * size],
        }
    }

    /// What is asked for when byte `at` of the keys is read.
    #[inline(always)]
    fn after_keys(&self, at: usize) -> *const u8 {
        self.after::<0>(at)
    }

    /// What is asked for when byte `at` of the values is read.
    #[inline(always)]
    fn after_values(&self, at: usize) -> *const u8 {
        self.after::<1>(at)
    }

    #[inline(always)]
    fn after<const PART: usize>(&self, at: usize) -> *const u8 {
        let (at, bytes) = (at + AHEAD.min(self.bytes[PART]), self.bytes[PART]);
        if at < bytes { self.begins[PART].wrapping_add(at) } else { self.begins[PART + 1].wrapping_add(at - bytes) }
    }
}
