//! How much of what the machine can do at best a case reaches.
//!
//! In: the steady phase of a case, the environment's ceilings. Out: its rate of operations and that rate's share. Must
//! not: hold a case to a ceiling that was not measured, or one that computes on a board to the processor's.

use super::{Metered, Outcome, Summary, blocks::Per};
use crate::{
    ceiling::not_measured,
    format,
    missing::Missing,
    stats::{CONFIDENCE, Estimate},
};

/// Share of the ceiling above which a count of operations that a worker reports is not believed: a ceiling is the best
/// of some repetitions, and a quieter moment may beat it.
const BELIEVED: f64 = 1.5;

impl Summary<'_> {
    /// Why the operations that the worker reports are not believed, if so: more than the processor does at best.
    pub(super) fn overclaimed(&self) -> Option<Missing> {
        let ceiling = self.ceilings.filter(|_| !self.on_gpu())?.of_case(&self.case_run.case.key).ok()?;
        let each = self.per_block("flops_executed", Per::Example).ok()?.estimate.value;
        let rate = self.throughput()?.value * each;
        (rate > BELIEVED * ceiling.best).then(|| Missing {
            kind: "unavailable".into(),
            message: format!(
                "the worker reports {} in `counted`, {} times what {} threads of this processor do at best ({})",
                format::scaled(rate, &ceiling.unit),
                format::number(rate / ceiling.best),
                ceiling.threads,
                format::scaled(ceiling.best, &ceiling.unit)
            ),
            hint: Some("a count is of the block's floating-point operations, and no more".into()),
        })
    }

    /// The model's operations per second of steady time; those that the program reports where nobody knows that it
    /// computes the model.
    pub(super) fn flop_rate(&self) -> Option<Estimate> {
        let (flops, which) = match self.accuracy_only() {
            true => {
                (self.per_block("flops_executed", Per::Example).ok()?.estimate, "flops_executed (as it reports them)")
            }
            false => (self.flops_model()?, "flops_model"),
        };
        let throughput = self.throughput()?;
        let method = format!("{which} × throughput, steps held at their mean; {}", throughput.method);
        Some(Estimate { method, ..throughput.scaled(flops.value.max(f64::MIN_POSITIVE)) })
    }

    /// [`Summary::flop_rate`] over the ceiling of the case's precision, instruction set and threads.
    pub(super) fn share_of_ceiling(&self) -> Metered {
        let key = &self.case_run.case.key;
        if self.on_gpu() {
            let message = "it computes on a GPU board, whose ceiling is not measured".into();
            return Err(Missing { kind: "unavailable".into(), message, hint: None });
        }
        let ceilings = self.ceilings.ok_or_else(|| not_measured(""))?;
        let ceiling = ceilings.of_case(key)?;
        let rate = self.flop_rate().ok_or_else(|| self.missing("share_of_ceiling"))?;
        let method = format!(
            "flop_rate over {} at {} threads, {}, the best of {} repetitions, taken as exact; {}",
            ceiling.name,
            ceiling.threads,
            format::scaled(ceiling.best, &ceiling.unit),
            ceiling.n,
            rate.method
        );
        let mut notes = Vec::new();
        if rate.value > ceiling.best {
            let again = "`ergometer doctor --ceilings` measures it again";
            notes.push(format!("above the ceiling, which was measured on a busier or slower machine; {again}"));
        }
        let estimate = Estimate { method, ..rate.scaled(1.0 / ceiling.best) };
        Ok(Outcome { estimate, confidence: CONFIDENCE, notes })
    }
}
