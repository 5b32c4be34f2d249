//! A run that is killed at any moment goes on where it was: nothing lost, nothing run twice, nothing half written, nobody left behind.
//!
//! In: a suite of three fake workers that log every start, the second of which waits at a gate. Out: run folders before and after the
//! kill. Must not: guess when a phase has been reached; the worker's log says so.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::house::{House, tree, wait_until};

/// Three cases, `a`, `b` and `c`; `b` waits in `phase` until the gate is open.
fn three(house: &House, phase: &str) -> PathBuf {
    let (log, gate) = (house.path("starts"), house.path("gate"));
    let (log, gate) = (log.to_str().unwrap(), gate.to_str().unwrap());
    let mut text = house.fake_as("a", "plain", &["--log", log]);
    text += &house.fake_as("b", "plain", &["--log", log, "--hold", phase, "--gate", gate]);
    text += &house.fake_as("c", "plain", &["--log", log]);
    text += "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"a\", \"b\", \"c\"]\nseconds = 0.05\nwarmup_seconds = 0\n";
    // one after the other: of cases that work together none is finished before all are
    let suite = house.suite("three.toml", &text);
    let text = fs::read_to_string(&suite).unwrap();
    house.file("three.toml", format!("together = 1\n{text}"))
}

/// Phases that workers have logged so far.
fn log(house: &House) -> Vec<String> {
    fs::read_to_string(house.path("starts")).unwrap_or_default().lines().map(str::to_string).collect()
}

fn starts(house: &House, backend: &str) -> usize {
    log(house).iter().filter(|l| **l == format!("{backend} load")).count()
}

/// Files of finished cases of `run`.
fn finished(house: &House) -> Vec<(PathBuf, Vec<u8>)> {
    let files = tree(&house.path("run/cases"));
    files.into_iter().filter(|(path, _)| !path.to_str().unwrap().starts_with(".tmp-")).collect()
}

fn assert_whole(house: &House) {
    let files = tree(&house.path("run"));
    let half: Vec<_> = files.keys().filter(|p| p.to_str().unwrap().contains(".tmp-")).collect();
    assert!(half.is_empty(), "{half:?}");
    assert!(!files[&PathBuf::from("report/index.html")].is_empty());
    let records = house.records("run");
    for backend in ["a", "b", "c"] {
        assert_eq!(records.value(backend, "accuracy"), 1.0);
        assert!(records.value(backend, "latency") > 0.0);
    }
    assert_eq!(house.cases("run").len(), 3);
    // records.csv has a line for each record of records.json and a header
    let lines = files[&PathBuf::from("records.csv")].iter().filter(|&&b| b == b'\n').count();
    assert!(lines > records.0.len());
}

#[test]
fn a_kill_in_any_phase_loses_nothing_and_repeats_nothing() {
    std::thread::scope(|scope| {
        for phase in ["load", "warm", "answer", "time"] {
            scope.spawn(move || {
                let house = House::new();
                let suite = three(&house, phase);
                let mut harness = house.start(&["run", suite.to_str().unwrap(), "--out", "run"]);
                wait_until("the phase", || log(&house).contains(&format!("b {phase}")));
                harness.kill();
                house.assert_nobody_left();
                let before = finished(&house);
                assert!(!before.is_empty() && !house.path("run/records.json").exists());

                house.file("gate", "");
                let ended = house.run(&suite, "run", &["--resume"]);
                ended.exits(0);
                assert!(ended.stderr.contains("finished before: 1 of 3 cases"), "{}", ended.stderr);
                assert_eq!([starts(&house, "a"), starts(&house, "b"), starts(&house, "c")], [1, 2, 1], "{phase}");
                let after = finished(&house);
                assert!(before.iter().all(|file| after.contains(file)), "a finished case was touched");
                assert_whole(&house);

                // nothing to do is done at once, and changes no case
                house.run(&suite, "run", &["--resume"]).exits(0);
                assert_eq!(finished(&house), after);
                assert_eq!(starts(&house, "c"), 1);
            });
        }
    });
}

#[test]
fn what_a_worker_started_does_not_outlive_the_harness() {
    for mode in ["parent", "guest"] {
        let house = House::new();
        let (log, gate) = (house.path("starts"), house.path("gate"));
        let hold = ["--log", log.to_str().unwrap(), "--hold", "time", "--gate", gate.to_str().unwrap()];
        let text = house.fake(mode, &hold)
            + &format!(
                "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [{mode:?}]\nwarmup_seconds = 0\n"
            );
        let suite = house.suite("parent.toml", &text);
        let mut harness = house.start(&["run", suite.to_str().unwrap(), "--out", "run"]);
        wait_until("the timed block", || self::log(&house).contains(&format!("{mode} time")));
        assert!(house.left().len() >= 3, "worker, its child and the guard: {:?}", house.left());
        harness.kill();
        house.assert_nobody_left();
    }
}

#[test]
fn kills_at_odd_moments_between_cases_and_while_writing_lose_nothing() {
    let house = House::new();
    house.file("gate", "");
    let suite = three(&house, "load");
    let suite_text = suite.to_str().unwrap();
    let mut harness = house.start(&["run", suite_text, "--out", "run"]);
    wait_until("the folder", || house.path("run/environment.json").exists());
    let mut known = Vec::new();
    // each round is let live until it has brought something new, plus a moment that differs from round to round
    for round in 0u64.. {
        assert!(round < 100, "a run that is killed after progress must end");
        let seen = (finished(&house).len(), log(&house).len());
        wait_until("progress", || !harness.is_running() || (finished(&house).len(), log(&house).len()) != seen);
        std::thread::sleep(Duration::from_millis(round * 137 % 400 + 5 * round));
        let over = !harness.is_running();
        harness.kill();
        house.assert_nobody_left();
        let now = finished(&house);
        assert!(known.iter().all(|file| now.contains(file)), "round {round}: a finished case was lost or changed");
        let cases: Vec<String> = house.cases("run").into_keys().collect();
        known = now;
        if over {
            break;
        }
        let before = cases.iter().map(|b| (b, starts(&house, b))).collect::<Vec<_>>();
        harness = house.start(&["run", suite_text, "--out", "run", "--resume"]);
        wait_until("a start", || !harness.is_running() || log(&house).len() != seen.1);
        assert!(before.iter().all(|(b, n)| starts(&house, b) == *n), "round {round}: a finished case ran again");
    }
    house.run(&suite, "run", &["--resume"]).exits(0);
    assert_whole(&house);
}

#[test]
fn what_a_kill_left_half_written_is_swept_away() {
    let house = House::new();
    house.file("gate", "");
    let suite = three(&house, "load");
    house.run(&suite, "run", &[]).exits(0);
    // as a program that was killed while it wrote leaves them
    fs::create_dir(house.path("run/cases/.tmp-small~x-1")).unwrap();
    for file in [
        ".tmp-records.csv-1",
        "report/.tmp-index.html-1",
        "report/plots/.tmp-x.svg-1",
        "cases/.tmp-small~x-1/case.json",
    ] {
        house.file(&format!("run/{file}"), "{\"half\":");
    }
    house.run(&suite, "run", &["--resume"]).exits(0);
    assert_whole(&house);
    assert_eq!([starts(&house, "a"), starts(&house, "b"), starts(&house, "c")], [1, 1, 1]);
}

#[test]
fn two_programs_do_not_share_a_run_folder() {
    let house = House::new();
    let suite = three(&house, "load");
    let mut first = house.start(&["run", suite.to_str().unwrap(), "--out", "run"]);
    wait_until("the first case", || log(&house).contains(&"b load".to_string()));
    house.run(&suite, "run", &["--resume"]).refused(&["another ergometer is running in run", "hint: "]);
    house.run(&suite, "run", &[]).refused(&["already holds a run", "hint: ", "--resume"]);
    assert_eq!((starts(&house, "a"), starts(&house, "b")), (1, 1));
    // the first one is none the worse for it
    house.file("gate", "");
    assert_eq!(first.wait().code(), Some(0));
    assert_whole(&house);
}

#[test]
fn what_changed_is_not_mixed_into_an_old_run() {
    let house = House::new();
    house.file("gate", "");
    let suite = three(&house, "load");
    house.run(&suite, "run", &[]).exits(0);
    let before = tree(&house.path("run"));
    let text = fs::read_to_string(&suite).unwrap();
    fs::write(&suite, text.replace("seconds = 0.05", "seconds = 0.06")).unwrap();
    house.run(&suite, "run", &["--resume"]).refused(&["run was begun with another suite", "hint: start a new run"]);
    house.run(&suite, "nowhere", &["--resume"]).refused(&["nowhere", "not a run folder", "hint: "]);
    house.ergometer(&["run", suite.to_str().unwrap(), "--resume"]).refused(&["--resume", "hint: add `--out DIR`"]);
    assert_eq!(tree(&house.path("run")), before);
    assert!(!house.path("nowhere").exists());
}
