//! Keys of a `config.json`, each of the kind that is asked for.
//!
//! In: a JSON object, a key. Out: the value, or `None` where it is missing or null. Must not: take a value of another kind.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{LanguageError, shown};

/// An object of a file with the path of keys that leads to it.
pub(super) struct ConfigKeys<'a> {
    object: &'a Map<String, Value>,
    path: &'a Path,
    place: String,
}

impl<'a> ConfigKeys<'a> {
    pub(super) fn new(object: &'a Map<String, Value>, path: &'a Path) -> Self {
        Self { object, path, place: String::new() }
    }

    pub(super) fn fail(&self, message: impl Into<String>) -> LanguageError {
        LanguageError::new(self.path, message)
            .hint("check that config.json is the model's own, and written by `transformers`")
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, key: &str, value: &Value, wanted: &str) -> LanguageError {
        let shown = shown(&value.to_string());
        self.fail(format!("`{}{key}` is {shown}, not {wanted}", self.place))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn missing(&self, key: &str) -> LanguageError {
        self.fail(format!("`{}{key}` is missing", self.place))
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>, LanguageError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        // some are written as floats
        let whole = value
            .as_u64()
            .or_else(|| value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..1e15).contains(x)).map(|x| x as u64));
        let count = whole.and_then(|n| usize::try_from(n).ok());
        count.map(Some).ok_or_else(|| self.wrong(key, value, "a count"))
    }

    pub(super) fn needed(&self, key: &str) -> Result<usize, LanguageError> {
        self.count(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f32>, LanguageError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        number.map(Some).ok_or_else(|| self.wrong(key, value, "a finite number"))
    }

    /// A number as Python has it.
    pub(super) fn double(&self, key: &str) -> Result<Option<f64>, LanguageError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|x| x.is_finite());
        number.map(Some).ok_or_else(|| self.wrong(key, value, "a finite number"))
    }

    /// Whether two keys say the same.
    pub(super) fn same(&self, one: &str, other: &str) -> bool {
        self.get(one) == self.get(other)
    }

    pub(super) fn flag(&self, key: &str, otherwise: bool) -> Result<bool, LanguageError> {
        match self.get(key) {
            None => Ok(otherwise),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false")),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, LanguageError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.wrong(key, value, "a text")),
        }
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f32>>, LanguageError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().map(|list| list.iter().map(|x| x.as_f64().map(|x| x as f32)).collect());
        list.flatten().map(Some).ok_or_else(|| self.wrong(key, value, "a list of numbers"))
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, LanguageError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        list.map(Some).ok_or_else(|| self.wrong(key, value, "a list of texts"))
    }

    /// A token id or a list of them.
    pub(super) fn tokens(&self, key: &str) -> Result<Vec<u32>, LanguageError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = match value.as_array() {
            Some(list) if list.len() <= 1 << 10 => list.iter().map(id).collect(),
            Some(_) => None,
            None => id(value).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(key, value, "a token id or a list of them"))
    }

    pub(super) fn inside(&self, key: &str) -> Result<Option<Self>, LanguageError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let object = value.as_object().ok_or_else(|| self.wrong(key, value, "an object"))?;
        Ok(Some(Self { object, path: self.path, place: format!("{}{key}.", self.place) }))
    }
}
