//! Whether the iterations that a worker tells of fill the time that the harness saw pass.
//!
//! In: the steady phase of a case with its samples of `window`. Out: how much of them is told, and what a reader must know where it is too
//! little. Must not: trust a worker's times further than its harness' clock goes, or judge a run that has no windows.

use crate::{format, missing::Missing, steady::Steady};

/// Share of the harness's time that iterations must fill, for their times to be believed.
pub const LEAST: f64 = 0.9;

/// Seconds of each block that need not be told: hearing `go`, and sending `measured`.
pub const ALLOWED: f64 = 1e-3;

/// Iterations shorter than this, in seconds, may be too short beside the loop around them.
const SHORT: f64 = 50e-6;

/// Time told and time seen of the timed blocks of a case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// Seconds of the iterations, as the worker tells them.
    pub told: f64,
    /// Seconds between `go` and `measured`, as the harness saw them.
    pub seen: f64,
    /// Blocks and iterations.
    blocks: usize,
    iterations: usize,
}

impl Told {
    /// Of the blocks whose windows were recorded, if all were.
    pub fn of(steady: &Steady) -> Option<Self> {
        let windows = steady.totals("window");
        let (blocks, iterations) = (steady.blocks().len(), steady.latencies.len());
        let told = steady.blocks().values().map(|(_, seconds)| seconds).sum();
        (blocks > 0 && windows.len() == blocks).then(|| Self { told, seen: windows.values().sum(), blocks, iterations })
    }

    /// Share of the time seen that is told.
    pub fn share(&self) -> f64 {
        if self.seen > 0.0 { self.told / self.seen } else { 0.0 }
    }

    /// Why the times of iterations are not believed, if so.
    pub fn trouble(&self) -> Option<Missing> {
        if self.told >= LEAST * (self.seen - ALLOWED * self.blocks as f64) {
            return None;
        }
        let each = self.seen / self.iterations.max(1) as f64;
        let fill = format!(
            "iterations fill {} % of the {} that the harness saw",
            format::number(100.0 * self.share()),
            format::scaled(self.seen, "s")
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
    pub fn trouble(&self) -> Option<Missing> {
        Told::of(self)?.trouble()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{case::Sample, store::Samples};

    /// Blocks of iterations of this latency, each in a window of so many seconds.
    fn trouble(blocks: u32, each: u64, latency: f64, window: f64) -> Option<String> {
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
        Steady::of(&samples, &[]).trouble().map(|why| why.message.replace('\u{202f}', " "))
    }

    #[test]
    fn what_is_told_is_held_to_what_was_seen() {
        assert_eq!(trouble(10, 20, 0.01, 0.2), None);
        // nine tenths of what is left of a window without its millisecond
        assert_eq!(trouble(10, 18, 0.01, 0.2009), None);
        let why = trouble(10, 18, 0.01, 0.202).unwrap();
        assert!(why.contains("iterations fill 89.1 % of the 2.02 s"), "{why}");
        for told in [0.005, 1e-3, 1e-8] {
            assert!(trouble(10, 20, told, 0.2).unwrap().contains("what was done in the rest is not told"));
        }
        // one step of a check
        assert_eq!(trouble(1, 1, 30e-6, 1e-3), None);
        assert!(trouble(1, 1, 30e-6, 10e-3).is_some());
        let short = trouble(2, 10_000, 19e-6, 0.26).unwrap();
        assert!(short.starts_with("iterations of 26.0 µs are shorter than what can be checked"), "{short}");
        assert_eq!(trouble(2, 10_000, 19e-6, 0.2), None);
    }

    #[test]
    fn a_run_without_windows_is_not_judged() {
        assert_eq!(Told::of(&Steady::of(&Samples::default(), &[])), None);
    }
}
