//! Cases that do not take turns: their blocks are spread over each other's, several starts of each, and neither a crash
//! nor a kill costs another case anything.
//!
//! In: fake workers that log every phase. Out: their order, run folders. Must not: expect one fake to be faster than
//! another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use ergometer_reports::{CaseRun, load};

use crate::house::{House, wait_until};

/// A suite of these fakes, name and mode, which are compared with nobody; `hold` is for `b`.
fn suite(house: &House, fakes: &[(&str, &str)], hold: &[&str], rest: &str) -> PathBuf {
    house.suite_of_fakes("waves.toml", fakes, hold, rest)
}

fn count(house: &House, line: &str) -> usize {
    house.log().iter().filter(|l| *l == line).count()
}

fn cases(house: &House, run: &str) -> BTreeMap<String, CaseRun> {
    let run = load(&house.path(run)).unwrap();
    run.cases.into_iter().map(|c| (format!("{} t{}", c.case.key.backend, c.case.key.threads), c)).collect()
}

/// Timed blocks of a case.
fn blocks(case: &CaseRun) -> BTreeSet<u32> {
    case.samples.iter().filter(|s| s.phase == "steady" && s.metric == "latency").map(|s| s.block).collect()
}

#[test]
fn blocks_of_short_cases_are_ten_and_spread_over_the_blocks_of_others() {
    let house = House::new();
    let suite = suite(&house, &[("a", "plain"), ("b", "plain"), ("c", "plain")], &[], "");
    house.run(&suite, "run", &[]).exits(0);
    let timed: Vec<String> = house.log().into_iter().filter(|l| l.ends_with("time")).collect();
    assert_eq!(timed.len(), 30);
    for round in timed.chunks(3) {
        assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), 3, "each once a round: {round:?}");
    }
    let run = load(&house.path("run")).unwrap();
    assert!(run.environment.versions["turns.seed"].len() == 16 && run.environment.versions["starts"] == "1");
    for case in &run.cases {
        assert_eq!(blocks(case).len(), 10, "{}", case.case.path);
        assert!(case.case.interleaved.is_none() && case.case.starts.is_empty(), "nothing is compared by round");
    }

    // one at a time where the suite says so, and by itself a case has as many
    let text = fs::read_to_string(&suite).unwrap();
    fs::write(&suite, format!("together = 1\n{text}")).unwrap();
    fs::remove_file(house.path("log")).unwrap();
    house.run(&suite, "alone", &[]).exits(0);
    let timed: Vec<String> = house.log().into_iter().filter(|l| l.ends_with("time")).collect();
    assert_eq!(timed.chunks(10).map(|c| c.iter().collect::<BTreeSet<_>>().len()).collect::<Vec<_>>(), [1, 1, 1]);
    for wrong in ["0", "17", "-1"] {
        fs::write(&suite, format!("together = {wrong}\n{text}")).unwrap();
        house.run(&suite, "wrong", &[]).refused(&["line 1, `together`", "1 to 16"]);
    }
    // a check measures one step of each
    fs::write(&suite, text).unwrap();
    house.run(&suite, "check", &["--check"]).exits(0);
    assert!(cases(&house, "check").values().all(|c| blocks(c).len() == 1));
}

#[test]
fn who_answered_for_others_and_fails_leaves_them_their_accuracy() {
    // the same backend with two numbers of threads is scored once; the first one breaks in its third block
    let house = House::new();
    let suite = suite(&house, &[("a", "exit-third-of-one-thread"), ("b", "plain")], &[], "threads = [1, 2, 4]\n");
    house.run(&suite, "run", &[]).exits(1);
    house.assert_nobody_left();
    let cases = cases(&house, "run");
    assert!(cases["a t1"].case.error.is_some() && cases["a t1"].predictions.is_empty());
    let second = &cases["a t2"];
    assert_eq!(second.case.accuracy_from.as_ref(), Some(&second.case.id), "it answered by itself");
    assert_eq!(cases["a t4"].case.accuracy_from.as_ref(), Some(&second.case.id), "and so for the third");
    let records = house.records("run");
    for record in records.0.iter().filter(|r| r.metric == "accuracy" && !(r.backend == "a" && r.threads == 1)) {
        assert_eq!(record.value, Some(1.0), "{} with {} threads", record.backend, record.threads);
    }
    assert_eq!(count(&house, "a answer"), 2);
}

#[test]
fn several_starts_are_spread_over_the_run_and_become_one_case() {
    let house = House::new();
    let suite = suite(&house, &[("a", "plain"), ("b", "plain"), ("bad", "exit-late")], &[], "");
    house.run(&suite, "run", &["--repeats", "3"]).exits(1);
    house.assert_nobody_left();
    assert_eq!((count(&house, "a load"), count(&house, "bad load")), (3, 1), "who fails is not started again");
    assert_eq!(count(&house, "a answer"), 1, "scored once");
    let order: Vec<String> = house.log().into_iter().filter(|l| ["a load", "b load"].contains(&l.as_str())).collect();
    assert_eq!(order, ["a load", "b load"].repeat(3), "pass by pass");
    let cases = cases(&house, "run");
    for name in ["a t1", "b t1"] {
        let case = &cases[name];
        assert_eq!((case.case.starts.len(), case.case.starts[0], blocks(case).len()), (3, 0, 30), "{name}");
        let of_start = |start: usize| {
            let end = case.case.starts.get(start + 1).copied().unwrap_or(u32::MAX);
            blocks(case).into_iter().filter(|b| (case.case.starts[start]..end).contains(b)).count()
        };
        assert_eq!([0, 1, 2].map(of_start), [10; 3]);
        assert_eq!(case.samples.iter().filter(|s| s.metric == "load_time").count(), 3);
        assert!(!case.predictions.is_empty());
    }
    assert!(cases["bad t1"].case.error.is_some());
    assert!(!house.path("run/starts").exists());
    house.run(&suite, "run", &["--resume", "--repeats", "2"]).refused(&["number of starts", "hint: "]);
    house.run(&suite, "run", &["--resume"]).exits(1);
    assert_eq!((count(&house, "a load"), count(&house, "bad load")), (3, 1), "nothing is left to do");
    house.run(&suite, "none", &["--repeats", "0"]).refused(&["0"]);
}

#[test]
fn a_run_of_several_starts_that_was_killed_goes_on_with_those_that_are_left() {
    let house = House::new();
    let gate = house.path("gate");
    let hold = ["--hold", "time", "--gate", gate.to_str().unwrap()];
    let suite = suite(&house, &[("a", "plain"), ("b", "plain")], &hold, "");
    let text = fs::read_to_string(&suite).unwrap();
    fs::write(&suite, format!("together = 1\n{text}")).unwrap();
    let mut harness = house.start(&["run", suite.to_str().unwrap(), "--out", "run", "--repeats", "2"]);
    wait_until("a block of b", || house.log().contains(&"b time".to_string()));
    harness.kill();
    house.assert_nobody_left();
    assert_eq!(count(&house, "a load"), 1);
    house.file("gate", "");
    house.run(&suite, "run", &["--resume"]).exits(0);
    assert_eq!((count(&house, "a load"), count(&house, "b load")), (2, 3), "a's first start is kept");
    assert_eq!(count(&house, "a answer"), 1);
    let cases = cases(&house, "run");
    assert!(
        ["a t1", "b t1"].iter().all(|name| cases[*name].case.starts.len() == 2 && blocks(&cases[*name]).len() == 20)
    );
    assert_eq!(house.records("run").value("a", "accuracy"), 1.0);
}

#[test]
fn starts_that_no_case_could_keep_are_refused_after_the_first() {
    let house = House::new();
    let cases = "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"many\"]\nseconds = 0.5\nwarmup_seconds = 0\n";
    let suite = house.suite("many.toml", &(house.fake("many", &[]) + cases));
    let parts = ["rows of samples", "30 starts do not fit", "hint: begin anew with `--repeats "];
    house.run(&suite, "run", &["--repeats", "30"]).refused(&parts);
    // what it left is no way out of the run folder
    fs::create_dir(house.path("outside")).unwrap();
    for place in ["run/starts/1/cases", "run/starts/1", "run/starts"] {
        fs::rename(house.path(place), house.path("kept")).unwrap();
        std::os::unix::fs::symlink(house.path("outside"), house.path(place)).unwrap();
        house.run(&suite, "run", &["--resume"]).refused(&["run/starts/1", "link", "hint: "]);
        assert_eq!(fs::read_dir(house.path("outside")).unwrap().count(), 0, "{place}");
        fs::remove_file(house.path(place)).unwrap();
        fs::rename(house.path("kept"), house.path(place)).unwrap();
    }
    let cases = |start: &str| fs::read_dir(house.path("run/starts").join(start).join("cases")).unwrap().count();
    assert_eq!((cases("1"), cases("2")), (1, 0));
}
