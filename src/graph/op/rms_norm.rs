//! The norm by the root of the mean square.

use super::super::interpreter::Interpreter;
use super::super::product::along;
use super::super::tensor::Tensor;
use super::super::{Axis, ParamId, ValueType};
use super::{Operator, Shapes, length, one};

/// x · rsqrt(mean(x²) + eps) ⊙ gain (Zhang & Sennrich 2019)
#[derive(Clone, Debug, PartialEq)]
pub struct RmsNorm {
    /// `[features]` (or `[tokens]` over tokens)
    pub gain: Option<ParamId>,
    /// Added to the mean square.
    pub eps: f32,
    /// The axis of the mean.
    pub over: Axis,
}

impl Operator for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn results(&self, shapes: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        shapes.vector(self.gain, length(x[0], self.over)?)?;
        Ok(x.to_vec())
    }

    fn params(&self) -> Vec<ParamId> {
        self.gain.into_iter().collect()
    }

    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        let gain = self.gain.map(|p| run.weight(p));
        let norm = |v: &[f64]| {
            let mean = v.iter().map(|a| a * a).sum::<f64>() / v.len() as f64;
            let scale = 1.0 / (mean + f64::from(self.eps)).sqrt();
            let gain = |i: usize| gain.as_ref().map_or(1.0, |g| g[i]);
            v.iter().enumerate().map(|(i, a)| a * scale * gain(i)).collect::<Vec<f64>>()
        };
        one(along(x[0], self.over, &|rows, n| rows.chunks_exact(n).flat_map(norm).collect()), batch, results)
    }
}
