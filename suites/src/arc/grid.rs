//! A grid of colours, and the eight ways to turn it.
//!
//! In: cells. Out: [`Grid`]s of 1 to 30 rows and columns. Must not: know tokens, tasks or rules.

/// Most rows and most columns.
pub const MAX_SIDE: usize = 30;
/// Colours are 0 to 9; 0 is the background.
pub const COLOURS: u8 = 10;

/// Colours in rows. Never empty, never larger than [`MAX_SIDE`] either way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grid {
    height: usize,
    width: usize,
    cells: Vec<u8>,
}

impl Grid {
    /// `cells` in reading order; `None` if they are not `height * width` colours or a side is not 1 to [`MAX_SIDE`].
    pub fn new(height: usize, width: usize, cells: Vec<u8>) -> Option<Grid> {
        let sides = (1..=MAX_SIDE).contains(&height) && (1..=MAX_SIDE).contains(&width);
        (sides && cells.len() == height * width && cells.iter().all(|&c| c < COLOURS)).then_some(Grid {
            height,
            width,
            cells,
        })
    }

    /// The colour at each row and column; `None` as for [`new`](Self::new).
    pub fn from_fn(height: usize, width: usize, colour: impl FnMut(usize, usize) -> u8) -> Option<Grid> {
        if height > MAX_SIDE || width > MAX_SIDE {
            return None;
        }
        let mut colour = colour;
        let cells = (0..height * width).map(|i| colour(i / width, i % width)).collect();
        Grid::new(height, width, cells)
    }

    /// Another grid of the same size; colours above 9 become 9, which no caller asks for.
    pub fn map(&self, mut colour: impl FnMut(usize, usize) -> u8) -> Grid {
        let cells = (0..self.cells.len()).map(|i| colour(i / self.width, i % self.width).min(COLOURS - 1)).collect();
        Grid { height: self.height, width: self.width, cells }
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The longer side.
    pub fn side(&self) -> usize {
        self.height.max(self.width)
    }

    /// Colours in reading order.
    pub fn cells(&self) -> &[u8] {
        &self.cells
    }

    /// Colour at a place; the background outside.
    pub fn at(&self, row: usize, column: usize) -> u8 {
        self.peek(row as isize, column as isize).unwrap_or(0)
    }

    /// Colour at a place, `None` outside.
    pub fn peek(&self, row: isize, column: isize) -> Option<u8> {
        let (row, column) = (usize::try_from(row).ok()?, usize::try_from(column).ok()?);
        (row < self.height && column < self.width).then(|| self.cells[row * self.width + column])
    }

    /// Cells of a colour.
    pub fn count(&self, colour: u8) -> usize {
        self.cells.iter().filter(|&&c| c == colour).count()
    }

    /// Rows of cells.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.cells.chunks(self.width)
    }

    /// The same with each colour replaced.
    pub fn recolour(&self, colour: impl Fn(u8) -> u8) -> Grid {
        self.map(|r, c| colour(self.at(r, c)))
    }

    /// One of the eight copies, numbered as the released TRM does: 0 as it is; 1, 2, 3 turned counter-clockwise by so
    /// many quarters; 4 mirrored left to right; 5 top to bottom; 6 transposed; 7 transposed along the other diagonal.
    /// Numbers are taken modulo 8.
    pub fn turned(&self, dihedral: u32) -> Grid {
        let (h, w) = (self.height, self.width);
        let swaps = matches!(dihedral % 8, 1 | 3 | 6 | 7);
        let (height, width) = if swaps { (w, h) } else { (h, w) };
        let from = |r: usize, c: usize| match dihedral % 8 {
            0 => (r, c),
            1 => (c, w - 1 - r),
            2 => (h - 1 - r, w - 1 - c),
            3 => (h - 1 - c, r),
            4 => (r, w - 1 - c),
            5 => (h - 1 - r, c),
            6 => (c, r),
            _ => (h - 1 - c, w - 1 - r),
        };
        let cells = (0..h * w).map(|i| from(i / width, i % width)).map(|(r, c)| self.cells[r * w + c]).collect();
        Grid { height, width, cells }
    }

    /// The least of the eight copies: equal for grids that differ by a turn only.
    pub fn canonical(&self) -> Grid {
        (1..8).map(|d| self.turned(d)).fold(self.clone(), Grid::min)
    }
}

/// The copy that takes [`turned`](Grid::turned) back.
pub fn inverse(dihedral: u32) -> u32 {
    match dihedral % 8 {
        1 => 3,
        3 => 1,
        other => other,
    }
}
