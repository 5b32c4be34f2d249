//! A one-shot transformer encoder over the same tokens: the "direct prediction" control for recursive nets.
//!
//! In: a config with `model_type` `encoder`. Out: a graph without states whose one step gives logits. Must not: differ from the recursive
//! nets in anything but recursion: embedding, block and head are theirs (arXiv 2510.04871, table 1, "direct prediction").

use serde::Deserialize;

use super::blocks::{Block, BlockSize};
use super::{ModelError, ModelFamily, Params, axis, config_error, read_config};
use crate::graph::{Family, Graph, Halting, Input, Op, Output, RegionBuilder, Role, Start, ValueType};

/// The family.
pub const FAMILY: ModelFamily =
    ModelFamily { name: "encoder", about: "one-shot transformer encoder, the direct-prediction control", build };

#[derive(Deserialize)]
struct Config {
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
}

fn ten_thousand() -> f32 {
    10_000.0
}
fn small() -> f32 {
    1e-5
}

fn build(config: &serde_json::Value) -> Result<Graph, ModelError> {
    let c: Config = read_config(config)?;
    axis("vocab_size", c.vocab_size)?;
    if !(1..=1024).contains(&c.num_layers) {
        return Err(config_error(format!("`num_layers` is {}; it must lie between 1 and 1024", c.num_layers)));
    }
    if !["rope", "learned", "none"].contains(&c.pos_encodings.as_str()) {
        return Err(config_error(format!("`pos_encodings` is `{}`; known: rope, learned, none", c.pos_encodings)));
    }
    let rope = (c.pos_encodings == "rope").then_some(c.rope_theta);
    let (tokens, hidden, heads) = (c.seq_len, c.hidden_size, c.num_heads);
    let size = BlockSize { tokens, hidden, heads, expansion: c.expansion, mlp_t: c.mlp_t, rope, eps: c.rms_norm_eps };
    size.check()?;

    let mut params = Params::default();
    let embedding = Start::Normal(1.0 / (hidden as f32).sqrt());
    let table = params.add("embed_tokens.embedding_weight", &[c.vocab_size, hidden], Role::Weight, embedding)?;
    let positions = (c.pos_encodings == "learned")
        .then(|| params.add("embed_pos.embedding_weight", &[tokens, hidden], Role::Weight, embedding))
        .transpose()?;
    let blocks = (0..c.num_layers)
        .map(|i| Block::declare(&mut params, &format!("layers.{i}"), size))
        .collect::<Result<Vec<_>, _>>()?;
    let head = params.weight("lm_head.weight", c.vocab_size, hidden)?;

    let input = ValueType::index(tokens);
    let mut r = RegionBuilder::new(&params.0, &[input]);
    let mut x = r.op(Op::Embed { table }, &[r.arg(0)])?;
    let mut scale = (hidden as f32).sqrt();
    if let Some(table) = positions {
        x = r.op(Op::AddPositions { table }, &[x])?;
        scale *= std::f32::consts::FRAC_1_SQRT_2;
    }
    x = r.op(Op::Scale(scale), &[x])?;
    let admit = r.finish(&[x]);

    let mut r = RegionBuilder::new(&params.0, &[ValueType::float(tokens, hidden)]);
    let first = r.arg(0);
    let h = blocks.iter().try_fold(first, |h, block| block.apply(&mut r, h))?;
    let logits = r.op(Op::Linear { weight: head, bias: None }, &[h])?;
    let step = r.finish(&[logits]);

    Ok(Graph {
        family: Family::Dense,
        inputs: vec![Input { name: "inputs".into(), ty: input, rows: c.vocab_size }],
        params: params.0,
        states: Vec::new(),
        admit,
        step,
        outputs: vec![Output { name: "logits".into(), ty: ValueType::float(tokens, c.vocab_size) }],
        halting: Halting::Never,
        max_steps: 1,
    })
}
