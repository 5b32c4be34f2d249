//! The samples of one case, sorted into what the summary needs.
//!
//! In: samples in any order. Out: per-iteration series in time order and per-block totals beside the block's examples and time. Must not:
//! judge or drop an observation of the steady phase.

use std::collections::BTreeMap;

use crate::{
    case::Sample,
    record::Missing,
    stats::level::{Spacing, neighbours_alike},
    told::Told,
};

/// The steady phase of a case, and whatever was observed once.
#[derive(Debug)]
pub struct Steady<'a> {
    samples: &'a [Sample],
    /// Seconds per iteration, in time order.
    pub latencies: Vec<f64>,
    /// The same, block by block.
    pub block_latencies: Vec<Vec<f64>>,
    /// Examples in each of these iterations.
    pub rows: Vec<f64>,
    /// (Steps, examples) of each iteration that has them, in time order.
    pub steps: Vec<(f64, f64)>,
    /// Examples and seconds of each block.
    blocks: BTreeMap<u32, (f64, f64)>,
    /// First block of each start of the worker; one where there was a single one.
    starts: Vec<u32>,
    /// How the blocks lie in time.
    spacing: Spacing,
    /// They follow one another without pauses.
    in_a_row: bool,
}

/// Blocks lie apart if the pauses between them are this part of a block, or longer (medians of both).
const PAUSE: f64 = 0.5;

impl<'a> Steady<'a> {
    /// Sorts the samples of one case; `starts` are those of the [case](crate::case::Case::starts).
    pub fn of(samples: &'a [Sample], starts: &[u32]) -> Self {
        let series = |name: &str| {
            let mut found: Vec<&Sample> =
                samples.iter().filter(|s| s.phase == "steady" && s.iteration.is_some() && s.metric == name).collect();
            found.sort_by_key(|s| (s.t_ns, s.block, s.iteration));
            found
        };
        let (mut latencies, mut rows) = (Vec::new(), Vec::new());
        let mut blocks: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        let mut by_block: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        let mut spans: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        for sample in series("latency") {
            let row = examples(sample);
            latencies.push(sample.value);
            rows.push(row);
            by_block.entry(sample.block).or_default().push(sample.value);
            let begins = sample.t_ns as f64 * 1e-9;
            let span = spans.entry(sample.block).or_insert((begins, begins));
            span.1 = span.1.max(begins + sample.value);
            let block = blocks.entry(sample.block).or_default();
            *block = (block.0 + row, block.1 + sample.value);
        }
        let steps = series("steps_used").into_iter().map(|s| (s.value, examples(s))).collect();
        let block_latencies: Vec<Vec<f64>> = by_block.into_values().collect();
        let starts = starts.to_vec();
        let in_a_row = !apart(spans.into_values().collect());
        let spacing = match () {
            () if starts.len() > 1 => Spacing::Independent,
            () if in_a_row => Spacing::Row,
            () if neighbours_alike(&block_latencies.iter().map(|b| ends(b)).collect::<Vec<_>>()) => Spacing::Alike,
            () => Spacing::Apart,
        };
        Self { samples, latencies, block_latencies, rows, steps, blocks, starts, spacing, in_a_row }
    }

    /// How the observations of [`Self::units`] lie in time.
    pub fn spacing(&self) -> Spacing {
        self.spacing
    }

    /// Whether blocks follow one another without pauses (a single one too), within each start.
    pub fn in_a_row(&self) -> bool {
        self.in_a_row
    }

    /// What an observation is.
    pub fn unit(&self) -> &'static str {
        if self.spacing == Spacing::Independent { "start" } else { "block" }
    }

    /// Which start a block belongs to.
    fn start(&self, block: u32) -> usize {
        self.starts.partition_point(|first| *first <= block).max(1) - 1
    }

    /// Totals by block as observations in time order: those of a start are added up, where the worker was started repeatedly.
    pub fn units(&self, totals: impl Iterator<Item = (u32, (f64, f64))>) -> Vec<(f64, f64)> {
        if self.spacing != Spacing::Independent {
            return totals.map(|(_, pair)| pair).collect();
        }
        let mut starts: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        for (block, (above, below)) in totals {
            let sum = starts.entry(self.start(block)).or_default();
            *sum = (sum.0 + above, sum.1 + below);
        }
        starts.into_values().collect()
    }

    /// Latencies by observation: by block, or by start where the worker was started repeatedly.
    pub fn unit_latencies(&self) -> Vec<Vec<f64>> {
        if self.spacing != Spacing::Independent {
            return self.block_latencies.clone();
        }
        let mut starts: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for (block, latencies) in self.blocks.keys().zip(&self.block_latencies) {
            starts.entry(self.start(*block)).or_default().extend(latencies);
        }
        starts.into_values().collect()
    }

    /// (Steps, examples) by block.
    pub fn block_steps(&self) -> BTreeMap<u32, (f64, f64)> {
        let mut steps: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        for s in
            self.samples.iter().filter(|s| s.phase == "steady" && s.iteration.is_some() && s.metric == "steps_used")
        {
            let sum = steps.entry(s.block).or_default();
            *sum = (sum.0 + s.value, sum.1 + examples(s));
        }
        steps
    }

    /// Blocks with at least one iteration: their examples and seconds.
    pub fn blocks(&self) -> &BTreeMap<u32, (f64, f64)> {
        &self.blocks
    }

    /// Total of each timed block that has an observation of this metric over the whole block, by block.
    pub fn totals(&self, name: &str) -> BTreeMap<u32, f64> {
        let mut totals = BTreeMap::new();
        for sample in self.samples {
            let whole = sample.phase == "steady" && sample.iteration.is_none() && sample.metric == name;
            if whole && self.blocks.contains_key(&sample.block) {
                *totals.entry(sample.block).or_insert(0.0) += sample.value;
            }
        }
        totals
    }

    /// Why the times of its iterations are not believed, if so.
    pub fn trouble(&self) -> Option<Missing> {
        Told::of(self)?.trouble()
    }

    /// Every value of a metric, in whatever phase it was observed.
    pub fn named(&self, name: &str) -> Vec<f64> {
        self.samples.iter().filter(|s| s.metric == name).map(|s| s.value).collect()
    }
}

/// Whether blocks with these begins and ends (seconds, by number) have pauses between them.
fn apart(mut spans: Vec<(f64, f64)>) -> bool {
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    let pauses = spans.windows(2).map(|w| w[1].0 - w[0].1).collect::<Vec<_>>();
    spans.len() > 1 && middle(pauses) >= PAUSE * middle(spans.iter().map(|s| s.1 - s.0).collect())
}

/// Means of the first and the last third of a block.
fn ends(block: &[f64]) -> (f64, f64) {
    let k = (block.len() / 3).max(1);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    (mean(&block[..k.min(block.len())]), mean(&block[block.len().saturating_sub(k)..]))
}

fn examples(sample: &Sample) -> f64 {
    sample.rows.unwrap_or(1) as f64
}
