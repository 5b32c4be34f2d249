//! What a worker answers: each answer taken as it is heard, scored, and kept as far as reports need it.
//!
//! In: a warm worker and its task. Out: predictions, or why an answer cannot be one. Must not: hold answers longer than they are needed, or
//! believe a worker about what is right.

use std::collections::{BTreeMap, BTreeSet};

use ergometer_reports::case::{CaseError, ErrorKind, Prediction};
use ergometer_reports::store::MAX_PREDICTIONS;
use ergometer_suites::Answer;
use ergometer_suites::task::AnswerScore;

use super::case::{Running, unexpected};
use super::plan::{PlannedCase, PlannedTask};
use super::process::{Worker, case_error};
use super::scored::ScoredAnswer;
use crate::protocol::{Message, Mode, PredictionRow};

/// What reports need of the answers of a task that decides row by row.
struct Needed {
    /// Whether the answer kept last was right, by example.
    right: Vec<Option<bool>>,
    /// Steps after which some answer was kept.
    depths: BTreeSet<u32>,
}

impl Needed {
    fn new(examples: usize) -> Self {
        Self { right: vec![None; examples], depths: BTreeSet::new() }
    }

    /// Whether an answer is kept (see [`Prediction`]); one that is not of record loses its content.
    fn keep(&mut self, p: &mut ScoredAnswer) -> bool {
        if !p.last {
            p.answer = None;
        }
        let Some(right) = self.right.get_mut(p.example as usize) else { return true };
        let changed = *right != Some(p.exact);
        let kept = self.depths.insert(p.depth) || changed || p.last;
        if kept {
            *right = Some(p.exact);
        }
        kept
    }
}

/// What an answer is judged by.
#[derive(Clone, Copy)]
pub(super) struct RowScorer<'a> {
    planned: &'a PlannedCase,
    task: &'a PlannedTask,
}

impl<'a> RowScorer<'a> {
    /// Of a case.
    pub fn of(running: &Running<'a, '_>) -> Self {
        Self { planned: running.planned, task: running.task }
    }

    /// The tokens that a language model wrote after an example's prompt, where it was asked to.
    fn written(&self, row: &mut PredictionRow) -> Result<Option<Vec<u32>>, CaseError> {
        let Some(language) = self.planned.language.as_ref().filter(|l| (row.example as usize) < l.inputs.len()) else {
            return Ok(None);
        };
        let written = match &row.answer {
            Answer::Tokens(tokens) => tokens.clone(),
            _ => match row.written.take() {
                Some(tokens) => tokens,
                None => return Ok(None),
            },
        };
        let wrong = |why: String| {
            case_error(ErrorKind::WrongOutput, format!("what is written to example {} {why}", row.example))
        };
        language.check_written(row.example as usize, &written).map_err(wrong)?;
        if row.depth as usize != written.len() {
            return Err(wrong(format!("has {} tokens, and claims {} steps", written.len(), row.depth)));
        }
        Ok(Some(written))
    }

    /// The answer scored, if it can be one.
    pub fn score(&self, row: PredictionRow) -> Result<ScoredAnswer, CaseError> {
        let wrong = |m: String| Err(case_error(ErrorKind::WrongOutput, m));
        let Some(example) = self.task.set.examples.get(row.example as usize) else {
            return wrong(format!("an answer to example {}, there are {}", row.example, self.task.set.examples.len()));
        };
        let row = match &self.planned.language {
            Some(language) => match language.answer(row.example as usize, row.answer) {
                Ok(answer) => PredictionRow { answer, ..row },
                Err(why) => return wrong(format!("the answer to example {} {why}", row.example)),
            },
            None => row,
        };
        let fitting = match &self.task.set.scorer {
            Some(scorer) => scorer.fits(&example.answer, &row.answer),
            None => fits(&row.answer, &example.answer, self.task.set.vocabulary),
        };
        if let Err(why) = fitting {
            return wrong(format!("the answer to example {} {why}", row.example));
        }
        let most = self.planned.max_steps;
        if row.depth == 0 || row.depth > most {
            return wrong(format!("the answer to example {} claims {} steps of {most}", row.example, row.depth));
        }
        if let Some(logit) = row.halt_logit.filter(|h| !(*h as f32).is_finite()) {
            return wrong(format!(
                "the answer to example {} has {logit:e} as halting logit, which no number of 32 bits holds",
                row.example
            ));
        }
        if row.last && !self.planned.halt && row.depth != most {
            return wrong(format!(
                "the answer of record to example {} took {} steps, and every row is to take {most}",
                row.example, row.depth
            ));
        }
        let AnswerScore { score, sums } = self.task.task.scored(&self.task.set, example, &row.answer);
        let valid = self.task.task.valid.map(|valid| valid(example, &row.answer));
        Ok(ScoredAnswer {
            example: row.example,
            cluster: example.cluster,
            depth: row.depth,
            last: row.last,
            halt_logit: row.halt_logit,
            answer: Some(row.answer),
            exact: score.exact,
            right: score.right,
            cells: score.cells,
            valid,
            sums,
            difficulty: Some(example.difficulty),
        })
    }
}

/// Why an answer cannot be one to an example whose right answer is `right`, of so many tokens.
fn fits(answer: &Answer, right: &Answer, vocabulary: u32) -> Result<(), String> {
    let finite = |values: &[f64], needed: usize| match values {
        values if values.len() != needed => Err(format!("has {} numbers, {needed} are needed", values.len())),
        values if !values.iter().all(|v| v.is_finite()) => Err("holds what is no number".into()),
        _ => Ok(()),
    };
    match (answer, right) {
        (Answer::Tokens(tokens), Answer::Tokens(right)) if tokens.len() != right.len() => {
            Err(format!("has {} cells, {} are needed", tokens.len(), right.len()))
        }
        (Answer::Tokens(tokens), Answer::Tokens(_)) => match tokens.iter().find(|t| **t >= vocabulary.max(1 << 16)) {
            Some(token) => Err(format!("has the token {token}, and there are {vocabulary} tokens")),
            None => Ok(()),
        },
        (Answer::Class(class), Answer::Class(_)) if *class >= vocabulary => {
            Err(format!("is class {class}, and there are {vocabulary} classes"))
        }
        (Answer::Numbers(values), Answer::Numbers(right))
        | (Answer::Likelihoods(values), Answer::Likelihoods(right)) => finite(values, right.len()),
        (Answer::Class(_), Answer::Class(_)) | (Answer::Text(_), Answer::Text(_)) => Ok(()),
        (answer, right) => {
            Err(format!("is of kind {}, and the task's are {}", answer.kind().name(), right.kind().name()))
        }
    }
}

/// The accuracy pass as far as it has come.
struct Pass<'a> {
    scorer: RowScorer<'a>,
    /// What has been said of each example: after how many steps, and whether that was the answer of record.
    last: Vec<(u32, bool)>,
    /// Questions are decided from every answer; else what reports need of the way to an answer is when it became right or wrong.
    needed: Option<Needed>,
    predictions: Vec<ScoredAnswer>,
    /// Of language models: tokens that were written, by example.
    written: BTreeMap<u64, Vec<u32>>,
}

impl Pass<'_> {
    fn take(&mut self, mut row: PredictionRow) -> Result<(), CaseError> {
        if let Some(tokens) = self.scorer.written(&mut row)? {
            self.written.insert(row.example, tokens);
        }
        let mut scored = self.scorer.score(row)?;
        let (depth, done) = &mut self.last[scored.example as usize];
        if *done || scored.depth <= *depth {
            let message = format!("example {} was answered again after {} steps", scored.example, scored.depth);
            return Err(case_error(ErrorKind::WrongOutput, message));
        }
        (*depth, *done) = (scored.depth, scored.last);
        if self.needed.as_mut().is_none_or(|n| n.keep(&mut scored)) {
            self.predictions.push(scored);
        }
        if self.predictions.len() > MAX_PREDICTIONS {
            let message = format!("more than {MAX_PREDICTIONS} answers, the most that a run folder keeps");
            return Err(case_error(ErrorKind::WrongOutput, message));
        }
        Ok(())
    }
}

impl Running<'_, '_> {
    /// Answers that were given before, for a scorer that could not score them then.
    pub(super) fn answered_before(&mut self, kept: &[Prediction]) -> Result<(), CaseError> {
        let examples = self.task.set.examples.len();
        let mut pass = Pass {
            scorer: RowScorer::of(self),
            last: vec![(0, false); examples],
            needed: None,
            predictions: Vec::new(),
            written: BTreeMap::new(),
        };
        for p in kept.iter().filter(|p| p.last) {
            let answer = Answer::parse(self.task.answers(), &p.answer);
            let answer = answer.map_err(|e| case_error(ErrorKind::WrongOutput, format!("answers kept before: {e}")))?;
            let (example, depth, halt_logit) = (p.example, p.depth, p.halt_logit);
            pass.take(PredictionRow { example, depth, last: true, halt_logit, answer, written: None })?;
        }
        if let Some(example) = pass.last.iter().position(|(_, done)| !done) {
            return Err(case_error(ErrorKind::WrongOutput, format!("example {example} was not answered")));
        }
        self.out.predictions = pass.predictions;
        self.note(
            "its answers were given before its scorer had failed, and were scored when the run was resumed".into(),
        );
        Ok(())
    }

    /// The accuracy pass: every example once, scored here. Gives what a language model wrote, by example.
    pub(super) fn answer(&mut self, worker: &mut Worker) -> Result<BTreeMap<u64, Vec<u32>>, CaseError> {
        worker.send(&self.go(Mode::Answer, 0, 0.0, None))?;
        let examples = self.task.set.examples.len();
        let needed = self.task.task.decides(&self.task.set).is_none().then(|| Needed::new(examples));
        let (predictions, written) = (Vec::new(), BTreeMap::new());
        let mut pass =
            Pass { scorer: RowScorer::of(self), last: vec![(0, false); examples], needed, predictions, written };
        loop {
            match worker.receive(None, &mut || {}, &mut |row| pass.take(row))? {
                Message::Predictions(_) => {}
                Message::Routed(routed) => self.routed(routed.layers)?,
                Message::Unavailable(u) => self.refused(u)?,
                Message::Done(_) => break,
                other => return Err(unexpected("`predictions` or `done`", &other)),
            }
        }
        self.out.predictions.append(&mut pass.predictions);
        self.block += 1;
        if self.planned.key.family == "moe" && self.out.case.routing.is_empty() {
            for metric in ["router_entropy", "expert_load_max"] {
                self.unavailable(metric.into(), "the worker did not say what its routers decided".into());
            }
        }
        match pass.last.iter().position(|(_, done)| !done) {
            Some(example) => Err(case_error(ErrorKind::WrongOutput, format!("example {example} was not answered"))),
            None => Ok(pass.written),
        }
    }
}

#[cfg(test)]
mod tests {
    use ergometer_suites::AnswerKind;

    use super::super::case::Scored;
    use super::*;

    #[test]
    fn answers_of_record_are_read_back_from_a_file() {
        let given = |example, last, answer| ScoredAnswer {
            example,
            cluster: 0,
            depth: 2,
            last,
            halt_logit: None,
            answer,
            exact: true,
            right: 1,
            cells: 1,
            valid: None,
            sums: Vec::new(),
            difficulty: None,
        };
        for answer in [Answer::Tokens(vec![3, 1]), Answer::Class(2), Answer::Numbers(vec![0.25, -1e-9])] {
            let scored =
                [given(0, false, None), given(0, true, Some(answer.clone())), given(1, true, Some(answer.clone()))];
            let rows: Vec<Prediction> = scored.iter().map(ScoredAnswer::prediction).collect();
            let read = Scored::read("id", answer.kind(), &rows).unwrap();
            let known = Scored::of("id", &scored);
            assert_eq!((&read.answers, &read.steps), (&known.answers, &known.steps));
            assert_eq!((read.answers.len(), &read.answers[&1]), (2, &answer));
        }
        let damaged = Prediction { answer: "1 x".into(), ..given(4, true, None).prediction() };
        let said = format!("{:#}", Scored::read("id", AnswerKind::Tokens, &[damaged]).err().expect("refused"));
        assert!(said.contains("example 4") && said.contains("`1 x`") && said.contains("hint: "), "{said}");
    }

    #[test]
    fn an_answer_that_cannot_be_one_is_told_why() {
        let tokens = |n: usize| Answer::Tokens(vec![1; n]);
        let numbers = |v: &[f64]| Answer::Numbers(v.to_vec());
        for (answer, right, word) in [
            (tokens(2), tokens(3), "has 2 cells, 3 are needed"),
            (Answer::Tokens(vec![70_000]), tokens(1), "has the token 70000, and there are 5 tokens"),
            (Answer::Class(5), Answer::Class(0), "is class 5, and there are 5 classes"),
            (tokens(1), Answer::Class(0), "is of kind tokens, and the task's are class"),
            (Answer::Text(String::new()), tokens(0), "is of kind text, and the task's are tokens"),
            (numbers(&[1.0]), numbers(&[1.0, 2.0]), "has 1 numbers, 2 are needed"),
            (numbers(&[f64::NAN]), numbers(&[1.0]), "holds what is no number"),
            (Answer::Likelihoods(vec![f64::NEG_INFINITY]), Answer::Likelihoods(vec![0.0]), "holds what is no number"),
        ] {
            assert_eq!(fits(&answer, &right, 5), Err(word.to_owned()));
        }
        for same in
            [tokens(3), Answer::Class(4), Answer::Text("a".into()), numbers(&[1.0]), Answer::Likelihoods(vec![-1.0])]
        {
            assert_eq!(fits(&same, &same, 5), Ok(()));
        }
    }

    #[test]
    fn answers_on_the_way_are_kept_where_they_turn_right_or_wrong() {
        let mut needed = Needed::new(2);
        let mut kept = Vec::new();
        // example, steps, of record, right
        for (example, depth, last, exact) in [
            (0, 1, false, false),
            (0, 2, false, false),
            (0, 3, false, true),
            (0, 4, true, true),
            (1, 1, false, false),
            (1, 2, false, false),
            (1, 3, false, false),
            (1, 4, false, true),
            (1, 5, true, false),
        ] {
            let answer = Some(Answer::Tokens(vec![1, 2]));
            let mut p = ScoredAnswer {
                example,
                cluster: 0,
                depth,
                last,
                halt_logit: None,
                answer,
                exact,
                right: 0,
                cells: 2,
                valid: None,
                sums: Vec::new(),
                difficulty: None,
            };
            if needed.keep(&mut p) {
                assert_eq!(p.prediction().answer, if last { "1 2" } else { "" });
                kept.push((example, depth));
            }
        }
        // the first after so many steps stays too (0 after 2), so that no depth is missing from a plot
        assert_eq!(kept, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 4), (1, 5)]);
    }
}
