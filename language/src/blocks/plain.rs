//! Plain floats, and the formats of 32 elements a block: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! In: one block. Out: its elements. Must not: be called with another number of bytes than a block has.

use super::half_at;

pub(super) fn f32(block: &[u8], values: &mut [f32]) {
    values[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
}

pub(super) fn f16(block: &[u8], values: &mut [f32]) {
    values[0] = half_at(block, 0);
}

pub(super) fn bf16(block: &[u8], values: &mut [f32]) {
    values[0] = half::bf16::from_le_bytes([block[0], block[1]]).to_f32();
}

/// Element i is in the low half of byte i, element i + 16 in the high half.
fn nibbles(packed: &[u8]) -> impl Iterator<Item = u8> + '_ {
    packed.iter().map(|b| b & 15).chain(packed.iter().map(|b| b >> 4))
}

/// [`nibbles`] with the fifth bits, bit i of element i.
fn five_bits<'a>(high: &[u8], packed: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    nibbles(packed).enumerate().map(move |(i, low)| low | ((high >> i & 1) as u8) << 4)
}

/// scale f16, 16 bytes: (q - 8) x scale.
pub(super) fn q4_0(block: &[u8], values: &mut [f32]) {
    let scale = half_at(block, 0);
    values.iter_mut().zip(nibbles(&block[2..])).for_each(|(v, q)| *v = f32::from(q as i8 - 8) * scale);
}

/// scale f16, minimum f16, 16 bytes: q x scale + minimum.
pub(super) fn q4_1(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    values.iter_mut().zip(nibbles(&block[4..])).for_each(|(v, q)| *v = f32::from(q) * scale + minimum);
}

/// scale f16, 4 bytes of fifth bits, 16 bytes: (q - 16) x scale.
pub(super) fn q5_0(block: &[u8], values: &mut [f32]) {
    let scale = half_at(block, 0);
    let quants = five_bits(&block[2..6], &block[6..]);
    values.iter_mut().zip(quants).for_each(|(v, q)| *v = f32::from(q as i8 - 16) * scale);
}

/// scale f16, minimum f16, 4 bytes of fifth bits, 16 bytes: q x scale + minimum.
pub(super) fn q5_1(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let quants = five_bits(&block[4..8], &block[8..]);
    values.iter_mut().zip(quants).for_each(|(v, q)| *v = f32::from(q) * scale + minimum);
}

/// scale f16, 32 signed bytes: q x scale.
pub(super) fn q8_0(block: &[u8], values: &mut [f32]) {
    let scale = half_at(block, 0);
    values.iter_mut().zip(&block[2..]).for_each(|(v, q)| *v = f32::from(*q as i8) * scale);
}
