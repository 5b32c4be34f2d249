//! Reduced precisions against full precision: the verdict, who is compared with whom, and what follows for the case.
//!
//! In: synthetic runs of a case in f32 and one in bf16. Out: verdicts. Must not: repeat the tests of the interval
//! itself.

use ergometer_reports::{
    CaseRun, RecordedRun, Report,
    case::{Attempt, ErrorKind, Prediction, SCHEMA},
    compare::{Compared, precision::Noninferiority},
    render,
    table::tables,
};

use crate::synthetic::{self, summarise};

/// `n` one-shot answers in clusters of `per_cluster`, wrong where `wrong` says.
fn answers(n: u64, per_cluster: u64, wrong: impl Fn(u64) -> bool) -> Vec<Prediction> {
    let answer = |example| Prediction {
        example,
        cluster: example / per_cluster,
        depth: 1,
        last: true,
        halt_logit: None,
        answer: "1 2".into(),
        exact: !wrong(example),
        right: u32::from(!wrong(example)),
        cells: 1,
        valid: None,
        difficulty: None,
    };
    (0..n).map(answer).collect()
}

fn case(backend: &str, precision: &str, seed: u64, predictions: Vec<Prediction>) -> CaseRun {
    let mut key = synthetic::key("sudoku-6x6", &synthetic::MODELS[3], backend, 1);
    key.precision = precision.into();
    let mut case = synthetic::case_run(key, &synthetic::MODELS[3], seed, 3, 10, 0);
    case.predictions = predictions;
    case
}

fn run(mut cases: Vec<CaseRun>) -> RecordedRun {
    cases.sort_by(|a, b| (&a.case.path, &a.case.id).cmp(&(&b.case.path, &b.case.id)));
    RecordedRun { environment: synthetic::environment(), cases, examples: Vec::new() }
}

/// Every tenth answer is wrong in f32; `worse` says which others are in bf16.
fn pair(n: u64, per_cluster: u64, worse: impl Fn(u64) -> bool) -> RecordedRun {
    let f32 = answers(n, per_cluster, |i| i % 10 == 0);
    let bf16 = answers(n, per_cluster, |i| i % 10 == 0 || worse(i));
    run(vec![case("native", "f32", 1, f32), case("native", "bf16", 2, bf16)])
}

fn verdict(run: &RecordedRun) -> (Noninferiority, f64, (f64, f64)) {
    let all = Compared::of(run).findings;
    assert_eq!(all.len(), 1, "only the reduced precision is held to anything");
    let found = all.into_values().next().unwrap().unwrap();
    (found.verdict, found.estimate.value, found.estimate.interval.unwrap())
}

#[test]
fn the_same_answers_are_non_inferior_if_there_are_enough() {
    let (found, value, (lower, upper)) = verdict(&pair(2000, 1, |_| false));
    assert_eq!((found, value), (Noninferiority::NonInferior, 0.0));
    assert!((lower + 0.1917).abs() < 1e-4 && (upper - 0.1917).abs() < 1e-4, "{lower} {upper}");
    for n in [200, 1999] {
        let (Noninferiority::CannotTell(why), ..) = verdict(&pair(n, 1, |_| false)) else { panic!("{n} are too few") };
        assert_eq!(why, format!("n = {n} paired examples, it needs 2000"));
    }
}

#[test]
fn two_per_cent_worse_is_inferior_and_half_a_per_cent_cannot_be_told() {
    let (found, value, (_, upper)) = verdict(&pair(2000, 1, |i| i % 50 == 1));
    assert_eq!((found, value), (Noninferiority::Inferior, -2.0));
    assert!(upper < -1.0, "{upper}");
    let (Noninferiority::CannotTell(why), ..) = verdict(&pair(2000, 1, |i| i % 200 == 1)) else {
        panic!("it is at the edge")
    };
    assert!(why.contains("too wide"), "{why}");
    // far worse needs no 2,000
    assert_eq!(verdict(&pair(200, 1, |i| i % 5 == 1)).0, Noninferiority::Inferior);
}

#[test]
fn clusters_widen_the_interval() {
    // 70 of 4,000 are lost, in single examples or seven at a time in a cluster of eight
    let (alone, clustered) =
        (verdict(&pair(4000, 1, |i| i % 400 < 70 && i % 10 == 1)), verdict(&pair(4000, 8, |i| i % 400 / 8 == 1)));
    let width = |(_, _, (lower, upper)): &(Noninferiority, f64, (f64, f64))| upper - lower;
    assert!((alone.1 + 1.75).abs() < 1e-9 && (clustered.1 + 1.75).abs() < 1e-9, "{alone:?} {clustered:?}");
    assert!(width(&clustered) > 2.0 * width(&alone), "{alone:?} {clustered:?}");
    // 500 clusters that agree altogether are not 4,000 examples that do
    assert_eq!(verdict(&pair(4000, 1, |_| false)).0, Noninferiority::NonInferior);
    let (Noninferiority::CannotTell(why), ..) = verdict(&pair(4000, 8, |_| false)) else {
        panic!("500 clusters are too few")
    };
    assert!(why.starts_with("the interval is too wide, it reaches down to -0.7"), "{why}");
}

#[test]
fn the_partner_is_of_the_same_backend_or_of_any_and_was_asked_the_same() {
    let right = || answers(2000, 1, |_| false);
    let own = case("native", "f32", 1, right());
    let bf16 = case("native", "bf16", 2, right());
    let candle = case("candle", "f32", 3, right());
    let judge = case("reference", "f64", 4, right());
    let partner = |others: &[&CaseRun]| {
        let mut cases = vec![bf16.clone()];
        cases.extend(others.iter().map(|&c| c.clone()));
        Compared::of(&run(cases)).findings.into_values().next().unwrap().map(|f| f.partner)
    };
    assert!(partner(&[&candle, &own, &judge]).unwrap().contains("/native/"));
    assert!(partner(&[&judge, &candle]).unwrap().contains("/candle/"));
    assert!(partner(&[&judge]).unwrap().contains("/reference/"));
    for change in [
        |c: &mut CaseRun| c.case.key.model_hash = "33".repeat(32),
        |c: &mut CaseRun| c.case.key.task_hash = "33".repeat(32),
        |c: &mut CaseRun| c.case.key.depth = "fixed-3".into(),
        |c: &mut CaseRun| c.case.accuracy_from = None,
        |c: &mut CaseRun| c.case.key.precision = "f16".into(),
    ] {
        let mut other = own.clone();
        change(&mut other);
        let records = summarise(&run(vec![bf16.clone(), other]));
        let found = records.iter().find(|r| r.metric == "accuracy_vs_f32" && r.precision == "bf16").unwrap();
        let missing = found.missing.as_ref().unwrap();
        assert!(
            missing.message.starts_with("cannot tell: no case in f32 or f64") && missing.hint.is_some(),
            "{missing:?}"
        );
        assert!(found.value.is_none());
    }
}

#[test]
fn an_inferior_case_ends_in_an_error_without_numbers() {
    let run = pair(2000, 1, |i| i % 50 == 1);
    assert!(run.cases.iter().all(|c| c.case.error.is_none() && c.case.schema == SCHEMA));
    let records = summarise(&run);
    for r in &records {
        if r.precision == "bf16" {
            let missing = r.missing.as_ref().unwrap();
            assert!(r.value.is_none() && missing.kind == "inferior", "{r:?}");
            assert!(missing.message.contains("-2.00 (-2.7"), "{missing:?}");
        }
    }
    assert!(records.iter().any(|r| r.precision == "f32" && r.metric == "latency" && r.value.is_some()));
    let report = Report::new(run.clone());
    let kinds: Vec<_> = report.run.cases.iter().map(|c| report.error(&c.case).map(|e| e.kind)).collect();
    assert_eq!(kinds, [Some(ErrorKind::Inferior), None], "bf16 sorts before f32");
    assert!(tables(&report).0[0].rows[0].cells.is_empty());
    assert_eq!(report.run, run, "what was recorded stays as it is");
}

#[test]
fn questions_are_paired_where_the_task_decides_questions() {
    let mut run = pair(2000, 1, |_| false);
    for (i, c) in run.cases.iter_mut().enumerate() {
        c.case.questions = 500;
        let attempt = |question| Attempt {
            question,
            name: format!("task {question}"),
            cluster: question,
            depth: 1,
            last: true,
            part: 0,
            attempt: 1,
            source: "vote 1 of 1".into(),
            right: i == 1 || question % 10 > 0,
            rows: 4,
        };
        c.attempts = (0..500).map(attempt).collect();
    }
    let found = Compared::of(&run).findings.into_values().next().unwrap().unwrap();
    assert_eq!(
        (found.estimate.value, found.estimate.n),
        (-10.0, 500),
        "the rows are as right as in f32, the questions not"
    );
}

#[test]
fn every_format_shows_the_verdict() {
    let report = Report::new(pair(2000, 1, |_| false));
    for (format, file) in
        [("html", "index.html"), ("md", "report.md"), ("csv", "records.csv"), ("json", "records.json")]
    {
        let files = (render::format(format).unwrap().render)(&report).unwrap();
        let (_, bytes) = files.into_iter().find(|(name, _)| name == file).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("non-inferior to full precision by 0.5 points"), "{format}");
    }
    let (tables, footnotes) = tables(&report);
    let cell = &tables[0].rows[0].cells[0];
    let footnote = footnotes[cell.footnote.unwrap() - 1].replace('\u{202f}', " ");
    assert!(footnote.contains("+0.00 points (-0.19 to +0.19), n = 2000"), "{footnote}");
    assert!(tables[0].rows[1].cells[0].footnote.is_none(), "f32 is held to nothing");
}
