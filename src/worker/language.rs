//! A worker of a language model: prompts in, tokens and log-probabilities out, each mode over the engine's trait alone.
//!
//! In: a job with `language`, blocks of work. Out: messages. Must not: know text, or read a prompt inside what is timed where a scenario keeps prompts.
//!
//! What an iteration is, the scenario's `Driver::serve` says. Requests of an iteration are made, and their slots cleared or filled from kept prompts,
//! before its clock starts.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, bail};
use ergometer_suites::Answer;
use ergometer_suites::scenario::Scenario;

use super::{Modes, ROWS_IN_LINE, asked_of, loaded, send, unchanged};
use crate::backends::language::{Feed, LanguageEngine, WantedLogits, log_sum};
use crate::backends::{BackendError, Options};
use crate::clock::monotonic_ns;
use crate::files::write_atomically;
use crate::models::language::{LanguageModel, opened};
use crate::parity::language::LanguageVectors;
use crate::protocol::*;
use crate::scenarios::arrivals::schedule;
use crate::scenarios::requests::{LanguageAsk, LiveRequests, ServedRequest};
use crate::scenarios::{self, Driver};

/// Most logits of one call where those of all tokens are asked for.
const MAX_LOGITS: usize = 1 << 23;

/// A loaded language model and what it is asked.
pub(super) struct LanguageWork {
    job: Job,
    language: LanguageJob,
    engine: Box<dyn LanguageEngine>,
    driver: &'static dyn Driver,
    /// Requests that arrive in a minute, where they do.
    per_minute: Option<u32>,
    /// They come when the job says.
    replays: bool,
    /// Blocks timed so far: each has a schedule of its own, and every worker the same ones.
    timed: u64,
    /// Example that the next iteration begins with.
    next: usize,
    /// Requests whose prompts were read, in the slots behind those of the batch.
    kept: Vec<ServedRequest>,
}

/// Errors: a job that makes no sense.
fn check(job: &Job, language: &LanguageJob) -> anyhow::Result<()> {
    let n = job.inputs.len();
    if n == 0 || job.batch == 0 || language.output.len() != n || !(language.rest.is_empty() || language.rest.len() == n)
    {
        let (output, rest) = (language.output.len(), language.rest.len());
        bail!("{n} prompts, {output} outputs, {rest} lists of continuations, batch {}", job.batch);
    }
    let (all, ascending) = (&language.arrivals, language.arrivals.is_sorted());
    let replays = job.scenario.parse::<Scenario>().is_ok_and(|s| s.replays());
    if replays && (all.len() != n || !ascending || all.iter().any(|s| !(*s >= 0.0 && s.is_finite()))) {
        bail!("{n} prompts, {} arrivals of a trace, which are to ascend from 0", all.len());
    }
    Ok(())
}

impl LanguageWork {
    /// Loads what the job asks for, which was heard then.
    pub fn load(mut job: Job, heard: Instant) -> anyhow::Result<(Self, Loaded)> {
        let language = job.language.take().context("no `language` in the job")?;
        check(&job, &language)?;
        let (engine_of, versions) = asked_of(&job)?;
        let known = engine_of.language_precisions();
        if !known.contains(&job.precision.as_str()) {
            let (name, asked) = (&job.backend, &job.precision);
            let reason = format!(
                "backend `{name}` does not compute language models in {asked} (it does in {})",
                known.join(", ")
            );
            return Err(BackendError::unavailable(reason).into());
        }
        let driver = scenarios::asked(&job.scenario, job.batch)?;
        unchanged(&job, &opened::hash(&job.model)?)?;
        let model = LanguageModel::load(&job.model, Some(language.context))?;
        let capacity = if driver.keeps_prompts() { 2 * job.batch } else { job.batch };
        let options = Options {
            precision: job.precision.clone(),
            threads: job.threads,
            capacity,
            extra: job.options.clone(),
            file: None,
            language: true,
        };
        let described = engine_of.describe(&options)?;
        let engine = engine_of.load_language(&model, &options)?;
        let loaded = loaded(&job, heard, versions, described, engine.facts());
        let loaded = Loaded { kv_number_bytes: engine.number_bytes(), ..loaded };
        Ok((Self::of(job, language, engine, driver), loaded))
    }

    fn of(job: Job, language: LanguageJob, engine: Box<dyn LanguageEngine>, driver: &'static dyn Driver) -> Self {
        let scenario = job.scenario.parse::<Scenario>().ok();
        let (per_minute, replays) = (scenario.and_then(|s| s.per_minute()), scenario.is_some_and(|s| s.replays()));
        Self { job, language, engine, driver, per_minute, replays, timed: 0, next: 0, kept: Vec::new() }
    }

    /// The requests of an iteration, in empty slots or with their prompts read.
    fn set_up(&mut self, first: usize, arrivals: Option<Vec<f64>>) -> Result<Vec<ServedRequest>, BackendError> {
        let Self { job, language, engine, kept, .. } = self;
        if self.driver.keeps_prompts() {
            for request in kept.iter() {
                engine.copy(job.batch + request.slot, request.slot)?;
            }
            return Ok(kept.iter().map(ServedRequest::again).collect());
        }
        let asked = asked(job, language);
        let n = job.inputs.len();
        let arrivals = arrivals.unwrap_or_else(|| vec![0.0; job.batch]);
        let each = arrivals.into_iter().enumerate().map(|(i, arrived)| {
            let mut request = ServedRequest::new(&asked, (first + i) % n, arrived);
            request.slot = i;
            request
        });
        (0..job.batch).for_each(|slot| engine.clear(slot));
        Ok(each.collect())
    }

    /// Reads the prompts that iterations from `next` on begin with, where a scenario keeps them.
    fn keep_prompts(&mut self) -> Result<(), BackendError> {
        if !self.driver.keeps_prompts() {
            return Ok(());
        }
        let Self { job, language, engine, kept, next, .. } = self;
        let (asked, n, batch) = (asked(job, language), job.inputs.len(), job.batch);
        kept.clear();
        for slot in 0..batch {
            let mut request = ServedRequest::new(&asked, (*next + slot) % n, 0.0);
            request.slot = batch + slot;
            engine.clear(request.slot);
            kept.push(request);
        }
        let mut live = LiveRequests { engine: &mut **engine, asked, all: kept, began: Instant::now() };
        live.begin(0..batch)?;
        kept.iter_mut().for_each(|request| request.slot -= batch);
        Ok(())
    }

    fn serve(&mut self, requests: &mut Vec<ServedRequest>, began: Instant) -> Result<(), BackendError> {
        let asked = asked(&self.job, &self.language);
        self.driver.serve(&mut LiveRequests { engine: &mut *self.engine, asked, all: requests, began })
    }

    /// Arrivals of a block; `None` where requests do not arrive by themselves.
    fn arrivals(&self, least: u64, seconds: f64) -> Option<Vec<f64>> {
        if self.replays {
            let all = &self.language.arrivals;
            // a look at whether it works at all takes the first alone
            let n = if seconds > 0.0 { all.len() } else { all.len().min(least.max(1) as usize) };
            return Some(all[..n].to_vec());
        }
        self.per_minute.map(|rate| schedule(rate, least, seconds, self.timed))
    }

    fn iterate(&mut self, first: usize) -> Result<(), BackendError> {
        // slots full at once, whatever the schedule
        let arrivals = self.driver.arrives().then(|| vec![0.0; self.job.batch]);
        let mut requests = self.set_up(first, arrivals)?;
        self.serve(&mut requests, Instant::now())
    }

    /// What these examples are answered with: at most as many as there are slots.
    fn write(&mut self, examples: &[usize]) -> Result<Vec<Vec<u32>>, BackendError> {
        let Self { job, language, engine, .. } = self;
        let asked = asked(job, language);
        let wanted = examples.iter().filter(|e| language.output[**e] > 0);
        let mut requests: Vec<ServedRequest> = wanted.map(|e| ServedRequest::new(&asked, *e, 0.0)).collect();
        for (slot, request) in requests.iter_mut().enumerate() {
            engine.clear(slot);
            request.slot = slot;
        }
        let all = 0..requests.len();
        let mut live = LiveRequests { engine: &mut **engine, asked, all: &mut requests, began: Instant::now() };
        if !all.is_empty() {
            live.begin(all.clone())?;
            while live.advance(all.clone())? > 0 {}
        }
        let mut done = requests.into_iter().peekable();
        let of = |e: &usize| done.next_if(|r| r.example == *e).map(|r| r.tokens).unwrap_or_default();
        Ok(examples.iter().map(of).collect())
    }

    /// Log-probabilities of the tokens of an example's continuations.
    fn likelihoods(&mut self, example: usize) -> Result<Vec<f64>, BackendError> {
        let Self { job, language, engine, .. } = self;
        let vocabulary = engine.vocabulary();
        let piece = (MAX_LOGITS / vocabulary).max(1);
        let mut all = Vec::new();
        for rest in &language.rest[example] {
            engine.clear(0);
            engine.feed(&[Feed { slot: 0, tokens: &job.inputs[example] }], WantedLogits::Last)?;
            let mut told = rest.iter();
            all.extend(told.next().map(|token| log_probability(engine.logits(), *token)));
            for tokens in rest[..rest.len().saturating_sub(1)].chunks(piece) {
                engine.feed(&[Feed { slot: 0, tokens }], WantedLogits::All)?;
                let rows = engine.logits().chunks_exact(vocabulary);
                all.extend(rows.zip(&mut told).map(|(logits, token)| log_probability(logits, *token)));
            }
        }
        Ok(all)
    }
}

impl Modes for LanguageWork {
    /// See [`Mode::Warm`].
    fn warm(&mut self, seconds: f64) -> Result<f64, BackendError> {
        let started = Instant::now();
        if self.kept.is_empty() {
            self.keep_prompts()?;
        }
        self.iterate(0)?;
        let first = started.elapsed().as_secs_f64();
        let mut i = 1;
        while started.elapsed().as_secs_f64() < seconds {
            self.iterate(i * self.job.batch % self.job.inputs.len())?;
            i += 1;
        }
        Ok(first)
    }

    /// See [`Mode::Answer`].
    fn answer(&mut self, block: u32, output: &mut impl Write) -> anyhow::Result<()> {
        let (n, batch) = (self.job.inputs.len(), self.job.batch);
        for first in (0..n).step_by(batch) {
            let examples: Vec<usize> = (first..n.min(first + batch)).collect();
            let written = self.write(&examples)?;
            let mut rows = Vec::with_capacity(examples.len());
            for (example, tokens) in examples.into_iter().zip(written) {
                rows.push(match self.language.rest.get(example).filter(|rest| !rest.is_empty()) {
                    None => row(example, tokens),
                    Some(_) => {
                        let depth = tokens.len().max(1) as u32;
                        let likelihoods = Answer::Likelihoods(self.likelihoods(example)?);
                        let written = (!tokens.is_empty()).then_some(tokens);
                        PredictionRow { answer: likelihoods, written, depth, ..row(example, Vec::new()) }
                    }
                });
            }
            send(output, &Message::Predictions(Predictions { block, rows }))?;
        }
        Ok(())
    }

    /// See [`Mode::Compare`]: the first half of each sequence in one call, the rest token by token, so that prompts and decoding are both seen.
    fn compare(&mut self, go: &Go, output: &mut impl Write) -> anyhow::Result<()> {
        let vectors = LanguageVectors::read(go.vectors.as_deref().context("`compare` needs a vectors file")?)?;
        if !self.engine.activate_experts(go.active_experts.map(|n| n as usize)) {
            let reason = format!("backend `{}` cannot be told how many experts a token meets", self.job.backend);
            return send(output, &Message::Unavailable(NotThere { what: "outputs".into(), reason, hint: None }));
        }
        for (tokens, step) in vectors.rows.iter().zip(1..) {
            let (together, alone) = tokens.split_at(tokens.len().div_ceil(2));
            self.engine.clear(0);
            let mut logits = Vec::new();
            for tokens in std::iter::once(together).chain(alone.chunks(1)) {
                self.engine.feed(&[Feed { slot: 0, tokens }], WantedLogits::All)?;
                logits.extend_from_slice(self.engine.logits());
            }
            let none = Vec::new();
            send(output, &Message::Outputs(Outputs { step, logits, q: none, states: Vec::new(), arrays: Vec::new() }))?;
        }
        self.engine.activate_experts(None);
        Ok(())
    }

    /// See [`Mode::Record`]: of the first `n` tokens of each prompt.
    fn record(&mut self, go: &Go) -> anyhow::Result<()> {
        let path = go.vectors.as_deref().context("`record` needs a path")?;
        let tokens = self.job.inputs.iter().map(Vec::len).min().unwrap_or(0).min(go.n as usize);
        let mut vectors = LanguageVectors::default();
        let active = go.active_experts.map(|n| n as usize);
        anyhow::ensure!(self.engine.activate_experts(active), "{active:?} experts cannot be met");
        for input in &self.job.inputs {
            self.engine.clear(0);
            self.engine.feed(&[Feed { slot: 0, tokens: &input[..tokens] }], WantedLogits::All)?;
            vectors.logits.extend_from_slice(self.engine.logits());
            vectors.rows.push(input[..tokens].to_vec());
        }
        write_atomically(path, &vectors.write()?)
    }

    /// See [`Mode::Time`].
    fn time(&mut self, go: &Go, output: &mut impl Write) -> anyhow::Result<()> {
        let (n, block) = (self.job.inputs.len(), go.block);
        let mut done: Vec<(IterationSample, Vec<ServedRequest>)> = Vec::new();
        let began = Instant::now();
        let once = self.driver.arrives();
        while done.is_empty() || (!once && ((done.len() as u64) < go.n || began.elapsed().as_secs_f64() < go.seconds)) {
            if done.len() == scenarios::most_iterations(self.driver, 1) {
                break;
            }
            let first = self.next;
            let arrivals = self.arrivals(go.n, go.seconds);
            let mut requests = self.set_up(first, arrivals)?;
            let (t_ns, started) = (monotonic_ns(), Instant::now());
            self.serve(&mut requests, started)?;
            if once && !self.replays {
                // an engine that is faster than its requests waits, and that is part of the schedule
                let left = go.seconds - started.elapsed().as_secs_f64();
                std::thread::sleep(std::time::Duration::from_secs_f64(left.max(0.0)));
            }
            let latency = started.elapsed().as_secs_f64();
            let steps = requests.iter().map(|r| r.tokens.len() as u64).sum();
            let example = requests.first().map_or(0, |r| r.example) as u64;
            let (rows, iteration) = (requests.len() as u64, done.len() as u64);
            let (row_seconds, told) = (Vec::new(), Vec::new());
            let sample =
                IterationSample { block, iteration, t_ns, example, rows, latency, steps, row_seconds, requests: told };
            // a trace begins with its first request each time
            if !self.driver.keeps_prompts() && !self.replays {
                self.next = (first + requests.len()) % n;
            }
            done.push((sample, requests));
        }
        send(output, &Message::Measured(Done { block }))?;
        self.timed += 1;
        let mut answers: Vec<Option<Vec<u32>>> = vec![None; n];
        for (mut sample, requests) in done {
            for request in requests {
                let ServedRequest { example, arrived, begun, times: tokens, .. } = request;
                sample.requests.push(RequestTimes { example: example as u64, arrived, begun, tokens });
                answers[example].get_or_insert(request.tokens);
            }
            send(output, &Message::Sample(sample))?;
        }
        let reason = format!("backend `{}` does not say what a language model executes", self.job.backend);
        send(output, &Message::Unavailable(NotThere { what: "flops_executed".into(), reason, hint: None }))?;
        let rows = answers.into_iter().enumerate().filter_map(|(example, tokens)| Some(row(example, tokens?)));
        let rows: Vec<PredictionRow> = rows.collect();
        for part in rows.chunks(ROWS_IN_LINE) {
            send(output, &Message::Predictions(Predictions { block, rows: part.to_vec() }))?;
        }
        if self.driver.keeps_prompts() {
            self.next = (self.next + self.job.batch) % n;
            self.keep_prompts()?;
        }
        Ok(())
    }
}

fn asked<'a>(job: &'a Job, language: &'a LanguageJob) -> LanguageAsk<'a> {
    LanguageAsk { inputs: &job.inputs, output: &language.output, end: &language.end, ignore_end: language.ignore_end }
}

/// An example answered with these tokens.
fn row(example: usize, tokens: Vec<u32>) -> PredictionRow {
    let (example, depth) = (example as u64, tokens.len().max(1) as u32);
    PredictionRow { example, depth, last: true, halt_logit: None, answer: Answer::Tokens(tokens), written: None }
}

/// Natural logarithm of the probability of a token under logits.
fn log_probability(logits: &[f32], token: u32) -> f64 {
    f64::from(logits[token as usize]) - log_sum(logits)
}

#[cfg(test)]
mod tests;
