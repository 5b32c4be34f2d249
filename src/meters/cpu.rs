//! Processor time of another process and of this one.
//!
//! In: a process id. Out: seconds of processor time, all threads, user and system; whether it has children, whose time is not in it. Must not: divide by examples or subtract a window.
//!
//! Two sources are joined, because neither is enough: `/proc/<pid>/stat` counts every thread that ever lived, but in ticks (10 ms) of
//! user and of system time; `/proc/<pid>/task/*/schedstat` counts nanoseconds, but forgets threads that have ended. Both are lower
//! bounds of the same sum, so the larger one is right to the nanosecond while no thread has ended, and never more than
//! two ticks low.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use rustix::time::{ClockId, clock_gettime};

use super::{Meter, MeterOptions, ProbedMeter};
use crate::backends::Unavailable;
use crate::processes::{Stat, children_of};

/// Processor time of a process.
pub const METER: Meter = Meter {
    name: "cpu",
    about: "processor time of the worker and of the harness, from the kernel's scheduler",
    metrics: &["cpu_time", "harness_cpu"],
    estimate: false,
    probe,
};

/// Ticks a second in `/proc`: `USER_HZ`, part of Linux' interface and 100 on every architecture that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The most, in seconds, that [`process_seconds`] can be low once a thread has ended: a tick each of user and system time.
pub const RESOLUTION: f64 = 2.0 / TICKS_PER_SECOND;

/// Seconds of processor time that a process has used since it began. Its children are not in it.
///
/// # Errors
/// The process has ended, or `/proc` cannot be read.
pub fn process_seconds(pid: u32) -> io::Result<f64> {
    Ok(used(pid)?.own)
}

/// Children of a process: those alive now, and the processor time of those that have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Children {
    /// How many there are now; those that have left their parent are not counted.
    pub alive: usize,
    /// Ticks (10 ms) of those that have ended and were waited for.
    ended: u64,
}

impl Children {
    /// Whether there is a child now, or one has ended since `before` and used processor time.
    pub fn any_since(self, before: Self) -> bool {
        self.alive > 0 || self.ended > before.ended
    }
}

/// Children of a process, whichever of its threads started them.
///
/// # Errors
/// As [`process_seconds`].
pub fn children(pid: u32) -> io::Result<Children> {
    let ended = Stat::of(pid)?.ended;
    Ok(Children { alive: children_of(pid)?.len(), ended })
}

/// What a process has used, from one look at it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Used {
    /// Its state then.
    pub stat: Stat,
    /// Seconds of processor time of its own.
    pub own: f64,
    /// Seconds of those of its children that have ended and were waited for, in whole ticks.
    pub ended: f64,
}

/// What a process has used since it began, and its children that have ended.
///
/// # Errors
/// As [`process_seconds`].
pub fn used(pid: u32) -> io::Result<Used> {
    let stat = Stat::of(pid)?;
    // a kernel without schedstat leaves the ticks
    let own = (stat.used as f64 / TICKS_PER_SECOND).max(thread_seconds(pid).unwrap_or(0.0));
    Ok(Used { stat, own, ended: stat.ended as f64 / TICKS_PER_SECOND })
}

/// Seconds of processor time of this process, all its threads, to the nanosecond.
pub fn own_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds for which the kernel has made the first thread of a process wait for a processor since it began; 0 where it does not say.
pub fn waited(pid: u32) -> f64 {
    waited_in(&format!("/proc/{pid}/schedstat"))
}

/// The same of the thread that asks.
pub fn own_waited() -> f64 {
    waited_in("/proc/thread-self/schedstat")
}

fn waited_in(file: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_ascii_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) as f64 * 1e-9
}

/// Sum over the threads that live.
fn thread_seconds(pid: u32) -> io::Result<f64> {
    let mut nanoseconds = 0u64;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanoseconds = nanoseconds.saturating_add(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0));
    }
    Ok(nanoseconds as f64 * 1e-9)
}

/// Seconds of processor time of all processes of each of these groups, children that ended included; 0 for a group without processes.
pub fn of_groups(groups: &[i32]) -> Vec<f64> {
    let mut seconds = vec![0.0; groups.len()];
    if groups.is_empty() {
        return seconds;
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = Stat::of(pid) else { continue };
        if let Some(i) = groups.iter().position(|g| *g == stat.group) {
            seconds[i] += stat.ended as f64 / TICKS_PER_SECOND + process_seconds(pid).unwrap_or(0.0);
        }
    }
    seconds
}

/// The process group of a process.
pub fn group(pid: u32) -> Option<i32> {
    Stat::of(pid).ok().map(|s| s.group)
}

fn probe(_: &MeterOptions) -> Result<ProbedMeter, Unavailable> {
    let unavailable =
        |reason: String| Unavailable { reason, hint: Some("processor time needs Linux with /proc mounted".into()) };
    let own = std::process::id();
    let before = own_seconds();
    let seen = process_seconds(own).map_err(|e| unavailable(format!("/proc/{own}/stat: {e}")))?;
    let after = own_seconds();
    // Threads that run right now are counted at the scheduler's next tick.
    if seen > after + 1e-3 || seen < before - 0.1 - RESOLUTION {
        let reason = format!("/proc says {seen:.3} s of processor time, the clock {before:.3} to {after:.3} s");
        return Err(unavailable(reason));
    }
    let fine = thread_seconds(own).is_ok_and(|s| s > 0.0);
    let ticks = format!("{:.0} ms", RESOLUTION * 1e3);
    let resolution = if fine { format!("1 ns; {ticks} once a thread of the worker has ended") } else { ticks };
    Ok(ProbedMeter { resolution, source: None, facts: BTreeMap::new(), estimate: false })
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::super::respawn::{self, Respawned};
    use super::*;
    use crate::processes::with_parent;

    /// Uses this many seconds of processor time, however long a busy machine takes to give them.
    fn busy(seconds: f64) {
        let begin = own_seconds();
        let mut x = 0u64;
        while own_seconds() < begin + seconds {
            x = black_box(x.wrapping_mul(3) + 1);
        }
    }

    #[test]
    fn another_process_is_read_to_the_resolution_and_its_ended_threads_are_not_lost() {
        let test = "meters::cpu::tests::another_process_is_read_to_the_resolution_and_its_ended_threads_are_not_lost";
        if respawn::is_child(test) {
            respawn::send(&own_seconds().to_string());
            std::thread::spawn(|| busy(0.12)).join().unwrap();
            respawn::send(&own_seconds().to_string());
            return;
        }
        let mut child = Respawned::start(test);
        let first: f64 = child.receive().parse().unwrap();
        let seen = process_seconds(child.id()).unwrap();
        // It has used a little more since it looked at its clock.
        assert!((first - RESOLUTION..first + 0.05).contains(&seen), "{seen} s seen, {first} s by its own clock");
        child.go();
        let second: f64 = child.receive().parse().unwrap();
        let seen_then = process_seconds(child.id()).unwrap();
        assert!(
            (second - RESOLUTION..second + 0.05).contains(&seen_then),
            "{seen_then} s seen, {second} s by its own clock"
        );
        assert!(second - first > 0.12, "the thread was busy: {first} to {second} s");
        child.end();
        assert!(process_seconds(child.id()).is_err(), "a process that has ended has no time, not zero seconds");
    }

    #[test]
    fn children_are_seen_while_they_live_and_once_they_were_waited_for() {
        let test = "meters::cpu::tests::children_are_seen_while_they_live_and_once_they_were_waited_for";
        if respawn::is_child(test) {
            respawn::send("alone");
            let mut shell = std::process::Command::new("sh")
                .args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; read wait"])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            respawn::send("parent");
            // closes its input, which lets it end
            shell.wait().unwrap();
            respawn::send("childless");
            return;
        }
        let mut child = Respawned::start(test);
        child.receive();
        let before = children(child.id()).unwrap();
        assert!(before.alive == 0 && !before.any_since(before), "{before:?}");
        assert!(with_parent(child.id()).unwrap().is_empty());
        child.go();
        child.receive();
        let now = children(child.id()).unwrap();
        assert!(now.alive == 1 && now.any_since(before), "{now:?}");
        let listed = children_of(child.id()).unwrap();
        assert_eq!(with_parent(child.id()).unwrap(), listed, "a kernel that lists no children is asked for parents");
        child.go();
        child.receive();
        let after = children(child.id()).unwrap();
        assert!(after.alive == 0 && after.any_since(before), "{after:?}");
        child.end();
    }

    #[test]
    fn this_process_is_believed() {
        assert!(probe(&MeterOptions::default()).is_ok());
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(process_seconds(u32::MAX - 1).is_err());
    }
}
