//! Attention of new tokens over a sequence's cache.
//!
//! In: queries, keys and values of the new tokens, the cache. Out: what each token sees, and the cache with them at its end. Must not: know other
//! sequences.

use ergometer_kernels::Context;
use ergometer_language::DecoderConfig;

use super::layers::Gains;
use crate::graph::Rope;

/// Keys and values of one layer of one sequence: `[tokens, kv_heads, head_dim]` each.
#[derive(Clone, Default)]
pub(super) struct LayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Elements of a token in each.
    width: usize,
}

impl LayerCache {
    /// An empty one.
    pub fn new(width: usize) -> Self {
        Self { keys: Vec::new(), values: Vec::new(), width }
    }

    /// Tokens in it.
    pub fn tokens(&self) -> usize {
        self.keys.len() / self.width.max(1)
    }

    /// Forgets them; memory stays.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * (self.keys.capacity() + self.values.capacity())
    }
}

/// How queries and keys of a layer turn.
pub(super) struct Rotation {
    /// Radians a position of each pair.
    frequencies: Vec<f64>,
    /// The features of each pair.
    pairs: Vec<(usize, usize)>,
    magnitude: f64,
}

impl Rotation {
    /// Of heads of so many features.
    pub fn new(rope: &Rope, head_dim: usize) -> Self {
        let frequencies = rope.frequencies(head_dim);
        let pairs = (0..frequencies.len()).map(|i| rope.pair(i, frequencies.len())).collect();
        Self { frequencies, pairs, magnitude: f64::from(rope.magnitude) }
    }

    /// Cosine and sine of each pair at a position. Angles are computed in f64: those of far positions lose their digits else.
    fn at(&self, position: usize, turns: &mut Vec<(f32, f32)>) {
        turns.clear();
        turns.extend(self.frequencies.iter().map(|f| {
            let (sin, cos) = (position as f64 * f).sin_cos();
            ((cos * self.magnitude) as f32, (sin * self.magnitude) as f32)
        }));
    }

    fn turn(&self, head: &mut [f32], turns: &[(f32, f32)]) {
        for (&(a, b), &(cos, sin)) in self.pairs.iter().zip(turns) {
            let (x, y) = (head[a], head[b]);
            head[a] = x * cos - y * sin;
            head[b] = y * cos + x * sin;
        }
    }
}

/// `out[n, heads·d]`: attention of `n` new tokens in a layer, `joined[n, (heads + 2·kv)·d]` their queries, keys and values, which are
/// normed and turned in place.
pub(super) fn attend(
    ctx: &Context,
    (config, layer): (&DecoderConfig, usize),
    rotation: Option<&Rotation>,
    gains: Option<&Gains>,
    joined: &mut [f32],
    cache: &mut LayerCache,
    out: &mut [f32],
) {
    let of = &config.attention;
    let (heads, kv, d, past) = (of.heads, of.key_value_heads, of.head_width, cache.tokens());
    let (wide, mut turns) = ((heads + 2 * kv) * d, Vec::new());
    for (row, position) in joined.chunks_exact_mut(wide).zip(past..) {
        if let Some(rotation) = rotation {
            rotation.at(position, &mut turns);
        }
        for (h, head) in row.chunks_exact_mut(d).take(heads + kv).enumerate() {
            if let Some(gains) = gains {
                norm(head, if h < heads { &gains.q } else { &gains.k }, gains.eps);
            }
            if let Some(rotation) = rotation {
                rotation.turn(head, &turns);
            }
        }
        cache.keys.extend_from_slice(&row[heads * d..(heads + kv) * d]);
        cache.values.extend_from_slice(&row[(heads + kv) * d..]);
    }
    let (group, cache, joined, window) = (heads / kv, &*cache, &*joined, config.layers[layer].window);
    // a head of a token is a part: what one part computes does not depend on how many threads there are
    ctx.pool().chunks(out, d, |part, out| {
        let (t, h) = (part / heads, part % heads);
        let (query, at) = (&joined[t * wide + h * d..][..d], h / group * d);
        let position = past + t;
        let first = window.map_or(0, |w| (position + 1).saturating_sub(w));
        let score = |k: usize| {
            let key = &cache.keys[k * cache.width + at..][..d];
            let s = of.scale * query.iter().zip(key).map(|(a, b)| a * b).sum::<f32>();
            of.score_cap.map_or(s, |c| c * (s / c).tanh())
        };
        let mut weights: Vec<f32> = (first..=position).map(score).collect();
        let top = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        weights.iter_mut().for_each(|w| *w = (*w - top).exp());
        let sum: f32 = weights.iter().sum();
        out.fill(0.0);
        for (k, w) in (first..=position).zip(&weights) {
            let value = &cache.values[k * cache.width + at..][..d];
            out.iter_mut().zip(value).for_each(|(o, v)| *o += w * v);
        }
        out.iter_mut().for_each(|o| *o /= sum);
    });
}

fn norm(head: &mut [f32], gain: &[f32], eps: f32) {
    let mean = head.iter().map(|x| x * x).sum::<f32>() / head.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    head.iter_mut().zip(gain).for_each(|(x, g)| *x *= scale * g);
}
