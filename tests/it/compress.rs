//! Reduced forms of ONNX files: what `compress` does around the tools, and how a suite measures one beside its original.
//!
//! In: files that this test writes, a program in the place of Python. Out: messages, records. Must not: need the tools: `ci/onnx.sh` has them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ergometer::onnx::proto;
use ergometer_reports::case::{Case, ErrorKind};
use prost::Message;

use crate::house::{Ended, House, ended};
use crate::onnx_files::product;

/// Puts `body` in the place of Python; its last argument is the job.
fn compress(house: &House, body: &str, args: &[&str]) -> Ended {
    let python = house.file(
        "python",
        format!("#!/usr/bin/env python3\nimport json, os, shutil, sys\njob = json.loads(sys.argv[-1])\n{body}\n"),
    );
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = house.command(&[&["compress"], args].concat());
    command.env("ERGOMETER_COMPRESS_PYTHON", python);
    ended(command)
}

const COPIES: &str = "shutil.copy(job['source'], job['out'])\n\
    facts = dict(to=job['to'], tool='a tool 1.0', options='as told', nodes='MatMul -1', source_sha256='00', bytes_before='200', bytes_after='100')\n\
    print('chatter')\nprint(json.dumps({'loads': None, **{f'compress.{k}': v for k, v in facts.items()}}))";

#[test]
fn a_reduced_form_is_made_by_the_tools_and_its_lines_of_a_suite_are_told() {
    let house = House::new();
    house.file("net.onnx", product("Identity", proto::FLOAT).encode_to_vec());
    let made = compress(&house, COPIES, &["--to", "int8", "net.onnx"]);
    made.exits(0);
    for part in [
        "net.int8.onnx: 100 bytes, the original has 200",
        "a tool 1.0",
        "MatMul -1",
        "name = \"net-int8\"",
        "reduces = \"net\"",
        "precisions = [\"int8\"]",
    ] {
        assert!(made.stdout.contains(part), "{part}: {}", made.stdout);
    }
    assert_eq!(fs::read(house.path("net.int8.onnx")).unwrap(), fs::read(house.path("net.onnx")).unwrap());
    compress(&house, COPIES, &["--to", "int8", "net.onnx"]).refused(&["net.int8.onnx is there already", "--force"]);
    let told = compress(&house, COPIES, &["--to", "f16", "net.onnx", "--out", "sub/h.onnx", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told.exits(0).stdout).unwrap();
    assert_eq!(
        (&told["file"], &told["bytes_after"], &told["to"]),
        (&"sub/h.onnx".into(), &"100".into(), &"f16".into())
    );
    // what the script is given
    let seen = "print(json.dumps(job), file=sys.stderr); sys.exit(3)";
    house.file("c.npz", "x");
    let asked =
        compress(&house, seen, &["--to", "int8", "net.onnx", "--per-channel", "--calibrate", "c.npz", "--force"]);
    asked.refused(&["net.onnx cannot be reduced to int8", "\"per_channel\": true", "c.npz\"", "hint: "]);
}

#[test]
fn what_is_in_the_way_is_told() {
    let house = House::new();
    house.file("net.onnx", product("Identity", proto::FLOAT).encode_to_vec());
    house.file("whole.onnx", product("QuantizeLinear", proto::FLOAT).encode_to_vec());
    let refused = |body: &str, args: &[&str], parts: &[&str]| compress(&house, body, args).refused(parts);
    let net = ["--to", "int8", "net.onnx"];
    refused("sys.exit('no package onnx' and 4)", &net, &["hint: install what ci/onnx/requirements.txt pins"]);
    refused(
        "print('no such operator', file=sys.stderr); sys.exit(3)",
        &net,
        &["cannot be reduced to int8: no such operator"],
    );
    refused("print('hello')", &net, &["answered in no known way: hello"]);
    refused("os.kill(os.getpid(), 9)", &net, &["signal: 9", "hint: "]);
    refused(&COPIES.replace("shutil", "#"), &net, &["the tools left no", "net.int8.onnx"]);
    assert!(!house.path("net.int8.onnx").exists());
    refused(COPIES, &["--to", "int8", "dense"], &["dense is no ONNX file", "ergometer export"]);
    refused(COPIES, &["--to", "int8", "whole.onnx"], &["computes in int8 already"]);
    refused(COPIES, &["--to", "f16", "net.onnx", "--per-channel"], &["--per-channel", "int8 alone"]);
    refused(COPIES, &["--to", "int8", "net.onnx", "--calibrate", "no.npz"], &["no.npz", "an array for each input"]);
    refused(COPIES, &["--to", "int8", "net.onnx", "--out", "net.bin"], &["net.bin does not end in .onnx"]);
    refused(COPIES, &["--to", "int8", "net.onnx", "--out", "net.onnx", "--force"], &["is the original"]);
    refused(COPIES, &["--to", "int4", "net.onnx"], &["int4", "int8"]);
    refused(COPIES, &["--to", "int8", "fetched:magika-1.0.3/model.onnx"], &["`ergometer fetch magika`"]);
    house.file("net.onnx", "no net");
    refused(COPIES, &net, &["net.onnx: is no ONNX file"]);
    // without tools, and none may be obtained; without Python
    house.file("net.onnx", product("Identity", proto::FLOAT).encode_to_vec());
    house.ergometer(&["compress", "--to", "int8", "net.onnx"]).refused(&[
        "ERGOMETER_OFFLINE",
        "onnxruntime==",
        "ERGOMETER_COMPRESS_PYTHON",
    ]);
    let mut bare = house.command(&["compress", "--to", "int8", "net.onnx"]);
    bare.env("PATH", house.path("nothing"));
    ended(bare).refused(&["cannot start python3", "hint: install python3"]);
}

#[test]
fn a_reduced_form_is_held_to_the_answers_of_its_original() {
    let house = House::new();
    house.file("net.onnx", product("Identity", proto::FLOAT).encode_to_vec());
    // the same weights in f16 and a cast, as our conversions leave files; and one whose last row is turned round
    let reduced = |last: [f32; 3]| {
        let mut model = product("Identity", proto::FLOAT);
        let graph = model.graph.as_mut().unwrap();
        let values: Vec<f32> = (0..9).map(|_| 0.25).chain(last).collect();
        graph.initializer[0].raw_data =
            Some(values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect());
        graph.initializer[0].data_type = Some(10);
        graph.initializer[0].name = Some("w.f16".into());
        let cast = proto::Node {
            input: vec!["w.f16".into()],
            output: vec!["w".into()],
            op_type: Some("Cast".into()),
            attribute: vec![proto::Attribute {
                name: Some("to".into()),
                i: Some(1),
                r#type: Some(2),
                ..proto::Attribute::default()
            }],
            ..proto::Node::default()
        };
        graph.node.insert(0, cast);
        model.metadata_props =
            [("compress.tool", "a tool 1.0"), ("compress.bytes_before", "200"), ("compress.bytes_after", "100")]
                .map(|(key, value)| proto::Entry { key: Some(key.into()), value: Some(value.into()) })
                .to_vec();
        model.encode_to_vec()
    };
    house.file("same.onnx", reduced([-1.0, 0.0, 1.0]));
    house.file("worse.onnx", reduced([1.0, 0.0, -1.0]));
    let rows: String = (0..40)
        .map(|i| format!("0,0,0,{},{}\n", if i % 2 == 0 { 1 } else { -1 }, if i % 2 == 0 { 2 } else { 0 }))
        .collect();
    house.file("rows.csv", format!("a,b,c,d,label\n{rows}"));
    let model = |name: &str, more: &str| format!("[[model]]\nname = \"{name}\"\npath = \"{name}.onnx\"\n{more}");
    let text = model("net", "")
        + &model("same", "reduces = \"net\"\n")
        + &model("worse", "reduces = \"net\"\n")
        + "[[task]]\nname = \"rows\"\nkind = \"arrays\"\ninputs = { x = \"rows.csv:a..d\" }\nlabels = \"rows.csv:label\"\nscorer = \"top-1\"\n\
           [defaults]\ntasks = [\"rows\"]\nbackends = [\"tract\"]\ninterleave = true\nseconds = 0.2\niterations = 2\n";
    let cases = "[[cases]]\nmodels = [\"net\"]\n[[cases]]\nmodels = [\"same\", \"worse\"]\nprecisions = [\"f16\"]\n";
    let ended = house.run(&house.suite("pair.toml", &(text.clone() + cases)), "pair", &[]);
    let records = house.records("pair");
    let of =
        |model: &str, metric: &str| records.0.iter().find(|r| r.model == model && r.metric == metric).unwrap().clone();
    assert_eq!(of("same", "accuracy_vs_f32").value, Some(0.0), "{ended:?}");
    assert!(of("same", "accuracy_vs_f32").note.unwrap().contains("n = 40 paired examples"));
    // answers of another form: the case fails, and has no speed
    let (worse, kind) = (of("worse", "latency"), ErrorKind::Inferior);
    assert!(worse.value.is_none(), "{worse:?}");
    let said = serde_json::to_string(&kind).unwrap();
    assert!(worse.missing.as_ref().is_some_and(|m| said.contains(&m.kind) && m.message.contains("-100")), "{worse:?}");
    assert!(ended.stdout.contains("inferior") && ended.code == Some(1), "{ended:?}");
    // it took turns with the original, which is its base
    assert!(of("same", "speedup").value.is_some(), "{:?}", of("same", "speedup"));
    let folders = fs::read_dir(house.path("pair/cases")).unwrap().map(|e| e.unwrap().path());
    let recorded: Vec<Case> =
        folders.map(|f| serde_json::from_slice(&fs::read(f.join("case.json")).unwrap()).unwrap()).collect();
    let same = recorded.iter().find(|c| c.key.model == "same").unwrap();
    let net = recorded.iter().find(|c| c.key.model == "net").unwrap();
    assert_eq!(same.reduces.as_ref().map(|o| (&o.model, &o.model_hash)), Some((&net.key.model, &net.key.model_hash)));
    assert!(same.interleaved.as_ref().unwrap().base.as_ref() == Some(&net.id) && net.reduces.is_none());
    assert!(
        same.notes.iter().any(|n| n.contains("reduced by a tool 1.0") && n.contains("100 bytes of 200")),
        "{:?}",
        same.notes
    );
    // without the original there is nothing to hold it to
    let alone = text.clone() + "[[cases]]\nmodels = [\"same\"]\nprecisions = [\"f16\"]\n";
    house.run(&house.suite("alone.toml", &alone), "alone", &["--check"]).exits(0);
    let missing =
        house.records("alone").0.iter().find(|r| r.metric == "accuracy_vs_f32").unwrap().missing.clone().unwrap();
    assert!(missing.message.contains("of the original `net`") && missing.hint.unwrap().contains("cases of `net`"));
}
