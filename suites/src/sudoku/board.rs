//! The three boards: which cells see each other.
//!
//! In: a side of 4, 6 or 9. Out: boxes, rows, columns and peers, computed once. Must not: know digits or puzzles.

use std::sync::OnceLock;

/// Side of a board, and with it the shape of its boxes: 2x2 for 4, 2 rows by 3 columns for 6, 3x3 for 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Size {
    /// 4x4.
    Four,
    /// 6x6.
    Six,
    /// 9x9.
    Nine,
}

/// Most cells of a board.
pub(super) const MAX_CELLS: usize = 81;
/// Most digits.
pub(super) const DIGITS: usize = 9;

/// A set of cells: bit `c` is cell `c`.
pub(super) type Board = u128;

impl Size {
    /// Every size.
    pub const ALL: [Size; 3] = [Size::Four, Size::Six, Size::Nine];

    /// The size with this many cells a side.
    pub fn from_side(side: usize) -> Option<Size> {
        Self::ALL.into_iter().find(|s| s.side() == side)
    }

    /// The size with this many cells in all.
    pub fn from_cells(cells: usize) -> Option<Size> {
        Self::ALL.into_iter().find(|s| s.cells() == cells)
    }

    /// Cells a side, and number of digits.
    pub const fn side(self) -> usize {
        match self {
            Size::Four => 4,
            Size::Six => 6,
            Size::Nine => 9,
        }
    }

    /// Cells in all.
    pub const fn cells(self) -> usize {
        self.side() * self.side()
    }

    /// Rows of a box.
    pub const fn box_rows(self) -> usize {
        match self {
            Size::Nine => 3,
            _ => 2,
        }
    }

    /// Columns of a box.
    pub const fn box_columns(self) -> usize {
        self.side() / self.box_rows()
    }

    /// Whether boxes are square, so that transposing a grid gives a grid.
    pub const fn transposes(self) -> bool {
        self.box_rows() == self.box_columns()
    }

    /// Fewest clues that any puzzle with one solution has (4: Taalman et al.; 6: found by search; 9: McGuire et al.
    /// 2012).
    pub const fn fewest_clues(self) -> usize {
        match self {
            Size::Four => 4,
            Size::Six => 8,
            Size::Nine => 17,
        }
    }

    /// All digits as bits 0 to `side - 1`.
    pub(super) const fn all_digits(self) -> u16 {
        (1 << self.side()) - 1
    }

    /// Units and peers.
    pub(super) fn layout(self) -> &'static BoardLayout {
        static LAYOUTS: [OnceLock<BoardLayout>; 3] = [const { OnceLock::new() }; 3];
        LAYOUTS[self as usize].get_or_init(|| BoardLayout::new(self))
    }
}

/// Units and peers of one size.
pub(super) struct BoardLayout {
    /// Cells of each row, column and box.
    pub units: Vec<Vec<u8>>,
    /// The same as sets.
    pub unit_boards: Vec<Board>,
    /// For each cell, every other cell that shares a unit with it.
    pub peer_boards: [Board; MAX_CELLS],
    /// Every cell.
    pub all: Board,
}

impl BoardLayout {
    fn new(size: Size) -> Self {
        let (side, cells) = (size.side(), size.cells());
        let (rows, columns) = (size.box_rows(), size.box_columns());
        let box_of = |c: usize| c / side / rows * (side / columns) + c % side / columns;
        let kinds: [&dyn Fn(usize) -> usize; 3] = [&|c| c / side, &|c| c % side, &box_of];
        let mut units = Vec::new();
        for kind in kinds {
            for unit in 0..side {
                units.push((0..cells).filter(|&c| kind(c) == unit).map(|c| c as u8).collect());
            }
        }
        let sees = |a: usize, b: usize| a != b && kinds.iter().any(|kind| kind(a) == kind(b));
        let peers = |a| (0..cells).filter(|&b| sees(a, b)).fold(0, |set, b| set | 1 << b);
        let peer_boards = std::array::from_fn(|a| if a < cells { peers(a) } else { 0 });
        let unit_boards = units.iter().map(|u: &Vec<u8>| u.iter().fold(0, |set, &c| set | 1 << c)).collect();
        BoardLayout { units, unit_boards, peer_boards, all: (1 << cells) - 1 }
    }
}

/// Whether `grid` holds each digit 1 to `side` once in every row, column and box.
pub fn is_solved(size: Size, grid: &[u8]) -> bool {
    grid.len() == size.cells()
        && grid.iter().all(|&d| (1..=size.side()).contains(&usize::from(d)))
        && size
            .layout()
            .units
            .iter()
            .all(|unit| unit.iter().fold(0, |seen, &c| seen | 1u16 << (grid[usize::from(c)] - 1)) == size.all_digits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_the_known_counts() {
        for (size, peers) in [(Size::Four, 7), (Size::Six, 12), (Size::Nine, 20)] {
            let layout = size.layout();
            assert_eq!(layout.units.len(), 3 * size.side());
            assert!(layout.units.iter().all(|u| u.len() == size.side()));
            assert!(layout.peer_boards[..size.cells()].iter().all(|p| p.count_ones() == peers), "{size:?}");
            assert!(layout.unit_boards.iter().all(|u| u.count_ones() as usize == size.side()));
        }
        assert_eq!(Size::Six.layout().units[12], [0, 1, 2, 6, 7, 8]);
    }

    #[test]
    fn only_a_full_and_right_grid_is_solved() {
        let grid = [1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1];
        assert!(is_solved(Size::Four, &grid));
        assert!(!is_solved(Size::Four, &grid[1..]));
        for (cell, digit) in [(0, 2), (0, 0), (5, 9)] {
            let mut wrong = grid;
            wrong[cell] = digit;
            assert!(!is_solved(Size::Four, &wrong));
        }
    }
}
