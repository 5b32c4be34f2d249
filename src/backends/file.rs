//! An engine over a file that a library loads and runs by itself: rows in tensors of the file's own types, states fed back.
//!
//! In: an [`OnnxFile`] and a [`Runner`]. Out: an [`Engine`]. Must not: change what the file computes, or look at a graph of ours.
//!
//! Rows come and go together: an answer takes one step, and no row halts before another. Where the library holds a fixed
//! number of rows, spare places repeat the real ones. Of a sequence each step of time is one run of the file; states begin with
//! zeros (or what the file says) whenever rows are admitted, and never leave the engine.
//!
//! Outputs are given as f32, whatever the file's type; a whole number that f32 does not hold exactly is an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use ergometer_suites::ElementKind;
use half::f16;

use super::{BackendError, Engine, Facts, Unavailable};
use crate::models::file::{BoundInput, FileAxis, OnnxFile};
use crate::models::interface::Rows;

/// The elements of an output, as the library holds them.
pub(super) enum Elements<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    I64(&'a [i64]),
    I32(&'a [i32]),
    U8(&'a [u8]),
    Bool(&'a [bool]),
}

/// A library with the file loaded.
pub(super) trait Runner {
    /// Its tensors.
    type Value;
    /// Rows that it always computes; `None`: any number.
    fn fixed(&self) -> Option<usize>;
    /// A tensor of these elements, little endian.
    fn tensor(&self, kind: ElementKind, shape: &[usize], bytes: &[u8]) -> Result<Self::Value, BackendError>;
    /// All outputs in the file's order, for all inputs in the file's order. The inputs stay as they are.
    fn run(&mut self, inputs: &[Self::Value]) -> Result<Vec<Self::Value>, BackendError>;
    /// Shape and elements of an output of this kind.
    fn elements<'a>(
        &self,
        value: &'a Self::Value,
        kind: ElementKind,
    ) -> Result<(Vec<usize>, Elements<'a>), BackendError>;
    /// What loading told.
    fn report(&self) -> BTreeMap<String, String>;
    /// Bytes of weights held.
    fn weight_bytes(&self) -> u64;
}

/// See the module.
pub(super) struct FileEngine<R: Runner> {
    runner: R,
    file: Arc<OnnxFile>,
    capacity: usize,
    /// Places of the inputs that examples bring, and of those that are states, among the file's.
    given: Vec<usize>,
    states: Vec<usize>,
    /// Place of each state's output among the file's.
    state_outputs: Vec<usize>,
    /// Place and kind of each other output.
    outputs: Vec<(usize, ElementKind)>,
    /// Inputs of each step of time, in the file's order.
    steps: Vec<Vec<R::Value>>,
    live: usize,
    /// `[rows, ..]` of each output; with a sequence `[rows, steps, ..]`.
    results: Vec<Vec<f32>>,
    row_shapes: Vec<Vec<usize>>,
    /// Tokens or bytes on their way into a tensor.
    scratch: Vec<u8>,
}

/// The kind of an output's type, as the interface has it.
fn kind_of(element: u64) -> ElementKind {
    match element {
        2 => ElementKind::U8,
        6 => ElementKind::I32,
        7 => ElementKind::I64,
        9 => ElementKind::Bool,
        10 => ElementKind::F16,
        _ => ElementKind::F32,
    }
}

impl<R: Runner> FileEngine<R> {
    /// An engine of so many rows.
    ///
    /// # Errors
    /// More rows than the file takes.
    pub fn new(runner: R, file: Arc<OnnxFile>, capacity: usize) -> Result<Self, BackendError> {
        fits(file.rows, capacity)?;
        let place = |name: &str| file.header.outputs.iter().position(|o| o.name == name);
        let (states, given): (Vec<usize>, Vec<usize>) =
            (0..file.inputs.len()).partition(|i| file.inputs[*i].state.is_some());
        let state_outputs = states.iter().filter_map(|i| place(&file.inputs[*i].state.as_ref()?.0)).collect();
        let outputs: Vec<_> = file.outputs().filter_map(|o| Some((place(&o.name)?, kind_of(o.element)))).collect();
        Ok(Self {
            results: vec![Vec::new(); outputs.len()],
            row_shapes: vec![Vec::new(); outputs.len()],
            runner,
            capacity,
            given,
            states,
            state_outputs,
            outputs,
            steps: Vec::new(),
            live: 0,
            scratch: Vec::new(),
            file,
        })
    }

    /// Rows that a run computes for so many.
    fn size(&self, rows: usize) -> usize {
        match self.file.rows {
            Rows::Fixed(n) => n,
            Rows::One => 1,
            Rows::Any => self.runner.fixed().unwrap_or(rows),
        }
    }

    fn start(&self, input: &BoundInput, size: usize) -> Result<R::Value, BackendError> {
        let shape = input.shape(size);
        let elements: usize = shape.iter().product();
        let start = input.state.as_ref().and_then(|(_, start)| start.as_ref());
        match start {
            Some(start)
                if input.kind == ElementKind::F32 && !start.is_empty() && elements.is_multiple_of(start.len()) =>
            {
                let one: Vec<u8> = start.iter().flat_map(|v| v.to_le_bytes()).collect();
                self.runner.tensor(input.kind, &shape, &one.repeat(elements / start.len()))
            }
            _ => self.runner.tensor(input.kind, &shape, &vec![0; elements * input.kind.bytes()]),
        }
    }

    /// Steps of time that the rows have.
    fn length(&self, n: usize, inputs: &[&[u8]]) -> Result<usize, BackendError> {
        let mut steps = 1;
        for (&place, bytes) in self.given.iter().zip(inputs) {
            let input = &self.file.inputs[place];
            let row = input.row(self.file.rows).iter().product::<usize>() * input.kind.bytes();
            let has = bytes.len() / (row * n).max(1);
            let whole = bytes.len() == has * row * n && has > 0;
            let agrees = has == 1 || (!self.states.is_empty() && (steps == 1 || steps == has));
            if !whole || !agrees {
                return Err(BackendError::Failed(format!(
                    "input `{}` brings {} bytes for {n} rows of {row}",
                    input.name,
                    bytes.len()
                )));
            }
            steps = steps.max(has);
        }
        Ok(steps)
    }

    /// Makes `n` rows live; `of(i, scratch)` gives the elements of the `i`-th given input.
    fn enter(&mut self, at: usize, n: usize, inputs: &[&[u8]]) -> Result<(), BackendError> {
        if at > 0 || n == 0 || n > self.capacity || inputs.len() != self.given.len() {
            return Err(BackendError::Failed(format!(
                "{n} rows of {} inputs behind {at}: a file takes all of its {} rows and {} inputs at once",
                inputs.len(),
                self.capacity,
                self.given.len()
            )));
        }
        let (length, size) = (self.length(n, inputs)?, self.size(n));
        self.steps.clear();
        for step in 0..length {
            let mut values = Vec::with_capacity(self.file.inputs.len());
            let mut given = inputs.iter();
            for input in &self.file.inputs {
                if input.state.is_some() {
                    // of later steps these are replaced by what the step before gives
                    values.push(self.start(input, size)?);
                    continue;
                }
                let bytes = given.next().copied().unwrap_or_default();
                let row = input.row(self.file.rows).iter().product::<usize>() * input.kind.bytes();
                let per_row = bytes.len() / n;
                let at = if per_row == row { 0 } else { step * row };
                let shape = input.shape(size);
                // without an axis of rows all have the same
                let once = matches!(self.file.rows, Rows::Any) && input.axes.iter().all(|a| *a != FileAxis::Rows);
                let once = once || input.axes.is_empty();
                if (per_row == row && n == size) && !once {
                    values.push(self.runner.tensor(input.kind, &shape, bytes)?);
                    continue;
                }
                self.scratch.clear();
                for place in 0..if once { 1 } else { size } {
                    let first = place % n * per_row + at;
                    self.scratch.extend_from_slice(&bytes[first..first + row]);
                }
                if once && (1..n).any(|r| bytes[r * per_row + at..][..row] != self.scratch[..]) {
                    return Err(BackendError::Unavailable(Unavailable {
                        reason: format!(
                            "input `{}` has no axis of rows, and the rows of a batch bring unlike ones",
                            input.name
                        ),
                        hint: Some("ask for a batch of 1".into()),
                    }));
                }
                values.push(self.runner.tensor(input.kind, &shape, &self.scratch)?);
            }
            self.steps.push(values);
        }
        self.live = n;
        Ok(())
    }

    /// Appends what an output gives of each live row to that row's place.
    fn keep_results(&mut self, values: &[R::Value], step: usize) -> Result<(), BackendError> {
        let (steps, size) = (self.steps.len(), self.size(self.live));
        for (i, (place, kind)) in self.outputs.iter().enumerate() {
            let name = &self.file.header.outputs[*place].name;
            let value =
                values.get(*place).ok_or_else(|| BackendError::Failed(format!("output `{name}` is missing")))?;
            let (shape, elements) = self.runner.elements(value, *kind)?;
            if size > 1 && shape.first() != Some(&size) {
                return Err(BackendError::Unavailable(Unavailable {
                    reason: format!("output `{name}` has shape {shape:?}, whose first axis is not the batch of {size}"),
                    hint: Some("ask for a batch of 1, or name the dimension that counts rows with `batch`".into()),
                }));
            }
            let row = shape.iter().product::<usize>() / size;
            let own = if size > 1 { &shape[1..] } else { &shape[..] };
            self.row_shapes[i] = own.to_vec();
            let result = &mut self.results[i];
            if steps == 1 {
                result.clear();
                extend(result, &elements, 0..row * self.live, name)?;
                continue;
            }
            // rows lie one after the other, the steps of each together
            if step == 0 {
                result.clear();
                result.resize(row * steps * self.live, 0.0);
            }
            if result.len() != row * steps * self.live {
                return Err(BackendError::Failed(format!(
                    "output `{name}` has another size in step {step} than before"
                )));
            }
            let mut all = Vec::with_capacity(row * self.live);
            extend(&mut all, &elements, 0..row * self.live, name)?;
            for (r, values) in all.chunks_exact(row.max(1)).enumerate() {
                let at = (r * steps + step) * row;
                result[at..at + row].copy_from_slice(values);
            }
        }
        Ok(())
    }
}

/// Errors: more rows than a file takes, or other ones.
pub(super) fn fits(rows: Rows, capacity: usize) -> Result<(), BackendError> {
    let unavailable =
        |reason: String, hint: &str| Err(BackendError::Unavailable(Unavailable { reason, hint: Some(hint.into()) }));
    match rows {
        Rows::Any => Ok(()),
        Rows::Fixed(n) if n == capacity => Ok(()),
        Rows::Fixed(n) => unavailable(
            format!("the file's first axis is fixed at {n} rows, and a batch of {capacity} was asked for"),
            "ask for that batch, or export the file with an open one; `batch = \"none\"` says that the axis does not count rows",
        ),
        Rows::One if capacity <= 1 => Ok(()),
        Rows::One => unavailable(
            format!("no axis of the file counts rows, and a batch of {capacity} was asked for"),
            "ask for a batch of 1; `batch` in its [[model]] block names the dimension that counts rows",
        ),
    }
}

/// Numbers as f32.
fn extend(
    to: &mut Vec<f32>,
    elements: &Elements,
    range: std::ops::Range<usize>,
    name: &str,
) -> Result<(), BackendError> {
    const EXACT: u64 = 1 << 24;
    let short = || BackendError::Failed(format!("output `{name}` has fewer elements than its shape says"));
    let whole = |to: &mut Vec<f32>, values: &mut dyn Iterator<Item = i64>| {
        for v in values {
            if v.unsigned_abs() > EXACT {
                return Err(BackendError::Failed(format!("output `{name}` holds {v}, which is not exact as f32")));
            }
            to.push(v as f32);
        }
        Ok(())
    };
    match elements {
        Elements::F32(v) => to.extend_from_slice(v.get(range).ok_or_else(short)?),
        Elements::F16(v) => to.extend(v.get(range).ok_or_else(short)?.iter().map(|v| v.to_f32())),
        Elements::I64(v) => whole(to, &mut v.get(range).ok_or_else(short)?.iter().copied())?,
        Elements::I32(v) => whole(to, &mut v.get(range).ok_or_else(short)?.iter().map(|&v| v.into()))?,
        Elements::U8(v) => to.extend(v.get(range).ok_or_else(short)?.iter().map(|&v| f32::from(v))),
        Elements::Bool(v) => to.extend(v.get(range).ok_or_else(short)?.iter().map(|&v| f32::from(u8::from(v)))),
    }
    Ok(())
}

impl<R: Runner> Engine for FileEngine<R> {
    fn facts(&self) -> Facts {
        let size = self.size(self.capacity);
        let bytes = |input: &BoundInput| input.shape(size).iter().product::<usize>() * input.kind.bytes();
        let state_bytes = self.states.iter().map(|i| bytes(&self.file.inputs[*i]) as u64).sum();
        Facts { weight_bytes: self.runner.weight_bytes(), state_bytes }
    }

    fn report(&self) -> BTreeMap<String, String> {
        self.runner.report()
    }

    fn admit(&mut self, at: usize, n: usize, inputs: &[&[u32]]) -> Result<(), BackendError> {
        let mut all = Vec::with_capacity(inputs.len());
        for (&place, indices) in self.given.iter().zip(inputs) {
            all.push(match self.file.inputs[place].kind {
                ElementKind::I32 => indices.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect::<Vec<u8>>(),
                _ => indices.iter().flat_map(|&v| i64::from(v).to_le_bytes()).collect(),
            });
        }
        let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        self.enter(at, n, &all)
    }

    fn admit_arrays(&mut self, at: usize, n: usize, inputs: &[&[u8]]) -> Result<(), BackendError> {
        self.enter(at, n, inputs)
    }

    fn row_shape(&self, i: usize) -> Option<&[usize]> {
        self.row_shapes.get(i).map(Vec::as_slice)
    }

    fn step(&mut self, rows: usize) -> Result<(), BackendError> {
        if rows != self.live || self.steps.is_empty() {
            return Err(BackendError::Failed(format!("a step of {rows} rows where {} are live", self.live)));
        }
        for step in 0..self.steps.len() {
            let mut values = self.runner.run(&self.steps[step])?;
            self.keep_results(&values, step)?;
            // in descending order, so that places stay what they are
            let next = (step + 1) % self.steps.len();
            let mut order: Vec<usize> = (0..self.states.len()).collect();
            order.sort_by_key(|i| std::cmp::Reverse(self.state_outputs[*i]));
            for i in order {
                if self.state_outputs[i] < values.len() {
                    let value = values.swap_remove(self.state_outputs[i]);
                    self.steps[next][self.states[i]] = value;
                }
            }
        }
        Ok(())
    }

    fn output(&self, i: usize) -> &[f32] {
        self.results.get(i).map_or(&[], Vec::as_slice)
    }

    fn keep(&mut self, keep: &[usize]) -> Result<(), BackendError> {
        if keep.is_empty() {
            self.live = 0;
            return Ok(());
        }
        if keep.iter().copied().eq(0..self.live) {
            return Ok(());
        }
        Err(BackendError::Failed("the rows of a file come and go together".into()))
    }

    fn state(&self, _: usize, _: usize) -> Result<Vec<f32>, BackendError> {
        Err(BackendError::unavailable("a file's states stay in its engine"))
    }

    fn set_state(&mut self, _: usize, _: usize, _: &[f32]) -> Result<(), BackendError> {
        Err(BackendError::unavailable("a file's states stay in its engine"))
    }

    /// Neither library tells what it computes.
    fn flops_executed(&self, _: usize) -> Option<f64> {
        None
    }

    fn flops_admitted(&self, _: usize) -> Option<f64> {
        None
    }
}

#[cfg(all(test, feature = "tract"))]
mod tests;
