//! Released checkpoints of TRM and HRM as model folders: `ergometer import`.
//!
//! In: a file of `torch.save` and the config of the run that wrote it. Out: a folder with `config.json`,
//! `model.safetensors` and a card that says where each came from. Must not: run code of a checkpoint, take a net for
//! another one, or be silent about what its files do not tell.
//!
//! A released run leaves `step_N`, the dictionary of a net's tensors, beside `all_config.yaml`. What the config does
//! not have (the vocabulary, the number of puzzles, the length of a grid) stands in the `dataset.json` of its data, and
//! all but the last in the shapes of the tensors too.
//!
//! A file of `torch.save` is a zip archive of a pickle and of raw storages, and a pickle is a program. [`pickle`] reads
//! it as data: an allow-list of instructions and of the names that tensors need; any other name is refused as what it
//! is, and nothing is called. Instructions, entries, depth and sizes are bounded. A tensor must lie within its storage,
//! and that within the archive; tensors are copied piece by piece.
//!
//! `matching` holds names and shapes to the graph that the config builds, and keeps raw and averaged weights apart: of
//! two sets neither is taken unasked. A key of the architecture that the released code does not have is refused unless
//! it is off. A table of several puzzle ids gets a `puzzle_numbering` of its own, so that no task of ours takes it for
//! its own.

pub mod checkpoint;
pub mod config;
mod matching;
pub mod pickle;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use ergometer_files::Links;
use safetensors::Dtype;
use serde::Serialize;
use serde_json::{Map, Value, json};

use self::checkpoint::Checkpoint;
use self::matching::ParamSource;
pub use self::matching::WeightSet;
use self::pickle::StoredTensor;
use crate::graph::{Graph, Role};
use crate::interrupt;
use crate::models::tensors::shown_name;
use crate::models::{self, ModelError, to_f32};

/// Parts of names of classes, as `arch.name` has them, and the family that each is.
const CLASSES: [(&str, &str, &str); 3] = [
    ("trm", "TinyRecursiveReasoningModel_ACTV1", "trm"),
    ("hrm_act_v1", "HierarchicalReasoningModel_ACTV1", "hrm"),
    ("hrm", "HierarchicalReasoningModel_ACTV1", "hrm"),
];
/// Keys of `arch` that decide what a net computes, which go into `config.json` as they are.
const KEPT: [&str; 13] = [
    "H_cycles",
    "L_cycles",
    "H_layers",
    "L_layers",
    "hidden_size",
    "num_heads",
    "expansion",
    "pos_encodings",
    "puzzle_emb_ndim",
    "halt_max_steps",
    "rms_norm_eps",
    "rope_theta",
    "forward_dtype",
];
/// Keys that matter for TRM alone: HRM's released code ignores them.
const TRM: [&str; 2] = ["mlp_t", "puzzle_emb_len"];
/// Keys that matter while training alone, or that say what the net's class does anyway.
const TRAINING: [&str; 8] =
    ["name", "loss", "halt_exploration_prob", "no_ACT_continue", "causal", "batch_size", "ema", "ema_rate"];
/// Keys that the shapes of tensors have to agree with.
const SHAPES: [&str; 3] = ["vocab_size", "seq_len", "num_puzzle_identifiers"];
/// TRM's released default of the tokens before a grid.
const PUZZLE_LEN: u64 = 16;

/// What to import.
#[derive(Debug)]
pub struct ImportRequest {
    /// The file of `torch.save`.
    pub checkpoint: PathBuf,
    /// The config; none: `all_config.yaml` beside it.
    pub config: Option<PathBuf>,
    /// `dataset.json` of the data that it was trained with.
    pub dataset: Option<PathBuf>,
    /// Cells of a grid.
    pub seq_len: Option<usize>,
    /// Which set of weights.
    pub weights: Option<WeightSet>,
    /// The numbering of its puzzles, as a task of ours has it.
    pub numbering: Option<String>,
    /// Folder to write.
    pub out: PathBuf,
    /// A model that is there is overwritten.
    pub force: bool,
}

/// What was imported.
#[derive(Debug, Serialize)]
pub struct Imported {
    /// The folder.
    pub folder: PathBuf,
    /// Family.
    pub family: &'static str,
    /// Name of the checkpoint's file.
    pub source: String,
    /// Its sha256, hex.
    pub sha256: String,
    /// Tensors that were taken.
    pub tensors: usize,
    /// Parameters, without the table of puzzle embeddings and buffers.
    pub parameters: usize,
    /// Rows of the table of puzzle embeddings; none: it has no table.
    pub puzzle_ids: Option<usize>,
    /// Averaged weights or raw ones, and how that is known.
    pub weights: String,
    /// Optimiser steps, where the file's name or the file says.
    pub step: Option<i64>,
    /// What a reader of its scores must know.
    pub notes: Vec<String>,
}

/// Imports a checkpoint.
///
/// # Errors
/// What is wrong with a file, with its place and remedy; a model that is there already.
pub fn import(request: &ImportRequest) -> anyhow::Result<Imported> {
    let weights = request.out.join("model.safetensors");
    for there in [&weights, &request.out.join("config.json")] {
        ensure!(
            request.force || there.symlink_metadata().is_err(),
            "{} is already there\nhint: name a new folder with `--out`, or `--force` overwrites it",
            there.display()
        );
    }
    let mut checkpoint = Checkpoint::open(&request.checkpoint)?;
    let beside = request.checkpoint.with_file_name("all_config.yaml");
    let path = request.config.as_deref().unwrap_or(&beside);
    let read = config::read(path).map_err(|e| match request.config {
        None => e.hint(
            "`--config FILE` names the run's config; the released runs have all_config.yaml beside their checkpoints",
        ),
        Some(_) => e,
    })?;
    let ReleasedNet { family, mut config, mut notes } = net(path, &read, &checkpoint.tensors, request)?;
    let graph = models::build_graph(&config).map_err(|mut e| {
        e.file = path.display().to_string();
        e
    })?;
    let chosen = matching::choose(&request.checkpoint, &checkpoint.tensors, &graph, request.weights)?;
    let told = matching::told(path, family, read.get("ema"), &chosen, request.weights)?;
    let places = matching::matched(&request.checkpoint, &checkpoint.tensors, &graph, chosen)?;
    let source = request.checkpoint.file_name().map_or_else(String::new, |n| shown_name(&n.to_string_lossy()));
    let step = source.strip_prefix("step_").and_then(|n| n.parse().ok()).or(checkpoint.step);
    let sha256 = crate::files::sha256(&request.checkpoint, checkpoint::MAX_BYTES, Links::Followed)
        .with_context(|| format!("cannot read {}", request.checkpoint.display()))?;
    let table = graph.params.iter().find(|p| p.role == Role::PuzzleTable).map(|p| p.shape[0]);
    notes.extend(about_ids(table, request.numbering.as_deref()));
    if let Some(numbering) = numbering(table, request.numbering.as_deref(), &sha256) {
        config[models::NUMBERING] = numbering.into();
    }
    // as trainers record it, so that accuracies of unlike weights are told apart
    if let Some(set) = told.set {
        let kind = if set == WeightSet::Ema { "moving average" } else { "last" };
        let step = step.map_or_else(String::new, |n| format!(", step {n}"));
        config[models::WEIGHTS] = format!("{kind}{step}, of an imported checkpoint").into();
    }
    config["imported"] = json!({"source": source, "sha256": sha256, "weights": told.words, "step": step});
    let imported = Imported {
        folder: request.out.clone(),
        family,
        source,
        sha256,
        tensors: places.len(),
        parameters: graph.params.iter().filter(|p| p.role == Role::Weight).map(|p| p.elements()).sum(),
        puzzle_ids: table,
        weights: told.words,
        step,
        notes,
    };
    std::fs::create_dir_all(&request.out).with_context(|| format!("cannot create {}", request.out.display()))?;
    // an old config beside new weights would be another net
    match std::fs::remove_file(request.out.join("config.json")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot replace {}", request.out.join("config.json").display()));
        }
        _ => {}
    }
    write_weights(&mut checkpoint, &graph, &places, &weights)?;
    crate::files::write_atomically(&request.out.join("README.md"), card(&imported, &config, path).as_bytes())?;
    let mut text = serde_json::to_string_pretty(&config)?;
    text.push('\n');
    // the config last: where it is, its weights are
    crate::files::write_atomically(&request.out.join("config.json"), text.as_bytes())?;
    Ok(imported)
}

/// A net as its config and its tensors tell of it.
struct ReleasedNet {
    family: &'static str,
    config: Value,
    notes: Vec<String>,
}

/// The keys of `arch` that decide the net, and the names of those that are off and unknown here.
fn kept(path: &Path, arch: &Map<String, Value>, family: &str) -> Result<(Map<String, Value>, Vec<String>), ModelError> {
    let mut config = Map::new();
    config.insert("model_type".into(), family.into());
    let (mut ignored, mut unknown) = (Vec::new(), Vec::new());
    for (key, value) in arch {
        let known = |keys: &[&str]| keys.contains(&key.as_str());
        if known(&KEPT) || (family == "trm" && known(&TRM)) || known(&SHAPES) {
            if !value.is_null() {
                config.insert(key.clone(), value.clone());
            }
        } else if !known(&TRAINING) && key != "model_type" {
            // a switch that is off changes nothing, whatever it is called
            let off = value.is_null() || *value == json!(false) || value.as_f64() == Some(0.0);
            if off { ignored.push(key.clone()) } else { unknown.push(key.clone()) }
        }
    }
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.iter().map(|k| format!("`{}`", shown_name(k))).collect();
        let message =
            format!("`arch` has {}, which the released {} does not have", names.join(", "), family.to_uppercase());
        return Err(ModelError::new(path, message)
            .hint("it is of a changed architecture, whose answers would be others here; a key that matters while training alone can be taken out of a copy of the config"));
    }
    Ok((config, ignored))
}

/// The net's `config.json`.
fn net(
    path: &Path,
    read: &Value,
    tensors: &BTreeMap<String, StoredTensor>,
    request: &ImportRequest,
) -> Result<ReleasedNet, ModelError> {
    let fail = |m: String| ModelError::new(path, m);
    let arch = read.get("arch").unwrap_or(read);
    let Some(arch) = arch.as_object().filter(|a| !a.is_empty()) else {
        return Err(
            fail("has no block `arch`".into()).hint("name the all_config.yaml of the run that wrote the checkpoint")
        );
    };
    let family = family(path, arch)?;
    let trm = family == "trm";
    let (mut config, ignored) = kept(path, arch, family)?;
    if trm && !config.contains_key("puzzle_emb_len") {
        config.insert("puzzle_emb_len".into(), PUZZLE_LEN.into());
    }
    swapped(path, &request.checkpoint, family, &config, tensors)?;
    let shape = |name: &str| {
        let ends = |n: &&String| *n == name || n.ends_with(&format!(".{name}"));
        tensors.iter().find(|(n, _)| ends(n)).map(|(_, t)| t.shape.clone())
    };
    let dataset = request.dataset.as_deref().map(|d| Ok::<_, ModelError>((d, config::read(d)?))).transpose()?;
    let told = |key: &str| -> Vec<(String, u64)> {
        let own = arch.get(key).and_then(Value::as_u64).map(|n| (path.display().to_string(), n));
        let of_data = dataset.as_ref().and_then(|(d, v)| Some((d.display().to_string(), v.get(key)?.as_u64()?)));
        own.into_iter().chain(of_data).collect()
    };
    if let Some([ids, _]) = shape("puzzle_emb.weights").as_deref() {
        agree(request, "num_puzzle_identifiers", told("num_puzzle_identifiers"), *ids, |n| {
            format!(
                "the table of puzzle embeddings has {ids} rows, and the puzzles of the task are {n}: its ids stand for other puzzles"
            )
        })?;
        config.insert("num_puzzle_identifiers".into(), (*ids).into());
    } else if config.get("puzzle_emb_ndim").and_then(Value::as_u64).unwrap_or(0) > 0 {
        // said as a missing tensor, with whatever number of rows
        config.entry("num_puzzle_identifiers").or_insert(1.into());
    }
    if let Some([vocabulary, _]) = shape("embed_tokens.embedding_weight").as_deref() {
        agree(request, "vocab_size", told("vocab_size"), *vocabulary, |n| {
            format!("the embedding of tokens has {vocabulary} rows, and the vocabulary has {n}")
        })?;
        config.insert("vocab_size".into(), (*vocabulary).into());
    }
    let mut notes = Vec::new();
    let length = grid(&config, &shape, told("seq_len"), request)?;
    config.insert("seq_len".into(), length.into());
    if !ignored.is_empty() {
        notes.push(format!(
            "Keys of the config that are off and unknown here, and were left out: {}.",
            ignored.join(", ")
        ));
    }
    if trm && arch.get("no_ACT_continue") == Some(&json!(false)) {
        notes.push(
            "Trained with `no_ACT_continue: false`, to halt where q_halt > q_continue; here a TRM halts where q_halt > 0. Use fixed depths."
                .into(),
        );
    }
    let mut unseen = vec!["H_cycles", "L_cycles", "halt_max_steps"];
    if !config.get("mlp_t").and_then(Value::as_bool).unwrap_or(false) {
        unseen.extend(["num_heads", "pos_encodings", "seq_len"]);
    }
    notes.push(format!(
        "Taken on trust, since no tensor shows it: {}. Another value there is another net with the same weights.",
        unseen.join(", ")
    ));
    Ok(ReleasedNet { family, config: Value::Object(config), notes })
}

/// The family of the class that `arch.name` names (`model_type` of a config of ours).
fn family(path: &Path, arch: &Map<String, Value>) -> Result<&'static str, ModelError> {
    let of = |key: &str| arch.get(key).and_then(Value::as_str);
    let known = || CLASSES.iter().map(|(module, class, _)| format!("{module}@{class}")).collect::<Vec<_>>().join(", ");
    let hint = || format!("read are {}: others compute something else, whatever their tensors are called", known());
    match (of("name"), of("model_type")) {
        (Some(name), _) => {
            let (module, class) = name.split_once('@').unwrap_or((name, ""));
            let module = module.rsplit('.').next().unwrap_or(module);
            let found = CLASSES.iter().find(|(m, c, _)| *m == module && *c == class);
            found.map(|(.., family)| *family).ok_or_else(|| {
                ModelError::new(
                    path,
                    format!("`arch.name` is `{}`, an architecture that is not read", shown_name(name)),
                )
                .hint(hint())
            })
        }
        (None, Some(family)) => CLASSES.iter().find(|(.., f)| *f == family).map(|(.., f)| *f).ok_or_else(|| {
            ModelError::new(path, format!("`model_type` is `{}`; a checkpoint is of trm or hrm", shown_name(family)))
                .hint(hint())
        }),
        (None, None) => {
            Err(ModelError::new(path, "`arch.name` is missing: which architecture it is cannot be known").hint(hint()))
        }
    }
}

/// What config and data say of a number that a shape has shown.
fn agree(
    request: &ImportRequest,
    key: &str,
    told: Vec<(String, u64)>,
    shown: usize,
    words: impl Fn(u64) -> String,
) -> Result<(), ModelError> {
    match told.iter().find(|(_, n)| *n != shown as u64) {
        None => Ok(()),
        Some((file, n)) => Err(ModelError::new(&request.checkpoint, format!("{} (`{key}` of {file})", words(*n)))
            .hint("name the config and the data of the run that wrote this checkpoint")),
    }
}

/// Cells of a grid: from tensors along tokens where there are any, else as config, data or caller say.
fn grid(
    config: &Map<String, Value>,
    shape: &dyn Fn(&str) -> Option<Vec<usize>>,
    mut told: Vec<(String, u64)>,
    request: &ImportRequest,
) -> Result<usize, ModelError> {
    told.extend(request.seq_len.map(|n| ("--seq-len".to_owned(), n as u64)));
    let number = |key: &str| config.get(key).and_then(Value::as_u64).unwrap_or(0) as usize;
    let (features, hidden) = (number("puzzle_emb_ndim"), number("hidden_size").max(1));
    let prefix = match number("puzzle_emb_len") {
        _ if features == 0 => 0,
        0 => features.div_ceil(hidden),
        len => len,
    };
    let along = shape("L_level.layers.0.mlp_t.gate_up_proj.weight").and_then(|s| s.get(1).copied());
    let tokens = along.or_else(|| shape("embed_pos.embedding_weight").and_then(|s| s.first().copied()));
    if let Some(tokens) = tokens {
        let cells = tokens.saturating_sub(prefix);
        agree(request, "seq_len", told, cells, |n| {
            format!("its tensors are for {tokens} tokens, {prefix} of them before the grid, and the grid has {n} cells")
        })?;
        return Ok(cells);
    }
    match &told[..] {
        [] => Err(ModelError::new(
            &request.checkpoint,
            "how many cells a grid has is told by no tensor of an attention net, nor by its config",
        )
        .hint(
            "`--seq-len N` (9x9 Sudoku 81, mazes and ARC 900), or `--dataset FILE` with the dataset.json of its data",
        )),
        [(_, first), rest @ ..] => match rest.iter().find(|(_, n)| n != first) {
            None => Ok(usize::try_from(*first).unwrap_or(usize::MAX)),
            Some((file, n)) => Err(ModelError::new(
                &request.checkpoint,
                format!("a grid has {first} cells by {}, and {n} by {file}", told[0].0),
            )
            .hint("name the config and the data of the run that wrote this checkpoint")),
        },
    }
}

/// Refuses tensors of another architecture than the config's, in words that say which.
fn swapped(
    path: &Path,
    checkpoint: &Path,
    family: &str,
    config: &Map<String, Value>,
    tensors: &BTreeMap<String, StoredTensor>,
) -> Result<(), ModelError> {
    let has = |part: &str| tensors.keys().any(|n| n.split('.').any(|p| p == part));
    let mixer = config.get("mlp_t").and_then(Value::as_bool).unwrap_or(false);
    let found = match (family, has("H_level")) {
        ("trm", true) => Some(("a TRM, which has one net", "two (`H_level` and `L_level`): an HRM's")),
        ("hrm", false) => Some(("an HRM, which has two nets", "one (no `H_level`): a TRM's")),
        _ if mixer && has("self_attn") => {
            Some(("`mlp_t: true`, mixing along tokens by an MLP", "attention (`self_attn`)"))
        }
        _ if !mixer && has("mlp_t") => Some(("attention", "an MLP along tokens (`mlp_t`)")),
        _ => None,
    };
    match found {
        None => Ok(()),
        Some((of_config, of_tensors)) => Err(ModelError::new(
            checkpoint,
            format!("{} is of {of_config}; the checkpoint's tensors are of {of_tensors}", path.display()),
        )
        .hint("name the config of the run that wrote this checkpoint")),
    }
}

/// What is recorded of the numbering of puzzles. A table of several rows means something with the numbering of its own
/// data alone, so that a task of ours with another one must be refused.
fn numbering(table: Option<usize>, given: Option<&str>, sha256: &str) -> Option<String> {
    let own = || format!("released-{}", &sha256[..sha256.len().min(16)]);
    table.filter(|rows| *rows > 1).map(|_| given.map_or_else(own, str::to_owned))
}

fn about_ids(table: Option<usize>, given: Option<&str>) -> Option<String> {
    Some(match (table?, given) {
        (1, _) => "One puzzle id: every example is shown to the same row of the table.".into(),
        (n, Some(given)) => format!("{n} puzzle ids, numbered as `{given}` by the word of whoever imported it."),
        (n, None) => format!(
            "{n} puzzle ids in the numbering of its own data (identifiers.json), which no task here has: tasks that number puzzles refuse it. With a wrong id such a net answers nothing right."
        ),
    })
}

/// Writes the tensors under the names of the graph's parameters, in the types that they have. Nothing is held but a
/// piece of one.
fn write_weights(
    checkpoint: &mut Checkpoint<std::fs::File>,
    graph: &Graph,
    places: &[ParamSource],
    path: &Path,
) -> anyhow::Result<()> {
    let mut header = Map::new();
    let mut end = 0u64;
    for (param, place) in graph.params.iter().zip(places) {
        let tensor = &checkpoint.tensors[&place.name];
        let bytes = tensor.elements().unwrap_or(0) * tensor.element.size as u64;
        header.insert(
            param.name.clone(),
            json!({"dtype": tensor.element.dtype, "shape": tensor.shape, "data_offsets": [end, end + bytes]}),
        );
        end += bytes;
    }
    let mut header = serde_json::to_string(&header)?.into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let _gate = interrupt::gate();
    let mut refused = None;
    let written = ergometer_files::replace_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for place in places {
            let (mut failed, mut at) = (None, 0);
            let dtype = place.dtype;
            let done = checkpoint.bytes(&place.name, &mut |piece| {
                place.finite(dtype, piece, at)?;
                at += piece.len();
                failed = file.write_all(piece).err();
                match failed {
                    Some(_) => Err(ModelError::new(path, "cannot be written")),
                    None => Ok(()),
                }
            });
            if let Some(error) = failed {
                return Err(error);
            }
            if let Err(error) = done {
                refused = Some(error);
                return Err(std::io::Error::other("refused"));
            }
        }
        Ok(())
    });
    if let Some(error) = refused {
        return Err(error.into());
    }
    written.with_context(|| format!("cannot write {}\nhint: is there space, and may you write there?", path.display()))
}

impl ParamSource {
    /// Errors: an element that is no number; `at` is the piece's place in the tensor, bytes.
    fn finite(&self, dtype: Dtype, piece: &[u8], at: usize) -> Result<(), ModelError> {
        let values = to_f32(dtype, piece).unwrap_or_default();
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(i) => {
                let place = at / (piece.len() / values.len()) + i;
                let message = format!(
                    "tensor `{}` holds {} at element {place}, which is no number",
                    shown_name(&self.name),
                    values[i]
                );
                Err(ModelError::new(&self.file, message)
                    .hint("nothing can be computed with it: was it saved after its training had diverged?"))
            }
        }
    }
}

/// The card: `README.md` of the folder.
fn card(i: &Imported, config: &Value, from: &Path) -> String {
    let name = i.folder.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned());
    let from = from.file_name().map_or_else(String::new, |n| shown_name(&n.to_string_lossy()));
    let step = i.step.map_or_else(|| "not recorded".into(), |n| n.to_string());
    let ids = i.puzzle_ids.map_or_else(|| "none".into(), |n| n.to_string());
    let notes: String = i.notes.iter().map(|n| format!("- {n}\n")).collect();
    format!(
        "# {name}\n\nA checkpoint of {family}, imported by `ergometer import`: its tensors as they were, under their names without prefixes.\n\n\
        | what | value |\n|---|---|\n| source | `{source}`, with `{from}` |\n| sha256 of the source | {sha256} |\n| weights | {weights} |\n\
        | optimiser steps | {step} |\n| parameters, without puzzle table and buffers | {parameters} |\n| rows of the puzzle table | {ids} |\n| cells of a grid, vocabulary | {cells}, {vocabulary} |\n\n\
        ## What to know\n\n{notes}- The released code casts weights and states to bfloat16; backends here compute in the precision that a case names, so that answers may differ here and there.\n\
        - No accuracy was measured by importing it.\n",
        family = i.family.to_uppercase(),
        source = i.source,
        sha256 = i.sha256,
        weights = i.weights,
        parameters = i.parameters,
        cells = config["seq_len"],
        vocabulary = config["vocab_size"],
    )
}
