//! The plain looped transformer: one shared stack of blocks, applied again and again to one state, with an answer after every step.
//!
//! In: a config with `model_type` `looped`: the encoder's fields, `loops` and `halt_max_steps`. Out: a graph whose step is `loops` passes
//! through the stack. Must not: differ from TRM in embedding, block or heads, so that what the second state and the nested cycles of TRM
//! add can be read off.
//!
//! One step: `loops` times { z ← net(z + x) }, then `logits = z[P..]·headᵀ` and `q = z[0]·q_headᵀ + b`. Source: Dehghani et al., "Universal
//! Transformers", arXiv 1807.03819; input injection in every loop as in Yang et al., "Looped Transformers are Better at Learning Learning
//! Algorithms", arXiv 2311.12424, section 4.

use serde::Deserialize;

use super::{ModelError, ModelFamily, Params, config_error, dense, read_config};
use crate::graph::{Family, Graph, Halting, Init, Output, RegionBuilder, Role, Start, State, ValueType, op};

/// The family.
pub const FAMILY: ModelFamily = ModelFamily {
    name: "looped",
    about: "looped transformer: one shared stack of blocks, one state, arXiv 1807.03819",
    build,
};

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    encoder: dense::EncoderConfig,
    /// Passes through the stack in one step.
    #[serde(default = "one")]
    loops: usize,
    #[serde(default = "sixteen")]
    halt_max_steps: u32,
}

fn one() -> usize {
    1
}
fn sixteen() -> u32 {
    16
}

fn build(config: &serde_json::Value) -> Result<Graph, ModelError> {
    let Config { encoder, loops, halt_max_steps } = read_config(config)?;
    if !(1..=256).contains(&loops) || !(1..=4096).contains(&halt_max_steps) {
        return Err(config_error("`loops` must lie between 1 and 256, and `halt_max_steps` between 1 and 4096"));
    }
    let mut params = Params::default();
    let dense::Body { embedding, size, blocks, head } = encoder.declare(&mut params, None)?;
    let d = size.hidden;
    let q_weight = params.add("q_head.weight", &[2, d], Role::Weight, Start::Constant(0.0))?;
    let q_bias = params.add("q_head.bias", &[2], Role::Weight, Start::Constant(-5.0))?;
    let z_init = params.add("z_init", &[d], Role::Buffer, Start::Normal(1.0))?;

    let value = ValueType::float(size.tokens, d);
    let mut r = RegionBuilder::new(&params.0, &[value; 2]);
    let pass = {
        let mut body = r.body(&[value; 2]);
        let (z, x) = (body.arg(0), body.arg(1));
        let sum = body.op(op::Add, &[z, x])?;
        let z = blocks.iter().try_fold(sum, |h, block| block.apply(&mut body, h))?;
        body.finish(&[z])
    };
    let repeat = op::Repeat { times: loops, carried: 1, body: Box::new(pass), last_gradient_only: false };
    let z = r.op(repeat, &[r.arg(0), r.arg(1)])?;
    let grid = embedding.grid(&mut r, z)?;
    let logits = r.op(op::Linear { weight: head, bias: None }, &[grid])?;
    let first = r.op(op::Slice { start: 0, len: 1 }, &[z])?;
    let q = r.op(op::Linear { weight: q_weight, bias: Some(q_bias) }, &[first])?;
    let step = r.finish(&[z, logits, q]);

    Ok(Graph {
        calls: Vec::new(),
        family: Family::Recursive,
        inputs: embedding.inputs(),
        admit: embedding.admit(&params)?,
        states: vec![State { name: "z".into(), ty: value, init: Init::Vector(z_init) }],
        step,
        outputs: vec![embedding.logits(), Output { name: "q".into(), ty: ValueType::float(1, 2) }],
        params: params.0,
        halting: Halting::Positive,
        max_steps: halt_max_steps,
    })
}
