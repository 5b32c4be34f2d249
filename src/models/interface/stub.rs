//! A model for tests that no graph describes: two inputs in an unusual order, rows of any length, halting before logits.
//!
//! In: tokens and puzzle identifiers. Out: an [`Interface`], and an [`Engine`] that keeps it. Must not: be what anything else relies on: it
//! stands for files and programs whose inside is not known here.
//!
//! After step `k` a row's answer is each of its tokens plus its puzzle identifier plus `k`, modulo the vocabulary; it halts after the step
//! whose number is its puzzle identifier plus one.

use std::sync::Arc;

use super::{ElementType, Interface, Length, Port, PortRole, Rows};
use crate::backends::{BackendError, Engine, Facts};
use crate::graph::Halting;
use crate::models::{Model, TrainingRecord};

/// Tokens that it knows.
pub const VOCABULARY: usize = 7;
/// Longest row.
pub const LONGEST: usize = 5;

/// What it takes and gives, its length left open.
pub fn open() -> Interface {
    let port = |name: &str, role, elements, length, features| Port {
        name: name.into(),
        role,
        elements,
        length,
        features,
        kind: None,
        shape: Vec::new(),
    };
    let open = || Length::Symbolic("seq".into());
    Interface {
        inputs: vec![
            port("which", PortRole::PuzzleId, ElementType::Index { below: 4 }, Length::Fixed(1), 1),
            port("text", PortRole::Tokens, ElementType::Index { below: VOCABULARY }, open(), 1),
        ],
        outputs: vec![
            port("stop", PortRole::Halting, ElementType::Float, Length::Fixed(1), 2),
            port("scores", PortRole::Logits, ElementType::Float, open(), VOCABULARY),
        ],
        states: vec![port("steps", PortRole::State, ElementType::Float, Length::Fixed(1), 1)],
        halting: Halting::Positive,
        max_steps: 4,
        rows: Rows::Any,
        sequences: false,
    }
}

/// The same, its length that of each call.
pub fn interface() -> Interface {
    open().per_call("seq", LONGEST)
}

/// A model of it, which has no graph.
pub fn model() -> Model {
    let params = Arc::new(Vec::new());
    Model {
        path: "stub".into(),
        hash: "0".repeat(64),
        interface: interface(),
        graph: None,
        file: None,
        language: None,
        training: TrainingRecord::default(),
        params,
    }
}

/// What it answers after a step.
pub fn answer(tokens: &[u32], puzzle_id: u32, step: u32) -> Vec<u32> {
    tokens.iter().map(|t| (t + puzzle_id + step) % VOCABULARY as u32).collect()
}

struct Row {
    tokens: Vec<u32>,
    puzzle_id: u32,
    steps: f32,
}

/// Its engine.
#[derive(Default)]
pub struct Stub {
    rows: Vec<Row>,
    outputs: [Vec<f32>; 2],
}

impl Engine for Stub {
    fn facts(&self) -> Facts {
        Facts::default()
    }

    fn admit(&mut self, at: usize, n: usize, inputs: &[&[u32]]) -> Result<(), BackendError> {
        let [ids, tokens] = inputs else { panic!("{} inputs", inputs.len()) };
        self.rows.truncate(at);
        let length = tokens.len() / n.max(1);
        let row = |row: usize| Row {
            tokens: tokens[row * length..(row + 1) * length].to_vec(),
            puzzle_id: ids[row],
            steps: 0.0,
        };
        self.rows.extend((0..n).map(row));
        Ok(())
    }

    fn step(&mut self, rows: usize) -> Result<(), BackendError> {
        let [stop, scores] = &mut self.outputs;
        stop.clear();
        scores.clear();
        for row in &mut self.rows[..rows] {
            row.steps += 1.0;
            stop.extend([row.steps - row.puzzle_id as f32 - 0.5, 0.0]);
            for token in answer(&row.tokens, row.puzzle_id, row.steps as u32) {
                scores.extend((0..VOCABULARY as u32).map(|t| if t == token { 1.0 } else { 0.0 }));
            }
        }
        Ok(())
    }

    fn output(&self, i: usize) -> &[f32] {
        &self.outputs[i]
    }

    fn keep(&mut self, keep: &[usize]) -> Result<(), BackendError> {
        let mut row = 0;
        self.rows.retain(|_| {
            row += 1;
            keep.contains(&(row - 1))
        });
        Ok(())
    }

    fn state(&self, _: usize, rows: usize) -> Result<Vec<f32>, BackendError> {
        Ok(self.rows[..rows].iter().map(|row| row.steps).collect())
    }

    fn set_state(&mut self, _: usize, rows: usize, values: &[f32]) -> Result<(), BackendError> {
        self.rows[..rows].iter_mut().zip(values).for_each(|(row, steps)| row.steps = *steps);
        Ok(())
    }

    fn flops_executed(&self, _: usize) -> Option<f64> {
        None
    }

    fn flops_admitted(&self, _: usize) -> Option<f64> {
        None
    }
}
