//! The least squares of a router and of its experts' factors.
//!
//! In: rows of inputs with what is wanted of them, or experts' outputs with scores. Out: weights, factors, what is lost. Must not: know a model.

/// Sums of products of inputs, and of inputs with what is wanted: all that a ridge regression needs.
pub struct Gram {
    width: usize,
    wanted: usize,
    rows: usize,
    /// `[width, width]`, the lower half.
    inputs: Vec<f64>,
    /// `[wanted, width]`
    products: Vec<f64>,
}

impl Gram {
    /// Of no row.
    pub fn new(width: usize, wanted: usize) -> Self {
        Self { width, wanted, rows: 0, inputs: vec![0.0; width * width], products: vec![0.0; wanted * width] }
    }

    /// Adds a row.
    pub fn add(&mut self, x: &[f64], wanted: &[f64]) {
        self.rows += 1;
        for (i, &a) in x.iter().enumerate() {
            let row = &mut self.inputs[i * self.width..][..=i];
            row.iter_mut().zip(x).for_each(|(sum, b)| *sum += a * b);
        }
        for (products, &w) in self.products.chunks_exact_mut(self.width).zip(wanted) {
            products.iter_mut().zip(x).for_each(|(sum, x)| *sum += w * x);
        }
    }

    /// Adds all rows of another.
    pub fn join(&mut self, other: &Self) {
        self.rows += other.rows;
        self.inputs.iter_mut().zip(&other.inputs).for_each(|(a, b)| *a += b);
        self.products.iter_mut().zip(&other.products).for_each(|(a, b)| *a += b);
    }

    /// Weights `[wanted, width]` of the least squares, with `strength` times the mean square of an input (times the rows) added to each
    /// square.
    pub fn ridge(&self, strength: f64) -> Vec<f64> {
        let n = self.width;
        let mean = (0..n).map(|i| self.inputs[i * n + i]).sum::<f64>() / n as f64;
        let mut matrix = self.inputs.clone();
        (0..n).for_each(|i| matrix[i * n + i] += strength * mean.max(f64::MIN_POSITIVE));
        let mut x = self.products.clone();
        cholesky(&mut matrix, n);
        x.chunks_exact_mut(n).for_each(|x| substitute(&matrix, n, x));
        debug_assert_eq!(x.len(), self.wanted * n);
        x
    }
}

/// The lower half of a positive definite matrix becomes its Cholesky factor.
fn cholesky(a: &mut [f64], n: usize) {
    for i in 0..n {
        for j in 0..=i {
            let (x, y) = (&a[i * n..i * n + j], &a[j * n..j * n + j]);
            let rest = a[i * n + j] - x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            // the ridge keeps it above 0
            a[i * n + j] = if i == j { rest.max(f64::MIN_POSITIVE).sqrt() } else { rest / a[j * n + j] };
        }
    }
}

/// Solves for one right side with a Cholesky factor.
fn substitute(l: &[f64], n: usize, x: &mut [f64]) {
    for i in 0..n {
        let known: f64 = l[i * n..i * n + i].iter().zip(&*x).map(|(l, x)| l * x).sum();
        x[i] = (x[i] - known) / l[i * n + i];
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| l[j * n + i] * x[j]).sum();
        x[i] = (x[i] - known) / l[i * n + i];
    }
}

/// The experts that a token goes to and their weights: a softmax over the `active` highest scores, as in a mixture.
fn chosen(scores: &[f64], temperature: f64, active: usize) -> Vec<(usize, f64)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(active);
    let top = scores[order[0]];
    let weights: Vec<f64> = order.iter().map(|&e| (temperature * (scores[e] - top)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    order.into_iter().zip(weights).map(|(e, w)| (e, w / sum)).collect()
}

/// What a mixture puts out for each token, `[tokens, width]`: experts weigh by their scores, times their number, times their factors.
pub fn mixture(
    scores: &[f64],
    temperature: f64,
    factors: &[f64],
    outputs: &[Vec<f64>],
    active: usize,
    width: usize,
) -> Vec<f64> {
    let experts = outputs.len();
    let mut y = vec![0.0; outputs[0].len()];
    for (t, y) in y.chunks_exact_mut(width).enumerate() {
        for (e, w) in chosen(&scores[t * experts..][..experts], temperature, active) {
            let w = w * experts as f64 * factors[e];
            y.iter_mut().zip(&outputs[e][t * width..]).for_each(|(y, o)| *y += w * o);
        }
    }
    y
}

/// What each token's squares weigh: some tokens' outputs are a thousand times as long as others', and count about as much.
pub fn weights(outputs: &[Vec<f64>], width: usize) -> Vec<f64> {
    let tokens = outputs[0].len() / width;
    let square = |t: usize| {
        let sum = |i: usize| outputs.iter().map(|o| o[t * width + i]).sum::<f64>();
        (0..width).map(|i| sum(i).powi(2)).sum::<f64>()
    };
    let squares: Vec<f64> = (0..tokens).map(square).collect();
    let mut sorted = squares.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[tokens / 2].max(f64::MIN_POSITIVE);
    squares.iter().map(|s| 1.0 / (s + median)).collect()
}

/// Square of the difference of the mixture from the sum of all experts, over that sum's square, over some tokens, each by its weight.
pub fn mixture_error(
    scores: &[f64],
    temperature: f64,
    factors: &[f64],
    outputs: &[Vec<f64>],
    active: usize,
    weights: &[f64],
    tokens: &[usize],
) -> f64 {
    let width = outputs[0].len() / weights.len();
    let experts = outputs.len();
    let (mut lost, mut all) = (0.0, 0.0);
    let mut difference = vec![0.0; width];
    for &t in tokens {
        difference.fill(0.0);
        for output in outputs {
            difference.iter_mut().zip(&output[t * width..]).for_each(|(d, o)| *d += o);
        }
        all += weights[t] * difference.iter().map(|d| d * d).sum::<f64>();
        for (e, w) in chosen(&scores[t * experts..][..experts], temperature, active) {
            // equal weights without a temperature judge the choice alone: each expert as it is in the dense net
            let w = if temperature == 0.0 { 1.0 } else { w * experts as f64 * factors[e] };
            difference.iter_mut().zip(&outputs[e][t * width..]).for_each(|(d, o)| *d -= w * o);
        }
        lost += weights[t] * difference.iter().map(|d| d * d).sum::<f64>();
    }
    if all > 0.0 { lost / all } else { 0.0 }
}

/// The factor of each expert with the least squares between the mixture and the sum of all experts.
pub fn factors(
    scores: &[f64],
    temperature: f64,
    outputs: &[Vec<f64>],
    active: usize,
    weights: &[f64],
    tokens: &[usize],
) -> Vec<f64> {
    let width = outputs[0].len() / weights.len();
    let experts = outputs.len();
    let (mut matrix, mut right) = (vec![0.0; experts * experts], vec![0.0; experts]);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut sum = vec![0.0; width];
    for &t in tokens {
        sum.fill(0.0);
        let of = |e: usize| &outputs[e][t * width..][..width];
        (0..experts).for_each(|e| sum.iter_mut().zip(of(e)).for_each(|(s, o)| *s += o));
        let chosen = chosen(&scores[t * experts..][..experts], temperature, active);
        for &(a, wa) in &chosen {
            let wa = wa * experts as f64;
            right[a] += weights[t] * wa * dot(of(a), &sum);
            for &(b, wb) in chosen.iter().filter(|(b, _)| *b <= a) {
                matrix[a * experts + b] += weights[t] * wa * wb * experts as f64 * dot(of(a), of(b));
            }
        }
    }
    // an expert that few tokens meet stays near what the split alone would give it: the share of the experts that are active
    let mean = (0..experts).map(|e| matrix[e * experts + e]).sum::<f64>() / experts as f64;
    let (little, start) = (1e-3 * mean.max(f64::MIN_POSITIVE), active as f64 / experts as f64);
    for e in 0..experts {
        matrix[e * experts + e] += little;
        right[e] += little * start;
    }
    cholesky(&mut matrix, experts);
    substitute(&matrix, experts, &mut right);
    right
}
