//! Views of row-major matrices, and the memory behind them. In: slices. Out: rows of a strided input, rectangles of an
//! output that threads may write side by side, memory aligned to cache lines. Must not: compute.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::LocalKey;

use crate::sys;

/// A matrix to be read, whose rows start `stride` values apart; how long a row is, its reader knows.
#[derive(Clone, Copy)]
pub(crate) struct MatRef<'a> {
    data: &'a [f32],
    stride: usize,
}

impl<'a> MatRef<'a> {
    pub(crate) fn new(data: &'a [f32], stride: usize) -> Self {
        MatRef { data, stride }
    }

    /// Values from one row to the next.
    pub(crate) fn stride(self) -> usize {
        self.stride
    }

    /// From row `i` to the end of the data.
    #[inline(always)]
    pub(crate) fn row(self, i: usize) -> &'a [f32] {
        &self.data[i * self.stride..]
    }

    /// The rows from `first` on.
    pub(crate) fn from(self, first: usize) -> MatRef<'a> {
        MatRef { data: self.row(first), stride: self.stride }
    }

    /// The columns from `first` on.
    pub(crate) fn columns(self, first: usize) -> MatRef<'a> {
        MatRef { data: self.data.get(first..).unwrap_or_default(), stride: self.stride }
    }
}

/// A rectangle of an output matrix, `rows` x `cols`, to which this value has exclusive access.
pub(crate) struct MatMut<'a> {
    start: *mut f32,
    stride: usize,
    rows: usize,
    cols: usize,
    life: PhantomData<&'a mut [f32]>,
}

impl<'a> MatMut<'a> {
    /// As many rows of `cols` values, `stride` apart, as fit into `data`.
    pub(crate) fn new(data: &'a mut [f32], cols: usize, stride: usize) -> MatMut<'a> {
        assert!(cols <= stride && stride > 0, "rows of {cols} values, {stride} apart");
        // SAFETY: whole strides lie within `data`, which is borrowed exclusively.
        unsafe { MatMut::from_raw(data.as_mut_ptr(), data.len() / stride, cols, stride) }
    }

    /// # Safety
    /// `start` points to `rows` rows of `cols` writable values, `stride` apart, which nothing else touches during `'a`.
    pub(crate) unsafe fn from_raw(start: *mut f32, rows: usize, cols: usize, stride: usize) -> MatMut<'a> {
        MatMut { start, stride, rows, cols, life: PhantomData }
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

    /// Row `i`, to be read.
    #[inline(always)]
    pub(crate) fn row_ref(&self, i: usize) -> &[f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        // SAFETY: as in `row`, and `&self` keeps writers of this rectangle away.
        unsafe { std::slice::from_raw_parts(self.start.add(i * self.stride), self.cols) }
    }

    /// All rows, one after another, where nothing lies between them.
    pub(crate) fn whole(&self) -> &[f32] {
        assert!(self.cols == self.stride || self.rows <= 1, "the rows of a block are apart");
        // SAFETY: `rows` rows of `cols` values without gaps, all ours, and `&self` keeps writers away.
        unsafe { std::slice::from_raw_parts(self.start, self.rows * self.cols) }
    }

    /// The columns `first..end`.
    pub(crate) fn columns(&mut self, first: usize, end: usize) -> MatMut<'_> {
        assert!(first <= end && end <= self.cols, "columns {first}..{end} of {}", self.cols);
        // SAFETY: as in `part`.
        unsafe { MatMut::from_raw(self.start.wrapping_add(first), self.rows, end - first, self.stride) }
    }

    /// The rows `first..end`.
    pub(crate) fn part(&mut self, first: usize, end: usize) -> MatMut<'_> {
        assert!(first <= end && end <= self.rows, "rows {first}..{end} of {}", self.rows);
        // SAFETY: a part of our own rectangle, lent through `&mut self`; an empty part is never read at its start.
        unsafe { MatMut::from_raw(self.start.wrapping_add(first * self.stride), end - first, self.cols, self.stride) }
    }
}

/// A buffer of words that several threads write, each in ranges of its own.
#[derive(Clone, Copy)]
pub(crate) struct SharedWords<'a> {
    start: *mut u32,
    len: usize,
    life: PhantomData<&'a mut [u32]>,
}

// SAFETY: only a pointer; callers of `words` promise that no two threads touch the same words.
unsafe impl Send for SharedWords<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedWords<'_> {}

impl<'a> SharedWords<'a> {
    /// # Safety
    /// Holders of a copy use words that no other thread touches before all of them have ended.
    pub(crate) unsafe fn new(words: &'a mut [u32]) -> SharedWords<'a> {
        SharedWords { start: words.as_mut_ptr(), len: words.len(), life: PhantomData }
    }

    /// `len` words from `at` on.
    ///
    /// # Safety
    /// Nothing else touches them meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn words(self, at: usize, len: usize) -> &'a mut [u32] {
        assert!(at <= self.len && len <= self.len - at, "{len} words from {at} of {}", self.len);
        // SAFETY: within the buffer, as checked, and used by nobody else, as promised.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }

    /// Where word `at` is, for parts that threads write among each other's.
    pub(crate) fn address(self, at: usize) -> *mut u32 {
        assert!(at <= self.len, "word {at} of {}", self.len);
        self.start.wrapping_add(at)
    }

    /// `len` words from `at` on, to be read.
    ///
    /// # Safety
    /// Nothing writes them meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn read(self, at: usize, len: usize) -> &'a [u32] {
        assert!(at <= self.len && len <= self.len - at, "{len} words from {at} of {}", self.len);
        // SAFETY: within the buffer, as checked, and written by nobody, as promised.
        unsafe { std::slice::from_raw_parts(self.start.add(at), len) }
    }
}

#[derive(Clone, Copy)]
#[repr(align(64))]
#[allow(dead_code, reason = "read through the slice of all lines")]
struct Line([u32; LINE]);
const LINE: usize = 16;

/// A slice of 32-bit words that starts on a cache line: f32, pairs of bf16 or quads of int8.
#[derive(Default)]
pub(crate) struct Aligned {
    lines: Lines,
    len: usize,
}

/// Where the lines of an [`Aligned`] are.
enum Lines {
    Own(Vec<Line>),
    Shared(Share),
}

impl Default for Lines {
    fn default() -> Self {
        Lines::Own(Vec::new())
    }
}

impl Aligned {
    /// `len` zeros for weights, which are made once and held long: those of some pages, and fewer than a large page, stand beside others
    /// in large pages. A net of many small weights is read a tenth faster so, and one of many experts a fifth.
    pub(crate) fn weights(len: usize) -> Aligned {
        match Share::zeros(len.div_ceil(LINE)) {
            Some(share) => Aligned { lines: Lines::Shared(share), len },
            None => Aligned::zeros(len),
        }
    }

    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Aligned {
        let count = len.div_ceil(LINE);
        let mut lines = Vec::with_capacity(count);
        sys::pages::ask_for_large(&mut lines);
        lines.resize(count, Line([0; LINE]));
        Aligned { lines: Lines::Own(lines), len }
    }

    /// Where the words begin. Unlike a slice's pointer it claims nothing of what the words hold, so that they may be written meanwhile.
    pub(crate) fn start(&self) -> *const u32 {
        match &self.lines {
            Lines::Own(lines) => lines.as_ptr().cast(),
            Lines::Shared(share) => share.first.cast_const().cast(),
        }
    }

    /// Grows to at least `len` words; new words are zero.
    fn grow(&mut self, len: usize) {
        if self.len < len {
            if let Lines::Own(lines) = &mut self.lines {
                lines.resize(len.div_ceil(LINE), Line([0; LINE]));
                self.len = len;
            } else {
                let mut larger = Aligned::zeros(len);
                larger[..self.len].copy_from_slice(self);
                *self = larger;
            }
        }
    }
}

impl Clone for Aligned {
    fn clone(&self) -> Aligned {
        let mut copy = Aligned::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

/// Some lines of memory that several hold parts of, each a part of its own.
struct Share {
    /// Keeps the memory.
    _chunk: Arc<Chunk>,
    first: *mut Line,
}

// SAFETY: the lines are this value's alone, as if it owned them; a `Line` may be sent and shared.
unsafe impl Send for Share {}
// SAFETY: likewise.
unsafe impl Sync for Share {}

/// Memory in large pages, given out from its beginning; freed when the last part is.
struct Chunk {
    /// Of the capacity of `lines`: whoever takes lines writes them before they are read.
    first: *mut Line,
    lines: Vec<Line>,
}

// SAFETY: as of the parts, which are all that is read or written.
unsafe impl Send for Chunk {}
// SAFETY: likewise.
unsafe impl Sync for Chunk {}

impl Share {
    /// Lines of a chunk.
    const CHUNK: usize = (32 << 20) / size_of::<Line>();
    /// As few, and as many, lines as are worth it.
    const FEW: usize = (16 << 10) / size_of::<Line>();
    const MANY: usize = (2 << 20) / size_of::<Line>();

    /// `count` lines of zeros, beside those that were asked for before.
    fn zeros(count: usize) -> Option<Share> {
        /// The chunk that parts are taken from, as long as one of them is held, and how many of its lines are taken.
        static LAST: Mutex<(Weak<Chunk>, usize)> = Mutex::new((Weak::new(), 0));
        if !(Share::FEW..Share::MANY).contains(&count) {
            return None;
        }
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunk, taken) = match last.0.upgrade() {
            Some(chunk) if chunk.lines.capacity() - last.1 >= count => (chunk, last.1),
            _ => {
                let mut lines = Vec::with_capacity(Share::CHUNK);
                sys::pages::ask_for_large(&mut lines);
                (Arc::new(Chunk { first: lines.as_mut_ptr(), lines }), 0)
            }
        };
        *last = (Arc::downgrade(&chunk), taken + count);
        drop(last);
        // SAFETY: within the capacity, as checked, and given to nobody else; zeros are lines.
        let first = unsafe {
            let first = chunk.first.add(taken);
            first.write_bytes(0, count);
            first
        };
        Some(Share { _chunk: chunk, first })
    }
}

impl Deref for Aligned {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        // SAFETY: a Line is 16 words and nothing else (64 bytes, aligned 64), and there are lines for at least `len` of them.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u32] {
        let first = match &mut self.lines {
            Lines::Own(lines) => lines.as_mut_ptr(),
            Lines::Shared(share) => share.first,
        };
        // SAFETY: as in `deref`, and borrowed once.
        unsafe { std::slice::from_raw_parts_mut(first.cast(), self.len) }
    }
}

/// Words as the f32 whose bits they are.
pub(crate) fn floats(words: &[u32]) -> &[f32] {
    // SAFETY: f32 has the size and alignment of u32, and every bit pattern is an f32.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
}

/// Words as f32 to be written.
pub(crate) fn floats_mut(words: &mut [u32]) -> &mut [f32] {
    // SAFETY: as in `floats`, and every f32 is a word.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
}

/// The bits of f32.
pub(crate) fn words(floats: &[f32]) -> &[u32] {
    // SAFETY: u32 has the size and alignment of f32, and every bit pattern is a u32.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), floats.len()) }
}

/// Words as the halves that they hold, lower half first.
#[cfg(target_endian = "little")]
pub(crate) fn halves_mut(words: &mut [u32]) -> &mut [u16] {
    // SAFETY: twice as many u16 in the same memory, with a weaker alignment.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 2) }
}

/// Words as the bytes that they hold, lowest first, to be read.
#[cfg(target_endian = "little")]
pub(crate) fn bytes(words: &[u32]) -> &[u8] {
    // SAFETY: as in `bytes_mut`.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 4) }
}

/// Words as the bytes that they hold, lowest first.
#[cfg(target_endian = "little")]
pub(crate) fn bytes_mut(words: &mut [u32]) -> &mut [u8] {
    // SAFETY: four times as many u8 in the same memory, with a weaker alignment.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 4) }
}

/// Lends `len` words of this thread's scratch memory, whose contents are unspecified. It grows to the largest size
/// asked for and is never freed, so steady work allocates nothing. Must not be nested, nor be used inside a vector
/// body.
pub(crate) fn scratch<R>(len: usize, f: impl FnOnce(&mut [u32]) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Aligned> = RefCell::default();
    }
    lend(&SCRATCH, len, f)
}

/// As [`scratch`], of a second memory, for what all threads work on while each uses its scratch memory. Must not be
/// nested.
pub(crate) fn shared_scratch<R>(len: usize, f: impl FnOnce(&mut [u32]) -> R) -> R {
    thread_local! {
        static SHARED: RefCell<Aligned> = RefCell::default();
    }
    lend(&SHARED, len, f)
}

fn lend<R>(memory: &'static LocalKey<RefCell<Aligned>>, len: usize, f: impl FnOnce(&mut [u32]) -> R) -> R {
    memory.with_borrow_mut(|memory| {
        memory.grow(len);
        f(&mut memory[..len])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths around those that share memory; each keeps what it wrote, whatever became of those beside it.
    #[test]
    fn memory_that_is_shared_is_everyones_own() {
        let lengths = [0, 1, 4095, 4096, 5000, 70_000, 524_287, 524_288, 600_000];
        let mut held: Vec<Option<(Aligned, u32)>> = Vec::new();
        for round in 0..40u32 {
            let len = lengths[round as usize % lengths.len()];
            let mut words = Aligned::weights(len);
            assert!(words.len() == len && words.iter().all(|w| *w == 0) && words.as_ptr().cast::<Line>().is_aligned());
            words.fill(round + 1);
            held.push(Some((words, round + 1)));
            if round % 3 == 0 {
                held[round as usize / 2] = None;
            }
            for (words, value) in held.iter().flatten() {
                assert!(words.iter().all(|w| w == value), "round {round}");
            }
        }
        let (words, value) = held.iter().flatten().next_back().expect("some are held");
        let mut copy = words.clone();
        drop(copy.iter_mut().map(|w| *w = 0).collect::<Vec<()>>());
        assert!(words.iter().all(|w| w == value), "a copy is apart");
        let mut grown = Aligned::weights(5000);
        grown.fill(7);
        grown.grow(9000);
        assert!(grown.len() >= 9000 && grown[..5000].iter().all(|w| *w == 7) && grown[5000..].iter().all(|w| *w == 0));
    }
}
