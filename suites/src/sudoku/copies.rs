//! Several rows for a puzzle as one question: symmetric copies of it, or chains of a recursive net from noisy starts. A
//! model answers each, answers of copies are mapped back, and the one that is a sound board is handed in. Breadth at test
//! time, as depth is the number of steps.
//!
//! In: puzzles and a number of rows; answers. Out: examples, [`Decision`]s. Must not: look at the solution when it
//! chooses an answer.
//!
//! A puzzle has one solution, so a board that keeps the clues and the rules is right, and whoever answers can check
//! that: a question is right when any of its rows is. It is no vote, and is called `any of N copies` or `any of N
//! chains`.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::Puzzle;
use super::board::{Size, is_solved};
use super::symmetry::Symmetry;
use crate::error::SuiteError;
use crate::task::{Decision, Example, ExampleSet, RowAnswer, ScoredAttempt, StartNoise};
use crate::toml_table::Keys;

/// Most rows of a puzzle.
const MAX_ROWS: u64 = 64;

/// Largest noise: states of trained nets are of about 1.
const MAX_NOISE: f64 = 10.0;

/// The rows by which each puzzle is answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Breadth {
    /// The puzzle as it is.
    One,
    /// So many symmetric copies, the puzzle itself first.
    Copies(u32),
    /// The puzzle so many times, for a recursive net that starts elsewhere each time, the first time as it learned to.
    Chains {
        /// How many.
        n: u32,
        /// Standard deviation of what is added to the start.
        noise: f64,
    },
}

impl Breadth {
    /// What a suite asks for by `copies`, or `chains` and `noise`.
    pub fn of(keys: &Keys) -> Result<Self, SuiteError> {
        let copies = keys.integer("copies", 1..=MAX_ROWS)?.unwrap_or(1) as u32;
        let chains = keys.integer("chains", 1..=MAX_ROWS)?.unwrap_or(1) as u32;
        let noise = keys.get("noise", &format!("a number above 0 and at most {MAX_NOISE}"), |v| {
            let noise = v.as_float().or_else(|| v.as_integer().map(|n| n as f64))?;
            (noise > 0.0 && noise <= MAX_NOISE).then_some(noise)
        })?;
        match (copies, chains, noise) {
            (1, 1, None) => Ok(Self::One),
            (n, 1, None) => Ok(Self::Copies(n)),
            (1, n, Some(noise)) if n > 1 => Ok(Self::Chains { n, noise }),
            (1, 1, Some(_)) => Err(SuiteError::new("is of chains, and none are asked for")
                .at(keys.place("noise"))
                .hint("write `chains = N` beside it, or leave it out")),
            (1, _, None) => Err(SuiteError::new("all chains would be the same")
                .at(keys.place("chains"))
                .hint("write `noise = S` beside it: the standard deviation of what is added to the start of every state, such as 0.5")),
            _ => Err(SuiteError::new("does not go with `copies`")
                .at(keys.place("chains"))
                .hint("give each a task of its own, so that one is compared with the other")),
        }
    }

    /// A puzzle's rows, as examples of the question of this number and cluster.
    pub fn rows(self, puzzle: &Puzzle, question: u64, cluster: u64) -> impl Iterator<Item = Example> + '_ {
        let n = match self {
            Self::One => 1,
            Self::Copies(n) | Self::Chains { n, .. } => n,
        };
        (0..n).map(move |variant| match self {
            Self::Chains { noise, .. } => {
                let seed = question.wrapping_mul(MAX_ROWS) + u64::from(variant);
                let start = (variant > 0).then_some(StartNoise { scale: noise, seed });
                // the variant is that of the board, which is the same
                Example { question, cluster, start, ..puzzle.example() }
            }
            _ => {
                let copy = symmetry(puzzle.size, variant).map_or_else(|| puzzle.clone(), |s| s.apply(puzzle));
                Example { question, variant, cluster, ..copy.example() }
            }
        })
    }
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
    let (mut cluster, mut truth, mut word) = (0, None, "copies");
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
        if example.start.is_some() {
            word = "chains";
        }
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
            let of = format!("{} of {} {word}, {distinct} answers", ballot.rows, rows.len());
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
        let examples = (0..).zip(puzzles).flat_map(|(q, p)| Breadth::Copies(n).rows(p, q, 9)).collect();
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
            let all: Vec<Example> = Breadth::Copies(8).rows(&puzzle, 7, 9).collect();
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
    fn chains_are_the_puzzle_again_from_other_starts() {
        let puzzle = &puzzles(1)[0];
        let chains = Breadth::Chains { n: 4, noise: 0.5 };
        let rows: Vec<Example> = [0, 1].iter().flat_map(|q| chains.rows(puzzle, *q, 9)).collect();
        assert!(rows.iter().all(|e| e.tokens == puzzle.example().tokens && e.variant == 0));
        assert!(rows[0].start.is_none() && rows[4].start.is_none(), "the first starts as learned");
        let seeds: std::collections::BTreeSet<u64> = rows.iter().filter_map(|e| Some(e.start?.seed)).collect();
        assert_eq!(seeds.len(), 6, "no two chains have one start");
        let questions = vec!["a".into(), "b".into()];
        let set = ExampleSet { questions, ..super::super::set(Size::Nine, &[], Vec::new(), false) }.with(rows);
        // one chain of four is right
        let one = decided(&set, |row, right| if row % 4 == 3 { right } else { vec![2; 81] });
        assert!(one.iter().all(|d| d.right && d.rows == 4), "{one:?}");
        assert!(one[0].attempts[0].source.starts_with("sound: 1 of 4 chains, "), "{one:?}");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let of = |text: &str| Breadth::of(&Keys::of_table(&text.parse().unwrap()));
        assert_eq!(of("").unwrap(), Breadth::One);
        assert_eq!(of("copies = 8").unwrap(), Breadth::Copies(8));
        assert_eq!(of("chains = 8\nnoise = 1").unwrap(), Breadth::Chains { n: 8, noise: 1.0 });
        for (text, words) in [
            ("chains = 8", "noise = S"),
            ("noise = 0.5", "chains = N"),
            ("chains = 8\nnoise = 0.5\ncopies = 2", "does not go with `copies`"),
            ("chains = 8\nnoise = 0.0", "a number above 0"),
            ("chains = 8\nnoise = 1e9", "a number above 0"),
            ("chains = 65\nnoise = 0.5", "64"),
        ] {
            let said = of(text).unwrap_err().to_string();
            assert!(said.contains(words) && said.contains("hint: "), "{text}: {said}");
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
