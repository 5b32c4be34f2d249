//! Threads that do the same kind of work at the same time, and the rate of all of them together.
//!
//! In: what one thread does. Out: a rate for each repetition. Must not: count work outside the common window, or time
//! in which only some threads had begun.

use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Repetitions of one measurement in one pass.
pub(super) const REPETITIONS: usize = 10;
/// Length of one repetition: many pieces of work, yet short, so that other processes disturb only some repetitions.
const WINDOW: Duration = Duration::from_millis(3);
/// Work before the first repetition: clocks rise, and pages and caches are filled.
const WARM_UP: Duration = Duration::from_millis(8);
/// From the signal to the common beginning, for threads that have to wake up.
const LEAD: Duration = Duration::from_micros(300);

/// A piece of work of some ten microseconds; gives the amount done.
pub(super) type Work<'a> = Box<dyn FnMut() -> f64 + 'a>;

/// Amounts per second of `threads` threads together, one for each repetition. `make(i)` is called on thread `i`, and
/// may fail.
///
/// # Errors
/// What `make` says, or that a thread could not be started.
pub(super) fn rates<'a>(
    threads: usize,
    make: &(dyn Fn(usize) -> Result<Work<'a>, String> + Sync),
) -> Result<Vec<f64>, String> {
    thread::scope(|scope| {
        let (done, reports) = channel::<Result<(f64, Instant), String>>();
        let mut starts: Vec<Sender<Instant>> = Vec::with_capacity(threads);
        for i in 0..threads {
            let (send, begin) = channel::<Instant>();
            let done = done.clone();
            let life = move || {
                let mut work = match make(i) {
                    Ok(work) => work,
                    Err(reason) => return drop(done.send(Err(reason))),
                };
                run(&mut work, Instant::now(), WARM_UP);
                // the receiver is gone if another thread failed
                if done.send(Ok((0.0, Instant::now()))).is_err() {
                    return;
                }
                for begin in begin {
                    if done.send(Ok(run(&mut work, begin, WINDOW))).is_err() {
                        return;
                    }
                }
            };
            // on an error the channels so far close, which ends their threads
            thread::Builder::new()
                .name(format!("ceiling-{i}"))
                .spawn_scoped(scope, life)
                .map_err(|e| format!("cannot start {threads} threads: {e}"))?;
            starts.push(send);
        }
        drop(done);
        let wait = || -> Result<Vec<(f64, Instant)>, String> {
            (0..threads).map(|_| reports.recv().map_err(|_| "a thread ended early".to_string())?).collect()
        };
        // warm
        wait()?;
        let mut rates = Vec::with_capacity(REPETITIONS);
        for _ in 0..REPETITIONS {
            let begin = Instant::now() + LEAD;
            for start in &starts {
                start.send(begin).map_err(|_| "a thread ended early".to_string())?;
            }
            // from the common beginning to each one's own end: they differ by one piece of work
            let rate = |(amount, end): (f64, Instant)| amount / (end - begin).as_secs_f64();
            rates.push(wait()?.into_iter().map(rate).sum());
        }
        Ok(rates)
    })
}

/// Works from `begin` on for at least `window`; gives the amount and when it ended.
fn run(work: &mut Work, begin: Instant, window: Duration) -> (f64, Instant) {
    while Instant::now() < begin {
        std::hint::spin_loop();
    }
    let mut amount = 0.0;
    loop {
        amount += work();
        let now = Instant::now();
        if now.duration_since(begin) >= window {
            return (amount, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_repetition_has_a_rate_of_all_threads() {
        let seen = rates(3, &|_| {
            Ok(Box::new(|| {
                thread::sleep(Duration::from_millis(1));
                1.0
            }))
        })
        .expect("three threads");
        assert_eq!(seen.len(), REPETITIONS);
        // no thread can do more than one piece a millisecond
        assert!(seen.iter().all(|r| *r > 0.0 && *r <= 3000.0), "{seen:?}");
    }

    #[test]
    fn one_that_cannot_work_is_told() {
        let error = rates(3, &|i| if i == 1 { Err("no room".into()) } else { Ok(Box::new(|| 1.0)) }).unwrap_err();
        assert_eq!(error, "no room");
    }
}
