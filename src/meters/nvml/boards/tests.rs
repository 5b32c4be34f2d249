//! Boards on a fake library with two boards of 100 and 300 W, built by the C compiler; what a library can do to its process.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::METER;
use super::*;
use crate::meters::{MeterReading, ProbedMeter};

/// The built library and the folder that holds it. A C compiler is one of the things that the project needs.
fn library(flags: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fakes/nvml.c");
    build(source, flags)
}

fn build(source: &str, flags: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libnvidia-ml.so.1");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).args(flags).arg(source).output();
    let built = built.expect("a C compiler named `cc` is needed to build the fake library");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    (folder, path)
}

fn options(library: &Path, visible: Option<&str>) -> MeterOptions {
    MeterOptions { nvml: Some(library.into()), visible_gpus: visible.map(str::to_string), ..MeterOptions::default() }
}

/// The meter as the program probes it: the library is loaded by a child.
fn probe(options: &MeterOptions) -> Result<ProbedMeter, Unavailable> {
    (METER.probe)(options)
}

fn ready(options: &MeterOptions) -> ProbedMeter {
    probe(options).unwrap_or_else(|e| panic!("{}", e.reason))
}

fn refused(options: &MeterOptions) -> Unavailable {
    probe(options).err().expect("must be refused")
}

fn window(ready: &mut ProbedMeter, time: Duration) -> MeterReading {
    let source = ready.source.as_deref_mut().unwrap();
    source.start();
    std::thread::sleep(time);
    source.stop().remove(0)
}

#[test]
fn millijoules_of_the_visible_boards_become_joules() {
    let (_folder, path) = library(&[]);
    for (visible, watts, boards) in [
        (None, 400.0, 2),
        (Some("1"), 300.0, 1),
        (Some("GPU-aa"), 100.0, 1),
        (Some("1,0"), 400.0, 2),
        (Some("0,7,1"), 100.0, 1),
        (Some("1,GPU-"), 300.0, 1),
    ] {
        let mut ready = ready(&options(&path, visible));
        assert_eq!(ready.facts.keys().filter(|k| k.starts_with("gpu.")).count(), boards, "{:?}", ready.facts);
        assert_eq!(ready.facts["nvml.energy_gpu"].split('+').count(), boards, "{:?}", ready.facts);
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
        assert_eq!((readings[0].metric, readings[0].note.as_ref()), ("energy_gpu", None));
        assert!((least..=most).contains(&joules), "{visible:?}: {joules} J, {least} to {most} J expected");
        assert!(readings[0].resolution > 0.5 * 0.02 * watts, "{readings:?}");
    }
}

#[test]
fn the_library_is_found_where_the_loader_does_not_look() {
    let (folder, _) = library(&[]);
    let empty = tempfile::tempdir().unwrap();
    let broken = tempfile::tempdir().unwrap();
    std::fs::write(broken.path().join(LIBRARY), "no library").unwrap();
    let (nvml, path) = load(None, &[empty.path(), broken.path(), folder.path()]).unwrap_or_else(|e| panic!("{e:?}"));
    assert!(nvml.device_count().unwrap() > 0);
    // on a machine with a driver the loader has one of its own
    assert!(path.starts_with(folder.path()) || path == Path::new(LIBRARY), "{path:?}");
    // one that is named is the only one
    let named = load(Some(Path::new("/nonexistent/nvml.so")), &[folder.path()]).expect_err("it is not there");
    assert!(named.reason.contains("/nonexistent/nvml.so"), "{named:?}");
    if path.starts_with(folder.path()) {
        let why = load(None, &[broken.path()]).expect_err("no library is one");
        assert!(why.reason.contains(&broken.path().display().to_string()), "{why:?}");
    }
}

#[test]
fn a_board_without_a_counter_takes_nothing_from_the_other() {
    let (_folder, path) = library(&["-DUNSUPPORTED=1"]);
    let mut left = ready(&options(&path, None));
    assert_eq!(left.facts["nvml.energy_gpu"], "GPU-aaaa");
    assert!(left.facts["nvml.unmetered"].contains("GPU-bbbb) has no energy counter"), "{:?}", left.facts);
    assert!(!left.estimate && left.resolution.contains("hint: ERGOMETER_NVML_POWER=integrate"), "{}", left.resolution);
    let reading = window(&mut left, Duration::from_millis(300));
    let joules = reading.value.unwrap();
    assert!(joules > 0.9 * 28.0, "{joules} J of a board of 100 W");
    assert!(reading.note.unwrap().contains("leaves out Fake board (GPU-bbbb)"));
    // nothing else is visible
    let alone = refused(&options(&path, Some("1")));
    assert!(alone.reason.contains("has no energy counter") && alone.hint.unwrap().contains("integrate"));
    // power integrated where it is asked for
    let asked = MeterOptions { integrate_power: true, ..options(&path, None) };
    let mut both = ready(&asked);
    assert!(both.estimate && both.facts["nvml.estimated"] == "GPU-bbbb", "{:?}", both.facts);
    let begin = Instant::now();
    let reading = window(&mut both, Duration::from_millis(400));
    let (joules, most) = (reading.value.unwrap(), 400.0 * begin.elapsed().as_secs_f64());
    assert!((140.0..=most + 8.0).contains(&joules), "{joules} J, at most {most} J");
    assert!(reading.note.unwrap().contains("an estimate"));
    assert!(reading.resolution > 30.0, "power is a mean over a tenth of a second: {}", reading.resolution);
}

#[test]
fn a_window_between_two_moves_is_unavailable_not_zero() {
    let (_folder, path) = library(&[]);
    let (mut boards, _) =
        Boards::probe(&BoardsSetup::of(&options(&path, None))).unwrap_or_else(|e| panic!("{}", e.reason));
    // the fake moves each 20 ms, so that most of these windows lie between two moves
    let values: Vec<_> = (0..20)
        .map(|_| {
            boards.start();
            boards.stop().joules
        })
        .collect();
    assert!(values.iter().flatten().all(|&joules| joules > 0.0), "{values:?}");
    let why = values.iter().find_map(|v| v.as_ref().err()).expect("not every window holds a move");
    assert!(why.contains("is shorter than the counter's period"), "{why}");
}

#[test]
fn what_cannot_be_metered_is_unavailable_with_its_reason() {
    let nowhere = refused(&options(Path::new("/nonexistent/libnvidia-ml.so"), None));
    assert!(nowhere.reason.contains("/nonexistent/libnvidia-ml.so") && nowhere.hint.is_some(), "{nowhere:?}");
    let (folder, path) = library(&[]);
    let hidden = refused(&options(&path, Some("-1")));
    assert!(hidden.reason.contains("hides every board"), "{hidden:?}");
    let mig = refused(&options(&path, Some("MIG-1234")));
    assert!(mig.reason.contains("MIG"), "{mig:?}");
    let text = folder.path().join("text.so");
    std::fs::write(&text, "no library").unwrap();
    assert!(probe(&options(&text, None)).is_err());
    assert!(probe(&options(folder.path(), None)).is_err());
    for (flag, expected) in [
        ("-DSTILL=1", "a counter that stood at"),
        ("-DWATTS=0.05", "is not plausible"),
        ("-DWATTS=9000", "no board draws"),
    ] {
        let (_folder, path) = library(&[flag]);
        let why = refused(&options(&path, None));
        assert!(why.reason.contains(expected) || why.reason.contains("is not plausible"), "{flag}: {why:?}");
    }
}

#[test]
fn what_happens_to_a_counter_in_a_window_is_seen() {
    // so many seconds after it was loaded: the probe takes about 0.1 s, half a second at most
    for (flag, expected) in [
        ("-DSTOP=0.9", "stood still"),
        ("-DJUMP=0.9", "jumped"),
        ("-DRESET=0.9", "was reset"),
        ("-DLOST=0.9", "cannot be read"),
        ("-DDIE=0.9", "by signal 11 (SIGSEGV)"),
        ("-DLEAVE=0.9", "with exit code 0"),
        ("-DHANG=0.9", "did not answer in 2 s"),
    ] {
        let (_folder, path) = library(&[flag]);
        let mut ready = ready(&options(&path, None));
        let begin = Instant::now();
        let value = window(&mut ready, Duration::from_millis(1500)).value;
        let why = value.expect_err(flag);
        assert!(why.contains(expected), "{flag}: {why}");
        if ["-DDIE=0.9", "-DHANG=0.9"].contains(&flag) {
            // the next block has no number either, and nobody waits again
            assert!(window(&mut ready, Duration::ZERO).value.is_err());
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{flag}");
    }
}

#[test]
fn a_library_that_harms_its_process_harms_no_other() {
    for (body, expected) in [
        ("raise(SIGSEGV); raise(SIGSEGV);", "by signal 11 (SIGSEGV)"),
        ("raise(SIGBUS); raise(SIGBUS);", "by signal 7 (SIGBUS)"),
        ("raise(SIGILL);", "by signal 4 (SIGILL)"),
        ("raise(SIGFPE);", "by signal 8 (SIGFPE)"),
        ("abort();", "by signal 6 (SIGABRT)"),
        ("exit(0);", "with exit code 0"),
        ("_exit(3);", "with exit code 3"),
        ("if (!fork()) sleep(600); _exit(0);", "with exit code 0"),
        ("close(0); close(1); close(2); raise(SIGKILL);", "by signal 9 (SIGKILL)"),
        // it harms nothing: the symbols are not there
        ("for (int i = 0; i < 100000; i++) puts(\"{}\");", "nvmlInit"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("harm.c");
        let head = "#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n";
        let text = format!("{head}__attribute__((constructor)) static void harm(void) {{ {body} }}\n");
        std::fs::write(&source, text).unwrap();
        let (_folder, path) = build(source.to_str().unwrap(), &[]);
        let why = refused(&options(&path, None));
        assert!(why.reason.contains(expected) && why.hint.is_some(), "{body}: {why:?}");
    }
}
