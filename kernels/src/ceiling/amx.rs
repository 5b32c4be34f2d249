//! Tiles of AMX: whether CPU, system and this process may use them, and loops of one tile product.
//!
//! In: CPUID, XCR0, the system's permission. Out: loops for bf16 and int8, or why there are none. It must not touch a tile before all three
//! have said yes, or leave a tile configured.
//!
//! With the feature `emulated-amx`, made for tests, the emulator of `ci/amx/` may stand in for the three. What it runs is never timed here.

use super::timed_loop::Loop;

/// Tiles that may be used, and for what.
#[derive(Clone, Debug)]
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(dead_code))]
pub(crate) struct Tiles {
    pub(crate) bf16: bool,
    pub(crate) int8: bool,
    /// By software: right, and of no speed that says anything.
    emulated: bool,
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod here {
    use super::{Loop, Tiles};

    pub(crate) fn tiles() -> Result<Tiles, String> {
        Err("AMX is used on x86-64 under Linux alone".into())
    }

    impl Tiles {
        pub(in super::super) fn bf16(self) -> Result<Loop, String> {
            Err("AMX is used on x86-64 under Linux alone".into())
        }

        pub(in super::super) fn int8(self) -> Result<Loop, String> {
            Err("AMX is used on x86-64 under Linux alone".into())
        }
    }
}

pub(crate) use here::tiles;

/// AMX is emulated in this process, as only tests have it: its times say nothing.
pub fn amx_is_emulated() -> bool {
    tiles().is_ok_and(|tiles| tiles.emulated)
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod here {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    use super::{Loop, Tiles};

    /// Four tile products a round, each on an accumulator of its own.
    const PRODUCTS: u64 = 4;
    /// Rounds of a piece of work: 4 products of 16 cycles each, thousand times.
    const ROUNDS: u64 = 1_000;
    /// `arch_prctl`, and its request for a part of the extended state: tile data.
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XTILEDATA: u64 = 18;

    /// Tiles of this CPU or, where a test put it there, of the emulator.
    pub(crate) fn tiles() -> Result<Tiles, String> {
        let found = detect();
        #[cfg(feature = "emulated-amx")]
        if found.is_err() && emulator_is_loaded() {
            return Ok(Tiles { bf16: true, int8: true, emulated: true });
        }
        found
    }

    /// The emulator's word that it handles every AMX instruction of this process. A symbol rather than a variable of the environment, which a child
    /// process inherits even if the library is not loaded into it.
    #[cfg(feature = "emulated-amx")]
    fn emulator_is_loaded() -> bool {
        use std::ffi::{c_char, c_int, c_void};
        unsafe extern "C" {
            fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
        }
        // SAFETY: the C library's dlsym, which a null handle (RTLD_DEFAULT) has look through all that is loaded; the name ends with a zero.
        let said = unsafe { dlsym(std::ptr::null_mut(), c"ergometer_amx_emulated".as_ptr()) }.cast::<c_int>();
        // SAFETY: nobody else has a symbol of this name; ci/amx/emulator.c declares it an int, written before `main`, and is never unloaded.
        !said.is_null() && unsafe { said.read_volatile() } == 1
    }

    /// Asks CPU, operating system and, by its permission, this process.
    fn detect() -> Result<Tiles, String> {
        let lacks = || "this CPU lacks AMX".to_string();
        if __cpuid(0).eax < 0x1d {
            return Err(lacks());
        }
        let edx = __cpuid_count(7, 0).edx;
        let (bf16, tile, int8) = (edx & 1 << 22 != 0, edx & 1 << 24 != 0, edx & 1 << 25 != 0);
        if !tile {
            return Err(lacks());
        }
        // palette 1 as all AMX of today has it: 8 tiles of 16 rows of 64 bytes
        let palette = __cpuid_count(0x1d, 1);
        if (palette.ebx >> 16, palette.ebx & 0xffff, palette.ecx & 0xffff) != (8, 64, 16) {
            return Err("this CPU's AMX has no tiles of 16 rows of 64 bytes".into());
        }
        if !state_is_saved() {
            return Err("the operating system does not save AMX state (XCR0)".into());
        }
        match request() {
            0 => Ok(Tiles { bf16, int8, emulated: false }),
            errno => Err(format!("the system refuses AMX tiles to this process (arch_prctl: error {})", -errno)),
        }
    }

    impl Tiles {
        /// These tiles, if they may be timed.
        fn real(self) -> Result<Tiles, String> {
            if self.emulated { Err("AMX is emulated here".into()) } else { Ok(self) }
        }

        /// The loop of `tdpbf16ps`.
        pub(in super::super) fn bf16(self) -> Result<Loop, String> {
            // SAFETY: `tiles` found AMX usable, and AMX-BF16 is there. Per round 4 products of 16 x 16 x 32 multiply-adds.
            let work = || unsafe { Loop::new(bf16_amx, ROUNDS, PRODUCTS * 16 * 16 * 32 * 2) };
            self.real()?.bf16.then(work).ok_or_else(|| "this CPU's AMX lacks bf16".into())
        }

        /// The loop of `tdpbusd`.
        pub(in super::super) fn int8(self) -> Result<Loop, String> {
            // SAFETY: `tiles` found AMX usable, and AMX-INT8 is there. Per round 4 products of 16 x 16 x 64 multiply-adds.
            let work = || unsafe { Loop::new(int8_amx, ROUNDS, PRODUCTS * 16 * 16 * 64 * 2) };
            self.real()?.int8.then(work).ok_or_else(|| "this CPU's AMX lacks int8".into())
        }
    }

    /// XCR0 has the bits for tile configuration and tile data.
    fn state_is_saved() -> bool {
        let osxsave = __cpuid(1).ecx & 1 << 27 != 0;
        // SAFETY: XGETBV exists, and register 0 with it, where the system has set OSXSAVE.
        osxsave && unsafe { _xgetbv(0) } >> 17 & 3 == 3
    }

    /// Asks the kernel to let this process use tile data; 0 or a negative error number. Asking twice is no harm.
    fn request() -> i64 {
        let result: i64;
        // SAFETY: a system call that takes two numbers and no pointer; the kernel clobbers rcx and r11 alone.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XTILEDATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result
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
            /// CPU, system and permission are as [`tiles`] asks, and the CPU has the instruction; `rounds` is above 0.
            unsafe fn $name(rounds: u64) {
                let config = CONFIG;
                let ones = [$ones as u32; 256];
                // SAFETY: configuration and values are read through their pointers (no `nomem`, so both are in memory by then) and hold
                // 64 and 1024 bytes; tiles and the two registers are all that changes, and tilerelease gives the tiles back.
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
            for work in [tiles.clone().bf16(), tiles.int8()] {
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
