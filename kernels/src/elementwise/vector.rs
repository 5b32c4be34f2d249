//! The vector bodies of the element-wise operators.

use crate::vector::Simd;

/// As the scalar reference.
#[inline(always)]
pub(super) fn add<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    for (x, y) in x.chunks_mut(S::LANES).zip(y.chunks(S::LANES)) {
        s.store(x, s.add(s.load(x), s.load(y)));
    }
}

/// As the scalar reference.
#[inline(always)]
pub(super) fn sum<S: Simd>(s: S, x: &[f32], y: &[f32], out: &mut [f32]) {
    let inputs = x.chunks(S::LANES).zip(y.chunks(S::LANES));
    for ((x, y), out) in inputs.zip(out.chunks_mut(S::LANES)) {
        s.store(out, s.add(s.load(x), s.load(y)));
    }
}

/// As the scalar reference.
#[inline(always)]
pub(super) fn scaled<S: Simd>(s: S, x: &[f32], factor: f32, out: &mut [f32]) {
    for (x, out) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
        s.store(out, s.mul(s.load(x), s.splat(factor)));
    }
}

/// As the scalar reference.
#[inline(always)]
pub(super) fn scale<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    for x in x.chunks_mut(S::LANES) {
        s.store(x, s.mul(s.load(x), s.splat(factor)));
    }
}
