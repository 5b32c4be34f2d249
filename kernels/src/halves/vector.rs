//! The vector bodies of products with weights in f16: a panel of 16 columns by a tile of rows, in registers.

use super::{PackedHalves, ROWS};
use crate::matrix::MatMut;
use crate::vector::integers::Integers;

/// Bytes of rows that are multiplied with all panels before the next rows are: half a second-level cache.
const NEAR: usize = 256 << 10;
/// Bytes ahead of those in use that are asked for.
const AHEAD: usize = 8 << 10;
/// Most rows of a tile.
const TILE: usize = 8;

/// As the scalar reference; `first` is a multiple of 16.
#[inline(always)]
pub(super) fn product<S: Integers>(s: S, x: &[f32], w: &PackedHalves, first: usize, mut out: MatMut<'_>) {
    let (rows, cols, k) = (out.rows(), out.cols(), w.k);
    assert!(first.is_multiple_of(ROWS) && first + cols <= w.n && x.len() >= rows * k, "columns of other panels");
    let words = k * ROWS / 2;
    assert!(w.data.len() >= (first + cols).div_ceil(ROWS) * words, "panels are missing");
    let chunk = (NEAR / (4 * k).max(1) / TILE).max(1) * TILE;
    for from in (0..rows).step_by(chunk) {
        let end = rows.min(from + chunk);
        for col in (0..cols).step_by(ROWS) {
            let panel = w.data[(first + col) / ROWS * words..].as_ptr().cast::<u8>();
            let mut row = from;
            while row < end {
                let x = x[row * k..].as_ptr();
                macro_rules! tiles {
                    ($($rows:literal)*) => {
                        $(if end - row >= $rows && ($rows <= 2 || S::LANES == ROWS) {
                            // SAFETY: the panel and the rows are within their slices, as checked above.
                            unsafe { multiply::<S, $rows>(s, x, panel, k, &mut out, row, col) };
                            row += $rows;
                            continue;
                        })*
                    };
                }
                tiles!(8 4 2 1);
            }
        }
    }
}

/// `R` rows by one panel.
///
/// # Safety
/// `x` points to rows of `k` values, `panel` to a panel of as many.
#[inline(always)]
unsafe fn multiply<S: Integers, const R: usize>(
    s: S,
    x: *const f32,
    panel: *const u8,
    k: usize,
    out: &mut MatMut<'_>,
    row: usize,
    col: usize,
) {
    // row, vector, parity of k
    let mut sums = [[[s.splat(0.0); 2]; 2]; R];
    let mut d = 0;
    // SAFETY: k within the rows and the panel, as promised.
    unsafe {
        while d + 2 <= k {
            // two k are a line
            s.prefetch_near(panel.wrapping_add(AHEAD + d * 2 * ROWS));
            for v in 0..ROWS / S::LANES {
                let at = panel.add((d * ROWS + v * S::LANES) * 2);
                let w = [s.load_halves(at), s.load_halves(at.add(2 * ROWS))];
                for r in 0..R {
                    let x = x.add(r * k + d);
                    sums[r][v][0] = s.fma(s.splat(*x), w[0], sums[r][v][0]);
                    sums[r][v][1] = s.fma(s.splat(*x.add(1)), w[1], sums[r][v][1]);
                }
            }
            d += 2;
        }
        if d < k {
            for v in 0..ROWS / S::LANES {
                let w = s.load_halves(panel.add((d * ROWS + v * S::LANES) * 2));
                for r in 0..R {
                    sums[r][v][0] = s.fma(s.splat(*x.add(r * k + d)), w, sums[r][v][0]);
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let to = &mut out.row(row + r)[col..];
        for v in 0..ROWS / S::LANES {
            let lane = v * S::LANES;
            if lane < to.len() {
                s.store(&mut to[lane..], s.add(sums[v][0], sums[v][1]));
            }
        }
    }
}
