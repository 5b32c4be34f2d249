//! Machine, build, versions, meters and idle state of a run: the content of `environment.json`.
//!
//! In: what the harness observed at the start of a run. Out: serde types. Must not: observe anything itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ceiling::MachineCeilings;

/// Everything about a run that is not about one case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// [`SCHEMA`](crate::case::SCHEMA).
    pub schema: u32,
    /// When the run began, RFC 3339 UTC (for people; never used in arithmetic).
    pub started: String,
    /// Name of the suite.
    pub suite: String,
    /// sha256 of the suite file, hex.
    pub suite_hash: String,
    /// The command line that reproduces the run.
    pub command: String,
    /// Version of ergometer, and the commit it was built from where known.
    pub ergometer: String,
    /// Operating system and kernel.
    pub os: String,
    /// Processor model.
    pub cpu: String,
    /// Logical processors usable by this process.
    pub cpus: u32,
    /// Instruction-set extensions present that kernels care about.
    pub isa: Vec<String>,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// True where the machine is virtual, as far as it can be told.
    pub virtual_machine: bool,
    /// GPUs by name.
    pub gpus: Vec<String>,
    /// Compiler, profile and target features of the build, and versions of libraries.
    pub versions: BTreeMap<String, String>,
    /// Each meter: name, and `ready` with its resolution or why it is unavailable.
    pub meters: Vec<MeterState>,
    /// One-minute load average before the run, if the system tells.
    pub load_before: Option<f64>,
    /// Processors that other programs kept busy on average, watched before the run; `None`: not watched, or the system
    /// does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_before: Option<f64>,
    /// Idle power before the run in watts by energy metric, where a meter gives it.
    pub idle_watts: BTreeMap<String, f64>,
    /// The models, as the run first saw them; a resumed run says what changed since.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ModelFiles>,
    /// What the machine can do at best; `None`: not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceilings: Option<MachineCeilings>,
}

/// A model's files as they were when the run first saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFiles {
    /// sha256 over what decides its computation, as in the keys of its cases.
    pub hash: String,
    /// Each file by name.
    pub files: BTreeMap<String, FileState>,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// Length.
    pub bytes: u64,
    /// When it was last written, RFC 3339 UTC.
    pub modified: String,
    /// sha256, hex; none for a very large file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What a meter said of itself when probed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeterState {
    /// Name of the meter.
    pub name: String,
    /// Metrics that it feeds.
    pub metrics: Vec<String>,
    /// Smallest step of a reading, with unit, when ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
    /// Why it is unavailable and what to do about it; `None`: ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
    /// True if its values are estimates rather than readings.
    pub estimate: bool,
}
