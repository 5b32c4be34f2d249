//! Whole files or none: see [`ergometer_reports::run_folder::write_atomic`], which this names for the harness.
//!
//! In: bytes and a path. Out: a file that is complete if it is there. Must not: know what the files mean.

use std::path::Path;

/// Writes a file beside its place, flushes it to the disk and renames it there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(ergometer_reports::run_folder::write_atomic(path, bytes)?)
}
