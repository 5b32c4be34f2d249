//! The norm by mean and variance.

use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::super::{ParamId, ValueType};
use super::{Operator, Shapes, one};

/// (x − mean) · rsqrt(var + eps) ⊙ gain + bias over features (Ba et al. 2016)
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// `[features]`
    pub gain: ParamId,
    /// `[features]`
    pub bias: Option<ParamId>,
    /// Added to the variance.
    pub eps: f32,
}

impl Operator for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn results(&self, shapes: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        shapes.vector(Some(self.gain), x[0].features)?;
        shapes.vector(self.bias, x[0].features)?;
        Ok(x.to_vec())
    }

    fn params(&self) -> Vec<ParamId> {
        [Some(self.gain), self.bias].into_iter().flatten().collect()
    }

    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        let (gain, bias) = (run.weight(self.gain), self.bias.map(|p| run.weight(p)));
        let norm = |v: &[f64]| {
            let n = v.len() as f64;
            let mean = v.iter().sum::<f64>() / n;
            let scale = 1.0 / (v.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / n + f64::from(self.eps)).sqrt();
            let bias = |i: usize| bias.as_ref().map_or(0.0, |b| b[i]);
            v.iter().enumerate().map(|(i, a)| (a - mean) * scale * gain[i] + bias(i)).collect::<Vec<f64>>()
        };
        one(x[0].data.chunks_exact(x[0].features).flat_map(norm).collect(), batch, results)
    }
}
