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

/// Logits of a language model to hold others to.
pub struct LanguageJudge {
    /// The tokens that they are for.
    pub questions: PathBuf,
    /// Of the model as it is.
    pub vectors: LanguageVectors,
    /// Of a mixture with every expert active, and how many these are.
    pub all_experts: Option<(u32, LanguageVectors)>,
}

/// What outputs are judged by.
pub enum Judge {
    /// The interpreter's vectors, and the file of their questions.
    Reference(PathBuf, Vectors),
    /// Its logits of a language model.
    Language(LanguageJudge),
    /// Recorded outputs, or another engine's: of a model that is a file.
    Peer(PeerOutputs),
}

/// What to judge by, or how the attempt to make it ended.
pub type ReferenceVectors<'a> = Result<&'a Judge, &'a CaseError>;
