//! The one error of this crate: what was tried, in which file, at which place, and what to do about it.
//!
//! In: facts about bad input. Out: a message of one to three lines. Must not: print or exit.

use std::fmt;
use std::path::PathBuf;

use ergometer_files::capped;

use ergometer_files::distance;

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
        Self { file: None, place: None, message: capped(message.into()), hint: None }
    }

    /// Adds the file unless one is named already.
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file.get_or_insert_with(|| file.into());
        self
    }

    /// Adds the place unless one is named already.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place.get_or_insert_with(|| capped(place.into()));
        self
    }

    /// Adds the remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(capped(hint.into()));
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

/// What others call things that have a name here, in lower case and without `-`, `_` and blanks; the nearest name
/// first.
const SYNONYMS: &[(&str, &[&str])] = &[
    ("fp64", &["f64"]),
    ("float64", &["f64"]),
    ("double", &["f64"]),
    ("fp32", &["f32"]),
    ("float32", &["f32"]),
    ("float", &["f32"]),
    ("single", &["f32"]),
    ("tf32", &["f32"]),
    ("fp16", &["f16", "bf16"]),
    ("float16", &["f16", "bf16"]),
    ("half", &["f16", "bf16"]),
    ("f16", &["bf16"]),
    ("bfloat16", &["bf16"]),
    ("bfp16", &["bf16"]),
    ("brainfloat", &["bf16"]),
    ("int8", &["int8"]),
    ("i8", &["int8"]),
    ("s8", &["int8"]),
    ("u8", &["int8"]),
    ("uint8", &["int8"]),
    ("q8", &["int8"]),
    ("w8a8", &["int8"]),
    ("int4", &["int8"]),
    ("onnx", &["onnxruntime"]),
    ("ort", &["onnxruntime"]),
    ("onnxrt", &["onnxruntime"]),
    ("cpu", &["native"]),
    ("kernels", &["native"]),
    ("interpreter", &["reference"]),
    ("oracle", &["reference"]),
    ("markdown", &["md"]),
    ("htm", &["html"]),
];

/// The known names that an unknown one may stand for: what others call so, else the nearest in writing; empty if none
/// is near.
pub fn near_matches<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let known: Vec<&str> = known.into_iter().collect();
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
    let asked = plain(unknown);
    let same = SYNONYMS.iter().find(|(other, _)| *other == asked).map_or(&[][..], |(_, names)| names);
    let meant: Vec<&str> = same.iter().filter_map(|name| known.iter().find(|k| *k == name).copied()).collect();
    if !meant.is_empty() {
        return meant;
    }
    let mut scored: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|k| {
            let (distance, name) = (edit_distance(unknown, k), plain(k));
            // the beginning of a name, or a name with more behind it
            let begins = asked.len() >= 3 && name.len() >= 3 && (name.starts_with(&asked) || asked.starts_with(&name));
            let near = distance <= 1 + k.chars().count().max(unknown.chars().count()) / 3;
            (near || begins).then_some((distance, k))
        })
        .collect();
    scored.sort();
    scored.dedup();
    scored.into_iter().take(3).map(|(_, k)| k).collect()
}

/// Levenshtein distance over characters.
fn edit_distance(a: &str, b: &str) -> usize {
    distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        assert_eq!(near_matches("nativ", ["native", "candle"]), ["native"]);
        assert!(near_matches("zzz", ["native", "candle"]).is_empty());
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        let precisions = ["f32", "bf16", "int8"];
        for (other, meant) in [
            ("fp16", &["bf16"][..]),
            ("FP32", &["f32"]),
            ("float-16", &["bf16"]),
            ("half", &["bf16"]),
            ("i8", &["int8"]),
            ("bfloat16", &["bf16"]),
        ] {
            assert_eq!(near_matches(other, precisions), meant, "{other}");
        }
        assert_eq!(near_matches("fp16", ["f16", "bf16"]), ["f16", "bf16"]);
        for other in ["onnx", "ort", "onnx-runtime", "OnnxRuntime", "onnxruntime-gpu"] {
            assert_eq!(near_matches(other, ["native", "onnxruntime", "tract"]), ["onnxruntime"], "{other}");
        }
    }

    #[test]
    fn what_is_quoted_from_a_file_is_capped_in_every_part_of_an_error() {
        let long = |around: &str| format!("{around} `{}` {around}", "ä".repeat(70_000));
        let error = SuiteError::new(long("unknown")).at(long("line 3")).hint(long("known"));
        let said = error.to_string();
        assert!(said.len() < 3 * 2100, "{} bytes", said.len());
        for part in ["unknown `ä", "ä` unknown", "line 3 `ä", "ä` known", "characters left out"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(SuiteError::new("short").at("here").hint("so").to_string(), "here: short\nhint: so");
    }
}
