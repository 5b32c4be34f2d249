//! The operators' tests, made from one table. In: an operator's case, which draws its own shapes and data. Out: for
//! each instruction set, agreement with the scalar reference, and the same bits for a row alone or in a batch and for
//! any number of threads.

use std::io::Write as _;
use std::ops::{Deref, DerefMut, Range};

use proptest::prelude::*;

use crate::*;

mod single;

/// What proptest draws and shrinks: sizes, a seed for the values, and whether NaN, infinities and denormals are among
/// them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    pub(crate) batch: usize,
    pub(crate) a: usize,
    pub(crate) b: usize,
    pub(crate) c: usize,
    pub(crate) seed: u64,
    pub(crate) special: bool,
    /// Zeros in the place of denormals: bf16's products take them for zeros, and a zero times infinity is NaN where a
    /// denormal times it is not.
    pub(crate) flush: bool,
}

pub(crate) fn draws() -> impl Strategy<Value = Draw> {
    let size = || prop_oneof![1 => Just(0usize), 8 => 1..70usize];
    (0..9usize, size(), size(), size(), any::<u64>(), any::<bool>()).prop_map(|(batch, a, b, c, seed, special)| Draw {
        batch,
        a,
        b,
        c,
        seed,
        special,
        flush: false,
    })
}

/// Values that start at an odd place in memory, so that no kernel can count on alignment.
pub(crate) struct Values {
    memory: Vec<f32>,
    offset: usize,
}

impl Deref for Values {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.memory[self.offset..]
    }
}

impl DerefMut for Values {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.offset..]
    }
}

impl Draw {
    pub(crate) fn next(&mut self) -> u64 {
        // splitmix64
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `len` values in -2..2, one in 64 of them special if so drawn.
    pub(crate) fn values(&mut self, len: usize) -> Values {
        let offset = (self.next() % 4) as usize;
        let mut memory = vec![f32::NAN; offset];
        for _ in 0..len {
            let bits = self.next();
            let plain = (bits >> 40) as f32 / (1 << 22) as f32 - 2.0;
            let specials = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, -3e-42, -0.0, 0.0, -90.0];
            let special = self.special && bits.is_multiple_of(64);
            let value = if special { specials[(bits >> 8) as usize % specials.len()] } else { plain };
            memory.push(if self.flush && value.is_subnormal() { 0.0 } else { value });
        }
        Values { memory, offset }
    }

    /// An output that holds NaN before it is written.
    pub(crate) fn out(&mut self, len: usize) -> Values {
        let offset = (self.next() % 4) as usize;
        Values { memory: vec![f32::NAN; offset + len], offset }
    }
}

/// An operator's case: draws all inputs for `draw.batch` rows, then runs the operator on the rows asked for and returns
/// their output.
type Case = fn(&Context, NumberFormat, Draw, Range<usize>) -> Vec<f32>;

/// The rows `rows` of `x`, rows of `len`.
fn pick(x: &[f32], rows: &Range<usize>, len: usize) -> Values {
    Values { memory: x[rows.start * len..rows.end * len].to_vec(), offset: 0 }
}

fn linear_case(ctx: &Context, format: NumberFormat, mut d: Draw, rows: Range<usize>) -> Vec<f32> {
    // many rows, so that every height of a tile is met
    d.batch *= 1 + d.c % 9;
    let rows = rows.start * (1 + d.c % 9)..rows.end * (1 + d.c % 9);
    let (n, k) = (d.a, d.b);
    let (x, w, bias) = (d.values(d.batch * k), d.values(n * k), d.values(n));
    let packed = PackedLinear::pack(ctx, format, &w, n, k);
    assert!(packed.bytes() >= n * k);
    let mut out = d.out(rows.len() * n);
    linear(ctx, &pick(&x, &rows, k), &packed, d.c.is_multiple_of(2).then_some(&*bias), &mut out);
    out.to_vec()
}

fn linear_norm_case(ctx: &Context, format: NumberFormat, mut d: Draw, rows: Range<usize>) -> Vec<f32> {
    let (n, k) = (d.a + 1, d.b + 1);
    let (x, w, residual) = (d.values(d.batch * k), d.values(n * k), d.values(d.batch * n));
    let packed = PackedLinear::pack(ctx, format, &w, n, k);
    let mut out = pick(&residual, &rows, n);
    linear_norm(ctx, &pick(&x, &rows, k), &packed, 1.0, &mut out);
    out.to_vec()
}

/// Whatever is not finite as NaN: a weight of attention or a silu that is denormal in the scalar reference is 0 here,
/// and 0 times an infinite value is NaN.
fn one_kind(out: &[f32]) -> Vec<f32> {
    out.iter().map(|x| if x.is_finite() { *x } else { f32::NAN }).collect()
}

/// [`one_kind`] of what was normed along `t` values that are `step` apart: where one of them is not finite all are NaN, since a NaN reaches
/// all that it is normed with, and an infinity makes zeros of the others.
fn one_kind_normed(out: &[f32], t: usize, step: usize) -> Vec<f32> {
    let mut out = one_kind(out);
    for all in out.chunks_exact_mut(t * step) {
        for column in 0..step {
            if (0..t).any(|i| all[i * step + column].is_nan()) {
                (0..t).for_each(|i| all[i * step + column] = f32::NAN);
            }
        }
    }
    out
}

fn gated_mlp_case(ctx: &Context, format: NumberFormat, mut d: Draw, rows: Range<usize>) -> Vec<f32> {
    d.batch *= 1 + d.c % 7;
    let rows = rows.start * (1 + d.c % 7)..rows.end * (1 + d.c % 7);
    let (n, inner) = (d.a + 1, d.b);
    let (x, up, mut down) = (d.values(d.batch * n), d.values(2 * inner * n), d.values(inner * n));
    // as after training: what is added to the residual is no larger than it, or a norm would enlarge rounding
    down.iter_mut().for_each(|w| *w *= 0.05);
    let (up, down) =
        (PackedLinear::pack_gated(ctx, format, &up, inner, n), PackedLinear::pack(ctx, format, &down, n, inner));
    let norm = d.c.is_multiple_of(2).then_some(1.0);
    let (mut own, x) = (pick(&x, &rows, n), pick(&x, &rows, n));
    let mut out = d.out(x.len());
    gated_mlp(ctx, Some(&x), &up, &down, norm, &mut out);
    gated_mlp(ctx, None, &up, &down, norm, &mut own);
    assert!(bits(&own) == bits(&out), "in place and out of place differ");
    if norm.is_some() { one_kind_normed(&out, n, 1) } else { one_kind(&out) }
}

fn token_mlp_case(ctx: &Context, format: NumberFormat, d: Draw, rows: Range<usize>) -> Vec<f32> {
    let norm = d.b.is_multiple_of(2).then_some(1.0);
    let out = token_mlp_outputs(ctx, format, d, rows, norm);
    if norm.is_some() { one_kind_normed(&out, d.a + 1, d.c + 1) } else { one_kind(&out) }
}

fn token_mlp_outputs(
    ctx: &Context,
    format: NumberFormat,
    mut d: Draw,
    rows: Range<usize>,
    norm: Option<f32>,
) -> Vec<f32> {
    let (t, inner, width) = (d.a + 1, d.b, d.c + 1);
    let (x, up, mut down) = (d.values(d.batch * t * width), d.values(2 * inner * t), d.values(t * inner));
    // as after training: what is added to the residual is no larger than it, or a norm would enlarge rounding
    down.iter_mut().for_each(|w| *w *= 0.05);
    let (up, down) =
        (PackedTokens::pack_gated(ctx, format, &up, inner, t), PackedTokens::pack(ctx, format, &down, t, inner));
    let (mut own, x) = (pick(&x, &rows, t * width), pick(&x, &rows, t * width));
    let mut out = d.out(x.len());
    token_mlp(ctx, Some(&x), &up, &down, norm, width, &mut out);
    token_mlp(ctx, None, &up, &down, norm, width, &mut own);
    assert!(bits(&own) == bits(&out), "in place and out of place differ");
    out.to_vec()
}

fn rms_norm_case(ctx: &Context, _: NumberFormat, mut d: Draw, rows: Range<usize>) -> Vec<f32> {
    let n = d.a * 3 + 1;
    let (x, residual, gain) = (d.values(d.batch * n), d.values(d.batch * n), d.values(n));
    let (mut x, residual) = (pick(&x, &rows, n), pick(&residual, &rows, n));
    let residual = d.b.is_multiple_of(2).then_some(&*residual);
    let gain = d.c.is_multiple_of(2).then_some(&*gain);
    let mut out = d.out(x.len());
    rms_norm(ctx, &x, residual, gain, 1e-5, n, &mut out);
    rms_norm_in_place(ctx, &mut x, residual, gain, 1e-5, n);
    assert!(bits(&x) == bits(&out), "in place and out of place differ");
    out.to_vec()
}

fn rms_norm_tokens_case(ctx: &Context, _: NumberFormat, mut d: Draw, rows: Range<usize>) -> Vec<f32> {
    let (t, width) = (d.a + 1, d.b * 3 + 1);
    let (x, residual) = (d.values(d.batch * t * width), d.values(d.batch * t * width));
    let (mut x, residual) = (pick(&x, &rows, t * width), pick(&residual, &rows, t * width));
    rms_norm_tokens(ctx, &mut x, d.c.is_multiple_of(2).then_some(&*residual), 1e-5, t, width);
    x.to_vec()
}

fn layer_norm_case(ctx: &Context, _: NumberFormat, mut d: Draw, rows: Range<usize>) -> Vec<f32> {
    let n = d.a * 3 + 1;
    let (x, gain, bias) = (d.values(d.batch * n), d.values(n), d.values(n));
    let mut x = pick(&x, &rows, n);
    let bias = d.c.is_multiple_of(2).then_some(&*bias);
    layer_norm(ctx, &mut x, d.b.is_multiple_of(2).then_some(&*gain), bias, 1e-5, n);
    x.to_vec()
}

fn swiglu_case(ctx: &Context, _: NumberFormat, mut d: Draw, rows: Range<usize>) -> Vec<f32> {
    let inner = d.a * 5;
    let x = d.values(d.batch * 2 * inner);
    let mut out = d.out(rows.len() * inner);
    swiglu(ctx, &pick(&x, &rows, 2 * inner), inner, &mut out);
    out.to_vec()
}

fn activation_case(ctx: &Context, _: NumberFormat, mut d: Draw, rows: Range<usize>) -> Vec<f32> {
    let kinds = [ActivationKind::Silu, ActivationKind::Gelu, ActivationKind::GeluTanh, ActivationKind::Relu];
    let mut x = d.values(d.batch * d.a);
    // up to where each is linear
    x.iter_mut().for_each(|x| *x *= (1 + d.c) as f32 / 5.0);
    let mut x = pick(&x, &rows, d.a);
    activation(ctx, kinds[d.b % 4], &mut x);
    x.to_vec()
}

fn gate_case(ctx: &Context, _: NumberFormat, mut d: Draw, rows: Range<usize>) -> Vec<f32> {
    let kinds = [ActivationKind::Silu, ActivationKind::Gelu, ActivationKind::GeluTanh, ActivationKind::Relu];
    let (mut x, mut up) = (d.values(d.batch * d.a * 40), d.values(d.batch * d.a * 40));
    // a large one would enlarge rounding
    up.iter_mut().filter(|up| **up == -90.0).for_each(|up| *up = 1.0);
    // up to where each is linear
    x.iter_mut().for_each(|x| *x *= (1 + d.c) as f32 / 5.0);
    let (mut x, up) = (pick(&x, &rows, d.a * 40), pick(&up, &rows, d.a * 40));
    let halves = x.chunks_exact((d.a * 40).max(1)).zip(up.chunks_exact((d.a * 40).max(1)));
    let (joined, mut out) = (halves.flat_map(|(x, up)| [x, up].concat()).collect::<Vec<f32>>(), d.out(x.len()));
    gate(ctx, kinds[d.b % 4], &mut x, &up);
    if d.a > 0 && kinds[d.b % 4] != ActivationKind::Silu {
        gated(ctx, kinds[d.b % 4], &joined, d.a * 40, &mut out);
        assert!(bits(&out) == bits(&x), "halves of rows and slices apart differ");
    }
    one_kind(&x)
}

/// Heads from a draw: groups of one to three query heads.
fn heads(d: Draw, head_dim: usize) -> Heads {
    let kv_heads = 1 + d.b % 3;
    Heads { heads: kv_heads * (1 + d.c % 3), kv_heads, head_dim }
}

fn attention_case(ctx: &Context, format: NumberFormat, mut d: Draw, rows: Range<usize>) -> Vec<f32> {
    let (t, heads) = (1 + d.a, heads(d, 1 + d.c));
    let window = [None, Some(d.b), Some(3)][(d.seed / 2 % 3) as usize];
    let mask = Mask { causal: d.seed.is_multiple_of(2), window, globals: (d.seed / 6 % 4) as usize };
    let qkv = d.values(d.batch * t * heads.row());
    // angles: other tables would make scores so large that only one key counts
    let angles = d.values(t * heads.head_dim);
    let table =
        |f: fn(f32) -> f32| angles.iter().map(|x| if x.is_finite() { f(*x) } else { 1.0 }).collect::<Vec<f32>>();
    let (cos, sin) = (table(f32::cos), table(f32::sin));
    let rope = RopeTables { cos: &cos, sin: &sin };
    let rope = (d.c % 4 == 1).then_some(rope);
    // a scale that is not positive has a softmax of its own, which takes any score of minus infinity for that of a
    // hidden key: finite values alone
    let scale = if d.special { 0.3 } else { [0.3, 0.3, 0.0, -0.3][d.b % 4] };
    let mut out = d.out(rows.len() * t * heads.heads * heads.head_dim);
    attention(ctx, format, &pick(&qkv, &rows, t * heads.row()), t, heads, rope, mask, scale, &mut out);
    one_kind(&out)
}

fn projected_attention_case(ctx: &Context, format: NumberFormat, mut d: Draw, rows: Range<usize>) -> Vec<f32> {
    let (t, k, heads) = (1 + d.a, 1 + d.b, heads(d, 2 * (1 + d.c / 2)));
    let mask = Mask { causal: d.seed.is_multiple_of(2), window: d.seed.is_multiple_of(3).then_some(d.c), globals: 1 };
    let x = d.values(d.batch * t * k);
    let x = pick(&x, &rows, t * k);
    // scores that leave more than one key a weight
    let w: Vec<f32> = d.values(heads.row() * k).iter().map(|w| w / k as f32).collect();
    let (cos, sin) = (vec![0.6; t * heads.head_dim], vec![0.8; t * heads.head_dim]);
    let rope = (d.c % 4 < 2).then_some(RopeTables { cos: &cos, sin: &sin });
    let packed = PackedHeads::pack(ctx, format, &w, heads, k);
    let mut out = d.out(rows.len() * t * heads.heads * heads.head_dim);
    projected_attention(ctx, format, &x, &packed, t, rope, mask, 0.3, &mut out);
    // in two steps
    let mut qkv = d.out(rows.len() * t * heads.row());
    linear(ctx, &x, &PackedLinear::pack(ctx, format, &w, heads.row(), k), None, &mut qkv);
    let mut apart = d.out(out.len());
    attention(ctx, format, &qkv, t, heads, rope, mask, 0.3, &mut apart);
    assert!(bits(&out) == bits(&apart), "the product and attention one after the other give other bits");
    one_kind(&out)
}

fn elementwise_case(ctx: &Context, _: NumberFormat, mut d: Draw, rows: Range<usize>) -> Vec<f32> {
    let n = d.a + 1;
    let (x, table, block) = (d.values(d.batch * n), d.values((1 + d.b) * n), d.values(n));
    let x = pick(&x, &rows, n);
    let ids: Vec<u32> = (0..d.batch).map(|_| (d.next() % (1 + d.b as u64)) as u32).collect();
    let mut out = d.out(x.len());
    embed(ctx, &ids[rows], &table, 1.5, n, &mut out);
    add_in_place(ctx, &mut out, &x);
    add_rows(ctx, &mut out, &block);
    scale(ctx, &mut out, 0.7);
    let mut copied = d.out(x.len());
    copy(ctx, &out, &mut copied);
    add(ctx, &copied, &x, &mut out);
    out.to_vec()
}

pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// The same class of value, and finite values within `tolerance`, relative above 1. In a format that rounds, two
/// hundredths of the largest value are allowed, since a sum that ends on the other side of a tie moves everything after
/// it.
pub(crate) fn close(format: NumberFormat, got: &[f32], wanted: &[f32], tolerance: f32) -> Result<(), String> {
    let largest = wanted.iter().filter(|w| w.is_finite()).fold(1.0f32, |most, w| most.max(w.abs()));
    let rounding = if format == NumberFormat::F32 { 0.0 } else { 0.02 * largest };
    if got.len() != wanted.len() {
        return Err(format!("{} values instead of {}", got.len(), wanted.len()));
    }
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        let same = if w.is_finite() {
            (g - w).abs() <= tolerance * w.abs().max(1.0) + rounding
        } else if format != NumberFormat::F32 {
            // which kind hangs on the order of sums and on what is rounded to zero
            !g.is_finite()
        } else {
            g == w || w.is_nan() && g.is_nan()
        };
        if !same {
            return Err(format!("value {i}: {g:e} instead of {w:e}"));
        }
    }
    Ok(())
}

/// A context that splits the smallest work; None, with a line on stderr, where the instruction set is absent.
pub(crate) fn context(isa: Isa, threads: usize) -> Option<Context> {
    let ctx = Context::new(threads, isa).map(|ctx| ctx.with_grain(1));
    // past the harness, which would hide what a passing test prints
    ctx.inspect_err(|error| drop(writeln!(std::io::stderr(), "NOT TESTED on this machine: {error}"))).ok()
}

/// The whole check of one case on one instruction set.
fn check(isa: Isa, format: NumberFormat, case: Case, tolerance: f32) {
    let Some(one) = context(isa, 1) else { return };
    let reference = context(Isa::Scalar, 1).expect("scalar is always there");
    let splits = (2..=4).flat_map(|threads| [(threads, false), (threads, true)]);
    let more: Vec<Context> =
        splits.filter_map(|(threads, columns)| Some(context(isa, threads)?.by_columns(columns))).collect();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let property = |d: Draw| {
        let d = Draw { flush: format != NumberFormat::F32, ..d };
        let got = case(&one, format, d, 0..d.batch);
        close(format, &got, &case(&reference, format, d, 0..d.batch), tolerance).map_err(TestCaseError::fail)?;
        for ctx in &more {
            let threads = ctx.pool().threads();
            let same = bits(&case(ctx, format, d, 0..d.batch)) == bits(&got);
            prop_assert!(same, "{threads} threads (by columns: {}) give other bits", ctx.columns());
        }
        let mut alone = Vec::new();
        for row in 0..d.batch {
            alone.extend(case(&more[row % more.len()], format, d, row..row + 1));
        }
        prop_assert!(bits(&alone) == bits(&got), "rows alone give other bits");
        Ok(())
    };
    if let Err(error) = runner.run(&draws(), property) {
        panic!("{isa}: {error}");
    }
}

/// A gate below -88 times an infinite value is NaN where the scalar reference has an infinity (it has a denormal there, not 0), and the norm
/// gives either to the tokens beside it: NaN here, zeros there. Nothing else may differ.
#[test]
fn what_is_normed_with_an_infinity_is_of_one_kind() {
    let d = Draw { batch: 8, a: 48, b: 2, c: 63, seed: 18_351_344_775_231_648_081, special: true, flush: false };
    let (t, width) = (d.a + 1, d.c + 1);
    let outputs = |isa: Isa, norm: Option<f32>| {
        let ctx = context(isa, 1).expect("it is available");
        token_mlp_outputs(&ctx, NumberFormat::F32, d, 0..d.batch, norm)
    };
    let (before, wanted) = (outputs(Isa::Scalar, None), outputs(Isa::Scalar, Some(1.0)));
    for isa in Isa::available() {
        let (plain, normed) = (outputs(isa, None), outputs(isa, Some(1.0)));
        close(NumberFormat::F32, &one_kind(&plain), &one_kind(&before), 1e-3).expect("without a norm");
        let mut seen = 0;
        for (i, (got, wanted)) in normed.iter().zip(&wanted).enumerate() {
            if got.is_nan() && !wanted.is_nan() {
                let column = |all: &[f32]| -> Vec<f32> {
                    all[i / (t * width) * t * width..].iter().skip(i % width).step_by(width).take(t).copied().collect()
                };
                seen += 1;
                assert!(*wanted == 0.0 && column(&before).iter().any(|x| x.is_infinite()), "{isa}: {i} is {wanted}");
            }
        }
        assert_eq!(seen > 0, isa != Isa::Scalar, "{isa}: the draw has such a column");
    }
}

/// The table: an operator's line here makes its tests, for every instruction set and each of its formats.
macro_rules! operators {
    ($($format:ident { $($name:ident: $case:ident within $tolerance:literal;)* })*) => {
        operators!(@isa scalar Scalar: $($format: $($name $case $tolerance)*;)*);
        operators!(@isa avx2 Avx2: $($format: $($name $case $tolerance)*;)*);
        operators!(@isa avx512 Avx512: $($format: $($name $case $tolerance)*;)*);
        operators!(@isa avx512bf16 Avx512Bf16: $($format: $($name $case $tolerance)*;)*);
        operators!(@isa amx Amx: $($format: $($name $case $tolerance)*;)*);
    };
    (@isa $module:ident $isa:ident: $($format:ident: $($name:ident $case:ident $tolerance:literal)*;)*) => {
        mod $module {
            $(#[allow(non_snake_case)]
            mod $format {
                $(#[test] fn $name() {
                    crate::tests::check(crate::Isa::$isa, crate::NumberFormat::$format, crate::tests::$case, $tolerance);
                })*
            })*
        }
    };
}

operators! {
    F32 {
        linear: linear_case within 1e-4;
        linear_norm: linear_norm_case within 1e-4;
        gated_mlp: gated_mlp_case within 1e-3;
        token_mlp: token_mlp_case within 1e-3;
        rms_norm: rms_norm_case within 3e-6;
        rms_norm_tokens: rms_norm_tokens_case within 3e-6;
        layer_norm: layer_norm_case within 1e-5;
        swiglu: swiglu_case within 2e-6;
        activation: activation_case within 2e-6;
        gate: gate_case within 4e-6;
        attention: attention_case within 1e-4;
        projected_attention: projected_attention_case within 1e-4;
        elementwise: elementwise_case within 1e-6;
    }
    Bf16 {
        linear: linear_case within 1e-4;
        linear_norm: linear_norm_case within 1e-4;
        gated_mlp: gated_mlp_case within 1e-3;
        token_mlp: token_mlp_case within 1e-3;
        attention: attention_case within 1e-3;
        projected_attention: projected_attention_case within 1e-3;
    }
    Int8 {
        linear: linear_case within 1e-5;
        linear_norm: linear_norm_case within 1e-4;
        gated_mlp: gated_mlp_case within 1e-3;
        token_mlp: token_mlp_case within 1e-3;
        projected_attention: projected_attention_case within 1e-3;
    }
}
