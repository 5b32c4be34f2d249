//! Scenarios and depth rules as data: how work is offered to a model, and when a recursive one stops.
//!
//! In: the words of suites (`offline-b32`, `halt-16`). Out: [`Scenario`] and [`Depth`], and the same words again. Must
//! not: know how a scenario is driven or what it samples; that is in `src/scenarios/` of the program, one file each.

use std::fmt;
use std::str::FromStr;

use crate::error::SuiteError;

/// Most rows of a batch.
pub const MAX_BATCH: u32 = 65_536;
/// Most supervision steps of a depth rule.
pub const MAX_DEPTH: u32 = 65_536;

/// One way of offering work: a row of [`SCENARIOS`].
#[derive(Debug, PartialEq, Eq)]
pub struct ScenarioKind {
    /// The word that it begins with.
    pub name: &'static str,
    /// The number that follows, where there is one.
    pub amount: Option<Amount>,
    /// A worker that does nothing but iterations of so many rows does not do this one: it has to say that it knows it.
    pub worker_must_know: bool,
    /// It is for language models, and they have no other.
    pub language: bool,
    /// One sentence for people.
    pub about: &'static str,
}

/// The number in a scenario's word.
#[derive(Debug, PartialEq, Eq)]
pub struct Amount {
    /// What stands between name and number.
    pub sign: &'static str,
    /// What it counts.
    pub of: AmountOf,
    /// The largest one; the smallest is 1.
    pub most: u32,
}

/// What the number of a scenario counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmountOf {
    /// Rows of an iteration. Without a number it has one.
    Rows,
    /// Processes that are timed, one iteration each. Otherwise one process is timed for as long as the suite says.
    Processes,
    /// Requests that arrive in a minute, on average.
    PerMinute,
}

/// Every scenario. Adding one: a row here, its file in `src/scenarios/` and its line there.
pub const SCENARIOS: &[ScenarioKind] = &[
    ScenarioKind {
        name: "single-stream",
        amount: None,
        worker_must_know: false,
        language: false,
        about: "one example at a time, the next when the last is done: latency",
    },
    ScenarioKind {
        name: OFFLINE,
        amount: Some(Amount { sign: "-b", of: AmountOf::Rows, most: MAX_BATCH }),
        worker_must_know: false,
        language: false,
        about: "all examples at hand, in batches of N rows: throughput",
    },
    ScenarioKind {
        name: "multi-stream",
        amount: Some(Amount { sign: "-", of: AmountOf::Rows, most: 1024 }),
        worker_must_know: true,
        language: false,
        about: "N examples issued together, the next N when all are done: latency of each, and of all",
    },
    ScenarioKind {
        name: "cold-start",
        amount: Some(Amount { sign: "-", of: AmountOf::Processes, most: 1000 }),
        worker_must_know: false,
        language: false,
        about: "N processes, one after another: start, loading and first answer of each",
    },
    ScenarioKind {
        name: "generate",
        amount: Some(Amount { sign: "-b", of: AmountOf::Rows, most: 1024 }),
        worker_must_know: true,
        language: true,
        about: "language: N requests together, prompt and output; the next N when all are done",
    },
    ScenarioKind {
        name: "prefill",
        amount: Some(Amount { sign: "-b", of: AmountOf::Rows, most: 1024 }),
        worker_must_know: true,
        language: true,
        about: "language: N prompts together, up to the first token of each",
    },
    ScenarioKind {
        name: "decode",
        amount: Some(Amount { sign: "-b", of: AmountOf::Rows, most: 1024 }),
        worker_must_know: true,
        language: true,
        about: "language: the tokens after the first of N requests whose prompts were read before the clock started",
    },
    ScenarioKind {
        name: "arrivals",
        amount: Some(Amount { sign: "-", of: AmountOf::PerMinute, most: 100_000 }),
        worker_must_know: true,
        language: true,
        about: "language: requests that arrive at random, N a minute (Poisson), served in slots that fill again; latency from the arrival",
    },
    ScenarioKind {
        name: TRACE,
        amount: None,
        worker_must_know: true,
        language: true,
        about: "language: requests that arrive when the task's trace says, served in slots that fill again; latency from the arrival",
    },
];

/// The scenario whose number a case's key has in its `batch` alone.
const OFFLINE: &str = "offline";
/// The scenario whose requests come when a trace says.
const TRACE: &str = "arrivals-trace";

impl ScenarioKind {
    /// How a suite writes it, e.g. `offline-bN`.
    pub fn pattern(&self) -> String {
        self.amount.as_ref().map_or(self.name.into(), |amount| format!("{}{}N", self.name, amount.sign))
    }

    /// What the number counts, e.g. `N rows`.
    pub fn amounts_to(&self) -> &'static str {
        match self.amount.as_ref().map(|amount| amount.of) {
            None => "one row",
            Some(AmountOf::Rows) => "N rows",
            Some(AmountOf::Processes) => "N processes",
            Some(AmountOf::PerMinute) => "N requests a minute",
        }
    }

    /// The number in a text that is this scenario, 1 where it has none.
    fn read(&self, text: &str) -> Option<u32> {
        match &self.amount {
            None => (text == self.name).then_some(1),
            Some(amount) => count(text.strip_prefix(self.name)?.strip_prefix(amount.sign)?, amount.most),
        }
    }
}

/// How work is offered: a kind and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    kind: &'static ScenarioKind,
    amount: u32,
}

impl Scenario {
    /// Its row of [`SCENARIOS`].
    pub fn kind(&self) -> &'static ScenarioKind {
        self.kind
    }

    /// Rows of an iteration.
    pub fn rows(&self) -> u32 {
        self.amount_of(AmountOf::Rows).unwrap_or(1)
    }

    /// Processes that are timed, one iteration each; `None`: one process, for as long as the suite says.
    pub fn processes(&self) -> Option<u32> {
        self.amount_of(AmountOf::Processes)
    }

    /// Requests that arrive in a minute; `None`: work is there when the last is done.
    pub fn per_minute(&self) -> Option<u32> {
        self.amount_of(AmountOf::PerMinute)
    }

    /// Requests come when the task's trace says.
    pub fn replays(&self) -> bool {
        self.kind.name == TRACE
    }

    /// Requests come by themselves, whether or not the last are done; rows are slots then.
    pub fn arrives(&self) -> bool {
        self.replays() || self.per_minute().is_some()
    }

    fn amount_of(&self, what: AmountOf) -> Option<u32> {
        self.kind.amount.as_ref().filter(|amount| amount.of == what).map(|_| self.amount)
    }

    /// Its word in a case's key: the word of the suite. Of `offline` it is the name alone, and the rows are the key's
    /// `batch`.
    pub fn in_key(&self) -> String {
        if self.kind.name == OFFLINE { OFFLINE.into() } else { self.to_string() }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind.amount {
            None => write!(f, "{}", self.kind.name),
            Some(amount) => write!(f, "{}{}{}", self.kind.name, amount.sign, self.amount),
        }
    }
}

impl FromStr for Scenario {
    type Err = SuiteError;

    fn from_str(text: &str) -> Result<Self, SuiteError> {
        let found = SCENARIOS.iter().find_map(|kind| Some(Scenario { kind, amount: kind.read(text)? }));
        found.ok_or_else(|| {
            let all: Vec<String> = SCENARIOS.iter().map(choice).collect();
            SuiteError::new(format!("unknown scenario `{text}`")).hint(format!("write {}", all.join(", or ")))
        })
    }
}

/// What to write for a scenario, e.g. `offline-bN` with N rows, 1 to 65536.
fn choice(kind: &ScenarioKind) -> String {
    let most = kind.amount.as_ref().map(|amount| format!(" with {}, 1 to {}", kind.amounts_to(), amount.most));
    format!("`{}`{}", kind.pattern(), most.unwrap_or_default())
}

/// When a recursive model stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// One step: what a one-shot model does.
    Once,
    /// Exactly this many supervision steps.
    Fixed(u32),
    /// At the halting head's word, after at most this many steps; who has halted costs nothing any more.
    Halt(u32),
    /// The same, and who has halted is computed on until the last of its batch has: the same answers, at the cost of
    /// code that masks.
    HaltKeep(u32),
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Depth::Once => write!(f, "once"),
            Depth::Fixed(steps) => write!(f, "fixed-{steps}"),
            Depth::Halt(steps) => write!(f, "halt-{steps}"),
            Depth::HaltKeep(steps) => write!(f, "halt-keep-{steps}"),
        }
    }
}

impl FromStr for Depth {
    type Err = SuiteError;

    fn from_str(text: &str) -> Result<Self, SuiteError> {
        let steps = |prefix| text.strip_prefix(prefix).and_then(|n| count(n, MAX_DEPTH));
        if text == "once" {
            Ok(Depth::Once)
        } else if let Some(n) = steps("fixed-") {
            Ok(Depth::Fixed(n))
        } else if let Some(n) = steps("halt-keep-") {
            Ok(Depth::HaltKeep(n))
        } else if let Some(n) = steps("halt-") {
            Ok(Depth::Halt(n))
        } else {
            Err(SuiteError::new(format!("unknown depth `{text}`"))
                .hint(format!("`once`, `fixed-N`, `halt-N` or `halt-keep-N` with N steps, 1 to {MAX_DEPTH}")))
        }
    }
}

/// A count from 1 to `most`, written one way only, so that two spellings never name one case.
fn count(text: &str, most: u32) -> Option<u32> {
    let n: u32 = text.parse().ok()?;
    (n >= 1 && n <= most && n.to_string() == text).then_some(n)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_scenario_is_read_as_it_is_written_and_bounded() {
        let mut names = BTreeSet::new();
        for kind in SCENARIOS {
            assert!(names.insert(kind.name), "{} is there twice", kind.name);
            let Some(amount) = &kind.amount else {
                assert_eq!(kind.name.parse::<Scenario>().unwrap().to_string(), kind.name);
                assert!(format!("{}-1", kind.name).parse::<Scenario>().is_err());
                continue;
            };
            let word = |n: &str| format!("{}{}{n}", kind.name, amount.sign);
            for n in [1, 7, amount.most] {
                let text = word(&n.to_string());
                let scenario: Scenario = text.parse().unwrap();
                assert_eq!((scenario.to_string(), scenario.kind().name), (text, kind.name));
                let told = (scenario.rows(), scenario.processes(), scenario.per_minute());
                let due = match amount.of {
                    AmountOf::Rows => (n, None, None),
                    AmountOf::Processes => (1, Some(n), None),
                    AmountOf::PerMinute => (1, None, Some(n)),
                };
                assert_eq!(told, due, "{scenario}");
            }
            let beyond = (u64::from(amount.most) + 1).to_string();
            for n in ["", "0", "-1", "+1", "01", "1 ", "1.0", "N", beyond.as_str()] {
                let error = word(n).parse::<Scenario>().unwrap_err().to_string();
                assert!(error.contains("unknown scenario") && error.contains(&amount.most.to_string()), "{error}");
                assert!(error.contains(&kind.pattern()), "{error}");
            }
            assert!(kind.name.parse::<Scenario>().is_err(), "{} needs its number", kind.name);
        }
    }

    #[test]
    fn keys_are_those_of_the_first_records() {
        let key = |text: &str| text.parse::<Scenario>().unwrap().in_key();
        assert_eq!(
            [key("single-stream"), key("offline-b1"), key("offline-b32")],
            ["single-stream", "offline", "offline"]
        );
    }
}
