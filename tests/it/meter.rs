//! `ergometer meter`: programs of known behaviour, metered from outside.
//!
//! In: shells and Python that sleep, work, hold memory, write marks, leave processes behind. Out: the numbers of `--json`, messages, exit
//! codes, and that nobody is left. Must not: expect a quiet machine, or a speed.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::house::{Ended, House, ended, wait_until};
use crate::powercap::FakePowercap;

/// Meters a command in a house, with more flags; the JSON of its answer.
fn json(house: &House, flags: &[&str], command: &[&str]) -> Value {
    let ended = metered(house, &house.path("none"), &[flags, &["--json"]].concat(), command);
    serde_json::from_str(&ended.exits(0).stdout).unwrap()
}

fn metered(house: &House, powercap: &Path, flags: &[&str], command: &[&str]) -> Ended {
    let args = [&["meter", "--idle", "0"], flags, &["--"], command].concat();
    let mut program = house.command(&args);
    program.env("ERGOMETER_POWERCAP", powercap).env("ERGOMETER_NVML", house.path("no-nvml"));
    ended(program)
}

/// A number of the summary of a command.
#[track_caller]
fn value(json: &Value, command: usize, name: &str) -> f64 {
    let all = json["commands"][command]["summary"].as_array().unwrap();
    let found = all.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("no {name} in {all:?}"));
    found["value"].as_f64().unwrap_or_else(|| panic!("{found}"))
}

#[track_caller]
fn missing(json: &Value, name: &str) -> String {
    let all = json["commands"][0]["summary"].as_array().unwrap();
    let found = all.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("no {name} in {all:?}"));
    assert!(found["value"].is_null(), "{found}");
    found["missing"].as_str().unwrap().to_string()
}

/// A process that has left parent, group and session, works for 0.3 s of processor time and holds 96 MiB meanwhile.
const AWAY: &str = "import time
held = bytearray(96 << 20)
held[::4096] = b'x' * len(held[::4096])
end = time.process_time() + 0.3
while time.process_time() < end: pass
open('done', 'w').close()
time.sleep(600)
";

#[test]
fn the_whole_tree_is_metered_and_what_has_left_its_parent_too() {
    let house = House::new();
    house.file("away.py", AWAY);
    // the shell in the middle ends, so that Python has no parent of the tree
    let script = "(setsid python3 away.py &) ; while [ ! -e done ]; do sleep 0.02; done; sleep 0.1";
    let json = json(&house, &[], &["sh", "-c", script]);
    let (cpu, memory) = (value(&json, 0, "cpu_time"), value(&json, 0, "memory_peak"));
    assert!(cpu >= 0.28, "{cpu} s");
    assert!(memory >= f64::from(96 << 20) && memory < f64::from(400 << 20), "{memory} B");
    let notes = json["commands"][0]["notes"].to_string();
    assert!(notes.contains("left up to 1 of its processes behind"), "{notes}");
    assert!(json["commands"][0]["runs"][0]["processes"].as_u64().unwrap() >= 2);
    house.assert_nobody_left();
}

#[test]
fn marks_on_a_pipe_or_on_stdout_give_windows_without_load_time() {
    let house = House::new();
    let marks = "sleep 0.4; say begin; sleep 0.2; say 'token 17'; sleep 0.2; say 'token 3'; say end; sleep 0.1";
    for (how, say) in [
        ("stdout", "say() { echo \"ergometer:$1\"; }"),
        ("pipe", "say() { echo \"ergometer:$1\" >&$ERGOMETER_MARKS; }"),
    ] {
        // dash knows numbers of one digit alone after >&, bash all
        let shell = if Path::new("/bin/bash").exists() { "bash" } else { "sh" };
        let json = json(&house, &[], &[shell, "-c", &format!("{say}; {marks}")]);
        let (wall, windows) = (value(&json, 0, "wall"), value(&json, 0, "windows"));
        assert!(windows >= 0.3 && wall >= windows + 0.4, "{how}: {windows} s of {wall} s");
        assert!(value(&json, 0, "before_windows") >= 0.4);
        assert_eq!(value(&json, 0, "counted"), 20.0, "{how}");
        let rate = value(&json, 0, "counted_per_second");
        assert!((rate * windows - 20.0).abs() < 1e-6, "{how}: {rate}");
        // a mark that is heard late shortens it
        let first = value(&json, 0, "first_count");
        assert!(first >= 0.1 && first < windows, "{how}: {first} of {windows} s");
    }
    let json = json(&house, &[], &["echo", "ergometer:end"]);
    assert!(missing(&json, "windows").contains("before any `ergometer:begin`"));
}

#[test]
fn marks_that_wait_in_a_buffer_give_no_windows_but_the_remedy() {
    let house = House::new();
    house.file(
        "buffered.py",
        "import time\nprint('ergometer:begin')\ntime.sleep(0.3)\nprint('ergometer:token 5')\nprint('ergometer:end')\n",
    );
    let args = ["meter", "--idle", "0", "--json", "--", "python3", "buffered.py"];
    let mut buffered = house.command(&args);
    buffered.env_remove("PYTHONUNBUFFERED");
    let buffered: Value = serde_json::from_str(&ended(buffered).exits(0).stdout).unwrap();
    let why = missing(&buffered, "windows");
    assert!(why.contains("heard at once") && why.contains("hint: flush after each mark"), "{why}");
    let flushed = json(&house, &[], &["python3", "-u", "buffered.py"]);
    assert!(value(&flushed, 0, "windows") >= 0.29);
}

#[test]
fn processor_time_in_windows_is_never_below_zero() {
    let house = House::new();
    // what works before the window ends within it, and then stands in its parent's account in whole ticks
    let script = "(i=0; while [ $i -lt 4000 ]; do i=$((i+1)); done; exec sleep 0.15) & sleep 0.1; echo ergometer:begin; sleep 0.2; wait; echo ergometer:end";
    let json = json(&house, &["--rounds", "2"], &["sh", "-c", script]);
    let (all, within) = (value(&json, 0, "cpu_time"), value(&json, 0, "cpu_time_windows"));
    assert!(within >= 0.0 && all > 0.0, "{within} s of {all} s");
    let runs = json["commands"][0]["runs"].as_array().unwrap();
    assert!(runs.iter().all(|r| r["windows"]["cpu_time"].as_f64().unwrap() >= 0.0), "{runs:?}");
    let said = json["commands"][0]["summary"].to_string();
    assert_eq!(said.matches("20 ms low for each at most").count(), 2, "{said}");
}

#[test]
fn a_program_that_was_hardly_looked_at_has_no_peak_of_memory() {
    let house = House::new();
    // no program has 300 kB: what is less was read while it was being loaded
    for command in [&["true"][..], &["sh", "-c", "true"]] {
        let json = json(&house, &["--rounds", "3"], command);
        for run in json["commands"][0]["runs"].as_array().unwrap() {
            assert!(run["memory_peak"].as_f64().is_none_or(|bytes| bytes > 300e3), "{run}");
        }
    }
}

#[test]
fn rounds_that_were_finished_are_kept_where_one_fails_or_all_is_interrupted() {
    let house = House::new();
    let command = ["sh", "-c", "echo x >> n; [ $(wc -l < n) -lt 8 ]"];
    let failed = metered(&house, &house.path("none"), &["--rounds", "20"], &command);
    failed.exits(1);
    assert!(
        failed.stderr.contains("failed: in round 8 of 20") && failed.stderr.contains("the 7 before it"),
        "{failed:?}"
    );
    assert!(
        failed.stdout.contains("7 of 20 rounds were finished") && failed.stdout.contains("over 7 runs"),
        "{failed:?}"
    );
    fs::remove_file(house.path("n")).unwrap();
    let failed = metered(&house, &house.path("none"), &["--rounds", "20", "--json"], &command);
    let json: Value = serde_json::from_str(&failed.exits(1).stdout).unwrap();
    assert_eq!((json["rounds"].as_u64(), json["commands"][0]["runs"].as_array().unwrap().len()), (Some(7), 8));
    assert!(json["failed"].as_str().unwrap().contains("round 8"));
    assert!(value(&json, 0, "wall") > 0.0);
    // the second command of the third round is interrupted: two rounds have both
    let other = "echo x >> m; if [ $(wc -l < m) -eq 3 ]; then touch begun; sleep 600; fi";
    house.file("other.sh", other);
    let args = ["meter", "--idle", "0", "--rounds", "9", "--json", "--versus", "sh other.sh", "--", "true"];
    let child = house.command(&args).spawn().unwrap();
    wait_until("the third round", || house.path("begun").exists());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("interrupted: 2 of 9 rounds were finished"), "{said}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["rounds"].as_u64(), json["failed"].as_str()), (Some(2), Some("interrupted")));
    assert!(value(&json, 0, "wall") > 0.0 && value(&json, 1, "wall") > 0.0 && json["ratios"].is_array());
    house.assert_nobody_left();
}

#[test]
fn known_watts_become_joules_of_the_run_and_of_its_windows() {
    const WATTS: f64 = 50.0;
    let house = House::new();
    let fake = FakePowercap::new().zone("intel-rapl:0", "package-0", WATTS).run().unwrap();
    let script = "sleep 1; echo ergometer:begin; sleep 1; echo ergometer:token 10; echo ergometer:end; sleep 1";
    let args = ["meter", "--idle", "0.3", "--json", "--", "sh", "-c", script];
    let mut program = house.command(&args);
    program.env("ERGOMETER_POWERCAP", fake.root()).env("ERGOMETER_NVML", house.path("no-nvml"));
    let json: Value = serde_json::from_str(&ended(program).exits(0).stdout).unwrap();
    for (energy, time) in [("energy_cpu", "wall"), ("energy_cpu_windows", "windows")] {
        let (joules, expected) = (value(&json, 0, energy), WATTS * value(&json, 0, time));
        assert!((joules / expected - 1.0).abs() < 0.15, "{energy}: {joules} J, {expected} J expected");
    }
    let per = value(&json, 0, "counted_per_joule_cpu");
    assert!((per * value(&json, 0, "energy_cpu_windows") - 10.0).abs() < 1e-6, "{per}");
    // all of it is what the idle machine uses too
    let above = value(&json, 0, "energy_cpu_above_idle");
    assert!(above.abs() < 0.3 * value(&json, 0, "energy_cpu"), "{above}");
    assert!(json["idle_watts"]["before"]["energy_cpu"].as_f64().unwrap() > 0.0);
    assert!(json["idle_watts"]["after"]["energy_cpu"].as_f64().unwrap() > 0.0);
    // no board here: a reason and never a zero
    assert!(!missing(&json, "energy_gpu").is_empty());
}

#[test]
fn a_run_too_short_for_the_counter_has_no_joules_and_says_how_long_it_would_have_to_be() {
    let house = House::new();
    let fake = FakePowercap::new().zone("intel-rapl:0", "package-0", 50.0);
    let fake = fake.every(std::time::Duration::from_millis(100)).run().unwrap();
    let ended = metered(&house, fake.root(), &["--json"], &["true"]);
    let json: Value = serde_json::from_str(&ended.exits(0).stdout).unwrap();
    let why = missing(&json, "energy_cpu");
    assert!(why.contains("a number needs a window of at least") && why.contains("good to 1 %"), "{why}");
}

#[test]
fn two_commands_take_turns_in_balanced_order_and_have_ratios() {
    let house = House::new();
    house.file("a.sh", "echo a >> order; sleep 0.01");
    house.file("b.sh", "echo b >> order; sleep 0.1");
    let flags = ["--rounds", "6", "--versus", "sh b.sh", "--seed", "7"];
    let first = json(&house, &flags, &["sh", "a.sh"]);
    let order = fs::read_to_string(house.path("order")).unwrap();
    let turns: Vec<&str> = order.lines().collect();
    assert_eq!(turns.len(), 12);
    let firsts = turns.chunks(2).filter(|round| round[0] == "a").count();
    assert!(turns.chunks(2).all(|round| round[0] != round[1]) && firsts == 3, "{turns:?}");
    let ratio = &first["ratios"].as_array().unwrap().iter().find(|s| s["name"] == "wall").unwrap().clone();
    assert!(ratio["value"].as_f64().unwrap() > 1.0 && ratio["lower"].is_number() && ratio["n"] == 6, "{ratio}");
    // the seed is the order
    fs::remove_file(house.path("order")).unwrap();
    let again = json(&house, &flags, &["sh", "a.sh"]);
    assert_eq!((&again["order"], again["seed"].as_u64()), (&first["order"], Some(7)));
    assert_eq!(fs::read_to_string(house.path("order")).unwrap(), order);
    // few rounds: a ratio without an interval, and it says so
    let few = metered(&house, &house.path("none"), &["--rounds", "2", "--versus", "sh b.sh"], &["sh", "a.sh"]);
    few.exits(0);
    assert!(few.stdout.contains("an interval needs 6") && few.stdout.contains("next: "), "{}", few.stdout);
}

#[test]
fn commands_that_fail_are_told_and_have_no_numbers() {
    let house = House::new();
    let run = |flags: &[&str], command: &[&str]| metered(&house, &house.path("none"), flags, command);
    run(&[], &["no-such-program"]).refused(&["cannot start `no-such-program`", "hint: ", "PATH"]);
    run(&[], &["./nothing-here"]).refused(&["cannot start", "check its path"]);
    run(&[], &[]).refused(&["<CMD>"]);
    run(&["--versus", " "], &["true"]).refused(&["`--versus` names no command"]);
    run(&["--input", "nothing"], &["true"]).refused(&["cannot read `nothing`", "--input"]);
    for rounds in ["0", "x", "-3"] {
        run(&["--rounds", rounds], &["true"]).refused(&["--rounds"]);
    }
    let failed = run(&[], &["sh", "-c", "echo out of luck >&2; exit 3"]);
    failed.exits(1);
    assert!(failed.stderr.contains("left with exit code 3; its last words: out of luck"), "{}", failed.stderr);
    assert!(!failed.stdout.contains("wall"), "{}", failed.stdout);
    let killed = run(&[], &["sh", "-c", "kill -KILL $$"]);
    assert!(killed.exits(1).stderr.contains("was ended by signal 9"), "{}", killed.stderr);
    let late = run(&["--timeout", "0.2"], &["sh", "-c", "setsid sleep 600 & sleep 600"]);
    assert!(late.exits(1).stderr.contains("did not end within 0.2 s"), "{}", late.stderr);
    let ignored = run(&["--ignore-failure", "--rounds", "2"], &["sh", "-c", "exit 3"]);
    ignored.exits(0);
    assert!(ignored.stdout.contains("2 of 2 runs did not leave with exit code 0"), "{}", ignored.stdout);
    house.assert_nobody_left();
}

#[test]
fn input_is_given_and_output_can_be_shown() {
    let house = House::new();
    house.file("in.txt", "a line\n");
    let shown = metered(&house, &house.path("none"), &["--input", "in.txt", "--show"], &["cat"]);
    shown.exits(0);
    assert!(shown.stderr.contains("a line"), "{}", shown.stderr);
    // one that prints more than any pipe holds is not held up
    let much = metered(
        &house,
        &house.path("none"),
        &[],
        &["sh", "-c", "head -c 9000000 /dev/zero; head -c 9000000 /dev/zero >&2"],
    );
    much.exits(0);
}

#[test]
fn an_interruption_takes_everything_with_it() {
    let house = House::new();
    // the second has neither its group nor its session nor its environment
    let script = "setsid sh -c 'sleep 600 & exec sleep 600' & setsid env -i /bin/sh -c 'sleep 600 & touch begun; exec sleep 600' & sleep 600";
    let child = house.command(&["meter", "--idle", "0", "--", "sh", "-c", script]).spawn().unwrap();
    wait_until("the command", || house.path("begun").exists());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("interrupted: nothing was kept"), "{said}");
    house.assert_nobody_left();
    // and by force, the guard does it
    fs::remove_file(house.path("begun")).unwrap();
    let mut harness = house.start(&["meter", "--idle", "0", "--", "sh", "-c", script]);
    wait_until("the command", || house.path("begun").exists());
    // the guard is told of what has left the group at each look, of which there is one within 20 ms where time is given
    std::thread::sleep(std::time::Duration::from_millis(500));
    harness.kill();
    house.assert_nobody_left();
}
