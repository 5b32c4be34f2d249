//! Binomial sums, the incomplete beta function and Student's t, as far as the intervals need them.
//!
//! In: parameters in their mathematical range. Out: probabilities and quantiles. Must not: be used as a general
//! library; accuracy is about 1e-10, which is far beyond what an interval needs.

/// Quantile 0.975 of the standard normal distribution.
pub const Z975: f64 = 1.959_963_984_540_054;

/// ln Γ(x) for x > 0 (Lanczos, g = 7, nine terms).
pub fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let t = x + 7.5;
    let sum = COEFFICIENTS.iter().zip(1..).fold(0.999_999_999_999_809_9, |sum, (c, i)| sum + c / (x + f64::from(i)));
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// P[Binomial(n, p) = k], by logarithms, for 0 < p < 1.
pub fn binomial_pmf(n: u64, p: f64, k: u64) -> f64 {
    let (n, k) = (n as f64, k as f64);
    let choose = ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
    (choose + k * p.ln() + (n - k) * (-p).ln_1p()).exp()
}

/// Regularised incomplete beta function I_x(a, b) (continued fraction, modified Lentz).
pub fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // the fraction converges fast on this side only
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp() / a;
    let guard = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let (mut c, mut d) = (1.0, 1.0 / guard(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    // about sqrt(max(a, b)) turns are needed; the bound keeps a bad argument from looping
    for m in 1..20_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / guard(1.0 + even * d);
        c = guard(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / guard(1.0 + odd * d);
        c = guard(1.0 + odd / c);
        fraction *= d * c;
        if (d * c - 1.0).abs() < 1e-14 {
            break;
        }
    }
    front * fraction
}

/// P[Binomial(n, p) ≤ k].
pub fn binomial_cdf(n: u64, p: f64, k: u64) -> f64 {
    if k >= n { 1.0 } else { incomplete_beta(1.0 - p, (n - k) as f64, k as f64 + 1.0) }
}

/// Quantile 0.975 of Student's t with `df` ≥ 1 degrees of freedom.
pub fn t975(df: u64) -> f64 {
    let df = df.max(1) as f64;
    let above = |t: f64| 0.5 * incomplete_beta(df / (df + t * t), 0.5 * df, 0.5);
    let (mut low, mut high) = (0.0, 16.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if above(middle) > 0.025 { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// P[|T| > x] for Student's t with `df` ≥ 1 degrees of freedom.
pub fn t_outside(df: u64, x: f64) -> f64 {
    let df = df.max(1) as f64;
    incomplete_beta(df / (df + x * x), 0.5 * df, 0.5)
}

/// Whether x lies above the quantile 0.99 of χ² with `df` ≥ 1 degrees of freedom, by the approximation of Wilson and
/// Hilferty.
pub fn chi_square_exceeds_99(x: f64, df: u64) -> bool {
    let part = 2.0 / (9.0 * df.max(1) as f64);
    ((x / df.max(1) as f64).cbrt() - (1.0 - part)) / part.sqrt() > 2.326_347_87
}

/// P[Poisson(mean) ≥ k].
pub fn poisson_at_least(mean: f64, k: u64) -> f64 {
    if mean <= 0.0 {
        return if k == 0 { 1.0 } else { 0.0 };
    }
    let term = |i: u64| (i as f64 * mean.ln() - mean - ln_gamma(i as f64 + 1.0)).exp();
    if k as f64 <= mean {
        return 1.0 - (0..k).map(term).sum::<f64>();
    }
    // above the mean the terms fall, by a factor that falls itself
    let (mut sum, mut last, mut i) = (0.0, term(k), k);
    while last > 1e-16 * sum && last > 0.0 {
        sum += last;
        i += 1;
        last *= mean / i as f64;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_printed_tables() {
        for (df, t) in [(1, 12.706_204_7), (2, 4.302_652_7), (5, 2.570_581_8), (30, 2.042_272_5), (1000, 1.962_339_1)] {
            assert!((t975(df) - t).abs() < 1e-6, "t975({df}) = {}", t975(df));
        }
        assert!((ln_gamma(101.0) - 363.739_375_555_563_5).abs() < 1e-9);
        assert!((incomplete_beta(0.3, 2.0, 5.0) - 0.579_825).abs() < 1e-9);
        for (mean, k, p) in [
            (1.0, 0, 1.0),
            (1.0, 1, 0.632_120_559),
            (0.3, 2, 0.036_936_313),
            (10.0, 20, 0.003_454_342),
            (50.0, 40, 0.935_429_7),
        ] {
            assert!((poisson_at_least(mean, k) - p).abs() < 1e-6, "{mean} {k}: {}", poisson_at_least(mean, k));
        }
        assert_eq!((poisson_at_least(0.0, 1), poisson_at_least(1e5, 1_000_000)), (0.0, 0.0));
    }

    #[test]
    fn binomial_sums_agree_with_themselves() {
        for (n, p) in [(10, 0.5), (662, 0.01), (5000, 0.2)] {
            let mut sum = 0.0;
            for k in 0..n.min(120) {
                sum += binomial_pmf(n, p, k);
                assert!((binomial_cdf(n, p, k) - sum).abs() < 1e-9, "n {n} p {p} k {k}");
            }
        }
        assert_eq!(binomial_cdf(3, 0.5, 3), 1.0);
    }
}
