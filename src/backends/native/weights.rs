//! A graph's parameters in the layouts that the kernels read, each made once.
//!
//! In: parameters as the model's file holds them. Out: numbered weights. Must not: keep a layout twice, or refer to the file's copy, so
//! that whoever loads can let go of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use ergometer_kernels::{Context, Heads, NumberFormat, PackedHeads, PackedLinear, PackedTokens};

use crate::graph::{Graph, ParamId, Rope};

/// What the steps of a plan refer to by number.
#[derive(Default)]
pub(super) struct Weights {
    /// `[out, in]`, applied along the features.
    pub linear: Vec<PackedLinear>,
    /// `[out, in]`, applied along the tokens.
    pub tokens: Vec<PackedTokens>,
    /// Of queries, keys and values.
    pub heads: Vec<PackedHeads>,
    /// Gains, biases and tables, as in the file.
    pub plain: Vec<Vec<f32>>,
    /// Cosines and sines `[tokens, head_dim]`, both halves of a row alike.
    pub ropes: Vec<[Vec<f32>; 2]>,
}

impl Weights {
    /// Memory held, padding included.
    pub fn bytes(&self) -> usize {
        let plain = self.plain.iter().chain(self.ropes.iter().flatten()).map(|v| size_of_val(&v[..])).sum::<usize>();
        let linear: usize = self.linear.iter().map(PackedLinear::bytes).sum();
        let heads: usize = self.heads.iter().map(PackedHeads::bytes).sum();
        plain + linear + heads + self.tokens.iter().map(PackedTokens::bytes).sum::<usize>()
    }
}

/// Outputs below which a product is not worth rounding.
const NARROW: usize = 64;

/// Makes [`Weights`] on demand: asking again gives the number of the first time.
pub(super) struct Packer<'a> {
    graph: &'a Graph,
    params: &'a [Vec<f32>],
    ctx: &'a Context,
    format: NumberFormat,
    weights: Weights,
    linear: HashMap<ParamId, usize>,
    gated: HashMap<ParamId, usize>,
    experts: HashMap<ParamId, usize>,
    tokens: HashMap<ParamId, usize>,
    heads: HashMap<(ParamId, Heads), usize>,
    plain: HashMap<ParamId, usize>,
    ropes: HashMap<(u32, usize, usize), usize>,
}

impl<'a> Packer<'a> {
    /// `params[i]` holds the elements of `graph.params[i]`.
    pub fn new(graph: &'a Graph, params: &'a [Vec<f32>], ctx: &'a Context, format: NumberFormat) -> Self {
        let (linear, gated, experts, tokens, heads, plain, ropes) = Default::default();
        let weights = Weights::default();
        Self { graph, params, ctx, format, weights, linear, gated, experts, tokens, heads, plain, ropes }
    }

    /// Number format of a plain product with `n` outputs. Narrow ones stay f32: heads and routers cost next to nothing, and what they decide (an answer, a halt, an expert) is
    /// worth it. Where gated MLPs are int8, the products around attention are bf16: int8 queries and keys made three quarters of the error of the golden nets (6 % instead of 1.4 %),
    /// and save little.
    fn format_of(&self, n: usize) -> NumberFormat {
        match self.format {
            _ if n < NARROW => NumberFormat::F32,
            NumberFormat::Int8 => NumberFormat::Bf16,
            format => format,
        }
    }

    /// Number format of the products.
    pub fn format(&self) -> NumberFormat {
        self.format
    }

    /// All weights that were asked for.
    pub fn finish(self) -> Weights {
        self.weights
    }

    /// A matrix for the features' side.
    pub fn linear(&mut self, p: ParamId) -> usize {
        let ((n, k), ctx) = (self.matrix(p), self.ctx);
        let format = self.format_of(n);
        once(&mut self.linear, p, &mut self.weights.linear, || PackedLinear::pack(ctx, format, &self.params[p.0], n, k))
    }

    /// The matrix of queries, keys and values, by groups of heads.
    pub fn heads(&mut self, p: ParamId, heads: Heads) -> usize {
        let ((n, k), ctx) = (self.matrix(p), self.ctx);
        let (format, w) = (self.format_of(n), &self.params[p.0]);
        once(&mut self.heads, (p, heads), &mut self.weights.heads, || PackedHeads::pack(ctx, format, w, heads, k))
    }

    /// Columns of [`Packer::heads`], padding included.
    pub fn head_columns(&self, heads: Heads) -> usize {
        PackedHeads::columns(self.ctx, heads)
    }

    /// Threads that the kernels run on.
    pub fn threads(&self) -> usize {
        self.ctx.pool().threads()
    }

    /// The two matrices of a gated MLP along the features, which have one format.
    pub fn gated(&mut self, gate_up: ParamId, down: ParamId) -> [usize; 2] {
        let ((_, k), (n, inner), ctx, format) = (self.matrix(gate_up), self.matrix(down), self.ctx, self.format);
        let (all, params) = (&mut self.weights.linear, self.params);
        let up =
            once(&mut self.gated, gate_up, all, || PackedLinear::pack_gated(ctx, format, &params[gate_up.0], inner, k));
        [up, once(&mut self.gated, down, all, || PackedLinear::pack(ctx, format, &params[down.0], n, inner))]
    }

    /// The matrices of gated experts, `[count, 2·inner, n]` and `[count, n, inner]`: the numbers of the first of each, the others follow.
    pub fn experts(&mut self, gate_up: ParamId, down: ParamId) -> [usize; 2] {
        let shape = &self.graph.params[down.0].shape;
        let (n, inner, all) = (shape[1], shape[2], &mut self.weights.linear);
        for (p, gated) in [(gate_up, true), (down, false)] {
            if let Entry::Vacant(place) = self.experts.entry(p) {
                place.insert(all.len());
                for w in self.params[p.0].chunks_exact(if gated { 2 * inner * n } else { n * inner }) {
                    all.push(match gated {
                        true => PackedLinear::pack_gated(self.ctx, self.format, w, inner, n),
                        false => PackedLinear::pack(self.ctx, self.format, w, n, inner),
                    });
                }
            }
        }
        [self.experts[&gate_up], self.experts[&down]]
    }

    /// The two matrices of a gated MLP along the tokens.
    pub fn tokens(&mut self, gate_up: ParamId, down: ParamId) -> [usize; 2] {
        let ((_, t), (n, inner), ctx, format) = (self.matrix(gate_up), self.matrix(down), self.ctx, self.format);
        let (all, params) = (&mut self.weights.tokens, self.params);
        let pack = || PackedTokens::pack_gated(ctx, format, &params[gate_up.0], inner, t);
        let up = once(&mut self.tokens, gate_up, all, pack);
        [up, once(&mut self.tokens, down, all, || PackedTokens::pack(ctx, format, &params[down.0], n, inner))]
    }

    /// A gain, bias or table.
    pub fn plain(&mut self, p: ParamId) -> usize {
        once(&mut self.plain, p, &mut self.weights.plain, || self.params[p.0].clone())
    }

    /// The tables of positions `0..tokens`.
    pub fn rope(&mut self, rope: &Rope, tokens: usize, head_dim: usize) -> usize {
        let key = (rope.base.to_bits(), tokens, head_dim);
        once(&mut self.ropes, key, &mut self.weights.ropes, || rope_tables(f64::from(rope.base), tokens, head_dim))
    }

    /// Shape of a matrix, checked by the graph's builder.
    pub fn matrix(&self, p: ParamId) -> (usize, usize) {
        let shape = &self.graph.params[p.0].shape;
        (shape[0], shape[1])
    }
}

fn once<K: Hash + Eq, T>(known: &mut HashMap<K, usize>, key: K, all: &mut Vec<T>, make: impl FnOnce() -> T) -> usize {
    *known.entry(key).or_insert_with(|| {
        all.push(make());
        all.len() - 1
    })
}

/// Angles in f64, so that late positions are as exact as early ones.
fn rope_tables(base: f64, tokens: usize, head_dim: usize) -> [Vec<f32>; 2] {
    let half = head_dim / 2;
    let angle = |i: usize| {
        let (position, pair) = (i / head_dim, i % head_dim % half);
        position as f64 * base.powf(-2.0 * pair as f64 / head_dim as f64)
    };
    let table = |f: fn(f64) -> f64| (0..tokens * head_dim).map(|i| f(angle(i)) as f32).collect();
    [table(f64::cos), table(f64::sin)]
}
