//! What the worker's timing loop itself costs per iteration: two clock readings, a sample stored, the closure's call. The target is under
//! one microsecond; `cargo bench --bench worker_loop`.

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ergometer::clock::monotonic_ns;
use ergometer::worker::time_loop;

const ITERATIONS: u64 = 1000;

fn worker_loop(c: &mut Criterion) {
    let mut group = c.benchmark_group("worker_loop");
    group.throughput(Throughput::Elements(ITERATIONS));
    let mut samples = Vec::with_capacity(ITERATIONS as usize);
    group.bench_function("empty_iterations", |b| {
        b.iter(|| {
            time_loop(0, ITERATIONS, 0.0, &mut samples, |i| {
                let t_ns = monotonic_ns();
                let started = Instant::now();
                let steps = black_box(i);
                Some((t_ns, i, 1, started.elapsed().as_secs_f64(), steps))
            });
            samples.len()
        });
    });
    group.finish();
}

criterion_group!(benches, worker_loop);
criterion_main!(benches);
