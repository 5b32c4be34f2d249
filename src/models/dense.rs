//! A one-shot transformer encoder over the same tokens: the "direct prediction" control for recursive nets.
//!
//! In: a config with `model_type` `encoder`. Out: a graph without states whose one step gives logits. Must not: differ from the recursive
//! nets in anything but recursion: embedding, block and head are theirs (arXiv 2510.04871, table 1, "direct prediction").

use serde::Deserialize;

use super::blocks::{Block, BlockSize, Experts};
use super::{ModelError, ModelFamily, Params, axis, config_error, read_config};
use crate::graph::{Family, Graph, Halting, Input, Op, Output, RegionBuilder, Role, Start, ValueType};

/// The family.
pub const FAMILY: ModelFamily =
    ModelFamily { name: "encoder", about: "one-shot transformer encoder, the direct-prediction control", build };

/// Fields of a config, for the mixture of experts too.
#[derive(Deserialize)]
pub(crate) struct Config {
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

/// The encoder, with one MLP or with experts along the features.
pub(crate) fn encoder(c: Config, experts: Option<Experts>) -> Result<Graph, ModelError> {
    axis("vocab_size", c.vocab_size)?;
    axis("seq_len", c.seq_len)?;
    axis("hidden_size", c.hidden_size)?;
    if !(1..=1024).contains(&c.num_layers) {
        return Err(config_error(format!("`num_layers` is {}; it must lie between 1 and 1024", c.num_layers)));
    }
    if !["rope", "learned", "none"].contains(&c.pos_encodings.as_str()) {
        return Err(config_error(format!("`pos_encodings` is `{}`; known: rope, learned, none", c.pos_encodings)));
    }
    let prefix = match (c.puzzle_emb_ndim, c.puzzle_emb_len) {
        (0, 0) => 0,
        (0, _) => return Err(config_error("`puzzle_emb_len` without `puzzle_emb_ndim`: there is nothing to embed")),
        (features, len) => {
            axis("puzzle_emb_ndim", features)?;
            axis("num_puzzle_identifiers", c.num_puzzle_identifiers)?;
            if len == 0 { features.div_ceil(c.hidden_size) } else { len }
        }
    };
    let rope = (c.pos_encodings == "rope").then_some(c.rope_theta);
    let (grid, hidden, heads) = (c.seq_len, c.hidden_size, c.num_heads);
    let tokens = grid.saturating_add(prefix);
    let size =
        BlockSize { tokens, hidden, heads, expansion: c.expansion, mlp_t: c.mlp_t, rope, eps: c.rms_norm_eps, experts };
    size.check()?;

    let mut params = Params::default();
    let embedding = Start::Normal(1.0 / (hidden as f32).sqrt());
    let table = params.add("embed_tokens.embedding_weight", &[c.vocab_size, hidden], Role::Weight, embedding)?;
    let positions = (c.pos_encodings == "learned")
        .then(|| params.add("embed_pos.embedding_weight", &[tokens, hidden], Role::Weight, embedding))
        .transpose()?;
    let mut inputs = vec![Input { name: "inputs".into(), ty: ValueType::index(grid), rows: c.vocab_size }];
    let mut puzzles = None;
    if prefix > 0 {
        let rows = c.num_puzzle_identifiers;
        let start = Start::Constant(0.0);
        puzzles = Some(params.add("puzzle_emb.weights", &[rows, c.puzzle_emb_ndim], Role::PuzzleTable, start)?);
        inputs.push(Input { name: "puzzle_identifiers".into(), ty: ValueType::index(1), rows });
    }
    let blocks = (0..c.num_layers)
        .map(|i| Block::declare(&mut params, &format!("layers.{i}"), size))
        .collect::<Result<Vec<_>, _>>()?;
    let head = params.weight("lm_head.weight", c.vocab_size, hidden)?;

    let mut r = RegionBuilder::new(&params.0, &inputs.iter().map(|i| i.ty).collect::<Vec<_>>());
    let mut x = r.op(Op::Embed { table }, &[r.arg(0)])?;
    if let Some(table) = puzzles {
        let before = r.op(Op::EmbedPrefix { table, positions: prefix, features: hidden }, &[r.arg(1)])?;
        x = r.op(Op::Concat, &[before, x])?;
    }
    let mut scale = (hidden as f32).sqrt();
    if let Some(table) = positions {
        x = r.op(Op::AddPositions { table }, &[x])?;
        scale *= std::f32::consts::FRAC_1_SQRT_2;
    }
    x = r.op(Op::Scale(scale), &[x])?;
    let admit = r.finish(&[x]);

    let mut r = RegionBuilder::new(&params.0, &[ValueType::float(tokens, hidden)]);
    let first = r.arg(0);
    let mut h = blocks.iter().try_fold(first, |h, block| block.apply(&mut r, h))?;
    if prefix > 0 {
        h = r.op(Op::Slice { start: prefix, len: grid }, &[h])?;
    }
    let logits = r.op(Op::Linear { weight: head, bias: None }, &[h])?;
    let step = r.finish(&[logits]);

    Ok(Graph {
        family: if experts.is_some() { Family::Moe } else { Family::Dense },
        inputs,
        params: params.0,
        states: Vec::new(),
        admit,
        step,
        outputs: vec![Output { name: "logits".into(), ty: ValueType::float(grid, c.vocab_size) }],
        halting: Halting::Never,
        max_steps: 1,
    })
}
