//! Learned positions.

use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::super::{ParamId, ValueType};
use super::{Operator, Shapes, fixed, one};

/// Adds a learned table `[T, D]`; with a cache, given as second value, the rows after as many as it has tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct AddPositions {
    /// The table. With a cache it has a row for every position that there may be, and may have more.
    pub table: ParamId,
    /// Positions go on from those of a cache.
    pub cache: bool,
}

impl Operator for AddPositions {
    fn name(&self) -> &'static str {
        "add_positions"
    }

    fn arity(&self) -> Option<usize> {
        Some(1 + usize::from(self.cache))
    }

    fn results(&self, shapes: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        let rows = match x.get(1) {
            // positions that a shorter cache never gets to are not used
            Some(cache) => fixed(*cache)?.max(shapes.rows(self.table)),
            None => fixed(x[0])?,
        };
        shapes.expect(self.table, &[rows, x[0].features])?;
        Ok(vec![x[0]])
    }

    fn params(&self) -> Vec<ParamId> {
        vec![self.table]
    }

    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        let table = run.weight(self.table);
        let row_len = x[0].row_len().max(1);
        let from = x.get(1).map_or(0, |cache| cache.tokens) * x[0].features;
        one(x[0].data.iter().enumerate().map(|(i, v)| v + table[from + i % row_len]).collect(), batch, results)
    }
}
