//! Steps and accuracy by how hard an example is: whether a net that stops by itself spends its steps where they are
//! needed.
//!
//! In: the good cases of one task, scored with the difficulty of each example. Out: bands of difficulty with estimates,
//! and a table of them. Must not: compare difficulties of different tasks, whose units differ.

use std::collections::{BTreeMap, BTreeSet};

use super::{DEPTH, PRECISION, Part, Study, StudyRow, dash, namer, percent, tag};
use crate::{
    answers::share_right,
    case::{CaseKey, Prediction},
    format,
    metric::Right,
    report::Report,
    stats::Estimate,
    store::CaseRun,
    summarise::steps::depth_of_answers,
};

/// Most bands; so many difficulties, or fewer, have one each.
const BANDS: usize = 5;

const ABOUT: &str = "Share of examples right (of rows, where several decide a question), and of cases that stop by themselves the mean number of supervision steps, by difficulty in the task's own unit \
     (Sudoku: guesses of a backtracking search, proof of uniqueness included; mazes: steps of the shortest path; ARC: cells that change). Bands are those of the examples, about as many in each; examples of one difficulty are in one band.";

/// What is known of a case within a band of difficulty.
#[derive(Clone, Debug)]
pub struct Banded {
    /// Lowest and highest difficulty of the band.
    pub ends: (u32, u32),
    /// Examples.
    pub n: usize,
    /// Share that is right.
    pub accuracy: Option<Estimate>,
    /// Mean supervision steps of the answers of record; none for a case whose depth is fixed.
    pub steps: Option<Estimate>,
}

/// The cases of a task that were scored with difficulties, one of each model, precision and way of stopping, each with its
/// bands: the same for all of them. Empty where there are fewer than two bands.
pub fn banded<'a>(report: &Report, cases: &[&'a CaseRun]) -> Vec<(&'a CaseRun, Vec<Banded>)> {
    let mut seen = BTreeSet::new();
    let scored: Vec<&CaseRun> = (cases.iter().copied())
        .filter(|c| report.accuracy_source(&c.case).is_some_and(|source| source.case.id == c.case.id))
        // what is neither right nor wrong has no accuracy
        .filter(|c| c.case.unscored.is_none() && of_record(c).next().is_some())
        // engines that agree give the same answers, and so do rows that have halted and are kept at work
        .filter(|c| {
            let key = &c.case.key;
            let rule = key.depth.replacen("halt-keep-", "halt-", 1);
            seen.insert((&key.model, &key.model_hash, &key.precision, rule))
        })
        .collect();
    let mut difficulties: BTreeMap<u64, u32> = BTreeMap::new();
    for case in &scored {
        difficulties.extend(of_record(case).map(|(difficulty, p)| (p.example, difficulty)));
    }
    let bands = bands(difficulties.into_values().collect());
    if bands.len() < 2 {
        return Vec::new();
    }
    scored.into_iter().map(|case| (case, bands.iter().map(|ends| of_band(case, *ends)).collect())).collect()
}

/// Answers of record whose difficulty is known.
fn of_record(case: &CaseRun) -> impl Iterator<Item = (u32, &Prediction)> {
    case.predictions.iter().filter(|p| p.last).filter_map(|p| Some((p.difficulty?, p)))
}

/// Lowest and highest difficulty of each band.
fn bands(mut difficulties: Vec<u32>) -> Vec<(u32, u32)> {
    difficulties.sort_unstable();
    let mut counts: Vec<(u32, usize)> = Vec::new();
    for difficulty in difficulties {
        match counts.last_mut() {
            Some((known, n)) if *known == difficulty => *n += 1,
            _ => counts.push((difficulty, 1)),
        }
    }
    if counts.len() <= BANDS {
        return counts.into_iter().map(|(difficulty, _)| (difficulty, difficulty)).collect();
    }
    let mut bands = Vec::new();
    let mut left: usize = counts.iter().map(|c| c.1).sum();
    let (mut from, mut held) = (None, 0);
    for (i, (difficulty, n)) in counts.iter().enumerate() {
        let first = *from.get_or_insert(*difficulty);
        held += n;
        // what is not in a band yet is shared by the bands to come
        let due = left.div_ceil(BANDS - bands.len());
        if (held >= due && bands.len() + 1 < BANDS) || i + 1 == counts.len() {
            bands.push((first, *difficulty));
            left -= held;
            (from, held) = (None, 0);
        }
    }
    bands
}

fn of_band(case: &CaseRun, ends: (u32, u32)) -> Banded {
    let within: Vec<&Prediction> =
        of_record(case).filter(|(d, _)| (ends.0..=ends.1).contains(d)).map(|(_, p)| p).collect();
    let halts = case.case.key.depth.starts_with("halt-");
    let steps = depth_of_answers(within.iter().copied(), &case.case.key.depth).filter(|_| halts);
    Banded { ends, n: within.len(), accuracy: share_right(&within, Right::Rows), steps }
}

/// `0`, `3–17`.
pub fn ends(band: (u32, u32)) -> String {
    if band.0 == band.1 { band.0.to_string() } else { format!("{}–{}", band.0, band.1) }
}

/// The table of a task.
pub(super) fn study(report: &Report, task: &str, cases: &[&CaseRun]) -> Option<Study> {
    let all = banded(report, cases);
    let (_, first) = all.first()?;
    let bands = first.iter().map(|b| format!("difficulty {} (n = {})", ends(b.ends), b.n));
    let keys: Vec<&CaseKey> = all.iter().map(|(c, _)| &c.case.key).collect();
    let parts: [Part; 1] = [PRECISION];
    let name = namer(&keys, &parts);
    let row = |(run, bands): &(&CaseRun, Vec<Banded>)| {
        let key = &run.case.key;
        let cells = [name(key), DEPTH(key)].into_iter().chain(bands.iter().map(cell)).collect();
        StudyRow { tag: tag(&run.case.id), cells }
    };
    Some(Study {
        title: format!("By difficulty: {task}"),
        about: ABOUT.into(),
        titles: ["model", "depth"].map(String::from).into_iter().chain(bands).collect(),
        rows: all.iter().map(row).collect(),
    })
}

fn cell(band: &Banded) -> String {
    let Some(accuracy) = &band.accuracy else { return dash() };
    let steps = band.steps.as_ref().map(|s| {
        let interval = s.interval.as_ref().map(|(l, u)| format!(" ({}–{})", format::number(*l), format::number(*u)));
        format!(", {} steps{}", format::number(s.value), interval.unwrap_or_default())
    });
    percent(accuracy) + &steps.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_hold_about_as_many_examples_and_ties_stay_together() {
        assert_eq!(bands(vec![3, 1, 1, 2]), [(1, 1), (2, 2), (3, 3)]);
        assert_eq!(bands(Vec::new()), []);
        assert_eq!(bands((0..100).collect()), [(0, 19), (20, 39), (40, 59), (60, 79), (80, 99)]);
        // half of all need no guess
        let skewed: Vec<u32> = (0..100).map(|i| if i < 50 { 0 } else { i }).collect();
        let found = bands(skewed.clone());
        assert_eq!((found.len(), found[0], found.last().unwrap().1), (5, (0, 0), 99), "{found:?}");
        let n = |b: &(u32, u32)| skewed.iter().filter(|d| (b.0..=b.1).contains(*d)).count();
        assert_eq!(found.iter().map(n).collect::<Vec<_>>(), [50, 13, 13, 12, 12]);
        assert_eq!((ends((0, 0)), ends((3, 9))), ("0".into(), "3–9".into()));
    }
}
