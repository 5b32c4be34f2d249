//! The lines of the strip that name winners: the fastest and the most accurate cases.
//!
//! In: a [`Report`]. Out: [`Line`]s. Must not: name a winner whose outputs nobody compared or whose value has no
//! interval, or hide that two values cannot be told apart.

use std::collections::{BTreeMap, BTreeSet};

use super::{Item, Line, MOST, Severity, count, good};
use crate::{
    case::{Case, Verdict},
    labels::Labels,
    record::Record,
    report::Report,
    shown,
};

/// The case of least median latency of each task, model, depth rule and batch; only cases whose outputs were compared
/// take part. A latency without an interval wins nothing.
pub(super) fn fastest(report: &Report) -> Option<Line> {
    // by task, model, depth rule and batch
    type Group<'a> = (&'a str, &'a str, &'a str, u32);
    let mut groups: BTreeMap<Group, Vec<(&Case, &Record)>> = BTreeMap::new();
    let mut unseen = 0;
    for case in good(report) {
        let Some(record) = report.record(case, "latency").filter(|r| r.value.is_some()) else { continue };
        if !matches!(case.verdict, Some(Verdict::Reference { .. } | Verdict::Peer { .. })) {
            unseen += 1;
            continue;
        }
        let key = &case.key;
        groups.entry((&key.task, &key.model, &key.depth, key.batch)).or_default().push((case, record));
    }
    // a case without a rival is no winner
    groups.retain(|_, cases| cases.len() > 1);
    // the largest batch is beside the smallest only where nothing else is compared
    let least: BTreeMap<(&str, &str, &str), u32> =
        groups.keys().rev().map(|(task, model, depth, batch)| ((*task, *model, *depth), *batch)).collect();
    groups.retain(|(task, model, depth, batch), _| least.get(&(*task, *model, *depth)) == Some(batch));
    let (mut items, mut undecided) = (Vec::new(), 0);
    let several = Several::of(groups.keys().map(|g| (g.0, g.1, g.2)));
    for (group, cases) in &groups {
        let labels = Labels::of(cases.iter().map(|c| c.0));
        let Some((case, record)) = cases.iter().min_by(|a, b| order(a.1, b.1)) else { continue };
        let Some(beside) = beside(case, record, cases) else {
            undecided += 1;
            continue;
        };
        let batch = if group.3 > 1 { format!(" at batch {}", group.3) } else { String::new() };
        let text = format!(
            "{}{}{batch}, {}{beside}",
            several.prefix(group.0, group.1, group.2),
            labels.short(&case.id),
            shown::full(record),
        );
        items.push(Item::of(case, text));
    }
    limit(&mut items);
    match (items.len(), undecided) {
        (0, 0) => return None,
        (_, 0) => {}
        (0, _) => items.push(Item::plain("none can be told: the least latency has no interval")),
        _ => items.push(Item::plain(format!(
            "none of {} can be told: the least latency has no interval",
            count(undecided, "more group")
        ))),
    }
    if unseen > 0 {
        items.push(Item::plain(format!("{} without compared outputs left out", count(unseen, "case"))));
    }
    Some(Line::new("fastest", Severity::Plain, items))
}

/// The most accurate model (with precision and depth rule) of each task that has several. An accuracy without an
/// interval wins nothing.
pub(super) fn most_accurate(report: &Report) -> Option<Line> {
    let mut items = Vec::new();
    let tasks = report.tasks();
    for (task, cases) in &tasks {
        // the best case of a model stands for it: backends and batches answer alike, or nearly so
        let mut best: BTreeMap<(&str, &str, &str), (&Case, &Record)> = BTreeMap::new();
        for case in cases.iter().map(|c| &c.case).filter(|c| report.error(c).is_none()) {
            let Some(record) = report.record(case, "accuracy").filter(|r| r.value.is_some()) else { continue };
            let own = best.entry((&case.key.model, &case.key.precision, &case.key.depth)).or_insert((case, record));
            if order(own.1, record).is_lt() {
                *own = (case, record);
            }
        }
        let cases: Vec<(&Case, &Record)> = best.into_values().collect();
        if cases.len() < 2 {
            continue;
        }
        let place = if tasks.len() > 1 { format!("{task}: ") } else { String::new() };
        let Some((case, record)) = cases.iter().max_by(|a, b| order(a.1, b.1).then(b.0.path.cmp(&a.0.path))) else {
            continue;
        };
        if record.value == Some(0.0) {
            items.push(Item::plain(format!("{place}no case has a right answer")));
            continue;
        }
        let labels = Labels::of_models(cases.iter().map(|c| c.0));
        let Some(beside) = beside(case, record, &cases) else {
            items.push(Item::plain(format!("{place}none can be told: the highest accuracy has no interval")));
            continue;
        };
        let text = format!("{place}{}, {}{beside}", labels.short(&case.id), shown::full(record));
        items.push(Item::of(case, text));
    }
    limit(&mut items);
    (!items.is_empty()).then(|| Line::new("most accurate", Severity::Plain, items))
}

/// What tells groups apart: names of tasks and models that differ, and depth rules of models that have several.
struct Several<'a> {
    tasks: bool,
    models: bool,
    /// By model.
    depths: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Several<'a> {
    fn of(groups: impl Iterator<Item = (&'a str, &'a str, &'a str)> + Clone) -> Self {
        let differ = |part: fn((&'a str, &'a str, &'a str)) -> &'a str| {
            groups.clone().map(part).collect::<BTreeSet<_>>().len() > 1
        };
        let mut depths: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        groups.clone().for_each(|(_, model, depth)| {
            depths.entry(model).or_default().insert(depth);
        });
        Self { tasks: differ(|g| g.0), models: differ(|g| g.1), depths }
    }

    /// `sudoku-6x6 · trm: `, or nothing where there is one group.
    fn prefix(&self, task: &str, model: &str, depth: &str) -> String {
        let depths = self.depths.get(model).is_some_and(|depths| depths.len() > 1);
        let parts = [(self.tasks, task), (self.models, model), (depths, depth)];
        let parts: Vec<&str> = parts.into_iter().filter(|p| p.0).map(|p| p.1).collect();
        if parts.is_empty() { String::new() } else { format!("{}: ", parts.join(" · ")) }
    }
}

/// Records by their values.
fn order(a: &Record, b: &Record) -> std::cmp::Ordering {
    let value = |r: &Record| r.value.unwrap_or(f64::NAN);
    value(a).total_cmp(&value(b))
}

/// What to say beside the best of these: how many cannot be told from it. `None`: it has no interval, so that nothing
/// can be said.
fn beside(best: &Case, record: &Record, all: &[(&Case, &Record)]) -> Option<String> {
    let ends = |r: &Record| r.lower.zip(r.upper);
    let own = ends(record)?;
    let others = || all.iter().filter(|(case, _)| case.id != best.id).map(|(_, r)| ends(r));
    let overlapping = others().flatten().filter(|other| own.0 <= other.1 && other.0 <= own.1).count();
    let mut text = match overlapping {
        0 => String::new(),
        1 => " (another one's interval overlaps)".into(),
        n => format!(" (intervals of {n} others overlap)"),
    };
    match others().filter(Option::is_none).count() {
        0 => {}
        1 => text += " (another one has no interval)",
        n => text += &format!(" ({n} others have no interval)"),
    }
    Some(text)
}

fn limit(items: &mut Vec<Item>) {
    if items.len() > MOST + 1 {
        let more = items.len() - MOST;
        items.truncate(MOST);
        items.push(Item::plain(format!("{more} more groups in the tables")));
    }
}
