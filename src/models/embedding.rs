//! What the token nets put before their blocks: embedded tokens after the positions of a puzzle embedding.
//!
//! In: sizes. Out: parameters, inputs and the region that admits a row. Must not: know which family calls it.
//!
//! `x = sqrt(D) · concat(puzzle positions, token embeddings)`, with learned positions added at 1/sqrt(2) where the config asks (TRM released
//! code, `_input_embeddings`).

use super::{ModelError, Params, axis, config_error};
use crate::graph::{GraphError, Input, Output, ParamId, Region, RegionBuilder, Role, Start, ValueId, ValueType, op};

/// Sizes of an embedding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EmbeddingSize {
    pub vocab: usize,
    pub hidden: usize,
    /// Tokens of a grid.
    pub grid: usize,
    /// A learned vector is added at every position.
    pub learned: bool,
    /// Features of a puzzle embedding; 0: the net does not see which puzzle it is.
    pub puzzle_features: usize,
    /// Tokens that it puts before the grid; 0: as many as its features fill.
    pub puzzle_len: usize,
    pub puzzles: usize,
}

/// Whether `pos_encodings` asks for learned positions. Errors: a name that is not known.
pub(crate) fn learned(pos_encodings: &str) -> Result<bool, ModelError> {
    match pos_encodings {
        "learned" => Ok(true),
        "rope" | "none" => Ok(false),
        other => Err(config_error(format!("`pos_encodings` is `{other}`; known: rope, learned, none"))),
    }
}

impl EmbeddingSize {
    /// Refuses sizes that no net can have.
    pub fn check(&self) -> Result<(), ModelError> {
        axis("vocab_size", self.vocab)?;
        axis("seq_len", self.grid)?;
        axis("hidden_size", self.hidden)?;
        if self.puzzle_features > 0 {
            axis("puzzle_emb_ndim", self.puzzle_features)?;
            axis("num_puzzle_identifiers", self.puzzles)?;
        }
        Ok(())
    }

    /// Tokens before the grid.
    pub fn prefix(&self) -> usize {
        match (self.puzzle_features, self.puzzle_len) {
            (0, _) => 0,
            (features, 0) => features.div_ceil(self.hidden.max(1)),
            (_, len) => len,
        }
    }

    /// Tokens that the blocks see.
    pub fn tokens(&self) -> usize {
        self.grid.saturating_add(self.prefix())
    }
}

/// The parameters of an embedding, declared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Embedding {
    size: EmbeddingSize,
    table: ParamId,
    positions: Option<ParamId>,
    puzzles: Option<ParamId>,
}

impl Embedding {
    /// Declares the tables.
    pub fn declare(params: &mut Params, size: EmbeddingSize) -> Result<Self, ModelError> {
        let d = size.hidden;
        let start = Start::Normal(1.0 / (d as f32).sqrt());
        let table = params.add("embed_tokens.embedding_weight", &[size.vocab, d], Role::Weight, start)?;
        let positions = size
            .learned
            .then(|| params.add("embed_pos.embedding_weight", &[size.tokens(), d], Role::Weight, start))
            .transpose()?;
        let puzzles = (size.prefix() > 0)
            .then(|| {
                let shape = [size.puzzles, size.puzzle_features];
                params.add("puzzle_emb.weights", &shape, Role::PuzzleTable, Start::Constant(0.0))
            })
            .transpose()?;
        Ok(Self { size, table, positions, puzzles })
    }

    /// The tokens, and the puzzle's number where it has an embedding.
    pub fn inputs(&self) -> Vec<Input> {
        let EmbeddingSize { vocab, grid, puzzles, .. } = self.size;
        let mut inputs = vec![Input { name: "inputs".into(), ty: ValueType::index(grid), rows: vocab }];
        if self.puzzles.is_some() {
            inputs.push(Input { name: "puzzle_identifiers".into(), ty: ValueType::index(1), rows: puzzles });
        }
        inputs
    }

    /// Logits of the grid's tokens, as an output.
    pub fn logits(&self) -> Output {
        Output { name: "logits".into(), ty: ValueType::float(self.size.grid, self.size.vocab) }
    }

    /// The grid's part of `h`, which has the prefix before it.
    pub fn grid(&self, r: &mut RegionBuilder, h: ValueId) -> Result<ValueId, GraphError> {
        match self.size.prefix() {
            0 => Ok(h),
            start => r.op(op::Slice { start, len: self.size.grid }, &[h]),
        }
    }

    /// The region that turns a row's inputs into x.
    pub fn admit(&self, params: &Params) -> Result<Region, GraphError> {
        let mut r = RegionBuilder::new(&params.0, &self.inputs().iter().map(|i| i.ty).collect::<Vec<_>>());
        let mut x = r.op(op::Embed { table: self.table }, &[r.arg(0)])?;
        if let Some(table) = self.puzzles {
            let prefix = op::EmbedPrefix { table, positions: self.size.prefix(), features: self.size.hidden };
            let prefix = r.op(prefix, &[r.arg(1)])?;
            x = r.op(op::Concat, &[prefix, x])?;
        }
        let mut scale = (self.size.hidden as f32).sqrt();
        if let Some(table) = self.positions {
            x = r.op(op::AddPositions { table, cache: false }, &[x])?;
            scale *= std::f32::consts::FRAC_1_SQRT_2;
        }
        x = r.op(op::Scale(scale), &[x])?;
        Ok(r.finish(&[x]))
    }
}
