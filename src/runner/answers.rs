//! What a worker answers: each answer taken as it is heard, scored, and kept as far as reports need it.
//!
//! In: a warm worker and its task. Out: predictions, or why an answer cannot be one. Must not: hold answers longer than they are needed, or
//! believe a worker about what is right.

use std::collections::BTreeSet;

use ergometer_reports::case::{CaseError, ErrorKind, Prediction};
use ergometer_reports::store::MAX_PREDICTIONS;

use super::case::{Running, unexpected};
use super::child::{Worker, case_error};
use super::plan::{PlannedCase, PlannedTask};
use crate::protocol::{Message, Mode, PredictionRow};

/// What reports need of the answers of a task that decides row by row.
struct Needed {
    /// Whether the answer kept last was right, by example.
    right: Vec<Option<bool>>,
    /// Steps after which some answer was kept.
    depths: BTreeSet<u32>,
}

impl Needed {
    fn new(examples: usize) -> Self {
        Self { right: vec![None; examples], depths: BTreeSet::new() }
    }

    /// Whether an answer is kept (see [`Prediction`]); one that is not of record loses its text.
    fn keep(&mut self, p: &mut Prediction) -> bool {
        if !p.last {
            p.answer = String::new();
        }
        let Some(right) = self.right.get_mut(p.example as usize) else { return true };
        let changed = *right != Some(p.exact);
        let kept = self.depths.insert(p.depth) || changed || p.last;
        if kept {
            *right = Some(p.exact);
        }
        kept
    }
}

/// What an answer is judged by.
#[derive(Clone, Copy)]
pub(super) struct Scorer<'a> {
    planned: &'a PlannedCase,
    task: &'a PlannedTask,
}

impl<'a> Scorer<'a> {
    /// Of a case.
    pub fn of(running: &Running<'a, '_>) -> Self {
        Self { planned: running.planned, task: running.task }
    }

    /// The answer as a prediction, if it can be one.
    pub fn score(&self, row: &PredictionRow) -> Result<Prediction, CaseError> {
        let wrong = |m: String| Err(case_error(ErrorKind::WrongOutput, m));
        let Some(example) = self.task.set.examples.get(row.example as usize) else {
            return wrong(format!("an answer to example {}, there are {}", row.example, self.task.set.examples.len()));
        };
        let (cells, needed, most) = (row.answer.len(), example.answer.len(), self.planned.max_steps);
        if cells != needed {
            return wrong(format!("the answer to example {} has {cells} cells, {needed} are needed", row.example));
        }
        let tokens = self.task.set.vocabulary.max(1 << 16);
        if let Some(token) = row.answer.iter().find(|t| **t >= tokens) {
            return wrong(format!(
                "the answer to example {} has the token {token}, and there are {} tokens",
                row.example, self.task.set.vocabulary
            ));
        }
        if row.depth == 0 || row.depth > most {
            return wrong(format!("the answer to example {} claims {} steps of {most}", row.example, row.depth));
        }
        if let Some(logit) = row.halt_logit.filter(|h| !(*h as f32).is_finite()) {
            return wrong(format!(
                "the answer to example {} has {logit:e} as halting logit, which no number of 32 bits holds",
                row.example
            ));
        }
        if row.last && !self.planned.halt && row.depth != most {
            return wrong(format!(
                "the answer of record to example {} took {} steps, and every row is to take {most}",
                row.example, row.depth
            ));
        }
        let score = (self.task.task.score)(example, &row.answer);
        Ok(Prediction {
            example: row.example,
            cluster: example.cluster,
            depth: row.depth,
            last: row.last,
            halt_logit: row.halt_logit,
            answer: row.answer.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
            exact: score.exact,
            right: score.right,
            cells: score.cells,
        })
    }
}

/// The accuracy pass as far as it has come.
struct Pass<'a> {
    scorer: Scorer<'a>,
    /// What has been said of each example: after how many steps, and whether that was the answer of record.
    last: Vec<(u32, bool)>,
    /// Questions are decided from every answer; else what reports need of the way to an answer is when it became right or wrong.
    needed: Option<Needed>,
    predictions: Vec<Prediction>,
}

impl Pass<'_> {
    fn take(&mut self, row: &PredictionRow) -> Result<(), CaseError> {
        let mut prediction = self.scorer.score(row)?;
        let (depth, done) = &mut self.last[row.example as usize];
        if *done || row.depth <= *depth {
            let message = format!("example {} was answered again after {} steps", row.example, row.depth);
            return Err(case_error(ErrorKind::WrongOutput, message));
        }
        (*depth, *done) = (row.depth, row.last);
        if self.needed.as_mut().is_none_or(|n| n.keep(&mut prediction)) {
            self.predictions.push(prediction);
        }
        if self.predictions.len() > MAX_PREDICTIONS {
            let message = format!("more than {MAX_PREDICTIONS} answers, the most that a run folder keeps");
            return Err(case_error(ErrorKind::WrongOutput, message));
        }
        Ok(())
    }
}

impl Running<'_, '_> {
    /// The accuracy pass: every example once, scored here.
    pub(super) fn answer(&mut self, worker: &mut Worker) -> Result<(), CaseError> {
        worker.send(&self.go(Mode::Answer, 0, 0.0, None))?;
        let examples = self.task.set.examples.len();
        let needed = self.task.task.decide.is_none().then(|| Needed::new(examples));
        let mut pass =
            Pass { scorer: Scorer::of(self), last: vec![(0, false); examples], needed, predictions: Vec::new() };
        loop {
            match worker.hear(None, &mut || {}, &mut |row| pass.take(&row))? {
                Message::Predictions(_) => {}
                Message::Routed(routed) => self.routed(routed.layers)?,
                Message::Unavailable(u) => self.refused(u)?,
                Message::Done(_) => break,
                other => return Err(unexpected("`predictions` or `done`", &other)),
            }
        }
        self.out.predictions.append(&mut pass.predictions);
        self.block += 1;
        if self.planned.key.family == "moe" && self.out.case.routing.is_empty() {
            for metric in ["router_entropy", "expert_load_max"] {
                self.unavailable(metric.into(), "the worker did not say what its routers decided".into());
            }
        }
        match pass.last.iter().position(|(_, done)| !done) {
            Some(example) => Err(case_error(ErrorKind::WrongOutput, format!("example {example} was not answered"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_on_the_way_are_kept_where_they_turn_right_or_wrong() {
        let mut needed = Needed::new(2);
        let mut kept = Vec::new();
        // example, steps, of record, right
        for (example, depth, last, exact) in [
            (0, 1, false, false),
            (0, 2, false, false),
            (0, 3, false, true),
            (0, 4, true, true),
            (1, 1, false, false),
            (1, 2, false, false),
            (1, 3, false, false),
            (1, 4, false, true),
            (1, 5, true, false),
        ] {
            let answer = "1 2".to_owned();
            let mut p =
                Prediction { example, cluster: 0, depth, last, halt_logit: None, answer, exact, right: 0, cells: 2 };
            if needed.keep(&mut p) {
                assert_eq!(p.answer.is_empty(), !last);
                kept.push((example, depth));
            }
        }
        // the first after so many steps stays too (0 after 2), so that no depth is missing from a plot
        assert_eq!(kept, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 4), (1, 5)]);
    }
}
