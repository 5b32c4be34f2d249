//! The engine: rows in tensors of the size that the plan in use wants.
//!
//! In: a model and the options chosen. Out: an [`Engine`]. Must not: compute anything beside the plans, or leave a place of a batch without
//! a real row in it, since numbers that are none (or denormal) are slower to compute with.

use std::collections::BTreeMap;

use tract_onnx::prelude::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;

use super::Chosen;
use super::plan::TractPlan;
use crate::backends::{BackendError, Engine, Facts, Options};
use crate::graph::Init;
use crate::models::Model;
use crate::onnx::{self, ExpertForm, Form};

/// See the module.
pub struct TractEngine {
    /// By batch, ascending; a single one with an open batch has the capacity here.
    plans: Vec<(usize, TractPlan)>,
    symbolic: bool,
    threads: Option<Executor>,
    /// FLOPs of a step of 1, 2, ... rows.
    flops: Vec<Option<f64>>,
    report: BTreeMap<String, String>,
    facts: Facts,
    /// What a state starts with, one row of each.
    initial: Vec<Vec<f32>>,
    /// Live rows; the places behind them hold some real rows again.
    live: usize,
    /// Of the graph, `[size, tokens]`.
    inputs: Vec<Tensor>,
    /// `[size, tokens, features]`
    states: Vec<Tensor>,
    /// Shape of a row of each.
    input_shapes: Vec<Vec<usize>>,
    state_shapes: Vec<Vec<usize>>,
    outputs: Vec<Tensor>,
    output_elements: Vec<usize>,
}

pub(super) fn failed(e: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(format!("tract: {e:#}"))
}

/// A pool of so many threads; one thread needs none.
pub(super) fn pool(threads: usize) -> Result<Option<Executor>, BackendError> {
    match threads {
        0 | 1 => Ok(None),
        // tract panics where the system gives no more threads
        n => std::panic::catch_unwind(|| Executor::multithread(n)).map(Some).map_err(|_| {
            BackendError::Failed(format!("tract cannot start a pool of {n} threads\nhint: ask for fewer threads"))
        }),
    }
}

/// The batches that are worth a plan of their own: 1, 2, 4, ... and the capacity.
pub fn ladder(capacity: usize, powers: bool) -> Vec<usize> {
    let mut sizes: Vec<usize> = match powers {
        true => std::iter::successors(Some(1_usize), |n| n.checked_mul(2)).take_while(|n| *n < capacity).collect(),
        false => Vec::new(),
    };
    sizes.push(capacity);
    sizes
}

impl TractEngine {
    /// Exports the graph in every form that is needed, and makes the plans.
    pub fn new(model: &Model, options: &Options, chosen: Chosen) -> Result<Self, BackendError> {
        let (graph, capacity) = (model.graph()?, options.capacity.max(1));
        let form = |batch| Form { batch, opset: chosen.opset, experts: ExpertForm::All, external: None };
        let sizes = if chosen.symbolic { vec![capacity] } else { ladder(capacity, chosen.powers) };
        let (mut plans, mut per_row) = (Vec::new(), 0.0);
        for size in sizes {
            let exported = onnx::export(graph, &model.params, &form((!chosen.symbolic).then_some(size)))
                .map_err(|e| BackendError::unavailable(format!("the graph cannot be exported to ONNX: {e}")))?;
            per_row = exported.flops_per_row;
            plans.push((size, TractPlan::new(&exported.model, chosen.bf16).map_err(failed)?));
        }
        let mut report = BTreeMap::new();
        let kernels: BTreeMap<String, usize> = plans.iter().flat_map(|(_, plan)| plan.kernels()).fold(
            BTreeMap::new(),
            |mut all: BTreeMap<String, usize>, (name, n)| {
                *all.entry(name).or_insert(0) += n;
                all
            },
        );
        let kernels: Vec<String> = kernels.iter().map(|(name, n)| format!("{n} {name}")).collect();
        report.insert("products".into(), kernels.join(", "));
        if chosen.bf16 {
            let (rounded, all) = plans[0].1.in_bf16();
            if rounded == 0 {
                return Err(BackendError::unavailable(
                    "tract runs no product of this model on AMX: none is large enough",
                ));
            }
            report.insert("bf16-products".into(), format!("{rounded} of {all}, the others in f32"));
        }
        let threads = pool(options.threads)?;
        let weight_bytes = plans.iter().map(|(_, plan)| plan.weight_bytes()).sum();
        let state_elements: usize = graph.states.iter().map(|s| s.ty.elements()).sum();
        let input_elements: usize = graph.inputs.iter().map(|i| i.ty.elements()).sum();
        let row = |ty: crate::graph::ValueType| vec![ty.tokens_at(0), ty.features];
        let start = |state: &crate::graph::State| match state.init {
            Init::Vector(p) => model.params[p.0].repeat(state.ty.tokens_at(0)),
            Init::Zero | Init::Empty => vec![0.0; state.ty.elements()],
        };
        let mut engine = Self {
            symbolic: chosen.symbolic,
            threads,
            flops: Vec::new(),
            report,
            facts: Facts { weight_bytes, state_bytes: (capacity * (4 * state_elements + 8 * input_elements)) as u64 },
            initial: graph.states.iter().map(start).collect(),
            live: 0,
            inputs: Vec::new(),
            states: Vec::new(),
            input_shapes: graph.inputs.iter().map(|i| vec![i.ty.tokens_at(0)]).collect(),
            state_shapes: graph.states.iter().map(|s| row(s.ty)).collect(),
            outputs: Vec::new(),
            output_elements: graph.outputs.iter().map(|o| o.ty.elements()).collect(),
            plans,
        };
        engine.flops = (1..=capacity).map(|rows| engine.cost(rows, per_row)).collect();
        Ok(engine)
    }

    /// FLOPs of a step: whole tiles of the kernels, for as many rows as the plan computes. `None` where the plan's products are not those
    /// that the exporter counted, so that some are computed where nobody can see them.
    fn cost(&self, rows: usize, per_row: f64) -> Option<f64> {
        let (size, plan) = (self.size(rows), &self.plans[self.rung(rows)].1);
        let (needed, done) = plan.flops(size)?;
        let counted = per_row * size as f64;
        ((needed - counted).abs() <= 1e-6 * counted).then_some(done)
    }

    /// Place of the smallest plan that holds these rows.
    fn rung(&self, rows: usize) -> usize {
        self.plans.iter().position(|(size, _)| *size >= rows).unwrap_or(self.plans.len() - 1)
    }

    /// Rows that a step of `rows` computes.
    fn size(&self, rows: usize) -> usize {
        if self.symbolic { rows } else { self.plans[self.rung(rows)].0 }
    }

    /// Lays all rows out for `rows` live ones, whose numbers `from` gives among those there now; rows beyond are fresh (or copies).
    fn lay_out(&mut self, from: &[usize], rows: usize) -> TractResult<()> {
        let size = self.size(rows.max(1));
        for (tensor, shape) in self.inputs.iter_mut().zip(&self.input_shapes) {
            *tensor = gather::<i64>(tensor, from, size, shape)?;
        }
        for (tensor, shape) in self.states.iter_mut().zip(&self.state_shapes) {
            *tensor = gather::<f32>(tensor, from, size, shape)?;
        }
        Ok(())
    }

    fn try_admit(&mut self, at: usize, n: usize, inputs: &[&[u32]]) -> TractResult<()> {
        let (rows, size) = (at + n, self.size(at + n));
        if self.inputs.is_empty() {
            let empty = |shape: &[usize]| [&[size], shape].concat();
            self.inputs =
                self.input_shapes.iter().map(|s| Tensor::zero::<i64>(&empty(s))).collect::<TractResult<_>>()?;
            self.states =
                self.state_shapes.iter().map(|s| Tensor::zero::<f32>(&empty(s))).collect::<TractResult<_>>()?;
        }
        let kept: Vec<usize> = (0..at).collect();
        self.lay_out(&kept, rows)?;
        // a fresh row in every place that is not kept, spare ones too
        for (tensor, new) in self.inputs.iter_mut().zip(inputs) {
            let mut view = tensor.try_as_plain_ram_mut()?;
            let all = view.as_slice_mut::<i64>()?;
            let len = all.len() / size;
            for row in at..size {
                let source = (row - at) % n.max(1) * len;
                let values = new[source..source + len].iter().map(|&v| i64::from(v));
                all[row * len..(row + 1) * len].iter_mut().zip(values).for_each(|(to, v)| *to = v);
            }
        }
        for (tensor, initial) in self.states.iter_mut().zip(&self.initial) {
            let mut view = tensor.try_as_plain_ram_mut()?;
            view.as_slice_mut::<f32>()?[at * initial.len()..].chunks_exact_mut(initial.len()).for_each(|row| {
                row.copy_from_slice(initial);
            });
        }
        self.live = rows;
        Ok(())
    }

    fn try_step(&mut self, rows: usize) -> TractResult<()> {
        let part: Vec<usize> = (0..rows).collect();
        let size = self.size(rows);
        let whole = rows == self.live && self.inputs.first().is_none_or(|t| t.shape()[0] == size);
        let rung = self.rung(rows);
        let mut arguments: TVec<TValue> = tvec!();
        for (tensor, shape) in self.inputs.iter().zip(&self.input_shapes) {
            let tensor = if whole { tensor.clone() } else { gather::<i64>(tensor, &part, size, shape)? };
            arguments.push(tensor.into_tvalue());
        }
        for (tensor, shape) in self.states.iter_mut().zip(&self.state_shapes) {
            let tensor = if whole { std::mem::take(tensor) } else { gather::<f32>(tensor, &part, size, shape)? };
            arguments.push(tensor.into_tvalue());
        }
        let plan = &mut self.plans[rung].1.state;
        let results = match &self.threads {
            Some(pool) => multithread_tract_scope(pool.clone(), || plan.run(arguments)),
            None => plan.run(arguments),
        };
        let mut results = results?.into_iter().map(TValue::into_tensor);
        self.outputs = results.by_ref().take(self.output_elements.len()).collect();
        for (output, elements) in self.outputs.iter().zip(&self.output_elements) {
            let got = output.try_as_plain_ram()?.as_slice::<f32>()?.len();
            if got != size * elements {
                anyhow::bail!("an output has {got} elements, {size} rows of {elements} are due");
            }
        }
        for (state, new) in self.states.iter_mut().zip(results) {
            if whole {
                *state = new;
            } else {
                // later rows stay as they are
                let mut view = state.try_as_plain_ram_mut()?;
                let all = view.as_slice_mut::<f32>()?;
                let new = new.try_as_plain_ram()?.as_slice::<f32>()?;
                let len = new.len() / size * rows;
                all[..len].copy_from_slice(&new[..len]);
            }
        }
        Ok(())
    }
}

/// Rows of a tensor `[_, ..shape]` in a new one of `size` rows; places beyond are filled with them again.
fn gather<T: Datum + Copy>(tensor: &Tensor, from: &[usize], size: usize, shape: &[usize]) -> TractResult<Tensor> {
    let all = tensor.try_as_plain_ram()?.as_slice::<T>()?;
    let len = shape.iter().product::<usize>();
    let places: &[usize] = if from.is_empty() { &[0] } else { from };
    let mut values = Vec::with_capacity(size * len);
    for place in 0..size {
        let row = places[place % places.len()];
        values.extend_from_slice(&all[row * len..(row + 1) * len]);
    }
    Tensor::from_shape(&[&[size], shape].concat(), &values)
}

impl Engine for TractEngine {
    fn facts(&self) -> Facts {
        self.facts
    }

    fn report(&self) -> BTreeMap<String, String> {
        self.report.clone()
    }

    fn admit(&mut self, at: usize, n: usize, inputs: &[&[u32]]) -> Result<(), BackendError> {
        self.try_admit(at, n, inputs).map_err(failed)
    }

    fn step(&mut self, rows: usize) -> Result<(), BackendError> {
        self.try_step(rows).map_err(failed)
    }

    fn output(&self, i: usize) -> &[f32] {
        // the step has looked at it once already
        self.outputs[i].try_as_plain_ram().and_then(|view| view.as_slice::<f32>()).unwrap_or(&[])
    }

    fn keep(&mut self, keep: &[usize]) -> Result<(), BackendError> {
        // rows that only move up, within the same plan, need no new tensors; the places behind them hold real rows
        let same = !self.inputs.is_empty() && self.inputs[0].shape()[0] == self.size(keep.len().max(1));
        let all_there = keep.iter().copied().eq(0..keep.len());
        if !(same && all_there) {
            self.lay_out(keep, keep.len()).map_err(failed)?;
        }
        self.live = keep.len();
        Ok(())
    }

    fn state(&self, i: usize, rows: usize) -> Result<Vec<f32>, BackendError> {
        let all = self.states[i].try_as_plain_ram().and_then(|view| view.as_slice::<f32>()).map_err(failed)?;
        let len = self.initial[i].len();
        all.get(..rows * len).map(<[f32]>::to_vec).ok_or_else(|| failed(format!("there are no {rows} rows")))
    }

    fn set_state(&mut self, i: usize, rows: usize, values: &[f32]) -> Result<(), BackendError> {
        let len = rows * self.initial[i].len();
        let mut view = self.states[i].try_as_plain_ram_mut().map_err(failed)?;
        let all = view.as_slice_mut::<f32>().map_err(failed)?;
        match (all.get_mut(..len), values.len() == len) {
            (Some(place), true) => place.copy_from_slice(values),
            _ => return Err(failed(format!("{} values for {rows} rows of state {i}", values.len()))),
        }
        Ok(())
    }

    fn flops_executed(&self, rows: usize) -> Option<f64> {
        self.flops.get(rows.checked_sub(1)?).copied().flatten()
    }

    /// Admission is computed again in every step, and charged there.
    fn flops_admitted(&self, _n: usize) -> Option<f64> {
        Some(0.0)
    }
}
