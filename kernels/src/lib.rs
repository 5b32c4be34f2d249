//! Own compute kernels (scalar, AVX2, AVX-512, AMX), the thread pool and the few system calls that need unsafe code.
//!
//! In: slices of f32, row-major, with their dimensions. Out: slices, written in place or into an output. Every operator
//! is a safe function that takes a [`Context`] (a [`Pool`] and an instruction set proven present), checks lengths by
//! assertion, and runs in parallel. Must not: know models, graphs or files, or depend on another crate of this
//! workspace.
//!
//! Three rules hold everywhere and are tested:
//! - Every operator has a scalar reference, plain code written to be read, and agrees with it on every instruction set
//!   present.
//! - On a given instruction set a row's result is the same to the bit, whatever the batch, its index in it, and the
//!   number of threads: each output has one order of accumulation, which no split and no tile changes.
//! - NaN and infinity go through as in the scalar reference. Denormals are kept, with three exceptions: the bf16
//!   instructions of `avx512bf16` and `amx` take them for zeros, the silu is 0 below -88, and weights of attention
//!   below 1e-37 are 0 (times an infinite value that is NaN, where the scalar reference has infinity). Attention
//!   divides by the sum of its exponentials last, so values within a factor of the number of tokens of the largest f32
//!   can become infinite where the scalar reference's do not.
//!
//! Weights may stay in the quantised blocks of GGUF (`blocks/`) or in f16 (`halves/`): the bits of those products are the same on every
//! instruction set too. All layers of a decoder can take a token in one run of the threads (`stack/`). Attention over a cache (`cached/`) has the same bits whether tokens come one by one or many at
//! once.
//!
//! Where things are: `<operator>/mod.rs` checks and splits, `scalar.rs` is the scalar reference, `vector.rs` (of MLPs
//! `features.rs` and `tokens.rs`) the body for all vector widths, written over `vector::Simd`. A kernel that needs more
//! than that trait gives gets a file for its instruction set in `vector/`; products of small integers have a trait of
//! their own, `vector::integers`. `matrix.rs` has the views of matrices, `number_format.rs` f32, bf16 and int8, `isa.rs`
//! the instruction sets, `sys/` what is asked of the operating system, `ceiling/` the loops that measure a machine's
//! ceilings.

// other architectures run the scalar references alone
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_macros))]

mod activation;
mod attention;
mod blocks;
mod cached;
mod ceiling;
mod context;
mod elementwise;
mod halves;
mod isa;
mod linear;
mod matrix;
mod mlp;
mod moe;
mod norm;
mod number_format;
mod pool;
mod stack;
mod sys;
mod team;
#[cfg(test)]
mod tests;
mod vector;

pub use activation::{ActivationKind, activation, gate, gated, swiglu};
pub use attention::{
    Heads, Mask, PackedHeads, RopeTables, attention, attention_operations, projected_attention,
    projected_attention_operations,
};
pub use blocks::format::BlockFormat;
pub use blocks::pack::PackedBlocks;
pub use blocks::{blocks_joined, blocks_linear, blocks_linear_operations, embed_rows};
pub use cached::{
    CachedScores, CachedTokens, HeadGains, HeadTurns, KvCache, NewTokens, cached_append, cached_attention,
};
pub use ceiling::{Ceiling, Ceilings, NoCeiling, ceilings, read_ceiling};
pub use context::Context;
pub use elementwise::{add, add_in_place, add_rows, copy, copy_rows, embed, scale};
pub use halves::{PackedHalves, halves_linear, halves_rows};
pub use isa::Isa;
pub use linear::pack::{PackedLinear, PackedTokens, linear_rows};
pub use linear::{linear, linear_norm, linear_norm_operations, linear_operations};
pub use mlp::{gated_mlp, gated_mlp_operations, token_mlp, token_mlp_operations};
pub use moe::Routes;
pub use norm::{layer_norm, rms_norm, rms_norm_in_place, rms_norm_tokens};
pub use number_format::NumberFormat;
pub use pool::Pool;
pub use stack::{RowNorm, StackHead, StackLayer, layers_step};
pub use sys::amx::amx_is_emulated;
