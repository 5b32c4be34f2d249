//! The `reference` backend: the interpreter as an engine, so that it runs in a worker like any other.
//!
//! In: a graph and its parameters. Out: an [`Engine`] that computes in f64. Must not: be compared for speed; it is the judge.

use std::collections::BTreeMap;
use std::sync::Arc;

use self::language::ReferenceLanguage;
use super::language::LanguageEngine;
use super::{Backend, BackendError, Described, Engine, Facts, Options, Unavailable, no_options};
use crate::graph::cost::Workload;
use crate::graph::interpreter::{Interpreter, value_elements};
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Init, Op, Region, Tokens, op};
use crate::models::Model;
use crate::models::language::LanguageModel;

pub mod language;

/// See the module.
pub struct Reference;

impl Backend for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn about(&self) -> &'static str {
        "plain loops in f64: the judge in parity checks, not a contestant"
    }

    fn precisions(&self) -> &'static [&'static str] {
        &["f64"]
    }

    fn probe(&self) -> Result<BTreeMap<String, String>, Unavailable> {
        Ok(BTreeMap::from([("reference".into(), env!("CARGO_PKG_VERSION").into())]))
    }

    fn describe(&self, options: &Options) -> Result<Described, BackendError> {
        Ok(Described { isa: "scalar-f64".into(), shapes: "static", options: no_options(self.name(), options)? })
    }

    fn load(&self, model: &Model, options: &Options) -> Result<Box<dyn Engine>, BackendError> {
        self.describe(options)?;
        let graph = model.graph()?;
        if let Some(what) = beyond(&graph.admit).or_else(|| beyond(&graph.step)) {
            return Err(BackendError::unavailable(format!("the interpreter does not compute {what}")));
        }
        let types = graph.step.types.iter().chain(&graph.admit.types);
        let values: usize = types.map(|&ty| value_elements(ty, options.capacity)).fold(0, usize::saturating_add);
        if values > 1 << 31 {
            return Err(BackendError::unavailable(format!(
                "the interpreter would hold {values} values for {} rows",
                options.capacity
            )));
        }
        let cost = graph.cost(&Workload::one());
        // keys that a mask hides are multiplied by zero, which the cost does not count
        let exact = !masked(&graph.admit) && !masked(&graph.step);
        Ok(Box::new(ReferenceEngine {
            flops: exact.then_some([cost.flops_admit, cost.flops_steps]),
            graph: graph.clone(),
            params: model.params.clone(),
            threads: options.threads,
            capacity: options.capacity,
            rows: Vec::new(),
            outputs: Vec::new(),
        }))
    }

    fn speaks(&self) -> bool {
        true
    }

    fn load_language(&self, model: &LanguageModel, options: &Options) -> Result<Box<dyn LanguageEngine>, BackendError> {
        self.describe(options)?;
        let params = model.params().map_err(|e| BackendError::Failed(e.to_string()))?;
        let engine = ReferenceLanguage::new(&model.graph, params.into(), options.threads, options.capacity)?;
        Ok(Box::new(engine))
    }
}

/// What a region asks for that the interpreter would get wrong.
fn beyond(region: &Region) -> Option<&'static str> {
    if region.types.iter().any(|t| t.tokens == Tokens::Length) {
        return Some("inputs of open length");
    }
    region.nodes.iter().find_map(|node| match &node.op {
        Op::Repeat(op::Repeat { body, .. }) => beyond(body),
        _ => None,
    })
}

/// Some attention hides keys.
fn masked(region: &Region) -> bool {
    region.nodes.iter().any(|node| match &node.op {
        Op::Attend(a) => a.causal || a.window.is_some(),
        Op::Repeat(op::Repeat { body, .. }) => masked(body),
        _ => false,
    })
}

/// States and residents of one row, as tensors of batch 1.
type Row = (Vec<Tensor>, Vec<Tensor>);

struct ReferenceEngine {
    graph: Graph,
    params: Arc<Vec<Vec<f32>>>,
    threads: usize,
    capacity: usize,
    /// Of an admission and of a step of one row, if the graph's cost is what runs.
    flops: Option<[f64; 2]>,
    rows: Vec<Row>,
    outputs: Vec<Vec<f32>>,
}

impl Engine for ReferenceEngine {
    fn facts(&self) -> Facts {
        let graph = &self.graph;
        let elements: usize = graph.params.iter().map(|p| p.elements()).sum();
        let state = graph.cost(&Workload { value_bytes: 8.0, ..Workload::one() }).state_bytes;
        Facts { weight_bytes: 4 * elements as u64, state_bytes: (state * self.capacity as f64) as u64 }
    }

    fn admit(&mut self, at: usize, n: usize, inputs: &[&[u32]]) -> Result<(), BackendError> {
        let graph = &self.graph;
        let interpreter = Interpreter::new(graph, &self.params).on_threads(self.threads);
        self.rows.truncate(at);
        for row in 0..n {
            let args = inputs.iter().zip(&graph.inputs).map(|(input, declared)| {
                let tokens = declared.ty.elements();
                let data = input[row * tokens..(row + 1) * tokens].iter().map(|&v| f64::from(v)).collect();
                Tensor { data, tokens, features: 1 }
            });
            let residents = interpreter.run(&graph.admit, args.collect(), 1);
            let states = graph.states.iter().map(|state| {
                let tokens = state.ty.tokens_at(0);
                let data = match state.init {
                    Init::Vector(p) => {
                        (0..tokens).flat_map(|_| self.params[p.0].iter().map(|&v| f64::from(v))).collect()
                    }
                    Init::Zero | Init::Empty => vec![0.0; state.ty.elements()],
                };
                Tensor { data, tokens, features: state.ty.features }
            });
            self.rows.push((states.collect(), residents));
        }
        Ok(())
    }

    fn step(&mut self, rows: usize) -> Result<(), BackendError> {
        let graph = &self.graph;
        let interpreter = Interpreter::new(graph, &self.params).on_threads(self.threads);
        self.outputs = vec![Vec::new(); graph.outputs.len()];
        for (states, residents) in &mut self.rows[..rows] {
            let args = states.iter().chain(residents.iter()).cloned().collect();
            let mut results = interpreter.run(&graph.step, args, 1);
            for (i, output) in results.drain(states.len()..).enumerate() {
                self.outputs[i].extend(output.data.iter().map(|&v| v as f32));
            }
            *states = results;
        }
        Ok(())
    }

    fn output(&self, i: usize) -> &[f32] {
        &self.outputs[i]
    }

    fn keep(&mut self, keep: &[usize]) -> Result<(), BackendError> {
        let mut row = 0;
        self.rows.retain(|_| {
            row += 1;
            keep.contains(&(row - 1))
        });
        Ok(())
    }

    fn state(&self, i: usize, rows: usize) -> Result<Vec<f32>, BackendError> {
        Ok(self.rows[..rows].iter().flat_map(|(states, _)| states[i].data.iter().map(|&v| v as f32)).collect())
    }

    fn set_state(&mut self, i: usize, rows: usize, values: &[f32]) -> Result<(), BackendError> {
        let n = self.graph.states[i].ty.elements();
        for (row, (states, _)) in self.rows[..rows].iter_mut().enumerate() {
            states[i].data = values[row * n..(row + 1) * n].iter().map(|&v| f64::from(v)).collect();
        }
        Ok(())
    }

    fn flops_executed(&self, rows: usize) -> Option<f64> {
        self.flops.map(|[_, step]| step * rows as f64)
    }

    fn flops_admitted(&self, n: usize) -> Option<f64> {
        self.flops.map(|[admit, _]| admit * n as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_change_nothing() {
        let config = serde_json::json!({"model_type": "trm", "seq_len": 9, "vocab_size": 5, "hidden_size": 8, "num_heads": 2,
            "expansion": 1.0, "H_cycles": 1, "L_cycles": 1, "L_layers": 1});
        let model = Model::random(&config, 1).expect("a small TRM");
        let logits = |threads| {
            let options = Options {
                precision: "f64".into(),
                threads,
                capacity: 1,
                extra: BTreeMap::new(),
                file: None,
                language: false,
            };
            let mut engine = Reference.load(&model, &options).expect("it loads");
            engine.admit(0, 1, &[&[0, 1, 2, 3, 4, 3, 2, 1, 0]]).and_then(|()| engine.step(1)).expect("it runs");
            engine.output(0).to_vec()
        };
        assert_eq!(logits(1), logits(2));
        assert_eq!(logits(1), logits(7));
    }
}
