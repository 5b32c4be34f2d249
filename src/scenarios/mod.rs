//! How each scenario is driven and what it samples: a file each, and a line in [`DRIVERS`].
//!
//! In: in the worker the rows of an iteration, in the harness what was told of a timed block. Out: answers in memory; [`Observation`]s. Must
//! not: know a task or a backend, allocate inside an iteration, or keep a time that the harness's own clock contradicts.
//!
//! What a scenario is (its word, its number and their bounds) is a row of [`SCENARIOS`](ergometer_suites::scenario::SCENARIOS). The worker
//! and the harness look a driver up by the name there: the worker calls [`Driver::iterate`] between two readings of its clock, the harness
//! calls [`Driver::started`] and [`Driver::samples`] once the general rules (`runner::claims`) have been kept.

pub mod arrivals;
mod cold_start;
mod decode;
mod generate;
mod language;
mod multi_stream;
mod offline;
mod prefill;
pub mod requests;
mod single_stream;

use std::time::Instant;

use ergometer_suites::scenario::Scenario;

use self::requests::LiveRequests;
use crate::backends::BackendError;
use crate::protocol::IterationSample;

/// Every scenario's driver, in the order of `SCENARIOS`.
pub const DRIVERS: &[&dyn Driver] = &[
    &single_stream::SingleStream,
    &offline::Offline,
    &multi_stream::MultiStream,
    &cold_start::ColdStart,
    &generate::Generate,
    &prefill::Prefill,
    &decode::Decode,
    &arrivals::Arrivals { name: "arrivals" },
    &arrivals::Arrivals { name: "arrivals-trace" },
];

/// Most iterations of one block, and most times of single rows: enough for any percentile we print, and the memory for them is there before
/// the first one.
pub const MAX_ITERATIONS: usize = 10_000;

/// The rows of one iteration, as a worker holds them.
pub trait LiveRows {
    /// Enters the examples from `first` on, wrapping round, one into each slot.
    fn admit(&mut self, first: usize) -> Result<(), BackendError>;

    /// Advances every row until it has its answer; `stopped` is told the slot of each as soon as its outputs are in memory.
    fn advance(&mut self, stopped: &mut dyn FnMut(usize)) -> Result<(), BackendError>;
}

/// What a scenario does.
pub trait Driver: Sync {
    /// Its name in `SCENARIOS`.
    fn name(&self) -> &'static str;

    /// Its worker tells when each row of an iteration had its answer (`row_seconds` of a sample).
    fn times_rows(&self) -> bool {
        false
    }

    /// In the worker: one iteration, which began at `began` with the example `first`. `rows_at` has a place for each row where
    /// [`times_rows`](Self::times_rows), and none elsewhere: seconds from `began` to the row's answer. Unless a scenario has its own way, all
    /// rows are entered together and advanced to their answers, with no look at any of them.
    fn iterate(
        &self,
        rows: &mut dyn LiveRows,
        first: usize,
        _began: Instant,
        _rows_at: &mut [f64],
    ) -> Result<(), BackendError> {
        rows.admit(first)?;
        rows.advance(&mut |_| {})
    }

    /// In the worker, of a language model: one iteration, whose requests lie in their slots.
    ///
    /// # Errors
    /// The engine's; the scenario is for other models.
    fn serve(&self, _requests: &mut LiveRequests) -> Result<(), BackendError> {
        Err(BackendError::unavailable(format!("the scenario `{}` is not for language models", self.name())))
    }

    /// Its requests begin with prompts that were read before.
    fn keeps_prompts(&self) -> bool {
        false
    }

    /// Its requests come by themselves: a block is one iteration, and rows are slots.
    fn arrives(&self) -> bool {
        false
    }

    /// In the harness: the phase of what is read around a timed block (memory, energy, processor time).
    fn phase(&self) -> &'static str {
        "steady"
    }

    /// In the harness: what it samples of the start of a process that is timed, which took so many seconds up to its `hello`.
    fn started(&self, _t_ns: u64, _seconds: f64) -> Option<Observation> {
        None
    }

    /// In the harness: what it samples of a timed block. Unless a scenario has its own samples: time and steps of each iteration.
    ///
    /// # Errors
    /// What was told cannot be.
    fn samples(&self, block: &TimedBlock, keep: &mut dyn FnMut(Observation)) -> Result<(), String> {
        steady(block, keep);
        Ok(())
    }
}

/// A timed block of which all that is told can be.
#[derive(Clone, Copy, Debug)]
pub struct TimedBlock<'a> {
    /// Its iterations, one at least.
    pub iterations: &'a [IterationSample],
    /// Examples of the task.
    pub examples: u64,
    /// Tokens of each example's prompt; empty where the model is none of language.
    pub prompts: &'a [u64],
    /// Seconds to the first token and between tokens within which a request is well served, where the suite says.
    pub served: Option<(f64, f64)>,
    /// Seconds that it lasted for the harness, less what the kernel made either side wait for a processor.
    pub seconds: f64,
}

/// A sample before it is known which block of which run it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Where in a case it was taken.
    pub phase: &'static str,
    /// The iteration that it is of.
    pub iteration: Option<u64>,
    /// When it began, nanoseconds of the system's monotonic clock.
    pub t_ns: u64,
    /// The first example that it is of.
    pub example: Option<u64>,
    /// Examples that it is of.
    pub rows: Option<u64>,
    /// Name in [`METRICS`](ergometer_reports::metric::METRICS).
    pub metric: &'static str,
    /// In the metric's unit, or why what was told is withheld.
    pub value: Result<f64, String>,
}

impl Observation {
    /// Of a whole iteration of the steady phase.
    pub fn of(iteration: &IterationSample, metric: &'static str, value: f64) -> Self {
        Self {
            phase: "steady",
            iteration: Some(iteration.iteration),
            t_ns: iteration.t_ns,
            example: Some(iteration.example),
            rows: Some(iteration.rows),
            metric,
            value: Ok(value),
        }
    }
}

/// The driver of a scenario.
pub fn driver(scenario: &Scenario) -> &'static dyn Driver {
    let found = DRIVERS.iter().find(|d| d.name() == scenario.kind().name);
    *found.expect("a test holds DRIVERS to SCENARIOS")
}

/// Most iterations of a block with so many rows each: as many as there is room for, times of single rows included.
pub fn most_iterations(driver: &dyn Driver, rows: usize) -> usize {
    if driver.times_rows() { (MAX_ITERATIONS / rows.max(1)).max(1) } else { MAX_ITERATIONS }
}

/// The driver of the scenario that a job names; an empty word stands for batches, which is all that a job knew before it named one.
///
/// # Errors
/// This worker does not know it, or it has another number of rows.
pub fn asked(word: &str, rows: usize) -> Result<&'static dyn Driver, BackendError> {
    if word.is_empty() {
        return Ok(&offline::Offline);
    }
    let Ok(scenario) = word.parse::<Scenario>() else {
        let known: Vec<&str> = DRIVERS.iter().map(|d| d.name()).collect();
        return Err(BackendError::unavailable(format!(
            "this worker does not know the scenario `{word}` (it knows {})",
            known.join(", ")
        )));
    };
    // where requests arrive by themselves, rows are slots
    if !scenario.arrives() && scenario.rows() as usize != rows {
        return Err(BackendError::Failed(format!("scenario `{word}` does not have {rows} rows")));
    }
    Ok(driver(&scenario))
}

/// Time and steps of each iteration of a steady phase.
fn steady(block: &TimedBlock, keep: &mut dyn FnMut(Observation)) {
    for s in block.iterations {
        keep(Observation::of(s, "latency", s.latency));
        keep(Observation::of(s, "steps_used", s.steps as f64));
    }
}

#[cfg(test)]
mod tests {
    use ergometer_suites::scenario::SCENARIOS;

    use super::*;

    #[test]
    fn each_scenario_has_a_driver() {
        let drivers: Vec<&str> = DRIVERS.iter().map(|d| d.name()).collect();
        assert_eq!(drivers, SCENARIOS.iter().map(|s| s.name).collect::<Vec<_>>());
        for (driver, kind) in DRIVERS.iter().zip(SCENARIOS) {
            assert!(!driver.times_rows() || kind.worker_must_know, "{}: who does not know it tells no rows", kind.name);
        }
    }

    #[test]
    fn a_worker_refuses_what_it_does_not_know() {
        assert_eq!(asked("", 8).unwrap().name(), "offline");
        assert_eq!(asked("single-stream", 1).unwrap().name(), "single-stream");
        assert_eq!(asked("offline-b8", 8).unwrap().name(), "offline");
        for word in ["server-8", "offline", "offline-b08"] {
            let Err(BackendError::Unavailable(why)) = asked(word, 8).map(|d| d.name()) else { panic!("{word}") };
            assert!(why.reason.contains(&format!("`{word}`")) && why.reason.contains("single-stream"), "{why:?}");
        }
        assert!(matches!(asked("offline-b8", 4), Err(BackendError::Failed(_))));
    }
}
