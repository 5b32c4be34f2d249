//! `multi-stream-N`: N rows issued together, the next N when all have their answers; a time for each row beside that of the whole.
//!
//! In: N rows. Out: their answers, and when each was in memory; a latency for each iteration and for each row. Must not: hold a row back for
//! the others, or believe a row's time that its iteration contradicts.
//!
//! Rows that halt early are dropped from the engine at once, so that their answers come before those of rows that go on.

use std::time::Instant;

use super::{Driver, LiveRows, Observation, TimedBlock, steady};
use crate::backends::BackendError;
use crate::protocol::IterationSample;

/// The shortest time that a clock can tell.
const LEAST: f64 = 1e-8;

/// Seconds by which two readings of a clock may disagree: a worker may read another one for its rows.
const CLOCK: f64 = 2e-6;

/// Share of an iteration that must have passed when its last row stops, and what may come after that beside, in seconds.
const COVERED: f64 = 0.9;
const AFTER: f64 = 30e-6;

/// See the module.
pub struct MultiStream;

impl Driver for MultiStream {
    fn name(&self) -> &'static str {
        "multi-stream"
    }

    fn times_rows(&self) -> bool {
        true
    }

    fn iterate(
        &self,
        rows: &mut dyn LiveRows,
        first: usize,
        began: Instant,
        rows_at: &mut [f64],
    ) -> Result<(), BackendError> {
        rows.admit(first)?;
        rows.advance(&mut |slot| {
            if let Some(at) = rows_at.get_mut(slot) {
                *at = began.elapsed().as_secs_f64();
            }
        })
    }

    fn samples(&self, block: &TimedBlock, keep: &mut dyn FnMut(Observation)) -> Result<(), String> {
        steady(block, keep);
        block.iterations.iter().try_for_each(check)?;
        // a busy machine takes the processor away after the last row now and then, and not in most iterations
        let untold = block.iterations.iter().filter_map(untold).collect::<Vec<_>>();
        let trouble = untold.first().filter(|_| 2 * untold.len() > block.iterations.len());
        for s in block.iterations {
            for (row, seconds) in (0..).zip(&s.row_seconds) {
                let example = Some((s.example + row) % block.examples);
                let value = trouble.map_or(Ok(*seconds), |why| Err(why.clone()));
                keep(Observation { example, rows: Some(1), value, ..Observation::of(s, "row_latency", *seconds) });
            }
        }
        Ok(())
    }
}

/// Each row has its answer within its iteration.
fn check(s: &IterationSample) -> Result<(), String> {
    if let Some(wrong) = s.row_seconds.iter().find(|t| !(t.is_finite() && **t >= LEAST && **t <= s.latency + CLOCK)) {
        return Err(format!("sample {} has a row of {wrong:e} s, and the whole took {:e} s", s.iteration, s.latency));
    }
    Ok(())
}

/// Why the times of an iteration's rows are not believed: the last of them does not end it.
fn untold(s: &IterationSample) -> Option<String> {
    let last = s.row_seconds.iter().copied().fold(0.0, f64::max);
    let (i, whole) = (s.iteration, s.latency);
    (last < COVERED * (whole - AFTER)).then(|| {
        format!("the last row of sample {i}, as of most others, had its answer after {last:e} s of {whole:e} s: what was done in the rest is not told")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three rows that stop one after another, each when the clock has moved on.
    struct Three(Instant);

    impl LiveRows for Three {
        fn admit(&mut self, _: usize) -> Result<(), BackendError> {
            Ok(())
        }

        fn advance(&mut self, stopped: &mut dyn FnMut(usize)) -> Result<(), BackendError> {
            for slot in [2, 0, 1] {
                let before = self.0.elapsed();
                while self.0.elapsed() == before {}
                stopped(slot);
            }
            Ok(())
        }
    }

    #[test]
    fn each_row_has_the_time_at_which_it_stopped() {
        let (began, mut rows_at) = (Instant::now(), [0.0; 3]);
        MultiStream.iterate(&mut Three(began), 0, began, &mut rows_at).unwrap();
        let whole = began.elapsed().as_secs_f64();
        let [first, second, third] = rows_at;
        assert!(0.0 < third && third < first && first < second && second <= whole, "{rows_at:?} of {whole}");
    }

    fn sampled(rows: &[f64]) -> Result<Vec<Observation>, String> {
        told(&[rows])
    }

    fn told(iterations: &[&[f64]]) -> Result<Vec<Observation>, String> {
        let sample = |(i, rows): (usize, &&[f64])| IterationSample {
            block: 3,
            iteration: i as u64,
            t_ns: 5,
            example: 4,
            rows: 3,
            latency: 0.1,
            steps: 9,
            row_seconds: rows.to_vec(),
            requests: Vec::new(),
        };
        let iterations: Vec<_> = iterations.iter().enumerate().map(sample).collect();
        let mut kept = Vec::new();
        let block = TimedBlock { iterations: &iterations, examples: 5, prompts: &[], served: None, seconds: 0.1 };
        MultiStream.samples(&block, &mut |o| kept.push(o)).map(|()| kept)
    }

    #[test]
    fn rows_are_samples_of_their_own_examples() {
        let kept = sampled(&[0.02, 0.1, 0.05]).unwrap();
        let rows: Vec<_> = kept.iter().filter(|o| o.metric == "row_latency").collect();
        let told: Vec<_> = rows.iter().map(|o| (o.example, o.rows, o.value.clone())).collect();
        assert_eq!(told, [(Some(4), Some(1), Ok(0.02)), (Some(0), Some(1), Ok(0.1)), (Some(1), Some(1), Ok(0.05))]);
        let whole: Vec<_> = kept.iter().filter(|o| o.rows == Some(3)).map(|o| o.metric).collect();
        assert_eq!(whole, ["latency", "steps_used"]);
    }

    #[test]
    fn rows_that_their_iteration_contradicts_are_refused() {
        for (rows, why) in [
            ([0.02, 0.2, 0.05], "the whole took 1e-1 s"),
            ([0.0, 0.1, 0.05], "a row of 0e0 s"),
            ([f64::NAN, 0.1, 0.05], "a row of NaN s"),
            ([-0.1, 0.1, 0.05], "a row of -1e-1 s"),
        ] {
            let error = sampled(&rows).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn rows_that_most_iterations_do_not_end_with_are_withheld() {
        let (whole, half) = ([0.02, 0.1, 0.05], [0.02, 0.05, 0.05]);
        let values = |iterations: &[&[f64]]| -> Vec<Result<f64, String>> {
            let rows = told(iterations).unwrap().into_iter().filter(|o| o.metric == "row_latency");
            rows.map(|o| o.value).collect()
        };
        // one of two may be the machine's doing
        assert!(values(&[&half, &whole]).iter().all(Result::is_ok));
        let withheld = values(&[&half, &whole, &half]);
        assert!(withheld.len() == 9 && withheld.iter().all(|v| v.as_ref().is_err_and(|e| e.contains("is not told"))));
    }
}
