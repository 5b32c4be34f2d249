//! f32 to stored types: plain floats, and the formats of 32 elements a block.
//!
//! In: whole blocks of f32. Out: bytes. Must not: be given numbers that are not finite: what a block of them means is
//! nobody's to say; callers look.
//!
//! The arithmetic is that of the published reference (ggml's `quantize_row_*_ref`), operation for operation in f32, so that
//! bytes agree: no search for better scales, no weights of importance.

use super::BlockType;

/// Elements of a block of every format here.
const BLOCK: usize = 32;

/// Appends one block.
type Encoder = fn(&[f32], &mut Vec<u8>);

impl BlockType {
    /// Whether [`BlockType::encode`] writes this type.
    pub fn is_encoded(self) -> bool {
        self.encoder().is_some()
    }

    /// Appends whole blocks of these values.
    ///
    /// # Panics
    /// Where [`BlockType::is_encoded`] says no, or the values are no whole blocks.
    pub fn encode(self, values: &[f32], bytes: &mut Vec<u8>) {
        let encode = self.encoder().unwrap_or_else(|| panic!("{self:?} is not encoded"));
        assert_eq!(values.len() % self.block_elements(), 0, "{self:?}: whole blocks");
        values.chunks_exact(self.block_elements()).for_each(|block| encode(block, bytes));
    }

    fn encoder(self) -> Option<Encoder> {
        match self {
            Self::F32 => Some(|v, bytes| bytes.extend(v[0].to_le_bytes())),
            Self::F16 => Some(|v, bytes| half(v[0], bytes)),
            Self::Bf16 => Some(|v, bytes| bytes.extend(half::bf16::from_f32(v[0]).to_le_bytes())),
            Self::Q4_0 => Some(q4_0),
            Self::Q4_1 => Some(q4_1),
            Self::Q5_0 => Some(q5_0),
            Self::Q5_1 => Some(q5_1),
            Self::Q8_0 => Some(q8_0),
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => None,
        }
    }
}

fn half(x: f32, bytes: &mut Vec<u8>) {
    bytes.extend(half::f16::from_f32(x).to_le_bytes());
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The first element of the largest absolute value, with its sign.
fn farthest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |far: f32, &v| if v.abs() > far.abs() { v } else { far })
}

/// The smallest and the largest.
fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
}

/// Element i into the low half of byte i, element i + 16 into the high half.
fn nibbles(quants: &[u8; BLOCK], bytes: &mut Vec<u8>) {
    let (low, high) = quants.split_at(BLOCK / 2);
    bytes.extend(low.iter().zip(high).map(|(l, h)| (l & 15) | (h & 15) << 4));
}

/// Fifth bits, bit i of element i.
fn fifth_bits(quants: &[u8; BLOCK], bytes: &mut Vec<u8>) {
    let bits = quants.iter().enumerate().fold(0u32, |all, (i, q)| all | u32::from(q >> 4 & 1) << i);
    bytes.extend(bits.to_le_bytes());
}

fn quants(values: &[f32], of: impl Fn(f32) -> u8) -> [u8; BLOCK] {
    let mut quants = [0; BLOCK];
    quants.iter_mut().zip(values).for_each(|(q, v)| *q = of(*v));
    quants
}

fn q4_0(values: &[f32], bytes: &mut Vec<u8>) {
    let scale = farthest(values) / -8.0;
    let inverse = inverse(scale);
    half(scale, bytes);
    nibbles(&quants(values, |v| ((v * inverse + 8.5) as i8 as u8).min(15)), bytes);
}

fn q4_1(values: &[f32], bytes: &mut Vec<u8>) {
    let (low, high) = range(values);
    let scale = (high - low) / 15.0;
    let inverse = inverse(scale);
    half(scale, bytes);
    half(low, bytes);
    nibbles(&quants(values, |v| (((v - low) * inverse + 0.5) as i8 as u8).min(15)), bytes);
}

fn q5_0(values: &[f32], bytes: &mut Vec<u8>) {
    let scale = farthest(values) / -16.0;
    let inverse = inverse(scale);
    half(scale, bytes);
    let quants = quants(values, |v| ((v * inverse + 16.5) as i8 as u8).min(31));
    fifth_bits(&quants, bytes);
    nibbles(&quants, bytes);
}

fn q5_1(values: &[f32], bytes: &mut Vec<u8>) {
    let (low, high) = range(values);
    let scale = (high - low) / 31.0;
    let inverse = inverse(scale);
    half(scale, bytes);
    half(low, bytes);
    let quants = quants(values, |v| (((v - low) * inverse + 0.5) as u8).min(31));
    fifth_bits(&quants, bytes);
    nibbles(&quants, bytes);
}

fn q8_0(values: &[f32], bytes: &mut Vec<u8>) {
    let scale = farthest(values).abs() / 127.0;
    let inverse = inverse(scale);
    half(scale, bytes);
    bytes.extend(values.iter().map(|v| (v * inverse).round() as i8 as u8));
}

/// Places of the f16 scales in a block, minima among them: what is multiplied where all elements are.
fn scales(kind: BlockType) -> &'static [usize] {
    match kind {
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => &[],
        BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => &[0],
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
        BlockType::Q2K => &[80, 82],
        BlockType::Q3K => &[108],
        BlockType::Q6K => &[208],
    }
}

/// Multiplies every element of whole blocks by a number, without rounding by a power of two; `false`: a number became too large.
pub(crate) fn scale(kind: BlockType, bytes: &mut [u8], factor: f32) -> bool {
    let halves = |at: usize, block: &mut [u8]| {
        let scaled = half::f16::from_f32(super::half_at(block, at) * factor);
        block[at..at + 2].copy_from_slice(&scaled.to_le_bytes());
        scaled.is_finite()
    };
    let mut finite = true;
    for block in bytes.chunks_exact_mut(kind.block_bytes()) {
        match kind {
            BlockType::F32 => {
                let scaled = f32::from_le_bytes([block[0], block[1], block[2], block[3]]) * factor;
                block.copy_from_slice(&scaled.to_le_bytes());
                finite &= scaled.is_finite();
            }
            BlockType::Bf16 => {
                let scaled = half::bf16::from_f32(half::bf16::from_le_bytes([block[0], block[1]]).to_f32() * factor);
                block.copy_from_slice(&scaled.to_le_bytes());
                finite &= scaled.is_finite();
            }
            BlockType::F16 => finite &= halves(0, block),
            _ => scales(kind).iter().for_each(|at| finite &= halves(*at, block)),
        }
    }
    finite
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random numbers of both signs, a block of zeros, one of one number.
    fn values() -> Vec<f32> {
        let mut state = 7u64;
        let random = std::iter::from_fn(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
        });
        let mut values: Vec<f32> =
            random.take(64 * BLOCK).enumerate().map(|(i, v)| v * 10f32.powi((i / BLOCK % 5) as i32 - 2)).collect();
        values[..BLOCK].fill(0.0);
        values[BLOCK..2 * BLOCK].fill(-0.375);
        values
    }

    fn encoded(kind: BlockType, values: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        kind.encode(values, &mut bytes);
        bytes
    }

    fn decoded(kind: BlockType, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; bytes.len() / kind.block_bytes() * kind.block_elements()];
        kind.dequantise(bytes, &mut values);
        values
    }

    #[test]
    fn what_is_encoded_comes_back_within_half_a_step() {
        let values = values();
        let mut kinds = 0;
        for kind in BlockType::all().filter(|k| k.is_encoded()) {
            let back = decoded(kind, &encoded(kind, &values));
            kinds += 1;
            for (at, (block, back)) in values.chunks(BLOCK).zip(back.chunks(BLOCK)).enumerate() {
                let (low, high) = range(block);
                let far = farthest(block).abs();
                // half a step, and what rounding of the scale and the minimum to f16 adds; of types with a sign the farthest of the other
                // side may be cut by a whole step
                let step = match kind {
                    BlockType::F32 => 0.0,
                    BlockType::F16 | BlockType::Bf16 => far / 128.0,
                    BlockType::Q4_0 => 2.0 * far / 8.0,
                    BlockType::Q5_0 => 2.0 * far / 16.0,
                    BlockType::Q8_0 => far / 127.0,
                    BlockType::Q4_1 => (high - low) / 15.0,
                    _ => (high - low) / 31.0,
                };
                for (v, b) in block.iter().zip(back) {
                    assert!((v - b).abs() <= 0.5 * step + far * 2e-3, "{kind:?}, block {at}: {b} for {v}, step {step}");
                }
            }
        }
        assert_eq!(kinds, 8);
    }

    #[test]
    fn what_a_block_can_hold_comes_back_as_the_same_bytes() {
        for kind in BlockType::all().filter(|k| k.is_encoded()) {
            // blocks of a power of two, so that no product is rounded, and every quantum
            let held: Vec<f32> = match kind {
                BlockType::Q8_0 => (0..BLOCK).map(|i| (i as f32 * 8.0 - 127.0).min(120.0) * 0.5).collect(),
                BlockType::Q4_0 => (0..BLOCK).map(|i| (i % 16) as f32 * 0.25 - 2.0).collect(),
                BlockType::Q5_0 => (0..BLOCK).map(|i| i as f32 * 0.25 - 4.0).collect(),
                BlockType::Q4_1 => (0..BLOCK).map(|i| (i % 16) as f32 * 0.25 - 1.0).collect(),
                _ => (0..BLOCK).map(|i| i as f32 * 0.25 - 1.0).collect(),
            };
            let bytes = encoded(kind, &held);
            assert_eq!(decoded(kind, &bytes), held, "{kind:?}");
            assert_eq!(encoded(kind, &decoded(kind, &bytes)), bytes, "{kind:?}");
        }
    }

    #[test]
    fn a_power_of_two_scales_every_type_without_rounding() {
        let golden = include_bytes!("../../../tests/golden/language/blocks.safetensors");
        let golden = safetensors::SafeTensors::deserialize(golden).unwrap();
        for kind in BlockType::all() {
            // plain floats reach up to the largest number there is
            let plain = kind.block_elements() == 1;
            let mut bytes = match plain {
                true => encoded(kind, &values()),
                false => golden.tensor(&format!("{}.bytes", kind.name())).unwrap().data().to_vec(),
            };
            let before = decoded(kind, &bytes);
            assert!(scale(kind, &mut bytes, 8.0), "{kind:?}");
            let after = decoded(kind, &bytes);
            assert!(
                before.iter().zip(&after).all(|(b, a)| b * 8.0 == *a) && before.iter().any(|v| *v != 0.0),
                "{kind:?}"
            );
        }
        let mut bytes = encoded(BlockType::F16, &[60000.0]);
        assert!(!scale(BlockType::F16, &mut bytes, 8.0));
    }
}
