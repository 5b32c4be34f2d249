//! From observations to records: every metric of every case is a value with its interval, or a reason.
//!
//! In: a [`RecordedRun`]. Out: one [`Record`] per case × metric that it has, in the order of the run and of
//! [`METRICS`]. Must not: invent a value (an unavailable meter is never a zero), or give a number to a case that ended
//! in an error.

use std::collections::BTreeMap;

use crate::{
    case::{Case, LayerRouting, Verdict},
    ceiling::MachineCeilings,
    compare::{Compared, precision::Finding, protocol::fingerprint, speedup::Speedup},
    environment::Environment,
    format,
    metric::{How, METRICS, Metric, Right, RouterStatistic},
    missing::Missing,
    record::Record,
    reported_time::ReportedTime,
    stats::{
        CONFIDENCE, Estimate,
        level::Spacing,
        quantile::{TAIL_CONFIDENCE, Tail, dependent, median, median_over, tail},
        ratio::{over_iterations, over_level},
    },
    steady::Steady,
    store::{CaseRun, RecordedRun},
};

mod blocks;
mod ceiling;
mod constraints;
mod domains;
mod halting;
mod language;
mod questions;
pub(crate) mod steps;
mod sums;
mod table;

/// All records of a run, beside what its pairs of cases show.
pub(crate) fn records(run: &RecordedRun, compared: &Compared) -> Vec<Record> {
    let by_id: BTreeMap<&str, &CaseRun> = run.cases.iter().map(|c| (c.case.id.as_str(), c)).collect();
    let mut records = Vec::with_capacity(run.cases.len() * METRICS.len());
    for case_run in &run.cases {
        let case = &case_run.case;
        let source = case.accuracy_from.as_deref().and_then(|id| by_id.get(id)).copied();
        let (finding, speedup) = (compared.findings.get(&case.id), compared.speedups.get(&case.id));
        let ceilings = run.environment.ceilings.as_ref();
        let steady = Steady::of(&case_run.samples, &case.starts);
        let (distrust, environment) = (steady.distrust(), &run.environment);
        let summary = Summary { case_run, source, finding, speedup, ceilings, steady, distrust, environment };
        for (metric, name) in METRICS.iter().filter(|m| summary.has(m)).flat_map(|m| summary.names(m)) {
            let outcome = match compared.error(case) {
                Some(error) => Err(error.into()),
                None => summary.metric(metric, &name),
            };
            let mut record = Record { metric: name, ..record(case, metric, outcome) };
            if let Some(estimators) = estimators(run, &summary.sources(metric)).filter(|_| record.value.is_some()) {
                add_note(&mut record, &format!("estimated by {estimators}, not metered"));
            }
            if matches!(metric.how, How::Latency)
                && record.value.is_some()
                && let Some((first, second)) = summary.steady.drift()
            {
                let change = 100.0 * (second / first - 1.0);
                add_note(
                    &mut record,
                    &format!("drifted: the median changed by {change:+.1} % from first to second half"),
                );
            }
            if matches!(metric.how, How::Right(Right::Questions)) {
                record.baselines.clone_from(&case.baselines);
            }
            if let How::Right(right) = metric.how {
                // rows and cells are scored one by one, whatever votes on a question
                record.protocol = fingerprint(case, matches!(right, Right::Questions | Right::Outputs));
            }
            records.push(record);
        }
    }
    records
}

/// A value with what cannot be said in an [`Estimate`].
struct Outcome {
    estimate: Estimate,
    confidence: f64,
    /// For the record's note.
    notes: Vec<String>,
}

type Metered = Result<Outcome, Missing>;

struct Summary<'a> {
    case_run: &'a CaseRun,
    source: Option<&'a CaseRun>,
    finding: Option<&'a Result<Finding, Missing>>,
    speedup: Option<&'a Result<Speedup, Missing>>,
    ceilings: Option<&'a MachineCeilings>,
    steady: Steady,
    /// Why the times of its iterations are not believed, if so.
    distrust: Option<Missing>,
    environment: &'a Environment,
}

impl Summary<'_> {
    fn against_full_precision(&self) -> Metered {
        match self.finding {
            Some(Ok(finding)) => {
                let (estimate, notes) = (finding.estimate.clone(), vec![finding.text()]);
                Ok(Outcome { estimate, confidence: CONFIDENCE, notes })
            }
            Some(Err(missing)) => Err(missing.clone()),
            None => Err(self.missing("accuracy_vs_f32")),
        }
    }

    fn speedup(&self) -> Metered {
        match self.speedup {
            Some(Ok(Speedup { estimate, notes })) => {
                Ok(Outcome { estimate: estimate.clone(), confidence: CONFIDENCE, notes: notes.clone() })
            }
            Some(Err(missing)) => Err(missing.clone()),
            None => Err(self.missing("speedup")),
        }
    }

    fn tail(&self) -> Metered {
        self.tail_over("latency_p99", &self.steady.latencies, &self.steady.block_latencies, "iterations")
    }

    /// The bound for these observations, of which `blocks` has the same by block.
    fn tail_over(&self, name: &str, values: &[f64], blocks: &[Vec<f64>], what: &str) -> Metered {
        if values.is_empty() {
            return Err(self.missing(name));
        }
        let in_a_row = self.steady.in_a_row().then_some("blocks follow one another, and see one mood of the machine");
        let dependent = in_a_row.or_else(|| dependent(blocks));
        match (tail(values, 0.99), dependent) {
            (Tail::Bound { .. }, Some(why)) => Err(Missing {
                kind: "unavailable".into(),
                message: format!("a bound takes {what} as independent, and here {why}"),
                hint: Some(
                    if in_a_row.is_some() {
                        "ten blocks with pauses of at least half their length have one"
                    } else {
                        "measure on a quieter machine"
                    }
                    .into(),
                ),
            }),
            (Tail::Bound { upper, over }, None) => {
                let n = values.len() as u64;
                let method = format!(
                    "upper bound of the percentile by early stopping as in MLPerf LoadGen, t = {over}; {what} taken as independent; within this run, what comes less often than once in its {} is not in it",
                    format::scaled(values.iter().sum(), "s")
                );
                let estimate = Estimate { value: upper, interval: Ok((f64::NEG_INFINITY, upper)), n, method };
                Ok(Outcome { estimate, confidence: TAIL_CONFIDENCE, notes: Vec::new() })
            }
            (Tail::TooFew { needs }, _) => Err(Missing {
                kind: "too-few".into(),
                message: format!("n = {} is too small, it needs {needs}", values.len()),
                hint: Some("measure for longer".into()),
            }),
        }
    }

    fn latency(&self) -> Option<Estimate> {
        let steady = &self.steady;
        let mut estimate = median_over(&steady.unit_latencies(), steady.spacing(), steady.unit())?;
        if let Some((first, second)) = steady.drift() {
            self.widen(&mut estimate, [first, second]);
        }
        Some(estimate)
    }

    /// Widens an interval to both halves of the steady phase, where the machine drifted between them.
    fn widen(&self, estimate: &mut Estimate, halves: [f64; 2]) {
        if let Ok((lower, upper)) = &mut estimate.interval {
            *lower = halves.into_iter().fold(*lower, f64::min);
            *upper = halves.into_iter().fold(*upper, f64::max);
            estimate.method += ", widened to both halves";
        }
    }

    /// Throughput, with what it rests on where that is not the worker's own times.
    fn rate(&self) -> Metered {
        let mut outcome = self.or_missing("throughput", self.throughput())?;
        outcome
            .notes
            .extend(self.distrust.as_ref().map(|why| format!("by the harness's clock, since {}", why.message)));
        Ok(outcome)
    }

    /// The time that passed on the harness's clock, and how much of it is reported.
    fn window(&self) -> Metered {
        let Some(time) = ReportedTime::of(&self.steady) else { return Err(self.missing("window")) };
        let mut outcome = exact(time.observed, self.steady.blocks().len() as u64, "sum over blocks")?;
        outcome.notes.push(format!("iterations fill {} % of it", format::number(100.0 * time.share())));
        Ok(outcome)
    }

    fn throughput(&self) -> Option<Estimate> {
        let steady = &self.steady;
        if self.distrust.is_some() {
            let windows = steady.totals("window");
            let seen = steady.blocks().iter().map(|(block, (rows, _))| (*block, (*rows, windows[block])));
            return over_level(&steady.units(seen), steady.spacing(), steady.unit());
        }
        let pairs: Vec<_> = steady.rows.iter().copied().zip(steady.latencies.iter().copied()).collect();
        let units = steady.units(steady.blocks().iter().map(|(block, pair)| (*block, *pair)));
        let mut estimate = match steady.blocks().len() {
            1 if steady.spacing() != Spacing::Independent => over_iterations(&pairs)?,
            _ => over_level(&units, steady.spacing(), steady.unit())?,
        };
        if steady.drift().is_some() {
            let rate = |half: &[(f64, f64)]| {
                let (rows, seconds) = half.iter().fold((0.0, 0.0), |(a, b), p| (a + p.0, b + p.1));
                rows / seconds
            };
            let (first, second) = pairs.split_at(pairs.len() / 2);
            self.widen(&mut estimate, [rate(first), rate(second)]);
        }
        Some(estimate)
    }

    /// Its outputs were compared with nothing: what it computes may be something other than the model.
    fn accuracy_only(&self) -> bool {
        self.case_run.case.verdict == Some(Verdict::AccuracyOnly)
    }

    /// What it computed is unknown.
    fn unseen_work(&self) -> bool {
        self.accuracy_only() && self.steady.named("flops_executed").is_empty()
    }

    fn single(&self, name: &str) -> Metered {
        let values = self.steady.named(name);
        let estimate = median(values).map(|e| match values.len() {
            1 => Estimate { method: "one observation".into(), interval: Err("one observation".into()), ..e },
            _ => e,
        });
        self.or_missing(name, estimate)
    }

    /// Rows of one iteration depend on each other, so that the interval is over blocks.
    fn rows(&self, name: &str) -> Metered {
        let units = self.steady.unit_values(name);
        self.or_missing(name, median_over(&units, self.steady.spacing(), self.steady.unit()))
    }

    fn memory_peak(&self) -> Metered {
        let name = "memory_peak";
        let peak = self.largest(name)?;
        let why = self.reason(name).map(|r| format!(": {}", r.message)).unwrap_or_default();
        let notes = self.complete(self.steady.totals(name).len(), name, why)?.into_iter().collect();
        Ok(Outcome { notes, ..peak })
    }

    /// What was seen on average while blocks were timed; the block with the most stands in the note.
    fn mean(&self, name: &str) -> Metered {
        let loads = self.steady.named(name);
        let n = loads.len() as u64;
        if n == 0 {
            return Err(self.missing(name));
        }
        let most = loads.iter().copied().fold(0.0, f64::max);
        let outcome = exact(loads.iter().sum::<f64>() / n as f64, n, "mean over blocks")?;
        Ok(Outcome { notes: vec![format!("at most {} in a block", format::number(most))], ..outcome })
    }

    fn largest(&self, name: &str) -> Metered {
        let values = self.steady.named(name);
        match values.iter().copied().max_by(f64::total_cmp) {
            Some(value) => exact(value, values.len() as u64, "largest reading"),
            None => Err(self.missing(name)),
        }
    }

    /// Bytes that a worker says it holds: no more than its process ever had, unless it has a board's memory.
    fn held(&self, name: &str) -> Metered {
        let held = self.largest(name)?;
        let had = ["memory_load", "memory_warmup", "memory_peak"].map(|metric| self.steady.named(metric)).concat();
        let most = had.into_iter().fold(0.0, f64::max);
        if most > 0.0 && held.estimate.value > most && !self.on_gpu() {
            let [reported, most] = [held.estimate.value, most].map(|bytes| format::scaled(bytes, "B"));
            let message = format!("the worker says {reported}, and its process never had more than {most} of memory");
            let hint = "one that computes on a board says so: its `loaded` tells `device` in its versions";
            return Err(Missing { kind: "unavailable".into(), message, hint: Some(hint.into()) });
        }
        Ok(held)
    }

    fn parity(&self) -> Metered {
        match &self.case_run.case.verdict {
            Some(Verdict::Reference { largest, examples, .. }) => {
                exact(*largest, (*examples).into(), "largest difference to the reference interpreter")
            }
            Some(Verdict::Peer { largest, peer, .. }) => exact(*largest, 1, &format!("largest difference to {peer}")),
            Some(Verdict::AccuracyOnly) => Err(Missing {
                kind: "unavailable".into(),
                message: "there are no outputs to compare, only right and wrong answers".into(),
                hint: None,
            }),
            None => Err(self.missing("parity_error")),
        }
    }

    /// Of the layers of the case that scored the answers, the most uneven one.
    fn routed(&self, name: &str, RouterStatistic { of, worst, which }: RouterStatistic) -> Metered {
        let case = &self.case_run.case;
        if ["dense", "recursive"].contains(&case.key.family.as_str()) {
            let message = "the model has no router".into();
            return Err(Missing { kind: "not-applicable".into(), message, hint: None });
        }
        let layers = self.source.map(|s| &s.case.routing[..]).unwrap_or_default();
        let value = layers.iter().filter_map(of).reduce(worst);
        let tokens = layers.iter().map(LayerRouting::tokens).min().unwrap_or(0);
        let Some(value) = value else {
            let reason = self.source.and_then(|s| s.case.unavailable.iter().find(|u| u.metric == name));
            return Err(reason.map_or_else(
                || self.missing(name),
                |u| Missing { kind: "unavailable".into(), message: u.reason.clone(), hint: None },
            ));
        };
        exact(value, tokens, &format!("{which} of {} layers, n tokens of the scored examples", layers.len()))
    }

    fn or_missing(&self, name: &str, estimate: Option<Estimate>) -> Metered {
        let outcome = |estimate| Outcome { estimate, confidence: CONFIDENCE, notes: Vec::new() };
        estimate.map(outcome).ok_or_else(|| self.missing(name))
    }

    /// The recorded reason for a metric.
    fn reason(&self, name: &str) -> Option<Missing> {
        let unavailable = self.case_run.case.unavailable.iter().find(|u| u.metric == name)?;
        Some(Missing { kind: "unavailable".into(), message: unavailable.reason.clone(), hint: None })
    }

    fn missing(&self, name: &str) -> Missing {
        let absent = || format!("scenario `{}` has no steady phase", self.case_run.case.key.scenario);
        let (kind, message) = match self.reason(name) {
            Some(reason) => return reason,
            None if self.steady.is_absent() => ("not-applicable", absent()),
            None => ("not-measured", format!("this run has no observation of {name}")),
        };
        Missing { kind: kind.into(), message, hint: None }
    }
}

fn exact(value: f64, n: u64, method: &str) -> Metered {
    let interval = Err("a reading, not an estimate".into());
    let estimate = Estimate { value, interval, n, method: method.into() };
    Ok(Outcome { estimate, confidence: CONFIDENCE, notes: Vec::new() })
}

fn counted(value: f64) -> Estimate {
    Estimate { value, interval: Err("exact".into()), n: 1, method: "counted from the graph".into() }
}

/// Names of the ready meters that feed one of these metrics with estimates.
fn estimators(run: &RecordedRun, metrics: &[&str]) -> Option<String> {
    let names: Vec<&str> = (run.environment.meters.iter())
        .filter(|m| {
            m.estimate && m.unavailable.is_none() && m.metrics.iter().any(|name| metrics.contains(&name.as_str()))
        })
        .map(|m| m.name.as_str())
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn add_note(record: &mut Record, note: &str) {
    match &mut record.note {
        Some(notes) => *notes = format!("{notes}; {note}"),
        None => record.note = Some(note.to_owned()),
    }
}

fn record(case: &Case, metric: &Metric, outcome: Metered) -> Record {
    let key = &case.key;
    let mut record = Record {
        case_id: case.id.clone(),
        path: case.path.clone(),
        task: key.task.clone(),
        model: key.model.clone(),
        family: key.family.clone(),
        backend: key.backend.clone(),
        precision: key.precision.clone(),
        scenario: key.scenario.clone(),
        batch: key.batch,
        threads: key.threads,
        depth: key.depth.clone(),
        isa: key.isa.clone(),
        metric: metric.name.into(),
        unit: metric.unit.into(),
        better: metric.better,
        value: None,
        lower: None,
        upper: None,
        confidence: None,
        n: 0,
        method: String::new(),
        note: None,
        missing: None,
        baselines: Vec::new(),
        protocol: None,
    };
    match outcome {
        Ok(Outcome { estimate, confidence, notes }) if estimate.value.is_finite() => {
            record.value = Some(estimate.value);
            record.n = estimate.n;
            record.method = estimate.method;
            match estimate.interval {
                // a bound has no lower end
                Ok((lower, upper))
                    if upper.is_finite() && (lower.is_finite() || matches!(metric.how, How::Tail | How::TailOf(_))) =>
                {
                    record.lower = Some(lower).filter(|v| v.is_finite());
                    record.upper = Some(upper);
                    record.confidence = Some(confidence);
                }
                Ok(_) => record.note = Some("no interval: its ends are beyond what a number can hold".into()),
                Err(why) => record.note = Some(format!("no interval: {why}")),
            }
            notes.iter().for_each(|note| add_note(&mut record, note));
        }
        Ok(_) => {
            let message = "the sum of the observations is beyond what a number can hold".into();
            record.missing = Some(Missing { kind: "wrong-output".into(), message, hint: None });
        }
        Err(missing) => record.missing = Some(missing),
    }
    record
}
