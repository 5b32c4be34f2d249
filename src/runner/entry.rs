//! A case that waits to be run: what is planned, the vectors that it is compared with, and the case that its speed is
//! set against.
//!
//! In: parts of a plan. Out: [`Entry`]. Must not: start anything.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::judge::ReferenceVectors;
use super::plan::{PlannedCase, PlannedTask};

/// One case of an interleaved group or wave.
pub struct Entry<'a> {
    /// The case.
    pub planned: &'a PlannedCase,
    /// Path of the model.
    pub model: &'a Path,
    /// The task.
    pub task: &'a PlannedTask,
    /// Vectors that judge it.
    pub reference: ReferenceVectors<'a>,
    /// Id of the case that it is compared with, where it takes turns.
    pub base: Option<String>,
    /// File for its worker's log.
    pub log: Arc<File>,
}
