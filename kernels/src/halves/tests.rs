//! Tests of products with weights in f16. In: random rows. Out: for each instruction set the bits of the scalar reference, whatever
//! the batch and the threads, and the weights as IEEE 754 defines them.

use proptest::prelude::*;

use crate::blocks::format::half;
use crate::tests::{Draw, bits, context, draws};
use crate::*;

/// Rows `[n, k]` of ordinary size, or now and then of any bits.
fn rows(d: &mut Draw, n: usize, k: usize) -> Vec<u8> {
    let value = |d: &mut Draw| {
        let any = d.special && d.next().is_multiple_of(32);
        // 2^-7 to 2^-3, either sign
        if any { d.next() as u16 } else { (0x2000 + (d.next() % 0x1000) as u16) | (d.next() as u16 & 0x8000) }
    };
    (0..n * k).flat_map(|_| value(d).to_le_bytes()).collect()
}

#[test]
fn every_instruction_set_has_the_bits_of_the_reference() {
    let reference = context(Isa::Scalar, 1).expect("scalar is always there");
    for isa in Isa::available() {
        let contexts: Vec<Context> = (1..=4).filter_map(|threads| context(isa, threads)).collect();
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let property = |mut d: Draw| {
            let (n, k, m) = (d.a, d.b, d.batch * (1 + d.c % 4));
            let (w, x) = (rows(&mut d, n, k), d.values(m * k));
            let product = |ctx: &Context, x: &[f32], m: usize| {
                let mut out = vec![f32::NAN; m * n];
                halves_linear(ctx, x, &PackedHalves::pack(ctx, &w, n, k), &mut out);
                bits(&out)
            };
            let wanted = product(&reference, &x, m);
            for ctx in &contexts {
                prop_assert!(product(ctx, &x, m) == wanted, "{} threads give other bits", ctx.pool().threads());
            }
            let alone: Vec<u32> = (0..m).flat_map(|i| product(&contexts[0], &x[i * k..(i + 1) * k], 1)).collect();
            prop_assert!(alone == wanted, "rows alone give other bits");
            Ok(())
        };
        if let Err(error) = runner.run(&draws(), property) {
            panic!("{isa}: {error}");
        }
    }
}

#[test]
fn sums_are_those_of_the_weights() {
    let mut d = Draw { batch: 0, a: 0, b: 0, c: 0, seed: 5, special: false, flush: false };
    let ctx = context(Isa::detect(), 2).expect("it is detected");
    let (n, k) = (35, 77);
    let (w, x) = (rows(&mut d, n, k), d.values(k));
    let packed = PackedHalves::pack(&ctx, &w, n, k);
    assert!((packed.n(), packed.k()) == (n, k) && packed.bytes() == 48 * k * 2);
    let mut out = vec![0.0; n];
    halves_linear(&ctx, &x, &packed, &mut out);
    for (out, row) in out.iter().zip(w.chunks_exact(2 * k)) {
        let weights = row.chunks_exact(2).map(|b| f64::from(half(u16::from_le_bytes([b[0], b[1]]))));
        let (mut sum, mut size) = (0.0, 0.0);
        weights.zip(&*x).for_each(|(w, x)| (sum, size) = (sum + w * f64::from(*x), size + (w * f64::from(*x)).abs()));
        assert!((f64::from(*out) - sum).abs() <= 1e-6 * size, "{out} for {sum}");
    }
    let mut table = vec![0.0; 2 * k];
    halves_rows(&ctx, &packed, &[34, 3], 2.0, &mut table);
    for (at, row) in [(0, 34), (k, 3)] {
        for i in 0..k {
            let own = &w[2 * (row * k + i)..];
            assert_eq!(table[at + i], 2.0 * half(u16::from_le_bytes([own[0], own[1]])), "row {row}, {i}");
        }
    }
}

#[test]
#[should_panic(expected = "id 2 in a table of 2 rows")]
fn ids_beyond_the_table_are_refused() {
    let ctx = Context::new(1, Isa::Scalar).expect("scalar is always there");
    halves_rows(&ctx, &PackedHalves::zeros(2, 3), &[2], 1.0, &mut [0.0; 3]);
}
