//! Accuracy, under the task's official rule and beside it, and what a right answer costs.
//!
//! In: scored answers and attempts of the case that an accuracy comes from. Out: outcomes. Must not: mix conventions:
//! each has its metric.

use super::domains::covered;
use super::{Metered, Missing, Outcome, Summary};
use crate::{
    answers::{share_decided, share_right},
    case::Prediction,
    format::scaled,
    metric::Right,
    questions::{of_record, questions, rows_per_question, share_of_outputs},
    stats::{Estimate, ratio::per_right},
    store::CaseRun,
};

/// The metric that leaves the processor out.
const BOARDS_ALONE: &str = "board_joules_per_right";

impl Summary<'_> {
    /// The case whose answers are scored, or why there is none.
    fn scored(&self, name: &str) -> Result<&CaseRun, Missing> {
        let Some(source) = self.source else { return Err(self.missing(name)) };
        match &source.case.error {
            None => Ok(source),
            Some(error) => {
                let message = format!("the case that scores it, `{}`, failed: {}", source.case.path, error.message);
                Err(Missing { message, ..error.into() })
            }
        }
    }

    /// Share of right answers as this metric counts them.
    pub(super) fn accuracy(&self, name: &str, right: Right) -> Metered {
        let source = self.scored(name)?;
        if let Some(why) = &source.case.unscored {
            return Err(Missing { kind: "not-applicable".into(), message: why.clone(), hint: None });
        }
        let rows = |right| {
            let last: Vec<&Prediction> = source.predictions.iter().filter(|p| p.last).collect();
            share_right(&last, right)
        };
        let attempts = of_record(&source.attempts);
        let estimate = match right {
            Right::Questions if source.case.questions > 0 => share_decided(attempts),
            Right::Questions | Right::Cells | Right::Valid => rows(right),
            Right::Outputs => share_of_outputs(&questions(attempts)),
            Right::Rows => rows(right)
                .map(|e| Estimate { method: format!("rows by their own answers, no vote; {}", e.method), ..e }),
        };
        self.or_missing(name, estimate)
    }

    /// Rows that are answered for one question.
    fn rows_per_question(&self, name: &str) -> Result<f64, Missing> {
        let source = self.scored(name)?;
        match source.case.questions {
            0 => Ok(1.0),
            _ => rows_per_question(&questions(of_record(&source.attempts))).ok_or_else(|| self.missing(name)),
        }
    }

    pub(super) fn joules_per_right(&self) -> Metered {
        let name = "joules_per_right";
        if let Some(reason) = self.reason(name) {
            return Err(reason);
        }
        self.domains().and_then(|domains| self.per_right_of(name, domains)).map_err(|mut missing| {
            // a part is no sum, but it is known
            if let Ok(Outcome { estimate, .. }) = self.board_joules_per_right() {
                missing.message +=
                    &format!("; of the boards alone it is {} ({BOARDS_ALONE})", scaled(estimate.value, "J"));
            }
            missing
        })
    }

    /// What a right answer costs the boards, whether or not the processor is metered.
    pub(super) fn board_joules_per_right(&self) -> Metered {
        if !self.on_boards() {
            return Err(self.missing(BOARDS_ALONE));
        }
        // boards that are not metered, or others than the worker's, are no part of any sum
        self.metered_boards()?;
        self.per_right_of(BOARDS_ALONE, &["energy_gpu"])
    }

    fn per_right_of(&self, name: &str, domains: &[&str]) -> Metered {
        let energy = self.energy(domains)?;
        let accuracy = self.accuracy("accuracy", Right::Questions)?.estimate;
        if accuracy.value == 0.0 {
            let message = format!("no right answer in {}", accuracy.n);
            return Err(Missing { kind: "no-right-answer".into(), message, hint: None });
        }
        let rows = self.rows_per_question(name)?;
        let mut outcome = self.or_missing(name, per_right(&energy.estimate, rows, &accuracy))?;
        let covered: Vec<String> = domains.iter().map(|metric| covered(self.environment, metric)).collect();
        outcome.estimate.method += &format!("; energy of {}", covered.join(" and "));
        Ok(Outcome { notes: energy.notes, ..outcome })
    }
}
