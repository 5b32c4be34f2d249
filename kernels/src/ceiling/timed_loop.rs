//! A loop of arithmetic that is run to be timed.
//!
//! In: a function that detection has allowed. Out: operations done. Must not: choose instructions.

/// A loop that this machine can run: only detection makes one.
#[derive(Clone, Copy)]
pub(super) struct Loop {
    /// Runs a number of rounds, at least one.
    run: unsafe fn(u64),
    rounds: u64,
    /// Operations of a round.
    operations: f64,
}

impl Loop {
    /// # Safety
    /// `run` may be called on this machine, on any thread, with any number of rounds above 0.
    pub(super) unsafe fn new(run: unsafe fn(u64), rounds: u64, operations: u64) -> Loop {
        Loop { run, rounds: rounds.max(1), operations: operations as f64 }
    }

    /// Runs for some ten microseconds; gives the operations done.
    pub(super) fn chunk(&self) -> f64 {
        // SAFETY: the caller of `new` promised it.
        unsafe { (self.run)(self.rounds) };
        self.rounds as f64 * self.operations
    }
}
