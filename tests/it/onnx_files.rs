//! ONNX files as models: the exported net answers as the net does, engines are held to each other, arrays go in, bad files are refused.
//!
//! In: files that our exporter or this test writes. Out: answers, verdicts, records, messages. Must not: need ONNX Runtime; where it is
//! there, more is asserted.

use std::collections::BTreeMap;
use std::fs;

use ergometer::onnx::proto::{self, FLOAT};
use ergometer_reports::case::{Case, ErrorKind, Verdict};
use prost::Message;

use crate::house::{House, ready};

fn has(name: &str) -> bool {
    ready().iter().any(|b| b.name() == name)
}

pub fn value(name: &str, element: i32, axes: &[&str]) -> proto::ValueInfo {
    let dim = |axis: &&str| proto::Dim {
        dim_value: axis.parse().ok(),
        dim_param: Some((*axis).to_owned()).filter(|a| a.parse::<i64>().is_err()),
    };
    let shape = Some(proto::Shape { dim: axes.iter().map(dim).collect() });
    let tensor_type = Some(proto::TensorType { elem_type: Some(element), shape });
    proto::ValueInfo { name: Some(name.into()), r#type: Some(proto::Type { tensor_type }) }
}

/// `y[N, 3] = operator(x[N, 4] w)`, where only the last of `x` decides the class.
pub fn product(operator: &str, input: i32) -> proto::Model {
    let node = |operator: &str, inputs: &[&str], outputs: &[&str]| proto::Node {
        input: inputs.iter().map(|n| (*n).into()).collect(),
        output: outputs.iter().map(|n| (*n).into()).collect(),
        op_type: Some(operator.into()),
        ..proto::Node::default()
    };
    let w: Vec<u8> =
        (0..12).flat_map(|i| (if i / 3 == 3 { (i % 3) as f32 - 1.0 } else { 0.25 }).to_le_bytes()).collect();
    let w = proto::Tensor {
        dims: vec![4, 3],
        data_type: Some(FLOAT),
        name: Some("w".into()),
        raw_data: Some(w),
        ..proto::Tensor::default()
    };
    let graph = proto::Graph {
        node: vec![node("MatMul", &["x", "w"], &["p"]), node(operator, &["p"], &["y"])],
        name: Some("product".into()),
        initializer: vec![w],
        doc_string: None,
        input: vec![value("x", input, &["N", "4"])],
        output: vec![value("y", FLOAT, &["N", "3"])],
    };
    proto::Model {
        ir_version: Some(8),
        producer_name: Some("a test".into()),
        producer_version: None,
        graph: Some(graph),
        opset_import: vec![proto::OperatorSet { domain: Some(String::new()), version: Some(17) }],
        metadata_props: Vec::new(),
    }
}

const FILE: &str = "[[model]]\nname = \"file\"\npath = \"net.onnx\"\n";

#[test]
fn an_exported_net_answers_as_the_net_itself_and_engines_are_held_to_each_other() {
    let house = House::new();
    house.ergometer(&["export", "--model", "dense", "--to", "onnx", "net.onnx"]).exits(0);
    let both = has("onnxruntime");
    let engines = if both { "\"tract\", \"onnxruntime\"" } else { "\"tract\"" };
    let cases = format!(
        "{FILE}[defaults]\ntasks = [\"small\"]\nseconds = 0.02\nwarmup_seconds = 0\niterations = 2\n\
         [[cases]]\nmodels = [\"dense\"]\nbackends = [\"native\"]\n\
         [[cases]]\nmodels = [\"file\"]\nbackends = [{engines}]\nbatch = [1, 3]\n\
         [[cases]]\nmodels = [\"file\"]\nbackends = [\"native\"]\nmay_be_unavailable = true\n"
    );
    let suite = house.suite("files.toml", &cases);
    house.run(&suite, "run", &[]).exits(0);
    let mut answers: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = 0;
    for entry in fs::read_dir(house.path("run/cases")).unwrap() {
        let folder = entry.unwrap().path();
        let case: Case = serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap();
        if case.key.model == "file" && case.key.backend == "native" {
            let error = case.error.as_ref().unwrap();
            assert!(error.kind == ErrorKind::Unavailable && error.message.contains("loads no file"), "{error:?}");
            continue;
        }
        assert!(case.error.is_none(), "{}: {:?}", case.path, case.error);
        if case.accuracy_from.as_ref() == Some(&case.id) {
            answers.insert(case.path.clone(), fs::read_to_string(folder.join("predictions.csv")).unwrap());
        }
        if case.key.model != "file" {
            continue;
        }
        seen += 1;
        let facts = case.file.as_ref().expect("what the file says of itself");
        assert_eq!((facts.ir_version, facts.opsets.as_str(), facts.precision.as_str()), (8, "17", "f32"));
        assert!(facts.producer.starts_with("ergometer") && facts.nodes > 10 && facts.operators.contains_key("MatMul"));
        assert!(facts.parameters > 1000 && facts.rows == "any" && facts.metadata.contains_key("family"), "{facts:?}");
        assert_eq!(case.key.family, "opaque");
        match (&case.verdict, both) {
            (Some(Verdict::Peer { peer, largest, limit }), true) => {
                let other = if case.key.backend == "tract" { "onnxruntime" } else { "tract" };
                assert!(peer == other && largest <= limit, "{peer} {largest}");
                let compared = &case.compared[..];
                assert_eq!(compared.iter().map(|c| c.output.as_str()).collect::<Vec<_>>(), ["logits"]);
                assert_eq!(compared[0].values, 4 * 16 * 6);
                assert!(compared[0].cosine.unwrap() > 0.9999 && compared[0].mean <= compared[0].largest);
            }
            (Some(Verdict::AccuracyOnly), false) => {
                let why = case.unavailable.iter().find(|u| u.metric == "parity_error").unwrap();
                assert!(why.reason.contains("nobody compared its outputs"), "{}", why.reason);
            }
            (other, _) => panic!("{}: {other:?}", case.path),
        }
    }
    assert_eq!(seen, if both { 4 } else { 2 });
    let first = answers.values().next().unwrap().clone();
    assert!(answers.len() >= 2 && answers.values().all(|a| *a == first), "{:?}", answers.keys());
}

#[test]
fn arrays_go_into_a_file_and_classes_come_out() {
    let house = House::new();
    house.file("net.onnx", product("Identity", FLOAT).encode_to_vec());
    let rows = "a,b,c,d,label\n0,0,0,1,2\n1,0,0,-1,0\n0,1,0,2,2\n0,0,3,-2,0\n";
    house.file("rows.csv", rows);
    let task = "[[task]]\nname = \"rows\"\nkind = \"arrays\"\ninputs = { x = \"rows.csv:a..d\" }\nlabels = \"rows.csv:label\"\nscorer = \"top-1\"\nclasses = 3\n\
                [[task]]\nname = \"noise\"\nkind = \"arrays\"\nexamples = 3\nrandom = { x = { kind = \"f32\", shape = [4] } }\n\
                [[task]]\nname = \"short\"\nkind = \"arrays\"\nexamples = 3\nrandom = { x = { kind = \"f32\", shape = [5] } }\n\
                [[task]]\nname = \"other\"\nkind = \"arrays\"\nexamples = 3\nrandom = { z = { kind = \"f32\", shape = [4] } }\n\
                [[task]]\nname = \"whole\"\nkind = \"arrays\"\nexamples = 3\nrandom = { x = { kind = \"i64\", shape = [4] } }\n";
    let suite = |name: &str, tasks: &str| {
        let text = format!(
            "{FILE}{task}[[cases]]\nmodels = [\"file\"]\nbackends = [\"tract\"]\nbatch = [1, 2]\ntasks = [{tasks}]\n"
        );
        house.suite(name, &text)
    };
    house.run(&suite("rows.toml", "\"rows\", \"noise\""), "run", &["--check"]).exits(0);
    for folder in fs::read_dir(house.path("run/cases")).unwrap().map(|e| e.unwrap().path()) {
        let case: Case = serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap();
        assert!(case.error.is_none(), "{}: {:?}", case.path, case.error);
        if case.key.task == "rows" && case.accuracy_from.as_ref() == Some(&case.id) {
            let told = fs::read_to_string(folder.join("predictions.csv")).unwrap();
            let mut lines = told.lines();
            let column = lines.next().unwrap().split(',').position(|name| name == "exact").unwrap();
            let right: Vec<&str> = lines.map(|line| line.split(',').nth(column).unwrap()).collect();
            assert!(right.len() == 4 && right.iter().all(|r| ["1", "true"].contains(r)), "{told}");
        }
        if case.key.task == "noise" {
            assert!(case.notes.iter().any(|n| n.contains("random numbers")), "{:?}", case.notes);
        }
    }
    let refused = |task: &str, parts: &[&str]| {
        house.run(&suite("wrong.toml", task), "wrong", &["--check"]).refused(parts);
    };
    refused("\"short\"", &["task `short`, example 0", "input `x` takes f32 [4]", "is given f32 [5]", "hint: "]);
    refused("\"other\"", &["brings the input `z`", "model `file`", "it takes `x`"]);
    refused("\"whole\"", &["input `x` takes f32 [4]", "is given i64 [4]"]);
}

#[test]
fn time_takes_a_file_with_random_inputs_and_bounds_the_whole() {
    let house = House::new();
    let mut open = product("Identity", FLOAT);
    open.graph.as_mut().unwrap().input[0] = value("x", FLOAT, &["N", "width"]);
    house.file("net.onnx", open.encode_to_vec());
    let time = |more: &[&str]| {
        let args = [&["time", "--model", "net.onnx", "--backend", "tract", "--seconds", "0.4"], more].concat();
        house.ergometer(&args)
    };
    time(&[]).refused(&["net.onnx", "open dimension `width`", "--shape width=128"]);
    time(&["--shape", "widht=4"]).refused(&["open dimension `width`"]);
    time(&["--shape", "width=0"]).refused(&["--shape"]);
    let ended = time(&["--shape", "width=4", "--batch", "2"]);
    ended.exits(0);
    assert!(ended.stderr.contains("inputs are random: `x` f32 [4] from -1 to 1"), "{}", ended.stderr);
    assert!(ended.stdout.contains("latency") && ended.stdout.contains("checked: "), "{}", ended.stdout);
    time(&["--shape", "width=4", "--depth", "fixed-3"]).refused(&["`--depth fixed-3`", "`once`", "hint: "]);
    time(&["--shape", "width=4", "--batch", "20000"]).exits(0);
    // two inputs, of which one has no rows: a flag says what counts them
    let mut mixed = product("Identity", FLOAT);
    let graph = mixed.graph.as_mut().unwrap();
    graph.input.push(value("b", FLOAT, &["3"]));
    graph.node[1].op_type = Some("Add".into());
    graph.node[1].input.push("b".into());
    house.file("mixed.onnx", mixed.encode_to_vec());
    let mixed = |command: &[&str]| house.ergometer(&[command, &["--rows", "N"]].concat());
    let args = ["time", "--model", "mixed.onnx", "--backend", "tract", "--seconds", "0.4"];
    house.ergometer(&args).refused(&["open dimension `N`", "`batch = \"N\"`", "`--rows N`"]);
    mixed(&args).exits(0);
    mixed(&["init", "mixed.onnx"]).exits(0);
    assert!(fs::read_to_string(house.path("mixed.toml")).unwrap().contains("batch = \"N\""));
    house.ergometer(&["run", "mixed.toml", "--dry-run"]).exits(0);
    let other = time(&["--shape", "width=4", "--precision", "bf16"]);
    assert!(other.stdout.contains("the file computes in f32, not in bf16"), "{other:?}");
}

#[test]
fn files_that_cannot_be_used_are_refused_by_name() {
    let house = House::new();
    let run = |bytes: &[u8], more: &str, parts: &[&str]| {
        house.file("net.onnx", bytes);
        let text = format!(
            "[[model]]\nname = \"file\"\npath = \"net.onnx\"\n{more}[[cases]]\nmodels = [\"file\"]\nbackends = [\"tract\"]\ntasks = [\"small\"]\n"
        );
        house.run(&house.suite("bad.toml", &text), "bad", &["--check"]).refused(parts);
    };
    let whole = product("Identity", FLOAT).encode_to_vec();
    run(b"not one", "", &["net.onnx: is no ONNX file", "hint: "]);
    run(&whole[..whole.len() - 9], "", &["net.onnx: is cut off", "hint: "]);
    run(&product("Identity", 8).encode_to_vec(), "", &["input `x` takes string", "hint: "]);
    run(&whole, "state = { x = \"yy\" }\n", &["the output `yy`", "it has `y`"]);
    run(&whole, "batch = \"M\"\n", &["no input has the open dimension `M`", "did you mean N"]);
    run(&whole, "shape = { N = 0 }\n", &["`shape`", "lengths by name"]);
    run(&whole, "", &["no input for tokens", "hint: "]);
    // an operator that the engine lacks is no bad input: the case says so
    house.file("net.onnx", product("Frobnicate", FLOAT).encode_to_vec());
    let noise = "[[task]]\nname = \"noise\"\nkind = \"arrays\"\nexamples = 2\nrandom = { x = { kind = \"f32\", shape = [4] } }\n";
    let suite = house.suite(
        "op.toml",
        &format!("{FILE}{noise}[[cases]]\nmodels = [\"file\"]\nbackends = [\"tract\"]\ntasks = [\"noise\"]\n"),
    );
    house.run(&suite, "op", &["--check"]).exits(1);
    let error = house.cases("op")["tract"].error.clone().unwrap();
    assert!(error.kind == ErrorKind::Unavailable && error.message.contains("lacks `Frobnicate`"), "{error:?}");
}

#[test]
fn recorded_outputs_judge_a_file() {
    let house = House::new();
    house.file("net.onnx", product("Identity", FLOAT).encode_to_vec());
    fs::create_dir(house.path("vec")).unwrap();
    let tensor = |name: &str, dims: &[i64], values: &[f32]| {
        let tensor = proto::Tensor {
            dims: dims.to_vec(),
            data_type: Some(FLOAT),
            name: Some(name.into()),
            raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            ..proto::Tensor::default()
        };
        tensor.encode_to_vec()
    };
    let noise = "[[task]]\nname = \"noise\"\nkind = \"arrays\"\nexamples = 2\nrandom = { x = { kind = \"f32\", shape = [4] } }\n";
    let suite = house.suite(
        "recorded.toml",
        &format!("{FILE}vectors = \"vec\"\n{noise}[[cases]]\nmodels = [\"file\"]\nbackends = [\"tract\"]\ntasks = [\"noise\"]\n"),
    );
    house.run(&suite, "none", &["--check"]).refused(&["input `x` is not recorded", "hint: "]);
    house.file("vec/input_0.pb", tensor("x", &[2, 4], &[0.0, 0.0, 0.0, 1.0, 4.0, 0.0, 0.0, 0.0]));
    house.run(&suite, "none", &["--check"]).refused(&["no output is recorded", "hint: "]);
    house.file("vec/output_0.pb", tensor("y", &[2, 3], &[-1.0, 0.0, 1.0, 1.0, 1.0, 1.0]));
    house.run(&suite, "right", &["--check"]).exits(0);
    let case = &house.cases("right")["tract"];
    match &case.verdict {
        Some(Verdict::Peer { peer, largest, .. }) => assert!(peer == "the recorded outputs vec" && *largest < 1e-6),
        other => panic!("{other:?}"),
    }
    assert_eq!((case.compared.len(), case.compared[0].values), (1, 6));
    house.file("vec/output_0.pb", tensor("y", &[2, 3], &[-1.0, 0.0, 1.0, 1.0, 1.0, 1.25]));
    house.run(&suite, "wrong", &["--check"]).exits(1);
    let error = house.cases("wrong")["tract"].error.clone().unwrap();
    assert!(error.kind == ErrorKind::Parity && error.message.contains("output `y` is 2.000e-1"), "{error:?}");
    house.file("vec/input_0.pb", tensor("x", &[2, 5], &[0.0; 10]));
    house.run(&suite, "none", &["--check"]).refused(&["`x`", "[5]", "[4]"]);
    house.file("vec/input_0.pb", "no tensor");
    house.run(&suite, "none", &["--check"]).refused(&["input_0.pb", "hint: "]);
}
