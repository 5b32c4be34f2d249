//! What a worker may claim: its times held to the window that the harness saw, its steps to its answers, its counts to what a machine can do.
//!
//! In: samples and numbers as a worker sent them, what was asked, when the harness spoke and heard. Out: notes, or why they cannot be. Must
//! not: believe a number that nothing outside the worker bounds, or correct one.
//!
//! Here stands what cannot be, which ends a case. What may be the machine's doing too (a busy one lets a worker wait) is decided over all
//! blocks where a case is summarised, by the time that the harness saw ([`seen`]).
//!
//! What cannot be seen from outside: a worker that does half of its work in each iteration and still gives the scored answers, or one that
//! tells one iteration as two of half its time with other examples. Answers and, where it shows them, outputs are what binds it to the work.
//!
//! A worker without outputs is *accuracy only*, by name in the tables: it gets no `flops_model`, and `flop_rate` and
//! the share of the ceiling only from what it reports as executed.

use std::collections::BTreeMap;

use ergometer_reports::case::{CaseError, ErrorKind};

use super::process::case_error;
use crate::protocol::IterationSample;

/// Share of timed answers that may differ from the scored ones (a backend may round a row differently in another batch).
pub(super) const MAX_MISMATCHES: f64 = 0.01;

/// The shortest time that anything can take: less is no time of a clock.
pub const LEAST_SECONDS: f64 = 1e-8;

/// Nanoseconds by which two readings of the monotonic clock may disagree: a worker may read another clock for its latency.
const CLOCK_NS: f64 = 2_000.0;

/// What may lie between two iterations beside as much as the first of them took, seconds: keeping a sample, and keeping a row's answer.
const BETWEEN: f64 = 30e-6;
const BETWEEN_ROWS: f64 = 20e-6;

/// Share of the seconds asked for that a block must last, and of a duration that the harness saw that a worker must tell.
const COVERED: f64 = 0.9;

/// What may lie between what the harness sees of a duration and what a worker can time, seconds: sending, waking up and hearing.
const HEARING: f64 = 10e-3;

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
    /// Most iterations.
    pub most: usize,
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

/// A number in few characters, however large or small.
fn figure(value: f64) -> String {
    if (1e-6..1e9).contains(&value.abs()) || value == 0.0 { value.to_string() } else { format!("{value:e}") }
}

/// A duration that a worker tells of work that the harness saw begin and end within `most` seconds and take at least `least`: a time, no
/// longer than that and not much shorter.
///
/// # Errors
/// It cannot be. `Ok(Err)`: it is much shorter than what was seen, and is withheld with this reason.
pub fn duration(what: &str, reported: f64, least: f64, most: f64) -> Result<Result<f64, String>, CaseError> {
    if !(reported.is_finite() && reported >= LEAST_SECONDS) {
        return wrong(format!("the worker gave {} s as {what}, which is no time", figure(reported)));
    }
    if reported > most + CLOCK_NS * 1e-9 {
        return wrong(format!("the worker gave {reported:.6e} s as {what}, but it was over within {most:.6} s"));
    }
    if reported < COVERED * (least - HEARING) {
        let reported = figure(reported);
        return Ok(Err(format!("the worker gave {reported} s as {what}, and the harness saw {least:.6} s pass")));
    }
    Ok(Ok(reported))
}

/// Of the time between `go` and `measured`, what the worker answers for: less what the kernel made the harness wait for a processor after the
/// last iteration (`own`), and the worker before the first one (`worker`).
pub fn seen(samples: &[IterationSample], window: &Window, own: f64, worker: f64) -> f64 {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return window.seconds() };
    let before = first.t_ns.saturating_sub(window.opened_ns) as f64 * 1e-9;
    let after = (window.closed_ns.saturating_sub(last.t_ns) as f64 * 1e-9 - last.latency).max(0.0);
    window.seconds() - own.clamp(0.0, after) - worker.clamp(0.0, before)
}

/// A number of bytes that some machine can hold.
pub fn bytes(what: &str, reported: u64) -> Result<f64, CaseError> {
    if reported > MOST_BYTES {
        return wrong(format!("the worker gave {reported} bytes as {what}, more than any machine holds"));
    }
    Ok(reported as f64)
}

/// Operations that can have been executed in so many seconds.
pub fn flops(reported: f64, seconds: f64) -> Result<f64, CaseError> {
    if !(reported.is_finite() && (reported == 0.0 || reported >= 1.0)) {
        return wrong(format!("the worker gave {reported:e} as flops_executed, which is no count"));
    }
    if reported > MOST_FLOPS * seconds {
        return wrong(format!(
            "the worker gave {reported:e} as flops_executed within {seconds:.6} s: above {MOST_FLOPS:e} a second, which nothing computes"
        ));
    }
    Ok(reported)
}

/// Samples must be possible, and what is reported of their steps must be what their answers took. Gives what a reader must know.
/// `depths`: the steps that the answers of the block took, by example.
pub fn samples(
    samples: &[IterationSample],
    depths: &BTreeMap<u64, u64>,
    asked: &Asked,
    window: &Window,
) -> Result<Option<String>, CaseError> {
    if samples.is_empty() {
        return wrong("a timed block without samples".into());
    }
    let mut timed = vec![false; usize::try_from(asked.examples).unwrap_or(0)];
    for (s, due) in samples.iter().zip(0..) {
        if !(s.latency.is_finite() && s.latency >= LEAST_SECONDS) {
            return wrong(format!("the worker gave {} as latency, which is no time", figure(s.latency)));
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
    times(samples, asked, window)?;
    if let Some(example) = timed.iter().zip(0..).find_map(|(t, i)| (*t && !depths.contains_key(&i)).then_some(i)) {
        return wrong(format!("example {example} was timed and not answered"));
    }
    steps(samples, depths, asked)
}

/// The examples of an iteration, each once; it wraps round at the end of the task.
fn met(s: &IterationSample, examples: u64) -> impl Iterator<Item = u64> {
    let first = s.example;
    (0..s.rows.min(examples)).map(move |i| (first + i) % examples)
}

/// Steps of each sample against those of the answers to its examples.
fn steps(samples: &[IterationSample], depths: &BTreeMap<u64, u64>, asked: &Asked) -> Result<Option<String>, CaseError> {
    let reported = |s: &IterationSample| {
        (0..s.rows).map(|i| depths.get(&((s.example + i) % asked.examples)).copied().unwrap_or(0)).sum::<u64>()
    };
    let mut others = samples.iter().filter(|s| reported(s) != s.steps);
    let Some(first) = others.next() else { return Ok(None) };
    let count = 1 + others.count();
    // a row may halt elsewhere where rounding depends on what else is computed
    if count as f64 > MAX_MISMATCHES * samples.len() as f64 {
        return wrong(format!(
            "sample {} claims {} steps, and the answers to its examples took {}",
            first.iteration,
            first.steps,
            reported(first)
        ));
    }
    Ok(Some(format!("{count} of {} iterations took other steps than their answers in the same block", samples.len())))
}

/// Samples within the window, one after the other, and most of them followed by the next.
pub(super) fn times(samples: &[IterationSample], asked: &Asked, window: &Window) -> Result<(), CaseError> {
    let open = window.seconds();
    let sum: f64 = samples.iter().map(|s| s.latency).sum();
    if sum > open + CLOCK_NS * 1e-9 * samples.len() as f64 {
        return wrong(format!("the samples add up to {} s, but were measured within {open:.6} s", figure(sum)));
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
    if samples.len() < asked.most && (samples.len() as u64) < asked.n {
        return wrong(format!("{} samples, {} were asked for", samples.len(), asked.n));
    }
    if samples.len() < asked.most && open < COVERED * asked.seconds {
        return wrong(format!("the block was over after {open:.6} s, {} s were asked for", asked.seconds));
    }
    // a busy machine takes the processor away now and then, and not in most gaps
    let allowed = BETWEEN + BETWEEN_ROWS * asked.batch as f64;
    let long = |pair: &&[IterationSample]| (start(&pair[1]) - end(&pair[0])) * 1e-9 > pair[0].latency + allowed;
    let gaps = samples.len() - 1;
    if 2 * samples.windows(2).filter(long).count() > gaps {
        return wrong(format!(
            "the samples add up to {sum:.6} s of {open:.6} s, and most are followed by more time than they took: what was done in it is not told"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked = Asked { batch: 2, max_steps: 16, examples: 4, n: 4, most: 10, seconds: 0.4 };
    const WINDOW: Window = Window { opened_ns: 1_000_000_000, closed_ns: 1_405_000_000 };

    /// Iterations of 100 ms one after the other, and the answers that they gave.
    fn honest() -> (Vec<IterationSample>, BTreeMap<u64, u64>) {
        let sample = |i: u64| IterationSample {
            block: 3,
            iteration: i,
            t_ns: 1_001_000_000 + i * 100_100_000,
            example: 2 * i % 4,
            rows: 2,
            latency: 0.1,
            steps: if i.is_multiple_of(2) { 20 } else { 7 },
            row_seconds: Vec::new(),
            requests: Vec::new(),
        };
        ((0..4).map(sample).collect(), BTreeMap::from([(0, 16), (1, 4), (2, 3), (3, 4)]))
    }

    fn reported(change: impl Fn(&mut Vec<IterationSample>, &mut BTreeMap<u64, u64>)) -> Result<Option<String>, String> {
        let (mut all, mut rows) = honest();
        change(&mut all, &mut rows);
        samples(&all, &rows, &ASKED, &WINDOW).map_err(|e| e.message)
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(reported(|_, _| {}), Ok(None));
        let each = |f: fn(&mut IterationSample)| reported(move |s, _| s.iter_mut().for_each(f));
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
            (reported(|s, _| s.swap(0, 1)), "sample 1 came where sample 0 was due"),
            (reported(|s, _| *s = s.iter().flat_map(|x| [x.clone(), x.clone()]).collect()), "where sample 1 was due"),
            (reported(|s, _| s.truncate(s.len() - 1)), "3 samples, 4 were asked for"),
            (each(|s| s.steps = 2), "claims 2 steps, and the answers to its examples took 20"),
            (each(|s| s.steps = 32), "claims 32 steps"),
            (reported(|_, r| r.retain(|e, _| *e != 3)), "example 3 was timed and not answered"),
        ];
        for (reported, part) in lies {
            let message = reported.expect_err(part);
            assert!(message.contains(part), "`{message}`, not `{part}`");
        }
        let huge = each(|s| s.latency = 1e300).unwrap_err();
        assert!(huge.len() < 200, "{huge}");
        // each sample twice at half of its time, as if it were one more
        let twice = |s: &mut Vec<IterationSample>, _: &mut BTreeMap<u64, u64>| {
            let halves = s.iter().flat_map(|x| [x.clone(), x.clone()]).zip(0..);
            *s = halves.map(|(x, i)| IterationSample { iteration: i, latency: x.latency / 2.0, ..x }).collect();
        };
        assert!(reported(twice).unwrap_err().contains("overlap"));
        // `measured` after half of the block
        let (all, rows) = honest();
        let half = Window { closed_ns: 1_203_000_000, ..WINDOW };
        assert!(samples(&all, &rows, &ASKED, &half).unwrap_err().message.contains("measured within"));
        let half_told = samples(&all[..2], &rows, &Asked { n: 1, ..ASKED }, &half);
        assert!(half_told.unwrap_err().message.contains("0.4 s were asked for"));
    }

    #[test]
    fn what_an_honest_worker_does_between_its_iterations_ends_no_case() {
        let short = |gap_ns: u64| {
            let sample = |i: u64| IterationSample {
                block: 0,
                iteration: i,
                t_ns: 1_000_100_000 + i * (20_000 + gap_ns),
                example: 0,
                rows: 1,
                latency: 20e-6,
                steps: 1,
                row_seconds: Vec::new(),
                requests: Vec::new(),
            };
            let all: Vec<_> = (0..1000).map(sample).collect();
            let asked = Asked { batch: 1, max_steps: 1, examples: 1, n: 1, most: 10_000, seconds: 0.02 };
            let closed_ns = all[999].t_ns + 40_000;
            samples(&all, &BTreeMap::from([(0, 1)]), &asked, &Window { opened_ns: 1_000_000_000, closed_ns })
        };
        assert!(short(1_000).is_ok() && short(20_000).is_ok());
        assert!(short(200_000).is_err());
    }

    #[test]
    fn waiting_for_a_processor_is_not_the_workers_and_no_more_than_lies_there() {
        let (all, _) = honest();
        // 1 ms before the first iteration, 300 us between two, 3.7 ms after the last
        let s = |own, worker| (1e4 * seen(&all, &WINDOW, own, worker)).round() / 1e4;
        assert_eq!([s(0.0, 0.0), s(0.003, 0.0), s(9.0, 0.0)], [0.405, 0.402, 0.4013]);
        assert_eq!([s(0.0, 0.0005), s(0.0, 9.0), s(9.0, 9.0)], [0.4045, 0.404, 0.4003]);
    }

    #[test]
    fn bounds_are_physical() {
        assert_eq!(duration("load time", 0.55, 0.6, 0.61).unwrap(), Ok(0.55));
        for bad in [1e300, 0.7, 5e-324, 0.0, -0.0, -1.0, f64::NAN] {
            assert!(duration("load time", bad, 0.6, 0.61).is_err(), "{bad}");
        }
        for short in [1e-8, 0.3, 0.53] {
            let why = duration("load time", short, 0.6, 0.61).unwrap().unwrap_err();
            assert!(why.contains("the harness saw 0.600000 s pass"), "{why}");
        }
        // what is shorter than waking up takes
        assert_eq!(duration("load time", 1e-6, 0.01, 0.02).unwrap(), Ok(1e-6));
        assert_eq!(flops(2e9, 1.0).unwrap(), 2e9);
        for bad in [1e300, 5e-324, 0.5, -1.0, 2e18, f64::INFINITY] {
            assert!(flops(bad, 1.0).is_err(), "{bad}");
        }
        assert!(bytes("weight_bytes", u64::MAX).is_err() && bytes("weight_bytes", 1 << 40).is_ok());
    }
}
