//! One self-contained page: tables, plots, every case with everything known of it.
//!
//! In: a [`Report`]. Out: `index.html`, which needs no network. Must not: put a name or message of a case into the page unescaped.

use std::collections::BTreeSet;

use minijinja::{Environment as Templates, value::Serde};
use serde::Serialize;

use super::Files;
use crate::{
    case::{Case, Routing, Tried, Verdict},
    ceiling,
    environment::Environment,
    error::ReportError,
    format,
    metric::{METRICS, metric},
    plot::plots,
    record::{Missing, Record},
    report::Report,
    summarise::accuracy_source,
    table::{Table, full_precision, reason, tables},
};

const TEMPLATE: &str = include_str!("page.html");

#[derive(Serialize)]
struct Page<'a> {
    environment: &'a Environment,
    memory: String,
    ceilings: Vec<ceiling::Shown>,
    tables: Vec<Table>,
    footnotes: Vec<String>,
    plots: Vec<PlotView>,
    cases: Vec<CaseView<'a>>,
    methods: BTreeSet<&'a str>,
    done: usize,
}

#[derive(Serialize)]
struct CaseView<'a> {
    tag: String,
    case: &'a Case,
    failed: Option<Missing>,
    verdict: String,
    settings: Vec<Setting>,
    routing: Vec<Routed>,
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
pub(super) struct Routed {
    pub layer: String,
    pub tokens: u64,
    pub top_k: u32,
    pub load: String,
    pub probability: String,
    pub entropy: String,
}

/// What the routers did while this case's answers were scored, as it is shown.
pub(super) fn routing(report: &Report, case: &Case) -> Vec<Routed> {
    let Some(source) = accuracy_source(&report.run, case).filter(|_| case.error.is_none()) else { return Vec::new() };
    let shares = |values: &mut dyn Iterator<Item = f64>| {
        values.map(|v| format!("{:.1}", 100.0 * v)).collect::<Vec<_>>().join(" ")
    };
    let view = |r: &Routing| Routed {
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
    let plots: Vec<PlotView> = plots(report)?
        .into_iter()
        .map(|p| PlotView { name: p.name, title: p.title, caption: p.caption, svg: p.svg })
        .collect();
    let cases: Vec<CaseView> = report.run.cases.iter().map(|c| case_view(report, &c.case)).collect();
    let methods: BTreeSet<&str> = report.records.iter().map(|r| r.method.as_str()).filter(|m| !m.is_empty()).collect();
    let environment = &report.run.environment;
    let gibibytes = environment.memory_bytes as f64 / f64::from(1 << 30);
    let memory = format!("{gibibytes:.1} GiB");
    let ceilings = environment.ceilings.iter().flat_map(|c| &c.list).map(ceiling::Ceiling::shown).collect();
    let done = cases.iter().filter(|c| c.failed.is_none()).count();
    let page = Page { environment, memory, ceilings, tables, footnotes, plots, cases, methods, done };
    let mut templates = Templates::new();
    // escaping follows from the name's ending
    let name = "page.html";
    templates.add_template(name, TEMPLATE).map_err(|e| ReportError::render("index.html", e))?;
    let page = templates
        .get_template(name)
        .and_then(|t| t.render(Serde(&page)))
        .map_err(|e| ReportError::render("index.html", e))?;
    Ok(vec![("index.html".into(), page.into_bytes())])
}

fn case_view<'a>(report: &'a Report, case: &'a Case) -> CaseView<'a> {
    let records: Vec<&Record> = METRICS.iter().filter_map(|m| report.record(case, m.name)).collect();
    let failed = records.first().filter(|_| case.error.is_some()).and_then(|r| r.missing.clone());
    let facts = records
        .iter()
        .filter(|r| r.value.is_some())
        .map(|r| Fact {
            metric: &r.metric,
            meaning: metric(&r.metric).map_or("", |m| m.meaning),
            shown: format::full(r),
            n: r.n,
            method: &r.method,
            note: r.note.as_deref(),
        })
        .collect();
    let missing = |r: &&Record| Some((r.metric.clone(), reason(r.missing.as_ref()?)));
    let unavailable = if failed.is_some() { Vec::new() } else { records.iter().filter_map(missing).collect() };
    let tag = case.id.chars().take(8).collect();
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
