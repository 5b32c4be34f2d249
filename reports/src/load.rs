//! Reading a run folder that anybody may have written.
//!
//! In: a folder. Out: a [`Run`], cases sorted by path and id, or an error that names file and line. Must not: follow links, panic, allocate by
//! a size that a file claims, or mend what it reads.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use ergometer_files::kind::{sniff, without_mark};
use ergometer_files::{Links, Refusal};
use serde::de::DeserializeOwned;

use crate::natural;
use crate::{
    case::{Attempt, Case, Prediction, SCHEMA, Sample, Verdict},
    environment::Environment,
    error::ReportError,
    metric::{METRICS, metric},
    run_folder::{ATTEMPT_COLUMNS, PREDICTION_COLUMNS, SAMPLE_COLUMNS, TEMPORARY, slug},
};

/// Largest `case.json` or `environment.json`, bytes.
pub const MAX_JSON_BYTES: u64 = 16 << 20;
/// Largest `samples.csv`, `predictions.csv` or `attempts.csv`, bytes.
pub const MAX_CSV_BYTES: u64 = 1 << 30;
/// Most rows of one CSV file.
pub const MAX_ROWS: usize = 5_000_000;
/// Most rows of `predictions.csv`: 422,786 puzzles with an answer after each of 16 steps, should each of them be kept.
pub const MAX_PREDICTIONS: usize = 8_000_000;
/// Longest line of a CSV file: no answer and no reason is so long.
const MAX_LINE: u64 = 1 << 20;
/// Most cases of one run.
pub const MAX_CASES: usize = 10_000;
/// Most baselines, notes, reasons, settings tried, routed layers, starts or versions that one `case.json` may list.
pub const MAX_LISTED: usize = 2_000;

/// One case as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseRun {
    /// What it is and how it ended.
    pub case: Case,
    /// Every observation, in the order of the file.
    pub samples: Vec<Sample>,
    /// Every answer.
    pub predictions: Vec<Prediction>,
    /// Every attempt at a question, where the task decides questions from several rows and this case is the one that is scored.
    pub attempts: Vec<Attempt>,
}

/// A recorded run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Machine, build, versions, meters.
    pub environment: Environment,
    /// Finished cases, sorted by path, then id.
    pub cases: Vec<CaseRun>,
}

/// Reads a whole run folder; unfinished cases are left out.
pub fn load(dir: &Path) -> Result<Run, ReportError> {
    let environment_path = dir.join("environment.json");
    let environment: Environment = read_json(&environment_path)?;
    check_schema(&environment_path, environment.schema)?;
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
    Ok(Run { environment, cases })
}

/// Reads one finished case from its folder.
pub fn load_case(folder: &Path) -> Result<CaseRun, ReportError> {
    with_rows(load_case_file(folder)?, folder)
}

fn with_rows(case: Case, folder: &Path) -> Result<CaseRun, ReportError> {
    let samples = load_samples(&folder.join("samples.csv"))?;
    let predictions = load_predictions(&folder.join("predictions.csv"))?;
    let path = folder.join("attempts.csv");
    // a case without attempts has no file of them
    let attempts = if fs::symlink_metadata(&path).is_ok() { load_attempts(&path)? } else { Vec::new() };
    at(&path, None, questions_fault(&case, &attempts))?;
    Ok(CaseRun { case, samples, predictions, attempts })
}

/// Folders of finished cases, sorted by name.
pub(crate) fn case_folders(dir: &Path) -> Result<Vec<PathBuf>, ReportError> {
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

/// What is wrong with something that may be stored, and the remedy.
pub(crate) type Fault = (String, String);

/// Reads and checks `case.json` of one folder.
pub(crate) fn load_case_file(folder: &Path) -> Result<Case, ReportError> {
    let path = folder.join("case.json");
    let case: Case = read_json(&path)?;
    check_schema(&path, case.schema)?;
    at(&path, None, case_fault(&case))?;
    if folder.file_name().is_none_or(|name| name.to_string_lossy() != slug(&case.path, &case.id)) {
        let hint = "case folders keep the name that they were given";
        return Err(ReportError::bad(&path, None, "path and id do not belong to this folder", hint));
    }
    Ok(case)
}

/// Why a case may be neither written nor read.
pub(crate) fn case_fault(case: &Case) -> Option<Fault> {
    if case.id.len() < 8 || !case.id.bytes().all(|b| b.is_ascii_hexdigit()) {
        let message = format!("`id` is `{}`, not hex digits", case.id);
        return Some((message, "the id is the sha256 of the case's key".into()));
    }
    if let Some(fault) = length_fault(case) {
        return Some(fault);
    }
    let lists = [
        ("baselines", case.baselines.len()),
        ("unavailable", case.unavailable.len()),
        ("notes", case.notes.len()),
        ("routing", case.routing.len()),
        ("starts", case.starts.len()),
        ("versions", case.versions.len()),
        ("tuning.tried", case.tuning.as_ref().map_or(0, |t| t.tried.len())),
        ("key.backend_options", case.key.backend_options.len()),
    ];
    if let Some((name, n)) = lists.iter().find(|(_, n)| *n > MAX_LISTED) {
        return Some((format!("`{name}` lists {n}"), format!("at most {MAX_LISTED} are read; was the file edited?")));
    }
    if case.starts.windows(2).any(|w| w[0] >= w[1]) {
        return Some(("`starts` does not ascend".into(), "it holds the first block of each start, in order".into()));
    }
    if let Some(unknown) = case.unavailable.iter().find(|u| metric(&u.metric).is_none()) {
        return Some(unknown_metric(&unknown.metric));
    }
    // serde_json refuses NaN but reads 1e999 as infinity
    let verdict_ok = match &case.verdict {
        Some(Verdict::Reference { largest, limit, .. } | Verdict::Peer { largest, limit, .. }) => {
            largest.is_finite() && limit.is_finite()
        }
        _ => true,
    };
    let costs_ok = case.costs.is_none_or(|c| {
        [c.flops_admit, c.flops_step, c.step_weight_bytes, c.step_value_bytes].iter().all(|v| v.is_finite())
    });
    let hint = "a value that cannot be had is `unavailable`, with its reason";
    (!verdict_ok || !costs_ok).then(|| ("a number is not finite".into(), hint.into()))
}

/// Most entries of a list or map of `case.json`, by name; each is far above what any run writes.
const MAX_ENTRIES: usize = 4096;

/// Most attempts at one output: reports count what each of them brought.
const MAX_ATTEMPTS: u32 = 1000;

/// Most experts of one layer, and of all layers.
const MAX_EXPERTS: usize = 100_000;

/// A list that is longer than any that is written: what is done for each pair of entries would take for ever.
fn length_fault(case: &Case) -> Option<Fault> {
    let tried = case.tuning.as_ref().map_or(0, |t| t.tried.len());
    let lists = [
        ("baselines", case.baselines.len(), 64),
        ("unavailable", case.unavailable.len(), METRICS.len()),
        ("notes", case.notes.len(), MAX_ENTRIES),
        ("versions", case.versions.len(), MAX_ENTRIES),
        ("backend_options", case.key.backend_options.len(), MAX_ENTRIES),
        ("tried", tried, MAX_ENTRIES),
        ("routing", case.routing.len(), MAX_ENTRIES),
        ("load", case.routing.iter().map(|r| r.load.len().max(r.probability.len())).sum(), MAX_EXPERTS),
    ];
    let (name, n, most) = lists.into_iter().find(|(_, n, most)| n > most)?;
    let hint = "the file is not as ergometer writes it; was it edited?";
    Some((format!("`{name}` has {n} entries, at most {most} are read"), hint.into()))
}

/// Why a row of `samples.csv` may be neither written nor read.
pub(crate) fn sample_fault(sample: &Sample) -> Option<Fault> {
    if metric(&sample.metric).is_none() {
        return Some(unknown_metric(&sample.metric));
    }
    not_finite(&sample.metric, sample.value)
}

/// Why a row of `predictions.csv` may be neither written nor read.
pub(crate) fn prediction_fault(prediction: &Prediction) -> Option<Fault> {
    if prediction.right > prediction.cells {
        let message = format!("{} right of {} cells", prediction.right, prediction.cells);
        return Some((message, "`right` counts cells and cannot exceed `cells`".into()));
    }
    if prediction.depth == 0 {
        return Some(("depth is 0".into(), "a one-shot model has depth 1".into()));
    }
    not_finite("halt_logit", prediction.halt_logit?)
}

/// Reads `samples.csv`.
pub fn load_samples(path: &Path) -> Result<Vec<Sample>, ReportError> {
    read_csv(path, &SAMPLE_COLUMNS, MAX_ROWS, sample_fault)
}

/// Reads `predictions.csv`.
pub fn load_predictions(path: &Path) -> Result<Vec<Prediction>, ReportError> {
    read_csv(path, &PREDICTION_COLUMNS, MAX_PREDICTIONS, prediction_fault)
}

/// Reads `attempts.csv`.
pub fn load_attempts(path: &Path) -> Result<Vec<Attempt>, ReportError> {
    read_csv(path, &ATTEMPT_COLUMNS, MAX_ROWS, attempt_fault)
}

/// Why a row of `attempts.csv` may be neither written nor read.
pub(crate) fn attempt_fault(attempt: &Attempt) -> Option<Fault> {
    if attempt.depth == 0 {
        return Some(("depth is 0".into(), "a one-shot model has depth 1".into()));
    }
    if attempt.attempt > MAX_ATTEMPTS {
        let message = format!("an attempt of number {}, {MAX_ATTEMPTS} is the most", attempt.attempt);
        return Some((
            message,
            "attempts at an output are numbered from 1 in the order in which they are handed in".into(),
        ));
    }
    if attempt.right && attempt.attempt == 0 {
        return Some(("a right attempt of number 0".into(), "0 stands for an output without an attempt".into()));
    }
    (attempt.rows == 0)
        .then(|| ("a question of 0 rows".into(), "a question is decided from the rows answered for it".into()))
}

/// Why attempts do not belong to their case: where it is scored by itself they must decide each of its questions once, else there are none.
pub(crate) fn questions_fault(case: &Case, attempts: &[Attempt]) -> Option<Fault> {
    let scored = case.error.is_none() && case.accuracy_from.as_ref() == Some(&case.id);
    let due = if scored { case.questions } else { 0 };
    let decided = attempts.iter().filter(|a| a.last).map(|a| a.question).collect::<BTreeSet<_>>().len() as u64;
    let message = format!("attempts of record decide {decided} questions, the case has {due}");
    let hint = "the attempts are not those of this case, or the file is missing or cut off; run the case again";
    (decided != due).then(|| (message, hint.into()))
}

fn not_finite(name: &str, value: f64) -> Option<Fault> {
    let hint = "a value that cannot be had is left out and named in `unavailable`";
    (!value.is_finite()).then(|| (format!("{name} is {value}"), hint.into()))
}

fn at(path: &Path, line: Option<u64>, fault: Option<Fault>) -> Result<(), ReportError> {
    fault.map_or(Ok(()), |(message, hint)| Err(ReportError::bad(path, line, message, hint)))
}

fn check_schema(path: &Path, schema: u32) -> Result<(), ReportError> {
    if schema == SCHEMA {
        return Ok(());
    }
    let message = format!("schema {schema}; this ergometer reads schema {SCHEMA}");
    let hint = match schema {
        1 => {
            "schema 1 called the column `rows` of samples.csv `row`: report it with the version of ergometer that wrote it, or run the suite again"
        }
        _ => "use the version of ergometer that wrote the run",
    };
    Err(ReportError::bad(path, None, message, hint))
}

fn unknown_metric(name: &str) -> Fault {
    let mut near: Vec<_> = METRICS.iter().map(|m| (distance(name, m.name), m.name)).collect();
    near.sort();
    let near: Vec<_> = near.iter().take(3).map(|(_, n)| format!("`{n}`")).collect();
    let shown: String = name.chars().take(60).collect();
    (format!("unknown metric `{shown}`"), format!("the nearest names are {}", near.join(", ")))
}

/// Levenshtein distance over at most 40 characters.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(40).collect();
    let b: Vec<char> = b.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
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

/// What is read, with an error where a line does not end within [`MAX_LINE`]: a reader of CSV keeps a field however long it grows.
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

fn read_csv<T: DeserializeOwned>(
    path: &Path,
    columns: &[&str],
    most: usize,
    fault: impl Fn(&T) -> Option<Fault>,
) -> Result<Vec<T>, ReportError> {
    let bad =
        |line, message: String| ReportError::bad(path, line, message, format!("the columns are {}", columns.join(",")));
    let mut reader = csv::Reader::from_reader(Lines { from: open(path, MAX_CSV_BYTES)?, since_end: 0 });
    let headers = reader.headers().map_err(|error| bad(Some(1), error.to_string()))?.clone();
    if headers.iter().ne(columns.iter().copied()) {
        let shown: String = headers.iter().collect::<Vec<_>>().join(",").chars().take(120).collect();
        return Err(bad(Some(1), format!("the header is `{shown}`")));
    }
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(rows),
            Err(error) => return Err(bad(Some(line), error.to_string())),
        }
        let line = record.position().map_or(line, |p| p.line());
        let row = record.deserialize(Some(&headers)).map_err(|error| bad(Some(line), error.to_string()))?;
        at(path, Some(line), fault(&row))?;
        if rows.len() == most {
            return Err(bad(Some(line), format!("more than {most} rows")));
        }
        rows.push(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
