//! Deadlines, memory and joules that a suite asks for, through a whole run.
//!
//! In: a fake that naps 20 ms an iteration. Out: records, what the terminal says, refusals by key. Must not: depend on how fast anything is
//! beyond a nap that cannot be shorter.

use crate::house::House;

const CASES: &str =
    "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"nap\"]\nseconds = 0.6\nwarmup_seconds = 0\n";

#[test]
fn a_case_that_misses_is_no_failure_and_says_by_how_much() {
    let house = House::new();
    let keys = "deadline = \"10 ms\"\nmemory_limit = \"1 MB\"\nmax_energy = \"0.5 J\"\nbackground = 1\n";
    let suite = house.suite("limits.toml", &(house.fake("nap", &[]) + CASES + keys));
    let ended = house.run(&suite, "run", &[]);
    ended.exits(0);
    let records = house.records("run");
    // a nap of 20 ms is over 10 ms, always
    assert_eq!(records.value("nap", "deadline_missed"), 1.0);
    assert!(records.value("nap", "deadline_overrun") >= 2.0 && records.value("nap", "jitter") >= 0.0);
    assert!(records.value("nap", "memory_over_limit") > 1.0);
    // there is no meter here
    assert!(records.get("nap", "energy_over_max").missing.is_some());
    let case = house.cases("run").remove("nap").unwrap();
    assert_eq!((case.constraints.deadline, case.constraints.background), (Some(0.01), 1));
    assert!(case.notes.iter().any(|n| n.contains("background load while it was timed: 1 thread")), "{:?}", case.notes);
    let said = ended.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("limits") && said.contains("misses 10.0") && said.contains("of memory, it needs"), "{said}");
    house.assert_nobody_left();
}

#[test]
fn limits_without_a_unit_are_refused_by_key() {
    let house = House::new();
    for (key, word) in [
        ("deadline = 10", "a time such as"),
        ("deadline = \"10 MB\"", "a time such as"),
        ("memory_limit = \"lots\"", "a size such as"),
        ("max_energy = \"0 J\"", "an energy such as"),
        ("background = 2", "`deadline`"),
        ("deadline = \"1 s\"\nbackground = 1000", "background"),
        ("deadlines = \"1 s\"", "did you mean `deadline`"),
    ] {
        let suite = house.suite("limits.toml", &(house.fake("nap", &[]) + CASES + key));
        house.run(&suite, "run", &["--dry-run"]).refused(&[word, "line"]);
    }
}
