//! How far the mean of a row of blocks may lie from the long-run level of a process whose neighbouring blocks may be alike.
//!
//! In: one number a block, in time order, and how the blocks lie in time. Out: the half-width of an interval at [`CONFIDENCE`](super::CONFIDENCE). Must not:
//! take iterations for observations, or draw numbers that another run of the program would draw otherwise.

use super::special::{t_outside, t975};

/// How the observations of a case lie in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// They are starts of the worker (totals over the blocks of each).
    Starts,
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
        match self {
            Self::Starts => format!("t interval over {n} starts"),
            Self::Apart => format!("t interval over {n} {what}s, their correlation unknown; within this run"),
            Self::Alike => format!(
                "t interval over the thirds of {n} {what}s, since neighbours are alike, widened for it; within this run"
            ),
            Self::Row => {
                format!("t interval over the thirds of {n} {what}s in a row, widened for likeness; within this run")
            }
        }
    }
}

/// Largest correlation of neighbouring blocks that is reckoned with.
const MOST_ALIKE: f64 = 0.95;
/// Correlations between 0 and [`MOST_ALIKE`] that are averaged over.
const GRID: usize = 30;
/// The prior weight of a correlation r is (1 − r/[`MOST_ALIKE`]) to this power: seen from afar, blocks apart are little alike.
const PRIOR: i32 = 8;
/// What the standard error over thirds is multiplied by: a process whose time constant is a third of the run makes neighbouring thirds alike.
const THIRDS: f64 = 1.6;
/// The same over two halves.
const HALVES: f64 = 1.2;

/// Half-width of the 95 % interval of the mean of `values`, which are in time order. `None`: fewer than two.
pub fn half_width(values: &[f64], spacing: Spacing) -> Option<f64> {
    let n = values.len();
    match (n, spacing) {
        (0 | 1, _) => None,
        (_, Spacing::Starts) => Some(t975(n as u64 - 1) * standard_error(values)),
        (2, _) => Some(HALVES * t975(1) * standard_error(values)),
        (3, _) | (_, Spacing::Alike | Spacing::Row) => Some(THIRDS * t975(2) * standard_error(&thirds(values))),
        (_, Spacing::Apart) => Some(averaged(values)),
    }
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

/// The t interval for blocks whose neighbours have the correlation r (AR(1)), averaged over r with the weight that the blocks themselves
/// (by restricted likelihood) and the prior give to it.
fn averaged(values: &[f64]) -> f64 {
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
                + f64::from(PRIOR - 1) * (1.0 - share).ln();
            (weight, error)
        })
        .collect();
    let top = weighed.iter().map(|w| w.0).fold(f64::NEG_INFINITY, f64::max);
    let all: f64 = weighed.iter().map(|w| (w.0 - top).exp()).sum();
    let outside =
        |half: f64| weighed.iter().map(|(w, e)| (w - top).exp() * t_outside(n as u64 - 1, half / e)).sum::<f64>() / all;
    let (mut low, mut high) = (0.0, 16.0 * weighed.iter().map(|w| w.1).fold(0.0, f64::max));
    for _ in 0..60 {
        let half = 0.5 * (low + high);
        if outside(half) > 1.0 - super::CONFIDENCE { low = half } else { high = half }
    }
    0.5 * (low + high) * scale
}

/// Fewest blocks that can show whether neighbours are alike.
const ALIKE_FROM: usize = 5;

/// Whether blocks resemble their neighbours more than other blocks: the end of each is held against the beginning of the next one, and the
/// squared differences against those of the same blocks in 399 other orders, which are the same in every run of the program (a permutation
/// test at 10 %). `ends` are the means of the first and last third of each block.
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
    as_near * 10 <= orders + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_have_the_plain_t_interval() {
        // standard deviation sqrt(2.5), n = 5
        let half = half_width(&[1.0, 2.0, 3.0, 4.0, 5.0], Spacing::Starts).unwrap();
        assert!((half - 1.963_24).abs() < 1e-4, "{half}");
        assert_eq!(half_width(&[1.0], Spacing::Starts), None);
    }

    #[test]
    fn thirds_share_out_what_lies_on_a_border() {
        let [a, b, c] = thirds(&[3.0, 6.0, 9.0, 12.0, 15.0]);
        assert!((a - 4.2).abs() < 1e-12 && (b - 9.0).abs() < 1e-12 && (c - 13.8).abs() < 1e-12, "{a} {b} {c}");
        assert_eq!(thirds(&[1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn likeness_of_neighbours_widens_what_blocks_apart_give() {
        let apart = [1.0, -2.0, 2.0, -1.0, 3.0, -3.0, 1.5, -1.5, 2.5, -2.5];
        let mut alike = apart;
        alike.sort_by(f64::total_cmp);
        let [seen, unseen] = [Spacing::Alike, Spacing::Apart].map(|spacing| half_width(&alike, spacing).unwrap());
        assert!(seen > 1.5 * unseen && half_width(&apart, Spacing::Alike).unwrap() < seen, "{seen} {unseen}");
        let plain = half_width(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0], Spacing::Starts).unwrap();
        let averaged = half_width(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0], Spacing::Apart).unwrap();
        assert!(averaged >= 0.95 * plain && averaged < 1.5 * plain, "{plain} {averaged}");
        assert_eq!(half_width(&[2.0; 10], Spacing::Apart), Some(0.0));
        // far beyond squares that a number holds
        assert!(half_width(&[1e300, 2e300, 3e300, 5e300], Spacing::Apart).unwrap().is_finite());
    }

    #[test]
    fn a_slope_is_seen_and_a_mixed_order_is_not() {
        let level = |l: f64| (l, l);
        let slope: Vec<_> = (0..10).map(|i| level(f64::from(i))).collect();
        let mixed: Vec<_> = [0, 7, 2, 9, 4, 1, 6, 3, 8, 5].map(|i| level(f64::from(i))).into();
        assert!(neighbours_alike(&slope) && !neighbours_alike(&mixed));
        assert!(!neighbours_alike(&slope[..4]), "too few to tell");
    }
}
