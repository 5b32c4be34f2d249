//! One sitting or wave: cases whose workers are alive together, from the start of the first to the end of the last.
//!
//! In: planned cases with what judges them. Out: how each of them ended. Must not: let two workers work at the same time, or let one that
//! fails take the others with it.
//!
//! A *sitting* holds cases that a suite lets take turns: all of them, however much memory that takes, and the k-th timed block of each belongs to
//! round k. A *wave* holds other cases, as many as fit into a part of the memory, so that the blocks of each are spread over minutes
//! and meet more than one state of the machine (frequency, neighbours). In both, all are made ready first, one after the other; then each makes
//! untimed iterations, and every round has one timed block of each, in a random balanced order (`order.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ergometer_reports::case::Sitting;
use ergometer_reports::compare::speedup::least_rounds;
use ergometer_suites::scenario::Scenario;
use sha2::{Digest, Sha256};

use super::case::{Finished, Judge, Scored, Setting};
use super::child::Worker;
use super::contender::{Contender, MUCH_WAITING};
use super::order;
use super::plan::{PlannedCase, PlannedTask};
use crate::clock::monotonic_ns;
use crate::console;
use crate::environment::load::Watch;
use crate::files::hex;
use crate::meters::{cpu, memory};

/// Timed blocks of a case, and so rounds.
const BLOCKS: u32 = 10;

/// Blocks of a case whose iterations are long: enough for an interval of a median.
const FEWEST: u32 = 6;

/// Seconds by which ten blocks of one iteration each may draw a case out before it gets fewer.
const MOST_OVERRUN: f64 = 5.0;

/// Most seconds of untimed iterations before the first round.
const SETTLE: f64 = 0.2;

/// Part of the available memory that the workers of a wave may hold.
const ROOM: f64 = 0.25;

/// Bytes that a worker is expected to hold beside a few copies of the weights.
const WORKER_BYTES: u64 = 64 << 20;

/// How long waiting workers are watched for a sign of rest: longer than the slowest tick by which the kernel counts what runs.
const LOOK: Duration = Duration::from_millis(12);

/// How often at most before a turn.
const LOOKS: u32 = 20;

/// One case of a sitting or wave.
pub struct Seat<'a> {
    /// The case.
    pub planned: &'a PlannedCase,
    /// Path of the model.
    pub model: &'a Path,
    /// The task.
    pub task: &'a PlannedTask,
    /// Vectors that judge it.
    pub judge: Judge<'a>,
    /// Id of the case that it is compared with, where it takes turns.
    pub base: Option<String>,
    /// File for its worker's log.
    pub log: Arc<File>,
}

/// Runs the cases of a sitting, or the first ones of a wave that fit into memory together. Whatever happens to the workers, this returns, with one end for
/// each case that had its place: all of a sitting, at least one of a wave. `known` are the answers scored before, by group.
pub fn run(seats: &[Seat], known: &BTreeMap<String, Scored>, seed: u64, setting: &mut Setting) -> Vec<Finished> {
    let Some(first) = seats.first().map(|s| s.planned) else { return Vec::new() };
    let turns = first.turns.is_some();
    // tells this sitting from any other: of another boot, another process, another time
    let mark = format!("{} {} {}", super::boot("sitting"), std::process::id(), monotonic_ns());
    let mark = &hex(&Sha256::digest(mark.as_bytes()))[..16];
    let room = (ROOM * memory::available().unwrap_or(0) as f64) as u64;
    let mut fresh: BTreeMap<&str, Scored> = BTreeMap::new();
    let mut contenders: Vec<Contender> = Vec::new();
    for seat in seats {
        if !turns && !contenders.is_empty() && held(&contenders) + expected(seat.planned) > room {
            console::detail(|| {
                let (n, mib) = (contenders.len(), |bytes: u64| bytes >> 20);
                let (held, next) = (mib(held(&contenders)), mib(expected(seat.planned)));
                format!("the wave ends after {n}: {held} MiB are held, {next} would come, {} may be used", mib(room))
            });
            break;
        }
        // threads of a worker that is ready may still spin
        if !setting.check && !contenders.is_empty() {
            wait_for_quiet(&contenders, contenders.len());
        }
        let sitting = turns.then(|| Sitting { id: mark.into(), base: seat.base.clone(), rounds: 0 });
        let group = seat.planned.group.as_str();
        let scored = known.get(group).or_else(|| fresh.get(group));
        let contender = Contender::ready(seat, sitting, scored, setting);
        if contender.case.finished.case.accuracy_from.as_ref() == Some(&seat.planned.id) {
            fresh.insert(group, contender.scored.clone());
        }
        contenders.push(contender);
    }
    take_turns(&mut contenders, turns, seed, setting);
    leave(contenders, setting)
}

/// Timed blocks of a case whose iterations take so long: fewer where ten of one iteration each would take much longer than the seconds it asks
/// for. A scenario that times processes has one for each of them.
pub fn blocks(scenario: &Scenario, iteration: f64, seconds: f64) -> u32 {
    if let Some(processes) = scenario.processes() {
        return processes;
    }
    if f64::from(BLOCKS) * iteration > (3.0 * seconds).max(MOST_OVERRUN) { FEWEST } else { BLOCKS }
}

/// Rounds of a sitting whose slowest case has so many blocks: at least as many as the interval of a speed-up needs where so many cases are
/// compared with one base, however long they take; a speed-up without an interval says nothing.
pub fn rounds(blocks: u32, compared: usize) -> u32 {
    blocks.max(least_rounds(compared))
}

/// Most of these cases that are compared with one base; each case gives the id of its base, unless it is that case itself.
pub fn compared<'a>(bases: impl Iterator<Item = Option<&'a str>>) -> usize {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    bases.flatten().for_each(|base| *counts.entry(base).or_default() += 1);
    counts.into_values().max().unwrap_or(0)
}

/// All rounds.
fn take_turns(contenders: &mut [Contender], turns: bool, seed: u64, setting: &mut Setting) {
    let mut blocks: Vec<u32> = contenders.iter().map(|c| c.blocks(setting.check)).collect();
    let alive = || contenders.iter().zip(&blocks).filter(|(c, _)| c.is_alive());
    let numbers = || alive().map(|(_, n)| *n);
    let mut rounds = if turns { numbers().min() } else { numbers().max() }.unwrap_or(0);
    if turns {
        if !setting.check {
            rounds = self::rounds(rounds, compared(alive().map(|(c, _)| c.base())));
        }
        blocks.fill(rounds);
    }
    for sitting in contenders.iter_mut().filter_map(|c| c.case.finished.case.sitting.as_mut()) {
        sitting.rounds = rounds;
    }
    let together = contenders.len() > 1;
    if together && !setting.check {
        // a worker that waited while the others were made ready is warm again before its first block
        for i in order::turns(!seed, contenders.len(), 1).concat() {
            wait_for_quiet(contenders, i);
            let seconds = SETTLE.min(contenders[i].case.planned.spec.warmup_seconds);
            contenders[i].rewarm(seconds, setting);
        }
    }
    for (round, places) in (0..).zip(order::turns(seed, contenders.len(), rounds as usize)) {
        for i in places {
            if !contenders[i].is_alive() || !order::takes_part(round, rounds, blocks[i]) {
                continue;
            }
            let (path, n) = (&contenders[i].case.planned.path, contenders.len());
            setting.progress.phase(&format!("timing {n}, round {} of {rounds}", round + 1), path);
            block(contenders, i, blocks[i], round == 0, setting);
        }
    }
}

/// One timed block of one case, with what goes on around it.
fn block(contenders: &mut [Contender], i: usize, blocks: u32, first: bool, setting: &mut Setting) {
    let lone = contenders.iter().filter(|c| c.is_alive()).count() == 1;
    if !setting.check {
        if lone && !first {
            std::thread::sleep(contenders[i].pause(blocks));
        }
        wait_for_quiet(contenders, i);
    }
    if contenders[i].case.planned.spec.scenario.processes().is_some() {
        contenders[i].case.renew(setting);
    }
    // begun before the caches are filled again, since looking at all processes costs some of them
    let (pid, others) = (pid(&contenders[i]), others(contenders, i));
    let watch = Watch::begin(&Vec::from_iter(pid), &others.iter().map(|o| o.1).collect::<Vec<_>>());
    if !setting.check && (contenders.len() > 1 || !first) && contenders[i].rewarms() {
        contenders[i].rewarm(0.0, setting);
    }
    let (begun, t_ns) = (Instant::now(), monotonic_ns());
    contenders[i].time(blocks, setting);
    let seconds = begun.elapsed().as_secs_f64();
    let t_ns = t_ns.saturating_sub(setting.began_ns);
    let (seen, used) = watch.end();
    let waiting = others.into_iter().map(|(path, _)| path).zip(used);
    contenders[i].keep_around(seconds, waiting, seen, t_ns);
}

/// Ends all workers in order. A case whose answers were taken from one that failed after all answers by itself before.
fn leave(contenders: Vec<Contender>, setting: &mut Setting) -> Vec<Finished> {
    let (mut failed, mut again) = (BTreeSet::new(), BTreeMap::<String, Scored>::new());
    let mut all = Vec::with_capacity(contenders.len());
    for mut contender in contenders {
        let group = contender.case.planned.group.clone();
        if contender.case.finished.case.accuracy_from.as_ref().is_some_and(|id| failed.contains(id)) {
            contender.answer_again(again.get(&group), setting);
        }
        let (id, scored) = (contender.case.planned.id.clone(), contender.scored.clone());
        let finished = contender.leave(setting);
        if finished.case.error.is_some() {
            failed.insert(id);
        } else if finished.case.accuracy_from.as_ref() == Some(&id) {
            again.insert(group, scored);
        }
        all.push(finished);
    }
    all
}

/// Resident bytes of the workers that are alive.
fn held(contenders: &[Contender]) -> u64 {
    let workers = contenders.iter().filter_map(|c| c.case.worker.as_ref());
    workers.map(|w| memory::resident(w.pid()).unwrap_or(WORKER_BYTES)).sum()
}

/// Bytes that a worker may come to hold: the file's weights, packed ones, and some of an engine's own.
fn expected(case: &PlannedCase) -> u64 {
    let costs = case.known_costs();
    let values = costs.step_value_bytes * f64::from(case.key.batch);
    WORKER_BYTES + 4 * costs.weight_bytes + values.min(1e15) as u64
}

/// Waits until the workers that wait use no processor: the threads of some engines go on spinning for milliseconds after their last
/// operator. One that never rests is not waited for longer than this; the case says then what was used beside it.
fn wait_for_quiet(contenders: &[Contender], next: usize) {
    let mut before = waiting(contenders, next);
    for _ in 0..LOOKS {
        std::thread::sleep(LOOK);
        let now = waiting(contenders, next);
        if now - before < MUCH_WAITING * LOOK.as_secs_f64() {
            return;
        }
        before = now;
    }
}

/// Process number of a worker that is alive.
fn pid(contender: &Contender) -> Option<u32> {
    contender.case.worker.as_ref().map(Worker::pid)
}

/// Every case but this one whose worker is alive: its path and the worker's number.
fn others(contenders: &[Contender], working: usize) -> Vec<(String, u32)> {
    let others = contenders.iter().enumerate().filter(|(i, _)| *i != working);
    others.filter_map(|(_, c)| Some((c.case.planned.path.clone(), pid(c)?))).collect()
}

/// Processor time of every worker but this one, with all that they have started in their groups.
fn waiting(contenders: &[Contender], working: usize) -> f64 {
    let groups: Vec<i32> = others(contenders, working).iter().filter_map(|(_, pid)| cpu::group(*pid)).collect();
    cpu::of_groups(&groups).iter().sum()
}
