//! A foreign library at work in a process of its own: one that crashes, hangs, prints or ends its process does so there.
//!
//! In: the name of what is to be done there (`ergometer worker --foreign NAME`), requests. Out: answers within a time limit, or a sentence
//! on what became of that process. Must not: load a library in this process, or wait for anything without a limit.
//!
//! The two talk over a socket that is the child's stdin, one JSON value a line. Its stdout and stderr are the library's, and their last
//! words are kept for the message. The child leads a process group, which is killed with it; where the harness ends first, a thread of the
//! child sees the socket close and kills the group.
//!
//! `backends::probe` asks such a child before any worker is started, `meters/nvml/apart.rs` keeps one for the whole
//! run, and `ergometer parity` runs in a child as a whole. In a worker, which loads its library itself, stdout is put
//! aside for the protocol before the library can print on it.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, getpgrp, getpid, kill_current_process_group, kill_process_group};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::orphans;
use crate::pipe::{self, wait};

/// The variable that gives slow libraries more time, in seconds.
pub const SECONDS: &str = "ERGOMETER_LIBRARY_SECONDS";
/// How long a library may take to load and answer unless [`SECONDS`] says otherwise.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest line of either side.
const MAX_LINE: usize = 1 << 20;
/// Bytes of a process's last words that are looked at, and of a library's that are shown.
pub const MAX_WORDS: usize = 8192;
const SHOWN: usize = 400;
/// How often a silent child is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a killed child may take to go; one that the kernel cannot end (a hung driver) is left behind.
const LAST: Duration = Duration::from_secs(1);

/// How long a library may take to load and answer.
pub fn limit() -> Duration {
    let told = std::env::var(SECONDS).ok().and_then(|text| text.trim().parse::<f64>().ok());
    told.filter(|s| (0.1..=3600.0).contains(s)).map_or(LIMIT, Duration::from_secs_f64)
}

/// One end of the socket.
pub struct Channel {
    stream: UnixStream,
    received: Vec<u8>,
}

/// What came of listening.
pub enum Received {
    /// A whole line.
    Line(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The other side is gone, or sends lines without an end.
    Over,
}

impl Channel {
    fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// The child's end: its stdin. Call it once, at the start of the process.
    ///
    /// # Errors
    /// Stdin is no socket.
    pub fn of_child() -> anyhow::Result<Self> {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
        let stream = UnixStream::from(stdin);
        stream.peer_addr()?;
        anyhow::ensure!(getpgrp() == getpid(), "a process for a library leads its process group");
        let watched = stream.try_clone()?;
        std::thread::spawn(move || {
            // woken by the other end's closing alone, however the library holds the other thread
            while poll(&mut [PollFd::new(&watched, PollFlags::empty())], None).is_err() {}
            let _ = kill_current_process_group(Signal::KILL);
        });
        Ok(Self::new(stream)?)
    }

    /// Sends a value.
    pub fn send(&mut self, value: &impl Serialize, within: Duration) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        pipe::write_all(&mut self.stream, &line, within, within, || Ok(()))
    }

    /// What has come so far, without waiting.
    fn take(&mut self) -> Received {
        loop {
            if let Some(end) = self.received.iter().position(|&b| b == b'\n') {
                let line = self.received.drain(..=end).collect();
                return Received::Line(line);
            }
            if self.received.len() > MAX_LINE {
                return Received::Over;
            }
            let mut chunk = [0u8; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Received::Over,
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Received::Nothing,
                Err(_) => return Received::Over,
            }
        }
    }

    /// The next line, waited for so long (`None`: until the other side is gone).
    pub fn receive(&mut self, within: Option<Duration>) -> Received {
        let begin = Instant::now();
        loop {
            match self.take() {
                Received::Nothing => {}
                heard => return heard,
            }
            let left = within.map(|within| within.saturating_sub(begin.elapsed()));
            if left == Some(Duration::ZERO) {
                return Received::Nothing;
            }
            wait(&mut [PollFd::new(&self.stream, PollFlags::IN)], left.unwrap_or(Duration::from_secs(3600)));
        }
    }
}

/// A child with a library.
pub struct Foreign {
    child: Child,
    /// In the environment of all that it starts.
    mark: String,
    channel: Channel,
    /// What the library prints, while it may print.
    prints: Option<ChildStdout>,
    words: Vec<u8>,
    status: Option<ExitStatus>,
    gone: bool,
}

impl Foreign {
    /// Starts a child that does what `name` says, with these environment variables.
    ///
    /// # Errors
    /// No process can be started.
    pub fn start(name: &str, environment: &[(&str, String)]) -> Result<Self, String> {
        let fail = |e: std::io::Error| format!("cannot start a process for the library: {e}");
        let (own, theirs) = UnixStream::pair().map_err(fail)?;
        let mut program = this(&["--foreign", name]).map_err(fail)?;
        let mark = orphans::mark();
        program.envs(environment.iter().map(|(k, v)| (k, v))).env(orphans::VARIABLE, &mark).process_group(0);
        program.stdin(OwnedFd::from(theirs));
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| fail(e.into()))?;
        program.stdout(write.try_clone().map_err(fail)?).stderr(write);
        let child = program.spawn().map_err(fail)?;
        crate::console::detail(|| format!("start process {}: the library of {name}, tried apart", child.id()));
        // the command holds the other ends of socket and pipe, whose closing tells us of the child's end
        drop(program);
        pipe::unblock(read.as_fd()).map_err(fail)?;
        let channel = Channel::new(own).map_err(fail)?;
        let prints = Some(ChildStdout::from(read));
        Ok(Self { child, mark, channel, prints, words: Vec::new(), status: None, gone: false })
    }

    /// Sends a value.
    ///
    /// # Errors
    /// What became of the child.
    pub fn send(&mut self, value: &impl Serialize, within: Duration) -> Result<(), String> {
        if self.gone {
            return Err(self.end_of());
        }
        match self.channel.send(value, within) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::TimedOut => Err(self.late(within)),
            Err(_) => Err(self.ended()),
        }
    }

    /// The next answer.
    ///
    /// # Errors
    /// What became of the child, which then is gone: a signal, an exit code, no answer in time.
    pub fn receive<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, String> {
        if self.gone {
            return Err(self.end_of());
        }
        let begin = Instant::now();
        loop {
            self.drain();
            match self.channel.take() {
                Received::Line(line) => {
                    return serde_json::from_slice(&line).map_err(|e| {
                        self.kill();
                        format!("its process gave an answer that is none ({e})")
                    });
                }
                Received::Over => return Err(self.ended()),
                // a process of the library's own may hold the socket open
                Received::Nothing if self.status.is_some() => return Err(self.ended()),
                Received::Nothing => {}
            }
            let left = within.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Err(self.late(within));
            }
            let mut of = vec![PollFd::new(&self.channel.stream, PollFlags::IN)];
            of.extend(self.prints.as_ref().map(|p| PollFd::new(p, PollFlags::IN)));
            wait(&mut of, left.min(LOOK));
            self.status = self.child.try_wait().ok().flatten();
        }
    }

    /// Reads what the library has printed and keeps the last of it.
    fn drain(&mut self) {
        let mut chunk = [0u8; 4096];
        // bounded, so that one that prints for ever does not hold us
        for _ in 0..64 {
            let Some(prints) = self.prints.as_mut() else { return };
            match prints.read(&mut chunk) {
                Ok(0) => self.prints = None,
                Ok(n) => self.words.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.prints = None,
            }
            let over = self.words.len().saturating_sub(MAX_WORDS);
            self.words.drain(..over);
        }
    }

    fn late(&mut self, within: Duration) -> String {
        self.drain();
        self.kill();
        // it was killed for it
        self.status = None;
        format!("it did not answer in {} s{}", within.as_secs_f64(), self.last_words())
    }

    fn ended(&mut self) -> String {
        let begin = Instant::now();
        while self.status.is_none() && begin.elapsed() < LAST {
            self.status = self.child.try_wait().ok().flatten();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.drain();
        let status = self.status;
        self.kill();
        self.status = status;
        self.end_of()
    }

    /// How a child that is gone has ended.
    fn end_of(&self) -> String {
        let words = self.last_words();
        match self.status {
            Some(status) => format!("it ended its process {}{words}", how(status)),
            None => format!("its process is gone{words}"),
        }
    }

    fn last_words(&self) -> String {
        let text = gist(&String::from_utf8_lossy(&self.words), SHOWN);
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        // of libtest, in whose process the child runs in unit tests
        if text.is_empty() || cfg!(test) { String::new() } else { format!("; its last words: {text}") }
    }

    /// Ends the child and what it started.
    fn kill(&mut self) {
        if std::mem::replace(&mut self.gone, true) {
            return;
        }
        // its number is the group's until it has been waited for; after that only processes of the group can keep it
        if let Some(id) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process_group(id, Signal::KILL);
        }
        let begin = Instant::now();
        while self.child.try_wait().ok().flatten().is_none() && begin.elapsed() < LAST {
            std::thread::sleep(Duration::from_millis(1));
        }
        // what it has sent away from its group
        orphans::end(&self.mark);
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In words how a process ended.
pub fn how(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("by signal {signal}{}", signal_name(signal)),
        None => format!("with exit code {}", status.code().unwrap_or(-1)),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

/// What a program prints on stdout, if it ends well and in time; it and what it started are killed otherwise.
pub fn output_within(mut program: Command, limit: Duration) -> Option<Vec<u8>> {
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut child = program.spawn().ok()?;
    let group = Pid::from_raw(child.id() as i32)?;
    let mut stdout = child.stdout.take()?;
    pipe::unblock(stdout.as_fd()).ok()?;
    let (begin, mut said, mut status) = (Instant::now(), Vec::new(), None);
    let mut chunk = [0u8; 4096];
    while begin.elapsed() < limit && said.len() <= MAX_LINE {
        match stdout.read(&mut chunk) {
            Ok(n) if n > 0 => said.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // nothing more for now, or for good
            _ if status.is_some() => break,
            _ => {
                wait(&mut [PollFd::new(&stdout, PollFlags::IN)], Duration::from_millis(5));
                status = child.try_wait().ok()?;
            }
        }
    }
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.try_wait();
    status.filter(ExitStatus::success).map(|_| said)
}

/// Of what a process printed last, what tells most in at most so many bytes: the sentence of a panic, without the frames below it; else the end.
pub fn gist(words: &str, most: usize) -> String {
    let (mut text, mut from_start) = (words.trim(), false);
    if let Some(at) = text.find("panicked at") {
        let begin = text[..at].rfind('\n').map_or(0, |i| i + 1);
        text = &text[begin..];
        from_start = true;
    }
    for frames in ["\nstack backtrace:", "\nnote: run with `RUST_BACKTRACE", "\nnote: Some details are omitted"] {
        text = text.split(frames).next().unwrap_or(text);
    }
    let text = text.trim();
    if from_start {
        let end = (0..=most.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        return text[..end].to_string();
    }
    let begin = (text.len().saturating_sub(most)..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text[begin..].to_string()
}

/// This program as a worker with these arguments.
#[cfg(not(test))]
fn this(arguments: &[&str]) -> std::io::Result<Command> {
    let mut program = Command::new(std::env::current_exe()?);
    program.args(["worker", "--parent", &std::process::id().to_string()]).args(arguments);
    Ok(program)
}

/// The same in unit tests, whose program is the test harness: one of its tests becomes the worker.
#[cfg(test)]
fn this(arguments: &[&str]) -> std::io::Result<Command> {
    let mut program = Command::new(std::env::current_exe()?);
    program.args(["--exact", "foreign::tests::as_a_child", "--nocapture"]).env(tests::CHILD, arguments.join("\n"));
    Ok(program)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Arguments of the test that becomes a worker.
    pub const CHILD: &str = "ERGOMETER_TEST_FOREIGN";

    #[test]
    fn as_a_child() {
        if let Ok(arguments) = std::env::var(CHILD) {
            let name = arguments.lines().last().unwrap();
            crate::commands::worker::foreign(name).unwrap();
        }
    }

    #[test]
    fn a_program_that_hangs_is_given_up() {
        let shell = |script: &str| {
            let mut sh = Command::new("sh");
            sh.args(["-c", script]);
            output_within(sh, Duration::from_millis(300))
        };
        let begin = Instant::now();
        assert_eq!(shell("sleep 60 & sleep 60"), None);
        assert_eq!(shell("while :; do echo y; done"), None);
        assert!(begin.elapsed() < Duration::from_secs(20));
        let slow = |script: &str| {
            let mut sh = Command::new("sh");
            sh.args(["-c", script]);
            output_within(sh, Duration::from_secs(30))
        };
        // one that leaves a process with its pipe behind is not waited for
        assert_eq!(slow("sleep 60 & echo said"), Some(b"said\n".to_vec()));
        assert_eq!(slow("echo said; exit 3"), None);
    }

    #[test]
    fn a_panic_is_told_by_its_sentence() {
        let frames: String = (0..60).map(|i| format!("  {i}: some::long::path::of::a::function\n")).collect();
        let words = format!(
            "loading\nthread 'main' panicked at lib.rs:7:9:\nexpected version 1.31\nstack backtrace:\n{frames}"
        );
        assert_eq!(gist(&words, 400), "thread 'main' panicked at lib.rs:7:9:\nexpected version 1.31");
        assert_eq!(gist("a\nsegmentation fault\n", 400), "a\nsegmentation fault");
        assert_eq!(gist(&"é".repeat(300), 401).len(), 400);
        assert_eq!(gist(&format!("panicked at {}", "é".repeat(300)), 401).len(), 400);
    }

    #[test]
    fn ends_are_told_in_words() {
        assert_eq!(how(ExitStatus::from_raw(7)), "by signal 7 (SIGBUS)");
        assert_eq!(how(ExitStatus::from_raw(3 << 8)), "with exit code 3");
    }
}
