//! The `native` backend: our own kernels (crate `ergometer-kernels`), a plan compiled at load, whose buffers never move after it.
//!
//! In: a graph and its parameters. Out: an [`Engine`] whose row results are the same to the bit whatever the batch, the row's place and
//! the number of threads. Must not: hold arithmetic (that is the kernels'), or change what the graph computes.
//!
//! `plan` and `lower` compile the graph to steps over numbered `buffers`, `weights` packs the parameters once, `execute` runs the steps.
//!
//! Shapes are static: buffers are planned for the capacity. Kernels are chosen by ISA and number format when the model
//! is loaded, and a gated MLP with its residual and norm is one operator.

use std::collections::BTreeMap;

use ergometer_kernels::{Context, Isa, NumberFormat};

use self::execute::{Arena, Run};
use self::language::NativeLanguage;
use self::language::matrix::WeightsAs;
use self::program::Program;
use self::weights::{Packer, Weights};
use super::language::LanguageEngine;
use super::{Backend, BackendError, Described, Engine, Facts, Options, Routing, Unavailable};
use crate::graph::{Graph, Init, ParamId};
use crate::models::Model;
use crate::models::language::LanguageModel;

mod buffers;
mod execute;
mod language;
mod lower;
mod program;
mod weights;

/// See the module.
pub struct Native;

/// More threads than any machine of today has cores.
const MAX_THREADS: usize = 1024;

impl Backend for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn about(&self) -> &'static str {
        "our own SIMD kernels (scalar, AVX2, AVX-512, AMX), a plan compiled once; option isa=scalar|avx2|avx512|avx512bf16|amx, of language models cache=f32|bf16"
    }

    fn precisions(&self) -> &'static [&'static str] {
        &["f32", "bf16", "int8"]
    }

    fn language_precisions(&self) -> &'static [&'static str] {
        &["stored", "f32", "bf16"]
    }

    fn probe(&self) -> Result<BTreeMap<String, String>, Unavailable> {
        let isa = Isa::from_env().map_err(unavailable)?;
        let available: Vec<String> = Isa::available().iter().map(Isa::to_string).collect();
        Ok(BTreeMap::from([
            ("native".into(), env!("CARGO_PKG_VERSION").into()),
            ("isa".into(), isa.to_string()),
            ("isa_detected".into(), Isa::detect().to_string()),
            ("isas_available".into(), available.join(", ")),
            ("target_features".into(), target_features()),
        ]))
    }

    fn describe(&self, options: &Options) -> Result<Described, BackendError> {
        let isa = isa_of(options)?.to_string();
        let mut said = BTreeMap::from([("isa".into(), isa.clone())]);
        if options.precision == STORED || options.extra.contains_key("cache") {
            said.insert("cache".into(), cache_of(options)?.0.into());
        }
        Ok(Described { options: said, isa, shapes: "static" })
    }

    fn load(&self, model: &Model, options: &Options) -> Result<Box<dyn Engine>, BackendError> {
        if options.extra.contains_key("cache") {
            return Err(BackendError::Failed("option `cache` is of language models; this model has no cache".into()));
        }
        Ok(Box::new(NativeEngine::load(model, options)?))
    }

    fn speaks(&self) -> bool {
        true
    }

    fn load_language(&self, model: &LanguageModel, options: &Options) -> Result<Box<dyn LanguageEngine>, BackendError> {
        let weights = match options.precision.as_str() {
            STORED => WeightsAs::Stored,
            other => WeightsAs::Format(format_of(other)?),
        };
        let (ctx, (_, cache)) = (context(options)?, cache_of(options)?);
        Ok(Box::new(NativeLanguage::load(ctx, model, weights, cache, options.capacity)?))
    }
}

/// Threads and instruction set that the options ask for.
fn context(options: &Options) -> Result<Context, BackendError> {
    if !(1..=MAX_THREADS).contains(&options.threads) {
        let message = format!("{} threads; between 1 and {MAX_THREADS} are possible", options.threads);
        return Err(BackendError::Failed(message));
    }
    Context::new(options.threads, isa_of(options)?).map_err(|text| BackendError::Unavailable(unavailable(text)))
}

/// The precision in which weights stay as the file has them.
const STORED: &str = "stored";

/// The number format of keys and values, by name: what the option says, or f32 where products are f32, and bf16 where they round more
/// than that does (a long context is then half the bytes to read, as it is with the 16 bits of other engines).
fn cache_of(options: &Options) -> Result<(&'static str, NumberFormat), BackendError> {
    let default = if options.precision == "f32" { "f32" } else { "bf16" };
    match options.extra.get("cache").map_or(default, String::as_str) {
        "f32" => Ok(("f32", NumberFormat::F32)),
        "bf16" => Ok(("bf16", NumberFormat::Bf16)),
        other => Err(BackendError::Failed(format!("option `cache` is `{other}`\nhint: use f32 or bf16"))),
    }
}

/// The instruction set that an option or `ERGOMETER_ISA` asks for, or else the widest; refuses other options.
fn isa_of(options: &Options) -> Result<Isa, BackendError> {
    if let Some(key) = options.extra.keys().find(|key| *key != "isa" && *key != "cache") {
        let message =
            format!("backend `native` has no option `{key}`\nhint: it has `isa`, and of language models `cache`");
        return Err(BackendError::Failed(message));
    }
    let chosen = match options.extra.get("isa") {
        Some(name) => Isa::choose(Some(name)),
        None => Isa::from_env(),
    };
    chosen.map_err(|text| BackendError::Unavailable(unavailable(text)))
}

/// Number format of a precision's products.
fn format_of(precision: &str) -> Result<NumberFormat, BackendError> {
    match precision {
        "f32" => Ok(NumberFormat::F32),
        "bf16" => Ok(NumberFormat::Bf16),
        "int8" => Ok(NumberFormat::Int8),
        other => {
            let known = Native.precisions().join(", ");
            Err(BackendError::unavailable(format!("backend `native` computes in {known}, not in {other}")))
        }
    }
}

/// The kernels' errors end with a hint.
fn unavailable(text: String) -> Unavailable {
    match text.split_once("\nhint: ") {
        Some((reason, hint)) => Unavailable { reason: reason.into(), hint: Some(hint.into()) },
        None => Unavailable { reason: text, hint: None },
    }
}

/// What the compiler was allowed to use outside the kernels, which choose for themselves.
fn target_features() -> String {
    let known = [
        ("sse4.2", cfg!(target_feature = "sse4.2")),
        ("avx2", cfg!(target_feature = "avx2")),
        ("fma", cfg!(target_feature = "fma")),
        ("avx512f", cfg!(target_feature = "avx512f")),
        ("neon", cfg!(target_feature = "neon")),
    ];
    let on: Vec<&str> = known.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let arch = std::env::consts::ARCH;
    if on.is_empty() { format!("{arch} baseline") } else { format!("{arch} baseline, {}", on.join(", ")) }
}

/// A compiled model with its memory. The buffers are planned for `capacity` rows and never move.
struct NativeEngine {
    ctx: Context,
    graph: Graph,
    weights: Weights,
    plan: Program,
    memory: Arena,
    /// Number in `weights.plain` of each state's start; `None`: zeros.
    starts: Vec<Option<usize>>,
    capacity: usize,
    /// Rows of the last step.
    stepped: usize,
}

impl NativeEngine {
    fn load(model: &Model, options: &Options) -> Result<Self, BackendError> {
        let format = format_of(&options.precision)?;
        let ctx = context(options)?;
        let graph = model.graph()?;
        let mut packer = Packer::new(graph, &model.params, &ctx, format);
        let mut start = |init: Init| match init {
            Init::Vector(ParamId(p)) => Some(packer.plain(ParamId(p))),
            Init::Zero | Init::Empty => None,
        };
        let starts = graph.states.iter().map(|s| start(s.init)).collect();
        let (plan, weights) = program::compile(graph, packer)?;
        program::check_tables(graph, &plan.admit, &weights)?;
        let mut memory = Arena::new(&plan.sizes, options.capacity).map_err(BackendError::unavailable)?;
        memory.route(&plan.mixtures, options.capacity);
        let (capacity, graph) = (options.capacity, graph.clone());
        Ok(Self { ctx, graph, weights, plan, memory, starts, capacity, stepped: 0 })
    }

    fn check_rows(&self, rows: usize) -> Result<(), BackendError> {
        if rows <= self.capacity {
            return Ok(());
        }
        Err(BackendError::Failed(format!("{rows} rows, the session was loaded for {}", self.capacity)))
    }

    fn step_watched(&mut self, rows: usize, seen: &mut impl FnMut(&'static str)) -> Result<(), BackendError> {
        self.check_rows(rows)?;
        self.stepped = rows;
        if rows > 0 {
            let run = Run { ctx: &self.ctx, weights: &self.weights, inputs: &[], rows };
            run.steps(&self.plan.step, &mut self.memory, seen);
        }
        Ok(())
    }
}

impl Engine for NativeEngine {
    fn facts(&self) -> Facts {
        let per_row: usize = self.plan.states.iter().chain(&self.plan.residents).map(|at| at.len).sum();
        Facts {
            weight_bytes: self.weights.bytes() as u64,
            state_bytes: (per_row * self.capacity * size_of::<f32>()) as u64,
        }
    }

    /// Bytes of the buffers for the whole capacity, and the least that its values need (see [`Program::least`]). Scratch memory of the kernels is in neither.
    fn report(&self) -> BTreeMap<String, String> {
        let least = size_of::<f32>() * self.capacity * self.plan.least;
        let bytes = [("buffer_bytes", self.memory.bytes()), ("buffer_bytes_least", least)];
        bytes.map(|(name, bytes)| (name.to_string(), bytes.to_string())).into()
    }

    fn admit(&mut self, at: usize, n: usize, inputs: &[&[u32]]) -> Result<(), BackendError> {
        self.check_rows(at.saturating_add(n))?;
        let declared = &self.graph.inputs;
        if inputs.len() != declared.len() {
            return Err(BackendError::Failed(format!("{} inputs, the graph takes {}", inputs.len(), declared.len())));
        }
        for (given, declared) in inputs.iter().zip(declared) {
            // an index beyond its table must not reach a kernel
            if given.len() != n * declared.ty.elements() || given.iter().any(|&i| i as usize >= declared.rows) {
                let (name, tokens, rows) = (&declared.name, declared.ty.elements(), declared.rows);
                let wanted = format!("{n} rows of {tokens} indices below {rows}");
                return Err(BackendError::Failed(format!("input `{name}` is not {wanted}")));
            }
        }
        if n == 0 {
            return Ok(());
        }
        Run { ctx: &self.ctx, weights: &self.weights, inputs, rows: n }.steps(
            &self.plan.admit,
            &mut self.memory,
            &mut |_| {},
        );
        for (&staged, &resident) in self.plan.staged.iter().zip(&self.plan.residents) {
            let rows = at + n;
            self.memory.with(resident, rows, |m, all| all[at * resident.len..].copy_from_slice(m.get(staged, n)));
        }
        for (&state, start) in self.plan.states.iter().zip(&self.starts) {
            let rows = &mut self.memory.get_mut(state, at + n)[at * state.len..];
            match start {
                Some(i) => {
                    let vector = &self.weights.plain[*i];
                    rows.chunks_exact_mut(vector.len()).for_each(|token| token.copy_from_slice(vector));
                }
                None => rows.fill(0.0),
            }
        }
        Ok(())
    }

    fn step(&mut self, rows: usize) -> Result<(), BackendError> {
        self.step_watched(rows, &mut |_| {})
    }

    fn output(&self, i: usize) -> &[f32] {
        self.memory.get(self.plan.outputs[i], self.stepped)
    }

    fn keep(&mut self, keep: &[usize]) -> Result<(), BackendError> {
        if !keep.is_sorted_by(|a, b| a < b) || keep.last().is_some_and(|&last| last >= self.capacity) {
            return Err(BackendError::Failed("rows to keep must ascend and exist".into()));
        }
        for &at in self.plan.states.iter().chain(&self.plan.residents) {
            self.memory.compact(at, keep);
        }
        Ok(())
    }

    fn state(&self, i: usize, rows: usize) -> Result<Vec<f32>, BackendError> {
        self.check_rows(rows)?;
        Ok(self.memory.get(self.plan.states[i], rows).to_vec())
    }

    fn set_state(&mut self, i: usize, rows: usize, values: &[f32]) -> Result<(), BackendError> {
        self.check_rows(rows)?;
        let state = self.memory.get_mut(self.plan.states[i], rows);
        if state.len() != values.len() {
            let name = &self.graph.states[i].name;
            return Err(BackendError::Failed(format!("{} values for {rows} rows of `{name}`", values.len())));
        }
        state.copy_from_slice(values);
        Ok(())
    }

    fn flops_executed(&self, rows: usize) -> Option<f64> {
        Some(Run { ctx: &self.ctx, weights: &self.weights, inputs: &[], rows }.flops(&self.plan.step))
    }

    fn flops_admitted(&self, n: usize) -> Option<f64> {
        Some(Run { ctx: &self.ctx, weights: &self.weights, inputs: &[], rows: n }.flops(&self.plan.admit))
    }

    fn watch_routing(&mut self, on: bool) {
        let mixtures = &self.plan.mixtures;
        let none = || mixtures.iter().map(|m| Routing::new(m.experts)).collect();
        self.memory.watched = (on && !mixtures.is_empty()).then(none);
    }

    fn routing(&self) -> Option<Vec<Routing>> {
        self.memory.watched.clone()
    }
}

#[cfg(test)]
mod tests;
