//! What a run folder holds: columns, limits, kinds of names, and what is wrong with a case or a row.
//!
//! In: cases and rows. Out: a [`RecordedRun`] and its parts, faults with their remedies. Must not: open a file. What is
//! written and what is read are held to the same faults here, so that nothing is stored which could not be read back.

use std::collections::BTreeSet;

use super::{examples::RecordedExample, samples::Samples};
use crate::{
    case::{Attempt, Case, ExampleSum, PHASES, Prediction, SCHEMA, Sample, Verdict},
    environment::Environment,
    metric::{Combined, How, METRICS, PAIR, metric},
};

/// Largest `case.json` or `environment.json`, bytes.
pub const MAX_JSON_BYTES: u64 = 16 << 20;
/// Largest `samples.csv`, `predictions.csv` or `attempts.csv`, bytes.
pub const MAX_CSV_BYTES: u64 = 1 << 30;
/// Most rows of one CSV file. A run of more observations has them in several cases.
pub const MAX_ROWS: usize = 5_000_000;
/// Most rows of `predictions.csv`: 422,786 puzzles with an answer after each of 16 steps, should each of them be kept.
pub const MAX_PREDICTIONS: usize = 8_000_000;
/// Most cases of one run.
pub const MAX_CASES: usize = 10_000;
/// Most baselines, notes, reasons, settings tried, routed layers, starts or versions that one `case.json` may list.
pub const MAX_LISTED: usize = 2_000;

/// Longest readable part of a slug in bytes; most file systems allow names of 255.
const SLUG_BYTES: usize = 180;

/// Columns of `samples.csv`, in order: the fields of [`Sample`].
pub(super) const SAMPLE_COLUMNS: [&str; 8] =
    ["block", "phase", "iteration", "t_ns", "example", "rows", "metric", "value"];
/// Columns of `predictions.csv`, in order: the fields of [`Prediction`].
pub(super) const PREDICTION_COLUMNS: [&str; 9] =
    ["example", "cluster", "depth", "last", "halt_logit", "answer", "exact", "right", "cells"];
/// More of them, each where there is something to say, in this order: whether the answer keeps its task's rules, where
/// the task tells such answers from the one that it asks for; how hard the example is.
pub(super) const MORE_PREDICTION_COLUMNS: [&str; 2] = ["valid", "difficulty"];

/// Columns of `attempts.csv`, in order: the fields of [`Attempt`].
pub(super) const ATTEMPT_COLUMNS: [&str; 10] =
    ["question", "name", "cluster", "depth", "last", "part", "attempt", "source", "right", "rows"];

/// Columns of `sums.csv`, in order: the fields of [`ExampleSum`].
pub(super) const SUM_COLUMNS: [&str; 6] = ["example", "cluster", "metric", "part", "numerator", "denominator"];
/// Longest name of a scorer program's own pair, and most of such names.
const MAX_PAIR_NAME: usize = 40;
/// Longest text of an answer: a line is at most a MiB.
pub const MAX_ANSWER: usize = (1 << 20) - 1024;

/// Name of a case's folder: its path with `/` as `~` and everything unusual as `_`, then `~` and the first 8 digits of
/// its id.
pub fn slug(path: &str, id: &str) -> String {
    let mut slug = String::new();
    for character in path.chars().take(SLUG_BYTES) {
        slug.push(match character {
            '/' => '~',
            '.' if slug.is_empty() => '_',
            c if c.is_ascii_alphanumeric() || "._-+=".contains(c) => c,
            _ => '_',
        });
    }
    slug.push('~');
    slug.extend(id.chars().filter(char::is_ascii_hexdigit).take(8));
    slug
}

/// Bytes of a worker's log that are kept.
pub const MAX_LOG_BYTES: u64 = 64 << 20;

/// One case as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseRun {
    /// What it is and how it ended.
    pub case: Case,
    /// Every observation, in the order of the file.
    pub samples: Samples,
    /// Every answer.
    pub predictions: Vec<Prediction>,
    /// Every attempt at a question, where the task decides questions from several rows and this case is the one that is
    /// scored.
    pub attempts: Vec<Attempt>,
    /// What its scorer summed of each answer of record, where it is scored by one that does.
    pub sums: Vec<ExampleSum>,
}

/// A recorded run.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedRun {
    /// Machine, build, versions, meters.
    pub environment: Environment,
    /// Finished cases, sorted by path, then id.
    pub cases: Vec<CaseRun>,
    /// What examples of tasks of language asked, where the run kept it.
    pub examples: Vec<RecordedExample>,
}

/// What is wrong with something that may be stored, and the remedy.
pub(super) type Fault = (String, String);

/// Why a case may be neither written nor read.
pub(super) fn case_fault(case: &Case) -> Option<Fault> {
    if case.id.len() < 8 || !case.id.bytes().all(|b| b.is_ascii_hexdigit()) {
        let message = format!("`id` is `{}`, not hex digits", case.id);
        return Some((message, "the id is the sha256 of the case's key".into()));
    }
    if let Some(fault) = length_fault(case) {
        return Some(fault);
    }
    let lists = [
        ("baselines", case.baselines.len()),
        ("unavailable", case.unavailable.len()),
        ("notes", case.notes.len()),
        ("routing", case.routing.len()),
        ("starts", case.starts.len()),
        ("versions", case.versions.len()),
        ("tuning.tried", case.tuning.as_ref().map_or(0, |t| t.tried.len())),
        ("key.backend_options", case.key.backend_options.len()),
    ];
    if let Some((name, n)) = lists.iter().find(|(_, n)| *n > MAX_LISTED) {
        return Some((format!("`{name}` lists {n}"), format!("at most {MAX_LISTED} are read; was the file edited?")));
    }
    if case.starts.windows(2).any(|w| w[0] >= w[1]) {
        return Some(("`starts` does not ascend".into(), "it holds the first block of each start, in order".into()));
    }
    if let Some(unknown) = case.unavailable.iter().find(|u| metric(&u.metric).is_none()) {
        return Some(unknown_metric(&unknown.metric));
    }
    // serde_json refuses NaN but reads 1e999 as infinity
    let verdict_ok = match &case.verdict {
        Some(Verdict::Reference { largest, limit, .. } | Verdict::Peer { largest, limit, .. }) => {
            largest.is_finite() && limit.is_finite()
        }
        _ => true,
    };
    let costs_ok = case.costs.is_none_or(|c| {
        [c.flops_admit, c.flops_step, c.step_weight_bytes, c.step_value_bytes].iter().all(|v| v.is_finite())
    });
    let hint = "a value that cannot be had is `unavailable`, with its reason";
    (!verdict_ok || !costs_ok).then(|| ("a number is not finite".into(), hint.into()))
}

/// Most entries of a list or map of `case.json`, by name; each is far above what any run writes.
pub(super) const MAX_ENTRIES: usize = 4096;

/// Most attempts at one output: reports count what each of them brought.
const MAX_ATTEMPTS: u32 = 1000;

/// Most experts of one layer, and of all layers.
const MAX_EXPERTS: usize = 100_000;

/// A list that is longer than any that is written: what is done for each pair of entries would take for ever.
fn length_fault(case: &Case) -> Option<Fault> {
    let tried = case.tuning.as_ref().map_or(0, |t| t.tried.len());
    let lists = [
        ("baselines", case.baselines.len(), 64),
        ("unavailable", case.unavailable.len(), METRICS.len()),
        ("notes", case.notes.len(), MAX_ENTRIES),
        ("versions", case.versions.len(), MAX_ENTRIES),
        ("backend_options", case.key.backend_options.len(), MAX_ENTRIES),
        ("tried", tried, MAX_ENTRIES),
        ("routing", case.routing.len(), MAX_ENTRIES),
        ("load", case.routing.iter().map(|r| r.load.len().max(r.probability.len())).sum(), MAX_EXPERTS),
    ];
    let (name, n, most) = lists.into_iter().find(|(_, n, most)| n > most)?;
    let hint = "the file is not as ergometer writes it; was it edited?";
    Some((format!("`{name}` has {n} entries, at most {most} are read"), hint.into()))
}

/// The phase of this name, as the table of phases has it.
pub(super) fn phase(name: &str) -> Result<&'static str, Fault> {
    PHASES.into_iter().find(|known| *known == name).ok_or_else(|| {
        let shown: String = name.chars().take(60).collect();
        (format!("unknown phase `{shown}`"), format!("the phases are {}", PHASES.join(", ")))
    })
}

/// The metric of this name, as the table of metrics has it.
pub(super) fn metric_name(name: &str) -> Result<&'static str, Fault> {
    metric(name).map(|metric| metric.name).ok_or_else(|| unknown_metric(name))
}

/// Why observations may be neither written nor read.
pub(super) fn samples_fault(samples: &Samples) -> Option<Fault> {
    let [phases, metrics] = samples.names();
    let name = phases.iter().find_map(|name| phase(name).err());
    name.or_else(|| metrics.iter().find_map(|name| metric_name(name).err())).or_else(|| {
        samples.iter().find_map(|sample| {
            let (message, hint) = value_fault(&sample)?;
            Some((format!("{message} (block {} of `samples.csv`)", sample.block), hint))
        })
    })
}

/// Why the value of a row of `samples.csv` may be neither written nor read.
pub(super) fn value_fault(sample: &Sample) -> Option<Fault> {
    let (metric, value) = (sample.metric, sample.value);
    if value < 0.0 || value == 0.0 && TIMES.contains(&metric) {
        return Some((
            format!("`{metric}` of {value}, which nothing takes"),
            "the file is not as ergometer writes it; was it edited?".into(),
        ));
    }
    not_finite(metric, value)
}

/// Observations that are never 0: a clock tells two moments apart.
const TIMES: [&str; 4] = ["latency", "window", "load_time", "first_latency"];

/// Why a row of `predictions.csv` may be neither written nor read.
pub(super) fn prediction_fault(prediction: &Prediction) -> Option<Fault> {
    if prediction.right > prediction.cells {
        let message = format!("{} right of {} cells", prediction.right, prediction.cells);
        return Some((message, "`right` counts cells and cannot exceed `cells`".into()));
    }
    if prediction.depth == 0 {
        return Some(("depth is 0".into(), "a one-shot model has depth 1".into()));
    }
    if prediction.answer.len() > MAX_ANSWER {
        let message = format!("an answer of {} bytes, {MAX_ANSWER} are the most", prediction.answer.len());
        return Some((message, "read classes off the output and not its values, or score smaller pieces".into()));
    }
    not_finite("halt_logit", prediction.halt_logit?)
}

/// Whether a scorer program may call a pair of its own so: up to 40 letters, digits, `-` and `_`.
pub fn pair_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=MAX_PAIR_NAME).contains(&name.len()) && name.chars().all(plain)
}

/// Why a row of `sums.csv` may be neither written nor read.
pub(super) fn sum_fault(sum: &ExampleSum) -> Option<Fault> {
    let how = metric(&sum.metric).map(|m| m.how);
    let known = matches!(how, Some(How::Sums(_))) || sum.metric.strip_prefix(PAIR).is_some_and(pair_name);
    if !known {
        let shown: String = sum.metric.chars().take(60).flat_map(char::escape_debug).collect();
        return Some((
            format!("`{shown}` is made of no sums"),
            "the file is not as ergometer writes it; was it edited?".into(),
        ));
    }
    let score = matches!(how, Some(How::Sums(Combined::Area)));
    if sum.denominator < 0.0 || score && ![0.0, 1.0].contains(&sum.denominator) {
        let message = format!("`{}` has the denominator {}", sum.metric, sum.denominator);
        return Some((message, "a denominator is 0 or more; of `auroc` it is the label, 0 or 1".into()));
    }
    not_finite(&sum.metric, sum.numerator).or_else(|| not_finite(&sum.metric, sum.denominator))
}

/// Why a row of `attempts.csv` may be neither written nor read.
pub(super) fn attempt_fault(attempt: &Attempt) -> Option<Fault> {
    if attempt.depth == 0 {
        return Some(("depth is 0".into(), "a one-shot model has depth 1".into()));
    }
    if attempt.attempt > MAX_ATTEMPTS {
        let message = format!("an attempt of number {}, {MAX_ATTEMPTS} is the most", attempt.attempt);
        return Some((
            message,
            "attempts at an output are numbered from 1 in the order in which they are handed in".into(),
        ));
    }
    if attempt.right && attempt.attempt == 0 {
        return Some(("a right attempt of number 0".into(), "0 stands for an output without an attempt".into()));
    }
    (attempt.rows == 0)
        .then(|| ("a question of 0 rows".into(), "a question is decided from the rows answered for it".into()))
}

/// Why attempts do not belong to their case: where it is scored by itself they must decide each of its questions once,
/// else there are none.
pub(super) fn questions_fault(case: &Case, attempts: &[Attempt]) -> Option<Fault> {
    let scored = case.error.is_none() && case.accuracy_from.as_ref() == Some(&case.id);
    let due = if scored { case.questions } else { 0 };
    let decided = attempts.iter().filter(|a| a.last).map(|a| a.question).collect::<BTreeSet<_>>().len() as u64;
    let message = format!("attempts of record decide {decided} questions, the case has {due}");
    let hint = "the attempts are not those of this case, or the file is missing or cut off; run the case again";
    (decided != due).then(|| (message, hint.into()))
}

fn not_finite(name: &str, value: f64) -> Option<Fault> {
    let hint = "a value that cannot be had is left out and named in `unavailable`";
    (!value.is_finite()).then(|| (format!("{name} is {value}"), hint.into()))
}

fn unknown_metric(name: &str) -> Fault {
    let mut near: Vec<_> = METRICS.iter().map(|m| (distance(name, m.name), m.name)).collect();
    near.sort();
    let near: Vec<_> = near.iter().take(3).map(|(_, n)| format!("`{n}`")).collect();
    let shown: String = name.chars().take(60).collect();
    (format!("unknown metric `{shown}`"), format!("the nearest names are {}", near.join(", ")))
}

/// Levenshtein distance over at most 40 characters.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(40).collect();
    let b: Vec<char> = b.chars().take(40).collect();
    ergometer_files::distance(&a, &b)
}

/// Why files of this schema are not read.
pub(super) fn schema_fault(schema: u32) -> Option<Fault> {
    let hint = match schema {
        SCHEMA => return None,
        1 => {
            "schema 1 called the column `rows` of samples.csv `row`: report it with the version of ergometer that wrote it, or run the suite again"
        }
        _ => "use the version of ergometer that wrote the run",
    };
    Some((format!("schema {schema}; this ergometer reads schema {SCHEMA}"), hint.into()))
}
