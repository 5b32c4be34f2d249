//! Eight lanes of f32 by AVX2 and FMA. In: the token [`Avx2`], made only where the CPU has both. Out: the arithmetic of [`Simd`].

use std::arch::x86_64::*;

use super::Simd;

/// Proof that this CPU and its operating system have AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn new() -> Option<Avx2> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }
}

// SAFETY (every block below): `self` proves that the instruction exists; the two memory forms say more where they stand.
impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;

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
    fn exp2_integral(self, n: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
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

/// The mask of the first `n` lanes.
#[inline(always)]
fn first(_proof: Avx2, n: usize) -> __m256i {
    // SAFETY: `_proof` says that AVX2 is there.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}
