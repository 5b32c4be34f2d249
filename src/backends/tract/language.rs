//! A language model loaded by tract: the exported step as one plan with open lengths, a sequence a run.
//!
//! In: a [`LanguageModel`] and how the file is written. Out: a [`CacheRunner`]. Must not: hold the weights beside the plan.
//!
//! Three lengths are open: tokens of the call, tokens before it, rows of logits. That of the caches after it is said to be the sum of the first two, which the file cannot say.

use std::io::Cursor;

use anyhow::Context;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{ToDim, TypedSimpleState};

use super::engine::{failed, pool};
use super::plan::{TractPlan, constants};
use crate::backends::BackendError;
use crate::backends::cached::{CacheRunner, FileCall};
use crate::models::language::LanguageModel;
use crate::onnx::decoder::{self, LogitRows};
use crate::onnx::{ExpertForm, Form, Opset};

/// See the module.
pub(super) struct TractCaches {
    state: TypedSimpleState,
    threads: Option<Executor>,
    weight_bytes: u64,
}

impl TractCaches {
    /// Writes the file and makes the plan.
    ///
    /// # Errors
    /// The weights cannot be read, tract fails.
    pub(super) fn new(model: &LanguageModel, opset: Opset, threads: usize) -> Result<Self, BackendError> {
        let graph = &model.graph;
        let read = |param| model.read(param);
        let form = Form { batch: Some(1), opset, experts: ExpertForm::All, external: Some("weights".into()) };
        let exported = decoder::export(graph, &read, &form, LogitRows::Asked, &[])
            .map_err(|e| BackendError::unavailable(format!("no ONNX file of this model: {e}")))?;
        let mut file = onnx().proto_model_for_read(&mut Cursor::new(&exported.model)).map_err(failed)?;
        put_inside(&mut file, exported.weights.unwrap_or_default()).map_err(failed)?;
        let sizes: Vec<(usize, usize)> = graph.attention_sizes().collect();
        let state = plan(file, &sizes).map_err(failed)?;
        let weight_bytes = constants(state.model());
        Ok(Self { state, threads: pool(threads)?, weight_bytes })
    }
}

/// Moves the weights into the message: tract reads those of a file of their own from a folder.
fn put_inside(file: &mut ModelProto, weights: Vec<u8>) -> TractResult<()> {
    let graph = file.graph.as_mut().context("a file without a graph")?;
    for tensor in graph.initializer.iter_mut().filter(|tensor| tensor.data_location == Some(1)) {
        let number = |key: &str| -> TractResult<usize> {
            let entry = tensor.external_data.iter().find(|e| e.key == key).context("no place of a weight")?;
            Ok(entry.value.parse()?)
        };
        let (offset, length) = (number("offset")?, number("length")?);
        tensor.raw_data = weights.get(offset..offset + length).context("a weight beyond the others")?.to_vec();
        tensor.data_location = None;
        tensor.external_data.clear();
    }
    Ok(())
}

/// The plan of a file, with the lengths of its inputs named.
fn plan(file: ModelProto, sizes: &[(usize, usize)]) -> TractResult<TypedSimpleState> {
    let mut model = onnx().parse(&file, None)?.model;
    drop(file);
    let [tokens, past, answers] = ["T", "P", "A"].map(|name| model.symbols.sym(name).to_dim());
    let one = 1.to_dim();
    let whole = |shape: TVec<TDim>| InferenceFact::dt_shape(DatumType::I64, shape);
    model.set_input_fact(0, whole(tvec![one.clone(), tokens.clone()]))?;
    model.set_input_fact(1, whole(tvec![one.clone(), past.clone() + &tokens]))?;
    model.set_input_fact(2, whole(tvec![one.clone(), tokens]))?;
    model.set_input_fact(3, whole(tvec![answers]))?;
    for (i, (heads, dim)) in sizes.iter().flat_map(|size| [size; 2]).enumerate() {
        let shape: TVec<TDim> = tvec![one.clone(), heads.to_dim(), past.clone(), dim.to_dim()];
        model.set_input_fact(4 + i, InferenceFact::dt_shape(DatumType::F32, shape))?;
    }
    TractPlan::exact(|| model.into_optimized())?.into_runnable()?.spawn()
}

fn whole(shape: &[usize], data: &[i64]) -> Result<TValue, BackendError> {
    Ok(Tensor::from_shape(shape, data).map_err(failed)?.into_tvalue())
}

impl CacheRunner for TractCaches {
    type Cache = TValue;

    fn batches(&self) -> bool {
        false
    }

    fn cache(&self, shape: [usize; 4], data: Vec<f32>) -> Result<TValue, BackendError> {
        Ok(Tensor::from_shape(&shape, &data).map_err(failed)?.into_tvalue())
    }

    fn elements<'a>(&self, cache: &'a TValue) -> Result<&'a [f32], BackendError> {
        cache.try_as_plain_ram().and_then(|view| view.as_slice::<f32>()).map_err(failed)
    }

    fn run(&mut self, call: &FileCall, caches: &[TValue], logits: &mut Vec<f32>) -> Result<Vec<TValue>, BackendError> {
        let tokens = call.tokens();
        let mut arguments: TVec<TValue> = tvec![
            whole(&[1, tokens], &call.ids)?,
            whole(&[1, call.mask.len()], &call.mask)?,
            whole(&[1, tokens], &call.positions)?,
            whole(&[call.at.len()], &call.at)?,
        ];
        arguments.extend(caches.iter().cloned());
        let results = match &self.threads {
            Some(pool) => multithread_tract_scope(pool.clone(), || self.state.run(arguments)),
            None => self.state.run(arguments),
        };
        let mut results = results.map_err(failed)?.into_iter();
        let first = results.next().ok_or_else(|| failed("no result"))?;
        logits.extend_from_slice(self.elements(&first)?);
        Ok(results.collect())
    }

    fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }
}
