//! The statistics behind a record: point, interval, n, method. METHODS.md says the same in prose.
//!
//! In: numbers. Out: [`Estimate`]s. Must not: know cases or metrics, or draw random numbers (every interval here has a
//! closed or exact form).

pub mod level;
pub mod paired;
pub mod proportion;
pub mod quantile;
pub mod ratio;
pub mod roc;
pub mod special;

/// Confidence of every two-sided interval.
pub const CONFIDENCE: f64 = 0.95;

/// A number with its uncertainty, or with the reason why there is no interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its interval at [`CONFIDENCE`]; `Err`: why there is none.
    pub interval: Result<(f64, f64), String>,
    /// Independent observations behind it.
    pub n: u64,
    /// How value and interval were found.
    pub method: String,
}

impl Estimate {
    /// The same estimate in another scale; `factor` must be positive.
    pub fn scaled(mut self, factor: f64) -> Self {
        self.value *= factor;
        self.interval = self.interval.map(|(lower, upper)| (lower * factor, upper * factor));
        self
    }
}
