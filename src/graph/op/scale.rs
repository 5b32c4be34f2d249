//! A value times a number.

use super::super::ValueType;
use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::{Operator, Shapes, one};

/// a · factor
#[derive(Clone, Debug, PartialEq)]
pub struct Scale(
    /// The factor.
    pub f32,
);

impl Operator for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn results(&self, _: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        Ok(x.to_vec())
    }

    fn compute(&self, _: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        one(x[0].data.iter().map(|v| v * f64::from(self.0)).collect(), batch, results)
    }
}
