//! Arithmetic that several operators share: products with a weight, vectors along an axis, softmax.
//!
//! In and out: elements in f64. Every output is one sum in the order of the inputs, whatever is computed beside it and on however many
//! threads. Must not: share code with a backend.

use super::Axis;
use super::tensor::Tensor;

/// Applies `f` to the vectors along an axis. It is given all of them, one after the other, and their length.
pub(super) fn along(x: &Tensor, axis: Axis, f: &dyn Fn(&[f64], usize) -> Vec<f64>) -> Vec<f64> {
    if axis == Axis::Features {
        return f(&x.data, x.features);
    }
    let turned = |data: &[f64], rows: usize, columns: usize| {
        let mut turned = Vec::with_capacity(data.len());
        for matrix in data.chunks_exact(rows * columns) {
            (0..columns).for_each(|c| turned.extend(matrix[c..].iter().step_by(columns)));
        }
        turned
    };
    let columns = turned(&x.data, x.tokens, x.features);
    turned(&f(&columns, x.tokens), x.features, x.tokens)
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Rows, and outputs, of a product that are computed together: what is loaded serves several sums, and several sums go on at a time.
const TILE: usize = 4;

/// x·Wᵀ + b for rows of `width` features. `W: [outputs, width]`; the rows are split between threads.
pub(super) fn product(x: &[f64], w: &[f32], width: usize, bias: Option<&[f64]>, threads: usize) -> Vec<f64> {
    let (rows, outputs) = (x.len() / width, w.len() / width);
    // W in f64, `TILE` outputs side by side: [outputs / TILE, width, TILE]; then the outputs that are left over
    let whole = outputs / TILE * TILE;
    let mut sides = Vec::with_capacity(w.len());
    for four in w[..whole * width].chunks_exact(TILE * width) {
        (0..width).for_each(|k| sides.extend((0..TILE).map(|j| f64::from(four[j * width + k]))));
    }
    sides.extend(w[whole * width..].iter().map(|&v| f64::from(v)));
    let some_rows = |x: &[f64], y: &mut [f64]| {
        let (x4, y4) = (x.chunks_exact(TILE * width), y.chunks_exact_mut(TILE * outputs));
        x4.zip(y4).for_each(|(x, y)| tiles::<TILE>(x, &sides, width, outputs, y));
        let done = x.len() / width / TILE * TILE;
        let (x1, y1) = (x[done * width..].chunks_exact(width), y[done * outputs..].chunks_exact_mut(outputs));
        x1.zip(y1).for_each(|(x, y)| tiles::<1>(x, &sides, width, outputs, y));
    };
    let mut y = vec![0.0; rows * outputs];
    let share = rows.div_ceil(threads).next_multiple_of(TILE);
    if share >= rows {
        some_rows(x, &mut y);
    } else {
        std::thread::scope(|scope| {
            let shares = x.chunks(share * width).zip(y.chunks_mut(share * outputs));
            shares.for_each(|(x, y)| drop(scope.spawn(|| some_rows(x, y))));
        });
    }
    if let Some(bias) = bias {
        y.chunks_exact_mut(outputs).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
    }
    y
}

/// All outputs of `R` rows, `TILE` outputs at a time.
fn tiles<const R: usize>(x: &[f64], sides: &[f64], width: usize, outputs: usize, y: &mut [f64]) {
    let whole = outputs / TILE * TILE;
    for j in (0..whole).step_by(TILE) {
        tile::<R, TILE>(x, &sides[j * width..(j + TILE) * width], width, &mut y[j..], outputs);
    }
    for j in whole..outputs {
        tile::<R, 1>(x, &sides[j * width..(j + 1) * width], width, &mut y[j..], outputs);
    }
}

/// `R` rows times `C` outputs that lie side by side.
fn tile<const R: usize, const C: usize>(x: &[f64], w: &[f64], width: usize, y: &mut [f64], outputs: usize) {
    let mut sums = [[0.0; C]; R];
    for (k, w) in w.chunks_exact(C).enumerate() {
        for r in 0..R {
            for c in 0..C {
                sums[r][c] += x[r * width + k] * w[c];
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        y[r * outputs..r * outputs + C].copy_from_slice(sums);
    }
}

pub(super) fn softmax(scores: &[f64]) -> Vec<f64> {
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|v| v / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_along_tokens_and_along_features_differ_only_by_a_transpose() {
        let x = Tensor { data: (0..12).map(f64::from).collect(), tokens: 3, features: 4 };
        let doubled_sum = |v: &[f64]| v.iter().map(|a| a + v.iter().sum::<f64>()).collect::<Vec<f64>>();
        let all = |rows: &[f64], n: usize| rows.chunks_exact(n).flat_map(doubled_sum).collect::<Vec<f64>>();
        let tokens = along(&x, Axis::Tokens, &all);
        assert_eq!(tokens[..2], [0.0 + (0.0 + 4.0 + 8.0), 1.0 + (1.0 + 5.0 + 9.0)]);
        assert_eq!(tokens[4], 4.0 + (0.0 + 4.0 + 8.0));
        assert_eq!(along(&x, Axis::Features, &all)[0], 0.0 + 6.0);
    }

    #[test]
    fn a_product_is_the_plain_sum_at_every_size_and_on_any_threads() {
        for (rows, width, outputs) in [(1, 1, 1), (3, 5, 2), (4, 8, 4), (5, 7, 9), (13, 33, 11), (97, 3, 6), (0, 4, 4)]
        {
            let number = |i: usize| ((i * 7919 + 104_729) % 2003) as f64 / 977.0 - 1.0;
            let x: Vec<f64> = (0..rows * width).map(number).collect();
            let w: Vec<f32> = (0..outputs * width).map(|i| number(i + 5) as f32).collect();
            let bias: Vec<f64> = (0..outputs).map(|i| number(i + 11)).collect();
            let mut plain = Vec::new();
            for x in x.chunks_exact(width) {
                for (w, b) in w.chunks_exact(width).zip(&bias) {
                    let mut sum = 0.0;
                    (0..width).for_each(|k| sum += x[k] * f64::from(w[k]));
                    plain.push(sum + b);
                }
            }
            for threads in [1, 2, 3, 50] {
                assert_eq!(
                    product(&x, &w, width, Some(&bias), threads),
                    plain,
                    "{rows} x {width} x {outputs}, {threads}"
                );
            }
        }
    }
}
