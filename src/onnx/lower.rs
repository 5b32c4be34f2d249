//! Our operators in standard ONNX operators.
//!
//! In: a region, names of its arguments. Out: nodes on a [`Builder`], names of the results. Must not: reorder sums beyond what the
//! operators' definitions leave open, or transpose a weight when it runs (constants are written in the layout that a product wants).
//!
//! A gated MLP has a product each for gate and up, because halves of one product are copied before they are used; along tokens the weights
//! stand left of the values. Both were 0 to 9 % faster than the other way in ONNX Runtime 1.31 (one thread, 64 to 512 features).

use super::build::{Builder, Value};
use super::{ExpertForm, OnnxError, Opset};
use crate::graph::{Activation, Attention, Axis, Node, Op, ParamId, Region, Tokens, ValueType, op};

/// Nodes for a region.
pub fn region(b: &mut Builder, region: &Region, args: Vec<String>) -> Result<Vec<String>, OnnxError> {
    let mut names = args;
    for node in &region.nodes {
        let inputs: Vec<String> = node.inputs.iter().map(|v| names[v.0].clone()).collect();
        match &node.op {
            Op::Repeat(op::Repeat { times, carried, body, .. }) => {
                let mut values = inputs;
                for _ in 0..*times {
                    let results = self::region(b, body, values.clone())?;
                    values.splice(..*carried, results);
                }
                names.extend(values.drain(..*carried));
            }
            _ => {
                let x: Vec<&str> = inputs.iter().map(String::as_str).collect();
                names.push(one(b, node, region.ty(node.inputs[0]), &x)?);
            }
        }
    }
    Ok(region.results.iter().map(|r| names[r.0].clone()).collect())
}

/// The node of one operator that gives one value.
pub(super) fn one(b: &mut Builder, node: &Node, ty: ValueType, x: &[&str]) -> Result<String, OnnxError> {
    // without a batch nothing here depends on the number of tokens
    let tokens = match ty.tokens {
        Tokens::Fixed(tokens) => tokens,
        Tokens::Length if b.flat => 0,
        Tokens::Length => return Err(OnnxError::Unsupported { what: "an input of open length".into() }),
    };
    Ok(match &node.op {
        Op::Embed(op::Embed { table }) => {
            let table = as_it_is(b, *table);
            b.op("Gather", &[&table, x[0]], &[("axis", Value::Int(0))])
        }
        Op::EmbedPrefix(op::EmbedPrefix { table, positions, features }) => {
            let width = b.graph.params[table.0].shape[1];
            let name = as_it_is(b, *table);
            // [batch, 1, width]
            let row = b.op("Gather", &[&name, x[0]], &[("axis", Value::Int(0))]);
            let missing = positions * features - width;
            let row = if missing == 0 {
                row
            } else {
                let (pads, zero) = (b.ints(&[0, 0, 0, 0, 0, missing as i64]), b.float(0.0));
                b.op("Pad", &[&row, &pads, &zero], &[])
            };
            reshape(b, &row, &[-1, *positions as i64, *features as i64])
        }
        Op::AddPositions(op::AddPositions { table, .. }) => {
            let table = as_it_is(b, *table);
            b.op("Add", &[x[0], &table], &[])
        }
        Op::Concat(_) => b.op("Concat", x, &[("axis", Value::Int(1))]),
        Op::Slice(op::Slice { start, len }) => slice(b, x[0], *start, start + len, 1),
        Op::Add(_) => b.op("Add", x, &[]),
        Op::Mul(_) => b.op("Mul", x, &[]),
        Op::Scale(op::Scale(factor)) => {
            let factor = b.float(*factor);
            b.op("Mul", &[x[0], &factor], &[])
        }
        Op::Linear(op::Linear { weight, bias }) => linear(b, x[0], *weight, *bias),
        Op::RmsNorm(op::RmsNorm { gain, eps, over }) => rms_norm(b, x[0], *gain, *eps, *over, ty.features),
        Op::LayerNorm(norm) => layer_norm(b, x[0], norm, ty.features),
        Op::Activate(act) => activate(b, x[0], *act),
        Op::GatedMlp(op::GatedMlp { gate_up, down, act, over: Axis::Features }) => {
            let (n, inner) = (b.graph.params[down.0].shape[0], b.graph.params[down.0].shape[1]);
            let gate = matrix(b, *gate_up, "gate", 0, [inner, n]);
            let up = matrix(b, *gate_up, "up", inner * n, [inner, n]);
            let down = matrix(b, *down, "", 0, [n, inner]);
            gated(b, x[0], [&gate, &up, &down], *act)
        }
        Op::GatedMlp(op::GatedMlp { gate_up, down, act, over: Axis::Tokens }) => {
            // W·x for every row: [inner, T]·[batch, T, D]; nothing is transposed
            let (n, inner) = (b.graph.params[down.0].shape[0], b.graph.params[down.0].shape[1]);
            let gate = b.weight(*gate_up, "gate", &[inner, n], |w| w[..inner * n].to_vec());
            let up = b.weight(*gate_up, "up", &[inner, n], |w| w[inner * n..].to_vec());
            let down = as_it_is(b, *down);
            let (gate, up) = (b.op("MatMul", &[&gate, x[0]], &[]), b.op("MatMul", &[&up, x[0]], &[]));
            let gate = activate(b, &gate, *act);
            let hidden = b.op("Mul", &[&gate, &up], &[]);
            b.op("MatMul", &[&down, &hidden], &[])
        }
        Op::Mlp(op::Mlp { up, up_bias, down, down_bias, act }) => {
            let hidden = linear(b, x[0], *up, *up_bias);
            let hidden = activate(b, &hidden, *act);
            linear(b, &hidden, *down, *down_bias)
        }
        Op::MoeMlp(op::MoeMlp { router, gate_up, down, act, top_k }) => {
            let moe = Moe { router: *router, gate_up: *gate_up, down: *down, act: *act, top_k: *top_k };
            moe.lower(b, x[0], tokens)
        }
        Op::Attend(a) => attend(b, x[0], a, tokens)?,
        Op::Repeat(_) => return Err(OnnxError::Unsupported { what: "a repetition within an operator".into() }),
    })
}

pub(super) fn as_it_is(b: &mut Builder, param: ParamId) -> String {
    let shape = b.graph.params[param.0].shape.clone();
    b.weight(param, "", &shape, <[f32]>::to_vec)
}

/// The matrix `[rows, columns]` that begins at an element of a parameter, in the layout that [`product`] takes; `part` says which it is.
fn matrix(b: &mut Builder, param: ParamId, part: &str, first: usize, [rows, columns]: [usize; 2]) -> String {
    let own = move |w: &[f32]| w[first..first + rows * columns].to_vec();
    if b.flat {
        return b.weight(param, part, &[rows, columns], own);
    }
    let key = [part, "T"].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(".");
    b.weight(param, &key, &[columns, rows], |w| transpose(&own(w), rows, columns))
}

/// A product with a [`matrix`]: of values with a batch by its transpose, of rows by itself, so that a table of tokens can be the head too.
pub(super) fn product(b: &mut Builder, x: &str, matrix: &str, bias: Option<&str>) -> String {
    if b.flat {
        let inputs: Vec<&str> = [x, matrix].into_iter().chain(bias).collect();
        return b.op("Gemm", &inputs, &[("transB", Value::Int(1))]);
    }
    let y = b.op("MatMul", &[x, matrix], &[]);
    match bias {
        None => y,
        Some(bias) => b.op("Add", &[&y, bias], &[]),
    }
}

fn transpose(w: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| w[r * columns + c])).collect()
}

pub(super) fn reshape(b: &mut Builder, x: &str, shape: &[i64]) -> String {
    let shape = b.ints(shape);
    b.op("Reshape", &[x, &shape], &[])
}

/// `from..to` along one axis.
pub(super) fn slice(b: &mut Builder, x: &str, from: usize, to: usize, axis: i64) -> String {
    let (from, to, axis) = (b.ints(&[from as i64]), b.ints(&[to as i64]), b.ints(&[axis]));
    b.op("Slice", &[x, &from, &to, &axis], &[])
}

pub(super) fn linear(b: &mut Builder, x: &str, weight: ParamId, bias: Option<ParamId>) -> String {
    let (rows, columns) = (b.graph.params[weight.0].shape[0], b.graph.params[weight.0].shape[1]);
    let weight = matrix(b, weight, "", 0, [rows, columns]);
    let bias = bias.map(|bias| as_it_is(b, bias));
    product(b, x, &weight, bias.as_deref())
}

/// The gated MLP along features, with a [`matrix`] each of gate, up and down.
fn gated(b: &mut Builder, x: &str, [gate, up, down]: [&str; 3], act: Activation) -> String {
    let (gate, up) = (product(b, x, gate, None), product(b, x, up, None));
    let gate = activate(b, &gate, act);
    let hidden = b.op("Mul", &[&gate, &up], &[]);
    product(b, &hidden, down, None)
}

fn layer_norm(b: &mut Builder, x: &str, norm: &op::LayerNorm, features: usize) -> String {
    let gain = as_it_is(b, norm.gain);
    let bias = match norm.bias {
        Some(bias) => as_it_is(b, bias),
        None => b.floats(&format!("zeros.{features}"), &[features], || vec![0.0; features]),
    };
    let attributes = [("axis", Value::Int(-1)), ("epsilon", Value::Float(norm.eps))];
    b.op("LayerNormalization", &[x, &gain, &bias], &attributes)
}

pub(super) fn rms_norm(
    b: &mut Builder,
    x: &str,
    gain: Option<ParamId>,
    eps: f32,
    over: Axis,
    features: usize,
) -> String {
    if b.form.opset == Opset::TwentyThree && over == Axis::Features {
        let gain = match gain {
            Some(gain) => as_it_is(b, gain),
            None => b.floats(&format!("ones.{features}"), &[features], || vec![1.0; features]),
        };
        let attributes = [("axis", Value::Int(-1)), ("epsilon", Value::Float(eps))];
        return b.op("RMSNormalization", &[x, &gain], &attributes);
    }
    let axis = if over == Axis::Tokens { 1 } else { -1 };
    let squares = b.op("Mul", &[x, x], &[]);
    let mean = match b.form.opset {
        Opset::Seventeen => b.op("ReduceMean", &[&squares], &[("axes", Value::Ints(&[axis]))]),
        Opset::TwentyThree => {
            let axes = b.ints(&[axis]);
            b.op("ReduceMean", &[&squares, &axes], &[])
        }
    };
    let eps = b.float(eps);
    let above_zero = b.op("Add", &[&mean, &eps], &[]);
    let root = b.op("Sqrt", &[&above_zero], &[]);
    let y = b.op("Div", &[x, &root], &[]);
    match gain {
        None => y,
        Some(gain) => {
            let n = b.graph.params[gain.0].elements();
            let gain = match over {
                Axis::Features => as_it_is(b, gain),
                Axis::Tokens => b.weight(gain, "column", &[n, 1], <[f32]>::to_vec),
            };
            b.op("Mul", &[&y, &gain], &[])
        }
    }
}

fn activate(b: &mut Builder, x: &str, act: Activation) -> String {
    match act {
        Activation::Relu => b.op("Relu", &[x], &[]),
        Activation::Silu => {
            let gate = b.op("Sigmoid", &[x], &[]);
            b.op("Mul", &[x, &gate], &[])
        }
        Activation::Gelu => {
            let (root, one, half) = (b.float(std::f32::consts::FRAC_1_SQRT_2), b.float(1.0), b.float(0.5));
            let scaled = b.op("Mul", &[x, &root], &[]);
            let erf = b.op("Erf", &[&scaled], &[]);
            let twice = b.op("Add", &[&erf, &one], &[]);
            let whole = b.op("Mul", &[x, &twice], &[]);
            b.op("Mul", &[&whole, &half], &[])
        }
        Activation::GeluTanh => {
            let (cubic, root) = (b.float(0.044_715), b.float((2.0 / std::f32::consts::PI).sqrt()));
            let (one, half) = (b.float(1.0), b.float(0.5));
            let square = b.op("Mul", &[x, x], &[]);
            let cube = b.op("Mul", &[&square, x], &[]);
            let small = b.op("Mul", &[&cube, &cubic], &[]);
            let sum = b.op("Add", &[x, &small], &[]);
            let scaled = b.op("Mul", &[&sum, &root], &[]);
            let tanh = b.op("Tanh", &[&scaled], &[]);
            let twice = b.op("Add", &[&tanh, &one], &[]);
            let whole = b.op("Mul", &[x, &twice], &[]);
            b.op("Mul", &[&whole, &half], &[])
        }
    }
}

struct Moe {
    router: ParamId,
    gate_up: ParamId,
    down: ParamId,
    act: Activation,
    top_k: usize,
}

impl Moe {
    fn lower(&self, b: &mut Builder, x: &str, tokens: usize) -> String {
        let (experts, n) = (b.graph.params[self.router.0].shape[0], b.graph.params[self.router.0].shape[1]);
        let scores = linear(b, x, self.router, None);
        let k = b.ints(&[self.top_k as i64]);
        let best = b.ops("TopK", &[&scores, &k], &[("axis", Value::Int(-1))], 2);
        let weights = b.op("Softmax", &[&best[0]], &[("axis", Value::Int(-1))]);
        // the weights as [.., experts], 0 where an expert was not chosen
        let last = b.ints(&[-1]);
        let (chosen, weights) =
            (b.op("Unsqueeze", &[&best[1], &last], &[]), b.op("Unsqueeze", &[&weights, &last], &[]));
        let numbers: Vec<i64> = (0..experts as i64).collect();
        let numbers = b.ints(&numbers);
        let hit = b.op("Equal", &[&chosen, &numbers], &[]);
        let hit = b.op("Cast", &[&hit], &[("to", Value::Int(super::proto::FLOAT.into()))]);
        let spread = b.op("Mul", &[&hit, &weights], &[]);
        // the chosen ones lie before the last axis
        let axis = if b.flat { 1 } else { 2 };
        let chosen = b.ints(&[axis]);
        let gates = b.op("ReduceSum", &[&spread, &chosen], &[("keepdims", Value::Int(0))]);
        match b.form.experts {
            ExpertForm::All => self.all(b, x, &gates, experts, axis),
            ExpertForm::Routed => self.routed(b, x, &gates, experts, n, tokens),
        }
    }

    fn expert(&self, b: &mut Builder, x: &str, e: usize) -> String {
        let shape = &b.graph.params[self.down.0].shape;
        let (n, inner) = (shape[1], shape[2]);
        let start = 2 * e * inner * n;
        let gate = matrix(b, self.gate_up, &format!("gate.{e}"), start, [inner, n]);
        let up = matrix(b, self.gate_up, &format!("up.{e}"), start + inner * n, [inner, n]);
        let down = matrix(b, self.down, &format!("{e}"), e * n * inner, [n, inner]);
        gated(b, x, [&gate, &up, &down], self.act)
    }

    fn all(&self, b: &mut Builder, x: &str, gates: &str, experts: usize, axis: i64) -> String {
        let mut sum: Option<String> = None;
        for e in 0..experts {
            let y = self.expert(b, x, e);
            let gate = slice(b, gates, e, e + 1, axis);
            let y = b.op("Mul", &[&y, &gate], &[]);
            sum = Some(match sum {
                None => y,
                Some(sum) => b.op("Add", &[&sum, &y], &[]),
            });
        }
        sum.unwrap_or_default()
    }

    fn routed(&self, b: &mut Builder, x: &str, gates: &str, experts: usize, n: usize, tokens: usize) -> String {
        let flat = reshape(b, x, &[-1, n as i64]);
        let gates = reshape(b, gates, &[-1, experts as i64]);
        let shape = b.op("Shape", &[&flat], &[]);
        let mut sum = b.op("ConstantOfShape", &[&shape], &[("value", Value::FloatTensor(0.0))]);
        for e in 0..experts {
            let column = slice(b, &gates, e, e + 1, 1);
            let column = reshape(b, &column, &[-1]);
            let rows = b.op("NonZero", &[&column], &[]);
            let rows = reshape(b, &rows, &[-1]);
            let y = b.op("Gather", &[&flat, &rows], &[("axis", Value::Int(0))]);
            let y = self.expert(b, &y, e);
            let gate = b.op("Gather", &[&column, &rows], &[("axis", Value::Int(0))]);
            let gate = reshape(b, &gate, &[-1, 1]);
            let y = b.op("Mul", &[&y, &gate], &[]);
            let places = reshape(b, &rows, &[-1, 1]);
            sum = b.op("ScatterND", &[&sum, &places, &y], &[("reduction", Value::Text("add"))]);
        }
        if b.flat { sum } else { reshape(b, &sum, &[-1, tokens as i64, n as i64]) }
    }
}

fn attend(b: &mut Builder, x: &str, a: &Attention, tokens: usize) -> Result<String, OnnxError> {
    if let Some(what) = a.beyond_plain() {
        return Err(OnnxError::Unsupported { what: what.into() });
    }
    let (heads, kv, dim) = (a.heads, a.kv_heads, a.head_dim);
    let (keys_at, values_at, end) = (heads * dim, (heads + kv) * dim, (heads + 2 * kv) * dim);
    let t = tokens as i64;
    // [batch, heads, T, dim]
    let head = |b: &mut Builder, from: usize, to: usize, rotated: bool| {
        let part = slice(b, x, from, to, 2);
        let part = reshape(b, &part, &[-1, t, ((to - from) / dim) as i64, dim as i64]);
        let part = b.op("Transpose", &[&part], &[("perm", Value::Ints(&[0, 2, 1, 3]))]);
        match &a.rope {
            Some(rope) if rotated => rotate(b, &part, rope.base, tokens, dim),
            _ => part,
        }
    };
    let q = head(b, 0, keys_at, true);
    let k = head(b, keys_at, values_at, true);
    let v = head(b, values_at, end, false);
    let seen = |from: usize, to: usize| (!a.causal || to <= from) && a.window.is_none_or(|w| from.abs_diff(to) < w);
    let masked = (0..tokens).any(|i| (0..tokens).any(|j| !seen(i, j)));
    let mask = masked.then(|| {
        let values = || {
            let cell = |i: usize| if seen(i / tokens, i % tokens) { 0.0 } else { f32::NEG_INFINITY };
            (0..tokens * tokens).map(cell).collect()
        };
        b.floats(&format!("mask.{tokens}.{}.{:?}", a.causal, a.window), &[tokens, tokens], values)
    });
    let y = if b.form.opset == Opset::TwentyThree {
        let inputs: Vec<&str> = [q.as_str(), &k, &v].into_iter().chain(mask.as_deref()).collect();
        b.op("Attention", &inputs, &[("scale", Value::Float(a.scale))])
    } else {
        let (k, v) = (repeat_heads(b, &k, a, tokens), repeat_heads(b, &v, a, tokens));
        let k = b.op("Transpose", &[&k], &[("perm", Value::Ints(&[0, 1, 3, 2]))]);
        let scores = b.op("MatMul", &[&q, &k], &[]);
        let scale = b.float(a.scale);
        let mut scores = b.op("Mul", &[&scores, &scale], &[]);
        if let Some(mask) = &mask {
            scores = b.op("Add", &[&scores, mask], &[]);
        }
        let weights = b.op("Softmax", &[&scores], &[("axis", Value::Int(-1))]);
        b.op("MatMul", &[&weights, &v], &[])
    };
    let y = b.op("Transpose", &[&y], &[("perm", Value::Ints(&[0, 2, 1, 3]))]);
    Ok(reshape(b, &y, &[-1, t, (heads * dim) as i64]))
}

/// Each key or value head as often as query heads share it.
fn repeat_heads(b: &mut Builder, x: &str, a: &Attention, tokens: usize) -> String {
    let times = a.heads / a.kv_heads;
    if times == 1 {
        return x.to_string();
    }
    let (kv, t, dim) = (a.kv_heads as i64, tokens as i64, a.head_dim as i64);
    let apart = reshape(b, x, &[-1, kv, 1, t, dim]);
    let copies = vec![apart.as_str(); times];
    let together = b.op("Concat", &copies, &[("axis", Value::Int(2))]);
    reshape(b, &together, &[-1, a.heads as i64, t, dim])
}

/// Half-split rotation of `[batch, heads, T, dim]`: `x·cos + [−x₂ | x₁]·sin`.
fn rotate(b: &mut Builder, x: &str, base: f32, tokens: usize, dim: usize) -> String {
    let half = dim / 2;
    // the operator has a column for each pair, the primitives for each feature
    let columns = if b.form.opset == Opset::TwentyThree { half } else { dim };
    let table = |f: fn(f64) -> f64| -> Vec<f32> {
        let angle = |t: usize, i: usize| t as f64 * f64::from(base).powf(-2.0 * (i % half) as f64 / dim as f64);
        (0..tokens * columns).map(|i| f(angle(i / columns, i % columns)) as f32).collect()
    };
    let key = format!("{base}.{tokens}.{dim}");
    let cos = b.floats(&format!("cos.{key}"), &[tokens, columns], || table(f64::cos));
    let sin = b.floats(&format!("sin.{key}"), &[tokens, columns], || table(f64::sin));
    if b.form.opset == Opset::TwentyThree {
        let places = positions(b, tokens);
        return b.op("RotaryEmbedding", &[x, &cos, &sin, &places], &[]);
    }
    let (first, second) = (slice(b, x, 0, half, 3), slice(b, x, half, dim, 3));
    let negative = b.op("Neg", &[&second], &[]);
    let turned = b.op("Concat", &[&negative, &first], &[("axis", Value::Int(3))]);
    let (straight, turned) = (b.op("Mul", &[x, &cos], &[]), b.op("Mul", &[&turned, &sin], &[]));
    b.op("Add", &[&straight, &turned], &[])
}

/// Positions `0..tokens` of every row, `[batch, tokens]`: `RotaryEmbedding` wants them by row.
fn positions(b: &mut Builder, tokens: usize) -> String {
    let numbers: Vec<i64> = (0..tokens as i64).collect();
    let rows = b.form.batch.unwrap_or(1);
    let row = b.int_table(&format!("positions.{rows}.{tokens}"), &[rows, tokens], || numbers.repeat(rows));
    if b.form.batch.is_some() {
        return row;
    }
    // as many rows as the first input has
    let Some(first) = b.first_input() else { return row };
    b.once(&format!("positions of {tokens} tokens"), |b| {
        let batch = b.op("Shape", &[&first], &[("start", Value::Int(0)), ("end", Value::Int(1))]);
        let tokens = b.ints(&[tokens as i64]);
        let shape = b.op("Concat", &[&batch, &tokens], &[("axis", Value::Int(0))]);
        b.op("Expand", &[&row, &shape], &[])
    })
}
