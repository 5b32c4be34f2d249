//! Criterion benches of products with quantised blocks. In: shapes of SmolLM2-135M and Gemma 3 270M, formats, every
//! instruction set, 1 and 2 threads. Out: for one row bytes of weights per second, for 512 rows multiply-adds per second
//! (operations: twice that). The weights of one shape may stay in a nearer cache than those of a whole net do. Asserts
//! nothing.
//!
//! A bench is named `decode/format/n x k/isa-tN` or `prefill/...`: `cargo bench -p ergometer-kernels --bench blocks --
//! 'decode/Q4_1/.*/avx512bf16-t1'`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ergometer_kernels::*;

/// `[n, k]` of the weights of one layer, and of the head.
const SHAPES: [(usize, usize); 4] = [(576, 576), (1536, 576), (576, 1536), (49152, 576)];
/// Those of rows that are whole blocks of 256.
const WIDE: [(usize, usize); 1] = [(640, 2048)];

fn measure(c: &mut Criterion, what: &str, m: usize, format: BlockFormat, (n, k): (usize, usize)) {
    for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar) {
        for threads in [1, 2] {
            let Ok(ctx) = Context::new(threads, isa) else { continue };
            let mut group = c.benchmark_group(format!("{what}/{format}/{n} x {k}"));
            let bytes = n * k / format.block_len() * format.block_bytes();
            group.throughput(match m {
                1 => Throughput::Bytes(bytes as u64),
                _ => Throughput::Elements((m * n * k) as u64),
            });
            group.bench_function(format!("{isa}-t{threads}"), |b| {
                // ordinary scales; integers take the same time whatever they are
                let w = PackedBlocks::pack(&ctx, format, &vec![0x2c; bytes], n, k);
                let x: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.37).sin()).collect();
                let mut out = vec![0.0; m * n];
                b.iter(|| blocks_linear(&ctx, black_box(&x), &w, black_box(&mut out)));
            });
            group.finish();
        }
    }
}

fn decode(c: &mut Criterion) {
    for format in BlockFormat::ALL {
        for shape in shapes(format) {
            measure(c, "decode", 1, format, *shape);
        }
    }
}

fn prefill(c: &mut Criterion) {
    for format in BlockFormat::ALL {
        for shape in shapes(format).iter().filter(|(n, _)| *n < 10_000) {
            measure(c, "prefill", 512, format, *shape);
        }
    }
}

fn shapes(format: BlockFormat) -> &'static [(usize, usize)] {
    if format.block_len() == 32 { &SHAPES } else { &WIDE }
}

criterion_group!(benches, decode, prefill);
criterion_main!(benches);
