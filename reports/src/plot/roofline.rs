//! Roofline: what each case reaches against what the machine can do at best, by arithmetic intensity.
//!
//! In: cases with a ceiling, the environment's ceilings. Out: SVG. Must not: draw a case that no measured ceiling holds
//! for, or let a name lie on a line or another name: lines are named in the key.

use std::collections::BTreeSet;

use super::{
    Drawn, Set, WIDTH,
    axis::PlotAxis,
    bar,
    framed::{Sizes, framed},
    legend::{LegendEntry, LegendSymbol},
    palette::{Dash, INK, SOFT},
    scatter::{Point, label, told_by_color},
    words::{intervals, mark_title},
};
use crate::{ceiling::MachineCeiling, format::scaled, labels::Labels, record::Record};

/// Peaks whose lines would lie on each other.
const SAME: f64 = 0.03;

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
pub fn roofline(
    points: &[Point],
    roofs: &[Roof],
    slopes: &[Slope],
    legend: &[LegendEntry],
    width: f64,
) -> Option<String> {
    if points.len() < 2 {
        return None;
    }
    let highest = roofs.iter().map(|r| r.peak).fold(0.0, f64::max);
    // every slope is seen, and the roof right of the last
    let ridges = slopes.iter().map(|s| highest / s.bandwidth).flat_map(|ridge| [ridge / 2.0, 4.0 * ridge]);
    let x_label = "operations per byte of a step, each byte counted once";
    let x_axis = PlotAxis::log(x_label, "FLOP/B", points.iter().flat_map(|p| p.x).chain(ridges))?;
    let ys = points.iter().flat_map(|p| p.y).chain(roofs.iter().map(|r| r.peak));
    let y_axis = PlotAxis::log("model operations per second", "FLOP/s", ys)?;
    let sizes = Sizes { width, height: 260.0, left: 56.0, names: 0.0 };
    Some(framed(sizes, (&x_axis, &y_axis), legend, |canvas, frame| {
        let place = |x: f64, y: f64| (frame.x(&x_axis, x), frame.y(&y_axis, y));
        let ((left, right), (low, _)) = (x_axis.ends(), y_axis.ends());
        // what no name may lie on
        let mut lines: Vec<[f64; 4]> = Vec::new();
        for slope in slopes {
            // from where it comes into the frame to the highest roof
            let (from, to) = (left.max(low / slope.bandwidth), right.min(highest / slope.bandwidth));
            if from < to {
                let ends = [place(from, from * slope.bandwidth), place(to, to * slope.bandwidth)];
                canvas.titled(&slope.name, |canvas| canvas.dashed(&ends, SOFT, 1.0, 1.2, slope.dash));
                lines.extend(boxes_along(ends));
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
        lines.extend(points.iter().map(|p| {
            let x = frame.x(&x_axis, p.x[0]);
            [x - 1.0, frame.y(&y_axis, p.y[2]), x + 1.0, frame.y(&y_axis, p.y[1])]
        }));
        let mut taken = marks;
        lines.extend(
            roofs.iter().map(|r| frame.y(&y_axis, r.peak)).map(|y| [frame.left, y - 1.0, frame.right, y + 1.0]),
        );
        for p in points {
            let (x, _) = place(p.x[0], p.y[0]);
            canvas.line(&[(x, frame.y(&y_axis, p.y[1])), (x, frame.y(&y_axis, p.y[2]))], p.color, 0.55, 0.9);
        }
        for p in points {
            let at = place(p.x[0], p.y[0]);
            canvas.titled(&p.title, |canvas| canvas.mark(at, p.shape, 4.0, p.color, p.fill));
        }
        let mut named = BTreeSet::new();
        for (i, p) in points.iter().enumerate().filter(|_| points.len() <= 24) {
            // the same model on another backend lies above or below it
            if named.insert(&p.label) {
                let must = !told_by_color(points, i);
                label(canvas, frame, place(p.x[0], p.y[0]), (&p.label, INK), &mut taken, (&lines, must));
            }
        }
    }))
}

/// Small boxes that cover a straight line.
fn boxes_along([from, to]: [(f64, f64); 2]) -> impl Iterator<Item = [f64; 4]> {
    const PIECES: u32 = 100;
    let at = move |i: u32| {
        let part = f64::from(i) / f64::from(PIECES);
        (from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1))
    };
    (0..PIECES).map(move |i| {
        let (a, b) = (at(i), at(i + 1));
        [a.0.min(b.0) - 1.0, a.1.min(b.1) - 1.0, a.0.max(b.0) + 1.0, a.1.max(b.1) + 1.0]
    })
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
        let held = |c: &&&crate::store::CaseRun| self.report.value(&c.case, "share_of_ceiling").is_some();
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
                color: self.appearance.color(key),
                shape: self.appearance.shape(key),
                fill: self.appearance.fill(key),
                label: labels.short(&c.case.id).to_owned(),
                title: mark_title(&c.case, &[("", Some(achieved)), ("share of the ceiling", share)]),
            });
            rates.push(achieved);
            keys.push(key);
        }
        let threads = kinds.iter().map(|k| k.1).max().unwrap_or(0);
        // a roof is that of the machine, whatever instruction set a single case is held to
        let best: Vec<(&str, u32, &MachineCeiling)> =
            kinds.iter().filter_map(|&(p, n)| Some((p, n, ceilings.of(p, "", n).ok()?))).collect();
        let roofs = self.roofs(&best);
        let reading = ceilings.slopes(threads);
        let slopes: Vec<Slope> = reading
            .map(|c| {
                let name = format!("{}: {}", plain_name(&c.name), scaled(c.best, "B/s"));
                // slanted lines are memory and the last cache
                let dash = if c.name == "read.dram" { Dash::Dots } else { Dash::DashDot };
                Slope { name, bandwidth: c.best, dash }
            })
            .collect();
        let mut legend = self.appearance.entries(&keys);
        legend.extend(
            roofs.iter().map(|r| LegendEntry { symbol: LegendSymbol::Line(INK, r.dash), name: r.name.clone() }),
        );
        legend.extend(
            slopes.iter().map(|s| LegendEntry { symbol: LegendSymbol::Line(SOFT, s.dash), name: s.name.clone() }),
        );
        let svg = roofline(&points, &roofs, &slopes, &legend, WIDTH)?;
        let held_to: BTreeSet<String> = best.iter().map(|b| format!("{}, best of {}", b.2.name, b.2.n)).collect();
        let held_to = held_to.into_iter().collect::<Vec<_>>().join("; ");
        let flat: Vec<&str> = roofs.iter().map(|r| r.name.as_str()).collect();
        let slanted: Vec<&str> = slopes.iter().map(|s| s.name.as_str()).collect();
        let caption = format!(
            "{}: what {} cases reach of the model's operations, against operations per byte of a supervision step: its weights once at the \
             precision's size, and what its operators read and write once, at the full batch. {} Flat lines: the \
             machine's best arithmetic, {} ({held_to}). Slanted lines: what reading allows with {}, {}. Values that stay in a cache need no memory, so a \
             case may lie above the line of memory.",
            self.task,
            points.len(),
            intervals("Bars", &[("", &rates)]),
            flat.join("; "),
            of_threads(threads),
            slanted.join(", "),
        );
        Some((svg, caption))
    }

    /// The best arithmetic of each precision and number of threads; those of a precision that no eye could tell apart
    /// are one.
    fn roofs(&self, best: &[(&str, u32, &MachineCeiling)]) -> Vec<Roof> {
        let mut groups: Vec<Vec<(&str, u32, &MachineCeiling)>> = Vec::new();
        for roof in best.iter().copied() {
            let alike = |g: &&mut Vec<(&str, u32, &MachineCeiling)>| {
                g[0].0 == roof.0 && (roof.2.best / g[0].2.best - 1.0).abs() < SAME
            };
            match groups.iter_mut().find(alike) {
                Some(group) => group.push(roof),
                None => groups.push(vec![roof]),
            }
        }
        let one = |group: &Vec<(&str, u32, &MachineCeiling)>| {
            let threads: Vec<String> = group.iter().map(|g| g.1.to_string()).collect();
            let plural = if threads == ["1"] { "" } else { "s" };
            let peak = group.iter().map(|g| g.2.best).fold(0.0, f64::max);
            let name = format!(
                "{} arithmetic, {} thread{plural}: {}",
                group[0].0,
                threads.join(" or "),
                scaled(peak, "FLOP/s")
            );
            Roof { name, peak, dash: self.appearance.dash(group[0].0) }
        };
        groups.iter().map(one).collect()
    }
}
