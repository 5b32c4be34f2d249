//! Questions that a task decides from several rows: what became of each, from the attempts at its outputs.
//!
//! In: [`Attempt`]s of one depth. Out: [`Question`]s, shares of them, and where the right attempts came from. Must not:
//! decide anything again; the task did, when its rows were scored.

use std::collections::BTreeMap;

use crate::{
    case::Attempt,
    stats::{Estimate, proportion::share},
};

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// Its name.
    pub name: &'a str,
    /// Questions of one cluster are not independent.
    pub cluster: u64,
    /// Rows that were answered for it.
    pub rows: u64,
    /// For each output the number of the first right attempt, if there is one.
    pub outputs: Vec<Option<u32>>,
}

impl Question<'_> {
    /// Every output is right in one of its first `attempts` attempts.
    pub fn right_within(&self, attempts: u32) -> bool {
        self.outputs.iter().all(|first| first.is_some_and(|number| number <= attempts))
    }

    /// Every output is right in one of the attempts: the official rule.
    pub fn right(&self) -> bool {
        self.right_within(u32::MAX)
    }
}

/// The attempts of record.
pub fn of_record(attempts: &[Attempt]) -> impl Iterator<Item = &Attempt> + Clone {
    attempts.iter().filter(|a| a.last)
}

/// Questions by number, of attempts of one depth.
pub fn questions<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> Vec<Question<'a>> {
    let mut found: BTreeMap<u64, (Question, BTreeMap<u32, Option<u32>>)> = BTreeMap::new();
    for a in attempts {
        let start = || {
            let outputs = Vec::new();
            (Question { name: &a.name, cluster: a.cluster, rows: a.rows.into(), outputs }, BTreeMap::new())
        };
        let first = found.entry(a.question).or_insert_with(start).1.entry(a.part).or_default();
        if a.right {
            *first = Some(first.map_or(a.attempt, |f| f.min(a.attempt)));
        }
    }
    found.into_values().map(|(q, outputs)| Question { outputs: outputs.into_values().collect(), ..q }).collect()
}

/// Most attempts that an output got.
pub fn most_attempts<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> u32 {
    attempts.into_iter().map(|a| a.attempt).max().unwrap_or(0)
}

/// Share of questions that are right under the official rule; `most` is [`most_attempts`].
pub fn share_of_questions(questions: &[Question], most: u32) -> Option<Estimate> {
    let items = questions.iter().map(|q| (q.cluster, u64::from(q.right()), 1));
    let allowed = match most {
        // no second one was made: how many the rule allows cannot be seen
        0 | 1 => "allowed attempts".to_owned(),
        2 => "two attempts".to_owned(),
        n => format!("{n} attempts"),
    };
    clustered(items, &format!("{allowed}, every output right, per task"))
}

/// Share of outputs that are right in one of their attempts, whatever the other outputs of their question are.
pub fn share_of_outputs(questions: &[Question]) -> Option<Estimate> {
    let items = questions.iter().map(|q| {
        let right = q.outputs.iter().filter(|o| o.is_some()).count();
        (q.cluster, right as u64, q.outputs.len() as u64)
    });
    clustered(items, "outputs right in one of their attempts")
}

/// Mean number of rows that were answered for a question, by which the cost of a row becomes that of a question.
pub fn rows_per_question(questions: &[Question]) -> Option<f64> {
    let rows: u64 = questions.iter().map(|q| q.rows).sum();
    (!questions.is_empty()).then(|| rows as f64 / questions.len() as f64)
}

/// Items are cluster, right, of so many.
fn clustered(items: impl Iterator<Item = (u64, u64, u64)>, what: &str) -> Option<Estimate> {
    let mut clusters: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (cluster, right, of) in items {
        let cluster = clusters.entry(cluster).or_default();
        *cluster = (cluster.0 + right, cluster.1 + of);
    }
    let alone = clusters.values().all(|c| c.1 == 1);
    let clusters: Vec<(u64, u64)> = clusters.into_values().collect();
    let estimate = share(&clusters, alone)?;
    Some(Estimate { method: format!("{what}; {}", estimate.method), ..estimate })
}

/// Where right questions came from: how many needed which attempt, and what the later attempts were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Questions.
    pub questions: u64,
    /// `solved[i]`: questions that are right within `i + 1` attempts and not within fewer.
    pub solved: Vec<u64>,
    /// By attempt number from 2 on and kind of source: attempts, and how many of them are right where no earlier one
    /// is.
    pub later: Vec<(u32, String, u64, u64)>,
    /// Outputs.
    pub outputs: u64,
}

/// Sources of the attempts of record.
pub fn sources(attempts: &[Attempt]) -> Sources {
    let asked = questions(of_record(attempts));
    let most = most_attempts(of_record(attempts));
    let within = |n: u32| asked.iter().filter(|q| q.right_within(n)).count() as u64;
    let solved = (1..=most).map(|n| within(n) - within(n - 1)).collect();
    let mut earlier: BTreeMap<(u64, u32), u32> = BTreeMap::new();
    for a in of_record(attempts).filter(|a| a.right) {
        let first = earlier.entry((a.question, a.part)).or_insert(a.attempt);
        *first = a.attempt.min(*first);
    }
    let mut later: BTreeMap<(u32, String), (u64, u64)> = BTreeMap::new();
    for a in of_record(attempts).filter(|a| a.attempt > 1) {
        let counts = later.entry((a.attempt, kind(&a.source))).or_default();
        let new = a.right && earlier.get(&(a.question, a.part)) == Some(&a.attempt);
        *counts = (counts.0 + 1, counts.1 + u64::from(new));
    }
    let later = later.into_iter().map(|((number, kind), (n, right))| (number, kind, n, right)).collect();
    let outputs = asked.iter().map(|q| q.outputs.len() as u64).sum();
    Sources { questions: asked.len() as u64, solved, later, outputs }
}

/// The source without the figures of one question: `vote 2 of 3: 5 of 8 rows` is a `vote 2`.
fn kind(source: &str) -> String {
    let end = source.find(" of ").into_iter().chain(source.find(':')).min().unwrap_or(source.len());
    let kind: String = source[..end].trim().chars().take(60).collect();
    if kind.is_empty() { "source not told".into() } else { kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(question: u64, part: u32, attempt: u32, right: bool, source: &str) -> Attempt {
        let (name, source) = (format!("task {question}"), source.into());
        Attempt { question, name, cluster: question, depth: 3, last: true, part, attempt, source, right, rows: 8 }
    }

    /// Four questions, the second of two outputs: right at once, half right, right by a second attempt, without an
    /// answer.
    fn four() -> Vec<Attempt> {
        vec![
            attempt(0, 0, 1, true, "vote 1 of 2: 6 of 8 rows"),
            attempt(0, 0, 2, false, "vote 2 of 2: 2 of 8 rows"),
            attempt(1, 0, 1, true, "vote 1 of 1: 4 of 4 rows"),
            attempt(1, 1, 1, false, "vote 1 of 3: 2 of 4 rows"),
            attempt(1, 1, 2, false, "vote 2 of 3: 1 of 4 rows"),
            attempt(2, 0, 1, false, "vote 1 of 2: 7 of 8 rows"),
            attempt(2, 0, 2, true, "vote 2 of 2: 1 of 8 rows"),
            attempt(3, 0, 0, false, "no valid answer"),
        ]
    }

    #[test]
    fn a_question_needs_every_output() {
        let attempts = four();
        let asked = questions(&attempts);
        assert_eq!(asked.iter().map(Question::right).collect::<Vec<_>>(), [true, false, true, false]);
        assert_eq!(asked[1].outputs, [Some(1), None]);
        let share = share_of_questions(&asked, most_attempts(&attempts)).unwrap();
        assert_eq!((share.value, share.n), (0.5, 4));
        assert!(share.method.starts_with("two attempts, every output right, per task; share; Wilson"), "{share:?}");
        let outputs = share_of_outputs(&asked).unwrap();
        assert_eq!((outputs.value, outputs.n), (0.6, 5));
        assert!(outputs.method.contains("effective sample size between 4 clusters"), "{outputs:?}");
        assert_eq!(rows_per_question(&asked), Some(8.0));
        assert!(share_of_questions(&[], 0).is_none() && rows_per_question(&[]).is_none());
    }

    #[test]
    fn sources_tell_what_the_second_attempt_was_good_for() {
        let found = sources(&four());
        assert_eq!((found.questions, found.outputs, found.solved), (4, 5, vec![1, 1]));
        assert_eq!(found.later, [(2, "vote 2".to_owned(), 3, 1)]);
        assert_eq!(kind("sample of the rows"), "sample");
        assert_eq!(kind(": x"), "source not told");
    }

    #[test]
    fn questions_of_one_cluster_are_not_independent() {
        let together = |same: bool| {
            let mut attempts: Vec<Attempt> = (0..20).map(|q| attempt(q, 0, 1, q < 10, "vote")).collect();
            attempts.iter_mut().for_each(|a| a.cluster = if same { a.question / 5 } else { a.question });
            let estimate = share_of_questions(&questions(&attempts), 1).unwrap();
            assert_eq!(estimate.n, 20);
            estimate.interval.map(|(lower, upper)| upper - lower).unwrap()
        };
        assert!(together(true) > 1.5 * together(false));
    }
}
