//! Threads that work together and wait for each other. In: members of a team, each with its number. Out: none goes on before all
//! have come. Must not: sleep; a team's work is short, and each of its members has a processor or gets one soon.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Rounds of looking before a member yields its processor: some 20 microseconds.
const ROUNDS: usize = 1 << 10;

/// What a member that panics leaves.
const PANICKED: u32 = u32::MAX;

/// Where members of a team wait for each other, again and again. Each tells how often it came, on a line of its own, which the others
/// read: so a wait takes the time that one line takes from one core to the others.
pub(crate) struct TeamBarrier {
    came: Vec<Came>,
    /// Nanoseconds that members waited for others who had no processor.
    late: AtomicU64,
}

#[repr(align(128))]
struct Came(AtomicU32);

impl TeamBarrier {
    /// For so many members at most.
    pub(crate) fn new(members: usize) -> TeamBarrier {
        TeamBarrier { came: (0..members).map(|_| Came(AtomicU32::new(0))).collect(), late: AtomicU64::new(0) }
    }

    /// How long members waited beyond the time in which one that has a processor comes, all together.
    pub(crate) fn late(&self) -> Duration {
        Duration::from_nanos(self.late.load(Ordering::Relaxed))
    }

    /// TeamMember `i` of `n`.
    pub(crate) fn member(&self, i: usize, n: usize) -> TeamMember<'_> {
        assert!(i < n && n <= self.came.len(), "member {i} of {n}, with room for {}", self.came.len());
        TeamMember { came: &self.came[..n], late: &self.late, i }
    }
}

/// A member of a team. If it panics, those that wait for it panic too.
pub(crate) struct TeamMember<'a> {
    came: &'a [Came],
    late: &'a AtomicU64,
    i: usize,
}

impl TeamMember<'_> {
    /// Returns when every member has called it as often as this one. What they wrote before can then be read.
    ///
    /// # Panics
    /// If another member has.
    pub(crate) fn wait(&self) {
        let own = &self.came[self.i].0;
        let count = own.load(Ordering::Relaxed) + 1;
        own.store(count, Ordering::Release);
        for (j, other) in self.came.iter().enumerate().filter(|(j, _)| *j != self.i) {
            // the others are as far as this one, or one further
            let ready = || other.0.load(Ordering::Acquire) >= count;
            let mut rounds = 0;
            while !ready() && rounds < ROUNDS {
                std::hint::spin_loop();
                rounds += 1;
            }
            if rounds == ROUNDS {
                let begun = Instant::now();
                while !ready() {
                    std::thread::yield_now();
                }
                self.late.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
            }
            assert!(other.0.load(Ordering::Relaxed) != PANICKED, "member {j} of a team panicked");
        }
    }
}

impl Drop for TeamMember<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.came[self.i].0.store(PANICKED, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::Pool;

    #[test]
    fn nobody_goes_on_before_all_have_come() {
        for threads in 1..=4 {
            let pool = Pool::new(threads).expect("threads");
            let (barrier, counts) = (TeamBarrier::new(threads), [(); 3].map(|()| AtomicUsize::new(0)));
            pool.team(threads, &|i, n| {
                assert_eq!(n, threads);
                let member = barrier.member(i, n);
                for round in 0..300 {
                    counts[round % 3].fetch_add(1, Ordering::Relaxed);
                    member.wait();
                    assert_eq!(counts[round % 3].load(Ordering::Relaxed), n, "round {round}");
                    // of the round before, which nobody reads any more
                    if i == 0 {
                        counts[(round + 2) % 3].store(0, Ordering::Relaxed);
                    }
                }
            });
        }
    }

    #[test]
    fn who_waits_for_a_member_that_panicked_panics() {
        let pool = Pool::new(3).expect("threads");
        for bad in 0..3 {
            let barrier = TeamBarrier::new(3);
            let run = || {
                pool.team(3, &|i, n| {
                    let member = barrier.member(i, n);
                    member.wait();
                    assert_ne!(i, bad, "member {bad} fails");
                    member.wait();
                });
            };
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }
        let members = AtomicUsize::new(0);
        pool.team(3, &|_, n| {
            members.fetch_add(n, Ordering::Relaxed);
        });
        assert_eq!(members.into_inner(), 9, "the pool lives on");
    }

    #[test]
    fn who_waits_long_is_told() {
        let (pool, barrier) = (Pool::new(2).expect("threads"), TeamBarrier::new(2));
        // on a busy machine the first may come as late as the second
        for _ in 0..100 {
            let begun = AtomicU32::new(0);
            pool.team(2, &|i, n| {
                let member = barrier.member(i, n);
                begun.fetch_add(1, Ordering::Relaxed);
                while i == 1 && begun.load(Ordering::Relaxed) < 2 {
                    std::thread::yield_now();
                }
                if i == 1 {
                    std::thread::sleep(Duration::from_millis(5));
                }
                member.wait();
            });
            if barrier.late() > Duration::ZERO {
                return;
            }
        }
        panic!("nobody waited");
    }

    #[test]
    fn inside_a_run_a_team_is_one() {
        let pool = Pool::new(2).expect("threads");
        pool.run(2, &|_| pool.team(2, &|i, n| assert_eq!((i, n), (0, 1))));
    }
}
