//! A model loaded by ONNX Runtime: its sessions, the inputs and states of the live rows, the outputs of the last step.
//!
//! In: an exported graph and how to run it. Out: an [`Engine`]. Must not: copy a state between two steps of the same rows.
//!
//! The file is one supervision step: inputs and states in, outputs and new states out. Admission is part of it, computed anew in each step
//! and charged there. Inputs and states are owned values in the order of the file's inputs; a step replaces the states by the values that
//! the runtime gave back. They are rebuilt only when rows come or go.

use ort::environment::Environment;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor};

use crate::backends::{BackendError, Engine, Facts, Unavailable};
use crate::graph::cost::Workload;
use crate::graph::{Graph, Init};
use crate::models::Model;
use crate::onnx::{self, Form};

/// How sessions are made.
pub(super) struct SessionSetup {
    pub environment: &'static Environment,
    pub optimization: GraphOptimizationLevel,
    pub spinning: bool,
    pub threads: usize,
}

impl SessionSetup {
    fn session(&self, bytes: &[u8]) -> Result<Session, BackendError> {
        self.builder()?.commit_from_memory(bytes).map_err(failed)
    }

    pub(super) fn builder(&self) -> Result<SessionBuilder, BackendError> {
        let builder = Session::builder(self.environment).map_err(failed)?;
        let builder = builder.with_optimization_level(self.optimization).map_err(failed)?;
        let builder = builder.with_intra_threads(self.threads).map_err(failed)?;
        let builder = builder.with_inter_threads(1).map_err(failed)?;
        builder.with_intra_op_spinning(self.spinning).map_err(failed)
    }
}

pub(super) fn failed(e: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(format!("ONNX Runtime: {e}"))
}

/// What cannot be written as a file cannot be run here; what was not tried is no failure.
pub(super) fn not_exported(e: &impl std::fmt::Display) -> BackendError {
    let text = e.to_string();
    let (reason, hint) = text.split_once("\nhint: ").map_or((text.as_str(), None), |(r, h)| (r, Some(h.to_string())));
    BackendError::Unavailable(Unavailable { reason: format!("no ONNX file of this model: {reason}"), hint })
}

/// Shape of a value that a row brings along.
struct Place {
    tokens: usize,
    /// None: indices, `[rows, tokens]`. Else features, `[rows, tokens, features]`.
    features: Option<usize>,
}

impl Place {
    fn elements(&self) -> usize {
        self.tokens * self.features.unwrap_or(1)
    }

    fn shape(&self, rows: usize) -> Vec<usize> {
        [rows, self.tokens].into_iter().chain(self.features).collect()
    }
}

/// See the module.
pub(super) struct OrtEngine {
    /// For any number of rows; none if there is only ever the full batch.
    open: Option<Session>,
    /// For exactly `capacity` rows.
    fixed: Option<Session>,
    capacity: usize,
    /// Of inputs, then states.
    places: Vec<Place>,
    inputs: usize,
    /// One row of every state as it starts.
    starts: Vec<Vec<f32>>,
    /// Elements per row of each output.
    output_elements: Vec<usize>,
    /// Inputs, then states, of the live rows.
    values: Vec<SessionInputValue<'static>>,
    live: usize,
    outputs: Vec<DynValue>,
    flops_per_row: f64,
    facts: Facts,
}

impl OrtEngine {
    /// Exports and compiles. `fixed`: full batches get a session of their own, whose batch is a constant.
    pub(super) fn new(
        model: &Model,
        setup: &SessionSetup,
        form: Form,
        capacity: usize,
        fixed: bool,
    ) -> Result<Self, BackendError> {
        let graph = model.graph()?;
        let mut flops_per_row = 0.0;
        let mut session = |batch: Option<usize>| -> Result<Session, BackendError> {
            let form = Form { batch, ..form.clone() };
            let exported = onnx::export(graph, &model.params, &form).map_err(|e| not_exported(&e))?;
            flops_per_row = exported.flops_per_row;
            let session = setup.session(&exported.model)?;
            check_names(&session, graph)?;
            Ok(session)
        };
        let full = fixed.then(|| session(Some(capacity))).transpose()?;
        // a batch of one has no smaller one
        let open = (full.is_none() || capacity > 1).then(|| session(None)).transpose()?;
        let sessions = full.is_some() as u64 + open.is_some() as u64;
        let indices = graph.inputs.iter().map(|i| Place { tokens: i.ty.elements(), features: None });
        let states = graph.states.iter().map(|s| Place { tokens: s.ty.tokens_at(0), features: Some(s.ty.features) });
        let weights: usize = graph.params.iter().map(|p| p.elements()).sum();
        let state_bytes = graph.cost(&Workload::one()).state_bytes * capacity as f64;
        Ok(Self {
            open,
            fixed: full,
            capacity,
            places: indices.chain(states).collect(),
            inputs: graph.inputs.len(),
            starts: starts(model, graph),
            output_elements: graph.outputs.iter().map(|o| o.ty.elements()).collect(),
            values: Vec::new(),
            live: 0,
            outputs: Vec::new(),
            flops_per_row,
            // the runtime does not tell what its packed copies take
            facts: Facts { weight_bytes: sessions * 4 * weights as u64, state_bytes: state_bytes as u64 },
        })
    }

    /// Runs the first `rows` rows of `values`, which has only those.
    fn run(
        &mut self,
        rows: usize,
        values: &[SessionInputValue<'static>],
    ) -> Result<impl Iterator<Item = DynValue>, BackendError> {
        let fixed = self.fixed.as_mut().filter(|_| rows == self.capacity);
        let Some(session) = fixed.or(self.open.as_mut()) else {
            return Err(failed(format!("{rows} rows for a session of {}", self.capacity)));
        };
        let results = session.run(values).map_err(failed)?;
        let results: Vec<DynValue> = results.into_iter().map(|(_, value)| value).collect();
        // what reads them later cannot fail any more
        let states = self.places[self.inputs..].iter().map(Place::elements);
        let wanted: Vec<usize> = self.output_elements.iter().copied().chain(states).collect();
        let right = |(value, elements): (&DynValue, &usize)| {
            value.try_extract_tensor::<f32>().is_ok_and(|(_, data)| data.len() == rows * elements)
        };
        if results.len() != wanted.len() || !results.iter().zip(&wanted).all(right) {
            return Err(failed("results of another type or shape than the graph's"));
        }
        Ok(results.into_iter())
    }

    fn gather(
        &self,
        i: usize,
        rows: impl Iterator<Item = usize> + Clone,
    ) -> Result<SessionInputValue<'static>, BackendError> {
        let place = &self.places[i];
        match place.features {
            None => owned(place, picked::<i64>(&self.values[i], place, rows)?),
            Some(_) => owned(place, picked::<f32>(&self.values[i], place, rows)?),
        }
    }
}

/// The data of these rows, one after the other.
fn picked<T: PrimitiveTensorElementType + Copy>(
    value: &SessionInputValue<'static>,
    place: &Place,
    rows: impl Iterator<Item = usize>,
) -> Result<Vec<T>, BackendError> {
    let (_, data) = value.try_extract_tensor::<T>().map_err(failed)?;
    let n = place.elements();
    Ok(rows.flat_map(|row| &data[row * n..(row + 1) * n]).copied().collect())
}

/// A value that owns its data; as many rows as there is data for.
fn owned<T>(place: &Place, data: Vec<T>) -> Result<SessionInputValue<'static>, BackendError>
where
    T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
{
    let shape = place.shape(data.len() / place.elements().max(1));
    Ok(Tensor::from_array((shape, data)).map_err(failed)?.into())
}

/// One row of every state as it starts.
fn starts(model: &Model, graph: &Graph) -> Vec<Vec<f32>> {
    let start = |state: &crate::graph::State| match state.init {
        Init::Vector(p) => model.params[p.0].repeat(state.ty.tokens_at(0)),
        Init::Zero | Init::Empty => vec![0.0; state.ty.elements()],
    };
    graph.states.iter().map(start).collect()
}

/// The file's inputs and outputs are the graph's, in the order that this engine feeds and reads them.
fn check_names(session: &Session, graph: &Graph) -> Result<(), BackendError> {
    let states = || graph.states.iter().map(|s| s.name.clone());
    let inputs: Vec<String> = graph.inputs.iter().map(|i| i.name.clone()).chain(states()).collect();
    let next = states().map(|name| format!("next.{name}"));
    let outputs: Vec<String> = graph.outputs.iter().map(|o| o.name.clone()).chain(next).collect();
    let same = |there: &[ort::value::Outlet], wanted: &[String]| there.iter().map(|o| o.name()).eq(wanted);
    if same(session.inputs(), &inputs) && same(session.outputs(), &outputs) {
        Ok(())
    } else {
        Err(failed(format!("the exported file has other inputs or outputs than {inputs:?} and {outputs:?}")))
    }
}

impl Engine for OrtEngine {
    fn facts(&self) -> Facts {
        self.facts
    }

    fn admit(&mut self, at: usize, n: usize, inputs: &[&[u32]]) -> Result<(), BackendError> {
        let mut values = Vec::with_capacity(self.places.len());
        for (i, place) in self.places.iter().enumerate() {
            if i < self.inputs {
                let mut data = if at == 0 { Vec::new() } else { picked::<i64>(&self.values[i], place, 0..at)? };
                data.extend(inputs[i].iter().map(|&v| i64::from(v)));
                values.push(owned(place, data)?);
            } else {
                let mut data = if at == 0 { Vec::new() } else { picked::<f32>(&self.values[i], place, 0..at)? };
                let start = &self.starts[i - self.inputs];
                (0..n).for_each(|_| data.extend_from_slice(start));
                values.push(owned(place, data)?);
            }
        }
        (self.values, self.live) = (values, at + n);
        Ok(())
    }

    fn step(&mut self, rows: usize) -> Result<(), BackendError> {
        let mut values = std::mem::take(&mut self.values);
        if rows == self.live {
            let ran = self.run(rows, &values).map(Vec::from_iter);
            let ran = ran.map(|mut results| {
                let states = results.split_off(self.output_elements.len());
                for (value, state) in values[self.inputs..].iter_mut().zip(states) {
                    *value = state.into();
                }
                self.outputs = results;
            });
            self.values = values;
            return ran;
        }
        // some of the rows: later ones keep their states
        self.values = values;
        let first = (0..self.places.len()).map(|i| self.gather(i, 0..rows)).collect::<Result<Vec<_>, _>>()?;
        let mut results: Vec<DynValue> = self.run(rows, &first)?.collect();
        let states = results.split_off(self.output_elements.len());
        for (i, state) in (self.inputs..).zip(states) {
            let (_, new) = state.try_extract_tensor::<f32>().map_err(failed)?;
            let new = new.to_vec();
            self.set_state(i - self.inputs, rows, &new)?;
        }
        self.outputs = results;
        Ok(())
    }

    fn output(&self, i: usize) -> &[f32] {
        // its type was checked when the step ended
        self.outputs.get(i).and_then(|value| value.try_extract_tensor::<f32>().ok()).map_or(&[], |(_, data)| data)
    }

    fn keep(&mut self, keep: &[usize]) -> Result<(), BackendError> {
        if keep.is_empty() {
            self.values.clear();
        } else {
            let values = (0..self.places.len()).map(|i| self.gather(i, keep.iter().copied()));
            self.values = values.collect::<Result<Vec<_>, _>>()?;
        }
        self.live = keep.len();
        Ok(())
    }

    fn state(&self, i: usize, rows: usize) -> Result<Vec<f32>, BackendError> {
        let i = self.inputs + i;
        picked(&self.values[i], &self.places[i], 0..rows)
    }

    fn set_state(&mut self, i: usize, rows: usize, values: &[f32]) -> Result<(), BackendError> {
        let i = self.inputs + i;
        let later = picked::<f32>(&self.values[i], &self.places[i], rows..self.live)?;
        self.values[i] = owned(&self.places[i], [values, &later].concat())?;
        Ok(())
    }

    /// A fixed batch is only used when it is full, so that nothing is padded.
    fn flops_executed(&self, rows: usize) -> Option<f64> {
        Some(self.flops_per_row * rows as f64)
    }

    /// Admission is part of every step, and charged there.
    fn flops_admitted(&self, _n: usize) -> Option<f64> {
        Some(0.0)
    }
}
