//! What a model takes and gives: its inputs, outputs and states by name, type, length and role.
//!
//! In: a [`Graph`], or ports that somebody else declares (the header of a file, the word of a program). Out: an [`Interface`], which
//! sessions, workers, parity and training read instead of a graph. Must not: compute anything. Names and roles are resolved to places once,
//! when a model is loaded ([`Interface::feeds`], [`Interface::reads`]); nothing is looked up while something is timed.
//!
//! A length is fixed, open (a named dimension that is bound to a number, or left to each call, before the model is used), or that of the
//! call. All ports whose length is the call's have the same one: that of the tokens that a row brings.
//!
//! A model may have no graph: an ONNX file (see [`file`](super::file)). Then its family is `opaque`, the reference
//! cannot judge it, and backends that compile graphs say that they cannot run it. Its ports have a kind and a shape, are
//! fed arrays of that kind, and give arrays whose size may be known only once it has run. Rows that an engine holds at
//! one time have one length, so examples of unlike length are run with a batch of 1.

use std::ops::Deref;

use ergometer_suites::ElementKind;

use crate::graph::{Graph, Halting, Kind, Tokens, ValueType};

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRole {
    /// Takes an example's tokens.
    Tokens,
    /// Takes an example's puzzle identifier.
    PuzzleId,
    /// Gives scores over the vocabulary, for each token of the answer.
    Logits,
    /// Gives what the halting rule is read off; its first feature is the halting logit.
    Halting,
    /// Stays in the engine between steps.
    State,
    /// Known only to whoever made the model.
    Other,
}

impl PortRole {
    /// In words, for errors.
    pub fn words(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::PuzzleId => "puzzle identifiers",
            Self::Logits => "logits",
            Self::Halting => "halting logits",
            Self::State => "a state",
            Self::Other => "an unknown role",
        }
    }
}

/// What a port holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// Indices (tokens, puzzle identifiers) below a bound.
    Index {
        /// The bound.
        below: usize,
    },
    /// Numbers.
    Float,
}

/// How many tokens a row has at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Length {
    /// Always so many.
    Fixed(usize),
    /// An open dimension of this name; see [`Interface::bind`] and [`Interface::per_call`].
    Symbolic(String),
    /// As many as the call's rows bring.
    PerCall {
        /// The most that a call may bring.
        most: usize,
    },
    /// Known once the model has run: of outputs alone.
    Found,
}

/// An input, an output or a state of a model: `[rows, length, features]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name, e.g. `inputs`.
    pub name: String,
    /// What it is for.
    pub role: PortRole,
    /// What it holds.
    pub elements: ElementType,
    /// Tokens of a row.
    pub length: Length,
    /// Features of a token; 1 of indices.
    pub features: usize,
    /// What its elements are in a file; `None`: a port of a graph, which takes indices and gives f32.
    pub kind: Option<ElementKind>,
    /// Elements of a row along each axis, where a file says.
    pub shape: Vec<usize>,
}

/// How many rows a call may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Any number.
    Any,
    /// Always so many; fewer are filled up with rows that nobody reads.
    Fixed(usize),
    /// One: no axis counts rows.
    One,
}

/// Elements of a row at a port whose length is known or the call's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowSize {
    fixed: usize,
    per_token: usize,
    most: usize,
}

impl RowSize {
    /// Elements of a row in a call of this length.
    pub fn at(self, length: usize) -> usize {
        self.fixed + self.per_token * length
    }

    /// Elements that a row may have.
    pub fn most(self) -> usize {
        self.most
    }

    /// Whether it depends on the call's length.
    pub fn varies(self) -> bool {
        self.per_token > 0
    }
}

/// Why a model cannot be used for what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}\nhint: {hint}")]
pub struct InterfaceError {
    message: String,
    hint: &'static str,
}

impl InterfaceError {
    fn new(message: impl Into<String>, hint: &'static str) -> Self {
        Self { message: message.into(), hint }
    }
}

const OTHER_MODEL: &str = "use a model that is made for tasks of tokens, or a program of your own as a backend";

impl Port {
    /// Elements of a row.
    ///
    /// # Errors
    /// Its length is open.
    pub fn row(&self) -> Result<RowSize, InterfaceError> {
        let features = self.features;
        match &self.length {
            Length::Fixed(n) => Ok(RowSize { fixed: n * features, per_token: 0, most: n * features }),
            Length::PerCall { most } => Ok(RowSize { fixed: 0, per_token: features, most: most * features }),
            Length::Symbolic(dimension) => Err(InterfaceError::new(
                format!("`{}` has the open dimension `{dimension}`", self.name),
                "bind the dimension to a number, or leave it to each call, before the model is used",
            )),
            Length::Found => Err(InterfaceError::new(
                format!("the size of `{}` is known once the model has run", self.name),
                OTHER_MODEL,
            )),
        }
    }

    /// Tokens of a row in a call of this length; 0 where the length is open.
    pub fn tokens_at(&self, length: usize) -> usize {
        match self.length {
            Length::Fixed(n) => n,
            Length::PerCall { .. } => length,
            Length::Symbolic(_) | Length::Found => 0,
        }
    }

    /// Elements along the last axis that has more than one, where the shape is known: the classes, where each is given a score.
    pub fn classes(&self) -> Option<usize> {
        self.shape.iter().rev().copied().find(|n| *n > 1)
    }

    /// Whether a row may bring so many tokens.
    pub fn takes(&self, tokens: usize) -> bool {
        match self.length {
            Length::Fixed(n) => tokens == n,
            Length::PerCall { most } => (1..=most).contains(&tokens),
            Length::Symbolic(_) | Length::Found => false,
        }
    }

    /// The number of tokens that it takes, in words.
    pub fn takes_words(&self) -> String {
        match &self.length {
            Length::Fixed(n) => n.to_string(),
            Length::PerCall { most } => format!("1 to {most}"),
            Length::Symbolic(dimension) => format!("`{dimension}`"),
            Length::Found => "as many as there are".into(),
        }
    }

    /// The bound of its indices; `None`: it holds numbers.
    pub fn below(&self) -> Option<usize> {
        match self.elements {
            ElementType::Index { below } => Some(below),
            ElementType::Float => None,
        }
    }

    fn of_type(name: &str, role: PortRole, ty: ValueType, below: usize) -> Self {
        Self {
            name: name.to_owned(),
            role,
            elements: if ty.kind == Kind::Index { ElementType::Index { below } } else { ElementType::Float },
            length: match ty.tokens {
                Tokens::Fixed(n) => Length::Fixed(n),
                Tokens::Length => Length::Symbolic("length".into()),
            },
            features: ty.features,
            kind: None,
            shape: Vec::new(),
        }
    }
}

/// What a model takes and gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// What a row brings, in the order that the engine takes it.
    pub inputs: Vec<Port>,
    /// What a step gives, in the engine's order.
    pub outputs: Vec<Port>,
    /// What stays in the engine between steps and can be read and written, in the engine's order.
    pub states: Vec<Port>,
    /// When a row may stop, read off the output with [`PortRole::Halting`].
    pub halting: Halting,
    /// Supervision steps that the model was made for (1: one-shot).
    pub max_steps: u32,
    /// Rows of a call.
    pub rows: Rows,
    /// Inputs may have a leading axis of time, over which the engine steps with its own states.
    pub sequences: bool,
}

/// Role of a graph's input or output, by the name that families give it.
pub(super) fn role_of(name: &str) -> PortRole {
    match name {
        "inputs" => PortRole::Tokens,
        "puzzle_identifiers" => PortRole::PuzzleId,
        "logits" => PortRole::Logits,
        "q" => PortRole::Halting,
        _ => PortRole::Other,
    }
}

impl Interface {
    /// That of a graph.
    pub fn of_graph(graph: &Graph) -> Self {
        let inputs = graph.inputs.iter().map(|i| Port::of_type(&i.name, role_of(&i.name), i.ty, i.rows));
        let outputs = graph.outputs.iter().map(|o| Port::of_type(&o.name, role_of(&o.name), o.ty, 0));
        let states = graph.states.iter().map(|s| Port::of_type(&s.name, PortRole::State, s.ty, 0));
        Self {
            inputs: inputs.collect(),
            outputs: outputs.collect(),
            states: states.collect(),
            halting: graph.halting,
            max_steps: graph.max_steps,
            rows: Rows::Any,
            sequences: false,
        }
    }

    /// Gives an open dimension a number.
    pub fn bind(self, dimension: &str, tokens: usize) -> Self {
        self.with_length(dimension, &Length::Fixed(tokens))
    }

    /// Leaves an open dimension to each call, which brings at most so many tokens.
    pub fn per_call(self, dimension: &str, most: usize) -> Self {
        self.with_length(dimension, &Length::PerCall { most })
    }

    fn with_length(mut self, dimension: &str, length: &Length) -> Self {
        for port in self.inputs.iter_mut().chain(&mut self.outputs).chain(&mut self.states) {
            if matches!(&port.length, Length::Symbolic(name) if name == dimension) {
                port.length = length.clone();
            }
        }
        self
    }

    /// Whether one step is all: no states, and no second step that could change an answer.
    pub fn one_shot(&self) -> bool {
        self.states.is_empty() && self.max_steps <= 1
    }

    /// Place of the output of this name; of the first, without one.
    pub fn place_of(&self, output: Option<&str>) -> Option<usize> {
        match output {
            None => (!self.outputs.is_empty()).then_some(0),
            Some(name) => self.outputs.iter().position(|port| port.name == name),
        }
    }

    /// The input of this role.
    pub fn input(&self, role: PortRole) -> Option<&Port> {
        self.inputs.iter().find(|p| p.role == role)
    }

    /// The input that takes an example's tokens.
    ///
    /// # Errors
    /// There is none.
    pub fn tokens(&self) -> Result<&Port, InterfaceError> {
        self.input(PortRole::Tokens).ok_or_else(|| lacks("input", PortRole::Tokens, &self.inputs))
    }

    /// The output that gives logits.
    ///
    /// # Errors
    /// There is none.
    pub fn logits(&self) -> Result<&Port, InterfaceError> {
        Ok(&self.outputs[self.place_of_logits()?])
    }

    fn place_of_logits(&self) -> Result<usize, InterfaceError> {
        let place = self.outputs.iter().position(|p| p.role == PortRole::Logits);
        place.ok_or_else(|| lacks("output", PortRole::Logits, &self.outputs))
    }

    /// Place of the output that the halting rule is read off; `None`: rows never halt.
    ///
    /// # Errors
    /// The rule has no output of one token and two features to be read off.
    pub fn halts_by(&self) -> Result<Option<usize>, InterfaceError> {
        if self.halting == Halting::Never {
            return Ok(None);
        }
        let fits = |p: &Port| p.role == PortRole::Halting && p.length == Length::Fixed(1) && p.features == 2;
        match self.outputs.iter().position(fits) {
            Some(place) => Ok(Some(place)),
            None => Err(lacks("output of one token and two features", PortRole::Halting, &self.outputs)),
        }
    }

    /// How an example's tokens and puzzle identifier become the inputs.
    ///
    /// # Errors
    /// An input that a task of tokens does not fill.
    pub fn feeds(&self) -> Result<Feeds, InterfaceError> {
        self.tokens()?;
        let roles = self.inputs.iter().map(|port| {
            let whole = port.below().is_some() && port.features == 1;
            match port.role {
                PortRole::Tokens if whole => Ok(Feed::Tokens),
                PortRole::PuzzleId if whole && port.length == Length::Fixed(1) => Ok(Feed::PuzzleId),
                _ => Err(InterfaceError::new(
                    format!("input `{}` is nothing that a task of tokens fills", port.name),
                    OTHER_MODEL,
                )),
            }
        });
        let feeds = roles.collect::<Result<Vec<Feed>, _>>()?;
        if feeds.len() > MAX_INPUTS {
            let message = format!("the model has {} inputs, at most {MAX_INPUTS} are filled", feeds.len());
            return Err(InterfaceError::new(message, OTHER_MODEL));
        }
        Ok(Feeds(feeds))
    }

    /// Where an answer and the halting logit stand among the outputs.
    ///
    /// # Errors
    /// There are no logits.
    pub fn reads(&self) -> Result<Reads, InterfaceError> {
        let logits = self.place_of_logits()?;
        Ok(Reads {
            logits,
            vocabulary: self.outputs[logits].features.max(1),
            halting: self.outputs.iter().position(|p| p.role == PortRole::Halting),
        })
    }
}

fn lacks(what: &str, role: PortRole, has: &[Port]) -> InterfaceError {
    let names: Vec<String> = has.iter().map(|p| format!("`{}`", p.name)).collect();
    let has = if names.is_empty() { "none".into() } else { names.join(", ") };
    InterfaceError::new(format!("the model has no {what} for {}; it has {has}", role.words()), OTHER_MODEL)
}

/// Most inputs of a model that rows fill.
pub const MAX_INPUTS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feed {
    Tokens,
    PuzzleId,
}

/// How an example becomes a model's inputs, resolved once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feeds(Vec<Feed>);

impl Feeds {
    /// The inputs in the engine's order, of rows with these tokens and puzzle identifiers. Allocates nothing.
    pub fn with<'a>(&self, tokens: &'a [u32], puzzle_ids: &'a [u32]) -> Inputs<'a> {
        let mut all: [&[u32]; MAX_INPUTS] = [&[]; MAX_INPUTS];
        for (input, feed) in all.iter_mut().zip(&self.0) {
            *input = match feed {
                Feed::Tokens => tokens,
                Feed::PuzzleId => puzzle_ids,
            };
        }
        Inputs { all, n: self.0.len() }
    }
}

/// Inputs of some rows, in the engine's order.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    all: [&'a [u32]; MAX_INPUTS],
    n: usize,
}

impl<'a> Deref for Inputs<'a> {
    type Target = [&'a [u32]];

    fn deref(&self) -> &[&'a [u32]] {
        &self.all[..self.n]
    }
}

/// Where a row's answer stands among a model's outputs, resolved once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// Place of the logits.
    pub logits: usize,
    /// Logits of one token.
    pub vocabulary: usize,
    /// Place of the output whose first feature is the halting logit, where there is one.
    pub halting: Option<usize>,
}

#[cfg(test)]
pub(crate) mod stub;
#[cfg(test)]
mod tests;
