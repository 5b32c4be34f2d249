//! Shares: Wilson's interval, at the effective sample size where examples come in clusters.
//!
//! In: right and total per cluster. Out: an [`Estimate`]. Must not: fall back on a normal approximation, which fails
//! below a few hundred items (Bowyer et al., arXiv 2503.01747).

use super::{
    Estimate,
    special::{Z975, incomplete_beta, t975},
};

/// Wilson's score interval (Wilson 1927) for a share `p` out of `n`; `n` may be fractional. `z` is the two-sided normal
/// (or t) quantile.
pub fn wilson(p: f64, n: f64, z: f64) -> (f64, f64) {
    let z2 = z * z / n;
    let centre = (p + z2 / 2.0) / (1.0 + z2);
    let half = z / (1.0 + z2) * (p * (1.0 - p) / n + z2 / (4.0 * n)).sqrt();
    // rounding must not push the limit past the value at the ends
    ((centre - half).clamp(0.0, p), (centre + half).clamp(p, 1.0))
}

/// The interval of Clopper and Pearson (1934) for a share `p` out of `n` at 95 %; `n` may be fractional. It never holds
/// less than it promises, and is longer for that.
pub fn clopper_pearson(p: f64, n: f64) -> (f64, f64) {
    let right = p * n;
    // I_x(a, b) rises with x
    let solve = |a: f64, b: f64, wanted: f64| {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let x = 0.5 * (low + high);
            if incomplete_beta(x, a, b) < wanted { low = x } else { high = x }
        }
        0.5 * (low + high)
    };
    let lower = if right <= 0.0 { 0.0 } else { solve(right, n - right + 1.0, 0.025) };
    let upper = if right >= n { 1.0 } else { solve(right + 1.0, n - right, 0.975) };
    (lower.min(p), upper.max(p))
}

/// Fewest clusters that must carry the variance between them for it to be believed, or a fifth of all clusters (of
/// independent items a third carries it).
const CARRIERS: f64 = 20.0;
/// Fewest clusters that must hold a right item, and a wrong one, for the same.
const DIFFERING: usize = 10;

/// At how many items the variance between clusters stops being believed: `None` where it is carried by enough of them,
/// else the number of clusters that they are worth, (Σ items)² / Σ items² (Kish 1965), which is their number where all
/// are of one size. `deviations` are the clusters' own; the number that carry their squares is (Σ d²)² / Σ d⁴: of two
/// hundred clusters of which five are right as a whole, five carry it.
pub(super) fn worth(deviations: &[f64], sizes: &[f64]) -> Option<f64> {
    let power = |values: &[f64], p: i32| values.iter().map(|v| v.powi(p)).sum::<f64>();
    let (squares, fourth) = (power(deviations, 2), power(deviations, 4));
    let few = fourth <= 0.0 || squares * squares / fourth < CARRIERS.min(0.2 * sizes.len() as f64);
    few.then(|| power(sizes, 1).powi(2) / power(sizes, 2).max(f64::MIN_POSITIVE))
}

/// Share of right items over clusters of (right, items). Items of one cluster may depend on each other; clusters do
/// not.
///
/// With one item in every cluster this is Wilson's interval. Otherwise the variance of the share is estimated between
/// clusters, G/(G−1) Σ(right − p·items)² / N² (the sandwich of Miller, arXiv 2411.00640), turned into the number of
/// independent items that would have it, p(1−p)/var, at most N; Wilson's interval is taken at that number with the t
/// quantile of G−1 (Korn and Graubard 1998 do the same with Clopper-Pearson). Where fewer than twenty clusters (and a
/// fifth of them) carry that variance, or fewer than ten hold a right item, or a wrong one, it says little: at most as
/// many items are used as the clusters are worth, and the interval holds that of Clopper and Pearson too (Wilson's
/// alone dips to 90 % where one or two clusters are expected to differ).
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
    let deviations: Vec<f64> = clusters.iter().map(|&(r, n)| r as f64 - p * n as f64).collect();
    let variance = groups / (groups - 1.0) * deviations.iter().map(|d| d * d).sum::<f64>() / (n * n);
    let mut effective = if variance > 0.0 { (p * (1.0 - p) / variance).clamp(1.0, n) } else { n };
    let sizes: Vec<f64> = clusters.iter().map(|c| c.1 as f64).collect();
    let holding = |some: fn(&(u64, u64)) -> bool| clusters.iter().filter(|c| some(c)).count();
    let differing = holding(|c| c.0 > 0).min(holding(|c| c.0 < c.1));
    let worth = worth(if differing < DIFFERING { &[] } else { &deviations }, &sizes);
    if let Some(most) = worth {
        effective = effective.min(most);
    }
    let (mut lower, mut upper) = wilson(p, effective, t975(clusters.len() as u64 - 1));
    if worth.is_some() {
        let (below, above) = clopper_pearson(p, effective);
        (lower, upper) = (lower.min(below), upper.max(above));
    }
    Some(Estimate { value: p, interval: Ok((lower, upper)), n: items, method })
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
    fn clopper_pearson_known_values() {
        // 0 of 10: 1 − 0.025^(1/10); 2 of 50: 0.5 to 13.7 %
        let (lower, upper) = clopper_pearson(0.0, 10.0);
        assert!(lower == 0.0 && (upper - 0.308_497).abs() < 1e-6, "{upper}");
        let (lower, upper) = clopper_pearson(0.04, 50.0);
        assert!((lower - 0.004_881).abs() < 1e-5 && (upper - 0.137_138).abs() < 1e-5, "{lower} {upper}");
        let (below, above) = clopper_pearson(0.96, 50.0);
        assert!((1.0 - above - lower).abs() < 1e-9 && (1.0 - below - upper).abs() < 1e-9);
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
