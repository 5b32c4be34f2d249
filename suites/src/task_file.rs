//! The task that a file names: the `[task]` table of a training file or of a file with nothing else, or a `[[task]]`
//! block of a suite.
//!
//! In: a TOML file, and a name where a suite has several. Out: a [`TaskFile`]: kind, parameters, folder. Must not:
//! check parameters (the task does), make an example, or judge the rest of a training file.

use std::path::{Path, PathBuf};

use crate::error::SuiteError;
use crate::locate;
use crate::suite::{Known, Suite};
use crate::task::Task;
use crate::text;
use crate::toml_table::{Keys, unknown};

/// Largest file.
const MAX_BYTES: u64 = 1 << 20;
/// Keys of a training file's `[task]` that say how a trainer uses the task.
const TRAINERS: [&str; 3] = ["eval_examples", "eval_seed", "puzzles"];
/// Parameters that say which of the task's examples, and how many.
const WHICH: [&str; 3] = ["examples", "seed", "split"];

/// A task with its parameters, none of which says which examples or how many.
pub struct TaskFile {
    /// The file.
    pub file: PathBuf,
    /// Name of the block, or the kind.
    pub name: String,
    /// The kind of task.
    pub task: &'static Task,
    /// Its parameters.
    pub parameters: toml::Table,
}

impl TaskFile {
    /// Reads one: a path, or the bare name of a shipped suite. `name` chooses among a suite's tasks.
    ///
    /// # Errors
    /// No such file, or none with a task; a suite that is wrong; several tasks and no name, or an unknown one.
    pub fn load(path_or_name: &Path, name: Option<&str>, known: &Known) -> Result<TaskFile, SuiteError> {
        let file = locate::find_suite(path_or_name).or_else(|e| locate::find_training(path_or_name).ok_or(e))?;
        let text = text::read_text(&file, MAX_BYTES)
            .map_err(|e| if e.hint.is_none() { e.hint("name a training file or a suite (TOML)") } else { e })?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            SuiteError::new(e.message().lines().collect::<Vec<_>>().join(", "))
                .in_file(&file)
                .at(format!("line {line}"))
                .hint("it must be TOML: a training file, a suite, or a file with a [task] table")
        })?;
        match table.get("task") {
            Some(toml::Value::Table(task)) => Self::of_table(&table, task, name, &file).map_err(|e| e.in_file(&file)),
            _ if table.contains_key("cases") || table.contains_key("task") => {
                Self::of_suite(&Suite::load(&file, known)?, name).map_err(|e| e.in_file(&file))
            }
            _ => Err(SuiteError::new("names no task").in_file(&file).hint(
                "it needs a [task] table such as `[task]`, `kind = \"sudoku\"`, `size = 9` (one a line), or [[task]] blocks as a suite has",
            )),
        }
    }

    fn of_table(
        table: &toml::Table,
        task: &toml::Table,
        name: Option<&str>,
        file: &Path,
    ) -> Result<TaskFile, SuiteError> {
        if let Some(name) = name {
            return Err(SuiteError::new(format!("has one task, and none of the name `{name}`"))
                .hint("leave `--task` out: it chooses among the tasks of a suite"));
        }
        // a training file is read by the trainer; a file with a task alone by nobody else
        if !table.contains_key("model") {
            Keys::of_table(table).only(&["task", "about"])?;
        }
        let keys = Keys::of_table(task);
        let kind = keys.need("kind", keys.string("kind")?).map_err(|e| e.hint("write `kind = \"sudoku\"`"))?;
        if let Some(key) = WHICH.iter().find(|k| keys.has(k)) {
            return Err(SuiteError::new("is no property of the task").at(format!("`task.{key}`")).hint(format!(
                "leave it out and say `--{key}`; a training file's held-out examples are `eval_examples` and `eval_seed`"
            )));
        }
        let without: Vec<&str> = TRAINERS.into_iter().chain(["kind"]).collect();
        Self::new(file, &kind, &kind, keys.without(&without))
    }

    fn of_suite(suite: &Suite, name: Option<&str>) -> Result<TaskFile, SuiteError> {
        let names = || suite.tasks.keys().map(String::as_str);
        let spec = match (name, suite.tasks.len()) {
            (Some(name), _) => suite.tasks.get(name).ok_or_else(|| unknown("task", name, names()))?,
            (None, 1) => suite.tasks.values().next().ok_or_else(|| SuiteError::new("has no task"))?,
            (None, n) => {
                return Err(SuiteError::new(format!("the suite has {n} tasks"))
                    .hint(format!("choose one: `--task NAME` with {}", names().collect::<Vec<_>>().join(", "))));
            }
        };
        Self::new(&spec.file, &spec.name, &spec.kind, Keys::of_table(&spec.parameters).without(&WHICH))
    }

    fn new(file: &Path, name: &str, kind: &str, parameters: toml::Table) -> Result<TaskFile, SuiteError> {
        let task =
            crate::task(kind).ok_or_else(|| unknown("task kind", kind, crate::task_names()).at("`task.kind`"))?;
        Ok(TaskFile { file: file.to_owned(), name: name.to_owned(), task, parameters })
    }

    /// Where relative paths of the parameters start.
    pub fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known { backends: &["native"], precisions: &["f32"], processors: 2 };
    const SUITE: &str = "[[model]]\nname = 'net'\npath = 'net'\n[[task]]\nname = 'small'\nkind = 'sudoku'\nsize = 4\nexamples = 7\nseed = 3\n\
                         split = 'train'\n[[cases]]\nmodels = ['net']\nbackends = ['native']\ntasks = ['small']\n";
    const SECOND: &str = "[[task]]\nname = 'rules'\nkind = 'arc'\nrules = 'all'\n";

    fn load(text: &str, name: Option<&str>) -> Result<TaskFile, SuiteError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("task.toml");
        std::fs::write(&file, text).unwrap();
        TaskFile::load(&file, name, &KNOWN)
    }

    #[test]
    fn a_task_is_found_in_each_kind_of_file() {
        let found = |text: &str, name| {
            let found = load(text, name).unwrap_or_else(|e| panic!("{text}: {e}"));
            (found.name, found.task.name, found.parameters.to_string())
        };
        let own = "about = 'mine'\n[task]\nkind = 'sudoku'\nsize = 4\n";
        assert_eq!(found(own, None), ("sudoku".into(), "sudoku", "size = 4\n".into()));
        let training = "steps = 3\n[model]\nx = 1\n[task]\nkind = 'sudoku'\nsize = 4\npuzzles = 5\neval_examples = 3\neval_seed = 1\n";
        assert_eq!(found(training, None), ("sudoku".into(), "sudoku", "size = 4\n".into()));
        assert_eq!(found(SUITE, None), ("small".into(), "sudoku", "size = 4\n".into()));
        let both = SUITE.replace("[[cases]]", &format!("{SECOND}[[cases]]"));
        assert_eq!(found(&both, Some("rules")), ("rules".into(), "arc", "rules = \"all\"\n".into()));
        assert_eq!(TaskFile::load(Path::new("quick"), Some("sudoku-4x4"), &KNOWN_ALL).unwrap().task.name, "sudoku");
        let folder = load(own, None).unwrap();
        assert_eq!(Some(folder.folder()), folder.file.parent());
    }

    const KNOWN_ALL: Known = Known {
        backends: &["native", "reference", "onnxruntime", "tract", "candle"],
        precisions: &["f32", "f64", "bf16", "int8", "f16"],
        processors: 2,
    };

    #[test]
    fn what_names_no_task_is_refused_with_a_way_out() {
        let both = SUITE.replace("[[cases]]", &format!("{SECOND}[[cases]]"));
        for (text, name, word) in [
            ("", None, "names no task"),
            ("kind = 'sudoku'\nsize = 4", None, "names no task"),
            ("[task", None, "line 1"),
            ("\n\n[task]\nsize = = 4", None, "line 4"),
            ("[task]\nsize = 4", None, "`kind`"),
            ("[task]\nkind = 7", None, "`kind`"),
            ("[task]\nkind = 'soduku'", None, "`sudoku`"),
            ("abot = 'x'\n[task]\nkind = 'sudoku'", None, "`about`"),
            ("[task]\nkind = 'sudoku'\nexamples = 5", None, "--examples"),
            ("[task]\nkind = 'sudoku'\nsplit = 'test'", None, "--split"),
            ("[task]\nkind = 'sudoku'\nseed = 5", None, "--seed"),
            ("[task]\nkind = 'sudoku'", Some("x"), "`x`"),
            ("task = 3", None, "line 1"),
            (&both, None, "rules, small"),
            (&both, Some("rulse"), "`rules`"),
            (&SUITE.replace("size = 4", "size = 4\n[[tsk]]"), None, "tsk"),
        ] {
            let said = load(text, name).err().unwrap_or_else(|| panic!("{text} {name:?}")).to_string();
            assert!(said.contains(word) && said.contains("hint: ") && said.contains("task.toml"), "{text}: {said}");
        }
        for path in ["quikc", "no/such.toml", "."] {
            let said = TaskFile::load(Path::new(path), None, &KNOWN).err().expect(path).to_string();
            assert!(said.contains("hint: "), "{said}");
        }
    }
}
