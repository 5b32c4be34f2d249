//! What happens to queries and keys between their product and attention: norms head by head, turning by position.
//!
//! In: joined rows of queries, keys and values. Out: queries and keys as they are compared, in the same rows. Must not: know
//! what a cache holds.

use ergometer_kernels::Context;
use ergometer_language::DecoderConfig;

use super::layers::Gains;
use crate::graph::Rope;

/// How queries and keys of some layers turn, with the turns of the rows of a call.
pub(super) struct Rotation {
    rope: Rope,
    /// Radians a position of each pair.
    frequencies: Vec<f64>,
    /// The features of each pair.
    pairs: Vec<(usize, usize)>,
    /// Cosine and sine of each pair, row by row.
    turns: Vec<(f32, f32)>,
}

impl Rotation {
    /// Of heads of so many features.
    pub fn new(rope: &Rope, head_dim: usize) -> Self {
        let frequencies = rope.frequencies(head_dim);
        let pairs = (0..frequencies.len()).map(|i| rope.pair(i, frequencies.len())).collect();
        Self { rope: rope.clone(), frequencies, pairs, turns: Vec::new() }
    }

    /// Whether it turns as `rope` does.
    pub fn is(&self, rope: &Rope) -> bool {
        self.rope == *rope
    }

    /// Makes the turns of rows at these positions. Angles are computed in f64: those of far positions lose their digits else.
    pub fn at(&mut self, positions: &[usize]) {
        let magnitude = f64::from(self.rope.magnitude);
        let turn = |angle: f64| ((angle.cos() * magnitude) as f32, (angle.sin() * magnitude) as f32);
        self.turns.clear();
        for position in positions {
            self.turns.extend(self.frequencies.iter().map(|f| turn(*position as f64 * f)));
        }
    }

    fn turn(&self, head: &mut [f32], row: usize) {
        let turns = &self.turns[row * self.pairs.len()..][..self.pairs.len()];
        for (&(a, b), &(cos, sin)) in self.pairs.iter().zip(turns) {
            let (x, y) = (head[a], head[b]);
            head[a] = x * cos - y * sin;
            head[b] = y * cos + x * sin;
        }
    }
}

/// Norms and turns the queries and keys of `joined[rows, (heads + 2·kv)·d]` in place, and copies the queries to `queries[rows, heads·d]`.
pub(super) fn prepare(
    ctx: &Context,
    config: &DecoderConfig,
    rotation: Option<&Rotation>,
    gains: Option<&Gains>,
    joined: &mut [f32],
    queries: &mut [f32],
) {
    let of = &config.attention;
    let (heads, kv, d) = (of.heads, of.key_value_heads, of.head_width);
    let wide = (heads + 2 * kv) * d;
    let one = |i: usize, row: &mut [f32]| {
        for (h, head) in row.chunks_exact_mut(d).take(heads + kv).enumerate() {
            if let Some(gains) = gains {
                norm(head, if h < heads { &gains.q } else { &gains.k }, gains.eps);
            }
            if let Some(rotation) = rotation {
                rotation.turn(head, i);
            }
        }
    };
    // a row alone is less work than another thread takes to begin
    match joined.len() / wide {
        1 => one(0, joined),
        _ => ctx.pool().chunks(joined, wide, one),
    }
    for (row, queries) in joined.chunks_exact(wide).zip(queries.chunks_exact_mut(heads * d)) {
        queries.copy_from_slice(&row[..heads * d]);
    }
}

fn norm(head: &mut [f32], gain: &[f32], eps: f32) {
    let mean = head.iter().map(|x| x * x).sum::<f32>() / head.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    head.iter_mut().zip(gain).for_each(|(x, g)| *x *= scale * g);
}
