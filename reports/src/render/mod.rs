//! Report formats: one file and one line each.
//!
//! In: a [`Report`]. Out: named files as bytes, the same for the same run folder. Must not: read a clock, a host name
//! or anything but the report.

pub mod csv;
#[path = "every-eval-ever.rs"]
pub mod every_eval_ever;
pub mod html;
pub mod json;
#[path = "llama-bench.rs"]
pub mod llama_bench;
#[path = "lm-eval.rs"]
pub mod lm_eval;
pub mod md;
pub mod png;
pub mod svg;

use std::path::{Path, PathBuf};

pub use crate::headline::headline;
use ergometer_files::Folder;

use crate::{error::ReportError, report::Report};

/// Files of one format: relative names and contents.
pub type Files = Result<Vec<(String, Vec<u8>)>, ReportError>;

/// One way to show a report.
#[derive(Debug)]
pub struct ReportFormat {
    /// Name for `--format`.
    pub name: &'static str,
    /// What it makes.
    pub about: &'static str,
    /// Makes it.
    pub render: fn(&Report) -> Files,
}

/// Every format.
pub const FORMATS: &[ReportFormat] = &[
    ReportFormat { name: "html", about: "one self-contained page with tables and plots", render: html::render },
    ReportFormat { name: "md", about: "the headline table and notes as Markdown", render: md::render },
    ReportFormat { name: "csv", about: "every record, one row per case and metric", render: csv::render },
    ReportFormat { name: "json", about: "every record, with the environment", render: json::render },
    ReportFormat {
        name: "llama-bench",
        about: "language models at batch 1 in the lines of llama.cpp's llama-bench (JSONL)",
        render: llama_bench::render,
    },
    ReportFormat {
        name: "lm-eval",
        about: "quality of language models as lm-evaluation-harness writes it: results and samples (JSON, JSONL)",
        render: lm_eval::render,
    },
    ReportFormat {
        name: "every-eval-ever",
        about: "answers of language models with time and energy as rows of Every Eval Ever (JSONL)",
        render: every_eval_ever::render,
    },
    ReportFormat { name: "svg", about: "every plot as SVG", render: svg::render },
    ReportFormat { name: "png", about: "every plot as PNG, three pixels a point", render: png::render },
];

/// Makes these formats below the folder `report` of a run, each file in one step; returns the files' paths. A link
/// there is refused: anybody may have made it.
pub fn write_in_run(report: &Report, formats: &[&ReportFormat], run: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let dir = run.join("report");
    let folder = Folder::open(run).and_then(|run| run.make("report"));
    write_into(report, formats, &folder.map_err(ReportError::io("create the folder", &dir))?)
}

/// Makes these formats below `dir`, each file in one step; returns the files' paths.
pub fn write(report: &Report, formats: &[&ReportFormat], dir: &Path) -> Result<Vec<PathBuf>, ReportError> {
    write_into(report, formats, &Folder::create(dir).map_err(ReportError::io("create the folder", dir))?)
}

fn write_into(report: &Report, formats: &[&ReportFormat], folder: &Folder) -> Result<Vec<PathBuf>, ReportError> {
    let mut written = Vec::new();
    for format in formats {
        for (name, bytes) in (format.render)(report)? {
            let path = folder.path().join(&name);
            folder.write(&name, &bytes).map_err(ReportError::io("write", &path))?;
            written.push(path);
        }
    }
    Ok(written)
}

/// The format with this name.
pub fn format(name: &str) -> Option<&'static ReportFormat> {
    FORMATS.iter().find(|f| f.name == name)
}
