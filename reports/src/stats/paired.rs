//! The difference of two shares over the same examples: Tango's score interval, at the effective sample size where
//! examples cluster.
//!
//! In: per cluster, how often only the one and only the other was right. Out: an [`Estimate`]. Must not: treat paired
//! answers as two independent samples, or fall back on a normal approximation, which fails where nearly all pairs
//! agree.

use super::{
    Estimate,
    proportion::worth,
    special::{Z975, t975},
};

/// The pairs of one cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairedCounts {
    /// Only the first of the two is right.
    pub gained: u64,
    /// Only the second is right.
    pub lost: u64,
    /// All pairs.
    pub all: u64,
}

impl PairedCounts {
    fn difference(self) -> f64 {
        self.gained as f64 - self.lost as f64
    }
}

/// Tango's score interval (Tango 1998, Statistics in Medicine 17:891) for the difference of two paired shares, where
/// `gained` of `n` pairs favour the first and `lost` the second: the differences d at which (gained − lost − n·d) /
/// √(n(2q + d(1 − d))) stays within ± `z`, q being the maximum-likelihood share of lost pairs under d. Counts may be
/// fractional.
pub fn tango(gained: f64, lost: f64, n: f64, z: f64) -> (f64, f64) {
    let score = |d: f64| {
        let (a, b, c) = (2.0 * n, (2.0 * n - gained + lost) * d - gained - lost, -lost * d * (1.0 - d));
        let q = ((b * b - 4.0 * a * c).max(0.0).sqrt() - b) / (2.0 * a);
        let q = q.max((-d).max(0.0));
        let variance = n * (2.0 * q + d * (1.0 - d));
        let distance = gained - lost - n * d;
        if variance > 0.0 { distance / variance.sqrt() } else { distance.signum() * f64::INFINITY }
    };
    // the score falls as d grows
    let value = (gained - lost) / n;
    let limit = |mut inside: f64, mut outside: f64| {
        for _ in 0..100 {
            let middle = 0.5 * (inside + outside);
            if score(middle).abs() <= z { inside = middle } else { outside = middle }
        }
        inside
    };
    (limit(value, -1.0), limit(value, 1.0))
}

/// First share minus second over all pairs.
///
/// With one pair in every cluster this is Tango's interval. Otherwise the variance of the difference is estimated
/// between clusters, G/(G−1) Σ(difference − mean·pairs)² / N², and turned into the number of independent pairs that
/// would have it, at most N; Tango's interval is taken at that number with the t quantile of G−1, as is done for single
/// shares. Where few clusters carry that variance it says little, and no more pairs are used than the clusters are
/// worth. `None`: there are no pairs.
pub fn paired_difference(clusters: &[PairedCounts], each_pair_alone: bool) -> Option<Estimate> {
    let sum = clusters.iter().fold(PairedCounts::default(), |s, c| PairedCounts {
        gained: s.gained + c.gained,
        lost: s.lost + c.lost,
        all: s.all + c.all,
    });
    if sum.all == 0 {
        return None;
    }
    let (n, groups) = (sum.all as f64, clusters.len() as f64);
    let (gained, lost, value) = (sum.gained as f64, sum.lost as f64, sum.difference() / n);
    if each_pair_alone {
        let interval = Ok(tango(gained, lost, n, Z975));
        return Some(Estimate {
            value,
            interval,
            n: sum.all,
            method: "paired difference; Tango score interval".into(),
        });
    }
    let method = format!(
        "paired difference; Tango score interval at the effective sample size between {} clusters, t quantile",
        clusters.len()
    );
    if clusters.len() < 2 {
        let why = "all examples belong to one cluster".into();
        return Some(Estimate { value, interval: Err(why), n: sum.all, method });
    }
    let deviations: Vec<f64> = clusters.iter().map(|c| c.difference() - value * c.all as f64).collect();
    let between = groups / (groups - 1.0) * deviations.iter().map(|d| d * d).sum::<f64>() / (n * n);
    let alone = (gained + lost - n * value * value) / (n * n);
    let mut effective = if between > 0.0 { (n * alone / between).clamp(1.0, n) } else { n };
    let sizes: Vec<f64> = clusters.iter().map(|c| c.all as f64).collect();
    if let Some(most) = worth(&deviations, &sizes) {
        effective = effective.min(most);
    }
    let scale = effective / n;
    let interval = tango(gained * scale, lost * scale, effective, t975(clusters.len() as u64 - 1));
    Some(Estimate { value, interval: Ok(interval), n: sum.all, method })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tango_known_values() {
        // 1 gained and 7 lost of 21 pairs, worked in Fagerland, Lydersen and Laake 2014: -0.517 to -0.026
        let (lower, upper) = tango(1.0, 7.0, 21.0, Z975);
        assert!((lower + 0.517).abs() < 5e-4 && (upper + 0.026).abs() < 5e-4, "{lower} {upper}");
        // limits solve the quartic of Yang, Sun and Hardin 2013
        for (gained, lost, n) in [(10.0, 50.0, 2000.0), (12.0, 2.0, 100.0)] {
            let (g, d, s) = (Z975 * Z975, gained - lost, gained + lost);
            let m0: f64 = n * n * (n / g + 1.0_f64).powi(2);
            let m1: f64 = -n * d * (n / g + 1.0) * (4.0 * n / g + 1.0);
            let m2: f64 = 2.0 * n * d * d * (3.0 * n / g + 2.0) / g - n * n * (s / g + 1.0);
            let m3: f64 = n * d * (2.0 * s / g + 1.0) - d.powi(3) * (4.0 * n / g + 1.0) / g;
            let m4: f64 = d * d * (d * d / g - s) / g;
            let (lower, upper) = tango(gained, lost, n, Z975);
            for x in [lower, upper] {
                let rest = (((m0 * x + m1) * x + m2) * x + m3) * x + m4;
                assert!((rest / m0).abs() < 1e-12, "{gained} {lost} {n}: {x}");
            }
        }
        // nothing differs: z² / (n + z²) to both sides, as Wilson's interval of no successes
        let (lower, upper) = tango(0.0, 0.0, 2000.0, Z975);
        let limit = Z975 * Z975 / (2000.0 + Z975 * Z975);
        assert!((upper - limit).abs() < 1e-9 && (lower + limit).abs() < 1e-9, "{lower} {upper}");
    }

    #[test]
    fn clusters_that_agree_widen_the_interval() {
        // 5 % lost: every twentieth example alone, or every twentieth cluster of eight as a whole
        let alone: Vec<PairedCounts> =
            (0..1600).map(|i| PairedCounts { gained: 0, lost: u64::from(i % 20 == 0), all: 1 }).collect();
        let clustered: Vec<PairedCounts> =
            (0..200).map(|i| PairedCounts { gained: 0, lost: 8 * u64::from(i % 20 == 0), all: 8 }).collect();
        let width = |e: Estimate| e.interval.map(|(lower, upper)| upper - lower).unwrap();
        let (alone, clustered) =
            (paired_difference(&alone, true).unwrap(), paired_difference(&clustered, false).unwrap());
        assert_eq!((alone.value, alone.n), (clustered.value, clustered.n));
        assert!(width(clustered.clone()) > 2.0 * width(alone.clone()), "{clustered:?} {alone:?}");
        // without any difference the clusters count, not the examples in them
        let same = vec![PairedCounts { gained: 0, lost: 0, all: 8 }; 250];
        let (lower, _) = paired_difference(&same, false).unwrap().interval.unwrap();
        assert!(lower < -0.015, "{lower}");
    }

    #[test]
    fn one_cluster_has_no_interval() {
        let one = [PairedCounts { gained: 1, lost: 2, all: 9 }];
        assert!(paired_difference(&one, false).unwrap().interval.is_err());
        assert!(paired_difference(&[], true).is_none());
    }

    proptest! {
        #[test]
        fn interval_holds_the_difference(clusters in prop::collection::vec((0u64..9, 0u64..9, 0u64..30), 1..40)) {
            let clusters: Vec<PairedCounts> =
                clusters.into_iter().map(|(gained, lost, more)| PairedCounts { gained, lost, all: gained + lost + more }).collect();
            for alone in [false, true] {
                if let Some(Estimate { value, interval: Ok((lower, upper)), .. }) = paired_difference(&clusters, alone) {
                    prop_assert!(-1.0 <= lower && lower <= value + 1e-12 && value <= upper + 1e-12 && upper <= 1.0);
                }
            }
        }

        #[test]
        fn swapping_the_two_turns_the_interval_round(gained in 0u32..50, lost in 0u32..50, more in 1u32..500) {
            let (gained, lost, n) = (f64::from(gained), f64::from(lost), f64::from(gained + lost + more));
            let ((a, b), (c, d)) = (tango(gained, lost, n, Z975), tango(lost, gained, n, Z975));
            prop_assert!((a + d).abs() < 1e-9 && (b + c).abs() < 1e-9, "{a} {b} {c} {d}");
        }
    }
}
