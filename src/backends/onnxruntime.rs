//! The `onnxruntime` backend: Microsoft's ONNX Runtime on the CPU, running the file that the exporter writes.
//!
//! In: a graph, exported to ONNX in memory. Out: an [`Engine`] whose states are the runtime's own output values, fed back
//! as they are. Must not: need the library to be planned, or change what the exporter writes.
//!
//! A language model it runs as a file of one step whose caches are inputs and outputs ([`crate::onnx::decoder`]): in f32, with weights dequantised. Then
//! `shapes` is no option, because lengths are open, and experts are routed by default.
//!
//! A file of somebody else's it loads as it is (`file`): then `shapes`, `opset` and `experts` are no options, and the
//! precision is the file's own.
//!
//! The library is loaded at run time; `library` says from where. Options (all decide speed; the first value is the default):
//! - `optimization` all | extended | basic | disabled: the runtime's graph optimisations.
//! - `spinning` true | false: idle threads of its pool wait busily. True is the library's own default; with one thread there is no pool.
//! - `shapes` symbolic | static: with `static` a second session whose batch is fixed serves full batches.
//! - `opset` 17 | 23: with 23 norms and attention are single operators of the file, with 17 they are written out.
//! - `experts` all | routed: how a mixture of experts is written.
//! - `library` PATH: this library instead of the one that is found; for comparing versions.

use std::collections::BTreeMap;

use ort::session::builder::GraphOptimizationLevel;

use super::cached::FileLanguage;
use super::language::LanguageEngine;
use super::{Backend, BackendError, Described, Engine, FILE_PRECISIONS, FindLibrary, Options, Unavailable};
use crate::models::Model;
use crate::models::language::LanguageModel;
use crate::onnx;

mod engine;
mod file;
mod language;
pub(crate) mod library;

/// See the module.
pub struct OnnxRuntime;

/// The version of the crate that calls the library, as locked by this build; a test holds it to the lock file.
const ORT: &str = "2.0.0-rc.15";

/// Name, values with the default first.
const CHOICES: [(&str, &[&str]); 5] = [
    ("optimization", &["all", "extended", "basic", "disabled"]),
    ("spinning", &["true", "false"]),
    ("shapes", &["symbolic", "static"]),
    ("opset", &["17", "23"]),
    ("experts", &["all", "routed"]),
];

/// The option that names a library.
const LIBRARY: &str = "library";

/// Options that decide how a graph is written as a file: of a file that somebody else wrote they say nothing.
const WRITING: [&str; 3] = ["shapes", "opset", "experts"];

/// Options that `tune` searches.
const SEARCHED: [&str; 4] = ["spinning", "shapes", "opset", "experts"];

/// Whether an option has a meaning with these.
fn is_meant(options: &Options, name: &str) -> bool {
    (options.file.is_none() || !WRITING.contains(&name)) && !(options.language && name == "shapes")
}

/// The given options with the defaults written out.
fn settle(options: &Options) -> Result<BTreeMap<String, String>, BackendError> {
    let failed = |m: String| Err(BackendError::Failed(m));
    let choices = || CHOICES.iter().filter(|(name, _)| is_meant(options, name));
    let mut all: BTreeMap<String, String> =
        choices().map(|(name, values)| ((*name).into(), values[0].into())).collect();
    if options.language {
        // a decoder's experts are most of what a token would compute for nothing
        all.insert("experts".into(), "routed".into());
    }
    for (name, value) in &options.extra {
        if name == LIBRARY {
            all.insert(name.clone(), value.clone());
            continue;
        }
        let Some((_, values)) = choices().find(|(known, _)| known == name) else {
            let known: Vec<&str> = choices().map(|(known, _)| *known).chain([LIBRARY]).collect();
            return failed(format!("backend `onnxruntime` has no option `{name}`\nhint: it has {}", known.join(", ")));
        };
        if !values.contains(&value.as_str()) {
            let hint = values.join(", ");
            return failed(format!("option `{name}` of backend `onnxruntime` cannot be `{value}`\nhint: it is {hint}"));
        }
        all.insert(name.clone(), value.clone());
    }
    Ok(all)
}

/// The library that a case names.
fn named(options: &Options) -> Option<&str> {
    options.extra.get(LIBRARY).map(String::as_str)
}

impl Backend for OnnxRuntime {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn about(&self) -> &'static str {
        "Microsoft's ONNX Runtime on the CPU, on the exported graph"
    }

    fn precisions(&self) -> &'static [&'static str] {
        &["f32"]
    }

    fn file_precisions(&self) -> &'static [&'static str] {
        FILE_PRECISIONS
    }

    fn probe(&self) -> Result<BTreeMap<String, String>, Unavailable> {
        let found = library::loaded(None)?;
        let version = found.version();
        let version =
            version.unwrap_or_else(|| format!("1.{} or later (its file name does not tell)", ort::MINOR_VERSION));
        Ok(BTreeMap::from([
            ("onnxruntime".into(), version),
            ("build".into(), ort::info().trim_start_matches("ORT Build Info: ").into()),
            ("found-by".into(), found.by.into()),
            ("ort".into(), ORT.into()),
            ("isa".into(), isa().into()),
        ]))
    }

    fn library(&self) -> Option<FindLibrary> {
        Some(|| library::Places::from_env(None).find().map(|found| found.words()))
    }

    fn environment(&self, options: &Options) -> Vec<(&'static str, String)> {
        named(options).map(|path| (library::VARIABLE, path.to_string())).into_iter().collect()
    }

    fn prepare(&self, options: &Options) -> Result<(), Unavailable> {
        library::prepare(named(options))
    }

    fn settings(&self, options: &Options) -> Vec<BTreeMap<String, String>> {
        let mut given = options.extra.clone();
        given.retain(|name, _| !SEARCHED.contains(&name.as_str()));
        let mut all = vec![given];
        let searched = |name: &str| SEARCHED.contains(&name) && is_meant(options, name);
        for (name, values) in CHOICES.iter().filter(|(name, _)| searched(name)) {
            // one thread has nobody to wait for
            let mut values = if *name == "spinning" && options.threads == 1 { &values[..1] } else { *values }.to_vec();
            if options.language && *name == "experts" {
                // the default first
                values.reverse();
            }
            let with = |set: &BTreeMap<String, String>, value: &str| {
                set.iter().map(|(k, v)| (k.clone(), v.clone())).chain([(name.to_string(), value.to_string())]).collect()
            };
            all = values.iter().flat_map(|value| all.iter().map(move |set| with(set, value))).collect();
        }
        all
    }

    fn describe(&self, options: &Options) -> Result<Described, BackendError> {
        let all = settle(options)?;
        let shapes = if all.get("shapes").is_some_and(|s| s == "static") { "static" } else { "symbolic" };
        Ok(Described { isa: isa().into(), shapes, options: all })
    }

    fn load(&self, model: &Model, options: &Options) -> Result<Box<dyn Engine>, BackendError> {
        let all = settle(options)?;
        super::is_files(options)?;
        if options.file.is_none() && options.precision != "f32" {
            let message = format!("onnxruntime computes in f32 here, not in {}", options.precision);
            return Err(BackendError::unavailable(message));
        }
        let setup = setup(options, &all)?;
        if let Some(asked) = &model.file {
            let runner = file::OrtFile::new(asked, &setup)?;
            return Ok(Box::new(super::file::FileEngine::new(runner, asked.clone(), options.capacity)?));
        }
        let engine = engine::OrtEngine::new(model, &setup, form(&all), options.capacity, all["shapes"] == "static")?;
        Ok(Box::new(engine))
    }

    fn speaks(&self) -> bool {
        true
    }

    fn load_language(&self, model: &LanguageModel, options: &Options) -> Result<Box<dyn LanguageEngine>, BackendError> {
        let options = Options { language: true, ..options.clone() };
        let all = settle(&options)?;
        if options.precision != "f32" {
            let message = format!("onnxruntime computes language models in f32 here, not in {}", options.precision);
            return Err(BackendError::unavailable(message));
        }
        let form = onnx::Form { external: Some(language::WEIGHTS.into()), ..form(&all) };
        let runner = language::OrtCaches::new(model, &setup(&options, &all)?, &form)?;
        Ok(Box::new(FileLanguage::new(model, options.capacity, runner)))
    }
}

/// How sessions are made with these settled options.
fn setup(options: &Options, all: &BTreeMap<String, String>) -> Result<engine::SessionSetup, BackendError> {
    Ok(engine::SessionSetup {
        environment: library::environment(named(options)).map_err(BackendError::Unavailable)?,
        optimization: match all["optimization"].as_str() {
            "disabled" => GraphOptimizationLevel::Disable,
            "basic" => GraphOptimizationLevel::Level1,
            "extended" => GraphOptimizationLevel::Level2,
            _ => GraphOptimizationLevel::All,
        },
        spinning: all["spinning"] == "true",
        threads: options.threads,
    })
}

/// How a file is written with these settled options.
fn form(all: &BTreeMap<String, String>) -> onnx::Form {
    onnx::Form {
        batch: None,
        opset: if all["opset"] == "23" { onnx::Opset::TwentyThree } else { onnx::Opset::Seventeen },
        experts: if all["experts"] == "routed" { onnx::ExpertForm::Routed } else { onnx::ExpertForm::All },
        external: None,
    }
}

/// The widest instruction set that the library's f32 kernels know and this machine has; the library chooses by itself when it runs.
fn isa() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "avx512f";
        }
        if std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2") {
            return "avx2+fma";
        }
        if std::arch::is_x86_feature_detected!("avx") {
            return "avx";
        }
    }
    if cfg!(target_arch = "aarch64") { "neon" } else { "baseline" }
}

#[cfg(test)]
mod tests;
