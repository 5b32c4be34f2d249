//! Lines: the protocol's, and those of JSONL files of questions; beside them recorded sequences of language models.
//!
//! In: bytes. Out: an [`Outcome`]. Must not: keep anything between two inputs.

use std::fs;
use std::path::Path;

use ergometer::parity::language::LanguageVectors;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Outcome, json_of, lines, read, said};

pub(super) fn messages(_: &Path) -> Vec<Vec<u8>> {
    lines(&[
        json!({"hello": {"protocol": 1, "name": "x", "version": "1.0"}}),
        json!({"loaded": {"seconds": 0.5, "versions": {"python": "3.12"}, "options": {"a": "b"}, "isa": "avx2", "weight_bytes": 4096, "state_bytes": 64}}),
        json!({"ready": {"first_seconds": 0.25}}),
        json!({"sample": {"block": 3, "iteration": 7, "t_ns": 123_456_789_012_u64, "example": 1, "rows": 4, "latency": 0.001_25, "steps": 16}}),
        json!({"sample": {"block": 3, "iteration": 0, "t_ns": 9, "example": 1, "rows": 1, "latency": 0.5, "steps": 2,
            "requests": [{"example": 1, "arrived": 0.0, "begun": 0.125, "tokens": [0.25, 0.5]}]}}),
        json!({"unavailable": {"what": "outputs", "reason": "none", "hint": "do"}}),
        json!({"counted": {"block": 3, "flops_executed": 1.5e9}}),
        json!({"predictions": {"block": 2, "rows": [{"example": 0, "depth": 1, "last": true, "halt_logit": -0.75, "answer": [1, 2, 3]}]}}),
        json!({"predictions": {"block": 2, "rows": [{"example": 0, "depth": 2, "last": true, "answer": {"likelihoods": [-1.5]}, "written": [7, 8]}]}}),
        json!({"routed": {"block": 2, "layers": [{"layer": "l0", "top_k": 2, "load": [3, 4], "probability": [0.25, 0.75]}]}}),
        json!({"outputs": {"step": 1, "logits": [0.5, null, -3.25], "q": [0.125, 1.0], "states": [[0.5], [0.25]]}}),
        json!({"measured": {"block": 3}}),
        json!({"done": {"block": 3}}),
        json!({"failed": {"kind": "out-of-memory", "message": "no room"}}),
    ])
}

pub(super) fn commands(_: &Path) -> Vec<Vec<u8>> {
    lines(&[
        json!({"job": {"protocol": 1, "model": "m", "model_hash": "00ff", "backend": "native", "options": {"k": "v"}, "precision": "f32", "threads": 2,
            "batch": 4, "max_steps": 16, "halt": true, "inputs": [[1, 2], [3, 4]], "puzzle_ids": [0, 1]}}),
        json!({"job": {"protocol": 1, "model": "m", "backend": "native", "precision": "stored", "threads": 2, "batch": 1, "max_steps": 4, "halt": true,
            "inputs": [[1, 2]], "puzzle_ids": [0],
            "language": {"context": 9, "output": [4], "rest": [[[5], [6, 7]]], "end": [2], "ignore_end": true}}}),
        json!({"go": {"block": 2, "mode": "time", "n": 5, "seconds": 1.5, "steps": 0}}),
        json!({"go": {"block": 1, "mode": "compare", "vectors": "v.safetensors"}}),
    ])
}

pub(super) fn line<T: Serialize + DeserializeOwned>(bytes: &[u8], path: &Path) -> Outcome {
    json_of::<T>(bytes, path)
}

pub(super) fn questions(_: &Path) -> Vec<Vec<u8>> {
    let first = "{\"prompt\": \"1 + 1 =\", \"answer\": 2, \"max_tokens\": 3, \"cluster\": \"sums\"}\n";
    let second = "\n{\"prompt\": \"a \\u00e9\", \"answer\": \"b\", \"difficulty\": 4}";
    vec![format!("{first}{second}").into_bytes()]
}

/// As the task `completions` reads it.
pub(super) fn questions_file(_: &[u8], path: &Path) -> Outcome {
    let task = ergometer_suites::task("completions").unwrap();
    let table = toml::Table::from_iter([("file".to_owned(), "questions.jsonl".into())]);
    match (task.examples)(&table, path.parent().unwrap()) {
        Ok(set) => {
            assert!(!set.examples.is_empty() && set.examples.iter().all(|e| e.text.is_some()));
            Outcome::Taken
        }
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

pub(super) fn sequences(_: &Path) -> Vec<Vec<u8>> {
    let small = LanguageVectors { rows: vec![vec![1, 2], vec![3, 0]], logits: vec![0.5; 12] };
    vec![small.write().unwrap(), small.questions().write().unwrap(), read("tests/golden/llama/vectors.safetensors")]
}

pub(super) fn sequences_file(bytes: &[u8], path: &Path) -> Outcome {
    assert_eq!(fs::read(path).unwrap(), bytes);
    match LanguageVectors::read(path) {
        Ok(vectors) => {
            assert_eq!(LanguageVectors::of_bytes(&vectors.write().unwrap()).unwrap().rows, vectors.rows);
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}
