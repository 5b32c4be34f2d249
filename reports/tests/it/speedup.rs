//! Speed-ups of cases that took turns: values that can be worked out by hand, and a reason wherever there is none.
//!
//! In: synthetic interleaved groups. Out: verdicts. Must not: repeat the tests of the interval of a median.

use ergometer_reports::{
    Record, RecordedRun, Report, Samples,
    case::{CaseError, ErrorKind, Sample},
    plot::plots,
    table::tables,
};

use crate::synthetic::{self, Edit, summarise};

/// The synthetic interleaved group, with blocks of `iterations` equal latencies that `latency` gives by backend and
/// round.
fn interleaved(rounds: u32, latency: impl Fn(&str, u32) -> f64) -> RecordedRun {
    let mut run = synthetic::turns();
    run.cases.retain(|c| c.case.error.is_none() && c.case.key.batch == 1);
    for case in &mut run.cases {
        case.samples.clear();
        case.case.interleaved.as_mut().unwrap().rounds = rounds;
        let first = if case.case.key.backend == "native" { 1 } else { 2 };
        for round in 0..rounds {
            for iteration in 0..3 {
                for (metric, value) in [("latency", latency(&case.case.key.backend, round)), ("steps_used", 4.0)] {
                    case.samples.push(Sample {
                        // blocks are numbered by each worker for itself; it is their order that tells the round
                        block: first + round,
                        phase: "steady",
                        iteration: Some(iteration),
                        t_ns: u64::from(round) * 1_000_000 + iteration,
                        example: Some(0),
                        rows: Some(1),
                        metric,
                        value,
                    });
                }
            }
        }
    }
    run
}

/// The peer takes 1 / (1 + round / 10) of the base's time, on a machine that gets slower and slower.
fn slowing(backend: &str, round: u32) -> f64 {
    let machine = f64::from(1 << round);
    match backend {
        "native" => 0.01 * machine,
        "peer" => 0.01 * machine / (1.0 + f64::from(round) / 10.0),
        _ => 0.02 * machine,
    }
}

fn speedup(run: &RecordedRun, backend: &str) -> Record {
    summarise(run)
        .into_iter()
        .find(|r| r.backend == backend && r.metric == "speedup")
        .expect("every interleaved case has one")
}

fn why(run: &RecordedRun, backend: &str) -> (String, String) {
    let record = speedup(run, backend);
    assert!(record.value.is_none() && record.n == 0, "{record:?}");
    let missing = record.missing.unwrap();
    (missing.kind, missing.message)
}

#[test]
fn the_ratio_is_of_rounds_and_does_not_see_the_machine_drift() {
    let run = interleaved(10, slowing);
    let peer = speedup(&run, "peer");
    // 1.0, 1.1 ... 1.9: the median, and the second and the ninth of ten
    let close = |value: Option<f64>, want: f64| assert!((value.unwrap() - want).abs() < 1e-12, "{peer:?} {want}");
    close(peer.value, 1.45);
    close(peer.lower, 1.1);
    close(peer.upper, 1.8);
    assert_eq!((peer.n, peer.unit.as_str(), peer.confidence), (10, "1", Some(0.95)));
    let base = &run.cases.iter().find(|c| c.case.key.backend == "native").unwrap().case;
    assert!(peer.method.ends_with(&format!("base `{}`", base.path)), "{}", peer.method);
    // two cases are compared with this base
    assert!(peer.note.as_ref().unwrap().starts_with("one of 2 comparisons with this base"), "{peer:?}");
    let candle = speedup(&run, "candle");
    assert_eq!((candle.value, candle.lower, candle.upper), (Some(0.5), Some(0.5), Some(0.5)));
    let base = speedup(&run, "native");
    assert_eq!((base.value, base.lower, base.n), (Some(1.0), None, 10));
    // whoever took no turns has no such number, and no reason for it either
    assert!(summarise(&synthetic::small()).iter().all(|r| r.metric != "speedup"));
}

#[test]
fn too_few_rounds_have_no_interval_and_say_so() {
    let five = speedup(&interleaved(5, slowing), "peer");
    assert_eq!((five.value, five.lower, five.upper, five.n), (Some(1.2), None, None, 5));
    assert_eq!(five.note.as_deref(), Some("no interval: n = 5; an interval of the median needs 7"));
    assert!(speedup(&interleaved(7, slowing), "peer").upper.is_some());
}

#[test]
fn ratios_do_not_cross_sittings_and_need_their_base() {
    let run = interleaved(10, slowing);
    let change = |backend: &str, change: &dyn Fn(&mut ergometer_reports::CaseRun)| {
        let mut run = run.clone();
        change(run.cases.iter_mut().find(|c| c.case.key.backend == backend).unwrap());
        run
    };
    let later = change("peer", &|c| c.case.interleaved.as_mut().unwrap().id = "cc".into());
    let (kind, message) = why(&later, "peer");
    assert!(
        kind == "not-measured" && message.contains("/native/") && message.contains("another interleaved group"),
        "{message}"
    );
    assert!(speedup(&later, "candle").value.is_some());
    let alone = change("native", &|c| c.case.interleaved = None);
    assert!(why(&alone, "peer").1.contains("another interleaved group"));

    let nobody = change("peer", &|c| c.case.interleaved.as_mut().unwrap().base = None);
    assert!(why(&nobody, "peer").1.contains("the suite names as base"));
    let gone = change("peer", &|c| c.case.interleaved.as_mut().unwrap().base = Some("dd".repeat(32)));
    assert!(why(&gone, "peer").1.contains("not in this run"));

    let error = CaseError { kind: ErrorKind::Parity, message: "too far off".into(), hint: None };
    let failed = change("native", &|c| (c.case.error, c.samples) = (Some(error.clone()), Samples::default()));
    let (kind, message) = why(&failed, "peer");
    assert!(kind == "parity" && message.contains("failed: too far off"), "{message}");
    assert_eq!(why(&failed, "native").0, "parity");

    // a block is missing: which round it was nobody can know
    let short = change("peer", &|c| c.samples.retain(|s| s.block != 4));
    assert!(why(&short, "peer").1.ends_with("has 9 timed blocks in 10 rounds"));
    let short = change("native", &|c| c.samples.retain(|s| s.block != 4));
    assert!(why(&short, "candle").1.ends_with("has 9 timed blocks in 10 rounds"));
}

#[test]
fn a_base_that_answers_too_badly_has_no_speed() {
    let mut run = synthetic::turns();
    run.cases.retain(|c| c.case.key.batch == 1 && ["native", "peer"].contains(&c.case.key.backend.as_str()));
    let answer = run.cases[0].predictions.iter().find(|p| p.last).unwrap().clone();
    for case in &mut run.cases {
        let base = case.case.key.backend == "native";
        case.case.key.precision = if base { "bf16" } else { "f32" }.into();
        let right = |example: u64| !base || example.is_multiple_of(2);
        let row = |example| ergometer_reports::case::Prediction {
            example,
            cluster: example,
            exact: right(example),
            ..answer.clone()
        };
        case.predictions = (0..400).map(row).collect();
    }
    assert_eq!(why(&run, "peer").0, "inferior");
}

#[test]
fn other_work_is_told() {
    let mut run = interleaved(10, slowing);
    let peer = run.cases.iter_mut().find(|c| c.case.key.backend == "peer").unwrap();
    peer.samples.edit(|s| s.metric == "steps_used", |s| s.value = 3.0);
    let note = speedup(&run, "peer").note.unwrap();
    assert!(note.contains("3.00 steps an example and the base 4.00"), "{note}");
}

#[test]
fn a_case_under_the_older_name_of_its_group_keeps_it() {
    let run = synthetic::turns();
    let case = &run.cases[0].case;
    let text = serde_json::to_string(case).unwrap();
    assert!(text.contains("\"interleaved\":{"));
    let older = text.replace("\"interleaved\":{", "\"sitting\":{");
    assert_eq!(serde_json::from_str::<ergometer_reports::case::Case>(&older).unwrap(), *case);
}

#[test]
fn every_interleaved_group_has_a_table_and_a_plot() {
    let report = Report::new(synthetic::turns());
    let (all, _) = tables(&report);
    // a case alone in its group is its own base, and there is nothing to show
    let [interleaved] = &all[0].speedups[..] else { panic!("{:?}", all[0].speedups) };
    let rows: Vec<_> = interleaved.rows.iter().map(|r| (r.name.as_str(), r.cells.len(), r.error.is_some())).collect();
    assert_eq!(rows, [("candle", 1, false), ("native", 1, false), ("peer", 1, false), ("tract", 0, true)]);
    assert_eq!((interleaved.base.as_str(), interleaved.rows[1].cells[0].value.as_str()), ("native", "1.00"));
    assert!(interleaved.rows[0].cells[0].interval.is_some());
    let drawn: Vec<_> = plots(&report).unwrap().into_iter().filter(|p| p.name.starts_with("speedup")).collect();
    assert_eq!(drawn.len(), 1);
    assert!(
        drawn[0].svg.contains("speed-up over native") && drawn[0].caption.contains("n = 10"),
        "{}",
        drawn[0].caption
    );
    assert!(drawn[0].svg.contains("peer") && !drawn[0].svg.contains("tract"), "a failed case is not drawn");
}
