//! Task `maze`: the shortest path through a square maze, generated or from a CSV file, as the released TRM sees it.
//!
//! In: a suite's parameters. Out: examples in the tokens of Maze-Hard (0 pad, then `# SGo`), scores. Must not: know a
//! model; generate a maze that has not exactly one shortest path.

mod baseline;
mod file;
mod generate;
mod grid;
mod paths;
mod symmetry;
mod training;

use std::path::Path;

pub use baseline::walk;
use ergometer_files::counted;
pub use file::{MazeFile, WantedMazes, read};
pub use generate::{MAX_TRIES, MazeGenerator, MazeRequest};
pub use grid::{MazeGrid, SIDES, VOCABULARY, character, token};
pub use paths::{MANY, PathSearch, ShortestPath, is_path, marked, search, shortest};
pub use symmetry::{class, split_of};

use crate::answer::{Answer, AnswerKind};
use crate::error::SuiteError;
use crate::task::{self, Example, ExampleSet, Field, Maker, Quick, QuickSet, ReadableRow, Score, Split, Task};
use crate::toml_table::Keys;

/// Most examples of one set.
pub const MAX_EXAMPLES: u64 = 1_000_000;

/// See the module.
pub const TASK: Task = Task {
    name: "maze",
    about: "the shortest path through a maze, 5x5 to 30x30: seeded mazes with one, train and test apart up to turns, or a CSV file",
    examples,
    answers: AnswerKind::Tokens,
    // all cells count, those that are given too, as in the released code
    score: |example, answer| Score::of_cells(&example.answer, answer),
    valid: Some(valid),
    decide: None,
    training: Some(training::training),
    dataset: Some(dataset),
    readable: Some(readable),
    quick: Some(Quick { about: "of the model's side", sets: QUICK }),
};

const QUICK: &[QuickSet] = &[QuickSet {
    name: "mazes",
    short: None,
    fits: |cells, tokens| side_of(cells, tokens).is_some(),
    parameters: |cells, tokens| {
        // a model that takes no maze is told so of a usual one
        format!("side = {}\nexamples = 100\nseed = 1", side_of(cells, tokens).unwrap_or(9))
    },
    count: "examples",
}];

/// The side of the mazes that a row of so many cells is one of.
fn side_of(cells: usize, tokens: usize) -> Option<usize> {
    let side = cells.isqrt();
    (side * side == cells && SIDES.contains(&side) && tokens == VOCABULARY as usize).then_some(side)
}

/// A maze with its answer. Made by [`MazeGenerator`], which vouches that no other path is as short, or by [`read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maze {
    /// Walls, start and goal.
    pub grid: MazeGrid,
    /// The path that is the answer, and how many are as short.
    pub path: ShortestPath,
}

impl Maze {
    /// The example that a model sees.
    pub fn example(&self) -> Example {
        Example {
            tokens: self.grid.tokens(&[]),
            puzzle_id: 0,
            answer: self.grid.tokens(&self.path.marks).into(),
            cluster: class(self.grid.side(), self.grid.walls()),
            difficulty: self.path.steps,
            ..Example::default()
        }
    }
}

/// The columns that [`read`] knows, and how long the path is.
fn readable(example: &Example) -> ReadableRow {
    let text = |tokens: &[u32]| Field::Text(tokens.iter().map(|t| character(*t)).collect());
    vec![
        ("question", text(&example.tokens)),
        ("answer", text(example.answer.tokens())),
        ("steps", Field::Number(example.difficulty)),
    ]
}

const GENERATED: [&str; 6] = ["side", "examples", "seed", "split", "min_path", "max_path"];
const FROM_FILE: [&str; 4] = ["side", "csv", "limit", "skip_bad"];

fn examples(parameters: &toml::Table, folder: &Path) -> Result<ExampleSet, SuiteError> {
    let keys = Keys::of_table(parameters);
    if keys.has("csv") { from_file(keys, folder) } else { generated(keys) }
}

/// See [`Task::dataset`]: mazes are generated on either side, and a file of mazes has no sides.
fn dataset(parameters: &toml::Table, folder: &Path, split: Split) -> Result<Maker, SuiteError> {
    if parameters.contains_key("csv") {
        return Err(SuiteError::new("the mazes are in a file already, which has no sides to choose from")
            .at("`csv`")
            .hint("use that file, or leave `csv` out for generated mazes"));
    }
    Ok(task::asked(examples, parameters.clone(), folder.to_owned(), Some(split)))
}

fn side(keys: &Keys) -> Result<Option<usize>, SuiteError> {
    let range = *SIDES.start() as u64..=*SIDES.end() as u64;
    Ok(keys.integer("side", range)?.map(|side| side as usize))
}

fn from_file(keys: Keys, folder: &Path) -> Result<ExampleSet, SuiteError> {
    if let Some(key) = GENERATED[1..].iter().find(|k| keys.has(k)) {
        return Err(SuiteError::new("does not go with `csv`")
            .at(format!("`{key}`"))
            .hint("a file of mazes is taken as it is: leave the key out, or leave `csv` out for generated mazes"));
    }
    let keys = keys.only(&FROM_FILE)?;
    let name = keys.need("csv", keys.string("csv")?)?;
    let limit = keys.integer("limit", 1..=MAX_EXAMPLES)?;
    let skip_bad = keys.boolean("skip_bad")?.unwrap_or(false);
    let rows =
        read(&folder.join(&name), WantedMazes { side: side(&keys)?, limit: limit.map(|l| l as usize), skip_bad })?;
    let mut notes = vec![format!(
        "The mazes come from {name}; whether a model has seen them, or turned copies of them, is not known here."
    )];
    let several = rows.mazes.iter().filter(|m| m.path.count > 1).count();
    if several > 0 {
        notes.push(format!(
            "Of {} {several} have other paths as short as the one in the file; an answer that marks such a path is counted as wrong in \
             `accuracy`, as in the released code, and as right in `accuracy_valid`.",
            counted(rows.mazes.len(), "maze")
        ));
    }
    if rows.repeated > 0 {
        notes.push(format!("Left out because they repeat an earlier maze: {}.", counted(rows.repeated, "row")));
    }
    if rows.solved > 0 {
        let rows = counted(rows.solved, "row");
        notes.push(format!("Without an answer in the file: {rows}, solved here; each has one shortest path."));
    }
    if let Some(first) = &rows.first_skipped {
        let rows = counted(rows.skipped, "row");
        notes.push(format!("Left out as wrong (`skip_bad`): {rows}; the first is {first}."));
    }
    Ok(set(&rows.mazes, notes))
}

fn generated(keys: Keys) -> Result<ExampleSet, SuiteError> {
    let allowed: Vec<&str> = GENERATED.into_iter().chain(FROM_FILE).collect();
    let keys = keys.only(&allowed)?;
    task::no_file_keys(&keys)?;
    let count = keys.integer("examples", 1..=MAX_EXAMPLES)?.unwrap_or(100) as usize;
    let seed = keys.integer("seed", 0..=i64::MAX as u64)?.unwrap_or(0);
    let split = Split::asked(&keys)?;
    let mut generator = MazeGenerator::new(MazeRequest { split: Some(split), ..request(&keys)? }, seed)?;

    let mazes =
        task::distinct(count, "mazes", "shorter paths", |m: &Maze| m.grid.tokens(&[]), || generator.next_maze())?;
    Ok(set(&mazes, Vec::new()))
}

/// What generated mazes are asked for, whatever their number and side of the split.
fn request(keys: &Keys) -> Result<MazeRequest, SuiteError> {
    let side = keys.need("side", side(keys)?)?;
    let steps = |key| keys.integer(key, 2..=(*SIDES.end() * *SIDES.end()) as u64);
    let usual = MazeRequest::of(side);
    let request = MazeRequest {
        min_path: steps("min_path")?.map_or(usual.min_path, |n| n as u32),
        max_path: steps("max_path")?.map(|n| n as u32),
        ..usual
    };
    request.check()?;
    Ok(request)
}

fn set(mazes: &[Maze], mut notes: Vec<String>) -> ExampleSet {
    let examples: Vec<Example> = mazes.iter().map(Maze::example).collect();
    let (marks, cells) =
        mazes.iter().fold((0, 0), |(marks, cells), m| (marks + m.path.marks.len(), cells + m.grid.walls().len()));
    notes.push(format!(
        "Of all cells {:.1} % are on a path: a copy of the maze, without a path, has {:.1} % of the cells right and no maze.",
        100.0 * marks as f64 / cells as f64,
        100.0 - 100.0 * marks as f64 / cells as f64
    ));
    notes.push(format!(
        "Breadth-first search looks at {:.1} cells of a maze before it is at the goal (mean).",
        baseline::mean_visited(mazes)
    ));
    ExampleSet {
        examples,
        vocabulary: VOCABULARY,
        puzzle_ids: 1,
        numbering: None,
        questions: Vec::new(),
        baselines: baseline::baselines(mazes),
        notes,
        ..ExampleSet::default()
    }
}

/// A path from start to goal of any length, in a maze that is otherwise left as it is: see [`is_path`].
fn valid(example: &Example, answer: &Answer) -> bool {
    let wanted: String = example.tokens.iter().map(|t| character(*t)).collect();
    marked(&example.tokens, answer.tokens())
        .is_some_and(|marks| MazeGrid::parse(&wanted).is_ok_and(|(grid, _)| is_path(&grid, &marks)))
}

#[cfg(test)]
mod tests;
