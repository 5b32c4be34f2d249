//! How fast memory is read, by the level that holds it: vector loads over a buffer that fits into half of a cache, or
//! into none.
//!
//! In: sizes of the caches, numbers of threads, the memory that may be taken. Out: bytes per second of all threads
//! together. Must not: read memory that was never written (the system may map one page of zeros for all of it), or let
//! the compiler leave a load out.
//!
//! With a cache per core each thread reads a buffer of its own; a cache that threads share is divided among them.

use super::Sheet;
use super::caches::{Cache, caches};
use super::parallel::{Work, rates};
use crate::sys::pages;

/// Bytes that one round of a loop reads; buffers are whole multiples.
const BLOCK: usize = 1024;
/// Bytes of a piece of work.
const PIECE: usize = 256 << 10;
/// Least size of the buffer that stands for memory.
const LEAST_DRAM: usize = 256 << 20;
/// A page: buffers begin on one.
const PAGE: usize = 4096;

/// Measures every level of cache and the memory beyond.
pub(super) fn levels(all: &mut Sheet, counts: &[usize], most_bytes: usize) {
    let levels = caches();
    if levels.is_empty() {
        all.lacks("read.l1", "the system lists no caches (/sys/devices/system/cpu/cpu0/cache)");
    }
    for (i, cache) in levels.iter().enumerate() {
        let name = format!("read.l{}", cache.level);
        let what = format!("reading half of a level {} cache ({})", cache.level, size(cache.bytes));
        let inner = i.checked_sub(1).map_or(0, |i| levels[i].bytes);
        for &n in counts {
            let each = if cache.sharers > 1 { cache.bytes * cache.count.min(n) / 2 / n } else { cache.bytes / 2 };
            // threads that share a cache may each have so little of it that the level before holds their part
            let each = if n > 1 { each.max(2 * inner) } else { each };
            let room = cache.bytes.saturating_mul(cache.count.min(n).max(1));
            if each <= inner || (cache.sharers > 1 && each.saturating_mul(n) > room) {
                let message =
                    format!("{n} threads: each one's share of {} would fit into the level before", size(room));
                all.lacks(&name, message);
                continue;
            }
            measure(all, (&name, &what), n, each, most_bytes);
        }
    }
    for &n in counts {
        let of_caches = levels.last().map_or(0, |last: &Cache| last.bytes.saturating_mul(last.count.min(n)));
        let bytes = of_caches.saturating_mul(4).max(LEAST_DRAM);
        let what = format!("reading {}, more than the caches hold", size(bytes));
        measure(all, ("read.dram", &what), n, bytes / n, most_bytes);
    }
}

pub(super) fn measure(all: &mut Sheet, (name, what): (&str, &str), threads: usize, each: usize, most_bytes: usize) {
    let each = (each / BLOCK).max(1) * BLOCK;
    if each.saturating_mul(threads) > most_bytes {
        let (needed, may) = (size(each.saturating_mul(threads)), size(most_bytes));
        all.lacks(name, format!("{threads} threads: it takes {needed} of memory, and {may} may be taken"));
        return;
    }
    match rates(threads, &|_| reader(each)) {
        Ok(seen) => {
            all.add((name, what, "B/s"), threads, seen, true);
            all.reads(name, threads, each * threads);
        }
        Err(reason) => all.lacks(name, format!("{threads} threads: {reason}")),
    }
}

/// `32 KiB` or `256 MiB`.
pub(super) fn size(bytes: usize) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

/// Work that reads a buffer of so many bytes (a multiple of [`BLOCK`]) round and round, about [`PIECE`] bytes at a
/// time.
fn reader<'a>(bytes: usize) -> Result<Work<'a>, String> {
    let mut buffer: Vec<u8> = Vec::new();
    buffer.try_reserve_exact(bytes + PAGE).map_err(|e| format!("no memory: {e}"))?;
    // as weights lie: small pages would lower the ceiling by a tenth
    pages::ask_for_large(&mut buffer);
    buffer.resize(bytes + PAGE, 1);
    let skip = buffer.as_ptr().align_offset(PAGE).min(PAGE);
    let read = loads();
    let (piece, passes) = if bytes < PIECE { (bytes, (PIECE / bytes) as u64) } else { (PIECE, 1) };
    let mut at = 0;
    Ok(Box::new(move || {
        let end = (at + piece).min(bytes);
        let part = &buffer[skip + at..skip + end];
        read(part, passes);
        at = if end == bytes { 0 } else { end };
        (part.len() as u64 * passes) as f64
    }))
}

/// The function that reads a slice of whole blocks a number of times, by the widest loads of this CPU.
fn loads() -> fn(&[u8], u64) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has AVX-512.
            return |part, passes| unsafe { x86::zmm(part, passes) };
        }
        if is_x86_feature_detected!("avx") {
            // SAFETY: the CPU has AVX.
            return |part, passes| unsafe { x86::ymm(part, passes) };
        }
    }
    portable
}

/// Sums the slice by eights of 64-bit words, which a compiler makes vectors of.
fn portable(part: &[u8], passes: u64) {
    let mut sums = [0u64; 8];
    for _ in 0..passes {
        for block in std::hint::black_box(part).chunks_exact(64) {
            for (sum, word) in sums.iter_mut().zip(block.chunks_exact(8)) {
                *sum = sum.wrapping_add(word.try_into().map_or(0, u64::from_ne_bytes));
            }
        }
    }
    std::hint::black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    use super::BLOCK;

    /// `fn name(part, passes)`: reads whole blocks by loads of 16 registers `reg` of `$bytes` bytes.
    macro_rules! loads {
        ($name:ident, $reg:literal, $bytes:literal, $unit:literal) => {
            /// # Safety
            /// The CPU and its system have the registers.
            pub(super) unsafe fn $name(part: &[u8], passes: u64) {
                const { assert!($unit == 16 * $bytes && BLOCK % $unit == 0) };
                let rounds = (part.len() / BLOCK * (BLOCK / $unit)) as u64;
                if rounds == 0 || passes == 0 {
                    return;
                }
                // SAFETY: the loop reads `rounds` times `$unit` bytes from the slice's beginning, which is no more than
                // it has, and changes registers alone.
                unsafe {
                    asm!(
                        "3:",
                        "mov {at}, {from}",
                        "mov {left}, {rounds}",
                        "2:",
                        concat!("vmovups ", $reg, "0, [{at}]"),
                        concat!("vmovups ", $reg, "1, [{at}+", $bytes, "]"),
                        concat!("vmovups ", $reg, "2, [{at}+2*", $bytes, "]"),
                        concat!("vmovups ", $reg, "3, [{at}+3*", $bytes, "]"),
                        concat!("vmovups ", $reg, "4, [{at}+4*", $bytes, "]"),
                        concat!("vmovups ", $reg, "5, [{at}+5*", $bytes, "]"),
                        concat!("vmovups ", $reg, "6, [{at}+6*", $bytes, "]"),
                        concat!("vmovups ", $reg, "7, [{at}+7*", $bytes, "]"),
                        concat!("vmovups ", $reg, "8, [{at}+8*", $bytes, "]"),
                        concat!("vmovups ", $reg, "9, [{at}+9*", $bytes, "]"),
                        concat!("vmovups ", $reg, "10, [{at}+10*", $bytes, "]"),
                        concat!("vmovups ", $reg, "11, [{at}+11*", $bytes, "]"),
                        concat!("vmovups ", $reg, "12, [{at}+12*", $bytes, "]"),
                        concat!("vmovups ", $reg, "13, [{at}+13*", $bytes, "]"),
                        concat!("vmovups ", $reg, "14, [{at}+14*", $bytes, "]"),
                        concat!("vmovups ", $reg, "15, [{at}+15*", $bytes, "]"),
                        concat!("add {at}, ", $unit),
                        "dec {left}",
                        "jnz 2b",
                        "dec {passes}",
                        "jnz 3b",
                        "vzeroupper",
                        from = in(reg) part.as_ptr(),
                        rounds = in(reg) rounds,
                        passes = inout(reg) passes => _,
                        at = out(reg) _,
                        left = out(reg) _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                        out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                        options(nostack, readonly),
                    );
                }
            }
        };
    }

    loads!(zmm, "zmm", 64, 1024);
    loads!(ymm, "ymm", 32, 512);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_counts_every_byte_once_a_pass() {
        for bytes in [BLOCK, 24 << 10, PIECE, PIECE + BLOCK, 3 * PIECE - BLOCK] {
            let mut work = reader(bytes).expect("memory");
            let per_pass = bytes.div_ceil(PIECE);
            let read: f64 = (0..per_pass).map(|_| work()).sum();
            let passes = if bytes < PIECE { PIECE / bytes } else { 1 };
            assert_eq!(read, (bytes * passes) as f64, "{bytes} bytes");
        }
    }

    #[test]
    fn all_loops_take_any_slice_of_blocks() {
        let buffer = vec![1u8; 4 * BLOCK + 7];
        for part in [&buffer[..0], &buffer[..BLOCK], &buffer[7..], &buffer[..BLOCK - 1]] {
            portable(part, 2);
            loads()(part, 2);
            loads()(part, 0);
        }
    }
}
