//! Attempts at the questions of a case, where its task decides questions from the answers of several rows.
//!
//! In: the task, its examples, the scored answers of a case. Out: [`Attempt`]s for every depth. Must not: know how a task decides, or look
//! at an answer that a row had not given yet.
//!
//! They become `attempts.csv`. `case.json` has the number of questions, and a folder whose attempts decide another
//! number is refused.

use ergometer_reports::case::{Attempt, CaseError, ErrorKind};
use ergometer_reports::store::MAX_ROWS;
use ergometer_suites::Answer;
use ergometer_suites::task::{Decide, Decision, ExampleSet, RowAnswer};

use super::process::case_error;
use super::scored::ScoredAnswer;

/// Decides after every depth, each row with its answer at that depth, or its last one if it stopped earlier. At the largest depth every row
/// has its answer of record: those attempts are the ones of record. A depth at which some row has no answer yet has no attempts.
pub(super) fn attempts(
    decide: Decide,
    set: &ExampleSet,
    predictions: &[ScoredAnswer],
) -> Result<Vec<Attempt>, CaseError> {
    let given = predictions.iter().map(|p| {
        let lost = || case_error(ErrorKind::WrongOutput, format!("the answer to example {} was not kept", p.example));
        p.answer.as_ref().ok_or_else(lost)
    });
    let given = given.collect::<Result<Vec<&Answer>, _>>()?;
    let mut order: Vec<usize> = (0..predictions.len()).collect();
    order.sort_by_key(|&i| predictions[i].depth);
    let most = order.last().map_or(0, |&i| predictions[i].depth);
    let mut order = order.into_iter().peekable();
    // index of the latest answer of each example
    let mut latest: Vec<Option<usize>> = vec![None; set.examples.len()];
    let mut attempts = Vec::new();
    for depth in 1..=most {
        while let Some(i) = order.next_if(|&i| predictions[i].depth <= depth) {
            if let Some(latest) = latest.get_mut(predictions[i].example as usize) {
                *latest = Some(i);
            }
        }
        let answer = |(example, &i): (usize, &Option<usize>)| {
            let i = i?;
            Some(RowAnswer { example, answer: given[i], halt_logit: predictions[i].halt_logit })
        };
        let Some(answers) = latest.iter().enumerate().map(answer).collect::<Option<Vec<RowAnswer>>>() else { continue };
        for decision in decide(set, &answers) {
            attempts.extend(rows(decision, depth, depth == most));
        }
        if attempts.len() > MAX_ROWS {
            let message = format!("more than {MAX_ROWS} attempts at questions, the most that a run folder keeps");
            return Err(case_error(ErrorKind::WrongOutput, message));
        }
    }
    Ok(attempts)
}

/// The rows of one question; an output without an attempt has one too, so that it is counted.
fn rows(decision: Decision, depth: u32, last: bool) -> Vec<Attempt> {
    let Decision { question, name, cluster, rows, parts, attempts, .. } = decision;
    let row = |part, attempt, source: String, right| Attempt {
        question,
        name: name.clone(),
        cluster,
        depth,
        last,
        part,
        attempt,
        source,
        right,
        rows,
    };
    let without = (0..parts).filter(|part| attempts.iter().all(|a| a.part != *part));
    let mut found: Vec<Attempt> = without.map(|part| row(part, 0, "no row gave an answer".into(), false)).collect();
    found.extend(attempts.iter().map(|a| row(a.part, a.number, a.source.clone(), a.right)));
    found.sort_by_key(|a| (a.part, a.attempt));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use ergometer_suites::task::{self, Example};

    /// Two questions of two rows each; an answer is one token, 9 is no answer. The attempts are the answers in order, one of each kind.
    fn decide(set: &ExampleSet, answers: &[RowAnswer]) -> Vec<Decision> {
        (0..2)
            .map(|question| {
                let of = answers.iter().filter(|a| set.examples[a.example].question == question);
                let mut seen: Vec<u32> = of.clone().map(|a| a.answer.tokens()[0]).filter(|t| *t != 9).collect();
                seen.dedup();
                let attempts: Vec<task::ScoredAttempt> = (1..)
                    .zip(&seen)
                    .map(|(number, t)| {
                        let source = format!("row {number}");
                        task::ScoredAttempt { part: 0, number, source, right: u64::from(*t) == question }
                    })
                    .collect();
                let right = attempts.iter().any(|a| a.right);
                Decision {
                    question,
                    name: format!("q{question}"),
                    cluster: 7,
                    rows: of.count() as u32,
                    right,
                    parts_right: right.into(),
                    parts: 1,
                    attempts,
                }
            })
            .collect()
    }

    fn prediction(example: u64, depth: u32, last: bool, token: u32) -> ScoredAnswer {
        let answer = Some(Answer::Tokens(vec![token]));
        let (exact, right, cells) = (false, 0, 1);
        ScoredAnswer {
            example,
            cluster: 0,
            depth,
            last,
            halt_logit: None,
            answer,
            exact,
            right,
            cells,
            valid: None,
            sums: Vec::new(),
            difficulty: None,
        }
    }

    #[test]
    fn every_depth_is_decided_from_the_latest_answer_of_each_row() {
        let example = |question| Example { question, ..Example::default() };
        let set = ExampleSet {
            examples: [0, 0, 1, 1].map(example).to_vec(),
            vocabulary: 10,
            puzzle_ids: 1,
            numbering: None,
            questions: vec!["q0".into(), "q1".into()],
            baselines: Vec::new(),
            notes: Vec::new(),
            ..ExampleSet::default()
        };
        let predictions = [
            prediction(0, 1, true, 5),
            prediction(1, 1, false, 5),
            prediction(1, 2, true, 0),
            prediction(2, 1, false, 9),
            prediction(3, 1, false, 9),
            prediction(2, 2, false, 3),
            prediction(3, 2, true, 1),
            prediction(2, 3, true, 1),
        ];
        let attempts = attempts(decide, &set, &predictions).unwrap();
        let told: Vec<_> =
            attempts.iter().map(|a| (a.depth, a.last, a.question, a.attempt, a.right, a.source.as_str())).collect();
        let want = [
            (1, false, 0, 1, false, "row 1"),
            (1, false, 1, 0, false, "no row gave an answer"),
            (2, false, 0, 1, false, "row 1"),
            // row 0 stopped after one step and keeps its answer
            (2, false, 0, 2, true, "row 2"),
            (2, false, 1, 1, false, "row 1"),
            (2, false, 1, 2, true, "row 2"),
            (3, true, 0, 1, false, "row 1"),
            (3, true, 0, 2, true, "row 2"),
            (3, true, 1, 1, true, "row 1"),
        ];
        assert_eq!(told, want);
        assert!(attempts.iter().all(|a| a.rows == 2 && a.cluster == 7 && a.part == 0));
        // a program that tells only its last answers
        let last: Vec<ScoredAnswer> = predictions.iter().filter(|p| p.last).cloned().collect();
        let depths: Vec<u32> = super::attempts(decide, &set, &last).unwrap().iter().map(|a| a.depth).collect();
        assert_eq!(depths, [3, 3, 3]);
        let lost = ScoredAnswer { answer: None, ..prediction(0, 1, true, 5) };
        assert!(super::attempts(decide, &set, &[lost]).unwrap_err().message.contains("was not kept"));
        assert!(super::attempts(decide, &set, &[]).unwrap().is_empty());
    }
}
