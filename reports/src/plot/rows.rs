//! Plots with one row per case on a common logarithmic axis: latency distributions, memory and speed-ups.
//!
//! In: rows with values. Out: SVG that grows with the rows. Must not: draw a bar from zero on a logarithmic axis; marks stand for values.

use plotters::style::RGBColor;

use super::{
    axis::{Axis, Frame},
    canvas::{Anchor, Canvas, FRONT, INK, Shape, TEXT, draw, fitted, text_width},
    legend::{Entry, Key},
};
use crate::{error::ReportError, stats::quantile::quantile};

const ROW: f64 = 18.0;
/// Height of a row whose label takes two lines.
const TALL: f64 = 28.0;
/// Share of the width that labels may take.
const LABELS: f64 = 0.42;

/// Latencies of one case, ascending.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// Name of the case.
    pub label: String,
    /// Colour by family.
    pub color: RGBColor,
    /// Seconds, ascending, not empty.
    pub sorted: Vec<f64>,
}

/// Draws a box per case: quartiles and median, whiskers from the 5th to the 95th percentile, dots at the fastest and slowest;
/// fewer than 20 observations are drawn one by one.
pub fn distributions(
    what: &str,
    rows: &[Distribution],
    legend: &[Entry],
    width: f64,
) -> Result<Option<String>, ReportError> {
    let ends = rows.iter().flat_map(|r| [r.sorted.first(), r.sorted.last()]).flatten().copied();
    let Some(axis) = Axis::log("latency", "s", ends) else { return Ok(None) };
    let labels: Vec<&str> = rows.iter().map(|r| r.label.as_str()).collect();
    let svg = frame_of_rows(what, &labels, &axis, legend, width, |canvas, frame, i, y| {
        let row = &rows[i];
        let x = |v: f64| frame.x(&axis, v);
        if row.sorted.len() < 20 {
            for v in &row.sorted {
                canvas.dot((x(*v), y), 2.2, row.color, 0.6);
            }
            return;
        }
        let at = |q: f64| x(quantile(&row.sorted, q).unwrap_or_default());
        canvas.line(&[(at(0.05), y), (at(0.95), y)], row.color, 1.0, 1.0);
        canvas.rectangle((at(0.25), y - 5.0), (at(0.75).max(at(0.25) + 0.5), y + 5.0), row.color, 0.45);
        canvas.line(&[(at(0.5), y - 5.5), (at(0.5), y + 5.5)], row.color, 1.0, 2.0);
        for v in [at(0.0), at(1.0)] {
            canvas.dot((v, y), 1.6, row.color, 0.8);
        }
    })?;
    Ok(Some(svg))
}

/// Bytes of one case by kind.
#[derive(Clone, Debug)]
pub struct Bytes {
    /// Name of the case.
    pub label: String,
    /// Colour, shape and value of each kind that was read.
    pub values: Vec<(RGBColor, Shape, f64)>,
}

/// Draws the kinds of memory of each case as marks on one line.
pub fn bytes(what: &str, rows: &[Bytes], legend: &[Entry], width: f64) -> Result<Option<String>, ReportError> {
    let all = rows.iter().flat_map(|r| r.values.iter().map(|v| v.2));
    let Some(axis) = Axis::log("memory", "B", all) else { return Ok(None) };
    let labels: Vec<&str> = rows.iter().map(|r| r.label.as_str()).collect();
    let svg = frame_of_rows(what, &labels, &axis, legend, width, |canvas, frame, i, y| {
        let values = &rows[i].values;
        let xs: Vec<f64> = values.iter().filter(|v| v.2 > 0.0).map(|v| frame.x(&axis, v.2)).collect();
        let (low, high) = xs.iter().fold((f64::INFINITY, 0f64), |(a, b), x| (a.min(*x), b.max(*x)));
        if low < high {
            canvas.line(&[(low, y), (high, y)], FRONT, 1.0, 0.75);
        }
        for (color, shape, value) in values.iter().filter(|v| v.2 > 0.0) {
            canvas.mark((frame.x(&axis, *value), y), *shape, 3.8, *color, false);
        }
    })?;
    Ok(Some(svg))
}

/// A ratio of one case to the base.
#[derive(Clone, Debug)]
pub struct Ratio {
    /// Name of the case.
    pub label: String,
    /// Colour of its mark.
    pub color: RGBColor,
    /// Value, lower and upper end of its interval; the same three times without one.
    pub bar: [f64; 3],
    /// It is the base itself.
    pub base: bool,
}

/// Draws each ratio as a mark with its interval, beside a line at 1.
pub fn ratios(what: &str, name: &str, rows: &[Ratio], width: f64) -> Result<Option<String>, ReportError> {
    let all = rows.iter().flat_map(|r| r.bar).chain([1.0]);
    let Some(axis) = Axis::log(name, "1", all) else { return Ok(None) };
    let labels: Vec<&str> = rows.iter().map(|r| r.label.as_str()).collect();
    let svg = frame_of_rows(what, &labels, &axis, &[], width, |canvas, frame, i, y| {
        let row = &rows[i];
        if i == 0 {
            let one = frame.x(&axis, 1.0);
            canvas.line(&[(one, frame.top), (one, frame.bottom)], FRONT, 1.0, 1.0);
        }
        let [value, lower, upper] = row.bar.map(|v| frame.x(&axis, v));
        canvas.line(&[(lower, y), (upper, y)], row.color, 1.0, 1.5);
        for end in [lower, upper].iter().filter(|_| lower < upper) {
            canvas.line(&[(*end, y - 3.0), (*end, y + 3.0)], row.color, 1.0, 1.0);
        }
        canvas.mark((value, y), Shape::Circle, 3.8, row.color, row.base);
    })?;
    Ok(Some(svg))
}

fn frame_of_rows(
    what: &str,
    labels: &[&str],
    axis: &Axis,
    legend: &[Entry],
    width: f64,
    mut paint: impl FnMut(&mut Canvas, &Frame, usize, f64),
) -> Result<String, ReportError> {
    let room = LABELS * width;
    // a cut label would leave two cases with the same name: long ones take two lines, all of them alike
    let tall = labels.iter().any(|l| text_width(l, TEXT) > room);
    let row = if tall { TALL } else { ROW };
    let lines: Vec<Vec<String>> = labels.iter().map(|l| if tall { halves(l) } else { vec![(*l).to_owned()] }).collect();
    let widest = lines.iter().flatten().map(|l| text_width(l, TEXT)).fold(0.0, f64::max).min(room);
    let key = Key::new(legend, width - 20.0);
    let top = 8.0 + key.height;
    let frame = Frame { left: widest + 16.0, top, right: width - 12.0, bottom: top + row * labels.len() as f64 + 4.0 };
    draw(what, width, frame.bottom + 38.0, |canvas| {
        key.draw(canvas, (8.0, 2.0));
        frame.draw_x(canvas, axis);
        for (i, lines) in lines.iter().enumerate() {
            let y = frame.top + 2.0 + row * (i as f64 + 0.5);
            let first = y - 5.5 * (lines.len() - 1) as f64;
            for (k, line) in lines.iter().enumerate() {
                let at = (frame.left - 8.0, first + 11.0 * k as f64);
                canvas.text(&fitted(line, TEXT, widest + 4.0), at, TEXT, INK, Anchor::End);
            }
            paint(canvas, &frame, i, y);
        }
    })
}

/// A label in two lines, broken at the separator that leaves them most alike in width.
fn halves(label: &str) -> Vec<String> {
    const BETWEEN: &str = " · ";
    let breaks = label.match_indices(BETWEEN).map(|(at, _)| (&label[..at], &label[at + BETWEEN.len()..]));
    let longer = |(a, b): &(&str, &str)| text_width(a, TEXT).max(text_width(b, TEXT));
    match breaks.min_by(|a, b| longer(a).total_cmp(&longer(b))) {
        Some((first, second)) => vec![first.to_owned(), second.to_owned()],
        None => vec![label.to_owned()],
    }
}
