//! What a counter of energy has counted in a window, and everything that makes it unbelievable: a reset, a jump, a standstill.
//!
//! In: readings of the counter with their times. Out: J and how far they can be off, or the reason why there are none. Must not: read
//! anything itself, so that every rule can be tested with invented readings.

use std::time::{Duration, Instant};

/// Time between two reads of an open window: resets and standstills between them cannot be seen.
pub const TICK: Duration = Duration::from_millis(50);
/// Seconds by which an update of a counter may come late, beside one of its periods.
const LATE: f64 = 0.01;
/// Seconds for which a counter may stand still whatever its period, and the periods and the share of a window for which it may.
const STILL: f64 = 0.1;
const STILL_PERIODS: f64 = 8.0;
const STILL_SHARE: f64 = 0.1;

/// W of a move above which it is no energy: so many times the median of the window's moves, and so many W more. A package at work does not
/// draw five times as much in one twentieth of a second as in most others.
const SPIKE: f64 = 4.0;
const SPIKE_WATTS: f64 = 20.0;
/// Moves from which on their median says something.
const FEW_MOVES: usize = 5;

/// What is known of a counter before its windows.
#[derive(Clone, Debug)]
pub struct Nature {
    /// J of one count.
    pub unit: f64,
    /// Count at which it wraps; `None`: it never does.
    pub range: Option<u64>,
    /// More W than its domain draws, and what that is taken from.
    pub most_watts: f64,
    pub basis: String,
    /// Its power does not leap while it works: a package, and not a board, whose work comes in bursts.
    pub steady: bool,
    /// Mean seconds between moves, once known.
    pub period: f64,
}

/// An open window of one counter.
#[derive(Clone, Debug)]
pub struct Tally {
    pub nature: Nature,
    /// Count seen last.
    pub last: u64,
    opened: Instant,
    seen: Instant,
    /// When `last` was seen first.
    changed: Instant,
    /// Counts since the window opened.
    total: u128,
    /// Longest standstill that two reads have proved, in seconds.
    longest: f64,
    /// Mean W of each move, over the time since the move before it and the time by which it may be late.
    powers: Vec<f64>,
    failure: Option<String>,
}

/// What a window of one counter holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowTotal {
    pub joules: f64,
    /// Seconds of power that can be missing or too much at each edge.
    pub edge_seconds: f64,
}

impl Tally {
    /// A window that opens with this reading.
    pub fn new(nature: Nature, count: u64, at: Instant) -> Self {
        let powers = Vec::new();
        Self { nature, last: count, opened: at, seen: at, changed: at, total: 0, longest: 0.0, powers, failure: None }
    }

    /// Opens the next window: whatever failed before does not matter.
    pub fn restart(&mut self, count: Result<u64, String>, at: Instant) {
        let last = self.last;
        *self = Self::new(self.nature.clone(), *count.as_ref().unwrap_or(&last), at);
        self.failure = count.err();
    }

    /// One more reading. Gives the counts since the last one.
    pub fn note(&mut self, count: Result<u64, String>, at: Instant) -> u64 {
        let moved = if self.failure.is_some() { Ok(0) } else { count.and_then(|count| self.moved(count, at)) };
        match moved {
            Ok(0) => {
                self.longest = self.longest.max(self.seen.max(at).duration_since(self.changed).as_secs_f64());
                self.seen = at;
                0
            }
            Ok(moved) => {
                let since = at.duration_since(self.changed).as_secs_f64() + self.late();
                if self.nature.steady {
                    self.powers.push(moved as f64 * self.nature.unit / since);
                }
                (self.seen, self.changed) = (at, at);
                self.total += u128::from(moved);
                moved
            }
            Err(why) => {
                self.failure = Some(why);
                0
            }
        }
    }

    /// Seconds by which a move may come late.
    fn late(&self) -> f64 {
        // while nothing is known of the period: half a second
        if self.nature.period > 0.0 { LATE + self.nature.period } else { 0.5 }
    }

    /// What to say of a move that is far above the others of the window, if there is one.
    fn spike(&self) -> Option<String> {
        let mut sorted = self.powers.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let (median, most) = (sorted.get(sorted.len() / 2)?, sorted.last()?);
        (sorted.len() >= FEW_MOVES && *most > SPIKE * median + SPIKE_WATTS).then(|| {
            format!("the counter jumped: {most:.0} W between two reads, and half of the reads of the same window show at most {median:.1} W")
        })
    }

    fn moved(&mut self, count: u64, at: Instant) -> Result<u64, String> {
        let late = self.late();
        let Nature { unit, range, most_watts, basis, .. } = &self.nature;
        let seconds = at.duration_since(self.seen).as_secs_f64();
        let most = most_watts * (seconds + late);
        let last = std::mem::replace(&mut self.last, count);
        let moved = match range {
            Some(range) if most_watts * seconds >= *range as f64 * unit => {
                return Err(format!(
                    "{seconds:.1} s between two reads: the counter, which wraps at {:.0} J, could have wrapped twice",
                    *range as f64 * unit
                ));
            }
            Some(range) if count > *range => {
                return Err(format!("{count} is beyond the range of the counter, {range}"));
            }
            Some(range) if count < last => range - last + count,
            None if count < last => {
                return Err(format!("the counter went back from {last} to {count}: it was reset"));
            }
            _ => count - last,
        };
        let joules = moved as f64 * unit;
        if joules > most {
            return Err(match count < last {
                true => format!("the counter went back from {last} to {count} in {seconds:.3} s: it was reset"),
                false => format!(
                    "the counter jumped from {last} to {count}, {joules:.1} J in {seconds:.3} s, and {basis} {most_watts:.0} W"
                ),
            });
        }
        Ok(moved)
    }

    /// Why the window has no value, if that is known already.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// What the window holds, closed at the last reading.
    ///
    /// # Errors
    /// A reading that failed or cannot be, or a standstill that hides what was used meanwhile.
    pub fn counted(&self) -> Result<WindowTotal, String> {
        if let Some(why) = &self.failure {
            return Err(why.clone());
        }
        let seconds = self.seen.duration_since(self.opened).as_secs_f64();
        if self.total == 0 {
            return Err(super::unmoved(seconds, self.nature.period));
        }
        let still = STILL.max(STILL_PERIODS * self.nature.period).max(STILL_SHARE * seconds);
        if self.longest > still {
            return Err(format!(
                "the counter stood still for {:.3} s of a window of {seconds:.3} s, though it used to move each {:.3} s",
                self.longest, self.nature.period
            ));
        }
        if let Some(why) = self.spike() {
            return Err(why);
        }
        let joules = self.total as f64 * self.nature.unit;
        Ok(WindowTotal { joules, edge_seconds: self.nature.period.max(self.longest) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter of µJ at this power, read each 50 ms; `with` changes what is read.
    fn window(watts: f64, seconds: f64, range: u64, with: impl Fn(f64, u64) -> u64) -> Result<WindowTotal, String> {
        let nature = Nature {
            unit: 1e-6,
            range: Some(range),
            most_watts: 1000.0,
            basis: "no package draws".into(),
            steady: true,
            period: 0.001,
        };
        let begin = Instant::now();
        let read = |t: f64| with(t, ((1.0 + watts * t) * 1e6) as u64);
        let mut tally = Tally::new(nature, read(0.0), begin);
        for i in 1..=(seconds / 0.05).round() as u32 {
            let t = f64::from(i) * 0.05;
            tally.note(Ok(read(t)), begin + Duration::from_secs_f64(t));
        }
        tally.counted()
    }

    const USUAL: u64 = 262_143_328_850;

    #[test]
    fn a_steady_counter_counts_and_wraps() {
        let counted = window(50.0, 1.0, USUAL, |_, n| n).unwrap();
        assert!((counted.joules - 50.0).abs() < 1e-3 && counted.edge_seconds == 0.001, "{counted:?}");
        let wrapped = window(400.0, 1.0, 100_000_000, |_, n| n % 100_000_000).unwrap();
        assert!((wrapped.joules - 400.0).abs() < 1e-3, "{wrapped:?}");
    }

    #[test]
    fn any_reset_ends_the_window() {
        // each 0.33 s, each 0.12 s, once, once to a little less
        for every in [0.33, 0.12] {
            let why = window(50.0, 1.0, USUAL, |t, _| (50e6 * (t % every)) as u64).unwrap_err();
            assert!(why.contains("it was reset"), "{why}");
        }
        let why = window(50.0, 1.0, USUAL, |t, n| if t > 0.5 { n - 20_000_000 } else { n }).unwrap_err();
        assert!(why.contains("it was reset"), "{why}");
        let slightly = window(1.0, 1.0, USUAL, |t, n| if t > 0.5 && t < 0.56 { n - 60_000 } else { n }).unwrap_err();
        assert!(slightly.contains("it was reset"), "{slightly}");
    }

    #[test]
    fn jumps_are_not_energy() {
        for joules in [150, 300, 600, 900, 100_000] {
            let jump = |t: f64, n: u64| if t > 0.5 { n + joules * 1_000_000 } else { n };
            let why = window(50.0, 1.0, USUAL, jump).unwrap_err();
            assert!(why.contains("jumped") && why.contains("no package draws 1000 W"), "{joules} J: {why}");
        }
    }

    #[test]
    fn small_jumps_now_and_then_are_not_energy_and_work_that_changes_is() {
        for (joules, each) in [(40, 0.25), (20, 0.25), (10, 0.5), (40, 0.6)] {
            let jumps = |t: f64, n: u64| n + (t / each) as u64 * joules * 1_000_000;
            let why = window(50.0, 1.0, USUAL, jumps).unwrap_err();
            assert!(why.contains("jumped") && why.contains("of the same window"), "{joules} J each {each} s: {why}");
        }
        // 50 W, then 120 W for a third of the time; an idle package that wakes up for a moment
        let work = |t: f64, n: u64| n + ((t - 0.66).max(0.0) * 70e6) as u64;
        let counted = window(50.0, 1.0, USUAL, work).unwrap();
        assert!((counted.joules - 73.8).abs() < 0.1, "{counted:?}");
        let woken = |t: f64, n: u64| n + ((t - 0.5).clamp(0.0, 0.1) * 15e6) as u64;
        assert!(window(3.0, 1.0, USUAL, woken).is_ok());
    }

    #[test]
    fn a_counter_that_stops_has_no_number_and_a_short_stop_widens_it() {
        let why = window(50.0, 1.0, USUAL, |t, n| if t > 0.5 { 26_000_000 } else { n }).unwrap_err();
        assert!(why.contains("stood still for 0.5"), "{why}");
        // a stop in the middle, caught up with later or not
        let why = window(50.0, 2.0, USUAL, |t, n| if (0.5..0.96).contains(&t) { 26_000_000 } else { n }).unwrap_err();
        assert!(why.contains("stood still for 0.4"), "{why}");
        let short = window(50.0, 2.0, USUAL, |t, n| if (0.5..0.56).contains(&t) { 25_000_000 } else { n }).unwrap();
        assert!(short.edge_seconds > 0.04, "{short:?}");
        assert!(window(50.0, 1.0, USUAL, |_, _| 5).unwrap_err().contains("stood still"));
    }

    #[test]
    fn what_is_beyond_the_range_or_too_late_is_refused() {
        assert!(window(50.0, 1.0, 1_000, |_, n| n).unwrap_err().contains("wrapped twice"));
        let mut stuck = window(50.0, 1.0, USUAL, |t, n| if t > 0.5 { u64::MAX } else { n }).unwrap_err();
        stuck.truncate(80);
        assert!(stuck.contains("beyond the range"), "{stuck}");
    }
}
