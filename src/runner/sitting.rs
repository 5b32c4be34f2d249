//! One sitting: cases that take turns, or one case by itself, from the start of the first worker to the end of the last.
//!
//! In: planned cases of one model, task, batch, number of threads and depth, and what judges them. Out: how each of them ended. Must not: let two
//! workers work at the same time, or let one that fails take the others with it.
//!
//! All are made ready first, one after the other. Then every round has one timed block of each case, forwards in even rounds and backwards in
//! odd ones (A B B A), so that a machine that slows down slows all of them. So the k-th timed block of each belongs to round k.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ergometer_reports::case::{CaseError, Sample, Sitting};
use sha2::{Digest, Sha256};

use super::case::{Finished, Judge, Running, Scored, Setting};
use super::child::Worker;
use super::plan::{PlannedCase, PlannedTask};
use crate::environment::load::{self, Seen, Watch};
use crate::meters::cpu;
use crate::models::hex;
use crate::worker::monotonic_ns;

/// Rounds of cases that take turns: even, so that nobody comes first more often, and enough for an interval of a median (6).
pub const ROUNDS: u32 = 10;

/// Blocks of a case by itself: several, so that quantities that are read once a block (energy) get an interval.
const BLOCKS: u32 = 5;

/// Share of one processor that a virtual machine may lose to others before a case says so.
const MUCH_STOLEN: f64 = 0.02;

/// Share of one processor that waiting workers may use before a case says so.
const MUCH_WAITING: f64 = 0.01;

/// How long waiting workers are watched for a sign of rest: longer than the slowest tick by which the kernel counts what runs.
const LOOK: Duration = Duration::from_millis(12);

/// How often at most before a turn.
const LOOKS: u32 = 20;

/// One case of a sitting.
pub struct Seat<'a> {
    /// The case.
    pub planned: &'a PlannedCase,
    /// The answers that were scored before for its group.
    pub scored: Option<&'a Scored>,
    /// Id of the case that it is compared with, where it takes turns.
    pub base: Option<String>,
    /// File for its worker's log.
    pub log: Arc<File>,
}

/// What all cases of a sitting share.
pub struct Shared<'a> {
    /// Path of the model.
    pub model: &'a Path,
    /// The task.
    pub task: &'a PlannedTask,
    /// Vectors that judge them.
    pub judge: Judge<'a>,
}

/// The order of turns in a round: there and back.
pub fn turns(round: usize, of: usize) -> Vec<usize> {
    let forwards = 0..of;
    if round.is_multiple_of(2) { forwards.collect() } else { forwards.rev().collect() }
}

/// Runs a sitting. Whatever happens to the workers, this returns, with one end for each seat.
pub fn run(seats: &[Seat], shared: &Shared, setting: &mut Setting) -> Vec<Finished> {
    let Some(first) = seats.first().map(|s| s.planned) else { return Vec::new() };
    let rounds = match &first.turns {
        _ if setting.check => 1,
        Some(_) => ROUNDS,
        None if first.spec.seconds < 1.0 => 1,
        None => BLOCKS,
    };
    // tells this sitting from any other: of another boot, another process, another time
    let mark = format!("{} {} {}", super::boot("sitting"), std::process::id(), monotonic_ns());
    let mark = &hex(&Sha256::digest(mark.as_bytes()))[..16];
    let mut contenders: Vec<Contender> = Vec::new();
    for seat in seats {
        // whoever is ready already may still spin
        if !setting.check && !contenders.is_empty() {
            wait_for_quiet(&contenders, contenders.len());
        }
        let sitting = first.turns.is_some().then(|| Sitting { id: mark.into(), base: seat.base.clone(), rounds });
        contenders.push(Contender::ready(seat, sitting, shared, setting));
    }
    for round in 0..rounds {
        for i in turns(round as usize, contenders.len()) {
            if contenders[i].worker.is_none() {
                continue;
            }
            if contenders.len() > 1 && !setting.check {
                wait_for_quiet(&contenders, i);
                contenders[i].act(shared.task, setting, |running, worker, _| running.rewarm(worker));
            }
            let watch = Watch::begin(contenders.iter().filter_map(|c| c.worker.as_ref()).map(Worker::pid));
            let (before, begun, t_ns) = (waiting(&contenders, i), Instant::now(), monotonic_ns());
            contenders[i].act(shared.task, setting, |running, worker, scored| running.time(worker, rounds, scored));
            let seconds = begun.elapsed().as_secs_f64();
            let waiting = before.zip(waiting(&contenders, i)).map(|(before, after)| after - before);
            let t_ns = t_ns.saturating_sub(setting.began_ns);
            contenders[i].keep_around(seconds, waiting, watch.and_then(Watch::end), t_ns);
        }
    }
    contenders.into_iter().map(|c| c.leave(shared.task, setting)).collect()
}

/// Waits until the workers that wait use no processor: the threads of some engines go on spinning for milliseconds after their last
/// operator. One that never rests is not waited for longer than this; the case says then what was used beside it.
fn wait_for_quiet(contenders: &[Contender], next: usize) {
    let mut before = waiting(contenders, next);
    for _ in 0..LOOKS {
        std::thread::sleep(LOOK);
        let now = waiting(contenders, next);
        // what cannot be read is waited for as if it worked
        if before.zip(now).is_some_and(|(before, now)| now - before < MUCH_WAITING * LOOK.as_secs_f64()) {
            return;
        }
        before = now;
    }
}

/// Processor time of every worker but this one; `None` if that of one cannot be read.
fn waiting(contenders: &[Contender], working: usize) -> Option<f64> {
    let others = contenders.iter().enumerate().filter(|(i, _)| *i != working);
    others.filter_map(|(_, c)| c.worker.as_ref()).map(|worker| cpu::process_seconds(worker.pid()).ok()).sum()
}

/// What went on around the timed blocks of a case, in seconds.
struct Around {
    /// They took so long.
    seconds: f64,
    /// Work of others, on this machine and on its host; `None` once it could not be read.
    seen: Option<Seen>,
    /// What was seen since the last sample of it: windows too short for one add up.
    pending: Seen,
    /// Processor time of the workers that waited; as `seen`.
    waiting: Option<f64>,
}

/// A case at work.
struct Contender<'a> {
    planned: &'a PlannedCase,
    finished: Finished,
    /// `None` once it has dropped out, and its error is in `finished`.
    worker: Option<Worker>,
    scored: Scored,
    block: u32,
    refusals: u32,
    around: Around,
}

impl<'a> Contender<'a> {
    /// Starts its worker and makes it ready to be timed.
    fn ready(seat: &Seat<'a>, sitting: Option<Sitting>, shared: &Shared, setting: &mut Setting) -> Self {
        let mut finished = Finished::new(seat.planned, shared.task, seat.scored);
        finished.case.sitting = sitting;
        let mut running =
            Running { planned: seat.planned, task: shared.task, setting, out: &mut finished, block: 0, refusals: 0 };
        let ready = running.prepare(shared.model, shared.judge, seat.scored, &seat.log);
        let (block, refusals) = (running.block, running.refusals);
        let (worker, scored) = match ready {
            Ok((worker, scored)) => (Some(worker), scored),
            Err(error) => {
                finished.fail(error);
                (None, Scored::default())
            }
        };
        Self {
            planned: seat.planned,
            finished,
            worker,
            scored,
            block,
            refusals,
            around: Around { seconds: 0.0, seen: Some(Seen::default()), pending: Seen::default(), waiting: Some(0.0) },
        }
    }

    /// Keeps what went on around its last block, which began at `t_ns` of the run.
    fn keep_around(&mut self, seconds: f64, waiting: Option<f64>, seen: Option<Seen>, t_ns: u64) {
        let around = &mut self.around;
        around.seconds += seconds;
        around.waiting = around.waiting.zip(waiting).map(|(sum, more)| sum + more);
        around.seen = around.seen.zip(seen).map(|(sum, more)| sum.and(more));
        around.pending = around.pending.and(seen.unwrap_or_default());
        if self.worker.is_none() {
            return;
        }
        if let Some(value) = around.pending.processors() {
            around.pending = Seen::default();
            let (block, phase, metric) = (self.block.saturating_sub(1), "steady".into(), "foreign_load".into());
            let sample = Sample { block, phase, iteration: None, t_ns, example: None, row: None, metric, value };
            self.finished.samples.push(sample);
        }
    }

    /// Lets its worker do something, unless it has dropped out; it drops out if that fails.
    fn act(
        &mut self,
        task: &PlannedTask,
        setting: &mut Setting,
        work: impl FnOnce(&mut Running, &mut Worker, &Scored) -> Result<(), CaseError>,
    ) {
        let Some(mut worker) = self.worker.take() else { return };
        let (block, refusals) = (self.block, self.refusals);
        let mut running = Running { planned: self.planned, task, setting, out: &mut self.finished, block, refusals };
        let done = work(&mut running, &mut worker, &self.scored);
        (self.block, self.refusals) = (running.block, running.refusals);
        match done {
            Ok(()) => self.worker = Some(worker),
            Err(error) => {
                // nothing of it may go on working beside the others
                drop(worker);
                self.finished.fail(error);
            }
        }
    }

    /// Ends its worker in order.
    fn leave(mut self, task: &PlannedTask, setting: &mut Setting) -> Finished {
        let Around { seconds, seen, waiting, .. } = self.around;
        let watched = self.finished.samples.iter().any(|s| s.metric == "foreign_load");
        self.act(task, setting, |running, _, _| {
            running.note_coverage();
            match seen {
                Some(seen) if watched && seen.foreign > load::NOTED * seen.seconds => running.note(format!(
                    "other programs used {} while this case was measured",
                    load::processors(seen.foreign / seen.seconds)
                )),
                Some(_) if watched => {}
                Some(_) => running.unavailable(
                    "foreign_load".into(),
                    format!("its timed blocks lasted less than {} s together, too short to tell", load::SHORTEST),
                ),
                None => running.unavailable("foreign_load".into(), "the system does not say how busy it is".into()),
            }
            for (what, spent, much) in [
                ("other guests of this host took", seen.map(|s| s.stolen), MUCH_STOLEN),
                ("workers that waited for their turn used", waiting, MUCH_WAITING),
            ] {
                match spent.map(|spent| spent / seconds) {
                    Some(share) if share > much => running
                        .note(format!("{what} {:.0} % of a processor while this case was measured", 100.0 * share)),
                    None => running.note(format!(
                        "{what} an unknown share of a processor while this case was measured: the system does not say"
                    )),
                    Some(_) => {}
                }
            }
            Ok(())
        });
        if let Some(Err(error)) = self.worker.take().map(Worker::finish) {
            self.finished.fail(error);
        }
        self.finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_there_and_back() {
        let order: Vec<usize> = (0..4).flat_map(|round| turns(round, 3)).collect();
        assert_eq!(order, [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0]);
        // over an even number of rounds each place is everybody's as often
        let first = (0..ROUNDS as usize).filter(|round| turns(*round, 2)[0] == 0).count();
        assert_eq!((first, ROUNDS % 2), (ROUNDS as usize / 2, 0));
        let ratios = vec![1.0; ROUNDS as usize];
        assert!(
            ergometer_reports::stats::quantile::median(&ratios).unwrap().interval.is_ok(),
            "fewer have no interval"
        );
        assert!(turns(1, 0).is_empty());
    }
}
