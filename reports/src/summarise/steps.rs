//! Supervision steps an example, and the operations that follow from them.
//!
//! In: the steady phase of a case, or the answers that it was scored by. Out: estimates. Must not: take answers that
//! share a cluster for independent ones, or a depth that all answers had for the only one there is.

use std::collections::BTreeMap;

use super::Summary;
use crate::{
    case::Prediction,
    stats::{
        Estimate,
        level::Spacing,
        proportion::wilson,
        ratio::{over_iterations, over_level},
        special::Z975,
    },
};

impl Summary<'_> {
    /// Supervision steps per example: of the measured iterations, or of the answers where the worker gave none.
    pub(super) fn steps(&self) -> Option<Estimate> {
        let (steady, blocks) = (&self.steady, self.steady.block_steps());
        if !blocks.is_empty() {
            return match blocks.len() {
                1 if steady.spacing() != Spacing::Independent => over_iterations(&steady.steps),
                _ => over_level(
                    &steady.units(blocks.iter().map(|(block, pair)| (*block, *pair))),
                    steady.spacing(),
                    steady.unit(),
                ),
            };
        }
        depth_of_answers(self.source?.predictions.iter(), &self.case_run.case.key.depth)
    }

    pub(super) fn flops_model(&self) -> Option<Estimate> {
        // of a file whose shapes are lost, operations are not counted; none at all have no rate
        let costs = self.case_run.case.costs.as_ref().filter(|c| c.flops_admit + c.flops_step > 0.0)?;
        let steps = self.steps()?;
        let flops = |steps: f64| costs.flops_admit + costs.flops_step * steps;
        Some(Estimate {
            value: flops(steps.value),
            interval: steps.interval.map(|(lower, upper)| (flops(lower), flops(upper))),
            n: steps.n,
            method: format!("operations of the graph at the mean of steps_used; {}", steps.method),
        })
    }
}

/// Mean depth of the last answers, over clusters of them. Where all have one depth although the rule (`halt-16`: at
/// most 16) allows others, an answer of which none like it was seen may still come: the interval is that of Wilson for
/// none in so many clusters, as far as the rule allows.
pub(crate) fn depth_of_answers<'a>(predictions: impl Iterator<Item = &'a Prediction>, rule: &str) -> Option<Estimate> {
    let last: Vec<&Prediction> = predictions.filter(|p| p.last).collect();
    let mut clusters: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for p in &last {
        let cluster = clusters.entry(p.cluster).or_default();
        *cluster = (cluster.0 + f64::from(p.depth), cluster.1 + 1.0);
    }
    let totals: Vec<(f64, f64)> = clusters.into_values().collect();
    let what = if totals.len() == last.len() { "answer" } else { "cluster" };
    let mut estimate = over_level(&totals, Spacing::Independent, what)?;
    estimate.n = last.len() as u64;
    let most = rule.strip_prefix("halt-").map(|n| n.trim_start_matches("keep-")).and_then(|n| n.parse::<f64>().ok());
    if let (Ok((lower, upper)), Some(most)) = (&mut estimate.interval, most) {
        if lower == upper {
            let (_, unseen) = wilson(0.0, totals.len() as f64, Z975);
            *lower -= unseen * (estimate.value - 1.0).max(0.0);
            *upper += unseen * (most - estimate.value).max(0.0);
            estimate.method += ", all alike: as many others as Wilson's interval of none leaves";
        }
        (*lower, *upper) = (lower.max(1.0).min(estimate.value), upper.min(most).max(estimate.value));
    }
    estimate.method = format!("mean depth of the scored answers; {}", estimate.method);
    Some(estimate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(depths: impl Iterator<Item = (u64, u32)>) -> Vec<Prediction> {
        let answer = |(example, (cluster, depth))| Prediction {
            example,
            cluster,
            depth,
            last: true,
            halt_logit: None,
            answer: String::new(),
            exact: true,
            right: 1,
            cells: 1,
            valid: None,
            difficulty: None,
        };
        (0..).zip(depths).map(answer).collect()
    }

    #[test]
    fn answers_of_a_cluster_are_one_observation() {
        let depth = |cluster: u64| 2 + (cluster * 7 % 5) as u32;
        let alone = answers((0..40).map(|i| (i, depth(i))));
        let repeated = answers((0..320).map(|i| (i / 8, depth(i / 8))));
        let [alone, repeated] = [alone, repeated].map(|a| depth_of_answers(a.iter(), "halt-16").unwrap());
        assert_eq!((alone.value, alone.n, repeated.n), (repeated.value, 40, 320));
        let [a, b] = [&alone, &repeated].map(|e| e.interval.clone().unwrap());
        assert!((a.0 - b.0).abs() < 1e-9 && (a.1 - b.1).abs() < 1e-9, "{a:?} {b:?}");
        assert!(alone.method.contains("40 answers") && repeated.method.contains("40 clusters"), "{}", repeated.method);
    }

    #[test]
    fn a_depth_that_all_answers_had_is_not_the_only_one_where_the_rule_allows_others() {
        let all = answers((0..40).map(|i| (i, 16)));
        let (lower, upper) = depth_of_answers(all.iter(), "halt-16").unwrap().interval.unwrap();
        assert!(upper == 16.0 && (14.0..15.0).contains(&lower), "{lower} {upper}");
        assert_eq!(depth_of_answers(all.iter(), "fixed-16").unwrap().interval, Ok((16.0, 16.0)));
        let few = answers([(0, 1), (1, 1), (2, 3)].into_iter());
        let (lower, upper) = depth_of_answers(few.iter(), "halt-3").unwrap().interval.unwrap();
        assert_eq!((lower, upper), (1.0, 3.0), "no further than the rule allows");
        assert!(depth_of_answers(all[..1].iter(), "halt-16").unwrap().interval.is_err());
        assert!(depth_of_answers([].iter(), "halt-16").is_none());
    }
}
