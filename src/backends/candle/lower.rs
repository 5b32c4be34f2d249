//! Lowers a graph's regions to candle tensor calls, for inference and for training alike.
//!
//! In: a [`Graph`], its parameters as tensors, values as tensors `[batch, tokens, features]` (indices: u32 `[batch, tokens]`). Out: the
//! region's results. Must not: keep state or know an engine. If the parameters are variables, candle records the way for its gradients;
//! a repeat whose last iteration only is differentiated runs the others on detached tensors, so that they record nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{D, Device, Result, Tensor};

use super::ops::{FusedRmsNorm, JoinHeads, Rotations, SiluGate, Softmax, SplitHeads};
use crate::graph::{Activation, Attention, Axis, Graph, Kind, Op, Region, Tokens, op};

/// A graph with the tables that do not change between calls.
pub struct Lowering {
    graph: Graph,
    /// Rotations by tokens, head size and bits of the base.
    turns: HashMap<(usize, usize, u32), Arc<Rotations>>,
    /// `[tokens, tokens]`, 0 where a query sees a key and −inf elsewhere, by tokens, causal, window.
    masks: HashMap<(usize, bool, Option<usize>), Tensor>,
    /// What mixtures of experts see, while somebody wants it.
    seen: RefCell<Option<Vec<MixtureRun>>>,
}

/// One run of a mixture of experts.
pub struct MixtureRun {
    /// Scores `[tokens of all rows, experts]`, with their way back to the router.
    pub scores: Tensor,
    /// The same as numbers.
    pub values: Vec<f32>,
    /// Experts of a token.
    pub top_k: usize,
}

impl Lowering {
    /// Errors: the name of an operator, or of a property of the graph, that is not lowered.
    pub fn new(graph: &Graph) -> std::result::Result<Self, String> {
        let mut lowering =
            Self { graph: graph.clone(), turns: HashMap::new(), masks: HashMap::new(), seen: RefCell::new(None) };
        lowering.prepare(&graph.admit)?;
        lowering.prepare(&graph.step)?;
        Ok(lowering)
    }

    /// Of a decoder, whose attention and positions its engine computes: [`apply`](Self::apply) does the rest.
    pub(super) fn without_tables(graph: &Graph) -> Self {
        Self { graph: graph.clone(), turns: HashMap::new(), masks: HashMap::new(), seen: RefCell::new(None) }
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The same, to be changed where no table depends on it.
    pub(super) fn graph_mut(&mut self) -> &mut Graph {
        &mut self.graph
    }

    fn prepare(&mut self, region: &Region) -> std::result::Result<(), String> {
        for ty in &region.types {
            if ty.tokens == Tokens::Length {
                return Err("an input of open length".into());
            }
        }
        for node in &region.nodes {
            match &node.op {
                Op::Attend(a) if a.beyond_plain().is_some() => return Err(a.beyond_plain().unwrap_or_default().into()),
                Op::Attend(a) => self.prepare_attention(a, region.ty(node.inputs[0]).tokens_at(0))?,
                Op::Repeat(op::Repeat { body, .. }) => self.prepare(body)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn prepare_attention(&mut self, a: &Attention, tokens: usize) -> std::result::Result<(), String> {
        if let Some(rope) = &a.rope {
            let half = a.head_dim / 2;
            let angle = |i: usize| {
                let (t, i) = (i / half, i % half);
                t as f64 * f64::from(rope.base).powf(-2.0 * i as f64 / a.head_dim as f64)
            };
            let table = |f: fn(f64) -> f64| (0..tokens * half).map(|i| f(angle(i)) as f32).collect();
            let key = (tokens, a.head_dim, rope.base.to_bits());
            self.turns.entry(key).or_insert_with(|| Arc::new(Rotations { cos: table(f64::cos), sin: table(f64::sin) }));
        }
        if a.causal || a.window.is_some() {
            let seen =
                |q: usize, k: usize| (!a.causal || k <= q) && a.window.is_none_or(|window| q.abs_diff(k) < window);
            let values: Vec<f32> = (0..tokens * tokens)
                .map(|i| if seen(i / tokens, i % tokens) { 0.0 } else { f32::NEG_INFINITY })
                .collect();
            let mask = Tensor::from_vec(values, (tokens, tokens), &Device::Cpu).map_err(|e| e.to_string())?;
            self.masks.insert((tokens, a.causal, a.window), mask);
        }
        Ok(())
    }

    /// Runs a region; `params[i]` is the graph's `i`-th parameter.
    pub fn run(&self, region: &Region, params: &[Tensor], args: Vec<Tensor>) -> Result<Vec<Tensor>> {
        // values are dropped after their last use, so that memory is used again while it is warm
        let mut last_use: Vec<usize> = vec![0; region.types.len()];
        for (i, node) in region.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| last_use[v.0] = i);
        }
        region.results.iter().for_each(|v| last_use[v.0] = usize::MAX);
        let mut values: Vec<Option<Tensor>> = args.into_iter().map(Some).collect();
        for (i, node) in region.nodes.iter().enumerate() {
            let mut inputs = Vec::with_capacity(node.inputs.len());
            for v in &node.inputs {
                inputs.push(values[v.0].clone().ok_or_else(|| candle_core::Error::Msg("value used too late".into()))?);
            }
            for v in &node.inputs {
                if last_use[v.0] == i {
                    values[v.0] = None;
                }
            }
            match &node.op {
                Op::Repeat(op::Repeat { times, carried, body, last_gradient_only }) => {
                    let results = self.repeat(body, *times, *carried, *last_gradient_only, params, inputs)?;
                    values.extend(results.into_iter().map(Some));
                }
                op => values.push(Some(self.apply(op, params, inputs)?)),
            }
        }
        let result = |v: &crate::graph::ValueId| {
            values[v.0].clone().ok_or_else(|| candle_core::Error::Msg("a result was dropped".into()))
        };
        region.results.iter().map(result).collect()
    }

    fn repeat(
        &self,
        body: &Region,
        times: usize,
        carried: usize,
        last_gradient_only: bool,
        params: &[Tensor],
        mut args: Vec<Tensor>,
    ) -> Result<Vec<Tensor>> {
        let detached = |tensors: &[Tensor]| tensors.iter().map(Tensor::detach).collect::<Vec<_>>();
        let still = if last_gradient_only { detached(params) } else { Vec::new() };
        for i in 0..times {
            let results = if last_gradient_only && i + 1 < times {
                self.run(body, &still, detached(&args))?
            } else {
                self.run(body, params, args.clone())?
            };
            args[..carried].clone_from_slice(&results);
        }
        args.truncate(carried);
        Ok(args)
    }

    /// One operator that has one result.
    pub(super) fn apply(&self, op: &Op, params: &[Tensor], inputs: Vec<Tensor>) -> Result<Tensor> {
        let x = &inputs[0];
        match op {
            Op::Embed(op::Embed { table }) => {
                let (batch, tokens) = x.dims2()?;
                params[table.0].index_select(&x.flatten_all()?, 0)?.reshape((batch, tokens, ()))
            }
            Op::EmbedPrefix(op::EmbedPrefix { table, positions, features }) => {
                let rows = params[table.0].index_select(&x.flatten_all()?, 0)?;
                let missing = positions * features - rows.dim(1)?;
                rows.pad_with_zeros(1, 0, missing)?.reshape((x.dim(0)?, *positions, *features))
            }
            Op::AddPositions(op::AddPositions { table, .. }) => x.broadcast_add(&params[table.0]),
            Op::Concat(_) => Tensor::cat(&inputs, 1),
            Op::Slice(op::Slice { start, len }) => x.narrow(1, *start, *len)?.contiguous(),
            Op::Add(_) => x + &inputs[1],
            Op::Mul(_) => x * &inputs[1],
            Op::Scale(op::Scale(factor)) => x.affine(f64::from(*factor), 0.0),
            Op::Linear(op::Linear { weight, bias }) => linear(x, &params[weight.0], bias.map(|b| &params[b.0])),
            Op::RmsNorm(op::RmsNorm { gain, eps, over }) => {
                let over_tokens = *over == Axis::Tokens;
                let y = x.contiguous()?.apply_op1(FusedRmsNorm { eps: *eps, over_tokens })?;
                match gain {
                    Some(g) if over_tokens => y.broadcast_mul(&params[g.0].unsqueeze(1)?),
                    Some(g) => y.broadcast_mul(&params[g.0]),
                    None => Ok(y),
                }
            }
            Op::LayerNorm(op::LayerNorm { gain, bias, eps }) => {
                let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
                let spread = centred.sqr()?.mean_keepdim(D::Minus1)?.affine(1.0, f64::from(*eps))?.sqrt()?;
                let y = centred.broadcast_div(&spread)?.broadcast_mul(&params[gain.0])?;
                bias.map_or(Ok(y.clone()), |b| y.broadcast_add(&params[b.0]))
            }
            Op::Activate(act) => activate(x, *act),
            Op::GatedMlp(op::GatedMlp { gate_up, down, act, over: Axis::Features }) => {
                let inner = gated(&linear(x, &params[gate_up.0], None)?, *act, 1)?;
                linear(&inner, &params[down.0], None)
            }
            Op::GatedMlp(op::GatedMlp { gate_up, down, act, over: Axis::Tokens }) => {
                // tokens first, so that weights from the left make one product of the whole batch
                let (batch, tokens, features) = x.dims3()?;
                let x = x.transpose(0, 1)?.contiguous()?.reshape((tokens, batch * features))?;
                let inner = gated(&params[gate_up.0].matmul(&x)?, *act, 2)?;
                let y = params[down.0].matmul(&inner)?;
                y.reshape((tokens, batch, features))?.transpose(0, 1)?.contiguous()
            }
            Op::Mlp(op::Mlp { up, up_bias, down, down_bias, act }) => {
                let inner = activate(&linear(x, &params[up.0], up_bias.map(|b| &params[b.0]))?, *act)?;
                linear(&inner, &params[down.0], down_bias.map(|b| &params[b.0]))
            }
            Op::Attend(a) => self.attend(a, x),
            Op::MoeMlp(op::MoeMlp { router, gate_up, down, act, top_k }) => {
                let [router, gate_up, down] = [router, gate_up, down].map(|p| &params[p.0]);
                self.mixture(x, router, gate_up, down, *act, *top_k)
            }
            Op::Repeat(_) => candle_core::bail!("`{}` is not lowered here", op.name()),
        }
    }

    /// A mixture of experts: each expert computes the tokens routed to it. The choice itself is not differentiated, the weights of the
    /// chosen ones are.
    fn mixture(
        &self,
        x: &Tensor,
        router: &Tensor,
        gate_up: &Tensor,
        down: &Tensor,
        act: Activation,
        top_k: usize,
    ) -> Result<Tensor> {
        let (batch, tokens, features) = x.dims3()?;
        let (experts, rows) = (router.dim(0)?, batch * tokens);
        let scores = linear(x, router, None)?.reshape((rows, experts))?;
        let values = scores.detach().flatten_all()?.to_vec1::<f32>()?;
        let mut mask = vec![f32::NEG_INFINITY; rows * experts];
        let mut routed: Vec<Vec<u32>> = vec![Vec::new(); experts];
        let mut order: Vec<usize> = Vec::with_capacity(experts);
        for (t, row) in values.chunks_exact(experts).enumerate() {
            order.clear();
            order.extend(0..experts);
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
            for &e in &order[..top_k] {
                mask[t * experts + e] = 0.0;
                routed[e].push(t as u32);
            }
        }
        if let Some(seen) = self.seen.borrow_mut().as_mut() {
            seen.push(MixtureRun { scores: scores.clone(), values, top_k });
        }
        let mask = Tensor::from_vec(mask, (rows, experts), &Device::Cpu)?;
        let masked = (&scores + mask)?;
        let weights = masked.broadcast_sub(&masked.max_keepdim(1)?.detach())?.exp()?;
        let gates = weights.broadcast_div(&weights.sum_keepdim(1)?)?;
        let x = x.reshape((rows, features))?;
        let mut sum = Tensor::zeros((rows, features), x.dtype(), &Device::Cpu)?;
        for (e, routed) in routed.into_iter().enumerate().filter(|(_, routed)| !routed.is_empty()) {
            let n = routed.len();
            let places = Tensor::from_vec(routed, n, &Device::Cpu)?;
            let part = x.index_select(&places, 0)?.unsqueeze(0)?;
            let hidden = gated(&linear(&part, &gate_up.get(e)?, None)?, act, 1)?;
            let y = linear(&hidden, &down.get(e)?, None)?.squeeze(0)?;
            let gate = gates.narrow(1, e, 1)?.contiguous()?.index_select(&places, 0)?;
            sum = sum.index_add(&places, &y.broadcast_mul(&gate)?, 0)?;
        }
        sum.reshape((batch, tokens, features))
    }

    /// From now on keeps what every mixture of experts sees, or lets go of it.
    pub fn watch(&self, on: bool) {
        *self.seen.borrow_mut() = on.then(Vec::new);
    }

    /// What the mixtures have seen since they were last asked, in the order in which they ran.
    pub fn seen(&self) -> Vec<MixtureRun> {
        self.seen.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn attend(&self, a: &Attention, x: &Tensor) -> Result<Tensor> {
        let (batch, tokens, _) = x.dims3()?;
        let split = SplitHeads {
            heads: a.heads + 2 * a.kv_heads,
            dim: a.head_dim,
            turn: a.rope.as_ref().and_then(|r| self.turns.get(&(tokens, a.head_dim, r.base.to_bits())).cloned()),
            rotated: a.heads + a.kv_heads,
            scaled: a.heads,
            scale: a.scale,
        };
        let all = x.contiguous()?.apply_op1(split)?;
        let take = |from: usize, heads: usize| all.narrow(0, from, heads);
        // every key head serves `group` query heads in a row
        let spread = |t: Tensor| match a.heads / a.kv_heads {
            1 => t.contiguous(),
            group => t.unsqueeze(1)?.expand((a.kv_heads, group, batch, tokens, a.head_dim))?.contiguous(),
        };
        let shape = (a.heads * batch, tokens, a.head_dim);
        let q = take(0, a.heads)?.reshape(shape)?;
        let k = spread(take(a.heads, a.kv_heads)?)?.reshape(shape)?;
        let v = spread(take(a.heads + a.kv_heads, a.kv_heads)?)?.reshape(shape)?;
        let mut scores = q.matmul(&k.t()?)?;
        if let Some(mask) = self.masks.get(&(tokens, a.causal, a.window)) {
            scores = scores.broadcast_add(mask)?;
        }
        let mixed = scores.apply_op1(Softmax)?.matmul(&v)?;
        mixed.reshape((a.heads, batch, tokens, a.head_dim))?.apply_op1(JoinHeads)
    }
}

/// x·Wᵀ + b, all rows of the batch in one product.
fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (batch, tokens, features) = x.dims3()?;
    let y = x.reshape((batch * tokens, features))?.matmul(&weight.t()?)?;
    let y = bias.map_or(Ok(y.clone()), |b| y.broadcast_add(b))?;
    y.reshape((batch, tokens, weight.dim(0)?))
}

fn activate(x: &Tensor, act: Activation) -> Result<Tensor> {
    match act {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
    }
}

/// act(g) ⊙ u, with `[g | u]` side by side on an axis counted from the end.
fn gated(both: &Tensor, act: Activation, axis_from_end: usize) -> Result<Tensor> {
    if act == Activation::Silu {
        return both.contiguous()?.apply_op1(SiluGate { axis_from_end });
    }
    let axis = both.rank() - axis_from_end;
    let half = both.dim(axis)? / 2;
    activate(&both.narrow(axis, 0, half)?, act)? * both.narrow(axis, half, half)?
}

/// A float tensor as a state holds it.
pub fn tensor(values: &[f32], rows: usize, ty: crate::graph::ValueType) -> Result<Tensor> {
    debug_assert_eq!(ty.kind, Kind::Float);
    Tensor::from_slice(values, (rows, ty.tokens_at(0), ty.features), &Device::Cpu)
}
