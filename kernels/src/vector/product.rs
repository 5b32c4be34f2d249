//! The matrix product that linear layers, token mixing and attention stand on. In: rows of A, and B packed in panels. Out: A·B (+ bias) in a block.
//! Every output is one chain of fused multiply-adds over k in ascending order, then the bias: whatever the tile, the same bits.

use std::ops::Range;

use super::Simd;
use crate::block::{Block, Rows};

/// Vectors in a panel's row; with `TILE_ROWS` rows they fill the registers.
const VECTORS: usize = 2;
/// Values of A that a block of rows may hold while every panel passes by: 512 KiB, a part of the second-level cache.
const BLOCK: usize = 128 << 10;

/// Columns in a panel.
pub(crate) const fn width<S: Simd>() -> usize {
    VECTORS * S::LANES
}

/// Length of `cols` columns and `k` rows packed in panels of `width`.
pub(crate) fn packed_len(k: usize, cols: usize, width: usize) -> usize {
    cols.div_ceil(width) * width * k
}

/// Packs rows of B (`k` rows of `cols` values) into panels: panel, row, `width` columns; columns beyond the last are zero.
#[inline(always)]
pub(crate) fn pack_rows(b: Rows<'_>, k: usize, cols: usize, width: usize, panels: &mut [f32]) {
    for (p, panel) in panels.chunks_exact_mut((width * k).max(1)).enumerate() {
        let first = p * width;
        let used = width.min(cols.saturating_sub(first));
        for (i, to) in panel.chunks_exact_mut(width).enumerate() {
            to[..used].copy_from_slice(&b.row(i)[first..first + used]);
            to[used..].fill(0.0);
        }
    }
}

/// Packs B given by columns (`cols` rows of `k` values, as a linear layer's weight) into the same panels.
#[inline(always)]
pub(crate) fn pack_columns(b: Rows<'_>, k: usize, cols: usize, width: usize, panels: &mut [f32]) {
    for (p, panel) in panels.chunks_exact_mut((width * k).max(1)).enumerate() {
        let first = p * width;
        let used = width.min(cols.saturating_sub(first));
        for j in 0..used {
            for (to, x) in panel.chunks_exact_mut(width).zip(b.row(first + j)) {
                to[j] = *x;
            }
        }
        for to in panel.chunks_exact_mut(width) {
            to[used..].fill(0.0);
        }
    }
}

/// B in panels: `height` rows of every panel, of which a product takes some.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) height: usize,
}

/// `out = A·B (+ bias)`: `a` has `out.rows()` rows of at least `k.len()` values, `b` holds `out.cols()` columns, of which rows `k` count.
#[inline(always)]
pub(crate) fn multiply<S: Simd>(
    s: S,
    a: Rows<'_>,
    b: Panels<'_>,
    k: Range<usize>,
    bias: Option<&[f32]>,
    mut out: Block<'_>,
) {
    let (m, n) = (out.rows(), out.cols());
    let panel = width::<S>() * b.height;
    let count = n.div_ceil(width::<S>());
    assert!(k.start <= k.end && k.end <= b.height && b.data.len() >= count * panel, "panels are too short");
    // few rows leave registers free: take several panels at once to keep enough chains in flight
    let at_once = match m {
        0 => return,
        1 => 4,
        2 | 3 => 2,
        _ => 1,
    };
    let block = (BLOCK / k.len().max(1)).max(S::TILE_ROWS);
    for start in (0..m).step_by(block) {
        let rows = block.min(m - start);
        let tiles = rows.div_ceil(S::TILE_ROWS);
        let mut p = 0;
        while p < count {
            let taken = if count - p >= at_once { at_once } else { 1 };
            let b = Panels { data: &b.data[p * panel..(p + taken) * panel], height: b.height };
            for t in 0..tiles {
                // tiles of nearly equal height: no thin last one
                let (first, end) = (start + rows * t / tiles, start + rows * (t + 1) / tiles);
                let place = (first, p * width::<S>());
                macro_rules! tile {
                    ($rows:literal x $panels:literal) => {
                        tile::<S, $rows, $panels>(s, a, b, &k, bias, &mut out, place)
                    };
                }
                match (end - first, taken) {
                    (1, 4) => tile!(1 x 4),
                    (1, 1) => tile!(1 x 1),
                    (2, 2) => tile!(2 x 2),
                    (2, 1) => tile!(2 x 1),
                    (3, 2) => tile!(3 x 2),
                    (3, 1) => tile!(3 x 1),
                    (4, 1) => tile!(4 x 1),
                    (5, 1) => tile!(5 x 1),
                    (6, 1) => tile!(6 x 1),
                    (7, 1) => tile!(7 x 1),
                    (8, 1) => tile!(8 x 1),
                    (9, 1) => tile!(9 x 1),
                    (10, 1) => tile!(10 x 1),
                    (11, 1) => tile!(11 x 1),
                    (12, 1) => tile!(12 x 1),
                    (rows, panels) => unreachable!("no tile of {rows} rows and {panels} panels"),
                }
            }
            p += taken;
        }
    }
}

/// One tile of `ROWS` rows and `PANELS` panels at `place` (row, column).
#[inline(always)]
fn tile<S: Simd, const ROWS: usize, const PANELS: usize>(
    s: S,
    a: Rows<'_>,
    b: Panels<'_>,
    k: &Range<usize>,
    bias: Option<&[f32]>,
    out: &mut Block<'_>,
    (row, column): (usize, usize),
) {
    let sums: [[[S::V; VECTORS]; PANELS]; ROWS] = sums(s, a.from(row), b, k);
    for (r, sums) in sums.iter().enumerate() {
        let to = &mut out.row(row + r)[column..];
        let mut at = 0;
        for sum in sums.iter().flatten() {
            if at < to.len() {
                let sum = match bias {
                    Some(bias) => s.add(*sum, s.load(&bias[column + at..])),
                    None => *sum,
                };
                s.store(&mut to[at..], sum);
                at += S::LANES;
            }
        }
    }
}

/// The sums of a tile, held in registers over the whole of `k`. Apart from [`tile`] because the compiler keeps an array in registers only
/// where every loop over it unrolls.
#[inline(always)]
fn sums<S: Simd, const ROWS: usize, const PANELS: usize>(
    s: S,
    a: Rows<'_>,
    b: Panels<'_>,
    k: &Range<usize>,
) -> [[[S::V; VECTORS]; PANELS]; ROWS] {
    let panel = width::<S>() * b.height;
    assert!(b.data.len() == PANELS * panel && k.end <= b.height, "panels do not fit the tile");
    let mut from = [std::ptr::null(); ROWS];
    for (r, from) in from.iter_mut().enumerate() {
        *from = a.row(r)[..k.len()].as_ptr();
    }
    let mut sums = [[[s.splat(0.0); VECTORS]; PANELS]; ROWS];
    #[cfg(test)]
    counted::add(ROWS * PANELS * width::<S>() * k.len());
    for i in 0..k.len() {
        let mut columns = [[s.splat(0.0); VECTORS]; PANELS];
        for (p, columns) in columns.iter_mut().enumerate() {
            for (v, column) in columns.iter_mut().enumerate() {
                let at = p * panel + (k.start + i) * width::<S>() + v * S::LANES;
                // SAFETY: this is within row `k.start + i < b.height` of panel p, and the length of `b.data` is checked above.
                *column = unsafe { s.load_ptr(b.data.as_ptr().add(at)) };
            }
        }
        for (from, sums) in from.iter().zip(&mut sums) {
            // SAFETY: each row was cut to `k.len()` values above.
            let x = s.splat(unsafe { *from.add(i) });
            for (columns, sums) in columns.iter().zip(sums) {
                for (column, sum) in columns.iter().zip(sums) {
                    *sum = s.fma(x, *column, *sum);
                }
            }
        }
    }
    sums
}

/// Multiply-adds that tiles on this thread have made, for the tests of what operators say they execute.
#[cfg(test)]
pub(crate) mod counted {
    use std::cell::Cell;

    thread_local! {
        static MADE: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn add(n: usize) {
        MADE.set(MADE.get() + n);
    }

    /// Those since the last call.
    pub(crate) fn take() -> usize {
        MADE.replace(0)
    }
}
