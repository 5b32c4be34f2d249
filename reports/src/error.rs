//! What can go wrong with a run folder, in words for people.
//!
//! In: a failed system call or a file that is not what it should be. Out: [`ReportError`], whose text names the attempt, the file, the
//! place and, on a line of its own, a `hint:`. Must not: be raised for a case that failed; such a case is a row with a reason.

use std::{
    io,
    path::{Path, PathBuf},
};

use ergometer_files::{Refusal, capped};

/// Failure to read, write or render a run folder.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The system refused.
    #[error("failed to {tried} `{}`: {source}{}", path.display(), hint_for(source))]
    Io {
        /// What was tried, e.g. `create the folder`.
        tried: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is there and is not what it should be.
    #[error("bad run folder: `{}`{}: {message}\nhint: {hint}", path.display(), line.map(|l| format!(", line {l}")).unwrap_or_default())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Line in it, from 1, where known.
        line: Option<u64>,
        /// What is wrong with it.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// An observation that must not be stored.
    #[error("failed to store case `{case}`: {message}\nhint: {hint}")]
    Refused {
        /// Readable path of the case.
        case: String,
        /// What is wrong with it.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// A plot or page could not be made.
    #[error("failed to render {what}: {message}")]
    Render {
        /// Name of the output.
        what: String,
        /// Why.
        message: String,
    },
}

impl ReportError {
    pub(crate) fn io(tried: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { tried, path, source }
    }

    pub(crate) fn bad(path: &Path, line: Option<u64>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Bad { path: path.to_owned(), line, message: capped(message.into()), hint: capped(hint.into()) }
    }

    pub(crate) fn render(what: &str, error: impl ToString) -> Self {
        Self::Render { what: what.to_owned(), message: capped(error.to_string()) }
    }
}

fn hint_for(source: &io::Error) -> &'static str {
    match Refusal::of(source) {
        Some(Refusal::Link) => {
            return "\nhint: inside a run folder no link is followed; remove the link, or put the file or folder itself there";
        }
        Some(Refusal::Kind(_)) => return "\nhint: remove it, or name another folder with --out",
        Some(Refusal::Large(_)) => return "\nhint: the file is not as ergometer writes it; was it edited?",
        None => {}
    }
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "\nhint: free some space, or name another folder with --out; finished cases are kept, go on with --resume"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "\nhint: name a folder that you may write to with --out"
        }
        io::ErrorKind::NotFound => "\nhint: check the path; a run folder holds environment.json and cases/",
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
            "\nhint: go on with --resume, or name a new folder with --out"
        }
        io::ErrorKind::NotADirectory => "\nhint: a part of the path is a file; name another folder with --out",
        _ => "",
    }
}
