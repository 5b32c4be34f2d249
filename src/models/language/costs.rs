//! What a language model costs: operations of a prompt and of a token, bytes of weights that a decoded token reads.
//!
//! In: a [`LanguageModel`], counts of tokens. Out: numbers. Must not: know an engine; what one really reads or computes is its own.
//!
//! Operations are those of the graph, with the head applied where logits are asked for: of a prompt to its last token.

use ergometer_language::BlockType;

use super::LanguageModel;
use crate::graph::cost::Workload;

impl LanguageModel {
    /// Operations of feeding so many tokens to a sequence that has `past`, with the logits of the last of them.
    pub fn flops(&self, tokens: usize, past: usize) -> f64 {
        let all = self.graph.cost(&Workload { length: tokens, past, ..Workload::one() }).flops_steps;
        let head = 2.0 * (self.config().vocabulary * self.config().width) as f64;
        all - head * tokens.saturating_sub(1) as f64
    }

    /// Parameters in all, and those that take part in one token.
    pub fn parameters(&self) -> (u64, u64) {
        let cost = self.graph.cost(&Workload::one());
        (cost.params_total, cost.params_active)
    }

    /// Bytes of weights that a decoded token reads: every tensor once, of experts those that are used, of tables that a token looks its row up
    /// in nothing. `element`: bytes of an element where the engine does not keep weights as they are stored.
    pub fn decode_bytes(&self, element: Option<f64>) -> f64 {
        let config = self.config();
        let each = self.decoder().tensors().iter().map(|(name, tensor)| {
            let looked_up = name == "positions.weight" || (name == "embedding.weight" && !config.tied_head);
            let used = match config.mlp.experts {
                _ if looked_up => 0.0,
                Some(experts) if name.contains(".experts.") => experts.used as f64 / experts.count as f64,
                _ => 1.0,
            };
            let elements = tensor.shape.iter().product::<usize>();
            used * stored(tensor.kind, elements, element)
        });
        each.sum()
    }

    /// Bytes of all weights, likewise.
    pub fn weight_bytes(&self, element: Option<f64>) -> f64 {
        let of = |t: &ergometer_language::names::NetTensor| stored(t.kind, t.shape.iter().product(), element);
        self.decoder().tensors().values().map(of).sum()
    }

    /// Bytes of keys and values of a sequence of so many tokens, with so many bytes a number. Windows are not taken off.
    pub fn cache_bytes(&self, tokens: usize, value: f64) -> f64 {
        let config = self.config();
        (2 * config.key_value_width() * config.layers.len() * tokens) as f64 * value
    }
}

fn stored(kind: BlockType, elements: usize, element: Option<f64>) -> f64 {
    match element {
        Some(bytes) => elements as f64 * bytes,
        None => kind.bytes_of(elements as u64).unwrap_or(0) as f64,
    }
}
