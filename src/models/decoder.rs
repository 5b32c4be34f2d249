//! Causal decoders: one graph for every family, driven by what differs between them.
//!
//! In: a [`DecoderShape`], which readers of published configs and GGUF headers make. Out: a [`Graph`] with a cache a layer, whose step takes the
//! tokens of the call. Must not: read a file, or know which family asks.
//!
//! Parameters have the names of GGUF, with what is computed together joined: `attn_qkv` holds the rows of queries, keys and values, `ffn_gate_up` those
//! of gate and up, `ffn_gate_up_exps` and `ffn_down_exps` those of all experts.

use super::{ModelError, Params};
use crate::graph::{
    Activation, Attention, Axis, Family, Graph, GraphError, Halting, HeadNorms, Init, Input, Kind, Output, ParamId, Region,
    RegionBuilder, Role, Rope, Start, State, Tokens, ValueId, ValueType, op,
};

/// How vectors are normed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// By the root of the mean square, with a gain.
    Rms,
    /// By mean and variance, with gain and bias.
    Layer,
}

/// In which order a layer norms, computes and adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerOrder {
    /// `x + attn(norm(x))`, then `x + mlp(norm(x))`.
    Sequential,
    /// The same with a norm of what is added, too (Gemma 3).
    Sandwich,
    /// `x + attn(norm(x)) + mlp(norm'(x))` (Falcon).
    Parallel,
}

/// The second half of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MlpShape {
    /// Gate and up, then down.
    Gated {
        /// Inner features.
        inner: usize,
    },
    /// Up, then down.
    Plain {
        /// Inner features.
        inner: usize,
        /// Both have biases.
        biases: bool,
    },
    /// Gated experts, of which a router chooses some.
    Experts {
        /// Inner features of each.
        inner: usize,
        /// How many there are.
        experts: usize,
        /// How many a token goes to.
        chosen: usize,
    },
}

/// What differs between the layers of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerShape {
    /// A token sees so many tokens, itself included; all before it if none.
    pub window: Option<usize>,
    /// How queries and keys turn.
    pub rope: Option<Rope>,
}

/// Everything that decides what a decoder computes but its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderShape {
    /// Tokens that it knows.
    pub vocabulary: usize,
    /// Features of a token.
    pub hidden: usize,
    /// Most tokens of a sequence.
    pub context: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Factor on q·k.
    pub attention_scale: f32,
    /// Queries and keys are normed head by head.
    pub head_norms: bool,
    /// Cap of attention scores.
    pub soft_cap: Option<f32>,
    /// Queries, keys and values have biases.
    pub qkv_bias: bool,
    /// What attention is projected by has a bias.
    pub output_bias: bool,
    /// The layers.
    pub layers: Vec<LayerShape>,
    /// Their order.
    pub order: LayerOrder,
    /// Their norms, and the last one.
    pub norm: NormKind,
    /// Added to a norm's mean.
    pub eps: f32,
    /// Their MLP.
    pub mlp: MlpShape,
    /// Its activation.
    pub activation: Activation,
    /// Factor on embeddings; 1 else.
    pub embedding_scale: f32,
    /// Positions are learned.
    pub learned_positions: bool,
    /// The head is the embedding's table.
    pub tied: bool,
}

/// Declared parameters of a norm.
#[derive(Clone, Copy)]
struct Norm {
    gain: ParamId,
    bias: Option<ParamId>,
    eps: f32,
}

impl Norm {
    fn apply(self, r: &mut RegionBuilder, x: ValueId) -> Result<ValueId, GraphError> {
        let Self { gain, bias, eps } = self;
        match bias {
            Some(bias) => r.op(op::LayerNorm { gain, bias: Some(bias), eps }, &[x]),
            None => r.op(op::RmsNorm { gain: Some(gain), eps, over: Axis::Features }, &[x]),
        }
    }
}

/// Declared parameters of a layer.
struct Layer {
    attn_norm: Norm,
    qkv: op::Linear,
    head_norms: Option<HeadNorms>,
    output: op::Linear,
    after_attn: Option<Norm>,
    ffn_norm: Norm,
    mlp: op::Op,
    after_ffn: Option<Norm>,
}

impl DecoderShape {
    fn norm(&self, params: &mut Params, name: &str, width: usize) -> Result<Norm, ModelError> {
        let gain = params.add(format!("{name}.weight"), &[width], Role::Weight, Start::Constant(1.0))?;
        let bias = match self.norm {
            NormKind::Rms => None,
            NormKind::Layer => {
                Some(params.add(format!("{name}.bias"), &[width], Role::Weight, Start::Constant(0.0))?)
            }
        };
        Ok(Norm { gain, bias, eps: self.eps })
    }

    fn linear(
        &self,
        params: &mut Params,
        name: &str,
        out: usize,
        width: usize,
        bias: bool,
    ) -> Result<op::Linear, ModelError> {
        let weight = params.weight(&format!("{name}.weight"), out, width)?;
        let bias = match bias {
            true => Some(params.add(format!("{name}.bias"), &[out], Role::Weight, Start::Constant(0.0))?),
            false => None,
        };
        Ok(op::Linear { weight, bias })
    }

    fn mlp(&self, params: &mut Params, at: &str) -> Result<op::Op, ModelError> {
        let (hidden, act) = (self.hidden, self.activation);
        Ok(match self.mlp {
            MlpShape::Gated { inner } => {
                let gate_up = params.weight(&format!("{at}.ffn_gate_up.weight"), 2 * inner, hidden)?;
                let down = params.weight(&format!("{at}.ffn_down.weight"), hidden, inner)?;
                op::GatedMlp { gate_up, down, act, over: Axis::Features }.into()
            }
            MlpShape::Plain { inner, biases } => {
                let up = self.linear(params, &format!("{at}.ffn_up"), inner, hidden, biases)?;
                let down = self.linear(params, &format!("{at}.ffn_down"), hidden, inner, biases)?;
                op::Mlp { up: up.weight, up_bias: up.bias, down: down.weight, down_bias: down.bias, act }.into()
            }
            MlpShape::Experts { inner, experts, chosen } => {
                let router = params.weight(&format!("{at}.ffn_gate_inp.weight"), experts, hidden)?;
                let std = 1.0 / (hidden as f32).sqrt();
                let shape = [experts, 2 * inner, hidden];
                let gate_up =
                    params.add(format!("{at}.ffn_gate_up_exps.weight"), &shape, Role::Weight, Start::Normal(std))?;
                let std = 1.0 / (inner as f32).sqrt();
                let shape = [experts, hidden, inner];
                let down = params.add(format!("{at}.ffn_down_exps.weight"), &shape, Role::Weight, Start::Normal(std))?;
                op::MoeMlp { router, gate_up, down, top_k: chosen, act }.into()
            }
        })
    }

    fn layer(&self, params: &mut Params, i: usize) -> Result<Layer, ModelError> {
        let (at, hidden, d) = (format!("blk.{i}"), self.hidden, self.head_dim);
        let rows = (self.heads + 2 * self.kv_heads) * d;
        let sandwich = self.order == LayerOrder::Sandwich;
        let after = |params: &mut Params, name: &str| match sandwich {
            true => self.norm(params, &format!("{at}.{name}"), hidden).map(Some),
            false => Ok(None),
        };
        Ok(Layer {
            attn_norm: self.norm(params, &format!("{at}.attn_norm"), hidden)?,
            qkv: self.linear(params, &format!("{at}.attn_qkv"), rows, hidden, self.qkv_bias)?,
            head_norms: match self.head_norms {
                false => None,
                true => {
                    let mut gain = |name: &str| {
                        params.add(format!("{at}.{name}.weight"), &[d], Role::Weight, Start::Constant(1.0))
                    };
                    Some(HeadNorms { q: gain("attn_q_norm")?, k: gain("attn_k_norm")?, eps: self.eps })
                }
            },
            output: self.linear(params, &format!("{at}.attn_output"), hidden, self.heads * d, self.output_bias)?,
            after_attn: after(params, "post_attention_norm")?,
            ffn_norm: self.norm(params, &format!("{at}.ffn_norm"), hidden)?,
            mlp: self.mlp(params, &at)?,
            after_ffn: after(params, "post_ffw_norm")?,
        })
    }

    fn attention(&self, shape: &LayerShape, head_norms: Option<HeadNorms>) -> Attention {
        Attention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: self.attention_scale,
            causal: true,
            window: shape.window,
            rope: shape.rope.clone(),
            head_norms,
            soft_cap: self.soft_cap,
            cache: true,
        }
    }

    /// Adds a layer; gives what comes out of it, and its cache.
    fn apply(
        &self,
        r: &mut RegionBuilder,
        layer: Layer,
        attention: Attention,
        x: ValueId,
        cache: ValueId,
    ) -> Result<(ValueId, ValueId), GraphError> {
        let normed = layer.attn_norm.apply(r, x)?;
        let joined = r.op(layer.qkv, &[normed])?;
        let results = r.ops(attention, &[joined, cache])?;
        let mut attended = r.op(layer.output, &[results[0]])?;
        if let Some(norm) = layer.after_attn {
            attended = norm.apply(r, attended)?;
        }
        let between = r.op(op::Add, &[x, attended])?;
        let seen = if self.order == LayerOrder::Parallel { x } else { between };
        let normed = layer.ffn_norm.apply(r, seen)?;
        let mut computed = r.op(layer.mlp, &[normed])?;
        if let Some(norm) = layer.after_ffn {
            computed = norm.apply(r, computed)?;
        }
        Ok((r.op(op::Add, &[between, computed])?, results[1]))
    }

    /// The graph.
    ///
    /// # Errors
    /// Sizes that no net can have.
    pub fn graph(&self) -> Result<Graph, ModelError> {
        let mut params = Params::default();
        let table = params.weight("token_embd.weight", self.vocabulary, self.hidden)?;
        let positions = match self.learned_positions {
            true => Some(params.weight("position_embd.weight", self.context, self.hidden)?),
            false => None,
        };
        let layers: Vec<Layer> =
            (0..self.layers.len()).map(|i| self.layer(&mut params, i)).collect::<Result<_, _>>()?;
        let last = self.norm(&mut params, "output_norm", self.hidden)?;
        let head = if self.tied { table } else { params.weight("output.weight", self.vocabulary, self.hidden)? };

        let cache = ValueType::float(self.context, 2 * self.kv_heads * self.head_dim);
        let tokens = ValueType { tokens: Tokens::Length, features: 1, kind: Kind::Index };
        let mut args = vec![cache; layers.len()];
        args.push(tokens);
        let mut r = RegionBuilder::new(&params.0, &args);
        let given = r.arg(layers.len());
        let mut x = r.op(op::Embed { table }, &[given])?;
        if self.embedding_scale != 1.0 {
            x = r.op(op::Scale(self.embedding_scale), &[x])?;
        }
        if let Some(table) = positions {
            let first = r.arg(0);
            x = r.op(op::AddPositions { table, cache: true }, &[x, first])?;
        }
        let mut results = Vec::with_capacity(layers.len() + 1);
        for (i, (layer, shape)) in layers.into_iter().zip(&self.layers).enumerate() {
            let attention = self.attention(shape, layer.head_norms);
            let cache = r.arg(i);
            let (next, cache) = self.apply(&mut r, layer, attention, x, cache)?;
            x = next;
            results.push(cache);
        }
        let normed = last.apply(&mut r, x)?;
        let logits = r.op(op::Linear { weight: head, bias: None }, &[normed])?;
        let logits_type = r.ty(logits);
        results.push(logits);
        let step = r.finish(&results);
        let state = |i: usize| State { name: format!("cache.{i}"), ty: cache, init: Init::Empty };
        let graph = Graph {
            family: if matches!(self.mlp, MlpShape::Experts { .. }) { Family::Moe } else { Family::Dense },
            inputs: Vec::new(),
            calls: vec![Input { name: "input_ids".into(), ty: tokens, rows: self.vocabulary }],
            states: (0..self.layers.len()).map(state).collect(),
            admit: Region::default(),
            step,
            outputs: vec![Output { name: "logits".into(), ty: logits_type }],
            params: params.0,
            halting: Halting::Never,
            max_steps: 1,
        };
        graph.check()?;
        Ok(graph)
    }
}
