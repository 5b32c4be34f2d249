//! A program's processes: the one that was started and all that come of it, those among them that have left their parents.
//!
//! In: the number of the first process. Out: processor time of all of them, the largest memory they had together. Must not: lose what an ended
//! process used, or count a process of somebody else.
//!
//! This process asks the kernel for the orphans among its descendants ([`crate::orphans::adopt`]), so that a daemon becomes our child and not that of
//! process 1, whatever group or session it has made for itself. What a child that was waited for has used is in its parent's account, so
//! that nothing is lost between two looks. Memory is not summed by the kernel: it is looked at, and what a process needs for a moment between
//! two looks is missed; of a process that is alive at two looks its own peak is seen whole.

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::meters::{cpu, memory};

/// Processes of this one that are no part of a program that is started after this.
pub fn own_children() -> BTreeSet<u32> {
    cpu::children_of(std::process::id()).unwrap_or_default().into_iter().collect()
}

/// See the module.
#[derive(Debug)]
pub struct ProcessTree {
    root: u32,
    /// Our children that are none of the tree.
    others: BTreeSet<u32>,
    /// Seconds of adopted processes that have ended.
    reaped: f64,
    /// Every process that was ever seen.
    seen: BTreeSet<u32>,
    /// Those that were looked at.
    looked: BTreeSet<u32>,
    /// Largest sum of resident bytes at one look, and how many processes it is of; largest peak of one process.
    together: (u64, usize),
    alone: u64,
}

impl ProcessTree {
    /// The tree of a process that has just been started; `others` are the children that we had before.
    pub fn new(root: u32, others: BTreeSet<u32>) -> Self {
        Self {
            root,
            others,
            reaped: 0.0,
            seen: BTreeSet::from([root]),
            looked: BTreeSet::new(),
            together: (0, 0),
            alone: 0,
        }
    }

    /// Looks at all processes; gives the seconds of processor time of all that were ever in the tree.
    pub fn look(&mut self) -> f64 {
        let adopted = self.adopted();
        let mut open = adopted.clone();
        open.push(self.root);
        let (mut seconds, mut resident, mut holding) = (self.reaped, 0, 0);
        let mut met = BTreeSet::new();
        while let Some(pid) = open.pop() {
            let Ok(own) = cpu::with_ended(pid) else { continue };
            if !met.insert(pid) {
                continue;
            }
            seconds += own;
            // what has ended and is not yet waited for has no memory; at a first look a process may not be its program yet
            let again = self.looked.contains(&pid);
            if let (true, Ok((now, peak))) = (again, memory::now_and_peak(pid)) {
                resident += now;
                holding += 1;
                self.alone = self.alone.max(peak);
            }
            open.extend(cpu::children_of(pid).unwrap_or_default());
            if adopted.contains(&pid) && buried(pid) {
                self.reaped += own;
            }
        }
        self.looked.extend(&met);
        self.seen.extend(met);
        self.together = self.together.max((resident, holding));
        seconds
    }

    /// Orphans of the tree, which are ours now.
    fn adopted(&self) -> Vec<u32> {
        let all = cpu::children_of(std::process::id()).unwrap_or_default();
        all.into_iter().filter(|pid| *pid != self.root && !self.others.contains(pid)).collect()
    }

    /// How many processes were seen.
    pub fn processes(&self) -> usize {
        self.seen.len()
    }

    /// The largest memory of all processes together that was seen, in bytes, and whether it is a sum over several, in which pages that they
    /// share count once for each. `None`: the program had ended before it was looked at.
    pub fn peak(&self) -> Option<(u64, bool)> {
        let (together, holding) = self.together;
        let most = together.max(self.alone);
        (most > 0).then_some((most, holding > 1 && together > self.alone))
    }

    /// Ends what the first process has left behind, once that has ended and been waited for. Gives how many processes there were.
    pub fn end(&mut self) -> usize {
        let mut ended = BTreeSet::new();
        // what starts others while it is ended is met again in the next round
        for _ in 0..100 {
            let left = self.adopted();
            if left.is_empty() {
                break;
            }
            for pid in left {
                if !buried(pid) {
                    ended.insert(pid);
                    if let Some(pid) = Pid::from_raw(pid as i32) {
                        let _ = kill_process(pid, Signal::KILL);
                    }
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        ended.len()
    }
}

/// Waits for a child of ours, if it has ended.
fn buried(pid: u32) -> bool {
    let pid = Pid::from_raw(pid as i32);
    matches!(waitpid(pid, WaitOptions::NOHANG), Ok(Some(_)) | Err(_))
}
