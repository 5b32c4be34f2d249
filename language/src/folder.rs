//! A Hugging Face folder: `config.json`, safetensors files, `tokenizer.json`, and the chat template.
//!
//! In: a folder. Out: its parts. Must not: need a tokenizer: a net without one can be run on token ids.

use std::path::Path;

use ergometer_files::Links;
use serde_json::Value;

use crate::{
    config::{self, DecoderConfig},
    error::LanguageError,
    shards,
    table::TensorTable,
    tokenizer::{ChatTemplate, MAX_TEMPLATE, TextTokenizer},
};

/// Largest `config.json` and its like, bytes.
const MAX_CONFIG: u64 = 1 << 20;
/// Largest `tokenizer_config.json`: it lists added tokens.
const MAX_TOKENIZER_CONFIG: u64 = 16 << 20;

/// The parts of a folder.
pub(crate) struct ModelFolder {
    pub config: DecoderConfig,
    pub tensors: TensorTable,
    pub tokenizer: Option<TextTokenizer>,
    pub template: Option<ChatTemplate>,
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, LanguageError> {
    ergometer_files::read(path, limit, Links::Followed).map_err(|e| LanguageError::io(path, &e))
}

/// The JSON of a file that may be missing.
fn json(path: &Path, limit: u64) -> Result<Option<Value>, LanguageError> {
    if !path.exists() {
        return Ok(None);
    }
    let value = serde_json::from_slice(&read(path, limit)?);
    value.map(Some).map_err(|e| LanguageError::new(path, format!("no JSON: {e}")))
}

impl ModelFolder {
    /// Opens a folder.
    pub(crate) fn open(path: &Path) -> Result<Self, LanguageError> {
        let file = path.join("config.json");
        let mut config = config::of_json(&read(&file, MAX_CONFIG)?, &file)?;
        let generation = path.join("generation_config.json");
        if let Some(value) = json(&generation, MAX_CONFIG)? {
            config.ends_too(&value);
        }
        let tensors = shards::table(path)?;
        let file = path.join("tokenizer.json");
        let tokenizer = file.exists().then(|| TextTokenizer::of_json(&file)).transpose()?;
        // tokens that were added later may lie beyond the rows (Gemma 3 has one); an engine refuses their ids
        if let Some(tokenizer) = &tokenizer
            && tokenizer.trained() > config.vocabulary
        {
            let message = format!("it has {} tokens, the model {} rows", tokenizer.trained(), config.vocabulary);
            return Err(LanguageError::new(&file, message).hint("take the tokenizer that came with the model"));
        }
        let template = template(path)?;
        Ok(Self { config, tensors, tokenizer, template })
    }
}

/// The template in a file of its own, or in `tokenizer_config.json`.
fn template(folder: &Path) -> Result<Option<ChatTemplate>, LanguageError> {
    let path = folder.join("tokenizer_config.json");
    let value = json(&path, MAX_TOKENIZER_CONFIG)?.unwrap_or_default();
    // a special token is a text, or an object that has it
    let token = |key: &str| {
        let token = value.get(key)?;
        token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
    };
    let (begin, end) = (token("bos_token").unwrap_or_default(), token("eos_token").unwrap_or_default());
    let apart = folder.join("chat_template.jinja");
    if apart.exists() {
        let source = String::from_utf8(read(&apart, MAX_TEMPLATE as u64)?);
        let source = source.map_err(|_| LanguageError::new(&apart, "no UTF-8"))?;
        return Ok(Some(ChatTemplate::new(&source, &begin, &end, &apart)));
    }
    let source = match value.get("chat_template") {
        Some(Value::String(source)) => Some(source.as_str()),
        // several by name
        Some(Value::Array(list)) => list
            .iter()
            .find(|t| t.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|t| t.get("template")?.as_str()),
        _ => None,
    };
    Ok(source.map(|source| ChatTemplate::new(source, &begin, &end, &path)))
}
