//! Workers that lie about their times, their steps and their work, or talk too much: each is caught, by name, and costs nobody else anything.
//!
//! In: suites of fake workers. Out: kinds and messages, and what honest ones beside them keep. Must not: depend on how fast a fake is.

use crate::powercap::FakePowercap;
use ergometer_reports::case::{ErrorKind, Verdict};

use crate::house::{House, recursive};

/// A run of these fakes on the model at this depth.
fn run(house: &House, modes: &[&str], model: &str, depth: &str, more: &str, code: i32) {
    let fakes: String = modes.iter().map(|m| house.fake(m, &[])).collect();
    let text = format!(
        "{fakes}[[cases]]\nmodels = [\"{model}\"]\ntasks = [\"small\"]\nbackends = {modes:?}\ndepth = [\"{depth}\"]\n\
         seconds = 0.1\nwarmup_seconds = 0.01\n{more}"
    );
    house.run(&house.suite("suite.toml", &text), "run", &[]).exits(code);
}

#[test]
fn claims_that_cannot_be_are_caught() {
    const LIES: &[(&str, &str)] = &[
        ("hundredth", "is not told"),
        ("tiny", "is not told"),
        ("denormal", "no time"),
        ("doubler", "where sample 1 was due"),
        ("renumbered", "overlap"),
        ("half", "were asked for"),
        ("dice", "outside the block"),
        ("backwards", "where sample 0 was due"),
        ("ever-loading", "load time"),
        ("never-first", "first latency"),
        ("counter", "flops_executed"),
        ("no-load", "0 s as load time, which is no time"),
        ("fraction", "no count"),
        ("heavy", "more than any machine holds"),
    ];
    let house = House::new();
    let modes: Vec<&str> = LIES.iter().map(|l| l.0).chain(["plain", "counting", "arsonist"]).collect();
    run(&house, &modes, "dense", "once", "iterations = 4\n", 1);
    let cases = house.cases("run");
    for (mode, part) in LIES {
        let error = cases[*mode].error.as_ref().unwrap_or_else(|| panic!("{mode} was believed"));
        assert!(error.kind == ErrorKind::WrongOutput && error.message.contains(part), "{mode}: {error:?}");
    }
    let records = house.records("run");
    for honest in ["plain", "counting", "arsonist"] {
        assert_eq!(cases[honest].error, None, "{honest}");
        assert_eq!(cases[honest].verdict, Some(Verdict::AccuracyOnly));
        assert!(records.value(honest, "throughput") > 0.0);
    }
    // nobody knows what `plain` computed; `counting` says so itself
    for metric in ["flop_rate", "share_of_ceiling", "flops_model"] {
        let missing = records.get("plain", metric).missing.clone().unwrap();
        assert!(missing.message.contains("accuracy only"), "{metric}: {missing:?}");
    }
    let rate = records.value("counting", "flops_executed") * records.value("counting", "throughput");
    assert!((records.value("counting", "flop_rate") / rate - 1.0).abs() < 1e-9);
    let page = std::fs::read_to_string(house.path("run/report/report.md")).unwrap();
    assert!(page.contains("(accuracy only)"), "{page}");
}

/// What may be the machine's doing ends no case, and no number of it is given either.
#[test]
fn times_that_leave_much_untold_are_withheld_and_the_harness_s_clock_stands_in() {
    let house = House::new();
    let modes = ["edges", "quick", "microsecond", "quick-load", "stout", "censor", "plain"];
    let fake = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).run().unwrap();
    let fakes: String = modes.iter().map(|m| house.fake(m, &[])).collect();
    let text = format!(
        "{fakes}[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = {modes:?}\nseconds = 2\nwarmup_seconds = 0.01\n"
    );
    let suite = house.suite("suite.toml", &text);
    let mut command = house.command(&["run", suite.to_str().unwrap(), "--out", "run"]);
    command.env("ERGOMETER_POWERCAP", fake.root());
    // where the scheduler leaves many gaps, `microsecond` is an error too
    let ended = crate::house::ended(command);
    assert!(matches!(ended.code, Some(0 | 1)), "{ended:?}");
    let (records, cases) = (house.records("run"), house.cases("run"));
    let honest = modes.into_iter().filter(|mode| *mode != "microsecond" || cases[*mode].error.is_none());
    for mode in honest.clone() {
        assert_eq!(cases[mode].error, None, "{mode}");
    }
    const PARTS: [&str; 2] = ["what was done in the rest is not told", "are shorter than what can be checked"];
    for mode in ["edges", "quick", "microsecond"] {
        for metric in ["latency", "latency_p99"] {
            let missing = records.get(mode, metric).missing.clone().unwrap_or_else(|| panic!("{mode} has a {metric}"));
            assert!(PARTS.iter().any(|part| missing.message.contains(part)), "{mode}: {missing:?}");
        }
        if cases[mode].error.is_some() {
            continue;
        }
        let note = records.get(mode, "throughput").note.clone().unwrap_or_default();
        assert!(note.contains("by the harness's clock"), "{mode}: {note}");
    }
    // 2 ms of sleep an iteration, and 26 us
    assert!(records.value("edges", "throughput") < 500.0);
    for mode in honest {
        // joules x throughput is what the meter saw, but for the tenth that need not be told
        assert!(mode != "microsecond" || records.value(mode, "throughput") < 38_500.0);
        let watts = records.value(mode, "energy_cpu") * records.value(mode, "throughput");
        assert!(watts < 50.0 * 1.3, "{mode}: {watts} W");
    }
    for metric in ["load_time", "first_latency"] {
        let missing = records.get("quick-load", metric).missing.clone().unwrap();
        assert!(missing.message.contains("the harness saw 0."), "{metric}: {missing:?}");
        assert!(records.value("plain", metric) > 0.0);
    }
    let heavy = records.get("stout", "weight_bytes").missing.clone().unwrap();
    assert!(heavy.message.contains("its process never had more than"), "{heavy:?}");
    assert_eq!(records.value("stout", "state_bytes"), 4096.0);
    for metric in ["memory_peak", "energy_cpu", "joules_per_right", "accuracy", "cpu_time", "window"] {
        assert!(records.get("censor", metric).value.is_some(), "{metric}: {:?}", records.get("censor", metric).missing);
    }
    let notes = cases["censor"].notes.join("; ");
    assert!(notes.contains("says that energy_cpu is unavailable, which is not the worker's to tell"), "{notes}");
    let page = std::fs::read_to_string(house.path("run/report/report.md")).unwrap();
    assert!(page.contains("what was done in the rest is not told"), "{page}");
}

#[test]
fn what_names_a_block_names_the_one_that_was_asked_for() {
    let house = House::new();
    let modes = ["other-block", "other-done", "other-count"];
    run(&house, &modes, "dense", "once", "iterations = 4\n", 1);
    for (mode, kind) in modes.into_iter().zip(["predictions", "done", "counted"]) {
        let error = house.cases("run")[mode].error.clone().unwrap_or_else(|| panic!("{mode} was believed"));
        let part = format!("`{kind}` of block ");
        assert!(error.kind == ErrorKind::Protocol && error.message.starts_with(&part), "{mode}: {error:?}");
    }
}

#[test]
fn steps_are_those_that_were_asked_for_and_those_of_the_answers() {
    let house = House::new();
    house.model("deep", &recursive());
    run(&house, &["one-step", "plain"], "trm", "fixed-16", "", 1);
    for case in house.cases("run").values() {
        let error = case.error.as_ref().expect("a net of sixteen steps takes sixteen");
        assert!(error.message.contains("took 1 steps, and every row is to take 16"), "{error:?}");
    }
    let house = House::new();
    run(&house, &["claimant", "deep-answers", "plain"], "trm", "halt-16", "", 1);
    let cases = house.cases("run");
    assert_eq!(cases["plain"].error, None);
    for (mode, part) in [("claimant", "claims 16 steps, and the answers"), ("deep-answers", "took other steps")] {
        let error = cases[mode].error.as_ref().unwrap_or_else(|| panic!("{mode} was believed"));
        assert!(error.kind == ErrorKind::WrongOutput && error.message.contains(part), "{mode}: {error:?}");
    }
}

#[test]
fn who_talks_too_much_or_too_long_fails_alone_and_the_run_can_be_read() {
    let house = House::new();
    let modes = ["windbag", "long-farewell", "ropewalker", "plain"];
    let dripping = "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"dripping\"]\nseconds = 0.1\n\
                    warmup_seconds = 0.01\ntimeout_seconds = 3\n";
    run(&house, &modes, "dense", "once", &(dripping.to_owned() + &house.fake("dripping", &[])), 1);
    let cases = house.cases("run");
    assert_eq!((&cases["windbag"].error, &cases["plain"].error), (&None, &None));
    assert!(cases["windbag"].versions.keys().any(|k| k.contains("cut off")));
    let end = |mode: &str| cases[mode].error.clone().unwrap_or_else(|| panic!("{mode} ended well"));
    assert!(end("long-farewell").message.ends_with("(cut off: 15200000 bytes)"));
    assert!(end("ropewalker").message.contains("a line of more than 16777216 bytes"));
    let dripping = end("dripping");
    assert!(dripping.kind == ErrorKind::Timeout || dripping.message.contains("lines of `unavailable`"), "{dripping:?}");
    for file in ["records.json", "records.csv", "report/index.html"] {
        let size = std::fs::metadata(house.path("run").join(file)).unwrap().len();
        assert!(size < 4 << 20, "{file} has {size} bytes");
    }
    house.ergometer(&["run", "suite.toml", "--out", "run", "--resume"]).exits(1);
}
