//! By how much queries and keys turn: the angles of the positions of a call.
//!
//! In: a [`Rope`], positions. Out: cosines and sines as the kernels take them. Must not: turn anything.

use ergometer_kernels::HeadTurns;

use crate::graph::Rope;

/// How queries and keys of some layers turn, with the turns of the rows of a call.
pub(super) struct Rotation {
    rope: Rope,
    /// Radians a position of each pair.
    frequencies: Vec<f64>,
    /// Of each pair, row by row.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotation {
    /// Of heads of so many features.
    pub fn new(rope: &Rope, head_dim: usize) -> Self {
        Self { rope: rope.clone(), frequencies: rope.frequencies(head_dim), cos: Vec::new(), sin: Vec::new() }
    }

    /// Whether it turns as `rope` does.
    pub fn is(&self, rope: &Rope) -> bool {
        self.rope == *rope
    }

    /// Makes the turns of rows at these positions. Angles are computed in f64: those of far positions lose their digits else.
    pub fn at(&mut self, positions: &[usize]) {
        let magnitude = f64::from(self.rope.magnitude);
        self.cos.clear();
        self.sin.clear();
        for position in positions {
            for frequency in &self.frequencies {
                let (sin, cos) = (*position as f64 * frequency).sin_cos();
                self.cos.push((cos * magnitude) as f32);
                self.sin.push((sin * magnitude) as f32);
            }
        }
    }

    /// Those turns.
    pub fn turns(&self) -> HeadTurns<'_> {
        let (cos, sin, pairs) = (&self.cos, &self.sin, self.frequencies.len());
        HeadTurns { cos, sin, pairs, interleaved: self.rope.interleaved }
    }
}
