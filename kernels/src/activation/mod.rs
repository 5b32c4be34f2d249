//! Element-wise activation functions and SwiGLU. In and Out: f32 of any shape. Must not: know a layer.

pub(crate) mod scalar;
mod vector;

use crate::context::Context;
use crate::vector::dispatch;

/// An element-wise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationKind {
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x/2 (1 + erf(x / sqrt 2))`.
    Gelu,
    /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x³)))`.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

dispatch! {
    fn activate(kind: ActivationKind, x: &mut [f32]) { scalar::activation | vector::activation }
}
dispatch! {
    pub(crate) fn gate_slice(kind: ActivationKind, gate: &mut [f32], up: &[f32]) { scalar::gate | vector::gate }
}
dispatch! {
    pub(crate) fn silu_slice(gate: &[f32], up: &[f32], out: &mut [f32]) { scalar::swiglu | vector::swiglu }
}

/// `x = f(x)` in place, any shape.
pub fn activation(ctx: &Context, kind: ActivationKind, x: &mut [f32]) {
    let chunk = ctx.chunk(x.len(), x.len());
    ctx.pool().chunks(x, chunk, |_, x| activate(ctx.proof(), kind, x));
}

/// `gate = f(gate) · up` in place, any shape: SwiGLU and its kin, where gates and values lie apart. Where `f(gate)` is
/// denormal or 0, an infinite `up` gives an infinity or NaN.
///
/// # Panics
/// If the lengths differ.
pub fn gate(ctx: &Context, kind: ActivationKind, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate: lengths differ");
    let chunk = ctx.chunk(gate.len(), gate.len());
    ctx.pool().chunks(gate, chunk, |index, gate| {
        gate_slice(ctx.proof(), kind, gate, &up[index * chunk..index * chunk + gate.len()]);
    });
}

/// `out = silu(gate) · up`, where each row of `x: [rows, 2·inner]` is gate then up; `out: [rows, inner]`. For the token
/// layout `[batch, 2·tokens, d]`, whose first half of the tokens is the gate, `inner` is `tokens · d`.
///
/// # Panics
/// If a length does not fit.
pub fn swiglu(ctx: &Context, x: &[f32], inner: usize, out: &mut [f32]) {
    gated(ctx, ActivationKind::Silu, x, inner, out);
}

/// [`swiglu`] with another activation of the gate: `out = f(gate) · up`, of halves of rows.
///
/// # Panics
/// If a length does not fit.
pub fn gated(ctx: &Context, kind: ActivationKind, x: &[f32], inner: usize, out: &mut [f32]) {
    assert_eq!(x.len(), 2 * out.len(), "swiglu: input is not twice the output");
    assert!(out.is_empty() || (inner > 0 && out.len().is_multiple_of(inner)), "swiglu: not whole rows of {inner}");
    let rows = out.len().checked_div(inner).unwrap_or(0);
    let parts = ctx.parts(out.len());
    // fewer rows than threads are cut within, more are cut between rows
    let cell = if rows < parts { (1, inner.div_ceil(parts)) } else { (rows.div_ceil(parts), inner) };
    ctx.cells(out, inner, cell, parts, |(row, col), mut block| {
        for i in 0..block.rows() {
            let out = block.row(i);
            let at = (row + i) * 2 * inner + col;
            let (gate, up) = (&x[at..at + out.len()], &x[at + inner..at + inner + out.len()]);
            if kind == ActivationKind::Silu {
                silu_slice(ctx.proof(), gate, up, out);
            } else {
                out.copy_from_slice(gate);
                gate_slice(ctx.proof(), kind, out, up);
            }
        }
    });
}
