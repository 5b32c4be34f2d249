//! Reading a file's head from front to back through a buffer, each length checked against what the file still has.
//!
//! In: an open file and its size. Out: numbers, text, and where reading stands. Must not: allocate by a length that the
//! file does not have.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use crate::{error::LanguageError, table::read_exact};

/// Most bytes of all texts together; those of the largest vocabularies have some 20 MiB.
const MAX_TEXTS: u64 = 256 << 20;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// A place in a file.
pub(super) struct Cursor<'a> {
    file: &'a File,
    path: PathBuf,
    /// Bytes of the file.
    size: u64,
    /// The byte that is read next.
    at: u64,
    /// Bytes of the file from `begin` on.
    buffer: Vec<u8>,
    begin: u64,
    /// Bytes that texts may still have together.
    texts: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a File, path: &Path, size: u64) -> Self {
        Self { file, path: path.to_owned(), size, at: 0, buffer: Vec::new(), begin: 0, texts: MAX_TEXTS }
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes after this place.
    pub(super) fn left(&self) -> u64 {
        self.size - self.at
    }

    /// What is wrong at this place, or just before it.
    pub(super) fn fail(&self, message: impl AsRef<str>) -> LanguageError {
        LanguageError::new(&self.path, format!("byte {}: {}", self.at, message.as_ref()))
    }

    /// The next `n` bytes, which must be there.
    pub(super) fn take(&mut self, n: u64, what: &str) -> Result<&[u8], LanguageError> {
        if n > self.left() {
            let (left, size) = (self.left(), self.size);
            return Err(self.fail(format!("{what}: {n} bytes are due, {left} of {size} are left")));
        }
        let n = usize::try_from(n).map_err(|_| self.fail(format!("{what}: {n} bytes are more than fit in memory")))?;
        if self.at + n as u64 > self.begin + self.buffer.len() as u64 {
            let length = self.left().min(n.max(CHUNK) as u64) as usize;
            self.buffer.resize(length, 0);
            self.begin = self.at;
            read_exact(self.file, &mut self.buffer, self.at).map_err(|e| LanguageError::io(&self.path, &e))?;
        }
        let first = (self.at - self.begin) as usize;
        self.at += n as u64;
        Ok(&self.buffer[first..first + n])
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], LanguageError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64, what)?);
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, LanguageError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, LanguageError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A length in 64 bits and so many bytes of UTF-8, at most `most`.
    pub(super) fn text(&mut self, most: u64, what: &str) -> Result<String, LanguageError> {
        let length = self.u64(what)?;
        if length > most {
            return Err(self.fail(format!("{what}: a text of {length} bytes; {most} are the most")));
        }
        self.texts = match self.texts.checked_sub(length) {
            Some(left) => left,
            None => return Err(self.fail(format!("{what}: texts of more than {MAX_TEXTS} bytes in all"))),
        };
        let text = self.take(length, what)?.to_vec();
        String::from_utf8(text).map_err(|e| {
            let place = e.utf8_error().valid_up_to();
            self.fail(format!("{what}: no UTF-8 from its byte {place} on"))
        })
    }
}
