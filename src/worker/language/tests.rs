//! A worker over recorded models: what is written, scored and timed is what was recorded.
//!
//! In: golden folders. Out: messages as the harness would hear them. Must not: depend on how fast it is.

use std::path::{Path, PathBuf};

use super::*;

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(family)
}

/// Work over a recorded model, which is asked its first recorded sequence and a shorter one.
fn work(family: &str, scenario: &str, batch: usize, language: LanguageJob) -> LanguageWork {
    let vectors = LanguageVectors::read(&golden(family).join("vectors.safetensors")).unwrap();
    let line = serde_json::json!({
        "protocol": PROTOCOL, "model": golden(family), "model_hash": opened::hash(&golden(family)).unwrap(), "backend": "native",
        "precision": "f32", "threads": 1, "scenario": scenario, "batch": batch, "max_steps": 9, "halt": true,
        "inputs": [vectors.rows[0], vectors.rows[1][..7]], "puzzle_ids": [0, 0], "language": language
    });
    LanguageWork::load(serde_json::from_value(line).unwrap(), Instant::now()).unwrap().0
}

fn ask(output: [u32; 2]) -> LanguageJob {
    LanguageJob { context: 64, output: output.to_vec(), ..LanguageJob::default() }
}

fn said(told: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<()>) -> Vec<Message> {
    let mut bytes = Vec::new();
    told(&mut bytes).unwrap();
    bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

fn answers(messages: &[Message]) -> Vec<PredictionRow> {
    let rows =
        messages.iter().filter_map(|m| if let Message::Predictions(p) = m { Some(p.rows.clone()) } else { None });
    let mut rows: Vec<PredictionRow> = rows.flatten().collect();
    rows.sort_by_key(|r| r.example);
    rows
}

fn recorded(family: &str) -> Vec<u32> {
    let bytes = std::fs::read(golden(family).join("vectors.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor("greedy").unwrap().data().to_vec();
    data.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn answers_are_the_recorded_continuation_in_any_batch() {
    for family in ["llama", "gemma3", "mixtral"] {
        let greedy = recorded(family);
        for batch in [1, 2] {
            let n = greedy.len().min(9) as u32;
            let mut work = work(family, &format!("generate-b{batch}"), batch, ask([n, 3]));
            let rows = answers(&said(|to| work.answer(0, to)));
            assert_eq!(rows[0].answer, Answer::Tokens(greedy[..n as usize].to_vec()), "{family}");
            assert_eq!((rows[0].depth, rows[1].depth), (n, 3));
        }
    }
}

#[test]
fn an_end_ends_what_is_written_unless_it_is_ignored() {
    let greedy = recorded("llama");
    let end = vec![greedy[2]];
    let at = greedy.iter().position(|t| *t == greedy[2]).unwrap() + 1;
    for (ignore_end, due) in [(false, at), (true, 6)] {
        let mut work = work("llama", "generate-b1", 1, LanguageJob { end: end.clone(), ignore_end, ..ask([6, 6]) });
        let Answer::Tokens(tokens) = answers(&said(|to| work.answer(0, to)))[0].answer.clone() else { panic!() };
        assert_eq!(tokens, greedy[..due]);
    }
}

#[test]
fn every_scenario_times_the_tokens_that_are_scored() {
    for (scenario, batch) in [
        ("generate-b2", 2),
        ("prefill-b2", 2),
        ("decode-b2", 2),
        ("arrivals-60000", 2),
        ("arrivals-trace", 1),
        ("decode-b1", 1),
    ] {
        let arrivals = vec![0.0, 0.002];
        let mut work = work("llama", scenario, batch, LanguageJob { ignore_end: true, arrivals, ..ask([5, 4]) });
        let scored = answers(&said(|to| work.answer(0, to)));
        work.warm(0.0).unwrap();
        let told = said(|to| {
            work.time(
                &Go { block: 1, mode: Mode::Time, n: 3, seconds: 0.0, steps: 0, vectors: None, active_experts: None },
                to,
            )
        });
        let samples = told.iter().filter_map(|m| if let Message::Sample(s) = m { Some(s) } else { None });
        let samples: Vec<&IterationSample> = samples.collect();
        assert_eq!(samples.len(), if scenario.starts_with("arrivals") { 1 } else { 3 }, "{scenario}");
        for request in samples.iter().flat_map(|s| &s.requests) {
            let due = match scenario.split('-').next() {
                Some("prefill") => 1,
                Some("decode") => [4, 3][request.example as usize],
                _ => [5, 4][request.example as usize],
            };
            assert_eq!(request.tokens.len(), due, "{scenario}");
            assert!(
                request.begun >= request.arrived && request.tokens.is_sorted() && request.tokens[0] > request.begun
            );
        }
        if scenario == "arrivals-trace" {
            let arrived: Vec<(u64, f64)> = samples[0].requests.iter().map(|r| (r.example, r.arrived)).collect();
            assert_eq!(arrived, [(0, 0.0), (1, 0.002)]);
        }
        for row in answers(&told) {
            let (Answer::Tokens(timed), Answer::Tokens(known)) = (&row.answer, &scored[row.example as usize].answer)
            else {
                panic!()
            };
            let n = if scenario.starts_with("prefill") { 1 } else { known.len() };
            assert_eq!(timed[..], known[..n], "{scenario}");
        }
        let measured = told.iter().position(|m| matches!(m, Message::Measured(_))).unwrap();
        assert_eq!(measured, 0, "meters stop before anything is reported");
    }
}

#[test]
fn continuations_have_the_log_probabilities_of_the_recorded_logits() {
    let vectors = LanguageVectors::read(&golden("llama").join("vectors.safetensors")).unwrap();
    let (row, logits) = (&vectors.rows[0], vectors.row(0));
    let vocabulary = logits.len() / row.len();
    let rest = vec![row[10..].to_vec(), row[10..12].to_vec()];
    let language = LanguageJob { rest: vec![rest, Vec::new()], ..ask([2, 2]) };
    let mut work = work("llama", "generate-b1", 1, language);
    work.job.inputs[0].truncate(10);
    let rows = answers(&said(|to| work.answer(0, to)));
    let Answer::Likelihoods(all) = &rows[0].answer else { panic!() };
    let due: Vec<f64> =
        (10..row.len()).map(|i| log_probability(&logits[(i - 1) * vocabulary..i * vocabulary], row[i])).collect();
    assert_eq!(all.len(), due.len() + 2);
    assert!(all.iter().zip(due.iter().chain(&due[..2])).all(|(a, b)| (a - b).abs() < 1e-3), "{all:?} {due:?}");
    assert_eq!(rows[0].written.as_ref().map(Vec::len), Some(2));
    assert!(matches!(&rows[1].answer, Answer::Tokens(t) if t.len() == 2));
}

#[test]
fn recorded_logits_are_those_that_compare_gives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.safetensors");
    let mut work = work("gemma3", "", 1, ask([0, 0]));
    let go =
        |mode| Go { block: 0, mode, n: 7, seconds: 0.0, steps: 0, vectors: Some(path.clone()), active_experts: None };
    work.record(&go(Mode::Record)).unwrap();
    let made = LanguageVectors::read(&path).unwrap();
    assert_eq!((made.rows.len(), made.rows[0].len()), (2, 7));
    let told = said(|to| work.compare(&go(Mode::Compare), to));
    for (message, row) in told.iter().zip(0..) {
        let Message::Outputs(o) = message else { panic!() };
        assert!(crate::parity::error(&o.logits, made.row(row)) < 1e-5);
    }
    assert_eq!(told.len(), 2);
}
