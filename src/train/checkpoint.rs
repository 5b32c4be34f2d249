//! Everything that a training run needs to go on where it stood, in one file.
//!
//! In: the run's state. Out: a safetensors file, whole or not at all, and the state again. Must not: trust the file: shapes are checked
//! against the run that asks for it.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::net::Batch;
use super::optimiser::Optimiser;

/// What is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
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

/// Writes the checkpoint.
pub fn save(path: &Path, progress: &Progress, optimiser: &Optimiser, batch: &Batch) -> anyhow::Result<()> {
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

/// Largest checkpoint that is read.
const MAX_BYTES: u64 = 64 << 30;

/// Reads a checkpoint into an optimiser and a batch of the same shapes.
pub fn load(path: &Path, optimiser: &mut Optimiser, batch: &mut Batch) -> anyhow::Result<Progress> {
    let mut read = || -> anyhow::Result<Progress> {
        let bytes = crate::models::read_capped(path, MAX_BYTES)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let text = header.metadata().as_ref().and_then(|m| m.get(KEY)).context("it holds no progress")?;
        let progress: Progress = serde_json::from_str(text)?;
        let file = SafeTensors::deserialize(&bytes)?;
        let words = |name: &str, dtype: Dtype, len: usize| -> anyhow::Result<Vec<[u8; 4]>> {
            let view = file.tensor(name)?;
            ensure!(
                view.dtype() == dtype && view.data().len() == 4 * len,
                "`{name}` is {:?} {:?}, the run needs {len} of {dtype:?}",
                view.dtype(),
                view.shape()
            );
            Ok(view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]).collect())
        };
        let fill = |name: &str, list: &mut Vec<Vec<f32>>| -> anyhow::Result<()> {
            for (i, values) in list.iter_mut().enumerate() {
                let words = words(&format!("{name}.{i}"), Dtype::F32, values.len())?;
                *values = words.into_iter().map(f32::from_le_bytes).collect();
            }
            Ok(())
        };
        fill("weights", &mut optimiser.weights)?;
        fill("first", &mut optimiser.first)?;
        fill("second", &mut optimiser.second)?;
        fill("average", &mut optimiser.average)?;
        fill("state", &mut batch.states)?;
        for (name, values) in [
            ("inputs", &mut batch.inputs),
            ("labels", &mut batch.labels),
            ("steps", &mut batch.steps),
            ("puzzle_ids", &mut batch.puzzle_ids),
        ] {
            *values = words(name, Dtype::U32, values.len())?.into_iter().map(u32::from_le_bytes).collect();
        }
        optimiser.steps = progress.step;
        Ok(progress)
    };
    read().with_context(|| {
        format!("cannot go on from {}\nhint: leave `--resume` out to start from the beginning", path.display())
    })
}
