//! The examples of a suite: which tasks, in which variants, in which order.
//!
//! In: parameters. Out: an [`ExampleSet`]. Must not: depend on anything but the parameters and the file they name.

use std::collections::HashSet;
use std::path::Path;

use ergometer_files::counted;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::baseline::baselines;
use super::grid::{Grid, MAX_SIDE};
use super::json::{self, ArcTask, Subset};
use super::parameters::{ArcSource, MAX_EXAMPLES, Parameters};
use super::rules::{self, PUZZLE_IDS, RULES, Wish};
use super::tokens::{VOCABULARY, encode};
use super::variant::TaskVariant;
use crate::error::SuiteError;
use crate::hash::hash;
use crate::task::{Example, ExampleSet, Split};

/// Most cells of all inputs of one set: half a GiB of tokens.
const MAX_CELLS: usize = 1 << 27;
/// Tasks of rules if nothing is said.
const DEFAULT_TASKS: usize = 100;
/// Seed of the variants of a file's tasks. Part of the numbering of puzzle ids: must never change.
const VARIANTS: u64 = 0x7661_7269;
/// Begins the hash of a numbering. Recorded with trained nets: must never change.
const NUMBERING: u64 = 0x6e75_6d62;
/// Draws for each variant that is wanted, as in the released TRM.
const TRIES: usize = 5;

/// A task with the variants that are asked about.
pub struct AugmentedTask {
    pub task: ArcTask,
    /// Variant and its row in the table of puzzle embeddings.
    pub variants: Vec<(TaskVariant, u32)>,
    /// See [`Example::cluster`].
    pub cluster: u64,
}

/// The tasks of a file, those with too large grids left out, each with its variants, in both halves: the numbering of a
/// net's table.
pub struct Numbered {
    pub tasks: Vec<(Option<Subset>, AugmentedTask)>,
    pub puzzle_ids: u32,
    /// See [`ExampleSet::numbering`].
    pub numbering: String,
    /// Tasks left out because of `max_side`, of the half that is asked for.
    pub too_large: usize,
}

/// See [`Task::examples`](crate::task::Task::examples).
pub fn examples(table: &toml::Table, folder: &Path) -> Result<ExampleSet, SuiteError> {
    let parameters = Parameters::new(table, folder)?;
    match &parameters.source {
        ArcSource::Rules(numbers) => of_rules(&parameters, numbers),
        ArcSource::File(file, name) => of_file(&parameters, file, name),
    }
}

fn of_rules(parameters: &Parameters, numbers: &[usize]) -> Result<ExampleSet, SuiteError> {
    let turns = parameters.augmentations.unwrap_or(1);
    let count = match parameters.examples {
        Some(rows) => (rows / (turns * parameters.tests)).max(1),
        None => parameters.tasks.unwrap_or(DEFAULT_TASKS),
    };
    room(count * turns * parameters.tests, parameters.side)?;
    let wish = Wish {
        max_side: parameters.max_side.unwrap_or(*rules::SIDES.end()),
        split: parameters.split,
        demonstrations: parameters.demonstrations,
        tests: parameters.tests,
        seed: parameters.seed,
    };
    let mut made = Vec::new();
    for (place, &number) in numbers.iter().enumerate() {
        // rules take turns
        let share = count.saturating_sub(place).div_ceil(numbers.len());
        let variants = || (0..turns as u32).map(|d| (TaskVariant::turn(d), rules::puzzle_id(number, d))).collect();
        let asked = |task| AugmentedTask { task, variants: variants(), cluster: number as u64 };
        made.push(rules::tasks(number, share, wish)?.into_iter().map(asked).collect::<Vec<_>>().into_iter());
    }
    let mut asked = Vec::new();
    while asked.len() < count {
        asked.extend(made.iter_mut().filter_map(Iterator::next));
    }
    let names: Vec<&str> = numbers.iter().map(|&n| RULES[n].name).collect();
    let which = if names.len() == RULES.len() { "all".to_owned() } else { names.join(", ") };
    let mut notes = vec![
        format!(
            "Tasks of ergometer's own procedural rules (version {} of the table of {}; {which}) on grids of at most {side}x{side}: easy, \
             and no ARC tasks. A score on them is no ARC score, and tasks of one rule are not independent.",
            rules::VERSION,
            RULES.len(),
            side = wish.max_side,
        ),
        "A net is told the rule by its puzzle id: what is asked is to apply known rules to new inputs, not to find a rule from the \
         demonstrations."
            .to_owned(),
    ];
    notes.push(match wish.split {
        Split::Test => "No test input, nor a turned copy of one, is on the train side of the split.".to_owned(),
        Split::Train => "The test inputs are of the train side: a net may have been trained on them.".to_owned(),
    });
    notes.push(attempts_note(turns));
    Ok(set(&asked, parameters.side, PUZZLE_IDS, format!("arc-rules-{}", rules::VERSION), notes))
}

fn of_file(parameters: &Parameters, file: &Path, name: &str) -> Result<ExampleSet, SuiteError> {
    let numbered = numbered(parameters, file)?;
    let too_large = numbered.too_large;
    let mut asked: Vec<AugmentedTask> = wanted(numbered.tasks, parameters.subset).collect();
    let (tasks, rows) = (asked.len(), |a: &AugmentedTask| a.variants.len() * a.task.tests.len());
    if parameters.tasks.is_some() || parameters.examples.is_some() {
        // a random choice, in the file's order
        let mut order: Vec<usize> = (0..tasks).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(parameters.seed));
        let mut keep: HashSet<usize> = HashSet::new();
        let mut taken = 0;
        for index in order {
            taken += rows(&asked[index]);
            let full = parameters.tasks.is_some_and(|most| keep.len() == most)
                || (!keep.is_empty() && parameters.examples.is_some_and(|most| taken > most));
            if full {
                break;
            }
            keep.insert(index);
        }
        let mut index = 0..tasks;
        asked.retain(|_| index.next().is_some_and(|i| keep.contains(&i)));
    }
    room(asked.iter().map(rows).sum(), parameters.side)?;
    let half = match parameters.subset {
        Some(Subset::Train) => ", the training half",
        _ => "",
    };
    let tests: usize = asked.iter().map(|a| a.task.tests.len()).sum();
    let (n, outputs) = (asked.len(), counted(tests, "test output"));
    let mut notes = vec![format!("ARC tasks of {name}{half}: {n} of {tasks}, with {outputs}.")];
    if too_large > 0 {
        let side = parameters.max_side.unwrap_or(parameters.side);
        notes.push(format!(
            "Left out because a grid is larger than {side}x{side}: {}. Smaller tasks are easier, so this is no score on the whole set.",
            counted(too_large, "task")
        ));
    }
    notes.push(
        "Transductive: a net with a table of puzzle embeddings can be asked about the tasks alone on whose demonstrations it was trained."
            .to_owned(),
    );
    notes.push(
        "ARC's public tasks have been on the web for years, and ARC-AGI-1 and -2 share tasks (6 of 120 evaluation tasks, 766 of 1000 \
         training tasks of the second are in the first): whether a model has seen them is not known here."
            .to_owned(),
    );
    notes.push(attempts_note(parameters.augmentations.unwrap_or(1)));
    Ok(set(&asked, parameters.side, numbered.puzzle_ids, numbered.numbering, notes))
}

fn attempts_note(variants: usize) -> String {
    if variants == 1 {
        return "One row an output: there is a first attempt only, where the official rule allows two.".to_owned();
    }
    format!("Attempts are the first- and second-ranked votes of up to {variants} variants of each test input.")
}

fn wanted(tasks: Vec<(Option<Subset>, AugmentedTask)>, subset: Option<Subset>) -> impl Iterator<Item = AugmentedTask> {
    let half = subset.unwrap_or(Subset::Eval);
    tasks.into_iter().filter(move |(of, _)| of.is_none_or(|of| of == half)).map(|(_, asked)| asked)
}

/// Reads a file's tasks and numbers their variants.
///
/// Errors: the file's; a half that it has not; grids larger than the canvas.
pub fn numbered(parameters: &Parameters, file: &Path) -> Result<Numbered, SuiteError> {
    let count = parameters.augmentations.unwrap_or(1);
    let tasks = json::read(file)?.tasks;
    let half = parameters.subset.unwrap_or(Subset::Eval);
    let whole = tasks.iter().all(|(of, _)| of.is_none());
    if whole && parameters.subset.is_some() {
        return Err(SuiteError::new("the tasks are not divided into halves")
            .in_file(file)
            .at("`subset`")
            .hint("leave it out"));
    }
    let is_wanted = |of: Option<Subset>| of.is_none_or(|of| of == half);
    let fits = |task: &ArcTask, most: usize| task.grids().all(|g| g.side() <= most);
    let most = parameters.max_side.unwrap_or(MAX_SIDE);
    let too_large = tasks.iter().filter(|(of, t)| is_wanted(*of) && !fits(t, most)).count();
    let kept: Vec<(Option<Subset>, ArcTask)> = tasks.into_iter().filter(|(_, t)| fits(t, most)).collect();
    if let Some((_, task)) = kept.iter().find(|(_, t)| !fits(t, parameters.side)) {
        let side = parameters.side;
        return Err(SuiteError::new(format!("task `{}` has a grid larger than the canvas of {side}x{side}", task.id))
            .in_file(file)
            .at("`side`")
            .hint(format!("write `max_side = {side}` to leave such tasks out, or a larger `side`")));
    }
    if !kept.iter().any(|(of, _)| is_wanted(*of)) {
        return Err(SuiteError::new("no task is left").in_file(file).at("`subset`, `max_side`").hint(
            "ask for the other half, or for larger grids; without `subset` it is the evaluation half that is asked for",
        ));
    }
    let puzzle_ids = (kept.len() * count + 1) as u32;
    let numbered = kept.into_iter().enumerate().map(|(index, (of, task))| {
        let first = 1 + index * count;
        let variants = (first as u32..).zip(variants(&task, count)).map(|(id, v)| (v, id)).collect();
        (of, AugmentedTask { task, variants, cluster: index as u64 })
    });
    let tasks: Vec<(Option<Subset>, AugmentedTask)> = numbered.collect();
    let numbering = numbering(tasks.iter().map(|(_, asked)| asked), count);
    Ok(Numbered { tasks, puzzle_ids, numbering, too_large })
}

/// The numbering of a file's tasks: their ids, their demonstrations, from which a net learns them, and their variants,
/// in order.
fn numbering<'a>(tasks: impl Iterator<Item = &'a AugmentedTask>, count: usize) -> String {
    let mut state = hash(NUMBERING, [count as u64]);
    for AugmentedTask { task, variants, .. } in tasks {
        state = hash(state, [task.id.len() as u64]);
        state = hash(state, task.id.bytes().map(u64::from));
        for grid in task.demonstrations.iter().flat_map(|p| [&p.input, &p.output]) {
            state = hash(state, [grid.height() as u64, grid.width() as u64]);
            state = hash(state, grid.cells().iter().map(|&c| u64::from(c)));
        }
        state = hash(state, variants.iter().flat_map(|(v, id)| [u64::from(v.code()), u64::from(*id)]));
    }
    format!("arc-file-{state:016x}")
}

/// Up to `count` variants of a task, the first of them the task as it is, no two of which make the same task. Always
/// the same for the same id, and the first ones the same for any count, because a net's table is numbered by them.
pub fn variants(task: &ArcTask, count: usize) -> Vec<TaskVariant> {
    let mut rng = ChaCha8Rng::seed_from_u64(hash(VARIANTS, task.id.bytes().map(u64::from)));
    let turned: Vec<(u64, Vec<u8>)> = (0..8).map(|d| pattern(task, d)).collect();
    // equal for variants that make the same task, whose pattern and whose colours in the order of first sight are the
    // same
    let made = |variant: &TaskVariant| {
        let (pattern, colours) = &turned[variant.dihedral() as usize];
        (*pattern, colours.iter().map(|&c| variant.colour(c)).collect::<Vec<u8>>())
    };
    let mut found = vec![TaskVariant::turn(0)];
    let mut seen: HashSet<(u64, Vec<u8>)> = found.iter().map(made).collect();
    for _ in 0..TRIES * count {
        if found.len() >= count {
            break;
        }
        let variant = TaskVariant::random(&mut rng);
        if seen.insert(made(&variant)) {
            found.push(variant);
        }
    }
    found
}

/// A turned task without its colours: a hash that is equal for tasks that differ in colours 1 to 9 alone, and these
/// colours in the order in which they are first seen.
fn pattern(task: &ArcTask, dihedral: u32) -> (u64, Vec<u8>) {
    let mut colours = vec![0];
    let mut numbers = Vec::new();
    for grid in task.grids() {
        let grid = grid.turned(dihedral);
        numbers.extend([grid.height() as u64, grid.width() as u64]);
        for &colour in grid.cells() {
            let known = colours.iter().position(|&c| c == colour);
            numbers.push(known.unwrap_or_else(|| {
                colours.push(colour);
                colours.len() - 1
            }) as u64);
        }
    }
    (hash(VARIANTS, numbers), colours)
}

fn room(rows: usize, side: usize) -> Result<(), SuiteError> {
    if rows <= MAX_EXAMPLES && rows * side * side <= MAX_CELLS {
        return Ok(());
    }
    Err(SuiteError::new(format!(
        "{rows} rows of {side}x{side} cells: at most {MAX_EXAMPLES} rows and {MAX_CELLS} cells can be asked for at once"
    ))
    .at("`augmentations`")
    .hint("ask for fewer `augmentations` or `tasks`, or for a smaller canvas (`side`)"))
}

/// Rows in the order of tasks, tests and variants.
fn set(asked: &[AugmentedTask], side: usize, puzzle_ids: u32, numbering: String, notes: Vec<String>) -> ExampleSet {
    let mut examples = Vec::new();
    for (question, asked) in (0..).zip(asked) {
        for (part, test) in (0..).zip(&asked.task.tests) {
            for (variant, puzzle_id) in &asked.variants {
                examples.push(Example {
                    tokens: encode(&variant.apply(&test.input), side),
                    puzzle_id: *puzzle_id,
                    answer: encode(&variant.apply(&test.output), side).into(),
                    cluster: asked.cluster,
                    difficulty: not_copied(&test.input, &test.output),
                    question,
                    part,
                    variant: variant.code(),
                    ..Example::default()
                });
            }
        }
    }
    ExampleSet {
        examples,
        vocabulary: VOCABULARY,
        puzzle_ids,
        numbering: Some(numbering),
        questions: asked.iter().map(|a| a.task.id.clone()).collect(),
        baselines: baselines(asked.iter().map(|a| &a.task)),
        notes,
        ..ExampleSet::default()
    }
}

/// Cells of the output that are not the input's at the same place.
pub fn not_copied(input: &Grid, output: &Grid) -> u32 {
    let places = (0..output.height()).flat_map(|r| (0..output.width()).map(move |c| (r as isize, c as isize)));
    places.filter(|&(r, c)| output.peek(r, c) != input.peek(r, c)).count() as u32
}
