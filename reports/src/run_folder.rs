//! Writing a run folder so that a kill at any moment loses no finished case and leaves no half one.
//!
//! In: environment, cases with their samples and predictions. Out: `DIR/environment.json`, `DIR/suite.toml`,
//! `DIR/cases/<slug>/{case.json, samples.csv, predictions.csv, attempts.csv (where questions are decided from several rows), stderr.log}`,
//! `DIR/records.*`, `DIR/report/`. A case is written beside its place once its worker has ended, flushed to the disk, and renamed into it; every other file is
//! replaced by rename. Must not: summarise, follow a link below the folder, or read what [`load`](crate::load::load) reads.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

pub(crate) use ergometer_files::TEMPORARY;
use ergometer_files::{Folder, temporary};
use serde::Serialize;

use crate::{
    case::{Attempt, Case, ErrorKind, Prediction, Sample},
    environment::Environment,
    error::ReportError,
    load::{self, Fault, MAX_CASES, MAX_CSV_BYTES, MAX_JSON_BYTES, MAX_PREDICTIONS, MAX_ROWS},
};

/// Longest readable part of a slug in bytes; most file systems allow names of 255.
const SLUG_BYTES: usize = 180;

/// Columns of `samples.csv`, in order: the fields of [`Sample`].
pub(crate) const SAMPLE_COLUMNS: [&str; 8] =
    ["block", "phase", "iteration", "t_ns", "example", "rows", "metric", "value"];
/// Columns of `predictions.csv`, in order: the fields of [`Prediction`].
pub(crate) const PREDICTION_COLUMNS: [&str; 9] =
    ["example", "cluster", "depth", "last", "halt_logit", "answer", "exact", "right", "cells"];

/// Columns of `attempts.csv`, in order: the fields of [`Attempt`].
pub(crate) const ATTEMPT_COLUMNS: [&str; 10] =
    ["question", "name", "cluster", "depth", "last", "part", "attempt", "source", "right", "rows"];

/// Name of a case's folder: its path with `/` as `~` and everything unusual as `_`, then `~` and the first 8 digits of its id.
pub fn slug(path: &str, id: &str) -> String {
    let mut slug = String::new();
    for character in path.chars().take(SLUG_BYTES) {
        slug.push(match character {
            '/' => '~',
            '.' if slug.is_empty() => '_',
            c if c.is_ascii_alphanumeric() || "._-+=".contains(c) => c,
            _ => '_',
        });
    }
    slug.push('~');
    slug.extend(id.chars().filter(char::is_ascii_hexdigit).take(8));
    slug
}

/// Bytes of a worker's log that are kept.
pub const MAX_LOG_BYTES: u64 = 64 << 20;

/// A run folder that is being written. It is held open: what becomes of its name, or of a link that takes the place of one of its folders,
/// changes nothing about where cases go.
#[derive(Debug)]
pub struct RunFolder {
    folder: Arc<Folder>,
    cases: Arc<Folder>,
    /// Cases that have begun and are not finished.
    begun: Arc<()>,
}

impl RunFolder {
    /// Makes a new run folder. A folder that already holds a run is an error, so that nothing is overwritten by accident.
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

    /// Writes or replaces one file below the folder (`suite.toml`, `records.csv`, `report/index.html` ...) in one step: a reader sees the
    /// old bytes or the new ones. `name` is a relative path without `..`; a folder on the way that is a link is refused.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), ReportError> {
        self.folder.write(name, bytes).map_err(ReportError::io("write", &self.dir().join(name)))
    }

    /// Begins a case. Nothing of it is in the run folder before it is finished; its worker's log goes to a file without a name meanwhile, so
    /// that a worker has nothing of its case to spoil. A run that already has [`MAX_CASES`] gets no further one, because it could not be
    /// read back.
    pub fn begin_case(&self, path: &str, id: &str) -> Result<CaseWriter, ReportError> {
        // those that are begun will be finished too
        let begun = Arc::strong_count(&self.begun) - 1;
        if load::case_folders(self.dir())?.len() + begun >= MAX_CASES {
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
        for folder in load::case_folders(self.dir())? {
            let case = load::load_case_file(&folder)?;
            if !unjudged(&case) {
                ids.insert(case.id);
            }
        }
        Ok(ids)
    }

    /// Removes what a process that is gone left half written: folders of unfinished cases, files that were never renamed into place. Call
    /// it only when no other process writes into this run folder. Returns how many cases were unfinished.
    pub fn remove_leftovers(&self) -> Result<usize, ReportError> {
        remove_temporaries(&self.folder)?;
        // a link would lead out of the run folder
        if let Ok(report) = self.folder.folder("report") {
            remove_temporaries(&report)?;
            if let Ok(plots) = report.folder("plots") {
                remove_temporaries(&plots)?;
            }
        }
        remove_temporaries(&self.cases)
    }
}

/// A case whose reference could not be made: it says nothing about the case, which is not finished.
fn unjudged(case: &Case) -> bool {
    case.error.as_ref().is_some_and(|e| e.kind == ErrorKind::Reference)
}

/// Removes the temporary files and folders right below a folder; gives their number.
fn remove_temporaries(folder: &Folder) -> Result<usize, ReportError> {
    let names = folder.names().map_err(ReportError::io("list the folder", folder.path()))?;
    let unfinished: Vec<_> = names.iter().filter(|n| n.starts_with(TEMPORARY)).collect();
    for name in &unfinished {
        folder.remove(name).map_err(ReportError::io("remove", &folder.path().join(name)))?;
    }
    Ok(unfinished.len())
}

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

    /// Writes everything, flushes it to the disk and moves the folder into its place. After this the case is finished for good.
    ///
    /// # Errors
    /// [`ReportError::Refused`] for what [`load`](crate::load::load) would refuse (more than [`MAX_ROWS`] rows, more than
    /// [`MAX_CSV_BYTES`], unknown metrics, values that are not finite ...); then, as after an `Io` error, nothing is left of the case.
    pub fn finish(
        self,
        case: &Case,
        samples: &[Sample],
        predictions: &[Prediction],
        attempts: &[Attempt],
    ) -> Result<PathBuf, ReportError> {
        check(case, samples, predictions, attempts)?;
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
        let aside = temporary(&self.slug);
        let place = self.cases.path().join(&self.slug);
        let folder = self.cases.make(&aside).map_err(ReportError::io("create the folder", &place))?;
        let written = self.write(&folder, case, &json, samples, predictions, attempts).and_then(|()| {
            self.make_room(&place)?;
            self.cases.rename(&aside, &self.slug).map_err(ReportError::io("move the finished case to", &place))
        });
        if let Err(error) = written {
            // what stays after a second failure is a leftover, which the next run removes
            let _ = self.cases.remove(&aside);
            return Err(error);
        }
        self.cases.sync().map_err(ReportError::io("flush the folder", self.cases.path()))?;
        Ok(place)
    }

    /// Moves a case out of the way that could not be judged, and no other.
    fn make_room(&self, place: &Path) -> Result<(), ReportError> {
        let there = self.cases.has(&self.slug).map_err(ReportError::io("look at", place))?;
        if there && load::load_case_file(place).is_ok_and(|before| unjudged(&before)) {
            // in one step: a kill in between leaves no half case
            let aside = temporary(&self.slug);
            let removed = self.cases.rename(&self.slug, &aside).and_then(|()| self.cases.remove(&aside));
            removed.map_err(ReportError::io("replace", place))?;
        }
        Ok(())
    }

    fn write(
        &self,
        folder: &Folder,
        case: &Case,
        json: &[u8],
        samples: &[Sample],
        predictions: &[Prediction],
        attempts: &[Attempt],
    ) -> Result<(), ReportError> {
        let io = |name: &str| ReportError::io("write", &self.cases.path().join(&self.slug).join(name));
        folder.write("case.json", json).map_err(io("case.json"))?;
        let file = |name: &str| folder.new_file(name).map_err(io(name));
        let fits = |name: &str, written: io::Result<bool>| match written.map_err(io(name))? {
            true => Ok(()),
            false => Err(refused(case, too_large(name, MAX_CSV_BYTES), SMALLER)),
        };
        let name = "samples.csv";
        fits(name, write_csv(file(name)?, &SAMPLE_COLUMNS, samples, MAX_CSV_BYTES))?;
        let name = "predictions.csv";
        fits(name, write_csv(file(name)?, &PREDICTION_COLUMNS, predictions, MAX_CSV_BYTES))?;
        let name = "attempts.csv";
        if !attempts.is_empty() {
            fits(name, write_csv(file(name)?, &ATTEMPT_COLUMNS, attempts, MAX_CSV_BYTES))?;
        }
        // the log is there even when nobody wrote to it
        let mut log = file("stderr.log")?;
        let mut said: &File = &self.log;
        let copied = said.seek(io::SeekFrom::Start(0)).and_then(|_| io::copy(&mut said.take(MAX_LOG_BYTES), &mut log));
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
fn check(case: &Case, samples: &[Sample], predictions: &[Prediction], attempts: &[Attempt]) -> Result<(), ReportError> {
    let lengths = [
        ("samples.csv", samples.len(), MAX_ROWS),
        ("predictions.csv", predictions.len(), MAX_PREDICTIONS),
        ("attempts.csv", attempts.len(), MAX_ROWS),
    ];
    for (name, rows, most) in lengths {
        if rows > most {
            return Err(refused(case, format!("{name} would have {rows} rows, and at most {most} are read"), SMALLER));
        }
    }
    let of_sample = |s: &Sample| Some((s.block, load::sample_fault(s)?));
    let of_prediction = |p: &Prediction| Some((p.example, load::prediction_fault(p)?));
    let of_attempt = |a: &Attempt| Some((a.question, load::attempt_fault(a)?));
    let fault: Option<Fault> = load::case_fault(case)
        .or_else(|| load::questions_fault(case, attempts))
        .or_else(|| {
            let (question, (message, hint)) = attempts.iter().find_map(of_attempt)?;
            Some((format!("{message} (question {question} of `attempts.csv`)"), hint))
        })
        .or_else(|| {
            let (block, (message, hint)) = samples.iter().find_map(of_sample)?;
            Some((format!("{message} (block {block} of `samples.csv`)"), hint))
        })
        .or_else(|| {
            let (example, (message, hint)) = predictions.iter().find_map(of_prediction)?;
            Some((format!("{message} (example {example} of `predictions.csv`)"), hint))
        });
    fault.map_or(Ok(()), |(message, hint)| Err(refused(case, message, &hint)))
}

fn refused(case: &Case, message: impl Into<String>, hint: &str) -> ReportError {
    ReportError::Refused { case: case.path.clone(), message: message.into(), hint: hint.to_owned() }
}

/// Two-space JSON with a newline at its end.
pub(crate) fn pretty<T: Serialize>(value: &T) -> Vec<u8> {
    // our types have string keys and finite numbers, for which serialising to memory does not fail
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain data serialises");
    bytes.push(b'\n');
    bytes
}

/// Writes at most `limit` bytes; gives whether that was enough.
fn write_csv<T: Serialize>(file: File, columns: &[&str], rows: &[T], limit: u64) -> io::Result<bool> {
    let mut writer =
        csv::WriterBuilder::new().has_headers(false).from_writer(Limited { file, left: limit, full: false });
    let into_io = |error: csv::Error| match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    };
    let mut write = || -> io::Result<()> {
        writer.write_record(columns).map_err(into_io)?;
        for row in rows {
            writer.serialize(row).map_err(into_io)?;
        }
        writer.flush()?;
        writer.get_ref().file.sync_all()
    };
    match write() {
        Err(_) if writer.get_ref().full => Ok(false),
        written => written.map(|()| true),
    }
}

/// A file that takes so many bytes and no more. The CSV writer in front of it has a buffer of its own.
struct Limited {
    file: File,
    left: u64,
    /// It was given more than it takes.
    full: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.full || bytes.len() as u64 > self.left {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.file.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_csv_file_ends_at_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let rows: Vec<(u32, u32)> = (0..5000).map(|i| (i % 10, 7)).collect();
        let whole = 4 + 4 * 5000;
        assert!(write_csv(File::create(&path).unwrap(), &["a", "b"], &rows, whole).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), whole);
        assert!(!write_csv(File::create(&path).unwrap(), &["a", "b"], &rows, whole - 1).unwrap());
        assert!(fs::metadata(&path).unwrap().len() < whole);
    }
}
