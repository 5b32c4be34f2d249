//! Tests of single properties of operators that drawn shapes do not reach or show: what is hidden, large shapes, wrong
//! lengths, operations that are counted. In: shapes written here. Out: a failed test, with its instruction set and
//! format.

use super::*;
use crate::vector::tile::counted;

/// What a query does not see changes no bit of what it gets, whatever stands there.
#[test]
fn hidden_keys_and_values_change_nothing() {
    let (t, heads) = (70, Heads { heads: 2, kv_heads: 1, head_dim: 24 });
    let mut draw = Draw { batch: 1, a: 0, b: 0, c: 0, seed: 11, special: false, flush: false };
    let qkv = draw.values(t * heads.row());
    let mask = Mask { causal: true, window: Some(9), globals: 2 };
    for (isa, value) in Isa::available().into_iter().flat_map(|isa| [f32::NAN, f32::INFINITY, 3e38].map(|v| (isa, v))) {
        let Some(ctx) = context(isa, 2) else { continue };
        let of = |qkv: &[f32]| {
            let mut out = vec![0.0; t * 48];
            attention(&ctx, NumberFormat::F32, qkv, t, heads, None, mask, 0.2, &mut out);
            bits(&out)
        };
        let mut other = qkv.to_vec();
        // the key and the value of token 40, which the first forty queries do not see, nor do the last twenty
        other[40 * heads.row() + 48..][..48].fill(value);
        let (plain, other) = (of(&qkv), of(&other));
        for i in (0..40).chain(49..t) {
            assert!(plain[i * 48..][..48] == other[i * 48..][..48], "{isa}: {value} behind the mask of query {i}");
        }
        assert!(plain[40 * 48..][..48] != other[40 * 48..][..48], "{isa}: {value} is seen by its own query");
    }
}

/// Attention of more tokens than a chunk of rows holds, with batches that share out evenly among threads and such that
/// do not.
#[test]
fn large_attention_is_its_product_and_attention() {
    let (t, k) = (230, 40);
    let mut draw = Draw { batch: 1, a: 0, b: 0, c: 0, seed: 5, special: false, flush: false };
    for (isa, format) in
        Isa::available().into_iter().skip(1).flat_map(|isa| [NumberFormat::F32, NumberFormat::Bf16].map(|f| (isa, f)))
    {
        for (batch, kv_heads, head_dim) in [(1, 8, 64), (3, 2, 15), (2, 3, 16)] {
            let Some(ctx) = context(isa, 2) else { continue };
            let heads = Heads { heads: 2 * kv_heads, kv_heads, head_dim };
            let (x, w) = (draw.values(batch * t * k), draw.values(heads.row() * k));
            let w: Vec<f32> = w.iter().map(|w| w / k as f32).collect();
            let mut out = vec![0.0; batch * t * heads.heads * head_dim];
            let packed = PackedHeads::pack(&ctx, format, &w, heads, k);
            projected_attention(&ctx, format, &x, &packed, t, None, Mask::default(), 0.3, &mut out);
            let (mut qkv, mut apart) = (vec![0.0; batch * t * heads.row()], vec![0.0; out.len()]);
            linear(&ctx, &x, &PackedLinear::pack(&ctx, format, &w, heads.row(), k), None, &mut qkv);
            attention(&ctx, format, &qkv, t, heads, None, Mask::default(), 0.3, &mut apart);
            assert!(bits(&out) == bits(&apart), "{isa} {format:?}: {batch} examples, {kv_heads} groups");
        }
    }
}

/// Shapes larger than a chunk of rows, which the drawn ones never reach.
#[test]
fn large_products_agree_and_keep_their_bits() {
    let (m, n, k) = (401, 70, 700);
    let reference = context(Isa::Scalar, 1).expect("scalar is always there");
    for format in [NumberFormat::F32, NumberFormat::Bf16, NumberFormat::Int8] {
        let mut d = Draw { batch: 1, a: 0, b: 0, c: 0, seed: 7, special: false, flush: false };
        let (x, w) = (d.values(m * k), d.values(n * k));
        let mut wanted = vec![0.0; m * n];
        linear(&reference, &x, &PackedLinear::pack(&reference, format, &w, n, k), None, &mut wanted);
        for isa in Isa::available() {
            let mut outs = Vec::new();
            for threads in 1..=3 {
                let Some(ctx) = context(isa, threads) else { return };
                let packed = PackedLinear::pack(&ctx, format, &w, n, k);
                let mut out = vec![0.0; m * n];
                linear(&ctx, &x, &packed, None, &mut out);
                // sums of 700 products of up to 4 each: 1e-6 of the largest partial sum; operands are rounded alike in
                // every format
                close(NumberFormat::F32, &out, &wanted, 1e-3).expect("agrees with the reference");
                let mut row = vec![0.0; n];
                for i in [0, 200, 400] {
                    linear(&ctx, &x[i * k..(i + 1) * k], &packed, None, &mut row);
                    assert_eq!(bits(&row), bits(&out[i * n..(i + 1) * n]), "{isa}: row {i} alone");
                }
                outs.push(bits(&out));
            }
            assert!(outs.iter().all(|out| *out == outs[0]), "{isa}: thread counts give other bits");
        }
    }
}

/// Gated MLPs whose k is longer than a slab and whose rows are more than a chunk: the bits of a row alone, and of any
/// number of threads.
#[test]
fn large_mlps_agree_and_keep_their_bits() {
    let reference = context(Isa::Scalar, 1).expect("scalar is always there");
    let (m, d, inner, t, width) = (401, 300, 600, 300, 70);
    for format in [NumberFormat::F32, NumberFormat::Bf16, NumberFormat::Int8] {
        let mut draw = Draw { batch: 1, a: 0, b: 0, c: 0, seed: 11, special: false, flush: false };
        let mut small =
            |len: usize, k: usize| -> Vec<f32> { draw.values(len).iter().map(|w| w / (k as f32).sqrt()).collect() };
        let (up, down, tokens_up, tokens_down) =
            (small(2 * inner * d, d), small(d * inner, inner), small(2 * inner * t, t), small(t * inner, inner));
        let (x, tokens) = (small(m * d, 4), small(2 * t * width, 4));
        let of = |ctx: &Context, rows: Range<usize>, examples: Range<usize>| {
            let pack = PackedLinear::pack(ctx, format, &down, d, inner);
            let mut out = pick(&x, &rows, d);
            gated_mlp(ctx, None, &PackedLinear::pack_gated(ctx, format, &up, inner, d), &pack, Some(1.0), &mut out);
            let pack = PackedTokens::pack(ctx, format, &tokens_down, t, inner);
            let mut mixed = pick(&tokens, &examples, t * width);
            let gated = PackedTokens::pack_gated(ctx, format, &tokens_up, inner, t);
            token_mlp(ctx, None, &gated, &pack, Some(1.0), width, &mut mixed);
            (out.to_vec(), mixed.to_vec())
        };
        let wanted = of(&reference, 0..m, 0..2);
        for isa in Isa::available() {
            let Some(one) = context(isa, 1) else { return };
            let got = of(&one, 0..m, 0..2);
            close(format, &got.0, &wanted.0, 1e-4).expect("features agree with the reference");
            close(format, &got.1, &wanted.1, 1e-4).expect("tokens agree with the reference");
            for threads in 2..=4 {
                let Some(ctx) = context(isa, threads) else { return };
                let ctx = ctx.by_columns(threads % 2 == 0);
                let more = of(&ctx, 0..m, 0..2);
                let same = bits(&more.0) == bits(&got.0) && bits(&more.1) == bits(&got.1);
                assert!(same, "{isa} {format:?}: {threads} threads give other bits");
            }
            for row in [0, 200, 400] {
                let alone = of(&one, row..row + 1, 1..2);
                assert!(bits(&alone.0) == bits(&got.0[row * d..(row + 1) * d]), "{isa} {format:?}: row {row} alone");
                assert!(bits(&alone.1) == bits(&got.1[t * width..]), "{isa} {format:?}: an example alone");
            }
        }
    }
}

/// Reduced formats are near full precision: what they are for.
#[test]
fn reduced_formats_are_near_f32() {
    let (m, d, inner) = (33, 64, 128);
    let mut draw = Draw { batch: 1, a: 0, b: 0, c: 0, seed: 3, special: false, flush: false };
    let (x, up, down) = (draw.values(m * d), draw.values(2 * inner * d), draw.values(inner * d));
    let small = |w: &[f32], k: usize| -> Vec<f32> { w.iter().map(|w| w / (k as f32).sqrt()).collect() };
    let (up, down) = (small(&up, d), small(&down, inner));
    for isa in Isa::available() {
        let Some(ctx) = context(isa, 2) else { continue };
        let of = |format: NumberFormat| {
            let up = PackedLinear::pack_gated(&ctx, format, &up, inner, d);
            let mut out = vec![0.0; m * d];
            gated_mlp(&ctx, Some(&x), &up, &PackedLinear::pack(&ctx, format, &down, d, inner), Some(1e-5), &mut out);
            out
        };
        let exact = of(NumberFormat::F32);
        for (format, limit) in [(NumberFormat::Bf16, 0.01), (NumberFormat::Int8, 0.03)] {
            let error = of(format).iter().zip(&exact).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            let largest = exact.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            assert!(error > 0.0 && error < limit * largest, "{isa} {format:?}: off by {error} of {largest}");
        }
    }
}

/// Wrong lengths are refused before anything is read or written.
#[test]
fn wrong_lengths_are_refused_by_name() {
    let ctx = context(Isa::detect(), 1).expect("the detected one is there");
    let heads = Heads { heads: 2, kv_heads: 1, head_dim: 4 };
    let f32 = NumberFormat::F32;
    let packed = PackedLinear::pack(&ctx, f32, &[0.0; 6], 2, 3);
    let gated = PackedLinear::pack_gated(&ctx, f32, &[0.0; 24], 3, 4);
    let down = PackedLinear::pack(&ctx, f32, &[0.0; 12], 4, 3);
    let tokens = [PackedTokens::pack_gated(&ctx, f32, &[0.0; 6], 3, 1), PackedTokens::pack(&ctx, f32, &[0.0; 3], 1, 3)];
    let short = RopeTables { cos: &[0.0; 3], sin: &[0.0; 4] };
    let int8 = PackedLinear::pack(&ctx, NumberFormat::Int8, &[0.0; 12], 4, 3);
    let grouped = PackedHeads::pack(&ctx, f32, &vec![0.0; heads.row() * 3], heads, 3);
    let project = |x: &[f32], rope: Option<RopeTables<'_>>, out: &mut [f32; 8]| {
        projected_attention(&ctx, f32, x, &grouped, 1, rope, Mask::default(), 1.0, out);
    };
    type Call<'a> = (&'a str, Box<dyn Fn(&mut [f32; 8]) + 'a>);
    let calls: Vec<Call> = vec![
        ("PackedLinear::pack", Box::new(|o| drop(PackedLinear::pack(&ctx, f32, o, 2, 3)))),
        ("PackedLinear::pack_gated", Box::new(|o| drop(PackedLinear::pack_gated(&ctx, f32, o, 2, 3)))),
        ("PackedTokens::pack_gated", Box::new(|o| drop(PackedTokens::pack_gated(&ctx, f32, o, 2, 3)))),
        ("PackedTokens::pack", Box::new(|o| drop(PackedTokens::pack(&ctx, f32, o, 2, 3)))),
        ("linear", Box::new(|o| linear(&ctx, &[0.0; 11], &packed, None, o))),
        ("linear", Box::new(|o| linear(&ctx, &[0.0; 12], &packed, Some(&[0.0; 3]), o))),
        ("linear", Box::new(|o| linear(&ctx, &[0.0; 8], &gated, None, o))),
        ("linear", Box::new(|o| linear_norm(&ctx, &[0.0; 11], &packed, 1e-5, o))),
        ("gated_mlp", Box::new(|o| gated_mlp(&ctx, Some(&[0.0; 7]), &gated, &down, None, o))),
        ("gated_mlp", Box::new(|o| gated_mlp(&ctx, None, &gated, &packed, None, o))),
        ("gated_mlp", Box::new(|o| gated_mlp(&ctx, None, &gated, &int8, None, o))),
        ("gated_mlp", Box::new(|o| gated_mlp(&ctx, None, &down, &down, None, o))),
        ("token_mlp", Box::new(|o| token_mlp(&ctx, Some(&[0.0; 7]), &tokens[0], &tokens[1], None, 4, o))),
        ("token_mlp", Box::new(|o| token_mlp(&ctx, None, &tokens[0], &tokens[0], None, 4, o))),
        ("token_mlp", Box::new(|o| token_mlp(&ctx, None, &tokens[0], &tokens[1], None, 3, o))),
        ("rms_norm", Box::new(|o| rms_norm(&ctx, &[0.0; 7], None, None, 1e-5, 4, o))),
        ("rms_norm", Box::new(|o| rms_norm_in_place(&ctx, o, None, Some(&[1.0; 3]), 1e-5, 4))),
        ("rms_norm_tokens", Box::new(|o| rms_norm_tokens(&ctx, o, None, 1e-5, 3, 2))),
        ("layer_norm", Box::new(|o| layer_norm(&ctx, o, None, Some(&[0.0; 3]), 1e-5, 4))),
        ("swiglu", Box::new(|o| swiglu(&ctx, &[0.0; 15], 4, o))),
        ("attention", Box::new(|o| attention(&ctx, f32, &[0.0; 16], 1, heads, Some(short), Mask::default(), 1.0, o))),
        ("attention", Box::new(|o| attention(&ctx, f32, &[0.0; 32], 1, heads, None, Mask::default(), 1.0, o))),
        ("PackedHeads::pack", Box::new(|o| drop(PackedHeads::pack(&ctx, f32, o, heads, 3)))),
        ("PackedHeads::pack", Box::new(|_| drop(PackedHeads::pack(&ctx, f32, &[], Heads { head_dim: 0, ..heads }, 3)))),
        ("projected_attention", Box::new(|o| project(&[0.0; 7], None, o))),
        ("projected_attention", Box::new(|o| project(&[0.0; 6], None, o))),
        ("projected_attention", Box::new(|o| project(&[0.0; 3], Some(short), o))),
        ("embed", Box::new(|o| embed(&ctx, &[0, 5], &[0.0; 8], 1.0, 4, o))),
        ("add", Box::new(|o| add(&ctx, &[0.0; 8], &[0.0; 7], o))),
        ("add_in_place", Box::new(|o| add_in_place(&ctx, o, &[0.0; 7]))),
        ("add_rows", Box::new(|o| add_rows(&ctx, o, &[0.0; 3]))),
        ("copy", Box::new(|o| copy(&ctx, &[0.0; 7], o))),
        ("copy_rows", Box::new(|o| copy_rows(&[0.0; 8], 4, o, 2, 3, 2))),
    ];
    for (name, call) in calls {
        let mut out = [0.5; 8];
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call(&mut out)));
        let payload = caught.expect_err(name);
        let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        assert!(text.is_some_and(|text| text.contains(&format!("{name}: "))), "{name} says {text:?}");
        assert_eq!(out, [0.5; 8], "{name} wrote before it looked");
    }
}

#[test]
fn copy_rows_slices_and_joins() {
    let x: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let mut out = [0.0; 6];
    copy_rows(&x[1..], 4, &mut out, 2, 2, 3);
    assert_eq!(out, [1.0, 2.0, 5.0, 6.0, 9.0, 10.0]);
}

/// What operators say they execute is what the tiles make, padding included; the scalar reference pads nothing.
#[test]
fn operations_are_those_that_the_tiles_make() {
    let heads = |head_dim| Heads { heads: 4, kv_heads: 2, head_dim };
    let windows = [(false, None, 0), (true, None, 0), (false, Some(3), 0), (true, Some(5), 0), (false, Some(2), 2)];
    for (isa, format) in Isa::available()
        .into_iter()
        .flat_map(|isa| [NumberFormat::F32, NumberFormat::Bf16, NumberFormat::Int8].map(|f| (isa, f)))
    {
        let (Some(ctx), Some(columns)) = (context(isa, 1), context(isa, 2)) else { return };
        let columns = columns.by_columns(true);
        let mut padded = 0;
        for (m, n, k) in [(1, 1, 5), (7, 33, 40), (30, 64, 17), (13, 96, 1), (2, 200, 9), (97, 32, 64)] {
            let exact = 2.0 * (m * n * k) as f64;
            let mut seen = |said: f64, exact: f64, whose: &str| {
                let made = 2.0 * counted::take() as f64;
                assert_eq!(
                    said,
                    if isa == Isa::Scalar { exact } else { made },
                    "{isa} {format:?} {whose}: {m} {n} {k}"
                );
                assert!(said >= exact);
                padded += usize::from(said > exact);
            };
            counted::take();
            let w = PackedLinear::pack(&ctx, format, &vec![1.0; n * k], n, k);
            linear(&ctx, &vec![1.0; m * k], &w, None, &mut vec![0.0; m * n]);
            seen(linear_operations(&ctx, m, &w), exact, "linear");
            // cutting columns adds nothing
            assert_eq!(linear_operations(&columns, m, &w), linear_operations(&ctx, m, &w));
            linear_norm(&ctx, &vec![1.0; m * k], &w, 1e-5, &mut vec![0.0; m * n]);
            seen(linear_norm_operations(&ctx, m, &w), exact, "linear_norm");
            // k features, n within
            let up = PackedLinear::pack_gated(&ctx, format, &vec![1.0; 2 * n * k], n, k);
            let down = PackedLinear::pack(&ctx, format, &vec![1.0; n * k], k, n);
            gated_mlp(&ctx, None, &up, &down, None, &mut vec![1.0; m * k]);
            seen(gated_mlp_operations(&ctx, m, &up, &down), 3.0 * exact, "gated_mlp");
            assert_eq!(gated_mlp_operations(&columns, m, &up, &down), gated_mlp_operations(&ctx, m, &up, &down));
            // k tokens, n within, m features, two examples
            let up = PackedTokens::pack_gated(&ctx, format, &vec![1.0; 2 * n * k], n, k);
            let down = PackedTokens::pack(&ctx, format, &vec![1.0; n * k], k, n);
            token_mlp(&ctx, None, &up, &down, None, m, &mut vec![1.0; 2 * k * m]);
            seen(token_mlp_operations(&ctx, 2, &up, &down, m), 6.0 * exact, "token_mlp");
            for (causal, window, globals) in windows {
                let (t, heads, mask) = (m, heads(k), Mask { causal, window, globals });
                attention(
                    &ctx,
                    format,
                    &vec![1.0; t * heads.row()],
                    t,
                    heads,
                    None,
                    mask,
                    1.0,
                    &mut vec![0.0; t * 4 * k],
                );
                let pairs = (0..t * t).filter(|p| {
                    let (i, j) = (p / t, p % t);
                    let global = window.is_some() && (i < globals || j < globals);
                    (!causal || j <= i) && (global || window.is_none_or(|w| i.abs_diff(j) < w))
                });
                seen(
                    attention_operations(&ctx, format, t, heads, mask),
                    4.0 * (pairs.clone().count() * 4 * k) as f64,
                    "attention",
                );
                let w = PackedHeads::pack(&ctx, format, &vec![1.0; heads.row() * n], heads, n);
                let mut out = vec![0.0; t * 4 * k];
                projected_attention(&ctx, format, &vec![1.0; t * n], &w, t, None, mask, 1.0, &mut out);
                let exact = 4 * pairs.count() * 4 * k + 2 * t * n * heads.row();
                let said = projected_attention_operations(&ctx, format, &w, t, mask);
                seen(said, exact as f64, "projected_attention");
            }
        }
        assert_eq!(padded > 0, isa != Isa::Scalar, "{isa}: shapes that do not fill a panel must show");
    }
}

#[test]
fn rows_of_a_table_are_what_products_multiply_with() {
    let mut d = Draw { batch: 0, a: 0, b: 0, c: 0, seed: 9, special: false, flush: false };
    for isa in Isa::available() {
        let ctx = context(isa, 2).expect("it is available");
        let (n, k) = (37, 21);
        let w = d.values(n * k);
        for format in [NumberFormat::F32, NumberFormat::Bf16, NumberFormat::Int8] {
            let table = PackedLinear::pack(&ctx, format, &w, n, k);
            let ids: Vec<u32> = (0..n as u32).rev().collect();
            let mut rows = vec![f32::NAN; n * k];
            linear_rows(&ctx, &table, &ids, 2.0, &mut rows);
            // a product with each unit vector is a column of the weight
            let units: Vec<f32> = (0..k * k).map(|i| if i % (k + 1) == 0 { 1.0 } else { 0.0 }).collect();
            let mut columns = vec![f32::NAN; k * n];
            linear(&ctx, &units, &table, None, &mut columns);
            for (j, row) in rows.chunks_exact(k).rev().enumerate() {
                for (i, twice) in row.iter().enumerate() {
                    let product = 2.0 * columns[i * n + j];
                    let most = if format == NumberFormat::Int8 { 1e-6 * product.abs() } else { 0.0 };
                    assert!((twice - product).abs() <= most, "{isa}, {format:?}, row {j}: {twice}, {product}");
                }
            }
        }
    }
}
