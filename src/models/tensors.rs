//! Safetensors files, header first: what a file holds is known and checked before any of its numbers are read.
//!
//! In: something to read and seek in. Out: names, dtypes and shapes, then the tensors that are asked for. Must not: hold more than the header
//! and what was asked for, or believe a size before the file's length and the header agree on it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ergometer_suites::text;
use sha2::{Digest, Sha256};

use super::{ModelError, f16_to_f32};

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
    begin: u64,
    end: u64,
}

impl TensorEntry {
    /// Elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// An open file whose header was checked.
pub struct Tensors<R> {
    path: PathBuf,
    from: R,
    header: Vec<u8>,
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

impl Tensors<File> {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = text::open(path).map_err(ModelError::from)?;
        Self::new(path, file)
    }
}

impl<R: Read + Seek> Tensors<R> {
    /// Reads and checks the header; `path` is what errors call it.
    pub fn new(path: &Path, mut from: R) -> Result<Self, ModelError> {
        let fail = |m: String| ModelError::new(path, m);
        let io = |e: std::io::Error| fail(format!("cannot be read: {e}"));
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
    fn pieces(&mut self, name: &str, mut take: impl FnMut(&[u8])) -> Result<(), ModelError> {
        let fail = |e: std::io::Error| ModelError::new(&self.path, format!("tensor `{}`: {e}", shown_name(name)));
        let (begin, end) = self.entries.get(name).map_or((0, 0), |e| (e.begin, e.end));
        self.from.seek(SeekFrom::Start(self.header.len() as u64 + begin)).map_err(fail)?;
        let mut left = end - begin;
        let mut piece = vec![0; CHUNK.min(left as usize)];
        while left > 0 {
            let n = CHUNK.min(left as usize);
            self.from.read_exact(&mut piece[..n]).map_err(fail)?;
            take(&piece[..n]);
            left -= n as u64;
        }
        Ok(())
    }

    /// The tensor `name` as f32; errors where it is missing, of another number of elements, not floating point, or not finite.
    pub fn floats(&mut self, name: &str, elements: usize) -> Result<Vec<f32>, ModelError> {
        let entry = self.entry(name, elements)?;
        let Some(convert) = converter(&entry.dtype) else {
            return Err(self.dtype_error(name));
        };
        let mut values = room(&self.path, name, elements)?;
        self.pieces(name, |bytes| convert(bytes, &mut values))?;
        self.finite(name, &values)?;
        Ok(values)
    }

    /// The tensor `name` of 32-bit integers as they lie in the file.
    pub fn words(&mut self, name: &str, dtype: &str, elements: usize) -> Result<Vec<u32>, ModelError> {
        if self.entry(name, elements)?.dtype != dtype {
            return Err(self.wrong(name, &format!("is {}, not {dtype}", self.entries[name].dtype)));
        }
        let mut values = room(&self.path, name, elements)?;
        self.pieces(name, |b| values.extend(b.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))))?;
        Ok(values)
    }

    /// The bytes of the tensor `name` as they lie in the file.
    pub fn raw(&mut self, name: &str, dtype: &str, elements: usize) -> Result<Vec<u8>, ModelError> {
        if self.entry(name, elements)?.dtype != dtype {
            return Err(self.wrong(name, &format!("is {}, not {dtype}", self.entries[name].dtype)));
        }
        let mut values = Vec::new();
        self.pieces(name, |bytes| values.extend_from_slice(bytes))?;
        Ok(values)
    }

    fn entry(&self, name: &str, elements: usize) -> Result<TensorEntry, ModelError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(self.wrong(name, "is missing"));
        };
        if entry.elements() != elements {
            return Err(self.wrong(name, &format!("has shape {:?}, {elements} elements are needed", entry.shape)));
        }
        Ok(entry.clone())
    }

    fn finite(&self, name: &str, values: &[f32]) -> Result<(), ModelError> {
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(at) => Err(self.wrong(name, &format!("holds {} at element {at}, which is no number", values[at])).hint(
                "nothing can be computed with it: was it saved after its training had diverged, or converted to a type too narrow for it?",
            )),
        }
    }

    fn dtype_error(&self, name: &str) -> ModelError {
        self.wrong(name, &format!("is {}; f32, bf16 and f16 are read", self.entries[name].dtype))
            .hint("save the weights in f32: a compressed format is chosen by `precisions` of a suite, not by the file")
    }

    fn wrong(&self, name: &str, what: &str) -> ModelError {
        ModelError::new(&self.path, format!("tensor `{}` {what}", shown_name(name)))
    }

    /// Reads the whole file once, in its order: every byte goes into `hash`, the tensors in `wanted` (name in the file, index) into `params`.
    ///
    /// Errors: a dtype that is not read; values that are not finite; a file that changed since its header was read.
    pub(super) fn stream(
        &mut self,
        wanted: &BTreeMap<String, usize>,
        params: &mut [Vec<f32>],
        hash: &mut Sha256,
    ) -> Result<(), ModelError> {
        for name in wanted.keys() {
            if converter(&self.entries[name].dtype).is_none() {
                return Err(self.dtype_error(name));
            }
        }
        hash.update(&self.header);
        let mut order: Vec<(u64, u64, String)> =
            self.entries.iter().map(|(n, e)| (e.begin, e.end, n.clone())).collect();
        order.sort();
        for (.., name) in order {
            let into = wanted.get(&name).copied();
            let convert = converter(&self.entries[&name].dtype).filter(|_| into.is_some());
            let mut values = match into {
                Some(_) => room(&self.path, &name, self.entries[&name].elements())?,
                None => Vec::new(),
            };
            self.pieces(&name, |bytes| {
                hash.update(bytes);
                if let Some(convert) = convert {
                    convert(bytes, &mut values);
                }
            })?;
            if let Some(into) = into {
                self.finite(&name, &values)?;
                params[into] = values;
            }
        }
        Ok(())
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

/// Room for a tensor, or the error that this machine has not so much memory.
fn room<T>(path: &Path, name: &str, elements: usize) -> Result<Vec<T>, ModelError> {
    let mut values = Vec::new();
    let bytes = elements.saturating_mul(size_of::<T>());
    // Linux grants memory that it does not have; what is available is asked beforehand
    let free = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    if bytes > 64 << 20 && free.is_some_and(|free| bytes as u64 > free) || values.try_reserve_exact(elements).is_err() {
        return Err(ModelError::new(
            path,
            format!("tensor `{}` needs {bytes} bytes of memory, which are not free", shown_name(name)),
        )
        .hint("use a machine with more memory, or a smaller model"));
    }
    Ok(values)
}

type Convert = fn(&[u8], &mut Vec<f32>);

/// How bytes of a dtype become f32, for the dtypes that are read.
fn converter(dtype: &str) -> Option<Convert> {
    fn halves(bytes: &[u8], to: fn(u16) -> f32, values: &mut Vec<f32>) {
        values.extend(bytes.chunks_exact(2).map(|b| to(u16::from_le_bytes([b[0], b[1]]))));
    }
    match dtype {
        "F32" => Some(|b, v| v.extend(b.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])))),
        "BF16" => Some(|b, v| halves(b, |h| f32::from_bits(u32::from(h) << 16), v)),
        "F16" => Some(|b, v| halves(b, f16_to_f32, v)),
        _ => None,
    }
}

/// A name from a file, short and without control characters.
pub(crate) fn shown_name(name: &str) -> String {
    name.chars().take(120).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Cursor;

    use super::*;

    /// A file of this header and so many zero bytes.
    pub fn file(header: &str, data: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    }

    fn open(bytes: &[u8]) -> Result<Tensors<Cursor<&[u8]>>, String> {
        Tensors::new(Path::new("w.safetensors"), Cursor::new(bytes)).map_err(|e| e.to_string())
    }

    #[test]
    fn headers_are_checked_before_anything_is_read() {
        let a = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
        let bytes = file(&format!("{{{a}}}   "), 8);
        let mut whole = open(&bytes).map_err(|e| panic!("{e}")).unwrap();
        assert_eq!(whole.floats("a", 2).unwrap(), [0.0, 0.0]);
        for (bytes, words) in [
            (vec![], &["not a whole", "0 bytes"][..]),
            (file(&format!("{{{a}}}"), 7), &["describes 8 bytes", "has 7"]),
            (file(&format!("{{{a}}}"), 9), &["describes 8 bytes", "has 9"]),
            (file(&format!("{{{a},{a}}}"), 8), &["repeated key `a`", "whole"]),
            (
                file(&format!("{{{a},\"__metadata__\":{{}},\"__metadata__\":{{}}}}"), 8),
                &["repeated key `__metadata__`", "whole"],
            ),
            (file(&format!("{{{a},\"__metadata__\":{{\"k\":\"1\",\"k\":\"2\"}}}}"), 8), &["repeated key `k`", "whole"]),
            (file(&format!("{{{a},\"__metadata__\":[\"x\"]}}"), 8), &["`__metadata__`", "is [\"x\"]", "whole"]),
            (file(&format!("{{{a},\"__metadata__\":\"x\"}}"), 8), &["`__metadata__`", "is \"x\"", "whole"]),
            (file(r#"{"a":{"dtype":"XYZ","shape":[2],"data_offsets":[0,8]}}"#, 8), &["tensor `a`", "`XYZ`", "whole"]),
            (file(r#"{"a":{"shape":[2],"data_offsets":[0,8]}}"#, 8), &["tensor `a`", "`dtype` is missing", "whole"]),
            (file(r#"{"a":3}"#, 8), &["tensor `a`", "`dtype` is missing", "whole"]),
            (
                file(&format!("{{{a},\"__metadata__\":{{\"version\":1}}}}"), 8),
                &["metadata values must be strings", "`version` is 1"],
            ),
            (file(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8), &["does not fill"]),
            (
                file(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}"#, 8),
                &["does not fill"],
            ),
            (file(r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, 8), &["whole numbers"]),
            (file(r#"{"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}}"#, 8), &["whole numbers"]),
            (file(r#"{"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}}"#, 8), &["`Q4`"]),
            (file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#, 16), &["begins at byte 8"]),
            (file("[]", 0), &["no JSON object"]),
            (file("", 0), &["not a whole"]),
            (u64::MAX.to_le_bytes().to_vec(), &["claims a header of"]),
            (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), &["Git LFS pointer", "git lfs pull"]),
            (b"PK\x03\x04 and so on".to_vec(), &["zip archive"]),
            (b"GGUF\x03\0\0\0\0\0\0".to_vec(), &["GGUF"]),
            (b"<!DOCTYPE html>".to_vec(), &["web page"]),
            (b"{\"weight_map\": {}}".to_vec(), &["is JSON"]),
            (vec![0; 80], &["not a whole"]),
        ] {
            let error = open(&bytes).err().unwrap_or_else(|| panic!("{words:?}"));
            assert!(words.iter().all(|w| error.contains(w)) && error.contains("hint: "), "{words:?}: {error}");
            assert!(!words.contains(&"whole") || !error.contains("damaged"), "{error}");
        }
        let null = file(&format!("{{{a},\"__metadata__\":null}}"), 8);
        assert!(open(&null).map_err(|e| panic!("{e}")).unwrap().metadata.is_empty());
        let mut nan = file(&format!("{{{a}}}"), 8);
        let at = nan.len() - 4;
        nan[at..].copy_from_slice(&f32::NAN.to_le_bytes());
        let error = open(&nan).map_err(|e| panic!("{e}")).unwrap().floats("a", 2).unwrap_err().to_string();
        assert!(error.contains("tensor `a` holds NaN at element 1") && error.contains("diverged"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = open(&bytes);
            if let Ok(mut found) = open(&file(&String::from_utf8_lossy(&bytes), 16)) {
                for name in found.entries.keys().cloned().collect::<Vec<_>>() {
                    let _ = found.floats(&name, 4);
                }
            }
        }
    }
}
