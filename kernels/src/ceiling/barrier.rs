//! What a fork-join of the thread pool costs, and what an idle pool costs.
//!
//! In: numbers of threads. Out: seconds of an empty fork-join with all threads awake, and seconds of processor time of
//! an idle pool. Must not: count a fork-join in which a thread took no part, since the caller would have done its
//! share.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use super::Sheet;
use crate::pool::Pool;

/// Timed fork-joins of a stretch. There are several stretches because another process may hold a processor during all
/// of one.
const JOINS: usize = 400;
const STRETCHES: usize = 3;
/// Fork-joins before each stretch: workers are awake.
const WARM_UP: usize = 50;
/// Pause between stretches.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest that a stretch may take: with more threads than processors each fork-join waits for the scheduler.
const PATIENCE: Duration = Duration::from_millis(60);
/// Longest that one fork-join waits for a thread that does not come.
const LATE: Duration = Duration::from_millis(20);
/// How long a pool is left alone.
const IDLE: Duration = Duration::from_millis(200);
/// How often.
const IDLE_REPETITIONS: usize = 3;

/// Measures the barrier for every number of threads above one.
pub(super) fn barriers(all: &mut Sheet, counts: &[usize]) {
    if counts.iter().all(|n| *n < 2) {
        all.lacks("barrier", "one thread has nobody to wait for");
    }
    for &n in counts.iter().filter(|n| **n > 1) {
        match Pool::new(n) {
            Ok(pool) => {
                all.add(("barrier", "an empty fork-join of all threads of a pool", "s"), n, joins(&pool), false)
            }
            Err(e) => all.lacks("barrier", format!("cannot start {n} threads: {e}")),
        }
    }
}

/// Measures an idle pool of the largest number of threads.
pub(super) fn idle_pool(all: &mut Sheet, counts: &[usize]) {
    let Some(most) = counts.iter().copied().filter(|n| *n > 1).max() else {
        return all.lacks("pool.idle", "a pool of one thread has no workers");
    };
    match Pool::new(most).map_err(|e| format!("cannot start {most} threads: {e}")).and_then(|pool| idle(&pool)) {
        Ok(seen) => {
            let what = "processor time of a pool's workers: one fork-join out of sleep, and 200 ms without work";
            all.add(("pool.idle", what, "s"), most, seen, false);
        }
        Err(reason) => all.lacks("pool.idle", reason),
    }
}

/// One fork-join in which every thread takes part; false if one did not come in time.
fn join(pool: &Pool) -> bool {
    let (threads, begun) = (pool.threads(), AtomicUsize::new(0));
    pool.run(threads, &|part| {
        begun.fetch_add(1, SeqCst);
        // the caller waits here, since it would take back the shares that no worker has begun
        if part == 0 {
            let (mut spins, mut start) = (0u32, None);
            while begun.load(SeqCst) < threads {
                std::hint::spin_loop();
                spins += 1;
                if spins % 4096 == 0 {
                    thread::yield_now();
                    if start.get_or_insert_with(Instant::now).elapsed() > LATE {
                        return;
                    }
                }
            }
            begun.fetch_add(threads, SeqCst);
        }
    });
    begun.load(SeqCst) == 2 * threads
}

/// Seconds of each fork-join of a pool at work.
fn joins(pool: &Pool) -> Vec<f64> {
    let mut seen = Vec::with_capacity(STRETCHES * JOINS);
    for _ in 0..STRETCHES {
        let stretch = Instant::now();
        for i in 0..WARM_UP + JOINS {
            let start = Instant::now();
            if join(pool) && i >= WARM_UP {
                seen.push(start.elapsed().as_secs_f64());
            }
            if stretch.elapsed() > PATIENCE {
                break;
            }
        }
        thread::sleep(PAUSE);
    }
    seen
}

/// Seconds of processor time that the workers of a pool use, from sleep over one fork-join and [`IDLE`] after it.
fn idle(pool: &Pool) -> Result<Vec<f64>, String> {
    let workers = workers(pool)?;
    let used = || -> Result<u64, String> { workers.iter().map(|task| nanoseconds(task)).sum() };
    let mut seen = Vec::with_capacity(IDLE_REPETITIONS);
    // the kernel accounts for a thread when it goes to sleep, so both readings are of sleepers
    thread::sleep(IDLE / 4);
    for _ in 0..IDLE_REPETITIONS {
        let before = used()?;
        join(pool);
        thread::sleep(IDLE);
        seen.push(used()?.saturating_sub(before) as f64 / 1e9);
    }
    Ok(seen)
}

/// The entries under `/proc` of a pool's workers.
fn workers(pool: &Pool) -> Result<BTreeSet<PathBuf>, String> {
    let unknown =
        || "the system does not tell the processor time of single threads (/proc/thread-self/schedstat)".to_string();
    let own = || fs::read_link("/proc/thread-self").map(|link| PathBuf::from("/proc").join(link));
    let seen = Mutex::new(BTreeSet::new());
    let begun = AtomicUsize::new(0);
    pool.run(pool.threads(), &|part| {
        if let (true, Ok(task)) = (part > 0, own()) {
            seen.lock().unwrap_or_else(PoisonError::into_inner).insert(task);
        }
        begun.fetch_add(1, SeqCst);
        let start = Instant::now();
        while part == 0 && begun.load(SeqCst) < pool.threads() && start.elapsed() < Duration::from_secs(1) {
            thread::yield_now();
        }
    });
    let mut workers = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    // a share that came back to the caller
    workers.remove(&own().map_err(|_| unknown())?);
    match workers.len() {
        0 => Err(unknown()),
        n if n + 1 < pool.threads() => Err(format!("only {n} of {} workers came within a second", pool.threads() - 1)),
        _ => Ok(workers),
    }
}

/// Nanoseconds on a processor that a thread has had.
fn nanoseconds(task: &std::path::Path) -> Result<u64, String> {
    let text = fs::read_to_string(task.join("schedstat")).ok();
    let first = text.as_deref().and_then(|t| t.split_ascii_whitespace().next()?.parse().ok());
    first.ok_or_else(|| "the system does not count the processor time of threads (schedstat)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_has_every_thread() {
        let pool = Pool::new(2).expect("threads");
        assert!((0..50).any(|_| join(&pool)));
        assert!(join(&Pool::new(1).expect("the caller")));
    }

    #[test]
    fn one_thread_has_no_barrier() {
        let mut sheet = Sheet::default();
        barriers(&mut sheet, &[1]);
        idle_pool(&mut sheet, &[1]);
        let all = sheet.finish();
        assert!(all.list.is_empty());
        let names: Vec<&str> = all.missing.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["barrier", "pool.idle"]);
    }
}
