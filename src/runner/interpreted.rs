//! A worker of the reference interpreter, which writes what it computes into a vectors file: for every kind of model that it judges.
//!
//! In: a job with its inputs, where the file goes. Out: the file. Must not: interpret anything in this process, or know what the vectors are for.

use std::path::Path;
use std::time::Duration;

use ergometer_reports::case::{CaseError, ErrorKind};

use super::process::{Launch, Worker, case_error};
use crate::protocol::{Command, Go, Job, Message, Mode};

/// Lets a worker of the reference interpreter write what it gives for a job's inputs: `n` examples, or tokens of a language model's, each of which meets so many
/// experts instead of its own number.
/// It may be silent for so many seconds.
pub(super) fn written_by_reference(
    job: Job,
    silence: f64,
    n: u64,
    active_experts: Option<u32>,
    path: &Path,
) -> Result<(), CaseError> {
    let log = super::process::log()?;
    let silence = Duration::from_secs_f64(silence);
    let own = Launch { command: Vec::new(), environment: Vec::new(), silence, isolation: Default::default() };
    let mut worker = Worker::start(&own, &log)?;
    let steps = job.max_steps;
    worker.send(&Command::Job(Job {
        backend: "reference".into(),
        options: Default::default(),
        precision: "f64".into(),
        // nothing else runs while it does, and threads change no bit
        threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
        scenario: String::new(),
        halt: false,
        keep_halted: false,
        starts: Vec::new(),
        ..job
    }))?;
    let vectors = Some(super::job::absolute(path));
    worker.send(&Command::Go(Go { block: 0, mode: Mode::Record, n, seconds: 0.0, steps, vectors, active_experts }))?;
    loop {
        match worker.message()? {
            Message::Done(_) => break,
            Message::Unavailable(u) => return Err(case_error(ErrorKind::Unavailable, u.reason)),
            _ => {}
        }
    }
    worker.finish().map(drop)
}
