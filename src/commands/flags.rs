//! Values of flags, checked where they are given: a mistake is told of the flag, with what it takes, before anything is read or run.
//!
//! In: the text of one flag. Out: its value, or what it takes. Must not: look at files other than to find a shipped model by name.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ergometer_suites::error::did_you_mean;
use ergometer_suites::locate::{FETCHED, how_to_fetch, model_path, shipped_models};
use ergometer_suites::scenario::{Depth, MAX_BATCH};
use ergometer_suites::task::QuickSet;
use ergometer_suites::{TASKS, Task, quick_sets};

use crate::backends::{BACKENDS, Backend};
use crate::fetch;

/// Longest time that one case is measured.
const MAX_SECONDS: f64 = 86_400.0;

/// Most compute threads.
const MAX_THREADS: u32 = 1024;

/// Seconds of measuring.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= MAX_SECONDS => Ok(seconds),
        _ => Err(format!("a number of seconds above 0, {MAX_SECONDS} at most")),
    }
}

/// A tolerance.
pub fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(limit) if limit >= 0.0 && limit.is_finite() => Ok(limit),
        _ => Err("a number, 0 or above".into()),
    }
}

/// An open dimension with its length.
pub fn length(text: &str) -> Result<(String, u64), String> {
    let found = text.rsplit_once('=').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
    found.filter(|(name, n)| !name.is_empty() && *n > 0).ok_or_else(|| "a name and a length, as in `seq=128`".into())
}

/// Two names.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let found = text.split_once('=').filter(|(a, b)| !a.is_empty() && !b.is_empty());
    found.map(|(a, b)| (a.into(), b.into())).ok_or_else(|| "an input and an output, as in `state=stateN`".into())
}

/// Compute threads.
pub fn threads(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(n) if (1..=MAX_THREADS).contains(&n) => Ok(n),
        _ => Err(format!("a whole number from 1 to {MAX_THREADS}")),
    }
}

/// Most tokens that one call generates.
const MAX_TOKENS: u32 = 1 << 24;

/// Tokens to generate.
pub fn tokens(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(n) if (1..=MAX_TOKENS).contains(&n) => Ok(n),
        _ => Err(format!("a whole number from 1 to {MAX_TOKENS}")),
    }
}

/// Rows per iteration.
pub fn batch(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(n) if (1..=MAX_BATCH).contains(&n) => Ok(n),
        _ => Err(format!("a whole number from 1 to {MAX_BATCH}")),
    }
}

/// A depth rule.
pub fn depth(text: &str) -> Result<String, String> {
    text.parse::<Depth>().map(|_| text.to_string()).map_err(|error| error.to_string())
}

/// The sets of one task as `4, 6 or 9`.
fn sets_of(task: &Task) -> String {
    let names: Vec<&str> = task.quick_sets().iter().map(QuickSet::shown).collect();
    match names.split_last() {
        Some((last, [])) => last.to_string(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// Help of `--task`.
pub fn task_help() -> String {
    let kinds = TASKS.iter().filter_map(|task| Some(format!("{} ({})", sets_of(task), task.quick.as_ref()?.about)));
    format!("Task to answer: {} [default: what fits the model]", kinds.collect::<Vec<_>>().join(" or "))
}

/// A set of examples that some task has ready for `time` and `tune`, by one of its names.
pub fn task(text: &str) -> Result<String, String> {
    if quick_sets().any(|(_, set)| set.is_called(text)) {
        return Ok(text.to_string());
    }
    let kinds: Vec<String> = TASKS.iter().filter(|t| t.quick.is_some()).map(sets_of).collect();
    Err(format!(
        "`--task` is {}{}\nhint: for another task write a suite and use `ergometer run`",
        kinds.join(", or "),
        did_you_mean(text, quick_sets().map(|(_, set)| set.name))
    ))
}

/// Name of a backend.
pub fn backend(text: &str) -> Result<String, String> {
    if crate::backends::backend(text).is_some() {
        return Ok(text.to_string());
    }
    let known: Vec<&str> = BACKENDS.iter().map(|b| b.name()).collect();
    let meant = did_you_mean(text, known.iter().copied());
    Err(format!("unknown backend `{text}`{meant}\nhint: known are {}", known.join(", ")))
}

/// The precision that was asked for, or the backend's first.
///
/// # Errors
/// The backend does not compute in it.
pub fn precision(backend: &dyn Backend, asked: Option<&str>) -> anyhow::Result<String> {
    let known = backend.precisions();
    match asked {
        None => Ok(known[0].to_string()),
        Some(asked) if known.contains(&asked) => Ok(asked.to_string()),
        Some(asked) => bail!(
            "`--precision {asked}`: backend `{}` computes in {}{}\nhint: `ergometer list backends` has the precisions of each",
            backend.name(),
            known.join(", "),
            did_you_mean(asked, known.iter().copied())
        ),
    }
}

/// Path of a model given as a folder or by the name of a shipped one: what every command understands by `--model`.
///
/// # Errors
/// There is neither.
pub fn model(model: &Path) -> anyhow::Result<PathBuf> {
    let shipped = shipped_models();
    if let Some(text) = model.to_str().filter(|text| text.starts_with(FETCHED)) {
        let path = model_path(Path::new(""), text);
        if let Some(hint) = how_to_fetch(&path) {
            bail!("model `{text}` is not here: no file {}\nhint: {hint}", path.display());
        }
        return std::path::absolute(&path).with_context(|| format!("cannot use {}", path.display()));
    }
    let named = shipped.iter().find(|(name, _)| model.as_os_str() == name.as_str());
    let path = match named {
        _ if model.exists() => model.to_path_buf(),
        Some((_, path)) => path.clone(),
        None => {
            if let Some(dangling) = ergometer_suites::text::dangling(model) {
                return Err(dangling.into());
            }
            // of a path, as a shipped model has one in its tree, the last name
            let last = model.file_name().unwrap_or(model.as_os_str()).to_string_lossy();
            let meant = did_you_mean(&last, shipped.iter().map(|(name, _)| name.as_str()));
            bail!(
                "there is no model `{}`{meant}\nhint: name a folder, or one of `ergometer list models`",
                model.display()
            );
        }
    };
    std::path::absolute(&path).with_context(|| format!("cannot use {}", path.display()))
}

/// Where a fetched item of this kind lies, if the word is its name and nothing that is here.
///
/// # Errors
/// It is not here yet.
pub fn fetched(name: &Path, kind: fetch::FetchKind) -> anyhow::Result<Option<PathBuf>> {
    let item = name.to_str().and_then(fetch::item).filter(|item| item.kind == kind && !name.exists());
    let cached = |item: &fetch::Fetch| {
        fetch::cached(item.name).with_context(|| format!("`{0}` is not here yet\nhint: ergometer fetch {0}", item.name))
    };
    item.map(cached).transpose()
}

/// Path of a language model given as a file, a folder, or by the name of a fetched one.
///
/// # Errors
/// There is none of these.
pub fn language_model(model: &Path) -> anyhow::Result<PathBuf> {
    if let Some(path) = fetched(model, fetch::FetchKind::Model)? {
        return Ok(path);
    }
    if let Some(dangling) = ergometer_suites::text::dangling(model) {
        return Err(dangling.into());
    }
    if !model.exists() {
        let names = fetch::FETCHES.iter().filter(|f| f.kind == fetch::FetchKind::Model).map(|f| f.name);
        let meant = did_you_mean(&model.to_string_lossy(), names);
        bail!(
            "there is no model `{}`{meant}\nhint: name a GGUF file, or a folder with config.json and safetensors; or `ergometer fetch smollm2` and name `smollm2`",
            model.display()
        );
    }
    Ok(model.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_refused() {
        for text in ["nan", "inf", "-1", "0", "1e9", "", "3s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert_eq!(seconds("0.5"), Ok(0.5));
        for text in ["nan", "inf", "-1", "x"] {
            assert!(tolerance(text).is_err(), "{text}");
        }
        for text in ["0", "-1", "1.5", "99999999", "4294967297"] {
            assert!(threads(text).is_err() && batch(text).is_err(), "{text}");
        }
        assert!(depth("halt-3").is_ok() && depth("halt-0").is_err() && depth("halt").is_err());
        assert!(task("4x9").is_err() && task("sudoku-4x4").is_ok());
        assert!(length("seq=0").is_err() && length("=3").is_err() && length("seq=a").is_err());
        assert_eq!(length("a=b=3"), Ok(("a=b".into(), 3)));
        assert!(pair("a").is_err() && pair("a=").is_err() && pair("a=b").is_ok());
        assert!(batch("65537").unwrap_err().contains("65536") && batch("65536").is_ok());
        assert!(backend("onnx").unwrap_err().contains("did you mean onnxruntime"));
        assert!(model(Path::new("suites/models/trm-4x5")).unwrap_err().to_string().contains("did you mean trm-4x4"));
        assert!(backend("referense").unwrap_err().contains("did you mean reference"));
        assert!(backend("zzzzz").unwrap_err().contains("known are"));
    }
}
