//! A value of the reference interpreter.
//!
//! In: nothing. Out: [`Tensor`]. Must not: compute.

/// Rows of one value: `[batch, tokens, features]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensor {
    /// Row-major elements; indices are stored as whole numbers.
    pub data: Vec<f64>,
    /// Second axis.
    pub tokens: usize,
    /// Third axis.
    pub features: usize,
}

impl Tensor {
    /// Elements of one batch row.
    pub fn row_len(&self) -> usize {
        self.tokens * self.features
    }
}
