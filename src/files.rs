//! Files as the harness names them: [`ergometer_files`] with its errors in words, and the folder for what can be made or obtained again.
//!
//! In: bytes and a path; the environment. Out: a file that is complete if it is there. Must not: know what the files mean.

use std::fs::DirBuilder;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{anyhow, bail};
use ergometer_files::cache::CacheFolders;
use ergometer_files::{Links, Refusal};
use sha2::{Digest, Sha256};

use crate::{console, interrupt};

/// Writes a file beside its place, flushes it to the disk and renames it there, making its folder where missing.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let _gate = interrupt::gate();
    console::detail(|| format!("write {} ({} bytes)", path.display(), bytes.len()));
    ergometer_files::replace(path, bytes).map_err(|e| {
        let hint = match Refusal::of(&e) {
            Some(_) => "name a new file, or one that may be replaced",
            None => "is there space, and may you write there?",
        };
        anyhow::Error::new(e).context(format!("failed to write `{}`\nhint: {hint}", path.display()))
    })
}

/// The bytes of a regular file in a cache of ours, where no link is followed; none if it cannot be had.
pub fn read_cached(path: &Path, limit: u64) -> Option<Vec<u8>> {
    ergometer_files::read(path, limit, Links::Refused).ok()
}

/// Bytes in hex, as check sums are written.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
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
    const HINT: &str = "set ERGOMETER_CACHE to a folder of your own that can be written";
    let (usual, other) = match CacheFolders::from_env() {
        CacheFolders::Named(named) => {
            let tried = try_cache(&named);
            return tried
                .map_err(|why| anyhow!("the cache folder {} (ERGOMETER_CACHE) {why}\nhint: {HINT}", named.display()));
        }
        CacheFolders::Usual { home, temporary } => (home, temporary),
    };
    let why = match usual.as_ref().map(|folder| (folder, try_cache(folder))) {
        Some((_, Ok(folder))) => return Ok(folder),
        Some((folder, Err(why))) => format!("the cache folder {} {why}", folder.display()),
        None => "the system names no cache folder".into(),
    };
    match try_cache(&other) {
        Ok(folder) => {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                console::info(format!("note: {why}; {} is used (ERGOMETER_CACHE names another)", folder.display()));
            });
            Ok(folder)
        }
        Err(also) => bail!("{why}, and {} {also}\nhint: {HINT}", other.display()),
    }
}

/// Folders in the cache that every run writes to.
const PARTS: [&str; 1] = ["reference"];

/// The folder, made where it is missing, if it is this user's (or the system's) and can be written, and so are those in it that are there:
/// one that a run as root has left, say, would be met only when every case is.
fn try_cache(folder: &Path) -> Result<PathBuf, String> {
    let fail = |e: io::Error| format!("cannot be used: {e}");
    let folder = std::path::absolute(folder).map_err(fail)?;
    try_folder(&folder)?;
    for part in PARTS.iter().filter(|part| folder.join(part).symlink_metadata().is_ok()) {
        try_folder(&folder.join(part)).map_err(|why| format!("holds `{part}`, which {why}"))?;
    }
    Ok(folder)
}

/// One folder, tried.
fn try_folder(folder: &Path) -> Result<(), String> {
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
    probe.close().map_err(fail)
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
        // a part of it that is of no use, such as what a run of another user has left
        let part = new.join("reference");
        std::fs::write(&part, "").unwrap();
        let why = try_cache(&new).unwrap_err();
        assert!(why.contains("`reference`") && why.contains("cannot be written"), "{why}");
        std::fs::remove_file(&part).unwrap();
        std::fs::create_dir(&part).unwrap();
        assert_eq!(try_cache(&new), Ok(new.clone()));
        let here = std::env::current_dir().unwrap();
        assert_eq!(try_cache(Path::new("target/ergometer-test-cache")), Ok(here.join("target/ergometer-test-cache")));
        std::fs::remove_dir(here.join("target/ergometer-test-cache")).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&new, Some(65534), None).unwrap();
            assert!(try_cache(&new).unwrap_err().contains("another user"));
        }
    }
}
