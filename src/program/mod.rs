//! A program of anybody's, metered from outside: started, watched with all that it starts, heard for marks, and ended.
//!
//! In: a command, the meters. Out: what one run of it took ([`MeteredRun`]). Must not: charge what was before a program's marks to what lies between
//! them, put a number where a reading is missing, or leave a process behind.
//!
//! The program has its own standard input (empty, or a file), its outputs are read here, and a pipe for marks is open in it under the number
//! that [`marks::VARIABLE`] names. Times are by this process's clock: a mark counts when it is heard.

pub mod marks;
pub mod summary;
mod tree;
pub mod words;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use self::marks::{Edge, Marked};
use self::tree::ProcessTree;
use crate::environment::load;
use crate::group::GuardedGroup;
use crate::meters::{MeterReading, Meters, cpu};
use crate::processes::Stat;
use crate::{foreign, interrupt, orphans, pipe};

pub use self::tree::MemoryPeak;

/// Longest time between two looks at the processes, and the shortest, at the beginning.
const LOOK: Duration = Duration::from_millis(20);
const FIRST_LOOK: Duration = Duration::from_millis(1);

/// The longest line that is looked through for a mark.
const MAX_LINE: usize = 4096;

/// How to run it.
#[derive(Clone, Debug)]
pub struct MeteredProgram {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// Its standard input; none: empty.
    pub input: Option<PathBuf>,
    /// It is ended after so long.
    pub timeout: Option<Duration>,
    /// What it prints is shown on stderr.
    pub show: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By us, after the time it was given.
    Timeout,
}

impl End {
    fn of(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match status.signal() {
            Some(signal) => Self::Signal(signal),
            None => Self::Code(status.code().unwrap_or(-1)),
        }
    }
}

/// J of one energy metric in one run, and the most that edges can put in or take away.
pub type Joules = Result<(f64, f64), String>;

/// What one run took.
#[derive(Clone, Debug)]
pub struct MeteredRun {
    /// How it ended.
    pub end: End,
    /// Seconds from just before it was started to its end.
    pub wall: f64,
    /// Seconds of processor time of all its processes.
    pub cpu: f64,
    /// Largest resident memory of all its processes together, or why that is not known.
    pub memory: Result<MemoryPeak, String>,
    /// Processes that were seen.
    pub processes: usize,
    /// Processes that were left when the first one had ended, and were ended.
    pub left: usize,
    /// J of the whole run, by metric.
    pub energy: BTreeMap<&'static str, Joules>,
    /// What its marks say, with processor seconds and energy inside of the windows; `None`: it wrote none.
    pub marked: Option<Result<InWindows, String>>,
    /// What readers of the energy must know.
    pub notes: Vec<String>,
    /// Processor seconds of this process meanwhile.
    pub harness_cpu: f64,
    /// Processors that others kept busy, on average; none for a run too short to tell.
    pub foreign: Option<f64>,
    /// The last of what it wrote to stderr.
    pub words: String,
}

/// What was metered between marks.
#[derive(Clone, Debug)]
pub struct InWindows {
    /// Seconds and counts.
    pub sums: Marked,
    /// Processor seconds of all processes.
    pub cpu: f64,
    /// J by metric.
    pub energy: BTreeMap<&'static str, Joules>,
}

/// Two sets of meters: one for whole runs, one for what lies between marks.
pub struct Both {
    /// For whole runs.
    pub whole: Meters,
    /// For windows between marks.
    pub marked: Meters,
}

impl Both {
    fn tick(&mut self, open: bool) {
        self.whole.tick();
        if open {
            self.marked.tick();
        }
    }
}

/// Adds readings of one more window up; one that is missing takes the sum with it.
fn add(sums: &mut BTreeMap<&'static str, Joules>, readings: Vec<MeterReading>, notes: &mut Vec<String>) {
    for MeterReading { metric, value, resolution, note } in readings {
        notes.extend(note.filter(|n| !notes.contains(n)));
        // a window has two edges
        let value = value.map(|joules| (joules, 2.0 * resolution));
        match (sums.get_mut(metric), value) {
            (None, value) => drop(sums.insert(metric, value)),
            (Some(Ok(sum)), Ok((joules, edges))) => *sum = (sum.0 + joules, sum.1 + edges),
            (Some(sum @ Ok(_)), Err(why)) => *sum = Err(why),
            (Some(Err(_)), _) => {}
        }
    }
}

impl MeteredProgram {
    /// Runs it once.
    ///
    /// # Errors
    /// It cannot be started; the words tell why.
    pub fn run(&self, meters: &mut Both) -> anyhow::Result<MeteredRun> {
        let mut running = Running::start(self)?;
        meters.whole.start();
        let ended = running.watch(self, meters);
        let wall = running.began.elapsed().as_secs_f64();
        // before it is waited for, since what it used is forgotten then
        let cpu = running.look();
        let readings = meters.whole.stop();
        let harness_cpu = cpu::own_seconds() - running.own;
        let busy = load::busy_seconds().zip(running.busy).map(|(after, before)| after - before - cpu - harness_cpu);
        let foreign = busy.filter(|_| wall >= load::SHORTEST).map(|seconds| (seconds / wall).max(0.0));
        if running.open.take().is_some() {
            meters.marked.stop();
        }
        let status = running.bury()?;
        let left = running.tree.end();
        let (mut energy, mut notes) = (BTreeMap::new(), std::mem::take(&mut running.notes));
        add(&mut energy, readings, &mut notes);
        let windows =
            InWindows { sums: Marked::default(), cpu: running.cpu, energy: std::mem::take(&mut running.energy) };
        let marked = std::mem::take(&mut running.marked).finish();
        Ok(MeteredRun {
            end: if ended { End::of(status) } else { End::Timeout },
            wall,
            cpu,
            memory: running.tree.peak(),
            processes: running.tree.processes(),
            left,
            energy,
            marked: marked.map(|sums| sums.map(|sums| InWindows { sums, ..windows })),
            notes,
            harness_cpu,
            foreign,
            words: foreign::gist(&String::from_utf8_lossy(&running.words), 600),
        })
    }
}

/// One of a program's outputs, read line by line.
struct Heard {
    from: File,
    line: Vec<u8>,
    over: bool,
}

impl Heard {
    fn new(from: impl Into<OwnedFd>) -> std::io::Result<Self> {
        let from = File::from(from.into());
        pipe::unblock(from.as_fd())?;
        Ok(Self { from, line: Vec::new(), over: false })
    }

    /// Reads what is there, so many bytes at most; `each` is given every line, of a long one the beginning.
    fn read(&mut self, mut raw: impl FnMut(&[u8]), mut each: impl FnMut(&[u8])) {
        let mut chunk = [0u8; 16384];
        // bounded, so that one that prints for ever does not keep us from looking
        for _ in 0..8 {
            match self.from.read(&mut chunk) {
                Ok(0) => {
                    self.over = true;
                    if !self.line.is_empty() {
                        each(&std::mem::take(&mut self.line));
                    }
                    return;
                }
                Ok(n) => {
                    raw(&chunk[..n]);
                    for part in chunk[..n].split_inclusive(|b| *b == b'\n') {
                        let room = MAX_LINE.saturating_sub(self.line.len()).min(part.len());
                        self.line.extend_from_slice(&part[..room]);
                        if part.ends_with(b"\n") {
                            each(&self.line);
                            self.line.clear();
                        }
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.over = true;
                    return;
                }
            }
        }
    }
}

/// A program at work.
struct Running {
    child: Child,
    group: GuardedGroup,
    mark: String,
    /// Readable once the program has ended; none where the system has no such thing.
    pidfd: Option<OwnedFd>,
    began: Instant,
    /// Processor seconds of this process, and of the machine, when it began.
    own: f64,
    busy: Option<f64>,
    tree: ProcessTree,
    /// The pipe for marks, stdout and stderr.
    heard: [Heard; 3],
    marked: Marked,
    /// Processor seconds when the open window began.
    open: Option<f64>,
    /// Processor seconds and J in windows that are closed.
    cpu: f64,
    energy: BTreeMap<&'static str, Joules>,
    notes: Vec<String>,
    words: Vec<u8>,
}

impl Running {
    fn start(program: &MeteredProgram) -> anyhow::Result<Self> {
        let _gate = interrupt::gate();
        let Some((name, arguments)) = program.words.split_first() else {
            anyhow::bail!("no command\nhint: put it after `--`, as in `ergometer meter -- sleep 1`");
        };
        let mark = orphans::mark();
        let group = GuardedGroup::start(&mark)?;
        let mut command = Command::new(name);
        command.args(arguments).env(orphans::VARIABLE, &mark).process_group(group.id());
        match &program.input {
            None => command.stdin(Stdio::null()),
            Some(path) => {
                let file = File::open(path).map_err(|e| {
                    anyhow::anyhow!("cannot read `{}`: {e}\nhint: `--input` names a file", path.display())
                })?;
                command.stdin(file)
            }
        };
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // our end is closed to whatever we start, theirs is open in it under this number
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::fcntl_setfd(&write, FdFlags::empty())?;
        command.env(marks::VARIABLE, write.as_raw_fd().to_string());
        let others = orphans::children();
        let busy = load::busy_seconds();
        let (own, began) = (cpu::own_seconds(), Instant::now());
        let mut child = command.spawn().map_err(|e| anyhow::anyhow!("{}", refusal(name, &e)))?;
        drop(write);
        let tree = ProcessTree::new(child.id(), others);
        let pidfd = Pid::from_raw(child.id() as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            anyhow::bail!("the command has no pipes");
        };
        let heard = [Heard::new(read)?, Heard::new(stdout)?, Heard::new(stderr)?];
        Ok(Self {
            child,
            group,
            mark,
            pidfd,
            began,
            own,
            busy,
            tree,
            heard,
            marked: Marked::default(),
            open: None,
            cpu: 0.0,
            energy: BTreeMap::new(),
            notes: Vec::new(),
            words: Vec::new(),
        })
    }

    /// Looks at its processes; the guard is told of those that are new. Gives their processor seconds.
    fn look(&mut self) -> f64 {
        let seconds = self.tree.look();
        self.group.tell(&self.tree.take_new());
        seconds
    }

    /// Looks and listens until the program has ended; whether it did so by itself.
    fn watch(&mut self, program: &MeteredProgram, meters: &mut Both) -> bool {
        let deadline = program.timeout.map(|time| self.began + time);
        let ticks = meters.whole.tick_interval();
        let (mut every, mut looked, mut ticked) = (FIRST_LOOK, Instant::now(), Instant::now());
        self.look();
        loop {
            let mut wait = every.saturating_sub(looked.elapsed());
            if let Some(tick) = ticks {
                wait = wait.min(tick.saturating_sub(ticked.elapsed()));
            }
            if self.pidfd.is_none() {
                wait = wait.min(FIRST_LOOK);
            }
            let mut of: Vec<PollFd> = self.pidfd.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            of.extend(self.heard.iter().filter(|h| !h.over).map(|h| PollFd::new(&h.from, PollFlags::IN)));
            pipe::wait(&mut of, wait);
            self.hear(program, meters);
            if self.has_ended() {
                // what it wrote between our reading and its end
                self.hear(program, meters);
                return true;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            if ticks.is_some_and(|tick| ticked.elapsed() >= tick) {
                meters.tick(self.open.is_some());
                ticked = Instant::now();
            }
            if looked.elapsed() >= every {
                self.look();
                looked = Instant::now();
                every = (2 * every).min(LOOK);
            }
        }
    }

    /// Whether the first process has ended; it is not waited for yet.
    fn has_ended(&self) -> bool {
        match &self.pidfd {
            Some(fd) => pipe::wait_to_read(fd, Duration::ZERO),
            None => Stat::of(self.child.id()).map_or(true, |stat| stat.over),
        }
    }

    /// Reads the outputs; marks open and close windows.
    fn hear(&mut self, program: &MeteredProgram, meters: &mut Both) {
        let at = self.began.elapsed().as_secs_f64();
        let mut found = Vec::new();
        for (i, heard) in self.heard.iter_mut().enumerate().filter(|(_, h)| !h.over) {
            let words = &mut self.words;
            heard.read(
                |bytes| {
                    if i == 2 {
                        words.extend_from_slice(bytes);
                        let over = words.len().saturating_sub(foreign::MAX_WORDS);
                        words.drain(..over);
                    }
                    if program.show && i > 0 {
                        crate::console::warn(String::from_utf8_lossy(bytes).trim_end_matches('\n'));
                    }
                },
                // the pipe and stdout: what goes to stderr is for people
                |line| found.extend(marks::parse(line).filter(|_| i < 2)),
            );
        }
        for mark in found {
            match self.marked.heard(&mark, at) {
                Edge::Open => {
                    self.open = Some(self.look());
                    meters.marked.start();
                }
                Edge::Close => {
                    let readings = meters.marked.stop();
                    let since = self.open.take().unwrap_or_default();
                    // sums of the same numbers may differ in their last digit
                    self.cpu += (self.look() - since).max(0.0);
                    add(&mut self.energy, readings, &mut self.notes);
                }
                Edge::None => {}
            }
        }
    }

    /// Waits for the first process, which has ended or is ended here.
    fn bury(&mut self) -> anyhow::Result<ExitStatus> {
        if !self.has_ended() {
            self.group.kill();
            let _ = self.child.kill();
        }
        Ok(self.child.wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.group.kill();
        let _ = self.child.kill();
        let _ = self.child.wait();
        orphans::end(&self.mark);
        self.tree.end();
    }
}

/// Why a command could not be started, and what to do.
fn refusal(name: &str, error: &std::io::Error) -> String {
    let hint = match error.kind() {
        ErrorKind::NotFound if name.contains('/') => "there is no such file; check its path".to_string(),
        ErrorKind::NotFound if name.contains(' ') => format!(
            "there is no program of this name on the PATH; give its arguments as words of their own, or use `sh -c {}`",
            interrupt::shell(&[name.to_string()])
        ),
        ErrorKind::NotFound => {
            "there is no program of this name on the PATH; check its spelling, or give its path".to_string()
        }
        ErrorKind::PermissionDenied => "the file cannot be executed; `chmod +x` makes a program of it".to_string(),
        _ => "see whether the command runs in a shell".to_string(),
    };
    format!("cannot start `{name}`: {error}\nhint: {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missing_window_takes_the_sum_with_it() {
        let reading = |value: Result<f64, String>| MeterReading {
            metric: "energy_cpu",
            value,
            resolution: 0.5,
            note: Some("said".into()),
        };
        let (mut sums, mut notes) = (BTreeMap::new(), Vec::new());
        add(&mut sums, vec![reading(Ok(3.0))], &mut notes);
        add(&mut sums, vec![reading(Ok(4.0))], &mut notes);
        assert_eq!(sums["energy_cpu"], Ok((7.0, 2.0)));
        assert_eq!(notes, ["said"]);
        add(&mut sums, vec![reading(Err("reset".into()))], &mut notes);
        add(&mut sums, vec![reading(Ok(4.0))], &mut notes);
        assert_eq!(sums["energy_cpu"], Err("reset".into()));
    }

    #[test]
    fn long_lines_are_cut_and_none_is_lost() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut heard = Heard::new(read).unwrap();
        std::io::Write::write_all(
            &mut File::from(write),
            format!("a\n{}\nergometer:end", "x".repeat(10_000)).as_bytes(),
        )
        .unwrap();
        let mut lines = Vec::new();
        while !heard.over {
            heard.read(|_| {}, |line| lines.push(line.len()));
        }
        assert_eq!(lines, [2, MAX_LINE, 13]);
    }

    #[test]
    fn what_cannot_be_started_has_a_remedy() {
        let said = |name: &str, kind| refusal(name, &std::io::Error::from(kind));
        assert!(said("a b", ErrorKind::NotFound).contains("sh -c 'a b'"));
        assert!(said("./a", ErrorKind::NotFound).contains("check its path"));
        assert!(said("a", ErrorKind::PermissionDenied).contains("chmod"));
    }
}
