//! The operators of a graph, one file each: parameters, shape rule, cost, and the reference computation that judges every backend.
//!
//! In: values' types, or their elements in f64. Out: the results' types, FLOPs, or elements. Must not: know a backend, or be optimised
//! beyond what makes the interpreter bearable.
//!
//! Adding an operator: one file with a type that is an [`Operator`], and its line in `operators!`. Builder, interpreter and costs walk over
//! them; the engines' lowerings then fail to compile until each says what it does with it.
//!
//! Operators are coarse (a whole MLP, a whole attention) so that a backend can see all of it and choose how to compute
//! it.

use super::interpreter::Interpreter;
use super::tensor::Tensor;
use super::{Axis, Kind, Param, ParamId, Region, Tokens, ValueType};

mod activate;
mod add;
mod add_positions;
mod attend;
mod concat;
mod embed;
mod embed_prefix;
mod gated_mlp;
mod layer_norm;
mod linear;
mod mlp;
mod moe_mlp;
mod mul;
mod repeat;
mod rms_norm;
mod scale;
mod slice;

/// What an operator is to the builder, the costs and the interpreter.
pub trait Operator {
    /// Its name, for messages and profiles.
    fn name(&self) -> &'static str;

    /// Values that it takes; `None`: any number but none.
    fn arity(&self) -> Option<usize> {
        Some(1)
    }

    /// The kind of every value that it takes; `None`: whatever it says itself.
    fn takes(&self) -> Option<Kind> {
        Some(Kind::Float)
    }

    /// Types of its results for values of these types, at least one of them. Errors: values or parameters that do not fit, in words.
    fn results(&self, shapes: &Shapes, x: &[ValueType]) -> Result<Vec<ValueType>, String>;

    /// Parameters that it reads (not those of a repeated region).
    fn params(&self) -> Vec<ParamId> {
        Vec::new()
    }

    /// Parameters that it reads as a whole: all but tables in which it looks up rows.
    fn whole_params(&self) -> Vec<ParamId> {
        self.params()
    }

    /// Share of a parameter's elements that one token uses.
    fn active_share(&self, _param: ParamId, _shapes: &Shapes) -> f64 {
        1.0
    }

    /// FLOPs of its contractions for one row, two per multiply-add; a repeated region is left out.
    fn flops(&self, _at: &Costing) -> f64 {
        0.0
    }

    /// The region that it runs and how often.
    fn body(&self) -> Option<(&Region, usize)> {
        None
    }

    /// Its results for `batch` rows, in f64.
    fn compute(&self, run: &Interpreter, x: &[&Tensor], batch: usize, results: &[ValueType]) -> Vec<Tensor>;
}

macro_rules! operators {
    ($($(#[$doc:meta])* $variant:ident($file:ident::$name:ident)),* $(,)?) => {
        $(pub use $file::$name;)*

        /// A coarse operator. Weights are `[out, in]`, as in the files.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            $($(#[$doc])* $variant($name),)*
        }

        impl Op {
            /// What builder, costs and interpreter ask of it.
            pub fn operator(&self) -> &dyn Operator {
                match self {
                    $(Op::$variant(o) => o,)*
                }
            }
        }

        $(impl From<$name> for Op {
            fn from(o: $name) -> Op {
                Op::$variant(o)
            }
        })*
    };
}

operators! {
    /// Indices to rows of a table.
    Embed(embed::Embed),
    /// One index to tokens before a grid.
    EmbedPrefix(embed_prefix::EmbedPrefix),
    /// Adds a learned table.
    AddPositions(add_positions::AddPositions),
    /// Joins values along tokens.
    Concat(concat::Concat),
    /// Takes some of the tokens.
    Slice(slice::Slice),
    /// a + b
    Add(add::Add),
    /// a ⊙ b
    Mul(mul::Mul),
    /// a · factor
    Scale(scale::Scale),
    /// x·Wᵀ + b
    Linear(linear::Linear),
    /// Root-mean-square norm.
    RmsNorm(rms_norm::RmsNorm),
    /// Layer norm.
    LayerNorm(layer_norm::LayerNorm),
    /// Elementwise.
    Activate(activate::Activation),
    /// Gated MLP along either axis.
    GatedMlp(gated_mlp::GatedMlp),
    /// MLP of two layers.
    Mlp(mlp::Mlp),
    /// Routed experts.
    MoeMlp(moe_mlp::MoeMlp),
    /// Attention.
    Attend(attend::Attention),
    /// A region again and again.
    Repeat(repeat::Repeat),
}

pub use attend::{HeadNorms, Rope};
pub use gated_mlp::gated;

impl Op {
    /// The operator's name, for messages and profiles.
    pub fn name(&self) -> &'static str {
        self.operator().name()
    }
}

/// Shapes of the parameters declared so far, for shape rules and costs.
pub struct Shapes<'a>(pub &'a [Param]);

impl Shapes<'_> {
    /// The shape of a parameter of so many axes. Errors: it has another number.
    pub fn axes(&self, p: ParamId, axes: usize) -> Result<&[usize], String> {
        let param = &self.0[p.0];
        if param.shape.len() == axes {
            Ok(&param.shape)
        } else {
            Err(format!("`{}` has shape {:?}, {axes} axes are needed", param.name, param.shape))
        }
    }

    /// Errors: the parameter has another shape.
    pub fn expect(&self, p: ParamId, shape: &[usize]) -> Result<(), String> {
        let param = &self.0[p.0];
        if param.shape == shape {
            Ok(())
        } else {
            Err(format!("`{}` has shape {:?}, not {shape:?}", param.name, param.shape))
        }
    }

    /// Errors: the parameter, where there is one, is no vector of this length.
    pub fn vector(&self, p: Option<ParamId>, len: usize) -> Result<(), String> {
        p.map_or(Ok(()), |p| self.expect(p, &[len]))
    }

    /// Rows of a parameter: its first axis.
    pub fn rows(&self, p: ParamId) -> usize {
        self.0[p.0].shape.first().copied().unwrap_or(0)
    }

    /// Elements of a parameter.
    pub fn elements(&self, p: ParamId) -> f64 {
        self.0[p.0].elements() as f64
    }
}

/// The call whose cost is asked for.
pub struct Costing<'a> {
    /// Of the parameters.
    pub shapes: Shapes<'a>,
    /// Type of the first value.
    pub x: ValueType,
    /// Its tokens in this call.
    pub tokens: f64,
    /// Tokens already in the caches.
    pub past: f64,
}

impl Costing<'_> {
    /// Vectors along an axis.
    pub fn vectors(&self, over: Axis) -> f64 {
        match over {
            Axis::Features => self.tokens,
            Axis::Tokens => self.x.features as f64,
        }
    }
}

/// A number of tokens that must be known. Errors: it is the length of the call's input.
fn fixed(x: ValueType) -> Result<usize, String> {
    match x.tokens {
        Tokens::Fixed(n) => Ok(n),
        Tokens::Length => Err("needs a fixed number of tokens".to_string()),
    }
}

/// Length of the vectors along an axis.
fn length(x: ValueType, over: Axis) -> Result<usize, String> {
    if over == Axis::Tokens { fixed(x) } else { Ok(x.features) }
}

/// x with another number of features.
fn with_features(x: ValueType, features: usize) -> ValueType {
    ValueType { tokens: x.tokens, features, kind: Kind::Float }
}

/// The one result, of these elements.
fn one(data: Vec<f64>, batch: usize, results: &[ValueType]) -> Vec<Tensor> {
    let features = results[0].features;
    vec![Tensor { tokens: data.len() / batch.max(1) / features, data, features }]
}

/// The type of two values that must be alike.
fn same(x: &[ValueType]) -> Result<Vec<ValueType>, String> {
    if x[0] == x[1] { Ok(vec![x[0]]) } else { Err(format!("{:?} and {:?}", x[0], x[1])) }
}
