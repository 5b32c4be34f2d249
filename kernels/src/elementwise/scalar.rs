//! The scalar reference of the element-wise operators.

/// `x += y`.
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `out = x + y`.
pub(super) fn sum(x: &[f32], y: &[f32], out: &mut [f32]) {
    for ((x, y), out) in x.iter().zip(y).zip(out) {
        *out = x + y;
    }
}

/// `out = x · factor`.
pub(super) fn scaled(x: &[f32], factor: f32, out: &mut [f32]) {
    x.iter().zip(out).for_each(|(x, out)| *out = x * factor);
}

/// `x *= factor`.
pub(super) fn scale(x: &mut [f32], factor: f32) {
    x.iter_mut().for_each(|x| *x *= factor);
}
