//! How the answers of cases were arrived at, and in what cases differ whose accuracies stand beside each other.
//!
//! In: cases. Out: a fingerprint of each, and [`unlike`] ones in words. Must not: forbid a comparison; who reads it is
//! told what differs.
//!
//! Public comparisons went wrong by each of these: unequal depth, an architecture that changed under one name, last
//! weights against averaged ones, votes of many copies against one answer, two data sets under one name.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::{case::Case, natural};

/// Digits of a hash that are shown.
const DIGITS: usize = 12;

/// Most values of a part that [`unlike`] lists.
const LISTED: usize = 6;

/// Eight hex digits that are the same for answers that were arrived at alike, and the parts that they are of. `None`
/// where a case does not record its protocol.
///
/// ```text
/// 1f0c9a4e: graph 3b1d5c7a9e20, depth halt-16, weights moving average, step 3498 of 3498, data 0fa31c8867be, rows an answer 1, puzzle ids none
/// ```
pub fn fingerprint(case: &Case, decided: bool) -> Option<String> {
    let words = parts(case, decided)?.map(|(name, value)| format!("{name} {value}")).join(", ");
    let digest = Sha256::digest(words.as_bytes());
    let short: String = digest.iter().take(4).map(|b| format!("{b:02x}")).collect();
    Some(format!("{short}: {words}"))
}

/// What accuracy depends on beside the backend, in the order in which it is told.
fn parts(case: &Case, decided: bool) -> Option<[(&'static str, String); 6]> {
    let protocol = case.protocol.as_ref()?;
    let head = |hash: &str| hash.chars().take(DIGITS).collect::<String>();
    Some([
        ("graph", protocol.architecture.as_deref().map_or("unknown".into(), head)),
        // rows that have halted and are kept at work answer as those that are dropped
        ("depth", case.key.depth.replacen("halt-keep-", "halt-", 1)),
        ("weights", protocol.weights.clone().unwrap_or_else(|| "not recorded".into())),
        ("data", head(&case.key.task_hash)),
        ("rows an answer", if decided { protocol.votes } else { 1 }.to_string()),
        ("puzzle ids", protocol.puzzle_ids.clone()),
    ])
}

/// In what these cases differ whose accuracies stand in one table, in words; empty where nothing does. Every model has
/// a graph and weights of its own, so that those are compared within one name alone; whether weights are averaged is
/// compared across names too.
pub fn unlike<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Vec<String> {
    let mut unrecorded = 0;
    let mut all: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut of_model: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for case in cases {
        let Some(parts) = parts(case, true) else {
            unrecorded += 1;
            continue;
        };
        for (name, value) in parts {
            match name {
                "graph" => drop(of_model.entry((&case.key.model, name)).or_default().insert(value)),
                "weights" => {
                    let kind = value.split(',').next().unwrap_or_default().to_owned();
                    all.entry(name).or_default().insert(kind);
                    of_model.entry((&case.key.model, name)).or_default().insert(value);
                }
                name => drop(all.entry(name).or_default().insert(value)),
            }
        }
    }
    let mut told = Vec::new();
    if unrecorded > 0 && !all.is_empty() {
        told.push(format!("protocol (not recorded in {})", ergometer_files::counted(unrecorded, "case")));
    }
    for (name, values) in all.iter().filter(|(_, values)| values.len() > 1) {
        told.push(format!("{name} ({})", listed(values)));
    }
    for ((model, name), values) in of_model.iter().filter(|(_, values)| values.len() > 1) {
        told.push(format!("{name} under the name {model} ({})", listed(values)));
    }
    told
}

/// The values in natural order, the middle ones left out where they are many.
fn listed(values: &BTreeSet<String>) -> String {
    let mut values: Vec<&str> = values.iter().map(String::as_str).collect();
    values.sort_by(|a, b| natural::compare(a, b));
    let n = values.len();
    if n > LISTED {
        values.splice(LISTED / 2..n - LISTED / 2, ["..."]);
    }
    values.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::AccuracyProtocol;

    fn case(model: &str, depth: &str, weights: Option<&str>, architecture: &str, votes: u32) -> Case {
        let protocol = AccuracyProtocol {
            architecture: Some(architecture.into()),
            weights: weights.map(Into::into),
            votes,
            puzzle_ids: "none".into(),
        };
        let key = serde_json::json!({"model": model, "model_hash": "", "family": "recursive", "backend": "native", "backend_options": {},
            "precision": "f32", "threads": 1, "batch": 1, "depth": depth, "isa": "", "shapes": "", "task": "t", "task_hash": "abcdef", "seed": 1,
            "scenario": "single-stream"});
        let case = serde_json::json!({"schema": 2, "id": "00000000", "path": "p", "key": key, "protocol": protocol});
        serde_json::from_value(case).unwrap()
    }

    #[test]
    fn each_part_changes_the_fingerprint() {
        let text = |c: &Case| fingerprint(c, true).unwrap();
        let plain = case("a", "fixed-4", Some("moving average, 9 steps"), "g", 1);
        assert_eq!(text(&plain), text(&plain.clone()));
        assert!(text(&plain).contains(
            ": graph g, depth fixed-4, weights moving average, 9 steps, data abcdef, rows an answer 1, puzzle ids none"
        ));
        let mut others = vec![
            case("a", "fixed-8", Some("moving average, 9 steps"), "g", 1),
            case("a", "fixed-4", Some("last, 9 steps"), "g", 1),
            case("a", "fixed-4", None, "g", 1),
            case("a", "fixed-4", Some("moving average, 9 steps"), "h", 1),
            case("a", "fixed-4", Some("moving average, 9 steps"), "g", 8),
        ];
        let mut data = plain.clone();
        data.key.task_hash = "fedcba".into();
        others.push(data);
        let all: BTreeSet<String> = others.iter().chain([&plain]).map(|c| text(c)[..8].to_owned()).collect();
        assert_eq!(all.len(), others.len() + 1);
        assert_eq!(text(&case("a", "halt-keep-8", None, "g", 1)), text(&case("a", "halt-8", None, "g", 1)));
        let mut old = plain;
        old.protocol = None;
        assert_eq!(fingerprint(&old, true), None);
    }

    #[test]
    fn unlike_parts_are_named_with_their_values() {
        let average = Some("moving average, 9 steps");
        let of = |cases: &[Case]| unlike(cases);
        let a = case("a", "fixed-4", average, "g", 1);
        assert!(
            of(&[a.clone(), case("b", "fixed-4", Some("moving average, 3 steps"), "h", 1)]).is_empty(),
            "other nets, alike"
        );
        assert_eq!(
            of(&[a.clone(), case("b", "fixed-16", average, "h", 1), case("b", "fixed-8", average, "h", 1)]),
            ["depth (fixed-4, fixed-8, fixed-16)"]
        );
        assert_eq!(of(&[a.clone(), case("b", "fixed-4", None, "h", 1)]), ["weights (moving average, not recorded)"]);
        assert_eq!(of(&[a.clone(), case("b", "fixed-4", average, "h", 8)]), ["rows an answer (1, 8)"]);
        assert_eq!(of(&[a.clone(), case("a", "fixed-4", average, "h", 1)]), ["graph under the name a (g, h)"]);
        let many: Vec<Case> = (1..=9).map(|n| case("a", &format!("fixed-{n}"), average, "g", 1)).collect();
        assert_eq!(of(&many), ["depth (fixed-1, fixed-2, fixed-3, ..., fixed-7, fixed-8, fixed-9)"]);
    }
}
