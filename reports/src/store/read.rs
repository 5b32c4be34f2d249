//! Reading a run folder that anybody may have written.
//!
//! In: a folder. Out: a [`RecordedRun`], cases sorted by path and id, or an error that names file and line. Must not:
//! follow links, panic, allocate by a size that a file claims, or mend what it reads.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use csv::StringRecord;
use ergometer_files::kind::{sniff, without_mark};
use ergometer_files::{Links, Refusal, TEMPORARY};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    examples,
    samples::Samples,
    schema::{
        ATTEMPT_COLUMNS, CaseRun, Fault, MAX_CASES, MAX_CSV_BYTES, MAX_ENTRIES, MAX_JSON_BYTES, MAX_PREDICTIONS,
        MAX_ROWS, MORE_PREDICTION_COLUMNS, PREDICTION_COLUMNS, RecordedRun, SAMPLE_COLUMNS, SUM_COLUMNS, attempt_fault,
        case_fault, metric_name, phase, prediction_fault, questions_fault, schema_fault, slug, sum_fault, value_fault,
    },
};
use crate::{
    case::{Attempt, Case, ExampleSum, Prediction, Sample},
    environment::Environment,
    error::ReportError,
    natural,
};

/// Longest line of a CSV file: no answer and no reason is so long.
const MAX_LINE: u64 = 1 << 20;

/// Bytes that are read at a time.
const BUFFER: usize = 1 << 16;

/// Reads a whole run folder; unfinished cases are left out.
pub fn load(dir: &Path) -> Result<RecordedRun, ReportError> {
    let environment_path = dir.join("environment.json");
    let environment: Environment = read_json(&environment_path)?;
    at(&environment_path, None, schema_fault(environment.schema))?;
    let lists = [
        environment.isa.len(),
        environment.gpus.len(),
        environment.versions.len(),
        environment.meters.len(),
        environment.idle_watts.len(),
    ];
    if lists.iter().any(|n| *n > MAX_ENTRIES) {
        let message = format!("a list has more than {MAX_ENTRIES} entries");
        let hint = "the file is not as ergometer writes it; was it edited?";
        return Err(ReportError::bad(&environment_path, None, message, hint));
    }
    let mut cases = Vec::new();
    let mut ids = BTreeSet::new();
    for folder in case_folders(dir)? {
        let case = load_case_file(&folder)?;
        if !ids.insert(case.id.clone()) {
            let message = format!("a second case with the id {}", case.id);
            return Err(ReportError::bad(&folder.join("case.json"), None, message, "remove one of the two folders"));
        }
        cases.push(with_rows(case, &folder)?);
    }
    cases.sort_by(|a, b| natural::compare(&a.case.path, &b.case.path).then_with(|| a.case.id.cmp(&b.case.id)));
    Ok(RecordedRun { environment, cases, examples: examples::load(dir)? })
}

/// Reads one finished case from its folder.
pub fn load_case(folder: &Path) -> Result<CaseRun, ReportError> {
    with_rows(load_case_file(folder)?, folder)
}

/// Reads how one case ended, without what was observed.
pub fn load_ended(folder: &Path) -> Result<Case, ReportError> {
    load_case_file(folder)
}

/// Reads the answers of one case alone.
pub fn load_answers(folder: &Path) -> Result<Vec<Prediction>, ReportError> {
    load_predictions(&folder.join("predictions.csv"))
}

fn with_rows(case: Case, folder: &Path) -> Result<CaseRun, ReportError> {
    let samples = load_samples(&folder.join("samples.csv"))?;
    let predictions = load_predictions(&folder.join("predictions.csv"))?;
    let path = folder.join("attempts.csv");
    // a case without attempts has no file of them
    let attempts = if fs::symlink_metadata(&path).is_ok() { load_attempts(&path)? } else { Vec::new() };
    at(&path, None, questions_fault(&case, &attempts))?;
    // nor has one whose scorer sums nothing
    let path = folder.join("sums.csv");
    let sums = if fs::symlink_metadata(&path).is_ok() { load_sums(&path)? } else { Vec::new() };
    Ok(CaseRun { case, samples, predictions, attempts, sums })
}

/// Folders of finished cases, sorted by name.
pub(super) fn case_folders(dir: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let cases = dir.join("cases");
    let mut folders = Vec::new();
    // what a link leads to is no part of this run
    let seen = fs::symlink_metadata(&cases).map_err(ReportError::io("list the folder", &cases))?;
    if seen.is_symlink() {
        return Err(ReportError::io("list the folder", &cases)(Refusal::Link.into()));
    }
    for entry in fs::read_dir(&cases).map_err(ReportError::io("list the folder", &cases))? {
        let entry = entry.map_err(ReportError::io("list the folder", &cases))?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            continue;
        }
        let kind = entry.file_type().map_err(ReportError::io("look at", &entry.path()))?;
        if !kind.is_dir() {
            return Err(ReportError::bad(&entry.path(), None, "not a folder", "keep only case folders in `cases`"));
        }
        folders.push(entry.path());
        if folders.len() > MAX_CASES {
            let message = format!("more than {MAX_CASES} cases");
            return Err(ReportError::bad(&cases, None, message, "split the run into several folders"));
        }
    }
    folders.sort();
    Ok(folders)
}

/// Reads and checks `case.json` of one folder.
pub(super) fn load_case_file(folder: &Path) -> Result<Case, ReportError> {
    let path = folder.join("case.json");
    let case: Case = read_json(&path)?;
    at(&path, None, schema_fault(case.schema))?;
    at(&path, None, case_fault(&case))?;
    if folder.file_name().is_none_or(|name| name.to_string_lossy() != slug(&case.path, &case.id)) {
        let hint = "case folders keep the name that they were given";
        return Err(ReportError::bad(&path, None, "path and id do not belong to this folder", hint));
    }
    Ok(case)
}

/// Reads `samples.csv`.
fn load_samples(path: &Path) -> Result<Samples, ReportError> {
    let mut samples = Samples::default();
    // the names of the rows before: most rows have one of them
    let mut known: [Vec<&'static str>; 2] = Default::default();
    read_csv(path, &SAMPLE_COLUMNS, &[], MAX_ROWS, |record, headers| {
        let [phases, metrics] = &mut known;
        let sample = match plain_sample(record, phases, metrics) {
            Some(sample) => sample,
            None => {
                let row: SampleRow = record.deserialize(Some(headers)).map_err(Wrong::Row)?;
                row.sample(phases, metrics).map_err(Wrong::Fault)?
            }
        };
        value_fault(&sample).map_or(Ok(()), |fault| Err(Wrong::Fault(fault)))?;
        samples.push(sample);
        Ok(())
    })?;
    samples.shrink();
    Ok(samples)
}

/// A row whose names are known and whose numbers are written as ergometer writes them; any other row takes the slower
/// way, which says what is wrong with it.
fn plain_sample(record: &StringRecord, phases: &[&'static str], metrics: &[&'static str]) -> Option<Sample> {
    let optional = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
    let named = |known: &[&'static str], name: &str| known.iter().copied().find(|known| *known == name);
    let mut fields = record.iter();
    let mut next = || fields.next();
    Some(Sample {
        block: next()?.parse().ok()?,
        phase: named(phases, next()?)?,
        iteration: optional(next()?)?,
        t_ns: next()?.parse().ok()?,
        example: optional(next()?)?,
        rows: optional(next()?)?,
        metric: named(metrics, next()?)?,
        value: next()?.parse().ok()?,
    })
}

/// A row of `samples.csv` as any program may write it.
#[derive(Deserialize)]
struct SampleRow {
    block: u32,
    phase: String,
    iteration: Option<u64>,
    t_ns: u64,
    example: Option<u64>,
    rows: Option<u64>,
    metric: String,
    value: f64,
}

impl SampleRow {
    /// The row with the names of the tables, which are known from now on.
    fn sample(self, phases: &mut Vec<&'static str>, metrics: &mut Vec<&'static str>) -> Result<Sample, Fault> {
        let Self { block, iteration, t_ns, example, rows, value, .. } = self;
        let (phase, metric) = (phase(&self.phase)?, metric_name(&self.metric)?);
        for (known, name) in [(phases, phase), (metrics, metric)] {
            if !known.contains(&name) {
                known.push(name);
            }
        }
        Ok(Sample { block, phase, iteration, t_ns, example, rows, metric, value })
    }
}

/// Reads `predictions.csv`.
fn load_predictions(path: &Path) -> Result<Vec<Prediction>, ReportError> {
    read_rows(path, &PREDICTION_COLUMNS, &MORE_PREDICTION_COLUMNS, MAX_PREDICTIONS, prediction_fault)
}

/// Reads `attempts.csv`.
fn load_attempts(path: &Path) -> Result<Vec<Attempt>, ReportError> {
    read_rows(path, &ATTEMPT_COLUMNS, &[], MAX_ROWS, attempt_fault)
}

/// Reads `sums.csv`.
fn load_sums(path: &Path) -> Result<Vec<ExampleSum>, ReportError> {
    read_rows(path, &SUM_COLUMNS, &[], MAX_ROWS, sum_fault)
}

fn at(path: &Path, line: Option<u64>, fault: Option<Fault>) -> Result<(), ReportError> {
    fault.map_or(Ok(()), |(message, hint)| Err(ReportError::bad(path, line, message, hint)))
}

/// Opens a regular file of at most `limit` bytes; what is added to it meanwhile is not read.
fn open(path: &Path, limit: u64) -> Result<impl Read, ReportError> {
    let opened = ergometer_files::open(path, limit, Links::Refused);
    let file = opened.map_err(|error| {
        let hint = match Refusal::of(&error) {
            Some(Refusal::Large(_)) => "measure fewer iterations in one case",
            Some(_) => "links, devices and folders are not followed; copy the file itself",
            None => return ReportError::io("read", path)(error),
        };
        ReportError::bad(path, None, error.to_string(), hint)
    })?;
    Ok(file.take(limit))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ReportError> {
    let mut bytes = Vec::new();
    open(path, MAX_JSON_BYTES)?.read_to_end(&mut bytes).map_err(ReportError::io("read", path))?;
    if let Some((what, hint)) = sniff(&bytes) {
        return Err(ReportError::bad(path, None, format!("is {what}"), hint));
    }
    serde_json::from_slice(without_mark(&bytes)).map_err(|error| {
        let hint = "the file is not as ergometer writes it; was it cut off or edited?";
        ReportError::bad(path, Some(error.line() as u64), error.to_string(), hint)
    })
}

/// What is read, with an error where a line does not end within [`MAX_LINE`]: a reader of CSV keeps a field however
/// long it grows.
struct Lines<R> {
    from: R,
    since_end: u64,
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buffer)?;
        let mut lines = buffer[..n].split(|b| *b == b'\n');
        let mut longest = lines.next().map_or(0, |first| self.since_end + first.len() as u64);
        let mut last = longest;
        for line in lines {
            last = line.len() as u64;
            longest = longest.max(last);
        }
        self.since_end = last;
        if longest > MAX_LINE {
            let message = format!("a line of more than {MAX_LINE} bytes");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
        }
        Ok(n)
    }
}

/// What is wrong with a row: its fields are not of their types, or what they say cannot be.
enum Wrong {
    Row(csv::Error),
    Fault(Fault),
}

/// Reads rows of a type one by one into a list.
fn read_rows<T: DeserializeOwned>(
    path: &Path,
    columns: &[&str],
    more: &[&str],
    most: usize,
    fault: impl Fn(&T) -> Option<Fault>,
) -> Result<Vec<T>, ReportError> {
    let mut rows = Vec::new();
    read_csv(path, columns, more, most, |record, headers| {
        let row = record.deserialize(Some(headers)).map_err(Wrong::Row)?;
        fault(&row).map_or(Ok(()), |fault| Err(Wrong::Fault(fault)))?;
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

/// Hands the rows of a file with these columns, and perhaps some of `more` after them in their order, to `take`, which
/// is also given the header.
fn read_csv(
    path: &Path,
    columns: &[&str],
    more: &[&str],
    most: usize,
    mut take: impl FnMut(&StringRecord, &StringRecord) -> Result<(), Wrong>,
) -> Result<(), ReportError> {
    let bad =
        |line, message: String| ReportError::bad(path, line, message, format!("the columns are {}", columns.join(",")));
    let lines = Lines { from: open(path, MAX_CSV_BYTES)?, since_end: 0 };
    let mut reader = csv::ReaderBuilder::new().buffer_capacity(BUFFER).from_reader(lines);
    let headers = reader.headers().map_err(|error| bad(Some(1), error.to_string()))?.clone();
    let mut further = more.iter();
    let known = headers.iter().take(columns.len()).eq(columns.iter().copied())
        && headers.iter().skip(columns.len()).all(|name| further.any(|m| *m == name));
    if !known {
        let shown: String = headers.iter().collect::<Vec<_>>().join(",").chars().take(120).collect();
        return Err(bad(Some(1), format!("the header is `{shown}`")));
    }
    let mut record = StringRecord::new();
    let mut rows = 0;
    loop {
        let line = reader.position().line();
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(bad(Some(line), error.to_string())),
        }
        let line = Some(record.position().map_or(line, |p| p.line()));
        if rows == most {
            return Err(bad(line, format!("more than {most} rows")));
        }
        rows += 1;
        match take(&record, &headers) {
            Ok(()) => {}
            Err(Wrong::Row(error)) => return Err(bad(line, error.to_string())),
            Err(Wrong::Fault(fault)) => return at(path, line, Some(fault)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "block,phase,iteration,t_ns,example,rows,metric,value";

    fn samples_of(text: &str) -> Result<Samples, ReportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.csv");
        fs::write(&path, text).unwrap();
        load_samples(&path)
    }

    #[test]
    fn rows_in_any_spelling_are_the_same_samples() {
        let plain = "3,steady,0,17,,4,latency,0.25\n3,steady,,18,,,window,2\n";
        let other = "\"3\",steady,\"0\",0x11,,+4,\"latency\",2.5e-1\r\n3,\"steady\",,18,,,window,2.0\r\n";
        let [plain, other] = [plain, other].map(|rows| samples_of(&format!("{HEADER}\n{rows}")).unwrap());
        assert_eq!((plain.len(), plain.at(0).t_ns, plain.at(1).iteration), (2, 17, None));
        assert_eq!(plain, other);
    }

    #[test]
    fn a_row_that_cannot_be_names_its_line_and_its_fault() {
        let good = "3,steady,0,17,,4,latency,0.25\n";
        for (bad, parts) in [
            ("3,stedy,0,17,,4,latency,0.25\n", ["unknown phase `stedy`", "load, first, warmup, steady, accuracy"]),
            ("3,steady,0,17,,4,latncy,0.25\n", ["unknown metric `latncy`", "`latency`"]),
            ("3,steady,0,17,,4,latency,NaN\n", ["latency is NaN", "`unavailable`"]),
            ("3,steady,x,17,,4,latency,1\n", ["invalid digit", "the columns are"]),
            ("4294967296,steady,0,17,,4,latency,1\n", ["too large", "the columns are"]),
            ("3,steady,0,17,,4,latency\n", ["fields", "the columns are"]),
        ] {
            let error = samples_of(&format!("{HEADER}\n{good}{good}{bad}")).unwrap_err().to_string();
            assert!(error.contains("samples.csv`, line 4:"), "{error}");
            assert!(parts.iter().all(|part| error.contains(part)), "{parts:?}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Rows that look right but hold arbitrary fields.
        #[test]
        fn arbitrary_rows_never_panic(
            fields in prop::collection::vec("[0-9a-z.,\"\n-]{0,12}", 5..6),
            value in any::<f64>(),
        ) {
            let row = format!("{},steady,{},latency,{value}", fields[0], fields[1..].join(","));
            if let Ok(samples) = samples_of(&format!("{HEADER}\n{row}\n")) {
                prop_assert!(samples.iter().all(|s| s.value.is_finite()));
            }
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let read = |from: &mut dyn Read| {
            let mut bytes = Vec::new();
            Lines { from, since_end: 0 }.read_to_end(&mut bytes).map(|_| bytes.len())
        };
        let lines = [&[b'x'; MAX_LINE as usize][..], b"\n"].concat();
        assert_eq!(read(&mut &lines.repeat(3)[..]).unwrap(), 3 * lines.len());
        assert!(read(&mut &[&lines[..], b"y", &lines[..]].concat()[..]).is_err());
        assert!(read(&mut std::io::repeat(0).take(1 << 40)).unwrap_err().to_string().contains("a line of more than"));
        // through the reader of tables: a sparse file of one GiB has one line
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.csv");
        fs::File::create(&path).unwrap().set_len(MAX_CSV_BYTES).unwrap();
        assert!(load_samples(&path).unwrap_err().to_string().contains("a line of more than"));
    }
}
