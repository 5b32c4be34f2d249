//! Criterion benches per operator. In: shapes of recursive nets (D 64 and 512, 97 tokens, batches of 1 and 8), every instruction set, 1 and 2 threads.
//! Out: time and throughput; elements per second are multiply-adds for products (FLOP/s = twice that) and values for the rest.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ergometer_kernels::*;

/// Tokens of a Sudoku net: 81 cells and 16 positions of the puzzle embedding.
const TOKENS: usize = 97;

/// Every context to measure, with its name.
fn contexts() -> Vec<(String, Ctx)> {
    let all = Isa::available().into_iter().flat_map(|isa| [1, 2].map(|threads| (isa, threads)));
    all.filter_map(|(isa, threads)| Some((format!("{isa}-t{threads}"), Ctx::new(threads, isa).ok()?))).collect()
}

/// Smooth values in -1..1.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn linear_bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear");
    for (m, k, n) in [
        (1, 512, 3072),
        (TOKENS, 512, 3072),
        (TOKENS, 1536, 512),
        (8 * TOKENS, 512, 3072),
        (8 * TOKENS, 1536, 512),
        (TOKENS, 64, 512),
        (8 * TOKENS, 64, 512),
    ] {
        group.throughput(Throughput::Elements((m * k * n) as u64));
        for (name, ctx) in contexts() {
            // plain loops take seconds here and tell nothing more
            if ctx.isa() == Isa::Scalar && m * k * n > 200_000_000 {
                continue;
            }
            let (x, w) = (values(m * k), PackedLinear::pack(&ctx, &values(n * k), n, k));
            let mut out = vec![0.0; m * n];
            group.bench_function(BenchmarkId::new(format!("m{m}-k{k}-n{n}"), name), |b| {
                b.iter(|| linear(&ctx, black_box(&x), &w, None, black_box(&mut out)));
            });
        }
    }
    group.finish();
}

fn linear_tokens_bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear_tokens");
    for (batch, n, t, d) in
        [(1, 1024, TOKENS, 512), (8, 1024, TOKENS, 512), (1, TOKENS, 512, 512), (8, 256, TOKENS, 64)]
    {
        group.throughput(Throughput::Elements((batch * n * t * d) as u64));
        for (name, ctx) in contexts() {
            if ctx.isa() == Isa::Scalar && batch > 1 {
                continue;
            }
            let (x, w) = (values(batch * t * d), PackedTokens::pack(&values(n * t), n, t));
            let mut out = vec![0.0; batch * n * d];
            group.bench_function(BenchmarkId::new(format!("b{batch}-n{n}-t{t}-d{d}"), name), |b| {
                b.iter(|| linear_tokens(&ctx, black_box(&x), &w, d, black_box(&mut out)));
            });
        }
    }
    group.finish();
}

fn attention_bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    let heads = Heads { heads: 8, kv_heads: 8, head_dim: 64 };
    let width = heads.heads * heads.head_dim;
    for (batch, causal) in [(1, false), (1, true), (8, false)] {
        group.throughput(Throughput::Elements((2 * batch * TOKENS * TOKENS * width) as u64));
        for (name, ctx) in contexts() {
            let qkv = values(batch * TOKENS * heads.row());
            let mut out = vec![0.0; batch * TOKENS * width];
            let mask = Mask { causal, window: None };
            group.bench_function(BenchmarkId::new(format!("b{batch}-causal-{causal}"), name), |b| {
                b.iter(|| attention(&ctx, black_box(&qkv), TOKENS, heads, mask, 0.125, black_box(&mut out)));
            });
        }
    }
    group.finish();
}

fn streaming_bench(c: &mut Criterion) {
    let (batch, d) = (8, 512);
    let len = batch * TOKENS * d;
    let heads = Heads { heads: 8, kv_heads: 8, head_dim: 64 };
    let mut group = c.benchmark_group("streaming");
    for (name, ctx) in contexts() {
        let (x, y, two) = (values(len), values(len), values(2 * len));
        // true rotations: others would shrink the values, call by call, to denormals, which are slow
        let angles = values(TOKENS * heads.head_dim / 2);
        let table = |f: fn(f32) -> f32| -> Vec<f32> {
            let rows = angles.chunks(heads.head_dim / 2).flat_map(|row| [row, row]);
            rows.flatten().map(|angle| f(*angle)).collect()
        };
        let (cos, sin) = (table(f32::cos), table(f32::sin));
        let mut qkv = values(batch * TOKENS * heads.row());
        let mut out = vec![0.0; len];
        let ids: Vec<u32> = (0..(batch * TOKENS) as u32).map(|i| i % 11).collect();
        group.throughput(Throughput::Elements(len as u64));
        let mut bench = |operator: &str, f: &mut dyn FnMut(&mut [f32])| {
            group.bench_function(BenchmarkId::new(operator, &name), |b| b.iter(|| f(black_box(&mut out))));
        };
        bench("rms_norm", &mut |out| rms_norm(&ctx, &x, Some(&y), None, 1e-5, d, out));
        bench("rms_norm_tokens", &mut |out| rms_norm_tokens(&ctx, out, Some(&y), 1e-5, TOKENS, d));
        bench("layer_norm", &mut |out| layer_norm(&ctx, out, None, None, 1e-5, d));
        bench("swiglu", &mut |out| swiglu(&ctx, &two, d, out));
        bench("copy+gelu", &mut |out| {
            copy(&ctx, &x, out);
            activation(&ctx, Activation::Gelu, out);
        });
        bench("softmax_rows", &mut |out| softmax_rows(&ctx, out, None, d));
        bench("rope", &mut |_| rope(&ctx, &mut qkv, TOKENS, heads, &cos, &sin));
        bench("embed", &mut |out| embed(&ctx, &ids, &x[..11 * d], 22.6, d, out));
        bench("add", &mut |out| add(&ctx, &x, &y, out));
        bench("copy", &mut |out| copy(&ctx, &x, out));
    }
    group.finish();
}

fn fork_join_bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("fork_join");
    for threads in [1, 2] {
        let pool = Pool::new(threads).expect("the operating system gives two threads");
        group.bench_function(format!("hot-t{threads}"), |b| {
            b.iter(|| {
                pool.run(threads, &|i| {
                    black_box(i);
                })
            })
        });
    }
    group.finish();
}

criterion_group! {
    name = operators;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .without_plots();
    targets = linear_bench, linear_tokens_bench, attention_bench, streaming_bench, fork_join_bench
}
criterion_main!(operators);
