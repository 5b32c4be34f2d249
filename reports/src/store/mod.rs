//! The run folder: what is stored, how it is written so that a kill loses no finished case, and how a folder that
//! anybody may have written is read.
//!
//! In: environment, cases, observations. Out: files, and a [`RecordedRun`] of them. Must not: summarise, follow a link
//! below the folder, or write what it would not read.
//!
//! `schema` holds columns, limits and what is wrong with a case or a row; `read` and `write` are held to it; `atomic`
//! is how a folder comes into its place in one step; `samples` and `column` are observations in memory.

mod atomic;
mod column;
mod read;
mod samples;
mod schema;
mod write;

pub(crate) use atomic::pretty;
pub use read::{load, load_answers, load_case, load_ended};
pub use samples::Samples;
pub use schema::{
    CaseRun, MAX_CASES, MAX_CSV_BYTES, MAX_JSON_BYTES, MAX_LISTED, MAX_LOG_BYTES, MAX_PREDICTIONS, MAX_ROWS,
    RecordedRun, slug,
};
pub use write::{CaseWriter, RunFolder};
