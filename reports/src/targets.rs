//! What an accuracy costs: for each model of a task that was run at several depths, the cheapest case that reaches a target.
//!
//! In: the good cases of one task. Out: a [`TargetTable`]. Must not: interpolate between depths, or call a target reached by an interval's
//! upper end.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    case::Case,
    format,
    metric::{METRICS, Metric, domain},
    questions::{of_record, questions, rows_per_question},
    record::Record,
    report::Report,
    shown,
};

/// Accuracies that are asked for.
pub const TARGETS: [f64; 3] = [0.87, 0.95, 0.99];

/// What the table shows, for people.
pub const ABOUT: &str = "The depth of each model with the fewest operations an answer (the least time, where these are unknown) whose accuracy is at least the target; `~`: the interval of that \
     accuracy reaches below it. Operations, time and energy are those of one answer; where rows vote, of all of them.";

/// Titles of the columns after the target: what [`TargetRow::cells`] gives.
pub const TITLES: [&str; 6] = ["model", "depth", "accuracy", "operations", "time", "energy"];

/// What reaching the [`TARGETS`] costs on one task.
#[derive(Clone, Debug, Serialize)]
pub struct TargetTable {
    /// Name of the task.
    pub task: String,
    /// By target, then by operations.
    pub rows: Vec<TargetRow>,
}

/// The cheapest case of a model that reaches a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetRow {
    /// `87 %`.
    pub target: String,
    /// Model, and what tells its cases from those of the same model in another backend or precision.
    pub model: String,
    /// Depth of the cheapest case that reaches the target, or how near the model came.
    pub depth: String,
    /// First 8 digits of the id of that case; empty where none reaches it.
    pub tag: String,
    /// Its accuracy with interval.
    pub accuracy: String,
    /// Model operations an answer.
    pub operations: String,
    /// Time an answer: one over throughput.
    pub time: String,
    /// Energy an answer, each domain apart; `–` where nothing metered it.
    pub energy: String,
}

impl TargetRow {
    /// Its cells after the target.
    pub fn cells(&self) -> [&str; 6] {
        [&self.model, &self.depth, &self.accuracy, &self.operations, &self.time, &self.energy]
    }
}

/// Who is compared across depths.
type Group<'a> = (&'a str, &'a str, &'a str, u32, u32, &'a str);

/// A table for each task on which some model was run at several depths.
pub fn targets(report: &Report) -> Vec<TargetTable> {
    let of_task = |(task, cases): (&str, Vec<&crate::store::CaseRun>)| {
        let mut groups: BTreeMap<Group, Vec<Point>> = BTreeMap::new();
        for case in cases.iter().map(|c| &c.case).filter(|c| report.error(c).is_none()) {
            let key = &case.key;
            let group = (&*key.model, &*key.precision, &*key.backend, key.threads, key.batch, key.scenario_kind());
            groups.entry(group).or_default().extend(Point::of(report, case));
        }
        let several = |points: &Vec<Point>| points.iter().map(|p| &p.case.key.depth).collect::<BTreeSet<_>>().len() > 1;
        let name = namer(groups.keys().copied());
        groups.values().any(several).then(|| {
            let mut rows = Vec::new();
            for target in TARGETS {
                let mut of_target: Vec<(f64, TargetRow)> =
                    groups.iter().filter_map(|(group, points)| row(report, target, name(group), points)).collect();
                of_target.sort_by(|a, b| a.0.total_cmp(&b.0));
                rows.extend(of_target.into_iter().map(|(_, row)| row));
            }
            TargetTable { task: task.into(), rows }
        })
    };
    report.tasks().into_iter().filter_map(of_task).collect()
}

/// A case with what decides whether it is the cheapest.
struct Point<'a> {
    case: &'a Case,
    accuracy: &'a Record,
    share: f64,
    /// Rows of a question.
    rows: f64,
    /// Operations a question; infinite where they are unknown.
    operations: f64,
    /// Seconds a question; infinite where they are unknown.
    time: f64,
}

impl<'a> Point<'a> {
    fn of(report: &'a Report, case: &'a Case) -> Option<Self> {
        let accuracy = report.record(case, "accuracy")?;
        let rows = rows(report, case);
        let operations = report.value(case, "flops_model").map_or(f64::INFINITY, |flops| rows * flops);
        let time = report.value(case, "throughput").map_or(f64::INFINITY, |rate| rows / rate);
        Some(Self { case, accuracy, share: accuracy.value?, rows, operations, time })
    }
}

/// Rows that a question takes: what a row costs is paid so many times for an answer that counts.
fn rows(report: &Report, case: &Case) -> f64 {
    let scored = report.accuracy_source(case).filter(|c| c.case.questions > 0);
    scored.and_then(|c| rows_per_question(&questions(of_record(&c.attempts)))).unwrap_or(1.0)
}

/// The record of so many times what it is of.
fn times(record: &Record, factor: f64) -> Record {
    let scaled = |value: Option<f64>| value.map(|v| factor * v);
    Record { value: scaled(record.value), lower: scaled(record.lower), upper: scaled(record.upper), ..record.clone() }
}

/// The name of a group: its model, and the parts in which groups differ.
fn namer<'a>(groups: impl Iterator<Item = Group<'a>>) -> impl Fn(&Group) -> String {
    let parts = |g: &Group| [g.1.to_string(), g.2.to_string(), format!("t{}", g.3), format!("{} b{}", g.5, g.4)];
    let all: Vec<[String; 4]> = groups.map(|g| parts(&g)).collect();
    let differs = [0, 1, 2, 3].map(|i| all.iter().any(|p| p[i] != all[0][i]));
    move |g| {
        let more = parts(g).into_iter().zip(differs).filter(|(_, differs)| *differs).map(|(part, _)| part);
        std::iter::once(g.0.to_string()).chain(more).collect::<Vec<_>>().join(" · ")
    }
}

/// The row of a model and a target, with what it is sorted by. A model that was never scored has none.
fn row(report: &Report, target: f64, model: String, points: &[Point]) -> Option<(f64, TargetRow)> {
    let shown_target = format!("{:.0} %", 100.0 * target);
    let dash = || "–".to_string();
    let reached = points.iter().filter(|p| p.share >= target);
    let cheapest = reached.min_by(|a, b| a.operations.total_cmp(&b.operations).then(a.time.total_cmp(&b.time)));
    let Some(point) = cheapest else {
        let best = points.iter().max_by(|a, b| a.share.total_cmp(&b.share))?;
        let row = TargetRow {
            target: shown_target,
            model,
            depth: format!("none, best {}", best.case.key.depth),
            tag: String::new(),
            accuracy: shown::full(best.accuracy),
            operations: dash(),
            time: dash(),
            energy: dash(),
        };
        return Some((f64::INFINITY, row));
    };
    let case = point.case;
    let unsure = point.accuracy.lower.is_some_and(|lower| lower < target);
    let of_domain = |metric: &Metric| {
        let (domain, record) = (domain(metric.name)?, report.record(case, metric.name).filter(|r| r.value.is_some())?);
        Some(format!("{} {}", domain.title, shown::full(&times(record, point.rows))))
    };
    let energy: Vec<String> = METRICS.iter().filter_map(of_domain).collect();
    let row = TargetRow {
        target: shown_target,
        model,
        depth: case.key.depth.clone(),
        tag: case.id.chars().take(8).collect(),
        accuracy: format!("{}{}", shown::full(point.accuracy), if unsure { " ~" } else { "" }),
        operations: report
            .record(case, "flops_model")
            .and_then(|r| shown::value(&times(r, point.rows)))
            .unwrap_or_else(dash),
        time: report
            .record(case, "throughput")
            .and_then(|r| per_answer(&times(r, 1.0 / point.rows)))
            .unwrap_or_else(dash),
        energy: if energy.is_empty() { dash() } else { energy.join(", ") },
    };
    Some((point.operations, row))
}

/// Seconds an answer with their interval, from answers a second.
fn per_answer(throughput: &Record) -> Option<String> {
    let seconds = throughput.value.map(|v| 1.0 / v).filter(|s| s.is_finite())?;
    let (factor, unit) = format::scaled_unit("s", seconds);
    let text = format::join(&format::number(seconds / factor), &unit);
    let interval = throughput.lower.zip(throughput.upper).filter(|(lower, _)| *lower > 0.0).map(|(lower, upper)| {
        format!(" ({}–{})", format::number(1.0 / upper / factor), format::number(1.0 / lower / factor))
    });
    Some(text + &interval.unwrap_or_default())
}
