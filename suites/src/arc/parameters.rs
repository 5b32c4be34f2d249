//! The parameters of a suite's or a training file's task, checked.
//!
//! In: keys and values. Out: [`ArcSource`], sizes, counts. Must not: read a task.

use std::path::{Path, PathBuf};

use ergometer_files::Links;
use ergometer_files::cache::CacheFolders;
use sha2::{Digest, Sha256};

use super::grid::MAX_SIDE;
use super::json::Subset;
use super::rules::{RULES, SIDES, number};
use crate::error::SuiteError;
use crate::task::Split;
use crate::toml_table::{Keys, unknown};

/// Most variants of a task: the released TRM uses 1001.
pub const MAX_VARIANTS: u64 = 1024;
/// Most rows of a set.
pub const MAX_EXAMPLES: usize = 1_000_000;
/// Most tasks of rules.
const MAX_TASKS: u64 = 100_000;

const FROM_FILE: [&str; 9] =
    ["file", "dataset", "subset", "max_side", "side", "tasks", "examples", "seed", "augmentations"];
const OF_RULES: [&str; 9] =
    ["rules", "max_side", "side", "tasks", "examples", "seed", "augmentations", "demonstrations", "tests"];

/// Where tasks come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArcSource {
    /// A file or folder, and how a note calls it.
    File(PathBuf, String),
    /// Rules by number, without repetition.
    Rules(Vec<usize>),
}

/// Checked parameters.
#[derive(Clone, Debug)]
pub struct Parameters {
    pub source: ArcSource,
    /// Of a file; the evaluation half if nothing is said.
    pub subset: Option<Subset>,
    /// Of rules: where test inputs come from.
    pub split: Split,
    /// Most rows and columns of a task's grids; tasks of a file with larger ones are left out.
    pub max_side: Option<usize>,
    /// Side of the canvas.
    pub side: usize,
    pub tasks: Option<usize>,
    /// Most rows.
    pub examples: Option<usize>,
    pub seed: u64,
    /// Variants of each task, `None` where nothing is said.
    pub augmentations: Option<usize>,
    pub demonstrations: usize,
    pub tests: usize,
}

impl Parameters {
    /// Errors: keys that are unknown, do not go together, or have values out of range.
    pub fn new(table: &toml::Table, folder: &Path) -> Result<Self, SuiteError> {
        let keys = Keys::of_table(table);
        let ways: Vec<&str> = ["rules", "file", "dataset"].into_iter().filter(|k| keys.has(k)).collect();
        let rules = match ways[..] {
            [way] => way == "rules",
            [] => {
                return Err(SuiteError::new("nothing says which tasks").at("parameters").hint(
                    "write `rules = \"all\"` for own rules, `file = \"PATH\"` for a JSON file, or `dataset = \"arc-agi-1\"`",
                ));
            }
            _ => {
                return Err(SuiteError::new(format!("does not go with `{}`", ways[0]))
                    .at(format!("`{}`", ways[1]))
                    .hint("tasks come from one source"));
            }
        };
        let (own, others) = if rules { (OF_RULES, FROM_FILE) } else { (FROM_FILE, OF_RULES) };
        if let Some(key) = others.iter().find(|k| keys.has(k) && !own.contains(k)) {
            return Err(SuiteError::new(format!("does not go with `{}`", ways[0]))
                .at(format!("`{key}`"))
                .hint("leave it out"));
        }
        let allowed: Vec<&str> = own.into_iter().chain(["split"]).collect();
        let keys = keys.only(&allowed)?;
        let count = |key, most| keys.integer(key, 1..=most).map(|n| n.map(|n| n as usize));
        let split = keys.string("split")?.unwrap_or_else(|| "test".to_owned());
        let split = match split.as_str() {
            "test" => Split::Test,
            "train" if rules => Split::Train,
            "train" => {
                return Err(SuiteError::new("a file's test inputs are all held out").at("`split`").hint(
                    "write `subset = \"train\"` for the half that was published for training, or leave `split` out",
                ));
            }
            other => return Err(unknown("split", other, ["test", "train"].into_iter()).at("`split`")),
        };
        let subset = match keys.string("subset")?.as_deref() {
            None => None,
            Some("train") => Some(Subset::Train),
            Some("eval") => Some(Subset::Eval),
            Some(other) => return Err(unknown("subset", other, ["train", "eval"].into_iter()).at("`subset`")),
        };
        let (least, most) = if rules { (*SIDES.start(), *SIDES.end()) } else { (1, MAX_SIDE) };
        let mut max_side = keys.integer("max_side", least as u64..=most as u64)?.map(|n| n as usize);
        if rules {
            max_side = max_side.or(Some(most));
        }
        let default = if rules { max_side.unwrap_or(MAX_SIDE) } else { MAX_SIDE };
        let side = count("side", MAX_SIDE as u64)?.unwrap_or(default);
        if let Some(max_side) = max_side.filter(|&m| m > side) {
            return Err(SuiteError::new(format!(
                "a canvas of {side}x{side} has no room for grids of {max_side}x{max_side}"
            ))
            .at("`side`")
            .hint(format!("write `side = {max_side}` or more, or a smaller `max_side`")));
        }
        let parameters = Parameters {
            source: if rules { ArcSource::Rules(rules_of(&keys)?) } else { file_of(&keys, folder)? },
            subset,
            split,
            max_side,
            side,
            tasks: count("tasks", MAX_TASKS)?,
            examples: count("examples", MAX_EXAMPLES as u64)?,
            seed: keys.integer("seed", 0..=i64::MAX as u64)?.unwrap_or(0),
            augmentations: count("augmentations", if rules { 8 } else { MAX_VARIANTS })?,
            demonstrations: count("demonstrations", 10)?.unwrap_or(3),
            tests: count("tests", 2)?.unwrap_or(1),
        };
        if parameters.tasks.is_some() && parameters.examples.is_some() {
            return Err(SuiteError::new("does not go with `tasks`")
                .at("`examples`")
                .hint("`examples` limits rows, `tasks` limits tasks: write one of them"));
        }
        Ok(parameters)
    }
}

fn rules_of(keys: &Keys) -> Result<Vec<usize>, SuiteError> {
    let names = keys.get("rules", "\"all\", or a list of one or more names of rules", |v| match v {
        toml::Value::String(all) if all == "all" => Some(RULES.iter().map(|r| r.name.to_owned()).collect()),
        toml::Value::Array(list) if !list.is_empty() => list.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
        _ => None::<Vec<String>>,
    })?;
    let mut found = Vec::new();
    for name in names.unwrap_or_default() {
        let names = RULES.iter().map(|r| r.name);
        let rule = number(&name).ok_or_else(|| unknown("rule", &name, names).at("`rules`"))?;
        if found.contains(&rule) {
            return Err(SuiteError::new(format!("`{name}` is there twice")).at("`rules`").hint("leave one out"));
        }
        found.push(rule);
    }
    // in the order of the table, so that a list's order means nothing
    found.sort_unstable();
    Ok(found)
}

fn file_of(keys: &Keys, folder: &Path) -> Result<ArcSource, SuiteError> {
    if let Some(name) = keys.string("dataset")? {
        return Ok(ArcSource::File(dataset(&name)?, name));
    }
    let name = keys.need("file", keys.string("file")?)?;
    Ok(ArcSource::File(folder.join(&name), name))
}

/// Data sets that `ergometer fetch` obtains, with their places below the cache folder and their sha256.
const DATASETS: [(&str, &str, &str); 2] = [
    (
        "arc-agi-1",
        "fetched/arc-agi-1-aa922be/arcagi_aa922be.json",
        "75b0b7818350a0712133f0eace9342f1775e59958187fdb0542fe40acee1dde3",
    ),
    (
        "arc-agi-2",
        "fetched/arc-agi-2-f3283f7/arcagi2_f3283f7.json",
        "e1cdcd1be5c925cbc389fca4e1c4d7c9cd9e3b2b0e4e2577e4dfbb0d999d40ee",
    ),
];

/// The file of a fetched data set, in the first of the places for the user's cache folder that has it, and it is the
/// pinned one to the byte.
///
/// Errors: an unknown name; a data set that has not been fetched, or is not what was fetched.
pub fn dataset(name: &str) -> Result<PathBuf, SuiteError> {
    let Some((_, place, sha256)) = DATASETS.iter().find(|d| d.0 == name) else {
        return Err(unknown("data set", name, DATASETS.iter().map(|d| d.0)).at("`dataset`"));
    };
    let refused = |why: String, hint: String| SuiteError::new(why).at("`dataset`").hint(hint);
    let files: Vec<PathBuf> = CacheFolders::from_env().all().iter().map(|cache| cache.join(place)).collect();
    let Some(file) = files.iter().find(|f| f.symlink_metadata().is_ok()) else {
        let looked: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        return Err(refused(
            format!("data set `{name}` is not here: no file {}", looked.join(", nor ")),
            format!("`ergometer fetch {name}` obtains it; or name a file of yours: `file = \"PATH\"`"),
        ));
    };
    let damaged = |why: String| {
        refused(
            format!("data set `{name}`: {} {why}", file.display()),
            format!("`ergometer fetch {name}` obtains it anew; a file of your own is named by `file = \"PATH\"`"),
        )
    };
    let bytes = ergometer_files::read(file, super::json::MAX_BYTES, Links::Refused);
    let bytes = bytes.map_err(|e| damaged(format!("cannot be used: {e}")))?;
    let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    match found == *sha256 {
        true => Ok(file.clone()),
        false => Err(damaged(format!("is not what was fetched: its sha256 is {found}, pinned is {sha256}"))),
    }
}
