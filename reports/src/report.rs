//! What renderers read: a run and its records, with look-ups.
//!
//! In: a [`Run`]. Out: a [`Report`]. Must not: add a fact that is not in the run.

use std::collections::BTreeMap;

use crate::{
    case::Case,
    error::ReportError,
    labels::Labels,
    precision::findings,
    record::{Record, to_csv, to_json},
    store::RunFolder,
    store::{CaseRun, Run},
    summarise::summarise,
};

/// A run with its records.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was observed.
    pub run: Run,
    /// One per case × metric.
    pub records: Vec<Record>,
    index: BTreeMap<(String, String), usize>,
}

impl Report {
    /// Summarises a run. A case whose precision turns out [inferior](crate::precision) ends in that error here, whatever it was recorded as.
    pub fn new(mut run: Run) -> Self {
        let records = summarise(&run);
        let findings = findings(&run);
        for case in run.cases.iter_mut().map(|c| &mut c.case) {
            let inferior = findings.get(&case.id).and_then(|f| f.as_ref().ok()?.error());
            case.error = case.error.take().or(inferior);
        }
        let index = records.iter().enumerate().map(|(i, r)| ((r.case_id.clone(), r.metric.clone()), i)).collect();
        Self { run, records, index }
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
