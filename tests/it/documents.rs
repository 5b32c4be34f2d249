//! Every command that README and the helps name works as it is written.
//!
//! In: the texts of README, CONTRIBUTING, suites/README and each `--help`. Out: how each command ended. Must not: measure for minutes or
//! download: what would is run with the same arguments and `--dry-run` (run, time, tune, train), or must be refused as offline (fetch).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::house::{Ended, House, ended, root, skip_here};

/// What a text says before a command that names files of the tree.
const FROM_ROOT: &str = "rom the root of this tree";

/// A command as written, and whether the text says that it is for the root of the tree.
type Line = (String, bool);

/// Commands in a text: whole lines of code, and code within prose.
fn commands(text: &str) -> BTreeSet<Line> {
    let mut found = BTreeSet::new();
    let text = text.replace("\\\n   ", "");
    let lines: Vec<&str> = text.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        let rooted = lines[i.saturating_sub(2)..=i].iter().any(|l| l.contains(FROM_ROOT));
        let code = line.trim_start();
        let whole = code.strip_prefix("cargo run --release -- ").or_else(|| code.strip_prefix("ergometer "));
        // a comment ends the command
        found.extend(
            whole
                .map(|c| c.split(" #").next().unwrap_or(c).split("  ").next().unwrap_or(c).trim().to_string())
                .map(|c| (c, rooted)),
        );
        for part in line.split('`').skip(1).step_by(2) {
            found.extend(part.strip_prefix("ergometer ").map(|c| (c.trim().to_string(), rooted)));
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

/// Runs it in a folder, in a form that takes no minutes; what it must come to.
fn tried(house: &House, folder: &Path, line: &str) -> (Vec<String>, Ended, bool) {
    let mut args = words(line);
    let here = |name: &str| house.path(name).display().to_string();
    for arg in &mut args {
        match arg.as_str() {
            // what a command before it has made
            "RUN" | "my-run" if line.starts_with("report") => *arg = here("a-run"),
            "B" => *arg = "native".into(),
            "FILE" if line.starts_with("export") => *arg = "a-net.onnx".into(),
            "FILE" | "SUITE" => *arg = here("a-suite.toml"),
            "NET.onnx" => *arg = here("a-net.onnx"),
            "NAME" => *arg = "arc-agi-1".into(),
            "PAGE.md" => *arg = here("PAGE.md"),
            // a small one in the place of what would be fetched
            "smollm2" if ["generate", "convert", "export"].iter().any(|c| line.starts_with(c)) => {
                *arg = here("small.gguf")
            }
            "moby-dick" if line.starts_with("convert") => *arg = here("a-text.txt"),
            // nothing is left in the root of the tree
            "imported" | "again" if line.starts_with("import") => *arg = here(arg),
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
    let offline = ["fetch", "compress"].contains(&command.as_str()) && args.len() > 1 && !helps;
    let mut program = house.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    program.current_dir(folder);
    (args, ended(program), offline)
}

/// A house with a suite and a recorded run, for commands that are about such.
fn house() -> House {
    let house = House::new();
    let suite = house.suite(
        "a-suite.toml",
        "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"reference\"]\nprecisions = [\"f64\"]\n",
    );
    house.run(&suite, "a-run", &["--check"]).exits(0);
    house.ergometer(&["export", "--model", "dense", "--to", "onnx", "a-net.onnx"]).exits(0);
    crate::generate::chatting(&house, "small.gguf");
    fs::write(house.path("a-text.txt"), "the cat sat on the mat. ".repeat(200)).unwrap();
    house.file(
        "PAGE.md",
        "# Page\n\n<!-- records run=a-run metric=accuracy rows=model,scenario columns=backend,precision -->\n<!-- /records -->\n",
    );
    house
}

/// Each command works in a folder with nothing in it, or, where the text says so, in the root of the tree.
#[track_caller]
fn all_work(house: &House, commands: &BTreeSet<Line>, least: usize) {
    assert!(commands.len() >= least, "{commands:?}");
    let mut wrong = Vec::new();
    for (line, rooted) in commands {
        let empty = tempfile::tempdir().unwrap();
        let names_files = ["tests/", "suites/", "ci/", "reports/", "examples/"].iter().any(|f| line.contains(f));
        let folder = if *rooted && names_files { root() } else { empty.path() };
        let (args, done, offline) = tried(house, folder, line);
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

/// Pages with tables of recorded runs.
const PAGES: [&str; 2] = ["reports/RESULTS.md", "reports/THESIS.md"];

#[test]
fn commands_of_the_documents_work_as_written() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let names = ["README.md", "CONTRIBUTING.md", "suites/README.md", "METHODS.md", "BIAS.md"];
    let all = names.into_iter().chain(PAGES).map(read).collect::<Vec<_>>().join("\n");
    let found = commands(&all);
    for wanted in ["export --model trm-6x6 --to onnx FILE", "run quick", "doctor"] {
        assert!(found.iter().any(|(line, _)| line == wanted), "{wanted} in {found:?}");
    }
    all_work(&house(), &found, 10);
}

#[test]
fn tables_of_recorded_runs_are_as_their_records_say() {
    let house = house();
    let page = house.path("PAGE.md");
    let page = page.to_str().unwrap();
    let stale = house.ergometer(&["splice", page, "--check"]);
    stale.exits(1);
    assert!(stale.stdout.contains("not up to date"), "{}", stale.stdout);
    house.ergometer(&["splice", page]).exits(0);
    let text = fs::read_to_string(page).unwrap();
    assert!(
        text.contains("| model | scenario | reference f64 |\n") && text.contains("| dense | single-stream |"),
        "{text}"
    );
    house.ergometer(&["splice", page, "--check"]).exits(0);
    // the pages of this tree
    for page in PAGES.map(|p| root().join(p)) {
        house.ergometer(&["splice", page.to_str().unwrap(), "--check"]).exits(0);
        let marks = fs::read_to_string(&page).unwrap().matches("<!-- records ").count();
        assert!(marks >= 1, "{} has no table of a recorded run", page.display());
    }
    for (from, to, said) in
        [("run=a-run", "run=nobody", "nobody/records.csv"), ("metric=accuracy", "metric=speed", "no case of")]
    {
        house.file("bad.md", text.replace(from, to));
        let bad = house.path("bad.md");
        house.ergometer(&["splice", bad.to_str().unwrap()]).refused(&[said, "hint: "]);
    }
    house.ergometer(&["splice", "nowhere.md"]).refused(&["nowhere.md", "hint: "]);
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
        assert!(own.iter().any(|(c, _)| c.starts_with(name)), "{name} has no example");
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
        (["--threads", "-2"], ["--threads", "whole number"]),
        (["--batch", "-1"], ["--batch", "whole number"]),
        (["--seconds", "-0.5"], ["--seconds", "number of seconds"]),
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
    for (flag, value) in [("--tolerance", "nan"), ("--tolerance", "-1"), ("--threads", "0"), ("--precision", "fp16")] {
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
    house.ergometer(&["run", "quick", "--repeats", "-1"]).refused(&["--repeats", "-1 is not in"]);
    // a folder may be called as no model of a suite can
    let long = "n".repeat(120);
    for name in [".trm", "_trm", &long] {
        house.model(name, &crate::house::recursive());
        house.ergometer(&["time", "--model", name, "--backend", "native", "--dry-run"]).exits(0);
    }
    // what is missing is listed, what is near is named
    house.ergometer(&["run"]).refused(&["<SUITE>", "shipped suites are", "quick"]);
    house.ergometer(&["list"]).refused(&["kinds are models"]);
    house.ergometer(&["time"]).refused(&["shipped models are", "trm-6x6", "backends are", "native"]);
    house.ergometer(&["time", "--model", "trm-6x7", "--backend", "native"]).refused(&["did you mean trm-6x6"]);
    house.ergometer(&["time", "--model", "trm", "--backend", "natve"]).refused(&["--backend", "did you mean native"]);
    house.ergometer(&["tiem"]).refused(&["time"]);
}

#[test]
fn readme_is_read_in_two_minutes() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(text.split_whitespace().count() <= 700, "{} words", text.split_whitespace().count());
    assert_eq!(text.matches("![").count(), 1, "one picture");
    // what it points to is there
    for link in text.split("](").skip(1).filter_map(|l| l.split(')').next()) {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let page = fs::read_to_string(root().join(file)).unwrap_or_default();
        assert!(root().join(file).exists(), "{link}");
        let heads = page.lines().filter(|l| l.starts_with('#')).map(|l| {
            let words = l.trim_start_matches('#').trim().to_lowercase();
            words.chars().filter(|c| c.is_alphanumeric() || "- ".contains(*c)).collect::<String>().replace(' ', "-")
        });
        assert!(anchor.is_empty() || heads.into_iter().any(|h| h == anchor), "{link}");
    }
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
    // also where the command line itself is not understood
    assert!(escapes(&["tiem", "--color", "always"], true) && escapes(&["run", "--color=always"], true));
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

#[test]
fn details_are_told_to_whoever_asks() {
    if ergometer::backends::backend("tract").is_none() {
        return skip_here("details of a search: this build has no backend with several settings");
    }
    let house = House::new();
    let suite = house.suite(
        "one.toml",
        "[[cases]]\nmodels = [\"trm\"]\ntasks = [\"small\"]\nbackends = [\"tract\"]\ntune = true\ntune_seconds = 1\n\
         seconds = 0.05\nwarmup_seconds = 0\n",
    );
    let suite = suite.to_str().unwrap();
    let told = |args: &[&str], parts: &[&str]| {
        let done = house.ergometer(args);
        // on a busy machine a case may fail
        assert!(matches!(done.code, Some(0 | 1)), "{done:?}");
        for part in parts {
            assert!(done.stderr.contains(part), "no `{part}` in {}", done.stderr);
        }
        // a time before each
        assert!(done.stderr.lines().filter(|l| l.starts_with('[')).count() > 3, "{}", done.stderr);
    };
    let parts = [
        "read suite",
        "one.toml",
        "start process",
        "ergometer worker",
        "search of small/trm/",
        "a wave of 1 case",
        "meter rapl",
        "reference of small/trm/",
        "made of",
        "loading",
        "timing",
        "ended small/trm/",
        "write ",
        "run folder",
        "wrote records",
    ];
    told(&["run", suite, "--out", "run", "-v"], &parts);
    told(&["run", suite, "--out", "again", "-v"], &["reference of small/trm/", ": read "]);
    told(&["run", suite, "--out", "check", "--check", "-v"], &["1 case by itself"]);
    told(
        &["-v", "time", "--model", "trm", "--backend", "native", "--seconds", "0.05"],
        &["start process", "read model"],
    );
    told(&["doctor", "-v"], &["probe backend native", "meter rapl: unavailable", "look at what else runs"]);
    let fetch = house.ergometer(&["fetch", "arc-agi-1", "-v"]);
    assert!(fetch.stderr.contains("cache folder") && fetch.stderr.contains("arcagi"), "{}", fetch.stderr);
    // and to nobody else
    assert!(!house.ergometer(&["doctor"]).stderr.contains("probe backend"));
}
