//! Causal decoders: one graph for every family, driven by what differs between them.
//!
//! In: a [`DecoderConfig`], as `language` reads it from published configs and GGUF headers. Out: a [`Graph`] with a cache a layer, whose step takes
//! the tokens of the call. Must not: read a tensor, or know which family asks.
//!
//! Parameters have the names of [`ergometer_language::names`], with what is computed together joined: `qkv` holds the rows of queries, keys and values,
//! `gate_up` those of gate and up.

use ergometer_language::DecoderConfig;
use ergometer_language::config::{DecoderActivation, ParallelLayers, RopeConfig, RopeLayout, RopeScaling};

use super::{ModelError, Params};
use crate::graph::{
    Activation, Attention, Axis, Family, Graph, GraphError, Halting, HeadNorms, Init, Input, Kind, Op, Output, ParamId,
    Region, RegionBuilder, Role, Rope, Start, State, Tokens, ValueId, ValueType, op,
};

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
    attention_norm: Norm,
    qkv: op::Linear,
    head_norms: Option<HeadNorms>,
    output: op::Linear,
    attention_post_norm: Option<Norm>,
    /// None where both halves read one norm.
    mlp_norm: Option<Norm>,
    mlp: Op,
    mlp_post_norm: Option<Norm>,
}

/// Declares and builds.
struct Decoder<'a> {
    config: &'a DecoderConfig,
    params: Params,
}

/// The activation of an MLP.
pub fn activation(of: DecoderActivation) -> Activation {
    match of {
        DecoderActivation::Silu => Activation::Silu,
        DecoderActivation::Gelu => Activation::Gelu,
        DecoderActivation::GeluTanh => Activation::GeluTanh,
    }
}

/// How queries and keys of a layer turn, in texts of up to `places` tokens; `divisors` are those of the tensor that a file may have.
///
/// # Errors
/// Divisors are asked for and do not fit.
pub fn rope(config: &RopeConfig, places: usize, divisors: &[f32]) -> Result<Rope, ModelError> {
    let plain = config.scaling == RopeScaling::None;
    let frequencies = config.frequencies(places, divisors).map_err(refused)?;
    Ok(Rope {
        base: config.theta,
        rotated: Some(config.width),
        frequencies: if plain { Vec::new() } else { frequencies },
        magnitude: if let RopeScaling::LongRope { attention, .. } = &config.scaling { *attention } else { 1.0 },
        interleaved: config.layout == RopeLayout::Interleaved,
    })
}

fn refused(message: impl Into<String>) -> ModelError {
    super::config_error(message).hint("no published model of the families that are read has them: check the config")
}

/// The graph of a decoder whose caches hold at most `context` tokens.
///
/// # Errors
/// Sizes that no net can have; biases of gated MLPs and caps of logits, which no family here has.
pub fn graph(config: &DecoderConfig, context: usize, divisors: &[f32]) -> Result<Graph, ModelError> {
    if config.logit_cap.is_some() {
        return Err(refused("caps of logits are not computed"));
    }
    if config.mlp.bias && config.mlp.gated {
        return Err(refused("gated MLPs with biases are not computed"));
    }
    Decoder { config, params: Params::default() }.build(context, divisors)
}

impl Decoder<'_> {
    fn vector(&mut self, name: String, len: usize, start: f32) -> Result<ParamId, ModelError> {
        self.params.add(name, &[len], Role::Weight, Start::Constant(start))
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Norm, ModelError> {
        let gain = self.vector(format!("{name}.weight"), width, 1.0)?;
        let bias = if self.config.norm.centred { Some(self.vector(format!("{name}.bias"), width, 0.0)?) } else { None };
        Ok(Norm { gain, bias, eps: self.config.norm.epsilon })
    }

    fn linear(&mut self, name: &str, out: usize, width: usize, bias: bool) -> Result<op::Linear, ModelError> {
        let weight = self.params.weight(format!("{name}.weight"), out, width)?;
        let bias = if bias { Some(self.vector(format!("{name}.bias"), out, 0.0)?) } else { None };
        Ok(op::Linear { weight, bias })
    }

    fn mlp(&mut self, at: &str) -> Result<Op, ModelError> {
        let (mlp, width) = (&self.config.mlp, self.config.width);
        let (inner, act, bias) = (mlp.inner, activation(mlp.activation), mlp.bias);
        if let Some(experts) = mlp.experts {
            let router = self.params.weight(format!("{at}.router.weight"), experts.count, width)?;
            let mut all = |name: &str, shape: [usize; 3]| {
                let start = Start::Normal(1.0 / (shape[2] as f32).sqrt());
                self.params.add(format!("{at}.experts.{name}.weight"), &shape, Role::Weight, start)
            };
            let gate_up = all("gate_up", [experts.count, 2 * inner, width])?;
            let down = all("down", [experts.count, width, inner])?;
            return Ok(op::MoeMlp { router, gate_up, down, top_k: experts.used, act }.into());
        }
        if mlp.gated {
            let gate_up = self.params.weight(format!("{at}.gate_up.weight"), 2 * inner, width)?;
            let down = self.params.weight(format!("{at}.down.weight"), width, inner)?;
            return Ok(op::GatedMlp { gate_up, down, act, over: Axis::Features }.into());
        }
        let up = self.linear(&format!("{at}.up"), inner, width, bias)?;
        let down = self.linear(&format!("{at}.down"), width, inner, bias)?;
        Ok(op::Mlp { up: up.weight, up_bias: up.bias, down: down.weight, down_bias: down.bias, act }.into())
    }

    fn layer(&mut self, i: usize) -> Result<Layer, ModelError> {
        let (at, c) = (format!("layers.{i}"), self.config);
        let (a, width) = (&c.attention, c.width);
        let post = |d: &mut Self, name: &str| match c.post_norms {
            true => d.norm(&format!("{at}.{name}"), width).map(Some),
            false => Ok(None),
        };
        let rows = c.query_width() + 2 * c.key_value_width();
        Ok(Layer {
            attention_norm: self.norm(&format!("{at}.attention_norm"), width)?,
            qkv: self.linear(&format!("{at}.qkv"), rows, width, a.bias)?,
            head_norms: match a.query_key_norm {
                false => None,
                true => Some(HeadNorms {
                    q: self.vector(format!("{at}.q_norm.weight"), a.head_width, 1.0)?,
                    k: self.vector(format!("{at}.k_norm.weight"), a.head_width, 1.0)?,
                    eps: c.norm.epsilon,
                }),
            },
            output: self.linear(&format!("{at}.attention_output"), width, c.query_width(), a.output_bias)?,
            attention_post_norm: post(self, "attention_post_norm")?,
            mlp_norm: match c.parallel {
                ParallelLayers::OneNorm => None,
                _ => Some(self.norm(&format!("{at}.mlp_norm"), width)?),
            },
            mlp: self.mlp(&at)?,
            mlp_post_norm: post(self, "mlp_post_norm")?,
        })
    }

    fn attention(&self, i: usize, layer: &Layer, context: usize, divisors: &[f32]) -> Result<Attention, ModelError> {
        let (a, of) = (&self.config.attention, &self.config.layers[i]);
        Ok(Attention {
            heads: a.heads,
            kv_heads: a.key_value_heads,
            head_dim: a.head_width,
            scale: a.scale,
            causal: true,
            window: of.window,
            rope: of.rope.as_ref().map(|r| rope(r, context, divisors)).transpose()?,
            head_norms: layer.head_norms,
            soft_cap: a.score_cap,
            cache: true,
        })
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
        let normed = layer.attention_norm.apply(r, x)?;
        let joined = r.op(layer.qkv, &[normed])?;
        let results = r.ops(attention, &[joined, cache])?;
        let mut attended = r.op(layer.output, &[results[0]])?;
        if let Some(norm) = layer.attention_post_norm {
            attended = norm.apply(r, attended)?;
        }
        let between = r.op(op::Add, &[x, attended])?;
        let seen = if self.config.parallel == ParallelLayers::No { between } else { x };
        let normed = match layer.mlp_norm {
            Some(norm) => norm.apply(r, seen)?,
            None => normed,
        };
        let mut computed = r.op(layer.mlp, &[normed])?;
        if let Some(norm) = layer.mlp_post_norm {
            computed = norm.apply(r, computed)?;
        }
        Ok((r.op(op::Add, &[between, computed])?, results[1]))
    }

    fn build(mut self, context: usize, divisors: &[f32]) -> Result<Graph, ModelError> {
        let c = self.config;
        let table = self.params.weight("embedding.weight", c.vocabulary, c.width)?;
        let positions = match c.position_rows {
            Some(rows) => Some(self.params.weight("positions.weight", rows, c.width)?),
            None => None,
        };
        let layers: Vec<Layer> = (0..c.layers.len()).map(|i| self.layer(i)).collect::<Result<_, _>>()?;
        let last = self.norm("norm", c.width)?;
        let head = if c.tied_head { table } else { self.params.weight("head.weight", c.vocabulary, c.width)? };

        let cache = ValueType::float(context, 2 * c.key_value_width());
        let tokens = ValueType { tokens: Tokens::Length, features: 1, kind: Kind::Index };
        let mut args = vec![cache; layers.len()];
        args.push(tokens);
        let mut r = RegionBuilder::new(&self.params.0, &args);
        let given = r.arg(layers.len());
        let mut x = r.op(op::Embed { table }, &[given])?;
        if c.embedding_scale != 1.0 {
            x = r.op(op::Scale(c.embedding_scale), &[x])?;
        }
        if let Some(table) = positions {
            let first = r.arg(0);
            x = r.op(op::AddPositions { table, cache: true }, &[x, first])?;
        }
        let mut results = Vec::with_capacity(layers.len() + 1);
        for (i, layer) in layers.into_iter().enumerate() {
            let attention = self.attention(i, &layer, context, divisors)?;
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
            family: if c.mlp.experts.is_some() { Family::Moe } else { Family::Dense },
            inputs: Vec::new(),
            calls: vec![Input { name: "input_ids".into(), ty: tokens, rows: c.vocabulary }],
            states: (0..c.layers.len()).map(state).collect(),
            admit: Region::default(),
            step,
            outputs: vec![Output { name: "logits".into(), ty: logits_type }],
            params: self.params.0,
            halting: Halting::Never,
            max_steps: 1,
        };
        graph.check()?;
        Ok(graph)
    }
}
