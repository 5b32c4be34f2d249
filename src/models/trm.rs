//! The Tiny Recursive Model, exactly as its released code computes it, and what HRM shares with it.
//!
//! In: a TRM config (field names of the released code). Out: a graph whose step is one supervision step. Must not: round as the released
//! code does on a GPU (it casts to bfloat16); precision is the backend's matter.
//!
//! Source: Jolicoeur-Martineau, "Less is More: Recursive Reasoning with Tiny Networks", arXiv 2510.04871; released code,
//! `models/recursive_reasoning/trm.py`. One supervision step: H times { L times z_L ← net(z_L + z_H + x); z_H ← net(z_H + z_L) }, then
//! `logits = z_H[P..]·headᵀ` and `q = z_H[0]·q_headᵀ + b`.

use serde::Deserialize;

use super::blocks::{Block, BlockSize};
use super::{ModelError, ModelFamily, Params, axis, config_error, read_config};
use crate::graph::{
    Family, Graph, GraphError, Halting, Init, Input, Op, Output, ParamId, Region, RegionBuilder, Role, Start, State,
    ValueId, ValueType,
};

/// The family.
pub const FAMILY: ModelFamily =
    ModelFamily { name: "trm", about: "Tiny Recursive Model (attention or MLP-mixer), arXiv 2510.04871", build };

/// Fields of the released TRM and HRM configs that decide the computation.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Config {
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

impl Config {
    /// Reads and checks the fields.
    pub fn read(config: &serde_json::Value) -> Result<Self, ModelError> {
        let c: Config = read_config(config)?;
        axis("vocab_size", c.vocab_size)?;
        for (name, value) in [("H_cycles", c.h_cycles), ("L_cycles", c.l_cycles), ("L_layers", c.l_layers)] {
            if !(1..=256).contains(&value) {
                return Err(config_error(format!("`{name}` is {value}; it must lie between 1 and 256")));
            }
        }
        if c.h_layers > 256 || !(1..=4096).contains(&c.halt_max_steps) {
            return Err(config_error("`H_layers` must be at most 256 and `halt_max_steps` between 1 and 4096"));
        }
        if !["rope", "learned", "none"].contains(&c.pos_encodings.as_str()) {
            return Err(config_error(format!("`pos_encodings` is `{}`; known: rope, learned, none", c.pos_encodings)));
        }
        if c.puzzle_emb_ndim > 0 {
            axis("puzzle_emb_ndim", c.puzzle_emb_ndim)?;
            axis("num_puzzle_identifiers", c.num_puzzle_identifiers)?;
        }
        c.size().check()?;
        Ok(c)
    }

    /// Tokens that the puzzle embedding puts before the grid: `puzzle_emb_len`, or as many as its features fill.
    pub fn prefix(&self) -> usize {
        match (self.puzzle_emb_ndim, self.puzzle_emb_len) {
            (0, _) => 0,
            (features, 0) => features.div_ceil(self.hidden_size.max(1)),
            (_, len) => len,
        }
    }

    /// Sizes of the blocks.
    pub fn size(&self) -> BlockSize {
        BlockSize {
            tokens: self.seq_len.saturating_add(self.prefix()),
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

/// Parameters outside the blocks.
struct Frame {
    tokens: ParamId,
    positions: Option<ParamId>,
    puzzles: Option<ParamId>,
    head: ParamId,
    q_weight: ParamId,
    q_bias: ParamId,
    h_init: ParamId,
    l_init: ParamId,
}

fn build(config: &serde_json::Value) -> Result<Graph, ModelError> {
    let config = Config::read(config)?;
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
    c: &Config,
    mut params: Params,
    l_net: &[Block],
    h_net: &[Block],
    halting: Halting,
) -> Result<Graph, ModelError> {
    let (d, s, t) = (c.hidden_size, c.seq_len, c.size().tokens);
    let embedding = Start::Normal(1.0 / (d as f32).sqrt());
    let frame = Frame {
        tokens: params.add("embed_tokens.embedding_weight", &[c.vocab_size, d], Role::Weight, embedding)?,
        positions: (c.pos_encodings == "learned")
            .then(|| params.add("embed_pos.embedding_weight", &[t, d], Role::Weight, embedding))
            .transpose()?,
        puzzles: (c.prefix() > 0)
            .then(|| {
                let shape = [c.num_puzzle_identifiers, c.puzzle_emb_ndim];
                params.add("puzzle_emb.weights", &shape, Role::PuzzleTable, Start::Constant(0.0))
            })
            .transpose()?,
        head: params.weight("lm_head.weight", c.vocab_size, d)?,
        q_weight: params.add("q_head.weight", &[2, d], Role::Weight, Start::Constant(0.0))?,
        q_bias: params.add("q_head.bias", &[2], Role::Weight, Start::Constant(-5.0))?,
        h_init: params.add("H_init", &[d], Role::Buffer, Start::Normal(1.0))?,
        l_init: params.add("L_init", &[d], Role::Buffer, Start::Normal(1.0))?,
    };
    let mut inputs = vec![Input { name: "inputs".into(), ty: ValueType::index(s), rows: c.vocab_size }];
    if frame.puzzles.is_some() {
        inputs.push(Input {
            name: "puzzle_identifiers".into(),
            ty: ValueType::index(1),
            rows: c.num_puzzle_identifiers,
        });
    }
    let state = |name: &str, init| State { name: name.into(), ty: ValueType::float(t, d), init: Init::Vector(init) };
    let states = vec![state("z_H", frame.h_init), state("z_L", frame.l_init)];
    let outputs = vec![
        Output { name: "logits".into(), ty: ValueType::float(s, c.vocab_size) },
        Output { name: "q".into(), ty: ValueType::float(1, 2) },
    ];
    let admit = admit_region(c, &params, &inputs, &frame)?;
    let step = step_region(c, &params, &frame, l_net, h_net)?;
    let max_steps = c.halt_max_steps;
    Ok(Graph { family: Family::Recursive, inputs, params: params.0, states, admit, step, outputs, halting, max_steps })
}

/// x = sqrt(D) · concat(puzzle positions, token embeddings), with learned positions added at 1/sqrt(2) where the config asks.
fn admit_region(c: &Config, params: &Params, inputs: &[Input], frame: &Frame) -> Result<Region, GraphError> {
    let mut r = RegionBuilder::new(&params.0, &inputs.iter().map(|i| i.ty).collect::<Vec<_>>());
    let mut x = r.op(Op::Embed { table: frame.tokens }, &[r.arg(0)])?;
    if let Some(table) = frame.puzzles {
        let prefix = r.op(Op::EmbedPrefix { table, positions: c.prefix(), features: c.hidden_size }, &[r.arg(1)])?;
        x = r.op(Op::Concat, &[prefix, x])?;
    }
    let mut scale = (c.hidden_size as f32).sqrt();
    if let Some(table) = frame.positions {
        x = r.op(Op::AddPositions { table }, &[x])?;
        scale *= std::f32::consts::FRAC_1_SQRT_2;
    }
    x = r.op(Op::Scale(scale), &[x])?;
    Ok(r.finish(&[x]))
}

/// Arguments z_H, z_L, x; results z_H, z_L, logits, q.
fn step_region(
    c: &Config,
    params: &Params,
    frame: &Frame,
    l_net: &[Block],
    h_net: &[Block],
) -> Result<Region, GraphError> {
    let value = ValueType::float(c.size().tokens, c.hidden_size);
    let apply = |r: &mut RegionBuilder, net: &[Block], z: ValueId, injected: ValueId| {
        let sum = r.op(Op::Add, &[z, injected])?;
        net.iter().try_fold(sum, |h, block| block.apply(r, h))
    };
    let mut r = RegionBuilder::new(&params.0, &[value; 3]);
    let cycle = {
        let mut outer = r.body(&[value; 3]);
        let (z_h, z_l, x) = (outer.arg(0), outer.arg(1), outer.arg(2));
        let injected = outer.op(Op::Add, &[z_h, x])?;
        let inner = {
            let mut inner = outer.body(&[value; 2]);
            let (z, injected) = (inner.arg(0), inner.arg(1));
            let z = apply(&mut inner, l_net, z, injected)?;
            inner.finish(&[z])
        };
        let repeat = Op::Repeat { times: c.l_cycles, carried: 1, body: Box::new(inner), last_gradient_only: false };
        let z_l = outer.op(repeat, &[z_l, injected])?;
        let z_h = apply(&mut outer, h_net, z_h, z_l)?;
        outer.finish(&[z_h, z_l])
    };
    let repeat = Op::Repeat { times: c.h_cycles, carried: 2, body: Box::new(cycle), last_gradient_only: true };
    let states = r.ops(repeat, &[r.arg(0), r.arg(1), r.arg(2)])?;
    let grid = r.op(Op::Slice { start: c.prefix(), len: c.seq_len }, &[states[0]])?;
    let logits = r.op(Op::Linear { weight: frame.head, bias: None }, &[grid])?;
    let first = r.op(Op::Slice { start: 0, len: 1 }, &[states[0]])?;
    let q = r.op(Op::Linear { weight: frame.q_weight, bias: Some(frame.q_bias) }, &[first])?;
    Ok(r.finish(&[states[0], states[1], logits, q]))
}
