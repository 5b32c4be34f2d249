//! Zip archives as `torch.save` and `numpy.savez` write them: the names of their entries, and the bytes of each.
//!
//! In: something to read and seek in. Out: an [`ZipArchive`]. Must not: hold an entry that nobody asked for, believe a
//! size that the file cannot have, or give bytes whose check sum was not looked at.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use flate2::Crc;
use flate2::read::DeflateDecoder;

use crate::error::SuiteError;
use crate::tensors::shown_name;

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
/// Bytes that a packed one can stand for at most, and as many more as fit into a last piece.
const MOST_UNPACKED: u64 = 1032;

/// Whether entries may be compressed, and what to do about those that may not be.
#[derive(Clone, Copy, Debug)]
pub enum Packing {
    /// Stored or deflated.
    Any,
    /// Stored alone: who writes such archives, and the remedy.
    Stored(&'static str, &'static str),
}

/// One file of an archive, as the directory tells of it.
#[derive(Clone, Copy, Debug)]
struct ZipEntry {
    header: u64,
    bytes: u64,
    packed: u64,
    crc: u32,
    method: Method,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Stored,
    Deflated,
    Other,
}

/// An open archive whose directory was checked.
pub struct ZipArchive<R> {
    path: PathBuf,
    from: R,
    length: u64,
    packing: Packing,
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

fn error(path: &Path, message: String) -> SuiteError {
    SuiteError::new(message).in_file(path)
}

impl<R: Read + Seek> ZipArchive<R> {
    /// Reads and checks the directory; `path` is what errors call the file.
    ///
    /// # Errors
    /// No zip archive, or one whose directory does not fit the file.
    pub fn new(path: &Path, mut from: R, packing: Packing) -> Result<Self, SuiteError> {
        let length = from.seek(SeekFrom::End(0)).map_err(|e| error(path, format!("cannot be read: {e}")))?;
        let mut archive = Self { path: path.to_owned(), from, length, packing, entries: BTreeMap::new() };
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

    fn broken(&self, message: String) -> SuiteError {
        error(&self.path, format!("not a whole zip archive: {message}")).hint(AGAIN)
    }

    fn bytes_at(&mut self, begin: u64, size: u64) -> Result<Vec<u8>, SuiteError> {
        if begin.checked_add(size).is_none_or(|end| end > self.length) {
            return Err(self.broken(format!("{size} bytes at byte {begin} are due, and it has {}", self.length)));
        }
        let mut bytes = vec![0; size as usize];
        let read = self.from.seek(SeekFrom::Start(begin)).and_then(|_| self.from.read_exact(&mut bytes));
        read.map_err(|e| error(&self.path, format!("cannot be read: {e}")))?;
        Ok(bytes)
    }

    /// Entries, bytes and place of the directory, from the record at the end.
    fn directory(&mut self) -> Result<(u64, u64, u64), SuiteError> {
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
    fn listed(&mut self, bytes: &[u8], at: usize) -> Result<usize, SuiteError> {
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
        let plain = u16_at(head, 8) & 1 == 0;
        let method = match u16_at(head, 10) {
            0 if plain && packed == bytes => Method::Stored,
            8 if plain && bytes / MOST_UNPACKED <= packed => Method::Deflated,
            _ => Method::Other,
        };
        let entry = ZipEntry { header, bytes, packed, crc: u32_at(head, 16) as u32, method };
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
    pub fn whole(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, SuiteError> {
        let size = self.size(name).unwrap_or(0);
        if size > limit {
            let message = format!("entry `{}` has {size} bytes; {limit} are the most", shown_name(name));
            return Err(error(&self.path, message).hint(AGAIN));
        }
        let mut bytes = Vec::new();
        self.pieces::<SuiteError>(name, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Reads an entry piece by piece; pieces but the last are a multiple of eight bytes long. Its check sum is looked
    /// at in the end.
    ///
    /// # Errors
    /// As [`reader`](Self::reader), or what `take` gives.
    pub fn pieces<E: From<SuiteError>>(
        &mut self,
        name: &str,
        take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.path.clone();
        let mut reader = self.reader(name)?;
        let mut left = reader.left;
        let mut piece = vec![0; CHUNK.min(left as usize)];
        let fail = |e: io::Error| error(&path, format!("entry `{}`: {e}", shown_name(name))).hint(AGAIN);
        while left > 0 {
            let n = CHUNK.min(left as usize);
            reader.read_exact(&mut piece[..n]).map_err(fail)?;
            take(&piece[..n])?;
            left -= n as u64;
        }
        // the end is where the check sum is looked at
        reader.read(&mut [0]).map_err(fail)?;
        Ok(())
    }

    /// The bytes of an entry, unpacked. At their end it gives an error where the check sum or the length is not what
    /// the directory says.
    ///
    /// # Errors
    /// No such entry, one that is packed in a way that is not read, or not as the directory says.
    pub fn reader(&mut self, name: &str) -> Result<EntryReader<'_, R>, SuiteError> {
        let shown = shown_name(name);
        let Some(entry) = self.entries.get(name).copied() else {
            return Err(error(&self.path, format!("entry `{shown}` is missing")).hint(AGAIN));
        };
        match (entry.method, self.packing) {
            (Method::Stored, _) | (Method::Deflated, Packing::Any) => {}
            (_, Packing::Stored(who, hint)) => {
                let message = format!("entry `{shown}` is compressed or encrypted, which {who} never does");
                return Err(error(&self.path, message).hint(hint));
            }
            (Method::Other, Packing::Any) => {
                let message = format!(
                    "entry `{shown}` is encrypted, packed otherwise than by deflate, or of a size that cannot be"
                );
                return Err(error(&self.path, message).hint("write it again, stored or deflated (`numpy.savez`)"));
            }
        }
        let head = self.bytes_at(entry.header, 30)?;
        let begin = entry.header + 30 + u16_at(&head, 26) + u16_at(&head, 28);
        if !head.starts_with(b"PK\x03\x04") || begin.checked_add(entry.packed).is_none_or(|end| end > self.length) {
            return Err(self.broken(format!("entry `{shown}` of {} bytes is not where it should be", entry.packed)));
        }
        let fail = |e: io::Error| error(&self.path, format!("entry `{shown}`: {e}"));
        self.from.seek(SeekFrom::Start(begin)).map_err(fail)?;
        let packed = (&mut self.from).take(entry.packed);
        let bytes = match entry.method {
            Method::Stored => Unpacking::Stored(packed),
            _ => Unpacking::Deflated(DeflateDecoder::new(packed)),
        };
        Ok(EntryReader { bytes, left: entry.bytes, crc: Crc::new(), wanted: entry.crc })
    }
}

enum Unpacking<'a, R: Read> {
    Stored(Take<&'a mut R>),
    Deflated(DeflateDecoder<Take<&'a mut R>>),
}

/// See [`ZipArchive::reader`].
pub struct EntryReader<'a, R: Read> {
    bytes: Unpacking<'a, R>,
    left: u64,
    crc: Crc,
    wanted: u32,
}

impl<R: Read> EntryReader<'_, R> {
    /// Bytes that are still to come, as the directory says.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl<R: Read> Read for EntryReader<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let damaged = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
        // one byte more than there may be tells that there is more
        let mut one = [0];
        let end = self.left == 0;
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let into = if end { &mut one[..] } else { &mut into[..most] };
        if into.is_empty() {
            return Ok(0);
        }
        let n = match &mut self.bytes {
            Unpacking::Stored(bytes) => bytes.read(into)?,
            Unpacking::Deflated(bytes) => bytes.read(into)?,
        };
        self.crc.update(&into[..n]);
        match (end, n) {
            (true, 0) if self.crc.sum() == self.wanted => Ok(0),
            (true, 0) => damaged("another check sum than its directory says"),
            (true, _) => damaged("more bytes than its directory says"),
            (false, 0) => damaged("fewer bytes than its directory says"),
            (false, n) => {
                self.left -= n as u64;
                Ok(n)
            }
        }
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
