//! Records, statistics, renderers, comparison and recorded runs of ergometer.
//!
//! In: a run folder (`environment.json`, one folder per case). Out: records and reports, as pure functions of what was
//! observed. Must not: run a model, read a clock, know a backend.

pub mod answers;
pub mod case;
pub mod ceiling;
pub mod clean;
pub mod compare;
pub mod environment;
pub mod error;
mod footnotes;
pub mod format;
pub mod headline;
pub mod labels;
pub mod metric;
pub mod missing;
pub mod model_file;
mod natural;
pub mod plot;
pub mod precision;
pub mod questions;
pub mod record;
pub mod render;
pub mod report;
pub mod reported_time;
pub mod routing;
pub mod shown;
pub mod splice;
pub mod stats;
pub mod steady;
pub mod store;
pub mod strip;
pub mod studies;
mod summarise;
pub mod table;
pub mod targets;
pub mod training;

pub use error::ReportError;
pub use record::Record;
pub use report::Report;
pub use store::{CaseRun, CaseWriter, RecordedRun, RunFolder, Samples, load, load_case, slug};
