//! Weights in quantised blocks, laid out once for the products. In: rows as a file has them. Out: panels of 16 rows.
//!
//! A panel holds, for each block of 32 along k, lines of 16 words: a word is of one row, and of a line of bytes holds
//! four neighbouring k (a group; a block has eight). Of 4 bits, line `l` has group `l` in the lower halves of its bytes
//! and group `4 + l` in the upper ones; a fifth bit of group `g` is bit `g` of each byte of a fifth line; the bits 5 and
//! 6 of Q6_K are two lines more, of four groups each. Of 2 bits, line `l` has the groups `4 · l` to `4 · l + 3`; a third bit of
//! group `g` is bit `g` of each byte of a third line. Before the lines of one, two or eight blocks (a run) stand their
//! scales, as narrow as the file has them (6 bits: a byte; of Q3_K 4 bits, and 2 in other bytes), 16 rows side by side and padded to a
//! line: so a product reads one stream of memory, in order. The scalar reference keeps the file's rows.

use super::format::{BLOCK, BlockFormat, FileBlock, ScaleKind};
use crate::context::Context;
use crate::isa::Isa;
use crate::matrix::{Aligned, bytes, bytes_mut};

/// Rows of a panel.
pub(crate) const ROWS: usize = 16;
/// Bytes of a line.
pub(crate) const LINE_BYTES: usize = 4 * ROWS;

/// A weight, `[n, k]`, in quantised blocks, laid out for one instruction set.
pub struct PackedBlocks {
    pub(crate) isa: Isa,
    pub(crate) format: BlockFormat,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Panels; of the scalar reference the file's bytes.
    pub(crate) data: Aligned,
}

/// Lines of a block of 32.
pub(crate) const fn lines(format: BlockFormat) -> usize {
    format.bits() as usize
}

/// Blocks of a run, which have their scales before them.
pub(crate) const fn run_blocks(kind: ScaleKind) -> usize {
    match kind {
        ScaleKind::Plain => 2,
        ScaleKind::Offset => 1,
        ScaleKind::Super | ScaleKind::Sixteens | ScaleKind::Nibbles | ScaleKind::Sixes => 8,
    }
}

/// Bytes of the scales of a run, whole lines.
pub(crate) const fn scale_bytes(kind: ScaleKind) -> usize {
    match kind {
        // an f16 for each of two blocks; two f16
        ScaleKind::Plain | ScaleKind::Offset => 4 * ROWS,
        // two f16, and two bytes for each block of 32
        ScaleKind::Super => (4 + 8 * 2) * ROWS,
        // an f16, and a byte for each block of 16: 18 rows of bytes, padded
        ScaleKind::Sixteens => ((2 + 16) * ROWS).next_multiple_of(LINE_BYTES),
        // two f16, and two bytes for each block of 32
        ScaleKind::Nibbles => (4 + 8 * 2) * ROWS,
        // an f16, a byte for each block of 32, and one for two of them: 14 rows of bytes, padded
        ScaleKind::Sixes => ((2 + 8 + 4) * ROWS).next_multiple_of(LINE_BYTES),
    }
}

/// Words of a panel of `blocks` blocks.
pub(crate) const fn panel_words(format: BlockFormat, blocks: usize) -> usize {
    let runs = blocks.div_ceil(run_blocks(format.kind()));
    (blocks * lines(format) * LINE_BYTES + runs * scale_bytes(format.kind())) / 4
}

/// Bytes of a whole run.
pub(crate) const fn run_bytes(format: BlockFormat) -> usize {
    scale_bytes(format.kind()) + run_blocks(format.kind()) * lines(format) * LINE_BYTES
}

/// Where block `j` of a run has its lines, in bytes from the run's beginning.
pub(crate) const fn lines_at(format: BlockFormat, j: usize) -> usize {
    scale_bytes(format.kind()) + j * lines(format) * LINE_BYTES
}

/// Where the scales of block `j` of a run stand, in bytes from the run's beginning: `(d, m, factors)` of row 0; of another
/// row as many elements later. Parts that the kind does not have are 0.
pub(crate) const fn scale_at(kind: ScaleKind, j: usize) -> (usize, usize, [usize; 2]) {
    match kind {
        ScaleKind::Plain => (j * 2 * ROWS, 0, [0; 2]),
        ScaleKind::Offset => (0, 2 * ROWS, [0; 2]),
        ScaleKind::Super => (0, 2 * ROWS, [(4 + j * 2) * ROWS, (5 + j * 2) * ROWS]),
        ScaleKind::Sixteens => (0, 0, [(2 + j * 2) * ROWS, (3 + j * 2) * ROWS]),
        ScaleKind::Nibbles => (0, 2 * ROWS, [(4 + j * 2) * ROWS, (5 + j * 2) * ROWS]),
        // the lower 4 bits of both halves in a byte, and the upper 2 in a byte that two blocks share
        ScaleKind::Sixes => (0, 0, [(2 + j) * ROWS, (10 + j / 2) * ROWS]),
    }
}

/// Products of bytes of this instruction set saturate, so weights of 8 bits are signed.
pub(crate) const fn signed(isa: Isa) -> bool {
    matches!(isa, Isa::Avx2 | Isa::Avx512)
}

/// The place of integer `i` of a block: line, shift within the word, of the lower bits; of the bits above them line, shift.
const fn place(bits: u32, i: usize) -> ((usize, usize), (usize, usize)) {
    let (group, byte) = (i / 4, i % 4);
    match bits {
        8 => ((group, 8 * byte), (0, 0)),
        5 => ((group % 4, 8 * byte + group / 4 * 4), (4, 8 * byte + group)),
        6 => ((group % 4, 8 * byte + group / 4 * 4), (4 + group / 4, 8 * byte + group % 4 * 2)),
        2 => ((group / 4, 8 * byte + group % 4 * 2), (0, 0)),
        3 => ((group / 4, 8 * byte + group % 4 * 2), (2, 8 * byte + group)),
        _ => ((group % 4, 8 * byte + group / 4 * 4), (0, 0)),
    }
}

impl PackedBlocks {
    /// Packs the rows `rows: [n, k]`, as a file has them, for the context's instruction set.
    ///
    /// # Panics
    /// If `k` is not whole blocks of the format, or `rows` are not as many bytes as those are.
    pub fn pack(ctx: &Context, format: BlockFormat, rows: &[u8], n: usize, k: usize) -> PackedBlocks {
        let mut packed = PackedBlocks::zeros(ctx, format, n, k);
        packed.write(ctx, 0, rows);
        assert_eq!(rows.len(), n * packed.row_bytes(), "PackedBlocks::pack: not [{n}, {k}] of {format}");
        packed
    }

    /// A weight of zeros, whose rows [`PackedBlocks::write`] brings piece by piece: then no more than a piece of them is in
    /// memory twice.
    ///
    /// # Panics
    /// If `k` is not whole blocks of the format.
    pub fn zeros(ctx: &Context, format: BlockFormat, n: usize, k: usize) -> PackedBlocks {
        let (isa, unit) = (ctx.isa(), format.block_len());
        assert!(k.is_multiple_of(unit), "PackedBlocks: rows of {k} are not whole blocks of {unit}, {format}");
        let words = match isa {
            Isa::Scalar => (n * (k / unit) * format.block_bytes()).div_ceil(4),
            _ => n.div_ceil(ROWS) * panel_words(format, k / BLOCK),
        };
        PackedBlocks { isa, format, n, k, data: Aligned::weights(words) }
    }

    /// Writes `rows`, as a file has them, from row `first` on, a multiple of 16; each row once.
    ///
    /// # Panics
    /// If `rows` are not whole rows, more than there are, or begin elsewhere.
    pub fn write(&mut self, ctx: &Context, first: usize, rows: &[u8]) {
        let (row_bytes, format, isa, blocks) = (self.row_bytes(), self.format, self.isa, self.k / BLOCK);
        if row_bytes == 0 {
            return;
        }
        let count = rows.len() / row_bytes;
        assert!(
            rows.len().is_multiple_of(row_bytes) && first.is_multiple_of(ROWS) && first + count <= self.n,
            "PackedBlocks::write: {} bytes from row {first} on are no rows of [{}, {}] of {format}",
            rows.len(),
            self.n,
            self.k
        );
        if isa == Isa::Scalar {
            bytes_mut(&mut self.data)[first * row_bytes..][..rows.len()].copy_from_slice(rows);
            return;
        }
        let words = self.stride();
        let panels = &mut self.data[first / ROWS * words..][..count.div_ceil(ROWS) * words];
        ctx.pool().chunks(panels, words, |p, panel| {
            let rows = &rows[p * ROWS * row_bytes..((p + 1) * ROWS).min(count) * row_bytes];
            for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
                for b in 0..blocks {
                    put(format, isa, panel, b, lane, FileBlock::read(format, row, b));
                }
            }
        });
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The format of the blocks.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Bytes of memory held, padding included: what a product with one row reads.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data)
    }

    /// Columns that a product computes: whole panels.
    pub(crate) fn padded(&self) -> usize {
        if self.isa == Isa::Scalar { self.n } else { self.n.next_multiple_of(ROWS) }
    }

    /// Where the panel of row `first` begins.
    pub(crate) fn address(&self, first: usize) -> *const u8 {
        self.data.start().wrapping_add(first / ROWS * self.stride()).cast()
    }

    /// Words from the start of one panel to the next.
    pub(crate) fn stride(&self) -> usize {
        panel_words(self.format, self.k / BLOCK)
    }

    /// Bytes of a row in the file.
    pub(crate) fn row_bytes(&self) -> usize {
        self.k / self.format.block_len() * self.format.block_bytes()
    }

    /// Block `b` of row `j`.
    pub(crate) fn block(&self, j: usize, b: usize) -> FileBlock {
        assert!(j < self.n, "row {j} of {}", self.n);
        if self.isa == Isa::Scalar {
            return FileBlock::read(self.format, &bytes(&self.data)[j * self.row_bytes()..][..self.row_bytes()], b);
        }
        take(self.format, self.isa, &self.data[j / ROWS * self.stride()..][..self.stride()], b, j % ROWS)
    }
}

/// Writes a block of one row into a panel of zeros.
fn put(format: BlockFormat, isa: Isa, panel: &mut [u32], b: usize, lane: usize, block: FileBlock) {
    let (bits, flip) = (format.bits(), if format.bits() == 8 && signed(isa) { 0x80 } else { 0 });
    let blocks = run_blocks(format.kind());
    let (run, j) = (&mut panel[b / blocks * run_bytes(format) / 4..], b % blocks);
    let lines = &mut run[lines_at(format, j) / 4..];
    for (i, q) in block.q.into_iter().enumerate() {
        let ((line, shift), (high, high_shift)) = place(bits, i);
        let low = if bits == 8 { q ^ flip } else { q & ((1 << format.low_bits()) - 1) };
        lines[line * ROWS + lane] |= u32::from(low) << shift;
        if bits > format.low_bits() {
            lines[high * ROWS + lane] |= u32::from(q >> format.low_bits()) << high_shift;
        }
    }
    let scales = bytes_mut(run);
    let (d, m, factors) = scale_at(format.kind(), j);
    scales[d + 2 * lane..][..2].copy_from_slice(&block.d.to_le_bytes());
    if format.has_offset() {
        scales[m + 2 * lane..][..2].copy_from_slice(&block.m.to_le_bytes());
    }
    match format.kind() {
        ScaleKind::Plain | ScaleKind::Offset => {}
        ScaleKind::Super | ScaleKind::Sixteens | ScaleKind::Nibbles => {
            for (at, factor) in factors.into_iter().zip(block.factors) {
                scales[at + lane] = factor;
            }
        }
        ScaleKind::Sixes => {
            for (half, factor) in block.factors.into_iter().enumerate() {
                let factor = factor.wrapping_add(32);
                scales[factors[0] + lane] |= (factor & 15) << (4 * half);
                scales[factors[1] + lane] |= (factor >> 4) << (4 * (j % 2) + 2 * half);
            }
        }
    }
}

/// What `put` wrote.
fn take(format: BlockFormat, isa: Isa, panel: &[u32], b: usize, lane: usize) -> FileBlock {
    let (bits, flip) = (format.bits(), if format.bits() == 8 && signed(isa) { 0x80 } else { 0 });
    let blocks = run_blocks(format.kind());
    let (run, j) = (&panel[b / blocks * run_bytes(format) / 4..], b % blocks);
    let lines = &run[lines_at(format, j) / 4..];
    let mut q = [0; BLOCK];
    for (i, q) in q.iter_mut().enumerate() {
        let ((line, shift), (high, high_shift)) = place(bits, i);
        let low = lines[line * ROWS + lane] >> shift;
        let above = |mask: u32| (lines[high * ROWS + lane] >> high_shift & mask) << format.low_bits();
        *q = match bits {
            8 => low as u8 ^ flip,
            6 => (low & 15 | above(3)) as u8,
            5 => (low & 15 | above(1)) as u8,
            3 => (low & 3 | above(1)) as u8,
            2 => (low & 3) as u8,
            _ => (low & 15) as u8,
        };
    }
    let scales = bytes(run);
    let (d, m, factors) = scale_at(format.kind(), j);
    let word = |at: usize| u16::from_le_bytes([scales[at], scales[at + 1]]);
    let sixes = |half: usize| {
        let (low, high) = (scales[factors[0] + lane], scales[factors[1] + lane]);
        (low >> (4 * half) & 15 | (high >> (4 * (j % 2) + 2 * half) & 3) << 4).wrapping_sub(32)
    };
    FileBlock {
        q,
        d: word(d + 2 * lane),
        m: if format.has_offset() { word(m + 2 * lane) } else { 0 },
        factors: match format.kind() {
            ScaleKind::Plain | ScaleKind::Offset => [1; 2],
            ScaleKind::Super | ScaleKind::Sixteens | ScaleKind::Nibbles => factors.map(|at| scales[at + lane]),
            ScaleKind::Sixes => [sixes(0), sixes(1)],
        },
    }
}
