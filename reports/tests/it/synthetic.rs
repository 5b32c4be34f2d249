//! A synthetic run: invented observations with the shape of real ones.
//!
//! In: how many cases and iterations. Out: a [`RecordedRun`] that is the same every time. Must not: look like a
//! measurement; its machine is called `synthetic`.

use std::collections::BTreeMap;

use ergometer_reports::{
    CaseRun, Record, RecordedRun, Report, Samples,
    case::*,
    ceiling::{MachineCeiling, MachineCeilings, MissingCeiling},
    environment::{Environment, MeterState},
};

/// Changes of recorded observations, which no program makes.
pub trait Edit {
    fn retain(&mut self, keep: impl Fn(&Sample) -> bool);
    /// Changes each of those that `which` names.
    fn edit(&mut self, which: impl Fn(&Sample) -> bool, change: impl FnMut(&mut Sample));
}

impl Edit for Samples {
    fn retain(&mut self, keep: impl Fn(&Sample) -> bool) {
        *self = self.iter().filter(keep).collect();
    }

    fn edit(&mut self, which: impl Fn(&Sample) -> bool, mut change: impl FnMut(&mut Sample)) {
        let changed = |mut sample: Sample| {
            if which(&sample) {
                change(&mut sample);
            }
            sample
        };
        *self = self.iter().map(changed).collect();
    }
}

/// Numbers in [0, 1) from a seed (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

pub struct Model {
    pub name: &'static str,
    pub family: &'static str,
    /// Accuracy after one step and after many.
    pub accuracy: (f64, f64),
    pub steps: u32,
    pub flops_step: f64,
    pub weight_bytes: u64,
}

pub const MODELS: [Model; 4] = [
    Model {
        name: "trm-mlp",
        family: "recursive",
        accuracy: (0.35, 0.93),
        steps: 8,
        flops_step: 4.1e6,
        weight_bytes: 480_000,
    },
    Model {
        name: "trm-att",
        family: "recursive",
        accuracy: (0.28, 0.86),
        steps: 8,
        flops_step: 6.3e6,
        weight_bytes: 610_000,
    },
    Model {
        name: "hrm",
        family: "recursive",
        accuracy: (0.22, 0.71),
        steps: 6,
        flops_step: 17e6,
        weight_bytes: 2_400_000,
    },
    Model {
        name: "dense-6",
        family: "dense",
        accuracy: (0.41, 0.41),
        steps: 1,
        flops_step: 9.8e6,
        weight_bytes: 1_900_000,
    },
];

pub fn key(task: &str, model: &Model, backend: &str, batch: u32) -> CaseKey {
    CaseKey {
        model: model.name.into(),
        model_hash: "00".repeat(32),
        family: model.family.into(),
        backend: backend.into(),
        backend_options: BTreeMap::new(),
        precision: "f32".into(),
        threads: 2,
        batch,
        depth: if model.steps > 1 { format!("halt-{}", 2 * model.steps) } else { "once".into() },
        isa: "avx512".into(),
        shapes: "static".into(),
        task: task.into(),
        task_hash: "11".repeat(32),
        seed: 7,
        scenario: if batch == 1 { "single-stream" } else { "offline" }.into(),
    }
}

/// A case that ended well, with `blocks` × `iterations` latencies and `examples` scored answers.
pub fn case_run(key: CaseKey, model: &Model, seed: u64, blocks: u32, iterations: u64, examples: u64) -> CaseRun {
    let mut dice = Dice(seed);
    let samples = samples(&key, model, &mut dice, blocks, iterations);
    let predictions = predictions(model, &mut dice, examples);
    CaseRun { case: case(key, model, seed), samples, predictions, attempts: Vec::new(), sums: Vec::new() }
}

fn samples(key: &CaseKey, model: &Model, dice: &mut Dice, blocks: u32, iterations: u64) -> Samples {
    let batch = u64::from(key.batch);
    let slowness = match key.backend.as_str() {
        "native" => 1.0,
        "candle" => 1.9,
        _ => 40.0,
    };
    let step_seconds = model.flops_step * slowness / 40e9 * (batch as f64).powf(0.8);
    let mut samples = Samples::default();
    let mut now = 0.0;
    let mut push = |phase: &'static str, block, iteration, row, metric: &'static str, value: f64| {
        now += 1e-6;
        let t_ns = (now * 1e9) as u64;
        // blocks lie apart
        now += match metric {
            "memory_peak" => 2.0 * step_seconds * f64::from(model.steps) * iterations as f64,
            "latency" => value,
            _ => 0.0,
        };
        samples.push(Sample { block, phase, iteration, t_ns, example: None, rows: row, metric, value });
    };
    push("load", 0, None, None, "load_time", 0.004);
    push("load", 0, None, None, "memory_base", 5.0e6);
    push("load", 0, None, None, "memory_load", 5.0e6 + 2.1 * model.weight_bytes as f64);
    push("load", 0, None, None, "weight_bytes", 1.05 * model.weight_bytes as f64);
    push("first", 0, Some(0), Some(batch), "first_latency", 8.0 * step_seconds * f64::from(model.steps));
    let states = 20_480.0 * batch as f64;
    push("warmup", 0, None, None, "state_bytes", states);
    push("warmup", 0, None, None, "memory_warmup", 5.2e6 + 1.3 * model.weight_bytes as f64 + 4.0 * states);
    for block in 0..blocks {
        let (mut seconds, mut done) = (0.0, 0.0);
        for iteration in 0..iterations {
            let steps: u64 =
                (0..batch).map(|_| 1 + (dice.roll() * 2.0 * f64::from(model.steps - 1)).round() as u64).sum();
            let noise = 1.0 + 0.02 * dice.roll() + if dice.roll() < 0.01 { 0.6 } else { 0.0 };
            let latency = step_seconds * steps as f64 / batch as f64 * noise;
            push("steady", block, Some(iteration), Some(batch), "latency", latency);
            push("steady", block, Some(iteration), Some(batch), "steps_used", steps as f64);
            seconds += latency;
            done += batch as f64;
        }
        push("steady", block, None, None, "cpu_time", 1.9 * seconds);
        push("steady", block, None, None, "energy_cpu", (28.0 + dice.roll()) * seconds);
        push("steady", block, None, None, "energy_cpu_edge", 28.5 * 2.0 * 20e-6);
        push("steady", block, None, None, "harness_cpu", 0.002 * seconds);
        push("steady", block, None, None, "flops_executed", done * model.flops_step * f64::from(model.steps) * 1.02);
        push("steady", block, None, None, "memory_peak", 5.1e6 + 1.2 * model.weight_bytes as f64 + 3.0 * states);
    }
    samples
}

fn predictions(model: &Model, dice: &mut Dice, examples: u64) -> Vec<Prediction> {
    let mut predictions = Vec::new();
    for example in 0..examples {
        let halts = 1 + (dice.roll() * 2.0 * f64::from(model.steps - 1)).round() as u32;
        let hardness = dice.roll();
        for depth in 1..=halts {
            let progress = 1.0 - (-(f64::from(depth) - 1.0) / (0.35 * f64::from(model.steps))).exp();
            let exact = hardness < model.accuracy.0 + (model.accuracy.1 - model.accuracy.0) * progress;
            let right = if exact { 16 } else { 9 + (dice.roll() * 6.0) as u32 };
            predictions.push(Prediction {
                example,
                cluster: example,
                depth,
                last: depth == halts,
                halt_logit: (model.steps > 1).then_some(f64::from(depth) - f64::from(halts) + 0.5),
                answer: "1 2 3 4 3 4 1 2 2 1 4 3 4 3 2 1".into(),
                exact,
                right,
                cells: 16,
                valid: None,
                difficulty: None,
            });
        }
    }
    predictions
}

fn case(key: CaseKey, model: &Model, seed: u64) -> Case {
    let id = format!("{seed:08x}{}", "ab".repeat(28));
    Case {
        schema: SCHEMA,
        path: key.path(),
        error: None,
        verdict: Some(Verdict::Reference {
            tolerance: "f32-strict".into(),
            limit: 1e-4,
            largest: 3.1e-6,
            examples: 8,
            steps: model.steps,
        }),
        accuracy_from: Some(id.clone()),
        protocol: Some(protocol(&key)),
        questions: 0,
        unscored: None,
        baselines: Vec::new(),
        tuning: key.backend.contains("candle").then(tuning),
        model_modified: None,
        settings: None,
        interleaved: None,
        starts: Vec::new(),
        file: None,
        compared: Vec::new(),
        reduces: None,
        costs: Some(Costs {
            params_total: model.weight_bytes / 4,
            params_active: model.weight_bytes / 4,
            flops_admit: 2.0e5,
            flops_step: model.flops_step,
            weight_bytes: model.weight_bytes,
            state_bytes: 20_480,
            step_weight_bytes: model.weight_bytes as f64,
            step_value_bytes: 2.5e5,
        }),
        routing: Vec::new(),
        constraints: Constraints::default(),
        versions: BTreeMap::from([(key.backend.clone(), "0.0-synthetic".to_owned())]),
        unavailable: vec![UnavailableMetric {
            metric: "energy_dram".into(),
            reason: "this processor has no memory domain".into(),
        }],
        notes: Vec::new(),
        id,
        key,
    }
}

fn protocol(key: &CaseKey) -> AccuracyProtocol {
    AccuracyProtocol {
        architecture: Some(format!("{:0>64}", key.family)),
        weights: Some("moving average, 3498 steps".into()),
        votes: 1,
        puzzle_ids: "none".into(),
    }
}

pub fn failed(key: CaseKey, seed: u64, kind: ErrorKind, message: &str, hint: Option<&str>) -> CaseRun {
    let mut run = case_run(key, &MODELS[3], seed, 0, 0, 0);
    run.case.error = Some(CaseError { kind, message: message.into(), hint: hint.map(str::to_owned) });
    run.case.verdict = None;
    run.case.accuracy_from = None;
    run.samples.clear();
    run.case.unavailable.clear();
    run
}

pub fn environment() -> Environment {
    Environment {
        schema: SCHEMA,
        started: "2000-01-01T00:00:00Z".into(),
        suite: "synthetic".into(),
        suite_hash: "22".repeat(32),
        command: "ergometer run synthetic".into(),
        ergometer: "0.0.0 (synthetic)".into(),
        os: "synthetic".into(),
        cpu: "synthetic processor: these numbers are invented".into(),
        cpus: 2,
        isa: vec!["avx2".into(), "avx512f".into()],
        memory_bytes: 8 << 30,
        virtual_machine: true,
        gpus: vec![],
        versions: BTreeMap::from([("rustc".into(), "0.0".into()), ("profile".into(), "release".into())]),
        meters: vec![
            MeterState {
                name: "powercap".into(),
                metrics: vec!["energy_cpu".into(), "energy_dram".into()],
                resolution: Some("61 µJ".into()),
                unavailable: None,
                estimate: false,
            },
            MeterState {
                name: "nvml".into(),
                metrics: vec!["energy_gpu".into()],
                resolution: None,
                unavailable: Some("no NVIDIA driver is installed".into()),
                estimate: false,
            },
        ],
        load_before: Some(0.12),
        foreign_before: Some(0.03),
        models: BTreeMap::new(),
        idle_watts: BTreeMap::from([("energy_cpu".into(), 9.5)]),
        ceilings: Some(ceilings()),
    }
}

/// What the synthetic machine can do at best, with two threads.
fn ceilings() -> MachineCeilings {
    let one = |(name, what, unit, best, n): (&str, &str, &str, f64, u32)| MachineCeiling {
        name: name.into(),
        what: what.into(),
        unit: unit.into(),
        threads: 2,
        best,
        median: if unit == "s" { 1.2 * best } else { 0.97 * best },
        n,
        working_set: None,
    };
    let list = [
        ("f32.avx2", "8 lanes", "FLOP/s", 120e9, 7),
        ("f32.avx512", "16 lanes", "FLOP/s", 200e9, 7),
        ("bf16.avx512", "32 pairs", "FLOP/s", 400e9, 7),
        ("int8.avx512", "64 pairs", "OP/s", 480e9, 7),
        ("read.l3", "half of a level 3 cache", "B/s", 60e9, 7),
        ("read.dram", "memory", "B/s", 14e9, 7),
        ("barrier", "an empty fork-join", "s", 1e-6, 2000),
    ];
    let missing = vec![MissingCeiling { name: "bf16.amx".into(), reason: "this CPU lacks AMX".into() }];
    MachineCeilings { measured: "2000-01-01T00:00:00Z".into(), load: Some(0.12), list: list.map(one).into(), missing }
}

fn sorted(mut cases: Vec<CaseRun>) -> RecordedRun {
    cases.sort_by(|a, b| (&a.case.path, &a.case.id).cmp(&(&b.case.path, &b.case.id)));
    RecordedRun { environment: environment(), cases, examples: Vec::new() }
}

/// Two good cases and one that timed out: small enough to read in a golden file.
pub fn small() -> RecordedRun {
    let mut trm = case_run(key("sudoku-4x4", &MODELS[0], "native", 1), &MODELS[0], 1, 3, 10, 40);
    trm.case.notes.push("4x4 is a smoke test: it cannot tell recursive from dense".into());
    let dense = case_run(key("sudoku-4x4", &MODELS[3], "native", 1), &MODELS[3], 2, 3, 300, 40);
    let hung = failed(
        key("sudoku-4x4", &MODELS[3], "<b>candle</b>", 1),
        3,
        ErrorKind::Timeout,
        "nothing came for 30 s & the worker was killed",
        Some("raise `timeout` in the suite"),
    );
    sorted(vec![trm, dense, hung])
}

/// A task that decides questions from four rows each (eight where there are two outputs), with baselines; one case
/// failed.
pub fn decided() -> RecordedRun {
    let mut cases = Vec::new();
    for (seed, (model, backend)) in
        (50..).zip([(&MODELS[0], "native"), (&MODELS[0], "candle"), (&MODELS[3], "native"), (&MODELS[2], "native")])
    {
        let key = key("rules-10x10", model, backend, 8);
        let mut run = if model.name == "hrm" {
            failed(key, seed, ErrorKind::Timeout, "nothing came for 30 s", None)
        } else {
            case_run(key, model, seed, 3, 30, 300)
        };
        run.case.questions = 60;
        let baseline = |name: &str, right| Baseline { name: name.into(), right, of: 60 };
        run.case.baselines = vec![baseline("copy the input", 2), baseline("best single lookup", 8)];
        if run.case.error.is_none() {
            run.attempts = attempts(model, seed);
        }
        cases.push(run);
    }
    sorted(cases)
}

/// 60 questions, every fourth with two outputs, decided after every depth.
fn attempts(model: &Model, seed: u64) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for depth in 1..=2 * model.steps - 1 {
        let mut dice = Dice(seed);
        let progress = 1.0 - (-(f64::from(depth) - 1.0) / (0.35 * f64::from(model.steps))).exp();
        let reach = model.accuracy.0 + (model.accuracy.1 - model.accuracy.0) * progress;
        for question in 0..60 {
            let parts = if question % 4 == 3 { 2 } else { 1 };
            for part in 0..parts {
                let hardness = dice.roll();
                for attempt in 1..=2u32 {
                    let right = match attempt {
                        1 => hardness < reach,
                        _ => (reach..reach + 0.05).contains(&hardness),
                    };
                    attempts.push(Attempt {
                        question,
                        name: format!("rule {}, instance {}", question / 5, question % 5),
                        cluster: question / 5,
                        depth,
                        last: depth == 2 * model.steps - 1,
                        part,
                        attempt,
                        source: format!("vote {attempt} of 2: {} of 4 rows", 4 - attempt),
                        right,
                        rows: 4 * parts,
                    });
                }
            }
        }
    }
    attempts
}

/// What a real suite may look like: four models, three backends, two scenarios, two tasks, some failures.
pub fn large() -> RecordedRun {
    let mut cases = Vec::new();
    let mut seed = 100;
    for task in ["sudoku-4x4", "sudoku-6x6"] {
        for model in &MODELS {
            for (backend, batch) in [("native", 1), ("native", 32), ("candle", 1), ("candle", 32), ("reference", 1)] {
                if task == "sudoku-6x6" && backend == "reference" {
                    continue;
                }
                seed += 1;
                let key = key(task, model, backend, batch);
                let iterations = if backend == "reference" { 4 } else { 400 };
                cases.push(if model.name == "hrm" && backend == "candle" && batch == 32 {
                    failed(
                        key,
                        seed,
                        ErrorKind::OutOfMemory,
                        "the worker was killed by the kernel for memory",
                        Some("use a smaller batch"),
                    )
                } else {
                    case_run(key, model, seed, 3, iterations, 200)
                });
            }
        }
    }
    sorted(cases)
}

/// Four cases that took turns in ten rounds, one of which failed, and one alone in its group.
pub fn turns() -> RecordedRun {
    let task = |backend: &str, batch| key("sudoku-9x9", &MODELS[0], backend, batch);
    let base = case_run(task("native", 1), &MODELS[0], 200, 10, 30, 40);
    let candle = case_run(task("candle", 1), &MODELS[0], 201, 10, 30, 40);
    let own = case_run(task("peer", 1), &MODELS[0], 202, 10, 30, 40);
    let hung = failed(task("tract", 1), 203, ErrorKind::Timeout, "nothing came for 30 s", None);
    let alone = case_run(task("native", 8), &MODELS[0], 204, 10, 30, 40);
    let mut run = sorted(vec![base, candle, own, hung, alone]);
    let id = |run: &RecordedRun, backend: &str, batch| {
        let found = run.cases.iter().find(|c| c.case.key.backend == backend && c.case.key.batch == batch);
        found.unwrap().case.id.clone()
    };
    for (batch, name) in [(1, "aa"), (8, "bb")] {
        let base = id(&run, "native", batch);
        for case in run.cases.iter_mut().map(|c| &mut c.case).filter(|c| c.key.batch == batch) {
            case.interleaved = Some(InterleavedGroup { id: name.repeat(8), base: Some(base.clone()), rounds: 10 });
        }
    }
    run
}

/// One task on a machine without energy meters, as most virtual machines are.
pub fn unmetered() -> RecordedRun {
    let mut run = large();
    run.cases.retain(|c| c.case.key.task == "sudoku-6x6" && c.case.key.model != "trm-att");
    let reason =
        "the processor's counters are hidden from this virtual machine; run on the host, or name another meter";
    for c in &mut run.cases {
        c.samples.retain(|s| s.metric != "energy_cpu");
        for metric in ["energy_cpu", "joules_per_right"] {
            c.case.unavailable.push(UnavailableMetric { metric: metric.into(), reason: reason.into() });
        }
    }
    run
}

/// Cases of one task in three precisions, on a machine with a ceiling for each.
pub fn precisions() -> RecordedRun {
    let mut run = large();
    run.cases.retain(|c| c.case.key.task == "sudoku-6x6" && c.case.key.backend == "native");
    for (case, precision) in run.cases.iter_mut().zip(["f32", "bf16", "int8"].into_iter().cycle()) {
        case.case.key.precision = precision.into();
        case.case.path = case.case.key.path();
    }
    run
}

/// What `--check` leaves: one iteration a case, so no interval of any time.
pub fn checked() -> RecordedRun {
    let mut run = large();
    run.cases.retain(|c| c.case.key.task == "sudoku-6x6");
    let first = |s: &Sample| s.phase != "steady" || s.block == 0 && s.iteration.is_none_or(|i| i == 0);
    run.cases.iter_mut().for_each(|c| c.samples.retain(first));
    let ids: Vec<(String, String)> =
        run.cases.iter().map(|c| (c.case.key.model.clone() + &c.case.key.scenario, c.case.id.clone())).collect();
    for case in run.cases.iter_mut().map(|c| &mut c.case) {
        let same = case.key.model.clone() + &case.key.scenario;
        let base = ids.iter().find(|(name, _)| *name == same).map(|(_, id)| id.clone());
        case.interleaved = Some(InterleavedGroup { id: same, base, rounds: 1 });
    }
    run
}

/// Sixty cases of one task: five models, two of them in two depth rules, on three backends with one, two and four
/// threads, metered.
pub fn sixty() -> RecordedRun {
    let mut cases = Vec::new();
    for (model, rule) in [(0, ""), (0, "fixed-16"), (1, ""), (1, "fixed-16"), (2, ""), (3, "")] {
        for (backend, batch) in [("native", 1), ("native", 16), ("candle", 1), ("candle", 16), ("onnxruntime", 1)] {
            for threads in [1, 4] {
                let model = &MODELS[model];
                let mut key = key("rules-30x30", model, backend, batch);
                key.threads = threads;
                if !rule.is_empty() {
                    key.depth = rule.into();
                }
                let seed = 400 + cases.len() as u64;
                cases.push(case_run(key, model, seed, 10, 40, 60));
            }
        }
    }
    sorted(cases)
}

/// The records of a run.
pub fn summarise(run: &RecordedRun) -> Vec<Record> {
    Report::new(run.clone()).records
}

/// Writes a run as the runner would.
pub fn write(run: &RecordedRun, dir: &std::path::Path) {
    let folder = ergometer_reports::RunFolder::create(dir).unwrap();
    folder.write_environment(&run.environment).unwrap();
    for c in &run.cases {
        folder
            .begin_case(&c.case.path, &c.case.id)
            .unwrap()
            .finish(&c.case, &c.samples, &c.predictions, &c.attempts, &c.sums)
            .unwrap();
    }
}

/// A search of three settings, one of them wrong.
fn tuning() -> Tuning {
    let tried = |spinning: &str, shapes: &str, ratio: f64| Tried {
        options: [("spinning", spinning), ("shapes", shapes)].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        latency: Some(0.002 * ratio),
        ratio: Some((ratio, 0.98 * ratio, 1.03 * ratio)),
        error: None,
    };
    let message = "the largest error is 2.0e-3 of the largest value, f32-strict allows 1e-4".to_owned();
    let wrong = CaseError { kind: ErrorKind::Parity, message, hint: None };
    let wrong = Tried { latency: None, ratio: None, error: Some(wrong), ..tried("true", "static", 1.0) };
    let method = "3 settings in 5 interleaved rounds".into();
    Tuning { method, chosen: 1, tried: vec![tried("false", "symbolic", 1.0), tried("true", "symbolic", 0.81), wrong] }
}
