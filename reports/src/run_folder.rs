//! Writing a run folder so that a kill at any moment loses no finished case and leaves no half one.
//!
//! In: environment, cases with their samples and predictions. Out: `DIR/environment.json`, `DIR/suite.toml`,
//! `DIR/cases/<slug>/{case.json, samples.csv, predictions.csv, attempts.csv (where questions are decided from several rows), stderr.log}`,
//! `DIR/records.*`, `DIR/report/`. A case is written beside its place, flushed to the disk, and renamed into it; every other file is replaced by rename. Must not: summarise, or read what
//! [`load`](crate::load::load) reads.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
};

use serde::Serialize;

use crate::{
    case::{Attempt, Case, Prediction, Sample},
    environment::Environment,
    error::ReportError,
    load::{self, Fault, MAX_CASES, MAX_CSV_BYTES, MAX_JSON_BYTES, MAX_ROWS},
};

/// Folder names that start so are unfinished cases.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Longest readable part of a slug in bytes; most file systems allow names of 255.
const SLUG_BYTES: usize = 180;

/// Columns of `samples.csv`, in order: the fields of [`Sample`].
pub(crate) const SAMPLE_COLUMNS: [&str; 8] =
    ["block", "phase", "iteration", "t_ns", "example", "row", "metric", "value"];
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

/// A run folder that is being written.
#[derive(Debug)]
pub struct RunFolder {
    dir: PathBuf,
}

impl RunFolder {
    /// Makes a new run folder. A folder that already holds a run is an error, so that nothing is overwritten by accident.
    pub fn create(dir: &Path) -> Result<Self, ReportError> {
        let environment = dir.join("environment.json");
        if environment.exists() {
            return Err(ReportError::Io {
                tried: "create the run folder",
                path: dir.to_owned(),
                source: io::Error::new(io::ErrorKind::AlreadyExists, "it already holds a run"),
            });
        }
        let cases = dir.join("cases");
        fs::create_dir_all(&cases).map_err(ReportError::io("create the folder", &cases))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Opens an existing run folder to go on with it.
    pub fn open(dir: &Path) -> Result<Self, ReportError> {
        let cases = dir.join("cases");
        if !cases.is_dir() {
            let source = io::Error::new(io::ErrorKind::NotFound, "not a run folder: it has no `cases`");
            return Err(ReportError::Io { tried: "open the run folder", path: dir.to_owned(), source });
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes or replaces `environment.json`.
    pub fn write_environment(&self, environment: &Environment) -> Result<(), ReportError> {
        let (bytes, path) = (pretty(environment), self.dir.join("environment.json"));
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
    /// old bytes or the new ones. `name` is a relative path without `..`.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), ReportError> {
        let path = self.dir.join(name);
        if name.split('/').any(|part| part.is_empty() || part == "..") {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a relative path below the run folder");
            return Err(ReportError::Io { tried: "write", path, source });
        }
        write_atomic(&path, bytes)
    }

    /// Begins a case: makes its unfinished folder, into which the worker's log may be written at once. A run that already has
    /// [`MAX_CASES`] gets no further one, because it could not be read back.
    pub fn begin_case(&self, path: &str, id: &str) -> Result<CaseWriter, ReportError> {
        let slug = slug(path, id);
        // those that are begun will be finished too
        let cases = self.dir.join("cases");
        let entries = fs::read_dir(&cases).map_err(ReportError::io("list the folder", &cases))?;
        let begun = entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(TEMPORARY)).count();
        if load::case_folders(&self.dir)?.len() + begun >= MAX_CASES {
            let hint = "split the suite, or run it in shards, each in a folder of its own";
            return Err(ReportError::bad(&self.dir.join("cases"), None, format!("it has {MAX_CASES} cases"), hint));
        }
        let temporary = self.dir.join("cases").join(format!("{TEMPORARY}{slug}-{}", process::id()));
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(ReportError::io("remove the folder", &temporary))?;
        }
        fs::create_dir(&temporary).map_err(ReportError::io("create the folder", &temporary))?;
        Ok(CaseWriter { temporary, place: self.dir.join("cases").join(slug), finished: false })
    }

    /// Ids of the cases that are finished.
    pub fn finished(&self) -> Result<BTreeSet<String>, ReportError> {
        load::case_folders(&self.dir)?.iter().map(|folder| Ok(load::load_case_file(folder)?.id)).collect()
    }

    /// Removes what a process that is gone left half written: folders of unfinished cases, files that were never renamed into place. Call
    /// it only when no other process writes into this run folder. Returns how many cases were unfinished.
    pub fn remove_leftovers(&self) -> Result<usize, ReportError> {
        remove_temporaries(&self.dir)?;
        for name in ["report", "report/plots"] {
            let folder = self.dir.join(name);
            // a link would lead out of the run folder
            if fs::symlink_metadata(&folder).is_ok_and(|m| m.is_dir()) {
                remove_temporaries(&folder)?;
            }
        }
        remove_temporaries(&self.dir.join("cases"))
    }
}

/// Removes the temporary files and folders right below a folder; gives their number.
fn remove_temporaries(folder: &Path) -> Result<usize, ReportError> {
    let mut removed = 0;
    for entry in fs::read_dir(folder).map_err(ReportError::io("list the folder", folder))? {
        let entry = entry.map_err(ReportError::io("list the folder", folder))?;
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            continue;
        }
        let (path, kind) = (entry.path(), entry.file_type());
        let is_dir = kind.map_err(ReportError::io("look at", &path))?.is_dir();
        let gone = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.map_err(ReportError::io("remove", &path))?;
        removed += 1;
    }
    Ok(removed)
}

/// A case that has begun and is not finished; dropping it removes what was written.
#[derive(Debug)]
pub struct CaseWriter {
    temporary: PathBuf,
    place: PathBuf,
    finished: bool,
}

impl CaseWriter {
    /// Where the worker's stderr goes while it runs.
    pub fn stderr_path(&self) -> PathBuf {
        self.temporary.join("stderr.log")
    }

    /// Writes everything, flushes it to the disk and moves the folder into its place. After this the case is finished for good.
    ///
    /// # Errors
    /// [`ReportError::Refused`] for what [`load`](crate::load::load) would refuse (more than [`MAX_ROWS`] rows, more than
    /// [`MAX_CSV_BYTES`], unknown metrics, values that are not finite ...); then, as after an `Io` error, nothing is left of the case.
    pub fn finish(
        mut self,
        case: &Case,
        samples: &[Sample],
        predictions: &[Prediction],
        attempts: &[Attempt],
    ) -> Result<PathBuf, ReportError> {
        check(case, samples, predictions, attempts)?;
        if self.place.file_name().is_none_or(|name| name.to_string_lossy() != slug(&case.path, &case.id)) {
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
        write_synced(&self.temporary.join("case.json"), &json)?;
        let samples = write_csv(&self.temporary.join("samples.csv"), &SAMPLE_COLUMNS, samples, MAX_CSV_BYTES)?;
        let path = self.temporary.join("predictions.csv");
        let predictions = write_csv(&path, &PREDICTION_COLUMNS, predictions, MAX_CSV_BYTES)?;
        let path = self.temporary.join("attempts.csv");
        let attempts = attempts.is_empty() || write_csv(&path, &ATTEMPT_COLUMNS, attempts, MAX_CSV_BYTES)?;
        for (name, fits) in [("samples.csv", samples), ("predictions.csv", predictions), ("attempts.csv", attempts)] {
            if !fits {
                return Err(refused(case, too_large(name, MAX_CSV_BYTES), SMALLER));
            }
        }
        // the log is there even when nobody wrote to it
        let log = self.stderr_path();
        let file = File::options().create(true).append(true).open(&log).map_err(ReportError::io("open", &log))?;
        file.sync_all().map_err(ReportError::io("flush", &log))?;
        sync_dir(&self.temporary)?;
        fs::rename(&self.temporary, &self.place).map_err(ReportError::io("move the finished case to", &self.place))?;
        self.finished = true;
        sync_dir(self.place.parent().unwrap_or(Path::new(".")))?;
        Ok(self.place.clone())
    }
}

impl Drop for CaseWriter {
    fn drop(&mut self) {
        if !self.finished {
            // nothing to tell anyone here; what stays is a leftover, which the next run removes
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// What to do about a case that is too large.
const SMALLER: &str = "give the task fewer examples, or the case fewer steps or iterations";

fn too_large(name: &str, limit: u64) -> String {
    format!("{name} would be larger than {} MiB, which cannot be read back", limit >> 20)
}

/// What may not be stored because it could not be read back.
fn check(case: &Case, samples: &[Sample], predictions: &[Prediction], attempts: &[Attempt]) -> Result<(), ReportError> {
    let lengths =
        [("samples.csv", samples.len()), ("predictions.csv", predictions.len()), ("attempts.csv", attempts.len())];
    for (name, rows) in lengths {
        if rows > MAX_ROWS {
            return Err(refused(
                case,
                format!("{name} would have {rows} rows, and at most {MAX_ROWS} are read"),
                SMALLER,
            ));
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
fn write_csv<T: Serialize>(path: &Path, columns: &[&str], rows: &[T], limit: u64) -> Result<bool, ReportError> {
    let file = File::create(path).map_err(ReportError::io("create", path))?;
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
        written => written.map(|()| true).map_err(ReportError::io("write", path)),
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

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let write = || -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(ReportError::io("write", path))
}

/// Replaces `path` by `bytes` in one step, making its parent folder where missing.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    // a bare name has the empty path as its parent, which cannot be opened
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(ReportError::io("create the folder", parent))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!("{TEMPORARY}{name}-{}", process::id()));
    write_synced(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path).map_err(ReportError::io("write", path)))
        .inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    sync_dir(parent)
}

/// Makes renames in a folder last through a power cut. Not every system can open a folder; those cannot do this.
fn sync_dir(dir: &Path) -> Result<(), ReportError> {
    match File::open(dir).and_then(|file| file.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => {
            Err(ReportError::io("flush the folder", dir)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csv_file_ends_at_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let rows: Vec<(u32, u32)> = (0..5000).map(|i| (i % 10, 7)).collect();
        let whole = 4 + 4 * 5000;
        assert!(write_csv(&path, &["a", "b"], &rows, whole).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), whole);
        assert!(!write_csv(&path, &["a", "b"], &rows, whole - 1).unwrap());
        assert!(fs::metadata(&path).unwrap().len() < whole);
    }
}
