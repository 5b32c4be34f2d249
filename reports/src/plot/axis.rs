//! Axes: from a range of values to places on the canvas, with round ticks in a readable unit.
//!
//! In: ranges, units. Out: [`PlotAxis`], [`PlotArea`], drawn ticks and labels. Must not: begin a linear axis of a share
//! anywhere but at a round number.

use super::canvas::{Anchor, Canvas, TEXT, text_width};
use super::palette::{GRID, INK, SOFT};
use crate::format::{number, scaled_unit};

/// Values that a logarithmic axis is made for; a file may hold any number, and ticks must not be counted to 10³⁰⁸.
const DRAWN: std::ops::Range<f64> = 1e-15..1e21;

/// One axis.
#[derive(Clone, Debug)]
pub struct PlotAxis {
    log: bool,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    factor: f64,
    /// What stands at the ticks in place of their numbers; empty: the numbers.
    names: Vec<String>,
    /// Name with unit.
    pub label: String,
}

/// The rectangle that data is drawn in, in points.
#[derive(Clone, Copy, Debug)]
pub struct PlotArea {
    /// x of the left edge.
    pub left: f64,
    /// y of the upper edge.
    pub top: f64,
    /// x of the right edge.
    pub right: f64,
    /// y of the lower edge.
    pub bottom: f64,
}

impl PlotAxis {
    /// Logarithmic, around positive values; `None` without any.
    pub fn log(name: &str, unit: &str, values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (low, high) = range(values.into_iter().filter(|v| DRAWN.contains(v)))?;
        let (low, high) = (low / 1.15, high * 1.15);
        // less than a factor of 2 is stretched, so that noise does not look like an effect
        let (low, high) = if high / low < 2.0 {
            let middle = (low * high).sqrt();
            (middle / 2f64.sqrt(), middle * 2f64.sqrt())
        } else {
            (low, high)
        };
        // ticks then read 0.01 to 100 rather than 10 to 100000
        let (factor, shown) = scaled_unit(unit, high / 10.0);
        let decades = (high / low).log10();
        let steps: &[f64] = match decades {
            d if d > 2.5 => &[1.0],
            d if d > 1.2 => &[1.0, 3.0],
            d if d > 0.6 => &[1.0, 2.0, 5.0],
            _ => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
        };
        let first = (low / factor).log10().floor() as i32;
        let every = ((decades / 6.0).ceil() as i32).max(1);
        let ticks = (first..=first + decades.ceil() as i32 + 1)
            .filter(|d| d.rem_euclid(every) == 0)
            .flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d) * factor))
            .filter(|t| (low..=high).contains(t))
            .collect();
        Some(Self { log: true, low, high, ticks, factor, names: Vec::new(), label: with_unit(name, &shown) })
    }

    /// Linear share from a round number to 100 %.
    pub fn share(name: &str, values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (low, _) = range(values)?;
        let low = if low > 0.9 {
            0.9
        } else if low > 0.5 {
            0.5
        } else {
            0.0
        };
        let step = if low > 0.8 {
            0.02
        } else if low > 0.4 {
            0.1
        } else {
            0.2
        };
        let ticks = (0..).map(|i| low + f64::from(i) * step).take_while(|t| *t < 1.0001).collect();
        // a little room, so that marks at 0 and 100 % are whole
        let room = 0.03 * (1.0 - low);
        Some(Self {
            log: false,
            low: low - room,
            high: 1.0 + room,
            ticks,
            factor: 0.01,
            names: Vec::new(),
            label: with_unit(name, "%"),
        })
    }

    /// Linear whole numbers from 1.
    pub fn counts(name: &str, most: u32) -> Self {
        let step = most.div_ceil(8).max(1);
        let mut ticks = vec![1.0];
        ticks.extend((1..=8).map(|i| f64::from(i) * f64::from(step)).filter(|t| *t > 1.0 && *t <= f64::from(most)));
        Self {
            log: false,
            low: 0.7,
            high: f64::from(most.max(2)) + 0.3,
            ticks,
            factor: 1.0,
            names: Vec::new(),
            label: name.to_owned(),
        }
    }

    /// Places side by side, the i-th at i from 0, each with its name.
    pub fn places(name: &str, names: Vec<String>) -> Self {
        let ticks = (0..names.len()).map(|i| i as f64).collect();
        let high = names.len().max(1) as f64 - 0.6;
        Self { log: false, low: -0.4, high, ticks, factor: 1.0, names, label: name.to_owned() }
    }

    /// Linear from 0.
    pub fn from_zero(name: &str, values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut axis = Self::difference(name, "", values)?;
        axis.low = 0.0;
        axis.ticks.retain(|t| *t >= 0.0);
        Some(axis)
    }

    /// Linear around differences, with 0 in it.
    pub fn difference(name: &str, unit: &str, values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (low, high) = range(values.into_iter().filter(|v| v.abs() < 1e6))?;
        let (low, high) = (low.min(0.0), high.max(0.0));
        // a range of nothing still has a width
        let room = (0.06 * (high - low)).max(0.05);
        let (low, high) = (low - room, high + room);
        let rough = (high - low) / 5.0;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|s| s * decade).find(|s| *s >= rough).unwrap_or(rough);
        let first = (low / step).ceil() as i64;
        let ticks = (first..first + 12).map(|i| i as f64 * step).take_while(|t| *t <= high).collect();
        Some(Self { log: false, low, high, ticks, factor: 1.0, names: Vec::new(), label: with_unit(name, unit) })
    }

    /// Logarithmic over counts, with a tick at each of them where there is room.
    pub fn sizes(name: &str, counts: &[u32]) -> Option<Self> {
        let (low, high) = range(counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c)))?;
        let every = counts.len().div_ceil(8).max(1);
        let ticks = counts.iter().filter(|c| **c > 0).step_by(every).map(|c| f64::from(*c)).collect();
        Some(Self {
            log: true,
            low: low / 1.2,
            high: high * 1.2,
            ticks,
            factor: 1.0,
            names: Vec::new(),
            label: name.to_owned(),
        })
    }

    /// Place of a value between 0 and 1; outside of the range: at its ends.
    fn part(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        part.clamp(0.0, 1.0)
    }

    /// Least and largest value.
    pub fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    fn tick_label(&self, tick: f64) -> String {
        let value = tick / self.factor;
        if (1e-4..1e6).contains(&value) { trim(&format!("{value:.4}")) } else { number(value) }
    }

    fn widest_tick(&self) -> f64 {
        self.ticks.iter().map(|t| text_width(&self.tick_label(*t), TEXT)).fold(0.0, f64::max)
    }
}

impl PlotArea {
    /// x of a value.
    pub fn x(&self, axis: &PlotAxis, value: f64) -> f64 {
        self.left + axis.part(value) * (self.right - self.left)
    }

    /// y of a value.
    pub fn y(&self, axis: &PlotAxis, value: f64) -> f64 {
        self.bottom - axis.part(value) * (self.bottom - self.top)
    }

    /// Draws the lower axis with its ticks and label.
    pub fn draw_x(&self, canvas: &mut Canvas, axis: &PlotAxis) {
        let mut free = f64::NEG_INFINITY;
        for (i, tick) in axis.ticks.iter().enumerate() {
            let x = self.x(axis, *tick);
            canvas.line(&[(x, self.top), (x, self.bottom)], GRID, 1.0, 0.5);
            canvas.line(&[(x, self.bottom), (x, self.bottom + 3.0)], SOFT, 1.0, 0.75);
            let label = axis.names.get(i).cloned().unwrap_or_else(|| axis.tick_label(*tick));
            let half = text_width(&label, TEXT) / 2.0;
            if x - half > free {
                canvas.text(&label, (x, self.bottom + 12.0), TEXT, SOFT, Anchor::Middle);
                free = x + half + 4.0;
            }
        }
        canvas.line(&[(self.left, self.bottom), (self.right, self.bottom)], SOFT, 1.0, 0.75);
        let middle = (self.left + self.right) / 2.0;
        canvas.text(&axis.label, (middle, self.bottom + 28.0), TEXT, INK, Anchor::Middle);
    }

    /// Draws the left axis with its ticks and label.
    pub fn draw_y(&self, canvas: &mut Canvas, axis: &PlotAxis) {
        for tick in &axis.ticks {
            let y = self.y(axis, *tick);
            canvas.line(&[(self.left, y), (self.right, y)], GRID, 1.0, 0.5);
            canvas.line(&[(self.left - 3.0, y), (self.left, y)], SOFT, 1.0, 0.75);
            canvas.text(&axis.tick_label(*tick), (self.left - 6.0, y), TEXT, SOFT, Anchor::End);
        }
        canvas.line(&[(self.left, self.top), (self.left, self.bottom)], SOFT, 1.0, 0.75);
        let x = self.left - axis.widest_tick() - 16.0;
        canvas.upright(&axis.label, (x, (self.top + self.bottom) / 2.0), TEXT, INK);
    }
}

fn range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|v| v.is_finite()).fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((v.min(low), v.max(high))),
    })
}

fn with_unit(name: &str, unit: &str) -> String {
    if unit.is_empty() { name.to_owned() } else { format!("{name} ({unit})") }
}

fn trim(text: &str) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
