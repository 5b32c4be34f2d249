//! The samples of one case, sorted into what the summary needs.
//!
//! In: samples in any order. Out: per-iteration series in time order and per-block totals beside the block's examples and time. Must not:
//! judge or drop an observation of the steady phase.

use std::collections::BTreeMap;

use crate::case::Sample;

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
}

impl<'a> Steady<'a> {
    /// Sorts the samples of one case.
    pub fn of(samples: &'a [Sample]) -> Self {
        let series = |name: &str| {
            let mut found: Vec<&Sample> =
                samples.iter().filter(|s| s.phase == "steady" && s.iteration.is_some() && s.metric == name).collect();
            found.sort_by_key(|s| (s.t_ns, s.block, s.iteration));
            found
        };
        let (mut latencies, mut rows) = (Vec::new(), Vec::new());
        let mut blocks: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        let mut by_block: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for sample in series("latency") {
            let row = examples(sample);
            latencies.push(sample.value);
            rows.push(row);
            by_block.entry(sample.block).or_default().push(sample.value);
            let block = blocks.entry(sample.block).or_default();
            *block = (block.0 + row, block.1 + sample.value);
        }
        let steps = series("steps_used").into_iter().map(|s| (s.value, examples(s))).collect();
        Self { samples, latencies, block_latencies: by_block.into_values().collect(), rows, steps, blocks }
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

    /// Every value of a metric, in whatever phase it was observed.
    pub fn named(&self, name: &str) -> Vec<f64> {
        self.samples.iter().filter(|s| s.metric == name).map(|s| s.value).collect()
    }
}

fn examples(sample: &Sample) -> f64 {
    sample.rows.unwrap_or(1) as f64
}
