//! What plots in a frame with two axes share: the key above it, room for names right of it, both axes.
//!
//! In: axes, a key, names. Out: SVG. Must not: let two names at the right edge overlap, or run out of the picture.

use super::{
    axis::{PlotArea, PlotAxis},
    canvas::{Anchor, Canvas, TEXT, draw, fitted, text_width},
    legend::{Key, LegendEntry},
    palette::INK,
};

/// Height that a name at the right edge takes.
const LINE: f64 = 13.0;

/// Sizes of a plot in points.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of the whole picture.
    pub width: f64,
    /// Of the frame.
    pub height: f64,
    /// Left of the frame.
    pub left: f64,
    /// For names right of the frame; none: 0.
    pub names: f64,
}

/// Room for these names, at most a share of the width.
pub fn room<'a>(names: impl Iterator<Item = &'a str>, most: f64) -> f64 {
    names.map(|name| text_width(name, TEXT)).fold(0.0, f64::max).min(most)
}

/// Draws key and axes, then what `paint` draws into the frame.
pub fn framed(
    sizes: Sizes,
    (x_axis, y_axis): (&PlotAxis, &PlotAxis),
    legend: &[LegendEntry],
    paint: impl FnOnce(&mut Canvas, &PlotArea),
) -> String {
    let Sizes { width, height, left, names } = sizes;
    let key = Key::new(legend, width - 56.0);
    let top = 10.0 + key.height;
    let margin = if names > 0.0 { names + 14.0 } else { 10.0 };
    let frame = PlotArea { left, top, right: width - margin, bottom: top + height };
    draw(width, frame.bottom + 38.0, |canvas| {
        frame.draw_x(canvas, x_axis);
        frame.draw_y(canvas, y_axis);
        key.draw(canvas, (left, 4.0));
        paint(canvas, &frame);
    })
}

/// Writes names right of the frame beside these heights, pushed apart where they would overlap.
pub fn end_names(canvas: &mut Canvas, frame: &PlotArea, room: f64, mut ends: Vec<(f64, &str)>) {
    ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
    let heights = pushed_apart(&ends.iter().map(|e| e.0).collect::<Vec<_>>(), frame.bottom);
    for (y, (_, name)) in heights.into_iter().zip(ends) {
        canvas.text(&fitted(name, TEXT, room + 4.0), (frame.right + 6.0, y), TEXT, INK, Anchor::Start);
    }
}

/// Rising heights, each a line below the one before: first downwards, then, where that runs over the lowest height,
/// upwards.
fn pushed_apart(wanted: &[f64], lowest: f64) -> Vec<f64> {
    let mut heights = wanted.to_vec();
    for i in 1..heights.len() {
        heights[i] = heights[i].max(heights[i - 1] + LINE);
    }
    let mut limit = lowest;
    for height in heights.iter_mut().rev() {
        *height = height.min(limit);
        limit = *height - LINE;
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_pushed_apart_and_stay_above_the_lowest_height() {
        assert_eq!(pushed_apart(&[10.0, 50.0], 100.0), [10.0, 50.0]);
        assert_eq!(pushed_apart(&[10.0, 12.0, 30.0], 100.0), [10.0, 23.0, 36.0]);
        assert_eq!(pushed_apart(&[90.0, 95.0, 100.0], 100.0), [74.0, 87.0, 100.0]);
        assert!(pushed_apart(&[], 1.0).is_empty());
    }
}
