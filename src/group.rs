//! A process group with a guard: whatever becomes of this process, what is in the group ends with it.
//!
//! In: a mark for what is started ([`crate::orphans`]). Out: a group to start processes in. Must not: end anything outside of the group.
//!
//! The leader of the group is this program again, asleep on a pipe whose other end this process alone holds. When that closes, however this
//! process has ended, the guard ends what carries the mark, what it was told of ([`GuardedGroup::tell`]), and then its group.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::interrupt;
use crate::orphans;

/// See the module. Dropping it kills every process of the group.
pub struct GuardedGroup {
    /// Not waited for before the group is killed: until then the kernel gives the group's number to nobody else.
    guard: Option<Child>,
    id: i32,
    /// It ends with an interrupted harness.
    listed: Option<interrupt::Group>,
}

impl GuardedGroup {
    /// A group whose guard ends, beside the group, what carries this mark.
    ///
    /// # Errors
    /// The guard cannot be started.
    pub fn start(mark: &str) -> std::io::Result<Self> {
        let mut guard = Command::new(std::env::current_exe()?);
        guard.env(orphans::VARIABLE, mark).args(["worker", "--parent", &std::process::id().to_string(), "--guard"]);
        // the guard's stdin ends when this process does, since no other has its other end
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let guard = guard.spawn()?;
        let id = guard.id() as i32;
        Ok(Self { id, guard: Some(guard), listed: Some(interrupt::group(id)) })
    }

    /// The group's number.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Tells the guard of processes that are to end with the group, each by its number and when it began.
    pub fn tell(&mut self, processes: &[(u32, u64)]) {
        let lines: String = processes.iter().map(|(pid, began)| format!("{pid} {began}\n")).collect();
        if let Some(stdin) = self.guard.as_mut().and_then(|guard| guard.stdin.as_mut()).filter(|_| !lines.is_empty()) {
            // a guard that is gone cannot be told; the group is ended here all the same
            let _ = stdin.write_all(lines.as_bytes());
        }
    }

    /// Kills every process of the group, once.
    pub fn kill(&mut self) {
        let Some(mut guard) = self.guard.take() else { return };
        if let Some(id) = rustix::process::Pid::from_raw(self.id) {
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
        let _ = guard.wait();
        self.listed = None;
    }
}

impl Drop for GuardedGroup {
    fn drop(&mut self) {
        self.kill();
    }
}
