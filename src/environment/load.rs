//! Foreign load: how busy the processors are with work that is not ours.
//!
//! In: `/proc/stat`, the process groups of our workers. Out: seconds of processor time that others used in a window, apart from what the
//! hypervisor took; whether the machine is quiet enough to begin. Must not: count a processor that this process may not use, or call a machine quiet that does
//! not say how busy it is.
//!
//! Busy time of the machine is counted in ticks of 10 ms, that of our processes finer; over a window of a second the difference is
//! good to a few hundredths of a processor.
//!
//! Before a run the machine is watched for a second. A busy one is waited for, at most 20 s (`ERGOMETER_WAIT`), then
//! warned about; with `--strict` that is exit code 3 and nothing is measured.

use std::fs;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::meters::cpu::{group, of_groups, own_seconds};

/// Processors busy with other work from which on a machine is too busy to begin: a tenth of a two-core machine.
pub const BUSY: f64 = 0.2;

/// Processors busy with other work from which on a case says so.
pub const NOTED: f64 = 0.1;

/// How long the machine is watched for one answer.
const WATCH: Duration = Duration::from_secs(1);

/// The shortest window of which a share of a processor is told: ten ticks.
pub const SHORTEST: f64 = 0.1;

/// Names the longest time, in seconds, for which `run`, `time` and `tune` wait for a busy machine.
pub const PATIENCE: &str = "ERGOMETER_WAIT";

/// Seconds of waiting where [`PATIENCE`] says nothing.
const DEFAULT_PATIENCE: f64 = 20.0;

/// Processor time since boot of the processors that this process may use, summed over them, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Busy {
    /// At work for anybody.
    seconds: f64,
    /// Wanted, and given to other guests by the hypervisor.
    stolen: f64,
}

impl Busy {
    fn now() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok();
        Self::of(&fs::read_to_string("/proc/stat").ok()?, allowed.as_ref())
    }

    /// Lines `cpu<N> user nice system idle iowait irq softirq steal guest guest_nice`; time of guests is in that of users already.
    pub fn of(stat: &str, allowed: Option<&CpuSet>) -> Option<Self> {
        let mut busy: Option<Self> = None;
        for line in stat.lines() {
            let Some((number, fields)) = line.strip_prefix("cpu").and_then(|rest| rest.split_once(' ')) else {
                continue;
            };
            // the first line, without a number, is the sum over all
            let Ok(cpu) = number.parse::<usize>() else { continue };
            if cpu >= CpuSet::MAX_CPU || allowed.is_some_and(|set| !set.is_set(cpu)) {
                continue;
            }
            let ticks: Vec<u64> = fields.split_ascii_whitespace().map_while(|f| f.parse().ok()).collect();
            let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
            let sum = busy.get_or_insert(Self { seconds: 0.0, stolen: 0.0 });
            sum.seconds += [user, nice, system, irq, softirq].iter().map(|t| *t as f64 / 100.0).sum::<f64>();
            sum.stolen += steal as f64 / 100.0;
        }
        // a sandbox that has the file but fills it with zeros says nothing
        busy.filter(|b| b.seconds > 0.0)
    }
}

/// Busy processor seconds since boot of the processors that this process may use; `None`: the system does not tell.
pub fn busy_seconds() -> Option<f64> {
    Busy::now().map(|busy| busy.seconds)
}

/// A window in which the machine is watched.
pub struct Watch {
    /// Of the workers at work, and of those that wait.
    groups: Vec<i32>,
    working: usize,
    busy: Option<Busy>,
    /// Processor time of this process, and of each group.
    own: f64,
    used: Vec<f64>,
    since: Instant,
}

/// What was seen in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interference {
    /// Its length.
    pub seconds: f64,
    /// Processor seconds that others used; a few ticks below 0 are possible.
    pub foreign: f64,
    /// Processor seconds that the hypervisor took.
    pub stolen: f64,
}

impl Interference {
    /// Processors that others kept busy, on average; none for a window too short to tell.
    pub fn processors(&self) -> Option<f64> {
        (self.seconds >= SHORTEST).then(|| (self.foreign / self.seconds).max(0.0))
    }

    /// Both windows as one.
    pub fn and(self, other: Self) -> Self {
        Self {
            seconds: self.seconds + other.seconds,
            foreign: self.foreign + other.foreign,
            stolen: self.stolen + other.stolen,
        }
    }
}

impl Watch {
    /// Begins one. This process and the groups of the workers at work are ours; those that wait are nobody's business but to be named.
    pub fn begin(working: &[u32], waiting: &[u32]) -> Self {
        // one that has ended has no group, and uses nothing
        let groups: Vec<i32> = working.iter().chain(waiting).map(|pid| group(*pid).unwrap_or(0)).collect();
        let (own, used) = (own_seconds(), of_groups(&groups));
        Self { own, used, busy: Busy::now(), since: Instant::now(), groups, working: working.len() }
    }

    /// Ends it: what was seen, `None` where the system does not tell, and the processor time of each worker that waited, with all of its
    /// group.
    pub fn end(self) -> (Option<Interference>, Vec<f64>) {
        let (busy, seconds) = (Busy::now(), self.since.elapsed().as_secs_f64());
        let used = of_groups(&self.groups);
        let mut used: Vec<f64> = used.iter().zip(&self.used).map(|(after, before)| (after - before).max(0.0)).collect();
        let waiting = used.split_off(self.working);
        let ours = own_seconds() - self.own + used.iter().sum::<f64>();
        let seen = self.busy.zip(busy).map(|(before, after)| Interference {
            seconds,
            foreign: after.seconds - before.seconds - ours,
            stolen: (after.stolen - before.stolen).max(0.0),
        });
        (seen, waiting)
    }
}

/// How the machine was before a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Before {
    /// Processors busy with other work; `None` where the system does not tell.
    pub foreign: Option<f64>,
    /// Processors that the hypervisor gave to others; likewise.
    pub stolen: Option<f64>,
    /// Seconds waited for it to rest.
    pub waited: f64,
}

impl Before {
    /// Why one should not measure now, if so.
    pub fn trouble(&self) -> Option<String> {
        match (self.foreign, self.stolen) {
            (Some(foreign), _) if foreign > BUSY => Some(format!("other programs use {}", processors(foreign))),
            (_, Some(stolen)) if stolen > BUSY => {
                Some(format!("other guests of this host take {}", processors(stolen)))
            }
            (Some(_), Some(_)) => None,
            _ => Some("the system does not say how busy it is".into()),
        }
    }
}

/// `1.9 processors`, as it is said of a load.
pub fn processors(load: f64) -> String {
    format!("{load:.1} processor{}", if (0.95..1.05).contains(&load) { "" } else { "s" })
}

/// Watches the machine for a moment, with nobody of ours at work.
pub fn observe(time: Duration) -> Before {
    let watch = Watch::begin(&[], &[]);
    std::thread::sleep(time);
    let (seen, _) = watch.end();
    Before { foreign: seen.and_then(|s| s.processors()), stolen: seen.map(|s| s.stolen / s.seconds), waited: 0.0 }
}

/// Watches the machine before a run, and waits for it to rest, at most as long as [`PATIENCE`] says. `say` is told that we wait.
pub fn wait_for_quiet(info: impl FnMut(&str)) -> Before {
    let patience = std::env::var(PATIENCE).ok().and_then(|t| t.parse::<f64>().ok());
    let patience = patience.filter(|p| p.is_finite() && *p >= 0.0).unwrap_or(DEFAULT_PATIENCE);
    let time = if patience > 0.0 { WATCH } else { WATCH / 4 };
    wait(patience.min(86_400.0), || observe(time), info)
}

fn wait(patience: f64, mut observe: impl FnMut() -> Before, mut info: impl FnMut(&str)) -> Before {
    let began = Instant::now();
    let mut before = observe();
    let known = before.foreign.is_some();
    if let Some(trouble) = before.trouble().filter(|_| known && patience > 0.0) {
        info(&format!("{trouble}: waiting up to {patience:.0} s for the machine to rest"));
        while before.trouble().is_some() && began.elapsed().as_secs_f64() < patience {
            before = observe();
        }
        before.waited = began.elapsed().as_secs_f64();
    }
    before
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::meters::cpu::process_seconds;

    const STAT: &str =
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 10 20 7 8 3 4 50 99 99\ncpu1 1000 0 0 7 8 0 0 0 0 0\nintr 5\n";

    fn only(cpus: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        cpus.iter().for_each(|cpu| set.set(*cpu));
        set
    }

    #[test]
    fn only_processors_that_we_may_use_count_and_waiting_is_not_work() {
        let busy = |set: Option<&CpuSet>| Busy::of(STAT, set).unwrap();
        assert_eq!(busy(Some(&only(&[0]))), Busy { seconds: 1.37, stolen: 0.5 });
        assert_eq!(busy(Some(&only(&[1]))), Busy { seconds: 10.0, stolen: 0.0 });
        assert!((busy(None).seconds - 11.37).abs() < 1e-9);
        assert_eq!(Busy::of(STAT, Some(&only(&[7]))), None, "nothing is known of it");
        assert_eq!(Busy::of("cpu0 0 0 0 0 0 0 0 0 0 0\n", None), None, "zeros of a sandbox are no quiet machine");
        assert_eq!(Busy::of("cpu0 1 2\n", None), None);
    }

    #[test]
    fn work_of_others_is_foreign_and_that_of_a_worker_s_group_is_not() {
        if Busy::now().is_none() {
            return;
        }
        use std::os::unix::process::CommandExt;
        // two loops, of which we call one a worker of ours
        let spin = || {
            let mut shell = Command::new("sh");
            shell.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).process_group(0).spawn().unwrap()
        };
        let (mut ours, mut theirs) = (spin(), spin());
        let (watch, other) = (Watch::begin(&[ours.id()], &[theirs.id()]), Watch::begin(&[ours.id(), theirs.id()], &[]));
        let before = [&ours, &theirs].map(|c| process_seconds(c.id()).unwrap());
        std::thread::sleep(Duration::from_millis(1200));
        let used = [&ours, &theirs].map(|c| process_seconds(c.id()).unwrap());
        let ((seen, waiting), (less, none)) = (watch.end(), other.end());
        let (seen, less) = (seen.unwrap(), less.unwrap());
        assert_eq!((waiting.len(), none.len()), (1, 0));
        for child in [&mut ours, &mut theirs] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // whatever else runs on this machine is in both windows; on a busy one the readings lie far apart
        let theirs = used[1] - before[1];
        assert!((waiting[0] / theirs - 1.0).abs() < 0.5, "{waiting:?}, {theirs} s used");
        let told = seen.foreign - less.foreign;
        assert!((told / theirs - 1.0).abs() < 0.5, "{told} s told, {theirs} s used: {seen:?} {less:?}");
        assert!(seen.foreign > 0.5 * theirs, "{seen:?}, {theirs} s of them by the loop");
    }

    #[test]
    fn a_busy_machine_is_waited_for_and_no_longer_than_asked() {
        let state = |foreign| Before { foreign, stolen: Some(0.0), waited: 0.0 };
        let mut loads = [Some(1.9), Some(1.0), Some(0.05)].into_iter();
        let mut said = Vec::new();
        let before = wait(60.0, || state(loads.next().unwrap()), |text| said.push(text.to_string()));
        assert_eq!((before.foreign, before.trouble(), said.len()), (Some(0.05), None, 1));
        assert!(said[0].contains("other programs use 1.9 processors") && said[0].contains("60 s"), "{said:?}");

        let calls = std::cell::Cell::new(0);
        let busy = || {
            calls.set(calls.get() + 1);
            state(Some(2.0))
        };
        assert!(wait(0.0, busy, |_| panic!("nothing is waited for")).trouble().is_some());
        assert_eq!(calls.get(), 1);
        // what the system does not tell is no quiet, and no reason to wait
        let before = wait(60.0, || state(None), |_| panic!("nothing can be waited for"));
        assert!(before.trouble().unwrap().contains("does not say"));
        let stolen = Before { foreign: Some(0.0), stolen: Some(0.7), waited: 0.0 };
        assert!(stolen.trouble().unwrap().contains("other guests"));
    }

    #[test]
    fn short_windows_tell_nothing_by_themselves_and_add_up() {
        let short = Interference { seconds: 0.06, foreign: 0.06, stolen: 0.0 };
        assert_eq!(short.processors(), None);
        assert_eq!(short.and(short).processors(), Some(1.0));
        assert_eq!(Interference { seconds: 1.0, foreign: -0.02, stolen: 0.0 }.processors(), Some(0.0));
        assert_eq!([0.96, 1.9].map(processors), ["1.0 processor", "1.9 processors"]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(cpu[0-9]{0,20}|[0-9 ]|.|\n|\\)){0,200}") {
            let _ = Busy::of(&text, None);
        }
    }
}
