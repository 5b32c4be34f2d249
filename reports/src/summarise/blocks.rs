//! Metrics that are read once a block: which blocks have them, and how far the blocks' edges put energy off.
//!
//! In: the steady phase of a case. Out: values with their intervals and notes. Must not: pass over a block without
//! saying so, or pair readings of different blocks.

use std::collections::BTreeMap;

use super::domains::covered;
use super::{Metered, Outcome, Summary, exact};
use crate::{
    format,
    metric::edge_of,
    missing::Missing,
    stats::{CONFIDENCE, Estimate, level::Spacing, quantile::sorted, ratio::over_level},
};

/// Largest share of an energy that the edges of its blocks may be; beyond it there is no number.
const MOST_EDGE: f64 = 0.5;
/// Share from which on a record says so.
const NOTED_EDGE: f64 = 0.01;

/// W of a block above which its energy is no energy of this case: so many times the median of the case's blocks, and so
/// many W more. The same work does not draw five times as much in one block as in most others; a counter that jumped
/// does, or another program.
const LEAP: f64 = 4.0;
const LEAP_WATTS: f64 = 20.0;
/// Blocks from which on their median says something.
const FEW_BLOCKS: usize = 5;

/// What the total of a block is divided by.
#[derive(Clone, Copy)]
pub(super) enum Per {
    Example,
    Second,
}

impl Summary<'_> {
    /// Ratio of totals of a metric over the blocks that have it.
    pub(super) fn per_block(&self, name: &str, per: Per) -> Metered {
        let (totals, notes) = self.totals(name, false)?;
        let estimate = self.level(&totals, per).ok_or_else(|| self.missing(name))?;
        Ok(Outcome { estimate, confidence: CONFIDENCE, notes: notes.into_iter().collect() })
    }

    /// Joules per example of disjoint domains together, from the blocks in which all were read; the interval is widened
    /// by the edges.
    pub(super) fn energy(&self, names: &[&str]) -> Metered {
        let (mut joules, mut notes) = (BTreeMap::new(), Vec::new());
        let mut edges = Some(0.0);
        for (i, name) in names.iter().enumerate() {
            let (totals, more) = self.totals(name, true)?;
            notes.extend(more);
            if i == 0 {
                joules = totals;
                continue;
            }
            joules.retain(|block, _| totals.contains_key(block));
            joules.iter_mut().for_each(|(block, sum)| *sum += totals[block]);
        }
        if names.len() > 1 {
            notes.extend(self.complete(joules.len(), &names.join(" and "), String::new())?);
        }
        for name in names {
            let of_blocks = edge_of(name).map(|edge| self.steady.totals(edge)).unwrap_or_default();
            for block in joules.keys() {
                edges = edges.zip(of_blocks.get(block)).map(|(sum, edge)| sum + edge);
            }
        }
        let mut estimate = self.level(&joules, Per::Example).ok_or_else(|| self.missing(names[0]))?;
        let covered: Vec<String> = names.iter().map(|name| covered(self.environment, name)).collect();
        estimate.method += &format!(", of {}", covered.join(" and "));
        let Some(edges) = edges else {
            notes.push("how far the edges of its blocks are off was not recorded".into());
            return Ok(Outcome { estimate, confidence: CONFIDENCE, notes });
        };
        let share = edges / joules.values().sum::<f64>();
        let text = format!("the edges of its blocks can be {:.2} % of it", 100.0 * share);
        // infinite edges of infinite joules are no number
        if share > MOST_EDGE || share.is_nan() {
            let hint = "measure for longer: a block must last four periods of the energy counter".into();
            return Err(Missing { kind: "unavailable".into(), message: text, hint: Some(hint) });
        }
        if share > NOTED_EDGE {
            notes.push(text);
        }
        let edge = estimate.value * share;
        estimate.interval = estimate.interval.map(|(lower, upper)| ((lower - edge).max(0.0), upper + edge));
        estimate.method += ", widened by the edges of blocks";
        Ok(Outcome { estimate, confidence: CONFIDENCE, notes })
    }

    /// The edge error of an energy metric, per example.
    pub(super) fn edge(&self, name: &str, energy: &str) -> Metered {
        let pairs = self.pairs(&self.steady.totals(name), Per::Example);
        match over_level(&pairs, Spacing::Independent, "block") {
            Some(Estimate { value, n, .. }) => exact(value, n, "two counter periods a block at its mean power"),
            None => Err(self.reason(energy).unwrap_or_else(|| self.missing(name))),
        }
    }

    /// Totals of a metric by block and what to say of blocks without it; no domain uses 0 J (`energy`).
    fn totals(&self, name: &str, energy: bool) -> Result<(BTreeMap<u32, f64>, Option<String>), Missing> {
        let mut totals = self.steady.totals(name);
        let read = totals.len();
        if energy {
            totals.retain(|_, joules| *joules > 0.0);
        }
        let mut why = self.reason(name).map(|r| r.message);
        if read > totals.len() && why.is_none() {
            why = Some("its counter read 0 J, which no domain uses".into());
        }
        if name.starts_with("energy_") {
            why = self.without_leaps(&mut totals).or(why);
        }
        if totals.is_empty() {
            return Err(why.map_or_else(|| self.missing(name), unavailable));
        }
        let why = why.and_then(|w| Some(format!(": {}", w.lines().next()?))).unwrap_or_default();
        let note = self.complete(totals.len(), name, why)?;
        Ok((totals, note))
    }

    /// Leaves out blocks whose mean power is far above that of the others, and says so.
    fn without_leaps(&self, totals: &mut BTreeMap<u32, f64>) -> Option<String> {
        let watts: Vec<f64> = self.pairs(totals, Per::Second).into_iter().map(|(joules, s)| joules / s).collect();
        let ordered = sorted(&watts);
        // the lower middle: of few blocks, one that leaped must not become the measure of the others
        let median = *ordered.get(ordered.len().saturating_sub(1) / 2)?;
        let most = *ordered.last()?;
        if ordered.len() < FEW_BLOCKS || ordered.len() != totals.len() || most <= LEAP * median + LEAP_WATTS {
            return None;
        }
        let mut of_block = watts.into_iter();
        totals.retain(|_, _| of_block.next().is_none_or(|w| w <= LEAP * median + LEAP_WATTS));
        Some(format!(
            "a block showed {} W and half of the blocks at most {} W: a counter that jumped, or another program's work",
            format::number(most),
            format::number(median)
        ))
    }

    /// What to say where only some blocks have a metric; too few are no number.
    pub(super) fn complete(&self, have: usize, what: &str, why: String) -> Result<Option<String>, Missing> {
        let all = self.steady.blocks().len();
        match have {
            _ if have == all => Ok(None),
            0 | 1 => Err(unavailable(format!("{have} of {all} blocks have {what}, and it needs 2{why}"))),
            _ => Ok(Some(format!("{have} of {all} blocks have {what}{why}"))),
        }
    }

    /// Ratio of totals, with an interval over blocks or starts.
    fn level(&self, totals: &BTreeMap<u32, f64>, per: Per) -> Option<Estimate> {
        let pairs = self.pairs(totals, per);
        let units = self.steady.units(totals.keys().copied().zip(pairs));
        over_level(&units, self.steady.spacing(), self.steady.unit())
    }

    fn pairs(&self, totals: &BTreeMap<u32, f64>, per: Per) -> Vec<(f64, f64)> {
        let windows = self.steady.totals("window");
        let below = |block: &u32| {
            let &(examples, seconds) = self.steady.blocks().get(block)?;
            Some(if matches!(per, Per::Example) { examples } else { windows.get(block).copied().unwrap_or(seconds) })
        };
        totals.iter().filter_map(|(block, total)| Some((*total, below(block)?))).collect()
    }
}

fn unavailable(message: String) -> Missing {
    Missing { kind: "unavailable".into(), message, hint: None }
}
