//! Tests of products with blocks. In: random bytes as a file may have them. Out: for each instruction set the bits of the
//! scalar reference, whatever the batch and the threads; values of the published formats; and closeness to products with
//! the weights as f32.

use proptest::prelude::*;

use super::format::half;
use crate::tests::{Draw, bits, context, draws};
use crate::*;

/// Rows `[n, k]` of random integers; scales of ordinary size, or now and then of any bits.
pub(crate) fn rows(d: &mut Draw, format: BlockFormat, n: usize, k: usize) -> Vec<u8> {
    let blocks = n * k / format.block_len();
    let mut bytes: Vec<u8> = (0..blocks * format.block_bytes()).map(|_| d.next() as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for at in scales(format) {
            let any = d.special && d.next().is_multiple_of(16);
            // 2^-7 to 2^-3, either sign
            let scale =
                if any { d.next() as u16 } else { (0x2000 + (d.next() % 0x1000) as u16) | (d.next() as u16 & 0x8000) };
            block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

/// Where in the file's blocks the f16 are.
fn scales(format: BlockFormat) -> &'static [usize] {
    match format {
        BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 => &[0],
        BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
        BlockFormat::Q6K => &[208],
        BlockFormat::Q2K => &[80, 82],
        BlockFormat::Q3K => &[108],
    }
}

/// What a draw says of a product: n, k, and the most rows.
fn shape(d: Draw, format: BlockFormat) -> (usize, usize, usize) {
    (d.a, d.b % 5 * format.block_len(), d.batch * (1 + d.c % 9))
}

fn check(isa: Isa) {
    let Some(one) = context(isa, 1) else { return };
    let reference = context(Isa::Scalar, 1).expect("scalar is always there");
    let more: Vec<Context> = (2..=4).filter_map(|threads| context(isa, threads)).collect();
    for format in BlockFormat::ALL {
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let property = |mut d: Draw| {
            let (n, k, m) = shape(d, format);
            let (w, x) = (rows(&mut d, format, n, k), d.values(m * k));
            let product = |ctx: &Context, x: &[f32], m: usize| {
                let packed = PackedBlocks::pack(ctx, format, &w, n, k);
                let mut out = d.clone().out(m * n);
                blocks_linear(ctx, x, &packed, &mut out);
                bits(&out)
            };
            let wanted = product(&reference, &x, m);
            prop_assert!(product(&one, &x, m) == wanted, "other bits than the scalar reference's");
            for ctx in &more {
                prop_assert!(product(ctx, &x, m) == wanted, "{} threads give other bits", ctx.pool().threads());
            }
            let mut alone = Vec::new();
            for i in 0..m.min(16) {
                alone.extend(product(&more[i % more.len()], &x[i * k..(i + 1) * k], 1));
            }
            prop_assert!(alone == wanted[..alone.len()], "rows alone give other bits");
            Ok(())
        };
        if let Err(error) = runner.run(&draws(), property) {
            panic!("{isa}, {format}: {error}");
        }
    }
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

/// The most extreme integers in every place: products of bytes and their sums in 16 bits must not saturate.
#[test]
fn extreme_integers_do_not_saturate() {
    for format in BlockFormat::ALL {
        for byte in [0x00, 0x7f, 0x80, 0x81, 0xff] {
            let (n, k) = (17, 2 * format.block_len());
            let mut w = vec![byte; n * k / format.block_len() * format.block_bytes()];
            for block in w.chunks_exact_mut(format.block_bytes()) {
                scales(format).iter().for_each(|at| block[*at..at + 2].copy_from_slice(&[0, 0x3c]));
            }
            for sign in [1.0f32, -1.0] {
                // the largest magnitude is everywhere, so each integer is 127 or -127
                let x: Vec<f32> = (0..k).map(|i| if byte == 0xff && i % 2 == 1 { -sign } else { sign }).collect();
                let outs: Vec<Vec<u32>> = Isa::available()
                    .into_iter()
                    .map(|isa| {
                        let ctx = context(isa, 1).expect("it is available");
                        let mut out = vec![f32::NAN; n];
                        blocks_linear(&ctx, &x, &PackedBlocks::pack(&ctx, format, &w, n, k), &mut out);
                        bits(&out)
                    })
                    .collect();
                assert!(outs.iter().all(|out| *out == outs[0]), "{format}, bytes of {byte:#x}");
            }
        }
    }
}

/// Weights as gguf 0.19.0 (the Python package of llama.cpp) dequantises them: of two rows of 256, made by the rule below,
/// a checksum of the bits of all, and the numbers 0, 17, 300 and 511.
#[test]
fn weights_are_those_of_the_published_formats() {
    let golden: [(&str, u32, [f64; 4]); 10] = [
        ("Q4_0", 0x4996d800, [-0.2061767578125, -0.0687255859375, -0.2440185546875, -1.5205078125]),
        ("Q4_1", 0xf752d580, [0.989227294921875, 0.783050537109375, 0.31585693359375, 2.03485107421875]),
        ("Q5_0", 0x0d818a00, [0.6185302734375, 0.0687255859375, -1.9521484375, -2.0906982421875]),
        ("Q5_1", 0x7f4f7a40, [1.470306396484375, 0.301971435546875, 3.48809814453125, 2.98516845703125]),
        ("Q8_0", 0xf09f0d40, [5.8416748046875, -3.298828125, -5.24639892578125, 21.8572998046875]),
        ("Q4_K", 0x277c9540, [4.37994384765625, 27.81536865234375, 6.04412841796875, 1.53369140625]),
        ("Q5_K", 0x6885df60, [36.33734130859375, 25.68487548828125, 4.6480712890625, 87.53680419921875]),
        ("Q6_K", 0xc5588370, [-10.6524658203125, 102.8134765625, 0.0, 2.61260986328125]),
        ("Q2_K", 0x720ff180, [0.7559814453125, 0.124969482421875, 2.32421875, 1.236572265625]),
        ("Q3_K", 0xae641880, [-5.5667724609375, 1.237060546875, 2.01544189453125, 0.0]),
    ];
    for (name, checksum, some) in golden {
        let format: BlockFormat = name.parse().expect("a format");
        let (k, size) = (256, format.block_bytes());
        let mut file: Vec<u8> = (0..2 * k / format.block_len() * size).map(|i| ((i * 37 + 11) % 253) as u8).collect();
        for (i, block) in file.chunks_exact_mut(size).enumerate() {
            for (at, bits) in scales(format).iter().zip([0x2c66 + 97 * i as u16, 0xa955 + 31 * i as u16]) {
                block[*at..at + 2].copy_from_slice(&bits.to_le_bytes());
            }
        }
        for isa in Isa::available() {
            let ctx = context(isa, 2).expect("it is available");
            let table = PackedBlocks::pack(&ctx, format, &file, 2, k);
            let mut out = vec![f32::NAN; 2 * k];
            embed_rows(&ctx, &table, &[0, 1], 1.0, &mut out);
            assert_eq!([0, 17, 300, 511].map(|i| f64::from(out[i])), some, "{isa}, {name}");
            let sum = out
                .iter()
                .enumerate()
                .fold(0u32, |sum, (i, w)| sum.wrapping_add(w.to_bits().wrapping_mul(2 * i as u32 + 1)));
            assert_eq!(sum, checksum, "{isa}, {name}");
            let mut twice = vec![f32::NAN; 3 * k];
            embed_rows(&ctx, &table, &[1, 0, 1], 2.0, &mut twice);
            let doubled: Vec<f32> = [&out[k..], &out].concat().iter().map(|w| 2.0 * w).collect();
            assert_eq!(twice[..k], doubled[..k], "{isa}, {name}");
            assert_eq!(twice[k..], doubled[k..], "{isa}, {name}");
        }
    }
}

/// Against f64 products with the weights as f32: what is left is the rounding of activations to 1/127 of their block's
/// largest.
#[test]
fn products_are_close_to_those_of_the_weights() {
    let mut d = Draw { batch: 0, a: 0, b: 0, c: 0, seed: 7, special: false, flush: false };
    for format in BlockFormat::ALL {
        let ctx = Context::new(1, Isa::detect()).expect("it is detected");
        let (n, k) = (48, 512);
        let (w, x) = (rows(&mut d, format, n, k), d.values(k));
        let packed = PackedBlocks::pack(&ctx, format, &w, n, k);
        let ids: Vec<u32> = (0..n as u32).collect();
        let (mut weights, mut out) = (vec![0.0; n * k], vec![0.0; n]);
        embed_rows(&ctx, &packed, &ids, 1.0, &mut weights);
        blocks_linear(&ctx, &x, &packed, &mut out);
        for (out, weights) in out.iter().zip(weights.chunks_exact(k)) {
            let products = || weights.iter().zip(&*x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            // each value of x, below 2, is off by at most half of 2 / 127, independently of the others
            let norm = weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
            let error = (f64::from(*out) - products().sum::<f64>()).abs();
            assert!(error <= 5.0 * norm / 127.0 / 3f64.sqrt(), "{format}: off by {error:e}, norm {norm:e}");
        }
    }
}

#[test]
fn products_of_one_input_are_those_of_each() {
    let mut d = Draw { batch: 0, a: 0, b: 0, c: 0, seed: 3, special: false, flush: false };
    for isa in Isa::available() {
        let ctx = context(isa, 3).expect("it is available");
        let (m, k) = (5, 256);
        let x = d.values(m * k);
        let (first, second) = (rows(&mut d, BlockFormat::Q4K, 40, k), rows(&mut d, BlockFormat::Q8_0, 7, k));
        let first = PackedBlocks::pack(&ctx, BlockFormat::Q4K, &first, 40, k);
        let second = PackedBlocks::pack(&ctx, BlockFormat::Q8_0, &second, 7, k);
        let (mut both, mut one, mut other) = (vec![f32::NAN; m * 47], vec![1.0; m * 40], vec![1.0; m * 7]);
        blocks_joined(&ctx, &x, &[&first, &second], &mut both);
        blocks_linear(&ctx, &x, &first, &mut one);
        blocks_linear(&ctx, &x, &second, &mut other);
        for (i, both) in both.chunks_exact(47).enumerate() {
            let apart = [&one[i * 40..][..40], &other[i * 7..][..7]].concat();
            assert!(bits(both) == bits(&apart), "{isa}, row {i}");
        }
    }
}

/// Shapes of real files: SmolLM2's and Gemma's rows, the heads included.
#[test]
fn packing_grows_by_no_more_than_a_twentieth() {
    for isa in Isa::available() {
        let ctx = context(isa, 2).expect("it is available");
        for format in BlockFormat::ALL {
            for (n, k) in [(576, 576), (192, 576), (1536, 576), (576, 1536), (320, 640), (640, 2048), (2048, 1024)] {
                if k % format.block_len() == 0 {
                    let bytes = vec![0; n * k / format.block_len() * format.block_bytes()];
                    let packed = PackedBlocks::pack(&ctx, format, &bytes, n, k);
                    assert!(packed.bytes() as f64 <= 1.05 * bytes.len() as f64, "{isa}, {format}: [{n}, {k}]");
                    assert!(packed.bytes() >= bytes.len());
                    assert_eq!(blocks_linear_operations(3, &packed), 6.0 * (n * k) as f64);
                }
            }
        }
    }
}

#[test]
fn other_formats_are_refused_by_name() {
    let error = "IQ2_XS".parse::<BlockFormat>().unwrap_err();
    assert!(
        error.contains("`IQ2_XS`") && error.contains("hint: use one of Q4_0, Q4_1") && error.contains("Q6_K"),
        "{error}"
    );
    for format in BlockFormat::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
}

#[test]
fn halves_are_read_as_ieee_754_says() {
    for (bits, value) in [
        (0x0000, 0.0),
        (0x3c00, 1.0),
        (0xc000, -2.0),
        (0x7bff, 65504.0),
        (0x0400, 6.103_515_625e-5),
        (0x0001, 5.960_464_477_539_063e-8),
        (0x83ff, -6.097_555_160_522_461e-5),
        (0x3555, 0.333_251_953_125),
        (0x7c00, f64::INFINITY),
        (0xfc00, f64::NEG_INFINITY),
    ] {
        assert_eq!(f64::from(half(bits)), value, "{bits:#x}");
    }
    assert!(half(0x7e00).is_nan() && half(0x8000).is_sign_negative());
}

#[test]
#[should_panic(expected = "are not whole blocks of 256, Q4_K")]
fn rows_that_are_not_whole_blocks_are_refused() {
    let ctx = Context::new(1, Isa::Scalar).expect("scalar is always there");
    PackedBlocks::pack(&ctx, BlockFormat::Q4K, &[], 0, 640);
}

#[test]
#[should_panic(expected = "id 2 in a table of 2 rows")]
fn ids_beyond_the_table_are_refused() {
    let ctx = Context::new(1, Isa::Scalar).expect("scalar is always there");
    let table = PackedBlocks::pack(&ctx, BlockFormat::Q8_0, &[0; 68], 2, 32);
    embed_rows(&ctx, &table, &[2], 1.0, &mut [0.0; 32]);
}
