//! [`Integers`] by AVX2 and AVX-512: VNNI where the level has it, else products of bytes summed up in 16 bits. In and out:
//! as the trait says.

use std::arch::x86_64::*;

use super::{Integers, words_in_16_bits};
use crate::isa::{Avx2, Avx512, DOT};

// SAFETY (every block below): `self` proves that the instruction exists; the memory forms read what the caller
// promises.
impl Integers for Avx2 {
    const UNSIGNED: bool = false;

    #[inline(always)]
    fn and(self, a: __m256, mask: u32) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(mask as i32))) }
    }

    #[inline(always)]
    fn merge(self, low: __m256, high: __m256, mask: u32) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_or_ps(low, self.and(high, mask)) }
    }

    #[inline(always)]
    fn shift_left<const N: u32>(self, a: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_castsi256_ps(_mm256_sllv_epi32(_mm256_castps_si256(a), _mm256_set1_epi32(N as i32))) }
    }

    #[inline(always)]
    fn shift_right<const N: u32>(self, a: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_castsi256_ps(_mm256_srlv_epi32(_mm256_castps_si256(a), _mm256_set1_epi32(N as i32))) }
    }

    #[inline(always)]
    fn prefetch_near(self, x: *const u8) {
        // SAFETY: see the impl; a prefetch touches nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.cast()) }
    }

    #[inline(always)]
    fn prefetch_once(self, x: *const u8) {
        // SAFETY: see the impl; a prefetch touches nothing.
        unsafe { _mm_prefetch::<_MM_HINT_NTA>(x.cast()) }
    }

    #[inline(always)]
    unsafe fn load_halves(self, x: *const u8) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, x: *const u16) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(x.cast())))) }
    }

    #[inline(always)]
    unsafe fn load_unsigned(self, x: *const u8) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(x.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_bytes(self, x: *const u8) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_castsi256_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(x.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_signed(self, x: *const u8) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.cast()))) }
    }

    #[inline(always)]
    unsafe fn store_i8(self, out: *mut u8, v: __m256) {
        // SAFETY: see the impl.
        unsafe {
            let words = _mm256_cvtps_epi32(v);
            // packs within 128-bit lanes
            let halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storel_epi64(out.cast(), _mm_packs_epi16(halves, halves));
        }
    }

    #[inline(always)]
    unsafe fn dots(self, bits: u32, start: i32, q: &[__m256], x: *const u32) -> __m256 {
        // SAFETY: see the impl.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut sum = _mm256_set1_epi32(start);
            let mut part = _mm256_setzero_si256();
            let (most, len) = (words_in_16_bits(bits), q.len());
            for (i, q) in q.iter().enumerate() {
                let (q, x) = (_mm256_castps_si256(*q), _mm256_set1_epi32(*x.add(i) as i32));
                let pairs = if bits == 8 {
                    // |q| · (x with q's sign): at most 2 · 128 · 127
                    _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q))
                } else {
                    _mm256_maddubs_epi16(q, x)
                };
                part = if i % most == 0 { pairs } else { _mm256_add_epi16(part, pairs) };
                if i % most == most - 1 || i + 1 == len {
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(part, ones));
                }
            }
            _mm256_castsi256_ps(sum)
        }
    }
}

// SAFETY (every block below): as above.
impl<const LEVEL: u8> Integers for Avx512<LEVEL> {
    const UNSIGNED: bool = LEVEL >= DOT;

    #[inline(always)]
    fn and(self, a: __m512, mask: u32) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(mask as i32))) }
    }

    #[inline(always)]
    fn merge(self, low: __m512, high: __m512, mask: u32) -> __m512 {
        // SAFETY: see the impl.
        unsafe {
            let (low, high) = (_mm512_castps_si512(low), _mm512_castps_si512(high));
            // a | b & c
            _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xf8>(low, high, _mm512_set1_epi32(mask as i32)))
        }
    }

    #[inline(always)]
    fn shift_left<const N: u32>(self, a: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<N>(_mm512_castps_si512(a))) }
    }

    #[inline(always)]
    fn shift_right<const N: u32>(self, a: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_castsi512_ps(_mm512_srli_epi32::<N>(_mm512_castps_si512(a))) }
    }

    #[inline(always)]
    fn prefetch_near(self, x: *const u8) {
        // SAFETY: see the impl; a prefetch touches nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.cast()) }
    }

    #[inline(always)]
    fn prefetch_once(self, x: *const u8) {
        // SAFETY: see the impl; a prefetch touches nothing.
        unsafe { _mm_prefetch::<_MM_HINT_NTA>(x.cast()) }
    }

    #[inline(always)]
    unsafe fn load_halves(self, x: *const u8) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, x: *const u16) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(x.cast())))) }
    }

    #[inline(always)]
    unsafe fn load_unsigned(self, x: *const u8) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_bytes(self, x: *const u8) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_castsi512_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_signed(self, x: *const u8) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.cast()))) }
    }

    #[inline(always)]
    unsafe fn store_i8(self, out: *mut u8, v: __m512) {
        // SAFETY: see the impl.
        unsafe { _mm_storeu_si128(out.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v))) }
    }

    #[inline(always)]
    unsafe fn dots(self, bits: u32, start: i32, q: &[__m512], x: *const u32) -> __m512 {
        // SAFETY: see the impl; the level proves VNNI.
        unsafe {
            let mut sum = _mm512_set1_epi32(start);
            if LEVEL >= DOT {
                for (i, q) in q.iter().enumerate() {
                    sum = _mm512_dpbusd_epi32(sum, _mm512_castps_si512(*q), _mm512_set1_epi32(*x.add(i) as i32));
                }
                return _mm512_castsi512_ps(sum);
            }
            let (ones, zero) = (_mm512_set1_epi16(1), _mm512_setzero_si512());
            let mut part = zero;
            let (most, len) = (words_in_16_bits(bits), q.len());
            for (i, q) in q.iter().enumerate() {
                let (q, x) = (_mm512_castps_si512(*q), _mm512_set1_epi32(*x.add(i) as i32));
                let pairs = if bits == 8 {
                    // |q| · (x with q's sign): at most 2 · 128 · 127
                    let x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(q), zero, x);
                    _mm512_maddubs_epi16(_mm512_abs_epi8(q), x)
                } else {
                    _mm512_maddubs_epi16(q, x)
                };
                part = if i % most == 0 { pairs } else { _mm512_add_epi16(part, pairs) };
                if i % most == most - 1 || i + 1 == len {
                    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(part, ones));
                }
            }
            _mm512_castsi512_ps(sum)
        }
    }

    #[inline(always)]
    unsafe fn dots_of_two(self, bits: u32, start: i32, q: [&[__m512]; 2], x: *const u32) -> [__m512; 2] {
        // SAFETY: see the impl; the level proves VNNI.
        unsafe {
            if LEVEL < DOT {
                return [self.dots(bits, start, q[0], x), self.dots(bits, start, q[1], x)];
            }
            let mut sums = [_mm512_set1_epi32(start); 2];
            for i in 0..q[0].len() {
                let x = _mm512_set1_epi32(*x.add(i) as i32);
                sums[0] = _mm512_dpbusd_epi32(sums[0], _mm512_castps_si512(q[0][i]), x);
                sums[1] = _mm512_dpbusd_epi32(sums[1], _mm512_castps_si512(q[1][i]), x);
            }
            [_mm512_castsi512_ps(sums[0]), _mm512_castsi512_ps(sums[1])]
        }
    }
}
