//! Files as the harness names them: [`ergometer_files`] with its errors in words, and the folder for what can be made or obtained again.
//!
//! In: bytes and a path; the environment. Out: a file that is complete if it is there. Must not: know what the files mean.

use std::fs::DirBuilder;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context, anyhow, bail};
use ergometer_files::Links;
use sha2::{Digest, Sha256};

use crate::{console, interrupt, models::hex};

/// Writes a file beside its place, flushes it to the disk and renames it there, making its folder where missing.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let _gate = interrupt::gate();
    console::detail(|| format!("write {} ({} bytes)", path.display(), bytes.len()));
    ergometer_files::replace(path, bytes).with_context(|| {
        format!("failed to write `{}`\nhint: is there space, and may you write there?", path.display())
    })
}

/// The bytes of a regular file in a cache of ours, where no link is followed; none if it cannot be had.
pub fn read_cached(path: &Path, limit: u64) -> Option<Vec<u8>> {
    ergometer_files::read(path, limit, Links::Refused).ok()
}

/// sha256 of a regular file of at most `limit` bytes, in hex; it is read piece by piece.
///
/// # Errors
/// What the system said, or what it is instead.
pub fn sha256(path: &Path, limit: u64, links: Links) -> io::Result<String> {
    let mut file = ergometer_files::open(path, limit, links)?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(n) => hash.update(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The user's folder for what can be had again, tried: it can be written, and it is the user's own. `ERGOMETER_CACHE`, else `ergometer` in
/// the user's cache folder, else, where that is of no use, one in the folder for temporary files.
///
/// # Errors
/// `ERGOMETER_CACHE` names a folder that cannot be used, or no place can.
pub fn user_cache() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    const HINT: &str = "set ERGOMETER_CACHE to a folder of your own that can be written";
    if let Some(named) = set("ERGOMETER_CACHE") {
        let tried = try_cache(&named);
        return tried
            .map_err(|why| anyhow!("the cache folder {} (ERGOMETER_CACHE) {why}\nhint: {HINT}", named.display()));
    }
    let usual = set("XDG_CACHE_HOME")
        .filter(|p| p.is_absolute())
        .map(|p| p.join("ergometer"))
        .or_else(|| set("HOME").map(|p| p.join(".cache/ergometer")));
    let why = match usual.as_ref().map(|folder| (folder, try_cache(folder))) {
        Some((_, Ok(folder))) => return Ok(folder),
        Some((folder, Err(why))) => format!("the cache folder {} {why}", folder.display()),
        None => "the system names no cache folder".into(),
    };
    let user = rustix::process::geteuid().as_raw();
    let other = std::env::temp_dir().join(format!("ergometer-cache-{user}"));
    match try_cache(&other) {
        Ok(folder) => {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                console::say(format!("note: {why}; {} is used (ERGOMETER_CACHE names another)", folder.display()));
            });
            Ok(folder)
        }
        Err(also) => bail!("{why}, and {} {also}\nhint: {HINT}", other.display()),
    }
}

/// The folder, made where it is missing, if it is this user's (or the system's) and can be written.
fn try_cache(folder: &Path) -> Result<PathBuf, String> {
    let fail = |e: io::Error| format!("cannot be written: {e}");
    let new = !folder.exists();
    // nobody else is to put a library there
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
    let seen = folder.metadata().map_err(fail)?;
    let user = rustix::process::geteuid().as_raw();
    if seen.uid() != user && seen.uid() != 0 {
        return Err(format!("belongs to another user (number {}), so that what it holds is not trusted", seen.uid()));
    }
    // a folder for temporary files is everybody's
    let link = folder.symlink_metadata().map_err(fail)?;
    if !new && link.is_symlink() && link.uid() != user && link.uid() != 0 {
        return Err(format!("is a link of another user (number {})", link.uid()));
    }
    let probe = tempfile::Builder::new().prefix(".try-").tempfile_in(folder).map_err(fail)?;
    probe.close().map_err(fail)?;
    Ok(folder.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_tried_before_it_is_used() {
        let place = tempfile::tempdir().unwrap();
        let new = place.path().join("a/b");
        assert_eq!(try_cache(&new), Ok(new.clone()));
        assert_eq!(std::fs::read_dir(&new).unwrap().count(), 0, "nothing is left of the trial");
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(try_cache(&file).unwrap_err().contains("cannot be written"));
        assert!(try_cache(&file.join("below")).unwrap_err().contains("cannot be written"));
        assert!(try_cache(Path::new("/proc/ergometer")).unwrap_err().contains("cannot be written"));
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&new, Some(65534), None).unwrap();
            assert!(try_cache(&new).unwrap_err().contains("another user"));
        }
    }
}
