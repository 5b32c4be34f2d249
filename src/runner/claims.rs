//! What a worker may claim: its times held to the window that the harness saw, its steps to its answers, its counts to what a machine can do.
//!
//! In: samples and numbers as a worker sent them, what was asked, when the harness spoke and heard. Out: notes, or why they cannot be. Must
//! not: believe a number that nothing outside the worker bounds, or correct one.
//!
//! What cannot be seen from outside: a worker that does half of its work in each iteration and still gives the scored answers, or one that
//! tells one iteration as two of half its time with other examples. Answers and, where it shows them, outputs are what binds it to the work.

use std::collections::BTreeMap;

use ergometer_reports::case::{CaseError, ErrorKind};

use super::child::case_error;
use crate::protocol::{IterationSample, PredictionRow};
use crate::worker::MAX_ITERATIONS;

/// The shortest time that anything can take: less is no time of a clock.
pub const LEAST_SECONDS: f64 = 1e-8;

/// Nanoseconds by which two readings of the monotonic clock may disagree: a worker may read another clock for its latency.
const CLOCK_NS: f64 = 2_000.0;

/// Share of the time between the first iteration and the last that iterations must account for.
const COVERED: f64 = 0.9;

/// What may lie between two iterations beside that, seconds: keeping a sample, and keeping a row's answer.
const BETWEEN: f64 = 30e-6;
const BETWEEN_ROWS: f64 = 20e-6;

/// Longest time for which a scheduler may keep a worker waiting between two iterations, seconds; of two gaps in a block it is believed.
const PREEMPTED: f64 = 20e-3;

/// What may lie before the first iteration and after the last one, beside a tenth of the window, before it is told, and before it is an
/// error if it is more than half of the window: hearing a line, sending one, waking up on a busy machine.
const EDGES_TOLD: f64 = 2e-3;
const EDGES: f64 = 30e-3;

/// Operations per second, far above what any machine does: a larger claim is refused.
const MOST_FLOPS: f64 = 1e18;

/// Bytes that no machine of today holds.
const MOST_BYTES: u64 = 1 << 50;

/// What a timed block was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Rows of an iteration.
    pub batch: u64,
    /// Most steps of a row.
    pub max_steps: u64,
    /// Examples of the task.
    pub examples: u64,
    /// Least iterations.
    pub n: u64,
    /// Least seconds.
    pub seconds: f64,
}

/// The window as the harness saw it, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Before `go` was sent.
    pub opened_ns: u64,
    /// When `measured` was heard (or `done`, where the worker does not send it).
    pub closed_ns: u64,
}

impl Window {
    /// How long it was open.
    pub fn seconds(&self) -> f64 {
        self.closed_ns.saturating_sub(self.opened_ns) as f64 * 1e-9
    }
}

fn wrong<T>(message: String) -> Result<T, CaseError> {
    Err(case_error(ErrorKind::WrongOutput, message))
}

/// A duration that a worker tells of work that the harness saw begin and end: a time, and no longer than that.
pub fn duration(what: &str, told: f64, seen: f64) -> Result<f64, CaseError> {
    if !(told.is_finite() && (told == 0.0 || told >= LEAST_SECONDS)) {
        return wrong(format!("the worker gave {told:e} s as {what}, which is no time"));
    }
    if told > seen + CLOCK_NS * 1e-9 {
        return wrong(format!("the worker gave {told:.6e} s as {what}, but it was over within {seen:.6} s"));
    }
    Ok(told)
}

/// A number of bytes that some machine can hold.
pub fn bytes(what: &str, told: u64) -> Result<f64, CaseError> {
    if told > MOST_BYTES {
        return wrong(format!("the worker gave {told} bytes as {what}, more than any machine holds"));
    }
    Ok(told as f64)
}

/// Operations that can have been executed in so many seconds.
pub fn flops(told: f64, seconds: f64) -> Result<f64, CaseError> {
    if !(told.is_finite() && (told == 0.0 || told >= 1.0)) {
        return wrong(format!("the worker gave {told:e} as flops_executed, which is no count"));
    }
    if told > MOST_FLOPS * seconds {
        return wrong(format!(
            "the worker gave {told:e} as flops_executed within {seconds:.6} s: above {MOST_FLOPS:e} a second, which nothing computes"
        ));
    }
    Ok(told)
}

/// Samples must be possible, and what is told of their steps must be what their answers took. Gives what a reader must know.
pub fn samples(
    samples: &[IterationSample],
    rows: &[PredictionRow],
    asked: &Asked,
    window: &Window,
) -> Result<Vec<String>, CaseError> {
    if samples.is_empty() {
        return wrong("a timed block without samples".into());
    }
    let mut timed = vec![false; usize::try_from(asked.examples).unwrap_or(0)];
    for (s, due) in samples.iter().zip(0..) {
        if !(s.latency.is_finite() && s.latency >= LEAST_SECONDS) {
            return wrong(format!("the worker gave {} as latency, which is no time", s.latency));
        }
        if s.iteration != due {
            return wrong(format!("sample {} came where sample {due} was due", s.iteration));
        }
        let most = asked.batch.saturating_mul(asked.max_steps);
        if s.rows != asked.batch || s.steps < s.rows || s.steps > most || s.example >= asked.examples {
            return wrong(format!(
                "sample {} claims {} rows from example {} in {} steps: {} rows of at most {} steps were asked for",
                s.iteration, s.rows, s.example, s.steps, asked.batch, asked.max_steps
            ));
        }
        for example in met(s, asked.examples) {
            timed[example as usize] = true;
        }
    }
    let mut notes = times(samples, asked, window)?;
    let depths: BTreeMap<u64, u64> = rows.iter().map(|r| (r.example, u64::from(r.depth))).collect();
    if let Some(example) = timed.iter().zip(0..).find_map(|(t, i)| (*t && !depths.contains_key(&i)).then_some(i)) {
        return wrong(format!("example {example} was timed and not answered"));
    }
    notes.extend(steps(samples, &depths, asked)?);
    Ok(notes)
}

/// The examples of an iteration, each once; it wraps round at the end of the task.
fn met(s: &IterationSample, examples: u64) -> impl Iterator<Item = u64> {
    let first = s.example;
    (0..s.rows.min(examples)).map(move |i| (first + i) % examples)
}

/// Steps of each sample against those of the answers to its examples.
fn steps(samples: &[IterationSample], depths: &BTreeMap<u64, u64>, asked: &Asked) -> Result<Option<String>, CaseError> {
    let told = |s: &IterationSample| {
        (0..s.rows).map(|i| depths.get(&((s.example + i) % asked.examples)).copied().unwrap_or(0)).sum::<u64>()
    };
    let mut others = samples.iter().filter(|s| told(s) != s.steps);
    let Some(first) = others.next() else { return Ok(None) };
    let count = 1 + others.count();
    // a row may halt elsewhere where rounding depends on what else is computed
    if count as f64 > super::case::MAX_STRAYS * samples.len() as f64 {
        return wrong(format!(
            "sample {} claims {} steps, and the answers to its examples took {}",
            first.iteration,
            first.steps,
            told(first)
        ));
    }
    Ok(Some(format!("{count} of {} iterations took other steps than their answers in the same block", samples.len())))
}

/// Samples within the window, one after the other, and the window filled with them.
fn times(samples: &[IterationSample], asked: &Asked, window: &Window) -> Result<Vec<String>, CaseError> {
    let open = window.seconds();
    let sum: f64 = samples.iter().map(|s| s.latency).sum();
    if sum > open + CLOCK_NS * 1e-9 * samples.len() as f64 {
        return wrong(format!("the samples add up to {sum:.6} s, but were measured within {open:.6} s"));
    }
    // nanoseconds since the window opened
    let start = |s: &IterationSample| s.t_ns as f64 - window.opened_ns as f64;
    let end = |s: &IterationSample| start(s) + s.latency * 1e9;
    let closed = open * 1e9;
    for s in samples {
        if s.t_ns < window.opened_ns.saturating_sub(CLOCK_NS as u64) || end(s) > closed + CLOCK_NS {
            return wrong(format!(
                "sample {} lies outside the block: from {:.6} to {:.6} s after `go`, but were measured within {open:.6} s",
                s.iteration,
                start(s) * 1e-9,
                end(s) * 1e-9
            ));
        }
    }
    for pair in samples.windows(2) {
        if start(&pair[1]) + CLOCK_NS < end(&pair[0]) {
            return wrong(format!(
                "samples {} and {} overlap by {:.6} s",
                pair[0].iteration,
                pair[1].iteration,
                (end(&pair[0]) - start(&pair[1])) * 1e-9
            ));
        }
    }
    if samples.len() < MAX_ITERATIONS && (samples.len() as u64) < asked.n {
        return wrong(format!("{} samples, {} were asked for", samples.len(), asked.n));
    }
    if samples.len() < MAX_ITERATIONS && open < COVERED * asked.seconds {
        return wrong(format!("the block was over after {open:.6} s, {} s were asked for", asked.seconds));
    }
    let mut notes = Vec::new();
    let (first, last) = (&samples[0], &samples[samples.len() - 1]);
    let span = (end(last) - start(first)) * 1e-9;
    let allowed = (samples.len() - 1) as f64 * (BETWEEN + BETWEEN_ROWS * asked.batch as f64);
    // a busy machine takes the processor away now and then: the longest gaps of that length are no work that was not told
    let mut gaps: Vec<f64> = samples.windows(2).map(|pair| (start(&pair[1]) - end(&pair[0])) * 1e-9).collect();
    gaps.retain(|gap| (0.0..=PREEMPTED).contains(gap));
    gaps.sort_unstable_by(|a, b| b.total_cmp(a));
    let preempted: f64 = gaps.iter().take(2).sum();
    if sum < COVERED * (span - allowed - preempted) {
        return wrong(format!(
            "the samples add up to {sum:.6} s of the {span:.6} s from the first to the last: what was done in the rest is not told"
        ));
    }
    if sum < COVERED * span {
        notes.push(format!(
            "iterations fill {:.0} % of the time between the first and the last of a block",
            100.0 * sum / span
        ));
    }
    let edges = open - span;
    if edges > 0.5 * open && edges > 0.1 * open + EDGES {
        return wrong(format!(
            "the samples lie within {span:.6} s of a block of {open:.6} s: what was done in the rest is not told"
        ));
    }
    // a check measures one iteration, where the edges are what they are
    if edges > 0.1 * open + EDGES_TOLD && asked.seconds > 0.0 {
        notes.push(format!(
            "up to {:.0} % of a block's time lay before its first iteration or after its last",
            (10.0 * edges / open).ceil() * 10.0
        ));
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked = Asked { batch: 2, max_steps: 16, examples: 4, n: 4, seconds: 0.4 };
    const WINDOW: Window = Window { opened_ns: 1_000_000_000, closed_ns: 1_405_000_000 };

    /// Iterations of 100 ms one after the other, and the answers that they gave.
    fn honest() -> (Vec<IterationSample>, Vec<PredictionRow>) {
        let sample = |i: u64| IterationSample {
            block: 3,
            iteration: i,
            t_ns: 1_001_000_000 + i * 100_100_000,
            example: 2 * i % 4,
            rows: 2,
            latency: 0.1,
            steps: if i.is_multiple_of(2) { 20 } else { 7 },
        };
        let rows = [16, 4, 3, 4].into_iter().zip(0..);
        let row = |(depth, example)| PredictionRow { example, depth, last: true, halt_logit: None, answer: vec![] };
        ((0..4).map(sample).collect(), rows.map(row).collect())
    }

    fn told(change: impl Fn(&mut Vec<IterationSample>, &mut Vec<PredictionRow>)) -> Result<Vec<String>, String> {
        let (mut all, mut rows) = honest();
        change(&mut all, &mut rows);
        samples(&all, &rows, &ASKED, &WINDOW).map_err(|e| e.message)
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(told(|_, _| {}), Ok(vec![]));
        let each = |f: fn(&mut IterationSample)| told(move |s, _| s.iter_mut().for_each(f));
        let lies: [(Result<_, _>, &str); 15] = [
            (each(|s| s.latency = 0.0), "no time"),
            (each(|s| s.latency = 5e-324), "no time"),
            (each(|s| s.latency = f64::NAN), "no time"),
            (each(|s| s.latency *= 0.01), "is not told"),
            (each(|s| s.latency = 1e-8), "is not told"),
            (each(|s| s.latency *= 2.0), "but were measured within"),
            (each(|s| s.t_ns = 0), "outside the block"),
            (each(|s| s.t_ns += 900_000_000), "outside the block"),
            (each(|s| s.t_ns = 1_001_000_000 + s.iteration * 60_000_000), "overlap"),
            (told(|s, _| s.swap(0, 1)), "sample 1 came where sample 0 was due"),
            (told(|s, _| *s = s.iter().flat_map(|x| [x.clone(), x.clone()]).collect()), "where sample 1 was due"),
            (told(|s, _| s.truncate(s.len() - 1)), "3 samples, 4 were asked for"),
            (each(|s| s.steps = 2), "claims 2 steps, and the answers to its examples took 20"),
            (each(|s| s.steps = 32), "claims 32 steps"),
            (told(|_, r| r.truncate(r.len() - 1)), "example 3 was timed and not answered"),
        ];
        for (told, part) in lies {
            let message = told.expect_err(part);
            assert!(message.contains(part), "`{message}`, not `{part}`");
        }
        // all of it squeezed into a corner of the block
        let squeezed = told(|s, _| {
            for x in s {
                (x.latency, x.t_ns) = (0.01, 1_001_000_000 + x.iteration * 10_000_000);
            }
        });
        assert!(squeezed.unwrap_err().contains("lie within"));
        // each sample twice at half of its time, as if it were one more
        let twice = |s: &mut Vec<IterationSample>, _: &mut Vec<PredictionRow>| {
            let halves = s.iter().flat_map(|x| [x.clone(), x.clone()]).zip(0..);
            *s = halves.map(|(x, i)| IterationSample { iteration: i, latency: x.latency / 2.0, ..x }).collect();
        };
        assert!(told(twice).unwrap_err().contains("overlap"));
        // `measured` after half of the block
        let (all, rows) = honest();
        let half = Window { closed_ns: 1_203_000_000, ..WINDOW };
        assert!(samples(&all, &rows, &ASKED, &half).unwrap_err().message.contains("measured within"));
        let half_told = samples(&all[..2], &rows, &Asked { n: 1, ..ASKED }, &half);
        assert!(half_told.unwrap_err().message.contains("0.4 s were asked for"));
    }

    #[test]
    fn what_an_honest_worker_does_between_its_iterations_is_allowed_and_told() {
        let short = |gap_ns: u64| {
            let sample = |i: u64| IterationSample {
                block: 0,
                iteration: i,
                t_ns: 1_000_100_000 + i * (20_000 + gap_ns),
                example: 0,
                rows: 1,
                latency: 20e-6,
                steps: 1,
            };
            let all: Vec<_> = (0..1000).map(sample).collect();
            let row = PredictionRow { example: 0, depth: 1, last: true, halt_logit: None, answer: vec![] };
            let asked = Asked { batch: 1, max_steps: 1, examples: 1, n: 1, seconds: 0.02 };
            let closed_ns = all[999].t_ns + 40_000;
            samples(&all, &[row], &asked, &Window { opened_ns: 1_000_000_000, closed_ns })
        };
        assert_eq!(short(1_000).unwrap(), Vec::<String>::new());
        assert!(short(20_000).unwrap()[0].contains("fill 50 %"));
        assert!(short(200_000).is_err());
    }

    #[test]
    fn bounds_are_physical() {
        assert_eq!(duration("load time", 0.5, 0.6).unwrap(), 0.5);
        for bad in [1e300, 0.7, 5e-324, -1.0, f64::NAN] {
            assert!(duration("load time", bad, 0.6).is_err(), "{bad}");
        }
        assert_eq!(flops(2e9, 1.0).unwrap(), 2e9);
        for bad in [1e300, 5e-324, 0.5, -1.0, 2e18, f64::INFINITY] {
            assert!(flops(bad, 1.0).is_err(), "{bad}");
        }
        assert!(bytes("weight_bytes", u64::MAX).is_err() && bytes("weight_bytes", 1 << 40).is_ok());
    }
}
