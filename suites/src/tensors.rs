//! The header of a safetensors file: what the file holds is known and checked before any of its numbers are read.
//!
//! In: something to read and seek in. Out: names, types and shapes, and the bytes of one tensor after another. Must not:
//! hold more than the header, or believe a size before the file's length and the header agree on it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use crate::error::SuiteError;
use crate::text;

/// Largest header: a thousand layers need less than a tenth of it.
const MAX_HEADER: u64 = 16 << 20;
/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// What a header says of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorEntry {
    /// As the header writes it, e.g. `F32`.
    pub dtype: String,
    /// Outermost axis first.
    pub shape: Vec<usize>,
    /// Where it begins and ends, bytes from the end of the header.
    pub begin: u64,
    /// See `begin`.
    pub end: u64,
}

impl TensorEntry {
    /// Elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// An open file whose header was checked.
pub struct TensorFile<R> {
    /// What errors call it.
    pub path: PathBuf,
    from: R,
    /// The header as it lies in the file, with its length before it.
    pub header: Vec<u8>,
    /// By name.
    pub entries: BTreeMap<String, TensorEntry>,
    /// Strings that the file carries beside its tensors.
    pub metadata: BTreeMap<String, String>,
}

/// Bits of an element of a dtype; `None` for an unknown one.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// The metadata of a header, or what it is instead.
fn strings(value: &serde_json::Value) -> Result<BTreeMap<String, String>, String> {
    let shown = |value: &serde_json::Value| value.to_string().chars().take(60).collect::<String>();
    // the format's own library reads null as none
    let none = serde_json::Map::new();
    let strings = if value.is_null() { Some(&none) } else { value.as_object() };
    let strings =
        strings.ok_or_else(|| format!("`__metadata__` must be an object of strings, and is {}", shown(value)))?;
    let text = |(key, value): (&String, &serde_json::Value)| match value.as_str() {
        Some(text) => Ok((key.clone(), text.to_owned())),
        None => Err(format!("metadata values must be strings, `{}` is {}", shown_name(key), shown(value))),
    };
    strings.iter().map(text).collect()
}

/// Where the last tensor ends, if they lie one after the other without a gap.
fn end(entries: &BTreeMap<String, TensorEntry>) -> Result<u64, String> {
    let mut order: Vec<(&String, &TensorEntry)> = entries.iter().collect();
    order.sort_by_key(|(_, e)| (e.begin, e.end));
    order.into_iter().try_fold(0, |at, (name, e)| match e.begin == at {
        true => Ok(e.end),
        false => Err(format!("tensor `{}` begins at byte {} where byte {at} is due", shown_name(name), e.begin)),
    })
}

impl TensorFile<File> {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, SuiteError> {
        let file = text::open(path)?;
        Self::new(path, file)
    }
}

impl<R: Read + Seek> TensorFile<R> {
    /// Reads and checks the header; `path` is what errors call it.
    pub fn new(path: &Path, mut from: R) -> Result<Self, SuiteError> {
        let fail = |m: String| SuiteError::new(m).in_file(path);
        let io = |e: io::Error| fail(format!("cannot be read: {e}"));
        let broken = |m: String| {
            fail(format!("not a whole safetensors file: {m}"))
                .hint("fetch or copy it again; the file is cut off, damaged, or no safetensors file")
        };
        // a header that can be read is of a whole file: what is wrong with it was written so
        let written = |m: String| {
            fail(format!("header: {m}")).hint(
                "the file is whole, but its header is not as the format asks: write it again (`safetensors.torch.save_file` in Python)",
            )
        };
        let length = from.seek(SeekFrom::End(0)).map_err(io)?;
        from.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut head = Vec::new();
        (&mut from).take(512).read_to_end(&mut head).map_err(io)?;
        let Some(size) = head.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)) else {
            return Err(broken(format!("{length} bytes; a header has eight and more")));
        };
        // a header begins with its length and a brace; where it does not, the first bytes say what the file is instead
        if head.get(8) != Some(&b'{')
            && let Some((what, hint)) = text::sniff(&head)
        {
            return Err(fail(format!("is {what}; no safetensors file")).hint(hint));
        }
        // the length of a header can begin with the byte of a brace, but a text has no zero bytes after it
        if head.trim_ascii_start().first() == Some(&b'{') && !head[..8].contains(&0) {
            return Err(fail("is JSON; no safetensors file".into()).hint(
                "name the file of numbers: an index or a config is read beside `model.safetensors`, not in its place",
            ));
        }
        if size > MAX_HEADER {
            return Err(broken(format!("it claims a header of {size} bytes, {MAX_HEADER} are the most")));
        }
        if size.saturating_add(8) > length {
            return Err(broken(format!("it claims a header of {size} bytes and has {length} in all")));
        }
        from.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut header = vec![0; 8 + size as usize];
        from.read_exact(&mut header).map_err(io)?;
        let value = text::json(header[8..].trim_ascii_end()).map_err(|e| {
            if e.message.starts_with(text::REPEATED) {
                return written(format!("{}: which of them is meant cannot be known", e.message));
            }
            let place = e.place.map(|p| format!(", {p}")).unwrap_or_default();
            broken(format!("header{place}: {}", e.message))
        })?;
        let object = value.as_object().ok_or_else(|| written("it is no JSON object".into()))?;
        let (mut entries, mut metadata) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in object {
            if name == "__metadata__" {
                metadata = strings(value).map_err(|m| {
                    written(m).hint("the file is whole but not as the format asks: write it again with every metadata value as text (`str(v)` in Python)")
                })?;
                continue;
            }
            let entry = entry(value).map_err(|m| written(format!("tensor `{}`: {m}", shown_name(name))))?;
            entries.insert(name.clone(), entry);
        }
        let (wanted, has) = (end(&entries).map_err(written)?, length - 8 - size);
        if wanted != has {
            return Err(broken(format!("its header describes {wanted} bytes of tensors, it has {has}")));
        }
        Ok(Self { path: path.to_owned(), from, header, entries, metadata })
    }

    /// Reads a tensor's bytes piece by piece; pieces hold whole elements of up to eight bytes.
    ///
    /// # Errors
    /// What the system said.
    pub fn pieces(&mut self, name: &str, mut take: impl FnMut(&[u8])) -> Result<(), SuiteError> {
        let path = self.path.clone();
        let fail = |e: io::Error| SuiteError::new(format!("tensor `{}`: {e}", shown_name(name))).in_file(&path);
        let mut bytes = self.reader(name)?;
        let mut left = bytes.limit();
        let mut piece = vec![0; CHUNK.min(left as usize)];
        while left > 0 {
            let n = CHUNK.min(left as usize);
            bytes.read_exact(&mut piece[..n]).map_err(fail)?;
            take(&piece[..n]);
            left -= n as u64;
        }
        Ok(())
    }

    /// The bytes of a tensor; none where there is no such tensor.
    ///
    /// # Errors
    /// What the system said.
    pub fn reader(&mut self, name: &str) -> Result<Take<&mut R>, SuiteError> {
        let (begin, end) = self.entries.get(name).map_or((0, 0), |e| (e.begin, e.end));
        let seek = self.from.seek(SeekFrom::Start(self.header.len() as u64 + begin));
        seek.map_err(|e| SuiteError::new(format!("tensor `{}`: {e}", shown_name(name))).in_file(&self.path))?;
        Ok((&mut self.from).take(end - begin))
    }
}

/// What the header says of one tensor.
fn entry(value: &serde_json::Value) -> Result<TensorEntry, String> {
    let dtype = value.get("dtype").and_then(|v| v.as_str()).ok_or("`dtype` is missing")?;
    let bits = bits(dtype).ok_or_else(|| format!("`dtype` is `{}`, which is not known here", shown_name(dtype)))?;
    let numbers =
        |key: &str| -> Option<Vec<u64>> { value.get(key)?.as_array()?.iter().map(serde_json::Value::as_u64).collect() };
    let shape = numbers("shape").ok_or("`shape` is no list of whole numbers")?;
    let Some([begin, end]) = numbers("data_offsets").and_then(|o| <[u64; 2]>::try_from(o).ok()) else {
        return Err("`data_offsets` are not two whole numbers".into());
    };
    let elements = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
    let bytes = elements.and_then(|n| n.checked_mul(bits)).filter(|b| b.is_multiple_of(8)).map(|b| b / 8);
    if end < begin || bytes != Some(end - begin) {
        return Err(format!("{shape:?} of {dtype} does not fill bytes {begin} to {end}"));
    }
    Ok(TensorEntry { dtype: dtype.into(), shape: shape.into_iter().map(|d| d as usize).collect(), begin, end })
}

/// A name from a file, short and without control characters.
pub fn shown_name(name: &str) -> String {
    name.chars().take(120).flat_map(char::escape_debug).collect()
}
