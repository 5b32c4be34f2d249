//! Every way in which a case can end is a kind of its own on its records, and costs no other case anything.
//!
//! In: one suite with a fake worker for every way to fail, honest ones among them. Out: kinds, messages, reports, no process left. Must
//! not: depend on how fast a fake is.

use std::fs;

use crate::house::{House, Records, tree, wait_until};

/// Mode of the fake, kind of the end, a part of its message.
const ENDS: &[(&str, &str, &str)] = &[
    ("exit", "exit", "exit code 7; its last words: the dog ate the weights"),
    ("exit-late", "exit", "exit code 3"),
    ("exit-last", "exit", "exit code 5"),
    ("exit-beside", "exit", "exit code 6"),
    ("kill", "signal", "signal 9"),
    ("segv", "signal", "signal 11"),
    ("silent", "timeout", "said nothing for 1.0 s"),
    ("silent-late", "timeout", "said nothing for 1.0 s"),
    ("stubborn", "timeout", "said nothing for 1.0 s"),
    ("deaf", "timeout", "did not read its input for 1.0 s"),
    ("out-of-memory", "out-of-memory", "no room for the weights"),
    ("abort", "out-of-memory", "memory allocation of 68719476736 bytes failed"),
    ("bad-model", "model", "no tensor of that name"),
    ("gone", "unavailable", "no such accelerator"),
    ("nowhere", "spawn", "cannot start `no-such-program-anywhere`"),
    ("chatter", "protocol", "not a line of the protocol: `loading <b>model</b> ...`"),
    ("turn", "protocol", "where `loaded` was due"),
    ("future", "protocol", "speaks protocol 99"),
    ("flood", "protocol", "more than 64 MiB to stderr"),
    ("afterword", "protocol", "after its last block"),
    ("endless-line", "protocol", "a line of more than"),
    ("endless-refusals", "protocol", "unavailable"),
    ("endless-answers", "wrong-output", "example 0"),
    ("endless-samples", "protocol", "10000 already"),
    ("off", "parity", "f32-strict allows"),
    ("shape", "wrong-output", "3 logits"),
    ("infinite", "protocol", "number out of range"),
    ("nan", "wrong-output", "finite ones are needed"),
    ("step-zero", "wrong-output", "step 0"),
    ("mute", "wrong-output", "outputs of step 1 are missing"),
    ("skips", "wrong-output", "example 4 was not answered"),
    ("other", "wrong-output", "an answer to example 1000000000000"),
    ("short", "wrong-output", "has 3 cells, 16 are needed"),
    ("twice", "wrong-output", "example 0 was answered again"),
    ("two-faced", "wrong-output", "timed answers are not the scored ones"),
    ("empty", "wrong-output", "without samples"),
    ("unanswered", "wrong-output", "was timed and not answered"),
    ("boastful", "wrong-output", "1000 rows"),
    ("hasty", "wrong-output", "but were measured within"),
    ("negative", "wrong-output", "-1 as latency"),
];

/// Modes that end well.
const HONEST: [&str; 5] = ["plain", "right-outputs", "parent", "guest", "runaway"];

/// Those that are only recognised by waiting.
const SLOW: &[&str] = &["silent", "silent-late", "stubborn"];

/// Largest memory of the harness beside endless lines and endless messages: one line of the longest kind, and itself.
const MOST_MEMORY: u64 = 512 << 20;

#[test]
fn every_end_is_a_kind_of_its_own_on_a_record() {
    let house = House::new();
    let mut text =
        String::from("[[task]]\nname = \"large\"\nkind = \"sudoku\"\nsize = 4\nclues = [6, 10]\nexamples = 3000\n");
    for (mode, _, _) in ENDS.iter().filter(|(mode, _, _)| *mode != "nowhere") {
        text += &house.fake(mode, &[]);
    }
    text += "[[backend]]\nname = \"nowhere\"\nkind = \"external\"\ncommand = [\"no-such-program-anywhere\"]\n";
    for mode in HONEST {
        text += &house.fake(mode, &[]);
    }
    let list = |modes: &[&str]| format!("{modes:?}");
    let quick: Vec<&str> = ENDS.iter().map(|e| e.0).filter(|m| !SLOW.contains(m) && *m != "deaf").collect();
    text += "[defaults]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nseconds = 0.1\nwarmup_seconds = 0.01\n";
    text += &format!("[[cases]]\nbackends = {}\n", list(&["plain"]));
    text += &format!("[[cases]]\nbackends = {}\n", list(&quick));
    text += &format!("[[cases]]\nbackends = {}\ntimeout_seconds = 1.0\n", list(SLOW));
    text += "[[cases]]\nbackends = [\"deaf\"]\ntasks = [\"large\"]\ntimeout_seconds = 1.0\n";
    text += &format!("[[cases]]\nbackends = {}\n", list(&HONEST[1..]));
    let suite = house.suite("ends.toml", &text);

    let mut harness = house.start(&["run", suite.to_str().unwrap(), "--out", "run"]);
    let mut peak = 0;
    wait_until("the run", || {
        peak = peak.max(harness.peak().unwrap_or(0));
        !harness.is_running()
    });
    assert_eq!(harness.wait().code(), Some(1));
    assert!(peak > 0 && peak < MOST_MEMORY, "the harness held {peak} bytes");
    house.assert_nobody_left();

    let (records, cases) = (house.records("run"), house.cases("run"));
    assert_eq!(cases.len(), ENDS.len() + HONEST.len());
    let logs = tree(&house.path("run/cases")).into_iter().filter(|(path, _)| path.ends_with("stderr.log"));
    assert_eq!(logs.map(|(_, log)| log.len()).max(), Some(64 << 20), "a flood is cut");
    let report = |name: &str| fs::read_to_string(house.path("run/report").join(name)).unwrap();
    let (html, md) = (report("index.html"), report("report.md"));
    let mut wrong = Vec::new();
    for (mode, kind, part) in ENDS {
        let error = cases[*mode].error.as_ref().unwrap_or_else(|| panic!("{mode} did not fail"));
        if crate_kind(error.kind) != *kind || !error.message.contains(part) {
            wrong.push(format!("{mode}: {} `{}`, not {kind} with `{part}`", crate_kind(error.kind), error.message));
        }
        failed(&records, mode, crate_kind(error.kind).as_str());
        // the first words are enough: what follows may be escaped
        let start: String = error.message.chars().take_while(|c| c.is_alphanumeric() || *c == ' ').collect();
        assert!(html.contains(start.trim()) && md.contains(start.trim()), "no report says `{start}` of {mode}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!html.contains("<b>model</b>"), "what a worker says must not become markup");
    for mode in HONEST {
        assert_eq!(records.value(mode, "accuracy"), 1.0, "a search is always right");
        for metric in ["window", "throughput", "memory_peak", "cpu_time", "load_time"] {
            assert!(records.value(mode, metric) >= 0.0);
        }
    }
    let notes = cases["runaway"].notes.join("; ");
    assert!(notes.contains("had left its process group, and was ended with it"), "{notes}");
    assert!(records.value("right-outputs", "parity_error") < 1e-9);
    assert!(records.get("plain", "parity_error").value.is_none());
}

/// No number on any record of a failed case, and the same reason on each.
fn failed(records: &Records, backend: &str, kind: &str) {
    let rows = records.of(backend);
    assert!(!rows.is_empty());
    for row in rows {
        assert!(row.value.is_none() && row.n == 0, "{backend} has a number for {}", row.metric);
        assert_eq!(row.missing.as_ref().unwrap().kind, kind, "{backend} {}", row.metric);
    }
}

fn crate_kind(kind: ergometer_reports::case::ErrorKind) -> String {
    serde_json::to_value(kind).unwrap().as_str().unwrap().to_string()
}

#[test]
fn a_listed_unavailability_is_no_failure() {
    let house = House::new();
    let cases = |rest: &str| {
        let both = house.fake("gone", &[]) + &house.fake("plain", &[]);
        let block = "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nseconds = 0.05\nwarmup_seconds = 0\n";
        format!("{both}{block}backends = [\"plain\"]\n{block}backends = [\"gone\"]\n{rest}")
    };
    let listed = house.suite("listed.toml", &cases("may_be_unavailable = true\n"));
    house.run(&listed, "listed", &[]).exits(0);
    house.run(&house.suite("not.toml", &cases("")), "not", &[]).exits(1);
    for run in ["listed", "not"] {
        failed(&house.records(run), "gone", "unavailable");
        assert_eq!(house.records(run).value("plain", "accuracy"), 1.0);
        let hint = house.cases(run)["gone"].error.as_ref().unwrap().hint.clone();
        assert_eq!(hint.as_deref(), Some("plug one in"));
    }
    // a listed case may lack something, but not fail
    let text = house.fake("exit", &[])
        + "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"exit\"]\nmay_be_unavailable = true\n";
    house.run(&house.suite("exit.toml", &text), "exit", &[]).exits(1);
}

#[test]
fn the_example_of_an_external_backend_works_as_shipped() {
    let house = House::new();
    for file in ["examples/external-worker/worker.py", "ci/external/ergometer_worker.py"] {
        let from = crate::house::root().join(file);
        fs::copy(&from, house.path(from.file_name().unwrap().to_str().unwrap())).unwrap();
    }
    let text = "[[backend]]\nname = \"search\"\nkind = \"external\"\ncommand = [\"python3\", \"-B\", \"{suite}/worker.py\"]\n\
                [[task]]\nname = \"nine\"\nkind = \"sudoku\"\nsize = 6\nclues = [14, 16]\nexamples = 3\n\
                [[model]]\nname = \"six\"\npath = \"six\"\n\
                [[cases]]\nmodels = [\"six\"]\ntasks = [\"nine\"]\nbackends = [\"search\"]\nscenarios = [\"single-stream\", \"offline-b2\"]\nseconds = 0.1\n";
    let mut config = crate::house::dense();
    (config["seq_len"], config["vocab_size"]) = (36.into(), 8.into());
    house.model("six", &config);
    house.run(&house.suite("own.toml", text), "run", &[]).exits(0);
    let records = house.records("run");
    let right: Vec<f64> = records.0.iter().filter(|r| r.metric == "accuracy").map(|r| r.value.unwrap()).collect();
    assert_eq!(right, [1.0, 1.0]);
    assert!(records.0.iter().any(|r| r.batch == 2 && r.metric == "throughput" && r.value.unwrap() > 0.0));
}
