//! Files of language models as people have them: GGUF, and Hugging Face folders.
//!
//! In: a path. Out: what the net is, its tokenizer, and where its tensors lie; files of other types made of it. Must not: build
//! a graph, run a net, keep weights, or believe a size that a file claims.
//!
//! ```no_run
//! use ergometer_language::{Decoder, Encoding};
//!
//! let decoder = Decoder::open("SmolLM2-135M-Instruct.Q4_1.gguf".as_ref())?;
//! println!("{} layers, {} parameters", decoder.config.layers.len(), decoder.parameters());
//! if let Some(tokenizer) = &decoder.tokenizer {
//!     println!("{:?}", tokenizer.encode("The capital of France is", Encoding { additions: true, special: false })?);
//! }
//! let rows = decoder.rows("layers.0.q.weight", 0..1)?;
//! # Ok::<(), ergometer_language::LanguageError>(())
//! ```

pub mod blocks;
pub mod config;
pub mod convert;
mod decoder;
mod error;
mod folder;
pub mod gguf;
pub mod names;
mod shards;
pub mod table;
pub mod tokenizer;

pub use blocks::BlockType;
pub use config::DecoderConfig;
pub use decoder::Decoder;
pub use error::LanguageError;
pub use gguf::Gguf;
pub use tokenizer::{ChatMessage, ChatTemplate, Encoding, TextTokenizer};
