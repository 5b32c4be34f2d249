//! What the products of a file cost, as far as shapes can be followed from its inputs.
//!
//! In: a [`Header`] and the shapes of its inputs. Out: FLOPs of one run, or the operator at which the shapes are lost. Must not: guess a
//! length, or count what it does not know.
//!
//! Counted are two operations for each multiply-add of `MatMul`, `Gemm`, `Conv`, `ConvTranspose`, their integer forms, `LSTM`, `GRU` and `RNN`; no other
//! operator. Shapes are followed through common operators, with the values of small whole-number constants and of what is made of shapes
//! (`Shape`, `Gather`, `Concat`, ...), so that reshapes are known. Graphs within graphs (`If`, `Loop`), functions of the file's own and operators of other domains are not followed.

use std::collections::{BTreeMap, HashMap};

use super::header::{Dim, FileNode, Header};

type Shape = Vec<u64>;

/// What is known of the values so far.
#[derive(Default)]
struct Known {
    shapes: HashMap<String, Shape>,
    values: HashMap<String, Vec<i64>>,
}

/// Operators whose result has the shape of their first input.
const SAME: [&str; 40] = [
    "Relu",
    "Sigmoid",
    "Tanh",
    "Erf",
    "Clip",
    "Softmax",
    "LogSoftmax",
    "BatchNormalization",
    "LayerNormalization",
    "Dropout",
    "Identity",
    "Cast",
    "LeakyRelu",
    "HardSigmoid",
    "HardSwish",
    "Exp",
    "Log",
    "Sqrt",
    "Neg",
    "Abs",
    "Floor",
    "Ceil",
    "Round",
    "LRN",
    "Elu",
    "Gelu",
    "Selu",
    "Softplus",
    "InstanceNormalization",
    "RMSNormalization",
    "Reciprocal",
    "Not",
    "Sign",
    "Sin",
    "Cos",
    "ThresholdedRelu",
    "QuantizeLinear",
    "DequantizeLinear",
    "CumSum",
    "Mish",
];
/// Those whose inputs are broadcast.
const BROADCAST: [&str; 19] = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Min",
    "Max",
    "Where",
    "Equal",
    "Greater",
    "Less",
    "And",
    "Or",
    "Mod",
    "PRelu",
    "GreaterOrEqual",
    "Sum",
    "Mean",
    "LessOrEqual",
];
/// Those that are counted.
const PRODUCTS: [&str; 14] = [
    "MatMul",
    "Gemm",
    "Conv",
    "ConvTranspose",
    "MatMulInteger",
    "ConvInteger",
    "QLinearMatMul",
    "QLinearConv",
    "LSTM",
    "GRU",
    "RNN",
    // these cannot be counted, and hold products
    "Einsum",
    "Attention",
    "DeformConv",
];

/// FLOPs of a run with these shapes of the inputs.
///
/// # Errors
/// The operator at which the shapes are lost.
pub fn flops(header: &Header, inputs: &BTreeMap<&str, Vec<usize>>) -> Result<f64, String> {
    let mut known = Known::default();
    for (name, shape) in inputs {
        known.shapes.insert((*name).to_owned(), shape.iter().map(|&n| n as u64).collect());
    }
    for (name, constant) in &header.constants {
        known.shapes.insert(name.clone(), constant.shape.clone());
        if let Some(values) = &constant.values {
            known.values.insert(name.clone(), values.clone());
        }
    }
    for value in &header.between {
        let fixed = |dim: &Dim| if let Dim::Fixed(n) = dim { Some(*n) } else { None };
        if let Some(shape) = value.shape.as_ref().and_then(|s| s.iter().map(fixed).collect::<Option<Shape>>()) {
            known.shapes.entry(value.name.clone()).or_insert(shape);
        }
    }
    let mut sum = 0.0;
    for node in &header.nodes {
        if node.graphs {
            return Err(format!("`{}` holds a graph of its own", node.operator));
        }
        // a function of the file's own, or an operator that no standard describes, may hold products
        if node.operator.contains('.') {
            return Err(format!("what `{}` computes is not in the standard", node.operator));
        }
        if PRODUCTS.contains(&node.operator.as_str()) {
            let name = node.outputs.first().map_or("", String::as_str);
            sum += known
                .product(node)
                .ok_or_else(|| format!("the shapes of `{}` (`{name}`) are not known", node.operator))?;
        } else {
            known.follow(node);
        }
    }
    Ok(sum)
}

fn product(shape: &[u64]) -> f64 {
    shape.iter().map(|&n| n as f64).product()
}

fn broadcast<'a>(shapes: impl Iterator<Item = &'a Shape>) -> Option<Shape> {
    let mut all: Shape = Vec::new();
    for shape in shapes {
        let longest = all.len().max(shape.len());
        let at = |s: &[u64], i: usize| (i + s.len()).checked_sub(longest).map_or(1, |j| s[j]);
        let joined = (0..longest).map(|i| match (at(&all, i), at(shape, i)) {
            (a, b) if a == b || b == 1 => Some(a),
            (1, b) => Some(b),
            _ => None,
        });
        all = joined.collect::<Option<Shape>>()?;
    }
    Some(all)
}

impl Known {
    fn shape(&self, node: &FileNode, i: usize) -> Option<&Shape> {
        self.shapes.get(node.inputs.get(i)?)
    }

    fn values(&self, node: &FileNode, i: usize) -> Option<&Vec<i64>> {
        self.values.get(node.inputs.get(i)?)
    }

    fn give(&mut self, node: &FileNode, i: usize, shape: Option<Shape>) {
        if let (Some(name), Some(shape)) = (node.outputs.get(i), shape) {
            self.shapes.insert(name.clone(), shape);
        }
    }

    /// FLOPs of a counted operator, and its outputs' shapes.
    fn product(&mut self, node: &FileNode) -> Option<f64> {
        match node.operator.as_str() {
            "MatMul" | "MatMulInteger" | "QLinearMatMul" => {
                let b = if node.operator == "QLinearMatMul" { 3 } else { 1 };
                let (a, b) = (self.shape(node, 0)?.clone(), self.shape(node, b)?.clone());
                let (&k, &n) = (a.last()?, b.last()?);
                let (m, b) = (a.get(a.len().checked_sub(2)?).copied(), &b[..b.len().checked_sub(2)?]);
                let mut out = broadcast([&a[..a.len() - 2].to_vec(), &b.to_vec()].into_iter())?;
                out.extend([m?, n]);
                let flops = 2.0 * product(&out) * k as f64;
                self.give(node, 0, Some(out));
                Some(flops)
            }
            "Gemm" => {
                let turned = |key: &str| node.numbers.get(key).and_then(|n| n.first()).is_some_and(|n| *n != 0);
                let (a, b) = (self.shape(node, 0)?, self.shape(node, 1)?);
                let ([a0, a1], [b0, b1]) = (a[..].try_into().ok()?, b[..].try_into().ok()?);
                let (m, k): (u64, u64) = if turned("transA") { (a1, a0) } else { (a0, a1) };
                let n: u64 = if turned("transB") { b0 } else { b1 };
                self.give(node, 0, Some(vec![m, n]));
                Some(2.0 * product(&[m, n, k]))
            }
            "Conv" | "ConvInteger" | "QLinearConv" => {
                let w = if node.operator == "QLinearConv" { 3 } else { 1 };
                let (x, w) = (self.shape(node, 0)?.clone(), self.shape(node, w)?.clone());
                let out = window(node, &x, w.get(2..)?, *w.first()?)?;
                let flops = 2.0 * product(&out) * product(&w[1..]);
                self.give(node, 0, Some(out));
                Some(flops)
            }
            "ConvTranspose" => {
                // each element of the input meets the kernel once; how long the result is, few need
                let (x, w) = (self.shape(node, 0)?.clone(), self.shape(node, 1)?.clone());
                let kernel = w.get(2..)?;
                let n = kernel.len();
                let group = number(node, "group", 1);
                let strides = numbers(node, "strides", n, 1);
                let pads = numbers(node, "pads", 2 * n, 0);
                let more = numbers(node, "output_padding", n, 0);
                let long = (0..n).map(|i| {
                    let before = i64::try_from(*x.get(i + 2)?).ok()?.checked_sub(1)?;
                    let all = strides[i].checked_mul(before)?.checked_add(i64::try_from(kernel[i]).ok()?)?;
                    let all = all.checked_add(more[i])?.checked_sub(pads[i])?.checked_sub(pads[i + n])?;
                    u64::try_from(all).ok()
                });
                let mut out = vec![*x.first()?, w.get(1)?.checked_mul(group)?];
                let plain = !node.texts.contains_key("auto_pad") && !node.numbers.contains_key("output_shape");
                let flops = 2.0 * product(&x) * product(&w[1..]);
                if let Some(long) = long.collect::<Option<Shape>>().filter(|_| plain) {
                    out.extend(long);
                    self.give(node, 0, Some(out));
                }
                Some(flops)
            }
            "LSTM" | "GRU" | "RNN" => {
                let (x, w, r) =
                    (self.shape(node, 0)?.clone(), self.shape(node, 1)?.clone(), self.shape(node, 2)?.clone());
                let ([steps, batch, input], [directions, gates, _]) = (x[..].try_into().ok()?, w[..].try_into().ok()?);
                let (steps, batch, input, directions, gates): (u64, u64, u64, u64, u64) =
                    (steps, batch, input, directions, gates);
                let hidden = *r.get(2)?;
                self.give(node, 0, Some(vec![steps, directions, batch, hidden]));
                self.give(node, 1, Some(vec![directions, batch, hidden]));
                self.give(node, 2, Some(vec![directions, batch, hidden]));
                Some(2.0 * product(&[steps, batch, directions, gates, input + hidden]))
            }
            _ => None,
        }
    }

    /// Shapes and values of what an operator gives, where they follow.
    fn follow(&mut self, node: &FileNode) {
        let operator = node.operator.as_str();
        if SAME.contains(&operator) {
            let shape = self.shape(node, 0).cloned();
            self.give(node, 0, shape);
            if let ("Identity" | "Cast", Some(values), Some(name)) =
                (operator, self.values(node, 0).cloned(), node.outputs.first())
            {
                self.values.insert(name.clone(), values);
            }
            return;
        }
        if BROADCAST.contains(&operator) {
            let all: Option<Vec<&Shape>> = node.inputs.iter().map(|name| self.shapes.get(name)).collect();
            let shape = all.and_then(|all| broadcast(all.into_iter()));
            self.give(node, 0, shape);
            return;
        }
        let made = self.made(node);
        if let (Some(values), Some(name)) = (self.computed(node), node.outputs.first()) {
            self.values.insert(name.clone(), values);
        }
        self.give(node, 0, made);
    }

    /// Values of whole numbers that are made of shapes.
    fn computed(&self, node: &FileNode) -> Option<Vec<i64>> {
        match node.operator.as_str() {
            "Shape" => Some(self.shape(node, 0)?.iter().map(|&n| n as i64).collect()),
            "Gather" => {
                let (from, places) = (self.values(node, 0)?, self.values(node, 1)?);
                let place = |&i: &i64| usize::try_from(if i < 0 { i + from.len() as i64 } else { i }).ok();
                places.iter().map(|i| from.get(place(i)?).copied()).collect()
            }
            "Concat" => {
                let all: Option<Vec<&Vec<i64>>> = node.inputs.iter().map(|name| self.values.get(name)).collect();
                Some(all?.into_iter().flatten().copied().collect())
            }
            "Unsqueeze" | "Squeeze" | "Reshape" => self.values(node, 0).cloned(),
            "Slice" => {
                let (from, begin, end) = (self.values(node, 0)?, self.values(node, 1)?, self.values(node, 2)?);
                let n = from.len() as i64;
                let at = |v: i64| usize::try_from(if v < 0 { v + n } else { v.min(n) }).ok();
                let plain = self.values(node, 4).is_none_or(|steps| *steps == [1]);
                from.get(at(*begin.first()?)?..at(*end.first()?)?).filter(|_| plain).map(<[i64]>::to_vec)
            }
            _ => None,
        }
    }

    /// The shape of an operator's first output.
    // Over 80 lines: one short arm for each operator.
    fn made(&self, node: &FileNode) -> Option<Shape> {
        let x = || self.shape(node, 0);
        let axis = |value: i64, rank: usize| usize::try_from(if value < 0 { value + rank as i64 } else { value }).ok();
        // axes stand in an attribute or, in later versions, in an input
        let axes = |rank: usize| -> Option<Vec<usize>> {
            let all = node.numbers.get("axes").or_else(|| self.values(node, 1))?;
            all.iter().map(|&a| axis(a, rank)).collect()
        };
        match node.operator.as_str() {
            "MaxPool" | "AveragePool" | "LpPool" => {
                let kernel: Shape = node.numbers.get("kernel_shape")?.iter().map(|&n| n.unsigned_abs()).collect();
                window(node, x()?, &kernel, *x()?.get(1)?)
            }
            "GlobalAveragePool" | "GlobalMaxPool" => {
                Some(x()?.iter().enumerate().map(|(i, &n)| if i < 2 { n } else { 1 }).collect())
            }
            "Flatten" => {
                let at = axis(number(node, "axis", 1) as i64, x()?.len())?;
                Some(vec![x()?.get(..at)?.iter().product(), x()?[at..].iter().product()])
            }
            "Reshape" => {
                let (x, wanted) = (x()?, self.values(node, 1).or(node.numbers.get("shape"))?);
                let known: Option<Vec<u64>> = wanted
                    .iter()
                    .enumerate()
                    .map(|(i, &n)| if n == 0 { x.get(i).copied() } else { Some(n.max(1) as u64) })
                    .collect();
                let (mut shape, all) = (known?, x.iter().product::<u64>());
                if let Some(open) = wanted.iter().position(|n| *n == -1) {
                    shape[open] = all.checked_div(shape.iter().product())?;
                }
                (shape.iter().product::<u64>() == all).then_some(shape)
            }
            "Transpose" => {
                let x = x()?;
                let turned: Vec<i64> = (0..x.len() as i64).rev().collect();
                let order = node.numbers.get("perm").unwrap_or(&turned);
                order.iter().map(|&i| x.get(usize::try_from(i).ok()?).copied()).collect()
            }
            "Concat" => {
                let all: Vec<&Shape> = node.inputs.iter().map(|name| self.shapes.get(name)).collect::<Option<_>>()?;
                let mut shape = (*all.first()?).clone();
                let at = axis(*node.numbers.get("axis")?.first()?, shape.len())?;
                *shape.get_mut(at)? = all.iter().map(|s| s.get(at).copied()).sum::<Option<u64>>()?;
                Some(shape)
            }
            "Unsqueeze" => {
                let x = x()?;
                let rank = x.len() + node.numbers.get("axes").or_else(|| self.values(node, 1))?.len();
                let (axes, mut rest) = (axes(rank)?, x.iter());
                (0..rank).map(|i| if axes.contains(&i) { Some(1) } else { rest.next().copied() }).collect()
            }
            "Squeeze" => {
                let x = x()?;
                let axes = axes(x.len()).unwrap_or_else(|| (0..x.len()).filter(|&i| x[i] == 1).collect());
                Some(x.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, &n)| n).collect())
            }
            "Gather" => {
                let (x, places) = (x()?, self.shape(node, 1)?);
                let at = axis(node.numbers.get("axis").and_then(|a| a.first()).copied().unwrap_or(0), x.len())?;
                Some([x.get(..at)?, places, x.get(at + 1..)?].concat())
            }
            "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" => {
                let x = x()?;
                let axes = axes(x.len()).unwrap_or_else(|| (0..x.len()).collect());
                let keeps = number(node, "keepdims", 1) == 1;
                let all = x.iter().enumerate().filter(|(i, _)| keeps || !axes.contains(i));
                Some(all.map(|(i, &n)| if axes.contains(&i) { 1 } else { n }).collect())
            }
            "Slice" => {
                let x = x()?;
                let of = |name: &str, i: usize| node.numbers.get(name).or_else(|| self.values(node, i)).cloned();
                let (begin, end) = (of("starts", 1)?, of("ends", 2)?);
                let along = of("axes", 3).unwrap_or_else(|| (0..begin.len() as i64).collect());
                let steps = of("steps", 4).unwrap_or_else(|| vec![1; begin.len()]);
                let mut shape = x.clone();
                for (((begin, end), along), step) in begin.iter().zip(&end).zip(&along).zip(&steps) {
                    let length = shape.get_mut(axis(*along, x.len())?)?;
                    let n = i64::try_from(*length).ok()?;
                    let at = |v: i64| if v < 0 { v.saturating_add(n) } else { v }.clamp(0, n);
                    // backwards slices are rare
                    let step = Some(*step).filter(|step| *step > 0)?;
                    *length = u64::try_from((at(*end) - at(*begin) + step - 1) / step).unwrap_or(0);
                }
                Some(shape)
            }
            "Shape" => Some(vec![x()?.len() as u64]),
            "ConstantOfShape" | "Expand" => {
                let place = if node.operator == "Expand" { 1 } else { 0 };
                let shape: Shape =
                    self.values(node, place)?.iter().map(|&n| u64::try_from(n).ok()).collect::<Option<_>>()?;
                if place == 1 { broadcast([x()?, &shape].into_iter()) } else { Some(shape) }
            }
            _ => None,
        }
    }
}

fn number(node: &FileNode, name: &str, otherwise: u64) -> u64 {
    node.numbers.get(name).and_then(|n| u64::try_from(*n.first()?).ok()).unwrap_or(otherwise)
}

fn numbers(node: &FileNode, name: &str, n: usize, otherwise: i64) -> Vec<i64> {
    node.numbers.get(name).filter(|all| all.len() == n).cloned().unwrap_or_else(|| vec![otherwise; n])
}

/// What a window that moves over `x` leaves: `[rows, channels, ..]`.
fn window(node: &FileNode, x: &[u64], kernel: &[u64], channels: u64) -> Option<Shape> {
    let n = kernel.len();
    let (strides, dilations) = (numbers(node, "strides", n, 1), numbers(node, "dilations", n, 1));
    let pads = numbers(node, "pads", 2 * n, 0);
    let same = node.texts.get("auto_pad").is_some_and(|text| text.starts_with("SAME"));
    let up = number(node, "ceil_mode", 0) == 1;
    let mut out = vec![*x.first()?, channels];
    for i in 0..n {
        let (long, stride) = (i64::try_from(*x.get(i + 2)?).ok()?, strides[i].max(1));
        let covered = dilations[i].checked_mul(i64::try_from(kernel[i]).ok()?.checked_sub(1)?)?.checked_add(1)?;
        let free = long.checked_add(pads[i])?.checked_add(pads[i + n])?.checked_sub(covered)?;
        let places = match (same, up) {
            (true, _) => long.checked_add(stride - 1)? / stride,
            (false, true) => free.checked_add(stride - 1)? / stride + 1,
            (false, false) => free / stride + 1,
        };
        out.push(u64::try_from(places).ok().filter(|_| same || free >= 0)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use prost::Message;

    use super::*;
    use crate::graph::cost::Workload;
    use crate::models::Model;
    use crate::onnx::{self, proto, small};

    fn counted(model: &proto::Model, inputs: &[(&str, &[usize])]) -> Result<f64, String> {
        let header = Header::read(Cursor::new(model.encode_to_vec())).unwrap();
        flops(&header, &inputs.iter().map(|(name, shape)| (*name, shape.to_vec())).collect())
    }

    #[test]
    fn products_are_counted_where_shapes_follow() {
        assert_eq!(counted(&small::product(), &[("x", &[5, 4])]), Ok(2.0 * 5.0 * 3.0 * 4.0));
        let mut conv = small::node("Conv", &["x", "w"], &["c"]);
        let ints = |name: &str, ints: &[i64]| proto::Attribute {
            name: Some(name.into()),
            ints: ints.to_vec(),
            r#type: Some(7),
            ..proto::Attribute::default()
        };
        conv.attribute = vec![ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2])];
        let nodes = vec![
            conv,
            small::node("Relu", &["c"], &["r"]),
            small::node("GlobalAveragePool", &["r"], &["g"]),
            small::node("Flatten", &["g"], &["f"]),
            small::node("MatMul", &["f", "v"], &["y"]),
        ];
        let weights = vec![small::floats("w", &[6, 3, 3, 3], &[0.0; 162]), small::floats("v", &[6, 10], &[0.0; 60])];
        let model = small::model(
            nodes,
            weights,
            vec![small::value("x", 1, &["1", "3", "8", "8"])],
            vec![small::value("y", 1, &["1", "10"])],
        );
        let want = 2.0 * (6.0 * 16.0) * 27.0 + 2.0 * 10.0 * 6.0;
        assert_eq!(counted(&model, &[("x", &[1, 3, 8, 8])]), Ok(want));
        let mut lost = small::product();
        lost.graph.as_mut().unwrap().node.insert(0, small::node("NonZero", &["x"], &["z"]));
        lost.graph.as_mut().unwrap().node[1].input[0] = "z".into();
        let why = counted(&lost, &[("x", &[5, 4])]).unwrap_err();
        assert!(why.contains("shapes of `MatMul` (`y`)"), "{why}");
    }

    #[test]
    fn what_cannot_be_counted_is_named() {
        // weights of fewer axes than the standard asks for
        for operator in ["Conv", "ConvTranspose", "ConvInteger"] {
            for (dims, values) in [(&[3][..], &[0.0; 3][..]), (&[], &[0.0]), (&[2, 2], &[0.0; 4])] {
                let model = small::model(
                    vec![small::node(operator, &["x", "w"], &["y"])],
                    vec![small::floats("w", dims, values)],
                    vec![small::value("x", 1, &["1", "4", "8", "8"])],
                    vec![small::value("y", 1, &["1", "4"])],
                );
                let _ = counted(&model, &[("x", &[1, 4, 8, 8])]);
                assert!(dims.len() == 2 || counted(&model, &[("x", &[1, 4, 8, 8])]).is_err(), "{operator} {dims:?}");
            }
        }
        // a function of the file's own, and an operator of another standard
        let mut model = small::product();
        model.graph.as_mut().unwrap().node[0].domain = Some("loc".into());
        let why = counted(&model, &[("x", &[5, 4])]).unwrap_err();
        assert!(why.contains("`loc.MatMul`") && why.contains("standard"), "{why}");
        let mut model = small::product();
        model.graph.as_mut().unwrap().node[0].op_type = Some("Attention".into());
        assert!(counted(&model, &[("x", &[5, 4])]).unwrap_err().contains("`Attention`"));
    }

    /// Our exporter's files, whose cost the graph knows.
    #[test]
    fn an_exported_net_costs_what_its_graph_says() {
        let config = serde_json::json!({"model_type": "encoder", "seq_len": 16, "vocab_size": 6, "hidden_size": 16, "num_layers": 2,
            "num_heads": 2, "expansion": 1.0, "pos_encodings": "learned"});
        let model = Model::random(&config, 7).unwrap();
        let graph = model.graph().unwrap();
        let exported = onnx::export(graph, &model.params, &onnx::Form::default()).unwrap();
        let header = Header::read(Cursor::new(&exported.model)).unwrap();
        let found = flops(&header, &[("inputs", vec![1, 16])].into());
        assert_eq!(found, Ok(exported.flops_per_row));
        assert!(graph.cost(&Workload::one()).flops_steps > 0.0);
    }
}
