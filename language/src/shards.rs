//! Tensors of a Hugging Face folder: one `model.safetensors`, or shards that an index names.
//!
//! In: a folder. Out: the table of its tensors. Must not: read a tensor, or use a file that the index does not name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
};

use ergometer_files::{Links, counted};
use safetensors::{Dtype, tensor::Metadata};
use serde_json::Value;

use crate::{
    blocks::BlockType,
    error::{LanguageError, shown},
    table::{TableEntry, TensorTable, read_exact},
};

/// The one file of a model that is not sharded.
const FILE: &str = "model.safetensors";
/// What says which tensor is in which shard.
const INDEX: &str = "model.safetensors.index.json";
/// Longest header; real ones need less than a tenth of it.
const MAX_HEADER: u64 = 16 << 20;
const MAX_INDEX: u64 = 16 << 20;
const MAX_SHARDS: usize = 1024;
const MAX_FILE: u64 = 1 << 42;

/// The table of a folder's tensors.
///
/// # Errors
/// There are no weights or two sets; a shard is missing, or holds other tensors than the index says; a header is not as
/// the format asks; a type is not read.
pub(crate) fn table(folder: &Path) -> Result<TensorTable, LanguageError> {
    let (one, index) = (folder.join(FILE), folder.join(INDEX));
    let shards = match (one.exists(), index.exists()) {
        // an index of one shard, as other libraries write it
        (true, true) if shards(&index)?.keys().eq([FILE]) => shards(&index)?,
        (true, true) => {
            return Err(LanguageError::new(&index, format!("is there beside {FILE}: the weights are there twice"))
                .hint("remove one of them: a model has one set of weights"));
        }
        (false, true) => shards(&index)?,
        (_, false) => BTreeMap::from([(FILE.to_owned(), BTreeSet::new())]),
    };
    let (mut files, mut entries) = (Vec::new(), BTreeMap::new());
    for (name, listed) in &shards {
        let path = folder.join(name);
        let (file, found) = header(&path, files.len())?;
        if !listed.is_empty() {
            let names: BTreeSet<&String> = found.keys().collect();
            // masks are passed over in a shard, too
            let listed: BTreeSet<&String> = listed.iter().filter(|n| found.contains_key(*n) || !harmless(n)).collect();
            if let Some(other) = names.symmetric_difference(&listed).next() {
                let other_name = shown(other);
                let message = match listed.contains(other) {
                    true => format!("tensor `{other_name}` is missing, which {INDEX} puts into it"),
                    false => format!("tensor `{other_name}` is there, which {INDEX} does not put into it"),
                };
                return Err(LanguageError::new(&path, message)
                    .hint(format!("{INDEX} and its shards must be of one model: fetch them again")));
            }
        }
        files.push((path, file));
        entries.extend(found);
    }
    Ok(TensorTable::new(files, entries))
}

/// The shards that an index names, each with its tensors.
fn shards(index: &Path) -> Result<BTreeMap<String, BTreeSet<String>>, LanguageError> {
    let bytes = ergometer_files::read(index, MAX_INDEX, Links::Followed).map_err(|e| LanguageError::io(index, &e))?;
    let fail = |message: String| {
        LanguageError::new(index, message)
            .hint("an index is {\"weight_map\": {\"tensor\": \"model-00001-of-00002.safetensors\", ...}}")
    };
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| fail(format!("no JSON: {e}")))?;
    let map = value.get("weight_map").and_then(Value::as_object).filter(|map| !map.is_empty());
    let map = map.ok_or_else(|| fail("`weight_map` is missing, empty or no object".into()))?;
    let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (tensor, file) in map {
        let plain = |f: &&str| !f.is_empty() && !f.contains(['/', '\\', '\0']) && !f.starts_with('.');
        let Some(file) = file.as_str().filter(plain) else {
            let (tensor, file) = (shown(tensor), shown(&file.to_string()));
            return Err(fail(format!("tensor `{tensor}` is in {file}, which is no file of this folder")));
        };
        shards.entry(file.into()).or_default().insert(tensor.clone());
    }
    if shards.len() > MAX_SHARDS {
        return Err(fail(format!("{}; {MAX_SHARDS} are the most", counted(shards.len(), "shard"))));
    }
    Ok(shards)
}

/// An open file and its checked entries.
fn header(path: &Path, number: usize) -> Result<(File, BTreeMap<String, TableEntry>), LanguageError> {
    let opened = ergometer_files::open(path, MAX_FILE, Links::Followed);
    let file = opened.map_err(|e| {
        let hint = "a model is a folder with config.json and model.safetensors, or an index with all its shards; other weights (pytorch_model.bin) are saved anew by `save_pretrained`";
        LanguageError::io(path, &e).hint(hint)
    })?;
    let io = |e: std::io::Error| LanguageError::io(path, &e);
    let size = file.metadata().map_err(io)?.len();
    let fail = |message: String| LanguageError::new(path, message);
    let mut length = [0; 8];
    if size < 8 {
        return Err(fail(format!("no safetensors file: {size} bytes; a header has eight and more")));
    }
    read_exact(&file, &mut length, 0).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER.min(size - 8) {
        return Err(fail(format!("no safetensors file: it claims a header of {length} bytes and has {size} in all")));
    }
    let mut bytes = vec![0; length as usize];
    read_exact(&file, &mut bytes, 8).map_err(io)?;
    // the library checks that shapes, types and places agree and that no place is twice or empty
    let metadata: Metadata =
        serde_json::from_slice(&bytes).map_err(|e| fail(format!("its header is not as the format asks: {e}")))?;
    let mut entries = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let kind = match info.dtype {
            Dtype::F32 => BlockType::F32,
            Dtype::F16 => BlockType::F16,
            Dtype::BF16 => BlockType::Bf16,
            // masks and counts of older files; the naming says whether they may be left over
            Dtype::BOOL | Dtype::U8 | Dtype::I64 if harmless(&name) => continue,
            other => {
                return Err(fail(format!("tensor `{}` is of type {other:?}, which is not read", shown(&name)))
                    .hint("save the model in F32, F16 or BF16; packed weights are read from GGUF files"));
            }
        };
        let (begin, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let place = 8 + length + begin;
        if end < begin || 8 + length + end > size {
            return Err(fail(format!("tensor `{}` ends at byte {} of {size}", shown(&name), 8 + length + end)));
        }
        if info.shape.is_empty() || info.shape.contains(&0) {
            return Err(fail(format!(
                "tensor `{}` has shape {:?}; it has no elements or no axis",
                shown(&name),
                info.shape
            ))
            .hint("save the model without it: no net that is read has such a tensor"));
        }
        let entry = TableEntry { kind, shape: info.shape.clone(), file: number, begin: place, bytes: end - begin };
        entries.insert(name, entry);
    }
    Ok((file, entries))
}

/// Whether a name is of a mask that the net makes itself.
fn harmless(name: &str) -> bool {
    name.ends_with("attn.bias") || name.ends_with("attention.bias") || name.ends_with("position_ids")
}
