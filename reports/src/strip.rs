//! What the first lines of terminal and page say: the machine, how busy it was, energy, how the cases ended, the
//! fastest and the most accurate of them, and how far the intervals go.
//!
//! In: a [`Report`]. Out: a [`Strip`] of a few [`Line`]s. Must not: name a winner that failed or whose outputs nobody
//! compared, or hide that two values cannot be told apart.
//!
//! Only cases whose outputs were compared can be called fastest, only where there are two or more of them, and only
//! with an interval.

mod limits;
mod winners;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    case::{Case, ErrorKind},
    compare::protocol::unlike,
    format,
    metric::domain,
    missing::kind_name,
    record::Record,
    report::Report,
};

/// Most items of one line; what is left out is counted.
const MOST: usize = 4;

/// Processors at other work from which on a line asks for attention.
const BUSY: f64 = 0.1;

/// The first lines of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Strip {
    /// In the order in which they are shown.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What it is about: `not alike`, `machine`, `load`, `energy`, `cases`, `limits`, `fastest`, `most accurate`, `intervals`.
    pub title: &'static str,
    /// How to take it.
    pub state: Severity,
    /// Its parts; a terminal joins them with `; `.
    pub items: Vec<Item>,
}

/// One part of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Words, not yet cleaned of what a name may hold.
    pub text: String,
    /// Id of the case that it is about.
    pub case: Option<String>,
}

/// How a line is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A fact.
    Plain,
    /// As it should be.
    Good,
    /// Numbers may suffer from it.
    Warning,
    /// Numbers are missing because of it.
    Bad,
}

impl Line {
    /// All parts in one line.
    pub fn text(&self) -> String {
        self.items.iter().map(|i| i.text.as_str()).collect::<Vec<_>>().join("; ")
    }

    fn new(title: &'static str, state: Severity, items: Vec<Item>) -> Self {
        Self { title, state, items }
    }
}

impl Item {
    fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), case: None }
    }

    fn of(case: &Case, text: String) -> Self {
        Self { text, case: Some(case.id.clone()) }
    }
}

impl Strip {
    /// The first lines of a report.
    pub fn of(report: &Report) -> Self {
        let mut lines = Vec::from_iter(Self::unlike_protocols(report));
        lines.extend([machine(report), load(report), energy(report), cases(report)]);
        lines.extend(limits::kept(report));
        lines.extend(winners::fastest(report));
        lines.extend(winners::most_accurate(report));
        lines.extend(intervals(report));
        Self { lines }
    }

    /// Whether accuracies stand beside each other that were arrived at in unlike ways: it is the first thing to know.
    pub fn unlike_protocols(report: &Report) -> Option<Line> {
        let mut by_task: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
        for case in good(report).filter(|case| report.value(case, "accuracy").is_some()) {
            by_task.entry(&case.key.task).or_default().push(case);
        }
        let told = |(task, cases): (&str, Vec<&Case>)| {
            let unlike = unlike(cases);
            (!unlike.is_empty()).then(|| Item::plain(format!("{task}: accuracies of unlike {}", unlike.join(", "))))
        };
        let mut items: Vec<Item> = by_task.into_iter().filter_map(told).collect();
        if items.is_empty() {
            return None;
        }
        items.push(Item::plain("compare them at equal FLOPs, time or energy"));
        Some(Line::new("not alike", Severity::Warning, items))
    }

    /// The line with this title.
    pub fn line(&self, title: &str) -> Option<&Line> {
        self.lines.iter().find(|l| l.title == title)
    }
}

fn machine(report: &Report) -> Line {
    let e = &report.run.environment;
    let mut parts = vec![e.cpu.clone(), count(u64::from(e.cpus), "logical processor")];
    if !e.isa.is_empty() {
        parts.push(e.isa.join(" "));
    }
    if e.virtual_machine {
        parts.push("virtual machine".into());
    }
    parts.extend(e.gpus.iter().cloned());
    Line::new("machine", Severity::Plain, vec![Item::plain(parts.join(", "))])
}

/// How busy the machine was with other work, before and during the cases, and how many cases drifted.
fn load(report: &Report) -> Line {
    let e = &report.run.environment;
    let mut busy = false;
    let mut items = vec![Item::plain(match (e.foreign_before, e.load_before) {
        (Some(others), _) => {
            busy |= others >= BUSY;
            format!(
                "other work before the run kept {} of {} busy",
                format::number(others),
                count(u64::from(e.cpus), "processor")
            )
        }
        (None, Some(load)) => format!("load average before the run {}", format::number(load)),
        (None, None) => "the load before the run is unknown".into(),
    })];
    let during: Vec<(&Case, f64)> =
        good(report).filter_map(|case| Some((case, report.value(case, "foreign_load")?))).collect();
    match during.iter().max_by(|a, b| a.1.total_cmp(&b.1)) {
        Some((case, most)) => {
            let mean = during.iter().map(|d| d.1).sum::<f64>() / during.len() as f64;
            busy |= mean >= BUSY || *most >= 2.0 * BUSY;
            let text = format!(
                "other work during the cases kept {} of {} busy, at most {}",
                format::number(mean),
                count(u64::from(e.cpus), "processor"),
                format::number(*most)
            );
            items.push(Item::of(case, text));
        }
        None => items.push(Item::plain("other work during the cases was not measured")),
    }
    let timed: Vec<&Record> =
        good(report).filter_map(|case| report.record(case, "latency").filter(|r| r.n > 0)).collect();
    let drifted = timed.iter().filter(|r| r.note.as_deref().is_some_and(|n| n.contains("drift"))).count();
    if !timed.is_empty() {
        items.push(Item::plain(match drifted {
            _ if timed.len() == 1 => if drifted == 0 { "it did not drift" } else { "it drifted" }.into(),
            0 => format!("none of {} drifted", count(timed.len() as u64, "case")),
            _ => format!("{drifted} of {} drifted", count(timed.len() as u64, "case")),
        }));
    }
    Line::new("load", if busy || drifted > 0 { Severity::Warning } else { Severity::Plain }, items)
}

/// Whether there are joules, of what, and if not why not.
fn energy(report: &Report) -> Line {
    let of_energy = |r: &&Record| domain(&r.metric).is_some();
    let read: BTreeSet<&str> =
        report.records.iter().filter(of_energy).filter(|r| r.value.is_some()).map(|r| r.metric.as_str()).collect();
    let good = good(report).count();
    if !read.is_empty() {
        let domains: Vec<&str> = read.iter().filter_map(|metric| Some(domain(metric)?.title)).collect();
        let with: BTreeSet<&str> =
            report.records.iter().filter(of_energy).filter(|r| r.value.is_some()).map(|r| r.case_id.as_str()).collect();
        let meters = report.run.environment.meters.iter();
        let estimated =
            meters.filter(|m| m.unavailable.is_none() && m.metrics.iter().any(|m| read.contains(m.as_str())));
        let how = if estimated.clone().any(|m| m.estimate) { "estimated" } else { "metered" };
        let text = format!("{how} ({}) in {} of {}", domains.join(", "), with.len(), count(good as u64, "case"));
        let state = if with.len() < good { Severity::Warning } else { Severity::Good };
        return Line::new("energy", state, vec![Item::plain(text)]);
    }
    if good == 0 {
        return Line::new("energy", Severity::Plain, vec![Item::plain("not metered, since no case ended well")]);
    }
    let of_meter = (report.run.environment.meters.iter())
        .filter(|m| m.metrics.iter().any(|m| domain(m).is_some()))
        .find_map(|m| Some(format!("{}: {}", m.name, m.unavailable.as_deref()?)));
    let of_record = || report.records.iter().filter(of_energy).find_map(|r| Some(r.missing.as_ref()?.message.clone()));
    let why = of_meter.or_else(of_record).unwrap_or_else(|| "no meter was asked".into());
    let why = why.lines().next().unwrap_or_default().to_owned();
    Line::new("energy", Severity::Plain, vec![Item::plain(format!("not metered, {why}"))])
}

/// How the cases ended; failures by kind, each with its first case and reason.
fn cases(report: &Report) -> Line {
    let all = report.run.cases.len() as u64;
    let mut failed: BTreeMap<String, Vec<&Case>> = BTreeMap::new();
    let mut bad = false;
    for case in report.run.cases.iter().map(|c| &c.case) {
        if let Some(error) = report.error(case) {
            failed.entry(kind_name(error.kind)).or_default().push(case);
            bad |= error.kind != ErrorKind::Unavailable;
        }
    }
    let ended: u64 = failed.values().map(|f| f.len() as u64).sum();
    if all == 0 {
        return Line::new("cases", Severity::Warning, vec![Item::plain("none is finished")]);
    }
    if ended == 0 {
        let text = if all == 1 { "1 case, ended well".into() } else { format!("all {all} cases ended well") };
        return Line::new("cases", Severity::Good, vec![Item::plain(text)]);
    }
    let mut items = vec![Item::plain(format!("{ended} of {} without numbers", count(all, "case")))];
    for (kind, cases) in failed.iter().take(MOST) {
        let message = report.error(cases[0]).map_or("", |e| e.message.lines().next().unwrap_or_default());
        let times = if cases.len() > 1 { format!("{} × ", cases.len()) } else { String::new() };
        items.push(Item::of(cases[0], format!("{times}{kind}: {}: {}", cases[0].path, shortened(message))));
    }
    if failed.len() > MOST {
        items.push(Item::plain(format!("{} more kinds of failure", failed.len() - MOST)));
    }
    Line::new("cases", if bad { Severity::Bad } else { Severity::Warning }, items)
}

fn intervals(report: &Report) -> Option<Line> {
    good(report).next()?;
    let started_again = good(report).all(|case| case.starts.len() > 1);
    let text = match started_again {
        true => "in parentheses, 95 %, over the starts of this run: other days and machines are not in them",
        false => "in parentheses, 95 %, within this run: other starts, days and machines are not in them",
    };
    Some(Line::new("intervals", Severity::Plain, vec![Item::plain(text)]))
}

/// Cases that ended well.
fn good(report: &Report) -> impl Iterator<Item = &Case> {
    report.run.cases.iter().map(|c| &c.case).filter(move |c| report.error(c).is_none())
}

fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The head of a long message.
fn shortened(text: &str) -> String {
    const LONG: usize = 160;
    if text.chars().count() <= LONG {
        return text.to_owned();
    }
    text.chars().take(LONG).chain(['…']).collect()
}
