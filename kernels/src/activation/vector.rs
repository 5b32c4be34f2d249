//! The vector bodies of the activations, over the shared exponential and error function.

use super::ActivationKind;
use crate::vector::{Simd, math};

/// As the scalar reference.
#[inline(always)]
pub(super) fn activation<S: Simd>(s: S, kind: ActivationKind, x: &mut [f32]) {
    // a macro, not a closure: a closure need not inherit the instruction set
    macro_rules! each {
        ($f:path) => {
            for x in x.chunks_mut(S::LANES) {
                s.store(x, $f(s, s.load(x)));
            }
        };
    }
    match kind {
        ActivationKind::Silu => each!(math::silu),
        ActivationKind::Gelu => each!(math::gelu),
        ActivationKind::GeluTanh => each!(math::gelu_tanh),
        ActivationKind::Relu => each!(math::relu),
    }
}

/// As the scalar reference.
#[inline(always)]
pub(super) fn gate<S: Simd>(s: S, kind: ActivationKind, gate: &mut [f32], up: &[f32]) {
    // the activation of a stretch that stays in the first-level cache, then its product
    for (gate, up) in gate.chunks_mut(1024).zip(up.chunks(1024)) {
        activation(s, kind, gate);
        for (gate, up) in gate.chunks_mut(S::LANES).zip(up.chunks(S::LANES)) {
            s.store(gate, s.mul(s.load(gate), s.load(up)));
        }
    }
}

/// As the scalar reference.
#[inline(always)]
pub(super) fn swiglu<S: Simd>(s: S, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let inputs = gate.chunks(S::LANES).zip(up.chunks(S::LANES));
    for ((gate, up), out) in inputs.zip(out.chunks_mut(S::LANES)) {
        s.store(out, s.mul(math::silu(s, s.load(gate)), s.load(up)));
    }
}
