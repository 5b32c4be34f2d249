//! Rules along rows and columns: rays, joints, patterns.
//!
//! In: grids. Out: grids of the same size. Must not: need more than a cell's row and column, or its mirror image.

use super::super::grid::Grid;
use super::draw::Draw;

/// Every coloured cell sends its colour down until it meets the edge or another coloured cell.
pub fn rays(grid: &Grid) -> Option<Grid> {
    Some(grid.map(|r, c| (0..=r).rev().map(|above| grid.at(above, c)).find(|&c| c > 0).unwrap_or(0)))
}

/// The first colour that is not the background.
fn first(mut cells: impl Iterator<Item = u8>) -> Option<u8> {
    cells.find(|&c| c > 0)
}

/// Background between two cells of one colour in a row, with nothing else between them, takes that colour; else the
/// same in a column.
pub fn connect(grid: &Grid) -> Option<Grid> {
    let joined = |before: Option<u8>, after: Option<u8>| before.filter(|_| before == after);
    Some(grid.map(|r, c| {
        let left = first((0..c).rev().map(|c| grid.at(r, c)));
        let right = first((c + 1..grid.width()).map(|c| grid.at(r, c)));
        let above = first((0..r).rev().map(|r| grid.at(r, c)));
        let below = first((r + 1..grid.height()).map(|r| grid.at(r, c)));
        let between = joined(left, right).or(joined(above, below)).unwrap_or(0);
        if grid.at(r, c) > 0 { grid.at(r, c) } else { between }
    }))
}

pub fn two_colours(draw: &mut Draw) -> Option<Grid> {
    let ((height, width), colours) = (draw.size(), draw.palette(2, &[]));
    let percent = draw.number(10, 22);
    draw.noise(height, width, percent, &colours)
}

/// Every coloured cell paints the background of its row and its column, rows over columns; a line has one coloured cell
/// at most.
pub fn cross(grid: &Grid) -> Option<Grid> {
    let row = |r: usize| (0..grid.width()).map(|c| grid.at(r, c)).filter(|&c| c > 0).collect::<Vec<_>>();
    let column = |c: usize| (0..grid.height()).map(|r| grid.at(r, c)).filter(|&c| c > 0).collect::<Vec<_>>();
    let rows: Vec<Vec<u8>> = (0..grid.height()).map(row).collect();
    let columns: Vec<Vec<u8>> = (0..grid.width()).map(column).collect();
    if rows.iter().chain(&columns).any(|line| line.len() > 1) {
        return None;
    }
    let paint = |r: usize, c: usize| rows[r].first().or(columns[c].first()).copied().unwrap_or(0);
    Some(grid.map(|r, c| if grid.at(r, c) > 0 { grid.at(r, c) } else { paint(r, c) }))
}

/// One to three cells.
pub fn seeds(draw: &mut Draw) -> Option<Grid> {
    let ((height, width), count) = (draw.size(), draw.number(1, 3));
    let mut grid = Grid::from_fn(height, width, |_, _| 0)?;
    for colour in draw.palette(count, &[]) {
        let (row, column) = (draw.number(0, height - 1), draw.number(0, width - 1));
        grid = grid.map(|r, c| if (r, c) == (row, column) { colour } else { grid.at(r, c) });
    }
    Some(grid)
}

/// Rows of background at the bottom go on as the rows above them repeat; the shortest period counts, and it must be
/// seen twice.
pub fn continue_pattern(grid: &Grid) -> Option<Grid> {
    let rows: Vec<&[u8]> = grid.rows().collect();
    let seen = rows.iter().take_while(|row| row.iter().any(|&c| c > 0)).count();
    if rows[seen..].iter().any(|row| row.iter().any(|&c| c > 0)) {
        return None;
    }
    let period = (1..=seen / 2).find(|p| (0..seen - p).all(|r| rows[r] == rows[r + p]))?;
    Some(grid.map(|r, c| grid.at(r % period, c)))
}

pub fn begun_pattern(draw: &mut Draw) -> Option<Grid> {
    let (height, width) = draw.size();
    let period = draw.number(1, 3.min((height - 1) / 2));
    let seen = draw.number(2 * period, height - 1);
    let colours = draw.palette(3, &[]);
    let pattern = draw.noise(period, width, 80, &colours)?;
    Grid::from_fn(height, width, |r, c| if r < seen { pattern.at(r % period, c) } else { 0 })
}

/// Cells of colour 5 take the colour of their mirror image, left for right.
pub fn complete_symmetry(grid: &Grid) -> Option<Grid> {
    let image = grid.turned(4);
    let known = |r: usize, c: usize| grid.at(r, c) != 5 || image.at(r, c) != 5;
    let symmetric = |r: usize, c: usize| grid.at(r, c) == image.at(r, c) || grid.at(r, c) == 5 || image.at(r, c) == 5;
    let fine = (0..grid.height()).all(|r| (0..grid.width()).all(|c| known(r, c) && symmetric(r, c)));
    fine.then(|| grid.map(|r, c| if grid.at(r, c) == 5 { image.at(r, c) } else { grid.at(r, c) }))
}

/// A symmetric grid with a rectangle of 5 over part of one half.
pub fn masked(draw: &mut Draw) -> Option<Grid> {
    let ((height, width), colours) = (draw.size(), draw.palette(3, &[5]));
    let half = draw.noise(height, width, 75, &colours)?;
    let (h, w) = (draw.number(1, height), draw.number(1, width / 2));
    let (top, left) = (draw.number(0, height - h), draw.number(0, width / 2 - w));
    let right = draw.number(0, 1) == 1;
    Some(half.map(|r, c| {
        let (near, far) = (c.min(width - 1 - c), c >= width.div_ceil(2));
        let hidden = (top..top + h).contains(&r) && (left..left + w).contains(&near) && far == right;
        if hidden { 5 } else { half.at(r, near) }
    }))
}
