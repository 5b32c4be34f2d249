//! What this machine can do at best: arithmetic by instruction, reading by level of the memory, and the cost of a
//! fork-join.
//!
//! In: numbers of threads, bytes that may be taken. Out: [`Ceilings`], each the best and the median of several short
//! repetitions, and the reason for whatever could not be measured. Must not: run an instruction that was not detected,
//! take more memory than allowed, or give a number to what was not measured.
//!
//! Loops are written for the most that an instruction can give, so that a kernel's speed can be stated as a share of
//! it. Takes about three seconds for one thread and one other number of threads.

mod amx;
mod barrier;
mod caches;
mod parallel;
mod peak;
mod read;
mod timed_loop;

use parallel::rates;

/// More threads than any machine of today has cores.
const MOST_THREADS: usize = 1024;

/// One ceiling: a rate (more is better) or, in seconds, a cost (less is better).
#[derive(Clone, Debug, PartialEq)]
pub struct Ceiling {
    /// `f32.avx512`, `bf16.amx`, `read.l2`, `read.dram`, `barrier`, `pool.idle`, ...
    pub name: String,
    /// What was measured, in one line.
    pub what: String,
    /// `FLOP/s`, `OP/s`, `B/s` or `s`.
    pub unit: &'static str,
    /// Threads at work at once; a rate is that of all of them together.
    pub threads: usize,
    /// The best of the repetitions: the ceiling.
    pub best: f64,
    /// Their median.
    pub median: f64,
    /// Repetitions.
    pub n: usize,
    /// Of reading: bytes that all threads together read again and again.
    pub working_set: Option<usize>,
}

/// A ceiling that could not be measured here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCeiling {
    /// As [`Ceiling::name`].
    pub name: String,
    /// Why.
    pub reason: String,
}

/// All ceilings of this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ceilings {
    /// What could be measured, each for every number of threads.
    pub list: Vec<Ceiling>,
    /// What could not, and why.
    pub missing: Vec<NoCeiling>,
}

/// Passes over all rates and barriers: a disturbance of one has often ended by the next.
const PASSES: usize = 2;

/// Observations so far.
#[derive(Default)]
struct Sheet {
    /// Ceilings without numbers yet, with their observations; `true`: more is better.
    rows: Vec<(Ceiling, bool, Vec<f64>)>,
    missing: Vec<NoCeiling>,
}

impl Sheet {
    /// Notes once why there is no number.
    fn lacks(&mut self, name: &str, reason: impl Into<String>) {
        let lacking = NoCeiling { name: name.into(), reason: reason.into() };
        if !self.missing.contains(&lacking) {
            self.missing.push(lacking);
        }
    }

    /// Adds observations of one rate (`higher`) or cost.
    fn add(&mut self, (name, what, unit): (&str, &str, &'static str), threads: usize, seen: Vec<f64>, higher: bool) {
        match self.rows.iter_mut().find(|(c, ..)| c.name == name && c.threads == threads) {
            Some((_, _, all)) => all.extend(seen),
            None => {
                let (name, what) = (name.into(), what.into());
                self.rows.push((
                    Ceiling { name, what, unit, threads, best: 0.0, median: 0.0, n: 0, working_set: None },
                    higher,
                    seen,
                ));
            }
        }
    }

    /// Keeps how many bytes the observations of a ceiling of reading are of.
    fn reads(&mut self, name: &str, threads: usize, bytes: usize) {
        let rows = self.rows.iter_mut().filter(|(c, ..)| c.name == name && c.threads == threads);
        rows.for_each(|(c, ..)| c.working_set = Some(bytes));
    }

    /// Best and median of all observations; those that are no positive number are none.
    fn finish(mut self) -> Ceilings {
        let mut list = Vec::with_capacity(self.rows.len());
        for (ceiling, higher, mut seen) in std::mem::take(&mut self.rows) {
            seen.retain(|v| v.is_finite() && *v > 0.0);
            seen.sort_unstable_by(f64::total_cmp);
            let n = seen.len();
            if n == 0 {
                let reason = format!("no repetition at {} threads gave a positive number", ceiling.threads);
                self.lacks(&ceiling.name, reason);
                continue;
            }
            let best = if higher { seen[n - 1] } else { seen[0] };
            list.push(Ceiling { best, median: (seen[(n - 1) / 2] + seen[n / 2]) / 2.0, n, ..ceiling });
        }
        Ceilings { list, missing: self.missing }
    }
}

/// Measures everything at one thread and at each of these numbers of threads (at most 1024), with buffers of at most
/// `most_bytes` together.
pub fn ceilings(threads: &[usize], most_bytes: usize) -> Ceilings {
    let mut counts: Vec<usize> = threads.iter().map(|n| (*n).clamp(1, MOST_THREADS)).chain([1]).collect();
    counts.sort_unstable();
    counts.dedup();
    let mut sheet = Sheet::default();
    let peaks = peak::peaks();
    for _ in 0..PASSES {
        for peak in &peaks {
            let work = match &peak.work {
                Ok(work) => work,
                Err(reason) => {
                    sheet.lacks(peak.name, reason);
                    continue;
                }
            };
            for &n in &counts {
                match rates(n, &|_| Ok(Box::new(move || work.chunk()))) {
                    Ok(seen) => sheet.add((peak.name, peak.what, peak.unit), n, seen, true),
                    Err(reason) => sheet.lacks(peak.name, format!("{n} threads: {reason}")),
                }
            }
        }
        read::levels(&mut sheet, &counts, most_bytes);
        barrier::barriers(&mut sheet, &counts);
    }
    barrier::idle_pool(&mut sheet, &counts);
    sheet.finish()
}

/// How fast so many threads together read so many bytes round and round: the ceiling of work whose operands are that many.
///
/// # Errors
/// Why it could not be measured.
pub fn read_ceiling(threads: usize, bytes: usize) -> Result<Ceiling, NoCeiling> {
    let (threads, mut sheet) = (threads.clamp(1, MOST_THREADS), Sheet::default());
    for _ in 0..PASSES {
        read::measure(&mut sheet, ("read", &format!("reading {}", read::size(bytes))), threads, bytes / threads, bytes);
    }
    let all = sheet.finish();
    let none = || NoCeiling { name: "read".into(), reason: "nothing was measured".into() };
    all.list.into_iter().next().ok_or_else(|| all.missing.into_iter().next().unwrap_or_else(none))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_of_a_working_set_has_a_rate_or_a_reason() {
        let read = read_ceiling(1, 8 << 20).expect("8 MiB can be read");
        assert!(read.best > 0.0 && read.unit == "B/s" && read.threads == 1 && read.what == "reading 8 MiB", "{read:?}");
        let refused = read_ceiling(1, usize::MAX / 4).unwrap_err();
        assert!(refused.reason.contains("no memory"), "{refused:?}");
    }

    #[test]
    fn best_and_median_are_of_what_was_seen_in_all_passes() {
        let mut sheet = Sheet::default();
        sheet.add(("a", "rate", "FLOP/s"), 1, vec![3.0, f64::NAN, 1.0], true);
        sheet.add(("b", "cost", "s"), 2, vec![4.0, 3.0], false);
        sheet.add(("a", "rate", "FLOP/s"), 1, vec![2.0, f64::INFINITY, 0.0], true);
        sheet.add(("a", "rate", "FLOP/s"), 2, vec![-1.0], true);
        sheet.lacks("c", "none");
        sheet.lacks("c", "none");
        let all = sheet.finish();
        let seen: Vec<_> = all.list.iter().map(|c| (c.name.as_str(), c.threads, c.best, c.median, c.n)).collect();
        assert_eq!(seen, [("a", 1, 3.0, 2.0, 3), ("b", 2, 3.0, 3.5, 2)]);
        let missing: Vec<_> = all.missing.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(missing, ["c", "a"]);
    }

    #[test]
    fn what_is_present_has_positive_numbers_and_what_is_not_a_reason() {
        let all = ceilings(&[2, 0, 2], 64 << 20);
        for c in &all.list {
            assert!(c.best.is_finite() && c.best > 0.0 && c.median.is_finite() && c.median > 0.0, "{c:?}");
            assert!(if c.unit == "s" { c.best <= c.median } else { c.best >= c.median }, "{c:?}");
            assert!((1..=2).contains(&c.threads) && c.n > 0 && !c.what.is_empty(), "{c:?}");
        }
        let has = |name: &str, threads| all.list.iter().any(|c| c.name == name && c.threads == threads);
        let lacks = |name: &str| all.missing.iter().any(|m| m.name == name && !m.reason.is_empty());
        assert!(has("f32.portable", 1) && has("f32.portable", 2), "plain Rust runs everywhere: {all:?}");
        assert!(!has("barrier", 1), "one thread waits for nobody: {all:?}");
        // on a busy machine two threads may never meet in time, which is a reason too
        for name in [
            "f32.avx2",
            "f32.avx512",
            "bf16.avx512",
            "bf16.amx",
            "int8.avx512",
            "int8.amx",
            "read.dram",
            "barrier",
            "pool.idle",
        ] {
            assert!(has(name, 2) != lacks(name), "{name}: a number or a reason, not both: {all:?}");
        }
        #[cfg(target_arch = "x86_64")]
        for (name, present) in [
            ("f32.avx2", is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
            ("f32.avx512", is_x86_feature_detected!("avx512f")),
            ("bf16.avx512", is_x86_feature_detected!("avx512bf16")),
            ("int8.avx512", is_x86_feature_detected!("avx512vnni")),
        ] {
            assert_eq!(has(name, 1), present, "{name}");
        }
        let lists: std::collections::BTreeSet<_> = all.list.iter().map(|c| (&c.name, c.threads)).collect();
        assert_eq!(lists.len(), all.list.len(), "each ceiling once for each number of threads");
    }

    #[test]
    fn memory_that_may_not_be_taken_is_a_reason() {
        let mut sheet = Sheet::default();
        read::levels(&mut sheet, &[1], 1 << 20);
        let all = sheet.finish();
        let dram = all.missing.iter().find(|m| m.name == "read.dram").expect("a reason");
        assert!(dram.reason.contains("MiB"), "{dram:?}");
        assert!(all.list.iter().all(|c| c.name != "read.dram"));
    }
}
