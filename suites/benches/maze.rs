//! What a maze costs: making one with a long path, and solving it by breadth-first search; `cargo bench -p
//! ergometer-suites --bench maze`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ergometer_suites::maze::{MazeGenerator, MazeRequest, shortest};
use ergometer_suites::task::Split;

const MAZES: u64 = 20;

fn mazes(c: &mut Criterion) {
    let mut group = c.benchmark_group("maze");
    group.throughput(Throughput::Elements(MAZES));
    for (name, side, min_path) in [("11x11_of_20", 11, 20), ("15x15_of_30", 15, 30), ("30x30_of_111", 30, 111)] {
        let request = MazeRequest { min_path, split: Some(Split::Train), ..MazeRequest::of(side) };
        let mut generator = MazeGenerator::new(request, 1).expect("possible");
        group.bench_function(format!("{name}_made"), |b| {
            b.iter(|| (0..MAZES).filter(|_| generator.next_maze().is_ok()).count());
        });
        let made: Vec<_> = (0..MAZES).filter_map(|_| generator.next_maze().ok()).collect();
        group.bench_function(format!("{name}_solved"), |b| {
            b.iter(|| made.iter().filter(|maze| shortest(&maze.grid).is_some()).count());
        });
    }
    group.finish();
}

criterion_group!(benches, mazes);
criterion_main!(benches);
