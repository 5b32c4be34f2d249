//! Rows of a table by index.

use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::super::{Kind, ParamId, ValueType};
use super::{Operator, Shapes, one, with_features};

/// Indices `[T]` to rows of `table [rows, D]`: `[T, D]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Embed {
    /// The table.
    pub table: ParamId,
}

impl Operator for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn takes(&self) -> Option<Kind> {
        Some(Kind::Index)
    }

    fn results(&self, shapes: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        Ok(vec![with_features(x[0], shapes.axes(self.table, 2)?[1])])
    }

    fn params(&self) -> Vec<ParamId> {
        vec![self.table]
    }

    fn whole_params(&self) -> Vec<ParamId> {
        Vec::new()
    }

    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        one(rows(run.param(self.table), &x[0].data, results[0].features, results[0].features), batch, results)
    }
}

/// The rows of `table [rows, width]` at these indices, each padded with zeros.
pub(super) fn rows(table: &[f32], indices: &[f64], width: usize, padded: usize) -> Vec<f64> {
    let mut data = Vec::with_capacity(indices.len() * padded);
    for &index in indices {
        let row = index as usize * width;
        data.extend(table[row..row + width].iter().map(|&v| f64::from(v)));
        data.extend(std::iter::repeat_n(0.0, padded - width));
    }
    data
}
