//! Endless training examples: random symmetric copies of a pool of puzzles of the train side.
//!
//! In: a training file's parameters, a seed. Out: [`Training`]. Must not: let a held-out puzzle, or a symmetric copy of
//! one, into training.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Generator, Puzzle, augment, options, split_of, tokens};
use crate::error::SuiteError;
use crate::task::{Example, Split, Training};
use crate::toml_table::Keys;

/// Most puzzles of a pool.
const MAX_POOL: u64 = 1_000_000;
/// Tells the stream that draws from the pool apart from the one that makes it.
const DRAWS: u64 = 0x7261_696e;

struct Pool {
    puzzles: Vec<Puzzle>,
    rng: ChaCha8Rng,
}

impl Training for Pool {
    fn next_example(&mut self) -> Example {
        let puzzle = augment(&self.puzzles[self.rng.random_range(0..self.puzzles.len())], &mut self.rng);
        debug_assert_eq!(split_of(&puzzle), Split::Train, "symmetric copies stay on their side");
        let (clues, answer) = (tokens(&puzzle.clues), tokens(&puzzle.solution));
        Example { tokens: clues, answer: answer.into(), difficulty: puzzle.guesses, ..Example::default() }
    }
}

/// The parameters of generated puzzles, and `puzzles`: the size of the pool.
///
/// Errors: keys that do not belong here, or a request that puzzles cannot meet.
pub(super) fn training(parameters: &toml::Table, seed: u64) -> Result<Box<dyn Training>, SuiteError> {
    let keys =
        Keys::of_table(parameters).only(&["size", "clues", "minimal", "min_guesses", "max_guesses", "puzzles"])?;
    let (size, options) = options(&keys)?;
    let puzzles = keys.need("puzzles", keys.integer("puzzles", 1..=MAX_POOL)?)?;
    let mut generator = Generator::new(size, seed, super::PuzzleOptions { split: Some(Split::Train), ..options })?;
    let puzzles = (0..puzzles).map(|_| generator.next_puzzle()).collect::<Result<_, _>>()?;
    Ok(Box::new(Pool { puzzles, rng: ChaCha8Rng::seed_from_u64(seed ^ DRAWS) }))
}
