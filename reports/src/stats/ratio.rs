//! Ratios of totals (joules per row, rows per second) and ratios of two estimates (joules per right answer).
//!
//! In: pairs in time order. Out: [`Estimate`]s. Must not: average ratios of unequal pieces.

use super::{
    Estimate,
    level::{Spacing, sides},
};

/// Most batches that a series of iterations is cut into.
const BATCHES: usize = 30;

/// Σ numerator / Σ denominator over blocks (or starts, or clusters of answers) in time order. The interval is that of
/// the mean residual numerator − ratio·denominator (the linearised ratio estimator, Cochran 1977) for observations that
/// lie so in time (see [`level`](super::level)). `None` where the denominators add up to nothing.
pub fn over_level(pairs: &[(f64, f64)], spacing: Spacing, what: &str) -> Option<Estimate> {
    let (numerator, denominator) = pairs.iter().fold((0.0, 0.0), |(a, b), p| (a + p.0, b + p.1));
    if denominator <= 0.0 || denominator.is_nan() {
        return None;
    }
    let (value, n) = (numerator / denominator, pairs.len());
    let residuals: Vec<f64> = pairs.iter().map(|p| p.0 - value * p.1).collect();
    let least = if pairs.iter().all(|p| p.0 >= 0.0) { 0.0 } else { f64::NEG_INFINITY };
    let per = n as f64 / denominator;
    let interval = sides(&residuals, spacing)
        .map(|(below, above)| ((value - below * per).max(least), value + above * per))
        .ok_or_else(|| format!("one {what} only; an interval needs 2"));
    let method = format!("ratio of totals; {}", spacing.method(n, what));
    Some(Estimate { value, interval, n: n as u64, method })
}

/// Σ numerator / Σ denominator over the iterations of a single block, in time order: the series is cut into up to 30
/// batches of consecutive iterations and [`over_level`] is applied to their totals. An interval needs 6 iterations.
pub fn over_iterations(pairs: &[(f64, f64)]) -> Option<Estimate> {
    let totals: Vec<(f64, f64)> =
        batches(pairs).map(|batch| batch.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1))).collect();
    let mut estimate = over_level(&totals, Spacing::Row, "batch")?;
    let n = pairs.len();
    if n < 6 {
        estimate.interval = Err(format!("n = {n}; an interval needs 6"));
    }
    estimate.method = estimate.method.replace("batchs", "batches of consecutive iterations");
    estimate.n = n as u64;
    Some(estimate)
}

/// Up to 30 batches of neighbouring items.
pub fn batches<T>(items: &[T]) -> impl Iterator<Item = &[T]> {
    let (n, batches) = (items.len(), items.len().min(BATCHES));
    (0..batches).map(move |b| &items[b * n / batches..(b + 1) * n / batches])
}

/// numerator / denominator of two independent positive estimates. The interval joins theirs on the logarithmic scale
/// (MOVER: Donner and Zou 2012): each side is the root of the two squared distances from estimate to limit. It needs
/// both intervals above 0.
pub fn quotient(numerator: &Estimate, denominator: &Estimate) -> Option<Estimate> {
    if numerator.value <= 0.0 || denominator.value <= 0.0 {
        return None;
    }
    let value = numerator.value / denominator.value;
    let interval = match (&numerator.interval, &denominator.interval) {
        (Err(why), _) | (_, Err(why)) => Err(why.clone()),
        (Ok(a), Ok(b)) if a.0 <= 0.0 || b.0 <= 0.0 => Err("an interval reaches 0".into()),
        (Ok(a), Ok(b)) => {
            let side = |x: f64, y: f64| (x / numerator.value).ln().hypot((y / denominator.value).ln());
            Ok((value * (-side(a.0, b.1)).exp(), value * side(a.1, b.0).exp()))
        }
    };
    let method =
        format!("quotient; MOVER interval on the log scale of ({}) and ({})", numerator.method, denominator.method);
    Some(Estimate { value, interval, n: numerator.n.min(denominator.n), method })
}

/// What a right answer costs: cost of a row × rows per question / share of right questions. All rows of a question are
/// charged, those that a vote goes against too, and so are the questions that come out wrong. `rows` is a fact of the
/// task (1 where each row is a question of its own) and adds no uncertainty; the rest is as in [`quotient`].
pub fn per_right(row: &Estimate, rows: f64, accuracy: &Estimate) -> Option<Estimate> {
    let cost = row.clone().scaled(rows);
    let estimate = quotient(&cost, accuracy)?;
    let method = match rows {
        1.0 => estimate.method,
        _ => format!("all {} rows of a question charged; {}", (100.0 * rows).round() / 100.0, estimate.method),
    };
    Some(Estimate { method, ..estimate })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_denominators_give_the_t_interval_of_the_mean() {
        // mean 3, sample standard deviation sqrt(2.5), n = 5: 3 +- 2.776 * 0.7071
        let pairs: Vec<_> = (1..=5).map(|v| (f64::from(v), 1.0)).collect();
        let estimate = over_level(&pairs, Spacing::Independent, "block").unwrap();
        let (lower, upper) = estimate.interval.unwrap();
        assert_eq!(estimate.value, 3.0);
        assert!((upper - 4.963_24).abs() < 1e-4 && (lower - 1.036_76).abs() < 1e-4, "{lower} {upper}");
    }

    #[test]
    fn unequal_blocks_weigh_by_their_size() {
        assert_eq!(over_level(&[(10.0, 1.0), (10.0, 9.0)], Spacing::Independent, "block").unwrap().value, 2.0);
        assert!(over_level(&[], Spacing::Independent, "block").is_none());
        assert!(over_level(&[(1.0, 0.0)], Spacing::Independent, "block").is_none());
        assert!(over_level(&[(1.0, 2.0)], Spacing::Independent, "block").unwrap().interval.is_err());
    }

    #[test]
    fn slow_waves_widen_the_interval_of_iterations() {
        // the same values, once in random order and once as a wave: a plain t interval would not see the difference
        let wave: Vec<_> = (0..600).map(|i| (1.0, 1.0 + 0.1 * (f64::from(i) / 50.0).sin())).collect();
        let shuffled: Vec<_> = (0..600).map(|i| wave[i * 277 % 600]).collect();
        let width = |pairs: &[(f64, f64)]| over_iterations(pairs).unwrap().interval.map(|i| i.1 - i.0).unwrap();
        assert!(width(&wave) > 2.0 * width(&shuffled));
    }

    #[test]
    fn a_sure_denominator_leaves_the_numerators_interval() {
        let estimate = |value, interval| Estimate { value, interval, n: 5, method: String::new() };
        let joules = estimate(10.0, Ok((8.0, 12.0)));
        let sure = quotient(&joules, &estimate(0.5, Ok((0.5, 0.5)))).unwrap();
        let (lower, upper) = sure.interval.unwrap();
        assert!((lower - 16.0).abs() < 1e-9 && (upper - 24.0).abs() < 1e-9);
        assert!(quotient(&joules, &estimate(0.0, Ok((0.0, 0.1)))).is_none());
        assert!(quotient(&joules, &estimate(0.1, Err("why".into()))).unwrap().interval.is_err());
    }

    #[test]
    fn a_right_answer_is_charged_for_all_rows_of_all_questions() {
        let estimate = |value, interval| Estimate { value, interval, n: 5, method: "m".into() };
        let (joules, accuracy) = (estimate(2.0, Ok((1.0, 4.0))), estimate(0.25, Ok((0.25, 0.25))));
        // 8 rows of 2 J for a question, and four questions for a right one
        let cost = per_right(&joules, 8.0, &accuracy).unwrap();
        assert_eq!(cost.value, 64.0);
        let (lower, upper) = cost.interval.unwrap();
        assert!((lower - 32.0).abs() < 1e-9 && (upper - 128.0).abs() < 1e-9, "{lower} {upper}");
        assert!(cost.method.starts_with("all 8 rows of a question charged"), "{}", cost.method);
        let alone = per_right(&joules, 1.0, &accuracy).unwrap();
        assert_eq!(alone, quotient(&joules, &accuracy).unwrap());
        assert!(per_right(&joules, 8.0, &estimate(0.0, Ok((0.0, 0.1)))).is_none());
    }

    proptest! {
        #[test]
        fn never_panics_and_holds_its_value(pairs in prop::collection::vec((0.0f64..1e9, 0.0f64..1e9), 0..80)) {
            let apart = over_level(&pairs, Spacing::Apart, "block");
            for estimate in [over_level(&pairs, Spacing::Independent, "block"), apart, over_iterations(&pairs)].into_iter().flatten() {
                if let Ok((lower, upper)) = estimate.interval {
                    prop_assert!(lower <= estimate.value && estimate.value <= upper);
                }
            }
        }
    }
}
