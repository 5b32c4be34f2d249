//! What one case is and how it ended: the content of `case.json`.
//!
//! In: what the runner observed. Out: serde types, the readable path and the full key's hash. Must not: hold summaries
//! (those are [records](crate::record), recomputed from samples and predictions) or depend on a backend.
//!
//! A case that ends in an error keeps no samples and no predictions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::model_file::{FileFacts, OutputComparison};
use crate::precision::Precision;
pub use crate::routing::LayerRouting;

/// Version of `case.json`, `samples.csv`, `predictions.csv`, `attempts.csv` and `environment.json`; a new meaning gets
/// a new number.
pub const SCHEMA: u32 = 2;

/// The complete identity of a case: two cases never share a key, and equal keys mean comparable numbers on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseKey {
    /// Short name of the model as the suite calls it.
    pub model: String,
    /// sha256 over the model's configuration and weights, hex.
    pub model_hash: String,
    /// `dense`, `moe`, `recursive`, or `opaque` for a model whose inside cannot be seen.
    pub family: String,
    /// Name of the backend (or of the suite's external backend).
    pub backend: String,
    /// Every option that was asked for, defaults written out; `settings = searched` where the suite leaves them to a
    /// search, whose outcome is [`Case::settings`] and no part of the identity.
    pub backend_options: BTreeMap<String, String>,
    /// `f32`, `bf16`, `int8`, ...
    pub precision: String,
    /// Compute threads.
    pub threads: u32,
    /// Rows per iteration.
    pub batch: u32,
    /// `once`, `fixed-N`, `halt-N` or `halt-keep-N` (N: the most supervision steps).
    pub depth: String,
    /// Instruction set that the backend's kernels use, as it reports it; `unknown` where it cannot say.
    pub isa: String,
    /// `static` or `symbolic`; `searched` where a search decides.
    pub shapes: String,
    /// Name of the task as the suite calls it.
    pub task: String,
    /// sha256 over the task's inputs and answers, hex.
    pub task_hash: String,
    /// Seed of the task's examples.
    pub seed: u64,
    /// The word of the suite (`single-stream`, ...); of batches `offline` alone, whose size is `batch`.
    pub scenario: String,
}

impl CaseKey {
    /// The readable path, e.g. `sudoku-hard/trm-mlp/bf16/native/offline-b32/t2/halt-16`. Options that differ from
    /// nothing are left out, so that two keys can share a path: [`Case::id`] tells them apart.
    pub fn path(&self) -> String {
        let scenario = match self.scenario.as_str() {
            "offline" => format!("offline-b{}", self.batch),
            scenario => scenario.into(),
        };
        format!(
            "{}/{}/{}/{}/{}/t{}/{}",
            self.task, self.model, self.precision, self.backend, scenario, self.threads, self.depth
        )
    }

    /// The scenario without its number: cases of one kind that differ in `batch` too differ in size alone. A single
    /// stream is a batch of one.
    pub fn scenario_kind(&self) -> &str {
        match self.scenario.as_str() {
            "single-stream" => "offline",
            scenario => scenario.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-'),
        }
    }

    /// The full key as canonical JSON (fields in declaration order, maps sorted); hash it for an identity.
    pub fn canonical(&self) -> String {
        serde_json::to_string(self).expect("a key of strings and integers always serialises")
    }
}

/// How a case can end other than well. Each is a distinct, tested end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The backend or model cannot run here, and says why; no failure where the suite has `may_be_unavailable`.
    Unavailable,
    /// The program could not be started, or its log not be written.
    Spawn,
    /// The worker ended by itself before `done`, with this exit code, or its backend failed.
    Exit,
    /// The worker was ended by a signal.
    Signal,
    /// The worker ran out of memory (its own report, or killed by the kernel for memory).
    OutOfMemory,
    /// The worker was silent for too long, never silent and never done, or did not read or leave; it was killed.
    Timeout,
    /// A line that is not of the protocol, too long or out of turn; too many lines; too much on stderr.
    Protocol,
    /// Outputs of the wrong shape or count or not finite, unknown examples, timed answers that are not the scored ones,
    /// or times and steps that cannot be.
    WrongOutput,
    /// Outputs outside the named tolerance of the reference.
    Parity,
    /// What its outputs are judged by could not be made (a killed worker, a cache that cannot be written): no fault of
    /// this case; it is tried again for every case and when the run is resumed, and such a case is never finished.
    Reference,
    /// The model or its data could not be used (missing, truncated, refused).
    Model,
    /// The scorer that the suite names failed: no fault of this case, whose answers are kept; it is scored when the run
    /// is resumed, and such a case is never finished.
    Scorer,
    /// A reduced precision loses more right answers than its tolerance allows. No runner writes it: it follows from the
    /// answers of the run (see [`compare`](mod@crate::compare)).
    Inferior,
}

/// Why a case has no numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseError {
    /// Which end it was.
    pub kind: ErrorKind,
    /// What was tried, and what happened.
    pub message: String,
    /// What to do about it, where we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The verdict that must stand beside a speed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// Compared with the reference interpreter on the same inputs.
    Reference {
        /// Name of the tolerance, e.g. `f32-strict`.
        tolerance: String,
        /// Its value, over the largest reference magnitude.
        limit: f64,
        /// The largest error seen, over the largest reference magnitude.
        largest: f64,
        /// Examples compared.
        examples: u32,
        /// Supervision steps compared.
        steps: u32,
    },
    /// Compared with another backend, because the model's inside cannot be seen.
    Peer {
        /// Its name.
        peer: String,
        /// The largest error seen, over the largest magnitude of the peer.
        largest: f64,
        /// The limit that was applied.
        limit: f64,
    },
    /// No outputs to compare; right and wrong answers are all there is.
    AccuracyOnly,
}

/// A model that others are reduced forms of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Its name in the suite.
    pub model: String,
    /// Its hash, as in [`CaseKey::model_hash`].
    pub model_hash: String,
}

/// A value that is not there, and why: never a zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnavailableMetric {
    /// Name of the metric.
    pub metric: String,
    /// Why it is not there, and what to do about it.
    pub reason: String,
}

/// How the backend's settings were chosen: all that were tried, on this machine, on this model, in turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// What was done, with the numbers that decide how far to trust it.
    pub method: String,
    /// Index of the chosen one among those tried.
    pub chosen: usize,
    /// Every setting; the first is the backend's default.
    pub tried: Vec<Tried>,
}

/// One setting that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// The options, defaults written out.
    pub options: BTreeMap<String, String>,
    /// Median over the rounds of the median latency of an iteration, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<f64>,
    /// Latency over that of the default in the same round: median, lowest and highest of the rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<(f64, f64, f64)>,
    /// Why it has no numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CaseError>,
}

/// The interleaved group in which a case took turns with others: each of its timed blocks belongs to a round of the
/// interleaved group, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterleavedGroup {
    /// The same for the cases of one interleaved group, and for no others.
    pub id: String,
    /// Id of the case that its speed is compared with; none where the backend that the suite names as base has no case
    /// to take turns with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Rounds, and so timed blocks of each case.
    pub rounds: u32,
}

/// The graph's costs for one example of this case, before steps are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Parameters of the model, puzzle-embedding table left out.
    pub params_total: u64,
    /// Parameters that take part in one example.
    pub params_active: u64,
    /// FLOPs spent once per example, on admission.
    pub flops_admit: f64,
    /// FLOPs per example and supervision step.
    pub flops_step: f64,
    /// Bytes of weights as stored at the case's precision.
    pub weight_bytes: u64,
    /// Bytes of resident states per example at the case's precision.
    pub state_bytes: u64,
    /// Bytes of the weights that a supervision step uses, each counted once, at the case's precision; 0 in runs that
    /// did not count them.
    #[serde(default)]
    pub step_weight_bytes: f64,
    /// Bytes per example and supervision step if every operator reads its inputs and writes its results once, at the
    /// case's precision; 0 in runs that did not count them.
    #[serde(default)]
    pub step_value_bytes: f64,
}

impl Costs {
    /// Arithmetic intensity of a step: FLOP per byte, with all rows of the batch at work. `None` where the bytes were
    /// not counted.
    pub fn intensity(&self, batch: u32) -> Option<f64> {
        let batch = f64::from(batch);
        let bytes = self.step_weight_bytes + batch * self.step_value_bytes;
        Some(batch * self.flops_step / bytes).filter(|i| i.is_finite() && *i > 0.0 && bytes > 0.0)
    }
}

/// How the answers of a case were arrived at, beside what its key says (model, task, depth): two accuracies are
/// comparable where this is alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccuracyProtocol {
    /// Hash of the computation without its weights (a canonical text of its operators, shapes and parameters); none for
    /// a model whose inside cannot be seen. Runs of programs before that text have a hash of another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Which weights were used, as the model's config records it; none: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Rows (copies of a question) whose answers decide one output together, at most; 1: each row is an answer.
    pub votes: u32,
    /// How rows tell the model which puzzle they are of, e.g. `none` or `table of 40`.
    pub puzzle_ids: String,
}

/// What a rule that needs no model gets right on the case's task: a score means little without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// E.g. `copy the input`.
    pub name: String,
    /// Questions (examples, where the task decides row by row) that it gets right.
    pub right: u64,
    /// Of so many.
    pub of: u64,
}

impl Baseline {
    /// Share that it gets right.
    pub fn share(&self) -> f64 {
        self.right as f64 / self.of.max(1) as f64
    }
}

/// What a case ran with where its key says `searched`. Not part of its identity: a search is noisy, and two runs of one
/// suite must have the same cases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Every option that the backend was given, defaults written out.
    pub options: BTreeMap<String, String>,
    /// `static` or `symbolic`.
    pub shapes: String,
    /// Where the choice comes from: `searched in this run`, `remembered`, `pinned by FILE`, or `default` where nothing
    /// was searched.
    pub source: String,
}

/// What a suite wants a case to keep to. It is measured whether it does or not, and the records say by how much it
/// misses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// Bytes of peak memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<f64>,
    /// Seconds of an iteration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<f64>,
    /// J of an example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_energy: Option<f64>,
    /// Threads that worked on something else while it was timed.
    #[serde(default, skip_serializing_if = "is_none_of")]
    pub background: u32,
    /// Seconds to the first token within which a request is well served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_bound: Option<f64>,
    /// Mean seconds between its tokens, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpot_bound: Option<f64>,
    /// Seconds by which requests may be begun late though nothing else was served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_bound: Option<f64>,
}

fn is_none_of(n: &u32) -> bool {
    *n == 0
}

impl Constraints {
    /// Nothing was asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything in `case.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// [`SCHEMA`].
    pub schema: u32,
    /// sha256 of the canonical key, hex.
    pub id: String,
    /// Readable path.
    pub path: String,
    /// The full key.
    pub key: CaseKey,
    /// `None`: done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CaseError>,
    /// What its answers were checked against; `None` only beside an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The id of the case whose predictions give this case's accuracy (its own id, or that of the first case with the
    /// same model, backend, precision, depth rule and task).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_from: Option<String>,
    /// How its answers were arrived at; none in runs of programs that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<AccuracyProtocol>,
    /// Questions that the task decides from several examples (rows) each; 0: every example is a question of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub questions: u64,
    /// Why no answer is right or wrong (random inputs, a scorer of errors alone); none: answers are scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unscored: Option<String>,
    /// What trivial rules score on the case's task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub baselines: Vec<Baseline>,
    /// The settings that were tried for it, where the suite asks for a search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
    /// When the latest of the model's files was written, as RFC 3339: tells apart the cases of a model that changed
    /// between two parts of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_modified: Option<String>,
    /// What it ran with, where the suite leaves that to a search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// When it took turns with others, where the suite asks for that.
    #[serde(default, alias = "sitting", skip_serializing_if = "Option::is_none")]
    pub interleaved: Option<InterleavedGroup>,
    /// First timed block of each start of the worker, ascending; empty: one start, at the first block.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<u32>,
    /// The model that its model is a reduced form of, as the suite says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduces: Option<Original>,
    /// What the model's file says of itself, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileFacts>,
    /// How far its outputs were from those that they were compared with, output by output: of a model that is a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compared: Vec<OutputComparison>,
    /// The graph's costs, or `None` for a model whose inside cannot be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub costs: Option<Costs>,
    /// What the routers did while the examples were scored, layer by layer; empty where there are none, or nobody saw
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routing: Vec<LayerRouting>,
    /// What the suite wants it to keep to.
    #[serde(default, skip_serializing_if = "Constraints::is_empty")]
    pub constraints: Constraints,
    /// Name and version of the backend and whatever decides fairness, as it reported them.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    /// Metrics that could not be had.
    #[serde(default)]
    pub unavailable: Vec<UnavailableMetric>,
    /// Things that a reader of the numbers must know (drift, contention, a smoke-test task ...).
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Case {
    /// It is held to the accuracy of another case: its precision is a reduced one, or its model a reduced form.
    pub fn is_reduced(&self) -> bool {
        self.reduces.is_some() || !Precision::of(&self.key.precision).full
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The parts of a case's life in which something is observed, in their order.
pub const PHASES: [&str; 5] = ["load", "first", "warmup", "steady", "accuracy"];

/// One row of `samples.csv`: one observation of one metric. Its names are those of tables, so that no observation owns
/// a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Block of the run, from 0; blocks of several cases may take turns.
    pub block: u32,
    /// One of [`PHASES`].
    pub phase: &'static str,
    /// Iteration in the block; none for an observation of the whole block.
    pub iteration: Option<u64>,
    /// Monotonic time of the observation's start, nanoseconds since the run began.
    pub t_ns: u64,
    /// First example of the iteration (index into the task), if it belongs to examples.
    pub example: Option<u64>,
    /// Rows (examples) that the observation covers.
    pub rows: Option<u64>,
    /// Name in [`METRICS`](crate::metric::METRICS).
    pub metric: &'static str,
    /// In the metric's unit. For a whole-block observation of energy or time: the block's total, divided by nothing.
    pub value: f64,
}

/// One row of `predictions.csv`: an answer after a depth, scored by the harness. Of a task that decides row by row, an
/// answer before the one of record is kept (without its text) where it is the example's first, the first of all after
/// so many steps, or right where the one kept before was wrong or the other way round: those left out are as right as
/// the one before them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Index into the task's examples.
    pub example: u64,
    /// Cluster that the example belongs to (examples of one cluster are not independent).
    pub cluster: u64,
    /// Supervision steps (1 for a one-shot model) after which this is the answer.
    pub depth: u32,
    /// Whether it is the answer of record under the case's depth rule.
    pub last: bool,
    /// Halting logit, if the model has one.
    pub halt_logit: Option<f64>,
    /// The answer, tokens separated by blanks; empty where it was not kept.
    pub answer: String,
    /// Whole answer right.
    pub exact: bool,
    /// Right cells.
    pub right: u32,
    /// Cells that count.
    pub cells: u32,
    /// It keeps the task's rules, though it may not be the answer that was asked for; `None`, and no column, where the
    /// task has no such measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<bool>,
    /// How hard the example is, in its task's own unit (Sudoku: guesses); `None`, and no column, in runs of programs
    /// that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difficulty: Option<u32>,
}

/// One row of `sums.csv`: a pair of sums of one answer of record, as its scorer gave it. A metric is made of the pairs
/// of its name: mostly Σ numerator / Σ denominator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExampleSum {
    /// Index into the task's examples.
    pub example: u64,
    /// Examples of one cluster are not independent.
    pub cluster: u64,
    /// Name in [`METRICS`](crate::metric::METRICS), or `scorer_pair.NAME` of a scorer program's own.
    pub metric: String,
    /// Which part of the metric, e.g. a class.
    pub part: u32,
    /// Of `auroc` the score.
    pub numerator: f64,
    /// Of `auroc` the label, 0 or 1.
    pub denominator: f64,
}

/// One row of `attempts.csv`: an attempt at one output of a question, as the task decided it from the answers of the
/// question's rows. There is one set for every depth (each row with its answer at that depth, or its last one if it
/// stopped earlier).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Number of the question.
    pub question: u64,
    /// Its name, e.g. an ARC task's.
    pub name: String,
    /// Questions of one cluster are not independent.
    pub cluster: u64,
    /// Supervision steps that rows had at most.
    pub depth: u32,
    /// Decided from the rows' answers of record.
    pub last: bool,
    /// Which output of the question, from 0.
    pub part: u32,
    /// From 1; 0 in the one row of an output for which no row gave anything to attempt it with.
    pub attempt: u32,
    /// Where the attempt comes from, in the task's words.
    pub source: String,
    /// The whole output is right.
    pub right: bool,
    /// Rows that were answered for the question: what it cost.
    pub rows: u32,
}
