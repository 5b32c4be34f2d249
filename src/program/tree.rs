//! A program's processes: the one that was started and all that come of it, those among them that have left their parents.
//!
//! In: the number of the first process. Out: processor time of all of them, the largest memory they had together. Must not: lose what an ended
//! process used, or count a process of somebody else.
//!
//! This process is given the orphans among its descendants ([`crate::orphans::adopt`]), so that a daemon becomes our child and not that of
//! process 1, whatever group or session it has made for itself. What a child that was waited for has used is in its parent's account, in
//! ticks of 10 ms; what was seen of it before, to the nanosecond, is kept and is the least that this account may hold, so that no sum ever
//! goes down. Memory is not summed by the kernel: it is looked at, and what a process needs for a moment between two looks is missed; of a
//! process that is alive at a look its own peak is seen whole. (The kernel's `ru_maxrss` of a child holds the peak of whoever started it too,
//! which is us, and of a small program nothing else.)

use std::collections::{BTreeMap, BTreeSet};

use crate::meters::cpu::{self, Used};
use crate::meters::memory;
use crate::orphans;
use crate::processes::children_of;

/// Share of the page faults after the last look at memory from which on there is no peak.
const UNSEEN_MOST: f64 = 0.5;

/// A process: its number and when it began.
type Name = (u32, u64);

/// The largest memory that was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryPeak {
    /// Resident bytes of all processes together, or the most that one of them ever had.
    pub bytes: u64,
    /// Whether it is a sum over several, in which pages that they share count once for each.
    pub several: bool,
    /// Share of the page faults that came after memory was last looked at.
    pub unseen: f64,
}

/// What is known of a process.
#[derive(Clone, Copy, Debug)]
struct Known {
    parent: u32,
    /// Seconds of its own, as far as was seen.
    own: f64,
    /// Seconds of its children that have ended, at least.
    ended: f64,
}

/// What all processes have used, as far as was seen. Neither a sum nor any part of it goes down.
#[derive(Debug, Default)]
struct Account {
    known: BTreeMap<Name, Known>,
    /// Seconds of processes that have ended and are in no parent's account.
    gone: f64,
}

impl Account {
    /// Takes up what one look has met. Each process was read before its children were listed, so that no child that is met is in what its
    /// parent says of those that have ended. Gives the processes that are new.
    fn look(&mut self, met: &BTreeMap<Name, Used>) -> Vec<Name> {
        let new: Vec<Name> = met.keys().filter(|name| !self.known.contains_key(name)).copied().collect();
        for (name, used) in met {
            let known = self.known.entry(*name).or_insert(Known { parent: 0, own: 0.0, ended: used.ended });
            known.parent = used.stat.parent;
            known.own = known.own.max(used.own);
        }
        let mut over: BTreeSet<Name> = self.known.keys().filter(|name| !met.contains_key(name)).copied().collect();
        // children before their parents
        while let Some(name) =
            over.iter().find(|name| !over.iter().any(|other| other != *name && self.known[other].parent == name.0))
        {
            let name = *name;
            over.remove(&name);
            self.bury(name);
        }
        for name in over {
            self.bury(name);
        }
        for (name, used) in met {
            if let Some(known) = self.known.get_mut(name) {
                known.ended = known.ended.max(used.ended);
            }
        }
        new
    }

    /// What an ended process has used goes to its parent's account.
    fn bury(&mut self, name: Name) {
        let Some(Known { parent, own, ended }) = self.known.remove(&name) else { return };
        match self.known.iter_mut().find(|(other, _)| other.0 == parent) {
            Some((_, parent)) => parent.ended += own + ended,
            None => self.gone += own + ended,
        }
    }

    fn seconds(&self) -> f64 {
        self.gone + self.known.values().map(|known| known.own + known.ended).sum::<f64>()
    }
}

/// See the module.
#[derive(Debug)]
pub struct ProcessTree {
    root: u32,
    /// Our children that are none of the tree.
    others: BTreeSet<u32>,
    account: Account,
    /// How many processes were ever seen; those that nobody was told of yet.
    seen: usize,
    new: Vec<Name>,
    /// Largest sum of resident bytes at one look, and how many processes it is of; largest peak of one process.
    together: (u64, usize),
    alone: u64,
    /// Page faults when memory was last seen, at the last look, and of adopted processes that are gone.
    looked: u64,
    faults: u64,
    faults_gone: u64,
}

impl ProcessTree {
    /// The tree of a process that has just been started; `others` are the children that we had before.
    pub fn new(root: u32, others: BTreeSet<u32>) -> Self {
        let (account, new) = (Account::default(), Vec::new());
        Self { root, others, account, seen: 0, new, together: (0, 0), alone: 0, looked: 0, faults: 0, faults_gone: 0 }
    }

    /// Looks at all processes; gives the seconds of processor time of all that were ever in the tree.
    pub fn look(&mut self) -> f64 {
        let adopted = self.adopted();
        let mut open = adopted.clone();
        open.push(self.root);
        let (mut resident, mut holding) = (0, 0);
        let (mut met, mut numbers) = (BTreeMap::new(), BTreeSet::new());
        while let Some(pid) = open.pop() {
            // before its children are listed: see `Account::look`
            let Ok(used) = cpu::used(pid) else { continue };
            if !numbers.insert(pid) {
                continue;
            }
            met.insert((pid, used.stat.began), used);
            // what has ended and is not yet waited for has no memory
            if let Ok((now, peak)) = memory::now_and_peak(pid) {
                resident += now;
                holding += 1;
                self.alone = self.alone.max(peak);
            }
            open.extend(children_of(pid).unwrap_or_default());
        }
        let new = self.account.look(&met);
        let faults = met.values().map(|used| used.stat.faults).fold(self.faults_gone, u64::saturating_add);
        self.faults = self.faults.max(faults);
        for (name, used) in met.iter().filter(|((pid, _), used)| used.stat.over && adopted.contains(pid)) {
            self.account.bury(*name);
            orphans::bury(name.0);
            self.faults_gone = self.faults_gone.saturating_add(used.stat.faults);
        }
        self.seen += new.len();
        self.new.extend(new);
        self.together = self.together.max((resident, holding));
        if holding > 0 {
            self.looked = self.faults;
        }
        self.account.seconds()
    }

    /// Orphans of the tree, which are ours now.
    fn adopted(&self) -> Vec<u32> {
        orphans::children().into_iter().filter(|pid| *pid != self.root && !self.others.contains(pid)).collect()
    }

    /// How many processes were seen.
    pub fn processes(&self) -> usize {
        self.seen
    }

    /// Processes that were seen since this was last asked, each by its number and when it began.
    pub fn take_new(&mut self) -> Vec<Name> {
        std::mem::take(&mut self.new)
    }

    /// The largest memory that was seen.
    ///
    /// # Errors
    /// It was not looked at, or not late enough to know.
    pub fn peak(&self) -> Result<MemoryPeak, String> {
        let (together, holding) = self.together;
        let bytes = together.max(self.alone);
        if bytes == 0 {
            return Err("the command had ended before its memory was looked at".into());
        }
        // a program grows by page faults, however long it takes for one
        let unseen = (self.faults - self.looked) as f64 / self.faults.max(1) as f64;
        if unseen > UNSEEN_MOST {
            return Err(format!(
                "the command was too short: {:.0} % of its page faults, by which it grows, came after its memory was last looked at",
                100.0 * unseen
            ));
        }
        Ok(MemoryPeak { bytes, several: holding > 1 && together > self.alone, unseen })
    }

    /// Ends what the first process has left behind, once that has ended and been waited for. Gives how many processes there were.
    pub fn end(&mut self) -> usize {
        let ended = orphans::end_children(&self.others);
        orphans::bury_children(&self.others);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::Stat;

    fn met(processes: &[(u32, u32, f64, f64)]) -> BTreeMap<Name, Used> {
        let one = |&(pid, parent, own, ended): &(u32, u32, f64, f64)| {
            let stat = Stat { over: false, parent, group: 1, used: 0, ended: 0, faults: 0, began: 7 };
            ((pid, 7), Used { stat, own, ended })
        };
        processes.iter().map(one).collect()
    }

    #[test]
    fn what_was_seen_of_an_ended_process_is_never_forgotten() {
        let mut account = Account::default();
        assert_eq!(account.look(&met(&[(10, 1, 0.001, 0.0), (11, 10, 0.004, 0.0)])), [(10, 7), (11, 7)]);
        assert!((account.seconds() - 0.005).abs() < 1e-12);
        // it has ended, and its parent's account in whole ticks knows nothing of it
        assert!(account.look(&met(&[(10, 1, 0.001, 0.0)])).is_empty());
        assert!((account.seconds() - 0.005).abs() < 1e-12);
        // another one is seen at 8 ms and had used 12 when it was waited for: ticks show one of them and a half
        account.look(&met(&[(10, 1, 0.001, 0.0), (12, 10, 0.008, 0.0)]));
        account.look(&met(&[(10, 1, 0.001, 0.01)]));
        assert!((account.seconds() - 0.013).abs() < 1e-12, "{}", account.seconds());
        account.look(&met(&[(10, 1, 0.001, 0.02)]));
        assert!((account.seconds() - 0.021).abs() < 1e-12, "{}", account.seconds());
        // a number that comes again is another process; a thread that has ended does not take time away
        account.look(&met(&[(10, 1, 0.0005, 0.02), (12, 10, 0.001, 0.0)]));
        assert!((account.seconds() - 0.022).abs() < 1e-12, "{}", account.seconds());
    }

    #[test]
    fn a_family_that_ends_between_two_looks_goes_to_the_first_of_it() {
        let mut account = Account::default();
        account.look(&met(&[(10, 1, 0.001, 0.0), (11, 10, 0.002, 0.0), (12, 11, 0.004, 0.0), (13, 12, 0.008, 0.0)]));
        account.look(&met(&[(10, 1, 0.001, 0.0)]));
        assert!((account.seconds() - 0.015).abs() < 1e-12);
        // what it was all counted in shows it at last: nothing counts twice
        account.look(&met(&[(10, 1, 0.001, 0.02)]));
        assert!((account.seconds() - 0.021).abs() < 1e-12);
        account.look(&met(&[]));
        assert!((account.seconds() - 0.021).abs() < 1e-12 && account.known.is_empty());
    }

    #[test]
    fn a_peak_that_was_seen_too_early_is_none() {
        let mut tree = ProcessTree::new(0, BTreeSet::new());
        assert!(tree.peak().unwrap_err().contains("before its memory was looked at"));
        (tree.together, tree.alone, tree.looked, tree.faults) = ((4096, 1), 4096, 10, 60);
        let why = tree.peak().unwrap_err();
        assert!(why.contains("83 % of its page faults"), "{why}");
        tree.looked = 48;
        let peak = tree.peak().unwrap();
        assert!(peak.bytes == 4096 && !peak.several && (peak.unseen - 0.2).abs() < 1e-9, "{peak:?}");
    }
}
