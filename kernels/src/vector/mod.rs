//! Vectors of f32 behind one trait, so that an operator's vector body is written once for every width. In: a token that proves the instruction set.
//! Out: lane-wise arithmetic. Bodies are `#[inline(always)]` and take form only inside an entry made by [`dispatch!`], which turns the features on; a closure in a body need not
//! inherit them and then runs ten times slower, so bodies have none.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod math;
pub(crate) mod product;

/// Lane-wise f32 arithmetic of one instruction set. A value of the implementing type proves that the CPU has it, which is why the methods are safe.
pub(crate) trait Simd: Copy + Send + Sync {
    /// One vector register.
    type V: Copy;
    /// Values in a vector.
    const LANES: usize;
    /// Rows of the register tile of the matrix product.
    const TILE_ROWS: usize;

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
    /// `2^n` for integral `n` in -126..=127.
    fn exp2_integral(self, n: Self::V) -> Self::V;
    /// Sum of the lanes, in one fixed order.
    fn reduce_sum(self, a: Self::V) -> f32;
    /// Largest lane.
    fn reduce_max(self, a: Self::V) -> f32;

    /// The first `LANES` values of `x`; lanes beyond its end hold zero.
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::V {
        self.load_or(x, 0.0)
    }
}

/// Makes `fn name(proof, args...)` out of a scalar twin and a vector body `fn body<S: Simd>(simd: S, args...)`: one entry per
/// instruction set, compiled with its features, chosen by the proof.
macro_rules! dispatch {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) { $scalar:path | $body:path }) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        fn $name(proof: $crate::isa::Proof, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx2,fma")]
            fn avx2(simd: $crate::vector::avx2::Avx2, $($arg: $type),*) {
                $body(simd, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            fn avx512(simd: $crate::vector::avx512::Avx512, $($arg: $type),*) {
                $body(simd, $($arg),*)
            }
            match proof {
                $crate::isa::Proof::Scalar => $scalar($($arg),*),
                // SAFETY: a value of `Avx2` exists only where detection found AVX2 and FMA.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Proof::Avx2(simd) => unsafe { avx2(simd, $($arg),*) },
                // SAFETY: a value of `Avx512` exists only where detection found these four parts of AVX-512.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Proof::Avx512(simd) => unsafe { avx512(simd, $($arg),*) },
            }
        }
    };
}
pub(crate) use dispatch;
