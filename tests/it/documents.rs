//! Every command that README and the helps name works as it is written.
//!
//! In: the texts of README, CONTRIBUTING, suites/README and each `--help`. Out: how each command ended. Must not: measure for minutes or
//! download: what would is run with the same arguments and `--dry-run` (run, time, tune, train), or must be refused as offline (fetch).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::house::{Ended, House, ended, root};

/// Commands in a text: whole lines of code, and code within prose.
fn commands(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let text = text.replace("\\\n   ", "");
    for line in text.lines() {
        let code = line.trim_start();
        let whole = code.strip_prefix("cargo run --release -- ").or_else(|| code.strip_prefix("ergometer "));
        // a comment ends the command
        found.extend(
            whole.map(|c| c.split(" #").next().unwrap_or(c).split("  ").next().unwrap_or(c).trim().to_string()),
        );
        for part in line.split('`').skip(1).step_by(2) {
            found.extend(part.strip_prefix("ergometer ").map(|c| c.trim().to_string()));
        }
    }
    found
}

/// Words of a command line as a shell makes them.
fn words(line: &str) -> Vec<String> {
    let mut shell = Command::new("sh");
    shell.arg("-f").arg("-c").arg(format!("printf '%s\\n' {line}"));
    ended(shell).stdout.lines().map(str::to_string).collect()
}

/// Runs it, in a form that takes no minutes; what it must come to.
fn tried(house: &House, line: &str) -> (Vec<String>, Ended, bool) {
    let mut args = words(line);
    for arg in &mut args {
        match arg.as_str() {
            "RUN" => *arg = "a-run".into(),
            "B" => *arg = "native".into(),
            "FILE" if line.starts_with("export") => *arg = "a-net.onnx".into(),
            "FILE" | "SUITE" => *arg = "a-suite.toml".into(),
            "NAME" => *arg = "arc-agi-1".into(),
            _ => {}
        }
    }
    let command = args[0].clone();
    // `ergometer run` in prose is a name, not a command line
    if args.len() == 1 && !["doctor", "fetch"].contains(&command.as_str()) {
        args.push("--help".into());
    }
    let helps = args.iter().any(|a| a == "--help");
    if !helps && ["run", "time", "tune", "train"].contains(&command.as_str()) && !args.iter().any(|a| a == "--dry-run")
    {
        args.retain(|a| a != "--resume");
        args.push("--dry-run".into());
    }
    if command == "export" {
        args.push("--force".into());
    }
    let offline = command == "fetch" && args.len() > 1 && !helps;
    let done = house.ergometer(&args.iter().map(String::as_str).collect::<Vec<_>>());
    (args, done, offline)
}

/// A house in which the paths of the documents lead somewhere.
fn house() -> House {
    let house = House::new();
    for name in ["suites", "tests"] {
        std::os::unix::fs::symlink(root().join(name), house.path(name)).unwrap();
    }
    let suite = house.suite(
        "a-suite.toml",
        "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"reference\"]\nprecisions = [\"f64\"]\n",
    );
    house.run(&suite, "a-run", &["--check"]).exits(0);
    // the example of `report`
    fs::create_dir(house.path("ergometer-runs")).unwrap();
    let run = house.path("ergometer-runs/quick-20260101T000000Z-1");
    assert!(Command::new("cp").arg("-r").arg(house.path("a-run")).arg(run).status().unwrap().success());
    house
}

#[track_caller]
fn all_work(house: &House, commands: &BTreeSet<String>, least: usize) {
    assert!(commands.len() >= least, "{commands:?}");
    let mut wrong = Vec::new();
    for line in commands {
        let (args, done, offline) = tried(house, line);
        let right = match offline {
            // it resolves, and stops where it would download
            true => done.code == Some(2) && done.stderr.contains("ERGOMETER_OFFLINE"),
            false => done.code == Some(0),
        };
        if !right {
            wrong.push(format!("`ergometer {line}` as {args:?}: {:?} {}", done.code, done.stderr));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn commands_of_the_documents_work_as_written() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let all = ["README.md", "CONTRIBUTING.md", "suites/README.md", "METHODS.md", "BIAS.md"].map(read).join("\n");
    let found = commands(&all);
    for wanted in ["export --model trm-6x6 --to onnx FILE", "run quick", "doctor"] {
        assert!(found.contains(wanted), "{wanted} in {found:?}");
    }
    all_work(&house(), &found, 10);
}

#[test]
fn examples_of_every_help_work_as_written() {
    let house = house();
    let overview = house.ergometer(&["--help"]).stdout;
    let names =
        overview.lines().skip_while(|l| !l.starts_with("Commands:")).skip(1).take_while(|l| l.starts_with("  "));
    let names: Vec<&str> = names.filter_map(|l| l.split_whitespace().next()).collect();
    assert!(names.len() >= 9, "{names:?}");
    let mut found = commands(&overview);
    for name in &names {
        let help = house.ergometer(&[name, "--help"]).stdout;
        let own = commands(&help);
        // a broken line cannot be pasted
        assert!(help.lines().all(|l| !l.starts_with("  ergometer ") || l.len() <= 80), "{name}: {help}");
        assert!(own.iter().any(|c| c.starts_with(name)), "{name} has no example");
        assert!(help.contains("Exit codes: 0 ok, 1 a case failed, 2"), "{name}: {help}");
        found.extend(own);
    }
    all_work(&house, &found, names.len());
}

#[test]
fn shipped_names_are_found_from_an_empty_folder_elsewhere() {
    let house = House::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let lines: [&[&str]; 6] = [
        &["run", "quick", "--dry-run"],
        &["time", "--model", "trm-6x6", "--backend", "native", "--dry-run"],
        &["tune", "--model", "trm-6x6", "--backend", "native", "--dry-run"],
        &["export", "--model", "trm-6x6", "--to", "onnx", "net.onnx"],
        &["list", "models"],
        &["list", "suites"],
    ];
    for args in lines {
        let mut command = house.command(args);
        command.current_dir(elsewhere.path());
        ended(command).exits(0);
    }
    // by the name the model is found, and only the vectors are missing
    house
        .ergometer(&["parity", "--model", "trm-6x6", "--vectors", "absent", "--backend", "native"])
        .refused(&["absent"]);
    assert!(Path::new(&elsewhere.path().join("net.onnx")).exists());
}

#[test]
fn flags_are_named_as_flags() {
    let house = House::new();
    let time = ["time", "--model", "trm", "--backend", "native"];
    let with = |more: &[&'static str]| [&time[..], more].concat();
    for (more, parts) in [
        (["--seconds", "nan"], ["--seconds", "number of seconds"]),
        (["--seconds", "inf"], ["--seconds", "number of seconds"]),
        (["--seconds", "0"], ["--seconds", "number of seconds"]),
        (["--precision", "fp16"], ["--precision fp16", "f32"]),
        (["--batch", "0"], ["--batch", "whole number"]),
        (["--batch", "9999999"], ["--batch", "65536"]),
        (["--threads", "0"], ["--threads", "whole number"]),
        (["--threads", "100000"], ["--threads", "whole number"]),
        (["--depth", "halt"], ["--depth", "halt-N"]),
        (["--task", "7"], ["--task", "4, 6 or 9"]),
        (["--color", "sometimes"], ["--color", "never"]),
    ] {
        house.ergometer(&with(&more)).refused(&parts);
        if more[0] != "--seconds" {
            house.ergometer(&[&["tune"], &with(&more)[1..]].concat()).refused(&parts);
        }
    }
    let parity = ["parity", "--model", "trm", "--vectors", "x", "--backend", "native"];
    for (flag, value) in [("--tolerance", "nan"), ("--threads", "0"), ("--precision", "fp16")] {
        house.ergometer(&[&parity[..], &[flag, value]].concat()).refused(&[flag]);
    }
    let two = |model: &'static str, flag: &'static str, value: &'static str, parts: &[&str]| {
        for command in ["time", "tune"] {
            let done = house.ergometer(&[command, "--model", model, "--backend", "native", flag, value]);
            done.refused(parts);
            assert!(!done.stderr.contains(".toml"), "{}", done.stderr);
        }
    };
    two("trm-4x4", "--task", "9", &["`--task 9`", "81 cells", "hint: "]);
    two("trm-4x4", "--task", "arc-rules", &["`--task arc-rules`", "36 cells", "hint: "]);
    two("dense-6x6", "--task", "arc-rules", &["`--task arc-rules`", "12 tokens", "hint: "]);
    two("trm-arc", "--task", "6", &["`--task 6`", "arc-rules-1", "hint: "]);
    two("dense-4x4", "--depth", "halt-4", &["`--depth halt-4`", "one-shot", "hint: "]);
    two("trm", "--precision", "fp16", &["`--precision fp16`", "did you mean bf16"]);
    assert!(house.ergometer(&["time", "--help"]).stdout.contains("arc-rules"));
    house.ergometer(&["run", "suites/quick.toml"]).refused(&["suites/quick.toml", "hint: `quick` is a shipped suite"]);
    house.ergometer(&["time", "--model", "trm", "--backend", "onnx"]).refused(&["did you mean onnxruntime"]);
    // what is missing is listed, what is near is named
    house.ergometer(&["run"]).refused(&["<SUITE>", "shipped suites are", "quick"]);
    house.ergometer(&["list"]).refused(&["kinds are models"]);
    house.ergometer(&["time"]).refused(&["shipped models are", "trm-6x6", "backends are", "native"]);
    house.ergometer(&["time", "--model", "trm-6x7", "--backend", "native"]).refused(&["did you mean trm-6x6"]);
    house.ergometer(&["time", "--model", "trm", "--backend", "natve"]).refused(&["--backend", "did you mean native"]);
    house.ergometer(&["tiem"]).refused(&["time"]);
}

#[test]
fn an_export_says_which_runtimes_read_it() {
    let house = House::new();
    let export = |opset: &'static str| {
        let args = ["export", "--model", "trm", "--to", "onnx", "net.onnx", "--force", "--opset", opset];
        house.ergometer(&args).exits(0).stdout.clone()
    };
    assert!(export("17").contains("ONNX Runtime 1.12 and later (IR 8)"));
    assert!(export("23").contains("ONNX Runtime 1.22 and later (IR 11)"));
    assert!(house.ergometer(&["export", "--help"]).stdout.contains("IR 11"));
}

#[test]
fn colours_are_for_who_wants_them_and_quiet_is_quiet() {
    let house = House::new();
    let escapes = |args: &[&str], no_color: bool| {
        let mut command = house.command(args);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        if no_color {
            command.env("NO_COLOR", "1");
        }
        ended(command).stderr.contains('\u{1b}')
    };
    assert!(!escapes(&["list", "metrix"], false), "a pipe is no terminal");
    assert!(escapes(&["list", "metrix", "--color", "always"], true), "what is asked for is given");
    assert!(!escapes(&["list", "metrix", "--color", "never"], false));
    let suite = house.suite(
        "one.toml",
        "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"reference\"]\nprecisions = [\"f64\"]\n",
    );
    let suite = suite.to_str().unwrap();
    let done = house.ergometer(&["run", suite, "--out", "run", "--check", "-q"]);
    assert_eq!(done.exits(0).stderr, "");
    let again = house.ergometer(&["-q", "run", suite, "--out", "run", "--check", "--resume"]);
    assert_eq!(again.exits(0).stderr, "");
    assert!(again.stdout.lines().take(40).all(|l| l.chars().count() <= 130), "{}", again.stdout);
    house.ergometer(&["run", "-q", "-v", suite]).refused(&["--quiet", "--verbose"]);
}
