//! The meter on fake trees: known joules, wraps, and every way in which a counter can mislead.

use std::fs;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::fake_powercap::{FakePowercap, FakeTree, USUAL_RANGE_UJ};
use super::super::{MeterOptions, MeterReading};
use super::*;

fn options(tree: &FakeTree) -> MeterOptions {
    MeterOptions { powercap: tree.root().into(), ..MeterOptions::default() }
}

fn ready(tree: &FakeTree) -> ProbedMeter {
    probe(&options(tree)).unwrap_or_else(|e| panic!("{}", e.reason))
}

fn refused(tree: &FakeTree) -> Unavailable {
    probe(&options(tree)).err().expect("the probe must refuse this tree")
}

/// Opens a window, sleeps (ticking in time), closes it. Gives the readings and, for each name of a zone, the least and most that a right
/// reading can be: the tree is asked before and after each end of the window.
fn window(
    tree: &FakeTree,
    names: &[&str],
    source: &mut dyn EnergySource,
    time: Duration,
) -> (Vec<MeterReading>, Vec<RangeInclusive<f64>>) {
    let ask = || names.iter().map(|n| tree.joules(n)).collect::<Vec<f64>>();
    let before = ask();
    let begin = Instant::now();
    source.start();
    let opened = ask();
    while let Some(left) = time.checked_sub(begin.elapsed()).filter(|l| !l.is_zero()) {
        std::thread::sleep(left.min(source.tick_interval().unwrap_or(left)));
        source.tick();
    }
    let closing = ask();
    let readings = source.stop();
    let after = ask();
    // 10 µJ for roundings.
    let bounds = (0..names.len()).map(|i| closing[i] - opened[i] - 1e-5..=after[i] - before[i] + 1e-5);
    (readings, bounds.collect())
}

fn reading<'a>(readings: &'a [MeterReading], metric: &str) -> &'a MeterReading {
    readings.iter().find(|r| r.metric == metric).unwrap()
}

#[test]
fn two_packages_add_up_dram_stands_apart_and_parts_are_not_summed() {
    let tree = FakePowercap::new()
        .zone("intel-rapl:0", "package-0", 60.0)
        .zone("intel-rapl:0/intel-rapl:0:0", "core", 45.0)
        .zone("intel-rapl:0:1", "uncore", 5.0)
        .zone("intel-rapl:0:2", "dram", 8.0)
        .zone("intel-rapl:1", "package-1", 40.0)
        .zone("intel-rapl:1:0", "dram", 4.0)
        .zone("intel-rapl:2", "psys", 200.0)
        .zone("intel-rapl-mmio:0", "package-0", 60.0)
        .run()
        .unwrap();
    let mut ready = ready(&tree);
    assert_eq!(ready.facts["rapl.energy_cpu"], "package-0+package-1");
    assert_eq!(ready.facts["rapl.energy_dram"], "dram+dram");
    let source = ready.source.as_deref_mut().unwrap();
    let names = ["package-0", "package-1", "dram"];
    let (readings, bounds) = window(&tree, &names, source, Duration::from_millis(200));
    // The tree also counts the MMIO twin under package-0: half of that name's joules are its.
    let package = bounds[0].start() / 2.0 + bounds[1].start()..=bounds[0].end() / 2.0 + bounds[1].end();
    for (metric, bounds) in [("energy_cpu", package), ("energy_dram", bounds[2].clone())] {
        let reading = reading(&readings, metric);
        let joules = *reading.value.as_ref().unwrap();
        assert!(joules > 0.0 && bounds.contains(&joules), "{metric}: {joules} J, {bounds:?} J are right");
        assert!(reading.resolution > 0.0 && reading.resolution < joules, "{reading:?}");
    }
}

#[test]
fn the_mmio_interface_is_used_where_it_is_the_only_one() {
    let tree = FakePowercap::new().zone("intel-rapl-mmio:0", "package-0", 30.0).run().unwrap();
    assert_eq!(ready(&tree).facts["rapl.energy_cpu"], "package-0");
}

#[test]
fn dies_that_show_one_counter_twice_count_once() {
    let tree = FakePowercap::new()
        .counter("intel-rapl:0", "package-0-die-0", 30.0, 77_000_000, USUAL_RANGE_UJ)
        .counter("intel-rapl:1", "package-0-die-1", 30.0, 77_000_000, USUAL_RANGE_UJ)
        .counter("intel-rapl:2", "package-1-die-0", 30.0, 555_000_000, USUAL_RANGE_UJ)
        .counter("intel-rapl:3", "package-1-die-1", 30.0, 999_000_000, USUAL_RANGE_UJ)
        .run()
        .unwrap();
    assert_eq!(ready(&tree).facts["rapl.energy_cpu"], "package-0-die-0+package-1-die-0+package-1-die-1");
}

#[test]
fn names_of_one_counter_count_once_whatever_they_are() {
    let one =
        |folder: &str, name: &str, fake: FakePowercap| fake.counter(folder, name, 30.0, 77_000_000, USUAL_RANGE_UJ);
    for (other, name) in
        [("intel-rapl:1", "package-1"), ("intel-rapl-mmio:0", "package-0-die-1"), ("intel-rapl:1", "package-0")]
    {
        let tree = one(other, name, one("intel-rapl:0", "package-0", FakePowercap::new())).run().unwrap();
        let mut ready = ready(&tree);
        assert_eq!(ready.facts["rapl.energy_cpu"], "package-0", "{other} {name}");
        let (readings, bounds) =
            window(&tree, &["package-0"], ready.source.as_deref_mut().unwrap(), Duration::from_millis(200));
        let joules = *reading(&readings, "energy_cpu").value.as_ref().unwrap();
        let most = bounds[0].end() / if name == "package-0" { 2.0 } else { 1.0 };
        assert!(joules > 0.0 && joules <= most + 1e-5, "{joules} J of at most {most} J");
    }
    // two of like power are two
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 30.0).zone("intel-rapl:1", "package-1", 30.0);
    assert_eq!(ready(&tree.run().unwrap()).facts["rapl.energy_cpu"], "package-0+package-1");
    // a part of a package that is called as one is in it
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 30.0).zone("intel-rapl:0:0", "package-1", 20.0);
    assert_eq!(ready(&tree.run().unwrap()).facts["rapl.energy_cpu"], "package-0");
}

#[test]
fn the_largest_limit_of_a_zone_bounds_its_power() {
    let tree = FakePowercap::new()
        .zone("intel-rapl:0", "package-0", 30.0)
        .limit(15)
        .zone("intel-rapl:1", "package-1", 300.0)
        .limit(20);
    let why = refused(&tree.run().unwrap());
    assert!(why.reason.contains("1 to 100 W are"), "{why:?}");
}

/// What a test does to a tree in the middle of a window, and why the window then has no value.
#[test]
fn what_happens_to_a_counter_in_a_window_is_seen() {
    let half = Duration::from_millis(400);
    let spoilt = |what: &dyn Fn(&mut FakeTree)| {
        // with a limit, so that a jump is seen however rarely a busy machine lets us read
        let mut tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).limit(60).run().unwrap();
        let mut ready = ready(&tree);
        let source = ready.source.as_deref_mut().unwrap();
        source.start();
        sleep(source, half);
        what(&mut tree);
        sleep(source, half);
        let readings = source.stop();
        reading(&readings, "energy_cpu").value.clone().expect_err("the window must be spoilt")
    };
    let now = |tree: &FakeTree| {
        fs::read_to_string(tree.zone("intel-rapl:0").join("energy_uj")).unwrap().trim().parse::<u64>().unwrap()
    };
    let stopped = spoilt(&|tree| tree.stop());
    assert!(stopped.contains("stood still for"), "{stopped}");
    for joules in [150, 900] {
        let why = spoilt(&|tree| {
            tree.stop();
            tree.set("intel-rapl:0", now(tree) + joules * 1_000_000).unwrap();
        });
        assert!(why.contains("jumped"), "{joules} J: {why}");
    }
    let reset = spoilt(&|tree| {
        tree.stop();
        tree.set("intel-rapl:0", 5).unwrap();
    });
    assert!(reset.contains("it was reset"), "{reset}");
    let words = spoilt(&|tree| {
        tree.stop();
        fs::write(tree.zone("intel-rapl:0").join("energy_uj"), "9".repeat(10_000)).unwrap();
    });
    assert!(words.contains("is not a count of µJ"), "{words}");
}

fn sleep(source: &mut dyn EnergySource, time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::thread::sleep(source.tick_interval().unwrap());
        source.tick();
    }
}

#[test]
fn a_counter_that_is_reset_each_third_of_a_second_gives_no_joules() {
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).reset_each(0.33).run().unwrap();
    // the probe may see the first of them
    let Ok(mut ready) = probe(&options(&tree)) else { return };
    let (readings, _) = window(&tree, &[], ready.source.as_deref_mut().unwrap(), Duration::from_millis(700));
    let why = reading(&readings, "energy_cpu").value.clone().unwrap_err();
    assert!(why.contains("it was reset"), "{why}");
}

#[test]
fn a_package_that_comes_later_is_not_missing_in_silence() {
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).run().unwrap();
    let mut ready = ready(&tree);
    fs::create_dir(tree.root().join("intel-rapl:1")).unwrap();
    let (readings, _) = window(&tree, &[], ready.source.as_deref_mut().unwrap(), Duration::from_millis(100));
    let why = reading(&readings, "energy_cpu").value.clone().unwrap_err();
    assert!(why.contains("come or gone"), "{why}");
}

#[test]
fn a_tree_that_cannot_be_followed_says_where() {
    let dangling = |name: &str, tree: &FakeTree| {
        std::os::unix::fs::symlink("../../devices/virtual/powercap/intel-rapl/x", tree.root().join(name)).unwrap();
    };
    // all that there is
    let tree = FakePowercap::new().still().unwrap();
    dangling("intel-rapl:0", &tree);
    let why = refused(&tree);
    assert!(why.reason.contains("intel-rapl:0 is a link to ../../devices/virtual/powercap"), "{why:?}");
    assert!(why.hint.as_ref().unwrap().contains("container"), "{why:?}");
    // a package beside one that counts: the sum would lack it
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).run().unwrap();
    dangling("intel-rapl:1", &tree);
    assert!(refused(&tree).reason.contains("intel-rapl:1 is a link"));
    // a zone that is there, and its counter is not
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).still().unwrap();
    fs::remove_file(tree.root().join("intel-rapl:0/energy_uj")).unwrap();
    dangling("intel-rapl:0/energy_uj", &tree);
    let why = refused(&tree);
    assert!(why.reason.contains("energy_uj is a link to ../../devices") && why.hint.is_some(), "{why:?}");
    // a part: memory may be what is hidden, the packages are not
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).run().unwrap();
    dangling("intel-rapl:0:0", &tree);
    let mut ready = ready(&tree);
    let (readings, _) = window(&tree, &[], ready.source.as_deref_mut().unwrap(), Duration::from_millis(200));
    assert!(reading(&readings, "energy_cpu").value.is_ok());
    assert!(reading(&readings, "energy_dram").value.as_ref().unwrap_err().contains("intel-rapl:0:0 is a link"));
}

#[test]
fn a_missing_or_impossible_range_is_told_as_such() {
    for (text, expected) in
        [(None, "max_energy_range_uj: No such file"), (Some("0"), "is no range"), (Some("many"), "is not a number")]
    {
        let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).still().unwrap();
        let file = tree.zone("intel-rapl:0").join("max_energy_range_uj");
        match text {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let why = refused(&tree);
        assert!(why.reason.contains(expected), "{why:?}");
    }
    // a pipe is no counter, and nobody waits for it
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).still().unwrap();
    let file = tree.zone("intel-rapl:0").join("energy_uj");
    fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    assert!(refused(&tree).reason.contains("is not a count"));
}

#[test]
fn wraps_are_followed() {
    // 400 W wrap a range of 100 J each quarter of a second.
    let tree = FakePowercap::new().counter("intel-rapl:0", "package-0", 400.0, 99_000_000, 100_000_000).run().unwrap();
    let mut ready = ready(&tree);
    let source = ready.source.as_deref_mut().unwrap();
    assert_eq!(source.tick_interval(), Some(Duration::from_millis(50)));
    let (readings, bounds) = window(&tree, &["package-0"], source, Duration::from_millis(800));
    match &reading(&readings, "energy_cpu").value {
        Ok(joules) => assert!(*joules > 200.0 && bounds[0].contains(joules), "{joules} J, {bounds:?} J are right"),
        // A machine so busy that a tick came too late: the meter must say so rather than lose a wrap.
        Err(why) => assert!(["wrapped twice", "was reset", "jumped"].iter().any(|w| why.contains(w)), "{why}"),
    }
}

#[test]
fn a_reset_or_a_vanished_counter_spoils_its_window_and_not_the_next() {
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).run().unwrap();
    let mut ready = ready(&tree);
    let source = ready.source.as_deref_mut().unwrap();
    let zone = tree.zone("intel-rapl:0");
    source.start();
    fs::rename(&zone, tree.root().join("away")).unwrap();
    source.tick();
    fs::rename(tree.root().join("away"), &zone).unwrap();
    let spoilt = source.stop();
    let why = reading(&spoilt, "energy_cpu").value.as_ref().unwrap_err();
    assert!(why.contains("energy_uj"), "{why}");
    let (readings, _) = window(&tree, &[], source, Duration::from_millis(200));
    assert!(reading(&readings, "energy_cpu").value.is_ok(), "{readings:?}");
    assert!(reading(&readings, "energy_dram").value.as_ref().unwrap_err().contains("no domain"));
}

#[test]
fn a_counter_that_never_moves_is_unavailable_not_zero() {
    let tree = FakePowercap::new().counter("intel-rapl:0", "package-0", 0.0, 0, USUAL_RANGE_UJ).still().unwrap();
    let why = refused(&tree);
    assert!(why.reason.contains("stood at 0 µJ"), "{why:?}");
    assert!(why.hint.unwrap().contains("virtual machine"));
}

#[test]
fn a_window_between_two_moves_is_unavailable_not_zero() {
    let period = Duration::from_millis(100);
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).every(period).run().unwrap();
    let mut ready = ready(&tree);
    let source = ready.source.as_deref_mut().unwrap();
    let values: Vec<_> = (0..5)
        .map(|_| {
            let (readings, _) = window(&tree, &[], source, Duration::from_millis(10));
            reading(&readings, "energy_cpu").value.clone()
        })
        .collect();
    assert!(values.iter().flatten().all(|&joules| joules > 0.0), "{values:?}");
    let why = values.iter().find_map(|v| v.as_ref().err()).expect("not every window holds a move");
    assert!(why.contains("is shorter than the counter's period (about 0."), "{why}");
}

#[test]
fn a_counter_that_stops_after_the_probe_is_unavailable_not_zero() {
    let mut tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).run().unwrap();
    let mut ready = ready(&tree);
    let source = ready.source.as_deref_mut().unwrap();
    tree.stop();
    let (readings, _) = window(&tree, &[], source, Duration::from_millis(500));
    let why = reading(&readings, "energy_cpu").value.clone().unwrap_err();
    assert!(why.contains("stood still for 0.5"), "{why}");
}

#[test]
fn a_still_dram_domain_takes_nothing_from_the_packages() {
    let tree =
        FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).zone("intel-rapl:0:0", "dram", 0.0).run().unwrap();
    let mut ready = ready(&tree);
    assert!(ready.resolution.contains("no energy_dram"), "{}", ready.resolution);
    let (readings, _) = window(&tree, &[], ready.source.as_deref_mut().unwrap(), Duration::from_millis(200));
    assert!(reading(&readings, "energy_cpu").value.is_ok());
    assert!(reading(&readings, "energy_dram").value.as_ref().unwrap_err().contains("stood at"));
}

#[test]
fn implausible_power_is_refused() {
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 3000.0).run().unwrap();
    let why = refused(&tree);
    assert!(why.reason.contains("not plausible") || why.reason.contains("jumped"), "{why:?}");
    // units a thousandfold too small
    for watts in [0.005, 0.05, 0.3] {
        let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", watts).run().unwrap();
        let why = refused(&tree);
        assert!(why.reason.contains("not plausible") && why.hint.as_ref().unwrap().contains("unit"), "{why:?}");
    }
    let small = FakePowercap::new().zone("intel-rapl:0", "package-0", 2.0).run().unwrap();
    assert!(probe(&options(&small)).is_ok(), "a small computer");
}

#[test]
fn no_tree_and_no_package_are_told_apart_and_both_say_what_to_do() {
    let nowhere = MeterOptions { powercap: "/nonexistent/powercap".into(), ..MeterOptions::default() };
    let why = probe(&nowhere).err().unwrap();
    assert!(why.reason.contains("/nonexistent/powercap") && why.hint.is_some(), "{why:?}");
    let tree = FakePowercap::new().zone("intel-rapl:0", "psys", 20.0).still().unwrap();
    let why = refused(&tree);
    assert!(why.reason.contains("found: psys"), "{why:?}");
}

#[cfg(unix)]
#[test]
fn a_counter_without_permission_says_how_to_give_it() {
    use std::os::unix::fs::PermissionsExt;
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).still().unwrap();
    let file = tree.zone("intel-rapl:0").join("energy_uj");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&file).is_ok() {
        eprintln!("SKIPPED: this user (root?) reads files whatever their mode");
        return;
    }
    let why = refused(&tree);
    assert!(why.reason.contains("ermission denied"), "{why:?}");
    assert!(why.hint.unwrap().contains("chmod a+r"));
}

/// What the hint of a refused read is, without needing a user who is refused.
#[test]
fn only_a_missing_permission_gets_the_hint_about_permissions() {
    let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0).still().unwrap();
    fs::write(tree.zone("intel-rapl:0").join("energy_uj"), "not a number").unwrap();
    let why = refused(&tree);
    assert!(why.reason.contains("not a count of µJ") && why.hint.is_none(), "{why:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_in_any_file_panic(
        counter in prop::collection::vec(any::<u8>(), 0..200),
        range in prop_oneof![Just(b"262143328850".to_vec()), prop::collection::vec(any::<u8>(), 0..40)],
        name in prop_oneof![Just(b"package-0".to_vec()), prop::collection::vec(any::<u8>(), 0..40)],
        limit in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let tree = FakePowercap::new().zone("intel-rapl:0", "package-0", 1.0).still().unwrap();
        let zone = tree.zone("intel-rapl:0");
        fs::write(zone.join("energy_uj"), &counter).unwrap();
        fs::write(zone.join("max_energy_range_uj"), &range).unwrap();
        fs::write(zone.join("name"), &name).unwrap();
        fs::write(zone.join("constraint_0_power_limit_uw"), &limit).unwrap();
        let found = zone::find(tree.root()).unwrap();
        prop_assert!(found.zones.len() + found.problems.len() <= 1);
        for zone in found.zones {
            if let Ok(mut counter) = Counter::open(zone, "energy_cpu") {
                let _ = counter.watch();
            }
        }
    }
}
