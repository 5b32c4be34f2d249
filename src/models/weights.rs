//! A model folder's weights: which files they are in, which tensor of them is which parameter, and that none is left over.
//!
//! In: a folder, a graph. Out: one list of f32 a parameter and the hash of the files. Must not: read a tensor before every header was
//! checked against the graph, or pass over a tensor that could change what the model computes.
//!
//! Only the tensors that the net needs are kept; the rest of a file passes through the hash in pieces.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ergometer_files::counted;
use ergometer_suites::text;
use sha2::{Digest, Sha256};

use super::tensors::{Tensors, shown_name};
use super::{MAX_CONFIG_BYTES, ModelError, stripped};
use crate::graph::Graph;

/// The one file of a model that is not sharded.
pub(super) const FILE: &str = "model.safetensors";
/// What says which tensor is in which shard.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Most shards, and largest index.
const MAX_SHARDS: usize = 1024;
const MAX_INDEX_BYTES: u64 = 8 << 20;

/// The files of a folder's weights, in the order in which they are hashed.
pub(super) fn files_of(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let (one, index) = (folder.join(FILE), folder.join(INDEX));
    match (one.exists(), index.exists()) {
        (true, true) => Err(ModelError::new(&index, format!("is there beside {FILE}: the weights are there twice"))
            .hint("remove one of them: a model has one set of weights")),
        (true, false) => Ok(vec![one]),
        (false, true) => Ok(shards(folder, &index)?.into_keys().map(|name| folder.join(name)).collect()),
        (false, false) => Err(absent(folder, &one)),
    }
}

fn absent(folder: &Path, one: &Path) -> ModelError {
    if let Some(dangling) = [one, &folder.join(INDEX)].into_iter().find_map(text::dangling) {
        return dangling.into();
    }
    let error = ModelError::new(one, "cannot be read: there is no such file");
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        names.filter_map(|e| e.file_name().into_string().ok()).filter(|n| !text::is_leftover(n)).collect();
    names.sort();
    let ends = |ends: &[&str]| {
        names.iter().find(|n| ends.iter().any(|e| n.to_lowercase().ends_with(e))).map(|n| shown_name(n))
    };
    if let Some(shard) = ends(&[".safetensors"]) {
        return error
            .hint(format!("`{shard}` is there: weights are in one `{FILE}`, or in shards that `{INDEX}` names"));
    }
    if let Some(other) =
        names.iter().find(|n| n.strip_prefix("step_").is_some_and(|s| s.bytes().all(|b| b.is_ascii_digit())))
    {
        return error.hint(format!(
            "`{}` looks like a released checkpoint of TRM or HRM: `ergometer import` makes a model of it",
            shown_name(other)
        ));
    }
    if let Some(other) = ends(&[".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".npz", ".h5", ".msgpack"]) {
        return error.hint(format!(
            "`{other}` is there, but weights are read from safetensors files: convert it (`safetensors.torch.save_file` in Python)"
        ));
    }
    error.hint("a model is a folder with config.json and model.safetensors")
}

/// The shards that an index names, each with the tensors that it shall hold.
fn shards(folder: &Path, index: &Path) -> Result<BTreeMap<String, Vec<String>>, ModelError> {
    let value = text::read(index, MAX_INDEX_BYTES).and_then(|bytes| text::json(&bytes).map_err(|e| e.in_file(index)));
    let value = value?;
    let fail = |m: String| {
        ModelError::new(index, m)
            .hint("write it as {\"weight_map\": {\"tensor\": \"model-00001-of-00002.safetensors\", ...}}")
    };
    let map = value.get("weight_map").and_then(|m| m.as_object()).filter(|m| !m.is_empty());
    let map = map.ok_or_else(|| fail("`weight_map` is missing, empty or no object".into()))?;
    let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, file) in map {
        let plain = file.as_str().filter(|f| !f.is_empty() && !f.contains(['/', '\\']) && *f != ".." && *f != ".");
        let Some(file) = plain else {
            let shown: String = file.to_string().chars().take(60).collect();
            return Err(fail(format!(
                "tensor `{}` is in {shown}, which is no file of this folder",
                shown_name(tensor)
            )));
        };
        shards.entry(file.into()).or_default().push(tensor.clone());
    }
    if shards.len() > MAX_SHARDS {
        return Err(fail(format!("{} shards; {MAX_SHARDS} are the most", shards.len())));
    }
    if let Some(name) = shards.keys().find(|name| !folder.join(name).exists()) {
        if let Some(dangling) = text::dangling(&folder.join(name)) {
            return Err(dangling.into());
        }
        return Err(ModelError::new(&folder.join(name), format!("is missing: {INDEX} puts tensors into it"))
            .hint("fetch or copy every shard"));
    }
    Ok(shards)
}

/// Reads the parameters of a graph; `hash` has seen the config.
pub(super) fn read(folder: &Path, graph: &Graph, hash: &mut Sha256) -> Result<Vec<Vec<f32>>, ModelError> {
    let paths = files_of(folder)?;
    let mut files = paths.iter().map(|p| Tensors::open(p)).collect::<Result<Vec<_>, _>>()?;
    if !folder.join(FILE).exists() {
        let index = folder.join(INDEX);
        for ((name, listed), (file, path)) in shards(folder, &index)?.iter().zip(files.iter().zip(&paths)) {
            let fail =
                |m: String| Err(ModelError::new(path, m).hint(format!("{INDEX} and its shards must be of one model")));
            if let Some(t) = listed.iter().find(|t| !file.entries.contains_key(*t)) {
                return fail(format!("tensor `{}` is missing, which {INDEX} puts into {name}", shown_name(t)));
            }
            if let Some(t) = file.entries.keys().find(|t| !listed.contains(t)) {
                return fail(format!("tensor `{}` is there, which {INDEX} does not put into it", shown_name(t)));
            }
        }
    }
    let matched = matched(&paths, &files, graph)?;
    let mut params = vec![Vec::new(); graph.params.len()];
    for (file, wanted) in files.iter_mut().zip(&matched) {
        file.stream(wanted, &mut params, hash)?;
    }
    Ok(params)
}

/// Hashes the files of a folder's weights without keeping them.
pub(super) fn hash(folder: &Path, hash: &mut Sha256) -> Result<(), ModelError> {
    for path in files_of(folder)? {
        let mut file = text::open(&path)?;
        let mut piece = vec![0; 1 << 20];
        loop {
            match file.read(&mut piece).map_err(|e| ModelError::new(&path, format!("cannot be read: {e}")))? {
                0 => break,
                n => hash.update(&piece[..n]),
            }
        }
    }
    Ok(())
}

/// For each file, which of its tensors is which parameter. Every parameter is found once, of its shape, and no tensor is left over.
fn matched(
    paths: &[PathBuf],
    files: &[Tensors<File>],
    graph: &Graph,
) -> Result<Vec<BTreeMap<String, usize>>, ModelError> {
    let mut found: Vec<Vec<(usize, &str)>> = vec![Vec::new(); graph.params.len()];
    let index: BTreeMap<&str, usize> = graph.params.iter().enumerate().map(|(i, p)| (p.name.as_str(), i)).collect();
    let mut unused: Vec<(usize, &str)> = Vec::new();
    let mut tensors = 0;
    for (at, file) in files.iter().enumerate() {
        for (name, entry) in &file.entries {
            tensors += 1;
            match index.get(stripped(name)) {
                Some(&i) => found[i].push((at, name)),
                None if harmless(stripped(name), entry.elements()) => {}
                None => unused.push((at, name)),
            }
        }
    }
    let mut matched = vec![BTreeMap::new(); files.len()];
    for ((i, p), places) in graph.params.iter().enumerate().zip(&found) {
        let [(at, name)] = places[..] else {
            let error = if let [(at, first), (_, second), ..] = places[..] {
                let n = places.len();
                let names = format!("`{}` and `{}`", shown_name(first), shown_name(second));
                ModelError::new(&paths[at], format!("tensor `{}` is there {n} times: {names}", p.name))
                    .hint("save one set of weights: which of them is meant cannot be known")
            } else {
                ModelError::new(&paths[0], format!("tensor `{}` is missing", p.name))
                    .hint(why_missing(&p.name, &unused).unwrap_or_else(|| {
                    let of = graph.params.len();
                    format!(
                        "the config describes {of} tensors, the file holds {tensors}: check that both belong together"
                    )
                }))
            };
            return Err(error);
        };
        let shape = &files[at].entries[name].shape;
        if *shape != p.shape {
            let reversed: Vec<usize> = p.shape.iter().rev().copied().collect();
            let message =
                format!("tensor `{}` has shape {shape:?}, the config asks for {:?}", shown_name(name), p.shape);
            return Err(if *shape == reversed {
                ModelError::new(&paths[at], format!("{message}: it is transposed"))
                    .hint("matrices are [out, in], as PyTorch writes them: transpose it before it is saved")
            } else {
                ModelError::new(&paths[at], message).hint("check that config.json and the weights belong together")
            });
        }
        matched[at].insert(name.to_owned(), i);
    }
    if let Some((at, _)) = unused.first() {
        let names: Vec<String> = unused.iter().take(4).map(|(_, n)| format!("`{}`", shown_name(n))).collect();
        let more = if unused.len() > 4 { format!(" and {} more", unused.len() - 4) } else { String::new() };
        let hint = if unused.iter().any(|(_, n)| is_average(n)) {
            "the file holds a second, averaged set of weights (EMA): save the set alone that is to be measured"
        } else {
            "the config describes a smaller net than the file holds (layers, puzzle embeddings, heads?): check that both belong together, or \
             save the file without what the net does not use"
        };
        let unused = counted(unused.len(), "tensor");
        return Err(ModelError::new(
            &paths[*at],
            format!("{unused} that the net does not use: {}{more}", names.join(", ")),
        )
        .hint(hint));
    }
    Ok(matched)
}

/// Why a parameter could be missing, from the tensors that nobody takes.
fn why_missing(name: &str, unused: &[(usize, &str)]) -> Option<String> {
    let packed = ["qweight", "qzeros", "scales", "absmax", "weight_packed", "quant_state", "weight_scale"];
    if let Some((_, t)) = unused.iter().find(|(_, t)| t.split('.').any(|part| packed.contains(&part))) {
        return Some(format!(
            "`{}` is of packed, quantised weights, which are not read: save the model in f32, bf16 or f16",
            shown_name(t)
        ));
    }
    if let Some((_, t)) = unused.iter().find(|(_, t)| t.ends_with(&format!(".{name}"))) {
        let prefix = &t[..t.len() - name.len()];
        return Some(format!("`{}` is there: save it without `{}`", shown_name(t), shown_name(prefix)));
    }
    (name == "lm_head.weight").then(|| {
        "if the head is tied to the embedding, save it as a tensor of its own: a shared tensor is written once, and nets here have two".into()
    })
}

/// Whether a name says that it is of an average of weights.
pub(crate) fn is_average(name: &str) -> bool {
    name.split(['.', '_']).any(|part| ["ema", "shadow", "averaged"].contains(&part))
}

/// Whether a tensor that no parameter takes changes nothing that a net computes: a scalar (counts of steps and batches), the state of an
/// optimiser, a table that is computed from the config (rotary embeddings, positions), a trainer's scratch space. What such a name is only a
/// part of (`layers.3.rope.weight`) is none.
pub(crate) fn harmless(name: &str, elements: usize) -> bool {
    /// What a file begins with that holds a trainer's state beside the net.
    const STATE: [&str; 4] = ["optimizer", "optimiser", "optim", "opt_state"];
    /// What an optimiser or a trainer calls its own tensors, and tables that follow from a config.
    const NAMES: [&str; 12] = [
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
        "momentum_buffer",
        "adam_m",
        "adam_v",
        "inv_freq",
        "cos_cached",
        "sin_cached",
        "freqs_cis",
        "position_ids",
        "rng_state",
    ];
    /// Tables of a module of rotary embeddings, and the copies that a training of puzzle embeddings works on.
    const BELOW: [(&str, &[&str]); 3] = [
        ("rotary_emb", &["cos", "sin", "original_inv_freq"]),
        ("rope", &["cos", "sin", "cache", "freqs"]),
        ("puzzle_emb", &["local_weights", "local_ids"]),
    ];
    let parts: Vec<&str> = name.split('.').collect();
    let last = parts.last().copied().unwrap_or_default();
    let module = parts.iter().rev().nth(1).copied().unwrap_or_default();
    // a count is a scalar, and a weight of one element is a weight
    (elements <= 1 && !["weight", "bias"].contains(&last))
        || STATE.contains(&parts[0])
        || NAMES.contains(&last)
        || BELOW.iter().any(|(of, names)| *of == module && names.contains(&last))
}

/// The config's text.
pub(super) fn config_bytes(folder: &Path) -> Result<Vec<u8>, ModelError> {
    super::read_capped(&folder.join("config.json"), MAX_CONFIG_BYTES)
}
