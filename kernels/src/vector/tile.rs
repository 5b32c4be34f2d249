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
/// Values of a pair's sums: tile, row, column.
pub(crate) const PAIR: usize = 2 * HIGH * WIDE;
/// Words of scratch memory for sums: of a pair that is being made, and of the one before it, which an epilogue reads meanwhile.
pub(crate) const SUMS: usize = 2 * PAIR;
/// Where the sums of a pair lie in a buffer of their own.
pub(crate) const APART: Place = Place { stride: WIDE, second: HIGH * WIDE };

/// Where a pair's sums go: values from one row to the next, and from the first tile's to the second's first row.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) stride: usize,
    pub(crate) second: usize,
}

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
    /// First sum of each tile.
    pub(crate) c: [*mut f32; 2],
    /// Values between the rows of sums.
    pub(crate) c_stride: usize,
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

    /// Sums of the rows of up to two tiles with two panels, into `c` at `place`. `a` begins at each tile's first row; `rows` says how many of each tile are wanted, at
    /// most [`Tiles::rows`]. Where operands are padded for tiles, all [`Tiles::rows`] rows of a tile are read and written.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn pair(
        &self,
        a: [&[u32]; 2],
        stride: usize,
        rows: [usize; 2],
        b: [&[u32]; 2],
        groups: usize,
        c: &mut [f32],
        place: Place,
    ) {
        let whole = self.s.group_multiple::<F>() > 1;
        assert!(rows[0] <= self.rows && rows[1] <= self.rows, "the tiles are too high");
        assert!(groups.is_multiple_of(self.s.group_multiple::<F>()), "k is not padded");
        assert!(b[0].len() >= groups * PANEL && b[1].len() >= groups * PANEL, "a panel is too short");
        let (null, none) = (std::ptr::null(), std::ptr::null_mut());
        let b = [b[0].as_ptr(), b[1].as_ptr()];
        let mut raw = Raw { a: [null; 2], stride, rows, b, groups, c: [none; 2], c_stride: place.stride };
        for t in 0..2 {
            let read = if whole && rows[t] > 0 { self.rows } else { rows[t] };
            if read > 0 {
                assert!(a[t].len() >= (read - 1) * stride + groups, "rows of A are missing");
                raw.a[t] = a[t].as_ptr();
                let c = &mut c[t * place.second..];
                assert!(c.len() >= (read - 1) * place.stride + WIDE, "no room for the sums");
                raw.c[t] = c.as_mut_ptr();
            }
            #[cfg(test)]
            counted::add(read * WIDE * groups * F::FORMAT.per_word());
        }
        if groups == 0 {
            for (t, rows) in rows.into_iter().enumerate() {
                (0..rows).for_each(|r| c[t * place.second + r * place.stride..][..WIDE].fill(0.0));
            }
        } else if rows[0] > 0 {
            // SAFETY: lengths are checked above; tiles were configured by `new` on this very thread.
            unsafe { self.s.pair::<F>(raw) }
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
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn vectors<S: Simd, D: Dot<S>>(
    s: S,
    a: *const u32,
    stride: usize,
    rows: usize,
    b: [*const u32; 2],
    groups: usize,
    c: [*mut f32; 2],
    c_stride: usize,
) {
    macro_rules! of {
        ($($rows:literal)*) => {
            match rows {
                // SAFETY: the caller's promise.
                $($rows => unsafe { registers::<S, D, $rows>(s, a, stride, b, groups, c, c_stride) },)*
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
    c_stride: usize,
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
        // SAFETY: rows of sums are `c_stride` apart, and these are their own columns.
        unsafe {
            s.store_ptr(c[0].add(r * c_stride), sums[0]);
            s.store_ptr(c[1].add(r * c_stride), sums[1]);
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
