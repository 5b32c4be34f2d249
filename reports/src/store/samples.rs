//! The observations of a case in memory: a column a field, about 25 bytes an observation.
//!
//! In: [`Sample`]s one by one. Out: the same samples, in the same order. Must not: hold a name twice, or change an
//! observation.

use std::fmt;

use super::column::Column;
use crate::case::Sample;

/// Observations in the order in which they were made. A [`Sample`] is made of its columns when it is asked for, and not
/// stored.
#[derive(Clone, Default)]
pub struct Samples {
    block: Column,
    phase: Names,
    iteration: Column,
    t_ns: Column,
    example: Column,
    rows: Column,
    metric: Names,
    value: Vec<f64>,
}

/// A column of names of which there are few.
#[derive(Clone, Default)]
struct Names {
    known: Vec<&'static str>,
    /// Places in `known`.
    places: Column,
}

impl Names {
    fn push(&mut self, name: &'static str) {
        let place = self.known.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.known.push(name);
            self.known.len() - 1
        });
        self.places.push(Some(place as u64));
    }

    fn get(&self, place: usize) -> &'static str {
        self.places.get(place).map_or("", |place| self.known[place as usize])
    }
}

impl Samples {
    /// Puts an observation at the end.
    pub fn push(&mut self, sample: Sample) {
        let Sample { block, phase, iteration, t_ns, example, rows, metric, value } = sample;
        self.block.push(Some(block.into()));
        self.phase.push(phase);
        self.iteration.push(iteration);
        self.t_ns.push(Some(t_ns));
        self.example.push(example);
        self.rows.push(rows);
        self.metric.push(metric);
        self.value.push(value);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.value.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// Removes all of them.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The observation at a place, which must be below [`Self::len`].
    pub fn at(&self, place: usize) -> Sample {
        Sample {
            block: self.block.get(place).unwrap_or_default() as u32,
            phase: self.phase.get(place),
            iteration: self.iteration.get(place),
            t_ns: self.t_ns.get(place).unwrap_or_default(),
            example: self.example.get(place),
            rows: self.rows.get(place),
            metric: self.metric.get(place),
            value: self.value[place],
        }
    }

    /// All of them in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Sample> + ExactSizeIterator + Clone + '_ {
        (0..self.len()).map(|place| self.at(place))
    }

    /// Names of the phases and of the metrics that any of them had.
    pub(super) fn names(&self) -> [&[&'static str]; 2] {
        [&self.phase.known, &self.metric.known]
    }

    /// Gives back what is reserved for observations to come.
    pub(super) fn shrink(&mut self) {
        let columns = [&mut self.block, &mut self.iteration, &mut self.t_ns, &mut self.example, &mut self.rows];
        columns.into_iter().chain([&mut self.phase.places, &mut self.metric.places]).for_each(Column::shrink);
        self.value.shrink_to_fit();
    }
}

impl Extend<Sample> for Samples {
    fn extend<T: IntoIterator<Item = Sample>>(&mut self, samples: T) {
        samples.into_iter().for_each(|sample| self.push(sample));
    }
}

impl FromIterator<Sample> for Samples {
    fn from_iter<T: IntoIterator<Item = Sample>>(samples: T) -> Self {
        let mut all = Self::default();
        all.extend(samples);
        all
    }
}

/// The same observations in the same order, whatever the width of the columns.
impl PartialEq for Samples {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_back_as_they_were_put() {
        let first = Sample {
            block: 0,
            phase: "steady",
            iteration: Some(0),
            t_ns: 5,
            example: None,
            rows: Some(4),
            metric: "latency",
            value: 0.25,
        };
        let large = Sample { block: u32::MAX, t_ns: u64::MAX, example: Some(u64::MAX), ..first };
        let other = Sample { phase: "load", iteration: None, rows: None, metric: "load_time", value: -0.0, ..first };
        let all = [first, large, other, first];
        let samples: Samples = all.into_iter().collect();
        assert_eq!(samples.iter().collect::<Vec<_>>(), all);
        assert_eq!(samples.iter().next_back(), Some(first));
        assert_eq!(samples.names(), [&["steady", "load"][..], &["latency", "load_time"]]);
        // the same rows in columns of another width
        let mut wide: Samples = [large].into_iter().collect();
        wide.push(first);
        assert_eq!(wide.iter().skip(1).collect::<Samples>(), [first].into_iter().collect());
        assert_ne!(wide, samples);
        wide.clear();
        assert!(wide.is_empty() && wide == Samples::default());
    }

    #[test]
    fn a_long_block_takes_few_bytes_a_sample() {
        let mut samples = Samples::default();
        for i in 0..20_000 {
            let (block, iteration, t_ns) = (i as u32 / 400, Some(i % 400), 4_000_000_000 + 1_000_000 * i);
            for (metric, value) in [("latency", 0.01), ("steps_used", 4.0)] {
                let (example, rows) = (Some(i % 5000), Some(16));
                samples.push(Sample { block, phase: "steady", iteration, t_ns, example, rows, metric, value });
            }
        }
        samples.shrink();
        let numbers = [&samples.block, &samples.iteration, &samples.t_ns, &samples.example, &samples.rows];
        let names = [&samples.phase.places, &samples.metric.places];
        let bytes: usize = numbers.into_iter().chain(names).map(Column::bytes).sum();
        // time and value take eight each
        assert_eq!(bytes + 8 * samples.len(), 24 * samples.len());
    }
}
