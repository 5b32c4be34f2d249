//! How a copy of a task is made: a turn and a permutation of the colours 1 to 9, in one number.
//!
//! In: numbers, or a random number generator. Out: [`TaskVariant`]s and what they make of grids. Must not: move colour
//! 0, which is the background in nearly every task.

use rand::Rng;
use rand::seq::SliceRandom;

use super::grid::{Grid, inverse};

/// Permutations of nine colours.
const PERMUTATIONS: u32 = 362_880;

/// A turn, then a permutation of colours 1 to 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskVariant {
    dihedral: u32,
    /// Colour that each becomes; that of 0 is 0.
    colours: [u8; 10],
}

impl TaskVariant {
    /// A turn alone; taken modulo 8.
    pub fn turn(dihedral: u32) -> TaskVariant {
        TaskVariant { dihedral: dihedral % 8, colours: std::array::from_fn(|c| c as u8) }
    }

    /// Any of them, all equally likely.
    pub fn random<R: Rng>(rng: &mut R) -> TaskVariant {
        let mut variant = TaskVariant::turn(rng.next_u32());
        variant.colours[1..].shuffle(rng);
        variant
    }

    /// The turn, as [`Grid::turned`] numbers it.
    pub fn dihedral(&self) -> u32 {
        self.dihedral
    }

    /// What a colour becomes; 0 for what is none.
    pub fn colour(&self, colour: u8) -> u8 {
        self.colours.get(usize::from(colour)).copied().unwrap_or(0)
    }

    /// What [`Example::variant`](crate::task::Example::variant) holds: rank of the permutation in lexicographic order
    /// times 8, plus the turn.
    pub fn code(self) -> u32 {
        let mut rank = 0;
        for i in 1..10 {
            let smaller = self.colours[i + 1..].iter().filter(|&&c| c < self.colours[i]).count() as u32;
            rank = rank * (10 - i as u32) + smaller;
        }
        rank * 8 + self.dihedral
    }

    /// The variant of a code; `None` if there is none.
    pub fn of_code(code: u32) -> Option<TaskVariant> {
        let (mut rank, dihedral) = (code / 8, code % 8);
        if rank >= PERMUTATIONS {
            return None;
        }
        let mut digits = [0; 9];
        for (i, digit) in digits.iter_mut().enumerate().rev() {
            *digit = (rank % (9 - i as u32)) as usize;
            rank /= 9 - i as u32;
        }
        let mut left: Vec<u8> = (1..10).collect();
        let mut colours = [0; 10];
        for (colour, digit) in colours[1..].iter_mut().zip(digits) {
            *colour = left.remove(digit);
        }
        Some(TaskVariant { dihedral, colours })
    }

    /// The copy.
    pub fn apply(&self, grid: &Grid) -> Grid {
        grid.turned(self.dihedral).recolour(|c| self.colour(c))
    }

    /// What the copy was made from.
    pub fn undo(&self, grid: &Grid) -> Grid {
        let back = |colour: u8| self.colours.iter().position(|&c| c == colour).unwrap_or(0) as u8;
        grid.recolour(back).turned(inverse(self.dihedral))
    }
}
