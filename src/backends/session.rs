//! A session: an engine's rows seen as slots, with admit, advance and retain.
//!
//! In: an [`Engine`], inputs, a [`Rule`]. Out: for every slot its outputs after the steps it used. Must not: know a task or time anything.
//!
//! Rows that have halted are dropped from the engine at once (they stop costing), their outputs stay in their slots. Because rows are
//! independent this equals a run that drops nothing; `drop_halted = false` is there to prove it.

use super::{BackendError, Engine};
use crate::graph::{Graph, Halting};

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

/// A model loaded by a backend.
pub struct Session {
    engine: Box<dyn Engine>,
    halting: Halting,
    input_tokens: Vec<usize>,
    input_rows: Vec<usize>,
    output_len: Vec<usize>,
    /// Slot of each live engine row.
    live: Vec<usize>,
    slots: Vec<SlotState>,
    /// `outputs[i]`: the `i`-th output of every slot.
    outputs: Vec<Vec<f32>>,
    keep: Vec<usize>,
    drop_halted: bool,
    executed: Option<f64>,
}

impl Session {
    /// A session of `capacity` slots over an engine that was loaded with that capacity.
    pub fn new(engine: Box<dyn Engine>, graph: &Graph, capacity: usize) -> Self {
        let output_len: Vec<usize> = graph.outputs.iter().map(|o| o.ty.elements()).collect();
        Self {
            engine,
            halting: graph.halting,
            input_tokens: graph.inputs.iter().map(|i| i.ty.elements()).collect(),
            input_rows: graph.inputs.iter().map(|i| i.rows).collect(),
            outputs: output_len.iter().map(|n| vec![0.0; n * capacity]).collect(),
            output_len,
            live: Vec::with_capacity(capacity),
            slots: vec![SlotState::default(); capacity],
            keep: Vec::with_capacity(capacity),
            drop_halted: true,
            executed: Some(0.0),
        }
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

    /// Puts rows into free slots. `inputs[i]` is `[slots.len(), tokens]` of the graph's `i`-th input.
    pub fn admit(&mut self, slots: &[usize], inputs: &[&[u32]]) -> Result<(), BackendError> {
        let n = slots.len();
        for (i, input) in inputs.iter().enumerate() {
            if input.len() != n * self.input_tokens[i] {
                return Err(BackendError::Failed(format!(
                    "input {i} has {} indices, {n} rows of {} are needed",
                    input.len(),
                    self.input_tokens[i]
                )));
            }
            if let Some(&index) = input.iter().find(|&&v| v as usize >= self.input_rows[i]) {
                return Err(BackendError::Failed(format!(
                    "input {i} holds index {index}, the model's table has {} rows",
                    self.input_rows[i]
                )));
            }
        }
        if inputs.len() != self.input_tokens.len() {
            return Err(BackendError::Failed(format!(
                "{} inputs, the graph takes {}",
                inputs.len(),
                self.input_tokens.len()
            )));
        }
        for &s in slots {
            if self.slots.get(s).is_none_or(|slot| slot.occupied) {
                return Err(BackendError::Failed(format!("slot {s} of {} is not free", self.slots.len())));
            }
            self.slots[s] = SlotState { occupied: true, ..SlotState::default() };
        }
        self.engine.admit(self.live.len(), n, inputs)?;
        self.count(self.engine.flops_admitted(n));
        self.live.extend_from_slice(slots);
        Ok(())
    }

    /// Runs live rows for at most `max_steps` further steps each; states stay in the backend. Afterwards [`slot`](Self::slot) and
    /// [`output`](Self::output) tell how each row stands. Gives the number of steps that the engine made.
    pub fn advance(&mut self, max_steps: u32, rule: Rule) -> Result<u32, BackendError> {
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
                let halted = halts && self.says_halt(row);
                self.slots[slot].halted = halted;
                if halted || step == max_steps {
                    for (i, &n) in self.output_len.iter().enumerate() {
                        self.outputs[i][slot * n..(slot + 1) * n]
                            .copy_from_slice(&self.engine.output(i)[row * n..(row + 1) * n]);
                    }
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
        let n = self.output_len[i];
        &self.outputs[i][slot * n..(slot + 1) * n]
    }

    /// What is unknown once stays unknown.
    fn count(&mut self, flops: Option<f64>) {
        self.executed = self.executed.zip(flops).map(|(sum, more)| sum + more);
    }

    fn says_halt(&self, row: usize) -> bool {
        let q = &self.engine.output(1)[row * 2..row * 2 + 2];
        match self.halting {
            Halting::Never => false,
            Halting::Positive => q[0] > 0.0,
            Halting::OverContinue => q[0] > q[1],
        }
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

/// The token that logits speak for: index of the largest value, the first of equals.
pub fn argmax(values: &[f32]) -> u32 {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = i;
        }
    }
    best as u32
}
