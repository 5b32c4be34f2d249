//! The `candle` backend: Hugging Face's tensor library on the CPU, in f32.
//!
//! In: a graph and its parameters. Out: an [`Engine`] whose states are tensors. Must not: hold kernels of its own beyond the fused
//! operators in `candle/ops.rs`, which candle-nn's users have too.
//!
//! Threads are process-wide: rayon's pool is built once, so a worker sets [`Backend::environment`] before it starts. Rows are independent
//! up to the rounding of f32: gemm chooses its blocking by the shape of a product, and with it the order of its sums.
//!
//! Shapes are symbolic, and the trainer (`crate::train`) stands on the same lowering.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::language::LanguageEngine;
use super::{Backend, BackendError, Described, Engine, Facts, Options, Routing, Unavailable, no_options};
use crate::graph::Init;
use crate::graph::cost::Workload;
use crate::models::Model;
use crate::models::language::LanguageModel;
use lower::Lowering;

mod language;
pub(crate) mod lower;
mod ops;

/// See the module.
pub struct Candle;

/// candle-core and gemm as locked by this build; a test holds them to the lock file.
const VERSIONS: [(&str, &str); 2] = [("candle-core", "0.11.1"), ("gemm", "0.19.0")];

impl Backend for Candle {
    fn name(&self) -> &'static str {
        "candle"
    }

    fn about(&self) -> &'static str {
        "Hugging Face's candle on the CPU, with gemm's AVX-512 kernels and fused norm, softmax and gate"
    }

    fn precisions(&self) -> &'static [&'static str] {
        &["f32"]
    }

    fn probe(&self) -> Result<BTreeMap<String, String>, Unavailable> {
        let mut facts: BTreeMap<String, String> =
            VERSIONS.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
        facts.insert("gemm-features".into(), "x86-v4".into());
        facts.insert("isa".into(), isa().into());
        let compiled = [
            ("avx", cfg!(target_feature = "avx")),
            ("avx2", cfg!(target_feature = "avx2")),
            ("fma", cfg!(target_feature = "fma")),
            ("avx512f", cfg!(target_feature = "avx512f")),
        ];
        let names: Vec<&str> = compiled.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        let names = if names.is_empty() { "baseline".to_owned() } else { names.join(",") };
        facts.insert("target-features".into(), names);
        facts.insert("threads".into(), candle_core::utils::get_num_threads().to_string());
        Ok(facts)
    }

    fn environment(&self, options: &Options) -> Vec<(&'static str, String)> {
        ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"].map(|name| (name, options.threads.to_string())).to_vec()
    }

    fn describe(&self, options: &Options) -> Result<Described, BackendError> {
        Ok(Described { isa: isa().into(), shapes: "symbolic", options: no_options(self.name(), options)? })
    }

    fn load(&self, model: &Model, options: &Options) -> Result<Box<dyn Engine>, BackendError> {
        if options.precision != "f32" {
            return Err(BackendError::unavailable(format!(
                "candle computes in f32 here, not in {}: its matrix products in bf16 are f32 products of widened numbers",
                options.precision
            )));
        }
        let graph = model.graph()?;
        let lowering = Lowering::new(graph)
            .map_err(|what| BackendError::unavailable(format!("{what} is not lowered to candle")))?;
        keep_memory(256);
        let tensors = graph.params.iter().zip(model.params.iter());
        let params = tensors.map(|(p, v)| Tensor::from_slice(v, p.shape.as_slice(), &Device::Cpu));
        let params = params.collect::<candle_core::Result<Vec<_>>>().map_err(failed)?;
        Ok(Box::new(CandleEngine {
            routing: None,
            lowering,
            params,
            capacity: options.capacity,
            states: Vec::new(),
            residents: Vec::new(),
            outputs: Vec::new(),
        }))
    }

    fn speaks(&self) -> bool {
        true
    }

    fn load_language(&self, model: &LanguageModel, options: &Options) -> Result<Box<dyn LanguageEngine>, BackendError> {
        self.describe(options)?;
        if options.precision != "f32" {
            let message = format!("candle computes language models in f32 here, not in {}", options.precision);
            return Err(BackendError::unavailable(message));
        }
        Ok(Box::new(language::CandleLanguage::load(model, options.capacity)?))
    }
}

/// The widest kernels that gemm picks on this machine, with its feature `x86-v4` on.
fn isa() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "avx512f";
        }
        if std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2") {
            return "avx2+fma";
        }
    }
    if cfg!(target_arch = "aarch64") { "neon" } else { "scalar" }
}

/// Lets freed tensors stay with the process, for at most about this many MiB. Without it glibc hands memory back to the system after
/// nearly every operator and takes it again for the next one: half of the time goes to page faults.
///
/// Freeing one block just below 32 MiB raises the size up to which blocks come from the heap (mallopt(3), `M_MMAP_THRESHOLD`); the last
/// block stays and lies above the freed ones, so that the heap cannot shrink below it. Nothing is touched, so nothing is used up.
pub(crate) fn keep_memory(mib: usize) {
    use std::hint::black_box;
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        const BLOCK: usize = 31 << 20;
        drop(black_box(Vec::<u8>::with_capacity(BLOCK + (1 << 19))));
        let mut blocks: Vec<Vec<u8>> = (0..=mib.div_ceil(31)).map(|_| black_box(Vec::with_capacity(BLOCK))).collect();
        std::mem::forget(blocks.pop());
        drop(blocks);
    });
}

fn failed(e: candle_core::Error) -> BackendError {
    BackendError::Failed(format!("candle: {e}"))
}

struct CandleEngine {
    lowering: Lowering,
    params: Vec<Tensor>,
    capacity: usize,
    /// Of the live rows, `[rows, tokens, features]` each.
    states: Vec<Tensor>,
    /// Of the live rows.
    residents: Vec<Tensor>,
    outputs: Vec<Vec<f32>>,
    /// Counts of each mixture of experts, while somebody wants them.
    routing: Option<Vec<Routing>>,
}

/// The first `rows` rows, followed by those of `more`.
fn extend(first: &[Tensor], rows: usize, more: Vec<Tensor>) -> candle_core::Result<Vec<Tensor>> {
    if rows == 0 {
        return Ok(more);
    }
    let join = |(a, b): (&Tensor, Tensor)| Tensor::cat(&[&a.narrow(0, 0, rows)?, &b], 0);
    first.iter().zip(more).map(join).collect()
}

/// States of freshly admitted rows.
pub(crate) fn initial_states(lowering: &Lowering, params: &[Tensor], rows: usize) -> candle_core::Result<Vec<Tensor>> {
    let state = |state: &crate::graph::State| {
        let shape = (rows, state.ty.tokens_at(0), state.ty.features);
        match state.init {
            Init::Vector(p) => params[p.0].detach().broadcast_as(shape)?.contiguous(),
            Init::Zero | Init::Empty => Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu),
        }
    };
    lowering.graph().states.iter().map(state).collect()
}

impl CandleEngine {
    fn try_step(&mut self, rows: usize) -> candle_core::Result<()> {
        let live = self.states.iter().chain(&self.residents).next().map_or(Ok(rows), |t| t.dim(0))?;
        let all = self.states.iter().chain(&self.residents);
        let args = all.map(|t| if rows == live { Ok(t.clone()) } else { t.narrow(0, 0, rows)?.contiguous() });
        let args = args.collect::<candle_core::Result<Vec<_>>>()?;
        let mut results = self.lowering.run(&self.lowering.graph().step, &self.params, args)?;
        if let Some(counts) = &mut self.routing {
            let mixtures = self.lowering.graph().mixtures().len();
            for (i, seen) in self.lowering.seen().into_iter().enumerate() {
                let experts = seen.scores.dim(1)?;
                if counts.len() < mixtures {
                    counts.push(Routing::new(experts));
                }
                counts[i % mixtures].count(&seen.values, seen.top_k);
            }
        }
        let outputs = results.split_off(self.states.len());
        self.outputs = outputs.iter().map(|t| t.flatten_all()?.to_vec1()).collect::<candle_core::Result<_>>()?;
        self.replace_states(rows, results)
    }

    /// New states for the first `rows` rows; later rows keep theirs.
    fn replace_states(&mut self, rows: usize, new: Vec<Tensor>) -> candle_core::Result<()> {
        for (state, new) in self.states.iter_mut().zip(new) {
            let live = state.dim(0)?;
            *state = if rows == live { new } else { Tensor::cat(&[&new, &state.narrow(0, rows, live - rows)?], 0)? };
        }
        Ok(())
    }

    fn try_admit(&mut self, at: usize, n: usize, inputs: &[&[u32]]) -> candle_core::Result<()> {
        let graph = self.lowering.graph();
        let args = inputs.iter().zip(&graph.inputs);
        let args = args.map(|(values, input)| Tensor::from_slice(values, (n, input.ty.tokens_at(0)), &Device::Cpu));
        let args = args.collect::<candle_core::Result<Vec<_>>>()?;
        let residents = self.lowering.run(&graph.admit, &self.params, args)?;
        let states = initial_states(&self.lowering, &self.params, n)?;
        self.residents = extend(&self.residents, at, residents)?;
        self.states = extend(&self.states, at, states)?;
        Ok(())
    }

    fn try_keep(&mut self, keep: &[usize]) -> candle_core::Result<()> {
        if keep.is_empty() {
            self.states.clear();
            self.residents.clear();
            return Ok(());
        }
        let rows: Vec<u32> = keep.iter().map(|&r| r as u32).collect();
        let rows = Tensor::from_vec(rows, keep.len(), &Device::Cpu)?;
        for t in self.states.iter_mut().chain(&mut self.residents) {
            *t = t.index_select(&rows, 0)?;
        }
        Ok(())
    }
}

impl Engine for CandleEngine {
    fn facts(&self) -> Facts {
        let graph = self.lowering.graph();
        let weights: usize = graph.params.iter().map(|p| p.elements()).sum();
        let state = graph.cost(&Workload::one()).state_bytes;
        Facts { weight_bytes: 4 * weights as u64, state_bytes: (state * self.capacity as f64) as u64 }
    }

    fn admit(&mut self, at: usize, n: usize, inputs: &[&[u32]]) -> Result<(), BackendError> {
        self.try_admit(at, n, inputs).map_err(failed)
    }

    fn step(&mut self, rows: usize) -> Result<(), BackendError> {
        self.try_step(rows).map_err(failed)
    }

    fn output(&self, i: usize) -> &[f32] {
        &self.outputs[i]
    }

    fn keep(&mut self, keep: &[usize]) -> Result<(), BackendError> {
        self.try_keep(keep).map_err(failed)
    }

    fn state(&self, i: usize, rows: usize) -> Result<Vec<f32>, BackendError> {
        self.states[i].narrow(0, 0, rows).and_then(|t| t.flatten_all()?.to_vec1()).map_err(failed)
    }

    /// gemm pads products to its tiles and tells nobody by how much.
    fn flops_executed(&self, _rows: usize) -> Option<f64> {
        None
    }

    fn flops_admitted(&self, _n: usize) -> Option<f64> {
        None
    }

    fn watch_routing(&mut self, on: bool) {
        self.lowering.watch(on);
        self.routing = (on && !self.lowering.graph().mixtures().is_empty()).then(Vec::new);
    }

    fn routing(&self) -> Option<Vec<Routing>> {
        self.routing.clone()
    }

    fn set_state(&mut self, i: usize, rows: usize, values: &[f32]) -> Result<(), BackendError> {
        let ty = self.lowering.graph().states[i].ty;
        let set = || {
            let new = lower::tensor(values, rows, ty)?;
            let live = self.states[i].dim(0)?;
            if rows == live { Ok(new) } else { Tensor::cat(&[&new, &self.states[i].narrow(0, rows, live - rows)?], 0) }
        };
        self.states[i] = set().map_err(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
