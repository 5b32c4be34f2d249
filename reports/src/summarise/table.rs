//! Which cases have a metric, and which way each is summarised: the rows of [`METRICS`](crate::metric::METRICS) carried
//! out.
//!
//! In: a row, a case's [`Summary`]. Out: an outcome or why there is none. Must not: know a metric by its name where its
//! row says enough.

use super::{Metered, Missing, Outcome, Summary, blocks::Per, counted, exact};
use crate::metric::{BOTH, How, Metric, Of, PAIR};

impl Summary<'_> {
    /// Whether its case has a record of this metric.
    pub(super) fn has(&self, metric: &Metric) -> bool {
        let case = &self.case_run.case;
        match metric.of {
            Of::Every => true,
            // a task that decides row by row has no other way of counting
            Of::Questions => case.questions > 0,
            // a column of the file: all of its rows have it, or none
            Of::Valid => self.source.is_some_and(|s| s.predictions.first().is_some_and(|p| p.valid.is_some())),
            Of::Summed if metric.name == "scorer_pair" => self.summed().iter().any(|name| name.starts_with(PAIR)),
            Of::Summed => self.summed().contains(metric.name),
            // full precision is what others are held to
            Of::Reduced => case.is_reduced(),
            Of::Boards => self.on_boards(),
            Of::Halting => self.halts(),
            Of::Turns => case.interleaved.is_some(),
            Of::Scenario(word) => case.key.scenario.starts_with(word),
            Of::Scenarios(words) => words.iter().any(|word| case.key.scenario.starts_with(word)),
            Of::Deadline => case.constraints.deadline.is_some(),
            Of::Bounded => {
                let (word, bounds) = (&case.key.scenario, &case.constraints);
                BOTH.iter().any(|s| word.starts_with(s)) && bounds.ttft_bound.is_some() && bounds.tpot_bound.is_some()
            }
            Of::MemoryLimit => case.constraints.memory_limit.is_some(),
            Of::MaxEnergy => case.constraints.max_energy.is_some(),
            Of::Trainings => false,
        }
    }

    /// The names of its records: its own, or those of all pairs that a scorer program names.
    pub(super) fn names(&self, metric: &'static Metric) -> Vec<(&'static Metric, String)> {
        if metric.name != "scorer_pair" {
            return vec![(metric, metric.name.to_owned())];
        }
        self.summed().into_iter().filter(|name| name.starts_with(PAIR)).map(|name| (metric, name.to_owned())).collect()
    }

    /// The metrics of which this one is made, if meters feed them.
    pub(super) fn sources(&self, metric: &Metric) -> Vec<&'static str> {
        match metric.how {
            How::JoulesPerRight | How::OverMaxEnergy | How::TokensPerJoule(_) => {
                self.domains().unwrap_or_default().to_vec()
            }
            How::BoardJoulesPerRight => vec!["energy_gpu"],
            _ => vec![metric.name],
        }
    }

    /// The value of a metric, or why there is none.
    pub(super) fn metric(&self, metric: &Metric, name: &str) -> Metered {
        if let Some(why) = self.unbelieved(&metric.how) {
            return Err(why);
        }
        if let Some(why) = self.begun_late(metric.name) {
            return Err(why);
        }
        match metric.how {
            How::Right(right) => self.accuracy(name, right),
            How::AgainstFullPrecision => self.against_full_precision(),
            How::Latency => self.or_missing(name, self.latency()),
            How::Tail => self.tail(),
            How::Throughput => self.rate(),
            How::Window => self.window(),
            How::Single => self.single(name),
            How::Rows => self.rows(name),
            How::Largest => self.largest(name),
            How::Held => self.held(name),
            How::Mean => self.mean(name),
            How::PerExample | How::FlopsExecuted => self.per_block(name, Per::Example),
            How::PerSecond => self.per_block(name, Per::Second),
            How::Energy(_) => self.energy(&[name]),
            How::EdgeOf(energy) => self.edge(name, energy),
            How::MemoryPeak => self.memory_peak(),
            How::MemoryAdded => {
                let (peak, base) = (self.memory_peak()?, self.largest("memory_base")?);
                let value = peak.estimate.value - base.estimate.value;
                let added = exact(value, peak.estimate.n, "difference of memory_peak and memory_base")?;
                Ok(Outcome { notes: peak.notes, ..added })
            }
            How::JoulesPerRight => self.joules_per_right(),
            How::BoardJoulesPerRight => self.board_joules_per_right(),
            How::Steps => self.or_missing(name, self.steps()),
            How::FlopsModel => self.or_missing(name, self.flops_model()),
            How::FlopRate => self.or_missing(name, self.flop_rate()),
            How::ShareOfCeiling => self.share_of_ceiling(),
            How::Counted(count) => {
                self.or_missing(name, self.case_run.case.costs.as_ref().map(|costs| counted(count(costs))))
            }
            How::Routed(routed) => self.routed(name, routed),
            How::Parity => self.parity(),
            How::Speedup => self.speedup(),
            How::Halting(error) => self.or_missing(name, self.halting(error)),
            How::Sums(how) => self.or_missing(name, self.combined(name, how)),
            How::DeadlineMissed => self.deadline_missed(),
            How::DeadlineOverrun => self.deadline_overrun(),
            How::Jitter => self.or_missing(name, self.jitter()),
            How::OverMemoryLimit => self.over_memory_limit(),
            How::OverMaxEnergy => self.over_max_energy(),
            How::TailOf(of) => self.tail_of(of),
            How::Positions => self.positions(name),
            How::PerRequest => self.or_missing(name, self.per_request(name)),
            How::TokenRate => self.or_missing(name, self.token_rate(name)),
            How::ArrivalLag => self.arrival_lag(),
            How::Goodput => self.goodput(),
            How::GoodputShare => self.goodput_share(),
            How::TokensPerJoule(of) => self.tokens_per_joule(of),
            How::BandwidthShare => self.bandwidth_share(),
            How::FromLog => Err(Missing::not_measured("a run trains nothing", None)),
        }
    }

    /// Why the worker's word on a metric is not believed, if so.
    fn unbelieved(&self, how: &How) -> Option<Missing> {
        match how {
            How::Latency | How::Tail | How::Rows | How::TailOf(_) | How::TokenRate => self.distrust.clone(),
            How::BandwidthShare | How::Goodput | How::GoodputShare => self.distrust.clone(),
            How::DeadlineMissed | How::DeadlineOverrun | How::Jitter => self.distrust.clone(),
            How::FlopsExecuted => self.overclaimed(),
            How::FlopsModel | How::FlopRate | How::ShareOfCeiling if self.accuracy_only() => {
                let claimed = if matches!(how, How::FlopsModel) { None } else { self.overclaimed() };
                claimed.or_else(|| self.unseen_work().then(unseen))
            }
            _ => None,
        }
    }
}

/// What it computed is unknown.
fn unseen() -> Missing {
    Missing::unavailable(
        "accuracy only: nobody compared its outputs, and it does not say what it executed",
        Some("a worker that shows `outputs`, or sends `counted`, gets it"),
    )
}
