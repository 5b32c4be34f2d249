//! Short names of cases: what tells them apart, and once for all what they share.
//!
//! In: cases. Out: [`Labels`]. Must not: give two cases of one list the same name.

use std::collections::{BTreeMap, BTreeSet};

use crate::case::Case;

/// Names of a list of cases.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// What all have in common, e.g. `sudoku-4x4 · f32 · t2`; empty where nothing is.
    pub common: String,
    short: BTreeMap<String, String>,
}

impl Labels {
    /// Names for these cases.
    pub fn of<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Self {
        let cases: Vec<&Case> = cases.into_iter().collect();
        let parts: Vec<[String; 7]> = cases.iter().map(|case| parts(case)).collect();
        let differs: Vec<bool> = (0..7).map(|i| parts.iter().any(|p| p[i] != parts[0][i])).collect();
        // precision and depth often follow from the model, and are then no part of what tells cases apart
        let mut values: BTreeMap<(&str, usize), BTreeSet<&str>> = BTreeMap::new();
        for (p, i) in parts.iter().flat_map(|p| [PRECISION, DEPTH].map(|i| (p, i))) {
            values.entry((p[MODEL].as_str(), i)).or_default().insert(p[i].as_str());
        }
        let one = |p: &[String; 7], i: usize| values.get(&(p[MODEL].as_str(), i)).is_none_or(|v| v.len() < 2);
        // a precision that some models have alone is still one of several
        let precision_follows = parts.iter().all(|p| one(p, PRECISION));
        let follows = |p: &[String; 7], i: usize| match i {
            PRECISION => precision_follows,
            DEPTH => one(p, DEPTH),
            _ => false,
        };
        let pick = |p: &[String; 7], wanted: bool| {
            let picked = (0..7).filter(|i| differs[*i] == wanted && !(wanted && follows(p, *i)));
            picked.map(|i| p[i].as_str()).collect::<Vec<_>>().join(" · ")
        };
        let common = parts.first().map(|p| pick(p, false)).unwrap_or_default();
        let mut names: Vec<String> = parts.iter().map(|p| pick(p, true)).collect();
        if let ([name], [part]) = (names.as_mut_slice(), parts.as_slice()) {
            name.clone_from(&part[MODEL]);
        }
        // a model whose files changed between two parts of a run: the cases are told apart by when they were written
        for i in 0..cases.len() {
            let alike = |k: &usize| parts[*k] == parts[i];
            let models: BTreeSet<&str> =
                (0..cases.len()).filter(alike).map(|k| cases[k].key.model_hash.as_str()).collect();
            if let (true, Some(modified)) = (models.len() > 1, &cases[i].model_modified) {
                names[i] = format!("{} (model of {modified})", names[i]);
            }
        }
        // options that the path leaves out may be all that differs
        let mut seen = BTreeSet::new();
        let twice: BTreeSet<String> = names.iter().filter(|n| !seen.insert(*n)).cloned().collect();
        let short = cases
            .iter()
            .zip(names)
            .map(|(case, name)| {
                let name = if twice.contains(&name) {
                    let tag: String = case.id.chars().take(8).collect();
                    format!("{name} #{tag}")
                } else {
                    name
                };
                (case.id.clone(), name)
            })
            .collect();
        Self { common, short }
    }

    /// The same without backend, scenario and threads, on which neither right answers nor operations depend; several
    /// cases may then share a name.
    pub fn of_models<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Self {
        let mut cases: Vec<Case> = cases.into_iter().cloned().collect();
        for case in &mut cases {
            (case.key.backend, case.key.scenario) = (String::new(), String::new());
            (case.key.batch, case.key.threads) = (1, 1);
        }
        let mut labels = Self::of(&cases);
        for name in labels.short.values_mut() {
            if let Some((model, _)) = name.split_once(" #") {
                *name = model.to_owned();
            }
            if name.is_empty() {
                name.clone_from(&cases[0].key.model);
            }
        }
        labels
    }

    /// The short name of a case, by id.
    pub fn short(&self, id: &str) -> &str {
        self.short.get(id).map_or("", String::as_str)
    }
}

const MODEL: usize = 1;
const PRECISION: usize = 3;
const DEPTH: usize = 6;

/// Task, model, backend, precision, scenario, threads, depth.
fn parts(case: &Case) -> [String; 7] {
    let key = &case.key;
    let scenario = match (key.scenario.as_str(), key.batch) {
        ("single-stream", 1) => "single".into(),
        ("offline", batch) => format!("batch {batch}"),
        (scenario, _) => scenario.to_owned(),
    };
    let threads = format!("t{}", key.threads);
    let [task, model, backend, precision, depth] =
        [&key.task, &key.model, &key.backend, &key.precision, &key.depth].map(String::clone);
    [task, model, backend, precision, scenario, threads, depth]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{CaseKey, SCHEMA};

    fn case(model: &str, backend: &str, precision: &str, threads: u32, depth: &str) -> Case {
        let key = serde_json::json!({"model": model, "model_hash": "", "family": "f", "backend": backend, "backend_options": {},
            "precision": precision, "threads": threads, "batch": 1, "depth": depth, "isa": "", "shapes": "", "task": "t", "task_hash": "",
            "seed": 1, "scenario": "single-stream"});
        let key: CaseKey = serde_json::from_value(key).unwrap();
        let id = [model, backend, precision, depth].join("/") + &threads.to_string();
        let case = serde_json::json!({"schema": SCHEMA, "id": id, "path": key.path(), "key": key});
        serde_json::from_value(case).unwrap()
    }

    fn names(labels: &Labels, cases: &[Case]) -> Vec<String> {
        cases.iter().map(|c| labels.short(&c.id).to_owned()).collect()
    }

    #[test]
    fn a_label_has_what_tells_a_case_apart_and_no_more() {
        let cases = [
            case("dense", "native", "f32", 1, "once"),
            case("dense", "tract", "f32", 1, "once"),
            case("trm", "native", "f32", 1, "halt-16"),
            case("trm", "native", "f32", 2, "fixed-16"),
        ];
        let labels = Labels::of(&cases);
        // a one-shot model has no other depth; the threads of cases that are timed matter
        let want = [
            "dense · native · t1",
            "dense · tract · t1",
            "trm · native · t1 · halt-16",
            "trm · native · t2 · fixed-16",
        ];
        assert_eq!(names(&labels, &cases), want);
        assert_eq!(labels.common, "t · f32 · single");
        // where answers are meant, neither backends nor threads do
        assert_eq!(names(&Labels::of_models(&cases), &cases), ["dense", "dense", "trm · halt-16", "trm · fixed-16"]);
        let cases =
            [case("a", "x", "f32", 1, "once"), case("b", "x", "f32", 1, "once"), case("b", "x", "int8", 1, "once")];
        assert_eq!(names(&Labels::of(&cases), &cases), ["a · f32", "b · f32", "b · int8"]);
        let cases = [case("a", "x", "f32", 1, "once"), case("b", "x", "int8", 1, "halt-2")];
        assert_eq!(names(&Labels::of(&cases), &cases), ["a", "b"]);
    }
}
