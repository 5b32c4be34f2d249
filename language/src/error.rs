//! What is wrong with a file of a language model: which file, where in it, and what to do.
//!
//! In: paths, places, what was found. Out: one error type of the crate. Must not: repeat a file's content at length.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use ergometer_files::{capped, capped_at};

/// What helps where nothing better is known.
const WHOLE: &str = "fetch or copy the file again; it is cut off, damaged, or of another kind";

/// Most characters of a name that an error quotes.
const NAME: usize = 80;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong, with the place.
    pub message: String,
    /// The remedy.
    pub hint: String,
}

impl LanguageError {
    pub(crate) fn new(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), message: capped(message.into()), hint: WHOLE.into() }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = capped(hint.into());
        self
    }

    /// A file that could not be opened or read.
    pub(crate) fn io(file: &Path, error: &io::Error) -> Self {
        let hint = ergometer_files::remedy(error).unwrap_or(WHOLE);
        Self::new(file, format!("cannot be read: {error}")).hint(hint)
    }
}

impl fmt::Display for LanguageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\nhint: {}", self.file.display(), self.message, self.hint)
    }
}

impl std::error::Error for LanguageError {}

/// A name from a file as errors show it.
pub(crate) fn shown(name: &str) -> String {
    capped_at(name.escape_debug().to_string(), NAME)
}
