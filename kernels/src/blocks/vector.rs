//! The vector bodies of products with blocks: a panel of 16 columns by a tile of rows, in registers. One loop serves
//! all formats; what differs is how integers and scales are unpacked.

use super::activations::{RECORD, SCALE, SHIFT, SUMS, TILE, tile_rows};
use super::format::{BLOCK, BlockFormat, ScaleKind};
use super::pack::{LINE_BYTES, PackedBlocks, ROWS, lines, lines_at, run_blocks, run_bytes, scale_at};
use crate::matrix::MatMut;
use crate::vector::integers::Integers;

/// Bytes of the records of rows that are multiplied with all panels before the next rows are: half a second-level
/// cache.
const NEAR: usize = 256 << 10;

/// Bytes ahead of those in use that are asked for: what memory of 60 GB/s delivers in the 130 ns that it takes to answer. On a Zen 5 whose
/// weights came from memory, 4 KiB took a tenth longer, 12 KiB a twentieth.
const AHEAD: usize = 8 << 10;

/// As the scalar reference; `first` is a multiple of 16, and the records are in tiles. `then` is what the thread reads next, if
/// not null: its beginning is asked for at the end.
#[inline(always)]
pub(super) fn product<S: Integers>(
    s: S,
    records: &[u32],
    w: &PackedBlocks,
    first: usize,
    then: *const u8,
    out: MatMut<'_>,
) {
    macro_rules! of {
        ($($format:ident)*) => {
            match w.format {
                $(BlockFormat::$format => typed::<S, { BlockFormat::$format as usize }>(s, records, w, first, then, out),)*
            }
        };
    }
    of!(Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4K Q5K Q6K Q2K Q3K);
}

#[inline(always)]
fn typed<S: Integers, const FORMAT: usize>(
    s: S,
    records: &[u32],
    w: &PackedBlocks,
    first: usize,
    then: *const u8,
    mut out: MatMut<'_>,
) {
    let (rows, cols, blocks) = (out.rows(), out.cols(), w.k / BLOCK);
    assert!(first.is_multiple_of(ROWS) && first + cols <= w.n, "columns of other panels");
    assert!(records.len() >= rows * blocks * RECORD, "records are missing");
    let words = w.stride();
    assert!(w.data.len() >= (first + cols).div_ceil(ROWS) * words, "panels are missing");
    let end = w.data.as_ptr().wrapping_add((first + cols).div_ceil(ROWS) * words).cast::<u8>();
    let ahead = Ahead { end, then: if then.is_null() { end } else { then } };
    // whole tiles, so that chunks do not change which rows are in a tile
    let chunk = (NEAR / (blocks * RECORD * 4).max(1) / TILE).max(1) * TILE;
    for from in (0..rows).step_by(chunk) {
        let end = rows.min(from + chunk);
        // with two panels at a time where registers are many
        let step = if S::LANES == ROWS && S::UNSIGNED { 2 * ROWS } else { ROWS };
        for col in (0..cols).step_by(step) {
            let panel = w.data[(first + col) / ROWS * words..].as_ptr().cast::<u8>();
            let two = step > ROWS && cols - col > ROWS;
            let mut row = from;
            while row < end {
                let tile = tile_rows(w.isa, rows - row);
                let x = records[row * blocks * RECORD..].as_ptr();
                if two && tile == TILE {
                    // SAFETY: the panels and the tile's records are within their slices, as checked above.
                    unsafe {
                        for r in (0..TILE).step_by(PAIRED) {
                            let (x, panels) = (x.add(r * RECORD), [panel, panel.add(4 * words)]);
                            multiply_two::<S, FORMAT>(s, x, panels, blocks, ahead, &mut out, row + r, col);
                        }
                    }
                    row += tile;
                    continue;
                }
                for p in 0..if two { 2 } else { 1 } {
                    let (panel, col) = (panel.wrapping_add(4 * words * p), col + p * ROWS);
                    macro_rules! of {
                        ($($rows:literal)*) => {
                            match tile {
                                // SAFETY: the panel and the tile's records are within their slices, as checked above.
                                $($rows => unsafe {
                                    multiply::<S, FORMAT, $rows>(s, x, panel, blocks, ahead, &mut out, row, col);
                                },)*
                                // SAFETY: likewise.
                                TILE if S::LANES == ROWS => unsafe {
                                    multiply::<S, FORMAT, TILE>(s, x, panel, blocks, ahead, &mut out, row, col);
                                },
                                _ => unreachable!("tiles have 1, 2, 4 or {TILE} rows"),
                            }
                        };
                    }
                    of!(1 2 4);
                }
                row += tile;
            }
        }
    }
}

/// Where the panels of a product end, and what is read then.
#[derive(Clone, Copy)]
struct Ahead {
    end: *const u8,
    then: *const u8,
}

impl Ahead {
    /// What is asked for when `at` is read.
    #[inline(always)]
    fn of(self, at: *const u8) -> *const u8 {
        let soon = at.wrapping_add(AHEAD);
        if soon < self.end { soon } else { self.then.wrapping_add(soon as usize - self.end as usize) }
    }
}

/// Asks for a line of weights. Where rows are few they are read once, and need not push what is used again out of the second-level
/// cache; where there are more, the next tile of rows reads them again.
#[inline(always)]
fn ask<S: Integers, const ROWS_OF_X: usize>(s: S, line: *const u8) {
    if ROWS_OF_X < 4 { s.prefetch_once(line) } else { s.prefetch_near(line) }
}

/// The body for each of up to `TILE` rows, one after another in the code: the compiler leaves a loop of so many long
/// bodies a loop, and sums that a loop indexes are not in registers.
macro_rules! each_row {
    ($rows:expr, $r:ident => $body:block) => {
        each_row!(@ $rows, $r, $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $rows:expr, $r:ident, $body:block, $($i:literal)*) => {
        $(if $i < $rows {
            let $r: usize = $i;
            $body
        })*
    };
}

/// `ROWS_OF_X` rows by one panel.
///
/// # Safety
/// `x` points to the records of the rows, `panel` to a panel of `blocks` blocks of the format.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn multiply<S: Integers, const FORMAT: usize, const ROWS_OF_X: usize>(
    s: S,
    x: *const u32,
    panel: *const u8,
    blocks: usize,
    ahead: Ahead,
    out: &mut MatMut<'_>,
    row: usize,
    col: usize,
) {
    let format = const { BlockFormat::ALL[FORMAT] };
    let in_run = const { run_blocks(BlockFormat::ALL[FORMAT].kind()) };
    let mut sums = [[s.splat(0.0); 2]; ROWS_OF_X];
    // SAFETY: blocks, their scales and records are within the panel and the rows, as promised.
    unsafe {
        for b in 0..blocks {
            let (run, j) = (panel.add(b / in_run * run_bytes(format)), b % in_run);
            let at = run.add(lines_at(format, j));
            let soon = ahead.of(at);
            for line in 0..lines(format) {
                ask::<S, ROWS_OF_X>(s, soon.wrapping_add(line * LINE_BYTES));
            }
            // before the first of a run stand its scales
            if j == 0 {
                let soon = ahead.of(run);
                for line in 0..lines_at(format, 0) / LINE_BYTES {
                    ask::<S, ROWS_OF_X>(s, soon.wrapping_add(line * LINE_BYTES));
                }
            }
            for v in 0..ROWS / S::LANES {
                let lane = v * S::LANES;
                let q = unpack(s, format.bits(), at.add(4 * lane));
                let (d, m) = unpack_scales(s, format.kind(), run, j, lane);
                each_row!(ROWS_OF_X, r => {
                    let record = x.add((b * ROWS_OF_X + r) * RECORD);
                    sums[r][v] = add_block(s, format, record, &q, d, m, sums[r][v]);
                });
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let to = &mut out.row(row + r)[col..];
        for v in 0..ROWS / S::LANES {
            let lane = v * S::LANES;
            if lane < to.len() {
                s.store(&mut to[lane..], sums[v]);
            }
        }
    }
}

/// Rows that are multiplied with two panels at once.
const PAIRED: usize = 4;

/// `PAIRED` rows of a whole tile by two panels.
///
/// # Safety
/// `x` points to the tile's record of the first of them, each of `panels` to a panel of `blocks` blocks of the format.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn multiply_two<S: Integers, const FORMAT: usize>(
    s: S,
    x: *const u32,
    panels: [*const u8; 2],
    blocks: usize,
    ahead: Ahead,
    out: &mut MatMut<'_>,
    row: usize,
    col: usize,
) {
    let format = const { BlockFormat::ALL[FORMAT] };
    let in_run = const { run_blocks(BlockFormat::ALL[FORMAT].kind()) };
    let mut sums = [[s.splat(0.0); 2]; PAIRED];
    // SAFETY: blocks, their scales and records are within the panels and the rows, as promised.
    unsafe {
        for b in 0..blocks {
            let (run, j) = (b / in_run * run_bytes(format), b % in_run);
            let at = run + lines_at(format, j);
            // the second panel is two panels further
            for line in 0..lines(format) {
                s.prefetch_near(ahead.of(panels[1].add(at)).wrapping_add(line * LINE_BYTES));
            }
            let q = [unpack(s, format.bits(), panels[0].add(at)), unpack(s, format.bits(), panels[1].add(at))];
            let (d0, m0) = unpack_scales(s, format.kind(), panels[0].add(run), j, 0);
            let (d1, m1) = unpack_scales(s, format.kind(), panels[1].add(run), j, 0);
            each_row!(PAIRED, r => {
                let record = x.add((b * TILE + r) * RECORD);
                sums[r] = add_blocks(s, format, record, &q, [d0, d1], [m0, m1], sums[r]);
            });
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let to = &mut out.row(row + r)[col..];
        s.store(to, sums[0]);
        s.store(&mut to[ROWS..], sums[1]);
    }
}

/// [`add_block`] for the blocks of two panels.
///
/// # Safety
/// As [`add_block`].
#[inline(always)]
unsafe fn add_blocks<S: Integers>(
    s: S,
    format: BlockFormat,
    record: *const u32,
    q: &[[S::V; 8]; 2],
    d: [[S::V; 2]; 2],
    m: [[S::V; 2]; 2],
    mut sums: [S::V; 2],
) -> [S::V; 2] {
    let (bits, zero) = (format.bits(), format.zero());
    // SAFETY: all is within the record.
    unsafe {
        let factor = f32::from_bits(*record.add(SCALE));
        let scale = s.splat(factor);
        let (low, high) = (*record.add(SUMS) as i32, *record.add(SUMS + 1) as i32);
        if format.has_halves() {
            let first = s.dots_of_two(bits, -zero * low, [&q[0][..4], &q[1][..4]], record);
            let second = s.dots_of_two(bits, -zero * high, [&q[0][4..], &q[1][4..]], record.add(4));
            for p in 0..2 {
                sums[p] = s.fma(s.i32_to_f32(first[p]), s.mul(scale, d[p][0]), sums[p]);
                sums[p] = s.fma(s.i32_to_f32(second[p]), s.mul(scale, d[p][1]), sums[p]);
            }
        } else {
            let both = s.dots_of_two(bits, -zero * (low + high), [&q[0], &q[1]], record);
            for p in 0..2 {
                sums[p] = s.fma(s.i32_to_f32(both[p]), s.mul(scale, d[p][0]), sums[p]);
            }
        }
        if format.has_offset() && format.has_halves() {
            for p in 0..2 {
                sums[p] = s.fma(s.splat(factor * low as f32), m[p][0], sums[p]);
                sums[p] = s.fma(s.splat(factor * high as f32), m[p][1], sums[p]);
            }
        } else if format.has_offset() {
            let shift = s.splat(f32::from_bits(*record.add(SHIFT)));
            for p in 0..2 {
                sums[p] = s.fma(shift, m[p][0], sums[p]);
            }
        }
    }
    sums
}

/// `sum` and the product of a record with a block of some rows.
///
/// # Safety
/// `record` points to a record.
#[inline(always)]
unsafe fn add_block<S: Integers>(
    s: S,
    format: BlockFormat,
    record: *const u32,
    q: &[S::V; 8],
    d: [S::V; 2],
    m: [S::V; 2],
    mut sum: S::V,
) -> S::V {
    let bits = format.bits();
    // weights of 8 bits are signed where products of bytes saturate
    let zero = if bits == 8 && !S::UNSIGNED { 0 } else { format.zero() };
    // SAFETY: all is within the record.
    unsafe {
        let scale = s.splat(f32::from_bits(*record.add(SCALE)));
        let (low, high) = (*record.add(SUMS) as i32, *record.add(SUMS + 1) as i32);
        if format.has_halves() {
            let first = s.dots(bits, -zero * low, &q[..4], record);
            let second = s.dots(bits, -zero * high, &q[4..], record.add(4));
            sum = s.fma(s.i32_to_f32(first), s.mul(scale, d[0]), sum);
            sum = s.fma(s.i32_to_f32(second), s.mul(scale, d[1]), sum);
        } else {
            let both = s.dots(bits, -zero * (low + high), q, record);
            sum = s.fma(s.i32_to_f32(both), s.mul(scale, d[0]), sum);
        }
        if format.has_offset() && format.has_halves() {
            let scale = f32::from_bits(*record.add(SCALE));
            sum = s.fma(s.splat(scale * low as f32), m[0], sum);
            sum = s.fma(s.splat(scale * high as f32), m[1], sum);
        } else if format.has_offset() {
            sum = s.fma(s.splat(f32::from_bits(*record.add(SHIFT))), m[0], sum);
        }
    }
    sum
}

/// The integers of a block of 32 of some rows of a panel, a vector for each four neighbouring k.
///
/// # Safety
/// `at` points to those rows' words in the first of the block's lines.
#[inline(always)]
unsafe fn unpack<S: Integers>(s: S, bits: u32, at: *const u8) -> [S::V; 8] {
    let mut q = [s.splat(0.0); 8];
    // SAFETY: a block has as many lines as bits.
    unsafe {
        if bits == 8 {
            for (line, q) in q.iter_mut().enumerate() {
                *q = s.load_ptr(at.add(line * LINE_BYTES).cast());
            }
            return q;
        }
        if bits < 4 {
            for half in 0..2 {
                let (all, q) = (s.load_ptr(at.add(half * LINE_BYTES).cast()), &mut q[4 * half..4 * half + 4]);
                let mask = 0x0303_0303;
                q[0] = s.and(all, mask);
                q[1] = s.and(s.shift_right::<2>(all), mask);
                q[2] = s.and(s.shift_right::<4>(all), mask);
                q[3] = s.and(s.shift_right::<6>(all), mask);
            }
            if bits == 3 {
                let h = s.load_ptr(at.add(2 * LINE_BYTES).cast());
                let mask = 0x0404_0404;
                q[0] = s.merge(q[0], s.shift_left::<2>(h), mask);
                q[1] = s.merge(q[1], s.shift_left::<1>(h), mask);
                q[2] = s.merge(q[2], h, mask);
                q[3] = s.merge(q[3], s.shift_right::<1>(h), mask);
                q[4] = s.merge(q[4], s.shift_right::<2>(h), mask);
                q[5] = s.merge(q[5], s.shift_right::<3>(h), mask);
                q[6] = s.merge(q[6], s.shift_right::<4>(h), mask);
                q[7] = s.merge(q[7], s.shift_right::<5>(h), mask);
            }
            return q;
        }
        for line in 0..4 {
            let both = s.load_ptr(at.add(line * LINE_BYTES).cast());
            q[line] = s.and(both, 0x0f0f_0f0f);
            q[4 + line] = s.and(s.shift_right::<4>(both), 0x0f0f_0f0f);
        }
        if bits == 5 {
            let h = s.load_ptr(at.add(4 * LINE_BYTES).cast());
            let mask = 0x1010_1010;
            q[0] = s.merge(q[0], s.shift_left::<4>(h), mask);
            q[1] = s.merge(q[1], s.shift_left::<3>(h), mask);
            q[2] = s.merge(q[2], s.shift_left::<2>(h), mask);
            q[3] = s.merge(q[3], s.shift_left::<1>(h), mask);
            q[4] = s.merge(q[4], h, mask);
            q[5] = s.merge(q[5], s.shift_right::<1>(h), mask);
            q[6] = s.merge(q[6], s.shift_right::<2>(h), mask);
            q[7] = s.merge(q[7], s.shift_right::<3>(h), mask);
        }
        if bits == 6 {
            for half in 0..2 {
                let h = s.load_ptr(at.add((4 + half) * LINE_BYTES).cast());
                let (mask, q) = (0x3030_3030, &mut q[4 * half..4 * half + 4]);
                q[0] = s.merge(q[0], s.shift_left::<4>(h), mask);
                q[1] = s.merge(q[1], s.shift_left::<2>(h), mask);
                q[2] = s.merge(q[2], h, mask);
                q[3] = s.merge(q[3], s.shift_right::<2>(h), mask);
            }
        }
    }
    q
}

/// The scales and the offsets of both halves of block `b` of a run of some rows, from `lane` on; offsets mean nothing where the kind
/// has none.
///
/// # Safety
/// `at` points to the run.
#[inline(always)]
unsafe fn unpack_scales<S: Integers>(
    s: S,
    kind: ScaleKind,
    at: *const u8,
    b: usize,
    lane: usize,
) -> ([S::V; 2], [S::V; 2]) {
    let (d, m, factors) = scale_at(kind, b);
    // SAFETY: 16 rows of each are there.
    unsafe {
        let d = s.load_halves(at.add(d + 2 * lane));
        match kind {
            ScaleKind::Plain => ([d; 2], [d; 2]),
            ScaleKind::Offset => ([d; 2], [s.load_halves(at.add(m + 2 * lane)); 2]),
            ScaleKind::Super => {
                let m = s.load_halves(at.add(m + 2 * lane));
                let d = s.mul(d, s.load_unsigned(at.add(factors[0] + lane)));
                ([d; 2], [s.mul(m, s.load_unsigned(at.add(factors[1] + lane))); 2])
            }
            ScaleKind::Sixteens => {
                let low = s.mul(d, s.load_signed(at.add(factors[0] + lane)));
                ([low, s.mul(d, s.load_signed(at.add(factors[1] + lane)))], [d; 2])
            }
            ScaleKind::Nibbles => {
                let m = s.load_halves(at.add(m + 2 * lane));
                let both = [s.load_bytes(at.add(factors[0] + lane)), s.load_bytes(at.add(factors[1] + lane))];
                let low = [s.i32_to_f32(s.and(both[0], 15)), s.i32_to_f32(s.and(both[1], 15))];
                let high = [s.i32_to_f32(s.shift_right::<4>(both[0])), s.i32_to_f32(s.shift_right::<4>(both[1]))];
                ([s.mul(d, low[0]), s.mul(d, low[1])], [s.mul(m, high[0]), s.mul(m, high[1])])
            }
            ScaleKind::Sixes => {
                let (low, high) = (s.load_bytes(at.add(factors[0] + lane)), s.load_bytes(at.add(factors[1] + lane)));
                // the upper bits of blocks of odd number stand above those of the block before
                let high = if b.is_multiple_of(2) { s.shift_left::<4>(high) } else { high };
                let first = s.merge(s.and(low, 15), high, 0x30);
                let second = s.merge(s.shift_right::<4>(low), s.shift_right::<2>(high), 0x30);
                let thirty_two = s.splat(f32::from_bits(32));
                let first = s.i32_to_f32(s.sub_i32(first, thirty_two));
                let second = s.i32_to_f32(s.sub_i32(second, thirty_two));
                ([s.mul(d, first), s.mul(d, second)], [d; 2])
            }
        }
    }
}
