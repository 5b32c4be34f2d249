//! The job that a worker is given for a case: a model, how to load it, and every input.
//!
//! In: a planned case and its task. Out: a [`Job`]. Must not: hold an answer.

use std::path::{Path, PathBuf};

use ergometer_suites::AnswerKind;

use super::plan::{PlannedCase, PlannedTask};
use crate::protocol::{Job, PROTOCOL};

/// The job of a case, over this folder or file of its model.
pub(super) fn job(planned: &PlannedCase, task: &PlannedTask, model: &Path) -> Job {
    let (examples, arrays) = (&task.set.examples, !task.set.inputs.is_empty());
    let inputs = match &planned.language {
        Some(language) => language.inputs.clone(),
        None if arrays => Vec::new(),
        None => examples.iter().map(|e| e.tokens.clone()).collect(),
    };
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
        inputs,
        puzzle_ids: examples.iter().map(|e| e.puzzle_id).collect(),
        starts: task.starts(),
        // text is made of tokens here
        answers: match task.answers() {
            AnswerKind::Text if planned.language.is_some() => AnswerKind::Tokens,
            kind => kind,
        },
        arrays: task.arrays.as_deref().map(absolute),
        reading: task.set.reads.clone(),
        form: planned.file.form.clone(),
        language: planned.language.as_ref().map(|l| l.job.clone()),
    }
}

/// The same place, from wherever it is looked for: an external program runs in another folder.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
