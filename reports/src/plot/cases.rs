//! Which cases the plots with a row a case show: latency, memory, accuracy against full precision, speed-ups.
//!
//! In: the good cases of one task. Out: pictures with captions. Must not: draw more rows than a person reads; what is
//! left out is counted.

use super::{
    Drawn, Set, WIDTH,
    axis::PlotAxis,
    bar,
    legend::{LegendEntry, LegendSymbol},
    rows::{self, Ratio},
    words::{intervals, n_range},
};
use crate::{
    case::{Case, CaseKey},
    labels::Labels,
    record::Record,
    shown,
    stats::quantile::sorted,
    steady::Steady,
    store::CaseRun,
    table::base_name,
};

/// Most rows of one plot.
const MOST: usize = 60;

impl Set<'_> {
    fn marker(&self, key: &CaseKey) -> rows::Marker {
        (self.appearance.shape(key), self.appearance.color(key), self.appearance.fill(key))
    }

    /// The cases of a plot and what to say of those that have no room.
    fn some(&self) -> (&[&CaseRun], String) {
        let left = self.cases.len().saturating_sub(MOST);
        let words = if left == 0 { String::new() } else { format!(" The first {MOST} of {} cases.", self.cases.len()) };
        (&self.cases[..self.cases.len() - left], words)
    }

    /// A distribution a case; where there is one case, a distribution a block.
    pub(super) fn latency(&self) -> Drawn {
        let (cases, left_out) = self.some();
        let all: Vec<(String, &Case, Vec<f64>)> = match cases {
            [only] if Steady::of(&only.samples, &only.case.starts).distrust().is_some() => Vec::new(),
            [only] => (Steady::of(&only.samples, &only.case.starts).block_latencies.iter().take(MOST).enumerate())
                .map(|(i, block)| (format!("block {}", i + 1), &only.case, sorted(block)))
                .collect(),
            several => several
                .iter()
                .map(|c| {
                    let steady = Steady::of(&c.samples, &c.case.starts);
                    let latencies = if steady.distrust().is_some() { Vec::new() } else { sorted(&steady.latencies) };
                    (self.labels.short(&c.case.id).to_owned(), &c.case, latencies)
                })
                .collect(),
        };
        let rows: Vec<rows::Distribution> = all
            .into_iter()
            .filter(|(_, _, sorted)| !sorted.is_empty())
            .map(|(label, case, sorted)| {
                let key = &case.key;
                rows::Distribution { label, color: self.appearance.color(key), marker: self.marker(key), sorted }
            })
            .collect();
        let keys: Vec<&CaseKey> = cases.iter().map(|c| &c.case.key).collect();
        let svg = rows::distributions(&rows, &self.appearance.entries(&keys), WIDTH)?;
        let ns = rows.iter().map(|r| r.sorted.len() as u64);
        let what = if cases.len() == 1 { "block" } else { "case" };
        let caption = format!(
            "{}: time of one iteration in the steady phase, {} iterations a {what}. Box: quartiles; mark: median; whiskers: 5th to 95th \
             percentile; dots: fastest and slowest; below 20 iterations every one is a dot.{left_out} {}",
            self.task,
            n_range(ns),
            self.shared(),
        );
        Some((svg, caption))
    }

    pub(super) fn memory(&self) -> Drawn {
        const KINDS: [(char, &str, &str); 3] = [
            ('b', "memory_base", "before the model"),
            ('w', "weight_bytes", "weights"),
            ('s', "state_bytes", "states"),
        ];
        let (cases, left_out) = self.some();
        let value = |c: &CaseRun, m: &str| self.report.value(&c.case, m);
        let rows: Vec<rows::Bytes> = cases
            .iter()
            .map(|c| {
                let values =
                    KINDS.iter().filter_map(|(letter, m, name)| Some((*letter, *name, value(c, m)?))).collect();
                let label = self.labels.short(&c.case.id).to_owned();
                rows::Bytes { label, marker: self.marker(&c.case.key), peak: value(c, "memory_peak"), values }
            })
            .filter(|r| !r.values.is_empty() || r.peak.is_some())
            .collect();
        let keys: Vec<&CaseKey> = cases.iter().map(|c| &c.case.key).collect();
        let mut legend = self.appearance.entries(&keys);
        let seen = KINDS.iter().filter(|k| cases.iter().any(|c| value(c, k.1).is_some()));
        legend.extend(seen.map(|k| LegendEntry { symbol: LegendSymbol::Letter(k.0), name: k.2.into() }));
        let svg = rows::bytes(&rows, &legend, WIDTH)?;
        let caption = format!(
            "{}: mark: peak of the worker's resident memory in the steady phase; b: before it saw the model; w and s: bytes of weights and \
             states that the backend holds. Largest readings, no intervals.{left_out} {}",
            self.task,
            self.shared(),
        );
        Some((svg, caption))
    }

    /// How many points of accuracy the reduced precisions lose.
    pub(super) fn precision(&self) -> Drawn {
        let mut found: Vec<(&Case, &Record)> = Vec::new();
        for case in self.cases.iter().map(|c| &c.case) {
            found.extend(
                self.report.record(case, "accuracy_vs_f32").filter(|r| r.value.is_some()).map(|record| (case, record)),
            );
        }
        let labels = Labels::of(found.iter().map(|f| f.0));
        let row = |(case, record): &(&Case, &Record)| {
            let (label, shown) = (labels.short(&case.id).to_owned(), shown::full(record));
            Some(Ratio { label, marker: self.marker(&case.key), bar: bar(record)?, shown })
        };
        let rows: Vec<Ratio> = found.iter().take(MOST).filter_map(row).collect();
        let name = "accuracy minus that of f32";
        let axis = PlotAxis::difference(name, "percentage points", rows.iter().flat_map(|r| r.bar));
        let keys: Vec<&CaseKey> = found.iter().map(|f| &f.0.key).collect();
        let svg = rows::ratios(axis, 0.0, &rows, &self.appearance.entries(&keys), WIDTH)?;
        let records: Vec<&Record> = found.iter().map(|f| f.1).collect();
        let caption = format!(
            "{}: accuracy of reduced precisions minus that of full precision on the same examples. {} Line: no difference. {}",
            self.task,
            intervals("Bars", &[("", &records)]),
            self.shared()
        );
        Some((svg, caption))
    }

    /// Title, picture and caption of the speed-ups of one interleaved group, where there is one beside the base's own.
    pub(super) fn speedups(&self, interleaved: &[&CaseRun]) -> Option<(String, String, String)> {
        let labels = Labels::of(interleaved.iter().map(|c| &c.case));
        let (mut rows, mut records, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let mut base = None;
        for case in interleaved.iter().map(|c| &c.case).take(MOST) {
            let Some((record, own)) = self.report.record(case, "speedup").zip(case.interleaved.as_ref()) else {
                continue;
            };
            let Some(bar) = bar(record) else { continue };
            base = own.base.as_deref();
            if base != Some(case.id.as_str()) {
                records.push(record);
            }
            let (label, shown) = (labels.short(&case.id).to_owned(), shown::full(record));
            rows.push(Ratio { label, marker: self.marker(&case.key), bar, shown });
            keys.push(&case.key);
        }
        if records.is_empty() {
            return None;
        }
        let base = base_name(self.report, base, &labels);
        let axis = PlotAxis::log(&format!("speed-up over {base}"), "1", rows.iter().flat_map(|r| r.bar).chain([1.0]));
        let svg = rows::ratios(axis, 1.0, &rows, &self.appearance.entries(&keys), WIDTH)?;
        let common = if labels.common.is_empty() { String::new() } else { format!(": {}", labels.common) };
        let several = records.len() > 1 && records.iter().any(|r| r.upper.is_some());
        let together = if several { " All of them hold together at 95 %." } else { "" };
        let caption = format!(
            "{}: median latency of {base} over that of each case, median over the rounds in which they took turns. {}{together} Line: {base} itself.",
            self.task,
            intervals("Bars", &[("", &records)]),
        );
        Some((format!("Speed-up in turns{common}"), svg, caption))
    }
}
