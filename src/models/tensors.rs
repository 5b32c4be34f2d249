//! The tensors of a safetensors file whose header was checked ([`TensorFile`]), as numbers.
//!
//! In: something to read and seek in. Out: the tensors that are asked for. Must not: hold more than was asked for, or take what is no number.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::ops::Deref;
use std::path::Path;

pub use ergometer_suites::tensors::{TensorEntry, TensorFile, shown_name};
use sha2::{Digest, Sha256};

use super::{ModelError, f16_to_f32};

/// A file whose header was checked, and from which tensors are read.
pub struct Tensors<R> {
    file: TensorFile<R>,
}

impl<R> Deref for Tensors<R> {
    type Target = TensorFile<R>;

    fn deref(&self) -> &TensorFile<R> {
        &self.file
    }
}

impl Tensors<File> {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Ok(Self { file: TensorFile::open(path)? })
    }
}

impl<R: Read + Seek> Tensors<R> {
    /// Reads and checks the header; `path` is what errors call it.
    pub fn new(path: &Path, from: R) -> Result<Self, ModelError> {
        Ok(Self { file: TensorFile::new(path, from)? })
    }

    /// The tensor `name` as f32; errors where it is missing, of another number of elements, not floating point, or not finite.
    pub fn floats(&mut self, name: &str, elements: usize) -> Result<Vec<f32>, ModelError> {
        let entry = self.entry(name, elements)?;
        let Some(convert) = converter(&entry.dtype) else {
            return Err(self.dtype_error(name));
        };
        let mut values = room(&self.path, name, elements)?;
        self.file.pieces(name, |bytes| convert(bytes, &mut values))?;
        self.finite(name, &values)?;
        Ok(values)
    }

    /// The tensor `name` of 32-bit integers as they lie in the file.
    pub fn words(&mut self, name: &str, dtype: &str, elements: usize) -> Result<Vec<u32>, ModelError> {
        if self.entry(name, elements)?.dtype != dtype {
            return Err(self.wrong(name, &format!("is {}, not {dtype}", self.entries[name].dtype)));
        }
        let mut values = room(&self.path, name, elements)?;
        self.file
            .pieces(name, |b| values.extend(b.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))))?;
        Ok(values)
    }

    /// The bytes of the tensor `name` as they lie in the file.
    pub fn raw(&mut self, name: &str, dtype: &str, elements: usize) -> Result<Vec<u8>, ModelError> {
        if self.entry(name, elements)?.dtype != dtype {
            return Err(self.wrong(name, &format!("is {}, not {dtype}", self.entries[name].dtype)));
        }
        let mut values = Vec::new();
        self.file.pieces(name, |bytes| values.extend_from_slice(bytes))?;
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
            self.file.pieces(&name, |bytes| {
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
