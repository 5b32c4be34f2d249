//! Depth rules through the program: fixed steps, halting, halting with the halted rows kept at work, in turns; and what each batch answers.
//!
//! In: a tiny recursive net with random weights. Out: run folders. Must not: compare times.

use std::collections::BTreeMap;
use std::fs;

use ergometer_reports::case::ErrorKind;
use ergometer_reports::{CaseRun, Report, load, studies::studies};

use crate::house::{House, root};

/// Answer and steps of each example.
fn of_record(case: &CaseRun) -> Vec<(u64, &str, u32)> {
    case.predictions.iter().filter(|p| p.last).map(|p| (p.example, p.answer.as_str(), p.depth)).collect()
}

/// Operations executed for an example.
fn executed(report: &Report, case: &CaseRun) -> f64 {
    report.value(&case.case, "flops_executed").expect("native counts")
}

#[test]
fn rows_that_have_halted_answer_the_same_whether_they_are_dropped_or_kept() {
    let house = House::new();
    let text = "[[cases]]\nmodels = [\"trm\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\nscenarios = [\"offline-b5\"]\n\
                depth = [\"fixed-6\", \"halt-6\", \"halt-keep-6\"]\ninterleave = true\nany_depth = true\nseconds = 0.1\nwarmup_seconds = 0\n";
    // a net whose rows halt at different steps: one with random weights never halts
    let net = format!("model.trm.path={}", root().join("suites/models/trm-att-9x9").display());
    let boards = ["task.small.size=9", "task.small.clues=[24, 50]", "task.small.examples=20"];
    let set = ["--set", &net, "--set", boards[0], "--set", boards[1], "--set", boards[2]];
    house.run(&house.suite("rules.toml", text), "run", &set).exits(0);
    let run = load(&house.path("run")).unwrap();
    let report = Report::new(run.clone());
    let cases: BTreeMap<&str, &CaseRun> = run.cases.iter().map(|c| (c.case.key.depth.as_str(), c)).collect();
    let [fixed, halt, keep] = ["fixed-6", "halt-6", "halt-keep-6"].map(|depth| cases[depth]);
    assert_eq!(of_record(halt), of_record(keep));
    assert_eq!(of_record(halt).len(), 20);
    let groups = [fixed, halt, keep].map(|c| c.case.interleaved.clone().expect("they took turns"));
    assert!(groups.iter().all(|g| g.id == groups[0].id && g.base.as_ref() == Some(&fixed.case.id)), "{groups:?}");
    // a batch of five lasts as long as its slowest row
    let steps: Vec<u32> = of_record(halt).iter().map(|a| a.2).collect();
    assert!(steps.chunks(5).any(|batch| batch.iter().any(|s| *s != batch[0])), "some batch is uneven: {steps:?}");
    let [fixed, halted, kept] = [fixed, halt, keep].map(|c| executed(&report, c));
    assert!(halted < kept && kept <= fixed, "{halted}, {kept}, {fixed}");
    let markdown = fs::read_to_string(house.path("run/report/report.md")).unwrap();
    assert!(markdown.contains("## What halting saves: small"), "{markdown}");

    // who is asked to take turns with cases of another depth takes turns at all
    let lone = text.replace("interleave = true\n", "");
    house.run(&house.suite("lone.toml", &lone), "lone", &[]).refused(&["`any_depth`", "interleave = true"]);
    // and nobody knows what another program does with rows that have halted
    let fake = house.fake("plain", &[]);
    let text = format!(
        "{fake}[[cases]]\nmodels = [\"trm\"]\ntasks = [\"small\"]\nbackends = [\"plain\"]\ndepth = [\"halt-keep-3\"]\nseconds = 0.05\nwarmup_seconds = 0\n"
    );
    house.run(&house.suite("other.toml", &text), "other", &[]).exits(1);
    let error = house.cases("other")["plain"].error.clone().unwrap();
    assert!(error.kind == ErrorKind::Unavailable && error.message.contains("halted"), "{error:?}");
}

#[test]
fn each_batch_is_scored_by_itself_and_threads_are_not() {
    let house = House::new();
    // weights in a file, so that cases may share their answers
    let text = "[[cases]]\nmodels = [\"trm\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\nscenarios = [\"single-stream\", \"offline-b5\"]\n\
                threads = [1, 2]\ndepth = [\"halt-3\"]\nseconds = 0.05\nwarmup_seconds = 0\n";
    house.run(&house.suite("batches.toml", text), "run", &[]).exits(0);
    let run = load(&house.path("run")).unwrap();
    for case in &run.cases {
        let source = case.case.accuracy_from.as_ref().unwrap();
        let source = run.cases.iter().find(|c| c.case.id == *source).unwrap();
        assert_eq!(source.case.key.batch, case.case.key.batch, "{}", case.case.path);
        assert!(source.predictions.iter().all(|p| p.difficulty.is_some()), "how hard each example is");
    }
    assert_eq!(run.cases.iter().filter(|c| !c.predictions.is_empty()).count(), 2, "once for each batch");
    let all = studies(&Report::new(run));
    let study = all.iter().find(|s| s.title == "Does the batch change answers: small").unwrap();
    // one thread and two, at two batches each; native gives the same to the bit
    assert_eq!(study.rows.len(), 4, "{study:?}");
    let told: Vec<&str> = study.rows.iter().map(|r| r.cells[3].as_str()).collect();
    assert_eq!(
        told,
        ["base of the comparison", "none of 5: bit-equal", "base of the comparison", "none of 5: bit-equal"]
    );
}

/// Halting logits of the answers of record, by example.
fn logits(case: &CaseRun) -> Vec<f64> {
    case.predictions
        .iter()
        .filter(|p| p.last)
        .map(|p| p.halt_logit.expect("a recursive net has a halting head"))
        .collect()
}

#[test]
fn chains_start_elsewhere_by_their_seed_alone_and_alike_on_every_backend() {
    let house = House::new();
    let puzzles = "kind = \"sudoku\"\nsize = 4\nclues = [6, 8]\nexamples = 4\nseed = 3\n";
    // a trained net: what tiny ones with random weights say of halting does not depend on their states
    let net = format!("[[model]]\nname = \"solver\"\npath = {:?}\n", root().join("suites/models/trm-4x4"));
    let tasks = format!(
        "{net}[[task]]\nname = \"plain\"\n{puzzles}[[task]]\nname = \"chained\"\n{puzzles}chains = 3\nnoise = 0.5\n"
    );
    let cases = |model: &str, backend: &str, precision: &str| {
        format!(
            "[[cases]]\nmodels = [\"{model}\"]\ntasks = [\"plain\", \"chained\"]\nbackends = [\"{backend}\"]\nprecisions = [\"{precision}\"]\nscenarios = [\"single-stream\", \"offline-b3\"]\n\
             depth = [\"fixed-2\"]\nseconds = 0.05\nwarmup_seconds = 0\n"
        )
    };
    let suite = house.suite(
        "chains.toml",
        &format!("{tasks}{}{}", cases("solver", "native", "f32"), cases("solver", "reference", "f64")),
    );
    house.run(&suite, "run", &[]).exits(0);
    let run = load(&house.path("run")).unwrap();
    let find = |task: &str, backend: &str, batch: u32| {
        let is = |c: &&CaseRun| (&*c.case.key.task, &*c.case.key.backend, c.case.key.batch) == (task, backend, batch);
        run.cases.iter().find(is).unwrap()
    };
    let (plain, chained) = (logits(find("plain", "native", 1)), logits(find("chained", "native", 1)));
    assert_eq!((plain.len(), chained.len()), (4, 12));
    for (puzzle, rows) in plain.iter().zip(chained.chunks(3)) {
        assert_eq!(rows[0], *puzzle, "the first chain starts where the net learned to");
        assert!(rows[1] != rows[0] && rows[2] != rows[0] && rows[1] != rows[2], "{rows:?}");
    }
    // what a row starts with depends neither on its place nor on the engine
    assert_eq!(logits(find("chained", "native", 3)), chained);
    for (own, reference) in chained.iter().zip(logits(find("chained", "reference", 3))) {
        assert!((own - reference).abs() < 1e-3, "{own} and {reference}");
    }
    let decided = find("chained", "native", 1);
    assert_eq!(decided.case.questions, 4);
    assert!(decided.attempts.iter().all(|a| a.rows == 3 && a.source.contains("of 3 chains")), "{:?}", decided.attempts);
    assert!(decided.case.notes.iter().any(|n| n.contains("normal noise of standard deviation 0.5")));
    assert_eq!(decided.case.protocol.as_ref().unwrap().votes, 3);

    // a one-shot net has no start, and another program cannot be asked to start elsewhere
    let dense = house.suite("dense.toml", &format!("{tasks}{}", cases("dense", "native", "f32")));
    house.run(&dense, "dense", &[]).refused(&["`chains`", "one-shot", "hint: "]);
    let text = format!("{}{tasks}{}", house.fake("plain", &[]), cases("trm", "plain", "f32"));
    house.run(&house.suite("external.toml", &text), "external", &["--filter", "chained*"]).exits(1);
    let error = house.cases("external")["plain"].error.clone().unwrap();
    assert!(error.kind == ErrorKind::Unavailable && error.message.contains("start"), "{error:?}");
}
