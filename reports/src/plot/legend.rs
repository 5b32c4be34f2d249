//! The key above a plot: marks and lines with their names, in as many rows as they need.
//!
//! In: entries. Out: a laid-out [`Key`]. Must not: run over the width it is given.

use plotters::style::RGBColor;

use super::canvas::{Anchor, Canvas, Shape, TEXT, fitted, text_width};
use crate::plot::canvas::{FRONT, SOFT};

/// What an entry shows before its name.
#[derive(Clone, Copy, Debug)]
pub enum Sign {
    /// A mark; true: hollow.
    Mark(Shape, RGBColor, bool),
    /// A grey line.
    Line,
    /// A darker one.
    Stroke,
    /// The same in dashes.
    Dashes,
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Sign.
    pub sign: Sign,
    /// Name.
    pub name: String,
}

/// Entries with their places.
#[derive(Debug)]
pub struct Key {
    places: Vec<(f64, f64, Entry)>,
    /// Height of all rows, points.
    pub height: f64,
}

const ROW: f64 = 16.0;

impl Key {
    /// Lays out entries in rows of this width.
    pub fn new(entries: &[Entry], width: f64) -> Self {
        let (mut x, mut y) = (0.0, 0.0);
        let mut places = Vec::new();
        for entry in entries {
            let name = fitted(&entry.name, TEXT, width - 16.0);
            let needed = 14.0 + text_width(&name, TEXT);
            if x > 0.0 && x + needed > width {
                (x, y) = (0.0, y + ROW);
            }
            places.push((x, y, Entry { name, ..*entry }));
            x += needed + 14.0;
        }
        Self { height: if places.is_empty() { 0.0 } else { y + ROW + 4.0 }, places }
    }

    /// Draws it with its upper left corner there.
    pub fn draw(&self, canvas: &mut Canvas, (left, top): (f64, f64)) {
        for (x, y, entry) in &self.places {
            let centre = (left + x + 5.0, top + y + ROW / 2.0);
            match entry.sign {
                Sign::Mark(shape, color, hollow) => canvas.mark(centre, shape, 3.8, color, hollow),
                Sign::Stroke => canvas.line(&[(centre.0 - 6.0, centre.1), (centre.0 + 5.0, centre.1)], SOFT, 0.9, 1.2),
                Sign::Dashes => {
                    for x in [-6.0, 1.0] {
                        canvas.line(&[(centre.0 + x, centre.1), (centre.0 + x + 4.0, centre.1)], SOFT, 0.9, 1.2);
                    }
                }
                Sign::Line => canvas.line(&[(centre.0 - 6.0, centre.1), (centre.0 + 5.0, centre.1)], FRONT, 1.0, 1.0),
            }
            canvas.text(&entry.name, (centre.0 + 9.0, centre.1), TEXT, SOFT, Anchor::Start);
        }
    }
}
