//! `records.csv`: every record, one row per case and metric.
//!
//! In: a [`Report`]. Out: one file. Must not: scale or round a number.

use super::Files;
use crate::{record::to_csv, report::Report};

/// Makes `records.csv`.
pub fn render(report: &Report) -> Files {
    Ok(vec![("records.csv".into(), to_csv(&report.records)?)])
}
