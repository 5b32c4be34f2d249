//! What a suite file says: models, backends, tasks and the cases to run.
//!
//! In: TOML text. Out: a checked [`Suite`] and its expansion into [`CaseSpec`]s. Must not: load a model, know which
//! backends exist (the caller passes the [`Known`] names), run anything, or write anything.
//!
//! The layout, one block of each; `suites/README.md` explains every key:
//!
//! ```toml
//! about = "What this suite is for"
//! include = ["others.toml"]          # their blocks are this suite's too
//! [[model]]
//! name = "trm"                       # letters, digits, `.`, `_`, `-`
//! path = "models/trm-4x4"            # from the suite file's folder
//! [[task]]
//! name = "sudoku"
//! kind = "sudoku"                    # the other keys belong to the task
//! sweep = { size = [4, 6] }          # a block for each value: sudoku-size-4, sudoku-size-6
//! [[backend]]                        # only for backends with options and for other programs
//! name = "mine"
//! kind = "external"
//! command = ["python3", "{suite}/mine.py"]
//! options = { speed = "fast" }
//! [defaults]                         # any key of a cases block
//! seconds = 2.0
//! [[cases]]                          # the product of its lists
//! models = ["trm"]
//! backends = ["native", "mine"]
//! tasks = ["sudoku"]
//! precisions = ["f32"]
//! scenarios = ["single-stream", "offline-b32"]
//! threads = [1, 2]
//! depth = ["halt-16", "fixed-8", "once"]
//! ```

mod amount;
mod demands;
mod expand;
mod parse;
mod sources;
mod sweep;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ergometer_files::{Links, Refusal};

pub use self::sources::Change;
use self::sources::Source;
use crate::error::SuiteError;
use crate::file_form::FileForm;
use crate::locate;
use crate::scenario::{Depth, Scenario};
use crate::task::ExampleSet;
use crate::toml_table::unknown;

/// Largest suite file.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most cases of one suite: as many as one run folder holds.
pub const MAX_CASES: usize = 10_000;
/// Most workers that a suite may let live at once.
pub const MAX_TOGETHER: usize = 16;
/// Workers that live at once where a suite says nothing.
pub const TOGETHER: usize = 8;
/// Most threads of background load.
pub const MAX_BACKGROUND: u32 = 256;
/// Most compute threads of a case.
pub const MAX_THREADS: u32 = 1024;

/// Names that the caller knows and a suite may use.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Built-in backends.
    pub backends: &'a [&'a str],
    /// Precisions.
    pub precisions: &'a [&'a str],
    /// Processors of this machine: what `threads = "all"` means.
    pub processors: u32,
}

/// A checked suite file.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Its name (the file's stem).
    pub name: String,
    /// What it is for.
    pub about: String,
    /// The file it came from.
    pub file: PathBuf,
    /// The file's text, for its hash and for the run folder; what it includes and what a command line changed stand at
    /// its end, as comments.
    pub text: String,
    /// Models by name.
    pub models: BTreeMap<String, ModelSpec>,
    /// Tasks by name.
    pub tasks: BTreeMap<String, TaskSpec>,
    /// External backends and backends with options, by name.
    pub backends: BTreeMap<String, BackendSpec>,
    /// Most cases whose workers are alive at once, where cases do not take turns in an interleaved group.
    pub together: usize,
    /// Every case, in order, no two alike.
    pub cases: Vec<CaseSpec>,
}

/// `[[model]]`
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Name in paths.
    pub name: String,
    /// Folder, or a `.onnx` / `.gguf` file; already made absolute or relative to the working directory.
    pub path: PathBuf,
    /// How a file is used.
    pub form: FileForm,
    /// Recorded outputs that a file is held to: a file or folder.
    pub vectors: Option<PathBuf>,
    /// The model that this one is a reduced form of, by its name.
    pub reduces: Option<String>,
}

/// `[[task]]`
#[derive(Clone, Debug)]
pub struct TaskSpec {
    /// Name in paths.
    pub name: String,
    /// Name in [`TASKS`](crate::TASKS).
    pub kind: String,
    /// Everything else of the block, checked by the task itself.
    pub parameters: toml::Table,
    /// `seed` of the parameters, or 0.
    pub seed: u64,
    /// The file that the block is in: relative paths of the parameters start at its folder.
    pub file: PathBuf,
}

impl PartialEq for TaskSpec {
    /// Two files of one folder can have the same task.
    fn eq(&self, other: &Self) -> bool {
        let of = |t: &Self| (t.name.clone(), t.kind.clone(), t.parameters.clone(), t.file.parent().map(Path::to_owned));
        of(self) == of(other)
    }
}

/// `[[backend]]`
#[derive(Clone, Debug, PartialEq)]
pub struct BackendSpec {
    /// Name in paths.
    pub name: String,
    /// Name of a built-in backend, or `external`.
    pub kind: String,
    /// Program and arguments of an external backend; empty for a built-in one.
    pub command: Vec<String>,
    /// Options handed to the backend as they are.
    pub options: BTreeMap<String, String>,
    /// Where an external program runs.
    pub isolation: Isolation,
}

/// What an external program is given, and kept from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// Variables of the environment that it is given beside the usual ones.
    pub pass: Vec<String>,
    /// It may write to its own folder alone, and use no network, where the system can see to it.
    pub confined: bool,
    /// Processors that it may use; none: all that we may.
    pub cpus: Vec<u32>,
    /// Most bytes of private memory that a process of it may ask for.
    pub most_memory: Option<u64>,
}

/// One case as the suite asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseSpec {
    /// Name of a model of the suite.
    pub model: String,
    /// Name of a built-in backend or of a backend of the suite.
    pub backend: String,
    /// Precision, e.g. `f32`.
    pub precision: String,
    /// Name of a task of the suite.
    pub task: String,
    /// How work is offered.
    pub scenario: Scenario,
    /// Compute threads.
    pub threads: u32,
    /// Sequences that are at work at once, where requests arrive by themselves.
    pub slots: u32,
    /// Depth rule; [`Depth::Once`] for models that are not recursive.
    pub depth: Depth,
    /// Least seconds of steady measuring.
    pub seconds: f64,
    /// Least iterations of steady measuring.
    pub iterations: u32,
    /// Seconds of warm-up.
    pub warmup_seconds: f64,
    /// Seconds after which a worker that says nothing is killed.
    pub timeout_seconds: f64,
    /// Most seconds that another engine may take for outputs that those of a file are compared with.
    pub compare_seconds: f64,
    /// Seconds that all timed blocks together may take: where iterations are long there are fewer blocks, down to one. Not
    /// given: as many as an interval needs.
    pub within_seconds: Option<f64>,
    /// The case is expected to be Unavailable on machines that lack something: not a failure.
    pub may_be_unavailable: bool,
    /// The backend's settings are searched for the fastest before the case is measured.
    pub tune: bool,
    /// Seconds that such a search may take.
    pub tune_seconds: f64,
    /// What it is to keep to; it is measured whether it does or not.
    pub limits: CaseLimits,
    /// It takes turns with the other such cases of the same model, task, scenario, threads and depth.
    pub interleave: bool,
    /// It takes turns with cases of another depth too.
    pub any_depth: bool,
    /// Backend that the cases it takes turns with are compared with; the first of them if not given.
    pub base: Option<String>,
}

/// What a case is to keep to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CaseLimits {
    /// Bytes of peak memory.
    pub memory: Option<f64>,
    /// Seconds of an iteration.
    pub deadline: Option<f64>,
    /// J of an answer.
    pub energy: Option<f64>,
    /// Threads that work on something else while it is timed.
    pub background: u32,
    /// Seconds to the first token of a request that is well served, and mean seconds between its tokens.
    pub served: Option<(f64, f64)>,
    /// Seconds by which requests may be begun late though nothing else was served.
    pub lag: Option<f64>,
}

impl CaseSpec {
    /// Rows that its engine has room for: those of an iteration, or slots that requests fill.
    pub fn rows(&self) -> u32 {
        if self.scenario.arrives() { self.slots } else { self.scenario.rows() }
    }
}

impl Suite {
    /// Reads a suite: a path to a file, or the bare name of a shipped suite (`quick`). A file of that name wins.
    ///
    /// Errors: no such suite (with near matches), not a regular file, larger than [`MAX_FILE_BYTES`], not UTF-8, or
    /// whatever [`Suite::parse`] finds.
    pub fn load(path_or_name: impl AsRef<Path>, known: &Known) -> Result<Suite, SuiteError> {
        Suite::load_changed(path_or_name, &[], known)
    }

    /// The same with values of a command line in the place of the files'.
    pub fn load_changed(
        path_or_name: impl AsRef<Path>,
        changes: &[Change],
        known: &Known,
    ) -> Result<Suite, SuiteError> {
        let file = locate::find_suite(path_or_name.as_ref())?;
        let sources = sources::read(&file, read_text)?;
        let changes: Vec<Change> = changes.iter().cloned().map(Change::at_working_directory).collect();
        parse::parse(&sources, &changes, known).map_err(|e| e.in_file(&file))
    }

    /// Checks the text of a suite file that includes no other, and expands its cases. Nothing is read; `file` names the
    /// suite, and its folder is where relative paths start.
    pub fn parse(text: &str, file: &Path, known: &Known) -> Result<Suite, SuiteError> {
        let source = Source { file: file.to_owned(), text: text.to_owned(), includes: Vec::new() };
        parse::parse(&[source], &[], known).map_err(|e| e.in_file(file))
    }

    /// The examples of the task of this name, always the same.
    ///
    /// Errors: no such task, or its parameters are wrong, by suite, task and key.
    pub fn examples(&self, task: &str) -> Result<ExampleSet, SuiteError> {
        let spec = self.tasks.get(task);
        let spec =
            spec.ok_or_else(|| unknown("task", task, self.tasks.keys().map(String::as_str)).in_file(&self.file))?;
        let kind = crate::task(&spec.kind).ok_or_else(|| unknown("task kind", &spec.kind, crate::task_names()))?;
        let folder = spec.file.parent().unwrap_or(Path::new(""));
        (kind.examples)(&spec.parameters, folder).map_err(|mut e| {
            // An error about another file names that file; this one belongs to the suite.
            if e.file.is_none() {
                let place = e.place.take().map_or(String::new(), |p| format!(", {p}"));
                e.place = Some(format!("task `{task}`{place}"));
            }
            e.in_file(&spec.file)
        })
    }
}

fn read_text(file: &Path) -> Result<String, SuiteError> {
    let cannot = |e: std::io::Error| SuiteError::new(format!("cannot read the suite: {e}"));
    let bytes = ergometer_files::read(file, MAX_FILE_BYTES, Links::Followed).map_err(|e| match Refusal::of(&e) {
        Some(Refusal::Large(_)) => {
            SuiteError::new(format!("larger than {MAX_FILE_BYTES} bytes, the most that a suite may have"))
                .hint("a suite only names models and puzzle files; keep data in files of their own")
        }
        Some(_) => SuiteError::new(e.to_string()).hint("name a TOML file, or a shipped suite such as `quick`"),
        None => cannot(e),
    })?;
    crate::text::decode(&bytes).map(str::to_owned)
}

impl fmt::Display for CaseSpec {
    /// The readable path, `task/model/precision/backend/scenario/tN/depth`: different for any two cases of a suite.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, model, precision, backend, scenario, threads, depth, .. } = self;
        write!(f, "{task}/{model}/{precision}/{backend}/{scenario}/t{threads}/{depth}")
    }
}
