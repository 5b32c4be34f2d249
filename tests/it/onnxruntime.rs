//! The onnxruntime backend where its library is not to be had: every command goes on and says what to do.
//!
//! In: a suite with a case of the backend, and no library. Out: exit codes, messages, records. Must not: download anything.

use ergometer_reports::case::ErrorKind;

use crate::house::{House, ended};

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
