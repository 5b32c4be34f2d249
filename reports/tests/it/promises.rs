//! Promises beside those of time: clustered shares near 0 and 1, several comparisons at once, and runs that come from
//! files.
//!
//! In: simulated answers, interleaved groups and folders, with seeds. Out: how often intervals held the truth. Must
//! not: repeat [`coverage`](crate::coverage).

use std::fs;

use ergometer_reports::{
    RecordedRun, Samples,
    answers::share_right,
    case::{Prediction, Sample},
    compare::Compared,
    load,
    metric::Right,
    slug,
};

use crate::{
    simulate::{self, APART, LONE, Process, ROW, samples},
    synthetic::{self, Dice, summarise},
};

/// How likely a right answer is in a cluster, where the likelihoods of clusters follow a distribution with mean `p`:
/// all right or all wrong (`likeness` 1), each answer for itself (0), or a share of clusters alike.
fn answers(clusters: u64, size: impl Fn(&mut Dice) -> u64, p: f64, likeness: f64, dice: &mut Dice) -> Vec<Prediction> {
    let mut all = Vec::new();
    for cluster in 0..clusters {
        let together = dice.roll() < likeness;
        let first = dice.roll() < p;
        for _ in 0..size(dice) {
            let exact = if together { first } else { dice.roll() < p };
            all.push(Prediction {
                example: all.len() as u64,
                cluster,
                depth: 1,
                last: true,
                halt_logit: None,
                answer: String::new(),
                exact,
                right: u32::from(exact),
                cells: 1,
                valid: None,
                difficulty: None,
            });
        }
    }
    all
}

#[test]
fn clustered_shares_near_0_and_1_hold_93_per_cent() {
    let mut dice = Dice(0xc1a5_7e25);
    let mut run = simulate::empty();
    let eight = |_: &mut Dice| 8;
    let unequal = |dice: &mut Dice| 1 + (dice.roll() * dice.roll() * 30.0) as u64;
    for clusters in [20, 50, 200] {
        for (p, likeness) in [(0.01, 1.0), (0.02, 0.3), (0.05, 0.5), (0.9, 0.5), (0.98, 1.0), (0.99, 1.0), (0.99, 0.0)]
        {
            let mut held = [0; 2];
            for _ in 0..1000 {
                let sizes: [&dyn Fn(&mut Dice) -> u64; 2] = [&eight, &unequal];
                for (size, held) in sizes.into_iter().zip(&mut held) {
                    run.cases[0].predictions = answers(clusters, size, p, likeness, &mut dice);
                    let last: Vec<&Prediction> = run.cases[0].predictions.iter().collect();
                    let found = share_right(&last, Right::Rows).unwrap();
                    let (lower, upper) = found.interval.unwrap();
                    *held += u32::from(lower <= p && p <= upper);
                }
            }
            assert!(
                held.iter().all(|h| *h >= 925),
                "{clusters} clusters, share {p}, likeness {likeness}: {held:?} of 1000"
            );
        }
    }
}

/// An interleaved group of a base and so many others, all alike, in ten rounds whose order is random.
fn interleaved(others: usize, dice: &mut Dice) -> RecordedRun {
    let mut run = synthetic::turns();
    run.cases.retain(|c| c.case.error.is_none() && c.case.key.batch == 1);
    let base = run.cases.iter().position(|c| c.case.key.backend == "native").unwrap();
    let mut cases = vec![run.cases[base].clone()];
    for i in 0..others {
        let mut other = run.cases[base].clone();
        other.case.key.backend = format!("other-{i}");
        other.case.id = format!("{i:064x}");
        other.case.path = other.case.key.path();
        cases.push(other);
    }
    for case in &mut cases {
        case.samples.clear();
        case.predictions.clear();
    }
    let mut now = 0;
    for round in 0..10 {
        let mut order: Vec<usize> = (0..cases.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, (dice.roll() * (i + 1) as f64) as usize);
        }
        for i in order {
            let level = 0.01 * (1.0 + 0.05 * simulate::normal(dice));
            for iteration in 0..5 {
                now += 20_000_000;
                cases[i].samples.push(Sample {
                    block: round,
                    phase: "steady",
                    iteration: Some(iteration),
                    t_ns: now,
                    example: None,
                    rows: Some(1),
                    metric: "latency",
                    value: level * (1.0 + 0.01 * simulate::normal(dice)),
                });
            }
        }
    }
    run.cases = cases;
    run
}

#[test]
fn several_comparisons_with_one_base_raise_one_false_alarm_in_twenty_at_most() {
    for others in [1, 2, 4, 8] {
        let (mut dice, mut alarms, mut compared) = (Dice(0xfa15_e000 + others as u64), 0, 0);
        for _ in 0..400 {
            let found = Compared::of(&interleaved(others, &mut dice)).speedups;
            let intervals = found.into_values().filter_map(|s| s.unwrap().estimate.interval.ok());
            let differs: Vec<bool> = intervals.map(|(lower, upper)| lower > 1.0 || upper < 1.0).collect();
            compared += differs.len();
            alarms += u32::from(differs.contains(&true));
        }
        assert_eq!(compared, 400 * others, "every one has an interval");
        // 5 % of 400 is 20, with a standard deviation of 4.4
        assert!(alarms <= 28, "{others} others: {alarms} of 400 interleaved groups with a false alarm");
    }
}

/// `samples.csv` as another program may write it: rows in another order, numbers in another form.
fn by_another_program(samples: &Samples, dice: &mut Dice) -> String {
    let mut rows: Vec<String> = samples
        .iter()
        .map(|s| {
            let optional = |v: Option<u64>| v.map(|v| v.to_string()).unwrap_or_default();
            let (iteration, example, rows) = (optional(s.iteration), optional(s.example), optional(s.rows));
            format!("{},{},{iteration},{},{example},{rows},{},{:e}\n", s.block, s.phase, s.t_ns, s.metric, s.value)
        })
        .collect();
    for i in (1..rows.len()).rev() {
        rows.swap(i, (dice.roll() * (i + 1) as f64) as usize);
    }
    format!("block,phase,iteration,t_ns,example,rows,metric,value\n{}", rows.concat())
}

#[test]
fn runs_from_files_have_the_intervals_of_runs_in_memory() {
    let processes = [
        (Process::Level(0.02), 0.004),
        (Process::Autocorrelated(0.05, 0.9), 0.05),
        (Process::Drift(0.05, 1.0), 0.004),
        (Process::Bursts(1.5, 0.05, 0.05), 0.004),
        (Process::Starts(0.03), 0.004),
    ];
    let mut intervals = 0;
    for (seed, (process, base)) in (1..).zip(processes) {
        for layout in [ROW, LONE, APART] {
            let mut dice = Dice(seed);
            let mut run = simulate::empty();
            run.cases[0].samples = samples(process, layout, base, &mut dice);
            if matches!(process, Process::Starts(_)) {
                run.cases[0].case.starts = (0..layout.blocks).collect();
            }
            let dir = tempfile::tempdir().unwrap();
            synthetic::write(&run, dir.path());
            let in_memory = summarise(&run);
            assert_eq!(summarise(&load(dir.path()).unwrap()), in_memory, "{process:?} {layout:?}");
            let case = &run.cases[0].case;
            let file = dir.path().join("cases").join(slug(&case.path, &case.id)).join("samples.csv");
            let written = fs::read_to_string(&file).unwrap();
            let other = by_another_program(&run.cases[0].samples, &mut dice);
            assert_eq!(written.lines().next(), other.lines().next());
            fs::write(&file, other).unwrap();
            assert_eq!(summarise(&load(dir.path()).unwrap()), in_memory, "{process:?} {layout:?}");
            let names = ["latency", "throughput", "energy_cpu"];
            intervals += in_memory.iter().filter(|r| names.contains(&r.metric.as_str()) && r.lower.is_some()).count();
        }
    }
    assert_eq!(intervals, 3 * 3 * processes.len());
}
