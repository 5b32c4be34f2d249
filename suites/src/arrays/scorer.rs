//! Scorers of the task `arrays`: how right an answer is, and the sums that metrics are made of.
//!
//! In: a label and an answer. Out: a [`Score`] and named pairs of numerator and denominator ([`ScoreSum`]), from which
//! reports make ratios of sums. Must not: look at another example, or take an answer that does not fit its label.
//!
//! A pair of `auroc` is the score of an example and its label (0 or 1); of `r2` the squared error and the squared
//! distance of the label from the mean of all labels.

use std::path::PathBuf;
use std::sync::Arc;

use super::edit::Decoding;
use crate::answer::{Answer, AnswerKind};
use crate::array::{Read, Reading};
use crate::language::scorer::LanguageScorer;
use crate::score::{AnswerScore, Score, ScoreSum};
use ergometer_files::distance;

/// A token of a label that asks for nothing.
pub const IGNORED: u32 = u32::MAX;

/// A program that scores.
#[derive(Clone, Debug, PartialEq)]
pub struct ScorerProgram {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs: the suite file's folder.
    pub folder: PathBuf,
    /// Seconds that it may take in all.
    pub seconds: f64,
}

/// How answers are scored.
#[derive(Clone, Debug, PartialEq)]
pub enum Scorer {
    /// The label is among the k classes of the highest scores.
    Top {
        /// k.
        k: usize,
    },
    /// The score of the positive class is at least the threshold.
    Binary {
        /// See above.
        threshold: Option<f64>,
        /// Which of several values is the positive class's.
        positive: Option<usize>,
    },
    /// Numbers, by their errors.
    Regression {
        /// An answer is right if no number is further off.
        tolerance: Option<f64>,
        /// Mean of the labels, of each number.
        means: Arc<[f64]>,
    },
    /// All tokens, or the class, as in the label; also of tokens of which some ask for nothing.
    Exact,
    /// Edit distance of texts or tokens.
    Edit(Arc<Decoding>),
    /// Masks, by what they share and what they cover together.
    Overlap {
        /// Values at least so large are in the mask; `None`: the answer is classes, of which 0 is the background.
        threshold: Option<f64>,
    },
    /// A program of the user's.
    Program(Arc<ScorerProgram>, Read),
    /// What a language model wrote, or how likely it holds something.
    Language(LanguageScorer),
    /// Nothing is scored: the inputs are random.
    Nothing,
}

impl Scorer {
    /// How answers are read off an output.
    pub fn reading(&self, output: Option<String>, axis: Option<usize>) -> Reading {
        let how = match self {
            Self::Top { k: 1 } | Self::Exact | Self::Edit(_) | Self::Overlap { threshold: None } | Self::Nothing => {
                Read::Argmax
            }
            Self::Program(_, how) => *how,
            _ => Read::Values,
        };
        Reading::Output { output, how, axis }
    }

    /// What answers are, where labels are as this one.
    pub fn answers(&self, label: &Answer) -> AnswerKind {
        match (self.reading(None, None), label) {
            (Reading::Output { how: Read::Values, .. }, _) => AnswerKind::Numbers,
            (Reading::Output { how: Read::Likelihoods, .. }, _) => AnswerKind::Likelihoods,
            (_, Answer::Class(_)) => AnswerKind::Class,
            _ => AnswerKind::Tokens,
        }
    }

    /// Why an answer cannot be scored against a label, in words that follow "the answer to example 3".
    ///
    /// # Errors
    /// See above.
    pub fn fits(&self, label: &Answer, answer: &Answer) -> Result<(), String> {
        let due = |what: &str| Err(format!("is of kind {}, and {what} due", answer.kind().name()));
        let finite = |values: &[f64]| match values.iter().all(|v| v.is_finite()) {
            true => Ok(()),
            false => Err("holds what is no number".to_owned()),
        };
        if let Answer::Numbers(values) | Answer::Likelihoods(values) = answer {
            finite(values)?;
        }
        match (self, label, answer) {
            (Self::Language(scorer), ..) => scorer.fits(label, answer),
            (Self::Nothing | Self::Program(..), ..) | (Self::Top { k: 1 }, _, Answer::Class(_)) => Ok(()),
            (Self::Top { .. }, Answer::Class(label), Answer::Numbers(values) | Answer::Likelihoods(values)) => {
                match (*label as usize) < values.len() {
                    true => Ok(()),
                    false => Err(format!("has {} values, and its label is class {label}", values.len())),
                }
            }
            (Self::Top { k: 1 }, ..) => due("a class is"),
            (Self::Binary { threshold: Some(_), positive: None }, _, Answer::Numbers(values)) if values.len() == 2 => {
                Err("has two values, of which the larger is what it says, and `threshold` is for one: `positive = 1` means the second".into())
            }
            (Self::Binary { positive, .. }, _, Answer::Numbers(values) | Answer::Likelihoods(values)) => {
                positive_place(values.len(), *positive).map(drop)
            }
            (Self::Regression { .. }, Answer::Numbers(wanted), Answer::Numbers(values))
                if wanted.len() != values.len() =>
            {
                Err(format!("has {} numbers, {} are needed", values.len(), wanted.len()))
            }
            (Self::Regression { .. }, _, Answer::Numbers(_)) => Ok(()),
            (
                Self::Overlap { threshold: Some(_) },
                label @ (Answer::Tokens(_) | Answer::Class(_)),
                Answer::Numbers(values),
            ) if cells(label).len() != values.len() => {
                Err(format!("has {} values, its mask {} cells", values.len(), cells(label).len()))
            }
            (Self::Overlap { threshold: Some(_) }, _, Answer::Numbers(_)) => Ok(()),
            (Self::Exact | Self::Overlap { threshold: None }, label, Answer::Tokens(_) | Answer::Class(_)) => {
                let (wanted, given) = (cells(label).len(), cells(answer).len());
                if wanted == given { Ok(()) } else { Err(format!("has {given} cells, {wanted} are needed")) }
            }
            (Self::Edit(decoding), Answer::Text(_), Answer::Tokens(_) | Answer::Class(_)) => {
                decoding.text(&cells(answer)).map(drop)
            }
            (Self::Edit(_), _, Answer::Tokens(_) | Answer::Class(_)) => Ok(()),
            (Self::Exact | Self::Overlap { .. } | Self::Edit(_), ..) => due("tokens are"),
            _ => due("numbers are"),
        }
    }

    /// Scores an answer that [fits](Self::fits). One that a program scores is not right until that has spoken.
    pub fn score(&self, label: &Answer, answer: &Answer) -> AnswerScore {
        match (self, label, answer) {
            (Self::Language(scorer), ..) => scorer.score(label, answer),
            (Self::Top { k }, Answer::Class(label), _) => top(*k, *label, answer),
            (Self::Binary { threshold, positive }, Answer::Class(label), _) => {
                binary(*threshold, *positive, *label == 1, values(answer))
            }
            (Self::Regression { tolerance, means }, Answer::Numbers(wanted), Answer::Numbers(given)) => {
                regression(*tolerance, means, wanted, given)
            }
            (Self::Exact, ..) => {
                AnswerScore { score: score_of_tokens(&cells(label), &cells(answer)), sums: Vec::new() }
            }
            (Self::Edit(decoding), ..) => edit(decoding, label, answer),
            (Self::Overlap { threshold: None }, ..) => overlap(&cells(label), &cells(answer)),
            (Self::Overlap { threshold: Some(least) }, ..) => {
                let mask: Vec<u32> = values(answer).iter().map(|v| u32::from(v >= least)).collect();
                overlap(&cells(label), &mask)
            }
            _ => AnswerScore { score: Score { exact: false, right: 0, cells: 1 }, sums: Vec::new() },
        }
    }

    /// A text that no other scorer has: with another one the same answers have another score. Of a program it is the
    /// command, not what the program is.
    pub fn fingerprint(&self) -> String {
        match self {
            Self::Program(program, how) => format!("Program {:?} {how:?}", program.command),
            other => format!("{other:?}"),
        }
    }

    /// Why there is no accuracy, where no answer can be right or wrong.
    pub fn unscored(&self) -> Option<String> {
        match self {
            Self::Nothing => Some("throughput only: nothing says which answer is right".into()),
            Self::Language(LanguageScorer::Perplexity) => {
                Some("how well a text is predicted is no right or wrong answer: see perplexity".into())
            }
            Self::Regression { tolerance: None, .. } => Some(
                "the scorer `regression` calls no answer right or wrong; with `tolerance` it counts those within it"
                    .into(),
            ),
            _ => None,
        }
    }
}

fn sum(metric: &str, part: u32, numerator: f64, denominator: f64) -> ScoreSum {
    ScoreSum { metric: metric.into(), part, numerator, denominator }
}

/// One thing that is right or not.
fn whole(exact: bool) -> Score {
    Score { exact, right: exact.into(), cells: 1 }
}

/// A class as a row of one token.
fn cells(answer: &Answer) -> Vec<u32> {
    match answer {
        Answer::Class(class) => vec![*class],
        other => other.tokens().to_vec(),
    }
}

fn values(answer: &Answer) -> &[f64] {
    match answer {
        Answer::Numbers(values) | Answer::Likelihoods(values) => values,
        _ => &[],
    }
}

/// Of equal values the earlier one is higher, so that a constant answer is not right by luck.
fn top(k: usize, label: u32, answer: &Answer) -> AnswerScore {
    let rank = match answer {
        Answer::Class(class) => usize::from(*class != label),
        _ => {
            let (values, label) = (values(answer), label as usize);
            let own = values.get(label).copied().unwrap_or(f64::NEG_INFINITY);
            values.iter().enumerate().filter(|(i, v)| **v > own || (**v == own && *i < label)).count()
        }
    };
    let sums = if k > 1 { vec![sum("accuracy_top1", 0, f64::from(u8::from(rank == 0)), 1.0)] } else { Vec::new() };
    AnswerScore { score: whole(rank < k), sums }
}

fn positive_place(values: usize, positive: Option<usize>) -> Result<usize, String> {
    match (values, positive) {
        (n, Some(at)) if at < n => Ok(at),
        (n, Some(at)) => Err(format!("has {n} values, and `positive` is {at}")),
        (1, None) => Ok(0),
        (2, None) => Ok(1),
        (n, None) => Err(format!("has {n} values, and `positive` does not say which is the positive class's")),
    }
}

/// The score that answers are ranked by. Of two values without a word on them it is by how much the second is above the first: of
/// logits and of shares it puts answers into one order, and no rounding makes them equal.
fn positive_score(values: &[f64], positive: Option<usize>) -> f64 {
    if let ([no, yes], None) = (values, positive) {
        return yes - no;
    }
    positive_place(values.len(), positive).ok().and_then(|at| values.get(at)).copied().unwrap_or(0.0)
}

/// One value against the threshold, or which of two is larger.
fn binary(threshold: Option<f64>, positive: Option<usize>, label: bool, values: &[f64]) -> AnswerScore {
    let score = positive_score(values, positive);
    let two = values.len() == 2 && positive.is_none();
    let said = score >= if two { 0.0 } else { threshold.unwrap_or(0.5) };
    let known = if label { "sensitivity" } else { "specificity" };
    let right = f64::from(u8::from(said == label));
    AnswerScore {
        score: whole(said == label),
        sums: vec![sum("auroc", 0, score, f64::from(u8::from(label))), sum(known, 0, right, 1.0)],
    }
}

fn regression(tolerance: Option<f64>, means: &[f64], wanted: &[f64], given: &[f64]) -> AnswerScore {
    let errors = || wanted.iter().zip(given).map(|(w, g)| g - w);
    let n = wanted.len() as f64;
    let squared: f64 = errors().map(|e| e * e).sum();
    let spread: f64 = wanted.iter().zip(means).map(|(w, m)| (w - m).powi(2)).sum();
    let within = errors().filter(|e| tolerance.is_some_and(|t| e.abs() <= t)).count();
    AnswerScore {
        score: Score { exact: within == wanted.len(), right: within as u32, cells: wanted.len() as u32 },
        sums: vec![
            sum("mae", 0, errors().map(f64::abs).sum(), n),
            sum("rmse", 0, squared, n),
            sum("r2", 0, squared, spread),
        ],
    }
}

/// Tokens of the label that ask for nothing do not count.
fn score_of_tokens(label: &[u32], answer: &[u32]) -> Score {
    let counted = || label.iter().zip(answer).filter(|(wanted, _)| **wanted != IGNORED);
    let (cells, right) = (counted().count() as u32, counted().filter(|(wanted, given)| wanted == given).count() as u32);
    Score { exact: right == cells, right, cells }
}

fn edit(decoding: &Decoding, label: &Answer, answer: &Answer) -> AnswerScore {
    let given = cells(answer);
    if let Answer::Text(wanted) = label {
        let given = decoding.text(&given).unwrap_or_default();
        let characters = |text: &str| text.chars().collect::<Vec<char>>();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let (a, b) = (characters(wanted), characters(&given));
        let (v, w) = (words(wanted), words(&given));
        let sums = vec![
            sum("cer", 0, distance(&a, &b) as f64, a.len() as f64),
            sum("wer", 0, distance(&v, &w) as f64, v.len() as f64),
        ];
        return AnswerScore { score: whole(*wanted == given), sums };
    }
    let wanted: Vec<u32> = cells(label).into_iter().filter(|t| *t != IGNORED).collect();
    let given = decoding.tokens(&given);
    let sums = vec![sum("cer", 0, distance(&wanted, &given) as f64, wanted.len() as f64)];
    AnswerScore { score: whole(wanted == given), sums }
}

/// A part for each class but the background that label or answer has.
fn overlap(label: &[u32], mask: &[u32]) -> AnswerScore {
    let mut classes: std::collections::BTreeMap<u32, (u64, u64)> = std::collections::BTreeMap::new();
    for (wanted, given) in label.iter().zip(mask).filter(|(wanted, _)| **wanted != IGNORED) {
        if wanted == given {
            let class = classes.entry(*wanted).or_default();
            *class = (class.0 + 1, class.1 + 1);
        } else {
            classes.entry(*wanted).or_default().1 += 1;
            classes.entry(*given).or_default().1 += 1;
        }
    }
    classes.remove(&0);
    let sums = classes.into_iter().map(|(class, (both, either))| sum("iou", class, both as f64, either as f64));
    AnswerScore { score: score_of_tokens(label, mask), sums: sums.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(scored: &AnswerScore, metric: &str) -> Vec<(u32, f64, f64)> {
        let of = scored.sums.iter().filter(|s| s.metric == metric);
        of.map(|s| (s.part, s.numerator, s.denominator)).collect()
    }

    fn numbers(values: &[f64]) -> Answer {
        Answer::Numbers(values.to_vec())
    }

    #[test]
    fn the_k_highest_count_and_ties_are_the_earlier_ones() {
        let label = Answer::Class(2);
        for (k, values, right, first) in [
            (2, [0.1, 0.9, 0.5], true, 0.0),
            (2, [0.6, 0.9, 0.5], false, 0.0),
            (2, [0.1, 0.2, 0.5], true, 1.0),
            (2, [0.5, 0.5, 0.5], false, 0.0),
            (3, [0.5, 0.5, 0.5], true, 0.0),
        ] {
            let scorer = Scorer::Top { k };
            scorer.fits(&label, &numbers(&values)).unwrap();
            let scored = scorer.score(&label, &numbers(&values));
            assert_eq!((scored.score.exact, found(&scored, "accuracy_top1")), (right, vec![(0, first, 1.0)]));
        }
        let one = Scorer::Top { k: 1 };
        assert!(
            one.score(&label, &Answer::Class(2)).score.exact && one.score(&label, &Answer::Class(2)).sums.is_empty()
        );
        assert!(one.fits(&label, &Answer::Text("2".into())).unwrap_err().contains("a class is due"));
        assert!(Scorer::Top { k: 5 }.fits(&label, &numbers(&[0.0, 1.0])).unwrap_err().contains("label is class 2"));
        assert!(one.fits(&label, &numbers(&[f64::NAN])).is_err());
    }

    #[test]
    fn a_binary_answer_gives_its_score_and_its_side() {
        let scorer = Scorer::Binary { threshold: None, positive: None };
        let scored = scorer.score(&Answer::Class(1), &numbers(&[0.5]));
        assert!(scored.score.exact);
        assert_eq!(
            (found(&scored, "auroc"), found(&scored, "sensitivity")),
            (vec![(0, 0.5, 1.0)], vec![(0, 1.0, 1.0)])
        );
        let scored = scorer.score(&Answer::Class(0), &numbers(&[0.3, 0.7]));
        assert_eq!(
            (found(&scored, "auroc"), found(&scored, "specificity")),
            (vec![(0, 0.7 - 0.3, 0.0)], vec![(0, 0.0, 1.0)])
        );
        // logits of two classes: the larger is what it says, and they are ranked by their difference, however far apart they are
        let scored = scorer.score(&Answer::Class(0), &numbers(&[2.0, 1.0]));
        assert_eq!(found(&scored, "specificity"), vec![(0, 1.0, 1.0)]);
        let ranks = [[0.0, 60.0], [0.0, 61.0], [-900.0, 20.0]]
            .map(|v| found(&scorer.score(&Answer::Class(1), &numbers(&v)), "auroc")[0].1);
        assert_eq!(ranks, [60.0, 61.0, 920.0]);
        // shares that come to 1 but for rounding are shares like the others
        let scored = scorer.score(&Answer::Class(1), &numbers(&[0.1015625, 0.89453125]));
        assert!(scored.score.exact && (found(&scored, "auroc")[0].1 - 0.79296875).abs() < 1e-12);
        let given = Scorer::Binary { threshold: Some(0.75), positive: None };
        assert!(given.fits(&Answer::Class(0), &numbers(&[0.3, 0.7])).unwrap_err().contains("`positive = 1`"));
        let second = Scorer::Binary { threshold: Some(0.75), positive: Some(1) };
        assert!(!second.score(&Answer::Class(1), &numbers(&[0.3, 0.7])).score.exact);
        assert!(given.score(&Answer::Class(0), &numbers(&[0.7])).score.exact);
        assert!(scorer.fits(&Answer::Class(0), &numbers(&[0.1, 0.2, 0.3])).unwrap_err().contains("`positive`"));
        assert!(
            Scorer::Binary { threshold: None, positive: Some(2) }.fits(&Answer::Class(0), &numbers(&[0.1])).is_err()
        );
    }

    #[test]
    fn errors_of_numbers_are_summed() {
        let scorer = Scorer::Regression { tolerance: Some(0.5), means: vec![1.0, 2.0].into() };
        let scored = scorer.score(&numbers(&[1.0, 4.0]), &numbers(&[1.5, 1.0]));
        assert_eq!((scored.score.exact, scored.score.right, scored.score.cells), (false, 1, 2));
        assert_eq!(found(&scored, "mae"), [(0, 3.5, 2.0)]);
        assert_eq!(found(&scored, "rmse"), [(0, 9.25, 2.0)]);
        assert_eq!(found(&scored, "r2"), [(0, 9.25, 4.0)]);
        assert!(scorer.fits(&numbers(&[1.0]), &numbers(&[1.0, 2.0])).unwrap_err().contains("1 are needed"));
        assert!(Scorer::Regression { tolerance: None, means: vec![].into() }.unscored().is_some());
        assert!(scorer.unscored().is_none() && Scorer::Nothing.unscored().unwrap().contains("throughput only"));
    }

    #[test]
    fn tokens_that_ask_for_nothing_do_not_count() {
        let label = Answer::Tokens(vec![1, IGNORED, 3]);
        let scored = Scorer::Exact.score(&label, &Answer::Tokens(vec![1, 7, 3]));
        assert_eq!((scored.score.exact, scored.score.right, scored.score.cells), (true, 2, 2));
        let scored = Scorer::Exact.score(&label, &Answer::Tokens(vec![1, 7, 4]));
        assert_eq!((scored.score.exact, scored.score.right, scored.score.cells), (false, 1, 2));
        assert!(Scorer::Exact.fits(&label, &Answer::Tokens(vec![1])).unwrap_err().contains("3 are needed"));
        assert!(Scorer::Exact.score(&Answer::Class(4), &Answer::Class(4)).score.exact);
    }

    #[test]
    fn texts_are_compared_by_characters_and_by_words() {
        let alphabet = ["", "a", "b", "ü", " "].map(String::from).to_vec();
        let scorer = Scorer::Edit(Arc::new(Decoding { alphabet: Some(alphabet), blank: Some(0) }));
        let label = Answer::Text("ab üa".into());
        let scored = scorer.score(&label, &Answer::Tokens(vec![1, 1, 0, 2, 4, 3, 3, 2]));
        assert!(!scored.score.exact);
        assert_eq!((found(&scored, "cer"), found(&scored, "wer")), (vec![(0, 1.0, 5.0)], vec![(0, 1.0, 2.0)]));
        assert!(scorer.fits(&label, &Answer::Tokens(vec![9])).unwrap_err().contains("token 9"));
        let tokens = Scorer::Edit(Arc::new(Decoding { alphabet: None, blank: None }));
        let scored = tokens.score(&Answer::Tokens(vec![1, 2, IGNORED]), &Answer::Tokens(vec![1, 3, 3]));
        assert_eq!((found(&scored, "cer"), found(&scored, "wer")), (vec![(0, 2.0, 2.0)], vec![]));
    }

    #[test]
    fn masks_have_a_part_for_each_class() {
        let scorer = Scorer::Overlap { threshold: None };
        let label = Answer::Tokens(vec![0, 1, 1, 2, IGNORED]);
        let scored = scorer.score(&label, &Answer::Tokens(vec![0, 1, 2, 2, 1]));
        assert_eq!(found(&scored, "iou"), [(1, 1.0, 2.0), (2, 1.0, 2.0)]);
        assert_eq!((scored.score.right, scored.score.cells), (3, 4));
        let values = Scorer::Overlap { threshold: Some(0.5) };
        let scored = values.score(&label, &numbers(&[0.9, 0.5, 0.1, 0.0, 0.0]));
        assert_eq!(found(&scored, "iou"), [(1, 1.0, 3.0), (2, 0.0, 1.0)]);
        // a mask of nothing that is answered by nothing has no part
        assert!(scorer.score(&Answer::Tokens(vec![0, 0]), &Answer::Tokens(vec![0, 0])).sums.is_empty());
    }
}
