//! The quantised blocks of GGUF, as published (ggml's `ggml-common.h` and `ggml-quants.c`). In: rows as a file has them.
//! Out: the integers and scales of 32 weights of a row. Must not: know a layout of ours.
//!
//! Every format is `weight = scale · (integer - zero) + offset` with integers of 2 to 8 bits, and scales and offsets for 32 or 16
//! weights.

use std::fmt;
use std::str::FromStr;

/// Weights in a block: those that share a scale, or two.
pub(crate) const BLOCK: usize = 32;

/// A quantised format of GGUF that products can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockFormat {
    /// 4 bits, a scale; 18 bytes for 32 weights.
    Q4_0,
    /// 4 bits, a scale and an offset; 20 bytes for 32.
    Q4_1,
    /// 5 bits, a scale; 22 bytes for 32.
    Q5_0,
    /// 5 bits, a scale and an offset; 24 bytes for 32.
    Q5_1,
    /// 8 bits, a scale; 34 bytes for 32.
    Q8_0,
    /// 4 bits, scales and offsets of 6 bits for 32; 144 bytes for 256.
    Q4K,
    /// 5 bits, scales and offsets of 6 bits for 32; 176 bytes for 256.
    Q5K,
    /// 6 bits, scales of 8 bits for 16; 210 bytes for 256.
    Q6K,
    /// 2 bits, scales and offsets of 4 bits for 16; 84 bytes for 256.
    Q2K,
    /// 3 bits, scales of 6 bits for 16; 110 bytes for 256.
    Q3K,
}

/// How the scales of a format are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScaleKind {
    /// f16
    Plain,
    /// f16, and an offset in f16
    Offset,
    /// an f16 for 256 weights times 6 bits for 32; offsets likewise
    Super,
    /// an f16 for 256 weights times 8 bits for 16
    Sixteens,
    /// an f16 for 256 weights times 4 bits for 16; offsets likewise
    Nibbles,
    /// an f16 for 256 weights times 6 bits for 16
    Sixes,
}

impl BlockFormat {
    /// Every format.
    pub const ALL: [BlockFormat; 10] = [
        BlockFormat::Q4_0,
        BlockFormat::Q4_1,
        BlockFormat::Q5_0,
        BlockFormat::Q5_1,
        BlockFormat::Q8_0,
        BlockFormat::Q4K,
        BlockFormat::Q5K,
        BlockFormat::Q6K,
        BlockFormat::Q2K,
        BlockFormat::Q3K,
    ];

    /// Weights that stand together in the file: rows are whole multiples of it.
    pub const fn block_len(self) -> usize {
        match self.kind() {
            ScaleKind::Plain | ScaleKind::Offset => BLOCK,
            ScaleKind::Super | ScaleKind::Sixteens | ScaleKind::Nibbles | ScaleKind::Sixes => 256,
        }
    }

    /// Bytes of as many weights as [`BlockFormat::block_len`] says.
    pub const fn block_bytes(self) -> usize {
        match self {
            BlockFormat::Q4_0 => 18,
            BlockFormat::Q4_1 => 20,
            BlockFormat::Q5_0 => 22,
            BlockFormat::Q5_1 => 24,
            BlockFormat::Q8_0 => 34,
            BlockFormat::Q4K => 144,
            BlockFormat::Q5K => 176,
            BlockFormat::Q6K => 210,
            BlockFormat::Q2K => 84,
            BlockFormat::Q3K => 110,
        }
    }

    /// Bits of an integer.
    pub(crate) const fn bits(self) -> u32 {
        match self {
            BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q4K => 4,
            BlockFormat::Q5_0 | BlockFormat::Q5_1 | BlockFormat::Q5K => 5,
            BlockFormat::Q6K => 6,
            BlockFormat::Q8_0 => 8,
            BlockFormat::Q2K => 2,
            BlockFormat::Q3K => 3,
        }
    }

    /// The integer, as unsigned, that stands for zero.
    pub(crate) const fn zero(self) -> i32 {
        match self {
            BlockFormat::Q4_0 => 8,
            BlockFormat::Q5_0 => 16,
            BlockFormat::Q6K => 32,
            BlockFormat::Q8_0 => 128,
            BlockFormat::Q3K => 4,
            BlockFormat::Q2K | BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => 0,
        }
    }

    pub(crate) const fn kind(self) -> ScaleKind {
        match self {
            BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 => ScaleKind::Plain,
            BlockFormat::Q4_1 | BlockFormat::Q5_1 => ScaleKind::Offset,
            BlockFormat::Q4K | BlockFormat::Q5K => ScaleKind::Super,
            BlockFormat::Q6K => ScaleKind::Sixteens,
            BlockFormat::Q2K => ScaleKind::Nibbles,
            BlockFormat::Q3K => ScaleKind::Sixes,
        }
    }

    /// Weights have an offset.
    pub(crate) const fn has_offset(self) -> bool {
        matches!(self.kind(), ScaleKind::Offset | ScaleKind::Super | ScaleKind::Nibbles)
    }

    /// The two halves of a block of 32 have scales of their own, and offsets, if any.
    pub(crate) const fn has_halves(self) -> bool {
        matches!(self.kind(), ScaleKind::Sixteens | ScaleKind::Nibbles | ScaleKind::Sixes)
    }

    /// Bits of an integer that stand together in the panels; those above stand apart.
    pub(crate) const fn low_bits(self) -> u32 {
        match self.bits() {
            8 => 8,
            2 | 3 => 2,
            _ => 4,
        }
    }
}

impl fmt::Display for BlockFormat {
    /// As GGUF writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            BlockFormat::Q4_0 => "Q4_0",
            BlockFormat::Q4_1 => "Q4_1",
            BlockFormat::Q5_0 => "Q5_0",
            BlockFormat::Q5_1 => "Q5_1",
            BlockFormat::Q8_0 => "Q8_0",
            BlockFormat::Q4K => "Q4_K",
            BlockFormat::Q5K => "Q5_K",
            BlockFormat::Q6K => "Q6_K",
            BlockFormat::Q2K => "Q2_K",
            BlockFormat::Q3K => "Q3_K",
        })
    }
}

impl FromStr for BlockFormat {
    type Err = String;

    /// As GGUF writes it; an error names those that there are.
    fn from_str(name: &str) -> Result<BlockFormat, String> {
        BlockFormat::ALL.into_iter().find(|format| format.to_string() == name).ok_or_else(|| {
            let all: Vec<String> = BlockFormat::ALL.iter().map(BlockFormat::to_string).collect();
            format!("no kernel multiplies blocks of `{name}`\nhint: use one of {}", all.join(", "))
        })
    }
}

/// 32 weights of a row, as the file has them.
#[derive(Clone, Copy)]
pub(crate) struct FileBlock {
    /// Unsigned; of Q8_0 the value plus 128.
    pub(crate) q: [u8; BLOCK],
    /// Bits of the scale, an f16.
    pub(crate) d: u16,
    /// Bits of the offset, an f16, as it is added.
    pub(crate) m: u16,
    /// Factors of scale and offset; of Q6_K and Q3_K of the scales of both halves, signed; of Q2_K of both halves, each of the scale in
    /// its lower and of the offset in its upper 4 bits.
    pub(crate) factors: [u8; 2],
}

/// What an f16 of these bits is as f32.
pub(crate) fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(bits >> 15) << 31, u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    let magnitude = match exponent {
        // exact: denormals of f16 are multiples of 2^-24
        0 => fraction as f32 / 16_777_216.0,
        31 => f32::from_bits(0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(((exponent + 112) << 23) | (fraction << 13)),
    };
    f32::from_bits(sign | magnitude.to_bits())
}

impl FileBlock {
    /// Block `b` of 32 weights of a row, as ggml's `dequantize_row_*` read it.
    pub(crate) fn read(format: BlockFormat, row: &[u8], b: usize) -> FileBlock {
        let blocks = format.block_len() / BLOCK;
        // of a super-block, the how manieth of its blocks
        let (at, j) = (&row[b / blocks * format.block_bytes()..][..format.block_bytes()], b % blocks);
        let word = |i: usize| u16::from_le_bytes([at[i], at[i + 1]]);
        let mut block = FileBlock { q: [0; BLOCK], d: word(0), m: 0, factors: [1; 2] };
        match format {
            BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q5_0 | BlockFormat::Q5_1 => {
                if format.has_offset() {
                    block.m = word(2);
                }
                let low = &at[at.len() - 16..];
                let high = if format.bits() == 5 { &at[at.len() - 20..][..4] } else { &[0; 4] };
                for i in 0..BLOCK {
                    let bit = high[i / 8] >> (i % 8) & 1;
                    block.q[i] = low[i % 16] >> (i / 16 * 4) & 15 | bit << 4;
                }
            }
            BlockFormat::Q8_0 => {
                for i in 0..BLOCK {
                    block.q[i] = at[2 + i] ^ 0x80;
                }
            }
            BlockFormat::Q4K | BlockFormat::Q5K => {
                let scales = &at[4..16];
                let (scale, offset) = if j < 4 {
                    (scales[j] & 63, scales[j + 4] & 63)
                } else {
                    (scales[j + 4] & 15 | scales[j - 4] >> 6 << 4, scales[j + 4] >> 4 | scales[j] >> 6 << 4)
                };
                // the file's offset is subtracted
                block.m = word(2) ^ 0x8000;
                block.factors = [scale, offset];
                let low = &at[at.len() - 128 + j / 2 * 32..][..32];
                for i in 0..BLOCK {
                    let bit = if format.bits() == 5 { at[16 + i] >> j & 1 } else { 0 };
                    block.q[i] = low[i] >> (j % 2 * 4) & 15 | bit << 4;
                }
            }
            BlockFormat::Q2K => {
                // the file's offset is subtracted
                (block.d, block.m) = (word(80), word(82) ^ 0x8000);
                block.factors = [at[2 * j], at[2 * j + 1]];
                for i in 0..BLOCK {
                    block.q[i] = at[16 + j / 4 * 32 + i] >> (2 * (j % 4)) & 3;
                }
            }
            BlockFormat::Q3K => {
                let scales = &at[96..108];
                block.d = word(108);
                block.factors = [2 * j, 2 * j + 1].map(|i| {
                    let low = scales[i % 8] >> (i / 8 * 4) & 15;
                    (low | (scales[8 + i % 4] >> (i / 4 * 2) & 3) << 4).wrapping_sub(32)
                });
                for i in 0..BLOCK {
                    let low = at[32 + j / 4 * 32 + i] >> (2 * (j % 4)) & 3;
                    block.q[i] = low | (at[i] >> j & 1) << 2;
                }
            }
            BlockFormat::Q6K => {
                let (half, quarter) = (j / 4, j % 4);
                block.d = word(208);
                block.factors = [at[192 + half * 8 + quarter * 2], at[193 + half * 8 + quarter * 2]];
                for i in 0..BLOCK {
                    let low = at[half * 64 + quarter % 2 * 32 + i] >> (quarter / 2 * 4) & 15;
                    block.q[i] = low | (at[128 + half * 32 + i] >> (2 * quarter) & 3) << 4;
                }
            }
        }
        block
    }

    /// The scales and the offsets of both halves. All are exact: 11 bits of an f16 times up to 8.
    pub(crate) fn scales(&self, kind: ScaleKind) -> ([f32; 2], [f32; 2]) {
        let (d, m, [first, second]) = (half(self.d), half(self.m), self.factors);
        match kind {
            ScaleKind::Plain => ([d; 2], [0.0; 2]),
            ScaleKind::Offset => ([d; 2], [m; 2]),
            ScaleKind::Super => ([d * f32::from(first); 2], [m * f32::from(second); 2]),
            ScaleKind::Sixteens | ScaleKind::Sixes => {
                (self.factors.map(|factor| d * f32::from(factor as i8)), [0.0; 2])
            }
            ScaleKind::Nibbles => {
                (self.factors.map(|f| d * f32::from(f & 15)), self.factors.map(|f| m * f32::from(f >> 4)))
            }
        }
    }

    /// The weights. Products of scale and integer are exact, so the sum with the offset is rounded once.
    pub(crate) fn weights(&self, format: BlockFormat) -> [f32; BLOCK] {
        let (d, m) = self.scales(format.kind());
        let mut weights = [0.0; BLOCK];
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = d[i / 16] * (i32::from(self.q[i]) - format.zero()) as f32;
            if format.has_offset() {
                *weight += m[i / 16];
            }
        }
        weights
    }
}
