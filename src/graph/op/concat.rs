//! Values one after the other.

use super::super::ValueType;
use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::{Operator, Shapes, fixed, one};

/// Joins values along tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat;

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn arity(&self) -> Option<usize> {
        None
    }

    fn results(&self, _: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        let mut tokens = 0;
        for t in x {
            if t.features != x[0].features {
                return Err(format!("{} and {} features", x[0].features, t.features));
            }
            tokens += fixed(*t)?;
        }
        Ok(vec![ValueType::float(tokens, x[0].features)])
    }

    fn compute(&self, _: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        let mut data = Vec::new();
        for b in 0..batch {
            for t in x {
                data.extend_from_slice(&t.data[b * t.row_len()..(b + 1) * t.row_len()]);
            }
        }
        one(data, batch, results)
    }
}
