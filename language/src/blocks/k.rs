//! The formats of 256 elements a block: Q2_K to Q6_K.
//!
//! In: one block. Out: its elements. Must not: be called with another number of bytes than a block has.
//!
//! A block is two halves of 128 elements, or four quarters of 64. Within a half, element 32 j + i has its low bits in
//! byte i at bit 2 j (Q2_K, Q3_K).

use super::half_at;

/// 16 bytes of scale (low half) and minimum (high half), 64 bytes of 2 bits, scale f16, minimum f16.
pub(super) fn q2(block: &[u8], values: &mut [f32]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
    for (run, values) in values.chunks_exact_mut(16).enumerate() {
        let (half, shift, first) = (run / 8, run % 8 / 2 * 2, run % 2 * 16);
        let (a, b) = (scale * f32::from(scales[run] & 15), minimum * f32::from(scales[run] >> 4));
        let quants = &quants[half * 32 + first..][..16];
        values.iter_mut().zip(quants).for_each(|(v, q)| *v = a * f32::from(q >> shift & 3) - b);
    }
}

/// 32 bytes of third bits (bit 4 half + j), 64 bytes of 2 bits, 12 bytes of 16 scales of 6 bits, scale f16.
pub(super) fn q3(block: &[u8], values: &mut [f32]) {
    let (high, quants, packed, scale) = (&block[..32], &block[32..96], &block[96..108], half_at(block, 108));
    for (run, values) in values.chunks_exact_mut(16).enumerate() {
        // four low bits from the first eight bytes, two high bits from the last four
        let low = packed[run % 8] >> (run / 8 * 4) & 15;
        let six = low | (packed[8 + run % 4] >> (run / 4 * 2) & 3) << 4;
        let a = scale * f32::from(six as i8 - 32);
        let (half, j, first) = (run / 8, run % 8 / 2, run % 2 * 16);
        let bits = quants[half * 32 + first..][..16].iter().zip(&high[first..][..16]);
        for (v, (q, h)) in values.iter_mut().zip(bits) {
            let third = h >> (half * 4 + j) & 1;
            *v = a * f32::from((q >> (j * 2) & 3) as i8 - if third == 0 { 4 } else { 0 });
        }
    }
}

/// Scale and minimum `i` of eight, of six bits each, from 12 bytes.
fn pair(packed: &[u8], i: usize) -> (f32, f32) {
    let (scale, minimum) = if i < 4 {
        (packed[i] & 63, packed[i + 4] & 63)
    } else {
        (packed[i + 4] & 15 | packed[i - 4] >> 6 << 4, packed[i + 4] >> 4 | packed[i] >> 6 << 4)
    };
    (f32::from(scale), f32::from(minimum))
}

/// scale f16, minimum f16, 12 bytes of scales and minima, 128 bytes: the low halves are 32 elements, the high halves the
/// 32 after them.
pub(super) fn q4(block: &[u8], values: &mut [f32]) {
    let (scale, minimum, packed, quants) = (half_at(block, 0), half_at(block, 2), &block[4..16], &block[16..]);
    for (run, values) in values.chunks_exact_mut(32).enumerate() {
        let (s, m) = pair(packed, run);
        let (a, b) = (scale * s, minimum * m);
        let quants = &quants[run / 2 * 32..][..32];
        values.iter_mut().zip(quants).for_each(|(v, q)| *v = a * f32::from(q >> (run % 2 * 4) & 15) - b);
    }
}

/// As [`q4`], with 32 bytes of fifth bits (bit `run` of byte i) before the 128.
pub(super) fn q5(block: &[u8], values: &mut [f32]) {
    let (scale, minimum, packed) = (half_at(block, 0), half_at(block, 2), &block[4..16]);
    let (high, quants) = (&block[16..48], &block[48..]);
    for (run, values) in values.chunks_exact_mut(32).enumerate() {
        let (s, m) = pair(packed, run);
        let (a, b) = (scale * s, minimum * m);
        let bits = quants[run / 2 * 32..][..32].iter().zip(high);
        for (v, (q, h)) in values.iter_mut().zip(bits) {
            *v = a * f32::from(q >> (run % 2 * 4) & 15 | (h >> run & 1) << 4) - b;
        }
    }
}

/// 128 bytes of low halves, 64 bytes of two high bits, 16 signed scales, scale f16.
pub(super) fn q6(block: &[u8], values: &mut [f32]) {
    let (low, high, scales, scale) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for (i, v) in values.iter_mut().enumerate() {
        // of a half: four runs of 32; runs 0 and 2 share bytes of `low`, as do 1 and 3
        let (half, run, at) = (i / 128, i % 128 / 32, i % 32);
        let four = low[half * 64 + run % 2 * 32 + at] >> (run / 2 * 4) & 15;
        let two = high[half * 32 + at] >> (run * 2) & 3;
        let quant = (four | two << 4) as i8 - 32;
        *v = scale * f32::from(scales[i / 16] as i8) * f32::from(quant);
    }
}
