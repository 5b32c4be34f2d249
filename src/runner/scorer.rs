//! A scorer program of the user's: started once all answers are in, given one JSON line an answer, asked for one back.
//!
//! In: a command, answers with their labels. Out: a score of each, with its sums; or the [`CaseError`] that names the line
//! at fault. Must not: run while anything is measured, believe a score, or leave a process behind.
//!
//! It has a process group of its own that ends with the harness, an environment of a few variables, a folder for
//! temporary files, a limit on time, lines and what it writes to stderr. All that it started ends with it, whatever
//! group, session or environment that has. Its input is a file
//! that is written before it starts, so that neither can wait for the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ergometer_reports::case::{CaseError, ErrorKind};
use ergometer_reports::metric::PAIR;
use ergometer_reports::store::pair_name;
use ergometer_suites::Answer;
use ergometer_suites::arrays::scorer::ScorerProgram;
use ergometer_suites::task::{ExampleSet, Score, ScoreSum};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ends::tail_of;
use super::scored::ScoredAnswer;
use crate::group::GuardedGroup;
use crate::interrupt::{self, Scratch};
use crate::{console, files, orphans, pipe};

/// Longest line.
const MAX_LINE: usize = 1 << 16;
/// Most that it may write to stderr.
const MAX_LOG: u64 = 16 << 20;
/// Most names of pairs.
const MAX_PAIRS: usize = 16;
/// How often it is looked at while it says nothing.
const LOOK: Duration = Duration::from_millis(200);
/// Variables that it is given, if they are there.
const KEPT: [&str; 10] =
    ["PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH"];
/// Largest file of a command whose sha256 is recorded.
const MAX_SCRIPT: u64 = 64 << 20;

/// A line of its output.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScoreLine {
    example: u64,
    score: f64,
    #[serde(default)]
    pairs: BTreeMap<String, (f64, f64)>,
}

/// Scores the answers of record in place.
///
/// # Errors
/// It cannot be started, is silent for too long, ends early or badly, writes too much, or says what is no score, of no
/// answer, or of one that has a score.
pub(super) fn score(program: &ScorerProgram, set: &ExampleSet, answers: &mut [ScoredAnswer]) -> Result<(), CaseError> {
    let places: BTreeMap<u64, usize> =
        answers.iter().enumerate().filter(|(_, a)| a.last).map(|(i, a)| (a.example, i)).collect();
    let input = input(set, answers).map_err(|e| fault(format!("the scorer's input cannot be written: {e}")))?;
    let mut running = Running::start(program, input)?;
    let mut names = BTreeSet::new();
    let mut scored = BTreeSet::new();
    let mut number = 0;
    while let Some(line) = running.line()? {
        number += 1;
        let said = |why: String| running.wrong(number, &line, &why);
        if line.trim_ascii().is_empty() {
            continue;
        }
        let parsed: ScoreLine = match serde_json::from_slice(&line) {
            Ok(parsed) => parsed,
            Err(e) => {
                let failed = serde_json::from_slice::<Value>(&line).ok();
                let why = failed.as_ref().and_then(|v| v["failed"]["message"].as_str()).map(str::to_owned);
                return Err(match why {
                    Some(why) => fault(why),
                    None => said(format!("is no `{{\"example\": 0, \"score\": 0.5}}` ({e})")),
                });
            }
        };
        let Some(&place) = places.get(&parsed.example) else {
            return Err(said(format!("is of example {}, which was not asked about", parsed.example)));
        };
        if !scored.insert(parsed.example) {
            return Err(said(format!("scores example {} again", parsed.example)));
        }
        if !(0.0..=1.0).contains(&parsed.score) {
            return Err(said(format!("has the score {}, and scores are 0 to 1", parsed.score)));
        }
        let answer = &mut answers[place];
        let exact = parsed.score >= 1.0;
        let Score { right, cells, .. } = Score { exact, right: exact.into(), cells: 1 };
        (answer.exact, answer.right, answer.cells) = (exact, right, cells);
        let sum = |metric: String, numerator, denominator| ScoreSum { metric, part: 0, numerator, denominator };
        answer.sums = vec![sum("score".into(), parsed.score, 1.0)];
        for (name, (numerator, denominator)) in parsed.pairs {
            if !pair_name(&name) {
                return Err(said("names a pair otherwise than by 1 to 40 letters, digits, `-` and `_`".into()));
            }
            if !numerator.is_finite() || !denominator.is_finite() || denominator < 0.0 {
                return Err(said(format!("has the pair {numerator} and {denominator}, whose second is 0 or more")));
            }
            answer.sums.push(sum(format!("{PAIR}{name}"), numerator, denominator));
            names.insert(name);
            if names.len() > MAX_PAIRS {
                return Err(said(format!("names one pair more than {MAX_PAIRS}")));
            }
        }
    }
    running.finish(places.len(), scored.len())
}

/// The command and what its files are, for the case's record.
pub(super) fn versions(program: &ScorerProgram) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::from([("scorer".to_owned(), interrupt::shell(&program.command))]);
    for word in &program.command {
        let path = program.folder.join(word);
        if path.is_file()
            && let Ok(sum) = files::sha256(&path, MAX_SCRIPT, ergometer_files::Links::Followed)
        {
            versions.insert(format!("scorer {word}"), format!("sha256 {sum}"));
        }
    }
    versions
}

fn fault(message: String) -> CaseError {
    let hint = "the answers are kept: mend the scorer, leave the suite as it is, and `--resume` scores them again";
    CaseError { kind: ErrorKind::Scorer, message, hint: Some(hint.into()) }
}

/// All answers of record, a line each.
fn input(set: &ExampleSet, answers: &[ScoredAnswer]) -> std::io::Result<File> {
    let value = |answer: &Answer| match answer {
        Answer::Tokens(tokens) => json!(tokens),
        Answer::Class(class) => json!(class),
        Answer::Text(text) => json!(text),
        Answer::Numbers(numbers) | Answer::Likelihoods(numbers) => json!(numbers),
    };
    let file = ergometer_files::unnamed()?;
    let mut out = BufWriter::new(&file);
    for scored in answers.iter().filter(|a| a.last) {
        let label = set.examples.get(scored.example as usize).map(|e| value(&e.answer));
        let answer = scored.answer.as_ref().map(value);
        let line = json!({"example": scored.example, "answer": answer, "label": label, "cluster": scored.cluster});
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    drop(out);
    (&file).rewind()?;
    Ok(file)
}

/// The program at work. Dropping it ends it and all it started.
struct Running {
    child: Child,
    stdout: std::process::ChildStdout,
    group: GuardedGroup,
    mark: String,
    /// Children that we had before it.
    others: BTreeSet<u32>,
    log: Arc<File>,
    received: Vec<u8>,
    ended: bool,
    began: Instant,
    limit: Duration,
    _scratch: Scratch,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.group.kill();
        let _ = self.child.kill();
        let _ = self.child.wait();
        orphans::end(&self.mark);
        orphans::end_children(&self.others);
        orphans::bury_children(&self.others);
    }
}

impl Running {
    fn start(program: &ScorerProgram, input: File) -> Result<Self, CaseError> {
        let cannot = |e: String| fault(format!("the scorer cannot be started: {e}"));
        let _gate = interrupt::gate();
        let own = std::env::current_exe().map_err(|e| cannot(e.to_string()))?;
        let log = super::process::log()?;
        let stderr = log.try_clone().map_err(|e| cannot(e.to_string()))?;
        let scratch = Scratch::new().map_err(|e| cannot(format!("{e:#}")))?;
        let mark = orphans::mark();
        let this = || {
            let mut command = Command::new(&own);
            command.env_clear().envs(KEPT.iter().filter_map(|k| Some((k, std::env::var_os(k)?))));
            command.env(orphans::VARIABLE, &mark).env("TMPDIR", scratch.path());
            command.arg("worker").arg("--parent").arg(std::process::id().to_string());
            command
        };
        orphans::adopt().map_err(|e| cannot(e.to_string()))?;
        let others = orphans::children();
        let group = GuardedGroup::start(&mark).map_err(|e| cannot(format!("its guard: {e}")))?;
        let mut command = this();
        command.arg("--exec").args(&program.command).process_group(group.id());
        if !program.folder.as_os_str().is_empty() {
            command.current_dir(&program.folder);
        }
        command.stdin(Stdio::from(input)).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().map_err(|e| cannot(e.to_string()))?;
        console::detail(|| format!("start scorer, process {}: {}", child.id(), interrupt::shell(&program.command)));
        let Some(stdout) = child.stdout.take() else { return Err(cannot("it has no pipe".into())) };
        pipe::unblock(stdout.as_fd()).map_err(|e| cannot(e.to_string()))?;
        let limit = Duration::from_secs_f64(program.seconds);
        let (received, ended, began) = (Vec::new(), false, Instant::now());
        Ok(Self { child, stdout, group, mark, others, log, received, ended, began, limit, _scratch: scratch })
    }

    /// The next line, without its end; none once it has closed its output.
    fn line(&mut self) -> Result<Option<Vec<u8>>, CaseError> {
        loop {
            if let Some(at) = self.received.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.received.drain(..=at).take(at).collect();
                return Ok(Some(line));
            }
            if self.received.len() > MAX_LINE {
                return Err(fault(format!("the scorer wrote a line of more than {MAX_LINE} bytes")));
            }
            if self.ended {
                let rest = std::mem::take(&mut self.received);
                return Ok((!rest.is_empty()).then_some(rest));
            }
            let left = self.limit.saturating_sub(self.began.elapsed());
            if left.is_zero() {
                let message = format!("the scorer was not done within {} s and was ended", self.limit.as_secs_f64());
                let error = fault(message);
                return Err(CaseError {
                    hint: error.hint.map(|h| format!("{h}; `scorer_seconds` gives it more time")),
                    ..error
                });
            }
            if self.log.metadata().is_ok_and(|m| m.len() > MAX_LOG) {
                return Err(fault(format!("the scorer wrote more than {} MiB to stderr", MAX_LOG >> 20)));
            }
            if !pipe::wait_to_read(&self.stdout, left.min(LOOK)) {
                // one that it started may keep the pipe open for ever
                let gone = self.child.try_wait().ok().flatten().is_some();
                // what it wrote just before it ended is there by now
                self.ended = gone && !pipe::wait_to_read(&self.stdout, Duration::ZERO);
                continue;
            }
            let mut chunk = [0; 1 << 16];
            match self.stdout.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(e) if matches!(e.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock) => {}
                Err(e) => return Err(fault(format!("the scorer's words cannot be read: {e}"))),
            }
        }
    }

    fn wrong(&self, number: usize, line: &[u8], why: &str) -> CaseError {
        let shown: String = String::from_utf8_lossy(&line[..line.len().min(160)]).escape_debug().collect();
        fault(format!("line {number} of the scorer {why}: `{shown}`"))
    }

    /// It must have scored all and leave with 0.
    fn finish(mut self, due: usize, scored: usize) -> Result<(), CaseError> {
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if self.began.elapsed() < self.limit => std::thread::sleep(Duration::from_millis(2)),
                _ => return Err(fault("the scorer closed its output and did not end".into())),
            }
        };
        let tail = tail_of(&self.log);
        let words = if tail.is_empty() { String::new() } else { format!("; its last words: {tail}") };
        if !status.success() {
            return Err(fault(format!("the scorer ended with {status} after {scored} of {due} scores{words}")));
        }
        if scored < due {
            return Err(fault(format!("the scorer ended after {scored} of {due} scores{words}")));
        }
        Ok(())
    }
}
