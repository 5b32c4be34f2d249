//! The vectors that a run judges its cases by: made once per model and task by the reference interpreter, in a worker of its own.
//!
//! In: a planned case. Out: a vectors file in the cache, read back. Must not: interpret anything in this process.
//!
//! Vectors are recorded once for each model, task and depth, for at most 4 examples within a budget of operations (more
//! examples before more steps; a case that was cut short says so), and are cached under `ERGOMETER_CACHE`, else the
//! user's cache folder. Workers are given `*.questions.safetensors`: inputs and the recorded states, no outputs. So no
//! worker repeats an answer by mistake. This is no sandbox: an external program runs as the same user and could read
//! the full file in the cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ergometer_files::{Links, counted};
use ergometer_reports::case::{CaseError, ErrorKind};
use sha2::{Digest, Sha256};

use super::interpreted::written_by_reference;
use super::judge::{Judge, ReferenceVectors};
use super::peer;
use super::plan::{Plan, PlannedCase, PlannedModel, PlannedTask};
use super::process::case_error;
use crate::console;
use crate::files::hex;
use crate::files::{read_cached, sha256, write_atomically};
use crate::models::interface::Interface;
use crate::parity::Vectors;
use crate::protocol::Job;

/// Examples that parity looks at, at most.
const EXAMPLES: usize = 4;
/// FLOPs that the interpreter may spend on them, at most: some seconds on two cores. One step of one example it always takes.
const BUDGET: f64 = 3e10;

/// Examples and steps that parity looks at, and whether the budget keeps it from more.
pub fn extent(case: &PlannedCase, task: &PlannedTask) -> (usize, u32, bool) {
    let examples = EXAMPLES.min(task.set.examples.len());
    // several examples before several steps: rows of a batch can go wrong one by one
    let affordable = |flops: f64| (BUDGET / flops.max(1.0)) as usize;
    let flops_step = case.known_costs().flops_step;
    let rows = affordable(flops_step).clamp(1, examples.max(1));
    let most = usize::try_from(case.max_steps).unwrap_or(usize::MAX);
    let steps = affordable(flops_step * rows as f64).clamp(1, most.max(1)) as u32;
    (rows, steps, rows < examples || steps < case.max_steps)
}

/// The reference's vectors by model, task and depth, each made when it is first asked for.
#[derive(Default)]
pub struct References(BTreeMap<(String, String, u32), Made>);

/// What was made, or how the attempt ended.
type Made = Result<Judge, CaseError>;

impl References {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn key(case: &PlannedCase, plan: &Plan) -> (String, String, u32) {
        let (task, model) = (&plan.tasks[&case.spec.task], &plan.models[&case.spec.model]);
        // no engine is held to itself
        let own = if model.file.is_some() { case.engine.unwrap_or("") } else { "" };
        (model.hash.clone(), format!("{}{own}", task.hash), case.max_steps)
    }

    /// The vectors that judge this case, if they were asked for before.
    pub fn known(&self, case: &PlannedCase, plan: &Plan) -> Option<ReferenceVectors<'_>> {
        self.0.get(&Self::key(case, plan)).map(Result::as_ref)
    }

    /// The vectors that judge this case.
    pub fn of(&mut self, case: &PlannedCase, plan: &Plan, cache: &Path) -> ReferenceVectors<'_> {
        let (task, model) = (&plan.tasks[&case.spec.task], &plan.models[&case.spec.model]);
        let key = Self::key(case, plan);
        // what could not be made for one case is tried again for the next, since a full disk or a kill may be past
        if matches!(self.0.get(&key), Some(Err(why)) if why.kind != ErrorKind::Unavailable) {
            self.0.remove(&key);
        }
        self.0.entry(key).or_insert_with(|| made(case, model, task, cache)).as_ref()
    }
}

fn made(case: &PlannedCase, model: &PlannedModel, task: &PlannedTask, cache: &Path) -> Made {
    if model.language.is_some() {
        return super::parity_language::judge(case, model, task, cache).map(Judge::Language);
    }
    match &model.file {
        Some(_) => peer::outputs(case, model, task).map(Judge::Peer),
        None => vectors(case, model, task, cache).map(|(questions, vectors)| Judge::Reference(questions, vectors)),
    }
}

/// The vectors for a case's model and task, up to its depth.
pub fn vectors(
    case: &PlannedCase,
    model: &PlannedModel,
    task: &PlannedTask,
    cache: &Path,
) -> Result<(PathBuf, Vectors), CaseError> {
    let graph = model.graph.as_ref().ok_or_else(|| {
        case_error(ErrorKind::Unavailable, format!("model `{}` has no graph that it could compute", case.key.model))
    })?;
    let (rows, steps, _) = extent(case, task);
    // what the interpreter would compute: its own text, the graph, the weights, the inputs
    let interpreter = [
        include_str!("../graph/interpreter.rs"),
        include_str!("../backends/reference.rs"),
        include_str!("../parity.rs"),
    ];
    let mut hash = Sha256::new().chain_update(interpreter.concat()).chain_update(format!("{graph:?}"));
    hash.update(format!("{} {rows} {steps}", model.hash));
    for example in &task.set.examples[..rows] {
        example.tokens.iter().chain([&example.puzzle_id]).for_each(|v| hash.update(v.to_le_bytes()));
    }
    let stem = cache.join("reference").join(hex(&hash.finalize()));
    let (path, questions) = (stem.with_extension("safetensors"), stem.with_extension("questions.safetensors"));
    let most = Vectors::most_bytes(&model.interface, rows, steps);
    let vectors = match kept(&path, &model.interface, most) {
        Some(vectors) => {
            console::detail(|| format!("reference of {}: read {}", case.path, path.display()));
            vectors
        }
        None => {
            console::detail(|| {
                let rows = counted(rows, "example");
                format!(
                    "reference of {}: made of {rows} and {} into {}",
                    case.path,
                    counted(steps, "step"),
                    path.display()
                )
            });
            make(case, model, task, (rows, steps, most), &path)?
        }
    };
    // workers get a file without the answers
    let bytes = vectors.questions().write(&model.interface);
    bytes
        .and_then(|bytes| write_atomically(&questions, &bytes))
        .map_err(|e| unwritable(format!("cannot write the inputs for parity: {e:#}")))?;
    Ok((questions, vectors))
}

/// The file that holds the sha256 of a vectors file.
fn sum_of(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

/// What the cache holds is used only if it is what was written, byte for byte, and vectors of this model. A file that is larger
/// than these can be is not read.
fn kept(path: &Path, interface: &Interface, most: u64) -> Option<Vectors> {
    let sum = read_cached(&sum_of(path), 64)?;
    let now = sha256(path, most, Links::Refused).ok()?;
    (now.as_bytes() == sum).then(|| Vectors::read(path, interface).ok())?
}

/// Makes the vectors, once more where a worker ended without a word, and writes down what they are known by.
fn make(
    case: &PlannedCase,
    model: &PlannedModel,
    task: &PlannedTask,
    (rows, steps, most): (usize, u32, u64),
    path: &Path,
) -> Result<Vectors, CaseError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .map_err(|e| unwritable(format!("cannot create the cache folder {}: {e}", folder.display())))?;
    // so that a worker that is killed in between leaves nothing that passes for whole
    let _ = std::fs::remove_file(sum_of(path));
    record(case, &model.folder, task, rows, steps, path).or_else(|error| match error.kind {
        ErrorKind::Signal | ErrorKind::Exit | ErrorKind::OutOfMemory => {
            record(case, &model.folder, task, rows, steps, path)
        }
        _ => Err(error),
    })?;
    let fault = |e: String| case_error(ErrorKind::Reference, format!("the reference's vectors: {e}"));
    let sum = sha256(path, most, Links::Refused).map_err(|e| fault(e.to_string()))?;
    let vectors = Vectors::read(path, &model.interface).map_err(|e| fault(format!("{e:#}")))?;
    write_atomically(&sum_of(path), sum.as_bytes())
        .map_err(|e| unwritable(format!("cannot write the reference's checksum: {e:#}")))?;
    Ok(vectors)
}

fn unwritable(message: String) -> CaseError {
    let hint = "set ERGOMETER_CACHE to a folder that can be written; `--resume` then runs this case again";
    CaseError { kind: ErrorKind::Reference, message, hint: Some(hint.into()) }
}

fn record(
    case: &PlannedCase,
    model: &Path,
    task: &PlannedTask,
    rows: usize,
    steps: u32,
    path: &Path,
) -> Result<(), CaseError> {
    let examples = &task.set.examples[..rows];
    let job = Job {
        batch: rows,
        max_steps: steps,
        inputs: examples.iter().map(|e| e.tokens.clone()).collect(),
        puzzle_ids: examples.iter().map(|e| e.puzzle_id).collect(),
        ..super::job::job(case, task, model)
    };
    written_by_reference(job, case.spec.timeout_seconds.max(300.0), rows as u64, None, path)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::models::Model;

    #[test]
    fn a_file_that_is_larger_than_these_vectors_can_be_is_not_read() {
        let config = serde_json::json!({"model_type": "trm", "seq_len": 16, "vocab_size": 6, "hidden_size": 16, "num_heads": 2,
            "expansion": 1.0, "H_cycles": 1, "L_cycles": 1, "L_layers": 1, "halt_max_steps": 3});
        let interface = Model::random(&config, 7).unwrap().interface;
        for golden in ["trm-mlp-d64", "trm-att-d64", "hrm-d64"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden);
            let (model, file) = (Model::load(&folder).unwrap(), folder.join("vectors.safetensors"));
            let vectors = Vectors::read(&file, &model.interface).unwrap();
            let most = Vectors::most_bytes(&model.interface, vectors.batch, vectors.steps.len() as u32);
            let has = file.metadata().unwrap().len();
            assert!((has..2 * has + 65536).contains(&most), "{golden}: {has} bytes, {most} allowed");
        }
        let (most, place) = (Vectors::most_bytes(&interface, 4, 3), tempfile::tempdir().unwrap());
        assert!(most < 1 << 20, "{most}");
        let path = place.path().join("vectors.safetensors");
        File::create(&path).unwrap().set_len(3 << 30).unwrap();
        std::fs::write(sum_of(&path), "0".repeat(64)).unwrap();
        assert!(kept(&path, &interface, most).is_none());
        assert!(sha256(&path, most, Links::Refused).unwrap_err().to_string().contains("larger than"));
    }
}
