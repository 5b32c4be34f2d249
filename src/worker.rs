//! The worker: one process that loads one model on one backend and answers the harness line by line (see [`crate::protocol`]).
//!
//! In: commands on stdin. Out: messages on stdout, logs on stderr. Must not: see an answer, score anything, meter memory or energy (the
//! harness does, from outside), or allocate inside a timed iteration.
//!
//! It times its iterations and nothing else. What an iteration is, the `Driver` of the job's scenario says
//! (`crate::scenarios`); a scenario that asks for more than iterations of so many rows is repeated in `loaded`, and a
//! worker that does not repeat it is unavailable there. A time runs from handing over an example's tokens to holding
//! its outputs in memory.
//!
//! Samples go into memory that is allocated beforehand and are sent after the block's last iteration. The worker's own
//! loop allocates nothing inside a timed iteration; a backend may (candle allocates its tensors), and that is part of
//! its time; so is the noise on the states of rows that start elsewhere, for which states are copied out and in. A block goes on with the example after the last one of the block before and wraps round at the end of the
//! task. Because a worker waits between blocks, cases can be interleaved.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::time::Instant;

use anyhow::{Context, bail};
use ergometer_reports::case::LayerRouting;
use ergometer_suites::task::StartNoise;

use crate::backends::session::{Rule, Session};
use crate::backends::{Backend, BackendError, Described, Engine, Facts, Options, Unavailable, backend};
use crate::clock::monotonic_ns;
use crate::files::write_atomically;
use crate::graph::Graph;
use crate::models::interface::{Interface, InterfaceError};
use crate::models::{Model, ModelError};
use crate::parity::{RecordedStep, Vectors};
use crate::protocol::*;
use crate::scenarios::{self, Driver, LiveRows};

use self::answers::Reader;
use self::given::GivenRows;
use self::language::LanguageWork;

mod answers;
pub mod given;
mod language;

/// Answers that are told in one line.
const ROWS_IN_LINE: usize = 1000;

/// Runs the worker until its input ends. Failures are told to the harness before they are returned.
pub fn run(input: impl Read, mut output: impl Write) -> anyhow::Result<()> {
    let hello = Hello { protocol: PROTOCOL, name: "ergometer".into(), version: env!("CARGO_PKG_VERSION").into() };
    send(&mut output, &Message::Hello(hello))?;
    let result = serve(BufReader::new(input), &mut output);
    if let Err(error) = &result {
        let message = match error.downcast_ref::<BackendError>() {
            Some(BackendError::Unavailable(u)) => {
                Message::Unavailable(NotThere { what: "case".into(), reason: u.reason.clone(), hint: u.hint.clone() })
            }
            Some(BackendError::Failed(m)) => Message::Failed(Failed { kind: FailureKind::Backend, message: m.clone() }),
            Some(BackendError::WrongOutput(m)) => {
                Message::Failed(Failed { kind: FailureKind::WrongOutput, message: m.clone() })
            }
            None if error.is::<ModelError>() || error.is::<InterfaceError>() => {
                Message::Failed(Failed { kind: FailureKind::Model, message: format!("{error:#}") })
            }
            None => Message::Failed(Failed { kind: FailureKind::Protocol, message: format!("{error:#}") }),
        };
        send(&mut output, &message)?;
    }
    result
}

fn send(output: &mut impl Write, message: &Message) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    output.write_all(line.as_bytes()).and_then(|()| output.flush()).context("the harness no longer listens")
}

/// The next command and when it was heard, or `None` at the end of input.
fn receive(input: &mut impl BufRead) -> anyhow::Result<Option<(Command, Instant)>> {
    let mut line = String::new();
    input.by_ref().take(MAX_LINE as u64).read_line(&mut line).context("cannot read a command")?;
    if line.is_empty() {
        return Ok(None);
    }
    let heard = Instant::now();
    let command = serde_json::from_str(&line)
        .with_context(|| format!("not a command: {}", line.chars().take(200).collect::<String>()))?;
    Ok(Some((command, heard)))
}

fn serve(mut input: impl BufRead, output: &mut impl Write) -> anyhow::Result<()> {
    let (job, heard) = match receive(&mut input)? {
        Some((Command::Job(job), heard)) => (job, heard),
        Some((Command::Go(_), _)) => bail!("`go` came before `job`"),
        None => return Ok(()),
    };
    if job.language.is_some() {
        let (mut work, loaded) = LanguageWork::load(job, heard)?;
        send(output, &Message::Loaded(loaded))?;
        return blocks(&mut work, input, output);
    }
    let (mut work, loaded) = Work::load(job, heard)?;
    send(output, &Message::Loaded(loaded))?;
    blocks(&mut work, input, output)
}

/// What a worker does in each mode, whatever its model is.
trait Modes {
    fn warm(&mut self, seconds: f64) -> Result<f64, BackendError>;
    fn answer(&mut self, block: u32, output: &mut impl Write) -> anyhow::Result<()>;
    fn compare(&mut self, go: &Go, output: &mut impl Write) -> anyhow::Result<()>;
    fn record(&mut self, go: &Go) -> anyhow::Result<()>;
    fn time(&mut self, go: &Go, output: &mut impl Write) -> anyhow::Result<()>;
}

/// Block after block, until the input ends.
fn blocks(work: &mut impl Modes, mut input: impl BufRead, output: &mut impl Write) -> anyhow::Result<()> {
    while let Some((command, _)) = receive(&mut input)? {
        let Command::Go(go) = command else { bail!("a second `job` came") };
        match go.mode {
            Mode::Warm => {
                let first_seconds = work.warm(go.seconds)?;
                send(output, &Message::Ready(Ready { first_seconds }))?;
                continue;
            }
            Mode::Answer => work.answer(go.block, output)?,
            Mode::Compare => work.compare(&go, output)?,
            Mode::Record => work.record(&go)?,
            Mode::Time => work.time(&go, output)?,
        }
        send(output, &Message::Done(Done { block: go.block }))?;
    }
    Ok(())
}

/// Errors: a job whose examples the model cannot take, or that makes no sense.
fn check(job: &Job, interface: &Interface) -> anyhow::Result<()> {
    let examples = job.puzzle_ids.len();
    if job.arrays.is_none() {
        let tokens = interface.tokens()?;
        if let Some(i) = job.inputs.iter().position(|t| !tokens.takes(t.len())) {
            bail!(
                "example {i} has {} tokens, the model takes {}: task and model do not belong together",
                job.inputs[i].len(),
                tokens.takes_words()
            );
        }
    }
    let rows = if job.arrays.is_some() { 0 } else { examples };
    if examples == 0 || job.batch == 0 || job.inputs.len() != rows || job.max_steps == 0 {
        bail!(
            "{} inputs, {examples} puzzle identifiers, batch {}, {} steps",
            job.inputs.len(),
            job.batch,
            job.max_steps
        );
    }
    if !job.starts.is_empty() && (job.starts.len() != job.inputs.len() || interface.states.is_empty()) {
        bail!(
            "{} noisy starts of {} examples, of a model with {} states",
            job.starts.len(),
            job.inputs.len(),
            interface.states.len()
        );
    }
    if job.batch > 1 && job.inputs.iter().any(|t| t.len() != job.inputs[0].len()) {
        return Err(unlike(job.batch).into());
    }
    Ok(())
}

/// The backend that a job asks for, with its versions.
fn asked_of(job: &Job) -> anyhow::Result<(&'static dyn Backend, BTreeMap<String, String>)> {
    if job.protocol != PROTOCOL {
        bail!("the harness speaks protocol {}, this worker {PROTOCOL}", job.protocol);
    }
    let asked =
        backend(&job.backend).with_context(|| format!("there is no backend `{}` in this program", job.backend))?;
    Ok((asked, asked.probe().map_err(BackendError::Unavailable)?))
}

/// Errors: the model has another hash than the harness saw.
fn unchanged(job: &Job, hash: &str) -> Result<(), ModelError> {
    if hash == job.model_hash {
        return Ok(());
    }
    let message = format!("the model is not the one that the harness saw ({} now)", &hash[..16]);
    Err(ModelError::changed(&job.model, message))
}

/// What is said of a model that was loaded for a job, which was heard then.
fn loaded(
    job: &Job,
    heard: Instant,
    mut versions: BTreeMap<String, String>,
    described: Described,
    facts: Facts,
) -> Loaded {
    // every backend of this program computes on the processor; one that does not will say so in its report
    versions.entry("device".into()).or_insert_with(|| "cpu".into());
    Loaded {
        seconds: heard.elapsed().as_secs_f64(),
        versions,
        options: described.options,
        isa: Some(described.isa),
        weight_bytes: Some(facts.weight_bytes),
        state_bytes: Some(facts.state_bytes),
        kv_number_bytes: None,
        scenario: Some(job.scenario.clone()).filter(|s| !s.is_empty()),
    }
}

/// Rows that do not share a batch.
fn unlike(batch: usize) -> BackendError {
    BackendError::Unavailable(Unavailable {
        reason: format!("examples of unlike length do not share a batch of {batch}"),
        hint: Some("ask for `single-stream`, or for examples of one length".into()),
    })
}

/// A loaded model and what it is asked.
struct Work {
    job: Job,
    interface: Interface,
    /// Layer and experts per token of every mixture of experts.
    mixtures: Vec<(String, usize)>,
    /// What it is asked, and where an answer stands among the outputs: resolved once.
    given: GivenRows,
    reader: Reader,
    session: Session,
    rule: Rule,
    slots: Vec<usize>,
    /// Noise on the starts of the slots that have some.
    starts: Vec<(usize, StartNoise)>,
    /// Example that the next timed iteration begins with: blocks go on where the last one stopped.
    next: usize,
    /// What an iteration is.
    driver: &'static dyn Driver,
    samples: Vec<IterationSample>,
    /// Times of single rows, iteration by iteration, where the scenario has them.
    rows_at: Vec<f64>,
}

impl Work {
    /// Loads what the job asks for, which was heard then.
    fn load(job: Job, heard: Instant) -> anyhow::Result<(Self, Loaded)> {
        let (engine_of, mut versions) = asked_of(&job)?;
        let model = Model::load_as(&job.model, &job.form)?;
        unchanged(&job, &model.hash)?;
        let computes = if model.file.is_some() { engine_of.file_precisions() } else { engine_of.precisions() };
        if !computes.contains(&job.precision.as_str()) {
            let reason = match computes {
                [] => format!("backend `{}` compiles graphs, and loads no file", job.backend),
                all => format!(
                    "backend `{}` does not compute in {} (it does in {})",
                    job.backend,
                    job.precision,
                    all.join(", ")
                ),
            };
            return Err(BackendError::unavailable(reason).into());
        }
        check(&job, &model.interface)?;
        let (given, reader) = (GivenRows::of(&job, &model.interface)?, Reader::of(&job, &model.interface)?);
        given.one_size(job.batch)?;
        // before a model is loaded for nothing
        scenarios::asked(&job.scenario, job.batch)?;
        let options = Options {
            precision: job.precision.clone(),
            threads: job.threads,
            capacity: job.batch,
            extra: job.options.clone(),
            file: model.file.as_ref().map(|f| f.precision),
            language: false,
        };
        let described = engine_of.describe(&options)?;
        let engine = engine_of.load(&model, &options)?;
        let facts = engine.facts();
        versions.extend(engine.report());
        let mixtures = model.graph.as_ref().map(Graph::mixtures).unwrap_or_default();
        let work = Self::of(job, model.interface, mixtures, engine, given, reader)?;
        let loaded = loaded(&work.job, heard, versions, described, facts);
        Ok((work, loaded))
    }

    /// Work of an engine that is loaded for this job, which [`check`] has let pass.
    fn of(
        job: Job,
        interface: Interface,
        mixtures: Vec<(String, usize)>,
        engine: Box<dyn Engine>,
        given: GivenRows,
        reader: Reader,
    ) -> anyhow::Result<Self> {
        let driver = scenarios::asked(&job.scenario, job.batch)?;
        let most = scenarios::most_iterations(driver, job.batch);
        let mut session = Session::new(engine, &interface, job.batch)?;
        if job.keep_halted {
            session.keep_halted_rows();
        }
        Ok(Self {
            rule: if job.halt { Rule::Halt } else { Rule::Fixed },
            slots: (0..job.batch).collect(),
            starts: Vec::with_capacity(job.batch),
            next: 0,
            driver,
            samples: Vec::with_capacity(most),
            rows_at: Vec::with_capacity(if driver.times_rows() { most * job.batch } else { 0 }),
            given,
            reader,
            job,
            interface,
            mixtures,
            session,
        })
    }

    /// Fills the slots with the examples `first..`, wrapping round; `rows` of them.
    fn admit(&mut self, first: usize, rows: usize) -> Result<(), BackendError> {
        self.session.retain(&[])?;
        self.given.enter(&mut self.session, &self.job, &self.slots[..rows], first)?;
        if self.job.starts.is_empty() {
            return Ok(());
        }
        let n = self.job.starts.len();
        self.starts.clear();
        let noise = |slot: usize| Some((slot, self.job.starts[(first + slot) % n]?));
        self.starts.extend((0..rows).filter_map(noise));
        self.session.disturb(&self.starts)
    }

    /// One whole iteration: rows in, answers ready.
    fn iterate(&mut self, first: usize, rows: usize) -> Result<(), BackendError> {
        self.admit(first, rows)?;
        self.session.advance(self.job.max_steps, self.rule)?;
        Ok(())
    }

    /// Errors: outputs that can be no answer.
    fn prediction(&self, slot: usize, example: usize, last: bool) -> Result<PredictionRow, BackendError> {
        let halt_logit = self.reader.halting.map(|output| f64::from(self.session.output(output, slot)[0]));
        let depth = self.session.slot(slot).steps;
        let answer = self.reader.answer(&self.session, slot);
        let answer =
            answer.map_err(|why| BackendError::WrongOutput(format!("example {example}, step {depth}: {why}")))?;
        Ok(PredictionRow { example: example as u64, depth, last, halt_logit, answer, written: None })
    }

    /// Of a model that is a file: every output for the first `n` examples, or for the arrays of a file; rows ride in batches of this case's
    /// size, as they will when timed.
    fn compare_file(&mut self, go: &Go, output: &mut impl Write) -> anyhow::Result<()> {
        let (n, batch) = (go.n as usize, self.job.batch);
        let own = match &go.vectors {
            Some(path) => Some(std::mem::replace(&mut self.given, GivenRows::read(path, &self.interface, n, batch)?)),
            None => None,
        };
        let mut arrays: Vec<Vec<f32>> = vec![Vec::new(); self.interface.outputs.len()];
        for first in (0..n).step_by(batch) {
            self.session.retain(&[])?;
            let rows = batch.min(n - first);
            // a batch that is not full is filled up, so that all are as when timed
            let examples: Vec<usize> = (0..batch).map(|i| first + i % rows).collect();
            self.given.enter_these(&mut self.session, &self.job, &self.slots, &examples)?;
            self.session.advance(self.job.max_steps, Rule::Fixed)?;
            for (i, all) in arrays.iter_mut().enumerate() {
                (0..rows).for_each(|slot| all.extend_from_slice(self.session.output(i, slot)));
            }
        }
        if let Some(own) = own {
            self.given = own;
        }
        let none = Vec::new();
        send(output, &Message::Outputs(Outputs { step: 1, logits: none, q: Vec::new(), states: Vec::new(), arrays }))
    }

    fn vectors(&self, go: &Go) -> anyhow::Result<Vectors> {
        Vectors::read(go.vectors.as_deref().context("`compare` needs a vectors file")?, &self.interface)
    }
}

impl Modes for Work {
    fn warm(&mut self, seconds: f64) -> Result<f64, BackendError> {
        let started = Instant::now();
        let batch = self.job.batch;
        self.iterate(0, batch)?;
        let first = started.elapsed().as_secs_f64();
        let mut i = 1;
        while started.elapsed().as_secs_f64() < seconds {
            self.iterate(i * batch % self.job.puzzle_ids.len(), batch)?;
            i += 1;
        }
        Ok(first)
    }

    /// Every example once; the answer after each step, told as it comes, and in the end what the routers did.
    fn answer(&mut self, block: u32, output: &mut impl Write) -> anyhow::Result<()> {
        let n = self.job.puzzle_ids.len();
        self.session.engine().watch_routing(true);
        for first in (0..n).step_by(self.job.batch) {
            let rows = self.job.batch.min(n - first);
            self.admit(first, rows)?;
            let mut stopped = vec![false; rows];
            for step in 1..=self.job.max_steps {
                if self.session.advance(1, self.rule)? == 0 {
                    break;
                }
                let mut told = Vec::new();
                for (slot, stopped) in stopped.iter_mut().enumerate().filter(|(_, s)| !**s) {
                    *stopped = self.session.slot(slot).halted;
                    told.push(self.prediction(slot, first + slot, *stopped || step == self.job.max_steps)?);
                }
                send(output, &Message::Predictions(Predictions { block, rows: told }))?;
            }
        }
        let seen = self.session.engine().routing();
        self.session.engine().watch_routing(false);
        if self.mixtures.is_empty() {
            return Ok(());
        }
        if let Some(seen) = seen {
            let layers = self.mixtures.iter().zip(seen).map(|((layer, top_k), r)| {
                let (layer, top_k) = (layer.clone(), *top_k);
                let tokens = (r.load.iter().sum::<u64>() / top_k as u64).max(1) as f64;
                let probability = r.probability.iter().map(|p| p / tokens).collect();
                LayerRouting { layer, top_k: top_k as u32, load: r.load, probability }
            });
            send(output, &Message::Routed(Routed { block, layers: layers.collect() }))?;
        } else {
            for what in ["router_entropy", "expert_load_max"] {
                let reason = format!("backend `{}` does not see what the routers decide", self.job.backend);
                send(output, &Message::Unavailable(NotThere { what: what.into(), reason, hint: None }))?;
            }
        }
        Ok(())
    }

    fn compare(&mut self, go: &Go, output: &mut impl Write) -> anyhow::Result<()> {
        if self.interface.outputs.iter().any(|port| port.kind.is_some()) {
            return self.compare_file(go, output);
        }
        // full batches, as they will be timed
        let vectors = self.vectors(go)?.tiled(self.job.batch);
        self.session.retain(&[])?;
        // rows ride in batches of this case's size, as they will when timed
        let mut steps: Vec<RecordedStep> = vec![RecordedStep::default(); vectors.steps.len()];
        for first in (0..vectors.batch).step_by(self.job.batch) {
            let part = vectors.rows(first, self.job.batch.min(vectors.batch - first));
            for (all, step) in steps.iter_mut().zip(part.step_by_step(&mut self.session, &self.interface)?) {
                all.extend(step);
            }
        }
        for (RecordedStep { logits, q, states }, step) in steps.into_iter().zip(1..) {
            send(output, &Message::Outputs(Outputs { step, logits, q, states, arrays: Vec::new() }))?;
        }
        Ok(())
    }

    fn record(&mut self, go: &Go) -> anyhow::Result<()> {
        let path = go.vectors.as_deref().context("`record` needs a path")?;
        let rows = (go.n as usize).min(self.job.inputs.len()).min(self.job.batch);
        self.session.retain(&[])?;
        let inputs = self.job.inputs[..rows].concat();
        let ids = self.job.puzzle_ids[..rows].to_vec();
        let vectors = Vectors::record(&mut self.session, &self.interface, inputs, ids, go.steps)?;
        write_atomically(path, &vectors.write(&self.interface)?)
    }

    fn time(&mut self, go: &Go, output: &mut impl Write) -> anyhow::Result<()> {
        let (n, batch) = (self.job.puzzle_ids.len(), self.job.batch);
        // answers of the examples met, kept as they fall so that the harness can see that timed answers are the scored ones
        let mut answers: Vec<Option<PredictionRow>> = vec![None; n];
        let executed_before = self.session.flops_executed();
        let (driver, each) = (self.driver, if self.driver.times_rows() { batch } else { 0 });
        let (mut samples, mut rows_at) = (std::mem::take(&mut self.samples), std::mem::take(&mut self.rows_at));
        rows_at.clear();
        let mut failure = None;
        time_loop(go.block, go.n, go.seconds, &mut samples, |_| {
            let first = self.next;
            self.next = (first + batch) % n;
            let place = rows_at.len();
            // within the room that is there
            rows_at.resize(place + each, 0.0);
            let t_ns = monotonic_ns();
            let started = Instant::now();
            if let Err(e) = driver.iterate(&mut *self, first, started, &mut rows_at[place..]) {
                failure = Some(e);
                return None;
            }
            let latency = started.elapsed().as_secs_f64();
            let steps = (0..batch).map(|s| u64::from(self.session.slot(s).steps)).sum();
            for slot in 0..batch.min(n) {
                let example = (first + slot) % n;
                if answers[example].is_none() {
                    match self.prediction(slot, example, true) {
                        Ok(row) => answers[example] = Some(row),
                        Err(e) => {
                            failure = Some(e);
                            return None;
                        }
                    }
                }
            }
            Some((t_ns, first as u64, batch as u64, latency, steps))
        });
        if let Some(e) = failure {
            return Err(e.into());
        }
        send(output, &Message::Measured(Done { block: go.block }))?;
        for (i, mut sample) in samples.drain(..).enumerate() {
            sample.row_seconds = rows_at[i * each..(i + 1) * each].to_vec();
            send(output, &Message::Sample(sample))?;
        }
        (self.samples, self.rows_at) = (samples, rows_at);
        match self.session.flops_executed().zip(executed_before) {
            Some((after, before)) => {
                send(output, &Message::Counted(Counted { block: go.block, flops_executed: after - before }))?;
            }
            None => {
                let reason = format!("backend `{}` cannot say what it executes", self.job.backend);
                send(output, &Message::Unavailable(NotThere { what: "flops_executed".into(), reason, hint: None }))?;
            }
        }
        let mut rows = answers.into_iter().flatten();
        loop {
            // many lines of some rows: one of all could be longer than the harness takes
            let part: Vec<_> = rows.by_ref().take(ROWS_IN_LINE).collect();
            if part.is_empty() {
                return Ok(());
            }
            send(output, &Message::Predictions(Predictions { block: go.block, rows: part }))?;
        }
    }
}

impl LiveRows for Work {
    fn admit(&mut self, first: usize) -> Result<(), BackendError> {
        let rows = self.job.batch;
        Work::admit(self, first, rows)
    }

    fn advance(&mut self, stopped: &mut dyn FnMut(usize)) -> Result<(), BackendError> {
        self.session.advance_each(self.job.max_steps, self.rule, stopped).map(|_| ())
    }
}

/// One iteration as its closure reports it: start, first example, rows, latency, steps.
pub type Iteration = (u64, u64, u64, f64, u64);

/// Repeats an iteration until both the count and the time are reached (or the memory for samples is full, or it gives `None`).
/// Nothing is allocated as long as `samples` has room.
pub fn time_loop(
    block: u32,
    least: u64,
    seconds: f64,
    samples: &mut Vec<IterationSample>,
    mut iteration: impl FnMut(u64) -> Option<Iteration>,
) {
    samples.clear();
    let started = Instant::now();
    let mut i = 0;
    while (i < least || started.elapsed().as_secs_f64() < seconds) && samples.len() < samples.capacity() {
        let Some((t_ns, example, rows, latency, steps)) = iteration(i) else { return };
        let row_seconds = Vec::new();
        let requests = Vec::new();
        samples.push(IterationSample {
            block,
            iteration: i,
            t_ns,
            example,
            rows,
            latency,
            steps,
            row_seconds,
            requests,
        });
        i += 1;
    }
}

/// Makes this process end when the process that started it does, whatever happens to that one.
pub fn die_with_parent(parent: u32) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // the parent may have gone before the line above
    if rustix::process::getppid().map(|p| p.as_raw_nonzero().get() as u32) != Some(parent) {
        bail!("the harness is gone");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
