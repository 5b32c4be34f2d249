//! Lines of JSON, each an example: read one by one, so that what is wrong is named by its line.
//!
//! In: a file whose every line is a JSON object. Out: [`JsonLine`]s and typed values of their keys. Must not: skip a line that is broken, or take a
//! key that it does not know for one that does not matter.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{MAX_TEXT_BYTES, MAX_TEXT_EXAMPLES, from_suite};
use crate::error::SuiteError;
use crate::locate::data_file;
use crate::task::Example;
use crate::text;
use crate::toml_table::{Keys, unknown};

/// An object and the line that it stands on.
pub struct JsonLine {
    path: PathBuf,
    line: usize,
    object: Map<String, Value>,
    /// Number of its cluster, by the order in which clusters are met.
    cluster: Option<u64>,
}

/// The lines of the file that `file` names, the first `examples` of them where that is given. Empty lines are none.
///
/// # Errors
/// The file cannot be read, has no line, or one that is no object with known keys.
pub(crate) fn lines(keys: &Keys, folder: &Path, known: &[&str]) -> Result<Vec<JsonLine>, SuiteError> {
    let name = keys.need("file", keys.string("file")?)?;
    let path = data_file(folder, &name).map_err(|e| e.at(keys.place("file")))?;
    let wanted = keys.integer("examples", 1..=MAX_TEXT_EXAMPLES)?.map(|n| n as usize);
    let text = text::read_text(&path, MAX_TEXT_BYTES).map_err(from_suite)?;
    of_text(&text, &path, known, wanted)
}

/// The lines of a text.
///
/// # Errors
/// As of a file: what is wrong, with the number of its line.
pub fn of_text(text: &str, path: &Path, known: &[&str], wanted: Option<usize>) -> Result<Vec<JsonLine>, SuiteError> {
    let (mut all, mut clusters) = (Vec::new(), HashMap::new());
    for (i, written) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        if wanted.is_some_and(|n| all.len() == n) {
            break;
        }
        if all.len() as u64 == MAX_TEXT_EXAMPLES {
            return Err(SuiteError::new(format!("more than {MAX_TEXT_EXAMPLES} lines"))
                .in_file(path)
                .hint("ask for some of them: `examples = N`"));
        }
        let mut line = parse(written, path, i + 1, known)?;
        line.cluster = match line.object.get("cluster") {
            None | Some(Value::Null) => None,
            Some(_) => {
                let next = clusters.len() as u64;
                Some(*clusters.entry(line.text_or_number("cluster")?).or_insert(next))
            }
        };
        all.push(line);
    }
    match wanted {
        _ if all.is_empty() => Err(SuiteError::new("holds no line")
            .in_file(path)
            .hint("each line is an example: {\"prompt\": \"...\", ...}")),
        Some(n) if n > all.len() => {
            Err(SuiteError::new(format!("{n} are asked for, and the file holds {} lines", all.len()))
                .in_file(path)
                .at("`examples`")
                .hint(format!("ask for at most {}, or leave it out for all of them", all.len())))
        }
        _ => Ok(all),
    }
}

fn parse(written: &str, path: &Path, line: usize, known: &[&str]) -> Result<JsonLine, SuiteError> {
    let place = format!("line {line}");
    // the place within the line is of one that is read by itself
    let value = text::json(written.as_bytes()).map_err(|mut e| {
        e.place = Some(match e.place.take().and_then(|p| Some(p.split_once("column ")?.1.to_owned())) {
            Some(column) => format!("{place}, column {column}"),
            None => place.clone(),
        });
        if e.hint.as_deref().is_some_and(|h| h.starts_with("one JSON value a file")) {
            e.hint = Some("one JSON object a line".into());
        }
        e.in_file(path)
    })?;
    let Value::Object(object) = value else {
        return Err(SuiteError::new("no JSON object").in_file(path).at(place).hint("write {\"prompt\": \"...\", ...}"));
    };
    if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(unknown("key", key, known.iter().copied()).in_file(path).at(place));
    }
    Ok(JsonLine { path: path.to_owned(), line, object, cluster: None })
}

/// Whether lines say which of them belong together.
pub(crate) fn have_clusters(lines: &[JsonLine]) -> bool {
    lines.iter().any(|l| l.cluster.is_some())
}

impl JsonLine {
    /// An error about one of its keys.
    pub(crate) fn wrong(&self, key: &str, what: &str) -> SuiteError {
        let place = format!("line {}, `{key}`", self.line);
        SuiteError::new(what).in_file(&self.path).at(place).hint("correct the line, or take it out")
    }

    fn needed(&self, key: &str) -> Result<&Value, SuiteError> {
        self.object.get(key).ok_or_else(|| self.wrong(key, "is missing"))
    }

    /// A text.
    ///
    /// # Errors
    /// It is missing or no text.
    pub fn text(&self, key: &str) -> Result<String, SuiteError> {
        let text = self.needed(key)?.as_str().map(str::to_owned);
        text.ok_or_else(|| self.wrong(key, "is no string"))
    }

    /// A text, or a number as its text.
    ///
    /// # Errors
    /// It is missing or neither.
    pub fn text_or_number(&self, key: &str) -> Result<String, SuiteError> {
        match self.needed(key)? {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(self.wrong(key, "is no string and no number")),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// It is missing or none.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, SuiteError> {
        let list =
            self.needed(key)?.as_array().and_then(|all| all.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        list.ok_or_else(|| self.wrong(key, "is no list of strings"))
    }

    /// Whether the line has this key, with something in it.
    pub fn has(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(|value| !value.is_null())
    }

    /// Seconds that are not negative, at most a week; `None` where there are none.
    ///
    /// # Errors
    /// It is something else.
    pub fn seconds(&self, key: &str) -> Result<Option<f64>, SuiteError> {
        if !self.has(key) {
            return Ok(None);
        }
        let seconds = self.needed(key)?.as_f64().filter(|s| (0.0..=604_800.0).contains(s));
        seconds.map(Some).ok_or_else(|| self.wrong(key, "is no number of seconds from 0 to 604800"))
    }

    /// A whole number that is not negative; `None` where there is none.
    ///
    /// # Errors
    /// It is something else.
    pub fn number(&self, key: &str) -> Result<Option<u64>, SuiteError> {
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(n) => Ok(Some(n)),
                None => Err(self.wrong(key, "is no whole number from 0")),
            },
        }
    }

    /// The example with the cluster and the difficulty that the line gives it.
    pub(crate) fn marked(&self, mut example: Example) -> Result<Example, SuiteError> {
        // a line without one is alone: beyond the numbers of those that have one
        example.cluster = self.cluster.unwrap_or(MAX_TEXT_EXAMPLES + self.line as u64);
        if let Some(n) = self.number("difficulty")? {
            example.difficulty = u32::try_from(n).map_err(|_| self.wrong("difficulty", "is too large"))?;
        }
        Ok(example)
    }
}
