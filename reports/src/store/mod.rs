//! The run folder: what is stored, how it is written so that a kill loses no finished case, and how a folder that
//! anybody may have written is read.
//!
//! In: environment, cases, observations. Out: files, and a [`RecordedRun`] of them. Must not: summarise, follow a link
//! below the folder, or write what it would not read.
//!
//! `schema` holds columns, limits and what is wrong with a case or a row; `read` and `write` are held to it; `atomic`
//! is how a folder comes into its place in one step; `samples` and `column` are observations in memory.
//!
//! ```text
//! environment.json  suite.toml  examples.jsonl  records.csv  records.json  report/
//! cases/<path>~<id>/  case.json  samples.csv  predictions.csv  attempts.csv  sums.csv  stderr.log
//! ```
//!
//! `environment.json` has the command line, `suite.toml` is the suite as it was given, `examples.jsonl` the prompts and right
//! answers of tasks of language, and `stderr.log` is what the
//! worker wrote: a run folder may hold paths and names of its user. While its worker lives nothing of a case is in the
//! folder; the worker's stderr goes to a file without a name, so there is nothing that it could replace. A run can be
//! killed at any moment and continued with `--resume`, which refuses another suite, processor or program.
//!
//! A case is known by the hash of its full key and shown by its path, such as
//! `sudoku-6x6/trm-6x6/f32/native/offline-b16/t2/halt-16`. `predictions.csv` has at most 8,000,000 rows, enough for
//! 422,786 puzzles of 16 steps. A command loads a folder once.

mod atomic;
mod column;
mod examples;
mod read;
mod samples;
mod schema;
mod write;

pub(crate) use atomic::pretty;
pub use examples::RecordedExample;
pub use read::{load, load_answers, load_case, load_ended};
pub use samples::Samples;
pub use schema::{
    CaseRun, MAX_ANSWER, MAX_CASES, MAX_CSV_BYTES, MAX_JSON_BYTES, MAX_LISTED, MAX_LOG_BYTES, MAX_PREDICTIONS,
    MAX_ROWS, RecordedRun, pair_name, slug,
};
pub use write::{CaseWriter, RunFolder};
