//! Sum of two values.

use super::super::ValueType;
use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::{Operator, Shapes, one, same};

/// a + b
#[derive(Clone, Debug, PartialEq)]
pub struct Add;

impl Operator for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn arity(&self) -> Option<usize> {
        Some(2)
    }

    fn results(&self, _: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        same(x)
    }

    fn compute(&self, _: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        one(x[0].data.iter().zip(&x[1].data).map(|(a, b)| a + b).collect(), batch, results)
    }
}
