//! Opening and writing files that anybody may have put there: the one place that every other crate uses for it.
//!
//! In: paths. Out: regular files of at most so many bytes, and files that are complete if they are there. Must not:
//! wait for a named pipe, read a device, follow a link below a [`Folder`], or write through a file that was there
//! before.
//!
//! A file is opened without blocking, and what was opened (not the name, which may be another file by then) must be a
//! regular file. A written file is made anew under a name that nobody can know beforehand, flushed, and renamed into
//! its place. Paths that a user names may lead over links; below a [`Folder`] (a run folder, a cache) no link is
//! followed, neither to a file nor to a folder.

use std::{
    fmt,
    fs::{self, File},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process,
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

pub mod cache;
pub mod kind;
mod remedy;
mod words;
pub use remedy::remedy;
pub use words::{capped, capped_at, counted, distance, joined};

/// Names that start so are unfinished: they were never renamed into place.
pub const TEMPORARY: &str = ".tmp-";

/// Longest part of a file's own name in the name of its temporary one; most file systems allow names of 255 bytes.
const NAME_BYTES: usize = 200;

/// Whether a link may stand at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// The user named the path: a link is as good as the file.
    Followed,
    /// The path is one of ours, where no link belongs.
    Refused,
}

/// Why a file is not used, as the payload of an [`io::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A link where none belongs.
    Link,
    /// Not a regular file, but this.
    Kind(&'static str),
    /// More bytes than this.
    Large(u64),
}

impl Refusal {
    /// The refusal in an error, if that is what it is.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().copied()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => write!(f, "not a regular file but a link, which is not followed here"),
            Self::Kind(kind) => write!(f, "not a regular file but {kind}"),
            Self::Large(limit) if limit % (1 << 20) == 0 && *limit > 0 => {
                write!(f, "larger than {} MiB, the most that is read", limit >> 20)
            }
            Self::Large(limit) => write!(f, "larger than {limit} bytes, the most that is read"),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(io::ErrorKind::InvalidInput, refusal)
    }
}

/// Flags of every opening: a pipe is not waited for, a terminal not taken over, and no child inherits it.
const CAREFUL: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn flags(links: Links) -> OFlags {
    if links == Links::Refused { CAREFUL | OFlags::NOFOLLOW } else { CAREFUL }
}

/// What the system said, with a link where none belongs named.
fn failed(error: rustix::io::Errno) -> io::Error {
    match error {
        rustix::io::Errno::LOOP => Refusal::Link.into(),
        // a pipe that nobody reads, a socket
        rustix::io::Errno::NXIO => Refusal::Kind("a named pipe, a socket or a device").into(),
        other => other.into(),
    }
}

/// The open file if it is a regular one of at most `limit` bytes.
fn checked(file: OwnedFd, limit: u64) -> io::Result<File> {
    let stat = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        other => return Err(Refusal::Kind(kind(other)).into()),
    }
    if u64::try_from(stat.st_size).is_ok_and(|size| size > limit) {
        return Err(Refusal::Large(limit).into());
    }
    Ok(file.into())
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a folder",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Symlink => "a link",
        _ => "something else",
    }
}

/// Opens a regular file of at most `limit` bytes for reading.
///
/// # Errors
/// What the system said, or a [`Refusal`].
pub fn open(path: &Path, limit: u64, links: Links) -> io::Result<File> {
    checked(rustix::fs::open(path, OFlags::RDONLY | flags(links), Mode::empty()).map_err(failed)?, limit)
}

/// The bytes of a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open`]; a file that grows beyond the limit meanwhile is refused too.
pub fn read(path: &Path, limit: u64, links: Links) -> io::Result<Vec<u8>> {
    rest(open(path, limit, links)?, limit)
}

fn rest(file: File, limit: u64) -> io::Result<Vec<u8>> {
    // at most as much as is there is taken beforehand, and no more than a buffer where a file system names any size
    let expected = file.metadata().map_or(0, |m| m.len().min(limit).min(64 << 20));
    let mut bytes = Vec::with_capacity(expected as usize);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(Refusal::Large(limit).into()) } else { Ok(bytes) }
}

/// Replaces a file by these bytes in one step, making its folder where missing: a reader sees the old bytes or the new
/// ones. A link in its place is replaced, not followed.
///
/// # Errors
/// What the system said; what stands there is no file.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, |file| file.write_all(bytes))
}

/// [`replace`] by what `write` writes, for what is too large to be held.
///
/// # Errors
/// As [`replace`], and what `write` gives.
pub fn replace_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let (folder, name) = place(path)?;
    folder.replace(name, write)
}

/// The folder of a file, made where missing, and the file's name.
fn place(path: &Path) -> io::Result<(Folder, &Path)> {
    // a bare name has the empty path as its parent, which cannot be opened
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "names no file"))?;
    Ok((Folder::create(parent)?, name.as_ref()))
}

/// Opens a file to hold a lock on, made where missing.
///
/// # Errors
/// What the system said, or that something other than a regular file has its name.
pub fn lock_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::RDWR | flags(Links::Refused);
    checked(rustix::fs::open(path, flags, Mode::from_raw_mode(0o666)).map_err(failed)?, u64::MAX)
}

/// A file without a name in the folder for temporary files: it is gone with its last handle, and its path shows nothing
/// of this program.
///
/// # Errors
/// What the system said.
pub fn unnamed() -> io::Result<File> {
    let folder = Folder::open(&std::env::temp_dir())?;
    let name = temporary("log");
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::APPEND | flags(Links::Refused);
    let file = rustix::fs::openat(&folder.fd, &name, flags, Mode::from_raw_mode(0o600))?;
    rustix::fs::unlinkat(&folder.fd, &name, AtFlags::empty())?;
    Ok(file.into())
}

/// A name for an unfinished file or folder that nobody can know beforehand.
pub fn temporary(name: &str) -> String {
    let end = (0..=name.len().min(NAME_BYTES)).rev().find(|&i| name.is_char_boundary(i)).unwrap_or(0);
    // the standard library's hasher is seeded at random
    let random = RandomState::new().build_hasher().finish();
    format!("{TEMPORARY}{}-{}-{random:016x}", &name[..end], process::id())
}

/// An open folder, below which no link is followed: it stays the same one whatever happens to its name.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Folder {
    /// Opens a folder by a path of the user's, over links too.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: rustix::fs::open(path, FOLDER, Mode::empty())?, path: path.to_owned() })
    }

    /// [`Folder::open`], after making it and those above it where missing.
    ///
    /// # Errors
    /// What the system said.
    pub fn create(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Self::open(path)
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder in it that is there.
    ///
    /// # Errors
    /// What the system said; a link is refused.
    pub fn folder(&self, name: &str) -> io::Result<Self> {
        let fd = rustix::fs::openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        let fd = fd.map_err(|e| match (e, self.kind_of(name.as_ref())) {
            (_, Ok(Some(FileType::Symlink))) => Refusal::Link.into(),
            (e, _) => io::Error::from(e),
        })?;
        Ok(Self { fd, path: self.path.join(name) })
    }

    /// A folder in it, made where missing.
    ///
    /// # Errors
    /// As [`Folder::folder`].
    pub fn make(&self, name: &str) -> io::Result<Self> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => self.folder(name),
            Err(e) => Err(e.into()),
        }
    }

    /// The folder of a relative path's file, made where missing, and the file's name.
    fn parent<'n>(&self, name: &'n str) -> io::Result<(Option<Self>, &'n str)> {
        let mut parts: Vec<&str> = name.split('/').collect();
        if parts.iter().any(|part| part.is_empty() || [".", ".."].contains(part)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a relative path below the folder"));
        }
        let last = parts.pop().unwrap_or_default();
        let mut folder = None;
        for part in parts {
            folder = Some(folder.as_ref().unwrap_or(self).make(part)?);
        }
        Ok((folder, last))
    }

    /// Replaces a file below it, named by a relative path without `..`, by these bytes in one step, making the folders
    /// between.
    ///
    /// # Errors
    /// What the system said; a folder between is a link; what stands there is no file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (folder, last) = self.parent(name)?;
        folder.as_ref().unwrap_or(self).replace(last.as_ref(), |file| file.write_all(bytes))
    }

    fn replace(&self, name: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        // a link is replaced; a device or a pipe is somebody's, and no file of ours
        match self.kind_of(name)? {
            None | Some(FileType::RegularFile | FileType::Symlink) => {}
            Some(other) => return Err(Refusal::Kind(kind(other)).into()),
        }
        let aside = temporary(&name.to_string_lossy());
        let mut file = self.new_file(&aside)?;
        let written = write(&mut file).and_then(|()| file.sync_all());
        written.and_then(|()| Ok(rustix::fs::renameat(&self.fd, &aside, &self.fd, name)?)).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&self.fd, &aside, AtFlags::empty());
        })?;
        self.sync()
    }

    /// What is there under a name.
    fn kind_of(&self, name: &Path) -> io::Result<Option<FileType>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether anything has this name, be it a link that leads nowhere.
    ///
    /// # Errors
    /// What the system said.
    pub fn has(&self, name: &str) -> io::Result<bool> {
        Ok(self.kind_of(name.as_ref())?.is_some())
    }

    /// A new file in it, to be written; one that is there is an error.
    ///
    /// # Errors
    /// What the system said.
    pub fn new_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | flags(Links::Refused);
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o666))?.into())
    }

    /// Opens a regular file in it of at most `limit` bytes for reading.
    ///
    /// # Errors
    /// What the system said, or a [`Refusal`].
    pub fn open_file(&self, name: &str, limit: u64) -> io::Result<File> {
        let flags = OFlags::RDONLY | flags(Links::Refused);
        checked(rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(failed)?, limit)
    }

    /// The bytes of a regular file in it of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Folder::open_file`].
    pub fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        rest(self.open_file(name, limit)?, limit)
    }

    /// Opens a file in it to hold a lock on, made where missing.
    ///
    /// # Errors
    /// What the system said, or that something other than a regular file has its name.
    pub fn lock_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::RDWR | flags(Links::Refused);
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o666));
        checked(file.map_err(failed)?, u64::MAX)
    }

    /// Gives what is in it another name in it. A file or an empty folder of that name is replaced.
    ///
    /// # Errors
    /// What the system said.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Removes a file, or a folder with all that is in it; a link is removed, and what it leads to stays.
    ///
    /// # Errors
    /// What the system said.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match self.kind_of(name.as_ref())? {
            Some(FileType::Directory) => {
                let folder = self.folder(name)?;
                for entry in folder.names()? {
                    folder.remove(&entry)?;
                }
                Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
            }
            _ => Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?),
        }
    }

    /// Names in it that are UTF-8 (all of ours are), sorted.
    ///
    /// # Errors
    /// What the system said.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes what was made and renamed in it last through a power cut. Not every file system can do this; those that
    /// cannot are not an error.
    ///
    /// # Errors
    /// What the system said.
    pub fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(self.fd.as_fd()) {
            Err(rustix::io::Errno::INVAL) | Ok(()) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests;
