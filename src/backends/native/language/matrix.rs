//! Matrices of a decoder as native holds them, and the products with them.
//!
//! In: rows of stored tensors. Out: packed weights, once in memory; products and single rows. Must not: keep a tensor as f32 beside
//! its packed form.
//!
//! Precision `stored` packs the blocks of the file as they are, rows of f32, f16 and bf16 in their type (f16 that a file has as columns,
//! as GPT-2's, as f32). Other precisions pack what the
//! blocks stand for.

use std::borrow::Cow;

use ergometer_kernels::{
    self as kernels, BlockFormat, Context, NumberFormat, PackedBlocks, PackedHalves, PackedLinear,
};
use ergometer_language::blocks::BlockType;

use super::super::super::{BackendError, Unavailable};
use crate::models::ModelError;
use crate::models::language::{LanguageModel, StoredRows};

/// What a precision makes of weights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum WeightsAs {
    /// Blocks as the file has them.
    Stored,
    /// Dequantised, then rounded to the format.
    Format(NumberFormat),
}

/// A matrix `[outputs, inputs]`.
pub(super) enum Matrix {
    /// Rows in blocks, one format after another; a product of all is one call.
    Blocks(Vec<PackedBlocks>),
    /// Rows in f16.
    Halves(PackedHalves),
    /// Rows in a number format.
    Plain(PackedLinear),
    /// Some of either, one after another.
    Mixed(Vec<Matrix>),
}

/// Bytes of rows that are read at a time.
const PIECE: usize = 1 << 20;
/// Rows of a panel of the kernels: pieces begin at multiples of it.
const PANEL: usize = 16;

impl Matrix {
    /// Reads and packs these rows of `inputs` columns.
    ///
    /// # Errors
    /// The file cannot be read; it has blocks that no kernel multiplies.
    pub fn read(
        ctx: &Context,
        model: &LanguageModel,
        weights: WeightsAs,
        rows: &StoredRows,
        inputs: usize,
    ) -> Result<Self, BackendError> {
        let WeightsAs::Stored = weights else {
            let WeightsAs::Format(format) = weights else { unreachable!("there are two") };
            return plain(ctx, model, format, rows, inputs);
        };
        let kind = |name: &str| model.decoder().tensors().get(name).map_or(BlockType::F32, |t| t.kind);
        let mut found: Vec<Matrix> = Vec::new();
        // neighbours of one type are one piece
        for rows in rows.chunk_by(|(a, _), (b, _)| kind(a) == kind(b)) {
            let kind = kind(&rows[0].0);
            let piece = match kind {
                BlockType::F32 => plain(ctx, model, NumberFormat::F32, rows, inputs)?,
                // columns of the file: as f32, since pieces of rows are not there to be read
                BlockType::F16 if transposed(model, &rows[0].0) => plain(ctx, model, NumberFormat::F32, rows, inputs)?,
                BlockType::F16 => Matrix::Halves(halves(ctx, model, rows, inputs)?),
                BlockType::Bf16 => plain(ctx, model, NumberFormat::Bf16, rows, inputs)?,
                kind => Matrix::Blocks(vec![blocks(ctx, model, kind, rows, inputs)?]),
            };
            match (found.last_mut(), piece) {
                (Some(Matrix::Blocks(before)), Matrix::Blocks(more)) => before.extend(more),
                (_, piece) => found.push(piece),
            }
        }
        match found.pop() {
            Some(only) if found.is_empty() => Ok(only),
            last => Ok(Matrix::Mixed(found.into_iter().chain(last).collect())),
        }
    }

    /// Packs a matrix of f32.
    pub fn plain(ctx: &Context, format: NumberFormat, values: &[f32], outputs: usize, inputs: usize) -> Self {
        Self::Plain(PackedLinear::pack(ctx, format, values, outputs, inputs))
    }

    /// Output features.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Blocks(all) => all.iter().map(PackedBlocks::n).sum(),
            Self::Halves(packed) => packed.n(),
            Self::Plain(packed) => packed.n(),
            Self::Mixed(all) => all.iter().map(Matrix::outputs).sum(),
        }
    }

    /// Input features.
    pub fn inputs(&self) -> usize {
        match self {
            Self::Blocks(all) => all.first().map_or(0, PackedBlocks::k),
            Self::Halves(packed) => packed.k(),
            Self::Plain(packed) => packed.k(),
            Self::Mixed(all) => all.first().map_or(0, Matrix::inputs),
        }
    }

    /// `out[m, outputs] = x[m, inputs] · Wᵀ`
    pub fn product(&self, ctx: &Context, x: &[f32], out: &mut [f32]) {
        match self {
            Self::Blocks(all) => match all.as_slice() {
                [only] => kernels::blocks_linear(ctx, x, only, out),
                all => kernels::blocks_joined(ctx, x, &all.iter().collect::<Vec<_>>(), out),
            },
            Self::Halves(packed) => kernels::halves_linear(ctx, x, packed, out),
            Self::Plain(packed) => kernels::linear(ctx, x, packed, None, out),
            Self::Mixed(all) => {
                let (rows, wide) = (x.len() / self.inputs(), self.outputs());
                let (mut at, mut own) = (0, Vec::new());
                for piece in all {
                    let n = piece.outputs();
                    own.resize(rows * n, 0.0);
                    piece.product(ctx, x, &mut own);
                    kernels::copy_rows(&own, n, &mut out[at..], wide, n, rows);
                    at += n;
                }
            }
        }
    }

    /// Its rows of these numbers, times a factor. A table of rows is one stored tensor, so one piece.
    pub fn rows(&self, ctx: &Context, ids: &[u32], factor: f32, out: &mut [f32]) {
        match self {
            Self::Blocks(all) => kernels::embed_rows(ctx, &all[0], ids, factor, out),
            Self::Halves(packed) => kernels::halves_rows(ctx, packed, ids, factor, out),
            Self::Plain(packed) => kernels::linear_rows(ctx, packed, ids, factor, out),
            Self::Mixed(all) => all[0].rows(ctx, ids, factor, out),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Blocks(all) => all.iter().map(PackedBlocks::bytes).sum(),
            Self::Halves(packed) => packed.bytes(),
            Self::Plain(packed) => packed.bytes(),
            Self::Mixed(all) => all.iter().map(Matrix::bytes).sum(),
        }
    }
}

fn failed(e: impl Into<ModelError>) -> BackendError {
    BackendError::Failed(e.into().to_string())
}

fn plain(
    ctx: &Context,
    model: &LanguageModel,
    format: NumberFormat,
    rows: &[(String, std::ops::Range<usize>)],
    inputs: usize,
) -> Result<Matrix, BackendError> {
    let mut values = Cow::Borrowed(&[][..]);
    for (name, rows) in rows {
        let read = model.decoder().rows(name, rows.clone()).map_err(failed)?;
        if values.is_empty() { values = Cow::Owned(read) } else { values.to_mut().extend(read) }
    }
    Ok(Matrix::plain(ctx, format, &values, values.len() / inputs, inputs))
}

/// Packs rows of one type of blocks, a piece at a time.
fn blocks(
    ctx: &Context,
    model: &LanguageModel,
    kind: BlockType,
    rows: &[(String, std::ops::Range<usize>)],
    inputs: usize,
) -> Result<PackedBlocks, BackendError> {
    let format: BlockFormat = kind.name().parse().map_err(|text: String| {
        let reason = text.lines().next().unwrap_or_default().to_owned();
        BackendError::Unavailable(Unavailable {
            reason,
            hint: Some("ask for precision f32 or bf16, which dequantise it".into()),
        })
    })?;
    let total = rows.iter().map(|(_, rows)| rows.len()).sum();
    let mut packed = PackedBlocks::zeros(ctx, format, total, inputs);
    let row_bytes = inputs / format.block_len() * format.block_bytes();
    in_pieces(model, rows, row_bytes, |first, bytes| packed.write(ctx, first, bytes))?;
    Ok(packed)
}

/// Packs rows of f16, a piece at a time.
fn halves(
    ctx: &Context,
    model: &LanguageModel,
    rows: &[(String, std::ops::Range<usize>)],
    inputs: usize,
) -> Result<PackedHalves, BackendError> {
    let mut packed = PackedHalves::zeros(rows.iter().map(|(_, rows)| rows.len()).sum(), inputs);
    let mut damaged = false;
    in_pieces(model, rows, 2 * inputs, |first, bytes| {
        // all bits of the exponent: neither infinity nor NaN is a weight
        damaged |= bytes.chunks_exact(2).any(|half| half[1] & 0x7c == 0x7c);
        packed.write(ctx, first, bytes);
    })?;
    if damaged {
        let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!("`{}` has weights that are not finite", names.join("`, `"));
        return Err(failed(
            ModelError::new(&model.path, message).hint("the weights are damaged: fetch the file again"),
        ));
    }
    Ok(packed)
}

/// Whether a tensor is stored with its rows as columns.
fn transposed(model: &LanguageModel, name: &str) -> bool {
    model.decoder().tensors().get(name).is_some_and(|t| t.parts.iter().any(|part| part.transposed))
}

/// Reads rows of `row_bytes` bytes a piece at a time; `f` gets the first row of each, a whole number of panels, and its bytes.
fn in_pieces(
    model: &LanguageModel,
    rows: &[(String, std::ops::Range<usize>)],
    row_bytes: usize,
    mut f: impl FnMut(usize, &[u8]),
) -> Result<(), BackendError> {
    let total: usize = rows.iter().map(|(_, rows)| rows.len()).sum();
    let (step, mut bytes) = ((PIECE / row_bytes.max(1)).next_multiple_of(PANEL), Vec::new());
    for first in (0..total).step_by(step) {
        bytes.clear();
        let (end, mut before) = (total.min(first + step), 0);
        for (name, rows) in rows {
            let after = before + rows.len();
            let (from, to) = (first.clamp(before, after), end.clamp(before, after));
            if from < to {
                let own = rows.start + from - before..rows.start + to - before;
                model.decoder().stored_rows(name, own, &mut bytes).map_err(failed)?;
            }
            before = after;
        }
        f(first, &bytes);
    }
    Ok(())
}
