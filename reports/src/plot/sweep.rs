//! Throughput against a size that a suite varies (batch, threads), a line per model, backend and precision.
//!
//! In: series of at least two sizes. Out: SVG. Must not: join cases that differ in anything but the size.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Drawn, Set, WIDTH,
    axis::PlotAxis,
    bar,
    framed::{Sizes, end_names, framed, room},
    legend::LegendEntry,
    palette::{Dash, Fill, MarkerShape, Rgb},
    words::{intervals, mark_title},
};
use crate::{case::CaseKey, record::Record};

/// Most series whose names stand beside their ends.
const NAMED: usize = 10;

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is.
    pub label: String,
    /// Colour.
    pub color: Rgb,
    /// Shape of its marks.
    pub shape: MarkerShape,
    /// How it is broken.
    pub dash: Dash,
    /// Size, value with its interval, and words, by rising size.
    pub points: Vec<(u32, [f64; 3], String)>,
}

/// Draws the series; `None` without one of two points.
pub fn sweep(x: &str, y: (&str, &str), series: &[Series], legend: &[LegendEntry], width: f64) -> Option<String> {
    let mut sizes: Vec<u32> = series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    if series.iter().all(|s| s.points.len() < 2) || sizes.len() < 2 {
        return None;
    }
    let x_axis = PlotAxis::sizes(x, &sizes)?;
    let y_axis = PlotAxis::log(y.0, y.1, series.iter().flat_map(|s| s.points.iter().flat_map(|p| p.1)))?;
    let named = series.len() > 1 && series.len() <= NAMED;
    let names = if named { room(series.iter().map(|s| s.label.as_str()), 0.34 * width) } else { 0.0 };
    let sizes = Sizes { width, height: 240.0, left: 56.0, names };
    Some(framed(sizes, (&x_axis, &y_axis), legend, |canvas, frame| {
        let place = |size: u32, value: f64| (frame.x(&x_axis, size.into()), frame.y(&y_axis, value));
        for s in series {
            let line: Vec<_> = s.points.iter().map(|p| place(p.0, p.1[0])).collect();
            canvas.titled(&s.label, |canvas| canvas.dashed(&line, s.color, 0.9, 1.3, s.dash));
        }
        for s in series {
            for (size, [value, lower, upper], title) in &s.points {
                canvas.titled(title, |canvas| {
                    canvas.line(&[place(*size, *lower), place(*size, *upper)], s.color, 0.6, 0.9);
                    canvas.mark(place(*size, *value), s.shape, 3.6, s.color, Fill::Full);
                });
            }
        }
        let last = |s: &Series| Some(frame.y(&y_axis, s.points.last()?.1[0]));
        let ends = series.iter().filter(|_| named).filter_map(|s| Some((last(s)?, s.label.as_str())));
        end_names(canvas, frame, names, ends.collect());
    }))
}

impl Set<'_> {
    /// Throughput against what `size` reads from a key; `others` is the rest of the key.
    pub(super) fn sweep(&self, name: &str, size: fn(&CaseKey) -> u32, without: fn(&mut CaseKey)) -> Drawn {
        let mut groups: BTreeMap<String, Vec<(u32, &crate::case::Case, &Record)>> = BTreeMap::new();
        for case in self.cases.iter().map(|c| &c.case) {
            let Some(record) = self.report.record(case, "throughput").filter(|r| r.value.is_some()) else { continue };
            let mut rest = case.key.clone();
            without(&mut rest);
            // what a search of settings chose may differ between sizes
            rest.backend_options.clear();
            groups.entry(rest.canonical()).or_default().push((size(&case.key), case, record));
        }
        groups.values_mut().for_each(|cases| cases.sort_by_key(|c| c.0));
        groups.retain(|_, cases| cases.first().map(|c| c.0) < cases.last().map(|c| c.0));
        let keys: Vec<&CaseKey> = groups.values().flat_map(|g| g.iter().map(|c| &c.1.key)).collect();
        let differs = |part: fn(&CaseKey) -> &str| keys.iter().any(|k| part(k) != part(keys[0]));
        let parts: [fn(&CaseKey) -> &str; 5] =
            [|k| &k.model, |k| &k.backend, |k| &k.precision, CaseKey::scenario_kind, |k| &k.depth];
        // a depth rule that follows from the model is no part of what tells lines apart
        let kinds =
            |with: bool| keys.iter().map(|k| (&k.model, with.then_some(&k.depth))).collect::<BTreeSet<_>>().len();
        let parts = &parts[..if kinds(true) == kinds(false) { 4 } else { 5 }];
        let shown: Vec<fn(&CaseKey) -> &str> = parts.iter().copied().filter(|part| differs(*part)).collect();
        let series: Vec<Series> = groups
            .values()
            .map(|cases| {
                let key = &cases[0].1.key;
                let label = shown.iter().map(|part| part(key)).collect::<Vec<_>>().join(" · ");
                let point = |(size, case, record): &(u32, &crate::case::Case, &Record)| {
                    Some((*size, bar(record)?, mark_title(case, &[("throughput", Some(record))])))
                };
                Series {
                    label: if label.is_empty() { key.model.clone() } else { label },
                    color: self.appearance.color(key),
                    shape: self.appearance.shape(key),
                    dash: self.appearance.dash(&key.precision),
                    points: cases.iter().filter_map(point).collect(),
                }
            })
            .collect();
        let records: Vec<&Record> = groups.values().flat_map(|g| g.iter().map(|c| c.2)).collect();
        // marks are full here: the axis says what hollow ones would
        let legend: Vec<LegendEntry> = if series.len() > NAMED { self.appearance.entries(&keys) } else { Vec::new() };
        let svg = sweep(name, ("throughput", "1/s"), &series, &legend, WIDTH)?;
        let caption = format!(
            "{}: examples finished per second against {name}; a line joins cases that differ in nothing else. {}",
            self.task,
            intervals("Bars", &[("", &records)])
        );
        Some((svg, caption))
    }
}
