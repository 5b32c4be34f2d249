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
        let follows = |i: usize| {
            let models: BTreeSet<(&str, &str)> = parts.iter().map(|p| (p[1].as_str(), p[i].as_str())).collect();
            let names: BTreeSet<&str> = models.iter().map(|m| m.0).collect();
            models.len() == names.len()
        };
        let follows: Vec<bool> = (0..7).map(|i| differs[i] && (i == PRECISION || i == DEPTH) && follows(i)).collect();
        let pick = |parts: &[String; 7], wanted: bool| {
            let picked = (0..7).filter(|i| differs[*i] == wanted && !follows[*i]).map(|i| parts[i].as_str());
            picked.collect::<Vec<_>>().join(" · ")
        };
        let common = parts.first().map(|p| pick(p, false)).unwrap_or_default();
        let mut names: Vec<String> = parts.iter().map(|p| pick(p, true)).collect();
        if let ([name], [part]) = (names.as_mut_slice(), parts.as_slice()) {
            name.clone_from(&part[1]);
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

    /// The same without backend and scenario, which a plot shows by shape; several cases may then share a name.
    pub fn of_models<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Self {
        let mut cases: Vec<Case> = cases.into_iter().cloned().collect();
        for case in &mut cases {
            (case.key.backend, case.key.scenario, case.key.batch) = (String::new(), String::new(), 1);
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

const PRECISION: usize = 3;
const DEPTH: usize = 6;

/// Task, model, backend, precision, scenario, threads, depth.
fn parts(case: &Case) -> [String; 7] {
    let key = &case.key;
    let scenario = match (key.scenario.as_str(), key.batch) {
        ("single-stream", 1) => "single".into(),
        ("offline", batch) => format!("batch {batch}"),
        (scenario, 1) => scenario.to_owned(),
        (scenario, batch) => format!("{scenario} b{batch}"),
    };
    let threads = format!("t{}", key.threads);
    let [task, model, backend, precision, depth] =
        [&key.task, &key.model, &key.backend, &key.precision, &key.depth].map(String::clone);
    [task, model, backend, precision, scenario, threads, depth]
}
