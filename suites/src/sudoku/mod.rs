//! Task `sudoku`: puzzles of 4x4, 6x6 and 9x9, generated or from a CSV file, as the released TRM sees them.
//!
//! In: a suite's parameters. Out: examples in TRM's tokens (0 pad, 1 blank, digit d is d + 1), scores. Must not: know a
//! model; use a puzzle that has not exactly one solution.

mod board;
mod copies;
mod file;
mod generate;
mod solver;
mod symmetry;
mod table;
mod training;

use std::path::Path;

pub use board::{Size, is_solved};
use ergometer_files::counted;
pub use file::{PuzzleFile, Wanted, read};
pub use generate::{Generator, MAX_TRIES, PuzzleOptions};
pub use solver::{MAX_GUESSES, SolveOutcome, solve};
use symmetry::cluster;
pub use symmetry::{augment, class, split_of};

use self::copies::Breadth;
use crate::answer::AnswerKind;
use crate::error::SuiteError;
use crate::task::{
    self, BaselineScore, Example, ExampleSet, Field, Maker, Quick, QuickSet, ReadableRow, Score, Split, Task,
};
use crate::toml_table::Keys;

/// Most examples of one set.
pub const MAX_EXAMPLES: u64 = 1_000_000;

/// See the module.
pub const TASK: Task = Task {
    name: "sudoku",
    about: "Sudoku of 4x4, 6x6 and 9x9 with one solution: seeded puzzles with train and test apart up to symmetry, or a CSV file",
    examples,
    answers: AnswerKind::Tokens,
    // all cells count, those that are given too, as in the released code
    score: |example, answer| Score::of_cells(&example.answer, answer),
    valid: None,
    decide: Some(copies::decide),
    training: Some(training::training),
    dataset: Some(dataset),
    readable: Some(readable),
    quick: Some(Quick { about: "Sudoku of that side", sets: QUICK }),
};

/// A hundred puzzles of each size.
const QUICK: &[QuickSet] = &[
    QuickSet {
        name: "sudoku-4x4",
        short: Some("4"),
        fits: |cells, tokens| (cells, tokens) == (16, 6),
        parameters: |_, _| "size = 4\nexamples = 100\nseed = 1\nclues = [4, 6]".into(),
        count: "examples",
    },
    QuickSet {
        name: "sudoku-6x6",
        short: Some("6"),
        fits: |cells, tokens| (cells, tokens) == (36, 8),
        parameters: |_, _| "size = 6\nexamples = 100\nseed = 1\nclues = [12, 16]".into(),
        count: "examples",
    },
    QuickSet {
        name: "sudoku-9x9",
        short: Some("9"),
        fits: |cells, tokens| (cells, tokens) == (81, 11),
        parameters: |_, _| "size = 9\nexamples = 100\nseed = 1\nminimal = true".into(),
        count: "examples",
    },
];

/// A puzzle with its one solution. Made by [`Generator`], [`read`] or [`Puzzle::new`], which vouch for it; the
/// functions of this module rely on that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Puzzle {
    /// Size of the board.
    pub size: Size,
    /// One digit a cell in reading order, 0 for an empty cell.
    pub clues: Vec<u8>,
    /// One digit a cell.
    pub solution: Vec<u8>,
    /// Difficulty: branches that the solver tried, the proof of uniqueness included.
    pub guesses: u32,
}

impl Puzzle {
    /// Checks and rates a puzzle: `side * side` cells in reading order, 0 for an empty one in `clues`.
    ///
    /// Errors: wrong lengths, a solution that is not solved or disagrees with the clues, more than one solution, or no
    /// verdict after [`MAX_GUESSES`].
    pub fn new(size: Size, clues: Vec<u8>, solution: Vec<u8>) -> Result<Puzzle, SuiteError> {
        for (what, grid) in [("puzzle", &clues), ("solution", &solution)] {
            if grid.len() != size.cells() {
                return Err(SuiteError::new(format!("the {what} has {} cells, not {}", grid.len(), size.cells()))
                    .hint("cells are written one after another, row by row"));
            }
        }
        if !is_solved(size, &solution) {
            return Err(SuiteError::new("the solution is not solved: a row, column or box lacks a digit")
                .hint("is the right column read, and are rows written one after another?"));
        }
        if let Some(at) = (0..clues.len()).find(|&c| clues[c] != 0 && clues[c] != solution[c]) {
            let (row, column) = (at / size.side() + 1, at % size.side() + 1);
            let (clue, digit) = (clues[at], solution[at]);
            return Err(SuiteError::new(format!(
                "puzzle and solution differ at row {row}, column {column}: {clue} and {digit}"
            ))
            .hint("correct the row or leave it out"));
        }
        let outcome = solve(size, &clues);
        if outcome.gave_up {
            return Err(SuiteError::new(format!(
                "after {MAX_GUESSES} guesses it is open whether there is one solution"
            ))
            .hint("leave the row out"));
        }
        if outcome.solutions != 1 {
            return Err(
                SuiteError::new("the puzzle has more than one solution").hint("leave the row out, or add clues")
            );
        }
        Ok(Puzzle { size, clues, solution, guesses: outcome.guesses })
    }

    /// The example that a model sees.
    pub fn example(&self) -> Example {
        Example {
            tokens: tokens(&self.clues),
            puzzle_id: 0,
            answer: tokens(&self.solution).into(),
            cluster: cluster(self),
            difficulty: self.guesses,
            ..Example::default()
        }
    }
}

/// Digits (0 for an empty cell) as the released TRM numbers them: 0 is padding and never used, 1 is a blank, digit d is
/// d + 1.
pub fn tokens(cells: &[u8]) -> Vec<u32> {
    cells.iter().map(|&d| u32::from(d) + 1).collect()
}

/// The columns that [`read`] knows, and how hard the puzzle is.
fn readable(example: &Example) -> ReadableRow {
    let digit = |t: &u32| char::from_digit(t.saturating_sub(1), 10).unwrap_or('0');
    let text = |tokens: &[u32]| Field::Text(tokens.iter().map(digit).collect());
    vec![
        ("puzzle", text(&example.tokens)),
        ("solution", text(example.answer.tokens())),
        ("guesses", Field::Number(example.difficulty)),
    ]
}

/// Number of tokens: padding, blank and the digits.
pub fn vocabulary(size: Size) -> u32 {
    size.side() as u32 + 2
}

const GENERATED: [&str; 11] = [
    "size",
    "examples",
    "seed",
    "split",
    "clues",
    "minimal",
    "min_guesses",
    "max_guesses",
    "copies",
    "chains",
    "noise",
];
const FROM_FILE: [&str; 7] = ["size", "csv", "limit", "skip_bad", "copies", "chains", "noise"];

fn examples(parameters: &toml::Table, folder: &Path) -> Result<ExampleSet, SuiteError> {
    let keys = Keys::of_table(parameters);
    if keys.has("csv") { from_file(keys, folder) } else { generated(keys) }
}

/// See [`Task::dataset`]: puzzles are generated on either side, and a file of puzzles has no sides.
fn dataset(parameters: &toml::Table, folder: &Path, split: Split) -> Result<Maker, SuiteError> {
    if parameters.contains_key("csv") {
        return Err(SuiteError::new("the puzzles are in a file already, which has no sides to choose from")
            .at("`csv`")
            .hint("use that file, or leave `csv` out for generated puzzles"));
    }
    if let Some(key) = ["copies", "chains", "noise"].iter().find(|key| parameters.contains_key(**key)) {
        return Err(SuiteError::new("is for answering, not for learning")
            .at(format!("`{key}`"))
            .hint("leave it out; trainers make symmetric copies of their own"));
    }
    Ok(task::asked(examples, parameters.clone(), folder.to_owned(), Some(split)))
}

fn size(keys: &Keys) -> Result<Option<Size>, SuiteError> {
    keys.get("size", "4, 6 or 9", |v| Size::from_side(usize::try_from(v.as_integer()?).ok()?))
}

fn from_file(keys: Keys, folder: &Path) -> Result<ExampleSet, SuiteError> {
    if let Some(key) = GENERATED.iter().find(|k| keys.has(k) && !FROM_FILE.contains(k)) {
        return Err(SuiteError::new("does not go with `csv`")
            .at(format!("`{key}`"))
            .hint("a puzzle file is taken as it is: leave the key out, or leave `csv` out for generated puzzles"));
    }
    let keys = keys.only(&FROM_FILE)?;
    let name = keys.need("csv", keys.string("csv")?)?;
    let limit = keys.integer("limit", 1..=MAX_EXAMPLES)?;
    let skip_bad = keys.boolean("skip_bad")?.unwrap_or(false);
    let breadth = Breadth::of(&keys)?;
    let rows = read(&folder.join(&name), Wanted { size: size(&keys)?, limit: limit.map(|l| l as usize), skip_bad })?;
    let mut notes = vec![format!(
        "The puzzles come from {name}; whether a model has seen them, or puzzles symmetric to them, is not known here."
    )];
    notes.extend(rows.columns.clone());
    if rows.repeated > 0 {
        notes.push(format!("Left out because they repeat an earlier puzzle: {}.", counted(rows.repeated, "row")));
    }
    if rows.solved > 0 {
        let rows = counted(rows.solved, "row");
        notes.push(format!("Without a solution in the file: {rows}, solved here; each has exactly one solution."));
    }
    if let Some(first) = &rows.first_skipped {
        let rows = counted(rows.skipped, "row");
        notes.push(format!("Left out as wrong (`skip_bad`): {rows}; the first is {first}."));
    }
    let mut set = set(rows.size, &rows.puzzles, notes, false);
    // a file may hold symmetric copies of one puzzle
    set.examples.iter_mut().zip(&rows.puzzles).for_each(|(example, puzzle)| example.cluster = class(puzzle));
    with_breadth(set, &rows.puzzles, breadth)
}

fn generated(keys: Keys) -> Result<ExampleSet, SuiteError> {
    let allowed: Vec<&str> = GENERATED.into_iter().chain(FROM_FILE).collect();
    let keys = keys.only(&allowed)?;
    task::no_file_keys(&keys)?;
    let (size, options) = options(&keys)?;
    let count = keys.integer("examples", 1..=MAX_EXAMPLES)?.unwrap_or(100) as usize;
    let seed = keys.integer("seed", 0..=i64::MAX as u64)?.unwrap_or(0);
    let breadth = Breadth::of(&keys)?;
    let split = Split::asked(&keys)?;
    let mut generator = Generator::new(size, seed, PuzzleOptions { split: Some(split), ..options })?;

    let puzzles = task::distinct(
        count,
        "puzzles",
        "a wider range of clues",
        |p: &Puzzle| p.clues.clone(),
        || generator.next_puzzle(),
    )?;
    with_breadth(set(size, &puzzles, Vec::new(), split == Split::Test), &puzzles, breadth)
}

/// The set with every puzzle as a question of several rows, of which any may be right; of one row: the set as it is.
fn with_breadth(mut set: ExampleSet, puzzles: &[Puzzle], breadth: Breadth) -> Result<ExampleSet, SuiteError> {
    let (rows, word, key) = match breadth {
        Breadth::One => return Ok(set),
        Breadth::Copies(n) => (n, "copies", "copies"),
        Breadth::Chains { n, .. } => (n, "chains", "chains"),
    };
    if puzzles.len() as u64 * u64::from(rows) > MAX_EXAMPLES {
        return Err(SuiteError::new(format!(
            "{} puzzles times {rows} {word} are more than {MAX_EXAMPLES} rows",
            puzzles.len()
        ))
        .at(format!("`{key}`"))
        .hint(format!("ask for fewer {word}, or for fewer puzzles")));
    }
    let clusters = set.examples.iter().map(|e| e.cluster);
    let of_puzzle = |((question, puzzle), cluster)| breadth.rows(puzzle, question, cluster);
    set.examples = (0..).zip(puzzles).zip(clusters).flat_map(of_puzzle).collect();
    set.questions = (1..=puzzles.len()).map(|n| format!("puzzle {n}")).collect();
    let how = match breadth {
        Breadth::Chains { noise, .. } => format!(
            "by {rows} chains: the first starts where the net learned to, the others with normal noise of standard deviation {noise}, cut off at twice that, added to every \
             state; of the answers"
        ),
        _ => format!("in {rows} symmetric copies; of the answers, mapped back,"),
    };
    set.notes.push(format!(
        "Each puzzle is answered {how} the one that keeps the clues and the rules is \
         handed in. Puzzles have one solution, so a question is right when any row is: accuracy is that of any of {rows} with a check, \
         not of one answer. Time and energy of an answer are those of one row; a question costs {rows}."
    ));
    Ok(set)
}

/// What generated puzzles are asked for, whatever their number and side.
fn options(keys: &Keys) -> Result<(Size, PuzzleOptions), SuiteError> {
    let size = keys.need("size", size(keys)?)?;
    let clues = keys.get("clues", "`[fewest, most]`, two whole numbers", |v| {
        let [low, high] = v.as_array()?.as_slice() else { return None };
        let number = |v: &toml::Value| v.as_integer().and_then(|i| usize::try_from(i).ok());
        Some((number(low)?, number(high)?))
    })?;
    if keys.boolean("minimal")?.is_some_and(|minimal| minimal == clues.is_some()) {
        return Err(SuiteError::new("contradicts `clues`, or leaves open how many clues are wanted")
            .at("`minimal`")
            .hint("write either `minimal = true` or `clues = [fewest, most]`"));
    }
    let guesses = |key| keys.integer(key, 0..=u64::from(MAX_GUESSES));
    let min_guesses = guesses("min_guesses")?.unwrap_or(0) as u32;
    let max_guesses = guesses("max_guesses")?.map(|m| m as u32);
    Ok((size, PuzzleOptions { clues, min_guesses, max_guesses, split: None }))
}

/// `held_out`: the puzzles are generated ones of the test side.
fn set(size: Size, puzzles: &[Puzzle], mut notes: Vec<String>, held_out: bool) -> ExampleSet {
    match size {
        Size::Four => notes.push(
            "4x4 is a smoke test: there are two classes of grids and no puzzle needs a guess, so it cannot tell a recursive model \
             from a dense one."
                .to_owned(),
        ),
        Size::Six if held_out => notes.push(
            "6x6 has 49 classes of grids, of which the split tells 40 apart; the held-out side is six of these 40: the interval is for \
             puzzles of these six, not for others."
                .to_owned(),
        ),
        Size::Six | Size::Nine => {}
    }
    ExampleSet {
        examples: puzzles.iter().map(Puzzle::example).collect(),
        vocabulary: vocabulary(size),
        puzzle_ids: 1,
        numbering: None,
        questions: Vec::new(),
        // each puzzle was solved when it was made or read, and the solution that was found is its answer
        baselines: vec![BaselineScore {
            name: "backtracking search".to_owned(),
            right: puzzles.len() as u64,
            of: puzzles.len() as u64,
        }],
        notes,
        ..ExampleSet::default()
    }
}

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;
