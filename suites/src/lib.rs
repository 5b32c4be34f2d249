//! Tasks, suite files, reference models and small data of ergometer.
//!
//! In: suite files, puzzle files, seeds. Out: checked suites, examples with answers, scores. Must not: depend on a
//! backend, a model's inside or a report; write anything.

pub mod answer;
pub mod arc;
pub mod array;
pub mod arrays;
pub mod error;
pub mod file_form;
mod hash;
pub mod language;
pub mod locate;
pub mod maze;
pub mod scenario;
pub mod score;
pub mod sudoku;
pub mod suite;
pub mod task;
pub mod task_file;
pub mod tensors;
pub mod text;
mod toml_table;
pub mod zip;

pub use answer::{Answer, AnswerKind};
pub use array::{Array, ElementKind, Read, Reading};
pub use file_form::FileForm;
pub use locate::{find_training, home, shipped_models, shipped_suites, shipped_trainings};
pub use task::Task;

/// Every kind of task. Adding one: its file and its line here.
pub const TASKS: &[Task] = &[
    sudoku::TASK,
    arc::TASK,
    maze::TASK,
    arrays::TASK,
    language::PERPLEXITY,
    language::CHOICES,
    language::COMPLETIONS,
    language::ARITHMETIC,
    language::STRINGS,
    language::PROMPTS,
];

/// The task of this name.
pub fn task(name: &str) -> Option<&'static Task> {
    TASKS.iter().find(|t| t.name == name)
}

/// Every set of examples that `time` and `tune` may ask for, with its task.
pub fn quick_sets() -> impl Iterator<Item = (&'static Task, &'static task::QuickSet)> {
    TASKS.iter().flat_map(|task| task.quick_sets().iter().map(move |set| (task, set)))
}

/// The names of [`TASKS`].
pub(crate) fn task_names() -> impl Iterator<Item = &'static str> + Clone {
    TASKS.iter().map(|t| t.name)
}
