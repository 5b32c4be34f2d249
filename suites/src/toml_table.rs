//! Takes typed values out of a TOML table and says which key is wrong and what it should have been.
//!
//! In: the entries of one table, with line numbers where they are known. Out: values, or a [`SuiteError`] naming line,
//! key and near matches. Must not: know what any key means.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use toml::Value;

use crate::error::{SuiteError, near_matches};

/// One table on its way to becoming a typed value.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    entries: BTreeMap<String, (Option<usize>, Value)>,
    /// Line of the table itself.
    line: Option<usize>,
}

impl Keys {
    /// `entries` are key, line, value.
    pub fn new(entries: impl IntoIterator<Item = (String, Option<usize>, Value)>, line: Option<usize>) -> Self {
        Self { entries: entries.into_iter().map(|(k, l, v)| (k, (l, v))).collect(), line }
    }

    /// A table whose lines are not known.
    pub fn of_table(table: &toml::Table) -> Self {
        Self::new(table.iter().map(|(k, v)| (k.clone(), None, v.clone())), None)
    }

    /// Fails if there is a key that is not `allowed`.
    pub fn only(self, allowed: &[&str]) -> Result<Self, SuiteError> {
        match self.entries.iter().find(|(key, _)| !allowed.contains(&key.as_str())) {
            None => Ok(self),
            Some((key, (line, _))) => Err(unknown("key", key, allowed.iter().copied()).at(place(*line, None))),
        }
    }

    /// These entries where `self` has none of the same key.
    pub fn or(mut self, defaults: &Keys) -> Self {
        for (key, entry) in &defaults.entries {
            self.entries.entry(key.clone()).or_insert_with(|| entry.clone());
        }
        self
    }

    /// Line, key or both, for an error about `key`, whether it is there or not.
    pub fn place(&self, key: &str) -> String {
        place(self.entries.get(key).and_then(|e| e.0).or(self.line), Some(key))
    }

    /// Whether `key` is there.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Everything but `keys`.
    pub fn without(&self, keys: &[&str]) -> toml::Table {
        let rest = self.entries.iter().filter(|(k, _)| !keys.contains(&k.as_str()));
        rest.map(|(k, (_, v))| (k.clone(), v.clone())).collect()
    }

    /// The value of `key` as `convert` reads it; `wanted` says in words what that is.
    pub fn get<T>(
        &self,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, SuiteError> {
        let Some((_, value)) = self.entries.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| {
            let shown: String = value.to_string().chars().take(60).collect();
            SuiteError::new(format!("found {} {shown}", value.type_str()))
                .at(self.place(key))
                .hint(format!("write {wanted}"))
        })
    }

    /// The value of `key`, which must be there.
    pub fn need<T>(&self, key: &str, found: Option<T>) -> Result<T, SuiteError> {
        found.ok_or_else(|| {
            SuiteError::new("is missing").at(self.place(key)).hint(format!("add `{key} = ...` to this block"))
        })
    }

    /// A string that is not empty.
    pub fn string(&self, key: &str) -> Result<Option<String>, SuiteError> {
        self.get(key, "a string that is not empty", |v| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned))
    }

    /// A list of strings, at least one.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<String>>, SuiteError> {
        self.get(key, "a list of one or more strings", |v| {
            let list: Option<Vec<String>> = v.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect();
            list.filter(|l| !l.is_empty())
        })
    }

    /// A whole number in `range`.
    pub fn integer(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, SuiteError> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.get(key, &wanted, |v| whole(v, &range))
    }

    /// A list of whole numbers in `range`, at least one.
    pub fn integers(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<Vec<u64>>, SuiteError> {
        let wanted = format!("a list of one or more whole numbers from {} to {}", range.start(), range.end());
        self.get(key, &wanted, |v| {
            let list: Option<Vec<u64>> = v.as_array()?.iter().map(|v| whole(v, &range)).collect();
            list.filter(|l| !l.is_empty())
        })
    }

    /// Seconds: a finite number above 0 (or from 0 on, if `zero`) and at most a year.
    pub fn seconds(&self, key: &str, zero: bool) -> Result<Option<f64>, SuiteError> {
        const YEAR: f64 = 365.0 * 86_400.0;
        let wanted = if zero { "seconds: a finite number, 0 or more" } else { "seconds: a finite number above 0" };
        self.get(key, wanted, |v| {
            let number = v.as_float().or_else(|| v.as_integer().map(|i| i as f64))?;
            (number.is_finite() && number <= YEAR && (number > 0.0 || (zero && number == 0.0))).then_some(number)
        })
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, SuiteError> {
        self.get(key, "true or false", Value::as_bool)
    }
}

/// An unknown name, with what was perhaps meant.
pub(crate) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> SuiteError {
    let shown: String = name.chars().take(60).collect();
    let near = near_matches(&shown, known.clone());
    let hint = match (near.is_empty(), known.clone().next()) {
        (false, _) => format!("did you mean {}?", list(near)),
        (true, Some(_)) => format!("there are {}", list(known)),
        (true, None) => "there are none".to_owned(),
    };
    SuiteError::new(format!("unknown {what} `{shown}`")).hint(hint)
}

/// At most a dozen names in backquotes.
fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<String> = names.into_iter().take(13).map(|n| format!("`{n}`")).collect();
    if names.len() == 13 {
        names[12] = "...".to_owned();
    }
    names.join(", ")
}

fn place(line: Option<usize>, key: Option<&str>) -> String {
    match (line, key) {
        (Some(line), Some(key)) => format!("line {line}, `{key}`"),
        (Some(line), None) => format!("line {line}"),
        (None, Some(key)) => format!("`{key}`"),
        (None, None) => "parameters".to_owned(),
    }
}

fn whole(value: &Value, range: &RangeInclusive<u64>) -> Option<u64> {
    value.as_integer().and_then(|i| u64::try_from(i).ok()).filter(|i| range.contains(i))
}
