//! What an accuracy costs: the cheapest depth that reaches a target, on answers whose shares are known.
//!
//! In: synthetic cases of two models at several depths. Out: verdicts. Must not: repeat the tests of records.

use ergometer_reports::{RecordedRun, Report, Samples, headline::headline, render, targets::targets};

use crate::synthetic::{self, MODELS};

/// Model, depth, steps that each answer takes, answers that are right of 200.
const CASES: [(usize, &str, u32, u64); 6] = [
    (0, "fixed-1", 1, 100),
    (0, "fixed-4", 4, 176),
    (0, "fixed-8", 8, 178),
    (0, "fixed-16", 16, 192),
    (3, "once", 1, 150),
    (2, "once", 1, 200),
];

fn run() -> RecordedRun {
    let mut run = synthetic::small();
    run.cases = Vec::new();
    for (seed, (model, depth, steps, right)) in (700..).zip(CASES) {
        let mut key = synthetic::key("sudoku-9x9", &MODELS[model], "native", 1);
        key.depth = depth.into();
        let mut case = synthetic::case_run(key, &MODELS[model], seed, 3, 10, 200);
        case.predictions.retain(|p| p.depth == 1);
        for p in &mut case.predictions {
            (p.depth, p.last, p.exact) = (steps, true, p.example < right);
            p.right = if p.exact { p.cells } else { 0 };
        }
        let mut samples = Samples::default();
        for mut sample in case.samples.iter() {
            if sample.metric == "steps_used" {
                sample.value = f64::from(steps);
            }
            samples.push(sample);
        }
        case.samples = samples;
        run.cases.push(case);
    }
    run
}

#[test]
fn the_cheapest_depth_that_reaches_a_target_is_shown_and_what_reaches_none_says_so() {
    let report = Report::new(run());
    let all = targets(&report);
    let [table] = &all[..] else { panic!("{all:?}") };
    let shown: Vec<[&str; 3]> = table.rows.iter().map(|r| [&*r.target, &*r.model, &*r.depth]).collect();
    let (trm, dense, moe) = (MODELS[0].name, MODELS[3].name, MODELS[2].name);
    let (no_trm, no_dense) = ([trm, "none, best fixed-16"], [dense, "none, best once"]);
    let mut wanted = vec![
        // 178 of 200 reach 87 % too, with more operations
        ["87 %", trm, "fixed-4"],
        ["87 %", moe, "once"],
        ["87 %", no_dense[0], no_dense[1]],
        ["95 %", trm, "fixed-16"],
        ["95 %", moe, "once"],
        ["95 %", no_dense[0], no_dense[1]],
        ["99 %", moe, "once"],
        ["99 %", no_trm[0], no_trm[1]],
        ["99 %", no_dense[0], no_dense[1]],
    ];
    let sorted = |mut rows: Vec<[&str; 3]>| {
        rows.sort_unstable();
        rows.into_iter().map(|r| r.map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(sorted(shown), sorted(std::mem::take(&mut wanted)));
    let row = |target: &str, model: &str| table.rows.iter().find(|r| r.target == target && r.model == model).unwrap();
    let first = row("87 %", trm);
    // its interval reaches below 87 %; that of 200 of 200 does not
    assert!(first.accuracy.starts_with("88.0") && first.accuracy.ends_with('~'), "{first:?}");
    assert!(!row("87 %", moe).accuracy.ends_with('~'));
    // a value of each kind, and none where nothing is reached
    assert!(first.operations.contains("FLOP") && first.time.contains("s (") && first.energy.contains("J"), "{first:?}");
    let none = row("99 %", dense);
    assert_eq!((&*none.tag, &*none.time, &*none.energy), ("", "–", "–"));
    // cheaper ones come first
    let place = |model: &str| table.rows.iter().position(|r| r.target == "95 %" && r.model == model).unwrap();
    assert!(place(dense) > place(trm) && place(dense) > place(moe));
}

#[test]
fn terminal_page_and_markdown_have_the_table_and_a_run_of_one_depth_has_none() {
    let report = Report::new(run());
    let file = |name: &str| {
        let files = (render::FORMATS.iter()).flat_map(|f| (f.render)(&report).unwrap()).find(|(n, _)| n == name);
        String::from_utf8(files.unwrap().1).unwrap()
    };
    for text in [headline(&report, 120), headline(&report, 60), file("index.html"), file("report.md")] {
        assert!(text.contains("What an accuracy costs") && text.contains("none, best once"), "{text}");
    }
    assert!(
        file("report.md").lines().nth(2).unwrap().starts_with("**Not alike:** sudoku-9x9: accuracies of unlike depth")
    );
    let mut one = run();
    one.cases.retain(|c| ["once", "fixed-4"].contains(&&*c.case.key.depth));
    assert!(targets(&Report::new(one)).is_empty());
}
