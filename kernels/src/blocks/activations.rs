//! Activations as the products with blocks read them. In: rows of f32. Out: for each block of 32 values of a row, a
//! record of twelve words: eight of int8, the scale, the scale times the sum of the integers (what an offset is
//! multiplied with), and the sums of the integers of both halves (what a zero is multiplied with).
//!
//! A value is rounded to the nearest of 255 multiples of the largest magnitude of its block / 127, ties to even; a block
//! with a value that is not finite makes every sum NaN.
//!
//! Rows are taken in tiles; a tile's records alternate row by row, so that a product reads them as they stand.

use super::format::BLOCK;
use crate::isa::Isa;
use crate::matrix::bytes_mut;
use crate::number_format::{quantise, scale_of};
use crate::vector::integers::Integers;

/// Words of a record.
pub(crate) const RECORD: usize = 12;
/// Where in a record the scale, its product with the sum, and the sums of both halves are.
pub(crate) const SCALE: usize = 8;
pub(crate) const SHIFT: usize = 9;
pub(crate) const SUMS: usize = 10;

/// Most rows of a tile.
pub(crate) const TILE: usize = 12;

/// Rows of the tile that begins where `rows` rows are left.
pub(crate) fn tile_rows(isa: Isa, rows: usize) -> usize {
    match rows {
        _ if isa == Isa::Scalar => 1,
        // more rows than four gain nothing where registers are few
        TILE.. if isa != Isa::Avx2 => TILE,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// Where the record of block `b` of row `row` is among those of `rows` rows of `blocks` blocks, in words.
pub(crate) fn record_at(isa: Isa, rows: usize, blocks: usize, row: usize, b: usize) -> usize {
    let mut first = 0;
    loop {
        let tile = tile_rows(isa, rows - first);
        if row < first + tile {
            return (first * blocks + b * tile + row - first) * RECORD;
        }
        first += tile;
    }
}

/// Quantises rows of `k` values into their records, tile by tile.
pub(super) fn scalar(isa: Isa, x: &[f32], k: usize, records: &mut [u32]) {
    in_tiles(isa, x, k, records, |x, record| {
        let (q, scale) = quantise(x);
        for (word, q) in record.iter_mut().zip(q.chunks_exact(4)) {
            *word = u32::from_le_bytes([q[0] as u8, q[1] as u8, q[2] as u8, q[3] as u8]);
        }
        finish(record, scale, [q[..16].iter().sum(), q[16..].iter().sum()]);
    });
}

/// As [`scalar`].
#[inline(always)]
pub(super) fn vector<S: Integers>(s: S, isa: Isa, x: &[f32], k: usize, records: &mut [u32]) {
    let blocks = k / BLOCK;
    let (mut first, rows) = (0, x.len() / k.max(1));
    while first < rows {
        let tile = tile_rows(isa, rows - first);
        for r in 0..tile {
            for b in 0..blocks {
                let x = &x[(first + r) * k + b * BLOCK..][..BLOCK];
                block(s, x, &mut records[(first * blocks + b * tile + r) * RECORD..][..RECORD]);
            }
        }
        first += tile;
    }
}

#[inline(always)]
fn block<S: Integers>(s: S, x: &[f32], record: &mut [u32]) {
    let mut most = s.splat(0.0);
    for v in (0..BLOCK).step_by(S::LANES) {
        most = s.max_magnitude(most, s.load(&x[v..]));
    }
    let (scale, inverse) = scale_of(s.reduce_magnitude(most));
    let inverse = s.splat(inverse);
    let bytes = bytes_mut(&mut record[..BLOCK / 4]);
    // sums of integers are exact in f32 too
    let mut halves = [s.splat(0.0); 2];
    for v in (0..BLOCK).step_by(S::LANES) {
        let x = s.mul(s.load(&x[v..]), inverse);
        halves[v / 16] = s.add(halves[v / 16], s.round(x));
        // SAFETY: a block of bytes has room for each of its vectors; the scale of values that are not finite is NaN, so
        // that their integers do not matter.
        unsafe { s.store_i8(bytes[v..v + S::LANES].as_mut_ptr(), x) };
    }
    let sums = halves.map(|sum| s.reduce_sum(sum) as i32);
    finish(record, scale, sums);
}

#[inline(always)]
fn finish(record: &mut [u32], scale: f32, sums: [i32; 2]) {
    record[SCALE] = scale.to_bits();
    record[SHIFT] = (scale * (sums[0] + sums[1]) as f32).to_bits();
    record[SUMS] = sums[0] as u32;
    record[SUMS + 1] = sums[1] as u32;
}

/// Calls `f` with each block of each row and its record.
fn in_tiles(isa: Isa, x: &[f32], k: usize, records: &mut [u32], f: impl Fn(&[f32], &mut [u32])) {
    let (mut first, rows, blocks) = (0, x.len() / k.max(1), k / BLOCK);
    while first < rows {
        let tile = tile_rows(isa, rows - first);
        for (r, b) in (0..tile).flat_map(|r| (0..blocks).map(move |b| (r, b))) {
            let x = &x[(first + r) * k + b * BLOCK..][..BLOCK];
            f(x, &mut records[(first * blocks + b * tile + r) * RECORD..][..RECORD]);
        }
        first += tile;
    }
}
