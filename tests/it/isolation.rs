//! Where external programs run: what they see of the environment, their folder, their limits, and whether they are confined.
//!
//! In: fakes that tell where they are. Out: what the case records, and what they saw. Must not: take a confinement for granted: where the
//! kernel has none the record says so.

use std::collections::BTreeMap;
use std::path::Path;

use ergometer_reports::case::{Case, ErrorKind};

use crate::house::{House, ended, skip_here};

/// The case of a fake in a place of this kind, run with a secret in the environment.
fn run(house: &House, mode: &str, place: &str) -> Case {
    let outside = house.path("outside");
    let text = house.fake(mode, &["--words", outside.to_str().unwrap()])
        + place
        + &format!("\n[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [{mode:?}]\n");
    let suite = house.suite("place.toml", &text);
    let mut command = house.command(&["run", suite.to_str().unwrap(), "--out", "run", "--check"]);
    command.env("AWS_SECRET_ACCESS_KEY", "hush").env("MINE", "yes").env("OMP_NUM_THREADS", "2");
    ended(command);
    house.cases("run").remove(mode).unwrap()
}

fn told<'a>(versions: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    versions.get(name).map_or_else(|| panic!("no {name} in {versions:?}"), String::as_str)
}

#[test]
fn the_environment_is_scrubbed_but_for_a_list_that_is_recorded() {
    let house = House::new();
    let case = run(&house, "witness", "pass = [\"MINE\"]");
    assert!(case.error.is_none(), "{:?}", case.error);
    let seen: Vec<&str> = told(&case.versions, "w.env").split(' ').collect();
    assert!(!seen.contains(&"AWS_SECRET_ACCESS_KEY"), "{seen:?}");
    for name in ["PATH", "MINE", "OMP_NUM_THREADS", "TMPDIR", "ERGOMETER_EXE"] {
        assert!(seen.contains(&name), "no {name} in {seen:?}");
    }
    let recorded: Vec<&str> = told(&case.versions, "isolation.environment").split(' ').collect();
    // what is set for it, and what Python and a shell before it set, is no part of the list
    let set = ["TMPDIR", "ERGOMETER_EXE", "ERGOMETER_STARTED_BY", "LC_CTYPE", "PWD", "OLDPWD", "SHLVL", "_"];
    let own = |n: &str| set.contains(&n) || n.trim_start_matches('_').starts_with("PYENV");
    let others: Vec<&&str> = seen.iter().filter(|n| !recorded.contains(n) && !own(n)).collect();
    assert!(others.is_empty() && recorded.contains(&"MINE"), "{others:?} are not in {recorded:?}");
}

#[test]
fn it_has_a_folder_of_its_own_that_goes_with_it() {
    let house = House::new();
    let case = run(&house, "witness", "");
    let folder = told(&case.versions, "w.folder");
    assert_eq!(folder, told(&case.versions, "w.tmp"));
    assert!(!Path::new(folder).exists() && Path::new(folder) != house.path(""), "{folder}");
    assert!(case.versions.contains_key("isolation.folder"));
    // without a word of the suite it is not confined
    assert_eq!(told(&case.versions, "w.outside"), "written");
    assert!(!case.versions.contains_key("isolation.confined"));
}

#[test]
fn processors_and_memory_are_limited_and_recorded() {
    let house = House::new();
    let case = run(&house, "witness", "cpus = [0]\nmost_memory = \"2 GB\"");
    assert!(case.error.is_none(), "{:?}", case.error);
    assert_eq!((told(&case.versions, "w.cpus"), told(&case.versions, "w.memory")), ("0", "2000000000"));
    assert_eq!(told(&case.versions, "isolation.cpus"), "0");
    assert!(told(&case.versions, "isolation.most_memory").starts_with("2000000000 B"));
    let hungry = House::new();
    let error = run(&hungry, "glutton", "most_memory = \"256 MB\"").error.unwrap();
    assert_eq!(error.kind, ErrorKind::OutOfMemory, "{error:?}");
    let nowhere = House::new();
    let error = run(&nowhere, "witness", "cpus = [1023]").error.unwrap();
    assert!(error.kind == ErrorKind::Spawn && error.message.contains("processors 1023"), "{error:?}");
}

#[test]
fn what_is_confined_writes_to_its_own_folder_alone_or_the_record_says_that_it_is_not() {
    let house = House::new();
    let case = run(&house, "witness", "confined = true");
    assert!(case.error.is_none(), "{:?}", case.error);
    let confined = told(&case.versions, "isolation.confined");
    let seen = |name: &str| told(&case.versions, name);
    // of neither its folder nor what it tried to write to shared memory anything is left
    let folder = Path::new(seen("w.folder"));
    assert!(!Path::new("/dev/shm").join(folder.file_name().unwrap()).exists() && !folder.exists());
    let note = |text: &str| case.notes.iter().any(|n| n.contains(text));
    if confined.starts_with("false (") {
        assert!(confined.contains("Landlock") && note("asks for it to be confined, and it is not"), "{:?}", case.notes);
        return skip_here(&format!("a confined program: {confined}"));
    }
    assert_eq!((seen("w.outside"), seen("w.null")), ("PermissionError", "done"));
    // each word of the record is what the program met
    let (held, free) = confined.split_once("; free: ").unwrap();
    let networks = held.contains("networks");
    assert_eq!(seen("w.udp") != "done", networks, "{confined}");
    assert_eq!(seen("w.tcp") != "done", networks || held.contains("TCP"), "{confined}");
    assert_eq!(seen("w.signal") == "PermissionError", held.contains("signals"), "{confined}");
    assert_eq!(seen("w.shm"), "PermissionError", "{confined}");
    assert!(free.contains("reading") && free.contains("sockets that have a path"), "{free}");
    if !confined.starts_with("true (") {
        assert!(confined.starts_with("in part (") && note("it is so in part"), "{confined} {:?}", case.notes);
        skip_here(&format!("a program that is confined in whole: {confined}"));
    }
}

#[test]
fn what_hides_from_its_mark_ends_with_the_command() {
    let house = House::new();
    // away from its parent, group, session and environment
    let hidden = format!("cd '{}'; env -i setsid sleep 600 >/dev/null 2>&1 & exec \"$@\"", house.tag());
    let words = format!("command = {:?}", ["sh", "-c", &hidden, "sh", "python3"]).replace(']', "");
    let text = house.fake("plain", &[]).replace("command = [\"python3\"", &words)
        + "\n[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"plain\"]\n";
    assert!(text.contains("setsid"), "{text}");
    let suite = house.suite("hidden.toml", &text);
    house.run(&suite, "run", &["--check"]).exits(0);
    house.assert_nobody_left();
}

#[test]
fn keys_of_the_place_belong_to_external_backends() {
    let house = House::new();
    for (key, word) in [("confined = true", "external"), ("cpus = [0]", "external"), ("pass = [\"A\"]", "external")] {
        let text = format!(
            "[[backend]]\nname = \"own\"\nkind = \"native\"\n{key}\n[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"own\"]\n"
        );
        house.run(&house.suite("own.toml", &text), "run", &["--dry-run"]).refused(&[word, "line"]);
    }
    let external = house.fake("plain", &[]);
    for (key, word) in
        [("pass = [\"A=B\"]", "no name of a variable"), ("most_memory = \"lots\"", "2 GB"), ("cpus = [-1]", "cpus")]
    {
        let text =
            format!("{external}{key}\n[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"plain\"]\n");
        house.run(&house.suite("own.toml", &text), "run", &["--dry-run"]).refused(&[word]);
    }
}
