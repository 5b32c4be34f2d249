//! One self-contained page: tables, plots, every case with everything known of it.
//!
//! In: a [`Report`]. Out: `index.html`, which needs no network. Must not: put a name or message of a case into the page
//! unescaped.
//!
//! All text is escaped and goes through `clean::clean`; the content security policy lets pass one style and one script,
//! by their hashes. Without the script everything can be read. A search looks at all that the page calls a case (path,
//! task, shared parts, row) and hides in every table what does not match. On paper what is folded stays folded.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::{Environment as Templates, Value, escape_formatter, value::Serde};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Files;
use crate::natural;
use crate::{
    case::{Case, LayerRouting, Tried, Verdict},
    ceiling,
    clean::clean,
    environment::Environment,
    error::ReportError,
    footnotes::Footnotes,
    format,
    metric::{HEADLINE, METRICS, metric},
    missing::Missing,
    plot::{appearance, palette::PALETTE, plots},
    record::Record,
    report::Report,
    shown,
    store::CaseRun,
    strip::Strip,
    studies::{Study, studies},
    table::{Cell, Row, Table, full_precision, reason, tables},
    targets::{self, TargetTable, targets},
};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Most cases whose rows and details are on the page, and most plots.
const MOST_CASES: usize = 200;
const MOST_PLOTS: usize = 36;

#[derive(Serialize)]
struct Page<'a> {
    environment: &'a Environment,
    strip: Strip,
    links: BTreeMap<&'a str, String>,
    memory: String,
    ceilings: Vec<ceiling::CeilingText>,
    tables: Vec<TableView>,
    targets: Vec<TargetTable>,
    about_targets: &'a str,
    target_titles: [&'a str; 6],
    studies: Vec<Study>,
    tags: Vec<String>,
    mapping: String,
    plots: Vec<PlotView>,
    more_plots: Vec<PlotView>,
    plots_left: usize,
    cases: Vec<CaseView<'a>>,
    methods: BTreeSet<&'a str>,
    done: usize,
    all: usize,
    style: String,
    style_hash: String,
    script: &'a str,
    script_hash: String,
}

/// A table without the columns that no case has, its rows by model. Its cells refer to its own notes.
#[derive(Serialize)]
struct TableView {
    table: Table,
    columns: Vec<&'static str>,
    absent: Vec<(&'static str, String)>,
    groups: Vec<(String, Vec<Row>)>,
    notes: Vec<String>,
}

impl TableView {
    /// The rows of the cases whose tags are shown.
    fn new(mut table: Table, footnotes: &[String], shown: &BTreeSet<&str>) -> Self {
        let mut notes = Footnotes::of(std::slice::from_ref(&table), footnotes);
        let rows: Vec<Row> = table.rows.drain(..).filter(|r| shown.contains(r.tag.as_str())).collect();
        table.attempts.retain(|r| shown.contains(r.tag.as_str()));
        table.speedups.iter_mut().for_each(|s| s.rows.retain(|r| shown.contains(r.tag.as_str())));
        let cells =
            |title: &str| rows.iter().flat_map(|r| &r.cells).filter(move |c| c.title == title).collect::<Vec<&Cell>>();
        let (columns, absent): (Vec<&str>, Vec<&str>) =
            HEADLINE.map(|c| c.title).into_iter().partition(|title| cells(title).iter().any(|c| c.number.is_some()));
        let why = |title: &&'static str| {
            let why = notes.take(cells(title).iter().filter_map(|c| c.footnote));
            (!why.is_empty()).then_some((*title, why))
        };
        let absent = absent.iter().filter_map(why).collect();
        let mut groups: Vec<(String, Vec<Row>)> = Vec::new();
        for mut row in rows {
            row.cells.retain(|c| columns.contains(&c.title));
            match groups.iter_mut().find(|g| g.0 == row.model) {
                Some(group) => group.1.push(row),
                None => groups.push((row.model.clone(), vec![row])),
            }
        }
        // below its model's name a row need not repeat it
        if groups.len() > 1 {
            for (model, rows) in &mut groups {
                let prefix = format!("{model} · ");
                for row in rows.iter_mut().filter(|r| r.name.starts_with(&prefix)) {
                    row.name.drain(..prefix.len());
                }
            }
        }
        // numbers of notes rise in the order in which a reader meets them
        let rows = groups.iter_mut().flat_map(|g| &mut g.1);
        for cell in rows.chain(table.speedups.iter_mut().flat_map(|s| &mut s.rows)).flat_map(|r| &mut r.cells) {
            cell.footnote = cell.footnote.map(|footnote| notes.number(footnote));
        }
        let notes = notes.texts().map(str::to_owned).collect();
        Self { table, columns, absent, groups, notes }
    }
}

/// Colours of the page and of its plots, on light and on dark ground.
fn style() -> String {
    let mut light = String::from(":root {");
    let mut dark = String::from(" :root {");
    let mut rules = String::new();
    for (i, (on_light, on_dark)) in PALETTE.iter().enumerate() {
        light += &format!(" --p{i}: {on_light};");
        dark += &format!(" --p{i}: {on_dark};");
        rules += &format!(
            ".plot [fill=\"{on_light}\"] {{ fill: var(--p{i}); }} .plot [stroke=\"{on_light}\"] {{ stroke: var(--p{i}); }}\n"
        );
    }
    format!("{light} }}\n@media screen and (prefers-color-scheme: dark) {{{dark} }} }}\n{STYLE}{rules}")
}

/// sha256 of a text in base64, as a content security policy names what it lets pass.
fn hash(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("sha256-");
    for three in Sha256::digest(text.as_bytes()).chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(three.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63]);
            out.push(if i <= three.len() { digit } else { '=' });
        }
    }
    out
}

#[derive(Serialize)]
struct CaseView<'a> {
    tag: String,
    case: &'a Case,
    failed: Option<Missing>,
    verdict: String,
    settings: Vec<Setting>,
    routing: Vec<RoutingText>,
    facts: Vec<Fact<'a>>,
    unavailable: Vec<(String, String)>,
}

/// One record as a line of a case's details.
#[derive(Serialize)]
struct Fact<'a> {
    metric: &'a str,
    meaning: &'a str,
    shown: String,
    n: u64,
    method: &'a str,
    note: Option<&'a str>,
}

/// One layer of a mixture of experts.
#[derive(Serialize)]
pub(super) struct RoutingText {
    pub layer: String,
    pub tokens: u64,
    pub top_k: u32,
    pub load: String,
    pub probability: String,
    pub entropy: String,
}

/// What the routers did while this case's answers were scored, as it is shown.
pub(super) fn routing(report: &Report, case: &Case) -> Vec<RoutingText> {
    let Some(source) = report.accuracy_source(case).filter(|_| report.error(case).is_none()) else { return Vec::new() };
    let shares = |values: &mut dyn Iterator<Item = f64>| {
        values.map(|v| format!("{:.1}", 100.0 * v)).collect::<Vec<_>>().join(" ")
    };
    let view = |r: &LayerRouting| RoutingText {
        layer: r.layer.clone(),
        tokens: r.tokens(),
        top_k: r.top_k,
        load: shares(&mut r.shares().into_iter().flatten()),
        probability: shares(&mut r.probability.iter().copied()),
        entropy: r.entropy().map_or("–".into(), |e| format!("{e:.3}")),
    };
    source.case.routing.iter().map(view).collect()
}

/// One line of the search for the fastest settings.
#[derive(Serialize)]
struct Setting {
    options: String,
    chosen: bool,
    latency: String,
    ratio: String,
    error: Option<String>,
}

#[derive(Serialize)]
struct PlotView {
    name: String,
    title: String,
    caption: String,
    svg: String,
}

/// Makes `index.html`.
pub fn render(report: &Report) -> Files {
    let (tables, footnotes) = tables(report);
    let view = |p: crate::plot::Plot| PlotView { name: p.name, title: p.title, caption: p.caption, svg: p.svg };
    let mut plots = plots(report)?;
    let plots_left = plots.len().saturating_sub(MOST_PLOTS);
    plots.truncate(MOST_PLOTS);
    let (main, more): (Vec<_>, Vec<_>) = plots.into_iter().partition(|p| p.main);
    // those that failed are all looked for; the others in the order of the run
    let mut shown: Vec<&CaseRun> = report.run.cases.iter().collect();
    shown.sort_by_key(|c| report.error(&c.case).is_none());
    shown.truncate(MOST_CASES);
    shown.sort_by(|a, b| natural::compare(&a.case.path, &b.case.path).then_with(|| a.case.id.cmp(&b.case.id)));
    let cases: Vec<CaseView> = shown.iter().map(|c| case_view(report, &c.case)).collect();
    let links: BTreeMap<&str, String> = shown.iter().map(|c| (c.case.id.as_str(), tag(&c.case))).collect();
    let tags: BTreeSet<&str> = links.values().map(String::as_str).collect();
    let tables =
        tables.into_iter().map(|t| TableView::new(t, &footnotes, &tags)).filter(|t| !t.groups.is_empty()).collect();
    let methods: BTreeSet<&str> = report.records.iter().map(|r| r.method.as_str()).filter(|m| !m.is_empty()).collect();
    let environment = &report.run.environment;
    let gibibytes = environment.memory_bytes as f64 / f64::from(1 << 30);
    let style = style();
    let page = Page {
        environment,
        strip: Strip::of(report),
        links: links.clone(),
        memory: format!("{gibibytes:.1} GiB"),
        ceilings: environment.ceilings.iter().flat_map(|c| &c.list).map(ceiling::MachineCeiling::shown).collect(),
        tables,
        targets: targets(report),
        about_targets: targets::ABOUT,
        target_titles: targets::TITLES,
        studies: studies(report),
        tags: links.into_values().collect(),
        mapping: appearance(report).sentence(),
        plots: main.into_iter().map(view).collect(),
        more_plots: more.into_iter().map(view).collect(),
        plots_left,
        cases,
        methods: methods.into_iter().take(60).collect(),
        done: report.run.cases.iter().filter(|c| report.error(&c.case).is_none()).count(),
        all: report.run.cases.len(),
        style_hash: hash(&style),
        style,
        script: SCRIPT,
        script_hash: hash(SCRIPT),
    };
    let mut templates = Templates::new();
    // whatever is put into the page is cleaned of what cannot be seen, then escaped, which follows from the name's
    // ending
    templates.set_formatter(|out, state, value| match value.as_str().filter(|_| !value.is_safe()) {
        Some(text) => escape_formatter(out, state, &Value::from(clean(text).into_owned())),
        None => escape_formatter(out, state, value),
    });
    templates.add_filter("letters", letters);
    let name = "page.html";
    templates.add_template(name, TEMPLATE).map_err(|e| ReportError::render("index.html", e))?;
    let page = templates
        .get_template(name)
        .and_then(|t| t.render(Serde(&page)))
        .map_err(|e| ReportError::render("index.html", e))?;
    Ok(vec![("index.html".into(), page.into_bytes())])
}

/// The mark of a note: a, b, ... z, aa, ab, ...; a digit would read as an exponent.
fn letters(mut number: u32) -> String {
    let mut mark = String::new();
    while number > 0 {
        number -= 1;
        mark.insert(0, char::from(b'a' + (number % 26) as u8));
        number /= 26;
    }
    mark
}

/// First 8 digits of the id.
fn tag(case: &Case) -> String {
    case.id.chars().take(8).collect()
}

fn case_view<'a>(report: &'a Report, case: &'a Case) -> CaseView<'a> {
    let records: Vec<&Record> = METRICS.iter().filter_map(|m| report.record(case, m.name)).collect();
    let failed = records.first().filter(|_| report.error(case).is_some()).and_then(|r| r.missing.clone());
    let facts = records
        .iter()
        .filter(|r| r.value.is_some())
        .map(|r| Fact {
            metric: &r.metric,
            meaning: metric(&r.metric).map_or("", |m| m.meaning),
            shown: shown::full(r),
            n: r.n,
            method: &r.method,
            note: r.note.as_deref(),
        })
        .collect();
    let missing = |r: &&Record| Some((r.metric.clone(), reason(r.missing.as_ref()?)));
    let unavailable = if failed.is_some() { Vec::new() } else { records.iter().filter_map(missing).collect() };
    let tag = tag(case);
    let mut verdict = verdict(case);
    if let Some(held) = full_precision(report, case).filter(|_| failed.is_none()) {
        verdict = if verdict.is_empty() { held } else { format!("{verdict}; {held}") };
    }
    let (settings, routing) = (settings(case), routing(report, case));
    CaseView { tag, case, failed, verdict, settings, routing, facts, unavailable }
}

fn settings(case: &Case) -> Vec<Setting> {
    let Some(tuning) = &case.tuning else { return Vec::new() };
    let view = |(i, tried): (usize, &Tried)| {
        let options: Vec<String> = tried.options.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let ratio = tried.ratio.filter(|_| i > 0).map_or(String::new(), |(middle, low, high)| {
            format!("{} [{}, {}]", format::number(middle), format::number(low), format::number(high))
        });
        Setting {
            options: if options.is_empty() { "default".into() } else { options.join(", ") },
            chosen: i == tuning.chosen,
            latency: tried.latency.map_or(String::new(), |s| format!("{} ms", format::number(1e3 * s))),
            ratio,
            error: tried.error.as_ref().map(|e| e.message.clone()),
        }
    };
    tuning.tried.iter().enumerate().map(view).collect()
}

fn verdict(case: &Case) -> String {
    match &case.verdict {
        Some(Verdict::Reference { tolerance, limit, largest, examples, steps }) => format!(
            "agrees with the reference interpreter: largest difference {} of at most {} ({tolerance}), {examples} examples, {steps} steps",
            format::number(*largest),
            format::number(*limit),
        ),
        Some(Verdict::Peer { peer, largest, limit }) => format!(
            "agrees with {peer}: largest difference {} of at most {}",
            format::number(*largest),
            format::number(*limit)
        ),
        Some(Verdict::AccuracyOnly) => "no outputs to compare; right and wrong answers are all there is".into(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_notes_are_letters() {
        assert_eq!([1, 2, 26, 27, 52, 53, 702, 703].map(letters), ["a", "b", "z", "aa", "az", "ba", "zz", "aaa"]);
    }
}
