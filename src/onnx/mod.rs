//! A graph as a standard ONNX file, which onnxruntime, tract and anyone's tool load; and the header of anyone's file ([`header`]).
//!
//! In: a [`Graph`], its parameters, a [`Form`]. Out: the file's bytes. Must not: use an operator outside the standard set, read or
//! write a file, or depend on a backend.
//!
//! A language model's file is [`decoder`]'s. Of any other graph one file holds one supervision step. Its inputs are the graph's inputs by their names, int64 `[batch, tokens]`, then each state by
//! its name, float `[batch, tokens, features]`; its outputs are the graph's outputs by their names, then `next.<state>` of each state.
//! What a row brings is embedded anew in every step (no state of its own), so nothing but the states is carried. How a state begins is
//! in the file's metadata: `initial.<state>`, a JSON list of the numbers that every token starts with; `family`, `halting` and
//! `max_steps` stand there too. A repetition inside the step is unrolled over shared constants.
//!
//! Planned: two files, `admit` and `step`, with residents and states as inputs of the second, so that admission is
//! computed once a row while the loop and the halting stay in the session.

mod build;
pub mod decoder;
pub mod header;
mod lower;
pub mod proto;
pub mod shapes;
#[cfg(test)]
pub(crate) mod small;
pub mod tensor;
mod wire;

use std::borrow::Cow;

use prost::Message;

use crate::graph::cost::Workload;
use crate::graph::{Graph, Halting, Init, Op, ParamId, Region, Tokens, op};
use build::{Builder, BuiltFile};

/// Which operator set the file asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opset {
    /// 17: norms and attention in primitives, which every runtime of the last years knows.
    Seventeen,
    /// 23: with the operators `RMSNormalization`, `RotaryEmbedding` and `Attention`. A norm over tokens stays in primitives, because
    /// `RMSNormalization` works along the last axes only.
    TwentyThree,
}

/// What becomes of a mixture of experts, for which the standard has no operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertForm {
    /// Every expert computes every token; the unchosen ones get weight 0.
    All,
    /// Each expert gets the tokens routed to it (`NonZero`, `Gather`, `ScatterND`: shapes known only when it runs).
    Routed,
}

/// How to write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Rows; `None` leaves them open (the axis is called `batch`).
    pub batch: Option<usize>,
    /// Operator set.
    pub opset: Opset,
    /// Experts.
    pub experts: ExpertForm,
    /// Name of a file beside the model that holds the weights; `None`: they are inside.
    pub external: Option<String>,
}

impl Default for Form {
    fn default() -> Self {
        Self { batch: None, opset: Opset::Seventeen, experts: ExpertForm::All, external: None }
    }
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The file.
    pub model: Vec<u8>,
    /// The file of the weights, if they are not inside.
    pub weights: Option<Vec<u8>>,
    /// FLOPs of one step of one row in the products that the graph's cost counts: as the file computes them, all experts if so.
    pub flops_per_row: f64,
    /// Names of the inputs with element type and shape, for people.
    pub inputs: Vec<String>,
    /// Names of the outputs likewise.
    pub outputs: Vec<String>,
}

/// Gives the elements of a parameter, or says why they cannot be had.
pub type ReadParam<'a> = &'a (dyn Fn(ParamId) -> Result<Cow<'a, [f32]>, String> + 'a);

/// Why a graph has no such file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    /// An operator that has no counterpart.
    #[error(
        "{what} cannot be written as ONNX\nhint: run this model on the backend `reference`, which has every operator"
    )]
    Unsupported {
        /// Operator or property.
        what: String,
    },
    /// A parameter could not be read.
    #[error("a weight cannot be read: {why}")]
    Unreadable {
        /// What was said, with the file and a hint where there is one.
        why: String,
    },
    /// Protobuf ends at 2 GiB.
    #[error(
        "the file would have {bytes} bytes, a protobuf message has at most 2 GiB\nhint: put the weights beside it (`--external`)"
    )]
    TooLarge {
        /// Bytes of the weights.
        bytes: u64,
    },
}

/// Largest file: protobuf's limit, less what is not weights.
const MAX_BYTES: u64 = (2 << 30) - (16 << 20);

/// Writes the graph. `params[i]` holds the elements of `graph.params[i]`.
pub fn export(graph: &Graph, params: &[Vec<f32>], form: &Form) -> Result<Exported, OnnxError> {
    export_with(graph, params, form, &[])
}

/// Writes the graph with more metadata: names and texts, such as the model's name.
pub fn export_with(
    graph: &Graph,
    params: &[Vec<f32>],
    form: &Form,
    notes: &[(&str, String)],
) -> Result<Exported, OnnxError> {
    let bytes = 4 * params.iter().map(|p| p.len() as u64).sum::<u64>();
    if form.external.is_none() && bytes > MAX_BYTES {
        return Err(OnnxError::TooLarge { bytes });
    }
    let read = |param: ParamId| Ok(Cow::Borrowed(params[param.0].as_slice()));
    let mut b = Builder::new(graph, &read, form);
    let mut args = Vec::new();
    for input in &graph.inputs {
        args.push(b.input(&input.name, proto::INT64, &[fixed(input.ty.tokens)?]));
    }
    let mut resident = lower::region(&mut b, &graph.admit, args)?;
    let mut args = Vec::new();
    for state in &graph.states {
        args.push(b.input(&state.name, proto::FLOAT, &[fixed(state.ty.tokens)?, state.ty.features]));
    }
    args.append(&mut resident);
    let results = lower::region(&mut b, &graph.step, args)?;
    let (states, outputs) = results.split_at(graph.states.len());
    for (output, value) in graph.outputs.iter().zip(outputs) {
        b.output(&output.name, value, &[fixed(output.ty.tokens)?, output.ty.features]);
    }
    for (state, value) in graph.states.iter().zip(states) {
        b.output(&format!("next.{}", state.name), value, &[fixed(state.ty.tokens)?, state.ty.features]);
    }
    let text = |key: &str, value: String| proto::Entry { key: Some(key.into()), value: Some(value) };
    let halting = match graph.halting {
        Halting::Never => "never",
        Halting::Positive => "q[0] > 0",
        Halting::OverContinue => "q[0] > q[1]",
    };
    let mut metadata = vec![
        text("family", graph.family.name().into()),
        text("halting", halting.into()),
        text("max_steps", graph.max_steps.to_string()),
    ];
    for state in &graph.states {
        let start = match state.init {
            Init::Vector(p) => params[p.0].clone(),
            Init::Zero | Init::Empty => vec![0.0; state.ty.features],
        };
        metadata.push(text(&format!("initial.{}", state.name), format!("{start:?}")));
    }
    metadata.extend(notes.iter().map(|(key, value)| text(key, value.clone())));
    let BuiltFile { graph: written, weights, inputs, outputs } = b.finish()?;
    let model = file_of(written, form.opset, metadata).encode_to_vec();
    Ok(Exported { model, weights, flops_per_row: flops(graph, form.experts), inputs, outputs })
}

/// The whole message.
fn file_of(graph: proto::Graph, opset: Opset, metadata_props: Vec<proto::Entry>) -> proto::Model {
    let (version, ir) = match opset {
        Opset::Seventeen => (17, 8),
        Opset::TwentyThree => (23, 11),
    };
    proto::Model {
        ir_version: Some(ir),
        producer_name: Some("ergometer".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        graph: Some(graph),
        opset_import: vec![proto::OperatorSet { domain: Some(String::new()), version: Some(version) }],
        metadata_props,
    }
}

fn fixed(tokens: Tokens) -> Result<usize, OnnxError> {
    match tokens {
        Tokens::Fixed(n) => Ok(n),
        Tokens::Length => Err(OnnxError::Unsupported { what: "an input of open length".into() }),
    }
}

/// The graph's own count, with all experts chosen where all compute, and all pairs of attention: a mask is added after the product.
fn flops(graph: &Graph, experts: ExpertForm) -> f64 {
    fn as_written(region: &mut Region, all: Option<&[usize]>) {
        for node in &mut region.nodes {
            match &mut node.op {
                Op::MoeMlp(op::MoeMlp { router, top_k, .. }) => *top_k = all.map_or(*top_k, |rows| rows[router.0]),
                Op::Attend(a) => (a.causal, a.window) = (false, None),
                Op::Repeat(op::Repeat { body, .. }) => as_written(body, all),
                _ => {}
            }
        }
    }
    let mut graph = graph.clone();
    let rows: Vec<usize> = graph.params.iter().map(|p| p.shape[0]).collect();
    for region in [&mut graph.admit, &mut graph.step] {
        as_written(region, (experts == ExpertForm::All).then_some(&rows));
    }
    let cost = graph.cost(&Workload::one());
    cost.flops_admit + cost.flops_steps
}

#[cfg(test)]
mod tests;
