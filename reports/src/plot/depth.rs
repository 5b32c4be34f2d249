//! Accuracy against recursion depth, one line per model; a thin line carries the last answer on, so that one-shot
//! models can be compared.
//!
//! In: scored answers, or decided attempts, after each depth. Out: SVG. Must not: forget an example that halted early;
//! its answer stands at every later depth.

use std::collections::BTreeMap;

use super::baseline;
use super::{
    axis::PlotAxis,
    framed::{Sizes, end_names, framed, room},
    legend::LegendEntry,
    palette::{Dash, Fill, MarkerShape, Rgb},
};
use crate::{
    answers::{share_decided, share_right},
    case::Prediction,
    metric::Right,
    questions::of_record,
    stats::Estimate,
    store::CaseRun,
};

/// One line.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Name of the model.
    pub label: String,
    /// Its colour.
    pub color: Rgb,
    /// How its line is broken.
    pub dash: Dash,
    /// Depth, accuracy, lower, upper; by rising depth.
    pub points: Vec<(u32, f64, f64, f64)>,
    /// Mean depth and accuracy of the answers of record.
    pub stop: Option<(f64, f64)>,
}

impl Curve {
    /// The curve of a case that is scored by itself, by the measure of its task: questions where it decides them, else
    /// examples.
    pub fn new(label: String, (color, dash): (Rgb, Dash), case: &CaseRun) -> Self {
        let last: Vec<&Prediction> = case.predictions.iter().filter(|p| p.last).collect();
        let mean = last.iter().map(|p| f64::from(p.depth)).sum::<f64>() / last.len() as f64;
        let (points, record) = if case.case.questions > 0 {
            let mut depths: Vec<u32> = case.attempts.iter().map(|a| a.depth).collect();
            let at = |depth: u32| share_decided(case.attempts.iter().filter(move |a| a.depth == depth));
            (points(&mut depths, at), share_decided(of_record(&case.attempts)))
        } else {
            (by_rows(&case.predictions), share_right(&last, Right::Rows))
        };
        Self { label, color, dash, points, stop: record.map(|s| (mean, s.value)) }
    }
}

impl Curve {
    /// Its ends in words.
    fn title(&self) -> String {
        let at = |&(depth, share, lower, upper): &(u32, f64, f64, f64)| {
            let share = format!("{:.1} %", 100.0 * share);
            match lower < upper {
                true => format!("{share} ({:.1}–{:.1}) after {depth}", 100.0 * lower, 100.0 * upper),
                false => format!("{share} after {depth}"),
            }
        };
        match (self.points.first(), self.points.last()) {
            (Some(first), Some(last)) if first.0 < last.0 => {
                format!("{}: accuracy {}, {}", self.label, at(first), at(last))
            }
            (Some(only), _) => format!("{}: accuracy {}", self.label, at(only)),
            _ => self.label.clone(),
        }
    }
}

/// Scores every depth: an example's answer at a depth is the one after the most steps up to it.
fn by_rows(predictions: &[Prediction]) -> Vec<(u32, f64, f64, f64)> {
    let mut by_example: BTreeMap<u64, Vec<&Prediction>> = BTreeMap::new();
    for p in predictions {
        by_example.entry(p.example).or_default().push(p);
    }
    by_example.values_mut().for_each(|answers| answers.sort_by_key(|p| p.depth));
    let mut depths: Vec<u32> = predictions.iter().map(|p| p.depth).collect();
    points(&mut depths, |depth| {
        let answers: Vec<&Prediction> =
            by_example.values().filter_map(|a| a[..a.partition_point(|p| p.depth <= depth)].last().copied()).collect();
        // before every example has an answer, the share is of another set
        share_right(&answers, Right::Rows).filter(|_| answers.len() == by_example.len())
    })
}

/// A curve's points; a plot is not wider than a few hundred of them.
fn points(depths: &mut Vec<u32>, at: impl Fn(u32) -> Option<Estimate>) -> Vec<(u32, f64, f64, f64)> {
    depths.sort_unstable();
    depths.dedup();
    let every = depths.len().div_ceil(256).max(1);
    let point = |depth: &u32| {
        let share = at(*depth)?;
        let (lower, upper) = share.interval.unwrap_or((share.value, share.value));
        Some((*depth, share.value, lower, upper))
    };
    depths.iter().step_by(every).filter_map(point).collect()
}

/// Draws the curves; `None` where no model has more than one depth.
pub fn depth(curves: &[Curve], baselines: &[(String, f64)], legend: &[LegendEntry], width: f64) -> Option<String> {
    let most = curves.iter().flat_map(|c| c.points.iter().map(|p| p.0)).max().unwrap_or(0);
    let shares = curves.iter().flat_map(|c| c.points.iter().map(|p| p.2));
    let y_axis = PlotAxis::share("accuracy", shares.chain(baselines.iter().map(|b| b.1)))?;
    if curves.iter().all(|c| c.points.len() < 2) {
        return None;
    }
    let x_axis = PlotAxis::counts("supervision steps", most);
    let names = room(curves.iter().map(|c| c.label.as_str()), 0.3 * width);
    let sizes = Sizes { width, height: 240.0, left: 48.0, names };
    Some(framed(sizes, (&x_axis, &y_axis), legend, |canvas, frame| {
        baseline::draw(canvas, frame, &y_axis, baselines);
        let place = |d: f64, a: f64| (frame.x(&x_axis, d), frame.y(&y_axis, a));
        for c in curves {
            let upper = c.points.iter().map(|p| place(p.0.into(), p.3));
            let lower = c.points.iter().rev().map(|p| place(p.0.into(), p.2));
            canvas.area(&upper.chain(lower).collect::<Vec<_>>(), c.color, 0.15);
        }
        for c in curves {
            let line: Vec<_> = c.points.iter().map(|p| place(p.0.into(), p.1)).collect();
            canvas.titled(&c.title(), |canvas| {
                canvas.dashed(&line, c.color, 1.0, 1.6, c.dash);
                if let Some((x, y)) = line.last().copied() {
                    canvas.dashed(&[(x, y), (frame.right, y)], c.color, 0.55, 0.8, c.dash);
                }
                if let ([only], Some((d, _, lower, upper))) = (line.as_slice(), c.points.first()) {
                    canvas.line(&[place((*d).into(), *lower), place((*d).into(), *upper)], c.color, 0.55, 0.9);
                    canvas.mark(*only, MarkerShape::Circle, 3.2, c.color, Fill::Full);
                }
            });
        }
        for c in curves {
            if let Some((steps, accuracy)) = c.stop.filter(|_| c.points.len() > 1) {
                let title = format!(
                    "{}: the halting rule stops after {steps:.2} steps on average, accuracy {:.1} %",
                    c.label,
                    100.0 * accuracy
                );
                canvas.titled(&title, |canvas| canvas.stop(place(steps, accuracy), c.color));
            }
        }
        let ends = curves.iter().filter_map(|c| Some((frame.y(&y_axis, c.points.last()?.1), c.label.as_str())));
        end_names(canvas, frame, names, ends.collect());
    }))
}
