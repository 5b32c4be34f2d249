//! How far the outputs of a model that is a file are from others: output by output.
//!
//! In: two lists of numbers. Out: an [`OutputComparison`]. Must not: decide what an acceptable difference is.

use ergometer_reports::case::OutputComparison;

/// Compares one output. `row`: elements along its last axis of each example, where that is known.
///
/// The differences are over the largest magnitude that is wanted. Numbers that are none, of either side, are infinitely far off.
pub fn compare(output: &str, got: &[f32], want: &[f32], row: Option<usize>) -> OutputComparison {
    let largest = super::error(got, want);
    let pairs = || got.iter().zip(want).map(|(g, w)| (f64::from(*g), f64::from(*w)));
    let most = want.iter().fold(0f64, |m, w| m.max(f64::from(w.abs())));
    let sum: f64 = pairs().map(|(g, w)| (g - w).abs()).sum();
    let mean = if largest == 0.0 { 0.0 } else { sum / want.len().max(1) as f64 / most };
    let (dot, g2, w2) = pairs().fold((0.0, 0.0, 0.0), |(d, a, b), (g, w)| (d + g * w, a + g * g, b + w * w));
    let cosine = Some(dot / (g2 * w2).sqrt()).filter(|c| c.is_finite());
    let row = row.filter(|n| *n > 1 && got.len() == want.len() && got.len().is_multiple_of(*n));
    let same_argmax = row.map(|n| {
        let argmax = crate::backends::session::argmax;
        let same = got.chunks_exact(n).zip(want.chunks_exact(n)).filter(|(g, w)| argmax(g) == argmax(w)).count();
        same as f64 / (got.len() / n).max(1) as f64
    });
    OutputComparison { output: output.to_owned(), values: want.len() as u64, largest, mean, cosine, same_argmax }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_compared_in_four_ways() {
        let same = compare("y", &[1.0, 2.0, -4.0, 0.5], &[1.0, 2.0, -4.0, 0.5], Some(2));
        assert_eq!((same.largest, same.mean, same.cosine, same.same_argmax), (0.0, 0.0, Some(1.0), Some(1.0)));
        let other = compare("y", &[1.0, 2.0, -4.0, -5.0], &[1.0, 2.0, -4.0, -3.0], Some(2));
        assert_eq!((other.largest, other.mean, other.values), (0.5, 0.125, 4));
        assert!(other.same_argmax == Some(0.5) && other.cosine.unwrap() < 1.0);
        let turned = compare("y", &[2.0, 1.0, 0.0, 1.0], &[1.0, 2.0, 0.0, 1.0], Some(2));
        assert_eq!(turned.same_argmax, Some(0.5));
        assert_eq!(compare("y", &[f32::NAN], &[1.0], None).largest, f64::INFINITY);
        assert_eq!(compare("y", &[1.0], &[1.0, 2.0], None).largest, f64::INFINITY);
        assert_eq!(compare("y", &[0.0], &[0.0], None).cosine, None);
    }
}
