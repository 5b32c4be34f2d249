//! The meter on a fake library with two boards of 100 and 300 W, built by the C compiler.

use std::path::PathBuf;
use std::process::Command;

use super::*;

/// The built library and the folder that holds it. A C compiler is one of the things that the project needs.
fn library() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libnvidia-ml.so.1");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fakes/nvml.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(source).output();
    let built = built.expect("a C compiler named `cc` is needed to build the fake library");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    (folder, path)
}

fn options(library: &std::path::Path, visible: Option<&str>) -> MeterOptions {
    MeterOptions { nvml: Some(library.into()), visible_gpus: visible.map(str::to_string), ..MeterOptions::default() }
}

#[test]
fn millijoules_of_the_visible_boards_become_joules() {
    let (_folder, path) = library();
    for (visible, watts, boards) in [
        (None, 400.0, 2),
        (Some("1"), 300.0, 1),
        (Some("GPU-aa"), 100.0, 1),
        (Some("1,0"), 400.0, 2),
        (Some("0,7,1"), 100.0, 1),
    ] {
        let mut ready = probe(&options(&path, visible)).unwrap_or_else(|e| panic!("{}", e.reason));
        assert_eq!(ready.facts.keys().filter(|k| k.starts_with("gpu.")).count(), boards, "{:?}", ready.facts);
        let source = ready.source.as_deref_mut().unwrap();
        // However late a busy machine lets us read: the counters were read between these times, and move each 20 ms.
        let before = Instant::now();
        source.start();
        let opened = Instant::now();
        std::thread::sleep(Duration::from_millis(150));
        let least = watts * (opened.elapsed().as_secs_f64() - 0.02);
        let readings = source.stop();
        let most = watts * (before.elapsed().as_secs_f64() + 0.02);
        let joules = *readings[0].value.as_ref().unwrap();
        assert_eq!(readings[0].metric, "energy_gpu");
        assert!((least..=most).contains(&joules), "{visible:?}: {joules} J, {least} to {most} J expected");
        assert!((0.5..5.0).contains(&(readings[0].resolution / (0.02 * watts))), "{readings:?}");
    }
}

#[test]
fn a_window_between_two_moves_is_unavailable_not_zero() {
    let (_folder, path) = library();
    let mut ready = probe(&options(&path, None)).unwrap_or_else(|e| panic!("{}", e.reason));
    let source = ready.source.as_deref_mut().unwrap();
    // the fake moves each 20 ms, so that most of these windows lie between two moves
    let values: Vec<_> = (0..20)
        .map(|_| {
            source.start();
            source.stop().remove(0).value
        })
        .collect();
    assert!(values.iter().flatten().all(|&joules| joules > 0.0), "{values:?}");
    let why = values.iter().find_map(|v| v.as_ref().err()).expect("not every window holds a move");
    assert!(why.contains("is shorter than the counter's period"), "{why}");
}

#[test]
fn what_cannot_be_metered_is_unavailable_with_its_reason() {
    let nowhere = probe(&options(std::path::Path::new("/nonexistent/libnvidia-ml.so"), None)).err().unwrap();
    assert!(nowhere.reason.contains("/nonexistent/libnvidia-ml.so") && nowhere.hint.is_some(), "{nowhere:?}");
    let (folder, path) = library();
    let hidden = probe(&options(&path, Some("-1"))).err().unwrap();
    assert!(hidden.reason.contains("hides every board"), "{hidden:?}");
    let mig = probe(&options(&path, Some("MIG-1234"))).err().unwrap();
    assert!(mig.reason.contains("MIG"), "{mig:?}");
    let text = folder.path().join("text.so");
    std::fs::write(&text, "no library").unwrap();
    assert!(probe(&options(&text, None)).is_err());
}

/// The fake is told by its environment how to misbehave, so this test runs itself again in a process of its own.
#[test]
fn boards_without_a_moving_counter_are_unavailable_not_zero() {
    if let Some(path) = std::env::var_os("ERGOMETER_TEST_NVML") {
        let why = probe(&options(path.as_ref(), None)).err().expect("must be refused");
        print!("REFUSED: {}", why.reason);
        return;
    }
    let (_folder, path) = library();
    let test = "meters::nvml::boards::tests::boards_without_a_moving_counter_are_unavailable_not_zero";
    for (mode, expected) in [("still", "the counter stood at"), ("unsupported", "has no energy counter")] {
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("ERGOMETER_TEST_NVML", &path)
            .env("FAKE_NVML", mode)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.contains("REFUSED") && text.contains(expected), "{mode}: {text}");
    }
}
