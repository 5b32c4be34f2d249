//! The product that linear layers, token mixing and attention stand on: two tiles of rows times two panels of 16 columns, in a number format.
//! In: rows of A and panels of B, both in 32-bit words (one f32, two bf16 or four int8 of neighbouring k each). Out: the sums, f32 or i32, in a small buffer.
//!
//! Every sum is one chain over k in ascending order of words (f32: fused multiply-adds; bf16: as the instruction adds a pair or a tile row; int8:
//! exact), whatever the tile, so the same bits in any batch. Int8 multiplies an unsigned A (the value plus 128) with a signed B, as VNNI and
//! AMX do; whoever reads the sums takes 128 · ΣB off each column.

use std::marker::PhantomData;

use super::Simd;
use crate::format::Format;

/// Columns in a panel.
pub(crate) const PANEL: usize = 16;
/// Columns that a pair of panels makes.
pub(crate) const WIDE: usize = 2 * PANEL;
/// Most rows of a tile.
pub(crate) const HIGH: usize = 16;
/// Values in the buffer for the sums: tile, row, column.
pub(crate) const SUMS: usize = 2 * HIGH * WIDE;

/// A number format known to the compiler.
pub(crate) trait Number: Copy {
    /// The same as a value.
    const FORMAT: Format;
}

/// See [`Format::F32`].
#[derive(Clone, Copy)]
pub(crate) struct F32;
/// See [`Format::Bf16`].
#[derive(Clone, Copy)]
pub(crate) struct Bf16;
/// See [`Format::Int8`].
#[derive(Clone, Copy)]
pub(crate) struct Int8;

impl Number for F32 {
    const FORMAT: Format = Format::F32;
}
impl Number for Bf16 {
    const FORMAT: Format = Format::Bf16;
}
impl Number for Int8 {
    const FORMAT: Format = Format::Int8;
}

/// Operands of a product, unchecked.
#[derive(Clone, Copy)]
pub(crate) struct Raw {
    /// First word of each tile's rows; the second is null where there is one tile.
    pub(crate) a: [*const u32; 2],
    /// Words between the rows of A.
    pub(crate) stride: usize,
    /// Rows of each tile.
    pub(crate) rows: [usize; 2],
    /// First word of each panel.
    pub(crate) b: [*const u32; 2],
    /// Words of k.
    pub(crate) groups: usize,
}

/// Tile products of one thread, ready for tiles of so many rows as long as this lives.
pub(crate) struct Tiles<S: Simd, F: Number> {
    s: S,
    rows: usize,
    /// tied to its thread
    life: PhantomData<(*const (), F)>,
}

impl<S: Simd, F: Number> Tiles<S, F> {
    /// For `rows` rows of A in tiles as even as can be, each of a multiple of `unit` rows where that is possible.
    #[inline(always)]
    pub(crate) fn new(s: S, rows: usize, unit: usize) -> Self {
        let rows = even(rows, s.tile_rows::<F>(), unit);
        s.configure::<F>(rows);
        Tiles { s, rows, life: PhantomData }
    }

    /// Rows of a tile.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Sums of the rows of up to two tiles with two panels: `c[tile][row][column]`, of `HIGH` rows and `WIDE` columns. `a` begins at each tile's first
    /// row; `rows` says how many of each tile are wanted (others in `c` hold anything), at most [`Tiles::rows`].
    /// All [`Tiles::rows`] rows of a tile must be there to be read if `groups` is padded for tiles.
    #[inline(always)]
    pub(crate) fn pair(
        &self,
        a: [&[u32]; 2],
        stride: usize,
        rows: [usize; 2],
        b: [&[u32]; 2],
        groups: usize,
        c: &mut [f32],
    ) {
        let whole = self.s.group_multiple::<F>() > 1;
        assert!(c.len() >= SUMS && rows[0] <= self.rows && rows[1] <= self.rows, "the tiles are too high");
        assert!(groups.is_multiple_of(self.s.group_multiple::<F>()), "k is not padded");
        let mut raw = Raw { a: [std::ptr::null(); 2], stride, rows, b: [b[0].as_ptr(), b[1].as_ptr()], groups };
        for t in 0..2 {
            assert!(b[t].len() >= groups * PANEL, "a panel is too short");
            let read = if whole && rows[t] > 0 { self.rows } else { rows[t] };
            if read > 0 {
                assert!(a[t].len() >= (read - 1) * stride + groups, "rows of A are missing");
                raw.a[t] = a[t].as_ptr();
            }
        }
        #[cfg(test)]
        counted::add(
            (0..2).map(|t| if whole && rows[t] > 0 { self.rows } else { rows[t] }).sum::<usize>()
                * WIDE
                * groups
                * F::FORMAT.per_word(),
        );
        if rows[0] > 0 && groups > 0 {
            // SAFETY: lengths are checked above; tiles were configured by `new` on this very thread.
            unsafe { self.s.pair::<F>(raw, c.as_mut_ptr()) }
        } else {
            c[..SUMS].fill(0.0);
        }
    }
}

impl<S: Simd, F: Number> Drop for Tiles<S, F> {
    #[inline(always)]
    fn drop(&mut self) {
        self.s.release::<F>();
    }
}

/// Rows of a tile when `rows` rows are cut into the fewest tiles of at most `most` rows: as even as multiples of `unit` allow.
pub(crate) fn even(rows: usize, most: usize, unit: usize) -> usize {
    let most = most / unit * unit;
    rows.div_ceil(rows.div_ceil(most).max(1)).next_multiple_of(unit).clamp(unit, most)
}

/// What a format's dot product is on vectors: `prepare` readies a vector of B's words, `spread` one word of A, `dot` adds their products.
pub(crate) trait Dot<S: Simd> {
    /// Words of B, ready.
    type B: Copy;
    /// A word of A in every lane, ready.
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

/// Two vectors of columns by up to twelve rows, in registers.
///
/// # Safety
/// As [`Simd::pair`], for one tile of `rows` rows in 1..=12; `b` and `c` point to the vectors' own first word and sum.
#[inline(always)]
pub(crate) unsafe fn vectors<S: Simd, D: Dot<S>>(
    s: S,
    a: *const u32,
    stride: usize,
    rows: usize,
    b: [*const u32; 2],
    groups: usize,
    c: [*mut f32; 2],
) {
    macro_rules! of {
        ($($rows:literal)*) => {
            match rows {
                // SAFETY: the caller's promise.
                $($rows => unsafe { registers::<S, D, $rows>(s, a, stride, b, groups, c) },)*
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
unsafe fn registers<S: Simd, D: Dot<S>, const ROWS: usize>(
    s: S,
    a: *const u32,
    stride: usize,
    b: [*const u32; 2],
    groups: usize,
    c: [*mut f32; 2],
) {
    let mut from = [a; ROWS];
    for (r, from) in from.iter_mut().enumerate() {
        // SAFETY: row r of the tile.
        *from = unsafe { a.add(r * stride) };
    }
    let mut sums = [[s.splat(0.0); 2]; ROWS];
    for g in 0..groups {
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
        // SAFETY: rows of sums are `WIDE` apart, and these are their own columns.
        unsafe {
            s.store_ptr(c[0].add(r * WIDE), sums[0]);
            s.store_ptr(c[1].add(r * WIDE), sums[1]);
        }
    }
}

/// Multiply-adds that products on this thread have made, for the tests of what operators say they execute.
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
