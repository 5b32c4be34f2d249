//! Zip archives as `torch.save` writes them: the names of their entries and where the bytes of each lie.
//!
//! In: something to read and seek in. Out: an [`ZipArchive`]. Must not: unpack (PyTorch stores), hold an entry that
//! nobody asked for, or believe a size that the file does not have.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::Crc;

use crate::models::ModelError;
use crate::models::tensors::shown_name;

/// Most entries: a net of a thousand layers has twenty thousand.
const MAX_ENTRIES: u64 = 1 << 16;
/// Largest directory of an archive, bytes.
const MAX_DIRECTORY: u64 = 16 << 20;
/// The record at the end, and the longest comment that may follow it.
const END: u64 = 22;
const COMMENT: u64 = 65_535;
/// Bytes read at once.
const CHUNK: usize = 1 << 20;
/// What helps against an archive that is not whole.
const AGAIN: &str = "fetch or copy it again: it is cut off or damaged";
const SAVE_AGAIN: &str =
    "name the file that `torch.save` wrote, as it was written: an archive that was packed anew is not read";

/// One file of an archive, as the directory tells of it.
#[derive(Clone, Copy, Debug)]
struct ZipEntry {
    header: u64,
    bytes: u64,
    crc: u32,
    stored: bool,
}

/// An open archive whose directory was checked.
pub struct ZipArchive<R> {
    path: PathBuf,
    from: R,
    length: u64,
    entries: BTreeMap<String, ZipEntry>,
}

/// Little-endian numbers of a record.
fn u16_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 2).map_or(0, |b| u64::from(b[0]) | u64::from(b[1]) << 8)
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

impl<R: Read + Seek> ZipArchive<R> {
    /// Reads and checks the directory; `path` is what errors call the file.
    ///
    /// # Errors
    /// No zip archive, or one whose directory does not fit the file.
    pub fn new(path: &Path, mut from: R) -> Result<Self, ModelError> {
        let length = from.seek(SeekFrom::End(0)).map_err(|e| ModelError::new(path, format!("cannot be read: {e}")))?;
        let mut archive = Self { path: path.to_owned(), from, length, entries: BTreeMap::new() };
        let (count, size, begin) = archive.directory()?;
        if count > MAX_ENTRIES || size > MAX_DIRECTORY {
            return Err(archive.broken(format!(
                "its directory claims {count} entries in {size} bytes; {MAX_ENTRIES} in {MAX_DIRECTORY} are the most"
            )));
        }
        let bytes = archive.bytes_at(begin, size)?;
        let mut at = 0;
        for _ in 0..count {
            at = archive.listed(&bytes, at)?;
        }
        Ok(archive)
    }

    fn broken(&self, message: String) -> ModelError {
        ModelError::new(&self.path, format!("not a whole zip archive: {message}")).hint(AGAIN)
    }

    fn bytes_at(&mut self, begin: u64, size: u64) -> Result<Vec<u8>, ModelError> {
        if begin.checked_add(size).is_none_or(|end| end > self.length) {
            return Err(self.broken(format!("{size} bytes at byte {begin} are due, and it has {}", self.length)));
        }
        let mut bytes = vec![0; size as usize];
        let read = self.from.seek(SeekFrom::Start(begin)).and_then(|_| self.from.read_exact(&mut bytes));
        read.map_err(|e| ModelError::new(&self.path, format!("cannot be read: {e}")))?;
        Ok(bytes)
    }

    /// Entries, bytes and place of the directory, from the record at the end.
    fn directory(&mut self) -> Result<(u64, u64, u64), ModelError> {
        let tail = self.length.min(END + COMMENT);
        let from = self.length - tail;
        let bytes = self.bytes_at(from, tail)?;
        let ends = |at: &usize| {
            bytes[*at..].starts_with(b"PK\x05\x06") && *at as u64 + END + u16_at(&bytes, at + 20) == bytes.len() as u64
        };
        let end = (0..(bytes.len() + 1).saturating_sub(END as usize)).rev().find(ends);
        let Some(end) = end else {
            return Err(self.broken("the record that ends one is not there".into()));
        };
        let record = &bytes[end..];
        let found = (u16_at(record, 10), u32_at(record, 12), u32_at(record, 16));
        // PyTorch writes the larger records always, and points at them from just before the end
        let Some(locator) = end.checked_sub(20).map(|at| &bytes[at..end]).filter(|l| l.starts_with(b"PK\x06\x07"))
        else {
            return Ok(found);
        };
        let large = self.bytes_at(u64_at(locator, 8), 56)?;
        if !large.starts_with(b"PK\x06\x06") {
            return Err(self.broken("the large record that its end names is not there".into()));
        }
        Ok((u64_at(&large, 32), u64_at(&large, 40), u64_at(&large, 48)))
    }

    /// Takes the entry at a place of the directory; gives the place of the next.
    fn listed(&mut self, bytes: &[u8], at: usize) -> Result<usize, ModelError> {
        let head = bytes.get(at..at + 46).filter(|h| h.starts_with(b"PK\x01\x02"));
        let Some(head) = head else {
            return Err(self.broken("its directory ends before its last entry".into()));
        };
        let (named, extra, comment) = (u16_at(head, 28) as usize, u16_at(head, 30) as usize, u16_at(head, 32) as usize);
        let next = at + 46 + named + extra + comment;
        let Some(rest) = bytes.get(at + 46..next) else {
            return Err(self.broken("its directory ends before its last entry".into()));
        };
        let Ok(name) = std::str::from_utf8(&rest[..named]) else {
            return Err(self.broken("the name of an entry is no UTF-8 text".into()));
        };
        let [mut packed, mut bytes, mut header] = [u32_at(head, 20), u32_at(head, 24), u32_at(head, 42)];
        // what is too large for 32 bits stands in the extra field, in this order
        if let Some(large) = large_field(&rest[named..named + extra]) {
            let mut at = 0;
            for value in [&mut bytes, &mut packed, &mut header] {
                if *value == u64::from(u32::MAX) && at + 8 <= large.len() {
                    *value = u64_at(large, at);
                    at += 8;
                }
            }
        }
        let flags = u16_at(head, 8);
        let stored = u16_at(head, 10) == 0 && flags & 1 == 0 && packed == bytes;
        let entry = ZipEntry { header, bytes, crc: u32_at(head, 16) as u32, stored };
        if self.entries.insert(name.to_owned(), entry).is_some() {
            return Err(self.broken(format!("the entry `{}` is there twice", shown_name(name))));
        }
        Ok(next)
    }

    /// Names of all entries.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Bytes of an entry, as the directory tells; none: it is not there.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(|e| e.bytes)
    }

    /// The entry `name` as a whole, of at most `limit` bytes.
    ///
    /// # Errors
    /// No such entry, a larger one, or one that is not as the directory says.
    pub fn whole(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, ModelError> {
        let size = self.size(name).unwrap_or(0);
        if size > limit {
            let message = format!("entry `{}` has {size} bytes; {limit} are the most", shown_name(name));
            return Err(ModelError::new(&self.path, message).hint(SAVE_AGAIN));
        }
        let mut bytes = Vec::new();
        self.pieces(name, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Reads an entry piece by piece; pieces but the last are a multiple of eight bytes long. Its check sum is looked
    /// at in the end.
    ///
    /// # Errors
    /// No such entry, one that is packed or not as the directory says, or what `take` gives.
    pub fn pieces(
        &mut self,
        name: &str,
        take: &mut dyn FnMut(&[u8]) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let shown = shown_name(name);
        let Some(entry) = self.entries.get(name).copied() else {
            return Err(ModelError::new(&self.path, format!("entry `{shown}` is missing")).hint(AGAIN));
        };
        if !entry.stored {
            let message = format!("entry `{shown}` is compressed or encrypted, which PyTorch never does");
            return Err(ModelError::new(&self.path, message).hint(SAVE_AGAIN));
        }
        let head = self.bytes_at(entry.header, 30)?;
        let begin = entry.header + 30 + u16_at(&head, 26) + u16_at(&head, 28);
        if !head.starts_with(b"PK\x03\x04") || begin.checked_add(entry.bytes).is_none_or(|end| end > self.length) {
            return Err(self.broken(format!("entry `{shown}` of {} bytes is not where it should be", entry.bytes)));
        }
        let fail = |e: std::io::Error| ModelError::new(&self.path, format!("entry `{shown}`: {e}"));
        self.from.seek(SeekFrom::Start(begin)).map_err(fail)?;
        let mut left = entry.bytes;
        let mut piece = vec![0; CHUNK.min(left as usize)];
        let mut crc = Crc::new();
        while left > 0 {
            let n = CHUNK.min(left as usize);
            self.from.read_exact(&mut piece[..n]).map_err(fail)?;
            crc.update(&piece[..n]);
            take(&piece[..n])?;
            left -= n as u64;
        }
        if crc.sum() != entry.crc {
            return Err(self.broken(format!("entry `{shown}` has another check sum than its directory says")));
        }
        Ok(())
    }
}

/// The field of an entry's extras that holds what 32 bits do not.
fn large_field(mut extra: &[u8]) -> Option<&[u8]> {
    while extra.len() >= 4 {
        let (id, size) = (u16_at(extra, 0), u16_at(extra, 2) as usize);
        let field = extra.get(4..4 + size)?;
        if id == 1 {
            return Some(field);
        }
        extra = &extra[4 + size..];
    }
    None
}
