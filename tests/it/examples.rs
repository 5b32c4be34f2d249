//! The external worker of `examples/`: it runs as its README says, and its tables name every line of the protocol and every field.
//!
//! In: `examples/external-worker/`, `src/protocol.rs`. Out: a run, and two lists that must be the same. Must not: know the protocol otherwise.

use std::collections::BTreeSet;
use std::fs;

use crate::house::{House, root};

/// A field: what holds it, its name, and whether it must be there.
type Field = (String, String, bool);

/// Fields of each structure of a Rust source file, by the structure's name.
fn fields(source: &str) -> Vec<(String, Field)> {
    let (mut inside, mut optional, mut found) = (None, false, Vec::new());
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            inside = rest.strip_suffix(" {").map(str::to_string);
        } else if line == "}" {
            inside = None;
        } else if line.trim_start().starts_with("#[serde(") {
            optional |= line.contains("default");
        } else if let (Some(name), Some(rest)) = (&inside, line.strip_prefix("    pub ")) {
            let (field, kind) = rest.split_once(": ").unwrap();
            optional |= kind.starts_with("Option<");
            found.push((name.clone(), (String::new(), field.to_string(), !optional)));
            optional = false;
        }
    }
    found
}

/// Variants of an enum with one value each, as the lines spell them, and the structure that each holds.
fn variants(source: &str, of: &str) -> Vec<(String, String)> {
    let body = source.split_once(&format!("pub enum {of} {{\n")).unwrap().1.split_once("\n}").unwrap().0;
    let lines = body.lines().map(str::trim).filter(|l| !l.starts_with("//") && !l.starts_with('#'));
    lines
        .map(|line| {
            let line = line.trim_end_matches(',');
            let (name, held) = line.split_once('(').map_or((line, ""), |(n, h)| (n, h.trim_end_matches(')')));
            (snake(name, '_'), held.to_string())
        })
        .collect()
}

fn snake(name: &str, between: char) -> String {
    let mut text = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            text.push(between);
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[test]
fn the_tables_name_every_message_and_field_of_the_protocol() {
    let source = fs::read_to_string(root().join("src/protocol.rs")).unwrap();
    let routing = fs::read_to_string(root().join("reports/src/routing.rs")).unwrap();
    let structures: Vec<_> = fields(&source).into_iter().chain(fields(&routing)).collect();
    let mut wanted: BTreeSet<Field> = BTreeSet::new();
    let mut add = |message: &str, structure: &str| {
        let of = structures.iter().filter(|(name, _)| name == structure);
        let before = wanted.len();
        wanted.extend(of.map(|(_, (_, field, needed))| (message.to_string(), field.clone(), *needed)));
        assert!(wanted.len() > before, "{structure} has no field");
    };
    for (message, structure) in variants(&source, "Command").iter().chain(&variants(&source, "Message")) {
        add(message, structure);
    }
    add("predictions.rows", "PredictionRow");
    add("routed.layers", "LayerRouting");
    add("job.language", "LanguageJob");
    add("sample.requests", "RequestTimes");
    assert!(wanted.len() > 50, "{wanted:?}");

    let readme = fs::read_to_string(root().join("examples/external-worker/README.md")).unwrap();
    let rows = readme.lines().filter(|l| l.starts_with("| `"));
    let cells = rows.map(|l| l.trim_matches('|').split(" | ").map(|c| c.trim().trim_matches('`')).collect::<Vec<_>>());
    let told: Vec<Field> = cells
        .filter(|c| c.len() == 4)
        .map(|c| {
            assert!(c[2] == "yes" || c[2] == "no", "{c:?}");
            assert!(c[3].len() > 2, "{c:?} says nothing");
            (c[0].to_string(), c[1].to_string(), c[2] == "yes")
        })
        .collect();
    let set: BTreeSet<Field> = told.iter().cloned().collect();
    assert_eq!(set.len(), told.len(), "a field is told twice");
    let missing: Vec<_> = wanted.difference(&set).collect();
    let unknown: Vec<_> = set.difference(&wanted).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "not in examples/external-worker/README.md (message, field, needed): {missing:?}; there and not in the protocol: {unknown:?}"
    );
    for (mode, _) in variants(&source, "Mode") {
        assert!(readme.contains(&format!("| `{mode}` |")), "mode {mode}");
    }
    for (kind, _) in variants(&source, "FailureKind") {
        assert!(readme.contains(&format!("`{}`", kind.replace('_', "-"))), "kind {kind}");
    }
    for task in ergometer_suites::TASKS {
        assert!(readme.contains(&format!("| `{}` |", task.name)), "tokens of task {}", task.name);
    }
}

#[test]
fn the_shipped_worker_passes_its_own_suite() {
    let house = House::new();
    let suite = root().join("examples/external-worker/suite.toml");
    house.run(&suite, "run", &["--check"]).exits(0);
    let cases = house.cases("run");
    assert_eq!(cases.keys().collect::<Vec<_>>(), ["by-rules", "native"]);
    let records = house.records("run");
    assert_eq!(records.value("by-rules", "accuracy"), 1.0);
    assert!(records.value("by-rules", "latency") > 0.0);
    house.assert_nobody_left();
}

#[test]
fn the_shipped_worker_refuses_what_it_cannot_do() {
    let house = House::new();
    let worker = root().join("examples/external-worker/worker.py");
    let text = format!(
        "[[backend]]\nname = \"by-rules\"\nkind = \"external\"\ncommand = [\"python3\", \"-B\", {:?}]\n\
         [[task]]\nname = \"grids\"\nkind = \"arc\"\nrules = [\"mirror\"]\nmax_side = 5\nside = 5\nexamples = 2\n\
         [[model]]\nname = \"five\"\npath = \"five\"\n\
         [[cases]]\nmodels = [\"five\"]\ntasks = [\"grids\"]\nbackends = [\"by-rules\"]\ndepth = [\"once\"]\n",
        worker.to_str().unwrap()
    );
    let mut config = crate::house::recursive();
    (config["seq_len"], config["vocab_size"]) = (25.into(), 12.into());
    (config["puzzle_emb_ndim"], config["num_puzzle_identifiers"]) = (16.into(), 257.into());
    house.model("five", &config);
    house.run(&house.suite("grids.toml", &text), "run", &[]).exits(1);
    let error = house.cases("run").remove("by-rules").unwrap().error.unwrap();
    assert_eq!(error.kind, ergometer_reports::case::ErrorKind::Unavailable, "{}", error.message);
    assert!(error.message.contains("no Sudoku puzzles") && error.hint.unwrap().contains("sudoku"), "{}", error.message);
}
