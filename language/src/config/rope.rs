//! Rotary positions: by what angle each pair of a head's elements is turned.
//!
//! In: what a file says of it. Out: frequencies. Must not: take a scaling that it does not know for none.

use std::f64::consts::PI;

/// Which elements of a head are a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// i and i + width / 2, as Hugging Face files have it.
    Halves,
    /// 2 i and 2 i + 1, as GGUF files of the architecture `llama` have it (their rows of q and k are permuted).
    Interleaved,
}

/// Rotary positions of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f32,
    /// Elements of a head that are turned, from its first; the rest stay.
    pub width: usize,
    /// Which are pairs.
    pub layout: RopeLayout,
    /// How frequencies are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are stretched.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All divided by a factor.
    Linear(f32),
    /// Llama 3: low ones divided by `factor`, high ones not, a ramp between.
    Llama3 {
        /// Divides low frequencies.
        factor: f32,
        /// Wavelengths beyond `original / low` places are low frequencies.
        low: f32,
        /// Wavelengths below `original / high` places are high ones.
        high: f32,
        /// Places that the model was first trained with.
        original: usize,
    },
    /// Phi-3: each pair has divisors, one for texts of up to `original` places and one for longer ones; cosine and sine
    /// are multiplied by `attention`.
    LongRope {
        /// Divisors for short texts, one a pair.
        short: Vec<f32>,
        /// Divisors for long texts.
        long: Vec<f32>,
        /// Places that the model was first trained with.
        original: usize,
        /// Multiplies cosine and sine.
        attention: f32,
    },
    /// GGUF's form of Llama 3's: divisors, one a pair, in the tensor that the naming calls `rope_divisors`.
    Divisors,
}

impl RopeConfig {
    /// Radians a place for each pair, `width / 2` of them, for texts of up to `places`; `divisors` are those of the tensor
    /// that [`RopeScaling::Divisors`] asks for, else none. Computed in f64, as cosines of large angles ask for.
    ///
    /// # Errors
    /// Divisors are asked for and are not as many as pairs.
    pub fn frequencies(&self, places: usize, divisors: &[f32]) -> Result<Vec<f64>, String> {
        let pairs = self.width / 2;
        let plain = (0..pairs).map(|i| f64::from(self.theta).powf(-(2.0 * i as f64) / self.width as f64));
        let divided = |by: &[f32]| -> Result<Vec<f64>, String> {
            match by.len() == pairs && by.iter().all(|d| d.is_finite() && *d > 0.0) {
                true => Ok(plain.clone().zip(by).map(|(f, d)| f / f64::from(*d)).collect()),
                false => Err(format!("{} divisors of frequencies for {pairs} pairs, all above zero", by.len())),
            }
        };
        Ok(match &self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear(factor) => plain.map(|f| f / f64::from(*factor)).collect(),
            RopeScaling::Llama3 { factor, low, high, original } => {
                let (factor, low, high) = (f64::from(*factor), f64::from(*low), f64::from(*high));
                let stretched = plain.map(|f| {
                    // wavelengths in the first context; a ramp where it is between `low` and `high`
                    let turns = *original as f64 * f / (2.0 * PI);
                    let ramp = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    f * ramp + f / factor * (1.0 - ramp)
                });
                stretched.collect()
            }
            RopeScaling::LongRope { short, long, original, .. } => {
                divided(if places > *original { long } else { short })?
            }
            RopeScaling::Divisors => divided(divisors)?,
        })
    }

    /// What cannot be, in words.
    pub(super) fn check(&self, head: usize) -> Result<(), String> {
        if self.width == 0 || !self.width.is_multiple_of(2) || self.width > head {
            return Err(format!("{} of {head} elements of a head are turned; an even number is possible", self.width));
        }
        if !(self.theta.is_finite() && self.theta > 0.0) {
            return Err(format!("the base of rotary frequencies is {}", self.theta));
        }
        let above = |x: f32| x.is_finite() && x > 0.0;
        let pairs = self.width / 2;
        match &self.scaling {
            RopeScaling::Linear(factor) if !above(*factor) => Err(format!("rope scaling has the factor {factor}")),
            RopeScaling::Llama3 { factor, low, high, original } => match () {
                () if ![*factor, *low, *high].into_iter().all(above) || *original == 0 || low >= high => Err(format!(
                    "rope scaling llama3 has factor {factor}, low {low}, high {high}, {original} original places: all above zero, low below high"
                )),
                () => Ok(()),
            },
            RopeScaling::LongRope { short, long, original, attention } => match () {
                () if short.len() != pairs || long.len() != pairs => Err(format!(
                    "rope scaling longrope has {} short and {} long factors for {pairs} pairs",
                    short.len(),
                    long.len()
                )),
                () if !short.iter().chain(long).copied().all(above) || *original == 0 || !above(*attention) => {
                    Err("rope scaling longrope has factors that are not all above zero".into())
                }
                () => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
