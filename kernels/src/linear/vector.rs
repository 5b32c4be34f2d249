//! The vector bodies of the linear operators, over the shared matrix product.

use crate::block::{Block, Rows};
use crate::vector::Simd;
use crate::vector::product::{Panels, multiply, pack_rows, width};

/// As the twin, with `w` in panels.
#[inline(always)]
pub(super) fn linear<S: Simd>(s: S, x: Rows<'_>, w: &[f32], k: usize, bias: Option<&[f32]>, out: Block<'_>) {
    multiply(s, x, Panels { data: w, height: k }, 0..k, bias, out);
}

/// As the twin: the activations' columns are packed into `memory`, then every row of the weights passes over them.
#[inline(always)]
pub(super) fn tokens<S: Simd>(s: S, w: Rows<'_>, x: Rows<'_>, t: usize, out: Block<'_>, memory: &mut [f32]) {
    pack_rows(x, t, out.cols(), width::<S>(), memory);
    multiply(s, w, Panels { data: memory, height: t }, 0..t, None, out);
}
