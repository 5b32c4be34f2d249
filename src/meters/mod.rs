//! Sources of readings over a window: energy, processor time and memory, each probed before it is believed.
//!
//! In: where to look ([`MeterOptions`]). Out: what each meter can say here ([`Meters::states`]) and readings of a window (a value with
//! its resolution, or why there is none). Must not: run a model, know a case, or put a zero or an estimate where a reading is missing.
//!
//! The harness process meters a worker from outside while the worker times its own iterations, so that no program reports its own joules.
//! Adding a meter: one file with a `pub const METER: Meter`, and its line in [`METERS`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ergometer_reports::environment::MeterState;
use ergometer_reports::metric::domain;

use crate::backends::Unavailable;

pub mod cpu;
#[cfg(test)]
#[path = "../../tests/fakes/powercap.rs"]
pub(crate) mod fake_powercap;
pub mod memory;
pub mod nvml;
pub mod rapl;
#[cfg(test)]
mod respawn;
mod tally;

/// Every meter.
pub const METERS: &[Meter] = &[rapl::METER, nvml::METER, cpu::METER, memory::METER];

/// A kind of meter: one line in [`METERS`].
pub struct Meter {
    /// Name in `environment.json` and `ergometer doctor`.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Metrics of [`METRICS`](ergometer_reports::metric::METRICS) that it feeds.
    pub metrics: &'static [&'static str],
    /// Its values are estimates rather than readings.
    pub estimate: bool,
    /// Tries the source for real (a fraction of a second) and says how finely it reads, or why it cannot be believed.
    pub probe: fn(&MeterOptions) -> Result<ProbedMeter, Unavailable>,
}

/// A meter that has proved itself.
pub struct ProbedMeter {
    /// Smallest step of a reading, with unit, for people.
    pub resolution: String,
    /// What meters windows; `None` for meters of one process, which the caller reads by functions ([`cpu`], [`memory`]).
    pub source: Option<Box<dyn EnergySource>>,
    /// What else decides what the numbers mean: domains (`rapl.energy_cpu`, `nvml.energy_gpu`), versions, names of boards (`gpu.N`).
    pub facts: BTreeMap<String, String>,
    /// Some of its values are estimates.
    pub estimate: bool,
}

/// Something that counts up, read at both ends of a window.
pub trait EnergySource: Send {
    /// Opens a window. A failure is kept and told by [`stop`](Self::stop).
    fn start(&mut self);
    /// Reads in the middle of a window, so that no counter can wrap twice between two reads.
    fn tick(&mut self);
    /// Closes the window: one reading for each metric that the meter feeds, in J over the whole window.
    fn stop(&mut self) -> Vec<MeterReading>;
    /// The longest time between two reads that loses nothing; `None`: any.
    fn tick_interval(&self) -> Option<Duration> {
        None
    }
    /// Seconds between two moves of the counter behind a metric, as the probe saw them; `None`: not known.
    fn period(&self, _metric: &str) -> Option<f64> {
        None
    }
}

/// What a meter says of one window.
#[derive(Clone, Debug, PartialEq)]
pub struct MeterReading {
    /// Name in [`METRICS`](ergometer_reports::metric::METRICS).
    pub metric: &'static str,
    /// Total of the window in the metric's unit, or why there is none.
    pub value: Result<f64, String>,
    /// How far the value can be off at each end of the window, same unit (so a window's error is at most twice this); 0 beside an error.
    pub resolution: f64,
    /// What a reader must know beside the value: what it leaves out, what of it is estimated.
    pub note: Option<String>,
}

/// Why a counter that did not move in a window gives no reading: what it counted is unknown, not 0.
pub(crate) fn unmoved(seconds: f64, period: f64) -> String {
    if seconds < 2.0 * period {
        format!("the window of {seconds:.3} s is shorter than the counter's period (about {period:.3} s)")
    } else {
        format!("the counter stood still for {seconds:.3} s, though it used to move each {period:.3} s")
    }
}

/// Where meters look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterOptions {
    /// Root of a powercap tree.
    pub powercap: PathBuf,
    /// Path of the NVML library; `None`: where the loader finds it.
    pub nvml: Option<PathBuf>,
    /// What `CUDA_VISIBLE_DEVICES` says: boards that this process and its workers can use; `None`: all.
    pub visible_gpus: Option<String>,
    /// Integrate the power of boards that have no energy counter.
    pub integrate_power: bool,
}

impl Default for MeterOptions {
    fn default() -> Self {
        Self { powercap: PathBuf::from("/sys/class/powercap"), nvml: None, visible_gpus: None, integrate_power: false }
    }
}

impl MeterOptions {
    /// From `ERGOMETER_POWERCAP`, `ERGOMETER_NVML`, `ERGOMETER_NVML_POWER` and `CUDA_VISIBLE_DEVICES`; an empty path counts as unset.
    pub fn from_env() -> Self {
        let path = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let default = Self::default();
        Self {
            powercap: path("ERGOMETER_POWERCAP").unwrap_or(default.powercap),
            nvml: path("ERGOMETER_NVML"),
            visible_gpus: std::env::var_os("CUDA_VISIBLE_DEVICES").map(|v| v.to_string_lossy().into_owned()),
            integrate_power: std::env::var(nvml::POWER).is_ok_and(|v| v.trim().eq_ignore_ascii_case("integrate")),
        }
    }
}

/// Every meter as probed once at the start of a run, and the open window of those that are ready.
pub struct Meters {
    states: Vec<MeterState>,
    facts: BTreeMap<String, String>,
    sources: Vec<Box<dyn EnergySource>>,
    /// Readings of meters that are unavailable, told again with each window.
    missing: Vec<MeterReading>,
    /// W by metric while the machine was idle, where it was watched.
    idle: BTreeMap<String, f64>,
    opened: Option<Instant>,
}

/// A window below this share of the idle power is not believed: a machine at work uses no less than an idle one, and an idle one is not
/// twice as hungry at one time as at another.
const LEAST_OF_IDLE: f64 = 0.5;

impl Meters {
    /// Without any meter, for what needs times alone.
    pub fn none() -> Self {
        Self {
            states: Vec::new(),
            facts: BTreeMap::new(),
            sources: Vec::new(),
            missing: Vec::new(),
            idle: BTreeMap::new(),
            opened: None,
        }
    }

    /// Probes every meter; takes a fraction of a second (two seconds at most), part of it busy. Call it once for a run, before any worker.
    pub fn probe(options: &MeterOptions) -> Self {
        let mut meters = Self::none();
        for meter in METERS {
            let mut state = MeterState {
                name: meter.name.into(),
                metrics: meter.metrics.iter().map(|m| (*m).into()).collect(),
                resolution: None,
                unavailable: None,
                estimate: meter.estimate,
            };
            match (meter.probe)(options) {
                Ok(ready) => {
                    state.resolution = Some(ready.resolution);
                    state.estimate |= ready.estimate;
                    meters.facts.extend(ready.facts);
                    meters.sources.extend(ready.source);
                }
                Err(why) => {
                    let reason = why.text();
                    // Only energy is read by windows; processor time and memory fail where the caller reads them.
                    let energy = meter.metrics.iter().filter(|m| domain(m).is_some());
                    meters.missing.extend(energy.map(|metric| MeterReading {
                        metric,
                        value: Err(reason.clone()),
                        resolution: 0.0,
                        note: None,
                    }));
                    state.unavailable = Some(reason);
                }
            }
            crate::console::detail(|| match &state.unavailable {
                None => {
                    format!("meter {}: ready, resolution {}", state.name, state.resolution.as_deref().unwrap_or("?"))
                }
                Some(why) => format!("meter {}: unavailable, {why}", state.name),
            });
            meters.states.push(state);
        }
        meters
    }

    /// What each meter said when probed, in the order of [`METERS`].
    pub fn states(&self) -> Vec<MeterState> {
        self.states.clone()
    }

    /// Domains, versions and names of boards that ready meters told, for the environment's versions.
    pub fn facts(&self) -> &BTreeMap<String, String> {
        &self.facts
    }

    /// Opens a window: call it right before `go`.
    pub fn start(&mut self) {
        // the slow ones first and, when it closes, last: their windows hold those of the quick ones
        self.sources.iter_mut().rev().for_each(|s| s.start());
        self.opened = Some(Instant::now());
    }

    /// Call it at least every [`tick_interval`](Self::tick_interval) while a window is open.
    pub fn tick(&mut self) {
        self.sources.iter_mut().for_each(|s| s.tick());
    }

    /// The longest time between start, ticks and stop; `None`: no tick is needed.
    pub fn tick_interval(&self) -> Option<Duration> {
        self.sources.iter().filter_map(|s| s.tick_interval()).min()
    }

    /// Seconds between two moves of the counter behind an energy metric; `None`: there is none, or it is not known.
    pub fn period(&self, metric: &str) -> Option<f64> {
        self.sources.iter().find_map(|s| s.period(metric))
    }

    /// Closes the window: one reading for each energy metric, in J over the whole window, unavailable ones among them.
    pub fn stop(&mut self) -> Vec<MeterReading> {
        let seconds = self.opened.take().map_or(0.0, |t| t.elapsed().as_secs_f64()).max(1e-9);
        let mut readings: Vec<MeterReading> = self.sources.iter_mut().flat_map(|s| s.stop()).collect();
        for reading in &mut readings {
            let Ok(joules) = reading.value else { continue };
            // with all that its edges can hide
            let watts = (joules + 2.0 * reading.resolution) / seconds;
            if let Some(idle) = self.idle.get(reading.metric).filter(|idle| watts < LEAST_OF_IDLE * **idle) {
                reading.value = Err(format!(
                    "{watts:.3} W is not plausible: the idle machine used {idle:.3} W before the run (was the counter reset, or was the machine not idle then?)"
                ));
                reading.resolution = 0.0;
            }
        }
        readings.extend(self.missing.iter().cloned());
        readings
    }

    /// Tells the idle power that was seen when a run began, so that later windows are held to it.
    pub fn set_idle(&mut self, watts: &BTreeMap<String, f64>) {
        self.idle.clone_from(watts);
    }

    /// Power in watts by energy metric while this process sleeps for `time`: the machine's idle power if nothing else runs.
    pub fn idle_watts(&mut self, time: Duration) -> BTreeMap<String, f64> {
        if self.sources.is_empty() || time.is_zero() {
            return BTreeMap::new();
        }
        self.idle.clear();
        let begin = Instant::now();
        self.start();
        while let Some(left) = time.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
            std::thread::sleep(self.tick_interval().map_or(left, |tick| left.min(tick)));
            self.tick();
        }
        let readings = self.stop();
        let seconds = begin.elapsed().as_secs_f64();
        let watts: BTreeMap<String, f64> =
            readings.into_iter().filter_map(|r| Some((r.metric.to_string(), r.value.ok()? / seconds))).collect();
        self.set_idle(&watts);
        watts
    }
}

#[cfg(test)]
mod tests {
    use super::fake_powercap::FakePowercap;
    use super::*;

    #[test]
    fn every_meter_feeds_metrics_of_the_table_under_a_name_of_its_own() {
        for (i, meter) in METERS.iter().enumerate() {
            assert!(METERS[..i].iter().all(|other| other.name != meter.name), "{} twice", meter.name);
            assert!(!meter.metrics.is_empty());
            for name in meter.metrics {
                assert!(ergometer_reports::metric::metric(name).is_some(), "{} feeds unknown {name}", meter.name);
            }
        }
    }

    #[test]
    fn a_missing_meter_reads_unavailable_and_never_zero() {
        let nowhere = MeterOptions {
            powercap: "/nonexistent/powercap".into(),
            nvml: Some("/nonexistent/libnvidia-ml.so".into()),
            ..MeterOptions::default()
        };
        let mut meters = Meters::probe(&nowhere);
        meters.start();
        let readings = meters.stop();
        let mut names: Vec<_> = readings.iter().map(|r| r.metric).collect();
        names.sort();
        assert_eq!(names, ["energy_cpu", "energy_dram", "energy_gpu"]);
        assert!(readings.iter().all(|r| r.value.is_err()), "{readings:?}");
        assert!(meters.idle_watts(Duration::from_millis(1)).is_empty());
        assert!(meters.tick_interval().is_none());
    }

    #[test]
    fn less_than_an_idle_machine_uses_is_not_believed() {
        struct Said(f64);
        impl EnergySource for Said {
            fn start(&mut self) {}
            fn tick(&mut self) {}
            fn stop(&mut self) -> Vec<MeterReading> {
                vec![MeterReading { metric: "energy_cpu", value: Ok(self.0), resolution: 0.0, note: None }]
            }
        }
        for (share, believed) in [(0.15, false), (0.3, false), (0.9, true)] {
            let mut meters = Meters::none();
            meters.set_idle(&BTreeMap::from([("energy_cpu".to_string(), 1e3)]));
            meters.start();
            std::thread::sleep(Duration::from_millis(300));
            // as many J as the idle machine uses in this time, and a part of that
            let seconds = meters.opened.map_or(0.0, |t| t.elapsed().as_secs_f64());
            meters.sources = vec![Box::new(Said(share * 1e3 * seconds))];
            let reading = meters.stop().remove(0);
            assert_eq!(reading.value.is_ok(), believed, "{share}: {reading:?}");
        }
    }

    #[test]
    fn idle_power_of_a_fake_tree_is_its_wattage() {
        let fake = FakePowercap::new().zone("intel-rapl:0", "package-0", 40.0).run().unwrap();
        let options = MeterOptions { powercap: fake.root().into(), ..MeterOptions::default() };
        let mut meters = Meters::probe(&options);
        let watts = meters.idle_watts(Duration::from_millis(300));
        // Wide, because a busy machine lets the fake's thread wait; that joules are exact is for the tests of `rapl`.
        assert!((20.0..80.0).contains(&watts["energy_cpu"]), "{watts:?}");
        assert!(!watts.contains_key("energy_dram"), "{watts:?}");
    }
}
