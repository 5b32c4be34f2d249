//! What routers of mixtures of experts did: load and probability of each expert, by layer.
//!
//! In: counts of a layer. Out: shares, entropy, the busiest expert's load; or why the counts cannot be. Must not: know who counted.

use serde::{Deserialize, Serialize};

/// What the router of one layer of a mixture of experts did with the tokens of the scored examples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerRouting {
    /// Name of the layer.
    pub layer: String,
    /// Experts that each token meets.
    pub top_k: u32,
    /// Tokens sent to each expert; a token counts once for each of its experts.
    pub load: Vec<u64>,
    /// Mean over the tokens of the router's probability (softmax over all experts) of each expert.
    pub probability: Vec<f64>,
}

impl LayerRouting {
    /// Tokens routed, each counted once.
    pub fn tokens(&self) -> u64 {
        self.load.iter().fold(0u64, |sum, n| sum.saturating_add(*n)) / u64::from(self.top_k.max(1))
    }

    /// Share of all choices that fell on each expert; `None` where nothing was routed.
    pub fn shares(&self) -> Option<impl Iterator<Item = f64>> {
        let all: f64 = self.load.iter().map(|n| *n as f64).sum();
        (all > 0.0).then(|| self.load.iter().map(move |n| *n as f64 / all))
    }

    /// Entropy of the load over its maximum: −Σ f ln f / ln E with f the share of all choices that fell on an expert.
    /// 1: all experts are used alike; `None` for fewer than two experts, or where nothing was routed.
    pub fn entropy(&self) -> Option<f64> {
        let entropy: f64 = self.shares()?.filter(|f| *f > 0.0).map(|f| -f * f.ln()).sum();
        // a sum of rounded shares may pass the maximum by a unit in the last place
        (self.load.len() > 1).then(|| (entropy / (self.load.len() as f64).ln()).clamp(0.0, 1.0))
    }

    /// The load of the busiest expert over that of even routing, `tokens · top_k / E`; 1 is the least, `E / top_k` the
    /// most.
    pub fn largest_load(&self) -> Option<f64> {
        self.shares().map(|f| f.fold(0.0, f64::max) * self.load.len() as f64)
    }

    /// Why these numbers cannot be: what another program sent is checked.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let (experts, name) = (self.load.len(), self.layer.chars().take(80).collect::<String>());
        if self.probability.len() != experts || !(1..=experts as u64).contains(&u64::from(self.top_k)) {
            return Err(format!(
                "layer `{name}`: {experts} loads, {} probabilities, top {}",
                self.probability.len(),
                self.top_k
            ));
        }
        if self.probability.iter().any(|p| !(0.0..=1.0).contains(p)) {
            return Err(format!("layer `{name}`: a router's probability is not within 0 and 1"));
        }
        let sum: f64 = self.probability.iter().sum();
        if self.tokens() == 0 || (sum - 1.0).abs() > 1e-3 {
            return Err(format!("layer `{name}`: {} tokens, probabilities that sum to {sum}", self.tokens()));
        }
        let most = self.load.iter().max().copied().unwrap_or(0);
        if most > self.tokens() {
            return Err(format!("layer `{name}`: an expert met {most} of {} tokens", self.tokens()));
        }
        Ok(())
    }
}
