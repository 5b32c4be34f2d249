//! Roofline: what each case reaches against what the machine can do at best, by arithmetic intensity.
//!
//! In: cases with a ceiling, the environment's ceilings. Out: SVG. Must not: draw a case that no measured ceiling holds for, or let two names of roofs overlap;
//! a name without room is left to the caption, which has them all.

use std::collections::BTreeSet;

use plotters::style::RGBColor;

use super::{
    Drawn, Set, WIDTH,
    axis::{Axis, Frame},
    bar,
    canvas::{Anchor, Canvas, INK, SERIES, SOFT, Shape, TEXT, draw, fitted, text_width},
    legend::{Entry, Key, Sign},
    n_of,
    scatter::{Point, label},
};
use crate::{ceiling::Ceiling, error::ReportError, format::scaled, labels::Labels, record::Record};

/// Length of a dash and of the gap after it, points.
const DASH: f64 = 4.0;

/// A flat line: the best arithmetic of a precision.
#[derive(Clone, Debug)]
pub struct Roof {
    /// Name with value.
    pub name: String,
    /// FLOP/s.
    pub peak: f64,
    /// That of the precision's cases.
    pub color: RGBColor,
}

/// A slanted line: what reading gives, bytes per second times intensity.
#[derive(Clone, Debug)]
pub struct Slope {
    /// B/s.
    pub bandwidth: f64,
    /// Drawn in dashes.
    pub dashed: bool,
}

/// Draws points, roofs and slopes; `None` without points.
pub fn roofline(
    what: &str,
    points: &[Point],
    roofs: &[Roof],
    slopes: &[Slope],
    legend: &[Entry],
    width: f64,
) -> Result<Option<String>, ReportError> {
    let highest = roofs.iter().map(|r| r.peak).fold(0.0, f64::max);
    // every slope is seen, with room for the names of roofs right of the last
    let ridges = slopes.iter().map(|s| highest / s.bandwidth).flat_map(|ridge| [ridge / 2.0, 4.0 * ridge]);
    // no axis around roofs alone
    let xs = points.iter().flat_map(|p| p.x).chain(ridges.filter(|_| !points.is_empty()));
    let x_label = "operations per byte of a step, each byte counted once";
    let Some(x_axis) = Axis::log(x_label, "FLOP/B", xs) else { return Ok(None) };
    let ys = points.iter().flat_map(|p| p.y).chain(roofs.iter().map(|r| r.peak));
    let Some(y_axis) = Axis::log("model operations per second", "FLOP/s", ys) else { return Ok(None) };
    let key = Key::new(legend, width - 56.0);
    let frame = Frame { left: 56.0, top: 10.0 + key.height, right: width - 10.0, bottom: 270.0 + key.height };
    let svg = draw(what, width, frame.bottom + 38.0, |canvas| {
        frame.draw_x(canvas, &x_axis);
        frame.draw_y(canvas, &y_axis);
        key.draw(canvas, (frame.left, 4.0));
        let place = |x: f64, y: f64| (frame.x(&x_axis, x), frame.y(&y_axis, y));
        let ((left, right), (low, _)) = (x_axis.ends(), y_axis.ends());
        for slope in slopes {
            // from where it comes into the frame to the highest roof
            let (from, to) = (left.max(low / slope.bandwidth), right.min(highest / slope.bandwidth));
            if from < to {
                let ends = [place(from, from * slope.bandwidth), place(to, to * slope.bandwidth)];
                line(canvas, ends, SOFT, slope.dashed);
            }
        }
        let fastest = slopes.iter().map(|s| s.bandwidth).fold(0.0, f64::max);
        for roof in roofs {
            let from = if fastest > 0.0 { (roof.peak / fastest).clamp(left, right) } else { left };
            line(canvas, [place(from, roof.peak), place(right, roof.peak)], roof.color, false);
        }
        let marks = points.iter().map(|p| place(p.x[0], p.y[0]));
        let marks: Vec<[f64; 4]> = marks.map(|(x, y)| [x - 5.0, y - 5.0, x + 5.0, y + 5.0]).collect();
        let mut taken = names(canvas, &frame, &y_axis, roofs, &marks);
        taken.extend(marks);
        for p in points {
            let (x, _) = place(p.x[0], p.y[0]);
            canvas.line(&[(x, frame.y(&y_axis, p.y[1])), (x, frame.y(&y_axis, p.y[2]))], p.color, 0.55, 0.9);
        }
        for p in points {
            canvas.mark(place(p.x[0], p.y[0]), p.shape, 4.0, p.color, p.hollow);
        }
        let mut named = BTreeSet::new();
        for p in points.iter().filter(|_| points.len() <= 24) {
            // the same model on another backend lies above or below it
            if named.insert(&p.label) {
                label(canvas, &frame, place(p.x[0], p.y[0]), (&p.label, INK), &mut taken, &[]);
            }
        }
    })?;
    Ok(Some(svg))
}

/// A straight line, whole or in dashes.
fn line(canvas: &mut Canvas, [from, to]: [(f64, f64); 2], color: RGBColor, dashed: bool) {
    if !dashed {
        return canvas.line(&[from, to], color, 0.9, 1.2);
    }
    let length = (to.0 - from.0).hypot(to.1 - from.1);
    let at = |d: f64| {
        let part = (d / length).min(1.0);
        (from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1))
    };
    let mut d = 0.0;
    while d < length {
        canvas.line(&[at(d), at(d + DASH)], color, 0.9, 1.2);
        d += 2.0 * DASH;
    }
}

/// Writes the names of roofs as far to the right as no mark is in the way, or at their right ends; gives the boxes (left, top, right, bottom) that they take.
fn names(canvas: &mut Canvas, frame: &Frame, axis: &Axis, roofs: &[Roof], marks: &[[f64; 4]]) -> Vec<[f64; 4]> {
    let apart = |a: &[f64; 4], b: &[f64; 4]| a[2] <= b[0] || a[0] >= b[2] || a[3] <= b[1] || a[1] >= b[3];
    let mut taken: Vec<[f64; 4]> = Vec::new();
    for roof in roofs {
        let y = frame.y(axis, roof.peak);
        let name = fitted(&roof.name, TEXT, 0.7 * (frame.right - frame.left));
        let width = text_width(&name, TEXT);
        let mut places = Vec::new();
        for middle in [y - 7.0, y + 7.5] {
            let crossed = roofs.iter().any(|r| (frame.y(axis, r.peak) - middle).abs() < 5.5);
            let mut right = frame.right;
            while !crossed && right - width - 4.0 >= frame.left {
                let place = [right - width - 4.0, middle - 6.0, right, middle + 6.0];
                let inside = place[1] >= frame.top - 12.0 && place[3] <= frame.bottom;
                if inside && taken.iter().all(|t| apart(t, &place)) {
                    places.push(place);
                }
                right -= 8.0;
            }
        }
        let seen = |place: &&[f64; 4]| marks.iter().all(|m| apart(m, place));
        let rightmost = places.iter().filter(seen).min_by(|a, b| b[2].total_cmp(&a[2])).or(places.first());
        if let Some(place) = rightmost {
            canvas.text(&name, (place[2] - 2.0, (place[1] + place[3]) / 2.0), TEXT, roof.color, Anchor::End);
            taken.push(*place);
        }
    }
    taken
}

/// Colour of a precision in this plot.
fn precision_color(precision: &str) -> RGBColor {
    match precision {
        "f32" => SERIES[1],
        "bf16" => SERIES[0],
        "int8" => SERIES[2],
        _ => SERIES[3],
    }
}

fn of_threads(n: u32) -> String {
    format!("{n} thread{}", if n == 1 { "" } else { "s" })
}

impl Set<'_> {
    /// The roofline plot of the cases that have a share of their ceiling.
    pub(super) fn roofline(&self) -> Drawn {
        let Some(ceilings) = &self.report.run.environment.ceilings else { return Ok(None) };
        let held = |c: &&&crate::load::CaseRun| self.report.value(&c.case, "share_of_ceiling").is_some();
        let cases: Vec<_> = self.cases.iter().filter(held).collect();
        let labels = Labels::of_models(cases.iter().map(|c| &c.case));
        let mut points = Vec::new();
        let mut rates: Vec<&Record> = Vec::new();
        let mut kinds = BTreeSet::new();
        for c in &cases {
            let key = &c.case.key;
            let intensity = c.case.costs.and_then(|costs| costs.intensity(key.batch));
            let (Some(x), Some(achieved)) = (intensity, self.report.record(&c.case, "flop_rate")) else { continue };
            let Some(y) = bar(achieved) else { continue };
            kinds.insert((key.precision.as_str(), key.threads));
            points.push(Point {
                x: [x; 3],
                y,
                color: precision_color(&key.precision),
                shape: self.shape(&key.backend),
                hollow: key.batch > 1,
                label: labels.short(&c.case.id).to_owned(),
            });
            rates.push(achieved);
        }
        let threads = kinds.iter().map(|k| k.1).max().unwrap_or(0);
        // a roof is that of the machine, whatever instruction set a single case is held to
        let best: Vec<(&str, u32, &Ceiling)> =
            kinds.iter().filter_map(|&(p, n)| Some((p, n, ceilings.of(p, "", n).ok()?))).collect();
        let named = |&(precision, n, c): &(&str, u32, &Ceiling)| {
            format!("{precision}, {}: {}", of_threads(n), scaled(c.best, "FLOP/s"))
        };
        let roofs: Vec<Roof> =
            (best.iter()).map(|b| Roof { name: named(b), peak: b.2.best, color: precision_color(b.0) }).collect();
        let reading: Vec<&Ceiling> = ceilings.slopes(threads).collect();
        let slopes: Vec<Slope> =
            reading.iter().map(|c| Slope { bandwidth: c.best, dashed: c.name == "read.dram" }).collect();
        let precisions: BTreeSet<&str> = kinds.iter().map(|k| k.0).collect();
        let circle = |color, hollow| Sign::Mark(Shape::Circle, color, hollow);
        let mut legend: Vec<Entry> =
            (precisions.iter()).map(|p| Entry { sign: circle(precision_color(p), false), name: (*p).into() }).collect();
        if self.backends.len() > 1 {
            let sign = |b: &str| Sign::Mark(self.shape(b), SOFT, false);
            legend.extend(self.backends.iter().map(|b| Entry { sign: sign(b), name: (*b).into() }));
        }
        if points.iter().any(|p| p.hollow) {
            legend.push(Entry { sign: circle(SOFT, true), name: "batched".into() });
        }
        legend.extend(reading.iter().map(|c| Entry {
            sign: if c.name == "read.dram" { Sign::Dashes } else { Sign::Stroke },
            name: format!("{} {}", c.name, scaled(c.best, "B/s")),
        }));
        let svg = roofline("the roofline plot", &points, &roofs, &slopes, &legend, WIDTH)?;
        let flat: Vec<String> =
            best.iter().map(|b| format!("{} ({}, best of {})", named(b), b.2.name, b.2.n)).collect();
        let caption = format!(
            "{}: what {} cases reach of the model's operations, against operations per byte of a supervision step: its weights once at the \
             precision's size, and what its operators read and write once, at the full batch. Bars: 95 % intervals (t over batches of \
             iterations, {}). Flat: the machine's best arithmetic, {}. Slanted: reading with {}. Values that stay in a cache need no \
             memory, so a case may lie above a slope.",
            self.task,
            points.len(),
            n_of(&rates),
            flat.join("; "),
            of_threads(threads),
        );
        Ok(svg.map(|svg| (svg, caption)))
    }
}
