//! One case at work in an interleaved group or wave, with the answers that its timed ones must equal and what went on
//! around its timed blocks.
//!
//! In: an entry. Out: a [`Finished`], whatever happens. Must not: take work of others for its own.

use std::collections::BTreeMap;
use std::time::Duration;

use ergometer_reports::case::{InterleavedGroup, Sample};

use super::case::{Finished, RunContext, Scored};
use super::case_runner::CaseRunner;
use super::entry::Entry;
use super::rounds;
use crate::environment::load::{self, Interference};

/// Share of one processor that a virtual machine may lose to others before a case says so.
const MUCH_STOLEN: f64 = 0.02;

/// Share of one processor that waiting workers may use before a case says so.
pub(super) const MUCH_WAITING: f64 = 0.01;

/// Longest iteration that is made once more before each block: what others left in the caches is nothing to a longer
/// one.
const MOST_REWARM: f64 = 1.0;

/// Longest pause before a block of a case that has the machine for itself.
const MOST_PAUSE: f64 = 0.5;

/// What went on around the timed blocks of a case, in seconds.
pub(super) struct Contention {
    /// They took so long.
    seconds: f64,
    /// Work of others, on this machine and on its host; `None` once it could not be read.
    seen: Option<Interference>,
    /// What was seen since the last sample of it: windows too short for one add up.
    pending: Interference,
    /// Processor time of the workers that waited, with all of their groups, by the path of their case.
    waiting: BTreeMap<String, f64>,
}

/// A case at work.
pub(super) struct EntryRun<'a> {
    pub case: CaseRunner<'a>,
    /// The answers that its timed ones must equal.
    pub scored: Scored,
    around: Contention,
}

impl<'a> EntryRun<'a> {
    /// Starts its worker and makes it ready to be timed. `scored`: answers that another case of its group gave.
    pub fn ready(
        entry: &Entry<'a>,
        interleaved: Option<InterleavedGroup>,
        scored: Option<&Scored>,
        context: &mut RunContext,
    ) -> Self {
        let mut case = CaseRunner::new(entry.planned, entry.task, entry.model, Some(entry.log.clone()), scored);
        case.finished.case.interleaved = interleaved;
        case.begin(entry.reference, context);
        let scored = match scored {
            Some(scored) => scored.clone(),
            None => case.answer(context),
        };
        let around = Contention {
            seconds: 0.0,
            seen: Some(Interference::default()),
            pending: Interference::default(),
            waiting: BTreeMap::new(),
        };
        Self { case, scored, around }
    }

    /// Whether its worker is alive.
    pub fn is_alive(&self) -> bool {
        self.case.worker.is_some()
    }

    /// Seconds of an iteration, by the latest samples: of its last block, else the first one of all.
    fn iteration(&self) -> f64 {
        let (samples, last) = (&self.case.finished.samples, self.case.last_block());
        let timed = samples.iter().rev().take_while(|s| s.block >= last);
        let latencies: Vec<f64> = timed.filter(|s| s.metric == "latency").map(|s| s.value).collect();
        let first = || samples.iter().find(|s| s.metric == "first_latency").map_or(0.0, |s| s.value);
        if latencies.is_empty() { first() } else { latencies.iter().sum::<f64>() / latencies.len() as f64 }
    }

    /// How many blocks it gets by itself.
    pub fn blocks(&self, check: bool) -> u32 {
        let spec = &self.case.planned.spec;
        let blocks = if check { 1 } else { rounds::blocks(&spec.scenario, self.iteration(), spec.seconds) };
        spec.within_seconds.map_or(blocks, |seconds| rounds::within(blocks, self.iteration(), seconds))
    }

    /// Id of the case that it is compared with, unless it is that case.
    pub fn base(&self) -> Option<&str> {
        let base = self.case.finished.case.interleaved.as_ref()?.base.as_deref();
        base.filter(|id| *id != self.case.planned.id)
    }

    /// Whether an untimed iteration comes before each of its blocks.
    pub fn rewarms(&self) -> bool {
        self.case.planned.spec.scenario.processes().is_none() && self.iteration() < MOST_REWARM
    }

    /// The pause before a block, where nobody else works meanwhile.
    pub fn pause(&self, blocks: u32) -> Duration {
        let block = (self.case.planned.spec.seconds / f64::from(blocks.max(1))).max(0.0);
        Duration::from_secs_f64((0.5 * block).min(MOST_PAUSE))
    }

    /// Keeps what went on around its last block, which began at `t_ns` of the run.
    pub fn keep_around(
        &mut self,
        seconds: f64,
        waiting: impl Iterator<Item = (String, f64)>,
        seen: Option<Interference>,
        t_ns: u64,
    ) {
        let around = &mut self.around;
        around.seconds += seconds;
        waiting.for_each(|(path, used)| *around.waiting.entry(path).or_insert(0.0) += used);
        around.seen = around.seen.zip(seen).map(|(sum, more)| sum.and(more));
        around.pending = around.pending.and(seen.unwrap_or_default());
        if self.case.worker.is_none() {
            return;
        }
        if let Some(value) = around.pending.processors() {
            around.pending = Interference::default();
            let (block, phase, metric) = (self.case.last_block(), "steady", "foreign_load");
            let sample = Sample { block, phase, iteration: None, t_ns, example: None, rows: None, metric, value };
            self.case.finished.samples.push(sample);
        }
    }

    /// One timed block; it drops out if that fails.
    pub fn time(&mut self, blocks: u32, context: &mut RunContext) {
        let scored = &self.scored;
        self.case.act(context, |running, worker| running.time(worker, blocks, scored));
    }

    /// Iterations that nobody times, for so long; it drops out if that fails.
    pub fn rewarm(&mut self, seconds: f64, context: &mut RunContext) {
        self.case.act(context, |running, worker| running.rewarm(worker, seconds));
    }

    /// The case that answered for it has failed: it answers by itself, or takes the answers of another one that has.
    pub fn answer_again(&mut self, other: Option<&Scored>, context: &mut RunContext) {
        if let Some(other) = other {
            self.case.finished.case.accuracy_from = Some(other.id.clone());
            return;
        }
        self.scored = self.case.answer(context);
    }

    /// Ends its worker in order.
    pub fn leave(mut self, context: &mut RunContext) -> Finished {
        let (seconds, seen) = (self.around.seconds, self.around.seen);
        let waiting = std::mem::take(&mut self.around.waiting);
        let watched = self.case.finished.samples.iter().any(|s| s.metric == "foreign_load");
        self.case.act(context, |running, _| {
            running.note_coverage();
            match seen {
                Some(seen) if watched && seen.foreign > load::NOTED * seen.seconds => running.note(format!(
                    "other programs used {} while this case was measured",
                    load::processors(seen.foreign / seen.seconds)
                )),
                Some(_) if watched => {}
                Some(_) => running.unavailable(
                    "foreign_load".into(),
                    format!("its timed blocks lasted less than {} s together, too short to tell", load::SHORTEST),
                ),
                None => running.unavailable("foreign_load".into(), "the system does not say how busy it is".into()),
            }
            let of_a_processor = |seconds_used: f64| format!("{:.0} % of a processor", 100.0 * seconds_used / seconds);
            match seen.map(|s| s.stolen) {
                Some(stolen) if stolen > MUCH_STOLEN * seconds => running.note(format!(
                    "other guests of this host took {} while this case was measured",
                    of_a_processor(stolen)
                )),
                Some(_) => {}
                None => running.note(
                    "what other guests of this host took while this case was measured is unknown: the system does not say"
                        .into(),
                ),
            }
            let sum: f64 = waiting.values().sum();
            if sum > MUCH_WAITING * seconds {
                let mut who: Vec<(&String, &f64)> = waiting.iter().filter(|(_, s)| **s > 0.1 * sum).collect();
                who.sort_by(|a, b| b.1.total_cmp(a.1));
                let names: Vec<String> = who.iter().take(3).map(|(path, _)| format!("`{path}`")).collect();
                running.note(format!(
                    "workers that waited for their turn used {} while this case was measured: {}",
                    of_a_processor(sum),
                    names.join(", ")
                ));
            }
            Ok(())
        });
        self.case.finish()
    }
}
