//! How many timed blocks a case has, and how many rounds a group of interleaved cases.
//!
//! In: a scenario, seconds of an iteration, bases of comparisons. Out: counts. Must not: know a worker.
//!
//! Ten blocks; six where ten would draw a case out by seconds; in an interleaved group as many as its speed-ups need
//! for an interval; one with `--check`; one for each process where a scenario times processes; where a suite bounds the whole, as many as fit.

use std::collections::BTreeMap;

use ergometer_reports::compare::speedup::least_rounds;
use ergometer_suites::scenario::Scenario;

/// Timed blocks of a case, and so rounds.
const BLOCKS: u32 = 10;

/// Blocks of a case whose iterations are long: enough for an interval of a median.
const FEWEST: u32 = 6;

/// Seconds by which ten blocks of one iteration each may draw a case out before it gets fewer.
const MOST_OVERRUN: f64 = 5.0;

/// Timed blocks of a case whose iterations take so long: fewer where ten of one iteration each would take much longer
/// than the seconds it asks for. A scenario that times processes has one for each of them.
pub fn blocks(scenario: &Scenario, iteration: f64, seconds: f64) -> u32 {
    if let Some(processes) = scenario.processes() {
        return processes;
    }
    if f64::from(BLOCKS) * iteration > (3.0 * seconds).max(MOST_OVERRUN) { FEWEST } else { BLOCKS }
}

/// Of so many blocks as many as fit into these seconds with an iteration each, at least one.
pub fn within(blocks: u32, iteration: f64, seconds: f64) -> u32 {
    ((seconds / iteration.max(1e-9)).min(f64::from(blocks)) as u32).max(1)
}

/// Rounds of an interleaved group whose slowest case has so many blocks: at least as many as the interval of a speed-up
/// needs where so many cases are compared with one base, however long they take; a speed-up without an interval says
/// nothing.
pub fn rounds(blocks: u32, compared: usize) -> u32 {
    blocks.max(least_rounds(compared))
}

/// Most of these cases that are compared with one base; each case gives the id of its base, unless it is that case
/// itself.
pub fn compared<'a>(bases: impl Iterator<Item = Option<&'a str>>) -> usize {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    bases.flatten().for_each(|base| *counts.entry(base).or_default() += 1);
    counts.into_values().max().unwrap_or(0)
}
