//! Rules about objects and regions: connected cells, however far they reach.
//!
//! In: grids. Out: grids. Must not: call diagonal neighbours connected.

use super::super::grid::Grid;
use super::draw::Draw;

/// The cells that can be reached from `start` over side-connected cells which `free` allows, `start` included.
fn reach(grid: &Grid, start: &[(usize, usize)], free: impl Fn(u8) -> bool) -> Vec<bool> {
    let (height, width) = (grid.height(), grid.width());
    let mut reached = vec![false; height * width];
    let mut open: Vec<(usize, usize)> = start.to_vec();
    while let Some((r, c)) = open.pop() {
        if std::mem::replace(&mut reached[r * width + c], true) {
            continue;
        }
        let near = [(r.wrapping_sub(1), c), (r, c + 1), (r + 1, c), (r, c.wrapping_sub(1))];
        open.extend(near.into_iter().filter(|&(r, c)| r < height && c < width && free(grid.at(r, c))));
    }
    reached
}

/// Objects: connected coloured cells, of whatever colours. Each is a list of places in reading order.
fn objects(grid: &Grid) -> Vec<Vec<usize>> {
    let mut taken = vec![false; grid.cells().len()];
    let mut found = Vec::new();
    for place in 0..taken.len() {
        if grid.cells()[place] > 0 && !taken[place] {
            let reached = reach(grid, &[(place / grid.width(), place % grid.width())], |c| c > 0);
            let object: Vec<usize> = (0..taken.len()).filter(|&p| reached[p]).collect();
            object.iter().for_each(|&p| taken[p] = true);
            found.push(object);
        }
    }
    found
}

/// Background that has no way to the edge becomes 4.
pub fn fill_enclosed(grid: &Grid) -> Option<Grid> {
    let (height, width) = (grid.height(), grid.width());
    let edge = |r: usize, c: usize| r == 0 || c == 0 || r + 1 == height || c + 1 == width;
    let places = (0..height * width).map(|p| (p / width, p % width));
    let open: Vec<(usize, usize)> = places.filter(|&(r, c)| edge(r, c) && grid.at(r, c) == 0).collect();
    let outside = reach(grid, &open, |c| c == 0);
    Some(grid.map(|r, c| if grid.at(r, c) == 0 && !outside[r * width + c] { 4 } else { grid.at(r, c) }))
}

/// Frames of one colour, some of them broken.
pub fn frames(draw: &mut Draw) -> Option<Grid> {
    let colours = draw.palette(2, &[4]);
    let count = draw.number(1, 4);
    let solid = draw.rectangles(count, (3, 6), &colours)?;
    let hollow = super::local::hollow(&solid)?;
    let gap = draw.noise(hollow.height(), hollow.width(), 6, &[1])?;
    Some(hollow.map(|r, c| if gap.at(r, c) > 0 { 0 } else { hollow.at(r, c) }))
}

/// Coloured cells fall to the bottom of their column, in order.
pub fn gravity(grid: &Grid) -> Option<Grid> {
    let height = grid.height();
    let column = |c: usize| {
        let coloured: Vec<u8> = (0..height).map(|r| grid.at(r, c)).filter(|&c| c > 0).collect();
        [vec![0; height - coloured.len()], coloured].concat()
    };
    let columns: Vec<Vec<u8>> = (0..grid.width()).map(column).collect();
    Some(grid.map(|r, c| columns[c][r]))
}

/// Only the object with the most cells stays.
pub fn largest(grid: &Grid) -> Option<Grid> {
    let objects = objects(grid);
    let largest = objects.iter().max_by_key(|o| o.len())?;
    let one = objects.iter().filter(|o| o.len() == largest.len()).count() == 1;
    let width = grid.width();
    one.then(|| grid.map(|r, c| if largest.contains(&(r * width + c)) { grid.at(r, c) } else { 0 }))
}

/// Rectangles with bites.
pub fn several(draw: &mut Draw) -> Option<Grid> {
    let (colours, count) = (draw.palette(3, &[]), draw.number(2, 6));
    let whole = draw.rectangles(count, (1, 4), &colours)?;
    let bites = draw.noise(whole.height(), whole.width(), 10, &[1])?;
    Some(whole.map(|r, c| if bites.at(r, c) > 0 { 0 } else { whole.at(r, c) }))
}

/// Objects of one cell become 1, of two cells 2, larger ones 3.
pub fn colour_by_size(grid: &Grid) -> Option<Grid> {
    let mut colours = vec![0; grid.cells().len()];
    for object in objects(grid) {
        let colour = object.len().min(3) as u8;
        object.into_iter().for_each(|place| colours[place] = colour);
    }
    Some(grid.map(|r, c| colours[r * grid.width() + c]))
}

pub fn fives(draw: &mut Draw) -> Option<Grid> {
    let ((height, width), percent) = (draw.size(), draw.number(15, 35));
    draw.noise(height, width, percent, &[5])
}

/// Colour 2 spreads over all background that it can reach.
pub fn flood(grid: &Grid) -> Option<Grid> {
    let width = grid.width();
    let places = (0..grid.cells().len()).map(|p| (p / width, p % width));
    let sources: Vec<(usize, usize)> = places.filter(|&(r, c)| grid.at(r, c) == 2).collect();
    let reached = reach(grid, &sources, |c| c == 0);
    Some(grid.map(|r, c| if reached[r * width + c] { 2 } else { grid.at(r, c) }))
}

/// Walls of 5, one cell of 2.
pub fn maze(draw: &mut Draw) -> Option<Grid> {
    let ((height, width), percent) = (draw.size(), draw.number(25, 45));
    let walls = draw.noise(height, width, percent, &[5])?;
    let source = (draw.number(0, height - 1), draw.number(0, width - 1));
    Some(walls.map(|r, c| if (r, c) == source { 2 } else { walls.at(r, c) }))
}

/// Columns in order of their coloured cells, fewest first; as many: as they were.
pub fn sort_bars(grid: &Grid) -> Option<Grid> {
    let height = |c: usize| (0..grid.height()).filter(|&r| grid.at(r, c) > 0).count();
    let mut columns: Vec<usize> = (0..grid.width()).collect();
    columns.sort_by_key(|&c| height(c));
    Some(grid.map(|r, c| grid.at(r, columns[c])))
}

/// Bars that stand on the bottom.
pub fn bars(draw: &mut Draw) -> Option<Grid> {
    let ((height, width), colours) = (draw.size(), draw.palette(3, &[]));
    let bars: Vec<(usize, u8)> = (0..width).map(|_| (draw.number(0, height), draw.one_of(&colours))).collect();
    Grid::from_fn(height, width, |r, c| if r + bars[c].0 >= height { bars[c].1 } else { 0 })
}

/// A row of as many cells as are coloured, in their one colour.
pub fn count(grid: &Grid) -> Option<Grid> {
    let colour = *grid.cells().iter().max()?;
    let coloured = grid.cells().iter().filter(|&&c| c > 0).count();
    if grid.count(colour) == coloured { Grid::from_fn(1, coloured, |_, _| colour) } else { None }
}

pub fn few_of_one(draw: &mut Draw) -> Option<Grid> {
    let ((height, width), colours) = (draw.size(), draw.palette(1, &[]));
    let percent = draw.number(5, 25);
    draw.noise(height, width, percent, &colours)
}
