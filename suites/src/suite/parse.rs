//! From the text of a suite, and of the files that it includes, to a checked suite.
//!
//! In: TOML texts, changes of a command line and the names the caller knows. Out: a [`Suite`] whose every reference holds, or the first
//! error with its file and line. Must not: touch the file system; build a case (see [`expand`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;
use toml::de::DeTable;
use toml::{Spanned, Value};

use super::demands::isolation;
use super::expand::{Swept, expand};
use super::sources::{Change, Changeable, Named, Source, whole_text};
use super::{BackendSpec, Known, MAX_TOGETHER, ModelSpec, Suite, TOGETHER, TaskSpec, sweep};
use crate::error::SuiteError;
use crate::file_form::FileForm;
use crate::toml_table::{Keys, Origin, unknown};

const TOP: [&str; 8] = ["about", "include", "together", "model", "task", "backend", "defaults", "cases"];
const BACKEND: [&str; 8] = ["name", "kind", "command", "options", "pass", "confined", "cpus", "most_memory"];
pub(super) const CASES: [&str; 28] = [
    "models",
    "backends",
    "precisions",
    "tasks",
    "scenarios",
    "batch",
    "threads",
    "slots",
    "depth",
    "seconds",
    "iterations",
    "warmup_seconds",
    "timeout_seconds",
    "compare_seconds",
    "within_seconds",
    "may_be_unavailable",
    "tune",
    "tune_seconds",
    "interleave",
    "any_depth",
    "base",
    "memory_limit",
    "deadline",
    "max_energy",
    "background",
    "ttft_bound",
    "tpot_bound",
    "lag_bound",
];

/// Keys of a cases block that take lists, whose product it asks for.
pub(super) const LISTS: [&str; 8] =
    ["models", "backends", "precisions", "tasks", "scenarios", "batch", "threads", "depth"];

/// A table whose values know their place in the text.
type Block = Spanned<BTreeMap<String, Spanned<Value>>>;

#[derive(Deserialize)]
struct File {
    about: Option<Spanned<Value>>,
    include: Option<Spanned<Value>>,
    together: Option<Spanned<Value>>,
    #[serde(default)]
    model: Vec<Block>,
    #[serde(default)]
    task: Vec<Block>,
    #[serde(default)]
    backend: Vec<Block>,
    defaults: Option<Block>,
    #[serde(default)]
    cases: Vec<Block>,
}

/// Where each line of the text begins.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(i, _)| i + 1).collect())
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|&start| start <= offset)
    }

    fn keys(&self, block: Block) -> Keys {
        let origin = Origin::Line(self.line(block.span().start));
        let entries = block.into_inner().into_iter();
        Keys::new(entries.map(|(k, v)| (k, Origin::Line(self.line(v.span().start)), v.into_inner())), origin)
    }
}

/// The blocks of one file, their values not yet looked at.
struct Part<'a> {
    file: &'a Path,
    /// Keys that stand in no block.
    top: Keys,
    models: Vec<Keys>,
    tasks: Vec<Keys>,
    backends: Vec<Keys>,
    defaults: Keys,
    cases: Vec<Keys>,
}

impl<'a> Part<'a> {
    fn read(source: &'a Source) -> Result<Self, SuiteError> {
        let lines = Lines::of(&source.text);
        let malformed = |e: toml::de::Error| {
            let error = SuiteError::new(e.message().trim_end().replace('\n', ", "));
            let error = error.hint("the layout of a suite is in suites/README.md");
            match e.span() {
                Some(span) => error.at(format!("line {}", lines.line(span.start))),
                None => error,
            }
        };
        let table = DeTable::parse(&source.text).map_err(malformed)?;
        if let Some(key) = table.get_ref().keys().find(|k| !TOP.contains(&k.get_ref().as_ref())) {
            let place = format!("line {}", lines.line(key.span().start));
            let error = unknown("key", key.get_ref(), TOP.into_iter()).at(place);
            let training = table.get_ref().contains_key("optimiser");
            return Err(if training { error.hint("it is a training file: `ergometer train` takes it") } else { error });
        }
        let parsed = File::deserialize(toml::Deserializer::from(table)).map_err(malformed)?;
        let top = [("about", parsed.about), ("include", parsed.include), ("together", parsed.together)];
        let top = top.into_iter().filter_map(|(key, value)| {
            let value = value?;
            Some((key.to_owned(), Origin::Line(lines.line(value.span().start)), value.into_inner()))
        });
        let all = |blocks: Vec<Block>| blocks.into_iter().map(|b| lines.keys(b)).collect();
        let part = Self {
            file: &source.file,
            top: Keys::new(top, Origin::Unknown),
            models: all(parsed.model),
            tasks: all(parsed.task),
            backends: all(parsed.backend),
            defaults: parsed.defaults.map_or_else(|| Keys::new([], Origin::Unknown), |b| lines.keys(b)),
            cases: all(parsed.cases),
        };
        part.top.strings("include")?;
        part.about()?;
        part.together()?;
        Ok(part)
    }

    fn together(&self) -> Result<Option<u64>, SuiteError> {
        self.top.integer("together", 1..=MAX_TOGETHER as u64)
    }

    fn about(&self) -> Result<String, SuiteError> {
        Ok(self.top.get("about", "a string", |v| v.as_str().map(str::to_owned))?.unwrap_or_default())
    }
}

/// Makes the changes; gives the defaults that stand above those of every file.
fn change(parts: &mut [Part], changes: &[Change]) -> Result<Keys, SuiteError> {
    let mut defaults = Keys::new([], Origin::Unknown);
    for change in changes {
        let (mut models, mut tasks, mut backends, mut cases) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut unused = Keys::new([], Origin::Unknown);
        let mut top = &mut unused;
        for part in parts.iter_mut() {
            models.extend(&mut part.models);
            tasks.extend(&mut part.tasks);
            backends.extend(&mut part.backends);
            cases.extend(&mut part.cases);
            // the last is the suite itself
            top = &mut part.top;
        }
        let named = |kind, blocks| Named { kind, blocks };
        let named = vec![named("model", models), named("task", tasks), named("backend", backends)];
        change.apply(&mut Changeable { defaults: &mut defaults, top, cases, named })?;
    }
    Ok(defaults)
}

pub(super) fn parse(sources: &[Source], changes: &[Change], known: &Known) -> Result<Suite, SuiteError> {
    let own = |source: &Source| source.file.clone();
    let parts = sources.iter().map(|s| Part::read(s).map_err(|e| e.in_file(own(s))));
    let mut parts = parts.collect::<Result<Vec<Part>, _>>()?;
    let above = change(&mut parts, changes)?.only(&CASES)?;
    let Some(last) = parts.last() else { return Err(SuiteError::new("asks for no case")) };
    let together = last.together().map_err(|e| e.in_file(last.file))?;
    let mut suite = Suite {
        name: last.file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        about: last.about().map_err(|e| e.in_file(last.file))?,
        file: last.file.to_owned(),
        text: whole_text(sources, changes),
        models: BTreeMap::new(),
        tasks: BTreeMap::new(),
        backends: BTreeMap::new(),
        together: together.map_or(TOGETHER, |n| n as usize),
        cases: Vec::new(),
    };
    let mut swept = Swept::default();
    let (mut defaults, mut seen): (Vec<Keys>, _) = (Vec::new(), HashMap::new());
    for (part, source) in parts.iter().zip(sources) {
        let mut read = || {
            declare(part, &mut suite, &mut swept, known)?;
            // nearer files first
            let own = part.defaults.clone().only(&CASES)?;
            let own = source.includes.iter().rev().fold(own, |all, &i| over(all, &defaults[i]));
            for block in &part.cases {
                let keys = single(over(over(block.clone().only(&CASES)?, &above), &own))?;
                expand(&keys, part.file, &mut suite, &swept, known, &mut seen)?;
            }
            defaults.push(own);
            Ok(())
        };
        read().map_err(|e: SuiteError| e.in_file(part.file))?;
    }
    check_reduced(&suite, &swept)?;
    if suite.cases.is_empty() {
        let error = SuiteError::new("asks for no case").hint("add a [[cases]] block; see suites/README.md");
        return Err(error.in_file(&suite.file));
    }
    Ok(suite)
}

/// A cases block whose keys that take one value have one: a list of one is that.
///
/// Errors: a list of several where the cases of its product would be one and the same.
fn single(mut keys: Keys) -> Result<Keys, SuiteError> {
    for key in CASES.into_iter().filter(|key| !LISTS.contains(key)) {
        let Some(n) = keys.one(key) else { continue };
        return Err(SuiteError::new(format!("found a list of {n}, and it takes one value: cases that differ in it alone are one case"))
            .at(keys.place(key))
            .hint(format!(
                "give each value a [[cases]] block with other models, tasks or backends; lists are for {}; a [[model]], [[task]] or [[backend]] \
                 block takes lists of any key in its `sweep`",
                LISTS.join(", ")
            )));
    }
    Ok(keys)
}

/// A cases block over the defaults that stand below it. Of the two ways to say how much work is offered at once, the
/// nearer counts.
fn over(keys: Keys, below: &Keys) -> Keys {
    let mut below = below.clone();
    for (one, other) in [("batch", "scenarios"), ("scenarios", "batch")] {
        if keys.has(one) {
            below.remove(other);
        }
    }
    keys.or(&below)
}

/// Adds a file's models, tasks and backends.
fn declare(part: &Part, suite: &mut Suite, swept: &mut Swept, known: &Known) -> Result<(), SuiteError> {
    let folder = part.file.parent().unwrap_or(Path::new(""));
    let mut here = HashSet::new();
    for block in &part.models {
        for keys in blocks_of(block, &mut swept.models, &suite.models, &mut swept.blocks)? {
            let keys = keys.only(&["name", "path", "shape", "batch", "state", "vectors", "reduces"])?;
            let name = name(&keys)?;
            let path = crate::locate::model_path(folder, &keys.need("path", keys.string("path")?)?);
            let form = FileForm::of(&keys)?;
            let vectors = keys.string("vectors")?.map(|vectors| folder.join(vectors));
            let reduces = keys.string("reduces")?;
            if let Some(reduces) = &reduces {
                swept.reduces.push((name.clone(), reduces.clone(), keys.place("reduces"), part.file.to_owned()));
            }
            let model = ModelSpec { name, path, form, vectors, reduces };
            add(&keys, &mut here, &mut suite.models, &swept.models, model)?;
        }
    }
    here.clear();
    for block in &part.tasks {
        for keys in blocks_of(block, &mut swept.tasks, &suite.tasks, &mut swept.blocks)? {
            let name = name(&keys)?;
            let kind = keys.need("kind", keys.string("kind")?)?;
            if crate::task(&kind).is_none() {
                return Err(unknown("task kind", &kind, crate::task_names()).at(keys.place("kind")));
            }
            let seed = keys.integer("seed", 0..=i64::MAX as u64)?.unwrap_or(0);
            let parameters = keys.without(&["name", "kind"]);
            let task = TaskSpec { name, kind, parameters, seed, file: part.file.to_owned() };
            add(&keys, &mut here, &mut suite.tasks, &swept.tasks, task)?;
        }
    }
    here.clear();
    for block in &part.backends {
        not_built_in(block, known)?;
        for keys in blocks_of(block, &mut swept.backends, &suite.backends, &mut swept.blocks)? {
            let keys = keys.only(&BACKEND)?;
            let spec = backend(&keys, folder, known)?;
            add(&keys, &mut here, &mut suite.backends, &swept.backends, spec)?;
        }
    }
    Ok(())
}

/// Errors: a reduced form of a model that the suite does not have, or that is a reduced form itself.
fn check_reduced(suite: &Suite, swept: &Swept) -> Result<(), SuiteError> {
    for (name, original, place, file) in &swept.reduces {
        let error = match suite.models.get(original) {
            None => unknown("model", original, suite.models.keys().map(String::as_str)),
            Some(of) if of.name == *name || of.reduces.is_some() => {
                SuiteError::new(format!("`{name}` cannot be a reduced form of `{original}`, which is one itself"))
                    .hint("name the model that all of them are made of")
            }
            Some(_) => continue,
        };
        return Err(error.at(place.clone()).in_file(file));
    }
    Ok(())
}

/// The blocks that a block stands for; what its name stands for is noted, and how many blocks sweeps have come to.
fn blocks_of<T>(
    block: &Keys,
    swept: &mut BTreeMap<String, Vec<String>>,
    plain: &BTreeMap<String, T>,
    count: &mut usize,
) -> Result<Vec<Keys>, SuiteError> {
    let of = name(block)?;
    if !block.has("sweep") {
        return Ok(vec![block.clone()]);
    }
    let blocks = sweep::blocks(block.clone(), &of, count)?;
    let names = blocks.iter().map(name).collect::<Result<Vec<String>, _>>()?;
    // one name means one thing: a block, or the blocks of one sweep
    if plain.contains_key(&of) || swept.get(&of).is_some_and(|there| *there != names) {
        return Err(taken(block, &of));
    }
    swept.insert(of, names);
    Ok(blocks)
}

/// Adds a block. The same block may come again from another file: `here` are the names of this one.
fn add<T: PartialEq>(
    keys: &Keys,
    here: &mut HashSet<String>,
    to: &mut BTreeMap<String, T>,
    swept: &BTreeMap<String, Vec<String>>,
    spec: T,
) -> Result<(), SuiteError> {
    let name = name(keys)?;
    let other = to.get(&name).is_some_and(|there| *there != spec);
    if !here.insert(name.clone()) || other || swept.contains_key(&name) {
        return Err(taken(keys, &name));
    }
    to.insert(name, spec);
    Ok(())
}

fn taken(keys: &Keys, name: &str) -> SuiteError {
    SuiteError::new(format!("`{name}` is taken already"))
        .at(keys.place("name"))
        .hint("give each block a name of its own")
}

/// Refuses a backend by the name of a built-in one, which would hide it.
fn not_built_in(keys: &Keys, known: &Known) -> Result<(), SuiteError> {
    let name = name(keys)?;
    if name != "external" && !known.backends.contains(&name.as_str()) {
        return Ok(());
    }
    Err(SuiteError::new(format!("`{name}` is the name of a built-in backend"))
        .at(keys.place("name"))
        .hint(format!("choose another, such as `{name}-2`")))
}

/// The block's name, fit for a path.
fn name(keys: &Keys) -> Result<String, SuiteError> {
    let name = keys.need("name", keys.string("name")?)?;
    let fit = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    if !fit {
        let shown: String = name.chars().take(64).collect();
        return Err(SuiteError::new(format!("`{shown}` is no name")).at(keys.place("name")).hint(
            "up to 64 letters, digits, `.`, `-` and `_`, beginning with a letter or digit: it becomes part of a path",
        ));
    }
    Ok(name)
}

fn backend(keys: &Keys, folder: &Path, known: &Known) -> Result<BackendSpec, SuiteError> {
    let name = name(keys)?;
    let kind = keys.need("kind", keys.string("kind")?)?;
    if kind != "external" && !known.backends.contains(&kind.as_str()) {
        let kinds = known.backends.iter().copied().chain(["external"]);
        return Err(unknown("backend kind", &kind, kinds).at(keys.place("kind")));
    }
    let mut command = keys.strings("command")?.unwrap_or_default();
    if (kind == "external") == command.is_empty() {
        let wrong = if command.is_empty() { "is missing" } else { "belongs to backends of kind `external` only" };
        return Err(SuiteError::new(wrong)
            .at(keys.place("command"))
            .hint("write `command = [\"program\", \"argument\"]` for `kind = \"external\"` and for no other"));
    }
    // A bare program is looked up in PATH; one with a slash is a path, and starts at the suite as every path does.
    if let Some(program) = command.first_mut().filter(|p| p.contains('/') && !p.starts_with("{suite}")) {
        *program = folder.join(&*program).to_string_lossy().into_owned();
    }
    let beside = if folder.as_os_str().is_empty() { ".".into() } else { folder.to_string_lossy() };
    for word in &mut command {
        *word = word.replace("{suite}", &beside);
    }
    let options = keys.get("options", "a table of strings, numbers and booleans", |v| {
        v.as_table()?.iter().map(|(k, v)| Some((k.clone(), option(v)?))).collect()
    })?;
    let isolation = isolation(keys, kind == "external")?;
    Ok(BackendSpec { name, kind, command, options: options.unwrap_or_default(), isolation })
}

fn option(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
