//! Roofline: what each case reaches against what the machine can do at best, by arithmetic intensity.
//!
//! In: cases with a ceiling, the environment's ceilings. Out: SVG. Must not: draw a case that no measured ceiling holds for, or let two names of roofs overlap;
//! a name without room is left to the caption, which has them all.

use std::collections::BTreeSet;

use super::{
    Drawn, Set, WIDTH,
    axis::{Axis, Frame},
    bar,
    canvas::{Anchor, Canvas, Dash, INK, SOFT, TEXT, draw, fitted, text_width},
    legend::{Entry, Key, Sign},
    mark_title, n_of,
    scatter::{Point, apart, label},
};
use crate::{ceiling::Ceiling, format::scaled, labels::Labels, record::Record};

/// A flat line: the best arithmetic of a precision.
#[derive(Clone, Debug)]
pub struct Roof {
    /// Name with value.
    pub name: String,
    /// FLOP/s.
    pub peak: f64,
    /// Dashes of the precision.
    pub dash: Dash,
}

/// A slanted line: what reading gives, bytes per second times intensity.
#[derive(Clone, Debug)]
pub struct Slope {
    /// Name with value.
    pub name: String,
    /// B/s.
    pub bandwidth: f64,
    /// Its dashes.
    pub dash: Dash,
}

/// Draws points, roofs and slopes; `None` for fewer than two points.
pub fn roofline(points: &[Point], roofs: &[Roof], slopes: &[Slope], legend: &[Entry], width: f64) -> Option<String> {
    if points.len() < 2 {
        return None;
    }
    let highest = roofs.iter().map(|r| r.peak).fold(0.0, f64::max);
    // every slope is seen, with room for the names of roofs right of the last
    let ridges = slopes.iter().map(|s| highest / s.bandwidth).flat_map(|ridge| [ridge / 2.0, 4.0 * ridge]);
    let x_label = "operations per byte of a step, each byte counted once";
    let x_axis = Axis::log(x_label, "FLOP/B", points.iter().flat_map(|p| p.x).chain(ridges))?;
    let ys = points.iter().flat_map(|p| p.y).chain(roofs.iter().map(|r| r.peak));
    let y_axis = Axis::log("model operations per second", "FLOP/s", ys)?;
    let key = Key::new(legend, width - 56.0);
    let frame = Frame { left: 56.0, top: 10.0 + key.height, right: width - 10.0, bottom: 270.0 + key.height };
    Some(draw(width, frame.bottom + 38.0, |canvas| {
        frame.draw_x(canvas, &x_axis);
        frame.draw_y(canvas, &y_axis);
        key.draw(canvas, (frame.left, 4.0));
        let place = |x: f64, y: f64| (frame.x(&x_axis, x), frame.y(&y_axis, y));
        let ((left, right), (low, _)) = (x_axis.ends(), y_axis.ends());
        let mut slanted = Vec::new();
        for slope in slopes {
            // from where it comes into the frame to the highest roof
            let (from, to) = (left.max(low / slope.bandwidth), right.min(highest / slope.bandwidth));
            if from < to {
                let ends = [place(from, from * slope.bandwidth), place(to, to * slope.bandwidth)];
                canvas.titled(&slope.name, |canvas| canvas.dashed(&ends, SOFT, 1.0, 1.2, slope.dash));
                slanted.push((ends, slope));
            }
        }
        let fastest = slopes.iter().map(|s| s.bandwidth).fold(0.0, f64::max);
        for roof in roofs {
            let from = if fastest > 0.0 { (roof.peak / fastest).clamp(left, right) } else { left };
            let ends = [place(from, roof.peak), place(right, roof.peak)];
            canvas.titled(&roof.name, |canvas| canvas.dashed(&ends, INK, 1.0, 1.2, roof.dash));
        }
        let marks = points.iter().map(|p| place(p.x[0], p.y[0]));
        let marks: Vec<[f64; 4]> = marks.map(|(x, y)| [x - 5.0, y - 5.0, x + 5.0, y + 5.0]).collect();
        let lines: Vec<[(f64, f64); 2]> = slanted.iter().map(|s: &Slanted| s.0).collect();
        let mut taken = names(canvas, &frame, &y_axis, roofs, (&marks, &lines));
        taken.extend(marks);
        let flat: Vec<f64> = roofs.iter().map(|r| frame.y(&y_axis, r.peak)).collect();
        for k in 0..slanted.len() {
            slope_name(canvas, &frame, &slanted, k, &flat, &mut taken);
        }
        for p in points {
            let (x, _) = place(p.x[0], p.y[0]);
            canvas.line(&[(x, frame.y(&y_axis, p.y[1])), (x, frame.y(&y_axis, p.y[2]))], p.color, 0.55, 0.9);
        }
        for p in points {
            let at = place(p.x[0], p.y[0]);
            canvas.titled(&p.title, |canvas| canvas.mark(at, p.shape, 4.0, p.color, p.fill));
        }
        let mut named = BTreeSet::new();
        for p in points.iter().filter(|_| points.len() <= 24) {
            // the same model on another backend lies above or below it
            if named.insert(&p.label) {
                label(canvas, &frame, place(p.x[0], p.y[0]), (&p.label, INK), &mut taken, &[]);
            }
        }
    }))
}

type Slanted<'a> = ([(f64, f64); 2], &'a Slope);

/// Writes the name of a slope below it, where it crosses no line, mark or other name; without such a place it is left to the key.
fn slope_name(
    canvas: &mut Canvas,
    frame: &Frame,
    slopes: &[Slanted],
    k: usize,
    roofs: &[f64],
    taken: &mut Vec<[f64; 4]>,
) {
    let ([from, to], slope) = &slopes[k];
    let width = text_width(&slope.name, TEXT);
    for i in 1..20 {
        let part = f64::from(i) / 20.0;
        let (x, y) = (from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1));
        let place = [x + 4.0, y + 3.0, x + 8.0 + width, y + 16.0];
        let inside = place[2] < frame.right && place[3] < frame.bottom;
        let crossed = slopes.iter().any(|(ends, _)| crosses(ends, &place))
            || roofs.iter().any(|y| (place[1]..place[3]).contains(y));
        if inside && !crossed && taken.iter().all(|t| apart(t, &place)) {
            canvas.text(&slope.name, (place[0] + 2.0, (place[1] + place[3]) / 2.0), TEXT, SOFT, Anchor::Start);
            taken.push(place);
            return;
        }
    }
}

/// Whether a line passes through a box.
fn crosses([from, to]: &[(f64, f64); 2], place: &[f64; 4]) -> bool {
    (0..=200).any(|i| {
        let part = f64::from(i) / 200.0;
        let (x, y) = (from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1));
        (place[0]..place[2]).contains(&x) && (place[1]..place[3]).contains(&y)
    })
}

/// The ends of a straight line.
type Segment = [(f64, f64); 2];

/// Writes the names of roofs as far to the right as no mark or slope is in the way, or at their right ends; gives the boxes (left, top, right, bottom) that they take.
fn names(
    canvas: &mut Canvas,
    frame: &Frame,
    axis: &Axis,
    roofs: &[Roof],
    (marks, lines): (&[[f64; 4]], &[Segment]),
) -> Vec<[f64; 4]> {
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
        let seen =
            |place: &&[f64; 4]| marks.iter().all(|m| apart(m, place)) && lines.iter().all(|line| !crosses(line, place));
        let rightmost = places.iter().filter(seen).min_by(|a, b| b[2].total_cmp(&a[2])).or(places.first());
        if let Some(place) = rightmost {
            canvas.text(&name, (place[2] - 2.0, (place[1] + place[3]) / 2.0), TEXT, INK, Anchor::End);
            taken.push(*place);
        }
    }
    taken
}

/// What a ceiling of reading is read from.
fn plain_name(name: &str) -> String {
    match name.strip_prefix("read.") {
        Some("dram") => "memory".into(),
        Some(level) => format!("level {} cache", level.trim_start_matches('l')),
        None => name.to_owned(),
    }
}

fn of_threads(n: u32) -> String {
    format!("{n} thread{}", if n == 1 { "" } else { "s" })
}

impl Set<'_> {
    /// The roofline plot of the cases that have a share of their ceiling.
    pub(super) fn roofline(&self) -> Drawn {
        let ceilings = self.report.run.environment.ceilings.as_ref()?;
        let held = |c: &&&crate::load::CaseRun| self.report.value(&c.case, "share_of_ceiling").is_some();
        let cases: Vec<_> = self.cases.iter().filter(held).collect();
        let labels = Labels::of_models(cases.iter().map(|c| &c.case));
        let mut points = Vec::new();
        let mut rates: Vec<&Record> = Vec::new();
        let mut kinds = BTreeSet::new();
        let mut keys = Vec::new();
        for c in &cases {
            let key = &c.case.key;
            let intensity = c.case.costs.and_then(|costs| costs.intensity(key.batch));
            let (Some(x), Some(achieved)) = (intensity, self.report.record(&c.case, "flop_rate")) else { continue };
            let Some(y) = bar(achieved) else { continue };
            kinds.insert((key.precision.as_str(), key.threads));
            let share = self.report.record(&c.case, "share_of_ceiling");
            points.push(Point {
                x: [x; 3],
                y,
                color: self.look.color(key),
                shape: self.look.shape(key),
                fill: self.look.fill(key),
                label: labels.short(&c.case.id).to_owned(),
                title: mark_title(&c.case, &[("", Some(achieved)), ("share of the ceiling", share)]),
            });
            rates.push(achieved);
            keys.push(key);
        }
        let threads = kinds.iter().map(|k| k.1).max().unwrap_or(0);
        // a roof is that of the machine, whatever instruction set a single case is held to
        let best: Vec<(&str, u32, &Ceiling)> =
            kinds.iter().filter_map(|&(p, n)| Some((p, n, ceilings.of(p, "", n).ok()?))).collect();
        let named = |&(precision, n, c): &(&str, u32, &Ceiling)| {
            format!("{precision} arithmetic, {}: {}", of_threads(n), scaled(c.best, "FLOP/s"))
        };
        let roofs: Vec<Roof> =
            (best.iter()).map(|b| Roof { name: named(b), peak: b.2.best, dash: self.look.dash(b.0) }).collect();
        let reading = ceilings.slopes(threads);
        let slopes: Vec<Slope> = reading
            .map(|c| {
                let name = format!("{}: {}", plain_name(&c.name), scaled(c.best, "B/s"));
                // slanted lines are memory and the last cache
                let dash = if c.name == "read.dram" { Dash::Dots } else { Dash::DashDot };
                Slope { name, bandwidth: c.best, dash }
            })
            .collect();
        let mut legend = self.look.entries(&keys);
        legend.extend(slopes.iter().map(|s| Entry { sign: Sign::Line(SOFT, s.dash), name: s.name.clone() }));
        let svg = roofline(&points, &roofs, &slopes, &legend, WIDTH)?;
        let flat: Vec<String> =
            best.iter().map(|b| format!("{} ({}, best of {})", named(b), b.2.name, b.2.n)).collect();
        let slanted: Vec<&str> = slopes.iter().map(|s| s.name.as_str()).collect();
        let caption = format!(
            "{}: what {} cases reach of the model's operations, against operations per byte of a supervision step: its weights once at the \
             precision's size, and what its operators read and write once, at the full batch. Bars: 95 % intervals ({}). Flat lines: the \
             machine's best arithmetic, {}. Slanted lines: what reading allows with {}, {}. Values that stay in a cache need no memory, so a \
             case may lie above the line of memory.",
            self.task,
            points.len(),
            n_of(&rates),
            flat.join("; "),
            of_threads(threads),
            slanted.join(", "),
        );
        Some((svg, caption))
    }
}
