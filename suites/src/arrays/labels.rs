//! The right answers of a task of arrays.
//!
//! In: the source of labels, a mask, the scorer. Out: an [`Answer`] for each example. Must not: take a label that is out
//! of range, or one of another shape than the others.

use super::elements::{numbers, wholes};
use super::parameters::ArrayParameters;
use super::scorer::{IGNORED, Scorer};
use super::source::{ArraySource, WantedRows};
use crate::answer::Answer;
use crate::array::{Array, ElementKind};
use crate::error::SuiteError;

/// Most cells of one label: an answer is a line of a file.
const MAX_CELLS: usize = 1 << 17;

/// What is right.
pub struct ArrayLabels {
    /// Of each example.
    pub answers: Vec<Answer>,
    /// With what it learned from the labels.
    pub scorer: Scorer,
    /// Classes, as said or as labels have; 0: no answer has a class.
    pub vocabulary: u32,
}

/// Reads the labels of the chosen rows.
///
/// # Errors
/// What cannot be read, is out of range, of another shape, or leaves nothing to score.
pub fn read(parameters: &ArrayParameters, chosen: &[usize]) -> Result<ArrayLabels, SuiteError> {
    let scorer = parameters.scorer.clone();
    let Some(source) = &parameters.labels else {
        let answers = vec![Answer::Text(String::new()); chosen.len()];
        return Ok(ArrayLabels { answers, scorer, vocabulary: 0 });
    };
    let made = match &scorer {
        Scorer::Top { .. } | Scorer::Binary { .. } => classes(parameters, source, chosen),
        Scorer::Regression { tolerance, .. } => {
            let answers = all_numbers(source, chosen)?;
            let means = means(&answers);
            let scorer = Scorer::Regression { tolerance: *tolerance, means: means.into() };
            return Ok(ArrayLabels {
                answers: answers.into_iter().map(Answer::Numbers).collect(),
                scorer,
                vocabulary: 0,
            });
        }
        Scorer::Edit(decoding) if decoding.alphabet.is_some() => {
            Ok((source.texts(chosen)?.into_iter().map(Answer::Text).collect(), 0))
        }
        Scorer::Program(..) => match source.stored()? {
            None => Ok((source.texts(chosen)?.into_iter().map(Answer::Text).collect(), 0)),
            Some(_) => Ok((all_numbers(source, chosen)?.into_iter().map(Answer::Numbers).collect(), 0)),
        },
        _ => tokens(parameters, source, chosen),
    };
    let (answers, vocabulary) = made.map_err(|e| e.at("`labels`"))?;
    Ok(ArrayLabels { answers, scorer, vocabulary })
}

fn wrong(source: &ArraySource, message: String) -> SuiteError {
    SuiteError::new(message).in_file(&source.path).at(format!("`labels = {:?}`", source.shown()))
}

/// One class a row.
fn classes(
    parameters: &ArrayParameters,
    source: &ArraySource,
    chosen: &[usize],
) -> Result<(Vec<Answer>, u32), SuiteError> {
    let most = if matches!(parameters.scorer, Scorer::Binary { .. }) { Some(2) } else { parameters.classes };
    let wanted = WantedRows { kind: Some(ElementKind::I64), shape: None };
    let mut largest = 0;
    let mut answers = Vec::new();
    for (row, array) in chosen.iter().zip(source.arrays(chosen, &wanted)?) {
        let [label] = wholes(&array)[..] else {
            return Err(wrong(source, format!("row {row} has the shape {:?}, and a label is one class", array.shape))
                .hint("name an array of one axis, or a column; of one-hot labels save their argmax"));
        };
        let class = class(source, *row, label, most)?;
        largest = largest.max(class);
        answers.push(Answer::Class(class));
    }
    Ok((answers, most.unwrap_or(largest + 1)))
}

fn class(source: &ArraySource, row: usize, label: i64, most: Option<u32>) -> Result<u32, SuiteError> {
    let found = u32::try_from(label).ok().filter(|c| *c < most.unwrap_or(IGNORED));
    found.ok_or_else(|| {
        let range = most.map_or("0 and more".to_owned(), |n| format!("0 to {}", n - 1));
        wrong(source, format!("row {row} has the label {label}, and classes are {range}")).hint(
            "labels count classes from 0; `classes` says how many there are, `ignore` which label asks for nothing",
        )
    })
}

/// Numbers, as many in every row.
fn all_numbers(source: &ArraySource, chosen: &[usize]) -> Result<Vec<Vec<f64>>, SuiteError> {
    let wanted = WantedRows { kind: Some(ElementKind::F64), shape: None };
    let rows: Vec<Vec<f64>> = source.arrays(chosen, &wanted)?.iter().map(numbers).collect();
    let first = rows.first().map_or(0, Vec::len);
    match rows.iter().position(|r| r.len() != first) {
        None => Ok(rows),
        Some(at) => {
            Err(wrong(source, format!("row {} has {} numbers, and the first one {first}", chosen[at], rows[at].len()))
                .hint("every label has as many numbers as the output"))
        }
    }
}

fn means(rows: &[Vec<f64>]) -> Vec<f64> {
    let columns = rows.first().map_or(0, Vec::len);
    (0..columns).map(|c| rows.iter().map(|r| r[c]).sum::<f64>() / rows.len() as f64).collect()
}

/// A class, or a row of tokens of which those that are ignored or masked ask for nothing.
fn tokens(
    parameters: &ArrayParameters,
    source: &ArraySource,
    chosen: &[usize],
) -> Result<(Vec<Answer>, u32), SuiteError> {
    let wanted = WantedRows { kind: Some(ElementKind::I64), shape: None };
    let labels = source.arrays(chosen, &wanted)?;
    let masks = match &parameters.mask {
        None => None,
        Some(mask) => Some((mask, mask.arrays(chosen, &wanted)?)),
    };
    let binary = matches!(parameters.scorer, Scorer::Overlap { threshold: Some(_) });
    let most = if binary { Some(2) } else { parameters.classes };
    let mut largest = 0;
    let mut answers = Vec::new();
    for (i, (row, array)) in chosen.iter().zip(&labels).enumerate() {
        let cells = wholes(array);
        if cells.len() > MAX_CELLS {
            return Err(wrong(source, format!("row {row} has {} cells, {MAX_CELLS} are the most", cells.len()))
                .hint("score smaller pieces"));
        }
        let counts = counts(masks.as_ref().map(|(source, masks)| (*source, &masks[i])), array, *row)?;
        let mut tokens = Vec::with_capacity(cells.len());
        for (label, counts) in cells.iter().zip(counts) {
            if !counts || parameters.ignore == Some(*label) {
                tokens.push(IGNORED);
                continue;
            }
            let class = class(source, *row, *label, most)?;
            largest = largest.max(class);
            tokens.push(class);
        }
        let edit = matches!(parameters.scorer, Scorer::Edit(_));
        if tokens.iter().all(|t| *t == IGNORED) && !edit {
            return Err(wrong(source, format!("row {row} asks for nothing: all of its cells are masked or ignored"))
                .hint("leave the row out"));
        }
        answers.push(match (&array.shape[..], &tokens[..]) {
            ([], [one]) if !edit => Answer::Class(*one),
            _ => Answer::Tokens(tokens),
        });
    }
    Ok((answers, most.unwrap_or(largest + 1)))
}

/// Which cells of a label count.
fn counts(mask: Option<(&ArraySource, &Array)>, label: &Array, row: usize) -> Result<Vec<bool>, SuiteError> {
    let Some((source, mask)) = mask else { return Ok(vec![true; label.elements()]) };
    if mask.shape != label.shape {
        let message = format!("row {row} has the shape {:?}, and its label {:?}", mask.shape, label.shape);
        return Err(SuiteError::new(message)
            .in_file(&source.path)
            .at("`mask`")
            .hint("a mask has a cell for each of the label's"));
    }
    Ok(wholes(mask).into_iter().map(|v| v != 0).collect())
}
