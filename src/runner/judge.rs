//! What a case's outputs are judged by, once it is made.
//!
//! In: vectors of the reference interpreter, outputs of a peer. Out: the types that hold them. Must not: make or compare them.

use std::path::PathBuf;

use ergometer_reports::case::CaseError;

use crate::parity::Vectors;
use crate::parity::language::LanguageVectors;

/// Outputs to hold others to.
pub struct PeerOutputs {
    /// Whose they are: a backend, or a file of recorded outputs.
    pub peer: String,
    /// The arrays that they are for; `None`: the first examples of the task.
    pub questions: Option<PathBuf>,
    /// Examples.
    pub examples: u64,
    /// In the order of the model's interface; `None`: not known.
    pub outputs: Vec<Option<Vec<f32>>>,
}

/// What outputs are judged by.
pub enum Judge {
    /// The interpreter's vectors, and the file of their questions.
    Reference(PathBuf, Vectors),
    /// Its logits of a language model, and the file of the tokens that they are for.
    Language(PathBuf, LanguageVectors),
    /// Recorded outputs, or another engine's: of a model that is a file.
    Peer(PeerOutputs),
}

/// What to judge by, or how the attempt to make it ended.
pub type ReferenceVectors<'a> = Result<&'a Judge, &'a CaseError>;
