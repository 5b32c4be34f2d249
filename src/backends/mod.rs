//! Engines that compile a graph, behind one trait, and the session that gives each of them slots, halting and dropping of rows.
//!
//! In: a [`Model`] and [`Options`]. Out: a [`Session`](session::Session). Must not: time, meter or score anything.
//!
//! Adding a backend: one file with a type that implements [`Backend`] and an [`Engine`], and its line in [`BACKENDS`].
//!
//! An engine implements what differs, the session does the rest once for all of them. What a row computes must not
//! depend on which other rows are live; then dropping halted rows changes nothing, which `ergometer parity` checks.
//! `native` keeps this to the bit for any batch, place in it and number of threads (on one ISA, in one precision);
//! candle keeps it up to the rounding of f32.
//!
//! Further engines are external programs: they speak the [protocol](crate::protocol) and are started by a suite's
//! `[[backend]]` block. `ci/peers/` has workers for OpenVINO and PyTorch (processors, and NVIDIA boards with `device =
//! "cuda"`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::language::LanguageEngine;
use crate::models::language::LanguageModel;
use crate::models::{Model, NoGraph};

#[cfg(any(feature = "onnxruntime", feature = "tract"))]
mod cached;
#[cfg(feature = "candle")]
pub mod candle;
#[cfg(any(feature = "onnxruntime", feature = "tract"))]
mod file;
pub mod language;
pub mod native;
#[cfg(feature = "onnxruntime")]
pub mod onnxruntime;
pub mod probe;
pub mod reference;
pub mod session;
#[cfg(feature = "tract")]
pub mod tract;

/// Every built-in backend.
pub const BACKENDS: &[&dyn Backend] = &[
    &native::Native,
    #[cfg(feature = "onnxruntime")]
    &onnxruntime::OnnxRuntime,
    #[cfg(feature = "tract")]
    &tract::Tract,
    #[cfg(feature = "candle")]
    &candle::Candle,
    &reference::Reference,
];

/// The built-in backend with this name.
pub fn backend(name: &str) -> Option<&'static dyn Backend> {
    BACKENDS.iter().copied().find(|b| b.name() == name)
}

/// Why something cannot be had here, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    /// Why.
    pub reason: String,
    /// The remedy, where there is one.
    pub hint: Option<String>,
}

impl Unavailable {
    /// Reason, and the remedy on a line of its own.
    pub fn text(&self) -> String {
        let hint = self.hint.as_ref().map(|h| format!("\nhint: {h}")).unwrap_or_default();
        format!("{}{hint}", self.reason)
    }
}

/// How loading or running can fail.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// This backend cannot run this model with these options on this machine.
    #[error("{}", .0.text())]
    Unavailable(Unavailable),
    /// It tried, and failed.
    #[error("{0}")]
    Failed(String),
    /// It ran, and what came out can be no answer.
    #[error("{0}")]
    WrongOutput(String),
}

impl BackendError {
    /// An unavailability without a remedy.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable(Unavailable { reason: reason.into(), hint: None })
    }
}

impl From<NoGraph> for BackendError {
    fn from(e: NoGraph) -> Self {
        Self::unavailable(e.to_string())
    }
}

/// What decides fairness: set by the caller, written out in full in the record.
#[derive(Clone, Debug)]
pub struct Options {
    /// `f32`, ...
    pub precision: String,
    /// Compute threads.
    pub threads: usize,
    /// Most rows at a time.
    pub capacity: usize,
    /// Backend-specific options.
    pub extra: BTreeMap<String, String>,
    /// The model is a file that the engine loads by itself, and this is what it computes in. Options that say how a graph is written as a file
    /// have no meaning then.
    pub file: Option<&'static str>,
    /// The model generates text: its lengths are open, and options that say otherwise have no meaning.
    pub language: bool,
}

impl Options {
    /// f32 without backend-specific options.
    pub fn f32(threads: usize, capacity: usize) -> Self {
        Self { precision: "f32".into(), threads, capacity, extra: BTreeMap::new(), file: None, language: false }
    }
}

/// The part of a case's key that only the backend knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Instruction set of its kernels.
    pub isa: String,
    /// Whether shapes are fixed when the model is loaded (`static`) or open (`symbolic`).
    pub shapes: &'static str,
    /// Options in effect, defaults written out.
    pub options: BTreeMap<String, String>,
}

/// How the tokens of some answers were routed in one mixture of experts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    /// Tokens that went to each expert; a token counts for each of its experts.
    pub load: Vec<u64>,
    /// Sum over the tokens of the router's softmax over all experts.
    pub probability: Vec<f64>,
}

impl Routing {
    /// Of so many experts, nothing yet.
    pub fn new(experts: usize) -> Self {
        Self { load: vec![0; experts], probability: vec![0.0; experts] }
    }

    /// Entropy of the load over its maximum, the logarithm of the number of experts: 1 where all get as many tokens, 0 where one gets all.
    /// `None`: nothing was counted, or there is one expert.
    pub fn entropy(&self) -> Option<f64> {
        let sum = self.load.iter().sum::<u64>() as f64;
        let shares = self.load.iter().filter(|&&n| n > 0).map(|&n| n as f64 / sum);
        let entropy: f64 = shares.map(|p| -p * p.ln()).sum();
        (sum > 0.0 && self.load.len() > 1).then(|| entropy / (self.load.len() as f64).ln())
    }

    /// Counts tokens by their `scores: [tokens, experts]`: the `top_k` highest, of equal ones the lower number.
    pub fn count(&mut self, scores: &[f32], top_k: usize) {
        let mut order: Vec<usize> = Vec::new();
        for row in scores.chunks_exact(self.load.len()) {
            order.clear();
            order.extend(0..row.len());
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
            order.iter().take(top_k).for_each(|&e| self.load[e] += 1);
            let top = f64::from(row[order[0]]);
            let sum: f64 = row.iter().map(|&s| (f64::from(s) - top).exp()).sum();
            let each = row.iter().map(|&s| (f64::from(s) - top).exp() / sum);
            self.probability.iter_mut().zip(each).for_each(|(p, v)| *p += v);
        }
    }
}

/// What an engine says of itself once loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Bytes of weights held, packed copies included.
    pub weight_bytes: u64,
    /// Bytes of states and residents for the whole capacity.
    pub state_bytes: u64,
}

/// What an ONNX file may compute in.
#[cfg(any(feature = "onnxruntime", feature = "tract"))]
const FILE_PRECISIONS: &[&str] = &["f32", "f16", "bf16", "int8", "f64"];

/// Errors: the precision that was asked for is not that of the file.
#[cfg(any(feature = "onnxruntime", feature = "tract"))]
fn is_files(options: &Options) -> Result<(), BackendError> {
    match options.file {
        Some(file) if file != options.precision => Err(BackendError::Unavailable(Unavailable {
            reason: format!("the file computes in {file}, not in {}", options.precision),
            hint: Some(format!("ask for `precisions = [\"{file}\"]`; another precision is another file")),
        })),
        _ => Ok(()),
    }
}

/// Gives the name and the place of a foreign library.
pub type FindLibrary = fn() -> Result<String, Unavailable>;

/// Refuses options that a backend does not know.
pub fn no_options(name: &str, options: &Options) -> Result<BTreeMap<String, String>, BackendError> {
    match options.extra.keys().next() {
        None => Ok(BTreeMap::new()),
        Some(key) => Err(BackendError::Failed(format!("backend `{name}` has no option `{key}`"))),
    }
}

/// An engine: a library or our own kernels.
pub trait Backend: Sync {
    /// Name in suites and paths.
    fn name(&self) -> &'static str;
    /// One sentence.
    fn about(&self) -> &'static str;
    /// Precisions that it computes in.
    fn precisions(&self) -> &'static [&'static str];
    /// Precisions of language models; `stored`: weights stay in the blocks or the type of the file.
    fn language_precisions(&self) -> &'static [&'static str] {
        self.precisions()
    }
    /// Precisions of files that it loads as they are; empty: it loads none.
    fn file_precisions(&self) -> &'static [&'static str] {
        &[]
    }
    /// Versions and build features that decide fairness, or why it cannot run here. Only for the process that is to run it, a worker or a
    /// test: any other asks [`probe::probed`], since a foreign library may take its process down.
    fn probe(&self) -> Result<BTreeMap<String, String>, Unavailable>;
    /// How to find the foreign library that [`probe`](Self::probe) loads, in words and without loading it; `None`: it is all Rust.
    fn library(&self) -> Option<FindLibrary> {
        None
    }
    /// Obtains what it needs and this machine lacks, such as a library. The harness calls it before a worker starts, in its own process,
    /// never in a dry run; it must be cheap where nothing is lacking, and try only once per process.
    fn prepare(&self, _options: &Options) -> Result<(), Unavailable> {
        Ok(())
    }
    /// Process-wide settings (thread pools that are built once) for a worker that will load with these options. Called before any
    /// thread is started; gives environment variables to set before the worker starts.
    fn environment(&self, _options: &Options) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// Sets of backend-specific options worth trying for speed, the default (often no option at all) first. Every one of them must
    /// compute the same within the precision's tolerance. `ergometer tune` searches this list, and the record carries it.
    fn settings(&self, _options: &Options) -> Vec<BTreeMap<String, String>> {
        vec![BTreeMap::new()]
    }
    /// What a session with these options will be, as far as it decides comparability: known before anything is loaded.
    fn describe(&self, options: &Options) -> Result<Described, BackendError>;
    /// Compiles the graph, packs the weights.
    fn load(&self, model: &Model, options: &Options) -> Result<Box<dyn Engine>, BackendError>;
    /// Whether it loads language models.
    fn speaks(&self) -> bool {
        false
    }
    /// The same of a causal model, with room for `options.capacity` sequences.
    fn load_language(
        &self,
        _model: &LanguageModel,
        _options: &Options,
    ) -> Result<Box<dyn LanguageEngine>, BackendError> {
        Err(BackendError::unavailable(format!("backend `{}` does not generate text", self.name())))
    }
}

/// A loaded model with room for `capacity` rows, of which the first ones are live. Rows are independent: the result of a row must not
/// depend on which other rows are live or on its place.
pub trait Engine {
    /// What it is.
    fn facts(&self) -> Facts;
    /// What only loading tells, for the record beside the versions: kernels chosen, paths taken.
    fn report(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
    /// Makes rows `at..at + n` live: computes their residents and resets their states. `inputs[i]` holds the `i`-th input of the model's interface,
    /// `[n, tokens]` indices already checked against the input's bound.
    fn admit(&mut self, at: usize, n: usize, inputs: &[&[u32]]) -> Result<(), BackendError>;
    /// The same of arrays: `inputs[i]` holds the elements of the `i`-th input of the model's interface, `[n, ..shape]` of its kind, little endian;
    /// where the interface takes sequences, `[n, steps, ..shape]`. Only engines that run a file by itself take them.
    fn admit_arrays(&mut self, _at: usize, _n: usize, _inputs: &[&[u8]]) -> Result<(), BackendError> {
        Err(BackendError::unavailable("this engine takes tokens, and no arrays"))
    }
    /// Elements of a row of the `i`-th output of the last step along each axis; `None`: the interface says.
    fn row_shape(&self, _i: usize) -> Option<&[usize]> {
        None
    }
    /// One step of rows `0..rows`; their states stay inside.
    fn step(&mut self, rows: usize) -> Result<(), BackendError>;
    /// The `i`-th output of the last step, `[rows, tokens, features]`; of an output whose size the interface does not know, all of it.
    fn output(&self, i: usize) -> &[f32];
    /// Keeps the live rows with these (ascending) numbers, moving them to `0..keep.len()`.
    fn keep(&mut self, keep: &[usize]) -> Result<(), BackendError>;
    /// The `i`-th state of rows `0..rows`, `[rows, tokens, features]`.
    fn state(&self, i: usize, rows: usize) -> Result<Vec<f32>, BackendError>;
    /// Overwrites the `i`-th state of rows `0..rows`.
    fn set_state(&mut self, i: usize, rows: usize, values: &[f32]) -> Result<(), BackendError>;
    /// FLOPs that a step of this many rows executes in the products that the graph's cost counts, the engine's own padding included;
    /// `None`: it cannot say, and then nobody can.
    fn flops_executed(&self, rows: usize) -> Option<f64>;
    /// The same of admitting `n` rows.
    fn flops_admitted(&self, n: usize) -> Option<f64>;
    /// From now on counts how its mixtures of experts route, or stops to. Never on while something is timed.
    fn watch_routing(&mut self, _on: bool) {}
    /// What has been counted since it was switched on, a mixture after the other in the order of the graph; `None`: it cannot see.
    fn routing(&self) -> Option<Vec<Routing>> {
        None
    }
}
