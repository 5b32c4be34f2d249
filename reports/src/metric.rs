//! The one closed table of metrics: name, unit, better-direction, meaning, how a record is made of observations, which
//! cases have it, and how it is shown.
//!
//! In: nothing. Out: [`METRICS`] and look-ups in it. Must not: know any run, backend or task. A new metric is one row
//! here, if its way of being summarised is one that there is; a new way is a variant of [`How`].

use serde::{Deserialize, Serialize};

use crate::case::{Costs, LayerRouting};

use self::Better::{Higher, Lower, Neither};

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

/// One row of the table: what a metric is called, counted in and good for, how it is found and how it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name used in files and columns.
    pub name: &'static str,
    /// SI unit or `1` for a dimensionless ratio, always unscaled (s, J, B; never ms, kWh, MiB); `points` are percentage
    /// points.
    pub unit: &'static str,
    /// Which direction is an improvement.
    pub better: Better,
    /// How its record is made of what was observed.
    pub how: How,
    /// One sentence that defines it.
    pub meaning: &'static str,
    /// Which cases have a record of it.
    pub of: Of,
    /// How people see its number.
    pub shown: Shown,
    /// Its column in the headline table, if it has one.
    pub column: Option<HeadlineColumn>,
}

/// How the record of a metric is made of what was observed.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// Share of right answers, counted so.
    Right(Right),
    /// Accuracy minus that of the same answers in full precision.
    AgainstFullPrecision,
    /// Median of the iterations' times.
    Latency,
    /// Upper bound of their 99th percentile.
    Tail,
    /// Rows over time.
    Throughput,
    /// The time that the harness saw.
    Window,
    /// The one observation, or the median of several.
    Single,
    /// Median of what iterations observed of their rows, with an interval over blocks.
    Rows,
    /// The largest observation.
    Largest,
    /// The largest observation of bytes that a worker says it holds, if its process can have held them.
    Held,
    /// Mean over blocks.
    Mean,
    /// Totals of blocks over their examples.
    PerExample,
    /// Totals of blocks over the time that the harness saw.
    PerSecond,
    /// As [`How::PerExample`], of joules, with the error of the blocks' edges.
    Energy(Domain),
    /// The edge error of this energy metric, over examples.
    EdgeOf(&'static str),
    /// Largest peak of the blocks.
    MemoryPeak,
    /// `memory_peak` minus `memory_base`.
    MemoryAdded,
    /// Energy of the domains in which the case computes, over right answers.
    JoulesPerRight,
    /// The boards' part of it.
    BoardJoulesPerRight,
    /// Steps over examples.
    Steps,
    /// Operations that the graph needs at the steps used.
    FlopsModel,
    /// As [`How::PerExample`], of the operations that a worker counted, held to what the machine can do.
    FlopsExecuted,
    /// Operations over time.
    FlopRate,
    /// [`How::FlopRate`] over the case's ceiling.
    ShareOfCeiling,
    /// A count of the graph.
    Counted(fn(&Costs) -> f64),
    /// The most uneven of the routed layers.
    Routed(RouterStatistic),
    /// The largest error that the verdict saw.
    Parity,
    /// Ratio of latencies, round by round.
    Speedup,
    /// The halting head's probability against right and wrong answers.
    Halting(HaltingError),
    /// Made of the sums of a scorer.
    Sums(Combined),
    /// Iterations that took longer than the deadline.
    DeadlineMissed,
    /// The longest iteration over the deadline.
    DeadlineOverrun,
    /// Mean difference of iterations that follow one another.
    Jitter,
    /// Peak memory over what the suite allows.
    OverMemoryLimit,
    /// Energy of an example over what the suite allows.
    OverMaxEnergy,
    /// Bound of the 99th percentile of what iterations observed of this metric.
    TailOf(&'static str),
    /// Mean of what was observed at each token of parity's sequences.
    Positions,
    /// What iterations counted of their rows: Σ / Σ rows.
    PerRequest,
    /// Σ tokens / Σ time, of observations that are rates of so many tokens.
    TokenRate,
    /// How late requests were begun that came while nothing else was served: 95th percentile.
    ArrivalLag,
    /// Requests that were served within the suite's bounds, over time.
    Goodput,
    /// The same over all requests.
    GoodputShare,
    /// Tokens of requests over the joules of the same blocks.
    TokensPerJoule(TokensOf),
    /// Bytes of weights that a decoded token reads, over the time between tokens, over what the memory gives.
    BandwidthShare,
    /// Read from the log of a training ([`crate::training`]), not from a run.
    FromLog,
}

/// Which tokens of a request are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokensOf {
    /// Those of prompts.
    Input,
    /// Those that were written.
    Output,
    /// Both.
    Total,
}

/// What is wrong with the probability that a halting head gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaltingError {
    /// Its mean over the share of right answers.
    Overconfidence,
    /// Its mean squared distance to 1 for a right answer and 0 for a wrong one.
    Brier,
}

/// How the sums of examples become a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combined {
    /// Σ numerator / Σ denominator, of counts: a share.
    Share,
    /// Σ numerator / Σ denominator.
    Ratio,
    /// The same, between 0 and 1.
    Fraction,
    /// Its root.
    Root,
    /// 1 minus it.
    Explained,
    /// Mean over parts of the ratio of each.
    MeanOfParts,
    /// Σ numerator / Σ denominator of part 0, where part 1 has the squares: nats of tokens.
    Surprise,
    /// e to the power of it.
    Perplexity,
    /// Area under the ROC curve: numerators are scores, denominators labels.
    Area,
}

/// What the names of a scorer program's own pairs begin with.
pub const PAIR: &str = "scorer_pair.";

/// What is counted as right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// A question, under the official rule of its task.
    Questions,
    /// A row, by its own answer.
    Rows,
    /// An output of a question.
    Outputs,
    /// A cell.
    Cells,
    /// A row whose answer keeps the task's rules.
    Valid,
}

/// What an energy metric covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// What it has one or several of.
    pub parts: &'static str,
    /// What it is called where it stands alone.
    pub title: &'static str,
}

/// How the most uneven of several routed layers is found.
#[derive(Clone, Copy, Debug)]
pub struct RouterStatistic {
    /// The number of one layer.
    pub of: fn(&LayerRouting) -> Option<f64>,
    /// The more uneven of two.
    pub worst: fn(f64, f64) -> f64,
    /// Which one that is, in words.
    pub which: &'static str,
}

/// Which cases have a record of a metric; others have none, not even a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// All.
    Every,
    /// Those whose task decides questions from several rows.
    Questions,
    /// Those whose task tells an answer that keeps its rules from the one that it asks for.
    Valid,
    /// Those whose scorer sums it.
    Summed,
    /// Those in reduced precision.
    Reduced,
    /// Those that compute on boards.
    Boards,
    /// Those that took turns with others.
    Turns,
    /// Those whose answers have a halting logit.
    Halting,
    /// Those of a scenario whose word begins so.
    Scenario(&'static str),
    /// Those of a scenario whose word begins in one of these ways.
    Scenarios(&'static [&'static str]),
    /// Those that are to keep to a deadline.
    Deadline,
    /// Those that write what they read, with bounds of both times.
    Bounded,
    /// Those that are to keep to an amount of memory.
    MemoryLimit,
    /// Those that are to keep to an amount of energy.
    MaxEnergy,
    /// None of a run: trainings have it, by their logs.
    Trainings,
}

/// How people see a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Three significant digits, in its unit with an SI prefix.
    Number,
    /// Three significant digits, in per cent.
    Percent,
    /// One decimal place, in per cent.
    Share,
    /// A difference, with its sign and two decimal places.
    Points,
    /// Without decimal places.
    Whole,
}

/// A column of the headline table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadlineColumn {
    /// Name of its metric.
    pub metric: &'static str,
    /// Its title.
    pub title: &'static str,
    /// A shorter one, for terminals.
    pub short: &'static str,
}

const fn row(name: &'static str, unit: &'static str, better: Better, how: How, meaning: &'static str) -> Metric {
    Metric { name, unit, better, how, meaning, of: Of::Every, shown: Shown::Number, column: None }
}

impl Metric {
    const fn of(self, of: Of) -> Self {
        Self { of, ..self }
    }

    const fn shown(self, shown: Shown) -> Self {
        Self { shown, ..self }
    }

    const fn column(self, title: &'static str, short: &'static str) -> Self {
        Self { column: Some(HeadlineColumn { metric: self.name, title, short }), ..self }
    }
}

/// Scenarios of language models.
const LANGUAGE: &[&str] = &["generate-", "prefill-", "decode-", "arrivals-"];
/// Those of them that read prompts, those that write past a first token, those that do either by itself, and those that do both.
const READING: &[&str] = &["generate-", "prefill-", "arrivals-"];
const WRITING: &[&str] = &["generate-", "decode-", "arrivals-"];
const READING_APART: &[&str] = &["generate-", "prefill-"];
const WRITING_APART: &[&str] = &["generate-", "decode-"];
/// Those whose requests come by themselves.
const ARRIVING: &[&str] = &["arrivals-"];
/// Scenarios whose requests have both times.
pub(crate) const BOTH: &[&str] = &["generate-", "arrivals-"];

/// Whether a scenario (its word in a key) is one of language models.
pub fn is_of_language(scenario: &str) -> bool {
    LANGUAGE.iter().any(|word| scenario.starts_with(word))
}

/// Every metric that a sample or a record may carry.
#[rustfmt::skip] // a metric a line
pub const METRICS: &[Metric] = &[
    row("accuracy", "1", Higher, How::Right(Right::Questions), "share of questions right under the task's official rule: of examples whose whole answer is right, or, where a task decides questions from several rows, of questions with every output right in one of the allowed attempts").shown(Shown::Share).column("accuracy", "accuracy"),
    row("accuracy_single", "1", Higher, How::Right(Right::Rows), "share of rows whose own answer is wholly right, without attempts or votes (tasks that decide questions from several rows)").of(Of::Questions).shown(Shown::Share),
    row("accuracy_outputs", "1", Higher, How::Right(Right::Outputs), "share of outputs right in one of their attempts, whatever the other outputs of their question (tasks that decide questions from several rows)").of(Of::Questions).shown(Shown::Share),
    row("cell_accuracy", "1", Higher, How::Right(Right::Cells), "share of answer cells that are right, over all examples").shown(Shown::Share),
    row("accuracy_valid", "1", Higher, How::Right(Right::Valid), "share of examples whose answer keeps the rules of its task, whether or not it is the one that is asked for: of mazes, one path from start to goal, of any length (tasks that tell the two apart)").of(Of::Valid).shown(Shown::Share),
    row("accuracy_top1", "1", Higher, How::Sums(Combined::Share), "share of examples whose label is the class with the highest score (scorers `top-K` that count more than one class as right)").of(Of::Summed).shown(Shown::Share),
    row("auroc", "1", Higher, How::Sums(Combined::Area), "area under the receiver operating characteristic: share of pairs of a positive and a negative example in which the positive one has the higher score, ties counting half (scorer `binary`)").of(Of::Summed).column("AUROC", "AUROC"),
    row("sensitivity", "1", Higher, How::Sums(Combined::Share), "share of positive examples whose score is at least the threshold (scorer `binary`)").of(Of::Summed).shown(Shown::Share),
    row("specificity", "1", Higher, How::Sums(Combined::Share), "share of negative examples whose score is below the threshold (scorer `binary`)").of(Of::Summed).shown(Shown::Share),
    row("mae", "1", Lower, How::Sums(Combined::Ratio), "mean absolute error, in the unit of the labels (scorer `regression`)").of(Of::Summed).column("MAE", "MAE"),
    row("rmse", "1", Lower, How::Sums(Combined::Root), "root of the mean squared error, in the unit of the labels (scorer `regression`)").of(Of::Summed),
    row("r2", "1", Higher, How::Sums(Combined::Explained), "share of the labels' variance that answers explain: 1 minus the sum of squared errors over that of squared distances from the labels' mean (scorer `regression`); below 0: worse than the mean").of(Of::Summed).column("R²", "R²"),
    row("cer", "1", Lower, How::Sums(Combined::Ratio), "character error rate: edit distance to the label over the label's length, in characters, or in tokens where labels are tokens (scorer `edit`); may exceed 1").of(Of::Summed).shown(Shown::Percent).column("character errors", "CER"),
    row("wer", "1", Lower, How::Sums(Combined::Ratio), "word error rate: the same in words, which blanks part (scorer `edit`, texts only)").of(Of::Summed).shown(Shown::Percent),
    row("iou", "1", Higher, How::Sums(Combined::MeanOfParts), "intersection over union of masks: cells that answer and label share over those that either has, summed over examples; mean over classes without the background (scorer `iou`)").of(Of::Summed).column("IoU", "IoU"),
    row("score", "1", Higher, How::Sums(Combined::Fraction), "mean of the scores, 0 to 1, that the suite's scorer program gives").of(Of::Summed).column("score", "score"),
    row("scorer_pair", "1", Neither, How::Sums(Combined::Ratio), "ratio of sums of a pair that the suite's scorer program names: recorded as `scorer_pair.NAME`, a record for each name").of(Of::Summed),
    row("perplexity", "1", Lower, How::Sums(Combined::Perplexity), "e to the power of nll: how many equally likely tokens the model is as unsure between (task perplexity)").of(Of::Summed).column("perplexity", "perplexity"),
    row("nll", "1", Lower, How::Sums(Combined::Surprise), "mean negative logarithm (natural) of the probability that the model gives to the token that follows (task perplexity)").of(Of::Summed),
    row("choice_accuracy", "1", Higher, How::Sums(Combined::Share), "share of questions whose right choice has the highest probability (task choices)").of(Of::Summed).shown(Shown::Share),
    row("choice_accuracy_normalised", "1", Higher, How::Sums(Combined::Share), "the same with the logarithm of each choice's probability over its bytes, so that long choices do not lose by their length (task choices)").of(Of::Summed).shown(Shown::Share),
    row("kl_divergence", "1", Lower, How::Positions, "Kullback-Leibler divergence of the next token's distribution from the reference interpreter's, nats, mean over the tokens of parity (language models)").of(Of::Scenarios(LANGUAGE)).column("KL divergence", "KL"),
    row("same_top", "1", Higher, How::Positions, "share of the tokens of parity after which the likeliest next token is the reference interpreter's (language models)").of(Of::Scenarios(LANGUAGE)).shown(Shown::Share),
    row("probability_change", "1", Lower, How::Largest, "largest difference of a next token's probability to the reference interpreter's, over the tokens of parity (language models)").of(Of::Scenarios(LANGUAGE)),
    row("accuracy_vs_f32", "points", Higher, How::AgainstFullPrecision, "accuracy minus that of full precision on the same examples, in percentage points (reduced precisions only)").of(Of::Reduced).shown(Shown::Points),
    row("latency", "s", Lower, How::Latency, "time of one iteration in the steady phase, from handing over the inputs to holding the outputs (record: median)").column("median latency", "latency"),
    row("latency_p99", "s", Lower, How::Tail, "99th percentile of latency; given only where n allows an upper bound").column("p99 latency", "p99"),
    row("row_latency", "s", Lower, How::Rows, "time from issuing several rows together to holding the outputs of one of them, in the steady phase (record: median over rows; scenario multi-stream)").of(Of::Scenario("multi-stream")),
    row("ttft", "s", Lower, How::Rows, "time to first token: from a request's arrival to its first token (record: median over requests; language models)").of(Of::Scenarios(READING)).column("first token", "first token"),
    row("ttft_p99", "s", Lower, How::TailOf("ttft"), "99th percentile of ttft; given only where n allows an upper bound").of(Of::Scenarios(READING)),
    row("tpot", "s", Lower, How::Rows, "time per output token: between a token and the next of one request (record: median over tokens; language models)").of(Of::Scenarios(WRITING)).column("next token", "next token"),
    row("tpot_p99", "s", Lower, How::TailOf("tpot"), "99th percentile of tpot; given only where n allows an upper bound").of(Of::Scenarios(WRITING)),
    row("prefill_rate", "1/s", Higher, How::TokenRate, "prompt tokens read per second of reading prompts (language models)").of(Of::Scenarios(READING_APART)).column("prompt tokens a second", "prefill"),
    row("decode_rate", "1/s", Higher, How::TokenRate, "tokens written per second of writing, the first of each request left out (language models)").of(Of::Scenarios(WRITING_APART)).column("tokens a second", "decode"),
    row("output_rate", "1/s", Higher, How::TokenRate, "tokens written per second of the whole time, prompts and waiting included (language models)").of(Of::Scenarios(WRITING)),
    row("arrival_lag", "s", Lower, How::ArrivalLag, "by how much requests were begun late that came while nothing else was served: the generator's own lateness, which is part of their ttft (record: 95th percentile; language models whose requests arrive)").of(Of::Scenarios(ARRIVING)),
    row("goodput", "1/s", Higher, How::Goodput, "requests a second whose first token came within ttft_bound and whose later tokens came within tpot_bound of one another on average, prompts and waiting included (language models, cases with both bounds)").of(Of::Bounded).column("goodput", "goodput"),
    row("goodput_share", "1", Higher, How::GoodputShare, "share of timed requests that met both bounds (language models, cases with both bounds)").of(Of::Bounded).shown(Shown::Percent),
    row("tokens_in", "1", Neither, How::PerRequest, "prompt tokens of a timed request, mean (language models)").of(Of::Scenarios(READING)),
    row("tokens_out", "1", Neither, How::PerRequest, "tokens that a timed request wrote, mean, tokens that end a text included (language models)").of(Of::Scenarios(WRITING)),
    row("tokens_per_joule_output", "1/J", Higher, How::TokensPerJoule(TokensOf::Output), "tokens written over the gross joules of the same blocks, whatever else they were spent on (language models)").of(Of::Scenarios(WRITING)).column("output tokens per joule", "tokens/J"),
    row("tokens_per_joule_input", "1/J", Higher, How::TokensPerJoule(TokensOf::Input), "prompt tokens over the gross joules of the same blocks (language models)").of(Of::Scenarios(READING)),
    row("tokens_per_joule_total", "1/J", Higher, How::TokensPerJoule(TokensOf::Total), "tokens read and written over the gross joules of the same blocks (language models)").of(Of::Scenarios(BOTH)),
    row("bandwidth_share", "1", Higher, How::BandwidthShare, "share of what reading the weights allows: bytes of weights that a decoded token must read, over tpot, over the measured bandwidth of reading so many bytes with the case's threads (language models)").of(Of::Scenarios(WRITING_APART)).shown(Shown::Percent).column("share of reading", "read share"),
    row("throughput", "1/s", Higher, How::Throughput, "examples finished per second of steady time").column("throughput", "throughput"),
    row("window", "s", Neither, How::Window, "time of the timed blocks as the harness saw it, from `go` to `measured`, less what the kernel made harness or worker wait for a processor at either end"),
    row("process_start", "s", Lower, How::Single, "from starting the worker's process to its `hello`, by the harness's clock (scenario cold-start)").of(Of::Scenario("cold-start")),
    row("load_time", "s", Lower, How::Single, "from the job line to the model being loaded"),
    row("first_latency", "s", Lower, How::Single, "the first iteration after loading, cold"),
    row("cpu_time", "s", Lower, How::PerExample, "processor time of the worker per example, all its threads, steady phase"),
    row("memory_base", "B", Neither, How::Largest, "resident memory of the worker before it saw the model"),
    row("memory_load", "B", Lower, How::Largest, "peak resident memory while loading"),
    row("memory_warmup", "B", Lower, How::Largest, "peak resident memory from loaded to ready: first iteration and warm-up"),
    row("memory_peak", "B", Lower, How::MemoryPeak, "peak resident memory in the steady phase").column("peak memory", "memory"),
    row("memory_added", "B", Lower, How::MemoryAdded, "memory_peak minus memory_base"),
    row("weight_bytes", "B", Lower, How::Held, "bytes of weights that the backend holds, packed copies included"),
    row("state_bytes", "B", Lower, How::Held, "bytes of resident states for the case's batch"),
    row("energy_cpu", "J", Lower, How::Energy(Domain { parts: "packages", title: "processor packages" }), "gross energy of all processor packages per example, steady phase"),
    row("energy_cpu_edge", "J", Lower, How::EdgeOf("energy_cpu"), "the most that the edges of the blocks can put into energy_cpu, or take from it"),
    row("energy_dram", "J", Lower, How::Energy(Domain { parts: "memory", title: "memory" }), "gross energy of the memory domain per example, steady phase"),
    row("energy_dram_edge", "J", Lower, How::EdgeOf("energy_dram"), "the most that the edges of the blocks can put into energy_dram, or take from it"),
    row("energy_gpu", "J", Lower, How::Energy(Domain { parts: "boards", title: "GPU boards" }), "gross energy of the GPU boards per example, steady phase"),
    row("energy_gpu_edge", "J", Lower, How::EdgeOf("energy_gpu"), "the most that the edges of the blocks can put into energy_gpu, or take from it"),
    row("joules_per_right", "J", Lower, How::JoulesPerRight, "gross joules (packages, and boards where the backend computes on them) per right answer; a question is charged for all its rows").column("joules per right answer", "J/right"),
    row("board_joules_per_right", "J", Lower, How::BoardJoulesPerRight, "gross joules of the GPU boards alone per right answer (cases that compute on boards only): what processors and memory use meanwhile is not in it").of(Of::Boards),
    row("kv_bytes", "B", Lower, How::Largest, "keys and values of one sequence as long as the task's longest, in as many bytes a number as the engine says that it keeps one in, windows of local layers not taken off (language models)").of(Of::Scenarios(LANGUAGE)),
    row("steps_used", "1", Lower, How::Steps, "recursion steps (or generated tokens) spent on an example"),
    row("flops_model", "FLOP", Lower, How::FlopsModel, "floating-point operations that the mathematics needs per example at the steps used"),
    row("flops_executed", "FLOP", Lower, How::FlopsExecuted, "floating-point operations of matrix products and attention that the backend carried out per example, padding included"),
    row("flop_rate", "FLOP/s", Higher, How::FlopRate, "flops_model of the steady phase over its time"),
    row("share_of_ceiling", "1", Higher, How::ShareOfCeiling, "flop_rate over what the processor can do at best in the case's precision, with its threads and, in f32, its instruction set").shown(Shown::Percent),
    row("params_total", "1", Neither, How::Counted(|costs| costs.params_total as f64), "parameters of the model, the table of puzzle embeddings left out").shown(Shown::Whole),
    row("params_active", "1", Neither, How::Counted(|costs| costs.params_active as f64), "parameters that take part in one example").shown(Shown::Whole),
    row("router_entropy", "1", Higher, How::Routed(RouterStatistic { of: LayerRouting::entropy, worst: f64::min, which: "smallest" }), "entropy of the load of the experts over its maximum, ln of their number, in the layer where it is smallest"),
    row("expert_load_max", "1", Lower, How::Routed(RouterStatistic { of: LayerRouting::largest_load, worst: f64::max, which: "largest" }), "load of the busiest expert over an even share, in the layer where it is largest"),
    row("parity_error", "1", Lower, How::Parity, "largest difference to the reference interpreter in logits, halting head and states, each over its own largest magnitude"),
    row("harness_cpu", "1", Lower, How::PerSecond, "processor time of the harness process over the time of the worker's measured blocks").shown(Shown::Percent),
    row("foreign_load", "1", Lower, How::Mean, "processors busy with other programs, on average while the case's blocks were timed"),
    row("halting_overconfidence", "1", Neither, How::Halting(HaltingError::Overconfidence), "probability that the halting head gives to a right answer (sigmoid of its logit), mean over the answers of record, minus the share that is right; 0: calibrated on average").of(Of::Halting),
    row("halting_brier", "1", Lower, How::Halting(HaltingError::Brier), "mean squared difference between that probability and 1 for a right answer, 0 for a wrong one (Brier 1950)").of(Of::Halting),
    row("speedup", "1", Higher, How::Speedup, "latency of the base over latency of this case, round by round of one interleaved group in which they took turns (such cases only)").of(Of::Turns),
    row("deadline_missed", "1", Lower, How::DeadlineMissed, "share of timed iterations that took longer than the deadline of the suite (cases with one)").of(Of::Deadline).shown(Shown::Percent),
    row("deadline_overrun", "1", Lower, How::DeadlineOverrun, "the longest timed iteration over the deadline: above 1 it was missed by so much (cases with one)").of(Of::Deadline),
    row("jitter", "s", Lower, How::Jitter, "mean difference between the latencies of timed iterations that follow one another in a block (cases with a deadline)").of(Of::Deadline),
    row("memory_over_limit", "1", Lower, How::OverMemoryLimit, "memory_peak over the memory_limit of the suite: above 1 it does not fit (cases with one)").of(Of::MemoryLimit),
    row("energy_over_max", "1", Lower, How::OverMaxEnergy, "gross joules of an example, of the domains that joules_per_right holds, over the max_energy of the suite: above 1 it uses more (cases with one)").of(Of::MaxEnergy),
    row("time_to_accuracy", "s", Lower, How::FromLog, "seconds of training until the first evaluation at or above a held-out accuracy (trainings only, `ergometer curve`)").of(Of::Trainings),
    row("flops_to_accuracy", "FLOP", Lower, How::FromLog, "floating-point operations of training until then (trainings only)").of(Of::Trainings),
    row("joules_to_accuracy", "J", Lower, How::FromLog, "joules of the GPU board from the first training step until then (trainings whose log has them)").of(Of::Trainings),
];

const COLUMNS: usize = {
    let (mut columns, mut i) = (0, 0);
    while i < METRICS.len() {
        columns += METRICS[i].column.is_some() as usize;
        i += 1;
    }
    columns
};

/// What a reader of the headline table sees of every case, in the order of [`METRICS`].
pub const HEADLINE: [HeadlineColumn; COLUMNS] = {
    let mut headline = [HeadlineColumn { metric: "", title: "", short: "" }; COLUMNS];
    let (mut columns, mut i) = (0, 0);
    while i < METRICS.len() {
        if let Some(column) = METRICS[i].column {
            headline[columns] = column;
            columns += 1;
        }
        i += 1;
    }
    headline
};

/// The row with this name.
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|m| m.name == name)
}

/// The metric that holds the edge error of this one, if it has one.
pub fn edge_of(name: &str) -> Option<&'static str> {
    METRICS.iter().find(|m| matches!(m.how, How::EdgeOf(energy) if energy == name)).map(|m| m.name)
}

/// What an energy metric covers; none for any other metric.
pub fn domain(name: &str) -> Option<Domain> {
    match metric(name)?.how {
        How::Energy(domain) => Some(domain),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_energy_metric_has_one_that_holds_its_edge_error() {
        let energies: Vec<_> = METRICS.iter().filter(|m| domain(m.name).is_some()).collect();
        assert!(!energies.is_empty());
        for energy in energies {
            let edge = metric(edge_of(energy.name).unwrap()).unwrap();
            assert_eq!((edge.name, edge.unit), (format!("{}_edge", energy.name).as_str(), energy.unit));
        }
        for edge in METRICS {
            if let How::EdgeOf(energy) = edge.how {
                assert!(domain(energy).is_some(), "{} is the edge of no energy", edge.name);
            }
        }
        assert_eq!((edge_of("latency"), domain("latency")), (None, None));
    }

    #[test]
    fn names_are_met_once_and_columns_are_in_order() {
        for (i, metric) in METRICS.iter().enumerate() {
            assert!(METRICS[..i].iter().all(|m| m.name != metric.name), "{} is there twice", metric.name);
            assert!(!metric.meaning.is_empty());
        }
        let of_table: Vec<HeadlineColumn> = METRICS.iter().filter_map(|m| m.column).collect();
        assert_eq!(of_table, HEADLINE);
        assert!(HEADLINE.iter().all(|c| metric(c.metric).is_some()));
    }
}
