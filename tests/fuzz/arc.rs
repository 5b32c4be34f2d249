//! ARC tasks in their layouts: good ones to begin from, and what is read of them.
//!
//! In: the file that bytes lie in. Out: an [`Outcome`]. Must not: keep anything between two inputs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Outcome, said};

fn arc_task() -> Value {
    let pair = json!({"input": [[0, 1, 2], [3, 4, 5]], "output": [[9, 8], [7, 6], [5, 0]]});
    json!({"train": [pair, pair], "test": [pair]})
}

pub(super) fn arc_files(_: &Path) -> Vec<Vec<u8>> {
    let halves = json!({"train": {"a1": arc_task()}, "eval": {"b2": arc_task(), "c3": arc_task()}});
    [arc_task(), halves, json!({"one": arc_task(), "two": arc_task()})].map(|v| v.to_string().into_bytes()).into()
}

pub(super) fn challenges(_: &Path) -> Vec<Vec<u8>> {
    let mut task = arc_task();
    task["test"] = json!([{"input": [[1, 2]]}]);
    vec![json!({"t1": task, "t2": task}).to_string().into_bytes()]
}

pub(super) fn solutions(_: &Path) -> Vec<Vec<u8>> {
    vec![json!({"t1": [[[1, 2]]], "t2": [[[3]]]}).to_string().into_bytes()]
}

pub(super) fn arc_file(_: &[u8], path: &Path) -> Outcome {
    if path.ends_with("x_challenges.json") {
        fs::write(path.with_file_name("x_solutions.json"), &solutions(path)[0]).unwrap();
    }
    match ergometer_suites::arc::json::read(path) {
        Ok(found) => {
            assert!(!found.tasks.is_empty());
            for (_, task) in &found.tasks {
                assert!(!task.tests.is_empty() && !task.demonstrations.is_empty());
                assert!(task.grids().all(|g| (1..=30).contains(&g.height()) && (1..=30).contains(&g.width())));
            }
            Outcome::Taken
        }
        // a fault of both of Kaggle's files may be told of either
        Err(error) => match said(error) {
            Outcome::Refused(text) if text.contains("x_solutions.json") => {
                Outcome::Refused(text + " (x_challenges.json)")
            }
            other => other,
        },
    }
}

pub(super) fn arc_solutions(_: &[u8], path: &Path) -> Outcome {
    let beside = path.with_file_name("x_challenges.json");
    fs::write(&beside, &challenges(path)[0]).unwrap();
    match ergometer_suites::arc::json::read(&beside) {
        Ok(_) => Outcome::Taken,
        // a fault of both files may be told of either
        Err(error) => Outcome::Refused(format!("{error} (x_solutions.json)")),
    }
}
