//! A row's outputs read as an answer of the kind that the task asks for.
//!
//! In: outputs of one row. Out: an [`Answer`], or why a model cannot give one. Must not: know what is right.

use anyhow::bail;
use ergometer_suites::{Answer, AnswerKind, Read, Reading};

use crate::backends::BackendError;
use crate::backends::session::{Session, argmax};
use crate::models::interface::{Interface, Length, PortRole};
use crate::protocol::Job;

/// Where answers stand among a model's outputs and how they are read, resolved once.
pub(super) struct Reader {
    /// Place of the output whose first feature is the halting logit, where there is one.
    pub halting: Option<usize>,
    output: usize,
    how: How,
}

enum How {
    /// Off logits, so many a token.
    Logits(AnswerKind, usize),
    /// Off any output; elements along its last axis, where the interface says.
    Output(Read, Option<usize>),
}

impl Reader {
    /// How the job's answers are read.
    ///
    /// # Errors
    /// Answers that this model does not give.
    pub fn of(job: &Job, interface: &Interface) -> anyhow::Result<Self> {
        let Reading::Output { output, how } = &job.reading else {
            check(job.answers, interface)?;
            let reads = interface.reads()?;
            let how = How::Logits(job.answers, reads.vocabulary);
            return Ok(Self { halting: reads.halting, output: reads.logits, how });
        };
        let Some(place) = interface.place_of(output.as_deref()) else {
            bail!("answers are read off output `{}`, which the model does not have", output.as_deref().unwrap_or(""))
        };
        let last = interface.outputs[place].classes();
        let halting = interface.outputs.iter().position(|port| port.role == PortRole::Halting);
        Ok(Self { halting, output: place, how: How::Output(*how, last) })
    }

    /// The answer of the row in a slot. Allocates it, so it is called outside of what is timed.
    pub fn answer(&self, session: &Session, slot: usize) -> Answer {
        let values = session.output(self.output, slot);
        let numbers = || values.iter().map(|&v| f64::from(v)).collect();
        match self.how {
            How::Logits(kind, vocabulary) => read(kind, values, vocabulary),
            How::Output(Read::Values, _) => Answer::Numbers(numbers()),
            How::Output(Read::Likelihoods, _) => Answer::Likelihoods(numbers()),
            How::Output(Read::Argmax, last) => {
                let last = last.or_else(|| session.last_axis(self.output)).unwrap_or(1).max(1);
                match values.len() == last {
                    true => Answer::Class(argmax(values)),
                    false => Answer::Tokens(values.chunks_exact(last).map(argmax).collect()),
                }
            }
        }
    }
}

/// Errors: answers that cannot be read off this model's logits.
pub fn check(kind: AnswerKind, interface: &Interface) -> anyhow::Result<()> {
    let one = interface.logits()?.length == Length::Fixed(1);
    match kind {
        AnswerKind::Tokens | AnswerKind::Numbers => Ok(()),
        AnswerKind::Class | AnswerKind::Likelihoods if one => Ok(()),
        AnswerKind::Class | AnswerKind::Likelihoods => Err(BackendError::unavailable(format!(
            "answers of kind {} are read off the logits of one token, and the model gives those of several",
            kind.name()
        ))
        .into()),
        AnswerKind::Text => {
            Err(BackendError::unavailable("answers in text need a tokenizer, which this worker does not have").into())
        }
    }
}

/// The answer that logits stand for, of which there are so many a token. Allocates the answer, so it is called outside of what is timed.
pub fn read(kind: AnswerKind, logits: &[f32], vocabulary: usize) -> Answer {
    match kind {
        AnswerKind::Class => Answer::Class(argmax(logits)),
        AnswerKind::Numbers => Answer::Numbers(logits.iter().map(|&v| v.into()).collect()),
        AnswerKind::Likelihoods => Answer::Likelihoods(log_softmax(logits)),
        // `check` lets no text pass
        AnswerKind::Tokens | AnswerKind::Text => Answer::Tokens(logits.chunks_exact(vocabulary).map(argmax).collect()),
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v.into()));
    let sum: f64 = logits.iter().map(|&v| (f64::from(v) - largest).exp()).sum();
    logits.iter().map(|&v| f64::from(v) - largest - sum.ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::interface::stub;

    #[test]
    fn logits_become_an_answer_of_each_kind() {
        let logits = [0.0, 3.0, 1.0, 2.0];
        assert_eq!(read(AnswerKind::Tokens, &logits, 2), Answer::Tokens(vec![1, 1]));
        assert_eq!(read(AnswerKind::Class, &logits, 4), Answer::Class(1));
        assert_eq!(read(AnswerKind::Numbers, &logits, 4), Answer::Numbers(vec![0.0, 3.0, 1.0, 2.0]));
        let Answer::Likelihoods(all) = read(AnswerKind::Likelihoods, &logits, 4) else { panic!() };
        assert!((all.iter().map(|l| l.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((all[1] - all[0] - 3.0).abs() < 1e-12);
    }

    #[test]
    fn kinds_that_a_model_cannot_give_are_named() {
        let several = stub::interface();
        let mut one = stub::interface();
        one.outputs[1].length = Length::Fixed(1);
        let said =
            |kind, interface: &Interface| check(kind, interface).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said(AnswerKind::Class, &several).contains("of one token"));
        assert!(said(AnswerKind::Likelihoods, &several).contains("kind likelihoods"));
        assert!(said(AnswerKind::Text, &one).contains("tokenizer"));
        for kind in [AnswerKind::Tokens, AnswerKind::Class, AnswerKind::Numbers, AnswerKind::Likelihoods] {
            assert_eq!(said(kind, &one), "");
        }
    }
}
