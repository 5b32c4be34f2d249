//! Endless training examples: fresh pairs of rules, or the demonstrations of a file's tasks.
//!
//! In: a training file's parameters, a seed. Out: [`Training`]. Must not: let a held-out input of a rule, a turned copy
//! of one, or any test pair of a file into training.

use std::path::Path;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::parameters::{ArcSource, Parameters};
use super::rules::{self, Draw, RULES};
use super::set::{self, AugmentedTask, not_copied, numbered};
use super::tokens::{VOCABULARY, encode_at};
use super::variant::TaskVariant;
use crate::error::SuiteError;
use crate::task::{self, Example, ExampleSet, Maker, Split, Training};

/// See [`Task::training`](crate::task::Task::training). Of a file
/// both halves are trained on, as in the released TRM, but for the test pairs.
///
/// Errors: those of the parameters and the file; keys that only examples have; a relative `file`, since there is no
/// folder it starts at.
pub fn training(table: &toml::Table, seed: u64) -> Result<Box<dyn Training>, SuiteError> {
    if let Some(key) = ["split", "examples", "seed"].into_iter().find(|k| table.contains_key(*k)) {
        return Err(SuiteError::new("says nothing about training").at(format!("`{key}`")).hint("leave it out"));
    }
    let parameters = Parameters::new(table, Path::new(""))?;
    match &parameters.source {
        ArcSource::File(file, _) if file.is_relative() => {
            Err(SuiteError::new(format!("{} is a relative path", file.display()))
                .at("`file`")
                .hint("for training write the whole path, or `dataset = \"arc-agi-1\"`"))
        }
        _ => Ok((Learned::new(&parameters)?.make)(seed)),
    }
}

/// See [`Task::dataset`](crate::task::Task::dataset): the train side is what [`training`] draws, the test side what a
/// suite asks.
///
/// Errors: as [`training`].
pub fn dataset(table: &toml::Table, folder: &Path, split: Split) -> Result<Maker, SuiteError> {
    let mut table = table.clone();
    // how many are wanted is said otherwise
    table.remove("tasks");
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let parameters = Parameters::new(&table, &folder)?;
    if split == Split::Test {
        let rules = matches!(parameters.source, ArcSource::Rules(_));
        return Ok(task::asked(set::examples, table, folder, rules.then_some(split)));
    }
    let learned = Learned::new(&parameters)?;
    Ok(Box::new(move |seed, count| {
        let mut training = (learned.make)(seed);
        Ok(ExampleSet {
            examples: (0..count).map(|_| training.next_example()).collect(),
            vocabulary: VOCABULARY,
            puzzle_ids: learned.puzzle_ids,
            numbering: Some(learned.numbering.clone()),
            questions: Vec::new(),
            baselines: Vec::new(),
            notes: Vec::new(),
            ..ExampleSet::default()
        })
    }))
}

/// What there is to learn, from which any seed draws.
struct Learned {
    make: Box<dyn Fn(u64) -> Box<dyn Training> + Send + Sync>,
    puzzle_ids: u32,
    numbering: String,
}

impl Learned {
    fn new(parameters: &Parameters) -> Result<Self, SuiteError> {
        let side = parameters.side;
        match &parameters.source {
            ArcSource::Rules(numbers) => {
                let max_side = parameters.max_side.unwrap_or(*rules::SIDES.end());
                let turns = parameters.augmentations.unwrap_or(8) as u32;
                let draw = move |seed| Draw { rng: ChaCha8Rng::seed_from_u64(seed), max_side };
                let source = OfRules { numbers: numbers.clone(), turns, side, draw: draw(0) }.check()?;
                Ok(Self {
                    make: Box::new(move |seed| Box::new(OfRules { draw: draw(seed), ..source.clone() })),
                    puzzle_ids: rules::PUZZLE_IDS,
                    numbering: format!("arc-rules-{}", rules::VERSION),
                })
            }
            ArcSource::File(file, _) => {
                let numbered = numbered(parameters, file)?;
                let tasks: Arc<[AugmentedTask]> = numbered.tasks.into_iter().map(|(_, asked)| asked).collect();
                let rng = ChaCha8Rng::seed_from_u64;
                Ok(Self {
                    make: Box::new(move |seed| Box::new(OfFile { tasks: tasks.clone(), side, rng: rng(seed) })),
                    puzzle_ids: numbered.puzzle_ids,
                    numbering: numbered.numbering,
                })
            }
        }
    }
}

/// All rules and turns are equally likely.
#[derive(Clone)]
struct OfRules {
    numbers: Vec<usize>,
    turns: u32,
    side: usize,
    draw: Draw,
}

impl OfRules {
    /// Makes sure that every rule has pairs to train on.
    fn check(self) -> Result<Self, SuiteError> {
        let mut draw = self.draw.clone();
        for &number in &self.numbers {
            if rules::pair(&RULES[number], Split::Train, &mut draw).is_none() {
                let (name, side) = (RULES[number].name, draw.max_side);
                return Err(SuiteError::new(format!("rule `{name}` has no input on grids up to {side}x{side}"))
                    .at("`rules`")
                    .hint("leave the rule out, or ask for a larger `max_side`"));
            }
        }
        Ok(self)
    }
}

impl Training for OfRules {
    fn next_example(&mut self) -> Example {
        loop {
            let number = self.numbers[self.draw.rng.random_range(0..self.numbers.len())];
            let turn = self.draw.rng.random_range(0..self.turns);
            // every rule has given a pair before, so this ends
            if let Some(pair) = rules::pair(&RULES[number], Split::Train, &mut self.draw) {
                let variant = TaskVariant::turn(turn);
                return Example {
                    tokens: encode_at(&variant.apply(&pair.input), self.side, (0, 0)),
                    puzzle_id: rules::puzzle_id(number, turn),
                    answer: encode_at(&variant.apply(&pair.output), self.side, (0, 0)).into(),
                    cluster: number as u64,
                    difficulty: not_copied(&pair.input, &pair.output),
                    variant: variant.code(),
                    ..Example::default()
                };
            }
        }
    }
}

/// All tasks are equally likely, then all variants, then all demonstrations.
struct OfFile {
    /// One or more, each with one or more demonstrations and variants.
    tasks: Arc<[AugmentedTask]>,
    side: usize,
    rng: ChaCha8Rng,
}

impl Training for OfFile {
    fn next_example(&mut self) -> Example {
        let AugmentedTask { task, variants, cluster } = &self.tasks[self.rng.random_range(0..self.tasks.len())];
        let (variant, puzzle_id) = variants[self.rng.random_range(0..variants.len())];
        let pair = &task.demonstrations[self.rng.random_range(0..task.demonstrations.len())];
        let (input, output) = (variant.apply(&pair.input), variant.apply(&pair.output));
        // as the released TRM does: input and output are moved together, all demonstrations of a variant but one
        let down = self.rng.random_range(0..=self.side - input.height().max(output.height()));
        let right = self.rng.random_range(0..=self.side - input.width().max(output.width()));
        let moved = self.rng.random_range(0..task.demonstrations.len()) > 0;
        let place = if moved { (down, right) } else { (0, 0) };
        Example {
            tokens: encode_at(&input, self.side, place),
            puzzle_id,
            answer: encode_at(&output, self.side, place).into(),
            cluster: *cluster,
            difficulty: not_copied(&input, &output),
            variant: variant.code(),
            ..Example::default()
        }
    }
}
