//! Metrics made of sums that a scorer gave for each example: ratios of sums, and the area under the ROC curve.
//!
//! In: the rows of `sums.csv` of the case that is scored. Out: estimates over clusters. Must not: take a mean of ratios of
//! single examples for the ratio of their sums, or answers that share a cluster for independent ones.

use std::collections::{BTreeMap, BTreeSet};

use super::Summary;
use crate::{
    case::ExampleSum,
    metric::Combined,
    stats::{
        Estimate,
        level::{Spacing, sides},
        proportion::share,
        ratio::over_level,
        roc::{Judged, auroc},
    },
};

/// The normal distribution's 97.5 %.
const NORMAL: f64 = 1.959_964;

/// Fewest clusters that must differ from having nothing to sum, and from having all, for an interval.
const FEWEST: usize = 10;

impl Summary<'_> {
    /// The names of the metrics that the scored case has sums of.
    pub(super) fn summed(&self) -> BTreeSet<&str> {
        self.source.map(|s| s.sums.iter().map(|sum| sum.metric.as_str()).collect()).unwrap_or_default()
    }

    /// The metric of this name, out of sums.
    pub(super) fn combined(&self, name: &str, how: Combined) -> Option<Estimate> {
        let sums: Vec<&ExampleSum> = self.source?.sums.iter().filter(|s| s.metric == name).collect();
        of_sums(&sums, how)
    }
}

fn of_sums(sums: &[&ExampleSum], how: Combined) -> Option<Estimate> {
    let examples = sums.iter().map(|s| s.example).collect::<BTreeSet<_>>().len() as u64;
    let clusters = sums.iter().map(|s| s.cluster).collect::<BTreeSet<_>>().len() as u64;
    let what = if examples == clusters { "answer" } else { "cluster" };
    let totals = || {
        let mut totals: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for sum in sums {
            let total = totals.entry(sum.cluster).or_default();
            *total = (total.0 + sum.numerator, total.1 + sum.denominator);
        }
        totals.into_values().collect::<Vec<(f64, f64)>>()
    };
    let mut estimate = match how {
        Combined::Area => {
            let judged =
                |s: &&ExampleSum| Judged { cluster: s.cluster, score: s.numerator, positive: s.denominator > 0.5 };
            return auroc(&sums.iter().map(judged).collect::<Vec<_>>());
        }
        Combined::Share => {
            let counts: Vec<(u64, u64)> = totals().iter().map(|(a, b)| (a.round() as u64, b.round() as u64)).collect();
            share(&counts, examples == clusters)?
        }
        Combined::Ratio => ratio(&totals(), what, false)?,
        Combined::Fraction => {
            let mut estimate = ratio(&totals(), what, true)?;
            estimate.interval = estimate.interval.map(|(lower, upper)| (lower, upper.min(1.0)));
            estimate
        }
        Combined::Root => {
            let squared = ratio(&totals(), what, false)?;
            let interval = squared.interval.map(|(lower, upper)| (lower.max(0.0).sqrt(), upper.sqrt()));
            Estimate { value: squared.value.sqrt(), interval, method: format!("root of a {}", squared.method), n: 0 }
        }
        Combined::Explained => {
            let left = ratio(&totals(), what, false)?;
            let interval = left.interval.map(|(lower, upper)| (1.0 - upper, 1.0 - lower));
            Estimate { value: 1.0 - left.value, interval, method: format!("1 minus a {}", left.method), n: 0 }
        }
        Combined::MeanOfParts => parts(sums, what)?,
        Combined::Surprise => surprise(sums, what)?,
        Combined::Perplexity => {
            let nats = surprise(sums, what)?;
            let interval = nats.interval.map(|(lower, upper)| (lower.exp(), upper.exp()));
            Estimate {
                value: nats.value.exp(),
                interval,
                method: format!("e to the power of nll: {}", nats.method),
                n: 0,
            }
        }
    };
    estimate.n = examples;
    Some(estimate)
}

/// Σ numerator / Σ denominator, whose interval needs enough clusters that have something in the numerator, and, of a
/// fraction, less than all.
fn ratio(totals: &[(f64, f64)], what: &str, fraction: bool) -> Option<Estimate> {
    let mut estimate = over_level(totals, Spacing::Independent, what)?;
    let some = totals.iter().filter(|t| t.0 != 0.0).count();
    let rest = totals.iter().filter(|t| t.0 != t.1).count();
    let fewest = if fraction { some.min(rest) } else { some };
    if fewest < FEWEST && estimate.interval.is_ok() {
        estimate.interval = Err(few(fewest, totals.len(), what));
    }
    Some(estimate)
}

/// Nats over tokens. With few windows their variance says little, and the interval takes tokens as independent, as llama-perplexity does; its standard
/// error is in the method.
fn surprise(sums: &[&ExampleSum], what: &str) -> Option<Estimate> {
    let total = |part: u32| {
        let of = sums.iter().filter(|s| s.part == part);
        of.fold((0.0, 0.0), |(a, b), s| (a + s.numerator, b + s.denominator))
    };
    let ((nats, tokens), (squares, _)) = (total(0), total(1));
    let mean = nats / tokens;
    let error = ((squares / tokens - mean * mean).max(0.0) / (tokens - 1.0)).sqrt();
    let words =
        format!("standard error {error:.4} with {tokens} tokens taken as independent, as llama-perplexity has it");
    let mut windows: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for sum in sums.iter().filter(|s| s.part == 0) {
        let total = windows.entry(sum.cluster).or_default();
        *total = (total.0 + sum.numerator, total.1 + sum.denominator);
    }
    let windows: Vec<(f64, f64)> = windows.into_values().collect();
    if windows.len() >= FEWEST {
        let estimate = ratio(&windows, what, false)?;
        return Some(Estimate { method: format!("{}; {words}", estimate.method), ..estimate });
    }
    let half = NORMAL * error;
    let interval = match error.is_finite() {
        true => Ok((mean - half, mean + half)),
        false => Err("one token only; an interval needs 2".into()),
    };
    mean.is_finite().then(|| Estimate {
        value: mean,
        interval,
        n: 0,
        method: format!("ratio of totals; {words}, since {} {what}s are too few", windows.len()),
    })
}

fn few(differing: usize, of: usize, what: &str) -> String {
    format!(
        "{differing} of {of} {what}s differ from the others, it needs {FEWEST}: what was not seen is in no variance"
    )
}

/// The mean over parts of the ratio of each, linearised over clusters.
fn parts(sums: &[&ExampleSum], what: &str) -> Option<Estimate> {
    let mut of_part: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    for sum in sums {
        let total = of_part.entry(sum.part).or_default();
        *total = (total.0 + sum.numerator, total.1 + sum.denominator);
    }
    of_part.retain(|_, (_, denominator)| *denominator > 0.0);
    if of_part.is_empty() {
        return None;
    }
    let count = of_part.len() as f64;
    let value = of_part.values().map(|(a, b)| a / b).sum::<f64>() / count;
    let mut residuals: BTreeMap<u64, f64> = BTreeMap::new();
    for sum in sums {
        let Some((numerator, denominator)) = of_part.get(&sum.part) else { continue };
        let residual = sum.numerator - numerator / denominator * sum.denominator;
        *residuals.entry(sum.cluster).or_default() += residual / denominator / count;
    }
    let residuals: Vec<f64> = residuals.into_values().collect();
    let n = residuals.len();
    let differing = residuals.iter().filter(|r| r.abs() > 1e-12).count();
    let interval = match sides(&residuals, Spacing::Independent) {
        None => Err(format!("one {what} only; an interval needs 2")),
        Some(_) if differing < FEWEST => Err(few(differing, n, what)),
        // the residuals are of a sum
        Some((below, above)) => Ok(((value - n as f64 * below).max(0.0), (value + n as f64 * above).min(1.0))),
    };
    let method = match of_part.len() {
        1 => format!("ratio of totals; {}", Spacing::Independent.method(n, what)),
        parts => format!("mean over {parts} parts of ratios of totals; {}", Spacing::Independent.method(n, what)),
    };
    Some(Estimate { value, interval, n: n as u64, method })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(example: u64, cluster: u64, part: u32, numerator: f64, denominator: f64) -> ExampleSum {
        ExampleSum { example, cluster, metric: "m".into(), part, numerator, denominator }
    }

    fn of(rows: &[ExampleSum], how: Combined) -> Option<Estimate> {
        of_sums(&rows.iter().collect::<Vec<_>>(), how)
    }

    #[test]
    fn sums_become_the_metric_that_they_are_of() {
        let rows = [row(0, 0, 0, 1.0, 10.0), row(1, 1, 0, 5.0, 20.0)];
        assert_eq!(of(&rows, Combined::Ratio).unwrap().value, 0.2);
        assert_eq!(of(&rows, Combined::Explained).unwrap().value, 0.8);
        assert!((of(&rows, Combined::Root).unwrap().value - 0.2f64.sqrt()).abs() < 1e-15);
        let masks = [row(0, 0, 1, 1.0, 2.0), row(0, 0, 2, 0.0, 3.0), row(1, 1, 1, 2.0, 2.0)];
        // ¾ of the first class, nothing of the second
        let iou = of(&masks, Combined::MeanOfParts).unwrap();
        assert_eq!((iou.value, iou.n), (0.375, 2));
        // 4 nats over 2 tokens, of 1 and 3: their standard error is 1
        let nats = [row(0, 0, 0, 4.0, 2.0), row(0, 0, 1, 10.0, 2.0)];
        let (nll, perplexity) = (of(&nats, Combined::Surprise).unwrap(), of(&nats, Combined::Perplexity).unwrap());
        assert!(nll.value == 2.0 && nll.method.contains("standard error 1.0000"), "{}", nll.method);
        assert!((perplexity.value - 2f64.exp()).abs() < 1e-12 && perplexity.interval.unwrap().0 < 2f64.exp());
        let labels = [row(0, 0, 0, 0.9, 1.0), row(1, 1, 0, 0.2, 0.0), row(2, 2, 0, 0.1, 1.0)];
        assert_eq!(of(&labels, Combined::Area).unwrap().value, 0.5);
        assert!(of(&[], Combined::Ratio).is_none() && of(&[], Combined::MeanOfParts).is_none());
        // labels that do not vary explain nothing
        assert!(of(&[row(0, 0, 0, 1.0, 0.0)], Combined::Explained).is_none());
    }

    #[test]
    fn a_class_alone_has_the_interval_of_a_ratio() {
        let rows: Vec<ExampleSum> = (0..40).map(|i| row(i, i, 1, (i % 7) as f64, 8.0)).collect();
        let (one, plain) = (of(&rows, Combined::MeanOfParts).unwrap(), of(&rows, Combined::Ratio).unwrap());
        let (a, b) = (one.interval.unwrap(), plain.interval.unwrap());
        assert!((one.value - plain.value).abs() < 1e-12 && (a.0 - b.0).abs() < 1e-9 && (a.1 - b.1).abs() < 1e-9);
    }

    #[test]
    fn where_hardly_anything_differs_there_is_no_interval() {
        let rows: Vec<ExampleSum> = (0..200).map(|i| row(i, i, 0, f64::from(u8::from(i < 9)), 5.0)).collect();
        let why = of(&rows, Combined::Ratio).unwrap().interval.unwrap_err();
        assert!(why.contains("9 of 200 answers"), "{why}");
        let full: Vec<ExampleSum> = (0..200).map(|i| row(i, i, 0, if i < 3 { 0.5 } else { 1.0 }, 1.0)).collect();
        assert!(of(&full, Combined::Fraction).unwrap().interval.is_err());
        assert!(of(&full, Combined::Ratio).unwrap().interval.is_ok());
    }

    #[test]
    fn intervals_hold_what_they_are_of_as_often_as_they_say() {
        let mut state = 3u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        let (mut held, runs) = ([0; 3], 300);
        for _ in 0..runs {
            let (mut errors, mut numbers) = (Vec::new(), Vec::new());
            for cluster in 0..80 {
                // two texts of a cluster are as hard as each other; a character is wrong with that probability
                let hard = 0.2 * uniform();
                for i in 0..2 {
                    let length = 5 + (30.0 * uniform()) as u64;
                    let wrong = (0..length).filter(|_| uniform() < hard).count();
                    errors.push(row(2 * cluster + i, cluster, 0, wrong as f64, length as f64));
                    // an error of variance 1/12 beside a label of variance 25/12
                    let (label, error) = (5.0 * (uniform() - 0.5), uniform() - 0.5);
                    numbers.push(row(2 * cluster + i, cluster, 0, error * error, label * label));
                }
            }
            let holds = |found: Option<Estimate>, truth: f64| {
                let (lower, upper) = found.unwrap().interval.unwrap();
                u32::from((lower..=upper).contains(&truth))
            };
            held[0] += holds(of(&errors, Combined::Ratio), 0.1);
            held[1] += holds(of(&numbers, Combined::Explained), 1.0 - 1.0 / 25.0);
            let squares: Vec<ExampleSum> =
                numbers.iter().map(|r| ExampleSum { denominator: 1.0, ..r.clone() }).collect();
            held[2] += holds(of(&squares, Combined::Root), (1.0f64 / 12.0).sqrt());
        }
        assert!(held.iter().all(|h| (273..=297).contains(h)), "{held:?} of {runs} intervals of 95 %");
    }
}
