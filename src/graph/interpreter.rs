//! The reference interpreter: plain loops in f64, slow and obviously right. It is the judge in every parity check.
//!
//! In: a [`Graph`], its parameters as f32, values as f64. Out: values as f64. Must not: be optimised beyond what makes it bearable (a few
//! rows and outputs of a matrix product together, rows on several threads), share code with a backend, or be used where speed counts.
//!
//! Every output is one sum in the order of the inputs, whatever is computed beside it and on however many threads.

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
    threads: usize,
}

impl<'a> Interpreter<'a> {
    /// `params[i]` holds the elements of `graph.params[i]`. One thread.
    pub fn new(graph: &'a Graph, params: &'a [Vec<f32>]) -> Self {
        assert_eq!(graph.params.len(), params.len(), "one tensor per parameter");
        Self { graph, params, threads: 1 }
    }

    /// The same, its matrix products on so many threads.
    pub fn on_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
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

    /// x·Wᵀ + b for rows as wide as the weight's last axis.
    fn linear(&self, x: &[f64], weight: ParamId, bias: Option<ParamId>) -> Vec<f64> {
        let width = self.graph.params[weight.0].shape[1];
        product(x, &self.params[weight.0], width, self.vector(bias).as_deref(), self.threads)
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
            Op::Linear { weight, bias } => out(self.linear(&x.data, *weight, *bias)),
            Op::RmsNorm { gain, eps, over } => {
                let gain = self.vector(*gain);
                let norm = |v: &[f64]| {
                    let scale = 1.0 / (v.iter().map(|a| a * a).sum::<f64>() / v.len() as f64 + f64::from(*eps)).sqrt();
                    v.iter()
                        .enumerate()
                        .map(|(i, a)| a * scale * gain.as_ref().map_or(1.0, |g| g[i]))
                        .collect::<Vec<f64>>()
                };
                out(along(x, *over, &|rows, n| rows.chunks_exact(n).flat_map(norm).collect()))
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
                out(x.data.chunks_exact(x.features).flat_map(norm).collect())
            }
            Op::GatedMlp { gate_up, down, act, over } => {
                let (gate_up, down) = (&self.params[gate_up.0], &self.params[down.0]);
                out(along(x, *over, &|rows, n| gated_mlp(rows, n, gate_up, down, *act, self.threads)))
            }
            Op::Mlp { up, up_bias, down, down_bias, act } => {
                let mut inner = self.linear(&x.data, *up, *up_bias);
                inner.iter_mut().for_each(|v| *v = activate(*act, *v));
                out(self.linear(&inner, *down, *down_bias))
            }
            Op::MoeMlp { router, gate_up, down, act, top_k } => {
                let scores = self.linear(&x.data, *router, None);
                let (gate_up, down) = (&self.params[gate_up.0], &self.params[down.0]);
                let experts = self.graph.params[router.0].shape[0];
                let (g, d) = (gate_up.len() / experts, down.len() / experts);
                // by token the weight of each expert, 0 for those that it does not go to
                let weights: Vec<Vec<f64>> = scores.chunks_exact(experts).map(|s| routed(s, *top_k)).collect();
                let mut sum = vec![0.0; x.data.len()];
                for e in 0..experts {
                    let sent: Vec<usize> = (0..weights.len()).filter(|&t| weights[t][e] != 0.0).collect();
                    let rows: Vec<f64> =
                        sent.iter().flat_map(|&t| &x.data[t * x.features..][..x.features]).copied().collect();
                    let (gate_up, down) = (&gate_up[e * g..][..g], &down[e * d..][..d]);
                    let y = gated_mlp(&rows, x.features, gate_up, down, *act, self.threads);
                    for (&t, y) in sent.iter().zip(y.chunks_exact(x.features)) {
                        let sum = &mut sum[t * x.features..][..x.features];
                        sum.iter_mut().zip(y).for_each(|(s, y)| *s += weights[t][e] * y);
                    }
                }
                out(sum)
            }
            Op::Attend(a) => out(attend(a, x)),
            Op::Repeat { .. } => unreachable!("handled where regions run"),
        }
    }
}

/// Applies `f` to the vectors along an axis. It is given all of them, one after the other, and their length.
fn along(x: &Tensor, axis: Axis, f: &dyn Fn(&[f64], usize) -> Vec<f64>) -> Vec<f64> {
    if axis == Axis::Features {
        return f(&x.data, x.features);
    }
    let turned = |data: &[f64], rows: usize, columns: usize| {
        let mut turned = Vec::with_capacity(data.len());
        for matrix in data.chunks_exact(rows * columns) {
            (0..columns).for_each(|c| turned.extend(matrix[c..].iter().step_by(columns)));
        }
        turned
    };
    let columns = turned(&x.data, x.tokens, x.features);
    turned(&f(&columns, x.tokens), x.features, x.tokens)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Rows, and outputs, of a product that are computed together: what is loaded serves several sums, and several sums go on at a time.
const TILE: usize = 4;

/// x·Wᵀ + b for rows of `width` features. `W: [outputs, width]`; the rows are split between threads.
fn product(x: &[f64], w: &[f32], width: usize, bias: Option<&[f64]>, threads: usize) -> Vec<f64> {
    let (rows, outputs) = (x.len() / width, w.len() / width);
    // W in f64, `TILE` outputs side by side: [outputs / TILE, width, TILE]; then the outputs that are left over
    let whole = outputs / TILE * TILE;
    let mut sides = Vec::with_capacity(w.len());
    for four in w[..whole * width].chunks_exact(TILE * width) {
        (0..width).for_each(|k| sides.extend((0..TILE).map(|j| f64::from(four[j * width + k]))));
    }
    sides.extend(w[whole * width..].iter().map(|&v| f64::from(v)));
    let some_rows = |x: &[f64], y: &mut [f64]| {
        let (x4, y4) = (x.chunks_exact(TILE * width), y.chunks_exact_mut(TILE * outputs));
        x4.zip(y4).for_each(|(x, y)| tiles::<TILE>(x, &sides, width, outputs, y));
        let done = x.len() / width / TILE * TILE;
        let (x1, y1) = (x[done * width..].chunks_exact(width), y[done * outputs..].chunks_exact_mut(outputs));
        x1.zip(y1).for_each(|(x, y)| tiles::<1>(x, &sides, width, outputs, y));
    };
    let mut y = vec![0.0; rows * outputs];
    let share = rows.div_ceil(threads).next_multiple_of(TILE);
    if share >= rows {
        some_rows(x, &mut y);
    } else {
        std::thread::scope(|scope| {
            let shares = x.chunks(share * width).zip(y.chunks_mut(share * outputs));
            shares.for_each(|(x, y)| drop(scope.spawn(|| some_rows(x, y))));
        });
    }
    if let Some(bias) = bias {
        y.chunks_exact_mut(outputs).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
    }
    y
}

/// All outputs of `R` rows, `TILE` outputs at a time.
fn tiles<const R: usize>(x: &[f64], sides: &[f64], width: usize, outputs: usize, y: &mut [f64]) {
    let whole = outputs / TILE * TILE;
    for j in (0..whole).step_by(TILE) {
        tile::<R, TILE>(x, &sides[j * width..(j + TILE) * width], width, &mut y[j..], outputs);
    }
    for j in whole..outputs {
        tile::<R, 1>(x, &sides[j * width..(j + 1) * width], width, &mut y[j..], outputs);
    }
}

/// `R` rows times `C` outputs that lie side by side.
fn tile<const R: usize, const C: usize>(x: &[f64], w: &[f64], width: usize, y: &mut [f64], outputs: usize) {
    let mut sums = [[0.0; C]; R];
    for (k, w) in w.chunks_exact(C).enumerate() {
        for r in 0..R {
            for c in 0..C {
                sums[r][c] += x[r * width + k] * w[c];
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        y[r * outputs..r * outputs + C].copy_from_slice(sums);
    }
}

/// The gated MLP of rows of `width` features: `gate_up [2 · inner, width]`, `down [width, inner]`.
fn gated_mlp(rows: &[f64], width: usize, gate_up: &[f32], down: &[f32], act: Activation, threads: usize) -> Vec<f64> {
    let inner = down.len() / width;
    let both = product(rows, gate_up, width, None, threads);
    let gated = |both: &[f64]| -> Vec<f64> {
        let (gate, up) = both.split_at(inner);
        gate.iter().zip(up).map(|(g, u)| activate(act, *g) * u).collect()
    };
    let inner_rows: Vec<f64> = both.chunks_exact(2 * inner).flat_map(gated).collect();
    product(&inner_rows, down, inner, None, threads)
}

/// The weight of every expert for one token: softmax over the `top_k` best scores, of equal ones the first; 0 for the others.
fn routed(scores: &[f64], top_k: usize) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(top_k);
    let chosen = softmax(&order.iter().map(|&e| scores[e]).collect::<Vec<f64>>());
    let mut weights = vec![0.0; scores.len()];
    order.iter().zip(chosen).for_each(|(&e, w)| weights[e] = w);
    weights
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
        let all = |rows: &[f64], n: usize| rows.chunks_exact(n).flat_map(doubled_sum).collect::<Vec<f64>>();
        let tokens = along(&x, Axis::Tokens, &all);
        assert_eq!(tokens[..2], [0.0 + (0.0 + 4.0 + 8.0), 1.0 + (1.0 + 5.0 + 9.0)]);
        assert_eq!(tokens[4], 4.0 + (0.0 + 4.0 + 8.0));
        assert_eq!(along(&x, Axis::Features, &all)[0], 0.0 + 6.0);
    }

    #[test]
    fn a_product_is_the_plain_sum_at_every_size_and_on_any_threads() {
        for (rows, width, outputs) in [(1, 1, 1), (3, 5, 2), (4, 8, 4), (5, 7, 9), (13, 33, 11), (97, 3, 6), (0, 4, 4)]
        {
            let number = |i: usize| ((i * 7919 + 104_729) % 2003) as f64 / 977.0 - 1.0;
            let x: Vec<f64> = (0..rows * width).map(number).collect();
            let w: Vec<f32> = (0..outputs * width).map(|i| number(i + 5) as f32).collect();
            let bias: Vec<f64> = (0..outputs).map(|i| number(i + 11)).collect();
            let mut plain = Vec::new();
            for x in x.chunks_exact(width) {
                for (w, b) in w.chunks_exact(width).zip(&bias) {
                    let mut sum = 0.0;
                    (0..width).for_each(|k| sum += x[k] * f64::from(w[k]));
                    plain.push(sum + b);
                }
            }
            for threads in [1, 2, 3, 50] {
                assert_eq!(
                    product(&x, &w, width, Some(&bias), threads),
                    plain,
                    "{rows} x {width} x {outputs}, {threads}"
                );
            }
        }
    }
}
