//! Tests of the crate from outside: folders are written and read back, and synthetic runs become records and reports.
//!
//! In: synthetic observations made here from a seed. Out: verdicts. Must not: take any of these numbers for a
//! measurement.

mod claims;
mod constraints;
mod coverage;
mod domains;
mod exports;
mod golden;
mod plots;
mod precision;
mod promises;
mod records;
mod run_folder;
mod simulate;
mod speedup;
mod strip;
mod studies;
mod synthetic;
mod targets;
