//! `every-eval-ever.jsonl`: answers of language models as instance rows of Every Eval Ever (schema `instance_level_eval_0.2.1`), with time and energy.
//!
//! In: a [`Report`]. Out: a line for each answer of record of each good case of a task whose answers are right or wrong; no file where the run has none.
//! Must not: give a row to a text that is to be predicted, of which nothing is right, or to a prompt that the run did not keep; call a mean the energy
//! of one answer.
//!
//! The schema has no field of energy and allows none beside its own, except within `performance`: there stands `energy` with joules, method and
//! interval: of a request of the case, mean over its timed blocks, the same in every row of the case. Where there is none, `joules` is null and `reason`
//! says why. Times are medians over the example's own timed requests, and null where it was not among them. A case's rows have one `evaluation_id`,
//! its path and id; the file that the schema calls the aggregate is not written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Files, lm_eval::sha};
use crate::{
    case::{Case, Prediction},
    metric::is_of_language,
    report::Report,
    stats::quantile::{quantile, sorted},
    store::{CaseRun, RecordedExample},
};

/// Version of the schema of rows.
const SCHEMA: &str = "instance_level_eval_0.2.1";

/// Makes the file.
pub fn render(report: &Report) -> Files {
    let asked: BTreeMap<(&str, u64), &RecordedExample> =
        report.run.examples.iter().map(|e| ((e.task.as_str(), e.example), e)).collect();
    let mut text = String::new();
    for case in report.run.cases.iter().filter(|c| report.error(&c.case).is_none()) {
        // of a text that is predicted no window is right, and of prompts without a scorer no answer is
        let graded = ["accuracy", "choice_accuracy"].iter().any(|m| report.value(&case.case, m).is_some());
        let Some(source) = report.accuracy_source(&case.case) else { continue };
        if !graded || !is_of_language(&case.case.key.scenario) {
            continue;
        }
        let (energy, times) = (energy(report, &case.case), Times::of(case));
        for p in source.predictions.iter().filter(|p| p.last) {
            let Some(example) = asked.get(&(case.case.key.task.as_str(), p.example)) else { continue };
            text += &row(&case.case, p, example, &energy, &times).to_string();
            text.push('\n');
        }
    }
    Ok(if text.is_empty() { Vec::new() } else { vec![("every-eval-ever.jsonl".into(), text.into_bytes())] })
}

fn row(case: &Case, p: &Prediction, asked: &RecordedExample, energy: &Value, times: &Times) -> Value {
    let key = &case.key;
    let index = |text: &str| text.parse::<usize>().ok();
    let choice = |i: Option<usize>| i.and_then(|i| asked.choices.get(i)).cloned();
    // of choices the answer is the likeliest one, by the sums that come first
    let (answer, right, how) = match asked.choices.is_empty() {
        true => (p.answer.clone(), asked.answer.clone(), "the task's scorer, on what was written"),
        false => {
            let sums = p.answer.split(' ').take(asked.choices.len()).filter_map(|v| v.parse::<f64>().ok());
            let best = sums.zip(0..).reduce(|best, next| if next.0 > best.0 { next } else { best });
            let right = choice(index(&asked.answer)).unwrap_or_default();
            (choice(best.map(|(_, i)| i)).unwrap_or_default(), right, "the choice of the highest log-probability")
        }
    };
    let (input, output) = (times.tokens_in.get(&p.example), u64::from(p.depth));
    let tokens = input
        .filter(|_| asked.choices.is_empty())
        .map(|input| json!({ "input_tokens": input, "output_tokens": output, "total_tokens": input + output }));
    let ms = |seconds: Option<f64>| seconds.map(|s| s * 1e3);
    let (first, rest) = (times.first.get(&p.example).copied(), times.rest.get(&p.example).copied());
    // where only the first token's time is known, the whole is not
    let whole = first.zip(rest).map(|(first, rest)| first + rest);
    let mut metadata = BTreeMap::from([
        ("backend", key.backend.clone()),
        ("precision", key.precision.clone()),
        ("scenario", key.scenario.clone()),
        ("threads", key.threads.to_string()),
        ("cluster", p.cluster.to_string()),
        ("model_sha256", key.model_hash.clone()),
        ("task_sha256", key.task_hash.clone()),
    ]);
    metadata.extend(p.difficulty.map(|d| ("difficulty", d.to_string())));
    metadata.extend(case.accuracy_from.clone().filter(|id| *id != case.id).map(|id| ("answered_by_case", id)));
    json!({
        "schema_version": SCHEMA,
        "evaluation_id": format!("{}~{}", case.path, case.id),
        "model_id": key.model,
        "evaluation_name": key.task,
        "sample_id": format!("{}_{}", key.task, p.example),
        "sample_hash": sha(&format!("{}{right}", asked.prompt)),
        "interaction_type": "single_turn",
        "input": {
            "raw": asked.prompt,
            "reference": [right],
            "choices": (!asked.choices.is_empty()).then_some(&asked.choices),
        },
        "output": { "raw": [answer] },
        "messages": null,
        "answer_attribution": [{
            "turn_idx": 0, "source": "output.raw", "extracted_value": answer, "extraction_method": how, "is_terminal": true,
        }],
        "evaluation": { "score": f64::from(u8::from(p.exact)), "is_correct": p.exact },
        "token_usage": tokens,
        "performance": {
            "latency_ms": ms(whole),
            "time_to_first_token_ms": ms(first),
            "generation_time_ms": ms(rest),
            "energy": energy,
        },
        "error": null,
        "metadata": metadata,
    })
}

/// Energy of a request, of the boards where the case computes on them, else of the packages.
fn energy(report: &Report, case: &Case) -> Value {
    let boards = report.record(case, "board_joules_per_right").is_some();
    let metric = if boards { "energy_gpu" } else { "energy_cpu" };
    let record = report.record(case, metric);
    let missing = record.and_then(|r| r.missing.as_ref()).map(|m| format!("{}: {}", m.kind, m.message));
    let reason = missing.or_else(|| record.is_none().then(|| "not recorded".to_owned()));
    json!({
        "joules": record.and_then(|r| r.value),
        "domain": metric,
        "of": format!("a request of {}, mean over the timed blocks", case.key.scenario),
        "method": record.filter(|r| r.value.is_some()).map(|r| &r.method),
        "interval": record.and_then(|r| Some([r.lower?, r.upper?])),
        "confidence": record.filter(|r| r.lower.is_some()).and_then(|r| r.confidence),
        "reason": reason,
    })
}

/// What was observed of each example's timed requests: medians.
struct Times {
    tokens_in: BTreeMap<u64, u64>,
    first: BTreeMap<u64, f64>,
    /// From the first token to the last.
    rest: BTreeMap<u64, f64>,
}

impl Times {
    fn of(case: &CaseRun) -> Self {
        let (mut tokens_in, mut first): (_, BTreeMap<u64, Vec<f64>>) = Default::default();
        let mut rest: BTreeMap<(u64, u32, Option<u64>), f64> = BTreeMap::new();
        // an iteration of few examples may have one twice, and then its gaps cannot be told apart
        let mut requests: BTreeMap<(u64, u32, Option<u64>), u32> = BTreeMap::new();
        for s in case.samples.iter().filter(|s| s.phase == "steady") {
            let Some(example) = s.example else { continue };
            let at = (example, s.block, s.iteration);
            match s.metric {
                "tokens_in" => {
                    BTreeMap::insert(&mut tokens_in, example, s.value.round() as u64);
                    *requests.entry(at).or_default() += 1;
                }
                "ttft" => first.entry(example).or_default().push(s.value),
                "tpot" => *rest.entry(at).or_default() += s.value,
                _ => {}
            }
        }
        let mut sums: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for (at, sum) in rest.iter().filter(|(at, _)| requests.get(at) == Some(&1)) {
            sums.entry(at.0).or_default().push(*sum);
        }
        let medians = |all: BTreeMap<u64, Vec<f64>>| {
            all.into_iter().filter_map(|(example, v)| Some((example, quantile(&sorted(&v), 0.5)?))).collect()
        };
        Self { tokens_in, first: medians(first), rest: medians(sums) }
    }
}
