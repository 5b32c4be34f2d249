//! One case up to where it can be timed: its worker loads, warms up, is compared with the reference and scored.
//!
//! In: a planned case, its task, the vectors it is judged by. Out: a warm worker, and a [`Case`] with samples and
//! predictions so far, or the error that ends it. Must not: run a model, or believe a worker about memory, energy or
//! right answers.
//!
//! The order is: start, load, warm up, compare, answer (unless an earlier case of the same model, backend, options,
//! precision, depth and task has been scored), then the timed blocks. A scenario that times processes has a block for
//! each, begun with a new worker that has loaded and done nothing else; the worker that was compared and scored is none
//! of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ergometer_files::counted;
use ergometer_reports::Samples;
use ergometer_reports::case::{
    Attempt, Case, CaseError, Constraints, ErrorKind, ExampleSum, LayerRouting, Prediction, SCHEMA, Sample,
    UnavailableMetric, Verdict,
};
use ergometer_suites::arrays::scorer::Scorer;
use ergometer_suites::suite::CaseLimits;
use ergometer_suites::{Answer, AnswerKind};

use super::claims;
use super::judge::ReferenceVectors;
use super::plan::{PlannedCase, PlannedTask};
use super::process::{Launch, Worker, case_error};
use super::progress::Progress;
use super::questions;
use super::scored::ScoredAnswer;
use super::scorer;
use crate::backends::backend;
use crate::backends::probe::ready;
use crate::clock::monotonic_ns;
use crate::meters::{Meters, cpu, memory};
use crate::protocol::bounded::{MAX_NAME, head};
use crate::protocol::{Command, Go, Message, Mode, NotThere, PROTOCOL, WORKERS_OWN};
use crate::scenarios::{Observation, driver};

/// Most things that a worker may say it lacks.
const MAX_REFUSALS: u32 = 1000;

/// Layers with a router that one net may have.
const MAX_LAYERS: usize = 4096;

/// Experts of all layers together: more could not be read back.
const MAX_EXPERTS: usize = 100_000;

/// What surrounds the cases of one run.
pub struct RunContext<'a> {
    /// Meters read around every measured block.
    pub meters: &'a mut Meters,
    /// Monotonic clock at the beginning of the run.
    pub began_ns: u64,
    /// One measured step, no warm-up: `--check`.
    pub check: bool,
    /// What is told meanwhile, never while a worker measures.
    pub progress: Progress,
    /// What scorer programs have left behind.
    pub scorers: Scorers,
}

/// What scorer programs have left behind.
#[derive(Default)]
pub struct Scorers {
    /// Answers of record that an earlier process kept for one that had failed, by id of their case.
    pub kept: BTreeMap<String, Vec<Prediction>>,
    /// How one failed, by name of the task: it is not tried again in this process.
    pub failed: BTreeMap<String, CaseError>,
}

/// The answers that a case's timed answers must equal: those scored for its group.
#[derive(Clone, Default)]
pub struct Scored {
    /// Id of the case that scored them.
    pub id: String,
    /// Answer of record by example.
    pub answers: BTreeMap<u64, Answer>,
    /// Steps that it took.
    pub steps: BTreeMap<u64, u32>,
    /// Of language models: tokens that were written after each prompt; not known of a case that an earlier process scored.
    pub written: BTreeMap<u64, Vec<u32>>,
}

impl Scored {
    /// The answers of record among a case's scored ones.
    pub fn of(id: &str, scored: &[ScoredAnswer]) -> Self {
        let of_record = || scored.iter().filter(|p| p.last);
        let answers = of_record().filter_map(|p| Some((p.example, p.answer.clone()?))).collect();
        let steps = of_record().map(|p| (p.example, p.depth)).collect();
        Self { id: id.into(), answers, steps, written: BTreeMap::new() }
    }

    /// The same from a case's file, whose answers are of this kind.
    ///
    /// # Errors
    /// A text that is no answer.
    pub fn read(id: &str, kind: AnswerKind, predictions: &[Prediction]) -> anyhow::Result<Self> {
        let mut read = Self { id: id.into(), ..Self::default() };
        for p in predictions.iter().filter(|p| p.last) {
            let answer = Answer::parse(kind, &p.answer);
            let answer = answer.with_context(|| format!("predictions.csv of case {id}, example {}", p.example))?;
            read.answers.insert(p.example, answer);
            read.steps.insert(p.example, p.depth);
        }
        Ok(read)
    }
}

/// What a case left behind; its answers as they were scored, or as a file has them ([`Prediction`]).
pub struct Finished<A = ScoredAnswer> {
    /// How it ended.
    pub case: Case,
    /// What was observed.
    pub samples: Samples,
    /// What it answered, if it is the one that is scored.
    pub predictions: Vec<A>,
    /// The attempts at questions that follow from them, where the task decides questions from several rows.
    pub attempts: Vec<Attempt>,
    /// What the scorer summed of each answer of record.
    pub sums: Vec<ExampleSum>,
}

impl Finished {
    /// Nothing observed yet.
    pub(super) fn new(planned: &PlannedCase, task: &PlannedTask, scored: Option<&Scored>) -> Self {
        let mut notes = task.set.notes.clone();
        notes.extend(crate::environment::machine::observe().threads(planned.key.threads));
        notes.extend(planned.numbering.clone());
        if planned.random {
            notes.push("random weights: what it answers means nothing; time, memory and energy do".into());
        }
        notes.extend(planned.model_changed.clone());
        notes.extend(planned.file.how_reduced());
        let case = Case {
            schema: SCHEMA,
            id: planned.id.clone(),
            path: planned.path.clone(),
            key: planned.asked.clone(),
            error: None,
            verdict: None,
            accuracy_from: scored.map(|s| s.id.clone()),
            protocol: Some(planned.protocol.clone()),
            questions: task.questions(),
            unscored: task.set.scorer.as_ref().and_then(Scorer::unscored),
            baselines: task.baselines(),
            tuning: planned.tuning.clone(),
            settings: planned.settings(),
            model_modified: planned.model_modified.clone(),
            interleaved: None,
            starts: Vec::new(),
            costs: planned.costs,
            reduces: planned.reduces.clone(),
            file: planned.file.facts.clone(),
            compared: Vec::new(),
            routing: Vec::new(),
            constraints: constraints(&planned.spec.limits),
            versions: BTreeMap::new(),
            unavailable: planned.file.uncounted(planned.costs.as_ref()),
            notes,
        };
        Self { case, samples: Samples::default(), predictions: Vec::new(), attempts: Vec::new(), sums: Vec::new() }
    }
}

impl<A> Finished<A> {
    /// Says how many processes a worker had started that had left its group when it ended, if any.
    pub(super) fn note_orphans(&mut self, orphans: usize) {
        let note = format!(
            "what its worker had started had left its process group, and was ended with it ({})",
            counted(orphans, "process")
        );
        if orphans > 0 && !self.case.notes.contains(&note) {
            self.case.notes.push(note);
        }
    }

    /// The case ends in this error.
    pub(super) fn fail(&mut self, error: CaseError) {
        self.case.error = Some(error);
        self.case.verdict = self.case.verdict.take().filter(|v| !matches!(v, Verdict::AccuracyOnly));
        self.case.accuracy_from = None;
        // no speed without a right answer: what was timed before the end is not kept
        self.samples.clear();
        // what a scorer could not score is scored later
        if !self.case.error.as_ref().is_some_and(|e| e.kind == ErrorKind::Scorer) {
            self.predictions.clear();
        }
        self.attempts.clear();
        self.sums.clear();
        self.case.routing.clear();
        self.case.compared.retain(|c| c.largest.is_finite());
    }
}

pub(super) struct Running<'a, 'm> {
    pub planned: &'a PlannedCase,
    pub task: &'a PlannedTask,
    pub context: &'a mut RunContext<'m>,
    pub out: &'a mut Finished,
    pub block: u32,
    /// Lines of `unavailable` so far.
    pub refusals: u32,
}

/// Variable that tells an external worker how many seconds it may search its settings, where the suite asks for a
/// search.
const TUNE_SECONDS: &str = "ERGOMETER_TUNE_SECONDS";

impl Running<'_, '_> {
    /// A worker that has loaded the model, is warm, and has been compared with the reference.
    pub(super) fn begin(
        &mut self,
        model: &Path,
        reference: ReferenceVectors,
        log: &Arc<File>,
    ) -> Result<Worker, CaseError> {
        let mut worker = self.start(model, log)?;
        self.warm(&mut worker)?;
        self.context.progress.phase("parity", &self.planned.path);
        self.compare(&mut worker, reference)?;
        Ok(worker)
    }

    /// A worker that has loaded the model.
    fn start(&mut self, model: &Path, log: &Arc<File>) -> Result<Worker, CaseError> {
        let built_in = self.planned.engine.and_then(backend);
        let options = self.planned.options();
        if let Some(lacking) = built_in.and_then(|b| ready(b, &options).err()) {
            return Err(CaseError { kind: ErrorKind::Unavailable, message: lacking.reason, hint: lacking.hint });
        }
        if self.planned.keep_halted && built_in.is_none() {
            return Err(CaseError {
                kind: ErrorKind::Unavailable,
                message: "whether another program keeps rows at work that have halted cannot be asked for".into(),
                hint: Some("`halt-keep-N` is for built-in backends; give external ones `halt-N`".into()),
            });
        }
        if built_in.is_none() && !self.task.starts().is_empty() {
            return Err(CaseError {
                kind: ErrorKind::Unavailable,
                message: "another program cannot be asked to start its states elsewhere than where the net learned to"
                    .into(),
                hint: Some(
                    "`chains` is for built-in backends; give external ones a task with `copies`, or without either"
                        .into(),
                ),
            });
        }
        let environment = built_in.map(|b| b.environment(&options)).unwrap_or_default();
        // an external program searches by itself, within the time that the suite gives a search
        let external = built_in.is_none() && self.planned.spec.tune;
        let search = external.then(|| (TUNE_SECONDS.to_string(), self.planned.spec.tune_seconds.to_string()));
        let launch = Launch {
            command: self.planned.command.clone(),
            environment: environment.into_iter().map(|(k, v)| (k.to_string(), v)).chain(search).collect(),
            silence: Duration::from_secs_f64(self.planned.spec.timeout_seconds),
            isolation: self.planned.isolation.clone(),
        };
        let mut worker = Worker::start(&launch, log)?;
        self.context.progress.phase("loading", &self.planned.path);
        self.load(&mut worker, model)?;
        Ok(worker)
    }

    /// Another worker in the place of this one, which ends in order: it has loaded the model, and is neither warm nor
    /// compared again.
    pub(super) fn renew(&mut self, old: Worker, model: &Path, log: &Arc<File>) -> Result<Worker, CaseError> {
        let orphans = old.finish()?;
        self.out.note_orphans(orphans);
        self.start(model, log)
    }

    /// Every example answered and scored: the answers of record of its group.
    pub(super) fn answer_all(&mut self, worker: &mut Worker) -> Result<Scored, CaseError> {
        self.context.progress.phase("scoring", &self.planned.path);
        let mut written = BTreeMap::new();
        match self.context.scorers.kept.remove(&self.planned.id) {
            Some(kept) => self.answered_before(&kept)?,
            None => written = self.answer(worker)?,
        }
        if let Some(Scorer::Program(program, _)) = &self.task.set.scorer {
            self.out.case.versions.extend(scorer::versions(program));
            let (failed, task) = (&mut self.context.scorers.failed, &self.planned.spec.task);
            if let Some(error) = failed.get(task) {
                return Err(error.clone());
            }
            scorer::score(program, &self.task.set, &mut self.out.predictions).inspect_err(|error| {
                failed.insert(task.clone(), error.clone());
            })?;
        }
        self.out.sums = self.out.predictions.iter_mut().flat_map(ScoredAnswer::take_sums).collect();
        if let Some(decide) = self.task.task.decides(&self.task.set) {
            self.out.attempts = questions::attempts(decide, &self.task.set, &self.out.predictions)?;
        }
        self.out.case.accuracy_from = Some(self.planned.id.clone());
        Ok(Scored { written, ..Scored::of(&self.planned.id, &self.out.predictions) })
    }

    fn load(&mut self, worker: &mut Worker, model: &Path) -> Result<(), CaseError> {
        let Message::Hello(hello) = worker.message()? else { return Err(out_of_turn("`hello`")) };
        let (took, scenario) = (worker.started.elapsed(), &self.planned.spec.scenario);
        let began = monotonic_ns().saturating_sub(took.as_nanos() as u64);
        if let Some(observation) = driver(scenario).started(began, took.as_secs_f64()) {
            self.observe(observation);
        }
        if hello.protocol != PROTOCOL {
            let message =
                format!("{} {} speaks protocol {}, the harness {PROTOCOL}", hello.name, hello.version, hello.protocol);
            return Err(case_error(ErrorKind::Protocol, message));
        }
        self.out.case.versions.insert(hello.name, hello.version);
        self.place(worker);
        self.memory("memory_base", "load", memory::resident(worker.pid()));
        let planned = self.planned;
        let job = super::job::job(planned, self.task, model);
        let asked = Asking::new(worker);
        worker.send(&Command::Job(job))?;
        let asked = asked.sent();
        let loaded = loop {
            match worker.message()? {
                Message::Loaded(loaded) => break loaded,
                Message::Unavailable(u) => self.refused(u)?,
                other => return Err(unexpected("`loaded`", &other)),
            }
        };
        let (least, most) = asked.waited(worker);
        if scenario.kind().worker_must_know && loaded.scenario.as_deref() != Some(&scenario.to_string()) {
            return Err(CaseError {
                kind: ErrorKind::Unavailable,
                message: format!("the worker does not know the scenario `{scenario}`: its `loaded` does not repeat it"),
                hint: Some("examples/external-worker/README.md says what a worker does that knows it".into()),
            });
        }
        match claims::duration("load time", loaded.seconds, least, most)? {
            Ok(seconds) => self.sample("load", None, None, "load_time", seconds),
            Err(why) => self.unavailable("load_time".into(), why),
        }
        self.memory("memory_load", "load", memory::peak(worker.pid()));
        for (name, bytes) in [("weight_bytes", loaded.weight_bytes), ("state_bytes", loaded.state_bytes)] {
            match bytes {
                Some(bytes) => self.sample("load", None, None, name, claims::bytes(name, bytes)?),
                None => self.unavailable(name.into(), "the worker did not say".into()),
            }
        }
        if let Some(language) = &planned.language {
            match loaded.kv_number_bytes.filter(|bytes| (0.0..=64.0).contains(bytes)) {
                Some(bytes) => self.sample("load", None, None, "kv_bytes", bytes * language.cached_numbers()),
                None => self.unavailable(
                    "kv_bytes".into(),
                    "the worker did not say in how many bytes it keeps a number".into(),
                ),
            }
        }
        let built_in = planned.command.is_empty();
        if built_in && (loaded.isa.as_ref() != Some(&planned.key.isa) || loaded.options != planned.key.backend_options)
        {
            let message = format!(
                "planned for ISA {} and options {:?}, but the worker uses {:?} and {:?}",
                planned.key.isa, planned.key.backend_options, loaded.isa, loaded.options
            );
            return Err(case_error(ErrorKind::Protocol, message));
        }
        if !built_in {
            // what another program says of itself is kept beside its versions
            let told = loaded.options.into_iter().map(|(k, v)| (format!("option {k}"), v));
            self.out.case.versions.extend(told.chain(loaded.isa.map(|isa| ("isa".into(), isa))));
        }
        self.out.case.versions.extend(loaded.versions);
        Ok(())
    }

    /// Keeps where an external program runs.
    fn place(&mut self, worker: &Worker) {
        self.out.case.versions.extend(worker.place().clone());
        let Some(confined) = worker.place().get("isolation.confined") else { return };
        if let Some(why) = confined.strip_prefix("false ") {
            self.note(format!("the suite asks for it to be confined, and it is not {why}"));
        } else if let Some(how) = confined.strip_prefix("in part ") {
            self.note(format!("the suite asks for it to be confined, and it is so in part {how}"));
        }
    }

    /// The first iteration, by itself so that its time can be held to what passed, and then the warm-up.
    fn warm(&mut self, worker: &mut Worker) -> Result<(), CaseError> {
        self.reset_peak(worker);
        let asked = Asking::new(worker);
        worker.send(&self.go(Mode::Warm, 0, 0.0, None))?;
        let asked = asked.sent();
        let Message::Ready(ready) = worker.message()? else { return Err(out_of_turn("`ready`")) };
        let (least, most) = asked.waited(worker);
        let batch = Some(u64::from(self.planned.key.batch));
        match claims::duration("first latency", ready.first_seconds, least, most)? {
            Ok(first) => self.sample("first", None, batch, "first_latency", first),
            Err(why) => self.unavailable("first_latency".into(), why),
        }
        let seconds = self.planned.spec.warmup_seconds;
        if !self.context.check && seconds > most {
            self.rewarm(worker, seconds - most)?;
        }
        self.memory("memory_warmup", "warmup", memory::peak(worker.pid()));
        Ok(())
    }

    /// Iterations that nobody times, at least one and for so long: others have worked since, and the caches are theirs.
    pub(super) fn rewarm(&mut self, worker: &mut Worker, seconds: f64) -> Result<(), CaseError> {
        worker.send(&self.go(Mode::Warm, 0, seconds, None))?;
        match worker.message()? {
            Message::Ready(_) => Ok(()),
            other => Err(unexpected("`ready`", &other)),
        }
    }

    pub(super) fn go(&mut self, mode: Mode, n: u64, seconds: f64, vectors: Option<PathBuf>) -> Command {
        let vectors = vectors.map(|path| super::job::absolute(&path));
        Command::Go(Go { block: self.block, mode, n, seconds, steps: 0, vectors, active_experts: None })
    }

    /// Keeps what the routers did, if it can be.
    pub(super) fn routed(&mut self, layers: Vec<LayerRouting>) -> Result<(), CaseError> {
        let wrong = |m: String| Err(case_error(ErrorKind::WrongOutput, m));
        if !self.out.case.routing.is_empty() {
            return Err(case_error(ErrorKind::Protocol, "the worker told twice what its routers did"));
        }
        if !["moe", "opaque"].contains(&self.planned.key.family.as_str())
            || layers.is_empty()
            || layers.len() > MAX_LAYERS
        {
            return wrong(format!("{} routed layers of a {} model", layers.len(), self.planned.key.family));
        }
        if layers.iter().map(|l| l.load.len().max(l.probability.len())).sum::<usize>() > MAX_EXPERTS {
            return wrong(format!("routing of more than {MAX_EXPERTS} experts"));
        }
        if let Some(why) = layers.iter().find_map(|l| l.check().err()) {
            return wrong(format!("impossible routing: {why}"));
        }
        let named = |l: LayerRouting| LayerRouting { layer: head(&l.layer, MAX_NAME), ..l };
        self.out.case.routing = layers.into_iter().map(named).collect();
        Ok(())
    }

    /// Latency and energy are of the examples that were met: fewer than all is something to know.
    pub(super) fn note_coverage(&mut self) {
        let n = self.task.set.examples.len() as u64;
        let timed = self.out.samples.iter().filter(|s| s.iteration.is_some());
        let met: BTreeSet<u64> = timed
            .filter_map(|s| Some((s.example?, s.rows?)))
            .flat_map(|(first, rows)| (first..first + rows.min(n)).map(move |i| i % n))
            .collect();
        if (met.len() as u64) < n {
            self.note(format!("timed on {} of {}; accuracy is over all of them", met.len(), counted(n, "example")));
        }
    }

    pub(super) fn now(&self) -> u64 {
        monotonic_ns().saturating_sub(self.context.began_ns)
    }

    fn sample(
        &mut self,
        phase: &'static str,
        example: Option<u64>,
        row: Option<u64>,
        metric: &'static str,
        value: f64,
    ) {
        let (block, t_ns) = (self.block, self.now());
        self.out.samples.push(Sample { block, phase, iteration: None, t_ns, example, rows: row, metric, value });
    }

    /// Keeps what a scenario has observed.
    pub(super) fn observe(&mut self, seen: Observation) {
        let Observation { phase, iteration, t_ns, example, rows, metric, value } = seen;
        let (block, t_ns) = (self.block, t_ns.saturating_sub(self.context.began_ns));
        match value {
            Ok(value) => self.out.samples.push(Sample { block, phase, iteration, t_ns, example, rows, metric, value }),
            Err(why) => self.unavailable(metric.into(), why),
        }
    }

    pub(super) fn block_sample(&mut self, t_ns: u64, row: Option<u64>, metric: &'static str, value: f64) {
        let (block, phase) = (self.block, driver(&self.planned.spec.scenario).phase());
        self.out.samples.push(Sample { block, phase, iteration: None, t_ns, example: None, rows: row, metric, value });
    }

    fn memory(&mut self, metric: &'static str, phase: &'static str, bytes: std::io::Result<u64>) {
        match bytes {
            Ok(bytes) => self.sample(phase, None, None, metric, bytes as f64),
            Err(e) => self.unavailable(metric.into(), format!("cannot be read: {e}")),
        }
    }

    pub(super) fn reset_peak(&mut self, worker: &Worker) {
        if let Err(e) = memory::reset_peak(worker.pid()) {
            self.note(format!(
                "peak memory cannot be reset ({e}): memory_warmup and memory_peak are peaks since the start"
            ));
        }
    }

    /// A worker's word that it lacks something; the first word on each metric counts.
    pub(super) fn refused(&mut self, missing: NotThere) -> Result<(), CaseError> {
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS {
            let message = format!("the worker sent more than {MAX_REFUSALS} lines of `unavailable`");
            return Err(case_error(ErrorKind::Protocol, message));
        }
        if WORKERS_OWN.contains(&missing.what.as_str()) {
            self.unavailable(missing.what, missing.reason);
        } else if ergometer_reports::metric::metric(&missing.what).is_some() {
            self.note(format!(
                "the worker says that {} is unavailable, which is not the worker's to tell",
                missing.what
            ));
        }
        Ok(())
    }

    pub(super) fn unavailable(&mut self, metric: String, reason: String) {
        let entry = UnavailableMetric { metric, reason };
        if ergometer_reports::metric::metric(&entry.metric).is_some()
            && self.out.case.unavailable.iter().all(|u| u.metric != entry.metric)
        {
            self.out.case.unavailable.push(entry);
        }
    }

    pub(super) fn note(&mut self, note: String) {
        if !self.out.case.notes.contains(&note) {
            self.out.case.notes.push(note);
        }
    }
}

/// Something asked of a worker, and how long its answer takes as the harness sees it.
struct Asking {
    /// Before anything was sent, and once all of it was.
    began: Instant,
    sent: Instant,
    /// Seconds for which the kernel had made the worker and this process wait for a processor by then.
    waited: f64,
}

impl Asking {
    fn new(worker: &Worker) -> Self {
        let now = Instant::now();
        Self { began: now, sent: now, waited: cpu::waited(worker.pid()) + cpu::own_waited() }
    }

    fn sent(self) -> Self {
        Self { sent: Instant::now(), ..self }
    }

    /// The least and the most seconds that the worker can have seen pass.
    fn waited(&self, worker: &Worker) -> (f64, f64) {
        let (most, all) = (self.began.elapsed().as_secs_f64(), self.sent.elapsed().as_secs_f64());
        let waited = cpu::waited(worker.pid()) + cpu::own_waited() - self.waited;
        (all - waited.max(0.0), most)
    }
}

/// What a suite wants a case to keep to, for its record.
fn constraints(limits: &CaseLimits) -> Constraints {
    let CaseLimits { memory, deadline, energy, background, served, lag: lag_bound } = *limits;
    let (ttft_bound, tpot_bound) = served.unzip();
    Constraints { memory_limit: memory, deadline, max_energy: energy, background, ttft_bound, tpot_bound, lag_bound }
}

fn out_of_turn(wanted: &str) -> CaseError {
    case_error(ErrorKind::Protocol, format!("the worker did not send {wanted} when it was due"))
}

pub(super) fn unexpected(wanted: &str, got: &Message) -> CaseError {
    case_error(ErrorKind::Protocol, format!("the worker sent `{}` where {wanted} was due", got.kind()))
}
