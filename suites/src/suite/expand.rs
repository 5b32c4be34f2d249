//! The product of one `[[cases]]` block.
//!
//! In: the block over its defaults, the models, tasks and backends of the suite. Out: its cases. Must not: build more than [`MAX_CASES`], or two
//! that are alike.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Value;

use super::demands::limits;
use super::{CaseSpec, Known, MAX_CASES, MAX_THREADS, Suite, sweep};
use crate::error::SuiteError;
use crate::scenario::{Depth, MAX_BATCH, Scenario};
use crate::toml_table::{Keys, listed, unknown};

/// Blocks that one block with a `sweep` stands for, by its name: models, tasks, backends.
#[derive(Default)]
pub(super) struct Swept {
    pub models: BTreeMap<String, Vec<String>>,
    pub tasks: BTreeMap<String, Vec<String>>,
    pub backends: BTreeMap<String, Vec<String>>,
    /// Models that are reduced forms: name, original, where that is said.
    pub reduces: Vec<(String, String, String, PathBuf)>,
    /// How many blocks there are of all of them.
    pub blocks: usize,
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
    fn of(keys: &Keys, suite: &Suite, swept: &Swept, known: &Known) -> Result<Self, SuiteError> {
        let or = |key, default: &str| Ok(keys.strings(key)?.unwrap_or_else(|| vec![default.to_owned()]));
        let models = named(keys, "models", "model", &swept.models, suite.models.keys().map(String::as_str))?;
        // `external` itself is not runnable: its command is in a block of the suite.
        let names = known.backends.iter().copied().filter(|b| *b != "external");
        let names = names.chain(suite.backends.keys().map(String::as_str));
        let backends = named(keys, "backends", "backend", &swept.backends, names.clone())?;
        let base = keys.string("base")?;
        check(keys, "base", "backend", base.as_slice(), names)?;
        let tasks = named(keys, "tasks", "task", &swept.tasks, suite.tasks.keys().map(String::as_str))?;
        let precisions = or("precisions", "f32")?;
        check(keys, "precisions", "precision", &precisions, known.precisions.iter().copied())?;
        let scenarios = scenarios(keys)?;
        let depths = each(keys, "depth", or("depth", "halt-16")?)?;
        let threads = threads(keys, known)?;
        Ok(Self { models, backends, base, tasks, precisions, scenarios, depths, threads })
    }

    /// Cases in the product.
    fn product(&self) -> usize {
        let names = [&self.models, &self.backends, &self.tasks, &self.precisions].map(Vec::len);
        let lengths = names.into_iter().chain([self.scenarios.len(), self.threads.len(), self.depths.len()]);
        lengths.fold(1, usize::saturating_mul)
    }
}

/// The names in a list, each that stands for several blocks replaced by theirs. All must be known.
fn named<'a>(
    keys: &Keys,
    key: &str,
    what: &str,
    swept: &'a BTreeMap<String, Vec<String>>,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<Vec<String>, SuiteError> {
    let names = keys.need(key, keys.strings(key)?)?;
    check(keys, key, what, &names, known.chain(swept.keys().map(String::as_str)))?;
    Ok(names.into_iter().flat_map(|name| swept.get(&name).cloned().unwrap_or_else(|| vec![name])).collect())
}

/// What `scenarios` and `batch` ask for: a batch of 1 is `single-stream`, one of N `offline-bN`.
fn scenarios(keys: &Keys) -> Result<Vec<Scenario>, SuiteError> {
    let (texts, batches) = (keys.strings("scenarios")?, keys.integers("batch", 1..=u64::from(MAX_BATCH))?);
    let texts = match (texts, batches) {
        (Some(_), Some(_)) => {
            return Err(SuiteError::new("goes without `scenarios`")
                .at(keys.place("batch"))
                .hint("`batch = [1, 8]` is `scenarios = [\"single-stream\", \"offline-b8\"]`: keep one of them"));
        }
        (Some(texts), None) => texts,
        (None, batches) => {
            let word = |n: u64| if n == 1 { "single-stream".to_owned() } else { format!("offline-b{n}") };
            batches.unwrap_or_else(|| vec![1]).into_iter().map(word).collect()
        }
    };
    each(keys, "scenarios", texts)
}

/// What `threads` asks for: numbers, `"all"`, `"1..all"`.
fn threads(keys: &Keys, known: &Known) -> Result<Vec<u64>, SuiteError> {
    let wanted = format!(
        "whole numbers from 1 to {MAX_THREADS}, \"all\" (here {}), or \"1..all\" (1, 2, 4, ... up to all)",
        known.processors
    );
    let found = keys.get("threads", &wanted, |v| {
        let each = listed(v).iter().map(|v| match v {
            Value::String(word) => sweep::threads(word, known.processors.clamp(1, MAX_THREADS), MAX_THREADS),
            _ => v.as_integer().filter(|n| (1..=i64::from(MAX_THREADS)).contains(n)).map(|n| vec![n as u64]),
        });
        let mut all: Vec<u64> = each.collect::<Option<Vec<_>>>()?.concat();
        // `[1, "1..all"]` means 1 once; numbers that are written twice are a mistake, told as one case asked for twice
        if listed(v).iter().any(Value::is_str) {
            let mut seen = HashSet::new();
            all.retain(|n| seen.insert(*n));
        }
        (!all.is_empty()).then_some(all)
    })?;
    Ok(found.unwrap_or_else(|| vec![1]))
}

/// Whether the cases of a block take turns, and those of any depth with each other.
fn turns(keys: &Keys, lists: &Lists) -> Result<(bool, bool), SuiteError> {
    let interleave = keys.boolean("interleave")?.unwrap_or(false);
    if let Some(scenario) = lists.scenarios.iter().find(|s| interleave && s.processes().is_some()) {
        return Err(SuiteError::new(format!(
            "{scenario} takes no turns: speed-ups are of iterations, and it times processes"
        ))
        .at(keys.place("interleave"))
        .hint("leave out `interleave`, or give that scenario a [[cases]] block of its own"));
    }

    let any_depth = keys.boolean("any_depth")?.unwrap_or(false);
    if any_depth && !interleave {
        return Err(SuiteError::new("says which cases take turns, and these take none")
            .at(keys.place("any_depth"))
            .hint("write `interleave = true` beside it, or leave it out"));
    }
    Ok((interleave, any_depth))
}

/// Adds the product of one cases block. `seen` holds the place that asked for each case.
pub(super) fn expand(
    keys: &Keys,
    file: &Path,
    suite: &mut Suite,
    swept: &Swept,
    known: &Known,
    seen: &mut HashMap<String, String>,
) -> Result<(), SuiteError> {
    let lists = Lists::of(keys, suite, swept, known)?;
    let line = keys.whole();
    let seconds = keys.seconds("seconds", false)?.unwrap_or(2.0);
    let iterations = keys.integer("iterations", 1..=1_000_000_000)?.unwrap_or(10) as u32;
    let warmup_seconds = keys.seconds("warmup_seconds", true)?.unwrap_or(0.5);
    let timeout_seconds = keys.seconds("timeout_seconds", false)?.unwrap_or(60.0);
    let within_seconds = keys.seconds("within_seconds", false)?;
    let compare_seconds = keys.seconds("compare_seconds", false)?.unwrap_or(300.0);
    let may_be_unavailable = keys.boolean("may_be_unavailable")?.unwrap_or(false);
    let tune = keys.boolean("tune")?.unwrap_or(false);
    let tune_seconds = keys.seconds("tune_seconds", false)?.unwrap_or(20.0);
    let (interleave, any_depth) = turns(keys, &lists)?;
    let limits = limits(keys)?;
    let total = lists.product().saturating_add(suite.cases.len());
    if total > MAX_CASES {
        return Err(SuiteError::new(format!("the suite comes to {total} cases or more; {MAX_CASES} are the most"))
            .at(line)
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
                                    compare_seconds,
                                    within_seconds,
                                    may_be_unavailable,
                                    tune,
                                    tune_seconds,
                                    limits,
                                    interleave,
                                    any_depth,
                                    base: lists.base.clone(),
                                };
                                let place = if *file == suite.file {
                                    line.clone()
                                } else {
                                    format!("{line} of {}", file.display())
                                };
                                if let Some(before) = seen.insert(computed(&case), place) {
                                    return Err(twice(&case, &before).at(line));
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
    let depth = if matches!(case.depth, Depth::Fixed(1) | Depth::Halt(1) | Depth::HaltKeep(1)) {
        Depth::Once
    } else {
        case.depth
    };
    CaseSpec { depth, ..case.clone() }.to_string()
}

fn twice(case: &CaseSpec, before: &str) -> SuiteError {
    SuiteError::new(format!("asks a second time for {case}, which the block of {before} asks for")).hint(
        "leave it out of one block; seconds and iterations do not make two cases different, nor do `once`, `fixed-1`, `halt-1` and `halt-keep-1`, \
         which are one step",
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
