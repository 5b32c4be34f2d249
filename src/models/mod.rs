//! Models: a folder with `config.json` and `model.safetensors` (or shards and their index), read into a graph and its parameters. A config may ask for random weights
//! instead ([`random`]).
//!
//! In: a path. Out: a [`Model`], or a [`ModelError`] that names file, place and remedy. Must not: run anything, or allocate what a lying
//! header asks for: every size is checked against the config's graph and the file's length first.
//!
//! Adding a family: one file with a `pub const FAMILY: ModelFamily`, and its line in [`FAMILIES`].
//!
//! How each family is lowered:
//!
//! - encoder (one-shot): admit is embed, add_positions, scale; no states; a step is the blocks and a linear layer to
//!   logits; one step.
//! - TRM: admit is embed, for the puzzle embed_prefix and concat, add_positions and scale, which make x; states `z_H`
//!   and `z_L` with learned starts; the step is in [`trm`]; stops where `q[0] > 0`.
//! - HRM: as TRM, with two nets; stops where `q[0] > q[1]`.
//! - looped: as TRM with one state `z`; a step is `loops` times `z = net(z + x)`, heads as TRM; stops where `q[0] > 0`.
//! - mixture of experts: as the dense net, with `moe_mlp` where its block has a gated MLP.
//!
//! An ONNX file is a model too ([`mod@file`]): opaque, so that a backend loads it by itself and its verdict is against recorded
//! outputs or another backend. GGUF files and folders of causal decoders are read by [`language`].

use std::path::{Path, PathBuf};

use ergometer_files::capped;
use ergometer_suites::error::SuiteError;
use ergometer_suites::{FileForm, text};
use safetensors::Dtype;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use self::interface::Interface;
use self::random::{RandomWeights, start_values};
use crate::files::hex;
use crate::graph::{Graph, GraphError, Param, ParamId, Role, Start};

mod blocks;
pub mod decoder;
pub mod dense;
mod embedding;
pub mod file;
pub mod hrm;
pub mod interface;
pub mod language;
pub mod looped;
pub mod moe;
pub mod random;
pub mod tensors;
pub mod trm;
pub(crate) mod weights;

/// Every family of models that we can build a graph for.
pub const FAMILIES: &[ModelFamily] = &[trm::FAMILY, hrm::FAMILY, looped::FAMILY, dense::FAMILY, moe::FAMILY];

/// One architecture.
pub struct ModelFamily {
    /// Value of `model_type` in `config.json`.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Builds the graph.
    pub build: fn(&serde_json::Value) -> Result<Graph, ModelError>,
}

/// A model as loaded: what to compute and with which numbers.
#[derive(Clone, Debug)]
pub struct Model {
    /// Where it came from.
    pub path: PathBuf,
    /// sha256 over configuration and weights, hex.
    pub hash: String,
    /// What it takes and gives.
    pub interface: Interface,
    /// The computation; `None`: only an engine of its own knows it. See [`graph()`](Self::graph()).
    pub graph: Option<Graph>,
    /// The ONNX file that it is, where it is one.
    pub file: Option<std::sync::Arc<file::OnnxFile>>,
    /// The decoder that it is, where it is a language model.
    pub language: Option<std::sync::Arc<language::LanguageModel>>,
    /// What its config records of how it was trained.
    pub training: TrainingRecord,
    /// `params[i]` holds the elements of `graph.params[i]`, shared between clones; none without a graph.
    pub params: std::sync::Arc<Vec<Vec<f32>>>,
}

/// What a config records of how the weights came to be: whoever compares two accuracies asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainingRecord {
    /// The numbering of puzzles that the table of puzzle embeddings was trained with
    /// ([`ExampleSet::numbering`](ergometer_suites::task::ExampleSet::numbering)); key [`NUMBERING`].
    pub numbering: Option<String>,
    /// Which weights these are, e.g. `moving average, step 3498 of 3498`; key [`WEIGHTS`].
    pub weights: Option<String>,
}

/// Why a model cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {message}{}", hint.as_ref().map(|h| format!("\nhint: {h}")).unwrap_or_default())]
pub struct ModelError {
    /// The file.
    pub file: String,
    /// What is wrong, with the place.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}

/// What helps where nothing better is known.
const WHOLE: &str = "copy or fetch the model's folder again: its files must be whole, and belong together";

impl ModelError {
    pub(crate) fn new(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.display().to_string(), message: capped(message.into()), hint: Some(WHOLE.into()) }
    }

    /// The model's files changed after they were looked at.
    pub fn changed(path: &Path, message: impl Into<String>) -> Self {
        Self::new(path, message).hint("do not write to a model while it is measured; run again")
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(capped(hint.into()));
        self
    }
}

impl From<SuiteError> for ModelError {
    fn from(e: SuiteError) -> Self {
        let place = e.place.map(|p| format!("{p}: ")).unwrap_or_default();
        let file = e.file.map_or_else(String::new, |f| f.display().to_string());
        ModelError { file, message: format!("{place}{}", e.message), hint: e.hint.or(Some(WHOLE.into())) }
    }
}

impl From<GraphError> for ModelError {
    fn from(e: GraphError) -> Self {
        config_error(format!("the config asks for a net that cannot be: {e}"))
    }
}

/// An error of a config whose file name the caller fills in.
pub(crate) fn config_error(message: impl Into<String>) -> ModelError {
    ModelError::new(Path::new("config.json"), message)
        .hint("a config has the fields of its family as published; those of the shipped models are in suites/models/")
}

pub(crate) const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// No axis of a config is larger than this: beyond it lies a typing error, not a model.
const MAX_AXIS: usize = 1 << 22;
/// Most parameters of one model.
const MAX_PARAMS: usize = 1 << 38;

/// A model's graph was asked for, and it has none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model {0} has no graph: what it computes is known to an engine of its own alone")]
pub struct NoGraph(String);

impl Model {
    /// A model whose computation is known.
    pub fn of_graph(
        path: PathBuf,
        hash: String,
        graph: Graph,
        training: TrainingRecord,
        params: Vec<Vec<f32>>,
    ) -> Model {
        let interface = Interface::of_graph(&graph);
        Model { path, hash, interface, graph: Some(graph), file: None, language: None, training, params: params.into() }
    }

    /// Its computation.
    ///
    /// # Errors
    /// It has none that is known here.
    pub fn graph(&self) -> Result<&Graph, NoGraph> {
        self.graph.as_ref().ok_or_else(|| NoGraph(self.path.display().to_string()))
    }

    /// Reads a model folder, or a file that needs nothing bound.
    pub fn load(path: &Path) -> Result<Model, ModelError> {
        Self::load_as(path, &FileForm::default())
    }

    /// Reads a model folder, or an ONNX file in this form.
    pub fn load_as(path: &Path, form: &FileForm) -> Result<Model, ModelError> {
        if file::is_onnx(path) {
            return file::load(path, form);
        }
        let language = language::opened::is_language(path);
        if path.is_file() && !language {
            return Err(ModelError::new(path, "is a file").hint(
                "a model is a folder with config.json and model.safetensors, or a file whose name ends in `.onnx` or `.gguf`",
            ));
        }
        if !form.is_empty() {
            return Err(ModelError::new(path, "is no ONNX file, and `shape`, `batch` and `state` are for those")
                .hint("leave these keys out of its [[model]] block"));
        }
        if language {
            return language::opened::load(path);
        }
        let config_path = path.join("config.json");
        crate::console::detail(|| format!("read model {}", path.display()));
        let (config_bytes, config) = read_json(&config_path)?;
        let named = |mut e: ModelError| {
            e.file = config_path.display().to_string();
            e
        };
        let graph = build_graph(&config).map_err(named)?;
        let training = TrainingRecord::read(&config).map_err(named)?;
        if let Some(asked) = RandomWeights::read(&config).map_err(named)? {
            if let Some(there) = [weights::FILE, weights::INDEX].map(|f| path.join(f)).iter().find(|f| f.exists()) {
                return Err(ModelError::new(there, "is there, and config.json asks for `random_weights`")
                    .hint("remove one of them: a model has one set of weights"));
            }
            let params = asked.draw(&graph).map_err(named)?;
            let (config, weights) =
                random::files(&config, &graph, &params).map_err(|e| named(config_error(format!("{e:#}"))))?;
            let hash = hash_of(&config, &weights);
            return Ok(Model::of_graph(path.to_path_buf(), hash, graph, training, params));
        }
        let mut hash = Sha256::new().chain_update(&config_bytes);
        let params = weights::read(path, &graph, &mut hash)?;
        Ok(Model::of_graph(path.to_path_buf(), hex(&hash.finalize()), graph, training, params))
    }

    /// A model with the weights that training starts from, for tests too.
    pub fn random(config: &serde_json::Value, seed: u64) -> Result<Model, ModelError> {
        let graph = build_graph(config)?;
        random::few_enough(&graph, "starting weights")?;
        let params: Vec<Vec<f32>> = graph.params.iter().enumerate().map(|(i, p)| start_values(p, seed, i)).collect();
        let mut hash = Sha256::new().chain_update(config.to_string());
        params.iter().flatten().for_each(|v| hash.update(v.to_le_bytes()));
        let training = TrainingRecord::read(config)?;
        Ok(Model::of_graph(PathBuf::from("random"), hex(&hash.finalize()), graph, training, params))
    }

    /// Writes a model folder; each file appears whole or not at all.
    pub fn save(path: &Path, config: &serde_json::Value, graph: &Graph, params: &[Vec<f32>]) -> anyhow::Result<()> {
        let (config, weights) = files(config, graph, params)?;
        write(path, &config, &weights)
    }
}

/// Bytes of a model's `config.json` and `model.safetensors`.
fn files(config: &serde_json::Value, graph: &Graph, params: &[Vec<f32>]) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let bytes: Vec<Vec<u8>> = params.iter().map(|v| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = graph
        .params
        .iter()
        .zip(&bytes)
        .map(|(p, b)| Ok((p.name.clone(), safetensors::tensor::TensorView::new(Dtype::F32, p.shape.clone(), b)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut text = serde_json::to_string_pretty(config)?;
    text.push('\n');
    Ok((text.into_bytes(), safetensors::serialize(views, None)?))
}

/// Writes them into a folder, the weights first: where a config is, its weights are.
fn write(folder: &Path, config: &[u8], weights: &[u8]) -> anyhow::Result<()> {
    use anyhow::Context;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    crate::files::write_atomically(&folder.join("model.safetensors"), weights)?;
    crate::files::write_atomically(&folder.join("config.json"), config)
}

/// sha256 over both files, hex.
fn hash_of(config: &[u8], weights: &[u8]) -> String {
    hex(&Sha256::new().chain_update(config).chain_update(weights).finalize())
}

/// A config's text, and what it says.
fn read_json(file: &Path) -> Result<(Vec<u8>, serde_json::Value), ModelError> {
    let text = read_capped(file, MAX_CONFIG_BYTES)?;
    let config = parse(file, &text)?;
    Ok((text, config))
}

fn parse(file: &Path, bytes: &[u8]) -> Result<serde_json::Value, ModelError> {
    let value = text::json(bytes).map_err(|e| e.in_file(file))?;
    if value.is_object() {
        return Ok(value);
    }
    Err(ModelError::new(file, "holds JSON that is no object").hint("write {\"model_type\": ..., ...}"))
}

/// Key of a config for [`TrainingRecord::numbering`].
pub const NUMBERING: &str = "puzzle_numbering";

/// Key of a config for [`TrainingRecord::weights`].
pub const WEIGHTS: &str = "weights_from";

/// Longest text of a config that is repeated elsewhere, bytes.
const MAX_RECORDED: usize = 200;

impl TrainingRecord {
    fn read(config: &serde_json::Value) -> Result<Self, ModelError> {
        let text = |key: &str| match config.get(key) {
            None => Ok(None),
            Some(serde_json::Value::String(text)) if text.len() <= MAX_RECORDED => Ok(Some(text.clone())),
            Some(_) => Err(config_error(format!("`{key}` is no string of at most {MAX_RECORDED} bytes"))
                .hint("it is what a trainer or importer wrote; leave it out")),
        };
        Ok(Self { numbering: text(NUMBERING)?, weights: text(WEIGHTS)? })
    }
}

/// Parses a config's text and builds its graph.
pub fn graph_of_config(file: &Path, text: &[u8]) -> Result<Graph, ModelError> {
    build_graph(&parse(file, text)?).map_err(|mut e| {
        e.file = file.display().to_string();
        e
    })
}

/// Builds the graph of a config.
pub fn build_graph(config: &serde_json::Value) -> Result<Graph, ModelError> {
    let known = || FAMILIES.iter().map(|f| f.name).collect::<Vec<_>>().join(", ");
    let Some(model_type) = config.get("model_type").and_then(|v| v.as_str()) else {
        return Err(config_error("`model_type` is missing").hint(format!("set it to one of: {}", known())));
    };
    let Some(family) = FAMILIES.iter().find(|f| f.name == model_type) else {
        return Err(config_error(format!("`model_type` is `{model_type}`, which no family here reads"))
            .hint(format!("known: {}", known())));
    };
    let graph = (family.build)(config)?;
    graph.check()?;
    Ok(graph)
}

/// Reads the fields that a family names; unknown fields are ignored, because published configs carry many.
pub(crate) fn read_config<T: DeserializeOwned>(config: &serde_json::Value) -> Result<T, ModelError> {
    T::deserialize(config).map_err(|e| {
        // serde does not say which field a value belongs to: it is the one without which the error is another; what is missing is named
        let message = e.to_string();
        let wrong = config.as_object().into_iter().flatten().find(|(key, _)| {
            let mut without = config.clone();
            without.as_object_mut().map(|fields| fields.remove(key.as_str()));
            T::deserialize(&without).err().is_none_or(|e| e.to_string() != message)
        });
        match wrong.filter(|_| !message.starts_with("missing field")) {
            Some((key, value)) => {
                let shown: String = value.to_string().chars().take(60).collect();
                config_error(format!("`{key}` is {shown}: {message}"))
            }
            None => config_error(message),
        }
    })
}

/// Checks an axis of a config.
pub(crate) fn axis(name: &str, value: usize) -> Result<usize, ModelError> {
    if (1..=MAX_AXIS).contains(&value) {
        Ok(value)
    } else {
        Err(config_error(format!("`{name}` is {value}; it must lie between 1 and {MAX_AXIS}")))
    }
}

/// Declares parameters one by one.
#[derive(Default)]
pub(crate) struct Params(pub Vec<Param>);

impl Params {
    /// Adds a parameter.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        role: Role,
        start: Start,
    ) -> Result<ParamId, ModelError> {
        let name = name.into();
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_PARAMS);
        let total =
            elements.map(|n| n + self.0.iter().map(|p| p.elements()).sum::<usize>()).filter(|&n| n <= MAX_PARAMS);
        if total.is_none() {
            return Err(config_error(format!(
                "`{name}` of shape {shape:?} takes the model beyond {MAX_PARAMS} parameters"
            )));
        }
        self.0.push(Param { name, shape: shape.to_vec(), role, start });
        Ok(ParamId(self.0.len() - 1))
    }

    /// Adds a weight `[out, in]` that starts at 1/sqrt(in), cut off at two standard deviations.
    pub fn weight(&mut self, name: impl Into<String>, out: usize, input: usize) -> Result<ParamId, ModelError> {
        self.add(name, &[out, input], Role::Weight, Start::Normal(1.0 / (input as f32).sqrt()))
    }
}

/// Reads a regular file of at most `cap` bytes.
pub(crate) fn read_capped(path: &Path, cap: u64) -> Result<Vec<u8>, ModelError> {
    text::read(path, cap).map_err(|e| {
        let e = ModelError::from(e);
        let absent = path.file_name().is_some_and(|n| n == "config.json") && path.symlink_metadata().is_err();
        if absent { e.hint("a model is a folder with config.json and model.safetensors") } else { e }
    })
}

/// The key without the prefixes that training wrappers leave.
pub(crate) fn stripped(key: &str) -> &str {
    let mut key = key;
    while let Some(rest) = ["_orig_mod.", "module.", "model.", "inner."].iter().find_map(|p| key.strip_prefix(p)) {
        key = rest;
    }
    key
}

/// Elements of a little-endian tensor as f32.
pub(crate) fn to_f32(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    let half = |f: fn(u16) -> f32| data.chunks_exact(2).map(|b| f(u16::from_le_bytes([b[0], b[1]]))).collect();
    match dtype {
        Dtype::F32 => Some(data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::BF16 => Some(half(|v| f32::from_bits(u32::from(v) << 16))),
        Dtype::F16 => Some(half(f16_to_f32)),
        _ => None,
    }
}

/// IEEE 754 half to single; every half is a single exactly.
pub(crate) fn f16_to_f32(h: u16) -> f32 {
    let sign = if h & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(h >> 10) & 31, f32::from(h & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        e => (1.0 + fraction / 1024.0) * 2f32.powi(e - 15),
    }
}

#[cfg(test)]
mod tests;
