//! Resident memory of a process: now, and its peak since it was last reset.
//!
//! In: a process id. Out: bytes. Must not: see memory of a GPU or of children, or say which library holds what.
//!
//! The kernel counts whole pages, and lets every processor keep some of the count to itself (up to 32 pages, or twice the number of
//! processors where that is more). Recent kernels add these up when asked, so that what is resident now is exact; a peak that has passed
//! was noted from the short count and may be low by that many pages for each processor: [`slack`]. Measured on Linux 6.18 with 2 processors:
//! 0 to 236 KiB low, of 256 KiB.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead};

use super::{Meter, MeterOptions, ProbedMeter};
use crate::backends::Unavailable;

/// Resident memory of a process.
pub const METER: Meter = Meter {
    name: "memory",
    about: "resident memory of the worker and its peak, reset for each phase, from /proc",
    metrics: &["memory_base", "memory_load", "memory_warmup", "memory_peak", "memory_added"],
    estimate: false,
    probe,
};

/// Resident bytes of a process now.
///
/// # Errors
/// The process has ended, or `/proc` cannot be read.
pub fn resident(pid: u32) -> io::Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// Largest resident bytes of a process since it began or was last [reset](reset_peak).
///
/// # Errors
/// As [`resident`].
pub fn peak(pid: u32) -> io::Result<u64> {
    status_bytes(pid, "VmHWM:")
}

/// Resident bytes of a process now, and the largest since it began or was last [reset](reset_peak).
///
/// # Errors
/// As [`resident`].
pub fn now_and_peak(pid: u32) -> io::Result<(u64, u64)> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file)?;
    field_bytes(&text, "VmRSS:").zip(field_bytes(&text, "VmHWM:")).ok_or_else(|| missing(&file, "VmRSS: and VmHWM:"))
}

/// Bytes of memory that the machine could still give, or the control group of this process, whichever is less. `None`: it cannot be told.
pub fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let free = text.lines().find_map(|l| field_bytes(l, "MemAvailable:"))?;
    let limit = crate::environment::machine::observe().settings.get("limit.memory_bytes").and_then(|b| b.parse().ok());
    Some(limit.map_or(free, |limit: f64| free.min(limit as u64)))
}

/// Makes the peak start again from what is resident now.
///
/// # Errors
/// The process has ended or belongs to someone else, or this kernel cannot reset (then [`can_reset`] is false).
pub fn reset_peak(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Whether this kernel resets peaks; tried on this process.
pub fn can_reset() -> bool {
    reset_peak(std::process::id()).is_ok()
}

/// The most, in bytes, that a value can be off for the kernel's per-processor counts.
pub fn slack() -> u64 {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get()) as u64;
    page_size() * 32.max(2 * cpus) * cpus
}

/// Bytes of a page as this process' first mapping has them.
fn page_size() -> u64 {
    let lines = fs::File::open("/proc/self/smaps").map(|f| io::BufReader::new(f).lines());
    let found = lines.ok().and_then(|mut lines| lines.find_map(|l| field_bytes(&l.ok()?, "KernelPageSize:")));
    found.unwrap_or(4096)
}

fn status_bytes(pid: u32, field: &str) -> io::Result<u64> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file)?;
    field_bytes(&text, field).ok_or_else(|| missing(&file, field))
}

fn missing(file: &str, field: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{file}: no {field} in kB (has the process ended?)"))
}

/// `VmRSS:      1234 kB` in bytes.
pub fn field_bytes(status: &str, field: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn probe(_: &MeterOptions) -> Result<ProbedMeter, Unavailable> {
    let own = std::process::id();
    let failed = |e: io::Error| Unavailable {
        reason: e.to_string(),
        hint: Some("resident memory needs Linux with /proc mounted".into()),
    };
    let (now, high) = (resident(own).map_err(failed)?, peak(own).map_err(failed)?);
    if now == 0 || high + slack() < now {
        let reason = format!("/proc/{own}/status says {now} B are resident and the peak is {high} B");
        return Err(Unavailable { reason, hint: None });
    }
    if !can_reset() {
        return Err(Unavailable {
            reason:
                "peaks cannot be reset, so that phases cannot be told apart (writing 5 to /proc/self/clear_refs failed)"
                    .into(),
            hint: Some("the kernel needs CONFIG_PROC_PAGE_MONITOR".into()),
        });
    }
    let resolution = format!("{} KiB (kernel counts by processor)", slack() / 1024);
    Ok(ProbedMeter { resolution, source: None, facts: BTreeMap::new(), estimate: false })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::respawn::{self, Respawned};
    use super::*;

    #[test]
    fn touched_bytes_of_another_process_show_and_a_reset_forgets_them() {
        const MIB: u64 = 1 << 20;
        let test = "meters::memory::tests::touched_bytes_of_another_process_show_and_a_reset_forgets_them";
        if respawn::is_child(test) {
            respawn::send("up");
            let held = vec![1u8; 64 << 20];
            std::hint::black_box(&held);
            respawn::send("held");
            drop(held);
            respawn::send("dropped");
            return;
        }
        let mut child = Respawned::start(test);
        let id = child.id();
        child.receive();
        reset_peak(id).unwrap();
        let base = resident(id).unwrap();
        for (word, bytes) in [("held", 64 * MIB), ("dropped", 0)] {
            child.go();
            assert_eq!(child.receive(), word);
            let (now, high) = (resident(id).unwrap(), peak(id).unwrap());
            let near = |seen: u64, expected: u64| seen.abs_diff(base + expected) <= MIB + slack();
            assert!(near(now, bytes) && near(high, 64 * MIB), "{word}: {base} B before, {now} B now, peak {high} B");
        }
        reset_peak(id).unwrap();
        assert!(peak(id).unwrap() < base + 2 * MIB, "the peak is forgotten");
        child.end();
        assert!(resident(id).is_err(), "a process that has ended has no memory, not zero bytes");
        assert!(reset_peak(id).is_err());
    }

    #[test]
    fn units_are_kibibytes() {
        assert_eq!(field_bytes("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 12 kB\n", "VmHWM:"), Some(2 << 20));
        assert_eq!(field_bytes("VmHWM: 2048 MB", "VmHWM:"), None);
        assert_eq!(field_bytes("VmHWM: 18446744073709551615 kB", "VmHWM:"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = field_bytes(&text, "VmRSS:");
        }
    }
}
