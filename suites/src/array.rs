//! Arrays of numbers: what a model is given for one example, and how an answer is read off what it gives.
//!
//! In: elements. Out: [`Array`]s of a known kind and shape, [`Reading`]s. Must not: read a file (`arrays::read` does),
//! know a model or an engine.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What the elements of an array are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElementKind {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point (IEEE half).
    F16,
    /// 64-bit floating point.
    F64,
    /// Signed, 64 bits.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 8 bits.
    U8,
    /// 0 or 1, a byte each.
    Bool,
}

impl ElementKind {
    /// All of them.
    pub const ALL: [ElementKind; 7] = [Self::F32, Self::F16, Self::F64, Self::I64, Self::I32, Self::U8, Self::Bool];

    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 => 2,
            Self::U8 | Self::Bool => 1,
        }
    }

    /// The word used in files and errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::F64 => "f64",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::U8 => "u8",
            Self::Bool => "bool",
        }
    }

    /// The kind of this [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for ElementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The elements of one input of one example, without a batch axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// What the elements are.
    pub kind: ElementKind,
    /// Elements along each axis, the slowest first; empty: one element.
    pub shape: Vec<usize>,
    /// The elements, little endian and row-major: the product of `shape` times [`ElementKind::bytes`].
    pub bytes: Arc<[u8]>,
}

impl Array {
    /// How many elements the shape says.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// How a worker turns a model's outputs into an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// The largest of the logits of each cell, of the output that the model names as its logits.
    #[default]
    Logits,
    /// Off one output.
    Output {
        /// Its name; `None`: the model's only output, or its first.
        output: Option<String>,
        /// How.
        how: Read,
        /// The axis of a row along which classes stand, for `argmax`; `None`: the last with more than one element.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        axis: Option<usize>,
    },
}

/// How an output becomes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    /// All elements, in order: [`Answer::Numbers`](crate::Answer::Numbers).
    Values,
    /// The place of the largest along one axis: [`Answer::Class`](crate::Answer::Class) where one is left, else
    /// [`Answer::Tokens`](crate::Answer::Tokens).
    Argmax,
    /// All elements of the one vector that there is: [`Answer::Likelihoods`](crate::Answer::Likelihoods).
    Likelihoods,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names_that_are_read_back() {
        for kind in ElementKind::ALL {
            assert_eq!(ElementKind::parse(kind.name()), Some(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        assert_eq!(ElementKind::parse("f8"), None);
        let array = Array { kind: ElementKind::F16, shape: vec![2, 3], bytes: vec![0; 12].into() };
        assert_eq!(array.elements() * array.kind.bytes(), array.bytes.len());
    }
}
