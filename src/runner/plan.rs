//! From a suite to planned cases: examples made, models looked at, keys complete, nothing run yet.
//!
//! In: a checked suite. Out: [`Plan`]. Must not: start a worker or write a file.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use ergometer_reports::case::{Baseline, CaseKey, Costs, Tuning};
use ergometer_suites::suite::{CaseSpec, Depth, Scenario, Suite};
use ergometer_suites::task::{self, ExampleSet, Task};
use sha2::{Digest, Sha256};

use crate::backends::{BackendError, Options, backend};
use crate::graph::Graph;
use crate::graph::cost::Workload;
use crate::models::{Model, hex};

/// A task of the suite with its examples.
pub struct PlannedTask {
    /// Its scorer.
    pub task: &'static Task,
    /// Its examples.
    pub set: ExampleSet,
    /// sha256 over inputs and answers, and over questions where the task decides them from several rows.
    pub hash: String,
}

impl PlannedTask {
    /// Questions that are decided from several rows each; 0 where every row is a question of its own.
    pub fn questions(&self) -> u64 {
        if self.task.decide.is_some() { self.set.questions.len() as u64 } else { 0 }
    }

    /// What rules without a model score on it, for the record.
    pub fn baselines(&self) -> Vec<Baseline> {
        let baseline = |b: &task::Baseline| Baseline { name: b.name.clone(), right: b.right, of: b.of };
        self.set.baselines.iter().map(baseline).collect()
    }
}

/// A model of the suite.
pub struct PlannedModel {
    /// Its computation.
    pub graph: Graph,
    /// sha256 over configuration and weights.
    pub hash: String,
}

/// One case, ready to run.
#[derive(Clone)]
pub struct PlannedCase {
    /// What the suite asks for.
    pub spec: CaseSpec,
    /// Complete key.
    pub key: CaseKey,
    /// sha256 of the key.
    pub id: String,
    /// Readable path.
    pub path: String,
    /// Program of an external backend; empty for a built-in one.
    pub command: Vec<String>,
    /// Name of the built-in backend behind the suite's name for it; none for another program.
    pub engine: Option<&'static str>,
    /// How its options were found, where the suite asks for a search.
    pub tuning: Option<Tuning>,
    /// What the graph costs.
    pub costs: Costs,
    /// Most supervision steps.
    pub max_steps: u32,
    /// Rows stop at the halting head's word.
    pub halt: bool,
    /// Cases with the same group have the same answers: accuracy is scored once per group.
    pub group: String,
}

impl PlannedCase {
    /// What its backend is loaded with.
    pub fn options(&self) -> Options {
        Options {
            precision: self.key.precision.clone(),
            threads: self.key.threads as usize,
            capacity: self.key.batch as usize,
            extra: self.key.backend_options.clone(),
        }
    }
}

/// Everything that a suite asks for on this machine.
pub struct Plan {
    /// By name.
    pub tasks: BTreeMap<String, PlannedTask>,
    /// By name.
    pub models: BTreeMap<String, PlannedModel>,
    /// In the suite's order, without repetitions.
    pub cases: Vec<PlannedCase>,
}

/// Bytes per element of a precision, for the cost model.
pub fn element_bytes(precision: &str) -> f64 {
    match precision {
        "f64" => 8.0,
        "bf16" | "f16" => 2.0,
        "int8" => 1.0,
        _ => 4.0,
    }
}

impl Plan {
    /// Plans a suite. A model that cannot be read is an error here and now: nothing has been run yet that could be lost.
    pub fn new(suite: &Suite, keep: impl Fn(&str) -> bool) -> anyhow::Result<Self> {
        let mut plan = Plan { tasks: BTreeMap::new(), models: BTreeMap::new(), cases: Vec::new() };
        for spec in &suite.cases {
            if !plan.tasks.contains_key(&spec.task) {
                plan.tasks.insert(spec.task.clone(), plan_task(suite, &spec.task)?);
            }
            if !plan.models.contains_key(&spec.model) {
                let path = &suite.models[&spec.model].path;
                let model = Model::load(path)
                    .with_context(|| format!("model `{}` of suite {}", spec.model, suite.file.display()))?;
                plan.models.insert(spec.model.clone(), PlannedModel { graph: model.graph, hash: model.hash });
            }
            let case = plan.case(suite, spec, None)?;
            if keep(&case.path) && plan.cases.iter().all(|c| c.id != case.id) {
                plan.cases.push(case);
            }
        }
        Ok(plan)
    }

    /// Plans one case, with the suite's options for its backend or with others.
    pub fn case(
        &self,
        suite: &Suite,
        spec: &CaseSpec,
        options: Option<&BTreeMap<String, String>>,
    ) -> anyhow::Result<PlannedCase> {
        let task = &self.tasks[&spec.task];
        let model = &self.models[&spec.model];
        let external = suite.backends.get(&spec.backend);
        let kind = external.map_or(spec.backend.as_str(), |b| b.kind.as_str());
        let given = options.cloned().or_else(|| external.map(|b| b.options.clone())).unwrap_or_default();
        crate::fit::check(&spec.task, &task.set, &spec.model, &model.graph)
            .with_context(|| format!("{}: a [[cases]] block pairs them", suite.file.display()))?;
        let one_shot = model.graph.states.is_empty();
        // a one-shot model has one depth, whatever the block asks of the recursive ones beside it
        let (max_steps, halt, depth) = match spec.depth {
            _ if one_shot => (1, false, "once".to_string()),
            Depth::Once => (1, false, "once".to_string()),
            Depth::Fixed(n) => (n, false, format!("fixed-{n}")),
            Depth::Halt(n) => (n, true, format!("halt-{n}")),
        };
        let batch = match spec.scenario {
            Scenario::SingleStream => 1,
            Scenario::Offline { batch } => batch,
        };
        let options = Options {
            precision: spec.precision.clone(),
            threads: spec.threads as usize,
            capacity: batch as usize,
            extra: given.clone(),
        };
        let (isa, shapes, backend_options, command) = match backend(kind) {
            Some(b) => match b.describe(&options) {
                Ok(described) => (described.isa, described.shapes.to_string(), described.options, Vec::new()),
                // its worker says so again, and that is then the case's end
                Err(BackendError::Unavailable(_)) => ("unknown".into(), "unknown".into(), given, Vec::new()),
                Err(e) => bail!("backend `{}`: {e}", spec.backend),
            },
            None => {
                ("unknown".into(), "unknown".into(), given, external.map(|b| b.command.clone()).unwrap_or_default())
            }
        };
        let bytes = element_bytes(&spec.precision);
        let cost = model.graph.cost(&Workload { weight_bytes: bytes, value_bytes: bytes, ..Workload::one() });
        let key = CaseKey {
            model: spec.model.clone(),
            model_hash: model.hash.clone(),
            family: model.graph.family.name().into(),
            backend: spec.backend.clone(),
            backend_options,
            precision: spec.precision.clone(),
            threads: spec.threads,
            batch,
            depth,
            isa,
            shapes,
            task: spec.task.clone(),
            task_hash: task.hash.clone(),
            seed: suite.tasks[&spec.task].seed,
            scenario: if batch == 1 && spec.scenario == Scenario::SingleStream { "single-stream" } else { "offline" }
                .into(),
        };
        let sha = |text: &str| hex(&Sha256::digest(text.as_bytes()));
        let same_answers = CaseKey { threads: 0, batch: 0, scenario: String::new(), ..key.clone() };
        Ok(PlannedCase {
            id: sha(&format!("{}{}", key.canonical(), command.join("\0"))),
            group: sha(&format!("{}{}", same_answers.canonical(), command.join("\0"))),
            path: key.path(),
            spec: spec.clone(),
            key,
            command,
            engine: backend(kind).map(|b| b.name()),
            tuning: None,
            costs: Costs {
                params_total: cost.params_total,
                params_active: cost.params_active,
                flops_admit: cost.flops_admit,
                flops_step: cost.flops_steps,
                weight_bytes: cost.weight_bytes as u64,
                state_bytes: cost.state_bytes as u64,
                step_weight_bytes: cost.step_weight_bytes,
                step_value_bytes: cost.step_value_bytes,
            },
            max_steps,
            halt,
        })
    }
}

fn plan_task(suite: &Suite, name: &str) -> anyhow::Result<PlannedTask> {
    let spec = &suite.tasks[name];
    let task = ergometer_suites::task(&spec.kind).with_context(|| format!("unknown kind of task `{}`", spec.kind))?;
    let set = suite.examples(name)?;
    if set.examples.is_empty() {
        bail!("task `{name}` of {} has no examples", suite.file.display());
    }
    let mut hash = Sha256::new();
    for example in &set.examples {
        for v in example.tokens.iter().chain([&example.puzzle_id]).chain(&example.answer) {
            hash.update(v.to_le_bytes());
        }
        hash.update([0xff]);
        if task.decide.is_some() {
            // what an example is to its question decides as much as its cells
            hash.update(example.question.to_le_bytes());
            hash.update(example.part.to_le_bytes());
            hash.update(example.variant.to_le_bytes());
        }
    }
    if task.decide.is_some() {
        set.questions.iter().for_each(|name| hash.update(format!("{name}\0")));
    }
    Ok(PlannedTask { task, set, hash: hex(&hash.finalize()) })
}

/// True if `text` fits a pattern in which `*` stands for any run of characters and `?` for one.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        if i < p.len() && p[i] == '*' {
            star = Some((i, j));
            i += 1;
        } else if i < p.len() && (p[i] == '?' || p[i] == t[j]) {
            i += 1;
            j += 1;
        } else if let Some((at, from)) = star {
            // let the last star take one character more
            star = Some((at, from + 1));
            i = at + 1;
            j = from + 1;
        } else {
            return false;
        }
    }
    p[i..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn globs_match_paths() {
        for (pattern, text, want) in [
            ("*native*", "sudoku/trm/f32/native/single-stream/t1/halt-16", true),
            ("sudoku/*/f32/*", "sudoku/trm/f32/native", true),
            ("t?", "t2", true),
            ("t?", "t12", false),
            ("*a*b", "xaxbxb", true),
            ("", "x", false),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} on {text}");
        }
    }
}
