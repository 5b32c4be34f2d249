//! Some examples as rows of bytes.
//!
//! In: an [`ExampleSet`]. Out: a [`Chunk`] and the [`Shape`] that all chunks of a set share. Must not: write anything.

use anyhow::{Context, ensure};
use ergometer_suites::AnswerKind;
use ergometer_suites::task::{Example, ExampleSet};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What every example of a set has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Tokens of an input.
    pub cells: usize,
    /// Tokens of an answer.
    pub answer_cells: usize,
    /// Tokens are below this.
    pub vocabulary: u32,
    /// Puzzle ids are below this.
    pub puzzle_ids: u32,
    /// Which puzzle has which id.
    pub numbering: Option<String>,
}

impl Shape {
    /// Bytes of a token.
    pub fn width(&self) -> usize {
        match self.vocabulary {
            0..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 4,
        }
    }

    /// Whether examples have ids that say something.
    pub fn has_ids(&self) -> bool {
        self.puzzle_ids > 1
    }
}

/// Rows of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Little-endian, [`Shape::width`] bytes each.
    pub tokens: Vec<u8>,
    /// Likewise.
    pub answer: Vec<u8>,
    /// One a row.
    pub difficulty: Vec<u32>,
    /// One a row.
    pub puzzle_id: Vec<u32>,
}

impl Chunk {
    /// All of the examples.
    ///
    /// # Errors
    /// There is none; rows of unlike lengths, or tokens and ids out of range: a fault of the task.
    pub fn of(set: &ExampleSet) -> anyhow::Result<(Shape, Chunk)> {
        let first = set.examples.first().context("the task has no examples\nhint: change its parameters")?;
        let kind = first.answer.kind();
        ensure!(
            kind == AnswerKind::Tokens,
            "the task's answers are of kind {}, and a set holds tokens\nhint: name another task",
            kind.name()
        );
        let shape = Shape {
            cells: first.tokens.len(),
            answer_cells: first.answer.tokens().len(),
            vocabulary: set.vocabulary,
            puzzle_ids: set.puzzle_ids,
            numbering: set.numbering.clone(),
        };
        let mut chunk = Chunk::default();
        for (row, example) in set.examples.iter().enumerate() {
            let answer = example.answer.tokens();
            let fits = (example.tokens.len(), answer.len()) == (shape.cells, shape.answer_cells)
                && example.tokens.iter().chain(answer).all(|t| *t < shape.vocabulary)
                && example.puzzle_id < shape.puzzle_ids;
            ensure!(
                fits,
                "example {row} of the task is not of its shape {shape:?}\nhint: this is a fault of the program"
            );
            for (tokens, bytes) in [(&example.tokens[..], &mut chunk.tokens), (answer, &mut chunk.answer)] {
                tokens.iter().for_each(|t| bytes.extend(&t.to_le_bytes()[..shape.width()]));
            }
            chunk.difficulty.push(example.difficulty);
            chunk.puzzle_id.push(example.puzzle_id);
        }
        Ok((shape, chunk))
    }

    /// Its examples.
    pub fn rows(&self) -> usize {
        self.difficulty.len()
    }

    /// Whether every token and id is in the shape's range.
    pub fn within(&self, shape: &Shape) -> bool {
        let tokens = self.tokens.chunks(shape.width()).chain(self.answer.chunks(shape.width()));
        tokens.map(token).all(|t| t < shape.vocabulary) && self.puzzle_id.iter().all(|id| *id < shape.puzzle_ids)
    }

    /// What examples that ask the same have in common: the input and the puzzle's id.
    pub fn digest(&self, row: usize, shape: &Shape) -> [u8; 16] {
        let bytes = shape.cells * shape.width();
        let hash = Sha256::new_with_prefix(self.puzzle_id[row].to_le_bytes());
        let hash = hash.chain_update(&self.tokens[row * bytes..(row + 1) * bytes]).finalize();
        std::array::from_fn(|i| hash[i])
    }

    /// A row as the task knows it, as far as a set holds it.
    pub fn example(&self, row: usize, shape: &Shape) -> Example {
        let tokens = |bytes: &[u8], cells: usize| -> Vec<u32> {
            let row = &bytes[row * cells * shape.width()..(row + 1) * cells * shape.width()];
            row.chunks(shape.width()).map(token).collect()
        };
        Example {
            tokens: tokens(&self.tokens, shape.cells),
            answer: tokens(&self.answer, shape.answer_cells).into(),
            difficulty: self.difficulty[row],
            puzzle_id: self.puzzle_id[row],
            ..Example::default()
        }
    }
}

/// A little-endian number.
fn token(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte))
}
