//! A one-shot transformer encoder over the same tokens: the "direct prediction" control for recursive nets.
//!
//! In: a config with `model_type` `encoder`. Out: a graph without states whose one step gives logits. Must not: differ from the recursive
//! nets in anything but recursion: embedding, block and head are theirs (arXiv 2510.04871, table 1, "direct prediction").

use serde::Deserialize;

use super::blocks::{Block, BlockSize, ExpertSizes};
use super::embedding::{Embedding, EmbeddingSize, learned};
use super::{ModelError, ModelFamily, Params, config_error, read_config};
use crate::graph::{Family, Graph, Halting, ParamId, RegionBuilder, ValueType, op};

/// The family.
pub const FAMILY: ModelFamily =
    ModelFamily { name: "encoder", about: "one-shot transformer encoder, the direct-prediction control", build };

/// Fields of a config, for the mixture of experts and the looped net too.
#[derive(Deserialize)]
pub(crate) struct EncoderConfig {
    seq_len: usize,
    vocab_size: usize,
    hidden_size: usize,
    num_layers: usize,
    num_heads: usize,
    expansion: f64,
    /// Mix along tokens by an MLP instead of attention.
    #[serde(default)]
    mlp_t: bool,
    /// `rope`, `learned` or `none`.
    pos_encodings: String,
    #[serde(default = "ten_thousand")]
    rope_theta: f32,
    #[serde(default = "small")]
    rms_norm_eps: f32,
    /// Features of a puzzle embedding, as in TRM; 0: the net does not see which puzzle it is.
    #[serde(default)]
    puzzle_emb_ndim: usize,
    /// Tokens that it puts before the grid; 0: as many as its features fill.
    #[serde(default)]
    puzzle_emb_len: usize,
    #[serde(default = "one")]
    num_puzzle_identifiers: usize,
}

fn one() -> usize {
    1
}
fn ten_thousand() -> f32 {
    10_000.0
}
fn small() -> f32 {
    1e-5
}

fn build(config: &serde_json::Value) -> Result<Graph, ModelError> {
    encoder(read_config(config)?, None)
}

/// What a net of the encoder's config declares.
pub(crate) struct Body {
    pub embedding: Embedding,
    pub size: BlockSize,
    pub blocks: Vec<Block>,
    pub head: ParamId,
}

impl EncoderConfig {
    /// Declares embedding, blocks and head. Errors: sizes that no net can have.
    pub(crate) fn declare(self, params: &mut Params, experts: Option<ExpertSizes>) -> Result<Body, ModelError> {
        if !(1..=1024).contains(&self.num_layers) {
            return Err(config_error(format!("`num_layers` is {}; it must lie between 1 and 1024", self.num_layers)));
        }
        if self.puzzle_emb_ndim == 0 && self.puzzle_emb_len > 0 {
            return Err(config_error("`puzzle_emb_len` without `puzzle_emb_ndim`: there is nothing to embed"));
        }
        let hidden = self.hidden_size;
        let embedding = EmbeddingSize {
            vocab: self.vocab_size,
            hidden,
            grid: self.seq_len,
            learned: learned(&self.pos_encodings)?,
            puzzle_features: self.puzzle_emb_ndim,
            puzzle_len: self.puzzle_emb_len,
            puzzles: self.num_puzzle_identifiers,
        };
        embedding.check()?;
        let size = BlockSize {
            tokens: embedding.tokens(),
            hidden,
            heads: self.num_heads,
            expansion: self.expansion,
            mlp_t: self.mlp_t,
            rope: (self.pos_encodings == "rope").then_some(self.rope_theta),
            eps: self.rms_norm_eps,
            experts,
        };
        size.check()?;
        let embedding = Embedding::declare(params, embedding)?;
        let blocks = (0..self.num_layers)
            .map(|i| Block::declare(params, &format!("layers.{i}"), size))
            .collect::<Result<Vec<_>, _>>()?;
        let head = params.weight("lm_head.weight", self.vocab_size, hidden)?;
        Ok(Body { embedding, size, blocks, head })
    }
}

/// The encoder, with one MLP or with experts along the features.
pub(crate) fn encoder(c: EncoderConfig, experts: Option<ExpertSizes>) -> Result<Graph, ModelError> {
    let mut params = Params::default();
    let Body { embedding, size, blocks, head } = c.declare(&mut params, experts)?;
    let mut r = RegionBuilder::new(&params.0, &[ValueType::float(size.tokens, size.hidden)]);
    let first = r.arg(0);
    let h = blocks.iter().try_fold(first, |h, block| block.apply(&mut r, h))?;
    let grid = embedding.grid(&mut r, h)?;
    let logits = r.op(op::Linear { weight: head, bias: None }, &[grid])?;
    let step = r.finish(&[logits]);

    Ok(Graph {
        calls: Vec::new(),
        family: if experts.is_some() { Family::Moe } else { Family::Dense },
        inputs: embedding.inputs(),
        admit: embedding.admit(&params)?,
        states: Vec::new(),
        step,
        outputs: vec![embedding.logits()],
        params: params.0,
        halting: Halting::Never,
        max_steps: 1,
    })
}
