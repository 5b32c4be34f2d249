//! Attention.

use super::super::ValueType;
use super::super::interpreter::Interpreter;
use super::super::product::{dot, softmax};
use super::super::tensor::Tensor;
use super::{Costing, Operator, Shapes, one, with_features};

/// Rotary position embedding: half-split rotation (Su et al. 2021; the GPT-NeoX layout), positions from 0 (plus the cache's length).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies, usually 10,000.
    pub base: f32,
}

/// Multi-head attention over one value that holds queries, keys and values side by side: `heads + 2·kv_heads` heads of `head_dim`
/// features, in the order q heads, k heads, v heads. `[T, (heads + 2·kv_heads)·head_dim]` to `[T, heads·head_dim]`.
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
    /// Index of the state that keeps keys and values between steps (language models).
    pub cache: Option<usize>,
}

impl Operator for Attention {
    fn name(&self) -> &'static str {
        "attend"
    }

    fn results(&self, _: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        let Self { heads, kv_heads, head_dim, .. } = *self;
        if heads == 0 || kv_heads == 0 || head_dim == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(format!("{heads} heads over {kv_heads} key heads of {head_dim} features"));
        }
        if self.rope.is_some() && !head_dim.is_multiple_of(2) {
            return Err(format!("rotary embedding needs an even head size, not {head_dim}"));
        }
        if x[0].features != (heads + 2 * kv_heads) * head_dim {
            return Err(format!("{} features do not hold q, k and v", x[0].features));
        }
        Ok(vec![with_features(x[0], heads * head_dim)])
    }

    fn flops(&self, at: &Costing) -> f64 {
        let pairs = attended_pairs(at.tokens, at.past, self.causal, self.window);
        2.0 * 2.0 * pairs * (self.heads * self.head_dim) as f64
    }

    /// Without a cache; positions count from 0.
    fn compute(&self, _: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        let (a, x) = (self, x[0]);
        let (d, width) = (a.head_dim, x.features);
        let mut data = Vec::with_capacity(x.data.len());
        for row in x.data.chunks_exact(x.row_len()) {
            let head = |t: usize, h: usize| -> Vec<f64> {
                let v = &row[t * width + h * d..t * width + (h + 1) * d];
                // queries and keys turn with their position, values do not
                match &a.rope {
                    Some(rope) if h < a.heads + a.kv_heads => rotate(v, t, f64::from(rope.base)),
                    _ => v.to_vec(),
                }
            };
            let keys_values: Vec<Vec<Vec<f64>>> =
                (a.heads..a.heads + 2 * a.kv_heads).map(|h| (0..x.tokens).map(|t| head(t, h)).collect()).collect();
            for t in 0..x.tokens {
                for h in 0..a.heads {
                    let query = head(t, h);
                    let group = h / (a.heads / a.kv_heads);
                    let (keys, values) = (&keys_values[group], &keys_values[a.kv_heads + group]);
                    let seen = |k: usize| (!a.causal || k <= t) && a.window.is_none_or(|w| t.abs_diff(k) < w);
                    let score =
                        |k: usize| if seen(k) { f64::from(a.scale) * dot(&query, &keys[k]) } else { f64::NEG_INFINITY };
                    let weights = softmax(&(0..x.tokens).map(score).collect::<Vec<f64>>());
                    for i in 0..d {
                        data.push(weights.iter().zip(values).map(|(w, v)| w * v[i]).sum());
                    }
                }
            }
        }
        one(data, batch, results)
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

/// Half-split rotation: feature i is paired with feature i + d/2 and turned by `position · base^(−2i/d)`.
fn rotate(v: &[f64], position: usize, base: f64) -> Vec<f64> {
    let half = v.len() / 2;
    let mut out = vec![0.0; v.len()];
    for i in 0..half {
        let (sin, cos) = (position as f64 * base.powf(-2.0 * i as f64 / v.len() as f64)).sin_cos();
        out[i] = v[i] * cos - v[i + half] * sin;
        out[i + half] = v[i + half] * cos + v[i] * sin;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_keeps_length_and_depends_on_distance_only() {
        let (q, k) = ([0.3, -1.0, 0.7, 2.0], [1.1, 0.2, -0.4, 0.9]);
        let near = dot(&rotate(&q, 5, 1e4), &rotate(&k, 3, 1e4));
        let far = dot(&rotate(&q, 12, 1e4), &rotate(&k, 10, 1e4));
        assert!((near - far).abs() < 1e-12);
        assert!((dot(&rotate(&q, 7, 1e4), &rotate(&q, 7, 1e4)) - dot(&q, &q)).abs() < 1e-12);
    }
}
