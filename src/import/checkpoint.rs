//! A file of `torch.save`: which tensors are in it, under which names, and the bytes of each.
//!
//! In: a path. Out: [`Checkpoint`]. Must not: run what a pickle asks for, or take a tensor's size on trust: what the
//! archive holds decides.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use ergometer_files::Links;
use ergometer_suites::text;
use ergometer_suites::zip::{Packing, ZipArchive};

use super::pickle::{self, PickleId, PickleValue, PickleValues, StoredTensor};
use crate::models::ModelError;
use crate::models::tensors::shown_name;

/// Largest checkpoint, bytes: twenty times the largest that is known.
pub(super) const MAX_BYTES: u64 = 64 << 30;
/// Largest pickle; that of a released checkpoint has 10 KB.
const MAX_PICKLE: u64 = 16 << 20;
/// Most levels of dictionaries, and most entries of all of them.
const MAX_DEPTH: usize = 8;
const MAX_ENTRIES: usize = 1 << 16;
/// Longest name of a tensor with those of the dictionaries around it, bytes.
const MAX_NAME: usize = 1024;
/// What the oldest files of PyTorch begin with: a pickled number that no version since 1.6 writes.
const OLD: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
const NOT_ZIP: &str =
    "name the file that `torch.save` wrote (of the released runs `step_N`), in the form of PyTorch 1.6 and later";

const SAVE_AGAIN: &str =
    "name the file that `torch.save` wrote, as it was written: an archive that was packed anew is not read";

/// An open checkpoint.
pub struct Checkpoint<R> {
    path: PathBuf,
    archive: ZipArchive<R>,
    /// What the names of all entries begin with, up to the slash.
    root: String,
    /// By name: the keys of all dictionaries around it, with dots between.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// The optimiser step that it notes beside its tensors.
    pub step: Option<i64>,
}

impl Checkpoint<File> {
    /// Opens a file.
    ///
    /// # Errors
    /// As [`Checkpoint::new`], and no such file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = ergometer_files::open(path, MAX_BYTES, Links::Followed).map_err(|e| {
            text::dangling(path).map_or_else(
                || {
                    ModelError::new(path, format!("cannot be read: {e}"))
                        .hint("name a checkpoint that `torch.save` wrote")
                },
                ModelError::from,
            )
        })?;
        Self::new(path, file)
    }
}

impl<R: Read + Seek> Checkpoint<R> {
    /// Reads the archive's directory and its pickle; `path` is what errors call the file.
    ///
    /// # Errors
    /// No archive of `torch.save`, a pickle that asks for more than tensors, a tensor that does not fit what the
    /// archive holds.
    pub fn new(path: &Path, mut from: R) -> Result<Self, ModelError> {
        let fail = |m: String| ModelError::new(path, m);
        let mut head = Vec::new();
        (&mut from).take(512).read_to_end(&mut head).map_err(|e| fail(format!("cannot be read: {e}")))?;
        if head.starts_with(OLD) {
            return Err(fail("is a file of PyTorch before version 1.6".into())
                .hint("where you trust it, load it and save it again with a later PyTorch: `torch.save(torch.load(...), ...)`"));
        }
        if !head.starts_with(b"PK\x03\x04") {
            let what = text::sniff(&head).map_or(String::new(), |(what, _)| format!(": it is {what}"));
            return Err(fail(format!("no checkpoint of PyTorch, which is a zip archive{what}")).hint(NOT_ZIP));
        }
        let mut archive = ZipArchive::new(path, from, Packing::Stored("PyTorch", SAVE_AGAIN))?;
        let pickles: Vec<&str> =
            archive.names().filter(|n| n.ends_with("/data.pkl") && n.matches('/').count() == 1).collect();
        let [pickle] = pickles[..] else {
            return Err(fail(format!("has {} entries called `data.pkl`, where a checkpoint has one", pickles.len()))
                .hint(NOT_ZIP));
        };
        let root = pickle.trim_end_matches("data.pkl").to_owned();
        if archive
            .names()
            .any(|n| n.strip_prefix(&root).is_some_and(|n| n == "constants.pkl" || n.starts_with("code/")))
        {
            return Err(fail("is a program that `torch.jit.save` wrote, not a checkpoint".into()).hint(NOT_ZIP));
        }
        let order = format!("{root}byteorder");
        if archive.size(&order).is_some() && archive.whole(&order, 64)?.trim_ascii() != b"little" {
            return Err(fail("was written by a machine of the other byte order".into())
                .hint("load it in PyTorch and save it again on a little-endian machine"));
        }
        let bytes = archive.whole(&format!("{root}data.pkl"), MAX_PICKLE)?;
        let values = pickle::read(&bytes)
            .map_err(|e| fail(format!("entry `{}data.pkl`, {}", shown_name(&root), e.message)).hint(e.hint))?;
        let mut found = TensorSearch { values: &values, tensors: BTreeMap::new(), step: None, entries: 0 };
        found.look(values.root, String::new(), 0).map_err(|m| {
            fail(format!("entry `{}data.pkl`: {m}", shown_name(&root)))
                .hint("save the net's tensors alone: `torch.save(model.state_dict(), \"step_N\")`")
        })?;
        let TensorSearch { tensors, step, .. } = found;
        for (name, tensor) in &tensors {
            fits(&archive, &root, tensor).map_err(|m| {
                fail(format!("tensor `{}` {m}", shown_name(name))).hint("fetch or copy it again: it is damaged")
            })?;
        }
        Ok(Self { path: path.to_owned(), archive, root, tensors, step })
    }

    /// Bytes of a tensor, piece by piece; a piece holds whole elements.
    ///
    /// # Errors
    /// It is not contiguous, its entry is not as the directory says, or what `take` gives.
    pub fn bytes(
        &mut self,
        name: &str,
        take: &mut dyn FnMut(&[u8]) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(ModelError::new(&self.path, format!("tensor `{}` is missing", shown_name(name))));
        };
        if !tensor.contiguous() {
            let message = format!(
                "tensor `{}` has strides {:?} for {:?}: it is a view",
                shown_name(name),
                tensor.strides,
                tensor.shape
            );
            return Err(ModelError::new(&self.path, message).hint("save it as `tensor.contiguous()`"));
        }
        let size = tensor.element.size as u64;
        // both were held to the archive, so that neither overflows
        let begin = tensor.offset * size;
        let end = begin + tensor.elements().unwrap_or(0) * size;
        let entry = format!("{}data/{}", self.root, tensor.key);
        let mut at = 0;
        self.archive.pieces(&entry, &mut |piece| {
            let (from, to) = (at, at + piece.len() as u64);
            at = to;
            let (first, last) = (begin.clamp(from, to) - from, end.clamp(from, to) - from);
            if first < last { take(&piece[first as usize..last as usize]) } else { Ok(()) }
        })
    }
}

/// Whether a tensor lies in its entry, and that entry in the archive; else what is wrong.
fn fits<R: Read + Seek>(archive: &ZipArchive<R>, root: &str, tensor: &StoredTensor) -> Result<(), String> {
    let Some(bytes) = archive.size(&format!("{root}data/{}", tensor.key)) else {
        return Err(format!("is in entry `data/{}`, which is not there", shown_name(&tensor.key)));
    };
    let size = tensor.element.size as u64;
    if tensor.stored.checked_mul(size) != Some(bytes) {
        let (stored, dtype) = (tensor.stored, tensor.element.dtype);
        return Err(format!("is in an entry of {stored} elements of {dtype}, which has {bytes} bytes"));
    }
    let end = tensor.elements().and_then(|n| n.checked_add(tensor.offset));
    match end {
        Some(end) if end <= tensor.stored => Ok(()),
        _ => Err(format!(
            "of shape {:?} begins at element {} of an entry that has {}",
            tensor.shape, tensor.offset, tensor.stored
        )),
    }
}

/// What is found in the dictionaries of a pickle.
struct TensorSearch<'a> {
    values: &'a PickleValues,
    tensors: BTreeMap<String, StoredTensor>,
    step: Option<i64>,
    entries: usize,
}

impl TensorSearch<'_> {
    fn look(&mut self, id: PickleId, name: String, depth: usize) -> Result<(), String> {
        match &self.values[id] {
            PickleValue::Tensor(tensor) => {
                let before = self.tensors.insert(name.clone(), tensor.clone());
                if before.is_some() {
                    return Err(format!("tensor `{}` is there twice", shown_name(&name)));
                }
            }
            PickleValue::Dict(pairs) => {
                if depth == MAX_DEPTH {
                    return Err(format!("dictionaries in dictionaries, more than {MAX_DEPTH} deep"));
                }
                self.entries += pairs.len();
                if self.entries > MAX_ENTRIES {
                    return Err(format!("more than {MAX_ENTRIES} entries of dictionaries"));
                }
                for (key, value) in pairs {
                    let key = match &self.values[*key] {
                        PickleValue::Text(text) if text.len() > MAX_NAME => {
                            return Err(format!("a name of more than {MAX_NAME} bytes"));
                        }
                        PickleValue::Text(text) => text.clone(),
                        PickleValue::Int(n) => n.to_string(),
                        _ => return Err("the key of a dictionary is neither a text nor a number".into()),
                    };
                    let dot = if name.is_empty() { "" } else { "." };
                    if name.len() + key.len() >= MAX_NAME {
                        return Err(format!("a name of more than {MAX_NAME} bytes"));
                    }
                    self.look(*value, format!("{name}{dot}{key}"), depth + 1)?;
                }
            }
            PickleValue::Int(n) if depth == 1 && ["step", "global_step", "train_step"].contains(&&*name) => {
                self.step = Some(*n)
            }
            _ if depth == 0 => return Err("it holds no dictionary of tensors".into()),
            _ => {}
        }
        Ok(())
    }
}
