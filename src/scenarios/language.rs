//! What the harness samples of requests to a language model: the same numbers for every scenario that has them.
//!
//! In: a timed block whose requests can be (`runner::requests` has seen to it). Out: observations. Must not: make a rate of times in which something
//! else was done too.
//!
//! Rates are kept with the tokens that they are of as `rows`, so that a record can weigh them: Σ tokens / Σ time.

use super::{Observation, TimedBlock, steady};
use crate::protocol::RequestTimes;

/// What a scenario's requests can tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestSamples {
    /// Prompts are read together and apart from anything else.
    pub prefill: bool,
    /// Tokens are decoded together and apart from anything else.
    pub decode: bool,
    /// Times between tokens.
    pub gaps: bool,
    /// Times to first tokens.
    pub first: bool,
}

/// The samples of a block's requests.
pub(super) fn of_requests(
    block: &TimedBlock,
    kept: RequestSamples,
    keep: &mut dyn FnMut(Observation),
) -> Result<(), String> {
    steady(block, keep);
    for s in block.iterations {
        let mut of = |metric, example: Option<u64>, rows: u64, value: f64| {
            keep(Observation { example, rows: Some(rows), ..Observation::of(s, metric, value) });
        };
        let prompt = |r: &RequestTimes| block.prompts.get(r.example as usize).copied().unwrap_or(0);
        let (read, written) =
            (s.requests.iter().map(prompt).sum::<u64>(), s.requests.iter().map(|r| r.tokens.len() as u64).sum::<u64>());
        // of each request, whether its prompt is read in the iteration or lay in the cache before
        for request in &s.requests {
            of("tokens_in", Some(request.example), 1, prompt(request) as f64);
        }
        if kept.decode || kept.gaps {
            of("tokens_out", None, s.rows, written as f64);
        }
        let begun = s.requests.iter().map(|r| r.begun).fold(f64::INFINITY, f64::min);
        let first = s.requests.iter().filter_map(|r| r.tokens.first()).fold(0.0, |m: f64, t| m.max(*t));
        if kept.prefill && read > 0 && first > begun {
            of("prefill_rate", None, read, read as f64 / (first - begun));
        }
        // without a prompt in the iteration its first tokens are decoded too
        let (from, decoded) = if kept.first { (first, written - s.requests.len() as u64) } else { (0.0, written) };
        let last = s.requests.iter().filter_map(|r| r.tokens.last()).fold(0.0, |m: f64, t| m.max(*t));
        if kept.decode && decoded > 0 && last > from {
            of("decode_rate", None, decoded, decoded as f64 / (last - from));
        }
        if kept.gaps && written > 0 {
            of("output_rate", None, written, written as f64 / s.latency);
        }
        if let Some(bounds) = block.served.filter(|_| kept.first && kept.gaps) {
            let well = s.requests.iter().filter(|r| well_served(r, bounds)).count();
            of("goodput_share", None, s.rows, well as f64 / s.requests.len().max(1) as f64);
        }
        if kept.first && !kept.prefill {
            lags(&s.requests).for_each(|(example, lag)| of("arrival_lag", Some(example), 1, lag));
        }
        for request in &s.requests {
            let example = Some(request.example);
            if let Some(first) = request.tokens.first().filter(|_| kept.first) {
                of("ttft", example, 1, first - request.arrived);
            }
            if kept.gaps {
                gaps(request, kept.first).for_each(|gap| of("tpot", example, 1, gap));
            }
        }
    }
    Ok(())
}

/// Of each request that came while nothing else was served: its example, and by how much its prompt was begun late.
fn lags(requests: &[RequestTimes]) -> impl Iterator<Item = (u64, f64)> {
    let mut all: Vec<&RequestTimes> = requests.iter().collect();
    all.sort_by(|a, b| a.arrived.total_cmp(&b.arrived));
    let mut busy = f64::NEG_INFINITY;
    all.into_iter().filter_map(move |r| {
        let idle = busy <= r.arrived;
        busy = r.tokens.last().copied().unwrap_or(r.begun).max(busy);
        idle.then_some((r.example, r.begun - r.arrived))
    })
}

/// Whether a request's first token came in time, and the others after one another on average; one token alone has no others.
fn well_served(request: &RequestTimes, (first, next): (f64, f64)) -> bool {
    let (Some(begin), Some(end)) = (request.tokens.first(), request.tokens.last()) else { return false };
    let gaps = request.tokens.len() - 1;
    begin - request.arrived <= first && (end - begin) <= next * gaps as f64
}

/// Times between tokens; the first one is from the start where no prompt came before it.
fn gaps(request: &RequestTimes, prompt: bool) -> impl Iterator<Item = f64> {
    let before = (!prompt).then_some(0.0).into_iter().chain(request.tokens.iter().copied());
    before.zip(request.tokens.iter().skip(usize::from(prompt))).map(|(a, b)| b - a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::IterationSample;

    fn observed(kept: RequestSamples, requests: &[RequestTimes]) -> Vec<(&'static str, u64, f64)> {
        let iteration = IterationSample {
            block: 0,
            iteration: 0,
            t_ns: 0,
            example: 0,
            rows: requests.len() as u64,
            latency: 1.0,
            steps: 5,
            row_seconds: Vec::new(),
            requests: requests.to_vec(),
        };
        let mut all = Vec::new();
        let block = TimedBlock {
            iterations: &[iteration],
            examples: 2,
            seconds: 1.0,
            prompts: &[10, 30],
            served: Some((0.3, 0.3)),
        };
        of_requests(&block, kept, &mut |o| all.push((o.metric, o.rows.unwrap(), o.value.unwrap()))).unwrap();
        all.retain(|o| !["latency", "steps_used"].contains(&o.0));
        all
    }

    #[test]
    fn what_is_begun_late_though_nothing_was_served_is_lag() {
        let request = |example, arrived, begun, last| RequestTimes { example, arrived, begun, tokens: vec![last] };
        // the second came while the first was served, the third when both were done, the fourth while the third was begun late
        let all = [
            request(3, 0.0, 0.25, 1.0),
            request(1, 0.5, 1.0, 2.0),
            request(2, 3.0, 3.5, 4.0),
            request(0, 3.25, 4.0, 5.0),
        ];
        assert_eq!(lags(&all).collect::<Vec<_>>(), [(3, 0.25), (2, 0.5)]);
    }

    #[test]
    fn times_become_rates_with_their_tokens() {
        let request =
            |example, tokens: &[f64]| RequestTimes { example, arrived: 0.0, begun: 0.0, tokens: tokens.to_vec() };
        let two = [request(0, &[0.25, 0.5, 1.0]), request(1, &[0.25, 0.5])];
        let all = observed(RequestSamples { prefill: true, decode: true, gaps: true, first: true }, &two);
        for wanted in [
            ("tokens_in", 1, 10.0),
            ("tokens_in", 1, 30.0),
            ("tokens_out", 2, 5.0),
            ("prefill_rate", 40, 160.0),
            ("decode_rate", 3, 4.0),
            ("output_rate", 5, 5.0),
            // the gaps of the first are 0.25 and 0.5
            ("goodput_share", 2, 0.5),
            ("ttft", 1, 0.25),
            ("tpot", 1, 0.25),
            ("tpot", 1, 0.5),
        ] {
            assert!(all.contains(&wanted), "{wanted:?} of {all:?}");
        }
        assert_eq!(all.iter().filter(|o| o.0 == "tpot").count(), 3);
        // without prompts every token has a time before it
        let all = observed(RequestSamples { prefill: false, decode: true, gaps: true, first: false }, &two[1..]);
        assert_eq!(all.iter().filter(|o| o.0 == "tpot").map(|o| o.2).collect::<Vec<_>>(), [0.25, 0.25]);
        assert!(all.contains(&("decode_rate", 2, 4.0)) && all.iter().all(|o| o.0 != "ttft" && o.0 != "prefill_rate"));
        // what its cache held before
        assert!(all.contains(&("tokens_in", 1, 30.0)), "{all:?}");
    }
}
