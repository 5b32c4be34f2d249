//! From a suite to planned cases: examples made, models looked at, keys complete, nothing run yet.
//!
//! In: a checked suite. Out: [`Plan`]. Must not: start a worker, or write a file before it is told to (`materialise`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use ergometer_reports::case::{AccuracyProtocol, Baseline, CaseKey, Costs, Original, Settings, Tuning};
use ergometer_suites::suite::{CaseSpec, Isolation, Suite};
use ergometer_suites::task::{self, ExampleSet, StartNoise, Task};
use ergometer_suites::{AnswerKind, Array, FileForm};

use super::case_file::{self, CaseFile};
use super::described::{SaidOfCase, described};
use super::key;
use super::recorded::{self, Recorded};
use super::stopping::{Stopping, stopping};
use super::task_hash;
use super::tokenise::Tokenised;
use crate::backends::{Options, backend};
use crate::graph::{Graph, canonical};
use crate::interrupt::Scratch;
use crate::models::file::OnnxFile;
use crate::models::interface::{Interface, PortRole};
use crate::models::language::LanguageModel;
use crate::models::{self, Model, TrainingRecord};
use crate::worker::given;

/// A task of the suite with its examples.
pub struct PlannedTask {
    /// Its scorer.
    pub task: &'static Task,
    /// Its examples.
    pub set: ExampleSet,
    /// sha256 over inputs and answers, and over questions where the task decides them from several rows.
    pub hash: String,
    /// The file of its arrays, where its examples are arrays; see [`Plan::materialise`].
    pub arrays: Option<PathBuf>,
}

impl PlannedTask {
    /// Questions that are decided from several rows each; 0 where every row is a question of its own.
    pub fn questions(&self) -> u64 {
        if self.task.decides(&self.set).is_some() { self.set.questions.len() as u64 } else { 0 }
    }

    /// What its examples are answered with.
    pub fn answers(&self) -> AnswerKind {
        self.task.answers_of(&self.set)
    }

    /// Rows whose answers decide one output together, at most.
    fn votes(&self) -> u32 {
        let mut rows: BTreeMap<(u64, u32), u32> = BTreeMap::new();
        if self.task.decides(&self.set).is_some() {
            self.set.examples.iter().for_each(|e| *rows.entry((e.question, e.part)).or_default() += 1);
        }
        rows.into_values().max().unwrap_or(1)
    }

    /// Noise on the start of each example, where any has some; empty: none has.
    pub fn starts(&self) -> Vec<Option<StartNoise>> {
        let starts = || self.set.examples.iter().map(|e| e.start);
        if starts().any(|s| s.is_some()) { starts().collect() } else { Vec::new() }
    }

    /// What rules without a model score on it, for the record.
    pub fn baselines(&self) -> Vec<Baseline> {
        let baseline = |b: &task::BaselineScore| Baseline { name: b.name.clone(), right: b.right, of: b.of };
        self.set.baselines.iter().map(baseline).collect()
    }
}

/// A model of the suite.
pub struct PlannedModel {
    /// What it takes and gives.
    pub interface: Interface,
    /// Its computation, where it is known.
    pub graph: Option<Graph>,
    /// The ONNX file that it is, where it is one.
    pub file: Option<Arc<OnnxFile>>,
    /// The decoder that it is, where it is a language model.
    pub language: Option<Arc<LanguageModel>>,
    /// How a suite uses that file.
    pub form: FileForm,
    /// Outputs that were recorded for it, where the suite names some, and the file of their inputs ([`Plan::materialise`]).
    pub recorded: Option<(Arc<Recorded>, Option<PathBuf>)>,
    /// sha256 over configuration and weights.
    pub hash: String,
    /// The folder that workers are given; see [`Plan::materialise`].
    pub folder: PathBuf,
    /// Its weights are random: its answers mean nothing.
    pub random: bool,
    /// What its config records of how it was trained.
    pub training: TrainingRecord,
    /// When the latest of its files was written, as RFC 3339.
    pub modified: Option<String>,
}

impl PlannedModel {
    /// What its cases know of its file.
    fn case_file(&self) -> CaseFile {
        self.file.as_deref().map(|file| CaseFile::of(file, &self.form, &self.interface)).unwrap_or_default()
    }

    /// `dense`, `moe`, `recursive`; `opaque` where nobody knows.
    fn family(&self) -> &'static str {
        match (&self.graph, &self.language) {
            (Some(graph), _) => graph.family.name(),
            (None, Some(model)) if model.config().mlp.experts.is_some() => "moe",
            (None, Some(_)) => "dense",
            (None, None) => "opaque",
        }
    }

    /// What a row costs, where that is known; of a language model a request, whose task is in these tokens.
    fn costs(&self, spec: &CaseSpec, set: &ExampleSet, tokens: Option<&Tokenised>) -> Option<Costs> {
        match (&self.graph, &self.language, tokens) {
            (Some(graph), ..) => Some(costs::of_graph(graph, &spec.precision)),
            (_, Some(model), Some(tokens)) => Some(costs::of_language(model, tokens, &spec.scenario, &spec.precision)),
            _ => Some(case_file::costs(self.file.as_deref()?, &self.interface, set)),
        }
    }

    /// How its answers to a task are arrived at.
    fn protocol(&self, task: &PlannedTask) -> AccuracyProtocol {
        let table = self.interface.input(PortRole::PuzzleId).and_then(|port| port.below());
        let table = table.filter(|n| *n > 1 && *n < usize::MAX);
        AccuracyProtocol {
            architecture: (self.graph.as_ref()).or(self.language.as_ref().map(|l| &l.graph)).map(canonical::hash),
            weights: if self.random { Some("random".into()) } else { self.training.weights.clone() },
            votes: task.votes(),
            puzzle_ids: match (table, &task.set.numbering) {
                (None, _) => "none".into(),
                (Some(n), None) => format!("the first of {n}"),
                (Some(n), Some(of)) => format!("table of {n}, {of}"),
            },
        }
    }
}

/// One case, ready to run.
#[derive(Clone)]
pub struct PlannedCase {
    /// What the suite asks for.
    pub spec: CaseSpec,
    /// What changed in its model since the run began.
    pub model_changed: Option<String>,
    /// When its model's files were last written, as RFC 3339.
    pub model_modified: Option<String>,
    /// Complete key of what runs.
    pub key: CaseKey,
    /// The key that the case is known by: what the suite asks for. It differs from `key` where a search chooses the
    /// settings.
    pub asked: CaseKey,
    /// sha256 of `asked`.
    pub id: String,
    /// Readable path.
    pub path: String,
    /// Program of an external backend; empty for a built-in one.
    pub command: Vec<String>,
    /// The model that its model is a reduced form of, and what is known of how it was made.
    pub reduces: Option<Original>,
    /// Where that runs.
    pub isolation: Isolation,
    /// What is known of its model where that is a file.
    pub file: CaseFile,
    /// Its task in the tokens of its model, where that is a language model.
    pub language: Option<Arc<Tokenised>>,
    /// Name of the built-in backend behind the suite's name for it; none for another program.
    pub engine: Option<&'static str>,
    /// How its options were found, where the suite asks for a search.
    pub tuning: Option<Tuning>,
    /// Where those options come from, in the words of [`Settings::source`].
    pub settings_from: String,
    /// What the graph costs; none where there is no graph.
    pub costs: Option<Costs>,
    /// Most supervision steps.
    pub max_steps: u32,
    /// Rows stop at the halting head's word.
    pub halt: bool,
    /// Rows that have stopped stay at work until the last one has; their answers are those of the step at which they
    /// stopped.
    pub keep_halted: bool,
    /// Cases with the same group have the same answers: accuracy is scored once per group.
    pub group: String,
    /// Cases with the same value take turns in one interleaved group; none: it is measured by itself.
    pub turns: Option<String>,
    /// How many cases of its interleaved group are compared with one base, at most.
    pub compared: usize,
    /// The model's weights are random.
    pub random: bool,
    /// What is known of the model's and the task's numbering of puzzles.
    pub numbering: Option<String>,
    /// How its answers are arrived at.
    pub protocol: AccuracyProtocol,
}

impl PlannedCase {
    /// What its backend is loaded with.
    pub fn options(&self) -> Options {
        Options {
            precision: self.key.precision.clone(),
            threads: self.key.threads as usize,
            capacity: self.key.batch as usize,
            extra: self.key.backend_options.clone(),
            file: self.file.precision,
            language: self.language.is_some(),
        }
    }

    /// What the graph costs, nothing where that is not known: then what a case takes is guessed from the start of its
    /// worker alone.
    pub fn known_costs(&self) -> Costs {
        self.costs.unwrap_or_default()
    }

    /// What it runs with, where the key that it is known by leaves that open.
    pub fn settings(&self) -> Option<Settings> {
        (self.asked != self.key).then(|| Settings {
            options: self.key.backend_options.clone(),
            shapes: self.key.shapes.clone(),
            source: self.settings_from.clone(),
        })
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
    /// Tasks of language in the tokens of models, by the names of both.
    tokenised: BTreeMap<(String, String), Arc<Tokenised>>,
    /// Holds the files of arrays, where there are any.
    arrays: Option<Scratch>,
}

impl Plan {
    /// Plans a suite. A model that cannot be read is an error here and now: nothing has been run yet that could be
    /// lost.
    pub fn new(suite: &Suite, keep: impl Fn(&str) -> bool) -> anyhow::Result<Self> {
        let mut plan = Plan {
            tasks: BTreeMap::new(),
            models: BTreeMap::new(),
            cases: Vec::new(),
            tokenised: BTreeMap::new(),
            arrays: None,
        };
        for spec in &suite.cases {
            if !plan.tasks.contains_key(&spec.task) {
                plan.tasks.insert(spec.task.clone(), plan_task(suite, &spec.task)?);
            }
            // of a reduced form the original too: its hash says which answers are compared
            let original = suite.models[&spec.model].reduces.iter();
            for name in original.chain([&spec.model]) {
                if !plan.models.contains_key(name) {
                    plan.models.insert(name.clone(), plan_model(suite, name)?);
                }
            }
            plan.tokenise(suite, spec)?;
            let case = plan.case(suite, spec, None)?;
            if keep(&case.path) && plan.cases.iter().all(|c| c.id != case.id) {
                plan.cases.push(case);
            }
        }
        let compared = comparisons(&plan.cases);
        for case in &mut plan.cases {
            case.compared = compared.get(&case.id).copied().unwrap_or(0);
        }
        Ok(plan)
    }

    /// Makes tokens of a task of language for a model, once.
    fn tokenise(&mut self, suite: &Suite, spec: &CaseSpec) -> anyhow::Result<()> {
        let (task, model) = (&self.tasks[&spec.task], &self.models[&spec.model]);
        let of_suite = || format!("{}: a [[cases]] block pairs them", suite.file.display());
        crate::compatibility::language(&spec.task, &task.set, &spec.model, model.language.is_some(), &spec.scenario)
            .with_context(of_suite)?;
        let key = (spec.task.clone(), spec.model.clone());
        if let (Some(language), false) = (&model.language, self.tokenised.contains_key(&key)) {
            let made = Tokenised::new(&spec.task, &task.set, &spec.model, language).with_context(of_suite)?;
            self.tokenised.insert(key.clone(), Arc::new(made));
        }
        let last = self.tokenised.get(&key).and_then(|t| t.job.arrivals.last().copied()).unwrap_or(0.0);
        if spec.scenario.replays() && last >= spec.timeout_seconds {
            bail!(
                "{}: the trace of task `{}` lasts {last} s, and a worker that is silent for {} s is taken for dead\n\
                 hint: write `timeout_seconds` above the time of the whole trace, or ask for fewer `examples`",
                suite.file.display(),
                spec.task,
                spec.timeout_seconds
            );
        }
        Ok(())
    }

    /// Takes note of models whose files changed since the run began, a sentence for each by name: their cases say so.
    pub fn models_changed(&mut self, changed: &BTreeMap<String, String>) {
        for case in &mut self.cases {
            case.model_changed = changed.get(&case.spec.model).cloned();
        }
    }

    /// Gives each model whose weights are drawn a folder in the cache with both files, which any worker can read, and each task of arrays a
    /// file of them, which goes away with the plan.
    pub fn materialise(&mut self, cache: &Path) -> anyhow::Result<()> {
        for (name, model) in &mut self.models {
            let Some((recorded, questions)) = &mut model.recorded else { continue };
            if self.arrays.is_none() {
                self.arrays = Some(Scratch::new()?);
            }
            let folder = self.arrays.as_ref().map(Scratch::path).context("made above")?;
            let path = folder.join(format!("recorded-{name}.safetensors"));
            let names: Vec<String> = model.interface.inputs.iter().map(|p| p.name.clone()).collect();
            let rows: Vec<&[Array]> = recorded.inputs.iter().map(Vec::as_slice).collect();
            std::fs::write(&path, given::write(&names, &rows)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
            *questions = Some(path);
        }
        for (name, task) in self.tasks.iter_mut().filter(|(_, task)| !task.set.inputs.is_empty()) {
            if self.arrays.is_none() {
                self.arrays = Some(Scratch::new()?);
            }
            let folder = self.arrays.as_ref().map(Scratch::path).context("made above")?;
            let path = folder.join(format!("{name}.safetensors"));
            let examples: Vec<_> = task.set.examples.iter().map(|e| &e.arrays[..]).collect();
            let bytes =
                given::write(&task.set.inputs, &examples).with_context(|| format!("arrays of task `{name}`"))?;
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            task.arrays = Some(path);
        }
        for model in self.models.values_mut() {
            model.folder = models::random::materialise(&model.folder, &model.hash, cache)?;
        }
        Ok(())
    }

    /// Plans one case, with the suite's options for its backend or with others.
    // Over 80 lines: every field of a case is found once, in one place
    pub fn case(
        &self,
        suite: &Suite,
        spec: &CaseSpec,
        options: Option<&BTreeMap<String, String>>,
    ) -> anyhow::Result<PlannedCase> {
        let (task, model) = (&self.tasks[&spec.task], &self.models[&spec.model]);
        let external = suite.backends.get(&spec.backend);
        let kind = external.map_or(spec.backend.as_str(), |b| b.kind.as_str());
        let given = options.cloned().or_else(|| external.map(|b| b.options.clone())).unwrap_or_default();
        let recorded = model.training.numbering.as_deref();
        let language = self.tokenised.get(&(spec.task.clone(), spec.model.clone())).cloned();
        let numbering = match &language {
            Some(_) => None,
            None => crate::compatibility::check(&spec.task, &task.set, &spec.model, &model.interface, recorded)
                .with_context(|| format!("{}: a [[cases]] block pairs them", suite.file.display()))?,
        };
        let Stopping { max_steps, halt, keep, word: depth } = stopping(spec.depth, model.interface.one_shot());
        // an answer is as many tokens as it takes
        let (max_steps, halt) = language.as_ref().map_or((max_steps, halt), |l| (l.most_output(), true));
        let options = Options {
            precision: spec.precision.clone(),
            threads: spec.threads as usize,
            capacity: spec.rows() as usize,
            extra: given,
            file: model.file.as_ref().map(|f| f.precision),
            language: model.language.is_some(),
        };
        let SaidOfCase { isa, shapes, options: backend_options, command } =
            described(backend(kind), external, &options).with_context(|| format!("backend `{}`", spec.backend))?;
        let key = CaseKey {
            model: spec.model.clone(),
            model_hash: model.hash.clone(),
            family: model.family().into(),
            backend: spec.backend.clone(),
            backend_options,
            precision: spec.precision.clone(),
            threads: spec.threads,
            batch: spec.rows(),
            depth,
            isa,
            shapes,
            task: spec.task.clone(),
            task_hash: task.hash.clone(),
            seed: suite.tasks[&spec.task].seed,
            scenario: spec.scenario.in_key(),
        };
        let as_asked = Options { extra: BTreeMap::new(), ..options };
        let searched = spec.tune
            && external.is_none_or(|b| b.options.is_empty())
            && backend(kind).is_some_and(|b| b.settings(&as_asked).len() > 1);
        let reduces = suite.models[&spec.model]
            .reduces
            .as_ref()
            .and_then(|name| Some(Original { model: name.clone(), model_hash: self.models.get(name)?.hash.clone() }));
        let asked = key::asked(&key, searched);
        let started = key::started(&command, external, spec.limits.background);
        Ok(PlannedCase {
            id: key::id(&asked, &started),
            group: key::id(&key::same_answers(&key, model.random), &started),
            turns: spec.interleave.then(|| key::id(&key::same_work(&key, spec.any_depth, reduces.as_ref()), &[])),
            compared: 0,
            path: key.path(),
            reduces,
            spec: spec.clone(),
            key,
            asked,
            command,
            isolation: external.map(|b| b.isolation.clone()).unwrap_or_default(),
            file: model.case_file(),
            engine: backend(kind).map(|b| b.name()),
            model_changed: None,
            model_modified: model.modified.clone(),
            tuning: None,
            settings_from: "default".into(),
            costs: model.costs(spec, &task.set, language.as_deref()),
            language,
            max_steps,
            halt,
            keep_halted: keep,
            random: model.random,
            numbering,
            protocol: model.protocol(task),
        })
    }
}

/// The plan's cases by interleaved group: those that take turns together, in the order of the first of each interleaved
/// group; any other case alone.
pub fn interleaved_groups(cases: &[PlannedCase]) -> Vec<Vec<&PlannedCase>> {
    let mut interleaved_groups: Vec<Vec<&PlannedCase>> = Vec::new();
    for case in cases {
        let known = interleaved_groups.iter_mut().filter(|_| case.turns.is_some()).find(|s| s[0].turns == case.turns);
        match known {
            Some(interleaved) => interleaved.push(case),
            None => interleaved_groups.push(vec![case]),
        }
    }
    interleaved_groups
}

/// The case that `case` is compared with among those that it takes turns with: the first one of the backend that the
/// suite names, or of all, `f32` before others. `None`: the backend that the suite names is not among them.
pub fn base<'a>(interleaved: &[&'a PlannedCase], case: &PlannedCase) -> Option<&'a PlannedCase> {
    let asked = case.spec.base.as_ref();
    let fits = interleaved.iter().copied().filter(|c| asked.is_none_or(|name| c.key.backend == *name));
    fits.min_by_key(|c| c.key.precision != "f32")
}

/// How many cases of its interleaved group are compared with one base, at most, by id of the case.
fn comparisons(cases: &[PlannedCase]) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for interleaved in interleaved_groups(cases).iter().filter(|s| s.len() > 1) {
        let bases = interleaved.iter().map(|c| base(interleaved, c).map(|b| b.id.as_str()).filter(|id| *id != c.id));
        let compared = super::rounds::compared(bases);
        all.extend(interleaved.iter().map(|c| (c.id.clone(), compared)));
    }
    all
}

fn plan_model(suite: &Suite, name: &str) -> anyhow::Result<PlannedModel> {
    let asked = &suite.models[name];
    let path = &asked.path;
    if let Some(hint) = ergometer_suites::locate::how_to_fetch(path) {
        bail!("model `{name}` of suite {} is not here: no file {}\nhint: {hint}", suite.file.display(), path.display());
    }
    let model = Model::load_as(path, &asked.form)
        .with_context(|| format!("model `{name}` of suite {}", suite.file.display()))?;
    let random = models::random::is_random(path)?;
    let Model { interface, graph, file, language, hash, training, .. } = model;
    let form = asked.form.clone();
    let recorded = match (&asked.vectors, &file) {
        (Some(vectors), Some(file)) => {
            let read = recorded::read(vectors, file, &interface);
            Some((Arc::new(read.with_context(|| format!("`vectors` of model `{name}`"))?), None))
        }
        (Some(vectors), None) => bail!(
            "model `{name}` is no ONNX file, and `vectors = {:?}` is for those\nhint: the reference interpreter judges it: leave the key out",
            vectors.display().to_string()
        ),
        (None, _) => None,
    };
    let (folder, modified) = (path.clone(), super::changes::modified(path));
    Ok(PlannedModel { interface, graph, file, language, form, recorded, hash, folder, random, training, modified })
}

fn plan_task(suite: &Suite, name: &str) -> anyhow::Result<PlannedTask> {
    let spec = &suite.tasks[name];
    let task = ergometer_suites::task(&spec.kind).with_context(|| format!("unknown kind of task `{}`", spec.kind))?;
    let set = suite.examples(name)?;
    if set.examples.is_empty() {
        bail!("task `{name}` of {} has no examples", suite.file.display());
    }
    let hash = task_hash::of(task, &set);
    Ok(PlannedTask { task, set, hash, arrays: None })
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

mod costs;

#[cfg(test)]
mod tests;
