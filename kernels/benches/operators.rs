//! Criterion benches per operator. In: shapes of the nets that are measured, every number format, every instruction
//! set, 1 and 2 threads. Out: time and throughput; elements per second are multiply-adds of the mathematics (FLOP/s =
//! twice that) for products, and values for the rest. Asserts nothing.
//!
//! A bench is named `operator/shape/format-isa-tN`: `cargo bench -p ergometer-kernels --
//! 'gated_mlp/.*/bf16-avx512bf16-t1'`.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ergometer_kernels::*;

/// Tokens of a Sudoku net: 81 cells and 16 positions of the puzzle embedding.
const TOKENS: usize = 97;

/// Most multiply-adds for which the scalar reference is measured: beyond it an iteration takes seconds.
const SCALAR_MOST: usize = 100_000_000;

const FORMATS: [(NumberFormat, &str); 3] =
    [(NumberFormat::F32, "f32"), (NumberFormat::Bf16, "bf16"), (NumberFormat::Int8, "int8")];

/// Every context to measure, with its name.
fn contexts() -> impl Iterator<Item = (String, Context)> {
    let all = Isa::available().into_iter().flat_map(|isa| [1, 2].map(|threads| (isa, threads)));
    all.filter_map(|(isa, threads)| Some((format!("{isa}-t{threads}"), Context::new(threads, isa).ok()?)))
}

/// Smooth values in -1..1.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin()).collect()
}

/// What one iteration does, with the memory that it does it in.
type Iteration<'a> = Box<dyn FnMut() + 'a>;

/// Measures a shape of an operator in every format and context; `make` packs weights and gives an iteration.
fn products(
    c: &mut Criterion,
    operator: &str,
    shape: &str,
    multiply_adds: usize,
    make: impl for<'a> Fn(&'a Context, NumberFormat) -> Iteration<'a>,
) {
    let mut group = c.benchmark_group(operator);
    group.throughput(Throughput::Elements(multiply_adds as u64));
    for (name, ctx) in contexts() {
        if ctx.isa() == Isa::Scalar && multiply_adds > SCALAR_MOST {
            continue;
        }
        for (format, label) in FORMATS {
            // packed inside, so that a bench that the filter leaves out costs nothing
            group.bench_function(BenchmarkId::new(shape, format!("{label}-{name}")), |b| b.iter(make(&ctx, format)));
        }
    }
    group.finish();
}

fn linear_bench(c: &mut Criterion) {
    for (m, k, n) in [
        (1, 512, 3072),
        (TOKENS, 512, 1536),
        (8 * TOKENS, 512, 1536),
        (TOKENS, 512, 512),
        (8 * TOKENS, 512, 512),
        (8 * TOKENS, 128, 384),
        (8 * TOKENS, 512, 16),
    ] {
        products(c, "linear", &format!("m{m}-k{k}-n{n}"), m * k * n, |ctx, format| {
            let (x, w) = (values(m * k), PackedLinear::pack(ctx, format, &values(n * k), n, k));
            let mut out = vec![0.0; m * n];
            Box::new(move || linear(ctx, black_box(&x), &w, None, black_box(&mut out)))
        });
    }
}

fn linear_norm_bench(c: &mut Criterion) {
    for (m, k, n) in [(TOKENS, 512, 512), (8 * TOKENS, 512, 512), (8 * TOKENS, 128, 128)] {
        products(c, "linear_norm", &format!("m{m}-k{k}-n{n}"), m * k * n, |ctx, format| {
            let (x, w) = (values(m * k), PackedLinear::pack(ctx, format, &values(n * k), n, k));
            let mut out = vec![0.0; m * n];
            Box::new(move || linear_norm(ctx, black_box(&x), &w, 1e-5, black_box(&mut out)))
        });
    }
}

fn gated_mlp_bench(c: &mut Criterion) {
    for (m, d, inner) in [TOKENS, 8 * TOKENS].into_iter().flat_map(|m| MLPS.map(|(d, inner)| (m, d, inner))) {
        products(c, "gated_mlp", &format!("m{m}-d{d}-inner{inner}"), 3 * m * d * inner, |ctx, format| {
            dense(ctx, format, m, d, inner)
        });
    }
}

/// Features and hidden features of gated MLPs.
const MLPS: [(usize, usize); 3] = [(512, 1536), (256, 768), (128, 512)];

fn dense(ctx: &Context, format: NumberFormat, m: usize, d: usize, inner: usize) -> Iteration<'_> {
    let up = PackedLinear::pack_gated(ctx, format, &values(2 * inner * d), inner, d);
    let down = PackedLinear::pack(ctx, format, &values(d * inner), d, inner);
    let (x, mut out) = (values(m * d), vec![0.0; m * d]);
    Box::new(move || gated_mlp(ctx, Some(black_box(&x)), &up, &down, Some(1e-5), black_box(&mut out)))
}

fn token_mlp_bench(c: &mut Criterion) {
    let (t, inner) = (TOKENS, 512);
    for (batch, d) in [(1, 512), (8, 512), (1, 256), (8, 256)] {
        let shape = format!("b{batch}-t{t}-inner{inner}-d{d}");
        products(c, "token_mlp", &shape, 3 * batch * t * d * inner, |ctx, format| {
            let up = PackedTokens::pack_gated(ctx, format, &values(2 * inner * t), inner, t);
            let down = PackedTokens::pack(ctx, format, &values(t * inner), t, inner);
            let (x, mut out) = (values(batch * t * d), vec![0.0; batch * t * d]);
            Box::new(move || token_mlp(ctx, Some(black_box(&x)), &up, &down, Some(1e-5), d, black_box(&mut out)))
        });
    }
}

fn attention_bench(c: &mut Criterion) {
    let mask = |causal, window, globals| Mask { causal, window, globals };
    let masks = [
        ("dense", mask(false, None, 0)),
        ("causal", mask(true, None, 0)),
        ("window16", mask(false, Some(16), 0)),
        ("window16+4", mask(false, Some(16), 4)),
    ];
    for (batch, heads, head_dim) in [(1, 4, 32), (8, 4, 32), (1, 8, 64), (8, 8, 64)] {
        for (name, mask) in masks {
            let (t, heads) = (TOKENS, Heads { heads, kv_heads: heads, head_dim });
            let width = heads.heads * head_dim;
            let near = |i: usize, j: usize| mask.window.is_none_or(|w| i.abs_diff(j) < w) || i.min(j) < mask.globals;
            let sees = |i: usize, j: usize| near(i, j) && (j <= i || !mask.causal);
            let pairs = (0..t * t).filter(|ij| sees(ij / t, ij % t)).count();
            let shape = format!("b{batch}-h{}x{head_dim}-{name}", heads.heads);
            products(c, "attention", &shape, 2 * batch * pairs * width, |ctx, format| {
                let qkv = values(batch * t * heads.row());
                let mut out = vec![0.0; batch * t * width];
                let scale = 1.0 / (head_dim as f32).sqrt();
                Box::new(move || {
                    attention(ctx, format, black_box(&qkv), t, heads, None, mask, scale, black_box(&mut out));
                })
            });
        }
    }
}

/// The same with the product before it.
fn projected_attention_bench(c: &mut Criterion) {
    for (batch, heads, head_dim) in [(1, 4, 32), (8, 4, 32), (1, 8, 64), (8, 8, 64)] {
        let (t, heads) = (TOKENS, Heads { heads, kv_heads: heads, head_dim });
        let (k, shape) = (heads.heads * head_dim, format!("b{batch}-h{}x{head_dim}-dense", heads.heads));
        products(c, "projected_attention", &shape, batch * t * k * (3 * k + 2 * t), |ctx, format| {
            let (x, w) = (values(batch * t * k), PackedHeads::pack(ctx, format, &values(heads.row() * k), heads, k));
            let mut out = vec![0.0; batch * t * k];
            let scale = 1.0 / (head_dim as f32).sqrt();
            Box::new(move || {
                let mask = Mask::default();
                projected_attention(ctx, format, black_box(&x), &w, t, None, mask, scale, black_box(&mut out));
            })
        });
    }
}

/// Routing, gathering, the experts and their weighted sum, beside the dense MLP of the active size: multiply-adds are
/// the same in all three.
fn experts_bench(c: &mut Criterion) {
    let (tokens, d, active) = (648, 256, 768);
    let multiply_adds = 3 * tokens * d * active;
    for (experts, top_k) in [(8, 2), (1, 1)] {
        let inner = active / top_k;
        let shape = format!("top{top_k}of{experts}-m{tokens}-d{d}-inner{inner}");
        products(c, "experts", &shape, multiply_adds, |ctx, format| {
            // each with memory of its own, as experts have
            let up = || PackedLinear::pack_gated(ctx, format, &values(2 * inner * d), inner, d);
            let down = || PackedLinear::pack(ctx, format, &values(d * inner), d, inner);
            let (up, down): (Vec<_>, Vec<_>) = (0..experts).map(|_| (up(), down())).unzip();
            let (x, scores) = (values(tokens * d), values(tokens * experts));
            let mut routes = Routes::new(experts, top_k, tokens);
            let (mut rows, mut out) = (vec![0.0; tokens * top_k * d], vec![0.0; tokens * d]);
            Box::new(move || {
                routes.route(ctx, black_box(&scores));
                routes.gather(ctx, &x, d, &mut rows);
                routes.experts(ctx, &up, &down, &mut rows);
                routes.combine(ctx, &rows, d, black_box(&mut out));
            })
        });
    }
    let shape = format!("dense-m{tokens}-d{d}-inner{active}");
    products(c, "experts", &shape, multiply_adds, |ctx, format| dense(ctx, format, tokens, d, active));
}

fn streaming_bench(c: &mut Criterion) {
    let (batch, d) = (8, 512);
    let len = batch * TOKENS * d;
    let mut group = c.benchmark_group("streaming");
    for (name, ctx) in contexts() {
        let (x, y, two) = (values(len), values(len), values(2 * len));
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
            activation(&ctx, ActivationKind::Gelu, out);
        });
        bench("embed", &mut |out| embed(&ctx, &ids, &x[..11 * d], 22.6, d, out));
        bench("add", &mut |out| add(&ctx, &x, &y, out));
        bench("copy", &mut |out| copy(&ctx, &x, out));
    }
    group.finish();
}

/// An empty run: with workers that still spin, and with workers that sleep.
fn fork_join_bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("fork_join");
    for threads in [1, 2] {
        let pool = Pool::new(threads).expect("the operating system gives two threads");
        let run = || {
            pool.run(threads, &|i| {
                black_box(i);
            });
        };
        group.bench_function(format!("hot-t{threads}"), |b| b.iter(run));
        group.bench_function(format!("asleep-t{threads}"), |b| {
            b.iter_custom(|times| {
                let once = |_| {
                    // workers sleep after 40 microseconds without work
                    thread::sleep(Duration::from_micros(100));
                    let start = Instant::now();
                    run();
                    start.elapsed()
                };
                (0..times).map(once).sum()
            });
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
    targets = linear_bench, linear_norm_bench, gated_mlp_bench, token_mlp_bench, attention_bench, projected_attention_bench, experts_bench, streaming_bench, fork_join_bench
}
criterion_main!(operators);
