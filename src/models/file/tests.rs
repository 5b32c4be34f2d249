//! Headers of small files, what a suite binds of them, and files that are refused.
//!
//! In: files written by hand. Out: assertions on ports, rows and messages. Must not: load a library.

use std::path::Path;

use prost::Message;

use super::*;
use crate::onnx::proto;
use crate::onnx::small::{self, floats, node, value};

fn form(shape: &[(&str, u64)], batch: Option<&str>, state: &[(&str, &str)]) -> FileForm {
    FileForm {
        shape: shape.iter().map(|(k, v)| ((*k).into(), *v)).collect(),
        batch: batch.map(str::to_owned),
        state: state.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
    }
}

fn loaded(model: &proto::Model, form: &FileForm) -> Result<Model, String> {
    let folder = tempfile::tempdir().unwrap();
    Model::load_as(&small::write(folder.path(), "net.onnx", model), form).map_err(|e| e.to_string())
}

fn refused(model: &proto::Model, form: &FileForm, words: &[&str]) {
    let said = loaded(model, form).expect_err("refused");
    assert!(said.contains("net.onnx: ") && said.contains("hint: "), "{said}");
    assert!(words.iter().all(|w| said.contains(w)), "{words:?}: {said}");
}

#[test]
fn a_header_says_what_the_file_has() {
    let model = loaded(&small::product(), &FileForm::default()).unwrap();
    let file = model.file.as_ref().unwrap();
    let header = &file.header;
    assert_eq!((header.ir_version, header.opset(), header.producer.as_str()), (8, Some(17), "by hand 1"));
    assert_eq!((header.node_count, header.parameters(), header.constant_bytes()), (1, 12, 48));
    assert_eq!(header.operators["MatMul"], 1);
    assert_eq!((header.metadata["note"].as_str(), file.precision, file.rows), ("a test", "f32", Rows::Any));
    let [x] = &model.interface.inputs[..] else { panic!() };
    assert_eq!(
        (x.name.as_str(), x.kind, &x.shape[..], x.role),
        ("x", Some(ElementKind::F32), &[4][..], PortRole::Other)
    );
    assert_eq!(model.interface.outputs[0].shape, [3]);
    assert!(model.graph.is_none() && model.interface.one_shot());
    // constants that a file lists as inputs, as early ones had to, are none
    let mut old = small::product();
    old.graph.as_mut().unwrap().input.push(value("w", proto::FLOAT, &["4", "3"]));
    assert_eq!(loaded(&old, &FileForm::default()).unwrap().interface.inputs.len(), 1);
    // what the suite binds is part of what the model is
    let bound = loaded(&small::product(), &form(&[("N", 3)], None, &[])).unwrap();
    assert_eq!(bound.file.as_ref().unwrap().rows, Rows::Fixed(3));
    assert_ne!(bound.hash, model.hash);
}

#[test]
fn the_axis_of_rows_is_found_or_named() {
    let rows = |inputs: &[(&str, &[&str])], form: &FileForm| {
        let inputs: Vec<_> = inputs.iter().map(|(name, axes)| value(name, proto::FLOAT, axes)).collect();
        let outputs = vec![value("y", proto::FLOAT, &["1"]), value("hn", proto::FLOAT, &["1"])];
        let model = loaded(&small::model(vec![], vec![], inputs, outputs), form).unwrap();
        let file = model.file.unwrap();
        (file.rows, file.inputs.iter().map(|i| i.row(file.rows)).collect::<Vec<_>>())
    };
    let none = FileForm::default();
    assert_eq!(rows(&[("x", &["N", "4"]), ("m", &["N"])], &none), (Rows::Any, vec![vec![4], vec![]]));
    assert_eq!(rows(&[("x", &["", "4"]), ("m", &[])], &none), (Rows::Any, vec![vec![4], vec![]]));
    assert_eq!(rows(&[("x", &["1", "3", "8"])], &none), (Rows::Fixed(1), vec![vec![3, 8]]));
    assert_eq!(rows(&[("x", &["8", "4"]), ("m", &["8", "2"])], &none), (Rows::Fixed(8), vec![vec![4], vec![2]]));
    assert_eq!(rows(&[("x", &["8", "4"]), ("m", &["2"])], &none), (Rows::One, vec![vec![8, 4], vec![2]]));
    assert_eq!(rows(&[("x", &["8", "4"])], &form(&[], Some("none"), &[])), (Rows::One, vec![vec![8, 4]]));
    assert_eq!(rows(&[("x", &["N", "T"])], &form(&[("T", 5)], None, &[])), (Rows::Any, vec![vec![5]]));
    assert_eq!(rows(&[("x", &["", ""])], &form(&[("x.1", 5)], None, &[])), (Rows::Any, vec![vec![5]]));
    // frames of a sequence are no rows where the state has no such axis
    let frames = form(&[("T", 6)], None, &[("h", "hn")]);
    assert_eq!(rows(&[("x", &["T", "4"]), ("h", &["1", "8"])], &frames).0, Rows::Fixed(6));
    let state = form(&[], None, &[("h", "hn")]);
    assert_eq!(rows(&[("x", &["N", "4"]), ("h", &["2", "N", "8"])], &state).0, Rows::Any);
}

#[test]
fn what_cannot_be_used_is_refused_with_its_name() {
    let none = FileForm::default();
    let open = |axes: &[&str]| {
        small::model(vec![], vec![], vec![value("x", proto::FLOAT, axes)], vec![value("y", proto::FLOAT, &["N"])])
    };
    refused(
        &open(&["N", "seq"]),
        &none,
        &["input `x`", "open dimension `seq`", "shape = { seq = 128 }", "--shape seq=128"],
    );
    refused(&open(&["", "3", ""]), &none, &["open dimension `x.2`", "\"x.2\" = 128"]);
    refused(&open(&["N", "seq"]), &form(&[("sek", 3)], None, &[]), &["open dimension `seq`"]);
    refused(&open(&["N"]), &form(&[("sek", 3)], None, &[]), &["binds `sek`", "open are: `N`"]);
    refused(&open(&["N", "4"]), &form(&[], Some("M"), &[]), &["open dimension `M`", "did you mean N"]);
    refused(&small::sum(), &form(&[], None, &[("g", "hn")]), &["the input `g`", "did you mean h"]);
    refused(&small::sum(), &form(&[], None, &[("h", "hm")]), &["the output `hm`", "`hn`"]);
    refused(&open(&["N", "4294967296"]), &none, &["more than", "elements"]);
    for (element, word) in
        [(8, "takes string"), (14, "takes complex64"), (0, "takes no tensor"), (99, "an unknown type")]
    {
        let strings = small::model(vec![], vec![], vec![value("x", element, &["N"])], vec![value("y", 1, &["N"])]);
        refused(&strings, &none, &["input `x`", word]);
    }
    let mut shapeless = open(&["N"]);
    let ty = shapeless.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap();
    ty.tensor_type.as_mut().unwrap().shape = None;
    refused(&shapeless, &none, &["input `x` has no shape"]);
    let mut huge = small::product();
    huge.graph.as_mut().unwrap().initializer[0].dims = vec![1 << 40, 1 << 40];
    refused(&huge, &none, &["tensor `w`", "more than a file can hold"]);
    huge.graph.as_mut().unwrap().initializer[0].dims = vec![1_000_000_000, 3];
    refused(&huge, &none, &["tensor `w` holds 48 bytes, its shape says 12000000000"]);
    huge.graph.as_mut().unwrap().initializer[0].dims = vec![-1];
    refused(&huge, &none, &["tensor `w` of shape [-1]"]);
    let folder = tempfile::tempdir().unwrap();
    let e = Model::load_as(folder.path(), &form(&[("a", 1)], None, &[])).unwrap_err().to_string();
    assert!(e.contains("is no ONNX file") && e.contains("hint: "), "{e}");
}

#[test]
fn what_is_no_file_or_ends_too_soon_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    let said = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Model::load(&path).err().map(|e| e.to_string()).unwrap_or_default()
    };
    for bytes in [&b""[..], b"{\"a\": 1}", b"PK\x03\x04 and so on", b"version https://git-lfs.github.com/spec/v1\n"] {
        let text = said(bytes);
        assert!(text.contains("is no ONNX file") && text.contains("hint: "), "{text}");
    }
    let whole = small::product().encode_to_vec();
    assert_eq!(said(&whole), "");
    for cut in 3..whole.len() {
        let text = said(&whole[..cut]);
        // a cut between two fields of the file leaves one that is whole and says less
        assert!(
            text.is_empty() || text.contains("is cut off") || text.contains("is an ONNX file without a graph"),
            "{cut}: {text}"
        );
    }
    assert!(said(&whole[..whole.len() / 2]).contains("is cut off: at byte"));
    // a length that leaves its message
    let mut wrong = whole.clone();
    let at = wrong.windows(5).position(|w| w == b"small").unwrap();
    wrong[at - 1] = 0x7f;
    assert!(said(&wrong).contains("there should be a field of 127 bytes"), "{}", said(&wrong));
    wrong[at - 2] = 0x17;
    assert!(said(&wrong).contains("is damaged: at byte"), "{}", said(&wrong));
    let deep = (0..2000).fold(Vec::new(), |inner: Vec<u8>, _| {
        let field = |number: u8, bytes: &[u8]| {
            let mut all = vec![number << 3 | 2];
            prost::encoding::encode_varint(bytes.len() as u64, &mut all);
            all.extend(bytes);
            all
        };
        field(1, &field(5, &field(6, &inner)))
    });
    let mut file = vec![8, 8, 0x3a];
    prost::encoding::encode_varint(deep.len() as u64, &mut file);
    file.extend(deep);
    assert!(said(&file).contains("graphs within graphs"), "{}", said(&file));
}

#[test]
fn data_beside_the_file_are_there_whole_and_inside_the_folder() {
    let outside = |location: &str| {
        let mut model = small::product();
        let w = &mut model.graph.as_mut().unwrap().initializer[0];
        w.raw_data = None;
        w.data_location = Some(1);
        let entry = |key: &str, value: &str| proto::Entry { key: Some(key.into()), value: Some(value.into()) };
        w.external_data = vec![entry("location", location), entry("offset", "4"), entry("length", "48")];
        model
    };
    let folder = tempfile::tempdir().unwrap();
    let said = |model: &proto::Model| {
        let path = small::write(folder.path(), "net.onnx", model);
        Model::load(&path).map(|m| m.hash).map_err(|e| e.to_string())
    };
    let missing = said(&outside("w.bin")).unwrap_err();
    assert!(missing.contains("`w.bin`, which is not beside it") && missing.contains("hint: copy `w.bin`"), "{missing}");
    for location in ["../w.bin", "/etc/passwd", "a/../../w.bin", ""] {
        let escaped = said(&outside(location)).unwrap_err();
        assert!(escaped.contains("outside its folder") && escaped.contains("hint: "), "{location}: {escaped}");
    }
    let data = folder.path().join("w.bin");
    std::fs::write(&data, [0; 51]).unwrap();
    let short = said(&outside("w.bin")).unwrap_err();
    assert!(short.contains("w.bin: has 51 bytes, and the model reads 52"), "{short}");
    std::fs::write(&data, [0; 52]).unwrap();
    let zeros = said(&outside("w.bin")).unwrap();
    std::fs::write(&data, [1; 52]).unwrap();
    assert_ne!(said(&outside("w.bin")).unwrap(), zeros, "the data are in the hash");
}

#[test]
fn tokens_and_logits_are_known_by_name_or_because_nothing_else_is_there() {
    let ids = |input: &str, output: &str| {
        let inputs = vec![value(input, proto::INT64, &["N", "16"])];
        let outputs = vec![value(output, proto::FLOAT, &["N", "16", "7"])];
        loaded(&small::model(vec![], vec![], inputs, outputs), &FileForm::default()).unwrap().interface
    };
    for interface in [ids("inputs", "logits"), ids("input_ids", "scores")] {
        let tokens = interface.tokens().unwrap();
        assert_eq!((tokens.length.clone(), tokens.below()), (Length::Fixed(16), Some(7)));
        let logits = interface.logits().unwrap();
        assert_eq!((logits.length.clone(), logits.features), (Length::Fixed(16), 7));
        interface.feeds().unwrap();
    }
    let floats_only = loaded(&small::product(), &FileForm::default()).unwrap().interface;
    assert!(floats_only.tokens().is_err() && floats_only.feeds().is_err());
}

#[test]
fn the_precision_is_that_of_the_weights_or_of_whole_number_operators() {
    let of = |element: i32, operator: &str| {
        let mut model = small::product();
        let graph = model.graph.as_mut().unwrap();
        graph.initializer[0].data_type = Some(element);
        graph.initializer[0].raw_data = None;
        graph.node.push(node(operator, &["y"], &["z"]));
        graph.initializer.push(floats("scale", &[1], &[1.0]));
        loaded(&model, &FileForm::default()).unwrap().file.unwrap().precision
    };
    assert_eq!([of(1, "Relu"), of(10, "Relu"), of(16, "Relu"), of(3, "MatMulInteger")], ["f32", "f16", "bf16", "int8"]);
    assert!(is_onnx(Path::new("a.ONNX")) && !is_onnx(Path::new("a.onnx.json")));
}
