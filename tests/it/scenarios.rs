//! Scenarios through the program: what each samples, and that a worker which does not know one is refused and not measured as something else.
//!
//! In: suites of tiny nets on native, and fake workers. Out: run folders and records. Must not: expect one thing to be faster than another
//! unless it is the earlier part of it.

use std::collections::{BTreeMap, BTreeSet};

use ergometer_reports::case::{ErrorKind, Sample};
use ergometer_reports::{CaseRun, Record, load};
use ergometer_suites::scenario::SCENARIOS;

use crate::house::{House, Records};

/// The cases of a run by their scenario in paths.
fn cases(house: &House, run: &str) -> BTreeMap<String, CaseRun> {
    let run = load(&house.path(run)).unwrap();
    run.cases.into_iter().map(|c| (c.case.path.split('/').nth(4).unwrap().to_string(), c)).collect()
}

fn record<'a>(records: &'a Records, scenario: &str, metric: &str) -> Option<&'a Record> {
    records.0.iter().find(|r| r.path.split('/').nth(4) == Some(scenario) && r.metric == metric)
}

fn of(case: &CaseRun, metric: &str) -> Vec<Sample> {
    case.samples.iter().filter(|s| s.metric == metric).collect()
}

#[test]
fn every_scenario_is_listed_and_explained() {
    let house = House::new();
    let listed = house.ergometer(&["list", "scenarios"]).exits(0).stdout.clone();
    let read = |name: &str| std::fs::read_to_string(crate::house::root().join(name)).unwrap();
    for kind in SCENARIOS {
        assert!(listed.contains(&kind.pattern()), "{listed}");
        for document in ["suites/README.md", "examples/external-worker/README.md"] {
            assert!(read(document).contains(&format!("`{}`", kind.pattern())) || kind.amount.is_none(), "{document}");
        }
        assert!(read("GLOSSARY.md").contains(&format!("`{}`", kind.name)), "{}", kind.name);
    }
    let suite = house.suite(
        "unknown.toml",
        "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\nscenarios = [\"multi-stream\"]\n",
    );
    house.run(&suite, "run", &[]).refused(&[
        "`scenarios`",
        "unknown scenario `multi-stream`",
        "`multi-stream-N`",
        "1024",
    ]);
}

#[test]
fn rows_of_a_multi_stream_are_timed_one_by_one() {
    let house = House::new();
    let words = ["multi-stream-1", "multi-stream-5", "offline-b5"];
    let suite = house.suite(
        "streams.toml",
        &format!(
            "[[cases]]\nmodels = [\"trm\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\nscenarios = {words:?}\n\
             depth = [\"halt-3\"]\nseconds = 0.3\nwarmup_seconds = 0.01\n"
        ),
    );
    house.run(&suite, "run", &[]).exits(0);
    let (cases, records) = (cases(&house, "run"), house.records("run"));
    assert_eq!(cases.keys().collect::<BTreeSet<_>>(), words.map(String::from).iter().collect());
    // answers to the same questions: scored once, by whichever came first
    let depths: BTreeMap<u64, u32> =
        cases.values().flat_map(|c| &c.predictions).filter(|p| p.last).map(|p| (p.example, p.depth)).collect();
    assert_eq!(depths.len(), 5);
    for (word, rows) in [("multi-stream-1", 1), ("multi-stream-5", 5)] {
        let case = &cases[word];
        let mut seen: BTreeMap<(u32, Option<u64>), Vec<Sample>> = BTreeMap::new();
        for s in of(case, "row_latency") {
            assert_eq!((s.rows, s.phase), (Some(1), "steady"));
            seen.entry((s.block, s.iteration)).or_default().push(s);
        }
        let whole = of(case, "latency");
        assert!(whole.len() >= 10 && seen.len() == whole.len(), "{} of {}", seen.len(), whole.len());
        for iteration in whole {
            let of_rows = &seen[&(iteration.block, iteration.iteration)];
            let examples: BTreeSet<_> = of_rows.iter().map(|s| s.example).collect();
            assert_eq!((of_rows.len(), examples.len(), iteration.rows), (rows, rows, Some(rows as u64)), "{word}");
            assert!(of_rows.iter().all(|s| 0.0 < s.value && s.value <= iteration.value), "{word}");
            // who takes fewer steps has its answer before
            for (a, b) in of_rows.iter().flat_map(|a| of_rows.iter().map(move |b| (a, b))) {
                let [first, second] = [a, b].map(|s| depths[&s.example.unwrap()]);
                assert!(first >= second || a.value < b.value, "{first} steps in {}, {second} in {}", a.value, b.value);
            }
        }
        let record = record(&records, word, "row_latency").unwrap();
        let all: usize = seen.values().map(Vec::len).sum();
        // a busy machine's waits may be withheld, as all latencies are
        match record.value {
            Some(value) => {
                assert!(value > 0.0 && record.n == all as u64 && record.method.starts_with("median"), "{record:?}")
            }
            None => assert_eq!(record.missing, self::record(&records, word, "latency").unwrap().missing),
        }
    }
    assert!(record(&records, "offline-b5", "row_latency").is_none(), "batches have no times of rows");
    assert!(of(&cases["offline-b5"], "row_latency").is_empty());
}

#[test]
fn a_worker_that_does_not_know_a_scenario_is_refused_and_not_measured() {
    let house = House::new();
    let fakes = ["plain", "streams", "short-rows", "long-rows", "few-rows", "parrot"];
    let text: String = fakes.iter().map(|m| house.fake(m, &[])).collect();
    let text = format!(
        "{text}[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = {fakes:?}\nscenarios = [\"multi-stream-2\"]\n\
         seconds = 0.05\nwarmup_seconds = 0\n"
    );
    house.run(&house.suite("ignorant.toml", &text), "run", &[]).exits(1);
    let (cases, records) = (house.cases("run"), house.records("run"));
    assert_eq!(cases["streams"].error, None);
    assert!(records.get("streams", "row_latency").n > 0);
    let refused = |backend: &str, kind: ErrorKind, part: &str| {
        let error = cases[backend].error.as_ref().unwrap_or_else(|| panic!("{backend} was believed"));
        assert!(error.kind == kind && error.message.contains(part), "{backend}: {error:?}");
        assert!(records.of(backend).iter().all(|r| r.value.is_none()), "{backend} has numbers");
    };
    refused("plain", ErrorKind::Unavailable, "does not know the scenario `multi-stream-2`");
    refused("parrot", ErrorKind::WrongOutput, "has times of 0 rows, 2 are due");
    refused("few-rows", ErrorKind::WrongOutput, "has times of 1 rows, 2 are due");
    // what may be the machine's doing ends no case, and no number of it is given either
    assert_eq!(cases["short-rows"].error, None);
    let short =
        records.get("short-rows", "row_latency").missing.clone().expect("its last row does not end the iteration");
    assert!(short.message.contains("what was done in the rest is not told"), "{short:?}");
    refused("long-rows", ErrorKind::WrongOutput, "and the whole took");
    let hint = cases["plain"].error.as_ref().unwrap().hint.clone().unwrap();
    assert!(crate::house::root().join(hint.split(' ').next().unwrap()).exists(), "{hint}");
}

#[test]
fn processes_of_a_cold_start_are_new_and_each_part_of_their_start_is_apart() {
    let house = House::new();
    let suite =
        house.suite_of_fakes("cold.toml", &[("a", "plain"), ("c", "nap")], &[], "scenarios = [\"cold-start-7\"]\n");
    house.run(&suite, "run", &[]).exits(0);
    house.assert_nobody_left();
    let count = |line: &str| house.log().iter().filter(|l| *l == line).count();
    for name in ["a", "c"] {
        // one that is compared and scored, and seven that are timed
        assert_eq!([count(&format!("{name} load")), count(&format!("{name} time"))], [8, 7]);
        assert_eq!(count(&format!("{name} answer")), 1);
    }
    // nothing is warm: what comes before the first block is the last of it
    let after = house.log().into_iter().skip_while(|l| !l.ends_with("time")).collect::<Vec<_>>();
    assert!(after.iter().all(|l| !l.ends_with("warm")), "{after:?}");
    let records = house.records("run");
    for name in ["a", "c"] {
        for metric in ["process_start", "load_time", "first_latency"] {
            let record = records.get(name, metric);
            // of a process that a busy machine kept waiting the worker's own times may be withheld
            let all = if metric == "process_start" { 7..=7 } else { 1..=7 };
            assert!(record.value.is_some_and(|v| v > 0.0) && all.contains(&record.n), "{name}: {record:?}");
        }
        let start = records.get(name, "process_start");
        assert!(start.lower.is_some() && start.lower <= start.value && start.value <= start.upper, "{start:?}");
        for metric in ["latency", "latency_p99", "throughput", "cpu_time", "window"] {
            let missing = records.get(name, metric).missing.clone().unwrap_or_else(|| panic!("{name} has a {metric}"));
            assert!(missing.message.contains("scenario `cold-start-7` has no steady phase"), "{metric}: {missing:?}");
        }
        assert!(records.value(name, "memory_peak") > 0.0 && records.value(name, "accuracy") == 1.0);
    }
    assert!(records.value("c", "first_latency") >= 0.02, "it naps for 20 ms");
    for case in load(&house.path("run")).unwrap().cases {
        assert_eq!(of(&case, "process_start").len(), 7);
        assert!(case.samples.iter().all(|s| s.phase != "steady" || s.metric == "foreign_load"), "{:?}", case.samples);
        assert!(case.case.notes.iter().any(|n| n.contains("timed on 1 of 5 examples")), "{:?}", case.case.notes);
    }
    // one process with `--check`, and no such metric elsewhere
    house.run(&suite, "check", &["--check"]).exits(0);
    assert_eq!(house.records("check").get("a", "process_start").n, 1);
}

#[test]
fn a_built_in_backend_starts_cold_and_other_scenarios_have_no_process_start() {
    let house = House::new();
    let suite = house.suite(
        "cold.toml",
        "[[cases]]\nmodels = [\"trm\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\nscenarios = [\"cold-start-2\", \"single-stream\"]\n\
         seconds = 0.1\nwarmup_seconds = 0\n",
    );
    house.run(&suite, "run", &[]).exits(0);
    let records = house.records("run");
    assert_eq!(record(&records, "cold-start-2", "process_start").unwrap().n, 2);
    assert!(record(&records, "single-stream", "process_start").is_none());
    assert_eq!(record(&records, "single-stream", "load_time").unwrap().n, 1);
    let cases = cases(&house, "run");
    assert!(
        of(&cases["single-stream"], "process_start").is_empty() && of(&cases["cold-start-2"], "latency").is_empty()
    );
}

#[test]
fn a_process_that_fails_ends_its_case_and_no_other() {
    let house = House::new();
    let suite =
        house.suite_of_fakes("frail.toml", &[("a", "frail"), ("c", "plain")], &[], "scenarios = [\"cold-start-3\"]\n");
    house.run(&suite, "run", &[]).exits(1);
    house.assert_nobody_left();
    let cases = house.cases("run");
    let error = cases["a"].error.as_ref().expect("its third process fails");
    assert!(error.kind == ErrorKind::Exit && error.message.contains("exit code 9"), "{error:?}");
    assert_eq!(cases["c"].error, None);
    assert_eq!(house.records("run").get("c", "process_start").n, 3);
}
