//! What the machine can do at best, as the harness measured it, and which of it a case is held to.
//!
//! In: the list of an [`Environment`](crate::environment::Environment). Out: serde types, the ceiling of a case, or why
//! it has none. Must not: measure, or hold a case to a ceiling of another number of threads.

use serde::{Deserialize, Serialize};

use crate::{
    case::CaseKey,
    format,
    missing::Missing,
    precision::{HeldTo, Precision},
};

/// One ceiling: a rate (more is better) or, in seconds, a cost (less is better).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineCeiling {
    /// `f32.avx512`, `bf16.amx`, `read.l2`, `read.dram`, `barrier`, `pool.idle`, ...
    pub name: String,
    /// What was measured, in one line.
    pub what: String,
    /// `FLOP/s`, `OP/s`, `B/s` or `s`, unscaled.
    pub unit: String,
    /// Threads at work at once; a rate is that of all of them together.
    pub threads: u32,
    /// The best of the repetitions: the ceiling.
    pub best: f64,
    /// Their median.
    pub median: f64,
    /// Repetitions.
    pub n: u32,
    /// Of reading: bytes that all threads together read again and again; none in measurements that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_set: Option<u64>,
}

/// A ceiling as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CeilingText {
    /// As in [`MachineCeiling`].
    pub name: String,
    /// As in [`MachineCeiling`].
    pub threads: u32,
    /// Number with unit.
    pub best: String,
    /// Number with unit.
    pub median: String,
    /// Repetitions.
    pub n: u32,
    /// As in [`MachineCeiling`].
    pub what: String,
}

impl MachineCeiling {
    /// Its numbers with scaled units.
    pub fn shown(&self) -> CeilingText {
        let (name, what) = (self.name.clone(), self.what.clone());
        let [best, median] = [self.best, self.median].map(|v| format::scaled(v, &self.unit));
        CeilingText { name, threads: self.threads, best, median, n: self.n, what }
    }
}

/// Something that has no number on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingCeiling {
    /// As in [`MachineCeiling`], or [`EVERY`].
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Stands for all names where the measurement as a whole failed.
pub const EVERY: &str = "every ceiling";

/// The ceilings of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineCeilings {
    /// When they were measured, RFC 3339 UTC: before the run, or long before it, if they were remembered.
    pub measured: String,
    /// One-minute load average just before, if the system tells: what else runs lowers ceilings.
    #[serde(default)]
    pub load: Option<f64>,
    /// What could be measured, each for every number of threads.
    pub list: Vec<MachineCeiling>,
    /// What could not, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingCeiling>,
}

/// What a ceiling limits, for people.
pub fn matters_for(name: &str) -> &'static str {
    match name.split_once('.').unwrap_or((name, "")) {
        ("f32", _) => "f32; bf16 and int8 where nothing is faster",
        ("bf16", _) => "bf16",
        ("int8", _) => "int8",
        ("read", _) => "small batches: few operations per byte",
        ("barrier", _) => "latency of small steps",
        ("pool", _) => "energy between steps",
        _ => "",
    }
}

impl MachineCeilings {
    /// The ceiling of this name at this number of threads, if it is a number to divide by.
    pub fn at(&self, name: &str, threads: u32) -> Option<&MachineCeiling> {
        self.sound(threads).find(|c| c.name == name)
    }

    /// Rates at this number of threads; a file may hold any number.
    fn sound(&self, threads: u32) -> impl Iterator<Item = &MachineCeiling> {
        self.list.iter().filter(move |c| c.threads == threads && c.best.is_finite() && c.best > 0.0)
    }

    /// Whether every one of these numbers of threads was measured.
    pub fn covers(&self, threads: &[u32]) -> bool {
        threads.iter().all(|n| self.list.iter().any(|c| c.threads == *n))
    }

    /// The arithmetic that a case could reach: [`MachineCeilings::of`] its precision, instruction set and threads.
    ///
    /// # Errors
    /// There is none, and why.
    pub fn of_case(&self, key: &CaseKey) -> Result<&MachineCeiling, Missing> {
        self.of(&key.precision, &key.isa, key.threads)
    }

    /// The fastest arithmetic for a precision. In f32 it is that of the instruction set, where `isa` names one that has
    /// a loop of its own; else the best of this machine. Reduced precisions are held to the best that this machine has
    /// for them, FMA in f32 included.
    ///
    /// # Errors
    /// The precision has no ceiling, or none was measured at this number of threads.
    pub fn of(&self, precision: &str, isa: &str, threads: u32) -> Result<&MachineCeiling, Missing> {
        let kinds: &[&str] = match Precision::of(precision).held_to {
            HeldTo::InstructionSet if isa.contains("avx512") => &["f32.avx512"],
            HeldTo::InstructionSet if isa.contains("avx2") => &["f32.avx2"],
            HeldTo::InstructionSet if isa == "scalar" => &["f32.portable"],
            HeldTo::InstructionSet => &["f32."],
            HeldTo::Best(kinds) => kinds,
            HeldTo::Nothing => {
                return Err(Missing::unavailable(format!("no ceiling is measured for {precision}"), None));
            }
        };
        let fits = |name: &str| kinds.iter().any(|kind| name.starts_with(kind));
        let best = self.sound(threads).filter(|c| fits(&c.name)).max_by(|a, b| a.best.total_cmp(&b.best));
        best.ok_or_else(|| {
            let elsewhere = self.list.iter().any(|c| fits(&c.name));
            match self.missing.iter().find(|m| m.name == EVERY || fits(&m.name)) {
                Some(why) if !elsewhere => Missing::unavailable(format!("{}: {}", why.name, why.reason), None),
                _ => not_measured(&format!(" at {threads} threads")),
            }
        })
    }

    /// Reading from memory, and from the last level of cache.
    pub fn slopes(&self, threads: u32) -> impl Iterator<Item = &MachineCeiling> {
        let level = |c: &&MachineCeiling| c.name.strip_prefix("read.l").and_then(|n| n.parse::<u32>().ok());
        let last = self.sound(threads).filter(|c| level(c).is_some()).max_by_key(|c| level(c));
        last.into_iter().chain(self.at("read.dram", threads))
    }
}

/// Why nothing can be said where there are no ceilings; `at` may say where.
pub fn not_measured(at: &str) -> Missing {
    let message = format!("the machine's ceilings were not measured{at}");
    Missing::not_measured(message, Some("`ergometer doctor --ceilings` measures and remembers them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings(list: &[(&str, u32, f64)]) -> MachineCeilings {
        let one = |&(name, threads, best): &(&str, u32, f64)| MachineCeiling {
            name: name.into(),
            what: String::new(),
            unit: "FLOP/s".into(),
            threads,
            best,
            median: best,
            n: 7,
            working_set: None,
        };
        MachineCeilings {
            measured: String::new(),
            load: None,
            list: list.iter().map(one).collect(),
            missing: Vec::new(),
        }
    }

    #[test]
    fn a_case_is_held_to_the_arithmetic_of_its_precision_instruction_set_and_threads() {
        let all = ceilings(&[
            ("f32.portable", 2, 1.0),
            ("f32.avx2", 2, 4.0),
            ("f32.avx512", 2, 3.0),
            ("f32.avx512", 1, 9.0),
            ("bf16.avx512", 2, 8.0),
            ("bf16.amx", 2, 64.0),
            ("int8.avx512", 2, 3.5),
            ("read.l3", 2, 1e9),
        ]);
        for (precision, isa, threads, want) in [
            ("f32", "avx512", 2, "f32.avx512"),
            ("f32", "avx512f", 1, "f32.avx512"),
            ("f32", "avx2+fma", 2, "f32.avx2"),
            ("f32", "scalar", 2, "f32.portable"),
            // what has no loop of its own is held to the best of the machine
            ("f32", "unknown", 2, "f32.avx2"),
            ("f32", "amx", 2, "f32.avx2"),
            ("bf16", "avx512f+amx-bf16", 2, "bf16.amx"),
            ("bf16", "scalar", 2, "bf16.amx"),
            // FMA where the reduced precision has nothing faster
            ("int8", "avx2", 2, "f32.avx2"),
        ] {
            assert_eq!(all.of(precision, isa, threads).unwrap().name, want, "{precision} {isa} {threads}");
        }
    }

    #[test]
    fn what_has_no_ceiling_says_why() {
        let mut all = ceilings(&[("f32.avx2", 2, 4.0), ("f32.avx2", 3, f64::NAN), ("f32.avx2", 4, 0.0)]);
        let kind = |all: &MachineCeilings, p: &str, isa: &str, threads| all.of(p, isa, threads).unwrap_err();
        assert_eq!(kind(&all, "f64", "scalar-f64", 2).kind, "unavailable");
        for threads in [1, 3, 4] {
            let missing = kind(&all, "f32", "avx2", threads);
            assert!(missing.kind == "not-measured" && missing.message.contains(&format!("{threads} threads")));
        }
        all.missing.push(MissingCeiling { name: "f32.avx512".into(), reason: "this CPU lacks AVX-512".into() });
        let missing = kind(&all, "f32", "avx512", 2);
        assert_eq!(
            (missing.kind.as_str(), missing.message.as_str()),
            ("unavailable", "f32.avx512: this CPU lacks AVX-512")
        );
        let failed = MissingCeiling { name: EVERY.into(), reason: "signal 4".into() };
        let none = MachineCeilings { missing: vec![failed], ..MachineCeilings::default() };
        assert_eq!(kind(&none, "bf16", "amx", 1).message, "every ceiling: signal 4");
    }

    #[test]
    fn slopes_are_memory_and_the_last_cache() {
        let all = ceilings(&[("read.l2", 2, 9.0), ("read.l10", 2, 3.0), ("read.dram", 2, 1.0), ("read.l3", 2, 5.0)]);
        let names: Vec<_> = all.slopes(2).map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["read.l10", "read.dram"]);
        assert_eq!(all.slopes(1).count(), 0);
        assert!(all.covers(&[2]) && !all.covers(&[1, 2]) && all.covers(&[]));
    }

    #[test]
    fn every_kind_says_what_it_matters_for() {
        for name in ["f32.avx2", "bf16.amx", "int8.amx", "read.l1", "read.dram", "barrier", "pool.idle"] {
            assert!(!matters_for(name).is_empty(), "{name}");
        }
    }
}
