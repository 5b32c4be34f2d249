//! Routing of a mixture of experts: which tokens go to which experts, their rows side by side for each expert, and
//! back.
//!
//! In: the router's scores. Out: rows grouped by expert, and their weighted sum in the tokens' order. Must not: let a
//! token's result depend on the other tokens: it is summed over its experts in the order of their scores.
//!
//! The rule is Mixtral's (arXiv 2401.04088, section 2.1): the `top_k` experts with the highest scores (of equal scores
//! the lower number), weighted by the softmax over the chosen scores.
//!
//! The threads share out the groups of rows.

use crate::context::{Context, streamed};
use crate::linear::pack::PackedLinear;
use crate::matrix::MatMut;
use crate::mlp;
use crate::pool::SendPtr;
use crate::vector::{Simd, dispatch};

/// The routes of the tokens of one batch. Allocated once, for the largest batch.
pub struct Routes {
    experts: usize,
    top_k: usize,
    /// Expert of each token's choices, best first: `[tokens, top_k]`.
    chosen: Vec<u32>,
    /// Their weights.
    gates: Vec<f32>,
    /// Row of each choice among the grouped rows.
    place: Vec<u32>,
    /// First grouped row of each expert, and the end of the last.
    starts: Vec<usize>,
    /// Expert and rows of each piece of work.
    pieces: Vec<(usize, usize, usize)>,
}

/// Least rows of a piece of work: fewer are not worth reading an expert's weights for.
const PIECE: usize = 32;

impl Routes {
    /// Room for `tokens` tokens.
    ///
    /// # Panics
    /// Unless `1 <= top_k <= experts`.
    pub fn new(experts: usize, top_k: usize, tokens: usize) -> Self {
        assert!((1..=experts).contains(&top_k), "Routes: {top_k} of {experts} experts");
        let n = tokens * top_k;
        let (chosen, gates) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let pieces = Vec::with_capacity(experts + n / PIECE + 1);
        Self { experts, top_k, chosen, gates, place: Vec::with_capacity(n), starts: vec![0; experts + 1], pieces }
    }

    /// Experts of a token.
    pub fn top_k(&self) -> usize {
        self.top_k
    }

    /// Rows of each choice side by side: `tokens * top_k`.
    pub fn rows(&self) -> usize {
        self.chosen.len()
    }

    /// Grouped rows of an expert.
    pub fn of(&self, expert: usize) -> std::ops::Range<usize> {
        self.starts[expert]..self.starts[expert + 1]
    }

    /// Routes tokens by their `scores: [tokens, experts]`, for the threads of `ctx`.
    ///
    /// # Panics
    /// If the scores are not whole rows.
    pub fn route(&mut self, ctx: &Context, scores: &[f32]) {
        assert!(scores.len().is_multiple_of(self.experts), "route: scores are not [tokens, {}]", self.experts);
        self.chosen.clear();
        self.gates.clear();
        self.starts.fill(0);
        for row in scores.chunks_exact(self.experts) {
            let first = self.chosen.len();
            for _ in 0..self.top_k {
                let taken = &self.chosen[first..];
                let free = (0..self.experts as u32).filter(|e| !taken.contains(e));
                // `max_by` keeps the last of equals: from behind that is the lowest number
                let best = free.rev().max_by(|&a, &b| row[a as usize].total_cmp(&row[b as usize]));
                self.chosen.push(best.unwrap_or(0));
            }
            let score = |i: usize| row[self.chosen[first + i] as usize];
            let top = score(0);
            let mut sum = 0.0;
            for i in 0..self.top_k {
                let e = (score(i) - top).exp();
                sum += e;
                self.gates.push(e);
            }
            self.gates[first..].iter_mut().for_each(|g| *g /= sum);
            self.chosen[first..].iter().for_each(|&e| self.starts[e as usize + 1] += 1);
        }
        for e in 0..self.experts {
            self.starts[e + 1] += self.starts[e];
        }
        self.place.clear();
        // each expert's rows in the tokens' order; `starts` is advanced here and restored below
        for &e in &self.chosen {
            self.place.push(self.starts[e as usize] as u32);
            self.starts[e as usize] += 1;
        }
        self.starts.copy_within(..self.experts, 1);
        self.starts[0] = 0;
        self.pieces.clear();
        // a few pieces for each thread, none so large that a thread waits long for another
        let most = self.rows().div_ceil(2 * ctx.pool().threads()).max(PIECE);
        for e in 0..self.experts {
            let rows = self.of(e);
            let count = rows.len().div_ceil(most);
            let cut = |i: usize| rows.start + rows.len() * i / count.max(1);
            self.pieces.extend((0..count).map(|i| (e, cut(i), cut(i + 1))));
        }
    }

    /// Copies each token's row to its experts' rows: `x: [tokens, n]` to `out: [tokens * top_k, n]`.
    ///
    /// # Panics
    /// If a length does not fit the tokens that were routed.
    pub fn gather(&self, ctx: &Context, x: &[f32], n: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.rows() * n, "gather: output is not [{}, {n}]", self.rows());
        assert_eq!(x.len() * self.top_k, out.len(), "gather: input is not the routed tokens");
        let tokens = self.rows() / self.top_k;
        let chunk = ctx.chunk(tokens, out.len());
        let start = SendPtr(out.as_mut_ptr());
        ctx.pool().run(tokens.div_ceil(chunk), &|i| {
            for t in i * chunk..tokens.min((i + 1) * chunk) {
                for choice in t * self.top_k..(t + 1) * self.top_k {
                    let to = self.place[choice] as usize * n;
                    // SAFETY: places are below `rows`, of which `out` has `n` values each, and no two choices have one
                    // place.
                    let row = unsafe { std::slice::from_raw_parts_mut(start.get().add(to), n) };
                    row.copy_from_slice(&x[t * n..(t + 1) * n]);
                }
            }
        });
    }

    /// Sums each token's rows by weight, best expert first: `y: [tokens * top_k, n]` to `out: [tokens, n]`.
    ///
    /// # Panics
    /// If a length does not fit the tokens that were routed.
    pub fn combine(&self, ctx: &Context, y: &[f32], n: usize, out: &mut [f32]) {
        assert_eq!(y.len(), self.rows() * n, "combine: input is not [{}, {n}]", self.rows());
        assert_eq!(out.len() * self.top_k, y.len(), "combine: output is not the routed tokens");
        let chunk = n * ctx.chunk(out.len().checked_div(n).unwrap_or(0), y.len());
        ctx.pool().chunks(out, chunk, |index, rows| {
            for (i, out) in rows.chunks_exact_mut(n).enumerate() {
                let t = index * (chunk / n) + i;
                out.fill(0.0);
                for choice in t * self.top_k..(t + 1) * self.top_k {
                    let row = &y[self.place[choice] as usize * n..][..n];
                    add_weighted(ctx.proof(), self.gates[choice], row, out);
                }
            }
        });
    }

    /// Takes each expert's rows of `rows: [tokens * top_k, d]`, as [`Routes::gather`] left them, through its gated MLP,
    /// in place. `up[e]` is packed as gated, `down[e]` plain; an expert without rows costs nothing.
    ///
    /// # Panics
    /// As [`gated_mlp`](crate::gated_mlp), or if there are not as many weights as experts.
    pub fn experts(&self, ctx: &Context, up: &[PackedLinear], down: &[PackedLinear], rows: &mut [f32]) {
        assert!(up.len() == self.experts && down.len() == self.experts, "experts: weights of {} experts", up.len());
        let d = up[0].k();
        assert_eq!(rows.len(), self.rows() * d, "experts: rows are not [{}, {d}]", self.rows());
        up.iter().zip(down).for_each(|(up, down)| mlp::check(ctx, up, down, d));
        let pieces = &self.pieces;
        let start = SendPtr(rows.as_mut_ptr());
        let threads = ctx.parts(streamed(3 * rows.len() * up[0].n() / 2));
        ctx.pool().run_on(threads, pieces.len(), &|i| {
            let (e, first, end) = pieces[i];
            // SAFETY: pieces are disjoint ranges of rows below `rows`, and `rows` is borrowed until `run_on` returns.
            let block = unsafe { MatMut::from_raw(start.get().add(first * d), end - first, d, d) };
            mlp::rows_of(ctx, None, &up[e], &down[e], None, block);
        });
    }
}

dispatch! {
    fn add_weighted(gate: f32, row: &[f32], out: &mut [f32]) { scalar_add_weighted | vector_add_weighted }
}

fn scalar_add_weighted(gate: f32, row: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(row).for_each(|(o, v)| *o = gate.mul_add(*v, *o));
}

#[inline(always)]
fn vector_add_weighted<S: Simd>(s: S, gate: f32, row: &[f32], out: &mut [f32]) {
    for (row, out) in row.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
        s.store(out, s.fma(s.splat(gate), s.load(row), s.load(out)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: sort, cut off, softmax.
    fn by_sorting(row: &[f32], top_k: usize) -> Vec<(usize, f64)> {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        order.truncate(top_k);
        let weights: Vec<f64> = order.iter().map(|&e| f64::from(row[e] - row[order[0]]).exp()).collect();
        let sum: f64 = weights.iter().sum();
        order.into_iter().zip(weights.into_iter().map(|w| w / sum)).collect()
    }

    proptest! {
        #[test]
        fn routes_are_the_definition(
            experts in 1usize..9, k in 0usize..9, tokens in 0usize..12, n in 1usize..5, ties in any::<bool>(), seed in any::<u32>(),
        ) {
            let top_k = k % experts + 1;
            let value = |i: usize| {
                let hash = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed).wrapping_mul(40_503) >> 16;
                if ties { (hash % 3) as f32 } else { (hash % 1000) as f32 / 250.0 - 2.0 }
            };
            let scores: Vec<f32> = (0..tokens * experts).map(value).collect();
            let x: Vec<f32> = (0..tokens * n).map(|i| value(i + 77)).collect();
            let ctx = Context::new(2, crate::Isa::detect()).expect("two threads").with_grain(1);
            let mut routes = Routes::new(experts, top_k, tokens);
            routes.route(&ctx, &scores);
            prop_assert_eq!(routes.rows(), tokens * top_k);
            prop_assert_eq!(routes.of(experts - 1).end, routes.rows());
            let mut grouped = vec![0.0; routes.rows() * n];
            routes.gather(&ctx, &x, n, &mut grouped);
            // every expert e adds e + 1 to what it gets
            for e in 0..experts {
                for row in routes.of(e) {
                    grouped[row * n..(row + 1) * n].iter_mut().for_each(|v| *v += e as f32 + 1.0);
                }
            }
            let mut out = vec![0.0; tokens * n];
            routes.combine(&ctx, &grouped, n, &mut out);
            for t in 0..tokens {
                let routed = by_sorting(&scores[t * experts..(t + 1) * experts], top_k);
                for c in 0..n {
                    let want: f64 = routed.iter().map(|(e, w)| w * (f64::from(x[t * n + c]) + *e as f64 + 1.0)).sum();
                    prop_assert!((f64::from(out[t * n + c]) - want).abs() < 1e-4, "{} not {want}", out[t * n + c]);
                }
            }
        }
    }
}
