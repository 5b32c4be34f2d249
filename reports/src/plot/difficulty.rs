//! Supervision steps, and accuracy, against the difficulty of the examples: a line a case over bands of difficulty.
//!
//! In: the good cases of one task, as [`banded`] has them. Out: pictures with captions. Must not: draw cases whose depth
//! is fixed among those that choose it.

use super::{
    Drawn, Set, WIDTH,
    axis::PlotAxis,
    framed::{Sizes, end_names, framed, room},
    palette::{DASHES, Dash, Fill, MarkerShape, Rgb},
};
use crate::{
    labels::Labels,
    stats::Estimate,
    store::CaseRun,
    studies::difficulty::{Banded, banded, ends},
};

/// Most lines.
const MOST: usize = 12;

/// What is drawn of a band.
type Measure = fn(&Banded) -> Option<&Estimate>;

/// One line: its name, how it is drawn, and value, lower and upper end for each band that has them.
struct BandLine {
    label: String,
    color: Rgb,
    dash: Dash,
    points: Vec<(usize, [f64; 3])>,
}

impl Set<'_> {
    pub(super) fn steps_by_difficulty(&self) -> Drawn {
        let (lines, bands, left) = self.lines(|b| b.steps.as_ref())?;
        let axis = PlotAxis::from_zero("mean supervision steps", values(&lines))?;
        let svg = draw(&lines, bands.clone(), &axis);
        let caption = format!(
            "{}: mean supervision steps of answers of record by difficulty in the task's own unit, for cases that stop by themselves; bands of about as many examples ({}). Bars: 95 % intervals of the mean over clusters, none where a band has \
             one cluster.{left}",
            self.task,
            counts(&self.report_bands()),
        );
        Some((svg, caption))
    }

    pub(super) fn accuracy_by_difficulty(&self) -> Drawn {
        let (lines, bands, left) = self.lines(|b| b.accuracy.as_ref())?;
        let axis = PlotAxis::share("accuracy", values(&lines))?;
        let svg = draw(&lines, bands, &axis);
        let caption = format!(
            "{}: share of examples (rows) right by difficulty in the task's own unit; bands of about as many examples ({}). Bars: 95 % intervals of a share, over clusters.{left}",
            self.task,
            counts(&self.report_bands()),
        );
        Some((svg, caption))
    }

    fn report_bands(&self) -> Vec<Banded> {
        banded(self.report, &self.cases).into_iter().next().map(|(_, bands)| bands).unwrap_or_default()
    }

    /// Lines of the cases that have the measure, names of the bands, and what to say of cases that have no room.
    fn lines(&self, measure: Measure) -> Option<(Vec<BandLine>, Vec<String>, String)> {
        let mut all = banded(self.report, &self.cases);
        all.retain(|(_, bands)| bands.iter().any(|b| measure(b).is_some()));
        let left = all.len().saturating_sub(MOST);
        let words = if left == 0 { String::new() } else { format!(" The first {MOST} of {} cases.", all.len()) };
        all.truncate(MOST);
        let bands = all.first()?.1.iter().map(|b| ends(b.ends)).collect();
        let labels = Labels::of_models(all.iter().map(|(c, _)| &c.case));
        let mut drawn = Vec::new();
        let line = |(run, bands): &(&CaseRun, Vec<Banded>)| {
            let color = self.appearance.model_color(&run.case.key);
            // lines of one colour differ in their dashes
            let before = drawn.iter().filter(|c| **c == color).count();
            drawn.push(color);
            let point = |(i, band): (usize, &Banded)| {
                let estimate = measure(band)?;
                let (lower, upper) = estimate.interval.clone().unwrap_or((estimate.value, estimate.value));
                Some((i, [estimate.value, lower, upper]))
            };
            BandLine {
                label: labels.short(&run.case.id).to_owned(),
                color,
                dash: DASHES[before % DASHES.len()],
                points: bands.iter().enumerate().filter_map(point).collect(),
            }
        };
        let lines = all.iter().map(line).collect();
        Some((lines, bands, words))
    }
}

fn values(lines: &[BandLine]) -> impl Iterator<Item = f64> + '_ {
    lines.iter().flat_map(|l| l.points.iter().flat_map(|p| p.1))
}

/// `0: 50, 3–17: 48`
fn counts(bands: &[Banded]) -> String {
    let of = bands.iter().map(|b| format!("{}: {}", ends(b.ends), b.n)).collect::<Vec<_>>().join(", ");
    format!("difficulty and n: {of}")
}

fn draw(lines: &[BandLine], bands: Vec<String>, y_axis: &PlotAxis) -> String {
    let x_axis = PlotAxis::places("difficulty", bands);
    let names = room(lines.iter().map(|l| l.label.as_str()), 0.34 * WIDTH);
    let sizes = Sizes { width: WIDTH, height: 240.0, left: 48.0, names };
    framed(sizes, (&x_axis, y_axis), &[], |canvas, frame| {
        // bars of several lines at one band stand beside each other
        let aside = |line: usize| 0.04 * (line as f64 - (lines.len() as f64 - 1.0) / 2.0);
        let place = |line: usize, band: usize, value: f64| {
            (frame.x(&x_axis, band as f64 + aside(line)), frame.y(y_axis, value))
        };
        for (i, l) in lines.iter().enumerate() {
            let path: Vec<_> = l.points.iter().map(|p| place(i, p.0, p.1[0])).collect();
            canvas.titled(&l.label, |canvas| {
                canvas.dashed(&path, l.color, 0.9, 1.4, l.dash);
                for (band, [value, lower, upper]) in &l.points {
                    canvas.line(&[place(i, *band, *lower), place(i, *band, *upper)], l.color, 0.6, 0.9);
                    canvas.mark(place(i, *band, *value), MarkerShape::Circle, 3.0, l.color, Fill::Full);
                }
            });
        }
        let last = |l: &BandLine| Some(frame.y(y_axis, l.points.last()?.1[0]));
        end_names(canvas, frame, names, lines.iter().filter_map(|l| Some((last(l)?, l.label.as_str()))).collect());
    })
}
