//! Cases that take turns: who works when, what of it stands in the run folder, and that neither a crash nor a kill
//! costs another case anything.
//!
//! In: fake workers that log every phase. Out: their order, run folders, records. Must not: expect one fake to be
//! faster than another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use ergometer_reports::{CaseRun, load};

use crate::house::{House, wait_until};

const ROUNDS: usize = 10;

/// A suite of these fakes, name and mode, that take turns; what `rest` says is for all of them.
fn suite(house: &House, fakes: &[(&str, &str)], hold: &[&str], rest: &str) -> PathBuf {
    house.suite_of_fakes("turns.toml", fakes, hold, &format!("interleave = true\n{rest}"))
}

fn starts(house: &House, name: &str) -> usize {
    house.log().iter().filter(|l| **l == format!("{name} load")).count()
}

/// The cases of a run by backend.
fn cases(house: &House, run: &str) -> BTreeMap<String, CaseRun> {
    let run = load(&house.path(run)).unwrap();
    run.cases.into_iter().map(|c| (c.case.key.backend.clone(), c)).collect()
}

/// Ids of the interleaved groups of these cases.
fn groups_of(cases: &BTreeMap<String, CaseRun>, names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| cases[*n].case.interleaved.as_ref().unwrap().id.clone()).collect()
}

/// Backends by when each timed block began, from the files alone.
fn order(cases: &BTreeMap<String, CaseRun>) -> Vec<&str> {
    let mut blocks: BTreeMap<(u32, &str), u64> = BTreeMap::new();
    for (name, case) in cases {
        for s in case.samples.iter().filter(|s| s.phase == "steady" && s.metric == "latency") {
            let began = blocks.entry((s.block, name)).or_insert(u64::MAX);
            *began = s.t_ns.min(*began);
        }
    }
    let mut order: Vec<(u64, &str)> = blocks.into_iter().map(|((_, name), t_ns)| (t_ns, name)).collect();
    order.sort();
    order.into_iter().map(|o| o.1).collect()
}

/// Ten rounds, each with one turn of everybody, and nobody in any place more than once more often than another.
#[track_caller]
fn assert_balanced(order: &[&str], names: &[&str]) {
    assert_eq!(order.len(), ROUNDS * names.len(), "{order:?}");
    let mut places: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    for round in order.chunks(names.len()) {
        assert_eq!(BTreeSet::from_iter(round), BTreeSet::from_iter(names), "each once a round");
        round.iter().enumerate().for_each(|(place, name)| *places.entry((name, place)).or_default() += 1);
    }
    let (least, most) = (ROUNDS / names.len(), ROUNDS.div_ceil(names.len()));
    assert!(names.len() > ROUNDS || places.len() == names.len().pow(2), "{places:?}");
    assert!(places.values().all(|n| (least..=most).contains(n)), "{places:?}");
}

#[test]
fn all_are_ready_before_the_first_is_timed_and_turns_are_random_and_balanced() {
    let house = House::new();
    let suite = suite(&house, &[("a", "nap"), ("b", "nap"), ("c", "nap")], &[], "base = \"b\"\n");
    let ended = house.run(&suite, "run", &[]);
    ended.exits(0);
    let mut want: Vec<String> = Vec::new();
    for name in ["a", "b", "c"] {
        want.extend(["load", "warm", "answer"].map(|phase| format!("{name} {phase}")));
    }
    let all = house.log();
    assert_eq!(all[..9], want);
    // once round without being timed, so that nobody's first block bears having waited
    let settled: BTreeSet<&str> = all[9..12].iter().map(String::as_str).collect();
    assert_eq!(settled, BTreeSet::from(["a warm", "b warm", "c warm"]));
    let cases = cases(&house, "run");
    let order = order(&cases);
    assert_balanced(&order, &["a", "b", "c"]);
    // an iteration that nobody times comes before each turn: another one has worked since; the files tell the same
    // order
    let turns: Vec<String> = order.iter().flat_map(|name| [format!("{name} warm"), format!("{name} time")]).collect();
    assert_eq!(all[12..], turns);
    assert_eq!(groups_of(&cases, &["a", "b", "c"]).len(), 1);
    for case in cases.values() {
        let blocks = |metric: &str| {
            let of = case.samples.iter().filter(|s| s.phase == "steady" && s.metric == metric);
            of.map(|s| s.block).collect::<BTreeSet<_>>().len()
        };
        assert_eq!([blocks("latency"), blocks("cpu_time"), blocks("memory_peak")], [ROUNDS; 3], "{}", case.case.path);
        assert_eq!(case.samples.iter().filter(|s| s.metric == "first_latency").count(), 1);
    }

    let records = house.records("run");
    let base = records.get("b", "speedup");
    assert_eq!((base.value, base.upper, base.n), (Some(1.0), None, ROUNDS as u64));
    for name in ["a", "c"] {
        let record = records.get(name, "speedup");
        let (value, lower, upper) = (record.value.unwrap(), record.lower.unwrap(), record.upper.unwrap());
        assert!(0.0 < lower && lower <= value && value <= upper, "{record:?}");
        assert_eq!(record.n, ROUNDS as u64);
        assert!(record.method.ends_with(&format!("base `{}`", cases["b"].case.path)), "{}", record.method);
    }
    assert!(ended.stdout.contains("Speed-up over b, cases in turns"), "{}", ended.stdout);
    let page = fs::read_to_string(house.path("run/report/index.html")).unwrap();
    assert!(page.contains("Speed-up over b, cases in turns") && page.contains("id=\"plot-speedup\""));
}

#[test]
fn slow_cases_have_the_rounds_that_the_intervals_of_their_speed_ups_need() {
    // ten blocks of such iterations would take seconds more than asked for: by itself each would get six
    for (fakes, rounds) in [(&[("a", "slow-start"), ("b", "plain")][..], 6), (&[("a", "slow-start"); 1][..], 6)] {
        let house = House::new();
        house.run(&suite(&house, fakes, &[], "base = \"a\"\n"), "run", &[]).exits(0);
        assert_eq!(house.records("run").get("a", "speedup").n, rounds);
    }
    let house = House::new();
    let fakes = [("a", "slow-start"), ("b", "plain"), ("c", "plain"), ("d", "plain")];
    house.run(&suite(&house, &fakes, &[], "base = \"a\"\n"), "run", &[]).exits(0);
    let records = house.records("run");
    for name in ["b", "c", "d"] {
        let record = records.get(name, "speedup");
        assert!(record.n == 7 && record.lower < record.value && record.value < record.upper, "{record:?}");
    }
    // a check has one round, whatever that means for intervals
    house.run(&suite(&house, &fakes, &[], "base = \"a\"\n"), "check", &["--check"]).exits(0);
    assert_eq!(house.records("check").get("b", "speedup").n, 1);
}

#[test]
fn who_fails_drops_out_and_the_others_are_whole() {
    let fakes = [("a", "nap"), ("b", "exit-third"), ("c", "exit"), ("d", "nap"), ("e", "exit-last")];
    let house = House::new();
    let ended = house.run(&suite(&house, &fakes, &[], ""), "run", &[]);
    ended.exits(1);
    assert!(ended.stderr.contains("failed: 3 of 5 cases"), "{}", ended.stderr);
    house.assert_nobody_left();
    let cases = cases(&house, "run");
    for (name, message) in [("b", "exit code 4"), ("c", "the dog ate the weights"), ("e", "exit code 5")] {
        let case = &cases[name];
        assert!(case.case.error.as_ref().unwrap().message.contains(message), "{name}: {:?}", case.case.error);
        assert!(case.samples.is_empty() && case.predictions.is_empty(), "{name}");
    }
    let begun = |name: &str| house.log().iter().filter(|l| **l == format!("{name} time")).count();
    assert_eq!(["a", "b", "c", "d", "e"].map(begun), [ROUNDS, 2, 0, ROUNDS, ROUNDS], "turns by name");
    let records = house.records("run");
    for name in ["a", "d"] {
        assert_eq!(records.value(name, "accuracy"), 1.0);
        assert_eq!(records.get(name, "speedup").n, ROUNDS as u64);
    }
    assert_eq!(records.get("b", "speedup").missing.as_ref().unwrap().kind, "exit");

    // without its base nobody has a ratio, and everything else is there
    let house = House::new();
    house.run(&suite(&house, &fakes[..4], &[], "base = \"b\"\n"), "run", &[]).exits(1);
    let records = house.records("run");
    let missing = records.get("d", "speedup").missing.clone().unwrap();
    assert!(missing.kind == "exit" && missing.message.contains("its base"), "{missing:?}");
    assert!(records.value("d", "throughput") > 0.0);
}

#[test]
fn what_is_left_of_a_sitting_sits_by_itself() {
    let house = House::new();
    let suite = suite(&house, &[("a", "nap"), ("b", "nap"), ("c", "nap"), ("d", "nap")], &[], "");
    house.run(&suite, "run", &["--filter", "*/[a]/*"]).refused(&["no case of"]);
    house.run(&suite, "run", &["--filter", "*/f32/a/*"]).exits(0);
    let before = cases(&house, "run");
    assert_eq!((before.len(), house.records("run").value("a", "speedup")), (1, 1.0));

    house.run(&suite, "run", &["--resume"]).exits(0);
    assert_eq!(["a", "b", "c", "d"].map(|name| starts(&house, name)), [1; 4]);
    let after = cases(&house, "run");
    assert_eq!(after["a"], before["a"], "a finished case was touched");
    assert_balanced(&order(&after)[ROUNDS..], &["b", "c", "d"]);
    assert_eq!((groups_of(&after, &["b", "c", "d"]).len(), groups_of(&after, &["a", "b"]).len()), (1, 2));
    let records = house.records("run");
    for name in ["b", "c", "d"] {
        let missing = records.get(name, "speedup").missing.clone().unwrap();
        assert!(missing.message.contains("another interleaved group") && missing.hint.is_some(), "{name}: {missing:?}");
        assert!(records.value(name, "throughput") > 0.0);
    }
}

#[test]
fn a_killed_sitting_is_made_again_as_a_whole() {
    let house = House::new();
    let gate = house.path("gate");
    let hold = ["--hold", "time", "--gate", gate.to_str().unwrap()];
    let suite = suite(&house, &[("a", "nap"), ("b", "nap"), ("c", "nap")], &hold, "base = \"c\"\n");
    let mut harness = house.start(&["run", suite.to_str().unwrap(), "--out", "run"]);
    wait_until("a turn of b", || house.log().contains(&"b time".to_string()));
    harness.kill();
    house.assert_nobody_left();
    assert!(house.cases("run").is_empty(), "nobody had finished");

    house.file("gate", "");
    house.run(&suite, "run", &["--resume"]).exits(0);
    assert_eq!(["a", "b", "c"].map(|name| starts(&house, name)), [2; 3]);
    let cases = cases(&house, "run");
    assert_eq!(groups_of(&cases, &["a", "b", "c"]).len(), 1);
    assert_balanced(&order(&cases), &["a", "b", "c"]);
    assert_eq!(house.records("run").get("a", "speedup").n, ROUNDS as u64);
}

#[test]
fn a_check_has_one_round_and_a_shard_whole_sittings() {
    let house = House::new();
    let suite = suite(&house, &[("a", "long"), ("b", "long")], &[], "threads = [1, 2]\n");
    house.run(&suite, "run", &["--check"]).exits(0);
    let all = load(&house.path("run")).unwrap();
    let interleaved_groups: BTreeSet<_> =
        all.cases.iter().map(|c| c.case.interleaved.as_ref().unwrap().id.clone()).collect();
    assert_eq!((all.cases.len(), interleaved_groups.len()), (4, 2));
    let records = house.records("run");
    let record = records.get("b", "speedup");
    assert_eq!((record.n, record.upper), (1, None), "{record:?}");
    assert!(record.note.as_ref().unwrap().contains("n = 1; an interval of the median needs 6"), "{record:?}");
    for (shard, threads) in [("1/2", "t1"), ("2/2", "t2")] {
        let ended = house.ergometer(&["run", suite.to_str().unwrap(), "--dry-run", "--shard", shard]);
        ended.exits(0);
        let paths: Vec<&str> = ended.stdout.lines().filter(|l| l.contains("small/dense")).collect();
        assert!(paths.len() == 2 && paths.iter().all(|p| p.contains(threads)), "{}", ended.stdout);
    }
}

#[test]
fn what_a_waiting_worker_has_started_is_seen_and_named() {
    let house = House::new();
    let suite = suite(&house, &[("a", "plain"), ("b", "restless")], &[], "");
    house.run(&suite, "run", &[]).exits(0);
    let cases = house.cases("run");
    let notes = cases["a"].notes.join("; ");
    let (before, named) = notes.split_once(" while this case was measured: ").unwrap_or_else(|| panic!("{notes}"));
    assert!(before.contains("workers that waited for their turn used "), "{notes}");
    assert!(named.starts_with('`') && named.contains("/b/"), "{notes}");
}
