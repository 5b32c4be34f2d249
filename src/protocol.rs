//! The lines that harness and worker exchange: one JSON object a line, commands in, messages out.
//!
//! In: text lines. Out: [`Command`] and [`Message`]. Must not: do anything; what the lines mean in which order is in `worker` and `runner`.
//!
//! ```text
//! worker                                              harness
//! {"hello": {...}}                                →
//!                                                 ←   {"job": {...}}
//! {"loaded": {...}}                               →
//!                                                 ←   {"go": {"mode": "warm", ...}}
//! {"ready": {...}}                                →
//!                                                 ←   {"go": {"mode": "answer" | "compare" | "time", ...}}
//! {"measured"|"sample"|"counted"|"predictions"|...} →
//! {"done": {"block": n}}                          →   ... more go lines, then the end of input: the worker exits with 0
//! ```
//! `{"unavailable": {"what": "case", ...}}` or `{"failed": {...}}` may come instead of any message; the worker then exits.
//!
//! Rules that a worker has to keep; who breaks one fails its case, where the rule does not say otherwise (see `runner::claims` and
//! `runner::process`):
//!
//! | what | rule |
//! |---|---|
//! | lines | `outputs` and `predictions` have at most 256 MiB, all others 16 MiB; lists have at most so many elements as [`bounded`] says; all that names a block names the one that was asked for |
//! | texts | of a text the first 4096 bytes are kept, of a name 200, of a map 256 entries; what was cut says so |
//! | time of a whole answer | ten times (`timeout_seconds` + the seconds asked for + iterations x longest steps x the first iteration's time), and never more than ten times the seconds asked for + 60 times `timeout_seconds`, however much is said meanwhile |
//! | silence | at most `timeout_seconds`; stderr: at most 64 MiB; else the worker is killed |
//! | `loaded`, `ready` | their seconds are above 0 and within what the harness saw between its line and theirs; under nine tenths of that, less 10 ms and what the kernel let either wait for a processor, they are withheld |
//! | `loaded` | `weight_bytes` and `state_bytes` above the largest memory that the process had are withheld, unless it computes on a board |
//! | `sample` | numbered from 0 in order; from `t_ns` (start, CLOCK_MONOTONIC, for every program) to `t_ns` + `latency` within `go` and `measured`; none overlaps the next; none is shorter than 10 ns; as many as asked for, for as long as asked for |
//! | all samples | over all blocks they fill nine tenths of the time from `go` to `measured`, less 1 ms a block and what the kernel let harness or worker wait for a processor in between and before the first; else latency is withheld, and throughput is rows over that time |
//! | samples of a block | half of them or more are followed by the next one within as much time as they took, 30 us, and 20 us a row |
//! | `scenario` | of `job`, repeated in `loaded` by who knows it; where a worker must know it (`ergometer list scenarios`) the case is unavailable with one that does not |
//! | `row_seconds` | one for each row where the scenario times rows, none elsewhere; the rules for what they may be are in the scenario's file in `src/scenarios/` |
//! | `steps` | those of the answers told for the same examples in the same block, which are those of the scored ones; without `halt` every row takes `max_steps` |
//! | `counted` | at least 1, or 0; at most 1e18 a second; above 1.5 times the processor's ceiling it is withheld, and all that follows from it |
//! | `unavailable` | of what is the worker's to tell: `outputs`, `case`, and the metrics in [`WORKERS_OWN`]; of others it changes nothing, and the case has a note |
//!
//! `hello` comes before the job, so that the worker's memory can be read before it has seen a model. After `loaded`
//! each `go` runs one block; the modes are those of [`Mode`].

pub mod bounded;
pub mod line;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ergometer_reports::case::LayerRouting;
use ergometer_suites::task::StartNoise;
use ergometer_suites::{Answer, AnswerKind, FileForm, Reading};
use serde::{Deserialize, Serialize};

/// Version of these lines; hello carries it.
pub const PROTOCOL: u32 = 1;

/// The longest line that either side reads: a job, or a worker's `outputs` or `predictions`.
pub const MAX_LINE: usize = 256 << 20;

/// The longest line of any other kind.
pub const MAX_SHORT_LINE: usize = 16 << 20;

/// Whether a line that begins so may be a long one.
pub fn may_be_long(line: &[u8]) -> bool {
    begins(line, b"\"outputs\"") || begins(line, b"\"predictions\"")
}

/// Whether a line's object begins with this key, quotes included.
fn begins(line: &[u8], key: &[u8]) -> bool {
    let start = line.trim_ascii_start().strip_prefix(b"{").unwrap_or_default();
    start.trim_ascii_start().starts_with(key)
}

/// Metrics that a worker may say it cannot tell; all others are read from outside, or follow from what is.
pub const WORKERS_OWN: &[&str] =
    &["flops_executed", "weight_bytes", "state_bytes", "router_entropy", "expert_load_max", "parity_error"];

/// What the harness says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
// one of them at a time, and the larger one once
#[allow(clippy::large_enum_variant)]
pub enum Command {
    /// What to load; the first line.
    Job(Job),
    /// What to do now.
    Go(Go),
}

/// A model, how to load it, and every input it will be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Folder or file of the model.
    pub model: PathBuf,
    /// sha256 over its configuration and weights as the harness saw them: what is loaded must still be that.
    #[serde(default)]
    pub model_hash: String,
    /// Name of the backend.
    pub backend: String,
    /// Its options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// `f32`, ...
    pub precision: String,
    /// Compute threads.
    pub threads: usize,
    /// The scenario as a suite writes it. Those that a worker must know are repeated in its `loaded`: who does not is not asked to time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scenario: String,
    /// Rows per iteration.
    pub batch: usize,
    /// Most supervision steps.
    pub max_steps: u32,
    /// Stop a row when the halting head says so.
    pub halt: bool,
    /// Go on computing rows that have stopped until the last of the batch has; their answers stay those of the step at which they stopped.
    /// Only workers of this program are asked to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_halted: bool,
    /// Tokens of every example, in the task's order. The answers stay with the harness.
    pub inputs: Vec<Vec<u32>>,
    /// Puzzle identifier of every example.
    pub puzzle_ids: Vec<u32>,
    /// Of every example the noise on the start of its states, or none; empty: no example has any. Only workers of this program are given it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<Option<StartNoise>>,
    /// What examples are answered with; tokens if it does not say.
    #[serde(default, skip_serializing_if = "is_tokens")]
    pub answers: AnswerKind,
    /// A safetensors file with what the model's inputs are given, where examples are arrays; `inputs` is empty then. A tensor `[examples, ..]` for
    /// each input by its name where all examples have one shape, else a tensor `NAME.INDEX` an example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrays: Option<PathBuf>,
    /// How an answer is read off what the model gives.
    #[serde(default, skip_serializing_if = "is_logits")]
    pub reading: Reading,
    /// Of a model that is a file: what the suite binds of it.
    #[serde(default, skip_serializing_if = "FileForm::is_empty")]
    pub form: FileForm,
    /// Of a language model: what it is to write and to score. Its inputs are prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<LanguageJob>,
}

/// See [`Job::language`]. Decoding is greedy: the highest logit, of equal ones the lowest id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LanguageJob {
    /// Most tokens of a sequence, prompt and what follows together.
    pub context: usize,
    /// Of each example the most tokens to write. Where continuations are scored too, `answer` does both.
    pub output: Vec<u32>,
    /// Of each example its continuations, whose tokens' log-probabilities are asked for; empty: it is answered with what is written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rest: Vec<Vec<Vec<u32>>>,
    /// Tokens that end what is written; the end belongs to the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub end: Vec<u32>,
    /// Write on past them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_end: bool,
    /// Scenario `arrivals-trace`: of each example the seconds from the begin of an iteration at which it is due, ascending. An iteration has all of
    /// them; where a block asks for no seconds, the first `n`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arrivals: Vec<f64>,
}

fn is_logits(reading: &Reading) -> bool {
    *reading == Reading::Logits
}

fn is_tokens(kind: &AnswerKind) -> bool {
    *kind == AnswerKind::Tokens
}

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// First iteration and warm-up; answered by `ready`. Comes again, for one iteration, before each timed block of cases that take turns.
    Warm,
    /// Every example once, with the answer after each step; `predictions`, then `done`.
    Answer,
    /// Outputs for the inputs of a vectors file, step by step from its recorded states; `outputs`, then `done`. Of a model that is a file: its outputs
    /// for the first `n` examples, or for the arrays of the file `vectors`.
    Compare,
    /// Write a vectors file (the reference backend only); `done`.
    Record,
    /// Timed iterations; `sample`, `counted` and the `predictions` of the examples met, then `done`.
    Time,
}

/// One block of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Go {
    /// Number of the block, from 0.
    pub block: u32,
    /// What it is for.
    pub mode: Mode,
    /// `time`: least iterations. `record`, and `compare` of a model that is a file: examples.
    #[serde(default)]
    pub n: u64,
    /// `time`, `warm`: least seconds.
    #[serde(default)]
    pub seconds: f64,
    /// `record`: supervision steps.
    #[serde(default)]
    pub steps: u32,
    /// `compare`, `record`: the vectors file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<PathBuf>,
    /// `compare`, `record` of a language model with experts: how many of each layer every token meets in this block, instead of the model's
    /// own number. Where all are met, no near tie of a router makes another net of it. A worker that cannot says so of `outputs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_experts: Option<u32>,
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Started; sent before anything is read.
    Hello(Hello),
    /// The model is loaded.
    Loaded(Loaded),
    /// Warm and waiting.
    Ready(Ready),
    /// One timed iteration.
    Sample(IterationSample),
    /// Something cannot be had: `what` is a metric, `outputs`, or `case`.
    Unavailable(NotThere),
    /// Totals of a block.
    Counted(Counted),
    /// Answers.
    Predictions(Predictions),
    /// What the routers of a mixture of experts did in an `answer` block; before its `done`, at most once.
    Routed(Routed),
    /// Raw outputs of one step.
    Outputs(Outputs),
    /// The timed iterations are over; what follows is reporting. Meters stop here (or at `done`, where a program does not send it).
    Measured(Done),
    /// The block is over.
    Done(Done),
    /// The worker gives up, and says why.
    Failed(Failed),
}

impl Message {
    /// Its name on the line.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Loaded(_) => "loaded",
            Self::Ready(_) => "ready",
            Self::Sample(_) => "sample",
            Self::Unavailable(_) => "unavailable",
            Self::Counted(_) => "counted",
            Self::Predictions(_) => "predictions",
            Self::Routed(_) => "routed",
            Self::Outputs(_) => "outputs",
            Self::Measured(_) => "measured",
            Self::Done(_) => "done",
            Self::Failed(_) => "failed",
        }
    }

    /// The block that it answers, where it names one.
    pub fn block(&self) -> Option<u32> {
        match self {
            Self::Sample(s) => Some(s.block),
            Self::Counted(c) => Some(c.block),
            Self::Predictions(p) => Some(p.block),
            Self::Routed(r) => Some(r.block),
            Self::Measured(d) | Self::Done(d) => Some(d.block),
            Self::Hello(_)
            | Self::Loaded(_)
            | Self::Ready(_)
            | Self::Unavailable(_)
            | Self::Outputs(_)
            | Self::Failed(_) => None,
        }
    }
}

/// See [`Message::Hello`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Name of the program.
    #[serde(deserialize_with = "bounded::name")]
    pub name: String,
    /// Its version: a number without a version is worthless.
    #[serde(deserialize_with = "bounded::text")]
    pub version: String,
}

/// See [`Message::Loaded`]. What a program cannot say stays out and becomes Unavailable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// Seconds from the job line to here.
    pub seconds: f64,
    /// Versions of the libraries in use and the features that decide fairness.
    #[serde(default, deserialize_with = "bounded::texts")]
    pub versions: BTreeMap<String, String>,
    /// Options in effect, defaults written out.
    #[serde(default, deserialize_with = "bounded::texts")]
    pub options: BTreeMap<String, String>,
    /// Instruction set of the kernels.
    #[serde(default, deserialize_with = "bounded::some_text")]
    pub isa: Option<String>,
    /// Bytes of weights held.
    #[serde(default)]
    pub weight_bytes: Option<u64>,
    /// Bytes of resident states for the whole batch.
    #[serde(default)]
    pub state_bytes: Option<u64>,
    /// Of a language model: bytes in which a number of keys or values is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_number_bytes: Option<f64>,
    /// The job's scenario, where the program knows it.
    #[serde(default, deserialize_with = "bounded::some_name", skip_serializing_if = "Option::is_none")]
    pub scenario: Option<String>,
}

/// See [`Message::Ready`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Seconds of the first iteration after loading.
    pub first_seconds: f64,
}

/// See [`Message::Sample`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IterationSample {
    /// Block.
    pub block: u32,
    /// Iteration in the block, from 0.
    pub iteration: u64,
    /// Start, nanoseconds of the system's monotonic clock.
    pub t_ns: u64,
    /// First example.
    pub example: u64,
    /// Examples in the iteration.
    pub rows: u64,
    /// From handing over the inputs to holding the outputs, seconds.
    pub latency: f64,
    /// Supervision steps, summed over the rows.
    pub steps: u64,
    /// Scenarios that time rows: seconds from the start of the iteration to holding the outputs of each row, in the order of the rows.
    #[serde(default, deserialize_with = "bounded::numbers", skip_serializing_if = "Vec::is_empty")]
    pub row_seconds: Vec<f64>,
    /// Scenarios of language models: the iteration's requests.
    #[serde(default, deserialize_with = "bounded::requests", skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestTimes>,
}

/// When what happened to a request, seconds from the start of its iteration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestTimes {
    /// Index into the job's inputs.
    pub example: u64,
    /// When it was due to come.
    pub arrived: f64,
    /// When its prompt began to be read.
    pub begun: f64,
    /// When each written token was chosen, its logits in memory.
    #[serde(deserialize_with = "bounded::numbers")]
    pub tokens: Vec<f64>,
}

/// See [`Message::Unavailable`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotThere {
    /// A metric's name, `outputs`, or `case`.
    #[serde(deserialize_with = "bounded::name")]
    pub what: String,
    /// Why.
    #[serde(deserialize_with = "bounded::text")]
    pub reason: String,
    /// What to do about it.
    #[serde(default, deserialize_with = "bounded::some_text", skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// See [`Message::Counted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Block.
    pub block: u32,
    /// FLOPs executed in the block, padding included.
    pub flops_executed: f64,
}

/// See [`Message::Predictions`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// Block.
    pub block: u32,
    /// One answer each.
    #[serde(deserialize_with = "bounded::answers")]
    pub rows: Vec<PredictionRow>,
}

/// See [`Message::Routed`]. Who does not see its routers says `unavailable` of `router_entropy` and `expert_load_max`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Routed {
    /// Block.
    pub block: u32,
    /// The layers that have a router, in the order of the net.
    #[serde(deserialize_with = "bounded::layers")]
    pub layers: Vec<LayerRouting>,
}

/// The answer to one example after some steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictionRow {
    /// Index into the job's inputs.
    pub example: u64,
    /// Steps after which this is the answer.
    pub depth: u32,
    /// It is the answer of record.
    pub last: bool,
    /// Halting logit, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halt_logit: Option<f64>,
    /// A list of tokens, one a cell; of another kind an object of one key: `class`, `text`, `numbers` or `likelihoods`.
    #[serde(serialize_with = "bounded::write_answer", deserialize_with = "bounded::answer")]
    pub answer: Answer,
    /// Of a language model whose answer is likelihoods: what it writes after the prompt, which timed answers are held to.
    #[serde(default, deserialize_with = "bounded::some_tokens", skip_serializing_if = "Option::is_none")]
    pub written: Option<Vec<u32>>,
}

/// See [`Message::Outputs`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// Supervision step, from 1.
    pub step: u32,
    /// All rows of the output `logits`, `[rows, tokens, vocabulary]`. JSON has no NaN: `null` is one.
    #[serde(deserialize_with = "bounded::floats")]
    pub logits: Vec<f32>,
    /// All rows of the halting output, `[rows, 2]`, if there is one and the program can see it.
    #[serde(default, deserialize_with = "bounded::floats", skip_serializing_if = "Vec::is_empty")]
    pub q: Vec<f32>,
    /// The states after the step, `[rows, tokens, features]` each, if the program can see them.
    #[serde(default, deserialize_with = "bounded::lists", skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<Vec<f32>>,
    /// Of a model that is a file: every output that is no state, in the file's order, all rows of each; the fields above are empty then.
    #[serde(default, deserialize_with = "bounded::lists", skip_serializing_if = "Vec::is_empty")]
    pub arrays: Vec<Vec<f32>>,
}

/// See [`Message::Done`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Block.
    pub block: u32,
}

/// See [`Message::Failed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What was tried, and what happened.
    #[serde(deserialize_with = "bounded::text")]
    pub message: String,
}

/// Failures that a worker can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Memory ran out.
    OutOfMemory,
    /// The model cannot be used.
    Model,
    /// The program of an external backend could not be started.
    Spawn,
    /// The backend failed while loading or running.
    Backend,
    /// The harness sent something that makes no sense here.
    Protocol,
    /// The model's outputs cannot be an answer: they hold NaN.
    WrongOutput,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_documented() {
        let go = Command::Go(Go {
            block: 2,
            mode: Mode::Time,
            n: 5,
            seconds: 1.5,
            steps: 0,
            vectors: None,
            active_experts: None,
        });
        let line = serde_json::to_string(&go).unwrap();
        assert_eq!(line, r#"{"go":{"block":2,"mode":"time","n":5,"seconds":1.5,"steps":0}}"#);
        assert_eq!(
            serde_json::from_str::<Command>(r#"{"go":{"block":2,"mode":"time","n":5,"seconds":1.5}}"#).unwrap(),
            go
        );
        let done: Message = serde_json::from_str(r#"{"done":{"block":2}}"#).unwrap();
        assert_eq!(done, Message::Done(Done { block: 2 }));
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in "\\PC{0,120}") {
            let _ = serde_json::from_str::<Message>(&line);
            let _ = serde_json::from_str::<Command>(&line);
        }
    }
}
