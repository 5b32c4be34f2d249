//! A measurement that is run by hand: where the time of a full-size net goes.

use std::time::Instant;

use super::*;

/// Processor time of all threads of this process: what another process on the same cores disturbs least.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The best turn of one engine.
#[derive(Default)]
struct Best {
    wall: f64,
    cpu: f64,
    /// Wall time per kind of step, of the best turn.
    parts: BTreeMap<&'static str, f64>,
}

impl Best {
    /// Takes a turn; `step` may note when a kind of step has ended.
    fn turn(&mut self, step: impl FnOnce(&mut dyn FnMut(&'static str))) {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let (mut last, mut parts) = (start, BTreeMap::new());
        step(&mut |name| {
            let now = Instant::now();
            *parts.entry(name).or_insert(0.0) += (now - last).as_secs_f64();
            last = now;
        });
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        if self.wall == 0.0 || wall < self.wall {
            (self.wall, self.parts) = (wall, parts);
        }
        self.cpu = if self.cpu == 0.0 { cpu } else { self.cpu.min(cpu) };
    }
}

/// Full-size recursive nets in every precision, in turns, with the time of each kind of step. Random weights: only the time means anything.
/// `cargo test --release -p ergometer --lib full_size -- --ignored --nocapture`; `NETS` and `BATCHES` choose (`512,256,128`, `1,8,32`), `ERGOMETER_ISA` the instruction set.
#[test]
#[ignore = "a measurement of a minute, not a test"]
fn full_size_times() {
    let list = |name: &str, all: &str| -> Vec<usize> {
        let text = std::env::var(name).unwrap_or(all.into());
        text.split(',').map(|n| n.parse().expect("numbers")).collect()
    };
    let isa = Isa::from_env().expect("an instruction set that is here");
    for width in list("NETS", "512,256,128") {
        let mixing = width > 128;
        let config = json!({"model_type": "trm", "seq_len": 81, "vocab_size": 11, "hidden_size": width, "num_heads": 4, "expansion": 4.0,
            "H_cycles": 3, "L_cycles": 6, "L_layers": 2, "mlp_t": mixing, "pos_encodings": if mixing { "none" } else { "rope" },
            "puzzle_emb_ndim": width, "puzzle_emb_len": 16, "num_puzzle_identifiers": 1});
        let model = Model::random(&config, 1).expect("a net");
        let flops = model.graph().unwrap().cost(&crate::graph::cost::Workload::one()).flops_steps;
        for (batch, threads) in
            list("BATCHES", "1,8").into_iter().flat_map(|b| list("THREADS", "2").into_iter().map(move |t| (b, t)))
        {
            let given = inputs(&model, batch);
            let mut all: Vec<(&str, NativeEngine, Best)> = ["f32", "bf16", "int8"]
                .map(|precision| (precision, engine_in(precision, &model, isa, threads, batch), Best::default()))
                .into();
            all.iter_mut().for_each(|(_, e, _)| e.admit(0, batch, &views(&given)).expect("admits"));
            for _ in 0..(40 / batch).max(5) {
                for (_, engine, best) in &mut all {
                    best.turn(|mut seen| engine.step_watched(batch, &mut seen).expect("steps"));
                }
            }
            for (precision, _, best) in all {
                let rate = flops * batch as f64 / best.wall / 1e9;
                println!(
                    "width {width}, batch {batch}, {threads} threads, {isa} {precision}: {:.2} ms, {rate:.0} GFLOP/s; {:.2} ms of processor time",
                    best.wall * 1e3,
                    best.cpu * 1e3,
                );
                let mut parts: Vec<_> = best.parts.into_iter().collect();
                parts.sort_by(|a, b| b.1.total_cmp(&a.1));
                let parts = parts.iter().map(|(n, s)| format!("{n} {:.2} ms", s * 1e3));
                println!("    {}", parts.collect::<Vec<_>>().join(", "));
            }
        }
    }
}
