//! What a worker is asked, ready to be handed over: tokens out of the job's line, or arrays out of the file that it names.
//!
//! In: a [`Job`] and the model's [`Interface`]. Out: rows entered into a session. Must not: allocate once it is made, or look at an answer.

use std::path::Path;

use anyhow::{Context, bail};
use ergometer_suites::{Array, ElementKind};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::backends::BackendError;
use crate::backends::session::Session;
use crate::models::interface::{Feeds, Interface, MAX_INPUTS, Port};
use crate::models::tensors::Tensors;
use crate::protocol::Job;

/// Every example, and the room for those of one iteration.
pub(super) enum GivenRows {
    /// Rows of tokens.
    Tokens { feeds: Feeds, tokens: Vec<u32>, ids: Vec<u32> },
    /// `rows[i][example]`: the elements of the `i`-th input; `together[i]`: those of an iteration.
    Arrays { rows: Vec<Vec<Vec<u8>>>, together: Vec<Vec<u8>> },
}

impl GivenRows {
    /// What the job brings.
    pub fn of(job: &Job, interface: &Interface) -> anyhow::Result<Self> {
        match &job.arrays {
            None => {
                let longest = job.inputs.iter().map(Vec::len).max().unwrap_or(0);
                Ok(Self::Tokens {
                    feeds: interface.feeds()?,
                    tokens: Vec::with_capacity(job.batch * longest),
                    ids: Vec::with_capacity(job.batch),
                })
            }
            Some(path) => Self::read(path, interface, job.puzzle_ids.len(), job.batch),
        }
    }

    /// Arrays of a file.
    pub fn read(path: &Path, interface: &Interface, examples: usize, batch: usize) -> anyhow::Result<Self> {
        let rows = read(path, interface, examples)?;
        let room = |all: &Vec<Vec<u8>>| Vec::with_capacity(batch * all.iter().map(Vec::len).max().unwrap_or(0));
        Ok(Self::Arrays { together: rows.iter().map(room).collect(), rows })
    }

    /// Errors: rows of unlike size where several share an iteration.
    pub fn one_size(&self, batch: usize) -> Result<(), BackendError> {
        match self {
            Self::Arrays { rows, .. } if batch > 1 => {
                let alike = |all: &Vec<Vec<u8>>| all.iter().all(|row| row.len() == all[0].len());
                if rows.iter().all(alike) { Ok(()) } else { Err(super::unlike(batch)) }
            }
            _ => Ok(()),
        }
    }

    /// Enters the examples `first..`, wrapping round, into these slots.
    pub fn enter(
        &mut self,
        session: &mut Session,
        job: &Job,
        slots: &[usize],
        first: usize,
    ) -> Result<(), BackendError> {
        let n = job.puzzle_ids.len();
        self.enter_each(session, job, slots, |i| (first + i) % n)
    }

    /// Enters these examples, one into each slot.
    pub fn enter_these(
        &mut self,
        session: &mut Session,
        job: &Job,
        slots: &[usize],
        examples: &[usize],
    ) -> Result<(), BackendError> {
        self.enter_each(session, job, slots, |i| examples[i])
    }

    fn enter_each(
        &mut self,
        session: &mut Session,
        job: &Job,
        slots: &[usize],
        example: impl Fn(usize) -> usize,
    ) -> Result<(), BackendError> {
        let examples = || (0..slots.len()).map(&example);
        match self {
            Self::Tokens { feeds, tokens, ids } => {
                tokens.clear();
                ids.clear();
                for example in examples() {
                    tokens.extend_from_slice(&job.inputs[example]);
                    ids.push(job.puzzle_ids[example]);
                }
                session.admit(slots, &feeds.with(tokens, ids))
            }
            Self::Arrays { rows, together } => {
                let mut inputs: [&[u8]; MAX_INPUTS] = [&[]; MAX_INPUTS];
                let used = rows.len().min(MAX_INPUTS);
                for ((all, rows), input) in together.iter_mut().zip(&*rows).zip(&mut inputs) {
                    all.clear();
                    examples().for_each(|example| all.extend_from_slice(&rows[example]));
                    *input = all;
                }
                session.admit_arrays(slots, &inputs[..used])
            }
        }
    }
}

fn dtype(kind: ElementKind) -> (&'static str, Dtype) {
    match kind {
        ElementKind::F32 => ("F32", Dtype::F32),
        ElementKind::F16 => ("F16", Dtype::F16),
        ElementKind::F64 => ("F64", Dtype::F64),
        ElementKind::I64 => ("I64", Dtype::I64),
        ElementKind::I32 => ("I32", Dtype::I32),
        ElementKind::U8 => ("U8", Dtype::U8),
        ElementKind::Bool => ("BOOL", Dtype::BOOL),
    }
}

/// The file of arrays that a job names: a tensor `[examples, ..]` for each input by its name where all examples have one shape, else a tensor
/// `NAME.INDEX` an example.
///
/// # Errors
/// Arrays that are none.
pub fn write(inputs: &[String], examples: &[&[Array]]) -> anyhow::Result<Vec<u8>> {
    let mut tensors: Vec<(String, Array)> = Vec::new();
    for (i, name) in inputs.iter().enumerate() {
        let of = |arrays: &&[Array]| arrays.get(i).cloned().with_context(|| format!("an example lacks input `{name}`"));
        let all = examples.iter().map(of).collect::<anyhow::Result<Vec<Array>>>()?;
        let Some(first) = all.first() else { bail!("there are no examples") };
        if all.iter().all(|array| array.shape == first.shape && array.kind == first.kind) {
            let shape = [&[all.len()], &first.shape[..]].concat();
            let bytes: Vec<u8> = all.iter().flat_map(|array| array.bytes.iter().copied()).collect();
            tensors.push((name.clone(), Array { kind: first.kind, shape, bytes: bytes.into() }));
        } else {
            tensors.extend(all.into_iter().enumerate().map(|(k, array)| (format!("{name}.{k}"), array)));
        }
    }
    let views = tensors.iter().map(|(name, array)| {
        let view = TensorView::new(dtype(array.kind).1, array.shape.clone(), &array.bytes);
        Ok((name.as_str(), view.map_err(|e| anyhow::anyhow!("input `{name}`: {e}"))?))
    });
    Ok(safetensors::serialize(views.collect::<anyhow::Result<Vec<_>>>()?, None)?)
}

/// Errors: elements that the input does not take.
fn takes(port: &Port, interface: &Interface, shape: &[usize]) -> bool {
    let steps = interface.sequences && shape.len() == port.shape.len() + 1 && shape[0] > 0;
    shape == port.shape || (steps && shape[1..] == port.shape)
}

/// What a model is given and what its inputs take, in words.
///
/// # Errors
/// They are not the same.
pub fn check_array(port: &Port, interface: &Interface, kind: ElementKind, shape: &[usize]) -> anyhow::Result<()> {
    let wanted = port.kind.map_or("tokens", ElementKind::name);
    if port.kind == Some(kind) && takes(port, interface, shape) {
        return Ok(());
    }
    let time = if interface.sequences { ", with or without an axis of time before it" } else { "" };
    bail!("input `{}` takes {wanted} {:?} a row{time}, and is given {kind} {shape:?}", port.name, port.shape)
}

/// `[input][example]`: elements out of such a file.
fn read(path: &Path, interface: &Interface, examples: usize) -> anyhow::Result<Vec<Vec<Vec<u8>>>> {
    let mut file = Tensors::open(path)?;
    let mut all = Vec::new();
    for port in &interface.inputs {
        let kind = port.kind.with_context(|| format!("input `{}` takes tokens, and is given arrays", port.name))?;
        let name = &port.name;
        let mut rows = Vec::with_capacity(examples.min(1 << 20));
        if let Some(entry) = file.entries.get(name) {
            let shape = entry.shape.clone();
            let Some((&n, row)) = shape.split_first().filter(|(n, _)| **n >= examples) else {
                bail!("tensor `{name}` has shape {shape:?}, {examples} rows are needed");
            };
            check_array(port, interface, kind, row)?;
            let elements = n * row.iter().product::<usize>();
            let bytes = file.raw(name, dtype(kind).0, elements)?;
            let each = bytes.len() / n.max(1);
            rows.extend((0..examples).map(|k| bytes[k * each..(k + 1) * each].to_vec()));
        } else {
            for k in 0..examples {
                let name = format!("{name}.{k}");
                let shape = file.entries.get(&name).map(|e| e.shape.clone());
                let shape = shape.with_context(|| format!("tensor `{name}` is missing"))?;
                check_array(port, interface, kind, &shape)?;
                rows.push(file.raw(&name, dtype(kind).0, shape.iter().product())?);
            }
        }
        all.push(rows);
    }
    Ok(all)
}
