//! One summarised row, case × metric, and the two files that hold all of them.
//!
//! In: [records](Record) from [`summarise`](crate::summarise::summarise). Out: `records.csv` (flat, one row each) and `records.json` (with the
//! environment). Must not: compute anything; a record that is not here can be made again from samples and predictions.

use serde::{Deserialize, Serialize};

use crate::{
    case::Baseline, clean::csv_cell, environment::Environment, error::ReportError, metric::Better, missing::Missing,
    store::pretty,
};

/// Version of `records.csv` and `records.json`; a new meaning gets a new number.
pub const RECORDS_SCHEMA: u32 = 1;

/// One row: a metric of a case, or why it is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Full id of the case.
    pub case_id: String,
    /// Its readable path.
    pub path: String,
    /// Task of the case's key, as all up to `isa`.
    pub task: String,
    /// Model.
    pub model: String,
    /// Family of the model.
    pub family: String,
    /// Backend.
    pub backend: String,
    /// Precision.
    pub precision: String,
    /// Scenario.
    pub scenario: String,
    /// Rows per iteration.
    pub batch: u32,
    /// Compute threads.
    pub threads: u32,
    /// Depth rule.
    pub depth: String,
    /// Instruction set of the backend's kernels.
    pub isa: String,
    /// Name in [`METRICS`](crate::metric::METRICS).
    pub metric: String,
    /// Its unit, unscaled.
    pub unit: String,
    /// Its better-direction.
    pub better: Better,
    /// The number; none beside `missing`.
    pub value: Option<f64>,
    /// Lower end of the interval.
    pub lower: Option<f64>,
    /// Upper end of the interval.
    pub upper: Option<f64>,
    /// Confidence of the interval (or of the bound, for a tail percentile).
    pub confidence: Option<f64>,
    /// Observations behind the number.
    pub n: u64,
    /// How number and interval were found.
    pub method: String,
    /// What a reader must know: why there is no interval, drift, an estimate.
    pub note: Option<String>,
    /// Why there is no number.
    pub missing: Option<Missing>,
    /// Of `accuracy`: what rules without a model score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub baselines: Vec<Baseline>,
}

/// Content of `records.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordsFile {
    /// [`RECORDS_SCHEMA`].
    pub schema: u32,
    /// Where the numbers come from.
    pub environment: Environment,
    /// All rows.
    pub records: Vec<Record>,
}

/// Bytes of `records.json`.
pub fn to_json(environment: &Environment, records: &[Record]) -> Vec<u8> {
    pretty(&RecordsFile { schema: RECORDS_SCHEMA, environment: environment.clone(), records: records.to_vec() })
}

/// One line of `records.csv`: a record with its reason spread over columns.
#[derive(Serialize)]
struct Row<'a> {
    schema: u32,
    case_id: &'a str,
    path: &'a str,
    task: &'a str,
    model: &'a str,
    family: &'a str,
    backend: &'a str,
    precision: &'a str,
    scenario: &'a str,
    batch: u32,
    threads: u32,
    depth: &'a str,
    isa: &'a str,
    metric: &'a str,
    unit: &'a str,
    better: Better,
    value: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
    confidence: Option<f64>,
    n: u64,
    method: &'a str,
    note: Option<&'a str>,
    error_kind: Option<&'a str>,
    error: Option<&'a str>,
    hint: Option<&'a str>,
    baselines: String,
}

/// Bytes of `records.csv`.
pub fn to_csv(records: &[Record]) -> Result<Vec<u8>, ReportError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for r in records {
        let missing = r.missing.as_ref();
        let row = Row {
            schema: RECORDS_SCHEMA,
            case_id: &r.case_id,
            path: &r.path,
            task: &r.task,
            model: &r.model,
            family: &r.family,
            backend: &r.backend,
            precision: &r.precision,
            scenario: &r.scenario,
            batch: r.batch,
            threads: r.threads,
            depth: &r.depth,
            isa: &r.isa,
            metric: &r.metric,
            unit: &r.unit,
            better: r.better,
            value: r.value,
            lower: r.lower,
            upper: r.upper,
            confidence: r.confidence,
            n: r.n,
            method: &r.method,
            note: r.note.as_deref(),
            error_kind: missing.map(|m| m.kind.as_str()),
            error: missing.map(|m| m.message.as_str()),
            hint: missing.and_then(|m| m.hint.as_deref()),
            baselines: r
                .baselines
                .iter()
                .map(|b| format!("{}={}/{}", b.name, b.right, b.of))
                .collect::<Vec<_>>()
                .join("; "),
        };
        writer.serialize(row).map_err(|e| ReportError::render("records.csv", e))?;
    }
    let raw = writer.into_inner().map_err(|e| ReportError::render("records.csv", e))?;
    guarded(&raw)
}

/// The same file with every cell made harmless to spreadsheets.
fn guarded(csv: &[u8]) -> Result<Vec<u8>, ReportError> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(csv);
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in reader.records() {
        let row = row.map_err(|e| ReportError::render("records.csv", e))?;
        let cells = row.iter().map(csv_cell);
        writer.write_record(cells.map(|c| c.into_owned())).map_err(|e| ReportError::render("records.csv", e))?;
    }
    writer.into_inner().map_err(|e| ReportError::render("records.csv", e))
}
