//! The vector bodies of softmax, rotary embedding and attention; both products of attention are the shared matrix product over packed keys and values.

use std::ops::Range;

use super::{Mask, Turn};
use crate::block::{Block, Rows, floats_mut, halves_mut};
use crate::format::Format;
use crate::isa::Isa;
use crate::linear::pack::groups;
use crate::vector::operand::{Columns, Source, encode_row, pack_panels, row};
use crate::vector::tile::{APART, Bf16, F32, HIGH, Number, PAIR, PANEL, Place, Tiles, WIDE, even};
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

    /// Words of scratch memory: a turned row, sums, keys, values, queries, scores, weights and what divides them.
    pub(super) fn memory(&self) -> usize {
        let rows = 2 * HIGH;
        self.dim.next_multiple_of(HIGH)
            + rows
            + PAIR
            + self.keys() * self.key_groups
            + self.dim.next_multiple_of(WIDE) * self.value_groups
            + rows * self.key_groups.max(self.dim)
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
    turn: Option<Turn<'_>>,
    mask: Mask,
    scale: f32,
    out: Block<'_>,
    memory: &mut [u32],
) {
    match format {
        Format::F32 => typed::<S, F32>(s, q, k, v, turn, mask, scale, out, memory),
        Format::Bf16 | Format::Int8 => typed::<S, Bf16>(s, q, k, v, turn, mask, scale, out, memory),
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn typed<S: Simd, F: Number>(
    s: S,
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    turn: Option<Turn<'_>>,
    mask: Mask,
    scale: f32,
    mut out: Block<'_>,
    memory: &mut [u32],
) {
    let (t, dim) = (out.rows(), out.cols());
    let isa = if s.group_multiple::<F>() > 1 { Isa::Amx } else { Isa::Avx512 };
    let plan = Plan::new(isa, s.tile_rows::<F>(), F::FORMAT, t, dim);
    let (turned, memory) = memory.split_at_mut(dim.next_multiple_of(HIGH));
    let (inverses, memory) = memory.split_at_mut(2 * HIGH);
    let (turned, inverses) = (floats_mut(turned), floats_mut(inverses));
    let (sums, memory) = memory.split_at_mut(PAIR);
    let (keys, memory) = memory.split_at_mut(plan.keys() * plan.key_groups);
    let (values, memory) = memory.split_at_mut(dim.next_multiple_of(WIDE) * plan.value_groups);
    let (queries, memory) = memory.split_at_mut(2 * HIGH * plan.key_groups);
    let (scores, weights) = memory.split_at_mut(2 * HIGH * plan.keys());
    pack_keys::<S, F>(s, k, turn, t, dim, plan.key_groups, keys, queries, turned);
    let mut columns = Columns::new();
    for (p, values) in values.chunks_exact_mut((WIDE * plan.value_groups).max(1)).enumerate() {
        pack_panels::<S, F>(s, Source::Cut(v, dim), p * WIDE, t, plan.value_groups, values, &mut columns);
    }
    let hides = !mask.hides_nothing(t);
    let finite = !hides || all_finite(s, v, t, dim);
    let wide = plan.keys();
    let tiles = Tiles::<S, F>::new(s, t, 1);
    let high = tiles.rows();
    // exponentials as they are, divided by their sum in the end, where weights are rounded anyway
    let rough = F::FORMAT != Format::F32 && scale > 0.0 && finite;
    for first in (0..t).step_by(2 * high) {
        let rows = [high.min(t - first), high.min(t.saturating_sub(first + high))];
        let all = rows[0] + rows[1];
        let hull = if hides { mask.hull(first, first + all, t) } else { 0..t };
        for i in 0..all {
            let row = turned_row(s, q, turn, first + i, dim, turned);
            encode_row::<S, F>(s, row, &mut queries[i * plan.key_groups..(i + 1) * plan.key_groups]);
        }
        let scores = floats_mut(scores);
        let second: &[u32] = if rows[1] > 0 { &queries[high * plan.key_groups..] } else { &[] };
        let place = Place { stride: wide, second: high * wide };
        for p in plan.panels(&hull) {
            let panel = PANEL * plan.key_groups;
            let b = [&keys[2 * p * panel..(2 * p + 1) * panel], &keys[(2 * p + 1) * panel..(2 * p + 2) * panel]];
            tiles.pair([queries, second], plan.key_groups, rows, b, plan.key_groups, &mut scores[p * WIDE..], place);
        }
        for i in 0..all {
            let row = &mut scores[i * wide..(i + 1) * wide];
            // what lies before and after the hull weighs nothing
            if hides {
                hide(row, &hull, &mask.keys(first + i, t));
                row[..hull.start].fill(f32::NEG_INFINITY);
            }
            row[hull.end..].fill(f32::NEG_INFINITY);
            let weights = &mut weights[i * plan.value_groups..(i + 1) * plan.value_groups];
            if hides && mask.count(first + i, t) == 0 {
                row.fill(0.0);
                weights.fill(0);
                inverses[i] = 0.0;
            } else if rough {
                inverses[i] = rough_weights(s, row, scale, weights);
            } else {
                softmax_scaled(s, row, scale);
                inverses[i] = 1.0;
                encode_row::<S, F>(s, &row[..t], weights);
            }
        }
        if !finite {
            for i in 0..all {
                let weights = &scores[i * wide..(i + 1) * wide];
                sum_seen(s, weights, v, &mask.keys(first + i, t), out.row(first + i));
            }
            continue;
        }
        let seen = plan.words(&hull);
        let sums = floats_mut(sums);
        for p in 0..dim.div_ceil(WIDE) {
            let panel = PANEL * plan.value_groups;
            let b0 = &values[2 * p * panel..(2 * p + 1) * panel][seen.start * PANEL..seen.end * PANEL];
            let b1 = &values[(2 * p + 1) * panel..(2 * p + 2) * panel][seen.start * PANEL..seen.end * PANEL];
            let a = &weights[seen.start..];
            let second = if rows[1] > 0 { &a[high * plan.value_groups..] } else { &[] };
            tiles.pair([a, second], plan.value_groups, rows, [b0, b1], seen.len(), sums, APART);
            for i in 0..all {
                let (to, sums) = (&mut out.row(first + i)[p * WIDE..], row(sums, i / high, i % high));
                for v in (0..WIDE.min(to.len())).step_by(S::LANES) {
                    s.store(&mut to[v..], s.mul(s.load(&sums[v..]), s.splat(inverses[i])));
                }
            }
        }
    }
}

/// No value is infinite or NaN.
#[inline(always)]
fn all_finite<S: Simd>(s: S, v: Rows<'_>, t: usize, dim: usize) -> bool {
    let mut most = s.splat(0.0);
    for j in 0..t {
        for x in v.row(j)[..dim].chunks(S::LANES) {
            most = s.max_magnitude(most, s.load(x));
        }
    }
    s.reduce_magnitude(most).is_finite()
}

/// Row `i`, turned by its position where rows are.
#[inline(always)]
fn turned_row<'a, S: Simd>(
    s: S,
    x: Rows<'a>,
    turn: Option<Turn<'_>>,
    i: usize,
    dim: usize,
    memory: &'a mut [f32],
) -> &'a [f32] {
    let row = &x.row(i)[..dim];
    let Some(turn) = turn else { return row };
    let to = &mut memory[..dim];
    to.copy_from_slice(row);
    rotate(s, to, &turn.cos[i * dim..(i + 1) * dim], &turn.sin[i * dim..(i + 1) * dim]);
    to
}

/// Writes `e^(scale · (x - largest))` of a row's scores as bf16; gives what their sum's inverse is.
#[inline(always)]
fn rough_weights<S: Simd>(s: S, scores: &[f32], scale: f32, weights: &mut [u32]) -> f32 {
    let mut max = s.splat(f32::NEG_INFINITY);
    for x in scores.chunks_exact(S::LANES) {
        max = s.max(max, s.load(x));
    }
    let max = s.splat(s.reduce_max(max));
    let mut sum = s.splat(0.0);
    let halves = halves_mut(weights);
    for (i, x) in scores.chunks_exact(S::LANES).enumerate() {
        let e = math::exp_minus_rough(s, s.mul(s.sub(max, s.load(x)), s.splat(scale)));
        sum = s.add(sum, e);
        // scores are whole pairs of panels, words may end before
        if let Some(to) = halves.get_mut(i * S::LANES..) {
            s.store_bf16(to, e);
        }
    }
    // and may go on after
    let done = scores.len().min(halves.len());
    halves[done..].fill(0);
    1.0 / s.reduce_sum(sum)
}

/// Gives the keys of a row's hull that are not seen minus infinity.
#[inline(always)]
fn hide(row: &mut [f32], hull: &Range<usize>, seen: &[Range<usize>; 2]) {
    let [globals, rest] = seen;
    let globals = globals.end.clamp(hull.start, hull.end);
    let (start, end) = if rest.is_empty() { (hull.end, hull.end) } else { (rest.start, rest.end) };
    row[globals..start].fill(f32::NEG_INFINITY);
    row[end..hull.end].fill(f32::NEG_INFINITY);
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

/// Keys as panels: a key is a column. `row` has room for one key's words, `turned` for a key.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn pack_keys<S: Simd, F: Number>(
    s: S,
    k: Rows<'_>,
    turn: Option<Turn<'_>>,
    t: usize,
    dim: usize,
    groups: usize,
    panels: &mut [u32],
    row: &mut [u32],
    turned: &mut [f32],
) {
    let row = &mut row[..groups];
    for (j, lane) in (0..t.next_multiple_of(WIDE)).map(|j| (j, j % PANEL)) {
        if j < t {
            let key = turned_row(s, k, turn, j, dim, turned);
            encode_row::<S, F>(s, key, row);
        } else {
            row.fill(0);
        }
        let panel = &mut panels[j / PANEL * PANEL * groups..][..PANEL * groups];
        for (word, to) in row.iter().zip(panel.chunks_exact_mut(PANEL)) {
            to[lane] = *word;
        }
    }
}
