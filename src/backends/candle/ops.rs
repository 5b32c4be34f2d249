//! Fused operators for candle, with gradients: norm, softmax, gated product, and the ways into and out of attention heads.
//!
//! In: f32 tensors on the CPU. Out: f32 tensors, contiguous. Must not: know a graph. candle's own operators make one pass over memory per
//! elementary step and are serial; candle-nn fuses norm and softmax in the same way, so a user of candle has these too.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Elements below which a pass stays on the calling thread.
const SERIAL: usize = 1 << 14;

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(v), Some((from, to))) => Ok(&v[from..to]),
        _ => bail!("a contiguous f32 tensor is needed"),
    }
}

/// Runs `f` on chunks of `out`, in parallel where that pays.
fn chunks(out: &mut [f32], len: usize, f: impl Fn(usize, &mut [f32]) + Sync + Send) {
    if out.len() < SERIAL || rayon::current_num_threads() == 1 {
        out.chunks_exact_mut(len).enumerate().for_each(|(i, chunk)| f(i, chunk));
    } else {
        let least = (SERIAL / 4).div_ceil(len);
        out.par_chunks_exact_mut(len).with_min_len(least).enumerate().for_each(|(i, chunk)| f(i, chunk));
    }
}

/// Most elements of a piece of a row that one thread takes at a time.
const PIECE: usize = 1 << 13;

/// Runs `f` on every piece, in parallel where there are several and threads for them.
fn each<T: Send>(pieces: Vec<T>, f: impl Fn(T) + Sync + Send) {
    if pieces.len() < 4 || rayon::current_num_threads() == 1 {
        pieces.into_iter().for_each(f);
    } else {
        pieces.into_par_iter().with_min_len(2).for_each(f);
    }
}

/// e^x to about 1e-7 of it, without branches, so that loops of it become vector code (Cephes' `expf`).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5·2^23: adding it leaves the nearest integer in the low bits
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let p = p * r * r + r + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// x · rsqrt(mean(x²) + eps), the mean over the last axis or, of `[batch, tokens, features]`, over the tokens.
#[derive(Clone, Copy)]
pub struct FusedRmsNorm {
    pub eps: f32,
    pub over_tokens: bool,
}

/// Gradient of [`FusedRmsNorm`]: s·g − x·s³·mean(x⊙g), with s the factor of the norm.
struct RmsNormGrad(FusedRmsNorm);

impl FusedRmsNorm {
    /// Length of a block and the distance of the elements that share a mean.
    fn block(&self, shape: &Shape) -> (usize, usize) {
        let dims = shape.dims();
        let features = dims.last().copied().unwrap_or(1);
        if self.over_tokens { (dims[dims.len() - 2] * features, features) } else { (features, 1) }
    }
}

impl CustomOp1 for FusedRmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let (len, stride) = self.block(layout.shape());
        let mut out = vec![0f32; x.len()];
        let n = (len / stride) as f32;
        chunks(&mut out, len, |i, out| {
            let x = &x[i * len..(i + 1) * len];
            if stride == 1 {
                let scale = 1.0 / (dot(x, x) / n + self.eps).sqrt();
                out.iter_mut().zip(x).for_each(|(o, x)| *o = x * scale);
            } else {
                let mut scale = vec![0f32; stride];
                x.chunks_exact(stride).for_each(|r| scale.iter_mut().zip(r).for_each(|(s, x)| *s += x * x));
                scale.iter_mut().for_each(|s| *s = 1.0 / (*s / n + self.eps).sqrt());
                for (o, x) in out.chunks_exact_mut(stride).zip(x.chunks_exact(stride)) {
                    o.iter_mut().zip(x).zip(&scale).for_each(|((o, x), s)| *o = x * s);
                }
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        arg.apply_op2_no_bwd(&grad.contiguous()?, &RmsNormGrad(*self)).map(Some)
    }
}

impl CustomOp2 for RmsNormGrad {
    fn name(&self) -> &'static str {
        "rms_norm_grad"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, g) = (slice(s1, l1)?, slice(s2, l2)?);
        let (len, stride) = self.0.block(l1.shape());
        let n = (len / stride) as f32;
        let mut out = vec![0f32; x.len()];
        chunks(&mut out, len, |i, out| {
            let (x, g) = (&x[i * len..(i + 1) * len], &g[i * len..(i + 1) * len]);
            if stride == 1 {
                let scale = 1.0 / (dot(x, x) / n + self.0.eps).sqrt();
                let back = dot(x, g) / n * scale * scale * scale;
                out.iter_mut().zip(x).zip(g).for_each(|((o, x), g)| *o = scale * g - back * x);
            } else {
                let (mut scale, mut back) = (vec![0f32; stride], vec![0f32; stride]);
                for (x, g) in x.chunks_exact(stride).zip(g.chunks_exact(stride)) {
                    scale.iter_mut().zip(x).for_each(|(s, x)| *s += x * x);
                    back.iter_mut().zip(x).zip(g).for_each(|((b, x), g)| *b += x * g);
                }
                for (s, b) in scale.iter_mut().zip(&mut back) {
                    *s = 1.0 / (*s / n + self.0.eps).sqrt();
                    *b *= *s * *s * *s / n;
                }
                let rows = x.chunks_exact(stride).zip(g.chunks_exact(stride));
                for (o, (x, g)) in out.chunks_exact_mut(stride).zip(rows) {
                    for c in 0..stride {
                        o[c] = scale[c] * g[c] - back[c] * x[c];
                    }
                }
            }
        });
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

/// Sum of products in sixteen partial sums.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut partial = [0f32; 16];
    let (a16, b16) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a16.remainder().iter().zip(b16.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a16.zip(b16) {
        for i in 0..16 {
            partial[i] += x[i] * y[i];
        }
    }
    partial.iter().sum::<f32>() + rest
}

/// silu(g) ⊙ u of rows `[g | u]` of `2·half` elements; the axis that is halved has `axis` positions.
#[derive(Clone, Copy)]
pub struct SiluGate {
    /// 1 for the last axis, 2 for the one before it.
    pub axis_from_end: usize,
}

struct SiluGateGrad(SiluGate);

impl SiluGate {
    fn half(&self, shape: &Shape) -> usize {
        shape.dims().iter().rev().take(self.axis_from_end).product::<usize>() / 2
    }

    fn halved(&self, shape: &Shape) -> Shape {
        let mut dims = shape.dims().to_vec();
        let axis = dims.len() - self.axis_from_end;
        dims[axis] /= 2;
        dims.into()
    }
}

impl CustomOp1 for SiluGate {
    fn name(&self) -> &'static str {
        "silu_gate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let half = self.half(layout.shape());
        let mut out = vec![0f32; x.len() / 2];
        let pieces = out.chunks_exact_mut(half).enumerate().flat_map(|(row, out)| {
            let (gate, up) = x[row * 2 * half..(row + 1) * 2 * half].split_at(half);
            out.chunks_mut(PIECE).zip(gate.chunks(PIECE).zip(up.chunks(PIECE)))
        });
        each(pieces.collect(), |(out, (gate, up))| {
            out.iter_mut().zip(gate).zip(up).for_each(|((o, &g), &u)| *o = g / (1.0 + exp(-g)) * u);
        });
        Ok((CpuStorage::F32(out), self.halved(layout.shape())))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        arg.apply_op2_no_bwd(&grad.contiguous()?, &SiluGateGrad(*self)).map(Some)
    }
}

impl CustomOp2 for SiluGateGrad {
    fn name(&self) -> &'static str {
        "silu_gate_grad"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, grad) = (slice(s1, l1)?, slice(s2, l2)?);
        let half = self.0.half(l1.shape());
        let mut out = vec![0f32; x.len()];
        let pieces = out.chunks_exact_mut(2 * half).enumerate().flat_map(|(row, out)| {
            let (gate, up) = x[row * 2 * half..(row + 1) * 2 * half].split_at(half);
            let (out_gate, out_up) = out.split_at_mut(half);
            let outs = out_gate.chunks_mut(PIECE).zip(out_up.chunks_mut(PIECE));
            let ins = gate.chunks(PIECE).zip(up.chunks(PIECE)).zip(grad[row * half..(row + 1) * half].chunks(PIECE));
            outs.zip(ins)
        });
        each(pieces.collect(), |((out_gate, out_up), ((gate, up), grad))| {
            let (out_gate, out_up) = (&mut out_gate[..grad.len()], &mut out_up[..grad.len()]);
            let (gate, up) = (&gate[..grad.len()], &up[..grad.len()]);
            for c in 0..grad.len() {
                let sigmoid = 1.0 / (1.0 + exp(-gate[c]));
                out_up[c] = grad[c] * gate[c] * sigmoid;
                out_gate[c] = grad[c] * up[c] * sigmoid * (1.0 + gate[c] * (1.0 - sigmoid));
            }
        });
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

/// Softmax over the last axis.
pub struct Softmax;

struct SoftmaxGrad;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let n = layout.dims().last().copied().unwrap_or(1);
        let mut out = vec![0f32; x.len()];
        chunks(&mut out, n, |i, out| {
            let x = &x[i * n..(i + 1) * n];
            let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            out.iter_mut().zip(x).for_each(|(o, x)| *o = if *x == f32::NEG_INFINITY { 0.0 } else { exp(x - top) });
            let scale = 1.0 / out.iter().sum::<f32>();
            out.iter_mut().for_each(|o| *o *= scale);
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        res.detach().apply_op2_no_bwd(&grad.contiguous()?, &SoftmaxGrad).map(Some)
    }
}

impl CustomOp2 for SoftmaxGrad {
    fn name(&self) -> &'static str {
        "softmax_grad"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, g) = (slice(s1, l1)?, slice(s2, l2)?);
        let n = l1.dims().last().copied().unwrap_or(1);
        let mut out = vec![0f32; y.len()];
        chunks(&mut out, n, |i, out| {
            let (y, g) = (&y[i * n..(i + 1) * n], &g[i * n..(i + 1) * n]);
            let mean = dot(y, g);
            out.iter_mut().zip(y).zip(g).for_each(|((o, y), g)| *o = y * (g - mean));
        });
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

/// Rotations of every position, `[tokens, dim / 2]` each.
pub struct Rotations {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

/// `[batch, tokens, heads·dim]` to `[heads, batch, tokens, dim]`, so that queries, keys and values of all heads are slices of the result.
/// The first `rotated` heads are turned by their positions (half-split rotation), the first `scaled` ones multiplied by `scale`.
#[derive(Clone)]
pub struct SplitHeads {
    pub heads: usize,
    pub dim: usize,
    pub turn: Option<Arc<Rotations>>,
    pub rotated: usize,
    pub scaled: usize,
    pub scale: f32,
}

/// The way back, which is also the gradient: turned by the opposite angles.
struct JoinHeadsTurned(SplitHeads);

impl SplitHeads {
    /// Only the change of layout.
    pub fn plain(heads: usize, dim: usize) -> Self {
        Self { heads, dim, turn: None, rotated: 0, scaled: 0, scale: 1.0 }
    }

    /// Turns one head of one token; `sign` is −1 for the way back.
    fn turn(&self, head: usize, token: usize, sign: f32, from: &[f32], to: &mut [f32]) {
        let half = self.dim / 2;
        let factor = if head < self.scaled { self.scale } else { 1.0 };
        match &self.turn {
            Some(turn) if head < self.rotated => {
                let (cos, sin) = (&turn.cos[token * half..][..half], &turn.sin[token * half..][..half]);
                let ((a, b), (to_a, to_b)) = (from.split_at(half), to.split_at_mut(half));
                for i in 0..half {
                    to_a[i] = factor * (a[i] * cos[i] - sign * b[i] * sin[i]);
                    to_b[i] = factor * (b[i] * cos[i] + sign * a[i] * sin[i]);
                }
            }
            _ => to.iter_mut().zip(from).for_each(|(t, f)| *t = factor * f),
        }
    }
}

impl CustomOp1 for SplitHeads {
    fn name(&self) -> &'static str {
        "split_heads"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let (batch, tokens, width) = layout.shape().dims3()?;
        let mut out = vec![0f32; x.len()];
        chunks(&mut out, tokens * self.dim, |i, out| {
            let (head, row) = (i / batch, i % batch);
            for (t, to) in out.chunks_exact_mut(self.dim).enumerate() {
                let from = &x[(row * tokens + t) * width + head * self.dim..][..self.dim];
                self.turn(head, t, 1.0, from, to);
            }
        });
        Ok((CpuStorage::F32(out), (self.heads, batch, tokens, self.dim).into()))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        grad.contiguous()?.apply_op1_no_bwd(&JoinHeadsTurned(self.clone())).map(Some)
    }
}

fn join(s: &SplitHeads, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let x = slice(storage, layout)?;
    let (heads, batch, tokens, dim) = layout.shape().dims4()?;
    let mut out = vec![0f32; x.len()];
    chunks(&mut out, heads * dim, |i, out| {
        let (row, t) = (i / tokens, i % tokens);
        for (head, to) in out.chunks_exact_mut(dim).enumerate() {
            s.turn(head, t, -1.0, &x[((head * batch + row) * tokens + t) * dim..][..dim], to);
        }
    });
    Ok((CpuStorage::F32(out), (batch, tokens, heads * dim).into()))
}

impl CustomOp1 for JoinHeadsTurned {
    fn name(&self) -> &'static str {
        "join_heads_turned"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        join(&self.0, storage, layout)
    }
}

/// `[heads, batch, tokens, dim]` to `[batch, tokens, heads·dim]`.
pub struct JoinHeads;

impl CustomOp1 for JoinHeads {
    fn name(&self) -> &'static str {
        "join_heads"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (heads, _, _, dim) = layout.shape().dims4()?;
        join(&SplitHeads::plain(heads, dim), storage, layout)
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (heads, _, _, dim) = arg.shape().dims4()?;
        grad.contiguous()?.apply_op1_no_bwd(&SplitHeads::plain(heads, dim)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_is_close_over_its_range() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let (got, want) = (f64::from(super::exp(x)), f64::from(x).exp());
            assert!((got / want - 1.0).abs() < 3e-7, "exp({x}) = {got}, not {want}");
        }
    }
}
