//! The boards that NVML shows: probing them, adding up their counters, integrating the power of those without one where asked.
//!
//! In: NVML. Out: J of a window. Must not: be reached without the feature `nvml`, or run in the harness: NVML may take its process down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::DeviceArchitecture;
use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};

use super::POWER;
use crate::backends::Unavailable;
use crate::clock::monotonic_ns;
use crate::meters::MeterOptions;
use crate::meters::tally::{Nature, TICK, Tally};

/// What the boards are, once probed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Proven {
    pub resolution: String,
    pub facts: BTreeMap<String, String>,
    pub estimate: bool,
    /// What a reader of each window must know.
    pub note: Option<String>,
    /// Longest seconds between two moves of a board's counter.
    pub period: f64,
}

/// How long the probe waits for [`MOVES`]; a counter moves each 10 to 100 ms, and a board at rest may be slower.
const PROBE: Duration = Duration::from_millis(2500);
/// Moves that tell a counter's period.
const MOVES: u32 = 5;
/// More than any board draws, in W; one that shows its limit is held to one and a half times that.
const MOST_WATTS: f64 = 2000.0;
/// Less than any board draws, in W.
const LEAST_WATTS: f64 = 0.5;
/// How often power is read where it is integrated.
const SAMPLE: Duration = Duration::from_millis(20);
/// Seconds over which a power reading is a mean: from Ampere on, and before.
const MEAN: f64 = 1.0;
const MEAN_BEFORE: f64 = 0.1;

/// Name of the library.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// Where drivers put it, beside where the loader looks: containers, WSL, Debian, NixOS.
const FOLDERS: [&str; 5] = [
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/lib/wsl/lib",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/run/opengl-driver/lib",
];

/// What the process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct BoardsSetup {
    pub library: Option<PathBuf>,
    pub visible: Option<String>,
    pub integrate: bool,
}

impl BoardsSetup {
    /// As the options and [`POWER`] say.
    pub fn of(options: &MeterOptions) -> Self {
        Self {
            library: options.nvml.clone(),
            visible: options.visible_gpus.clone(),
            integrate: options.integrate_power,
        }
    }
}

/// One visible board.
#[derive(Debug)]
struct Board {
    index: u32,
    name: String,
    uuid: String,
    /// Why it cannot even be named.
    lost: Option<String>,
}

impl Board {
    fn words(&self) -> String {
        if self.uuid.is_empty() { self.name.clone() } else { format!("{} ({})", self.name, self.uuid) }
    }
}

/// How a board's energy is found.
enum How {
    Counter(Tally),
    Power(Integral),
}

/// Power integrated over a window.
struct Integral {
    /// Seconds over which a reading is a mean.
    mean: f64,
    last: Option<(f64, Instant)>,
    joules: f64,
    /// Longest time between two readings.
    gap: f64,
    failure: Option<String>,
}

impl Integral {
    fn note(&mut self, watts: Result<f64, String>, at: Instant) {
        match (watts, self.last) {
            (Err(why), _) => self.failure = self.failure.take().or(Some(why)),
            (Ok(watts), before) => {
                if let Some((last, then)) = before {
                    let seconds = at.duration_since(then).as_secs_f64();
                    self.joules += (last + watts) / 2.0 * seconds;
                    self.gap = self.gap.max(seconds);
                }
                self.last = Some((watts, at));
            }
        }
    }
}

/// What a closed window holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Closed {
    pub joules: Result<f64, String>,
    /// How far it can be off at each edge.
    pub edge_joules: f64,
    /// How long it was open, and when it was closed.
    pub seconds: f64,
    pub read_ns: u64,
}

/// The boards that are metered.
pub(super) struct Boards {
    nvml: Nvml,
    boards: Vec<(Board, How)>,
    opened: Instant,
}

impl Boards {
    /// Loads NVML, finds the visible boards, waits until each counter has moved.
    pub fn probe(setup: &BoardsSetup) -> Result<(Self, Proven), Unavailable> {
        let (nvml, library) = load(setup.library.as_deref(), &FOLDERS.map(Path::new))?;
        let mut boards = Vec::new();
        let mut unmetered: Vec<(String, String)> = Vec::new();
        let mut facts = BTreeMap::from([("nvml.library".to_string(), library.display().to_string())]);
        for board in find(&nvml, setup.visible.as_deref())? {
            facts.insert(format!("gpu.{}", board.index), board.name.clone());
            match how(&nvml, &board, setup.integrate) {
                Ok(how) => boards.push((board, how)),
                Err(why) => unmetered.push((board.words(), why)),
            }
        }
        let watched = watch(&nvml, &mut boards);
        let mut at = watched.iter();
        boards.retain(|(board, _)| match at.next() {
            Some(Err(why)) => {
                unmetered.push((board.words(), why.clone()));
                false
            }
            _ => true,
        });
        let left_out = unmetered.iter().map(|(board, why)| format!("{board} {why}")).collect::<Vec<_>>().join("; ");
        let remedy = unmetered.iter().any(|(_, why)| *why == NO_COUNTER);
        let remedy = remedy.then(|| format!("{POWER}=integrate estimates the energy of such a board from its power"));
        if boards.is_empty() {
            return Err(Unavailable { reason: left_out, hint: remedy });
        }
        let list = |estimated: bool| {
            let of = boards.iter().filter(|(_, how)| matches!(how, How::Power(_)) == estimated);
            of.map(|(b, _)| b.uuid.as_str()).collect::<Vec<_>>().join("+")
        };
        let (counted, estimated) = (list(false), list(true));
        facts.insert(
            "nvml.energy_gpu".into(),
            [&counted, &estimated]
                .map(String::as_str)
                .into_iter()
                .filter(|s| !s.is_empty())
                .collect::<Vec<_>>()
                .join("+"),
        );
        let mut notes = Vec::new();
        if !estimated.is_empty() {
            facts.insert("nvml.estimated".into(), estimated.clone());
            notes.push(format!("energy_gpu of {estimated} is its power integrated, an estimate"));
        }
        if !left_out.is_empty() {
            facts.insert("nvml.unmetered".into(), left_out.clone());
            notes.push(format!("energy_gpu leaves out {left_out}"));
        }
        if let Ok(version) = nvml.sys_driver_version() {
            facts.insert("nvidia-driver".into(), version);
        }
        let period = boards.iter().map(|(_, how)| how.period()).fold(0.0, f64::max);
        let step: f64 = watched.iter().flatten().sum();
        let mut resolution = format!("{step:.3} J each {:.0} ms", period * 1e3);
        if !notes.is_empty() {
            resolution += &format!("; {}", notes.join("; "));
        }
        if let Some(remedy) = remedy {
            resolution += &format!("\nhint: {remedy}");
        }
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        let proven = Proven { resolution, facts, estimate: !estimated.is_empty(), note, period };
        Ok((Self { nvml, boards, opened: Instant::now() }, proven))
    }

    /// Longest time between two reads of an open window.
    pub fn tick_interval(&self) -> Duration {
        if self.boards.iter().any(|(_, how)| matches!(how, How::Power(_))) { SAMPLE } else { TICK }
    }

    /// Opens a window; gives the time of the first read.
    pub fn start(&mut self) -> u64 {
        let read_ns = monotonic_ns();
        self.opened = Instant::now();
        for (board, how) in &mut self.boards {
            match how {
                How::Counter(tally) => tally.restart(counter(&self.nvml, board), Instant::now()),
                How::Power(of) => {
                    *of = Integral { mean: of.mean, last: None, joules: 0.0, gap: 0.0, failure: None };
                    of.note(power(&self.nvml, board), Instant::now());
                }
            }
        }
        read_ns
    }

    /// Reads in the middle of a window.
    pub fn tick(&mut self) {
        for (board, how) in &mut self.boards {
            match how {
                How::Counter(tally) => drop(tally.note(counter(&self.nvml, board), Instant::now())),
                How::Power(of) => of.note(power(&self.nvml, board), Instant::now()),
            }
        }
    }

    /// Closes the window.
    pub fn stop(&mut self) -> Closed {
        self.tick();
        let (seconds, read_ns) = (self.opened.elapsed().as_secs_f64(), monotonic_ns());
        let (mut joules, mut edge_seconds) = (0.0, 0.0f64);
        for (board, how) in &self.boards {
            let of = match how {
                How::Counter(tally) => tally.counted().map(|c| (c.joules, c.edge_seconds)),
                How::Power(Integral { failure: Some(why), .. }) => Err(why.clone()),
                How::Power(of) => Ok((of.joules, of.mean.max(of.gap))),
            };
            match of {
                // a sum without one of its boards is as wrong as no sum
                Err(why) => {
                    let joules = Err(format!("{}: {why}", board.words()));
                    return Closed { joules, edge_joules: 0.0, seconds, read_ns };
                }
                Ok((of, edge)) => {
                    joules += of;
                    edge_seconds = edge_seconds.max(edge);
                }
            }
        }
        let edge_joules = (joules / seconds.max(1e-9) * edge_seconds).max(1e-3 * self.boards.len() as f64);
        Closed { joules: Ok(joules), edge_joules, seconds, read_ns }
    }
}

impl How {
    /// Seconds between moves, or over which a reading is a mean.
    fn period(&self) -> f64 {
        match self {
            Self::Counter(tally) => tally.nature.period,
            Self::Power(of) => of.mean,
        }
    }
}

/// Loads the library: the one that is named, else the loader's, else the first that works of those that lie in these folders.
fn load(named: Option<&Path>, folders: &[&Path]) -> Result<(Nvml, PathBuf), Unavailable> {
    let own = named.unwrap_or(Path::new(LIBRARY));
    let elsewhere = folders.iter().map(|folder| folder.join(LIBRARY)).filter(|path| named.is_none() && path.exists());
    let mut failures = Vec::new();
    for path in std::iter::once(own.to_path_buf()).chain(elsewhere) {
        match Nvml::builder().lib_path(path.as_os_str()).init() {
            Ok(nvml) => return Ok((nvml, path)),
            // the loader names the library itself
            Err(e @ NvmlError::LibloadingError(_)) => failures.push(one_line(&e)),
            Err(e) => failures.push(format!("{}: {}", path.display(), one_line(&e))),
        }
    }
    let hint = "needs an NVIDIA GPU and its driver; name the library in ERGOMETER_NVML if it lies elsewhere";
    Err(Unavailable { reason: failures.join("; "), hint: Some(hint.into()) })
}

/// Why most boards that are not metered are not.
const NO_COUNTER: &str = "has no energy counter";

/// How a board can be metered, or why it cannot.
fn how(nvml: &Nvml, board: &Board, integrate: bool) -> Result<How, String> {
    if let Some(why) = &board.lost {
        return Err(why.clone());
    }
    match counter(nvml, board) {
        Ok(count) => {
            let device = nvml.device_by_index(board.index);
            let limit = device.ok().and_then(|d| d.power_management_limit_constraints().ok());
            let limit = limit.map(|l| f64::from(l.max_limit) * 1e-3).filter(|w| (1.0..=MOST_WATTS).contains(w));
            let (most_watts, basis) = match limit {
                Some(limit) => ((1.5 * limit).min(MOST_WATTS), format!("its limit of {limit:.0} W allows no")),
                None => (MOST_WATTS, "no board draws".to_string()),
            };
            let nature = Nature { unit: 1e-3, range: None, most_watts, basis, steady: false, period: 0.0 };
            Ok(How::Counter(Tally::new(nature, count, Instant::now())))
        }
        Err(why) if why == NO_COUNTER && integrate => {
            power(nvml, board).map_err(|e| format!("{NO_COUNTER}, and its power cannot be read: {e}"))?;
            let kind = nvml.device_by_index(board.index).and_then(|d| d.architecture());
            let older = [DeviceArchitecture::Kepler, DeviceArchitecture::Maxwell, DeviceArchitecture::Pascal]
                .into_iter()
                .chain([DeviceArchitecture::Volta, DeviceArchitecture::Turing])
                .any(|k| kind.as_ref().is_ok_and(|kind| *kind == k));
            // who does not say what it is and has no counter is older than those that have one
            let mean = if older || kind.is_err() { MEAN_BEFORE } else { MEAN };
            Ok(How::Power(Integral { mean, last: None, joules: 0.0, gap: 0.0, failure: None }))
        }
        Err(why) => Err(why),
    }
}

/// Waits until each counter has moved; gives each board's largest step in J, or why it is not believed.
fn watch(nvml: &Nvml, boards: &mut [(Board, How)]) -> Vec<Result<f64, String>> {
    /// Moves, mJ after the first one, when the first and the last were seen, largest step.
    #[derive(Default)]
    struct Moves {
        count: u32,
        between: u64,
        seen: Option<(Instant, Instant)>,
        step: u64,
    }
    let mut moves: Vec<Moves> = boards.iter().map(|_| Moves::default()).collect();
    let begin = Instant::now();
    let counts = |how: &How| matches!(how, How::Counter(_));
    while begin.elapsed() < PROBE && boards.iter().zip(&moves).any(|((_, how), m)| counts(how) && m.count < MOVES) {
        for ((board, how), moves) in boards.iter_mut().zip(&mut moves) {
            let How::Counter(tally) = how else { continue };
            let now = Instant::now();
            let moved = tally.note(counter(nvml, board), now);
            if moved == 0 {
                continue;
            }
            moves.count += 1;
            moves.step = moves.step.max(moved);
            match &mut moves.seen {
                None => moves.seen = Some((now, now)),
                Some((_, to)) => {
                    *to = now;
                    moves.between += moved;
                }
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let judge = |((_, how), moves): (&mut (Board, How), &Moves)| {
        let How::Counter(tally) = how else { return Ok(0.0) };
        if let Some(why) = tally.failure() {
            return Err(why.to_string());
        }
        let Some((from, to)) = moves.seen.filter(|_| moves.count > 1) else {
            return Err(format!("shows a counter that stood at {} mJ for {} ms", tally.last, PROBE.as_millis()));
        };
        let seconds = to.duration_since(from).as_secs_f64();
        let (watts, most) = (moves.between as f64 * 1e-3 / seconds, tally.nature.most_watts);
        if !(LEAST_WATTS..=most).contains(&watts) {
            return Err(format!("shows {watts:.4} W, which is not plausible ({LEAST_WATTS} to {most:.0} W are)"));
        }
        tally.nature.period = seconds / f64::from(moves.count - 1);
        Ok(moves.step as f64 * 1e-3)
    };
    boards.iter_mut().zip(&moves).map(judge).collect()
}

/// The boards that `CUDA_VISIBLE_DEVICES` leaves.
fn find(nvml: &Nvml, visible: Option<&str>) -> Result<Vec<Board>, Unavailable> {
    let refused = |reason: String| Unavailable { reason, hint: None };
    let count = nvml.device_count().map_err(|e| refused(format!("NVML counts no boards: {}", one_line(&e))))?;
    let mut boards = Vec::new();
    for index in 0..count {
        let device = nvml.device_by_index(index);
        let board = device.and_then(|d| Ok(Board { index, name: d.name()?, uuid: d.uuid()?, lost: None }));
        // one that cannot be asked takes nothing from the others
        let lost = |e| Board { index, name: format!("board {index}"), uuid: String::new(), lost: Some(one_line(&e)) };
        boards.push(board.unwrap_or_else(lost));
    }
    let Some(visible) = visible else { return some(boards, "NVML shows no board") };
    let mut kept = Vec::new();
    // CUDA stops at the first entry that names no board.
    for entry in visible.split(',').map(str::trim) {
        if entry.starts_with("MIG-") {
            return Err(refused("CUDA_VISIBLE_DEVICES names a MIG instance, and NVML meters whole boards only".into()));
        }
        let of_uuid = |b: &Board| entry.starts_with("GPU-") && b.uuid.starts_with(entry);
        // the beginning of several names is the name of none
        if boards.iter().filter(|b| of_uuid(b)).count() > 1 {
            break;
        }
        match boards.iter().position(|b| of_uuid(b) || entry.parse() == Ok(b.index)) {
            Some(at) if kept.contains(&at) => {}
            Some(at) => kept.push(at),
            None => break,
        }
    }
    let by_number = visible.split(',').any(|e| e.trim().parse::<u32>().is_ok());
    let mixed = boards.iter().any(|b| b.name != boards[0].name);
    if by_number && mixed && std::env::var_os("CUDA_DEVICE_ORDER").is_none_or(|o| o != "PCI_BUS_ID") {
        return Err(Unavailable {
            reason: "CUDA_VISIBLE_DEVICES counts boards of several kinds fastest first, NVML by their slots".into(),
            hint: Some("name them by UUID (nvidia-smi -L), or set CUDA_DEVICE_ORDER=PCI_BUS_ID".into()),
        });
    }
    let mut at = 0;
    boards.retain(|_| {
        at += 1;
        kept.contains(&(at - 1))
    });
    some(boards, "CUDA_VISIBLE_DEVICES hides every board")
}

fn some(boards: Vec<Board>, otherwise: &str) -> Result<Vec<Board>, Unavailable> {
    if boards.is_empty() { Err(Unavailable { reason: otherwise.into(), hint: None }) } else { Ok(boards) }
}

/// A board's mJ since the driver was loaded.
fn counter(nvml: &Nvml, board: &Board) -> Result<u64, String> {
    let read = nvml.device_by_index(board.index).and_then(|d| d.total_energy_consumption());
    read.map_err(|e| match e {
        NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) => NO_COUNTER.into(),
        e => format!("its counter cannot be read: {}", one_line(&e)),
    })
}

/// A board's power in W.
fn power(nvml: &Nvml, board: &Board) -> Result<f64, String> {
    let read = nvml.device_by_index(board.index).and_then(|d| d.power_usage());
    let watts = read.map(|mw| f64::from(mw) * 1e-3).map_err(|e| one_line(&e))?;
    if watts > MOST_WATTS { Err(format!("{watts:.0} W is not plausible")) } else { Ok(watts) }
}

fn one_line(error: &NvmlError) -> String {
    let text = match error {
        NvmlError::LibloadingError(e) => e.to_string(),
        e => e.to_string(),
    };
    text.lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests;
