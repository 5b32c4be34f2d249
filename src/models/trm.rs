//! The Tiny Recursive Model, exactly as its released code computes it, and what HRM shares with it.
//!
//! In: a TRM config (field names of the released code). Out: a graph whose step is one supervision step. Must not: round as the released
//! code does on a GPU (it casts to bfloat16); precision is the backend's matter.
//!
//! Source: Jolicoeur-Martineau, "Less is More: Recursive Reasoning with Tiny Networks", arXiv 2510.04871; released code,
//! `models/recursive_reasoning/trm.py`. One supervision step: H times { L times z_L ← net(z_L + z_H + x); z_H ← net(z_H + z_L) }, then
//! `logits = z_H[P..]·headᵀ` and `q = z_H[0]·q_headᵀ + b`.
//!
//! In the graph a step is `repeat H_cycles { z_L = repeat L_cycles { net(z_L + n) }; z_H = net(z_H + z_L) }` with `n =
//! z_H + x` computed once a round.

use serde::Deserialize;

use super::blocks::{Block, BlockSize};
use super::embedding::{Embedding, EmbeddingSize, learned};
use super::{ModelError, ModelFamily, Params, config_error, read_config};
use crate::graph::{
    Family, Graph, GraphError, Halting, Init, Output, ParamId, Region, RegionBuilder, Role, Start, State, ValueId,
    ValueType, op,
};

/// The family.
pub const FAMILY: ModelFamily =
    ModelFamily { name: "trm", about: "Tiny Recursive Model (attention or MLP-mixer), arXiv 2510.04871", build };

/// Fields of the released TRM and HRM configs that decide the computation.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TrmConfig {
    pub seq_len: usize,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_heads: usize,
    pub expansion: f64,
    #[serde(rename = "H_cycles")]
    pub h_cycles: usize,
    #[serde(rename = "L_cycles")]
    pub l_cycles: usize,
    #[serde(rename = "H_layers", default)]
    pub h_layers: usize,
    #[serde(rename = "L_layers")]
    pub l_layers: usize,
    #[serde(default)]
    pub mlp_t: bool,
    #[serde(default = "rope_name")]
    pub pos_encodings: String,
    #[serde(default)]
    pub puzzle_emb_ndim: usize,
    #[serde(default)]
    pub puzzle_emb_len: usize,
    #[serde(default)]
    pub num_puzzle_identifiers: usize,
    #[serde(default = "sixteen")]
    pub halt_max_steps: u32,
    #[serde(default = "ten_thousand")]
    pub rope_theta: f32,
    #[serde(default = "small")]
    pub rms_norm_eps: f32,
}

fn rope_name() -> String {
    "rope".into()
}
fn sixteen() -> u32 {
    16
}
fn ten_thousand() -> f32 {
    10_000.0
}
fn small() -> f32 {
    1e-5
}

impl TrmConfig {
    /// Reads and checks the fields.
    pub fn read(config: &serde_json::Value) -> Result<Self, ModelError> {
        let c: TrmConfig = read_config(config)?;
        for (name, value) in [("H_cycles", c.h_cycles), ("L_cycles", c.l_cycles), ("L_layers", c.l_layers)] {
            if !(1..=256).contains(&value) {
                return Err(config_error(format!("`{name}` is {value}; it must lie between 1 and 256")));
            }
        }
        if c.h_layers > 256 || !(1..=4096).contains(&c.halt_max_steps) {
            return Err(config_error("`H_layers` must be at most 256 and `halt_max_steps` between 1 and 4096"));
        }
        learned(&c.pos_encodings)?;
        c.embedding().check()?;
        c.size().check()?;
        Ok(c)
    }

    /// Sizes of the embedding.
    pub fn embedding(&self) -> EmbeddingSize {
        EmbeddingSize {
            vocab: self.vocab_size,
            hidden: self.hidden_size,
            grid: self.seq_len,
            learned: self.pos_encodings == "learned",
            puzzle_features: self.puzzle_emb_ndim,
            puzzle_len: self.puzzle_emb_len,
            puzzles: self.num_puzzle_identifiers,
        }
    }

    /// Sizes of the blocks.
    pub fn size(&self) -> BlockSize {
        BlockSize {
            tokens: self.embedding().tokens(),
            hidden: self.hidden_size,
            heads: self.num_heads,
            expansion: self.expansion,
            mlp_t: self.mlp_t,
            rope: (self.pos_encodings == "rope").then_some(self.rope_theta),
            eps: self.rms_norm_eps,
            experts: None,
        }
    }
}

/// Parameters outside embedding and blocks.
struct Frame {
    head: ParamId,
    q_weight: ParamId,
    q_bias: ParamId,
    h_init: ParamId,
    l_init: ParamId,
}

fn build(config: &serde_json::Value) -> Result<Graph, ModelError> {
    let config = TrmConfig::read(config)?;
    let mut params = Params::default();
    let net = declare_net(&mut params, "L_level", config.l_layers, config.size())?;
    recursive_graph(&config, params, &net, &net, Halting::Positive)
}

/// Declares the blocks of one net.
pub(crate) fn declare_net(
    params: &mut Params,
    name: &str,
    layers: usize,
    size: BlockSize,
) -> Result<Vec<Block>, ModelError> {
    (0..layers).map(|i| Block::declare(params, &format!("{name}.layers.{i}"), size)).collect()
}

/// The graph of a two-state recursive net; TRM gives the same net twice, HRM two.
pub(crate) fn recursive_graph(
    c: &TrmConfig,
    mut params: Params,
    l_net: &[Block],
    h_net: &[Block],
    halting: Halting,
) -> Result<Graph, ModelError> {
    let (d, t) = (c.hidden_size, c.size().tokens);
    let embedding = Embedding::declare(&mut params, c.embedding())?;
    let frame = Frame {
        head: params.weight("lm_head.weight", c.vocab_size, d)?,
        q_weight: params.add("q_head.weight", &[2, d], Role::Weight, Start::Constant(0.0))?,
        q_bias: params.add("q_head.bias", &[2], Role::Weight, Start::Constant(-5.0))?,
        h_init: params.add("H_init", &[d], Role::Buffer, Start::Normal(1.0))?,
        l_init: params.add("L_init", &[d], Role::Buffer, Start::Normal(1.0))?,
    };
    let state = |name: &str, init| State { name: name.into(), ty: ValueType::float(t, d), init: Init::Vector(init) };
    let states = vec![state("z_H", frame.h_init), state("z_L", frame.l_init)];
    Ok(Graph {
        calls: Vec::new(),
        family: Family::Recursive,
        inputs: embedding.inputs(),
        admit: embedding.admit(&params)?,
        step: step_region(c, &params, &embedding, &frame, l_net, h_net)?,
        params: params.0,
        states,
        outputs: vec![embedding.logits(), Output { name: "q".into(), ty: ValueType::float(1, 2) }],
        halting,
        max_steps: c.halt_max_steps,
    })
}

/// Arguments z_H, z_L, x; results z_H, z_L, logits, q.
fn step_region(
    c: &TrmConfig,
    params: &Params,
    embedding: &Embedding,
    frame: &Frame,
    l_net: &[Block],
    h_net: &[Block],
) -> Result<Region, GraphError> {
    let value = ValueType::float(c.size().tokens, c.hidden_size);
    let apply = |r: &mut RegionBuilder, net: &[Block], z: ValueId, injected: ValueId| {
        let sum = r.op(op::Add, &[z, injected])?;
        net.iter().try_fold(sum, |h, block| block.apply(r, h))
    };
    let mut r = RegionBuilder::new(&params.0, &[value; 3]);
    let cycle = {
        let mut outer = r.body(&[value; 3]);
        let (z_h, z_l, x) = (outer.arg(0), outer.arg(1), outer.arg(2));
        let injected = outer.op(op::Add, &[z_h, x])?;
        let inner = {
            let mut inner = outer.body(&[value; 2]);
            let (z, injected) = (inner.arg(0), inner.arg(1));
            let z = apply(&mut inner, l_net, z, injected)?;
            inner.finish(&[z])
        };
        let repeat = op::Repeat { times: c.l_cycles, carried: 1, body: Box::new(inner), last_gradient_only: false };
        let z_l = outer.op(repeat, &[z_l, injected])?;
        let z_h = apply(&mut outer, h_net, z_h, z_l)?;
        outer.finish(&[z_h, z_l])
    };
    let repeat = op::Repeat { times: c.h_cycles, carried: 2, body: Box::new(cycle), last_gradient_only: true };
    let states = r.ops(repeat, &[r.arg(0), r.arg(1), r.arg(2)])?;
    let grid = embedding.grid(&mut r, states[0])?;
    let logits = r.op(op::Linear { weight: frame.head, bias: None }, &[grid])?;
    let first = r.op(op::Slice { start: 0, len: 1 }, &[states[0]])?;
    let q = r.op(op::Linear { weight: frame.q_weight, bias: Some(frame.q_bias) }, &[first])?;
    Ok(r.finish(&[states[0], states[1], logits, q]))
}
