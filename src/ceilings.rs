//! What this machine can do at best: measured in a process of its own, remembered for the next time.
//!
//! In: numbers of threads, the cache. Out: [`MachineCeilings`]. Must not: measure while a worker measures, believe a remembered file further than it can
//! be read, or let a measurement that crashes take the run with it.
//!
//! A process of its own (`ergometer worker --ceilings`), since a hypervisor may announce an instruction and then refuse
//! it, and tiles of AMX need a permission that lasts as long as its process. The result is in `environment.json`, and
//! in `ceilings.json` of the cache by processor, number of processors and program. With `--check` it is recalled and
//! not measured.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use ergometer_files::Links;
use ergometer_reports::ceiling::{EVERY, MachineCeiling, MachineCeilings, MissingCeiling};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::console;
use crate::environment::{machine, now_utc};
use crate::files::{hex, read_cached, sha256, write_atomically};

/// File of remembered ceilings in the cache.
const FILE: &str = "ceilings.json";
/// Largest such file.
const MAX_BYTES: u64 = 4 << 20;
/// Most measurements that are remembered: each build of this program has its own.
const MAX_ENTRIES: usize = 32;
/// More threads than are ever measured together.
const MAX_THREADS: u32 = 1024;
/// Share of the memory that the measurement may take.
const MEMORY_SHARE: u64 = 4;
/// Names the environment variable that leaves ceilings out.
pub const SWITCH: &str = "ERGOMETER_CEILINGS";

/// One remembered measurement.
#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    ceilings: MachineCeilings,
}

/// Ceilings remembered for this machine and this very program, in a cache folder.
pub struct CeilingCache<'a> {
    cache: &'a Path,
    key: String,
}

impl<'a> CeilingCache<'a> {
    /// Looks in this folder, which need not be there.
    ///
    /// # Errors
    /// This program's own file cannot be read.
    pub fn new(cache: &'a Path) -> anyhow::Result<Self> {
        let seen = machine::observe();
        let text = format!("{} x {} {}", seen.cpu, seen.cpus, executable_hash()?);
        Ok(Self { cache, key: hex(&Sha256::digest(text.as_bytes())) })
    }

    /// Every entry; what cannot be read is as if it were not there, since it can be measured again.
    fn entries(&self) -> Vec<Entry> {
        let text = read_cached(&self.cache.join(FILE), MAX_BYTES);
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// What is remembered, if it is sound.
    pub fn recall(&self) -> Option<MachineCeilings> {
        let found = self.entries().into_iter().rev().find(|e| e.key == self.key)?.ceilings;
        let sound = |c: &MachineCeiling| c.best.is_finite() && c.best > 0.0 && c.median.is_finite();
        (!found.list.is_empty() && found.list.iter().all(sound)).then_some(found)
    }

    /// Measures at these numbers of threads, and at those that are remembered; keeps the result unless it is a failure.
    pub fn measure(&self, threads: &[u32]) -> MachineCeilings {
        let before = self.recall().into_iter().flat_map(|c| c.list).map(|c| c.threads);
        let counts: BTreeSet<u32> = threads.iter().copied().chain([1]).chain(before).map(allowed).collect();
        let ceilings = apart(&counts).unwrap_or_else(|e| failed(&format!("{e:#}")));
        if !ceilings.list.is_empty() {
            // without a cache it is only measured again
            let _ = self.keep(&ceilings);
        }
        ceilings
    }

    fn keep(&self, ceilings: &MachineCeilings) -> anyhow::Result<()> {
        let mut all = self.entries();
        all.retain(|e| e.key != self.key);
        all.push(Entry { key: self.key.clone(), ceilings: ceilings.clone() });
        all.drain(..all.len().saturating_sub(MAX_ENTRIES));
        std::fs::create_dir_all(self.cache).context("cannot create the cache folder")?;
        write_atomically(&self.cache.join(FILE), &serde_json::to_vec_pretty(&all)?)
    }
}

/// Whether [`SWITCH`] leaves ceilings out.
///
/// # Errors
/// It says something unknown.
pub fn left_out() -> anyhow::Result<bool> {
    match std::env::var_os(SWITCH).filter(|v| !v.is_empty()) {
        None => Ok(false),
        Some(off) if off == "off" => Ok(true),
        Some(other) => {
            bail!("{SWITCH} is `{}`\nhint: set it to `off` to leave ceilings out, or unset it", other.to_string_lossy())
        }
    }
}

/// The ceilings for a run whose cases use these numbers of threads: remembered, or else measured now. `None`: nothing to be held to a
/// ceiling, left out by [`SWITCH`], or not remembered where nothing may be measured (`check`).
///
/// # Errors
/// [`SWITCH`] says something unknown, or this program's own file cannot be read.
pub fn of_run(threads: &[u32], cache: &Path, check: bool) -> anyhow::Result<Option<MachineCeilings>> {
    if left_out()? || threads.is_empty() {
        return Ok(None);
    }
    let memory = CeilingCache::new(cache)?;
    let counts: Vec<u32> = threads.iter().copied().map(allowed).collect();
    let known = memory.recall().filter(|c| c.covers(&counts));
    if known.is_some() || check {
        let from = if known.is_some() { "remembered in" } else { "not measured in a check, and not remembered in" };
        console::detail(|| format!("ceilings: {from} {}", cache.join(FILE).display()));
        return Ok(known);
    }
    console::info("measuring what this machine can do at best (some seconds; remembered)");
    Ok(Some(memory.measure(&counts)))
}

fn allowed(threads: u32) -> u32 {
    threads.clamp(1, MAX_THREADS)
}

/// The measurement in this process: what `ergometer worker --ceilings` does for [`CeilingCache::measure`].
pub fn here(threads: &[u32], most_bytes: u64) -> MachineCeilings {
    let threads: Vec<usize> = threads.iter().map(|n| *n as usize).collect();
    let load = crate::environment::load();
    let seen = ergometer_kernels::ceilings(&threads, usize::try_from(most_bytes).unwrap_or(usize::MAX));
    let one = |c: ergometer_kernels::Ceiling| MachineCeiling {
        name: c.name,
        what: c.what,
        unit: c.unit.into(),
        threads: c.threads as u32,
        best: c.best,
        median: c.median,
        n: c.n as u32,
        working_set: c.working_set.map(|n| n as u64),
    };
    let none = |m: ergometer_kernels::NoCeiling| MissingCeiling { name: m.name, reason: m.reason };
    MachineCeilings {
        measured: now_utc(),
        load,
        list: seen.list.into_iter().map(one).collect(),
        missing: seen.missing.into_iter().map(none).collect(),
    }
}

/// The measurement in a process of its own: an instruction that a hypervisor announces and then refuses, or memory that a limit denies, must
/// not end a run, and the harness keeps neither the threads nor the permission for tiles.
fn apart(threads: &BTreeSet<u32>) -> anyhow::Result<MachineCeilings> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let list = threads.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let output = Command::new(&program)
        .args(["worker", "--parent", &std::process::id().to_string(), "--ceilings", &list])
        .args(["--most-bytes", &most_bytes().to_string()])
        .stdin(Stdio::null())
        .output()
        .context("cannot start the measurement")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.trim().lines().last().unwrap_or_default().chars().take(200).collect();
        bail!("the measurement ended by {}{}{said}", output.status, if said.is_empty() { "" } else { ": " });
    }
    serde_json::from_slice(&output.stdout).context("the measurement's result cannot be read")
}

/// Bytes that its buffers may take together.
fn most_bytes() -> u64 {
    let seen = machine::observe();
    let limit = seen.settings.get("limit.memory_bytes").and_then(|text| text.parse::<f64>().ok());
    limit.map_or(seen.memory_bytes, |limit| seen.memory_bytes.min(limit as u64)) / MEMORY_SHARE
}

fn failed(reason: &str) -> MachineCeilings {
    let missing = vec![MissingCeiling { name: EVERY.into(), reason: reason.into() }];
    MachineCeilings { measured: now_utc(), load: None, list: Vec::new(), missing }
}

/// sha256 of this program's file.
///
/// # Errors
/// The file cannot be found or read.
pub fn executable_hash() -> anyhow::Result<String> {
    let path = std::env::current_exe().context("cannot find this program's own file")?;
    sha256(&path, u64::MAX, Links::Followed).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(threads: u32, best: f64) -> MachineCeilings {
        let (name, unit) = ("f32.portable".to_string(), "FLOP/s".to_string());
        let one =
            MachineCeiling { name, what: "plain".into(), unit, threads, best, median: 1.0, n: 7, working_set: None };
        MachineCeilings { measured: "2000-01-01T00:00:00Z".into(), load: None, list: vec![one], missing: Vec::new() }
    }

    #[test]
    fn what_is_kept_is_recalled_for_the_same_machine_and_program() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("not/yet/there");
        let memory = CeilingCache::new(&cache).unwrap();
        assert_eq!(memory.recall(), None);
        memory.keep(&some(2, 5.0)).unwrap();
        assert_eq!(memory.recall(), Some(some(2, 5.0)));
        memory.keep(&some(2, 6.0)).unwrap();
        assert_eq!(CeilingCache::new(&cache).unwrap().recall(), Some(some(2, 6.0)), "the later one");
        let other = CeilingCache { cache: &cache, key: "another machine".into() };
        assert_eq!(other.recall(), None);
        other.keep(&some(4, 7.0)).unwrap();
        assert_eq!((memory.recall(), other.recall()), (Some(some(2, 6.0)), Some(some(4, 7.0))));
    }

    #[test]
    fn a_bad_file_is_as_if_it_were_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let memory = CeilingCache::new(dir.path()).unwrap();
        memory.keep(&some(2, 5.0)).unwrap();
        let good = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let bad = [
            "".into(),
            "[".into(),
            "{}".into(),
            good[..good.len() / 2].to_string(),
            good.replace("5.0", "-5.0"),
            good.replace("5.0", "1e999"),
            good.replace("\"best\": 5.0", "\"best\": null"),
        ];
        for text in bad {
            std::fs::write(dir.path().join(FILE), &text).unwrap();
            assert_eq!(memory.recall(), None, "{text}");
        }
        memory.keep(&some(2, 5.0)).unwrap();
        assert!(memory.recall().is_some(), "and it is written anew");
    }

    #[test]
    fn the_memory_does_not_grow_without_end() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..MAX_ENTRIES + 3 {
            CeilingCache { cache: dir.path(), key: format!("build {i}") }.keep(&some(1, 1.0)).unwrap();
        }
        let last = CeilingCache { cache: dir.path(), key: format!("build {}", MAX_ENTRIES + 2) };
        assert_eq!(last.entries().len(), MAX_ENTRIES);
        assert!(last.recall().is_some());
    }

    #[test]
    fn a_check_measures_nothing() {
        let dir = tempfile::tempdir().unwrap();
        if std::env::var_os(SWITCH).is_some() {
            return;
        }
        assert_eq!(of_run(&[1], dir.path(), true).unwrap(), None);
        assert_eq!(of_run(&[], dir.path(), false).unwrap(), None);
        CeilingCache::new(dir.path()).unwrap().keep(&some(2, 5.0)).unwrap();
        assert_eq!(of_run(&[2], dir.path(), true).unwrap(), Some(some(2, 5.0)));
        assert_eq!(of_run(&[3], dir.path(), true).unwrap(), None, "not at this number of threads");
    }
}
