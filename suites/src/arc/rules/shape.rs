//! Rules about the grid as a whole: turned, cut, enlarged.
//!
//! In: grids. Out: grids. Must not: change a colour.

use super::super::grid::Grid;
use super::draw::Draw;

/// Left and right change places.
pub fn mirror(grid: &Grid) -> Option<Grid> {
    Some(grid.turned(4))
}

/// A quarter turn counter-clockwise.
pub fn turn_quarter(grid: &Grid) -> Option<Grid> {
    Some(grid.turned(1))
}

/// Half a turn.
pub fn turn_half(grid: &Grid) -> Option<Grid> {
    Some(grid.turned(2))
}

/// Rows become columns.
pub fn transpose(grid: &Grid) -> Option<Grid> {
    Some(grid.turned(6))
}

/// The smallest rectangle that holds all coloured cells.
pub fn crop(grid: &Grid) -> Option<Grid> {
    let rows = lines(grid.height(), |r| (0..grid.width()).any(|c| grid.at(r, c) > 0));
    let columns = lines(grid.width(), |c| (0..grid.height()).any(|r| grid.at(r, c) > 0));
    let (top, bottom) = (*rows.first()?, *rows.last()?);
    let (left, right) = (*columns.first()?, *columns.last()?);
    Grid::from_fn(bottom - top + 1, right - left + 1, |r, c| grid.at(top + r, left + c))
}

/// Colours inside a margin of background.
pub fn with_margin(draw: &mut Draw) -> Option<Grid> {
    let (height, width) = draw.size();
    let (h, w) = (draw.number(1, height - 1), draw.number(1, width - 1));
    let (top, left) = (draw.number(0, height - h), draw.number(0, width - w));
    let colours = draw.palette(3, &[]);
    let inner = draw.noise(h, w, 70, &colours)?;
    Grid::from_fn(height, width, |r, c| inner.peek(r as isize - top as isize, c as isize - left as isize).unwrap_or(0))
}

/// Every cell becomes two by two.
pub fn scale_2(grid: &Grid) -> Option<Grid> {
    Grid::from_fn(2 * grid.height(), 2 * grid.width(), |r, c| grid.at(r / 2, c / 2))
}

/// Two by two copies.
pub fn tile_2(grid: &Grid) -> Option<Grid> {
    let (h, w) = (grid.height(), grid.width());
    Grid::from_fn(2 * h, 2 * w, |r, c| grid.at(r % h, c % w))
}

/// Two by two copies, mirrored so that the whole is symmetric both ways.
pub fn reflect_2(grid: &Grid) -> Option<Grid> {
    let (h, w) = (grid.height(), grid.width());
    let fold = |i: usize, n: usize| if i < n { i } else { 2 * n - 1 - i };
    Grid::from_fn(2 * h, 2 * w, |r, c| grid.at(fold(r, h), fold(c, w)))
}

/// At most half as high and wide as a grid may be.
pub fn quarter_size(draw: &mut Draw) -> Option<Grid> {
    let most = draw.max_side / 2;
    let (height, width, count) = (draw.number(2, most), draw.number(2, most), draw.number(2, 4));
    let (colours, percent) = (draw.palette(count, &[]), draw.number(40, 80));
    draw.noise(height, width, percent, &colours)
}

/// The upper half of an even number of rows.
pub fn top_half(grid: &Grid) -> Option<Grid> {
    let even = grid.height().is_multiple_of(2);
    if even { Grid::from_fn(grid.height() / 2, grid.width(), |r, c| grid.at(r, c)) } else { None }
}

/// Rows and columns without a coloured cell go.
pub fn drop_empty_lines(grid: &Grid) -> Option<Grid> {
    let rows = lines(grid.height(), |r| (0..grid.width()).any(|c| grid.at(r, c) > 0));
    let columns = lines(grid.width(), |c| (0..grid.height()).any(|r| grid.at(r, c) > 0));
    Grid::from_fn(rows.len(), columns.len(), |r, c| grid.at(rows[r], columns[c]))
}

/// Everything moves one column to the right; the last column comes first.
pub fn roll(grid: &Grid) -> Option<Grid> {
    let w = grid.width();
    Some(grid.map(|r, c| grid.at(r, (c + w - 1) % w)))
}

/// The lines below `count` that are wanted.
fn lines(count: usize, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
    (0..count).filter(|&i| wanted(i)).collect()
}
