//! One powercap zone: finding it, reading its counter, adding up what it counted.
//!
//! In: a powercap tree. Out: µJ since a window opened, or why there are none. Must not: sum zones.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{MOST_WATTS, NO_TREE, read_small};
use crate::backends::Unavailable;

/// Energy in µJ that a late update may add to a window, beyond what [`MOST_WATTS`] gives: 0.2 s of it.
const LATE_UJ: f64 = 0.2 * MOST_WATTS * 1e6;

/// A zone of the tree.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    /// What its file `name` says: `package-0`, `core`, `dram` ...
    pub name: String,
    /// Its counter file.
    pub file: PathBuf,
    /// µJ at which the counter wraps.
    pub range: u64,
}

/// Every zone below `root`, sorted by path, those of the MMIO interface left out where the MSR interface has the same package.
pub(super) fn find(root: &Path) -> Result<Vec<Zone>, Unavailable> {
    if let Err(e) = fs::read_dir(root) {
        let mut reason = format!("{}: {e}", root.display());
        if Path::new("/sys/bus/event_source/devices/power").exists() {
            reason.push_str(" (perf has a `power` device here, which ergometer does not read)");
        }
        return Err(Unavailable { reason, hint: Some(NO_TREE.into()) });
    }
    let mut folders = BTreeSet::new();
    walk(root, 0, &mut folders);
    let mut zones: Vec<(bool, Zone)> = Vec::new();
    for folder in folders {
        let file = folder.join("energy_uj");
        let Ok(name) = read_small(&folder.join("name")) else { continue };
        // A zone without a counter only limits power.
        if matches!(fs::symlink_metadata(&file), Err(e) if e.kind() == io::ErrorKind::NotFound) {
            continue;
        }
        let mmio = folder.components().any(|c| c.as_os_str().to_string_lossy().contains("mmio"));
        let range = read_small(&folder.join("max_energy_range_uj")).ok().and_then(|t| t.parse().ok()).unwrap_or(0);
        zones.push((mmio, Zone { name, file, range }));
    }
    let by_msr = zones.iter().any(|(mmio, z)| !mmio && z.name.starts_with("package-"));
    Ok(zones.into_iter().filter(|(mmio, _)| !(*mmio && by_msr)).map(|(_, z)| z).collect())
}

/// Folders of zones, each once though sysfs shows them flat and nested; only RAPL's own, never `subsystem` or `device` links.
fn walk(folder: &Path, depth: u32, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().contains("rapl")) {
        let Ok(path) = fs::canonicalize(entry.path()) else { continue };
        if path.is_dir() && found.insert(path.clone()) && depth < 3 {
            walk(&path, depth + 1, found);
        }
    }
}

/// Dies of one package that show the package's one counter twice: the first is kept.
pub(super) fn drop_twins(counters: &mut Vec<Counter>) {
    let package = |name: &str| name.split("-die-").next().map(str::to_string);
    let mut kept: Vec<Counter> = Vec::new();
    for counter in counters.drain(..) {
        let near = |a: u64, b: u64| a.abs_diff(b) as f64 * 1e-6 <= 4.0 * counter.step;
        let twin = |k: &Counter| {
            k.zone.name.contains("-die-")
                && package(&k.zone.name) == package(&counter.zone.name)
                && near(k.first, counter.first)
                && near(k.last, counter.last)
        };
        if !kept.iter().any(twin) {
            kept.push(counter);
        }
    }
    *counters = kept;
}

/// A zone's counter: what it showed last and what it has counted since the window opened.
pub(super) struct Counter {
    pub zone: Zone,
    /// First value ever seen, µJ.
    pub first: u64,
    /// Value seen last, µJ.
    pub last: u64,
    seen: Instant,
    /// µJ since the window opened.
    pub total: u128,
    /// Why the window has no value.
    pub failure: Option<String>,
    /// Moves seen in the probe.
    pub moves: u32,
    /// Largest and smallest move in the probe, J.
    pub step: f64,
    pub quantum: f64,
    /// Mean seconds between moves in the probe.
    pub period: f64,
    /// Time of the first and the last move, and µJ between them.
    moved: Option<(Instant, Instant)>,
    between: u128,
}

impl Counter {
    /// First read, and the checks that need no time.
    pub fn open(zone: Zone) -> Result<Self, Unavailable> {
        let file = zone.file.display();
        let first = read(&zone.file).map_err(|e| Unavailable {
            reason: format!("{file}: {e}"),
            hint: (e.kind() == io::ErrorKind::PermissionDenied).then(|| {
                "only root may read it; until the next boot, allow it by: sudo chmod a+r /sys/class/powercap/*/energy_uj".into()
            }),
        })?;
        if zone.range == 0 || first > zone.range {
            let reason = format!(
                "{file}: {first} µJ, but max_energy_range_uj beside it says that it wraps at {} µJ",
                zone.range
            );
            return Err(Unavailable { reason, hint: None });
        }
        Ok(Self {
            zone,
            first,
            last: first,
            seen: Instant::now(),
            total: 0,
            failure: None,
            moves: 0,
            step: 0.0,
            quantum: f64::INFINITY,
            period: 0.0,
            moved: None,
            between: 0,
        })
    }

    /// One look of the probe: notes a move.
    pub fn watch(&mut self) -> Result<(), String> {
        let moved = self.step_on()?;
        if moved == 0 {
            return Ok(());
        }
        self.moves += 1;
        // The first move began before we looked: only whole ones are measured.
        match &mut self.moved {
            None => self.moved = Some((self.seen, self.seen)),
            Some((from, to)) => {
                *to = self.seen;
                self.between += u128::from(moved);
                self.step = self.step.max(moved as f64 * 1e-6);
                self.quantum = self.quantum.min(moved as f64 * 1e-6);
                self.period = to.duration_since(*from).as_secs_f64() / f64::from(self.moves - 1);
            }
        }
        Ok(())
    }

    /// Mean power between the first and the last move of the probe.
    pub fn watts(&self) -> f64 {
        self.moved.map_or(0.0, |(from, to)| self.between as f64 * 1e-6 / to.duration_since(from).as_secs_f64())
    }

    /// Opens a window: whatever failed before does not matter.
    pub fn restart(&mut self) {
        (self.total, self.failure) = (0, None);
        match read(&self.zone.file) {
            Ok(now) => (self.last, self.seen) = (now, Instant::now()),
            Err(e) => self.failure = Some(format!("{}: {e}", self.zone.file.display())),
        }
    }

    /// Adds what was counted since the last read; a window that failed once stays failed.
    pub fn advance(&mut self) {
        if self.failure.is_none() {
            match self.step_on() {
                Ok(moved) => self.total += u128::from(moved),
                Err(why) => self.failure = Some(why),
            }
        }
    }

    /// Reads; gives the µJ since the last read.
    fn step_on(&mut self) -> Result<u64, String> {
        let file = self.zone.file.display();
        let now = read(&self.zone.file).map_err(|e| format!("{file}: {e}"))?;
        let time = Instant::now();
        let seconds = time.duration_since(self.seen).as_secs_f64();
        let moved = counted(self.last, now, self.zone.range, seconds).map_err(|why| format!("{file}: {why}"))?;
        (self.last, self.seen) = (now, time);
        Ok(moved)
    }
}

/// µJ between two readings of a counter that wraps at `range`, taken `seconds` apart.
pub(super) fn counted(last: u64, now: u64, range: u64, seconds: f64) -> Result<u64, String> {
    let most = seconds * MOST_WATTS * 1e6;
    if most >= range as f64 {
        return Err(format!(
            "{seconds:.1} s between two reads: the counter, which wraps at {range} µJ, could have wrapped twice"
        ));
    }
    if now > range {
        return Err(format!("{now} µJ is beyond the range of the counter, {range} µJ"));
    }
    let moved = if now >= last { now - last } else { range - last + now };
    if moved as f64 > most + LATE_UJ {
        let what = if now < last { "went back (was it reset?)" } else { "jumped" };
        return Err(format!("the counter {what}: {last} then {now} µJ in {seconds:.3} s"));
    }
    Ok(moved)
}

/// A counter file's µJ.
fn read(file: &Path) -> io::Result<u64> {
    let text = read_small(file)?;
    text.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is not a count of µJ")))
}
