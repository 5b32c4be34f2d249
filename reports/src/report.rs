//! What renderers read: a run and its records, with look-ups.
//!
//! In: a [`RecordedRun`]. Out: a [`Report`]. Must not: add a fact that is not in the run.

use std::collections::BTreeMap;

use crate::{
    case::{Case, CaseError},
    compare::Compared,
    error::ReportError,
    labels::Labels,
    record::{Record, to_csv, to_json},
    store::RunFolder,
    store::{CaseRun, RecordedRun},
    summarise::records,
};

/// A run with its records.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was observed.
    pub run: RecordedRun,
    /// One per case × metric.
    pub records: Vec<Record>,
    compared: Compared,
    index: BTreeMap<(String, String), usize>,
}

impl Report {
    /// Compares the cases of a run and summarises it. The run stays as it was recorded.
    pub fn new(run: RecordedRun) -> Self {
        let compared = Compared::of(&run);
        let records = records(&run, &compared);
        let index = records.iter().enumerate().map(|(i, r)| ((r.case_id.clone(), r.metric.clone()), i)).collect();
        Self { run, records, compared, index }
    }

    /// How a case ended, all considered: the error that it was recorded with, or that its precision is
    /// [inferior](crate::compare::precision). A renderer asks this and not the case.
    pub fn error<'a>(&'a self, case: &'a Case) -> Option<&'a CaseError> {
        self.compared.error(case)
    }

    /// The answers of record of a case: those of the case that its accuracy comes from.
    pub fn accuracy_source(&self, case: &Case) -> Option<&CaseRun> {
        let id = case.accuracy_from.as_deref()?;
        self.run.cases.iter().find(|c| c.case.id == id && self.error(&c.case).is_none())
    }

    /// The record of a metric of a case.
    pub fn record(&self, case: &Case, metric: &str) -> Option<&Record> {
        self.index.get(&(case.id.clone(), metric.to_owned())).map(|i| &self.records[*i])
    }

    /// The value of a metric of a case.
    pub fn value(&self, case: &Case, metric: &str) -> Option<f64> {
        self.record(case, metric)?.value
    }

    /// Writes `records.csv` and `records.json` of a run folder.
    pub fn write_records(&self, folder: &RunFolder) -> Result<(), ReportError> {
        folder.write_file("records.csv", &to_csv(&self.records)?)?;
        folder.write_file("records.json", &to_json(&self.run.environment, &self.records))
    }

    /// Tasks in the order of their first case, each with its cases.
    pub fn tasks(&self) -> Vec<(&str, Vec<&CaseRun>)> {
        let mut tasks: Vec<(&str, Vec<&CaseRun>)> = Vec::new();
        for case in &self.run.cases {
            let name = case.case.key.task.as_str();
            match tasks.iter_mut().find(|(task, _)| *task == name) {
                Some((_, cases)) => cases.push(case),
                None => tasks.push((name, vec![case])),
            }
        }
        tasks
    }

    /// Short names of all cases.
    pub fn labels(&self) -> Labels {
        Labels::of(self.run.cases.iter().map(|c| &c.case))
    }
}
