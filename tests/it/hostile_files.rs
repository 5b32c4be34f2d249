//! Pipes, devices and links where files are expected: every command says so and ends, and nothing is written through any of them.
//!
//! In: a run folder, a cache, inputs, each with something else in a file's place. Out: exit codes, messages, what lies outside. Must not: wait
//! for a command that hangs longer than a test may take (a hang is a failure of the test's own time limit).

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::house::House;

fn pipe(path: &std::path::Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn nothing_in_a_run_folder_is_waited_for_or_written_through() {
    let house = House::new();
    let text = house.fake("plain", &[])
        + "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"plain\"]\nseconds = 0.05\nwarmup_seconds = 0\n";
    let suite = house.suite("suite.toml", &text);
    house.run(&suite, "run", &[]).exits(0);
    let at = |name: &str| house.path("run").join(name);
    let resume = || house.run(&suite, "run", &["--resume"]);
    resume().exits(0);

    fs::create_dir(house.path("outside")).unwrap();
    // places where a file is made or replaced: what is there must not be opened, nor what it leads to
    for place in [".lock", "environment.json"] {
        let kept = fs::read(at(place)).unwrap();
        pipe(&at(place));
        resume().refused(&[place, "not a regular file"]);
        fs::remove_file(at(place)).unwrap();
        symlink(house.path("outside/target"), at(place)).unwrap();
        resume().refused(&[place]);
        fs::remove_file(at(place)).unwrap();
        symlink("/dev/zero", at(place)).unwrap();
        resume().refused(&[place]);
        fs::remove_file(at(place)).unwrap();
        fs::write(at(place), kept).unwrap();
    }
    for place in ["report/plots", "report"] {
        fs::remove_dir_all(at(place)).unwrap();
        symlink(house.path("outside"), at(place)).unwrap();
        resume().refused(&["report", "link"]);
        house.ergometer(&["report", "run", "--format", "svg"]).refused(&["report", "link"]);
        fs::remove_file(at(place)).unwrap();
    }
    // files of the report that are links are replaced
    fs::create_dir(at("report")).unwrap();
    fs::write(house.path("outside/mine"), "mine").unwrap();
    symlink(house.path("outside/mine"), at("report/index.html")).unwrap();
    resume().exits(0);
    assert_eq!(fs::read_to_string(house.path("outside/mine")).unwrap(), "mine");
    fs::rename(at("cases"), house.path("outside/cases")).unwrap();
    symlink(house.path("outside/cases"), at("cases")).unwrap();
    resume().refused(&["cases", "link"]);
    house.ergometer(&["report", "run"]).refused(&["cases", "link"]);
    assert_eq!(fs::read_dir(house.path("outside")).unwrap().count(), 2, "`mine` and the cases");
}

#[test]
fn inputs_that_are_pipes_or_devices_are_refused() {
    let house = House::new();
    pipe(&house.path("pipe"));
    // a bare name would be that of a shipped suite
    for file in ["./pipe", "/dev/zero"] {
        house.ergometer(&["run", file]).refused(&["not a regular file"]);
        house.ergometer(&["fetch", "arc-agi-1", "--from", file]).refused(&["not a regular file"]);
    }
    let suite = |path: &str| {
        format!(
            "[[model]]\nname = \"other\"\npath = \"{path}\"\n[[cases]]\nmodels = [\"other\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\n"
        )
    };
    for name in ["config.json", "model.safetensors"] {
        let _ = fs::remove_dir_all(house.path("other"));
        house.model("other", &crate::house::dense());
        pipe(&house.path("other").join(name));
        house.run(&house.suite("other.toml", &suite("other")), name, &[]).refused(&[name, "named pipe"]);
    }
}

/// A suite of one case that is judged by the reference.
fn judged(house: &House) -> std::path::PathBuf {
    let case = "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\nseconds = 0.05\nwarmup_seconds = 0\n";
    house.suite("judged.toml", case)
}

#[test]
fn a_reference_that_cannot_be_made_condemns_nobody_for_good() {
    let house = House::new();
    let suite = judged(&house);
    fs::create_dir(house.path("cache")).unwrap();
    fs::write(house.path("cache/reference"), "a file where the folder should be").unwrap();
    // what can be seen beforehand is
    house.run(&suite, "run", &[]).refused(&["`reference`", "ERGOMETER_CACHE", "hint: "]);
    assert!(!house.path("run").exists(), "nothing was begun");
    fs::remove_file(house.path("cache/reference")).unwrap();
    house.run(&suite, "first", &[]).exits(0);
    let files = crate::house::tree(&house.path("cache/reference"));
    let is_vectors = |name: &str| name.ends_with(".safetensors") && !name.contains("questions");
    let name = files.into_keys().find(|p| is_vectors(&p.display().to_string())).unwrap();
    let file = house.path("cache/reference").join(name);
    pipe(&file);
    house.run(&suite, "run", &[]).exits(1);
    let error = house.cases("run")["native"].error.clone().unwrap();
    assert_eq!(error.kind, ergometer_reports::case::ErrorKind::Reference, "{error:?}");
    assert!(error.message.contains("named pipe") && error.hint.is_some(), "{error:?}");
    // once there is room for it the case runs again, in the same folder
    fs::remove_file(&file).unwrap();
    house.run(&suite, "run", &["--resume"]).exits(0);
    assert_eq!(house.cases("run")["native"].error, None);
    house.run(&suite, "run", &["--resume"]).exits(0);
}

#[test]
fn a_damaged_reference_is_made_anew() {
    let house = House::new();
    let suite = judged(&house);
    house.run(&suite, "first", &[]).exits(0);
    let files = crate::house::tree(&house.path("cache/reference"));
    let is_vectors = |name: &str| name.ends_with(".safetensors") && !name.contains("questions");
    let (name, good) = files.into_iter().find(|(p, _)| is_vectors(&p.display().to_string())).unwrap();
    let file = house.path("cache/reference").join(name);
    // one bit of the last logit: still a file of the right shapes
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 0x40;
    fs::write(&file, &bad).unwrap();
    house.run(&suite, "second", &[]).exits(0);
    assert!(fs::read(&file).unwrap() == good, "made anew");
    // a link is replaced, and what it leads to stays
    fs::rename(&file, house.path("elsewhere")).unwrap();
    symlink(house.path("elsewhere"), &file).unwrap();
    house.run(&suite, "third", &[]).exits(0);
    assert!(fs::symlink_metadata(&file).unwrap().is_file());
    // a pipe is not waited for: it is named
    pipe(&file);
    house.run(&suite, "fourth", &[]).exits(1);
    let error = house.cases("fourth")["native"].error.clone().unwrap();
    assert!(error.message.contains("named pipe"), "{error:?}");
}
