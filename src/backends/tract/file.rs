//! tract on a file of somebody else's: parsed from its path, with all shapes fixed, and optimised for them.
//!
//! In: an [`OnnxFile`] and a number of rows. Out: a [`Runner`]. Must not: take an operator that tract does not have for one that failed.
//!
//! Types and shapes that the file gives of values in between and of outputs are ignored: writers get them wrong, and tract infers them.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ergometer_suites::ElementKind;
use half::f16;
use tract_onnx::prelude::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::TypedSimpleState;

use super::plan::{TractPlan, constants};
use super::{VERSION, engine};
use crate::backends::file::{Elements, Runner};
use crate::backends::{BackendError, Unavailable};
use crate::models::file::OnnxFile;

/// See the module.
pub(super) struct TractFile {
    state: TypedSimpleState,
    rows: usize,
    threads: Option<Executor>,
    weight_bytes: u64,
}

fn failed(e: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(format!("tract: {e:#}"))
}

fn unavailable(reason: String) -> BackendError {
    let hint = Some("another engine may have what it lacks".into());
    BackendError::Unavailable(Unavailable { reason, hint })
}

fn datum(kind: ElementKind) -> DatumType {
    match kind {
        ElementKind::F32 => DatumType::F32,
        ElementKind::F16 => DatumType::F16,
        ElementKind::F64 => DatumType::F64,
        ElementKind::I64 => DatumType::I64,
        ElementKind::I32 => DatumType::I32,
        ElementKind::U8 => DatumType::U8,
        ElementKind::Bool => DatumType::Bool,
    }
}

impl TractFile {
    /// Loads it for so many rows.
    pub fn new(file: &OnnxFile, rows: usize, threads: usize) -> Result<Self, BackendError> {
        let parser = onnx().with_ignore_output_shapes(true).with_ignore_output_types(true).with_ignore_value_info(true);
        // the registry knows operators by their last name
        let lacks = |name: &&String| !parser.op_register.0.contains_key(name.rsplit('.').next().unwrap_or(name));
        let lacking: BTreeSet<&String> = file.header.operators.keys().filter(lacks).collect();
        if !lacking.is_empty() {
            let names: Vec<String> = lacking.iter().take(12).map(|n| format!("`{n}`")).collect();
            let opset = file.header.opset_words();
            return Err(unavailable(format!("tract {VERSION} lacks {} (operator set {opset})", names.join(", "))));
        }
        let make = || -> TractResult<TypedSimpleState> {
            let mut model = parser.model_for_path(&file.path)?;
            model.set_input_names(file.header.inputs.iter().map(|v| v.name.as_str()))?;
            for (i, input) in file.inputs.iter().enumerate() {
                model.set_input_fact(i, InferenceFact::dt_shape(datum(input.kind), input.shape(rows)))?;
            }
            let typed = TractPlan::exact(|| model.into_optimized())?;
            typed.into_runnable()?.spawn()
        };
        // a file that it cannot take makes it panic here and there
        let made = catch_unwind(AssertUnwindSafe(make)).map_err(|panic| {
            let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            unavailable(format!("tract {VERSION} stumbles over this file: {}", said.unwrap_or("it panicked")))
        })?;
        let state = made.map_err(|e| {
            let (ir, opset) = (file.header.ir_version, file.header.opset_words());
            let said: String = format!("{e:#}").replace('\n', " ").chars().take(400).collect();
            unavailable(format!(
                "tract {VERSION} cannot load this file (IR version {ir}, operator set {opset}): {said}"
            ))
        })?;
        let weight_bytes = constants(state.model());
        Ok(Self { state, rows, threads: engine::pool(threads)?, weight_bytes })
    }
}

fn tensor<T: Datum + Copy, const N: usize>(
    shape: &[usize],
    bytes: &[u8],
    of: impl Fn([u8; N]) -> T,
) -> TractResult<Tensor> {
    let data: Vec<T> = bytes.as_chunks::<N>().0.iter().map(|bytes| of(*bytes)).collect();
    Tensor::from_shape(shape, &data)
}

impl Runner for TractFile {
    type Value = TValue;

    fn fixed(&self) -> Option<usize> {
        Some(self.rows)
    }

    fn tensor(&self, kind: ElementKind, shape: &[usize], bytes: &[u8]) -> Result<TValue, BackendError> {
        let tensor = match kind {
            ElementKind::F32 => tensor(shape, bytes, f32::from_le_bytes),
            ElementKind::F16 => tensor(shape, bytes, f16::from_le_bytes),
            ElementKind::F64 => tensor(shape, bytes, f64::from_le_bytes),
            ElementKind::I64 => tensor(shape, bytes, i64::from_le_bytes),
            ElementKind::I32 => tensor(shape, bytes, i32::from_le_bytes),
            ElementKind::U8 => tensor(shape, bytes, u8::from_le_bytes),
            ElementKind::Bool => tensor(shape, bytes, |[byte]: [u8; 1]| byte != 0),
        };
        Ok(tensor.map_err(failed)?.into_tvalue())
    }

    fn run(&mut self, inputs: &[TValue]) -> Result<Vec<TValue>, BackendError> {
        let arguments: TVec<TValue> = inputs.iter().cloned().collect();
        let results = match &self.threads {
            Some(pool) => multithread_tract_scope(pool.clone(), || self.state.run(arguments)),
            None => self.state.run(arguments),
        };
        let results = results.map_err(failed)?.into_iter().map(|value| {
            // sizes are of a type of their own
            match value.datum_type() == DatumType::TDim {
                true => Ok(value.cast_to_dt(DatumType::I64)?.into_owned().into_tvalue()),
                false => Ok(value),
            }
        });
        results.collect::<TractResult<Vec<TValue>>>().map_err(failed)
    }

    fn elements<'a>(&self, value: &'a TValue, kind: ElementKind) -> Result<(Vec<usize>, Elements<'a>), BackendError> {
        let plain = value.try_as_plain_ram().map_err(failed)?;
        let elements = match kind {
            ElementKind::F16 => plain.as_slice::<f16>().map(Elements::F16),
            ElementKind::I64 => plain.as_slice::<i64>().map(Elements::I64),
            ElementKind::I32 => plain.as_slice::<i32>().map(Elements::I32),
            ElementKind::U8 => plain.as_slice::<u8>().map(Elements::U8),
            ElementKind::Bool => plain.as_slice::<bool>().map(Elements::Bool),
            ElementKind::F32 | ElementKind::F64 => plain.as_slice::<f32>().map(Elements::F32),
        };
        Ok((value.shape().to_vec(), elements.map_err(failed)?))
    }

    fn report(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }
}
