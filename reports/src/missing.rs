//! Why there is no value, where there is none.
//!
//! In: how a case failed, what was not measured. Out: [`Missing`], in words. Must not: stand beside a number.

use serde::{Deserialize, Serialize};

use crate::case::{CaseError, ErrorKind};

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// An [`ErrorKind`] of a failed case, or `unavailable`, `too-few`, `not-measured`, `no-right-answer`, `not-reached`.
    pub kind: String,
    /// In words.
    pub message: String,
    /// What to do about it, where we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Missing {
    /// Its kind, in words, and what to do about it where we know.
    pub fn new(kind: &str, message: impl Into<String>, hint: Option<&str>) -> Self {
        Self { kind: kind.into(), message: message.into(), hint: hint.map(str::to_owned) }
    }

    /// It can never be had as things are.
    pub fn unavailable(message: impl Into<String>, hint: Option<&str>) -> Self {
        Self::new("unavailable", message, hint)
    }

    /// Nothing of it was observed.
    pub fn not_measured(message: impl Into<String>, hint: Option<&str>) -> Self {
        Self::new("not-measured", message, hint)
    }
}

/// A failed case has no numbers.
impl From<&CaseError> for Missing {
    fn from(error: &CaseError) -> Self {
        Self { kind: kind_name(error.kind), message: error.message.clone(), hint: error.hint.clone() }
    }
}

/// An [`ErrorKind`] as it is written in files.
pub fn kind_name(kind: ErrorKind) -> String {
    serde_json::to_value(kind).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}
