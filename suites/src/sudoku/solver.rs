//! Counts solutions up to two and rates difficulty.
//!
//! In: clues. Out: how many solutions, the first of them, and the guesses that finding them and proving that there are no others took.
//! Must not: search for ever (see [`MAX_GUESSES`]).
//!
//! The method is the plain one on purpose, because the rating is defined by it: naked and hidden singles until nothing follows, then a
//! branch on the cell with the fewest candidates (the first such cell in reading order); every branch tried is one guess. Ties make
//! the number of guesses depend a little on how a puzzle is turned.

use rand::Rng;
use rand::seq::SliceRandom;

use super::board::{Layout, MAX_CELLS, Size};

/// Guesses after which a search gives up. The hardest known 9x9 puzzles take some tens of thousands.
pub const MAX_GUESSES: u32 = 1_000_000;

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Solutions found: 0, 1, or 2 for two or more.
    pub solutions: u32,
    /// The first solution found, one digit a cell.
    pub solution: Option<Vec<u8>>,
    /// Branches tried.
    pub guesses: u32,
    /// The search gave up at [`MAX_GUESSES`]; `solutions` is then a lower bound.
    pub gave_up: bool,
}

/// Solves `clues` (0 for an empty cell, `side * side` of them). A wrong length or a digit out of range has no solution.
pub fn solve(size: Size, clues: &[u8]) -> Outcome {
    let mut search = Search::new(size, 2);
    if let Some(grid) = Grid::of_clues(size, clues) {
        search.run(grid, &mut |_| {});
    }
    search.outcome()
}

/// Whether `clues` with cell `without` emptied still leave only `digit` for that cell, given that they have one solution.
pub(super) fn is_redundant(size: Size, clues: &[u8], without: usize, digit: u8) -> bool {
    let mut search = Search::new(size, 1);
    let mut fewer = [0; MAX_CELLS];
    fewer[..clues.len()].copy_from_slice(clues);
    fewer[without] = 0;
    // A second solution would have another digit here, so it is enough to look for one of those.
    let grid = Grid::of_clues(size, &fewer[..clues.len()]);
    if let Some(grid) = grid.and_then(|mut g| g.bar(size, without, digit).then_some(g)) {
        search.run(grid, &mut |_| {});
    }
    search.solutions == 0 && !search.gave_up
}

/// A solved grid drawn at random (not exactly uniformly: a random walk through the solver's branches).
pub(super) fn random_solution<R: Rng>(size: Size, rng: &mut R) -> Vec<u8> {
    loop {
        let mut search = Search::new(size, 1);
        search.most_guesses = 10_000;
        search.run(Grid::empty(size), &mut |digits| digits.shuffle(rng));
        // Every size has solutions; an unlucky walk starts again.
        if let Some(solution) = search.outcome().solution {
            return solution;
        }
    }
}

struct Search {
    size: Size,
    wanted: u32,
    solutions: u32,
    first: [u8; MAX_CELLS],
    guesses: u32,
    most_guesses: u32,
    gave_up: bool,
}

impl Search {
    fn new(size: Size, wanted: u32) -> Self {
        let first = [0; MAX_CELLS];
        Self { size, wanted, solutions: 0, first, guesses: 0, most_guesses: MAX_GUESSES, gave_up: false }
    }

    fn outcome(self) -> Outcome {
        let solution = (self.solutions > 0).then(|| self.first[..self.size.cells()].to_vec());
        Outcome { solutions: self.solutions, solution, guesses: self.guesses, gave_up: self.gave_up }
    }

    /// Depth is at most the number of cells, since every level fills one. `order` arranges the digits of a branch.
    fn run(&mut self, mut grid: Grid, order: &mut impl FnMut(&mut [u16])) {
        if !grid.propagate(self.size) {
            return;
        }
        if grid.open == 0 {
            if self.solutions == 0 {
                for (digit, bit) in self.first.iter_mut().zip(grid.placed) {
                    *digit = if bit == 0 { 0 } else { bit.trailing_zeros() as u8 + 1 };
                }
            }
            self.solutions += 1;
            return;
        }
        let candidates = &grid.candidates[..self.size.cells()];
        let counts = candidates.iter().map(|c| if *c == 0 { u32::MAX } else { c.count_ones() });
        let Some((cell, _)) = counts.enumerate().min_by_key(|&(_, count)| count) else { return };
        let mut digits = [0; 9];
        let mut n = 0;
        let mut left = grid.candidates[cell];
        while left != 0 {
            digits[n] = left & left.wrapping_neg();
            left &= left - 1;
            n += 1;
        }
        order(&mut digits[..n]);
        for &digit in &digits[..n] {
            if self.guesses >= self.most_guesses {
                self.gave_up = true;
                return;
            }
            self.guesses += 1;
            let mut branch = grid;
            if branch.place(self.size.layout(), cell, digit) {
                self.run(branch, order);
            }
            if self.solutions >= self.wanted || self.gave_up {
                return;
            }
        }
    }
}

/// Digits are bits.
#[derive(Clone, Copy)]
struct Grid {
    /// What may still go into each open cell; 0 for a filled one.
    candidates: [u16; MAX_CELLS],
    /// What is in each filled cell; 0 for an open one.
    placed: [u16; MAX_CELLS],
    /// Open cells.
    open: u8,
}

impl Grid {
    fn empty(size: Size) -> Self {
        let mut candidates = [0; MAX_CELLS];
        candidates[..size.cells()].fill(size.all_digits());
        Grid { candidates, placed: [0; MAX_CELLS], open: size.cells() as u8 }
    }

    /// `None` if the clues contradict each other or are no clues of this size.
    fn of_clues(size: Size, clues: &[u8]) -> Option<Self> {
        if clues.len() != size.cells() || clues.iter().any(|&d| usize::from(d) > size.side()) {
            return None;
        }
        let mut grid = Grid::empty(size);
        for (cell, &digit) in clues.iter().enumerate().filter(|(_, d)| **d != 0) {
            let bit = 1 << (digit - 1);
            if grid.placed[cell] == bit {
                continue; // it followed already
            }
            if grid.candidates[cell] & bit == 0 || !grid.place(size.layout(), cell, bit) {
                return None;
            }
        }
        Some(grid)
    }

    /// Forbids `digit` at an open cell, or undoes the grid if the cell holds it already. False at a contradiction.
    fn bar(&mut self, size: Size, cell: usize, digit: u8) -> bool {
        let bit = 1 << (digit - 1);
        if self.placed[cell] != 0 {
            return self.placed[cell] != bit;
        }
        self.candidates[cell] &= !bit;
        match self.candidates[cell] {
            0 => false,
            left if left.is_power_of_two() => self.place(size.layout(), cell, left),
            _ => true,
        }
    }

    /// Fills a cell and every naked single that follows. False at a contradiction.
    #[inline]
    fn place(&mut self, layout: &Layout, cell: usize, bit: u16) -> bool {
        let mut waiting = [(0u8, 0u16); MAX_CELLS];
        waiting[0] = (cell as u8, bit);
        let mut n = 1;
        while n > 0 {
            n -= 1;
            let (cell, bit) = (usize::from(waiting[n].0), waiting[n].1);
            if self.placed[cell] != 0 {
                if self.placed[cell] != bit {
                    return false;
                }
                continue;
            }
            if self.candidates[cell] & bit == 0 {
                return false;
            }
            self.placed[cell] = bit;
            self.candidates[cell] = 0;
            self.open -= 1;
            for &peer in &layout.peers[cell] {
                let peer = usize::from(peer);
                if self.candidates[peer] & bit != 0 {
                    let left = self.candidates[peer] & !bit;
                    self.candidates[peer] = left;
                    if left == 0 {
                        return false;
                    }
                    if left.is_power_of_two() {
                        // A cell becomes single once, so each cell waits at most once.
                        waiting[n] = (peer as u8, left);
                        n += 1;
                    }
                }
            }
        }
        true
    }

    /// Fills hidden singles, and the naked ones that follow, until nothing follows. False at a contradiction.
    fn propagate(&mut self, size: Size) -> bool {
        let (layout, all) = (size.layout(), size.all_digits());
        loop {
            let before = self.open;
            for unit in &layout.units {
                let (mut once, mut twice, mut filled) = (0u16, 0u16, 0u16);
                for &cell in unit {
                    let candidates = self.candidates[usize::from(cell)];
                    twice |= once & candidates;
                    once |= candidates;
                    filled |= self.placed[usize::from(cell)];
                }
                if once | filled != all {
                    return false;
                }
                let hidden = once & !twice;
                if hidden == 0 {
                    continue;
                }
                for &cell in unit {
                    let cell = usize::from(cell);
                    let here = self.candidates[cell] & hidden;
                    if here != 0 && (!here.is_power_of_two() || !self.place(layout, cell, here)) {
                        return false;
                    }
                }
            }
            if self.open == before || self.open == 0 {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sudoku::board::is_solved;

    fn digits(text: &str) -> Vec<u8> {
        text.bytes().map(|b| if b == b'.' { 0 } else { b - b'0' }).collect()
    }

    #[test]
    fn a_known_puzzle_is_solved() {
        // Wikipedia's example of a Sudoku and its solution.
        let clues = digits("53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79");
        let found = solve(Size::Nine, &clues);
        let solution = digits("534678912672195348198342567859761423426853791713924856961537284287419635345286179");
        assert_eq!(found, Outcome { solutions: 1, solution: Some(solution), guesses: 0, gave_up: false });
    }

    #[test]
    fn a_famous_hard_puzzle_needs_guesses() {
        // Inkala's "AI Escargot", 2006.
        let clues = digits("1....7.9..3..2...8..96..5....53..9...1..8...26....4...3......1..4......7..7...3..");
        let found = solve(Size::Nine, &clues);
        assert_eq!(found.solutions, 1);
        assert!(is_solved(Size::Nine, found.solution.as_deref().unwrap_or_default()));
        assert!((10..=500).contains(&found.guesses), "{}", found.guesses);
    }

    #[test]
    fn no_solution_two_solutions_and_nonsense_are_told_apart() {
        let count = |clues: &[u8]| solve(Size::Four, clues).solutions;
        assert_eq!(count(&[0; 16]), 2);
        assert_eq!(count(&digits("1...1...........")), 0);
        assert_eq!(count(&digits("12..34.....4....")), count(&digits("12..34.....4....")));
        assert_eq!(count(&[0; 15]), 0);
        assert_eq!(count(&[7; 16]), 0);
    }

    #[test]
    fn counts_agree_with_plain_enumeration() {
        // Every 4x4 grid, by brute force over the 288 that exist.
        fn fill(grid: &mut Vec<u8>, all: &mut Vec<Vec<u8>>) {
            let Some(cell) = grid.iter().position(|&d| d == 0) else { return all.push(grid.clone()) };
            for digit in 1..=4 {
                if Size::Four.layout().peers[cell].iter().all(|&p| grid[usize::from(p)] != digit) {
                    grid[cell] = digit;
                    fill(grid, all);
                    grid[cell] = 0;
                }
            }
        }
        let mut all = Vec::new();
        fill(&mut vec![0; 16], &mut all);
        assert_eq!(all.len(), 288);
        for (seed, grid) in all.iter().enumerate() {
            // A fixed scatter of kept cells, a different one for every grid.
            let kept = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            let clues: Vec<u8> = (0..16).map(|c| if kept >> c & 1 == 1 { grid[c] } else { 0 }).collect();
            let fits = all.iter().filter(|g| g.iter().zip(&clues).all(|(g, c)| *c == 0 || g == c)).count();
            assert_eq!(solve(Size::Four, &clues).solutions as usize, fits.min(2), "{clues:?}");
        }
    }
}
