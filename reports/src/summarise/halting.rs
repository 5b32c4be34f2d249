//! How well the halting head knows whether an answer is right: its probability against the answers of record.
//!
//! In: scored answers with their halting logits. Out: estimates over clusters. Must not: take answers without a logit
//! for uncertain ones, or answers that share a cluster for independent ones.

use std::collections::BTreeMap;

use super::Summary;
use crate::{
    case::Prediction,
    metric::HaltingError,
    stats::{Estimate, level::Spacing, ratio::over_level},
};

impl Summary<'_> {
    /// The error of the halting head in this sense; `None` where no answer of record has a logit.
    pub(super) fn halting(&self, error: HaltingError) -> Option<Estimate> {
        of_answers(&self.source?.predictions, error)
    }

    /// Whether answers of record have a halting logit.
    pub(super) fn halts(&self) -> bool {
        self.source.is_some_and(|s| s.predictions.iter().any(|p| p.last && p.halt_logit.is_some()))
    }
}

/// Fewest right answers, and fewest wrong ones, of which there is an interval.
const FEWEST: usize = 10;

fn of_answers(predictions: &[Prediction], error: HaltingError) -> Option<Estimate> {
    let mut clusters: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    let (mut n, mut right) = (0, 0);
    for p in predictions.iter().filter(|p| p.last) {
        let Some(logit) = p.halt_logit else { continue };
        let probability = 1.0 / (1.0 + (-logit).exp());
        let difference = probability - f64::from(u8::from(p.exact));
        let term = match error {
            HaltingError::Overconfidence => difference,
            HaltingError::Brier => difference * difference,
        };
        let cluster = clusters.entry(p.cluster).or_default();
        *cluster = (cluster.0 + term, cluster.1 + 1.0);
        n += 1;
        right += usize::from(p.exact);
    }
    let totals: Vec<(f64, f64)> = clusters.into_values().collect();
    let what = if totals.len() == n { "answer" } else { "cluster" };
    let mut estimate = over_level(&totals, Spacing::Independent, what)?;
    estimate.n = n as u64;
    // of answers that are nearly all right, or wrong, the few others decide: what was not seen is in no variance
    let fewest = right.min(n - right);
    if fewest < FEWEST {
        estimate.interval = Err(format!("{fewest} of {n} answers are of the rarer kind, it needs {FEWEST}"));
    }
    if let Ok((lower, upper)) = &mut estimate.interval {
        let least = if error == HaltingError::Brier { 0.0 } else { -1.0 };
        (*lower, *upper) = (lower.max(least), upper.min(1.0));
    }
    estimate.method = format!("sigmoid of the halting logit against right or wrong, last answers; {}", estimate.method);
    Some(estimate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(example: u64, logit: Option<f64>, exact: bool) -> Prediction {
        Prediction {
            example,
            cluster: example,
            depth: 1,
            last: true,
            halt_logit: logit,
            answer: String::new(),
            exact,
            right: 1,
            cells: 1,
            valid: None,
            difficulty: None,
        }
    }

    #[test]
    fn a_sure_head_that_errs_is_overconfident_and_an_even_one_is_not() {
        // logit of 0.8, right in 60 of 100
        let logit = Some((0.8f64 / 0.2).ln());
        let answers: Vec<Prediction> = (0..100).map(|i| answer(i, logit, i % 10 < 6)).collect();
        let over = of_answers(&answers, HaltingError::Overconfidence).unwrap();
        assert!((over.value - 0.2).abs() < 1e-12 && over.n == 100, "{over:?}");
        assert!(over.interval.unwrap().0 > 0.0);
        let brier = of_answers(&answers, HaltingError::Brier).unwrap();
        // 0.6 · 0.2² + 0.4 · 0.8²
        assert!((brier.value - 0.28).abs() < 1e-12, "{brier:?}");
        let even: Vec<Prediction> = (0..100).map(|i| answer(i, logit, i % 10 < 8)).collect();
        let even = of_answers(&even, HaltingError::Overconfidence).unwrap();
        assert!(even.value.abs() < 1e-12 && even.interval.unwrap().0 < 0.0);
    }

    #[test]
    fn answers_that_are_nearly_all_right_have_no_interval() {
        let answers: Vec<Prediction> = (0..300).map(|i| answer(i, Some(4.0), i >= 9)).collect();
        let over = of_answers(&answers, HaltingError::Overconfidence).unwrap();
        assert!(over.interval.unwrap_err().contains("9 of 300 answers are of the rarer kind"));
    }

    #[test]
    fn extremes_are_bounded_and_answers_without_a_logit_do_not_count() {
        let sure: Vec<Prediction> = (0..40).map(|i| answer(i, Some(1e4), i % 2 == 0)).collect();
        let over = of_answers(&sure, HaltingError::Overconfidence).unwrap();
        let (lower, upper) = over.interval.unwrap();
        assert!(over.value == 0.5 && lower >= -1.0 && upper <= 1.0);
        let mut some = sure.clone();
        some.extend((40..60).map(|i| answer(i, None, false)));
        assert_eq!(of_answers(&some, HaltingError::Overconfidence).unwrap().n, 40);
        assert!(of_answers(&some[40..], HaltingError::Brier).is_none());
    }
}
