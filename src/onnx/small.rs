//! Small ONNX files for tests, written by hand.
//!
//! In: operators, inputs, outputs, constants. Out: bytes. Must not: check that they make sense.

use prost::Message;

use super::proto::*;

/// A value of a type's number, with lengths or names of its axes; a name that is empty leaves it out.
pub(crate) fn value(name: &str, element: i32, axes: &[&str]) -> ValueInfo {
    let dim = |axis: &&str| Dim {
        dim_value: axis.parse().ok(),
        dim_param: Some((*axis).to_owned()).filter(|a| !a.is_empty() && a.parse::<i64>().is_err()),
    };
    let shape = Some(Shape { dim: axes.iter().map(dim).collect() });
    let tensor_type = Some(TensorType { elem_type: Some(element), shape });
    ValueInfo { name: Some(name.into()), r#type: Some(Type { tensor_type }) }
}

/// An operator.
pub(crate) fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect();
    Node { input: names(inputs), output: names(outputs), op_type: Some(operator.into()), ..Node::default() }
}

/// A constant of floats.
pub(crate) fn floats(name: &str, dims: &[i64], values: &[f32]) -> Tensor {
    Tensor {
        dims: dims.to_vec(),
        data_type: Some(FLOAT),
        name: Some(name.into()),
        raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ..Tensor::default()
    }
}

/// A file of this graph.
pub(crate) fn model(node: Vec<Node>, initializer: Vec<Tensor>, input: Vec<ValueInfo>, output: Vec<ValueInfo>) -> Model {
    let graph = Graph { node, name: Some("small".into()), initializer, doc_string: None, input, output };
    Model {
        ir_version: Some(8),
        producer_name: Some("by hand".into()),
        producer_version: Some("1".into()),
        graph: Some(graph),
        opset_import: vec![OperatorSet { domain: Some(String::new()), version: Some(17) }],
        metadata_props: vec![Entry { key: Some("note".into()), value: Some("a test".into()) }],
    }
}

/// `y[N, 3] = x[N, 4] w`
pub(crate) fn product() -> Model {
    let w: Vec<f32> = (0..12).map(|i| i as f32 / 4.0 - 1.0).collect();
    model(
        vec![node("MatMul", &["x", "w"], &["y"])],
        vec![floats("w", &[4, 3], &w)],
        vec![value("x", FLOAT, &["N", "4"])],
        vec![value("y", FLOAT, &["N", "3"])],
    )
}

/// `hn = h + x`, `y = hn * 2`: with `h` fed back, twice the sum of all `x` so far. The state's rows are its second axis.
pub(crate) fn sum() -> Model {
    model(
        vec![
            node("Unsqueeze", &["x", "front"], &["row"]),
            node("Add", &["h", "row"], &["hn"]),
            node("Squeeze", &["hn", "front"], &["flat"]),
            node("Add", &["flat", "flat"], &["y"]),
        ],
        vec![Tensor {
            dims: vec![1],
            data_type: Some(INT64),
            name: Some("front".into()),
            raw_data: Some(0i64.to_le_bytes().to_vec()),
            ..Tensor::default()
        }],
        vec![value("x", FLOAT, &["N", "2"]), value("h", FLOAT, &["1", "N", "2"])],
        vec![value("y", FLOAT, &["N", "2"]), value("hn", FLOAT, &["1", "N", "2"])],
    )
}

/// Writes a file into a folder; its path.
pub(crate) fn write(folder: &std::path::Path, name: &str, model: &Model) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, model.encode_to_vec()).expect("a file in a temporary folder");
    path
}
