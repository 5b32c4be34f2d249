//! Tasks, suite files, reference models and small data of ergometer.
//!
//! In: suite files, puzzle files, seeds. Out: checked suites, examples with answers, scores. Must not: depend on a backend, a model's
//! inside or a report; write anything.

pub mod arc;
pub mod error;
mod hash;
pub mod home;
mod keys;
pub mod sudoku;
pub mod suite;
pub mod task;
pub mod task_file;
pub mod text;

pub use home::{find_training, home, shipped_models, shipped_suites, shipped_trainings};
pub use task::Task;

/// Every kind of task. Adding one: its file and its line here.
pub const TASKS: &[Task] = &[sudoku::TASK, arc::TASK];

/// The task of this name.
pub fn task(name: &str) -> Option<&'static Task> {
    TASKS.iter().find(|t| t.name == name)
}

/// The names of [`TASKS`].
pub(crate) fn task_names() -> impl Iterator<Item = &'static str> + Clone {
    TASKS.iter().map(|t| t.name)
}
