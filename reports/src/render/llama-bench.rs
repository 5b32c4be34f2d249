//! `llama-bench.jsonl`: prompts and decoding of language models in the lines that llama.cpp's `llama-bench -o jsonl` writes.
//!
//! In: a [`Report`]. Out: a line for each case of one sequence at a time and what it times: reading prompts (`n_prompt`), decoding (`n_gen`, at the depth of
//! the prompt before it). Must not: write a setting that the run does not have: fields of llama.cpp alone hold what it writes on a processor that does
//! nothing special.
//!
//! A sample is an iteration. Batches of several sequences have no line, since llama-bench has none.

use serde_json::{Value, json};

use super::Files;
use crate::{report::Report, store::CaseRun};

/// Nanoseconds and tokens a second of each iteration, and tokens of the first.
struct Timed {
    tokens: u64,
    ns: Vec<u64>,
    rates: Vec<f64>,
}

fn timed(case: &CaseRun, metric: &str) -> Option<Timed> {
    let mut all = Timed { tokens: 0, ns: Vec::new(), rates: Vec::new() };
    for sample in case.samples.iter().filter(|s| s.metric == metric && s.phase == "steady" && s.value > 0.0) {
        let tokens = sample.rows.unwrap_or(0);
        all.tokens = if all.ns.is_empty() { tokens } else { all.tokens };
        all.ns.push((tokens as f64 / sample.value * 1e9).round() as u64);
        all.rates.push(sample.value);
    }
    (!all.ns.is_empty()).then_some(all)
}

/// Tokens in the cache before the first that is decoded: those of a prompt, mean over timed requests.
fn cached(case: &CaseRun) -> u64 {
    let read = case.samples.iter().filter(|s| s.metric == "tokens_in" && s.phase == "steady");
    let (tokens, requests) = read.fold((0.0, 0), |(sum, n), s| (sum + s.value, n + s.rows.unwrap_or(1)));
    (tokens / requests.max(1) as f64).round() as u64
}

/// Mean and standard deviation of a sample.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 })
}

/// Makes `llama-bench.jsonl`; no file where the run has no such case.
pub fn render(report: &Report) -> Files {
    let mut text = String::new();
    for case in report.run.cases.iter().filter(|c| c.case.key.batch == 1 && report.error(&c.case).is_none()) {
        let depth = cached(case);
        for (metric, reads) in [("prefill_rate", true), ("decode_rate", false)] {
            let Some(timed) = timed(case, metric) else { continue };
            text += &line(report, case, &timed, reads, if reads { 0 } else { depth });
            text.push('\n');
        }
    }
    Ok(if text.is_empty() { Vec::new() } else { vec![("llama-bench.jsonl".into(), text.into_bytes())] })
}

fn line(report: &Report, case: &CaseRun, timed: &Timed, reads: bool, depth: u64) -> String {
    let (key, environment) = (&case.case.key, &report.run.environment);
    let costs = case.case.costs.unwrap_or_default();
    let cache = key.backend_options.get("cache").map_or("f32", String::as_str);
    let of = |here: bool| if here { timed.tokens } else { 0 };
    let (n_prompt, n_gen) = (of(reads), of(!reads));
    let ns: Vec<f64> = timed.ns.iter().map(|n| *n as f64).collect();
    let ((avg_ns, stddev_ns), (avg_ts, stddev_ts)) = (moments(&ns), moments(&timed.rates));
    let whole = |v: f64| v.round() as u64;
    let mut all = json!({
        "build_commit": format!("ergometer {}", environment.ergometer),
        "build_number": 0,
        "cpu_info": environment.cpu,
        "gpu_info": "",
        "backends": key.backend,
        "model_filename": key.model,
        "model_type": format!("{} {}", key.model, key.precision),
        "model_size": costs.weight_bytes,
        "model_n_params": costs.params_total,
        "n_batch": n_prompt.max(1),
        "n_ubatch": n_prompt.max(1),
        "n_threads": key.threads,
        "cpu_mask": "0x0",
        "cpu_strict": false,
        "poll": 50,
        "type_k": cache,
        "type_v": cache,
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "n_depth": depth,
        "test_time": environment.started,
        "avg_ns": whole(avg_ns),
        "stddev_ns": whole(stddev_ns),
        "avg_ts": avg_ts,
        "stddev_ts": stddev_ts,
        "samples_ns": timed.ns,
        "samples_ts": timed.rates,
    });
    if let (Some(all), Some(neutral)) = (all.as_object_mut(), neutral().as_object()) {
        all.extend(neutral.clone());
    }
    all.to_string()
}

/// Settings of llama.cpp alone, as it writes them where nothing is set.
fn neutral() -> Value {
    json!({
        "n_gpu_layers": 0,
        "n_cpu_moe": 0,
        "split_mode": "none",
        "main_gpu": 0,
        "no_kv_offload": false,
        "flash_attn": false,
        "devices": "none",
        "tensor_split": "0.00",
        "tensor_buft_overrides": "none",
        "load_mode": "none",
        "embeddings": false,
        "no_op_offload": 0,
        "no_host": false,
        "fit_target": 0,
        "fit_min_ctx": 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_of_one_has_no_deviation() {
        assert_eq!(moments(&[3.0]), (3.0, 0.0));
        assert_eq!(moments(&[1.0, 3.0]), (2.0, 2f64.sqrt()));
    }
}
