//! Median with a distribution-free interval, tail percentiles by early stopping, and a check for drift.
//!
//! In: finite observations. Out: [`Estimate`]s and bounds. Must not: assume a distribution, or name a percentile that n
//! does not carry.

use super::{
    CONFIDENCE, Estimate,
    level::{Spacing, sides},
    ratio::batches,
    special::{binomial_cdf, binomial_pmf, chi_square_exceeds_99, poisson_at_least},
};

/// Ascending copy of finite values.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    // values that are equal in this order are the same bits
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The quantile `q` of ascending values: linear between order statistics (type 7 of Hyndman and Fan 1996). For drawing,
/// not for records.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q.clamp(0.0, 1.0) * last as f64;
    let low = (place.floor() as usize).min(last);
    let high = (low + 1).min(last);
    Some(sorted[low] + (place - low as f64) * (sorted[high] - sorted[low]))
}

/// Median with the interval between the order statistics k+1 and n−k (from below, k the largest number with
/// P[Binomial(n, ½) ≤ k] ≤ 2.5 %). Exact for any continuous distribution and n ≥ 6; below that no pair of observations
/// reaches 95 %. Observations are taken as independent.
pub fn median(values: &[f64]) -> Option<Estimate> {
    median_at(values, CONFIDENCE)
}

/// [`median`] with an interval at another confidence.
pub fn median_at(values: &[f64], confidence: f64) -> Option<Estimate> {
    let sorted = sorted(values);
    let value = quantile(&sorted, 0.5)?;
    let n = sorted.len();
    // eight standard deviations below the middle is early enough: what lies before weighs less than 1e-15
    let first = (n as f64 / 2.0 - 4.0 * (n as f64).sqrt()).max(0.0) as u64;
    let mut k = None;
    let mut sum = 0.0;
    for candidate in first..n as u64 / 2 {
        sum += binomial_pmf(n as u64, 0.5, candidate);
        if sum > (1.0 - confidence) / 2.0 {
            break;
        }
        k = Some(candidate as usize);
    }
    let interval = k
        .map(|k| (sorted[k], sorted[n - 1 - k]))
        .ok_or_else(|| format!("n = {n}; an interval of the median needs {}", least_for_median(confidence)));
    Some(Estimate { value, interval, n: n as u64, method: "median; order-statistic interval".into() })
}

/// Fewest observations whose median has an interval at this confidence: from the least to the largest of them, since
/// P[Binomial(n, ½) = 0] = 2^-n.
pub fn least_for_median(confidence: f64) -> u32 {
    (2.0 / (1.0 - confidence)).log2().ceil() as u32
}

/// Stretches in time whose medians limit the interval of a median.
const STRETCHES: usize = 30;

/// Median of all observations of these units (blocks, or starts) in time order, with an interval for units that lie so
/// in time.
///
/// Between blocks apart it is Woodruff's (1952): the share of each block below the median has an interval over blocks,
/// from −a to b about ½ (see [`sides`]), and the median's runs from the quantile ½ − b to the quantile ½ + a of all
/// observations, but not beyond the lowest and highest median of about 30 stretches. Between starts it is Student's t
/// over their medians. Of blocks in a row it is both together: a drift leaves what the run has seen, and two speeds
/// have no median between them. A single block is cut into batches.
pub fn median_over(units: &[Vec<f64>], spacing: Spacing, what: &str) -> Option<Estimate> {
    let all = units.concat();
    let (n, ascending) = (all.len(), sorted(&all));
    let value = quantile(&ascending, 0.5)?;
    let method = format!("median; {}", spacing.method(units.len(), what));
    let estimate = |interval| Some(Estimate { value, interval, n: n as u64, method });
    if units.len() == 1 {
        if spacing == Spacing::Independent {
            return estimate(Err(format!("one {what} only; an interval needs 2")));
        }
        let parts: Vec<Vec<f64>> = batches(&all).map(<[f64]>::to_vec).collect();
        if n < 6 {
            return estimate(Err(format!("n = {n}; an interval of the median needs 6")));
        }
        return Some(Estimate {
            n: n as u64,
            method: format!("median; {}", spacing.method(parts.len(), "batch")).replace("batchs", "batches"),
            ..median_over(&parts, Spacing::Row, "batch")?
        });
    }
    let limits = match spacing {
        Spacing::Independent => of_medians(units, value, spacing)?,
        Spacing::Apart | Spacing::Alike => woodruff(units, &ascending, value, spacing)?,
        Spacing::Row => {
            let (a, b) = (of_medians(units, value, spacing)?, woodruff(units, &ascending, value, spacing)?);
            (a.0.min(b.0), a.1.max(b.1))
        }
    };
    estimate(Ok(limits))
}

fn middle(values: &[f64]) -> f64 {
    quantile(&sorted(values), 0.5).unwrap_or(f64::NAN)
}

/// Student's t over the medians of units.
fn of_medians(units: &[Vec<f64>], value: f64, spacing: Spacing) -> Option<(f64, f64)> {
    let middles: Vec<f64> = units.iter().filter(|u| !u.is_empty()).map(|u| middle(u)).collect();
    let centre = middles.iter().sum::<f64>() / middles.len() as f64;
    let (below, above) = sides(&middles, spacing)?;
    Some(((centre - below).max(0.0).min(value), (centre + above).max(value)))
}

/// Woodruff's interval of the median `value` of `ascending` observations.
fn woodruff(units: &[Vec<f64>], ascending: &[f64], value: f64, spacing: Spacing) -> Option<(f64, f64)> {
    let surplus = |unit: &Vec<f64>| {
        let sum: f64 =
            unit.iter().map(|v| f64::from(u8::from(*v < value)) + 0.5 * f64::from(u8::from(*v == value))).sum();
        sum - 0.5 * unit.len() as f64
    };
    let per = units.len() as f64 / ascending.len() as f64;
    let (below, above) = sides(&units.iter().map(surplus).collect::<Vec<_>>(), spacing)?;
    let pieces = STRETCHES.div_ceil(units.len());
    let stretches = units
        .iter()
        .flat_map(|u| (0..pieces).map(move |i| &u[i * u.len() / pieces..(i + 1) * u.len() / pieces]))
        .filter(|piece| !piece.is_empty())
        .map(middle);
    let (lowest, highest) = stretches.fold((value, value), |(l, h), m| (l.min(m), h.max(m)));
    let at = |share: f64, beyond: f64| match (0.0..=1.0).contains(&share) {
        true => quantile(ascending, share).unwrap_or(beyond),
        false => beyond,
    };
    // where too many observations lie below the true median, it is lower than this one
    let (lower, upper) = (at(0.5 - above * per, lowest), at(0.5 + below * per, highest));
    Some((lower.max(lowest).min(value), upper.min(highest).max(value)))
}

/// Why iterations cannot be taken as independent, where they show it: blocks that differ in the share of iterations
/// above the median, or above the ninth decile (χ² at 1 % each), or slow iterations that follow one another more often
/// than by chance: of the slowest tenth, fiftieth, 10, 5, 3 and 2, which decide a bound (at 1 % each).
pub fn dependent(blocks: &[Vec<f64>]) -> Option<&'static str> {
    let all = blocks.concat();
    let ascending = sorted(&all);
    let n = all.len() as f64;
    for (share, why) in
        [(0.5, "the medians of blocks differ"), (0.9, "blocks differ in their share of slow iterations")]
    {
        let limit = quantile(&ascending, share)?;
        let over = |values: &[f64]| values.iter().filter(|v| **v > limit).count() as f64;
        let p = over(&all) / n;
        if p == 0.0 || blocks.len() < 2 {
            continue;
        }
        let distance: f64 =
            blocks.iter().map(|b| (over(b) - p * b.len() as f64).powi(2) / (b.len() as f64 * p * (1.0 - p))).sum();
        if chi_square_exceeds_99(distance, blocks.len() as u64 - 1) {
            return Some(why);
        }
    }
    SLOWEST.iter().map(|share| (all.len() as f64 * share) as usize).chain([2, 3, 5, 10]).find_map(|slowest| {
        let limit = *ascending.get(ascending.len().checked_sub(slowest + 1)?)?;
        let slow = all.iter().filter(|v| **v > limit).count() as f64;
        let pairs = || blocks.iter().flat_map(|b| b.windows(2));
        let both = pairs().filter(|w| w[0] > limit && w[1] > limit).count() as u64;
        let expected = pairs().count() as f64 * slow * (slow - 1.0) / (n * (n - 1.0));
        (both > 0 && poisson_at_least(expected, both) <= 0.01)
            .then_some("slow iterations follow one another more often than by chance")
    })
}

/// Shares of slow iterations that are looked at, beside the slowest few (those decide a bound).
const SLOWEST: [f64; 2] = [0.1, 0.02];

/// An upper bound of a tail percentile, or how many observations it would take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tail {
    /// With confidence 99 % the percentile is at most this.
    Bound {
        /// The bound.
        upper: f64,
        /// How many observations may lie above the percentile (t).
        over: u64,
    },
    /// n is too small.
    TooFew {
        /// How many observations the first bound needs.
        needs: u64,
    },
}

/// Confidence of [`tail`], as in MLPerf LoadGen.
pub const TAIL_CONFIDENCE: f64 = 0.99;

/// Early stopping of MLPerf LoadGen (c = 0.99, d = 0): whether `n` observations of which `over` lie above the bound
/// support it as percentile `p`: P[Binomial(n, 1−p) ≤ over] ≤ 1 %.
pub fn supports(p: f64, n: u64, over: u64) -> bool {
    n > over && binomial_cdf(n, 1.0 - p, over) <= 1.0 - TAIL_CONFIDENCE
}

/// The smallest n that supports percentile `p` with `over` observations above it.
pub fn smallest_n(p: f64, over: u64) -> u64 {
    let mut high = over + 2;
    while !supports(p, high, over) {
        high = high.saturating_mul(2);
    }
    let mut low = high / 2;
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if supports(p, middle, over) { high = middle } else { low = middle }
    }
    high
}

/// Upper bound of percentile `p` (0 < p < 1) as LoadGen prints it: t is the largest count ≥ 1 that n supports; drop the
/// t−1 slowest; the bound is the slowest of the rest.
pub fn tail(values: &[f64], p: f64) -> Tail {
    let n = values.len() as u64;
    if !supports(p, n, 1) {
        return Tail::TooFew { needs: smallest_n(p, 1) };
    }
    // supports() falls with `over`, so the largest one is found by halving; no cap (a cap at 1024 was once a bug of
    // LoadGen)
    let (mut low, mut high) = (1, n);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if supports(p, n, middle) { low = middle } else { high = middle }
    }
    Tail::Bound { upper: sorted(values)[(n - low) as usize], over: low }
}

/// Change of the median between halves that is worth a note: smaller ones are seen in every long run and are in the
/// interval already.
pub const DRIFT: f64 = 0.05;

/// Compares the first and second half of observations in time order: `Some((first, second))` medians when the intervals
/// of both are apart and the medians differ by more than [`DRIFT`].
pub fn drift(values: &[f64]) -> Option<(f64, f64)> {
    let (first, second) = values.split_at(values.len() / 2);
    let (first, second) = (median(first)?, median(second)?);
    let (Ok(a), Ok(b)) = (first.interval, second.interval) else { return None };
    let large = (second.value - first.value).abs() > DRIFT * first.value;
    (large && (a.1 < b.0 || b.1 < a.0)).then_some((first.value, second.value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn smallest_n_is_the_published_table() {
        let table: [(f64, [u64; 5]); 6] = [
            (0.5, [7, 11, 14, 22, 35]),
            (0.9, [44, 64, 81, 127, 197]),
            (0.95, [90, 130, 165, 259, 398]),
            (0.97, [152, 219, 277, 433, 667]),
            (0.99, [459, 662, 838, 1307, 2010]),
            (0.999, [4603, 6636, 8403, 13105, 20140]),
        ];
        for (p, row) in table {
            for (over, n) in [0, 1, 2, 5, 10].into_iter().zip(row) {
                assert_eq!(smallest_n(p, over), n, "p {p} t {over}");
            }
        }
    }

    #[test]
    fn many_slow_ones_are_counted_beyond_1024() {
        // 0, 1, 2 ... so that the bound names its own rank
        let values: Vec<f64> = (0..200_000).map(f64::from).collect();
        let Tail::Bound { upper, over } = tail(&values, 0.99) else { panic!("200000 are enough") };
        assert!(over > 1024, "{over}");
        assert!(smallest_n(0.99, over) <= 200_000 && smallest_n(0.99, over + 1) > 200_000);
        assert_eq!(upper, 200_000.0 - over as f64);
        // the bound is above the percentile itself, and near it
        assert!(upper > 198_000.0 && upper < 198_200.0, "{upper}");
    }

    #[test]
    fn too_few_says_how_many() {
        assert_eq!(tail(&[1.0; 661], 0.99), Tail::TooFew { needs: 662 });
        assert_eq!(tail(&[1.0; 662], 0.99), Tail::Bound { upper: 1.0, over: 1 });
        assert_eq!(tail(&[], 0.99), Tail::TooFew { needs: 662 });
    }

    #[test]
    fn median_interval_begins_at_six() {
        assert!(median(&[]).is_none());
        assert!(median(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap().interval.is_err());
        let six = median(&[6.0, 1.0, 5.0, 2.0, 4.0, 3.0]).unwrap();
        assert_eq!((six.value, six.interval), (3.5, Ok((1.0, 6.0))));
        // a printed table for n = 20: the 6th and the 15th
        let twenty: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(median(&twenty).unwrap().interval, Ok((6.0, 15.0)));
    }

    #[test]
    fn a_step_is_drift_and_noise_is_not() {
        let noise = |i: u64| 1.0 + (i * 7919 % 101) as f64 * 1e-4;
        let steady: Vec<f64> = (0..200).map(noise).collect();
        let stepped: Vec<f64> = (0..200).map(|i| noise(i) * if i < 100 { 1.0 } else { 1.1 }).collect();
        assert_eq!(drift(&steady), None);
        assert!(drift(&stepped).is_some());
        assert_eq!(drift(&[1.0, 2.0]), None);
        let small: Vec<f64> = (0..200).map(|i| noise(i) * if i < 100 { 1.0 } else { 1.03 }).collect();
        assert_eq!(drift(&small), None, "3 % is in the interval, not in a note");
    }

    #[test]
    fn blocks_that_differ_widen_the_interval_of_a_median() {
        let blocks = |step: f64| -> Vec<Vec<f64>> {
            let level = |b: usize| 1.0 + step * [0.0, 4.0, 1.0, 3.0, 2.0, 5.0][b];
            (0..6).map(|b| (0..50).map(|i| level(b) + 1e-3 * f64::from(i * 7 % 50)).collect()).collect()
        };
        let [equal, unequal] = [0.0, 0.1].map(|step| median_over(&blocks(step), Spacing::Apart, "block").unwrap());
        let width = |e: &Estimate| e.interval.as_ref().map(|i| i.1 - i.0).unwrap();
        assert!(width(&equal) < 0.01 && width(&unequal) > 0.3, "{equal:?} {unequal:?}");
        assert!(dependent(&blocks(0.1)).is_some() && dependent(&blocks(0.0)).is_none());
        let one = median_over(&blocks(0.0)[..1], Spacing::Row, "block").unwrap();
        assert!(one.interval.is_ok() && one.n == 50 && one.method.contains("batches"), "{one:?}");
    }

    #[test]
    fn slow_iterations_in_a_row_are_no_independent_ones() {
        let mut block: Vec<f64> = (0..1000).map(|i| 1.0 + f64::from(i * 37 % 101) * 1e-4).collect();
        assert_eq!(dependent(std::slice::from_ref(&block)), None);
        block[400..450].iter_mut().for_each(|v| *v *= 1.5);
        assert!(dependent(&[block]).is_some());
    }

    proptest! {
        #[test]
        fn median_lies_in_its_interval(values in prop::collection::vec(-1e6f64..1e6, 1..200)) {
            let median = median(&values).unwrap();
            if let Ok((lower, upper)) = median.interval {
                prop_assert!(lower <= median.value && median.value <= upper);
            }
            prop_assert_eq!(median.interval.is_ok(), values.len() >= 6);
        }
    }
}
