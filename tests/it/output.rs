//! Output that nobody takes, and text that would steer a terminal or a spreadsheet.
//!
//! In: the program's commands with closed pipes, a full device and hostile names. Out: exit codes and what is said. Must not: depend on how
//! fast anything is.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use crate::house::{House, ended, root, skip_here};

/// One line a command that prints data: arguments, and the exit code where all is well.
fn commands(house: &House) -> Vec<(Vec<String>, i32)> {
    let golden = root().join("tests/golden/trm-mlp-d64");
    let suite = house.suite(
        "one.toml",
        "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"reference\"]\nprecisions = [\"f64\"]\nseconds = 0.05\nwarmup_seconds = 0.0\n",
    );
    let suite = suite.to_str().unwrap().to_string();
    house.ergometer(&["run", &suite, "--out", "run", "--check"]).exits(0);
    let golden = golden.to_str().unwrap().to_string();
    let words = |text: &str| text.replace("SUITE", &suite).replace("GOLDEN", &golden);
    [
        ("", 0),
        ("--help", 0),
        ("--version", 0),
        ("run --help", 0),
        ("list models", 0),
        ("list metrics --json", 0),
        ("doctor", 0),
        ("doctor --json", 0),
        ("fetch", 0),
        ("run SUITE --dry-run", 0),
        ("run SUITE --dry-run --json", 0),
        ("run SUITE --check --out run --resume", 0),
        ("run SUITE --check --out run --resume --json", 0),
        ("time --model trm --backend reference --seconds 0.05", 0),
        ("report run --format md", 0),
        ("export --model trm --to onnx net.onnx --force", 0),
        ("export --model trm --to onnx net.onnx --force --json", 0),
        ("tune --model dense --backend reference", 0),
        ("tune --model dense --backend reference --json", 0),
        ("parity --model GOLDEN --vectors GOLDEN/vectors.safetensors --backend reference", 0),
        // mistakes are told on stderr
        ("list metrix", 2),
        ("run quikc", 2),
        ("run --no-such-flag", 2),
    ]
    .map(|(line, code)| (words(line).split_whitespace().map(str::to_string).collect(), code))
    .to_vec()
}

#[test]
fn a_reader_that_has_gone_ends_no_command_in_a_panic() {
    let house = House::new();
    for (args, code) in commands(&house) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        // both at once, so that messages meet a closed pipe too
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = house.command(&args);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        assert_eq!(ended(command).code, Some(code), "{args:?}");
        let mut child = house.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{args:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("roken pipe"), "{args:?}: {said}");
    }
}

#[test]
fn a_full_disk_is_an_error_line_and_exit_2() {
    let house = House::new();
    for (args, code) in commands(&house) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let full = || File::options().write(true).open("/dev/full");
        let (Ok(stdout), Ok(both)) = (full(), full()) else { return skip_here("there is no /dev/full") };
        let mut command = house.command(&args);
        command.stdout(stdout);
        let done = ended(command);
        if code == 0 {
            done.refused(&["error: cannot write to stdout", "hint: "]);
        } else {
            assert_eq!(done.code, Some(code), "{args:?}: {done:?}");
        }
        let mut command = house.command(&args);
        command.stdout(both.try_clone().unwrap()).stderr(both);
        assert_eq!(ended(command).code, Some(2), "{args:?}");
    }
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_line_and_exit_2() {
    let house = House::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 0 && exec \"$0\" \"$@\""]).arg(house.command(&[]).get_program());
    shell.args(["export", "--model", "trm", "--to", "onnx", "net.onnx"]).current_dir(house.path(""));
    ended(shell).refused(&["net.onnx", "File too large", "hint: "]);
    assert!(!house.path("net.onnx").exists());
}

/// What must never reach a terminal as it is.
fn hostile(text: &str) -> Option<char> {
    text.chars().find(|c| {
        (c.is_control() && *c != '\n') || ('\u{200b}'..='\u{200f}').contains(c) || ('\u{202a}'..='\u{202e}').contains(c)
    })
}

const EVIL: &str = "\u{1b}[31mred\u{202e}gpj\u{200b}\u{9b}2J\u{7}";

#[test]
fn escapes_and_marks_of_direction_are_shown_by_number() {
    let house = House::new();
    // of a file name, an argument, a worker, a suite, a model's configuration
    let evil_file = house.file("a\u{1b}[31m\u{202e}.toml", "about = 1");
    let evil_model = house.path("m\u{1b}[2J\u{202e}");
    std::fs::create_dir(&evil_model).unwrap();
    std::fs::write(evil_model.join("config.json"), "{\"model_type\": \"a\u{202e}\u{200b}b\"}").unwrap();
    let about = house.file(
        "about.toml",
        "about = \"x\\u001b[31m\\u202e\"\n[[model]]\nname = \"\\u001b[31mx\\u202e\"\npath = \"dense\"\n",
    );
    let fake = house.fake("speak", &["--words=\\u001b[31mred\\u202egpj\\u200b"]);
    let loud = house.suite(
        "loud.toml",
        &format!("{fake}[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"speak\"]\nseconds = 0.05\nwarmup_seconds = 0.0\n"),
    );
    let lines: Vec<Vec<&str>> = vec![
        vec!["run", evil_file.to_str().unwrap()],
        vec!["run", about.to_str().unwrap(), "--dry-run"],
        vec!["run", EVIL],
        vec![EVIL],
        vec!["list", EVIL],
        vec!["fetch", EVIL],
        vec!["report", EVIL],
        vec!["time", "--model", evil_model.to_str().unwrap(), "--backend", "native"],
        vec!["time", "--model", "dense", "--backend", EVIL],
        vec!["export", "--model", EVIL, "--to", "onnx", "x.onnx"],
        vec!["run", loud.to_str().unwrap(), "--out", "out\u{1b}[31m\u{202e}"],
        vec!["run", loud.to_str().unwrap(), "--out", "out\u{1b}[31m\u{202e}", "--resume", "--json"],
    ];
    for args in lines {
        let done = house.ergometer(&args);
        for text in [&done.stdout, &done.stderr] {
            assert_eq!(hostile(text), None, "{args:?}: {text:?}");
        }
        assert!(done.code == Some(2) || done.code == Some(1), "{args:?}: {done:?}");
    }
    let report = |name: &str| std::fs::read_to_string(house.path("out\u{1b}[31m\u{202e}").join(name)).unwrap();
    for name in ["report/report.md", "records.csv"] {
        let text = report(name);
        assert!(
            text.contains("\\u{1b}") || text.contains("\\\\u{1b}"),
            "{name} does not tell what the worker said: {text}"
        );
        assert_eq!(hostile(&text), None, "{name}");
    }
}

#[test]
fn a_worker_writes_no_formula_into_a_spreadsheet() {
    let house = House::new();
    let fake = house.fake("speak", &["--words==cmd|' /C calc'!A0"]);
    let suite = house.suite(
        "formula.toml",
        &format!("{fake}[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"speak\"]\nseconds = 0.05\nwarmup_seconds = 0.0\n"),
    );
    house.run(&suite, "run", &[]).exits(1);
    let csv = std::fs::read_to_string(house.path("run/records.csv")).unwrap();
    assert!(csv.contains("'=cmd|"), "{csv}");
    for line in csv.lines() {
        for cell in line.split(',') {
            let cell = cell.trim_matches('"');
            assert!(!cell.starts_with(['=', '+', '@']), "{line}");
        }
    }
}

#[test]
fn print_macros_are_in_one_place() {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root())
        .output();
    let Ok(listed) = listed else { return skip_here("no git") };
    let mut offences = Vec::new();
    for name in String::from_utf8(listed.stdout).unwrap().lines() {
        // what is not part of the program, and what speaks to cargo
        let of_program =
            (name.starts_with("src/") || name.starts_with("reports/src/") || name.starts_with("suites/src/"))
                && !name.contains("/tests")
                && !name.ends_with("meters/respawn.rs");
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
        for (number, line) in program.lines().enumerate().filter(|_| of_program) {
            let code = line.split("//").next().unwrap_or("");
            let found = ["print!(", "println!("].iter().any(|word| {
                code.match_indices(word).any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() && c != 'e'))
            });
            if found {
                offences.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(offences.is_empty(), "say it through src/console.rs: {offences:#?}");
}
