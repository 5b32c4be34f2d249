//! What two rules that need no model score under the same two attempts.
//!
//! In: tasks. Out: [`BaselineScore`]s. Must not: see a test output but to compare with it.

use super::grid::Grid;
use super::json::ArcTask;
use super::vote::ATTEMPTS;
use crate::task::BaselineScore;

/// Both rules on these tasks: a task is right if each of its test outputs is among two attempts.
pub fn baselines<'a>(tasks: impl Iterator<Item = &'a ArcTask> + Clone) -> Vec<BaselineScore> {
    let score = |name: &str, attempts: &dyn Fn(&ArcTask, &Grid) -> Vec<Grid>| {
        let right = |t: &&ArcTask| t.tests.iter().all(|test| attempts(t, &test.input).contains(&test.output));
        BaselineScore {
            name: name.to_owned(),
            right: tasks.clone().filter(right).count() as u64,
            of: tasks.clone().count() as u64,
        }
    };
    vec![score("copy the input", &|_, input| vec![input.clone()]), score("best single training-set lookup", &lookup)]
}

/// The outputs of the demonstrations whose inputs are nearest: the two nearest that differ from each other. Of two as
/// near the earlier comes first.
pub fn lookup(task: &ArcTask, input: &Grid) -> Vec<Grid> {
    let mut nearest: Vec<(usize, &Grid)> =
        task.demonstrations.iter().map(|d| (distance(&d.input, input), &d.output)).collect();
    nearest.sort_by_key(|n| n.0);
    let mut attempts: Vec<Grid> = Vec::new();
    for (_, output) in nearest {
        if attempts.len() < ATTEMPTS && !attempts.contains(output) {
            attempts.push(output.clone());
        }
    }
    attempts
}

/// Hamming distance with the top left cells on each other: cells of either grid that the other lacks or has in another
/// colour.
pub fn distance(a: &Grid, b: &Grid) -> usize {
    let (height, width) = (a.height().max(b.height()), a.width().max(b.width()));
    let cells = (0..height).flat_map(|r| (0..width).map(move |c| (r as isize, c as isize)));
    cells.filter(|&(r, c)| a.peek(r, c) != b.peek(r, c)).count()
}
