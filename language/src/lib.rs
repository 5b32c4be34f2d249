//! Files of language models as people have them: GGUF, and Hugging Face folders.
//!
//! In: a path. Out: what the net is, its tokenizer, and where its tensors lie. Must not: build a graph, run a net, keep
//! weights, or believe a size that a file claims.

pub mod blocks;
mod error;
pub mod gguf;
pub mod table;

pub use blocks::BlockType;
pub use error::LanguageError;
pub use gguf::Gguf;
