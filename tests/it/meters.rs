//! Memory, energy and the harness's own cost, as they come out of a whole run with workers of known behaviour.
//!
//! In: fake workers that touch a known amount of memory or nap a known time, a powercap tree of known watts. Out: records and the page.
//! Must not: expect a quiet machine; tolerances are for one that is busy.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::powercap::FakePowercap;
use ergometer_reports::case::ErrorKind;

use crate::house::{House, Records, ended, root};

/// One case of a fake worker, with the powercap tree given.
fn measure(house: &House, mode: &str, seconds: f64, powercap: &Path) -> Records {
    let text = house.fake(mode, &[])
        + &format!(
            "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [{mode:?}]\nseconds = {seconds:?}\nwarmup_seconds = 0.1\n"
        );
    let suite = house.suite(&format!("{mode}.toml"), &text);
    let mut command = house.command(&["run", suite.to_str().unwrap(), "--out", "run"]);
    command.env("ERGOMETER_POWERCAP", powercap);
    ended(command).exits(0);
    house.records("run")
}

#[test]
fn a_worker_that_touches_256_mib_reads_256_mib() {
    let house = House::new();
    let records = measure(&house, "hungry", 0.2, &house.path("none"));
    let added = records.value("hungry", "memory_added") / f64::from(1 << 20);
    assert!((added - 256.0).abs() <= 4.0, "{added} MiB");
    // before it was timed it had not touched them
    assert!(records.value("hungry", "memory_warmup") < f64::from(64 << 20));
}

#[test]
fn known_watts_become_joules_in_records_and_page() {
    const WATTS: f64 = 50.0;
    let house = House::new();
    let fake =
        FakePowercap::new().zone("intel-rapl:0", "package-0", WATTS).zone("intel-rapl:0:0", "dram", 5.0).run().unwrap();
    let records = measure(&house, "nap", 2.0, fake.root());
    // single-stream: one example an iteration, and nothing but iterations in a block
    let expected = WATTS * records.value("nap", "latency");
    for (metric, expected) in
        [("energy_cpu", expected), ("energy_dram", expected / 10.0), ("joules_per_right", expected)]
    {
        let joules = records.value("nap", metric);
        assert!((joules / expected - 1.0).abs() < 0.15, "{metric}: {joules} J, {expected} J expected");
    }
    assert!(records.get("nap", "energy_gpu").value.is_none());
    // the fake moves each 4 ms or later, a block lasts 400 ms: the edges are in the interval and are told
    let (energy, edge) = (records.get("nap", "energy_cpu"), records.value("nap", "energy_cpu_edge"));
    let value = energy.value.unwrap();
    assert!(edge > 2.0 * 0.004 / 0.4 * 0.8 * value && edge < 0.5 * value, "{edge} J of {value} J");
    assert!(energy.upper.unwrap() >= (value + edge) * (1.0 - 1e-9), "{energy:?} {edge}");
    for metric in ["energy_cpu", "joules_per_right"] {
        assert!(records.get("nap", metric).note.as_ref().unwrap().contains("edges of its blocks"), "{metric}");
    }
    let html = fs::read_to_string(house.path("run/report/index.html")).unwrap();
    let shown = shown_joules(&html, "joules_per_right");
    assert!((shown / expected - 1.0).abs() < 0.15, "the page shows {shown} J");
}

/// As on most virtual machines with a board: NVML, and no counter of the processor.
#[test]
fn a_board_without_packages_beside_it_has_joules_of_its_own() {
    // the fake's two boards
    const WATTS: f64 = 400.0;
    let house = House::new();
    let library = house.path("libnvidia-ml.so.1");
    let source = root().join("tests/fakes/nvml.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(built.expect("a C compiler named `cc` is needed").success());
    let text = house.fake("nap", &[])
        + "options = { device = \"cuda\" }\n[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"nap\"]\nseconds = 3\nwarmup_seconds = 0.1\n";
    let suite = house.suite("boards.toml", &text);
    let mut command = house.command(&["run", suite.to_str().unwrap(), "--out", "run"]);
    command.env("ERGOMETER_POWERCAP", house.path("none")).env("ERGOMETER_NVML", &library);
    command.env_remove("CUDA_VISIBLE_DEVICES");
    ended(command).exits(0);
    let records = house.records("run");
    let expected = WATTS * records.value("nap", "latency");
    for metric in ["energy_gpu", "board_joules_per_right"] {
        let joules = records.value("nap", metric);
        assert!((joules / expected - 1.0).abs() < 0.25, "{metric}: {joules} J, {expected} J expected");
    }
    // the sum lacks a part, and says what the other part is
    let why = records.get("nap", "joules_per_right").missing.as_ref().unwrap();
    assert!(why.message.contains("none") && why.message.contains("board_joules_per_right"), "{why:?}");
}

#[test]
fn a_worker_that_never_pauses_does_not_make_a_counter_lose_a_wrap() {
    const WATTS: f64 = 200.0;
    let house = House::new();
    // at the most plausible power it could wrap every 0.5 s, and a block is longer than that
    let fake = FakePowercap::new().counter("intel-rapl:0", "package-0", WATTS, 1_000_000, 500_000_000).run().unwrap();
    let records = measure(&house, "streaming", 12.0, fake.root());
    let (joules, expected) = (records.value("streaming", "energy_cpu"), WATTS * records.value("streaming", "latency"));
    assert!((joules / expected - 1.0).abs() < 0.25, "{joules} J, {expected} J expected");
}

/// The number that the page gives for a metric in J, scaled back from its prefix.
fn shown_joules(html: &str, metric: &str) -> f64 {
    let cell = html
        .split(&format!(">{metric}</td><td>"))
        .nth(1)
        .expect("the page has a row for it")
        .split('<')
        .next()
        .unwrap();
    let mut words = cell.split_whitespace();
    let value: f64 = words.next().unwrap().parse().unwrap();
    match words.next() {
        Some("J") => value,
        Some("mJ") => value * 1e-3,
        other => panic!("{other:?} as a unit of {metric}"),
    }
}

#[test]
fn a_counter_that_opens_and_never_moves_is_unavailable_and_never_zero() {
    let house = House::new();
    let fake = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).still().unwrap();
    let records = measure(&house, "plain", 0.1, fake.root());
    for metric in ["energy_cpu", "energy_dram", "joules_per_right"] {
        let record = records.get("plain", metric);
        assert_eq!((record.value, record.missing.as_ref().unwrap().kind.as_str()), (None, "unavailable"), "{metric}");
        assert!(!record.missing.as_ref().unwrap().message.is_empty());
    }
    assert!(records.value("plain", "latency") > 0.0);
}

/// The block may lie between two moves of the counter, or hold one that is mostly someone else's.
#[test]
fn a_block_shorter_than_the_counters_period_is_unavailable_and_never_zero() {
    let house = House::new();
    let fake = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).every(Duration::from_millis(100));
    let fake = fake.run().unwrap();
    let records = measure(&house, "nap", 0.05, fake.root());
    let missing = records.get("nap", "energy_cpu").missing.clone().unwrap();
    let told = ["is shorter than the counter's period", "the edges of its blocks can be"];
    assert!(missing.kind == "unavailable" && told.iter().any(|t| missing.message.contains(t)), "{missing:?}");
    // the same reason, and not one of its own
    assert_eq!(records.get("nap", "joules_per_right").missing.as_ref(), Some(&missing));
}

#[test]
fn reporting_is_not_charged_to_the_model() {
    let house = House::new();
    let records = measure(&house, "hoarder", 0.2, &house.path("none"));
    let added = records.value("hoarder", "memory_added");
    assert!(added < f64::from(64 << 20), "{added} B");
}

#[test]
fn a_worker_with_children_has_a_note() {
    let house = House::new();
    for (mode, expected) in [("parent", true), ("plain", false)] {
        let text = house.fake(mode, &[])
            + &format!("[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [{mode:?}]\n");
        let suite = house.suite(&format!("{mode}.toml"), &text);
        house.run(&suite, mode, &["--check"]).exits(0);
        let notes = house.cases(mode)[mode].notes.join("; ");
        assert_eq!(
            notes.contains("the worker has child processes: cpu_time and memory_*"),
            expected,
            "{mode}: {notes}"
        );
    }
}

#[test]
fn the_meters_stop_once_a_block() {
    let house = House::new();
    let text =
        house.fake("echo", &[]) + "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"echo\"]\n";
    let suite = house.suite("echo.toml", &text);
    house.run(&suite, "run", &["--check"]).exits(1);
    let error = house.cases("run")["echo"].error.clone().unwrap();
    assert!(error.kind == ErrorKind::Protocol && error.message.contains("came again"), "{error:?}");
}

#[test]
fn the_harness_costs_less_than_one_percent_while_a_worker_measures() {
    let house = House::new();
    let share = measure(&house, "nap", 3.0, &house.path("none")).value("nap", "harness_cpu");
    assert!(share > 0.0 && share < 0.01, "{share}");
}

#[test]
fn many_samples_cost_the_harness_no_more_than_few() {
    let house = House::new();
    let share = measure(&house, "many", 3.0, &house.path("none")).value("many", "harness_cpu");
    assert!(share < 0.01, "{share}");
}
