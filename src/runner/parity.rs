//! Parity within a case: the worker's outputs, step by step from recorded states, against the reference's, before anything is timed.
//!
//! In: a warm worker, the vectors of the reference. Out: the case's verdict, or the error that it is out of tolerance. Must not: let a
//! case pass whose reference could not be made.
//!
//! Each step is judged from the recorded state of the step before, since a recursive net can amplify rounding;
//! `ergometer parity` shows the free run too. Verdicts: against the reference; against recorded outputs or a peer, of a model
//! that is a file (`peer`); accuracy only, where a worker has no outputs to show, or nobody else could run the model.

use ergometer_files::counted;
use ergometer_reports::case::{CaseError, ErrorKind, Verdict};
use ergometer_reports::precision::{Precision, Tolerance};

use super::case::{Running, unexpected};
use super::judge::{Judge, ReferenceVectors};
use super::process::{Worker, case_error};
use crate::parity::{RecordedStep, Vectors};
use crate::protocol::{Message, Mode, NotThere};

/// What the outputs of all steps came to.
struct Compared {
    /// Largest error of any step.
    largest: f64,
    /// The halting head, where there is one, was seen at every step.
    q_seen: bool,
    /// So were the states.
    states_seen: bool,
    /// The worker cannot show outputs.
    refused: bool,
}

impl Running<'_, '_> {
    /// Compares the worker with the reference and writes the verdict.
    pub(super) fn compare(&mut self, worker: &mut Worker, reference: ReferenceVectors) -> Result<(), CaseError> {
        let (questions, vectors) = match reference {
            Ok(Judge::Reference(questions, vectors)) => (questions, vectors),
            Ok(Judge::Language(judge)) => return self.compare_language(worker, judge),
            Ok(Judge::Peer(peer)) => return self.compare_outputs(worker, peer),
            Err(why) if why.kind == ErrorKind::Unavailable => {
                let reason = match self.planned.file.precision {
                    Some(_) => why.message.clone(),
                    None => format!("the reference interpreter cannot run this model: {}", why.message),
                };
                self.unavailable("parity_error".into(), reason);
                self.out.case.verdict = Some(Verdict::AccuracyOnly);
                return Ok(());
            }
            // a reference that could not be made is no verdict
            Err(why) => {
                let message = format!("there is nothing to judge its outputs by: {}", why.message);
                let hint = why.hint.clone().unwrap_or_else(|| "`--resume` runs this case again".into());
                return Err(CaseError { kind: ErrorKind::Reference, message, hint: Some(hint) });
            }
        };
        // our own workers repeat the rows until their batch is full; other programs answer what the file holds
        let examples = vectors.batch as u32;
        let full;
        let vectors = if self.planned.command.is_empty() {
            full = vectors.tiled(self.planned.key.batch as usize);
            &full
        } else {
            vectors
        };
        worker.send(&self.go(Mode::Compare, 0, 0.0, Some(questions.clone())))?;
        let compared = self.hear_outputs(worker, vectors)?;
        self.block += 1;
        if compared.refused {
            self.out.case.verdict = Some(Verdict::AccuracyOnly);
            return Ok(());
        }
        for (seen, what) in [(compared.q_seen, "the halting head"), (compared.states_seen, "the states")] {
            if !seen {
                self.note(format!("parity did not see {what} of each step"));
            }
        }
        if super::reference::extent(self.planned, self.task).2 {
            let (steps, most) = (vectors.steps.len(), self.planned.max_steps);
            self.note(format!(
                "parity looked at {} and {steps} of {}: more would take the reference interpreter too long",
                counted(examples, "example"),
                counted(most, "step")
            ));
        }
        if !compared.largest.is_finite() {
            let message = "a value differs where the reference has nothing but zeros".to_string();
            return Err(case_error(ErrorKind::Parity, message));
        }
        let Tolerance { name, limit } = Precision::of(&self.planned.key.precision).tolerance;
        let (steps, largest) = (vectors.steps.len() as u32, compared.largest);
        self.out.case.verdict = Some(Verdict::Reference { tolerance: name.into(), limit, largest, examples, steps });
        if largest <= limit {
            return Ok(());
        }
        let message = format!("the largest error is {largest:.3e} of the largest value, {name} allows {limit:.0e}");
        let hint = Some("`ergometer parity` shows the error step by step".into());
        Err(CaseError { kind: ErrorKind::Parity, message, hint })
    }

    fn hear_outputs(&mut self, worker: &mut Worker, vectors: &Vectors) -> Result<Compared, CaseError> {
        let wrong = |message: String| Err(case_error(ErrorKind::WrongOutput, message));
        // our own workers show everything, other programs what they can see
        let built_in = self.planned.command.is_empty();
        let mut compared = Compared { largest: 0.0, q_seen: true, states_seen: true, refused: false };
        let mut seen = false;
        let mut steps = vectors.steps.iter().zip(1..).peekable();
        loop {
            match worker.message()? {
                Message::Outputs(o) => {
                    let Some((want, _)) = steps.next_if(|(_, k)| *k == o.step) else {
                        return wrong(format!("outputs of step {} came out of order", o.step));
                    };
                    let got = RecordedStep { logits: o.logits, q: o.q, states: o.states };
                    if !got.fits(want) {
                        let (n, needed) = (got.logits.len(), want.logits.len());
                        return wrong(format!("step {}: {n} logits, {needed} finite ones are needed", o.step));
                    }
                    compared.q_seen &= got.q.len() == want.q.len();
                    compared.states_seen &= got.states.len() == want.states.len();
                    if built_in && !(compared.q_seen && compared.states_seen) {
                        return wrong(format!("step {}: halting head or states are missing", o.step));
                    }
                    seen = true;
                    compared.largest = compared.largest.max(got.error(want));
                }
                Message::Unavailable(u) if u.what == "outputs" && (seen || built_in) => {
                    let message = format!("the worker takes back its outputs: {}", u.reason);
                    return Err(case_error(ErrorKind::Protocol, message));
                }
                Message::Unavailable(u) if u.what == "outputs" => {
                    compared.refused = true;
                    self.refused(NotThere { what: "parity_error".into(), ..u })?;
                }
                Message::Unavailable(u) => self.refused(u)?,
                Message::Done(_) => break,
                other => return Err(unexpected("`outputs` or `done`", &other)),
            }
        }
        match steps.next() {
            Some((_, k)) if !compared.refused => wrong(format!("outputs of step {k} are missing")),
            _ => Ok(compared),
        }
    }
}
