//! Eight lanes of f32 by AVX2 and FMA. In: the token [`Avx2`], made only where the CPU has both (and F16C). Out: the
//! arithmetic of [`Simd`].

use std::arch::x86_64::*;

use super::Simd;
use super::tile::{AVX2_ROWS, AVX2_SLAB, Bf16, Dot, Element, Int8, LINE, NR, PANEL, Raw, vectors};
use crate::isa::Avx2;
use crate::number_format::NumberFormat;

// SAFETY (every block below): `self` proves that the instruction exists; the two memory forms say more where they
// stand.
impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn load_or(self, x: &[f32], fill: f32) -> __m256 {
        if x.len() >= Self::LANES {
            // SAFETY: see the impl; eight values are there.
            unsafe { _mm256_loadu_ps(x.as_ptr()) }
        } else {
            // SAFETY: see the impl; masked-off lanes are not touched.
            unsafe {
                let mask = first(self, x.len());
                let part = _mm256_maskload_ps(x.as_ptr(), mask);
                _mm256_blendv_ps(_mm256_set1_ps(fill), part, _mm256_castsi256_ps(mask))
            }
        }
    }

    #[inline(always)]
    fn store(self, out: &mut [f32], v: __m256) {
        if out.len() >= Self::LANES {
            // SAFETY: see the impl; there is room for eight values.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
        } else {
            // SAFETY: see the impl; masked-off lanes are not touched.
            unsafe { _mm256_maskstore_ps(out.as_mut_ptr(), first(self, out.len()), v) }
        }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> __m256 {
        // SAFETY: see the impl; the caller promises eight values.
        unsafe { _mm256_loadu_ps(x) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_sqrt_ps(a) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn scale2(self, p: __m256, n: __m256) -> __m256 {
        // by halves: 2^n alone may be no f32 where the product is one; the first product is exact
        let n = self.min(self.splat(252.0), self.max(self.splat(-252.0), n));
        let half = self.round(self.mul(n, self.splat(0.5)));
        self.mul(self.mul(p, power2(self, half)), power2(self, self.sub(n, half)))
    }

    #[inline(always)]
    fn scale2_normal(self, p: __m256, n: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe {
            let by = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), by))
        }
    }

    #[inline(always)]
    fn recip(self, a: __m256) -> __m256 {
        self.div(self.splat(1.0), a)
    }

    #[inline(always)]
    fn recip_rough(self, a: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_rcp_ps(a) }
    }

    #[inline(always)]
    fn i32_to_f32(self, a: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_cvtepi32_ps(_mm256_castps_si256(a)) }
    }

    #[inline(always)]
    fn sub_i32(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_castsi256_ps(_mm256_sub_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b))) }
    }

    #[inline(always)]
    fn store_bf16(self, out: &mut [u16], v: __m256) {
        // SAFETY: see the impl; a whole vector of halves is written where there is room, else lane by lane.
        unsafe {
            let words = _mm256_srli_epi32::<16>(upper_bf16(self, v));
            // packs within 128-bit lanes, so the two middle quarters change places
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(words, words));
            let halves = _mm256_castsi256_si128(packed);
            if out.len() >= Self::LANES {
                _mm_storeu_si128(out.as_mut_ptr().cast(), halves);
            } else {
                let mut all = [0u16; 8];
                _mm_storeu_si128(all.as_mut_ptr().cast(), halves);
                let n = out.len();
                out.copy_from_slice(&all[..n]);
            }
        }
    }

    #[inline(always)]
    fn pair_bf16(self, low: __m256, high: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe {
            let (low, high) = (upper_bf16(self, low), upper_bf16(self, high));
            _mm256_castsi256_ps(_mm256_or_si256(_mm256_srli_epi32::<16>(low), high))
        }
    }

    #[inline(always)]
    fn store_u8(self, out: &mut [u8], v: __m256) {
        // SAFETY: see the impl; only as many bytes as fit are copied.
        unsafe {
            let shifted = _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(128));
            let mut all = [0u32; 8];
            _mm256_storeu_si256(all.as_mut_ptr().cast(), shifted);
            for (out, word) in out.iter_mut().zip(all) {
                *out = word as u8;
            }
        }
    }

    #[inline(always)]
    fn quad_i8(self, v: [__m256; 4]) -> __m256 {
        // SAFETY: see the impl.
        unsafe {
            let byte = _mm256_set1_epi32(255);
            let low = _mm256_or_si256(
                _mm256_and_si256(_mm256_cvtps_epi32(v[0]), byte),
                _mm256_slli_epi32::<8>(_mm256_and_si256(_mm256_cvtps_epi32(v[1]), byte)),
            );
            let high = _mm256_or_si256(
                _mm256_slli_epi32::<16>(_mm256_and_si256(_mm256_cvtps_epi32(v[2]), byte)),
                _mm256_slli_epi32::<24>(_mm256_cvtps_epi32(v[3])),
            );
            _mm256_castsi256_ps(_mm256_or_si256(low, high))
        }
    }

    #[inline(always)]
    fn max_magnitude(self, most: __m256, x: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe {
            let magnitude = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(i32::MAX));
            _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(most), magnitude))
        }
    }

    #[inline(always)]
    fn reduce_magnitude(self, most: __m256) -> f32 {
        let mut all = [0.0f32; 8];
        // SAFETY: see the impl; there is room for eight values.
        unsafe { _mm256_storeu_ps(all.as_mut_ptr(), most) }
        // magnitudes order like their bits
        f32::from_bits(all.iter().fold(0, |most, x| most.max(x.to_bits())))
    }

    #[inline(always)]
    unsafe fn store_ptr(self, out: *mut f32, v: __m256) {
        // SAFETY: see the impl; the caller promises room for eight values.
        unsafe { _mm256_storeu_ps(out, v) }
    }

    #[inline(always)]
    fn prefetch(self, x: *const u32) {
        // SAFETY: see the impl; a prefetch touches nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(x.cast()) }
    }

    #[inline(always)]
    fn tile_rows<F: Element>(self) -> usize {
        // split formats need more registers
        if F::FORMAT == NumberFormat::F32 { AVX2_ROWS } else { 4 }
    }

    #[inline(always)]
    fn line_words<F: Element>(self) -> usize {
        1
    }

    #[inline(always)]
    fn slab<F: Element>(self) -> usize {
        if F::FORMAT == NumberFormat::F32 { AVX2_SLAB } else { usize::MAX }
    }

    #[inline(always)]
    fn zero_below(self, v: __m256, test: __m256, limit: f32) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_NLT_UQ>(test, _mm256_set1_ps(limit))) }
    }

    #[inline(always)]
    fn configure<F: Element>(self, _rows: usize) {}

    #[inline(always)]
    fn release<F: Element>(self) {}

    #[inline(always)]
    unsafe fn pair<F: Element>(self, pair: Raw) {
        // SAFETY: the caller's promise.
        unsafe {
            match F::FORMAT {
                NumberFormat::F32 => floats(self, pair),
                NumberFormat::Bf16 => by_vectors::<Bf16>(self, pair),
                NumberFormat::Int8 => by_vectors::<Int8>(self, pair),
            }
        }
    }

    #[inline(always)]
    fn reduce_sum(self, a: __m256) -> f32 {
        // SAFETY: see the impl.
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)))
        }
    }

    #[inline(always)]
    fn reduce_max(self, a: __m256) -> f32 {
        // SAFETY: see the impl.
        unsafe {
            let half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let quarter = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(quarter, _mm_movehdup_ps(quarter)))
        }
    }
}

/// Both tiles of f32, a panel at a time, in registers, each product with a quarter of what is to be prefetched.
///
/// # Safety
/// As [`Simd::pair`].
#[target_feature(enable = "avx2,fma")]
unsafe fn floats(s: Avx2, p: Raw) {
    let part = p.groups / UNROLL * LINE;
    for t in 0..2 {
        for (panel, b) in p.b.into_iter().enumerate() {
            let prefetch = p.prefetch.wrapping_add((2 * t + panel) * part);
            macro_rules! of {
                ($($rows:literal)*) => {
                    match p.rows[t] {
                        // SAFETY: the caller's promise.
                        $($rows => unsafe { float_tile::<$rows>(s, p, t, b, panel * PANEL, prefetch) },)*
                        _ => {}
                    }
                };
            }
            of!(1 2 3 4 5 6);
        }
    }
}

/// Words of k for which the loop over k has no branch, and a line is prefetched.
const UNROLL: usize = 4;

/// Sums of `ROWS` rows of tile `t` with the panel at `b`, whose sums begin at `column`.
///
/// # Safety
/// As [`Simd::pair`]; the tile has `ROWS` rows, and the panel two vectors.
#[inline(always)]
unsafe fn float_tile<const ROWS: usize>(
    s: Avx2,
    p: Raw,
    t: usize,
    mut b: *const u32,
    column: usize,
    mut prefetch: *const u32,
) {
    const HALF: usize = PANEL / 2;
    let (c, mut sums) = (p.c[t].wrapping_add(column), [[s.splat(0.0); 2]; ROWS]);
    if p.more {
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: a tile has room for its rows' sums, `NR` apart.
            *sums = unsafe { [s.load_ptr(c.add(r * NR)), s.load_ptr(c.add(r * NR + HALF))] };
        }
    }
    let mut a = p.a[t].cast::<f32>();
    macro_rules! word {
        ($g:expr) => {
            // SAFETY: a panel has 16 words for each word of k, and each row has `groups` words.
            unsafe {
                let b = b.add($g * PANEL).cast();
                let columns = [s.load_ptr(b), s.load_ptr(b.add(HALF))];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = s.splat(*a.add(r * p.stride + $g));
                    *sums = [s.fma(x, columns[0], sums[0]), s.fma(x, columns[1], sums[1])];
                }
            }
        };
    }
    for _ in 0..p.groups / UNROLL {
        s.prefetch(prefetch);
        for g in 0..UNROLL {
            word!(g);
        }
        (a, b) = (a.wrapping_add(UNROLL), b.wrapping_add(UNROLL * PANEL));
        prefetch = prefetch.wrapping_add(LINE);
    }
    for g in 0..p.groups % UNROLL {
        word!(g);
    }
    for (r, sums) in sums.iter().enumerate() {
        // SAFETY: as where they were loaded.
        unsafe {
            s.store_ptr(c.add(r * NR), sums[0]);
            s.store_ptr(c.add(r * NR + HALF), sums[1]);
        }
    }
}

/// Both tiles, a panel at a time, in registers; a function of its own, so that its many register tiles exist once.
///
/// # Safety
/// As [`Simd::pair`].
#[target_feature(enable = "avx2,fma")]
unsafe fn by_vectors<D: Dot<Avx2>>(s: Avx2, p: Raw) {
    const HALF: usize = PANEL / 2;
    for t in 0..2 {
        for (panel, b) in p.b.into_iter().enumerate() {
            if p.rows[t] > 0 {
                // SAFETY: the caller's promise; a panel is two vectors wide.
                unsafe {
                    let (b, c) = ([b, b.add(HALF)], p.c[t].add(panel * PANEL));
                    vectors::<_, D>(
                        s,
                        p.a[t],
                        p.stride,
                        p.rows[t],
                        b,
                        p.groups,
                        [c, c.add(HALF)],
                        [p.prefetch, p.a[1]][t],
                    );
                }
            }
        }
    }
}

impl Dot<Avx2> for Bf16 {
    /// even k, odd k
    type B = [__m256; 2];
    type A = [__m256; 2];

    #[inline(always)]
    fn prepare(_: Avx2, b: __m256) -> [__m256; 2] {
        // SAFETY: see the impl of Simd.
        unsafe {
            let words = _mm256_castps_si256(b);
            let high = _mm256_and_si256(words, _mm256_set1_epi32(0xffff_0000u32 as i32));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(words)), _mm256_castsi256_ps(high)]
        }
    }

    #[inline(always)]
    fn spread(s: Avx2, a: u32) -> [__m256; 2] {
        [s.splat(f32::from_bits(a << 16)), s.splat(f32::from_bits(a & 0xffff_0000))]
    }

    #[inline(always)]
    fn dot(s: Avx2, sum: __m256, a: [__m256; 2], b: [__m256; 2]) -> __m256 {
        s.fma(a[1], b[1], s.fma(a[0], b[0], sum))
    }
}

impl Dot<Avx2> for Int8 {
    /// even bytes, odd bytes, as 16-bit: their products with bytes above 127 would saturate in 8-bit
    type B = [__m256; 2];
    type A = [__m256; 2];

    #[inline(always)]
    fn prepare(_: Avx2, b: __m256) -> [__m256; 2] {
        // SAFETY: see the impl of Simd.
        unsafe {
            let words = _mm256_castps_si256(b);
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(words));
            [_mm256_castsi256_ps(even), _mm256_castsi256_ps(_mm256_srai_epi16::<8>(words))]
        }
    }

    #[inline(always)]
    fn spread(s: Avx2, a: u32) -> [__m256; 2] {
        [s.splat(f32::from_bits(a & 0x00ff_00ff)), s.splat(f32::from_bits(a >> 8 & 0x00ff_00ff))]
    }

    #[inline(always)]
    fn dot(_: Avx2, sum: __m256, a: [__m256; 2], b: [__m256; 2]) -> __m256 {
        // SAFETY: see the impl of Simd.
        unsafe {
            let even = _mm256_madd_epi16(_mm256_castps_si256(a[0]), _mm256_castps_si256(b[0]));
            let odd = _mm256_madd_epi16(_mm256_castps_si256(a[1]), _mm256_castps_si256(b[1]));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum), _mm256_add_epi32(even, odd)))
        }
    }
}

/// `2^n` for integral `n` in -126..=127.
#[inline(always)]
fn power2(_proof: Avx2, n: __m256) -> __m256 {
    // SAFETY: `_proof` says that AVX2 is there.
    unsafe {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
    }
}

/// Rounded to bf16, in the upper halves of the words; the lower ones are zero.
#[inline(always)]
fn upper_bf16(_proof: Avx2, v: __m256) -> __m256i {
    // SAFETY: `_proof` says that AVX2 is there.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        let rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0_0000), nan);
        _mm256_and_si256(rounded, _mm256_set1_epi32(0xffff_0000u32 as i32))
    }
}

/// The mask of the first `n` lanes.
#[inline(always)]
fn first(_proof: Avx2, n: usize) -> __m256i {
    // SAFETY: `_proof` says that AVX2 is there.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}
