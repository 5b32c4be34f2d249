//! Attention.

use super::super::interpreter::Interpreter;
use super::super::product::{dot, softmax};
use super::super::tensor::Tensor;
use super::super::{ParamId, ValueType};
use super::{Costing, Operator, Shapes, one, with_features};

/// Rotary position embedding (Su et al. 2021): pairs of features of a head turn by an angle that grows with the position, from 0 (plus
/// the cache's length).
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies, usually 10,000: pair i turns by `base^(-2i/rotated)` a position.
    pub base: f32,
    /// Leading features of a head that turn; the others stay. Even, at most the head's.
    pub rotated: Option<usize>,
    /// Radians a position of each pair, where they do not follow from the base (scaled rope of long contexts); else empty.
    pub frequencies: Vec<f64>,
    /// Factor on what has turned (YaRN, long rope); 1 else.
    pub magnitude: f32,
    /// The pairs are neighbours (GPT-J), instead of i and i + half (GPT-NeoX).
    pub interleaved: bool,
}

impl Rope {
    /// The usual one: all features, half-split pairs, unscaled.
    pub fn plain(base: f32) -> Self {
        Self { base, rotated: None, frequencies: Vec::new(), magnitude: 1.0, interleaved: false }
    }

    /// Whether it is the usual one.
    pub fn is_plain(&self) -> bool {
        *self == Self::plain(self.base)
    }

    /// Errors: it does not fit heads of so many features.
    fn check(&self, head_dim: usize) -> Result<(), String> {
        let rotated = self.rotated.unwrap_or(head_dim);
        if rotated == 0 || rotated > head_dim || !rotated.is_multiple_of(2) {
            return Err(format!(
                "rotary embedding needs an even head size, and turns {rotated} of {head_dim} features"
            ));
        }
        if !self.frequencies.is_empty() && self.frequencies.len() != rotated / 2 {
            return Err(format!("{} frequencies for {} pairs of features", self.frequencies.len(), rotated / 2));
        }
        Ok(())
    }

    /// Radians a position of each pair, for heads of so many features.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let rotated = self.rotated.unwrap_or(head_dim);
        let plain = |i: usize| f64::from(self.base).powf(-2.0 * i as f64 / rotated as f64);
        if self.frequencies.is_empty() { (0..rotated / 2).map(plain).collect() } else { self.frequencies.clone() }
    }

    /// The features of a pair.
    pub fn pair(&self, i: usize, pairs: usize) -> (usize, usize) {
        if self.interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) }
    }

    /// Turns a head to its position.
    fn turn(&self, v: &[f64], position: usize) -> Vec<f64> {
        let (frequencies, magnitude) = (self.frequencies(v.len()), f64::from(self.magnitude));
        let mut out = v.to_vec();
        for (i, frequency) in frequencies.iter().enumerate() {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let (a, b) = self.pair(i, frequencies.len());
            out[a] = magnitude * (v[a] * cos - v[b] * sin);
            out[b] = magnitude * (v[b] * cos + v[a] * sin);
        }
        out
    }
}

/// Norms of each head of the queries and of the keys before they turn, by the root of the mean square.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadNorms {
    /// `[head_dim]`: gain of queries.
    pub q: ParamId,
    /// `[head_dim]`: gain of keys.
    pub k: ParamId,
    /// Added to the mean square.
    pub eps: f32,
}

/// Multi-head attention over one value that holds queries, keys and values side by side: `heads + 2·kv_heads` heads of `head_dim`
/// features, in the order q heads, k heads, v heads. `[T, (heads + 2·kv_heads)·head_dim]` to `[T, heads·head_dim]`.
///
/// With a cache it takes that too, `[past, 2·kv_heads·head_dim]`: keys of all heads as they are compared (normed and turned), then values.
/// It gives it back with the call's tokens at its end, and looks at all of it. A cache is a state of at most so many tokens as its type has.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; `heads` is a multiple.
    pub kv_heads: usize,
    /// Features per head.
    pub head_dim: usize,
    /// Factor on q·k before the softmax.
    pub scale: f32,
    /// A token sees itself and earlier ones only.
    pub causal: bool,
    /// With `Some(w)`: a token sees keys less than `w` positions away (backwards only, if causal).
    pub window: Option<usize>,
    /// Rotation of queries and keys.
    pub rope: Option<Rope>,
    /// Norms of queries and keys.
    pub head_norms: Option<HeadNorms>,
    /// With `Some(c)` a scaled score s becomes c·tanh(s/c).
    pub soft_cap: Option<f32>,
    /// It has a cache.
    pub cache: bool,
}

impl Attention {
    /// What of it goes beyond attention over the call's own tokens with the usual rope, in words: for engines that do not compute it.
    pub fn beyond_plain(&self) -> Option<&'static str> {
        if self.cache {
            Some("attention with a cache")
        } else if self.head_norms.is_some() {
            Some("norms of queries and keys")
        } else if self.soft_cap.is_some() {
            Some("attention with a soft cap")
        } else if self.rope.as_ref().is_some_and(|r| !r.is_plain()) {
            Some("rotary embedding in part, scaled or of neighbours")
        } else {
            None
        }
    }

    /// Elements of a token in the cache.
    pub fn cache_features(&self) -> usize {
        2 * self.kv_heads * self.head_dim
    }

    /// A head as it is compared: normed and turned to its position. Values stay.
    fn compared(&self, run: &Interpreter, v: &[f64], head: usize, position: usize) -> Vec<f64> {
        if head >= self.heads + self.kv_heads {
            return v.to_vec();
        }
        let normed = self.head_norms.map_or_else(
            || v.to_vec(),
            |norms| {
                let gain = run.param(if head < self.heads { norms.q } else { norms.k });
                let mean = dot(v, v) / v.len() as f64;
                let scale = 1.0 / (mean + f64::from(norms.eps)).sqrt();
                v.iter().zip(gain).map(|(x, g)| x * scale * f64::from(*g)).collect()
            },
        );
        self.rope.as_ref().map_or_else(|| normed.clone(), |rope| rope.turn(&normed, position))
    }
}

impl Operator for Attention {
    fn name(&self) -> &'static str {
        "attend"
    }

    fn arity(&self) -> Option<usize> {
        Some(1 + usize::from(self.cache))
    }

    fn results(&self, shapes: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        let Self { heads, kv_heads, head_dim, .. } = *self;
        if heads == 0 || kv_heads == 0 || head_dim == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(format!("{heads} heads over {kv_heads} key heads of {head_dim} features"));
        }
        if let Some(rope) = &self.rope {
            rope.check(head_dim)?;
        }
        if let Some(norms) = self.head_norms {
            shapes.expect(norms.q, &[head_dim])?;
            shapes.expect(norms.k, &[head_dim])?;
        }
        if x[0].features != (heads + 2 * kv_heads) * head_dim {
            return Err(format!("{} features do not hold q, k and v", x[0].features));
        }
        let mut results = vec![with_features(x[0], heads * head_dim)];
        if let Some(cache) = x.get(1) {
            if cache.features != self.cache_features() {
                return Err(format!("a cache of {} features does not hold k and v", cache.features));
            }
            results.push(*cache);
        }
        Ok(results)
    }

    fn params(&self) -> Vec<ParamId> {
        self.head_norms.map_or_else(Vec::new, |norms| vec![norms.q, norms.k])
    }

    fn flops(&self, at: &Costing) -> f64 {
        let pairs = attended_pairs(at.tokens, at.past, self.causal, self.window);
        2.0 * 2.0 * pairs * (self.heads * self.head_dim) as f64
    }

    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        let (a, d) = (self, self.head_dim);
        let (x, cache) = (x[0], x.get(1));
        let (past, width) = (cache.map_or(0, |c| c.tokens), x.features);
        let (mut data, mut cached) = (Vec::with_capacity(x.data.len()), Vec::new());
        for (i, row) in x.data.chunks_exact(x.row_len().max(1)).enumerate() {
            let head = |t: usize, h: usize| a.compared(run, &row[t * width + h * d..][..d], h, past + t);
            // keys and values of all tokens so far, `[past + tokens, 2·kv_heads, head_dim]`
            let mut seen_before = cache.map_or_else(Vec::new, |c| c.data[i * c.row_len()..][..c.row_len()].to_vec());
            for t in 0..x.tokens {
                (a.heads..a.heads + 2 * a.kv_heads).for_each(|h| seen_before.extend(head(t, h)));
            }
            let known = &seen_before;
            let of = |k: usize, h: usize| &known[(k * 2 * a.kv_heads + h) * d..][..d];
            for t in 0..x.tokens {
                let position = past + t;
                for h in 0..a.heads {
                    let (query, group) = (head(t, h), h / (a.heads / a.kv_heads));
                    let seen =
                        |k: usize| (!a.causal || k <= position) && a.window.is_none_or(|w| position.abs_diff(k) < w);
                    let score = |k: usize| match seen(k) {
                        false => f64::NEG_INFINITY,
                        true => {
                            let score = f64::from(a.scale) * dot(&query, of(k, group));
                            a.soft_cap.map_or(score, |c| f64::from(c) * (score / f64::from(c)).tanh())
                        }
                    };
                    let weights = softmax(&(0..past + x.tokens).map(score).collect::<Vec<f64>>());
                    for i in 0..d {
                        let value = |k: usize| of(k, a.kv_heads + group)[i];
                        data.push(weights.iter().enumerate().map(|(k, w)| w * value(k)).sum());
                    }
                }
            }
            cached.extend(seen_before);
        }
        let mut all = one(data, batch, results);
        if cache.is_some() {
            all.push(Tensor { data: cached, tokens: past + x.tokens, features: a.cache_features() });
        }
        all
    }
}

/// Query-key pairs that attention looks at, for `tokens` new tokens after `past` cached ones.
fn attended_pairs(tokens: f64, past: f64, causal: bool, window: Option<usize>) -> f64 {
    let mut pairs = 0.0;
    let n = tokens as usize;
    for q in 0..n {
        let position = past + q as f64;
        let (mut back, mut ahead) = (position + 1.0, if causal { 0.0 } else { tokens - 1.0 - q as f64 });
        if let Some(window) = window {
            back = back.min(window as f64);
            ahead = ahead.min(window as f64 - 1.0);
        }
        pairs += back + ahead;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_keeps_length_and_depends_on_distance_only() {
        let (q, k) = ([0.3, -1.0, 0.7, 2.0], [1.1, 0.2, -0.4, 0.9]);
        for rope in [
            Rope::plain(1e4),
            Rope { interleaved: true, ..Rope::plain(1e4) },
            Rope { rotated: Some(2), frequencies: vec![0.3], ..Rope::plain(1e4) },
        ] {
            let near = dot(&rope.turn(&q, 5), &rope.turn(&k, 3));
            let far = dot(&rope.turn(&q, 12), &rope.turn(&k, 10));
            assert!((near - far).abs() < 1e-12, "{rope:?}");
            assert!((dot(&rope.turn(&q, 7), &rope.turn(&q, 7)) - dot(&q, &q)).abs() < 1e-12, "{rope:?}");
        }
    }

    #[test]
    fn the_kinds_of_rope_turn_what_they_say() {
        let v = [1.0, 2.0, 3.0, 4.0];
        let (sin, cos) = 1f64.sin_cos();
        // pair 0 turns by 1 a position
        let half = Rope::plain(1e4).turn(&v, 1);
        assert!((half[0] - (cos - 3.0 * sin)).abs() < 1e-15 && (half[2] - (3.0 * cos + sin)).abs() < 1e-15);
        let beside = Rope { interleaved: true, ..Rope::plain(1e4) }.turn(&v, 1);
        assert!((beside[0] - (cos - 2.0 * sin)).abs() < 1e-15 && (beside[1] - (2.0 * cos + sin)).abs() < 1e-15);
        let part = Rope { rotated: Some(2), magnitude: 2.0, frequencies: vec![0.5], ..Rope::plain(1e4) }.turn(&v, 2);
        assert!((part[0] - 2.0 * (cos - 2.0 * sin)).abs() < 1e-15 && part[2..] == v[2..], "{part:?}");
    }
}
