//! What pairs of cases of a run say of each other: whether a reduced precision answers as well as full precision, and
//! how much faster a case is than the base it took turns with.
//!
//! In: a [`RecordedRun`]. Out: [`Compared`], found once for a report. Must not: change what was recorded; a verdict
//! that fails a case is beside it.

pub mod precision;
pub mod protocol;
pub mod speedup;

use std::collections::BTreeMap;

use crate::{
    case::{Case, CaseError},
    missing::Missing,
    store::RecordedRun,
};
use precision::{Finding, findings};
use speedup::{Speedup, speedups};

/// What is found from all pairs of a run.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// By id, how the answers of a case in reduced precision compare with those in full precision, or why that cannot
    /// be told.
    pub findings: BTreeMap<String, Result<Finding, Missing>>,
    /// By id, the speed-up of a case that took turns, or why there is none.
    pub speedups: BTreeMap<String, Result<Speedup, Missing>>,
    /// By id, the error of a case that answers too badly for its precision.
    inferior: BTreeMap<String, CaseError>,
}

impl Compared {
    /// Compares the cases of a run. A base that answers too badly has no speed either.
    pub fn of(run: &RecordedRun) -> Self {
        let findings = findings(run);
        let error =
            |(id, found): (&String, &Result<Finding, Missing>)| Some((id.clone(), found.as_ref().ok()?.error()?));
        let inferior = findings.iter().filter_map(error).collect();
        let mut compared = Self { findings, speedups: BTreeMap::new(), inferior };
        compared.speedups = speedups(run, |case| compared.error(case));
        compared
    }

    /// How a case ended: the error that it was recorded with, else the one that follows from its answers.
    pub fn error<'a>(&'a self, case: &'a Case) -> Option<&'a CaseError> {
        case.error.as_ref().or_else(|| self.inferior.get(&case.id))
    }
}
