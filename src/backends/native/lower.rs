//! Lowers the nodes of one region to steps.
//!
//! In: a region, where its arguments are. Out: steps, and where its results are. Must not: know how buffers are counted (that is
//! `buffers`) or how steps run.

use ergometer_kernels::{ActivationKind, Heads, Mask};

use super::buffers::{Frame, Place, Planner, float};
use super::execute::{Instruction, Loc, MixtureSizes};
use crate::backends::BackendError;
use crate::graph::{self, Axis, Node, Op, Region, Tokens, ValueId, op};

impl Planner<'_> {
    /// Lowers a region whose arguments are at `args`. Result i ends in buffer `wanted[i]` (each named once), where one is named.
    pub fn region(
        &mut self,
        region: &Region,
        args: &[Place],
        wanted: &[Option<usize>],
    ) -> Result<Vec<Place>, BackendError> {
        if region.types.iter().any(|t| t.tokens == Tokens::Length) {
            return Err(BackendError::unavailable("the native backend has no kernels for inputs of open length yet"));
        }
        Lowering { planner: self, frame: Frame::new(region, args, wanted) }.run()
    }
}

struct Lowering<'p, 'a, 'r> {
    pub planner: &'p mut Planner<'a>,
    pub frame: Frame<'r>,
}

impl<'r> Lowering<'_, '_, 'r> {
    /// Lowers all nodes; gives the places of the results.
    pub fn run(mut self) -> Result<Vec<Place>, BackendError> {
        let nodes: &'r [Node] = &self.frame.region.nodes;
        let mut k = 0;
        while k < nodes.len() {
            let end = if self.sublayer(k)? {
                k + 2
            } else if self.fuses(k) {
                self.pair(&nodes[k], &nodes[k + 1], k + 1)?;
                k + 1
            } else {
                self.node(&nodes[k], k)?;
                k
            };
            let next = nodes.get(end + 1).map_or(self.frame.places.len(), |n| n.first.0);
            let inputs = nodes[k..=end].iter().flat_map(|node| node.inputs.iter().copied());
            // values between the nodes of one step have no place
            let touched = inputs.filter(|v| v.0 < nodes[k].first.0).chain((nodes[end].first.0..next).map(ValueId));
            for buffer in self.frame.release(touched, end) {
                self.planner.give(buffer);
            }
            k = end + 1;
        }
        self.settle()
    }

    /// Lowers nodes `k` to `k + 2` as one step, if they are a sublayer, its residual and its norm: `rms(h + f(...))` where f is a gated MLP of h, or a product
    /// that is added to h. Says whether they were.
    fn sublayer(&mut self, k: usize) -> Result<bool, BackendError> {
        let nodes: &'r [Node] = &self.frame.region.nodes;
        let Some([f, sum, norm]) = nodes.get(k..k + 3) else { return Ok(false) };
        let (Op::Add(_), Op::RmsNorm(op::RmsNorm { gain: None, eps, over })) = (&sum.op, &norm.op) else {
            return Ok(false);
        };
        if !(self.frame.feeds_only_the_next(k) && self.frame.feeds_only_the_next(k + 1)) {
            return Ok(false);
        }
        let [a, b] = [sum.inputs[0], sum.inputs[1]];
        let residual = if a == f.first { b } else { a };
        if residual == f.first {
            return Ok(false);
        }
        match f.op {
            Op::GatedMlp(op::GatedMlp { gate_up, down, act: graph::Activation::Silu, over: axis })
                if axis == *over && residual == f.inputs[0] =>
            {
                self.gated_mlp(f.inputs[0], norm.first, k + 2, gate_up, down, axis, Some(*eps))?;
            }
            Op::Linear(op::Linear { weight, bias: None }) if *over == Axis::Features => {
                let (x, h) = (self.at(f.inputs[0])?, self.at(residual)?);
                // the sum is made where the residual is, or where it is copied to
                let mut out = self.onto(norm.first, k + 2, &[h]);
                if out.buffer == x.buffer {
                    out = self.apart(norm.first, k + 2, &[x]);
                }
                if out != h {
                    self.push(Instruction::Copy { x: h, out });
                }
                let weight = self.planner.packer.linear(weight);
                self.push(Instruction::LinearNorm { x, weight, eps: *eps, out });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Nodes `k` and `k + 1` are one step: an addition and the norm of the sum, an embedding and its scale, or a product and attention of what it makes.
    fn fuses(&self, k: usize) -> bool {
        let nodes = &self.frame.region.nodes;
        self.frame.feeds_only_the_next(k)
            && match (&nodes[k].op, &nodes[k + 1].op) {
                // the kernels add from another buffer only
                (Op::Add(_), Op::RmsNorm(_)) => {
                    self.frame.place(nodes[k].inputs[0]) != self.frame.place(nodes[k].inputs[1])
                }
                (Op::Embed(_), Op::Scale(_)) => true,
                // whole groups of heads for each thread, which padding makes hardly wider
                (Op::Linear(op::Linear { bias: None, .. }), Op::Attend(a)) => {
                    let (packer, heads) = (&self.planner.packer, shape(a).0);
                    a.beyond_plain().is_none()
                        && a.kv_heads.is_multiple_of(packer.threads())
                        && packer.head_columns(heads) * 8 <= heads.row() * 9
                }
                _ => false,
            }
    }

    fn pair(&mut self, first: &Node, second: &Node, k: usize) -> Result<(), BackendError> {
        match (&first.op, &second.op) {
            (Op::Add(_), Op::RmsNorm(op::RmsNorm { gain, eps, over })) => {
                let operands = [self.at(first.inputs[0])?, self.at(first.inputs[1])?];
                self.rms_norm(second.first, k, &operands, *gain, *eps, *over)
            }
            (Op::Linear(op::Linear { weight, .. }), Op::Attend(a)) => self.project(first, second.first, k, *weight, a),
            (Op::Embed(op::Embed { table }), Op::Scale(op::Scale(factor))) => {
                self.embed(first, second.first, k, *table, *factor)
            }
            _ => unreachable!("only pairs that `fuses` names"),
        }
    }

    // Over 80 lines: one arm for each operator, which the compiler checks for completeness.
    fn node(&mut self, node: &'r Node, k: usize) -> Result<(), BackendError> {
        let v = node.first;
        match &node.op {
            Op::Embed(op::Embed { table }) => return self.embed(node, v, k, *table, 1.0),
            Op::EmbedPrefix(op::EmbedPrefix { table, .. }) => {
                let (input, width) = (self.input(node.inputs[0])?, self.planner.packer.matrix(*table).1);
                let (table, out) = (self.planner.packer.plain(*table), self.apart(v, k, &[]));
                self.push(Instruction::EmbedPrefix { input, table, width, out });
            }
            Op::Concat(_) => {
                let parts = node.inputs.iter().map(|&v| self.at(v)).collect::<Result<Vec<_>, _>>()?;
                let out = self.apart(v, k, &parts);
                let mut to = 0;
                for x in parts {
                    self.push(Instruction::CopyPart { x, from: 0, width: x.len, to, out });
                    to += x.len;
                }
            }
            Op::Slice(op::Slice { start, .. }) => {
                let x = self.at(node.inputs[0])?;
                let out = self.apart(v, k, &[x]);
                let from = start * self.frame.region.ty(v).features;
                self.push(Instruction::CopyPart { x, from, width: out.len, to: 0, out });
            }
            Op::Add(_) => {
                let (x, y) = (self.at(node.inputs[0])?, self.at(node.inputs[1])?);
                let out = self.onto(v, k, &[x, y]);
                self.push(if out == y { Instruction::Add { x: y, y: x, out } } else { Instruction::Add { x, y, out } });
            }
            Op::AddPositions(op::AddPositions { table, .. }) => {
                let (x, table) = (self.own_copy(node, k)?, self.planner.packer.plain(*table));
                self.push(Instruction::AddPositions { x, table });
            }
            Op::Scale(op::Scale(factor)) => {
                let x = self.own_copy(node, k)?;
                self.push(Instruction::Scale { x, factor: *factor });
            }
            Op::Activate(act) => {
                let x = self.own_copy(node, k)?;
                self.push(Instruction::Activate { x, kind: activation(*act) });
            }
            Op::LayerNorm(op::LayerNorm { gain, bias, eps }) => {
                let (x, d) = (self.own_copy(node, k)?, self.frame.region.ty(v).features);
                let packer = &mut self.planner.packer;
                let (gain, bias) = (packer.plain(*gain), bias.map(|b| packer.plain(b)));
                self.push(Instruction::LayerNorm { x, gain, bias, eps: *eps, d });
            }
            Op::RmsNorm(op::RmsNorm { gain, eps, over }) => {
                let x = self.at(node.inputs[0])?;
                return self.rms_norm(v, k, &[x], *gain, *eps, *over);
            }
            Op::Linear(op::Linear { weight, bias }) => {
                let x = self.at(node.inputs[0])?;
                let out = self.apart(v, k, &[x]);
                self.linear(x, *weight, *bias, out);
            }
            Op::GatedMlp(op::GatedMlp { gate_up, down, act, over }) => {
                if *act != graph::Activation::Silu {
                    return Err(no_kernel(&node.op, &format!("gated by {act:?}")));
                }
                return self.gated_mlp(node.inputs[0], v, k, *gate_up, *down, *over, None);
            }
            Op::Mlp(op::Mlp { up, up_bias, down, down_bias, act }) => {
                let x = self.at(node.inputs[0])?;
                let inner = self.planner.packer.matrix(*up).0;
                let h = self.planner.take(x.len / self.frame.region.ty(v).features * inner);
                self.linear(x, *up, *up_bias, h);
                self.push(Instruction::Activate { x: h, kind: activation(*act) });
                let out = self.apart(v, k, &[]);
                self.linear(h, *down, *down_bias, out);
                self.planner.give(h.buffer);
            }
            Op::Attend(a) => return self.attend(node, k, a),
            Op::Repeat(op::Repeat { times, carried, body, .. }) => return self.repeat(node, k, *times, *carried, body),
            Op::Mul(_) => return Err(no_kernel(&node.op, "")),
            Op::MoeMlp(op::MoeMlp { router, gate_up, down, act, top_k }) => {
                if *act != graph::Activation::Silu {
                    return Err(no_kernel(&node.op, &format!("gated by {act:?}")));
                }
                return self.mixture(node, k, [*router, *gate_up, *down], *top_k);
            }
        }
        Ok(())
    }

    fn embed(
        &mut self,
        node: &Node,
        v: ValueId,
        k: usize,
        table: graph::ParamId,
        factor: f32,
    ) -> Result<(), BackendError> {
        let (input, table) = (self.input(node.inputs[0])?, self.planner.packer.plain(table));
        let (out, features) = (self.apart(v, k, &[]), self.frame.region.ty(v).features);
        self.push(Instruction::Embed { input, table, factor, features, out });
        Ok(())
    }

    fn linear(&mut self, x: Loc, weight: graph::ParamId, bias: Option<graph::ParamId>, out: Loc) {
        let packer = &mut self.planner.packer;
        let (weight, bias) = (packer.linear(weight), bias.map(|b| packer.plain(b)));
        self.push(Instruction::Linear { x, weight, bias, out });
    }

    /// A mixture of experts: only what is routed to an expert is computed by it.
    fn mixture(
        &mut self,
        node: &Node,
        k: usize,
        [router, gate_up, down]: [graph::ParamId; 3],
        top_k: usize,
    ) -> Result<(), BackendError> {
        let (x, n) = (self.at(node.inputs[0])?, self.frame.region.ty(node.first).features);
        let (tokens, experts) = (x.len / n, self.planner.packer.matrix(router).0);
        let routes = self.planner.mixtures.len();
        self.planner.mixtures.push(MixtureSizes { experts, top_k, tokens });
        let scores = self.planner.take(tokens * experts);
        self.linear(x, router, None, scores);
        self.push(Instruction::Route { scores, routes });
        self.planner.give(scores.buffer);
        let grouped = self.planner.take(tokens * top_k * n);
        self.push(Instruction::Gather { x, routes, n, out: grouped });
        let [up, down] = self.planner.packer.experts(gate_up, down);
        self.push(Instruction::Experts { x: grouped, routes, up, down, experts });
        let out = self.apart(node.first, k, &[grouped]);
        self.push(Instruction::Combine { x: grouped, routes, n, out });
        self.planner.give(grouped.buffer);
        Ok(())
    }

    /// The norm of the sum of one or two operands.
    fn rms_norm(
        &mut self,
        v: ValueId,
        k: usize,
        operands: &[Loc],
        gain: Option<graph::ParamId>,
        eps: f32,
        over: Axis,
    ) -> Result<(), BackendError> {
        let d = self.frame.region.ty(v).features;
        let out = self.onto(v, k, operands);
        // the sum is made where the result goes, if one of the operands is there
        let (x, residual) = match *operands {
            [x, y] if y == out => (y, Some(x)),
            [x, y] => (x, Some(y)),
            _ => (operands[0], None),
        };
        match over {
            Axis::Features => {
                let gain = gain.map(|g| self.planner.packer.plain(g));
                self.push(Instruction::RmsNorm { x, residual, gain, eps, d, out });
            }
            Axis::Tokens if gain.is_some() => {
                return Err(no_kernel(&Op::RmsNorm(op::RmsNorm { gain, eps, over }), "over tokens with a gain"));
            }
            Axis::Tokens => {
                if x != out {
                    self.push(Instruction::Copy { x, out });
                }
                self.push(Instruction::RmsNormTokens { x: out, residual, eps, d });
            }
        }
        Ok(())
    }

    /// `v = rms(x + mlp(x))`, or `mlp(x)` without a norm; `k` is the last node of the step.
    #[allow(clippy::too_many_arguments)]
    fn gated_mlp(
        &mut self,
        x: ValueId,
        v: ValueId,
        k: usize,
        gate_up: graph::ParamId,
        down: graph::ParamId,
        over: Axis,
        norm: Option<f32>,
    ) -> Result<(), BackendError> {
        let (x, d) = (self.at(x)?, self.frame.region.ty(v).features);
        let out = self.onto(v, k, &[x]);
        match over {
            Axis::Features => {
                let [up, down] = self.planner.packer.gated(gate_up, down);
                self.push(Instruction::GatedMlp { x, up, down, norm, out });
            }
            Axis::Tokens => {
                let [up, down] = self.planner.packer.tokens(gate_up, down);
                self.push(Instruction::TokenMlp { x, up, down, norm, d, out });
            }
        }
        Ok(())
    }

    /// Attention of the rows of a node times a weight.
    fn project(
        &mut self,
        product: &Node,
        v: ValueId,
        k: usize,
        weight: graph::ParamId,
        a: &graph::Attention,
    ) -> Result<(), BackendError> {
        let ((heads, mask), x) = (shape(a), self.at(product.inputs[0])?);
        let packer = &mut self.planner.packer;
        let (tokens, format) = (x.len / packer.matrix(weight).1, packer.format());
        let (weight, rope) =
            (packer.heads(weight, heads), a.rope.as_ref().map(|rope| packer.rope(rope, tokens, a.head_dim)));
        let out = self.apart(v, k, &[x]);
        self.push(Instruction::Project { x, weight, tokens, format, rope, mask, scale: a.scale, out });
        Ok(())
    }

    fn attend(&mut self, node: &Node, k: usize, a: &graph::Attention) -> Result<(), BackendError> {
        if let Some(what) = a.beyond_plain() {
            return Err(BackendError::unavailable(format!("native has no kernel for {what}")));
        }
        let (heads, mask) = shape(a);
        let format = self.planner.packer.format();
        let x = self.at(node.inputs[0])?;
        let tokens = x.len / heads.row();
        let rope = a.rope.as_ref().map(|rope| self.planner.packer.rope(rope, tokens, a.head_dim));
        let out = self.apart(node.first, k, &[x]);
        self.push(Instruction::Attend { x, format, heads, rope, mask, scale: a.scale, out });
        Ok(())
    }

    fn repeat(
        &mut self,
        node: &'r Node,
        k: usize,
        times: usize,
        carried: usize,
        body: &Region,
    ) -> Result<(), BackendError> {
        let mut args: Vec<Place> = node.inputs.iter().map(|&v| self.frame.place(v)).collect();
        let given = args.clone();
        let mut wanted = Vec::with_capacity(carried);
        for i in 0..carried {
            let v = ValueId(node.first.0 + i);
            let x = float(given[i])?;
            // the loop may work where its value already is, if nobody else looks there
            let alone = given.iter().enumerate().all(|(j, &other)| i == j || other != given[i]);
            let at = if alone && self.frame.writable(x.buffer, k) {
                self.frame.put(v, given[i]);
                x
            } else {
                let avoid: Vec<Loc> = given.iter().chain(&args).filter_map(|&p| float(p).ok()).collect();
                let at = self.apart(v, k, &avoid);
                self.push(Instruction::Copy { x, out: at });
                at
            };
            args[i] = Place::At(at);
            wanted.push(Some(at.buffer));
        }
        let start = self.planner.steps.len();
        self.push(Instruction::Repeat { times, len: 0 });
        self.planner.region(body, &args, &wanted)?;
        let len = self.planner.steps.len() - start - 1;
        self.planner.steps[start] = Instruction::Repeat { times, len };
        Ok(())
    }

    /// Copies results to where they are wanted and are not yet.
    fn settle(mut self) -> Result<Vec<Place>, BackendError> {
        let mut results = self.frame.results();
        let wanted: Vec<usize> = results.iter().filter_map(|(_, wanted)| *wanted).collect();
        let mut spare = Vec::new();
        // first out of the way whatever is in another's place
        for (place, to) in &mut results {
            let Some(to) = *to else { continue };
            let x = float(*place)?;
            if x.buffer != to && wanted.contains(&x.buffer) {
                let out = self.planner.take(x.len);
                spare.push(out.buffer);
                self.push(Instruction::Copy { x, out });
                *place = Place::At(out);
            }
        }
        let mut places = Vec::with_capacity(results.len());
        for (place, to) in results {
            let Some(buffer) = to else {
                places.push(place);
                continue;
            };
            let x = float(place)?;
            let out = Loc { buffer, len: x.len };
            if x != out {
                self.push(Instruction::Copy { x, out });
            }
            places.push(Place::At(out));
        }
        let kept = |buffer: &usize| places.iter().any(|p| matches!(p, Place::At(at) if at.buffer == *buffer));
        spare.extend(self.frame.owned().filter(|buffer| !kept(buffer)));
        spare.into_iter().for_each(|buffer| self.planner.give(buffer));
        Ok(places)
    }

    fn push(&mut self, step: Instruction) {
        self.planner.steps.push(step);
    }

    fn at(&self, v: ValueId) -> Result<Loc, BackendError> {
        float(self.frame.place(v))
    }

    fn input(&self, v: ValueId) -> Result<usize, BackendError> {
        match self.frame.place(v) {
            Place::Input(i) => Ok(i),
            Place::At(_) => Err(BackendError::Failed("an embedding of floats".into())),
        }
    }

    /// A place for `v` that is none of `avoid`: where it is wanted, or a buffer of the pool.
    fn apart(&mut self, v: ValueId, k: usize, avoid: &[Loc]) -> Loc {
        let len = self.frame.len(v);
        let target = self.frame.target(v, k).filter(|t| avoid.iter().all(|a| a.buffer != *t));
        let out = target.map(|buffer| Loc { buffer, len }).unwrap_or_else(|| {
            let out = self.planner.take(len);
            self.frame.own(out.buffer);
            out
        });
        self.frame.put(v, Place::At(out));
        out
    }

    /// A place for `v`, which has its operands' type and may be written over one of them: where it is wanted, an operand that nobody
    /// needs any more, or a buffer of the pool. Where two operands share a buffer it is none of them.
    fn onto(&mut self, v: ValueId, k: usize, operands: &[Loc]) -> Loc {
        if let [x, y] = operands
            && x.buffer == y.buffer
        {
            return self.apart(v, k, operands);
        }
        let dying = operands.iter().find(|x| self.frame.writable(x.buffer, k));
        match dying {
            Some(&x) if self.frame.target(v, k).is_none() => {
                self.frame.put(v, Place::At(x));
                x
            }
            _ => self.apart(v, k, &[]),
        }
    }

    /// The node's operand where its result goes, to be changed there.
    fn own_copy(&mut self, node: &Node, k: usize) -> Result<Loc, BackendError> {
        let x = self.at(node.inputs[0])?;
        let out = self.onto(node.first, k, &[x]);
        if out != x {
            self.push(Instruction::Copy { x, out });
        }
        Ok(out)
    }
}

/// The kernels' word for it.
pub(super) fn activation(act: graph::Activation) -> ActivationKind {
    match act {
        graph::Activation::Silu => ActivationKind::Silu,
        graph::Activation::Gelu => ActivationKind::Gelu,
        graph::Activation::GeluTanh => ActivationKind::GeluTanh,
        graph::Activation::Relu => ActivationKind::Relu,
    }
}

/// Heads and mask of a node, as the kernels take them.
fn shape(a: &graph::Attention) -> (Heads, Mask) {
    let heads = Heads { heads: a.heads, kv_heads: a.kv_heads, head_dim: a.head_dim };
    (heads, Mask { causal: a.causal, window: a.window, globals: 0 })
}

fn no_kernel(op: &Op, how: &str) -> BackendError {
    let space = if how.is_empty() { "" } else { " " };
    BackendError::unavailable(format!("the native backend has no kernel for operator `{}`{space}{how} yet", op.name()))
}
