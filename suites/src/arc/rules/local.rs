//! Rules by which a cell's neighbours decide.
//!
//! In: grids. Out: grids of the same size. Must not: look further than one cell.

use super::super::grid::Grid;
use super::draw::Draw;

/// The cells that share a side with this one; `None` outside of the grid.
pub fn beside(grid: &Grid, row: usize, column: usize) -> [Option<u8>; 4] {
    let (r, c) = (row as isize, column as isize);
    [(r - 1, c), (r, c + 1), (r + 1, c), (r, c - 1)].map(|(r, c)| grid.peek(r, c))
}

/// Coloured cells among the eight around this one.
fn around(grid: &Grid, row: usize, column: usize) -> usize {
    let near = (0..9).filter(|i| *i != 4).map(|i| (row as isize + i / 3 - 1, column as isize + i % 3 - 1));
    near.filter(|&(r, c)| grid.peek(r, c).is_some_and(|c| c > 0)).count()
}

/// The outermost cells become 3.
pub fn border(grid: &Grid) -> Option<Grid> {
    let outer = |i: usize, n: usize| i == 0 || i + 1 == n;
    Some(grid.map(|r, c| if outer(r, grid.height()) || outer(c, grid.width()) { 3 } else { grid.at(r, c) }))
}

/// Background beside or diagonally beside a coloured cell becomes 5.
pub fn outline(grid: &Grid) -> Option<Grid> {
    Some(grid.map(|r, c| match grid.at(r, c) {
        0 if around(grid, r, c) > 0 => 5,
        colour => colour,
    }))
}

pub fn without_five(draw: &mut Draw) -> Option<Grid> {
    let (colours, count) = (draw.palette(2, &[5]), draw.number(1, 3));
    draw.rectangles(count, (1, 3), &colours)
}

/// A coloured cell with its own colour on all four sides becomes background.
pub fn hollow(grid: &Grid) -> Option<Grid> {
    Some(grid.map(|r, c| {
        let colour = grid.at(r, c);
        if beside(grid, r, c).iter().all(|&n| n == Some(colour)) { 0 } else { colour }
    }))
}

pub fn solid(draw: &mut Draw) -> Option<Grid> {
    let (colours, count) = (draw.palette(3, &[]), draw.number(1, 4));
    draw.rectangles(count, (3, 6), &colours)
}

/// A coloured cell with its own colour on no side becomes background.
pub fn denoise(grid: &Grid) -> Option<Grid> {
    Some(grid.map(|r, c| {
        let colour = grid.at(r, c);
        if beside(grid, r, c).contains(&Some(colour)) { colour } else { 0 }
    }))
}

/// Rectangles and single cells.
pub fn noisy(draw: &mut Draw) -> Option<Grid> {
    let (colours, count) = (draw.palette(3, &[]), draw.number(1, 3));
    let shapes = draw.rectangles(count, (2, 4), &colours)?;
    let noise = draw.noise(shapes.height(), shapes.width(), 12, &colours)?;
    Some(shapes.map(|r, c| if shapes.at(r, c) > 0 { shapes.at(r, c) } else { noise.at(r, c) }))
}

/// One step of Conway's game of life with 1 for alive; outside of the grid nothing lives.
pub fn life(grid: &Grid) -> Option<Grid> {
    Some(grid.map(|r, c| match (grid.at(r, c), around(grid, r, c)) {
        (_, 3) => 1,
        (alive, 2) => alive,
        _ => 0,
    }))
}

pub fn ones(draw: &mut Draw) -> Option<Grid> {
    let ((height, width), percent) = (draw.size(), draw.number(25, 50));
    draw.noise(height, width, percent, &[1])
}
