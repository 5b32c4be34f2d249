//! Load beside a case: threads that work on something else while it is timed.
//!
//! In: how many. Out: a process that works until it is dropped. Must not: work while nothing is timed, or be taken for foreign load.
//!
//! The process is this program again (`ergometer worker --busy N`), in a group of its own, and dies with the harness. Each of its threads adds
//! up a buffer that is larger than most inner caches, again and again: it takes a processor, caches and some of the memory's bandwidth.

use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt;

/// Bytes that each thread goes through.
const BUFFER: usize = 4 << 20;

/// Threads at work; they end when it is dropped.
pub struct Background {
    child: Child,
    _listed: interrupt::Group,
}

impl Background {
    /// Starts so many threads; none: nothing is started.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn start(threads: u32) -> std::io::Result<Option<Self>> {
        if threads == 0 {
            return Ok(None);
        }
        let _gate = interrupt::gate();
        let mut program = Command::new(std::env::current_exe()?);
        program.args(["worker", "--parent", &std::process::id().to_string(), "--busy", &threads.to_string()]);
        let child =
            program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn()?;
        let listed = interrupt::group(child.id() as i32);
        Ok(Some(Self { child, _listed: listed }))
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Works with so many threads until the process is ended.
pub fn work(threads: u32) {
    let work = || {
        let mut buffer = vec![1u64; BUFFER / size_of::<u64>()];
        loop {
            let sum: u64 = black_box(&buffer).iter().fold(0, |sum, n| sum.wrapping_add(*n));
            buffer[0] = black_box(sum);
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
}
