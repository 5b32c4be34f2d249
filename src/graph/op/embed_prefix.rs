//! The row of a table as tokens before a grid: how TRM and HRM embed which puzzle it is.

use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::super::{Kind, ParamId, Tokens, ValueType};
use super::{Operator, Shapes, embed, one};

/// One index `[1]` to one row of `table [rows, E]`, padded with zeros to `positions · D` features and seen as `[positions, D]`.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedPrefix {
    /// The table.
    pub table: ParamId,
    /// Tokens that come out.
    pub positions: usize,
    /// Features per token that come out.
    pub features: usize,
}

impl Operator for EmbedPrefix {
    fn name(&self) -> &'static str {
        "embed_prefix"
    }

    fn takes(&self) -> Option<Kind> {
        Some(Kind::Index)
    }

    fn results(&self, shapes: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        let Self { positions, features, .. } = *self;
        let width = shapes.axes(self.table, 2)?[1];
        if x[0].tokens != Tokens::Fixed(1) || width > positions * features {
            return Err(format!("one index and at most {positions}x{features} features, got {:?} and {width}", x[0]));
        }
        Ok(vec![ValueType::float(positions, features)])
    }

    fn params(&self) -> Vec<ParamId> {
        vec![self.table]
    }

    fn whole_params(&self) -> Vec<ParamId> {
        Vec::new()
    }

    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor> {
        let width = run.shape(self.table)[1];
        one(embed::rows(run.param(self.table), &x[0].data, width, results[0].elements()), batch, results)
    }
}
