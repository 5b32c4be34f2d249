//! The gated MLP.

use super::super::interpreter::Interpreter;
use super::super::product::{along, product};
use super::super::tensor::Tensor;
use super::super::{Axis, ParamId, ValueType};
use super::{Activation, Costing, Operator, Shapes, length, one};

/// (act(g) ⊙ u)·Wdᵀ with `[g | u] = x·Wguᵀ` (Shazeer 2020), along either axis.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedMlp {
    /// `[2·inner, n]`, rows 0..inner are the gate
    pub gate_up: ParamId,
    /// `[n, inner]`
    pub down: ParamId,
    /// On the gate.
    pub act: Activation,
    /// n is the number of features or of tokens.
    pub over: Axis,
}

impl Operator for GatedMlp {
    fn name(&self) -> &'static str {
        "gated_mlp"
    }

    fn results(&self, shapes: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        let n = length(x[0], self.over)?;
        let inner = shapes.axes(self.down, 2)?[1];
        shapes.expect(self.down, &[n, inner])?;
        shapes.expect(self.gate_up, &[2 * inner, n])?;
        Ok(x.to_vec())
    }

    fn params(&self) -> Vec<ParamId> {
        vec![self.gate_up, self.down]
    }

    fn flops(&self, at: &Costing) -> f64 {
        2.0 * at.vectors(self.over) * (at.shapes.elements(self.gate_up) + at.shapes.elements(self.down))
    }

    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        let (gate_up, down) = (run.param(self.gate_up), run.param(self.down));
        let f = |rows: &[f64], n: usize| gated(rows, n, gate_up, down, self.act, run.threads());
        one(along(x[0], self.over, &f), batch, results)
    }
}

/// The gated MLP of rows of `width` features: `gate_up [2 · inner, width]`, `down [width, inner]`.
pub fn gated(rows: &[f64], width: usize, gate_up: &[f32], down: &[f32], act: Activation, threads: usize) -> Vec<f64> {
    let inner = down.len() / width;
    let both = product(rows, gate_up, width, None, threads);
    let gated = |both: &[f64]| -> Vec<f64> {
        let (gate, up) = both.split_at(inner);
        gate.iter().zip(up).map(|(g, u)| act.of(*g) * u).collect()
    };
    let inner_rows: Vec<f64> = both.chunks_exact(2 * inner).flat_map(gated).collect();
    product(&inner_rows, down, inner, None, threads)
}
