//! From the text of a suite file to a checked suite.
//!
//! In: TOML text and the names the caller knows. Out: a [`Suite`] whose every reference holds, or the first error with
//! its line. Must not: touch the file system; build more than [`MAX_CASES`] cases.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use toml::de::DeTable;
use toml::{Spanned, Value};

use super::{BackendSpec, CaseSpec, Known, MAX_CASES, MAX_THREADS, MAX_TOGETHER, ModelSpec, Suite, TOGETHER, TaskSpec};
use crate::error::SuiteError;
use crate::scenario::{Depth, Scenario};
use crate::toml_table::{Keys, unknown};

const TOP: [&str; 7] = ["about", "together", "model", "task", "backend", "defaults", "cases"];
const CASES: [&str; 16] = [
    "models",
    "backends",
    "precisions",
    "tasks",
    "scenarios",
    "threads",
    "depth",
    "seconds",
    "iterations",
    "warmup_seconds",
    "timeout_seconds",
    "may_be_unavailable",
    "tune",
    "tune_seconds",
    "interleave",
    "base",
];

/// A table whose values know their place in the text.
type Block = Spanned<BTreeMap<String, Spanned<Value>>>;

#[derive(Deserialize)]
struct File {
    about: Option<String>,
    together: Option<Spanned<i64>>,
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
        let line = self.line(block.span().start);
        let entries = block.into_inner().into_iter();
        Keys::new(entries.map(|(k, v)| (k, Some(self.line(v.span().start)), v.into_inner())), Some(line))
    }
}

pub(super) fn parse(text: &str, file: &Path, known: &Known) -> Result<Suite, SuiteError> {
    let lines = Lines::of(text);
    let malformed = |e: toml::de::Error| {
        let error = SuiteError::new(e.message().trim_end().replace('\n', ", "));
        let error = error.hint("the layout of a suite is in suites/README.md");
        match e.span() {
            Some(span) => error.at(format!("line {}", lines.line(span.start))),
            None => error,
        }
    };
    let table = DeTable::parse(text).map_err(malformed)?;
    if let Some(key) = table.get_ref().keys().find(|k| !TOP.contains(&k.get_ref().as_ref())) {
        let place = format!("line {}", lines.line(key.span().start));
        let error = unknown("key", key.get_ref(), TOP.into_iter()).at(place);
        let training = table.get_ref().contains_key("optimiser");
        return Err(if training { error.hint("it is a training file: `ergometer train` takes it") } else { error });
    }
    let parsed = File::deserialize(toml::Deserializer::from(table)).map_err(malformed)?;

    let together = match parsed.together {
        None => TOGETHER,
        Some(n) => usize::try_from(*n.get_ref()).ok().filter(|n| (1..=MAX_TOGETHER).contains(n)).ok_or_else(|| {
            SuiteError::new(format!("found integer {}", n.get_ref()))
                .at(format!("line {}, `together`", lines.line(n.span().start)))
                .hint(format!("write a whole number from 1 to {MAX_TOGETHER}: workers that are alive at once"))
        })?,
    };
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut suite = Suite {
        name: file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        about: parsed.about.unwrap_or_default(),
        file: file.to_owned(),
        text: text.to_owned(),
        models: BTreeMap::new(),
        tasks: BTreeMap::new(),
        backends: BTreeMap::new(),
        together,
        cases: Vec::new(),
    };
    for block in parsed.model {
        let keys = lines.keys(block).only(&["name", "path"])?;
        let name = new_name(&keys, &suite.models)?;
        let path = folder.join(keys.need("path", keys.string("path")?)?);
        suite.models.insert(name.clone(), ModelSpec { name, path });
    }
    for block in parsed.task {
        let keys = lines.keys(block);
        let name = new_name(&keys, &suite.tasks)?;
        let kind = keys.need("kind", keys.string("kind")?)?;
        if crate::task(&kind).is_none() {
            return Err(unknown("task kind", &kind, crate::task_names()).at(keys.place("kind")));
        }
        let seed = keys.integer("seed", 0..=i64::MAX as u64)?.unwrap_or(0);
        let parameters = keys.without(&["name", "kind"]);
        suite.tasks.insert(name.clone(), TaskSpec { name, kind, parameters, seed });
    }
    for block in parsed.backend {
        let keys = lines.keys(block).only(&["name", "kind", "command", "options"])?;
        let spec = backend(&keys, &suite.backends, folder, known)?;
        suite.backends.insert(spec.name.clone(), spec);
    }
    let defaults = match parsed.defaults {
        Some(block) => lines.keys(block).only(&CASES)?,
        None => Keys::new([], None),
    };
    let mut seen = HashMap::new();
    for block in parsed.cases {
        let line = lines.line(block.span().start);
        let keys = lines.keys(block).only(&CASES)?.or(&defaults);
        expand(&keys, line, &mut suite, known, &mut seen)?;
    }
    if suite.cases.is_empty() {
        return Err(SuiteError::new("asks for no case").hint("add a [[cases]] block; see suites/README.md"));
    }
    Ok(suite)
}

/// The block's name: fit for a path, and new.
fn new_name<T>(keys: &Keys, taken: &BTreeMap<String, T>) -> Result<String, SuiteError> {
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
    if taken.contains_key(&name) {
        return Err(SuiteError::new(format!("`{name}` is taken already"))
            .at(keys.place("name"))
            .hint("give each block a name of its own"));
    }
    Ok(name)
}

fn backend(
    keys: &Keys,
    taken: &BTreeMap<String, BackendSpec>,
    folder: &Path,
    known: &Known,
) -> Result<BackendSpec, SuiteError> {
    let name = new_name(keys, taken)?;
    if name == "external" || known.backends.contains(&name.as_str()) {
        return Err(SuiteError::new(format!("`{name}` is the name of a built-in backend"))
            .at(keys.place("name"))
            .hint(format!("choose another, such as `{name}-2`")));
    }
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
    Ok(BackendSpec { name, kind, command, options: options.unwrap_or_default() })
}

fn option(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The lists of one cases block, whose product it asks for.
struct Lists {
    models: Vec<String>,
    backends: Vec<String>,
    /// The backend that the others are compared with.
    base: Option<String>,
    tasks: Vec<String>,
    precisions: Vec<String>,
    scenarios: Vec<Scenario>,
    depths: Vec<Depth>,
    threads: Vec<u64>,
}

impl Lists {
    /// Errors: a list that is missing where it must be there; a name that is not known.
    fn of(keys: &Keys, suite: &Suite, known: &Known) -> Result<Self, SuiteError> {
        let need = |key| keys.need(key, keys.strings(key)?);
        let or = |key, default: &str| Ok(keys.strings(key)?.unwrap_or_else(|| vec![default.to_owned()]));
        let models = need("models")?;
        check(keys, "models", "model", &models, suite.models.keys().map(String::as_str))?;
        let backends = need("backends")?;
        // `external` itself is not runnable: its command is in a block of the suite.
        let names = known.backends.iter().copied().filter(|b| *b != "external");
        let names = names.chain(suite.backends.keys().map(String::as_str));
        check(keys, "backends", "backend", &backends, names.clone())?;
        let base = keys.string("base")?;
        check(keys, "base", "backend", base.as_slice(), names)?;
        let tasks = need("tasks")?;
        check(keys, "tasks", "task", &tasks, suite.tasks.keys().map(String::as_str))?;
        let precisions = or("precisions", "f32")?;
        check(keys, "precisions", "precision", &precisions, known.precisions.iter().copied())?;
        let scenarios = each(keys, "scenarios", or("scenarios", "single-stream")?)?;
        let depths = each(keys, "depth", or("depth", "halt-16")?)?;
        let threads = keys.integers("threads", 1..=u64::from(MAX_THREADS))?.unwrap_or_else(|| vec![1]);
        Ok(Self { models, backends, base, tasks, precisions, scenarios, depths, threads })
    }

    /// Cases in the product.
    fn product(&self) -> usize {
        let names = [&self.models, &self.backends, &self.tasks, &self.precisions].map(Vec::len);
        let lengths = names.into_iter().chain([self.scenarios.len(), self.threads.len(), self.depths.len()]);
        lengths.fold(1, usize::saturating_mul)
    }
}

/// Adds the product of one cases block. `seen` holds the line that asked for each case.
fn expand(
    keys: &Keys,
    line: usize,
    suite: &mut Suite,
    known: &Known,
    seen: &mut HashMap<String, usize>,
) -> Result<(), SuiteError> {
    let lists = Lists::of(keys, suite, known)?;
    let seconds = keys.seconds("seconds", false)?.unwrap_or(2.0);
    let iterations = keys.integer("iterations", 1..=1_000_000_000)?.unwrap_or(10) as u32;
    let warmup_seconds = keys.seconds("warmup_seconds", true)?.unwrap_or(0.5);
    let timeout_seconds = keys.seconds("timeout_seconds", false)?.unwrap_or(60.0);
    let may_be_unavailable = keys.boolean("may_be_unavailable")?.unwrap_or(false);
    let tune = keys.boolean("tune")?.unwrap_or(false);
    let tune_seconds = keys.seconds("tune_seconds", false)?.unwrap_or(20.0);
    let interleave = keys.boolean("interleave")?.unwrap_or(false);
    if let Some(scenario) = lists.scenarios.iter().find(|s| interleave && s.processes().is_some()) {
        return Err(SuiteError::new(format!(
            "{scenario} takes no turns: speed-ups are of iterations, and it times processes"
        ))
        .at(keys.place("interleave"))
        .hint("leave out `interleave`, or give that scenario a [[cases]] block of its own"));
    }

    let total = lists.product().saturating_add(suite.cases.len());
    if total > MAX_CASES {
        return Err(SuiteError::new(format!("the suite comes to {total} cases or more; {MAX_CASES} are the most"))
            .at(format!("line {line}"))
            .hint("shorten the lists of this block, or split the suite"));
    }
    for model in &lists.models {
        for task in &lists.tasks {
            for precision in &lists.precisions {
                for scenario in &lists.scenarios {
                    for threads in &lists.threads {
                        for depth in &lists.depths {
                            for backend in &lists.backends {
                                let case = CaseSpec {
                                    model: model.clone(),
                                    backend: backend.clone(),
                                    precision: precision.clone(),
                                    task: task.clone(),
                                    scenario: *scenario,
                                    threads: *threads as u32,
                                    depth: *depth,
                                    seconds,
                                    iterations,
                                    warmup_seconds,
                                    timeout_seconds,
                                    may_be_unavailable,
                                    tune,
                                    tune_seconds,
                                    interleave,
                                    base: lists.base.clone(),
                                };
                                if let Some(before) = seen.insert(computed(&case), line) {
                                    return Err(twice(&case, before).at(format!("line {line}")));
                                }
                                suite.cases.push(case);
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// A case by what it computes: one step is one step, whatever it is called.
fn computed(case: &CaseSpec) -> String {
    let depth = if matches!(case.depth, Depth::Fixed(1) | Depth::Halt(1)) { Depth::Once } else { case.depth };
    CaseSpec { depth, ..case.clone() }.to_string()
}

fn twice(case: &CaseSpec, before: usize) -> SuiteError {
    SuiteError::new(format!("asks a second time for {case}, which the block of line {before} asks for")).hint(
        "leave it out of one block; seconds and iterations do not make two cases different, nor do `once`, `fixed-1` and `halt-1`, which are \
         one step",
    )
}

/// Every name of a list must be known.
fn check<'a>(
    keys: &Keys,
    key: &str,
    what: &str,
    names: &[String],
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), SuiteError> {
    let set: HashSet<&str> = known.clone().collect();
    match names.iter().find(|n| !set.contains(n.as_str())) {
        None => Ok(()),
        Some(name) => Err(unknown(what, name, known).at(keys.place(key))),
    }
}

fn each<T: FromStr<Err = SuiteError>>(keys: &Keys, key: &str, texts: Vec<String>) -> Result<Vec<T>, SuiteError> {
    texts.iter().map(|t| t.parse().map_err(|e: SuiteError| e.at(keys.place(key)))).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
