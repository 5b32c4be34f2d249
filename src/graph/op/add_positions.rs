//! Learned positions.

use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::super::{ParamId, ValueType};
use super::{Operator, Shapes, fixed, one};

/// Adds a learned table `[T, D]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AddPositions {
    /// The table.
    pub table: ParamId,
}

impl Operator for AddPositions {
    fn name(&self) -> &'static str {
        "add_positions"
    }

    fn results(&self, shapes: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        shapes.expect(self.table, &[fixed(x[0])?, x[0].features])?;
        Ok(x.to_vec())
    }

    fn params(&self) -> Vec<ParamId> {
        vec![self.table]
    }

    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        let table = run.weight(self.table);
        one(x[0].data.iter().enumerate().map(|(i, v)| v + table[i % table.len()]).collect(), batch, results)
    }
}
