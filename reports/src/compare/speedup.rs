//! How much faster a case is than the base of its interleaved group: ratios of the rounds in which both took turns.
//!
//! In: a [`RecordedRun`]. Out: a [`Speedup`] per case that took turns, or why there is none, as a pure function of the
//! recorded samples; the interleaved groups of a list of cases. Must not: compare cases of two interleaved groups, or
//! let another case stand in for a base that has no numbers.

use std::collections::BTreeMap;

use crate::{
    case::{Case, CaseError},
    format,
    missing::Missing,
    stats::{
        CONFIDENCE, Estimate,
        quantile::{least_for_median, median_at, quantile, sorted},
    },
    steady::Steady,
    store::{CaseRun, RecordedRun},
};

/// Difference of steps an example, as a share, from which on a ratio of latencies is said to be in part one of work.
const OTHER_WORK: f64 = 0.02;

/// A speed-up and what to know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Speedup {
    /// Latency of the base over that of the case; n is the number of rounds.
    pub estimate: Estimate,
    /// For the record's note.
    pub notes: Vec<String>,
}

/// What is compared of one case that took turns.
struct Timed<'a> {
    case: &'a Case,
    /// Median latency of each of its blocks, of which the k-th belongs to round k.
    medians: Vec<f64>,
    /// Mean steps of an example.
    steps: Option<f64>,
    /// Why its times are not believed, if so.
    distrust: Option<Missing>,
}

impl<'a> Timed<'a> {
    fn of(run: &'a CaseRun) -> Self {
        let steady = Steady::of(&run.samples, &[]);
        let (steps, examples) = steady.steps.iter().fold((0.0, 0.0), |(a, b), (s, e)| (a + s, b + e));
        Self {
            case: &run.case,
            medians: medians(&steady.block_latencies),
            steps: (examples > 0.0).then_some(steps / examples),
            distrust: steady.distrust(),
        }
    }
}

/// The middle of each block; not a number where it is empty.
fn medians(blocks: &[Vec<f64>]) -> Vec<f64> {
    blocks.iter().map(|block| quantile(&sorted(block), 0.5).unwrap_or(f64::NAN)).collect()
}

/// Speed-ups by id of the case, or why there is none. Cases that took no turns or ended in an error have no entry.
/// `error` tells how a case ended, all considered: a base that answers too badly has no speed either.
pub(super) fn speedups<'a>(
    run: &'a RecordedRun,
    error: impl Fn(&'a Case) -> Option<&'a CaseError>,
) -> BTreeMap<String, Result<Speedup, Missing>> {
    let by_id: BTreeMap<&str, &CaseRun> = run.cases.iter().map(|c| (c.case.id.as_str(), c)).collect();
    let mut timed: BTreeMap<&str, Timed> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for own in run.cases.iter().filter(|c| c.case.interleaved.is_some() && c.case.error.is_none()) {
        let found = base(&by_id, &own.case).and_then(|base| {
            if let Some(error) = error(&base.case) {
                return Err(failed(&base.case, error));
            }
            for case in [own, base] {
                timed.entry(&case.case.id).or_insert_with(|| Timed::of(case));
            }
            against(&timed[own.case.id.as_str()], &timed[base.case.id.as_str()], beside(run, &own.case))
        });
        all.insert(own.case.id.clone(), found);
    }
    all
}

/// The case that this one is compared with, if it was measured in the same interleaved group.
fn base<'a>(cases: &BTreeMap<&str, &'a CaseRun>, own: &Case) -> Result<&'a CaseRun, Missing> {
    let interleaved = own.interleaved.as_ref();
    let Some(id) = interleaved.and_then(|s| s.base.as_ref()) else {
        let message = "the backend that the suite names as base has no case that takes turns with this one";
        return Err(Missing::not_measured(message, None));
    };
    let Some(base) = cases.get(id.as_str()) else {
        return Err(Missing::not_measured("its base is not in this run", None));
    };
    let same = base.case.interleaved.as_ref().map(|s| &s.id) == interleaved.map(|s| &s.id);
    same.then_some(*base).ok_or_else(|| {
        let message = format!(
            "its base `{}` was measured in another interleaved group, which ratios do not cross",
            base.case.path
        );
        Missing::not_measured(message, Some("start a new run, so that both take turns"))
    })
}

fn failed(base: &Case, error: &CaseError) -> Missing {
    Missing { message: format!("its base `{}` failed: {}", base.path, error.message), ..error.into() }
}

/// Confidence of each of so many comparisons with one base, all of which then hold together (Bonferroni).
fn confidence(comparisons: usize) -> f64 {
    1.0 - (1.0 - CONFIDENCE) / comparisons.max(1) as f64
}

/// Fewest rounds of an interleaved group after which so many comparisons with one base have an interval each.
pub fn least_rounds(comparisons: usize) -> u32 {
    least_for_median(confidence(comparisons))
}

/// How many cases of its interleaved group are compared with the same base.
fn beside(run: &RecordedRun, own: &Case) -> usize {
    let of = |c: &Case| c.interleaved.as_ref().map(|s| (s.id.clone(), s.base.clone()));
    let (mine, base) = (of(own), own.interleaved.as_ref().and_then(|s| s.base.as_ref()));
    let others = run.cases.iter().map(|c| &c.case).filter(|c| c.error.is_none() && Some(&c.id) != base);
    others.filter(|c| of(c) == mine).count()
}

/// The median over the rounds of the ratio of the two medians of a round.
fn against(own: &Timed, base: &Timed, comparisons: usize) -> Result<Speedup, Missing> {
    let rounds = own.case.interleaved.as_ref().map_or(0, |s| s.rounds as usize);
    for Timed { case, medians, distrust, .. } in [own, base] {
        let blocks = medians.len();
        if blocks != rounds || blocks == 0 {
            let message = format!("`{}` has {blocks} timed blocks in {rounds} rounds", case.path);
            return Err(Missing::not_measured(message, None));
        }
        if let Some(why) = distrust.clone() {
            return Err(Missing { message: format!("`{}`: {}", case.path, why.message), ..why });
        }
    }
    if own.case.id == base.case.id {
        let interval = Err("a reading, not an estimate".into());
        let (n, method) = (rounds as u64, "the base of its interleaved group, by definition".into());
        return Ok(Speedup { estimate: Estimate { value: 1.0, interval, n, method }, notes: Vec::new() });
    }
    let Some(mut estimate) = median_at(&ratios(&base.medians, &own.medians), confidence(comparisons)) else {
        return Err(Missing::not_measured("there is no round", None));
    };
    estimate.method = format!(
        "median over rounds of the base's median latency over this one's; order-statistic interval over rounds; base `{}`",
        base.case.path
    );
    let mut notes: Vec<String> = other_work(own.steps, base.steps).into_iter().collect();
    if comparisons > 1 && estimate.interval.is_ok() {
        notes.push(format!(
            "one of {comparisons} comparisons with this base: all their intervals hold together at 95 % (Bonferroni)"
        ));
    }
    Ok(Speedup { estimate, notes })
}

/// Ratio of the medians of the same round, base over own.
fn ratios(base: &[f64], own: &[f64]) -> Vec<f64> {
    base.iter().zip(own).map(|(base, own)| base / own).collect()
}

/// What to say where the two took unlike numbers of steps: the halting head stopped them elsewhere, or they met other
/// examples.
fn other_work(own: Option<f64>, base: Option<f64>) -> Option<String> {
    let (own, base) = own.zip(base)?;
    ((own / base - 1.0).abs() > OTHER_WORK).then(|| {
        let [own, base] = [own, base].map(format::number);
        format!("it took {own} steps an example and the base {base}: in part the ratio is one of work, not of speed")
    })
}

/// Cases that took turns and have the same base, as they are shown together; in the order of their first case.
pub fn interleaved_groups<'a>(cases: &[&'a CaseRun]) -> Vec<Vec<&'a CaseRun>> {
    let mut interleaved_groups: Vec<Vec<&CaseRun>> = Vec::new();
    for case in cases.iter().copied() {
        let Some(interleaved) = &case.case.interleaved else { continue };
        let of = |c: &CaseRun| c.case.interleaved.as_ref().map(|s| (s.id.clone(), s.base.clone()));
        let own = Some((interleaved.id.clone(), interleaved.base.clone()));
        match interleaved_groups.iter_mut().find(|s| of(s[0]) == own) {
            Some(known) => known.push(case),
            None => interleaved_groups.push(vec![case]),
        }
    }
    interleaved_groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_rounds_are_just_enough_for_an_interval() {
        assert_eq!([1, 2, 3, 4, 6, 7, 12, 13, 25, 26].map(least_rounds), [6, 7, 7, 8, 8, 9, 9, 10, 10, 11]);
        for comparisons in 1..200 {
            let at = |rounds: u32| {
                let ratios: Vec<f64> = (0..rounds).map(f64::from).collect();
                median_at(&ratios, confidence(comparisons)).unwrap().interval
            };
            let least = least_rounds(comparisons);
            assert!(at(least).is_ok() && at(least - 1).is_err(), "{comparisons}: {least}");
        }
        assert_eq!(least_rounds(0), 6);
    }

    #[test]
    fn ratios_are_of_medians_of_the_same_round() {
        // the machine halves its speed after the second round; the ratio does not see it
        let base = [vec![3.0, 3.0, 9.0], vec![3.0], vec![6.0, 6.0], vec![6.0, 5.0, 7.0]];
        let own = [vec![2.0], vec![1.0, 9.0, 2.0], vec![4.0, 4.0], vec![4.0]];
        assert_eq!(ratios(&medians(&base), &medians(&own)), [1.5, 1.5, 1.5, 1.5]);
        assert!(ratios(&medians(&[vec![]]), &medians(&[vec![1.0]]))[0].is_nan());
    }
}
