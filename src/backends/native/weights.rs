//! A graph's parameters in the layouts that the kernels read, each made once.
//!
//! In: parameters as the model's file holds them. Out: numbered weights. Must not: keep a layout twice, or refer to the file's copy, so
//! that whoever loads can let go of it.

use std::collections::HashMap;
use std::hash::Hash;

use ergometer_kernels::{Ctx, PackedLinear, PackedTokens};

use crate::graph::{Graph, ParamId, Rope};

/// What the steps of a plan refer to by number.
#[derive(Default)]
pub(super) struct Weights {
    /// `[out, in]`, applied along the features.
    pub linear: Vec<PackedLinear>,
    /// `[out, in]`, applied along the tokens.
    pub tokens: Vec<PackedTokens>,
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
        plain + linear + self.tokens.iter().map(PackedTokens::bytes).sum::<usize>()
    }
}

/// Makes [`Weights`] on demand: asking again gives the number of the first time.
pub(super) struct Packer<'a> {
    graph: &'a Graph,
    params: &'a [Vec<f32>],
    ctx: &'a Ctx,
    weights: Weights,
    linear: HashMap<ParamId, usize>,
    experts: HashMap<ParamId, usize>,
    tokens: HashMap<ParamId, usize>,
    plain: HashMap<ParamId, usize>,
    ropes: HashMap<(u32, usize, usize), usize>,
}

impl<'a> Packer<'a> {
    /// `params[i]` holds the elements of `graph.params[i]`.
    pub fn new(graph: &'a Graph, params: &'a [Vec<f32>], ctx: &'a Ctx) -> Self {
        let (linear, experts, tokens, plain, ropes) = Default::default();
        Self { graph, params, ctx, weights: Weights::default(), linear, experts, tokens, plain, ropes }
    }

    /// All weights that were asked for.
    pub fn finish(self) -> Weights {
        self.weights
    }

    /// A matrix for the features' side.
    pub fn linear(&mut self, p: ParamId) -> usize {
        let (n, k) = self.matrix(p);
        once(&mut self.linear, p, &mut self.weights.linear, || PackedLinear::pack(self.ctx, &self.params[p.0], n, k))
    }

    /// The matrices of a stack `[count, out, in]`, one after another: the number of the first.
    pub fn experts(&mut self, p: ParamId) -> usize {
        let shape = &self.graph.params[p.0].shape;
        let (count, n, k) = (shape[0], shape[1], shape[2]);
        if let Some(&first) = self.experts.get(&p) {
            return first;
        }
        let first = self.weights.linear.len();
        for w in self.params[p.0].chunks_exact(n * k).take(count) {
            self.weights.linear.push(PackedLinear::pack(self.ctx, w, n, k));
        }
        self.experts.insert(p, first);
        first
    }

    /// A matrix for the tokens' side.
    pub fn tokens(&mut self, p: ParamId) -> usize {
        let (n, t) = self.matrix(p);
        once(&mut self.tokens, p, &mut self.weights.tokens, || PackedTokens::pack(&self.params[p.0], n, t))
    }

    /// A gain, bias or table.
    pub fn plain(&mut self, p: ParamId) -> usize {
        once(&mut self.plain, p, &mut self.weights.plain, || self.params[p.0].clone())
    }

    /// The tables of positions `0..tokens`.
    pub fn rope(&mut self, rope: Rope, tokens: usize, head_dim: usize) -> usize {
        let key = (rope.base.to_bits(), tokens, head_dim);
        once(&mut self.ropes, key, &mut self.weights.ropes, || rope_tables(f64::from(rope.base), tokens, head_dim))
    }

    /// Inner width of the experts of a stack `[experts, n, inner]`.
    pub fn inner(&self, down: ParamId) -> usize {
        self.graph.params[down.0].shape[2]
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
