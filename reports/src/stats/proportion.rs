//! Shares: Wilson's interval, at the effective sample size where examples come in clusters.
//!
//! In: right and total per cluster. Out: an [`Estimate`]. Must not: fall back on a normal approximation, which fails below a few hundred
//! items (Bowyer et al., arXiv 2503.01747).

use super::{
    Estimate,
    special::{Z975, t975},
};

/// Wilson's score interval (Wilson 1927) for a share `p` out of `n`; `n` may be fractional. `z` is the two-sided normal (or t) quantile.
pub fn wilson(p: f64, n: f64, z: f64) -> (f64, f64) {
    let z2 = z * z / n;
    let centre = (p + z2 / 2.0) / (1.0 + z2);
    let half = z / (1.0 + z2) * (p * (1.0 - p) / n + z2 / (4.0 * n)).sqrt();
    // rounding must not push the limit past the value at the ends
    ((centre - half).clamp(0.0, p), (centre + half).clamp(p, 1.0))
}

/// Fewest clusters that hold a right item, and that hold a wrong one, from which the variance between clusters is believed.
const DIFFERING: u64 = 10;

/// Share of right items over clusters of (right, items). Items of one cluster may depend on each other; clusters do not.
///
/// With one item in every cluster this is Wilson's interval. Otherwise the variance of the share is estimated between clusters,
/// G/(G−1) Σ(right − p·items)² / N² (the sandwich of Miller, arXiv 2411.00640), turned into the number of independent items that would
/// have it, p(1−p)/var, at most N; Wilson's interval is taken at that number with the t quantile of G−1 (Korn and Graubard 1998 do
/// the same with Clopper-Pearson). Where fewer than ten clusters hold a right item, or fewer than ten a wrong one, that variance says little, and
/// at most the number of clusters G is used.
pub fn share(clusters: &[(u64, u64)], each_item_alone: bool) -> Option<Estimate> {
    let (right, items) = clusters.iter().fold((0, 0), |(r, n), c| (r + c.0, n + c.1));
    if items == 0 {
        return None;
    }
    let (p, n) = (right as f64 / items as f64, items as f64);
    if each_item_alone {
        let interval = Ok(wilson(p, n, Z975));
        return Some(Estimate { value: p, interval, n: items, method: "share; Wilson interval".into() });
    }
    let groups = clusters.len() as f64;
    let method =
        format!("share; Wilson interval at the effective sample size between {} clusters, t quantile", clusters.len());
    if clusters.len() < 2 {
        let why = "all examples belong to one cluster".into();
        return Some(Estimate { value: p, interval: Err(why), n: items, method });
    }
    let squares: f64 = clusters.iter().map(|&(r, n)| (r as f64 - p * n as f64).powi(2)).sum();
    let variance = groups / (groups - 1.0) * squares / (n * n);
    let mut effective = if variance > 0.0 { (p * (1.0 - p) / variance).clamp(1.0, n) } else { n };
    let holding = |some: fn(&(u64, u64)) -> bool| clusters.iter().filter(|c| some(c)).count() as u64;
    // near 0 and 1 few clusters carry the whole variance
    if holding(|c| c.0 > 0).min(holding(|c| c.0 < c.1)) < DIFFERING {
        effective = effective.min(groups);
    }
    Some(Estimate { value: p, interval: Ok(wilson(p, effective, t975(clusters.len() as u64 - 1))), n: items, method })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wilson_known_value() {
        // ARC-AGI-1, 178 of 400: 39.7 to 49.4 %
        let (lower, upper) = wilson(0.445, 400.0, Z975);
        assert!((lower - 0.397).abs() < 5e-4 && (upper - 0.494).abs() < 5e-4, "{lower} {upper}");
    }

    #[test]
    fn repeated_clusters_widen_the_interval() {
        let alone: Vec<(u64, u64)> = (0..80).map(|i| (u64::from(i % 4 < 2), 1)).collect();
        let alone = share(&alone, true).unwrap();
        // eight examples of a cluster always agree: 10 clusters are worth about 10 examples
        let clustered: Vec<(u64, u64)> = (0..10).map(|i| (if i % 2 == 0 { 8 } else { 0 }, 8)).collect();
        let clustered = share(&clustered, false).unwrap();
        assert_eq!(alone.value, clustered.value);
        let width = |e: &Estimate| e.interval.as_ref().map(|i| i.1 - i.0).unwrap();
        assert!(width(&clustered) > 2.0 * width(&alone), "{clustered:?} {alone:?}");
    }

    #[test]
    fn one_cluster_has_no_interval() {
        assert!(share(&[(3, 9)], false).unwrap().interval.is_err());
        assert!(share(&[], true).is_none());
    }

    proptest! {
        #[test]
        fn interval_holds_the_share(clusters in prop::collection::vec((0u64..50, 0u64..50), 1..40)) {
            let clusters: Vec<_> = clusters.into_iter().map(|(a, b)| (a, a + b)).collect();
            for alone in [false, true] {
                if let Some(Estimate { value, interval: Ok((lower, upper)), .. }) = share(&clusters, alone) {
                    prop_assert!(0.0 <= lower && lower <= value && value <= upper && upper <= 1.0);
                    prop_assert!(upper > lower);
                }
            }
        }
    }
}
