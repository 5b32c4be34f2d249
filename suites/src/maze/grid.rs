//! A maze: a square of walls and free cells with a start and a goal, in characters and in the released TRM's tokens.
//!
//! In: characters or tokens. Out: a [`MazeGrid`], the marks of an answer. Must not: look for a path.

use std::ops::RangeInclusive;

use crate::error::SuiteError;

/// Sides that a maze may have.
pub const SIDES: RangeInclusive<usize> = 5..=30;

/// What a cell is, as Maze-Hard's characters `# SGo`: the token is the place of its character, from 1; 0 is padding and
/// never used.
pub mod token {
    /// `#`
    pub const WALL: u32 = 1;
    /// A space.
    pub const FREE: u32 = 2;
    /// `S`
    pub const START: u32 = 3;
    /// `G`
    pub const GOAL: u32 = 4;
    /// `o`, of answers alone: a cell of the path between start and goal.
    pub const PATH: u32 = 5;
}

/// Number of tokens, padding included.
pub const VOCABULARY: u32 = 6;

/// The characters of the tokens from 1 on.
const CHARACTERS: [char; 5] = ['#', ' ', 'S', 'G', 'o'];

/// The character of a token; `?` for what is none.
pub fn character(token: u32) -> char {
    (token as usize).checked_sub(1).and_then(|i| CHARACTERS.get(i)).copied().unwrap_or('?')
}

/// A maze without a path in it: cells in reading order, the start and the goal free and apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MazeGrid {
    side: usize,
    walls: Vec<bool>,
    start: usize,
    goal: usize,
}

impl MazeGrid {
    /// Of these walls, `side * side` cells in reading order.
    ///
    /// # Errors
    /// A side that is not among [`SIDES`], a wrong number of cells, a start or goal outside, on a wall or on each
    /// other.
    pub fn new(side: usize, walls: Vec<bool>, start: usize, goal: usize) -> Result<Self, SuiteError> {
        if !SIDES.contains(&side) || walls.len() != side * side {
            return Err(wrong_size(walls.len()));
        }
        if start == goal || [start, goal].iter().any(|&c| walls.get(c) != Some(&false)) {
            return Err(SuiteError::new("start and goal are not two free cells").hint("give them two cells"));
        }
        Ok(Self { side, walls, start, goal })
    }

    /// From one character a cell. Marks of a path are taken for free cells; they are the second of what is given back,
    /// in ascending order.
    ///
    /// # Errors
    /// A number of cells that is no square of a side among [`SIDES`], another character, not one `S` and one `G`.
    pub fn parse(text: &str) -> Result<(Self, Vec<usize>), SuiteError> {
        let count = text.chars().count();
        let side = count.isqrt();
        if side * side != count || !SIDES.contains(&side) {
            return Err(wrong_size(count));
        }
        let place = |cell: usize| format!("row {}, column {}", cell / side + 1, cell % side + 1);
        let (mut walls, mut marks, mut ends) = (vec![false; count], Vec::new(), [None; 2]);
        for (cell, c) in text.chars().enumerate() {
            match c {
                '#' => walls[cell] = true,
                ' ' | '.' => {}
                'o' => marks.push(cell),
                'S' | 'G' => {
                    if let Some(first) = ends[usize::from(c == 'G')].replace(cell) {
                        return Err(SuiteError::new(format!(
                            "`{c}` stands twice: {} and {}",
                            place(first),
                            place(cell)
                        ))
                        .hint("a maze has one start `S` and one goal `G`"));
                    }
                }
                other => {
                    return Err(SuiteError::new(format!("{}: {other:?} is no cell", place(cell)))
                        .hint("`#` is a wall, a space or `.` a free cell, `S` the start, `G` the goal, `o` the path"));
                }
            }
        }
        let [Some(start), Some(goal)] = ends else {
            let lacks = if ends[0].is_none() { 'S' } else { 'G' };
            return Err(
                SuiteError::new(format!("there is no `{lacks}`")).hint("a maze has one start `S` and one goal `G`")
            );
        };
        Ok((Self { side, walls, start, goal }, marks))
    }

    /// Rows, and columns.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Where walls are, in reading order.
    pub fn walls(&self) -> &[bool] {
        &self.walls
    }

    /// Cell of the start.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Cell of the goal.
    pub fn goal(&self) -> usize {
        self.goal
    }

    /// The free cells beside a cell.
    pub fn free_beside(&self, cell: usize) -> impl Iterator<Item = usize> + '_ {
        beside(self.side, cell).filter(|&c| !self.walls[c])
    }

    /// Tokens of the maze with these cells marked.
    pub fn tokens(&self, marks: &[usize]) -> Vec<u32> {
        let mut tokens: Vec<u32> = self.walls.iter().map(|w| if *w { token::WALL } else { token::FREE }).collect();
        for &cell in marks {
            tokens[cell] = token::PATH;
        }
        tokens[self.start] = token::START;
        tokens[self.goal] = token::GOAL;
        tokens
    }

    /// The maze with the same walls and its ends elsewhere, for who knows that both are free and apart.
    pub(super) fn with_ends(&self, start: usize, goal: usize) -> Self {
        Self { start, goal, ..self.clone() }
    }

    /// The maze whose cell `i` is this one's cell `from[i]`, where `from` is a turn of the square.
    pub(super) fn turned(&self, from: &[usize]) -> Self {
        let to = |cell: usize| from.iter().position(|&f| f == cell).unwrap_or(cell);
        Self {
            side: self.side,
            walls: from.iter().map(|&f| self.walls[f]).collect(),
            start: to(self.start),
            goal: to(self.goal),
        }
    }
}

/// The cells above, below, left and right of one.
pub fn beside(side: usize, cell: usize) -> impl Iterator<Item = usize> {
    let (row, column) = (cell / side, cell % side);
    let inside = [
        (row > 0).then(|| cell - side),
        (row + 1 < side).then(|| cell + side),
        (column > 0).then(|| cell - 1),
        (column + 1 < side).then(|| cell + 1),
    ];
    inside.into_iter().flatten()
}

fn wrong_size(cells: usize) -> SuiteError {
    let (least, most) = (SIDES.start(), SIDES.end());
    SuiteError::new(format!("the maze has {cells} cells, not n x n with n from {least} to {most}")).hint(
        "cells are written one after another, row by row; a space is a free cell: were spaces at the ends taken away?",
    )
}
