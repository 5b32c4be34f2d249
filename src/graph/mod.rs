//! A model's computation, written once: inputs, parameters, resident states, coarse operators, outputs.
//!
//! In: calls of a [`RegionBuilder`] by a model family. Out: a shape-checked [`Graph`] that the cost model ([`cost`]), the reference
//! interpreter ([`interpreter`]) and every backend read. Must not: hold weights, know a backend, or run anything.
//!
//! Every value is `[batch, tokens, features]` with the batch left implicit, because all rows are independent. A graph has two
//! regions: `admit` runs once when a row enters (inputs to residents, the values that stay as they are), `step` runs once per
//! supervision step (states and residents to new states and outputs). A one-shot net has no states and one step; a recursive net has
//! latents; a language model has caches and is stepped by prefill, then token by token (see below).
//!
//! The first output of a step is `logits`; the second is `q` where there is a halting head. States live in the backend
//! between steps and say how they start ([`Init`]). Shared weights are shared because the body of a [`Op::Repeat`]
//! exists once; a backend may unroll it, loop over it or capture it. The builder checks every shape as a node is added
//! and `Graph::check` checks that the regions fit each other, so that a config of an impossible net is an error with
//! the file's name before any weight is read.
//!
//! Three things follow from the graph alone: its [costs](cost), the [reference](interpreter) that judges parity, and
//! what every backend lowers. Three numbers of work are kept apart: `flops_model` (what the mathematics needs),
//! `flops_executed` (what the backend did, padding included; unavailable where a backend cannot say, as candle) and
//! `steps_used`.
//!
//! # Causal language models
//!
//! A decoder has a cache a layer as states ([`Init::Empty`]: no token yet; its type has as many tokens as it may ever hold), and its step is given
//! the tokens of the call ([`Graph::calls`], of the length [`Tokens::Length`]). Attention with a cache takes it as a second value and gives it back with
//! the call's keys and values at its end; positions go on from the cache's length. Prefill and decoding are steps of unlike length. Every
//! family is one graph, built from its config (`models/decoder.rs`); engines that generate are behind a trait of their own
//! (`backends/language.rs`), since sequences come, grow and go one by one.
//!
//! Every built-in engine generates; ONNX Runtime and tract run an exported file whose caches are inputs and outputs (`onnx/decoder.rs`,
//! `backends/cached.rs`). What is missing: windows that forget what they no longer see.

pub mod canonical;
pub mod cost;
pub mod interpreter;
pub mod op;
pub mod tensor;

mod builder;
mod product;

pub use builder::RegionBuilder;
pub use op::{Activation, Attention, HeadNorms, Op, Rope};

/// A number of tokens: known when the graph is built, or the length of this call's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// Always this many.
    Fixed(usize),
    /// As many as the input of this call has (language models).
    Length,
}

/// What a value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Floating point, `features` per token.
    Float,
    /// Indices (tokens, puzzle identifiers), one per position; `features` is 1.
    Index,
}

/// Type of a value: `[batch, tokens, features]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueType {
    /// Second axis.
    pub tokens: Tokens,
    /// Third axis.
    pub features: usize,
    /// Element kind.
    pub kind: Kind,
}

impl ValueType {
    /// A floating-point value with a fixed number of tokens.
    pub fn float(tokens: usize, features: usize) -> Self {
        Self { tokens: Tokens::Fixed(tokens), features, kind: Kind::Float }
    }

    /// Indices, one per position.
    pub fn index(tokens: usize) -> Self {
        Self { tokens: Tokens::Fixed(tokens), features: 1, kind: Kind::Index }
    }

    /// Tokens at an input length of `length`.
    pub fn tokens_at(&self, length: usize) -> usize {
        match self.tokens {
            Tokens::Fixed(n) => n,
            Tokens::Length => length,
        }
    }

    /// Elements per row at an input length of `length`.
    pub fn elements_at(&self, length: usize) -> usize {
        self.tokens_at(length) * self.features
    }

    /// Elements per row of a value whose number of tokens is fixed; 0 tokens are counted for a value that is not.
    pub fn elements(&self) -> usize {
        self.elements_at(0)
    }
}

/// Index of a value in its region: arguments first, then results of nodes in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// Index of a parameter in [`Graph::params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub usize);

/// What a parameter is for; decides whether it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A weight: counted.
    Weight,
    /// The table of puzzle embeddings: published parameter counts leave it out, so do ours.
    PuzzleTable,
    /// An untrained buffer (initial states): not counted.
    Buffer,
}

/// How a parameter starts before training (and in nets with random weights).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// Normal of this standard deviation, cut off at two of them.
    Normal(f32),
    /// The same everywhere.
    Constant(f32),
}

/// A named tensor that the model's file must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Key in the file, prefixes stripped.
    pub name: String,
    /// Shape in the file, row-major.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// How it starts.
    pub start: Start,
}

impl Param {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The axis that a norm or a gated MLP works along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// The last axis, the usual one.
    Features,
    /// The token axis, per feature (MLP-mixer style): nothing is transposed in the graph.
    Tokens,
}

/// One operator applied to values; its results follow those of the nodes before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What is done.
    pub op: Op,
    /// To which values.
    pub inputs: Vec<ValueId>,
    /// First result; all operators have one, [`Op::Repeat`] has `carried`.
    pub first: ValueId,
}

/// A straight-line list of nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Region {
    /// Number of arguments: values `0..args`.
    pub args: usize,
    /// In order of execution.
    pub nodes: Vec<Node>,
    /// Type of every value.
    pub types: Vec<ValueType>,
    /// What the region gives back.
    pub results: Vec<ValueId>,
}

impl Region {
    /// Type of a value.
    pub fn ty(&self, v: ValueId) -> ValueType {
        self.types[v.0]
    }
}

/// How a state starts when a row is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// A vector `[features]`, the same at every token.
    Vector(ParamId),
    /// Zeros.
    Zero,
    /// No token yet: a cache, whose type has as many tokens as it may ever hold.
    Empty,
}

/// A value that lives in the backend between steps.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Its name, e.g. `z_H`.
    pub name: String,
    /// Its type; a cache has as many tokens as it may ever hold.
    pub ty: ValueType,
    /// How it starts.
    pub init: Init,
}

/// A named input.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its name, e.g. `inputs`.
    pub name: String,
    /// Its type.
    pub ty: ValueType,
    /// Indices are below this.
    pub rows: usize,
}

/// A named output of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its name: `logits`, `q`.
    pub name: String,
    /// Its type.
    pub ty: ValueType,
}

/// When a row may stop, read off the output `q`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halting {
    /// There is no halting head.
    Never,
    /// `q[0] > 0` (TRM)
    Positive,
    /// `q[0] > q[1]` (HRM)
    OverContinue,
}

/// The family that a model belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Every parameter works on every token, once.
    Dense,
    /// Tokens are routed to some of the experts.
    Moe,
    /// The same weights are applied again and again to resident states.
    Recursive,
}

impl Family {
    /// The word used in files.
    pub fn name(self) -> &'static str {
        match self {
            Family::Dense => "dense",
            Family::Moe => "moe",
            Family::Recursive => "recursive",
        }
    }
}

impl Graph {
    /// Layer and experts per token of every mixture of experts of a step; those within a repetition stand once.
    pub fn mixtures(&self) -> Vec<(String, usize)> {
        fn collect(region: &Region, params: &[Param], found: &mut Vec<(String, usize)>) {
            for node in &region.nodes {
                if let Op::MoeMlp(moe) = &node.op {
                    let name = &params[moe.router.0].name;
                    found.push((name.trim_end_matches(".router.weight").into(), moe.top_k));
                }
                if let Some((body, _)) = node.op.operator().body() {
                    collect(body, params, found);
                }
            }
        }
        let mut found = Vec::new();
        collect(&self.step, &self.params, &mut found);
        found
    }

    /// Heads of keys and values, and their size, of every attention of a step.
    pub fn attention_sizes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.step.nodes.iter().filter_map(|node| match &node.op {
            Op::Attend(a) => Some((a.kv_heads, a.head_dim)),
            _ => None,
        })
    }
}

/// A model's computation. `step` takes states, residents, then the call's inputs, and gives new states then outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Family of the model.
    pub family: Family,
    /// What a row brings.
    pub inputs: Vec<Input>,
    /// What the file must hold.
    pub params: Vec<Param>,
    /// What stays between steps and changes.
    pub states: Vec<State>,
    /// What each step is given beside states and residents: the tokens of a language model.
    pub calls: Vec<Input>,
    /// Inputs to residents.
    pub admit: Region,
    /// States, residents and what the call is given to new states and outputs.
    pub step: Region,
    /// Of the step: `logits`, and `q` where there is a halting head.
    pub outputs: Vec<Output>,
    /// When a row may stop.
    pub halting: Halting,
    /// Supervision steps that the model was made for (1: one-shot).
    pub max_steps: u32,
}

impl Graph {
    /// The only graph-wide checks that a builder cannot make: the regions fit each other.
    pub fn check(&self) -> Result<(), GraphError> {
        let fail = |m: String| Err(GraphError(m));
        if self.admit.args != self.inputs.len() {
            return fail(format!("admit takes {} values, but there are {} inputs", self.admit.args, self.inputs.len()));
        }
        let before = self.states.len() + self.admit.results.len();
        let expected = before + self.calls.len();
        if self.step.args != expected {
            return fail(format!("step takes {} values, states, residents and inputs are {expected}", self.step.args));
        }
        if let Some(call) = self.calls.iter().zip(&self.step.types[before..]).find(|(c, ty)| c.ty != **ty) {
            return fail(format!("input `{}` has another type in step", call.0.name));
        }
        if self.step.results.len() != self.states.len() + self.outputs.len() {
            return fail(format!("step gives {} values", self.step.results.len()));
        }
        for (i, state) in self.states.iter().enumerate() {
            let new = self.step.ty(self.step.results[i]);
            if self.step.types[i] != state.ty || new != state.ty {
                return fail(format!("state `{}` changes its type from {:?} to {new:?}", state.name, state.ty));
            }
        }
        for (i, &resident) in self.admit.results.iter().enumerate() {
            if self.admit.ty(resident) != self.step.types[self.states.len() + i] {
                return fail(format!("resident {i} has another type in step than in admit"));
            }
        }
        for (i, output) in self.outputs.iter().enumerate() {
            if self.step.ty(self.step.results[self.states.len() + i]) != output.ty {
                return fail(format!("output `{}` is not {:?}", output.name, output.ty));
            }
        }
        let halts = |o: &Output| o.name == "q" && o.ty == ValueType::float(1, 2);
        if self.halting != Halting::Never && !self.outputs.iter().any(halts) {
            return fail("a halting head needs an output `q` of 2 features".into());
        }
        Ok(())
    }
}

/// Values that do not fit: a config that asks for a net that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphError(pub String);

impl std::fmt::Display for GraphError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GraphError {}
