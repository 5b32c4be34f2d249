//! The vector bodies of softmax, rotary embedding and attention; both products of attention are the shared matrix
//! product over packed keys and values.

use std::ops::Range;

use super::{Mask, RopeTables};
use crate::isa::Isa;
use crate::linear::pack::groups;
use crate::matrix::{MatMut, MatRef, floats_mut, halves_mut};
use crate::number_format::NumberFormat;
use crate::vector::operand::{ColumnScales, RowSource, encode_row, pack_panels, row};
use crate::vector::product::{Epilogue, Pairs, TilePair, product, sums_len, tiled};
use crate::vector::tile::{Bf16, Element, F32, LINE, MR, NR, PANEL, TileLayout, even, shares};
use crate::vector::{Simd, isa_of, math};

/// As the scalar reference.
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
        let e = math::exp_or_zero(s, s.sub(s.load_or(x, lowest), max));
        s.store(x, e);
        sum = s.add(sum, e);
    }
    let sum = s.splat(s.reduce_sum(sum));
    for x in x.chunks_mut(S::LANES) {
        s.store(x, s.div(s.load(x), sum));
    }
}

/// `to = x · cos + rotate_half(x) · sin`.
#[inline(always)]
fn rotate<S: Simd>(s: S, x: &[f32], cos: &[f32], sin: &[f32], to: &mut [f32]) {
    let half = x.len() / 2;
    let ((x1, x2), (to1, to2)) = (x.split_at(half), to.split_at_mut(half));
    let ((cos1, cos2), (sin1, sin2)) = (cos.split_at(half), sin.split_at(half));
    for i in (0..half).step_by(S::LANES) {
        let (a, b) = (s.load(&x1[i..]), s.load(&x2[i..]));
        s.store(&mut to1[i..], s.sub(s.mul(a, s.load(&cos1[i..])), s.mul(b, s.load(&sin1[i..]))));
        s.store(&mut to2[i..], s.add(s.mul(b, s.load(&cos2[i..])), s.mul(a, s.load(&sin2[i..]))));
    }
}

/// How the products of a head are cut into tiles and panels, and how their operands are laid out.
#[derive(Clone, Copy)]
pub(super) struct HeadPlan {
    isa: Isa,
    /// Most rows of a tile.
    tile_rows: usize,
    format: NumberFormat,
    t: usize,
    dim: usize,
    /// Of the product of queries and keys.
    pub(super) keys: TileLayout,
    /// Of the product of weights and values.
    values: TileLayout,
}

impl HeadPlan {
    pub(super) fn new(isa: Isa, tile_rows: usize, format: NumberFormat, t: usize, dim: usize) -> HeadPlan {
        let of =
            |k| TileLayout { lines: tiled(isa, format), groups: groups(isa, format, k), mr: even(t, tile_rows, 1) };
        HeadPlan { isa, tile_rows, format, t, dim, keys: of(dim), values: of(t) }
    }

    /// Rows of a tile of queries.
    pub(super) fn mr(&self) -> usize {
        self.keys.mr
    }

    /// The first query after pair `pair` of tiles, cut as a product of all queries would be.
    pub(super) fn pair_end(&self, pair: usize) -> usize {
        let (t, mr) = (self.t, self.mr());
        let (rows, more) = shares(t, mr, self.tile_rows);
        let tiles = 2 * (pair + 1);
        t.min(tiles * rows + more.min(tiles))
    }

    /// Words for the sums of a pair of tiles, of either product.
    fn sums(&self) -> usize {
        let of = |layout: TileLayout| sums_len(self.isa, self.format, 1, layout.groups);
        of(self.keys).max(of(self.values))
    }

    /// Pairs of panels that hold all keys.
    fn pairs(&self) -> usize {
        self.t.div_ceil(NR)
    }

    /// Pairs of panels that hold the keys of a hull.
    pub(super) fn panels(&self, hull: &Range<usize>) -> Range<usize> {
        hull.start / NR..hull.end.div_ceil(NR)
    }

    /// Words of values of the keys of a hull, padded.
    pub(super) fn words(&self, hull: &Range<usize>) -> Range<usize> {
        let (per, multiple) = (self.format.per_word(), if self.values.lines { LINE } else { 1 });
        let start = hull.start / per / multiple * multiple;
        start..hull.end.div_ceil(per).next_multiple_of(multiple).min(self.values.groups)
    }

    /// Words of scratch memory, in the order in which `typed` takes it.
    pub(super) fn memory(&self) -> usize {
        let rows = 2 * self.mr();
        self.dim.next_multiple_of(MR)
            + 2 * MR
            + self.sums()
            + self.keys.b_words(self.pairs())
            + self.values.b_words(self.dim.div_ceil(NR))
            + self.keys.a_words(rows).max(self.keys.groups * MR)
            + rows * self.pairs() * NR
            + self.values.a_words(rows)
    }
}

/// As the scalar reference, a pair of tiles of queries at a time with all keys between the first and the last that they
/// see (their hull). Keys within the hull that a query does not see have the weight 0. Where keys are hidden and a
/// value is not finite, values are summed over the seen keys alone, so that nothing hidden reaches an output.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn head<S: Simd>(
    s: S,
    format: NumberFormat,
    q: MatRef<'_>,
    k: MatRef<'_>,
    v: MatRef<'_>,
    rope: Option<RopeTables<'_>>,
    mask: Mask,
    scale: f32,
    out: MatMut<'_>,
    memory: &mut [u32],
) {
    match format {
        NumberFormat::F32 => typed::<S, F32>(s, q, k, v, rope, mask, scale, out, memory),
        NumberFormat::Bf16 | NumberFormat::Int8 => typed::<S, Bf16>(s, q, k, v, rope, mask, scale, out, memory),
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn typed<S: Simd, F: Element>(
    s: S,
    q: MatRef<'_>,
    k: MatRef<'_>,
    v: MatRef<'_>,
    rope: Option<RopeTables<'_>>,
    mask: Mask,
    scale: f32,
    mut out: MatMut<'_>,
    memory: &mut [u32],
) {
    let (t, dim) = (out.rows(), out.cols());
    let plan = HeadPlan::new(isa_of::<S, F>(s), s.tile_rows::<F>(), F::FORMAT, t, dim);
    let (rotated, memory) = memory.split_at_mut(dim.next_multiple_of(MR));
    let (inverses, memory) = memory.split_at_mut(2 * MR);
    let (sums, memory) = memory.split_at_mut(plan.sums());
    let (rotated, inverses, sums) = (floats_mut(rotated), floats_mut(inverses), floats_mut(sums));
    let (keys, memory) = memory.split_at_mut(plan.keys.b_words(plan.pairs()));
    let (values, memory) = memory.split_at_mut(plan.values.b_words(dim.div_ceil(NR)));
    let mr = plan.mr();
    let (queries, memory) = memory.split_at_mut(plan.keys.a_words(2 * mr).max(plan.keys.groups * MR));
    let stride = plan.pairs() * NR;
    let (scores, weights) = memory.split_at_mut(2 * mr * stride);
    let scores = floats_mut(scores);
    pack_keys::<S, F>(s, k, rope, t, dim, plan.keys, keys, queries, rotated);
    let mut columns = ColumnScales::new();
    for p in 0..dim.div_ceil(NR) {
        pack_panels::<S, F>(s, RowSource::Cut(v, dim), p * NR, t, plan.values, p, values, &mut columns);
    }
    let hides = !mask.hides_nothing(t);
    let finite = !hides || all_finite(s, v, t, dim);
    for pair in 0..t.div_ceil(2 * mr) {
        let first = if pair == 0 { 0 } else { plan.pair_end(pair - 1) };
        let all = plan.pair_end(pair) - first;
        let hull = if hides { mask.hull(first, first + all, t) } else { 0..t };
        for i in 0..all {
            let row = rotated_row(s, q, rope, first + i, dim, rotated);
            encode_row::<S, F>(s, row, plan.keys, i, queries);
        }
        let (panels, k) = (plan.panels(&hull), 0..plan.keys.groups);
        let mut epilogue = Scores { scores, stride };
        product::<S, F, _>(s, plan.keys, queries, Pairs::Rows(all), keys, panels, k, sums, &mut epilogue);
        for i in 0..all {
            let row = &mut scores[i * stride..][..t];
            // keys outside the hull have the weight 0
            if hides {
                hide(row, &hull, &mask.keys(first + i, t));
                row[..hull.start].fill(f32::NEG_INFINITY);
                row[hull.end..].fill(f32::NEG_INFINITY);
            }
            inverses[i] = 1.0;
            if hides && mask.count(first + i, t) == 0 {
                row.fill(0.0);
                encode_row::<S, F>(s, row, plan.values, i, weights);
            } else if scale > 0.0 {
                // exponentials as they are, and outputs divided by their sum
                inverses[i] = encode_weights::<S, F>(s, row, scale, plan.values, i, weights);
            } else {
                softmax_not_positive(s, row, scale);
                encode_row::<S, F>(s, row, plan.values, i, weights);
            }
        }
        if !finite {
            for i in 0..all {
                let seen = mask.keys(first + i, t);
                sum_seen::<S, F>(s, plan.values, i, weights, v, &seen, inverses[i], out.row(first + i));
            }
            continue;
        }
        let (panels, k) = (0..dim.div_ceil(NR), plan.words(&hull));
        let mut epilogue = Attended { out: &mut out, first, inverses };
        product::<S, F, _>(s, plan.values, weights, Pairs::Rows(all), values, panels, k, sums, &mut epilogue);
    }
}

/// Stores sums as scores, a row for each query.
struct Scores<'a> {
    scores: &'a mut [f32],
    stride: usize,
}

impl<S: Simd> Epilogue<S> for Scores<'_> {
    #[inline(always)]
    fn apply(&mut self, s: S, p: usize, tiles: TilePair, sums: [&[f32]; 2]) {
        for (t, sums) in sums.into_iter().enumerate() {
            for r in 0..tiles.rows[t] {
                let i = tiles.first[t] + r;
                let (from, to) = (row(sums, r), &mut self.scores[i * self.stride + p * NR..][..NR]);
                for v in (0..NR).step_by(S::LANES) {
                    s.store(&mut to[v..], s.load(&from[v..]));
                }
            }
        }
    }
}

/// Writes sums as outputs, divided by the sum of the weights.
struct Attended<'a, 'b> {
    out: &'a mut MatMut<'b>,
    first: usize,
    inverses: &'a [f32],
}

impl<S: Simd> Epilogue<S> for Attended<'_, '_> {
    #[inline(always)]
    fn apply(&mut self, s: S, p: usize, tiles: TilePair, sums: [&[f32]; 2]) {
        for (t, sums) in sums.into_iter().enumerate() {
            for r in 0..tiles.rows[t] {
                let i = tiles.first[t] + r;
                let (from, to) = (row(sums, r), &mut self.out.row(self.first + i)[p * NR..]);
                for v in (0..NR).step_by(S::LANES) {
                    if v >= to.len() {
                        break;
                    }
                    s.store(&mut to[v..], s.mul(s.load(&from[v..]), s.splat(self.inverses[i])));
                }
            }
        }
    }
}

/// No value is infinite or NaN, nor rounds to infinity in bf16.
#[inline(always)]
fn all_finite<S: Simd>(s: S, v: MatRef<'_>, t: usize, dim: usize) -> bool {
    let mut most = s.splat(0.0);
    for j in 0..t {
        for x in v.row(j)[..dim].chunks(S::LANES) {
            most = s.max_magnitude(most, s.load(x));
        }
    }
    // the least magnitude that rounds to infinity in bf16
    s.reduce_magnitude(most).to_bits() < 0x7f7f_8000
}

/// Row `i`, with rotary embedding where there is a `rope`.
#[inline(always)]
fn rotated_row<'a, S: Simd>(
    s: S,
    x: MatRef<'a>,
    rope: Option<RopeTables<'_>>,
    i: usize,
    dim: usize,
    memory: &'a mut [f32],
) -> &'a [f32] {
    let row = &x.row(i)[..dim];
    let Some(rope) = rope else { return row };
    let to = &mut memory[..dim];
    rotate(s, row, &rope.cos[i * dim..(i + 1) * dim], &rope.sin[i * dim..(i + 1) * dim], to);
    to
}

/// Writes `e^(scale · (x - largest))`, 0 for minus infinity, of a row of scores as row `i` of A, and gives the inverse
/// of their sum. Exponentials are within 2^-13 relative where the format rounds them next.
#[inline(always)]
fn encode_weights<S: Simd, F: Element>(
    s: S,
    scores: &[f32],
    scale: f32,
    layout: TileLayout,
    i: usize,
    a: &mut [u32],
) -> f32 {
    let mut max = s.splat(f32::NEG_INFINITY);
    for x in scores.chunks(S::LANES) {
        max = s.max(max, s.load_or(x, f32::NEG_INFINITY));
    }
    let max = s.splat(s.reduce_max(max));
    // the rough exponential has base 2
    let by = if F::FORMAT == NumberFormat::F32 { scale } else { scale * std::f32::consts::LOG2_E };
    let (mut sum, by) = (s.splat(0.0), s.splat(by));
    let per = F::FORMAT.per_word();
    for (v, x) in scores.chunks(S::LANES).enumerate() {
        let below = s.mul(s.sub(s.load_or(x, f32::NEG_INFINITY), max), by);
        let g = v * S::LANES / per;
        let to = &mut a[layout.a(i, g)..][..(S::LANES / per).min(layout.groups - g)];
        let e = if F::FORMAT == NumberFormat::F32 {
            let e = s.zero_below(math::exp_quick(s, below), below, -87.0);
            s.store(floats_mut(to), e);
            e
        } else {
            let e = s.zero_below(math::exp2_rough(s, below), below, -124.0);
            s.store_bf16(halves_mut(to), e);
            e
        };
        sum = s.add(sum, e);
    }
    for g in (scores.len().next_multiple_of(S::LANES) / per..layout.groups).step_by(S::LANES / per) {
        a[layout.a(i, g)..][..(S::LANES / per).min(layout.groups - g)].fill(0);
    }
    1.0 / s.reduce_sum(sum)
}

/// Sets the scores of keys within the hull that are not seen to minus infinity.
#[inline(always)]
fn hide(row: &mut [f32], hull: &Range<usize>, seen: &[Range<usize>; 2]) {
    let [globals, rest] = seen;
    let globals = globals.end.clamp(hull.start, hull.end);
    let (start, end) = if rest.is_empty() { (hull.end, hull.end) } else { (rest.start, rest.end) };
    row[globals..start].fill(f32::NEG_INFINITY);
    row[end..hull.end].fill(f32::NEG_INFINITY);
}

/// As [`softmax_row`], for a scale that is not positive: minus infinity, which a hidden key has, stays what it is.
#[inline(always)]
fn softmax_not_positive<S: Simd>(s: S, x: &mut [f32], scale: f32) {
    for x in x.iter_mut().filter(|x| **x != f32::NEG_INFINITY) {
        *x *= scale;
    }
    softmax_row(s, x, 1.0);
}

/// `out = inverse · Σ_j weights[j] v[j]` over the seen keys alone, weights being row `i` of A: in f32 the bits that the
/// product gives, which adds zeros for the others.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn sum_seen<S: Simd, F: Element>(
    s: S,
    layout: TileLayout,
    i: usize,
    weights: &[u32],
    v: MatRef<'_>,
    seen: &[Range<usize>; 2],
    inverse: f32,
    out: &mut [f32],
) {
    for (c, out) in out.chunks_mut(S::LANES).enumerate() {
        let mut sum = s.splat(0.0);
        for keys in seen {
            for j in keys.start..keys.end {
                let weight = if F::FORMAT == NumberFormat::F32 {
                    f32::from_bits(weights[layout.a(i, j)])
                } else {
                    f32::from_bits(weights[layout.a(i, j / 2)] >> (16 * (j % 2)) << 16)
                };
                let v = &v.row(j)[c * S::LANES..][..out.len()];
                sum = s.fma(s.splat(weight), s.load(v), sum);
            }
        }
        s.store(out, s.mul(sum, s.splat(inverse)));
    }
}

/// Keys as panels: a key is a column. `row` has room for one key's words, `rotated` for a key.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn pack_keys<S: Simd, F: Element>(
    s: S,
    k: MatRef<'_>,
    rope: Option<RopeTables<'_>>,
    t: usize,
    dim: usize,
    layout: TileLayout,
    panels: &mut [u32],
    row: &mut [u32],
    rotated: &mut [f32],
) {
    // a key's words side by side
    let (side_by_side, row) = (TileLayout { lines: false, mr: 1, ..layout }, &mut row[..layout.groups]);
    // columns beyond the last key must not hold NaN
    panels[layout.b(t / PANEL, 0)..].fill(0);
    for (j, lane) in (0..t).map(|j| (j, j % PANEL)) {
        let key = rotated_row(s, k, rope, j, dim, rotated);
        encode_row::<S, F>(s, key, side_by_side, 0, row);
        for (line, words) in row.chunks(LINE).enumerate() {
            let to = &mut panels[layout.b(j / PANEL, line * LINE) + lane..];
            for (to, word) in to.iter_mut().step_by(PANEL).zip(words) {
                *to = *word;
            }
        }
    }
}
