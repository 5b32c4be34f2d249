//! One interleaved group or wave: cases whose workers are alive together, from the start of the first to the end of the
//! last.
//!
//! In: planned cases with what judges them. Out: how each of them ended. Must not: let two workers work at the same
//! time, or let one that fails take the others with it.
//!
//! An *interleaved group* holds cases that a suite lets take turns: all of them, however much memory that takes, and
//! the k-th timed block of each belongs to round k. A *wave* holds other cases, as many as fit into a part of the
//! memory, so that the blocks of each are spread over minutes and meet more than one state of the machine (frequency,
//! neighbours). In both, all are made ready first, one after the other; then each makes untimed iterations, and every
//! round has one timed block of each, in a random balanced order (`order.rs`).
//!
//! No case works while another is measured: a worker waits for its next line, native's pool sleeps, and where an
//! engine's threads still spin the harness waits until they rest. An untimed iteration then fills the caches, unless an
//! iteration takes a second. A case by itself has short pauses between its blocks instead. A wave has at most
//! `together` cases (8), fewer where their workers would hold more than a quarter of the available memory.
//!
//! A worker that fails drops out with its own error and the others go on; if it had answered for others, the next of
//! them answers by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ergometer_reports::case::InterleavedGroup;
use sha2::{Digest, Sha256};

use super::background::Background;
use super::case::{Finished, RunContext, Scored};
use super::entry::Entry;
use super::entry_run::{EntryRun, MUCH_WAITING};
use super::order;
use super::plan::PlannedCase;
use super::process::Worker;
use super::rounds;
use crate::clock::monotonic_ns;
use crate::console;
use crate::environment::load::Watch;
use crate::files::hex;
use crate::meters::{cpu, memory};

/// Most seconds of untimed iterations before the first round.
const SETTLE: f64 = 0.2;

/// Part of the available memory that the workers of a wave may hold.
const ROOM: f64 = 0.25;

/// Bytes that a worker is expected to hold beside a few copies of the weights.
const WORKER_BYTES: u64 = 64 << 20;

/// How long waiting workers are watched for a sign of rest: longer than the slowest tick by which the kernel counts
/// what runs.
const LOOK: Duration = Duration::from_millis(12);

/// How often at most before a turn.
const LOOKS: u32 = 20;

/// Runs the cases of an interleaved group, or the first ones of a wave that fit into memory together. Whatever happens
/// to the workers, this returns, with one end for each case that had its place: all of an interleaved group, at least
/// one of a wave. `known` are the answers scored before, by group.
pub fn run(entries: &[Entry], known: &BTreeMap<String, Scored>, seed: u64, context: &mut RunContext) -> Vec<Finished> {
    let Some(first) = entries.first().map(|s| s.planned) else { return Vec::new() };
    let turns = first.turns.is_some();
    // tells this interleaved group from any other: of another boot, another process, another time
    let mark = format!("{} {} {}", super::boot("interleaved group"), std::process::id(), monotonic_ns());
    let mark = &hex(&Sha256::digest(mark.as_bytes()))[..16];
    let room = (ROOM * memory::available().unwrap_or(0) as f64) as u64;
    let mut fresh: BTreeMap<&str, Scored> = BTreeMap::new();
    let mut runs: Vec<EntryRun> = Vec::new();
    for entry in entries {
        if !turns && !runs.is_empty() && held(&runs) + expected(entry.planned) > room {
            console::detail(|| {
                let (n, mib) = (runs.len(), |bytes: u64| bytes >> 20);
                let (held, next) = (mib(held(&runs)), mib(expected(entry.planned)));
                format!("the wave ends after {n}: {held} MiB are held, {next} would come, {} may be used", mib(room))
            });
            break;
        }
        // threads of a worker that is ready may still spin
        if !context.check && !runs.is_empty() {
            wait_for_quiet(&runs, runs.len());
        }
        let interleaved = turns.then(|| InterleavedGroup { id: mark.into(), base: entry.base.clone(), rounds: 0 });
        let group = entry.planned.group.as_str();
        let scored = known.get(group).or_else(|| fresh.get(group));
        let run = EntryRun::ready(entry, interleaved, scored, context);
        if run.case.finished.case.accuracy_from.as_ref() == Some(&entry.planned.id) {
            fresh.insert(group, run.scored.clone());
        }
        runs.push(run);
    }
    take_turns(&mut runs, turns, seed, context);
    leave(runs, context)
}

/// All rounds.
fn take_turns(runs: &mut [EntryRun], turns: bool, seed: u64, context: &mut RunContext) {
    let mut blocks: Vec<u32> = runs.iter().map(|c| c.blocks(context.check)).collect();
    let alive = || runs.iter().zip(&blocks).filter(|(c, _)| c.is_alive());
    let numbers = || alive().map(|(_, n)| *n);
    let mut rounds = if turns { numbers().min() } else { numbers().max() }.unwrap_or(0);
    if turns {
        if !context.check {
            rounds = rounds::rounds(rounds, rounds::compared(alive().map(|(c, _)| c.base())));
        }
        blocks.fill(rounds);
    }
    for interleaved in runs.iter_mut().filter_map(|c| c.case.finished.case.interleaved.as_mut()) {
        interleaved.rounds = rounds;
    }
    let together = runs.len() > 1;
    if together && !context.check {
        // a worker that waited while the others were made ready is warm again before its first block
        for i in order::turns(!seed, runs.len(), 1).concat() {
            wait_for_quiet(runs, i);
            let seconds = SETTLE.min(runs[i].case.planned.spec.warmup_seconds);
            runs[i].rewarm(seconds, context);
        }
    }
    for (round, places) in (0..).zip(order::turns(seed, runs.len(), rounds as usize)) {
        for i in places {
            if !runs[i].is_alive() || !order::takes_part(round, rounds, blocks[i]) {
                continue;
            }
            let (path, n) = (&runs[i].case.planned.path, runs.len());
            context.progress.phase(&format!("timing {n}, round {} of {rounds}", round + 1), path);
            block(runs, i, blocks[i], round == 0, context);
        }
    }
}

/// One timed block of one case, with what goes on around it.
fn block(runs: &mut [EntryRun], i: usize, blocks: u32, first: bool, context: &mut RunContext) {
    let lone = runs.iter().filter(|c| c.is_alive()).count() == 1;
    if !context.check {
        if lone && !first {
            std::thread::sleep(runs[i].pause(blocks));
        }
        wait_for_quiet(runs, i);
    }
    if runs[i].case.planned.spec.scenario.processes().is_some() {
        runs[i].case.renew(context);
    }
    // begun before the caches are filled again, since looking at all processes costs some of them
    let (pid, others) = (pid(&runs[i]), others(runs, i));
    let background = background(runs, i);
    let working: Vec<u32> = pid.into_iter().chain(background.as_ref().map(Background::pid)).collect();
    let watch = Watch::begin(&working, &others.iter().map(|o| o.1).collect::<Vec<_>>());
    if !context.check && (runs.len() > 1 || !first) && runs[i].rewarms() {
        runs[i].rewarm(0.0, context);
    }
    let (begun, t_ns) = (Instant::now(), monotonic_ns());
    runs[i].time(blocks, context);
    let seconds = begun.elapsed().as_secs_f64();
    let t_ns = t_ns.saturating_sub(context.began_ns);
    let (seen, used) = watch.end();
    drop(background);
    let waiting = others.into_iter().map(|(path, _)| path).zip(used);
    runs[i].keep_around(seconds, waiting, seen, t_ns);
}

/// The load that a case is to be timed beside.
fn background(runs: &mut [EntryRun], i: usize) -> Option<Background> {
    let case = &mut runs[i].case;
    let threads = case.planned.spec.limits.background;
    let notes = &mut case.finished.case.notes;
    let mut note = |text: String| {
        if !notes.contains(&text) {
            notes.push(text);
        }
    };
    match Background::start(threads) {
        Ok(None) => None,
        Ok(started) => {
            note(format!("background load while it was timed: {threads} threads; its energy holds theirs"));
            started
        }
        Err(e) => {
            note(format!("the background load that the suite asks for could not be started: {e}"));
            None
        }
    }
}

/// Ends all workers in order. A case whose answers were taken from one that failed after all answers by itself before.
fn leave(runs: Vec<EntryRun>, context: &mut RunContext) -> Vec<Finished> {
    let (mut failed, mut again) = (BTreeSet::new(), BTreeMap::<String, Scored>::new());
    let mut all = Vec::with_capacity(runs.len());
    for mut run in runs {
        let group = run.case.planned.group.clone();
        if run.case.finished.case.accuracy_from.as_ref().is_some_and(|id| failed.contains(id)) {
            run.answer_again(again.get(&group), context);
        }
        let (id, scored) = (run.case.planned.id.clone(), run.scored.clone());
        let finished = run.leave(context);
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
fn held(runs: &[EntryRun]) -> u64 {
    let workers = runs.iter().filter_map(|c| c.case.worker.as_ref());
    workers.map(|w| memory::resident(w.pid()).unwrap_or(WORKER_BYTES)).sum()
}

/// Bytes that a worker may come to hold: the file's weights, packed ones, and some of an engine's own.
fn expected(case: &PlannedCase) -> u64 {
    let costs = case.known_costs();
    let values = costs.step_value_bytes * f64::from(case.key.batch);
    WORKER_BYTES + 4 * costs.weight_bytes + values.min(1e15) as u64
}

/// Waits until the workers that wait use no processor: the threads of some engines go on spinning for milliseconds
/// after their last operator. One that never rests is not waited for longer than this; the case says then what was used
/// beside it.
fn wait_for_quiet(runs: &[EntryRun], next: usize) {
    let mut before = waiting(runs, next);
    for _ in 0..LOOKS {
        std::thread::sleep(LOOK);
        let now = waiting(runs, next);
        if now - before < MUCH_WAITING * LOOK.as_secs_f64() {
            return;
        }
        before = now;
    }
}

/// Process number of a worker that is alive.
fn pid(run: &EntryRun) -> Option<u32> {
    run.case.worker.as_ref().map(Worker::pid)
}

/// Every case but this one whose worker is alive: its path and the worker's number.
fn others(runs: &[EntryRun], working: usize) -> Vec<(String, u32)> {
    let others = runs.iter().enumerate().filter(|(i, _)| *i != working);
    others.filter_map(|(_, c)| Some((c.case.planned.path.clone(), pid(c)?))).collect()
}

/// Processor time of every worker but this one, with all that they have started in their groups.
fn waiting(runs: &[EntryRun], working: usize) -> f64 {
    let groups: Vec<i32> = others(runs, working).iter().filter_map(|(_, pid)| cpu::group(*pid)).collect();
    cpu::of_groups(&groups).iter().sum()
}
