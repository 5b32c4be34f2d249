//! Takes typed values out of a TOML table and says which key is wrong and what it should have been.
//!
//! In: the entries of one table, with line numbers where they are known. Out: values, or a [`SuiteError`] naming line,
//! key and near matches. Must not: know what any key means.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use toml::Value;

use crate::error::{SuiteError, near_matches};

/// Where a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody kept it.
    Unknown,
    /// On this line of the file.
    Line(usize),
    /// On the command line, by `--set`.
    Flag,
}

/// One table on its way to becoming a typed value.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    entries: BTreeMap<String, (Origin, Value)>,
    /// Where the table itself is.
    origin: Origin,
}

impl Keys {
    /// `entries` are key, place, value.
    pub fn new(entries: impl IntoIterator<Item = (String, Origin, Value)>, origin: Origin) -> Self {
        Self { entries: entries.into_iter().map(|(k, o, v)| (k, (o, v))).collect(), origin }
    }

    /// A table whose lines are not known.
    pub fn of_table(table: &toml::Table) -> Self {
        Self::new(table.iter().map(|(k, v)| (k.clone(), Origin::Unknown, v.clone())), Origin::Unknown)
    }

    /// Fails if there is a key that is not `allowed`.
    pub fn only(self, allowed: &[&str]) -> Result<Self, SuiteError> {
        match self.entries.iter().find(|(key, _)| !allowed.contains(&key.as_str())) {
            None => Ok(self),
            Some((key, (origin, _))) => Err(unknown("key", key, allowed.iter().copied()).at(place(*origin, None))),
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
        place(self.origin(key), Some(key))
    }

    /// The place of the table itself.
    pub fn whole(&self) -> String {
        place(self.origin, None)
    }

    /// Where `key` was written; the table itself where nobody knows, or it is not there.
    pub fn origin(&self, key: &str) -> Origin {
        let own = self.entries.get(key).map(|e| e.0).filter(|o| *o != Origin::Unknown);
        own.unwrap_or(self.origin)
    }

    /// Puts a value in the place of `path`, the names of tables first. A table that is not there is made.
    ///
    /// # Errors
    /// What stands in the place of a table is none.
    pub fn set(&mut self, path: &[&str], value: Value, origin: Origin) -> Result<(), SuiteError> {
        let [key, inner @ ..] = path else { return Ok(()) };
        let Some((last, tables)) = inner.split_last() else {
            self.entries.insert((*key).to_owned(), (origin, value));
            return Ok(());
        };
        let entry = self.entries.entry((*key).to_owned()).or_insert_with(|| (origin, Value::Table(Default::default())));
        entry.0 = origin;
        let mut at = &mut entry.1;
        for name in tables {
            let Some(table) = at.as_table_mut() else { return Err(no_table(path, origin)) };
            at = table.entry((*name).to_owned()).or_insert_with(|| Value::Table(Default::default()));
        }
        at.as_table_mut().ok_or_else(|| no_table(path, origin))?.insert((*last).to_owned(), value);
        Ok(())
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// A list of one value becomes that value. How many a longer list has.
    pub fn one(&mut self, key: &str) -> Option<usize> {
        let (_, value) = self.entries.get_mut(key)?;
        let list = value.as_array_mut()?;
        if list.len() != 1 {
            return Some(list.len());
        }
        *value = list.pop()?;
        None
    }

    /// Whether `key` is there.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether there is a value in the place of `path`, the names of tables first; or one that is no table on the way.
    pub fn has_path(&self, path: &[&str]) -> bool {
        let [first, rest @ ..] = path else { return false };
        let Some((_, mut value)) = self.entries.get(*first).map(|(o, v)| (o, v)) else { return false };
        for name in rest {
            match value.as_table() {
                None => return true,
                Some(table) => match table.get(*name) {
                    None => return false,
                    Some(inner) => value = inner,
                },
            }
        }
        true
    }

    /// Bytes of the values as text.
    pub fn bytes(&self) -> usize {
        self.entries.values().map(|(_, v)| v.to_string().len()).sum()
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

    /// A list of strings, at least one; one alone may stand without brackets.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<String>>, SuiteError> {
        self.get(key, "a list of one or more strings", |v| {
            let list: Option<Vec<String>> = listed(v).iter().map(|v| v.as_str().map(str::to_owned)).collect();
            list.filter(|l| !l.is_empty())
        })
    }

    /// A whole number in `range`.
    pub fn integer(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, SuiteError> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.get(key, &wanted, |v| whole(v, &range))
    }

    /// A list of whole numbers in `range`, at least one; one alone may stand without brackets.
    pub fn integers(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<Vec<u64>>, SuiteError> {
        let wanted = format!("a list of one or more whole numbers from {} to {}", range.start(), range.end());
        self.get(key, &wanted, |v| {
            let list: Option<Vec<u64>> = listed(v).iter().map(|v| whole(v, &range)).collect();
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

fn place(origin: Origin, key: Option<&str>) -> String {
    match (origin, key) {
        (Origin::Line(line), Some(key)) => format!("line {line}, `{key}`"),
        (Origin::Line(line), None) => format!("line {line}"),
        (Origin::Flag, Some(key)) => format!("`--set`, `{key}`"),
        (Origin::Flag, None) => "`--set`".to_owned(),
        (Origin::Unknown, Some(key)) => format!("`{key}`"),
        (Origin::Unknown, None) => "parameters".to_owned(),
    }
}

fn no_table(path: &[&str], origin: Origin) -> SuiteError {
    SuiteError::new("goes into a value that is no table")
        .at(place(origin, Some(&path.join("."))))
        .hint("a name with a dot goes into a table: `options.speed` into `options = { speed = ... }`")
}

/// The values of a list; what is no list is one value.
pub(crate) fn listed(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

fn whole(value: &Value, range: &RangeInclusive<u64>) -> Option<u64> {
    value.as_integer().and_then(|i| u64::try_from(i).ok()).filter(|i| range.contains(i))
}
