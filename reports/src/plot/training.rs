//! Accuracy over the course of trainings, against what they took so far: one line a net.
//!
//! In: logs. Out: SVG with its caption. Must not: draw trainings of unlike tasks in one frame, or go on with a line
//! where its log ends.

use super::{
    Plot, WIDTH,
    axis::PlotAxis,
    framed::{Sizes, framed},
    legend::{LegendEntry, LegendSymbol},
    palette::{DASHES, Fill, MarkerShape, SERIES, SOFT},
};
use crate::training::{LogPoint, TrainingCourse};

/// The plots of trainings of one task: against seconds, operations and joules. What no log has is not drawn.
pub fn plots(trainings: &[&TrainingCourse], targets: &[f64]) -> Vec<Plot> {
    type Cost = fn(&LogPoint) -> Option<f64>;
    let axes: [(&str, &str, &str, &str, Cost); 3] = [
        ("seconds", "Accuracy against seconds of training", "seconds of training", "s", |p| Some(p.seconds)),
        ("flops", "Accuracy against operations of training", "operations of training", "FLOP", |p| p.flops),
        ("joules", "Accuracy against energy of training", "energy of the board", "J", LogPoint::joules),
    ];
    let mut plots = Vec::new();
    for (kind, title, name, unit, cost) in axes {
        // of a counter that went back, nothing is right
        let drawn: Vec<&TrainingCourse> = trainings
            .iter()
            .copied()
            .filter(|t| kind != "joules" || t.log.no_joules.is_none())
            .filter(|t| t.log.points.iter().any(|p| cost(p).is_some_and(|c| c > 0.0)))
            .collect();
        let Some(svg) = draw(&drawn, (name, unit), cost, targets) else { continue };
        plots.push(Plot {
            name: format!("training-{kind}"),
            title: title.into(),
            caption: caption(&drawn, name),
            main: true,
            svg,
        });
    }
    plots
}

fn caption(drawn: &[&TrainingCourse], name: &str) -> String {
    let each = |of: fn(&TrainingCourse) -> String| {
        let mut all: Vec<String> = drawn.iter().map(|t| of(t)).collect();
        all.sort();
        all.dedup();
        all.join(", ")
    };
    let ns = each(|t| {
        let ns = t.log.points.iter().map(|p| p.n);
        match (ns.clone().min(), ns.max()) {
            (Some(low), Some(high)) if low < high => format!("{low} to {high}"),
            (low, _) => low.unwrap_or(0).to_string(),
        }
    });
    let bands = if drawn.iter().any(|t| t.log.questions) {
        "no bands: of questions the logs tell no number"
    } else {
        "bands: Wilson 95 % intervals"
    };
    format!(
        "{}: held-out accuracy ({} depth) at each evaluation against {name}; {bands}, n = {ns}. Dashed: the accuracies asked for. Held out: {}. On {}.",
        each(|t| t.task.clone()),
        each(|t| t.depth.name().into()),
        each(|t| t.data.clone()),
        each(|t| t.hardware.clone())
    )
}

/// Cost, accuracy, and the ends of its interval.
type CurvePoint = (f64, f64, f64, f64);

fn draw(
    drawn: &[&TrainingCourse],
    (name, unit): (&str, &str),
    cost: fn(&LogPoint) -> Option<f64>,
    targets: &[f64],
) -> Option<String> {
    let points = |t: &TrainingCourse| -> Vec<CurvePoint> {
        let questions = t.log.questions;
        let point = |p: &LogPoint| {
            let (low, high) = p.interval(questions).unwrap_or((p.accuracy, p.accuracy));
            Some((cost(p).filter(|c| *c > 0.0)?, p.accuracy, low, high))
        };
        let all: Vec<_> = t.log.points.iter().filter_map(point).collect();
        // a plot is not wider than a few hundred of them; the last is always there
        let every = all.len().div_ceil(400).max(1);
        let last = all.len().saturating_sub(1);
        all.into_iter().enumerate().filter(|(i, _)| i % every == 0 || *i == last).map(|(_, p)| p).collect()
    };
    let curves: Vec<(&TrainingCourse, Vec<CurvePoint>)> = drawn.iter().map(|t| (*t, points(t))).collect();
    let all = || curves.iter().flat_map(|(_, points)| points);
    let x_axis = PlotAxis::log(name, unit, all().map(|p| p.0))?;
    let y_axis = PlotAxis::share("held-out accuracy", all().map(|p| p.2).chain(targets.iter().copied()))?;
    let sign = |i: usize| (SERIES[i % SERIES.len()], DASHES[i / SERIES.len() % DASHES.len()]);
    // a line may end anywhere, so that names at the edge would not say whose it is
    let entry = |(i, (t, _)): (usize, &(&TrainingCourse, _))| {
        let (color, dash) = sign(i);
        LegendEntry { symbol: LegendSymbol::Line(color, dash), name: t.model.clone() }
    };
    let legend: Vec<LegendEntry> = curves.iter().enumerate().map(entry).collect();
    let sizes = Sizes { width: WIDTH, height: 240.0, left: 48.0, names: 0.0 };
    Some(framed(sizes, (&x_axis, &y_axis), &legend, |canvas, frame| {
        let place = |x: f64, y: f64| (frame.x(&x_axis, x), frame.y(&y_axis, y));
        for target in targets {
            let y = frame.y(&y_axis, *target);
            canvas.titled(&format!("asked for: {:.1} %", 100.0 * target), |canvas| {
                canvas.dashed(&[(frame.left, y), (frame.right, y)], SOFT, 0.8, 0.75, DASHES[2]);
            });
        }
        for (i, (_, points)) in curves.iter().enumerate() {
            let upper = points.iter().map(|p| place(p.0, p.3));
            let lower = points.iter().rev().map(|p| place(p.0, p.2));
            canvas.area(&upper.chain(lower).collect::<Vec<_>>(), sign(i).0, 0.15);
        }
        for (i, (t, points)) in curves.iter().enumerate() {
            let (color, dash) = sign(i);
            let line: Vec<_> = points.iter().map(|p| place(p.0, p.1)).collect();
            let best = t.log.best();
            let title = format!("{}: at most {:.2} %, at step {}", t.model, 100.0 * best.accuracy, best.step);
            canvas.titled(&title, |canvas| {
                canvas.dashed(&line, color, 1.0, 1.6, dash);
                for at in line.iter().filter(|_| line.len() <= 24) {
                    canvas.mark(*at, MarkerShape::Circle, 2.4, color, Fill::Full);
                }
            });
        }
    }))
}
