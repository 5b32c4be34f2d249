//! The onnxruntime backend where its library is not to be had: every command goes on and says what to do.
//!
//! In: a suite with a case of the backend, and no library. Out: exit codes, messages, records. Must not: download anything.

use ergometer_reports::case::ErrorKind;

use crate::house::{House, ended, root};

const CASES: &str = "[[cases]]\nmodels = [\"trm\"]\ntasks = [\"small\"]\nbackends = [\"onnxruntime\"]\n";

#[test]
fn without_its_library_cases_are_unavailable_and_say_what_to_do() {
    let house = House::new();
    let without = |args: &[&str]| {
        let mut command = house.command(args);
        command.env("ERGOMETER_ONNXRUNTIME", house.path("absent.so"));
        ended(command)
    };
    let doctor = without(&["doctor", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&doctor.exits(0).stdout).unwrap();
    let backends = found["backends"].as_array().unwrap();
    let Some(state) = backends.iter().find(|b| b["name"] == "onnxruntime") else {
        return; // built without it
    };
    let why = state["unavailable"].as_str().unwrap();
    assert!(why.contains("absent.so") && why.contains("hint: `ergometer fetch onnxruntime`"), "{why}");

    let suite = house.suite("one.toml", CASES);
    without(&["run", suite.to_str().unwrap(), "--dry-run"]).exits(0);
    without(&["run", suite.to_str().unwrap(), "--check", "--out", "run"]).exits(1);
    let cases = house.cases("run");
    let error = cases["onnxruntime"].error.as_ref().unwrap();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(
        error.message.contains("absent.so") && error.hint.as_ref().unwrap().contains("ergometer fetch"),
        "{error:?}"
    );
    let expected = house.suite("expected.toml", &format!("{CASES}may_be_unavailable = true\n"));
    without(&["run", expected.to_str().unwrap(), "--check", "--out", "expected"]).exits(0);
}

/// Libraries that harm their process: each is a reason, in `doctor`, in a run beside other backends, and in `parity`.
#[test]
fn a_library_that_harms_its_process_takes_nothing_down() {
    let house = House::new();
    let with = |library: &std::path::Path, args: &[&str]| {
        let mut command = house.command(args);
        command.env("ERGOMETER_ONNXRUNTIME", library).env("ERGOMETER_LIBRARY_SECONDS", "2");
        ended(command)
    };
    let built = |name: &str, body: &str| {
        let head = "#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n";
        let text = format!("{head}__attribute__((constructor)) static void harm(void) {{ {body} }}\n");
        let (source, library) = (house.file(&format!("{name}.c"), text), house.path(&format!("{name}.so")));
        let cc = std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
        assert!(cc.expect("a C compiler named `cc` is needed").success());
        library
    };
    let whole = built("whole", "static char data[1 << 20] = {1}; data[0] = 2;");
    let bytes = std::fs::read(&whole).unwrap();
    let half = house.file("half.so", &bytes[..bytes.len() / 2]);
    let text = house.file("text.so", "no library");
    let crash = built("crash", "*(volatile int *)0 = 1;");
    let cases = [
        (&half, "cannot be used"),
        (&text, "cannot be used"),
        (&whole, "cannot be used"),
        (&crash, "by signal 11 (SIGSEGV)"),
        (&built("leave", "exit(0);"), "with exit code 0"),
        (&built("hang", "sleep(600);"), "did not answer in 2 s"),
        (&built("spawn", "if (!fork()) sleep(600); _exit(1);"), "with exit code 1"),
        (&built("print", "puts(\"{}\"); fflush(stdout);"), "cannot be used"),
    ];
    for (library, expected) in cases {
        let doctor = with(library, &["doctor", "--json"]);
        let found: serde_json::Value = serde_json::from_str(&doctor.exits(0).stdout).unwrap();
        let backends = found["backends"].as_array().unwrap();
        let Some(state) = backends.iter().find(|b| b["name"] == "onnxruntime") else {
            return; // built without it
        };
        let why = state["unavailable"].as_str().unwrap();
        assert!(why.contains(expected) && why.contains("hint: "), "{}: {why}", library.display());
        assert!(why.contains(library.file_name().unwrap().to_str().unwrap()), "{why}");
    }
    let both = CASES.replace("[\"onnxruntime\"]", "[\"onnxruntime\", \"native\"]") + "may_be_unavailable = true\n";
    let suite = house.suite("both.toml", &both);
    with(&crash, &["run", suite.to_str().unwrap(), "--check", "--out", "run"]).exits(0);
    let cases = house.cases("run");
    assert_eq!(cases["onnxruntime"].error.as_ref().unwrap().kind, ErrorKind::Unavailable);
    assert!(cases["native"].error.is_none());
    let vectors = root().join("tests/golden/trm-mlp-d64/vectors.safetensors");
    let model = root().join("tests/golden/trm-mlp-d64");
    let (model, vectors) = (model.to_str().unwrap(), vectors.to_str().unwrap());
    let parity = with(&crash, &["parity", "--model", model, "--vectors", vectors, "--backend", "onnxruntime"]);
    assert!(parity.exits(2).stderr.contains("by signal 11 (SIGSEGV)"));
}
