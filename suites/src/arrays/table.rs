//! Rows of CSV and JSONL files: numbers and texts by the name of their column or key.
//!
//! In: a file of lines. Out: the rows that are chosen. Must not: hold more than a line and the chosen rows, take a row
//! of another length, or guess at what is no number.
//!
//! A CSV file has a header unless every field of its first line is a number; its columns are then called `1`, `2`, ...
//! A quoted field ends in the line in which it begins.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::elements::{MAX_BYTES, MAX_ROWS, Number};
use crate::array::{Array, ElementKind};
use crate::error::{SuiteError, did_you_mean};
use crate::tensors::shown_name;
use crate::text::{self, fields, next_line};

/// Longest line: a picture of 224x224 in three colours takes 3 MB.
const MAX_LINE: usize = 16 << 20;
/// What may stand between fields; the commonest in the first line wins.
const DELIMITERS: [u8; 4] = *b",;\t|";

/// Hands every line that is not blank to `take`, with its number from 1, until that says that it is enough.
fn each_line(path: &Path, mut take: impl FnMut(usize, &str) -> Result<bool, SuiteError>) -> Result<(), SuiteError> {
    let opened = text::open(path).map_err(|e| match e.hint {
        Some(_) => e,
        None => e.hint("name a CSV or JSONL file; a path in a suite starts at the suite file's folder"),
    })?;
    let mut from = BufReader::with_capacity(1 << 16, opened);
    // a file that is something else altogether is told as what it is
    let begin = from.fill_buf().map_err(|e| SuiteError::new(format!("cannot be read: {e}")).in_file(path))?;
    if let Some((what, hint)) = text::sniff(begin) {
        return Err(SuiteError::new(format!("is {what}")).in_file(path).hint(hint));
    }
    let (mut number, mut rows, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        number += 1;
        let at = |e: SuiteError| e.in_file(path).at(format!("line {number}"));
        if !next_line(&mut from, &mut line, MAX_LINE).map_err(at)? {
            return Ok(());
        }
        let bytes = if number == 1 { text::without_mark(&line) } else { &line };
        let line = std::str::from_utf8(bytes)
            .map_err(|_| at(SuiteError::new("is not UTF-8 text").hint("save the file as UTF-8")))?;
        if line.trim().is_empty() {
            continue;
        }
        rows += 1;
        if rows > MAX_ROWS {
            let error = SuiteError::new(format!("more than {MAX_ROWS} rows")).hint("split the file");
            return Err(at(error));
        }
        if !take(number, line).map_err(at)? {
            return Ok(());
        }
    }
}

/// What is taken of the chosen rows, which ascend, as rows come by.
struct Chosen<'a> {
    left: &'a [usize],
    row: usize,
}

impl<'a> Chosen<'a> {
    fn new(chosen: &'a [usize]) -> Self {
        Self { left: chosen, row: 0 }
    }

    /// How often the next row is wanted.
    fn next(&mut self) -> bool {
        let wanted = self.left.first() == Some(&self.row);
        if wanted {
            self.left = &self.left[1..];
        }
        self.row += 1;
        wanted
    }

    fn check(&self, path: &Path) -> Result<(), SuiteError> {
        match self.left.first() {
            None => Ok(()),
            Some(row) => Err(SuiteError::new(format!("row {row} is due, and there are {}", self.row))
                .in_file(path)
                .hint("all inputs, labels and columns have one row an example")),
        }
    }
}

/// The header of a CSV file.
struct Header {
    delimiter: u8,
    names: Vec<String>,
    /// The first line is a row.
    none: bool,
}

impl Header {
    fn of(line: &str) -> Self {
        let count = |d: &u8| line.bytes().filter(|b| b == d).count();
        // the first of equals
        let delimiter = DELIMITERS.into_iter().rev().max_by_key(count).unwrap_or(b',');
        let first = fields(line.as_bytes(), delimiter);
        // numbers with one that is missing or none among them are a row, which is then refused for that, and no names
        let number = |f: &String| Number::parse(f).is_ok();
        let absent = |f: &String| f.trim().is_empty() || f.trim().parse::<f64>().is_ok();
        let none = first.iter().any(number) && first.iter().all(|f| number(f) || absent(f));
        let names = if none { (1..=first.len()).map(|i| i.to_string()).collect() } else { first };
        Self { delimiter, names: names.iter().map(|n| n.trim().to_owned()).collect(), none }
    }

    /// The columns that a key means, first and last.
    fn columns(&self, key: &str) -> Result<(usize, usize), SuiteError> {
        let place = |name: &str| {
            let mut at = self.names.iter().enumerate().filter(|(_, n)| *n == name.trim());
            match (at.next(), at.next()) {
                (Some((i, _)), None) => Ok(i),
                (Some(_), Some(_)) => Err(SuiteError::new(format!("has two columns `{}`", shown_name(name)))
                    .hint("give each column a name of its own")),
                _ => {
                    let near = did_you_mean(name, self.names.iter().map(String::as_str));
                    let shown: Vec<String> =
                        self.names.iter().take(12).map(|n| format!("`{}`", shown_name(n))).collect();
                    let header =
                        if self.none { "the file has no header, so that they are called by number: " } else { "" };
                    Err(SuiteError::new(format!("has no column `{}`{near}", shown_name(name))).hint(format!(
                        "{header}there are {}{}",
                        shown.join(", "),
                        if self.names.len() > 12 { ", ..." } else { "" }
                    )))
                }
            }
        };
        match key.split_once("..") {
            // a name may have dots of its own
            Some((first, last)) if !self.names.iter().any(|n| n == key) => {
                let (first, last) = (place(first)?, place(last)?);
                if last < first {
                    return Err(SuiteError::new(format!("column `{}` ends before it begins", shown_name(key)))
                        .hint("write the first column, `..`, the last one"));
                }
                Ok((first, last))
            }
            _ => place(key).map(|i| (i, i)),
        }
    }
}

/// Hands the fields of each row of a CSV file to `take`, with its line, until that says that it is enough.
fn each_record(
    path: &Path,
    mut take: impl FnMut(usize, &Header, Vec<String>) -> Result<bool, SuiteError>,
) -> Result<(), SuiteError> {
    let mut header: Option<Header> = None;
    each_line(path, |number, line| {
        let known = match &header {
            Some(known) => known,
            None => {
                let found = header.insert(Header::of(line));
                if !found.none {
                    return Ok(true);
                }
                found
            }
        };
        let record = fields(line.as_bytes(), known.delimiter);
        if record.len() != known.names.len() {
            return Err(SuiteError::new(format!(
                "has {} fields, and the first line {}",
                record.len(),
                known.names.len()
            ))
            .hint("every line has one field a column; a quoted field ends in its line"));
        }
        take(number, known, record)
    })
}

/// Rows of a CSV file.
pub fn csv_rows(path: &Path) -> Result<usize, SuiteError> {
    let (mut rows, mut first) = (0, true);
    each_line(path, |_, line| {
        rows += usize::from(!first || Header::of(line).none);
        first = false;
        Ok(true)
    })?;
    Ok(rows)
}

/// Rows of a JSONL file.
pub fn jsonl_rows(path: &Path) -> Result<usize, SuiteError> {
    let mut rows = 0;
    each_line(path, |_, _| {
        rows += 1;
        Ok(true)
    })?;
    Ok(rows)
}

/// Counts what is held.
fn hold(held: &mut usize, bytes: usize) -> Result<(), SuiteError> {
    *held += bytes;
    match *held > MAX_BYTES {
        true => Err(SuiteError::new(format!(
            "the rows so far are more than {} GiB, the most that is held",
            MAX_BYTES >> 30
        ))
        .hint("ask for fewer `examples`, or split the file")),
        false => Ok(()),
    }
}

/// The chosen rows of a column, or of neighbouring ones (`first..last`), as numbers. A single column gives rows without
/// an axis.
pub fn csv_arrays(path: &Path, key: &str, chosen: &[usize], kind: ElementKind) -> Result<Vec<Array>, SuiteError> {
    let (mut arrays, mut wanted, mut held) = (Vec::new(), Chosen::new(chosen), 0);
    if !chosen.is_empty() {
        each_record(path, |line, header, record| {
            let (first, last) = header.columns(key)?;
            if wanted.next() {
                let mut bytes = Vec::new();
                for (name, field) in header.names.iter().zip(&record).skip(first).take(last - first + 1) {
                    Number::parse(field).and_then(|n| n.put(kind, &mut bytes)).map_err(|why| {
                        SuiteError::new(why)
                            .at(format!("line {line}, column `{}`", shown_name(name)))
                            .hint("mend or leave out the row: every field of an input is a number")
                    })?;
                }
                hold(&mut held, bytes.len())?;
                let shape = if first == last && !key.contains("..") { vec![] } else { vec![last - first + 1] };
                arrays.push(Array { kind, shape, bytes: bytes.into() });
            }
            Ok(!wanted.left.is_empty())
        })?;
    }
    wanted.check(path)?;
    Ok(arrays)
}

/// The chosen rows of a column as they are written.
pub fn csv_texts(path: &Path, key: &str, chosen: &[usize]) -> Result<Vec<String>, SuiteError> {
    let (mut texts, mut wanted, mut held) = (Vec::new(), Chosen::new(chosen), 0);
    if !chosen.is_empty() {
        each_record(path, |_, header, mut record| {
            let (first, last) = header.columns(key)?;
            if first != last {
                return Err(SuiteError::new(format!(
                    "`{}` is {} columns, and one is due",
                    shown_name(key),
                    last - first + 1
                ))
                .hint("name a single column"));
            }
            if wanted.next() {
                hold(&mut held, record[first].len())?;
                texts.push(std::mem::take(&mut record[first]));
            }
            Ok(!wanted.left.is_empty())
        })?;
    }
    wanted.check(path)?;
    Ok(texts)
}

/// The value of a key of a line.
fn value_of(line: &str, key: &str) -> Result<Value, SuiteError> {
    let value = text::json(line.as_bytes()).map_err(|mut e| {
        // its own place is the line's
        e.place = None;
        e
    })?;
    let Value::Object(mut object) = value else {
        return Err(
            SuiteError::new("is no JSON object").hint("every line of a JSONL file is an object: `{\"x\": [1, 2]}`")
        );
    };
    if let Some(value) = object.remove(key) {
        return Ok(value);
    }
    let near = did_you_mean(key, object.keys().map(String::as_str));
    Err(SuiteError::new(format!("has no key `{}`{near}", shown_name(key)))
        .hint("every line has every key that is named"))
}

/// The chosen rows of a key as numbers: a number, or lists of numbers of one shape.
pub fn jsonl_arrays(path: &Path, key: &str, chosen: &[usize], kind: ElementKind) -> Result<Vec<Array>, SuiteError> {
    let (mut arrays, mut wanted, mut held) = (Vec::new(), Chosen::new(chosen), 0);
    if !chosen.is_empty() {
        each_line(path, |_, line| {
            if wanted.next() {
                let value = value_of(line, key)?;
                let shape = shape_of(&value);
                let mut bytes = Vec::new();
                flatten(&value, &shape, kind, &mut Vec::new(), &mut bytes).map_err(|why| {
                    SuiteError::new(format!("`{}` {why}", shown_name(key)))
                        .hint("numbers, or lists of numbers that are all of one length")
                })?;
                hold(&mut held, bytes.len())?;
                arrays.push(Array { kind, shape, bytes: bytes.into() });
            }
            Ok(!wanted.left.is_empty())
        })?;
    }
    wanted.check(path)?;
    Ok(arrays)
}

/// The chosen rows of a key as texts.
pub fn jsonl_texts(path: &Path, key: &str, chosen: &[usize]) -> Result<Vec<String>, SuiteError> {
    let (mut texts, mut wanted, mut held) = (Vec::new(), Chosen::new(chosen), 0);
    if !chosen.is_empty() {
        each_line(path, |_, line| {
            if wanted.next() {
                let text = match value_of(line, key)? {
                    Value::String(text) => text,
                    Value::Number(number) => number.to_string(),
                    _ => {
                        return Err(SuiteError::new(format!("`{}` is neither a text nor a number", shown_name(key)))
                            .hint("write a text in double quotes"));
                    }
                };
                hold(&mut held, text.len())?;
                texts.push(text);
            }
            Ok(!wanted.left.is_empty())
        })?;
    }
    wanted.check(path)?;
    Ok(texts)
}

/// Lengths of the lists, by the first of each.
fn shape_of(mut value: &Value) -> Vec<usize> {
    let mut shape = Vec::new();
    while let Value::Array(list) = value {
        shape.push(list.len());
        match list.first() {
            Some(first) => value = first,
            None => break,
        }
    }
    shape
}

fn flatten(
    value: &Value,
    shape: &[usize],
    kind: ElementKind,
    place: &mut Vec<usize>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let at = |place: &[usize]| if place.is_empty() { String::new() } else { format!("{place:?} ") };
    match (value, shape.split_first()) {
        (Value::Array(list), Some((length, inner))) if list.len() == *length && *length > 0 => {
            for (i, item) in list.iter().enumerate() {
                place.push(i);
                flatten(item, inner, kind, place, out)?;
                place.pop();
            }
            Ok(())
        }
        (Value::Array(list), Some((length, _))) => {
            Err(format!("{}has {} elements, {length} are due", at(place), list.len()))
        }
        (Value::Number(number), None) => {
            let number = number.as_i64().map(Number::Whole).or_else(|| number.as_f64().map(Number::Real));
            let number = number.ok_or_else(|| format!("{}is no number that is read", at(place)))?;
            number.put(kind, out).map_err(|why| format!("{}{why}", at(place)))
        }
        (Value::Bool(value), None) => {
            Number::Whole((*value).into()).put(kind, out).map_err(|why| format!("{}{why}", at(place)))
        }
        _ => Err(format!("{}is no number of the shape {shape:?} that its first row has", at(place))),
    }
}
