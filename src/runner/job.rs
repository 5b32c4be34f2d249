//! The job that a worker is given for a case: a model, how to load it, and every input.
//!
//! In: a planned case and its task. Out: a [`Job`]. Must not: hold an answer.

use std::path::{Path, PathBuf};

use super::plan::{PlannedCase, PlannedTask};
use crate::protocol::{Job, PROTOCOL};

/// The job of a case, over this folder or file of its model.
pub(super) fn job(planned: &PlannedCase, task: &PlannedTask, model: &Path) -> Job {
    let (examples, arrays) = (&task.set.examples, !task.set.inputs.is_empty());
    Job {
        protocol: PROTOCOL,
        model: absolute(model),
        model_hash: planned.key.model_hash.clone(),
        backend: planned.engine.unwrap_or(&planned.key.backend).into(),
        options: planned.key.backend_options.clone(),
        precision: planned.key.precision.clone(),
        threads: planned.key.threads as usize,
        scenario: planned.spec.scenario.to_string(),
        batch: planned.key.batch as usize,
        max_steps: planned.max_steps,
        halt: planned.halt,
        keep_halted: planned.keep_halted,
        inputs: if arrays { Vec::new() } else { examples.iter().map(|e| e.tokens.clone()).collect() },
        puzzle_ids: examples.iter().map(|e| e.puzzle_id).collect(),
        starts: task.starts(),
        answers: task.answers(),
        arrays: task.arrays.as_deref().map(absolute),
        reading: task.set.reads.clone(),
        form: planned.file.form.clone(),
    }
}

/// The same place, from wherever it is looked for: an external program runs in another folder.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
