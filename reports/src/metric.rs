//! The one closed table of metrics: name, unit, better-direction, meaning.
//!
//! In: nothing. Out: [`METRICS`] and look-ups in it. Must not: know any run, backend or task. A new metric is one line here.

use serde::{Deserialize, Serialize};

/// Which direction of a metric is an improvement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// A fact about the case; neither direction is an improvement.
    Neither,
}

/// One row of the table: what a metric is called, counted in and good for.
#[derive(Debug)]
pub struct Metric {
    /// The name used in files and columns.
    pub name: &'static str,
    /// SI unit or `1` for a dimensionless ratio, always unscaled (s, J, B; never ms, kWh, MiB); `points` are percentage points.
    pub unit: &'static str,
    /// Which direction is an improvement.
    pub better: Better,
    /// One sentence that defines it.
    pub meaning: &'static str,
}

macro_rules! metrics {
    ($($name:literal $unit:literal $better:ident $meaning:literal;)*) => {
        /// Every metric that a sample or a record may carry.
        pub const METRICS: &[Metric] = &[$(Metric { name: $name, unit: $unit, better: Better::$better, meaning: $meaning }),*];
    };
}

metrics! {
    "accuracy" "1" Higher "share of questions right under the task's official rule: of examples whose whole answer is right, or, where a task decides questions from several rows, of questions with every output right in one of the allowed attempts";
    "accuracy_single" "1" Higher "share of rows whose own answer is wholly right, without attempts or votes (tasks that decide questions from several rows)";
    "accuracy_outputs" "1" Higher "share of outputs right in one of their attempts, whatever the other outputs of their question (tasks that decide questions from several rows)";
    "cell_accuracy" "1" Higher "share of answer cells that are right, over all examples";
    "accuracy_vs_f32" "points" Higher "accuracy minus that of full precision on the same examples, in percentage points (reduced precisions only)";
    "latency" "s" Lower "time of one iteration in the steady phase, from handing over the inputs to holding the outputs (record: median)";
    "latency_p99" "s" Lower "99th percentile of latency; given only where n allows an upper bound";
    "throughput" "1/s" Higher "examples finished per second of steady time";
    "window" "s" Neither "time of the timed blocks as the harness saw it, from `go` to `measured`, less what the kernel made harness or worker wait for a processor at either end";
    "load_time" "s" Lower "from the job line to the model being loaded";
    "first_latency" "s" Lower "the first iteration after loading, cold";
    "cpu_time" "s" Lower "processor time of the worker per example, all its threads, steady phase";
    "memory_base" "B" Neither "resident memory of the worker before it saw the model";
    "memory_load" "B" Lower "peak resident memory while loading";
    "memory_warmup" "B" Lower "peak resident memory from loaded to ready: first iteration and warm-up";
    "memory_peak" "B" Lower "peak resident memory in the steady phase";
    "memory_added" "B" Lower "memory_peak minus memory_base";
    "weight_bytes" "B" Lower "bytes of weights that the backend holds, packed copies included";
    "state_bytes" "B" Lower "bytes of resident states for the case's batch";
    "energy_cpu" "J" Lower "gross energy of all processor packages per example, steady phase";
    "energy_cpu_edge" "J" Lower "the most that the edges of the blocks can put into energy_cpu, or take from it";
    "energy_dram" "J" Lower "gross energy of the memory domain per example, steady phase";
    "energy_dram_edge" "J" Lower "the most that the edges of the blocks can put into energy_dram, or take from it";
    "energy_gpu" "J" Lower "gross energy of the GPU boards per example, steady phase";
    "energy_gpu_edge" "J" Lower "the most that the edges of the blocks can put into energy_gpu, or take from it";
    "joules_per_right" "J" Lower "gross joules (packages, and boards where the backend computes on them) per right answer; a question is charged for all its rows";
    "board_joules_per_right" "J" Lower "gross joules of the GPU boards alone per right answer (cases that compute on boards only): what processors and memory use meanwhile is not in it";
    "steps_used" "1" Lower "recursion steps (or generated tokens) spent on an example";
    "flops_model" "FLOP" Lower "floating-point operations that the mathematics needs per example at the steps used";
    "flops_executed" "FLOP" Lower "floating-point operations of matrix products and attention that the backend carried out per example, padding included";
    "flop_rate" "FLOP/s" Higher "flops_model of the steady phase over its time";
    "share_of_ceiling" "1" Higher "flop_rate over what the processor can do at best in the case's precision, with its threads and, in f32, its instruction set";
    "params_total" "1" Neither "parameters of the model, the table of puzzle embeddings left out";
    "params_active" "1" Neither "parameters that take part in one example";
    "router_entropy" "1" Higher "entropy of the load of the experts over its maximum, ln of their number, in the layer where it is smallest";
    "expert_load_max" "1" Lower "load of the busiest expert over an even share, in the layer where it is largest";
    "parity_error" "1" Lower "largest difference to the reference interpreter in logits, halting head and states, each over its own largest magnitude";
    "harness_cpu" "1" Lower "processor time of the harness process over the time of the worker's measured blocks";
    "foreign_load" "1" Lower "processors busy with other programs, on average while the case's blocks were timed";
    "speedup" "1" Higher "latency of the base over latency of this case, round by round of one sitting in which they took turns (such cases only)";
}

/// Metrics that exist only where a task decides questions from several rows; other cases have no record of them.
pub const OF_QUESTIONS: [&str; 2] = ["accuracy_single", "accuracy_outputs"];

/// Ending of the metric that holds the edge error of an energy metric: `energy_cpu` and `energy_cpu_edge`.
pub const EDGE: &str = "_edge";

/// The metric that holds the edge error of this one, if it has one.
pub fn edge_of(name: &str) -> Option<&'static str> {
    METRICS.iter().map(|m| m.name).find(|edge| edge.strip_suffix(EDGE) == Some(name))
}

/// The row with this name.
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|m| m.name == name)
}
