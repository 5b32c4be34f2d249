//! Records, statistics, renderers, comparison and recorded runs of ergometer.
//!
//! In: a run folder (`environment.json`, one folder per case). Out: records and reports, as pure functions of what was observed. Must not:
//! run a model, read a clock, know a backend.

pub mod case;
pub mod ceiling;
pub mod environment;
pub mod error;
mod footnotes;
pub mod format;
pub mod headline;
pub mod labels;
pub mod load;
pub mod metric;
mod natural;
pub mod plot;
pub mod precision;
pub mod questions;
pub mod record;
pub mod render;
pub mod report;
pub mod run_folder;
pub mod shown;
pub mod speedup;
pub mod stats;
pub mod steady;
pub mod strip;
pub mod summarise;
pub mod table;
pub mod told;

pub use error::ReportError;
pub use load::{CaseRun, Run, load, load_case};
pub use record::Record;
pub use report::Report;
pub use run_folder::{CaseWriter, RunFolder, slug};
pub use summarise::summarise;
