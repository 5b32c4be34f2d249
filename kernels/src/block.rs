//! Views of row-major matrices and the memory behind them. In: slices. Out: rows of a strided input, rectangles of an output that threads may
//! write side by side, memory aligned to cache lines. Holds no arithmetic.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Rows of a matrix whose rows start `stride` values apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(data: &'a [f32], stride: usize) -> Self {
        Rows { data, stride }
    }

    /// From row `i` to the end of the data.
    #[inline(always)]
    pub(crate) fn row(self, i: usize) -> &'a [f32] {
        &self.data[i * self.stride..]
    }

    /// The rows from `first` on.
    pub(crate) fn from(self, first: usize) -> Rows<'a> {
        Rows { data: self.row(first), stride: self.stride }
    }

    /// The columns from `first` on.
    pub(crate) fn columns(self, first: usize) -> Rows<'a> {
        Rows { data: self.data.get(first..).unwrap_or_default(), stride: self.stride }
    }
}

/// A rectangle of an output matrix, `rows` x `cols`, which this value alone may touch.
pub(crate) struct Block<'a> {
    start: *mut f32,
    stride: usize,
    rows: usize,
    cols: usize,
    life: PhantomData<&'a mut [f32]>,
}

impl<'a> Block<'a> {
    /// The whole of `out`, rows of `cols` values that start `stride` apart.
    pub(crate) fn new(out: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Block<'a> {
        assert!(cols <= stride && (rows == 0 || (rows - 1) * stride + cols <= out.len()), "block exceeds its slice");
        Block { start: out.as_mut_ptr(), stride, rows, cols, life: PhantomData }
    }

    /// # Safety
    /// `start` points to `rows` rows of `cols` writable values, `stride` apart, which nothing else touches during `'a`.
    pub(crate) unsafe fn from_raw(start: *mut f32, rows: usize, cols: usize, stride: usize) -> Block<'a> {
        Block { start, stride, rows, cols, life: PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Row `i`, `cols` values.
    #[inline(always)]
    pub(crate) fn row(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        // SAFETY: the constructors promise that row i is there and ours, and `&mut self` lends it once at a time.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.stride), self.cols) }
    }

    /// The rows `first..end`.
    pub(crate) fn part(&mut self, first: usize, end: usize) -> Block<'_> {
        assert!(first <= end && end <= self.rows, "rows {first}..{end} of {}", self.rows);
        // SAFETY: a part of our own rectangle, lent through `&mut self`; an empty part is never read at its start.
        unsafe { Block::from_raw(self.start.wrapping_add(first * self.stride), end - first, self.cols, self.stride) }
    }
}

#[derive(Clone, Copy)]
#[repr(align(64))]
#[allow(dead_code, reason = "read through the slice of all lines")]
struct Line([f32; LINE]);
const LINE: usize = 16;

/// A slice of f32 that starts on a cache line.
#[derive(Default)]
pub(crate) struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Aligned {
        Aligned { lines: vec![Line([0.0; LINE]); len.div_ceil(LINE)], len }
    }

    /// At least `len` values, of which grown ones are zero.
    fn grow(&mut self, len: usize) {
        if self.len < len {
            self.lines.resize(len.div_ceil(LINE), Line([0.0; LINE]));
            self.len = len;
        }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a Line is 16 f32 and nothing else (64 bytes, aligned 64), and `lines` hold at least `len` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and borrowed once.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// Lends `len` values of this thread's scratch memory, which hold whatever was left there. It grows to the largest size asked for and stays,
/// so steady work allocates nothing. Not to be nested, and not for use inside a vector body.
pub(crate) fn scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Aligned> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(|memory| {
        memory.grow(len);
        f(&mut memory[..len])
    })
}
