//! Tests of attention over a cache. In: random queries, keys and values. Out: agreement with the scalar reference on
//! each instruction set, and the same bits for any number of threads, for tokens one by one or many at once, and for
//! sequences alone or together; values by hand.

use proptest::prelude::*;

use crate::tests::{Draw, bits, close, context, draws};
use crate::*;

/// Sequences of a draw: tokens in all and new ones, with their keys, values and queries.
struct Drawn {
    kv_heads: usize,
    heads: usize,
    dim: usize,
    format: NumberFormat,
    scores: CachedScores,
    sequences: Vec<Sequence>,
}

struct Sequence {
    len: usize,
    new: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
}

impl Drawn {
    fn new(mut d: Draw) -> Drawn {
        let (kv_heads, group, dim) = (1 + d.b % 3, 1 + d.c % 4, 1 + d.a);
        let mut sequences = Vec::new();
        for _ in 0..d.batch % 4 {
            let len = 1 + (d.next() % 90) as usize;
            let new = if d.next().is_multiple_of(2) { 1 } else { (d.next() % (len as u64 + 1)) as usize };
            let (keys, values) = (d.values(len * kv_heads * dim), d.values(len * kv_heads * dim));
            let queries = d.values(new * kv_heads * group * dim);
            sequences.push(Sequence {
                len,
                new,
                keys: keys.to_vec(),
                values: values.to_vec(),
                queries: queries.to_vec(),
            });
        }
        Drawn {
            kv_heads,
            heads: kv_heads * group,
            dim,
            format: [NumberFormat::F32, NumberFormat::Bf16][(d.seed % 2) as usize],
            scores: CachedScores {
                scale: 0.3,
                soft_cap: (d.seed % 3 == 1 && !d.special).then_some(2.5),
                window: [None, Some(d.b), Some(17)][(d.seed / 3 % 3) as usize],
            },
            sequences,
        }
    }

    fn cache(&self, of: &Sequence, len: usize) -> KvCache {
        let width = self.kv_heads * self.dim;
        // tokens of another sequence before
        let mut cache = KvCache::new(self.kv_heads, self.dim, of.len + 3, self.format);
        cache.append(&vec![f32::NAN; (of.len + 3) * width], &vec![f32::NAN; (of.len + 3) * width]);
        cache.truncate(0);
        cache.append(&of.keys[..len * width], &of.values[..len * width]);
        assert_eq!(cache.bytes(), KvCache::bytes_for(self.kv_heads, self.dim, of.len + 3, self.format));
        // one that grows holds the same
        let mut grown = KvCache::new(self.kv_heads, self.dim, 1000, self.format);
        for at in 0..len {
            let own = at * width..(at + 1) * width;
            grown.append(&of.keys[own.clone()], &of.values[own]);
        }
        let most = KvCache::bytes_for(self.kv_heads, self.dim, len.next_multiple_of(64), self.format);
        assert!(grown.bytes() <= most.max(2 * len * width * 4), "{} bytes of {len} tokens", grown.bytes());
        if of.new.is_multiple_of(2) { grown } else { cache }
    }

    fn run(&self, ctx: &Context, sequences: &[&Sequence]) -> Vec<f32> {
        let caches: Vec<KvCache> = sequences.iter().map(|s| self.cache(s, s.len)).collect();
        let tokens: Vec<CachedTokens> =
            caches.iter().zip(sequences).map(|(cache, s)| CachedTokens { cache, tokens: s.new }).collect();
        let q: Vec<f32> = sequences.iter().flat_map(|s| s.queries.iter().copied()).collect();
        let mut out = vec![f32::NAN; q.len()];
        cached_attention(ctx, &q, &tokens, self.heads, self.scores, &mut out);
        out
    }

    /// Each new token when it came.
    fn one_by_one(&self, ctx: &Context, of: &Sequence) -> Vec<f32> {
        let (width, row) = (self.kv_heads * self.dim, self.heads * self.dim);
        let mut cache = self.cache(of, of.len - of.new);
        let mut out = vec![f32::NAN; of.new * row];
        for (i, out) in out.chunks_exact_mut(row).enumerate() {
            let at = (of.len - of.new + i) * width;
            cache.append(&of.keys[at..at + width], &of.values[at..at + width]);
            let tokens = [CachedTokens { cache: &cache, tokens: 1 }];
            cached_attention(ctx, &of.queries[i * row..(i + 1) * row], &tokens, self.heads, self.scores, out);
        }
        out
    }
}

/// What is not finite as NaN, since weights that are denormal in the scalar reference are 0 here.
fn one_kind(out: &[f32]) -> Vec<f32> {
    out.iter().map(|x| if x.is_finite() { *x } else { f32::NAN }).collect()
}

fn check(isa: Isa) {
    let Some(one) = context(isa, 1) else { return };
    let reference = context(Isa::Scalar, 1).expect("scalar is always there");
    let more: Vec<Context> = (2..=4).filter_map(|threads| context(isa, threads)).collect();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let property = |d: Draw| {
        let drawn = Drawn::new(d);
        let all: Vec<&Sequence> = drawn.sequences.iter().collect();
        let got = drawn.run(&one, &all);
        let wanted = drawn.run(&reference, &all);
        close(NumberFormat::F32, &one_kind(&got), &one_kind(&wanted), 1e-4).map_err(TestCaseError::fail)?;
        for ctx in &more {
            prop_assert!(bits(&drawn.run(ctx, &all)) == bits(&got), "{} threads give other bits", ctx.pool().threads());
        }
        let (mut alone, mut single) = (Vec::new(), Vec::new());
        for (i, sequence) in all.iter().enumerate() {
            alone.extend(drawn.run(&more[i % more.len()], &[sequence]));
            single.extend(drawn.one_by_one(&more[i % more.len()], sequence));
        }
        prop_assert!(bits(&alone) == bits(&got), "sequences alone give other bits");
        prop_assert!(bits(&single) == bits(&got), "tokens one by one give other bits");
        Ok(())
    };
    if let Err(error) = runner.run(&draws(), property) {
        panic!("{isa}: {error}");
    }
}

#[test]
fn scalar() {
    check(Isa::Scalar);
}

#[test]
fn avx2() {
    check(Isa::Avx2);
}

#[test]
fn avx512() {
    check(Isa::Avx512);
}

#[test]
fn avx512bf16() {
    check(Isa::Avx512Bf16);
}

#[test]
fn amx() {
    check(Isa::Amx);
}

#[test]
fn weights_are_those_of_the_formula() {
    for isa in Isa::available() {
        let ctx = context(isa, 1).expect("it is available");
        for format in [NumberFormat::F32, NumberFormat::Bf16] {
            // scores 0 and ln 3: weights 1/4 and 3/4, and a window of 1 sees the last alone
            let mut cache = KvCache::new(1, 2, 5, format);
            cache.append(&[0.0, 7.0, 1.0, 7.0], &[4.0, 0.0, 0.0, 8.0]);
            let run = |scores: CachedScores| {
                let mut out = [f32::NAN; 2];
                let tokens = [CachedTokens { cache: &cache, tokens: 1 }];
                cached_attention(&ctx, &[2.0 * 3f32.ln(), 0.0], &tokens, 1, scores, &mut out);
                out
            };
            let all = run(CachedScores { scale: 0.5, soft_cap: None, window: None });
            assert!((all[0] - 1.0).abs() < 1e-5 && (all[1] - 6.0).abs() < 1e-5, "{isa}: {all:?}");
            assert_eq!(run(CachedScores { scale: 0.5, soft_cap: None, window: Some(1) }), [0.0, 8.0], "{isa}");
            assert_eq!(run(CachedScores { scale: 0.5, soft_cap: None, window: Some(0) }), [0.0, 0.0], "{isa}");
            // a cap far below the score: tanh(ln 3 / 0.01) is 1, so the scores are 0 and 0.01
            let capped = run(CachedScores { scale: 0.5, soft_cap: Some(0.01), window: None });
            let weight = 1.0 / (1.0 + 0.01f32.exp());
            assert!((capped[0] - 4.0 * weight).abs() < 1e-5, "{isa}: {capped:?}");
        }
    }
}

/// Against attention without a cache, of all tokens at once.
#[test]
fn it_agrees_with_attention_without_a_cache() {
    let mut d = Draw { batch: 0, a: 0, b: 0, c: 0, seed: 5, special: false, flush: false };
    for isa in Isa::available() {
        let ctx = context(isa, 2).expect("it is available");
        let (t, heads) = (70, Heads { heads: 6, kv_heads: 2, head_dim: 24 });
        let qkv = d.values(t * heads.row());
        let mask = Mask { causal: true, window: Some(33), globals: 0 };
        let mut wanted = vec![0.0; t * 6 * 24];
        attention(&ctx, NumberFormat::F32, &qkv, t, heads, None, mask, 0.2, &mut wanted);
        let part = |from: usize, len: usize| -> Vec<f32> {
            qkv.chunks_exact(heads.row()).flat_map(|row| row[from..from + len].iter().copied()).collect()
        };
        let mut cache = KvCache::new(2, 24, t, NumberFormat::F32);
        cache.append(&part(144, 48), &part(192, 48));
        let mut got = vec![0.0; wanted.len()];
        let scores = CachedScores { scale: 0.2, soft_cap: None, window: Some(33) };
        cached_attention(&ctx, &part(0, 144), &[CachedTokens { cache: &cache, tokens: t }], 6, scores, &mut got);
        close(NumberFormat::F32, &got, &wanted, 1e-5).expect("both are attention");
    }
}

#[test]
#[should_panic(expected = "3 tokens more than 2 of 4")]
fn more_tokens_than_fit_are_refused() {
    let mut cache = KvCache::new(1, 1, 4, NumberFormat::F32);
    cache.append(&[0.0; 2], &[0.0; 2]);
    cache.append(&[0.0; 3], &[0.0; 3]);
}

/// Against norms and turns as the formula reads, and `append`; on two sequences, in one call or token by token.
#[test]
fn joined_rows_are_normed_turned_and_appended() {
    let mut d = Draw { batch: 0, a: 0, b: 0, c: 0, seed: 11, special: false, flush: false };
    let (heads, kv, dim, pairs) = (4, 2, 24, 10);
    let wide = (heads + 2 * kv) * dim;
    for isa in Isa::available() {
        for (threads, format, interleaved, normed) in [
            (1, NumberFormat::F32, false, true),
            (3, NumberFormat::Bf16, true, true),
            (2, NumberFormat::Bf16, false, false),
        ] {
            let ctx = context(isa, threads).expect("it is available");
            let lens = [37, 20];
            let rows = lens[0] + lens[1];
            let (joined, gains, angles) = (d.values(rows * wide), d.values(2 * dim), d.values(rows * pairs));
            let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
            let made = |row: usize, head: &[f32], gain: &[f32]| {
                let mean = head.iter().map(|x| x * x).sum::<f32>() / dim as f32;
                let scale = if normed { 1.0 / (mean + 1e-5).sqrt() } else { 1.0 };
                let of = |i: usize| head[i] * scale * if normed { gain[i] } else { 1.0 };
                let mut out: Vec<f32> = (0..dim).map(of).collect();
                for p in 0..pairs {
                    let (a, b) = if interleaved { (2 * p, 2 * p + 1) } else { (p, p + pairs) };
                    let (cos, sin) = (cos[row * pairs + p], sin[row * pairs + p]);
                    (out[a], out[b]) = (of(a) * cos - of(b) * sin, of(b) * cos + of(a) * sin);
                }
                out
            };
            let (mut wanted, mut caches) = (Vec::new(), lens.map(|len| KvCache::new(kv, dim, len, format)));
            for (row, joined) in joined.chunks_exact(wide).enumerate() {
                let head = |h: usize| &joined[h * dim..(h + 1) * dim];
                (0..heads).for_each(|h| wanted.extend(made(row, head(h), &gains[..dim])));
                let keys: Vec<f32> = (heads..heads + kv).flat_map(|h| made(row, head(h), &gains[dim..])).collect();
                caches[usize::from(row >= lens[0])].append(&keys, &joined[(heads + kv) * dim..]);
            }
            let norms = normed.then_some(HeadGains { q: &gains[..dim], k: &gains[dim..], eps: 1e-5 });
            let attended = |caches: &[KvCache; 2], q: &[f32]| {
                let new = |i: usize| CachedTokens { cache: &caches[i], tokens: lens[i] };
                let mut out = vec![f32::NAN; q.len()];
                let scores = CachedScores { scale: 0.2, soft_cap: None, window: None };
                cached_attention(&ctx, q, &[new(0), new(1)], heads, scores, &mut out);
                out
            };
            let turns = |rows: std::ops::Range<usize>| HeadTurns {
                cos: &cos[rows.start * pairs..rows.end * pairs],
                sin: &sin[rows.start * pairs..rows.end * pairs],
                pairs,
                interleaved,
            };
            let mut got = lens.map(|len| KvCache::new(kv, dim, len, format));
            let [first, second] = &mut got;
            let mut both = [NewTokens { cache: first, tokens: lens[0] }, NewTokens { cache: second, tokens: lens[1] }];
            let mut q = vec![f32::NAN; rows * heads * dim];
            cached_append(&ctx, &joined, norms, Some(turns(0..rows)), &mut both, &mut q);
            close(NumberFormat::F32, &q, &wanted, 1e-5).expect("queries");
            // a bf16 key next to the middle of two may round to either
            let tolerance = if format == NumberFormat::F32 { 1e-5 } else { 4e-3 };
            close(NumberFormat::F32, &attended(&got, &q), &attended(&caches, &wanted), tolerance).expect("caches");
            let mut alone = lens.map(|len| KvCache::new(kv, dim, len, format));
            let mut single = vec![f32::NAN; q.len()];
            for row in 0..rows {
                let cache = &mut alone[usize::from(row >= lens[0])];
                let (joined, q) = (&joined[row * wide..][..wide], &mut single[row * heads * dim..][..heads * dim]);
                cached_append(&ctx, joined, norms, Some(turns(row..row + 1)), &mut [NewTokens { cache, tokens: 1 }], q);
            }
            assert!(bits(&single) == bits(&q), "{isa}: queries one by one");
            assert!(bits(&attended(&alone, &q)) == bits(&attended(&got, &q)), "{isa}: caches one by one");
        }
    }
}
