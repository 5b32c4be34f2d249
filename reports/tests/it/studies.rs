//! Tables that answer one question across cases: batches, difficulty, halting, breadth against depth.
//!
//! In: synthetic cases whose answers are set by hand. Out: verdicts. Must not: repeat the tests of records.

use ergometer_reports::{
    CaseRun, RecordedRun, Report,
    case::{Attempt, InterleavedGroup, Prediction},
    headline::headline,
    plot::plots,
    render,
    studies::{Study, studies},
};

use crate::synthetic::{self, MODELS, key};

const N: u64 = 100;

/// A case of the first model whose answers of record are the ones that `of` gives by example: steps, right.
fn case(backend: &str, batch: u32, depth: &str, seed: u64, of: impl Fn(u64) -> (u32, bool)) -> CaseRun {
    let mut key = key("puzzles", &MODELS[0], backend, batch);
    key.depth = depth.into();
    let mut run = synthetic::case_run(key, &MODELS[0], seed, 3, 10, 1);
    let given = run.predictions[0].clone();
    let answer = |example| {
        let (depth, exact) = of(example);
        let (right, cells) = (if exact { 16 } else { 9 }, 16);
        Prediction { example, cluster: 1000 + example, depth, last: true, exact, right, cells, ..given.clone() }
    };
    run.predictions = (0..N).map(answer).collect();
    run
}

fn report(cases: Vec<CaseRun>) -> Report {
    let mut run: RecordedRun = synthetic::small();
    run.cases = cases;
    Report::new(run)
}

fn found(report: &Report, title: &str) -> Option<Study> {
    studies(report).into_iter().find(|s| s.title.starts_with(title))
}

fn cells(study: &Study) -> Vec<Vec<&str>> {
    study.rows.iter().map(|r| r.cells.iter().map(String::as_str).collect()).collect()
}

const BATCHES: &str = "Does the batch change answers";
const DIFFICULTY: &str = "By difficulty";
const STOPPING: &str = "What halting saves";
const BREADTH: &str = "Breadth or depth";

#[test]
fn answers_at_another_batch_are_compared_one_by_one() {
    let half = |e: u64| (4, e.is_multiple_of(2));
    let one = case("native", 1, "halt-16", 1, half);
    let same = case("native", 8, "halt-16", 2, half);
    let mut other = case("native", 32, "halt-16", 3, |e| (if e == 9 { 5 } else { 4 }, e == 1 || (e > 0 && half(e).1)));
    for e in [0, 1, 3] {
        other.predictions[e].answer = "4 4".into();
    }
    // timed at this batch, and scored at another
    let mut unscored = case("native", 64, "halt-16", 4, half);
    (unscored.predictions, unscored.case.accuracy_from) = (Vec::new(), Some(one.case.id.clone()));
    // another engine has one batch alone
    let lone = case("candle", 1, "halt-16", 5, half);
    let whole = report(vec![one.clone(), same, other, unscored.clone(), lone.clone()]);
    let study = found(&whole, BATCHES).unwrap();
    let rows = cells(&study);
    assert_eq!(rows.iter().map(|r| r[1]).collect::<Vec<_>>(), ["1", "8", "32", "64"]);
    assert_eq!(rows[0][3..], ["base of the comparison", "–", "–"]);
    assert_eq!(rows[1][3..], ["none of 100: bit-equal", "none of 100", "+0 −0"]);
    assert_eq!(rows[2][3..], ["3 of 100", "1 of 100", "+1 −1"]);
    assert_eq!(rows[3][2..], ["–", "not scored at this batch", "–", "–"]);
    assert!(rows[0][2].starts_with("50.0") && rows[0][2].ends_with(", n = 100"), "{rows:?}");
    assert!(rows.iter().all(|r| r[0] == "trm-mlp"), "all that differs is in its column: {rows:?}");
    assert!(found(&report(vec![one.clone(), unscored]), BATCHES).is_none(), "one batch was scored");
    assert!(found(&report(vec![one, lone]), BATCHES).is_none());
}

#[test]
fn steps_and_accuracy_are_told_by_difficulty() {
    // hard ones take more steps, and half of the hardest are wrong
    let of = |e: u64| (if e < 60 { 1 } else { 2 + (e % 2) as u32 * 4 }, e < 80 || e.is_multiple_of(2));
    let mut cases = vec![
        case("native", 1, "halt-16", 1, of),
        case("native", 1, "fixed-16", 2, |e| (16, of(e).1)),
        // an engine that agrees is the same line
        case("candle", 1, "halt-16", 3, of),
    ];
    assert!(found(&report(cases.clone()), DIFFICULTY).is_none(), "no difficulty was recorded");
    for p in cases.iter_mut().flat_map(|c| &mut c.predictions) {
        p.difficulty = Some([0, 3, 17][(p.example >= 60) as usize + (p.example >= 80) as usize]);
    }
    let whole = report(cases.clone());
    let study = found(&whole, DIFFICULTY).unwrap();
    assert_eq!(study.titles[2..], ["difficulty 0 (n = 60)", "difficulty 3 (n = 20)", "difficulty 17 (n = 20)"]);
    let rows = cells(&study);
    assert_eq!(rows.iter().map(|r| r[1]).collect::<Vec<_>>(), ["halt-16", "fixed-16"], "{rows:?}");
    assert!(rows[0][2].starts_with("100.0\u{202f}%") && rows[0][2].contains("), 1.00 steps"), "{rows:?}");
    assert!(rows[0][4].starts_with("50.0\u{202f}% (") && rows[0][4].contains(", 4.00 steps ("), "{rows:?}");
    assert!(rows[1].iter().all(|cell| !cell.contains("steps")), "a fixed depth is nobody's choice: {rows:?}");
    let names: Vec<String> = plots(&whole).unwrap().into_iter().map(|p| p.name).collect();
    assert!(names.iter().any(|n| n == "steps-difficulty") && names.iter().any(|n| n == "accuracy-difficulty"));
    // one difficulty is no spread
    cases.iter_mut().flat_map(|c| &mut c.predictions).for_each(|p| p.difficulty = Some(4));
    let one = report(cases);
    assert!(found(&one, DIFFICULTY).is_none());
    assert!(plots(&one).unwrap().iter().all(|p| !p.name.contains("difficulty")));
}

#[test]
fn rules_of_stopping_stand_beside_each_other_only_where_they_took_turns() {
    let turn = |mut run: CaseRun, id: &str, base: &str| {
        run.case.interleaved = Some(InterleavedGroup { id: id.into(), base: Some(base.into()), rounds: 3 });
        run
    };
    let fixed = case("native", 8, "fixed-16", 1, |_| (16, true));
    let base = fixed.case.id.clone();
    let cases = [
        fixed,
        case("native", 8, "halt-16", 2, |e| (1 + (e % 3) as u32, true)),
        case("native", 8, "halt-keep-16", 3, |e| (1 + (e % 3) as u32, true)),
    ];
    let together = report(cases.iter().cloned().map(|c| turn(c, "g", &base)).collect());
    let study = found(&together, STOPPING).unwrap();
    let rows = cells(&study);
    assert_eq!(rows.iter().map(|r| r[1]).collect::<Vec<_>>(), ["fixed-16", "halt-keep-16", "halt-16"]);
    assert!(rows.iter().all(|r| r.iter().all(|cell| *cell != "–")), "every measure is there: {rows:?}");
    let apart = cases.iter().cloned().zip(["g", "h", "i"]).map(|(c, id)| turn(c, id, &base)).collect();
    assert!(found(&report(apart), STOPPING).is_none());
    assert!(found(&report(cases.to_vec()), STOPPING).is_none(), "no turns at all");
}

/// The case asked with eight rows a question.
fn broad(mut run: CaseRun, right: impl Fn(u64) -> bool) -> CaseRun {
    let key = &mut run.case.key;
    (key.task, key.task_hash) = ("puzzles-any-of-8".into(), "33".repeat(32));
    (run.case.questions, run.case.path) = (N, run.case.key.path());
    let attempt = |question| Attempt {
        question,
        name: format!("puzzle {question}"),
        cluster: 1000 + question,
        depth: 1,
        last: true,
        part: 0,
        attempt: 1,
        source: "sound".into(),
        right: right(question),
        rows: 8,
    };
    run.attempts = (0..N).map(attempt).collect();
    run
}

/// Every iteration takes so many steps a row.
fn stepping(mut run: CaseRun, steps: u32) -> CaseRun {
    use synthetic::Edit;
    run.samples.edit(|s| s.metric == "steps_used", |s| s.value = f64::from(steps));
    run
}

#[test]
fn breadth_and_depth_stand_at_equal_operations_where_the_questions_are_the_same() {
    let deep = |steps: u32, seed, share: u64| {
        stepping(case("native", 1, &format!("fixed-{steps}"), seed, move |e| (steps, e < share)), steps)
    };
    let cases = vec![
        deep(1, 1, 40),
        deep(8, 2, 90),
        broad(stepping(case("native", 1, "fixed-1", 3, |_| (1, true)), 1), |q| q < 95),
    ];
    let study = found(&report(cases.clone()), BREADTH).unwrap();
    assert_eq!(study.titles[2..], ["one row an answer (puzzles)", "8 rows an answer (puzzles-any-of-8)"]);
    let rows = cells(&study);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows[0][2].starts_with("fixed-1: 40.0") && rows[0][3] == "–", "{rows:?}");
    assert!(rows[1][2].starts_with("fixed-8: 90.0") && rows[1][3].starts_with("fixed-1: 95.0"), "{rows:?}");
    // other questions are no breadth of these
    let mut other = cases;
    other[2].attempts.iter_mut().for_each(|a| a.cluster += 1);
    assert!(found(&report(other), BREADTH).is_none());
}

#[test]
fn terminal_page_and_markdown_have_them() {
    let half = |e: u64| (4, e.is_multiple_of(2));
    let mut cases = vec![case("native", 1, "halt-16", 1, half), case("native", 8, "halt-16", 2, half)];
    for p in cases.iter_mut().flat_map(|c| &mut c.predictions) {
        p.difficulty = Some((p.example % 40) as u32);
    }
    let report = report(cases);
    let file = |name: &str| {
        let files = (render::FORMATS.iter()).flat_map(|f| (f.render)(&report).unwrap()).find(|(n, _)| n == name);
        String::from_utf8(files.unwrap().1).unwrap()
    };
    for text in [headline(&report, 200), headline(&report, 60), file("index.html"), file("report.md")] {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [BATCHES, DIFFICULTY, "none of 100: bit-equal"] {
            assert!(words.contains(part), "{part}: {text}");
        }
    }
}
