//! Language models: a decoder's files with the graph of what they compute.
//!
//! In: a GGUF file or a Hugging Face folder. Out: a [`LanguageModel`]; its parameters as f32. Must not: hold weights; each
//! engine reads what it packs, a tensor at a time.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ergometer_language::config::RopeScaling;
use ergometer_language::names::NetTensor;
use ergometer_language::{Decoder, DecoderConfig, LanguageError};

use super::{ModelError, decoder};
use crate::graph::{Graph, ParamId};

mod costs;
pub mod experts;
pub mod opened;

/// A language model.
pub struct LanguageModel {
    /// Where it came from.
    pub path: PathBuf,
    /// What it computes; caches hold at most [`context`](Self::context) tokens.
    pub graph: Graph,
    /// Most tokens of a sequence.
    pub context: usize,
    decoder: Decoder,
}

/// Rows of stored tensors, in order.
pub type StoredRows = Vec<(String, Range<usize>)>;

impl std::fmt::Debug for LanguageModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LanguageModel({}, {} tokens)", self.path.display(), self.context)
    }
}

impl From<LanguageError> for ModelError {
    fn from(e: LanguageError) -> Self {
        ModelError::new(&e.file, e.message).hint(e.hint)
    }
}

/// What a decoder computes in sequences of at most `context` tokens.
fn graph_of(decoder: &Decoder, context: usize) -> Result<Graph, ModelError> {
    let (config, path) = (&decoder.config, decoder.path());
    if context == 0 || context > config.context {
        let message = format!("a context of {context} tokens; the model was made for 1 to {}", config.context);
        return Err(ModelError::new(path, message).hint("ask for a context within that"));
    }
    let ropes = config.layers.iter().filter_map(|l| l.rope.as_ref());
    let divisors = match ropes.map(|r| &r.scaling).any(|s| *s == RopeScaling::Divisors) {
        true => decoder.dequantise("rope_divisors.weight")?,
        false => Vec::new(),
    };
    decoder::graph(config, context, &divisors).map_err(|mut e| {
        e.file = path.display().to_string();
        e
    })
}

/// The stored tensors that a parameter joins: of each expert in turn, where there are experts.
fn pieces(name: &str) -> Option<(&str, &[&'static str])> {
    let (base, end) = name.rsplit_once('.')?;
    let (at, last) = base.rsplit_once('.')?;
    let joined: &[&str] = match last {
        "qkv" => &["q", "k", "v"],
        "gate_up" => &["gate", "up"],
        _ => return None,
    };
    // weights and biases alike
    (end == "weight" || end == "bias").then_some((at, joined))
}

impl LanguageModel {
    /// Opens a model; sequences have at most `context` tokens, those it was made for if not given.
    ///
    /// # Errors
    /// What is wrong with its files; a context of no token or beyond what it was made for.
    pub fn load(path: &Path, context: Option<usize>) -> Result<Self, ModelError> {
        let decoder = Decoder::open(path)?;
        let context = context.unwrap_or(decoder.config.context);
        let graph = graph_of(&decoder, context)?;
        Ok(Self { path: path.to_owned(), graph, context, decoder })
    }

    /// The same model with sequences of at most `context` tokens.
    ///
    /// # Errors
    /// As [`LanguageModel::load`].
    pub fn within(self, context: usize) -> Result<Self, ModelError> {
        let graph = graph_of(&self.decoder, context)?;
        Ok(Self { graph, context, ..self })
    }

    /// What it is.
    pub fn config(&self) -> &DecoderConfig {
        &self.decoder.config
    }

    /// Its files, with its tokenizer.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Shape of a parameter of the graph, by name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.graph.params.iter().find(|p| p.name == name).map(|p| p.shape.as_slice())
    }

    /// Which rows of which stored tensors (by the names of [`ergometer_language::names`]) a parameter joins, in order; of experts one
    /// list each, of anything else one list.
    pub fn stored(&self, name: &str) -> Vec<StoredRows> {
        let experts = self.config().mlp.experts.filter(|_| name.contains(".experts.")).map_or(1, |e| e.count);
        let end = name.rsplit('.').next().unwrap_or_default();
        let names: Vec<String> = match pieces(name) {
            Some((at, joined)) => joined.iter().map(|piece| format!("{at}.{piece}.{end}")).collect(),
            None => vec![name.to_owned()],
        };
        let of_expert = |expert: usize| {
            let rows = |name: &String| {
                let rows = self.decoder.tensors().get(name).map_or(0, NetTensor::rows) / experts;
                (name.clone(), expert * rows..(expert + 1) * rows)
            };
            names.iter().map(rows).collect()
        };
        (0..experts).map(of_expert).collect()
    }

    /// A parameter of the graph as f32.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn param(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let mut values = Vec::new();
        for (name, rows) in self.stored(name).into_iter().flatten() {
            values.extend(self.decoder.rows(&name, rows)?);
        }
        // what a family adds to the gains that it stores
        let offset = self.config().norm.offset;
        if offset != 0.0 && name.ends_with("norm.weight") {
            values.iter_mut().for_each(|v| *v += offset);
        }
        Ok(values)
    }

    /// A parameter of the graph by its number, as what writes a file of the graph reads it.
    ///
    /// # Errors
    /// The file cannot be read, in words.
    pub fn read(&self, param: ParamId) -> Result<Cow<'static, [f32]>, String> {
        self.param(&self.graph.params[param.0].name).map(Cow::Owned).map_err(|e| e.to_string())
    }

    /// All parameters, in the graph's order: for the interpreter.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn params(&self) -> Result<Vec<Vec<f32>>, ModelError> {
        self.graph.params.iter().map(|p| self.param(&p.name)).collect()
    }
}

#[cfg(test)]
mod tests;
