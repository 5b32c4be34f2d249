//! The tile products of AMX, for bf16 and int8. In: pointers checked by [`product`](super::product::product). Out: sums
//! of two tiles of rows with two panels.
//!
//! Inline assembly, since the intrinsics are not stable. Tile registers: 0 to 3 sums, 4 and 5 rows of A, 6 and 7 panels
//! of B; 16 words of k of a panel are one tile. The configuration belongs to the thread: a product configures first and
//! releases after, and nothing between the two is asynchronous. No asm block here is `nomem`, `readonly` or `pure`,
//! since the compiler could then drop the stores of the configuration.

use std::arch::asm;

use super::tile::{LINE, MR, NR, Raw};

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
/// [`present`](crate::sys::amx::present).
#[inline(always)]
pub(super) unsafe fn configure(rows: usize) {
    assert!((1..=MR).contains(&rows), "a tile of {rows} rows");
    let mut c = Configuration { palette: 1, start: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    c.row_bytes[..8].fill(64);
    c.rows[..6].fill(rows as u8);
    c.rows[6..8].fill(LINE as u8);
    // SAFETY: AMX is there, and the operand is 64 valid bytes.
    unsafe { asm!("ldtilecfg [{0}]", in(reg) &c, options(nostack, preserves_flags)) }
}

/// Gives the tiles back, so that the operating system need not save them nor the core stay awake for them.
///
/// # Safety
/// [`present`](crate::sys::amx::present).
#[inline(always)]
pub(super) unsafe fn release() {
    // SAFETY: AMX is there.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags)) }
}

/// Sums of one or two tiles by two panels, bf16 or int8 (A unsigned).
///
/// # Safety
/// [`present`](crate::sys::amx::present), [`configure`]d on this thread, and as [`Simd::pair`](super::Simd::pair).
#[inline(always)]
pub(super) unsafe fn pair<const INT8: bool>(p: Raw) {
    // SAFETY: the caller's promise.
    unsafe {
        match (p.rows[1] > 0, p.more, INT8) {
            (true, false, false) => two_bf16(p),
            (true, true, false) => two_more_bf16(p),
            (false, false, false) => one_bf16(p),
            (false, true, false) => one_more_bf16(p),
            (true, false, true) => two_int8(p),
            (true, true, true) => two_more_int8(p),
            (false, false, true) => one_int8(p),
            (false, true, true) => one_more_int8(p),
        }
    }
}

/// Bytes of a line of words.
const BYTES: usize = LINE * 4;
/// Bytes between rows of sums, and from a tile's to the next's.
const ROW: usize = NR * 4;
const SECOND: usize = MR * ROW;

macro_rules! products {
    ($two:ident, $one:ident, $multiply:literal, [$($two_start:literal)*], [$($one_start:literal)*]) => {
        /// Four products for two loads of A and two of B.
        ///
        /// # Safety
        /// As [`pair`].
        #[inline(never)]
        unsafe fn $two(p: Raw) {
            // SAFETY: the caller's promise: every tile that is loaded or stored lies within its operand. Prefetched
            // memory need not exist.
            unsafe {
                asm!(
                    $($two_start,)*
                    "2:",
                    "tileloadd tmm6, [{b} + {line}]",
                    "tileloadd tmm4, [{a0} + {line}]",
                    "tileloadd tmm7, [{b} + {line} + 1024]",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    "prefetcht1 [{prefetch}]",
                    "prefetcht1 [{prefetch} + 64]",
                    "prefetcht1 [{prefetch} + 128]",
                    "prefetcht1 [{prefetch} + 192]",
                    "tileloadd tmm5, [{a1} + {line}]",
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    "prefetcht1 [{prefetch} + 256]",
                    "prefetcht1 [{prefetch} + 320]",
                    "prefetcht1 [{prefetch} + 384]",
                    "prefetcht1 [{prefetch} + 448]",
                    concat!($multiply, " tmm2, tmm5, tmm6"),
                    "prefetcht1 [{prefetch} + 512]",
                    "prefetcht1 [{prefetch} + 576]",
                    "prefetcht1 [{prefetch} + 640]",
                    "prefetcht1 [{prefetch} + 704]",
                    concat!($multiply, " tmm3, tmm5, tmm7"),
                    "prefetcht1 [{prefetch} + 768]",
                    "prefetcht1 [{prefetch} + 832]",
                    "prefetcht1 [{prefetch} + 896]",
                    "prefetcht1 [{prefetch} + 960]",
                    "add {a0}, {tile}",
                    "add {a1}, {tile}",
                    "add {b}, 2048",
                    "add {prefetch}, 1024",
                    "dec {n}",
                    "jnz 2b",
                    "tilestored [{c} + {row}], tmm0",
                    "tilestored [{c} + {row} + 64], tmm1",
                    "tilestored [{c} + {row} + {second}], tmm2",
                    "tilestored [{c} + {row} + {second} + 64], tmm3",
                    a0 = inout(reg) p.a[0] => _,
                    a1 = inout(reg) p.a[1] => _,
                    b = inout(reg) p.b[0] => _,
                    n = inout(reg) p.groups / LINE => _,
                    prefetch = inout(reg) p.prefetch => _,
                    tile = in(reg) p.mr * BYTES,
                    line = in(reg) BYTES,
                    row = in(reg) ROW,
                    c = in(reg) p.c[0],
                    second = const SECOND,
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
                    $($one_start,)*
                    "2:",
                    "tileloadd tmm4, [{a0} + {line}]",
                    "tileloadd tmm6, [{b} + {line}]",
                    "tileloadd tmm7, [{b} + {line} + 1024]",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    "add {a0}, {tile}",
                    "add {b}, 2048",
                    "dec {n}",
                    "jnz 2b",
                    "tilestored [{c} + {row}], tmm0",
                    "tilestored [{c} + {row} + 64], tmm1",
                    a0 = inout(reg) p.a[0] => _,
                    b = inout(reg) p.b[0] => _,
                    n = inout(reg) p.groups / LINE => _,
                    tile = in(reg) p.mr * BYTES,
                    line = in(reg) BYTES,
                    row = in(reg) ROW,
                    c = in(reg) p.c[0],
                    options(nostack),
                );
            }
        }
    };
    ($two:ident, $two_more:ident, $one:ident, $one_more:ident, $multiply:literal) => {
        products!(
            $two, $one, $multiply,
            ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"],
            ["tilezero tmm0" "tilezero tmm1"]
        );
        products!(
            $two_more, $one_more, $multiply,
            ["tileloadd tmm0, [{c} + {row}]" "tileloadd tmm1, [{c} + {row} + 64]"
             "tileloadd tmm2, [{c} + {row} + {second}]" "tileloadd tmm3, [{c} + {row} + {second} + 64]"],
            ["tileloadd tmm0, [{c} + {row}]" "tileloadd tmm1, [{c} + {row} + 64]"]
        );
    };
}

products!(two_bf16, two_more_bf16, one_bf16, one_more_bf16, "tdpbf16ps");
products!(two_int8, two_more_int8, one_int8, one_more_int8, "tdpbusd");
