//! The reference interpreter: plain loops in f64, slow and obviously right. It is the judge in every parity check.
//!
//! In: a [`Graph`], its parameters as f32, values as f64. Out: values as f64. Must not: be optimised beyond what makes it bearable
//! (several partial sums in a dot product), share code with a backend, or be used where speed counts.

use super::{Activation, Attention, Axis, Graph, Kind, Op, ParamId, Region, ValueType};

/// Rows of one value: `[batch, tokens, features]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensor {
    /// Row-major elements; indices are stored as whole numbers.
    pub data: Vec<f64>,
    /// Second axis.
    pub tokens: usize,
    /// Third axis.
    pub features: usize,
}

impl Tensor {
    /// Elements of one batch row.
    pub fn row_len(&self) -> usize {
        self.tokens * self.features
    }
}

/// Runs regions of one graph.
pub struct Interpreter<'a> {
    graph: &'a Graph,
    params: &'a [Vec<f32>],
}

impl<'a> Interpreter<'a> {
    /// `params[i]` holds the elements of `graph.params[i]`.
    pub fn new(graph: &'a Graph, params: &'a [Vec<f32>]) -> Self {
        assert_eq!(graph.params.len(), params.len(), "one tensor per parameter");
        Self { graph, params }
    }

    /// Runs a region on `batch` rows. `args` fit the region's argument types.
    pub fn run(&self, region: &Region, args: Vec<Tensor>, batch: usize) -> Vec<Tensor> {
        let mut values: Vec<Tensor> = args;
        for node in &region.nodes {
            let inputs: Vec<&Tensor> = node.inputs.iter().map(|v| &values[v.0]).collect();
            let results = match &node.op {
                Op::Repeat { times, carried, body, .. } => {
                    let mut args: Vec<Tensor> = inputs.into_iter().cloned().collect();
                    for _ in 0..*times {
                        let results = self.run(body, args.clone(), batch);
                        args[..*carried].clone_from_slice(&results);
                    }
                    args.truncate(*carried);
                    args
                }
                op => vec![self.apply(op, &inputs, batch, region.ty(node.first))],
            };
            values.extend(results);
        }
        region.results.iter().map(|r| values[r.0].clone()).collect()
    }

    fn weight(&self, p: ParamId) -> Vec<f64> {
        self.params[p.0].iter().map(|&x| f64::from(x)).collect()
    }

    fn vector(&self, p: Option<ParamId>) -> Option<Vec<f64>> {
        p.map(|p| self.weight(p))
    }

    fn apply(&self, op: &Op, inputs: &[&Tensor], batch: usize, ty: ValueType) -> Tensor {
        let x = inputs[0];
        let out = |data: Vec<f64>| {
            let tokens = data.len() / batch.max(1) / ty.features;
            Tensor { data, tokens, features: ty.features }
        };
        let map = |f: &dyn Fn(f64) -> f64| out(x.data.iter().map(|&v| f(v)).collect());
        match op {
            Op::Embed { table } | Op::EmbedPrefix { table, .. } => {
                let width = self.graph.params[table.0].shape[1];
                let table = &self.params[table.0];
                // the prefix pads its one row with zeros up to positions x features
                let padded = if matches!(op, Op::Embed { .. }) { width } else { ty.elements() };
                let mut data = Vec::with_capacity(x.data.len() * padded);
                for &index in &x.data {
                    let row = index as usize * width;
                    data.extend(table[row..row + width].iter().map(|&v| f64::from(v)));
                    data.extend(std::iter::repeat_n(0.0, padded - width));
                }
                out(data)
            }
            Op::AddPositions { table } => {
                let table = self.weight(*table);
                out(x.data.iter().enumerate().map(|(i, v)| v + table[i % table.len()]).collect())
            }
            Op::Concat => {
                let mut data = Vec::new();
                for b in 0..batch {
                    for t in inputs {
                        data.extend_from_slice(&t.data[b * t.row_len()..(b + 1) * t.row_len()]);
                    }
                }
                out(data)
            }
            Op::Slice { start, len } => {
                let mut data = Vec::new();
                for row in x.data.chunks_exact(x.row_len()) {
                    data.extend_from_slice(&row[start * x.features..(start + len) * x.features]);
                }
                out(data)
            }
            Op::Add => out(x.data.iter().zip(&inputs[1].data).map(|(a, b)| a + b).collect()),
            Op::Mul => out(x.data.iter().zip(&inputs[1].data).map(|(a, b)| a * b).collect()),
            Op::Scale(factor) => map(&|v| v * f64::from(*factor)),
            Op::Activate(act) => map(&|v| activate(*act, v)),
            Op::Linear { weight, bias } => {
                out(linear(&x.data, &self.weight(*weight), self.vector(*bias).as_deref(), x.features))
            }
            Op::RmsNorm { gain, eps, over } => {
                let gain = self.vector(*gain);
                let norm = |v: &[f64]| {
                    let scale = 1.0 / (v.iter().map(|a| a * a).sum::<f64>() / v.len() as f64 + f64::from(*eps)).sqrt();
                    v.iter()
                        .enumerate()
                        .map(|(i, a)| a * scale * gain.as_ref().map_or(1.0, |g| g[i]))
                        .collect::<Vec<f64>>()
                };
                out(along(x, *over, &norm))
            }
            Op::LayerNorm { gain, bias, eps } => {
                let (gain, bias) = (self.weight(*gain), self.vector(*bias));
                let norm = |v: &[f64]| {
                    let n = v.len() as f64;
                    let mean = v.iter().sum::<f64>() / n;
                    let scale = 1.0 / (v.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / n + f64::from(*eps)).sqrt();
                    let bias = |i: usize| bias.as_ref().map_or(0.0, |b| b[i]);
                    v.iter().enumerate().map(|(i, a)| (a - mean) * scale * gain[i] + bias(i)).collect::<Vec<f64>>()
                };
                out(along(x, Axis::Features, &norm))
            }
            Op::GatedMlp { gate_up, down, act, over } => {
                let (gate_up, down) = (self.weight(*gate_up), self.weight(*down));
                out(along(x, *over, &|v| gated_mlp(v, &gate_up, &down, *act)))
            }
            Op::Mlp { up, up_bias, down, down_bias, act } => {
                let mut inner = linear(&x.data, &self.weight(*up), self.vector(*up_bias).as_deref(), x.features);
                inner.iter_mut().for_each(|v| *v = activate(*act, *v));
                let width = self.graph.params[up.0].shape[0];
                out(linear(&inner, &self.weight(*down), self.vector(*down_bias).as_deref(), width))
            }
            Op::MoeMlp { router, gate_up, down, act, top_k } => {
                let (router, gate_up, down) = (self.weight(*router), self.weight(*gate_up), self.weight(*down));
                let experts = router.len() / x.features;
                out(along(x, Axis::Features, &|v| {
                    let scores = linear(v, &router, None, v.len());
                    let mut order: Vec<usize> = (0..experts).collect();
                    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
                    order.truncate(*top_k);
                    let weights = softmax(&order.iter().map(|&e| scores[e]).collect::<Vec<f64>>());
                    let mut sum = vec![0.0; v.len()];
                    for (&e, w) in order.iter().zip(weights) {
                        let (g, d) = (gate_up.len() / experts, down.len() / experts);
                        let y = gated_mlp(v, &gate_up[e * g..(e + 1) * g], &down[e * d..(e + 1) * d], *act);
                        sum.iter_mut().zip(y).for_each(|(s, y)| *s += w * y);
                    }
                    sum
                }))
            }
            Op::Attend(a) => out(attend(a, x)),
            Op::Repeat { .. } => unreachable!("handled where regions run"),
        }
    }
}

/// Applies `f` to every vector along an axis.
fn along(x: &Tensor, axis: Axis, f: &dyn Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    match axis {
        Axis::Features => x.data.chunks_exact(x.features).flat_map(f).collect(),
        Axis::Tokens => {
            let mut data = vec![0.0; x.data.len()];
            for (rows_in, rows_out) in x.data.chunks_exact(x.row_len()).zip(data.chunks_exact_mut(x.row_len())) {
                for c in 0..x.features {
                    let column: Vec<f64> = rows_in.iter().skip(c).step_by(x.features).copied().collect();
                    for (t, v) in f(&column).into_iter().enumerate() {
                        rows_out[t * x.features + c] = v;
                    }
                }
            }
            data
        }
    }
}

/// Sum of products in eight partial sums: one sum would leave the processor waiting on itself.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut partial = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for i in 0..8 {
            partial[i] += x[i] * y[i];
        }
    }
    partial.iter().sum::<f64>() + rest
}

/// x·Wᵀ + b for rows of `width` features.
fn linear(x: &[f64], weight: &[f64], bias: Option<&[f64]>, width: usize) -> Vec<f64> {
    x.chunks_exact(width)
        .flat_map(|row| {
            weight.chunks_exact(width).enumerate().map(move |(j, w)| dot(row, w) + bias.map_or(0.0, |b| b[j]))
        })
        .collect()
}

fn gated_mlp(v: &[f64], gate_up: &[f64], down: &[f64], act: Activation) -> Vec<f64> {
    let both = linear(v, gate_up, None, v.len());
    let (gate, up) = both.split_at(both.len() / 2);
    let inner: Vec<f64> = gate.iter().zip(up).map(|(g, u)| activate(act, *g) * u).collect();
    linear(&inner, down, None, inner.len())
}

fn activate(act: Activation, v: f64) -> f64 {
    match act {
        Activation::Silu => v / (1.0 + (-v).exp()),
        Activation::Gelu => 0.5 * v * (1.0 + erf(v / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3))).tanh())
        }
        Activation::Relu => v.max(0.0),
    }
}

/// Error function: its Maclaurin series near zero, the continued fraction of its complement elsewhere (DLMF 7.6.1, 7.9.3); about 1e-15.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..80 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut fraction = 0.0;
        for k in (1..=60).rev() {
            fraction = f64::from(k) / 2.0 / (a + fraction);
        }
        1.0 - (-a * a).exp() / (std::f64::consts::PI.sqrt() * (a + fraction))
    };
    value.copysign(x)
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|v| v / sum).collect()
}

/// Attention without a cache; positions count from 0.
fn attend(a: &Attention, x: &Tensor) -> Vec<f64> {
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
    data
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

/// Elements of a value that the interpreter would hold for `batch` rows, to refuse what cannot fit before allocating it.
pub fn value_elements(ty: ValueType, batch: usize) -> usize {
    if ty.kind == Kind::Index { batch } else { batch.saturating_mul(ty.elements()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_agrees_with_tabulated_values() {
        for (x, want) in [
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.4, 0.999_311_486_103_355),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            assert!((erf(x) - want).abs() < 1e-13, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
    }

    #[test]
    fn rotation_keeps_length_and_depends_on_distance_only() {
        let (q, k) = ([0.3, -1.0, 0.7, 2.0], [1.1, 0.2, -0.4, 0.9]);
        let near = dot(&rotate(&q, 5, 1e4), &rotate(&k, 3, 1e4));
        let far = dot(&rotate(&q, 12, 1e4), &rotate(&k, 10, 1e4));
        assert!((near - far).abs() < 1e-12);
        assert!((dot(&rotate(&q, 7, 1e4), &rotate(&q, 7, 1e4)) - dot(&q, &q)).abs() < 1e-12);
    }

    #[test]
    fn norms_along_tokens_and_along_features_differ_only_by_a_transpose() {
        let x = Tensor { data: (0..12).map(f64::from).collect(), tokens: 3, features: 4 };
        let doubled_sum = |v: &[f64]| v.iter().map(|a| a + v.iter().sum::<f64>()).collect::<Vec<f64>>();
        let tokens = along(&x, Axis::Tokens, &doubled_sum);
        assert_eq!(tokens[0], 0.0 + (0.0 + 4.0 + 8.0));
        assert_eq!(along(&x, Axis::Features, &doubled_sum)[0], 0.0 + 6.0);
    }
}
