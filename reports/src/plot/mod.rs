//! All plots of a report: per task, accuracy against costs, latency, memory, accuracy against depth, and the roofline; per sitting, speed-ups.
//!
//! In: a [`Report`]. Out: [`Plot`]s in a fixed order. Must not: draw a case that failed, or a value that is missing.

pub mod axis;
pub mod baseline;
pub mod canvas;
pub mod depth;
pub mod legend;
pub mod roofline;
pub mod rows;
pub mod scatter;

use std::collections::BTreeSet;

use plotters::style::RGBColor;

use crate::{
    error::ReportError,
    labels::Labels,
    load::CaseRun,
    record::Record,
    report::Report,
    speedup::sittings,
    stats::quantile::sorted,
    steady::Steady,
    summarise::accuracy_source,
    table::{base_name, baselines, baselines_text},
};
use canvas::{INK, SERIES, SHAPES, SOFT, Shape};
use legend::{Entry, Sign};

/// Width of a plot in points: a column of a paper, the width of a phone.
const WIDTH: f64 = 420.0;

/// One plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Name of its file without ending.
    pub name: String,
    /// Title.
    pub title: String,
    /// What is shown, n and how the intervals were found.
    pub caption: String,
    /// The SVG, without a background.
    pub svg: String,
}

/// All plots of a report that have something to show.
pub fn plots(report: &Report) -> Result<Vec<Plot>, ReportError> {
    let tasks = report.tasks();
    let mut plots = Vec::new();
    for (task, cases) in &tasks {
        let cases: Vec<&CaseRun> = cases.iter().copied().filter(|c| c.case.error.is_none()).collect();
        let backends: BTreeSet<&str> = cases.iter().map(|c| c.case.key.backend.as_str()).collect();
        let backends = backends.into_iter().collect();
        let set = Set { backends, report, labels: Labels::of(cases.iter().map(|c| &c.case)), cases, task };
        for (kind, title, drawn) in [
            ("accuracy-latency", "Accuracy against latency", set.against("latency", "median latency")?),
            ("accuracy-joules", "Accuracy against energy", set.against("energy_cpu", "package energy per example")?),
            ("accuracy-flops", "Accuracy against operations", set.against_flops()?),
            ("accuracy-depth", "Accuracy against recursion depth", set.depth()?),
            ("latency", "Latency", set.latency()?),
            ("memory", "Memory", set.memory()?),
            ("roofline", "Roofline", set.roofline()?),
        ] {
            let Some((svg, caption)) = drawn else { continue };
            let (name, title) = if tasks.len() == 1 {
                (kind.to_owned(), title.to_owned())
            } else {
                (format!("{kind}-{}", file_part(task)), format!("{title}: {task}"))
            };
            plots.push(Plot { name, title, caption, svg });
        }
        for (k, sitting) in sittings(&set.cases).iter().enumerate() {
            let Some((title, svg, caption)) = set.speedups(sitting)? else { continue };
            let task = if tasks.len() == 1 { String::new() } else { format!("-{}", file_part(task)) };
            let name = if k == 0 { format!("speedup{task}") } else { format!("speedup{task}-{}", k + 1) };
            plots.push(Plot { name, title, caption, svg });
        }
    }
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

type Drawn = Result<Option<(String, String)>, ReportError>;

/// The good cases of one task.
struct Set<'a> {
    report: &'a Report,
    labels: Labels,
    cases: Vec<&'a CaseRun>,
    backends: Vec<&'a str>,
    task: &'a str,
}

impl Set<'_> {
    fn families(&self) -> Vec<&str> {
        let families: BTreeSet<&str> = self.cases.iter().map(|c| c.case.key.family.as_str()).collect();
        families.into_iter().collect()
    }

    fn shape(&self, backend: &str) -> Shape {
        let place = self.backends.iter().position(|b| *b == backend).unwrap_or(0);
        SHAPES[place % SHAPES.len()]
    }

    fn family_entries(&self) -> Vec<Entry> {
        let sign = |f: &str| Sign::Mark(Shape::Circle, family_color(f), false);
        self.families().into_iter().map(|f| Entry { sign: sign(f), name: f.into() }).collect()
    }

    /// What rules without a model score: names and shares, and a sentence for captions.
    fn baselines(&self) -> (Vec<(String, f64)>, String) {
        let found = baselines(self.cases.iter().map(|c| &c.case));
        let sentence = match found.is_empty() {
            true => String::new(),
            false => format!(" Dashed: without a model, {}.", baselines_text(&found)),
        };
        (found.iter().map(|b| (b.name.clone(), b.share())).collect(), sentence)
    }

    /// What is right or wrong: examples, or questions that the task decides from several rows.
    fn measure(&self) -> &'static str {
        let decided = self.cases.iter().any(|c| c.case.questions > 0);
        if decided { " (of questions, under the official rule; a question has several rows)" } else { "" }
    }

    fn against(&self, metric: &str, name: &str) -> Drawn {
        let mut points = Vec::new();
        let (mut costs, mut shares) = (Vec::new(), Vec::new());
        let names = Labels::of_models(self.cases.iter().map(|c| &c.case));
        for c in &self.cases {
            let records = (self.report.record(&c.case, metric), self.report.record(&c.case, "accuracy"));
            let (Some(cost), Some(share)) = records else { continue };
            let (Some(x), Some(y)) = (bar(cost), bar(share)) else { continue };
            let key = &c.case.key;
            points.push(scatter::Point {
                x,
                y,
                color: family_color(&key.family),
                shape: self.shape(&key.backend),
                hollow: key.batch > 1,
                label: names.short(&c.case.id).to_owned(),
            });
            costs.push(cost);
            shares.push(share);
        }
        let mut legend = self.family_entries();
        if self.backends.len() > 1 {
            legend.extend(self.backends.iter().map(|b| {
                let sign = Sign::Mark(self.shape(b), SOFT, false);
                Entry { sign, name: (*b).into() }
            }));
        }
        if points.iter().any(|p| p.hollow) {
            legend.push(Entry { sign: Sign::Mark(Shape::Circle, SOFT, true), name: "batched".into() });
        }
        legend.push(Entry { sign: Sign::Line, name: "Pareto front".into() });
        let (lines, without) = self.baselines();
        let unit = costs.first().map_or("", |r| r.unit.as_str());
        let svg = scatter::scatter("a scatter plot", (name, unit), &points, &lines, &legend, WIDTH)?;
        let caption = format!(
            "{}: accuracy{} against {name} of {} cases. Bars: 95 % intervals ({} for accuracy, {}; {} for {name}, {}). Line: Pareto \
             front; no case above and left of it.{without}",
            self.task,
            self.measure(),
            points.len(),
            methods(&shares),
            n_of(&shares),
            methods(&costs),
            n_of(&costs),
        );
        Ok(svg.map(|svg| (svg, caption)))
    }

    /// Operations do not depend on the backend, so each model (with precision and depth rule) is one point: its first case.
    fn against_flops(&self) -> Drawn {
        let mut seen = BTreeSet::new();
        let cases: Vec<&CaseRun> = (self.cases.iter().copied())
            .filter(|c| self.report.value(&c.case, "flops_model").is_some())
            .filter(|c| self.report.value(&c.case, "accuracy").is_some())
            .filter(|c| seen.insert((&c.case.key.model, &c.case.key.precision, &c.case.key.depth)))
            .collect();
        let labels = Labels::of_models(cases.iter().map(|c| &c.case));
        let mut points = Vec::new();
        let mut shares = Vec::new();
        for c in &cases {
            let records = (self.report.record(&c.case, "flops_model"), self.report.record(&c.case, "accuracy"));
            let (Some(cost), Some(share)) = records else { continue };
            let (Some(x), Some(y)) = (bar(cost), bar(share)) else { continue };
            let label = labels.short(&c.case.id).to_owned();
            let color = family_color(&c.case.key.family);
            points.push(scatter::Point { x, y, color, shape: Shape::Circle, hollow: false, label });
            shares.push(share);
        }
        let mut legend = self.family_entries();
        legend.push(Entry { sign: Sign::Line, name: "Pareto front".into() });
        let cost = ("model operations per example", "FLOP");
        let (lines, without) = self.baselines();
        let svg = scatter::scatter("a scatter plot", cost, &points, &lines, &legend, WIDTH)?;
        let caption = format!(
            "{}: accuracy{} against the operations that the mathematics needs at the mean number of steps used, for {} models; the \
             backend does not matter here. Bars: 95 % intervals ({} for accuracy, {}). Line: Pareto front.{without}",
            self.task,
            self.measure(),
            points.len(),
            methods(&shares),
            n_of(&shares),
        );
        Ok(svg.map(|svg| (svg, caption)))
    }

    fn latency(&self) -> Drawn {
        let rows: Vec<rows::Distribution> = self
            .cases
            .iter()
            .map(|c| rows::Distribution {
                label: self.labels.short(&c.case.id).to_owned(),
                color: family_color(&c.case.key.family),
                sorted: sorted(&Steady::of(&c.samples).latencies),
            })
            .filter(|r| !r.sorted.is_empty())
            .collect();
        let svg = rows::distributions("the latency plot", &rows, &self.family_entries(), WIDTH)?;
        let ns = rows.iter().map(|r| r.sorted.len() as u64);
        let caption = format!(
            "{}: time of one iteration in the steady phase, {} iterations a case. Box: quartiles and median; whiskers: 5th to 95th \
             percentile; dots: fastest and slowest; below 20 iterations every one is a dot. {}",
            self.task,
            n_range(ns),
            self.shared(),
        );
        Ok(svg.map(|svg| (svg, caption)))
    }

    fn memory(&self) -> Drawn {
        let kinds = [
            ("memory_peak", "peak, steady phase", INK, Shape::Bar),
            ("memory_base", "before the model", SOFT, Shape::Circle),
            ("weight_bytes", "weights", SERIES[1], Shape::Square),
            ("state_bytes", "states", SERIES[0], Shape::Triangle),
        ];
        let rows: Vec<rows::Bytes> = self
            .cases
            .iter()
            .map(|c| {
                let value = |m: &str| self.report.value(&c.case, m);
                let values =
                    kinds.iter().filter_map(|(m, _, color, shape)| Some((*color, *shape, value(m)?))).collect();
                rows::Bytes { label: self.labels.short(&c.case.id).to_owned(), values }
            })
            .filter(|r| !r.values.is_empty())
            .collect();
        let legend: Vec<Entry> = kinds
            .iter()
            .filter(|k| self.cases.iter().any(|c| self.report.value(&c.case, k.0).is_some()))
            .map(|k| Entry { sign: Sign::Mark(k.3, k.2, false), name: k.1.into() })
            .collect();
        let svg = rows::bytes("the memory plot", &rows, &legend, WIDTH)?;
        let caption = format!(
            "{}: resident memory of the worker (its peak in the steady phase, and before it saw the model) and the bytes of weights and \
             states that the backend holds. Largest readings, no intervals. {}",
            self.task,
            self.shared(),
        );
        Ok(svg.map(|svg| (svg, caption)))
    }

    /// Title, picture and caption of the speed-ups of one sitting, where there is one beside the base's own.
    fn speedups(&self, sitting: &[&CaseRun]) -> Result<Option<(String, String, String)>, ReportError> {
        let labels = Labels::of(sitting.iter().map(|c| &c.case));
        let mut rows = Vec::new();
        let mut rounds = Vec::new();
        let mut base = None;
        for case in sitting.iter().map(|c| &c.case) {
            let Some((record, own)) = self.report.record(case, "speedup").zip(case.sitting.as_ref()) else { continue };
            let Some(bar) = bar(record) else { continue };
            base = own.base.as_deref();
            let is_base = base == Some(case.id.as_str());
            let color = if is_base { SOFT } else { family_color(&case.key.family) };
            rows.push(rows::Ratio { label: labels.short(&case.id).into(), color, bar, base: is_base });
            rounds.push(record.n);
        }
        if rows.iter().all(|r| r.base) {
            return Ok(None);
        }
        let base = base_name(self.report, base, &labels);
        let svg = rows::ratios("the speed-up plot", &format!("speed-up over {base}"), &rows, WIDTH)?;
        let common = if labels.common.is_empty() { String::new() } else { format!(": {}", labels.common) };
        let caption = format!(
            "{}: median latency of {base} over that of each case, median over the rounds in which they took turns. Bars: 95 % intervals \
             (order statistics over rounds, n = {}). Line: {base} itself.",
            self.task,
            n_range(rounds.into_iter()),
        );
        Ok(svg.map(|svg| (format!("Speed-up in turns{common}"), svg, caption)))
    }

    fn depth(&self) -> Drawn {
        let mut seen = BTreeSet::new();
        let sources: Vec<&CaseRun> = (self.cases.iter())
            .filter_map(|c| accuracy_source(&self.report.run, &c.case))
            // backends that agree draw the same line
            .filter(|c| seen.insert((&c.case.key.model, &c.case.key.precision, &c.case.key.depth)))
            .collect();
        let labels = Labels::of_models(sources.iter().map(|c| &c.case));
        // dense models keep the blues that they have in the other plots
        let mut dense = [SERIES[1], SERIES[5]].into_iter().cycle();
        let mut others = [SERIES[0], SERIES[2], SERIES[3], SERIES[4]].into_iter().cycle();
        let mut color = |family: &str| if family == "dense" { dense.next() } else { others.next() }.unwrap_or(SOFT);
        let curves: Vec<depth::Curve> = (sources.iter())
            .map(|c| depth::Curve::new(labels.short(&c.case.id).into(), color(&c.case.key.family), c))
            .collect();
        let sign = Sign::Mark(Shape::Diamond, SOFT, true);
        let legend = [Entry { sign, name: "where the halting rule stops, on average".into() }];
        let (lines, without) = self.baselines();
        let svg = depth::depth("the depth plot", &curves, &lines, &legend, WIDTH)?;
        let shares: Vec<&Record> = sources.iter().filter_map(|c| self.report.record(&c.case, "accuracy")).collect();
        let caption = format!(
            "{}: share of right answers{} after each supervision step; an example that halted keeps its answer, and thin lines carry the last answers on. Bands: 95 % intervals \
             ({}, {}).{without}",
            self.task,
            self.measure(),
            methods(&shares),
            n_of(&shares),
        );
        Ok(svg.map(|svg| (svg, caption)))
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

fn family_color(family: &str) -> RGBColor {
    match family {
        "recursive" => SERIES[0],
        "dense" => SERIES[1],
        "moe" => SERIES[2],
        "opaque" => SERIES[3],
        _ => SOFT,
    }
}

/// The interval methods of records, each once, without what only one case has.
fn methods(records: &[&Record]) -> String {
    let method = |r: &&Record| match r.metric.as_str() {
        "accuracy" if r.method.contains("effective") => "clustered Wilson",
        "accuracy" => "Wilson",
        "latency" => "order statistics of the median",
        _ => "t over blocks",
    };
    let names: BTreeSet<&str> = records.iter().filter(|r| r.upper.is_some()).map(method).collect();
    if names.is_empty() { "none".into() } else { names.into_iter().collect::<Vec<_>>().join(" or ") }
}

fn n_of(records: &[&Record]) -> String {
    format!("n = {}", n_range(records.iter().map(|r| r.n)))
}

fn n_range(ns: impl Iterator<Item = u64>) -> String {
    let ns: Vec<u64> = ns.collect();
    match (ns.iter().min(), ns.iter().max()) {
        (Some(low), Some(high)) if low == high => low.to_string(),
        (Some(low), Some(high)) => format!("{low} to {high}"),
        _ => "0".into(),
    }
}
