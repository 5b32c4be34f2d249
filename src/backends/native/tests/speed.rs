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

/// A full-size TRM-MLP on every vector instruction set, in turns with every other engine here. Random weights: only the time means
/// anything. An engine whose threads are set by the environment needs them set there: `RAYON_NUM_THREADS=2 cargo test --release -p
/// ergometer --lib full_size -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement of a minute, not a test"]
fn full_size_times() {
    let config = json!({"model_type": "trm", "seq_len": 81, "vocab_size": 11, "hidden_size": 512, "num_heads": 8, "expansion": 4.0,
        "H_cycles": 3, "L_cycles": 6, "L_layers": 2, "mlp_t": true, "pos_encodings": "none",
        "puzzle_emb_ndim": 512, "puzzle_emb_len": 16, "num_puzzle_identifiers": 1});
    let model = Model::random(&config, 1).expect("a net");
    let flops = model.graph.cost(&crate::graph::cost::Workload::one()).flops_steps;
    for (batch, threads) in [(1, 1), (1, 2), (8, 1), (8, 2)] {
        let given = inputs(&model, batch);
        let mut ours: Vec<(Isa, NativeEngine, Best)> = Isa::available()
            .into_iter()
            .skip(1)
            .map(|isa| (isa, engine(&model, isa, threads, batch), Best::default()))
            .collect();
        let plain = Options { precision: "f32".into(), threads, capacity: batch, extra: BTreeMap::new() };
        let others = super::super::super::BACKENDS.iter().filter(|b| !["native", "reference"].contains(&b.name()));
        let mut others: Vec<_> =
            others.map(|b| (b.name(), b.load(&model, &plain).expect("loads"), Best::default())).collect();
        ours.iter_mut().for_each(|(_, e, _)| e.admit(0, batch, &views(&given)).expect("admits"));
        others.iter_mut().for_each(|(_, e, _)| e.admit(0, batch, &views(&given)).expect("admits"));
        for _ in 0..(16 / batch).max(3) {
            for (_, engine, best) in &mut ours {
                best.turn(|mut seen| engine.step_watched(batch, &mut seen).expect("steps"));
            }
            for (_, engine, best) in &mut others {
                best.turn(|_| engine.step(batch).expect("steps"));
            }
        }
        let ours = ours.into_iter().map(|(isa, _, best)| (format!("native {isa}"), best));
        for (name, best) in ours.chain(others.into_iter().map(|(name, _, best)| (name.to_string(), best))) {
            let rate = |seconds: f64| flops * batch as f64 / seconds / 1e9;
            let (wall, cpu) = (best.wall, best.cpu);
            println!(
                "batch {batch}, {threads} threads, {name}: {:.1} ms, {:.0} GFLOP/s; {:.1} ms and {:.0} by processor time",
                wall * 1e3,
                rate(wall),
                cpu * 1e3,
                rate(cpu)
            );
            let mut parts: Vec<_> = best.parts.into_iter().collect();
            parts.sort_by(|a, b| b.1.total_cmp(&a.1));
            parts.iter().for_each(|(n, s)| println!("{n:>20} {:8.2} ms {:5.1} %", s * 1e3, s / wall * 100.0));
        }
    }
}
