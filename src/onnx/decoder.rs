//! A language model's step as a standard ONNX file whose caches are inputs and outputs.
//!
//! In: a decoder's [`Graph`], something that reads its parameters, a [`Form`]. Out: the file's bytes, and those of its weights. Must not: read a file,
//! hold more than two parameters at a time beside what it writes, or depend on a backend.
//!
//! Inputs and outputs have the names that `transformers` and its kin give them: `input_ids` and `position_ids` `[batch, sequence_length]`,
//! `attention_mask` `[batch, total_sequence_length]` (0: nothing lies at this place of the cache), `past_key_values.<layer>.key` and `.value`
//! `[batch, key heads, past_sequence_length, head size]`; `logits` `[batch, sequence_length, vocabulary]` and `present.<layer>.key` and `.value`
//! `[batch, key heads, total_sequence_length, head size]`. A key's position is the number of places before it that hold something, so that rows of
//! unlike length share a batch. For engines of ours `logits_at` asks for the logits of some rows of `[batch · sequence_length]` alone
//! ([`LogitRows::Asked`]).
//!
//! Values are rows `[batch · sequence_length, features]` between the operators, and weights are multiplied as `[out, in]`, so that a table of tokens
//! that is the head too stands once in the file. Pairs of a rotation that are neighbours are moved apart in the rows that give queries and keys: scores do not change by that, and
//! one form of rotation serves all. Of a mixture of experts [`ExpertForm`](super::ExpertForm) says what is computed.

use std::collections::HashMap;

use prost::Message;

use super::build::{AxisLength, Builder, BuiltFile, Value};
use super::lower::{linear, one, product, reshape, rms_norm, slice};
use super::{Form, MAX_BYTES, OnnxError, Opset, ReadParam, file_of, proto};
use crate::graph::{Attention, Axis, Graph, HeadNorms, Node, Op, ParamId, Rope, Tokens, op};

/// Which rows have logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// Every token of the call.
    All,
    /// Those that the input `logits_at` names, `[answers]`: then `logits` is `[answers, vocabulary]`.
    Asked,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct ExportedDecoder {
    /// The file.
    pub model: Vec<u8>,
    /// The file of the weights, if they are not inside.
    pub weights: Option<Vec<u8>>,
    /// Names of the inputs with element type and shape, for people.
    pub inputs: Vec<String>,
    /// Names of the outputs likewise.
    pub outputs: Vec<String>,
}

/// Names of a layer's caches before and after a call, keys first: `past_key_values.0.key`, `present.0.key`.
pub fn cache_names(layer: usize) -> [[String; 2]; 2] {
    ["past_key_values", "present"].map(|when| ["key", "value"].map(|what| format!("{when}.{layer}.{what}")))
}

const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const POSITIONS: &str = "position_ids";
const AT: &str = "logits_at";
const LOGITS: &str = "logits";

/// Names of the inputs before the caches, in their order.
pub fn input_names(rows: LogitRows) -> Vec<&'static str> {
    let asked = (rows == LogitRows::Asked).then_some(AT);
    [IDS, MASK, POSITIONS].into_iter().chain(asked).collect()
}

/// What is added to the score of a key that a token does not see: finite, so that a row of padding that sees nothing is no NaN.
const UNSEEN: f32 = f32::MIN;

/// Writes the file of a decoder's graph.
///
/// # Errors
/// An operator without counterpart, a weight that cannot be read, weights inside that are too large for one file.
pub fn export<'a>(
    graph: &'a Graph,
    read: ReadParam<'a>,
    form: &'a Form,
    rows: LogitRows,
    notes: &[(&str, String)],
) -> Result<ExportedDecoder, OnnxError> {
    let bytes: u64 = graph.params.iter().map(|p| 4 * p.elements() as u64).sum();
    if form.external.is_none() && bytes > MAX_BYTES {
        return Err(OnnxError::TooLarge { bytes });
    }
    let context = match graph.states.first().map(|state| state.ty.tokens) {
        Some(Tokens::Fixed(context)) => context,
        _ => return Err(unsupported("a step without caches")),
    };
    let mut b = Builder::new(graph, read, form);
    b.flat = true;
    // each matrix begins at a multiple of a page
    b.reserve(bytes as usize + graph.params.len() * (1 << 16));
    Step { b, context, rows, apart: neighbours_apart(graph)? }.write(notes)
}

fn unsupported(what: &str) -> OnnxError {
    OnnxError::Unsupported { what: what.into() }
}

/// Of a head whose pairs are neighbours: which feature stands where, so that pair `i` is `i` and `i + pairs`.
fn halves(rope: &Rope, head_dim: usize) -> Vec<usize> {
    let pairs = rope.frequencies(head_dim).len();
    let mut order: Vec<usize> = (0..head_dim).collect();
    for i in 0..pairs {
        (order[i], order[i + pairs]) = rope.pair(i, pairs);
    }
    order
}

/// For each node that computes queries and keys with neighbours as pairs: the order of its rows.
fn neighbours_apart(graph: &Graph) -> Result<HashMap<usize, Vec<usize>>, OnnxError> {
    let mut orders = HashMap::new();
    for node in &graph.step.nodes {
        let Op::Attend(a) = &node.op else { continue };
        let Some(rope) = a.rope.as_ref().filter(|rope| rope.interleaved) else { continue };
        let giver = graph.step.nodes.iter().position(|giver| giver.first == node.inputs[0]);
        let giver = giver.filter(|&i| matches!(graph.step.nodes[i].op, Op::Linear(_)));
        let head = &halves(rope, a.head_dim);
        let turned = a.heads + a.kv_heads;
        let mut rows: Vec<usize> = (0..turned).flat_map(|h| head.iter().map(move |i| h * head.len() + i)).collect();
        rows.extend(turned * a.head_dim..(turned + a.kv_heads) * a.head_dim);
        orders.insert(giver.ok_or_else(|| unsupported("rotary embedding of what no product gives"))?, rows);
    }
    Ok(orders)
}

/// The file under construction.
struct Step<'a> {
    b: Builder<'a>,
    /// Places of a rotation's table.
    context: usize,
    rows: LogitRows,
    /// By node.
    apart: HashMap<usize, Vec<usize>>,
}

impl Step<'_> {
    fn write(mut self, notes: &[(&str, String)]) -> Result<ExportedDecoder, OnnxError> {
        let graph = self.b.graph;
        let values = self.declare();
        let step = &graph.step;
        let mut names: Vec<String> = values;
        for (i, node) in step.nodes.iter().enumerate() {
            let x: Vec<String> = node.inputs.iter().map(|v| names[v.0].clone()).collect();
            match &node.op {
                Op::Attend(a) => {
                    let layer = node.inputs.get(1).map_or(0, |v| v.0);
                    names.push(self.attend(a, &x[0], layer)?);
                    // the cache, which is an output by now
                    names.push(String::new());
                }
                Op::Linear(head) if i + 1 == step.nodes.len() => names.push(self.head(head, &x[0])),
                _ => names.push(self.other(i, node, &x)?),
            }
        }
        let Form { opset, .. } = *self.b.form;
        let text = |key: &str, value: String| proto::Entry { key: Some(key.into()), value: Some(value) };
        let mut metadata = vec![text("family", graph.family.name().into()), text("context", self.context.to_string())];
        metadata.extend(notes.iter().map(|(key, value)| text(key, value.clone())));
        let BuiltFile { graph: written, weights, inputs, outputs } = self.b.finish()?;
        Ok(ExportedDecoder { model: file_of(written, opset, metadata).encode_to_vec(), weights, inputs, outputs })
    }

    /// Declares inputs and outputs; gives the names of the step's arguments, of which caches have none.
    fn declare(&mut self) -> Vec<String> {
        let graph = self.b.graph;
        let (new, total, past) = ("sequence_length", "total_sequence_length", "past_sequence_length");
        let (batch, open) = (AxisLength::Batch, AxisLength::Open);
        self.b.open_input(IDS, proto::INT64, &[batch, open(new)]);
        self.b.open_input(MASK, proto::INT64, &[batch, open(total)]);
        self.b.open_input(POSITIONS, proto::INT64, &[batch, open(new)]);
        let vocabulary = AxisLength::Fixed(graph.outputs.first().map_or(0, |o| o.ty.features));
        match self.rows {
            LogitRows::All => self.b.open_output(LOGITS, &[batch, open(new), vocabulary]),
            LogitRows::Asked => {
                self.b.open_input(AT, proto::INT64, &[open("answers")]);
                self.b.open_output(LOGITS, &[open("answers"), vocabulary]);
            }
        }
        for (layer, (heads, dim)) in graph.attention_sizes().enumerate() {
            let shape = |length| [batch, AxisLength::Fixed(heads), open(length), AxisLength::Fixed(dim)];
            let [before, after] = cache_names(layer);
            before.iter().for_each(|name| {
                self.b.open_input(name, proto::FLOAT, &shape(past));
            });
            after.iter().for_each(|name| self.b.open_output(name, &shape(total)));
        }
        let mut names = vec![String::new(); graph.states.len()];
        names.push(reshape(&mut self.b, IDS, &[-1]));
        names
    }

    fn other(&mut self, i: usize, node: &Node, x: &[String]) -> Result<String, OnnxError> {
        let b = &mut self.b;
        let ty = b.graph.step.ty(node.inputs[0]);
        match (&node.op, self.apart.get(&i)) {
            (Op::AddPositions(op::AddPositions { table, .. }), _) => {
                let shape = b.graph.params[table.0].shape.clone();
                let table = b.weight(*table, "", &shape, <[f32]>::to_vec);
                let places = b.once("positions of rows", |b| reshape(b, POSITIONS, &[-1]));
                let rows = b.op("Gather", &[&table, &places], &[("axis", Value::Int(0))]);
                Ok(b.op("Add", &[&x[0], &rows], &[]))
            }
            (Op::Linear(op::Linear { weight, bias }), Some(order)) => {
                let (rows, columns) = (b.graph.params[weight.0].shape[0], b.graph.params[weight.0].shape[1]);
                let weight = b.weight(*weight, "apart", &[rows, columns], |w| {
                    order.iter().flat_map(|row| &w[row * columns..(row + 1) * columns]).copied().collect()
                });
                let bias = bias.map(|bias| b.weight(bias, "apart", &[rows], |v| order.iter().map(|&i| v[i]).collect()));
                Ok(product(b, &x[0], &weight, bias.as_deref()))
            }
            (Op::Linear(op::Linear { weight, bias }), None) => Ok(linear(b, &x[0], *weight, *bias)),
            _ => one(b, node, ty, &x.iter().map(String::as_str).collect::<Vec<_>>()),
        }
    }

    /// The head, of the rows that are asked for.
    fn head(&mut self, head: &op::Linear, x: &str) -> String {
        let b = &mut self.b;
        let shape = b.graph.params[head.weight.0].shape.clone();
        let weight = b.weight(head.weight, "", &shape, <[f32]>::to_vec);
        let transposed = [("transB", Value::Int(1))];
        let mut made = match self.rows {
            LogitRows::Asked => {
                let rows = b.op("Gather", &[x, AT], &[("axis", Value::Int(0))]);
                b.op_into("Gemm", &[&rows, &weight], &transposed, vec![LOGITS.into()])
            }
            LogitRows::All => {
                let all = b.op("Gemm", &[x, &weight], &transposed);
                let shape = self.by_token(&[shape[0]]);
                self.b.op_into("Reshape", &[&all, &shape], &[], vec![LOGITS.into()])
            }
        };
        made.swap_remove(0)
    }

    /// The shape `[batch, sequence_length, ..tail]`.
    fn by_token(&mut self, tail: &[usize]) -> String {
        let b = &mut self.b;
        let tail: Vec<i64> = tail.iter().map(|&n| n as i64).collect();
        if let Some(batch) = b.form.batch {
            return b.ints(&[&[batch as i64, -1], &tail[..]].concat());
        }
        b.once(&format!("by token, {tail:?}"), |b| {
            let call = b.once("shape of the call", |b| b.op("Shape", &[IDS], &[]));
            let tail = b.ints(&tail);
            b.op("Concat", &[&call, &tail], &[("axis", Value::Int(0))])
        })
    }

    /// Rows of heads as `[batch, heads, sequence_length, head size]`.
    fn by_head(&mut self, x: &str, heads: usize, dim: usize) -> String {
        let shape = self.by_token(&[heads, dim]);
        let x = self.b.op("Reshape", &[x, &shape], &[]);
        self.b.op("Transpose", &[&x], &[("perm", Value::Ints(&[0, 2, 1, 3]))])
    }

    /// Attention over the cache of a layer, which has the call's tokens afterwards.
    fn attend(&mut self, a: &Attention, x: &str, layer: usize) -> Result<String, OnnxError> {
        if !a.causal || !a.cache {
            return Err(unsupported("attention without a cache beside such with one"));
        }
        let (heads, kv, dim) = (a.heads, a.kv_heads, a.head_dim);
        let sizes = self.b.ints(&[((heads + kv) * dim) as i64, (kv * dim) as i64]);
        let parts = self.b.ops("Split", &[x, &sizes], &[("axis", Value::Int(1))], 2);
        let mut compared = self.by_head(&parts[0], heads + kv, dim);
        let v = self.by_head(&parts[1], kv, dim);
        if let Some(norms) = a.head_norms {
            compared = self.normed(a, norms, &compared);
        }
        if let Some(rope) = &a.rope {
            compared = self.turned(rope, &compared, dim);
        }
        let sizes = self.b.ints(&[heads as i64, kv as i64]);
        let parts = self.b.ops("Split", &[&compared, &sizes], &[("axis", Value::Int(1))], 2);
        let (q, k) = (&parts[0], &parts[1]);
        let [[past_k, past_v], [present_k, present_v]] = cache_names(layer);
        let mixed = if self.b.form.opset == Opset::TwentyThree {
            let mask = self.mask(a.window, 1);
            let cap = a.soft_cap.map(|cap| ("softcap", Value::Float(cap)));
            let attributes: Vec<_> = [("scale", Value::Float(a.scale))].into_iter().chain(cap).collect();
            let mixed = format!("attended.{layer}");
            let results = vec![mixed.clone(), present_k, present_v];
            self.b.op_into("Attention", &[q, k, &v, &mask, &past_k, &past_v], &attributes, results);
            mixed
        } else {
            let b = &mut self.b;
            let after = [("axis", Value::Int(2))];
            b.op_into("Concat", &[&past_k, k], &after, vec![present_k.clone()]);
            b.op_into("Concat", &[&past_v, &v], &after, vec![present_v.clone()]);
            self.mixed(a, q, &present_k, &present_v)
        };
        let b = &mut self.b;
        let y = b.op("Transpose", &[&mixed], &[("perm", Value::Ints(&[0, 2, 1, 3]))]);
        Ok(reshape(b, &y, &[-1, (heads * dim) as i64]))
    }

    /// softmax(q·k)·v in primitives: the query heads that share a key head are rows of one product.
    fn mixed(&mut self, a: &Attention, q: &str, k: &str, v: &str) -> String {
        let (kv, group, dim) = (a.kv_heads, a.heads / a.kv_heads, a.head_dim as i64);
        let mask = self.mask(a.window, group);
        let b = &mut self.b;
        let scale = b.float(a.scale);
        let q = b.op("Mul", &[q, &scale], &[]);
        let q = if group == 1 { q } else { reshape(b, &q, &[0, kv as i64, -1, dim]) };
        let k = b.op("Transpose", &[k], &[("perm", Value::Ints(&[0, 1, 3, 2]))]);
        let mut scores = b.op("MatMul", &[&q, &k], &[]);
        if let Some(cap) = a.soft_cap {
            let (cap, part) = (b.float(cap), b.float(1.0 / cap));
            let small = b.op("Mul", &[&scores, &part], &[]);
            let tanh = b.op("Tanh", &[&small], &[]);
            scores = b.op("Mul", &[&tanh, &cap], &[]);
        }
        let scores = b.op("Add", &[&scores, &mask], &[]);
        let weights = b.op("Softmax", &[&scores], &[("axis", Value::Int(-1))]);
        let y = b.op("MatMul", &[&weights, v], &[]);
        if group == 1 { y } else { reshape(b, &y, &[0, a.heads as i64, -1, dim]) }
    }

    /// Heads of queries and keys, each normed by itself and scaled by the gain of its kind.
    fn normed(&mut self, a: &Attention, norms: HeadNorms, x: &str) -> String {
        let b = &mut self.b;
        let order = match a.rope.as_ref().filter(|rope| rope.interleaved) {
            Some(rope) => halves(rope, a.head_dim),
            None => (0..a.head_dim).collect(),
        };
        let mut gain = |param: ParamId| -> Vec<f32> {
            let values = b.values(param);
            order.iter().map(|&i| values[i]).collect()
        };
        let (q, k) = (gain(norms.q), gain(norms.k));
        let key = format!("{} and {}", b.graph.params[norms.q.0].name, b.graph.params[norms.k.0].name);
        let shape = [a.heads + a.kv_heads, 1, a.head_dim];
        let gains = b.floats(&key, &shape, || [q.repeat(a.heads), k.repeat(a.kv_heads)].concat());
        let y = rms_norm(b, x, None, norms.eps, Axis::Features, a.head_dim);
        b.op("Mul", &[&y, &gains], &[])
    }

    /// Heads turned to their positions: `x·cos + [x₂ | x₁]·[−sin | sin]` of the leading features.
    fn turned(&mut self, rope: &Rope, x: &str, dim: usize) -> String {
        let frequencies = rope.frequencies(dim);
        let (pairs, context) = (frequencies.len(), self.context);
        let b = &mut self.b;
        // of every position its row, [batch, 1, sequence_length, 2·pairs]
        let mut rows = |name: &str, of: fn(f64) -> f64, first: f32| {
            let key = format!("{name}.{frequencies:?}.{}", rope.magnitude);
            let cell = |i: usize| {
                let (position, feature) = (i / (2 * pairs), i % (2 * pairs));
                let value = of(position as f64 * frequencies[feature % pairs]) as f32 * rope.magnitude;
                if feature < pairs { first * value } else { value }
            };
            b.once(&format!("rows of {key}"), |b| {
                let label = format!("{name}.{}", b.count());
                let table = b.floats(&label, &[context, 2 * pairs], || (0..context * 2 * pairs).map(cell).collect());
                let rows = b.op("Gather", &[&table, POSITIONS], &[("axis", Value::Int(0))]);
                let axis = b.ints(&[1]);
                b.op("Unsqueeze", &[&rows, &axis], &[])
            })
        };
        let (cos, sin) = (rows("cos", f64::cos, 1.0), rows("sin", f64::sin, -1.0));
        let part = if 2 * pairs == dim { x.to_owned() } else { slice(b, x, 0, 2 * pairs, 3) };
        let (first, second) = (slice(b, x, 0, pairs, 3), slice(b, x, pairs, 2 * pairs, 3));
        let swapped = b.op("Concat", &[&second, &first], &[("axis", Value::Int(3))]);
        let (straight, turned) = (b.op("Mul", &[&part, &cos], &[]), b.op("Mul", &[&swapped, &sin], &[]));
        let turned = b.op("Add", &[&straight, &turned], &[]);
        if 2 * pairs == dim {
            return turned;
        }
        let rest = slice(b, x, 2 * pairs, dim, 3);
        b.op("Concat", &[&turned, &rest], &[("axis", Value::Int(3))])
    }

    /// What is added to scores, `[batch, 1, copies · sequence_length, total_sequence_length]`: 0 where a token sees a key.
    fn mask(&mut self, window: Option<usize>, copies: usize) -> String {
        self.b.once(&format!("mask {window:?} {copies}"), |b| {
            let (first, second) = (b.ints(&[1]), b.ints(&[2]));
            let keys = b.once("positions of keys", |b| {
                let (axis, one) = (b.int_table("axis 1", &[], || vec![1]), b.ints(&[1]));
                let counted = b.op("CumSum", &[MASK, &axis], &[]);
                let places = b.op("Sub", &[&counted, &one], &[]);
                b.op("Unsqueeze", &[&places, &first], &[])
            });
            let queries = b.once("positions of queries", |b| b.op("Unsqueeze", &[POSITIONS, &second], &[]));
            let there = b.once("held places", |b| {
                let there = b.op("Cast", &[MASK], &[("to", Value::Int(proto::BOOL.into()))]);
                b.op("Unsqueeze", &[&there, &first], &[])
            });
            let earlier = b.op("LessOrEqual", &[&keys, &queries], &[]);
            let mut seen = b.op("And", &[&earlier, &there], &[]);
            if let Some(window) = window {
                let width = b.ints(&[window as i64]);
                let before = b.op("Sub", &[&queries, &width], &[]);
                let near = b.op("Greater", &[&keys, &before], &[]);
                seen = b.op("And", &[&seen, &near], &[]);
            }
            let (zero, unseen) = (b.float(0.0), b.float(UNSEEN));
            let mask = b.op("Where", &[&seen, &zero, &unseen], &[]);
            let mask = b.op("Unsqueeze", &[&mask, &first], &[]);
            if copies == 1 {
                return mask;
            }
            b.op("Concat", &vec![mask.as_str(); copies], &[("axis", Value::Int(2))])
        })
    }
}

#[cfg(test)]
mod tests;
