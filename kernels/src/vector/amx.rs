//! The tile products of AMX, for bf16 and int8. In: pointers checked by [`Tiles`](super::tile::Tiles). Out: sums of two tiles of rows by two panels.
//!
//! Inline assembly, since the intrinsics are not stable. Tile registers: 0 to 3 sums, 4 and 5 rows of A, 6 and 7 panels of B; a panel's 16 words of
//! k are one tile. The configuration belongs to the thread: whoever multiplies configures first and releases after, and nothing between the two is asynchronous.
//! No asm block here is `nomem`, `readonly` or `pure`: a compiler that believed so could drop the stores of the configuration.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

use super::tile::{HIGH, PANEL, Raw};

/// Words of k in a tile.
pub(super) const GROUPS: usize = 16;

/// AMX with bf16 and int8 is in the CPU, saved by the operating system, and this process may use it (Linux wants to be asked).
pub(super) fn present() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    *PRESENT.get_or_init(|| {
        if __cpuid_count(0, 0).eax < 7 || __cpuid_count(1, 0).ecx & (1 << 27) == 0 {
            return false;
        }
        // amx-bf16, amx-tile, amx-int8
        let wanted = 1 << 22 | 1 << 24 | 1 << 25;
        // SAFETY: CPUID says that the operating system has switched XGETBV on.
        let saved = unsafe { saved_states() };
        __cpuid_count(7, 0).edx & wanted == wanted && saved & (3 << 17) == 3 << 17 && permitted()
    })
}

/// The states that the operating system saves.
///
/// # Safety
/// OSXSAVE is on.
#[target_feature(enable = "xsave")]
unsafe fn saved_states() -> u64 {
    // SAFETY: the caller's promise.
    unsafe { _xgetbv(0) }
}

/// Asks Linux for the use of tile data, for this process and whatever threads it starts.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let outcome: i64;
    // SAFETY: a system call that touches none of our memory; the kernel clobbers rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => outcome, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _, out("r11") _, options(nostack));
    }
    outcome == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// What LDTILECFG reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Configures this thread's tiles for A of `rows` rows, 1 to 16.
///
/// # Safety
/// [`present`].
#[inline(always)]
pub(super) unsafe fn configure(rows: usize) {
    assert!((1..=HIGH).contains(&rows), "a tile of {rows} rows");
    let mut c = Configuration { palette: 1, start: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    c.row_bytes[..8].fill(64);
    c.rows[..6].fill(rows as u8);
    c.rows[6..8].fill(GROUPS as u8);
    // SAFETY: AMX is there, and the operand is 64 valid bytes.
    unsafe { asm!("ldtilecfg [{0}]", in(reg) &c, options(nostack, preserves_flags)) }
}

/// Gives the tiles back, so that the operating system need not save them nor the core stay awake for them.
///
/// # Safety
/// [`present`].
#[inline(always)]
pub(super) unsafe fn release() {
    // SAFETY: AMX is there.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags)) }
}

/// Sums of one or two tiles by two panels, bf16 or int8 (A unsigned).
///
/// # Safety
/// [`present`], [`configure`]d on this thread, and as [`Simd::pair`](super::Simd::pair) with at least one word of k.
#[inline(always)]
pub(super) unsafe fn pair<const INT8: bool>(p: Raw) {
    // SAFETY: the caller's promise.
    unsafe {
        match (p.rows[1] > 0, INT8) {
            (true, false) => two_bf16(p),
            (false, false) => one_bf16(p),
            (true, true) => two_int8(p),
            (false, true) => one_int8(p),
        }
    }
}

/// Bytes of a panel's tile.
const TILE: usize = GROUPS * PANEL * 4;

macro_rules! products {
    ($two:ident, $one:ident, $multiply:literal) => {
        /// Four products for two loads of A and two of B.
        ///
        /// # Safety
        /// As [`pair`].
        #[inline(never)]
        unsafe fn $two(p: Raw) {
            // SAFETY: the caller's promise: every tile that is loaded or stored lies within its operand.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm6, [{b0} + {line}]",
                    "tileloadd tmm4, [{a0} + {stride}]",
                    "tileloadd tmm7, [{b1} + {line}]",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm5, [{a1} + {stride}]",
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    concat!($multiply, " tmm2, tmm5, tmm6"),
                    concat!($multiply, " tmm3, tmm5, tmm7"),
                    "add {a0}, 64",
                    "add {a1}, 64",
                    "add {b0}, {tile}",
                    "add {b1}, {tile}",
                    "dec {n}",
                    "jnz 2b",
                    "tilestored [{c0} + {row}], tmm0",
                    "tilestored [{c0} + {row} + 64], tmm1",
                    "tilestored [{c1} + {row}], tmm2",
                    "tilestored [{c1} + {row} + 64], tmm3",
                    a0 = inout(reg) p.a[0] => _,
                    a1 = inout(reg) p.a[1] => _,
                    b0 = inout(reg) p.b[0] => _,
                    b1 = inout(reg) p.b[1] => _,
                    n = inout(reg) p.groups / GROUPS => _,
                    stride = in(reg) p.stride * 4,
                    line = in(reg) PANEL * 4,
                    row = in(reg) p.c_stride * 4,
                    c0 = in(reg) p.c[0],
                    c1 = in(reg) p.c[1],
                    tile = const TILE,
                    options(nostack),
                );
            }
        }

        /// Two products for one load of A and two of B.
        ///
        /// # Safety
        /// As [`pair`].
        #[inline(never)]
        unsafe fn $one(p: Raw) {
            // SAFETY: as above.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "2:",
                    "tileloadd tmm4, [{a0} + {stride}]",
                    "tileloadd tmm6, [{b0} + {line}]",
                    "tileloadd tmm7, [{b1} + {line}]",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    "add {a0}, 64",
                    "add {b0}, {tile}",
                    "add {b1}, {tile}",
                    "dec {n}",
                    "jnz 2b",
                    "tilestored [{c0} + {row}], tmm0",
                    "tilestored [{c0} + {row} + 64], tmm1",
                    a0 = inout(reg) p.a[0] => _,
                    b0 = inout(reg) p.b[0] => _,
                    b1 = inout(reg) p.b[1] => _,
                    n = inout(reg) p.groups / GROUPS => _,
                    stride = in(reg) p.stride * 4,
                    line = in(reg) PANEL * 4,
                    row = in(reg) p.c_stride * 4,
                    c0 = in(reg) p.c[0],
                    tile = const TILE,
                    options(nostack),
                );
            }
        }
    };
}

products!(two_bf16, one_bf16, "tdpbf16ps");
products!(two_int8, one_int8, "tdpbusd");
