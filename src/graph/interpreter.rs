//! The reference interpreter: plain loops in f64, slow and obviously right. It is the judge in every parity check.
//!
//! In: a [`Graph`], its parameters as f32, values as f64. Out: values as f64. Must not: be optimised beyond what makes it bearable (a few
//! rows and outputs of a matrix product together, rows on several threads), share code with a backend, or be used where speed counts.
//!
//! Every output is one sum in the order of the inputs, whatever is computed beside it and on however many threads.

use super::product::product;
use super::tensor::Tensor;
use super::{Graph, Kind, Op, ParamId, Region, ValueType};

/// What may stand in for an operation: its results by what goes into it, or none where it is to be computed.
pub type Instead<'a> = dyn FnMut(&Op, &[&Tensor]) -> Option<Vec<Tensor>> + 'a;

/// Runs regions of one graph.
pub struct Interpreter<'a> {
    graph: &'a Graph,
    params: &'a [Vec<f32>],
    threads: usize,
}

impl<'a> Interpreter<'a> {
    /// `params[i]` holds the elements of `graph.params[i]`. One thread.
    pub fn new(graph: &'a Graph, params: &'a [Vec<f32>]) -> Self {
        assert_eq!(graph.params.len(), params.len(), "one tensor per parameter");
        Self { graph, params, threads: 1 }
    }

    /// The same, its matrix products on so many threads.
    pub fn on_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// Runs a region on `batch` rows. `args` fit the region's argument types.
    pub fn run(&self, region: &Region, args: Vec<Tensor>, batch: usize) -> Vec<Tensor> {
        self.run_with(region, args, batch, &mut |_, _| None)
    }

    /// The same, where `instead` may give the results of an operation itself, by what goes into it.
    pub fn run_with(&self, region: &Region, args: Vec<Tensor>, batch: usize, instead: &mut Instead) -> Vec<Tensor> {
        // the node after which a value is not read again
        let mut last = vec![0; region.types.len()];
        for (i, node) in region.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| last[v.0] = i);
        }
        region.results.iter().for_each(|r| last[r.0] = usize::MAX);
        let mut values: Vec<Tensor> = args;
        for (i, node) in region.nodes.iter().enumerate() {
            let inputs: Vec<&Tensor> = node.inputs.iter().map(|v| &values[v.0]).collect();
            let end = region.nodes.get(i + 1).map_or(region.types.len(), |next| next.first.0);
            let types = &region.types[node.first.0..end];
            let results = instead(&node.op, &inputs);
            let results = results.unwrap_or_else(|| node.op.operator().compute(self, &inputs, batch, types));
            values.extend(results);
            node.inputs.iter().filter(|v| last[v.0] == i).for_each(|v| values[v.0].data = Vec::new());
        }
        region.results.iter().map(|r| values[r.0].clone()).collect()
    }

    /// Elements of a parameter, as they are.
    pub(super) fn param(&self, p: ParamId) -> &[f32] {
        &self.params[p.0]
    }

    /// Shape of a parameter.
    pub(super) fn shape(&self, p: ParamId) -> &[usize] {
        &self.graph.params[p.0].shape
    }

    /// Threads for a product.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Elements of a parameter in f64.
    pub(super) fn weight(&self, p: ParamId) -> Vec<f64> {
        self.param(p).iter().map(|&x| f64::from(x)).collect()
    }

    /// x·Wᵀ + b for rows as wide as the weight's last axis.
    pub(super) fn linear(&self, x: &[f64], weight: ParamId, bias: Option<ParamId>) -> Vec<f64> {
        let bias = bias.map(|p| self.weight(p));
        product(x, self.param(weight), self.shape(weight)[1], bias.as_deref(), self.threads)
    }
}

/// Elements of a value that the interpreter would hold for `batch` rows, to refuse what cannot fit before allocating it.
pub fn value_elements(ty: ValueType, batch: usize) -> usize {
    if ty.kind == Kind::Index { batch } else { batch.saturating_mul(ty.elements()) }
}
