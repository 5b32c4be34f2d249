//! Energy of processor packages and of their memory, from the kernel's powercap tree (Intel and AMD RAPL counters).
//!
//! In: the root of a powercap tree. Out: gross J of all packages (`energy_cpu`) and of the dram domain (`energy_dram`) over a window. Must
//! not: add up domains that contain each other (core, uncore and psys are never summed), turn a failed read into a wrap or a zero, or
//! believe a counter that it has not seen move, in the probe and in the window.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tally::{Nature, TICK, Tally};
use super::{EnergySource, Meter, MeterOptions, MeterReading, ProbedMeter};
use crate::backends::Unavailable;
use zone::{Tree, Zone};

mod zone;

/// Powercap RAPL.
pub const METER: Meter = Meter {
    name: "rapl",
    about: "energy of processor packages and dram, from powercap RAPL counters",
    metrics: &["energy_cpu", "energy_dram"],
    estimate: false,
    probe,
};

/// More than any package draws, in W; a zone that shows limits of its own is held to twice the largest of them.
const MOST_WATTS: f64 = 1000.0;
/// Never held to less than this, in W: limits are means over seconds, and may be switched off.
const LEAST_BOUND: f64 = 100.0;
/// Less than a package, or memory, draws beside a busy core, in W: what is below counts in units a thousandfold too small.
const LEAST_PACKAGE: f64 = 1.0;
const LEAST_DRAM: f64 = 0.05;
/// How long a counter may stand still in the probe before it is not believed. RAPL counters move about each millisecond.
const STILL: Duration = Duration::from_millis(500);
/// How long the probe looks at counters that move, and the moves after which it has seen enough.
const PROBE: Duration = Duration::from_millis(200);
const MOVES: u32 = 25;
/// Moves that tell the period of a slower counter, if it gives them before [`STILL`]; it must give two.
const SLOW_MOVES: u32 = 4;

/// Finds the zones, watches their counters beside a busy core, keeps those that move plausibly.
fn probe(options: &MeterOptions) -> Result<ProbedMeter, Unavailable> {
    let root = &options.powercap;
    let tree = zone::find(root)?;
    let (package, dram) = (tree.packages(), tree.drams());
    if package.is_empty() && dram.is_empty() {
        // what cannot be followed is the reason, not that there is nothing
        if let Some(problem) = tree.problem(false).or(tree.problem(true)) {
            return Err(problem.clone());
        }
        let names: Vec<String> = tree.zones.iter().map(|z| z.name.chars().take(40).collect()).collect();
        return Err(Unavailable {
            reason: format!(
                "{}: no package and no dram domain (found: {}; other domains are parts of a package or more than it)",
                root.display(),
                if names.is_empty() { "no zone at all".into() } else { names.join(", ") }
            ),
            hint: Some(NO_TREE.into()),
        });
    }
    let mut facts = BTreeMap::new();
    let domains: Vec<Domain> = [("energy_cpu", package), ("energy_dram", dram)]
        .map(|(metric, zones)| Domain::prove(metric, zones, &tree, root))
        .into();
    let (ready, failed): (Vec<_>, Vec<_>) = domains.iter().partition(|d| d.refused.is_none());
    if ready.is_empty() {
        let reasons: Vec<&str> = failed.iter().filter_map(|d| Some(d.refused.as_ref()?.reason.as_str())).collect();
        let hint = failed.iter().find_map(|d| d.refused.as_ref()?.hint.clone());
        return Err(Unavailable { reason: reasons.join("; "), hint });
    }
    let mut parts = Vec::new();
    for domain in &ready {
        let names: Vec<&str> = domain.counters.iter().map(|c| c.zone.name.as_str()).collect();
        facts.insert(format!("rapl.{}", domain.metric), names.join("+"));
        parts.push(format!(
            "{}: {:.3} J each {:.1} ms",
            domain.metric,
            domain.counters.iter().map(|c| c.step).sum::<f64>(),
            domain.counters.iter().map(Counter::period).fold(0.0, f64::max) * 1e3
        ));
    }
    for domain in &failed {
        parts.push(format!("no {}: {}", domain.metric, domain.refused.as_ref().map_or("", |r| r.reason.as_str())));
    }
    let source = Rapl { domains, root: root.clone(), names: zone::names(root), changed: None };
    Ok(ProbedMeter { resolution: parts.join("; "), source: Some(Box::new(source)), facts, estimate: false })
}

/// What to do where there is no tree.
pub(crate) const NO_TREE: &str = "on a machine of your own: sudo modprobe intel_rapl_msr; a virtual machine is not given these counters: measure on its host";

/// A zone's counter: what the probe saw of it, and its open window.
struct Counter {
    zone: Zone,
    tally: Tally,
    /// Moves seen in the probe, µJ between the first and the last of them, and when these were.
    moves: u32,
    between: u64,
    moved: Option<(Instant, Instant)>,
    /// Largest and smallest move in the probe, J.
    step: f64,
    quantum: f64,
}

impl Counter {
    fn open(zone: Zone, metric: &str) -> Result<Self, Unavailable> {
        let first = zone::read(&zone)?;
        if first > zone.range {
            let reason = format!(
                "{}: {first} µJ, but max_energy_range_uj beside it says that it wraps at {} µJ",
                zone.file.display(),
                zone.range
            );
            return Err(Unavailable { reason, hint: None });
        }
        let (most_watts, basis) = match zone.limit {
            Some(limit) => {
                ((2.0 * limit).clamp(LEAST_BOUND, MOST_WATTS), format!("its limit of {limit:.0} W allows no"))
            }
            None if metric == "energy_dram" => (MOST_WATTS / 2.0, "no memory draws".into()),
            None => (MOST_WATTS, "no package draws".into()),
        };
        let nature = Nature { unit: 1e-6, range: Some(zone.range), most_watts, basis, steady: true, period: 0.0 };
        let tally = Tally::new(nature, first, Instant::now());
        Ok(Self { zone, tally, moves: 0, between: 0, moved: None, step: 0.0, quantum: f64::INFINITY })
    }

    fn period(&self) -> f64 {
        self.tally.nature.period
    }

    fn read(&self) -> Result<u64, String> {
        zone::read(&self.zone).map_err(|e| e.reason)
    }

    /// One look of the probe: notes a move.
    fn watch(&mut self) -> Result<(), String> {
        let (count, now) = (self.read(), Instant::now());
        let moved = self.tally.note(count, now);
        if let Some(why) = self.tally.failure() {
            return Err(why.into());
        }
        if moved == 0 {
            return Ok(());
        }
        self.moves += 1;
        // the first move began before we looked: only whole ones are measured
        match &mut self.moved {
            None => self.moved = Some((now, now)),
            Some((_, to)) => {
                *to = now;
                self.between += moved;
                self.step = self.step.max(moved as f64 * 1e-6);
                self.quantum = self.quantum.min(moved as f64 * 1e-6);
            }
        }
        Ok(())
    }

    /// Seconds between the first and the last move of the probe.
    fn watched(&self) -> f64 {
        self.moved.map_or(0.0, |(from, to)| to.duration_since(from).as_secs_f64())
    }

    /// Mean power over these.
    fn watts(&self) -> f64 {
        self.between as f64 * 1e-6 / self.watched()
    }

    /// Says whose failure it is, by the file, once.
    fn told(&self, why: String) -> String {
        let file = self.zone.file.display().to_string();
        if why.starts_with(&file) { why } else { format!("{file}: {why}") }
    }
}

/// Zones whose energies add up to one metric.
struct Domain {
    metric: &'static str,
    counters: Vec<Counter>,
    /// Why the probe does not believe it, and the remedy.
    refused: Option<Unavailable>,
}

impl Domain {
    /// Watches every counter of the domain at once while this thread is busy.
    fn prove(metric: &'static str, zones: Vec<Zone>, tree: &Tree, root: &Path) -> Self {
        let counters = match tree.problem(metric == "energy_dram") {
            // a sum without one of its zones is as wrong as no sum
            Some(problem) => Err(problem.clone()),
            None if zones.is_empty() => {
                Err(Unavailable { reason: format!("{}: no domain for {metric}", root.display()), hint: None })
            }
            None => Self::watch(metric, zones),
        };
        match counters {
            Ok(counters) => Self { metric, counters, refused: None },
            Err(why) => Self { metric, counters: Vec::new(), refused: Some(why) },
        }
    }

    fn watch(metric: &str, zones: Vec<Zone>) -> Result<Vec<Counter>, Unavailable> {
        let refuse = |reason: String, hint: Option<&str>| Unavailable { reason, hint: hint.map(str::to_string) };
        let mut counters = zones.into_iter().map(|z| Counter::open(z, metric)).collect::<Result<Vec<_>, _>>()?;
        let begin = Instant::now();
        // reading is itself the work that keeps the core busy
        let wanted = |elapsed: Duration| if elapsed < PROBE { MOVES } else { SLOW_MOVES };
        let (mut passes, mut alike) = (0u32, vec![vec![0u32; counters.len()]; counters.len()]);
        while begin.elapsed() < STILL && counters.iter().any(|c| c.moves < wanted(begin.elapsed())) {
            for counter in &mut counters {
                counter.watch().map_err(|why| refuse(counter.told(why), None))?;
            }
            passes += 1;
            for (a, first) in counters.iter().enumerate() {
                for (b, second) in counters.iter().enumerate().skip(a + 1) {
                    let near = 1e6 * first.quantum.min(second.quantum) / 4.0;
                    let near = if near.is_finite() { near } else { 0.0 };
                    alike[a][b] += u32::from(first.tally.last.abs_diff(second.tally.last) as f64 <= near);
                }
            }
        }
        let least = if metric == "energy_dram" { LEAST_DRAM } else { LEAST_PACKAGE };
        for counter in &mut counters {
            let file = counter.zone.file.display();
            if counter.moves < 2 {
                let last = counter.tally.last;
                let reason = format!("{file}: stood at {last} µJ while a core was busy for {} ms", STILL.as_millis());
                return Err(refuse(reason, Some("a virtual machine may show a counter that never counts")));
            }
            let (watts, most) = (counter.watts(), counter.tally.nature.most_watts);
            if !(least..=most).contains(&watts) {
                let hint = "its unit may be wrong by a thousand; a newer kernel may know this processor better";
                let reason =
                    format!("{file}: {watts:.4} W beside a busy core is not plausible ({least} to {most:.0} W are)");
                return Err(refuse(reason, Some(hint)));
            }
            counter.tally.nature.period = counter.watched() / f64::from(counter.moves - 1);
        }
        // two names of one counter show the same value whenever they are read one after the other: the first is kept
        let twin = |b: usize| (0..b).any(|a| 2 * alike[a][b] >= passes);
        let kept = (0..counters.len()).map(|b| !twin(b)).collect::<Vec<_>>();
        let mut at = kept.iter();
        counters.retain(|_| *at.next().unwrap_or(&true));
        Ok(counters)
    }

    fn reading(&self, seconds: f64, changed: Option<&str>) -> MeterReading {
        let failed = |why: String| MeterReading { metric: self.metric, value: Err(why), resolution: 0.0, note: None };
        if let Some(why) = &self.refused {
            return failed(why.text());
        }
        if let Some(why) = changed {
            return failed(why.into());
        }
        let (mut joules, mut edge, mut quantum) = (0.0, 0.0f64, 0.0);
        for counter in &self.counters {
            match counter.tally.counted() {
                // a sum without one of its counters is as wrong as no sum
                Err(why) => return failed(counter.told(why)),
                Ok(counted) => {
                    joules += counted.joules;
                    edge = edge.max(counted.edge_seconds);
                    quantum += counter.quantum;
                }
            }
        }
        let resolution = if seconds > 0.0 { joules / seconds * edge } else { 0.0 };
        // never finer than what the counter can show
        MeterReading { metric: self.metric, value: Ok(joules), resolution: resolution.max(quantum), note: None }
    }
}

/// The open window.
struct Rapl {
    domains: Vec<Domain>,
    root: PathBuf,
    /// Zones of the tree in the probe.
    names: Vec<String>,
    /// When the window was opened, and that zones have come or gone since the probe.
    changed: Option<(Instant, Option<String>)>,
}

impl Rapl {
    fn counters(&mut self) -> impl Iterator<Item = &mut Counter> {
        self.domains.iter_mut().flat_map(|d| &mut d.counters)
    }
}

impl EnergySource for Rapl {
    fn start(&mut self) {
        let now = zone::names(&self.root);
        let root = self.root.display();
        let changed = (now != self.names).then(|| {
            format!(
                "{root}: zones have come or gone since the run began ({}, now {})",
                self.names.join(" "),
                now.join(" ")
            )
        });
        self.changed = Some((Instant::now(), changed));
        self.counters().for_each(|c| {
            let count = c.read();
            c.tally.restart(count, Instant::now());
        });
    }

    fn tick(&mut self) {
        self.counters().for_each(|c| {
            let count = c.read();
            c.tally.note(count, Instant::now());
        });
    }

    fn stop(&mut self) -> Vec<MeterReading> {
        self.tick();
        let (opened, changed) = self.changed.take().unwrap_or((Instant::now(), None));
        let seconds = opened.elapsed().as_secs_f64();
        self.domains.iter().map(|d| d.reading(seconds, changed.as_deref())).collect()
    }

    fn tick_interval(&self) -> Option<Duration> {
        // half of the shortest time in which a counter could wrap
        let shortest = self.domains.iter().flat_map(|d| &d.counters).map(|c| c.zone.range).min()?;
        Some(TICK.min(Duration::from_secs_f64(shortest as f64 * 1e-6 / MOST_WATTS / 2.0)))
    }

    fn period(&self, metric: &str) -> Option<f64> {
        let of = self.domains.iter().filter(|d| d.metric == metric && d.refused.is_none());
        of.flat_map(|d| d.counters.iter().map(Counter::period)).reduce(f64::max).filter(|p| *p > 0.0)
    }
}

#[cfg(test)]
mod tests;
