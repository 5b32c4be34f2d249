//! `cold-start-N`: N processes, one after another; of each its start, its loading and its first answer.
//!
//! In: one row, in a process that has loaded the model and done nothing else. Out: its answer; a process start, a load time (which every
//! process has, see `runner::case`) and a first latency for each. Must not: sample anything of a steady phase, which there is none of.

use super::{Driver, Observation, TimedBlock};

/// Share of what the harness saw that a first answer must take to be believed, and what sending and hearing may take beside, in seconds.
const COVERED: f64 = 0.9;
const HEARING: f64 = 10e-3;

/// See the module.
pub struct ColdStart;

impl Driver for ColdStart {
    fn name(&self) -> &'static str {
        "cold-start"
    }

    fn phase(&self) -> &'static str {
        "first"
    }

    fn started(&self, t_ns: u64, seconds: f64) -> Option<Observation> {
        let (iteration, example, rows) = (None, None, None);
        Some(Observation { phase: "load", iteration, t_ns, example, rows, metric: "process_start", value: Ok(seconds) })
    }

    fn samples(&self, block: &TimedBlock, keep: &mut dyn FnMut(Observation)) -> Result<(), String> {
        let [only] = block.iterations else {
            return Err(format!(
                "{} iterations of a process that was asked for its first alone",
                block.iterations.len()
            ));
        };
        let seen = block.seconds;
        let value = if only.latency >= COVERED * (seen - HEARING) {
            Ok(only.latency)
        } else {
            Err(format!("the worker gave {:e} s as first latency, and the harness saw {seen:.6} s pass", only.latency))
        };
        keep(Observation { phase: self.phase(), value, ..Observation::of(only, "first_latency", 0.0) });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::IterationSample;

    fn sampled(iterations: u64, latency: f64, seconds: f64) -> Result<Vec<Observation>, String> {
        let sample = |iteration| IterationSample {
            block: 3,
            iteration,
            t_ns: 5,
            example: 0,
            rows: 1,
            latency,
            steps: 2,
            row_seconds: Vec::new(),
            requests: Vec::new(),
        };
        let (iterations, mut kept): (Vec<_>, _) = ((0..iterations).map(sample).collect(), Vec::new());
        let block = TimedBlock { iterations: &iterations, examples: 5, prompts: &[], served: None, seconds };
        ColdStart.samples(&block, &mut |o| kept.push(o)).map(|()| kept)
    }

    #[test]
    fn a_process_has_one_start_and_one_first_answer_and_nothing_steady() {
        let start = ColdStart.started(7, 0.25).unwrap();
        assert_eq!((start.metric, start.phase, start.t_ns, start.value), ("process_start", "load", 7, Ok(0.25)));
        let [first] = &sampled(1, 0.1, 0.105).unwrap()[..] else { panic!("one sample") };
        assert_eq!((first.metric, first.phase, first.iteration), ("first_latency", "first", Some(0)));
        assert_eq!((first.example, first.rows, &first.value), (Some(0), Some(1), &Ok(0.1)));
        assert!(sampled(2, 0.1, 0.3).unwrap_err().contains("asked for its first alone"));
    }

    #[test]
    fn a_first_answer_that_leaves_much_untold_is_withheld() {
        let value = |latency, seconds| sampled(1, latency, seconds).unwrap().remove(0).value;
        assert!(value(0.01, 0.3).unwrap_err().contains("the harness saw 0.300000 s pass"));
        // what is shorter than sending and hearing take
        assert_eq!(value(1e-4, 5e-3), Ok(1e-4));
    }
}
