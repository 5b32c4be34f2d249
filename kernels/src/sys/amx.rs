//! Whether the tiles of AMX may be used: by the CPU, by the operating system and by this process.
//!
//! In: CPUID, XCR0, the system's permission. Out: [`Tiles`], or why there are none. Must not: execute an instruction of
//! AMX.
//!
//! With the feature `emulated-amx`, made for tests, the emulator of `ci/amx/` may stand in for the three.

use std::sync::OnceLock;

pub(crate) use here::tiles;

/// Tiles that may be used, and for what.
#[derive(Clone, Debug)]
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(dead_code))]
pub(crate) struct Tiles {
    pub(crate) bf16: bool,
    pub(crate) int8: bool,
    /// By software: results are right, and times say nothing about AMX.
    pub(crate) emulated: bool,
}

/// AMX with bf16 and int8 is in the CPU, its state is saved by the operating system, and this process may use it.
pub(crate) fn present() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    *PRESENT.get_or_init(|| tiles().is_ok_and(|tiles| tiles.bf16 && tiles.int8))
}

/// AMX is emulated in this process, as only tests have it: its times say nothing.
pub fn amx_is_emulated() -> bool {
    tiles().is_ok_and(|tiles| tiles.emulated)
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod here {
    use super::Tiles;

    pub(crate) fn tiles() -> Result<Tiles, String> {
        Err("AMX is used on x86-64 under Linux alone".into())
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod here {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    use super::Tiles;

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

    /// The emulator's word that it handles every AMX instruction of this process. A symbol rather than a variable of
    /// the environment, which a child process inherits even if the library is not loaded into it.
    #[cfg(feature = "emulated-amx")]
    fn emulator_is_loaded() -> bool {
        use std::ffi::{c_char, c_int, c_void};
        unsafe extern "C" {
            fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
        }
        // SAFETY: the C library's dlsym, which a null handle (RTLD_DEFAULT) has look through all that is loaded; the
        // name ends with a zero.
        let said = unsafe { dlsym(std::ptr::null_mut(), c"ergometer_amx_emulated".as_ptr()) }.cast::<c_int>();
        // SAFETY: nobody else has a symbol of this name; ci/amx/emulator.c declares it an int, written before `main`,
        // and is never unloaded.
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
}
