//! How many answers are right: by examples, by cells, and by questions that are decided from several rows.
//!
//! In: scored answers, attempts. Out: shares with their intervals. Must not: take answers of one cluster for
//! independent ones, or mix conventions: each has its function.

use std::collections::BTreeMap;

use crate::{
    case::{Attempt, Prediction},
    metric::Right,
    questions::{most_attempts, questions, share_of_questions},
    stats::{Estimate, proportion::share},
};

/// Share of examples (or of cells) that `predictions` get right, with its interval; of questions that are decided from
/// several rows, of rows.
pub fn share_right(predictions: &[&Prediction], right: Right) -> Option<Estimate> {
    let mut clusters: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
    for p in predictions {
        let cluster = clusters.entry(p.cluster).or_default();
        let (right, items) = match right {
            Right::Cells => (p.right, p.cells),
            Right::Valid => (u32::from(p.valid == Some(true)), 1),
            Right::Questions | Right::Rows | Right::Outputs => (u32::from(p.exact), 1),
        };
        *cluster = (cluster.0 + u64::from(right), cluster.1 + u64::from(items), cluster.2 + 1);
    }
    // cells of one example always depend on each other
    let alone = right != Right::Cells && clusters.values().all(|c| c.2 == 1);
    let clusters: Vec<(u64, u64)> = clusters.values().map(|c| (c.0, c.1)).collect();
    let mut estimate = share(&clusters, alone)?;
    estimate.n = predictions.len() as u64;
    Some(estimate)
}

/// Accuracy of attempts of one depth under the official rule.
pub fn share_decided<'a>(attempts: impl Iterator<Item = &'a Attempt> + Clone) -> Option<Estimate> {
    share_of_questions(&questions(attempts.clone()), most_attempts(attempts))
}
