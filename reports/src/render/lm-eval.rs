//! `lm-eval/`: quality of language models in the files that lm-evaluation-harness writes (0.4.13): `results_NAME.json` for each model as a backend
//! computes it in a precision, and `samples_TASK_NAME.jsonl`, a line an example.
//!
//! In: a [`Report`]. Out: these files; none where the run has no scored language model. Must not: write a field that the run does not know: the name
//! of a tokenizer, seeds of other libraries, what was shown before a question, whether a choice is the greedy one.
//!
//! `acc` is the share of right answers, of choices by the sum of log-probabilities; `acc_bytes` by that over the bytes of the choice. `acc_stderr` is
//! lm-evaluation-harness's: the standard deviation of examples over the root of their number, examples taken as independent. The record's own
//! interval, which minds clusters, stands under `ergometer`. There is no `n-shot`: a prompt is recorded as it is.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Files;
use crate::{
    case::{CaseKey, ExampleSum, Prediction},
    metric::is_of_language,
    report::Report,
    store::{CaseRun, RecordedExample},
};

/// Metrics of a record with what lm-evaluation-harness calls them, and whether more is better.
const NAMES: [(&str, &str, bool); 7] = [
    ("choice_accuracy", "acc", true),
    ("choice_accuracy_normalised", "acc_bytes", true),
    ("accuracy", "acc", true),
    ("perplexity", "perplexity", false),
    ("nll", "nll", false),
    ("cer", "cer", false),
    ("wer", "wer", false),
];

/// What a results file is of: a model as it was computed, so many requests at a time.
fn sitting(key: &CaseKey) -> (String, String, String, String, u32) {
    let options: Vec<String> = key.backend_options.iter().map(|(k, v)| format!("{k}={v}")).collect();
    (key.model.clone(), key.backend.clone(), key.precision.clone(), options.join(","), key.batch)
}

/// Makes the files.
pub fn render(report: &Report) -> Files {
    let mut sittings: BTreeMap<_, Vec<&CaseRun>> = BTreeMap::new();
    for case in &report.run.cases {
        let scored = case.case.accuracy_from.as_ref() == Some(&case.case.id) && report.error(&case.case).is_none();
        let graded = NAMES.iter().any(|(metric, ..)| report.value(&case.case, metric).is_some());
        if scored && graded && is_of_language(&case.case.key.scenario) {
            sittings.entry(sitting(&case.case.key)).or_default().push(case);
        }
    }
    let examples: BTreeMap<(&str, u64), &RecordedExample> =
        report.run.examples.iter().map(|e| ((e.task.as_str(), e.example), e)).collect();
    let mut files = Vec::new();
    for cases in sittings.values() {
        let (key, id) = (&cases[0].case.key, &cases[0].case.id);
        let name = safe(&format!("{}_{}_{}_{}", key.model, key.backend, key.precision, &id[..id.len().min(8)]));
        let results = results(report, cases)?;
        files.push((format!("lm-eval/results_{name}.json"), crate::store::pretty(&results)));
        for case in cases {
            let task = safe(&case.case.key.task);
            let lines = samples(case, |i| examples.get(&(case.case.key.task.as_str(), i)).copied());
            if !lines.is_empty() {
                files.push((format!("lm-eval/samples_{task}_{name}.jsonl"), lines.into_bytes()));
            }
        }
    }
    Ok(files)
}

/// As part of a file's name.
fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}

/// The answers of record.
fn of_record(case: &CaseRun) -> impl Iterator<Item = &Prediction> {
    case.predictions.iter().filter(|p| p.last)
}

fn results(report: &Report, cases: &[&CaseRun]) -> Result<Value, crate::error::ReportError> {
    let (mut results, mut own) = (Map::new(), Map::new());
    let (mut configs, mut versions, mut better, mut counts, mut subtasks) =
        (Map::new(), Map::new(), Map::new(), Map::new(), Map::new());
    for case in cases {
        let (key, n) = (&case.case.key, of_record(case).count());
        let task = key.task.clone();
        let (mut metrics, mut intervals, mut directions) = (Map::new(), Map::new(), Map::new());
        metrics.insert("name".into(), json!(task));
        metrics.insert("alias".into(), json!(task));
        metrics.insert("sample_len".into(), json!(n));
        for (metric, name, higher) in named(report, case) {
            let Some(record) = report.record(&case.case, metric) else { continue };
            let Some(value) = record.value else { continue };
            let error = spread(case, metric).map_or(json!("N/A"), Value::from);
            metrics.insert(format!("{name},none"), json!(value));
            metrics.insert(format!("{name}_stderr,none"), error);
            directions.insert(name.into(), json!(higher));
            let interval = record.lower.zip(record.upper).map(|(l, u)| json!([l, u]));
            intervals.insert(
                name.into(),
                json!({ "value": value, "interval": interval, "confidence": record.confidence, "method": record.method }),
            );
        }
        results.insert(task.clone(), metrics.into());
        own.insert(task.clone(), json!({ "case": case.case.id, "path": case.case.path, "metrics": intervals }));
        let metadata = json!({ "task_sha256": key.task_hash, "seed": key.seed });
        configs.insert(task.clone(), json!({ "task": task, "metadata": metadata }));
        versions.insert(task.clone(), json!(key.task_hash.get(..12).unwrap_or(&key.task_hash)));
        better.insert(task.clone(), directions.into());
        counts.insert(task.clone(), json!({ "original": n, "effective": n }));
        subtasks.insert(task, json!([]));
    }
    let (key, environment) = (&cases[0].case.key, &report.run.environment);
    let parameters = cases[0].case.costs.map(|c| c.params_total).filter(|n| *n > 0);
    Ok(json!({
        "results": results,
        "group_subtasks": subtasks,
        "configs": configs,
        "versions": versions,
        "higher_is_better": better,
        "n-samples": counts,
        "config": {
            "model": key.backend,
            "model_args": { "pretrained": key.model, "dtype": key.precision },
            "model_num_parameters": parameters,
            "model_dtype": key.precision,
            "model_sha": key.model_hash,
            "batch_size": key.batch.to_string(),
            "limit": null,
            "bootstrap_iters": 0,
        },
        "git_hash": format!("ergometer {}", environment.ergometer),
        "date": unix(&environment.started),
        "model_source": key.backend,
        "model_name": key.model,
        "model_name_sanitized": safe(&key.model),
        "task_hashes": cases.iter().map(|c| (c.case.key.task.clone(), json!(c.case.key.task_hash))).collect::<Map<_, _>>(),
        "ergometer": { "suite": environment.suite, "backend_options": key.backend_options, "tasks": own },
    }))
}

/// The metrics that a case has here: of choices and texts to be predicted, the accuracy is not one of them.
fn named(report: &Report, case: &CaseRun) -> Vec<(&'static str, &'static str, bool)> {
    let has = |metric: &str| report.value(&case.case, metric).is_some();
    let by_sums = has("choice_accuracy") || has("nll");
    NAMES.into_iter().filter(|(metric, ..)| has(metric) && !(by_sums && *metric == "accuracy")).collect()
}

/// Standard error of a mean over examples that are right or wrong.
fn spread(case: &CaseRun, metric: &str) -> Option<f64> {
    let (right, n) = match metric {
        "accuracy" => (of_record(case).filter(|p| p.exact).count() as f64, of_record(case).count() as f64),
        "choice_accuracy" | "choice_accuracy_normalised" => {
            let sums = || case.sums.iter().filter(|s| s.metric == metric);
            (sums().map(|s| s.numerator).sum(), sums().count() as f64)
        }
        _ => return None,
    };
    let share = right / n;
    (n > 1.0).then(|| (share * (1.0 - share) / (n - 1.0)).sqrt())
}

/// A line for each answer of record.
fn samples<'a>(case: &CaseRun, asked: impl Fn(u64) -> Option<&'a RecordedExample>) -> String {
    let mut sums: BTreeMap<u64, Vec<&ExampleSum>> = BTreeMap::new();
    for sum in case.sums.iter().filter(|s| s.part == 0) {
        sums.entry(sum.example).or_default().push(sum);
    }
    let mut lines = String::new();
    for p in of_record(case) {
        let own = sums.get(&p.example).map(Vec::as_slice).unwrap_or_default();
        lines += &sample(p, own, asked(p.example)).to_string();
        lines.push('\n');
    }
    lines
}

fn sample(p: &Prediction, sums: &[&ExampleSum], asked: Option<&RecordedExample>) -> Value {
    let mut metrics: Map<String, Value> = Map::new();
    for sum in sums.iter().filter(|s| s.denominator > 0.0) {
        if let Some((_, name, _)) = NAMES.iter().find(|(metric, ..)| *metric == sum.metric && *metric != "perplexity") {
            metrics.insert((*name).into(), json!(sum.numerator / sum.denominator));
        }
    }
    if !metrics.contains_key("nll") {
        metrics.entry("acc").or_insert(json!(f64::from(u8::from(p.exact))));
    }
    let prompt = asked.map(|a| a.prompt.as_str());
    let choices = asked.map(|a| a.choices.as_slice()).unwrap_or_default();
    let target = asked.map_or("", |a| a.answer.as_str());
    let mut arguments = Map::new();
    for (i, choice) in choices.iter().enumerate() {
        arguments.insert(format!("gen_args_{i}"), json!({ "arg_0": prompt, "arg_1": choice }));
    }
    if let Some(prompt) = prompt.filter(|_| choices.is_empty()) {
        arguments.insert("gen_args_0".into(), json!({ "arg_0": prompt, "arg_1": { "do_sample": false } }));
    }
    // of choices the log-probability of each, and nobody looked whether it is the greedy one
    let numbers: Vec<&str> = p.answer.split(' ').take(choices.len()).collect();
    let filtered: Vec<Value> = match (choices.is_empty(), metrics.contains_key("nll")) {
        (false, _) => numbers.iter().map(|v| json!([v, "None"])).collect(),
        (true, true) => vec![json!([p.answer])],
        (true, false) => vec![json!(p.answer)],
    };
    let doc = match asked {
        Some(a) => json!({ "prompt": a.prompt, "choices": a.choices, "answer": a.answer, "example": p.example }),
        None => json!({ "example": p.example }),
    };
    let mut line = json!({
        "doc_id": p.example,
        "doc_hash": sha(&doc.to_string()),
        "doc": doc,
        "target": target,
        "arguments": arguments,
        "resps": filtered.iter().map(|r| json!([r])).collect::<Vec<_>>(),
        "filtered_resps": filtered,
        "filter": "none",
        "metrics": metrics.keys().collect::<Vec<_>>(),
        "prompt_hash": sha(prompt.unwrap_or_default()),
        "target_hash": sha(target),
    });
    if let Some(line) = line.as_object_mut() {
        line.extend(metrics);
    }
    line
}

/// sha256 of a text, hex.
pub(super) fn sha(text: &str) -> String {
    Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

/// Seconds since 1970 of `YYYY-MM-DDThh:mm:ssZ`; none for any other text.
fn unix(text: &str) -> Option<i64> {
    let parts: Vec<i64> = text.strip_suffix('Z')?.split(['-', 'T', ':']).map_while(|p| p.parse().ok()).collect();
    let [year, month, day, hour, minute, second] = parts[..] else { return None };
    let within = (1970..10_000).contains(&year) && (1..=12).contains(&month);
    // Howard Hinnant's days_from_civil: years begin in March
    let year = year - i64::from(month <= 2);
    let (era, month) = (year.div_euclid(400), (month + 9) % 12);
    let of_era = year.rem_euclid(400);
    let days = 146_097 * era + 365 * of_era + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1 - 719_468;
    within.then_some(86_400 * days + 3600 * hour + 60 * minute + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        assert_eq!(unix("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix("2000-02-29T12:34:56Z"), Some(951_827_696));
        assert_eq!(unix("2026-11-28T02:19:30Z"), Some(1_795_832_370));
        for text in ["", "today", "2000-02-29", "2000-13-01T00:00:00Z"] {
            assert_eq!(unix(text), None, "{text}");
        }
    }
}
