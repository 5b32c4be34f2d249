//! Processes that have left the group in which they were started: a daemon that a worker, or a library, has made of itself.
//!
//! In: a mark, put into the environment of every process that is started here and inherited by all that it starts. Out: those that carry it
//! are killed. Must not: end anything that does not carry the mark. A process that starts another with an empty environment hides it from
//! here; the kernel's word for what such a process uses is foreign load.
//!
//! A worker's group is killed by the harness at the end of its case, and by the guard (`ergometer worker --guard`,
//! which sleeps on a pipe whose other end only the harness holds) when the harness ends in any other way. `setsid`
//! escapes both, and this mark is how such a process is found; the case then has a note.

use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process, set_child_subreaper};

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

/// Kills what carries this mark, or one that was made from it; not this process itself. Gives their number.
pub fn end(mark: &str) -> usize {
    let mut ended = std::collections::BTreeSet::new();
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

/// Whether orphans among our descendants become our children ([`adopt`]).
static ADOPTED: AtomicBool = AtomicBool::new(false);

/// Makes the orphans among our descendants our children from now on, whatever group, session or environment they have.
///
/// # Errors
/// The system has no such thing.
pub fn adopt() -> std::io::Result<()> {
    set_child_subreaper(Pid::from_raw(std::process::id() as i32))?;
    ADOPTED.store(true, Ordering::Relaxed);
    Ok(())
}

/// As this process is about to end: kills all children of it, and those that become its children by that, where it has adopted them.
pub fn end_children() {
    // what starts others while it is ended is met again in the next round; who waits for a child does so elsewhere
    for _ in 0..100 {
        let children = if ADOPTED.load(Ordering::Relaxed) { children() } else { Vec::new() };
        let alive: Vec<Pid> = children.into_iter().filter(|pid| !has_ended(*pid)).collect();
        if alive.is_empty() {
            break;
        }
        for pid in alive {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Whether a process is gone, but for its entry.
fn has_ended(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.map_or(true, |stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

/// Children of this process, of all its threads.
fn children() -> Vec<Pid> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace().filter_map(|n| Pid::from_raw(n.parse().ok()?)).collect::<Vec<_>>()
        })
        .collect()
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
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(marked(&mark).is_empty() && !marked(&other).is_empty());
        assert!(end(&other) >= 3);
        two.wait().unwrap();
    }
}
