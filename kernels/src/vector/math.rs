//! Exponential, error function and the activation functions made of them, on vectors. In and Out: vectors; NaN goes
//! through. Every instruction set evaluates the same polynomial with the same operations in the same order, so AVX2 and
//! AVX-512 give the same bits. Exceptions are the silu, which divides by `recip`, and the rough functions: their
//! reciprocals differ between instruction sets and makers.

use super::Simd;

/// `e^x` within 2 units in the last place (1.2e-7 relative; half a unit more below 1e-38, where results are denormal);
/// 0 below -104, infinity above 88.73. Cephes `expf`: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial of degree 7 in
/// r, then scaled by 2^n with one rounding.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.splat(89.0), s.max(s.splat(-104.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts: n times the first is exact
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let p = s.add(s.fma(s.mul(r, r), p, r), s.splat(1.0));
    s.scale2(p, n)
}

/// `e^x` for x up to 0 as [`exp`], but 0 where the result would be denormal: denormals cost a hundred cycles, and add
/// nothing to a sum that holds 1.
#[inline(always)]
pub(crate) fn exp_or_zero<S: Simd>(s: S, x: S::V) -> S::V {
    let limit = -87.0;
    s.zero_below(exp(s, s.max(s.splat(limit), x)), x, limit)
}

/// `e^x` within 3e-7 + 2e-8 |x| relative, for x up to 88, and anything beyond; below -87 what it is at -87. 2^n times a minimax polynomial
/// of degree 5 in what is left of x log2 e; half the work of [`exp`].
#[inline(always)]
pub(crate) fn exp_quick<S: Simd>(s: S, x: S::V) -> S::V {
    let (x, by) = (s.max(s.splat(-87.0), x), s.splat(std::f32::consts::LOG2_E));
    let n = s.round(s.mul(x, by));
    let r = s.fma(x, by, s.sub(s.splat(0.0), n));
    let mut p = s.splat(1.326_465_9e-3);
    for c in [9.671_566e-3, 5.550_734_3e-2, 2.402_224_1e-1, std::f32::consts::LN_2, 1.0] {
        p = s.fma(p, r, s.splat(c));
    }
    s.scale2_normal(p, n)
}

/// `2^t` within 2^-13 relative, for values that are rounded to bf16 or int8 next, for t below 128; 2^-125 below -125,
/// since denormals cost a hundred cycles. A minimax polynomial of degree 3 in t less the nearest integer.
#[inline(always)]
pub(crate) fn exp2_rough<S: Simd>(s: S, t: S::V) -> S::V {
    let t = s.max(s.splat(-125.0), t);
    let n = s.round(t);
    let r = s.sub(t, n);
    let mut p = s.splat(5.517_165_7e-2);
    for c in [2.426_111_2e-1, 6.932_61e-1, 9.999_281e-1] {
        p = s.fma(p, r, s.splat(c));
    }
    s.scale2(p, n)
}

/// `erf(x)` within 3e-7 absolute, exactly ±1 where the nearest f32 is: the rational minimax approximation of Eigen and
/// XLA.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let limit = 3.832_507;
    let x = s.min(s.splat(limit), s.max(s.splat(-limit), x));
    let x2 = s.mul(x, x);
    let mut p = s.splat(2.290_506_6e-4);
    for c in [3.408_291e-3, 5.095_569_5e-2, 0.185_208_32, std::f32::consts::FRAC_2_SQRT_PI] {
        p = s.fma(p, x2, s.splat(c));
    }
    let mut q = s.splat(-1.179_160_3e-7);
    for c in [2.354_796_6e-5, 1.017_962_5e-3, 1.407_047e-2, 0.110_985_05, 0.497_469_25, 1.0] {
        q = s.fma(q, x2, s.splat(c));
    }
    let y = s.div(s.mul(x, p), q);
    s.min(s.splat(1.0), s.max(s.splat(-1.0), y))
}

/// `x / (1 + e^-x)` within 5e-7 + 2e-8 max(-x, 0) relative, 0 below -88.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    let sum = s.add(s.splat(1.0), exp_quick(s, s.sub(s.splat(0.0), x)));
    s.mul(x, s.zero_below(s.recip(sum), x, -88.0))
}

/// The same within 2^-10 relative, for values that are rounded to bf16 or int8 next.
#[inline(always)]
pub(crate) fn silu_rough<S: Simd>(s: S, x: S::V) -> S::V {
    s.mul(x, s.recip_rough(s.add(s.splat(1.0), exp2_rough(s, s.mul(x, s.splat(-std::f32::consts::LOG2_E))))))
}

/// `x/2 (1 + erf(x / sqrt 2))`.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let e = erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    s.mul(s.mul(s.splat(0.5), x), s.add(s.splat(1.0), e))
}

/// `x/2 (1 + tanh u)` with `u = sqrt(2/pi) (x + 0.044715 x^3)`, as `x / (1 + e^-2u)`.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let x3 = s.mul(s.mul(x, x), x);
    let u = s.mul(s.splat(0.797_884_6), s.fma(s.splat(0.044_715), x3, x));
    s.div(x, s.add(s.splat(1.0), exp(s, s.mul(s.splat(-2.0), u))))
}

/// `max(x, 0)`.
#[inline(always)]
pub(crate) fn relu<S: Simd>(s: S, x: S::V) -> S::V {
    s.max(s.splat(0.0), x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::scalar::erf as exact_erf;
    use crate::isa::{Isa, Proof};
    use crate::vector::dispatch;

    dispatch! {
        fn exps(x: &mut [f32]) { scalar_exps | vector_exps }
    }
    dispatch! {
        fn erfs(x: &mut [f32]) { scalar_erfs | vector_erfs }
    }

    fn scalar_exps(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = f64::from(*x).exp() as f32);
    }

    fn scalar_erfs(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = exact_erf(f64::from(*x)) as f32);
    }

    #[inline(always)]
    fn vector_exps<S: Simd>(s: S, x: &mut [f32]) {
        for x in x.chunks_mut(S::LANES) {
            s.store(x, exp(s, s.load(x)));
        }
    }

    #[inline(always)]
    fn vector_erfs<S: Simd>(s: S, x: &mut [f32]) {
        for x in x.chunks_mut(S::LANES) {
            s.store(x, erf(s, s.load(x)));
        }
    }

    /// Evenly spaced values, ends included.
    fn sweep(from: f32, to: f32, n: usize) -> Vec<f32> {
        (0..=n).map(|i| from + (to - from) * i as f32 / n as f32).collect()
    }

    #[test]
    fn exp_keeps_its_bound() {
        for isa in Isa::available() {
            let proof = Proof::of(isa).expect("it is available");
            let x = sweep(-87.0, 88.7, 1 << 20);
            let mut got = x.clone();
            exps(proof, &mut got);
            let error = |(x, got): (&f32, &f32)| ((f64::from(*got) / f64::from(*x).exp() - 1.0) / 1.2e-7).abs();
            let worst = x.iter().zip(&got).map(error).fold(0.0, f64::max);
            println!("{isa}: exp off by {:.3e} relative", worst * 1.2e-7);
            assert!(worst <= 1.0, "{isa}: {worst}");

            let mut ends =
                [f32::NEG_INFINITY, -200.0, -104.0, -88.0, -103.0, 0.0, 88.73, 200.0, f32::INFINITY, f32::NAN];
            exps(proof, &mut ends);
            assert_eq!(ends[..3], [0.0; 3]);
            assert!(
                ends[3] > 0.0 && (ends[3] - (-88f64).exp() as f32).abs() < 3e-45,
                "denormals are kept: {:e}",
                ends[3]
            );
            assert!(ends[4] > 0.0);
            assert_eq!(ends[5..9], [1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY]);
            assert!(ends[9].is_nan());
        }
    }

    dispatch! {
        fn quick(which: usize, x: &mut [f32]) { scalar_quick | vector_quick }
    }

    /// `e^x`, silu, `2^x`, and silu again.
    fn scalar_quick(which: usize, x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = exact_quick(which, *x) as f32);
    }

    fn exact_quick(which: usize, x: f32) -> f64 {
        let x = f64::from(x);
        [x.exp(), x / (1.0 + (-x).exp()), x.exp2(), x / (1.0 + (-x).exp())][which]
    }

    #[inline(always)]
    fn vector_quick<S: Simd>(s: S, which: usize, x: &mut [f32]) {
        for x in x.chunks_mut(S::LANES) {
            let v = s.load(x);
            let y = match which {
                0 => exp_quick(s, v),
                1 => silu(s, v),
                2 => exp2_rough(s, v),
                _ => silu_rough(s, v),
            };
            s.store(x, y);
        }
    }

    #[test]
    fn quick_functions_keep_their_bounds() {
        let rough = 2f64.powi(-13);
        type Bound = fn(f64) -> f64;
        let cases: [(&str, f32, f32, Bound); 4] = [
            ("exp_quick", -87.0, 88.0, |x| 3e-7 + 2e-8 * x.abs()),
            ("silu", -87.9, 100.0, |x| 5e-7 + 2e-8 * (-x).max(0.0)),
            ("exp2_rough", -125.0, 127.0, |_| 1.0),
            ("silu_rough", -80.0, 100.0, |_| 8.0),
        ];
        for isa in Isa::available() {
            let proof = Proof::of(isa).expect("it is available");
            for (which, (name, from, to, bound)) in cases.into_iter().enumerate() {
                let x = sweep(from, to, 1 << 18);
                let mut got = x.clone();
                quick(proof, which, &mut got);
                // rough ones in units of 2^-13
                let unit = if which < 2 { 1.0 } else { rough };
                let share = |(x, got): (&f32, &f32)| {
                    let exact = exact_quick(which, *x);
                    let error = if exact == 0.0 { f64::from(got.abs()) } else { (f64::from(*got) / exact - 1.0).abs() };
                    error / (unit * bound(f64::from(*x)))
                };
                let worst = x.iter().zip(&got).map(share).fold(0.0, f64::max);
                println!("{isa}: {name} at {worst:.2} of its bound");
                assert!(worst <= 1.0, "{isa}: {name}: {worst}");
            }
            let mut ends = [f32::NEG_INFINITY, -1e30, -100.0, f32::INFINITY, f32::NAN];
            quick(proof, 1, &mut ends);
            assert!(ends[0].is_nan() && ends[1] == 0.0 && ends[2].abs() < 1e-36, "{isa}: {ends:?}");
            assert!(ends[3] == f32::INFINITY && ends[4].is_nan(), "{isa}: {ends:?}");
        }
    }

    #[test]
    fn erf_keeps_its_bound() {
        for isa in Isa::available() {
            let proof = Proof::of(isa).expect("it is available");
            let x = sweep(-5.0, 5.0, 1 << 16);
            let mut got = x.clone();
            erfs(proof, &mut got);
            let error = |(x, got): (&f32, &f32)| (f64::from(*got) - exact_erf(f64::from(*x))).abs();
            let worst = x.iter().zip(&got).map(error).fold(0.0, f64::max);
            println!("{isa}: erf off by {worst:.3e}");
            assert!(worst <= 3e-7, "{isa}: {worst}");

            let mut ends = [f32::NEG_INFINITY, -4.0, -0.0, 4.0, f32::INFINITY, f32::NAN];
            erfs(proof, &mut ends);
            assert_eq!(ends[..5], [-1.0, -1.0, 0.0, 1.0, 1.0], "{isa}");
            assert!(ends[5].is_nan());
        }
    }

    #[test]
    fn the_exact_error_function_is_right() {
        // Abramowitz and Stegun, table 7.1
        for (x, y) in [(0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0), (3.0, 0.999_977_909_5)] {
            assert!((exact_erf(x) - y).abs() < 1e-10 && (exact_erf(-x) + y).abs() < 1e-10, "erf({x})");
        }
    }
}
