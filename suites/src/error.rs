//! The one error of this crate: what was tried, in which file, at which place, and what to do about it.
//!
//! In: facts about bad input. Out: a message of one to three lines. Must not: print or exit.

use std::fmt;
use std::path::PathBuf;

/// Bad input, named so that a user can mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuiteError {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Place in the file: a line, a key.
    pub place: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl SuiteError {
    /// An error with nothing but a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { file: None, place: None, message: message.into(), hint: None }
    }

    /// Adds the file unless one is named already.
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file.get_or_insert_with(|| file.into());
        self
    }

    /// Adds the place unless one is named already.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place.get_or_insert_with(|| place.into());
        self
    }

    /// Adds the remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for SuiteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SuiteError {}

/// `, did you mean x or y?` to append to a message about an unknown name; empty if no known one is near.
pub fn did_you_mean<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = near_matches(unknown, known);
    if near.is_empty() { String::new() } else { format!(", did you mean {}?", near.join(" or ")) }
}

/// The known names nearest to an unknown one; empty if none is near.
pub fn near_matches<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut scored: Vec<(usize, &str)> = known
        .into_iter()
        .map(|k| (edit_distance(unknown, k), k))
        .filter(|&(d, k)| d <= 1 + k.len().max(unknown.len()) / 3)
        .collect();
    scored.sort();
    scored.into_iter().take(3).map(|(_, k)| k).collect()
}

/// Levenshtein distance over characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        assert_eq!(near_matches("nativ", ["native", "candle"]), ["native"]);
        assert!(near_matches("zzz", ["native", "candle"]).is_empty());
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
