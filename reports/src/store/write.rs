//! Writing a run folder so that a kill at any moment loses no finished case and leaves no half one.
//!
//! In: environment, cases with their samples and predictions. Out: `DIR/environment.json`, `DIR/suite.toml`,
//! `DIR/cases/<slug>/{case.json, samples.csv, predictions.csv, attempts.csv (where questions are decided from several
//! rows), sums.csv (where a scorer sums), stderr.log}`, `DIR/records.*`, `DIR/report/`. A case is written beside its place once its worker has ended,
//! flushed to the disk, and renamed into it; every other file is replaced by rename. Must not: summarise, follow a link
//! below the folder, or read what [`load`](super::load) reads.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    sync::Arc,
};

use ergometer_files::{Folder, capped};

use super::{
    atomic::{self, pretty, write_csv},
    examples::{EXAMPLES, RecordedExample, to_lines},
    read::{case_folders, load_case_file},
    samples::Samples,
    schema::{
        ATTEMPT_COLUMNS, Fault, MAX_CASES, MAX_CSV_BYTES, MAX_JSON_BYTES, MAX_LOG_BYTES, MAX_PREDICTIONS, MAX_ROWS,
        MORE_PREDICTION_COLUMNS, PREDICTION_COLUMNS, SAMPLE_COLUMNS, SUM_COLUMNS, attempt_fault, case_fault,
        prediction_fault, questions_fault, samples_fault, slug, sum_fault,
    },
};
use crate::{
    case::{Attempt, Case, ErrorKind, ExampleSum, Prediction},
    environment::Environment,
    error::ReportError,
};

/// A run folder that is being written. It is held open: what becomes of its name, or of a link that takes the place of
/// one of its folders, changes nothing about where cases go.
#[derive(Debug)]
pub struct RunFolder {
    folder: Arc<Folder>,
    cases: Arc<Folder>,
    /// Cases that have begun and are not finished.
    begun: Arc<()>,
}

impl RunFolder {
    /// Makes a new run folder. A folder that already holds a run is an error, so that nothing is overwritten by
    /// accident.
    pub fn create(dir: &Path) -> Result<Self, ReportError> {
        let folder = Folder::create(dir).map_err(ReportError::io("create the folder", dir))?;
        let environment = dir.join("environment.json");
        if folder.has("environment.json").map_err(ReportError::io("look at", &environment))? {
            return Err(ReportError::Io {
                tried: "create the run folder",
                path: dir.to_owned(),
                source: io::Error::new(io::ErrorKind::AlreadyExists, "it already holds a run"),
            });
        }
        let cases = folder.make("cases").map_err(ReportError::io("create the folder", &dir.join("cases")))?;
        Ok(Self { folder: folder.into(), cases: cases.into(), begun: Arc::new(()) })
    }

    /// Opens an existing run folder to go on with it.
    pub fn open(dir: &Path) -> Result<Self, ReportError> {
        let folder = Folder::open(dir).map_err(|source| {
            let source = match source.kind() {
                io::ErrorKind::NotFound => io::Error::new(source.kind(), "not a run folder: there is none"),
                _ => source,
            };
            ReportError::Io { tried: "open the run folder", path: dir.to_owned(), source }
        })?;
        let cases = folder.folder("cases").map_err(|source| {
            let source = match source.kind() {
                io::ErrorKind::NotFound => io::Error::new(source.kind(), "not a run folder: it has no `cases`"),
                _ => source,
            };
            ReportError::Io { tried: "open the run folder", path: dir.join("cases"), source }
        })?;
        Ok(Self { folder: folder.into(), cases: cases.into(), begun: Arc::new(()) })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The folder itself, for what has to be opened in it.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Writes or replaces `environment.json`.
    pub fn write_environment(&self, environment: &Environment) -> Result<(), ReportError> {
        let (bytes, path) = (pretty(environment), self.dir().join("environment.json"));
        let refused = |message: String, hint: &str| Err(ReportError::bad(&path, None, message, hint));
        if bytes.len() as u64 > MAX_JSON_BYTES {
            return refused(format!("larger than {} MiB", MAX_JSON_BYTES >> 20), "report this as a fault of ergometer");
        }
        if environment.idle_watts.values().any(|w| !w.is_finite()) {
            return refused("idle power is not finite".into(), "leave out what cannot be had");
        }
        self.write_file("environment.json", &bytes)
    }

    /// Writes or replaces one file below the folder (`suite.toml`, `records.csv`, `report/index.html` ...) in one step:
    /// a reader sees the old bytes or the new ones. `name` is a relative path without `..`; a folder on the way that is
    /// a link is refused.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), ReportError> {
        self.folder.write(name, bytes).map_err(ReportError::io("write", &self.dir().join(name)))
    }

    /// Writes what examples of tasks of language asked, task by task.
    pub fn write_examples(&self, examples: &[RecordedExample]) -> Result<(), ReportError> {
        self.write_file(EXAMPLES, &to_lines(examples))
    }

    /// Begins a case. Nothing of it is in the run folder before it is finished; its worker's log goes to a file without
    /// a name meanwhile, so that a worker has nothing of its case to spoil. A run that already has [`MAX_CASES`] gets
    /// no further one, because it could not be read back.
    pub fn begin_case(&self, path: &str, id: &str) -> Result<CaseWriter, ReportError> {
        // those that are begun will be finished too
        let begun = Arc::strong_count(&self.begun) - 1;
        if case_folders(self.dir())?.len() + begun >= MAX_CASES {
            let hint = "split the suite, or run it in shards, each in a folder of its own";
            return Err(ReportError::bad(&self.dir().join("cases"), None, format!("it has {MAX_CASES} cases"), hint));
        }
        let log = ergometer_files::unnamed();
        let log = log.map_err(ReportError::io("make a file for a worker's log in", &std::env::temp_dir()))?;
        Ok(CaseWriter { cases: self.cases.clone(), slug: slug(path, id), log: log.into(), _begun: self.begun.clone() })
    }

    /// Ids of the cases that are finished: those without what would judge them are not.
    pub fn finished(&self) -> Result<BTreeSet<String>, ReportError> {
        let mut ids = BTreeSet::new();
        for folder in case_folders(self.dir())? {
            let case = load_case_file(&folder)?;
            if !unjudged(&case) {
                ids.insert(case.id);
            }
        }
        Ok(ids)
    }

    /// Removes what a process that is gone left half written: folders of unfinished cases, files that were never
    /// renamed into place. Call it only when no other process writes into this run folder. Returns how many cases were
    /// unfinished.
    pub fn remove_leftovers(&self) -> Result<usize, ReportError> {
        atomic::remove_temporaries(&self.folder)?;
        // a link would lead out of the run folder
        if let Ok(report) = self.folder.folder("report") {
            atomic::remove_temporaries(&report)?;
            if let Ok(plots) = report.folder("plots") {
                atomic::remove_temporaries(&plots)?;
            }
        }
        atomic::remove_temporaries(&self.cases)
    }
}

/// A case whose reference could not be made, or whose scorer failed: it says nothing about the case, which is not
/// finished.
fn unjudged(case: &Case) -> bool {
    case.error.as_ref().is_some_and(|e| matches!(e.kind, ErrorKind::Reference | ErrorKind::Scorer))
}

/// What a case's folder is written of.
type Contents<'a> = (&'a Case, &'a Samples, &'a [Prediction], &'a [Attempt], &'a [ExampleSum]);

/// A case that has begun and is not finished.
#[derive(Debug)]
pub struct CaseWriter {
    cases: Arc<Folder>,
    slug: String,
    log: Arc<File>,
    _begun: Arc<()>,
}

impl CaseWriter {
    /// Where the worker's stderr goes while it runs: open for appending, and without a name.
    pub fn log(&self) -> Arc<File> {
        self.log.clone()
    }

    /// Writes everything, flushes it to the disk and moves the folder into its place. After this the case is finished
    /// for good.
    ///
    /// # Errors
    /// [`ReportError::Refused`] for what [`load`](super::load) would refuse (more than [`MAX_ROWS`] rows, more than
    /// [`MAX_CSV_BYTES`], unknown metrics, values that are not finite ...); then, as after an `Io` error, nothing is
    /// left of the case.
    pub fn finish(
        self,
        case: &Case,
        samples: &Samples,
        predictions: &[Prediction],
        attempts: &[Attempt],
        sums: &[ExampleSum],
    ) -> Result<PathBuf, ReportError> {
        check(case, samples, predictions, attempts, sums)?;
        if self.slug != slug(&case.path, &case.id) {
            return Err(refused(
                case,
                "its path or id changed since it was begun",
                "report this as a fault of ergometer",
            ));
        }
        let json = pretty(case);
        if json.len() as u64 > MAX_JSON_BYTES {
            return Err(refused(case, too_large("case.json", MAX_JSON_BYTES), "keep notes and reasons short"));
        }
        let place = self.cases.path().join(&self.slug);
        atomic::place(
            &self.cases,
            &self.slug,
            |folder| self.write(folder, &json, (case, samples, predictions, attempts, sums)),
            || self.make_room(&place),
        )?;
        Ok(place)
    }

    /// Moves a case out of the way that could not be judged, and no other.
    fn make_room(&self, place: &Path) -> Result<(), ReportError> {
        let there = self.cases.has(&self.slug).map_err(ReportError::io("look at", place))?;
        if there && load_case_file(place).is_ok_and(|before| unjudged(&before)) {
            atomic::remove(&self.cases, &self.slug).map_err(ReportError::io("replace", place))?;
        }
        Ok(())
    }

    fn write(
        &self,
        folder: &Folder,
        json: &[u8],
        (case, samples, predictions, attempts, sums): Contents,
    ) -> Result<(), ReportError> {
        let io = |name: &str| ReportError::io("write", &self.cases.path().join(&self.slug).join(name));
        folder.write("case.json", json).map_err(io("case.json"))?;
        let file = |name: &str| folder.new_file(name).map_err(io(name));
        let fits = |name: &str, written: io::Result<bool>| match written.map_err(io(name))? {
            true => Ok(()),
            false => Err(refused(case, too_large(name, MAX_CSV_BYTES), SMALLER)),
        };
        let name = "samples.csv";
        fits(name, write_csv(file(name)?, &SAMPLE_COLUMNS, samples.iter(), MAX_CSV_BYTES))?;
        let name = "predictions.csv";
        let some = [predictions.iter().any(|p| p.valid.is_some()), predictions.iter().any(|p| p.difficulty.is_some())];
        let more = MORE_PREDICTION_COLUMNS.into_iter().zip(some).filter_map(|(name, some)| some.then_some(name));
        let columns: Vec<&str> = PREDICTION_COLUMNS.into_iter().chain(more).collect();
        fits(name, write_csv(file(name)?, &columns, predictions.iter(), MAX_CSV_BYTES))?;
        let name = "attempts.csv";
        if !attempts.is_empty() {
            fits(name, write_csv(file(name)?, &ATTEMPT_COLUMNS, attempts.iter(), MAX_CSV_BYTES))?;
        }
        let name = "sums.csv";
        if !sums.is_empty() {
            fits(name, write_csv(file(name)?, &SUM_COLUMNS, sums.iter(), MAX_CSV_BYTES))?;
        }
        // the log is there even when nobody wrote to it
        let mut log = file("stderr.log")?;
        let mut written: &File = &self.log;
        let copied =
            written.seek(io::SeekFrom::Start(0)).and_then(|_| io::copy(&mut written.take(MAX_LOG_BYTES), &mut log));
        copied.and_then(|_| log.sync_all()).map_err(io("stderr.log"))?;
        folder.sync().map_err(ReportError::io("flush the folder", folder.path()))
    }
}

/// What to do about a case that is too large.
const SMALLER: &str = "give the task fewer examples, or the case fewer steps or iterations";

fn too_large(name: &str, limit: u64) -> String {
    format!("{name} would be larger than {} MiB, which cannot be read back", limit >> 20)
}

/// What may not be stored because it could not be read back.
fn check(
    case: &Case,
    samples: &Samples,
    predictions: &[Prediction],
    attempts: &[Attempt],
    sums: &[ExampleSum],
) -> Result<(), ReportError> {
    let lengths = [
        ("samples.csv", samples.len(), MAX_ROWS),
        ("predictions.csv", predictions.len(), MAX_PREDICTIONS),
        ("attempts.csv", attempts.len(), MAX_ROWS),
        ("sums.csv", sums.len(), MAX_ROWS),
    ];
    for (name, rows, most) in lengths {
        if rows > most {
            return Err(refused(case, format!("{name} would have {rows} rows, and at most {most} are read"), SMALLER));
        }
    }
    let of_prediction = |p: &Prediction| Some((p.example, prediction_fault(p)?));
    let of_attempt = |a: &Attempt| Some((a.question, attempt_fault(a)?));
    let fault: Option<Fault> = case_fault(case)
        .or_else(|| questions_fault(case, attempts))
        .or_else(|| {
            let (question, (message, hint)) = attempts.iter().find_map(of_attempt)?;
            Some((format!("{message} (question {question} of `attempts.csv`)"), hint))
        })
        .or_else(|| samples_fault(samples))
        .or_else(|| {
            let (example, (message, hint)) = predictions.iter().find_map(of_prediction)?;
            Some((format!("{message} (example {example} of `predictions.csv`)"), hint))
        })
        .or_else(|| {
            let (example, (message, hint)) = sums.iter().find_map(|s| Some((s.example, sum_fault(s)?)))?;
            Some((format!("{message} (example {example} of `sums.csv`)"), hint))
        });
    fault.map_or(Ok(()), |(message, hint)| Err(refused(case, message, &hint)))
}

fn refused(case: &Case, message: impl Into<String>, hint: &str) -> ReportError {
    ReportError::Refused { case: case.path.clone(), message: capped(message.into()), hint: hint.to_owned() }
}
