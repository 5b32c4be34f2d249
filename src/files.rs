//! Whole files or none (see [`ergometer_reports::run_folder::write_atomic`], which this names for the harness), and the folder for what can
//! be made or obtained again.
//!
//! In: bytes and a path; the environment. Out: a file that is complete if it is there. Must not: know what the files mean.

use std::path::{Path, PathBuf};

/// Writes a file beside its place, flushes it to the disk and renames it there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(ergometer_reports::run_folder::write_atomic(path, bytes)?)
}

/// The user's folder for what can be had again: `ERGOMETER_CACHE`, else `ergometer` in the user's cache folder; none where the system
/// names no such folder.
pub fn user_cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("ERGOMETER_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("ergometer")))
        .or_else(|| set("HOME").map(|p| p.join(".cache/ergometer")))
}
