//! One summarised row, case × metric, and the two files that hold all of them.
//!
//! In: [records](Record) of a [report](crate::report). Out: `records.csv` (flat, one row each) and `records.json` (with
//! the environment). Must not: compute anything; a record that is not here can be made again from samples and
//! predictions.

use std::{borrow::Cow, path::Path};

use ergometer_files::Links;
use serde::{Deserialize, Serialize};

use crate::{
    case::Baseline, clean::csv_cell, environment::Environment, error::ReportError, metric::Better, missing::Missing,
    store::pretty,
};

/// Version of `records.csv` and `records.json`; a new meaning gets a new number.
pub const RECORDS_SCHEMA: u32 = 1;

/// Largest `records.csv` that is read, bytes.
const MAX_RECORDS_BYTES: u64 = 256 << 20;

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
    /// Of an accuracy: [fingerprint](crate::compare::protocol::fingerprint) of how the answers were arrived at, and
    /// what it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
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
#[derive(Serialize, Deserialize)]
struct Row<'a> {
    schema: u32,
    case_id: Cow<'a, str>,
    path: Cow<'a, str>,
    task: Cow<'a, str>,
    model: Cow<'a, str>,
    family: Cow<'a, str>,
    backend: Cow<'a, str>,
    precision: Cow<'a, str>,
    scenario: Cow<'a, str>,
    batch: u32,
    threads: u32,
    depth: Cow<'a, str>,
    isa: Cow<'a, str>,
    metric: Cow<'a, str>,
    unit: Cow<'a, str>,
    better: Better,
    value: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
    confidence: Option<f64>,
    n: u64,
    method: Cow<'a, str>,
    note: Option<Cow<'a, str>>,
    error_kind: Option<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
    hint: Option<Cow<'a, str>>,
    baselines: Cow<'a, str>,
    protocol: Option<Cow<'a, str>>,
}

/// Bytes of `records.csv`.
pub fn to_csv(records: &[Record]) -> Result<Vec<u8>, ReportError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for r in records {
        let missing = r.missing.as_ref();
        let row = Row {
            schema: RECORDS_SCHEMA,
            case_id: Cow::from(&r.case_id),
            path: Cow::from(&r.path),
            task: Cow::from(&r.task),
            model: Cow::from(&r.model),
            family: Cow::from(&r.family),
            backend: Cow::from(&r.backend),
            precision: Cow::from(&r.precision),
            scenario: Cow::from(&r.scenario),
            batch: r.batch,
            threads: r.threads,
            depth: Cow::from(&r.depth),
            isa: Cow::from(&r.isa),
            metric: Cow::from(&r.metric),
            unit: Cow::from(&r.unit),
            better: r.better,
            value: r.value,
            lower: r.lower,
            upper: r.upper,
            confidence: r.confidence,
            n: r.n,
            method: Cow::from(&r.method),
            note: r.note.as_deref().map(Cow::from),
            error_kind: missing.map(|m| Cow::from(&m.kind)),
            error: missing.map(|m| Cow::from(&m.message)),
            hint: missing.and_then(|m| m.hint.as_deref().map(Cow::from)),
            baselines: r
                .baselines
                .iter()
                .map(|b| format!("{}={}/{}", b.name, b.right, b.of))
                .collect::<Vec<_>>()
                .join("; ")
                .into(),
            protocol: r.protocol.as_deref().map(Cow::from),
        };
        writer.serialize(row).map_err(|e| ReportError::render("records.csv", e))?;
    }
    let raw = writer.into_inner().map_err(|e| ReportError::render("records.csv", e))?;
    guarded(&raw)
}

/// The records of a `records.csv`; their baselines are left out.
///
/// # Errors
/// A file that cannot be read, is larger than `MAX_RECORDS_BYTES` or is not what [`to_csv`] writes.
pub fn from_csv(path: &Path) -> Result<Vec<Record>, ReportError> {
    let bytes =
        ergometer_files::read(path, MAX_RECORDS_BYTES, Links::Followed).map_err(ReportError::io("read", path))?;
    let rows = csv::Reader::from_reader(&bytes[..]).into_deserialize::<Row<'static>>().zip(2..);
    let hint = "`ergometer report RUN --format csv` writes the file anew";
    let record = |(row, line): (Result<Row<'static>, csv::Error>, u64)| {
        let row = row.map_err(|e| ReportError::bad(path, Some(line), e.to_string(), hint))?;
        if row.schema != RECORDS_SCHEMA {
            let message = format!("its schema is {}, and this program reads {RECORDS_SCHEMA}", row.schema);
            return Err(ReportError::bad(path, Some(line), message, hint));
        }
        let missing = row.error_kind.map(|kind| Missing {
            kind: kind.into(),
            message: row.error.unwrap_or_default().into(),
            hint: row.hint.map(Cow::into_owned),
        });
        Ok(Record {
            case_id: row.case_id.into(),
            path: row.path.into(),
            task: row.task.into(),
            model: row.model.into(),
            family: row.family.into(),
            backend: row.backend.into(),
            precision: row.precision.into(),
            scenario: row.scenario.into(),
            batch: row.batch,
            threads: row.threads,
            depth: row.depth.into(),
            isa: row.isa.into(),
            metric: row.metric.into(),
            unit: row.unit.into(),
            better: row.better,
            value: row.value,
            lower: row.lower,
            upper: row.upper,
            confidence: row.confidence,
            n: row.n,
            method: row.method.into(),
            note: row.note.map(Cow::into_owned),
            missing,
            baselines: Vec::new(),
            protocol: row.protocol.map(Cow::into_owned),
        })
    };
    rows.map(record).collect()
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
