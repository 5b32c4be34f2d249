//! Whether intervals hold what they promise: simulated processes whose long-run values are known, from samples to
//! records, with seeds.
//!
//! In: processes of a machine's speed. Out: how often the interval held the truth, within the bounds that METHODS.md
//! states. Must not: test one lucky run; every bound is of hundreds of runs and leaves room for their chance.
//!
//! `cargo test --release -p ergometer-reports coverage_table -- --ignored --nocapture` prints the table of METHODS.md
//! from 1,000 runs each.

use ergometer_reports::Record;

use crate::{
    simulate::{APART, LONE, Layout, Process, ROW, empty, samples, truth},
    synthetic::{Dice, summarise},
};

const NAMES: [&str; 4] = ["latency", "throughput", "latency_p99", "energy_cpu"];

/// Of so many runs: how many had an interval, and how many of these held the truth.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    runs: u64,
    given: u64,
    held: u64,
}

impl Held {
    /// Share of the intervals given that held the truth.
    fn share(self) -> f64 {
        self.held as f64 / self.given as f64
    }

    /// Share of all runs with an interval that did not hold it.
    fn wrong(self) -> f64 {
        (self.given - self.held) as f64 / self.runs as f64
    }
}

/// Simulated runs to make of each row: as many as the environment asks for.
fn asked(runs: u64) -> u64 {
    std::env::var("ERGOMETER_SIMULATED_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(runs)
}

/// What became of each of [`NAMES`].
fn coverage(process: Process, layout: Layout, base: f64, runs: u64) -> [Held; 4] {
    let truth = truth(process, layout, base);
    let (mut run, mut found) = (empty(), [Held { runs, ..Held::default() }; 4]);
    if layout.per_start < layout.blocks {
        run.cases[0].case.starts = (0..layout.blocks).step_by(layout.per_start as usize).collect();
    }
    for seed in 0..runs {
        run.cases[0].samples = samples(process, layout, base, &mut Dice(0x51ed_0000 + seed * 0x0001_0001));
        let records = summarise(&run);
        for (i, name) in NAMES.iter().enumerate() {
            let record = records.iter().find(|r| r.metric == *name).unwrap();
            let Record { lower, upper: Some(upper), .. } = record else { continue };
            found[i].given += 1;
            found[i].held += u64::from(lower.is_none_or(|l| l <= truth[i]) && truth[i] <= *upper);
        }
    }
    let text = |(held, name): (&Held, &str)| {
        format!("{name} {:.1} % of {}, {:.1} % wrong", 100.0 * held.share(), held.given, 100.0 * held.wrong())
    };
    println!("{process:?} {layout:?}: {}", found.iter().zip(NAMES).map(text).collect::<Vec<_>>().join(", "));
    found
}

/// Runs of each row in every test: 95 % of so many have a standard deviation of 1.3 points.
const RUNS: u64 = 300;

/// Least shares that hold the truth of latency, throughput and energy, by layout; the bounds are those of METHODS.md
/// less two standard deviations.
fn holds(process: Process, base: f64, least: [(Layout, [f64; 3]); 3]) {
    for (layout, least) in least {
        let found = coverage(process, layout, base, RUNS);
        for (i, least) in [0, 1, 3].into_iter().zip(least) {
            assert_eq!(found[i].given, RUNS, "{process:?} {layout:?}: {} has no interval", NAMES[i]);
            assert!(found[i].share() >= least, "{process:?} {layout:?}: {} {:.3}", NAMES[i], found[i].share());
        }
        // a bound of the percentile is withheld wherever iterations depend on each other and show it
        let most = if layout == ROW { 0.0 } else { 0.02 };
        assert!(found[2].wrong() <= most, "{process:?} {layout:?}: {:?}", found[2]);
    }
}

#[test]
fn levels_of_blocks() {
    for spread in [0.02, 0.05] {
        let least = [0.95, 0.94, 0.94];
        holds(Process::Level(spread), 0.004, [(ROW, least), (LONE, least), (APART, least)]);
    }
}

#[test]
fn intervals_are_not_wide_for_nothing() {
    // the mean of ten levels has a standard error of 2 % / √10, and a t interval a width of 4.5 of these
    let (mut run, mut widths) = (empty(), [Vec::new(), Vec::new()]);
    for seed in 0..100 {
        run.cases[0].samples = samples(Process::Level(0.02), APART, 0.004, &mut Dice(seed));
        let records = summarise(&run);
        for (name, widths) in ["latency", "throughput"].into_iter().zip(&mut widths) {
            let r = records.iter().find(|r| r.metric == name).unwrap();
            widths.push((r.upper.unwrap() - r.lower.unwrap()) / r.value.unwrap());
        }
    }
    for mut widths in widths {
        widths.sort_by(f64::total_cmp);
        let plain = 2.0 * 2.262 * 0.02 / 10.0_f64.sqrt();
        assert!((0.8 * plain..1.8 * plain).contains(&widths[50]), "{} {plain}", widths[50]);
    }
}

#[test]
fn autocorrelated_iterations() {
    let least = [0.95, 0.93, 0.93];
    holds(Process::Autocorrelated(0.05, 0.9), 0.05, [(ROW, least), (LONE, least), (APART, least)]);
}

#[test]
fn drift_whose_time_constant_is_up_to_a_third_of_the_run() {
    let (row, lone, apart) = ([0.93, 0.91, 0.91], [0.91, 0.90, 0.90], [0.95, 0.93, 0.93]);
    holds(Process::Drift(0.05, 1.0), 0.004, [(ROW, row), (LONE, lone), (APART, apart)]);
}

#[test]
fn two_frequencies() {
    holds(Process::Alternating(1.3, 1.0), 0.004, [ROW, LONE, APART].map(|layout| (layout, [0.98; 3])));
    // a twentieth of the runs in a row meets one of the two alone
    let (row, lone, apart) = ([0.85, 0.88, 0.88], [0.91, 0.94, 0.94], [0.96, 0.96, 0.96]);
    holds(Process::TwoSpeeds(1.3, 1.0), 0.004, [(ROW, row), (LONE, lone), (APART, apart)]);
}

#[test]
fn independent_iterations_have_a_bound_of_the_percentile() {
    for layout in [ROW, LONE, APART] {
        let found = coverage(Process::Level(0.0), layout, 0.004, RUNS);
        for i in [0, 1, 3] {
            assert!(found[i].given == RUNS && found[i].share() >= 0.95, "{layout:?} {} {:?}", NAMES[i], found[i]);
        }
        let given = if layout == ROW { 0..=0 } else { RUNS * 9 / 10..=RUNS };
        assert!(given.contains(&found[2].given) && found[2].wrong() <= 0.01, "{layout:?} {:?}", found[2]);
    }
}

#[test]
fn bursts_that_a_run_sees_widen_its_intervals() {
    // 50 ms in every second: 3 s see three of them, and a twenty-fifth of the runs none at all
    for (layout, least) in [(ROW, 0.89), (LONE, 0.91), (APART, 0.90)] {
        let found = coverage(Process::Bursts(1.5, 0.05, 0.05), layout, 0.004, RUNS);
        assert!(found[0].share() >= 0.95, "{layout:?} {:?}", found[0]);
        assert!(found[1].share() >= least && found[3].share() >= least, "{layout:?} {:?}", found[1]);
        // a bound is left to runs that met no burst (3 %), or single iterations of them
        let most = if layout == ROW { 0.0 } else { 0.06 };
        assert!(found[2].wrong() <= most, "{layout:?} {:?}", found[2]);
    }
}

#[test]
fn starts_are_the_observations_where_there_are_several() {
    for (starts, per_start, seconds) in [(3, 4, 0.1), (6, 2, 0.2), (10, 1, 0.2)] {
        let layout = Layout { blocks: starts * per_start, seconds, pause: 0.3, per_start };
        let found = coverage(Process::Starts(0.03), layout, 0.004, asked(1000));
        for i in [0, 1, 3] {
            let share = found[i].share();
            assert!(found[i].given == found[i].runs, "{starts} {}", NAMES[i]);
            assert!((0.93..=0.975).contains(&share), "{starts} {} {share}", NAMES[i]);
        }
        assert!(found[2].wrong() <= 0.01, "{starts} {:?}", found[2]);
    }
}

/// The processes of the table: name, process, seconds of an iteration.
const PROCESSES: [(&str, Process, f64); 8] = [
    ("iterations independent", Process::Level(0.0), 0.004),
    ("level of each block ± 2 %", Process::Level(0.02), 0.004),
    ("level of each block ± 5 %", Process::Level(0.05), 0.004),
    ("autocorrelated (0.9), iterations of 50 ms", Process::Autocorrelated(0.05, 0.9), 0.05),
    ("drift ± 5 %, time constant 1 s", Process::Drift(0.05, 1.0), 0.004),
    ("two speeds (× 1.3), 1 s each", Process::Alternating(1.3, 1.0), 0.004),
    ("two speeds (× 1.3), 1 s each on average", Process::TwoSpeeds(1.3, 1.0), 0.004),
    ("bursts of 50 ms (× 1.5), 5 % of the time", Process::Bursts(1.5, 0.05, 0.05), 0.004),
];

#[test]
#[ignore = "prints the table of METHODS.md: 1,000 runs of each process"]
fn coverage_table() {
    let mut table =
        String::from("| process | latency | throughput | energy | p99: given / wrong |\n|---|---|---|---|---|\n");
    for (name, process, base) in PROCESSES {
        let found = [ROW, LONE, APART].map(|layout| coverage(process, layout, base, asked(1000)));
        let cell = |of: fn(Held) -> f64, i: usize| {
            let text = |f: &[Held; 4]| format!("{:.0}", 100.0 * of(f[i]));
            found.iter().map(text).collect::<Vec<_>>().join(" / ")
        };
        let tail = |f: &[Held; 4]| {
            let given = 100.0 * f[2].given as f64 / f[2].runs as f64;
            format!("{given:.0} ({:.1})", 100.0 * f[2].wrong())
        };
        table += &format!(
            "| {name} | {} | {} | {} | {} |\n",
            cell(Held::share, 0),
            cell(Held::share, 1),
            cell(Held::share, 3),
            found.iter().map(tail).collect::<Vec<_>>().join(" / ")
        );
    }
    println!("\n{table}");
    assert!(table.lines().count() == PROCESSES.len() + 2 && !table.contains("NaN"));
}
