//! Ctrl-C and its kin: what is kept is told, children are ended, temporary folders are removed, exit code 130.
//!
//! In: SIGINT, SIGTERM, SIGHUP; what commands register. Out: a message and the end of the process. Must not: let a case be recorded as
//! failed because its worker was ended by the interruption.
//!
//! Whatever is to be whole (a finished case, a file renamed into place, the start of a worker) is done while a [`gate`] is held. The
//! interruption closes the gate for good before it ends anything, so that the main thread stands still at the next such place.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::console;

/// Exit code of an interrupted process, for SIGTERM and SIGHUP too.
pub const INTERRUPTED: i32 = 130;

static GATE: RwLock<()> = RwLock::new(());
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
static FOLDERS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
type Words = Box<dyn Fn() -> String + Send>;
static WORDS: Mutex<Option<Words>> = Mutex::new(None);

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// While this is held an interruption waits.
pub struct Gate(#[expect(dead_code, reason = "held for its end")] Option<RwLockReadGuard<'static, ()>>);

/// Enters what must be done whole. After an interruption this never comes back.
pub fn gate() -> Gate {
    let outermost = DEPTH.with(|d| d.replace(d.get() + 1)) == 0;
    Gate(outermost.then(|| GATE.read().unwrap_or_else(PoisonError::into_inner)))
}

impl Drop for Gate {
    fn drop(&mut self) {
        DEPTH.with(|d| d.set(d.get() - 1));
    }
}

/// What an interruption says from now on: what is kept, and the command that goes on.
pub fn words(words: impl Fn() -> String + Send + 'static) {
    *held(&WORDS) = Some(Box::new(words));
}

/// A process group that ends with this process by an interruption.
pub struct Group(i32);

/// Registers a process group.
pub fn group(id: i32) -> Group {
    held(&GROUPS).insert(id);
    Group(id)
}

impl Drop for Group {
    fn drop(&mut self) {
        held(&GROUPS).remove(&self.0);
    }
}

/// A temporary folder that goes away when it is dropped, and when the process is interrupted. What a killed process left is removed by
/// the next one ([`sweep`]).
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
    /// Locked as long as the folder is in use.
    _lock: File,
}

impl Scratch {
    /// A new one.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn new() -> anyhow::Result<Self> {
        let _gate = gate();
        let place = std::env::temp_dir();
        let folder = (tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir_in(&place))
            .and_then(|folder| Ok((File::create_new(folder.path().join(LOCK))?, folder)));
        let (lock, folder) = folder.with_context(|| {
            format!(
                "cannot create a temporary folder in {}\nhint: set TMPDIR to a folder that can be written",
                place.display()
            )
        })?;
        // where the file system has no locks the process number alone tells that it is in use
        let _ = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        held(&FOLDERS).insert(folder.path().to_path_buf());
        Ok(Self { folder, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        held(&FOLDERS).remove(self.folder.path());
    }
}

const PREFIX: &str = "ergometer-scratch-";
const LOCK: &str = ".lock";

/// Removes temporary folders in `place` that this user's processes left behind: named by us, of a process that is gone, locked by nobody.
pub fn sweep(place: &Path) {
    use std::os::unix::fs::MetadataExt;
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let number = name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        let Some(number) = number else { continue };
        let own = fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir() && m.uid() == user);
        if !own || Path::new("/proc").join(number.to_string()).exists() {
            continue;
        }
        // a process of another container may have the number that is free here, and then holds the lock
        let free = match rustix::fs::open(
            path.join(LOCK),
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK,
            rustix::fs::Mode::empty(),
        ) {
            Ok(lock) => rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok(),
            Err(e) => e == rustix::io::Errno::NOENT,
        };
        if free {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Begins to listen, and removes what killed processes left.
pub fn install() {
    sweep(&std::env::temp_dir());
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    // under nohup a closed terminal is to be ignored
    let wanted: &[i32] = if ignored(SIGHUP) { &[SIGINT, SIGTERM] } else { &[SIGINT, SIGTERM, SIGHUP] };
    let Ok(mut signals) = signal_hook::iterator::Signals::new(wanted) else { return };
    std::thread::spawn(move || {
        for (nth, _) in signals.forever().enumerate() {
            match nth {
                0 => drop(std::thread::spawn(end)),
                // whoever asks twice does not want to wait
                _ => std::process::exit(INTERRUPTED),
            }
        }
    });
}

/// Makes a limit on the size of files (`ulimit -f`) an error of the write that meets it, as a full disk is: left alone, its signal ends the
/// process without a word.
pub fn keep_writing_errors() {
    let _ = signal_hook::flag::register(signal_hook::consts::signal::SIGXFSZ, Arc::default());
}

fn ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask =
        status.lines().find_map(|l| l.strip_prefix("SigIgn:")).and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

fn end() {
    let _closed = GATE.write().unwrap_or_else(PoisonError::into_inner);
    crate::orphans::end(crate::orphans::own());
    for id in held(&GROUPS).iter().filter_map(|id| Pid::from_raw(*id)) {
        let _ = kill_process_group(id, Signal::KILL);
    }
    // what has left group and session and carries no mark is our child by now, or becomes one
    crate::orphans::end_children(&BTreeSet::new());
    // what was killed may write for a moment yet
    for _ in 0..40 {
        held(&FOLDERS)
            .retain(|folder| fs::remove_dir_all(folder).is_err_and(|e| e.kind() != std::io::ErrorKind::NotFound));
        if held(&FOLDERS).is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if std::io::stderr().is_terminal() {
        // below a bar, if there is one
        let _ = writeln!(std::io::stderr());
    }
    let said = held(&WORDS).as_ref().map_or_else(|| "nothing was kept".into(), |words| words());
    console::warn(format!("interrupted: {said}"));
    std::process::exit(INTERRUPTED);
}

/// Words of a command line as a shell takes them.
pub fn shell(words: &[String]) -> String {
    let plain = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c));
    let quoted = |w: &String| if plain(w) { w.clone() } else { format!("'{}'", w.replace('\'', "'\\''")) };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_folders_of_gone_processes_are_swept() {
        let place = tempfile::tempdir().unwrap();
        let (gone, alive) = (u32::MAX, std::process::id());
        let names = [
            format!("{PREFIX}{gone}-a"),
            format!("{PREFIX}{alive}-b"),
            format!("{PREFIX}x-c"),
            format!("other-{gone}-d"),
            format!("{PREFIX}{gone}-held"),
        ];
        for name in &names {
            fs::create_dir(place.path().join(name)).unwrap();
            fs::write(place.path().join(name).join("file"), "x").unwrap();
        }
        fs::write(place.path().join(&names[0]).join(LOCK), "").unwrap();
        let lock = File::create(place.path().join(&names[4]).join(LOCK)).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        std::os::unix::fs::symlink(place.path().join(&names[3]), place.path().join(format!("{PREFIX}{gone}-link")))
            .unwrap();
        sweep(place.path());
        let left: BTreeSet<String> =
            fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        let mut wanted: BTreeSet<String> = names[1..].iter().cloned().collect();
        wanted.insert(format!("{PREFIX}{gone}-link"));
        assert_eq!(left, wanted);
        assert!(place.path().join(&names[3]).join("file").exists());
    }

    #[test]
    fn a_scratch_folder_goes_with_its_owner() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_path_buf();
        fs::write(path.join("x"), "x").unwrap();
        sweep(path.parent().unwrap());
        assert!(path.join("x").exists(), "it is in use");
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn command_lines_can_be_pasted() {
        let words = ["run", "a b", "it's", "*x*", ""].map(String::from);
        assert_eq!(shell(&words), "run 'a b' 'it'\\''s' '*x*' ''");
    }
}
