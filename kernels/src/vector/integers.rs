//! Products of small integers behind a trait, beside [`Simd`]. In: vectors of words, each four bytes of neighbouring k.
//! Out: sums of their products in 32 bits, exact; and the conversions that blocks of weights need.

#[cfg(target_arch = "x86_64")]
mod x86;

use super::Simd;

/// Integer arithmetic on the bits of vectors. As with [`Simd`], a value of the type proves the instructions.
pub(crate) trait Integers: Simd {
    /// [`Integers::dots`] takes weights of 8 bits as unsigned; else as signed.
    const UNSIGNED: bool;

    /// Every word and `mask`.
    fn and(self, a: Self::V, mask: u32) -> Self::V;
    /// `low`, or the bits of `high` that are in `mask`.
    fn merge(self, low: Self::V, high: Self::V, mask: u32) -> Self::V;
    fn shift_left<const N: u32>(self, a: Self::V) -> Self::V;
    fn shift_right<const N: u32>(self, a: Self::V) -> Self::V;
    /// Prefetches the cache line of `x`, which need not exist, into all caches.
    fn prefetch_near(self, x: *const u8);
    /// Prefetches the cache line of `x`, which need not exist, and will be read once: into the first-level cache alone.
    fn prefetch_once(self, x: *const u8);
    /// `LANES` f16.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load_halves(self, x: *const u8) -> Self::V;
    /// `LANES` bf16.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load_bf16(self, x: *const u16) -> Self::V;
    /// `LANES` unsigned bytes.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load_unsigned(self, x: *const u8) -> Self::V;
    /// `LANES` unsigned bytes as integers of 32 bits.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load_bytes(self, x: *const u8) -> Self::V;
    /// `LANES` signed bytes.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load_signed(self, x: *const u8) -> Self::V;
    /// Rounds to integers, ties to even, and writes `LANES` signed bytes; the values are in -127..=127, or what is
    /// written does not matter.
    ///
    /// # Safety
    /// `out` has room for them.
    unsafe fn store_i8(self, out: *mut u8, v: Self::V);
    /// `start` plus the sums of products of the bytes of `q`, of 2 to 6 or 8 bits, with those of as many words from
    /// `x` on, which are signed and not -128; bits of i32.
    ///
    /// # Safety
    /// As many words can be read.
    unsafe fn dots(self, bits: u32, start: i32, q: &[Self::V], x: *const u32) -> Self::V;
    /// [`Integers::dots`] of two of the same words, each of which is fetched once.
    ///
    /// # Safety
    /// As [`Integers::dots`]; there are as many of one as of the other.
    #[inline(always)]
    unsafe fn dots_of_two(self, bits: u32, start: i32, q: [&[Self::V]; 2], x: *const u32) -> [Self::V; 2] {
        // SAFETY: the caller's promise.
        unsafe { [self.dots(bits, start, q[0], x), self.dots(bits, start, q[1], x)] }
    }
}

/// Words whose products of pairs of bytes can be added up in 16 bits: 2 · 127 · 15 · 8, 2 · 127 · 31 · 4, and
/// 2 · 127 · 63 · 2 are below 2^15.
#[inline(always)]
const fn words_in_16_bits(bits: u32) -> usize {
    match bits {
        2..=4 => 8,
        5 => 4,
        6 => 2,
        _ => 1,
    }
}
