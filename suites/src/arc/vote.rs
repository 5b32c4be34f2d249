//! ARC's official rule: votes of the rows, two attempts for each output, every output of a task right.
//!
//! In: the answers of a set's examples. Out: one [`Decision`] a question. Must not: look at a right answer before the
//! attempts are chosen.

use std::collections::BTreeMap;

use super::grid::Grid;
use super::tokens::decode;
use super::variant::TaskVariant;
use crate::task::{Decision, Example, ExampleSet, RowAnswer, ScoredAttempt};

/// Attempts that the rule allows for each output.
pub const ATTEMPTS: usize = 2;

/// Answers that agree on a grid. An answer without a grid is a vote too, as in the released TRM, for none.
struct Vote {
    grid: Option<Grid>,
    rows: usize,
    /// Sum over the rows of how sure the halting head was, from 0 to 1.
    sure: f64,
}

/// Decides every question of the set. A grid is what an answer says once its variant is undone; grids are ranked by the
/// number of rows, then by the mean of the halting head's sigmoid (0 without one), then by size and cells, so that no
/// order of rows matters. The attempts at an output are the two that come first.
pub fn decide(set: &ExampleSet, answers: &[RowAnswer]) -> Vec<Decision> {
    // by question and part: answers in the order of the examples, so that sums do not hang on the order of rows
    let mut by_part: BTreeMap<(u64, u32), BTreeMap<usize, &RowAnswer>> = BTreeMap::new();
    for answer in answers {
        if let Some(example) = set.examples.get(answer.example) {
            by_part.entry((example.question, example.part)).or_default().insert(answer.example, answer);
        }
    }
    // cluster and number of parts
    let mut asked: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
    for example in &set.examples {
        let entry = asked.entry(example.question).or_insert((example.cluster, 0));
        entry.1 = entry.1.max(example.part + 1);
    }
    let decision = |(&question, &(cluster, parts)): (&u64, &(u64, u32))| {
        let (mut rows, mut parts_right, mut attempts) = (0, 0, Vec::new());
        for part in 0..parts {
            let Some(answers) = by_part.get(&(question, part)) else { continue };
            rows += answers.len() as u32;
            let made = attempts_at(set, answers, part);
            parts_right += u32::from(made.iter().any(|a| a.right));
            attempts.extend(made);
        }
        let name = usize::try_from(question).ok().and_then(|q| set.questions.get(q)).cloned();
        Decision {
            question,
            name: name.unwrap_or_else(|| question.to_string()),
            cluster,
            rows,
            right: parts_right == parts,
            parts_right,
            parts,
            attempts,
        }
    };
    asked.iter().map(decision).collect()
}

/// The attempts at one output, of which there is at least one answer.
fn attempts_at(set: &ExampleSet, answers: &BTreeMap<usize, &RowAnswer>, part: u32) -> Vec<ScoredAttempt> {
    let mut votes: BTreeMap<Option<Grid>, Vote> = BTreeMap::new();
    for (&example, answer) in answers {
        let example = &set.examples[example];
        let told = answer.answer.tokens();
        let fits = told.len() == example.answer.tokens().len();
        let grid = fits.then(|| original(example, told)).flatten();
        let vote = votes.entry(grid.clone()).or_insert(Vote { grid, rows: 0, sure: 0.0 });
        vote.rows += 1;
        vote.sure += answer.halt_logit.map_or(0.0, sigmoid);
    }
    let mut votes: Vec<Vote> = votes.into_values().collect();
    let mean = |v: &Vote| v.sure / v.rows as f64;
    // a stable sort: what is equal stays in the order of the grids
    votes.sort_by(|a, b| b.rows.cmp(&a.rows).then(mean(b).total_cmp(&mean(a))));
    let truth = answers.keys().next().and_then(|&e| original(&set.examples[e], set.examples[e].answer.tokens()));
    let (all, distinct) = (answers.len(), votes.len());
    let mut attempts: Vec<ScoredAttempt> = (1..)
        .zip(votes.iter().take(ATTEMPTS))
        .map(|(number, vote)| {
            let none = if vote.grid.is_none() { ", no grid" } else { "" };
            let source = format!("vote {number} of {distinct}: {} of {all} rows{none}", vote.rows);
            ScoredAttempt { part, number, source, right: vote.grid.is_some() && vote.grid == truth }
        })
        .collect();
    if distinct == 1 {
        let source =
            if all == 1 { "no second vote: one row".into() } else { format!("no second vote: all {all} rows agree") };
        attempts.push(ScoredAttempt { part, number: 2, source, right: false });
    }
    attempts
}

/// The grid that a canvas of this example stands for, its variant undone.
fn original(example: &Example, canvas: &[u32]) -> Option<Grid> {
    Some(TaskVariant::of_code(example.variant)?.undo(&decode(canvas)?))
}

/// From 0 to 1; 0 for what is no number.
fn sigmoid(logit: f64) -> f64 {
    if logit.is_nan() { 0.0 } else { 1.0 / (1.0 + (-logit).exp()) }
}
