//! Attention together with the product that makes its queries, keys and values. In: the tokens, and that product's
//! weight with the rows of each group of heads side by side. Out: one row of all heads per token. Queries, keys and
//! values stay with the thread that attends with them: on two cores without a common cache, moving them from the core
//! that made them took a third of the time of small nets.
//!
//! Attention makes its own queries, keys and values where the key heads can be shared out evenly among the threads.

use super::{Heads, Mask, RopeTables, attention_operations, check_rope, group, head, memory, product_format};
use crate::context::{Context, streamed};
use crate::isa::Isa;
use crate::linear::pack::PackedLinear;
use crate::linear::{self, linear_block};
use crate::matrix::{MatMut, MatRef, floats, floats_mut, scratch};
use crate::number_format::NumberFormat;
use crate::vector::tile::NR;

/// The weight of queries, keys and values, `[heads.row(), k]`, packed by groups: each key head with its value head and
/// the query heads that read it.
pub struct PackedHeads {
    heads: Heads,
    /// Columns of a group, zeros after the last up to whole panels (the scalar reference has no panels).
    group_width: usize,
    linear: PackedLinear,
}

/// Most values of queries, keys and values that a thread makes at a time, if more than one group of heads is to be
/// made: 256 KiB.
const NEAR: usize = 64 << 10;

impl PackedHeads {
    /// Packs the row-major weight `w: [heads.row(), k]`, rows as [`Heads`] orders them, for the context's instruction
    /// set.
    ///
    /// # Panics
    /// If `w` is of another length, or `heads.heads` is not a multiple of `heads.kv_heads`.
    pub fn pack(ctx: &Context, format: NumberFormat, w: &[f32], heads: Heads, k: usize) -> PackedHeads {
        assert_eq!(w.len(), heads.row() * k, "PackedHeads::pack: weight is not [{}, {k}]", heads.row());
        assert!(heads.head_dim > 0, "PackedHeads::pack: heads of no values");
        let (group, rows) = (group("PackedHeads::pack", heads), heads.head_dim * k);
        let group_width = PackedHeads::columns(ctx, heads) / heads.kv_heads;
        let mut grouped = vec![0.0; heads.kv_heads * group_width * k];
        for (i, to) in grouped.chunks_exact_mut((group_width * k).max(1)).enumerate() {
            let queries = &w[i * group * rows..(i + 1) * group * rows];
            let key = &w[(heads.heads + i) * rows..][..rows];
            let value = &w[(heads.heads + heads.kv_heads + i) * rows..][..rows];
            to[..queries.len()].copy_from_slice(queries);
            to[queries.len()..][..rows].copy_from_slice(key);
            to[queries.len() + rows..][..rows].copy_from_slice(value);
        }
        PackedHeads {
            heads,
            group_width,
            linear: PackedLinear::pack(ctx, format, &grouped, heads.kv_heads * group_width, k),
        }
    }

    /// Columns that the product of these heads has, padded: whole panels for each group, where there are panels.
    pub fn columns(ctx: &Context, heads: Heads) -> usize {
        let group_width = (heads.heads / heads.kv_heads.max(1) + 2) * heads.head_dim;
        heads.kv_heads * if ctx.isa() == Isa::Scalar { group_width } else { group_width.next_multiple_of(NR) }
    }

    /// Bytes of memory held, padding included.
    pub fn bytes(&self) -> usize {
        self.linear.bytes()
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.linear.k
    }

    /// Query heads of a group.
    fn group(&self) -> usize {
        self.heads.heads / self.heads.kv_heads
    }
}

/// [`attention`](super::attention) of `x: [batch, t, w.k()]` times `w`, with the same bits as
/// [`linear`](crate::linear()) followed by it. `out: [batch, t, heads·head_dim]`. Both products of attention multiply
/// in `format` (int8: bf16), the one before them in that of `w`. A thread takes whole groups of heads of an example.
///
/// # Panics
/// If a length does not fit, or `w` was packed for another instruction set.
#[allow(clippy::too_many_arguments)]
pub fn projected_attention(
    ctx: &Context,
    format: NumberFormat,
    x: &[f32],
    w: &PackedHeads,
    t: usize,
    rope: Option<RopeTables<'_>>,
    mask: Mask,
    scale: f32,
    out: &mut [f32],
) {
    let (format, k, dim, group) = (product_format(format), w.k(), w.heads.head_dim, w.group());
    assert_eq!(w.linear.isa, ctx.isa(), "projected_attention: weight was packed for another instruction set");
    assert!(t * k > 0 && x.len().is_multiple_of(t * k), "projected_attention: input is not [batch, {t}, {k}]");
    check_rope("projected_attention", rope, t, dim);
    let (batch, width) = (x.len() / (t * k), w.heads.heads * dim);
    assert_eq!(out.len(), batch * t * width, "projected_attention: output is not [{batch}, {t}, {width}]");
    let threads = ctx.parts(streamed(x.len() * w.heads.row() + 2 * t * out.len()));
    // whole examples where they divide evenly among threads, else groups of heads; of these as many at a time as `NEAR`
    // allows, in even parts
    let share = if batch.is_multiple_of(threads) { w.heads.kv_heads } else { w.heads.kv_heads.div_ceil(threads) };
    let groups = share.div_ceil(share.div_ceil((NEAR / (t * w.group_width)).max(1)));
    let ahead = linear::memory(ctx, &w.linear, t).max(memory(ctx, format, t, dim));
    let scalar = ctx.isa() == Isa::Scalar;
    ctx.cells(out, width, (t, groups * group * dim), threads, |(first, col), mut block| {
        let (from, here) = (col / (group * dim), block.cols() / (group * dim));
        let cols = here * w.group_width;
        scratch(t * cols + ahead, |memory| {
            let (rows, memory) = memory.split_at_mut(t * cols);
            let panels = w.linear.view().from(from * w.group_width, scalar);
            let made = MatMut::new(floats_mut(rows), cols, cols);
            let x = MatRef::new(x, k).from(first);
            linear_block(ctx.proof(), w.linear.format, x, panels, None, None, made, memory);
            let rows = MatRef::new(floats(rows), cols);
            for h in 0..here * group {
                let start = h / group * w.group_width;
                let (q, key) = (rows.columns(start + h % group * dim), rows.columns(start + group * dim));
                let value = rows.columns(start + (group + 1) * dim);
                let out = block.columns(h * dim, (h + 1) * dim);
                head(ctx.proof(), format, q, key, value, rope, mask, scale, out, memory);
            }
        });
    });
}

/// Operations that [`projected_attention`] executes on one example of `t` tokens, in its products.
pub fn projected_attention_operations(
    ctx: &Context,
    format: NumberFormat,
    w: &PackedHeads,
    t: usize,
    mask: Mask,
) -> f64 {
    linear::operations(ctx, t, t, &w.linear) + attention_operations(ctx, format, t, w.heads, mask)
}
