//! The boards that NVML shows: probing them and adding up their counters.
//!
//! In: NVML. Out: [`Ready`] and [`Reading`]s. Must not: be reached without the feature `nvml`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use crate::backends::Unavailable;
use crate::meters::{MeterOptions, Reading, Ready, Source, unmoved};

/// How long a counter may stand still in the probe; it moves each 10 to 100 ms.
const PROBE: Duration = Duration::from_millis(500);
/// More than any board draws, in W.
const MOST_WATTS: f64 = 5000.0;

/// One visible board.
#[derive(Debug)]
struct Board {
    index: u32,
    name: String,
    uuid: String,
}

/// What the probe saw of one counter.
#[derive(Default)]
struct Moves {
    /// mJ seen last.
    last: u64,
    /// Largest move in mJ.
    step: u64,
    count: u32,
    /// Seconds at which it first and last moved.
    from: f64,
    to: f64,
}

impl Moves {
    fn note(&mut self, now: u64, seconds: f64) {
        if now > self.last {
            self.from = if self.count == 0 { seconds } else { self.from };
            self.step = self.step.max(now - self.last);
            (self.last, self.to, self.count) = (now, seconds, self.count + 1);
        }
    }
}

/// Loads NVML, finds the visible boards, waits until each counter has moved.
pub(super) fn probe(options: &MeterOptions) -> Result<Ready, Unavailable> {
    let library = options.nvml.as_deref().map(|p| p.as_os_str());
    let named = library.unwrap_or(OsStr::new("libnvidia-ml.so.1"));
    let mut builder = Nvml::builder();
    let nvml = match library {
        Some(path) => builder.lib_path(path).init(),
        None => builder.init(),
    };
    let nvml = nvml.map_err(|e| Unavailable {
        reason: match &e {
            // The loader names the library itself.
            NvmlError::LibloadingError(_) => one_line(&e),
            e => format!("{}: {}", named.display(), one_line(e)),
        },
        hint: Some(
            "needs an NVIDIA GPU and its driver; name the library in ERGOMETER_NVML if it lies elsewhere".into(),
        ),
    })?;
    let boards = find(&nvml, options.visible_gpus.as_deref())?;
    let refused = |why: String| Unavailable { reason: why, hint: None };

    let mut moves = Vec::new();
    for board in &boards {
        moves.push(Moves { last: counter(&nvml, board).map_err(refused)?, ..Moves::default() });
    }
    let begin = Instant::now();
    while begin.elapsed() < PROBE && moves.iter().any(|m| m.count < 5) {
        for (board, moves) in boards.iter().zip(&mut moves) {
            let now = counter(&nvml, board).map_err(refused)?;
            if now < moves.last {
                return Err(refused(format!("{}: the counter went back from {} to {now} mJ", board.name, moves.last)));
            }
            moves.note(now, begin.elapsed().as_secs_f64());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    if let Some((board, still)) = boards.iter().zip(&moves).find(|(_, m)| m.count < 2) {
        let (last, ms) = (still.last, PROBE.as_millis());
        return Err(refused(format!("{} ({}): the counter stood at {last} mJ for {ms} ms", board.name, board.uuid)));
    }
    let period = moves.iter().map(|m| (m.to - m.from) / f64::from(m.count - 1)).fold(0.0, f64::max);
    let step = moves.iter().map(|m| m.step as f64 * 1e-3).sum::<f64>();

    let mut facts = BTreeMap::new();
    for board in &boards {
        facts.insert(format!("gpu.{}", board.index), board.name.clone());
    }
    if let Ok(version) = nvml.sys_driver_version() {
        facts.insert("nvidia-driver".into(), version);
    }
    let resolution = format!("{step:.3} J each {:.0} ms", period * 1e3);
    let source = NvmlSource { nvml, boards, period, opened: None };
    Ok(Ready { resolution, source: Some(Box::new(source)), facts })
}

/// The boards that `CUDA_VISIBLE_DEVICES` leaves.
fn find(nvml: &Nvml, visible: Option<&str>) -> Result<Vec<Board>, Unavailable> {
    let refused = |reason: String| Unavailable { reason, hint: None };
    let count = nvml.device_count().map_err(|e| refused(format!("NVML counts no boards: {}", one_line(&e))))?;
    let mut boards = Vec::new();
    for index in 0..count {
        let device = nvml.device_by_index(index);
        let board = device.and_then(|d| Ok(Board { index, name: d.name()?, uuid: d.uuid()? }));
        boards.push(board.map_err(|e| refused(format!("board {index}: {}", one_line(&e))))?);
    }
    let Some(visible) = visible else { return some(boards, "NVML shows no board") };
    let mut kept = Vec::new();
    // CUDA stops at the first entry that names no board.
    for entry in visible.split(',').map(str::trim) {
        if entry.starts_with("MIG-") {
            return Err(refused("CUDA_VISIBLE_DEVICES names a MIG instance, and NVML meters whole boards only".into()));
        }
        let of_uuid = |b: &Board| entry.starts_with("GPU-") && b.uuid.starts_with(entry);
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
        NvmlError::NotSupported => format!("{} ({}) has no energy counter", board.name, board.uuid),
        e => format!("{} ({}): {}", board.name, board.uuid, one_line(&e)),
    })
}

fn one_line(error: &NvmlError) -> String {
    let text = match error {
        NvmlError::LibloadingError(e) => e.to_string(),
        e => e.to_string(),
    };
    text.lines().next().unwrap_or_default().to_string()
}

/// The open window.
struct NvmlSource {
    nvml: Nvml,
    boards: Vec<Board>,
    /// Seconds between moves of the slowest counter.
    period: f64,
    opened: Option<(Instant, Result<Vec<u64>, String>)>,
}

impl NvmlSource {
    fn read(&self) -> Result<Vec<u64>, String> {
        self.boards.iter().map(|b| counter(&self.nvml, b)).collect()
    }

    fn joules(&self, first: &[u64], seconds: f64) -> Result<f64, String> {
        let mut total = 0u128;
        for ((board, first), now) in self.boards.iter().zip(first).zip(self.read()?) {
            let moved = now.checked_sub(*first).ok_or_else(|| {
                format!("{}: the counter went back from {first} to {now} mJ (was the driver loaded anew?)", board.name)
            })?;
            if moved == 0 {
                return Err(format!("{} ({}): {}", board.name, board.uuid, unmoved(seconds, self.period)));
            }
            if moved as f64 * 1e-3 > MOST_WATTS * (seconds + 1.0) {
                return Err(format!("{}: {moved} mJ in {seconds:.3} s is not plausible", board.name));
            }
            total += u128::from(moved);
        }
        Ok(total as f64 * 1e-3)
    }
}

impl Source for NvmlSource {
    fn start(&mut self) {
        let first = self.read();
        self.opened = Some((Instant::now(), first));
    }

    /// 64 bits of mJ do not wrap.
    fn tick(&mut self) {}

    fn stop(&mut self) -> Vec<Reading> {
        let Some((opened, first)) = self.opened.take() else { return Vec::new() };
        let seconds = opened.elapsed().as_secs_f64();
        let value = first.and_then(|first| self.joules(&first, seconds));
        let power = value.as_ref().map_or(0.0, |j| j / seconds.max(1e-9));
        let resolution = if value.is_ok() { (power * self.period).max(1e-3 * self.boards.len() as f64) } else { 0.0 };
        vec![Reading { metric: "energy_gpu", value, resolution }]
    }
}

#[cfg(test)]
mod tests;
