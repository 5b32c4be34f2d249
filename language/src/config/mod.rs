//! What a decoder is: widths, heads, norms, positions, windows, caps, experts, in one form whatever file says it.
//!
//! In: a `config.json` or GGUF metadata. Out: a [`DecoderConfig`], checked. Must not: read tensors, or take a key that it
//! does not understand for one that does not matter where it changes what is computed.
//!
//! The net that it describes, for each token:
//!
//! ```text
//! x = embedding[token] * embedding_scale (+ positions[place])
//! for each layer:
//!     serial:    x += post(attention(norm(x)));  x += post(mlp(norm(x)))
//!     parallel:  x += attention(norm(x)) + mlp(norm(x)), the norms of one weight or of two
//! logits = cap(head(norm(x)))
//! ```
//!
//! Attention: q, k, v are linear; heads of q and k are normed where `query_key_norm` says so, then turned by
//! [`RopeConfig`]; scores are q·k times `scale`, capped; a place sees itself and those before it, of a layer with a
//! window `w` the last `w`, itself counted. A cap `c` makes c·tanh(x / c) of x.

mod folder;
mod keys;
mod metadata;
mod rope;

pub use folder::is_decoder;
pub(crate) use folder::of_json;
pub(crate) use metadata::of_gguf;
pub use rope::{RopeConfig, RopeLayout, RopeScaling};

/// Most layers, experts, heads, places and rows of a vocabulary; far beyond what is published.
pub(crate) const MAX_LAYERS: usize = 1 << 12;
pub(crate) const MAX_WIDTH: usize = 1 << 20;
pub(crate) const MAX_ROWS: usize = 1 << 24;

/// How names and shapes of a family's tensors are. Says nothing that [`DecoderConfig`] does not say otherwise: a net is
/// built from the other fields alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderFamily {
    /// Llama 2 and 3, SmolLM2, Mistral; with experts in GGUF also Mixtral.
    Llama,
    /// Gemma 1.
    Gemma,
    /// Gemma 3, text alone.
    Gemma3,
    /// Phi-3 and Phi-4-mini.
    Phi3,
    /// Mixtral.
    Mixtral,
    /// Falcon with rotary positions, Falcon 2.
    Falcon,
    /// GPT-Neo.
    GptNeo,
    /// GPT-2.
    Gpt2,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3, dense.
    Qwen3,
}

/// A decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// How its tensors are named.
    pub family: DecoderFamily,
    /// Rows of the embedding and of the head.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Most places that it was made for.
    pub context: usize,
    /// The head is the embedding.
    pub tied_head: bool,
    /// What an embedding is multiplied by.
    pub embedding_scale: f32,
    /// Places of a learned table that is added to embeddings; `None`: positions are rotary.
    pub position_rows: Option<usize>,
    /// Of all norms of the residual stream.
    pub norm: DecoderNorm,
    /// Attention and MLP read the same `x`.
    pub parallel: ParallelLayers,
    /// Attention's and the MLP's outputs are normed before they are added.
    pub post_norms: bool,
    /// The same in all layers but for [`DecoderLayer`].
    pub attention: DecoderAttention,
    /// The same in all layers.
    pub mlp: DecoderMlp,
    /// What differs between layers; as many as there are.
    pub layers: Vec<DecoderLayer>,
    /// Cap of logits.
    pub logit_cap: Option<f32>,
    /// The token that begins a text.
    pub begin: Option<u32>,
    /// Tokens that end one.
    pub ends: Vec<u32>,
}

/// A norm of the residual stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecoderNorm {
    /// Mean subtracted and bias added (LayerNorm); else RMS alone.
    pub centred: bool,
    /// Added to the variance or mean square.
    pub epsilon: f32,
    /// What is added to the stored weight before it multiplies: 1 in Gemma's own files, else 0.
    pub offset: f32,
}

/// How a layer's two halves hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParallelLayers {
    /// The MLP reads what attention made.
    No,
    /// Both read one norm of `x`.
    OneNorm,
    /// Each reads a norm of its own of `x`.
    TwoNorms,
}

/// Attention of every layer.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderAttention {
    /// Heads of q.
    pub heads: usize,
    /// Heads of k and v; head h of q reads head h / (heads / key_value_heads).
    pub key_value_heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// What q·k is multiplied by.
    pub scale: f32,
    /// Heads of q and k are RMS-normed with a weight for each element.
    pub query_key_norm: bool,
    /// q, k and v have biases.
    pub bias: bool,
    /// The output has one.
    pub output_bias: bool,
    /// Cap of scores.
    pub score_cap: Option<f32>,
}

/// The MLP of every layer, or an expert's.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderMlp {
    /// Width inside; of one expert where there are experts.
    pub inner: usize,
    /// down(activation(gate(x)) * up(x)); else down(activation(up(x))).
    pub gated: bool,
    /// Of the gate, or of what comes up.
    pub activation: DecoderActivation,
    /// All of its linear layers have biases.
    pub bias: bool,
    /// A mixture of experts in its place.
    pub experts: Option<DecoderExperts>,
}

/// A mixture: of softmax(router(x)) the `used` highest, made to sum to 1, weigh the chosen experts' outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderExperts {
    /// Experts of a layer.
    pub count: usize,
    /// Experts that a token meets.
    pub used: usize,
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderActivation {
    /// x · sigmoid(x).
    Silu,
    /// x · Φ(x), with the error function.
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
}

/// What one layer has of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderLayer {
    /// Places that are seen, itself counted; `None`: all before.
    pub window: Option<usize>,
    /// How q and k are turned; `None`: not at all.
    pub rope: Option<RopeConfig>,
}

impl DecoderConfig {
    /// Width of all heads of q.
    pub fn query_width(&self) -> usize {
        self.attention.heads * self.attention.head_width
    }

    /// Width of all heads of k, or of v.
    pub fn key_value_width(&self) -> usize {
        self.attention.key_value_heads * self.attention.head_width
    }

    /// Elements of the key-value cache for each place: k and v of every layer (a window's layers keep no more than it).
    pub fn cache_elements_per_place(&self) -> usize {
        2 * self.key_value_width() * self.layers.len()
    }

    /// Adds the ends that a `generation_config.json` names, where the vocabulary has them.
    pub(crate) fn ends_too(&mut self, generation: &serde_json::Value) {
        let value = generation.get("eos_token_id").unwrap_or(&serde_json::Value::Null);
        let ids = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for id in ids.iter().filter_map(|v| u32::try_from(v.as_u64()?).ok()) {
            if (id as usize) < self.vocabulary && !self.ends.contains(&id) {
                self.ends.push(id);
            }
        }
    }

    /// What cannot be, in words.
    fn check(&self) -> Result<(), String> {
        let a = &self.attention;
        let bounded = [
            (self.vocabulary, MAX_ROWS, "vocabulary size"),
            (self.context, MAX_ROWS, "context length"),
            (self.width, MAX_WIDTH, "width"),
            (self.mlp.inner, MAX_WIDTH, "width of the MLP"),
            (a.heads, MAX_WIDTH, "number of heads"),
            (a.key_value_heads, a.heads, "number of key-value heads"),
            (a.head_width, MAX_WIDTH, "width of a head"),
            (a.heads.saturating_mul(a.head_width), MAX_WIDTH, "width of all heads"),
            (self.layers.len(), MAX_LAYERS, "number of layers"),
        ];
        for (n, most, what) in bounded {
            if n == 0 || n > most {
                return Err(format!("the {what} is {n}; 1 to {most} are possible"));
            }
        }
        if !a.heads.is_multiple_of(a.key_value_heads) {
            return Err(format!("{} heads cannot share {} key-value heads evenly", a.heads, a.key_value_heads));
        }
        if let Some(experts) = self.mlp.experts
            && (experts.used == 0 || experts.used > experts.count || experts.count > MAX_LAYERS)
        {
            return Err(format!("a token meets {} of {} experts", experts.used, experts.count));
        }
        let positive = [
            (Some(a.scale), "scale of scores"),
            (a.score_cap, "cap of scores"),
            (self.logit_cap, "cap of logits"),
            (Some(self.embedding_scale), "scale of embeddings"),
            (Some(self.norm.epsilon), "epsilon of norms"),
        ];
        for (x, what) in positive {
            if x.is_some_and(|x| !x.is_finite() || x <= 0.0) {
                return Err(format!("the {what} is {}, not a number above zero", x.unwrap_or_default()));
            }
        }
        for (i, layer) in self.layers.iter().enumerate() {
            if layer.window == Some(0) {
                return Err(format!("layer {i} has a window of no place"));
            }
            if let Some(rope) = &layer.rope {
                rope.check(a.head_width).map_err(|e| format!("layer {i}: {e}"))?;
            }
        }
        let outside = self.begin.iter().chain(&self.ends).find(|id| **id as usize >= self.vocabulary);
        match outside {
            Some(id) => Err(format!("token {id} begins or ends a text; the vocabulary has {}", self.vocabulary)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
