//! Tests of the official rule: votes, two attempts, every output.
//!
//! In: questions made by hand, answers. Out: verdicts. Must not: need a model.

use super::*;

/// One question of one part with so many rows, each a variant of the pair.
fn question(variants: &[u32], input: &str, output: &str) -> ExampleSet {
    let example = |&code: &u32| {
        let variant = TaskVariant::of_code(code).unwrap();
        let make = |rows| encode(&variant.apply(&grid(rows)), 5);
        Example { tokens: make(input), answer: make(output).into(), variant: code, cluster: 4, ..Example::default() }
    };
    ExampleSet {
        examples: variants.iter().map(example).collect(),
        vocabulary: 12,
        puzzle_ids: 1,
        numbering: None,
        questions: vec!["q".into()],
        baselines: Vec::new(),
        notes: Vec::new(),
        ..ExampleSet::default()
    }
}

/// Decides by answers to the examples in order, as grids before the variant; an empty one is an answer without a grid.
fn decide(set: &ExampleSet, answers: &[(&str, Option<f64>)]) -> Vec<Decision> {
    let tokens = |(example, rows): (&Example, &str)| match rows {
        "" => vec![EOS; 25],
        rows => encode(&TaskVariant::of_code(example.variant).unwrap().apply(&grid(rows)), 5),
    };
    let rows = set.examples.iter().zip(answers.iter().map(|a| a.0));
    let told: Vec<Answer> = rows.map(|row| tokens(row).into()).collect();
    let answer = |example: usize| RowAnswer { example, answer: &told[example], halt_logit: answers[example].1 };
    let mut answers: Vec<RowAnswer> = (0..answers.len()).map(answer).collect();
    let decided = TASK.decide.unwrap()(set, &answers);
    answers.reverse();
    assert_eq!(TASK.decide.unwrap()(set, &answers), decided, "the order of rows does not matter");
    decided
}

/// Whether the question is right, and its attempts.
fn told(set: &ExampleSet, answers: &[(&str, Option<f64>)]) -> (bool, Vec<(u32, String, bool)>) {
    let decision = decide(set, answers).remove(0);
    assert_eq!((decision.cluster, decision.name.as_str(), decision.parts), (4, "q", 1));
    assert_eq!(decision.rows as usize, answers.len());
    assert_eq!(u32::from(decision.right), decision.parts_right);
    (decision.right, decision.attempts.into_iter().map(|a| (a.number, a.source, a.right)).collect())
}

fn attempts(of: [(&str, bool); 2]) -> Vec<(u32, String, bool)> {
    (1..).zip(of).map(|(number, (source, right))| (number, source.to_owned(), right)).collect()
}

#[test]
fn the_two_grids_with_most_rows_are_the_attempts() {
    let set = question(&[0, 3, 8 * 1000 + 5, 8 * 362_879 + 1, 7], "12 30", "45 00");
    let none = |answers: [&'static str; 5]| answers.map(|a| (a, None));
    let first = told(&set, &none(["45 00", "45 00", "11", "45 00", "7"]));
    assert_eq!(first, (true, attempts([("vote 1 of 3: 3 of 5 rows", true), ("vote 2 of 3: 1 of 5 rows", false)])));
    let second = told(&set, &none(["45 00", "45 00", "11", "11", "11"]));
    assert_eq!(second, (true, attempts([("vote 1 of 2: 3 of 5 rows", false), ("vote 2 of 2: 2 of 5 rows", true)])));
    let third = told(&set, &none(["45 00", "77", "77", "11", "11"]));
    assert_eq!(third, (false, attempts([("vote 1 of 3: 2 of 5 rows", false), ("vote 2 of 3: 2 of 5 rows", false)])));
    let agreed = told(&set, &none(["45 00"; 5]));
    assert_eq!(
        agreed,
        (true, attempts([("vote 1 of 1: 5 of 5 rows", true), ("no second vote: all 5 rows agree", false)]))
    );
    // no grid is a vote too, and never right
    let silent = told(&set, &none(["", "", "11", "11", ""]));
    let sources = [("vote 1 of 2: 3 of 5 rows, no grid", false), ("vote 2 of 2: 2 of 5 rows", false)];
    assert_eq!(silent, (false, attempts(sources)));
    let alone = told(&question(&[0], "1", "2"), &[("2", None)]);
    assert_eq!(alone, (true, attempts([("vote 1 of 1: 1 of 1 rows", true), ("no second vote: one row", false)])));
}

#[test]
fn ties_go_to_the_surer_halting_head_and_then_to_the_smaller_grid() {
    let set = question(&[0, 1, 2, 3], "12", "45");
    let order = |logits: [f64; 4]| {
        let (right, attempts) = told(
            &set,
            &[("45", Some(logits[0])), ("11", Some(logits[1])), ("9", Some(logits[2])), ("9", Some(logits[3]))],
        );
        assert_eq!(right, attempts[1].2);
        attempts[1].2
    };
    // `9` has two rows and is first; `45` and `11` have one row each
    assert!(order([2.0, 1.0, 0.0, 0.0]));
    assert!(!order([1.0, 2.0, 0.0, 0.0]));
    assert!(!order([1.0, 1.0, 0.0, 0.0]), "`11` is the smaller one");
    assert!(!order([f64::NAN, -50.0, 0.0, 0.0]));
    // the mean counts, not the sum: 0.5 and 0.5 against 0.6 and 0.2 of as many rows
    let (_, attempts) = told(&set, &[("45", Some(0.4)), ("11", Some(0.0)), ("45", Some(-1.4)), ("11", Some(0.0))]);
    assert!(!attempts[0].2 && attempts[1].2, "{attempts:?}");
}

#[test]
fn a_question_is_right_if_every_part_is() {
    let mut set = question(&[0, 1], "12", "45");
    for (part, number, output) in [(1, 0, "6"), (1, 1, "6"), (0, 0, "8")] {
        let variant = TaskVariant::turn(number);
        let question = u64::from(output == "8");
        let answer = encode(&variant.apply(&grid(output)), 5);
        let tokens = answer.clone();
        let answer = answer.into();
        set.examples.push(Example { tokens, answer, variant: number, question, part, ..Example::default() });
    }
    set.questions.push("p".into());
    let told = |answers: [&str; 5]| {
        let decisions = decide(&set, &answers.map(|a| (a, None)));
        decisions.iter().map(|d| (d.name.clone(), d.right, d.parts_right, d.parts, d.rows)).collect::<Vec<_>>()
    };
    let q = |right, parts| ("q".to_owned(), right, parts, 2, 4);
    let p = |right| ("p".to_owned(), right, u32::from(right), 1, 1);
    assert_eq!(told(["45", "1", "6", "1", "8"]), [q(true, 2), p(true)]);
    assert_eq!(told(["45", "45", "1", "1", "1"]), [q(false, 1), p(false)]);
    // a part that nobody answered is not right
    let missing = decide(&set, &[("45", None), ("45", None)]);
    assert_eq!((missing[0].right, missing[0].parts_right, missing[0].parts, missing[0].rows), (false, 1, 2, 2));
    assert_eq!((missing[1].right, missing[1].rows, missing[1].attempts.len()), (false, 0, 0));
}

/// The official examples of scoring: a task of two tests is solved only by two right outputs, of two trials each.
#[test]
fn a_task_of_two_tests_needs_both() {
    let set = file_set("side = 5\naugmentations = 3").unwrap();
    let answer = |wrong: &dyn Fn(&Example) -> bool| {
        let told = |e: &Example| if wrong(e) { e.tokens.clone().into() } else { e.answer.clone() };
        let told: Vec<Answer> = set.examples.iter().map(told).collect();
        let answers = (0..told.len()).map(|example| RowAnswer { example, answer: &told[example], halt_logit: None });
        let decisions = TASK.decide.unwrap()(&set, &answers.collect::<Vec<_>>());
        decisions.iter().map(|d| (d.right, d.parts_right)).collect::<Vec<_>>()
    };
    assert_eq!(answer(&|_| false), [(true, 1), (true, 2)]);
    // the copy is right for the second test of `b` alone
    assert_eq!(answer(&|_| true), [(false, 0), (false, 1)]);
    // two of three rows wrong, each in its own way once undone or not: the right one is the second vote at worst
    assert_eq!(answer(&|e| e.variant != 0), [(true, 1), (true, 2)]);
}
