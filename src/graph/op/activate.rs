//! Elementwise non-linearities.

use super::super::ValueType;
use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::{Operator, Shapes, one};

/// A non-linearity, as an operator and within MLPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x)
    Silu,
    /// x · Φ(x), by the error function
    Gelu,
    /// its tanh approximation
    GeluTanh,
    /// max(x, 0)
    Relu,
}

impl Activation {
    /// Of one number.
    pub fn of(self, v: f64) -> f64 {
        match self {
            Activation::Silu => v / (1.0 + (-v).exp()),
            Activation::Gelu => 0.5 * v * (1.0 + erf(v / std::f64::consts::SQRT_2)),
            Activation::GeluTanh => {
                0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3))).tanh())
            }
            Activation::Relu => v.max(0.0),
        }
    }
}

impl Operator for Activation {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn results(&self, _: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        Ok(x.to_vec())
    }

    fn compute(&self, _: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        one(x[0].data.iter().map(|v| self.of(*v)).collect(), batch, results)
    }
}

/// Error function: its Maclaurin series near zero, the continued fraction of its complement elsewhere (DLMF 7.6.1, 7.9.3); about 1e-15.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..80 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut fraction = 0.0;
        for k in (1..=60).rev() {
            fraction = f64::from(k) / 2.0 / (a + fraction);
        }
        1.0 - (-a * a).exp() / (std::f64::consts::PI.sqrt() * (a + fraction))
    };
    value.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_agrees_with_tabulated_values() {
        for (x, want) in [
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.4, 0.999_311_486_103_355),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            assert!((erf(x) - want).abs() < 1e-13, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
    }
}
