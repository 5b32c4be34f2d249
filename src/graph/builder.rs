//! Builds a [`Region`] node by node and checks every shape on the way.
//!
//! In: the parameters declared so far, the region's argument types, operators. Out: a region whose values fit. Must not: optimise or
//! reorder anything; what a family writes is what every backend sees.

use super::{Axis, GraphError, Kind, Node, Op, Param, ParamId, Region, Tokens, ValueId, ValueType};

/// A region under construction.
pub struct RegionBuilder<'a> {
    params: &'a [Param],
    region: Region,
}

impl<'a> RegionBuilder<'a> {
    /// A region that takes arguments of these types.
    pub fn new(params: &'a [Param], args: &[ValueType]) -> Self {
        Self { params, region: Region { args: args.len(), types: args.to_vec(), ..Region::default() } }
    }

    /// The `i`-th argument.
    pub fn arg(&self, i: usize) -> ValueId {
        assert!(i < self.region.args, "a region of {} arguments has no argument {i}", self.region.args);
        ValueId(i)
    }

    /// Type of a value made so far.
    pub fn ty(&self, v: ValueId) -> ValueType {
        self.region.types[v.0]
    }

    /// A builder for a repeated body with these argument types.
    pub fn body(&self, args: &[ValueType]) -> RegionBuilder<'a> {
        RegionBuilder::new(self.params, args)
    }

    /// Applies an operator with one result.
    pub fn op(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        Ok(self.ops(op, inputs)?[0])
    }

    /// Applies an operator and gives all its results.
    pub fn ops(&mut self, op: Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
        let types = self.result_types(&op, inputs).map_err(|m| GraphError(format!("{}: {m}", op.name())))?;
        let first = ValueId(self.region.types.len());
        self.region.types.extend(&types);
        self.region.nodes.push(Node { op, inputs: inputs.to_vec(), first });
        Ok((0..types.len()).map(|i| ValueId(first.0 + i)).collect())
    }

    /// Ends the region.
    pub fn finish(mut self, results: &[ValueId]) -> Region {
        self.region.results = results.to_vec();
        self.region
    }

    fn shape(&self, p: ParamId, dims: usize) -> Result<&[usize], String> {
        let param = &self.params[p.0];
        if param.shape.len() == dims {
            Ok(&param.shape)
        } else {
            Err(format!("`{}` has shape {:?}, {dims} axes are needed", param.name, param.shape))
        }
    }

    fn expect_shape(&self, p: ParamId, shape: &[usize]) -> Result<(), String> {
        let param = &self.params[p.0];
        if param.shape == shape {
            Ok(())
        } else {
            Err(format!("`{}` has shape {:?}, not {shape:?}", param.name, param.shape))
        }
    }

    fn expect_vector(&self, p: Option<ParamId>, len: usize) -> Result<(), String> {
        p.map_or(Ok(()), |p| self.expect_shape(p, &[len]))
    }

    fn result_types(&self, op: &Op, inputs: &[ValueId]) -> Result<Vec<ValueType>, String> {
        let arity = match op {
            Op::Add | Op::Mul => 2,
            Op::Concat => inputs.len().max(1),
            Op::Repeat { body, .. } => body.args,
            _ => 1,
        };
        if inputs.len() != arity {
            return Err(format!("takes {arity} values, got {}", inputs.len()));
        }
        if let Some(v) = inputs.iter().find(|v| v.0 >= self.region.types.len()) {
            return Err(format!("value {} does not exist yet", v.0));
        }
        let x = self.ty(inputs[0]);
        let wants_index = matches!(op, Op::Embed { .. } | Op::EmbedPrefix { .. });
        if !matches!(op, Op::Repeat { .. }) && inputs.iter().any(|&v| (self.ty(v).kind == Kind::Index) != wants_index) {
            return Err("indices where floats belong, or the reverse".into());
        }
        let fixed = |t: Tokens| match t {
            Tokens::Fixed(n) => Ok(n),
            Tokens::Length => Err("needs a fixed number of tokens".to_string()),
        };
        let with_features = |features| ValueType { tokens: x.tokens, features, kind: Kind::Float };
        let one = match op {
            Op::Embed { table } => with_features(self.shape(*table, 2)?[1]),
            Op::EmbedPrefix { table, positions, features } => {
                let width = self.shape(*table, 2)?[1];
                if x.tokens != Tokens::Fixed(1) || width > positions * features {
                    return Err(format!(
                        "one index and at most {positions}x{features} features, got {x:?} and {width}"
                    ));
                }
                ValueType::float(*positions, *features)
            }
            Op::AddPositions { table } => {
                self.expect_shape(*table, &[fixed(x.tokens)?, x.features])?;
                x
            }
            Op::Concat => {
                let mut tokens = 0;
                for &v in inputs {
                    let t = self.ty(v);
                    if t.features != x.features {
                        return Err(format!("{} and {} features", x.features, t.features));
                    }
                    tokens += fixed(t.tokens)?;
                }
                ValueType::float(tokens, x.features)
            }
            Op::Slice { start, len } => {
                let tokens = fixed(x.tokens)?;
                if start.checked_add(*len).is_none_or(|end| end > tokens) {
                    return Err(format!("{len} tokens from {start} of {tokens}"));
                }
                ValueType::float(*len, x.features)
            }
            Op::Add | Op::Mul => {
                if self.ty(inputs[1]) != x {
                    return Err(format!("{x:?} and {:?}", self.ty(inputs[1])));
                }
                x
            }
            Op::Scale(_) | Op::Activate(_) => x,
            Op::Linear { weight, bias } => {
                let out = self.shape(*weight, 2)?[0];
                self.expect_shape(*weight, &[out, x.features])?;
                self.expect_vector(*bias, out)?;
                with_features(out)
            }
            Op::RmsNorm { gain, over, .. } => {
                self.expect_vector(*gain, if *over == Axis::Tokens { fixed(x.tokens)? } else { x.features })?;
                x
            }
            Op::LayerNorm { gain, bias, .. } => {
                self.expect_vector(Some(*gain), x.features)?;
                self.expect_vector(*bias, x.features)?;
                x
            }
            Op::GatedMlp { gate_up, down, over, .. } => {
                let n = if *over == Axis::Tokens { fixed(x.tokens)? } else { x.features };
                let inner = self.shape(*down, 2)?[1];
                self.expect_shape(*down, &[n, inner])?;
                self.expect_shape(*gate_up, &[2 * inner, n])?;
                x
            }
            Op::Mlp { up, up_bias, down, down_bias, .. } => {
                let inner = self.shape(*up, 2)?[0];
                self.expect_shape(*up, &[inner, x.features])?;
                self.expect_shape(*down, &[x.features, inner])?;
                self.expect_vector(*up_bias, inner)?;
                self.expect_vector(*down_bias, x.features)?;
                x
            }
            Op::MoeMlp { router, gate_up, down, top_k, .. } => {
                let experts = self.shape(*router, 2)?[0];
                let inner = self.shape(*down, 3)?[2];
                self.expect_shape(*router, &[experts, x.features])?;
                self.expect_shape(*gate_up, &[experts, 2 * inner, x.features])?;
                self.expect_shape(*down, &[experts, x.features, inner])?;
                if *top_k == 0 || *top_k > experts {
                    return Err(format!("top {top_k} of {experts} experts"));
                }
                x
            }
            Op::Attend(a) => {
                if a.heads == 0 || a.kv_heads == 0 || a.head_dim == 0 || a.heads % a.kv_heads != 0 {
                    return Err(format!("{} heads over {} key heads of {} features", a.heads, a.kv_heads, a.head_dim));
                }
                if a.rope.is_some() && a.head_dim % 2 != 0 {
                    return Err(format!("rotary embedding needs an even head size, not {}", a.head_dim));
                }
                if x.features != (a.heads + 2 * a.kv_heads) * a.head_dim {
                    return Err(format!("{} features do not hold q, k and v", x.features));
                }
                with_features(a.heads * a.head_dim)
            }
            Op::Repeat { times, carried, body, .. } => {
                if *times == 0 || *carried > inputs.len() || body.results.len() != *carried {
                    return Err(format!(
                        "{times} times, {carried} carried of {}, {} results",
                        inputs.len(),
                        body.results.len()
                    ));
                }
                for (i, &v) in inputs.iter().enumerate() {
                    let result = body.results.get(i).map(|&r| body.ty(r));
                    if body.types[i] != self.ty(v) || result.is_some_and(|r| r != self.ty(v)) {
                        return Err(format!("value {i} changes its type over the iterations"));
                    }
                }
                return Ok(body.results.iter().map(|&r| body.ty(r)).collect());
            }
        };
        Ok(vec![one])
    }
}

impl Op {
    /// The operator's name, for messages and profiles.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::EmbedPrefix { .. } => "embed_prefix",
            Op::AddPositions { .. } => "add_positions",
            Op::Concat => "concat",
            Op::Slice { .. } => "slice",
            Op::Add => "add",
            Op::Mul => "mul",
            Op::Scale(_) => "scale",
            Op::Linear { .. } => "linear",
            Op::RmsNorm { .. } => "rms_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Activate(_) => "activate",
            Op::GatedMlp { .. } => "gated_mlp",
            Op::Mlp { .. } => "mlp",
            Op::MoeMlp { .. } => "moe_mlp",
            Op::Attend(_) => "attend",
            Op::Repeat { .. } => "repeat",
        }
    }

    /// Parameters that the operator itself reads (not those of a repeated body).
    pub fn params(&self) -> Vec<ParamId> {
        match self {
            Op::Embed { table } | Op::EmbedPrefix { table, .. } | Op::AddPositions { table } => vec![*table],
            Op::Linear { weight, bias } => [Some(*weight), *bias].into_iter().flatten().collect(),
            Op::RmsNorm { gain, .. } => gain.iter().copied().collect(),
            Op::LayerNorm { gain, bias, .. } => [Some(*gain), *bias].into_iter().flatten().collect(),
            Op::GatedMlp { gate_up, down, .. } => vec![*gate_up, *down],
            Op::Mlp { up, up_bias, down, down_bias, .. } => {
                [Some(*up), *up_bias, Some(*down), *down_bias].into_iter().flatten().collect()
            }
            Op::MoeMlp { router, gate_up, down, .. } => vec![*router, *gate_up, *down],
            _ => Vec::new(),
        }
    }
}
