//! Makes puzzles: a random solved grid, cells emptied in random order for as long as one solution remains.
//!
//! In: a size, a seed, what is wanted. Out: puzzles with one solution, the same for the same request. Must not: go on
//! for ever when the request can hardly be met.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use super::Puzzle;
use super::board::Size;
use super::solver;
use super::symmetry::{split_of, split_of_solution};
use crate::error::SuiteError;
use crate::task::Split;

/// Puzzles dug for one that is wanted before the generator gives up. For 9x9 that is a minute or so.
pub const MAX_TRIES: u32 = 20_000;

/// What puzzles are wanted. The default asks for minimal puzzles (no clue can be left out) of any difficulty on any
/// side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PuzzleOptions {
    /// Fewest and most clues; the number is drawn evenly, and a puzzle that cannot be dug so far is kept if it is
    /// within the range. `None`: minimal.
    pub clues: Option<(usize, usize)>,
    /// Fewest guesses.
    pub min_guesses: u32,
    /// Most guesses; `None`: any number.
    pub max_guesses: Option<u32>,
    /// Only this side of the split; `None`: both.
    pub split: Option<Split>,
}

impl PuzzleOptions {
    /// Errors: a request that no puzzle of this size can meet.
    pub fn check(&self, size: Size) -> Result<(), SuiteError> {
        let (side, least) = (size.side(), size.fewest_clues());
        if let Some((low, high)) = self.clues
            && (low > high || low > size.cells() || high < least)
        {
            return Err(SuiteError::new(format!("no {side}x{side} puzzle has {low} to {high} clues"))
                .at("`clues`")
                .hint(format!(
                    "write `clues = [fewest, most]` with most at least {least} and fewest at most {}",
                    size.cells()
                )));
        }
        let most = self.max_guesses.unwrap_or(u32::MAX);
        if self.min_guesses > most {
            return Err(SuiteError::new(format!("no number is from {} to {most}", self.min_guesses))
                .at("`min_guesses`")
                .hint("write `min_guesses` no larger than `max_guesses`"));
        }
        if size == Size::Four && self.min_guesses > 0 {
            return Err(SuiteError::new("no 4x4 puzzle needs a guess").at("`min_guesses`").hint("use 6x6 or 9x9"));
        }
        Ok(())
    }
}

/// An endless source of puzzles.
#[derive(Clone, Debug)]
pub struct Generator {
    size: Size,
    options: PuzzleOptions,
    rng: ChaCha8Rng,
}

impl Generator {
    /// Errors: see [`PuzzleOptions::check`].
    pub fn new(size: Size, seed: u64, options: PuzzleOptions) -> Result<Self, SuiteError> {
        options.check(size)?;
        Ok(Self { size, options, rng: ChaCha8Rng::seed_from_u64(seed) })
    }

    /// The next puzzle.
    ///
    /// Errors: none of [`MAX_TRIES`] puzzles is as wanted.
    pub fn next_puzzle(&mut self) -> Result<Puzzle, SuiteError> {
        for _ in 0..MAX_TRIES {
            if let Some(puzzle) = self.attempt() {
                return Ok(puzzle);
            }
        }
        let side = self.size.side();
        Err(SuiteError::new(format!("none of {MAX_TRIES} {side}x{side} puzzles made is as wanted: {:?}", self.options))
            .hint("ask for more clues, or for a wider range of guesses"))
    }

    fn attempt(&mut self) -> Option<Puzzle> {
        let PuzzleOptions { clues, min_guesses, max_guesses, split } = self.options;
        let size = self.size;
        let mut solution = solver::random_solution(size, &mut self.rng);
        // The side of 6x6 and 9x9 hangs on the solution alone: find one on that side before digging.
        let early = size != Size::Four;
        if let Some(split) = split.filter(|_| early) {
            while split != split_of_solution(size, &solution) {
                solution = solver::random_solution(size, &mut self.rng);
            }
        }
        let target = match clues {
            Some((low, high)) => {
                self.rng.random_range(low.max(size.fewest_clues())..=high.min(size.cells()).max(size.fewest_clues()))
            }
            None => 0,
        };
        let clues_left = dig(size, &solution, target, &mut self.rng);
        if clues.is_some_and(|(_, high)| clues_left.iter().filter(|d| **d != 0).count() > high) {
            return None;
        }
        let guesses = solver::solve(size, &clues_left).guesses;
        if guesses < min_guesses || max_guesses.is_some_and(|most| guesses > most) {
            return None;
        }
        let puzzle = Puzzle { size, clues: clues_left, solution, guesses };
        if !early && split.is_some_and(|s| s != split_of(&puzzle)) {
            return None;
        }
        Some(puzzle)
    }
}

/// Empties cells of `solution` in random order down to `target` clues, or as far as one solution remains.
fn dig<R: Rng>(size: Size, solution: &[u8], target: usize, rng: &mut R) -> Vec<u8> {
    let mut cells: Vec<usize> = (0..size.cells()).collect();
    cells.shuffle(rng);
    let mut clues = solution.to_vec();
    let mut left = clues.len();
    for cell in cells {
        if left <= target {
            break;
        }
        if solver::is_redundant(size, &clues, cell, solution[cell]) {
            clues[cell] = 0;
            left -= 1;
        }
    }
    clues
}
