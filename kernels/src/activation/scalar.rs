//! The scalar reference of the activations: the formulas, with the standard library's functions; the error function in
//! f64.

use super::ActivationKind;

/// `x = f(x)`.
pub(super) fn activation(kind: ActivationKind, x: &mut [f32]) {
    let f = match kind {
        ActivationKind::Silu => silu,
        ActivationKind::Gelu => |x: f32| (0.5 * f64::from(x) * (1.0 + erf(f64::from(x) / 2f64.sqrt()))) as f32,
        ActivationKind::GeluTanh => |x: f32| 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh()),
        ActivationKind::Relu => |x: f32| if x < 0.0 { 0.0 } else { x },
    };
    x.iter_mut().for_each(|x| *x = f(*x));
}

/// `gate = f(gate) · up`.
pub(super) fn gate(kind: ActivationKind, gate: &mut [f32], up: &[f32]) {
    activation(kind, gate);
    gate.iter_mut().zip(up).for_each(|(gate, up)| *gate *= up);
}

/// `out = silu(gate) · up`.
pub(crate) fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((gate, up), out) in gate.iter().zip(up).zip(out) {
        *out = silu(*gate) * up;
    }
}

fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// `2/sqrt(pi) ∫_0^x e^(-t²) dt`, by its Taylor-like series `e^(-x²) Σ 2^n x^(2n+1) / (1·3·…·(2n+1))`, whose terms are
/// all of one sign.
pub(crate) fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, 0.0);
    for n in 1..200 {
        sum += term;
        term *= 2.0 * x * x / f64::from(2 * n + 1);
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}
