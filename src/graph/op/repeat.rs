//! A region, applied again and again.

use super::super::interpreter::Interpreter;
use super::super::tensor::Tensor;
use super::super::{Kind, Region, ValueType};
use super::{Operator, Shapes};

/// Runs `body` `times` times with the same weights. The first `carried` inputs are replaced by the body's results each time, the rest
/// stay; the node's values are the last results.
#[derive(Clone, Debug, PartialEq)]
pub struct Repeat {
    /// Iterations.
    pub times: usize,
    /// Inputs that change.
    pub carried: usize,
    /// The repeated region.
    pub body: Box<Region>,
    /// For training: only the last iteration is differentiated (the earlier ones only move the states).
    pub last_gradient_only: bool,
}

impl Operator for Repeat {
    fn name(&self) -> &'static str {
        "repeat"
    }

    fn arity(&self) -> Option<usize> {
        Some(self.body.args)
    }

    fn takes(&self) -> Option<Kind> {
        None
    }

    fn results(&self, _: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String> {
        let Self { times, carried, body, .. } = self;
        if *times == 0 || *carried > x.len() || body.results.len() != *carried {
            return Err(format!("{times} times, {carried} carried of {}, {} results", x.len(), body.results.len()));
        }
        for (i, &given) in x.iter().enumerate() {
            let result = body.results.get(i).map(|&r| body.ty(r));
            if body.types[i] != given || result.is_some_and(|r| r != given) {
                return Err(format!("value {i} changes its type over the iterations"));
            }
        }
        Ok(body.results.iter().map(|&r| body.ty(r)).collect())
    }

    fn body(&self) -> Option<(&Region, usize)> {
        Some((&self.body, self.times))
    }

    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, _: &[ValueType]) -> Vec<Tensor> {
        let mut args: Vec<Tensor> = x.iter().map(|t| (*t).clone()).collect();
        for _ in 0..self.times {
            let results = run.run(&self.body, args.clone(), batch);
            args[..self.carried].clone_from_slice(&results);
        }
        args.truncate(self.carried);
        args
    }
}
