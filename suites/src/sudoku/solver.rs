//! Counts solutions up to two and rates difficulty.
//!
//! In: clues. Out: how many solutions, the first of them, and the guesses that finding them and proving that there are
//! no others took. Must not: search for ever (see [`MAX_GUESSES`]).
//!
//! The method is the plain one on purpose, because the rating is defined by it: naked and hidden singles until nothing
//! follows, then a branch on the cell with the fewest candidates (the first such cell in reading order); every branch
//! tried is one guess. Ties make the number of guesses depend a little on how a puzzle is turned.

use rand::Rng;
use rand::seq::SliceRandom;

use super::board::{Board, BoardLayout, DIGITS, MAX_CELLS, Size};

/// Guesses after which a search gives up. The hardest known 9x9 puzzles take some tens of thousands.
pub const MAX_GUESSES: u32 = 1_000_000;

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SolveOutcome {
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
pub fn solve(size: Size, clues: &[u8]) -> SolveOutcome {
    let mut search = Search::new(size, 2);
    if let Some(grid) = Grid::of_clues(size, clues) {
        search.run(grid, &mut |_| {});
    }
    search.outcome()
}

/// Whether `clues` with cell `without` emptied still leave only `digit` for that cell, given that they have one
/// solution.
pub(super) fn is_redundant(size: Size, clues: &[u8], without: usize, digit: u8) -> bool {
    let mut search = Search::new(size, 1);
    let mut fewer = [0; MAX_CELLS];
    fewer[..clues.len()].copy_from_slice(clues);
    fewer[without] = 0;
    // A second solution would have another digit here, so it is enough to look for one of those.
    if let Some(mut grid) = Grid::of_clues(size, &fewer[..clues.len()]) {
        grid.candidates[usize::from(digit) - 1] &= !(1 << without);
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

    fn outcome(self) -> SolveOutcome {
        let solution = (self.solutions > 0).then(|| self.first[..self.size.cells()].to_vec());
        SolveOutcome { solutions: self.solutions, solution, guesses: self.guesses, gave_up: self.gave_up }
    }

    /// Depth is at most the number of cells, since every level fills one. `order` arranges the digits of a branch.
    fn run(&mut self, mut grid: Grid, order: &mut impl FnMut(&mut [u8])) {
        let layout = self.size.layout();
        if !grid.propagate(layout) {
            return;
        }
        if grid.open == 0 {
            if self.solutions == 0 {
                for (digit, cells) in (1..).zip(grid.candidates) {
                    each(cells, |cell| self.first[cell] = digit);
                }
            }
            self.solutions += 1;
            return;
        }
        let cell = grid.fewest_candidates();
        let mut digits = [0; DIGITS];
        let mut n = 0;
        for (digit, cells) in (0..).zip(grid.candidates) {
            if cells >> cell & 1 == 1 {
                digits[n] = digit;
                n += 1;
            }
        }
        order(&mut digits[..n]);
        for &digit in &digits[..n] {
            if self.guesses >= self.most_guesses {
                self.gave_up = true;
                return;
            }
            self.guesses += 1;
            let mut branch = grid;
            branch.place(layout, cell, usize::from(digit));
            self.run(branch, order);
            if self.solutions >= self.wanted || self.gave_up {
                return;
            }
        }
    }
}

/// Calls `f` with each cell of a board.
fn each(mut cells: Board, mut f: impl FnMut(usize)) {
    while cells != 0 {
        f(cells.trailing_zeros() as usize);
        cells &= cells - 1;
    }
}

/// One board a digit, one bit a cell. What contradicts the rules is found by [`Grid::propagate`].
#[derive(Clone, Copy)]
struct Grid {
    /// Where each digit may still go, and where it is.
    candidates: [Board; DIGITS],
    /// Cells that are not filled.
    open: Board,
    /// Digits whose units are to be looked through, as bits.
    changed: u16,
}

impl Grid {
    fn empty(size: Size) -> Self {
        let mut candidates = [0; DIGITS];
        candidates[..size.side()].fill(size.layout().all);
        Grid { candidates, open: size.layout().all, changed: size.all_digits() }
    }

    /// `None` if these are no clues of this size, or two that see each other are the same.
    fn of_clues(size: Size, clues: &[u8]) -> Option<Self> {
        if clues.len() != size.cells() || clues.iter().any(|&d| usize::from(d) > size.side()) {
            return None;
        }
        let mut grid = Grid::empty(size);
        let mut placed = [0; DIGITS];
        for (cell, &digit) in clues.iter().enumerate().filter(|(_, d)| **d != 0) {
            let digit = usize::from(digit) - 1;
            placed[digit] |= 1 << cell;
            grid.open &= !(1 << cell);
            grid.candidates[digit] &= !size.layout().peer_boards[cell];
        }
        for (candidates, placed) in grid.candidates.iter_mut().zip(placed) {
            if *candidates & placed != placed {
                return None;
            }
            *candidates &= grid.open | placed;
        }
        Some(grid)
    }

    /// Fills a cell with a digit counted from 0.
    fn place(&mut self, layout: &BoardLayout, cell: usize, digit: usize) {
        let bit = 1 << cell;
        for (other, candidates) in self.candidates.iter_mut().enumerate() {
            if *candidates & bit != 0 {
                self.changed |= 1 << other;
                if other != digit {
                    *candidates &= !bit;
                }
            }
        }
        self.candidates[digit] &= !layout.peer_boards[cell];
        self.open &= !bit;
    }

    /// Fills naked and hidden singles until nothing follows. False at a contradiction: a cell that no digit fits, or a
    /// unit that lacks one.
    fn propagate(&mut self, layout: &BoardLayout) -> bool {
        loop {
            let (mut once, mut twice) = (0, 0);
            for candidates in self.candidates {
                twice |= once & candidates;
                once |= candidates;
            }
            if once != layout.all {
                return false;
            }
            let naked = once & !twice & self.open;
            if naked != 0 {
                self.open &= !naked;
                for (digit, candidates) in self.candidates.iter_mut().enumerate() {
                    let here = *candidates & naked;
                    if here != 0 {
                        // of two that see each other both go, and the cells are found empty
                        each(here, |cell| *candidates &= !layout.peer_boards[cell]);
                        self.changed |= 1 << digit;
                    }
                }
                continue;
            }
            if self.changed == 0 || self.open == 0 {
                // a filled grid without an empty cell is right: equal digits that see each other would have emptied one
                return true;
            }
            let digit = self.changed.trailing_zeros() as usize;
            self.changed &= self.changed - 1;
            let candidates = self.candidates[digit];
            let mut single = 0;
            for unit in &layout.unit_boards {
                let here = candidates & unit;
                if here == 0 {
                    return false;
                }
                if here & (here - 1) == 0 {
                    single |= here;
                }
            }
            let hidden = single & self.open;
            if hidden != 0 {
                each(hidden, |cell| self.place(layout, cell, digit));
                // what was taken from its units here is looked for once more
                self.changed |= 1 << digit;
            }
        }
    }

    /// The open cell with the fewest candidates, the first of several. There must be one, and none with fewer than two.
    fn fewest_candidates(&self) -> usize {
        // at_least[n]: open cells with n candidates or more
        let mut at_least = [0; DIGITS + 1];
        at_least[0] = self.open;
        for candidates in self.candidates {
            for n in (1..=DIGITS).rev() {
                at_least[n] |= at_least[n - 1] & candidates;
            }
        }
        let fewest = (1..DIGITS).map(|n| at_least[n] & !at_least[n + 1]).find(|cells| *cells != 0);
        fewest.unwrap_or(self.open).trailing_zeros() as usize
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
        assert_eq!(found, SolveOutcome { solutions: 1, solution: Some(solution), guesses: 0, gave_up: false });
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
                let peers = Size::Four.layout().peer_boards[cell];
                if (0..16).all(|p| peers >> p & 1 == 0 || grid[p] != digit) {
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
