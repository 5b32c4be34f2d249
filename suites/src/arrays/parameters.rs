//! What a suite may say of a task of arrays.
//!
//! In: the parameters of a `[[task]]` block. Out: [`ArrayParameters`] that belong together, or the key that does not. Must not:
//! read the files that they name, but for the alphabet.

use std::path::Path;
use std::sync::Arc;

use toml::Value;

use super::edit::Decoding;
use super::random::RandomInput;
use super::scorer::{Scorer, ScorerProgram};
use super::source::{ArraySource, WantedRows};
use crate::array::{ElementKind, Read, Reading};
use crate::error::SuiteError;
use crate::text;
use crate::toml_table::{Keys, unknown};

/// Most examples of a set.
pub const MAX_EXAMPLES: usize = 1_000_000;
/// Keys that go with every scorer, and with none.
const ALWAYS: [&str; 9] =
    ["inputs", "labels", "scorer", "output", "cluster", "difficulty", "examples", "seed", "random"];
/// Names of the scorers, and the keys that go with each.
const SCORERS: [(&str, &[&str]); 8] = [
    ("top-1", &["classes", "class_axis"]),
    ("top-5", &["classes"]),
    ("binary", &["threshold", "positive"]),
    ("regression", &["tolerance"]),
    ("exact", &["classes", "class_axis"]),
    ("edit", &["class_axis", "decode", "blank", "alphabet", "ignore"]),
    ("iou", &["classes", "class_axis", "threshold", "mask", "ignore"]),
    ("tokens", &["classes", "class_axis", "mask", "ignore"]),
];
/// Keys that go with a scorer's program.
const OF_PROGRAM: [&str; 3] = ["read", "scorer_seconds", "class_axis"];
/// Largest k of `top-k`.
const MAX_K: usize = 1000;
/// Most inputs of a model.
const MAX_INPUTS: usize = 256;
/// Most axes, and most elements, of a random input.
const MAX_AXES: usize = 16;
const MAX_ELEMENTS: usize = 1 << 28;
/// Largest alphabet, bytes.
const MAX_ALPHABET: u64 = 16 << 20;
/// Seconds that a scorer's program may take.
const SCORER_SECONDS: f64 = 300.0;
/// Random examples if nothing is said.
const RANDOM_EXAMPLES: usize = 16;

/// One input of a model, out of a file.
#[derive(Clone, Debug)]
pub struct ArrayInput {
    /// Name of the model's input.
    pub name: String,
    /// Where its rows are.
    pub source: ArraySource,
    /// How they are wanted.
    pub wanted: WantedRows,
}

/// Where inputs come from.
#[derive(Clone, Debug)]
pub enum InputsGiven {
    /// Files.
    Files(Vec<ArrayInput>),
    /// Random numbers.
    Random(Vec<RandomInput>),
}

/// Checked parameters.
#[derive(Clone, Debug)]
pub struct ArrayParameters {
    /// Inputs, in the order of their names.
    pub given: InputsGiven,
    /// Labels.
    pub labels: Option<ArraySource>,
    /// How answers are scored; the means of `regression` are not known yet.
    pub scorer: Scorer,
    /// The output that answers are read off.
    pub output: Option<String>,
    /// Classes that labels are below.
    pub classes: Option<u32>,
    /// The axis of a row of the output along which classes stand.
    pub class_axis: Option<usize>,
    /// Cells of labels that count.
    pub mask: Option<ArraySource>,
    /// The value of cells of labels that do not count.
    pub ignore: Option<i64>,
    /// See [`Example::cluster`](crate::task::Example::cluster).
    pub cluster: Option<ArraySource>,
    /// See [`Example::difficulty`](crate::task::Example::difficulty).
    pub difficulty: Option<ArraySource>,
    /// How many rows; `None`: all.
    pub examples: Option<usize>,
    /// Which ones.
    pub seed: u64,
}

impl ArrayParameters {
    /// Checks a suite's parameters; relative paths start at `folder`.
    ///
    /// # Errors
    /// A key that is unknown, wrong, or does not go with the others.
    pub fn new(table: &toml::Table, folder: &Path) -> Result<Self, SuiteError> {
        let of_scorers = SCORERS.iter().flat_map(|s| s.1.iter().copied());
        let known: Vec<&str> = ALWAYS.into_iter().chain(of_scorers).chain(OF_PROGRAM).collect();
        let keys = Keys::of_table(table).only(&known)?;
        if keys.has("random") {
            return Self::random(&keys);
        }
        let inputs = inputs(&keys, folder)?;
        let (scorer, name) = scorer(&keys, folder)?;
        let goes = |key: &&str| ALWAYS.contains(key) || goes_with(&name).contains(key);
        if let Some(key) = known.iter().find(|k| keys.has(k) && !goes(k)) {
            let with: Vec<String> =
                SCORERS.iter().filter(|s| s.1.contains(key)).map(|s| format!("`{}`", s.0)).collect();
            let with = if OF_PROGRAM.contains(key) { "a program of yours".to_owned() } else { with.join(", ") };
            return Err(SuiteError::new(format!("does not go with the scorer `{name}`"))
                .at(keys.place(key))
                .hint(format!("leave it out; it goes with {with}")));
        }
        let class_axis = keys.integer("class_axis", 0..=MAX_AXES as u64 - 1)?.map(|n| n as usize);
        if class_axis.is_some() && !matches!(scorer.reading(None, None), Reading::Output { how: Read::Argmax, .. }) {
            return Err(SuiteError::new("is for answers that are the largest along an axis")
                .at(keys.place("class_axis"))
                .hint("leave it out; of a program of yours it goes with `read = \"argmax\"`"));
        }
        let source = |key: &str| match keys.string(key)? {
            Some(text) => ArraySource::parse(folder, &text).map(Some).map_err(|e| e.at(keys.place(key))),
            None => Ok(None),
        };
        let labels = source("labels")?;
        if labels.is_none() && !matches!(scorer, Scorer::Program(..)) {
            return Err(SuiteError::new("is missing").at("`labels`").hint(
                "say what is right: `labels = \"FILE:KEY\"`; without labels there are `random` inputs alone, for throughput",
            ));
        }
        let examples = keys.integer("examples", 1..=MAX_EXAMPLES as u64)?.map(|n| n as usize);
        if keys.has("seed") && examples.is_none() {
            return Err(SuiteError::new("chooses some of the rows, and all are asked for")
                .at(keys.place("seed"))
                .hint("say how many with `examples = N`, or leave it out"));
        }
        Ok(Self {
            given: InputsGiven::Files(inputs),
            labels,
            scorer,
            output: keys.string("output")?,
            classes: keys.integer("classes", 1..=u64::from(u32::MAX - 1))?.map(|n| n as u32),
            class_axis,
            mask: source("mask")?,
            ignore: keys.get("ignore", "a whole number", Value::as_integer)?,
            cluster: source("cluster")?,
            difficulty: source("difficulty")?,
            examples,
            seed: keys.integer("seed", 0..=i64::MAX as u64)?.unwrap_or(0),
        })
    }

    fn random(keys: &Keys) -> Result<Self, SuiteError> {
        let keys = keys.clone().only(&["random", "examples", "seed", "output"]).map_err(|e| {
            e.hint("random inputs have no right answer: they go with `examples`, `seed` and `output` alone")
        })?;
        let table =
            keys.get("random", "a table: `random = { x = { kind = \"f32\", shape = [3, 224, 224] } }`", |v| {
                v.as_table().cloned()
            })?;
        let table = keys.need("random", table)?;
        let inputs = table.iter().map(|(name, value)| random_input(name, value)).collect::<Result<Vec<_>, _>>()?;
        count_of(inputs.len(), "random")?;
        Ok(Self {
            given: InputsGiven::Random(inputs),
            labels: None,
            scorer: Scorer::Nothing,
            output: keys.string("output")?,
            classes: None,
            class_axis: None,
            mask: None,
            ignore: None,
            cluster: None,
            difficulty: None,
            examples: Some(keys.integer("examples", 1..=10_000)?.map_or(RANDOM_EXAMPLES, |n| n as usize)),
            seed: keys.integer("seed", 0..=i64::MAX as u64)?.unwrap_or(0),
        })
    }
}

/// The keys that go with a scorer of this name.
fn goes_with(name: &str) -> &'static [&'static str] {
    let name = if name.starts_with("top-") { "top-1" } else { name };
    SCORERS.iter().find(|s| s.0 == name).map_or(&OF_PROGRAM, |s| s.1)
}

fn count_of(inputs: usize, key: &str) -> Result<(), SuiteError> {
    match inputs {
        1..=MAX_INPUTS => Ok(()),
        n => Err(SuiteError::new(format!("names {n} inputs"))
            .at(format!("`{key}`"))
            .hint(format!("name each input of the model, 1 to {MAX_INPUTS}: `{key} = {{ NAME = ... }}`"))),
    }
}

fn kind(keys: &Keys) -> Result<Option<ElementKind>, SuiteError> {
    let Some(name) = keys.string("kind")? else { return Ok(None) };
    let names = ElementKind::ALL.map(ElementKind::name);
    ElementKind::parse(&name)
        .map(Some)
        .ok_or_else(|| unknown("kind of numbers", &name, names.iter().copied()).at(keys.place("kind")))
}

fn shape(keys: &Keys) -> Result<Option<Vec<usize>>, SuiteError> {
    let wanted = format!("a list of up to {MAX_AXES} whole numbers of 1 and more, without the axis of examples");
    keys.get("shape", &wanted, |v| {
        let axis = |v: &Value| usize::try_from(v.as_integer()?).ok().filter(|n| (1..=MAX_ELEMENTS).contains(n));
        let axes: Vec<usize> = v.as_array()?.iter().map(axis).collect::<Option<_>>()?;
        let elements = axes.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ELEMENTS);
        (axes.len() <= MAX_AXES && elements.is_some()).then_some(axes)
    })
}

fn inputs(keys: &Keys, folder: &Path) -> Result<Vec<ArrayInput>, SuiteError> {
    let wanted = "a table: `inputs = { NAME = \"FILE:KEY\" }`";
    let table = keys.need("inputs", keys.get("inputs", wanted, |v| v.as_table().cloned())?).map_err(|e| {
        e.hint("say what the model sees: `inputs = { NAME = \"FILE:KEY\" }`, or `random = { NAME = { kind = \"f32\", shape = [8] } }`")
    })?;
    count_of(table.len(), "inputs")?;
    let input = |(name, value): (&String, &Value)| {
        let place = |e: SuiteError| of_input("inputs", name, e);
        let (text, wanted) = match value {
            Value::String(text) => (text.clone(), WantedRows::default()),
            Value::Table(table) => {
                let keys = Keys::of_table(table).only(&["from", "kind", "shape"]).map_err(place)?;
                let from = keys.string("from").and_then(|from| keys.need("from", from)).map_err(place)?;
                (from, WantedRows { kind: kind(&keys).map_err(place)?, shape: shape(&keys).map_err(place)? })
            }
            other => {
                return Err(place(SuiteError::new(format!("found {}", other.type_str())))
                    .hint("write \"FILE:KEY\", or { from = \"FILE:KEY\", kind = \"f32\", shape = [8, 8] }"));
            }
        };
        let source = ArraySource::parse(folder, &text).map_err(place)?;
        Ok(ArrayInput { name: name.clone(), source, wanted })
    };
    table.iter().map(input).collect()
}

/// An error about an input, whose own place stands behind the input's name.
fn of_input(key: &str, name: &str, mut error: SuiteError) -> SuiteError {
    let place = error.place.take().map_or(String::new(), |p| format!(", {p}"));
    error.at(format!("`{key}.{}`{place}", crate::tensors::shown_name(name)))
}

fn random_input(name: &str, value: &Value) -> Result<RandomInput, SuiteError> {
    random_of(name, value).map_err(|e| of_input("random", name, e))
}

fn random_of(name: &str, value: &Value) -> Result<RandomInput, SuiteError> {
    let Value::Table(table) = value else {
        return Err(SuiteError::new(format!("found {}", value.type_str()))
            .hint("write { kind = \"f32\", shape = [3, 224, 224], range = [0, 1] }"));
    };
    let keys = Keys::of_table(table).only(&["kind", "shape", "range"])?;
    let kind = keys.need("kind", kind(&keys)?)?;
    let shape = keys.need("shape", shape(&keys)?)?;
    let range = keys.get("range", "two numbers that `kind` holds, the least and the largest", |v| {
        let number = |v: &Value| v.as_float().or_else(|| v.as_integer().map(|i| i as f64));
        match v.as_array()?.as_slice() {
            [least, most] => Some((number(least)?, number(most)?)),
            _ => None,
        }
    })?;
    RandomInput::new(name, kind, shape, range)
}

fn scorer(keys: &Keys, folder: &Path) -> Result<(Scorer, String), SuiteError> {
    let place = |e: SuiteError| e.at(keys.place("scorer"));
    if keys.get("scorer", "the name of a scorer, or a list: program and arguments", |v| {
        Some(v.is_array()).filter(|is| *is || v.is_str())
    })? == Some(true)
    {
        let command = keys.strings("scorer")?.unwrap_or_default();
        // the program runs in the suite's folder, so a relative path would be looked for within it
        let suite = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let suite = suite.to_string_lossy();
        let command: Vec<String> = command.iter().map(|word| word.replace("{suite}", &suite)).collect();
        let how = match keys.string("read")?.as_deref() {
            None | Some("values") => Read::Values,
            Some("argmax") => Read::Argmax,
            Some("likelihoods") => Read::Likelihoods,
            Some(other) => {
                let known = ["values", "argmax", "likelihoods"];
                return Err(unknown("way to read an output", other, known.into_iter()).at(keys.place("read")));
            }
        };
        let seconds = keys.seconds("scorer_seconds", false)?.unwrap_or(SCORER_SECONDS);
        let shown = command.join(" ");
        let program = ScorerProgram { command, folder: folder.to_owned(), seconds };
        return Ok((Scorer::Program(Arc::new(program), how), shown));
    }
    let name = keys.need("scorer", keys.string("scorer")?).map_err(|e| {
        let names: Vec<&str> = SCORERS.iter().map(|s| s.0).collect();
        e.hint(format!(
            "say how answers are scored: one of {}, or a program: `[\"python3\", \"score.py\"]`",
            names.join(", ")
        ))
    })?;
    let number = |key: &str| {
        keys.get(key, "a finite number", |v| {
            v.as_float().or_else(|| v.as_integer().map(|i| i as f64)).filter(|v| v.is_finite())
        })
    };
    let known = || SCORERS.iter().map(|s| s.0);
    let scorer = match name.as_str() {
        "binary" => Scorer::Binary {
            threshold: number("threshold")?,
            positive: keys.integer("positive", 0..=1_000_000)?.map(|n| n as usize),
        },
        "regression" => {
            let tolerance = number("tolerance")?;
            if tolerance.is_some_and(|t| t < 0.0) {
                return Err(SuiteError::new("is below 0").at(keys.place("tolerance")).hint("write 0 or more"));
            }
            Scorer::Regression { tolerance, means: Vec::new().into() }
        }
        "exact" | "tokens" => Scorer::Exact,
        "edit" => Scorer::Edit(Arc::new(decoding(keys, folder)?)),
        "iou" => Scorer::Overlap { threshold: number("threshold")? },
        other => match other.strip_prefix("top-").and_then(|k| k.parse().ok()) {
            Some(k) if (1..=MAX_K).contains(&k) => Scorer::Top { k },
            Some(_) => {
                return Err(place(
                    SuiteError::new(format!("`{other}` is no scorer"))
                        .hint(format!("`top-K` counts the K highest classes, 1 to {MAX_K}")),
                ));
            }
            None => return Err(place(unknown("scorer", other, known()))),
        },
    };
    Ok((scorer, name))
}

fn decoding(keys: &Keys, folder: &Path) -> Result<Decoding, SuiteError> {
    let ctc = match keys.string("decode")?.as_deref() {
        None => false,
        Some("ctc") => true,
        Some(other) => return Err(unknown("decoding", other, ["ctc"].into_iter()).at(keys.place("decode"))),
    };
    let blank = keys.integer("blank", 0..=u64::from(u32::MAX - 1))?.map(|n| n as u32);
    if blank.is_some() && !ctc {
        return Err(SuiteError::new("goes with `decode = \"ctc\"`").at(keys.place("blank")).hint("leave it out"));
    }
    let alphabet = match keys.string("alphabet")? {
        None => None,
        Some(name) => {
            let path = crate::locate::data_file(folder, &name).map_err(|e| e.at(keys.place("alphabet")))?;
            let text = text::read_text(&path, MAX_ALPHABET).map_err(|e| {
                if e.hint.is_none() {
                    e.hint("name a text file: line n, from 0, is what token n stands for")
                } else {
                    e
                }
            })?;
            Some(
                text.strip_suffix('\n')
                    .unwrap_or(&text)
                    .split('\n')
                    .map(|l| l.trim_end_matches('\r').to_owned())
                    .collect(),
            )
        }
    };
    if alphabet.is_some() && keys.has("ignore") {
        return Err(SuiteError::new("goes without `alphabet`: texts have no token that does not count")
            .at(keys.place("ignore"))
            .hint("leave it out"));
    }
    Ok(Decoding { alphabet, blank: ctc.then(|| blank.unwrap_or(0)) })
}
