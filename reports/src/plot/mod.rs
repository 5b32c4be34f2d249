//! All plots of a report: first those that answer what its run varies (turns, precision, batch, threads, depth,
//! models), then the others.
//!
//! In: a [`Report`]. Out: [`Plot`]s in a fixed order, all with one [mapping](mod@appearance) of colours and shapes.
//! Must not: draw a case that failed, a value that is missing, or a plot of one point.

pub mod accuracy;
pub mod appearance;
pub mod axis;
pub mod baseline;
pub mod canvas;
pub mod cases;
pub mod depth;
mod difficulty;
pub mod framed;
pub mod language;
mod legend;

pub mod palette;
pub mod roofline;
pub mod rows;
pub mod scatter;
pub mod svg;
pub mod sweep;
pub mod training;
mod words;

use std::collections::BTreeSet;

use crate::{
    compare::speedup::interleaved_groups, error::ReportError, labels::Labels, record::Record, report::Report,
    store::CaseRun,
};
use appearance::Appearance;

/// Width of a plot in points: a column of a paper, the width of a phone.
const WIDTH: f64 = 420.0;

/// Most rows of a plot that is among the first.
const MOST_ROWS: usize = 24;

/// One plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Name of its file without ending.
    pub name: String,
    /// Title.
    pub title: String,
    /// What is shown, n and how the intervals were found.
    pub caption: String,
    /// It shows what the run varies.
    pub main: bool,
    /// The SVG, without a background.
    pub svg: String,
}

/// The mapping of colours and shapes of a report.
pub fn appearance(report: &Report) -> Appearance {
    Appearance::of(report.run.cases.iter().map(|c| &c.case))
}

/// All plots of a report that have something to show, those that show what it varies before the others.
pub fn plots(report: &Report) -> Result<Vec<Plot>, ReportError> {
    let tasks = report.tasks();
    let mut plots = Vec::new();
    for (task, cases) in &tasks {
        let cases: Vec<&CaseRun> = cases.iter().copied().filter(|c| report.error(&c.case).is_none()).collect();
        let labels = Labels::of(cases.iter().map(|c| &c.case));
        let set = Set { report, appearance: appearance(report), labels, cases, task };
        let place = |kind: &str| if tasks.len() == 1 { kind.to_owned() } else { format!("{kind}-{}", file_part(task)) };
        let titled = |title: &str| if tasks.len() == 1 { title.to_owned() } else { format!("{title}: {task}") };
        for (k, interleaved) in interleaved_groups(&set.cases).iter().enumerate() {
            let Some((title, svg, caption)) = set.speedups(interleaved) else { continue };
            let name = if k == 0 { place("speedup") } else { format!("{}-{}", place("speedup"), k + 1) };
            plots.push(Plot { name, title, caption, main: true, svg });
        }
        let answers = set.varies(|r| r.value, "accuracy");
        let backends = set.cases.iter().map(|c| &c.case.key.backend).collect::<BTreeSet<_>>().len() > 1;
        let in_turns = plots.iter().any(|p| p.name.starts_with(&place("speedup")));
        // more rows than a screen has are looked up, not looked at
        let times = backends && !in_turns && set.cases.len() <= MOST_ROWS;
        for (kind, title, main, drawn) in [
            ("accuracy-depth", "Accuracy against recursion depth", true, set.depth()),
            ("accuracy-precision", "Accuracy against full precision", true, set.precision()),
            ("steps-difficulty", "Steps against difficulty", true, set.steps_by_difficulty()),
            ("accuracy-difficulty", "Accuracy against difficulty", false, set.accuracy_by_difficulty()),
            ("quality-token", "Quality against the cost of a token", true, set.quality()),
            ("token-context", "Time of a token against its context", false, set.context()),
            ("accuracy-latency", "Accuracy against latency", answers, set.against("latency", "median latency")),
            (
                "accuracy-joules",
                "Accuracy against energy",
                answers,
                set.against("energy_cpu", "package energy per example"),
            ),
            (
                "throughput-batch",
                "Throughput against batch",
                true,
                set.sweep(
                    "rows per iteration (batch)",
                    |k| k.batch,
                    |k| (k.batch, k.scenario) = (0, k.scenario_kind().into()),
                ),
            ),
            (
                "throughput-threads",
                "Throughput against threads",
                true,
                set.sweep("threads", |k| k.threads, |k| k.threads = 0),
            ),
            ("accuracy-flops", "Accuracy against operations", false, set.against_flops()),
            ("roofline", "Roofline", !answers, set.roofline()),
            ("latency", "Latency", times, set.latency()),
            ("memory", "Memory", false, set.memory()),
        ] {
            let Some((svg, caption)) = drawn else { continue };
            plots.push(Plot { name: place(kind), title: titled(title), caption, main, svg });
        }
    }
    plots.sort_by_key(|p| !p.main);
    // tasks whose names differ only in odd characters would share a file
    let mut seen = BTreeSet::new();
    for (i, plot) in plots.iter_mut().enumerate() {
        if !seen.insert(plot.name.clone()) {
            plot.name = format!("{}-{i}", plot.name);
        }
    }
    Ok(plots)
}

fn file_part(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    name.chars().map(plain).take(60).collect()
}

/// Picture and caption.
type Drawn = Option<(String, String)>;

/// The good cases of one task.
struct Set<'a> {
    report: &'a Report,
    appearance: Appearance,
    labels: Labels,
    cases: Vec<&'a CaseRun>,
    task: &'a str,
}

impl Set<'_> {
    /// Whether the cases differ in a metric.
    fn varies(&self, value: fn(&Record) -> Option<f64>, metric: &str) -> bool {
        let values = self.cases.iter().filter_map(|c| value(self.report.record(&c.case, metric)?));
        values.map(f64::to_bits).collect::<BTreeSet<_>>().len() > 1
    }

    fn shared(&self) -> String {
        if self.labels.common.is_empty() { String::new() } else { format!("All: {}.", self.labels.common) }
    }
}

/// Value and interval as a bar; without an interval the bar has no length.
fn bar(record: &Record) -> Option<[f64; 3]> {
    let value = record.value?;
    Some([value, record.lower.unwrap_or(value), record.upper.unwrap_or(value)])
}
