//! Rules about colours wherever they are: cell by cell, or by counting.
//!
//! In: grids. Out: grids. Must not: move a cell.

use super::super::grid::Grid;
use super::draw::Draw;

/// Colour 1 becomes 2.
pub fn recolour(grid: &Grid) -> Option<Grid> {
    Some(grid.recolour(|c| if c == 1 { 2 } else { c }))
}

pub fn some_ones(draw: &mut Draw) -> Option<Grid> {
    let mut colours = draw.palette(3, &[1]);
    colours.extend([1, 1]);
    let ((height, width), percent) = (draw.size(), draw.number(25, 60));
    draw.noise(height, width, percent, &colours)
}

/// Colours 3 and 4 change places.
pub fn swap(grid: &Grid) -> Option<Grid> {
    Some(grid.recolour(|c| match c {
        3 => 4,
        4 => 3,
        other => other,
    }))
}

pub fn threes_and_fours(draw: &mut Draw) -> Option<Grid> {
    let mut colours = draw.palette(2, &[3, 4]);
    colours.extend([3, 4]);
    let ((height, width), percent) = (draw.size(), draw.number(25, 60));
    draw.noise(height, width, percent, &colours)
}

/// The colour that most of these cells have, if it is one; the background does not count.
fn commonest(cells: &[u8]) -> Option<u8> {
    let count = |colour: u8| cells.iter().filter(|&&c| c == colour).count();
    let most = (1..10).max_by_key(|&c| count(c)).filter(|&c| count(c) > 0)?;
    (1..10).all(|c| c == most || count(c) < count(most)).then_some(most)
}

/// Every cell takes the commonest colour of the grid.
pub fn fill_commonest(grid: &Grid) -> Option<Grid> {
    let colour = commonest(grid.cells())?;
    Some(grid.map(|_, _| colour))
}

/// Every cell takes the commonest colour of its row.
pub fn row_commonest(grid: &Grid) -> Option<Grid> {
    let colours: Option<Vec<u8>> = grid.rows().map(commonest).collect();
    let colours = colours?;
    Some(grid.map(|r, _| colours[r]))
}

/// Two or three colours, no background.
pub fn full(draw: &mut Draw) -> Option<Grid> {
    let ((height, width), count) = (draw.size(), draw.number(2, 3));
    let colours = draw.palette(count, &[]);
    // a favourite makes it likelier that every row has a commonest colour
    let favourites: Vec<u8> = (0..height).map(|_| draw.one_of(&colours)).collect();
    let mut grid = draw.noise(height, width, 100, &colours)?;
    let keep: Vec<bool> = (0..height * width).map(|_| draw.number(0, 2) > 0).collect();
    grid = grid.map(|r, c| if keep[r * width + c] { grid.at(r, c) } else { favourites[r] });
    Some(grid)
}
