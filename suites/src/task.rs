//! What a task is: examples with known answers, and a scorer.
//!
//! In: parameters from a suite file. Out: [`Example`]s and [`Score`]s. Must not: know a model, a backend or a report.
//! Adding a task: one file with a `pub const TASK: Task`, and its line in [`TASKS`](crate::TASKS).

use std::collections::HashSet;
use std::hash::Hash;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::answer::{Answer, AnswerKind};
use crate::array::{Array, Reading};
use crate::arrays::scorer::Scorer;
use crate::error::SuiteError;
use crate::hash::hash;
use crate::language::example::{LanguageSet, TextExample};
pub use crate::score::{AnswerScore, Score, ScoreSum};
use crate::toml_table::{Keys, unknown};

/// The token of padding, in every task. A cell whose right answer is padding asks for nothing: it is no part of a
/// training loss.
pub const PAD: u32 = 0;

/// One input with its known answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// Tokens that the model sees, one a cell.
    pub tokens: Vec<u32>,
    /// Arrays that the model sees, in the order of [`ExampleSet::inputs`]; empty where it sees tokens.
    pub arrays: Vec<Array>,
    /// Text that a language model sees; its tokenizer makes tokens of it.
    pub text: Option<TextExample>,
    /// Row of the model's table of puzzle embeddings.
    pub puzzle_id: u32,
    /// The right answer, of the task's kind.
    pub answer: Answer,
    /// Examples of one cluster are not independent (same solution class, same ARC task, ...).
    pub cluster: u64,
    /// Difficulty in the task's own unit (Sudoku: guesses).
    pub difficulty: u32,
    /// The question that this example helps to answer: examples of one question are answered row by row and decided
    /// together (the augmented copies of all test inputs of one ARC task). Only read where the task has a
    /// [`Task::decide`].
    pub question: u64,
    /// Which output of the question it asks for, from 0 (ARC: the test input).
    pub part: u32,
    /// How the example was made from the question, in the task's own code (ARC: dihedral copy and permutation of
    /// colours); 0: as it is.
    pub variant: u32,
    /// The net is to start elsewhere than where it learned to; `None`: as learned.
    pub start: Option<StartNoise>,
}

/// Noise on the start of every state of a recursive net: rows of one question that differ in it alone are several chains
/// of thought about one input.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartNoise {
    /// Standard deviation of the normal numbers that are added, each cut off at two of them.
    pub scale: f64,
    /// Decides the numbers.
    pub seed: u64,
}

/// A row's answer, as a task sees it that decides questions from several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowAnswer<'a> {
    /// Index into the examples.
    pub example: usize,
    /// What it answered.
    pub answer: &'a Answer,
    /// Halting logit, if the model has one.
    pub halt_logit: Option<f64>,
}

/// One attempt at one output of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoredAttempt {
    /// Which output, from 0.
    pub part: u32,
    /// From 1.
    pub number: u32,
    /// Where it comes from, e.g. `vote 1 of 3: 5 of 8 rows`.
    pub source: String,
    /// The whole output is right.
    pub right: bool,
}

/// What came of one question under the task's official rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// [`Example::question`].
    pub question: u64,
    /// Its name, e.g. an ARC task's.
    pub name: String,
    /// Questions of one cluster are not independent.
    pub cluster: u64,
    /// Examples (rows) that were answered for it: what it cost.
    pub rows: u32,
    /// Every output right in one of the allowed attempts.
    pub right: bool,
    /// Outputs right in one of the allowed attempts.
    pub parts_right: u32,
    /// Outputs asked for.
    pub parts: u32,
    /// All attempts, by output and number.
    pub attempts: Vec<ScoredAttempt>,
}

/// What a rule that needs no model gets right: a score means little without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaselineScore {
    /// E.g. `copy the input`.
    pub name: String,
    /// Questions (examples, where the task decides row by row) that it gets right.
    pub right: u64,
    /// Of so many.
    pub of: u64,
}

/// An endless, seeded source of training examples, none of them on the held-out side.
///
/// The same source gives the same examples in the same order; a training run that is resumed draws again what it had
/// drawn.
pub trait Training: Send {
    /// The next example.
    fn next_example(&mut self) -> Example;
}

/// Known items in a row after which a set is taken to hold all there are (near enough).
const MAX_REPEATS: u32 = 1000;

/// So many items that differ in `key`, in the order in which they are made. Errors: those of `next`, or that it only
/// repeats what it gave (`things`); `wider` says what to ask for instead.
pub(crate) fn distinct<T, K: Eq + Hash>(
    count: usize,
    things: &str,
    wider: &str,
    key: impl Fn(&T) -> K,
    mut next: impl FnMut() -> Result<T, SuiteError>,
) -> Result<Vec<T>, SuiteError> {
    let (mut items, mut seen, mut repeats) = (Vec::new(), HashSet::new(), 0);
    while items.len() < count {
        let item = next()?;
        if seen.insert(key(&item)) {
            items.push(item);
            repeats = 0;
            continue;
        }
        repeats += 1;
        if repeats == MAX_REPEATS {
            let n = items.len();
            return Err(SuiteError::new(format!("after {n} {things} the next {MAX_REPEATS} only repeat them"))
                .at("`examples`")
                .hint(format!("ask for at most {n} examples, or for {wider}")));
        }
    }
    Ok(items)
}

/// Refuses the parameters of a file where examples are generated.
pub(crate) fn no_file_keys(keys: &Keys) -> Result<(), SuiteError> {
    for (key, hint) in [("limit", "write `examples = N`"), ("skip_bad", "leave it out")] {
        if keys.has(key) {
            return Err(SuiteError::new("goes with `csv` only").at(format!("`{key}`")).hint(hint));
        }
    }
    Ok(())
}

/// The examples of one task as a suite asked for them.
#[derive(Clone, Debug, Default)]
pub struct ExampleSet {
    /// The examples, in order.
    pub examples: Vec<Example>,
    /// Number of distinct tokens, counting from 0; a model of this task has at least this vocabulary.
    pub vocabulary: u32,
    /// Rows that a model's table of puzzle embeddings needs; 1 where there is one kind of puzzle.
    pub puzzle_ids: u32,
    /// Which puzzle has which id, as a name that no other numbering has; `None` where there is one kind of puzzle. A
    /// net with a table of puzzle embeddings knows only the numbering that it was trained with.
    pub numbering: Option<String>,
    /// Names of the questions, by [`Example::question`]; empty where the task decides row by row.
    pub questions: Vec<String>,
    /// What trivial rules score on these examples.
    pub baselines: Vec<BaselineScore>,
    /// Things that a reader of the score must know (e.g. that 4x4 is a smoke test).
    pub notes: Vec<String>,
    /// Names of the model's inputs that [`Example::arrays`] go to; empty where examples are tokens.
    pub inputs: Vec<String>,
    /// How answers are read off what a model gives.
    pub reads: Reading,
    /// What these examples are answered with, where that is another kind than [`Task::answers`].
    pub answers: Option<AnswerKind>,
    /// How answers are scored, where the examples say so and not [`Task::score`].
    pub scorer: Option<Scorer>,
    /// How prompts are made, where the examples are for language models.
    pub language: Option<LanguageSet>,
}

/// The two sides of the train/test split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What nets learn from: about 9 in 10.
    Train,
    /// Held out: about 1 in 10.
    Test,
}

impl Split {
    /// The side that the parameter `split` asks for; the held-out one where it is left out.
    pub(crate) fn asked(keys: &Keys) -> Result<Split, SuiteError> {
        match keys.string("split")?.as_deref() {
            None | Some("test") => Ok(Split::Test),
            Some("train") => Ok(Split::Train),
            Some(other) => Err(unknown("split", other, ["test", "train"].into_iter()).at("`split`")),
        }
    }

    /// The side of a class of examples, by the hash of the class. Must never change.
    pub(crate) fn of_hash(hash: u64) -> Split {
        if hash.is_multiple_of(10) { Split::Test } else { Split::Train }
    }

    /// As suites and files call it.
    pub const fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }
}

/// Makes so many examples of one side from a seed: the chunks of a large set, in any order and by several threads. The
/// same seed always gives the same examples, and a smaller number of them the first of these.
pub type Maker = Box<dyn Fn(u64, usize) -> Result<ExampleSet, SuiteError> + Send + Sync>;

/// The seed of a chunk of a set that has the seed `seed`: that of the first is the set's own, so that a small set is
/// what a suite with the same seed gets. Sets of one request must stay the same: never to be changed.
pub fn chunk_seed(seed: u64, chunk: u64) -> u64 {
    // as large as a number of a TOML file can be
    if chunk == 0 { seed } else { hash(0x6368_756e, [seed, chunk]) >> 1 }
}

/// A value of a readable row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A text without commas, quotes and ends of lines.
    Text(String),
    /// A number.
    Number(u32),
    /// Numbers, one a cell.
    Numbers(Vec<u32>),
}

/// An example as named columns, the same names for every example of a task.
pub type ReadableRow = Vec<(&'static str, Field)>;

/// See [`Task::valid`].
pub type Valid = fn(example: &Example, answer: &Answer) -> bool;
/// See [`Task::decide`].
pub type Decide = fn(set: &ExampleSet, answers: &[RowAnswer]) -> Vec<Decision>;
/// See [`Task::training`].
pub type MakeTraining = fn(parameters: &toml::Table, seed: u64) -> Result<Box<dyn Training>, SuiteError>;
/// See [`Task::dataset`].
pub type MakeDataset = fn(parameters: &toml::Table, folder: &Path, split: Split) -> Result<Maker, SuiteError>;

/// Examples that `ergometer time` and `ergometer tune` ask for by themselves, so that no command has to know a task.
pub struct Quick {
    /// What the sets are, for the flag's help.
    pub about: &'static str,
    /// The sets.
    pub sets: &'static [QuickSet],
}

/// One set of them.
pub struct QuickSet {
    /// The task's name in the suite that is made of it, e.g. `sudoku-4x4`.
    pub name: &'static str,
    /// A shorter name for the flag.
    pub short: Option<&'static str>,
    /// Whether a model whose rows have so many cells, of so many tokens, is made for it.
    pub fits: fn(cells: usize, tokens: usize) -> bool,
    /// Its parameters as TOML, for a model whose rows are such. One that it does not fit may be asked for by name: what
    /// is made then shows why not.
    pub parameters: fn(cells: usize, tokens: usize) -> String,
    /// The parameter that says how many there are; fewer are asked for of a large model.
    pub count: &'static str,
}

impl QuickSet {
    /// The name that the flag's help shows.
    pub fn shown(&self) -> &'static str {
        self.short.unwrap_or(self.name)
    }

    /// Whether the flag's value means this set.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.short == Some(name)
    }

    /// Its parameters, for a model whose rows have so many cells of so many tokens.
    ///
    /// # Errors
    /// They are no TOML, a fault of the task.
    pub fn table(&self, cells: usize, tokens: usize) -> Result<toml::Table, SuiteError> {
        (self.parameters)(cells, tokens)
            .parse::<toml::Table>()
            .map_err(|e| SuiteError::new(format!("parameters of `{}`: {e}", self.name)).hint("a fault of the task"))
    }
}

/// A kind of task: one line in [`TASKS`](crate::TASKS).
pub struct Task {
    /// Name that suites use as `kind`.
    pub name: &'static str,
    /// One sentence for `ergometer list tasks`.
    pub about: &'static str,
    /// Checks a suite's parameters and makes the examples, always the same for the same parameters. `folder` is where
    /// relative paths in the parameters start.
    pub examples: fn(parameters: &toml::Table, folder: &Path) -> Result<ExampleSet, SuiteError>,
    /// What examples are answered with. Answers of another kind are refused before they are scored.
    pub answers: AnswerKind,
    /// Scores one answer.
    pub score: fn(example: &Example, answer: &Answer) -> Score,
    /// Whether an answer keeps the task's rules, though it may not be the one that was asked for (a maze: some path,
    /// not the shortest); a right one always does. `None`: the right answer alone does.
    pub valid: Option<Valid>,
    /// Decides questions from the answers of their examples by the task's official rule, in the order of the questions; `None`: every
    /// example is a question of its own and [`score`](Self::score) decides. See [`decides`](Self::decides).
    pub decide: Option<Decide>,
    /// Training examples for these parameters (a suite's, `split` and `examples` left out) and this seed; `None`: not
    /// trainable here.
    pub training: Option<MakeTraining>,
    /// Makers of sets of either side where [`examples`](Self::examples) alone cannot make them; `None`: it can, by its
    /// parameter `split`.
    pub dataset: Option<MakeDataset>,
    /// An example as columns that people and the task's own reader of files read; `None`: its tokens as they are.
    pub readable: Option<fn(&Example) -> ReadableRow>,
    /// What `time` and `tune` ask of it where a model fits; `None`: only suites ask for it.
    pub quick: Option<Quick>,
}

impl Task {
    /// What the examples of a set are answered with.
    pub fn answers_of(&self, set: &ExampleSet) -> AnswerKind {
        set.answers.unwrap_or(self.answers)
    }

    /// The score of an answer to an example of a set, and the sums that metrics are made of.
    pub fn scored(&self, set: &ExampleSet, example: &Example, answer: &Answer) -> AnswerScore {
        match &set.scorer {
            Some(scorer) => scorer.score(&example.answer, answer),
            None => AnswerScore { score: (self.score)(example, answer), sums: Vec::new() },
        }
    }

    /// How the questions of this set are decided; `None` where every example is a question of its own: the task decides none, or was not
    /// asked to for these examples (they name no questions).
    pub fn decides(&self, set: &ExampleSet) -> Option<Decide> {
        self.decide.filter(|_| !set.questions.is_empty())
    }

    /// The sets of [`quick`](Self::quick).
    pub fn quick_sets(&self) -> &'static [QuickSet] {
        self.quick.as_ref().map_or(&[], |quick| quick.sets)
    }

    /// A maker of sets of one side, for a suite's parameters without `split`, `examples` and `seed`.
    ///
    /// # Errors
    /// What is wrong with the parameters, as far as that is seen before an example is made.
    pub fn maker(&self, parameters: &toml::Table, folder: &Path, split: Split) -> Result<Maker, SuiteError> {
        match self.dataset {
            Some(make) => make(parameters, folder, split),
            None => Ok(asked(self.examples, parameters.clone(), folder.to_owned(), Some(split))),
        }
    }

    /// An example as columns.
    pub fn row(&self, example: &Example) -> ReadableRow {
        match self.readable {
            Some(readable) => readable(example),
            None => vec![
                ("tokens", Field::Numbers(example.tokens.clone())),
                ("answer", Field::Numbers(example.answer.tokens().to_vec())),
                ("puzzle_id", Field::Number(example.puzzle_id)),
                ("difficulty", Field::Number(example.difficulty)),
            ],
        }
    }
}

/// A maker that asks [`Task::examples`], with `split` if it is given.
pub(crate) fn asked(
    examples: fn(&toml::Table, &Path) -> Result<ExampleSet, SuiteError>,
    parameters: toml::Table,
    folder: PathBuf,
    split: Option<Split>,
) -> Maker {
    Box::new(move |seed, count| {
        let mut parameters = parameters.clone();
        if let Some(split) = split {
            parameters.insert("split".into(), split.name().into());
        }
        let number = |n: u64| toml::Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
        parameters.insert("examples".into(), number(count as u64));
        parameters.insert("seed".into(), number(seed));
        examples(&parameters, &folder)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_quick_set_makes_examples_of_the_one_shape_that_it_fits() {
        let mut names = HashSet::new();
        for (task, set) in crate::quick_sets() {
            let shapes = || (1..=1000).flat_map(|cells| (1..=20).map(move |tokens| (cells, tokens)));
            let shape = shapes().find(|&(cells, tokens)| (set.fits)(cells, tokens)).expect(set.name);
            let all = crate::quick_sets().filter(|(_, other)| (other.fits)(shape.0, shape.1));
            assert_eq!(all.count(), 1, "{}: which set is meant must be clear", set.name);
            let mut one = set.table(shape.0, shape.1).unwrap();
            assert!(one[set.count].as_integer().is_some_and(|n| n > 1), "{}", set.name);
            one.insert(set.count.into(), 1.into());
            let made = (task.examples)(&one, Path::new("")).unwrap();
            assert_eq!((made.examples[0].tokens.len(), made.vocabulary as usize), shape, "{}", set.name);
            assert_eq!(made.examples[0].answer.kind(), task.answers);
            assert!(names.insert(set.name) && set.short.is_none_or(|short| names.insert(short)), "{}", set.name);
            assert!(set.is_called(set.name) && set.is_called(set.shown()) && !set.is_called(task.name));
        }
        assert!(names.contains("4") && names.contains("sudoku-4x4") && names.contains("arc-rules"));
    }
}
