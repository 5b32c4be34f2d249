//! The samples of one case, sorted into what the summary needs.
//!
//! In: samples in any order. Out: per-iteration series in time order and per-block totals beside the block's examples
//! and time. Must not: judge or drop an observation of the steady phase.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use crate::{
    case::Sample,
    stats::{
        level::{Spacing, neighbours_alike},
        quantile::drift,
    },
    store::Samples,
};

/// The steady phase of a case, and whatever was observed once.
#[derive(Debug)]
pub struct Steady {
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
    /// (Steps, examples) of each block.
    block_steps: BTreeMap<u32, (f64, f64)>,
    /// By metric, the sum of each block's observations of the whole block.
    totals: BTreeMap<&'static str, BTreeMap<u32, f64>>,
    /// By metric, every value that is not of an iteration of the steady phase.
    values: BTreeMap<&'static str, Vec<f64>>,
    /// By metric, block, value and rows of every other observation of such an iteration, in time order.
    of_iterations: BTreeMap<&'static str, Vec<(u32, f64, f64)>>,
    /// Blocks were timed that are of no steady phase.
    timed_outside: bool,
    /// First block of each start of the worker; one where there was a single one.
    starts: Vec<u32>,
    /// How the blocks lie in time.
    spacing: Spacing,
    /// They follow one another without pauses.
    in_a_row: bool,
    /// [`drift`] of the latencies, computed at the first call.
    drift: OnceCell<Option<(f64, f64)>>,
}

/// Blocks lie apart if the pauses between them are this part of a block, or longer (medians of both).
const PAUSE: f64 = 0.5;

/// What is added up of a block while its iterations pass.
#[derive(Default)]
struct Block {
    latencies: Vec<f64>,
    rows: f64,
    seconds: f64,
    /// Seconds of the run.
    begins: f64,
    ends: f64,
}

impl Steady {
    /// Sorts the samples of one case, each of which is looked at once; `starts` are those of the
    /// [case](crate::case::Case::starts).
    pub fn of(samples: &Samples, starts: &[u32]) -> Self {
        let (mut of_latency, mut of_steps): (Vec<usize>, Vec<usize>) = Default::default();
        let mut block_steps: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        let mut totals: BTreeMap<&'static str, BTreeMap<u32, f64>> = BTreeMap::new();
        let mut values: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        let mut of_others: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
        let mut timed_outside = false;
        for (place, sample) in samples.iter().enumerate() {
            match (sample.phase, sample.iteration, sample.metric) {
                ("steady", Some(_), "latency") => of_latency.push(place),
                ("steady", Some(_), "steps_used") => {
                    let sum = block_steps.entry(sample.block).or_default();
                    *sum = (sum.0 + sample.value, sum.1 + examples(&sample));
                    of_steps.push(place);
                }
                ("steady", Some(_), metric) => of_others.entry(metric).or_default().push(place),
                (phase, iteration, metric) => {
                    timed_outside |= metric == "window" && phase != "steady";
                    if phase == "steady" && iteration.is_none() {
                        *totals.entry(metric).or_default().entry(sample.block).or_insert(0.0) += sample.value;
                    }
                    values.entry(metric).or_default().push(sample.value);
                }
            }
        }
        in_time_order(&mut of_latency, samples);
        in_time_order(&mut of_steps, samples);
        of_others.values_mut().for_each(|places| in_time_order(places, samples));
        let of_block = |place: usize| {
            let sample = samples.at(place);
            (sample.block, sample.value, examples(&sample))
        };
        let of_iterations = of_others
            .into_iter()
            .map(|(metric, places)| (metric, places.into_iter().map(of_block).collect()))
            .collect();
        let (mut latencies, mut rows) = (Vec::with_capacity(of_latency.len()), Vec::with_capacity(of_latency.len()));
        let mut by_block: BTreeMap<u32, Block> = BTreeMap::new();
        for sample in of_latency.iter().map(|place| samples.at(*place)) {
            let row = examples(&sample);
            latencies.push(sample.value);
            rows.push(row);
            let begins = sample.t_ns as f64 * 1e-9;
            let block =
                by_block.entry(sample.block).or_insert_with(|| Block { begins, ends: begins, ..Block::default() });
            block.latencies.push(sample.value);
            (block.rows, block.seconds) = (block.rows + row, block.seconds + sample.value);
            block.ends = block.ends.max(begins + sample.value);
        }
        let steps = of_steps.iter().map(|place| samples.at(*place)).map(|s| (s.value, examples(&s))).collect();
        let blocks = by_block.iter().map(|(number, block)| (*number, (block.rows, block.seconds))).collect();
        let in_a_row = !apart(by_block.values().map(|block| (block.begins, block.ends)).collect());
        let block_latencies: Vec<Vec<f64>> = by_block.into_values().map(|block| block.latencies).collect();
        let starts = starts.to_vec();
        let spacing = match () {
            () if starts.len() > 1 => Spacing::Independent,
            () if in_a_row => Spacing::Row,
            () if neighbours_alike(&block_latencies.iter().map(|b| ends(b)).collect::<Vec<_>>()) => Spacing::Alike,
            () => Spacing::Apart,
        };
        let drift = OnceCell::new();
        Self {
            latencies,
            block_latencies,
            rows,
            steps,
            blocks,
            block_steps,
            totals,
            values,
            of_iterations,
            timed_outside,
            starts,
            spacing,
            in_a_row,
            drift,
        }
    }

    /// Medians of the first and the second half of the latencies, where they differ (see [`drift`]).
    pub fn drift(&self) -> Option<(f64, f64)> {
        *self.drift.get_or_init(|| drift(&self.latencies))
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

    /// Totals by block as observations in time order: those of a start are added up, where the worker was started
    /// repeatedly.
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

    /// Values of a metric that iterations of the steady phase gave, by observation likewise.
    pub fn unit_values(&self, name: &str) -> Vec<Vec<f64>> {
        let mut units: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for (block, value, _) in self.of_iterations.get(name).into_iter().flatten() {
            let unit = if self.spacing == Spacing::Independent { self.start(*block) } else { *block as usize };
            units.entry(unit).or_default().push(*value);
        }
        units.into_values().collect()
    }

    /// Values of a metric that iterations of the steady phase gave, by block.
    pub fn block_values(&self, name: &str) -> Vec<Vec<f64>> {
        let mut blocks: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (block, value, _) in self.of_iterations.get(name).into_iter().flatten() {
            blocks.entry(*block).or_default().push(*value);
        }
        blocks.into_values().collect()
    }

    /// Of a metric that iterations of the steady phase gave: what two functions of value and rows add up to, by block.
    pub fn sums_of(&self, name: &str, pair: impl Fn(f64, f64) -> (f64, f64)) -> BTreeMap<u32, (f64, f64)> {
        let mut blocks: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        for (block, value, rows) in self.of_iterations.get(name).into_iter().flatten() {
            let (sum, (above, below)) = (blocks.entry(*block).or_default(), pair(*value, *rows));
            *sum = (sum.0 + above, sum.1 + below);
        }
        blocks
    }

    /// Its blocks were timed outside of a steady phase, of which there is none.
    pub fn is_absent(&self) -> bool {
        self.blocks.is_empty() && self.timed_outside
    }

    /// (Steps, examples) by block.
    pub fn block_steps(&self) -> &BTreeMap<u32, (f64, f64)> {
        &self.block_steps
    }

    /// Blocks with at least one iteration: their examples and seconds.
    pub fn blocks(&self) -> &BTreeMap<u32, (f64, f64)> {
        &self.blocks
    }

    /// Total of each timed block that has an observation of this metric over the whole block, by block.
    pub fn totals(&self, name: &str) -> BTreeMap<u32, f64> {
        let all = self.totals.get(name).into_iter().flatten();
        all.filter(|(block, _)| self.blocks.contains_key(block)).map(|(block, total)| (*block, *total)).collect()
    }

    /// Every value of a metric, in whatever phase it was observed; iterations of the steady phase have their own lists.
    pub fn named(&self, name: &str) -> &[f64] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }
}

/// Puts places of samples into the order in which the samples were made; most files have them so.
fn in_time_order(places: &mut [usize], samples: &Samples) {
    let key = |place: usize| {
        let sample = samples.at(place);
        (sample.t_ns, sample.block, sample.iteration)
    };
    if !places.is_sorted_by_key(|place| key(*place)) {
        places.sort_by_cached_key(|place| key(*place));
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
