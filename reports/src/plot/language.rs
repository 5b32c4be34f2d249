//! Quality of language models against what a token costs, and what a token costs further on in a request.
//!
//! In: the good cases of one task. Out: a picture with its caption. Must not: draw a cost that was not measured.
//!
//! Quality is the accuracy where answers are right or wrong, else the geometric mean of the probability that the model gives to the next token, 1 over
//! the perplexity: a share, and higher is better. The cost is joules a written token where energy is there, else seconds.

use std::collections::BTreeMap;

use super::{
    Drawn, Set, WIDTH,
    axis::PlotAxis,
    bar,
    legend::{LegendEntry, LegendSymbol},
    palette::{Dash, FRONT},
    scatter,
    sweep::{Series, sweep},
    words::{intervals, mark_title},
};
use crate::{
    labels::Labels,
    record::Record,
    stats::quantile::{quantile, sorted},
    store::CaseRun,
};

/// A record's value and interval, upside down.
fn inverse(record: &Record) -> Option<[f64; 3]> {
    let [value, lower, upper] = bar(record)?;
    (lower > 0.0).then(|| [1.0 / value, 1.0 / upper, 1.0 / lower])
}

impl Set<'_> {
    /// Quality against joules or seconds of a written token.
    pub(super) fn quality(&self) -> Drawn {
        let has = |metric: &str| self.cases.iter().filter(|c| self.report.value(&c.case, metric).is_some()).count();
        let (quality, words) = match has("perplexity") > 1 {
            true => ("perplexity", "probability of the next token"),
            false => ("accuracy", "accuracy"),
        };
        let (cost, axis, unit) = match has("tokens_per_joule_output") > 1 {
            true => ("tokens_per_joule_output", "energy of a written token", "J"),
            false => ("tpot", "time of a written token", "s"),
        };
        let (mut points, mut keys) = (Vec::new(), Vec::new());
        let (mut costs, mut shares) = (Vec::new(), Vec::new());
        let names = Labels::of_models(self.cases.iter().map(|c| &c.case));
        for c in &self.cases {
            let records = (self.report.record(&c.case, cost), self.report.record(&c.case, quality));
            let (Some(x), Some(y)) = records else { continue };
            let (Some(place_x), Some(place_y)) = (
                if unit == "J" { inverse(x) } else { bar(x) },
                if quality == "perplexity" { inverse(y) } else { bar(y) },
            ) else {
                continue;
            };
            let key = &c.case.key;
            points.push(scatter::Point {
                x: place_x,
                y: place_y,
                color: self.appearance.color(key),
                shape: self.appearance.shape(key),
                fill: self.appearance.fill(key),
                label: names.short(&c.case.id).to_owned(),
                title: mark_title(&c.case, &[(cost, Some(x)), (quality, Some(y))]),
            });
            costs.push(x);
            shares.push(y);
            keys.push(key);
        }
        let mut legend = self.appearance.entries(&keys);
        legend.push(LegendEntry { symbol: LegendSymbol::Line(FRONT, Dash::Whole), name: "Pareto front".into() });
        let y_axis = match quality {
            "perplexity" => PlotAxis::from_zero(words, points.iter().map(|p| p.y[2])),
            _ => scatter::accuracies(&points, &[]),
        };
        let svg = scatter::scatter((axis, unit), &y_axis?, &points, &[], &legend, WIDTH)?;
        let how = if quality == "perplexity" { " (1 over perplexity: the geometric mean)" } else { "" };
        let caption = format!(
            "{}: {words}{how} against the {axis} of {} cases. {} Line: Pareto front; no case above and left of it.",
            self.task,
            points.len(),
            intervals("Bars", &[(quality, &shares), (cost, &costs)]),
        );
        Some((svg, caption))
    }

    /// Time of a written token against how many tokens its cache held: what a longer context costs.
    pub(super) fn context(&self) -> Drawn {
        let labels = Labels::of(self.cases.iter().map(|c| &c.case));
        let series: Vec<Series> = (self.cases.iter())
            .map(|c| Series {
                label: labels.short(&c.case.id).to_owned(),
                color: self.appearance.color(&c.case.key),
                shape: self.appearance.shape(&c.case.key),
                dash: self.appearance.dash(&c.case.key.precision),
                points: by_context(c),
            })
            .filter(|s| s.points.len() > 1)
            .collect();
        let svg = sweep("tokens in the cache", ("time of a token", "s"), &series, &[], WIDTH)?;
        let caption = format!(
            "{}: median time of a written token against how many tokens its cache held, those of the prompt and those written before, in four steps to a \
             doubling, each at its mean. Bars: quartiles. All tokens of the timed iterations.",
            self.task
        );
        Some((svg, caption))
    }
}

/// Steps of the plot to a doubling of the context.
const STEPS: f64 = 4.0;

/// Median and quartiles of the time between tokens, by how many tokens the cache held. Requests of one example in one iteration cannot be told apart,
/// and are left out.
pub fn by_context(case: &CaseRun) -> Vec<(u32, [f64; 3], String)> {
    let mut prompts: BTreeMap<(u32, Option<u64>, u64), (f64, u32)> = BTreeMap::new();
    let of_iterations = || case.samples.iter().filter(|s| s.iteration.is_some());
    for s in of_iterations().filter(|s| s.metric == "tokens_in") {
        let Some(example) = s.example else { continue };
        let prompt = prompts.entry((s.block, s.iteration, example)).or_default();
        *prompt = (s.value, prompt.1 + 1);
    }
    let mut written: BTreeMap<(u32, Option<u64>, u64), f64> = BTreeMap::new();
    let mut steps: BTreeMap<i64, Vec<(f64, f64)>> = BTreeMap::new();
    for s in of_iterations().filter(|s| s.metric == "tpot") {
        let Some(example) = s.example else { continue };
        let at = (s.block, s.iteration, example);
        let Some((prompt, 1)) = prompts.get(&at) else { continue };
        let before = written.entry(at).or_default();
        let held = prompt + *before;
        *before += 1.0;
        steps.entry((STEPS * held.max(1.0).log2()).floor() as i64).or_default().push((held, s.value));
    }
    let point = |all: Vec<(f64, f64)>| {
        let mean = (all.iter().map(|(held, _)| held).sum::<f64>() / all.len() as f64).round() as u32;
        let ascending = sorted(&all.iter().map(|(_, time)| *time).collect::<Vec<_>>());
        let [lower, value, upper] = [0.25, 0.5, 0.75].map(|q| quantile(&ascending, q).unwrap_or(0.0));
        (mean, [value, lower, upper], format!("about {mean} tokens in the cache: {} times", all.len()))
    };
    steps.into_values().map(point).collect()
}
