//! Breadth against depth: accuracy of one net at equal operations, spent on more steps of one row or on more rows.
//!
//! In: a report whose tasks ask the same questions with one row each and with several. Out: a table for such tasks. Must
//! not: take tasks for the same questions that are not, or interpolate between operations.

use std::collections::{BTreeMap, BTreeSet};

use super::{BACKEND, PRECISION, Part, SCENARIO, Study, StudyRow, THREADS, dash, namer};
use crate::{
    case::{Case, CaseKey},
    format,
    questions::{of_record, questions, rows_per_question},
    record::Record,
    report::Report,
    shown,
    store::CaseRun,
};

/// Operations that differ by no more than this share stand in one row.
const EQUAL: f64 = 0.05;

/// Fewest different clusters by which two lists of questions are known as the same.
const LEAST_CLUSTERS: usize = 10;

const ABOUT: &str = "The same questions (of the same clusters, as many of each) answered by one row and by several, of which the task decides. A row of this table has cases whose model operations an answer, of all its rows, differ by \
     at most 5 %; each cell is depth rule and accuracy. Where whoever answers can check an answer by the rules of the task, a task may count a question as right when any of its rows is: its note says so, and depth has no such check.";

/// A case with what an answer of it costs.
struct Spent<'a> {
    case: &'a Case,
    /// Rows an answer, and the task that asks for so many.
    breadth: (u64, &'a str),
    operations: f64,
    accuracy: &'a Record,
}

/// A table for each set of questions.
pub(super) fn studies(report: &Report) -> Vec<Study> {
    let mut sets: BTreeMap<Vec<u64>, Vec<Spent>> = BTreeMap::new();
    for run in report.run.cases.iter().filter(|c| report.error(&c.case).is_none()) {
        if let Some((asked, spent)) = spent(report, run) {
            sets.entry(asked).or_default().push(spent);
        }
    }
    sets.into_values().filter_map(study).collect()
}

/// What is asked, and what an answer costs.
fn spent<'a>(report: &'a Report, run: &'a CaseRun) -> Option<(Vec<u64>, Spent<'a>)> {
    let source = report.accuracy_source(&run.case)?;
    let (mut asked, rows): (Vec<u64>, f64) = if source.case.questions > 0 {
        let questions = questions(of_record(&source.attempts));
        (questions.iter().map(|q| q.cluster).collect(), rows_per_question(&questions)?)
    } else {
        (source.predictions.iter().filter(|p| p.last).map(|p| p.cluster).collect(), 1.0)
    };
    asked.sort_unstable();
    let distinct = asked.iter().collect::<BTreeSet<_>>().len();
    // a cluster of several questions does not say which of them was asked
    if distinct < LEAST_CLUSTERS || distinct < asked.len() {
        return None;
    }
    let accuracy = report.record(&run.case, "accuracy").filter(|r| r.value.is_some())?;
    let operations = rows * report.value(&run.case, "flops_model")?;
    let breadth = (rows.round() as u64, run.case.key.task.as_str());
    Some((asked, Spent { case: &run.case, breadth, operations, accuracy }))
}

fn study(all: Vec<Spent>) -> Option<Study> {
    let mut nets: BTreeMap<String, Vec<Spent>> = BTreeMap::new();
    for spent in all {
        let key = &spent.case.key;
        let (depth, task, task_hash) = (String::new(), String::new(), String::new());
        let alike = CaseKey { depth, task, task_hash, seed: 0, ..key.clone() };
        nets.entry(alike.canonical()).or_default().push(spent);
    }
    // of nets that were asked in more than one way
    nets.retain(|_, of| of.iter().map(|s| s.breadth).collect::<BTreeSet<_>>().len() > 1);
    let breadths: Vec<(u64, &str)> =
        nets.values().flatten().map(|s| s.breadth).collect::<BTreeSet<_>>().into_iter().collect();
    let keys: Vec<&CaseKey> = nets.values().flatten().map(|s| &s.case.key).collect();
    let parts: [Part; 4] = [BACKEND, PRECISION, SCENARIO, THREADS];
    let name = namer(&keys, &parts);
    let mut rows = Vec::new();
    for mut of in nets.into_values() {
        of.sort_by(|a, b| a.operations.total_cmp(&b.operations));
        let mut levels: Vec<Vec<Spent>> = Vec::new();
        for spent in of {
            match levels.last_mut() {
                Some(level) if spent.operations <= (1.0 + EQUAL) * level[0].operations => level.push(spent),
                _ => levels.push(vec![spent]),
            }
        }
        rows.extend(levels.iter().map(|level| {
            let cell = |breadth: &(u64, &str)| {
                let of = level.iter().filter(|s| s.breadth == *breadth);
                let shown: Vec<String> =
                    of.map(|s| format!("{}: {}", s.case.key.depth, shown::full(s.accuracy))).collect();
                if shown.is_empty() { dash() } else { shown.join("; ") }
            };
            let operations = format::scaled(level[0].operations, "FLOP");
            let cells = [name(&level[0].case.key), operations].into_iter().chain(breadths.iter().map(cell)).collect();
            StudyRow { tag: String::new(), cells }
        }));
    }
    let title = |(rows, task): &(u64, &str)| match rows {
        1 => format!("one row an answer ({task})"),
        n => format!("{n} rows an answer ({task})"),
    };
    (!rows.is_empty()).then(|| Study {
        title: "Breadth or depth at equal operations".into(),
        about: ABOUT.into(),
        titles: ["model", "operations an answer"]
            .map(String::from)
            .into_iter()
            .chain(breadths.iter().map(title))
            .collect(),
        rows,
    })
}
