//! The scalar reference of products with blocks: the sums of integers as the definition reads, then the same f32
//! operations in the same order as the vector bodies, so that results have the same bits.

use super::activations::{RECORD, SCALE, SHIFT, SUMS};
use super::format::{BLOCK, FileBlock};
use super::pack::PackedBlocks;
use crate::matrix::{MatMut, bytes};

/// `out[i, j] = Σ_b` over the blocks of row `first + j` of `w` and of the activations `records`, rows one after
/// another.
pub(super) fn product(records: &[u32], w: &PackedBlocks, first: usize, _then: *const u8, mut out: MatMut<'_>) {
    let (format, blocks, row_bytes) = (w.format, w.k / BLOCK, w.row_bytes());
    for j in 0..out.cols() {
        let row = &bytes(&w.data)[(first + j) * row_bytes..][..row_bytes];
        for i in 0..out.rows() {
            out.row(i)[j] = 0.0;
        }
        for b in 0..blocks {
            let block = FileBlock::read(format, row, b);
            let (d, m) = block.scales(format.kind());
            for i in 0..out.rows() {
                let record = &records[(i * blocks + b) * RECORD..][..RECORD];
                let scale = f32::from_bits(record[SCALE]);
                let [low, high] = [0, 1].map(|half| {
                    let own = 16 * half..16 * (half + 1);
                    let x = record[4 * half..].iter().flat_map(|word| word.to_le_bytes());
                    let sum: i32 = block.q[own].iter().zip(x).map(|(q, x)| i32::from(*q) * i32::from(x as i8)).sum();
                    sum - format.zero() * record[SUMS + half] as i32
                });
                let sum = &mut out.row(i)[j];
                if format.has_halves() {
                    *sum = (low as f32).mul_add(scale * d[0], *sum);
                    *sum = (high as f32).mul_add(scale * d[1], *sum);
                } else {
                    *sum = ((low + high) as f32).mul_add(scale * d[0], *sum);
                }
                if format.has_offset() && format.has_halves() {
                    for half in 0..2 {
                        *sum = (scale * (record[SUMS + half] as i32) as f32).mul_add(m[half], *sum);
                    }
                } else if format.has_offset() {
                    *sum = f32::from_bits(record[SHIFT]).mul_add(m[0], *sum);
                }
            }
        }
    }
}
