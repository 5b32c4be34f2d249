//! Processes that have left the group in which they were started: a daemon that a worker, or a library, has made of itself.
//!
//! In: a mark, put into the environment of every process that is started here and inherited by all that it starts. Out: those that carry it
//! are killed. Must not: end anything that carries no mark and is no child of this process.
//!
//! A worker's group is killed by the harness at the end of its case, and by the guard (`ergometer worker --guard`,
//! which sleeps on a pipe whose other end only the harness holds) when the harness ends in any other way. `setsid`
//! escapes both, and this mark is how such a process is found; the case then has a note.
//!
//! A process that starts another with an empty environment hides it from the mark. The kernel makes such a one our child
//! once its parent has ended ([`adopt`]), and [`end_children`] ends it: at once where a scorer or a metered program left
//! it, else with the command or its interruption. Until then what it uses is foreign load. Where this process is
//! killed itself there is nobody to adopt: what is hidden then lives on, but for what the guard was told of.

use std::collections::BTreeSet;
use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};

use crate::processes::{Stat, children_of};

/// The variable that carries the mark.
pub const VARIABLE: &str = "ERGOMETER_STARTED_BY";

/// How often the processes are looked through: what starts another while it is killed is found in the next round.
const ROUNDS: u32 = 4;

/// The mark of this process: its number, and when it began to mark.
pub fn own() -> &'static str {
    static OWN: OnceLock<String> = OnceLock::new();
    OWN.get_or_init(|| format!("{}-{}", std::process::id(), crate::clock::monotonic_ns()))
}

/// A mark for one more thing that is started.
pub fn mark() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}.{}", own(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Makes the orphans among our descendants our children from now on, whatever group, session or environment they have.
///
/// # Errors
/// The system has no such thing.
pub fn adopt() -> std::io::Result<()> {
    Ok(set_child_subreaper(Pid::from_raw(std::process::id() as i32))?)
}

/// Our children now, adopted ones and those that have ended among them.
pub fn children() -> BTreeSet<u32> {
    children_of(std::process::id()).unwrap_or_default().into_iter().collect()
}

/// Kills our children but those that are `kept`, and what becomes our child when they end, until none is alive. Gives how many were killed.
/// They are not waited for, so that whoever started one of them still can.
pub fn end_children(kept: &BTreeSet<u32>) -> usize {
    let mut ended = BTreeSet::new();
    // one that has ended after the list was read has children that are not in it: none must be alive twice
    let mut none_alive = 0;
    // about a second: what the kernel does not let go of (a broken disk) must not hold us for ever
    for _ in 0..500 {
        let alive: Vec<u32> =
            children().into_iter().filter(|pid| !kept.contains(pid) && Stat::of(*pid).is_ok_and(|s| !s.over)).collect();
        none_alive = if alive.is_empty() { none_alive + 1 } else { 0 };
        if none_alive == 2 {
            break;
        }
        for pid in alive {
            if Pid::from_raw(pid as i32).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()) {
                ended.insert(pid);
            }
        }
        if none_alive == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    ended.len()
}

/// Waits for those of our children but the `kept` that have ended: adopted ones, which nobody else waits for.
pub fn bury_children(kept: &BTreeSet<u32>) {
    children().iter().filter(|pid| !kept.contains(pid)).for_each(|pid| bury(*pid));
}

/// Waits for a child of ours, if it has ended.
pub fn bury(pid: u32) {
    let _ = waitpid(Pid::from_raw(pid as i32), WaitOptions::NOHANG);
}

/// Kills these processes, each named by its number and when it began.
pub fn end_named(named: &BTreeSet<(u32, u64)>) {
    for (pid, _) in named.iter().filter(|(pid, began)| is_there(*pid, *began)) {
        let _ = Pid::from_raw(*pid as i32).map(|pid| kill_process(pid, Signal::KILL));
    }
}

/// Whether a process of this number that began then is there.
pub fn is_there(pid: u32, began: u64) -> bool {
    Stat::of(pid).is_ok_and(|stat| stat.began == began)
}

/// Kills what carries this mark, or one that was made from it; not this process itself. Gives their number.
pub fn end(mark: &str) -> usize {
    let mut ended = BTreeSet::new();
    for _ in 0..ROUNDS {
        let found = marked(mark);
        if found.is_empty() {
            break;
        }
        for pid in found {
            if kill_process(pid, Signal::KILL).is_ok() {
                ended.insert(pid.as_raw_nonzero());
            }
        }
    }
    ended.len()
}

/// Processes that carry the mark and have not ended.
fn marked(mark: &str) -> Vec<Pid> {
    let this = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid != this);
    // what has ended and is not yet waited for has no environment; that of others cannot be read
    let carries = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|entry| is_of(entry, mark))
    };
    numbers.filter(carries).filter_map(|pid| Pid::from_raw(pid as i32)).collect()
}

/// Whether an entry of an environment is this mark, or one made from it.
fn is_of(entry: &[u8], mark: &str) -> bool {
    let value = entry.strip_prefix(VARIABLE.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
    let rest = value.and_then(|value| value.strip_prefix(mark.as_bytes()));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn marks_are_told_apart() {
        let entry = |value: &str| format!("{VARIABLE}={value}").into_bytes();
        assert!(is_of(&entry("7-1.3"), "7-1.3") && is_of(&entry("7-1.3"), "7-1"));
        for other in ["7-1.30", "7-10.3", "17-1.3", ""] {
            assert!(!is_of(&entry(other), "7-1.3"), "{other}");
        }
        assert!(!is_of(b"OTHER=7-1.3", "7-1.3") && !is_of(b"", ""));
    }

    #[test]
    fn what_carries_a_mark_is_ended_wherever_it_has_gone() {
        let (mark, other) = (mark(), mark());
        // away from its parent, its group and its session
        let script = "setsid sh -c 'sleep 600 & echo $!; exec sleep 600' &\nwait";
        let start = |mark: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).env(VARIABLE, mark).stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = shell.spawn().unwrap();
            let mut line = String::new();
            let stdout = child.stdout.take().unwrap();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
            child
        };
        let (mut one, mut two) = (start(&mark), start(&other));
        assert!(end(&mark) >= 3);
        one.wait().unwrap();
        // what is killed takes a moment to go
        let begin = std::time::Instant::now();
        while !marked(&mark).is_empty() && begin.elapsed().as_secs() < 10 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(marked(&mark).is_empty() && !marked(&other).is_empty());
        assert!(end(&other) >= 3);
        two.wait().unwrap();
    }
}
