//! What a worker of a language model may claim: times of requests held to their iteration, tokens to what was asked for and scored.
//!
//! In: samples and timed answers as a worker sent them. Out: notes, or why they cannot be. Must not: believe a time that its iteration contradicts.
//!
//! Timed tokens are those of the accuracy pass up to rounding: an engine may round a row differently beside other rows, two logits may be nearly equal,
//! and from there on a greedy continuation is another one. So what is held is where answers part: most begin alike, and most tokens come before the
//! first difference.

use std::collections::BTreeMap;

use ergometer_reports::case::{CaseError, ErrorKind};
use ergometer_suites::Answer;

use super::claims::{self, Window};
use super::process::case_error;
use super::tokenise::Tokenised;
use crate::protocol::{IterationSample, PredictionRow, RequestTimes};
use crate::scenarios::Driver;

/// The scenario whose arrivals are the task's.
const REPLAYED: &str = "arrivals-trace";
/// Seconds by which two readings of a clock may disagree.
const CLOCK: f64 = 2e-6;
/// Share of an iteration that must have passed when its last token is there, and what may come after that beside, in seconds.
const COVERED: f64 = 0.9;
const AFTER: f64 = 30e-6;
/// Share of timed answers that may begin with another token than the scored ones.
const MOST_OTHERS: f64 = 0.1;
/// Share of timed tokens that must come before the first difference.
const LEAST_ALIKE: f64 = 0.5;

fn wrong<T>(message: String) -> Result<T, CaseError> {
    Err(case_error(ErrorKind::WrongOutput, message))
}

/// Samples must be possible, one by one and in their window.
///
/// # Errors
/// What cannot be.
pub(super) fn samples(
    samples: &[IterationSample],
    language: &Tokenised,
    driver: &dyn Driver,
    asked: &claims::Asked,
    window: &Window,
) -> Result<(), CaseError> {
    if samples.is_empty() {
        return wrong("a timed block without samples".into());
    }
    let arrive = driver.arrives();
    let (mut untold, mut count) = (None, 0);
    for (s, due) in samples.iter().zip(0..) {
        let (i, requests) = (s.iteration, s.requests.len() as u64);
        if s.iteration != due {
            return wrong(format!("sample {i} came where sample {due} was due"));
        }
        if !(s.latency.is_finite() && s.latency >= claims::LEAST_SECONDS) {
            return wrong(format!("the worker gave {:e} as latency, which is no time", s.latency));
        }
        if s.rows != requests || (!arrive && requests != asked.batch) || requests == 0 {
            return wrong(format!("sample {i} has {requests} requests in {} rows, {} are due", s.rows, asked.batch));
        }
        let mut last = 0.0f64;
        for request in &s.requests {
            check(request, s, language, driver)?;
            last = last.max(request.tokens.last().copied().unwrap_or(0.0));
        }
        if !arrive && last < COVERED * (s.latency - AFTER) {
            untold.get_or_insert((i, last, s.latency));
            count += 1;
        }
    }
    // a busy machine takes the processor away after the last token now and then, and not in most iterations
    if let Some((i, last, whole)) = untold.filter(|_| 2 * count > samples.len()) {
        return wrong(format!(
            "the last token of sample {i}, as of most others, was there after {last:e} s of {whole:e} s: what was done in the rest is not told"
        ));
    }
    let asked = claims::Asked { n: if arrive { 1 } else { asked.n }, ..*asked };
    claims::times(samples, &asked, window)
}

fn check(
    request: &RequestTimes,
    s: &IterationSample,
    language: &Tokenised,
    driver: &dyn Driver,
) -> Result<(), CaseError> {
    let (i, example) = (s.iteration, request.example as usize);
    let Some(most) = language.job.output.get(example) else {
        return wrong(format!("sample {i} has a request of example {example}, there are {}", language.inputs.len()));
    };
    let most = (*most).max(1) as usize;
    // the first token of a prompt that was read before has no time
    let most = match driver.name() {
        "prefill" => 1,
        _ if driver.keeps_prompts() => most - 1,
        _ => most,
    };
    let n = request.tokens.len();
    // what is written may end with the token that is chosen before the clock starts
    let least = match (language.job.ignore_end, driver.keeps_prompts()) {
        (true, _) => most,
        (false, true) => 0,
        (false, false) => 1.min(most),
    };
    if !(least..=most).contains(&n) {
        return wrong(format!("sample {i} has {n} times of tokens of example {example}, {least} to {most} are due"));
    }
    let due = language.job.arrivals.get(example).filter(|_| driver.name() == REPLAYED);
    if due.is_some_and(|due| (due - request.arrived).abs() > CLOCK) {
        return wrong(format!(
            "sample {i} has {:e} s as the arrival of example {example}, the trace has {due:?}",
            request.arrived
        ));
    }
    let times = [request.arrived, request.begun].into_iter().chain(request.tokens.iter().copied());
    let times: Vec<f64> = times.collect();
    let within = |t: &f64| t.is_finite() && (0.0..=s.latency + CLOCK).contains(t);
    if !times.iter().all(within) || !times.is_sorted() {
        return wrong(format!(
            "sample {i} has times of example {example} that do not follow one another within its {:e} s",
            s.latency
        ));
    }
    Ok(())
}

/// The example and the tokens of a timed answer.
///
/// # Errors
/// It cannot be one.
pub(super) fn written(language: &Tokenised, row: PredictionRow) -> Result<(u64, Vec<u32>), CaseError> {
    let example = row.example;
    if example >= language.inputs.len() as u64 {
        return wrong(format!("an answer to example {example}, there are {}", language.inputs.len()));
    }
    let Answer::Tokens(tokens) = row.answer else {
        return wrong(format!(
            "the timed answer to example {example} is of kind {}, tokens are due",
            row.answer.kind().name()
        ));
    };
    match language.check_written(example as usize, &tokens) {
        Ok(()) => Ok((example, tokens)),
        Err(why) => wrong(format!("the timed answer to example {example} {why}")),
    }
}

/// How a block's timed answers compare with the scored ones.
#[derive(Debug, Default)]
pub(super) struct Alike {
    answers: u64,
    /// That begin with another token.
    others: u64,
    /// That differ anywhere.
    differ: u64,
    tokens: u64,
    /// Before the first difference.
    alike: u64,
    /// Answers that nothing is known to compare with.
    unknown: u64,
}

impl Alike {
    /// Takes a timed answer.
    pub fn take(&mut self, timed: &[u32], scored: Option<&Vec<u32>>) {
        let Some(scored) = scored else {
            self.unknown += 1;
            return;
        };
        let alike = timed.iter().zip(scored).take_while(|(a, b)| a == b).count();
        // an answer that is shorter because less was asked for is the same so far
        let differs = alike < timed.len().min(scored.len());
        self.answers += 1;
        self.others += u64::from(differs && alike == 0);
        self.differ += u64::from(differs);
        self.tokens += timed.len() as u64;
        self.alike += alike as u64;
    }

    /// What to say of it.
    ///
    /// # Errors
    /// The timed answers are not the scored ones.
    pub fn verdict(&self) -> Result<Option<String>, CaseError> {
        let Self { answers, others, differ, tokens, alike, unknown } = *self;
        if others as f64 > MOST_OTHERS * answers as f64 || (alike as f64) < LEAST_ALIKE * tokens as f64 {
            return wrong(format!(
                "{differ} of {answers} timed answers are not the scored ones: {others} begin otherwise, and {alike} of {tokens} tokens come before the first difference"
            ));
        }
        if differ > 0 {
            return Ok(Some(format!(
                "{differ} of {answers} timed answers part from the scored ones, {alike} of {tokens} tokens before that: rounding depends on the batch"
            )));
        }
        Ok((unknown > 0)
            .then(|| "its timed answers were not held to scored ones, which an earlier process had scored".into()))
    }
}

/// Times of tokens must be as many as the tokens that were told for the example.
///
/// # Errors
/// They are not.
pub(super) fn told(
    samples: &[IterationSample],
    written: &BTreeMap<u64, u64>,
    driver: &dyn Driver,
) -> Result<(), CaseError> {
    let before = u64::from(driver.keeps_prompts());
    for s in samples {
        for r in &s.requests {
            match written.get(&r.example) {
                None => return wrong(format!("example {} was timed and not answered", r.example)),
                Some(n) if *n != r.tokens.len() as u64 + before => {
                    let times = r.tokens.len();
                    return wrong(format!(
                        "sample {} has {times} times of tokens of example {}, whose answer has {n}",
                        s.iteration, r.example
                    ));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timed_answers_may_part_late_and_seldom() {
        let verdict = |pairs: &[(&[u32], &[u32])]| {
            let mut all = Alike::default();
            pairs.iter().for_each(|(timed, scored)| all.take(timed, Some(&scored.to_vec())));
            all.verdict()
        };
        assert_eq!(verdict(&[(&[1, 2, 3], &[1, 2, 3])]).unwrap(), None);
        // prefill gives the first token of a longer answer
        assert_eq!(verdict(&[(&[1], &[1, 2, 3])]).unwrap(), None);
        assert!(verdict(&[(&[1, 2, 3, 9], &[1, 2, 3, 4])]).unwrap().unwrap().contains("1 of 1"));
        assert!(verdict(&[(&[1, 9, 9, 9], &[1, 2, 3, 4])]).is_err());
        assert!(verdict(&[(&[9], &[1, 2, 3, 4]), (&[1, 2, 3, 4], &[1, 2, 3, 4])]).is_err());
        let mut unknown = Alike::default();
        unknown.take(&[1], None);
        assert!(unknown.verdict().unwrap().is_some());
    }
}
