//! Sixteen lanes of f32 by AVX-512. In: the token [`Avx512`] of a level, made only where the CPU has what the level
//! needs. Out: the arithmetic of [`Simd`]. Levels differ in the products of bf16 and int8 alone: f32 has the same bits
//! on all.

use std::arch::x86_64::*;

use super::tile::{Bf16, Dot, Element, F32, Int8, LINE, PANEL, Raw, SLAB, vectors};
use super::{Simd, amx};
use crate::isa::{Avx512, DOT, TILES};
use crate::number_format::NumberFormat;

// SAFETY (every block below): `self` proves that the instruction exists; the memory forms say more where they stand.
// Those of a higher level stand behind a test of the level.
impl<const LEVEL: u8> Simd for Avx512<LEVEL> {
    type V = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load_or(self, x: &[f32], fill: f32) -> __m512 {
        if x.len() >= Self::LANES {
            // SAFETY: see the impl; sixteen values are there.
            unsafe { _mm512_loadu_ps(x.as_ptr()) }
        } else {
            // SAFETY: see the impl; masked-off lanes are not touched.
            unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(x.len()), x.as_ptr()) }
        }
    }

    #[inline(always)]
    fn store(self, out: &mut [f32], v: __m512) {
        if out.len() >= Self::LANES {
            // SAFETY: see the impl; there is room for sixteen values.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
        } else {
            // SAFETY: see the impl; masked-off lanes are not touched.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), first(out.len()), v) }
        }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> __m512 {
        // SAFETY: see the impl; the caller promises sixteen values.
        unsafe { _mm512_loadu_ps(x) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_sqrt_ps(a) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn scale2(self, p: __m512, n: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_scalef_ps(p, n) }
    }

    #[inline(always)]
    fn scale2_normal(self, p: __m512, n: __m512) -> __m512 {
        self.scale2(p, n)
    }

    #[inline(always)]
    fn recip(self, a: __m512) -> __m512 {
        // SAFETY: see the impl. Newton's step doubles the 14 bits.
        unsafe {
            let rough = _mm512_rcp14_ps(a);
            _mm512_fmadd_ps(_mm512_fnmadd_ps(a, rough, _mm512_set1_ps(1.0)), rough, rough)
        }
    }

    #[inline(always)]
    fn recip_rough(self, a: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_rcp14_ps(a) }
    }

    #[inline(always)]
    fn i32_to_f32(self, a: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_cvtepi32_ps(_mm512_castps_si512(a)) }
    }

    #[inline(always)]
    fn sub_i32(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b))) }
    }

    #[inline(always)]
    fn store_bf16(self, out: &mut [u16], v: __m512) {
        // SAFETY: see the impl; masked-off lanes are not touched.
        unsafe {
            let halves = halves(self, v);
            if out.len() >= Self::LANES {
                _mm256_storeu_si256(out.as_mut_ptr().cast(), halves);
            } else {
                _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), first(out.len()), halves);
            }
        }
    }

    #[inline(always)]
    fn pair_bf16(self, low: __m512, high: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe {
            if LEVEL >= DOT {
                // both in one instruction, one after the other; then interleaved
                let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                let interleave = _mm512_set_epi16(
                    31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
                    18, 2, 17, 1, 16, 0,
                );
                return _mm512_castsi512_ps(_mm512_permutexvar_epi16(interleave, both));
            }
            let (low, high) = (_mm512_cvtepu16_epi32(halves(self, low)), _mm512_cvtepu16_epi32(halves(self, high)));
            _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32::<16>(high)))
        }
    }

    #[inline(always)]
    fn store_u8(self, out: &mut [u8], v: __m512) {
        // SAFETY: see the impl; masked-off lanes are not touched.
        unsafe {
            let shifted = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(128));
            let mask = if out.len() >= Self::LANES { !0 } else { first(out.len()) };
            _mm512_mask_cvtepi32_storeu_epi8(out.as_mut_ptr().cast(), mask, shifted);
        }
    }

    #[inline(always)]
    fn quad_i8(self, v: [__m512; 4]) -> __m512 {
        // SAFETY: see the impl.
        unsafe {
            let byte = _mm512_set1_epi32(255);
            macro_rules! q {
                ($v:expr) => {
                    _mm512_cvtps_epi32($v)
                };
            }
            let low = _mm512_or_si512(
                _mm512_and_si512(q!(v[0]), byte),
                _mm512_slli_epi32::<8>(_mm512_and_si512(q!(v[1]), byte)),
            );
            let high = _mm512_or_si512(
                _mm512_slli_epi32::<16>(_mm512_and_si512(q!(v[2]), byte)),
                _mm512_slli_epi32::<24>(q!(v[3])),
            );
            _mm512_castsi512_ps(_mm512_or_si512(low, high))
        }
    }

    #[inline(always)]
    fn max_magnitude(self, most: __m512, x: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe {
            let magnitude = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(i32::MAX));
            _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(most), magnitude))
        }
    }

    #[inline(always)]
    fn reduce_magnitude(self, most: __m512) -> f32 {
        // SAFETY: see the impl.
        f32::from_bits(unsafe { _mm512_reduce_max_epi32(_mm512_castps_si512(most)) } as u32)
    }

    #[inline(always)]
    unsafe fn store_ptr(self, out: *mut f32, v: __m512) {
        // SAFETY: see the impl; the caller promises room for sixteen values.
        unsafe { _mm512_storeu_ps(out, v) }
    }

    #[inline(always)]
    fn prefetch(self, x: *const u32) {
        // SAFETY: see the impl; a prefetch touches nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(x.cast()) }
    }

    #[inline(always)]
    fn tile_rows<F: Element>(self) -> usize {
        if LEVEL == TILES && F::FORMAT != NumberFormat::F32 { 16 } else { 12 }
    }

    #[inline(always)]
    fn line_words<F: Element>(self) -> usize {
        if LEVEL == TILES && F::FORMAT != NumberFormat::F32 { LINE } else { 1 }
    }

    #[inline(always)]
    fn slab<F: Element>(self) -> usize {
        if LEVEL == TILES && F::FORMAT != NumberFormat::F32 { SLAB } else { usize::MAX }
    }

    #[inline(always)]
    fn zero_below(self, v: __m512, test: __m512, limit: f32) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(test, _mm512_set1_ps(limit)), v) }
    }

    #[inline(always)]
    fn configure<F: Element>(self, rows: usize) {
        if LEVEL == TILES && F::FORMAT != NumberFormat::F32 {
            // SAFETY: the level proves AMX.
            unsafe { amx::configure(rows) }
        }
    }

    #[inline(always)]
    fn release<F: Element>(self) {
        if LEVEL == TILES && F::FORMAT != NumberFormat::F32 {
            // SAFETY: the level proves AMX.
            unsafe { amx::release() }
        }
    }

    #[inline(always)]
    unsafe fn pair<F: Element>(self, pair: Raw) {
        // SAFETY: the caller's promise; the level proves AMX where it is used.
        unsafe {
            match F::FORMAT {
                NumberFormat::Bf16 if LEVEL == TILES => amx::pair::<false>(pair),
                NumberFormat::Int8 if LEVEL == TILES => amx::pair::<true>(pair),
                NumberFormat::Bf16 => by_vectors::<LEVEL, Bf16>(self, pair),
                NumberFormat::Int8 => by_vectors::<LEVEL, Int8>(self, pair),
                NumberFormat::F32 => by_vectors::<LEVEL, F32>(self, pair),
            }
        }
    }

    #[inline(always)]
    fn reduce_sum(self, a: __m512) -> f32 {
        // SAFETY: see the impl.
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    fn reduce_max(self, a: __m512) -> f32 {
        // SAFETY: see the impl.
        unsafe { _mm512_reduce_max_ps(a) }
    }
}

/// Both tiles, one after the other, in registers.
///
/// # Safety
/// As [`Simd::pair`].
#[inline(always)]
unsafe fn by_vectors<const LEVEL: u8, D: Dot<Avx512<LEVEL>>>(s: Avx512<LEVEL>, p: Raw) {
    // SAFETY: the caller's promise, and the level proves the features.
    unsafe { if LEVEL >= DOT { with_dot::<LEVEL, D>(s, p) } else { with_base::<LEVEL, D>(s, p) } }
}

macro_rules! entry {
    ($name:ident, $features:literal) => {
        /// A function of its own, so that its many register tiles exist once.
        ///
        /// # Safety
        /// As [`Simd::pair`].
        #[target_feature(enable = $features)]
        unsafe fn $name<const LEVEL: u8, D: Dot<Avx512<LEVEL>>>(s: Avx512<LEVEL>, p: Raw) {
            for t in 0..2 {
                if p.rows[t] > 0 {
                    // SAFETY: the caller's promise; a panel is one vector wide.
                    unsafe {
                        let c = p.c[t];
                        vectors::<_, D>(
                            s,
                            p.a[t],
                            p.stride,
                            p.rows[t],
                            p.b,
                            p.groups,
                            [c, c.add(PANEL)],
                            [p.prefetch, p.a[1]][t],
                        );
                    }
                }
            }
        }
    };
}
entry!(with_base, "avx512f,avx512bw,avx512vl,avx512dq");
entry!(with_dot, "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni");

impl<const LEVEL: u8> Dot<Avx512<LEVEL>> for Bf16 {
    /// even k, odd k; on levels that multiply pairs, the pairs in the first
    type B = [__m512; 2];
    type A = [__m512; 2];

    #[inline(always)]
    fn prepare(s: Avx512<LEVEL>, b: __m512) -> [__m512; 2] {
        if LEVEL >= DOT { [b; 2] } else { split(s, b) }
    }

    #[inline(always)]
    fn spread(s: Avx512<LEVEL>, a: u32) -> [__m512; 2] {
        if LEVEL >= DOT {
            [s.splat(f32::from_bits(a)); 2]
        } else {
            [s.splat(f32::from_bits(a << 16)), s.splat(f32::from_bits(a & 0xffff_0000))]
        }
    }

    #[inline(always)]
    fn dot(s: Avx512<LEVEL>, sum: __m512, a: [__m512; 2], b: [__m512; 2]) -> __m512 {
        if LEVEL >= DOT {
            // SAFETY: the level proves BF16; a vector of bf16 pairs has the size of any other.
            unsafe {
                let (a, b) =
                    (std::mem::transmute::<__m512, __m512bh>(a[0]), std::mem::transmute::<__m512, __m512bh>(b[0]));
                _mm512_dpbf16_ps(sum, a, b)
            }
        } else {
            s.fma(a[1], b[1], s.fma(a[0], b[0], sum))
        }
    }
}

impl<const LEVEL: u8> Dot<Avx512<LEVEL>> for Int8 {
    /// even bytes, odd bytes as 16-bit; on levels that multiply quads, the quads in the first
    type B = [__m512; 2];
    type A = [__m512; 2];

    #[inline(always)]
    fn prepare(_: Avx512<LEVEL>, b: __m512) -> [__m512; 2] {
        if LEVEL >= DOT {
            return [b; 2];
        }
        // SAFETY: see the impl of Simd.
        unsafe {
            let words = _mm512_castps_si512(b);
            let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(words));
            [_mm512_castsi512_ps(even), _mm512_castsi512_ps(_mm512_srai_epi16::<8>(words))]
        }
    }

    #[inline(always)]
    fn spread(s: Avx512<LEVEL>, a: u32) -> [__m512; 2] {
        if LEVEL >= DOT {
            [s.splat(f32::from_bits(a)); 2]
        } else {
            [s.splat(f32::from_bits(a & 0x00ff_00ff)), s.splat(f32::from_bits(a >> 8 & 0x00ff_00ff))]
        }
    }

    #[inline(always)]
    fn dot(_: Avx512<LEVEL>, sum: __m512, a: [__m512; 2], b: [__m512; 2]) -> __m512 {
        // SAFETY: see the impl of Simd; the level proves VNNI.
        unsafe {
            let (sum, a0, b0) = (_mm512_castps_si512(sum), _mm512_castps_si512(a[0]), _mm512_castps_si512(b[0]));
            let (a1, b1) = (_mm512_castps_si512(a[1]), _mm512_castps_si512(b[1]));
            _mm512_castsi512_ps(if LEVEL >= DOT {
                _mm512_dpbusd_epi32(sum, a0, b0)
            } else {
                let products = _mm512_add_epi32(_mm512_madd_epi16(a0, b0), _mm512_madd_epi16(a1, b1));
                _mm512_add_epi32(sum, products)
            })
        }
    }
}

/// The lower and the upper bf16 of each word, as f32.
#[inline(always)]
fn split<const LEVEL: u8>(_proof: Avx512<LEVEL>, b: __m512) -> [__m512; 2] {
    // SAFETY: `_proof` says that AVX-512 is there.
    unsafe {
        let words = _mm512_castps_si512(b);
        let high = _mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000u32 as i32));
        [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)), _mm512_castsi512_ps(high)]
    }
}

/// Rounded to bf16.
#[inline(always)]
fn halves<const LEVEL: u8>(_proof: Avx512<LEVEL>, v: __m512) -> __m256i {
    // SAFETY: `_proof` says that AVX-512 is there, and its level that BF16 is.
    unsafe {
        if LEVEL >= DOT {
            return std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
        }
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        let rounded = _mm512_mask_blend_epi32(nan, rounded, _mm512_set1_epi32(0x7fc0_0000));
        _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded))
    }
}

/// The mask of the first `n < 16` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    (1 << n) - 1
}
