//! The MLP of two layers.

use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::super::{ParamId, ValueType};
use super::{Activation, Costing, Operator, Shapes, one};

/// act(x·Wuᵀ + bu)·Wdᵀ + bd
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    /// `[inner, n]`
    pub up: ParamId,
    /// `[inner]`
    pub up_bias: Option<ParamId>,
    /// `[n, inner]`
    pub down: ParamId,
    /// `[n]`
    pub down_bias: Option<ParamId>,
    /// Between the two.
    pub act: Activation,
}

impl Operator for Mlp {
    fn name(&self) -> &'static str {
        "mlp"
    }

    fn results(&self, shapes: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        let (inner, n) = (shapes.axes(self.up, 2)?[0], x[0].features);
        shapes.expect(self.up, &[inner, n])?;
        shapes.expect(self.down, &[n, inner])?;
        shapes.vector(self.up_bias, inner)?;
        shapes.vector(self.down_bias, n)?;
        Ok(x.to_vec())
    }

    fn params(&self) -> Vec<ParamId> {
        [Some(self.up), self.up_bias, Some(self.down), self.down_bias].into_iter().flatten().collect()
    }

    fn flops(&self, at: &Costing) -> f64 {
        2.0 * at.tokens * (at.shapes.elements(self.up) + at.shapes.elements(self.down))
    }

    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        let mut inner = run.linear(&x[0].data, self.up, self.up_bias);
        inner.iter_mut().for_each(|v| *v = self.act.of(*v));
        one(run.linear(&inner, self.down, self.down_bias), batch, results)
    }
}
