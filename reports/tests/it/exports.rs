//! Exports of language models: rows of lm-evaluation-harness, of Every Eval Ever and of llama-bench say what the run has, and nothing else.
//!
//! In: a synthetic run of a language model. Out: verdicts.

use ergometer_reports::{
    CaseRun, RecordedRun, Report, Samples,
    case::{ExampleSum, Prediction, Sample},
    render::format,
    store::RecordedExample,
};
use serde_json::Value;

use crate::synthetic::{self, MODELS};

fn files(report: &Report, name: &str) -> Vec<(String, String)> {
    let files = (format(name).unwrap().render)(report).unwrap();
    files.into_iter().map(|(name, bytes)| (name, String::from_utf8(bytes).unwrap())).collect()
}

fn json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A case of a language model: two blocks of two requests each, of prompts of 10 and 30 tokens, with three tokens after each.
fn spoken(task: &str, scenario: &str, seed: u64, joules: Option<f64>) -> CaseRun {
    let mut key = synthetic::key(task, &MODELS[3], "native", 1);
    key.scenario = scenario.into();
    let mut case = synthetic::case_run(key, &MODELS[3], seed, 1, 1, 2);
    let mut samples = Samples::default();
    let mut push = |block: u32, iteration: Option<u64>, example, metric, value| {
        let (phase, rows) = ("steady", Some(1));
        let t_ns = u64::from(block) * 10_000_000_000 + iteration.unwrap_or(9) * 1_000_000_000;
        samples.push(Sample { block, phase, iteration, t_ns, example, rows, metric, value });
    };
    for block in 0..2 {
        for example in 0..2u64 {
            let (at, of) = (Some(example), Some(example));
            push(block, at, of, "latency", 0.75);
            push(block, at, of, "tokens_in", [10.0, 30.0][example as usize]);
            push(block, at, of, "ttft", 0.25 + 0.125 * f64::from(block));
            (0..2).for_each(|_| push(block, at, of, "tpot", 0.25));
            push(block, at, None, "decode_rate", 4.0);
            push(block, at, None, "tokens_out", 3.0);
        }
        if let Some(joules) = joules {
            push(block, None, None, "energy_cpu", 2.0 * joules);
            push(block, None, None, "energy_cpu_edge", 0.0);
        }
        push(block, None, None, "window", 1.5);
    }
    case.samples = samples;
    case.predictions = (0..2)
        .map(|example| Prediction {
            example,
            cluster: example,
            depth: 3,
            last: true,
            halt_logit: None,
            answer: ["red\n\"x\"", "blue"][example as usize].into(),
            exact: example == 0,
            right: u32::from(example == 0),
            cells: 1,
            valid: None,
            difficulty: Some(2),
        })
        .collect();
    case
}

fn run() -> RecordedRun {
    let asked = |task: &str, example, prompt: &str, choices: &[&str], answer: &str| RecordedExample {
        task: task.into(),
        example,
        prompt: prompt.into(),
        choices: choices.iter().map(|c| (*c).into()).collect(),
        answer: answer.into(),
    };
    let mut chosen = spoken("choose", "generate-b1", 1, None);
    for (p, answer) in chosen.predictions.iter_mut().zip(["-3 -1 -0.5 -0.25", "-1 -2 -0.5 -0.75"]) {
        p.answer = answer.into();
        let one = |metric: &str, right| ExampleSum {
            example: p.example,
            cluster: p.cluster,
            metric: metric.into(),
            part: 0,
            numerator: f64::from(u8::from(right)),
            denominator: 1.0,
        };
        chosen.sums.extend([one("choice_accuracy", p.exact), one("choice_accuracy_normalised", true)]);
    }
    let mut decoded = spoken("ask", "decode-b1", 2, None);
    decoded.predictions.clear();
    let written = spoken("ask", "generate-b1", 3, Some(5.0));
    decoded.case.accuracy_from = Some(written.case.id.clone());
    let examples = vec![
        asked("ask", 0, "Name a colour: ", &[], "red"),
        asked("ask", 1, "Another one: ", &[], "green"),
        asked("choose", 0, "The sky is", &[" green", " blue"], "1"),
        asked("choose", 1, "Grass is", &[" green", " blue"], "1"),
    ];
    RecordedRun { environment: synthetic::environment(), cases: vec![chosen, decoded, written], examples }
}

#[test]
fn quality_is_written_as_lm_evaluation_harness_does() {
    let report = Report::new(run());
    let files = files(&report, "lm-eval");
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(files.len(), 3, "{names:?}");
    assert!(names[0].starts_with("lm-eval/results_dense-6_native_f32_") && names[0].ends_with(".json"), "{names:?}");
    let results: Value = serde_json::from_str(&files[0].1).unwrap();
    let (choose, ask) = (&results["results"]["choose"], &results["results"]["ask"]);
    assert_eq!((choose["acc,none"].as_f64(), choose["acc_bytes,none"].as_f64()), (Some(0.5), Some(1.0)));
    // of two, one right: a standard deviation of 1/sqrt(2) over the root of 2
    assert_eq!((ask["acc,none"].as_f64(), ask["acc_stderr,none"].as_f64()), (Some(0.5), Some(0.5)));
    assert_eq!(results["n-samples"]["ask"]["effective"], 2);
    assert!(results["date"].as_i64().is_some() && results.get("n-shot").is_none());
    let lines = json(&files.iter().find(|(name, _)| name.contains("samples_choose")).unwrap().1);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["arguments"]["gen_args_1"]["arg_1"], " blue");
    assert_eq!(lines[0]["filtered_resps"], serde_json::json!([["-3", "None"], ["-1", "None"]]));
    assert_eq!((lines[1]["acc"].as_f64(), lines[1]["acc_bytes"].as_f64()), (Some(0.0), Some(1.0)));
    let lines = json(&files.iter().find(|(name, _)| name.contains("samples_ask")).unwrap().1);
    assert_eq!((&lines[0]["target"], &lines[0]["resps"][0][0]), (&Value::from("red"), &Value::from("red\n\"x\"")));
}

#[test]
fn rows_of_every_eval_ever_have_energy_or_why_there_is_none() {
    let report = Report::new(run());
    let files = files(&report, "every-eval-ever");
    let rows = json(&files[0].1);
    // decoding has no answers of its own, and speaks of those of the case that was scored
    assert_eq!((files.len(), rows.len()), (1, 6));
    let of = |task: &str, scenario: &str| {
        let fits = |r: &&Value| r["evaluation_name"] == task && r["metadata"]["scenario"] == scenario;
        rows.iter().find(fits).unwrap()
    };
    let written = of("ask", "generate-b1");
    let energy = &written["performance"]["energy"];
    assert_eq!((energy["joules"].as_f64(), &energy["reason"]), (Some(5.0), &Value::Null));
    assert!(energy["method"].as_str().is_some_and(|m| !m.is_empty()) && energy["interval"].is_array(), "{energy}");
    assert_eq!(written["token_usage"]["total_tokens"], 13);
    assert_eq!(written["performance"]["time_to_first_token_ms"], 312.5);
    assert_eq!(written["performance"]["generation_time_ms"], 500.0);
    let decoded = of("ask", "decode-b1");
    let energy = &decoded["performance"]["energy"];
    assert!(energy["joules"].is_null() && energy["reason"].as_str().is_some_and(|r| !r.is_empty()), "{energy}");
    assert!(decoded["metadata"]["answered_by_case"].is_string());
    let chosen = of("choose", "generate-b1");
    assert_eq!(chosen["output"]["raw"], serde_json::json!([" blue"]));
    assert_eq!(chosen["input"]["reference"], serde_json::json!([" blue"]));
    assert!(chosen["evaluation"]["is_correct"].as_bool().unwrap() && chosen["token_usage"].is_null());
}

#[test]
fn llama_bench_knows_how_much_the_cache_held() {
    let lines = json(&files(&Report::new(run()), "llama-bench")[0].1);
    let depths: Vec<(u64, u64)> =
        lines.iter().map(|l| (l["n_depth"].as_u64().unwrap(), l["n_gen"].as_u64().unwrap())).collect();
    assert!(!depths.is_empty() && depths.iter().all(|d| d.0 == 20 && d.1 == 1), "{depths:?}");
}

#[test]
fn goodput_counts_requests_that_met_both_bounds_over_all_the_time() {
    let mut case = spoken("ask", "generate-b1", 4, None);
    let served = |block: u32, iteration, share| Sample {
        block,
        phase: "steady",
        iteration: Some(iteration),
        t_ns: u64::from(block) * 10_000_000_000 + iteration * 1_000_000_000,
        example: None,
        rows: Some(1),
        metric: "goodput_share",
        value: share,
    };
    for (block, iteration, share) in [(0, 0, 1.0), (0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0)] {
        case.samples.push(served(block, iteration, share));
    }
    let of = |case: &CaseRun| {
        let run =
            RecordedRun { environment: synthetic::environment(), cases: vec![case.clone()], examples: Vec::new() };
        let report = Report::new(run);
        ["goodput", "goodput_share"].map(|metric| report.record(&case.case, metric).cloned())
    };
    assert_eq!(of(&case), [None, None], "without bounds there is none");
    case.case.constraints.ttft_bound = Some(0.5);
    case.case.constraints.tpot_bound = Some(0.25);
    let [goodput, share] = of(&case).map(Option::unwrap);
    // three of four, in four iterations of 0.75 s
    assert_eq!((goodput.value, share.value), (Some(1.0), Some(0.75)));
    assert!(share.lower.unwrap() < 0.75 && share.upper.unwrap() > 0.75 && share.method.contains("blocks"), "{share:?}");
    assert!(goodput.note.as_ref().is_some_and(|n| n.contains("500") && n.contains("250")), "{goodput:?}");
}

#[test]
fn a_generator_that_lags_withholds_what_it_spoils() {
    let mut case = spoken("ask", "arrivals-60", 4, None);
    for block in 0..2u32 {
        for iteration in 0..2 {
            let t_ns = u64::from(block) * 10_000_000_000 + iteration * 1_000_000_000;
            let (phase, example, rows) = ("steady", Some(iteration), Some(1));
            let value = if block + iteration as u32 == 2 { 0.02 } else { 0.001 };
            case.samples.push(Sample {
                block,
                phase,
                iteration: Some(iteration),
                t_ns,
                example,
                rows,
                metric: "arrival_lag",
                value,
            });
        }
    }
    let of = |case: &CaseRun, metric: &str| {
        let run =
            RecordedRun { environment: synthetic::environment(), cases: vec![case.clone()], examples: Vec::new() };
        Report::new(run).record(&case.case, metric).cloned().unwrap()
    };
    let lag = of(&case, "arrival_lag");
    assert!(lag.value.is_some_and(|v| v > 0.01) && lag.note.as_ref().is_some_and(|n| n.contains("20.0")), "{lag:?}");
    let ttft = of(&case, "ttft");
    assert!(ttft.value.is_none() && ttft.missing.as_ref().is_some_and(|m| m.message.contains("generator")), "{ttft:?}");
    assert!(of(&case, "tpot").value.is_some(), "what is between tokens is not of the arrival");
    case.case.constraints.lag_bound = Some(0.5);
    assert!(of(&case, "ttft").value.is_some());
}

#[test]
fn the_plot_against_context_knows_the_prompt() {
    let points = ergometer_reports::plot::language::by_context(&spoken("ask", "decode-b1", 4, None));
    // prompts of 10 and 30 tokens, two times each in two blocks, at 10 and 11 and at 30 and 31 tokens
    let places: Vec<(u32, bool)> = points.iter().map(|(place, _, said)| (*place, said.contains("4 times"))).collect();
    assert_eq!(places, [(11, true), (31, true)]);
    assert!(points.iter().all(|(_, values, _)| values == &[0.25; 3]));
}
