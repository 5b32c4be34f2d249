//! Everything that a training run needs to go on where it stood, in one file.
//!
//! In: the run's state. Out: a safetensors file, whole or not at all, and the state again. Must not: trust the file: shapes are checked
//! against the run that asks for it.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::net::Batch;
use super::optimiser::Optimiser;
use crate::models::tensors::Tensors;

/// What is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingState {
    /// Optimiser steps made.
    pub step: u64,
    /// Place in the stream of random numbers.
    pub rng_position: String,
    /// Training examples drawn.
    pub drawn: u64,
    /// Seconds spent, evaluations included.
    pub seconds: f64,
    /// Seconds spent in optimiser steps.
    pub step_seconds: f64,
    /// Rows of the log so far.
    pub log: String,
    /// Text of the training file.
    pub config: String,
}

const KEY: &str = "progress";

/// Longer than any training has gone on: thirty years.
const MOST_SECONDS: f64 = 1e9;

/// Writes the checkpoint.
pub fn save(path: &Path, progress: &TrainingState, optimiser: &Optimiser, batch: &Batch) -> anyhow::Result<()> {
    let floats = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let whole = |v: &[u32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors: Vec<(String, Dtype, Vec<u8>)> = Vec::new();
    for (name, list) in groups(optimiser, batch) {
        let named = list.iter().enumerate().map(|(i, v)| (format!("{name}.{i}"), Dtype::F32, floats(v)));
        tensors.extend(named);
    }
    let wholes = [
        ("inputs", &batch.inputs),
        ("labels", &batch.labels),
        ("steps", &batch.steps),
        ("puzzle_ids", &batch.puzzle_ids),
    ];
    for (name, values) in wholes {
        tensors.push((name.into(), Dtype::U32, whole(values)));
    }
    let views = tensors.iter().map(|(name, dtype, bytes)| {
        let view = TensorView::new(*dtype, vec![bytes.len() / 4], bytes);
        view.map(|v| (name.clone(), v)).map_err(|e| anyhow!("checkpoint tensor {name}: {e}"))
    });
    let views = views.collect::<anyhow::Result<Vec<_>>>()?;
    let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(progress)?)]);
    crate::files::write_atomically(path, &safetensors::serialize(views, Some(metadata))?)
}

fn groups<'a>(optimiser: &'a Optimiser, batch: &'a Batch) -> [(&'static str, &'a Vec<Vec<f32>>); 5] {
    [
        ("weights", &optimiser.weights),
        ("first", &optimiser.first),
        ("second", &optimiser.second),
        ("average", &optimiser.average),
        ("state", &batch.states),
    ]
}

/// What a run allows its checkpoint to hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Steps of the whole run.
    pub steps: u64,
    /// Tokens of inputs, tokens of answers, puzzle ids.
    pub rows: (usize, usize, usize),
    /// Supervision steps of a row.
    pub depth: u32,
}

/// Reads a checkpoint into an optimiser and a batch of the same shapes. Its header and what it says of itself are checked first.
pub fn load(
    path: &Path,
    limits: Limits,
    optimiser: &mut Optimiser,
    batch: &mut Batch,
) -> anyhow::Result<TrainingState> {
    if std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        bail!(
            "{}: there is no checkpoint to go on from\nhint: leave `--resume` out to start from the beginning (a finished run has none)",
            path.display()
        );
    }
    let mut read = || -> anyhow::Result<TrainingState> {
        let mut file = Tensors::open(path)?;
        let text = file
            .metadata
            .get(KEY)
            .with_context(|| format!("metadata has no `{KEY}`: it is no checkpoint of a training run"))?;
        let progress: TrainingState = serde_json::from_str(text).with_context(|| format!("metadata `{KEY}`"))?;
        // examples that were drawn are drawn again: a number without end would never end
        let most = (batch.steps.len() as u64).saturating_mul(progress.step.saturating_add(1));
        ensure!(
            progress.step <= limits.steps && progress.drawn <= most,
            "metadata `{KEY}`: step {} and {} examples drawn, the training file plans {} steps of {} rows",
            progress.step,
            progress.drawn,
            limits.steps,
            batch.steps.len()
        );
        let seconds = [progress.seconds, progress.step_seconds];
        ensure!(seconds.iter().all(|s| (0.0..=MOST_SECONDS).contains(s)), "metadata `{KEY}`: times are {seconds:?}");
        let position = progress.rng_position.parse::<u128>();
        ensure!(position.is_ok(), "metadata `{KEY}`: `rng_position` is no whole number");
        for (name, list) in groups(optimiser, batch) {
            for (i, values) in list.iter().enumerate() {
                let name = format!("{name}.{i}");
                let entry = file.entries.get(&name).with_context(|| format!("tensor `{name}` is missing"))?;
                let fits = entry.elements() == values.len() && entry.dtype == "F32";
                ensure!(
                    fits,
                    "tensor `{name}` is {} {:?}, the run needs F32 [{}]",
                    entry.dtype,
                    entry.shape,
                    values.len()
                );
            }
        }
        let mut fill = |name: &str, list: &mut Vec<Vec<f32>>| -> anyhow::Result<()> {
            for (i, values) in list.iter_mut().enumerate() {
                *values = file.floats(&format!("{name}.{i}"), values.len())?;
            }
            Ok(())
        };
        fill("weights", &mut optimiser.weights)?;
        fill("first", &mut optimiser.first)?;
        fill("second", &mut optimiser.second)?;
        fill("average", &mut optimiser.average)?;
        fill("state", &mut batch.states)?;
        let (inputs, labels, ids) = limits.rows;
        for (name, values, below) in [
            ("inputs", &mut batch.inputs, inputs),
            ("labels", &mut batch.labels, labels),
            ("steps", &mut batch.steps, limits.depth as usize + 1),
            ("puzzle_ids", &mut batch.puzzle_ids, ids),
        ] {
            *values = file.words(name, "U32", values.len())?;
            if let Some(at) = values.iter().position(|v| *v as usize >= below) {
                bail!("tensor `{name}` holds {} at element {at}; it must be below {below}", values[at]);
            }
        }
        optimiser.steps = progress.step;
        Ok(progress)
    };
    read().with_context(|| {
        format!(
            "{}: cannot go on from this checkpoint\nhint: remove it, and leave `--resume` out, to start from the beginning",
            path.display()
        )
    })
}
