//! ONNX files of every form that a user brings: half and whole-number arithmetic, recorded outputs in a `.npz`, versions that no engine
//! knows, weights beside the file and beyond 2 GB, outputs that are NaN, classes along another axis than the last.
//!
//! In: files that this test writes. Out: how cases end. Must not: need ONNX Runtime; where it is there, it is held to the same.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::process::Command;

use ergometer::onnx::proto::{self, FLOAT};
use ergometer_reports::case::{Case, ErrorKind, Verdict};
use prost::Message;

use crate::house::{House, ready};
use crate::onnx_files::{product, value};

const FLOAT16: i32 = 10;

fn engines() -> Vec<&'static str> {
    let both = ["tract", "onnxruntime"];
    both.into_iter().filter(|name| ready().iter().any(|b| b.name() == *name)).collect()
}

fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> proto::Node {
    let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect();
    proto::Node {
        input: names(inputs),
        output: names(outputs),
        op_type: Some(operator.into()),
        ..proto::Node::default()
    }
}

fn tensor(name: &str, element: i32, dims: &[i64], bytes: Vec<u8>) -> proto::Tensor {
    proto::Tensor {
        dims: dims.to_vec(),
        data_type: Some(element),
        name: Some(name.into()),
        raw_data: Some(bytes),
        ..proto::Tensor::default()
    }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

const ROWS: &str = "a,b,c,d,label\n0,0,0,1,2\n1,0,0,-1,0\n0,1,0,2,2\n0,0,3,-2,0\n1,1,0,1,2\n0,0,0,-3,0\n";

/// A suite of `net.onnx` on these rows.
fn suite(house: &House, name: &str, model: &str, inputs: &str, task: &str, cases: &str) -> std::path::PathBuf {
    let engines: Vec<String> = engines().iter().map(|e| format!("\"{e}\"")).collect();
    let text = format!(
        "[[model]]\nname = \"file\"\npath = \"net.onnx\"\n{model}[[task]]\nname = \"rows\"\nkind = \"arrays\"\ninputs = {{ {inputs} }}\n{task}\
         [[cases]]\nmodels = [\"file\"]\nbackends = [{}]\ntasks = [\"rows\"]\n{cases}",
        engines.join(", ")
    );
    house.suite(name, &text)
}

fn cases(house: &House, run: &str) -> Vec<Case> {
    let all = house.cases(run).into_values().collect::<Vec<_>>();
    assert_eq!(all.len(), engines().len());
    all
}

const TOP: &str = "labels = \"rows.csv:label\"\nscorer = \"top-1\"\nclasses = 3\n";

#[test]
fn files_in_half_precision_and_in_whole_numbers_run_on_every_engine() {
    let house = House::new();
    house.file("rows.csv", ROWS);
    // all of it in f16
    let mut half = product("Identity", FLOAT16);
    let graph = half.graph.as_mut().unwrap();
    let w: Vec<f32> = (0..12).map(|i| if i / 3 == 3 { (i % 3) as f32 - 1.0 } else { 0.25 }).collect();
    let bytes = w.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    graph.initializer[0] = tensor("w", FLOAT16, &[4, 3], bytes);
    graph.output[0] = value("y", FLOAT16, &["N", "3"]);
    // activations of 8 bits by each call's range, weights of 8 bits, as ONNX Runtime's quantiser writes them
    let mut whole = product("Identity", FLOAT);
    let graph = whole.graph.as_mut().unwrap();
    let bytes = w.iter().map(|v| (v * 100.0) as i8 as u8).collect();
    graph.initializer = vec![
        tensor("w", 3, &[4, 3], bytes),
        tensor("zero", 3, &[], vec![0]),
        tensor("scale", FLOAT, &[], floats(&[0.01])),
    ];
    let mut cast = node("Cast", &["p"], &["f"]);
    cast.attribute =
        vec![proto::Attribute { name: Some("to".into()), i: Some(1), r#type: Some(2), ..proto::Attribute::default() }];
    graph.node = vec![
        node("DynamicQuantizeLinear", &["x"], &["xq", "xs", "xz"]),
        node("MatMulInteger", &["xq", "w", "xz", "zero"], &["p"]),
        cast,
        node("Mul", &["f", "xs"], &["s"]),
        node("Mul", &["s", "scale"], &["y"]),
    ];
    for (model, precision, kind) in [(half, "f16", "f16"), (whole, "int8", "f32")] {
        house.file("net.onnx", model.encode_to_vec());
        let inputs = format!("x = {{ from = \"rows.csv:a..d\", kind = \"{kind}\" }}");
        let asked = format!("precisions = [\"{precision}\"]\nbatch = [3]\n");
        house.run(&suite(&house, "form.toml", "", &inputs, TOP, &asked), precision, &["--check"]).exits(0);
        for case in cases(&house, precision) {
            assert!(case.error.is_none(), "{}: {:?}", case.path, case.error);
            assert_eq!(case.file.as_ref().unwrap().precision, precision);
            let peers = matches!(case.verdict, Some(Verdict::Peer { .. }));
            assert_eq!(peers, engines().len() == 2, "{:?}", case.verdict);
        }
        let records = house.records(precision);
        engines().iter().for_each(|engine| assert_eq!(records.value(engine, "accuracy"), 1.0, "{engine} {precision}"));
        // it computes in this alone
        let asked = suite(&house, "other.toml", "", &inputs, TOP, "precisions = [\"bf16\"]\n");
        house.run(&asked, "other", &["--check"]).exits(1);
        for case in cases(&house, "other") {
            let error = case.error.unwrap();
            assert!(error.kind == ErrorKind::Unavailable && error.message.contains(precision), "{error:?}");
        }
        fs::remove_dir_all(house.path("other")).unwrap();
    }
}

/// Writes a `.npz` as numpy does, of arrays of f32.
fn npz(house: &House, name: &str, arrays: &str) {
    const WRITE: &str = r#"
import struct, sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as z:
    for name, (shape, values) in eval(sys.argv[2], {"nan": float("nan")}).items():
        head = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
        head += b" " * (-(len(head) + 11) % 64) + b"\n"
        z.writestr(name + ".npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + struct.pack(f"<{len(values)}f", *values))
"#;
    let mut python = Command::new("python3");
    let ended = python.args(["-I", "-c", WRITE]).arg(house.path(name)).arg(arrays).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn outputs_that_a_user_recorded_in_a_npz_judge_a_file() {
    let house = House::new();
    house.file("rows.csv", ROWS);
    house.file("net.onnx", product("Identity", FLOAT).encode_to_vec());
    let x = "'x': ((2, 4), [0, 0, 0, 1, 4, 0, 0, 0])";
    let run = |name: &str, y: &str| {
        npz(&house, "v.npz", &format!("{{{x}, {y}}}"));
        let suite = suite(&house, "v.toml", "vectors = \"v.npz\"\n", "x = \"rows.csv:a..d\"", TOP, "");
        house.run(&suite, name, &["--check"])
    };
    run("right", "'y': ((2, 3), [-1, 0, 1, 1, 1, 1])").exits(0);
    for case in cases(&house, "right") {
        let Some(Verdict::Peer { peer, largest, .. }) = &case.verdict else { panic!("{:?}", case.verdict) };
        assert!(peer == "the recorded outputs v.npz" && *largest < 1e-6 && case.compared[0].values == 6);
    }
    run("wrong", "'y': ((2, 3), [-1, 0, 1, 1, 1, 2])").exits(1);
    assert!(cases(&house, "wrong").iter().all(|c| c.error.as_ref().unwrap().kind == ErrorKind::Parity));
    // the user's files are at fault, not the engine
    run("none", "'z': ((2, 3), [-1, 0, 1, 1, 1, 2])").refused(&["v.npz", "no output is recorded", "called: y"]);
    run("none", "'y': ((2, 3), [-1, 0, nan, 1, 1, 2])").refused(&["v.npz", "y", "hint: "]);
    run("none", "'y': ((1, 3), [-1, 0, 1])").refused(&["v.npz", "`y`", "1 row", "2", "hint: "]);
}

#[test]
fn a_version_that_an_engine_does_not_know_makes_its_case_unavailable() {
    let house = House::new();
    house.file("rows.csv", ROWS);
    for (ir, opset) in [(99, 17), (8, 99)] {
        let mut model = product("Identity", FLOAT);
        model.ir_version = Some(ir);
        model.opset_import[0].version = Some(opset);
        house.file("net.onnx", model.encode_to_vec());
        let suite = suite(&house, "new.toml", "", "x = \"rows.csv:a..d\"", TOP, "may_be_unavailable = true\n");
        house.run(&suite, "new", &["--check"]).exits(0);
        for case in cases(&house, "new") {
            let facts = case.file.as_ref().unwrap();
            assert_eq!((facts.ir_version, facts.opsets.as_str()), (ir, opset.to_string().as_str()));
            // tract looks at no version
            if case.key.backend == "tract" && case.error.is_none() {
                continue;
            }
            let error = case.error.unwrap();
            let said = format!("IR version {ir}, operator set {opset}");
            assert!(error.kind == ErrorKind::Unavailable && error.message.contains(&said), "{error:?}");
        }
        fs::remove_dir_all(house.path("new")).unwrap();
    }
}

#[test]
fn weights_lie_beside_the_file_and_beyond_two_gigabytes() {
    let house = House::new();
    house.file("rows.csv", ROWS);
    let far: u64 = (2 << 30) + (64 << 20);
    for offset in [4096, far] {
        let mut model = product("Identity", FLOAT);
        let w = &mut model.graph.as_mut().unwrap().initializer[0];
        let bytes = w.raw_data.take().unwrap();
        w.data_location = Some(1);
        let entry = |key: &str, value: String| proto::Entry { key: Some(key.into()), value: Some(value) };
        w.external_data =
            vec![entry("location", "w.bin".into()), entry("offset", offset.to_string()), entry("length", "48".into())];
        house.file("net.onnx", model.encode_to_vec());
        // a hole, but for the weights
        let mut data = File::create(house.path("w.bin")).unwrap();
        data.seek(SeekFrom::Start(offset)).unwrap();
        data.write_all(&bytes).unwrap();
        drop(data);
        let suite = suite(&house, "data.toml", "", "x = \"rows.csv:a..d\"", TOP, "");
        house.run(&suite, "data", &["--check"]).exits(0);
        let records = house.records("data");
        engines().iter().for_each(|engine| assert_eq!(records.value(engine, "accuracy"), 1.0, "{engine} at {offset}"));
        fs::remove_dir_all(house.path("data")).unwrap();
        // cut off by a byte
        File::options().write(true).open(house.path("w.bin")).unwrap().set_len(offset + 47).unwrap();
        let short = [format!("has {} bytes", offset + 47), format!("reads {}", offset + 48)];
        house.run(&suite, "cut", &["--check"]).refused(&["w.bin", &short[0], &short[1], "hint: "]);
    }
}

#[test]
fn outputs_that_are_nan_are_no_answer() {
    let house = House::new();
    // the logarithm of a negative number, in the last row alone: the first ones are compared with the other engine
    let rows = "a,b,c,d,label\n4,0,0,0,0\n8,0,0,0,0\n4,0,0,0,0\n8,0,0,0,0\n4,0,0,0,0\n-4,0,0,0,0\n";
    house.file("rows.csv", rows);
    house.file("net.onnx", product("Log", FLOAT).encode_to_vec());
    let tasks = [
        ("top-1", TOP.to_owned()),
        ("exact", TOP.replace("top-1", "exact")),
        ("tokens", TOP.replace("top-1", "tokens")),
        ("iou", TOP.replace("top-1", "iou")),
        ("top-2", TOP.replace("top-1", "top-2")),
    ];
    for (name, task) in tasks {
        let suite = suite(&house, "nan.toml", "", "x = \"rows.csv:a..d\"", &task, "");
        house.run(&suite, name, &["--check"]).exits(1);
        for case in cases(&house, name) {
            let error = case.error.unwrap();
            let said = ["example 5", "output `y` holds NaN at element 0 of 3", "no answer can be read"];
            assert!(error.kind == ErrorKind::WrongOutput, "{name}: {error:?}");
            assert!(said.iter().all(|part| error.message.contains(part)), "{name}: {error:?}");
        }
    }
}

#[test]
fn classes_may_stand_along_any_axis() {
    let house = House::new();
    let mut model = product("Identity", FLOAT);
    let graph = model.graph.as_mut().unwrap();
    graph.node = vec![node("Relu", &["x"], &["y"])];
    graph.initializer.clear();
    (graph.input, graph.output) =
        (vec![value("x", FLOAT, &["N", "3", "2"])], vec![value("y", FLOAT, &["N", "3", "2"])]);
    house.file("net.onnx", model.encode_to_vec());
    house.file(
        "cells.jsonl",
        "{\"x\": [[0, 1], [2, 0], [1, 5]], \"y\": [1, 2]}\n{\"x\": [[9, 1], [2, 8], [1, 5]], \"y\": [0, 1]}\n",
    );
    let task = |more: &str| format!("labels = \"cells.jsonl:y\"\nscorer = \"tokens\"\nclasses = 3\n{more}");
    let suite = |more: &str| suite(&house, "axis.toml", "", "x = \"cells.jsonl:x\"", &task(more), "");
    house.run(&suite("class_axis = 0\n"), "axis", &["--check"]).exits(0);
    let records = house.records("axis");
    engines().iter().for_each(|engine| assert_eq!(records.value(engine, "accuracy"), 1.0, "{engine}"));
    let said = ["labels up to 2", "shape [3, 2]", "hint: classes along axis 0", "`class_axis = 0`"];
    house.run(&suite(""), "none", &["--check"]).refused(&said);
    let said = ["classes along axis 2", "output `y`", "shape [3, 2]", "hint: "];
    house.run(&suite("class_axis = 2\n"), "none", &["--check"]).refused(&said);
    house.run(&suite("class_axis = -1\n"), "none", &["--check"]).refused(&["`class_axis`", "hint: "]);
}

#[test]
fn operations_that_cannot_be_counted_are_unavailable_and_parameters_stay() {
    let house = House::new();
    house.file("rows.csv", ROWS);
    let mut model = product("Identity", FLOAT);
    let product = &mut model.graph.as_mut().unwrap().node[0];
    product.op_type = Some("Einsum".into());
    product.attribute = vec![proto::Attribute {
        name: Some("equation".into()),
        s: Some(b"nk,km->nm".to_vec()),
        r#type: Some(3),
        ..proto::Attribute::default()
    }];
    house.file("net.onnx", model.encode_to_vec());
    house.run(&suite(&house, "sum.toml", "", "x = \"rows.csv:a..d\"", TOP, ""), "sum", &["--check"]).exits(0);
    let records = house.records("sum");
    for engine in engines() {
        assert_eq!(records.value(engine, "params_total"), 12.0, "{engine}");
        for metric in ["flops_model", "flop_rate"] {
            let record = records.get(engine, metric);
            let why = record.missing.as_ref().map(|m| m.message.clone()).unwrap_or_default();
            assert!(record.value.is_none() && why.contains("`Einsum`"), "{engine} {metric}: {record:?}");
        }
    }
}
