//! Shortest paths by breadth-first search, how many there are, and what a marked answer is worth.
//!
//! In: a [`MazeGrid`]. Out: distances, counts, the path, whether marks are a path. Must not: believe that there is one
//! path, or one at all.

use super::grid::{MazeGrid, token};

/// What breadth-first search from a cell finds.
pub struct PathSearch {
    /// Steps to each cell; `None`: it is not reached.
    pub distances: Vec<Option<u32>>,
    /// Shortest paths to each cell, counted up to [`MANY`].
    pub counts: Vec<u32>,
    /// Cells that were looked at.
    pub visited: usize,
}

/// Where counting ends.
pub const MANY: u32 = 1_000_000;

/// Searches from a cell, up to all cells that are as far as `until`, or everywhere.
///
/// The number of shortest paths to a cell is the sum of those to its neighbours that are one step nearer.
pub fn search(grid: &MazeGrid, from: usize, until: Option<usize>) -> PathSearch {
    let mut distances: Vec<Option<u32>> = vec![None; grid.walls().len()];
    let mut counts = vec![0u32; distances.len()];
    (distances[from], counts[from]) = (Some(0), 1);
    let mut queue = vec![from];
    let mut at = 0;
    while let Some(&cell) = queue.get(at) {
        at += 1;
        // all that is as near as the last cell has been counted by the time that cell is looked at
        if until == Some(cell) {
            break;
        }
        let next = distances[cell].map_or(0, |d| d + 1);
        for other in grid.free_beside(cell) {
            match distances[other] {
                None => {
                    distances[other] = Some(next);
                    counts[other] = counts[cell];
                    queue.push(other);
                }
                Some(d) if d == next => counts[other] = (counts[other] + counts[cell]).min(MANY),
                Some(_) => {}
            }
        }
    }
    PathSearch { distances, counts, visited: at }
}

/// A shortest path from start to goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortestPath {
    /// Its cells between start and goal, in ascending order.
    pub marks: Vec<usize>,
    /// Steps from start to goal: one more than there are marks.
    pub steps: u32,
    /// How many paths are as short, counted up to [`MANY`].
    pub count: u32,
    /// Cells that the search looked at.
    pub visited: usize,
}

/// A shortest path, if there is a path: of several the one that goes up, else down, else left, seen from the goal.
pub fn shortest(grid: &MazeGrid) -> Option<ShortestPath> {
    let found = search(grid, grid.start(), Some(grid.goal()));
    let steps = found.distances[grid.goal()]?;
    let (mut marks, mut cell, mut distance) = (Vec::new(), grid.goal(), steps);
    while distance > 1 {
        distance -= 1;
        cell = grid.free_beside(cell).find(|&c| found.distances[c] == Some(distance))?;
        marks.push(cell);
    }
    marks.sort_unstable();
    Some(ShortestPath { marks, steps, count: found.counts[grid.goal()], visited: found.visited })
}

/// Whether these marks are a path from start to goal, of any length: all on free cells, and who follows them from the
/// start comes to the goal, never has a choice, and leaves none out. A path that touches itself is none, since marks do
/// not say which way it goes there.
pub fn is_path(grid: &MazeGrid, marks: &[usize]) -> bool {
    let mut on_it = vec![false; grid.walls().len()];
    for &cell in marks.iter().chain([&grid.start(), &grid.goal()]) {
        if grid.walls().get(cell) != Some(&false) || std::mem::replace(&mut on_it[cell], true) {
            return false;
        }
    }
    let (mut cell, mut before, mut left) = (grid.start(), None, marks.len() + 1);
    loop {
        let mut ways = grid.free_beside(cell).filter(|&c| on_it[c] && Some(c) != before);
        match (ways.next(), ways.next()) {
            // the goal is an end: nothing goes on from it, and nothing is left over
            (None, _) => return cell == grid.goal() && left == 0,
            (Some(next), None) if cell != grid.goal() && left > 0 => {
                before = Some(cell);
                cell = next;
                left -= 1;
            }
            _ => return false,
        }
    }
}

/// The marks of an answer to a question, both in tokens, if nothing but free cells was changed, and these to marks.
pub fn marked(question: &[u32], answer: &[u32]) -> Option<Vec<usize>> {
    let mut marks = Vec::new();
    for (cell, (asked, given)) in question.iter().zip(answer).enumerate() {
        match (*asked, *given) {
            (token::FREE, token::PATH) => marks.push(cell),
            (a, b) if a == b => {}
            _ => return None,
        }
    }
    (question.len() == answer.len()).then_some(marks)
}
