//! What the folder of a trained net says of its training: log, recipe, figures.
//!
//! In: a model folder as `ergometer train` and `ci/train` leave it. Out: a [`TrainingCourse`]. Must not: take what is not
//! recorded for anything, or need more than the log.

use std::path::Path;

use anyhow::{Context, bail};
use ergometer_files::Links;
use ergometer_reports::training::{EvaluatedDepth, TrainingCourse, TrainingLog};
use ergometer_suites::text;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::files::hex;

/// Largest log, recipe and figures, bytes.
const MAX_LOG: u64 = 64 << 20;
const MAX_TEXT: u64 = 8 << 20;
/// What stands where a folder does not say.
const NOT_RECORDED: &str = "not recorded";
/// Keys of a recipe's `[task]` that say how the trainer uses the task, not which task it is.
const TRAINERS: [&str; 3] = ["eval_examples", "eval_seed", "puzzles"];

/// Reads the folder of one training; `name` is what records call the net.
///
/// # Errors
/// No log, or one that is wrong; a recipe or figures that are there and cannot be read.
pub fn read(folder: &Path, name: &str, depth: EvaluatedDepth) -> anyhow::Result<TrainingCourse> {
    let path = folder.join("log.csv");
    let bytes = ergometer_files::read(&path, MAX_LOG, Links::Followed).with_context(|| {
        format!("cannot read `{}`\nhint: name the folder of a trained net, which has a log.csv", path.display())
    })?;
    let lines = text::decode(&bytes).map_err(|e| e.in_file(&path))?;
    let log = match TrainingLog::read(lines, depth) {
        Ok(log) => log,
        Err(wrong) => bail!("{}: line {}: {}\nhint: {}", path.display(), wrong.line, wrong.message, wrong.hint),
    };
    let recipe = recipe(&folder.join("train.toml"))?;
    let figures = json(&folder.join("training.json"))?;
    let config = json(&folder.join("config.json"))?;
    let word = |value: Option<&Value>, key: &str| value.and_then(|v| v.get(key)?.as_str()).map(str::to_owned);
    let number = |key: &str| recipe.as_ref().and_then(|r| r.get(key)?.as_integer()).and_then(|n| u32::try_from(n).ok());
    let (task, data) = recipe.as_ref().map_or_else(|| (NOT_RECORDED.into(), NOT_RECORDED.into()), task);
    let threads = number("threads");
    let board = figures.is_some();
    let file = figures.as_ref().and_then(|f| f.get("evaluation")?.get("file")?.as_str());
    let precision = word(figures.as_ref(), "precision");
    Ok(TrainingCourse {
        model: name.to_owned(),
        family: word(config.as_ref(), "model_type").unwrap_or_else(|| NOT_RECORDED.into()),
        task,
        data: file.map_or(data, |file| format!("the first of {file}")),
        trainer: if board { "pytorch" } else { "candle" }.into(),
        precision: match (precision.as_deref(), board) {
            (Some("bfloat16"), _) => "bf16".into(),
            (Some("float32"), _) | (None, false) => "f32".into(),
            (Some(other), _) => other.to_owned(),
            (None, true) => NOT_RECORDED.into(),
        },
        hardware: word(figures.as_ref(), "device").unwrap_or_else(|| match threads {
            Some(n) => format!("a processor that is not recorded, {}", ergometer_files::counted(n, "thread")),
            None => NOT_RECORDED.into(),
        }),
        batch: figures
            .as_ref()
            .and_then(|f| f.get("batch")?.as_u64())
            .and_then(|n| u32::try_from(n).ok())
            .or(number("batch"))
            .unwrap_or(0),
        threads: threads.unwrap_or(0),
        depth,
        sha256: hex(&Sha256::digest(&bytes)),
        log,
    })
}

/// A JSON object that may not be there.
fn json(path: &Path) -> anyhow::Result<Option<Value>> {
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let value = text::read(path, MAX_TEXT).and_then(|bytes| text::json(&bytes).map_err(|e| e.in_file(path)))?;
    Ok(Some(value))
}

fn recipe(path: &Path) -> anyhow::Result<Option<toml::Table>> {
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let text = text::read_text(path, MAX_TEXT)?;
    let table = text.parse::<toml::Table>().with_context(|| {
        format!(
            "{}: no TOML\nhint: it is the training file of the net; remove it, and its task is not recorded",
            path.display()
        )
    })?;
    Ok(Some(table))
}

/// The task in words, and what of it is held out.
fn task(recipe: &toml::Table) -> (String, String) {
    let Some(task) = recipe.get("task").and_then(toml::Value::as_table) else {
        return (NOT_RECORDED.into(), NOT_RECORDED.into());
    };
    let kind = task.get("kind").and_then(toml::Value::as_str).unwrap_or(NOT_RECORDED);
    let mut words = vec![kind.to_owned()];
    // a table has its keys in order
    let own = task.iter().filter(|(key, _)| *key != "kind" && !TRAINERS.contains(&key.as_str()));
    words.extend(own.map(|(key, value)| format!("{key}={value}").chars().take(200).collect()));
    let of = |key: &str| task.get(key).map_or_else(|| NOT_RECORDED.to_owned(), toml::Value::to_string);
    (words.join(" "), format!("test side of its split, seed {}", of("eval_seed")))
}
