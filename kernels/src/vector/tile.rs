//! What products are made of: number formats as types, the layout of operands, and the sums of a pair of tiles of rows
//! with a pair of panels of 16 columns in registers. In: operands in 32-bit words (one f32, two bf16 or four int8 of
//! neighbouring k each). Out: sums, f32 or i32, in a small buffer.
//!
//! Every sum is one chain over k in ascending order of words (f32: fused multiply-adds; bf16: as the instruction adds a
//! pair or a tile row; int8: exact), whatever the tile, so the same bits in any batch. Int8 multiplies an unsigned A
//! (the value plus 128) with a signed B, as VNNI and AMX do; readers of the sums subtract 128 · ΣB of each column.
//!
//! A product works on two tiles of up to `MR` rows and `NR` columns (two panels). How a word is multiplied: AVX2 and
//! AVX-512 by vectors of f32 (int8 by 16-bit integers), `avx512bf16` by the dot products of AVX512-BF16 and VNNI, `amx`
//! by tiles. What a product needs next is prefetched.

use super::Simd;
use crate::number_format::NumberFormat;

/// Columns in a panel.
pub(crate) const PANEL: usize = 16;
/// Columns of a pair of panels: the NR of matrix products in the style of BLIS.
pub(crate) const NR: usize = 2 * PANEL;
/// Most rows of a tile: the MR of such products. A layout's `mr` are the rows of its tiles.
pub(crate) const MR: usize = 16;
/// Most rows of a tile of f32 on AVX2: two vectors of sums a row, two of columns and one of A fill the sixteen registers.
pub(crate) const AVX2_ROWS: usize = 6;
/// Most values of a pair's sums: tile, row, column.
pub(crate) const PAIR: usize = 2 * MR * NR;

/// The element type of a product's operands: a [`NumberFormat`] as a type.
pub(crate) trait Element: Copy {
    /// The format as a value.
    const FORMAT: NumberFormat;
}

/// See [`NumberFormat::F32`].
#[derive(Clone, Copy)]
pub(crate) struct F32;
/// See [`NumberFormat::Bf16`].
#[derive(Clone, Copy)]
pub(crate) struct Bf16;
/// See [`NumberFormat::Int8`].
#[derive(Clone, Copy)]
pub(crate) struct Int8;

impl Element for F32 {
    const FORMAT: NumberFormat = NumberFormat::F32;
}
impl Element for Bf16 {
    const FORMAT: NumberFormat = NumberFormat::Bf16;
}
impl Element for Int8 {
    const FORMAT: NumberFormat = NumberFormat::Int8;
}

/// Operands of a product of a pair of tiles with a pair of panels, over some words of k; unchecked.
#[derive(Clone, Copy)]
pub(crate) struct Raw {
    /// First word of each tile.
    pub(crate) a: [*const u32; 2],
    /// Rows of each tile; the second may have none.
    pub(crate) rows: [usize; 2],
    /// First word of each panel.
    pub(crate) b: [*const u32; 2],
    /// Words of a whole row of A.
    pub(crate) stride: usize,
    /// Rows of a whole tile.
    pub(crate) mr: usize,
    /// Words of k to multiply.
    pub(crate) groups: usize,
    /// The sums of each tile: row, column.
    pub(crate) c: [*mut f32; 2],
    /// Sums are added to what `c` holds.
    pub(crate) more: bool,
    /// Words to prefetch, line of 64 bytes by line.
    pub(crate) prefetch: *const u32,
}

/// The layout of a product's operands, which the instruction set decides. A is a sequence of tiles of `mr` rows. Within
/// a tile the words of a row are contiguous or, for tiles of AMX, lines of 16 words of the rows alternate. Of a pair of
/// panels of B the words of each panel are contiguous or, for AMX, alternate every 16 words of k.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TileLayout {
    /// Lines of 16 words are the unit.
    pub(crate) lines: bool,
    /// Words of a row of A and of a column of B.
    pub(crate) groups: usize,
    /// Rows of a tile of A.
    pub(crate) mr: usize,
}

/// Words in a line.
pub(crate) const LINE: usize = 16;
/// Words of k that AMX multiplies at a time: 16 KiB of two panels.
pub(crate) const SLAB: usize = 8 * LINE;
/// Words of k that AVX2 multiplies at a time in f32 where A is long: with 97 rows 100 KiB of A.
pub(crate) const AVX2_SLAB: usize = 256;

impl TileLayout {
    /// Word `g` of row `i` of A.
    #[inline(always)]
    pub(crate) fn a(self, i: usize, g: usize) -> usize {
        if !self.lines {
            return i * self.groups + g;
        }
        let (tile, row) = (i / self.mr * self.mr * self.groups, i % self.mr);
        tile + (g / LINE * self.mr + row) * LINE + g % LINE
    }

    /// The 16 words of all columns of panel `p` at word `g` of k.
    #[inline(always)]
    pub(crate) fn b(self, p: usize, g: usize) -> usize {
        let pair = p / 2 * 2 * self.groups * PANEL;
        if self.lines {
            pair + ((g / LINE * 2 + p % 2) * LINE + g % LINE) * PANEL
        } else {
            pair + (p % 2 * self.groups + g) * PANEL
        }
    }

    /// Words of A for `rows` rows, whole tiles.
    pub(crate) fn a_words(self, rows: usize) -> usize {
        rows.next_multiple_of(self.mr) * self.groups
    }

    /// Words of B for `pairs` pairs of panels.
    pub(crate) fn b_words(self, pairs: usize) -> usize {
        pairs * 2 * PANEL * self.groups
    }
}

/// Rows of a tile when `rows` rows are cut into as few tiles of at most `most` rows as possible: as even as multiples
/// of `unit` allow.
pub(crate) fn even(rows: usize, most: usize, unit: usize) -> usize {
    let most = most / unit * unit;
    rows.div_ceil(rows.div_ceil(most).max(1)).next_multiple_of(unit).clamp(unit, most)
}

/// Rows of a tile, and how many tiles (the first ones) have one more, when `rows` rows of A are cut into tiles of at most
/// `mr`. Where an instruction set's tiles have few rows (`most`) they are shared out evenly, since a short tile is slow:
/// on AVX2 one row takes two thirds of the time of six. Else all tiles but the last are whole.
#[inline(always)]
pub(crate) fn shares(rows: usize, mr: usize, most: usize) -> (usize, usize) {
    if most > AVX2_ROWS {
        return (mr, 0);
    }
    let tiles = rows.div_ceil(mr).max(1);
    (rows / tiles, rows % tiles)
}

/// A format's dot product on vectors: `prepare` converts a vector of B's words, `spread` broadcasts one word of A,
/// `dot` adds their products.
pub(crate) trait Dot<S: Simd> {
    /// Converted words of B.
    type B: Copy;
    /// A converted word of A in every lane.
    type A: Copy;
    fn prepare(s: S, b: S::V) -> Self::B;
    fn spread(s: S, a: u32) -> Self::A;
    fn dot(s: S, sum: S::V, a: Self::A, b: Self::B) -> S::V;
}

impl<S: Simd> Dot<S> for F32 {
    type B = S::V;
    type A = S::V;
    #[inline(always)]
    fn prepare(_: S, b: S::V) -> S::V {
        b
    }
    #[inline(always)]
    fn spread(s: S, a: u32) -> S::V {
        s.splat(f32::from_bits(a))
    }
    #[inline(always)]
    fn dot(s: S, sum: S::V, a: S::V, b: S::V) -> S::V {
        s.fma(a, b, sum)
    }
}

/// Sums of up to twelve rows with two vectors of columns, in registers.
///
/// # Safety
/// As [`Simd::pair`], for one tile of `rows` rows in 1..=12; `b` and `c` point to the vectors' own first word and sum.
/// With each word of k a line from `prefetch` on is prefetched.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn vectors<S: Simd, D: Dot<S>>(
    s: S,
    a: *const u32,
    stride: usize,
    rows: usize,
    b: [*const u32; 2],
    groups: usize,
    c: [*mut f32; 2],
    prefetch: *const u32,
) {
    macro_rules! of {
        ($($rows:literal)*) => {
            match rows {
                // SAFETY: the caller's promise.
                $($rows => unsafe { registers::<S, D, $rows>(s, a, stride, b, groups, c, prefetch) },)*
                _ => {}
            }
        };
    }
    of!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// As [`vectors`], for `ROWS` rows.
///
/// # Safety
/// As [`vectors`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn registers<S: Simd, D: Dot<S>, const ROWS: usize>(
    s: S,
    a: *const u32,
    stride: usize,
    b: [*const u32; 2],
    groups: usize,
    c: [*mut f32; 2],
    prefetch: *const u32,
) {
    let mut from = [a; ROWS];
    for (r, from) in from.iter_mut().enumerate() {
        // SAFETY: row r of the tile.
        *from = unsafe { a.add(r * stride) };
    }
    let mut sums = [[s.splat(0.0); 2]; ROWS];
    let mut ahead = prefetch;
    for g in 0..groups {
        s.prefetch(ahead);
        ahead = ahead.wrapping_add(LINE);
        // SAFETY: a panel has 16 words for each of `groups`, of which these vectors take a part.
        let columns = unsafe {
            [
                D::prepare(s, s.load_ptr(b[0].add(g * PANEL).cast())),
                D::prepare(s, s.load_ptr(b[1].add(g * PANEL).cast())),
            ]
        };
        for (from, sums) in from.iter().zip(&mut sums) {
            // SAFETY: each row has `groups` words.
            let x = D::spread(s, unsafe { *from.add(g) });
            sums[0] = D::dot(s, sums[0], x, columns[0]);
            sums[1] = D::dot(s, sums[1], x, columns[1]);
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        // SAFETY: rows of sums are `NR` apart, and these are their own columns.
        unsafe {
            s.store_ptr(c[0].add(r * NR), sums[0]);
            s.store_ptr(c[1].add(r * NR), sums[1]);
        }
    }
}

/// Multiply-adds that products on this thread have made, for the tests of the operators' counts.
#[cfg(test)]
pub(crate) mod counted {
    use std::cell::Cell;

    thread_local! {
        static MADE: Cell<usize> = const { Cell::new(0) };
    }

    pub(crate) fn add(n: usize) {
        MADE.set(MADE.get() + n);
    }

    /// Those since the last call.
    pub(crate) fn take() -> usize {
        MADE.replace(0)
    }
}
