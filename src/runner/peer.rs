//! What the outputs of a model that is a file are held to: outputs that its user recorded, else those of another engine on the first examples.
//!
//! In: a planned case. Out: [`PeerOutputs`], or why there are none. Must not: load a file in this process, or call a peer right.
//!
//! The peer loads the same file in a worker of its own, with one thread, the batch that the file has (one row where that is open) and its
//! default options. The first built-in engine that can is taken. What a peer takes longer for than `compare_seconds` is not
//! waited for.

use std::time::{Duration, Instant};

use ergometer_files::counted;
use ergometer_reports::case::{CaseError, ErrorKind, OutputComparison, Verdict};
use ergometer_reports::precision::{Precision, Tolerance};

use super::case::{Running, unexpected};
use super::judge::PeerOutputs;
use super::plan::{PlannedCase, PlannedModel, PlannedTask};
use super::process::{Launch, Worker, case_error};
use crate::backends::probe::ready;
use crate::backends::{BACKENDS, Backend, BackendError, Options};
use crate::models::interface::Rows;
use crate::parity::outputs::compare;
use crate::protocol::bounded::{MAX_NAME, head};
use crate::protocol::{Command, Go, Job, Message, Mode, NotThere};

/// Examples that are compared, at most; with little time one.
const EXAMPLES: usize = 4;
/// Seconds under which one example is enough.
const LITTLE: f64 = 10.0;

/// What a case's outputs are held to.
pub(super) fn outputs(case: &PlannedCase, model: &PlannedModel, task: &PlannedTask) -> Result<PeerOutputs, CaseError> {
    if let Some((recorded, questions)) = &model.recorded {
        return Ok(PeerOutputs {
            peer: format!("the recorded outputs {}", recorded.name),
            questions: questions.clone(),
            examples: recorded.inputs.len() as u64,
            outputs: recorded.outputs.clone(),
        });
    }
    let most = if case.spec.compare_seconds < LITTLE { 1 } else { EXAMPLES };
    let examples = most.min(task.set.examples.len()) as u64;
    let mut reasons = Vec::new();
    let peers = BACKENDS.iter().filter(|b| !b.file_precisions().is_empty() && Some(b.name()) != case.engine);
    for peer in peers {
        match ask(*peer, case, model, task, examples) {
            Ok(outputs) => {
                let outputs = outputs.into_iter().map(Some).collect();
                return Ok(PeerOutputs { peer: peer.name().into(), questions: None, examples, outputs });
            }
            Err(why) => reasons.push(format!("{}: {}", peer.name(), why.message)),
        }
    }
    let why = if reasons.is_empty() { "there is no other engine that loads files".into() } else { reasons.join("; ") };
    Err(case_error(ErrorKind::Unavailable, format!("nobody compared its outputs: {why}")))
}

fn ask(
    peer: &'static dyn Backend,
    case: &PlannedCase,
    model: &PlannedModel,
    task: &PlannedTask,
    examples: u64,
) -> Result<Vec<Vec<f32>>, CaseError> {
    let unavailable = |message: String| case_error(ErrorKind::Unavailable, message);
    let batch = if let Rows::Fixed(n) = model.interface.rows { n } else { 1 };
    let file = model.file.as_ref().map(|f| f.precision);
    let precision = file.unwrap_or("f32");
    let options = Options { precision: precision.into(), file, ..Options::f32(1, batch) };
    ready(peer, &options).map_err(|u| unavailable(u.reason))?;
    let described = peer.describe(&options).map_err(|e| match e {
        BackendError::Unavailable(u) => unavailable(u.reason),
        BackendError::Failed(message) | BackendError::WrongOutput(message) => unavailable(message),
    })?;
    let log = super::process::log()?;
    let environment = peer.environment(&options).into_iter().map(|(k, v)| (k.to_string(), v)).collect();
    let began = Instant::now();
    let silence = Duration::from_secs_f64(case.spec.compare_seconds);
    let mut worker =
        Worker::start(&Launch { command: Vec::new(), environment, silence, isolation: Default::default() }, &log)?;
    worker.send(&Command::Job(Job {
        backend: peer.name().into(),
        options: described.options,
        precision: precision.into(),
        threads: 1,
        scenario: String::new(),
        batch,
        ..super::job::job(case, task, &model.folder)
    }))?;
    while !matches!(worker.message()?, Message::Loaded(_)) {}
    if began.elapsed() > silence {
        return Err(unavailable(format!("loading took longer than {} s", case.spec.compare_seconds)));
    }
    worker.send(&Command::Go(Go {
        block: 0,
        mode: Mode::Compare,
        n: examples,
        seconds: 0.0,
        steps: 0,
        vectors: None,
        active_experts: None,
    }))?;
    let mut outputs = Vec::new();
    loop {
        match worker.message()? {
            Message::Outputs(o) => outputs = o.arrays,
            Message::Done(_) => break,
            other => return Err(unexpected("`outputs` or `done`", &other)),
        }
    }
    worker.finish()?;
    match outputs.iter().flatten().all(|v| v.is_finite()) {
        true => Ok(outputs),
        false => Err(unavailable("its outputs are not all finite".into())),
    }
}

/// What outputs of full precision are held to: those that they are compared with are no exact reference, but rounded by another engine in its
/// own order, and engines approximate exponentials by polynomials of their own.
const BOTH_ROUND: Tolerance = Tolerance { name: "f32-engines", limit: 1e-3 };

impl Running<'_, '_> {
    /// Compares the worker with recorded outputs or a peer's, and writes the verdict.
    pub(super) fn compare_outputs(&mut self, worker: &mut Worker, peer: &PeerOutputs) -> Result<(), CaseError> {
        let wrong = |message: String| Err(case_error(ErrorKind::WrongOutput, message));
        let mut go = self.go(Mode::Compare, peer.examples, 0.0, peer.questions.clone());
        if let Command::Go(go) = &mut go {
            go.steps = 1;
        }
        worker.send(&go)?;
        let mut got: Option<Vec<Vec<f32>>> = None;
        let mut refused = false;
        loop {
            match worker.message()? {
                Message::Outputs(o) if got.is_none() && !refused => got = Some(o.arrays),
                Message::Outputs(_) => return wrong("outputs came twice".into()),
                Message::Unavailable(u) if u.what == "outputs" && got.is_none() && !self.planned.command.is_empty() => {
                    refused = true;
                    self.refused(NotThere { what: "parity_error".into(), ..u })?;
                }
                Message::Unavailable(u) => self.refused(u)?,
                Message::Done(_) => break,
                other => return Err(unexpected("`outputs` or `done`", &other)),
            }
        }
        self.block += 1;
        let Some(got) = got else {
            if refused {
                self.out.case.verdict = Some(Verdict::AccuracyOnly);
                return Ok(());
            }
            return wrong("its outputs are missing".into());
        };
        let names = &self.planned.file.outputs;
        if got.len() != names.len() {
            return wrong(format!("{} outputs, the file has {} that are no states", got.len(), names.len()));
        }
        let mut compared: Vec<OutputComparison> = Vec::new();
        for ((got, want), (name, row)) in got.iter().zip(&peer.outputs).zip(names) {
            let Some(want) = want else { continue };
            if got.len() != want.len() {
                let (n, needed) = (got.len(), want.len());
                return wrong(format!("output `{name}` has {n} values where {} gives {needed}", peer.peer));
            }
            compared.push(compare(name, got, want, *row));
        }
        let Some(worst) = compared.iter().max_by(|a, b| a.largest.total_cmp(&b.largest)).cloned() else {
            return wrong("no output could be compared".into());
        };
        if !worst.largest.is_finite() {
            let place = names.iter().position(|(name, _)| *name == worst.output).unwrap_or(0);
            let reason = match got.get(place).is_some_and(|all| all.iter().all(|v| v.is_finite())) {
                true => format!("{} gives nothing but zeros, which no share of can be compared with", peer.peer),
                false => "it holds values that are no finite numbers".into(),
            };
            return wrong(format!("output `{}`: {reason}", worst.output));
        }
        self.note_unrecorded(peer);
        let all = self.task.set.examples.len() as u64;
        if peer.questions.is_none() && peer.examples < all {
            self.note(format!("outputs were compared on {} of {all}", counted(peer.examples, "example")));
        }
        let precision = Precision::of(&self.planned.key.precision);
        let Tolerance { name, limit } = if precision.full { BOTH_ROUND } else { precision.tolerance };
        self.out.case.compared = compared;
        self.out.case.verdict = Some(Verdict::Peer { peer: peer.peer.clone(), largest: worst.largest, limit });
        if worst.largest <= limit {
            return Ok(());
        }
        let message = format!(
            "output `{}` is {:.3e} of its largest value from that of {}, {name} allows {limit:.0e}",
            worst.output, worst.largest, peer.peer
        );
        let hint = match peer.questions {
            Some(_) => "were they recorded with this file, in this precision?",
            None => {
                "which of the two is right is not known: recorded outputs decide it (`vectors` in the [[model]] block)"
            }
        };
        Err(CaseError { kind: ErrorKind::Parity, message, hint: Some(hint.into()) })
    }

    /// Says which outputs nobody recorded.
    fn note_unrecorded(&mut self, peer: &PeerOutputs) {
        let names = &self.planned.file.outputs;
        let left_out = names.iter().zip(&peer.outputs).filter(|(_, want)| want.is_none());
        let left_out: Vec<&str> = left_out.map(|((name, _), _)| name.as_str()).collect();
        if !left_out.is_empty() {
            let shown = head(&left_out.join("`, `"), MAX_NAME);
            let (n, all) = (names.len() - left_out.len(), counted(names.len(), "output"));
            self.note(format!("{n} of {all} compared: `{shown}` not recorded"));
        }
    }
}
