//! One mapping of colours, shapes, fills and dashes for all plots of a report: what stands for a model, backend or
//! precision in one plot does so in every other.
//!
//! In: the cases of a report. Out: an [`Appearance`]. Must not: depend on which cases a single plot shows, or tell two
//! values apart by colour alone.

use std::collections::BTreeMap;

use super::legend::{LegendEntry, LegendSymbol};
use super::palette::{DASHES, Dash, FILLS, Fill, INK, MarkerShape, Rgb, SERIES, SHAPES, SOFT};
use crate::case::{Case, CaseKey};
use crate::precision::Precision;

/// A part of a case's key that a plot can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Name of the model.
    Model,
    /// Its family.
    Family,
    /// Backend.
    Backend,
    /// Precision.
    Precision,
    /// Rows per iteration.
    Batch,
}

impl Part {
    /// The value that a case has.
    pub fn of(self, key: &CaseKey) -> String {
        match self {
            Self::Model => key.model.clone(),
            Self::Family => key.family.clone(),
            Self::Backend => key.backend.clone(),
            Self::Precision => key.precision.clone(),
            Self::Batch => format!("batch {}", key.batch),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Family => "family",
            Self::Backend => "backend",
            Self::Precision => "precision",
            Self::Batch => "batch",
        }
    }
}

/// Values of one part in a fixed order, each with its place.
#[derive(Clone, Debug)]
struct Scale {
    part: Part,
    places: BTreeMap<String, usize>,
}

impl Scale {
    fn of(part: Part, cases: &[&Case]) -> Self {
        // full precision and the smallest batch come first, names by their letters
        let rank = |key: &CaseKey| match part {
            Part::Precision => Precision::place(&key.precision) as u32,
            Part::Batch => key.batch,
            _ => 0,
        };
        let mut values: Vec<(u32, String)> = cases.iter().map(|c| (rank(&c.key), part.of(&c.key))).collect();
        values.sort();
        values.dedup();
        Self { part, places: values.into_iter().enumerate().map(|(i, (_, value))| (value, i)).collect() }
    }

    fn place(&self, key: &CaseKey) -> usize {
        self.places.get(&self.part.of(key)).copied().unwrap_or(0)
    }

    fn varies(&self) -> bool {
        self.places.len() > 1
    }
}

/// The mapping.
#[derive(Clone, Debug)]
pub struct Appearance {
    color: Scale,
    shape: Scale,
    fill: Scale,
    precision: Scale,
}

impl Appearance {
    /// The mapping for all cases of a report, whether they ended well or not: a failure changes no other case's colour.
    pub fn of<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Self {
        let cases: Vec<&Case> = cases.into_iter().collect();
        let scale = |part| Scale::of(part, &cases);
        let (models, families, backends) = (scale(Part::Model), scale(Part::Family), scale(Part::Backend));
        let precision = scale(Part::Precision);
        let color = if models.varies() && (models.places.len() <= SERIES.len() || !families.varies()) {
            models
        } else if models.varies() {
            families
        } else if backends.varies() {
            backends.clone()
        } else {
            precision.clone()
        };
        // colour and shape say the same where only one thing varies
        let shape = if backends.varies() { backends } else { color.clone() };
        let fill =
            if precision.varies() && color.part != Part::Precision { precision.clone() } else { scale(Part::Batch) };
        Self { color, shape, fill, precision }
    }

    /// Colour of a case.
    pub fn color(&self, key: &CaseKey) -> Rgb {
        SERIES[self.color.place(key) % SERIES.len()]
    }

    /// Colour of a model's line, where backends agree and only one of them is drawn.
    pub fn model_color(&self, key: &CaseKey) -> Rgb {
        if self.color.part == Part::Backend { INK } else { self.color(key) }
    }

    /// Shape of a case; a circle where shapes say nothing.
    pub fn shape(&self, key: &CaseKey) -> MarkerShape {
        if !self.shape.varies() {
            return MarkerShape::Circle;
        }
        SHAPES[self.shape.place(key) % SHAPES.len()]
    }

    /// Fill of a case.
    pub fn fill(&self, key: &CaseKey) -> Fill {
        FILLS[self.fill.place(key).min(FILLS.len() - 1)]
    }

    /// Fill of a model's mark, where no backend or batch is meant.
    pub fn model_fill(&self, key: &CaseKey) -> Fill {
        if self.fill.part == Part::Precision { self.fill(key) } else { Fill::Full }
    }

    /// Dashes of a precision's lines.
    pub fn dash(&self, precision: &str) -> Dash {
        let place = self.precision.places.get(precision).copied().unwrap_or(0);
        DASHES[place % DASHES.len()]
    }

    /// The key of a plot that shows these cases: what differs among all cases of the report, as far as it occurs here.
    pub fn entries(&self, keys: &[&CaseKey]) -> Vec<LegendEntry> {
        let mut entries: Vec<LegendEntry> = Vec::new();
        let mut add = |scale: &Scale, symbol: &dyn Fn(&CaseKey) -> LegendSymbol| {
            if !scale.varies() {
                return;
            }
            let mut found: BTreeMap<usize, (&CaseKey, String)> = BTreeMap::new();
            for key in keys {
                found.entry(scale.place(key)).or_insert((key, scale.part.of(key)));
            }
            // what all cases of a plot have is in its caption
            if found.len() < 2 {
                return;
            }
            let from = entries.len();
            for (key, name) in found.into_values() {
                let symbol = symbol(key);
                // more values than signs: those that share one share an entry
                match entries[from..].iter_mut().find(|e| e.symbol == symbol) {
                    Some(entry) => entry.name = format!("{}, {name}", entry.name),
                    None => entries.push(LegendEntry { symbol, name }),
                }
            }
        };
        if self.color.part == self.shape.part {
            add(&self.color, &|key| LegendSymbol::Mark(self.shape(key), self.color(key), Fill::Full));
        } else {
            add(&self.color, &|key| LegendSymbol::Swatch(self.color(key), Fill::Full));
            add(&self.shape, &|key| LegendSymbol::Mark(self.shape(key), SOFT, Fill::Full));
        }
        add(&self.fill, &|key| LegendSymbol::Swatch(SOFT, self.fill(key)));
        entries
    }

    /// The key of a plot whose marks are models, in their [colours](Self::model_color).
    pub fn models(&self, keys: &[&CaseKey]) -> Vec<LegendEntry> {
        let mut entries: Vec<LegendEntry> = Vec::new();
        for key in keys.iter().filter(|_| self.color.varies() && self.color.part != Part::Backend) {
            let entry = LegendEntry {
                symbol: LegendSymbol::Swatch(self.color(key), Fill::Full),
                name: self.color.part.of(key),
            };
            match entries.iter_mut().find(|e| e.symbol == entry.symbol) {
                Some(known) if known.name.split(", ").any(|name| name == entry.name) => {}
                Some(known) => known.name = format!("{}, {}", known.name, entry.name),
                None => entries.push(entry),
            }
        }
        if entries.len() > 1 { entries } else { Vec::new() }
    }

    /// What colour, shape and fill stand for, in one sentence.
    pub fn sentence(&self) -> String {
        let mut parts = Vec::new();
        if self.color.varies() && self.color.part == self.shape.part {
            parts.push(format!("colour and shape: {}", self.color.part.name()));
        } else {
            for (what, scale) in [("colour", &self.color), ("shape", &self.shape)] {
                if scale.varies() {
                    parts.push(format!("{what}: {}", scale.part.name()));
                }
            }
        }
        if self.fill.varies() {
            let first = match self.fill.part {
                Part::Batch => "smallest",
                _ => "highest",
            };
            parts.push(format!("filled: {first} {}, hollow or dotted: the others", self.fill.part.name()));
        }
        if parts.is_empty() { String::new() } else { format!("In every plot {}.", parts.join("; ")) }
    }
}
