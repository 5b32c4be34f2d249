//! Grids as token rows, as the released TRM does it: a square canvas, the grid at its top left, its edge marked.
//!
//! In: grids. Out: `side * side` tokens, and back. Must not: know a task. Source: `dataset/build_arc_dataset.py`
//! (`arc_grid_to_np`...) and `evaluators/arc.py` (`_crop`) of SamsungSAILMontreal/TinyRecursiveModels.

use super::grid::{COLOURS, Grid};

/// Outside of the grid.
pub const PAD: u32 = 0;
/// Edge: the row below the grid and the column to its right.
pub const EOS: u32 = 1;
/// Colour c is token c + 2.
pub const FIRST_COLOUR: u32 = 2;
/// Number of tokens.
pub const VOCABULARY: u32 = FIRST_COLOUR + COLOURS as u32;

/// The grid with its top left cell at `(down, right)` of a canvas; the edge is marked where it fits, up to but without
/// the corner. What of the grid does not fit is cut off: callers check.
pub fn encode_at(grid: &Grid, side: usize, (down, right): (usize, usize)) -> Vec<u32> {
    let mut canvas = vec![PAD; side * side];
    let mut put = |r: usize, c: usize, token| {
        if r < side && c < side {
            canvas[r * side + c] = token;
        }
    };
    for r in 0..grid.height() {
        for c in 0..grid.width() {
            put(down + r, right + c, u32::from(grid.at(r, c)) + FIRST_COLOUR);
        }
    }
    (0..grid.width()).for_each(|c| put(down + grid.height(), right + c, EOS));
    (0..grid.height()).for_each(|r| put(down + r, right + grid.width(), EOS));
    canvas
}

/// The grid at the top left of a canvas.
pub fn encode(grid: &Grid, side: usize) -> Vec<u32> {
    encode_at(grid, side, (0, 0))
}

/// The largest rectangle of colours at the top left of a canvas; the flatter one of two as large. `None` if the first
/// cell is no colour, or the canvas is not square or too large.
pub fn decode(canvas: &[u32]) -> Option<Grid> {
    let side = canvas.len().isqrt();
    if side * side != canvas.len() {
        return None;
    }
    let colour = |r: usize, c: usize| canvas[r * side + c].checked_sub(FIRST_COLOUR).filter(|&c| c < COLOURS.into());
    let (mut best, mut width) = ((0, 0), side);
    for r in 0..side {
        width = (0..width).find(|&c| colour(r, c).is_none()).unwrap_or(width);
        if (r + 1) * width > best.0 * best.1 {
            best = (r + 1, width);
        }
    }
    Grid::from_fn(best.0, best.1, |r, c| colour(r, c).unwrap_or(0) as u8)
}

/// Side of a canvas of so many tokens.
pub fn side(canvas: &[u32]) -> usize {
    canvas.len().isqrt()
}
