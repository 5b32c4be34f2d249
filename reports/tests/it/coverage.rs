//! Whether intervals hold what they promise: simulated processes whose long-run values are known, from samples to records, with seeds.
//!
//! In: processes of a machine's speed. Out: how often the interval held the truth, within the bounds that METHODS.md states. Must not: test
//! one lucky run; every bound is of hundreds of runs and leaves room for their chance.

use ergometer_reports::{Record, Run, case::Sample, summarise};

use crate::synthetic::{self, Dice};

/// What makes a simulated machine faster and slower.
#[derive(Clone, Copy, Debug)]
pub enum Process {
    /// Every block has its own level, with this standard deviation.
    Level(f64),
    /// Neighbouring iterations resemble each other: standard deviation, and correlation of one with the next.
    Autocorrelated(f64, f64),
    /// The level moves with this standard deviation and time constant in seconds, in pauses too.
    Drift(f64, f64),
    /// Two frequencies: how much slower the second is, and the mean stay in each, in seconds.
    TwoSpeeds(f64, f64),
    /// A part of the time everything takes this much longer, for a mean length in seconds.
    Bursts(f64, f64, f64),
    /// Every start of the worker has its own level.
    Starts(f64),
}

/// How a simulated run is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub blocks: u32,
    pub seconds: f64,
    pub pause: f64,
    /// Blocks of each start of the worker.
    pub per_start: u32,
}

pub const ROW: Layout = Layout { blocks: 5, seconds: 0.6, pause: 0.002, per_start: 5 };
pub const APART: Layout = Layout { blocks: 10, seconds: 0.3, pause: 1.3, per_start: 10 };

fn normal(dice: &mut Dice) -> f64 {
    let (a, b) = (1.0 - dice.roll(), dice.roll());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// A machine under a process.
struct Machine {
    process: Process,
    level: f64,
    slow: bool,
    left: f64,
}

impl Machine {
    fn new(process: Process, dice: &mut Dice) -> Self {
        let mut machine = Self { process, level: normal(dice), slow: false, left: 0.0 };
        if let Some((fast, slow)) = machine.stays() {
            machine.slow = dice.roll() < slow / (fast + slow);
            machine.left = -(1.0 - dice.roll()).ln() * if machine.slow { slow } else { fast };
        }
        machine
    }

    /// Mean stay in the fast and the slow state.
    fn stays(&self) -> Option<(f64, f64)> {
        match self.process {
            Process::TwoSpeeds(_, stay) => Some((stay, stay)),
            Process::Bursts(_, share, length) => Some((length * (1.0 - share) / share, length)),
            _ => None,
        }
    }

    fn factor(&self) -> f64 {
        match self.process {
            Process::Level(sd) | Process::Autocorrelated(sd, _) | Process::Drift(sd, _) | Process::Starts(sd) => {
                1.0 + sd * self.level
            }
            Process::TwoSpeeds(slower, _) | Process::Bursts(slower, ..) => {
                if self.slow {
                    slower
                } else {
                    1.0
                }
            }
        }
    }

    fn wait(&mut self, seconds: f64, dice: &mut Dice) {
        if let Process::Drift(_, constant) = self.process {
            let kept = (-seconds / constant).exp();
            self.level = kept * self.level + (1.0 - kept * kept).sqrt() * normal(dice);
        }
        let Some((fast, slow)) = self.stays() else { return };
        let mut seconds = seconds;
        while seconds >= self.left {
            seconds -= self.left;
            self.slow = !self.slow;
            self.left = -(1.0 - dice.roll()).ln() * if self.slow { slow } else { fast };
        }
        self.left -= seconds;
    }
}

/// Samples of one run: iterations of `base` seconds with 1 % of noise, and 30 W.
fn samples(process: Process, layout: Layout, base: f64, dice: &mut Dice) -> Vec<Sample> {
    let mut machine = Machine::new(process, dice);
    let (mut samples, mut now) = (Vec::new(), 0.0);
    for block in 0..layout.blocks {
        machine.wait(layout.pause, dice);
        now += layout.pause;
        if matches!(process, Process::Level(_))
            || matches!(process, Process::Starts(_)) && block % layout.per_start == 0
        {
            machine.level = normal(dice);
        }
        let (mut busy, mut iteration) = (0.0, 0);
        let mut push = |iteration, t: f64, rows, metric: &str, value| {
            let (phase, t_ns) = ("steady".to_owned(), (t * 1e9) as u64);
            samples.push(Sample { block, phase, iteration, t_ns, example: None, rows, metric: metric.into(), value });
        };
        while busy < layout.seconds {
            let latency = base * machine.factor() * (1.0 + 0.01 * normal(dice));
            push(Some(iteration), now + busy, Some(4), "latency", latency);
            busy += latency;
            iteration += 1;
            machine.wait(latency, dice);
            if let Process::Autocorrelated(_, r) = process {
                machine.level = r * machine.level + (1.0 - r * r).sqrt() * normal(dice);
            }
        }
        push(None, now, None, "energy_cpu", 30.0 * busy);
        push(None, now, None, "energy_cpu_edge", 0.0);
        now += busy;
    }
    samples
}

/// Median latency, throughput, p99 and joules an example in the long run.
fn truth(process: Process, layout: Layout, base: f64) -> [f64; 4] {
    let long = Layout { blocks: 2000, ..layout };
    let mut latencies: Vec<f64> = samples(process, long, base, &mut Dice(1))
        .into_iter()
        .filter(|s| s.metric == "latency")
        .map(|s| s.value)
        .collect();
    let (n, seconds) = (latencies.len(), latencies.iter().sum::<f64>());
    latencies.sort_by(f64::total_cmp);
    [latencies[n / 2], 4.0 * n as f64 / seconds, latencies[n * 99 / 100], 30.0 * seconds / (4.0 * n as f64)]
}

fn empty() -> Run {
    let mut run = synthetic::small();
    run.cases.retain(|c| c.case.path.contains("dense-6/f32/native"));
    run.cases[0].case.unavailable.clear();
    run.cases[0].predictions.truncate(1);
    run
}

const NAMES: [&str; 4] = ["latency", "throughput", "latency_p99", "energy_cpu"];

/// Of `runs` runs: how many have an interval for each of [`NAMES`], and how many of these hold the truth.
fn coverage(process: Process, layout: Layout, base: f64, runs: u64) -> [(u64, u64); 4] {
    let truth = truth(process, layout, base);
    let (mut run, mut found) = (empty(), [(0, 0); 4]);
    if layout.per_start < layout.blocks {
        run.cases[0].case.starts = (0..layout.blocks).step_by(layout.per_start as usize).collect();
    }
    for seed in 0..runs {
        run.cases[0].samples = samples(process, layout, base, &mut Dice(0x51ed_0000 + seed * 0x0001_0001));
        let records = summarise(&run);
        for (i, name) in NAMES.iter().enumerate() {
            let record = records.iter().find(|r| r.metric == *name).unwrap();
            let Record { lower, upper: Some(upper), .. } = record else { continue };
            found[i].0 += 1;
            found[i].1 += u64::from(lower.is_none_or(|l| l <= truth[i]) && truth[i] <= *upper);
        }
    }
    println!("{process:?} {layout:?}: {}", {
        let text = |(i, (of, held)): (usize, &(u64, u64))| {
            format!("{} {:.1} % of {of}", NAMES[i], 100.0 * *held as f64 / (*of).max(1) as f64)
        };
        found.iter().enumerate().map(text).collect::<Vec<_>>().join(", ")
    });
    found
}

/// Runs of each row; `ERGOMETER_SIMULATED_RUNS` asks for others.
fn runs() -> u64 {
    std::env::var("ERGOMETER_SIMULATED_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

fn share((of, held): (u64, u64)) -> f64 {
    held as f64 / of as f64
}

/// 95 % of 300 runs have a standard deviation of 1.3 points: the bounds are those of METHODS.md and two of these.
fn holds(process: Process, base: f64, least: f64) {
    for layout in [ROW, APART] {
        let found = coverage(process, layout, base, runs());
        for i in [0, 1, 3] {
            assert_eq!(found[i].0, runs(), "{process:?} {layout:?}: {} has no interval", NAMES[i]);
            assert!(share(found[i]) >= least, "{process:?} {layout:?}: {} {:.3}", NAMES[i], share(found[i]));
        }
        // the bound is withheld, or so rarely given that it decides nothing, wherever iterations depend on each other
        assert!(found[2].0 * 50 <= runs(), "{process:?} {layout:?}: {} bounds of the percentile", found[2].0);
    }
}

#[test]
fn levels_of_blocks() {
    holds(Process::Level(0.02), 0.004, 0.93);
    holds(Process::Level(0.05), 0.004, 0.93);
}

#[test]
fn autocorrelated_iterations() {
    holds(Process::Autocorrelated(0.05, 0.9), 0.05, 0.92);
}

#[test]
fn drift_whose_time_constant_is_a_third_of_the_run() {
    holds(Process::Drift(0.05, 1.0), 0.004, 0.90);
}

#[test]
fn two_frequencies() {
    holds(Process::TwoSpeeds(1.3, 1.0), 0.004, 0.80);
}

#[test]
fn independent_iterations_have_a_bound_of_the_percentile() {
    for layout in [ROW, APART] {
        let found = coverage(Process::Level(0.0), layout, 0.004, runs());
        for i in [0, 1, 3] {
            assert!(found[i].0 == runs() && share(found[i]) >= 0.93, "{layout:?} {} {:?}", NAMES[i], found[i]);
        }
        assert!(found[2].0 * 10 >= runs() * 9 && share(found[2]) >= 0.98, "{layout:?} {:?}", found[2]);
    }
}

#[test]
fn bursts_that_a_run_sees_widen_its_intervals() {
    // 50 ms in every second: 3 s see three of them, and a twentieth of the runs none at all
    let (row, apart) = (Process::Bursts(1.5, 0.05, 0.05), [ROW, APART]);
    for layout in apart {
        let found = coverage(row, layout, 0.004, runs());
        assert!(share(found[0]) >= 0.93, "{layout:?} {:?}", found[0]);
        assert!(share(found[1]) >= 0.78, "{layout:?} {:?}", found[1]);
    }
}

#[test]
fn starts_are_the_observations_where_there_are_several() {
    let layout = Layout { blocks: 12, seconds: 0.2, pause: 0.3, per_start: 2 };
    let found = coverage(Process::Starts(0.03), layout, 0.004, runs());
    for i in [0, 1, 3] {
        let share = share(found[i]);
        assert!(found[i].0 == runs() && (0.92..=0.98).contains(&share), "{} {share}", NAMES[i]);
    }
    assert!(found[2].0 * 50 <= runs());
}
