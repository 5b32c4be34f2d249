//! The vector bodies of softmax, rotary embedding and attention; both products of attention are the shared matrix product over packed keys and values.

use std::ops::Range;

use super::Mask;
use crate::block::{Block, Rows, floats, floats_mut, words};
use crate::format::Format;
use crate::isa::Isa;
use crate::linear::pack::groups;
use crate::vector::operand::{Columns, Source, encode_row, pack_panels};
use crate::vector::tile::{APART, Bf16, F32, HIGH, Number, PANEL, SUMS, Tiles, WIDE, even};
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

/// How a head is cut and where its operands lie.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    format: Format,
    t: usize,
    dim: usize,
    /// Rows of a tile of queries.
    pub(super) high: usize,
    /// Words of a key.
    pub(super) key_groups: usize,
    /// Words of a column of values.
    value_groups: usize,
    /// Words to which a run of keys is padded.
    multiple: usize,
}

impl Plan {
    pub(super) fn new(isa: Isa, tile_rows: usize, format: Format, t: usize, dim: usize) -> Plan {
        let multiple = if isa == Isa::Amx && format != Format::F32 { 16 } else { 1 };
        Plan {
            format,
            t,
            dim,
            high: even(t, tile_rows, 1),
            key_groups: groups(isa, format, dim),
            value_groups: groups(isa, format, t),
            multiple,
        }
    }

    /// Keys with their padding to whole pairs of panels.
    fn keys(&self) -> usize {
        self.t.next_multiple_of(WIDE)
    }

    /// Pairs of panels that hold the keys of a hull.
    pub(super) fn panels(&self, hull: &Range<usize>) -> Range<usize> {
        hull.start / WIDE..hull.end.div_ceil(WIDE)
    }

    /// Words of values of the keys of a hull, padded.
    pub(super) fn words(&self, hull: &Range<usize>) -> Range<usize> {
        let (per, multiple) = (self.format.per_word(), self.multiple);
        let start = hull.start / per / multiple * multiple;
        start..hull.end.div_ceil(per).next_multiple_of(multiple).min(self.value_groups)
    }

    /// Words of scratch memory: sums, keys, values, queries, scores, weights.
    pub(super) fn memory(&self) -> usize {
        let rows = 2 * HIGH;
        SUMS + self.keys() * self.key_groups
            + self.dim.next_multiple_of(WIDE) * self.value_groups
            + rows * self.key_groups
            + rows * self.keys()
            + rows * self.value_groups
    }
}

/// As the twin, a pair of tiles of queries at a time against all keys between the first and the last that they see. Keys among these that a query does not
/// see have the weight 0; where a value is not finite and keys are hidden, values are summed over the keys seen alone, so that nothing hidden reaches an output.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn head<S: Simd>(
    s: S,
    format: Format,
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    mask: Mask,
    scale: f32,
    out: Block<'_>,
    memory: &mut [u32],
) {
    match format {
        Format::F32 => typed::<S, F32>(s, q, k, v, mask, scale, out, memory),
        Format::Bf16 | Format::Int8 => typed::<S, Bf16>(s, q, k, v, mask, scale, out, memory),
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn typed<S: Simd, F: Number>(
    s: S,
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    mask: Mask,
    scale: f32,
    mut out: Block<'_>,
    memory: &mut [u32],
) {
    let (t, dim) = (out.rows(), out.cols());
    let isa = if s.group_multiple::<F>() > 1 { Isa::Amx } else { Isa::Avx512 };
    let plan = Plan::new(isa, s.tile_rows::<F>(), F::FORMAT, t, dim);
    let (sums, memory) = memory.split_at_mut(SUMS);
    let (keys, memory) = memory.split_at_mut(plan.keys() * plan.key_groups);
    let (values, memory) = memory.split_at_mut(dim.next_multiple_of(WIDE) * plan.value_groups);
    let (queries, memory) = memory.split_at_mut(2 * HIGH * plan.key_groups);
    let (scores, weights) = memory.split_at_mut(2 * HIGH * plan.keys());
    pack_keys::<S, F>(s, k, t, dim, plan.key_groups, keys, queries);
    let mut columns = Columns::new();
    let mut finite = s.splat(0.0);
    for (p, values) in values.chunks_exact_mut(WIDE * plan.value_groups).enumerate() {
        let v = Source::Cut(v, dim);
        pack_panels::<S, F>(s, v, p * WIDE, t, plan.value_groups, values, &mut columns);
    }
    let hides = !mask.hides_nothing(t);
    if hides {
        for j in 0..t {
            for x in v.row(j)[..dim].chunks(S::LANES) {
                finite = s.max_magnitude(finite, s.load(x));
            }
        }
    }
    let finite = s.reduce_magnitude(finite).is_finite();
    let wide = plan.keys();
    let tiles = Tiles::<S, F>::new(s, t, 1);
    let high = tiles.rows();
    for first in (0..t).step_by(2 * high) {
        let rows = [high.min(t - first), high.min(t.saturating_sub(first + high))];
        let all = rows[0] + rows[1];
        let hull = if hides { mask.hull(first, first + all, t) } else { 0..t };
        // A: queries as they are, or rounded
        let (a, stride): (&[u32], usize) = if F::FORMAT == Format::F32 {
            (words(q.row(first)), q.stride())
        } else {
            for i in 0..all {
                let to = &mut queries[i * plan.key_groups..(i + 1) * plan.key_groups];
                encode_row::<S, F>(s, &q.row(first + i)[..dim], to);
            }
            (queries, plan.key_groups)
        };
        let second: &[u32] = if rows[1] > 0 { &a[high * stride..] } else { &[] };
        let scores = floats_mut(scores);
        for p in plan.panels(&hull) {
            let panel = PANEL * plan.key_groups;
            let b = [&keys[2 * p * panel..(2 * p + 1) * panel], &keys[(2 * p + 1) * panel..(2 * p + 2) * panel]];
            tiles.pair([a, second], stride, rows, b, plan.key_groups, floats_mut(sums), APART);
            for i in 0..all {
                let at = (i / high * HIGH + i % high) * WIDE;
                scores[i * wide + p * WIDE..][..WIDE].copy_from_slice(&floats(sums)[at..at + WIDE]);
            }
        }
        for i in 0..all {
            let row = &mut scores[i * wide..(i + 1) * wide];
            let seen = if hides { mask.keys(first + i, t) } else { [0..0, 0..t] };
            softmax_seen(s, row, &hull, &seen, scale);
            // what pads a row for tiles, and what lies before and after the hull, weighs nothing
            row[..hull.start].fill(0.0);
            row[hull.end..].fill(0.0);
        }
        if hides && !finite {
            for i in 0..all {
                let weights = &scores[i * wide..(i + 1) * wide];
                sum_seen(s, weights, v, &mask.keys(first + i, t), out.row(first + i));
            }
            continue;
        }
        let (a, stride): (&[u32], usize) = if F::FORMAT == Format::F32 {
            (words(scores), wide)
        } else {
            for i in 0..all {
                let to = &mut weights[i * plan.value_groups..(i + 1) * plan.value_groups];
                encode_row::<S, F>(s, &scores[i * wide..][..t], to);
            }
            (weights, plan.value_groups)
        };
        let seen = plan.words(&hull);
        for p in 0..dim.div_ceil(WIDE) {
            let panel = PANEL * plan.value_groups;
            let b0 = &values[2 * p * panel..(2 * p + 1) * panel][seen.start * PANEL..seen.end * PANEL];
            let b1 = &values[(2 * p + 1) * panel..(2 * p + 2) * panel][seen.start * PANEL..seen.end * PANEL];
            let second = if rows[1] > 0 { &a[high * stride + seen.start..] } else { &[] };
            tiles.pair([&a[seen.start..], second], stride, rows, [b0, b1], seen.len(), floats_mut(sums), APART);
            for i in 0..all {
                let to = &mut out.row(first + i)[p * WIDE..];
                let n = WIDE.min(to.len());
                let at = (i / high * HIGH + i % high) * WIDE;
                to[..n].copy_from_slice(&floats(sums)[at..at + n]);
            }
        }
    }
}

/// Softmax over the seen keys of a row's hull; the others become 0. Where none is seen all are 0.
#[inline(always)]
fn softmax_seen<S: Simd>(s: S, row: &mut [f32], hull: &Range<usize>, seen: &[Range<usize>; 2], scale: f32) {
    if seen.iter().all(Range::is_empty) {
        row[hull.start..hull.end].fill(0.0);
        return;
    }
    let [globals, rest] = seen;
    let globals = globals.end.clamp(hull.start, hull.end);
    let (start, end) = if rest.is_empty() { (hull.end, hull.end) } else { (rest.start, rest.end) };
    row[globals..start].fill(f32::NEG_INFINITY);
    row[end..hull.end].fill(f32::NEG_INFINITY);
    // a scale below 0 would turn hidden keys into infinity
    let row = &mut row[hull.start..hull.end];
    softmax_scaled(s, row, scale);
}

/// As [`softmax_row`], where minus infinity stays what it is whatever the scale.
#[inline(always)]
fn softmax_scaled<S: Simd>(s: S, x: &mut [f32], scale: f32) {
    if scale > 0.0 {
        softmax_row(s, x, scale);
        return;
    }
    for x in x.iter_mut().filter(|x| **x != f32::NEG_INFINITY) {
        *x *= scale;
    }
    softmax_row(s, x, 1.0);
}

/// `out = Σ_j weights[j] v[j]` over the seen keys alone.
#[inline(always)]
fn sum_seen<S: Simd>(s: S, weights: &[f32], v: Rows<'_>, seen: &[Range<usize>; 2], out: &mut [f32]) {
    for (c, out) in out.chunks_mut(S::LANES).enumerate() {
        let mut sum = s.splat(0.0);
        for keys in seen {
            for j in keys.start..keys.end {
                let v = &v.row(j)[c * S::LANES..][..out.len()];
                sum = s.fma(s.splat(weights[j]), s.load(v), sum);
            }
        }
        s.store(out, sum);
    }
}

/// Keys as panels: a key is a column. `row` has room for one key's words.
#[inline(always)]
fn pack_keys<S: Simd, F: Number>(
    s: S,
    k: Rows<'_>,
    t: usize,
    dim: usize,
    groups: usize,
    panels: &mut [u32],
    row: &mut [u32],
) {
    let row = &mut row[..groups];
    for (j, lane) in (0..t.next_multiple_of(WIDE)).map(|j| (j, j % PANEL)) {
        if j < t {
            encode_row::<S, F>(s, &k.row(j)[..dim], row);
        } else {
            row.fill(0);
        }
        let panel = &mut panels[j / PANEL * PANEL * groups..][..PANEL * groups];
        for (word, to) in row.iter().zip(panel.chunks_exact_mut(PANEL)) {
            to[lane] = *word;
        }
    }
}
