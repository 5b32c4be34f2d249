//! Whether the iterations that a worker reports fill the time that passed on the harness's clock.
//!
//! In: the steady phase of a case with its samples of `window`. Out: the share of that time that is reported, and why
//! the worker's times are not believed where it is too small. Must not: trust a worker's times against the harness's
//! clock, or judge a run that has no windows.

use crate::{format, missing::Missing, steady::Steady};

/// Share of the harness's time that iterations must fill, for their times to be believed.
const LEAST: f64 = 0.9;

/// Seconds of each block that need not be reported: receiving `go`, and sending `measured`.
const ALLOWED: f64 = 1e-3;

/// Iterations shorter than this, in seconds, may be too short beside the loop around them.
const SHORT: f64 = 50e-6;

/// Time of the timed blocks of a case: as its worker reports it, and on the harness's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReportedTime {
    /// Seconds of the iterations, as the worker reports them.
    pub reported: f64,
    /// Seconds between `go` and `measured`, on the harness's clock.
    pub observed: f64,
    /// Blocks and iterations.
    blocks: usize,
    iterations: usize,
}

impl ReportedTime {
    /// Of the blocks whose windows were recorded, if all were.
    pub fn of(steady: &Steady) -> Option<Self> {
        let windows = steady.totals("window");
        let (blocks, iterations) = (steady.blocks().len(), steady.latencies.len());
        let reported = steady.blocks().values().map(|(_, seconds)| seconds).sum();
        (blocks > 0 && windows.len() == blocks).then(|| Self {
            reported,
            observed: windows.values().sum(),
            blocks,
            iterations,
        })
    }

    /// Share of the observed time that is reported.
    pub fn share(&self) -> f64 {
        if self.observed > 0.0 { self.reported / self.observed } else { 0.0 }
    }

    /// Why the times of iterations are not believed, if so.
    pub fn distrust(&self) -> Option<Missing> {
        if self.reported >= LEAST * (self.observed - ALLOWED * self.blocks as f64) {
            return None;
        }
        let each = self.observed / self.iterations.max(1) as f64;
        let fill = format!(
            "iterations fill {} % of the {} that the harness saw",
            format::number(100.0 * self.share()),
            format::scaled(self.observed, "s")
        );
        let (message, hint) = if each < SHORT {
            (
                format!("iterations of {} are shorter than what can be checked: {fill}", format::scaled(each, "s")),
                "a larger batch makes iterations longer",
            )
        } else {
            (
                format!("{fill}: what was done in the rest is not told"),
                "on a busy machine a worker is kept waiting between iterations; measure on a quieter one",
            )
        };
        Some(Missing { kind: "unavailable".into(), message, hint: Some(hint.into()) })
    }
}

impl Steady {
    /// Why the times of its iterations are not believed, if so.
    pub fn distrust(&self) -> Option<Missing> {
        ReportedTime::of(self)?.distrust()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{case::Sample, store::Samples};

    /// Blocks of iterations of this latency, each in a window of so many seconds.
    fn distrust(blocks: u32, each: u64, latency: f64, window: f64) -> Option<String> {
        let sample = |block: u32, iteration: Option<u64>, metric: &'static str, value: f64| Sample {
            block,
            phase: "steady",
            iteration,
            t_ns: u64::from(block) * 1_000_000_000 + iteration.unwrap_or(0) * 1000,
            example: None,
            rows: Some(1),
            metric,
            value,
        };
        let samples: Samples = (0..blocks)
            .flat_map(|b| {
                let iterations = (0..each).map(move |i| sample(b, Some(i), "latency", latency));
                iterations.chain([sample(b, None, "window", window)])
            })
            .collect();
        Steady::of(&samples, &[]).distrust().map(|why| why.message.replace('\u{202f}', " "))
    }

    #[test]
    fn reported_time_is_held_to_the_harness_clock() {
        assert_eq!(distrust(10, 20, 0.01, 0.2), None);
        // nine tenths of what is left of a window without its millisecond
        assert_eq!(distrust(10, 18, 0.01, 0.2009), None);
        let why = distrust(10, 18, 0.01, 0.202).unwrap();
        assert!(why.contains("iterations fill 89.1 % of the 2.02 s"), "{why}");
        for latency in [0.005, 1e-3, 1e-8] {
            assert!(distrust(10, 20, latency, 0.2).unwrap().contains("what was done in the rest is not told"));
        }
        // one step of a check
        assert_eq!(distrust(1, 1, 30e-6, 1e-3), None);
        assert!(distrust(1, 1, 30e-6, 10e-3).is_some());
        let short = distrust(2, 10_000, 19e-6, 0.26).unwrap();
        assert!(short.starts_with("iterations of 26.0 µs are shorter than what can be checked"), "{short}");
        assert_eq!(distrust(2, 10_000, 19e-6, 0.2), None);
    }

    #[test]
    fn a_run_without_windows_is_not_judged() {
        assert_eq!(ReportedTime::of(&Steady::of(&Samples::default(), &[])), None);
    }
}
