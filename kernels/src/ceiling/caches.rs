//! The caches of data that the system lists.
//!
//! In: `/sys/devices/system/cpu`. Out: size and number of each level; empty where the system lists none. Must not:
//! guess a size.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// One level of data cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cache {
    pub(super) level: u32,
    /// Bytes of one of them.
    pub(super) bytes: usize,
    /// How many there are.
    pub(super) count: usize,
    /// CPUs that share one.
    pub(super) sharers: usize,
}

/// The levels that hold data, from the first.
pub(super) fn caches() -> Vec<Cache> {
    let mut levels = BTreeMap::new();
    let cpus = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten().map(|e| e.path());
    for cpu in cpus.filter(|p| p.join("cache").is_dir()) {
        for index in fs::read_dir(cpu.join("cache")).into_iter().flatten().flatten() {
            let of = |name: &str| text(&index.path().join(name));
            if let (Some(level), Some(kind), Some(size), Some(shared)) =
                (of("level"), of("type"), of("size"), of("shared_cpu_list"))
            {
                note(&mut levels, &level, &kind, &size, &shared);
            }
        }
    }
    let one = |(level, (bytes, sharers)): (u32, (usize, BTreeSet<String>))| Cache {
        level,
        bytes,
        count: sharers.len(),
        sharers: sharers.iter().map(|list| cpus_in(list)).max().unwrap_or(1),
    };
    levels.into_iter().map(one).collect()
}

/// By level: bytes of the smallest cache, and the lists of CPUs that share one.
type Levels = BTreeMap<u32, (usize, BTreeSet<String>)>;

/// Adds one cache of one CPU; ignores what is not in the format of the Linux kernel.
fn note(levels: &mut Levels, level: &str, kind: &str, size: &str, shared: &str) {
    let (Ok(level), Some(bytes)) = (level.parse::<u32>(), bytes(size)) else { return };
    if kind == "Instruction" || bytes == 0 {
        return;
    }
    let known = levels.entry(level).or_insert((bytes, BTreeSet::new()));
    known.0 = known.0.min(bytes);
    known.1.insert(shared.into());
}

/// `48K`, `2048K` or `32M` in bytes.
fn bytes(size: &str) -> Option<usize> {
    let (number, unit) = match size.strip_suffix(['K', 'M', 'G']) {
        Some(number) => (number, size.chars().last()),
        None => (size, None),
    };
    let shift = match unit {
        Some('K') => 10,
        Some('M') => 20,
        Some(_) => 30,
        None => 0,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

/// CPUs in a list like `0-3,8`.
fn cpus_in(list: &str) -> usize {
    let one = |part: &str| match part.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (first.parse::<usize>().unwrap_or(0), last.parse::<usize>().unwrap_or(0));
            last.saturating_sub(first).saturating_add(1)
        }
        None => 1,
    };
    list.split(',').map(one).fold(0, usize::saturating_add).max(1)
}

fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(
            [bytes("48K"), bytes("32M"), bytes("512"), bytes("")],
            [Some(49152), Some(32 << 20), Some(512), None]
        );
        assert_eq!([bytes("x"), bytes("99999999999999999999K"), bytes("18446744073709551615M")], [None; 3]);
        assert_eq!([cpus_in("0"), cpus_in("0-3,8"), cpus_in("9-2"), cpus_in("")], [1, 5, 1, 1]);
    }

    #[test]
    fn levels_are_counted_by_who_shares_them() {
        let mut levels = Levels::new();
        for (cpu, shared) in [("0", "0-1"), ("1", "0-1")] {
            note(&mut levels, "1", "Data", "32K", cpu);
            note(&mut levels, "1", "Instruction", "64K", cpu);
            note(&mut levels, "3", "Unified", "32M", shared);
        }
        note(&mut levels, "four", "Data", "1K", "0");
        let seen: Vec<_> = levels.iter().map(|(level, (bytes, shared))| (*level, *bytes, shared.len())).collect();
        assert_eq!(seen, [(1, 32 << 10, 2), (3, 32 << 20, 1)]);
    }

    #[test]
    fn this_machine_has_levels_in_order() {
        let seen = caches();
        assert!(seen.windows(2).all(|w| w[0].level < w[1].level), "{seen:?}");
        assert!(seen.iter().all(|c| c.bytes > 0 && c.count > 0 && c.sharers > 0), "{seen:?}");
    }
}
