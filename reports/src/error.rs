//! What can go wrong with a run folder, in words for people.
//!
//! In: a failed system call or a file that is not what it should be. Out: [`ReportError`], whose text names the
//! attempt, the file, the place and, on a line of its own, a `hint:`. Must not: be raised for a case that failed; such
//! a case is a row with a reason.

use std::{
    io,
    path::{Path, PathBuf},
};

use ergometer_files::{Refusal, capped, joined, remedy};

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

/// What helps against a refusal of the system, with what is special about a run folder.
fn hint_for(source: &io::Error) -> String {
    const ANOTHER: &str = "--out names another folder";
    let of_run = match (Refusal::of(source), source.kind()) {
        (Some(Refusal::Link), _) => "inside a run folder no link is followed",
        (Some(Refusal::Kind(_)), _) => ANOTHER,
        (Some(Refusal::Large(_)), _) => "it is not as ergometer writes it; was it edited?",
        (None, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge) => {
            "--out names another folder; finished cases are kept, go on with --resume"
        }
        (None, io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory) => {
            ANOTHER
        }
        (None, io::ErrorKind::NotFound) => "a run folder holds environment.json and cases/",
        (None, io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {
            "go on with --resume, or name a new folder with --out"
        }
        _ => "",
    };
    let parts: Vec<&str> = remedy(source).into_iter().chain([of_run]).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { String::new() } else { format!("\nhint: {}", joined(parts)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_says_what_helps_anywhere_and_what_helps_a_run() {
        let text = |error: io::Error| ReportError::io("write", Path::new("a"))(error).to_string();
        let full = text(io::ErrorKind::StorageFull.into());
        assert!(full.contains("\nhint: free some space") && full.ends_with("go on with --resume"), "{full}");
        let link = text(Refusal::Link.into());
        assert!(link.contains("in the place of the link") && link.contains("no link is followed"), "{link}");
        let taken = text(io::ErrorKind::AlreadyExists.into());
        assert!(taken.ends_with("\nhint: go on with --resume, or name a new folder with --out"), "{taken}");
        assert!(!text(io::Error::other("x")).contains("hint"));
    }
}
