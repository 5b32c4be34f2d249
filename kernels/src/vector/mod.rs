//! Vectors of f32 behind one trait, so that an operator's vector body is written once for every width. In: a token that
//! proves the instruction set. Out: lane-wise arithmetic. Bodies are `#[inline(always)]` and are compiled inside an
//! entry made by [`dispatch!`], which enables the instruction set. A closure does not inherit it and can run ten times
//! slower, so hot loops of bodies have none.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod integers;
pub(crate) mod math;
pub(crate) mod operand;
pub(crate) mod product;
pub(crate) mod tile;

use self::tile::Element;
use crate::isa::Isa;

/// Lane-wise f32 arithmetic of one instruction set. A value of the implementing type proves that the CPU has it, which
/// is why the methods are safe.
pub(crate) trait Simd: Copy + Send + Sync {
    /// One vector register.
    type V: Copy;
    /// Values in a vector.
    const LANES: usize;

    fn splat(self, x: f32) -> Self::V;
    /// The first `LANES` values of `x`; lanes beyond its end hold `fill`.
    fn load_or(self, x: &[f32], fill: f32) -> Self::V;
    /// Writes the first `LANES` lanes that fit into `out`.
    fn store(self, out: &mut [f32], v: Self::V);
    /// `LANES` values from `x` on.
    ///
    /// # Safety
    /// `x` points to at least `LANES` readable values.
    unsafe fn load_ptr(self, x: *const f32) -> Self::V;

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    /// The larger; `b` where either is NaN, so that `max(limit, x)` lets a NaN in `x` through.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `p · 2^n` for integral `n`, however large, rounded once.
    fn scale2(self, p: Self::V, n: Self::V) -> Self::V;
    /// The same where `p` and the result are normal or NaN; anything else where they are not.
    fn scale2_normal(self, p: Self::V, n: Self::V) -> Self::V;
    /// `v` where `test >= limit`, else 0; NaN in `test` gives `v`.
    fn zero_below(self, v: Self::V, test: Self::V, limit: f32) -> Self::V;
    /// `1 / a` within 2^-22 relative, for finite normal values whose inverse is normal too.
    fn recip(self, a: Self::V) -> Self::V;
    /// `1 / a` with a relative error below 2^-11; 0 for infinity, infinity for 0.
    fn recip_rough(self, a: Self::V) -> Self::V;
    /// Sum of the lanes, in one fixed order.
    fn reduce_sum(self, a: Self::V) -> f32;
    /// Largest lane.
    fn reduce_max(self, a: Self::V) -> f32;

    /// The lanes hold the bits of i32; those integers as f32.
    fn i32_to_f32(self, a: Self::V) -> Self::V;
    /// The lanes hold the bits of i32: `a - b`.
    fn sub_i32(self, a: Self::V, b: Self::V) -> Self::V;
    /// Rounds to bf16, ties to even, and writes as many lanes as fit.
    fn store_bf16(self, out: &mut [u16], v: Self::V);
    /// Rounds both to bf16: words with `low` in their lower halves.
    fn pair_bf16(self, low: Self::V, high: Self::V) -> Self::V;
    /// Rounds to integers, ties to even, adds 128, and writes as many lanes as fit; the values are in -128..=127.
    fn store_u8(self, out: &mut [u8], v: Self::V);
    /// Rounds four vectors to int8: words with the first in their lowest bytes.
    fn quad_i8(self, v: [Self::V; 4]) -> Self::V;
    /// The lanes of `most` hold the bits of magnitudes: the larger of it and `|x|`, where NaN is larger than infinity.
    fn max_magnitude(self, most: Self::V, x: Self::V) -> Self::V;
    /// The largest lane of such a vector.
    fn reduce_magnitude(self, most: Self::V) -> f32;
    /// Writes `LANES` values.
    ///
    /// # Safety
    /// `out` has room for them.
    unsafe fn store_ptr(self, out: *mut f32, v: Self::V);

    /// Prefetches the cache line of `x`, which need not exist, into the second-level cache.
    fn prefetch(self, x: *const u32);

    /// Most rows of a tile of this format.
    fn tile_rows<F: Element>(self) -> usize;
    /// Words of k that operands of this format keep together, and to which k is padded: 1, or a line.
    fn line_words<F: Element>(self) -> usize;
    /// Words of k that a product takes at a time.
    fn slab<F: Element>(self) -> usize;
    /// Makes the tile products of this thread ready for tiles of `rows` rows, until `release`.
    fn configure<F: Element>(self, rows: usize);
    /// Ends what `configure` began.
    fn release<F: Element>(self);
    /// Sums of a pair of tiles with a pair of panels; [`product`](product::product) checks what is needed.
    ///
    /// # Safety
    /// Each tile's A points to its rows (all of a whole tile, where lines are the unit) of `groups` words, each B to as
    /// many times 16 words, laid out as [`tile::TileLayout`] says; `c` to room for the sums of two whole tiles. `rows`
    /// is at most `tile_rows`; `groups` is above 0 and a multiple of `line_words`.
    unsafe fn pair<F: Element>(self, pair: tile::Raw);

    /// The first `LANES` values of `x`; lanes beyond its end hold zero.
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::V {
        self.load_or(x, 0.0)
    }
}

/// The instruction set of a token, as far as products of this format differ.
#[inline(always)]
pub(crate) fn isa_of<S: Simd, F: Element>(s: S) -> Isa {
    match (s.line_words::<F>() > 1, S::LANES) {
        (true, _) => Isa::Amx,
        (false, 8) => Isa::Avx2,
        (false, _) => Isa::Avx512,
    }
}

/// Prefetches the cache lines of `bytes` bytes from `from` on, which need not exist, into all caches.
pub(crate) fn prefetch(from: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..bytes).step_by(64) {
        // SAFETY: every x86-64 has it, and a prefetch touches nothing.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(from.wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, bytes);
}

/// Makes `fn name(proof, args...)` out of a scalar reference and a vector body `fn body<S: Simd>(simd: S, args...)`:
/// one entry per instruction set, compiled with its features, chosen by the proof.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) { $scalar:path | $body:path }) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(proof: $crate::isa::Proof, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2(simd: $crate::isa::Avx2, $($arg: $type),*) {
                $body(simd, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            fn avx512(simd: $crate::isa::Avx512<{ $crate::isa::BASE }>, $($arg: $type),*) {
                $body(simd, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni")]
            fn avx512bf16(simd: $crate::isa::Avx512<{ $crate::isa::DOT }>, $($arg: $type),*) {
                $body(simd, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni")]
            fn amx(simd: $crate::isa::Avx512<{ $crate::isa::TILES }>, $($arg: $type),*) {
                $body(simd, $($arg),*)
            }
            match proof {
                $crate::isa::Proof::Scalar => $scalar($($arg),*),
                // SAFETY: a value of `Avx2` exists only where detection found AVX2, FMA and F16C.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Proof::Avx2(simd) => unsafe { avx2(simd, $($arg),*) },
                // SAFETY: a value of `Avx512` exists only where detection found the parts of AVX-512 of its level.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Proof::Avx512(simd) => unsafe { avx512(simd, $($arg),*) },
                // SAFETY: likewise.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Proof::Avx512Bf16(simd) => unsafe { avx512bf16(simd, $($arg),*) },
                // SAFETY: likewise.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Proof::Amx(simd) => unsafe { amx(simd, $($arg),*) },
            }
        }
    };
}
pub(crate) use dispatch;
