//! What mazes are solved without a model: by breadth-first search, and by walking towards the goal.
//!
//! In: mazes. Out: [`BaselineScore`]s, and what a search costs. Must not: see an answer but to compare with it.

use super::Maze;
use super::grid::MazeGrid;
use super::paths::shortest;
use crate::task::BaselineScore;

/// Both rules on these mazes: right is what marks the very cells of the answer.
pub fn baselines(mazes: &[Maze]) -> Vec<BaselineScore> {
    let score = |name: &str, marks: &dyn Fn(&MazeGrid) -> Option<Vec<usize>>| BaselineScore {
        name: name.to_owned(),
        right: mazes.iter().filter(|m| marks(&m.grid).as_ref() == Some(&m.path.marks)).count() as u64,
        of: mazes.len() as u64,
    };
    vec![
        score("breadth-first search", &|grid| shortest(grid).map(|path| path.marks)),
        score("walk towards the goal", &walk),
    ]
}

/// The marks of a walk that always goes on to the free cell nearest to the goal, in rows and columns, where it has not
/// been yet: up, else down, else left of those as near. `None`: it comes to a dead end.
pub fn walk(grid: &MazeGrid) -> Option<Vec<usize>> {
    let side = grid.side();
    let away = |cell: usize| (cell / side).abs_diff(grid.goal() / side) + (cell % side).abs_diff(grid.goal() % side);
    let mut been = vec![false; side * side];
    let (mut cell, mut marks) = (grid.start(), Vec::new());
    loop {
        been[cell] = true;
        cell = grid.free_beside(cell).filter(|&c| !been[c]).min_by_key(|&c| away(c))?;
        if cell == grid.goal() {
            marks.sort_unstable();
            return Some(marks);
        }
        marks.push(cell);
    }
}

/// Mean number of cells that breadth-first search looks at.
pub fn mean_visited(mazes: &[Maze]) -> f64 {
    let visited: usize = mazes.iter().map(|m| m.path.visited).sum();
    visited as f64 / mazes.len().max(1) as f64
}
