//! Files as the harness names them: [`ergometer_files`] with its errors in words, and the folder for what can be made or obtained again.
//!
//! In: bytes and a path; the environment. Out: a file that is complete if it is there. Must not: know what the files mean.

use std::path::{Path, PathBuf};

use anyhow::Context;
use ergometer_files::Links;

/// Writes a file beside its place, flushes it to the disk and renames it there, making its folder where missing.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    ergometer_files::replace(path, bytes).with_context(|| {
        format!("failed to write `{}`\nhint: is there space, and may you write there?", path.display())
    })
}

/// The bytes of a regular file in a cache of ours, where no link is followed; none if it cannot be had.
pub fn read_cached(path: &Path, limit: u64) -> Option<Vec<u8>> {
    ergometer_files::read(path, limit, Links::Refused).ok()
}

/// The user's folder for what can be had again: `ERGOMETER_CACHE`, else `ergometer` in the user's cache folder; none where the system
/// names no such folder.
pub fn user_cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("ERGOMETER_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("ergometer")))
        .or_else(|| set("HOME").map(|p| p.join(".cache/ergometer")))
}
