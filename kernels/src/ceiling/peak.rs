//! Peak rates of arithmetic: loops of one multiply-add instruction on independent accumulators, more of them than its
//! latency needs.
//!
//! In: what the CPU has. Out: a loop for each kind of instruction, or why there is none. Must not: run an instruction
//! without detection, read memory in a loop, or let the compiler choose the instructions that a name promises.
//!
//! Operands are ones, never denormals or NaN. FLOPs and OPs count two for each multiply-add.

use std::hint::black_box;

use super::amx;
use super::timed_loop::Loop;
use crate::sys::amx::tiles;

/// One kind of arithmetic.
pub(super) struct Peak {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    /// The loop, or why it cannot run here.
    pub(super) work: Result<Loop, String>,
}

/// Every kind, present or not, always in this order.
pub(super) fn peaks() -> Vec<Peak> {
    let peak = |name, what, unit, work| Peak { name, what, unit, work };
    let tiles = tiles();
    vec![
        peak("f32.portable", "f32 multiply-adds as this build compiles them", "FLOP/s", Ok(portable_loop())),
        peak("f32.avx2", "f32 multiply-adds, 8 lanes (vfmadd231ps)", "FLOP/s", vector(Vector::FmaAvx2)),
        peak("f32.avx512", "f32 multiply-adds, 16 lanes (vfmadd231ps)", "FLOP/s", vector(Vector::FmaAvx512)),
        peak("bf16.avx512", "bf16 products into f32, 32 lanes (vdpbf16ps)", "FLOP/s", vector(Vector::Bf16)),
        peak("bf16.amx", "bf16 tiles into f32, 16x16x32 (tdpbf16ps)", "FLOP/s", tiles.clone().and_then(amx::bf16)),
        peak("int8.avx512", "int8 products into int32, 64 lanes (vpdpbusd)", "OP/s", vector(Vector::Int8)),
        peak("int8.amx", "int8 tiles into int32, 16x16x64 (tdpbusd)", "OP/s", tiles.and_then(amx::int8)),
    ]
}

/// f32 values in flight in the portable loop: as many registers as the architecture has, less the operands.
const IN_FLIGHT: usize = if cfg!(target_arch = "aarch64") { 96 } else { 48 };

fn portable_loop() -> Loop {
    // SAFETY: plain code runs everywhere.
    unsafe { Loop::new(portable, 5_000, 2 * IN_FLIGHT as u64) }
}

/// Multiply-adds as the compiler makes them, fused where the build's target has the instruction.
///
/// # Safety
/// None is needed: it has the type of the other loops.
unsafe fn portable(rounds: u64) {
    let mut x = black_box([1.0f32; IN_FLIGHT]);
    let (a, b) = (black_box(0.5f32), black_box(0.5f32));
    for _ in 0..rounds {
        for x in &mut x {
            *x = if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, *x) } else { *x * a + b };
        }
    }
    black_box(x);
}

/// The vector instructions.
#[derive(Clone, Copy)]
enum Vector {
    FmaAvx2,
    FmaAvx512,
    Bf16,
    Int8,
}

#[cfg(not(target_arch = "x86_64"))]
fn vector(_: Vector) -> Result<Loop, String> {
    Err(format!("an instruction of x86-64; this is {}", std::env::consts::ARCH))
}

#[cfg(target_arch = "x86_64")]
fn vector(kind: Vector) -> Result<Loop, String> {
    let (avx512, needs) = (is_x86_feature_detected!("avx512f"), |what: &str| Err(format!("this CPU lacks {what}")));
    let (run, lanes): (unsafe fn(u64), u64) = match kind {
        Vector::FmaAvx2 if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) => {
            return needs("AVX2 with FMA");
        }
        Vector::FmaAvx512 if !avx512 => return needs("AVX-512"),
        Vector::Bf16 if !(avx512 && is_x86_feature_detected!("avx512bf16")) => return needs("AVX512-BF16"),
        Vector::Int8 if !(avx512 && is_x86_feature_detected!("avx512vnni")) => return needs("AVX512-VNNI"),
        Vector::FmaAvx2 => (x86::fma_avx2, 8),
        Vector::FmaAvx512 => (x86::fma_avx512, 16),
        Vector::Bf16 => (x86::bf16_avx512, 32),
        Vector::Int8 => (x86::int8_avx512, 64),
    };
    // SAFETY: the arms above return where the instructions of the loop are missing.
    Ok(unsafe { Loop::new(run, 5_000, x86::ACCUMULATORS * lanes * 2) })
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    /// Independent accumulators of a loop: two a cycle with a latency of six.
    pub(super) const ACCUMULATORS: u64 = 12;

    /// `fn name(rounds)`: an instruction `op accumulator, x, x` on twelve accumulators of registers `reg`; every 32
    /// bits of x are `$bits`.
    macro_rules! twelve {
        ($name:ident, $op:literal, $reg:literal, $bits:literal) => {
            /// # Safety
            /// The CPU and its system have the instruction and AVX2 (AVX-512 F for zmm); `rounds` is above 0.
            pub(super) unsafe fn $name(rounds: u64) {
                // SAFETY: only registers change, all of them named; vzeroupper leaves no state that slows the SSE code
                // around it.
                unsafe {
                    asm!(
                        "vmovd xmm14, {x:e}",
                        concat!("vpbroadcastd ", $reg, "15, xmm14"),
                        "vpxor xmm0, xmm0, xmm0",
                        "vpxor xmm1, xmm1, xmm1",
                        "vpxor xmm2, xmm2, xmm2",
                        "vpxor xmm3, xmm3, xmm3",
                        "vpxor xmm4, xmm4, xmm4",
                        "vpxor xmm5, xmm5, xmm5",
                        "vpxor xmm6, xmm6, xmm6",
                        "vpxor xmm7, xmm7, xmm7",
                        "vpxor xmm8, xmm8, xmm8",
                        "vpxor xmm9, xmm9, xmm9",
                        "vpxor xmm10, xmm10, xmm10",
                        "vpxor xmm11, xmm11, xmm11",
                        "2:",
                        concat!($op, " ", $reg, "0, ", $reg, "15, ", $reg, "15"),
                        concat!($op, " ", $reg, "1, ", $reg, "15, ", $reg, "15"),
                        concat!($op, " ", $reg, "2, ", $reg, "15, ", $reg, "15"),
                        concat!($op, " ", $reg, "3, ", $reg, "15, ", $reg, "15"),
                        concat!($op, " ", $reg, "4, ", $reg, "15, ", $reg, "15"),
                        concat!($op, " ", $reg, "5, ", $reg, "15, ", $reg, "15"),
                        concat!($op, " ", $reg, "6, ", $reg, "15, ", $reg, "15"),
                        concat!($op, " ", $reg, "7, ", $reg, "15, ", $reg, "15"),
                        concat!($op, " ", $reg, "8, ", $reg, "15, ", $reg, "15"),
                        concat!($op, " ", $reg, "9, ", $reg, "15, ", $reg, "15"),
                        concat!($op, " ", $reg, "10, ", $reg, "15, ", $reg, "15"),
                        concat!($op, " ", $reg, "11, ", $reg, "15, ", $reg, "15"),
                        "dec {rounds}",
                        "jnz 2b",
                        "vzeroupper",
                        x = in(reg) $bits as u32,
                        rounds = inout(reg) rounds => _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                        out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                        options(nostack, nomem),
                    );
                }
            }
        };
    }

    twelve!(fma_avx2, "vfmadd231ps", "ymm", 0x3f80_0000);
    twelve!(fma_avx512, "vfmadd231ps", "zmm", 0x3f80_0000);
    twelve!(bf16_avx512, "vdpbf16ps", "zmm", 0x3f80_3f80);
    twelve!(int8_avx512, "vpdpbusd", "zmm", 0x0101_0101);
}
