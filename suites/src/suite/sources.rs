//! The files and flags that make up one suite: the file itself, the files that it includes, and what `--set` changes.
//!
//! In: the path of a suite, changes of a command line. Out: the [`Source`]s, included ones first, and the changes made to blocks that were
//! read. Must not: know what a key means, other than which blocks have names.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Value;

use crate::error::SuiteError;
use crate::toml_table::{Keys, Origin, unknown};

/// Most files of one suite.
const MAX_FILES: usize = 64;

/// One file of a suite.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Its path.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// Places among the sources of the files that it includes.
    pub includes: Vec<usize>,
}

/// Reads a suite and the files that it includes: each once, and before the file that names it, so that the last is the
/// suite itself.
///
/// # Errors
/// A file that cannot be read, files that include each other in a circle, more than [`MAX_FILES`].
pub(super) fn read(file: &Path, read_text: fn(&Path) -> Result<String, SuiteError>) -> Result<Vec<Source>, SuiteError> {
    let mut sources = Vec::new();
    visit(file, read_text, &mut Vec::new(), &mut sources)?;
    Ok(sources)
}

fn visit(
    file: &Path,
    read_text: fn(&Path) -> Result<String, SuiteError>,
    open: &mut Vec<PathBuf>,
    done: &mut Vec<Source>,
) -> Result<usize, SuiteError> {
    // two ways of writing one path are one file
    let real = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_owned());
    if let Some(place) = done.iter().position(|s| real(&s.file) == real(file)) {
        return Ok(place);
    }
    if open.contains(&real(file)) {
        return Err(SuiteError::new("includes itself, by way of other files or at once")
            .in_file(file)
            .at("`include`")
            .hint("take it out of one of them"));
    }
    if open.len() + done.len() == MAX_FILES {
        return Err(SuiteError::new(format!("includes more than {MAX_FILES} files")).in_file(file).at("`include`"));
    }
    open.push(real(file));
    let text = read_text(file).map_err(|e| e.in_file(file))?;
    let mut includes = Vec::new();
    for name in included(&text) {
        let path = file.parent().unwrap_or(Path::new("")).join(&name);
        if !path.is_file() {
            return Err(SuiteError::new(format!("there is no file `{name}`")).in_file(file).at("`include`").hint(
                format!("paths start at the folder of the file that names them; it would be {}", path.display()),
            ));
        }
        includes.push(visit(&path, read_text, open, done)?);
    }
    open.pop();
    done.push(Source { file: file.to_owned(), text, includes });
    Ok(done.len() - 1)
}

/// What a text includes. What is wrong with the text, or with the key, the parser says.
fn included(text: &str) -> Vec<String> {
    let table: toml::Table = text.parse().unwrap_or_default();
    let list = table.get("include").map(crate::toml_table::listed).unwrap_or_default();
    list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// `KEY=VALUE` of a command line: a value other than the files have it.
///
/// `KEY` is `about`, `together`, `defaults.K`, `cases.K` (of every `[[cases]]` block), or `model.NAME.K`, `task.NAME.K`, `backend.NAME.K`;
/// without `NAME` it is the one block of its kind. `K` may name a place in a table: `options.speed`. `VALUE` is TOML, and
/// what is no TOML is a string.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// As it was written.
    pub written: String,
    key: String,
    value: Value,
}

impl FromStr for Change {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        let (key, value) = written.split_once('=').unwrap_or((written, ""));
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || value.is_empty() {
            return Err(
                "write it as KEY=VALUE, e.g. defaults.seconds=1, model.path=my-net or cases.threads=[1,2]".into()
            );
        }
        let parsed = format!("v = {value}").parse::<toml::Table>().ok().filter(|t| t.len() == 1);
        let value = parsed.and_then(|mut t| t.remove("v")).unwrap_or_else(|| Value::String(value.into()));
        Ok(Self { written: written.to_owned(), key: key.to_owned(), value })
    }
}

/// Blocks of one kind that have names, as they are read, before they are checked.
pub(super) struct Named<'a> {
    /// The key of the blocks, e.g. `model`.
    pub kind: &'static str,
    /// The blocks.
    pub blocks: Vec<&'a mut Keys>,
}

/// What a change may touch.
pub(super) struct Changeable<'a> {
    /// `[defaults]` of the suite itself, which stand above those of the files that it includes.
    pub defaults: &'a mut Keys,
    /// Keys of the suite that stand in no block.
    pub top: &'a mut Keys,
    /// Every `[[cases]]` block.
    pub cases: Vec<&'a mut Keys>,
    /// Blocks with names.
    pub named: Vec<Named<'a>>,
}

impl Change {
    /// Makes the change.
    ///
    /// # Errors
    /// No such block, or several where the key names none.
    pub(super) fn apply(&self, to: &mut Changeable) -> Result<(), SuiteError> {
        let (head, rest) = self.key.split_once('.').unwrap_or((&self.key, ""));
        let wrong = |e: SuiteError| e.at(format!("`--set {}`", self.written));
        let set = |keys: &mut Keys, path: &str| {
            let path: Vec<&str> = path.split('.').collect();
            keys.set(&path, self.value.clone(), Origin::Flag).map_err(wrong)
        };
        if matches!(head, "about" | "together") && rest.is_empty() {
            return set(to.top, head);
        }
        if !rest.is_empty() && head == "defaults" {
            return set(to.defaults, rest);
        }
        if !rest.is_empty() && head == "cases" {
            return to.cases.iter_mut().try_for_each(|keys| {
                // two ways to say how much work is offered at once: the one that is set counts
                match rest {
                    "batch" => keys.remove("scenarios"),
                    "scenarios" => keys.remove("batch"),
                    _ => {}
                }
                set(keys, rest)
            });
        }
        let kinds: Vec<&str> = to.named.iter().map(|n| n.kind).collect();
        let Some(named) = to.named.iter_mut().find(|n| n.kind == head && !rest.is_empty()) else {
            let known = kinds.into_iter().chain(["defaults", "cases", "about", "together"]);
            return Err(wrong(unknown("key", &self.key, known).hint(
                "keys are `defaults.K`, `cases.K`, `model.NAME.K`, `task.NAME.K`, `backend.NAME.K`, `about` and `together`",
            )));
        };
        let name_of = |keys: &Keys| keys.string("name").ok().flatten().unwrap_or_default();
        // names may have dots: the longest that fits is meant
        let mut all: Vec<String> = named.blocks.iter().map(|b| name_of(b)).collect();
        all.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let meant = all.iter().find(|name| rest.strip_prefix(name.as_str()).is_some_and(|r| r.starts_with('.')));
        let (name, path) = match (meant, named.blocks.len()) {
            (Some(name), _) => (name.clone(), &rest[name.len() + 1..]),
            (None, 1) => (all[0].clone(), rest),
            (None, _) => {
                let (first, _) = rest.split_once('.').unwrap_or((rest, ""));
                return Err(wrong(
                    unknown(head, first, all.iter().map(String::as_str))
                        .hint(format!("name one: `{head}.NAME.{rest}` with {}", all.join(", "))),
                ));
            }
        };
        named.blocks.iter_mut().filter(|b| name_of(b) == name).try_for_each(|keys| set(keys, path))
    }

    /// Whether it sets the path of a model.
    fn is_model_path(&self) -> bool {
        self.key.starts_with("model.") && self.key.ends_with(".path")
    }

    /// The path of a model, which on a command line starts at the working directory, as every path there does.
    pub(super) fn at_working_directory(mut self) -> Self {
        if self.is_model_path()
            && let Value::String(path) = &self.value
            && let Ok(absolute) = std::path::absolute(path)
        {
            self.value = Value::String(absolute.to_string_lossy().into_owned());
        }
        self
    }
}

/// The text of a suite as a run keeps it: the file's own, then as comments the files that it includes and what the
/// command line changed, so that the hash is of all of them.
pub(super) fn whole_text(sources: &[Source], changes: &[Change]) -> String {
    let Some((suite, included)) = sources.split_last() else { return String::new() };
    let mut text = suite.text.clone();
    for source in included {
        let name = source.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        append(&mut text, &format!("included: {name}"), &source.text);
    }
    for change in changes {
        append(&mut text, &format!("--set {}", change.written), "");
    }
    text
}

/// Adds a heading and a text as comments.
fn append(text: &mut String, heading: &str, body: &str) {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for line in heading.lines().chain(body.lines()) {
        text.push_str(format!("# {line}").trim_end());
        text.push('\n');
    }
}
