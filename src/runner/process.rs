//! A worker process as the harness sees it: started, spoken to line by line with a time limit, and never left behind.
//!
//! In: a program and commands. Out: messages, or the [`CaseError`] that tells how it ended. Must not: spin, draw or start threads (the
//! worker dies with the thread that started it, and on a small machine a busy parent is half the machine).
//!
//! Two processes are started. The worker asks the kernel to end it with the harness, but that wish does not reach what it starts itself.
//! So the leader of its process group is a *guard*, this program again, which sleeps until the harness is gone and then kills the group,
//! and before it what has left the group ([`crate::orphans`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command as Program, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ergometer_reports::case::{CaseError, ErrorKind};
use ergometer_suites::suite::Isolation;

use super::ends::{oom_kills, tail_of};
use super::isolation::{self, ProgramPlace};
use crate::group::GuardedGroup;
use crate::interrupt;
use crate::orphans;
use crate::pipe;
use crate::protocol::line::{self, Refused};
use crate::protocol::{Command, FailureKind, MAX_LINE, MAX_SHORT_LINE, Message, Mode, PredictionRow, may_be_long};

/// Lines that one worker may send; one that sends more is stopped.
const MAX_MESSAGES: u64 = 20_000_000;

/// How often a worker is looked at, whatever it says: is it still there, is its log still short.
const LOOK: Duration = Duration::from_secs(1);

/// How many times as long as what was asked for should take a worker may go on, as long as it is not silent.
const PATIENCE: f64 = 10.0;

/// The most for which it may go on, however slow its first iteration was: so many times its longest silence, beside the time asked for.
const MOST_SILENCES: f64 = 60.0;

/// Bytes of memory that are kept for lines to come.
const KEPT: usize = 1 << 20;

/// The longest that a line with this beginning may be.
fn most(line: &[u8]) -> usize {
    if may_be_long(line) { MAX_LINE } else { MAX_SHORT_LINE }
}

/// Bytes that a worker may write to stderr.
const MAX_LOG: u64 = 64 << 20;

/// How to start a worker.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Program and arguments of an external backend; empty: this program as a worker.
    pub command: Vec<String>,
    /// Environment variables to set.
    pub environment: Vec<(String, String)>,
    /// How long it may say nothing.
    pub silence: Duration,
    /// Where an external program runs.
    pub isolation: Isolation,
}

/// Who says a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We do.
    Harness,
    /// The worker does.
    Worker,
}

/// Is given every line of a dialogue, without its end.
pub type Overhear = Box<dyn FnMut(Side, &[u8])>;

/// A running worker. Dropping it kills it and all it started.
pub struct Worker {
    child: Child,
    /// Just before its process was started.
    pub started: Instant,
    group: GuardedGroup,
    /// In the environment of all that it starts.
    mark: String,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    received: Vec<u8>,
    /// Bytes of `received` that have been handed out as lines.
    taken: usize,
    /// Bytes of `received` in which no further line ends.
    searched: usize,
    silence: Duration,
    log: Arc<File>,
    messages: u64,
    oom_kills: Option<u64>,
    /// How it ended, once known.
    status: Option<ExitStatus>,
    /// Processes of its that were in its group no more when it ended.
    orphans: usize,
    /// It ended by itself, and all it said was heard.
    received_all: bool,
    /// The folder of an external program, which may be killed before it removes its files, and what is recorded of where it runs.
    place: ProgramPlace,
    /// When it was last looked at, and when the meters were last read.
    looked: Instant,
    ticked: Instant,
    /// When it was last asked for something, and what all of the answer may take.
    asked: Instant,
    limit: Duration,
    /// The block that it was last asked for.
    block: Option<u32>,
    /// Iterations for all examples, most steps of one, and seconds that its first iteration took.
    rounds: f64,
    steps: f64,
    pace: f64,
    overhear: Option<Overhear>,
}

/// An error of a case without a hint.
pub fn case_error(kind: ErrorKind, message: impl Into<String>) -> CaseError {
    CaseError { kind, message: message.into(), hint: None }
}

/// A log without a name, for a worker whose words nobody keeps.
pub fn log() -> Result<Arc<File>, CaseError> {
    let made = ergometer_files::unnamed().map(Arc::new);
    made.map_err(|e| {
        let place = std::env::temp_dir();
        let message = format!("cannot make a file for a worker's log in {}: {e}", place.display());
        CaseError { kind: ErrorKind::Spawn, message, hint: Some("set TMPDIR to a folder that can be written".into()) }
    })
}

impl Worker {
    /// Starts it, with its stderr going to `log`, which has no name that it could know.
    pub fn start(launch: &Launch, log: &Arc<File>) -> Result<Self, CaseError> {
        let fail = |what: String| case_error(ErrorKind::Spawn, what);
        let _gate = interrupt::gate();
        let own = std::env::current_exe().map_err(|e| fail(format!("cannot find this program's own file: {e}")))?;
        let stderr = log.try_clone().map_err(|e| fail(format!("cannot hand out its log: {e}")))?;
        let mark = orphans::mark();
        let this = || {
            let mut program = Program::new(&own);
            program.env(orphans::VARIABLE, &mark);
            program.arg("worker").arg("--parent").arg(std::process::id().to_string());
            program
        };
        let group = GuardedGroup::start(&mark).map_err(|e| fail(format!("cannot start a worker's guard: {e}")))?;
        let mut program = this();
        let mut place = ProgramPlace::default();
        if !launch.command.is_empty() {
            place = isolation::become_external(&mut program, &launch.command, &launch.isolation)
                .map_err(|e| fail(format!("{e:#}")))?;
            // so that it can ask for what we can make, such as an ONNX file
            program.env("ERGOMETER_EXE", &own);
        }
        program.envs(launch.environment.iter().cloned());
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).process_group(group.id());
        let oom_kills = oom_kills();
        let started = Instant::now();
        let mut child = program.spawn().map_err(|e| fail(format!("cannot start a worker: {e}")))?;
        crate::console::detail(|| {
            let words: Vec<String> = program.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
            let set = program.get_envs().filter_map(|(k, v)| Some(format!("{}={}", k.display(), v?.display())));
            let set: Vec<String> = set.collect();
            let set = if set.is_empty() { String::new() } else { format!(" with {}", set.join(" ")) };
            format!("start process {}: ergometer {}{set}", child.id(), interrupt::shell(&words))
        });
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(fail("the worker has no pipes".into()));
        };
        let mut worker = Self {
            child,
            started,
            group,
            mark: mark.clone(),
            stdin: Some(stdin),
            stdout,
            received: Vec::new(),
            taken: 0,
            searched: 0,
            silence: launch.silence,
            log: log.clone(),
            messages: 0,
            oom_kills,
            status: None,
            orphans: 0,
            received_all: false,
            place,
            looked: Instant::now(),
            ticked: Instant::now(),
            asked: Instant::now(),
            block: None,
            limit: launch.silence.saturating_mul(PATIENCE as u32),
            rounds: 0.0,
            steps: 1.0,
            pace: 0.0,
            overhear: None,
        };
        // a worker that does not read must not hold us for ever
        let stdin = worker.stdin.as_ref().map(|s| s.as_fd()).expect("taken just above");
        if let Err(e) = pipe::unblock(stdin).and_then(|()| pipe::unblock(worker.stdout.as_fd())) {
            worker.kill();
            return Err(fail(format!("cannot set up the worker's pipes: {e}")));
        }
        Ok(worker)
    }

    /// Lets somebody hear every line from now on.
    pub fn overheard_by(&mut self, ear: Overhear) {
        self.overhear = Some(ear);
    }

    /// Where an external program runs, for the record.
    pub fn place(&self) -> &BTreeMap<String, String> {
        &self.place.told
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a command.
    pub fn send(&mut self, command: &Command) -> Result<(), CaseError> {
        let mut line = serde_json::to_vec(command)
            .map_err(|e| case_error(ErrorKind::Spawn, format!("cannot encode a command: {e}")))?;
        self.allow(command);
        self.write(&mut line)
    }

    /// Sends a line of any bytes.
    pub fn write(&mut self, line: &mut Vec<u8>) -> Result<(), CaseError> {
        if let Some(ear) = &mut self.overhear {
            ear(Side::Harness, line);
        }
        line.push(b'\n');
        let Some(mut stdin) = self.stdin.take() else { return Err(self.ended("was spoken to after its end")) };
        let written = pipe::write_all(&mut stdin, line, self.silence, LOOK, || {
            self.poll_exit().map_err(Unsaid::Refused)?;
            if self.status.is_some() {
                Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into())
            } else {
                Ok(())
            }
        });
        self.stdin = Some(stdin);
        match written {
            Ok(()) => Ok(()),
            Err(Unsaid::Refused(error)) => Err(error),
            Err(Unsaid::System(e)) if e.kind() == std::io::ErrorKind::TimedOut => {
                Err(self.timeout("did not read its input"))
            }
            // it has closed its input: how it ended tells more than the broken pipe
            Err(Unsaid::System(_)) => Err(self.ended("stopped listening")),
        }
    }

    /// The next message, in a place where no answers are due.
    pub fn message(&mut self) -> Result<Message, CaseError> {
        self.receive(None, &mut || {}, &mut |_| Ok(()))
    }

    /// The next message. `tick` is called at least every `every`, also while lines keep coming (meters that must be read now and then);
    /// `take` is given each answer as it is read: of `predictions` nothing but the block comes back.
    pub fn receive(
        &mut self,
        every: Option<Duration>,
        tick: &mut dyn FnMut(),
        take: &mut dyn FnMut(PredictionRow) -> Result<(), CaseError>,
    ) -> Result<Message, CaseError> {
        let deadline = Instant::now() + self.silence;
        loop {
            if every.is_some_and(|every| self.ticked.elapsed() >= every) {
                tick();
                self.ticked = Instant::now();
            }
            self.poll_exit()?;
            if let Some(line) = self.take_line() {
                let message = self.parse(line, take)?;
                self.keep_pace(&message);
                return self.check(message);
            }
            if self.received.len() > most(&self.received) {
                return Err(self.babbled());
            }
            if self.asked.elapsed() > self.limit {
                return Err(self.outlasted());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.timeout("said nothing"));
            }
            // of a worker that has ended only what it said before is heard: a child of its may keep the pipe open for ever
            let over = self.status.is_some();
            let due = every.map_or(LOOK, |every| every.saturating_sub(self.ticked.elapsed()).min(LOOK));
            let wait = if over { Duration::ZERO } else { due.min(left) };
            if !pipe::wait_to_read(&self.stdout, wait) {
                if over {
                    return Err(self.ended("ended before it was done"));
                }
                continue;
            }
            let mut chunk = [0u8; 65536];
            match self.stdout.read(&mut chunk) {
                Ok(0) => return Err(self.ended("ended before it was done")),
                Ok(n) => {
                    if self.received.capacity() - self.received.len() < n {
                        // by a quarter and not by double: a long line holds little that it does not use
                        self.received.reserve_exact((self.received.len() / 4).max(chunk.len()));
                    }
                    self.received.extend_from_slice(&chunk[..n]);
                }
                Err(e) if matches!(e.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock) => {}
                Err(e) => {
                    self.kill();
                    return Err(case_error(ErrorKind::Protocol, format!("cannot read from the worker: {e}")));
                }
            }
        }
    }

    /// The message of a whole line, which lies in this part of what was received. A worker whose line is none ends.
    fn parse(
        &mut self,
        line: Range<usize>,
        take: &mut dyn FnMut(PredictionRow) -> Result<(), CaseError>,
    ) -> Result<Message, CaseError> {
        self.messages += 1;
        if self.messages > MAX_MESSAGES {
            self.kill();
            return Err(case_error(ErrorKind::Protocol, format!("the worker sent more than {MAX_MESSAGES} lines")));
        }
        let line = &self.received[line];
        if let Some(ear) = &mut self.overhear {
            ear(Side::Worker, line);
        }
        let too_long = line.len() > most(line);
        let start: String = String::from_utf8_lossy(&line[..line.len().min(160)]).into_owned();
        if too_long {
            return Err(self.babbled());
        }
        line::message(line, take).map_err(|refused| {
            self.kill();
            match refused {
                Refused::Answer(error) => error,
                Refused::Line(e) => CaseError {
                    hint: Some("only protocol lines may go to stdout; logs belong on stderr".into()),
                    ..case_error(ErrorKind::Protocol, format!("not a line of the protocol: `{start}` ({e})"))
                },
            }
        })
    }

    /// Ends it in order: no more input, and it must leave with 0. Gives how many processes it had started that were in its group no more.
    pub fn finish(mut self) -> Result<usize, CaseError> {
        self.stdin = None;
        // it may have waited long for others' turns
        (self.asked, self.limit) = (Instant::now(), self.silence.saturating_mul(PATIENCE as u32));
        self.block = None;
        match self.message() {
            Ok(message) => {
                self.kill();
                let kind = message.kind();
                Err(case_error(ErrorKind::Protocol, format!("after its last block the worker still said `{kind}`")))
            }
            Err(_) if self.received_all && self.status.is_some_and(|s| s.success()) => Ok(self.orphans),
            Err(error) => Err(error),
        }
    }

    /// What a worker says about its own end becomes the end of the case.
    fn check(&mut self, message: Message) -> Result<Message, CaseError> {
        match message {
            Message::Unavailable(u) if u.what == "case" => {
                self.kill();
                Err(CaseError { kind: ErrorKind::Unavailable, message: u.reason, hint: u.hint })
            }
            Message::Failed(f) => {
                self.kill();
                let kind = match f.kind {
                    FailureKind::OutOfMemory => ErrorKind::OutOfMemory,
                    FailureKind::Model => ErrorKind::Model,
                    FailureKind::Spawn => ErrorKind::Spawn,
                    FailureKind::Backend => ErrorKind::Exit,
                    FailureKind::Protocol => ErrorKind::Protocol,
                    FailureKind::WrongOutput => ErrorKind::WrongOutput,
                };
                Err(case_error(kind, f.message))
            }
            // whatever names a block answers the one that was asked for
            message => match message.block().zip(self.block) {
                Some((told, due)) if told != due => {
                    self.kill();
                    let message = format!("`{}` of block {told} came where block {due} was due", message.kind());
                    Err(case_error(ErrorKind::Protocol, message))
                }
                _ => Ok(message),
            },
        }
    }

    /// Looks once in a while whether it still runs and how much it has logged.
    fn poll_exit(&mut self) -> Result<(), CaseError> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        if self.log.metadata().is_ok_and(|log| log.len() > MAX_LOG) {
            self.kill();
            let message = format!("the worker wrote more than {} MiB to stderr and was killed", MAX_LOG >> 20);
            return Err(case_error(ErrorKind::Protocol, message));
        }
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        Ok(())
    }

    /// The bytes of the next line in what was received.
    fn take_line(&mut self) -> Option<Range<usize>> {
        match self.received[self.searched..].iter().position(|&b| b == b'\n') {
            Some(at) => {
                let end = self.searched + at;
                let line = self.taken..end;
                (self.taken, self.searched) = (end + 1, end + 1);
                Some(line)
            }
            None => {
                // moved once a read, not once a line
                self.received.drain(..self.taken);
                if self.received.capacity() > KEPT && self.received.len() < KEPT {
                    self.received.shrink_to(KEPT);
                }
                (self.taken, self.searched) = (0, self.received.len());
                None
            }
        }
    }

    /// What its next answer may take in all, whatever it says meanwhile, by what it is asked for.
    fn allow(&mut self, command: &Command) {
        let steps = match command {
            Command::Job(job) => {
                self.rounds = job.inputs.len().div_ceil(job.batch.max(1)) as f64;
                self.steps = f64::from(job.max_steps);
                0.0
            }
            Command::Go(go) => match go.mode {
                Mode::Warm | Mode::Record => 0.0,
                Mode::Answer => self.rounds * self.steps,
                Mode::Compare => 100.0 * self.steps,
                Mode::Time => go.n as f64 * self.steps,
            },
        };
        let seconds = if let Command::Go(go) = command { go.seconds } else { 0.0 };
        self.block = if let Command::Go(go) = command { Some(go.block) } else { None };
        let silence = self.silence.as_secs_f64();
        self.limit = Duration::try_from_secs_f64(whole(silence, seconds, steps * self.pace)).unwrap_or(Duration::MAX);
        self.asked = Instant::now();
    }

    /// Keeps the time of its first iteration, as far as it can be true.
    fn keep_pace(&mut self, message: &Message) {
        if let Message::Ready(ready) = message {
            let seen = self.asked.elapsed().as_secs_f64();
            self.pace = self.pace.max(if ready.first_seconds > 0.0 { ready.first_seconds.min(seen) } else { 0.0 });
        }
    }

    fn babbled(&mut self) -> CaseError {
        self.kill();
        let message = format!(
            "the worker sent a line of more than {MAX_SHORT_LINE} bytes ({MAX_LINE} for `outputs` and `predictions`)"
        );
        case_error(ErrorKind::Protocol, message)
    }

    fn outlasted(&mut self) -> CaseError {
        self.kill();
        CaseError {
            kind: ErrorKind::Timeout,
            message: format!(
                "the worker went on for {:.1} s without an end, though not silent, and was killed",
                self.limit.as_secs_f64()
            ),
            hint: Some(
                "the limit is ten times what was asked for, and at most 60 times `timeout_seconds` beside the seconds asked for; raise that"
                    .into(),
            ),
        }
    }

    fn timeout(&mut self, what: &str) -> CaseError {
        self.kill();
        CaseError {
            kind: ErrorKind::Timeout,
            message: format!("the worker {what} for {:.1} s and was killed", self.silence.as_secs_f64()),
            hint: Some("raise `timeout_seconds` in the suite if the work needs longer".into()),
        }
    }

    /// The worker closed its output or ended: wait for its end and say what it was.
    fn ended(&mut self, what: &str) -> CaseError {
        let deadline = Instant::now() + self.silence;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                _ => return self.timeout("closed its output but did not end"),
            }
        };
        (self.status, self.received_all) = (Some(status), true);
        self.kill();
        let tail = tail_of(&self.log);
        let said = if tail.is_empty() { String::new() } else { format!("; its last words: {tail}") };
        let hint = Some("its whole log is stderr.log in the case's folder".into());
        if let Some(signal) = status.signal() {
            let out_of_memory = tail.contains("memory allocation of") || (signal == 9 && oom_kills() > self.oom_kills);
            let kind = if out_of_memory { ErrorKind::OutOfMemory } else { ErrorKind::Signal };
            return CaseError { kind, message: format!("the worker was ended by signal {signal}{said}"), hint };
        }
        let code = status.code().unwrap_or(-1);
        CaseError {
            kind: ErrorKind::Exit,
            message: format!("the worker {what}: it left with exit code {code}{said}"),
            hint,
        }
    }

    /// Kills the worker and all of its process group, and waits for it.
    fn kill(&mut self) {
        self.group.kill();
        if self.status.is_none() {
            // it may have left the group
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
        self.orphans += orphans::end(&self.mark);
        // between two looks a log can grow far
        if self.log.metadata().is_ok_and(|log| log.len() > MAX_LOG) {
            let _ = self.log.set_len(MAX_LOG);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Seconds that a whole answer may take, asked for so many seconds and for iterations that take `paced` by the first one's time. That time is
/// the worker's own word, within what was seen, so that it does not decide alone.
fn whole(silence: f64, seconds: f64, paced: f64) -> f64 {
    (PATIENCE * (silence + seconds + paced)).min(PATIENCE * seconds + MOST_SILENCES * silence)
}

/// Why a line did not reach a worker.
enum Unsaid {
    System(std::io::Error),
    Refused(CaseError),
}

impl From<std::io::Error> for Unsaid {
    fn from(error: std::io::Error) -> Self {
        Self::System(error)
    }
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn a_slow_first_iteration_buys_no_hours() {
        // 400 examples of 16 steps, each of them 0.9 s by the first iteration
        assert_eq!(whole(5.0, 0.0, 400.0 * 16.0 * 0.9), 300.0);
        assert_eq!(whole(60.0, 2.0, 0.0), 620.0);
        assert_eq!(whole(60.0, 2.0, 100.0), 1620.0);
        assert_eq!(whole(60.0, 2.0, f64::INFINITY), 3620.0);
    }
}
