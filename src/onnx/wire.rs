//! Protobuf's wire format, read field by field from a file that is not believed.
//!
//! In: something to read and seek in. Out: field numbers with their values; of a field with a length, where it ends. Must not: believe a
//! length before it fits what it lies in, hold more than one text at a time, or know a message.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WireFault {
    /// The file ends, or a length leaves the message that it is in.
    Short {
        /// Byte of the file.
        at: u64,
        /// What was to be there.
        what: String,
    },
    /// Bytes that the format does not have.
    Malformed {
        /// Byte of the file.
        at: u64,
        /// What is there.
        what: String,
    },
    /// The system could not read.
    Unreadable(String),
}

impl From<io::Error> for WireFault {
    fn from(e: io::Error) -> Self {
        Self::Unreadable(e.to_string())
    }
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A whole number, or an enumeration's.
    Number(u64),
    /// Four bytes: a float.
    Four([u8; 4]),
    /// Eight bytes: a double.
    Eight,
    /// Bytes, a text or a message, from here to this byte of the file. They are to be read or skipped before the next field.
    Until(u64),
}

/// A file at some byte.
pub(super) struct Wire<R> {
    from: BufReader<R>,
    at: u64,
    length: u64,
}

impl<R: Read + Seek> Wire<R> {
    /// At the first byte.
    pub fn new(mut from: R) -> Result<Self, WireFault> {
        let length = from.seek(SeekFrom::End(0))?;
        from.seek(SeekFrom::Start(0))?;
        Ok(Self { from: BufReader::with_capacity(1 << 16, from), at: 0, length })
    }

    /// Byte of the file.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next bytes.
    fn exact<const N: usize>(&mut self, end: u64) -> Result<[u8; N], WireFault> {
        let n = N as u64;
        if end - self.at < n {
            return Err(WireFault::Short { at: self.at, what: format!("{n} bytes") });
        }
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes)?;
        self.at += n;
        Ok(bytes)
    }

    /// A whole number in groups of seven bits.
    pub fn number(&mut self, end: u64) -> Result<u64, WireFault> {
        let began = self.at;
        let mut value = 0u64;
        for group in 0..10 {
            let [byte] = self.exact::<1>(end)?;
            value |= u64::from(byte & 0x7f) << (7 * group).min(63);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireFault::Malformed { at: began, what: "a number of more than ten bytes".into() })
    }

    /// The next field before `end`; `None`: there is none.
    pub fn field(&mut self, end: u64) -> Result<Option<(u64, Content)>, WireFault> {
        if self.at >= end {
            return Ok(None);
        }
        let began = self.at;
        let key = self.number(end)?;
        let content = match key & 7 {
            0 => Content::Number(self.number(end)?),
            1 => {
                self.exact::<8>(end)?;
                Content::Eight
            }
            2 => {
                let length = self.number(end)?;
                let left = end - self.at;
                if length > left {
                    let what = format!("a field of {length} bytes, and {left} are left");
                    return Err(WireFault::Short { at: began, what });
                }
                Content::Until(self.at + length)
            }
            5 => Content::Four(self.exact::<4>(end)?),
            other => {
                return Err(WireFault::Malformed { at: began, what: format!("a field of wire type {other}") });
            }
        };
        match key >> 3 {
            0 => Err(WireFault::Malformed { at: began, what: "a field of number 0".into() }),
            number => Ok(Some((number, content))),
        }
    }

    /// Goes to a byte further on, which lies within the file.
    pub fn skip(&mut self, end: u64) -> Result<(), WireFault> {
        let by = i64::try_from(end - self.at).map_err(|e| WireFault::Unreadable(e.to_string()))?;
        self.from.seek_relative(by)?;
        self.at = end;
        Ok(())
    }

    /// The bytes up to `end`, of which there may be so many.
    pub fn bytes(&mut self, end: u64, most: u64) -> Result<Vec<u8>, WireFault> {
        let (began, n) = (self.at, end - self.at);
        if n > most {
            return Err(WireFault::Malformed { at: began, what: format!("{n} bytes where {most} are the most") });
        }
        let mut bytes = vec![0; n as usize];
        self.from.read_exact(&mut bytes)?;
        self.at = end;
        Ok(bytes)
    }

    /// A text up to `end`; what is no UTF-8 in it is replaced.
    pub fn text(&mut self, end: u64, most: u64) -> Result<String, WireFault> {
        Ok(String::from_utf8_lossy(&self.bytes(end, most)?).into_owned())
    }

    /// Whole numbers of a repeated field: packed ones up to the field's end, or one alone; at most so many together with those there.
    pub fn numbers(&mut self, content: Content, all: &mut Vec<i64>, most: usize) -> Result<(), WireFault> {
        match content {
            Content::Number(n) => all.push(n as i64),
            Content::Until(end) => {
                while self.at < end {
                    all.push(self.number(end)? as i64);
                    if all.len() > most {
                        break;
                    }
                }
            }
            Content::Four(_) | Content::Eight => {}
        }
        if all.len() > most {
            return Err(WireFault::Malformed { at: self.at, what: format!("more than {most} numbers in a list") });
        }
        Ok(())
    }
}
