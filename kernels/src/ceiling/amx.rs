//! Loops of one tile product of AMX, for the ceilings.
//!
//! In: the [`Tiles`](crate::sys::amx::Tiles) that may be used. Out: a loop for bf16 and one for int8, or why there is
//! none. Must not: time emulated tiles, or leave a tile configured.

pub(super) use here::{bf16, int8};

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod here {
    use super::super::timed_loop::Loop;
    use crate::sys::amx::Tiles;

    pub(in super::super) fn bf16(_: Tiles) -> Result<Loop, String> {
        Err("AMX is used on x86-64 under Linux alone".into())
    }

    pub(in super::super) fn int8(_: Tiles) -> Result<Loop, String> {
        Err("AMX is used on x86-64 under Linux alone".into())
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod here {
    use std::arch::asm;

    use super::super::timed_loop::Loop;
    use crate::sys::amx::Tiles;

    /// Four tile products a round, each on an accumulator of its own.
    const PRODUCTS: u64 = 4;
    /// Rounds of a piece of work: a thousand times 4 products of 16 cycles each.
    const ROUNDS: u64 = 1_000;

    /// These tiles, if they may be timed.
    fn real(tiles: Tiles) -> Result<Tiles, String> {
        if tiles.emulated { Err("AMX is emulated here".into()) } else { Ok(tiles) }
    }

    /// The loop of `tdpbf16ps`.
    pub(in super::super) fn bf16(tiles: Tiles) -> Result<Loop, String> {
        // SAFETY: `tiles` are usable and real, and AMX-BF16 is there. Per round 4 products of 16 x 16 x 32
        // multiply-adds.
        let work = || unsafe { Loop::new(bf16_amx, ROUNDS, PRODUCTS * 16 * 16 * 32 * 2) };
        real(tiles)?.bf16.then(work).ok_or_else(|| "this CPU's AMX lacks bf16".into())
    }

    /// The loop of `tdpbusd`.
    pub(in super::super) fn int8(tiles: Tiles) -> Result<Loop, String> {
        // SAFETY: `tiles` are usable and real, and AMX-INT8 is there. Per round 4 products of 16 x 16 x 64
        // multiply-adds.
        let work = || unsafe { Loop::new(int8_amx, ROUNDS, PRODUCTS * 16 * 16 * 64 * 2) };
        real(tiles)?.int8.then(work).ok_or_else(|| "this CPU's AMX lacks int8".into())
    }

    /// The memory operand of `ldtilecfg`.
    #[repr(C, align(64))]
    struct Config([u8; 64]);

    /// Palette 1, eight tiles of 16 rows of 64 bytes.
    const CONFIG: Config = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            // columns in bytes: 16-bit numbers from byte 16 on; rows: from byte 48 on
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = 16;
            tile += 1;
        }
        Config(bytes)
    };

    /// `fn name(rounds)`: four products on four accumulators, of two tiles with two others, all full of `$ones`.
    macro_rules! products {
        ($name:ident, $op:literal, $ones:literal) => {
            /// # Safety
            /// CPU, system and permission are as [`crate::sys::amx::tiles`] asks, and the CPU has the instruction;
            /// `rounds` is above 0.
            unsafe fn $name(rounds: u64) {
                let config = CONFIG;
                let ones = [$ones as u32; 256];
                // SAFETY: configuration and values are read through their pointers (no `nomem`, so both are in memory
                // by then) and hold 64 and 1024 bytes; tiles and the two registers are all that changes, and
                // tilerelease gives the tiles back.
                unsafe {
                    asm!(
                        "ldtilecfg [{config}]",
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "tilezero tmm2",
                        "tilezero tmm3",
                        "tileloadd tmm4, [{ones}+{stride}]",
                        "tileloadd tmm5, [{ones}+{stride}]",
                        "tileloadd tmm6, [{ones}+{stride}]",
                        "tileloadd tmm7, [{ones}+{stride}]",
                        "2:",
                        concat!($op, " tmm0, tmm4, tmm6"),
                        concat!($op, " tmm1, tmm4, tmm7"),
                        concat!($op, " tmm2, tmm5, tmm6"),
                        concat!($op, " tmm3, tmm5, tmm7"),
                        "dec {rounds}",
                        "jnz 2b",
                        "tilerelease",
                        config = in(reg) config.0.as_ptr(),
                        ones = in(reg) ones.as_ptr(),
                        stride = in(reg) 64u64,
                        rounds = inout(reg) rounds => _,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack, readonly),
                    );
                }
            }
        };
    }

    products!(bf16_amx, "tdpbf16ps", 0x3f80_3f80);
    products!(int8_amx, "tdpbusd", 0x0101_0101);

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn emulated_tiles_have_no_peak() {
            let tiles = Tiles { bf16: true, int8: true, emulated: true };
            for work in [bf16(tiles.clone()), int8(tiles)] {
                assert!(work.is_err_and(|reason| reason.contains("emulated")));
            }
        }

        #[test]
        fn the_configuration_names_eight_full_tiles() {
            assert_eq!((CONFIG.0[0], CONFIG.0[1]), (1, 0), "palette 1, from the first row");
            let columns = CONFIG.0[16..48].chunks(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
            assert_eq!(columns.collect::<Vec<_>>(), [&[64; 8][..], &[0; 8]].concat());
            assert_eq!(CONFIG.0[48..56], [16; 8]);
            assert!(CONFIG.0[56..].iter().chain(&CONFIG.0[2..16]).all(|b| *b == 0));
            assert_eq!(std::mem::align_of::<Config>(), 64);
        }
    }
}
