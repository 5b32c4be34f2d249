//! How a file that holds a whole model is used: what a suite binds, since the file leaves it open.
//!
//! In: keys of a `[[model]]` block. Out: a [`FileForm`]. Must not: look at the file, or know what its dimensions are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::error::SuiteError;
use crate::toml_table::Keys;

/// Longest bound dimension.
const MAX_LENGTH: u64 = 1 << 32;

/// What a suite says of a file beside its path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileForm {
    /// Lengths of open dimensions, by their names; one without a name is called by its input and axis, as in `x.2`.
    pub shape: BTreeMap<String, u64>,
    /// Name of the dimension that counts rows; `none`: no dimension does. Not given: it is found.
    pub batch: Option<String>,
    /// Inputs that take an output of the step before, with the name of that output.
    pub state: BTreeMap<String, String>,
}

impl FileForm {
    /// Nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The keys `shape`, `batch` and `state` of a block.
    pub(crate) fn of(keys: &Keys) -> Result<Self, SuiteError> {
        let length = |value: &Value| {
            value.as_integer().and_then(|i| u64::try_from(i).ok()).filter(|i| (1..=MAX_LENGTH).contains(i))
        };
        let shape = keys.get("shape", "lengths by name, as in `shape = { seq = 128 }`", |value| {
            value.as_table()?.iter().map(|(name, value)| Some((name.clone(), length(value)?))).collect()
        })?;
        let state = keys.get("state", "an output for each input, as in `state = { h = \"hn\" }`", |value| {
            value.as_table()?.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
        })?;
        Ok(Self { shape: shape.unwrap_or_default(), batch: keys.string("batch")?, state: state.unwrap_or_default() })
    }
}
