//! The key above a plot: marks and lines with their names, in as many rows as they need.
//!
//! In: entries. Out: a laid-out [`Key`]. Must not: run over the width it is given.

use super::canvas::{Anchor, Canvas, TEXT, fitted, text_width};
use super::palette::{Dash, Fill, MarkerShape, PAPER, Rgb, SOFT};

/// What an entry shows before its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LegendSymbol {
    /// A mark.
    Mark(MarkerShape, Rgb, Fill),
    /// A patch of colour, for what has no shape of its own.
    Swatch(Rgb, Fill),
    /// A line.
    Line(Rgb, Dash),
    /// Where a line stops.
    Stop(Rgb),
    /// A letter that stands for itself in the plot.
    Letter(char),
}

/// One entry.
#[derive(Clone, Debug)]
pub struct LegendEntry {
    /// Its symbol.
    pub symbol: LegendSymbol,
    /// Name.
    pub name: String,
}

/// Entries with their places.
#[derive(Debug)]
pub struct Key {
    places: Vec<(f64, f64, LegendEntry)>,
    /// Height of all rows, points.
    pub height: f64,
}

const ROW: f64 = 16.0;
/// Width of a symbol.
const SIGN: f64 = 22.0;

impl Key {
    /// Lays out entries in rows of this width.
    pub fn new(entries: &[LegendEntry], width: f64) -> Self {
        let (mut x, mut y) = (0.0, 0.0);
        let mut places = Vec::new();
        for entry in entries {
            let name = fitted(&entry.name, TEXT, width - SIGN - 2.0);
            let needed = SIGN + text_width(&name, TEXT);
            if x > 0.0 && x + needed > width {
                (x, y) = (0.0, y + ROW);
            }
            places.push((x, y, LegendEntry { name, ..*entry }));
            x += needed + 10.0;
        }
        Self { height: if places.is_empty() { 0.0 } else { y + ROW + 4.0 }, places }
    }

    /// Draws it with its upper left corner there.
    pub fn draw(&self, canvas: &mut Canvas, (left, top): (f64, f64)) {
        for (x, y, entry) in &self.places {
            let (x, y) = (left + x + SIGN / 2.0 - 2.0, top + y + ROW / 2.0);
            match entry.symbol {
                LegendSymbol::Mark(shape, color, fill) => canvas.mark((x, y), shape, 3.8, color, fill),
                LegendSymbol::Swatch(color, fill) => {
                    canvas.rectangle((x - 7.0, y - 3.5), (x + 7.0, y + 3.5), color, 1.0);
                    if fill != Fill::Full {
                        canvas.rectangle((x - 5.7, y - 2.2), (x + 5.7, y + 2.2), PAPER, 1.0);
                    }
                    if fill == Fill::Dotted {
                        canvas.dot((x, y), 1.3, color, 1.0);
                    }
                }
                LegendSymbol::Line(color, dash) => canvas.dashed(&[(x - 10.0, y), (x + 7.0, y)], color, 1.0, 1.4, dash),
                LegendSymbol::Stop(color) => canvas.stop((x, y), color),
                LegendSymbol::Letter(letter) => canvas.text(&letter.to_string(), (x, y), TEXT, SOFT, Anchor::Middle),
            }
            canvas.text(&entry.name, (x + SIGN / 2.0, y), TEXT, SOFT, Anchor::Start);
        }
    }
}
