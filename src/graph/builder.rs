//! Builds a [`Region`] node by node and checks every shape on the way.
//!
//! In: the parameters declared so far, the region's argument types, operators. Out: a region whose values fit. Must not: optimise or
//! reorder anything; what a family writes is what every backend sees.

use super::op::{Op, Operator, Shapes};
use super::{GraphError, Node, Param, Region, ValueId, ValueType};

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
    pub fn op(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        Ok(self.ops(op, inputs)?[0])
    }

    /// Applies an operator and gives all its results.
    pub fn ops(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
        let op = op.into();
        let types = self.result_types(op.operator(), inputs).map_err(|m| GraphError(format!("{}: {m}", op.name())))?;
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

    fn result_types(&self, op: &dyn Operator, inputs: &[ValueId]) -> Result<Vec<ValueType>, String> {
        let arity = op.arity().unwrap_or(inputs.len().max(1));
        if inputs.len() != arity {
            return Err(format!("takes {arity} values, got {}", inputs.len()));
        }
        if let Some(v) = inputs.iter().find(|v| v.0 >= self.region.types.len()) {
            return Err(format!("value {} does not exist yet", v.0));
        }
        let types: Vec<ValueType> = inputs.iter().map(|v| self.ty(*v)).collect();
        if op.takes().is_some_and(|kind| types.iter().any(|t| t.kind != kind)) {
            return Err("indices where floats belong, or the reverse".into());
        }
        op.results(&Shapes(self.params), &types)
    }
}
