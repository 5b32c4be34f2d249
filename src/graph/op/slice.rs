//! Some of a value's tokens.

use super::super::ValueType;
use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::{Operator, Shapes, fixed, one};

/// Takes `len` tokens from `start`.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// First token.
    pub start: usize,
    /// Number of tokens.
    pub len: usize,
}

impl Operator for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn results(&self, _: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        let Self { start, len } = *self;
        let tokens = fixed(x[0])?;
        if start.checked_add(len).is_none_or(|end| end > tokens) {
            return Err(format!("{len} tokens from {start} of {tokens}"));
        }
        Ok(vec![ValueType::float(len, x[0].features)])
    }

    fn compute(&self, _: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        let (x, Self { start, len }) = (x[0], self);
        let mut data = Vec::new();
        for row in x.data.chunks_exact(x.row_len()) {
            data.extend_from_slice(&row[start * x.features..(start + len) * x.features]);
        }
        one(data, batch, results)
    }
}
