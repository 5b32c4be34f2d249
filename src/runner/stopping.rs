//! What a suite's depth rule comes to for a model.
//!
//! In: a [`Depth`]. Out: [`Stopping`]. Must not: know a backend.

use ergometer_suites::scenario::Depth;

/// What a depth rule comes to.
pub(super) struct Stopping {
    /// Most steps of an answer.
    pub max_steps: u32,
    /// The model may halt before.
    pub halt: bool,
    /// Rows that have halted stay at work.
    pub keep: bool,
    /// The rule's name.
    pub word: String,
}

/// A one-shot model has one depth, whatever the block asks of the recursive ones beside it.
pub(super) fn stopping(asked: Depth, one_shot: bool) -> Stopping {
    let asked = if one_shot { Depth::Once } else { asked };
    let (max_steps, halt, keep) = match asked {
        Depth::Once => (1, false, false),
        Depth::Fixed(n) => (n, false, false),
        Depth::Halt(n) => (n, true, false),
        Depth::HaltKeep(n) => (n, true, true),
    };
    Stopping { max_steps, halt, keep, word: asked.to_string() }
}
