//! Metrics of language models: rates of tokens, tokens per joule, the share of the memory's bandwidth.
//!
//! In: the steady phase of a case, its costs, the environment's ceilings. Out: values with intervals. Must not: divide tokens by joules of other blocks,
//! or hold decoding to a bandwidth of another number of threads.

use super::{Metered, Outcome, Summary, exact};
use crate::{
    ceiling::{MachineCeiling, MachineCeilings, not_measured},
    format,
    metric::TokensOf,
    missing::Missing,
    stats::{
        CONFIDENCE, Estimate,
        proportion::share,
        quantile::{median_over, quantile, sorted},
        ratio::over_level,
    },
};

/// Of the requests that show the generator's lag, those that are left out as the machine's hiccups: one in twenty.
const LAG_QUANTILE: f64 = 0.95;
/// Seconds of lag that are let pass where a suite does not say.
const LAG_BOUND: f64 = 0.01;

impl Summary<'_> {
    /// The bound of the 99th percentile of what iterations observed of this metric.
    pub(super) fn tail_of(&self, name: &str) -> Metered {
        let blocks = self.steady.block_values(name);
        self.tail_over(name, &blocks.concat(), &blocks, "observations")
    }

    /// The mean over the tokens at which logits were compared.
    pub(super) fn positions(&self, name: &str) -> Metered {
        let all = self.steady.named(name);
        match all.len() {
            0 => Err(self.missing(name)),
            n => exact(
                all.iter().sum::<f64>() / n as f64,
                n as u64,
                "mean over the tokens of parity, which belong to few texts",
            ),
        }
    }

    /// Σ counted / Σ requests.
    pub(super) fn per_request(&self, name: &str) -> Option<Estimate> {
        let units = self.steady.units(self.steady.sums_of(name, |value, rows| (value, rows)).into_iter());
        over_level(&units, self.steady.spacing(), self.steady.unit())
    }

    /// Σ tokens / Σ time.
    pub(super) fn token_rate(&self, name: &str) -> Option<Estimate> {
        let units = self.steady.units(self.steady.sums_of(name, |rate, tokens| (tokens, tokens / rate)).into_iter());
        over_level(&units, self.steady.spacing(), self.steady.unit())
    }

    /// How late requests were begun that came while nothing else was served.
    pub(super) fn arrival_lag(&self) -> Metered {
        let lags = self.lags();
        let Some(lag) = quantile(&lags, LAG_QUANTILE) else {
            let message = "no timed request came while nothing else was served";
            return Err(Missing::not_measured(
                message,
                Some("fewer requests a minute leave the engine idle now and then"),
            ));
        };
        let most = lags.last().copied().unwrap_or(lag);
        let mut outcome =
            exact(lag, lags.len() as u64, "95th percentile of requests that came while nothing else was served")?;
        outcome.notes.push(format!(
            "at most {}; ttft and goodput are withheld above {}",
            format::scaled(most, "s"),
            format::scaled(self.lag_bound(), "s")
        ));
        Ok(outcome)
    }

    /// Ascending.
    fn lags(&self) -> Vec<f64> {
        sorted(&self.steady.block_values("arrival_lag").concat())
    }

    fn lag_bound(&self) -> f64 {
        self.case_run.case.constraints.lag_bound.unwrap_or(LAG_BOUND)
    }

    /// Why times from the arrival say nothing of the engine, if so.
    pub(super) fn begun_late(&self, name: &str) -> Option<Missing> {
        let from_arrival = ["ttft", "ttft_p99", "goodput", "goodput_share"].contains(&name);
        let lag = quantile(&self.lags(), LAG_QUANTILE).filter(|lag| from_arrival && *lag > self.lag_bound())?;
        let [lag, bound] = [lag, self.lag_bound()].map(|s| format::scaled(s, "s"));
        Some(Missing::unavailable(
            format!(
                "requests were begun late by the generator, not the engine: arrival_lag is {lag}, above the bound of {bound}"
            ),
            Some("measure on a quieter machine, or write `lag_bound` if so much does not matter"),
        ))
    }

    /// Well served requests and all, by block.
    fn well_served(&self) -> std::collections::BTreeMap<u32, (f64, f64)> {
        self.steady.sums_of("goodput_share", |share, requests| ((share * requests).round(), requests))
    }

    /// The bounds, in words.
    fn bounds(&self) -> String {
        let bounds = &self.case_run.case.constraints;
        let words = |bound: Option<f64>| bound.map_or_else(String::new, |s| format::scaled(s, "s"));
        format!(
            "first token within {}, the next within {} on average",
            words(bounds.ttft_bound),
            words(bounds.tpot_bound)
        )
    }

    /// Requests that met both bounds, a second.
    pub(super) fn goodput(&self) -> Metered {
        let (well, blocks) = (self.well_served(), self.steady.blocks());
        let pairs = well.into_iter().filter_map(|(block, (good, _))| Some((block, (good, blocks.get(&block)?.1))));
        let rate = over_level(&self.steady.units(pairs), self.steady.spacing(), self.steady.unit());
        let mut outcome = self.or_missing("goodput", rate)?;
        outcome.notes.push(self.bounds());
        Ok(outcome)
    }

    /// Their share; requests of one block wait for one another.
    pub(super) fn goodput_share(&self) -> Metered {
        let blocks: Vec<(u64, u64)> =
            self.well_served().into_values().map(|(good, all)| (good as u64, all as u64)).collect();
        let mut outcome = self.or_missing("goodput_share", share(&blocks, false))?;
        outcome.estimate.method = outcome.estimate.method.replace("clusters", "blocks");
        outcome.estimate.interval = outcome.estimate.interval.map_err(|_| "one block only".to_string());
        outcome.notes.push(self.bounds());
        Ok(outcome)
    }

    /// Tokens of a request over its joules.
    pub(super) fn tokens_per_joule(&self, of: TokensOf) -> Metered {
        let domains = self.domains()?;
        let mean = |name: &str| self.or_missing(name, self.per_request(name)).map(|outcome| outcome.estimate.value);
        let tokens = match of {
            TokensOf::Input => mean("tokens_in")?,
            TokensOf::Output => mean("tokens_out")?,
            TokensOf::Total => mean("tokens_in")? + mean("tokens_out")?,
        };
        let Outcome { estimate, confidence, notes } = self.energy(domains)?;
        let interval = estimate.interval.and_then(|(lower, upper)| match lower > 0.0 {
            true => Ok((tokens / upper, tokens / lower)),
            false => Err("joules may be as few as none".into()),
        });
        let method = format!("{} tokens a request, over its joules: {}", format::number(tokens), estimate.method);
        let estimate = Estimate { value: tokens / estimate.value, interval, n: estimate.n, method };
        Ok(Outcome { estimate, confidence, notes })
    }

    /// Bytes of weights over the median time between tokens, over the bandwidth of reading so many.
    pub(super) fn bandwidth_share(&self) -> Metered {
        let case = &self.case_run.case;
        if self.on_gpu() {
            return Err(Missing::unavailable("it computes on a GPU board, whose memory is not measured", None));
        }
        let bytes = case.costs.map_or(0.0, |costs| costs.step_weight_bytes);
        if bytes <= 0.0 {
            return Err(self.missing("bandwidth_share"));
        }
        let ceilings = self.ceilings.ok_or_else(|| not_measured(""))?;
        let (ceiling, why) = reading(ceilings, bytes, case.key.threads)?;
        let units = self.steady.unit_values("tpot");
        let time = median_over(&units, self.steady.spacing(), self.steady.unit());
        let time = time.ok_or_else(|| self.missing("bandwidth_share"))?;
        let share = |seconds: f64| bytes / seconds / ceiling.best;
        let method = format!(
            "{} of weights over tpot over {} at {} threads, {} ({why}), taken as exact; {}",
            format::scaled(bytes, "B"),
            ceiling.name,
            ceiling.threads,
            format::scaled(ceiling.best, &ceiling.unit),
            time.method
        );
        let interval = time.interval.map(|(lower, upper)| (share(upper), share(lower)));
        let mut notes = Vec::new();
        if share(time.value) > 1.0 {
            notes.push("above what was measured of the memory: part of the weights came out of a nearer cache, or the ceiling is of a busier moment".into());
        }
        let estimate = Estimate { value: share(time.value), interval, n: time.n, method };
        Ok(Outcome { estimate, confidence: CONFIDENCE, notes })
    }
}

/// The bandwidth of reading so many bytes again and again: that of the measured working set which is nearest in size without being smaller, else that of
/// memory.
fn reading(ceilings: &MachineCeilings, bytes: f64, threads: u32) -> Result<(&MachineCeiling, String), Missing> {
    let reads = || ceilings.list.iter().filter(|c| c.threads == threads && c.name.starts_with("read.") && c.best > 0.0);
    let held = |c: &&MachineCeiling| c.working_set.is_some_and(|n| n as f64 >= bytes);
    let nearest = reads().filter(held).min_by_key(|c| c.working_set);
    let found = nearest.or_else(|| ceilings.at("read.dram", threads));
    found.map(|c| (c, c.what.clone())).ok_or_else(|| not_measured(&format!(" of reading at {threads} threads")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_held_to_the_level_that_holds_them() {
        let one = |name: &str, working_set, best| MachineCeiling {
            name: name.into(),
            what: String::new(),
            unit: "B/s".into(),
            threads: 2,
            best,
            median: best,
            n: 3,
            working_set,
        };
        let list = vec![
            one("read.l2", Some(1 << 20), 9.0),
            one("read.l3", Some(1 << 27), 5.0),
            one("read.dram", Some(1 << 30), 2.0),
        ];
        let all = MachineCeilings { list, ..MachineCeilings::default() };
        let of = |bytes: f64| reading(&all, bytes, 2).unwrap().0.name.clone();
        assert_eq!([of(9e5), of(9.6e7), of(2.5e8), of(9e9)], ["read.l2", "read.l3", "read.dram", "read.dram"]);
        assert!(reading(&all, 1.0, 4).is_err());
    }
}
