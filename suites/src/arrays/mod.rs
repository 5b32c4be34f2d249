//! Own data: arrays out of files, or random ones, with labels and a scorer.
//!
//! In: a suite's parameters and the files they name. Out: examples of arrays. Must not: change what the files hold beyond
//! the type of numbers; what goes in is what the model sees.
//!
//! `source`, `table`, `npy` and `elements` read files; `parameters` is what a suite may say, `labels` what is right,
//! `scorer` and `edit` how right an answer is, `random` inputs without a file.

pub mod edit;
pub mod elements;
pub mod labels;
pub mod npy;
pub mod parameters;
pub mod random;
pub mod scorer;
pub mod source;
mod table;

use std::collections::HashMap;
use std::path::Path;

use ergometer_files::counted;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use self::elements::Stored;
use self::labels::ArrayLabels;
use self::parameters::{ArrayInput, ArrayParameters, InputsGiven, MAX_EXAMPLES};
use self::scorer::Scorer;
use self::source::WantedRows;
use crate::answer::{Answer, AnswerKind};
use crate::array::{Array, ElementKind};
use crate::error::SuiteError;
use crate::task::{BaselineScore, Example, ExampleSet, Score, Task};

/// Arrays of the user's.
pub const TASK: Task = Task {
    name: "arrays",
    about: "own data: arrays from .npy, .npz, .safetensors, CSV or JSONL files, or random ones, with labels and a scorer",
    examples,
    answers: AnswerKind::Numbers,
    score: |_, _| Score { exact: false, right: 0, cells: 1 },
    valid: None,
    decide: None,
    training: None,
    dataset: Some(|_, _, _| {
        Err(SuiteError::new("the examples of arrays are in files already").hint("name a task that makes its examples"))
    }),
    readable: None,
    quick: None,
};

fn examples(table: &toml::Table, folder: &Path) -> Result<ExampleSet, SuiteError> {
    let parameters = ArrayParameters::new(table, folder)?;
    match &parameters.given {
        InputsGiven::Random(inputs) => {
            random::examples(inputs, parameters.examples.unwrap_or(1), parameters.seed, parameters.output.clone())
        }
        InputsGiven::Files(inputs) => of_files(inputs, &parameters),
    }
}

fn of_files(inputs: &[ArrayInput], parameters: &ArrayParameters) -> Result<ExampleSet, SuiteError> {
    let rows = rows(inputs, parameters)?;
    if rows == 0 {
        let error = SuiteError::new("holds no row").at("`inputs`").hint("every row is an example");
        return Err(inputs.iter().fold(error, |e, input| e.in_file(&input.source.path)));
    }
    let chosen = chosen(rows, parameters)?;
    let mut notes = Vec::new();
    if chosen.len() < rows {
        notes.push(format!("{} of {rows} rows, chosen at random by seed {}.", chosen.len(), parameters.seed));
    }
    let mut examples = vec![Example::default(); chosen.len()];
    for input in inputs {
        let place = |e: SuiteError| e.at(format!("`inputs.{}`", input.name));
        notes.extend(converted(input).map_err(place)?);
        let arrays = input.source.arrays(&chosen, &input.wanted).map_err(place)?;
        for (example, array) in examples.iter_mut().zip(arrays) {
            example.arrays.push(array);
        }
    }
    let ids = parameters.cluster.as_ref().map(|source| source.texts(&chosen)).transpose()?;
    let mut clusters = HashMap::new();
    for (i, example) in examples.iter_mut().enumerate() {
        example.cluster = match &ids {
            None => chosen[i] as u64,
            Some(ids) => {
                let next = clusters.len() as u64;
                *clusters.entry(ids[i].clone()).or_insert(next)
            }
        };
    }
    if let Some(source) = &parameters.difficulty {
        let wanted = WantedRows { kind: Some(ElementKind::I64), shape: Some(Vec::new()) };
        for (i, array) in source.arrays(&chosen, &wanted)?.iter().enumerate() {
            let number = elements::wholes(array)[0];
            examples[i].difficulty = u32::try_from(number).map_err(|_| {
                SuiteError::new(format!("row {} has the difficulty {number}", chosen[i]))
                    .in_file(&source.path)
                    .at("`difficulty`")
                    .hint("a difficulty is a whole number, 0 or more")
            })?;
        }
    }
    let ArrayLabels { answers, scorer, vocabulary } = labels::read(parameters, &chosen)?;
    let kind = scorer.answers(answers.first().unwrap_or(&Answer::default()));
    let baselines = commonest(&scorer, &answers).into_iter().collect();
    for (example, answer) in examples.iter_mut().zip(answers) {
        example.answer = answer;
    }
    Ok(ExampleSet {
        examples,
        vocabulary,
        puzzle_ids: 1,
        baselines,
        notes,
        inputs: inputs.iter().map(|i| i.name.clone()).collect(),
        reads: scorer.reading(parameters.output.clone(), parameters.class_axis),
        answers: Some(kind),
        scorer: Some(scorer),
        ..ExampleSet::default()
    })
}

/// Rows that all sources have.
fn rows(inputs: &[ArrayInput], parameters: &ArrayParameters) -> Result<usize, SuiteError> {
    let named = inputs.iter().map(|i| (format!("inputs.{}", i.name), &i.source));
    let others = [
        ("labels", &parameters.labels),
        ("mask", &parameters.mask),
        ("cluster", &parameters.cluster),
        ("difficulty", &parameters.difficulty),
    ];
    let others = others.into_iter().filter_map(|(name, source)| Some((name.to_owned(), source.as_ref()?)));
    let mut first: Option<(String, usize)> = None;
    for (name, source) in named.chain(others) {
        let rows = source.rows().map_err(|e| e.at(format!("`{name}`")))?;
        match &first {
            None => first = Some((name, rows)),
            Some((_, known)) if *known == rows => {}
            Some((other, known)) => {
                return Err(SuiteError::new(format!("`{}` has {rows} rows, and `{other}` {known}", source.shown()))
                    .in_file(&source.path)
                    .at(format!("`{name}`"))
                    .hint("the first axis of every array is its examples: inputs and labels have one row for each"));
            }
        }
    }
    Ok(first.map_or(0, |f| f.1))
}

/// The rows that are examples, ascending.
fn chosen(rows: usize, parameters: &ArrayParameters) -> Result<Vec<usize>, SuiteError> {
    let wanted = parameters.examples.unwrap_or(rows);
    if wanted > rows {
        return Err(SuiteError::new(format!("{wanted} are asked for, and the files hold {}", counted(rows, "row")))
            .at("`examples`")
            .hint(format!("ask for at most {rows}, or leave it out for all of them")));
    }
    if wanted > MAX_EXAMPLES {
        return Err(SuiteError::new(format!("{wanted} rows, and a set has at most {MAX_EXAMPLES} examples"))
            .at("`examples`")
            .hint(format!("choose some of them: `examples = {MAX_EXAMPLES}`")));
    }
    if wanted == rows {
        return Ok((0..rows).collect());
    }
    let mut random = ChaCha8Rng::seed_from_u64(parameters.seed);
    let mut chosen = rand::seq::index::sample(&mut random, rows, wanted).into_vec();
    chosen.sort_unstable();
    Ok(chosen)
}

/// What a reader must know where numbers are given to the model as another type than the file's.
fn converted(input: &ArrayInput) -> Result<Option<String>, SuiteError> {
    let Some(stored) = input.source.stored()? else { return Ok(None) };
    let given = input.wanted.kind.unwrap_or(stored.natural());
    Ok((stored != Stored::Own(given)).then(|| {
        format!(
            "Input `{}` is {} in {}, and the model is given {given}.",
            input.name,
            stored.name(),
            input.source.shown()
        )
    }))
}

/// What answering with the commonest class gets right, where labels are classes.
fn commonest(scorer: &Scorer, answers: &[Answer]) -> Option<BaselineScore> {
    let k = match scorer {
        Scorer::Top { k } => *k,
        Scorer::Binary { .. } | Scorer::Exact => 1,
        _ => return None,
    };
    let mut counts: HashMap<u32, u64> = HashMap::new();
    for answer in answers {
        let Answer::Class(class) = answer else { return None };
        *counts.entry(*class).or_default() += 1;
    }
    let mut counts: Vec<u64> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let name = if k == 1 { "the commonest class".to_owned() } else { format!("the {k} commonest classes") };
    Some(BaselineScore { name, right: counts.iter().take(k).sum(), of: answers.len() as u64 })
}

/// Bytes of all arrays of an example.
pub fn bytes(arrays: &[Array]) -> usize {
    arrays.iter().map(|a| a.bytes.len()).sum()
}

#[cfg(test)]
mod tests;
