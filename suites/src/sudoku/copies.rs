//! Several symmetric copies of a puzzle as one question: a model answers each, the answers are mapped back, and the one
//! that is a sound board is handed in. Breadth at test time, as depth is the number of steps.
//!
//! In: puzzles and a number of copies; answers. Out: examples, [`Decision`]s. Must not: look at the solution when it
//! chooses an answer.
//!
//! A puzzle has one solution, so a board that keeps the clues and the rules is right, and whoever answers can check
//! that: a question is right when any of its copies is. It is no vote, and is called `any of N copies`.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::Puzzle;
use super::board::{Size, is_solved};
use super::symmetry::Symmetry;
use crate::task::{Decision, Example, ExampleSet, RowAnswer, ScoredAttempt};

/// Most copies of a puzzle.
pub(super) const MAX_COPIES: u64 = 64;

/// The copies of a puzzle, the puzzle itself first, as examples of the question of this number and cluster.
pub(super) fn copies(puzzle: &Puzzle, question: u64, cluster: u64, copies: u32) -> impl Iterator<Item = Example> + '_ {
    (0..copies).map(move |variant| {
        let copy = symmetry(puzzle.size, variant).map_or_else(|| puzzle.clone(), |s| s.apply(puzzle));
        Example { question, variant, cluster, ..copy.example() }
    })
}

/// The symmetry of a variant; the same for every puzzle, so that the number alone tells it. `None`: the puzzle as it is.
fn symmetry(size: Size, variant: u32) -> Option<Symmetry> {
    (variant > 0).then(|| Symmetry::random(size, &mut ChaCha8Rng::seed_from_u64(u64::from(variant))))
}

/// One answer to a puzzle and who gave it.
#[derive(Default)]
struct Ballot {
    rows: u32,
    /// Solved, and true to the clues: whoever answers can see that.
    sound: bool,
}

/// One attempt at each puzzle: the answer that is a sound board and keeps the clues; where none is, the one that most
/// copies gave.
pub(super) fn decide(set: &ExampleSet, answers: &[RowAnswer]) -> Vec<Decision> {
    let mut by_question: BTreeMap<u64, BTreeMap<usize, &RowAnswer>> = BTreeMap::new();
    for answer in answers {
        if let Some(example) = set.examples.get(answer.example) {
            by_question.entry(example.question).or_default().insert(answer.example, answer);
        }
    }
    by_question.into_iter().map(|(question, rows)| decision(set, question, &rows)).collect()
}

fn decision(set: &ExampleSet, question: u64, rows: &BTreeMap<usize, &RowAnswer>) -> Decision {
    let mut ballots: BTreeMap<Option<Vec<u8>>, Ballot> = BTreeMap::new();
    let (mut cluster, mut truth) = (0, None);
    for (&example, row) in rows {
        let example = &set.examples[example];
        let Some(size) = Size::from_cells(example.tokens.len()) else { continue };
        let digits = |tokens: &[u32]| -> Option<Vec<u8>> {
            let digit = |t: &u32| u8::try_from(*t).ok()?.checked_sub(1).filter(|d| usize::from(*d) <= size.side());
            tokens.iter().map(digit).collect()
        };
        let symmetry = symmetry(size, example.variant);
        let back = |tokens: &[u32]| {
            let grid = digits(tokens).filter(|g| g.len() == size.cells())?;
            match &symmetry {
                Some(symmetry) => symmetry.undo(&grid),
                None => Some(grid),
            }
        };
        cluster = example.cluster;
        truth = truth.or_else(|| back(example.answer.tokens()));
        let board = back(row.answer.tokens());
        let clues = back(&example.tokens);
        let sound = board.as_ref().zip(clues.as_ref()).is_some_and(|(board, clues)| {
            is_solved(size, board) && clues.iter().zip(board).all(|(c, d)| *c == 0 || c == d)
        });
        let ballot = ballots.entry(board).or_default();
        ballot.rows += 1;
        ballot.sound |= sound;
    }
    let rank = |board: &Option<Vec<u8>>, ballot: &Ballot| (ballot.sound, board.is_some(), ballot.rows);
    let distinct = ballots.len();
    // of equal ones the first in the order of the boards
    let chosen = ballots.iter().rev().max_by_key(|(board, ballot)| rank(board, ballot));
    let attempts: Vec<ScoredAttempt> = chosen
        .map(|(board, ballot)| {
            let of = format!("{} of {} copies, {distinct} answers", ballot.rows, rows.len());
            let source = match (board.is_some(), ballot.sound) {
                (_, true) => format!("sound: {of}"),
                (true, false) => format!("none is sound, the commonest: {of}"),
                (false, _) => format!("no board: {of}"),
            };
            ScoredAttempt { part: 0, number: 1, source, right: board.is_some() && *board == truth }
        })
        .into_iter()
        .collect();
    let right = attempts.iter().any(|a| a.right);
    let name = usize::try_from(question).ok().and_then(|q| set.questions.get(q)).cloned();
    Decision {
        question,
        name: name.unwrap_or_else(|| question.to_string()),
        cluster,
        rows: rows.len() as u32,
        right,
        parts_right: right.into(),
        parts: 1,
        attempts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Answer;
    use crate::sudoku::{Generator, PuzzleOptions};

    fn puzzles(n: usize) -> Vec<Puzzle> {
        let mut generator = Generator::new(Size::Nine, 3, PuzzleOptions::default()).unwrap();
        (0..n).map(|_| generator.next_puzzle().unwrap()).collect()
    }

    fn set(puzzles: &[Puzzle], n: u32) -> ExampleSet {
        let examples = (0..).zip(puzzles).flat_map(|(q, p)| copies(p, q, 9, n)).collect();
        let questions = (0..puzzles.len()).map(|q| format!("puzzle {q}")).collect();
        ExampleSet { questions, ..super::super::set(Size::Nine, &[], Vec::new(), false) }.with(examples)
    }

    impl ExampleSet {
        fn with(mut self, examples: Vec<Example>) -> Self {
            self.examples = examples;
            self
        }
    }

    /// Decides with answers that `of` makes of the right one, by row.
    fn decided(set: &ExampleSet, of: impl Fn(usize, Vec<u32>) -> Vec<u32>) -> Vec<Decision> {
        let answers: Vec<Answer> =
            (0..).zip(&set.examples).map(|(i, e)| of(i, e.answer.tokens().to_vec()).into()).collect();
        let rows: Vec<RowAnswer> =
            (0..).zip(&answers).map(|(example, answer)| RowAnswer { example, answer, halt_logit: Some(0.0) }).collect();
        decide(set, &rows)
    }

    #[test]
    fn copies_are_symmetric_puzzles_and_come_back() {
        for puzzle in puzzles(3) {
            let all: Vec<Example> = copies(&puzzle, 7, 9, 8).collect();
            assert_eq!((all.len(), all[0].tokens.clone()), (8, puzzle.example().tokens));
            for example in &all {
                let copy = Puzzle::new(
                    Size::Nine,
                    example.tokens.iter().map(|t| *t as u8 - 1).collect(),
                    example.answer.tokens().iter().map(|t| *t as u8 - 1).collect(),
                )
                .unwrap();
                assert_eq!(super::super::class(&copy), super::super::class(&puzzle));
                assert_eq!((example.question, example.cluster), (7, 9));
            }
            let distinct: std::collections::BTreeSet<_> = all.iter().map(|e| e.tokens.clone()).collect();
            assert_eq!(distinct.len(), 8);
        }
    }

    #[test]
    fn a_question_is_right_when_any_copy_is() {
        let set = set(&puzzles(2), 8);
        assert!(decided(&set, |_, right| right).iter().all(|d| d.right && d.rows == 8));
        // one copy of eight is right, the others agree on a board against the rules
        let one = decided(&set, |row, right| if row % 8 == 5 { right } else { vec![2; 81] });
        assert!(one.iter().all(|d| d.right), "{one:?}");
        assert!(one[0].attempts[0].source.starts_with("sound: 1 of 8 copies, "), "{one:?}");
        // none is right
        let none = decided(&set, |_, mut right| {
            right.swap(0, 1);
            right
        });
        assert!(
            none.iter().all(|d| !d.right && d.attempts.len() == 1 && d.attempts[0].source.starts_with("none is sound"))
        );
        // what is no board at all has no attempt that is right, and is no panic
        for bad in [vec![], vec![0; 81], vec![99; 81], vec![2; 80]] {
            let decided = decided(&set, |_, _| bad.clone());
            assert!(decided.len() == 2 && decided.iter().all(|d| !d.right));
        }
    }

    #[test]
    fn answers_that_are_left_out_leave_a_question_with_fewer_rows() {
        let set = set(&puzzles(2), 4);
        let answer: Answer = set.examples[2].answer.clone();
        let one = decide(&set, &[RowAnswer { example: 2, answer: &answer, halt_logit: None }]);
        assert!(one.len() == 1 && one[0].rows == 1 && one[0].right && one[0].name == "puzzle 0");
    }
}
