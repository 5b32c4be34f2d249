//! A language model loaded by ONNX Runtime: the exported step, whose caches stay values of the runtime.
//!
//! In: a [`LanguageModel`] and how to run it. Out: a [`CacheRunner`]. Must not: copy a cache from one call to the next.
//!
//! The weights are handed over as the file's external data, in memory: the runtime copies and packs them, and what was handed over is dropped. Patterns of memory are not kept, since every
//! token makes another shape.

use std::sync::Arc;

use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor};

use super::engine::{SessionSetup, failed, not_exported};
use crate::backends::BackendError;
use crate::backends::cached::{CacheRunner, FileCall};
use crate::models::language::LanguageModel;
use crate::onnx::Form;
use crate::onnx::decoder::{self, LogitRows, cache_names};

/// Name under which the file knows its weights.
pub(super) const WEIGHTS: &str = "weights";

/// See the module.
pub(super) struct OrtCaches {
    session: Session,
    weight_bytes: u64,
}

impl OrtCaches {
    /// Writes and compiles the file.
    ///
    /// # Errors
    /// The weights cannot be read, the library fails.
    pub(super) fn new(model: &LanguageModel, setup: &SessionSetup, form: &Form) -> Result<Self, BackendError> {
        let graph = &model.graph;
        let read = |param| model.read(param);
        let exported = decoder::export(graph, &read, form, LogitRows::Asked, &[]).map_err(|e| not_exported(&e))?;
        let builder = setup.builder()?.with_memory_pattern(false).map_err(failed)?;
        let weights: Arc<[u8]> = exported.weights.unwrap_or_default().into();
        let weight_bytes = weights.len() as u64;
        let mut builder = builder.with_external_initializer_file_in_memory(WEIGHTS, weights).map_err(failed)?;
        let session = builder.commit_from_memory(&exported.model).map_err(failed)?;
        drop(builder);
        let layers = graph.states.len();
        let caches = |when: usize| (0..layers).flat_map(move |layer| cache_names(layer)[when].clone());
        let inputs = decoder::input_names(LogitRows::Asked).into_iter().map(str::to_owned).chain(caches(0));
        let outputs = ["logits".to_owned()].into_iter().chain(caches(1));
        if !session.inputs().iter().map(|o| o.name().to_owned()).eq(inputs)
            || !session.outputs().iter().map(|o| o.name().to_owned()).eq(outputs)
        {
            return Err(failed("the exported file has other inputs or outputs than the decoder's"));
        }
        // the runtime does not tell what its packed copies take
        Ok(Self { session, weight_bytes })
    }
}

fn whole(shape: Vec<usize>, data: &[i64]) -> Result<SessionInputValue<'static>, BackendError> {
    Ok(Tensor::from_array((shape, data.to_vec())).map_err(failed)?.into())
}

impl CacheRunner for OrtCaches {
    type Cache = DynValue;

    fn batches(&self) -> bool {
        true
    }

    fn cache(&self, shape: [usize; 4], data: Vec<f32>) -> Result<DynValue, BackendError> {
        Ok(Tensor::from_array((shape.to_vec(), data)).map_err(failed)?.into_dyn())
    }

    fn elements<'a>(&self, cache: &'a DynValue) -> Result<&'a [f32], BackendError> {
        Ok(cache.try_extract_tensor::<f32>().map_err(failed)?.1)
    }

    fn run(
        &mut self,
        call: &FileCall,
        caches: &[DynValue],
        logits: &mut Vec<f32>,
    ) -> Result<Vec<DynValue>, BackendError> {
        let (rows, tokens) = (call.rows, call.tokens());
        let mut inputs = vec![
            whole(vec![rows, tokens], &call.ids)?,
            whole(vec![rows, call.mask.len() / rows], &call.mask)?,
            whole(vec![rows, tokens], &call.positions)?,
            whole(vec![call.at.len()], &call.at)?,
        ];
        inputs.extend(caches.iter().map(SessionInputValue::from));
        let results = self.session.run(inputs.as_slice()).map_err(failed)?;
        let mut results = results.into_iter().map(|(_, value)| value);
        let first = results.next().ok_or_else(|| failed("no result"))?;
        logits.extend_from_slice(first.try_extract_tensor::<f32>().map_err(failed)?.1);
        Ok(results.collect())
    }

    fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }
}
