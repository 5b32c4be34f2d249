//! A machine whose speed follows a process with known long-run values, and what a run of it would record.
//!
//! In: processes, layouts of blocks, a seed. Out: samples, and the values that intervals must hold. Must not: know how
//! intervals are made.

use ergometer_reports::{RecordedRun, Samples, case::Sample};

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
    /// Two frequencies: how much slower the second is, and the mean stay in each, in seconds (exponential).
    TwoSpeeds(f64, f64),
    /// The same with stays of equal length.
    Alternating(f64, f64),
    /// A part of the time everything takes this much longer, for a mean length in seconds.
    Bursts(f64, f64, f64),
    /// Every start of the worker has its own level.
    Starts(f64),
}

/// How a simulated run is laid out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    pub blocks: u32,
    pub seconds: f64,
    pub pause: f64,
    /// Blocks of each start of the worker.
    pub per_start: u32,
}

pub const ROW: Layout = Layout { blocks: 5, seconds: 0.6, pause: 0.002, per_start: 5 };
pub const APART: Layout = Layout { blocks: 10, seconds: 0.3, pause: 1.3, per_start: 10 };
/// What a case that has the machine for itself gets.
pub const LONE: Layout = Layout { blocks: 10, seconds: 0.3, pause: 0.16, per_start: 10 };

pub fn normal(dice: &mut Dice) -> f64 {
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
            machine.left = machine.stay(dice);
            if let Process::Alternating(_, stay) = process {
                machine.left = stay * dice.roll();
            }
        }
        machine
    }

    /// How long it stays in the state that it is in now.
    fn stay(&self, dice: &mut Dice) -> f64 {
        let (fast, slow) = self.stays().unwrap_or((f64::INFINITY, f64::INFINITY));
        match self.process {
            Process::Alternating(..) => fast,
            _ => -(1.0 - dice.roll()).ln() * if self.slow { slow } else { fast },
        }
    }

    /// Mean stay in the fast and the slow state.
    fn stays(&self) -> Option<(f64, f64)> {
        match self.process {
            Process::TwoSpeeds(_, stay) | Process::Alternating(_, stay) => Some((stay, stay)),
            Process::Bursts(_, share, length) => Some((length * (1.0 - share) / share, length)),
            _ => None,
        }
    }

    fn factor(&self) -> f64 {
        match self.process {
            Process::Level(sd) | Process::Autocorrelated(sd, _) | Process::Drift(sd, _) | Process::Starts(sd) => {
                1.0 + sd * self.level
            }
            Process::TwoSpeeds(slower, _) | Process::Alternating(slower, _) | Process::Bursts(slower, ..) => {
                if self.slow { slower } else { 1.0 }
            }
        }
    }

    fn wait(&mut self, seconds: f64, dice: &mut Dice) {
        if let Process::Drift(_, constant) = self.process {
            let kept = (-seconds / constant).exp();
            self.level = kept * self.level + (1.0 - kept * kept).sqrt() * normal(dice);
        }
        if self.stays().is_none() {
            return;
        }
        let mut seconds = seconds;
        while seconds >= self.left {
            seconds -= self.left;
            self.slow = !self.slow;
            self.left = self.stay(dice);
        }
        self.left -= seconds;
    }
}

/// Samples of one run: iterations of `base` seconds with 1 % of noise, and 30 W.
pub fn samples(process: Process, layout: Layout, base: f64, dice: &mut Dice) -> Samples {
    let mut machine = Machine::new(process, dice);
    let (mut samples, mut now) = (Samples::default(), 0.0);
    for block in 0..layout.blocks {
        machine.wait(layout.pause, dice);
        now += layout.pause;
        if matches!(process, Process::Level(_))
            || matches!(process, Process::Starts(_)) && block % layout.per_start == 0
        {
            machine.level = normal(dice);
        }
        let (mut busy, mut iteration) = (0.0, 0);
        let mut push = |iteration, t: f64, rows, metric, value| {
            let (phase, t_ns) = ("steady", (t * 1e9) as u64);
            samples.push(Sample { block, phase, iteration, t_ns, example: None, rows, metric, value });
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
pub fn truth(process: Process, layout: Layout, base: f64) -> [f64; 4] {
    let long = Layout { blocks: 2000, ..layout };
    let mut latencies: Vec<f64> =
        samples(process, long, base, &mut Dice(1)).iter().filter(|s| s.metric == "latency").map(|s| s.value).collect();
    let (n, seconds) = (latencies.len(), latencies.iter().sum::<f64>());
    latencies.sort_by(f64::total_cmp);
    [latencies[n / 2], 4.0 * n as f64 / seconds, latencies[n * 99 / 100], 30.0 * seconds / (4.0 * n as f64)]
}

/// A run of one case, without samples.
pub fn empty() -> RecordedRun {
    let mut run = synthetic::small();
    run.cases.retain(|c| c.case.path.contains("dense-6/f32/native"));
    run.cases[0].case.unavailable.clear();
    run.cases[0].predictions.truncate(1);
    run.cases[0].samples.clear();
    run
}
