//! What a case records of a model that is a file: what the file says of itself, and how far its outputs were from others.
//!
//! In: what a runner found. Out: plain values, as `case.json` has them. Must not: read a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How far one output is from what it is compared with. Differences are over the largest magnitude of the latter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputComparison {
    /// Its name.
    pub output: String,
    /// Values compared.
    pub values: u64,
    /// Largest difference.
    pub largest: f64,
    /// Mean difference.
    pub mean: f64,
    /// Cosine of the two as vectors; none where one of them is zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
    /// Share of rows along the last axis whose largest value stands at the same place; none where that axis is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_argmax: Option<f64>,
}

/// What an ONNX file says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Version of the format.
    pub ir_version: i64,
    /// Operator sets, the standard's as its number alone.
    pub opsets: String,
    /// Who wrote it.
    pub producer: String,
    /// Named texts in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Operators, those of graphs within graphs included.
    pub nodes: u64,
    /// How often each stands there.
    pub operators: BTreeMap<String, u64>,
    /// Elements of its constants of floating point, or of 8 bits and fewer, scalars left out.
    pub parameters: u64,
    /// Bytes of its constants.
    pub constant_bytes: u64,
    /// What it computes in.
    pub precision: String,
    /// Open dimensions that were bound.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bound: BTreeMap<String, u64>,
    /// How many rows a call may have.
    pub rows: String,
    /// Operations of one row (of a sequence: one step of it); none where shapes are lost on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops: Option<f64>,
    /// How they are counted, or where shapes are lost.
    pub flops_counted: String,
}
