//! Brings the next panels of weights near while the present ones are used. In: words that will be read. Out: nothing but prefetches, a few at a time, between
//! other work, so that they wait for nobody.

use super::Simd;

/// Lines of 64 bytes still to be asked for.
pub(crate) struct Ahead<'a> {
    words: &'a [u32],
    each: usize,
}

/// Words in a line.
const LINE: usize = 16;

impl<'a> Ahead<'a> {
    /// Asks for `words` in `turns` equal parts.
    #[inline(always)]
    pub(crate) fn new(words: &'a [u32], turns: usize) -> Self {
        Ahead { words, each: (words.len() / LINE).div_ceil(turns.max(1)) }
    }

    /// The next part.
    #[inline(always)]
    pub(crate) fn turn<S: Simd>(&mut self, s: S) {
        for _ in 0..self.each {
            let Some((line, rest)) = self.words.split_at_checked(LINE) else { return };
            s.prefetch(line.as_ptr());
            self.words = rest;
        }
    }
}
