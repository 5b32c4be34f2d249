//! Tokens that prove a vector instruction set of x86-64 to be present.
//!
//! In: CPUID, which registers the operating system saves, the permission for AMX. Out: zero-sized values that detection
//! alone makes, over which `vector::Simd` is implemented. Must not: compute.

use crate::sys;

/// Proof that this CPU and its operating system have AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(super) fn new() -> Option<Avx2> {
        let all =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        all.then_some(Avx2(()))
    }
}

/// Level of [`Avx512`]: F, BW, VL and DQ.
pub(crate) const BASE: u8 = 0;
/// The same with BF16 and VNNI.
pub(crate) const DOT: u8 = 1;
/// The same with AMX for bf16 and int8.
pub(crate) const TILES: u8 = 2;

/// Proof that this CPU and its operating system have AVX-512 of this level.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const LEVEL: u8>(());

impl<const LEVEL: u8> Avx512<LEVEL> {
    pub(super) fn new() -> Option<Self> {
        let base = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        let dot = || is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni");
        (base && (LEVEL < DOT || dot()) && (LEVEL < TILES || sys::amx::present())).then_some(Avx512(()))
    }
}
