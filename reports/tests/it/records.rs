//! Records: values that can be worked out by hand, and a reason wherever there is none.
//!
//! In: synthetic runs. Out: verdicts. Must not: repeat the tests of the statistics themselves.

use ergometer_reports::{
    Record, RecordedRun, Report,
    case::{Attempt, LayerRouting, Sample, UnavailableMetric},
    metric::{METRICS, Of},
    record, render,
};

use crate::synthetic::{self, Edit, summarise};

pub fn get<'a>(records: &'a [Record], path: &str, metric: &str) -> &'a Record {
    records.iter().find(|r| r.path.contains(path) && r.metric == metric).expect("every case has every metric")
}

fn sample(
    phase: &'static str,
    block: u32,
    iteration: Option<u64>,
    row: Option<u64>,
    metric: &'static str,
    value: f64,
) -> Sample {
    let t_ns = u64::from(block) * 1_000_000 + iteration.unwrap_or(999) * 1000;
    Sample { block, phase, iteration, t_ns, example: None, rows: row, metric, value }
}

/// A run of one case: two blocks of three iterations of 4 examples in 0.5 s each; 60 J, then 84 J; 20 of 40 right.
pub fn by_hand() -> RecordedRun {
    let mut run = synthetic::small();
    run.cases.retain(|c| c.case.path.contains("dense-6/f32/native"));
    let case = &mut run.cases[0];
    case.samples.clear();
    for block in 0..2 {
        for i in 0..3 {
            case.samples.push(sample("steady", block, Some(i), Some(4), "latency", 0.5));
            case.samples.push(sample("steady", block, Some(i), Some(4), "steps_used", 8.0));
        }
        case.samples.push(sample("steady", block, None, None, "energy_cpu", if block == 0 { 60.0 } else { 84.0 }));
        case.samples.push(sample("steady", block, None, None, "energy_cpu_edge", 0.06));
        case.samples.push(sample("steady", block, None, None, "harness_cpu", 0.003));
        case.samples.push(sample("steady", block, None, None, "memory_peak", 7e6 + f64::from(block)));
    }
    // observations of other phases must not leak into the steady ones
    case.samples.push(sample("warmup", 0, Some(0), Some(4), "latency", 9.0));
    case.samples.push(sample("accuracy", 9, None, None, "energy_cpu", 1e9));
    for (i, p) in case.predictions.iter_mut().enumerate() {
        p.exact = i < 20;
    }
    run
}

#[test]
fn values_by_hand() {
    let records = summarise(&by_hand());
    let value = |metric| get(&records, "", metric).value.unwrap_or(f64::NAN);
    assert_eq!(value("accuracy"), 0.5);
    assert_eq!(value("latency"), 0.5);
    assert_eq!(value("throughput"), 8.0);
    assert_eq!(value("energy_cpu"), 6.0);
    assert_eq!(value("joules_per_right"), 12.0);
    assert_eq!(value("steps_used"), 2.0);
    assert_eq!(value("flops_model"), 2.0e5 + 2.0 * 9.8e6);
    assert_eq!(value("flop_rate"), 8.0 * (2.0e5 + 2.0 * 9.8e6));
    assert_eq!(value("share_of_ceiling"), 8.0 * (2.0e5 + 2.0 * 9.8e6) / 200e9);
    assert_eq!(value("memory_peak"), 7e6 + 1.0);
    assert!((value("harness_cpu") - 0.002).abs() < 1e-15);
    let joules = get(&records, "", "joules_per_right");
    assert!(
        joules.lower.is_none() && joules.note.as_deref() == Some("no interval: an interval reaches 0"),
        "{joules:?}"
    );
}

#[test]
fn a_share_of_a_ceiling_names_it_or_says_why_there_is_none() {
    let run = synthetic::small();
    let share = |run: &RecordedRun| get(&summarise(run), "dense-6/f32/native", "share_of_ceiling").clone();
    let (held, records) = (share(&run), summarise(&run));
    let rate = get(&records, "dense-6/f32/native", "flop_rate");
    assert!(held.method.contains("f32.avx512 at 2 threads, 200\u{202f}GFLOP/s, the best of 7"), "{}", held.method);
    // the ceiling is held fixed: the interval is that of the rate
    let scaled = [rate.lower, rate.upper, rate.value].map(|v| v.unwrap() / 200e9);
    let shares = [held.lower, held.upper, held.value].map(Option::unwrap);
    assert!(scaled.iter().zip(shares).all(|(a, b)| (a / b - 1.0).abs() < 1e-12), "{held:?}");
    assert_eq!((held.n, held.note), (rate.n, None));

    let changed = |change: &dyn Fn(&mut RecordedRun)| {
        let mut run = run.clone();
        change(&mut run);
        share(&run)
    };
    let missing = |change: &dyn Fn(&mut RecordedRun)| changed(change).missing.expect("no number");
    assert_eq!(missing(&|r| r.environment.ceilings = None).kind, "not-measured");
    let others = missing(&|r| r.environment.ceilings.as_mut().unwrap().list.iter_mut().for_each(|c| c.threads = 4));
    assert!(others.kind == "not-measured" && others.message.contains("at 2 threads"), "{others:?}");
    let board = missing(&|r| {
        for c in &mut r.cases {
            c.case.key.backend_options.insert("device".into(), "cuda:0".into());
        }
    });
    assert!(board.kind == "unavailable" && board.message.contains("GPU"), "{board:?}");
    assert_eq!(missing(&|r| r.cases.iter_mut().for_each(|c| c.case.costs = None)).kind, "not-measured");
    // a number above 1 is shown with what it means
    let above = changed(&|r| r.environment.ceilings.as_mut().unwrap().list.iter_mut().for_each(|c| c.best = 1.0));
    assert!(above.value.unwrap() > 1.0 && above.note.unwrap().starts_with("above the ceiling"));
    let absurd = changed(&|r| r.environment.ceilings.as_mut().unwrap().list.iter_mut().for_each(|c| c.best = 5e-324));
    assert_eq!(absurd.value, None, "a quotient beyond what a number can hold is none");
}

#[test]
fn every_case_has_every_metric_with_a_value_or_a_reason() {
    let (run, decided) = (synthetic::large(), synthetic::decided());
    let (records, of_questions) = (summarise(&run), summarise(&decided));
    let of = |of: Of| METRICS.iter().filter(|m| m.of == of).count();
    // both runs are in full precision, which is held to nothing, on processors, and nobody took turns
    let halting = |run: &RecordedRun| {
        run.cases.iter().filter(|c| c.case.error.is_none() && c.case.key.depth != "once").count() * of(Of::Halting)
    };
    assert_eq!(records.len(), run.cases.len() * of(Of::Every) + halting(&run));
    assert_eq!([Of::Questions, Of::Reduced, Of::Boards, Of::Turns, Of::Halting].map(of), [2, 1, 1, 1, 2]);
    assert_eq!(of_questions.len(), decided.cases.len() * (of(Of::Every) + of(Of::Questions)) + halting(&decided));
    for r in records.iter().chain(&of_questions) {
        assert!(r.value.is_some() != r.missing.is_some(), "{r:?}");
        if r.value.is_some() {
            assert!(r.n > 0 && !r.method.is_empty(), "{r:?}");
            assert!(r.upper.is_some() || r.note.is_some(), "no interval and no reason: {r:?}");
        }
    }
}

#[test]
fn an_error_gives_reasons_and_no_numbers() {
    let mut run = synthetic::small();
    let hung = run.cases.iter_mut().find(|c| c.case.error.is_some()).unwrap();
    // observations from before the error stay in the file and out of the records
    hung.samples.push(sample("steady", 0, Some(0), Some(1), "latency", 1.0));
    for r in summarise(&run).iter().filter(|r| r.backend == "<b>candle</b>") {
        assert_eq!(r.value, None);
        assert_eq!(r.missing.as_ref().unwrap().kind, "timeout");
    }
}

#[test]
fn an_absent_meter_is_never_zero() {
    let mut run = by_hand();
    run.cases[0].samples.retain(|s| s.metric != "energy_cpu");
    run.cases[0]
        .case
        .unavailable
        .push(UnavailableMetric { metric: "energy_cpu".into(), reason: "no powercap here".into() });
    let records = summarise(&run);
    for metric in ["energy_cpu", "joules_per_right"] {
        let missing = get(&records, "", metric).missing.as_ref().unwrap();
        assert_eq!((missing.kind.as_str(), missing.message.as_str()), ("unavailable", "no powercap here"), "{metric}");
    }
}

/// By hand, with five blocks of 60 J of packages and 12 J of boards each.
fn five_blocks() -> RecordedRun {
    let mut run = by_hand();
    let case = &mut run.cases[0];
    case.samples.clear();
    for block in 0..5 {
        for i in 0..3 {
            case.samples.push(sample("steady", block, Some(i), Some(4), "latency", 0.5));
        }
        for (metric, value) in
            [("energy_cpu", 60.0), ("energy_cpu_edge", 0.06), ("energy_gpu", 12.0 + f64::from(block))]
        {
            case.samples.push(sample("steady", block, None, None, metric, value));
        }
        case.samples.push(sample("steady", block, None, None, "energy_gpu_edge", 1.2));
        case.samples.push(sample("steady", block, None, None, "memory_peak", 7e6));
    }
    run.cases[0].case.key.backend_options.insert("device".into(), "cuda:0".into());
    run
}

/// Takes a metric (and its edges) from some blocks.
fn take(run: &mut RecordedRun, metric: &str, blocks: &[u32]) {
    run.cases[0].samples.retain(|s| !(s.metric.starts_with(metric) && blocks.contains(&s.block)));
    run.cases[0]
        .case
        .unavailable
        .push(UnavailableMetric { metric: metric.into(), reason: "the counter jumped".into() });
}

#[test]
fn blocks_without_a_reading_are_told() {
    let mut run = five_blocks();
    take(&mut run, "energy_cpu", &[0, 2, 3]);
    take(&mut run, "memory_peak", &[1]);
    let records = summarise(&run);
    let energy = get(&records, "", "energy_cpu");
    assert_eq!((energy.value, energy.n), (Some(5.0), 2));
    assert_eq!(energy.note.as_deref(), Some("2 of 5 blocks have energy_cpu: the counter jumped"));
    assert!(get(&records, "", "joules_per_right").note.as_ref().unwrap().contains("2 of 5 blocks have energy_cpu"));
    assert!(get(&records, "", "memory_peak").note.as_ref().unwrap().contains("4 of 5 blocks have memory_peak"));
    assert_eq!(get(&records, "", "energy_gpu").n, 5);
    take(&mut run, "energy_cpu", &[1]);
    let records = summarise(&run);
    for metric in ["energy_cpu", "joules_per_right"] {
        let missing = get(&records, "", metric).missing.clone().unwrap();
        assert_eq!(missing.kind, "unavailable");
        // the sum's reason goes on with what the boards are known to have used
        let (why, more) = missing.message.split_once("; of the boards").unwrap_or((&missing.message, ""));
        assert_eq!(why, "1 of 5 blocks have energy_cpu, and it needs 2: the counter jumped", "{metric}");
        assert_eq!(more.contains("board_joules_per_right"), metric == "joules_per_right", "{}", missing.message);
    }
}

#[test]
fn a_block_of_far_more_power_than_the_others_has_no_energy() {
    // 60 J in 1.5 s are 40 W; 320 J would be 213 W
    for (metric, usual) in [("energy_cpu", 5.0), ("energy_gpu", 14.0 / 12.0)] {
        for (joules, blocks, left) in [(265.0, &[3][..], 5), (320.0, &[3], 4), (320.0, &[0, 4], 3), (9e4, &[1], 4)] {
            let mut run = five_blocks();
            run.cases[0].samples.edit(|s| s.metric == metric && blocks.contains(&s.block), |s| s.value = joules);
            let energy = get(&summarise(&run), "", metric).clone();
            // of the board 265 J are 177 W beside 9 W
            let left = if metric == "energy_gpu" { left.min(4) } else { left };
            assert_eq!(energy.n, left, "{metric} {joules}: {energy:?}");
            if left < 5 {
                assert!((energy.value.unwrap() / usual - 1.0).abs() < 0.1, "{energy:?}");
                let note = energy.note.as_ref().unwrap();
                assert!(
                    note.contains(&format!("{left} of 5 blocks have {metric}")) && note.contains("jumped"),
                    "{note}"
                );
            }
        }
    }
    // four blocks tell nothing of a fifth
    let mut run = five_blocks();
    take(&mut run, "energy_cpu", &[0]);
    run.cases[0].samples.edit(|s| s.metric == "energy_cpu" && s.block == 1, |s| s.value = 320.0);
    assert_eq!(get(&summarise(&run), "", "energy_cpu").n, 4);
}

#[test]
fn packages_and_boards_are_joined_by_block() {
    let mut run = five_blocks();
    take(&mut run, "energy_cpu", &[0, 1]);
    take(&mut run, "energy_gpu", &[3, 4]);
    // as many of the one as of the other, and one block only that has both
    let missing = get(&summarise(&run), "", "joules_per_right").missing.clone().unwrap();
    assert!(missing.message.starts_with("1 of 5 blocks have energy_cpu and energy_gpu"), "{missing:?}");
    let mut run = five_blocks();
    take(&mut run, "energy_cpu", &[0]);
    take(&mut run, "energy_gpu", &[4]);
    // blocks 1 to 3: 60 J and 13, 14, 15 J for 12 examples each, half of them right
    let joules = get(&summarise(&run), "", "joules_per_right").clone();
    assert_eq!((joules.value, joules.n), (Some((180.0 + 42.0) / 36.0 / 0.5), 3));
    assert!(joules.note.as_ref().unwrap().contains("3 of 5 blocks have energy_cpu and energy_gpu"), "{joules:?}");
}

#[test]
fn edges_of_blocks_widen_the_energy_and_are_told() {
    let set = |edge: f64| {
        let mut run = five_blocks();
        run.cases[0].samples.edit(|s| s.metric == "energy_cpu_edge", |s| s.value = edge);
        run.cases[0].case.key.backend_options.clear();
        summarise(&run)
    };
    // equal blocks: what is left of the interval are the edges, 6 J of 60 J
    let records = set(6.0);
    let energy = get(&records, "", "energy_cpu");
    let (lower, upper) = (energy.lower.unwrap(), energy.upper.unwrap());
    assert!((lower - 4.5).abs() < 1e-9 && (upper - 5.5).abs() < 1e-9, "{energy:?}");
    assert_eq!(get(&records, "", "energy_cpu_edge").value, Some(0.5));
    for metric in ["energy_cpu", "joules_per_right"] {
        let note = get(&records, "", metric).note.as_deref();
        assert_eq!(note, Some("the edges of its blocks can be 10.00 % of it"), "{metric}");
    }
    assert!(get(&records, "", "joules_per_right").upper.unwrap() > 10.9);
    // 0.1 % is nothing to speak of, 51 % is no number
    assert_eq!(get(&set(0.06), "", "energy_cpu").note, None);
    for metric in ["energy_cpu", "joules_per_right"] {
        let missing = get(&set(30.6), "", metric).missing.clone().unwrap();
        assert!(missing.message.contains("51.00 %") && missing.hint.is_some(), "{metric}: {missing:?}");
    }
}

#[test]
fn edges_stand_in_a_footnote_of_the_page() {
    let mut run = five_blocks();
    run.cases[0].samples.edit(|s| s.metric == "energy_cpu_edge", |s| s.value = 6.0);
    let report = Report::new(run);
    let (tables, footnotes) = ergometer_reports::table::tables(&report);
    let cell = tables[0].rows[0].cells.last().unwrap();
    let footnote = &footnotes[cell.footnote.unwrap() - 1];
    // (6 + 1.2) J of (60 + 14) J
    assert!(
        cell.title == "joules per right answer" && footnote.contains("edges of its blocks can be 9.73 %"),
        "{footnote}"
    );
}

#[test]
fn a_recorded_zero_is_no_energy() {
    let mut run = five_blocks();
    run.cases[0].samples.edit(|s| s.metric == "energy_cpu", |s| s.value = 0.0);
    for metric in ["energy_cpu", "joules_per_right"] {
        let missing = get(&summarise(&run), "", metric).missing.clone().unwrap();
        assert!(missing.kind == "unavailable" && missing.message.contains("read 0 J"), "{metric}: {missing:?}");
    }
}

#[test]
fn the_first_latency_has_one_spelling() {
    let mut run = by_hand();
    run.cases[0].samples.push(sample("first", 0, Some(0), Some(4), "latency", 3.0));
    assert_eq!(get(&summarise(&run), "", "first_latency").value, None);
    run.cases[0].samples.push(sample("first", 0, None, Some(4), "first_latency", 2.0));
    assert_eq!(get(&summarise(&run), "", "first_latency").value, Some(2.0));
}

#[test]
fn boards_count_where_the_backend_computes_on_them() {
    let mut run = by_hand();
    for block in 0..2 {
        run.cases[0].samples.push(sample("steady", block, None, None, "energy_gpu", 12.0));
        run.cases[0].samples.push(sample("steady", block, None, None, "energy_gpu_edge", 0.1));
    }
    assert_eq!(get(&summarise(&run), "", "joules_per_right").value, Some(12.0));
    run.cases[0].case.key.backend_options.insert("device".into(), "cuda:0".into());
    assert_eq!(get(&summarise(&run), "", "joules_per_right").value, Some(14.0));
    run.cases[0].samples.retain(|s| s.metric != "energy_gpu" || s.block == 0);
    assert_eq!(get(&summarise(&run), "", "joules_per_right").value, None);
}

/// By hand, where every question is decided from ten rows and has two outputs: of 4 questions 1 is right by first
/// attempts, 1 by a second one, and 1 has one output right.
fn four_questions() -> RecordedRun {
    let mut run = by_hand();
    let case = &mut run.cases[0];
    case.case.questions = 4;
    let kinds: [(u64, u32, u32, bool); 9] = [
        (0, 0, 1, true),
        (0, 1, 1, true),
        (1, 0, 1, true),
        (1, 1, 1, false),
        (1, 1, 2, true),
        (2, 0, 1, true),
        (2, 1, 1, false),
        (3, 0, 1, false),
        (3, 1, 0, false),
    ];
    let row = |(question, part, attempt, right), depth, last| Attempt {
        question,
        name: format!("q{question}"),
        cluster: question,
        depth,
        last,
        part,
        attempt,
        source: format!("vote {attempt}"),
        right,
        rows: 10,
    };
    // after one step nothing is right yet
    case.attempts = kinds.iter().map(|&(q, p, a, _)| row((q, p, a, false), 1, false)).collect();
    case.attempts.extend(kinds.iter().map(|&k| row(k, 2, true)));
    run
}

#[test]
fn questions_count_by_the_official_rule_and_are_charged_for_all_their_rows() {
    let run = four_questions();
    let records = summarise(&run);
    let record = |metric| get(&records, "", metric);
    let accuracy = record("accuracy");
    assert_eq!((accuracy.value, accuracy.n), (Some(0.5), 4));
    assert!(accuracy.method.contains("two attempts, every output right, per task"), "{accuracy:?}");
    let outputs = record("accuracy_outputs");
    assert_eq!((outputs.value, outputs.n), (Some(5.0 / 8.0), 8));
    let single = record("accuracy_single");
    assert_eq!((single.value, single.n), (Some(0.5), 40));
    assert!(single.method.contains("no vote"), "{single:?}");
    // 6 J a row, ten rows a question, half of the questions right
    let joules = record("joules_per_right");
    assert_eq!(joules.value, Some(6.0 * 10.0 / 0.5));
    assert!(joules.method.contains("all 10 rows of a question charged"), "{joules:?}");
    assert_eq!(record("energy_cpu").value, Some(6.0));

    // a case that takes its accuracy from another one is charged the same way
    let mut both = run.clone();
    let mut other = run.cases[0].clone();
    other.case.id = "ff".repeat(32);
    other.predictions.clear();
    other.attempts.clear();
    both.cases.push(other);
    let joules: Vec<_> = summarise(&both).into_iter().filter(|r| r.metric == "joules_per_right").collect();
    assert!(joules.len() == 2 && joules.iter().all(|r| r.value == Some(120.0)), "{joules:?}");

    // where the task decides row by row there is no such metric
    let rows = summarise(&by_hand());
    assert!(rows.iter().all(|r| !["accuracy_single", "accuracy_outputs"].contains(&r.metric.as_str())));
}

#[test]
fn unequal_questions_are_charged_for_what_they_took() {
    let mut run = four_questions();
    run.cases[0].attempts.iter_mut().filter(|a| a.question < 2).for_each(|a| a.rows = 2);
    // 24 rows for 4 questions
    assert_eq!(get(&summarise(&run), "", "joules_per_right").value, Some(6.0 * 6.0 / 0.5));
}

#[test]
fn none_right_has_no_joules_per_right() {
    let mut run = by_hand();
    run.cases[0].predictions.iter_mut().for_each(|p| p.exact = false);
    let records = summarise(&run);
    assert_eq!(get(&records, "", "accuracy").value, Some(0.0));
    assert!(get(&records, "", "accuracy").upper.unwrap() > 0.05);
    assert_eq!(get(&records, "", "joules_per_right").missing.as_ref().unwrap().kind, "no-right-answer");
}

#[test]
fn a_percentile_appears_with_enough_observations() {
    let records = summarise(&synthetic::small());
    let few = get(&records, "trm-mlp", "latency_p99").missing.as_ref().unwrap();
    assert!(few.kind == "too-few" && few.message.contains("662"), "{few:?}");
    let enough = get(&records, "dense-6/f32/native", "latency_p99");
    assert!(enough.value == enough.upper && enough.confidence == Some(0.99) && enough.n == 900, "{enough:?}");
}

#[test]
fn accuracy_comes_from_the_named_case() {
    let mut run = by_hand();
    let mut other = run.cases[0].clone();
    other.case.id = "ff".repeat(32);
    other.predictions.clear();
    run.cases.push(other);
    let values: Vec<_> = summarise(&run).into_iter().filter(|r| r.metric == "accuracy").map(|r| r.value).collect();
    assert_eq!(values, [Some(0.5), Some(0.5)]);
}

#[test]
fn drift_and_estimates_are_noted() {
    let mut run = by_hand();
    let case = &mut run.cases[0];
    case.samples.retain(|s| s.metric != "latency");
    for i in 0..40 {
        let latency = if i < 20 { 0.5 } else { 0.7 } + i as f64 * 1e-5;
        case.samples.push(sample("steady", 0, Some(i), Some(4), "latency", latency));
    }
    run.environment.meters[0].estimate = true;
    let records = summarise(&run);
    assert!(get(&records, "", "latency").note.as_ref().unwrap().contains("drifted"));
    assert!(get(&records, "", "energy_cpu").note.as_ref().unwrap().contains("estimated by powercap"));
}

#[test]
fn files_hold_every_record() {
    let run = synthetic::small();
    let records = summarise(&run);
    let json: record::RecordsFile = serde_json::from_slice(&record::to_json(&run.environment, &records)).unwrap();
    assert!(json.records == records, "records.json does not read back equal");
    let bytes = record::to_csv(&records).unwrap();
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    let value = reader.headers().unwrap().iter().position(|h| h == "value").unwrap();
    let values: Vec<Option<f64>> = reader.records().map(|r| r.unwrap()[value].parse().ok()).collect();
    assert_eq!(values, records.iter().map(|r| r.value).collect::<Vec<_>>());
}

/// Two layers of four experts: everything on two of them, and even.
fn routed() -> RecordedRun {
    let mut run = by_hand();
    let case = &mut run.cases[0].case;
    case.key.family = "moe".into();
    let layer = |name: &str, load: [u64; 4]| LayerRouting {
        layer: name.into(),
        top_k: 2,
        load: load.to_vec(),
        probability: vec![0.25; 4],
    };
    case.routing = vec![layer("layers.0", [80, 80, 0, 0]), layer("layers.<1>", [40, 40, 40, 40])];
    run
}

#[test]
fn loads_of_experts_become_the_numbers_of_the_most_uneven_layer() {
    let run = routed();
    let records = summarise(&run);
    let entropy = get(&records, "", "router_entropy");
    assert_eq!((entropy.value, entropy.n), (Some(0.5), 80), "ln 2 / ln 4 over 80 tokens");
    assert_eq!(get(&records, "", "expert_load_max").value, Some(2.0));
    let even = &run.cases[0].case.routing[1];
    assert_eq!((even.entropy(), even.largest_load(), even.check()), (Some(1.0), Some(1.0), Ok(())));
    assert_eq!(LayerRouting { load: vec![0; 4], ..even.clone() }.entropy(), None, "no token, no entropy");

    // a case that another one scores has that one's; who cannot see says why; a net without routers has none
    let mut run = routed();
    let mut other = run.cases[0].clone();
    other.case.id = "33".repeat(32);
    other.case.routing.clear();
    run.cases.push(other);
    let records = summarise(&run);
    let values: Vec<_> = records.iter().filter(|r| r.metric == "router_entropy").map(|r| r.value).collect();
    assert_eq!(values, [Some(0.5); 2]);
    run.cases[0].case.routing.clear();
    let reason = "backend `x` does not see what the routers decide".to_owned();
    run.cases[0].case.unavailable.push(UnavailableMetric { metric: "router_entropy".into(), reason: reason.clone() });
    for record in summarise(&run).iter().filter(|r| r.metric == "router_entropy") {
        let missing = record.missing.as_ref().expect("nobody saw");
        assert_eq!((missing.kind.as_str(), &missing.message), ("unavailable", &reason));
    }
    let dense = summarise(&by_hand());
    assert_eq!(get(&dense, "", "router_entropy").missing.as_ref().map(|m| m.kind.as_str()), Some("not-applicable"));
}

#[test]
fn impossible_loads_are_told_apart() {
    let good = || routed().cases[0].case.routing[0].clone();
    for (bad, word) in [
        (LayerRouting { top_k: 0, ..good() }, "top 0"),
        (LayerRouting { top_k: 5, ..good() }, "top 5"),
        (LayerRouting { probability: vec![0.5; 2], ..good() }, "2 probabilities"),
        (LayerRouting { probability: vec![f64::NAN; 4], ..good() }, "not within"),
        (LayerRouting { probability: vec![0.9; 4], ..good() }, "sum to 3.6"),
        (LayerRouting { load: vec![0; 4], ..good() }, "0 tokens"),
        (LayerRouting { load: vec![u64::MAX; 4], ..good() }, "an expert met"),
        (LayerRouting { load: vec![100, 20, 0, 0], ..good() }, "an expert met 100 of 60"),
    ] {
        let error = bad.check().expect_err(word);
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn the_page_shows_the_load_of_every_expert() {
    let report = Report::new(routed());
    for (format, row) in [
        ("md", "| layers.0 | 80 | 50.0 50.0 0.0 0.0 | 0.500 |"),
        ("html", "<td>80</td><td>50.0 50.0 0.0 0.0</td><td>25.0 25.0 25.0 25.0</td><td>0.500</td>"),
    ] {
        let files = (render::format(format).expect("a format").render)(&report).expect("it renders");
        let text = String::from_utf8(files[0].1.clone()).expect("text");
        assert!(text.contains(row), "{format}: {text}");
        assert!(!text.contains("layers.<1>"), "{format}: a layer's name stays text");
    }
}
