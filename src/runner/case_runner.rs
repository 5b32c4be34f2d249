//! One case at work: its worker, and what it has left behind so far. `run`, `time` and the search of settings take every case through here.
//!
//! In: a planned case, what it is judged by, what surrounds it. Out: a [`Finished`], whatever happens. Must not: let a worker that failed go
//! on working beside others.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ergometer_reports::case::CaseError;

use super::case::{Finished, RunContext, Running, Scored};
use super::judge::ReferenceVectors;
use super::plan::{PlannedCase, PlannedTask};
use super::process::{self, Worker};

/// See the module.
pub(super) struct CaseRunner<'a> {
    pub planned: &'a PlannedCase,
    task: &'a PlannedTask,
    model: &'a Path,
    /// For its workers' words; `None`: nobody keeps them.
    log: Option<Arc<File>>,
    pub finished: Finished,
    /// `None` before it has begun, and once it has failed: its error is in `finished`.
    pub worker: Option<Worker>,
    block: u32,
    refusals: u32,
}

impl<'a> CaseRunner<'a> {
    /// A case that has not begun. `scored`: answers that another case of its group gave.
    pub fn new(
        planned: &'a PlannedCase,
        task: &'a PlannedTask,
        model: &'a Path,
        log: Option<Arc<File>>,
        scored: Option<&Scored>,
    ) -> Self {
        let finished = Finished::new(planned, task, scored);
        Self { planned, task, model, log, finished, worker: None, block: 0, refusals: 0 }
    }

    /// Starts a worker, which loads, gets warm and is compared with the reference.
    pub fn begin(&mut self, reference: ReferenceVectors, context: &mut RunContext) {
        let (model, log) = (self.model, self.log.clone());
        self.worker = self.within(context, |running| {
            let log = log.map_or_else(process::log, Ok)?;
            running.begin(model, reference, &log)
        });
        if self.planned.spec.scenario.processes().is_some() {
            // the process that is compared and scored is none of those that are timed
            let samples = &mut self.finished.samples;
            *samples = samples.iter().filter(|s| s.phase != "load" && s.phase != "first").collect();
        }
    }

    /// Ends its worker in order and starts another one, which loads and is not warmed: for a scenario that times processes.
    pub fn renew(&mut self, context: &mut RunContext) {
        let Some(old) = self.worker.take() else { return };
        let (model, log) = (self.model, self.log.clone());
        self.worker = self.within(context, |running| {
            let log = log.map_or_else(process::log, Ok)?;
            running.renew(old, model, &log)
        });
    }

    /// Every example answered and scored: the answers of record of its group; none if it has failed.
    pub fn answer(&mut self, context: &mut RunContext) -> Scored {
        let mut own = None;
        self.act(context, |running, worker| {
            own = Some(running.answer_all(worker)?);
            Ok(())
        });
        own.unwrap_or_default()
    }

    /// Lets its worker do something, unless it has failed; it has failed if that does.
    pub fn act(
        &mut self,
        context: &mut RunContext,
        work: impl FnOnce(&mut Running, &mut Worker) -> Result<(), CaseError>,
    ) {
        let Some(mut worker) = self.worker.take() else { return };
        if self.within(context, |running| work(running, &mut worker)).is_some() {
            self.worker = Some(worker);
        }
    }

    /// The last block that it was asked for.
    pub fn last_block(&self) -> u32 {
        self.block.saturating_sub(1)
    }

    /// Ends its worker in order.
    pub fn finish(mut self) -> Finished {
        match self.worker.take().map(Worker::finish) {
            Some(Err(error)) => self.finished.fail(error),
            Some(Ok(orphans)) => self.finished.note_orphans(orphans),
            None => {}
        }
        self.finished
    }

    /// What `work` gives; an error ends the case.
    fn within<T>(
        &mut self,
        context: &mut RunContext,
        work: impl FnOnce(&mut Running) -> Result<T, CaseError>,
    ) -> Option<T> {
        let (planned, task, block, refusals) = (self.planned, self.task, self.block, self.refusals);
        let mut running = Running { planned, task, context, out: &mut self.finished, block, refusals };
        let done = work(&mut running);
        (self.block, self.refusals) = (running.block, running.refusals);
        done.map_err(|error| self.finished.fail(error)).ok()
    }
}
