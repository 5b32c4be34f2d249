//! How far the mean of a row of blocks may lie from the long-run level of a process whose neighbouring blocks may be
//! alike.
//!
//! In: one number a block, in time order, and how the blocks lie in time. Out: how far an interval at
//! [`CONFIDENCE`](super::CONFIDENCE) reaches to both sides. Must not: take iterations for observations, or draw numbers
//! that another run of the program would draw otherwise.

use super::special::{t_outside, t975};

/// How the observations of a case lie in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// They do not depend on each other: starts of the worker (totals over the blocks of each), clusters of answers.
    Independent,
    /// Blocks with pauses between them, and no sign that neighbours are alike.
    Apart,
    /// Blocks with pauses between them whose neighbours are more alike than others.
    Alike,
    /// Blocks that follow one another (or the batches of a single block).
    Row,
}

impl Spacing {
    /// How the interval was found, in words; `n` is the number of observations.
    pub fn method(self, n: usize, what: &str) -> String {
        let skew = if n < SKEW_FROM { "" } else { ", corrected for skewness" };
        match self {
            Self::Independent => format!("t interval over {n} {what}s{skew}"),
            Self::Apart => {
                format!("t interval over {n} {what}s, their correlation unknown{skew}; within this run")
            }
            Self::Alike => {
                format!(
                    "t interval over {n} {what}s whose neighbours are alike, any correlation{skew}; within this run"
                )
            }
            Self::Row => {
                let parts = if n == 2 { "halves" } else { "thirds" };
                format!(
                    "t interval over the {parts} of {n} {what}s in a row, widened for likeness{skew}; within this run"
                )
            }
        }
    }
}

/// Largest correlation of neighbouring blocks that is reckoned with.
const MOST_ALIKE: f64 = 0.95;
/// Correlations between 0 and [`MOST_ALIKE`] that are averaged over.
const GRID: usize = 60;
/// The prior weight of a correlation r is (1 − r/[`MOST_ALIKE`]) to this power: seen from afar, blocks apart are little
/// alike.
const PRIOR: i32 = 7;
/// What the standard error over thirds is multiplied by. Of a process whose correlation falls as exp(−t/τ), τ a third
/// of the run, the mean of the run has 3.25 times the variance that three independent thirds as different as these
/// would give it: √3.25.
const THIRDS: f64 = 1.803;
/// The same over two halves: √2.43.
const HALVES: f64 = 1.559;
/// Fewest observations whose skewness is asked for.
const SKEW_FROM: usize = 5;
/// Fewest observations of which the farthest bounds what their skewness may lengthen.
const FARTHEST_FROM: usize = 10;

/// How far the 95 % interval of the mean of `values`, which are in time order, reaches below and above it. `None`:
/// fewer than two.
///
/// The half-width of a t interval, made unequal by the skewness of the values (Hall 1992), which of ten blocks apart
/// lengthens a side to a half-width beyond the farthest value at most.
pub fn sides(values: &[f64], spacing: Spacing) -> Option<(f64, f64)> {
    let n = values.len();
    let (half, t) = match (n, spacing) {
        (0 | 1, _) => return None,
        (_, Spacing::Independent) => (t975(n as u64 - 1) * standard_error(values), t975(n as u64 - 1)),
        (2, _) => (HALVES * t975(1) * standard_error(values), t975(1)),
        (_, Spacing::Row) => (THIRDS * t975(2) * standard_error(&thirds(values)), t975(2)),
        (_, Spacing::Alike) => (averaged(values, 0), t975(n as u64 - 1)),
        (_, Spacing::Apart) => (averaged(values, PRIOR), t975(n as u64 - 1)),
    };
    let (below, above) = if n < SKEW_FROM { (t, t) } else { hall(t, skewness(values) / (n as f64).sqrt()) };
    let middle = mean(values);
    let farthest = |far: fn(f64, f64) -> f64| (values.iter().copied().fold(middle, far) - middle).abs();
    // of ten values and more skewness lengthens a side to a half-width beyond the farthest one; a few, or neighbours
    // alone, have not seen it
    let bounded = n >= FARTHEST_FROM && spacing != Spacing::Row;
    let side = |q: f64, farthest: f64| (half * (q / t)).min(if bounded { half + farthest } else { f64::INFINITY });
    Some((side(below, farthest(f64::min)), side(above, farthest(f64::max))))
}

/// Hall's (1992, Journal of the Royal Statistical Society B 54:221) transformation of a t interval by a cubic that is
/// monotone: how many standard errors below and above a mean the interval reaches where the quantile is `t` and the
/// *mean's* skewness `a`. Values of which few are far above the others (bursts) have a mean that is more often too low
/// than too high, and by more.
fn hall(t: f64, a: f64) -> (f64, f64) {
    if !a.is_finite() || a.abs() < 1e-6 {
        return (t, t);
    }
    let g = |y: f64| 3.0 / a * ((1.0 + a * (y - a / 6.0)).cbrt() - 1.0);
    (g(t), -g(-t))
}

/// Third central moment over the cube of the standard deviation, both with n below.
fn skewness(values: &[f64]) -> f64 {
    let (n, middle) = (values.len() as f64, mean(values));
    let scale = values.iter().map(|v| (v - middle).abs()).fold(0.0, f64::max);
    let moment = |power| values.iter().map(|v| ((v - middle) / scale).powi(power)).sum::<f64>() / n;
    if scale > 0.0 { moment(3) / moment(2).powf(1.5) } else { 0.0 }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn standard_error(values: &[f64]) -> f64 {
    let (n, middle) = (values.len() as f64, mean(values));
    (values.iter().map(|v| (v - middle).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt()
}

/// Means of the first, second and last third; a value on a border is shared out.
fn thirds(values: &[f64]) -> [f64; 3] {
    let third = values.len() as f64 / 3.0;
    [0.0, 1.0, 2.0].map(|i| {
        let (from, to) = (i * third, (i + 1.0) * third);
        let weight = |k: usize| ((k as f64 + 1.0).min(to) - (k as f64).max(from)).max(0.0);
        let first = from.floor() as usize;
        values.iter().enumerate().skip(first).take(third.ceil() as usize + 1).map(|(k, v)| v * weight(k)).sum::<f64>()
            / third
    })
}

/// Half-width of the t interval for blocks whose neighbours have the correlation r (AR(1)), averaged over r with the
/// weight that the blocks themselves (by restricted likelihood) and the prior, (1 − r/[`MOST_ALIKE`]) to the power
/// `prior`, give to it.
fn averaged(values: &[f64], prior: i32) -> f64 {
    let (n, middle) = (values.len(), mean(values));
    let count = n as f64;
    let scale = values.iter().map(|v| (v - middle).abs()).fold(0.0, f64::max);
    if scale == 0.0 || !scale.is_finite() {
        return scale;
    }
    let y: Vec<f64> = values.iter().map(|v| (v - middle) / scale).collect();
    let weighed: Vec<(f64, f64)> = (0..GRID)
        .map(|k| {
            let share = (k as f64 + 0.5) / GRID as f64;
            let r = MOST_ALIKE * share;
            let fresh = 1.0 - r * r;
            // 1'R⁻¹1 and 1'R⁻¹y of the AR(1) correlation matrix R
            let ones = 1.0 + (count - 1.0) * (1.0 - r).powi(2) / fresh;
            let along: f64 = y[0] + y.windows(2).map(|w| (w[1] - r * w[0]) * (1.0 - r) / fresh).sum::<f64>();
            let centre = along / ones;
            let squares = (y[0] - centre).powi(2)
                + y.windows(2).map(|w| (w[1] - centre - r * (w[0] - centre)).powi(2) / fresh).sum::<f64>();
            // 1'R1, for the variance of the plain mean
            let spread = count * (1.0 + r) / (1.0 - r) - 2.0 * r * (1.0 - r.powf(count)) / (1.0 - r).powi(2);
            let error = (squares / (count - 1.0) * spread).sqrt() / count;
            let weight = -0.5 * ((count - 1.0) * fresh.ln() + ones.ln() + (count - 1.0) * squares.ln())
                + f64::from(prior) * (1.0 - share).ln();
            (weight, error)
        })
        .collect();
    let top = weighed.iter().map(|w| w.0).fold(f64::NEG_INFINITY, f64::max);
    let all: f64 = weighed.iter().map(|w| (w.0 - top).exp()).sum();
    let outside =
        |half: f64| weighed.iter().map(|(w, e)| (w - top).exp() * t_outside(n as u64 - 1, half / e)).sum::<f64>() / all;
    let (mut low, mut high) = (0.0, 16.0 * weighed.iter().map(|w| w.1).fold(0.0, f64::max));
    for _ in 0..36 {
        let half = 0.5 * (low + high);
        if outside(half) > 1.0 - super::CONFIDENCE { low = half } else { high = half }
    }
    0.5 * (low + high) * scale
}

/// Fewest blocks that can show whether neighbours are alike.
const ALIKE_FROM: usize = 5;

/// Whether blocks resemble their neighbours more than other blocks: the end of each is held against the beginning of
/// the next one, and the squared differences against those of the same blocks in 399 other orders, which are the same
/// in every run of the program (a permutation test at 25 %: to miss a likeness costs more than to see one that is not
/// there). `ends` are the means of the first and last third of each block.
pub fn neighbours_alike(ends: &[(f64, f64)]) -> bool {
    let n = ends.len();
    if n < ALIKE_FROM {
        return false;
    }
    let path = |order: &[usize]| order.windows(2).map(|w| (ends[w[1]].0 - ends[w[0]].1).powi(2)).sum::<f64>();
    let mut order: Vec<usize> = (0..n).collect();
    let seen = path(&order);
    // a million blocks are no reason to wait
    let orders = (4_000_000 / n).clamp(19, 399);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut as_near = 1;
    for _ in 0..orders {
        for i in (1..n).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(i, ((state >> 33) % (i as u64 + 1)) as usize);
        }
        as_near += usize::from(path(&order) <= seen);
    }
    as_near * 4 <= orders + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn half(values: &[f64], spacing: Spacing) -> f64 {
        let (below, above) = sides(values, spacing).unwrap();
        0.5 * (below + above)
    }

    #[test]
    fn starts_have_the_plain_t_interval() {
        // standard deviation sqrt(2.5), n = 5, no skewness
        let (below, above) = sides(&[1.0, 2.0, 3.0, 4.0, 5.0], Spacing::Independent).unwrap();
        assert!((below - 1.963_24).abs() < 1e-4 && (above - below).abs() < 1e-9, "{below} {above}");
        assert_eq!(sides(&[1.0], Spacing::Independent), None);
    }

    #[test]
    fn thirds_share_out_what_lies_on_a_border() {
        let [a, b, c] = thirds(&[3.0, 6.0, 9.0, 12.0, 15.0]);
        assert!((a - 4.2).abs() < 1e-12 && (b - 9.0).abs() < 1e-12 && (c - 13.8).abs() < 1e-12, "{a} {b} {c}");
        assert_eq!(thirds(&[1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn the_factors_are_those_of_a_process_with_a_time_constant_of_a_third() {
        // variance of the mean over a stretch of t time constants, of a process of variance 1
        let of_mean = |t: f64| 2.0 / t * (1.0 - (1.0 - (-t).exp()) / t);
        for (parts, factor) in [(3.0, THIRDS), (2.0, HALVES)] {
            let (whole, part) = (of_mean(3.0), of_mean(3.0 / parts));
            // parts · whole = part + (parts − 1) · covariance
            let covariance = (parts * whole - part) / (parts - 1.0);
            let ratio = whole / ((part - covariance) / parts);
            assert!((ratio.sqrt() - factor).abs() < 1e-3, "{parts}: {}", ratio.sqrt());
        }
    }

    #[test]
    fn few_high_values_lengthen_the_upper_side() {
        let burst = [1.0, 1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 3.0, 1.0, 1.0];
        let (below, above) = sides(&burst, Spacing::Independent).unwrap();
        let plain = t975(9) * standard_error(&burst);
        assert!(above > 2.0 * plain && below < plain, "{below} {plain} {above}");
        // one of ten blocks far slower than the others: at most a half-width below that one
        let slow = [1397.0, 1383.0, 1182.0, 1425.0, 1395.0, 1368.0, 1375.0, 1398.0, 1399.0, 107.0];
        let (below, above) = sides(&slow, Spacing::Alike).unwrap();
        let (half, farthest) = (averaged(&slow, 0), mean(&slow) - 107.0);
        assert!((below - (half + farthest)).abs() < 1e-9 && above < half, "{below} {half} {farthest} {above}");
        // the transformation turned back: a t value at either end gives t again
        let (t, a) = (2.262, 0.4);
        let (down, up) = hall(t, a);
        let back = |x: f64| x + a * x * x / 3.0 + a * a * x.powi(3) / 27.0 + a / 6.0;
        assert!((back(down) - t).abs() < 1e-9 && (back(-up) + t).abs() < 1e-9, "{down} {up}");
    }

    #[test]
    fn likeness_of_neighbours_widens_what_blocks_apart_give() {
        let apart = [1.0, -2.0, 2.0, -1.0, 3.0, -3.0, 1.5, -1.5, 2.5, -2.5];
        let mut alike = apart;
        alike.sort_by(f64::total_cmp);
        let [seen, unseen] = [Spacing::Alike, Spacing::Apart].map(|spacing| half(&alike, spacing));
        assert!(seen > 1.5 * unseen && half(&apart, Spacing::Alike) < seen, "{seen} {unseen}");
        let plain = half(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0], Spacing::Independent);
        let averaged = half(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0], Spacing::Apart);
        assert!(averaged >= 0.95 * plain && averaged < 1.5 * plain, "{plain} {averaged}");
        assert_eq!(sides(&[2.0; 10], Spacing::Apart), Some((0.0, 0.0)));
        // far beyond squares that a number holds
        assert!(half(&[1e300, 2e300, 3e300, 5e300, 4e300], Spacing::Apart).is_finite());
    }

    #[test]
    fn a_slope_is_seen_and_a_mixed_order_is_not() {
        let level = |l: f64| (l, l);
        let slope: Vec<_> = (0..10).map(|i| level(f64::from(i))).collect();
        let mixed: Vec<_> = [0, 7, 2, 9, 4, 1, 6, 3, 8, 5].map(|i| level(f64::from(i))).into();
        assert!(neighbours_alike(&slope) && !neighbours_alike(&mixed));
        assert!(!neighbours_alike(&slope[..4]), "too few to tell");
    }

    proptest! {
        #[test]
        fn sides_turn_round_and_scale_with_the_values(
            values in prop::collection::vec(-1e3f64..1e3, 2..40),
            factor in 1e-3f64..1e3,
        ) {
            for spacing in [Spacing::Independent, Spacing::Row, Spacing::Alike, Spacing::Apart] {
                let (below, above) = sides(&values, spacing).unwrap();
                prop_assert!(below >= 0.0 && above >= 0.0 && below.is_finite() && above.is_finite());
                let turned: Vec<f64> = values.iter().map(|v| 7.0 - factor * v).collect();
                let (b, a) = sides(&turned, spacing).unwrap();
                let near = |x: f64, y: f64| (x - factor * y).abs() <= 1e-4 * (x.abs() + factor * y.abs()) + 1e-9;
                prop_assert!(near(b, above) && near(a, below), "{spacing:?} {below} {above} {b} {a}");
            }
        }
    }
}
