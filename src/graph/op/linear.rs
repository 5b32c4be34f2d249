//! The matrix product with a weight.

use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::super::{ParamId, ValueType};
use super::{Costing, Operator, Shapes, one, with_features};

/// x·Wᵀ + b
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[out, in]`
    pub weight: ParamId,
    /// `[out]`
    pub bias: Option<ParamId>,
}

impl Operator for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn results(&self, shapes: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        let out = shapes.axes(self.weight, 2)?[0];
        shapes.expect(self.weight, &[out, x[0].features])?;
        shapes.vector(self.bias, out)?;
        Ok(vec![with_features(x[0], out)])
    }

    fn params(&self) -> Vec<ParamId> {
        [Some(self.weight), self.bias].into_iter().flatten().collect()
    }

    fn flops(&self, at: &Costing) -> f64 {
        2.0 * at.tokens * at.shapes.elements(self.weight)
    }

    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        one(run.linear(&x[0].data, self.weight, self.bias), batch, results)
    }
}
