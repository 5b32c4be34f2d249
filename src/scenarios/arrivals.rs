//! `arrivals-R`: requests come at random, R a minute on average, `arrivals-trace`: when a trace says; both are served by continuous batching: before
//! each decoded token, requests that wait fill the slots that are free.
//!
//! In: a schedule. Out: tokens and times of each request, its latency from the time at which it was due. Must not: let a request that comes late to an
//! engine at work begin its clock late.
//!
//! Gaps are exponential (Poisson arrivals), drawn from a seed, so that every engine gets the same schedule. What waits because the engine is at work
//! waits in its own latency. No generator runs beside the engine, but this loop sleeps where there is nothing to serve, and may be woken late: a request
//! that came meanwhile and was begun late was held up by the generator and not by the engine, and the harness samples by how much (`arrival_lag`).

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::language::{RequestSamples, of_requests};
use super::requests::LiveRequests;
use super::{Driver, Observation, TimedBlock};
use crate::backends::BackendError;

/// See the module.
pub struct Arrivals {
    /// Its scenario's: one of requests at random, one of a trace.
    pub name: &'static str,
}

/// Most requests of one iteration.
pub const MAX_REQUESTS: usize = 10_000;

/// Seconds at which requests arrive: at least `least` of them, and all that come within `seconds`.
pub fn schedule(per_minute: u32, least: u64, seconds: f64, seed: u64) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut all, mut at) = (Vec::new(), 0.0);
    loop {
        let share: f64 = random.random();
        at += -(1.0 - share).ln() * 60.0 / f64::from(per_minute.max(1));
        if (at >= seconds && all.len() as u64 >= least) || all.len() == MAX_REQUESTS {
            return all;
        }
        all.push(at);
    }
}

impl Driver for Arrivals {
    fn name(&self) -> &'static str {
        self.name
    }

    fn arrives(&self) -> bool {
        true
    }

    fn serve(&self, requests: &mut LiveRequests) -> Result<(), BackendError> {
        let slots = requests.engine.slots();
        let mut free: Vec<usize> = (0..slots).rev().collect();
        let (mut next, mut oldest, n) = (0, 0, requests.all.len());
        while oldest < n {
            let (first, now) = (next, requests.now());
            while next < n && requests.all[next].arrived <= now {
                let Some(slot) = free.pop() else { break };
                requests.engine.clear(slot);
                requests.all[next].slot = slot;
                next += 1;
            }
            if first < next {
                requests.begin(first..next)?;
            }
            let worked = requests.advance(oldest..next)?;
            for request in &mut requests.all[oldest..next] {
                // a slot is given back once
                if request.is_done(&requests.asked) && request.slot < slots {
                    free.push(request.slot);
                    request.slot = usize::MAX;
                }
            }
            while oldest < next && requests.all[oldest].slot == usize::MAX {
                oldest += 1;
            }
            if worked == 0 && oldest == next && next < n {
                let wait = requests.all[next].arrived - requests.now();
                std::thread::sleep(Duration::from_secs_f64(wait.max(0.0)));
            }
        }
        Ok(())
    }

    fn samples(&self, block: &TimedBlock, keep: &mut dyn FnMut(Observation)) -> Result<(), String> {
        // prompts and tokens of several requests share their time
        of_requests(block, RequestSamples { prefill: false, decode: false, gaps: true, first: true }, keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_has_its_rate_and_is_the_same_again() {
        let all = schedule(600, 1, 100.0, 7);
        // 1000 on average, with a standard deviation of 32
        assert!((870..=1130).contains(&all.len()), "{}", all.len());
        assert!(all.is_sorted() && all.last().is_some_and(|t| *t < 100.0));
        assert_eq!(all, schedule(600, 1, 100.0, 7));
        assert_ne!(all, schedule(600, 1, 100.0, 8));
        assert_eq!(schedule(1, 5, 0.0, 7).len(), 5);
    }
}
