//! Makes mazes: corridors that grow into a square of walls, some walls opened for loops, start and goal where the
//! shortest path is the only one.
//!
//! In: a side, a seed, what is wanted. Out: mazes with one shortest path, the same for the same request on every
//! machine. Must not: go on for ever when the request can hardly be met.

use rand::RngExt;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Maze;
use super::grid::{MazeGrid, SIDES, beside};
use super::paths::{PathSearch, search, shortest};
use super::symmetry::split_of;
use crate::error::SuiteError;
use crate::task::Split;

/// Mazes made for one that is wanted before the generator gives up. For 30x30 that is some seconds.
pub const MAX_TRIES: u32 = 20_000;
/// Corridors grow from their newest end in one to seven of so many steps, the same for a whole maze, else from
/// anywhere: the more, the longer its corridors.
const TEXTURES: u32 = 8;
/// Of so many cells at most one is a wall that is opened for a loop.
const CELLS_PER_LOOP: usize = 20;

/// What mazes are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MazeRequest {
    /// Rows, and columns; among [`SIDES`].
    pub side: usize,
    /// Fewest steps of the shortest path, 2 or more.
    pub min_path: u32,
    /// Most steps; `None`: any number.
    pub max_path: Option<u32>,
    /// Only this side of the split; `None`: both.
    pub split: Option<Split>,
}

impl MazeRequest {
    /// Mazes of this side with a path of at least as many steps.
    pub fn of(side: usize) -> Self {
        Self { side, min_path: side as u32, max_path: None, split: None }
    }

    /// More steps no shortest path has: of four cells in a square it meets three at most, since all four would be a
    /// detour.
    fn longest(&self) -> u32 {
        let (squares, odd) = (self.side / 2, self.side % 2);
        (3 * squares * squares + odd * (2 * self.side - 1) - 1) as u32
    }

    /// # Errors
    /// A request that no maze can meet.
    pub fn check(&self) -> Result<(), SuiteError> {
        let most = self.max_path.unwrap_or(u32::MAX);
        if self.min_path > most {
            return Err(SuiteError::new(format!("no number is from {} to {most}", self.min_path))
                .at("`min_path`")
                .hint(format!(
                    "write `min_path` no larger than `max_path`; without `min_path` it is the side, {}",
                    self.side
                )));
        }
        if !SIDES.contains(&self.side) {
            return Err(SuiteError::new(format!("no maze has the side {}", self.side)).at("`side`").hint(format!(
                "write a side from {} to {}",
                SIDES.start(),
                SIDES.end()
            )));
        }
        let (side, longest) = (self.side, self.longest());
        if self.min_path > longest {
            return Err(SuiteError::new(format!(
                "no {side}x{side} maze has a shortest path of {} steps",
                self.min_path
            ))
            .at("`min_path`")
            .hint(format!("write {longest} at the very most, and less for mazes that are easily found")));
        }
        Ok(())
    }
}

/// An endless source of mazes.
#[derive(Clone, Debug)]
pub struct MazeGenerator {
    request: MazeRequest,
    rng: ChaCha8Rng,
}

impl MazeGenerator {
    /// # Errors
    /// See [`MazeRequest::check`].
    pub fn new(request: MazeRequest, seed: u64) -> Result<Self, SuiteError> {
        request.check()?;
        Ok(Self { request, rng: ChaCha8Rng::seed_from_u64(seed) })
    }

    /// The next maze.
    ///
    /// # Errors
    /// None of [`MAX_TRIES`] mazes has a path as wanted, or none of ten times as many on the side that is wanted.
    pub fn next_maze(&mut self) -> Result<Maze, SuiteError> {
        let (mut short, mut elsewhere) = (0, 0);
        while short < MAX_TRIES && elsewhere < 10 * MAX_TRIES {
            match self.attempt() {
                None => short += 1,
                Some(maze) => {
                    let MazeRequest { side, split, .. } = self.request;
                    if split.is_none_or(|wanted| wanted == split_of(side, maze.grid.walls())) {
                        return Ok(maze);
                    }
                    elsewhere += 1;
                }
            }
        }
        let MazeRequest { side, min_path, max_path, .. } = self.request;
        let steps = max_path.map_or_else(|| format!("{min_path} or more"), |most| format!("{min_path} to {most}"));
        let made = short + elsewhere;
        Err(SuiteError::new(format!("none of {made} {side}x{side} mazes made has a shortest path of {steps} steps"))
            .at("`min_path`")
            .hint("ask for shorter paths, a wider range or a larger side"))
    }

    /// A maze of either side of the split, or none if these walls have no such path from where it is looked for.
    fn attempt(&mut self) -> Option<Maze> {
        let MazeRequest { side, min_path, max_path, .. } = self.request;
        let rng = &mut self.rng;
        let walls = carved(side, rng);
        let free: Vec<usize> = (0..walls.len()).filter(|&c| !walls[c]).collect();
        let start = free[rng.random_range(0..free.len())];
        let other = free.iter().copied().find(|&c| c != start)?;
        let grid = MazeGrid::new(side, walls, start, other).ok()?;
        let wanted = min_path..=max_path.unwrap_or(u32::MAX);
        let goals = |found: &PathSearch| -> Vec<(u32, usize)> {
            let one = free.iter().filter(|&&c| found.counts[c] == 1);
            let mut goals: Vec<_> = one.filter_map(|&c| Some((found.distances[c]?, c))).collect();
            goals.retain(|(steps, _)| wanted.contains(steps));
            goals.sort_unstable();
            goals
        };
        let found = search(&grid, start, None);
        let (mut start, mut goals_there) = (start, goals(&found));
        if goals_there.is_empty() {
            // of long paths there are most from a cell that is far from another
            start = free.iter().copied().max_by_key(|&c| found.distances[c])?;
            goals_there = goals(&search(&grid, start, None));
        }
        // every length that there is is as likely, and every goal of that length
        let mut lengths: Vec<u32> = goals_there.iter().map(|goal| goal.0).collect();
        lengths.dedup();
        if lengths.is_empty() {
            return None;
        }
        let length = lengths[rng.random_range(0..lengths.len())];
        goals_there.retain(|goal| goal.0 == length);
        let (_, goal) = goals_there[rng.random_range(0..goals_there.len())];
        let grid = grid.with_ends(start, goal);
        let path = shortest(&grid)?;
        Some(Maze { grid, path })
    }
}

/// Walls of a maze all of whose free cells hang together.
fn carved(side: usize, rng: &mut ChaCha8Rng) -> Vec<bool> {
    let cells = side * side;
    let mut walls = vec![true; cells];
    let free_beside = |walls: &[bool], cell: usize| beside(side, cell).filter(|&c| !walls[c]).count();
    let newest = rng.random_range(1..TEXTURES);
    let mut growing = vec![rng.random_range(0..cells)];
    walls[growing[0]] = false;
    while !growing.is_empty() {
        let from_newest = rng.random_range(0..TEXTURES) < newest;
        let at = if from_newest { growing.len() - 1 } else { rng.random_range(0..growing.len()) };
        // a cell that touches one free cell alone makes no loop
        let next: Vec<usize> = beside(side, growing[at]).filter(|&c| walls[c] && free_beside(&walls, c) == 1).collect();
        if next.is_empty() {
            growing.remove(at);
            continue;
        }
        let cell = next[rng.random_range(0..next.len())];
        walls[cell] = false;
        growing.push(cell);
    }
    let mut between: Vec<usize> = (0..cells).filter(|&c| walls[c] && free_beside(&walls, c) >= 2).collect();
    between.shuffle(rng);
    let loops = rng.random_range(0..=cells / CELLS_PER_LOOP);
    for cell in between.into_iter().take(loops) {
        walls[cell] = false;
    }
    walls
}
