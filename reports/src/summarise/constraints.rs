//! How far a case keeps to what its suite asks for: a deadline, an amount of memory, joules of an example.
//!
//! In: the case's [`Constraints`](crate::case::Constraints), its timed iterations. Out: shares and ratios, above which
//! the case misses. Must not: call a case failed for missing.

use super::{Metered, Missing, Outcome, Summary, exact};
use crate::{
    format,
    stats::{
        CONFIDENCE, Estimate,
        proportion::share,
        ratio::{over_iterations, over_level},
    },
};

impl Summary<'_> {
    fn deadline(&self) -> Result<f64, Missing> {
        self.case_run.case.constraints.deadline.ok_or_else(|| Missing::not_measured("no deadline was asked for", None))
    }

    /// Share of iterations beyond the deadline; those of one block may depend on each other.
    pub(super) fn deadline_missed(&self) -> Metered {
        let deadline = self.deadline()?;
        let blocks = &self.steady.block_latencies;
        let late = |block: &Vec<f64>| block.iter().filter(|latency| **latency > deadline).count() as u64;
        let clusters: Vec<(u64, u64)> = blocks.iter().map(|block| (late(block), block.len() as u64)).collect();
        let mut outcome = self.or_missing("deadline_missed", share(&clusters, false))?;
        outcome.estimate.method = outcome.estimate.method.replace("clusters", "blocks");
        outcome.estimate.interval = outcome.estimate.interval.map_err(|_| "one block only".to_string());
        outcome.notes.push(format!("deadline {}{}", format::scaled(deadline, "s"), self.beside()));
        Ok(outcome)
    }

    /// What worked beside it, in words.
    fn beside(&self) -> String {
        match self.case_run.case.constraints.background {
            0 => String::new(),
            n => format!(", beside {n} thread{} of background load", if n == 1 { "" } else { "s" }),
        }
    }

    pub(super) fn deadline_overrun(&self) -> Metered {
        let deadline = self.deadline()?;
        let latencies = &self.steady.latencies;
        match latencies.iter().copied().max_by(f64::total_cmp) {
            None => Err(self.missing("deadline_overrun")),
            Some(longest) => {
                exact(longest / deadline, latencies.len() as u64, "longest of the timed iterations over the deadline")
            }
        }
    }

    /// Mean absolute difference of neighbouring iterations: totals over blocks.
    pub(super) fn jitter(&self) -> Option<Estimate> {
        let steady = &self.steady;
        let pairs = |block: &Vec<f64>| block.windows(2).map(|w| ((w[1] - w[0]).abs(), 1.0)).collect::<Vec<_>>();
        let each: Vec<Vec<(f64, f64)>> = steady.block_latencies.iter().map(pairs).collect();
        if let [alone] = &each[..] {
            return over_iterations(alone);
        }
        let sum = |block: &Vec<(f64, f64)>| block.iter().fold((0.0, 0.0), |(a, b), p| (a + p.0, b + p.1));
        let totals = steady.blocks().keys().copied().zip(each.iter().map(sum));
        over_level(&steady.units(totals), steady.spacing(), steady.unit())
    }

    pub(super) fn over_memory_limit(&self) -> Metered {
        let Some(limit) = self.case_run.case.constraints.memory_limit else {
            return Err(self.missing("memory_over_limit"));
        };
        let peak = self.memory_peak()?;
        let mut outcome = exact(peak.estimate.value / limit, peak.estimate.n, "memory_peak over the limit")?;
        outcome.notes = peak.notes;
        outcome.notes.push(format!("limit {}", format::scaled(limit, "B")));
        Ok(outcome)
    }

    pub(super) fn over_max_energy(&self) -> Metered {
        let Some(limit) = self.case_run.case.constraints.max_energy else {
            return Err(self.missing("energy_over_max"));
        };
        let Outcome { estimate, mut notes, .. } = self.energy(self.domains()?)?;
        notes.push(format!("limit {}", format::scaled(limit, "J")));
        Ok(Outcome { estimate: estimate.scaled(1.0 / limit), confidence: CONFIDENCE, notes })
    }
}
