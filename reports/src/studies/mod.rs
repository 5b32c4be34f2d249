//! Tables that answer one question each across the cases of a run: does the batch change answers, how depth follows
//! difficulty, what halting saves, whether breadth or depth is the better use of operations.
//!
//! In: a [`Report`]. Out: [`Study`]s as text, each only where the run has what it is about. Must not: know a file
//! format, or set beside each other what was not measured alike without saying so.

mod batches;
mod breadth;
pub mod difficulty;
mod stopping;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{case::CaseKey, format, report::Report, stats::Estimate};

/// Most rows of one table.
const MOST_ROWS: usize = 120;

/// One table.
#[derive(Clone, Debug, Serialize)]
pub struct Study {
    /// What it is about, and of which task.
    pub title: String,
    /// How to read it; empty where a table before it said so.
    pub about: String,
    /// Titles of its columns; the first two are words, the others numbers.
    pub titles: Vec<String>,
    /// Its rows.
    pub rows: Vec<StudyRow>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StudyRow {
    /// First 8 digits of the id of the case that it is of; empty where it is of several.
    pub tag: String,
    /// A text for each title.
    pub cells: Vec<String>,
}

/// All tables that this run has something for.
pub fn studies(report: &Report) -> Vec<Study> {
    let mut all = Vec::new();
    for (task, cases) in report.tasks() {
        let cases: Vec<_> = cases.into_iter().filter(|c| report.error(&c.case).is_none()).collect();
        all.extend(stopping::study(report, task, &cases));
        all.extend(difficulty::study(report, task, &cases));
        all.extend(batches::study(report, task, &cases));
    }
    all.extend(breadth::studies(report));
    let mut said = BTreeSet::new();
    for study in &mut all {
        // how to read them is said above the first of a kind
        if !said.insert(study.about.clone()) {
            study.about.clear();
        }
        let left = study.rows.len().saturating_sub(MOST_ROWS);
        if left > 0 {
            study.rows.truncate(MOST_ROWS);
            study.about += &format!(" Of this table {} more are left out here.", ergometer_files::counted(left, "row"));
        }
    }
    all
}

/// First 8 digits of an id.
fn tag(id: &str) -> String {
    id.chars().take(8).collect()
}

/// What there is no number for.
fn dash() -> String {
    "–".into()
}

/// A share in per cent with its interval.
fn percent(estimate: &Estimate) -> String {
    let shown = format::join(&format!("{:.1}", 100.0 * estimate.value), "%");
    match &estimate.interval {
        Ok((lower, upper)) => format!("{shown} ({:.1}–{:.1})", 100.0 * lower, 100.0 * upper),
        Err(_) => shown,
    }
}

/// A parameter of a case as text.
type Part = fn(&CaseKey) -> String;

/// Names of cases: the model, and those of these parts in which the cases differ.
fn namer(keys: &[&CaseKey], parts: &[Part]) -> impl Fn(&CaseKey) -> String + use<> {
    let differs = |part: &Part| keys.iter().any(|k| part(k) != part(keys[0]));
    let parts: Vec<Part> = parts.iter().copied().filter(differs).collect();
    move |key| {
        std::iter::once(key.model.clone()).chain(parts.iter().map(|part| part(key))).collect::<Vec<_>>().join(" · ")
    }
}

const BACKEND: Part = |k| k.backend.clone();
const PRECISION: Part = |k| k.precision.clone();
const THREADS: Part = |k| format!("t{}", k.threads);
const DEPTH: Part = |k| k.depth.clone();
const SCENARIO: Part = |k| match k.scenario.as_str() {
    "offline" => format!("batch {}", k.batch),
    scenario => scenario.to_owned(),
};
