//! Powercap zones: finding those that count, and reading their counters.
//!
//! In: a powercap tree. Out: zones, what could not be followed in the tree and why, µJ. Must not: sum zones, or pass over a zone in
//! silence that may be a package.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::NO_TREE;
use crate::backends::Unavailable;

/// What to do where links of the tree lead nowhere.
const HIDDEN: &str = "a container hides what it leads to: measure outside of it, or show it there (docker run --security-opt systempaths=unconfined)";
/// What to do where only root may read.
const PERMISSION: &str =
    "only root may read it; until the next boot, allow it by: sudo chmod a+r /sys/class/powercap/*/energy_uj";
/// Limits of a zone that are looked at.
const CONSTRAINTS: u32 = 8;

/// A zone of the tree.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    /// What its file `name` says: `package-0`, `core`, `dram` ...
    pub name: String,
    /// Its folder's name: `intel-rapl:0`.
    pub folder: String,
    /// Its counter file.
    pub file: PathBuf,
    /// µJ at which the counter wraps.
    pub range: u64,
    /// Largest power limit that the zone shows, in W.
    pub limit: Option<f64>,
}

/// Something of the tree that cannot be used.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    folder: String,
    pub why: Unavailable,
}

/// What a tree holds.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub zones: Vec<Zone>,
    pub problems: Vec<Problem>,
}

/// Whether a folder's name is that of a zone in its own right (`intel-rapl:0`), not of a part of one (`intel-rapl:0:1`).
fn top(folder: &str) -> bool {
    folder.matches(':').count() == 1
}

impl Tree {
    /// Zones of packages. Only zones in their own right: what lies in a package is in its energy.
    pub fn packages(&self) -> Vec<Zone> {
        self.unlike(|z| z.name.to_ascii_lowercase().starts_with("package-") && top(&z.folder))
    }

    /// Zones of memory.
    pub fn drams(&self) -> Vec<Zone> {
        self.unlike(|z| z.name.eq_ignore_ascii_case("dram"))
    }

    /// Zones without those of the MMIO interface that the MSR interface shows as well.
    fn unlike(&self, wanted: impl Fn(&Zone) -> bool) -> Vec<Zone> {
        let zones: Vec<&Zone> = self.zones.iter().filter(|z| wanted(z)).collect();
        let mmio = |z: &Zone| z.folder.contains("mmio");
        // a part by its zone's name and its own
        let owner = |z: &Zone| {
            let of = z.folder.rsplit_once(':').map_or("", |(of, _)| of);
            (self.zones.iter().find(|z| z.folder == of).map(|z| z.name.clone()), z.name.clone())
        };
        let twice = |z: &Zone| mmio(z) && zones.iter().any(|other| !mmio(other) && owner(other) == owner(z));
        let mut kept: Vec<Zone> = zones.iter().filter(|z| !twice(z)).map(|z| (*z).clone()).collect();
        // of two names of one counter the first is kept
        kept.sort_by_key(mmio);
        kept
    }

    /// The first problem that may hide a package, or (`parts`) a part of one.
    pub fn problem(&self, parts: bool) -> Option<&Unavailable> {
        self.problems.iter().find(|p| !p.folder.contains(':') || top(&p.folder) != parts).map(|p| &p.why)
    }
}

/// Every zone below `root`, sorted by folder.
pub(super) fn find(root: &Path) -> Result<Tree, Unavailable> {
    if let Err(e) = fs::read_dir(root) {
        let mut reason = format!("{}: {e}", root.display());
        if Path::new("/sys/bus/event_source/devices/power").exists() {
            reason.push_str(" (perf has a `power` device here, which ergometer does not read)");
        }
        return Err(Unavailable { reason, hint: Some(NO_TREE.into()) });
    }
    let (mut folders, mut tree) = (BTreeMap::new(), Tree::default());
    walk(root, 0, &mut folders, &mut tree.problems);
    // what is reached another way is not lost
    tree.problems.retain(|p| !folders.values().any(|name| *name == p.folder));
    for (path, folder) in folders {
        match zone(&path, &folder) {
            Ok(Some(zone)) => tree.zones.push(zone),
            Ok(None) => {}
            Err(why) => tree.problems.push(Problem { folder, why }),
        }
    }
    Ok(tree)
}

/// Names of the tree's zones, for seeing that one has come or gone.
pub(super) fn names(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|n| n.contains("rapl") && top(n));
    names.sort();
    names
}

/// Folders of zones, each once though sysfs shows them flat and nested; only RAPL's own, never `subsystem` or `device` links.
fn walk(folder: &Path, depth: u32, found: &mut BTreeMap<PathBuf, String>, problems: &mut Vec<Problem>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.contains("rapl") {
            continue;
        }
        match fs::canonicalize(entry.path()) {
            Ok(path) if path.is_dir() => {
                let new = found.insert(path.clone(), name).is_none();
                if new && depth < 3 {
                    walk(&path, depth + 1, found, problems);
                }
            }
            Ok(_) => {}
            Err(e) => problems.push(Problem { folder: name, why: unreadable(&entry.path(), &e) }),
        }
    }
}

/// Why a zone's folder or file cannot be had.
fn unreadable(path: &Path, error: &io::Error) -> Unavailable {
    match fs::read_link(path) {
        Ok(target) if error.kind() == io::ErrorKind::NotFound => Unavailable {
            reason: format!("{} is a link to {}, which is not there", path.display(), target.display()),
            hint: Some(HIDDEN.into()),
        },
        _ => {
            let hint = (error.kind() == io::ErrorKind::PermissionDenied).then(|| PERMISSION.to_string());
            Unavailable { reason: format!("{}: {error}", path.display()), hint }
        }
    }
}

/// A folder's zone; `None`: it is no zone that counts energy.
fn zone(path: &Path, folder: &str) -> Result<Option<Zone>, Unavailable> {
    if !folder.contains(':') {
        // an interface, which holds zones
        return Ok(None);
    }
    let named = path.join("name");
    let name = read_small(&named).map_err(|e| unreadable(&named, &e))?;
    let file = path.join("energy_uj");
    let counts = name.to_ascii_lowercase().starts_with("package-") || name.eq_ignore_ascii_case("dram");
    match fs::symlink_metadata(&file) {
        Ok(_) => {}
        // it only limits power
        Err(e) if e.kind() == io::ErrorKind::NotFound && !counts => return Ok(None),
        Err(e) => return Err(unreadable(&file, &e)),
    }
    // of other zones nothing is needed
    let range = if counts { range(&path.join("max_energy_range_uj"))? } else { 0 };
    let limits =
        (0..CONSTRAINTS).flat_map(|i| ["power_limit_uw", "max_power_uw"].map(|what| format!("constraint_{i}_{what}")));
    let watts = limits.filter_map(|file| Some(read_small(&path.join(file)).ok()?.parse::<f64>().ok()? * 1e-6));
    let limit = watts.filter(|w| (1.0..=2000.0).contains(w)).reduce(f64::max);
    Ok(Some(Zone { name, folder: folder.into(), file, range, limit }))
}

fn range(file: &Path) -> Result<u64, Unavailable> {
    let text = read_small(file).map_err(|e| Unavailable {
        reason: format!("{}: {e}, and without it a wrap of the counter cannot be told from a reset", file.display()),
        hint: (e.kind() == io::ErrorKind::PermissionDenied).then(|| PERMISSION.to_string()),
    })?;
    let refuse = |what: &str| Unavailable { reason: format!("{}: {text:?} {what}", file.display()), hint: None };
    match text.parse() {
        Ok(0) => Err(refuse("is no range of a counter")),
        Ok(range) => Ok(range),
        Err(_) => Err(refuse("is not a number of µJ")),
    }
}

/// Text of a small attribute file; more than it can hold is not read, and what is no file does not hold us.
pub(super) fn read_small(file: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let open = fs::OpenOptions::new().read(true).custom_flags(nonblock).open(file)?;
    open.take(128).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).trim().to_string())
}

/// A zone's µJ now.
pub(super) fn read(zone: &Zone) -> Result<u64, Unavailable> {
    let text = read_small(&zone.file).map_err(|e| unreadable(&zone.file, &e))?;
    text.parse().map_err(|_| Unavailable {
        reason: format!("{}: {text:?} is not a count of µJ", zone.file.display()),
        hint: None,
    })
}
