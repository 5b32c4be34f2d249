//! The line of what a suite wants its cases to keep to: which do, and by how much the others miss.
//!
//! In: a [`Report`]. Out: a [`Line`], where any case has a limit. Must not: say that a case keeps to what was not
//! measured.

use super::{Item, Line, MOST, Severity, good};
use crate::{case::Case, format, report::Report, shown};

/// See the module.
pub(super) fn kept(report: &Report) -> Option<Line> {
    let (mut missed, mut unknown, mut kept) = (Vec::new(), Vec::new(), 0);
    for case in good(report).filter(|case| !case.constraints.is_empty()) {
        let told = told(report, case);
        // bounds of goodput are nothing that a case misses
        if told.is_empty() {
            continue;
        }
        let words =
            |of: fn(&Told) -> Option<&String>| told.iter().filter_map(of).cloned().collect::<Vec<_>>().join(", ");
        let (misses, gaps) = (words(Told::miss), words(Told::gap));
        if !misses.is_empty() {
            missed.push(Item::of(case, format!("{} misses {misses}", case.path)));
        } else if !gaps.is_empty() {
            unknown.push(Item::of(case, format!("{}: {gaps}", case.path)));
        } else {
            kept += 1;
        }
    }
    let state = match (missed.is_empty(), unknown.is_empty(), kept) {
        (true, true, 0) => return None,
        (true, true, _) => Severity::Good,
        (true, false, _) => Severity::Plain,
        (false, ..) => Severity::Warning,
    };
    let all = missed.len() + unknown.len();
    let mut items: Vec<Item> = missed.into_iter().chain(unknown).take(MOST).collect();
    if all > items.len() {
        items.push(Item::plain(format!("and {} more", all - items.len())));
    }
    if kept > 0 {
        items.push(Item::plain(format!("{kept} case{} within", if kept == 1 { "" } else { "s" })));
    }
    Some(Line::new("limits", state, items))
}

/// What is to be said of one limit.
enum Told {
    Kept,
    Misses(String),
    Unknown(String),
}

impl Told {
    fn miss(&self) -> Option<&String> {
        if let Self::Misses(text) = self { Some(text) } else { None }
    }

    fn gap(&self) -> Option<&String> {
        if let Self::Unknown(text) = self { Some(text) } else { None }
    }
}

fn told(report: &Report, case: &Case) -> Vec<Told> {
    let limits = &case.constraints;
    let mut found = Vec::new();
    let mut add = |limit: Option<f64>, unit: &str, metric: &str, most: f64, say: &dyn Fn(&str, &str) -> String| {
        let Some(limit) = limit else { return };
        let limit = format::scaled(limit, unit);
        let Some(record) = report.record(case, metric) else { return };
        found.push(match record.value {
            Some(value) if value > most => Told::Misses(say(&limit, &shown::full(record))),
            Some(_) => Told::Kept,
            None => Told::Unknown(format!("whether it keeps to {limit} is not known")),
        });
    };
    let longest = report.value(case, "deadline_overrun").map(format::number).unwrap_or_default();
    add(limits.deadline, "s", "deadline_missed", 0.0, &|limit, share| {
        format!("{limit} in {share} of iterations, the longest took {longest} times that")
    });
    add(limits.memory_limit, "B", "memory_over_limit", 1.0, &|limit, ratio| {
        format!("{limit} of memory, it needs {ratio} times that")
    });
    add(limits.max_energy, "J", "energy_over_max", 1.0, &|limit, ratio| {
        format!("{limit} an answer, it uses {ratio} times that")
    });
    found
}
