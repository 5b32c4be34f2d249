//! Which cases the plots of accuracy show: against latency, energy and operations, and against depth.
//!
//! In: the good cases of one task. Out: pictures with captions. Must not: draw backends that agree as different models.

use std::collections::BTreeSet;

use super::{
    Drawn, Set, WIDTH, bar, depth,
    legend::{LegendEntry, LegendSymbol},
    palette::{DASHES, Dash, FRONT, INK, MarkerShape},
    scatter,
    words::{intervals, mark_title},
};
use crate::{
    case::CaseKey,
    labels::Labels,
    record::Record,
    store::CaseRun,
    table::{baselines, baselines_text},
};

/// Name of the line of a plot of accuracy.
fn front() -> LegendEntry {
    LegendEntry { symbol: LegendSymbol::Line(FRONT, Dash::Whole), name: "Pareto front".into() }
}

impl Set<'_> {
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

    pub(super) fn against(&self, metric: &str, name: &str) -> Drawn {
        let mut points = Vec::new();
        let (mut costs, mut shares, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let names = Labels::of_models(self.cases.iter().map(|c| &c.case));
        for c in &self.cases {
            let records = (self.report.record(&c.case, metric), self.report.record(&c.case, "accuracy"));
            let (Some(cost), Some(share)) = records else { continue };
            let (Some(x), Some(y)) = (bar(cost), bar(share)) else { continue };
            let key = &c.case.key;
            points.push(scatter::Point {
                x,
                y,
                color: self.appearance.color(key),
                shape: self.appearance.shape(key),
                fill: self.appearance.fill(key),
                label: names.short(&c.case.id).to_owned(),
                title: mark_title(&c.case, &[(name, Some(cost)), ("accuracy", Some(share))]),
            });
            costs.push(cost);
            shares.push(share);
            keys.push(key);
        }
        let mut legend = self.appearance.entries(&keys);
        legend.push(front());
        let (lines, without) = self.baselines();
        let unit = costs.first().map_or("", |r| r.unit.as_str());
        let svg =
            scatter::scatter((name, unit), &scatter::accuracies(&points, &lines)?, &points, &lines, &legend, WIDTH)?;
        let caption = format!(
            "{}: accuracy{} against {name} of {} cases. {} Line: Pareto front; no case above and left of it.{without}",
            self.task,
            self.measure(),
            points.len(),
            intervals("Bars", &[("accuracy", &shares), (name, &costs)]),
        );
        Some((svg, caption))
    }

    /// Operations do not depend on the backend, so each model (with precision and depth rule) is one point: its first
    /// case.
    pub(super) fn against_flops(&self) -> Drawn {
        let mut seen = BTreeSet::new();
        let cases: Vec<&CaseRun> = (self.cases.iter().copied())
            .filter(|c| self.report.value(&c.case, "flops_model").is_some())
            .filter(|c| self.report.value(&c.case, "accuracy").is_some())
            .filter(|c| seen.insert((&c.case.key.model, &c.case.key.precision, &c.case.key.depth)))
            .collect();
        let labels = Labels::of_models(cases.iter().map(|c| &c.case));
        let mut points = Vec::new();
        let (mut shares, mut costs): (Vec<&Record>, Vec<&Record>) = (Vec::new(), Vec::new());
        let mut legend = self.appearance.models(&cases.iter().map(|c| &c.case.key).collect::<Vec<_>>());
        legend.push(front());
        for c in &cases {
            let records = (self.report.record(&c.case, "flops_model"), self.report.record(&c.case, "accuracy"));
            let (Some(cost), Some(share)) = records else { continue };
            let (Some(x), Some(y)) = (bar(cost), bar(share)) else { continue };
            let key = &c.case.key;
            points.push(scatter::Point {
                x,
                y,
                color: self.appearance.model_color(key),
                // no backend is meant
                shape: MarkerShape::Circle,
                fill: self.appearance.model_fill(key),
                label: labels.short(&c.case.id).to_owned(),
                title: format!(
                    "{}, {}, {}: {}",
                    key.model,
                    key.precision,
                    key.depth,
                    mark_title(&c.case, &[("", Some(cost)), ("accuracy", Some(share))])
                ),
            });
            shares.push(share);
            costs.push(cost);
        }
        let cost = ("model operations per example", "FLOP");
        let (lines, without) = self.baselines();
        let svg = scatter::scatter(cost, &scatter::accuracies(&points, &lines)?, &points, &lines, &legend, WIDTH)?;
        let caption = format!(
            "{}: accuracy{} against the operations that the mathematics needs at the mean number of steps used, for {} models; the \
             backend does not matter here. {} Line: Pareto front.{without}",
            self.task,
            self.measure(),
            points.len(),
            intervals("Bars", &[("accuracy", &shares), ("operations", &costs)]),
        );
        Some((svg, caption))
    }

    pub(super) fn depth(&self) -> Drawn {
        let mut seen = BTreeSet::new();
        let sources: Vec<&CaseRun> = (self.cases.iter())
            .filter_map(|c| self.report.accuracy_source(&c.case))
            // backends that agree draw the same line
            .filter(|c| seen.insert((&c.case.key.model, &c.case.key.precision, &c.case.key.depth)))
            .collect();
        let labels = Labels::of_models(sources.iter().map(|c| &c.case));
        // lines of one colour differ in their dashes
        let mut drawn = Vec::new();
        let mut style = |key: &CaseKey| {
            let color = self.appearance.model_color(key);
            let before = drawn.iter().filter(|c| **c == color).count();
            drawn.push(color);
            (color, DASHES[before % DASHES.len()])
        };
        let curves: Vec<depth::Curve> = (sources.iter())
            .map(|c| depth::Curve::new(labels.short(&c.case.id).into(), style(&c.case.key), c))
            .collect();
        let stops = curves.iter().any(|c| c.stop.is_some() && c.points.len() > 1);
        let name = "where the halting rule stops, on average".into();
        let legend: Vec<LegendEntry> =
            stops.then_some(LegendEntry { symbol: LegendSymbol::Stop(INK), name }).into_iter().collect();
        let (lines, without) = self.baselines();
        let svg = depth::depth(&curves, &lines, &legend, WIDTH)?;
        let shares: Vec<&Record> = sources.iter().filter_map(|c| self.report.record(&c.case, "accuracy")).collect();
        let caption = format!(
            "{}: share of right answers{} after each supervision step; an example that halted keeps its answer, and thin lines carry the last answers on. {}{without}",
            self.task,
            self.measure(),
            intervals("Bands", &[("", &shares)]),
        );
        Some((svg, caption))
    }
}
