//! Random grids for rules to work on.
//!
//! In: a random number generator and the largest side. Out: grids. Must not: know a rule.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::super::grid::Grid;

/// Where inputs come from.
#[derive(Clone, Debug)]
pub struct Draw {
    /// Of all random numbers.
    pub rng: ChaCha8Rng,
    /// Most rows and columns, 5 or more.
    pub max_side: usize,
}

impl Draw {
    /// A whole number from `low` to `high`; `low` if there is none.
    pub fn number(&mut self, low: usize, high: usize) -> usize {
        self.rng.random_range(low..=high.max(low))
    }

    /// Height and width, 3 or more each.
    pub fn size(&mut self) -> (usize, usize) {
        (self.number(3, self.max_side), self.number(3, self.max_side))
    }

    /// So many colours of 1 to 9, all different, none of `without`.
    pub fn palette(&mut self, count: usize, without: &[u8]) -> Vec<u8> {
        let mut colours: Vec<u8> = (1..10).filter(|c| !without.contains(c)).collect();
        colours.shuffle(&mut self.rng);
        colours.truncate(count.max(1));
        colours
    }

    /// One of these; the background if there are none.
    pub fn one_of(&mut self, colours: &[u8]) -> u8 {
        if colours.is_empty() { 0 } else { colours[self.number(0, colours.len() - 1)] }
    }

    /// Each cell is of one of the colours in `percent` of 100 cases, else background.
    pub fn noise(&mut self, height: usize, width: usize, percent: usize, colours: &[u8]) -> Option<Grid> {
        Grid::from_fn(height, width, |_, _| if self.number(1, 100) <= percent { self.one_of(colours) } else { 0 })
    }

    /// Two to four colours on 25 to 60 % of the cells.
    pub fn scattered(&mut self) -> Option<Grid> {
        let ((height, width), count) = (self.size(), self.number(2, 4));
        let (colours, percent) = (self.palette(count, &[]), self.number(25, 60));
        self.noise(height, width, percent, &colours)
    }

    /// One to three colours on 8 to 20 % of the cells.
    pub fn sparse(&mut self) -> Option<Grid> {
        let ((height, width), count) = (self.size(), self.number(1, 3));
        let (colours, percent) = (self.palette(count, &[]), self.number(8, 20));
        self.noise(height, width, percent, &colours)
    }

    /// Up to `count` full rectangles of `low` to `high` rows and columns, each of one of the colours, that touch each
    /// other nowhere, not even at corners.
    pub fn rectangles(&mut self, count: usize, (low, high): (usize, usize), colours: &[u8]) -> Option<Grid> {
        let (height, width) = self.size();
        let mut grid = Grid::from_fn(height, width, |_, _| 0)?;
        for _ in 0..count {
            let (h, w) = (self.number(low, high.min(height)), self.number(low, high.min(width)));
            if h > height || w > width {
                continue;
            }
            let (top, left) = (self.number(0, height - h), self.number(0, width - w));
            let near = |r: usize, c: usize| r + 1 >= top && r <= top + h && c + 1 >= left && c <= left + w;
            let within = |r: usize, c: usize| (top..top + h).contains(&r) && (left..left + w).contains(&c);
            let free = (0..height).all(|r| (0..width).all(|c| !near(r, c) || grid.at(r, c) == 0));
            if free {
                let colour = self.one_of(colours);
                grid = grid.map(|r, c| if within(r, c) { colour } else { grid.at(r, c) });
            }
        }
        Some(grid)
    }
}
