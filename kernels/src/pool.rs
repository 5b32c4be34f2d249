//! A persistent fork-join thread pool. In: a number of parts and a function of the part's index. Out: every part done,
//! each thread on its own share. A share whose worker has not begun when the caller is done with its own is done by the
//! caller, so that a thread that gets no processor does not hold up the others. Workers wait for the next run by
//! spinning for some microseconds, then sleep: an idle pool uses no processor time.

use std::any::Any;
use std::cell::UnsafeCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread spins, and then yields, before it sleeps.
const SPIN: Duration = Duration::from_micros(20);
const YIELD: Duration = Duration::from_micros(20);

const IDLE: u32 = 0;
const POSTED: u32 = 1;
const STOP: u32 = 2;

/// A pool of `threads - 1` workers and the thread that calls.
pub struct Pool {
    workers: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// held during a run
    running: Mutex<()>,
}

/// What the caller and the workers share.
struct Shared {
    boxes: Vec<Mailbox>,
    /// workers that still run
    pending: AtomicUsize,
    /// the caller sleeps, or is about to
    waiting: AtomicBool,
    caller: Mutex<Option<Thread>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// there is a CPU for every thread, so that spinning delays none of them
    spin: bool,
}

/// One worker's mailbox, on cache lines of its own.
#[repr(align(128))]
struct Mailbox {
    state: AtomicU32,
    asleep: AtomicBool,
    share: UnsafeCell<Option<Share>>,
}

/// One worker's share of a run. The reference is valid until `pending` has been counted down.
#[derive(Clone, Copy)]
struct Share {
    function: &'static (dyn Fn(usize) + Sync),
    first: usize,
    end: usize,
}

// SAFETY: `share` is written by the caller before it posts and read by whoever turned POSTED to IDLE, one of worker and
// caller, who counts down `pending` when done; the caller writes again after `pending` is zero. Every other field is
// Sync.
unsafe impl Sync for Mailbox {}

impl Pool {
    /// A pool in which `threads` threads work (the caller is one of them; 0 counts as 1).
    ///
    /// # Errors
    /// The operating system refuses a thread; those it gave before have ended by then.
    pub fn new(threads: usize) -> io::Result<Pool> {
        Pool::start(threads, |i| thread::Builder::new().name(format!("kernel-{i}")))
    }

    /// [`Pool::new`] with the builder of worker `i`, from 1.
    fn start(threads: usize, builder: impl Fn(usize) -> thread::Builder) -> io::Result<Pool> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared::new(threads));
        let mut pool = Pool { workers: Vec::with_capacity(threads - 1), shared, running: Mutex::new(()) };
        for i in 0..threads - 1 {
            let shared = Arc::clone(&pool.shared);
            // on an error the pool so far is dropped, which ends its workers
            pool.workers.push(builder(i + 1).spawn(move || shared.work(i))?);
        }
        Ok(pool)
    }

    /// Threads that work, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(part)` once for every part below `parts` and returns when all are done. Thread i does the i-th of as
    /// many equal runs of neighbouring parts as there are threads; where thread i is late, the calling thread does
    /// them. From inside a part, or while another thread runs on this pool, all parts run on the calling thread.
    ///
    /// # Panics
    /// With the payload of a part that panicked, after all threads have stopped.
    pub fn run(&self, parts: usize, f: &(dyn Fn(usize) + Sync)) {
        self.run_on(self.threads(), parts, f);
    }

    /// [`Pool::run`] on at most this many threads: on the calling thread alone where others would cost more than they
    /// save.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub fn run_on(&self, threads: usize, parts: usize, f: &(dyn Fn(usize) + Sync)) {
        let threads = self.threads().min(threads).min(parts);
        let guard = if threads > 1 { self.try_begin() } else { None };
        match guard {
            Some(guard) => self.begun(guard, threads, parts, f),
            None => (0..parts).for_each(f),
        }
    }

    /// Calls `f(member, members)` once in each of at most this many threads, all at work together, so that they may wait for
    /// each other ([`TeamBarrier`](crate::team::TeamBarrier)). From inside a part, or while another thread runs on this pool, the
    /// calling thread is the only member.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub(crate) fn team(&self, threads: usize, f: &(dyn Fn(usize, usize) + Sync)) {
        let threads = self.threads().min(threads);
        match if threads > 1 { self.try_begin() } else { None } {
            Some(guard) => self.begun(guard, threads, threads, &|i| f(i, threads)),
            None => f(0, 1),
        }
    }

    /// The threads' shares of a run that holds `running`.
    fn begun(&self, guard: MutexGuard<'_, ()>, threads: usize, parts: usize, f: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Workers use the reference before they count down `pending`, and this
        // function neither returns nor unwinds before `pending` is zero.
        let function = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
        let share = |i: usize| Share { function, first: parts * i / threads, end: parts * (i + 1) / threads };
        *lock(&shared.caller) = Some(thread::current());
        shared.pending.store(threads - 1, SeqCst);
        for (i, (mailbox, worker)) in shared.boxes.iter().zip(&self.workers).take(threads - 1).enumerate() {
            // SAFETY: the box is IDLE and its share done with, since every earlier run was counted down to zero, and we
            // hold `running`.
            unsafe { *mailbox.share.get() = Some(share(i + 1)) };
            mailbox.state.store(POSTED, SeqCst);
            if mailbox.asleep.load(SeqCst) {
                worker.thread().unpark();
            }
        }
        shared.call(share(0));
        for mailbox in shared.boxes.iter().take(threads - 1) {
            shared.take(mailbox);
        }
        shared.join();
        let panic = lock(&shared.panic).take();
        drop(guard);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Splits `out` into chunks of `chunk` values (the last may be shorter) and calls `f(index, chunk)` for each, in
    /// parallel.
    pub fn chunks<T: Send>(&self, out: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let (chunk, len) = (chunk.max(1), out.len());
        let start = SendPtr(out.as_mut_ptr());
        self.run(len.div_ceil(chunk), &|i| {
            let first = i * chunk;
            // SAFETY: chunks do not overlap and lie within `out`, which is borrowed until `run` returns.
            f(i, unsafe { std::slice::from_raw_parts_mut(start.get().add(first), chunk.min(len - first)) });
        });
    }

    fn try_begin(&self) -> Option<MutexGuard<'_, ()>> {
        match self.running.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (mailbox, worker) in self.shared.boxes.iter().zip(&self.workers) {
            mailbox.state.store(STOP, SeqCst);
            worker.thread().unpark();
        }
        for worker in self.workers.drain(..) {
            // a worker's loop catches the panics of its parts, so it ends well
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Empty mailboxes for all threads but the caller.
    fn new(threads: usize) -> Shared {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let mailbox =
            |_| Mailbox { state: AtomicU32::new(IDLE), asleep: AtomicBool::new(false), share: UnsafeCell::new(None) };
        Shared {
            boxes: (1..threads).map(mailbox).collect(),
            pending: AtomicUsize::new(0),
            waiting: AtomicBool::new(false),
            caller: Mutex::new(None),
            panic: Mutex::new(None),
            spin: threads <= cpus,
        }
    }

    /// The loop of worker `i`.
    fn work(&self, i: usize) {
        let mailbox = &self.boxes[i];
        loop {
            self.wait(&mailbox.asleep, || mailbox.state.load(SeqCst) != IDLE);
            if mailbox.state.load(SeqCst) == STOP {
                return;
            }
            let last = self.take(mailbox);
            if last
                && self.waiting.load(SeqCst)
                && let Some(caller) = &*lock(&self.caller)
            {
                caller.unpark();
            }
        }
    }

    /// Runs a mailbox's share if nobody has yet; says whether it was the last to be done.
    fn take(&self, mailbox: &Mailbox) -> bool {
        if mailbox.state.compare_exchange(POSTED, IDLE, SeqCst, SeqCst).is_err() {
            return false;
        }
        // SAFETY: we turned POSTED to IDLE, so the share is ours, and the caller leaves it alone until we have counted
        // down.
        if let Some(share) = unsafe { *mailbox.share.get() } {
            self.call(share);
        }
        self.pending.fetch_sub(1, SeqCst) == 1
    }

    /// Runs a share; keeps the first panic for the caller.
    fn call(&self, share: Share) {
        let parts = AssertUnwindSafe(|| (share.first..share.end).for_each(share.function));
        if let Err(payload) = catch_unwind(parts) {
            lock(&self.panic).get_or_insert(payload);
        }
    }

    /// The caller waits for the workers.
    fn join(&self) {
        let done = || self.pending.load(SeqCst) == 0;
        self.wait(&self.waiting, done);
    }

    /// Spins, then yields, then sleeps until `ready`. The thread that makes it ready reads `asleep` afterwards and
    /// unparks the sleeper. Both sides write before they read, so at least one of them sees what the other wrote.
    fn wait(&self, asleep: &AtomicBool, ready: impl Fn() -> bool) {
        if self.spin {
            let start = Instant::now();
            let mut waited = Duration::ZERO;
            while waited < SPIN + YIELD {
                for _ in 0..16 {
                    if ready() {
                        return;
                    }
                    std::hint::spin_loop();
                }
                if waited >= SPIN {
                    thread::yield_now();
                }
                waited = start.elapsed();
            }
        }
        asleep.store(true, SeqCst);
        while !ready() {
            thread::park();
        }
        asleep.store(false, SeqCst);
    }
}

/// A pointer that parts share, each of which uses a range of its own.
pub(crate) struct SendPtr<T>(pub(crate) *mut T);

// SAFETY: users hand disjoint ranges to the threads, of a T that may be sent.
unsafe impl<T: Send> Sync for SendPtr<T> {}

impl<T> SendPtr<T> {
    /// A method, so that closures capture the whole value, which is Sync, and not the bare pointer.
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}

/// Nothing that is guarded here can be left half-written, so poison is ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_part_runs_once_in_many_tiny_jobs() {
        for threads in 1..=4 {
            let pool = Pool::new(threads).expect("threads");
            assert_eq!(pool.threads(), threads);
            for parts in (0..400).map(|i| i % 9) {
                let calls: Vec<AtomicU64> = (0..parts).map(|_| AtomicU64::new(0)).collect();
                pool.run(parts, &|i| {
                    calls[i].fetch_add(1, SeqCst);
                });
                assert!(calls.iter().all(|n| n.load(SeqCst) == 1), "{threads} threads, {parts} parts");
            }
        }
    }

    #[test]
    fn parts_are_shared_among_the_threads() {
        let pool = Pool::new(3).expect("threads");
        let names = Mutex::new(vec![None; 6]);
        let begun = AtomicUsize::new(0);
        pool.run(6, &|i| {
            lock(&names)[i] = Some(thread::current().id());
            begun.fetch_add(1, SeqCst);
            // no share is late as long as the caller waits in its first part
            while i == 0 && begun.load(SeqCst) < 5 {
                thread::yield_now();
            }
        });
        let names = lock(&names).clone();
        assert!(names[0] == names[1] && names[2] == names[3] && names[4] == names[5]);
        assert!(names[0] != names[2] && names[2] != names[4] && names[0] != names[4]);
        assert_eq!(names[0], Some(thread::current().id()), "the caller works too");
    }

    #[test]
    fn workers_wake_from_sleep() {
        let pool = Pool::new(2).expect("threads");
        let sum = AtomicUsize::new(0);
        for round in 0..20 {
            pool.run(8, &|i| {
                sum.fetch_add(i, SeqCst);
            });
            if round % 5 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
        assert_eq!(sum.into_inner(), 20 * 28);
    }

    #[test]
    fn panics_propagate_and_the_pool_lives_on() {
        for threads in 1..=4 {
            let pool = Pool::new(threads).expect("threads");
            for bad in [0, 7] {
                let caught =
                    catch_unwind(AssertUnwindSafe(|| pool.run(8, &|i| assert_ne!(i, bad, "part {bad} fails"))));
                let payload = caught.expect_err("the panic must reach the caller");
                let text = payload.downcast_ref::<String>().expect("the payload is the text");
                assert!(text.contains(&format!("part {bad} fails")), "{text}");
                let sum = AtomicUsize::new(0);
                pool.run(8, &|i| {
                    sum.fetch_add(i, SeqCst);
                });
                assert_eq!(sum.into_inner(), 28);
            }
        }
    }

    #[test]
    fn a_refused_thread_is_an_error_and_ends_the_others() {
        // no address space holds such a stack
        let greedy = |i| thread::Builder::new().stack_size(if i == 3 { 1 << 60 } else { 1 << 16 });
        assert!(Pool::start(8, greedy).is_err());
        assert_eq!(Pool::start(3, greedy).expect("two small workers").threads(), 3);
    }

    #[test]
    fn the_caller_does_what_a_late_worker_has_not_begun() {
        // a worker that never looks into its mailbox
        let workers = vec![thread::spawn(|| {})];
        let pool = Pool { workers, shared: Arc::new(Shared::new(2)), running: Mutex::new(()) };
        let (done, when_done) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for _ in 0..3 {
                let calls: Vec<AtomicU64> = (0..5).map(|_| AtomicU64::new(0)).collect();
                pool.run(5, &|i| {
                    calls[i].fetch_add(1, SeqCst);
                });
                drop(done.send(calls.iter().map(|n| n.load(SeqCst)).collect::<Vec<u64>>()));
            }
        });
        for _ in 0..3 {
            let calls = when_done.recv_timeout(Duration::from_secs(20)).expect("the caller waits for nobody");
            assert_eq!(calls, [1; 5]);
        }
    }

    #[test]
    fn few_threads_may_run_many_parts() {
        let pool = Pool::new(3).expect("threads");
        for threads in 0..5 {
            let ids = Mutex::new(std::collections::HashSet::new());
            pool.run_on(threads, 12, &|_| {
                lock(&ids).insert(thread::current().id());
            });
            let ids = lock(&ids);
            assert!(ids.len() <= threads.max(1), "{} of {threads} threads", ids.len());
            assert!(ids.contains(&thread::current().id()));
        }
    }

    #[test]
    fn a_run_inside_a_run_is_serial() {
        let pool = Pool::new(2).expect("threads");
        let sum = AtomicUsize::new(0);
        pool.run(4, &|_| {
            pool.run(5, &|i| {
                sum.fetch_add(i, SeqCst);
            })
        });
        assert_eq!(sum.into_inner(), 40);
    }

    #[test]
    fn chunks_cover_the_slice_once() {
        let pool = Pool::new(3).expect("threads");
        for len in 0..40 {
            let mut out = vec![0; len];
            pool.chunks(&mut out, 7, |index, chunk| {
                for (i, x) in chunk.iter_mut().enumerate() {
                    *x += index * 7 + i + 1;
                }
            });
            assert!(out.iter().enumerate().all(|(i, x)| *x == i + 1), "{out:?}");
        }
    }

    #[test]
    fn drop_joins_busy_and_sleeping_workers() {
        for _ in 0..50 {
            let pool = Pool::new(4).expect("threads");
            pool.run(4, &|_| {});
        }
        let pool = Pool::new(4).expect("threads");
        thread::sleep(Duration::from_millis(1));
        drop(pool);
    }
}
