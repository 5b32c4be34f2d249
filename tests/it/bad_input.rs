//! Bad input of every kind: exit code 2, a message that names file, place and remedy, nothing lost, no panic, no runaway memory.
//!
//! In: wrong suites, models, puzzle files and folders. Out: messages. Must not: depend on permissions (tests may run as root).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use crate::house::{House, dense, ended, recursive, root, skip_here, tree, wait_until};

const CASES: &str =
    "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"reference\"]\nprecisions = [\"f64\"]\n";

#[test]
fn suites_with_unknown_keys_and_names_show_what_was_meant() {
    let house = House::new();
    let wrong = |from: &str, to: &str| {
        let suite = house.suite("wrong.toml", CASES);
        let text = fs::read_to_string(&suite).unwrap();
        assert!(text.contains(from));
        fs::write(&suite, text.replacen(from, to, 1)).unwrap();
        let ended = house.run(&suite, "run", &[]);
        assert!(!house.path("run").exists(), "nothing is made before the suite is understood");
        ended
    };
    wrong("precisions =", "precision =").refused(&["wrong.toml: line ", "`precision`", "precisions", "hint: "]);
    wrong("\"reference\"", "\"referense\"").refused(&["wrong.toml: line ", "`referense`", "`reference`", "hint: "]);
    wrong("models = [\"dense\"]", "models = [\"dens\"]").refused(&["wrong.toml: line ", "`dens`", "dense", "hint: "]);
    wrong("tasks = [\"small\"]", "tasks = [\"smal\"]").refused(&["wrong.toml: line ", "`smal`", "small", "hint: "]);
    wrong("kind = \"sudoku\"", "kind = \"sudokku\"").refused(&["wrong.toml: line ", "`sudokku`", "sudoku", "hint: "]);
    wrong("\"f64\"", "\"f63\"").refused(&["wrong.toml: line ", "`f63`", "hint: "]);
    wrong("clues = ", "klues = ").refused(&["wrong.toml", "task `small`", "`klues`", "clues", "hint: "]);
    wrong("size = 4", "size = 5").refused(&["wrong.toml", "task `small`", "size", "4, 6 or 9"]);
    wrong("[[cases]]", "[[cases").refused(&["wrong.toml: line ", "hint: "]);
    wrong("[[cases]]", "[[case]]").refused(&["wrong.toml: line ", "`case`", "cases", "hint: "]);
    wrong("examples = 5", "examples = 1000001").refused(&["wrong.toml", "task `small`", "`examples`"]);
    wrong("precisions = [\"f64\"]", "precisions = [\"f64\"]\nthreads = [0]").refused(&["wrong.toml: line ", "threads"]);
    wrong("precisions = [\"f64\"]", "precisions = [\"f64\"]\ndepth = [\"halt-0\"]").refused(&[
        "wrong.toml: line ",
        "`halt-0`",
        "hint: ",
    ]);
}

#[test]
fn files_that_are_no_suites_are_refused() {
    let house = House::new();
    let refused = |file: &Path, parts: &[&str]| house.run(file, "run", &[]).refused(parts);
    refused(&house.path("absent.toml"), &["absent.toml", "no such", "hint: "]);
    refused(&house.file("latin.toml", b"about = \"\xe9\""), &["latin.toml", "not UTF-8 text at byte 9", "hint: "]);
    refused(Path::new("/dev/zero"), &["/dev/zero", "not a regular file", "hint: "]);
    refused(&house.file("empty.toml", ""), &["empty.toml", "asks for no case", "hint: "]);
    let large = house.path("large.toml");
    File::create(&large).unwrap().set_len(1 << 40).unwrap();
    refused(&large, &["large.toml", "larger than", "hint: "]);
    house.ergometer(&["run", "quik"]).refused(&["`quik`", "quick", "hint: "]);
}

/// Makes a model folder `bad` by way of the good ones, and gives what `run` and `parity` say of it.
fn model_refused(house: &House, config: &str, weights: &[u8], parts: &[&str]) {
    fs::create_dir_all(house.path("bad")).unwrap();
    house.file("bad/config.json", config);
    house.file("bad/model.safetensors", weights);
    model_folder_refused(house, parts);
}

fn model_folder_refused(house: &House, parts: &[&str]) {
    let suite = house.suite(
        "bad.toml",
        &("[[model]]\nname = \"bad\"\npath = \"bad\"\n".to_string() + &CASES.replace("dense", "bad")),
    );
    let mut harness = house.start(&["run", suite.to_str().unwrap(), "--out", "run"]);
    let mut peak = 0;
    wait_until("the refusal", || {
        peak = peak.max(harness.peak().unwrap_or(0));
        !harness.is_running()
    });
    assert!(peak < 256 << 20, "{peak} bytes to refuse a model");
    house.run(&suite, "run", &[]).refused(parts);
    assert!(!house.path("run").exists());
    let vectors = root().join("tests/golden/trm-mlp-d64/vectors.safetensors");
    let parity = house.ergometer(&[
        "parity",
        "--model",
        "bad",
        "--vectors",
        vectors.to_str().unwrap(),
        "--backend",
        "reference",
    ]);
    if !house.path("bad").exists() {
        parity.refused(&["there is no model `bad`", "hint: "]);
    } else {
        parity.refused(parts);
        house.ergometer(&["time", "--model", "bad", "--backend", "reference"]).refused(parts);
    }
}

#[test]
fn models_that_are_not_whole_or_lie_are_refused() {
    let house = House::new();
    let (config, weights) = (dense().to_string(), fs::read(house.path("dense/model.safetensors")).unwrap());
    let refused = |config: &str, weights: &[u8], parts: &[&str]| model_refused(&house, config, weights, parts);
    model_folder_refused(&house, &["bad/config.json", "hint: "]);
    refused(
        &config,
        &weights[..weights.len() - 1],
        &["bad/model.safetensors", "not a whole safetensors file", "hint: "],
    );
    refused(&config, b"", &["bad/model.safetensors", "not a whole safetensors file", "hint: "]);
    refused(&config, &u64::MAX.to_le_bytes(), &["bad/model.safetensors", "not a whole safetensors file", "hint: "]);
    refused(&config, b"\x80\x04\x95pickle, not weights", &["bad/model.safetensors", "a Python pickle", "hint: "]);
    // offsets beyond the file, overlapping, and turned round
    for offsets in ["[0,18446744073709551615]", "[4,0]", "[0,4611686018427387904]"] {
        let header = format!("{{\"x\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{offsets}}}}}");
        let lying = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
        refused(&config, &lying, &["bad/model.safetensors", "hint: "]);
    }
    // whole, and of another model
    let other = fs::read(house.path("trm/model.safetensors")).unwrap();
    refused(&config, &other, &["bad/model.safetensors", "tensor `", "is missing", "hint: "]);
    refused("{\"model_type\": \"encoder\"", &weights, &["bad/config.json", "line 1, column", "hint: "]);
    refused("{\"model_type\": \"encodr\"}", &weights, &["bad/config.json", "`encodr`", "hint: ", "encoder"]);
    // larger than the config can account for; a sparse file, so that a read of it all would be noticed
    File::options().write(true).open(house.path("bad/model.safetensors")).unwrap().set_len(1 << 40).unwrap();
    house.file("bad/config.json", &config);
    model_folder_refused(&house, &["bad/model.safetensors", "not a whole safetensors file", "hint: "]);
}

#[test]
fn absurd_configs_are_refused_without_allocating_what_they_ask_for() {
    let house = House::new();
    let weights = fs::read(house.path("trm/model.safetensors")).unwrap();
    for (key, value) in [
        ("hidden_size", "4611686018427387904"),
        ("hidden_size", "4194304"),
        ("seq_len", "1000000000000"),
        ("vocab_size", "0"),
        ("num_heads", "0"),
        ("num_heads", "3"),
        ("L_layers", "1000000000"),
        ("H_cycles", "1000000000"),
        ("L_cycles", "0"),
        ("halt_max_steps", "4000000000"),
        ("expansion", "1e300"),
        ("expansion", "-1"),
        ("hidden_size", "-16"),
        ("seq_len", "\"sixteen\""),
        ("rms_norm_eps", "0"),
    ] {
        let mut config = recursive();
        config[key] = serde_json::from_str(value).unwrap();
        let text = config.to_string();
        fs::create_dir_all(house.path("bad")).unwrap();
        house.file("bad/config.json", &text);
        house.file("bad/model.safetensors", &weights);
        let suite = house.suite(
            "bad.toml",
            &("[[model]]\nname = \"bad\"\npath = \"bad\"\n".to_string() + &CASES.replace("dense", "bad")),
        );
        let ended = house.run(&suite, "run", &[]);
        assert!(ended.code == Some(2) && ended.stderr.contains("bad/"), "{key} = {value}: {ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{key} = {value}: {}", ended.stderr);
    }
}

#[test]
fn names_need_not_be_text() {
    let house = House::new();
    let suite = house.suite("fine.toml", CASES);
    let out = OsStr::from_bytes(b"caf\xe9");
    let mut command = house.command(&["run", suite.to_str().unwrap(), "--check", "--out"]);
    command.arg(out);
    ended(command).exits(0);
    assert!(house.path("").join(out).join("report/index.html").exists());
    let mut command = house.command(&["run", "--out", "run"]);
    command.arg(OsStr::from_bytes(b"nowhere-\xff.toml"));
    ended(command).refused(&["nowhere-", ".toml", "hint: "]);
}

#[test]
fn puzzle_files_are_checked_line_by_line() {
    let house = House::new();
    let suite = house.file(
        "csv.toml",
        "[[model]]\nname = \"dense\"\npath = \"dense\"\n[[task]]\nname = \"small\"\nkind = \"sudoku\"\nsize = 4\ncsv = \"own.csv\"\n".to_string() + CASES,
    );
    let good = "puzzle,solution\n1234341221430000,1234341221434321\n";
    let refused = |text: &str, parts: &[&str]| {
        house.file("own.csv", text);
        house.run(&suite, "run", &["--check"]).refused(parts);
        assert!(!house.path("run").exists());
    };
    refused("", &["own.csv", "no puzzle", "hint: "]);
    refused("question\n", &["own.csv", "no puzzle", "hint: "]);
    refused("field,answer\n", &["own.csv", "line 1", "header", "hint: "]);
    refused(&good.replace("4321\n", "4322\n"), &["own.csv", "line 2", "hint: "]);
    refused(&good.replace("0000,", "000,"), &["own.csv", "line 2", "15 cells", "hint: "]);
    refused(&good.replace("0000,", "000x,"), &["own.csv", "line 2", "'x'", "hint: "]);
    refused(
        &good.replace("1234341221430000,", "2234341221430000,"),
        &["own.csv", "line 2", "row 1, column 1", "hint: "],
    );
    refused(
        &good.replace("1234341221430000,", "0000000000000000,"),
        &["own.csv", "line 2", "more than one solution", "hint: "],
    );
    refused(&format!("{good}{}", "1".repeat(100_000)), &["own.csv", "line 3", "longer than", "hint: "]);
    fs::remove_file(house.path("own.csv")).unwrap();
    house.run(&suite, "run", &["--check"]).refused(&["own.csv", "hint: "]);
    house.file("own.csv", good);
    house.run(&suite, "run", &["--check"]).exits(0);
}

#[test]
fn folders_that_cannot_be_written_are_named_before_anything_runs() {
    let house = House::new();
    let suite = house.suite("fine.toml", CASES);
    house.file("plain", "a file");
    for out in ["plain", "plain/run", "/proc/ergometer-run"] {
        house.run(&suite, out, &["--check"]).refused(&[out, "hint: "]);
    }
    house.run(&suite, "plain", &["--dry-run"]).refused(&["`--out plain`", "no folder", "hint: "]);
    house.ergometer(&["report", "plain"]).refused(&["plain is no folder", "hint: name the folder of a run"]);
    let parity = ["parity", "--model", "dense", "--backend", "reference", "--vectors", "absent"];
    house.ergometer(&parity).refused(&["`--vectors absent`", "no such file", "hint: name a file"]);
    assert_eq!(fs::read(house.path("plain")).unwrap(), b"a file");
    // a run folder of somebody else's making
    fs::create_dir_all(house.path("run/cases/a-case")).unwrap();
    house.file("run/environment.json", "{}");
    house.file("run/cases/a-case/case.json", "{\"half\":");
    let before = tree(&house.path("run"));
    house.run(&suite, "run", &["--check"]).refused(&["already holds a run", "hint: "]);
    house.run(&suite, "run", &["--check", "--resume"]).refused(&["run/", "hint: "]);
    house.ergometer(&["report", "run"]).refused(&["run/environment.json", "hint: "]);
    let mut after = tree(&house.path("run"));
    after.remove(Path::new(".lock"));
    assert_eq!(after, before);
}

#[test]
fn a_full_disk_loses_no_finished_case() {
    let house = House::new();
    let disk = house.path("disk");
    fs::create_dir(&disk).unwrap();
    // a mount in a name space of its own: nothing outside sees it, and it goes with the shell
    let mut text = house.fake("plain", &[]) + &house.fake_as("loud", "many", &[]);
    text += "[defaults]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nwarmup_seconds = 0\n";
    text += "[[cases]]\nbackends = [\"plain\"]\nseconds = 0.05\niterations = 1\n[[cases]]\nbackends = [\"loud\"]\nseconds = 0.01\n";
    let suite = house.suite("loud.toml", &text);
    let program = house.command(&[]).get_program().to_string_lossy().into_owned();
    let script = format!(
        "mount -t tmpfs -o size=512k tmpfs {disk} || exit 77\n\
         {program} run {suite} --out {disk}/run; echo code $?\nls -a {disk}/run/cases | sed 's/^/entry /'\n\
         grep -l . {disk}/run/cases/*/case.json | wc -l | sed 's/^/whole /'\n\
         mount -o remount,size=64m {disk} && {program} run {suite} --out {disk}/run --resume > /dev/null 2>&1; echo again $?",
        disk = disk.display(),
        suite = suite.display()
    );
    let mut shell = Command::new("unshare");
    shell
        .args(["--mount", "sh", "-c", &script])
        .current_dir(house.path(""))
        .env("ERGOMETER_CACHE", house.path("cache"));
    let ended = match shell.output() {
        Ok(_) => ended(shell),
        Err(e) => return skip_here(&format!("full disk: no `unshare` here ({e})")),
    };
    if ended.code == Some(77) || ended.stderr.contains("unshare") {
        return skip_here(&format!("full disk: no mount of our own here ({})", ended.stderr.trim()));
    }
    assert!(ended.stdout.contains("code 2"), "{ended:?}");
    assert!(ended.stderr.contains("No space left on device") && ended.stderr.contains("hint: "), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"));
    assert!(ended.stdout.contains("whole 1"), "the finished case stays: {}", ended.stdout);
    assert!(!ended.stdout.contains(".tmp-"), "half a case stays: {}", ended.stdout);
    assert!(ended.stdout.contains("again 0"), "with room again the run goes on: {ended:?}");
}
