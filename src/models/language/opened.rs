//! A language model where any model is asked for: recognised by its path, known by its hash.
//!
//! In: a path. Out: a [`Model`] without a graph of its own, whose `language` is the decoder. Must not: read weights beyond their hash.

use std::path::Path;
use std::sync::Arc;

use ergometer_files::Links;
use sha2::{Digest, Sha256};

use super::LanguageModel;
use crate::files::{hex, sha256};
use crate::graph::Halting;
use crate::models::interface::{ElementType, Interface, Length, Port, PortRole, Rows};
use crate::models::{Model, ModelError, TrainingRecord};

/// Whether a path is that of a language model: a file whose name ends in `.gguf`, or a folder whose config is of a decoder.
pub fn is_language(path: &Path) -> bool {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
        return !path.is_dir();
    }
    let Ok((_, config)) = crate::models::read_json(&path.join("config.json")) else { return false };
    config["model_type"].as_str().is_some_and(ergometer_language::config::is_decoder)
}

/// The model of this path.
///
/// # Errors
/// What is wrong with its files.
pub fn load(path: &Path) -> Result<Model, ModelError> {
    crate::console::detail(|| format!("read language model {}", path.display()));
    let language = LanguageModel::load(path, None)?;
    let interface = interface(&language);
    Ok(Model {
        path: path.to_path_buf(),
        hash: hash(path)?,
        interface,
        graph: None,
        file: None,
        language: Some(Arc::new(language)),
        training: TrainingRecord::default(),
        params: Vec::new().into(),
    })
}

/// sha256 over what decides what it computes: the file; of a folder config, tokenizer and weights, in the order of their names.
///
/// # Errors
/// A file cannot be read.
pub fn hash(path: &Path) -> Result<String, ModelError> {
    let of = |file: &Path| {
        sha256(file, u64::MAX, Links::Followed).map_err(|e| ModelError::new(file, format!("cannot be read: {e}")))
    };
    if !path.is_dir() {
        return of(path);
    }
    let listed = std::fs::read_dir(path).map_err(|e| ModelError::new(path, format!("cannot be listed: {e}")))?;
    let mut files: Vec<_> = listed.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        ["config.json", "tokenizer.json"].contains(&name.as_ref()) || name.ends_with(".safetensors")
    });
    // what was recorded of a model does not change it
    files.retain(|file| !file.ends_with("vectors.safetensors"));
    files.sort();
    let mut all = Sha256::new();
    for file in &files {
        all.update(format!("{}\0{}\0", file.file_name().unwrap_or_default().to_string_lossy(), of(file)?));
    }
    Ok(hex(&all.finalize()))
}

fn interface(model: &LanguageModel) -> Interface {
    let (vocabulary, most) = (model.config().vocabulary, model.context);
    let port = |name: &str, role, elements, features| Port {
        name: name.into(),
        role,
        elements,
        length: Length::PerCall { most },
        features,
        kind: None,
        shape: Vec::new(),
    };
    Interface {
        inputs: vec![port("input_ids", PortRole::Tokens, ElementType::Index { below: vocabulary }, 1)],
        outputs: vec![port("logits", PortRole::Logits, ElementType::Float, vocabulary)],
        states: Vec::new(),
        halting: Halting::Never,
        max_steps: 1,
        rows: Rows::Any,
        sequences: false,
    }
}
