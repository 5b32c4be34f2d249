//! The eight turns of a square, what stays the same under them, and the split into train and test that rests on it.
//!
//! In: walls. Out: turns, class numbers, the side of the split. Must not: look at start and goal, or keep any list of
//! mazes.

use std::cmp::Ordering;

use super::grid::MazeGrid;
use crate::hash::hash;
use crate::task::Split;

/// Part of the split: it must never change.
const SALT: u64 = 0x6d61_7a65;

/// The side of the split of every maze with these walls, turned or mirrored, wherever start and goal are.
pub fn split_of(side: usize, walls: &[bool]) -> Split {
    Split::of_hash(hash(SALT, [class(side, walls)]))
}

/// For each cell of a turned square the cell that it comes from. Turns 0 to 3 are quarter turns; 4 to 7 the same of the
/// transpose.
pub fn turn(side: usize, number: u32) -> Vec<usize> {
    let last = side - 1;
    (0..side * side)
        .map(|cell| {
            let (mut row, mut column) = (cell / side, cell % side);
            for _ in 0..number % 4 {
                (row, column) = (column, last - row);
            }
            if number & 4 != 0 { column * side + row } else { row * side + column }
        })
        .collect()
}

/// Number of the class of these walls: that of the least of their eight copies, cell by cell.
pub fn class(side: usize, walls: &[bool]) -> u64 {
    let turns: Vec<Vec<usize>> = (0..8).map(|number| turn(side, number)).collect();
    let copy = |t: &[usize]| t.iter().map(|&c| walls[c]).collect::<Vec<bool>>();
    let mut least = copy(&turns[0]);
    for t in &turns[1..] {
        if t.iter().map(|&c| walls[c]).cmp(least.iter().copied()) == Ordering::Less {
            least = copy(t);
        }
    }
    hash(side as u64, least.into_iter().map(u64::from))
}

/// The maze and the marks of its answer, turned; `swapped`: from the goal to the start.
pub fn copy(grid: &MazeGrid, marks: &[usize], number: u32, swapped: bool) -> (MazeGrid, Vec<usize>) {
    let from = turn(grid.side(), number);
    let mut to = vec![0; from.len()];
    from.iter().enumerate().for_each(|(cell, &f)| to[f] = cell);
    let turned = grid.turned(&from);
    let turned = if swapped { turned.with_ends(turned.goal(), turned.start()) } else { turned };
    let mut marks: Vec<usize> = marks.iter().map(|&m| to[m]).collect();
    marks.sort_unstable();
    (turned, marks)
}
