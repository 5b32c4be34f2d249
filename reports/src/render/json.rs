//! `records.json`: every record, with the environment.
//!
//! In: a [`Report`]. Out: one file. Must not: scale or round a number.

use super::Files;
use crate::{record::to_json, report::Report};

/// Makes `records.json`.
pub fn render(report: &Report) -> Files {
    Ok(vec![("records.json".into(), to_json(&report.run.environment, &report.records))])
}
