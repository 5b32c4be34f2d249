//! Plots with one row per case on a common logarithmic axis: latency distributions, memory and speed-ups.
//!
//! In: rows with values. Out: SVG that grows with the rows. Must not: draw a bar from zero on a logarithmic axis; marks
//! stand for values.

use super::{
    axis::{PlotArea, PlotAxis},
    canvas::{Anchor, Canvas, TEXT, draw, fitted, text_width},
    legend::{Key, LegendEntry},
    palette::{FRONT, Fill, INK, MarkerShape, Rgb, SOFT},
};
use crate::{format::scaled, stats::quantile::quantile};

const ROW: f64 = 18.0;
/// Height of a row whose label takes two lines.
const TALL: f64 = 34.0;
/// Distance of the two lines of a label.
const LINE: f64 = 13.0;
/// Share of the width that labels may take.
const LABELS: f64 = 0.42;

/// How a case is drawn.
pub type Marker = (MarkerShape, Rgb, Fill);

/// Latencies of one case, ascending.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// Name of the row.
    pub label: String,
    /// Colour.
    pub color: Rgb,
    /// Marker at the median.
    pub marker: Marker,
    /// Seconds, ascending, not empty.
    pub sorted: Vec<f64>,
}

/// Draws a box per case: quartiles and median, whiskers from the 5th to the 95th percentile, dots at the fastest and
/// slowest; fewer than 20 observations are drawn one by one. `None` for fewer than two rows.
pub fn distributions(rows: &[Distribution], legend: &[LegendEntry], width: f64) -> Option<String> {
    let ends = rows.iter().flat_map(|r| [r.sorted.first(), r.sorted.last()]).flatten().copied();
    let axis = PlotAxis::log("latency", "s", ends).filter(|_| rows.len() > 1)?;
    let labels: Vec<&str> = rows.iter().map(|r| r.label.as_str()).collect();
    Some(frame_of_rows(&labels, &axis, legend, width, |canvas, frame, i, y| {
        let row = &rows[i];
        let x = |v: f64| frame.x(&axis, v);
        let of = |q: f64| quantile(&row.sorted, q).unwrap_or_default();
        let title = format!(
            "{}: median {}, 5th to 95th percentile {} to {}, fastest {}, slowest {}, {} iterations",
            row.label,
            scaled(of(0.5), "s"),
            scaled(of(0.05), "s"),
            scaled(of(0.95), "s"),
            scaled(of(0.0), "s"),
            scaled(of(1.0), "s"),
            row.sorted.len()
        );
        canvas.titled(&title, |canvas| {
            let at = |q: f64| x(of(q));
            if row.sorted.len() < 20 {
                for v in &row.sorted {
                    canvas.dot((x(*v), y), 2.2, row.color, 0.6);
                }
            } else {
                canvas.line(&[(at(0.05), y), (at(0.95), y)], row.color, 1.0, 1.0);
                canvas.rectangle((at(0.25), y - 5.0), (at(0.75).max(at(0.25) + 0.5), y + 5.0), row.color, 0.4);
                for v in [at(0.0), at(1.0)] {
                    canvas.dot((v, y), 1.6, row.color, 0.8);
                }
            }
            let (shape, color, fill) = row.marker;
            canvas.mark((at(0.5), y), shape, 3.2, color, fill);
        });
    }))
}

/// Bytes of one case by kind.
#[derive(Clone, Debug)]
pub struct Bytes {
    /// Name of the case.
    pub label: String,
    /// How its peak is drawn.
    pub marker: Marker,
    /// Peak, if it was read.
    pub peak: Option<f64>,
    /// Letter, name and value of each other kind that was read.
    pub values: Vec<(char, &'static str, f64)>,
}

/// Draws the peak of each case as its mark, other kinds of memory as letters on one line. `None` for fewer than two
/// rows.
pub fn bytes(rows: &[Bytes], legend: &[LegendEntry], width: f64) -> Option<String> {
    let all = rows.iter().flat_map(|r| r.values.iter().map(|v| v.2).chain(r.peak));
    let axis = PlotAxis::log("memory", "B", all).filter(|_| rows.len() > 1)?;
    let labels: Vec<&str> = rows.iter().map(|r| r.label.as_str()).collect();
    Some(frame_of_rows(&labels, &axis, legend, width, |canvas, frame, i, y| {
        let row = &rows[i];
        let others = row.values.iter().filter(|v| v.2 > 0.0);
        let words: Vec<String> = (row.peak.iter().map(|v| format!("peak {}", scaled(*v, "B"))))
            .chain(others.clone().map(|(_, name, v)| format!("{name} {}", scaled(*v, "B"))))
            .collect();
        canvas.titled(&format!("{}: {}", row.label, words.join(", ")), |canvas| {
            let xs: Vec<f64> = others.clone().map(|v| v.2).chain(row.peak).map(|v| frame.x(&axis, v)).collect();
            let (low, high) = xs.iter().fold((f64::INFINITY, 0f64), |(a, b), x| (a.min(*x), b.max(*x)));
            if low < high {
                canvas.line(&[(low, y), (high, y)], FRONT, 0.6, 0.6);
            }
            // a letter that lies on another is left to the words
            let mut taken: Vec<f64> = row.peak.iter().map(|v| frame.x(&axis, *v)).collect();
            for (letter, _, value) in others {
                let x = frame.x(&axis, *value);
                if taken.iter().all(|t| (t - x).abs() > 7.0) {
                    canvas.label(&letter.to_string(), (x, y), SOFT, Anchor::Middle);
                    taken.push(x);
                }
            }
            if let Some(peak) = row.peak.filter(|v| *v > 0.0) {
                let (shape, color, fill) = row.marker;
                canvas.mark((frame.x(&axis, peak), y), shape, 3.8, color, fill);
            }
        });
    }))
}

/// A value of one case beside a line that means no difference.
#[derive(Clone, Debug)]
pub struct Ratio {
    /// Name of the case.
    pub label: String,
    /// How it is drawn.
    pub marker: Marker,
    /// Value, lower and upper end of its interval; the same three times without one.
    pub bar: [f64; 3],
    /// The value with its interval, as it is shown.
    pub shown: String,
}

/// Draws each value as a mark with its interval, beside a line at `same`. `None` for fewer than two rows.
pub fn ratios(axis: Option<PlotAxis>, same: f64, rows: &[Ratio], legend: &[LegendEntry], width: f64) -> Option<String> {
    let axis = axis.filter(|_| rows.len() > 1)?;
    let labels: Vec<&str> = rows.iter().map(|r| r.label.as_str()).collect();
    Some(frame_of_rows(&labels, &axis, legend, width, |canvas, frame, i, y| {
        let row = &rows[i];
        if i == 0 {
            let x = frame.x(&axis, same);
            canvas.line(&[(x, frame.top), (x, frame.bottom)], FRONT, 1.0, 1.0);
        }
        let [value, lower, upper] = row.bar.map(|v| frame.x(&axis, v));
        let (shape, color, fill) = row.marker;
        canvas.titled(&format!("{}: {}", row.label, row.shown), |canvas| {
            canvas.line(&[(lower, y), (upper, y)], color, 1.0, 1.5);
            for end in [lower, upper].iter().filter(|_| lower < upper) {
                canvas.line(&[(*end, y - 3.0), (*end, y + 3.0)], color, 1.0, 1.0);
            }
            canvas.mark((value, y), shape, 3.8, color, fill);
        });
    }))
}

fn frame_of_rows(
    labels: &[&str],
    axis: &PlotAxis,
    legend: &[LegendEntry],
    width: f64,
    mut paint: impl FnMut(&mut Canvas, &PlotArea, usize, f64),
) -> String {
    let room = LABELS * width;
    // a cut label would leave two cases with the same name: long ones take two lines, all of them alike
    let tall = labels.iter().any(|l| text_width(l, TEXT) > room);
    let row = if tall { TALL } else { ROW };
    let lines: Vec<Vec<String>> = labels.iter().map(|l| if tall { halves(l) } else { vec![(*l).to_owned()] }).collect();
    let widest = lines.iter().flatten().map(|l| text_width(l, TEXT)).fold(0.0, f64::max).min(room);
    let key = Key::new(legend, width - 20.0);
    let top = 8.0 + key.height;
    let frame =
        PlotArea { left: widest + 16.0, top, right: width - 12.0, bottom: top + row * labels.len() as f64 + 4.0 };
    draw(width, frame.bottom + 38.0, |canvas| {
        key.draw(canvas, (8.0, 2.0));
        frame.draw_x(canvas, axis);
        for (i, lines) in lines.iter().enumerate() {
            let y = frame.top + 2.0 + row * (i as f64 + 0.5);
            let first = y - 0.5 * LINE * (lines.len() - 1) as f64;
            for (k, line) in lines.iter().enumerate() {
                let at = (frame.left - 8.0, first + LINE * k as f64);
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
