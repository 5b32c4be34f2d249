//! The headline table as data: one row per case, a cell per headline metric, reasons as numbered footnotes.
//!
//! In: a [`Report`]. Out: [`Table`]s, one per task. Must not: know a file format.

use serde::Serialize;

use crate::{
    case::{Baseline, Case, Verdict},
    compare::speedup::interleaved_groups,
    labels::Labels,
    metric::{HEADLINE, HeadlineColumn},
    missing::Missing,
    questions::{Sources, sources},
    record::Record,
    report::Report,
    shown,
    store::CaseRun,
};

/// One number as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Title of its column.
    pub title: &'static str,
    /// The unscaled number, for sorting.
    pub number: Option<f64>,
    /// Number with unit, `≤` before a bound, `–` where there is none.
    pub value: String,
    /// Interval without unit.
    pub interval: Option<String>,
    /// Number of the footnote that says why there is no number, or what to know about it.
    pub footnote: Option<usize>,
}

/// One case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Short name.
    pub name: String,
    /// Name of the model.
    pub model: String,
    /// First 8 digits of the id.
    pub tag: String,
    /// Readable path.
    pub path: String,
    /// Cells, or none where the case failed.
    pub cells: Vec<Cell>,
    /// How it failed: kind, message, hint.
    pub error: Option<Missing>,
}

/// Where the right answers of one case came from, where its task decides questions from several rows.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptRow {
    /// Short name.
    pub name: String,
    /// First 8 digits of the id.
    pub tag: String,
    /// Questions right by first attempts alone.
    pub first: String,
    /// Questions that needed a later attempt.
    pub later: String,
    /// What the later attempts were, and how many of them helped.
    pub sources: String,
}

/// The cases of one task.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Name of the task.
    pub task: String,
    /// What all cases share.
    pub common: String,
    /// Rows in the order of the run.
    pub rows: Vec<Row>,
    /// What rules without a model score, in one line; empty where the task names none.
    pub baselines: String,
    /// One for each case that is scored by itself; empty where the task decides row by row.
    pub attempts: Vec<AttemptRow>,
    /// One for each interleaved group in which cases took turns.
    pub speedups: Vec<Speedups>,
}

/// How much faster the cases of one interleaved group are than their base.
#[derive(Clone, Debug, Serialize)]
pub struct Speedups {
    /// Name of the base.
    pub base: String,
    /// What all cases share.
    pub common: String,
    /// Rows in the order of the run, each with one cell.
    pub rows: Vec<Row>,
}

/// All tables of a report and the footnotes that their cells refer to (the first one is 1).
pub fn tables(report: &Report) -> (Vec<Table>, Vec<String>) {
    let mut footnotes = Vec::new();
    let mut tables = Vec::new();
    for (task, cases) in report.tasks() {
        let labels = Labels::of(cases.iter().map(|c| &c.case));
        let mut rows = Vec::new();
        for case in cases.iter().map(|c| &c.case) {
            let error = report.error(case).map(Missing::from);
            let cells = match error {
                Some(_) => Vec::new(),
                None => HEADLINE
                    .iter()
                    .filter_map(|HeadlineColumn { metric, title, .. }| {
                        let more = match *metric {
                            "accuracy" => full_precision(report, case),
                            _ => None,
                        };
                        Some(cell(title, report.record(case, metric)?, more, &mut footnotes))
                    })
                    .collect(),
            };
            rows.push(row(&labels, case, cells, error));
        }
        let speedups =
            interleaved_groups(&cases).iter().filter_map(|s| speedup_table(report, s, &mut footnotes)).collect();
        let attempts = (cases.iter())
            .filter(|c| !c.attempts.is_empty())
            .map(|c| attempt_row(labels.short(&c.case.id), c))
            .collect();
        let baselines = baselines_text(&baselines(cases.iter().map(|c| &c.case)));
        tables.push(Table { task: task.into(), common: labels.common, rows, baselines, attempts, speedups });
    }
    (tables, footnotes)
}

fn row(labels: &Labels, case: &Case, cells: Vec<Cell>, error: Option<Missing>) -> Row {
    let tag = case.id.chars().take(8).collect();
    let unseen = error.is_none() && case.verdict == Some(Verdict::AccuracyOnly);
    let unseen = match (unseen, &case.unscored) {
        (true, None) => " (accuracy only)",
        (true, Some(_)) => " (not compared)",
        (false, _) => "",
    };
    let name = format!("{}{unseen}", labels.short(&case.id));
    Row { name, model: case.key.model.clone(), tag, path: case.path.clone(), cells, error }
}

/// The cases of one interleaved group beside their base; `None` where the base is alone in its group.
fn speedup_table(report: &Report, interleaved: &[&CaseRun], footnotes: &mut Vec<String>) -> Option<Speedups> {
    let base = interleaved.first()?.case.interleaved.as_ref()?.base.as_deref();
    if interleaved.len() == 1 && base == Some(interleaved[0].case.id.as_str()) {
        return None;
    }
    let labels = Labels::of(interleaved.iter().map(|c| &c.case));
    let rows = interleaved.iter().map(|c| &c.case).map(|case| {
        let error = report.error(case).map(Missing::from);
        let record = report.record(case, "speedup").filter(|_| error.is_none());
        let cells = record.map(|r| cell("speed-up", r, None, footnotes)).into_iter().collect();
        row(&labels, case, cells, error)
    });
    let rows = rows.collect();
    Some(Speedups { base: base_name(report, base, &labels), common: labels.common, rows })
}

/// Short name of a base, or its path where it is in another group.
pub fn base_name(report: &Report, base: Option<&str>, labels: &Labels) -> String {
    let found = report.run.cases.iter().map(|c| &c.case).find(|c| Some(c.id.as_str()) == base);
    match found {
        None => "a base that was not measured".into(),
        Some(case) if labels.short(&case.id).is_empty() => case.path.clone(),
        Some(case) => labels.short(&case.id).into(),
    }
}

/// How a reduced precision compares with full precision, in one line; `None` for cases in full precision.
pub fn full_precision(report: &Report, case: &Case) -> Option<String> {
    let record = report.record(case, "accuracy_vs_f32").filter(|_| case.is_reduced())?;
    Some(match &record.missing {
        Some(missing) => format!("accuracy against f32: {}", reason(missing)),
        None => {
            let note = record.note.as_deref().unwrap_or_default();
            format!("accuracy against f32: {}, n = {}: {note}", shown::full(record), record.n)
        }
    })
}

/// The baselines of these cases, which are of one task, each once.
pub fn baselines<'a>(cases: impl Iterator<Item = &'a Case>) -> Vec<&'a Baseline> {
    let mut found: Vec<&Baseline> = Vec::new();
    for baseline in cases.flat_map(|c| &c.baselines) {
        if !found.contains(&baseline) {
            found.push(baseline);
        }
    }
    found
}

/// `copy the input 12.0 % (12 of 100), ...`
pub fn baselines_text(baselines: &[&Baseline]) -> String {
    let one = |b: &&Baseline| format!("{} {:.1}\u{202f}% ({} of {})", b.name, 100.0 * b.share(), b.right, b.of);
    baselines.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn attempt_row(name: &str, case: &CaseRun) -> AttemptRow {
    let Sources { questions, solved, later, outputs: _ } = sources(&case.attempts);
    let of = |n: u64| format!("{:.1}\u{202f}% ({n} of {questions})", 100.0 * n as f64 / questions.max(1) as f64);
    let source = |(number, kind, n, right): &(u32, String, u64, u64)| {
        let number = if *number == 2 { String::new() } else { format!("attempt {number}: ") };
        {
            let attempts = ergometer_files::counted(n, "attempt");
            format!("{number}{kind}: {attempts}, {right} right where no earlier one was")
        }
    };
    AttemptRow {
        name: name.into(),
        tag: case.case.id.chars().take(8).collect(),
        first: of(solved.first().copied().unwrap_or(0)),
        later: of(solved.iter().skip(1).sum()),
        sources: match later.is_empty() {
            true => "none was made".into(),
            false => later.iter().map(source).collect::<Vec<_>>().join("; "),
        },
    }
}

/// One cell; `more` stands beside the record's own note.
fn cell(title: &'static str, record: &Record, more: Option<String>, footnotes: &mut Vec<String>) -> Cell {
    let note = match &record.missing {
        Some(missing) => Some(reason(missing)),
        // a reading needs no excuse for having no interval
        None => record.note.clone().filter(|n| !n.ends_with("a reading, not an estimate")),
    };
    let notes: Vec<String> = note.into_iter().chain(more).collect();
    let footnote = (!notes.is_empty()).then(|| ergometer_files::joined(&notes)).map(|note| {
        match footnotes.iter().position(|f| *f == note) {
            Some(place) => place + 1,
            None => {
                footnotes.push(note);
                footnotes.len()
            }
        }
    });
    let bound = record.lower.is_none() && record.upper.is_some();
    let value = shown::value(record).map_or("–".into(), |v| if bound { format!("≤ {v}") } else { v });
    Cell { title, number: record.value, value, interval: shown::interval(record), footnote }
}

/// Kind, message and hint in one line.
pub fn reason(missing: &Missing) -> String {
    let hint = missing.hint.as_ref().map(|h| format!(" (hint: {h})")).unwrap_or_default();
    format!("{}: {}{hint}", missing.kind, missing.message)
}
