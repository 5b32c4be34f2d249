//! What it costs to decide when to stop: all steps, halting with the halted rows kept at work, halting with them
//! dropped.
//!
//! In: the good cases of one task. Out: a table for cases of one interleaved group that differ in their depth rule alone.
//! Must not: set times beside each other that were not measured in turns.

use std::collections::{BTreeMap, BTreeSet};

use super::{BACKEND, DEPTH, PRECISION, Part, SCENARIO, Study, StudyRow, THREADS, dash, namer, tag};
use crate::{
    case::{Case, CaseKey},
    compare::speedup::interleaved_groups,
    report::Report,
    shown,
    store::CaseRun,
};

const ABOUT: &str = "Depth rules of one net that took turns in one interleaved group. fixed-N: every row takes N steps. halt-keep-N: a row's answer stands when the halting head says so, and the row stays in the \
     batch until the last one has halted, as in code that masks. halt-N: a halted row leaves the batch at once; its answers are the same. Operations needed are those of the steps that rows used, operations executed what \
     the backend did. In batches of one row the last two are the same work.";

const METRICS: [(&str, &str); 7] = [
    ("accuracy", "accuracy"),
    ("steps_used", "steps an example"),
    ("flops_model", "operations needed"),
    ("flops_executed", "operations executed"),
    ("latency", "median latency"),
    ("throughput", "throughput"),
    ("speedup", "speed-up over the base"),
];

/// The table of a task.
pub(super) fn study(report: &Report, task: &str, cases: &[&CaseRun]) -> Option<Study> {
    let mut groups: Vec<Vec<&Case>> = Vec::new();
    for interleaved in interleaved_groups(cases) {
        let mut alike: BTreeMap<String, Vec<&Case>> = BTreeMap::new();
        for case in interleaved.iter().map(|c| &c.case) {
            let key = CaseKey { depth: String::new(), ..case.key.clone() };
            alike.entry(key.canonical()).or_default().push(case);
        }
        let rules = |cases: &Vec<&Case>| cases.iter().map(|c| rank(&c.key.depth).0).collect::<BTreeSet<_>>().len();
        groups.extend(alike.into_values().filter(|cases| rules(cases) > 1));
    }
    let keys: Vec<&CaseKey> = groups.iter().flatten().map(|c| &c.key).collect();
    let parts: [Part; 4] = [BACKEND, PRECISION, SCENARIO, THREADS];
    let name = namer(&keys, &parts);
    let mut rows = Vec::new();
    for mut cases in groups {
        cases.sort_by_key(|c| rank(&c.key.depth));
        rows.extend(cases.into_iter().map(|case| {
            let numbers = METRICS.iter().map(|(metric, _)| report.record(case, metric).map_or_else(dash, shown::full));
            StudyRow {
                tag: tag(&case.id),
                cells: [name(&case.key), DEPTH(&case.key)].into_iter().chain(numbers).collect(),
            }
        }));
    }
    (!rows.is_empty()).then(|| Study {
        title: format!("What halting saves: {task}"),
        about: ABOUT.into(),
        titles: ["case", "depth"].into_iter().chain(METRICS.iter().map(|m| m.1)).map(String::from).collect(),
        rows,
    })
}

/// Which kind of depth rule, and its number.
fn rank(depth: &str) -> (u8, u64) {
    let (kind, number) = depth.rsplit_once('-').unwrap_or((depth, "1"));
    let kind = match kind {
        "fixed" | "once" => 0,
        "halt-keep" => 1,
        _ => 2,
    };
    (kind, number.parse().unwrap_or(u64::MAX))
}
