//! Element types of stored tensors and their conversion to f32: plain floats and the block formats of GGUF.
//!
//! In: a type's number or name; bytes of whole blocks, or f32. Out: sizes; f32, or bytes. Must not: know files or shapes.
//!
//! A block holds 32 or 256 neighbouring elements of a row with their scales. The arithmetic is that of the published
//! reference (ggml's `dequantize_row_*`), operation for operation in f32, so that results agree to the last bit.

mod encode;
mod k;
mod plain;

pub(crate) use encode::scale;

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockType {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// Upper half of a 32-bit float.
    Bf16,
    /// 32 elements of 4 bits, one f16 scale.
    Q4_0,
    /// 32 elements of 4 bits, f16 scale and minimum.
    Q4_1,
    /// 32 elements of 5 bits, one f16 scale.
    Q5_0,
    /// 32 elements of 5 bits, f16 scale and minimum.
    Q5_1,
    /// 32 elements of 8 bits, one f16 scale.
    Q8_0,
    /// 256 elements of 2 bits; 16 scales and minima of 4 bits.
    Q2K,
    /// 256 elements of 3 bits; 16 scales of 6 bits.
    Q3K,
    /// 256 elements of 4 bits; 8 scales and minima of 6 bits.
    Q4K,
    /// 256 elements of 5 bits; 8 scales and minima of 6 bits.
    Q5K,
    /// 256 elements of 6 bits; 16 scales of 8 bits.
    Q6K,
}

/// Type, number in GGUF, name, elements and bytes of a block.
const TYPES: [(BlockType, u32, &str, usize, usize); 13] = [
    (BlockType::F32, 0, "F32", 1, 4),
    (BlockType::F16, 1, "F16", 1, 2),
    (BlockType::Q4_0, 2, "Q4_0", 32, 18),
    (BlockType::Q4_1, 3, "Q4_1", 32, 20),
    (BlockType::Q5_0, 6, "Q5_0", 32, 22),
    (BlockType::Q5_1, 7, "Q5_1", 32, 24),
    (BlockType::Q8_0, 8, "Q8_0", 32, 34),
    (BlockType::Q2K, 10, "Q2_K", 256, 84),
    (BlockType::Q3K, 11, "Q3_K", 256, 110),
    (BlockType::Q4K, 12, "Q4_K", 256, 144),
    (BlockType::Q5K, 13, "Q5_K", 256, 176),
    (BlockType::Q6K, 14, "Q6_K", 256, 210),
    (BlockType::Bf16, 30, "BF16", 1, 2),
];

/// Names of types that GGUF knows and this crate does not read.
const UNREAD: [(u32, &str); 24] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
    (4, "Q4_2 (removed from the format)"),
    (5, "Q4_3 (removed from the format)"),
];

impl BlockType {
    /// Every type, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        TYPES.iter().map(|t| t.0)
    }

    fn line(self) -> &'static (Self, u32, &'static str, usize, usize) {
        TYPES.iter().find(|t| t.0 == self).unwrap_or(&TYPES[0])
    }

    /// The type of a number in GGUF's tensor table; `Err` has the name of one that is known and not read, if it is one.
    pub fn of_number(number: u32) -> Result<Self, Option<&'static str>> {
        match TYPES.iter().find(|t| t.1 == number) {
            Some(found) => Ok(found.0),
            None => Err(UNREAD.iter().find(|t| t.0 == number).map(|t| t.1)),
        }
    }

    /// The type of a name, in any case.
    pub fn of_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|t| t.2.eq_ignore_ascii_case(name)).map(|t| t.0)
    }

    /// Number in GGUF's tensor table.
    pub fn number(self) -> u32 {
        self.line().1
    }

    /// Name as GGUF and safetensors write it.
    pub fn name(self) -> &'static str {
        self.line().2
    }

    /// Elements of a block; 1 for plain floats.
    pub fn block_elements(self) -> usize {
        self.line().3
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.line().4
    }

    /// Bytes of so many elements; `None` where they are not whole blocks or too many to count.
    pub fn bytes_of(self, elements: u64) -> Option<u64> {
        let block = self.block_elements() as u64;
        (elements.is_multiple_of(block)).then(|| (elements / block).checked_mul(self.block_bytes() as u64))?
    }

    /// Bits of an element with its share of the block's scales.
    pub fn bits_per_element(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_elements() as f64
    }

    /// Converts whole blocks.
    ///
    /// # Panics
    /// Where `bytes` are not as many as `values.len()` elements of this type take: callers hold both from one table.
    pub fn dequantise(self, bytes: &[u8], values: &mut [f32]) {
        assert_eq!(Some(bytes.len() as u64), self.bytes_of(values.len() as u64), "{self:?}: bytes of whole blocks");
        let convert: fn(&[u8], &mut [f32]) = match self {
            Self::F32 => plain::f32,
            Self::F16 => plain::f16,
            Self::Bf16 => plain::bf16,
            Self::Q4_0 => plain::q4_0,
            Self::Q4_1 => plain::q4_1,
            Self::Q5_0 => plain::q5_0,
            Self::Q5_1 => plain::q5_1,
            Self::Q8_0 => plain::q8_0,
            Self::Q2K => k::q2,
            Self::Q3K => k::q3,
            Self::Q4K => k::q4,
            Self::Q5K => k::q5,
            Self::Q6K => k::q6,
        };
        let blocks = bytes.chunks_exact(self.block_bytes()).zip(values.chunks_exact_mut(self.block_elements()));
        blocks.for_each(|(block, values)| convert(block, values));
    }
}

/// The half-precision number at byte `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests;
