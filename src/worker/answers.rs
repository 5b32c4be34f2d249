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
    /// Its name, for messages.
    name: String,
    how: How,
}

enum How {
    /// Off logits, so many a token.
    Logits(AnswerKind, usize),
    /// Off any output; for the largest along an axis the shape of a row, where the interface says, and the axis.
    Output(Read, Vec<usize>, Option<usize>),
}

impl Reader {
    /// How the job's answers are read.
    ///
    /// # Errors
    /// Answers that this model does not give.
    pub fn of(job: &Job, interface: &Interface) -> anyhow::Result<Self> {
        let Reading::Output { output, how, axis } = &job.reading else {
            check(job.answers, interface)?;
            let reads = interface.reads()?;
            let how = How::Logits(job.answers, reads.vocabulary);
            let name = interface.outputs[reads.logits].name.clone();
            return Ok(Self { halting: reads.halting, output: reads.logits, name, how });
        };
        let Some(place) = interface.place_of(output.as_deref()) else {
            bail!("answers are read off output `{}`, which the model does not have", output.as_deref().unwrap_or(""))
        };
        let port = &interface.outputs[place];
        let halting = interface.outputs.iter().position(|port| port.role == PortRole::Halting);
        let how = How::Output(*how, port.shape.clone(), *axis);
        Ok(Self { halting, output: place, name: port.name.clone(), how })
    }

    /// The answer of the row in a slot. Allocates it, so it is called outside of what is timed.
    ///
    /// # Errors
    /// Outputs that can be no answer, in words: NaN speaks for no class, and a number must be one.
    pub fn answer(&self, session: &Session, slot: usize) -> Result<Answer, String> {
        let values = session.output(self.output, slot);
        // a class may be ruled out by minus infinity
        let must_be_finite = !matches!(
            self.how,
            How::Output(Read::Argmax, ..) | How::Logits(AnswerKind::Class | AnswerKind::Tokens | AnswerKind::Text, _)
        );
        if let Some(at) = values.iter().position(|v| v.is_nan() || (must_be_finite && v.is_infinite())) {
            return Err(format!(
                "output `{}` holds {} at element {at} of {} of its row, and no answer can be read off it",
                self.name,
                values[at],
                values.len()
            ));
        }
        let numbers = || values.iter().map(|&v| f64::from(v)).collect();
        Ok(match &self.how {
            How::Logits(kind, vocabulary) => read(*kind, values, *vocabulary),
            How::Output(Read::Values, ..) => Answer::Numbers(numbers()),
            How::Output(Read::Likelihoods, ..) => Answer::Likelihoods(numbers()),
            How::Output(Read::Argmax, shape, axis) => {
                let shape = if shape.is_empty() { session.row_shape(self.output).unwrap_or_default() } else { shape };
                along(values, shape, *axis)?
            }
        })
    }
}

/// The place of the largest along an axis of rows of this shape, or along the last with more than one element.
///
/// # Errors
/// No such axis.
fn along(values: &[f32], shape: &[usize], axis: Option<usize>) -> Result<Answer, String> {
    let (classes, behind) = match axis {
        Some(axis) => {
            let Some(classes) = shape.get(axis) else {
                return Err(format!(
                    "there is no axis {axis} in a row of shape {shape:?}, where `class_axis` has classes"
                ));
            };
            (*classes, shape[axis + 1..].iter().product::<usize>())
        }
        None => (shape.iter().rev().copied().find(|n| *n > 1).unwrap_or(1), 1),
    };
    if classes == 0 || behind == 0 || !values.len().is_multiple_of(classes * behind) {
        return Err(format!("{} values are no rows of shape {shape:?}", values.len()));
    }
    if behind == 1 {
        return Ok(match values.len() == classes {
            true => Answer::Class(argmax(values)),
            false => Answer::Tokens(values.chunks_exact(classes).map(argmax).collect()),
        });
    }
    let mut tokens = Vec::with_capacity(values.len() / classes);
    let mut column = vec![0.0; classes];
    for block in values.chunks_exact(classes * behind) {
        for place in 0..behind {
            (0..classes).for_each(|class| column[class] = block[class * behind + place]);
            tokens.push(argmax(&column));
        }
    }
    Ok(Answer::Tokens(tokens))
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
    fn classes_stand_along_any_axis() {
        // two cells, three classes: [3, 2] and [2, 3]
        let first = [0.0, 9.0, 5.0, 1.0, 2.0, 3.0];
        assert_eq!(along(&first, &[3, 2], Some(0)), Ok(Answer::Tokens(vec![1, 0])));
        assert_eq!(along(&first, &[2, 3], None), Ok(Answer::Tokens(vec![1, 2])));
        assert_eq!(along(&first, &[2, 3], Some(1)), Ok(Answer::Tokens(vec![1, 2])));
        // steps of time lie before
        assert_eq!(along(&first, &[3, 1], Some(0)), Ok(Answer::Tokens(vec![1, 2])));
        assert_eq!(along(&first[..3], &[3, 1, 1], Some(0)), Ok(Answer::Class(1)));
        assert_eq!(along(&first[..3], &[3, 1, 1], None), Ok(Answer::Class(1)));
        assert!(along(&first, &[3, 2], Some(2)).unwrap_err().contains("no axis 2"));
        assert!(along(&first[..5], &[3, 2], Some(0)).unwrap_err().contains("5 values"));
        assert!(along(&first, &[0, 2], Some(0)).is_err());
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
