//! Accuracy against a cost, one mark per case, with the Pareto front.
//!
//! In: points with intervals. Out: SVG. Must not: let two labels overlap; a label without room is left out (the legend
//! still tells).

use super::{
    axis::{PlotArea, PlotAxis},
    baseline,
    canvas::{Anchor, Canvas, TEXT, text_width},
    framed::{Sizes, framed},
    legend::LegendEntry,
    palette::{Dash, FRONT, Fill, INK, MarkerShape, Rgb, SOFT},
};

/// One mark.
#[derive(Clone, Debug)]
pub struct Point {
    /// Cost: value, lower, upper (equal where there is no interval).
    pub x: [f64; 3],
    /// Accuracy: value, lower, upper.
    pub y: [f64; 3],
    /// Its colour.
    pub color: Rgb,
    /// Its shape.
    pub shape: MarkerShape,
    /// What is inside.
    pub fill: Fill,
    /// Text beside it.
    pub label: String,
    /// Everything about it, in words.
    pub title: String,
}

/// Which points no other point beats: no cheaper one is at least as accurate, no equally cheap one more accurate. By
/// rising cost.
pub fn pareto(points: &[Point]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&points[*a], &points[*b]);
        a.x[0].total_cmp(&b.x[0]).then(b.y[0].total_cmp(&a.y[0]))
    });
    let mut best = f64::NEG_INFINITY;
    order.retain(|i| {
        let better = points[*i].y[0] > best;
        best = best.max(points[*i].y[0]);
        better
    });
    order
}

/// The axis of accuracies, and of what a rule without a model has.
pub fn accuracies(points: &[Point], baselines: &[(String, f64)]) -> Option<PlotAxis> {
    PlotAxis::share("accuracy", points.iter().map(|p| p.y[1]).chain(baselines.iter().map(|b| b.1)))
}

/// Draws the plot; `None` for fewer than two points.
pub fn scatter(
    cost: (&str, &str),
    y_axis: &PlotAxis,
    points: &[Point],
    baselines: &[(String, f64)],
    legend: &[LegendEntry],
    width: f64,
) -> Option<String> {
    if points.len() < 2 {
        return None;
    }
    let x_axis = PlotAxis::log(cost.0, cost.1, points.iter().flat_map(|p| p.x))?;
    let front = pareto(points);
    let sizes = Sizes { width, height: 240.0, left: 48.0, names: 0.0 };
    Some(framed(sizes, (&x_axis, y_axis), legend, |canvas, frame| {
        let mut taken = baseline::draw(canvas, frame, y_axis, baselines);
        let place = |p: &Point| (frame.x(&x_axis, p.x[0]), frame.y(y_axis, p.y[0]));
        let line = steps(frame, front.iter().map(|i| place(&points[*i])));
        canvas.titled("Pareto front: no case is above and left of it", |canvas| {
            canvas.dashed(&line, FRONT, 1.0, 1.0, Dash::Whole);
        });
        for p in points {
            let (x, y) = place(p);
            canvas.line(&[(frame.x(&x_axis, p.x[1]), y), (frame.x(&x_axis, p.x[2]), y)], p.color, 0.55, 0.9);
            canvas.line(&[(x, frame.y(y_axis, p.y[1])), (x, frame.y(y_axis, p.y[2]))], p.color, 0.55, 0.9);
        }
        for p in points {
            canvas.titled(&p.title, |canvas| canvas.mark(place(p), p.shape, 4.0, p.color, p.fill));
        }
        // those of the front first; the others where there is room
        let others = (0..points.len()).filter(|i| !front.contains(i));
        taken.extend(points.iter().map(place).map(|(x, y)| [x - 5.0, y - 5.0, x + 5.0, y + 5.0]));
        taken.extend(line.windows(2).map(|w| [w[0].0 - 1.0, w[1].1 - 1.0, w[1].0 + 1.0, w[0].1 + 1.0]));
        let bars = points.iter().flat_map(|p| {
            let (x, y) = place(p);
            let upright = [x - 1.0, frame.y(y_axis, p.y[2]), x + 1.0, frame.y(y_axis, p.y[1])];
            [upright, [frame.x(&x_axis, p.x[1]), y - 1.0, frame.x(&x_axis, p.x[2]), y + 1.0]]
        });
        let bars: Vec<[f64; 4]> = bars.collect();
        let mut last = "";
        for i in front.iter().copied().chain(others.filter(|_| points.len() <= 12)) {
            let color = if front.contains(&i) { INK } else { SOFT };
            // neighbours on the front are often the same model on another backend
            if points[i].label != last {
                let must = !told_by_color(points, i);
                label(canvas, frame, place(&points[i]), (&points[i].label, color), &mut taken, (&bars, must));
            }
            last = &points[i].label;
        }
    }))
}

/// The front as a line of steps, ending at the right edge.
fn steps(frame: &PlotArea, front: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for (x, y) in front {
        if let Some(last) = steps.last() {
            steps.push((x, last.1));
        }
        steps.push((x, y));
    }
    if let Some(last) = steps.last().copied() {
        steps.push((frame.right, last.1));
    }
    steps
}

/// Whether the key's colours tell what the label of this point would.
pub(super) fn told_by_color(points: &[Point], i: usize) -> bool {
    points.iter().all(|p| p.color != points[i].color || p.label == points[i].label)
}

/// Puts a label where nothing is yet and no bar passes, as near as can be. Where there is no such place it is left out,
/// or, if it `must` be there, lies over a bar.
pub(super) fn label(
    canvas: &mut Canvas,
    frame: &PlotArea,
    at: (f64, f64),
    (text, color): (&str, Rgb),
    taken: &mut Vec<[f64; 4]>,
    (bars, must): (&[[f64; 4]], bool),
) {
    const AROUND: [(i8, i8); 8] = [(1, 0), (-1, -1), (1, -1), (1, 1), (-1, 1), (-1, 0), (0, -1), (0, 1)];
    let width = text_width(text, TEXT);
    let near = [1.0, 1.6, 2.3].into_iter().flat_map(|far| AROUND.map(|(dx, dy)| (dx, dy, far)));
    let places: Vec<[f64; 4]> = near
        .map(|(dx, dy, far)| {
            let left = match dx {
                1 => at.0 + 8.0,
                -1 => at.0 - 8.0 - width,
                _ => at.0 - width / 2.0,
            };
            let middle = at.1 + far * f64::from(dy) * if dx == 0 { 13.0 } else { 10.0 };
            [left - 2.0, middle - 6.5, left + width + 2.0, middle + 6.5]
        })
        .filter(|p| p[0] > frame.left && p[2] < frame.right + 8.0 && p[1] > frame.top - 4.0 && p[3] < frame.bottom)
        .filter(|p| taken.iter().all(|t| apart(p, t)))
        .collect();
    let clear = places.iter().find(|p| bars.iter().all(|b| apart(p, b)));
    if let Some(place) = clear.or(places.first().filter(|_| must)) {
        canvas.label(text, (place[0] + 2.0, place[1] + 6.5), color, Anchor::Start);
        taken.push(*place);
    }
}

/// Whether two boxes (left, top, right, bottom) have nothing in common.
pub(super) fn apart(a: &[f64; 4], b: &[f64; 4]) -> bool {
    a[2] < b[0] || b[2] < a[0] || a[3] < b[1] || b[3] < a[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_holds_whoever_is_not_beaten() {
        let point = |x: f64, y: f64| Point {
            x: [x; 3],
            y: [y; 3],
            color: INK,
            shape: MarkerShape::Circle,
            fill: Fill::Full,
            label: String::new(),
            title: String::new(),
        };
        let points = [point(3.0, 0.9), point(1.0, 0.5), point(2.0, 0.4), point(2.0, 0.7), point(9.0, 0.9)];
        assert_eq!(pareto(&points), [1, 3, 0]);
        assert!(pareto(&[]).is_empty());
    }
}
