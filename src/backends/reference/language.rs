//! The interpreter as an engine that generates: the judge of every backend's logits.
//!
//! In: the graph of a causal model, one input a call. Out: a [`LanguageEngine`] that computes in f64, a sequence after the other. Must not: be
//! compared for speed.

use std::sync::Arc;

use super::super::language::{Feed, LanguageEngine, WantedLogits, check};
use super::super::{BackendError, Facts};
use crate::graph::cost::Workload;
use crate::graph::interpreter::Interpreter;
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Init};

/// See the module.
pub struct ReferenceLanguage {
    graph: Graph,
    /// Experts that a token meets, where there are some.
    used: Option<usize>,
    params: Arc<Vec<Vec<f32>>>,
    threads: usize,
    context: usize,
    /// Caches of each slot.
    slots: Vec<Vec<Tensor>>,
    logits: Vec<f32>,
}

impl ReferenceLanguage {
    /// Room for so many sequences.
    ///
    /// # Errors
    /// The graph is none of a causal model: another number of inputs, states that are no caches, residents.
    pub fn new(graph: &Graph, params: Arc<Vec<Vec<f32>>>, threads: usize, slots: usize) -> Result<Self, BackendError> {
        let caches = graph.states.iter().all(|s| s.init == Init::Empty);
        if graph.calls.len() != 1 || !caches || !graph.admit.results.is_empty() || graph.states.is_empty() {
            return Err(BackendError::unavailable("the model does not generate: it takes no tokens at each step"));
        }
        let context = graph.states.iter().map(|s| s.ty.tokens_at(0)).min().unwrap_or(0);
        let empty = graph.states.iter().map(|s| Tensor { data: Vec::new(), tokens: 0, features: s.ty.features });
        let slots = vec![empty.collect::<Vec<Tensor>>(); slots];
        Ok(Self {
            graph: graph.clone(),
            used: graph.active_experts(),
            params,
            threads,
            context,
            slots,
            logits: Vec::new(),
        })
    }
}

impl LanguageEngine for ReferenceLanguage {
    fn facts(&self) -> Facts {
        let cost = self.graph.cost(&Workload { value_bytes: 8.0, ..Workload::one() });
        let held = cost.state_bytes * self.slots.len() as f64;
        Facts { weight_bytes: cost.weight_bytes as u64, state_bytes: held as u64 }
    }

    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn context(&self) -> usize {
        self.context
    }

    fn vocabulary(&self) -> usize {
        self.graph.outputs.first().map_or(0, |o| o.ty.features)
    }

    fn past(&self, slot: usize) -> usize {
        self.slots[slot].first().map_or(0, |cache| cache.tokens)
    }

    fn clear(&mut self, slot: usize) {
        for cache in &mut self.slots[slot] {
            cache.data.clear();
            cache.tokens = 0;
        }
    }

    fn feed(&mut self, feeds: &[Feed], wanted: WantedLogits) -> Result<(), BackendError> {
        check(self, feeds)?;
        self.logits.clear();
        let vocabulary = self.vocabulary();
        for feed in feeds {
            let tokens = feed.tokens.iter().map(|&t| f64::from(t)).collect();
            let tokens = Tensor { data: tokens, tokens: feed.tokens.len(), features: 1 };
            let interpreter = Interpreter::new(&self.graph, &self.params).on_threads(self.threads);
            let args = std::mem::take(&mut self.slots[feed.slot]).into_iter().chain([tokens]).collect();
            let mut results = interpreter.run(&self.graph.step, args, 1);
            let outputs = results.split_off(self.graph.states.len());
            self.slots[feed.slot] = results;
            let from = match wanted {
                WantedLogits::All => 0,
                WantedLogits::Last => outputs[0].data.len() - vocabulary,
            };
            self.logits.extend(outputs[0].data[from..].iter().map(|&v| v as f32));
        }
        Ok(())
    }

    fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn number_bytes(&self) -> Option<f64> {
        Some(8.0)
    }

    fn copy(&mut self, from: usize, to: usize) -> Result<(), BackendError> {
        self.slots[to] = self.slots[from].clone();
        Ok(())
    }

    fn activate_experts(&mut self, active: Option<usize>) -> bool {
        active.or(self.used).is_none_or(|n| self.graph.activate_experts(n))
    }
}
