//! What is left to see of a worker that has ended: whether the kernel did it for want of memory, and its last words.
//!
//! In: the system's count of such ends, a log. Out: text for an error. Must not: read a whole log.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::foreign;

/// Processes that the kernel has killed for want of memory since boot.
pub fn oom_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|l| l.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok())
}

/// The end of a log, for an error message.
pub fn tail_of(log: &File) -> String {
    let read = || -> std::io::Result<String> {
        let from = log.metadata()?.len().saturating_sub(foreign::MAX_WORDS as u64);
        let mut bytes = [0; foreign::MAX_WORDS];
        let n = log.read_at(&mut bytes, from)?;
        Ok(foreign::gist(&String::from_utf8_lossy(&bytes[..n]), 600))
    };
    read().unwrap_or_default()
}
