//! Endless training examples: fresh mazes of the train side, or symmetric copies of a pool of them.
//!
//! In: a training file's parameters, a seed. Out: [`Training`]. Must not: let a held-out maze, or a turned copy of one,
//! into training.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::generate::{MazeGenerator, MazeRequest};
use super::symmetry::{copy, split_of};
use super::{MAX_EXAMPLES, Maze, request};
use crate::error::SuiteError;
use crate::task::{Example, Split, Training};
use crate::toml_table::Keys;

/// Tells the stream that draws from the pool apart from the one that makes it.
const DRAWS: u64 = 0x6d61_7a65;

/// Fresh ones.
struct FreshMazes {
    generator: MazeGenerator,
    /// What was made to see that there are any, and after that what is given should the generator ever give up.
    latest: Maze,
    first: bool,
}

impl Training for FreshMazes {
    fn next_example(&mut self) -> Example {
        if !std::mem::take(&mut self.first)
            && let Ok(maze) = self.generator.next_maze()
        {
            self.latest = maze;
        }
        self.latest.example()
    }
}

struct MazePool {
    mazes: Vec<Maze>,
    rng: ChaCha8Rng,
}

impl Training for MazePool {
    fn next_example(&mut self) -> Example {
        let maze = &self.mazes[self.rng.random_range(0..self.mazes.len())];
        let (turn, swapped) = (self.rng.random_range(0..8), self.rng.random_range(0..2) == 1);
        let (grid, marks) = copy(&maze.grid, &maze.path.marks, turn, swapped);
        debug_assert_eq!(split_of(grid.side(), grid.walls()), Split::Train, "turned copies stay on their side");
        Example {
            tokens: grid.tokens(&[]),
            answer: grid.tokens(&marks).into(),
            difficulty: maze.path.steps,
            ..Example::default()
        }
    }
}

/// The parameters of generated mazes, and `puzzles`: the size of a pool of which random symmetric copies are drawn;
/// without it every example is a fresh maze.
///
/// # Errors
/// Keys that do not belong here, or a request that mazes cannot meet.
pub(super) fn training(parameters: &toml::Table, seed: u64) -> Result<Box<dyn Training>, SuiteError> {
    let keys = Keys::of_table(parameters).only(&["side", "min_path", "max_path", "puzzles"])?;
    let puzzles = keys.integer("puzzles", 1..=MAX_EXAMPLES)?;
    let mut generator = MazeGenerator::new(MazeRequest { split: Some(Split::Train), ..request(&keys)? }, seed)?;
    let Some(puzzles) = puzzles else {
        let latest = generator.next_maze()?;
        return Ok(Box::new(FreshMazes { generator, latest, first: true }));
    };
    let mazes = (0..puzzles).map(|_| generator.next_maze()).collect::<Result<_, _>>()?;
    Ok(Box::new(MazePool { mazes, rng: ChaCha8Rng::seed_from_u64(seed ^ DRAWS) }))
}
