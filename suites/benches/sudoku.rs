//! What a puzzle costs: minimal 9x9 puzzles of each side of the split, and those that need no guess;
//! `cargo bench -p ergometer-suites`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ergometer_suites::sudoku::{Generator, PuzzleOptions, Size};
use ergometer_suites::task::Split;

const PUZZLES: u64 = 20;

fn generator(c: &mut Criterion) {
    let mut group = c.benchmark_group("sudoku_generator");
    group.throughput(Throughput::Elements(PUZZLES));
    let train = PuzzleOptions { split: Some(Split::Train), ..PuzzleOptions::default() };
    for (name, options) in [
        ("9x9_minimal_train", train),
        ("9x9_minimal_test", PuzzleOptions { split: Some(Split::Test), ..train }),
        ("9x9_without_guesses_train", PuzzleOptions { max_guesses: Some(0), ..train }),
    ] {
        let mut generator = Generator::new(Size::Nine, 1, options).expect("possible");
        group.bench_function(name, |b| {
            b.iter(|| (0..PUZZLES).filter(|_| generator.next_puzzle().is_ok()).count());
        });
    }
    group.finish();
}

criterion_group!(benches, generator);
criterion_main!(benches);
