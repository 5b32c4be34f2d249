//! Accuracy on held-out examples, at full depth and under halting, from one run.
//!
//! In: weights, examples. Out: an [`Evaluation`]. Must not: train, or score by itself: the task scores rows and decides questions.

use std::collections::BTreeMap;

use anyhow::Context;
use ergometer_reports::stats::{Estimate, proportion::share};
use ergometer_suites::Answer;
use ergometer_suites::task::{ExampleSet, RowAnswer, Task};

use crate::backends::session::{Rule, Session, argmax};
use crate::backends::{Backend, Options, Routing, candle::Candle};
use crate::graph::Halting;
use crate::models::Model;

const ROWS: usize = 128;

/// Accuracy under one depth rule.
#[derive(Clone, Debug)]
pub struct Accuracy {
    /// Share of rows whose every cell is right.
    pub exact: Estimate,
    /// Share of right cells.
    pub cells: f64,
    /// Mean supervision steps.
    pub steps: f64,
    /// Share of questions that are right under the task's official rule, where it decides them from several rows.
    pub decided: Option<Estimate>,
}

impl Accuracy {
    /// What the task counts: questions where it decides them, else rows.
    pub fn official(&self) -> &Estimate {
        self.decided.as_ref().unwrap_or(&self.exact)
    }
}

/// Accuracy of a net.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// After all steps.
    pub full: Accuracy,
    /// At the first step where the halting head says so; equal to `full` for nets without one.
    pub halting: Accuracy,
    /// How each mixture of experts routed the tokens; empty for nets without one.
    pub routing: Vec<Routing>,
}

/// A row's answer under one depth rule.
#[derive(Clone, Debug, Default)]
struct Row {
    answer: Answer,
    halt_logit: Option<f64>,
    steps: u32,
}

/// Runs the net on all examples.
pub fn evaluate(model: &Model, task: &Task, set: &ExampleSet, threads: usize) -> anyhow::Result<Evaluation> {
    let interface = &model.interface;
    let (feeds, reads) = (interface.feeds()?, interface.reads()?);
    let mut session = Session::new(Candle.load(model, &Options::f32(threads, ROWS))?, interface, ROWS)?;
    let mut full = Vec::with_capacity(set.examples.len());
    let mut halting = Vec::with_capacity(set.examples.len());
    let halts_by = reads.halting.filter(|_| interface.halting != Halting::Never);
    session.engine().watch_routing(true);
    for part in set.examples.chunks(ROWS) {
        let slots: Vec<usize> = (0..part.len()).collect();
        session.retain(&[])?;
        let inputs: Vec<u32> = part.iter().flat_map(|e| e.tokens.iter().copied()).collect();
        let ids: Vec<u32> = part.iter().map(|e| e.puzzle_id).collect();
        session.admit(&slots, &feeds.with(&inputs, &ids))?;
        let mut stopped: Vec<Option<Row>> = vec![None; part.len()];
        for step in 1..=interface.max_steps {
            session.advance(1, Rule::Fixed)?;
            let last = step == interface.max_steps;
            for (slot, stopped) in stopped.iter_mut().enumerate() {
                let halt_logit = halts_by.map(|output| session.output(output, slot)[0]);
                let stops = stopped.is_none() && (last || halt_logit.is_some_and(|q| q > 0.0));
                if !stops && !last {
                    continue;
                }
                let logits = session.output(reads.logits, slot).chunks_exact(reads.vocabulary);
                let answer = Answer::Tokens(logits.map(argmax).collect());
                let row = Row { answer, halt_logit: halt_logit.map(f64::from).filter(|q| q.is_finite()), steps: step };
                if last {
                    full.push(row.clone());
                }
                if stops {
                    *stopped = Some(row);
                }
            }
        }
        halting.extend(stopped.into_iter().flatten());
    }
    let routing = session.engine().routing().unwrap_or_default();
    Ok(Evaluation { full: accuracy(task, set, &full)?, halting: accuracy(task, set, &halting)?, routing })
}

/// Scores one row for every example.
fn accuracy(task: &Task, set: &ExampleSet, rows: &[Row]) -> anyhow::Result<Accuracy> {
    let mut clusters: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let (mut right, mut cells, mut steps) = (0, 0, 0);
    for (example, row) in set.examples.iter().zip(rows) {
        let score = (task.score)(example, &row.answer);
        count(&mut clusters, example.cluster, score.exact);
        right += u64::from(score.right);
        cells += u64::from(score.cells);
        steps += u64::from(row.steps);
    }
    let decided = task.decides(set).map(|decide| -> anyhow::Result<Estimate> {
        let answers = rows.iter().enumerate();
        let answers: Vec<RowAnswer> =
            answers.map(|(example, r)| RowAnswer { example, answer: &r.answer, halt_logit: r.halt_logit }).collect();
        let mut clusters = BTreeMap::new();
        for decision in decide(set, &answers) {
            count(&mut clusters, decision.cluster, decision.right);
        }
        let estimate = estimate(clusters)?;
        Ok(Estimate {
            method: format!("questions: every output right in an allowed attempt; {}", estimate.method),
            ..estimate
        })
    });
    let exact = estimate(clusters)?;
    let n = exact.n as f64;
    let (cells, steps) = (right as f64 / cells.max(1) as f64, steps as f64 / n);
    Ok(Accuracy { exact, cells, steps, decided: decided.transpose()? })
}

fn count(clusters: &mut BTreeMap<u64, (u64, u64)>, cluster: u64, right: bool) {
    let cluster = clusters.entry(cluster).or_default();
    *cluster = (cluster.0 + u64::from(right), cluster.1 + 1);
}

fn estimate(clusters: BTreeMap<u64, (u64, u64)>) -> anyhow::Result<Estimate> {
    let clusters: Vec<(u64, u64)> = clusters.into_values().collect();
    let alone = clusters.iter().all(|c| c.1 == 1);
    share(&clusters, alone).context("nothing is held out")
}

#[cfg(test)]
mod tests {
    use ergometer_suites::task::{Decision, Example, Score};

    use super::*;

    /// Right where any row of the question is.
    fn decide(set: &ExampleSet, answers: &[RowAnswer]) -> Vec<Decision> {
        let right = |q: u64| {
            answers.iter().any(|a| set.examples[a.example].question == q && set.examples[a.example].answer == *a.answer)
        };
        let one = |question| {
            let (name, right) = (String::new(), right(question));
            let (parts_right, attempts) = (right.into(), Vec::new());
            Decision { question, name, cluster: question, rows: 2, right, parts_right, parts: 1, attempts }
        };
        (0..3).map(one).collect()
    }

    #[test]
    fn rows_are_scored_and_questions_decided() {
        let task = Task {
            name: "votes",
            about: "",
            examples: |_, _| Err(ergometer_suites::error::SuiteError::new("not asked for")),
            answers: ergometer_suites::AnswerKind::Tokens,
            score: |example, answer| Score {
                exact: example.answer == *answer,
                right: example.answer.tokens().iter().zip(answer.tokens()).filter(|(a, b)| a == b).count() as u32,
                cells: 2,
            },
            valid: None,
            decide: Some(decide),
            training: None,
            dataset: None,
            readable: None,
            quick: None,
        };
        let example =
            |question| Example { question, answer: vec![1, 2].into(), cluster: question, ..Example::default() };
        let set = ExampleSet {
            examples: [0, 0, 1, 1, 2, 2].map(example).to_vec(),
            vocabulary: 3,
            puzzle_ids: 1,
            numbering: None,
            questions: ["a", "b", "c"].map(String::from).to_vec(),
            baselines: Vec::new(),
            notes: Vec::new(),
            ..ExampleSet::default()
        };
        let row = |answer: [u32; 2]| Row { answer: answer.to_vec().into(), halt_logit: None, steps: 2 };
        // one row right of the first question, none of the second, both of the third
        let rows = [[1, 1], [1, 2], [2, 2], [2, 1], [1, 2], [1, 2]].map(row);
        let found = accuracy(&task, &set, &rows).unwrap();
        assert_eq!((found.exact.value, found.exact.n, found.steps), (0.5, 6, 2.0));
        assert_eq!(found.cells, (1.0 + 2.0 + 1.0 + 0.0 + 2.0 + 2.0) / 12.0);
        let decided = found.decided.clone().unwrap();
        assert_eq!((decided.value, decided.n), (2.0 / 3.0, 3));
        assert_eq!(found.official(), &decided);
        let alone = accuracy(&Task { decide: None, ..task }, &set, &rows).unwrap();
        assert_eq!(alone.official().value, 0.5);
    }
}
