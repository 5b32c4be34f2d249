//! What a plan is expected to take, and the limits that it would run into: known before anything runs.
//!
//! In: a plan. Out: seconds by phase, or an error that names the case. Must not: measure anything.
//!
//! How fast an engine is on this machine is not known beforehand, so that times of computing assume a modest rate; they
//! are for planning, and no number of a report comes from them.

use std::collections::BTreeSet;

use anyhow::bail;
use ergometer_files::counted;
use ergometer_reports::store::{MAX_ANSWER, MAX_CSV_BYTES, MAX_PREDICTIONS};
use ergometer_suites::array::Read;
use ergometer_suites::task::{Example, ExampleSet};

use super::plan::{Plan, PlannedCase};
use super::{reference, rounds, tune};
use crate::backends::backend;
use crate::compatibility::read_from;
use crate::protocol::MAX_LINE;

/// FLOP/s that a thread of an engine is expected to do.
pub const RATE: f64 = 2e10;
/// FLOP/s that the reference interpreter is expected to do, all threads.
const INTERPRETER: f64 = 2e9;
/// Seconds to start and load a worker.
const START: f64 = 0.5;

/// Seconds by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TimeEstimate {
    /// Searching settings: the most that it may take.
    pub search: f64,
    /// Recording the reference's outputs; what is cached is not made again.
    pub reference: f64,
    /// Answering every example.
    pub scoring: f64,
    /// Loading, warming, and timed blocks.
    pub timing: f64,
}

impl TimeEstimate {
    /// All phases.
    pub fn total(&self) -> f64 {
        self.search + self.reference + self.scoring + self.timing
    }

    fn and(self, other: Self) -> Self {
        Self {
            search: self.search + other.search,
            reference: self.reference + other.reference,
            scoring: self.scoring + other.scoring,
            timing: self.timing + other.timing,
        }
    }
}

/// Seconds that an engine is expected to take for one row, at most.
fn row(case: &PlannedCase) -> f64 {
    let rate = if case.engine == Some("reference") { INTERPRETER } else { RATE * f64::from(case.key.threads.max(1)) };
    let costs = case.known_costs();
    (costs.flops_admit + costs.flops_step * f64::from(case.max_steps)) / rate
}

/// Loading, warming and timing a case once, with the rounds that its interleaved group needs.
pub fn timing(case: &PlannedCase, check: bool) -> f64 {
    let iteration = row(case) * f64::from(case.key.batch);
    if check {
        return START + 2.0 * iteration;
    }
    if let Some(processes) = case.spec.scenario.processes() {
        return (START + iteration) * f64::from(processes + 1);
    }
    let mut blocks = rounds::blocks(&case.spec.scenario, iteration, case.spec.seconds);
    if case.turns.is_some() {
        blocks = rounds::rounds(blocks, case.compared);
    }
    let least = iteration * f64::from(case.spec.iterations).max(blocks.into());
    START + iteration + case.spec.warmup_seconds.max(iteration) + case.spec.seconds.max(least)
}

/// What each case of a plan adds, in the order of the plan: what several share is with the first of them.
pub fn of(plan: &Plan, check: bool, starts: u32, searched: impl Fn(&PlannedCase) -> bool) -> Vec<TimeEstimate> {
    let (mut judged, mut scored) = (BTreeSet::new(), BTreeSet::new());
    let each = plan.cases.iter().map(|case| {
        let task = &plan.tasks[&case.spec.task];
        let mut all = TimeEstimate { timing: timing(case, check) * f64::from(starts), ..TimeEstimate::default() };
        if judged.insert((&case.key.model_hash, &case.key.task_hash, case.max_steps)) {
            let (rows, steps, _) = reference::extent(case, task);
            all.reference = START + case.known_costs().flops_step * rows as f64 * f64::from(steps) / INTERPRETER;
        }
        if scored.insert(&case.group) {
            all.scoring = row(case) * task.set.examples.len() as f64;
        }
        if !check && searched(case) {
            all.search = case.spec.tune_seconds;
        }
        all
    });
    each.collect()
}

/// All cases of a plan.
pub fn sum(all: &[TimeEstimate]) -> TimeEstimate {
    all.iter().fold(TimeEstimate::default(), |sum, e| sum.and(*e))
}

/// Whether a search of settings is made for a case, unless one is remembered. An external program may search by itself,
/// for as long.
pub fn is_searched(suite: &ergometer_suites::suite::Suite, case: &PlannedCase) -> bool {
    let several = || {
        case.engine.is_none() || case.engine.and_then(backend).is_some_and(|b| b.settings(&case.options()).len() > 1)
    };
    case.spec.tune && !tune::has_own_options(suite, case) && several()
}

/// Bytes of a job's line beside its inputs: paths, options, names.
const JOB_FRAME: usize = 1 << 16;

/// Most bytes of the noise on one example's start.
const START_BYTES: usize = 80;

/// Refuses a task whose examples do not fit into the line that a worker reads them from.
fn check_job(name: &str, set: &ExampleSet, most: usize) -> anyhow::Result<()> {
    // digits and a comma for each number, brackets and a comma for each example
    let number = |n: &u32| n.checked_ilog10().unwrap_or(0) as usize + 2;
    // noise on the start, or its absence, which is told of all where any has some
    let starts = if set.examples.iter().any(|e| e.start.is_some()) { START_BYTES } else { 0 };
    let example = |e: &Example| e.tokens.iter().map(number).sum::<usize>() + 2 + number(&e.puzzle_id) + starts;
    let bytes = JOB_FRAME + set.examples.iter().map(example).sum::<usize>();
    if bytes > most {
        bail!(
            "task `{name}`: {} are {bytes} bytes to a worker, which takes {most}\nhint: ask for fewer `examples`, `tasks` or `augmentations`, or for a smaller canvas",
            counted(set.examples.len(), "example")
        );
    }
    Ok(())
}

/// Bytes of an f32 as text, near enough.
const NUMBER_BYTES: u64 = 18;

/// Refuses answers of more numbers than a run folder keeps.
fn check_numbers(plan: &Plan, case: &PlannedCase, examples: usize) -> anyhow::Result<()> {
    let (set, interface) = (&plan.tasks[&case.spec.task].set, &plan.models[&case.spec.model].interface);
    let Some((port, Read::Values | Read::Likelihoods)) = read_from(set, interface) else { return Ok(()) };
    let one = NUMBER_BYTES.saturating_mul(port.shape.iter().product::<usize>() as u64);
    if one > MAX_ANSWER as u64 || one.saturating_mul(examples as u64) > MAX_CSV_BYTES {
        bail!(
            "{}: answers of output `{}`, {:?} numbers each, are about {one} bytes, {examples} of them; a run folder keeps {MAX_ANSWER} of one and {MAX_CSV_BYTES} of all\n\
             hint: ask for fewer `examples`, or for a model whose output is smaller, such as classes",
            case.path,
            port.name,
            port.shape
        );
    }
    Ok(())
}

/// Refuses what would be refused only after hours: more answers than a run folder keeps.
///
/// # Errors
/// The first such case.
pub fn check_limits(plan: &Plan) -> anyhow::Result<()> {
    for (name, task) in &plan.tasks {
        check_job(name, &task.set, MAX_LINE)?;
    }
    for case in &plan.cases {
        let examples = plan.tasks[&case.spec.task].set.examples.len();
        let answers = examples.saturating_mul(case.max_steps as usize);
        check_numbers(plan, case, examples)?;
        // of most only those are kept at which an answer turns right or wrong; how many that will be is not known
        // before
        if answers > MAX_PREDICTIONS {
            bail!(
                "{}: {} with an answer after each of {} steps can come to {answers} answers, and a run folder keeps {MAX_PREDICTIONS}\n\
                 hint: give the task fewer `examples` (or `limit`), at most {}, or the case fewer steps (`depth`)",
                case.path,
                counted(examples, "example"),
                case.max_steps,
                MAX_PREDICTIONS / case.max_steps.max(1) as usize
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_that_no_line_holds_are_refused_when_planned() {
        let example = |n: u32| Example { tokens: vec![0, 9, 10, 99, 100, n], puzzle_id: n, ..Example::default() };
        let set = ExampleSet {
            examples: (0..1000).map(example).collect(),
            vocabulary: 1000,
            puzzle_ids: 1000,
            numbering: None,
            questions: Vec::new(),
            baselines: Vec::new(),
            notes: Vec::new(),
            ..ExampleSet::default()
        };
        let inputs: Vec<&Vec<u32>> = set.examples.iter().map(|e| &e.tokens).collect();
        let ids: Vec<u32> = set.examples.iter().map(|e| e.puzzle_id).collect();
        let length = serde_json::to_string(&(inputs, ids)).unwrap().len();
        // the brackets of the lists stand in for those of the job
        assert!(check_job("t", &set, JOB_FRAME + length).is_ok());
        let why = check_job("t", &set, JOB_FRAME + length - 10).unwrap_err().to_string();
        assert!(why.contains("task `t`: 1000 examples") && why.contains("hint: "), "{why}");
    }
}
