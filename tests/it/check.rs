//! `run` with its flags: check mode, dry runs, filters, shards.
//!
//! In: a suite of every built-in backend on both tiny models. Out: exit codes and run folders. Must not: measure for long.

use ergometer::backends::BACKENDS;
use serde_json::Value;

use crate::house::{House, ready};

/// All backends on both models.
fn all(house: &House) -> std::path::PathBuf {
    let mut text = String::new();
    for backend in BACKENDS {
        text += &format!(
            "[[cases]]\nmodels = [\"dense\", \"trm\"]\ntasks = [\"small\"]\nbackends = [{:?}]\nprecisions = [{:?}]\n\
             scenarios = [\"single-stream\", \"offline-b2\"]\ndepth = [\"halt-3\"]\nmay_be_unavailable = true\n",
            backend.name(),
            backend.precisions()[0]
        );
    }
    house.suite("all.toml", &text)
}

#[test]
fn check_mode_gives_every_case_a_verdict_and_one_step() {
    let house = House::new();
    let ended = house.run(&all(&house), "run", &["--check"]);
    ended.exits(0);
    assert!(ended.stdout.contains("run/report/index.html"), "{}", ended.stdout);
    let records = house.records("run");
    for backend in ready() {
        let rows = records.of(backend.name());
        for metric in ["parity_error", "accuracy", "latency"] {
            let found: Vec<_> = rows.iter().filter(|r| r.metric == metric).collect();
            assert_eq!(found.len(), 4, "{} {metric}", backend.name());
            for record in found {
                assert!(record.value.is_some(), "{} {metric}: {:?}", backend.name(), record.missing);
                assert!(metric != "latency" || record.n == 1, "one step: {}", record.n);
            }
        }
    }
}

#[test]
fn check_mode_fails_where_a_case_does() {
    let house = House::new();
    let text = house.fake("off", &[])
        + "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"off\", \"reference\"]\nprecisions = [\"f64\"]\n";
    let suite = house.suite("off.toml", &text);
    let ended = house.run(&suite, "run", &["--check"]);
    ended.exits(1);
    assert!(ended.stderr.contains("failed: 1 of 2 cases"), "{}", ended.stderr);
}

#[test]
fn dry_runs_filters_and_shards_agree_on_the_cases() {
    let house = House::new();
    let suite = all(&house);
    let paths = |more: &[&str]| -> Vec<String> {
        let mut args = vec!["run", suite.to_str().unwrap(), "--dry-run", "--json"];
        args.extend(more);
        let ended = house.ergometer(&args);
        ended.exits(0);
        let cases: Vec<Value> = serde_json::from_str(&ended.stdout).unwrap();
        cases.iter().map(|c| c["path"].as_str().unwrap().to_string()).collect()
    };
    let every = paths(&[]);
    assert_eq!(every.len(), 4 * BACKENDS.len());
    let mut sharded: Vec<String> = ["1/3", "2/3", "3/3"].iter().flat_map(|s| paths(&["--shard", s])).collect();
    sharded.sort();
    let mut sorted = every.clone();
    sorted.sort();
    assert_eq!(sharded, sorted, "shards are the whole, without repetition");
    let some = paths(&["--filter", "*/trm/*reference/single-stream/*"]);
    assert_eq!(some, ["small/trm/f64/reference/single-stream/t1/halt-3"]);
    assert!(!house.path("ergometer-runs").exists(), "a dry run writes nothing");

    house.ergometer(&["run", suite.to_str().unwrap(), "--filter", "nothing"]).refused(&[
        "no case of",
        "fits the filter",
        "hint: ",
    ]);
    house.ergometer(&["run", suite.to_str().unwrap(), "--shard", "4/3"]).refused(&["4/3", "2/3"]);
    house.run(&suite, "one", &["--check", "--filter", some[0].as_str()]).exits(0);
    assert_eq!(house.cases("one").len(), 1);
}
