//! Energy of processor packages and of their memory, from the kernel's powercap tree (Intel and AMD RAPL counters).
//!
//! In: the root of a powercap tree. Out: gross J of all packages (`energy_cpu`) and of the dram domain (`energy_dram`) over a window. Must
//! not: add up domains that contain each other (core, uncore and psys are never summed), turn a failed read into a wrap or a zero, or
//! believe a counter that it has not seen move, in the probe and in the window.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Meter, MeterOptions, Reading, Ready, Source, unmoved};
use crate::backends::Unavailable;
use zone::{Counter, Zone};

mod zone;

/// Powercap RAPL.
pub const METER: Meter = Meter {
    name: "rapl",
    about: "energy of processor packages and dram, from powercap RAPL counters",
    metrics: &["energy_cpu", "energy_dram"],
    estimate: false,
    probe,
};

/// More than any package draws, in W: what bounds the time between two reads and tells a wrap from a reset.
const MOST_WATTS: f64 = 1000.0;
/// Less than any package or dram domain draws beside a busy core, in W.
const LEAST_WATTS: f64 = 0.01;
/// How long a counter may stand still in the probe before it is not believed. RAPL counters move about each millisecond.
const STILL: Duration = Duration::from_millis(500);
/// How long the probe looks at counters that move, and the moves after which it has seen enough.
const PROBE: Duration = Duration::from_millis(200);
const MOVES: u32 = 25;
/// Moves that tell the period of a slower counter, if it gives them before [`STILL`]; it must give two.
const SLOW_MOVES: u32 = 4;

/// Finds the zones, watches their counters beside a busy core, keeps those that move plausibly.
fn probe(options: &MeterOptions) -> Result<Ready, Unavailable> {
    let root = &options.powercap;
    let zones = zone::find(root)?;
    let names: Vec<&str> = zones.iter().map(|z| z.name.as_str()).collect();
    let package: Vec<Zone> = zones.iter().filter(|z| z.name.starts_with("package-")).cloned().collect();
    let dram: Vec<Zone> = zones.iter().filter(|z| z.name == "dram").cloned().collect();
    if package.is_empty() && dram.is_empty() {
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
    let mut domains = Vec::new();
    for (metric, zones) in [("energy_cpu", package), ("energy_dram", dram)] {
        domains.push(Domain::prove(metric, zones, root));
    }
    let (ready, failed): (Vec<_>, Vec<_>) = domains.iter().partition(|d| d.refused.is_none());
    if ready.is_empty() {
        let reasons: Vec<&str> = failed.iter().filter_map(|d| Some(d.refused.as_ref()?.0.as_str())).collect();
        let hint = failed.iter().find_map(|d| d.refused.as_ref()?.1.clone());
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
            domain.counters.iter().map(|c| c.period).fold(0.0, f64::max) * 1e3
        ));
    }
    for domain in &failed {
        parts.push(format!("no {}: {}", domain.metric, domain.refused.as_ref().map_or("", |r| r.0.as_str())));
    }
    Ok(Ready { resolution: parts.join("; "), source: Some(Box::new(Rapl { domains, opened: None })), facts })
}

/// What to do where there is no tree.
pub(crate) const NO_TREE: &str = "on a machine of your own: sudo modprobe intel_rapl_msr; a virtual machine is not given these counters: measure on its host";

/// Zones whose energies add up to one metric.
struct Domain {
    metric: &'static str,
    counters: Vec<Counter>,
    /// Why the probe does not believe it, and the remedy.
    refused: Option<(String, Option<String>)>,
}

impl Domain {
    /// Watches every counter of the domain at once while this thread is busy.
    fn prove(metric: &'static str, zones: Vec<Zone>, root: &Path) -> Self {
        let refuse =
            |reason: String, hint: Option<String>| Self { metric, counters: Vec::new(), refused: Some((reason, hint)) };
        if zones.is_empty() {
            return refuse(format!("{}: no domain for {metric}", root.display()), None);
        }
        let mut counters = Vec::new();
        for zone in zones {
            match Counter::open(zone) {
                Ok(counter) => counters.push(counter),
                Err(why) => return refuse(why.reason, why.hint),
            }
        }
        let begin = Instant::now();
        // Reading is itself the work that keeps the core busy.
        let wanted = |elapsed: Duration| if elapsed < PROBE { MOVES } else { SLOW_MOVES };
        while begin.elapsed() < STILL && counters.iter().any(|c| c.moves < wanted(begin.elapsed())) {
            for counter in &mut counters {
                if let Err(why) = counter.watch() {
                    return refuse(why, None);
                }
            }
        }
        for counter in &counters {
            let file = counter.zone.file.display();
            if counter.moves < 2 {
                let reason =
                    format!("{file}: stood at {} µJ while a core was busy for {} ms", counter.last, STILL.as_millis());
                return refuse(reason, Some("a virtual machine may show a counter that never counts".into()));
            }
            if !(LEAST_WATTS..=MOST_WATTS).contains(&counter.watts()) {
                return refuse(format!("{file}: {:.4} W beside a busy core is not plausible", counter.watts()), None);
            }
        }
        zone::drop_twins(&mut counters);
        Self { metric, counters, refused: None }
    }

    fn reading(&mut self, seconds: f64) -> Reading {
        if let Some((why, hint)) = &self.refused {
            let hint = hint.as_ref().map(|h| format!("\nhint: {h}")).unwrap_or_default();
            return Reading { metric: self.metric, value: Err(format!("{why}{hint}")), resolution: 0.0 };
        }
        // a sum without one of its counters is as wrong as no sum
        let unmoved = |c: &Counter| format!("{}: {}", c.zone.file.display(), unmoved(seconds, c.period));
        let failure = self.counters.iter().find_map(|c| c.failure.clone().or((c.total == 0).then(|| unmoved(c))));
        let joules: f64 = self.counters.iter().map(|c| c.total as f64 * 1e-6).sum();
        match failure {
            Some(why) => Reading { metric: self.metric, value: Err(why), resolution: 0.0 },
            None => {
                let period = self.counters.iter().map(|c| c.period).fold(0.0, f64::max);
                let resolution = if seconds > 0.0 { joules / seconds * period } else { 0.0 };
                // Never finer than what the counter can show.
                let quantum = self.counters.iter().map(|c| c.quantum).sum::<f64>();
                Reading { metric: self.metric, value: Ok(joules), resolution: resolution.max(quantum) }
            }
        }
    }
}

/// The open window.
struct Rapl {
    domains: Vec<Domain>,
    opened: Option<Instant>,
}

impl Rapl {
    fn counters(&mut self) -> impl Iterator<Item = &mut Counter> {
        self.domains.iter_mut().flat_map(|d| &mut d.counters)
    }
}

impl Source for Rapl {
    fn start(&mut self) {
        self.opened = Some(Instant::now());
        self.counters().for_each(Counter::restart);
    }

    fn tick(&mut self) {
        self.counters().for_each(Counter::advance);
    }

    fn stop(&mut self) -> Vec<Reading> {
        self.tick();
        let seconds = self.opened.take().map_or(0.0, |t| t.elapsed().as_secs_f64());
        self.domains.iter_mut().map(|d| d.reading(seconds)).collect()
    }

    fn tick_interval(&self) -> Option<Duration> {
        // Half of the shortest time in which a counter could wrap.
        let shortest = self.domains.iter().flat_map(|d| &d.counters).map(|c| c.zone.range).min()?;
        Some(Duration::from_secs_f64(shortest as f64 * 1e-6 / MOST_WATTS / 2.0))
    }
}

/// Bytes of a small attribute file; more than it can hold is not read.
fn read_small(file: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = Vec::new();
    fs::File::open(file)?.take(128).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).trim().to_string())
}

#[cfg(test)]
mod tests;
