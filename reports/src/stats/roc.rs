//! The area under the receiver operating characteristic, with clusters.
//!
//! In: scores of positive and negative answers, by cluster. Out: an [`Estimate`]. Must not: take answers of one cluster
//! for independent ones, or draw random numbers.
//!
//! The area is the share of pairs of a positive and a negative answer in which the positive one has the higher score,
//! ties counting half (Mann and Whitney). Its variance is DeLong's (DeLong, DeLong and Clarke-Pearson 1988) in the form
//! that Obuchowski (1997, Biometrics 53:567) gave it for clusters; the interval is symmetric in the logit of the area.

use std::collections::BTreeMap;

use super::{Estimate, special::Z975};

/// Fewest clusters with a positive answer, and with a negative one, of which there is an interval.
const FEWEST: usize = 10;

/// A scored answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Answers of one cluster may depend on each other.
    pub cluster: u64,
    /// Higher: more likely positive.
    pub score: f64,
    /// The label.
    pub positive: bool,
}

/// See the module; `None` where there is no positive or no negative answer.
pub fn auroc(answers: &[Judged]) -> Option<Estimate> {
    let (area, components) = components(answers)?;
    let mut clusters: BTreeMap<u64, [f64; 2]> = BTreeMap::new();
    let mut with: [std::collections::BTreeSet<u64>; 2] = Default::default();
    for (answer, component) in answers.iter().zip(&components) {
        let side = usize::from(answer.positive);
        clusters.entry(answer.cluster).or_default()[side] += component - area;
        with[side].insert(answer.cluster);
    }
    let positives = answers.iter().filter(|a| a.positive).count() as f64;
    let negatives = answers.len() as f64 - positives;
    let what = if clusters.len() == answers.len() { "answers" } else { "clusters" };
    let method = format!(
        "area under the ROC curve, {positives} positive and {negatives} negative; DeLong's variance between {} {what} (Obuchowski), logit interval",
        clusters.len()
    );
    let fewest = with[0].len().min(with[1].len());
    let interval = if fewest < FEWEST {
        Err(format!("{fewest} {what} of the rarer label, it needs {FEWEST}"))
    } else if area <= 0.0 || area >= 1.0 {
        Err("every positive answer is on the same side of every negative one: nothing is seen of how they overlap"
            .into())
    } else {
        let scale = |n: f64| n / (n - 1.0);
        let sum = |f: fn(&[f64; 2]) -> f64| clusters.values().map(f).sum::<f64>();
        let variance = scale(with[1].len() as f64) * sum(|c| c[1] * c[1]) / positives.powi(2)
            + scale(with[0].len() as f64) * sum(|c| c[0] * c[0]) / negatives.powi(2)
            + 2.0 * scale(clusters.len() as f64) * sum(|c| c[0] * c[1]) / (positives * negatives);
        if variance <= 0.0 {
            return Some(Estimate {
                value: area,
                interval: Err("every answer is above as many of the other label as any other: no spread is seen".into()),
                n: answers.len() as u64,
                method,
            });
        }
        let half = Z975 * variance.max(0.0).sqrt() / (area * (1.0 - area));
        let end = |logit: f64| 1.0 / (1.0 + (-logit).exp());
        let middle = (area / (1.0 - area)).ln();
        Ok((end(middle - half).min(area), end(middle + half).max(area)))
    };
    Some(Estimate { value: area, interval, n: answers.len() as u64, method })
}

/// The area, and of each answer the share of answers of the other label that it is on the right side of.
fn components(answers: &[Judged]) -> Option<(f64, Vec<f64>)> {
    let mut order: Vec<usize> = (0..answers.len()).collect();
    order.sort_by(|&a, &b| answers[a].score.total_cmp(&answers[b].score));
    let count = |positive: bool| answers.iter().filter(|a| a.positive == positive).count() as f64;
    let (positives, negatives) = (count(true), count(false));
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let mut components = vec![0.0; answers.len()];
    // answers of either label below the run of equal scores at hand
    let (mut below, mut at) = ([0.0, 0.0], 0);
    while at < order.len() {
        let score = answers[order[at]].score;
        // 0 and −0 are equal
        let run = order[at..].iter().take_while(|&&i| answers[i].score == score).count().max(1);
        let mut equal = [0.0, 0.0];
        order[at..at + run].iter().for_each(|&i| equal[usize::from(answers[i].positive)] += 1.0);
        for &i in &order[at..at + run] {
            components[i] = if answers[i].positive {
                (below[0] + 0.5 * equal[0]) / negatives
            } else {
                (positives - below[1] - 0.5 * equal[1]) / positives
            };
        }
        below = [below[0] + equal[0], below[1] + equal[1]];
        at += run;
    }
    let area = answers.iter().zip(&components).filter(|(a, _)| a.positive).map(|(_, c)| c).sum::<f64>() / positives;
    Some((area.clamp(0.0, 1.0), components))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answers(of: &[(f64, bool)]) -> Vec<Judged> {
        (0..).zip(of).map(|(cluster, &(score, positive))| Judged { cluster, score, positive }).collect()
    }

    /// Every pair looked at.
    fn brute(answers: &[Judged]) -> Option<f64> {
        let (mut won, mut pairs) = (0.0, 0.0);
        for p in answers.iter().filter(|a| a.positive) {
            for n in answers.iter().filter(|a| !a.positive) {
                pairs += 1.0;
                won += if p.score > n.score { 1.0 } else { 0.5 * f64::from(u8::from(p.score == n.score)) };
            }
        }
        (pairs > 0.0).then(|| won / pairs)
    }

    #[test]
    fn known_values() {
        // the example of scikit-learn's `roc_auc_score`
        let of = answers(&[(0.1, false), (0.4, false), (0.35, true), (0.8, true)]);
        let found = auroc(&of).unwrap();
        assert_eq!(found.value, 0.75);
        assert!(found.interval.unwrap_err().contains("2 answers of the rarer label"));
        // its components by hand: half and all of the negatives, all and half of the positives
        assert_eq!(components(&of).unwrap().1, [1.0, 0.5, 0.5, 1.0]);
        assert!(auroc(&answers(&[(0.1, true)])).is_none() && auroc(&[]).is_none());
        let apart: Vec<(f64, bool)> = (0..40).map(|i| (f64::from(i), i >= 20)).collect();
        assert!(auroc(&answers(&apart)).unwrap().interval.unwrap_err().contains("overlap"));
    }

    #[test]
    fn without_clusters_the_variance_is_delongs() {
        let of: Vec<(f64, bool)> =
            (0..60u32).map(|i| (f64::from(i * 37 % 60) + f64::from(i % 3) * 9.0, i % 3 == 0)).collect();
        let of = answers(&of);
        let (area, components) = components(&of).unwrap();
        let side = |positive: bool| -> f64 {
            let own: Vec<f64> =
                of.iter().zip(&components).filter(|(a, _)| a.positive == positive).map(|c| *c.1).collect();
            let n = own.len() as f64;
            own.iter().map(|c| (c - area).powi(2)).sum::<f64>() / (n - 1.0) / n
        };
        let half = Z975 * (side(true) + side(false)).sqrt() / (area * (1.0 - area));
        let (lower, upper) = auroc(&of).unwrap().interval.unwrap();
        let logit = |p: f64| (p / (1.0 - p)).ln();
        assert!((logit(upper) - logit(lower) - 2.0 * half).abs() < 1e-9);
    }

    #[test]
    fn answers_that_are_repeated_widen_nothing_away() {
        // each answer four times over in one cluster tells no more than once
        let once: Vec<(f64, bool)> = (0..80u32).map(|i| (f64::from(i * 53 % 80), i * 7 % 5 < 2)).collect();
        let alone = answers(&once);
        let fourfold: Vec<Judged> = alone.iter().flat_map(|a| [*a; 4]).collect();
        let independent: Vec<Judged> =
            fourfold.iter().enumerate().map(|(i, a)| Judged { cluster: i as u64, ..*a }).collect();
        let width = |of: &[Judged]| auroc(of).unwrap().interval.map(|(l, u)| u - l).unwrap();
        assert!((width(&fourfold) / width(&alone) - 1.0).abs() < 0.02);
        assert!(width(&independent) < 0.6 * width(&alone));
    }

    #[test]
    fn intervals_hold_the_area_as_often_as_they_say() {
        // scores of two normal distributions a standard deviation and a half apart, in clusters of three that share a part
        let mut state = 7u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let (mut held, runs) = (0, 300);
        for _ in 0..runs {
            let mut of = Vec::new();
            for cluster in 0..60u64 {
                let shared = normal() * 0.6;
                for i in 0..3 {
                    let positive = (cluster + i) % 3 == 0;
                    let score = shared + 0.8 * normal() + if positive { 1.5 } else { 0.0 };
                    of.push(Judged { cluster, score, positive });
                }
            }
            // Φ(1.5 / √2), since each score has the variance 1
            let (lower, upper) = auroc(&of).unwrap().interval.unwrap();
            held += u32::from((lower..=upper).contains(&0.855_577));
        }
        assert!((273..=297).contains(&held), "{held} of {runs} intervals of 95 %");
    }

    proptest! {
        #[test]
        fn the_area_is_that_of_all_pairs(of in prop::collection::vec((0u8..6, any::<bool>(), 0u64..4), 0..40)) {
            let of: Vec<Judged> =
                of.iter().map(|&(s, positive, cluster)| Judged { cluster, score: f64::from(s), positive }).collect();
            match (auroc(&of), brute(&of)) {
                (Some(found), Some(wanted)) => {
                    prop_assert!((found.value - wanted).abs() < 1e-12);
                    if let Ok((lower, upper)) = found.interval {
                        prop_assert!(0.0 <= lower && lower <= found.value && found.value <= upper && upper <= 1.0);
                    }
                }
                (found, wanted) => prop_assert!(found.is_none() && wanted.is_none()),
            }
        }
    }
}
