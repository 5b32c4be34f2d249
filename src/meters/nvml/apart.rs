//! The two ends of the process that loads NVML: the meter here, the boards there.
//!
//! In: windows opened and closed. Out: what the boards used, with the time that the way there took counted as an error of the edges. Must
//! not: wait longer than a limit: a process that dies or hangs makes the block's energy unavailable, with the reason.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::boards::{Boards, BoardsSetup, Closed, Proven};
use crate::backends::Unavailable;
use crate::clock::monotonic_ns;
use crate::foreign::{Channel, Foreign, Received, SECONDS, limit};
use crate::meters::{EnergySource, MeterOptions, MeterReading, ProbedMeter};

/// How long an edge of a window may take.
const EDGE: Duration = Duration::from_secs(2);
/// How long the watching of the counters may take beyond the loading of the library.
const WATCHING: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Serialize, Deserialize)]
enum Ask {
    Probe(BoardsSetup),
    Start,
    Stop,
}

/// Starts the process, which loads NVML, finds the visible boards and waits until each counter has moved.
pub(super) fn probe(options: &MeterOptions) -> Result<ProbedMeter, Unavailable> {
    let setup = BoardsSetup::of(options);
    let library = setup.library.clone().unwrap_or_else(|| "libnvidia-ml.so.1".into());
    let failed = |end: String| {
        let hint = match end.contains("did not answer") {
            true => format!("a driver that is only slow gets more time by {SECONDS}"),
            false => "the file may be cut off, damaged or made for another system".into(),
        };
        Unavailable { reason: format!("NVML at {} cannot be used: {end}", library.display()), hint: Some(hint) }
    };
    let mut child = Foreign::start(super::METER.name, &[]).map_err(failed)?;
    child.send(&Ask::Probe(setup), EDGE).map_err(failed)?;
    let proven: Result<Proven, Unavailable> = child.receive(limit() + WATCHING).map_err(failed)?;
    let Proven { resolution, facts, estimate, note, period } = proven?;
    let source = Proxy { child, note, period, opened: None };
    Ok(ProbedMeter { resolution, source: Some(Box::new(source)), facts, estimate })
}

/// The boards as seen from here.
struct Proxy {
    child: Foreign,
    note: Option<String>,
    /// Seconds between two moves of the counter.
    period: f64,
    /// Seconds that opening the window took, or why it is not open.
    opened: Option<Result<f64, String>>,
}

impl EnergySource for Proxy {
    fn start(&mut self) {
        let asked = monotonic_ns();
        let opened = self.child.send(&Ask::Start, EDGE).and_then(|()| self.child.receive::<u64>(EDGE));
        // the window that is metered begins after this call
        self.opened = Some(opened.map(|read| monotonic_ns().saturating_sub(read.max(asked)) as f64 * 1e-9));
    }

    /// The process reads by itself while a window is open.
    fn tick(&mut self) {}

    fn period(&self, metric: &str) -> Option<f64> {
        (metric == "energy_gpu" && self.period > 0.0).then_some(self.period)
    }

    fn stop(&mut self) -> Vec<MeterReading> {
        let Some(opened) = self.opened.take() else { return Vec::new() };
        let asked = monotonic_ns();
        let closed = opened.and_then(|before| {
            self.child.send(&Ask::Stop, EDGE)?;
            let closed: Closed = self.child.receive(EDGE)?;
            Ok((before.max(closed.read_ns.saturating_sub(asked) as f64 * 1e-9), closed))
        });
        let (value, resolution) = match closed {
            Err(why) => (Err(format!("NVML: {why}")), 0.0),
            Ok((_, Closed { joules: Err(why), .. })) => (Err(why), 0.0),
            // the edges lie between asking and reading
            Ok((delay, Closed { joules: Ok(joules), edge_joules, seconds, .. })) => {
                (Ok(joules), edge_joules + joules / seconds.max(1e-9) * delay)
            }
        };
        vec![MeterReading { metric: "energy_gpu", value, resolution, note: self.note.clone() }]
    }
}

/// The process's side.
pub(crate) fn serve(mut channel: Channel) -> anyhow::Result<()> {
    let mut boards: Option<Boards> = None;
    let mut open = false;
    loop {
        // between windows nothing is read
        let line = match channel.receive(boards.as_ref().filter(|_| open).map(Boards::tick_interval)) {
            Received::Line(line) => line,
            Received::Nothing => {
                boards.iter_mut().for_each(Boards::tick);
                continue;
            }
            Received::Over => return Ok(()),
        };
        match (serde_json::from_slice(&line)?, boards.as_mut()) {
            (Ask::Probe(setup), _) => {
                let found = Boards::probe(&setup);
                channel.send(&found.as_ref().map(|(_, proven)| proven).map_err(Clone::clone), EDGE)?;
                boards = found.ok().map(|(boards, _)| boards);
            }
            (Ask::Start, Some(boards)) => {
                open = true;
                channel.send(&boards.start(), EDGE)?;
            }
            (Ask::Stop, Some(boards)) => {
                open = false;
                channel.send(&boards.stop(), EDGE)?;
            }
            (_, None) => anyhow::bail!("there are no boards to be read"),
        }
    }
}
