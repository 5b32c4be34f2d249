//! Whether the size of the batch changes answers: accuracy at each batch that was timed, and how many answers are not
//! those of the smallest one.
//!
//! In: the good cases of one task. Out: a table, where one net, engine, precision, depth and number of threads was
//! scored at two batches. Must not: call answers alike that were not given at that batch.

use std::collections::BTreeMap;

use super::{BACKEND, DEPTH, PRECISION, Part, Study, StudyRow, THREADS, dash, namer, tag};
use crate::{
    case::{CaseKey, Prediction},
    report::Report,
    shown,
    store::CaseRun,
};

const ABOUT: &str = "Each batch was scored by itself on the same examples. Compared are the answers of record as they were given, bit by bit, and the steps they took, with those of the \
     smallest batch (the base); numbers behind equal answers may differ in their last bits. +a −b: a answers are right here alone, b at the base alone.";

/// Answers of record by example.
type Answers<'a> = BTreeMap<u64, &'a Prediction>;

/// A case at one batch.
struct AtBatch<'a> {
    run: &'a CaseRun,
    /// None where its accuracy is that of a case of another batch.
    answers: Option<Answers<'a>>,
}

/// The table of a task.
pub(super) fn study(report: &Report, task: &str, cases: &[&CaseRun]) -> Option<Study> {
    // by all that must be alike, then by batch
    let mut groups: BTreeMap<String, BTreeMap<u32, AtBatch>> = BTreeMap::new();
    for run in cases.iter().copied().filter(|c| c.case.key.scenario_kind() == "offline") {
        let key = &run.case.key;
        let alike = CaseKey { batch: 0, scenario: String::new(), shapes: String::new(), ..key.clone() };
        let source = report.accuracy_source(&run.case);
        let own = source.filter(|s| s.case.key.batch == key.batch).map(of_record);
        let at = AtBatch { run, answers: own };
        let group = groups.entry(alike.canonical()).or_default();
        // of several cases of one batch the first that was scored
        let known = group.get(&key.batch).is_some_and(|known| known.answers.is_some());
        if !known {
            group.insert(key.batch, at);
        }
    }
    groups.retain(|_, of| of.values().filter(|at| at.answers.is_some()).count() > 1);
    let keys: Vec<&CaseKey> = groups.values().flatten().map(|(_, at)| &at.run.case.key).collect();
    let parts: [Part; 4] = [BACKEND, PRECISION, DEPTH, THREADS];
    let name = namer(&keys, &parts);
    let rows: Vec<StudyRow> = groups.values().flat_map(|group| rows(report, group, &name)).collect();
    (!rows.is_empty()).then(|| Study {
        title: format!("Does the batch change answers: {task}"),
        about: ABOUT.into(),
        titles: ["case", "batch", "accuracy", "answers that differ", "steps that differ", "right"]
            .map(Into::into)
            .into(),
        rows,
    })
}

fn of_record(source: &CaseRun) -> Answers<'_> {
    source.predictions.iter().filter(|p| p.last).map(|p| (p.example, p)).collect()
}

fn rows(report: &Report, group: &BTreeMap<u32, AtBatch>, name: &impl Fn(&CaseKey) -> String) -> Vec<StudyRow> {
    let base = group.values().find_map(|at| Some((at.run.case.key.batch, at.answers.as_ref()?)));
    let row = |at: &AtBatch| {
        let case = &at.run.case;
        let [answers, steps, right] = match (&at.answers, &base) {
            (None, _) => ["not scored at this batch".into(), dash(), dash()],
            (Some(_), Some((batch, _))) if *batch == case.key.batch => {
                ["base of the comparison".into(), dash(), dash()]
            }
            (Some(own), Some((_, base))) => compared(own, base),
            (Some(_), None) => [dash(), dash(), dash()],
        };
        let accuracy = report.record(case, "accuracy").filter(|_| at.answers.is_some());
        let accuracy = accuracy.map_or_else(dash, |r| format!("{}, n = {}", shown::full(r), r.n));
        let cells = vec![name(&case.key), case.key.batch.to_string(), accuracy, answers, steps, right];
        StudyRow { tag: tag(&case.id), cells }
    };
    group.values().map(row).collect()
}

/// Answers and steps that differ, and in which answers one is right and the other is not.
fn compared(own: &Answers, base: &Answers) -> [String; 3] {
    let pairs: Vec<(&Prediction, &Prediction)> =
        own.iter().filter_map(|(example, p)| Some((*p, *base.get(example)?))).collect();
    let count = |differs: fn(&Prediction, &Prediction) -> bool| pairs.iter().filter(|(a, b)| differs(a, b)).count();
    let n = pairs.len();
    let shown = |differ: usize, none: &str| match differ {
        0 => format!("none of {n}{none}"),
        some => format!("{some} of {n}"),
    };
    let answers = shown(count(|a, b| a.answer != b.answer), ": bit-equal");
    let steps = shown(count(|a, b| a.depth != b.depth), "");
    let (gained, lost) = (count(|a, b| a.exact && !b.exact), count(|a, b| !a.exact && b.exact));
    [answers, steps, format!("+{gained} −{lost}")]
}
