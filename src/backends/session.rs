//! A session: an engine's rows seen as slots, with admit, advance and retain.
//!
//! In: an [`Engine`], its model's [`Interface`], inputs, a [`Rule`]. Out: for every slot its outputs after the steps it used. Must not: know
//! a task or time anything, or look for a port while it runs.
//!
//! Rows that have halted are dropped from the engine at once (they stop costing), their outputs stay in their slots. Because rows are
//! independent this equals a run that drops nothing; `drop_halted = false` is there to prove it.
//!
//! Where a model's length is the call's, the rows that an engine holds at one time have one length.
//!
//! The session checks indices, counts steps, reads the halting head and copies a row's outputs when it stops. States
//! leave the engine for parity alone. Freed slots can be admitted again; the worker does not refill them yet, so an
//! offline batch lasts as long as its slowest row.

use super::{BackendError, Engine};
use ergometer_suites::task::StartNoise;

use crate::graph::Halting;
use crate::models::interface::{Interface, InterfaceError, Length, Port, RowSize};
use crate::models::random::Normal;

/// When a row stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Never before the steps are used up.
    Fixed,
    /// When the halting head says so.
    Halt,
}

/// What a slot knows of its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotState {
    /// Steps since the row was admitted.
    pub steps: u32,
    /// The halting head spoke under [`Rule::Halt`]; the outputs are those of that step.
    pub halted: bool,
    /// The slot holds a row.
    pub occupied: bool,
}

/// What a row brings to an input.
struct InputRow {
    name: String,
    size: RowSize,
    /// Indices are below this.
    below: usize,
}

impl InputRow {
    fn of(port: &Port) -> Result<Self, BackendError> {
        // what takes arrays is given no indices, unless it says below what
        let below = port.below().or(port.kind.map(|_| 0)).ok_or_else(|| {
            BackendError::unavailable(format!("input `{}` takes numbers, and engines are given indices", port.name))
        })?;
        Ok(Self { name: port.name.clone(), size: port.row()?, below })
    }
}

impl From<InterfaceError> for BackendError {
    fn from(e: InterfaceError) -> Self {
        Self::Failed(e.to_string())
    }
}

/// A model loaded by a backend.
pub struct Session {
    engine: Box<dyn Engine>,
    halting: Halting,
    /// Place of the output that the halting rule is read off.
    halts_by: Option<usize>,
    inputs: Vec<InputRow>,
    /// Of a row; `None`: known once a step has run.
    output_rows: Vec<Option<RowSize>>,
    /// Slot of each live engine row.
    live: Vec<usize>,
    /// Tokens of a live row, where the model's length is the call's.
    length: usize,
    slots: Vec<SlotState>,
    /// `outputs[i][slot]`: the `i`-th output of a slot, with room for the longest that is known.
    outputs: Vec<Vec<Vec<f32>>>,
    keep: Vec<usize>,
    drop_halted: bool,
    /// Number of states.
    states: usize,
    executed: Option<f64>,
}

impl Session {
    /// A session of `capacity` slots over an engine that was loaded with that capacity.
    ///
    /// # Errors
    /// An interface that nobody can feed: an open length, inputs that are no indices, a halting rule without its output.
    pub fn new(engine: Box<dyn Engine>, interface: &Interface, capacity: usize) -> Result<Self, BackendError> {
        let size = |port: &Port| if port.length == Length::Found { Ok(None) } else { port.row().map(Some) };
        let output_rows = interface.outputs.iter().map(size).collect::<Result<Vec<_>, _>>()?;
        let room = |row: &Option<RowSize>| {
            (0..capacity).map(|_| Vec::with_capacity(row.map_or(0, RowSize::most))).collect::<Vec<Vec<f32>>>()
        };
        Ok(Self {
            engine,
            halting: interface.halting,
            halts_by: interface.halts_by()?,
            inputs: interface.inputs.iter().map(InputRow::of).collect::<Result<_, _>>()?,
            outputs: output_rows.iter().map(room).collect(),
            output_rows,
            live: Vec::with_capacity(capacity),
            length: 0,
            slots: vec![SlotState::default(); capacity],
            keep: Vec::with_capacity(capacity),
            drop_halted: true,
            states: interface.states.len(),
            executed: Some(0.0),
        })
    }

    /// Keep computing halted rows (their outputs stay those of the halting step): costs more, changes nothing.
    pub fn keep_halted_rows(&mut self) {
        self.drop_halted = false;
    }

    /// The engine, for its facts and states.
    pub fn engine(&mut self) -> &mut dyn Engine {
        self.engine.as_mut()
    }

    /// Number of slots.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// FLOPs executed since the session began, padding included; `None`: the engine cannot say.
    pub fn flops_executed(&self) -> Option<f64> {
        self.executed
    }

    /// Puts rows into free slots. `inputs[i]` is `[slots.len(), tokens]` of the model's `i`-th input; where its length is the call's, all of
    /// these rows have as many tokens as their input is long, and as many as the rows that are live.
    pub fn admit(&mut self, slots: &[usize], inputs: &[&[u32]]) -> Result<(), BackendError> {
        let n = slots.len();
        if inputs.len() != self.inputs.len() {
            return Err(BackendError::Failed(format!(
                "{} inputs, the model takes {}",
                inputs.len(),
                self.inputs.len()
            )));
        }
        let length = self.length_of(n, inputs)?;
        for (row, input) in self.inputs.iter().zip(inputs) {
            if input.len() != n * row.size.at(length) {
                return Err(BackendError::Failed(format!(
                    "input `{}` has {} indices, {n} rows of {} are needed",
                    row.name,
                    input.len(),
                    row.size.at(length)
                )));
            }
            if let Some(&index) = input.iter().find(|&&v| v as usize >= row.below) {
                return Err(BackendError::Failed(format!(
                    "input `{}` holds index {index}, the model knows {}",
                    row.name, row.below
                )));
            }
        }
        self.occupy(slots)?;
        self.engine.admit(self.live.len(), n, inputs)?;
        self.length = length;
        self.count(self.engine.flops_admitted(n));
        self.live.extend_from_slice(slots);
        Ok(())
    }

    /// Puts rows of arrays into free slots, as [`Engine::admit_arrays`] takes them; the engine checks their sizes.
    pub fn admit_arrays(&mut self, slots: &[usize], inputs: &[&[u8]]) -> Result<(), BackendError> {
        self.occupy(slots)?;
        self.engine.admit_arrays(self.live.len(), slots.len(), inputs)?;
        self.count(self.engine.flops_admitted(slots.len()));
        self.live.extend_from_slice(slots);
        Ok(())
    }

    fn occupy(&mut self, slots: &[usize]) -> Result<(), BackendError> {
        for &s in slots {
            if self.slots.get(s).is_none_or(|slot| slot.occupied) {
                return Err(BackendError::Failed(format!("slot {s} of {} is not free", self.slots.len())));
            }
            self.slots[s] = SlotState { occupied: true, ..SlotState::default() };
        }
        Ok(())
    }

    /// Adds noise to the states of rows that have just been admitted, by slot. What a row gets depends on its seed and the state alone, not on
    /// its place or on other rows.
    pub fn disturb(&mut self, rows: &[(usize, StartNoise)]) -> Result<(), BackendError> {
        let live = self.live.len();
        if rows.is_empty() || live == 0 {
            return Ok(());
        }
        for state in 0..self.states {
            let mut values = self.engine.state(state, live)?;
            let width = values.len() / live;
            for (slot, noise) in rows {
                let Some(row) = self.live.iter().position(|s| s == slot) else { continue };
                let mut normal = Normal::new(noise.seed, state);
                for v in &mut values[row * width..(row + 1) * width] {
                    *v += (noise.scale * normal.draw()) as f32;
                }
            }
            self.engine.set_state(state, live, &values)?;
        }
        Ok(())
    }

    /// Tokens of each of `n` rows, where the model's length is the call's; 0 where it is fixed.
    fn length_of(&self, n: usize, inputs: &[&[u32]]) -> Result<usize, BackendError> {
        let Some((row, input)) = self.inputs.iter().zip(inputs).find(|(row, _)| row.size.varies()) else {
            return Ok(0);
        };
        let (length, most) = (input.len() / n.max(1), row.size.most());
        if n > 0 && !(1..=most).contains(&length) {
            return Err(BackendError::Failed(format!(
                "input `{}` brings {length} tokens a row, between 1 and {most} are taken",
                row.name
            )));
        }
        if !self.live.is_empty() && length != self.length {
            return Err(BackendError::Failed(format!(
                "rows of {length} tokens cannot join rows of {}: the rows that an engine holds have one length",
                self.length
            )));
        }
        Ok(length)
    }

    /// Runs live rows for at most `max_steps` further steps each; states stay in the backend. Afterwards [`slot`](Self::slot) and
    /// [`output`](Self::output) tell how each row stands. Gives the number of steps that the engine made.
    pub fn advance(&mut self, max_steps: u32, rule: Rule) -> Result<u32, BackendError> {
        self.advance_each(max_steps, rule, &mut |_| {})
    }

    /// The same; `stopped` is told the slot of each row as soon as its outputs can be read, once in a call.
    pub fn advance_each(
        &mut self,
        max_steps: u32,
        rule: Rule,
        stopped: &mut dyn FnMut(usize),
    ) -> Result<u32, BackendError> {
        let halts = rule == Rule::Halt && self.halting != Halting::Never;
        for step in 1..=max_steps {
            let rows = self.live.len();
            let all_frozen = self.live.iter().all(|&s| self.slots[s].halted);
            if rows == 0 || all_frozen {
                return Ok(step - 1);
            }
            self.engine.step(rows)?;
            self.count(self.engine.flops_executed(rows));
            self.keep.clear();
            for row in 0..rows {
                let slot = self.live[row];
                if self.slots[slot].halted {
                    self.keep.push(row);
                    continue;
                }
                self.slots[slot].steps += 1;
                let halted = halts && self.says_halt(row)?;
                self.slots[slot].halted = halted;
                if halted || step == max_steps {
                    for (i, size) in self.output_rows.iter().enumerate() {
                        let all = self.engine.output(i);
                        let n = size.map_or(all.len() / rows, |size| size.at(self.length));
                        let own = &mut self.outputs[i][slot];
                        own.clear();
                        own.extend_from_slice(&all[row * n..(row + 1) * n]);
                    }
                    stopped(slot);
                }
                if !halted || !self.drop_halted {
                    self.keep.push(row);
                }
            }
            self.drop_others()?;
        }
        Ok(max_steps)
    }

    /// Keeps these slots and frees all others.
    pub fn retain(&mut self, slots: &[usize]) -> Result<(), BackendError> {
        for (s, slot) in self.slots.iter_mut().enumerate() {
            if !slots.contains(&s) {
                *slot = SlotState::default();
            }
        }
        self.keep.clear();
        self.keep.extend((0..self.live.len()).filter(|&row| self.slots[self.live[row]].occupied));
        self.drop_others()
    }

    /// How the row in a slot stands.
    pub fn slot(&self, slot: usize) -> SlotState {
        self.slots[slot]
    }

    /// The `i`-th output of the row in a slot, `[tokens, features]`, as of its last step in the last advance.
    pub fn output(&self, i: usize, slot: usize) -> &[f32] {
        &self.outputs[i][slot]
    }

    /// See [`Engine::row_shape`].
    pub fn row_shape(&self, i: usize) -> Option<&[usize]> {
        self.engine.row_shape(i)
    }

    /// What is unknown once stays unknown.
    fn count(&mut self, flops: Option<f64>) {
        self.executed = self.executed.zip(flops).map(|(sum, more)| sum + more);
    }

    /// Errors: NaN, which says neither.
    fn says_halt(&self, row: usize) -> Result<bool, BackendError> {
        let Some(output) = self.halts_by else { return Ok(false) };
        let q = &self.engine.output(output)[row * 2..row * 2 + 2];
        let (read, halts) = match self.halting {
            Halting::Never => return Ok(false),
            Halting::Positive => (&q[..1], q[0] > 0.0),
            Halting::OverContinue => (q, q[0] > q[1]),
        };
        if read.iter().any(|v| v.is_nan()) {
            let steps = self.slots[self.live[row]].steps;
            return Err(BackendError::WrongOutput(format!(
                "a halting logit is NaN at step {steps}, which says neither to stop nor to go on"
            )));
        }
        Ok(halts)
    }

    /// Makes the engine keep the rows in `self.keep`.
    fn drop_others(&mut self) -> Result<(), BackendError> {
        if self.keep.len() < self.live.len() {
            self.engine.keep(&self.keep)?;
            for (to, &from) in self.keep.iter().enumerate() {
                self.live[to] = self.live[from];
            }
            self.live.truncate(self.keep.len());
        }
        Ok(())
    }
}

/// The token that logits speak for: index of the largest value, the first of equals. Of NaN it knows nothing: callers refuse it.
pub fn argmax(values: &[f32]) -> u32 {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = i;
        }
    }
    best as u32
}
