//! What a run tells while it goes on: how many cases are done, which phase is on, how long it may still take.
//!
//! In: phases and finished cases. Out: one line on stderr, only where that is a terminal; with `-v` a line a phase instead. Must not: draw
//! by itself (no tick): it is told something between phases and blocks alone, so nothing is drawn while a worker measures.

use indicatif::{ProgressBar, ProgressStyle};

use crate::console;

/// The line. Clones are the same line.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    cases: u64,
    done: std::cell::Cell<u64>,
    /// The phase that was told last.
    told: std::cell::RefCell<String>,
}

impl Progress {
    /// For so many cases, which are expected to take so many milliseconds together.
    pub fn new(cases: usize, ms: u64) -> Self {
        // lines of details and a line that is drawn over would spoil each other
        let bar = if console::verbose() { ProgressBar::hidden() } else { ProgressBar::new(ms) };
        let style = ProgressStyle::with_template("{bar:20} {prefix}  ETA {eta}  {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let progress = Self { bar, cases: cases as u64, done: 0.into(), told: String::new().into() };
        progress.count();
        progress
    }

    /// Nothing is told.
    pub fn none() -> Self {
        Self { bar: ProgressBar::hidden(), cases: 0, done: 0.into(), told: String::new().into() }
    }

    /// What is going on: search, reference, loading, parity, scoring or timing, and of what.
    pub fn phase(&self, phase: &str, of: &str) {
        self.bar.set_message(format!("{phase}  {of}"));
        // a round is told once, not once a case
        let now = if phase.starts_with("timing") { phase.to_owned() } else { format!("{phase}  {of}") };
        if self.told.replace(now.clone()) != now {
            console::detail(|| format!("{}/{} done, {now}", self.done.get(), self.cases));
        }
    }

    /// A case has ended, which was expected to take so long.
    pub fn done(&self, ms: u64) {
        self.done.set(self.done.get() + 1);
        self.count();
        self.bar.inc(ms);
    }

    /// The line goes away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn count(&self) {
        self.bar.set_prefix(format!("{}/{}", self.done.get(), self.cases));
    }
}
