//! `ergometer external check`: the shipped workers pass it, workers that go wrong are told where, with the line that shows it.
//!
//! In: the workers of `ci/external/` and `examples/`, the fakes. Out: findings and exit codes. Must not: time anything.

use std::fs;
use std::process::Command;

use prost::Message;
use serde_json::Value;

use crate::house::{Ended, House, root, skip, skip_here};

fn check(house: &House, flags: &[&str], command: &[&str]) -> (Ended, Vec<Value>) {
    let args = [&["external", "check", "--json"], flags, command].concat();
    let ended = house.ergometer(&args);
    let json: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    let found = json["findings"].as_array().unwrap().clone();
    (ended, found)
}

/// All parts of a whole walk.
const PARTS: [&str; 16] = [
    "hello",
    "job",
    "warm",
    "compare",
    "answer",
    "time",
    "time again",
    "end of input",
    "batches",
    "scenario",
    "misuse: no JSON",
    "misuse: go first",
    "misuse: version",
    "misuse: mode",
    "misuse: job twice",
    "misuse: early end",
];

fn passes(house: &House, command: &[&str]) -> Vec<Value> {
    let (ended, found) = check(house, &[], command);
    ended.exits(0);
    assert_eq!(found.iter().map(|f| f["part"].as_str().unwrap()).collect::<Vec<_>>(), PARTS);
    let answer = found.iter().find(|f| f["part"] == "answer").unwrap();
    assert_eq!(answer["text"], "12 of 12 answers right", "{answer}");
    for f in found.iter().filter(|f| f["part"].as_str().unwrap().starts_with("misuse")) {
        assert_eq!(f["outcome"], "right", "{f}");
    }
    house.assert_nobody_left();
    found
}

#[test]
fn the_python_file_passes_and_has_at_most_150_lines() {
    let house = House::new();
    let worker = root().join("examples/external-worker/worker.py");
    passes(&house, &["python3", "-B", worker.to_str().unwrap()]);
    let text = fs::read_to_string(root().join("ci/external/ergometer_worker.py")).unwrap();
    assert!(text.lines().count() <= 150, "{} lines", text.lines().count());
    let imports: Vec<&str> = text.lines().filter(|l| l.starts_with("import ") || l.starts_with("from ")).collect();
    assert_eq!(imports, ["import json", "import os", "import sys", "import time", "import traceback"]);
}

#[test]
fn the_c_file_compiles_without_a_warning_and_passes() {
    let house = House::new();
    let (source, program) = (root().join("ci/external/ergometer_worker.c"), house.path("worker"));
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source);
    match cc.status() {
        Ok(status) => assert!(status.success()),
        Err(e) => return skip(&format!("a C compiler named `cc`: {e}")),
    }
    passes(&house, &[program.to_str().unwrap()]);
}

#[test]
fn what_the_peers_share_passes_with_an_engine_of_numpy() {
    let house = House::new();
    let there = Command::new("python3").args(["-c", "import numpy"]).output().is_ok_and(|o| o.status.success());
    if !there {
        return skip_here("what ci/peers/ share, for want of numpy");
    }
    let worker = root().join("tests/fakes/numpy_peer.py");
    // with a search of its settings, in a process of its own, and without
    for seconds in ["2", "0"] {
        let args = ["external", "check", "--json", "python3", "-B", worker.to_str().unwrap()];
        let mut program = house.command(&args);
        program.env("ERGOMETER_PEERS_SEARCH", seconds);
        let ended = crate::house::ended(program);
        let json: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
        assert_eq!((ended.code, &json["wrong"]), (Some(0), &0.into()), "{json}");
        let found = json["findings"].as_array().unwrap();
        let compare = found.iter().find(|f| f["part"] == "compare").unwrap();
        assert!(compare["text"].as_str().unwrap().contains("outputs of 1 step"), "{compare}");
        assert_eq!(found.len(), PARTS.len(), "{json}");
    }
    house.assert_nobody_left();
}

#[test]
fn workers_that_go_wrong_are_told_where() {
    let house = House::new();
    let script = root().join("tests/fakes/fake.py");
    let tag = house.tag();
    for (mode, part, text, line) in [
        ("future", "hello", "protocol 99", "99"),
        ("chatter", "job", "not a line of the protocol", "loading"),
        ("turn", "job", "`ready` came where `loaded` was due", "ready"),
        ("exit", "job", "exit code 7", ""),
        ("bad-model", "job", "no tensor of that name", "failed"),
        ("ever-loading", "job", "it was over within", "loaded"),
        ("never-first", "warm", "which is no time", "ready"),
        ("kill", "warm", "signal 9", ""),
        ("mute", "compare", "no outputs, and no word about it", "done"),
        ("step-zero", "compare", "outputs of step 0", "outputs"),
        ("skips", "answer", "example 11 has no answer", "done"),
        ("other", "answer", "there are 12", "predictions"),
        ("short", "answer", "3 cells", "predictions"),
        ("twice", "answer", "second answer", "predictions"),
        ("segv", "answer", "signal 11", ""),
        ("empty", "time", "without samples", ""),
        ("two-faced", "time", "is not the one of `answer`", ""),
        ("echo", "time", "`measured` came again", "measured"),
        ("other-block", "answer", "came where block", ""),
        ("exit-last", "end of input", "exit code 5", ""),
        ("afterword", "end of input", "after its last block", "done"),
    ] {
        let command = ["python3", "-B", script.to_str().unwrap(), mode, "--name", mode, "--tag", &tag];
        let (ended, found) = check(&house, &[], &command);
        assert_eq!(ended.code, Some(1), "{mode}: {ended:?}");
        let wrong = found.iter().find(|f| f["outcome"] == "wrong").unwrap_or_else(|| panic!("{mode}: {found:?}"));
        assert!(wrong["part"] == part && wrong["text"].as_str().unwrap().contains(text), "{mode}: {wrong}");
        if !line.is_empty() {
            assert!(wrong["line"].as_str().is_some_and(|l| l.contains(line)), "{mode}: {wrong}");
        }
    }
    house.assert_nobody_left();
}

#[test]
fn silence_refusal_and_nonsense_have_words_of_their_own() {
    let house = House::new();
    let script = root().join("tests/fakes/fake.py");
    let fake = |mode: &'static str| ["python3", "-B", script.to_str().unwrap(), mode];
    let (silent, found) = check(&house, &["--timeout", "1"], &fake("silent"));
    assert!(
        silent.code == Some(1) && found.last().unwrap().to_string().contains("said nothing for 1.0 s"),
        "{found:?}"
    );
    let (gone, found) = check(&house, &[], &fake("gone"));
    assert!(gone.code == Some(3) && found.len() == 2, "{found:?}");
    assert!(found[1]["outcome"] == "refused" && found[1]["hint"] == "plug one in", "{found:?}");
    house.ergometer(&["external", "check", "--json", "./no-such-worker"]).refused(&["cannot start", "hint: "]);
    // a program that knows nothing of the protocol
    let (cat, found) = check(&house, &[], &["echo", "hello"]);
    assert!(cat.code == Some(1) && found[0]["line"] == "hello", "{found:?}");
    // for people: the line and the remedy stand below what they belong to
    let ended = house.ergometer(&["external", "check", "echo", "hello"]);
    assert!(ended.stdout.contains("wrong") && ended.stdout.contains("line: hello"), "{}", ended.stdout);
    house.ergometer(&["external", "check"]).refused(&["<COMMAND>"]);
    house.ergometer(&["external", "check", "--model", "trm-4x5", "true"]).refused(&["did you mean trm-4x4"]);
}

#[test]
fn a_correct_dialogue_has_every_message() {
    let house = House::new();
    let shown = house.ergometer(&["worker", "--echo"]);
    shown.exits(0);
    for kind in
        ["hello", "job", "loaded", "go", "ready", "outputs", "predictions", "measured", "sample", "counted", "done"]
    {
        assert!(shown.stdout.contains(&format!("{{\"{kind}\":")), "no {kind} in {}", shown.stdout);
    }
    for mode in ["warm", "compare", "answer", "time"] {
        assert!(shown.stdout.contains(&format!("\"mode\":\"{mode}\"")), "{}", shown.stdout);
    }
}

#[test]
fn the_page_names_every_mode_and_every_error() {
    let page = fs::read_to_string(root().join("docs/external.md")).unwrap();
    let source = fs::read_to_string(root().join("reports/src/case.rs")).unwrap();
    let kinds = source.split_once("pub enum ErrorKind {").unwrap().1.split_once("\n}").unwrap().0;
    let kinds: Vec<&str> = kinds.lines().map(str::trim).filter(|l| l.ends_with(',') && !l.starts_with("//")).collect();
    assert!(kinds.len() > 8, "{kinds:?}");
    for kind in kinds {
        let mut word = String::new();
        for (i, c) in kind.trim_end_matches(',').char_indices() {
            if c.is_ascii_uppercase() && i > 0 {
                word.push('-');
            }
            word.push(c.to_ascii_lowercase());
        }
        assert!(page.contains(&format!("`{word}`")), "{word}");
    }
    for mode in ["warm", "compare", "answer", "time"] {
        assert!(page.contains(&format!("\"mode\": \"{mode}\"")), "{mode}");
    }
}

#[test]
fn a_program_that_takes_arrays_is_asked_about_arrays() {
    let house = House::new();
    house.file("net.onnx", crate::onnx_files::product("Identity", ergometer::onnx::proto::FLOAT).encode_to_vec());
    house.file("rows.csv", "a,b,c,d,label\n0,0,0,1,2\n1,0,0,-1,0\n0,1,0,2,2\n");
    let (script, example) = (root().join("tests/fakes/arrays.py"), root().join("examples/external-worker"));
    let command = ["python3", "-B", script.to_str().unwrap(), example.to_str().unwrap()];
    // random arrays, of which none is right or wrong
    let (ended, found) = check(&house, &["--model", "net.onnx"], &command);
    ended.exits(0);
    assert_eq!(found.iter().map(|f| f["part"].as_str().unwrap()).collect::<Vec<_>>(), PARTS);
    let of = |found: &[Value], part: &str| found.iter().find(|f| f["part"] == part).unwrap().clone();
    assert_eq!(of(&found, "answer")["text"], "4 answers; none is right or wrong");
    assert!(of(&found, "compare")["text"].as_str().unwrap().contains("accuracy only"));
    // own data, out of a suite
    let text = "[[model]]\nname = \"file\"\npath = \"net.onnx\"\n[[task]]\nname = \"rows\"\nkind = \"arrays\"\ninputs = { x = \"rows.csv:a..d\" }\n\
                labels = \"rows.csv:label\"\nscorer = \"top-1\"\n[[cases]]\nmodels = [\"file\"]\ntasks = [\"rows\"]\nbackends = [\"tract\"]\n";
    house.suite("own.toml", text);
    let (ended, found) = check(&house, &["--suite", "own.toml", "--case", "rows/*"], &command);
    ended.exits(0);
    assert!(of(&found, "answer")["text"].as_str().unwrap().ends_with(" of 3 answers right"), "{found:?}");
    let (ended, found) = check(&house, &["--suite", "own.toml"], &[&command[..], &["babbles"]].concat());
    ended.exits(1);
    let wrong = of(&found, "answer");
    assert!(wrong["outcome"] == "wrong" && wrong["text"].as_str().unwrap().contains("a class is due"), "{wrong}");
    house.ergometer(&["external", "check", "no-such-program-anywhere"]).refused(&["cannot start", "hint: "]);
    house.ergometer(&["external", "check", "--precision", "f17", "true"]).refused(&["unknown precision `f17`", "f16"]);
    house.assert_nobody_left();
}
