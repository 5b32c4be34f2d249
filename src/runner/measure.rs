//! One timed block of a case, metered from outside: memory, energy, processor time around it, and whether its answers are the scored ones.
//!
//! In: a warm worker. Out: samples. Must not: charge the worker's reporting to the model, keep a speed whose answers are not right, or
//! believe samples that cannot be (rows that were not asked for, more time than has passed).
//!
//! Energy sources are opened before `go` and closed at the worker's `measured`, before any sample is sent. Processor
//! time of the worker and of the harness is read over the same window, with the machine's busy time less that of all
//! our process groups. The worker's peak of resident memory is reset before warm-up and before each block. Timed
//! answers are held to the scored ones: more than 1 % of others is a wrong output (numbers and likelihoods are the same
//! within a thousandth of the largest).

use std::collections::BTreeMap;
use std::time::Instant;

use ergometer_reports::case::{CaseError, ErrorKind};
use ergometer_reports::metric::edge_of;

use super::answers::RowScorer;
use super::case::{Running, Scored, unexpected};
use super::claims::{self, Asked, MAX_MISMATCHES};
use super::process::{Worker, case_error};
use super::requests::{self, Alike};
use crate::clock::monotonic_ns;
use crate::meters::{MeterReading, Meters, cpu, memory};
use crate::protocol::{IterationSample, Message, Mode, PredictionRow};
use crate::scenarios::{self, Driver, TimedBlock};

/// What a worker said of one timed block.
#[derive(Default)]
struct BlockReport {
    iterations: Vec<IterationSample>,
    counted: Option<f64>,
    /// Steps of the answers, by example.
    depths: BTreeMap<u64, u64>,
    /// Answers, and those of them that are not the scored ones, or took other steps.
    answers: u64,
    mismatches: u64,
    /// The same of what a language model wrote.
    alike: Alike,
}

/// What is read around a timed block, from the command to the worker's `measured` (or `done`).
struct Window {
    pid: u32,
    /// At first the readings at the beginning, then the differences.
    worker_seconds: std::io::Result<f64>,
    own_seconds: f64,
    /// Seconds for which the kernel made the worker, and this process, wait for a processor.
    waited: [f64; 2],
    readings: Vec<MeterReading>,
    /// At the beginning; once closed, whether there were any since.
    children: Option<cpu::Children>,
    had_children: Option<bool>,
    /// Largest resident bytes since the peak was reset.
    memory: std::io::Result<u64>,
    /// When it was opened; once closed, how long it was open.
    opened: Instant,
    seconds: Option<f64>,
    /// When it was closed, on the monotonic clock.
    closed_ns: u64,
}

impl Window {
    fn open(pid: u32) -> Self {
        let children = cpu::children(pid).ok();
        let (worker_seconds, own_seconds) = (cpu::process_seconds(pid), cpu::own_seconds());
        Self {
            pid,
            worker_seconds,
            own_seconds,
            waited: [cpu::waited(pid), cpu::own_waited()],
            readings: Vec::new(),
            children,
            had_children: None,
            memory: Ok(0),
            opened: Instant::now(),
            seconds: None,
            closed_ns: 0,
        }
    }

    /// Reads the ends; later calls change nothing.
    fn close(&mut self, meters: &mut Meters) {
        if self.seconds.is_some() {
            return;
        }
        self.closed_ns = monotonic_ns();
        self.seconds = Some(self.opened.elapsed().as_secs_f64());
        let waited = [cpu::waited(self.pid), cpu::own_waited()];
        self.waited = [0, 1].map(|i| waited[i] - self.waited[i]);
        // first what the worker's reporting, which begins now, changes
        let (after, memory) = (cpu::process_seconds(self.pid), memory::peak(self.pid));
        self.readings = meters.stop();
        self.own_seconds = cpu::own_seconds() - self.own_seconds;
        self.memory = memory;
        self.worker_seconds = match (std::mem::replace(&mut self.worker_seconds, Ok(0.0)), after) {
            (Ok(before), Ok(after)) if after >= before => Ok(after - before),
            (Ok(_), Ok(_)) => Err(std::io::Error::other(
                "threads ended, and the block used less than the 20 ms by which a reading can then be low",
            )),
            (Err(e), _) | (_, Err(e)) => Err(e),
        };
        let children = cpu::children(self.pid).ok();
        self.had_children = self.children.zip(children).map(|(before, after)| after.any_since(before));
    }
}

impl Running<'_, '_> {
    /// One timed block, metered from outside.
    pub(super) fn time(&mut self, worker: &mut Worker, blocks: u32, scored: &Scored) -> Result<(), CaseError> {
        self.reset_peak(worker);
        let spec = &self.planned.spec;
        let (n, seconds) = match self.context.check || spec.scenario.processes().is_some() {
            true => (1, 0.0),
            false => (u64::from(spec.iterations).div_ceil(u64::from(blocks)), spec.seconds / f64::from(blocks)),
        };
        let command = self.go(Mode::Time, n, seconds, None);
        let (pid, driver) = (worker.pid(), scenarios::driver(&spec.scenario));
        let t_ns = self.now();
        // looking for children costs time of its own: before the meters run
        let mut window = Window::open(pid);
        self.context.meters.start();
        let opened_ns = monotonic_ns();
        // whatever happens to the worker, the window is closed
        let report = worker.send(&command).and_then(|()| self.receive_block(worker, &mut window, scored));
        window.close(self.context.meters);
        let BlockReport { iterations, counted, depths, answers, mismatches, alike } = report?;
        let asked = Asked {
            batch: u64::from(self.planned.key.batch),
            max_steps: u64::from(self.planned.max_steps),
            examples: self.task.set.examples.len() as u64,
            n,
            most: self.most_iterations(driver),
            seconds,
        };
        let seen = claims::Window { opened_ns, closed_ns: window.closed_ns };
        let note = match &self.planned.language {
            Some(language) => {
                requests::samples(&iterations, language, driver, &asked, &seen)?;
                requests::told(&iterations, &depths, driver)?;
                alike.verdict()?
            }
            None => claims::samples(&iterations, &depths, &asked, &seen)?,
        };
        note.into_iter().for_each(|note| self.note(note));
        let counted = counted.map(|flops| claims::flops(flops, seen.seconds())).transpose()?;
        self.check_timed(answers, mismatches)?;
        let total = Some(iterations.iter().map(|s| s.rows).sum());
        let [worker_waited, own_waited] = window.waited;
        let lasted = claims::seen(&iterations, &seen, own_waited, worker_waited);
        let prompts = self.planned.language.as_ref().map(|l| l.prompts()).unwrap_or_default();
        let (examples, served) = (asked.examples, spec.limits.served);
        let block = TimedBlock { iterations: &iterations, examples, prompts: &prompts, served, seconds: lasted };
        let kept = driver.samples(&block, &mut |observation| self.observe(observation));
        kept.map_err(|message| case_error(ErrorKind::WrongOutput, message))?;
        self.block_sample(t_ns, total, "window", lasted);
        match window.worker_seconds {
            Ok(seconds) => self.block_sample(t_ns, total, "cpu_time", seconds),
            Err(e) => self.unavailable("cpu_time".into(), format!("cannot be read: {e}")),
        }
        self.block_sample(t_ns, total, "harness_cpu", window.own_seconds);
        match counted {
            Some(flops) => self.block_sample(t_ns, total, "flops_executed", flops),
            // unless the worker has said why
            None if self.out.case.unavailable.iter().any(|u| u.metric == "flops_executed") => {}
            None => self.unavailable("flops_executed".into(), "the worker did not count them".into()),
        }
        match window.memory {
            Ok(bytes) => self.block_sample(t_ns, total, "memory_peak", bytes as f64),
            Err(e) => self.unavailable("memory_peak".into(), format!("cannot be read: {e}")),
        }
        match window.had_children {
            Some(false) => {}
            Some(true) => {
                self.note("the worker has child processes: cpu_time and memory_* are those of the worker alone".into())
            }
            None => self.note(
                "whether the worker has child processes cannot be seen; cpu_time and memory_* are its own".into(),
            ),
        }
        self.keep_readings(window.readings, t_ns, total);
        self.block += 1;
        Ok(())
    }

    /// What the meters counted over a block that began at `t_ns` and had `rows` rows.
    fn keep_readings(&mut self, readings: Vec<MeterReading>, t_ns: u64, rows: Option<u64>) {
        for reading in readings {
            if let Some(note) = reading.note {
                self.note(note);
            }
            match reading.value {
                Ok(joules) => {
                    self.block_sample(t_ns, rows, reading.metric, joules);
                    if let Some(edges) = edge_of(reading.metric) {
                        // a window has two edges
                        self.block_sample(t_ns, rows, edges, 2.0 * reading.resolution);
                    }
                }
                Err(reason) => self.unavailable(reading.metric.into(), reason),
            }
        }
    }

    /// Most iterations of one of its blocks.
    fn most_iterations(&self, driver: &dyn Driver) -> usize {
        scenarios::most_iterations(driver, self.planned.key.batch as usize)
    }

    fn receive_block(
        &mut self,
        worker: &mut Worker,
        window: &mut Window,
        scored: &Scored,
    ) -> Result<BlockReport, CaseError> {
        let mut report = BlockReport::default();
        let every = self.context.meters.tick_interval();
        let most = self.task.set.examples.len() as u64;
        let driver = scenarios::driver(&self.planned.spec.scenario);
        let full = self.most_iterations(driver);
        let times = if driver.times_rows() { self.planned.key.batch as usize } else { 0 };
        loop {
            let BlockReport { depths, answers, mismatches, alike, .. } = &mut report;
            let language = self.planned.language.as_deref();
            // of an answer nothing is kept but whether it is the scored one
            let (scorer, meters) = (RowScorer::of(self), &mut *self.context.meters);
            let mut take = |row: PredictionRow| {
                *answers += 1;
                if *answers > most {
                    return Err(case_error(ErrorKind::WrongOutput, "more answers than examples in one block"));
                }
                if let Some(language) = language {
                    let (example, tokens) = requests::written(language, row)?;
                    depths.insert(example, tokens.len() as u64);
                    alike.take(&tokens, scored.written.get(&example));
                    return Ok(());
                }
                let timed = scorer.score(row)?;
                let known = scored.answers.get(&timed.example).zip(timed.answer.as_ref());
                let same = known.is_some_and(|(known, timed)| known.agrees(timed))
                    && scored.steps.get(&timed.example) == Some(&timed.depth);
                *mismatches += u64::from(!same);
                depths.insert(timed.example, timed.depth.into());
                Ok(())
            };
            match worker.receive(every, &mut || meters.tick(), &mut take)? {
                // what follows is reporting, which is not to be charged to the model
                Message::Measured(_) if window.seconds.is_none() => window.close(self.context.meters),
                Message::Measured(m) => {
                    let message = format!("`measured` of block {} came again", m.block);
                    return Err(case_error(ErrorKind::Protocol, message));
                }
                Message::Sample(s) if s.row_seconds.len() != times => {
                    let report = s.row_seconds.len();
                    let message = format!("sample {} has times of {report} rows, {times} are due", s.iteration);
                    return Err(case_error(ErrorKind::WrongOutput, message));
                }
                Message::Sample(s) if report.iterations.len() < full => report.iterations.push(s),
                Message::Sample(s) => {
                    let message = format!("sample {} came where its block had {full} already", s.iteration);
                    return Err(case_error(ErrorKind::Protocol, message));
                }
                // once a block: a worker that repeats itself must not keep us for ever
                Message::Counted(c) if report.counted.is_none() => report.counted = Some(c.flops_executed),
                Message::Predictions(_) => {}
                Message::Unavailable(u) => self.refused(u)?,
                Message::Done(_) => return Ok(report),
                other => return Err(unexpected("`sample` or `done`", &other)),
            }
        }
    }

    /// Timed answers must be the scored ones, else the time is of something that was not scored.
    fn check_timed(&mut self, answers: u64, mismatches: u64) -> Result<(), CaseError> {
        if mismatches as f64 > MAX_MISMATCHES * answers as f64 {
            let message =
                format!("{mismatches} of {answers} timed answers are not the scored ones, or took other steps");
            return Err(case_error(ErrorKind::WrongOutput, message));
        }
        if mismatches > 0 {
            self.note(format!(
                "{mismatches} of {answers} timed answers, or their steps, differ from the scored ones: rounding depends on the batch"
            ));
        }
        Ok(())
    }
}
