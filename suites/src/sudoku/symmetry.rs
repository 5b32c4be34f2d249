//! Symmetries of Sudoku, what stays the same under them, and the split into train and test that rests on it.
//!
//! In: puzzles and solved grids. Out: random symmetric copies, class numbers, the side of the split. Must not: depend
//! on how a puzzle was made, or keep any list of puzzles.

use std::sync::OnceLock;

use rand::Rng;
use rand::seq::SliceRandom;

use super::Puzzle;
use super::board::Size;
use crate::hash::hash;
use crate::task::Split;

/// The side of a puzzle: of its whole class of solutions for 6x6 and 9x9; for 4x4, which has only two such classes, of
/// the puzzle. Two puzzles that are symmetric to each other are always on the same side.
pub fn split_of(puzzle: &Puzzle) -> Split {
    split_of_class(class(puzzle))
}

/// The side of every puzzle with this solution (6x6 and 9x9).
pub(super) fn split_of_solution(size: Size, solution: &[u8]) -> Split {
    split_of_class(solution_class(size, solution))
}

fn split_of_class(class: u64) -> Split {
    Split::of_hash(hash(SALT, [class]))
}

/// Its value is chosen so that near 1 in 10 puzzles of every size are held out: 6x6 grids and 4x4 puzzles have so few
/// classes that chance alone could make it 1 in 30 or 1 in 4. It is part of the split and must never change.
const SALT: u64 = 18_562;

/// Number of the puzzle's class: equal for symmetric puzzles.
pub fn class(puzzle: &Puzzle) -> u64 {
    match puzzle.size {
        Size::Four => canonical_class(&puzzle.clues),
        size => solution_class(size, &puzzle.solution),
    }
}

/// The cluster of a puzzle for statistics: its class, so that symmetric copies do not count as independent. Held-out
/// 6x6 puzzles are the exception: they are of six classes in all, which are the whole population and no sample of one,
/// so each puzzle stands for itself.
pub(super) fn cluster(puzzle: &Puzzle) -> u64 {
    match puzzle.size {
        Size::Six if split_of(puzzle) == Split::Test => hash(class(puzzle), puzzle.clues.iter().map(|&c| u64::from(c))),
        _ => class(puzzle),
    }
}

/// A symmetry of boards of one size: digits relabelled, rows within bands, bands, columns within stacks and stacks permuted, and for square
/// boxes perhaps transposed. What it makes of a puzzle is as hard as the puzzle.
pub struct Symmetry {
    /// Where each cell of the copy comes from.
    cells: Vec<usize>,
    /// What digit `d` becomes, at `d - 1`.
    labels: Vec<u8>,
}

impl Symmetry {
    /// A random one.
    pub fn random<R: Rng>(size: Size, rng: &mut R) -> Self {
        let cells = random_cells(size, rng);
        let mut labels: Vec<u8> = (1..=size.side() as u8).collect();
        labels.shuffle(rng);
        Self { cells, labels }
    }

    /// The copy of a puzzle. The rating is carried over.
    pub fn apply(&self, puzzle: &Puzzle) -> Puzzle {
        let label = |d: u8| if d == 0 { 0 } else { self.labels[usize::from(d) - 1] };
        let copy = |grid: &[u8]| self.cells.iter().map(|&c| label(grid[c])).collect();
        let (clues, solution) = (copy(&puzzle.clues), copy(&puzzle.solution));
        Puzzle { size: puzzle.size, clues, solution, guesses: puzzle.guesses }
    }

    /// The grid of which this one is the copy; an empty cell stays empty. `None`: another number of cells, or no digits.
    pub fn undo(&self, copy: &[u8]) -> Option<Vec<u8>> {
        if copy.len() != self.cells.len() {
            return None;
        }
        let mut grid = vec![0; copy.len()];
        for (&digit, &cell) in copy.iter().zip(&self.cells) {
            if digit > 0 {
                grid[cell] = self.labels.iter().position(|&l| l == digit)? as u8 + 1;
            }
        }
        Some(grid)
    }
}

/// A copy of the puzzle by a random symmetry.
pub fn augment<R: Rng>(puzzle: &Puzzle, rng: &mut R) -> Puzzle {
    Symmetry::random(puzzle.size, rng).apply(puzzle)
}

/// Where each cell of a randomly turned grid comes from.
fn random_cells<R: Rng>(size: Size, rng: &mut R) -> Vec<usize> {
    let side = size.side();
    let rows = random_lines(side, size.box_rows(), rng);
    let columns = random_lines(side, size.box_columns(), rng);
    let transpose = size.transposes() && rng.next_u32() & 1 == 1;
    (0..size.cells())
        .map(|c| {
            let (r, c) = if transpose { (c % side, c / side) } else { (c / side, c % side) };
            rows[r] * side + columns[c]
        })
        .collect()
}

/// Rows in a random order that keeps bands together (or columns and stacks).
fn random_lines<R: Rng>(side: usize, band: usize, rng: &mut R) -> Vec<usize> {
    let mut bands: Vec<Vec<usize>> = (0..side).collect::<Vec<_>>().chunks(band).map(<[usize]>::to_vec).collect();
    bands.iter_mut().for_each(|b| b.shuffle(rng));
    bands.shuffle(rng);
    bands.concat()
}

/// A number that any two symmetric solved grids share. Grids that are not symmetric nearly always differ in it for 9x9;
/// for 6x6 it tells 40 of the 49 classes apart.
///
/// For two rows, the permutation that takes the digits of one to those of the other has a cycle type that no
/// relabelling, no order of columns and no swap of the two rows changes. The types of all pairs within a band, and
/// between two bands, are sorted into multisets; columns likewise; and where boxes are square, rows and columns are put
/// in a fixed order.
fn solution_class(size: Size, grid: &[u8]) -> u64 {
    let side = size.side();
    let row = |r: usize, i: usize| usize::from(grid[r * side + i]) - 1;
    let column = |c: usize, i: usize| usize::from(grid[i * side + c]) - 1;
    let mut halves = [lines_class(side, size.box_rows(), row), lines_class(side, size.box_columns(), column)];
    if size.transposes() {
        halves.sort_unstable();
    }
    hash(0, halves)
}

fn lines_class(side: usize, band: usize, digit: impl Fn(usize, usize) -> usize) -> u64 {
    let cycle_type = |a: usize, b: usize| {
        let mut to = [0; 9];
        (0..side).for_each(|i| to[digit(a, i)] = digit(b, i));
        // Digit k of the number, base 16, counts the cycles of length k.
        let (mut kind, mut seen) = (0u64, 0u16);
        for start in 0..side {
            let (mut length, mut at) = (0, start);
            while seen >> at & 1 == 0 {
                seen |= 1 << at;
                at = to[at];
                length += 1;
            }
            if length > 0 {
                kind += 1 << (4 * length);
            }
        }
        kind
    };
    let bands = side / band;
    let mut within = Vec::new();
    let mut between = Vec::new();
    for a in 0..bands {
        for b in a..bands {
            let mut kinds: Vec<u64> = (a * band..(a + 1) * band)
                .flat_map(|i| (b * band..(b + 1) * band).map(move |j| (i, j)))
                .filter(|(i, j)| i < j)
                .map(|(i, j)| cycle_type(i, j))
                .collect();
            kinds.sort_unstable();
            if a == b { &mut within } else { &mut between }.push(hash(1, kinds));
        }
    }
    within.sort_unstable();
    between.sort_unstable();
    hash(hash(2, within), between)
}

/// Class of a 4x4 puzzle: a hash of its canonical form.
fn canonical_class(clues: &[u8]) -> u64 {
    hash(0, canonical(clues).into_iter().map(u64::from))
}

/// The least of all 4x4 puzzles symmetric to this one: over 128 ways to turn it, with digits numbered as they first
/// appear.
pub(super) fn canonical(clues: &[u8]) -> [u8; 16] {
    static TURNS: OnceLock<Vec<[usize; 16]>> = OnceLock::new();
    let turns = TURNS.get_or_init(all_turns);
    let mut best = [u8::MAX; 16];
    for turn in turns {
        let (mut labels, mut next) = ([0u8; 5], 0);
        let mut turned = [0; 16];
        for (to, &from) in turned.iter_mut().zip(turn) {
            let digit = usize::from(clues[from]);
            if digit != 0 {
                if labels[digit] == 0 {
                    next += 1;
                    labels[digit] = next;
                }
                *to = labels[digit];
            }
        }
        best = best.min(turned);
    }
    best
}

/// The 128 ways to turn a 4x4 grid without relabelling.
fn all_turns() -> Vec<[usize; 16]> {
    let orders: Vec<[usize; 4]> = (0..8)
        .map(|k| {
            let band = if k & 4 == 0 { [0, 2] } else { [2, 0] };
            [band[0] + (k & 1), band[0] + 1 - (k & 1), band[1] + (k >> 1 & 1), band[1] + 1 - (k >> 1 & 1)]
        })
        .collect();
    let mut turns = Vec::new();
    for rows in &orders {
        for columns in &orders {
            turns.push(std::array::from_fn(|c| rows[c / 4] * 4 + columns[c % 4]));
            turns.push(std::array::from_fn(|c| rows[c % 4] * 4 + columns[c / 4]));
        }
    }
    turns
}
