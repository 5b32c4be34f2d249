//! A graph as text that says what is computed and nothing else, and the hash of it by which two computations are known as one.
//!
//! In: a [`Graph`]. Out: lines of text, the same for the same computation in every version of this program. Must not: depend on how a
//! graph is held in memory, on names, on the order in which a family declares its parameters, or on what is for training alone.
//!
//! ```text
//! ergometer graph 1
//! input index 16 x 1 below 6
//! admit
//!   %1 = embed %0 table=#0[6,64]
//! gives %1
//! state float 16 x 64 starts at #1[64]
//! step
//!   %2 = add %0 %1
//!   ...
//! gives %2 %9 %11
//! output logits float 16 x 6
//! halts where q0 > 0
//! ```
//! Values are numbered within their region, arguments first. Parameters are numbered as they are met, with their shape.
//! Numbers are written as the shortest decimal that is read back as the same f32. A change of this text needs another
//! number in its first line: the hashes of earlier records then stand for another text, and are seen to differ.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::op::{
    AddPositions, Attention, Embed, EmbedPrefix, GatedMlp, LayerNorm, Linear, Mlp, MoeMlp, Repeat, RmsNorm, Scale,
    Slice,
};
use super::{
    Activation, Axis, Graph, Halting, HeadNorms, Init, Kind, Op, Param, ParamId, Region, Rope, Tokens, ValueId,
    ValueType,
};
use crate::files::hex;

/// sha256 of [`text`], hex.
pub fn hash(graph: &Graph) -> String {
    hex(&Sha256::digest(text(graph).as_bytes()))
}

/// See the module.
pub fn text(graph: &Graph) -> String {
    // all of it, so that a new field cannot be forgotten
    let Graph { family: _, inputs, params, states, calls, admit, step, outputs, halting, max_steps: _ } = graph;
    let mut writer = Writer { text: String::from("ergometer graph 1\n"), params, met: Vec::new() };
    for input in inputs {
        writer.line(0, &format!("input {} below {}", ty(&input.ty), input.rows));
    }
    writer.line(0, "admit");
    writer.region(admit, 1);
    for state in states {
        let starts = match state.init {
            Init::Vector(p) => format!("at {}", writer.param(p)),
            Init::Zero => "at zero".into(),
            Init::Empty => "empty".into(),
        };
        writer.line(0, &format!("state {} starts {starts}", ty(&state.ty)));
    }
    writer.line(0, "step");
    for call in calls {
        writer.line(1, &format!("given {} below {}", ty(&call.ty), call.rows));
    }
    writer.region(step, 1);
    for output in outputs {
        writer.line(0, &format!("output {} {}", output.name, ty(&output.ty)));
    }
    let halts = match halting {
        Halting::Never => "never",
        Halting::Positive => "where q0 > 0",
        Halting::OverContinue => "where q0 > q1",
    };
    writer.line(0, &format!("halts {halts}"));
    writer.text
}

struct Writer<'a> {
    text: String,
    params: &'a [Param],
    /// Parameters in the order in which they were met.
    met: Vec<ParamId>,
}

impl Writer<'_> {
    fn line(&mut self, depth: usize, line: &str) {
        let _ = writeln!(self.text, "{:1$}{line}", "", 2 * depth);
    }

    /// `#3[64,128]`
    fn param(&mut self, p: ParamId) -> String {
        let number = self.met.iter().position(|met| *met == p).unwrap_or_else(|| {
            self.met.push(p);
            self.met.len() - 1
        });
        let shape = self.params.get(p.0).map(|param| param.shape.as_slice()).unwrap_or_default();
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        format!("#{number}[{}]", shape.join(","))
    }

    fn optional(&mut self, p: Option<ParamId>) -> String {
        p.map_or("none".into(), |p| self.param(p))
    }

    fn region(&mut self, region: &Region, depth: usize) {
        // the types of values follow from the operators
        let Region { args: _, nodes, types: _, results } = region;
        for node in nodes {
            let op = self.op(&node.op);
            self.line(depth, &format!("%{} = {}{}{op}", node.first.0, node.op.name(), values(&node.inputs)));
            if let Some((body, _)) = node.op.operator().body() {
                self.region(body, depth + 1);
            }
        }
        self.line(depth - 1, &format!("gives{}", values(results)));
    }

    /// What an operator is told beside its values; each field of each operator is named here.
    fn op(&mut self, op: &Op) -> String {
        match op {
            Op::Add(_) | Op::Mul(_) | Op::Concat(_) => String::new(),
            Op::Embed(Embed { table }) => format!(" table={}", self.param(*table)),
            Op::EmbedPrefix(EmbedPrefix { table, positions, features }) => {
                format!(" table={} positions={positions} features={features}", self.param(*table))
            }
            Op::AddPositions(AddPositions { table, cache }) => {
                format!(" table={}{}", self.param(*table), if *cache { " after the cache" } else { "" })
            }
            Op::Slice(Slice { start, len }) => format!(" start={start} len={len}"),
            Op::Scale(Scale(factor)) => format!(" factor={factor}"),
            Op::Linear(Linear { weight, bias }) => {
                format!(" weight={} bias={}", self.param(*weight), self.optional(*bias))
            }
            Op::RmsNorm(RmsNorm { gain, eps, over }) => {
                format!(" gain={} eps={eps} over={}", self.optional(*gain), axis(*over))
            }
            Op::LayerNorm(LayerNorm { gain, bias, eps }) => {
                format!(" gain={} bias={} eps={eps}", self.param(*gain), self.optional(*bias))
            }
            Op::Activate(act) => format!(" {}", activation(*act)),
            Op::GatedMlp(GatedMlp { gate_up, down, act, over }) => {
                let (gate_up, down) = (self.param(*gate_up), self.param(*down));
                format!(" gate_up={gate_up} down={down} act={} over={}", activation(*act), axis(*over))
            }
            Op::Mlp(Mlp { up, up_bias, down, down_bias, act }) => {
                let (up, up_bias) = (self.param(*up), self.optional(*up_bias));
                let (down, down_bias) = (self.param(*down), self.optional(*down_bias));
                format!(" up={up} up_bias={up_bias} down={down} down_bias={down_bias} act={}", activation(*act))
            }
            Op::MoeMlp(MoeMlp { router, gate_up, down, act, top_k }) => {
                let (router, gate_up, down) = (self.param(*router), self.param(*gate_up), self.param(*down));
                format!(" router={router} gate_up={gate_up} down={down} act={} top_k={top_k}", activation(*act))
            }
            Op::Attend(attention) => self.attend(attention),
            Op::Repeat(Repeat { times, carried, body: _, last_gradient_only: _ }) => {
                format!(" times={times} carried={carried}")
            }
        }
    }

    /// What attention of the first graphs did not have is written where it is there alone, so that their hashes stay.
    fn attend(&mut self, a: &Attention) -> String {
        let Attention { heads, kv_heads, head_dim, scale, causal, window, rope, head_norms, soft_cap, cache } = a;
        let base = rope.as_ref().map_or("none".into(), |rope| rope.base.to_string());
        let window = window.map_or("none".into(), |n| n.to_string());
        let cache = if *cache { "yes" } else { "none" };
        let mut text = format!(
            " heads={heads} kv_heads={kv_heads} head_dim={head_dim} scale={scale} causal={causal} window={window} rope={base} cache={cache}"
        );
        if let Some(rope) = rope.as_ref().filter(|r| !r.is_plain()) {
            let Rope { base: _, rotated, frequencies, magnitude, interleaved } = rope;
            text += &format!(
                " rotated={rotated:?} frequencies={frequencies:?} magnitude={magnitude} interleaved={interleaved}"
            );
        }
        if let Some(HeadNorms { q, k, eps }) = head_norms {
            text += &format!(" norms={},{} eps={eps}", self.param(*q), self.param(*k));
        }
        if let Some(cap) = soft_cap {
            text += &format!(" cap={cap}");
        }
        text
    }
}

/// ` %0 %3`
fn values(ids: &[ValueId]) -> String {
    ids.iter().map(|v| format!(" %{}", v.0)).collect()
}

fn ty(ty: &ValueType) -> String {
    let kind = match ty.kind {
        Kind::Float => "float",
        Kind::Index => "index",
    };
    match ty.tokens {
        Tokens::Fixed(n) => format!("{kind} {n} x {}", ty.features),
        Tokens::Length => format!("{kind} length x {}", ty.features),
    }
}

fn axis(axis: Axis) -> &'static str {
    match axis {
        Axis::Features => "features",
        Axis::Tokens => "tokens",
    }
}

fn activation(activation: Activation) -> &'static str {
    match activation {
        Activation::Silu => "silu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::Relu => "relu",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::models::build_graph;

    fn trm() -> Value {
        json!({"model_type": "trm", "seq_len": 16, "vocab_size": 6, "hidden_size": 32, "num_heads": 2, "expansion": 4.0, "H_cycles": 2,
            "L_cycles": 2, "L_layers": 1, "mlp_t": true, "pos_encodings": "none", "puzzle_emb_ndim": 0, "num_puzzle_identifiers": 1, "halt_max_steps": 4})
    }

    fn of(config: &Value) -> Graph {
        build_graph(config).unwrap()
    }

    /// These are in recorded runs: where this fails, the text has changed and its first line must too.
    #[test]
    fn the_hashes_of_known_nets_stay() {
        let encoder = json!({"model_type": "encoder", "seq_len": 16, "vocab_size": 6, "hidden_size": 32, "num_heads": 2, "expansion": 2.0,
            "num_layers": 2, "pos_encodings": "rope"});
        let graph = of(&trm());
        assert_eq!(
            hash(&graph),
            "dbc8a2b7f596ea7e498b7d128a485e7999219ad9e9447d60356ff6144dedb25e",
            "{}",
            text(&graph)
        );
        let graph = of(&encoder);
        assert_eq!(
            hash(&graph),
            "ba4fcc5459ede126b8e46ba0d38b28d98ad13d77df74a392b3c4e289da5b8c6e",
            "{}",
            text(&graph)
        );
    }

    #[test]
    fn what_is_computed_changes_it() {
        let plain = hash(&of(&trm()));
        for (key, value) in [
            ("hidden_size", json!(64)),
            ("vocab_size", json!(7)),
            ("H_cycles", json!(3)),
            ("L_cycles", json!(3)),
            ("L_layers", json!(2)),
            ("mlp_t", json!(false)),
            ("num_heads", json!(4)),
            ("pos_encodings", json!("learned")),
            ("puzzle_emb_ndim", json!(32)),
        ] {
            let mut config = trm();
            config["mlp_t"] = json!(key == "mlp_t");
            let before = hash(&of(&config));
            config[key] = value;
            assert_ne!(hash(&of(&config)), before, "{key}");
        }
        // how far it is to be stepped is a case's depth, and the order of declarations is the family's own
        let mut config = trm();
        config["halt_max_steps"] = json!(16);
        assert_eq!(hash(&of(&config)), plain);
        let mut graph = of(&trm());
        for param in &mut graph.params {
            param.name = format!("net.{}", param.name);
        }
        assert_eq!(hash(&graph), plain);
        graph.halting = Halting::Never;
        assert_ne!(hash(&graph), plain);
    }
}
