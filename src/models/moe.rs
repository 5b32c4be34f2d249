//! The encoder with a mixture of experts in every block: each token goes to a few of many gated MLPs, chosen by a router.
//!
//! In: a config with `model_type` `moe-encoder`: the encoder's fields and the experts'. Out: a graph without states whose one step gives
//! logits. Must not: differ from the encoder in anything but the experts, so that the two can be compared at equal active parameters.
//!
//! The router's rule is Mixtral's (arXiv 2401.04088, section 2.1): softmax over the scores of the chosen experts.
//!
//! The cost model counts the active share of the experts. `native` and `candle` compute each expert on the tokens
//! routed to it; an exported file has all experts on all tokens in standard operators, or (onnxruntime only) the routed
//! ones. All that is computed is charged in `flops_executed`.

use serde::Deserialize;

use super::blocks::ExpertSizes;
use super::{ModelError, ModelFamily, dense, read_config};
use crate::graph::Graph;

/// The family.
pub const FAMILY: ModelFamily =
    ModelFamily { name: "moe-encoder", about: "the encoder with routed experts (top-k of n gated MLPs)", build };

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    encoder: dense::EncoderConfig,
    /// Experts of a block.
    num_experts: usize,
    /// Experts that a token goes to.
    experts_per_token: usize,
    /// Inner width of one expert.
    expert_inner: usize,
}

fn build(config: &serde_json::Value) -> Result<Graph, ModelError> {
    let Config { encoder, num_experts: count, experts_per_token: top_k, expert_inner: inner } = read_config(config)?;
    dense::encoder(encoder, Some(ExpertSizes { count, top_k, inner }))
}
